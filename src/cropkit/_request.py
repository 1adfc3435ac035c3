"""Checks of a call, once: what comes out is canonical, and no backend checks it again.

Every error says what is wrong, where, and what was expected, before any work is done.
"""

import math
import operator
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cropkit import _arrays
from cropkit._arrays import DeviceArray
from cropkit._kernels import _checks

Method = Literal["bilinear", "nearest"]
Operation = Literal["crop_and_resize", "grad_image", "grad_boxes"]
CPU_DEVICE: Final = 1  # DLPack's kDLCPU
_CPU: Final = (CPU_DEVICE, 0)

IMAGE_DTYPES: Final = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
_METHODS: Final = ("bilinear", "nearest")
_FLOAT32: Final = np.dtype(np.float32)
_FLOAT64: Final = np.dtype(np.float64)
_INTP: Final = np.dtype(np.intp)
_FIRST_BAD_BOX: Final[dict[np.dtype[Any], Callable[[NDArray[Any]], int]]] = {
    _FLOAT32: _checks.first_bad_box_float32,
    _FLOAT64: _checks.first_bad_box_float64,
}
# Of NumPy's exact search; its stubs know only 0 and -1 here, hence Any.
_OVERLAP_WORK: Final[Any] = 10_000


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
    extrapolation_value: float,
    dtype: DTypeLike | None,
    out: object,
    num_threads: int | None,
) -> tuple[Any, Any, NDArray[np.intp], NDArray[Any], bool, float, int | None] | None:
    """Check a call as `check_forward` does, if it is plainly right: most calls are.

    Returns
    -------
    (image, boxes, box_indices, out, nearest, extrapolation_value, num_threads) or None
        Packed arrays but for `image`; nothing is empty. None if only `check_forward` can
        tell whether the call is right.
    """
    method, real, extrapolation_value, num_threads = _check_options(
        method, dtype, extrapolation_value, num_threads
    )
    plain = _checks.plain_call(image, boxes, box_indices, crop_size, out, real is _FLOAT64)
    if plain is None or plain[1] is None:
        return None
    nearest = method == "nearest"
    return image, boxes, plain[0], plain[1], nearest, extrapolation_value, num_threads


def check_forward(
    image: object,
    boxes: object,
    box_indices: object,
    crop_size: object,
    method: str,
    extrapolation_value: float,
    dtype: DTypeLike | None,
    out: object,
    num_threads: int | None,
) -> Call:
    """Check and make canonical the arguments of `cropkit.crop_and_resize`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        As the public docstring says.
    """
    method, real, extrapolation_value, num_threads = _check_options(
        method, dtype, extrapolation_value, num_threads
    )
    result = None
    plain = _checks.plain_call(image, boxes, box_indices, crop_size, out, real is _FLOAT64)
    if plain is None:
        crop_size = check_crop_size(crop_size)
        checked: Any = _check_image(image)
        boxes = _check_boxes(boxes, real)
        indices = check_box_indices(box_indices, len(boxes), checked.shape[0])
        device, own = _place(checked)
    else:
        indices, result = plain
        device, own = _CPU, image
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
        method,
        real,
        extrapolation_value,
        device[0],
        num_threads,
    )
    if result is None and out is None:
        result = _allocate(request.crops_shape, real, device, image)
    elif result is None:
        result = _check_out(out, request, device, image=checked, boxes=edges,
                            box_indices=indices)  # fmt: skip
    return Call(request, own, edges, indices, result)


