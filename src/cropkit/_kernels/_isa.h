/* The verbs of the instruction set that the including extension is compiled for: macros and
 * functions that every instruction set has, each in its own way.
 *
 * CROPKIT_VECTOR_BYTES          width of a vector
 * CROPKIT_STORE(p, v, stream)   store a vector at an aligned address; `stream` is a constant
 * cropkit_stream_fence()        streaming stores are weakly ordered: a thread calls this after
 *                               them, before another thread reads the rows
 * CROPKIT_QUADS                 windows of bytes in a register, 0 where there are none; with
 *                               them cropkit_window, cropkit_floats, cropkit_load_window and
 *                               cropkit_pick (see _simd.h)
 * CROPKIT_TAPS                  samples that cropkit_lerp_pixels3 makes at a time, 0 for none
 * CROPKIT_GET3_f32, _f64        a pixel of three channels as a vector
 * cropkit_lerp_pixels1, 3       samples of one and of three channels, as below
 *
 * and for sums in double (_grad_boxes.h):
 *
 * cropkit_widen(p)              CROPKIT_DOUBLES floats as doubles. Not __builtin_convertvector:
 *                               GCC 12 splits it into halves, which made sums a third slower
 * CROPKIT_ADD_EXACT_PRODUCT(sum, a, b)   add a * b of doubles that were float32. Their product
 *                               is exact, so a fused operation gives the same bits; it is used
 *                               where every CPU of the instruction set has one
 * cropkit_copy_end(to, from, n) copy the last n < 8 values of a run, and zeros after them
 * cropkit_get_pairs             neighbouring values at CROPKIT_DOUBLES places of a row
 * cropkit_blend_some_pixels     pixels of cropkit_blend_pixels
 *
 * A function that returns a count has done that many samples; the caller does the others one by
 * one. A verb that an instruction set does not define comes from _isa_plain.h.
 *
 * cropkit_lerp_pixels1 and 3 lerp between the pixels at top + lo[i] and top + hi[i] and return
 * how many of the n samples are done. They may write up to 16 floats past the last of these:
 * dst is a scratch row with that much room.
 *
 * cropkit_lerp_pixels3 has a constant `rows`. If it is 2, the function also lerps in `bottom`,
 * and dst lies between the two by `wy`. All n samples are then done, n must be at least
 * CROPKIT_TAPS, and nothing is written past them, since dst is the result. On an instruction
 * set whose CROPKIT_TAPS is 0, the function must not be called with `rows` 2.
 *
 * Where neighbouring pixels are adjacent in memory, `last` is the offset of the row's last
 * pixel, and one load from `lo` may fetch both taps; elsewhere `last` is less than any offset.
 * One load has two limits: a sample at the last pixel has no right neighbour to read; and where
 * the weight is 0, `hi` is `lo`, and the neighbour must not be used (an infinite one would make
 * a NaN). Other loads read nothing but the pixel: the fourth lane of a three-channel load is
 * masked off. */
#ifndef CROPKIT_ISA_H
#define CROPKIT_ISA_H

#if defined(__AVX512F__)
#include "_isa_avx512.h"
#elif defined(__AVX2__)
#include "_isa_avx2.h"
#elif defined(__SSE2__)
#include "_isa_sse.h"
#else
#include "_isa_neon.h"
#endif
#include "_isa_plain.h"

#endif
