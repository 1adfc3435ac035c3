"""Cases that several tests share; those that the conformance suite has, too, come from it."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cropkit.testing._arrays import (
    DEPTHS,
    GEOMETRIES,
    GEOMETRY_IDS,
    LAYOUTS,
    METHODS,
    OUT_LAYOUTS,
    SPECIAL,
    Geometry,
    dtype_of,
    empty_out,
    indices_of,
    memory_of,
    pixels,
)

__all__ = [
    "DEPTHS",
    "DTYPES",
    "GEOMETRIES",
    "GEOMETRY_IDS",
    "LAYOUTS",
    "METHODS",
    "OTHER_DTYPES",
    "OUT_LAYOUTS",
    "SPECIAL",
    "TENSORFLOW_DTYPES",
    "Geometry",
    "dtype_of",
    "empty_out",
    "indices_of",
    "memory_of",
    "pixels",
    "random_gradients",
]

TENSORFLOW_DTYPES: Final = (
    "uint8", "uint16", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
)  # fmt: skip
OTHER_DTYPES: Final = ("bool", "uint32", "uint64", "bfloat16")
DTYPES: Final = TENSORFLOW_DTYPES + OTHER_DTYPES


def random_gradients(
    seed: int, num_boxes: int, crop_size: tuple[int, int], image_shape: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Make random crops' gradients, images, boxes and their indices."""
    rng = np.random.default_rng(seed)
    grads = rng.standard_normal((num_boxes, *crop_size, image_shape[3]), np.float32)
    image = rng.standard_normal(image_shape, np.float32)
    boxes = rng.uniform(-0.2, 1.2, (num_boxes, 4)).astype(np.float32)
    return grads, image, boxes, rng.integers(0, image_shape[0], num_boxes)
