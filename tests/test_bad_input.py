"""What is wrong with a call is said before any work is done; what is merely odd works.

Each error is checked by its text: the argument, the first offending entry, what was
expected.
"""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend

from .support.cases import DTYPES, dtype_of, pixels

IMAGE = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
BOX = [[0.0, 0.0, 1.0, 1.0]]


def call(**changed: Any) -> NDArray[Any]:
    """Make a good call with some arguments changed."""
    arguments: dict[str, Any] = {
        "image": IMAGE, "boxes": BOX, "box_indices": [0], "crop_size": (2, 3), **changed,
    }  # fmt: skip
    return cropkit.crop_and_resize(**arguments)


def fails(error: type[Exception], text: str, **changed: Any) -> None:
    """Assert that the call raises exactly `error`, with `text` in its message."""
    with pytest.raises(error, match=re.escape(text)) as caught:
        call(**changed)
    assert caught.type is error
    # One line, and none of NumPy's or Python's own messages in front.
    assert len(str(caught.value)) < 400


def test_the_unchanged_call_is_good(each_backend: Backend) -> None:
    assert call(backend=each_backend).shape == (1, 2, 3, 3)


class Odd(np.ndarray[Any, Any]):
    """An array that the compiled look at a whole call leaves to the checks of each argument."""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_a_plain_call_is_checked_like_any_other(dtype: str, index_dtype: str) -> None:
    boxes = np.zeros((3, 4), dtype)
    good: dict[str, Any] = {
        "image": IMAGE, "boxes": boxes, "box_indices": np.array([0, 1, 1], index_dtype),
        "crop_size": (2, 3), "dtype": dtype,
    }  # fmt: skip
    nan, inf = boxes.copy(), boxes.copy()
    nan[2, 3], inf[0, 0] = np.nan, -np.inf
    wrong: list[dict[str, Any]] = [
        {"image": IMAGE[0]}, {"image": IMAGE[:, :0]}, {"image": IMAGE[:, :, :0]},
        {"image": IMAGE.astype("c8")}, {"image": IMAGE.astype("S3")}, {"image": IMAGE[:0]},
        {"boxes": nan}, {"boxes": inf}, {"boxes": boxes[:2]}, {"boxes": boxes[:, :3]},
        {"boxes": boxes[0]}, {"box_indices": np.array([0, 1, 2], index_dtype)},
        {"box_indices": np.array([0, -1, 0], index_dtype)}, {"box_indices": np.zeros((3, 1), int)},
        {"crop_size": (0, 1)}, {"crop_size": (1, -1)}, {"crop_size": (1, 1, 1)},
        {"crop_size": (1, 1.5)},
    ]  # fmt: skip
    call(**good)
    for changed in wrong:
        with pytest.raises((ValueError, IndexError, TypeError)) as plain:
            call(**good | changed)
        odd = {
            name: value.view(Odd) if isinstance(value, np.ndarray) else value
            for name, value in (good | changed).items()
        }
        with pytest.raises((ValueError, IndexError, TypeError)) as other:
            call(**odd)
        assert (plain.type, str(plain.value)) == (other.type, str(other.value))


# ---- shapes --------------------------------------------------------------------------------


def test_image_shape() -> None:
    fails(ValueError, "image has shape (4, 5, 3): expected 4 axes, [batch, height, width, depth]; "
          "for one image, image[None] adds the batch axis", image=IMAGE[0])  # fmt: skip
    fails(ValueError, "image has shape (5, 3): expected 4 axes", image=IMAGE[0, 0])
    fails(ValueError, "image has shape (): expected 4 axes", image=1.5)
    fails(ValueError, "image has shape (1, 2, 4, 5, 3): expected 4 axes", image=IMAGE[None])
    text = "height and width must be at least 1"
    fails(ValueError, f"image has shape (2, 0, 5, 3): {text}", image=IMAGE[:, :0])
    fails(ValueError, f"image has shape (2, 4, 0, 3): {text}", image=IMAGE[:, :, :0])


