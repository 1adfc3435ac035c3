/* Pixels of every image dtype, loaded as float or double, and stored.
 *
 * A loader reads `count` pixels of one image row into a packed row of reals: the columns
 * listed in `columns`, or `first, first + 1, ...` where that is NULL. Strides are in
 * bytes; source pixels are native-endian and aligned (cropkit_realign makes them so).
 * Conversions round to nearest even, as the language's casts do.
 */
#ifndef CROPKIT_PIXELS_H
#define CROPKIT_PIXELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Distinct C types, so that they cannot be mistaken for uint16. */
typedef struct { uint16_t bits; } cropkit_float16;
typedef struct { uint16_t bits; } cropkit_bfloat16;

/* The conversion is exact and has no branches, so that the compiler vectorizes it on every
 * instruction set; F16C would do it in one instruction, but is one more feature to detect. A
 * subnormal float16 never becomes a subnormal float on the way, since kernels flush those to
 * zero: 2^-14 is put in front of its mantissa and subtracted. */
static inline float cropkit_from_float16(cropkit_float16 half)
{
    const uint32_t magnitude = (uint32_t)(half.bits & 0x7fff) << 13;
    const uint32_t sign = (uint32_t)(half.bits & 0x8000) << 16;
    const uint32_t rebias = magnitude >= 0x0f800000u ? 224u << 23 : 112u << 23;
    const uint32_t shifted = magnitude + (113u << 23);
    uint32_t bits = magnitude + rebias, subnormal_bits;
    float subnormal, value;
    memcpy(&subnormal, &shifted, sizeof subnormal);
    subnormal -= 0x1p-14f;
    memcpy(&subnormal_bits, &subnormal, sizeof subnormal_bits);
    bits = (magnitude < 0x00800000u ? subnormal_bits : bits) | sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float cropkit_from_bfloat16(cropkit_bfloat16 brain)
{
    const uint32_t bits = (uint32_t)brain.bits << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Casts of a finished value to a pixel. A cast to an integer goes towards zero and saturates, and
 * NaN gives 0, so that no bit depends on the machine. */
#define CROPKIT_SATURATE(PIXEL, LEAST, MOST, BEYOND)                                     \
    (v != v ? 0 : v <= (float)(LEAST) ? LEAST : v >= BEYOND ? MOST : (PIXEL)v)

static inline cropkit_float16 cropkit_to_float16(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    const uint16_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return (cropkit_float16){(uint16_t)(sign | 0x7e00)};
    if (bits >= 0x477ff000) /* 65520 and above */
        return (cropkit_float16){(uint16_t)(sign | 0x7c00)};
    if (bits < 0x38800000) { /* below 2^-14: the last bit of v + 0.5 is that of the float16 */
        float shifted;
        memcpy(&shifted, &bits, sizeof shifted);
        shifted += 0.5f;
        memcpy(&bits, &shifted, sizeof bits);
        return (cropkit_float16){(uint16_t)(sign | (bits - 0x3f000000))};
    }
    bits += 0xfff + (bits >> 13 & 1);
    return (cropkit_float16){(uint16_t)(sign | ((bits - 0x38000000) >> 13))};
}

static inline cropkit_bfloat16 cropkit_to_bfloat16(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (cropkit_bfloat16){(uint16_t)(bits >> 16 | 0x40)};
    return (cropkit_bfloat16){(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

/* One row per image dtype: name, C type, the value of pixel `p`, the pixel of value `v`, and
 * whether a float holds every value. The order defines the codes; the names are NumPy's. */
#define CROPKIT_PIXEL_TYPES(ROW, REAL)                                                   \
    ROW(bool, uint8_t, p != 0, v != 0, 1, REAL)                                          \
    ROW(uint8, uint8_t, p, CROPKIT_SATURATE(uint8_t, 0, UINT8_MAX, 0x1p8f), 1, REAL)     \
    ROW(int8, int8_t, p, CROPKIT_SATURATE(int8_t, INT8_MIN, INT8_MAX, 0x1p7f), 1, REAL)  \
    ROW(uint16, uint16_t, p, CROPKIT_SATURATE(uint16_t, 0, UINT16_MAX, 0x1p16f), 1, REAL) \
    ROW(int16, int16_t, p, CROPKIT_SATURATE(int16_t, INT16_MIN, INT16_MAX, 0x1p15f), 1, REAL) \
    ROW(uint32, uint32_t, p, CROPKIT_SATURATE(uint32_t, 0, UINT32_MAX, 0x1p32f), 0, REAL) \
    ROW(int32, int32_t, p, CROPKIT_SATURATE(int32_t, INT32_MIN, INT32_MAX, 0x1p31f), 0, REAL) \
    ROW(uint64, uint64_t, p, CROPKIT_SATURATE(uint64_t, 0, UINT64_MAX, 0x1p64f), 0, REAL) \
    ROW(int64, int64_t, p, CROPKIT_SATURATE(int64_t, INT64_MIN, INT64_MAX, 0x1p63f), 0, REAL) \
    ROW(float16, cropkit_float16, cropkit_from_float16(p), cropkit_to_float16(v), 1, REAL) \
    ROW(bfloat16, cropkit_bfloat16, cropkit_from_bfloat16(p), cropkit_to_bfloat16(v), 1, REAL) \
    ROW(float32, float, p, v, 1, REAL)                                                   \
    ROW(float64, double, p, v, 0, REAL)

/* Packed pixels are loaded as one run, in a loop that vectorizes. */
#define CROPKIT_DEFINE_LOADER(NAME, PIXEL, VALUE, CAST, SINGLE, REAL)                    \
    static void cropkit_load_##NAME##_##REAL(REAL *restrict dst, const char *row,        \
        const ptrdiff_t *columns, ptrdiff_t first, ptrdiff_t count, ptrdiff_t stride_x,  \
        ptrdiff_t depth, ptrdiff_t stride_c)                                             \
    {                                                                                    \
        if (columns == NULL && stride_c == (ptrdiff_t)sizeof(PIXEL)                      \
            && stride_x == depth * stride_c) {                                           \
            row += first * stride_x;                                                     \
            first = 0;                                                                   \
            depth *= count;                                                              \
            count = 1;                                                                   \
        }                                                                                \
        for (ptrdiff_t i = 0; i < count; i++, dst += depth) {                            \
            const char *at = row + (columns ? columns[i] : first + i) * stride_x;        \
            if (stride_c == (ptrdiff_t)sizeof(PIXEL)) {                                  \
                for (ptrdiff_t c = 0; c < depth; c++) {                                  \
                    const PIXEL p = ((const PIXEL *)at)[c];                              \
                    dst[c] = (REAL)(VALUE);                                              \
                }                                                                        \
            } else {                                                                     \
                for (ptrdiff_t c = 0; c < depth; c++) {                                  \
                    const PIXEL p = *(const PIXEL *)(at + c * stride_c);                 \
                    dst[c] = (REAL)(VALUE);                                              \
                }                                                                        \
            }                                                                            \
        }                                                                                \
    }

CROPKIT_PIXEL_TYPES(CROPKIT_DEFINE_LOADER, float)
CROPKIT_PIXEL_TYPES(CROPKIT_DEFINE_LOADER, double)

typedef void (*cropkit_loader_float)(float *, const char *, const ptrdiff_t *, ptrdiff_t,
    ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);
typedef void (*cropkit_loader_double)(double *, const char *, const ptrdiff_t *, ptrdiff_t,
    ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);

#define CROPKIT_CODE(NAME, PIXEL, VALUE, CAST, SINGLE, REAL) CROPKIT_##NAME,
enum { CROPKIT_PIXEL_TYPES(CROPKIT_CODE, ) CROPKIT_PIXEL_TYPE_COUNT };

#define CROPKIT_LOADER(NAME, PIXEL, VALUE, CAST, SINGLE, REAL) cropkit_load_##NAME##_##REAL,
#define CROPKIT_NAME(NAME, PIXEL, VALUE, CAST, SINGLE, REAL) #NAME,
#define CROPKIT_SINGLE(NAME, PIXEL, VALUE, CAST, SINGLE, REAL) SINGLE,
static const cropkit_loader_float cropkit_loaders_float[] = {
    CROPKIT_PIXEL_TYPES(CROPKIT_LOADER, float)};
static const cropkit_loader_double cropkit_loaders_double[] = {
    CROPKIT_PIXEL_TYPES(CROPKIT_LOADER, double)};
static const char *const cropkit_pixel_names[] = {CROPKIT_PIXEL_TYPES(CROPKIT_NAME, )};
static const int cropkit_pixel_is_single[] = {CROPKIT_PIXEL_TYPES(CROPKIT_SINGLE, )};

/* Store n packed pixels at any strides and alignment; zeros where src is NULL. */
#define CROPKIT_DEFINE_STORE(NAME, PIXEL, VALUE, CAST, SINGLE, REAL)                     \
    static void cropkit_store_##NAME##_##REAL(char *dst, const REAL *src, ptrdiff_t n,   \
        ptrdiff_t stride_x, ptrdiff_t depth, ptrdiff_t stride_c)                         \
    {                                                                                    \
        for (ptrdiff_t i = 0; i < n; i++, dst += stride_x)                               \
            for (ptrdiff_t c = 0; c < depth; c++) {                                      \
                const REAL v = src ? src[i * depth + c] : 0;                             \
                const PIXEL p = CAST;                                                    \
                memcpy(dst + c * stride_c, &p, sizeof p);                                \
            }                                                                            \
    }

CROPKIT_PIXEL_TYPES(CROPKIT_DEFINE_STORE, float)
/* Only a float64 result is computed in double. */
CROPKIT_DEFINE_STORE(float64, double, p, v, 0, double)

typedef void (*cropkit_store_float)(
    char *, const float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);

#define CROPKIT_STORE_OF(NAME, PIXEL, VALUE, CAST, SINGLE, REAL) cropkit_store_##NAME##_##REAL,
static const cropkit_store_float cropkit_stores[] = {
    CROPKIT_PIXEL_TYPES(CROPKIT_STORE_OF, float)};

/* Copy pixels of any alignment and byte order to a packed native row: those in `columns`, or from
 * `first` on if that is NULL. */
static void cropkit_realign(char *restrict dst, const char *row, const ptrdiff_t *columns,
    ptrdiff_t first, ptrdiff_t count, ptrdiff_t stride_x, ptrdiff_t depth,
    ptrdiff_t stride_c, ptrdiff_t itemsize, int swap)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        const char *at = row + (columns ? columns[i] : first + i) * stride_x;
        for (ptrdiff_t c = 0; c < depth; c++, at += stride_c, dst += itemsize)
            for (ptrdiff_t k = 0; k < itemsize; k++)
                dst[k] = at[swap ? itemsize - 1 - k : k];
    }
}

#endif
