/* The box gradient's inner loops: they add a crop row to the row's sum and the columns' sums.
 *
 * With taps tl, tr, bl, br and weights w (along x) and wy, a value g of the crop adds
 *
 *     g * ((1 - w) * (bl - tl) + w * (br - tr))     to its row's sum, and
 *     g * ((1 - wy) * (tr - tl) + wy * (br - bl))   to its column's,
 *
 * all in float64. There are four ways to these sums:
 *
 *     dots    Depth 8 and more. The dot products of a pixel's g with each of its four taps come
 *             first; the formulas are then computed once for the pixel, not for each value.
 *     rows    Depth below 8. A source row is interpolated along x once, and kept with its rise
 *             to the right taps: tl + w * (tr - tl) and tr - tl.
 *     pairs   Depth 1, where no source row serves two crop rows: as in rows, but nothing is kept.
 *     slopes  The formulas as they stand, for float64, and where a sum is not finite. The other
 *             ways multiply taps before they subtract them: a term is off by up to 2**-53 of
 *             the largest tap, which no float32 result shows unless the taps of a pixel are
 *             more than 2**29 apart, and they turn more infinities into NaN.
 *
 * Sums do not depend on the width of a vector: value f of a row, or channel f of a pixel,
 * goes to lane f % 8, each lane is one chain of additions, and lanes are folded 8 to 4 to 2 to
 * 1. The lanes of columns are in `across`, which the caller folds.
 */
#ifndef CROPKIT_GRAD_BOXES_H
#define CROPKIT_GRAD_BOXES_H

#include "_simd.h"

enum { CROPKIT_LANES = 8, CROPKIT_LINE = 64 / sizeof(float) };

#define CROPKIT_PARTS (CROPKIT_LANES / CROPKIT_DOUBLES)

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

/* Sum the `lanes` values of each of n columns, in the order of cropkit_lane_sum. */
static void cropkit_lane_sums(
    double *restrict sums, const double *values, ptrdiff_t n, ptrdiff_t lanes)
{
    for (ptrdiff_t i = 0; i < n; i++, values += lanes) {
        if (lanes >= CROPKIT_LANES) {
            sums[i] = cropkit_lane_sum(values, lanes);
            continue;
        }
        sums[i] = values[0];
        for (ptrdiff_t c = 1; c < lanes; c++)
            sums[i] += values[c];
    }
}

static inline __attribute__((always_inline)) cropkit_doubles cropkit_doubles_at(const double *p)
{
    return *(const cropkit_doubles *)p;
}

/* Return eight values: those at `values`, or if there are fewer, a copy in `end` with zeros. */
static inline __attribute__((always_inline)) const float *cropkit_whole_lanes(
    const float *values, ptrdiff_t count, float *end)
{
    if (count >= CROPKIT_LANES)
        return values;
    cropkit_copy_end(end, values, count);
    return end;
}

/* ---- dots ------------------------------------------------------------------------- */

/* Add eight channels of a pixel to its dot products. */
static inline __attribute__((always_inline)) void cropkit_add_dots(cropkit_doubles *a,
    cropkit_doubles *b, cropkit_doubles *c, cropkit_doubles *d, const float *g,
    const float *tl, const float *tr, const float *bl, const float *br)
{
    for (int k = 0; k < CROPKIT_PARTS; k++) {
        const ptrdiff_t o = k * CROPKIT_DOUBLES;
        const cropkit_doubles q = cropkit_widen(g + o);
        CROPKIT_ADD_EXACT_PRODUCT(a[k], q, cropkit_widen(tl + o));
        CROPKIT_ADD_EXACT_PRODUCT(b[k], q, cropkit_widen(tr + o));
        CROPKIT_ADD_EXACT_PRODUCT(c[k], q, cropkit_widen(bl + o));
        CROPKIT_ADD_EXACT_PRODUCT(d[k], q, cropkit_widen(br + o));
    }
}

/* Sum a crop row of n pixels, whose taps are at left[i] and right[i] in both source rows. The
 * lanes of column i are added at across[8 * i]; the row's sum is returned. Not inlined, since
 * `.ci/run` allows fused operations in this function only. */
