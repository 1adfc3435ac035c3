"""What the gradients say about bad input, and that odd input harms nothing.

The checks are the forward operator's, so are their texts; what is tested here is that
both gradients make them, and those that are the gradients' own.
"""

import contextlib
import dataclasses
import itertools
import re
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend, _cpu

from .support.cases import (
    DTYPES,
    GEOMETRIES,
    METHODS,
    OUT_LAYOUTS,
    Geometry,
    dtype_of,
    empty_out,
    indices_of,
    memory_of,
    pixels,
)
from .support.guarded import guarded

GRADS = np.arange(2 * 2 * 3 * 3, dtype=np.float32).reshape(2, 2, 3, 3)
IMAGE = pixels((2, 4, 5, 3), "float32")
BOXES = [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.8, 0.7]]
BOTH = pytest.mark.parametrize("which", ["image", "boxes"])


def call(which: str, **changed: Any) -> NDArray[Any]:
    """Make a good call of one gradient with some arguments changed.

    What is changed and not an argument of that gradient is left out; `image` is, for the
    image's gradient, the image whose shape is asked for.
    """
    arguments: dict[str, Any] = {
        "grads": GRADS, "image": IMAGE, "boxes": BOXES, "box_indices": [0, 1], **changed,
    }  # fmt: skip
    image = arguments.pop("image")
    if which == "boxes":
        return cropkit.crop_and_resize_grad_boxes(image=image, **arguments)
    arguments.setdefault("image_size", np.shape(image))
    return cropkit.crop_and_resize_grad_image(**arguments)


def fails(which: str, error: type[Exception], text: str, **changed: Any) -> None:
    """Assert that the call raises exactly `error`, with `text` in its message."""
    with pytest.raises(error, match=re.escape(text)) as caught:
        call(which, **changed)
    assert caught.type is error
    assert len(str(caught.value)) < 400


@BOTH
def test_the_unchanged_call_is_good(which: str, each_backend: Backend) -> None:
    assert call(which, backend=each_backend).shape == (IMAGE.shape if which == "image" else (2, 4))


# ---- calls that are plainly right ----------------------------------------------------------


class Odd(np.ndarray[Any, Any]):
    """An array that the compiled look at a whole call leaves to the checks of each argument."""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_a_plain_call_of_the_boxes_gradient_is_checked_like_any_other(
    dtype: str, index_dtype: str
) -> None:
    boxes, indices = np.array(BOXES, dtype), np.array([0, 1], index_dtype)
    good: dict[str, Any] = {"boxes": boxes, "box_indices": indices, "dtype": dtype}
    nan = boxes.copy()
    nan[1, 3] = np.nan
    wrong: list[dict[str, Any]] = [
        {"grads": GRADS[0]}, {"grads": GRADS[:1]}, {"grads": GRADS[..., :2]},
        {"grads": GRADS[:, :0]}, {"grads": GRADS.astype("c8")}, {"image": IMAGE[0]},
        {"image": IMAGE[:, :, :0]}, {"image": IMAGE[..., :1]}, {"image": IMAGE[:0]},
        {"boxes": nan}, {"boxes": boxes[:1]}, {"boxes": boxes[:, :3]}, {"boxes": boxes[0]},
        {"box_indices": indices + 1}, {"box_indices": indices - 1}, {"box_indices": indices[:1]},
        {"method": "cubic"}, {"num_threads": 0},
    ]  # fmt: skip
    call("boxes", **good)
    for changed in wrong:
        with pytest.raises((ValueError, IndexError, TypeError)) as plain:
            call("boxes", **good | changed)
        odd = {
            name: value.view(Odd) if isinstance(value, np.ndarray) else value
            for name, value in (good | changed).items()
        }
        with pytest.raises((ValueError, IndexError, TypeError)) as other:
            call("boxes", **odd)
        assert (plain.type, str(plain.value)) == (other.type, str(other.value))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plain_call_of_the_boxes_gradient_gives_what_any_other_gives(
    dtype: str, bits_equal: Any
) -> None:
    for geometry, real in itertools.product(GEOMETRIES, (np.float32, np.float64)):
        image = pixels((*geometry.image_shape, 3), dtype, 7)
        boxes, indices = np.array(geometry.boxes, real), np.array(indices_of(geometry))
        grads = pixels((len(boxes), *geometry.crop_size, 3), dtype, 8)
        expected = np.full((len(boxes), 4), -3, real)
        cropkit.crop_and_resize_grad_boxes(
            grads, image, boxes, indices, dtype=real, out=expected, backend="cpu"
        )
        for threads in (None, 1, 2):
            fresh = cropkit.crop_and_resize_grad_boxes(
                grads, image, boxes, indices, dtype=real, num_threads=threads
            )
            bits_equal(fresh, expected, f"{geometry.name}, {threads}")


