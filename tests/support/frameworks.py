"""What the tests of the three frameworks share: one call, and who asks for which gradient."""

from typing import Any, Final

import numpy as np
import pytest

import cropkit

from .cases import pixels

# Inside, flipped, partly outside, and without extent.
BOXES: Final = np.array(
    [[0, 0, 1, 1], [0.9, 0.1, 0.2, 0.8], [-0.2, 0, 0.5, 1.3], [0.3, 0.3, 0.3, 0.3]], np.float32
)
INDICES: Final = np.array([1, 0, 1, 1], np.int32)
SIZE: Final = (4, 7)
SHAPE: Final = (2, 6, 5, 3)
IMAGE: Final = pixels(SHAPE, "float32")
GRADS: Final = pixels((4, *SIZE, 3), "float32", 1)


def record_gradients(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list in which each gradient that is computed from now on will be named."""
    computed = []

    def record(name: str) -> None:
        function = getattr(cropkit, f"crop_and_resize_grad_{name}")

        def recorded(*arguments: Any, **options: Any) -> Any:
            computed.append(name)
            return function(*arguments, **options)

        monkeypatch.setattr(cropkit, f"crop_and_resize_grad_{name}", recorded)

    record("image")
    record("boxes")
    return computed
