"""Every backend and instruction set: TensorFlow's bits, whatever the layout and the threads.

``data/golden.npz`` holds what TensorFlow computed. Where the operator has no answer (its
other dtypes, float64), the expectation is `ReferenceBackend`, which the golden results and
``test_literals.py`` check.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend, _cpu

from .data.make_golden import PATH, GoldenCase, digest, golden_cases
from .support.cases import (
    DEPTHS,
    DTYPES,
    GEOMETRIES,
    GEOMETRY_IDS,
    LAYOUTS,
    METHODS,
    OTHER_DTYPES,
    OUT_LAYOUTS,
    TENSORFLOW_DTYPES,
    Geometry,
    dtype_of,
    empty_out,
    indices_of,
    pixels,
)

THREADS = (1, 2, 5)
CASES = golden_cases()
CASES_BY_DTYPE = {
    dtype: {name: case for name, case in CASES.items() if name.startswith(dtype + "-")}
    for dtype in TENSORFLOW_DTYPES
}


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(PATH) as stored:
        return dict(stored)


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every result count as larger than the caches, which makes kernels stream."""
    monkeypatch.setattr(_cpu, "streaming_threshold", lambda: 0)


def golden_equal(
    bits_equal: Any, actual: NDArray[Any], stored: NDArray[Any], case: GoldenCase, what: str
) -> None:
    """Compare with a stored result, or with its digest.

    Where a digest differs, the message comes from the reference, if that has it right.
    """
    if stored.dtype != np.uint8:
        bits_equal(actual, stored, what)
    elif not np.array_equal(digest(actual), stored):
        expected = cropkit.crop_and_resize(*case, backend="reference")
        bits_equal(actual, expected, what)
        pytest.fail(f"{what}: differs from the golden result, and so does the reference")


def test_golden_results_are_those_of_the_cases(golden: dict[str, NDArray[Any]]) -> None:
    assert set(golden) == set(CASES)


@pytest.mark.parametrize("dtype", TENSORFLOW_DTYPES)
def test_golden(
    dtype: str, each_backend: Backend, golden: dict[str, NDArray[Any]], bits_equal: Any
) -> None:
    for number, (name, case) in enumerate(CASES_BY_DTYPE[dtype].items()):
        result = cropkit.crop_and_resize(
            *case, backend=each_backend, num_threads=THREADS[number % 3]
        )
        golden_equal(bits_equal, result, golden[name], case, name)


