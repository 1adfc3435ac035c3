/* Pixels of many channels: a crop row in one pass over its four taps.
 *
 * Where crop rows share no source rows, keeping rows that are interpolated along x only
 * costs a store and a load of each. Along the channels all four taps are runs, and the
 * result goes to `dst` as whole aligned vectors (see cropkit_carry in _simd.h):
 *
 *      tl ... tr    top    = tl + (tr - tl) * wx
 *      bl ... br    bottom = bl + (br - bl) * wx      dst = top + (bottom - top) * wy
 *
 * The taps are the caller's image, so nothing outside a pixel is read: a pixel's first
 * vector is loaded at its beginning and its last at its end, and both are shifted into the
 * vectors of `dst` in memory. That takes a depth of at least one vector,
 * CROPKIT_VECTOR_BYTES.
 */
#ifndef CROPKIT_DEEP_H
#define CROPKIT_DEEP_H

#include "_simd.h"

/* cropkit_deep_lerp_*: n pixels of a crop row, from two source rows.
 * cropkit_deep_pick_*: the same, copied from `top`; nothing else is looked at.
 *
 * `line` is a vector of `dst` that is being put together, with room on both sides for
 * what belongs to its neighbours. */
#define CROPKIT_DEFINE_DEEP(NAME, REAL, VECTOR, TAPS, VALUE)                             \
    static inline void NAME(REAL *dst, const REAL *top, const REAL *bottom,              \
        const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *weight, REAL wy,           \
        ptrdiff_t n, ptrdiff_t depth, int stream, cropkit_carry *carry)                  \
    {                                                                                    \
        enum { LANES = CROPKIT_VECTOR_BYTES / sizeof(REAL) };                            \
        struct {                                                                         \
            REAL before[LANES], line[LANES], after[LANES];                               \
        } __attribute__((aligned(CROPKIT_VECTOR_BYTES))) at;                             \
        ptrdiff_t held = (uintptr_t)dst % CROPKIT_VECTOR_BYTES / sizeof(REAL);           \
        ptrdiff_t skip = 0; /* lanes of the first vector that somebody else writes */    \
        VECTOR v;                                                                        \
        (void)bottom, (void)hi, (void)weight, (void)wy;                                  \
        dst -= held;                                                                     \
        if (held && carry->line == (char *)dst                                           \
            && carry->bytes == held * (ptrdiff_t)sizeof(REAL)) {                         \
            memcpy(at.line, carry->held, sizeof v);                                      \
            carry->bytes = 0;                                                            \
        } else {                                                                         \
            cropkit_flush_carry(carry);                                                  \
            skip = held;                                                                 \
        }                                                                                \
        for (ptrdiff_t s = 0; s < n; s++) {                                              \
            TAPS(REAL);                                                                  \
            ptrdiff_t i = 0;                                                             \
            if (held) {                                                                  \
                v = VALUE;                                                               \
                memcpy(at.line + held, &v, sizeof v);                                    \
                if (skip) {                                                              \
                    memcpy(dst + skip, at.line + skip, (LANES - skip) * sizeof(REAL));   \
                    skip = 0;                                                            \
                } else {                                                                 \
                    memcpy(&v, at.line, sizeof v);                                       \
                    CROPKIT_STORE(dst, v, stream);                                       \
                }                                                                        \
                dst += LANES;                                                            \
                i = LANES - held;                                                        \
            }                                                                            \
            if (stream)                                                                  \
                for (; i + LANES <= depth; i += LANES, dst += LANES) {                   \
                    v = VALUE;                                                           \
                    CROPKIT_STORE(dst, v, 1);                                            \
                }                                                                        \
            else                                                                         \
                for (; i + LANES <= depth; i += LANES, dst += LANES) {                   \
                    v = VALUE;                                                           \
                    CROPKIT_STORE(dst, v, 0);                                            \
                }                                                                        \
            held = depth - i;                                                            \
            if (held) {                                                                  \
                i = depth - LANES;                                                       \
                v = VALUE;                                                               \
                memcpy(at.line + held - LANES, &v, sizeof v);                            \
            }                                                                            \
        }                                                                                \
        if (held) {                                                                      \
            memcpy(carry->held, at.line, sizeof v);                                      \
            carry->line = (char *)dst;                                                   \
            carry->bytes = held * sizeof(REAL);                                          \
        }                                                                                \
    }

#define CROPKIT_FOUR_TAPS(REAL)                                                          \
    const REAL *tl = top + lo[s], *tr = top + hi[s];                                     \
    const REAL *bl = bottom + lo[s], *br = bottom + hi[s];                               \
    const REAL wx = weight[s]
#define CROPKIT_ONE_TAP(REAL) const REAL *tl = top + lo[s]

#define CROPKIT_DEFINE_DEEPS(REAL, SUFFIX)                                               \
    CROPKIT_DEFINE_DEEP(cropkit_deep_lerp_##SUFFIX, REAL, cropkit_vector_##SUFFIX,       \
        CROPKIT_FOUR_TAPS,                                                               \
        cropkit_between_##SUFFIX(cropkit_lerp_##SUFFIX(tl + i, tr + i, wx),              \
            cropkit_lerp_##SUFFIX(bl + i, br + i, wx), wy))                              \
    CROPKIT_DEFINE_DEEP(cropkit_deep_pick_##SUFFIX, REAL, cropkit_vector_##SUFFIX,       \
        CROPKIT_ONE_TAP, *(const cropkit_vector_##SUFFIX *)(tl + i))

CROPKIT_DEFINE_DEEPS(float, f32)
CROPKIT_DEFINE_DEEPS(double, f64)

#endif