# ---- gradients ---------------------------------------------------------------------------


@BOTH
def test_grads_shape(which: str) -> None:
    fails(which, ValueError, "grads has shape (2, 3, 3): expected 4 axes, [num_boxes, "
          "crop_height, crop_width, depth]", grads=GRADS[0])  # fmt: skip
    text = "crop_height and crop_width must be at least 1"
    fails(which, ValueError, f"grads has shape (2, 0, 3, 3): {text}", grads=GRADS[:, :0])
    fails(which, ValueError, f"grads has shape (2, 2, 0, 3): {text}", grads=GRADS[:, :, :0])
    fails(which, ValueError, "grads has shape (1, 2, 3, 3) and num_boxes is 2: expected one "
          "crop for each box", grads=GRADS[:1])  # fmt: skip
    source = "image_size" if which == "image" else "image"
    fails(which, ValueError, f"grads has shape (2, 2, 3, 2): expected depth 3, as in {source}",
          grads=GRADS[..., :2])  # fmt: skip


@BOTH
def test_grads_of_other_kinds(which: str) -> None:
    for dtype in (complex, object, "S1", "M8[s]"):
        given = np.zeros(GRADS.shape, dtype)
        fails(which, TypeError, f"grads has dtype {given.dtype}: expected one of bool, uint8",
              grads=given)  # fmt: skip
    fails(which, ValueError, "grads: expected an array: ", grads=[[1], [1, 2]])
    assert call(which, grads=GRADS.tolist()).any()


# ---- what is checked as in the forward operator ----------------------------------------


@BOTH
def test_boxes(which: str) -> None:
    for boxes in ([], [0, 0, 1, 1], np.zeros((2, 3)), np.zeros((2, 4, 1))):
        fails(which, ValueError, f"boxes has shape {np.shape(boxes)}: expected [num_boxes, 4]",
              boxes=boxes)  # fmt: skip
    for value, column in itertools.product((np.nan, np.inf, -np.inf), range(4)):
        boxes = np.zeros((2, 4))
        boxes[1, column] = value
        fails(which, ValueError, f"boxes[1] = {boxes[1].tolist()}: box coordinates must be finite",
              boxes=boxes)  # fmt: skip
    fails(which, ValueError, "box coordinates must be finite in float32",
          boxes=[[1e40, 0, 0, 0]] * 2)  # fmt: skip
    fails(which, TypeError, "boxes has dtype complex128: expected real numbers",
          boxes=np.zeros((2, 4), complex))  # fmt: skip


@BOTH
def test_box_indices(which: str) -> None:
    for indices in ([], [0], [[0, 1]], 0):
        fails(which, ValueError, f"box_indices has shape {np.shape(indices)}: expected (2,)",
              box_indices=indices)  # fmt: skip
    for bad in (2, -1, 2**62, -(2**63)):
        fails(which, IndexError, f"box_indices[1] = {bad}: expected an index of one of the 2 "
              "images", box_indices=[0, bad])  # fmt: skip
    fails(which, TypeError, "box_indices has dtype float64: expected integers",
          box_indices=[0.0, 1.0])  # fmt: skip
    fails(which, IndexError, "expected an index of one of the 0 images", image=IMAGE[:0])
    np.testing.assert_array_equal(call(which, box_indices=None), call(which))


@BOTH
def test_other_arguments(which: str) -> None:
    for method in ("cubic", None, 3):
        fails(which, ValueError, f"method={method!r}: expected 'bilinear' or 'nearest'",
              method=method)  # fmt: skip
    fails(which, ValueError, "num_threads=0: expected at least 1", num_threads=0)
    fails(which, TypeError, "num_threads=1.5: expected a positive integer", num_threads=1.5)
    fails(which, TypeError, "expected", dtype=complex)
    fails(which, TypeError, "expected", dtype="no such")
    with pytest.raises(cropkit.BackendError, match="no such backend"):
        call(which, backend="no such")


