"""The kernels, compiled for any CPU of this architecture."""
include "_forward.pxi"
include "_grad_image.pxi"
include "_grad_boxes.pxi"
