/* Asking for memory before it is read. */
#ifndef CROPKIT_PREFETCH_H
#define CROPKIT_PREFETCH_H

#include <stddef.h>

/* Prefetch a line of memory into the second-level cache. The first-level cache has room for fewer
 * requests under way, and stalls when there are more. */
static inline __attribute__((always_inline)) void cropkit_prefetch_line(const void *at)
{
    __builtin_prefetch(at, 0, 2);
}

/* Prefetch some bytes into the second-level cache. Without the empty asm statement, GCC takes a
 * function that only prefetches to have no effect, and drops the calls. */
static inline void cropkit_prefetch(const char *at, ptrdiff_t bytes)
{
    __asm__ __volatile__("");
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        cropkit_prefetch_line(at + i);
}

/* Prefetch some bytes into the first-level cache: few bytes that are needed soon. */
static inline void cropkit_prefetch_near(const char *at, ptrdiff_t bytes)
{
    __asm__ __volatile__("");
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(at + i, 0, 3);
}

/* Prefetch the line one page later, for long runs that are read slowly: hardware prefetchers stop
 * at the end of a page, and the instructions under way do not reach the next page early. */
static inline __attribute__((always_inline)) void cropkit_prefetch_page_ahead(const void *at)
{
    cropkit_prefetch_line((const char *)at + 4096);
}

#endif
