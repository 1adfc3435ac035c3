"""TensorFlow: tensors in the plain functions, and `cropkit.tensorflow` (``make test-full``)."""

import importlib
import runpy
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import cropkit

from .support.cases import DTYPES, METHODS, TENSORFLOW_DTYPES, dtype_of, pixels
from .support.frameworks import BOXES, GRADS, IMAGE, INDICES, SHAPE, SIZE, record_gradients
from .support.recording import Recording

pytestmark = pytest.mark.frameworks

MODES: Final = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])


@pytest.fixture(scope="module")
def crop(tensorflow: Any) -> Any:
    """Return `cropkit.tensorflow.crop_and_resize`."""
    return importlib.import_module("cropkit.tensorflow").crop_and_resize


def address(tensor: Any, tf: Any) -> int:
    bits = {1: tf.uint8, 2: tf.uint16, 4: tf.uint32, 8: tf.uint64}[tensor.dtype.size]
    shown = tensor if tensor.dtype == tf.bool else tf.bitcast(tensor, bits)
    location: int = np.from_dlpack(shown).ctypes.data
    return location


# ---- the plain functions -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_go_in_and_come_out_without_copies(
    dtype: str, tensorflow: Any, bits_equal: Any
) -> None:
    tf = tensorflow
    image = pixels(SHAPE, dtype)
    given = tf.constant(image)
    recording = Recording()
    result = cropkit.crop_and_resize(
        given, tf.constant(BOXES), tf.constant(INDICES), SIZE, backend=recording
    )
    assert tf.is_tensor(result)
    assert recording.addresses["image"] == address(given, tf)
    assert recording.addresses["out"] == address(result, tf)
    bits_equal(result.numpy(), cropkit.crop_and_resize(image, BOXES, INDICES, SIZE))
    gradient = cropkit.crop_and_resize_grad_image(
        tf.constant(GRADS), BOXES, INDICES, SHAPE, dtype=given.dtype, backend=recording
    )
    assert gradient.dtype == given.dtype
    assert recording.addresses["out"] == address(gradient, tf)
    expected = cropkit.crop_and_resize_grad_image(
        GRADS, BOXES, INDICES, SHAPE, dtype=dtype_of(dtype)
    )
    np.testing.assert_array_equal(gradient.numpy(), expected)


def test_variables_are_read_and_tensors_never_written(tensorflow: Any, bits_equal: Any) -> None:
    variable = tensorflow.Variable(IMAGE)
    result = cropkit.crop_and_resize(variable, BOXES, INDICES, SIZE)
    assert tensorflow.is_tensor(result)
    bits_equal(result.numpy(), cropkit.crop_and_resize(IMAGE, BOXES, INDICES, SIZE))
    with pytest.raises(ValueError, match="out is read-only"):
        cropkit.crop_and_resize(IMAGE, BOXES, INDICES, SIZE, out=result)


def test_a_tensor_of_a_graph_is_told_where_to_go(tensorflow: Any) -> None:
    @tensorflow.function
    def function(image: Any) -> Any:
        return cropkit.crop_and_resize(image, BOXES, INDICES, SIZE)

    text = "image: expected an array: a tensor of a tf.function is for cropkit.tensorflow.crop_and"
    with pytest.raises(TypeError, match=text):
        function(IMAGE)


# ---- cropkit.tensorflow in place of tf.image ----------------------------------------------------

PROGRAM: Final = """
import tensorflow as tf
{crop_and_resize}


class Head(tf.Module):
    def __init__(self):
        rng = tf.random.Generator.from_seed(3)
        self.boxes = tf.Variable(rng.uniform((9, 4), -0.1, 1.1))
        self.weights = tf.Variable(rng.normal((7 * 7 * 2, 3)))

    @tf.function(input_signature=[
        tf.TensorSpec([None, None, None, 2]), tf.TensorSpec([None], tf.int32)])
    def step(self, images, owners):
        with tf.GradientTape() as tape:
            tape.watch(images)
            size = [tf.constant(7), 3 + 4]
            crops = crop_and_resize(images, self.boxes, owners, size, name="regions",
                                    extrapolation_value=0.5)
            assert crops.shape.as_list() == [9, 7, 7, 2]
            small = crop_and_resize(images, self.boxes, box_indices=owners, crop_size=[2, 2],
                                    method="nearest")
            scores = tf.reshape(crops, (-1, 98)) @ self.weights
            loss = tf.reduce_mean(scores ** 2) + tf.reduce_sum(small)
        return crops, small, loss, *tape.gradient(loss, [images, self.weights, self.boxes])


images = tf.random.Generator.from_seed(7).normal((2, 13, 17, 2))
head = Head()
results = [result.numpy() for result in head.step(images, [0, 1, 1, 0, 1, 0, 0, 1, 1])]
"""


