"""The kernels, compiled for x86-64 with AVX-512 F, BW, DQ and VL."""
include "_forward.pxi"
include "_grad_image.pxi"
include "_grad_boxes.pxi"