@pytest.mark.parametrize("dtype", TENSORFLOW_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_golden_from_any_layout(
    dtype: str,
    layout: str,
    each_backend: Backend,
    golden: dict[str, NDArray[Any]],
    bits_equal: Any,
) -> None:
    for number, (name, case) in enumerate(CASES_BY_DTYPE[dtype].items()):
        laid_out = case._replace(image=LAYOUTS[layout](case.image))
        result = cropkit.crop_and_resize(
            *laid_out, backend=each_backend, num_threads=THREADS[number % 3]
        )
        golden_equal(bits_equal, result, golden[name], case, f"{name} {layout}")


@pytest.mark.parametrize("layout", OUT_LAYOUTS)
def test_golden_into_any_layout(
    layout: str, each_backend: Backend, golden: dict[str, NDArray[Any]], bits_equal: Any
) -> None:
    position = OUT_LAYOUTS.index(layout)
    for number, (name, case) in enumerate(CASES.items()):
        if (number + position) % 5 == 0:
            shape = (len(case.boxes), *case.crop_size, case.image.shape[3])
            out = empty_out(shape, "float32", layout)
            result = cropkit.crop_and_resize(
                *case, backend=each_backend, num_threads=THREADS[number // 5 % 3], out=out
            )
            assert result is out
            golden_equal(bits_equal, result, golden[name], case, f"{name} into {layout}")


@pytest.mark.usefixtures("streaming")
def test_golden_with_streaming_stores(
    each_cpu_backend: Backend, golden: dict[str, NDArray[Any]], bits_equal: Any
) -> None:
    for number, (name, case) in enumerate(CASES.items()):
        shape = (len(case.boxes), *case.crop_size, case.image.shape[3])
        # Floats at every distance from a vector's alignment.
        memory = np.zeros(int(np.prod(shape)) + 16, np.float32)
        out = memory[number % 16 :][: int(np.prod(shape))].reshape(shape)
        cropkit.crop_and_resize(*case, backend=each_cpu_backend, num_threads=1, out=out)
        golden_equal(bits_equal, out, golden[name], case, f"{name} streamed")


# ---- every way through the kernels ---------------------------------------------------


def reference(image: NDArray[Any], *rest: Any, **options: Any) -> NDArray[Any]:
    return cropkit.crop_and_resize(image, *rest, backend="reference", **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plain_call_gives_what_any_other_gives(dtype: str, bits_equal: Any) -> None:
    """Without a backend named, calls that are plainly right skip the request."""
    for geometry, method in itertools.product(GEOMETRIES, METHODS):
        image = pixels((*geometry.image_shape, 3), dtype, 7)
        for real, threads in itertools.product((np.float32, np.float64), (None, 1, 2)):
            arguments = (np.array(geometry.boxes, real), np.array(indices_of(geometry)),
                         geometry.crop_size, method, 2.5)  # fmt: skip
            options = {"dtype": real, "num_threads": threads}
            expected = reference(image, *arguments, dtype=real)
            out = np.full_like(expected, -3)
            assert cropkit.crop_and_resize(image, *arguments, out=out, **options) is out
            bits_equal(out, expected, f"{geometry.name}, {method}, given")
            fresh = cropkit.crop_and_resize(image, *arguments, **options)
            bits_equal(fresh, expected, f"{geometry.name}, {method}, fresh")


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=GEOMETRY_IDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("result_dtype", ["float32", "float64"])
def test_every_way_through_the_kernels(
    geometry: Geometry,
    dtype: str,
    result_dtype: str,
    each_cpu_backend: Backend,
    bits_equal: Any,
) -> None:
    """Steps (geometries), depths and dtypes decide the way; so do strides and `out`'s."""
    layouts, outs = itertools.cycle(LAYOUTS), itertools.cycle(OUT_LAYOUTS)
    threads = itertools.cycle(THREADS)
    for depth, method in itertools.product(DEPTHS, METHODS):
        image = pixels((*geometry.image_shape, depth), dtype, depth, special=0.02)
        arguments = (geometry.boxes, indices_of(geometry), geometry.crop_size, method, -3.5)
        expected = reference(image, *arguments, dtype=result_dtype)
        for layout in ("packed", "inner_columns", next(layouts), next(layouts)):
            out_layout = next(outs)
            result = cropkit.crop_and_resize(
                LAYOUTS[layout](image),
                *arguments,
                dtype=result_dtype,
                out=empty_out(expected.shape, result_dtype, out_layout),
                backend=each_cpu_backend,
                num_threads=next(threads),
            )
            bits_equal(result, expected, f"depth {depth} {method} {layout} into {out_layout}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("depth", [8, 16, 31, 64, 72])
def test_deep_pixels_at_every_alignment(
    depth: int,
    dtype: str,
    stream: bool,
    each_cpu_backend: Backend,
    bits_equal: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their vectors do not end where pixels do, and nothing around `out` is theirs."""
    monkeypatch.setattr(_cpu, "streaming_threshold", lambda: 0 if stream else 2**60)
    image = pixels((2, 9, 11, depth), dtype, depth, special=0.02)
    boxes = [[0.0, 0.0, 1.0, 1.0], [1.1, 0.9, -0.2, 0.1]]
    for method in METHODS:
        arguments = (image, boxes, [1, 0], (4, 5), method, -3.5)
        expected = reference(*arguments, dtype=dtype)
        for offset in range(17):
            memory = np.full(expected.size + 34, -77777.25, dtype)
            out = memory[offset : offset + expected.size].reshape(expected.shape)
            cropkit.crop_and_resize(
                *arguments, dtype=dtype, out=out, backend=each_cpu_backend, num_threads=1
            )
            bits_equal(out, expected, f"{method}, {offset} values after an alignment")
            rest = np.concatenate([memory[:offset], memory[offset + expected.size :]])
            assert (rest == -77777.25).all(), (method, offset)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_three_channels_of_few_shared_rows(
    dtype: str, each_cpu_backend: Backend, bits_equal: Any
) -> None:
    """Up to the row's last pixels, at any alignment, and nothing around `out` is written."""
    image = pixels((2, 40, 40, 3), dtype, 23, special=0.02)
    mirrored = image[:, :, ::-1].copy()[:, :, ::-1]  # a pixel's neighbour lies before it
    boxes = [[0.0, 0.0, 1.0, 1.0], [1.0, 0.9, 0.0, 0.1], [-0.1, 0.8, 1.2, 1.05], [1, 1, 0, 0.7]]
    for method, columns in itertools.product(METHODS, range(1, 14)):
        arguments = (boxes, [1, 0, 1, 0], (11, columns), method, -3.5)
        expected = reference(image, *arguments)
        for laid_out in (image, mirrored):
            offset = columns % 5
            memory = np.full(expected.size + 34, -77777.25, np.float32)
            out = memory[offset : offset + expected.size].reshape(expected.shape)
            cropkit.crop_and_resize(laid_out, *arguments, out=out, backend=each_cpu_backend)
            bits_equal(out, expected, f"{method}, {columns} columns, {laid_out.strides}")
            rest = np.concatenate([memory[:offset], memory[offset + expected.size :]])
            assert (rest == -77777.25).all(), (method, columns, laid_out.strides)


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast_image(dtype: str, each_backend: Backend, bits_equal: Any) -> None:
    """Strides of 0: one pixel, one row or one image stands for many."""
    shapes = ((1, 1, 1, 3), (1, 6, 1, 1), (1, 1, 9, 4), (1, 6, 9, 2), (3, 6, 9, 1), (1, 1, 1, 1))
    for shape, method in itertools.product(shapes, METHODS):
        image = np.broadcast_to(pixels(shape, dtype, 5), (3, 6, 9, shape[3]))
        if shape[3] == 1:
            image = np.broadcast_to(image, (3, 6, 9, 4))
        arguments = ([[0, 0, 1, 1], [0.9, -0.2, 0.1, 0.7]], [2, 1], (5, 21), method)
        result = cropkit.crop_and_resize(image, *arguments, backend=each_backend)
        bits_equal(result, reference(image.copy(), *arguments), f"{shape} {method}")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int16"])
@pytest.mark.parametrize("method", METHODS)
def test_large_crops_in_tiles(
    dtype: str, method: str, each_cpu_backend: Backend, bits_equal: Any
) -> None:
    """A large crop is cut into tiles of some rows and columns, each of which begins anew."""
    image = pixels((2, 50, 70, 3), dtype, 9)
    boxes = [[-0.1, 0, 1, 1.2], [0.8, 0.7, 0.1, 0.3]]
    for size in ((299, 211), (3000, 7), (5, 9000), (17000, 2)):
        expected = reference(image, boxes, [1, 0], size, method)
        for threads, layout in zip(THREADS, ("packed", "sliced", "negative_strides"), strict=True):
            out = empty_out(expected.shape, "float32", layout)
            cropkit.crop_and_resize(
                image, boxes, [1, 0], size, method,
                backend=each_cpu_backend, num_threads=threads, out=out,
            )  # fmt: skip
            bits_equal(out, expected, f"{size} into {layout}, {threads} threads")


@pytest.fixture(scope="module")
def large_crop() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an image and its crop of 8.8 million values."""
    image = pixels((1, 20, 30, 1), "uint16", 3)
    return image, reference(image, [[0.1, 0, 0.9, 1]], [0], (4400, 2000))


@pytest.mark.parametrize("threads", [1, 2])
def test_many_rounds_of_tasks(
    threads: int,
    each_cpu_backend: Backend,
    large_crop: tuple[NDArray[Any], NDArray[Any]],
    bits_equal: Any,
) -> None:
    """More values than one round between two looks at signals: 2**23 per thread."""
    image, expected = large_crop
    boxes = [[0.1, 0, 0.9, 1]] * threads
    result = cropkit.crop_and_resize(
        image, boxes, None, (4400, 2000), backend=each_cpu_backend, num_threads=threads
    )
    for crop in result:
        bits_equal(crop, expected[0])


@pytest.mark.parametrize("threads", THREADS)
def test_many_boxes_on_large_images(
    threads: int, each_cpu_backend: Backend, bits_equal: Any
) -> None:
    """Boxes on images that do not stay in the caches are worked through in another order."""
    image = pixels((2, 700, 600, 3), "uint8", 21)
    values = pixels((40, 4), "float64", 22) / 200 + 0.5
    indices = np.arange(40) % 2
    result = cropkit.crop_and_resize(
        image, values, indices, (24, 31), backend=each_cpu_backend, num_threads=threads
    )
    bits_equal(result, reference(image, values, indices, (24, 31)))


# ---- beyond the operator --------------------------------------------------------------


@pytest.mark.parametrize("dtype", OTHER_DTYPES)
@pytest.mark.parametrize("result_dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_other_dtypes_are_converted_pixel_by_pixel(
    dtype: str, result_dtype: str, method: str, each_backend: Backend, bits_equal: Any
) -> None:
    """Expectation: the image converted by NumPy before the call."""
    for depth in DEPTHS:
        image = pixels((2, 9, 40, depth), dtype, depth, special=0.02)
        boxes = [[0, 0, 1, 1], [0.9, 1.1, 0.2, 0.3]]
        options: dict[str, Any] = {"dtype": result_dtype, "backend": each_backend}
        arguments = (boxes, [1, 0], (7, 33), method)
        result = cropkit.crop_and_resize(image, *arguments, **options)
        converted = image.astype(result_dtype)
        bits_equal(result, cropkit.crop_and_resize(converted, *arguments, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_float64_agrees_with_exact_positions(
    dtype: str, method: str, each_backend: Backend, bits_equal: Any
) -> None:
    """Boxes whose positions and weights are exact in float64: every fourth of a pixel.

    The expectation interpolates by hand, in float64, from the converted image.
    """
    image = pixels((1, 5, 9, 3), dtype, 31)
    result = cropkit.crop_and_resize(
        image, [[0, 0, 1, 1]], None, (17, 33), method, dtype=np.float64, backend=each_backend
    )
    real = image[0].astype(np.float64)
    y, x = np.arange(17) / 4, np.arange(33) / 4
    if method == "nearest":
        expected = real[np.floor(y + 0.5).astype(int)][:, np.floor(x + 0.5).astype(int)]
    else:
        low, high = np.floor(x).astype(int), np.ceil(x).astype(int)
        rows = real[:, low] + (real[:, high] - real[:, low]) * (x - low)[:, None]
        low, high = np.floor(y).astype(int), np.ceil(y).astype(int)
        expected = rows[low] + (rows[high] - rows[low]) * (y - low)[:, None, None]
    bits_equal(result[0], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_result_does_not_alias_the_image(dtype: str, each_backend: Backend) -> None:
    image = np.ones((1, 2, 2, 1), dtype_of(dtype))
    result = cropkit.crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 2), backend=each_backend)
    assert not np.shares_memory(result, image)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.flags.writeable


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8"])
@pytest.mark.parametrize("result_dtype", ["float32", "float64"])
def test_boxes_and_indices_of_any_layout(
    dtype: str, result_dtype: str, each_backend: Backend, bits_equal: Any
) -> None:
    image = pixels((3, 6, 9, 3), "uint8", 3)
    boxes = (pixels((7, 4), "int8", 4) / 128).astype(dtype)
    indices = np.arange(7) % 3
    options: dict[str, Any] = {"dtype": result_dtype, "backend": each_backend}
    plain = boxes.astype(result_dtype)
    expected = cropkit.crop_and_resize(image, plain, indices, (4, 5), **options)
    read_only = boxes.copy()
    read_only.flags.writeable = False
    raw = np.zeros(boxes.nbytes + 1, np.uint8)[1:].view(dtype).reshape(7, 4)
    raw[...] = boxes
    for given in (np.asfortranarray(boxes), boxes[::-1].copy()[::-1], read_only, raw):
        result = cropkit.crop_and_resize(image, given, indices, (4, 5), **options)
        bits_equal(result, expected)
    spaced = np.zeros((7, 2), np.intp)
    spaced[:, 1] = indices
    frozen = indices.copy()
    frozen.flags.writeable = False
    for each in (spaced[:, 1], frozen, indices.astype(">i8"), indices.astype(np.uint8)):
        result = cropkit.crop_and_resize(image, plain, each, (4, 5), **options)
        bits_equal(result, expected)
