/* Asking for memory before it is read. */
#ifndef CROPKIT_PREFETCH_H
#define CROPKIT_PREFETCH_H

#include <stddef.h>

/* Ask for memory that is needed soon: a line, some bytes, or what comes a page later. Into
 * the second-level cache, since the first has room for fewer requests under way and stalls
 * when there are more. */
static inline __attribute__((always_inline)) void cropkit_prefetch_line(const void *at)
{
    __builtin_prefetch(at, 0, 2);
}

/* Without the empty statement, GCC takes a function that only prefetches to have no effect,
 * and drops the calls. */
static inline void cropkit_prefetch(const char *at, ptrdiff_t bytes)
{
    __asm__ __volatile__("");
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        cropkit_prefetch_line(at + i);
}

/* The same into the first-level cache: for little, and soon. */
static inline void cropkit_prefetch_near(const char *at, ptrdiff_t bytes)
{
    __asm__ __volatile__("");
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(at + i, 0, 3);
}

/* For long runs that are read slowly: hardware prefetchers stop at the end of a page, and too
 * few instructions are under way to reach the next one early. */
static inline __attribute__((always_inline)) void cropkit_prefetch_page_ahead(const void *at)
{
    cropkit_prefetch_line((const char *)at + 4096);
}

#endif
