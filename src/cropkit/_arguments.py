"""Checks of one argument each, which return it in a canonical form.

Every error says what is wrong, where, and what was expected.
"""

import operator
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, SupportsIndex, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cropkit import _arrays
from cropkit._arrays import DeviceArray
from cropkit._kernels import _checks

CPU_DEVICE: Final = 1  # DLPack's kDLCPU
CPU: Final = (CPU_DEVICE, 0)

IMAGE_DTYPES: Final = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
FLOAT32: Final = np.dtype(np.float32)
FLOAT64: Final = np.dtype(np.float64)
_INTP: Final = np.dtype(np.intp)
_FIRST_BAD_BOX: Final[dict[np.dtype[Any], Callable[[NDArray[Any]], int]]] = {
    FLOAT32: _checks.first_bad_box_float32,
    FLOAT64: _checks.first_bad_box_float64,
}


def _as_array(value: object, name: str) -> NDArray[Any] | DeviceArray:
    return value if type(value) is np.ndarray else _arrays.as_array(value, name)


def _as_host_array(value: object, name: str) -> NDArray[Any]:
    return value if type(value) is np.ndarray else _arrays.as_host_array(value, name)


def device_and_array(checked: NDArray[Any] | DeviceArray) -> tuple[tuple[int, int], Any]:
    """Return the DLPack device of an array, and the array as a backend gets it."""
    if isinstance(checked, np.ndarray):
        return CPU, checked
    return checked.device, checked.array


def check_device(checked: NDArray[Any] | DeviceArray, name: str, expected: tuple[int, int]) -> None:
    """Check that an array is where the other arrays are."""
    device, _ = device_and_array(checked)
    if device != expected:
        # Arrays are never moved silently: a hidden copy would cost more than the call.
        raise ValueError(
            f"{name} is on {_arrays.device_name(*device)}: expected "
            f"{_arrays.device_name(*expected)}, where the other arrays are"
        )


def check_image(value: object) -> NDArray[Any] | DeviceArray:
    """Return `value` as a batch of images: a NumPy array or an array on a device."""
    image = _as_array(value, "image")
    if not _is_image_dtype(image.dtype):
        raise TypeError(
            f"image has dtype {image.dtype}: expected one of {', '.join(IMAGE_DTYPES)}"
            f"{_conversion(value, 'image', image.dtype, FLOAT32)}"
        )
    if image.ndim != 4:
        hint = "; for one image, image[None] adds the batch axis" if image.ndim == 3 else ""
        raise ValueError(
            f"image has shape {image.shape}: expected 4 axes, [batch, height, width, depth]{hint}"
        )
    _, height, width, _ = image.shape
    if not (1 <= height <= _checks.MAX_AXIS and 1 <= width <= _checks.MAX_AXIS):
        raise ValueError(f"image has shape {image.shape}: height and width must be at least 1")
    return image


def check_grads(value: object) -> NDArray[Any] | DeviceArray:
    """Return `value` as gradients of crops: a NumPy array or an array on a device."""
    grads = _as_array(value, "grads")
    if not _is_image_dtype(grads.dtype):
        raise TypeError(
            f"grads has dtype {grads.dtype}: expected one of {', '.join(IMAGE_DTYPES)}"
            f"{_conversion(value, 'grads', grads.dtype, FLOAT32)}"
        )
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


def check_grads_fit(
    grads: NDArray[Any] | DeviceArray, num_boxes: int, depth: int, source: str
) -> None:
    """Check that `grads` has one crop for each box, with the depth that `source` gives."""
    if grads.shape[0] != num_boxes:
        raise ValueError(
            f"grads has shape {grads.shape} and num_boxes is {num_boxes}: expected one crop for "
            "each box"
        )
    if grads.shape[3] != depth:
        raise ValueError(f"grads has shape {grads.shape}: expected depth {depth}, as in {source}")


