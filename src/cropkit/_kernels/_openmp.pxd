"""The C function by which kernels ask how many threads their next parallel region may have."""

cdef int team_for(int wanted) noexcept nogil
