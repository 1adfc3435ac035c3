"""The memory of a result: it is allocated here, or the caller's `out` is checked."""

import math
import os
import sys
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cropkit import _arrays
from cropkit._arguments import CPU, check_device
from cropkit._arrays import DeviceArray

# Bounds NumPy's exact search for an overlap. NumPy's stubs know only 0 and -1, hence Any.
_OVERLAP_WORK: Final[Any] = 10_000


def allocate(
    shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], like: object
) -> NDArray[Any] | None:
    """Allocate a result for the library of `like`; return None for devices but the CPU."""
    if device is not CPU:
        check_address_space(shape, dtype)
        return None
    check_memory(shape, dtype)
    return _arrays.empty(shape, dtype, like)


def check_address_space(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that the size of a result fits in an integer: CuPy's product of sizes overflows."""
    if _bytes_of(shape, dtype) > sys.maxsize:
        raise MemoryError(f"the result, {shape} {dtype}, is larger than the address space")


def _bytes_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the bytes of an array, without counting axes of length 0.

    NumPy refuses an empty array, too, if the product of its other axes overflows.
    """
    return math.prod(n for n in shape if n) * dtype.itemsize


def check_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that a result can fit in this machine's memory."""
    size = _bytes_of(shape, dtype)
    if size > 1 << 28 and size > (_memory_bytes() if 0 not in shape else sys.maxsize):
        raise MemoryError(
            f"the result, {shape} {dtype}, takes {size >> 20} MiB and is larger than this "
            f"machine's memory, {_memory_bytes() >> 20} MiB"
        )


@cache
def _memory_bytes() -> int:
    """Return the bytes of the machine's physical memory."""
    try:
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize
    return pages * page if pages > 0 and page > 0 else sys.maxsize  # -1 is "unknown"


def check_out(
    out: object,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    device: tuple[int, int],
    **inputs: NDArray[Any] | DeviceArray,
) -> Any:
    """Check that `out` can be written, and that writing it changes no input."""
    if type(out) is not np.ndarray and _arrays.is_masked(out):
        raise TypeError(
            "out is a masked array, whose mask would stay as it is: out.data is the plain array"
        )
    if not isinstance(out, np.ndarray):
        if _arrays.library_of(out) is None:
            raise TypeError(f"out is a {type(out).__name__}: expected a numpy.ndarray")
        checked = _arrays.as_array(out, "out")
    else:
        checked = out
    check_device(checked, "out", device)
    if checked.shape != shape:
        raise ValueError(f"out has shape {checked.shape}: expected {shape}")
    if checked.dtype != dtype:
        raise ValueError(f"out has dtype {checked.dtype}: expected {dtype}")
    if not isinstance(checked, np.ndarray):
        library = _arrays.library_of(checked.array)
        if library is not None and library.constant:
            raise ValueError("out is read-only")
        return checked.array  # the backend checks the memory on its device
    if not checked.flags.writeable:
        raise ValueError("out is read-only")
    if 0 in shape:  # nothing is written; NumPy gives such an array strides of 0
        return checked
    strides = checked.strides
    if 0 in strides and any(s == 0 and n > 1 for s, n in zip(strides, shape, strict=True)):
        raise ValueError("out has elements that share memory with each other (a stride is 0)")
    for name, array in inputs.items():
        assert isinstance(array, np.ndarray)  # on the CPU, like `out`
        if np.may_share_memory(checked, array) and _overlap(checked, array):
            raise ValueError(f"out overlaps {name}: expected memory of its own")
    return checked


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether two arrays overlap; True also where the exact answer takes too long."""
    try:
        return np.shares_memory(a, b, max_work=_OVERLAP_WORK)
    except np.exceptions.TooHardError:
        return True
