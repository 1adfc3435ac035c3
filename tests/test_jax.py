"""JAX: arrays in the plain functions, and `cropkit.jax` (``make test-full``)."""

import importlib
import json
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit

from .support.cases import DTYPES, METHODS, dtype_of, pixels
from .support.children import python
from .support.frameworks import BOXES, GRADS, IMAGE, INDICES, SHAPE, SIZE, record_gradients
from .support.recording import Recording

pytestmark = pytest.mark.frameworks

# Without 64 bits in JAX.
SHORT_DTYPES: Final = [dtype for dtype in DTYPES if dtype_of(dtype).itemsize < 8]


@pytest.fixture(params=["buffer", "pure"])
def crop(request: pytest.FixtureRequest, jax: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return `cropkit.jax.crop_and_resize`, on both routes out of JAX."""
    module = importlib.import_module("cropkit.jax")
    assert module.buffer_callback is not None, "this release of JAX has only one of the routes"
    if request.param == "pure":
        monkeypatch.setattr(module, "buffer_callback", None)
    jax.clear_caches()
    return module.crop_and_resize


def of_image(grads: Any, boxes: Any, **options: Any) -> NDArray[Any]:
    return cropkit.crop_and_resize_grad_image(grads, boxes, INDICES, SHAPE, **options)


def of_boxes(grads: Any, image: Any, boxes: Any) -> NDArray[Any]:
    return cropkit.crop_and_resize_grad_boxes(grads, image, boxes, INDICES)


# ---- the plain functions -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SHORT_DTYPES)
def test_arrays_go_in_and_come_out_without_copies(dtype: str, jax: Any, bits_equal: Any) -> None:
    image = pixels(SHAPE, dtype)
    given = jax.numpy.asarray(image)
    recording = Recording()
    result = cropkit.crop_and_resize(
        given, jax.numpy.asarray(BOXES), jax.numpy.asarray(INDICES), SIZE, backend=recording
    )
    assert isinstance(result, jax.Array)
    assert recording.addresses["image"] == given.unsafe_buffer_pointer()
    assert recording.addresses["out"] == result.unsafe_buffer_pointer()
    bits_equal(np.asarray(result), cropkit.crop_and_resize(image, BOXES, INDICES, SIZE))
    gradient = cropkit.crop_and_resize_grad_image(
        jax.numpy.asarray(GRADS), BOXES, INDICES, SHAPE, dtype=given.dtype, backend=recording
    )
    assert recording.addresses["out"] == gradient.unsafe_buffer_pointer()
    bits_equal(np.asarray(gradient), of_image(GRADS, BOXES, dtype=given.dtype))


def test_64_bits_are_rounded_by_nobody(jax: Any) -> None:
    text = (
        r'dtype=float64: JAX would round it to 32 bits; jax.config.update\("jax_enable_x64", True\)'
    )
    with pytest.raises(TypeError, match=text):
        cropkit.crop_and_resize(jax.numpy.asarray(IMAGE), BOXES, INDICES, SIZE, dtype="float64")
    out = np.zeros((4, *SIZE, 3))
    result = cropkit.crop_and_resize(
        jax.numpy.asarray(IMAGE), BOXES, INDICES, SIZE, dtype="float64", out=out
    )
    assert result is out
    code = """
import json, sys
import numpy as np, jax
import cropkit, cropkit.jax
jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
image, boxes, grads = rng.random((2, 6, 5, 3)), rng.random((4, 4)), rng.random((4, 4, 7, 3))
plain = cropkit.crop_and_resize(jax.numpy.asarray(image), boxes, [0, 1, 1, 0], (4, 7))
double = cropkit.crop_and_resize(
    jax.numpy.asarray(image), boxes, [0, 1, 1, 0], (4, 7), dtype="float64")
def loss(image, boxes):
    return (cropkit.jax.crop_and_resize(image, boxes, [0, 1, 1, 0], (4, 7)) * grads).sum()
of_image, of_boxes = jax.jit(jax.grad(loss, (0, 1)))(image, boxes)
expected = (
    cropkit.crop_and_resize_grad_image(grads, boxes, [0, 1, 1, 0], image.shape, dtype="float64"),
    cropkit.crop_and_resize_grad_boxes(grads, image, boxes, [0, 1, 1, 0], dtype="float64"))
from jax.test_util import check_grads
check_grads(loss, (image, boxes), order=1, modes=["rev"])
json.dump([str(plain.dtype), str(double.dtype), str(of_image.dtype), str(of_boxes.dtype),
           [np.array_equal(a, b) for a, b in zip((of_image, of_boxes), expected)]], sys.stdout)
"""
    assert json.loads(python(code).stdout) == ["float32", *["float64"] * 3, [True, True]]


def test_arrays_are_never_written_to(jax: Any) -> None:
    with pytest.raises(ValueError, match="out is read-only"):
        cropkit.crop_and_resize(IMAGE, BOXES, INDICES, SIZE, out=jax.numpy.zeros((4, *SIZE, 3)))


def test_what_is_traced_is_told_where_to_go(jax: Any) -> None:
    text = (
        "image: expected an array: what JAX traces is for cropkit.jax.crop_and_resize, which "
        "works under jit, grad and vmap"
    )
    for transform in (jax.jit, jax.grad, jax.vmap):
        with pytest.raises(TypeError, match=text):
            transform(lambda image: cropkit.crop_and_resize(image, BOXES, INDICES, SIZE))(IMAGE)


# ---- cropkit.jax ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", SHORT_DTYPES)
def test_the_bits_are_those_of_the_plain_functions(
    dtype: str, method: str, crop: Any, jax: Any, bits_equal: Any
) -> None:
    image = pixels(SHAPE, dtype)
    expected = cropkit.crop_and_resize(image, BOXES, INDICES, SIZE, method, -3.5)

    def function(image: Any, boxes: Any, indices: Any) -> Any:
        return crop(image, boxes, indices, SIZE, method, -3.5)

    for run in (function, jax.jit(function)):
        bits_equal(np.asarray(run(image, BOXES, INDICES)), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("method", METHODS)
def test_gradients(dtype: str, method: str, crop: Any, jax: Any, bits_equal: Any) -> None:
    image = pixels(SHAPE, dtype)

    def loss(image: Any, boxes: Any) -> Any:
        return (crop(image, boxes, INDICES, SIZE, method) * GRADS).sum()

    for transform in (jax.grad, lambda *a: jax.jit(jax.grad(*a))):
        by_image, by_boxes = transform(loss, (0, 1))(image, BOXES)
        bits_equal(np.asarray(by_image), of_image(GRADS, BOXES, method=method, dtype=image.dtype))
        bits_equal(np.asarray(by_boxes), of_boxes(GRADS, image, BOXES))


def test_only_the_gradients_asked_for_are_computed(
    crop: Any, jax: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = record_gradients(monkeypatch)
    jax.block_until_ready(jax.grad(lambda image: crop(image, BOXES, INDICES, SIZE).sum())(IMAGE))
    jax.block_until_ready(jax.grad(lambda boxes: crop(IMAGE, boxes, INDICES, SIZE).sum())(BOXES))
    assert computed == ["image", "boxes"]


IMAGES: Final = pixels((5, *SHAPE), "float32", 2)
MANY_BOXES: Final = np.random.default_rng(0).uniform(-0.1, 1.1, (5, 4, 4)).astype(np.float32)
MANY_INDICES: Final = np.random.default_rng(1).integers(0, 2, (5, 4)).astype(np.int32)


@pytest.mark.parametrize("axes", [(0, 0, 0), (None, 0, None), (0, None, None), (None, None, 0)])
def test_vmap(axes: tuple[int | None, ...], crop: Any, jax: Any, bits_equal: Any) -> None:
    given = [
        many if axis == 0 else many[0]
        for many, axis in zip((IMAGES, MANY_BOXES, MANY_INDICES), axes, strict=True)
    ]

    def forward(image: Any, boxes: Any, indices: Any) -> Any:
        return crop(image, boxes, indices, SIZE)

    def loss(image: Any, boxes: Any, indices: Any) -> Any:
        return (forward(image, boxes, indices) * GRADS).sum()

    crops = jax.jit(jax.vmap(forward, axes))(*given)
    by_image, by_boxes = jax.vmap(jax.grad(loss, (0, 1)), axes)(*given)
    for n in range(5):
        image, boxes, indices = (
            many[n] if axis == 0 else many for many, axis in zip(given, axes, strict=True)
        )
        bits_equal(np.asarray(crops[n]), cropkit.crop_and_resize(image, boxes, indices, SIZE))
        bits_equal(
            np.asarray(by_image[n]),
            cropkit.crop_and_resize_grad_image(GRADS, boxes, indices, SHAPE),
        )
        bits_equal(
            np.asarray(by_boxes[n]),
            cropkit.crop_and_resize_grad_boxes(GRADS, image, boxes, indices),
        )


def test_vmap_in_vmap(crop: Any, jax: Any, bits_equal: Any) -> None:
    """Images along one axis, boxes along the other; the last axis of an array, too."""
    grid = jax.vmap(
        lambda image: jax.vmap(lambda boxes: crop(image, boxes, INDICES, SIZE), 2)(
            MANY_BOXES.transpose(1, 2, 0)
        )
    )(IMAGES[:3])
    assert grid.shape == (3, 5, 4, *SIZE, 3)
    for i in range(3):
        for j in range(5):
            expected = cropkit.crop_and_resize(IMAGES[i], MANY_BOXES[j], INDICES, SIZE)
            bits_equal(np.asarray(grid[i, j]), expected)


def test_an_index_reaches_no_other_image_of_a_mapped_axis(crop: Any, jax: Any) -> None:
    indices = np.array([0, 2, 0, 0], np.int32)  # the first image of the next in the stack
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"box_indices\[1\] = 2: expected .* 2 im"):
        jax.block_until_ready(
            jax.jit(jax.vmap(lambda image, i: crop(image, BOXES, i, SIZE), (0, None)))(
                IMAGES, indices
            )
        )


def test_empty_crops(crop: Any, jax: Any) -> None:
    none = np.zeros((0, 4), np.float32)
    assert crop(IMAGE, none, np.zeros(0, np.int32), SIZE).shape == (0, *SIZE, 3)
    gradient = jax.grad(lambda image: crop(image, none, np.zeros(0, np.int32), SIZE).sum())(IMAGE)
    assert not np.asarray(gradient).any()
    assert jax.vmap(lambda b: crop(IMAGE, b, np.zeros(0, np.int32), SIZE))(
        np.zeros((3, 0, 4), np.float32)
    ).shape == (3, 0, *SIZE, 3)  # fmt: skip


def arguments(**changed: Any) -> dict[str, Any]:
    given = {"image": IMAGE, "boxes": BOXES, "box_indices": INDICES, "crop_size": SIZE}
    return given | changed


BAD_OPTIONS: Final = [
    (ValueError, "box_indices is None, num_boxes is 4 and batch is 2", {"box_indices": None}),
    (ValueError, r"crop_size=\(0, 3\): both must be at least 1", {"crop_size": (0, 3)}),
    (ValueError, "method='cubic': expected 'bilinear' or 'nearest'", {"method": "cubic"}),
    (TypeError, "extrapolation_value=None: expected a real", {"extrapolation_value": None}),
    (TypeError, "num_threads='2': expected a positive integer", {"num_threads": "2"}),
    (TypeError, "dtype=float64 needs 64 bits in JAX: ", {"dtype": "float64"}),
]


@pytest.mark.parametrize(("error", "text", "changed"), BAD_OPTIONS)
def test_bad_options(error: type[Exception], text: str, changed: dict[str, Any], crop: Any) -> None:
    with pytest.raises(error, match=text):
        crop(**arguments(**changed))


BAD_SHAPES: Final = [
    (ValueError, r"image has shape \(6, 5, 3\): expected 4 axes", "image", IMAGE[0]),
    (ValueError, r"image has shape \(2, 0, 5, 3\): height and width must", "image", IMAGE[:, :0]),
    (ValueError, r"image has shape \(2, 6, 0, 3\): height", "image", IMAGE[:, :, :0]),
    (TypeError, "image has dtype complex64: expected one of bool", "image", IMAGE + 0j),
    (ValueError, r"boxes has shape \(4,\): expected \[num_boxes, 4\]", "boxes", BOXES[0]),
    (ValueError, r"boxes has shape \(4, 5\): expected", "boxes", np.zeros((4, 5), np.float32)),
    (TypeError, "boxes has dtype complex64: expected real numbers", "boxes", BOXES + 0j),
    (TypeError, "boxes has dtype bool: expected real numbers", "boxes", BOXES > 0),
    (ValueError, r"box_indices has shape \(3,\): expected \(4,\)", "box_indices", INDICES[:3]),
    (TypeError, "box_indices has dtype float32: expected integers", "box_indices",
     INDICES.astype(np.float32)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text", "name", "value"), BAD_SHAPES)
def test_shapes_and_dtypes_are_checked_when_traced(
    error: type[Exception], text: str, name: str, value: Any, crop: Any, jax: Any
) -> None:
    def function(value: Any) -> Any:
        return crop(**arguments(**{name: value}))

    with pytest.raises(error, match=text):
        jax.eval_shape(function, value)  # nothing is ever called back
    for given in (value, jax.numpy.asarray(value)):
        with pytest.raises(error, match=text):
            function(given)


# JAX without x64 would make each of the first ones another value, and say nothing.
BAD_VALUES: Final = [
    (IndexError, r"box_indices\[0\] = 4294967296: expected", "box_indices", [2**32, 0, 0, 0]),
    (IndexError, r"box_indices\[1\] = 4294967297: expected", "box_indices",
     np.array([0, 2**32 + 1, 0, 0])),
    (IndexError, r"box_indices\[0\] = 9223372036854775809: expected", "box_indices",
     np.array([2**63 + 1, 0, 0, 0], np.uint64)),
    (ValueError, r"image\[0, 1, 0, 0\] = 8589934597: JAX would cut it to 32 bits; "
     r'jax.config.update\("jax_enable_x64", True\) allows 64', "image",
     np.array([0, 2**33 + 5] * 2).reshape(2, 2, 1, 1)),
    (ValueError, r"image\[0, 0, 0, 0\] = 4294967296: JAX would cut it", "image",
     np.full((2, 1, 1, 1), 2**32, np.uint64)),
    (ValueError, r"image\[0, 0, 0, 0\] = -2147483649: JAX would cut it", "image",
     [[[[-(2**31) - 1]]]] * 2),
    (ValueError, r"boxes\[0\] = \[1e\+300, .*must be finite in float32", "boxes",
     np.full((4, 4), 1e300)),
    (ValueError, r"boxes\[0\] = \[nan, .*must be finite", "boxes", BOXES * np.float32(np.nan)),
    (IndexError, r"box_indices\[0\] = 2: expected", "box_indices", INDICES + 1),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text", "name", "value"), BAD_VALUES)
def test_values_are_checked_before_jax_converts(
    error: type[Exception], text: str, name: str, value: Any, crop: Any, jax: Any
) -> None:
    for run in (lambda f: f, jax.jit):
        with pytest.raises(error, match=text):
            run(lambda: crop(**arguments(**{name: value})))()


def test_values_that_are_traced_are_checked_in_the_callback(crop: Any, jax: Any) -> None:
    for text, name, value in (
        (r"boxes\[0\] = \[nan", "boxes", BOXES * np.float32(np.nan)),
        (r"box_indices\[0\] = 2", "box_indices", INDICES + 1),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match=text):
            jax.block_until_ready(
                jax.jit(lambda value, name=name: crop(**arguments(**{name: value})))(value)
            )


def test_values_of_64_bits_that_32_hold(crop: Any, bits_equal: Any) -> None:
    """What NumPy makes of plain numbers stays allowed; boxes are never cut as integers."""
    image = np.arange(-30, 30).reshape(2, 6, 5, 1)
    for given in (image, image.tolist(), image.astype(">i8"), image.astype(float)):
        result = crop(given, BOXES.astype(float), INDICES.tolist(), SIZE)
        bits_equal(np.asarray(result), cropkit.crop_and_resize(image, BOXES, INDICES, SIZE))
    far = np.array([[2**32, 0, 2**32, 0]])
    assert np.asarray(crop(image[:1], far, None, (1, 1), extrapolation_value=7.0)) == 7


def test_no_boxes_in_lists(crop: Any) -> None:
    assert crop(IMAGE, np.zeros((0, 4)), [], SIZE).shape == (0, *SIZE, 3)


def test_traced_numbers_in_a_list(crop: Any, jax: Any, bits_equal: Any) -> None:
    def loss(y: Any) -> Any:
        return (crop(IMAGE, [[y, 0.25, 1.0, 0.5]], [1], SIZE) * GRADS[:1]).sum()

    boxes = np.array([[0.125, 0.25, 1, 0.5]], np.float32)
    expected = cropkit.crop_and_resize_grad_boxes(GRADS[:1], IMAGE, boxes, [1])[0, 0]
    bits_equal(np.asarray(jax.grad(loss)(0.125)), np.asarray(expected))


@pytest.mark.parametrize("name", ["image", "boxes", "box_indices"])
def test_a_deleted_array_is_named(name: str, crop: Any, jax: Any) -> None:
    deleted = jax.numpy.array(arguments()[name])
    deleted.delete()
    given = arguments(**{name: deleted})
    for function in (crop, cropkit.crop_and_resize, jax.jit(lambda: crop(**given))):
        with pytest.raises(ValueError, match=f"^{name}: expected an array: .* has been deleted"):
            function(**given) if function in (crop, cropkit.crop_and_resize) else function()


def test_random_keys_are_no_image(crop: Any, jax: Any) -> None:
    with pytest.raises(TypeError, match="image has dtype key<fry>: expected numbers"):
        crop(**arguments(image=jax.random.key(0)))
