"""The kernels, compiled for AArch64."""
include "_forward.pxi"
include "_grad_image.pxi"
include "_grad_boxes.pxi"
