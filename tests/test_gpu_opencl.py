"""Backend ``opencl``, on whatever device there is: bit-equal to the reference.

PoCL makes a device of the CPU (``pip install pyopencl pocl-binary-distribution``). What is
asked of every backend is in ``cropkit.testing``; here are the kernels' own ways: runs of
channels, tiles, chunks, and devices that lack something.
"""

import itertools
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import BackendError
from cropkit.testing import BackendTests
from cropkit.testing._suite import same_sums
from cropkit_gpu import opencl
from cropkit_gpu.opencl import OpenCLBackend

from .data.make_golden import PATH, digest, golden_cases
from .data.make_golden_gradients import PATH as GRADIENTS_PATH
from .data.make_golden_gradients import golden_gradients
from .support.bits import assert_bits_equal
from .support.cases import (
    DEPTHS,
    DTYPES,
    GEOMETRIES,
    GEOMETRY_IDS,
    LAYOUTS,
    METHODS,
    OUT_LAYOUTS,
    Geometry,
    dtype_of,
    empty_out,
    indices_of,
    pixels,
)
from .support.children import python

pytestmark = pytest.mark.gpu
BOXES = [[0, 0, 1, 1], [0.9, 1.1, 0.2, 0.3], [-0.1, 0.4, 0.6, 0.4]]


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    """Skip where there is no device."""
    reason = opencl.backend.unavailable()
    if reason is not None:
        pytest.skip(reason)


def lacking(monkeypatch: pytest.MonkeyPatch, **abilities: bool) -> OpenCLBackend:
    """Make a backend whose device has not the abilities that are False."""
    backend = OpenCLBackend()
    for name, value in abilities.items():
        monkeypatch.setattr(backend.machine, name, value)
    return backend


def both(function: Any, *arguments: Any, backend: Any = "opencl", **options: Any) -> None:
    """Compare a call on `backend` with the same on the reference."""
    __tracebackhide__ = True
    expected = function(*arguments, backend="reference", **options)
    result = function(*arguments, backend=backend, **options)
    if function is grad_boxes:
        same_sums(result, expected, *arguments[:2], str(options))
    else:
        assert_bits_equal(result, expected, str(options))


forward = cropkit.crop_and_resize
grad_image = cropkit.crop_and_resize_grad_image
grad_boxes = cropkit.crop_and_resize_grad_boxes


class TestConformance(BackendTests):
    """The suite that every backend's author runs."""

    backend = "opencl"


class TestConformanceOnTheDevice(BackendTests):
    """The same with arrays that are on the device."""

    backend = "opencl"

    def to_device(self, array: NDArray[Any]) -> Any:
        from pyopencl.array import to_device

        return to_device(opencl.backend.machine.queue, array)

    def from_device(self, array: Any) -> NDArray[Any]:
        result: NDArray[Any] = array.get()
        return result


# ---- TensorFlow's results -------------------------------------------------------------


def same_as_stored(result: NDArray[Any], stored: NDArray[Any]) -> bool:
    if stored.dtype == np.uint8:
        return np.array_equal(digest(result), stored)
    return np.array_equal(result, stored, equal_nan=True)


def test_golden() -> None:
    with np.load(PATH) as stored:
        for name, case in golden_cases().items():
            assert same_as_stored(forward(*case, backend="opencl"), stored[name]), name


def test_golden_gradients() -> None:
    with np.load(GRADIENTS_PATH) as stored:
        for name, case in golden_gradients().items():
            assert same_as_stored(grad_image(*case, backend="opencl"), stored[name]), name


# ---- every way through the kernels ----------------------------------------------------


# Each program takes a good part of a second to compile, so only these dtypes go every way.
EVERY_WAY = ("uint8", "float32")


