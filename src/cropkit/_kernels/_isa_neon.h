/* The verbs of _isa.h on AArch64, which always has NEON. */
#ifndef CROPKIT_ISA_NEON_H
#define CROPKIT_ISA_NEON_H

#include <arm_neon.h>

#define CROPKIT_VECTOR_BYTES 16

#include "_vectors.h"

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

/* ---- sums in double */

static inline __attribute__((always_inline)) cropkit_doubles cropkit_widen(const float *p)
{
    cropkit_doubles wide;
    for (int k = 0; k < CROPKIT_DOUBLES; k++)
        wide[k] = p[k];
    return wide;
}

#endif