@pytest.mark.parametrize(
    "boxes",
    [[], [0, 0, 1, 1], [[0, 0, 1]], [[0, 0, 1, 1, 1]], [[[0, 0, 1, 1]]], np.zeros((4, 0)), 3],
)
def test_boxes_shape(boxes: Any) -> None:
    shape = np.shape(boxes)
    fails(ValueError, f"boxes has shape {shape}: expected [num_boxes, 4], each [y1, x1, y2, x2]",
          boxes=boxes, box_indices=[0] * len(np.atleast_1d(boxes)))  # fmt: skip


@pytest.mark.parametrize("indices", [[], [0, 1], [[0]], 0, np.zeros((1, 1), int)])
def test_box_indices_shape(indices: Any) -> None:
    shape = np.shape(indices)
    fails(ValueError, f"box_indices has shape {shape}: expected (1,), one index for each box",
          box_indices=indices)  # fmt: skip


def test_ragged_lists() -> None:
    fails(ValueError, "boxes: expected an array: ", boxes=[[0, 0, 1, 1], [0]], box_indices=[0, 0])
    fails(ValueError, "box_indices: expected an array: ", box_indices=[[0], [0, 1]])
    fails(ValueError, "image: expected an array: ", image=[[1], [1, 2]])


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((0, 3), "crop_size=(0, 3): both must be at least 1"),
        ((2, -1), "crop_size=(2, -1): both must be at least 1"),
        (np.array([3, 0]), "crop_size=(3, 0): both must be at least 1"),
        ((), "crop_size=(): expected two positive integers, (crop_height, crop_width)"),
        ((2,), "crop_size=(2,): expected two positive integers"),
        ([2, 3, 3], "crop_size=[2, 3, 3]: expected two positive integers"),
        (7, "crop_size=7: expected two positive integers"),
        (IMAGE, f"crop_size has shape {IMAGE.shape}: expected two positive integers"),
    ],
)
def test_crop_size_values(size: Any, text: str) -> None:
    fails(ValueError, text, crop_size=size)


@pytest.mark.parametrize(
    "size",
    [(2.0, 3), (2, 2.5), np.array([2.0, 3.0]), "23", b"23", ("2", "3"), None, {2, 3}, (2, None),
     (2, np.nan), [[2, 3], [4, 5]], (2 + 0j, 3)],
)  # fmt: skip
def test_crop_size_types(size: Any) -> None:
    fails(TypeError, "expected two positive integers, (crop_height, crop_width)", crop_size=size)


@pytest.mark.parametrize(
    "size", [[2, 3], np.array([2, 3], np.uint8), (np.int32(2), np.int64(3)), range(2, 4)]
)
def test_crop_size_of_other_kinds(size: Any) -> None:
    assert call(crop_size=size).shape == (1, 2, 3, 3)


# ---- values --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("boxes_dtype", ["float16", "float32", "float64", ">f4"])
def test_boxes_that_are_not_finite(value: float, dtype: str, boxes_dtype: str) -> None:
    for column in range(4):
        boxes = np.zeros((30, 4), boxes_dtype)
        boxes[17:19, column] = value
        listed = boxes[17].tolist()
        fails(ValueError, f"boxes[17] = {listed}: box coordinates must be finite",
              boxes=boxes, box_indices=[0] * 30, dtype=dtype)  # fmt: skip


def test_boxes_that_float32_cannot_hold(each_backend: Backend) -> None:
    boxes = [[0, 0, 1, 1], [0, 0, -1e40, 1]]
    fails(ValueError, "boxes[1] = [0.0, 0.0, -1e+40, 1.0]: box coordinates must be finite in "
          "float32", boxes=boxes, box_indices=[0, 0], backend=each_backend)  # fmt: skip
    result = call(boxes=boxes, box_indices=[0, 0], dtype=np.float64, backend=each_backend)
    np.testing.assert_array_equal(result[1, 0], IMAGE[0, 0, ::2])
    np.testing.assert_array_equal(result[1, 1], np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("indices", "bad", "value"),
    [([0, 1, 2], 2, 2), ([0, -1, 5], 1, -1), (np.array([0, 0, 2**63], np.uint64), 2, 2**63),
     (np.array([-(2**63), 0, 0]), 0, -(2**63)), (np.array([1, 200, 0], np.uint8), 1, 200)],
)  # fmt: skip
def test_index_of_no_image(indices: Any, bad: int, value: int) -> None:
    fails(IndexError, f"box_indices[{bad}] = {value}: expected an index of one of the 2 images, "
          "0 <= index < 2", boxes=BOX * 3, box_indices=indices)  # fmt: skip


