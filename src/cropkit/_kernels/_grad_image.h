/* The image gradient's inner loops: what a crop row adds to an image row, and a finished
 * row's way into the result.
 *
 * Additions keep the operator's order; nothing is fused or reassociated. Rows that are
 * added to have their pixels padded to whole vectors where depth is 2 or 3, so that a
 * pixel is one load and one store.
 */
#ifndef CROPKIT_GRAD_IMAGE_H
#define CROPKIT_GRAD_IMAGE_H

#include "_pixels.h"
#include "_simd.h"

/* ---- depth 1 to 4: a pixel is one value ------------------------------------------- */

/* Add n crop pixels at g, step apart, to the image rows top and bottom at the offsets lo
 * and hi, with the weights wx and wy. `same` says that the two rows are one.
 *
 * The sums of the current two taps stay in registers until the taps move, and a tap that
 * is the next pixel's too moves on with them: when magnifying, no sum waits for its own
 * way through the store buffer. A sample on a pixel reads it twice (lo == hi) and goes
 * through memory. */
#define CROPKIT_DEFINE_SCATTER(REAL, PIXEL, NAME, GET)                                   \
    static inline __attribute__((always_inline)) void cropkit_scatter_pixels_##NAME(     \
        REAL *top, REAL *bottom, const REAL *g, ptrdiff_t step, const ptrdiff_t *lo,     \
        const ptrdiff_t *hi, const REAL *wx, REAL wy, ptrdiff_t n, const int same)       \
    {                                                                                    \
        const REAL up = 1 - wy;                                                          \
        PIXEL tl = {0}, tr = {0}, bl = {0}, br = {0};                                    \
        ptrdiff_t left = -1, right = -1;                                                 \
        for (ptrdiff_t i = 0; i < n; i++, g += step) {                                   \
            PIXEL pixel;                                                                 \
            GET(pixel, g);                                                               \
            const PIXEL t = up * pixel, b = wy * pixel;                                  \
            const REAL w = wx[i], v = 1 - w;                                             \
            const ptrdiff_t l = lo[i], r = hi[i];                                        \
            if (l != left || r != right) {                                               \
                if (left >= 0) {                                                         \
                    *(PIXEL *)(top + left) = tl;                                         \
                    *(PIXEL *)(top + right) = tr;                                        \
                    if (!same) {                                                         \
                        *(PIXEL *)(bottom + left) = bl;                                  \
                        *(PIXEL *)(bottom + right) = br;                                 \
                    }                                                                    \
                }                                                                        \
                if (l == r) {                                                            \
                    PIXEL sum = *(PIXEL *)(top + l) + v * t + w * t;                     \
                    if (same)                                                            \
                        sum = sum + v * b + w * b;                                       \
                    else                                                                 \
                        *(PIXEL *)(bottom + l) = *(PIXEL *)(bottom + l) + v * b + w * b; \
                    *(PIXEL *)(top + l) = sum;                                           \
                    left = right = -1;                                                   \
                    continue;                                                            \
                }                                                                        \
                const PIXEL old_tl = tl, old_bl = bl;                                    \
                if (l == right) {                                                        \
                    tl = tr;                                                             \
                    bl = br;                                                             \
                } else {                                                                 \
                    tl = *(PIXEL *)(top + l);                                            \
                    if (!same)                                                           \
                        bl = *(PIXEL *)(bottom + l);                                     \
                }                                                                        \
                if (r == left) {                                                         \
                    tr = old_tl;                                                         \
                    br = old_bl;                                                         \
                } else {                                                                 \
                    tr = *(PIXEL *)(top + r);                                            \
                    if (!same)                                                           \
                        br = *(PIXEL *)(bottom + r);                                     \
                }                                                                        \
                left = l;                                                                \
                right = r;                                                               \
            }                                                                            \
            tl += v * t;                                                                 \
            tr += w * t;                                                                 \
            if (same) {                                                                  \
                tl += v * b;                                                             \
                tr += w * b;                                                             \
            } else {                                                                     \
                bl += v * b;                                                             \
                br += w * b;                                                             \
            }                                                                            \
        }                                                                                \
        if (left >= 0) {                                                                 \
            *(PIXEL *)(top + left) = tl;                                                 \
            *(PIXEL *)(top + right) = tr;                                                \
            if (!same) {                                                                 \
                *(PIXEL *)(bottom + left) = bl;                                          \
                *(PIXEL *)(bottom + right) = br;                                         \
            }                                                                            \
        }                                                                                \
    }                                                                                    \
                                                                                         \
    static void cropkit_scatter##NAME(REAL *top, REAL *bottom, const REAL *g,            \
        ptrdiff_t step, const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *wx,        \
        REAL wy, ptrdiff_t n)                                                            \
    {                                                                                    \
        if (top == bottom)                                                               \
            cropkit_scatter_pixels_##NAME(top, bottom, g, step, lo, hi, wx, wy, n, 1);   \
        else                                                                             \
            cropkit_scatter_pixels_##NAME(top, bottom, g, step, lo, hi, wx, wy, n, 0);   \
    }                                                                                    \
                                                                                         \
    static void cropkit_drop##NAME(REAL *row, const REAL *g, ptrdiff_t step,             \
        const ptrdiff_t *index, ptrdiff_t n)                                             \
    {                                                                                    \
        ptrdiff_t at = index[0];                                                         \
        PIXEL sum = *(PIXEL *)(row + at);                                                \
        for (ptrdiff_t i = 0; i < n; i++, g += step) {                                   \
            if (index[i] != at) {                                                        \
                *(PIXEL *)(row + at) = sum;                                              \
                at = index[i];                                                           \
                sum = *(PIXEL *)(row + at);                                              \
            }                                                                            \
            PIXEL pixel;                                                                 \
            GET(pixel, g);                                                               \
            sum += pixel;                                                                \
        }                                                                                \
        *(PIXEL *)(row + at) = sum;                                                      \
    }

