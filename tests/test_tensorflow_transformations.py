"""TensorFlow's transformations: the table of docs/frameworks/tensorflow.md."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from .support.cases import pixels

pytestmark = pytest.mark.frameworks

MODES: Final = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])

IMAGES: Final = pixels((3, 6, 5, 2), "float32")
# Away from the pixels' positions, where the gradient of the boxes jumps.
BOXES: Final = np.random.default_rng(5).uniform(0.05, 0.95, (3, 4, 4)).astype(np.float32)
INDICES: Final = [0, 1, 2, 0]
FIRST: Final = [0] * 4
SIZE: Final = (3, 3)
AGAIN: Final = "the gradients of crop_and_resize cannot be differentiated again"


@pytest.fixture(scope="module")
def crop(tensorflow: Any) -> Any:
    """Return `cropkit.tensorflow.crop_and_resize`."""
    return importlib.import_module("cropkit.tensorflow").crop_and_resize


def each_image(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    def one(both: Any) -> Any:
        return crop(both[0][None], both[1], FIRST, SIZE) ** 2

    return tf.vectorized_map(one, (images, boxes))


def each_image_by_a_function(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    @tf.function
    def one(both: Any) -> Any:
        return crop(both[0][None], both[1], FIRST, SIZE) ** 2

    return tf.vectorized_map(one, (images, boxes))


def each_boxes(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    return tf.vectorized_map(lambda some: crop(images, some, INDICES, SIZE) ** 2, boxes)


def same_crops(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    def times(factor: Any) -> Any:
        return crop(images, boxes[0], INDICES, SIZE) ** 2 * factor

    return tf.vectorized_map(times, tf.range(3.0))


def map_fn(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    def one(both: Any) -> Any:
        return crop(both[0][None], both[1], FIRST, SIZE) ** 2

    return tf.map_fn(one, (images, boxes), fn_output_signature=tf.float32)


def scan(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    def add(total: Any, both: Any) -> Any:
        return total * 0.5 + crop(both[0][None], both[1], FIRST, SIZE) ** 2

    return tf.scan(add, (images, boxes), tf.zeros((4, *SIZE, 2)))


def while_loop(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    def body(i: Any, total: Any) -> Any:
        return i + 1, total * 0.5 + crop(images, boxes[i], INDICES, SIZE) ** 2

    return tf.while_loop(lambda i, _: i < 3, body, (0, tf.zeros((4, *SIZE, 2))))[1]


def recompute_grad(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    return tf.recompute_grad(lambda *both: crop(*both, INDICES, SIZE) ** 2)(images, boxes[0])


def gather(tf: Any, crop: Any, images: Any, boxes: Any) -> Any:
    crops = tf.concat([crop(images, some, INDICES, SIZE) for some in tf.unstack(boxes)], 0)
    return tf.gather(crops, [3, 0, 5, 3]) ** 2


@MODES
@pytest.mark.parametrize(
    "function",
    [
        each_image, each_image_by_a_function, each_boxes, same_crops, map_fn, scan, while_loop,
        recompute_grad, gather,
    ],
)  # fmt: skip
def test_values_and_gradients_are_those_of_tf_image(
    function: Callable[..., Any], graph: bool, tensorflow: Any, crop: Any
) -> None:
    tf = tensorflow

    def results(operator: Any) -> Any:
        def call(images: Any, boxes: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([images, boxes])
                result = function(tf, operator, images, boxes)
            return result, *tape.gradient(result, [images, boxes])

        return (tf.function(call) if graph else call)(tf.constant(IMAGES), tf.constant(BOXES))

    close(results(crop), results(tf.image.crop_and_resize))


def close(ours: Any, theirs: Any) -> None:
    for result, expected in zip(ours, theirs, strict=True):
        assert np.abs(expected).max() > 0.1  # zeros would say nothing
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@MODES
def test_gradients_inside_vectorized_map(graph: bool, tensorflow: Any, crop: Any) -> None:
    tf = tensorflow

    def results(operator: Any) -> Any:
        def one(both: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(both)
                crops = operator(both[0][None], both[1], FIRST, SIZE) ** 2
            return tuple(tape.gradient(crops, list(both)))

        def call(images: Any, boxes: Any) -> Any:
            return tf.vectorized_map(one, (images, boxes))

        return (tf.function(call) if graph else call)(tf.constant(IMAGES), tf.constant(BOXES))

    close(results(crop), results(tf.image.crop_and_resize))


@MODES
@pytest.mark.parametrize("pfor", [True, False])
def test_jacobians(pfor: bool, graph: bool, tensorflow: Any, crop: Any) -> None:
    tf = tensorflow

    def results(operator: Any) -> Any:
        def call(images: Any, boxes: Any) -> Any:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch([images, boxes])
                crops = operator(images, boxes[:, 0], [0, 1, 2], SIZE) ** 2
            return (
                *tape.jacobian(crops, [images, boxes], experimental_use_pfor=pfor),
                tape.batch_jacobian(crops, images, experimental_use_pfor=pfor),
            )

        return (tf.function(call) if graph else call)(tf.constant(IMAGES), tf.constant(BOXES))

    close(results(crop), results(tf.image.crop_and_resize))


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("of", ["gradient", "jacobian"])
def test_a_second_derivative_is_refused(
    of: str, vectorized: bool, tensorflow: Any, crop: Any
) -> None:
    tf = tensorflow
    function = each_image if vectorized else gather
    boxes = tf.constant(BOXES)

    def second() -> Any:
        with tf.GradientTape() as outer:
            outer.watch(boxes)
            with tf.GradientTape() as inner:
                inner.watch(boxes)
                crops = function(tf, crop, IMAGES, boxes)
            first = inner.gradient(crops, boxes)
        return getattr(outer, of)(first, boxes)

    with pytest.raises(NotImplementedError, match=AGAIN):
        second()


@MODES
def test_a_persistent_tape(graph: bool, tensorflow: Any, crop: Any) -> None:
    tf = tensorflow
    images, boxes = tf.constant(IMAGES), tf.constant(BOXES)

    def results(operator: Any) -> Any:
        def call(images: Any, boxes: Any) -> Any:
            return gather(tf, operator, images, boxes)

        with tf.GradientTape(persistent=True) as tape:
            tape.watch([images, boxes])
            result = (tf.function(call) if graph else call)(images, boxes)
        return tape.gradient(result, images), tape.gradient(result, boxes)

    close(results(crop), results(tf.image.crop_and_resize))


def test_a_persistent_tape_around_vectorized_map_is_refused(tensorflow: Any, crop: Any) -> None:
    boxes = tensorflow.constant(BOXES)
    with tensorflow.GradientTape(persistent=True) as tape:
        tape.watch(boxes)
        with pytest.raises(NotImplementedError, match=AGAIN):
            each_image(tensorflow, crop, IMAGES, boxes)


def test_forward_mode_is_refused(tensorflow: Any, crop: Any) -> None:
    tf = tensorflow
    images = tf.constant(IMAGES)
    with (
        pytest.raises(NotImplementedError, match=AGAIN),
        tf.autodiff.ForwardAccumulator(images, tf.ones_like(images)),
    ):
        crop(images, BOXES[0], INDICES, SIZE)


def test_vectorized_map_without_fallback_is_refused(tensorflow: Any, crop: Any) -> None:
    with pytest.raises(ValueError, match="No pfor vectorization defined for PyFuncStateless"):
        tensorflow.vectorized_map(
            lambda boxes: crop(IMAGES, boxes, INDICES, SIZE), BOXES, fallback_to_while_loop=False
        )


def test_jit_compile_is_refused(tensorflow: Any, crop: Any) -> None:
    function = tensorflow.function(
        lambda images: crop(images, BOXES[0], INDICES, SIZE), jit_compile=True
    )
    with pytest.raises(tensorflow.errors.InvalidArgumentError, match="PyFuncStateless"):
        function(IMAGES)


@pytest.mark.parametrize("batch", [1, 4, 2])
@pytest.mark.parametrize("static", [False, True])
def test_no_box_indices_where_shapes_are_unknown(
    static: bool, batch: int, tensorflow: Any, crop: Any, bits_equal: Any
) -> None:
    tf = tensorflow
    images = pixels((batch, 6, 5, 2), "float32")

    @tf.function(
        input_signature=[
            tf.TensorSpec([batch if static else None, 6, 5, 2]), tf.TensorSpec([None, 4]),
        ]
    )  # fmt: skip
    def function(images: Any, boxes: Any) -> Any:
        return crop(images, boxes, None, SIZE)

    if batch == 2:
        text = "box_indices is None, num_boxes is 4 and batch is 2: expected an index"
        with pytest.raises(tf.errors.InvalidArgumentError, match=text):
            function(images, BOXES[0])
        return
    expected = tf.image.crop_and_resize(images, BOXES[0], FIRST if batch == 1 else range(4), SIZE)
    bits_equal(function(images, BOXES[0]).numpy(), expected.numpy())


def test_saving_is_refused(
    tensorflow: Any, crop: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tf = tensorflow
    module = tf.Module()
    module.crops = tf.function(
        lambda images: crop(images, BOXES[0], INDICES, SIZE),
        input_signature=[tf.TensorSpec(IMAGES.shape)],
    )
    module.crops(IMAGES)  # traced before it is saved
    with pytest.raises(ValueError, match="Error when tracing gradients for SavedModel") as caught:
        tf.saved_model.save(module, str(tmp_path))
    text = "which a SavedModel does not contain: it could not be loaded elsewhere"
    assert text in str(caught.value.__cause__)
    assert text in capfd.readouterr().err