def test_batch_of_no_images() -> None:
    fails(IndexError, "box_indices[0] = 0: expected an index of one of the 0 images",
          image=IMAGE[:0])  # fmt: skip


def test_box_indices_none(each_backend: Backend) -> None:
    boxes = [[0, 0, 1, 1], [0, 0, 0.5, 0.5], [1, 1, 0, 0]]
    one = call(image=IMAGE[1:], boxes=boxes, box_indices=None, backend=each_backend)
    given = call(image=IMAGE[1:], boxes=boxes, box_indices=[0, 0, 0], backend=each_backend)
    np.testing.assert_array_equal(one, given)
    each = call(boxes=boxes[:2], box_indices=None, backend=each_backend)
    given = call(boxes=boxes[:2], box_indices=[0, 1], backend=each_backend)
    np.testing.assert_array_equal(each, given)
    assert call(boxes=np.zeros((0, 4)), image=IMAGE[:0], box_indices=None).shape == (0, 2, 3, 3)
    assert call(boxes=np.zeros((0, 4)), image=IMAGE[:1], box_indices=None).shape == (0, 2, 3, 3)
    for count in (0, 1, 3):
        fails(ValueError, f"box_indices is None, num_boxes is {count} and batch is 2: expected an "
              "index for each box unless there is one image, or one box per image",
              boxes=np.zeros((count, 4)), box_indices=None)  # fmt: skip


@pytest.mark.parametrize("method", ["cubic", "", "BILINEAR", None, 1, np.array(["nearest"] * 2)])
def test_method(method: Any) -> None:
    fails(ValueError, "expected 'bilinear' or 'nearest'", method=method)


# ---- types ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["complex64", "complex128", "object", "U3", "S3", "M8[s]", "m8[s]", "V4", "longdouble"]
)
def test_image_dtype(dtype: str) -> None:
    image = np.zeros((1, 4, 5, 3), dtype)
    fails(TypeError, f"image has dtype {image.dtype}: expected one of bool, uint8, ", image=image)


def test_image_of_records_named_like_a_dtype() -> None:
    record = np.dtype([("uint8", np.uint8)])
    fails(TypeError, "image has dtype", image=np.zeros((1, 4, 5, 3), record))


@pytest.mark.parametrize("dtype", ["complex64", "object", "U3", "bool", "M8[s]"])
def test_boxes_dtype(dtype: str) -> None:
    boxes = np.zeros((1, 4), dtype)
    fails(TypeError, f"boxes has dtype {boxes.dtype}: expected real numbers", boxes=boxes)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "object", "U3", "bool"])
def test_box_indices_dtype(dtype: str) -> None:
    indices = np.zeros(1, dtype)
    fails(TypeError, f"box_indices has dtype {indices.dtype}: expected integers",
          box_indices=indices)  # fmt: skip


def test_fractional_box_indices() -> None:
    fails(TypeError, "box_indices has dtype float64: expected integers", box_indices=[0.5])
    fails(TypeError, "box_indices has dtype object: expected integers", box_indices=[2**70])


def test_things_that_are_no_array() -> None:
    for value in (None, object(), {"a": 1}):
        fails(TypeError, "image has dtype object", image=value)
        fails(TypeError, "boxes has dtype object", boxes=value)
    fails(TypeError, "box_indices has dtype object", box_indices=object())
    fails(TypeError, "image has dtype <U5", image="photo")