def test_changing_one_import_is_the_whole_migration(
    tensorflow: Any, bits_equal: Any, tmp_path: Path
) -> None:
    def run(line: str) -> Any:
        (tmp_path / "program.py").write_text(PROGRAM.format(crop_and_resize=line))
        return runpy.run_path(str(tmp_path / "program.py"))["results"]

    theirs = run("crop_and_resize = tf.image.crop_and_resize")
    ours = run("from cropkit.tensorflow import crop_and_resize")
    names = ("crops", "nearest crops", "loss", "gradient of the images", "of the weights")
    for name, result, expected in zip(names, ours[:5], theirs[:5], strict=True):
        bits_equal(np.asarray(result), np.asarray(expected), name)
    # The one thing that is better.
    assert ours[5].dtype == theirs[5].dtype
    np.testing.assert_allclose(ours[5], theirs[5], rtol=1e-4, atol=1e-3)


@MODES
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_are_those_of_both(
    dtype: str, method: str, graph: bool, tensorflow: Any, crop: Any, bits_equal: Any
) -> None:
    image = pixels(SHAPE, dtype)

    def function(operator: Any) -> Any:
        def call(image: Any, boxes: Any, indices: Any) -> Any:
            return operator(image, boxes, indices, SIZE, method, -3.5)

        return (tensorflow.function(call) if graph else call)(image, BOXES, INDICES).numpy()

    result = function(crop)
    bits_equal(result, cropkit.crop_and_resize(image, BOXES, INDICES, SIZE, method, -3.5))
    if dtype in TENSORFLOW_DTYPES:
        bits_equal(result, function(tensorflow.image.crop_and_resize))


@MODES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_gradients_are_those_of_the_plain_functions(
    dtype: str, graph: bool, tensorflow: Any, crop: Any, bits_equal: Any
) -> None:
    real = "float64" if dtype == "float64" else "float32"

    def gradients(image: Any, boxes: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            tape.watch([image, boxes])
            crops = crop(image, boxes, INDICES, SIZE, dtype=real)
            loss = tensorflow.reduce_sum(crops * GRADS.astype(real))
        return tape.gradient(loss, [image, boxes])

    image = pixels(SHAPE, dtype)
    of_image, of_boxes = (tensorflow.function(gradients) if graph else gradients)(
        tensorflow.constant(image), tensorflow.constant(BOXES)
    )
    bits_equal(
        of_image.numpy(),
        cropkit.crop_and_resize_grad_image(GRADS, BOXES, INDICES, SHAPE, dtype=image.dtype),
    )
    expected = cropkit.crop_and_resize_grad_boxes(GRADS, image, BOXES, INDICES, dtype=real)
    bits_equal(of_boxes.numpy(), expected.astype(np.float32))


# TensorFlow's own warning about the memory of a dense gradient.
@pytest.mark.filterwarnings("ignore:Converting sparse IndexedSlices")
@MODES
def test_crops_that_are_gathered(graph: bool, tensorflow: Any, crop: Any, bits_equal: Any) -> None:
    """Crops of two levels, joined and brought into another order, as Mask R-CNN trains."""
    tf = tensorflow

    def gradients(operator: Any) -> Any:
        def step(image: Any, boxes: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([image, boxes])
                levels = [operator(image, boxes, INDICES, SIZE) for _ in range(2)]
                loss = tf.reduce_sum(tf.gather(tf.concat(levels, 0), [7, 0, 2, 2]) ** 2)
            return tape.gradient(loss, [image, boxes])

        return (tf.function(step) if graph else step)(tf.constant(IMAGE), tf.constant(BOXES))

    ours, theirs = gradients(crop), gradients(tf.image.crop_and_resize)
    bits_equal(ours[0].numpy(), theirs[0].numpy())
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-3, atol=1)


def test_an_integer_image_has_no_gradient(tensorflow: Any, crop: Any) -> None:
    image, boxes = tensorflow.Variable(IMAGE.astype(np.int32)), tensorflow.Variable(BOXES)
    with tensorflow.GradientTape() as tape:
        crops = crop(image, boxes, INDICES, SIZE)
    assert tape.gradient(crops, boxes).shape == (4, 4)


def test_a_graph_computes_only_the_gradients_asked_for(
    tensorflow: Any, crop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = record_gradients(monkeypatch)

    @tensorflow.function
    def gradient(image: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            tape.watch(image)
            crops = crop(image, BOXES, INDICES, SIZE)
        return tape.gradient(crops, image)

    assert gradient(tensorflow.constant(IMAGE)).shape == SHAPE
    assert computed == ["image"]


@MODES
def test_nothing_large_is_copied(
    graph: bool, tensorflow: Any, crop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording()
    image = tensorflow.constant(IMAGE)

    def call(image: Any) -> Any:
        return crop(image, BOXES, INDICES, (100, 100))

    with cropkit.use_backend(recording):
        if graph:  # it runs in other threads, where `use_backend` does not reach
            monkeypatch.setattr("cropkit._backends._usable_cpu", lambda: recording)
        result = (tensorflow.function(call) if graph else call)(image)
    assert recording.addresses["image"] == address(image, tensorflow)
    assert recording.addresses["out"] == address(result, tensorflow)


def test_static_shapes(tensorflow: Any, crop: Any) -> None:
    tf = tensorflow
    shapes: list[Any] = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 5, 3]), tf.TensorSpec(None), tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([2], tf.int32),
        ]
    )  # fmt: skip
    def function(image: Any, boxes: Any, indices: Any, size: Any) -> Any:
        shapes.append(crop(image, boxes, indices, size).shape.as_list())
        with tf.GradientTape() as tape:
            tape.watch([image, boxes])
            crops = crop(image, boxes, indices, SIZE)
        shapes.append(crops.shape.as_list())
        shapes.extend(gradient.shape.as_list() for gradient in tape.gradient(crops, [image, boxes]))
        return crop(image, boxes, indices, size)

    result = function(IMAGE, BOXES, INDICES, [2, 9])
    assert shapes == [
        [None, None, None, 3], [None, 4, 7, 3], [None, None, 5, 3], [None, 4],
    ]  # fmt: skip
    np.testing.assert_array_equal(result, cropkit.crop_and_resize(IMAGE, BOXES, INDICES, (2, 9)))


