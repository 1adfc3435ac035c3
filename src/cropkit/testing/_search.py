"""Search: random calls, which hypothesis makes smaller when one fails."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cropkit.testing._arrays import DTYPES, METHODS, pixels
from cropkit.testing._suite import Suite, reference

EXAMPLES: Final = 60
# The dtypes that need no ml_dtypes.
SEARCHED: Final = tuple(dtype for dtype in DTYPES if dtype != "bfloat16")


def edges(n: int) -> st.SearchStrategy[float]:
    """Return a strategy for edges on pixels, between them, at the borders and far outside."""
    return st.one_of(
        st.integers(-n, 2 * n).map(lambda k: k / max(n - 1, 1)),
        st.sampled_from([0.0, -0.0, 1.0, 0.5, 1 / 3, 1 - 2.0**-24, 1 + 2.0**-23, -1e-30, 3e38]),
        st.floats(-0.5, 1.5, width=32),
    )


@st.composite
def calls(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], Any, list[int], tuple[int, int]]:
    """Draw the image's shape, boxes, indices and the crop's size."""
    batch, depth = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 4, 5, 8, 17]))
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 40))
    count = draw(st.integers(1, 4))
    boxes = [
        [draw(edges(height)), draw(edges(width)), draw(edges(height)), draw(edges(width))]
        for _ in range(count)
    ]
    indices = draw(st.lists(st.integers(0, batch - 1), min_size=count, max_size=count))
    size = draw(st.integers(1, 20)), draw(st.integers(1, 40))
    return (batch, height, width, depth), np.array(boxes, np.float32), indices, size


def search(check: Callable[..., None], **strategies: st.SearchStrategy[Any]) -> None:
    """Call `check` with what the strategies draw, `EXAMPLES` times, the same on every run."""
    settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )(given(**strategies)(check))()  # fmt: skip


class SearchTests(Suite):
    """Random calls."""

    def test_random_calls_equal_the_reference(self) -> None:
        """Calls are of every dtype and method that the backend does not refuse."""
        offered = []
        for dtype, method in itertools.product(SEARCHED, METHODS):
            with contextlib.suppress(pytest.skip.Exception):
                self.crop(np.ones((1, 2, 2, 1), dtype), [[0, 0, 1, 1]], [0], (2, 2), method)
                offered.append((dtype, method))
        if not offered:
            pytest.skip("refused: every dtype and method")

        def check(call: Any, kind: tuple[str, str], seed: int) -> None:
            dtype, method = kind
            shape, boxes, indices, size = call
            image = pixels(shape, dtype, seed, 0.05 if self.exact else 0.0)
            arguments = (image, boxes, indices, size, method, -0.5)
            what = f"{dtype} image {shape}, boxes {boxes.tolist()} to {size}, {method}"
            with np.errstate(all="ignore"):
                scale = float(np.abs(image.astype(np.float64)).max())
            self.same(self.crop(*arguments), reference("crop_and_resize", *arguments), what, scale)

        search(check, call=calls(), kind=st.sampled_from(offered), seed=st.integers(0, 99))

    def test_random_image_gradients_equal_the_reference(self) -> None:
        self.require("grad_image")

        def check(call: Any, method: str, seed: int) -> None:
            shape, boxes, indices, size = call
            grads = pixels((len(boxes), *size, shape[3]), "float32", seed)
            arguments = (grads, boxes, indices, shape, method)
            what = f"image {shape}, boxes {boxes.tolist()} from {size}, {method}"
            self.same(self.grad_image(*arguments), reference("grad_image", *arguments), what)

        search(check, call=calls(), method=st.sampled_from(METHODS), seed=st.integers(0, 99))

    def test_random_box_gradients_equal_the_reference(self) -> None:
        self.require("grad_boxes")

        def check(call: Any, seed: int) -> None:
            shape, boxes, indices, size = call
            grads = pixels((len(boxes), *size, shape[3]), "float32", seed)
            image = pixels(shape, "float32", seed + 1)
            arguments = (grads, image, boxes, indices)
            what = f"image {shape}, boxes {boxes.tolist()} from {size}"
            found, expected = self.grad_boxes(*arguments), reference("grad_boxes", *arguments)
            self.same_boxes(found, expected, grads, image, what)

        search(check, call=calls(), seed=st.integers(0, 99))