def _conversion(value: object, name: str, given: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """Name the method that gives the numbers of an object, such as a nullable pandas column."""
    if given.kind != "O" or not callable(getattr(value, "to_numpy", None)):
        return ""
    return f'; {name}.to_numpy("{wanted.str[1:]}") converts'


@cache
def _is_image_dtype(dtype: np.dtype[Any]) -> bool:
    # bfloat16 is recognized by its name, so that ml_dtypes need not be imported here.
    return dtype.name in IMAGE_DTYPES and (dtype.kind in "buif" or dtype.name == "bfloat16")


def check_boxes(value: object, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `value` as packed boxes of `dtype`, all finite."""
    given = _as_host_array(value, "boxes")
    if given.dtype.kind not in "fiu" and given.dtype.name != "bfloat16":
        raise TypeError(
            f"boxes has dtype {given.dtype}: expected real numbers"
            f"{_conversion(value, 'boxes', given.dtype, dtype)}"
        )
    if given.ndim != 2 or given.shape[1] != 4:
        hint = "; if there are no boxes, (0, 4)" if given.shape == (0,) else ""
        raise ValueError(
            f"boxes has shape {given.shape}: expected [num_boxes, 4], each [y1, x1, y2, x2]{hint}"
        )
    if given.dtype == dtype and given.flags.c_contiguous and given.flags.aligned:
        boxes = given
    else:
        with np.errstate(all="ignore"):  # the caller's errstate may raise, for subnormal edges
            boxes = np.array(given, dtype, order="C")
    bad = _FIRST_BAD_BOX[dtype](boxes)
    if bad >= 0:
        with np.errstate(all="ignore"):  # a long double may overflow here
            narrowed = "" if not np.isfinite(given[bad].astype(float)).all() else f" in {dtype}"
        raise ValueError(
            f"boxes[{bad}] = {given[bad].tolist()}: box coordinates must be finite{narrowed}"
        )
    return boxes


def check_box_indices(value: object, num_boxes: int, batch: int) -> NDArray[np.intp]:
    """Return `value` as an array of one image index below `batch` for each box."""
    if value is None:
        if batch == 1:
            return np.zeros(num_boxes, np.intp)
        if batch == num_boxes:
            return np.arange(num_boxes)
        raise ValueError(
            f"box_indices is None, num_boxes is {num_boxes} and batch is {batch}: expected an "
            "index for each box unless there is one image, or one box per image"
        )
    given = _as_host_array(value, "box_indices")
    if given.dtype.kind not in "iu" and not (given.size == 0 and isinstance(value, (list, tuple))):
        raise TypeError(
            f"box_indices has dtype {given.dtype}: expected integers"
            f"{_conversion(value, 'box_indices', given.dtype, _INTP)}"
        )
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


def check_image_size(value: object) -> tuple[int, int, int, int]:
    """Return `value` as (batch, height, width, depth)."""
    expected = "expected four integers, (batch, height, width, depth)"
    batch, height, width, depth = size = _check_integers(value, "image_size", 4, expected)
    if height < 1 or width < 1:
        raise ValueError(f"image_size={size}: height and width must be at least 1")
    if batch < 0 or depth < 0:
        raise ValueError(f"image_size={size}: batch and depth must not be negative")
    return batch, height, width, depth


def _check_integers(value: object, name: str, count: int, expected: str) -> tuple[int, ...]:
    _arrays.refuse_masked(value, name)
    if type(value) is not tuple and (
        isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray))
    ):
        try:
            value = np.asarray(value)
        except Exception:
            value = None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            raise TypeError(f"{name}: {expected}")
    if isinstance(value, np.ndarray) and value.ndim > 1:  # such as an image instead of its shape
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
    if dtype == FLOAT32:
        return FLOAT32
    if dtype == FLOAT64:
        return FLOAT64
    raise TypeError(f"dtype={dtype}: expected float32 or float64")


def check_image_dtype(value: DTypeLike) -> np.dtype[Any]:
    """Return `value` as a NumPy dtype, one of `IMAGE_DTYPES` in native byte order."""
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
    """Return NumPy's dtype for a dtype of NumPy or of another library."""
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
    _arrays.refuse_masked(value, "extrapolation_value")
    try:
        if not isinstance(value, (str, bytes, bytearray, np.complexfloating)):
            return float(cast(float, value))
    except (TypeError, ValueError):
        pass
    except OverflowError:
        raise ValueError("extrapolation_value is too large for a float") from None
    raise TypeError(f"extrapolation_value={value!r}: expected a real number")


def check_num_threads(value: object) -> int | None:
    """Return `value` as a positive integer, or None."""
    if value is None:
        return None
    _arrays.refuse_masked(value, "num_threads")
    try:
        count = operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"num_threads={value!r}: expected a positive integer or None") from None
    if count < 1:
        raise ValueError(f"num_threads={count}: expected at least 1")
    return count
