/* The box gradient's inner loops: the sums behind a box's gradient. */
#ifndef CROPKIT_GRAD_BOXES_H
#define CROPKIT_GRAD_BOXES_H

#include "_simd.h"

/* Sums that do not depend on the width of a vector: value f goes to lane f % 8, each lane
 * is one chain, and the lanes are folded 8 to 4 to 2 to 1. */
enum { CROPKIT_LANES = 8 };

static inline double cropkit_fold(const double *lanes)
{
    const double a = lanes[0] + lanes[4], b = lanes[1] + lanes[5];
    const double c = lanes[2] + lanes[6], d = lanes[3] + lanes[7];
    return (a + c) + (b + d);
}

static double cropkit_lane_sum(const double *values, ptrdiff_t n)
{
    double lanes[CROPKIT_LANES] = {0};
    ptrdiff_t f = 0;
    for (; f + CROPKIT_LANES <= n; f += CROPKIT_LANES)
        for (int k = 0; k < CROPKIT_LANES; k++)
            lanes[k] += values[f + k];
    for (; f < n; f++)
        lanes[f % CROPKIT_LANES] += values[f];
    return cropkit_fold(lanes);
}

#define CROPKIT_DOUBLES (CROPKIT_VECTOR_BYTES / (int)sizeof(double))
typedef double cropkit_doubles __attribute__((
    vector_size(CROPKIT_VECTOR_BYTES), aligned(8), may_alias));

/* Not __builtin_convertvector: GCC 12 splits it into halves, a third slower in all. */
static inline __attribute__((always_inline)) void cropkit_widen_f32(
    cropkit_doubles *to, const float *p)
{
#if defined(__AVX512F__)
    *to = (cropkit_doubles)_mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(__AVX2__)
    *to = (cropkit_doubles)_mm256_cvtps_pd(_mm_loadu_ps(p));
#elif defined(__SSE2__)
    *to = (cropkit_doubles)_mm_cvtps_pd(
        _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)p)));
#else
    for (int k = 0; k < CROPKIT_DOUBLES; k++)
        (*to)[k] = p[k];
#endif
}
static inline __attribute__((always_inline)) void cropkit_widen_f64(
    cropkit_doubles *to, const double *p)
{
    *to = *(const cropkit_doubles *)p;
}

/* Values of a crop row: g times the slope along y goes into the lanes, g times the slope
 * along x into `across`. Flat, for a depth below 8: value f of the row has lane f % 8 and
 * across[f], and weights are given per value. Deep: channel c of a pixel has lane c % 8
 * and, of the pixel's own, across[c % 8]; so a sum stays in a register from the pixel's
 * first channel to its last. */
#define CROPKIT_SLOPES(NAME, o, w)                                                       \
    cropkit_doubles a, b, c, d, q;                                                       \
    cropkit_widen_##NAME(&a, tl + (o));                                                  \
    cropkit_widen_##NAME(&b, tr + (o));                                                  \
    cropkit_widen_##NAME(&c, bl + (o));                                                  \
    cropkit_widen_##NAME(&d, br + (o));                                                  \
    cropkit_widen_##NAME(&q, g + (o));                                                   \
    const cropkit_doubles down = q * ((1 - (w)) * (c - a) + (w) * (d - b));              \
    const cropkit_doubles along = q * (up * (b - a) + wy * (d - c));

#define CROPKIT_SLOPES_ONE(f, w)                                                         \
    const double a = tl[f], b = tr[f], c = bl[f], d = br[f], q = g[f];                   \
    const double down = q * ((1 - (w)) * (c - a) + (w) * (d - b));                       \
    const double along = q * (up * (b - a) + wy * (d - c));

