from cropkit._kernels._baseline import EXACT_IN_FLOAT32 as EXACT_IN_FLOAT32
from cropkit._kernels._baseline import METHODS as METHODS
from cropkit._kernels._baseline import PIXEL_TYPES as PIXEL_TYPES
from cropkit._kernels._baseline import crop_and_resize as crop_and_resize
from cropkit._kernels._baseline import crop_and_resize_grad_boxes as crop_and_resize_grad_boxes
from cropkit._kernels._baseline import crop_and_resize_grad_image as crop_and_resize_grad_image
