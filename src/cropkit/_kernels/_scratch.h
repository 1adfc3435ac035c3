/* What a task finds in its scratch before it writes there.
 *
 * Otherwise that is whatever the task before left, so that a read past what a kernel has
 * written often finds what it should. In the sanitizers' build (CROPKIT_POISON) an array
 * begins as NaN, as -1 where it holds integers, and between two arrays lie bytes that
 * AddressSanitizer reports when they are touched. */
#ifndef CROPKIT_SCRATCH_H
#define CROPKIT_SCRATCH_H

#include <stddef.h>
#include <string.h>

#if defined(CROPKIT_POISON) && defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

/* Bytes between two arrays beside those that fill a cache line. */
#ifdef CROPKIT_POISON
#define CROPKIT_GAP 64
#else
#define CROPKIT_GAP 0
#endif

/* An array of `size` bytes, and `gap` bytes after it. */
static inline void cropkit_poison(char *array, ptrdiff_t size, ptrdiff_t gap)
{
#ifdef CROPKIT_POISON
    memset(array, 0xff, size);
#ifdef __SANITIZE_ADDRESS__
    ASAN_POISON_MEMORY_REGION(array + size, gap);
#endif
#endif
    (void)array, (void)size, (void)gap;
}

#endif
