# The functions that every instruction set's module has; the other stubs import them from here.

from typing import Any, Literal, Protocol, type_check_only

import numpy as np
from numpy.typing import NDArray

PIXEL_TYPES: tuple[str, ...]
EXACT_IN_FLOAT32: frozenset[int]
METHODS: dict[str, int]

@type_check_only
class _Forward(Protocol):
    def __call__(
        self,
        image: NDArray[Any],
        code: int,
        swapped: bool,
        boxes: NDArray[Any],
        box_indices: NDArray[np.intp],
        out: NDArray[Any],
        method: int,
        extrapolation: float,
        num_threads: int,
        stream: bool,
        in_order: bool,
    ) -> None: ...

# A fused function: the subscript names the real type of boxes, arithmetic and out.
@type_check_only
class _FusedForward(_Forward, Protocol):
    def __getitem__(self, real: Literal["float", "double"]) -> _Forward: ...

crop_and_resize: _FusedForward

@type_check_only
class _GradImage(Protocol):
    def __call__(
        self,
        grads: NDArray[Any],
        code: int,
        swapped: bool,
        boxes: NDArray[Any],
        box_indices: NDArray[np.intp],
        out: NDArray[Any],
        out_code: int,
        method: int,
        num_threads: int,
        stream: bool,
    ) -> None: ...

@type_check_only
class _FusedGradImage(_GradImage, Protocol):
    def __getitem__(self, real: Literal["float", "double"]) -> _GradImage: ...

crop_and_resize_grad_image: _FusedGradImage

@type_check_only
class _GradBoxes(Protocol):
    def __call__(
        self,
        grads: NDArray[Any],
        grads_code: int,
        grads_swapped: bool,
        image: NDArray[Any],
        code: int,
        swapped: bool,
        boxes: NDArray[Any],
        box_indices: NDArray[np.intp],
        out: NDArray[Any],
        single: bool,
        num_threads: int,
        in_order: bool,
    ) -> None: ...

@type_check_only
class _FusedGradBoxes(_GradBoxes, Protocol):
    def __getitem__(self, real: Literal["float", "double"]) -> _GradBoxes: ...

crop_and_resize_grad_boxes: _FusedGradBoxes
