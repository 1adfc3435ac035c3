"""Memory whose neighbours may not be touched."""

import ctypes
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray


def guarded(array: NDArray[Any], at_end: bool) -> NDArray[Any]:
    """Copy an array to memory that begins, or ends, where a forbidden page does."""
    page = mmap.PAGESIZE
    inner = -(-array.nbytes // page) * page
    region = mmap.mmap(-1, inner + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    libc = ctypes.CDLL(None, use_errno=True)
    for guard in (address, address + page + inner):
        if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    offset = page + (inner - array.nbytes if at_end else 0)
    copy = np.ndarray(array.shape, array.dtype, region, offset)
    copy[...] = array
    return copy
