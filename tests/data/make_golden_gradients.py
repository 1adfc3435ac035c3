"""Write ``golden_gradients.npz``: image gradients of TensorFlow that the tests compare with.

Run from the repository's root, with ``tensorflow-cpu==2.21.0`` installed::

    python -m tests.data.make_golden_gradients

In deterministic mode: without it the operator's threads add without synchronisation. The
gradients of the crops are not stored, ``tests.support.cases.pixels`` makes them again; a result is
stored whole if it is small, else as its digest.
"""

import itertools
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.data.make_golden import VERSION, digest
from tests.support.cases import DEPTHS, GEOMETRIES, METHODS, indices_of, pixels

PATH: Final = Path(__file__).with_name("golden_gradients.npz")
_STORED_VALUES: Final = 400


class GoldenGradient(NamedTuple):
    """One call of the image gradient."""

    grads: NDArray[Any]
    boxes: NDArray[np.float32]
    box_indices: NDArray[np.int32]
    image_size: tuple[int, int, int, int]
    method: str


def golden_gradients() -> dict[str, GoldenGradient]:
    """Make all calls, by name; every third has infinite, subnormal and other odd values."""
    cases = {}
    for seed, (geometry, depth, method) in enumerate(
        itertools.product(GEOMETRIES, DEPTHS, METHODS)
    ):
        # Twice the boxes, in another order: several crops add to the same pixels.
        boxes = np.array(geometry.boxes[::-1] + geometry.boxes, np.float32)
        indices = indices_of(geometry)
        shape = (len(boxes), *geometry.crop_size, depth)
        grads = pixels(shape, "float32", seed, 0.02 if seed % 3 == 0 else 0.0)
        if seed % 5 == 0:
            grads *= np.float32(1e-39)  # sums that are subnormal, and flushed
        cases[f"{geometry.name}-{depth}-{method}"] = GoldenGradient(
            grads, boxes, np.concatenate([indices[::-1], indices]),
            (*geometry.image_shape, depth), method,
        )  # fmt: skip
    return cases


def main() -> None:
    """Compute and write."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    if tf.__version__ != VERSION:
        raise SystemExit(f"TensorFlow {tf.__version__}: expected {VERSION}")
    tf.config.experimental.enable_op_determinism()
    results = {}
    for name, case in golden_gradients().items():
        result = tf.raw_ops.CropAndResizeGradImage(
            grads=case.grads, boxes=case.boxes, box_ind=case.box_indices,
            image_size=case.image_size, T=tf.float32, method=case.method,
        ).numpy()  # fmt: skip
        results[name] = result if result.size <= _STORED_VALUES else digest(result)
    np.savez_compressed(PATH, **results)
    print(f"{PATH.name}: {len(results)} results, {PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
