"""Write ``golden.npz``: results of ``tf.image.crop_and_resize`` that the tests compare with.

Run from the repository's root, with ``tensorflow-cpu==2.21.0`` installed::

    python -m tests.data.make_golden

Images are not stored: ``tests.support.cases.pixels`` makes them again from the case's number. A
result is stored whole if it is small; of a larger one, its SHA-256, with every NaN
replaced by the same one.
"""

import hashlib
import itertools
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.support.cases import (
    DEPTHS,
    GEOMETRIES,
    METHODS,
    TENSORFLOW_DTYPES,
    Geometry,
    indices_of,
    pixels,
)

PATH: Final = Path(__file__).with_name("golden.npz")
VERSION: Final = "2.21.0"
_STORED_VALUES: Final = 400  # a result of more is stored as its digest


class GoldenCase(NamedTuple):
    """One call of the operator."""

    image: NDArray[Any]
    boxes: NDArray[np.float32]
    box_indices: NDArray[np.int32]
    crop_size: tuple[int, int]
    method: str
    extrapolation_value: float


def golden_cases() -> dict[str, GoldenCase]:
    """Make all calls, by name.

    Every dtype meets every depth, method and geometry; not every combination is made.
    """
    cases = {}
    seed = 0
    for dtype, depth, method in itertools.product(TENSORFLOW_DTYPES, DEPTHS, METHODS):
        for geometry in GEOMETRIES[seed % 3 :: 3] + _crowd(seed):
            seed += 1
            special = 0.05 if seed % 2 else 0.0
            cases[f"{dtype}-{depth}-{method}-{geometry.name}"] = GoldenCase(
                pixels((*geometry.image_shape, depth), dtype, seed, special),
                np.array(geometry.boxes, np.float32),
                indices_of(geometry),
                geometry.crop_size,
                method,
                (0.0, -1.5, float("nan"), 1e-40)[seed % 4],
            )
    return cases


def _crowd(seed: int) -> tuple[Geometry]:
    """Make a geometry of many boxes at random, edges inside, outside, shared and tiny."""
    values = pixels((12, 4), "float64", seed + 1000) / 160 + 0.5  # in [-0.3, 1.3)
    boxes = values.round(1 + seed % 4)  # few digits: edges meet pixels and each other
    boxes[3] *= 1e-42
    boxes[4] *= 1e4
    boxes[5, 2:] = boxes[5, :2]
    size = ((3, 5), (1, 18), (6, 1), (11, 4))[seed % 4]
    return (Geometry(f"crowd {seed}", (3, 7, 29), tuple(map(tuple, boxes)), size),)


def digest(result: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the SHA-256 of a result's bytes, its NaNs made alike."""
    alike = np.where(np.isnan(result), np.float32(np.nan), result)
    return np.frombuffer(hashlib.sha256(alike.astype("<f4").tobytes()).digest(), np.uint8)


def main() -> None:
    """Compute and write."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    if tf.__version__ != VERSION:
        raise SystemExit(f"TensorFlow {tf.__version__}: expected {VERSION}")
    tf.config.experimental.enable_op_determinism()
    results = {}
    for name, case in golden_cases().items():
        result = tf.image.crop_and_resize(*case).numpy()
        results[name] = result if result.size <= _STORED_VALUES else digest(result)
    np.savez_compressed(PATH, **results)
    print(f"{PATH.name}: {len(results)} results, {PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
