/* The verbs of _isa.h without intrinsics, for every instruction set that has not defined the
 * verb, or its macro CROPKIT_OWN_..., itself. A verb that returns 0 here leaves all samples to
 * the caller. */
#ifndef CROPKIT_ISA_PLAIN_H
#define CROPKIT_ISA_PLAIN_H

#ifndef CROPKIT_GET3_f32
#define CROPKIT_GET3_f32(to, g) to = (cropkit_pixel_f32){(g)[0], (g)[1], (g)[2], 0}
#define CROPKIT_GET3_f64(to, g) to = (cropkit_pixel_f64){(g)[0], (g)[1], (g)[2], 0}
#endif

#ifndef CROPKIT_OWN_LERP_PIXELS1
static inline ptrdiff_t cropkit_lerp_pixels1(float *restrict dst, const float *row,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, ptrdiff_t n, ptrdiff_t last)
{
    return 0;
}
#endif

#ifndef CROPKIT_TAPS
#define CROPKIT_TAPS 0
static inline __attribute__((always_inline)) ptrdiff_t cropkit_lerp_pixels3(
    int rows, float *restrict dst, const float *top, const float *bottom,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const float *weight, float wy, ptrdiff_t n,
    ptrdiff_t last)
{
    return 0;
}
#endif

#ifndef CROPKIT_ADD_EXACT_PRODUCT
#define CROPKIT_ADD_EXACT_PRODUCT(sum, a, b) sum += (a) * (b)
#endif

#ifndef CROPKIT_OWN_COPY_END
static inline void cropkit_copy_end(float *to, const float *from, ptrdiff_t count)
{
    for (ptrdiff_t k = 0; k < 8; k++)
        to[k] = k < count ? from[k] : 0;
}
#endif

#ifndef CROPKIT_OWN_BLEND_SOME_PIXELS
static inline ptrdiff_t cropkit_blend_some_pixels(double *restrict blend, double *restrict rise,
    const float *row, const float *later, const ptrdiff_t *left, const ptrdiff_t *right,
    const double *weights, ptrdiff_t n, ptrdiff_t depth)
{
    return 0;
}
#endif

#ifndef CROPKIT_OWN_GET_PAIRS
static inline __attribute__((always_inline)) void cropkit_get_pairs(
    cropkit_doubles *left, cropkit_doubles *right, const float *row, const ptrdiff_t *at)
{
    for (int k = 0; k < CROPKIT_DOUBLES; k++) {
        (*left)[k] = row[at[k]];
        (*right)[k] = row[at[k] + 1];
    }
}
#endif

#endif