def test_dtype_of_the_box_gradient() -> None:
    assert call("boxes").dtype == np.float32
    assert call("boxes", grads=GRADS.astype(float)).dtype == np.float32
    assert call("boxes", dtype=float).dtype == np.float64
    fails("boxes", TypeError, "dtype=uint8: expected float32 or float64", dtype=np.uint8)


def test_dtype_of_the_image_gradient(each_backend: Backend) -> None:
    assert call("image").dtype == np.float32
    assert call("image", grads=GRADS.astype(float)).dtype == np.float32
    for dtype in DTYPES:
        assert call("image", dtype=dtype_of(dtype), backend=each_backend).dtype == dtype_of(dtype)
    fails("image", TypeError, "in native byte order", dtype=np.dtype(np.float32).newbyteorder())


def test_image_of_the_box_gradient() -> None:
    fails("boxes", ValueError, "image has shape (4, 5, 3): expected 4 axes", image=IMAGE[0])
    fails("boxes", ValueError, "height and width must be at least 1", image=IMAGE[:, :0])
    fails("boxes", TypeError, "image has dtype complex64", image=IMAGE.astype("c8"))


# ---- size ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((2, 0, 5, 3), "image_size=(2, 0, 5, 3): height and width must be at least 1"),
        ((2, 4, -5, 3), "image_size=(2, 4, -5, 3): height and width must be at least 1"),
        ((-2, 4, 5, 3), "image_size=(-2, 4, 5, 3): batch and depth must not be negative"),
        ((2, 4, 5, -3), "image_size=(2, 4, 5, -3): batch and depth must not be negative"),
        ((4, 5, 3), "image_size=(4, 5, 3): expected four integers, (batch, height, width, depth)"),
        (np.zeros((4, 1), int)[:3], "expected four integers"),
        (7, "image_size=7: expected four integers"),
        (IMAGE, f"image_size has shape {IMAGE.shape}: expected four integers"),
    ],
)
def test_image_size_values(size: Any, text: str) -> None:
    fails("image", ValueError, text, image_size=size)


@pytest.mark.parametrize(
    "size", [(2.0, 4, 5, 3), np.array([2.0, 4, 5, 3]), "2453", None, (2, None, 5, 3), {2, 4, 5, 3}]
)
def test_image_size_types(size: Any) -> None:
    fails("image", TypeError, "expected four integers, (batch, height, width, depth)",
          image_size=size)  # fmt: skip


@pytest.mark.parametrize("size", [[2, 4, 5, 3], np.array([2, 4, 5, 3], np.int32), range(2, 6)])
def test_image_size_of_other_kinds(size: Any) -> None:
    grads = GRADS if list(size)[3] == 3 else np.ones((2, 2, 3, 5))
    assert call("image", grads=grads, image_size=size).shape == tuple(size)


@pytest.mark.parametrize(
    "size",
    [(2, 2**31, 2**31, 3), (2, 10**6, 10**7, 3), (2**63, 1, 1, 3), (2, 10**100, 1, 3)],
)
def test_image_larger_than_memory(size: Any, each_backend: Backend) -> None:
    for dtype in (np.uint8, np.float64):
        with pytest.raises(MemoryError, match="is larger than this machine's memory"):
            call("image", image_size=size, dtype=dtype, backend=each_backend)


@BOTH
def test_crops_of_which_there_is_only_a_view(which: str, each_cpu_backend: Backend) -> None:
    """A broadcast array may be longer than any memory: no scratch row can be."""
    grads = np.broadcast_to(np.float32(1), (2, 1, 2**50, 3))
    with pytest.raises(MemoryError):
        call(which, grads=grads, backend=each_cpu_backend)


def test_empty(each_backend: Backend) -> None:
    none: dict[str, Any] = {"boxes": np.zeros((0, 4)), "box_indices": [], "grads": GRADS[:0]}
    kept: dict[str, Any] = {"backend": each_backend}
    out = np.full(IMAGE.shape, 3, np.float32)
    assert not call("image", **none, **kept, out=out).any()
    assert call("boxes", **none, **kept).shape == (0, 4)
    assert call("image", **none, **kept, image=IMAGE[:0]).shape == (0, 4, 5, 3)
    assert call("boxes", **none, **kept, image=IMAGE[:0]).shape == (0, 4)
    no_depth = {"grads": GRADS[..., :0], "image": IMAGE[..., :0]}
    assert call("image", **no_depth, **kept).shape == (2, 4, 5, 0)
    boxes_out = np.full((2, 4), 3, np.float32)
    assert not call("boxes", **no_depth, **kept, out=boxes_out).any()


