"""Checks of a call, once: what comes out is canonical, and no backend checks it again.

Every error is raised before any work is done.
"""

from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cropkit._arguments import (
    CPU,
    FLOAT32,
    FLOAT64,
    Method,
    check_box_indices,
    check_boxes,
    check_crop_size,
    check_device,
    check_dtype,
    check_extrapolation_value,
    check_grads,
    check_grads_fit,
    check_image,
    check_image_dtype,
    check_image_size,
    check_method,
    check_num_threads,
    place,
)
from cropkit._kernels import _checks
from cropkit._results import allocate, check_out

Operation = Literal["crop_and_resize", "grad_image", "grad_boxes"]


class Request(NamedTuple):
    """One checked call, without its arrays.

    What a backend's ``refuses`` looks at, and what its operators get beside the arrays.

    Attributes
    ----------
    image_shape : tuple of int
        ``(batch, height, width, depth)``.
    image_dtype : numpy.dtype
        One of the dtypes of `IMAGE_DTYPES`, in any byte order; of ``grad_image``, the
        dtype of its result, in the machine's.
    num_boxes : int
    crop_size : tuple of int
        ``(crop_height, crop_width)``, both at least 1.
    method : {"bilinear", "nearest"}
    dtype : numpy.dtype
        float32 or float64: of the boxes, of all arithmetic and of the result, but for
        the result of ``grad_image`` and the sums of ``grad_boxes``, which are float64.
    extrapolation_value : float
    device_type : int
        DLPack device type of the image, or of the gradients for ``grad_image``; 1 is the
        CPU.
    num_threads : int or None
        What the caller asked for.
    operation : {"crop_and_resize", "grad_image", "grad_boxes"}
        The backend's method that will be called.
    grads_dtype : numpy.dtype or None
        Of the crops' gradients, one of `IMAGE_DTYPES`; None for ``crop_and_resize``.
    """

    image_shape: tuple[int, int, int, int]
    image_dtype: np.dtype[Any]
    num_boxes: int
    crop_size: tuple[int, int]
    method: Method
    dtype: np.dtype[Any]
    extrapolation_value: float
    device_type: int
    num_threads: int | None
    operation: Operation = "crop_and_resize"
    grads_dtype: np.dtype[Any] | None = None

    @property
    def crops_shape(self) -> tuple[int, int, int, int]:
        """``(num_boxes, crop_height, crop_width, depth)``."""
        return (self.num_boxes, *self.crop_size, self.image_shape[3])

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the crops, of the image's gradient or of the boxes' gradient."""
        if self.operation == "grad_image":
            return self.image_shape
        if self.operation == "grad_boxes":
            return (self.num_boxes, 4)
        return self.crops_shape

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """Dtype of what is computed."""
        return self.image_dtype if self.operation == "grad_image" else self.dtype


# In each of the following, `boxes` and `box_indices` are in the CPU's memory. Everything
# else is on the request's device, as the caller's library has it, unless that is the CPU;
# `out` is None there if the backend is to allocate it.


class Call(NamedTuple):
    """A request with its checked arrays."""

    request: Request
    image: Any
    boxes: NDArray[Any]
    box_indices: NDArray[np.intp]
    out: Any


class GradImageCall(NamedTuple):
    """A request for the image's gradient with its checked arrays."""

    request: Request
    grads: Any
    boxes: NDArray[Any]
    box_indices: NDArray[np.intp]
    out: Any


class GradBoxesCall(NamedTuple):
    """A request for the boxes' gradient with its checked arrays."""

    request: Request
    grads: Any
    image: Any
    boxes: NDArray[Any]
    box_indices: NDArray[np.intp]
    out: Any


def check_plain(
    image: object,
    boxes: object,
    box_indices: object,
    crop_size: object,
    method: str,
    extrapolation_value: object,
    dtype: DTypeLike | None,
    out: object,
    num_threads: object,
) -> tuple[Any, Any, NDArray[np.intp], NDArray[Any], bool, float, int | None] | None:
    """Check a call as `check_forward` does, if it is plainly right: most calls are.

    Returns
    -------
    (image, boxes, box_indices, out, nearest, extrapolation_value, num_threads) or None
        Packed arrays but for `image`; nothing is empty. None if only `check_forward` can
        tell whether the call is right.
    """
    method, real, value, threads = _check_options(method, dtype, extrapolation_value, num_threads)
    plain = _checks.plain_call(image, boxes, box_indices, crop_size, out, real is FLOAT64)
    if plain is None or plain[1] is None:
        return None
    nearest = method == "nearest"
    return image, boxes, plain[0], plain[1], nearest, value, threads


