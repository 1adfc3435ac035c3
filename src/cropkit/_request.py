"""Checks of a whole call, made once: backends get canonical arrays and check nothing again.

Every error is raised before any work is done.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import DTypeLike

from cropkit._arguments import (
    CPU,
    CPU_DEVICE,
    FLOAT32,
    FLOAT64,
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
    check_num_threads,
    device_and_array,
)
from cropkit._arrays import host_views
from cropkit._kernels._checks import Call, plain_forward, plain_grad_boxes
from cropkit._results import allocate, check_out
from cropkit._sampling import Sampling, check_sampling

Operation = Literal["crop_and_resize", "grad_image", "grad_boxes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One checked call, without its arrays.

    The method ``refuses`` of a backend gets the request alone; the methods that compute get
    the request and the arrays. Fields are given by name only, and a later release may add
    some. A new field that changes results comes with a name in `features`, so it never
    reaches a backend that does not know the field.

    Attributes
    ----------
    operation : {"crop_and_resize", "grad_image", "grad_boxes"}
        The backend's method that will be called.
    sampling : Sampling
        How the pixels of a crop are made from those of the image.
    image_shape : tuple of int
        ``(batch, height, width, depth)``.
    image_dtype : numpy.dtype
        Dtype of the array of that shape: the image, in any byte order, or the result of
        ``grad_image``, in the machine's byte order. One of `IMAGE_DTYPES`.
    num_boxes : int
    crop_size : tuple of int
        ``(crop_height, crop_width)``, both at least 1.
    grads_dtype : numpy.dtype or None
        Dtype of the crops' gradients, one of `IMAGE_DTYPES`; None for ``crop_and_resize``.
    compute_dtype : numpy.dtype
        float32 or float64: the dtype of the boxes and of all arithmetic, but for the sums of
        ``grad_boxes``, which are float64.
    result_dtype : numpy.dtype
        Dtype of the result.
    extrapolation_value : float
    device_type : int
        DLPack device type of the image, or of the gradients for ``grad_image``; 1 is the
        CPU.
    num_threads : int or None
        The number of threads that the caller asked for, if any.
    features : frozenset of str
        Names that a backend must have in its own ``features`` to be given this call.
    """

    operation: Operation
    sampling: Sampling
    image_shape: tuple[int, int, int, int]
    image_dtype: np.dtype[Any]
    num_boxes: int
    crop_size: tuple[int, int]
    grads_dtype: np.dtype[Any] | None = None
    compute_dtype: np.dtype[Any]
    result_dtype: np.dtype[Any]
    extrapolation_value: float = 0.0
    device_type: int = CPU_DEVICE
    num_threads: int | None = None
    features: frozenset[str] = frozenset()

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


def request_of(call: Call) -> Request:
    """Return the request that describes `call`; it is made when first asked for."""
    if call.request is None:
        image = call.out if call.operation == "grad_image" else call.image
        crops = call.out if call.operation == "crop_and_resize" else call.grads
        call.request = _describe(call, image, crops.shape[1:3], call.grads, CPU_DEVICE)
    return call.request


def _describe(
    call: Call, image: Any, crop_size: tuple[int, int], grads: Any, device_type: int
) -> Request:
    """Describe `call`; `image` and `grads` need no more than a shape and a dtype."""
    image_dtype = image.dtype
    return Request(
        operation=call.operation,
        sampling=call.sampling,
        image_shape=image.shape,
        image_dtype=image_dtype,
        num_boxes=len(call.box_indices),
        crop_size=crop_size,
        grads_dtype=None if grads is None else grads.dtype,
        compute_dtype=call.compute_dtype,
        result_dtype=image_dtype if call.operation == "grad_image" else call.compute_dtype,
        extrapolation_value=call.extrapolation_value,
        device_type=device_type,
        num_threads=call.num_threads,
    )


