# The loop that runs a kernel's tasks, each once, on a team of threads; included by _forward.pxi.
#
# A kernel gives the function that runs a task, a description of the call (the job), and the size
# of the scratch that a thread needs. Tasks run in any order, and several of them at once.

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange, threadid
from cropkit._kernels._openmp cimport team_for
from libc.stdlib cimport free, malloc

cdef extern from "_scratch.h" nogil:
    const Py_ssize_t CROPKIT_GAP
    void cropkit_poison(char*, Py_ssize_t, Py_ssize_t) noexcept

cdef enum:
    LINE = 64   # bytes of a cache line, and of the widest vector
    # Values that a thread computes between two checks for signals: some milliseconds of work.
    ROUND_VALUES = 1 << 23

ctypedef void (*Task)(Py_ssize_t number, const void* job, char* scratch) noexcept nogil


cdef inline Py_ssize_t place(
    char* base, void** slot, Py_ssize_t at, Py_ssize_t size,
) noexcept nogil:
    """Point `slot` to the `size` bytes of a thread's scratch at the offset `at` from `base`.

    Returns the next free offset, which is on a cache line. With a `base` of NULL, `slot` becomes
    NULL, and the offsets only count the size of the scratch.
    """
    cdef Py_ssize_t next = at + (size + LINE - 1) // LINE * LINE + CROPKIT_GAP
    slot[0] = NULL
    if base != NULL:
        slot[0] = base + at
        cropkit_poison(base + at, size, next - at - size)
    return next


cdef inline Py_ssize_t place_table(
    char* base, AxisTable* table, Py_ssize_t at, Py_ssize_t entries, Py_ssize_t real_size,
) noexcept nogil:
    """Point the arrays of an axis' table to scratch; see `place`."""
    at = place(base, <void**>&table.lo, at, entries * sizeof(Py_ssize_t))
    at = place(base, <void**>&table.hi, at, entries * sizeof(Py_ssize_t))
    return place(base, &table.weight, at, entries * real_size)


cdef int run_tasks(
    Task run, const void* job, Py_ssize_t tasks, Py_ssize_t round_tasks, int num_threads,
    Py_ssize_t scratch_size,
) except -1:
    """Run `tasks` tasks in rounds of `round_tasks`, and check for signals between rounds.

    Raises
    ------
    MemoryError
        There is no memory for `num_threads` times `scratch_size` bytes.
    KeyboardInterrupt
        A signal arrived; some tasks have not run.
    """
    cdef Py_ssize_t task, begin = 0, end
    cdef char* scratch
    cdef char* block = <char*>malloc(num_threads * scratch_size + LINE)
    if block == NULL:
        raise MemoryError(
            f"no memory for {num_threads} threads' scratch of {scratch_size} bytes each")
    scratch = <char*>((<size_t>block + LINE - 1) // LINE * LINE)
    try:
        while begin < tasks:
            end = tasks if tasks - begin <= round_tasks else begin + round_tasks
            num_threads = team_for(num_threads)
            with nogil:
                if num_threads == 1:
                    for task in range(begin, end):
                        run(task, job, scratch)
                else:
                    for task in prange(begin, end, schedule="dynamic", num_threads=num_threads):
                        run(task, job, scratch + threadid() * scratch_size)
            begin = end
            if begin < tasks:
                PyErr_CheckSignals()
    finally:
        free(block)
    return 0
