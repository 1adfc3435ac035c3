/* Poison for a task's scratch, which shows reads of memory that the task has not written.
 *
 * Scratch holds what the task before has left, so such a read often finds the right values. In
 * the sanitizers' build (CROPKIT_POISON) an array begins as NaN, or as -1 if it holds integers,
 * and between two arrays lie bytes that AddressSanitizer reports when they are touched. */
#ifndef CROPKIT_SCRATCH_H
#define CROPKIT_SCRATCH_H

#include <stddef.h>
#include <string.h>

#if defined(CROPKIT_POISON) && defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

/* Bytes between two arrays, besides those that fill up a cache line. */
#ifdef CROPKIT_POISON
#define CROPKIT_GAP 64
#else
#define CROPKIT_GAP 0
#endif

/* Poison an array of `size` bytes, and the `gap` bytes after it. */
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
