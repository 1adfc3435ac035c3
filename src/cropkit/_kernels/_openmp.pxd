"""For the kernels: how many threads the next region of the calling thread may have."""

cdef int team_for(int wanted) noexcept nogil
