/* The instruction set that the including extension is compiled for: the same verbs in each.
 *
 * CROPKIT_VECTOR_BYTES          width of a vector
 * CROPKIT_STORE(p, v, stream)   store a vector at an aligned address; `stream` is a constant
 * cropkit_stream_fence()        streaming stores are weakly ordered: a thread that used them
 *                               fences before it hands its rows to anybody else
 * CROPKIT_QUADS                 windows of bytes in a register, 0 where there are none; with
 *                               them cropkit_window, cropkit_floats, cropkit_load_window and
 *                               cropkit_pick (see _simd.h)
 * CROPKIT_TAPS                  samples of three channels at a time, 0 where there are none
 * CROPKIT_GET3_f32, _f64        a pixel of three channels as a vector
 * cropkit_lerp_pixels1, 3       samples of one and of three channels, as below
 *
 * and for sums in double (_grad_boxes.h):
 *
 * cropkit_widen(p)              CROPKIT_DOUBLES floats as doubles. Not __builtin_convertvector:
 *                               GCC 12 splits it into halves, a third slower in all
 * CROPKIT_ADD_EXACT_PRODUCT(sum, a, b)   sum + a * b of doubles that were float32: their product
 *                               is exact, so that a fused operation gives the same bits; it is
 *                               used where the instruction set has it for certain
 * cropkit_copy_end(to, from, n) the n < 8 values of a run's end, and zeros after them
 * cropkit_get_pairs             neighbouring values at CROPKIT_DOUBLES places of a row
 * cropkit_blend_some_pixels     pixels of cropkit_blend_pixels
 *
 * A function that returns a count says how many samples it has done, and the caller's plain loop
 * does the rest. What an instruction set does not define comes from _isa_plain.h.
 *
 * Lerp between pixels at top + lo[i] and top + hi[i]; returns how many of the n samples
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
