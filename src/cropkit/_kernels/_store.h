/* Copying a finished row to the result. */
#ifndef CROPKIT_STORE_H
#define CROPKIT_STORE_H

#include "_isa.h"

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
