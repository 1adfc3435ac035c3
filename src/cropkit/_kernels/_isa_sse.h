/* The verbs of _isa.h on baseline x86-64; windows of bytes only if it is compiled with SSSE3. */
#ifndef CROPKIT_ISA_SSE_H
#define CROPKIT_ISA_SSE_H

#define CROPKIT_VECTOR_BYTES 16

#include "_vectors.h"
#include "_isa_x86.h"

#define CROPKIT_STORE(p, v, stream)                                                      \
    ((stream) ? _mm_stream_si128((__m128i *)(p), (__m128i)(v))                           \
              : _mm_store_si128((__m128i *)(p), (__m128i)(v)))

/* ---- windows of bytes */

#if defined(__SSSE3__)
#define CROPKIT_QUADS 1

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
#else
#define CROPKIT_QUADS 0
#endif

/* ---- sums in double */

static inline __attribute__((always_inline)) cropkit_doubles cropkit_widen(const float *p)
{
    return (cropkit_doubles)_mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)p)));
}

#endif
