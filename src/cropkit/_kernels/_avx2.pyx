"""The kernels, compiled for x86-64 with AVX2."""
include "_forward.pxi"
include "_grad_image.pxi"
include "_grad_boxes.pxi"
