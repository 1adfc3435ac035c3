from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from cropkit._request import Operation, Request
from cropkit._sampling import Sampling

MAX_AXIS: Final[int]

def first_bad_box_float32(boxes: NDArray[np.float32]) -> int: ...
def first_bad_box_float64(boxes: NDArray[np.float64]) -> int: ...
def first_bad_index(indices: NDArray[np.intp], batch: int) -> int: ...

@final
class Call:
    operation: Final[Operation]
    sampling: Final[Sampling]
    compute_dtype: Final[np.dtype[Any]]
    extrapolation_value: Final[float]
    num_threads: Final[int | None]
    image: Any
    grads: Any
    boxes: NDArray[Any]
    box_indices: NDArray[np.intp]
    out: Any
    request: Request | None
    def __init__(
        self,
        operation: Operation,
        sampling: Sampling,
        compute_dtype: np.dtype[Any],
        extrapolation_value: float = 0.0,
        num_threads: int | None = None,
    ) -> None: ...
    def is_empty(self) -> bool: ...

def plain_forward(
    image: object,
    boxes: object,
    box_indices: object,
    crop_size: object,
    out: object,
    sampling: Sampling,
    compute_dtype: np.dtype[Any],
    in_float64: bool,
    extrapolation_value: float,
    num_threads: int | None,
    shared: bool = False,
) -> Call | None: ...
def plain_grad_boxes(
    grads: object,
    image: object,
    boxes: object,
    box_indices: object,
    sampling: Sampling,
    compute_dtype: np.dtype[Any],
    in_float64: bool,
    num_threads: int | None,
    shared: bool = False,
) -> Call | None: ...
def in_environment(name: bytes) -> bool: ...