CROPKIT_DEFINE_SCATTER(float, float, 1_f32, CROPKIT_GET1_F32)
CROPKIT_DEFINE_SCATTER(float, cropkit_pixel_f32, 2_f32, CROPKIT_GET2_F32)
CROPKIT_DEFINE_SCATTER(float, cropkit_pixel_f32, 3_f32, CROPKIT_GET3_F32)
CROPKIT_DEFINE_SCATTER(float, cropkit_pixel_f32, 4_f32, CROPKIT_GET4_F32)
CROPKIT_DEFINE_SCATTER(double, double, 1_f64, CROPKIT_GET1_F64)
CROPKIT_DEFINE_SCATTER(double, cropkit_pixel_f64, 2_f64, CROPKIT_GET2_F64)
CROPKIT_DEFINE_SCATTER(double, cropkit_pixel_f64, 3_f64, CROPKIT_GET3_F64)
CROPKIT_DEFINE_SCATTER(double, cropkit_pixel_f64, 4_f64, CROPKIT_GET4_F64)

/* ---- any depth: along the channels ------------------------------------------------ */

static inline void cropkit_prefetch_pixel(const char *g, ptrdiff_t bytes)
{
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        cropkit_prefetch_page_ahead(g + i);
}

/* One crop pixel's channels. Four rows that do not overlap, or fewer where taps fall
 * together; each loop vectorizes. */
