/* The functions of _grad_image.h, which add a crop row to image rows: a template that takes REAL
 * and SUFFIX. */

/* ---- depth 1 to 4: a pixel is one value ------------------------------------------- */

#define DEPTH 1
#define PIXEL REAL
#define GET_PIXEL NAMED(CROPKIT_GET1)
#include "_scatter_pixels_template.h"
#define DEPTH 2
#define PIXEL NAMED(cropkit_pixel)
#define GET_PIXEL NAMED(CROPKIT_GET2)
#include "_scatter_pixels_template.h"
#define DEPTH 3
#define PIXEL NAMED(cropkit_pixel)
#define GET_PIXEL NAMED(CROPKIT_GET3)
#include "_scatter_pixels_template.h"
#define DEPTH 4
#define PIXEL NAMED(cropkit_pixel)
#define GET_PIXEL NAMED(CROPKIT_GET4)
#include "_scatter_pixels_template.h"

/* ---- any depth: along the channels ------------------------------------------------ */

/* Add one crop pixel to its taps, along the channels. This function is for four taps that do not
 * overlap, the next two for two taps and for one; each loop vectorizes. */
static inline void NAMED(cropkit_add_four)(REAL *restrict tl, REAL *restrict tr,
    REAL *restrict bl, REAL *restrict br, const REAL *restrict g, REAL wx, REAL wy,
    ptrdiff_t depth)
{
    const REAL v = 1 - wx, up = 1 - wy;
    for (ptrdiff_t c = 0; c < depth; c++) {
        const REAL t = up * g[c], b = wy * g[c];
        tl[c] += v * t;
        tr[c] += wx * t;
        bl[c] += v * b;
        br[c] += wx * b;
    }
}

/* Add one crop pixel to two taps, each of which gets two additions: `rows` says whether the taps
 * differ in their rows (and lo == hi) or in their columns. */
static inline void NAMED(cropkit_add_pairs)(REAL *restrict one, REAL *restrict two,
    const REAL *restrict g, REAL wx, REAL wy, ptrdiff_t depth, int rows)
{
    const REAL v = 1 - wx, up = 1 - wy;
    if (rows)
        for (ptrdiff_t c = 0; c < depth; c++) {
            const REAL t = up * g[c], b = wy * g[c];
            one[c] = one[c] + v * t + wx * t;
            two[c] = two[c] + v * b + wx * b;
        }
    else
        for (ptrdiff_t c = 0; c < depth; c++) {
            const REAL t = up * g[c], b = wy * g[c];
            one[c] = one[c] + v * t + v * b;
            two[c] = two[c] + wx * t + wx * b;
        }
}

static inline void NAMED(cropkit_add_one)(
    REAL *restrict one, const REAL *restrict g, REAL wx, REAL wy, ptrdiff_t depth)
{
    const REAL v = 1 - wx, up = 1 - wy;
    for (ptrdiff_t c = 0; c < depth; c++) {
        const REAL t = up * g[c], b = wy * g[c];
        one[c] = one[c] + v * t + wx * t + v * b + wx * b;
    }
}

static void NAMED(cropkit_scatter_channels)(REAL *top, REAL *bottom, const REAL *g,
    ptrdiff_t step, const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *wx,
    REAL wy, ptrdiff_t n, ptrdiff_t depth)
{
    for (ptrdiff_t i = 0; i < n; i++, g += step) {
        const ptrdiff_t l = lo[i], r = hi[i];
        cropkit_prefetch_pixel((const char *)g, depth * sizeof *g);
        if (top != bottom && l != r)
            NAMED(cropkit_add_four)(
                top + l, top + r, bottom + l, bottom + r, g, wx[i], wy, depth);
        else if (top != bottom)
            NAMED(cropkit_add_pairs)(top + l, bottom + l, g, wx[i], wy, depth, 1);
        else if (l != r)
            NAMED(cropkit_add_pairs)(top + l, top + r, g, wx[i], wy, depth, 0);
        else
            NAMED(cropkit_add_one)(top + l, g, wx[i], wy, depth);
    }
}

static void NAMED(cropkit_drop_channels)(REAL *restrict row, const REAL *restrict g,
    ptrdiff_t step, const ptrdiff_t *index, ptrdiff_t n, ptrdiff_t depth)
{
    for (ptrdiff_t i = 0; i < n; i++, g += step) {
        cropkit_prefetch_pixel((const char *)g, depth * sizeof *g);
        for (ptrdiff_t c = 0; c < depth; c++)
            row[index[i] + c] += g[c];
    }
}

/* Add crop pixels at g to image rows of padded pixels, by the loop for this depth. */
static void NAMED(cropkit_scatter)(REAL *top, REAL *bottom, const REAL *g,
    ptrdiff_t step, const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *wx,
    REAL wy, ptrdiff_t n, ptrdiff_t depth)
{
    switch (depth) {
    case 1:
        NAMED(cropkit_scatter_1)(top, bottom, g, step, lo, hi, wx, wy, n);
        break;
    case 2:
        NAMED(cropkit_scatter_2)(top, bottom, g, step, lo, hi, wx, wy, n);
        break;
    case 3:
        NAMED(cropkit_scatter_3)(top, bottom, g, step, lo, hi, wx, wy, n);
        break;
    case 4:
        NAMED(cropkit_scatter_4)(top, bottom, g, step, lo, hi, wx, wy, n);
        break;
    default:
        NAMED(cropkit_scatter_channels)(
            top, bottom, g, step, lo, hi, wx, wy, n, depth);
    }
}

static void NAMED(cropkit_drop)(REAL *row, const REAL *g, ptrdiff_t step,
    const ptrdiff_t *index, ptrdiff_t n, ptrdiff_t depth)
{
    switch (depth) {
    case 1:
        NAMED(cropkit_drop_1)(row, g, step, index, n);
        break;
    case 2:
        NAMED(cropkit_drop_2)(row, g, step, index, n);
        break;
    case 3:
        NAMED(cropkit_drop_3)(row, g, step, index, n);
        break;
    case 4:
        NAMED(cropkit_drop_4)(row, g, step, index, n);
        break;
    default:
        NAMED(cropkit_drop_channels)(row, g, step, index, n, depth);
    }
}

/* Take the padding out of n pixels of depth 2 or 3, each four values wide. */
static void NAMED(cropkit_pack)(
    REAL *restrict dst, const REAL *restrict src, ptrdiff_t n, ptrdiff_t depth)
{
    ptrdiff_t i = 0;
    if (depth == 3)
        for (; i < n - 1; i++) /* the next pixel overwrites the fourth value */
            *(NAMED(cropkit_pixel) *)(dst + 3 * i) =
                *(const NAMED(cropkit_pixel) *)(src + 4 * i);
    for (; i < n; i++)
        memcpy(dst + depth * i, src + 4 * i, depth * sizeof(REAL));
}