static __attribute__((noinline)) double cropkit_sum_dots(double *restrict across, const float *g,
    const float *top, const float *bottom, const ptrdiff_t *left, const ptrdiff_t *right,
    const double *weights, double wy, ptrdiff_t n, ptrdiff_t depth)
{
    const double up = 1 - wy;
    const ptrdiff_t whole = depth / CROPKIT_LANES * CROPKIT_LANES, rest = depth - whole;
    cropkit_doubles sums[CROPKIT_PARTS] = {{0}};
    double lanes[CROPKIT_LANES];
    for (ptrdiff_t i = 0; i < n; i++, g += depth, across += CROPKIT_LANES) {
        const float *tl = top + left[i], *tr = top + right[i];
        const float *bl = bottom + left[i], *br = bottom + right[i];
        const double w = weights[i];
        cropkit_doubles a[CROPKIT_PARTS] = {{0}}, b[CROPKIT_PARTS] = {{0}};
        cropkit_doubles c[CROPKIT_PARTS] = {{0}}, d[CROPKIT_PARTS] = {{0}};
        for (ptrdiff_t f = 0; f < whole; f += CROPKIT_LANES) {
            if (f % CROPKIT_LINE == 0)
                cropkit_prefetch_page_ahead(g + f);
            cropkit_add_dots(a, b, c, d, g + f, tl + f, tr + f, bl + f, br + f);
        }
        if (rest) { /* the last channels, padded with zeros */
            const float *const from[5] = {g, tl, tr, bl, br};
            float ends[5][CROPKIT_LANES];
            for (int p = 0; p < 5; p++)
                cropkit_copy_end(ends[p], from[p] + whole, rest);
            cropkit_add_dots(a, b, c, d, ends[0], ends[1], ends[2], ends[3], ends[4]);
        }
        for (int k = 0; k < CROPKIT_PARTS; k++) {
            sums[k] += (1 - w) * (c[k] - a[k]) + w * (d[k] - b[k]);
            *(cropkit_doubles *)(across + k * CROPKIT_DOUBLES) +=
                up * (b[k] - a[k]) + wy * (d[k] - c[k]);
        }
    }
    memcpy(lanes, sums, sizeof sums);
    return cropkit_fold(lanes);
}

/* ---- rows ------------------------------------------------------------------------- */

/* Interpolate n values along x to `blend`, and their rise to the right taps to `rise`. The taps
 * are two runs, `left` and `right`. */
static void cropkit_blend_taps(double *restrict blend, double *restrict rise,
    const float *left, const float *right, const double *weights, ptrdiff_t n)
{
    for (ptrdiff_t f = 0; f < n; f++) {
        const double a = left[f], e = right[f] - a;
        rise[f] = e;
        blend[f] = a + weights[f] * e;
    }
}

/* The loop of cropkit_blend_pixels, which does as cropkit_blend_taps for n pixels whose taps are
 * at left[i] and right[i] of an image row. The function is not inlined: the loops of its callers
 * then ran out of registers. */
#define CROPKIT_BLEND_VALUES(DEPTH)                                                      \
    for (; i < n; i++) {                                                                 \
        cropkit_prefetch_line(later + left[i]);                                          \
        for (ptrdiff_t c = 0; c < DEPTH; c++) {                                          \
            const double a = row[left[i] + c];                                           \
            const double e = row[right[i] + c] - a;                                      \
            rise[i * DEPTH + c] = e;                                                     \
            blend[i * DEPTH + c] = a + weights[i * DEPTH + c] * e;                       \
        }                                                                                \
    }

static __attribute__((noinline)) void cropkit_blend_pixels(double *restrict blend,
    double *restrict rise, const float *row, const float *later, const ptrdiff_t *left,
    const ptrdiff_t *right, const double *weights, ptrdiff_t n, ptrdiff_t depth)
{
    ptrdiff_t i = cropkit_blend_some_pixels(
        blend, rise, row, later, left, right, weights, n, depth);
    if (depth == 3)
        CROPKIT_BLEND_VALUES(3)
    else
        CROPKIT_BLEND_VALUES(depth)
}

/* Add CROPKIT_DOUBLES values of a crop row to the sums: `e` is the rise of the upper source row,
 * `next_e` of the lower one. */
static inline __attribute__((always_inline)) void cropkit_add_row(cropkit_doubles *sum,
    double *across, cropkit_doubles q, cropkit_doubles top, cropkit_doubles bottom,
    cropkit_doubles e, cropkit_doubles next_e, double wy)
{
    *sum += q * (bottom - top);
    *(cropkit_doubles *)across += q * (e + wy * (next_e - e));
}

/* Sum a crop row of n values between two source rows, which are interpolated along x and padded
 * to whole lanes. Adds to across[f], which is padded too, and returns the row's sum. */
static double cropkit_sum_rows(double *restrict across, const float *g, const double *top,
    const double *bottom, const double *top_rise, const double *bottom_rise, double wy,
    ptrdiff_t n)
{
    cropkit_doubles sums[CROPKIT_PARTS] = {{0}};
    double lanes[CROPKIT_LANES];
    float end[CROPKIT_LANES];
    for (ptrdiff_t f = 0; f < n; f += CROPKIT_LANES) {
        const float *values = cropkit_whole_lanes(g + f, n - f, end);
        if (f % CROPKIT_LINE == 0)
            cropkit_prefetch_page_ahead(g + f);
        for (int k = 0; k < CROPKIT_PARTS; k++) {
            const ptrdiff_t o = f + k * CROPKIT_DOUBLES;
            cropkit_add_row(&sums[k], across + o, cropkit_widen(values + k * CROPKIT_DOUBLES),
                cropkit_doubles_at(top + o), cropkit_doubles_at(bottom + o),
                cropkit_doubles_at(top_rise + o), cropkit_doubles_at(bottom_rise + o), wy);
        }
    }
    memcpy(lanes, sums, sizeof sums);
    return cropkit_fold(lanes);
}

