/* The verbs that AVX2 and AVX-512 share; _isa.h explains them. */
#ifndef CROPKIT_ISA_AVX_H
#define CROPKIT_ISA_AVX_H

#include "_prefetch.h"

/* ---- pixels of three channels */

#define CROPKIT_GET3_f32(to, g)                                                          \
    to = (cropkit_pixel_f32)_mm_maskload_ps((g), _mm_set_epi32(0, -1, -1, -1))
#define CROPKIT_GET3_f64(to, g)                                                          \
    to = (cropkit_pixel_f64)_mm256_maskload_pd((g), _mm256_set_epi64x(0, -1, -1, -1))

/* ---- sums in double */

/* Interpolate four values, and store them and their rises. */
static inline __attribute__((always_inline)) void cropkit_blend_four(
    double *blend, double *rise, __m128 left, __m128 right, const double *weights)
{
    const cropkit_pixel_f64 a = (cropkit_pixel_f64)_mm256_cvtps_pd(left);
    const cropkit_pixel_f64 e = (cropkit_pixel_f64)_mm256_cvtps_pd(right) - a;
    *(cropkit_pixel_f64 *)rise = e;
    *(cropkit_pixel_f64 *)blend = a + *(const cropkit_pixel_f64 *)weights * e;
}

/* Get four pixels of depth 3 as one run. To convert and store them one by one, each as four values
 * of which the next store overwrites the last, made `rgb_f32` a tenth slower. */
static inline __attribute__((always_inline)) void cropkit_get_threes(
    __m128 *run, const float *row, const ptrdiff_t *at)
{
    cropkit_pixel_f32 p[4];
    for (int k = 0; k < 4; k++)
        CROPKIT_GET3_f32(p[k], row + at[k]);
    const __m128 last = _mm_permute_ps((__m128)p[3], _MM_SHUFFLE(2, 1, 0, 0));
    run[0] = _mm_insert_ps((__m128)p[0], (__m128)p[1], 0x30);
    run[1] = _mm_shuffle_ps((__m128)p[1], (__m128)p[2], _MM_SHUFFLE(1, 0, 2, 1));
    run[2] = _mm_insert_ps(last, (__m128)p[2], 0x80);
}

#define CROPKIT_OWN_BLEND_SOME_PIXELS
static inline __attribute__((always_inline)) ptrdiff_t cropkit_blend_some_pixels(
    double *restrict blend, double *restrict rise, const float *row, const float *later,
    const ptrdiff_t *left, const ptrdiff_t *right, const double *weights, ptrdiff_t n,
    ptrdiff_t depth)
{
    ptrdiff_t i = 0;
    if (depth == 4)
        for (; i < n; i++) {
            cropkit_prefetch_line(later + left[i]);
            cropkit_blend_four(blend + 4 * i, rise + 4 * i, _mm_loadu_ps(row + left[i]),
                _mm_loadu_ps(row + right[i]), weights + 4 * i);
        }
    else if (depth == 3)
        for (; i + 4 <= n; i += 4) {
            __m128 l[3], r[3];
            for (int k = 0; k < 4; k++)
                cropkit_prefetch_line(later + left[i + k]);
            cropkit_get_threes(l, row, left + i);
            cropkit_get_threes(r, row, right + i);
            for (ptrdiff_t k = 0, f = 3 * i; k < 3; k++, f += 4)
                cropkit_blend_four(blend + f, rise + f, l[k], r[k], weights + f);
        }
    else if (depth == 1)
        for (; i + 4 <= n; i += 4) {
            cropkit_prefetch_line(later + left[i]);
            const __m128 l = {row[left[i]], row[left[i + 1]], row[left[i + 2]], row[left[i + 3]]};
            const __m128 r = {
                row[right[i]], row[right[i + 1]], row[right[i + 2]], row[right[i + 3]]};
            cropkit_blend_four(blend + i, rise + i, l, r, weights + i);
        }
    return i;
}

#endif
