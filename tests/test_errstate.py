"""How NumPy is to treat underflow and the like is the caller's own affair, not this package's."""

import warnings
from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend

SUBNORMAL: Final = 3.7e-44  # in float32
BOXES: Final = np.array([[SUBNORMAL, 0, 1, 1], [0, 1e-300, 1, 1 - 1e-300]])


def values(shape: tuple[int, ...]) -> NDArray[Any]:
    """Numbers whose products, sums and casts overflow, underflow and are invalid."""
    rows = np.array([1e-310, 1e308, -1e308, SUBNORMAL, 7, 1e300, np.inf, -5])
    return np.resize(rows, shape)


@pytest.fixture(params=["raise", "warn"], autouse=True)
def strict(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make every floating-point exception an error, in either way."""
    how: Literal["raise", "warn"] = request.param
    with np.errstate(all=how), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_crops(dtype: str, method: str, each_backend: Backend) -> None:
    for value in (SUBNORMAL, 1e300, np.float64(1e-310), np.float32(3)):
        cropkit.crop_and_resize(
            values((1, 4, 4, 2)), BOXES, [0, 0], (3, 2), method, value,
            dtype=dtype, backend=each_backend,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_image_gradients(dtype: str, each_backend: Backend) -> None:
    for method in ("bilinear", "nearest"):
        cropkit.crop_and_resize_grad_image(
            values((2, 3, 2, 2)), BOXES, [0, 0], (1, 4, 4, 2), method,
            dtype=dtype, backend=each_backend,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_box_gradients(dtype: str, each_backend: Backend) -> None:
    cropkit.crop_and_resize_grad_boxes(
        values((2, 3, 2, 2)), values((1, 4, 4, 2)), BOXES, [0, 0],
        dtype=dtype, backend=each_backend,
    )  # fmt: skip


def test_a_refused_box_is_refused_as_ever() -> None:
    with np.errstate(all="ignore"):
        edges = [np.array([[big, 0, 1, 1]]) for big in (1e300, np.longdouble("1e4000"))]
    for boxes in edges:
        with pytest.raises(ValueError, match=r"^boxes\[0\] = .* coordinates must be finite"):
            cropkit.crop_and_resize(values((1, 4, 4, 2)), boxes, [0], (3, 2))
