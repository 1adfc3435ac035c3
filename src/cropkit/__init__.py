"""Crop many boxes out of images and resize them: exact and fast, for NumPy arrays.

>>> import numpy as np
>>> import cropkit
>>> image = np.zeros((1, 720, 1280, 3), np.uint8)
>>> cropkit.crop_and_resize(image, [[0.1, 0.2, 0.5, 0.6]], [0], (224, 224)).shape
(1, 224, 224, 3)
"""

from cropkit._arguments import IMAGE_DTYPES
from cropkit._backends import (
    BackendError,
    BackendInfo,
    find_backend,
    list_backends,
    use_backend,
)
from cropkit._ops import (
    crop_and_resize,
    crop_and_resize_grad_boxes,
    crop_and_resize_grad_image,
)
from cropkit._protocol import Backend, GradientBackend
from cropkit._request import Request
from cropkit._runtime import show_runtime
from cropkit._sampling import Sampling

__version__ = "0.1.0"  # the one place: pyproject.toml reads it

__all__ = [
    "IMAGE_DTYPES",
    "Backend",
    "BackendError",
    "BackendInfo",
    "GradientBackend",
    "Request",
    "Sampling",
    "__version__",
    "crop_and_resize",
    "crop_and_resize_grad_boxes",
    "crop_and_resize_grad_image",
    "find_backend",
    "list_backends",
    "show_runtime",
    "use_backend",
]