def check_grad_image(
    grads: object,
    boxes: object,
    box_indices: object,
    image_size: object,
    method: str,
    dtype: DTypeLike | None,
    out: object,
    num_threads: int | None,
) -> GradImageCall:
    """Check and make canonical the arguments of `cropkit.crop_and_resize_grad_image`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        As the public docstring says.
    """
    checked_method = check_method(method)
    result_dtype = _FLOAT32 if dtype is None else _check_image_dtype(dtype)
    real = _FLOAT64 if result_dtype == _FLOAT64 else _FLOAT32
    if num_threads is not None:
        num_threads = check_num_threads(num_threads)
    image_shape = _check_image_size(image_size)
    checked = _check_grads(grads)
    boxes = _check_boxes(boxes, real)
    _check_grads_fit(checked, len(boxes), image_shape[3], "image_size")
    box_indices = check_box_indices(box_indices, len(boxes), image_shape[0])
    device, own = _place(checked)
    request = Request(
        image_shape, result_dtype, len(boxes), cast(tuple[int, int], checked.shape[1:3]),
        checked_method, real, 0.0, device[0], num_threads, "grad_image", checked.dtype,
    )  # fmt: skip
    if out is None:
        out = _allocate(image_shape, result_dtype, device, grads)
    else:
        out = _check_out(out, request, device, grads=checked, boxes=boxes,
                         box_indices=box_indices)  # fmt: skip
    return GradImageCall(request, own, boxes, box_indices, out)


def check_plain_grad_boxes(
    grads: object,
    image: object,
    boxes: object,
    box_indices: object,
    method: str,
    dtype: DTypeLike | None,
    num_threads: int | None,
) -> tuple[Any, Any, Any, NDArray[np.intp], NDArray[Any], int | None] | None:
    """Check a call without `out` as `check_grad_boxes` does, if it is plainly right.

    Returns
    -------
    (grads, image, boxes, box_indices, out, num_threads) or None
        As from `check_plain`.
    """
    _, real, _, num_threads = _check_options(method, dtype, 0.0, num_threads)
    plain = _checks.plain_grad_boxes(grads, image, boxes, box_indices, real is _FLOAT64)
    return plain and (grads, image, boxes, *plain, num_threads)


def check_grad_boxes(
    grads: object,
    image: object,
    boxes: object,
    box_indices: object,
    method: str,
    dtype: DTypeLike | None,
    out: object,
    num_threads: int | None,
) -> GradBoxesCall:
    """Check and make canonical the arguments of `cropkit.crop_and_resize_grad_boxes`.

    Raises
    ------
    TypeError, ValueError, IndexError, MemoryError
        As the public docstring says.
    """
    checked_method, real, _, num_threads = _check_options(method, dtype, 0.0, num_threads)
    crops = _check_grads(grads)
    checked = _check_image(image)
    boxes = _check_boxes(boxes, real)
    _check_grads_fit(crops, len(boxes), checked.shape[3], "image")
    box_indices = check_box_indices(box_indices, len(boxes), checked.shape[0])
    device, own = _place(checked)
    _check_device(crops, "grads", device)
    request = Request(
        cast(tuple[int, int, int, int], checked.shape), checked.dtype, len(boxes),
        cast(tuple[int, int], crops.shape[1:3]), checked_method, real, 0.0, device[0],
        num_threads, "grad_boxes", crops.dtype,
    )  # fmt: skip
    if out is None:
        out = _allocate((len(boxes), 4), real, device, image)
    else:
        out = _check_out(out, request, device, grads=crops, image=checked, boxes=boxes,
                         box_indices=box_indices)  # fmt: skip
    return GradBoxesCall(request, _place(crops)[1], own, boxes, box_indices, out)


def _check_options(
    method: str, dtype: DTypeLike | None, extrapolation_value: float, num_threads: int | None
) -> tuple[Method, np.dtype[Any], float, int | None]:
    """Check what a call has besides arrays and their sizes."""
    checked_method = check_method(method)
    real = _FLOAT32 if dtype is None else check_dtype(dtype)
    if num_threads is not None:
        num_threads = check_num_threads(num_threads)
    return checked_method, real, check_extrapolation_value(extrapolation_value), num_threads


# ---- one argument each ----------------------------------------------------------------


def _as_array(value: object, name: str) -> NDArray[Any] | DeviceArray:
    return value if type(value) is np.ndarray else _arrays.as_array(value, name)


