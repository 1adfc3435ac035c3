"""The OpenMP team: how large it may be and can be, and how to part from it before a fork."""

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    /* Of OpenMP 5.0; GCC 9 and LLVM 9 had it before they claimed that version. */
    #if _OPENMP >= 201811 || __GNUC__ >= 9 || __clang_major__ >= 9
    #define CROPKIT_PAUSE() omp_pause_resource_all(omp_pause_soft)
    #else
    #define CROPKIT_PAUSE() (-1)
    #endif
    #define CROPKIT_OPENMP _OPENMP
    #else
    #define omp_get_max_threads() 1
    #define CROPKIT_PAUSE() 0
    #define CROPKIT_OPENMP 0
    #endif
    """
    int omp_get_max_threads() noexcept
    int CROPKIT_PAUSE() noexcept
    const int CROPKIT_OPENMP

cdef extern from "_team.h" nogil:
    size_t cropkit_stack_size() noexcept
    int cropkit_team_for(int, size_t) noexcept
    void cropkit_team_is_gone() noexcept

# Read when OpenMP has just read it itself.
cdef size_t _stack_size = cropkit_stack_size()


cdef int team_for(int wanted) noexcept nogil:
    """Return `wanted`, or fewer threads where the system refuses to start so many.

    GNU OpenMP would end the process there. Every parallel region asks first, with the number
    of threads that it is then given.
    """
    return cropkit_team_for(wanted, _stack_size)


def openmp_version():
    """Date of the OpenMP specification compiled against (``yyyymm``), 0 without OpenMP."""
    return CROPKIT_OPENMP


def openmp_max_threads():
    """Size of the team that OpenMP would use (``OMP_NUM_THREADS``, else the CPUs)."""
    return omp_get_max_threads()


def pause():
    """Give the calling thread's idle workers back to the system.

    A child of ``fork`` inherits the team's book-keeping but not its threads, and would
    wait for them forever in its first parallel region. After a pause there is no team to
    inherit; the next parallel region makes a new one (about 50 µs).

    Returns
    -------
    bool
        Whether it worked.
    """
    cropkit_team_is_gone()
    return CROPKIT_PAUSE() == 0
