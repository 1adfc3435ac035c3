"""Axes so long that float32 cannot tell their last pixels apart.

The last position of an axis of ``2**24 + 4`` pixels is rounded up to one that the axis does not
have; what is read and written there is the last pixel.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend

from .support.cases import METHODS

LENGTH = 2**24 + 4
SHAPES = {"rows": (1, LENGTH, 1, 1), "columns": (1, 1, LENGTH, 1)}
# Both of the box's edges along the long axis are its end.
BOXES = {"rows": [[1, 0, 1, 0]], "columns": [[0, 1, 0, 1]]}

pytestmark = pytest.mark.parametrize("axis", list(SHAPES))


@pytest.fixture(scope="module")
def memory() -> NDArray[np.float32]:
    """Return the pixels, of which the last is 7, and behind them what would spoil any sum."""
    memory = np.full(LENGTH + 64, np.inf, np.float32)
    memory[:LENGTH] = 0
    memory[LENGTH - 1] = 7
    return memory


@pytest.mark.parametrize("method", METHODS)
def test_the_last_pixel_is_read(
    axis: str, method: str, memory: NDArray[np.float32], each_backend: Backend
) -> None:
    image = memory[:LENGTH].reshape(SHAPES[axis])
    crops = cropkit.crop_and_resize(image, BOXES[axis], [0], (3, 3), method, backend=each_backend)
    assert (crops == 7).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_last_pixel_gets_the_gradient(
    axis: str, method: str, each_cpu_backend: Backend
) -> None:
    grads = np.ones((1, 3, 3, 1), np.float32)
    behind: NDArray[Any] = np.full(LENGTH + 64, 9, np.float32)
    out = behind[:LENGTH].reshape(SHAPES[axis])
    cropkit.crop_and_resize_grad_image(
        grads, BOXES[axis], [0], out.shape, method, out=out, backend=each_cpu_backend
    )
    assert behind[LENGTH - 2 : LENGTH + 1].tolist() == [0, 9, 9]
