"""The kernels, compiled for any CPU of this architecture."""
include "_forward.pxi"
include "_backward.pxi"