class Nullable:
    """A column or a frame that may lack entries, which NumPy therefore sees as objects."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return self.values.astype(object)

    def to_numpy(self, dtype: Any) -> NDArray[Any]:
        return self.values.astype(dtype)


def test_nullable_columns() -> None:
    good: dict[str, Any] = {"image": IMAGE, "boxes": BOX, "box_indices": [0], "grads": IMAGE[:1]}

    def object_fails(name: str, text: str, code: str, function: Any, **other: Any) -> None:
        text = f'{name} has dtype object: expected {text}; {name}.to_numpy("{code}") converts'
        with pytest.raises(TypeError, match=re.escape(text)):
            function(**other | {name: Nullable(good[name])})
        function(**other | {name: Nullable(good[name]).to_numpy(code)})  # as the text says

    pixels_ = (
        "one of bool, uint8, int8, uint16, int16, uint32, int32, uint64, int64, float16, "
        "bfloat16, float32, float64"
    )
    forward = {name: good[name] for name in ("image", "boxes", "box_indices")}
    forward["crop_size"] = (2, 3)
    back = {name: good[name] for name in ("grads", "boxes", "box_indices")}
    functions: list[tuple[Any, dict[str, Any]]] = [
        (cropkit.crop_and_resize, forward),
        (cropkit.crop_and_resize_grad_image, back | {"image_size": IMAGE.shape}),
        (cropkit.crop_and_resize_grad_boxes, back | {"image": IMAGE}),
    ]
    for function, other in functions:
        for name in ("image", "grads"):
            if name in other:
                object_fails(name, pixels_, "f4", function, **other)
        object_fails("boxes", "real numbers", "f4", function, **other)
        object_fails("boxes", "real numbers", "f8", function, **other, dtype=np.float64)
        object_fails("box_indices", "integers", np.dtype(np.intp).str[1:], function, **other)
    with pytest.raises(TypeError, match=r"expected real numbers$"):
        call(boxes=Nullable(BOX).to_numpy(object))


class Raising:
    """Fails to become an array, as objects of other libraries do."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        raise TypeError("can't convert a tensor on another device")


def test_arrays_that_cannot_be_converted() -> None:
    for name in ("image", "boxes", "box_indices"):
        text = f"{name}: expected an array: can't convert a tensor on another device"
        fails(TypeError, text, **{name: Raising()})


@pytest.mark.parametrize("dtype", ["float16", "int32", "uint8", ">f4", "no such", int, object()])
def test_result_dtype(dtype: Any) -> None:
    fails(TypeError, ": expected float32 or float64", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", np.float64, float, np.dtype("f8"), "d"])
def test_result_dtype_spellings(dtype: Any) -> None:
    assert call(dtype=dtype).dtype == np.float64


@pytest.mark.parametrize("count", [0, -1, -(2**70)])
def test_num_threads_values(count: int, each_backend: Backend) -> None:
    fails(ValueError, f"num_threads={count}: expected at least 1",
          num_threads=count, backend=each_backend)  # fmt: skip


@pytest.mark.parametrize("count", [1.5, 2.0, "2", (2,)])
def test_num_threads_types(count: Any) -> None:
    fails(TypeError, f"num_threads={count!r}: expected a positive integer or None",
          num_threads=count)  # fmt: skip


def test_more_threads_than_any_machine_has(each_backend: Backend) -> None:
    np.testing.assert_array_equal(
        call(num_threads=2**70, backend=each_backend), call(num_threads=1, backend=each_backend)
    )


@pytest.mark.parametrize("value", [None, "1", b"1", 1j, np.complex64(1), [1.0, 2.0], object()])
def test_extrapolation_value_types(value: Any) -> None:
    fails(TypeError, ": expected a real number", extrapolation_value=value)


def test_extrapolation_value_too_large() -> None:
    fails(ValueError, "extrapolation_value is too large", extrapolation_value=10**400)


@pytest.mark.parametrize("value", [2, np.float32(2), np.int8(2), np.array(2.0), True + True])
def test_extrapolation_value_of_other_kinds(value: Any, each_backend: Backend) -> None:
    result = call(boxes=[[3, 3, 3, 3]], extrapolation_value=value, backend=each_backend)
    assert (result == 2).all()


# ---- size ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [(2065374891, 1145309325), (2**31, 2**31), (10**6, 10**7), (2**63, 1), (10**200, 10**200)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_result_larger_than_memory(
    size: tuple[int, int], dtype: str, each_backend: Backend
) -> None:
    text = r"takes \d+ MiB and is larger than this machine's memory, \d+ MiB"
    with pytest.raises(MemoryError, match=text):
        call(crop_size=size, dtype=dtype, backend=each_backend)