# ---- out -------------------------------------------------------------------------------


@BOTH
def test_out_that_does_not_fit(which: str, each_backend: Backend) -> None:
    fits = IMAGE.shape if which == "image" else (2, 4)

    def out_fails(error: type[Exception], text: str, out: Any, **changed: Any) -> None:
        fails(which, error, text, out=out, backend=each_backend, **changed)

    out_fails(ValueError, f"expected {fits}", np.zeros((*fits[:-1], 5), np.float32))
    out_fails(ValueError, "out has dtype float64: expected float32", np.zeros(fits))
    out_fails(ValueError, "out has dtype >f4: expected float32", np.zeros(fits, ">f4"))
    out_fails(ValueError, "out has dtype float32: expected float64", np.zeros(fits, "f4"),
              dtype=np.float64)  # fmt: skip
    read_only = np.zeros(fits, np.float32)
    read_only.flags.writeable = False
    out_fails(ValueError, "out is read-only", read_only)
    out_fails(TypeError, "out is a list: expected a numpy.ndarray", [[1.0]])
    shared = np.broadcast_to(np.zeros(fits[-1], np.float32), fits).view()
    shared.flags.writeable = True
    out_fails(ValueError, "out has elements that share memory with each other", shared)


@BOTH
def test_out_that_overlaps_an_input(which: str, each_backend: Backend) -> None:
    memory = np.zeros(1000, np.float32)
    size = 120 if which == "image" else 8
    shape = IMAGE.shape if which == "image" else (2, 4)
    for name, array in (
        ("grads", memory[:36].reshape(GRADS.shape)),
        ("boxes", memory[:8].reshape(2, 4)),
        ("box_indices", memory[:4].view(np.intp)),
        *([("image", memory[:120].reshape(IMAGE.shape))] if which == "boxes" else []),
    ):
        out = memory[array.nbytes // 4 - 1 :][:size].reshape(shape)
        fails(which, ValueError, f"out overlaps {name}: expected memory of its own",
              out=out, backend=each_backend, **{name: array})  # fmt: skip
    assert not memory.any()


@cache
def expected_of(geometry: Geometry, depth: int, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return gradients of crops, and by the reference the image's; the same for every test."""
    grads = pixels((len(geometry.boxes), *geometry.crop_size, depth), "uint8", depth)
    arguments = grads, geometry.boxes, indices_of(geometry), (*geometry.image_shape, depth)
    return grads, cropkit.crop_and_resize_grad_image(*arguments, dtype=dtype, backend="reference")


@pytest.mark.parametrize("stream", [False, True], ids=["cached", "streamed"])
@pytest.mark.parametrize("layout", OUT_LAYOUTS)
def test_only_out_is_written(
    layout: str, stream: bool, each_cpu_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cpu, "streaming_threshold", lambda: 0 if stream else 2**40)
    for geometry, depth, dtype in itertools.product(
        GEOMETRIES[::3], (1, 2, 3, 4, 9), ("uint8", "float32", "float64")
    ):
        shape = (*geometry.image_shape, depth)
        grads, expected = expected_of(geometry, depth, dtype)
        arguments = (grads, geometry.boxes, indices_of(geometry), shape)
        with np.errstate(all="ignore"):
            out, untouched = (empty_out(shape, dtype, layout) for _ in range(2))
        untouched[...] = expected
        cropkit.crop_and_resize_grad_image(
            *arguments, dtype=dtype, backend=each_cpu_backend, out=out, num_threads=2
        )
        assert memory_of(out) == memory_of(untouched), f"{geometry.name} depth {depth} {dtype}"


def read_next_to_guards(isa: str) -> None:
    """Run calls on guarded arrays; ends the process if one reads outside."""
    backend = _cpu.CpuBackend(isa)
    for geometry, dtype, depth in itertools.product(
        GEOMETRIES, ("uint8", "float32", "float64"), (1, 2, 3, 4, 5, 8, 17)
    ):
        shape = (*geometry.image_shape, depth)
        crops = (len(geometry.boxes), *geometry.crop_size, depth)
        for at_end, real in itertools.product((False, True), ("float32", "float64")):
            grads = guarded(pixels(crops, dtype), at_end)
            image = guarded(pixels(shape, dtype), at_end)
            out = guarded(np.zeros(shape, real), at_end)
            given = geometry.boxes, indices_of(geometry)
            for method in METHODS:
                cropkit.crop_and_resize_grad_image(
                    grads, *given, shape, method, dtype=real, out=out, backend=backend
                )
            cropkit.crop_and_resize_grad_boxes(grads, image, *given, dtype=real, backend=backend)
    print("survived")


@pytest.mark.parametrize("isa", _cpu.built_instruction_sets())
def test_nothing_is_read_next_to_the_arrays(isa: str) -> None:
    program = f"import tests.test_gradients_input as t; t.read_next_to_guards({isa!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"ended by {done.returncode}: {done.stderr[-1000:]}"
    assert done.stdout == "survived\n"


# ---- published failures, and inputs that change during the call ------------------------


@BOTH
@pytest.mark.parametrize("method", METHODS)
def test_boxes_whose_scale_overflows(which: str, method: str, each_backend: Backend) -> None:
    """They read nothing, so they have no gradient and add nothing, not even NaN."""
    boxes = [[-3e38, 0, 3e38, 1], [0, -3e38, 1, 3e38]]
    grads = np.full((2, 3, 4, 3), np.nan, np.float32)
    result = call(which, grads=grads, boxes=boxes, method=method, backend=each_backend)
    assert not result.any()
    boxes = [[3e38, 3e38, 3e38, 3e38], [3e38, -3e38, -3e38, 3e38]]
    assert not call(which, grads=grads, boxes=boxes, backend=each_backend).any()


@BOTH
def test_arrays_that_another_thread_changes(which: str, each_cpu_backend: Backend) -> None:
    """The room for what a box adds is made by what was read of the box first."""
    boxes = np.tile(np.float32([0.2, 0.2, 0.4, 0.4]), (500, 1))
    indices = np.zeros(500, np.intp)
    grads = np.ones((500, 9, 9, 3), np.float32)
    image = pixels((2, 40, 40, 3), "float32")
    stop = threading.Event()

    def spoil() -> None:
        while not stop.is_set():
            boxes[:, 2:] = 30
            indices[:] = 2**62
            boxes[:] = -7
            indices[:] = 1
            boxes[:] = [0.2, 0.2, 0.4, 0.4]

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    try:
        for _ in range(40):
            with contextlib.suppress(IndexError, ValueError):
                result = call(which, image=image, boxes=boxes, box_indices=indices, grads=grads,
                              num_threads=2, backend=each_cpu_backend)  # fmt: skip
                assert np.isfinite(result).all()
    finally:
        stop.set()
        spoiler.join()


def test_indices_gone_bad_after_the_check(each_cpu_backend: Backend) -> None:
    """The same without chance: the backend is given bad indices directly."""
    assert isinstance(each_cpu_backend, cropkit.GradientBackend)
    kind = np.dtype("float32")
    boxes = np.full((3, 4), [0.1, 0.2, 0.8, 0.9], np.float32)
    boxes[2] = np.nan
    grads = np.ones((3, 4, 4, 3), np.float32)
    # Image -1 is there, and image 2**62 would be image 0: its offset overflows to 0.
    image = pixels((3, 8, 8, 3), "float32")[1:]
    indices = np.array([2**62, -1, 0])
    request = cropkit.Request(
        operation="grad_image", sampling=cropkit.Sampling(), image_shape=image.shape,
        image_dtype=kind, num_boxes=3, crop_size=(4, 4), grads_dtype=kind, compute_dtype=kind,
        result_dtype=kind, num_threads=2,
    )  # fmt: skip
    memory = np.ones((3, 8, 8, 3), np.float32)
    each_cpu_backend.grad_image(request, grads, boxes, indices, memory[1:])
    assert not memory[1:].any()
    assert (memory[0] == 1).all()
    request = dataclasses.replace(request, operation="grad_boxes")
    sums = np.ones((3, 4), np.float32)
    each_cpu_backend.grad_boxes(request, grads, image, boxes, indices, sums)
    assert not sums.any()
