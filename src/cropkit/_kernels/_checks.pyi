from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_AXIS: Final[int]

def first_bad_box_float32(boxes: NDArray[np.float32]) -> int: ...
def first_bad_box_float64(boxes: NDArray[np.float64]) -> int: ...
def first_bad_index(indices: NDArray[np.intp], batch: int) -> int: ...
def plain_call(
    image: object,
    boxes: object,
    box_indices: object,
    crop_size: object,
    out: object,
    in_float64: bool,
) -> tuple[NDArray[np.intp], NDArray[Any] | None] | None: ...
def plain_grad_boxes(
    grads: object,
    image: object,
    boxes: object,
    box_indices: object,
    in_float64: bool,
) -> tuple[NDArray[np.intp], NDArray[Any]] | None: ...
def in_environment(name: bytes) -> bool: ...
