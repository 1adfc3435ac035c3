/* The few vector moves that a compiler does not find by itself.
 *
 * Everything here is `static inline` and chosen by the predefined macros of the
 * instruction set that the including extension is compiled for. Functions that return a
 * count say how many items they have done; the caller's plain loop does the rest, so an
 * instruction set without a version of its own simply returns 0.
 *
 * No operation here is fused or reassociated: a lerp is always a + (b - a) * w with
 * three roundings, on every width.
 */
#ifndef CROPKIT_SIMD_H
#define CROPKIT_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "_template.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define CROPKIT_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define CROPKIT_VECTOR_BYTES 32
#else
#define CROPKIT_VECTOR_BYTES 16
#endif

/* ---- rows: blend two, or copy one ------------------------------------------------ */

/* Ask for memory that is needed soon: a line, some bytes, or what comes a page later. Into
 * the second-level cache, since the first has room for fewer requests under way and stalls
 * when there are more. */
static inline __attribute__((always_inline)) void cropkit_prefetch_line(const void *at)
{
    __builtin_prefetch(at, 0, 2);
}

/* Without the empty statement, GCC takes a function that only prefetches to have no effect,
 * and drops the calls. */
static inline void cropkit_prefetch(const char *at, ptrdiff_t bytes)
{
    __asm__ __volatile__("");
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        cropkit_prefetch_line(at + i);
}

/* The same into the first-level cache: for little, and soon. */
static inline void cropkit_prefetch_near(const char *at, ptrdiff_t bytes)
{
    __asm__ __volatile__("");
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(at + i, 0, 3);
}

/* For long runs that are read slowly: hardware prefetchers stop at the end of a page, and too
 * few instructions are under way to reach the next one early. */
static inline __attribute__((always_inline)) void cropkit_prefetch_page_ahead(const void *at)
{
    cropkit_prefetch_line((const char *)at + 4096);
}

/* Store a vector at an aligned address; `stream` is a constant. */
#if defined(__AVX512F__)
#define CROPKIT_STORE(p, v, stream)                                                      \
    ((stream) ? _mm512_stream_si512((__m512i *)(p), (__m512i)(v))                        \
              : _mm512_store_si512((__m512i *)(p), (__m512i)(v)))
#elif defined(__AVX2__)
#define CROPKIT_STORE(p, v, stream)                                                      \
    ((stream) ? _mm256_stream_si256((__m256i *)(p), (__m256i)(v))                        \
              : _mm256_store_si256((__m256i *)(p), (__m256i)(v)))
#elif defined(__SSE2__)
#define CROPKIT_STORE(p, v, stream)                                                      \
    ((stream) ? _mm_stream_si128((__m128i *)(p), (__m128i)(v))                           \
              : _mm_store_si128((__m128i *)(p), (__m128i)(v)))
#else
#define CROPKIT_STORE(p, v, stream) memcpy((p), &(v), sizeof(v))
#endif

/* Streaming stores are weakly ordered: a thread that used them fences before it hands
 * its rows to anybody else. */
