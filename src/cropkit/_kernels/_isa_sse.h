/* The verbs of _isa.h on baseline x86-64; windows of bytes where it has SSSE3. */
#ifndef CROPKIT_ISA_SSE_H
#define CROPKIT_ISA_SSE_H

#include "_isa_x86.h"

#define CROPKIT_VECTOR_BYTES 16

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

/* ---- pixels of three channels */

#define CROPKIT_TAPS 0

#define CROPKIT_GET3_F32(to, g) to = (cropkit_pixel_f32){(g)[0], (g)[1], (g)[2], 0}
#define CROPKIT_GET3_F64(to, g) to = (cropkit_pixel_f64){(g)[0], (g)[1], (g)[2], 0}

static inline __attribute__((always_inline)) ptrdiff_t cropkit_lerp_pixels3(
    int rows, float *restrict dst, const float *top, const float *bottom,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, float wy, ptrdiff_t n,
    ptrdiff_t last)
{
    return 0;
}

#endif