def test_empty_result_with_impossible_axes(each_backend: Backend) -> None:
    """NumPy has no such array, although it would hold nothing."""
    with pytest.raises(MemoryError, match="is larger than"):
        call(boxes=np.zeros((0, 4)), box_indices=[], crop_size=(2**40, 2**40), backend=each_backend)
    with pytest.raises(MemoryError, match="is larger than"):
        call(image=IMAGE[..., :0], crop_size=(2**70, 1), backend=each_backend)


def test_nothing_is_allocated_for_a_result_larger_than_memory() -> None:
    program = """if True:
        import resource, numpy, cropkit
        image = numpy.zeros((1, 4, 5, 3), numpy.float32)
        cropkit.crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 3))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pages = open("/proc/self/statm").read().split()[0]
        for size in ((2065374891, 1145309325), (10**6, 10**7)):
            try:
                cropkit.crop_and_resize(image, [[0, 0, 1, 1]], [0], size)
            except MemoryError:
                pass
            else:
                raise SystemExit("no MemoryError")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        virtual = int(open("/proc/self/statm").read().split()[0]) - int(pages)
        print(grown, virtual)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    resident_kib, virtual_pages = map(int, done.stdout.split())
    assert resident_kib < 4096
    assert virtual_pages < 4096


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_empty_results(dtype: str, each_backend: Backend) -> None:
    def shape(**changed: Any) -> tuple[int, ...]:
        result = call(dtype=dtype, backend=each_backend, **changed)
        assert result.dtype == dtype
        return result.shape

    none: dict[str, Any] = {"boxes": np.zeros((0, 4))}
    assert shape(**none, box_indices=[]) == (0, 2, 3, 3)
    assert shape(**none, box_indices=()) == (0, 2, 3, 3)
    assert shape(**none, box_indices=np.zeros(0, int)) == (0, 2, 3, 3)
    assert shape(**none, box_indices=[], image=IMAGE[:0]) == (0, 2, 3, 3)
    assert shape(image=IMAGE[..., :0]) == (1, 2, 3, 0)
    assert shape(**none, box_indices=[], image=IMAGE[:0, ..., :0]) == (0, 2, 3, 0)


# ---- out -----------------------------------------------------------------------------------


def test_out_that_does_not_fit(each_backend: Backend) -> None:
    def out_fails(error: type[Exception], text: str, out: Any, **changed: Any) -> None:
        fails(error, text, out=out, backend=each_backend, **changed)

    fits = (1, 2, 3, 3)
    out_fails(ValueError, f"out has shape (2, 3, 3): expected {fits}", np.zeros(fits[1:], "f4"))
    out_fails(
        ValueError, f"out has shape (1, 3, 2, 3): expected {fits}", np.zeros((1, 3, 2, 3), "f4")
    )
    out_fails(ValueError, "out has dtype float64: expected float32", np.zeros(fits))
    out_fails(ValueError, "out has dtype uint8: expected float32", np.zeros(fits, np.uint8))
    out_fails(ValueError, "out has dtype >f4: expected float32", np.zeros(fits, ">f4"))
    out_fails(ValueError, "out has dtype float32: expected float64", np.zeros(fits, "f4"),
              dtype=np.float64)  # fmt: skip
    read_only = np.zeros(fits, np.float32)
    read_only.flags.writeable = False
    out_fails(ValueError, "out is read-only", read_only)
    out_fails(TypeError, "out is a list: expected a numpy.ndarray", [[1.0]])
    broadcast = np.lib.stride_tricks.as_strided(np.zeros(9, "f4"), fits, (36, 0, 12, 4))
    out_fails(ValueError, "out has elements that share memory with each other", broadcast)


def test_out_that_overlaps_an_input(each_backend: Backend) -> None:
    memory = np.zeros(400, np.float32)
    image = memory[:180].reshape(1, 6, 10, 3)
    out = memory[179:197].reshape(1, 2, 3, 3)
    fails(ValueError, "out overlaps image: expected memory of its own",
          image=image, out=out, backend=each_backend)  # fmt: skip
    boxes = memory[:4].reshape(1, 4)
    fails(ValueError, "out overlaps boxes", boxes=boxes, out=memory[3:21].reshape(1, 2, 3, 3),
          backend=each_backend)  # fmt: skip
    indices = memory[:2].view(np.intp)
    fails(ValueError, "out overlaps box_indices", box_indices=indices,
          out=memory[1:19].reshape(1, 2, 3, 3), backend=each_backend)  # fmt: skip
    boxes.flags.writeable = indices.flags.writeable = False
    for named in ({"boxes": boxes}, {"box_indices": indices}):
        fails(ValueError, f"out overlaps {next(iter(named))}", **named,
              out=memory[1:19].reshape(1, 2, 3, 3), crop_size=[2, 3],
              backend=each_backend)  # fmt: skip
    assert not memory.any()  # nothing was written


def test_out_between_the_pixels_of_the_image(each_backend: Backend, bits_equal: Any) -> None:
    """One memory, interleaved, and no element in common."""
    memory = pixels((1, 4, 5, 6), "float32", 3)
    image, free = memory[..., :3], memory[..., 3:]
    out = free[:, :2, :3]
    expected = call(image=image.copy(), backend=each_backend)
    assert call(image=image, out=out, backend=each_backend) is out
    bits_equal(out.copy(), expected)


def test_out_right_behind_the_image(each_backend: Backend, bits_equal: Any) -> None:
    memory = pixels((78,), "float32", 3)
    image, out = memory[:60].reshape(1, 4, 5, 3), memory[60:].reshape(1, 2, 3, 3)
    expected = call(image=image.copy(), backend=each_backend)
    bits_equal(call(image=image, out=out, backend=each_backend), expected)


def test_a_failed_call_leaves_out_alone(each_backend: Backend) -> None:
    out = np.full((1, 2, 3, 3), 5, np.float32)
    for wrong in ({"boxes": [[np.nan] * 4]}, {"box_indices": [9]}, {"num_threads": 0}):
        with pytest.raises((ValueError, IndexError)):
            call(out=out, backend=each_backend, **wrong)  # type: ignore[arg-type]
    assert (out == 5).all()


# ---- published failures ------------------------------------------------------------------


def test_huge_edge_with_the_second_of_two_images(each_backend: Backend) -> None:
    fails(ValueError, "boxes[0] = [1e+40, 0.0, 0.0, 0.0]: box coordinates must be finite in "
          "float32", boxes=[[1e40, 0, 0, 0]], box_indices=[1], crop_size=(1, 1),
          backend=each_backend)  # fmt: skip
    result = call(boxes=[[1e40, 0, 0, 0]], box_indices=[1], crop_size=(1, 1), dtype=np.float64,
                  extrapolation_value=3, backend=each_backend)  # fmt: skip
    assert (result == 3).all()


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_boxes_whose_scale_overflows(dtype: str, method: str, each_backend: Backend) -> None:
    image = np.ones((1, 4, 4, 1), dtype_of(dtype))
    tall = np.ones((1, 1000, 4, 3), dtype_of(dtype))
    for pixels_, box, size in (
        (image, [-3e38, 0, 3e38, 1], (3, 3)),
        (tall, [-1e38, 0, 1e38, 1], (3, 3)),
        (tall, [0, -3e38, 1, 3e38], (2, 2)),
        (tall, [3e38, 3e38, 3e38, 3e38], (1, 1)),
        (tall, [3e38, -3e38, -3e38, 3e38], (40, 40)),
    ):
        result = call(image=pixels_, boxes=[box], crop_size=size, method=method,
                      extrapolation_value=-4, backend=each_backend)  # fmt: skip
        assert (result == -4).all()


def test_no_boxes_of_a_wrong_shape(each_backend: Backend) -> None:
    text = "expected [num_boxes, 4], each [y1, x1, y2, x2]; if there are no boxes, (0, 4)"
    fails(ValueError, f"boxes has shape (0,): {text}", boxes=np.zeros(0),
          box_indices=np.zeros(0, int), backend=each_backend)  # fmt: skip
    for indices in (np.zeros((0, 1), int), np.array([0, 1]), np.zeros((0, 0), int)):
        fails(ValueError, f"box_indices has shape {indices.shape}: expected (0,), one index for "
              "each box", boxes=np.zeros((0, 4)), box_indices=indices,
              backend=each_backend)  # fmt: skip
