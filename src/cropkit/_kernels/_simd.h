/* The few loops of the forward kernel that a compiler does not vectorize by itself.
 *
 * They are written once, with the verbs of _isa.h for the instruction set that the including
 * extension is compiled for. A function that returns a count has done that many items; the
 * caller does the others one by one.
 *
 * No operation here is fused or reassociated: a lerp is always a + (b - a) * w with
 * three roundings, on every width.
 */
#ifndef CROPKIT_SIMD_H
#define CROPKIT_SIMD_H

#include "_isa.h"
#include "_prefetch.h"

/* ---- rows: blend two, or copy one ------------------------------------------------ */

/* A crop is written as one run of whole, aligned vectors, although its rows begin and end
 * inside vectors: the part of a vector that a row's end fills waits in `carry` for the next
 * row's beginning. A store of part of a line would cost a read of the line, and between
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

/* Defines cropkit_blend_* and cropkit_copy_* for each type. */
#define TEMPLATE "_row_template.h"
#include "_for_reals.h"

/* ---- uint8 pixels: byte windows --------------------------------------------------- */

/* Four neighbouring floats of a crop row (a quad) read taps that lie close together: if
 * all eight fit in 16 bytes, one load and two byte shuffles fetch them, already widened
 * to 32 bits. `start[q]` is where quad q's window begins; `left` and `right` hold, per
 * float, the tap's byte within the window with 0x80 in the three upper bytes (a shuffle
 * writes zero there). A register holds CROPKIT_QUADS windows, each shuffled in its own
 * 128-bit lane, which is why AVX-512 needs no wider permute here. */

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

/* Copy the pixels of three floats at row + lo[i], four floats at a time where the row has so many
 * and the next pixel overwrites the fourth. Since `lo` is monotone, copies of the row's last pixel
 * come first or last. */
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
    for (ptrdiff_t i = 0; i < n; i++) {
        const cropkit_pixel_f32 a = *(const cropkit_pixel_f32 *)(row + lo[i]);
        const cropkit_pixel_f32 b = *(const cropkit_pixel_f32 *)(row + hi[i]);
        *(cropkit_pixel_f32 *)(dst + 4 * i) = a + (b - a) * weight[i];
    }
    return n;
}

/* ---- a pixel of up to four channels in one vector --------------------------------- */

/* Get a pixel of a crop as a vector, with zeros for missing channels; nothing beyond the pixel is
 * read. CROPKIT_GET3_*, for three channels, is a verb of the instruction set. */
#define CROPKIT_GET1_f32(to, g) to = *(g)
#define CROPKIT_GET1_f64(to, g) to = *(g)
#define CROPKIT_GET2_f32(to, g) to = (cropkit_pixel_f32){(g)[0], (g)[1], 0, 0}
#define CROPKIT_GET2_f64(to, g) to = (cropkit_pixel_f64){(g)[0], (g)[1], 0, 0}
#define CROPKIT_GET4_f32(to, g) to = *(const cropkit_pixel_f32 *)(g)
#define CROPKIT_GET4_f64(to, g) to = *(const cropkit_pixel_f64 *)(g)

#endif
