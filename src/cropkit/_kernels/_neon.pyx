"""The kernels, compiled for AArch64."""
include "_forward.pxi"
include "_backward.pxi"
