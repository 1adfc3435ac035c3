"""The gradients: by hand, against golden results, and to the same bits everywhere."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend
from cropkit.testing._suite import same_sums

from .data.make_golden import digest
from .data.make_golden_gradients import PATH, golden_gradients
from .support.backends import CPU_BACKENDS
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
    random_gradients,
)

ONE_BOX = [[0.0, 0.0, 1.0, 1.0]]


def grad_image(*arguments: Any, **keywords: Any) -> NDArray[Any]:
    return cropkit.crop_and_resize_grad_image(*arguments, **keywords)


def grad_boxes(*arguments: Any, **keywords: Any) -> NDArray[Any]:
    return cropkit.crop_and_resize_grad_boxes(*arguments, **keywords)


# ---- by hand ---------------------------------------------------------------------------


def test_identity_crop_gives_the_gradient_back(each_backend: Backend, bits_equal: Any) -> None:
    grads = pixels((1, 5, 7, 3), "float32")
    for method in METHODS:
        result = grad_image(grads, ONE_BOX, [0], (1, 5, 7, 3), method, backend=each_backend)
        bits_equal(result, grads, method)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_sample_between_four_pixels(depth: int, each_backend: Backend) -> None:
    # y = 0.25 * 2 = 0.5 and x = 0.375 * 2 = 0.75: rows by halves, columns by quarters
    box = [[0.25, 0.375, 0.25, 0.375]]
    g = np.full((1, 1, 1, depth), 8.0)
    result = grad_image(g, box, [0], (1, 3, 3, depth), backend=each_backend)
    expected = [[1, 3, 0], [1, 3, 0], [0, 0, 0]]
    assert result[0].tolist() == [[[v] * depth for v in row] for row in expected]
    # The slope along y is (1 - 0.75) * (3 - 0) + 0.75 * (7 - 1) = 5.25, along x
    # (1 - 0.5) * (1 - 0) + 0.5 * (7 - 3) = 2.5; an edge moves the middle by half of 2.
    image = np.array([[0, 1, 9], [3, 7, 9], [9, 9, 9]], np.float32)
    image = np.repeat(image[None, :, :, None], depth, axis=3)
    result = grad_boxes(g, image, box, [0], backend=each_backend)
    slopes = [8 * depth * 5.25, 8 * depth * 2.5]
    assert result.tolist() == [slopes + slopes]


def test_nearest_adds_to_the_pixel_that_was_read(each_backend: Backend) -> None:
    # columns 0, 1, 2, 3, 4 of 3 pixels: v = 0, 0.5, 1, 1.5, 2; halves go up
    g = np.array([1, 2, 4, 8, 16], np.float32).reshape(1, 1, 5, 1)
    result = grad_image(g, [[0, 0, 0, 1]], [0], (1, 1, 3, 1), "nearest", backend=each_backend)
    assert result.ravel().tolist() == [1, 6, 24]


def test_samples_outside_add_nothing(each_backend: Backend) -> None:
    # columns -1, 0, 1, 2 of 2 pixels
    g = np.array([1, 2, 4, 8], np.float32).reshape(1, 1, 4, 1)
    for method in METHODS:
        result = grad_image(g, [[0, -1, 0, 2]], [0], (1, 1, 2, 1), method, backend=each_backend)
        assert result.ravel().tolist() == [2, 4]


def test_edges_share_a_samples_slope_by_its_distance(each_backend: Backend) -> None:
    # On the ramp 0, 10, 20, 30, 40, samples at 0.5, 1.5 and 2.5 have the slope 10. The
    # second is in the middle: of the 4 pixels that an edge moves by, 2 each.
    image = np.arange(0, 50, 10, dtype=np.float32).reshape(1, 1, 5, 1)
    for sample, shares in enumerate([(4, 0), (2, 2), (0, 4)]):
        g = np.zeros((1, 1, 3, 1), np.float32)
        g[0, 0, sample] = 1
        result = grad_boxes(g, image, [[0, 0.125, 0, 0.625]], [0], backend=each_backend)
        assert result.tolist() == [[0, 10 * shares[0], 0, 10 * shares[1]]]


def test_two_hundred_equal_boxes(each_cpu_backend: Backend) -> None:
    """Threads that add without synchronisation lose some: as low as 196 has been seen."""
    grads = np.ones((200, 14, 14, 4), np.float32)
    boxes = np.tile(np.float32([[0, 0, 1, 1]]), (200, 1))
    for threads in (1, 2, 5):
        result = grad_image(grads, boxes, None, (1, 14, 14, 4), backend=each_cpu_backend,
                            num_threads=threads)  # fmt: skip
        assert (result == 200).all()


def test_narrow_dtypes_are_cast_once(each_backend: Backend) -> None:
    """4096 ones in float16: added one by one in float16 they stop at 2048."""
    grads = np.ones((1, 1, 4096, 1), np.float16)
    for dtype in ("float16", "bfloat16", "uint16"):
        result = grad_image(grads, [[0, 0, 0, 0]], [0], (1, 1, 1, 1), dtype=dtype_of(dtype),
                            backend=each_backend)  # fmt: skip
        assert result.astype(float).item() == 4096


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [-3, -0.9, 0.9, 2.5, 255.9, 256, 1e30, math.inf, -math.inf, math.nan],
         [0, 0, 0, 2, 255, 255, 255, 255, 0, 0]),
        ("int8", [-129, -128.9, -1.9, 127.9, 128, math.nan], [-128, -128, -1, 127, 127, 0]),
        ("int64", [-1e30, 1e30, 2.0**62], [-(2**63), 2**63 - 1, 2**62]),
        ("uint64", [-1, 1e30, 2.0**63], [0, 2**64 - 1, 2**63]),
        ("bool", [0, -0.0, 0.5, -2], [False, False, True, True]),
        ("float16", [65519, 65520, -1e9, 2.0**-24, 2.0**-26, 1 + 2.0**-11, 1 + 3 * 2.0**-11],
         [65504, math.inf, -math.inf, 2.0**-24, 0, 1, 1 + 2.0**-9]),
        ("bfloat16", [1 + 2.0**-8, 1 + 3 * 2.0**-8, 3.4e38], [1, 1 + 2.0**-6, math.inf]),
    ],
)  # fmt: skip
def test_casts(dtype: str, values: Any, expected: Any, each_backend: Backend) -> None:
    """Integers: towards zero, saturating, NaN is 0. Floats: to nearest, halves to even."""
    n = len(values)
    grads = np.array(values, np.float32).reshape(1, 1, n, 1)
    result = grad_image(grads, [[0, 0, 0, 1]], [0], (1, 1, n, 1), "nearest",
                        dtype=dtype_of(dtype), backend=each_backend)  # fmt: skip
    assert result.dtype == dtype_of(dtype)
    assert result.ravel().tolist() == expected


def test_casts_of_every_half_and_its_neighbourhood(bits_equal: Any) -> None:
    """Every float16, every middle between two, and the float32 beside each."""
    # The conversion too: AArch64 raises "invalid" for signalling NaNs.
    with np.errstate(all="ignore"):
        halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
        points = np.concatenate([halves, halves * np.float32(1 + 2.0**-11)])
        sides = [np.nextafter(points, np.float32(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([points, *sides])
    # A copy of a float32 subnormal is flushed: it is a sum.
    values = values[~(np.abs(values) < 2.0**-126)].reshape(-1, 1, 1, 1)
    boxes = np.zeros((len(values), 4), np.float32)
    for dtype in ("float16", "bfloat16"):
        with np.errstate(all="ignore"):
            expected = (values + np.float32(0)).astype(dtype_of(dtype))
        result = grad_image(values, boxes, None, values.shape, "nearest", dtype=dtype_of(dtype))
        bits_equal(result, expected, dtype)


def test_float32_sums_flush_subnormals(each_backend: Backend) -> None:
    grads = np.float32([1.5e-38, -1.2e-38]).reshape(2, 1, 1, 1)
    for method in METHODS:
        result = grad_image(grads, [[0, 0, 0, 0]] * 2, [0, 0], (1, 1, 1, 1), method,
                            backend=each_backend)  # fmt: skip
        assert result.item() == 0
    result = grad_image(grads, [[0, 0, 0, 0]] * 2, [0, 0], (1, 1, 1, 1), dtype=np.float64,
                        backend=each_backend)  # fmt: skip
    assert result.item() == float(grads[0, 0, 0, 0]) + float(grads[1, 0, 0, 0])


def test_box_sums_flush_nothing(each_backend: Backend) -> None:
    image = np.float32([0, 2]).reshape(1, 1, 2, 1)
    grads = np.full((1, 1, 1, 1), 2e-40, np.float32)
    result = grad_boxes(grads, image, [[0, 0.5, 0, 0.5]], [0], backend=each_backend)
    assert result[0, 1] == grads.item()


def test_box_sums_do_not_lose_small_terms(each_backend: Backend) -> None:
    """In float32, 1e8 + 1 - 1e8 is 0."""
    image = np.float32([0, 1]).reshape(1, 1, 2, 1)
    grads = np.float32([1e8, 1, -1e8]).reshape(1, 3, 1, 1)
    result = grad_boxes(grads, image, [[0, 0.5, 0, 0.5]], [0], backend=each_backend)
    assert result.tolist() == [[0, 0.5, 0, 0.5]]


@pytest.mark.parametrize("method", METHODS)
def test_infinite_values_go_where_they_are_added(method: str, each_backend: Backend) -> None:
    grads = np.ones((1, 2, 2, 2), np.float32)
    grads[0, 1, 1, 1] = np.inf
    result = grad_image(grads, ONE_BOX, [0], (1, 2, 2, 2), method, backend=each_backend)
    assert np.isfinite(result).tolist() == np.isfinite(grads).tolist()
    # At a sample on a pixel, bilinear adds 0 * inf as well.
    assert np.isnan(result[0, 1, 1, 1]) == (method == "bilinear")


def test_box_gradient_of_nearest_is_that_of_bilinear(
    each_backend: Backend, bits_equal: Any
) -> None:
    image, grads = pixels((1, 6, 7, 2), "float32"), pixels((1, 4, 5, 2), "float32", 1)
    box = [[0.1, 0.2, 0.7, 0.9]]
    results = [grad_boxes(grads, image, box, [0], method=m, backend=each_backend) for m in METHODS]
    assert results[0].all()
    bits_equal(results[1], results[0])


# ---- golden ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(PATH) as file:
        return dict(file)


@pytest.mark.parametrize("geometry", GEOMETRY_IDS)
def test_golden(geometry: str, golden: dict[str, NDArray[Any]], each_backend: Backend) -> None:
    cases = {n: c for n, c in golden_gradients().items() if n.rsplit("-", 2)[0] == geometry}
    assert len(cases) == len(DEPTHS) * len(METHODS)
    for name, case in cases.items():
        for threads in (1, 3):
            result = grad_image(*case, backend=each_backend, num_threads=threads)
            expected = golden[name]
            if expected.dtype == np.uint8:
                assert digest(result).tolist() == expected.tolist(), name
            else:
                assert_bits_equal(result, expected, name)


def test_golden_file_is_whole() -> None:
    with np.load(Path(PATH)) as file:
        assert set(file) == set(golden_gradients())


# ---- the same bits everywhere ----------------------------------------------------------


def arguments_of(
    geometry: Geometry, depth: int, dtype: str = "float32", seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Make gradients, an image, boxes and indices."""
    boxes = np.array(geometry.boxes)
    grads = pixels((len(boxes), *geometry.crop_size, depth), dtype, seed)
    image = pixels((*geometry.image_shape, depth), dtype, seed + 1)
    return grads, image, boxes, indices_of(geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=GEOMETRY_IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_equal_the_reference(
    geometry: Geometry, dtype: str, each_cpu_backend: Backend
) -> None:
    for depth in DEPTHS:
        grads, image, boxes, indices = arguments_of(geometry, depth, dtype)
        for method in METHODS:
            expected, result = (
                grad_image(grads, boxes, indices, image.shape, method, dtype=dtype, backend=b)
                for b in ("reference", each_cpu_backend)
            )
            assert_bits_equal(result, expected, f"image, depth {depth}, {method}")
        expected, result = (
            grad_boxes(grads, image, boxes, indices, dtype=dtype, backend=b)
            for b in ("reference", each_cpu_backend)
        )
        assert expected.any() == (geometry.name != "identity")  # where all slopes are 0
        same_sums(result, expected, grads, image, f"boxes, depth {depth}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype: str, each_cpu_backend: Backend) -> None:
    """Gradients and images of every dtype, results of every dtype."""
    for depth, real in itertools.product((1, 3, 9), (np.float32, np.float64)):
        grads, image, boxes, indices = arguments_of(GEOMETRIES[2], depth, dtype)
        for g, i in ((grads, image), (grads.astype(np.float32), image)):
            expected, result = (
                grad_boxes(g, i, boxes, indices, dtype=real, backend=b)
                for b in ("reference", each_cpu_backend)
            )
            same_sums(result, expected, g, i, f"boxes, {g.dtype}, {i.dtype}, {real}")
        expected, result = (
            grad_image(grads, boxes, indices, image.shape, dtype=real, backend=b)
            for b in ("reference", each_cpu_backend)
        )
        assert_bits_equal(result, expected, f"image, {grads.dtype} to {real}")
        grads = (pixels(grads.shape, "float32") / 16).astype(np.float32)
        expected, result = (
            grad_image(grads, boxes, indices, image.shape, dtype=dtype_of(dtype), backend=b)
            for b in ("reference", each_cpu_backend)
        )
        assert result.astype(float).any()
        assert_bits_equal(result, expected, f"image, {real} to {dtype}")


@pytest.mark.parametrize("depth", [1, 3, 4, 5, 8, 19])
def test_boxes_of_what_is_not_finite(depth: int, each_cpu_backend: Backend) -> None:
    """Infinite gradients and taps make the same of a sum in whatever way it is made."""
    rng = np.random.default_rng(depth)
    kinds = set()
    for geometry, _ in itertools.product(GEOMETRIES, range(4)):
        grads, image, boxes, indices = arguments_of(geometry, depth)
        for array in (grads, image):
            places = rng.choice(array.size, rng.integers(3), replace=False)
            array.reshape(-1)[places] = rng.choice([np.inf, -np.inf, np.nan], len(places))
        with np.errstate(all="ignore"):
            expected = grad_boxes(grads, image, boxes, indices, backend="reference")
            result = grad_boxes(grads, image, boxes, indices, backend=each_cpu_backend)
        same_sums(result, expected, grads, image, geometry.name)
        kinds |= {str(value) for value in expected[~np.isfinite(expected)]}
    assert kinds == {"inf", "-inf", "nan"}


@pytest.mark.parametrize("width", [2, 3])
def test_a_fill_value_beside_the_last_column_is_not_read(width: int, each_backend: Backend) -> None:
    """Of a sample on the last pixel, its neighbour is no tap, however large."""
    image = np.full((1, 9, width, 1), np.finfo(np.float32).min)
    image[0, :, -1, 0] = np.arange(9)
    grads = np.ones((1, 2, 1, 1), np.float32)
    for laid_out in (image, image[:, :, ::-1].copy()[:, :, ::-1], np.asfortranarray(image)):
        result = grad_boxes(grads, laid_out, [[0.125, 1, 0.875, 1]], [0], backend=each_backend)
        assert result.tolist() == [[0, 0, 0, 0]]  # rows on pixels, too
        result = grad_boxes(grads, laid_out, [[0.1, 1, 0.9, 1]], [0], backend=each_backend)
        assert result.tolist() == [[8, 0, 8, 0]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "bfloat16"])
def test_layouts(layout: str, dtype: str, each_backend: Backend) -> None:
    for depth in (1, 3, 8):
        grads, image, boxes, indices = arguments_of(GEOMETRIES[5], depth, dtype)
        laid_out = LAYOUTS[layout](grads), LAYOUTS[layout](image)
        assert_bits_equal(
            grad_image(laid_out[0], boxes, indices, image.shape, backend=each_backend),
            grad_image(grads, boxes, indices, image.shape, backend=each_backend), "image",
        )  # fmt: skip
        for real in (np.float32, np.float64):
            assert_bits_equal(
                grad_boxes(*laid_out, boxes, indices, dtype=real, backend=each_backend),
                grad_boxes(grads, image, boxes, indices, dtype=real, backend=each_backend),
                f"boxes in {real}",
            )


@pytest.mark.parametrize("layout", OUT_LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_out(layout: str, dtype: str, each_backend: Backend) -> None:
    for depth in (1, 3, 8):
        grads, image, boxes, indices = arguments_of(GEOMETRIES[5], depth)
        with np.errstate(all="ignore"):
            out = empty_out(image.shape, dtype, layout)
        result = grad_image(grads, boxes, indices, image.shape, dtype=dtype, out=out,
                            backend=each_backend)  # fmt: skip
        assert result is out
        expected = grad_image(grads, boxes, indices, image.shape, dtype=dtype)
        assert_bits_equal(result, expected)


def test_out_of_boxes(each_backend: Backend) -> None:
    grads, image, boxes, indices = arguments_of(GEOMETRIES[5], 3)
    expected = grad_boxes(grads, image, boxes, indices, backend=each_backend)
    out = np.full((8, len(boxes)), 7.5, np.float32).T[:, ::-2]
    assert grad_boxes(grads, image, boxes, indices, out=out, backend=each_backend) is out
    assert_bits_equal(out, expected)
    assert (out.base.T[:, ::2] == 7.5).all()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("num_boxes", "crop_size", "image_shape"),
    [
        (40, (14, 15), (2, 30, 29, 16)),  # many boxes on the same pixels
        (1, (120, 110), (1, 90, 80, 3)),  # one box: bands and chunks of it
        (3, (9, 8), (5, 40, 7, 1)),
    ],
)
def test_twenty_runs_on_any_number_of_threads(
    num_boxes: int, crop_size: tuple[int, int], image_shape: tuple[int, ...]
) -> None:
    grads, image, boxes, indices = random_gradients(1, num_boxes, crop_size, image_shape)
    images, sums = set(), set()
    for _, threads, backend in itertools.product(range(20), (1, 2, 5), CPU_BACKENDS.values()):
        keywords = {"num_threads": threads, "backend": backend}
        images.add(grad_image(grads, boxes, indices, image_shape, **keywords).tobytes())
        sums.add(grad_boxes(grads, image, boxes, indices, **keywords).tobytes())
    assert len(images) == len(sums) == 1


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_crops_of_several_chunks(depth: int) -> None:
    """The box gradient of a large crop is summed in parts of 65536 values at most."""
    width = 300
    height = 3 * (65536 // (width * depth)) + 5
    grads, image, boxes, indices = random_gradients(2, 2, (height, width), (1, 50, 60, depth))
    expected = grad_boxes(grads, image, boxes, indices, backend="reference")
    results = [
        grad_boxes(grads, image, boxes, indices, backend=backend, num_threads=threads)
        for backend, threads in itertools.product(CPU_BACKENDS.values(), (1, 2))
    ]
    same_sums(results[0], expected, grads, image, "boxes")
    for result in results[1:]:
        assert_bits_equal(result, results[0])


def test_many_bands_and_long_tables(each_cpu_backend: Backend) -> None:
    """Bands of few rows, crop rows of several tables, boxes that touch some bands only."""
    grads, image, boxes, indices = random_gradients(3, 6, (150, 9), (2, 70, 11, 2))
    boxes[3] = [0.1, 0.2, 0.1 + 1e-6, 0.9]  # 150 rows of the crop read two of the image
    boxes[4] = [0.9, 0.2, 0.3, 0.1]
    for method in METHODS:
        expected = grad_image(grads, boxes, indices, image.shape, method, backend="reference")
        for threads in (1, 2, 7):
            result = grad_image(grads, boxes, indices, image.shape, method,
                                backend=each_cpu_backend, num_threads=threads)  # fmt: skip
            assert_bits_equal(result, expected, method)


def test_a_result_larger_than_the_caches() -> None:
    """Written with streaming stores; almost everything in it is zero."""
    shape = (2, 2100, 2500, 1)
    assert 4 * np.prod(shape) > cropkit._cpu.streaming_threshold()
    grads, _, boxes, indices = random_gradients(4, 2, (4, 5), (2, 1, 1, shape[3]))
    out = np.full(shape, 3, np.float32)
    grad_image(grads, boxes, indices, shape, out=out, num_threads=2)
    expected = np.zeros(shape, np.float32)
    for n, index in enumerate(indices):
        small = grad_image(grads[n : n + 1], boxes[n : n + 1], [0], (1, *shape[1:]))
        expected[index] += small[0]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