def _as_host_array(value: object, name: str) -> NDArray[Any]:
    return value if type(value) is np.ndarray else _arrays.as_host_array(value, name)


def _place(checked: NDArray[Any] | DeviceArray) -> tuple[tuple[int, int], Any]:
    """Return the DLPack device of an array, and the array as a backend gets it."""
    if isinstance(checked, np.ndarray):
        return _CPU, checked
    return checked.device, checked.array


def _check_device(
    checked: NDArray[Any] | DeviceArray, name: str, expected: tuple[int, int]
) -> None:
    device, _ = _place(checked)
    if device != expected:
        # Never moved silently: that would hide what costs most.
        raise ValueError(
            f"{name} is on {_arrays.device_name(*device)}: expected "
            f"{_arrays.device_name(*expected)}, where the other arrays are"
        )


def check_method(value: object) -> Method:
    """Return `value` as one of the methods."""
    if not isinstance(value, str) or value not in _METHODS:
        raise ValueError(f"method={value!r}: expected 'bilinear' or 'nearest'")
    return cast(Method, value)


def _check_image(value: object) -> NDArray[Any] | DeviceArray:
    image = _as_array(value, "image")
    if not _is_image_dtype(image.dtype):
        raise TypeError(f"image has dtype {image.dtype}: expected one of {', '.join(IMAGE_DTYPES)}")
    if image.ndim != 4:
        hint = "; for one image, image[None] adds the batch axis" if image.ndim == 3 else ""
        raise ValueError(
            f"image has shape {image.shape}: expected 4 axes, [batch, height, width, depth]{hint}"
        )
    _, height, width, _ = image.shape
    if not (1 <= height <= _checks.MAX_AXIS and 1 <= width <= _checks.MAX_AXIS):
        raise ValueError(f"image has shape {image.shape}: height and width must be at least 1")
    return image


def _check_grads(value: object) -> NDArray[Any] | DeviceArray:
    grads = _as_array(value, "grads")
    if not _is_image_dtype(grads.dtype):
        raise TypeError(f"grads has dtype {grads.dtype}: expected one of {', '.join(IMAGE_DTYPES)}")
    if grads.ndim != 4:
        raise ValueError(
            f"grads has shape {grads.shape}: expected 4 axes, "
            "[num_boxes, crop_height, crop_width, depth]"
        )
    if min(grads.shape[1:3]) < 1:
        raise ValueError(
            f"grads has shape {grads.shape}: crop_height and crop_width must be at least 1"
        )
    return grads


def _check_grads_fit(
    grads: NDArray[Any] | DeviceArray, num_boxes: int, depth: int, source: str
) -> None:
    if grads.shape[0] != num_boxes:
        raise ValueError(
            f"grads has shape {grads.shape} with {num_boxes} boxes: expected one crop for each box"
        )
    if grads.shape[3] != depth:
        raise ValueError(f"grads has shape {grads.shape}: expected depth {depth}, as in {source}")


@cache
def _is_image_dtype(dtype: np.dtype[Any]) -> bool:
    # ml_dtypes' bfloat16 is recognized by its name, so that nobody has to import it here.
    return dtype.name in IMAGE_DTYPES and (dtype.kind in "buif" or dtype.name == "bfloat16")


def _check_boxes(value: object, dtype: np.dtype[Any]) -> NDArray[Any]:
    given = _as_host_array(value, "boxes")
    if given.dtype.kind not in "fiu" and given.dtype.name != "bfloat16":
        raise TypeError(f"boxes has dtype {given.dtype}: expected real numbers")
    if given.ndim != 2 or given.shape[1] != 4:
        hint = "; if there are no boxes, (0, 4)" if given.shape == (0,) else ""
        raise ValueError(
            f"boxes has shape {given.shape}: expected [num_boxes, 4], each [y1, x1, y2, x2]{hint}"
        )
    if given.dtype == dtype and given.flags.c_contiguous and given.flags.aligned:
        boxes = given
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            boxes = np.array(given, dtype, order="C")
    bad = _FIRST_BAD_BOX[dtype](boxes)
    if bad >= 0:
        narrowed = "" if not np.isfinite(given[bad].astype(float)).all() else f" in {dtype}"
        raise ValueError(
            f"boxes[{bad}] = {given[bad].tolist()}: box coordinates must be finite{narrowed}"
        )
    return boxes


