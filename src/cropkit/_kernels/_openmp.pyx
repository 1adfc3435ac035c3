"""The OpenMP team: its largest size, the threads that can start, and its end before a fork."""

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    /* This function is of OpenMP 5.0; GCC 9 and LLVM 9 have it without claiming that version. */
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

# Read from the environment at the same time as by OpenMP, which has just been loaded.
cdef size_t _stack_size = cropkit_stack_size()


cdef int team_for(int wanted) noexcept nogil:
    """Return `wanted`, or the size of the present team if the system refuses more threads.

    GNU OpenMP would end the process in that case. Every parallel region calls this function
    first, and then uses the number of threads that it returns.
    """
    return cropkit_team_for(wanted, _stack_size)


def openmp_version():
    """Return the date (``yyyymm``) of the OpenMP specification compiled against, or 0."""
    return CROPKIT_OPENMP


def openmp_max_threads():
    """Return the size of the team that OpenMP would use: ``OMP_NUM_THREADS``, else the CPUs."""
    return omp_get_max_threads()


def pause():
    """Give the calling thread's idle workers back to the system.

    A child of ``fork`` inherits the team's book-keeping but not its threads, and would
    wait for them forever in its first parallel region. After a pause there is no team to
    inherit; the next parallel region makes a new one (about 50 µs).

    Returns
    -------
    bool
        Whether the team has been dissolved.
    """
    cropkit_team_is_gone()
    return CROPKIT_PAUSE() == 0
