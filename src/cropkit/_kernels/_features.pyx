"""The instruction sets that this CPU has.

This module is compiled with baseline flags and imported before the modules of the kernels: a
module compiled for an instruction set may use it anywhere, even in its initialization.
"""

cdef extern from *:
    """
    static int cropkit_has_avx2(void)
    {
    #if defined(__x86_64__)
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2");
    #else
        return 0;
    #endif
    }

    /* GCC's check also asks whether the operating system saves the registers: it reads XCR0. */
    static int cropkit_has_avx512(void)
    {
    #if defined(__x86_64__)
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    #else
        return 0;
    #endif
    }

    #if defined(__aarch64__)
    #define CROPKIT_IS_AARCH64 1
    #else
    #define CROPKIT_IS_AARCH64 0
    #endif
    """
    bint cropkit_has_avx2() noexcept
    bint cropkit_has_avx512() noexcept
    const bint CROPKIT_IS_AARCH64


def instruction_sets():
    """Return the names of this CPU's instruction sets that kernels may be built for, best first."""
    if CROPKIT_IS_AARCH64:
        return ("neon",)
    found = ["baseline"]
    if cropkit_has_avx2():
        found.insert(0, "avx2")
        if cropkit_has_avx512():
            found.insert(0, "avx512")
    return tuple(found)