def check_box_indices(value: object, num_boxes: int, batch: int) -> NDArray[np.intp]:
    """Return `value` as an index below `batch` for each box."""
    if value is None:
        if batch == 1:
            return np.zeros(num_boxes, np.intp)
        if batch == num_boxes:
            return np.arange(num_boxes)
        raise ValueError(
            f"box_indices is None with {num_boxes} boxes and {batch} images: expected an index "
            "for each box unless there is one image, or one box per image"
        )
    given = _as_host_array(value, "box_indices")
    if given.dtype.kind not in "iu" and not (given.size == 0 and isinstance(value, (list, tuple))):
        raise TypeError(f"box_indices has dtype {given.dtype}: expected integers")
    if given.shape != (num_boxes,):
        raise ValueError(
            f"box_indices has shape {given.shape}: expected ({num_boxes},), one index for each box"
        )
    if given.dtype == _INTP and given.flags.c_contiguous and given.flags.aligned:
        indices = given
    else:
        indices = np.array(given, np.intp, order="C")
    bad = _checks.first_bad_index(indices, min(batch, sys.maxsize))
    if bad >= 0:
        raise IndexError(
            f"box_indices[{bad}] = {given[bad]}: expected an index of one of the {batch} images, "
            f"0 <= index < {batch}"
        )
    return indices


def check_crop_size(value: object) -> tuple[int, int]:
    """Return `value` as two positive integers."""
    expected = "expected two positive integers, (crop_height, crop_width)"
    height, width = _check_integers(value, "crop_size", 2, expected)
    if height < 1 or width < 1:
        raise ValueError(f"crop_size=({height}, {width}): both must be at least 1")
    return height, width


def _check_image_size(value: object) -> tuple[int, int, int, int]:
    expected = "expected four integers, (batch, height, width, depth)"
    batch, height, width, depth = size = _check_integers(value, "image_size", 4, expected)
    if height < 1 or width < 1:
        raise ValueError(f"image_size={size}: height and width must be at least 1")
    if batch < 0 or depth < 0:
        raise ValueError(f"image_size={size}: batch and depth must not be negative")
    return batch, height, width, depth


def _check_integers(value: object, name: str, count: int, expected: str) -> tuple[int, ...]:
    if type(value) is not tuple and (
        isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray))
    ):
        try:
            value = np.asarray(value)
        except Exception:
            value = None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            raise TypeError(f"{name}: {expected}")
    if isinstance(value, np.ndarray) and value.ndim > 1:  # the image itself, not its shape
        raise ValueError(f"{name} has shape {value.shape}: {expected}")
    given = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(given, (tuple, Sequence)) or len(given) != count:
        raise ValueError(f"{name}={given!r}: {expected}")
    try:
        return tuple(operator.index(n) for n in given)
    except TypeError:
        raise TypeError(f"{name}={tuple(given)!r}: {expected}") from None


def check_dtype(value: DTypeLike) -> np.dtype[Any]:
    """Return `value` as NumPy's float32 or float64."""
    try:
        dtype = _to_dtype(value)
    except (TypeError, ValueError):
        raise TypeError(f"dtype={value!r}: expected float32 or float64") from None
    if dtype == _FLOAT32:
        return _FLOAT32
    if dtype == _FLOAT64:
        return _FLOAT64
    raise TypeError(f"dtype={dtype}: expected float32 or float64")