#define CROPKIT_DEFINE_SLOPES(TAP, NAME)                                                 \
    static double cropkit_flat_slopes_##NAME(double *restrict across, const TAP *g,      \
        const TAP *tl, const TAP *tr, const TAP *bl, const TAP *br,                      \
        const double *weights, double wy, ptrdiff_t n)                                   \
    {                                                                                    \
        const double up = 1 - wy;                                                        \
        double lanes[CROPKIT_LANES];                                                     \
        cropkit_doubles sums[CROPKIT_LANES / CROPKIT_DOUBLES] = {{0}};                   \
        ptrdiff_t f = 0;                                                                 \
        for (; f + CROPKIT_LANES <= n; f += CROPKIT_LANES)                               \
            for (int k = 0; k < CROPKIT_LANES / CROPKIT_DOUBLES; k++) {                  \
                const ptrdiff_t o = f + k * CROPKIT_DOUBLES;                             \
                const cropkit_doubles w = *(const cropkit_doubles *)(weights + o);       \
                CROPKIT_SLOPES(NAME, o, w)                                               \
                sums[k] += down;                                                         \
                *(cropkit_doubles *)(across + o) += along;                               \
            }                                                                            \
        memcpy(lanes, sums, sizeof sums);                                                \
        for (; f < n; f++) {                                                             \
            CROPKIT_SLOPES_ONE(f, weights[f])                                            \
            lanes[f % CROPKIT_LANES] += down;                                            \
            across[f] += along;                                                          \
        }                                                                                \
        return cropkit_fold(lanes);                                                      \
    }                                                                                    \
                                                                                         \
    /* Taps at top and bottom, at lo and hi pixels of stride_x values. */                \
    static double cropkit_deep_slopes_##NAME(double *restrict across, const TAP *g,      \
        const TAP *top, const TAP *bottom, const ptrdiff_t *lo, const ptrdiff_t *hi,     \
        ptrdiff_t stride_x, const double *weights, double wy, ptrdiff_t n,               \
        ptrdiff_t depth)                                                                 \
    {                                                                                    \
        const double up = 1 - wy;                                                        \
        double lanes[CROPKIT_LANES];                                                     \
        cropkit_doubles sums[CROPKIT_LANES / CROPKIT_DOUBLES] = {{0}};                   \
        for (ptrdiff_t i = 0; i < n; i++, g += depth, across += CROPKIT_LANES) {         \
            const TAP *tl = top + lo[i] * stride_x, *tr = top + hi[i] * stride_x;        \
            const TAP *bl = bottom + lo[i] * stride_x, *br = bottom + hi[i] * stride_x;  \
            const double w = weights[i];                                                 \
            cropkit_doubles along_x[CROPKIT_LANES / CROPKIT_DOUBLES];                    \
            ptrdiff_t f = 0;                                                             \
            memcpy(along_x, across, sizeof along_x);                                     \
            for (; f + CROPKIT_LANES <= depth; f += CROPKIT_LANES)                       \
                for (int k = 0; k < CROPKIT_LANES / CROPKIT_DOUBLES; k++) {              \
                    CROPKIT_SLOPES(NAME, f + k * CROPKIT_DOUBLES, w)                     \
                    sums[k] += down;                                                     \
                    along_x[k] += along;                                                 \
                }                                                                        \
            memcpy(across, along_x, sizeof along_x);                                     \
            if (f < depth) {                                                             \
                memcpy(lanes, sums, sizeof sums);                                        \
                for (; f < depth; f++) {                                                 \
                    CROPKIT_SLOPES_ONE(f, w)                                             \
                    lanes[f % CROPKIT_LANES] += down;                                    \
                    across[f % CROPKIT_LANES] += along;                                  \
                }                                                                        \
                memcpy(sums, lanes, sizeof sums);                                        \
            }                                                                            \
        }                                                                                \
        memcpy(lanes, sums, sizeof sums);                                                \
        return cropkit_fold(lanes);                                                      \
    }

/* Lay the taps of n samples out as a crop row: left ones, right ones. Depth is below 8, and
 * a loop for each lets the compiler unroll the copies. */
#define CROPKIT_PICK(DEPTH)                                                              \
    for (ptrdiff_t i = 0; i < n; i++)                                                    \
        for (int c = 0; c < DEPTH; c++) {                                                \
            left[i * DEPTH + c] = row[lo[i] * stride_x + c];                             \
            right[i * DEPTH + c] = row[hi[i] * stride_x + c];                            \
        }                                                                                \
    break;

#define CROPKIT_DEFINE_PICK_TAPS(TAP, NAME, PIXEL, GET3)                                 \
    static void cropkit_pick_taps_##NAME(TAP *restrict left, TAP *restrict right,        \
        const TAP *restrict row, const ptrdiff_t *lo, const ptrdiff_t *hi,               \
        ptrdiff_t stride_x, ptrdiff_t n, ptrdiff_t depth)                                \
    {                                                                                    \
        switch (depth) {                                                                 \
        case 1: CROPKIT_PICK(1)                                                          \
        case 2: CROPKIT_PICK(2)                                                          \
        case 3: /* A store writes one value too many, which the next one mends. */       \
            for (ptrdiff_t i = 0; i < n - 1; i++) {                                      \
                PIXEL a, b;                                                              \
                GET3(a, row + lo[i] * stride_x);                                         \
                GET3(b, row + hi[i] * stride_x);                                         \
                *(PIXEL *)(left + 3 * i) = a;                                            \
                *(PIXEL *)(right + 3 * i) = b;                                           \
            }                                                                            \
            memcpy(left + 3 * (n - 1), row + lo[n - 1] * stride_x, 3 * sizeof(TAP));     \
            memcpy(right + 3 * (n - 1), row + hi[n - 1] * stride_x, 3 * sizeof(TAP));    \
            break;                                                                       \
        case 4: CROPKIT_PICK(4)                                                          \
        default: CROPKIT_PICK(depth)                                                     \
        }                                                                                \
    }

CROPKIT_DEFINE_PICK_TAPS(float, f32, cropkit_pixel_f32, CROPKIT_GET3_F32)
CROPKIT_DEFINE_PICK_TAPS(double, f64, cropkit_pixel_f64, CROPKIT_GET3_F64)

CROPKIT_DEFINE_SLOPES(float, f32)
CROPKIT_DEFINE_SLOPES(double, f64)

#endif
