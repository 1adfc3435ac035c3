/* The verbs of _isa.h on AVX2. */
#ifndef CROPKIT_ISA_AVX2_H
#define CROPKIT_ISA_AVX2_H

#define CROPKIT_VECTOR_BYTES 32

#include "_vectors.h"
#include "_isa_x86.h"
#include "_isa_avx.h"

#define CROPKIT_STORE(p, v, stream)                                                      \
    ((stream) ? _mm256_stream_si256((__m256i *)(p), (__m256i)(v))                        \
              : _mm256_store_si256((__m256i *)(p), (__m256i)(v)))

/* ---- windows of bytes */

#define CROPKIT_QUADS 2

typedef __m256i cropkit_window;
typedef __m256 cropkit_floats;
static inline cropkit_window cropkit_load_window(const uint8_t *row, const int32_t *start)
{
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(row + start[0]))),
        _mm_loadu_si128((const __m128i *)(row + start[1])), 1);
}
static inline cropkit_floats cropkit_pick(cropkit_window window, const int32_t *lanes)
{
    return _mm256_cvtepi32_ps(
        _mm256_shuffle_epi8(window, _mm256_loadu_si256((const __m256i *)lanes)));
}

/* ---- pixels of three channels */

#define CROPKIT_TAPS 2

/* Lerp two samples of three channels along x, each in a half of the vector. */
static inline __m256 cropkit_two_pixels3(
    const float *row, const ptrdiff_t *lo, const ptrdiff_t *hi, __m256 w)
{
    const __m128i three = _mm_set_epi32(0, -1, -1, -1);
#define PIXEL(k, at) _mm_maskload_ps(row + (at)[k], three)
#define PIXELS(at) _mm256_insertf128_ps(_mm256_castps128_ps256(PIXEL(0, at)), PIXEL(1, at), 1)
    const __m256 a = PIXELS(lo), b = PIXELS(hi);
#undef PIXELS
#undef PIXEL
    return _mm256_add_ps(a, _mm256_mul_ps(_mm256_sub_ps(b, a), w));
}

static inline __attribute__((always_inline)) ptrdiff_t cropkit_lerp_pixels3(
    int rows, float *restrict dst, const float *top, const float *bottom,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, float wy, ptrdiff_t n,
    ptrdiff_t last)
{
    ptrdiff_t i = 0;
    __m256i spread = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0);
    __m256i pack = _mm256_set_epi32(7, 7, 6, 5, 4, 2, 1, 0);
    __asm__("" : "+x"(spread), "+x"(pack)); /* else GCC may load both again for each two samples */
    const __m256 y = _mm256_set1_ps(wy);
#define TWO_SAMPLES                                                                      \
    do {                                                                                 \
        const __m128 w2 = _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(weight + i))); \
        const __m256 w = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(w2), spread);   \
        const __m256 a = cropkit_two_pixels3(top, lo + i, hi + i, w);                    \
        if (rows == 2) {                                                                 \
            const __m256 b = cropkit_two_pixels3(bottom, lo + i, hi + i, w);             \
            const __m256 v = _mm256_permutevar8x32_ps(                                   \
                _mm256_add_ps(a, _mm256_mul_ps(_mm256_sub_ps(b, a), y)), pack);          \
            _mm_storeu_ps(dst + 3 * i, _mm256_castps256_ps128(v));                       \
            _mm_storel_pi((__m64 *)(dst + 3 * i + 4), _mm256_extractf128_ps(v, 1));      \
        } else {                                                                         \
            _mm256_storeu_ps(dst + 3 * i, _mm256_permutevar8x32_ps(a, pack));            \
        }                                                                                \
    } while (0)
    (void)last;
    for (const ptrdiff_t end = n - 1; i < end; i += 2)
        TWO_SAMPLES;
    if (rows == 2 && i < n) { /* the last two samples, which may overlap those before */
        i = n - 2;
        TWO_SAMPLES;
    }
#undef TWO_SAMPLES
    return i;
}

/* ---- sums in double */

static inline __attribute__((always_inline)) cropkit_doubles cropkit_widen(const float *p)
{
    return (cropkit_doubles)_mm256_cvtps_pd(_mm_loadu_ps(p));
}

#define CROPKIT_OWN_GET_PAIRS
static inline __attribute__((always_inline)) void cropkit_get_pairs(
    cropkit_doubles *left, cropkit_doubles *right, const float *row, const ptrdiff_t *at)
{
    const __m128 a = cropkit_two_pairs(row, at[0], at[1]);
    const __m128 b = cropkit_two_pairs(row, at[2], at[3]);
    *left = (cropkit_doubles)_mm256_cvtps_pd(_mm_shuffle_ps(a, b, 0x88));
    *right = (cropkit_doubles)_mm256_cvtps_pd(_mm_shuffle_ps(a, b, 0xdd));
}

#endif