def _check_image_dtype(value: DTypeLike) -> np.dtype[Any]:
    try:
        dtype = _to_dtype(value)
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or not _is_image_dtype(dtype) or not dtype.isnative:
        raise TypeError(
            f"dtype={value!r}: expected one of {', '.join(IMAGE_DTYPES)}, in native byte order"
        )
    return dtype


def _to_dtype(value: Any) -> np.dtype[Any]:
    """Return a dtype as NumPy's, one of another library too."""
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError:
        if _arrays.library_of(value) is None:
            raise
        return _arrays.numpy_dtype(value)
    return dtype


def check_extrapolation_value(value: object) -> float:
    """Return `value`, a real number, as a float."""
    if type(value) is float:
        return value
    try:
        if not isinstance(value, (str, bytes, bytearray, np.complexfloating)):
            return float(cast(float, value))
    except (TypeError, ValueError):
        pass
    except OverflowError:
        raise ValueError("extrapolation_value is too large for a float") from None
    raise TypeError(f"extrapolation_value={value!r}: expected a real number")


def check_num_threads(value: int) -> int:
    """Return `value` as a positive integer."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"num_threads={value!r}: expected a positive integer or None") from None
    if count < 1:
        raise ValueError(f"num_threads={count}: expected at least 1")
    return count


# ---- the result -----------------------------------------------------------------------


def _allocate(
    shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], like: object
) -> NDArray[Any] | None:
    """Allocate the result, for the library of `like`; off the CPU, leave it to the backend."""
    if device is not _CPU:
        return None
    check_memory(shape, dtype)
    return _arrays.empty(shape, dtype, like)


def check_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that a result can be had."""
    size = math.prod(shape) * dtype.itemsize
    if size == 0:
        # NumPy makes no array whose axes overflow together, not even an empty one.
        size = math.prod(n for n in shape if n) * dtype.itemsize
    if size > 1 << 28 and size > (_memory_bytes() if 0 not in shape else sys.maxsize):
        raise MemoryError(
            f"the result, {shape} {dtype}, takes {size >> 20} MiB and is larger than this "
            f"machine's memory, {_memory_bytes() >> 20} MiB"
        )


@cache
def _memory_bytes() -> int:
    """Bytes of memory that this process could have at most."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def _check_out(
    out: object, request: Request, device: tuple[int, int], **inputs: NDArray[Any] | DeviceArray
) -> Any:
    """Check that `out` can be written, and that writing it changes no input."""
    if not isinstance(out, np.ndarray):
        if _arrays.library_of(out) is None:
            raise TypeError(f"out is a {type(out).__name__}: expected a numpy.ndarray")
        checked = _arrays.as_array(out, "out")
    else:
        checked = out
    shape, dtype = request.result_shape, request.result_dtype
    _check_device(checked, "out", device)
    if checked.shape != shape:
        raise ValueError(f"out has shape {checked.shape}: expected {shape}")
    if checked.dtype != dtype:
        raise ValueError(f"out has dtype {checked.dtype}: expected {dtype}")
    if not isinstance(checked, np.ndarray):
        library = _arrays.library_of(checked.array)
        if library is not None and library.constant:
            raise ValueError("out is read-only")
        return checked.array  # what its memory is like, its backend knows
    if not checked.flags.writeable:
        raise ValueError("out is read-only")
    strides = checked.strides
    if 0 in strides and any(s == 0 and n > 1 for s, n in zip(strides, shape, strict=True)):
        raise ValueError("out has elements that share memory with each other (a stride is 0)")
    for name, array in inputs.items():
        assert isinstance(array, np.ndarray)  # on the CPU, like `out`
        if np.may_share_memory(checked, array) and _overlap(checked, array):
            raise ValueError(f"out overlaps {name}: expected memory of its own")
    return checked


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Decide exactly where that is cheap, else say yes."""
    try:
        return np.shares_memory(a, b, max_work=_OVERLAP_WORK)
    except np.exceptions.TooHardError:
        return True