static inline void cropkit_stream_fence(void)
{
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* A crop is written as one run of whole, aligned vectors, although its rows begin and end
 * inside them: the part of a vector that a row's end leaves over waits in `carry` for the
 * next row's beginning. Partial stores would cost a read of the line each, and between
 * streaming stores more than that (8 of 24 million cycles for 154 MB of 2688-byte rows). */
typedef struct {
    char held[64] __attribute__((aligned(64)));
    char *line;       /* where the vector belongs */
    ptrdiff_t bytes;  /* how much of it is held; 0 when none is */
} cropkit_carry;

static inline void cropkit_flush_carry(cropkit_carry *carry)
{
    if (carry->bytes)
        memcpy(carry->line, carry->held, carry->bytes);
    carry->bytes = 0;
}

static const unsigned char cropkit_keep[2 * CROPKIT_VECTOR_BYTES] = {
    [0 ... CROPKIT_VECTOR_BYTES - 1] = 0xff};

/* cropkit_blend_* and cropkit_copy_* for each type. */
#define REAL float
#define SUFFIX f32
#include "_row_template.h"
#undef REAL
#undef SUFFIX
#define REAL double
#define SUFFIX f64
#include "_row_template.h"
#undef REAL
#undef SUFFIX

/* ---- uint8 pixels: byte windows --------------------------------------------------- */

/* Four neighbouring floats of a crop row (a quad) read taps that lie close together: if
 * all eight fit in 16 bytes, one load and two byte shuffles fetch them, already widened
 * to 32 bits. `start[q]` is where quad q's window begins; `left` and `right` hold, per
 * float, the tap's byte within the window with 0x80 in the three upper bytes (a shuffle
 * writes zero there). A register holds CROPKIT_QUADS windows, each shuffled in its own
 * 128-bit lane, which is why AVX-512 needs no wider permute here. */
#if defined(__AVX512BW__)
#define CROPKIT_QUADS 4
#elif defined(__AVX2__)
#define CROPKIT_QUADS 2
#elif defined(__SSSE3__) || (defined(__ARM_NEON) && defined(__aarch64__))
#define CROPKIT_QUADS 1
#else
#define CROPKIT_QUADS 0
#endif

#if defined(__AVX512BW__)
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
#elif defined(__AVX2__)
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
#elif defined(__SSSE3__)
typedef __m128i cropkit_window;
typedef __m128 cropkit_floats;
static inline cropkit_window cropkit_load_window(const uint8_t *row, const int32_t *start)
{
    return _mm_loadu_si128((const __m128i *)(row + start[0]));
}
static inline cropkit_floats cropkit_pick(cropkit_window window, const int32_t *lanes)
{
    return _mm_cvtepi32_ps(_mm_shuffle_epi8(window, _mm_loadu_si128((const __m128i *)lanes)));
}
#elif CROPKIT_QUADS
typedef uint8x16_t cropkit_window;
typedef float32x4_t cropkit_floats;
static inline cropkit_window cropkit_load_window(const uint8_t *row, const int32_t *start)
{
    return vld1q_u8(row + start[0]);
}
static inline cropkit_floats cropkit_pick(cropkit_window window, const int32_t *lanes)
{
    return vcvtq_f32_u32(vreinterpretq_u32_u8(
        vqtbl1q_u8(window, vreinterpretq_u8_s32(vld1q_s32(lanes)))));
}
#endif

/* `quads` is a multiple of CROPKIT_QUADS; dst holds 4 * quads floats. */
static inline void cropkit_lerp_bytes(float *restrict dst, const uint8_t *row,
    const int32_t *start, const int32_t *left, const int32_t *right, const float *weight,
    ptrdiff_t quads)
{
#if CROPKIT_QUADS
    for (ptrdiff_t q = 0; q < quads; q += CROPKIT_QUADS) {
        const cropkit_window window = cropkit_load_window(row, start + q);
        const cropkit_floats a = cropkit_pick(window, left + 4 * q);
        const cropkit_floats b = cropkit_pick(window, right + 4 * q);
        const cropkit_vector_f32 w = *(const cropkit_vector_f32 *)(weight + 4 * q);
        *(cropkit_vector_f32 *)(dst + 4 * q) =
            (cropkit_vector_f32)(a + (b - a) * (cropkit_floats)w);
    }
#endif
}

static inline void cropkit_pick_bytes(float *restrict dst, const uint8_t *row,
    const int32_t *start, const int32_t *left, ptrdiff_t quads)
{
#if CROPKIT_QUADS
    for (ptrdiff_t q = 0; q < quads; q += CROPKIT_QUADS)
        *(cropkit_vector_f32 *)(dst + 4 * q) = (cropkit_vector_f32)cropkit_pick(
            cropkit_load_window(row, start + q), left + 4 * q);
#endif
}

/* ---- float32 pixels of depth 1, 3 and 4 ------------------------------------------- */

#if defined(__AVX512F__)
#define CROPKIT_TAPS 4
#elif defined(__AVX2__)
#define CROPKIT_TAPS 2
#else
#define CROPKIT_TAPS 0
#endif

#if defined(__AVX512F__)
/* Four samples of three channels along x, in 12 lanes. `taps[k]` masks what is loaded for
 * sample k's two taps of six floats, `w` holds the samples' weights by lane. */
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
#elif defined(__AVX2__)
/* Two samples of three channels along x, each in a half. */
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
#endif

/* Lerp between pixels at top + lo[i] and top + hi[i]; returns how many of the n samples
 * are done, and the caller goes on from there one by one. May write up to 16 floats past
 * the last one it has done: dst is a scratch row with that much room.
 *
 * With `rows` 2, a constant, dst is between the same of `bottom` by `wy`. Then all samples
 * are done, of which there must be CROPKIT_TAPS (0 if this cannot be had), and nothing is
 * written past them: dst is the result.
 *
 * Where neighbouring pixels are adjacent in memory, `last` is the offset of the row's last
 * pixel (else less than any offset), and one load from `lo` may fetch both taps. Two things
 * are minded then: a sample at the last pixel has no right neighbour to read; and where the
 * weight is 0, `hi` is `lo`, and the neighbour must not be used (an infinite one would make
 * a NaN). Other loads read nothing but the pixel: the fourth lane of a three-channel load is
 * masked off. */
static inline __attribute__((always_inline)) ptrdiff_t cropkit_lerp_pixels3(
    int rows, float *restrict dst, const float *top, const float *bottom,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, float wy, ptrdiff_t n,
    ptrdiff_t last)
{
    ptrdiff_t i = 0;
#if defined(__AVX512F__)
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
    /* What is left: groups at the row's last pixels, and the last, overlapping one. */
    if (last >= 0 && n >= 4)
        for (; i < n; i += 4) {
            i = i + 4 <= n ? i : n - 4;
            __mmask8 within[4];
            for (int k = 0; k < 4; k++)
                within[k] = lo[i + k] < last ? 0x3f : 0x07;
            FOUR_SAMPLES(within);
        }
#undef FOUR_SAMPLES
#elif defined(__AVX2__)
    const __m256i spread = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0);
    const __m256i pack = _mm256_set_epi32(7, 7, 6, 5, 4, 2, 1, 0);
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
    for (; i + 2 <= n; i += 2)
        TWO_SAMPLES;
    if (rows == 2 && i < n) { /* the last, overlapping one */
        i = n - 2;
        TWO_SAMPLES;
    }
#undef TWO_SAMPLES
#endif
    return i;
}

