/* The verbs of _isa.h on AVX-512: F, BW, DQ and VL. */
#ifndef CROPKIT_ISA_AVX512_H
#define CROPKIT_ISA_AVX512_H

#define CROPKIT_VECTOR_BYTES 64

#include "_vectors.h"
#include "_isa_x86.h"
#include "_isa_avx.h"

#define CROPKIT_STORE(p, v, stream)                                                      \
    ((stream) ? _mm512_stream_si512((__m512i *)(p), (__m512i)(v))                        \
              : _mm512_store_si512((__m512i *)(p), (__m512i)(v)))

/* ---- windows of bytes */

#define CROPKIT_QUADS 4

typedef __m512i cropkit_window;
typedef __m512 cropkit_floats;
static inline cropkit_window cropkit_load_window(const uint8_t *row, const int32_t *start)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(row + start[0])));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row + start[1])), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row + start[2])), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row + start[3])), 3);
}
static inline cropkit_floats cropkit_pick(cropkit_window window, const int32_t *lanes)
{
    return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(window, _mm512_loadu_si512(lanes)));
}

/* ---- pixels of three channels */

#define CROPKIT_TAPS 4

/* Lerp four samples of three channels along x, in 12 lanes. `taps[k]` masks the load of sample
 * k's two taps, six floats; `w` holds the samples' weights by lane. */
static inline __m512 cropkit_four_pixels3(
    const float *row, const ptrdiff_t *lo, const __mmask8 taps[4], __m512 w)
{
    const __m512i left = _mm512_set_epi32(
        26, 26, 26, 26, 26, 25, 24, 18, 17, 16, 10, 9, 8, 2, 1, 0);
    const __m512i right = _mm512_mask_add_epi32(left,
        _mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_NEQ_UQ), left, _mm512_set1_epi32(3));
#define TAPS(k) _mm256_maskz_loadu_ps(taps[k], row + lo[k])
#define TWO_TAPS(j, k)                                                                   \
    _mm512_insertf32x8(_mm512_castps256_ps512(TAPS(j)), TAPS(k), 1)
    const __m512 p = TWO_TAPS(0, 1), q = TWO_TAPS(2, 3);
#undef TWO_TAPS
#undef TAPS
    const __m512 a = _mm512_permutex2var_ps(p, left, q);
    const __m512 b = _mm512_permutex2var_ps(p, right, q);
    return _mm512_add_ps(a, _mm512_mul_ps(_mm512_sub_ps(b, a), w));
}

static inline __attribute__((always_inline)) ptrdiff_t cropkit_lerp_pixels3(
    int rows, float *restrict dst, const float *top, const float *bottom,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, float wy, ptrdiff_t n,
    ptrdiff_t last)
{
    ptrdiff_t i = 0;
    const __m512i spread = _mm512_set_epi32(3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0);
    const __m512 y = _mm512_set1_ps(wy);
#define FOUR_SAMPLES(taps)                                                               \
    do {                                                                                 \
        const __m512 w = _mm512_permutexvar_ps(                                          \
            spread, _mm512_castps128_ps512(_mm_loadu_ps(weight + i)));                   \
        const __m512 a = cropkit_four_pixels3(top, lo + i, taps, w);                     \
        if (rows == 2) {                                                                 \
            const __m512 b = cropkit_four_pixels3(bottom, lo + i, taps, w);              \
            _mm512_mask_storeu_ps(dst + 3 * i, 0x0fff,                                   \
                _mm512_add_ps(a, _mm512_mul_ps(_mm512_sub_ps(b, a), y)));                \
        } else {                                                                         \
            _mm512_storeu_ps(dst + 3 * i, a);                                            \
        }                                                                                \
    } while (0)
    /* Where eight floats are in the row, no load needs a mask. */
    const __mmask8 whole[4] = {0xff, 0xff, 0xff, 0xff};
    for (; i + 4 <= n && lo[i] + 4 < last && lo[i + 3] + 4 < last; i += 4)
        FOUR_SAMPLES(whole);
    /* The groups left: those at the row's last pixels, and the last group, which may overlap. */
    if (last >= 0 && n >= 4)
        for (; i < n; i += 4) {
            i = i + 4 <= n ? i : n - 4;
            __mmask8 within[4];
            for (int k = 0; k < 4; k++)
                within[k] = lo[i + k] < last ? 0x3f : 0x07;
            FOUR_SAMPLES(within);
        }
#undef FOUR_SAMPLES
    return i;
}

/* ---- sums in double */

static inline __attribute__((always_inline)) cropkit_doubles cropkit_widen(const float *p)
{
    return (cropkit_doubles)_mm512_cvtps_pd(_mm256_loadu_ps(p));
}

#define CROPKIT_ADD_EXACT_PRODUCT(sum, a, b)                                             \
    sum = (cropkit_doubles)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(sum))

#define CROPKIT_OWN_COPY_END
static inline void cropkit_copy_end(float *to, const float *from, ptrdiff_t count)
{
    _mm256_storeu_ps(to, _mm256_maskz_loadu_ps((__mmask8)((1 << count) - 1), from));
}

#define CROPKIT_OWN_GET_PAIRS
static inline __attribute__((always_inline)) void cropkit_get_pairs(
    cropkit_doubles *left, cropkit_doubles *right, const float *row, const ptrdiff_t *at)
{
    const __m256 a = _mm256_set_m128(
        cropkit_two_pairs(row, at[4], at[5]), cropkit_two_pairs(row, at[0], at[1]));
    const __m256 b = _mm256_set_m128(
        cropkit_two_pairs(row, at[6], at[7]), cropkit_two_pairs(row, at[2], at[3]));
    *left = (cropkit_doubles)_mm512_cvtps_pd(_mm256_shuffle_ps(a, b, 0x88));
    *right = (cropkit_doubles)_mm512_cvtps_pd(_mm256_shuffle_ps(a, b, 0xdd));
}

#endif
