/* The verbs of _isa.h on AArch64, which always has NEON. */
#ifndef CROPKIT_ISA_NEON_H
#define CROPKIT_ISA_NEON_H

#include <arm_neon.h>

#define CROPKIT_VECTOR_BYTES 16

#define CROPKIT_STORE(p, v, stream) memcpy((p), &(v), sizeof(v))

static inline void cropkit_stream_fence(void)
{
}

/* ---- windows of bytes */

#define CROPKIT_QUADS 1

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

/* ---- pixels of one and of three channels */

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

static inline ptrdiff_t cropkit_lerp_pixels1(float *restrict dst, const float *row,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, ptrdiff_t n, ptrdiff_t last)
{
    return 0;
}

#endif
