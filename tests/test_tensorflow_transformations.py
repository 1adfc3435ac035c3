"""TensorFlow's transformations of a crop: right, or refused by a sentence (``make test-full``)."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .frameworks import BOXES, IMAGE, INDICES, SIZE

pytestmark = [
    pytest.mark.frameworks,
    # What TensorFlow says of its own converters and conversions.
    pytest.mark.filterwarnings("ignore:Using a while_loop for converting"),
    pytest.mark.filterwarnings("ignore:Converting sparse IndexedSlices"),
]

LOST = "TensorFlow has lost the gradient of crop_and_resize"
MANY = np.stack([BOXES, BOXES * np.float32(0.7) + np.float32(0.05)])


@pytest.fixture(scope="module")
def crop(tensorflow: Any) -> Any:
    """Return `cropkit.tensorflow.crop_and_resize`."""
    return importlib.import_module("cropkit.tensorflow").crop_and_resize


def gradients(tf: Any, function: Callable[[Any, Any], Any], boxes: Any = BOXES) -> Any:
    """Return the gradients of the sum of squares of what `function` makes."""
    image, edges = tf.constant(IMAGE), tf.constant(boxes)
    with tf.GradientTape() as tape:
        tape.watch([image, edges])
        loss = tf.reduce_sum(function(image, edges) ** 2)
    return tape.gradient(loss, [image, edges])


def close(ours: Any, theirs: Any) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


RIGHT: dict[str, Callable[[Any, Any], Any]] = {
    "tf.map_fn": lambda tf, crop: gradients(
        tf, lambda image, many: tf.map_fn(lambda b: crop(image, b, INDICES, SIZE), many), MANY
    ),
    "tf.recompute_grad": lambda tf, crop: gradients(
        tf, tf.recompute_grad(lambda image, b: crop(image, b, INDICES, SIZE))
    ),
    "tf.vectorized_map, the tape inside": lambda tf, crop: [
        tf.vectorized_map(
            lambda b: gradient_inside(tf, lambda b: crop(IMAGE, b, INDICES, SIZE), b),
            tf.constant(MANY),
        )
    ],
    "tf.while_loop in a tf.function": lambda tf, crop: gradients(
        tf, tf.function(lambda image, b: in_a_loop(tf, lambda: crop(image, b, INDICES, SIZE)))
    ),
}


def gradient_inside(tf: Any, function: Callable[[Any], Any], boxes: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        loss = tf.reduce_sum(function(boxes) ** 2)
    return tape.gradient(loss, boxes)


def in_a_loop(tf: Any, make: Callable[[], Any]) -> Any:
    return tf.while_loop(
        lambda n, _: n < 3, lambda n, total: (n + 1, total + make()),
        (0, tf.zeros((4, *SIZE, 3))),
    )[1]  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str, tensorflow: Any, crop: Any) -> None:
    close(RIGHT[name](tensorflow, crop), RIGHT[name](tensorflow, tensorflow.image.crop_and_resize))


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_a_tape_outside_vectorized_map_is_refused(graph: bool, tensorflow: Any, crop: Any) -> None:
    """It would be zero, without a word."""

    def mapped(image: Any, many: Any) -> Any:
        return tensorflow.vectorized_map(lambda b: crop(image, b, INDICES, SIZE), many)

    function = tensorflow.function(mapped) if graph else mapped
    with pytest.raises(NotImplementedError, match=LOST):
        gradients(tensorflow, function, MANY)


def test_vectorized_map_of_crops_alone(tensorflow: Any, crop: Any, bits_equal: Any) -> None:
    result = tensorflow.vectorized_map(lambda b: crop(IMAGE, b, INDICES, SIZE), MANY)
    for crops, boxes in zip(result, MANY, strict=True):
        bits_equal(crops.numpy(), crop(IMAGE, boxes, INDICES, SIZE).numpy())