@MODES
def test_bad_arguments(graph: bool, tensorflow: Any, crop: Any) -> None:
    def fails(errors: Any, text: str, **changed: Any) -> None:
        arguments: dict[str, Any] = {
            "image": IMAGE, "boxes": BOXES, "box_indices": INDICES, "crop_size": SIZE,
        }  # fmt: skip
        function = tensorflow.function(crop) if graph else crop
        with pytest.raises(errors, match=text):
            function(**(arguments | changed))

    in_graph = tensorflow.errors.OpError
    fails(ValueError, "must be rank 4|expected 4 axes", image=IMAGE[0])
    fails((ValueError, in_graph), r"boxes\[0\] = \[nan", boxes=BOXES * np.float32(np.nan))
    fails((IndexError, in_graph), r"box_indices\[0\] = 2: expected an", box_indices=INDICES + 1)
    fails((ValueError, in_graph), r"crop_size=\(0, 3\): both must be", crop_size=(0, 3))
    fails(ValueError, "method='cubic': expected 'bilinear' or 'nearest'", method="cubic")
    fails(TypeError, "num_threads='2': expected a positive integer", num_threads="2")
    fails(TypeError, "dtype=float16: expected float32 or float64", dtype="float16")
    fails((MemoryError, in_graph), "larger than this machine's memory", crop_size=(10**9, 10**9))


@MODES
def test_empty_crops(graph: bool, tensorflow: Any, crop: Any) -> None:
    def gradient(image: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            tape.watch(image)
            crops = crop(image, np.zeros((0, 4)), [], SIZE)
        return crops, tape.gradient(crops, image)

    crops, of_image = (tensorflow.function(gradient) if graph else gradient)(
        tensorflow.constant(IMAGE)
    )
    assert crops.shape == (0, *SIZE, 3)
    np.testing.assert_array_equal(of_image, np.zeros(SHAPE, np.float32))


@MODES
def test_a_second_derivative_is_refused(graph: bool, tensorflow: Any, crop: Any) -> None:
    def second(boxes: Any) -> Any:
        with tensorflow.GradientTape() as outer:
            outer.watch(boxes)
            with tensorflow.GradientTape() as inner:
                inner.watch(boxes)
                loss = tensorflow.reduce_sum(crop(IMAGE, boxes, INDICES, SIZE))
            first = tensorflow.reduce_sum(inner.gradient(loss, boxes))
        return outer.gradient(first, boxes)

    with pytest.raises(NotImplementedError, match="cannot be differentiated again"):
        (tensorflow.function(second) if graph else second)(tensorflow.constant(BOXES))