def depths_of(dtype: str) -> tuple[int, ...]:
    """Depths decide the runs of channels, and with the layouts whether they are vectors."""
    return DEPTHS if dtype in EVERY_WAY else (1, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward(dtype: str) -> None:
    layouts, outs = itertools.cycle(LAYOUTS), itertools.cycle(OUT_LAYOUTS)
    ways = itertools.product(GEOMETRIES, depths_of(dtype), METHODS)
    for number, (geometry, depth, method) in enumerate(ways):
        result_dtype = "float64" if depth == 4 and number % 5 else "float32"
        image = pixels((*geometry.image_shape, depth), dtype, depth, special=0.02)
        arguments = (geometry.boxes, indices_of(geometry), geometry.crop_size, method, -3.5)
        expected = forward(image, *arguments, dtype=result_dtype, backend="reference")
        layout, out_layout = next(layouts), next(outs)
        result = forward(
            LAYOUTS[layout](image),
            *arguments,
            dtype=result_dtype,
            out=empty_out(expected.shape, result_dtype, out_layout),
            backend="opencl",
        )
        what = f"{geometry.name} depth {depth} {method} {layout} into {out_layout}"
        assert_bits_equal(result, expected, what)


def crops(geometry: Geometry, depth: int, dtype: str, special: float = 0.02) -> NDArray[Any]:
    shape = (len(geometry.boxes), *geometry.crop_size, depth)
    return pixels(shape, dtype, depth, special)


@pytest.mark.parametrize("dtype", DTYPES)
def test_image_gradient_of_crops_of_any_dtype(dtype: str) -> None:
    layouts = itertools.cycle(LAYOUTS)
    for number, (geometry, depth) in enumerate(itertools.product(GEOMETRIES, depths_of(dtype))):
        size = (*geometry.image_shape, depth)
        grads = LAYOUTS[next(layouts)](crops(geometry, depth, dtype))
        method, result = METHODS[number // 2 % 2], ("float32", "float64")[depth == 4]
        arguments = (grads, geometry.boxes, indices_of(geometry), size, method)
        both(grad_image, *arguments, dtype=result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_image_gradient_as_any_dtype(dtype: str) -> None:
    """Sums as large as 1e5, which saturate small integers, and infinite and NaN ones."""
    outs = itertools.cycle(OUT_LAYOUTS)
    for geometry, depth in itertools.product(GEOMETRIES, (4, 5)):
        size = (*geometry.image_shape, depth)
        with np.errstate(over="ignore"):
            grads = crops(geometry, depth, "float32") * np.float32(1e3)
        arguments = (grads, geometry.boxes, indices_of(geometry), size)
        expected = grad_image(*arguments, dtype=dtype_of(dtype), backend="reference")
        out = LAYOUTS[next(outs)](np.zeros(size, dtype_of(dtype)))
        assert_bits_equal(
            grad_image(*arguments, dtype=dtype_of(dtype), out=out, backend="opencl"),
            expected,
            f"{geometry.name} depth {depth}",
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_box_gradient(dtype: str) -> None:
    """Depths below 8 share lanes between pixels; the others begin anew at each."""
    layouts = itertools.cycle(LAYOUTS)
    other = DTYPES[DTYPES.index(dtype) - 3]
    for number, (geometry, depth) in enumerate(itertools.product(GEOMETRIES, (*DEPTHS, 16))):
        image = LAYOUTS[next(layouts)](pixels((*geometry.image_shape, depth), dtype, depth))
        grads = crops(geometry, depth, other, special=0)
        out = empty_out((len(grads), 4, 1, 1), "float32", "sliced")[..., 0, 0]
        boxes, indices = geometry.boxes, indices_of(geometry)
        both(grad_boxes, grads, image, boxes, indices, dtype=("float32", "float64")[number % 2])
        expected = grad_boxes(grads, image, boxes, indices, backend="reference")
        result = grad_boxes(grads, image, boxes, indices, out=out, backend="opencl")
        same_sums(result, expected, grads, image, f"{geometry.name} depth {depth}")


@pytest.mark.parametrize("size", [(300, 230, 3), (90, 1, 17), (70_000, 1, 1), (2, 40_000, 1)])
def test_box_gradient_of_several_chunks(size: tuple[int, int, int]) -> None:
    """Crops of more than 65536 values are summed in chunks of rows."""
    image = pixels((1, 9, 11, size[2]), "float32", 1)
    grads = pixels((3, *size), "float32", 2)
    both(grad_boxes, grads, image, BOXES, None)


@pytest.mark.parametrize("depth", [1, 3, 8, 300])
def test_image_gradient_of_many_boxes_and_tiles(depth: int) -> None:
    """More boxes than a group looks at in one round, 2048, and tiles that hang over."""
    boxes = pixels((2100, 4), "float64", 3) / 200 + 0.5
    grads = pixels((2100, 2, 3, depth), "float32", 4)
    both(grad_image, grads, boxes, np.arange(2100) % 2, (2, 35, 21, depth))


def test_more_rows_than_a_launch_has_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cropkit_gpu._launches._MAX_GROUPS", 2)
    image = pixels((2, 30, 41, 5), "uint8", 5)
    both(forward, image, BOXES, [0, 1, 1], (70, 3))
    grads = pixels((3, 70, 3, 5), "float32", 6)
    both(grad_image, grads, BOXES, [0, 1, 1], image.shape)
    both(grad_boxes, grads, image, BOXES, [0, 1, 1])


def test_huge_and_tiny_boxes() -> None:
    """Positions that overflow, and such that float32 flushes to zero."""
    image = pixels((1, 4, 1000, 2), "float32", 7)
    boxes = [
        [-3e38, 0, 3e38, 1], [3e38, 3e38, 3e38, 3e38], [-1e38, -3e38, 1e38, 3e38],
        [-1e-43, 0, 1, 1], [1e-40, -0.0, 1, 1], [-0.0, -0.0, 0, 0], [-1e-43, -1e-43, 1e-43, 0],
    ]  # fmt: skip
    indices = [0] * len(boxes)
    for size, method in itertools.product(((3, 3), (1, 1), (4, 1)), METHODS):
        grads = pixels((len(boxes), *size, 2), "float32", 8)
        for dtype in ("float32", "float64"):
            both(forward, image, boxes, indices, size, method, dtype=dtype)
            both(grad_image, grads, boxes, indices, image.shape, method, dtype=dtype)
            both(grad_boxes, grads, image, boxes, indices, dtype=dtype)


def test_a_position_of_negative_zero_weighs_negative_zero() -> None:
    """What is read there stays -0.0; between other pixels of -0.0 it becomes 0.0."""
    image = np.full((1, 3, 3, 1), -0.0, np.float32)
    boxes = [[-0.0, -0.0, -0.5, -0.5]]
    result = forward(image, boxes, [0], (2, 2), extrapolation_value=1, backend="opencl")
    assert np.signbit(result[0, ..., 0]).tolist() == [[True, False], [False, False]]
    both(forward, image, boxes, [0], (2, 2))


def test_an_image_of_more_than_two_to_the_31_pixels() -> None:
    """Most of its memory is never touched. PoCL allows half a device's memory for an array."""
    code = """
import numpy as np
import cropkit

n = 50_000
image = np.zeros((1, n, n, 1), np.uint8)
image[0, -2:, -3:, 0] = (1, 2, 3), (4, 5, 6)
edges = 1 - 1 / (n - 1), 1 - 2 / (n - 1), 1, 1
for view, box in ((image, edges), (image[:, ::-1, ::-1], [1 - edge for edge in edges])):
    options = dict(crop_size=(2, 3), method="nearest", dtype="float64", backend="opencl")
    print(cropkit.crop_and_resize(view, [box], [0], **options).ravel().tolist())
"""
    expected = [str([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])] * 2
    assert python(code, POCL_MEMORY_LIMIT=16).stdout.splitlines() == expected


def test_calls_from_several_threads() -> None:
    image = pixels((2, 60, 50, 3), "float32", 9)
    expected = forward(image, BOXES, [1, 0, 1], (40, 30))
    results: list[NDArray[Any]] = []

    def calls() -> None:
        for _ in range(20):
            results.append(forward(image, BOXES, [1, 0, 1], (40, 30), backend="opencl"))

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    for result in results:
        assert_bits_equal(result, expected)


# ---- devices that lack something ------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=GEOMETRY_IDS)
@pytest.mark.parametrize(
    "lacks",
    ["shares_memory", "exact_division", "has_float64"],
)
def test_a_device_without(lacks: str, geometry: Geometry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies to the device and back; another division; no float64 for what is float32."""
    backend = lacking(monkeypatch, **{lacks: False})
    layouts, outs = itertools.cycle(LAYOUTS), itertools.cycle(OUT_LAYOUTS)
    boxes, indices = geometry.boxes, indices_of(geometry)
    for number, depth in enumerate(DEPTHS):
        image = pixels((*geometry.image_shape, depth), EVERY_WAY[number % 2], depth)
        image = LAYOUTS[next(layouts)](image)
        method = METHODS[number % 2]
        arguments = (image, boxes, indices, geometry.crop_size, method)
        expected = forward(*arguments, backend="reference")
        out = empty_out(expected.shape, "float32", next(outs))
        assert_bits_equal(forward(*arguments, out=out, backend=backend), expected)
        grads = LAYOUTS[next(layouts)](crops(geometry, depth, "float32"))
        both(grad_image, grads, boxes, indices, image.shape, method, backend=backend)
        if lacks != "has_float64":
            both(grad_boxes, grads, image, boxes, indices, backend=backend)


def test_refusals_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = lacking(monkeypatch, has_float64=False)
    image = pixels((1, 4, 5, 1), "float32")
    grads = pixels((1, 2, 2, 1), "float32")
    box = [[0, 0, 1, 1]]
    long_image = np.broadcast_to(image[:, :1], (1, 1 + (1 << 24), 5, 1))
    calls: dict[str, Any] = {
        "dtype=float64 needs": lambda: forward(
            image, box, [0], (2, 2), dtype="float64", backend=backend
        ),
        "float64 images need": lambda: forward(
            image.astype("float64"), box, [0], (2, 2), backend=backend
        ),
        "float64 gradients need": lambda: grad_image(
            grads.astype("float64"), box, [0], (1, 4, 5, 1), backend=backend
        ),
        "the sums of the boxes' gradient need": lambda: grad_boxes(
            grads, image, box, [0], backend=backend
        ),
        "one sample of an axis longer than 16777216 needs": lambda: forward(
            long_image, box, [0], (1, 2), backend=backend
        ),
    }
    for needs, call in calls.items():
        expected = f"backend 'opencl' .* cannot run this call: .* has no float64, which {needs}"
        with pytest.raises(BackendError, match=expected):
            call()


class SmallDevice:
    """A device with little memory; all else is the real one's."""

    max_mem_alloc_size = 1000
    global_mem_size = 1500

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)


def test_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = OpenCLBackend()
    monkeypatch.setattr(backend.machine, "device", SmallDevice(backend.machine.device))
    image = np.zeros((1, 10, 10, 1), np.float32)
    name = str(backend.machine).replace("(", r"\(").replace(")", r"\)")
    for size, reason in (
        ((10, 40), rf"the result takes 1600 bytes; {name} allows 1000 for one array"),
        ((10, 25), rf"the call takes 1820 bytes; {name} has 1500"),
    ):
        with pytest.raises(BackendError, match=reason):
            forward(image, [[0, 0, 1, 1]], [0], size, backend=backend)


# ---- arrays of PyOpenCL ---------------------------------------------------------------


@pytest.fixture
def queue() -> Any:
    cl = pytest.importorskip("pyopencl")
    return cl.CommandQueue(cl.Context([opencl.backend.machine.device]))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_arrays_of_the_device(queue: Any, dtype: str) -> None:
    """They stay there, and so does the result; no backend need be named."""
    from pyopencl import array

    image = pixels((2, 9, 11, 4), dtype, 1)
    grads = pixels((3, 5, 6, 4), "float32", 2)
    there, grads_there = array.to_device(queue, image), array.to_device(queue, grads)
    for view, local in ((there, image), (there[:, ::-1, 1::2], image[:, ::-1, 1::2])):
        result = forward(view, BOXES, [1, 0, 1], (5, 6))
        assert isinstance(result, array.Array)
        assert result.queue is queue
        assert_bits_equal(result.get(), forward(local, BOXES, [1, 0, 1], (5, 6)))
        result = grad_boxes(grads_there, view, BOXES, [1, 0, 1])
        expected = grad_boxes(grads, local, BOXES, [1, 0, 1])
        same_sums(result.get(), expected, grads, local, "boxes")
    out = array.empty(queue, (2, 9, 11, 4), np.float32)
    boxes = array.to_device(queue, np.array(BOXES, np.float32))
    assert grad_image(grads_there, boxes, [1, 0, 1], (2, 9, 11, 4), out=out) is out
    assert_bits_equal(out.get(), grad_image(grads, BOXES, [1, 0, 1], (2, 9, 11, 4)))
    empty = grad_image(grads_there[:0], np.zeros((0, 4)), [], (2, 9, 11, 4))
    assert not empty.get().any()


def test_bad_arrays_of_the_device(queue: Any) -> None:
    import pyopencl as cl
    from pyopencl import array

    memory = array.zeros(queue, (2, 6, 5, 3), np.float32)
    arguments = (BOXES[:1], [0], (6, 5))
    message = "out overlaps image: expected memory of its own, not even between the elements"
    with pytest.raises(ValueError, match=message):
        forward(memory[:1], *arguments, out=memory[:1])
    forward(memory[:1], *arguments, out=memory[1:])
    other = array.zeros(cl.CommandQueue(cl.Context([queue.device])), (1, 6, 5, 3), np.float32)
    with pytest.raises(ValueError, match="out is in another OpenCL context than the other arrays"):
        forward(memory, *arguments, out=other)
    with pytest.raises(ValueError, match="out is on CPU: expected OpenCL, where the"):
        forward(memory, *arguments, out=np.zeros((1, 6, 5, 3), np.float32))
    with pytest.raises(BackendError, match=r"cpu.*does not run on OpenCL arrays"):
        forward(memory, *arguments, backend="cpu")


# ---- where it fails ------------------------------------------------------------------


def test_after_a_fork() -> None:
    code = """
import os, sys
import cropkit
from cropkit_gpu.opencl import backend
assert backend.unavailable() is None
if os.fork() == 0:
    try:
        cropkit.crop_and_resize([[[[0]]]], [[0, 0, 1, 1]], [0], (1, 1), backend="opencl")
    except cropkit.BackendError as error:
        print(error)
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""
    assert "OpenCL was started before this process was forked" in python(code).stdout


def test_a_source_that_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cropkit_gpu._launches.source", lambda: "this is no C")
    with pytest.raises(BackendError, match=r"backend 'opencl': .* does not compile the kernels"):
        forward(np.zeros((1, 1, 1, 1)), [[0, 0, 1, 1]], [0], (1, 1), backend=OpenCLBackend())
