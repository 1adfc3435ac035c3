"""Bit for bit: the comparison of nearly every test."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def assert_bits_equal(actual: NDArray[Any], expected: NDArray[Any], what: str = "") -> None:
    """Assert the same shape, dtype and bits; any NaN equals any NaN."""
    __tracebackhide__ = True
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, not {expected.dtype}"
    bits = f"u{actual.dtype.itemsize}"
    same = np.ascontiguousarray(actual).view(bits) == np.ascontiguousarray(expected).view(bits)
    same |= np.isnan(actual) & np.isnan(expected)
    if not same.all():
        first = tuple(int(i) for i in np.argwhere(~same)[0])
        pytest.fail(
            f"{what}: {np.count_nonzero(~same)} of {same.size} values differ, the first at "
            f"{first}: {actual[first]!r} ({actual[first].tobytes().hex()}), expected "
            f"{expected[first]!r} ({expected[first].tobytes().hex()})"
        )
