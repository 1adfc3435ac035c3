"""A backend that writes one value, and calls that ask for it."""

from dataclasses import replace
from typing import Any

import numpy as np

import cropkit
from cropkit import Request
from cropkit._kernels._checks import Call
from cropkit._request import check_forward, request_of

CUDA = 2


class Constant:
    """A backend that writes one value, and may refuse."""

    device_types = frozenset({1})
    exact = True

    def __init__(self, value: float, reason: str | None = None, name: str = "constant") -> None:
        self.value = value
        self.reason = reason
        self.name = name

    __hash__ = None  # type: ignore[assignment]

    def unavailable(self) -> str | None:
        return None

    def refuses(self, request: Request) -> str | None:
        return self.reason

    def crop_and_resize(
        self, request: Request, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        out[...] = self.value


IMAGE = np.zeros((1, 2, 2, 1), np.float32)


def value(backend: Any = None) -> float:
    """Return what a call gives: 0 from the built-in backends, else a `Constant`'s value."""
    return float(
        cropkit.crop_and_resize(IMAGE, [[0, 0, 1, 1]], [0], (1, 1), backend=backend).item()
    )


def call_on(device_type: int = 1, dtype: str = "float32", features: Any = ()) -> Call:
    """Return a call as the checks make it, on any device and in need of any features."""
    image = IMAGE.astype(dtype)
    call = check_forward(image, [[0, 0, 1, 1]], [0], (1, 1), "bilinear", 0.0, None, None, None)
    call.request = replace(request_of(call), device_type=device_type, features=frozenset(features))
    return call
