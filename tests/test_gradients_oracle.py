"""Gradients of random calls, compared with TensorFlow 2.21 on the spot (``make test-full``).

The environment's settings are those of ``test_oracle.py``.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit

from .support.backends import BACKENDS
from .support.bits import assert_bits_equal
from .support.cases import DEPTHS, LAYOUTS, METHODS, pixels
from .support.exact_gradient import exact_box_gradient
from .support.random_calls import CALLS, FIXED_SEED, FRESH_SEED, random_boxes

pytestmark = pytest.mark.oracle
SEEDS = pytest.mark.parametrize("seed", [FIXED_SEED, FRESH_SEED], ids=["fixed", "fresh"])


def random_call(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw gradients, an image, boxes and indices."""
    height, width = (int(rng.choice([1, 2, rng.integers(3, 40)])) for _ in range(2))
    depth = int(rng.choice([*DEPTHS, 6, 7, 16, 33]))
    boxes = random_boxes(rng, height, width)
    crops = (len(boxes), int(rng.integers(1, 20)), int(rng.integers(1, 40)), depth)
    special = float(rng.choice([0, 0, 0.02]))
    grads = pixels(crops, "float32", int(rng.integers(2**32)), special)
    with np.errstate(all="ignore"):
        grads *= np.float32(10.0) ** int(rng.choice([0, 0, 0, -40, -37, 36]))
    image = pixels((int(rng.integers(1, 4)), height, width, depth), "float32", 1)
    indices = rng.integers(0, len(image), len(boxes)).astype(np.int32)
    return grads, image, boxes, indices


@pytest.mark.timeout(1200)
@SEEDS
def test_image_gradients(seed: int, tensorflow: Any) -> None:
    """Bit by bit, on every backend and instruction set; layouts and threads at random."""
    for number in range(CALLS // 8):
        rng = np.random.default_rng((seed, number))
        grads, image, boxes, indices = random_call(rng)
        method = str(rng.choice(METHODS))
        expected = tensorflow.raw_ops.CropAndResizeGradImage(
            grads=grads, boxes=boxes, box_ind=indices, image_size=image.shape,
            T=tensorflow.float32, method=method,
        ).numpy()  # fmt: skip
        layout, threads = str(rng.choice(list(LAYOUTS))), rng.choice([None, 1, 2, 5])
        for name, backend in BACKENDS.items():
            result = cropkit.crop_and_resize_grad_image(
                LAYOUTS[layout](grads), boxes, indices, image.shape, method, backend=backend,
                num_threads=threads,
            )  # fmt: skip
            assert_bits_equal(
                result, expected,
                f"CROPKIT_ORACLE_SEED={seed}, call {number}, {name}: {grads.shape} {layout} to "
                f"{image.shape}, {method}, {threads} threads, boxes {boxes.tolist()}",
            )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_large_image_gradients(method: str, tensorflow: Any) -> None:
    """As large as real ones: bands, teams, many boxes over the same pixels."""
    rng = np.random.default_rng(FIXED_SEED)
    for shape, count, size in (
        ((2, 300, 200, 3), 40, (50, 61)),
        ((1, 64, 64, 64), 60, (14, 14)),
        ((3, 150, 170, 1), 30, (28, 28)),
    ):
        boxes = rng.uniform(-0.1, 1.1, (count, 4)).astype(np.float32)
        indices = rng.integers(0, shape[0], count).astype(np.int32)
        grads = rng.standard_normal((count, *size, shape[3]), np.float32)
        expected = tensorflow.raw_ops.CropAndResizeGradImage(
            grads=grads, boxes=boxes, box_ind=indices, image_size=shape, T=tensorflow.float32,
            method=method,
        ).numpy()  # fmt: skip
        for threads in (1, 2, 5):
            result = cropkit.crop_and_resize_grad_image(
                grads, boxes, indices, shape, method, num_threads=threads
            )
            assert_bits_equal(result, expected, f"{shape}, {threads} threads")


@pytest.mark.timeout(600)
@SEEDS
def test_box_gradients_are_closer_to_the_truth(seed: int, tensorflow: Any) -> None:
    """Never farther from the exact sum than the operator's, whose sums are float32."""
    errors: list[NDArray[np.float64]] = []
    for number in range(CALLS // 100):
        rng = np.random.default_rng((seed, number))
        height, width, depth = (int(rng.integers(2, 30)) for _ in range(3))
        image = rng.standard_normal((1, height, width, depth), np.float32)
        grads = rng.standard_normal((2, *rng.integers(2, 15, 2), depth), np.float32)
        boxes = rng.uniform(0, 1, (2, 4)).astype(np.float32)
        theirs = tensorflow.raw_ops.CropAndResizeGradBoxes(
            grads=grads, image=image, boxes=boxes, box_ind=[0, 0]
        ).numpy()
        ours = cropkit.crop_and_resize_grad_boxes(grads, image, boxes, None)
        for n, box in enumerate(boxes):
            truth, magnitude = exact_box_gradient(grads[n], image[0], box)
            pair = np.abs(np.stack([ours[n], theirs[n]]).astype(float) - truth)
            assert (pair[0] <= pair[1] + 1e-14 * magnitude).all(), (seed, number, n, pair)
            errors.append(pair / magnitude)
    ours_, theirs_ = np.sqrt(np.mean(np.square(errors), axis=(0, 2)))
    assert ours_ < theirs_ / 10
    print(
        f"root mean square error by the terms' magnitude: {ours_:.1e}, the operator {theirs_:.1e}"
    )


def test_golden_gradients_are_still_the_operators(tensorflow: Any) -> None:
    from .data.make_golden import digest
    from .data.make_golden_gradients import PATH, golden_gradients

    with np.load(PATH) as golden:
        for name, case in golden_gradients().items():
            result = tensorflow.raw_ops.CropAndResizeGradImage(
                grads=case.grads, boxes=case.boxes, box_ind=case.box_indices,
                image_size=case.image_size, T=tensorflow.float32, method=case.method,
            ).numpy()  # fmt: skip
            stored = golden[name]
            alike = digest(result) if stored.dtype == np.uint8 else result
            np.testing.assert_array_equal(alike, stored, name)
