"""What backends get to see of calls for gradients, and those that have none."""

from typing import Any

import numpy as np
import pytest

import cropkit

from .support.cases import dtype_of

grad_image = cropkit.crop_and_resize_grad_image
grad_boxes = cropkit.crop_and_resize_grad_boxes
ONE_BOX = [[0.0, 0.0, 1.0, 1.0]]


class ForwardOnly:
    """A backend without gradients."""

    name = "forward-only"
    device_types = frozenset({1})
    exact = True

    def unavailable(self) -> str | None:
        return None

    def refuses(self, request: cropkit.Request) -> str | None:
        return None

    def crop_and_resize(
        self, request: Any, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        out[...] = 0


class OneGradient(ForwardOnly):
    """A backend with one gradient of two."""

    def grad_image(self, request: Any, grads: Any, boxes: Any, box_indices: Any, out: Any) -> None:
        out[...] = 1


class Recorder(OneGradient):
    """A backend that keeps the requests that it gets."""

    def __init__(self) -> None:
        self.requests: list[cropkit.Request] = []

    def refuses(self, request: cropkit.Request) -> str | None:
        self.requests.append(request)
        return "bfloat16" if request.grads_dtype == dtype_of("bfloat16") else None

    def grad_boxes(
        self, request: Any, grads: Any, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        out[...] = 2


GRADS = np.ones((1, 2, 2, 3), np.float16)
IMAGE = np.ones((1, 4, 5, 3), np.uint8)


def test_a_backend_without_gradients_refuses_them() -> None:
    backend = ForwardOnly()
    assert cropkit.crop_and_resize(IMAGE, ONE_BOX, [0], (2, 2), backend=backend).shape == (
        1, 2, 2, 3,
    )  # fmt: skip
    text = r"backend 'forward-only' \(.*\) cannot run this call: it has no method "
    with pytest.raises(cropkit.BackendError, match=text + "grad_image"):
        grad_image(GRADS, ONE_BOX, [0], IMAGE.shape, backend=backend)
    with pytest.raises(cropkit.BackendError, match=text + "grad_boxes"):
        grad_boxes(GRADS, IMAGE, ONE_BOX, [0], backend=backend)
    assert not isinstance(backend, cropkit.GradientBackend)
    assert isinstance(Recorder(), cropkit.GradientBackend)


def test_a_backend_has_both_gradients_or_none() -> None:
    with pytest.raises(cropkit.BackendError, match="has no method grad_boxes"):
        cropkit.crop_and_resize(IMAGE, ONE_BOX, [0], (2, 2), backend=OneGradient())


def test_what_a_backend_gets_to_see() -> None:
    backend = Recorder()
    assert (grad_image(GRADS, ONE_BOX, [0], IMAGE.shape, dtype="int16", backend=backend) == 1).all()
    assert (grad_boxes(GRADS, IMAGE, ONE_BOX, [0], dtype="f8", backend=backend) == 2).all()
    first, second = backend.requests
    assert (first.operation, second.operation) == ("grad_image", "grad_boxes")
    assert first.grads_dtype == second.grads_dtype == np.float16
    assert (first.compute_dtype, first.image_dtype, first.result_dtype) == ("f4", "i2", "i2")
    assert (second.compute_dtype, second.image_dtype, second.result_dtype) == ("f8", "u1", "f8")
    assert first.image_shape == second.image_shape == first.result_shape == IMAGE.shape
    assert second.result_shape == (1, 4)
    assert first.crop_size == second.crop_size == (2, 2)
    with pytest.raises(cropkit.BackendError, match="cannot run this call: bfloat16"):
        grad_boxes(GRADS.astype(dtype_of("bfloat16")), IMAGE, ONE_BOX, [0], backend=backend)
