"""An `out` with nothing in it is as good as any other: it shares no element with anything."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend

IMAGE = np.ones((2, 4, 5, 3), np.float32)
GRADS = np.ones((2, 3, 2, 3), np.float32)
BOXES = np.array([[0, 0, 1, 1], [0.5, 0, 1, 1]], np.float32)
INDICES = np.array([0, 1])
MAKERS = [np.zeros, np.empty, lambda shape, dtype: np.full(shape, 7, dtype)]


def gives(call: Any, out: NDArray[Any], *arguments: Any, backend: Backend) -> None:
    result = call(*arguments, out=out, backend=backend)
    assert result is out
    assert not result.any()


@pytest.mark.parametrize("make", MAKERS)
def test_out_without_boxes(make: Any, each_backend: Backend) -> None:
    none, no_indices = BOXES[:0], INDICES[:0]
    gives(cropkit.crop_and_resize, make((0, 3, 2, 3), np.float32), IMAGE, none, no_indices, (3, 2),
          backend=each_backend)  # fmt: skip
    gives(cropkit.crop_and_resize_grad_image, make(IMAGE.shape, np.float32), GRADS[:0], none,
          no_indices, IMAGE.shape, backend=each_backend)  # fmt: skip
    gives(cropkit.crop_and_resize_grad_image, make((0, 4, 5, 3), np.float32), GRADS[:0], none,
          no_indices, (0, 4, 5, 3), backend=each_backend)  # fmt: skip
    gives(cropkit.crop_and_resize_grad_boxes, make((0, 4), np.float32), GRADS[:0], IMAGE, none,
          no_indices, backend=each_backend)  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_out_without_depth(make: Any, each_backend: Backend) -> None:
    image, grads = IMAGE[..., :0], GRADS[..., :0]
    gives(cropkit.crop_and_resize, make((2, 3, 2, 0), np.float32), image, BOXES, INDICES, (3, 2),
          backend=each_backend)  # fmt: skip
    gives(cropkit.crop_and_resize_grad_image, make(image.shape, np.float32), grads, BOXES, INDICES,
          image.shape, backend=each_backend)  # fmt: skip
    gives(cropkit.crop_and_resize_grad_boxes, make((2, 4), np.float32), grads, image, BOXES,
          INDICES, backend=each_backend)  # fmt: skip


def test_empty_out_between_the_pixels_of_an_input(each_backend: Backend) -> None:
    """Its address is in the image; it has no element there."""
    gives(cropkit.crop_and_resize, IMAGE[:0, :3, :2], IMAGE, BOXES[:0], INDICES[:0], (3, 2),
          backend=each_backend)  # fmt: skip


def test_the_rest_of_an_empty_out_is_checked(each_backend: Backend) -> None:
    def fails(text: str, out: NDArray[Any]) -> None:
        with pytest.raises(ValueError, match=text):
            cropkit.crop_and_resize(
                IMAGE, BOXES[:0], INDICES[:0], (3, 2), out=out, backend=each_backend
            )

    fails("out has shape", np.zeros((0, 2, 3, 3), np.float32))
    fails("out has dtype", np.zeros((0, 3, 2, 3)))
    read_only = np.zeros((0, 3, 2, 3), np.float32)
    read_only.flags.writeable = False
    fails("out is read-only", read_only)
