/* The image gradient's inner loops: what a crop row adds to an image row, and a finished
 * row's way into the result.
 *
 * Additions keep the operator's order; nothing is fused or reassociated. Rows that are
 * added to have their pixels padded to whole vectors where depth is 2 or 3, so that a
 * pixel is one load and one store.
 */
#ifndef CROPKIT_GRAD_IMAGE_H
#define CROPKIT_GRAD_IMAGE_H

#include "_pixels.h"
#include "_simd.h"

static inline void cropkit_prefetch_pixel(const char *g, ptrdiff_t bytes)
{
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        cropkit_prefetch_page_ahead(g + i);
}

#define TEMPLATE "_scatter_template.h"
#include "_for_reals.h"

/* ---- a finished row into the result ----------------------------------------------- */

typedef char cropkit_bytes __attribute__((
    vector_size(CROPKIT_VECTOR_BYTES), aligned(1), may_alias));

/* Copy bytes, or write zeros where src is NULL. With `stream`, the stores bypass the
 * caches: a result that is larger than the last-level cache is not read back soon. */
static void cropkit_put(char *dst, const char *src, ptrdiff_t bytes, int stream)
{
    ptrdiff_t head = -(uintptr_t)dst % CROPKIT_VECTOR_BYTES;
    if (!stream || bytes < head + CROPKIT_VECTOR_BYTES) {
        if (src)
            memcpy(dst, src, bytes);
        else
            memset(dst, 0, bytes);
        return;
    }
    cropkit_bytes v = {0};
    if (src)
        memcpy(dst, src, head);
    else
        memset(dst, 0, head);
    for (; head + CROPKIT_VECTOR_BYTES <= bytes; head += CROPKIT_VECTOR_BYTES) {
        if (src)
            v = *(const cropkit_bytes *)(src + head);
        CROPKIT_STORE(dst + head, v, 1);
    }
    if (src)
        memcpy(dst + head, src + head, bytes - head);
    else
        memset(dst + head, 0, bytes - head);
}

#endif
