"""The kernels, compiled for any CPU of this architecture."""
include "_forward.pxi"
