"""Boxes of large images are worked through in the order of what they read, piece by piece.

Each piece of a crop must be made once, wherever it comes in that order.
"""

import numpy as np
import pytest

import cropkit
from cropkit import Backend, _cpu

from .support.bits import assert_bits_equal
from .support.cases import METHODS, pixels

# Wide, so that few rows are a piece's worth: the crops are cut into several.
IMAGE = pixels((2, 180, 4000, 3), "uint8")
SIZE = (220, 300)


def boxes() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return boxes in no order, upright and upside down, inside and partly outside."""
    rng = np.random.default_rng(11)
    edges = rng.uniform(-0.1, 1.1, (10, 4)).astype(np.float32)
    edges[:, [0, 2]] = rng.permuted(edges[:, [0, 2]], axis=1)
    return edges


def test_the_pieces_are_sorted() -> None:
    assert _cpu.sorting_pays(boxes(), IMAGE)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_sorted_crops(method: str, threads: int, each_cpu_backend: Backend) -> None:
    indices = np.arange(10) % 2
    call = (IMAGE, boxes(), indices, SIZE, method, -1.0)
    expected = cropkit.crop_and_resize(*call, backend="reference")
    out = np.full(expected.shape, 77, np.float32)
    cropkit.crop_and_resize(*call, out=out, backend=each_cpu_backend, num_threads=threads)
    assert_bits_equal(out, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_sorted_box_gradients(threads: int, each_cpu_backend: Backend) -> None:
    """The same bits as those of each box alone, which nothing sorts."""
    indices = np.arange(10) % 2
    grads = pixels((10, *SIZE, 3), "float32", 5)
    together = cropkit.crop_and_resize_grad_boxes(
        grads, IMAGE, boxes(), indices, backend=each_cpu_backend, num_threads=threads
    )
    alone = [
        cropkit.crop_and_resize_grad_boxes(
            grads[n : n + 1], IMAGE, boxes()[n : n + 1], indices[n : n + 1],
            backend=each_cpu_backend, num_threads=1,
        )
        for n in range(10)
    ]  # fmt: skip
    assert np.abs(together).min(axis=1).any()
    assert_bits_equal(together, np.concatenate(alone))
