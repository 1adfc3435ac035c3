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

#define TEMPLATE "_deep_template.h"
#include "_for_reals.h"

#endif