def check_forward(
    image: object,
    boxes: object,
    box_indices: object,
    crop_size: object,
    method: str,
    extrapolation_value: object,
    dtype: DTypeLike | None,
    out: object,
    num_threads: object,
) -> Call:
    """Check and make canonical the arguments of `cropkit.crop_and_resize`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        As the public docstring says.
    """
    checked_method, real, value, threads = _check_options(
        method, dtype, extrapolation_value, num_threads
    )
    result = None
    plain = _checks.plain_call(image, boxes, box_indices, crop_size, out, real is FLOAT64)
    if plain is None:
        crop_size = check_crop_size(crop_size)
        checked: Any = check_image(image)
        boxes = check_boxes(boxes, real)
        indices = check_box_indices(box_indices, len(boxes), checked.shape[0])
        device, own = place(checked)
    else:
        indices, result = plain
        device, own = CPU, image
        checked = image
    size: Any = crop_size
    edges: Any = boxes
    num_boxes = len(indices)
    shape: Any = checked.shape  # here and below, Any and not cast, which takes its time
    request = Request(
        shape,
        checked.dtype,
        num_boxes,
        size,
        checked_method,
        real,
        value,
        device[0],
        threads,
    )
    if result is None and out is None:
        result = allocate(request.crops_shape, real, device, image)
    elif result is None:
        result = check_out(
            out, request.result_shape, request.result_dtype, device,
            image=checked, boxes=edges, box_indices=indices,
        )  # fmt: skip
    return Call(request, own, edges, indices, result)


def check_grad_image(
    grads: object,
    boxes: object,
    box_indices: object,
    image_size: object,
    method: str,
    dtype: DTypeLike | None,
    out: object,
    num_threads: object,
) -> GradImageCall:
    """Check and make canonical the arguments of `cropkit.crop_and_resize_grad_image`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        As the public docstring says.
    """
    checked_method = check_method(method)
    result_dtype = FLOAT32 if dtype is None else check_image_dtype(dtype)
    real = FLOAT64 if result_dtype == FLOAT64 else FLOAT32
    threads = check_num_threads(num_threads)
    image_shape = check_image_size(image_size)
    checked = check_grads(grads)
    boxes = check_boxes(boxes, real)
    check_grads_fit(checked, len(boxes), image_shape[3], "image_size")
    box_indices = check_box_indices(box_indices, len(boxes), image_shape[0])
    device, own = place(checked)
    request = Request(
        image_shape, result_dtype, len(boxes), cast(tuple[int, int], checked.shape[1:3]),
        checked_method, real, 0.0, device[0], threads, "grad_image", checked.dtype,
    )  # fmt: skip
    if out is None:
        out = allocate(image_shape, result_dtype, device, grads)
    else:
        out = check_out(
            out, request.result_shape, request.result_dtype, device,
            grads=checked, boxes=boxes, box_indices=box_indices,
        )  # fmt: skip
    return GradImageCall(request, own, boxes, box_indices, out)


def check_plain_grad_boxes(
    grads: object,
    image: object,
    boxes: object,
    box_indices: object,
    method: str,
    dtype: DTypeLike | None,
    num_threads: object,
) -> tuple[Any, Any, Any, NDArray[np.intp], NDArray[Any], int | None] | None:
    """Check a call without `out` as `check_grad_boxes` does, if it is plainly right.

    Returns
    -------
    (grads, image, boxes, box_indices, out, num_threads) or None
        As from `check_plain`.
    """
    _, real, _, threads = _check_options(method, dtype, 0.0, num_threads)
    plain = _checks.plain_grad_boxes(grads, image, boxes, box_indices, real is FLOAT64)
    return plain and (grads, image, boxes, *plain, threads)


def check_grad_boxes(
    grads: object,
    image: object,
    boxes: object,
    box_indices: object,
    method: str,
    dtype: DTypeLike | None,
    out: object,
    num_threads: object,
) -> GradBoxesCall:
    """Check and make canonical the arguments of `cropkit.crop_and_resize_grad_boxes`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        As the public docstring says.
    """
    checked_method, real, _, threads = _check_options(method, dtype, 0.0, num_threads)
    crops = check_grads(grads)
    checked = check_image(image)
    boxes = check_boxes(boxes, real)
    check_grads_fit(crops, len(boxes), checked.shape[3], "image")
    box_indices = check_box_indices(box_indices, len(boxes), checked.shape[0])
    device, own = place(checked)
    check_device(crops, "grads", device)
    request = Request(
        cast(tuple[int, int, int, int], checked.shape), checked.dtype, len(boxes),
        cast(tuple[int, int], crops.shape[1:3]), checked_method, real, 0.0, device[0],
        threads, "grad_boxes", crops.dtype,
    )  # fmt: skip
    if out is None:
        out = allocate((len(boxes), 4), real, device, image)
    else:
        out = check_out(
            out, request.result_shape, request.result_dtype, device,
            grads=crops, image=checked, boxes=boxes, box_indices=box_indices,
        )  # fmt: skip
    return GradBoxesCall(request, place(crops)[1], own, boxes, box_indices, out)


def _check_options(
    method: str, dtype: DTypeLike | None, extrapolation_value: object, num_threads: object
) -> tuple[Method, np.dtype[Any], float, int | None]:
    """Check what a call has besides arrays and their sizes."""
    checked_method = check_method(method)
    real = FLOAT32 if dtype is None else check_dtype(dtype)
    value = check_extrapolation_value(extrapolation_value)
    return checked_method, real, value, check_num_threads(num_threads)