def check_forward(
    image: object,
    boxes: object,
    box_indices: object,
    crop_size: object,
    method: object,
    extrapolation_value: object,
    dtype: DTypeLike | None,
    out: object,
    num_threads: object,
) -> Call:
    """Check and make canonical the arguments of `cropkit.crop_and_resize`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        In the cases that the docstring of that function lists.
    """
    real = FLOAT32 if dtype is None else check_dtype(dtype)
    sampling = check_sampling(method)
    value = check_extrapolation_value(extrapolation_value)
    threads = None if num_threads is None else check_num_threads(num_threads)
    call = plain_forward(
        image, boxes, box_indices, crop_size, out, sampling, real, real is FLOAT64, value, threads
    )
    if call is not None and call.out is not None:
        return call
    checked: Any = image
    size: Any = crop_size
    device = CPU
    # float64 results are allocated by the library itself, which may not have that dtype.
    if (
        call is None and out is None and real is FLOAT32
        and (views := host_views(image, boxes, box_indices))
    ):  # fmt: skip
        checked, seen_boxes, seen_indices = views
        call = plain_forward(
            checked, seen_boxes, seen_indices, crop_size, None, sampling, real, False, value,
            threads, True,
        )  # fmt: skip
        if call is not None and call.out is not None:
            return call
    if call is None:
        call = Call("crop_and_resize", sampling, real, value, threads)
        size = check_crop_size(crop_size)
        checked = check_image(image)
        call.boxes = check_boxes(boxes, real)
        call.box_indices = check_box_indices(box_indices, len(call.boxes), checked.shape[0])
        device, call.image = device_and_array(checked)
        if device is not CPU:
            call.request = _describe(call, checked, size, None, device[0])
    shape = (len(call.box_indices), *size, checked.shape[3])
    if out is None:
        call.out = allocate(shape, real, device, image)
    else:
        call.out = check_out(
            out, shape, real, device,
            image=checked, boxes=call.boxes, box_indices=call.box_indices,
        )  # fmt: skip
    return call


def check_grad_image(
    grads: object,
    boxes: object,
    box_indices: object,
    image_size: object,
    method: object,
    dtype: DTypeLike | None,
    out: object,
    num_threads: object,
) -> Call:
    """Check and make canonical the arguments of `cropkit.crop_and_resize_grad_image`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        In the cases that the docstring of that function lists.
    """
    sampling = check_sampling(method)
    result_dtype = FLOAT32 if dtype is None else check_image_dtype(dtype)
    real = FLOAT64 if result_dtype == FLOAT64 else FLOAT32
    call = Call("grad_image", sampling, real, 0.0, check_num_threads(num_threads))
    image_shape = check_image_size(image_size)
    checked = check_grads(grads)
    call.boxes = check_boxes(boxes, real)
    check_grads_fit(checked, len(call.boxes), image_shape[3], "image_size")
    call.box_indices = check_box_indices(box_indices, len(call.boxes), image_shape[0])
    device, call.grads = device_and_array(checked)
    if device is not CPU:
        image = _Outline(image_shape, result_dtype)
        size = cast(tuple[int, int], checked.shape[1:3])
        call.request = _describe(call, image, size, checked, device[0])
    if out is None:
        call.out = allocate(image_shape, result_dtype, device, grads)
    else:
        call.out = check_out(
            out, image_shape, result_dtype, device,
            grads=checked, boxes=call.boxes, box_indices=call.box_indices,
        )  # fmt: skip
    return call


@dataclass(frozen=True, slots=True)
class _Outline:
    """The shape and the dtype of an array that does not exist yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def check_grad_boxes(
    grads: object,
    image: object,
    boxes: object,
    box_indices: object,
    method: object,
    dtype: DTypeLike | None,
    out: object,
    num_threads: object,
) -> Call:
    """Check and make canonical the arguments of `cropkit.crop_and_resize_grad_boxes`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        In the cases that the docstring of that function lists.
    """
    real = FLOAT32 if dtype is None else check_dtype(dtype)
    sampling, threads = check_sampling(method), check_num_threads(num_threads)
    if out is None:
        plain = plain_grad_boxes(
            grads, image, boxes, box_indices, sampling, real, real is FLOAT64, threads
        )
        if (
            plain is None and real is FLOAT32
            and (views := host_views(grads, image, boxes, box_indices))
        ):  # fmt: skip
            seen, seen_image, seen_boxes, seen_indices = views
            plain = plain_grad_boxes(
                seen, seen_image, seen_boxes, seen_indices, sampling, real, False, threads, True
            )
        if plain is not None:
            return plain
    call = Call("grad_boxes", sampling, real, 0.0, threads)
    crops = check_grads(grads)
    checked = check_image(image)
    call.boxes = check_boxes(boxes, real)
    check_grads_fit(crops, len(call.boxes), checked.shape[3], "image")
    call.box_indices = check_box_indices(box_indices, len(call.boxes), checked.shape[0])
    device, call.image = device_and_array(checked)
    check_device(crops, "grads", device)
    call.grads = device_and_array(crops)[1]
    if device is not CPU:
        size = cast(tuple[int, int], crops.shape[1:3])
        call.request = _describe(call, checked, size, crops, device[0])
    shape = (len(call.boxes), 4)
    if out is None:
        call.out = allocate(shape, real, device, image)
    else:
        call.out = check_out(
            out, shape, real, device,
            grads=crops, image=checked, boxes=call.boxes, box_indices=call.box_indices,
        )  # fmt: skip
    return call