/* Sum a crop row like cropkit_sum_rows, to the same bits, but from image rows of depth 1 whose
 * pixels adjoin: for source rows that no other crop row reads. The taps of a sample are the two
 * neighbours at `pairs`. If its weight is 0, both taps are one pixel: the second neighbour where
 * `seconds` is 1, the first where it is 0 or `seconds` is NULL; the caller then ignores what is
 * added to `across`. All tables are padded to whole lanes. */
static inline __attribute__((always_inline)) double cropkit_sum_pairs_of(double *restrict across,
    const float *g, const float *top, const float *bottom, const ptrdiff_t *pairs,
    const double *seconds, const double *weights, double wy, ptrdiff_t n)
{
    cropkit_doubles sums[CROPKIT_PARTS] = {{0}};
    double lanes[CROPKIT_LANES];
    float end[CROPKIT_LANES];
    for (ptrdiff_t f = 0; f < n; f += CROPKIT_LANES) {
        const float *values = cropkit_whole_lanes(g + f, n - f, end);
        for (int k = 0; k < CROPKIT_PARTS; k++) {
            const ptrdiff_t o = f + k * CROPKIT_DOUBLES;
            const cropkit_doubles w = cropkit_doubles_at(weights + o);
            cropkit_doubles tl, bl, tr, br;
            cropkit_get_pairs(&tl, &tr, top, pairs + o);
            cropkit_get_pairs(&bl, &br, bottom, pairs + o);
            const cropkit_doubles e = tr - tl, next_e = br - bl;
            if (seconds) { /* t is 0 or 1, so this chooses one of the two neighbours. */
                const cropkit_doubles t = cropkit_doubles_at(seconds + o);
                tl = (1 - t) * tl + t * tr;
                bl = (1 - t) * bl + t * br;
            }
            cropkit_add_row(&sums[k], across + o, cropkit_widen(values + k * CROPKIT_DOUBLES),
                tl + w * e, bl + w * next_e, e, next_e, wy);
        }
    }
    memcpy(lanes, sums, sizeof sums);
    return cropkit_fold(lanes);
}

static double cropkit_sum_pairs(double *restrict across, const float *g, const float *top,
    const float *bottom, const ptrdiff_t *pairs, const double *seconds, const double *weights,
    double wy, ptrdiff_t n)
{
    return seconds
        ? cropkit_sum_pairs_of(across, g, top, bottom, pairs, seconds, weights, wy, n)
        : cropkit_sum_pairs_of(across, g, top, bottom, pairs, NULL, weights, wy, n);
}

/* ---- slopes ----------------------------------------------------------------------- */

/* The loop of cropkit_sum_slopes, which sums a crop row of n values; taps and weights along x
 * are runs of n values too. Adds to across[f], and returns the row's sum. */
#define CROPKIT_SLOPES(LOAD, SUM, ACROSS)                                                \
    SUM += LOAD(g) * ((1 - LOAD(weights)) * (LOAD(bl) - LOAD(tl))                        \
        + LOAD(weights) * (LOAD(br) - LOAD(tr)));                                        \
    ACROSS += LOAD(g) * ((1 - wy) * (LOAD(tr) - LOAD(tl)) + wy * (LOAD(br) - LOAD(bl)));

static double cropkit_sum_slopes(double *restrict across, const double *g, const double *tl,
    const double *tr, const double *bl, const double *br, const double *weights, double wy,
    ptrdiff_t n)
{
    cropkit_doubles sums[CROPKIT_PARTS] = {{0}};
    double lanes[CROPKIT_LANES];
    ptrdiff_t f = 0;
#define VECTOR(p) cropkit_doubles_at(p + o)
#define VALUE(p) p[f]
    for (; f + CROPKIT_LANES <= n; f += CROPKIT_LANES) {
        cropkit_prefetch_page_ahead(g + f);
        for (int k = 0; k < CROPKIT_PARTS; k++) {
            const ptrdiff_t o = f + k * CROPKIT_DOUBLES;
            CROPKIT_SLOPES(VECTOR, sums[k], *(cropkit_doubles *)(across + o))
        }
    }
    memcpy(lanes, sums, sizeof sums);
    for (; f < n; f++) {
        CROPKIT_SLOPES(VALUE, lanes[f % CROPKIT_LANES], across[f])
    }
#undef VECTOR
#undef VALUE
    return cropkit_fold(lanes);
}

/* Copy the taps of n samples to two runs, `left` and `right`. */
#define CROPKIT_PICK(DEPTH)                                                              \
    for (ptrdiff_t i = 0; i < n; i++)                                                    \
        for (ptrdiff_t c = 0; c < DEPTH; c++) {                                          \
            left[i * DEPTH + c] = row[lo[i] + c];                                        \
            right[i * DEPTH + c] = row[hi[i] + c];                                       \
        }

static void cropkit_pick_taps(double *restrict left, double *restrict right,
    const double *row, const ptrdiff_t *lo, const ptrdiff_t *hi, ptrdiff_t n, ptrdiff_t depth)
{
    if (depth == 1)
        CROPKIT_PICK(1)
    else if (depth == 3)
        CROPKIT_PICK(3)
    else
        CROPKIT_PICK(depth)
}

#endif
