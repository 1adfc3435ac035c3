/* The floating-point state that kernels compute in. */
#ifndef CROPKIT_ENVIRONMENT_H
#define CROPKIT_ENVIRONMENT_H

/* Builds in which the kernels could not keep the promised bits stop here. */
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error "cropkit cannot be built with -ffast-math or -Ofast: they would change the bits of results"
#endif
#if defined(__SIZEOF_POINTER__) && __SIZEOF_POINTER__ < 8
#error "cropkit cannot be built for a 32-bit system: sizes are computed in 64 bits"
#endif
#if !defined(__SSE2__) && !defined(__aarch64__)
#error "cropkit is for x86-64 with SSE2 and for AArch64: elsewhere it cannot flush subnormals"
#endif

#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* Set the floating-point state of a kernel: round to nearest even, no traps, and subnormals
 * flushed to zero, as operands and as results, if `flush`. Returns the caller's state, to be
 * given to cropkit_leave. Every task sets the state, so that bits depend neither on the thread
 * nor on another library that has changed the thread's state. */
static inline uint64_t cropkit_enter(int flush)
{
#if defined(__SSE2__)
    const uint64_t saved = _mm_getcsr();
    _mm_setcsr(flush ? 0x1f80 | 0x8040 : 0x1f80);
    return saved;
#elif defined(__aarch64__)
    uint64_t saved;
    const uint64_t mode = flush ? 1ull << 24 : 0;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(mode) : "memory");
    return saved;
#else
    return 0;
#endif
}

static inline void cropkit_leave(uint64_t saved)
{
#if defined(__SSE2__)
    _mm_setcsr((unsigned)saved);
#elif defined(__aarch64__)
    __asm__ __volatile__("msr fpcr, %0" : : "r"(saved) : "memory");
#endif
}

#endif