#define CROPKIT_DEFINE_SCATTER_CHANNELS(REAL, NAME)                                      \
    static inline void cropkit_add_four_##NAME(REAL *restrict tl, REAL *restrict tr,     \
        REAL *restrict bl, REAL *restrict br, const REAL *restrict g, REAL wx, REAL wy,  \
        ptrdiff_t depth)                                                                 \
    {                                                                                    \
        const REAL v = 1 - wx, up = 1 - wy;                                              \
        for (ptrdiff_t c = 0; c < depth; c++) {                                          \
            const REAL t = up * g[c], b = wy * g[c];                                     \
            tl[c] += v * t;                                                              \
            tr[c] += wx * t;                                                             \
            bl[c] += v * b;                                                              \
            br[c] += wx * b;                                                             \
        }                                                                                \
    }                                                                                    \
                                                                                         \
    /* Two taps, each added to twice: first `w0` times the row weight's share. */        \
    static inline void cropkit_add_pairs_##NAME(REAL *restrict one, REAL *restrict two,  \
        const REAL *restrict g, REAL wx, REAL wy, ptrdiff_t depth, int rows)             \
    {                                                                                    \
        const REAL v = 1 - wx, up = 1 - wy;                                              \
        if (rows)                                                                        \
            for (ptrdiff_t c = 0; c < depth; c++) {                                      \
                const REAL t = up * g[c], b = wy * g[c];                                 \
                one[c] = one[c] + v * t + wx * t;                                        \
                two[c] = two[c] + v * b + wx * b;                                        \
            }                                                                            \
        else                                                                             \
            for (ptrdiff_t c = 0; c < depth; c++) {                                      \
                const REAL t = up * g[c], b = wy * g[c];                                 \
                one[c] = one[c] + v * t + v * b;                                         \
                two[c] = two[c] + wx * t + wx * b;                                       \
            }                                                                            \
    }                                                                                    \
                                                                                         \
    static inline void cropkit_add_one_##NAME(                                           \
        REAL *restrict one, const REAL *restrict g, REAL wx, REAL wy, ptrdiff_t depth)   \
    {                                                                                    \
        const REAL v = 1 - wx, up = 1 - wy;                                              \
        for (ptrdiff_t c = 0; c < depth; c++) {                                          \
            const REAL t = up * g[c], b = wy * g[c];                                     \
            one[c] = one[c] + v * t + wx * t + v * b + wx * b;                           \
        }                                                                                \
    }                                                                                    \
                                                                                         \
    static void cropkit_scatter_channels_##NAME(REAL *top, REAL *bottom, const REAL *g,  \
        ptrdiff_t step, const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *wx,        \
        REAL wy, ptrdiff_t n, ptrdiff_t depth)                                           \
    {                                                                                    \
        for (ptrdiff_t i = 0; i < n; i++, g += step) {                                   \
            const ptrdiff_t l = lo[i], r = hi[i];                                        \
            cropkit_prefetch_pixel((const char *)g, depth * sizeof *g);                  \
            if (top != bottom && l != r)                                                 \
                cropkit_add_four_##NAME(                                                 \
                    top + l, top + r, bottom + l, bottom + r, g, wx[i], wy, depth);      \
            else if (top != bottom)                                                      \
                cropkit_add_pairs_##NAME(top + l, bottom + l, g, wx[i], wy, depth, 1);   \
            else if (l != r)                                                             \
                cropkit_add_pairs_##NAME(top + l, top + r, g, wx[i], wy, depth, 0);      \
            else                                                                         \
                cropkit_add_one_##NAME(top + l, g, wx[i], wy, depth);                    \
        }                                                                                \
    }                                                                                    \
                                                                                         \
    static void cropkit_drop_channels_##NAME(REAL *restrict row, const REAL *restrict g, \
        ptrdiff_t step, const ptrdiff_t *index, ptrdiff_t n, ptrdiff_t depth)            \
    {                                                                                    \
        for (ptrdiff_t i = 0; i < n; i++, g += step) {                                   \
            cropkit_prefetch_pixel((const char *)g, depth * sizeof *g);                  \
            for (ptrdiff_t c = 0; c < depth; c++)                                        \
                row[index[i] + c] += g[c];                                               \
        }                                                                                \
    }

CROPKIT_DEFINE_SCATTER_CHANNELS(float, f32)
CROPKIT_DEFINE_SCATTER_CHANNELS(double, f64)

