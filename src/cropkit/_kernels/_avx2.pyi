from cropkit._kernels._baseline import PIXEL_TYPES as PIXEL_TYPES
from cropkit._kernels._baseline import crop_and_resize as crop_and_resize