/* Copy pixels at row + lo[i], four floats at a time where that many are in the row and the
 * next pixel overwrites the fourth. Since `lo` is monotone, pixels that are the row's last
 * come at one end. */
static inline void cropkit_pick_pixels3(
    float *dst, const float *row, const ptrdiff_t *lo, ptrdiff_t n, ptrdiff_t last)
{
    ptrdiff_t i = 0, end = n - 1;
    for (; i < end && lo[i] >= last; i++)
        memcpy(dst + 3 * i, row + lo[i], 3 * sizeof *dst);
    while (end > i && lo[end - 1] >= last)
        end--;
    for (; i < end; i++)
        memcpy(dst + 3 * i, row + lo[i], 4 * sizeof *dst);
    for (; i < n; i++)
        memcpy(dst + 3 * i, row + lo[i], 3 * sizeof *dst);
}

static inline ptrdiff_t cropkit_lerp_pixels4(float *restrict dst, const float *row,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, ptrdiff_t n)
{
    typedef float pixel __attribute__((vector_size(16), aligned(4), may_alias));
    for (ptrdiff_t i = 0; i < n; i++) {
        const pixel a = *(const pixel *)(row + lo[i]), b = *(const pixel *)(row + hi[i]);
        *(pixel *)(dst + 4 * i) = a + (b - a) * weight[i];
    }
    return n;
}

static inline ptrdiff_t cropkit_lerp_pixels1(float *restrict dst, const float *row,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, ptrdiff_t n, ptrdiff_t last)
{
    ptrdiff_t i = 0;
#if defined(__SSE2__)
#define AT(k) (row + lo[i + (k)])
#define TWO_PAIRS(j, k)                                                                  \
    _mm_loadh_pi(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)AT(j))), (const __m64 *)AT(k))
    for (; i + 4 <= n && lo[i] < last && lo[i + 3] < last; i += 4) {
        const __m128 p = TWO_PAIRS(0, 1), q = TWO_PAIRS(2, 3);
        const __m128 a = _mm_shuffle_ps(p, q, _MM_SHUFFLE(2, 0, 2, 0));
        const __m128 next = _mm_shuffle_ps(p, q, _MM_SHUFFLE(3, 1, 3, 1));
        const __m128 w = _mm_loadu_ps(weight + i);
        const __m128 between = _mm_cmpneq_ps(w, _mm_setzero_ps());
        const __m128 b = _mm_or_ps(_mm_and_ps(between, next), _mm_andnot_ps(between, a));
        _mm_storeu_ps(dst + i, _mm_add_ps(a, _mm_mul_ps(_mm_sub_ps(b, a), w)));
    }
#undef TWO_PAIRS
#undef AT
#endif
    return i;
}

/* ---- a pixel of up to four channels in one vector --------------------------------- */

typedef float cropkit_pixel_f32 __attribute__((vector_size(16), aligned(4), may_alias));
typedef double cropkit_pixel_f64 __attribute__((vector_size(32), aligned(8), may_alias));

/* Get a pixel of a crop, its missing channels zero; reads nothing beyond it. */
#define CROPKIT_GET1_F32(to, g) to = *(g)
#define CROPKIT_GET1_F64(to, g) to = *(g)
#define CROPKIT_GET2_F32(to, g) to = (cropkit_pixel_f32){(g)[0], (g)[1], 0, 0}
#define CROPKIT_GET2_F64(to, g) to = (cropkit_pixel_f64){(g)[0], (g)[1], 0, 0}
#if defined(__AVX2__)
#define CROPKIT_GET3_F32(to, g)                                                          \
    to = (cropkit_pixel_f32)_mm_maskload_ps((g), _mm_set_epi32(0, -1, -1, -1))
#define CROPKIT_GET3_F64(to, g)                                                          \
    to = (cropkit_pixel_f64)_mm256_maskload_pd((g), _mm256_set_epi64x(0, -1, -1, -1))
#else
#define CROPKIT_GET3_F32(to, g) to = (cropkit_pixel_f32){(g)[0], (g)[1], (g)[2], 0}
#define CROPKIT_GET3_F64(to, g) to = (cropkit_pixel_f64){(g)[0], (g)[1], (g)[2], 0}
#endif
#define CROPKIT_GET4_F32(to, g) to = *(const cropkit_pixel_f32 *)(g)
#define CROPKIT_GET4_F64(to, g) to = *(const cropkit_pixel_f64 *)(g)

#endif