/* Crop pixels at g to image rows of padded pixels: the loop for this depth. */
#define CROPKIT_DEFINE_ADD_ROW(REAL, NAME)                                               \
    static void cropkit_scatter_##NAME(REAL *top, REAL *bottom, const REAL *g,           \
        ptrdiff_t step, const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *wx,        \
        REAL wy, ptrdiff_t n, ptrdiff_t depth)                                           \
    {                                                                                    \
        switch (depth) {                                                                 \
        case 1:                                                                          \
            cropkit_scatter1_##NAME(top, bottom, g, step, lo, hi, wx, wy, n);            \
            break;                                                                       \
        case 2:                                                                          \
            cropkit_scatter2_##NAME(top, bottom, g, step, lo, hi, wx, wy, n);            \
            break;                                                                       \
        case 3:                                                                          \
            cropkit_scatter3_##NAME(top, bottom, g, step, lo, hi, wx, wy, n);            \
            break;                                                                       \
        case 4:                                                                          \
            cropkit_scatter4_##NAME(top, bottom, g, step, lo, hi, wx, wy, n);            \
            break;                                                                       \
        default:                                                                         \
            cropkit_scatter_channels_##NAME(                                             \
                top, bottom, g, step, lo, hi, wx, wy, n, depth);                         \
        }                                                                                \
    }                                                                                    \
                                                                                         \
    static void cropkit_drop_##NAME(REAL *row, const REAL *g, ptrdiff_t step,            \
        const ptrdiff_t *index, ptrdiff_t n, ptrdiff_t depth)                            \
    {                                                                                    \
        switch (depth) {                                                                 \
        case 1:                                                                          \
            cropkit_drop1_##NAME(row, g, step, index, n);                                \
            break;                                                                       \
        case 2:                                                                          \
            cropkit_drop2_##NAME(row, g, step, index, n);                                \
            break;                                                                       \
        case 3:                                                                          \
            cropkit_drop3_##NAME(row, g, step, index, n);                                \
            break;                                                                       \
        case 4:                                                                          \
            cropkit_drop4_##NAME(row, g, step, index, n);                                \
            break;                                                                       \
        default:                                                                         \
            cropkit_drop_channels_##NAME(row, g, step, index, n, depth);                 \
        }                                                                                \
    }                                                                                    \
                                                                                         \
    /* Take the padding out of n pixels of depth 2 or 3, each four values wide. */       \
    static void cropkit_pack_##NAME(                                                     \
        REAL *restrict dst, const REAL *restrict src, ptrdiff_t n, ptrdiff_t depth)      \
    {                                                                                    \
        ptrdiff_t i = 0;                                                                 \
        if (depth == 3)                                                                  \
            for (; i < n - 1; i++) /* the fourth value is written over by the next */    \
                *(cropkit_pixel_##NAME *)(dst + 3 * i) =                                 \
                    *(const cropkit_pixel_##NAME *)(src + 4 * i);                        \
        for (; i < n; i++)                                                               \
            memcpy(dst + depth * i, src + 4 * i, depth * sizeof(REAL));                  \
    }

CROPKIT_DEFINE_ADD_ROW(float, f32)
CROPKIT_DEFINE_ADD_ROW(double, f64)

/* ---- a finished row into the result ----------------------------------------------- */

typedef char cropkit_bytes __attribute__((
    vector_size(CROPKIT_VECTOR_BYTES), aligned(1), may_alias));

/* Copy bytes, or write zeros where src is NULL. With `stream`, the stores bypass the
 * caches: a result that is larger than the last-level cache is not read back soon. */
static void cropkit_put(char *dst, const char *src, ptrdiff_t bytes, int stream)
{
    ptrdiff_t head = -(uintptr_t)dst % CROPKIT_VECTOR_BYTES;
    if (!stream || bytes < head + CROPKIT_VECTOR_BYTES) {
        if (src)
            memcpy(dst, src, bytes);
        else
            memset(dst, 0, bytes);
        return;
    }
    cropkit_bytes v = {0};
    if (src)
        memcpy(dst, src, head);
    else
        memset(dst, 0, head);
    for (; head + CROPKIT_VECTOR_BYTES <= bytes; head += CROPKIT_VECTOR_BYTES) {
        if (src)
            v = *(const cropkit_bytes *)(src + head);
        CROPKIT_STORE(dst + head, v, 1);
    }
    if (src)
        memcpy(dst + head, src + head, bytes - head);
    else
        memset(dst + head, 0, bytes - head);
}

#endif
