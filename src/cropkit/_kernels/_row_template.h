/* The functions of _simd.h that write a finished row in whole vectors: a template that takes REAL
 * and SUFFIX.
 *
 * cropkit_blend_*: dst = top + (bottom - top) * weight.    cropkit_copy_*: dst = top.
 *
 * Rows are read in the same vectors in which dst is written, so up to a vector before `top` and
 * `bottom` and after their ends: both are scratch rows with that much room. With `stream`, the
 * stores bypass the caches, which pays if the result is larger than the last-level cache, and
 * costs time if not. */

typedef REAL NAMED(cropkit_vector) __attribute__((
    vector_size(CROPKIT_VECTOR_BYTES), aligned(__alignof__(REAL)), may_alias));
#define VECTOR NAMED(cropkit_vector)

static inline VECTOR NAMED(cropkit_between)(VECTOR a, VECTOR b, REAL w)
{
    return a + (b - a) * w;
}

static inline VECTOR NAMED(cropkit_lerp)(const REAL *a, const REAL *b, REAL w)
{
    return NAMED(cropkit_between)(*(const VECTOR *)a, *(const VECTOR *)b, w);
}

static inline __attribute__((always_inline)) VECTOR NAMED(cropkit_row_vector)(
    const REAL *top, const REAL *bottom, REAL weight, const int copies)
{
    return copies ? *(const VECTOR *)top : NAMED(cropkit_lerp)(top, bottom, weight);
}

/* The common body of the two functions at the end of this file; `copies` is a constant. */
static inline __attribute__((always_inline)) void NAMED(cropkit_write_row)(
    REAL *dst, const REAL *top, const REAL *bottom, REAL weight, ptrdiff_t n, int stream,
    cropkit_carry *carry, const int copies)
{
    typedef unsigned char bytes __attribute__((vector_size(CROPKIT_VECTOR_BYTES)));
    const ptrdiff_t lanes = CROPKIT_VECTOR_BYTES / sizeof(REAL);
    const ptrdiff_t past = (uintptr_t)dst % CROPKIT_VECTOR_BYTES / sizeof(REAL);
    const ptrdiff_t end = past + n;
    ptrdiff_t i = 0;
    VECTOR v;
    dst -= past, top -= past, bottom -= past;
    if (past) {
        const ptrdiff_t skip = past * sizeof(REAL);
        if (end < lanes || carry->line != (char *)dst || carry->bytes != skip) {
            const ptrdiff_t stop = end < lanes ? end : lanes;
            cropkit_flush_carry(carry);
            v = NAMED(cropkit_row_vector)(top + i, bottom + i, weight, copies);
            memcpy(dst + past, (char *)&v + skip, (stop - past) * sizeof(REAL));
        } else {
            bytes keep, held;
            memcpy(&keep, cropkit_keep + CROPKIT_VECTOR_BYTES - skip, sizeof keep);
            memcpy(&held, carry->held, sizeof held);
            v = NAMED(cropkit_row_vector)(top + i, bottom + i, weight, copies);
            v = (VECTOR)((held & keep) | ((bytes)v & ~keep));
            CROPKIT_STORE(dst, v, stream);
            carry->bytes = 0;
        }
        i = lanes;
    } else {
        cropkit_flush_carry(carry);
    }
    if (stream)
        for (; i + lanes <= end; i += lanes) {
            v = NAMED(cropkit_row_vector)(top + i, bottom + i, weight, copies);
            CROPKIT_STORE(dst + i, v, 1);
        }
    else
        for (; i + lanes <= end; i += lanes) {
            v = NAMED(cropkit_row_vector)(top + i, bottom + i, weight, copies);
            CROPKIT_STORE(dst + i, v, 0);
        }
    if (i < end) {
        v = NAMED(cropkit_row_vector)(top + i, bottom + i, weight, copies);
        memcpy(carry->held, &v, sizeof v);
        carry->line = (char *)(dst + i);
        carry->bytes = (end - i) * sizeof(REAL);
    }
}

static inline void NAMED(cropkit_blend)(REAL *dst, const REAL *top, const REAL *bottom,
    REAL weight, ptrdiff_t n, int stream, cropkit_carry *carry)
{
    NAMED(cropkit_write_row)(dst, top, bottom, weight, n, stream, carry, 0);
}

static inline void NAMED(cropkit_copy)(REAL *dst, const REAL *top, const REAL *bottom,
    REAL weight, ptrdiff_t n, int stream, cropkit_carry *carry)
{
    NAMED(cropkit_write_row)(dst, top, bottom, weight, n, stream, carry, 1);
}
#undef VECTOR
