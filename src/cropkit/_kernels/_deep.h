/* Pixels of many channels: a crop row in one pass over its four taps.
 *
 * Where crop rows share no source rows, a source row interpolated along x and kept costs a store
 * and a load for nothing. Here the loop goes along the channels, in which each of the four taps
 * is a run, and writes `dst` as whole aligned vectors (see cropkit_carry in _simd.h):
 *
 *      tl ... tr    top    = tl + (tr - tl) * wx
 *      bl ... br    bottom = bl + (br - bl) * wx      dst = top + (bottom - top) * wy
 *
 * The taps lie in the caller's image, so no load goes past a pixel: a pixel's first vector is
 * loaded at the pixel's beginning and its last vector at its end, and both are shifted into the
 * vectors of `dst` in memory. So a pixel must be at least as large as a vector,
 * CROPKIT_VECTOR_BYTES.
 */
#ifndef CROPKIT_DEEP_H
#define CROPKIT_DEEP_H

#include "_simd.h"

#define TEMPLATE "_deep_template.h"
#include "_for_reals.h"

#endif
