/* The verbs that need SSE2 alone, which every x86-64 has; _isa.h explains them. The headers of all
 * three x86-64 instruction sets include this one. */
#ifndef CROPKIT_ISA_X86_H
#define CROPKIT_ISA_X86_H

#include <immintrin.h>

static inline void cropkit_stream_fence(void)
{
    _mm_sfence();
}

/* Load two pairs of neighbouring floats. */
static inline __attribute__((always_inline)) __m128 cropkit_two_pairs(
    const float *row, ptrdiff_t first, ptrdiff_t second)
{
    return _mm_loadh_pi(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(row + first))),
        (const __m64 *)(row + second));
}

#define CROPKIT_OWN_LERP_PIXELS1
static inline ptrdiff_t cropkit_lerp_pixels1(float *restrict dst, const float *row,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, ptrdiff_t n, ptrdiff_t last)
{
    ptrdiff_t i = 0;
    for (; i + 4 <= n && lo[i] < last && lo[i + 3] < last; i += 4) {
        const __m128 p = cropkit_two_pairs(row, lo[i], lo[i + 1]);
        const __m128 q = cropkit_two_pairs(row, lo[i + 2], lo[i + 3]);
        const __m128 a = _mm_shuffle_ps(p, q, _MM_SHUFFLE(2, 0, 2, 0));
        const __m128 next = _mm_shuffle_ps(p, q, _MM_SHUFFLE(3, 1, 3, 1));
        const __m128 w = _mm_loadu_ps(weight + i);
        const __m128 between = _mm_cmpneq_ps(w, _mm_setzero_ps());
        const __m128 b = _mm_or_ps(_mm_and_ps(between, next), _mm_andnot_ps(between, a));
        _mm_storeu_ps(dst + i, _mm_add_ps(a, _mm_mul_ps(_mm_sub_ps(b, a), w)));
    }
    return i;
}

#endif
