"""Expectations worked out by hand from the formulas; no other backend is asked.

Images here are one row or a small grid, with a crop whose sample positions v stand in a
comment or follow from a step of 1, 1/2 or 1/4 pixel.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import cropkit
from cropkit import Backend

INF, NAN = np.inf, np.nan
Crop = Callable[..., NDArray[Any]]


@pytest.fixture
def crop(each_backend: Backend) -> Crop:
    """Crop one image of one channel; rows and columns in, rows and columns out."""

    def crop_one(
        image: ArrayLike,
        box: ArrayLike,
        size: tuple[int, int],
        method: str = "bilinear",
        **options: Any,
    ) -> NDArray[Any]:
        pixels = np.asarray(image)
        if pixels.dtype == np.float64 and "keep" not in options:
            pixels = pixels.astype(np.float32)
        options.pop("keep", None)
        return cropkit.crop_and_resize(
            pixels[None, :, :, None], [box], [0], size, method, backend=each_backend, **options
        )[0, :, :, 0]

    return crop_one


def same(actual: NDArray[Any], expected: ArrayLike) -> None:
    """Assert equal values, signs of zeros included; any NaN equals any NaN."""
    wanted = np.asarray(expected, actual.dtype)
    np.testing.assert_array_equal(actual, wanted, strict=True)
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(actual)[number], np.signbit(wanted)[number])


GRID = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


# ---- where samples lie ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_whole_image_at_its_own_size(crop: Crop, method: str) -> None:
    same(crop(GRID, [0, 0, 1, 1], (3, 3), method), GRID)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_flips(crop: Crop, method: str) -> None:
    same(crop(GRID, [1, 0, 0, 1], (3, 3), method), [[7, 8, 9], [4, 5, 6], [1, 2, 3]])
    same(crop(GRID, [0, 1, 1, 0], (3, 3), method), [[3, 2, 1], [6, 5, 4], [9, 8, 7]])
    same(crop(GRID, [1, 1, 0, 0], (3, 3), method), [[9, 8, 7], [6, 5, 4], [3, 2, 1]])


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_corner_pixels_at_a_step_of_two(crop: Crop, method: str) -> None:
    same(crop(GRID, [0, 0, 1, 1], (2, 2), method), [[1, 3], [7, 9]])


def test_half_pixels(crop: Crop) -> None:
    same(crop([[1, 3]], [0, 0, 0, 1], (1, 3)), [[1, 2, 3]])
    same(crop([[1], [3]], [0, 0, 1, 0], (3, 1)), [[1], [2], [3]])


def test_both_axes_interpolate(crop: Crop) -> None:
    # One sample at row 0.5, column 0.25: (0 + 10/4 + 20 + 20/4) / 2
    same(crop([[0, 10], [20, 40]], [0.5, 0.25, 0.5, 0.25], (1, 1)), [[13.75]])


def test_one_sample_lies_in_the_middle(crop: Crop) -> None:
    image = np.arange(16).reshape(4, 4)
    same(crop(image, [0, 0, 1, 1], (1, 1)), [[7.5]])  # row 1.5, column 1.5
    same(crop(image, [0, 0, 1, 1], (1, 1), "nearest"), [[10]])  # row 2, column 2
    same(crop(image, [1, 1, 1, 1], (1, 1)), [[15]])
    same(crop(image, [0, 0, 1, 1], (4, 1)), [[1.5], [5.5], [9.5], [13.5]])
    same(crop(image, [0, 0, 1, 1], (1, 4)), [[6, 7, 8, 9]])


def test_edges_of_one_sample_are_added_in_float32(crop: Crop) -> None:
    # 1 + 2**-25 is 1 in float32, so v = 2 * 0.5 * 1 = 1: inside, and the last pixel.
    # In float64 it lies just past the last pixel.
    box = [0, 2.0**-25, 0, 2.0]
    same(crop([[1, 2]], box, (1, 1), extrapolation_value=-1), [[2]])
    same(crop([[1, 2]], box, (1, 1), extrapolation_value=-1, dtype=np.float64), [[-1]])


def test_middle_of_one_sample_is_computed_in_double(crop: Crop) -> None:
    """Half of the smallest normal float32 would be flushed in float32."""
    # a + b = 2**-126, v = 2**-127 * 4 = 2**-125
    same(crop([[0, 2.0**127, 0, 0, 0]], [0, 0, 0, 2.0**-126], (1, 1)), [[4]])


def test_long_axis_steps_are_exact(crop: Crop) -> None:
    same(crop([np.arange(1001)], [0, 0, 0, 1], (1, 3)), [[0, 500, 1000]])
    same(crop([np.arange(1001)], [0, 1, 0, 0], (1, 5), "nearest"), [[1000, 750, 500, 250, 0]])


def test_nearest_rounds_halves_away_from_zero(crop: Crop) -> None:
    # v = 0.5, 1.5, 2.5, 3.5
    same(crop([[0, 1, 2, 3, 4]], [0, 0.125, 0, 0.875], (1, 4), "nearest"), [[1, 2, 3, 4]])
    # flipped, the same halves
    same(crop([[0, 1, 2, 3, 4]], [0, 0.875, 0, 0.125], (1, 4), "nearest"), [[4, 3, 2, 1]])


def test_nearest_just_below_a_half(crop: Crop) -> None:
    """Adding one half and taking the floor would round it up."""
    v = np.nextafter(np.float32(0.5), np.float32(0))
    same(crop([[10, 20]], [0, v, 0, v], (1, 1), "nearest"), [[10]])
    v = np.nextafter(0.5, 0)
    same(crop([[10, 20]], [0, v, 0, v], (1, 1), "nearest", dtype=np.float64), [[10]])


def test_nearest_takes_a_row_and_a_column(crop: Crop) -> None:
    # rows 0, 0.5, 1, 1.5, 2; columns 0, 2/3, 4/3, 2
    expected = [[1, 2, 2, 3], [4, 5, 5, 6], [4, 5, 5, 6], [7, 8, 8, 9], [7, 8, 8, 9]]
    same(crop(GRID, [0, 0, 1, 1], (5, 4), "nearest"), expected)


def test_one_pixel_image(crop: Crop) -> None:
    """Every finite position is pixel 0: v = y * 0."""
    same(crop([[7]], [0, 0, 1, 1], (2, 3)), [[7, 7, 7], [7, 7, 7]])
    same(crop([[7]], [5, -3, 9, 4], (2, 2)), [[7, 7], [7, 7]])
    same(crop([[7]], [-1, 1, 0, 0], (1, 1), "nearest"), [[7]])


def test_boxes_choose_their_images(each_backend: Backend) -> None:
    image = np.array([10, 20, 30], np.uint8).reshape(3, 1, 1, 1)
    boxes = np.zeros((4, 4))
    result = cropkit.crop_and_resize(image, boxes, [2, 0, 1, 2], (1, 1), backend=each_backend)
    assert result.ravel().tolist() == [30, 10, 20, 30]


# ---- outside the image --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_outside_is_extrapolated(crop: Crop, method: str) -> None:
    # v = -1, 0, 1, 2, 3
    result = crop([[5, 6, 7]], [0, -0.5, 0, 1.5], (1, 5), method, extrapolation_value=-2.5)
    same(result, [[-2.5, 5, 6, 7, -2.5]])
    result = crop([[5], [6], [7]], [1.5, 0, -0.5, 0], (5, 1), method, extrapolation_value=-2.5)
    same(result, [[-2.5], [7], [6], [5], [-2.5]])


def test_a_row_outside_is_extrapolated_whole(crop: Crop) -> None:
    # rows -2, 0, 2; columns 1, 2, 3
    result = crop(GRID, [-1, 0.5, 1, 1.5], (3, 3))
    same(result, [[0, 0, 0], [2, 3, 0], [8, 9, 0]])


def test_nearest_does_not_reach_outside(crop: Crop) -> None:
    """A position of -0.25 is nearest to pixel 0, and outside all the same."""
    # v = -0.25, 0.25, 0.75, 1.25
    result = crop([[5, 6]], [0, -0.25, 0, 1.25], (1, 4), "nearest", extrapolation_value=9)
    same(result, [[9, 5, 6, 9]])


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_the_last_sample_may_round_past_the_end(crop: Crop, method: str) -> None:
    """4 pixels to 22 samples: 21 * float32(3 / 21) is more than 3."""
    result = crop(np.ones((4, 4)), [0, 0, 1, 1], (22, 22), method, extrapolation_value=-1)
    expected = np.ones((22, 22))
    expected[-1, :] = expected[:, -1] = -1
    same(result, expected)
    assert np.count_nonzero(result == -1) == 43


def test_extrapolation_value_is_copied(crop: Crop) -> None:
    for value in (NAN, INF, -INF, -0.0, 1e-40, 1e300, 1 / 3):
        with np.errstate(over="ignore"):
            expected = np.float32(value)
        same(crop([[1, 1]], [0, 2, 0, 2], (1, 1), extrapolation_value=value), [[expected]])
        result = crop([[1]], [0, 0, 0, 0], (1, 1), extrapolation_value=value)
        same(result, [[1]])
    exact = crop([[1, 1]], [0, 2, 0, 2], (1, 1), extrapolation_value=1 / 3, dtype=np.float64)
    same(exact, [[1 / 3]])


def test_huge_boxes_are_outside(crop: Crop) -> None:
    """The scale overflows in float32: no position is a number; in float64 they all are."""
    image = np.arange(16).reshape(4, 4)
    result = crop(image, [-3e38, 0, 3e38, 1], (3, 3), extrapolation_value=-1)
    same(result, np.full((3, 3), -1))
    # rows -9e38, 0, 9e38; columns 0, 1.5, 3
    box = [-3e38, 0, 3e38, 1]
    result = crop(image, box, (3, 3), extrapolation_value=-1, dtype=np.float64)
    same(result, [[-1, -1, -1], [0, 1.5, 3], [-1, -1, -1]])


# ---- values that are not plain numbers -----------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 8, 17])
@pytest.mark.parametrize("width", [3, 5, 16, 40])
def test_infinite_pixel(depth: int, width: int, each_backend: Backend) -> None:
    """It makes NaN even at weight 0 (inf - inf); a neighbour that is no tap does nothing."""
    image = np.arange(1, width + 1, dtype=np.float32).repeat(depth).reshape(1, 1, width, depth)
    for place in (0, 1, width // 2, width - 1):
        special = image.copy()
        special[0, 0, place] = INF
        expected = image.copy()
        expected[0, 0, place] = NAN
        result = cropkit.crop_and_resize(
            special, [[0, 0, 0, 1]], [0], (1, width), backend=each_backend
        )
        same(result, expected)
        result = cropkit.crop_and_resize(
            special, [[0, 0, 0, 1]], [0], (1, width), "nearest", backend=each_backend
        )
        same(result, special)


def test_infinite_pixel_between(crop: Crop) -> None:
    # columns 0, 0.5, 1, 1.5, 2; row 0, where inf - inf is NaN, and row 0.5
    same(crop([[1, INF, 3]], [0, 0, 0, 1], (1, 5)), [[1, NAN, NAN, NAN, 3]])
    image = [[1, 1, 1], [1, 1, INF]]
    same(crop(image, [0.5, 0, 0.5, 1], (1, 5)), [[1, 1, 1, INF, NAN]])


def test_infinite_row(crop: Crop) -> None:
    same(crop([[1], [INF], [3]], [0, 0, 1, 0], (3, 1)), [[1], [NAN], [3]])


def test_nan_pixel_stays_where_it_is_read(crop: Crop) -> None:
    same(crop([[1, NAN, 3, 4]], [0, 0, 0, 1], (1, 4)), [[1, NAN, 3, 4]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_negative_zero_pixels(crop: Crop, dtype: type) -> None:
    """At weight 0 both taps are the left pixel: -0 + (-0 - -0) * 0 = +0.

    With the right neighbour as the other tap it would be -0 + (-5 - -0) * 0 = -0.
    """
    image = [[-0.0, -5, -0.0, -5, -0.0, -5, -0.0, -5, -0.0]]
    expected = [[0.0, -5, 0.0, -5, 0.0, -5, 0.0, -5, 0.0]]
    same(crop(image, [0, 0, 0, 1], (1, 9), dtype=dtype), expected)
    same(crop(image, [0, 0, 0, 1], (1, 9), "nearest", dtype=dtype), image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_negative_zero_positions(crop: Crop, dtype: type) -> None:
    """Position -0 is inside; its weight is -0, so -0 + (-0 - -0) * -0 = -0."""
    image = [[-0.0, -0.0], [-0.0, -0.0]]
    box = [-0.0, -0.0, -0.0, -0.0]
    same(crop(image, box, (1, 1), extrapolation_value=7, dtype=dtype), [[-0.0]])
    # v[0] = -0 * 1 + 0 * -1 = -0, v[1] = -1
    same(crop(image, [-0.0, -0.0, -1, -1], (2, 2), extrapolation_value=7, dtype=dtype),
         [[-0.0, 7], [7, 7]])  # fmt: skip
    # One weight of +0 is enough for a positive zero.
    same(crop(image, [0, -0.0, 0, -0.0], (1, 1), extrapolation_value=7, dtype=dtype), [[0.0]])


# ---- subnormal numbers: flushed in float32, kept in float64 -----------------------------


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_subnormal_negative_edge_is_inside(crop: Crop, method: str) -> None:
    box = [-1e-43, -1e-43, -1e-43, -1e-43]
    same(crop(GRID, box, (1, 1), method, extrapolation_value=-9), [[1]])
    same(crop(GRID, box, (2, 2), method, extrapolation_value=-9), [[1, 1], [1, 1]])


@pytest.mark.parametrize("edge", [-1e-43, -5e-324])
def test_float64_edges_are_not_flushed(crop: Crop, edge: float) -> None:
    result = crop(GRID, [edge] * 4, (1, 1), extrapolation_value=-9, dtype=np.float64)
    same(result, [[-9]])


def test_subnormal_pixels(crop: Crop) -> None:
    image = np.array([[1e-40, -1e-40, 1e-40]], np.float32)
    box = [0, 0, 0, 1]
    same(crop(image, box, (1, 3)), [[0, 0, 0]])
    same(crop(image, box, (1, 3), "nearest"), image)  # a copy flushes nothing
    same(crop(image, box, (1, 3), dtype=np.float64), image.astype(np.float64))
    # Rounding from float64 is arithmetic, and flushes.
    wide = image.astype(np.float64)
    same(crop(wide, box, (1, 3), "nearest", keep=True), [[0, -0.0, 0]])
    smallest = np.array([[5e-324, 1, 5e-324]])
    same(crop(smallest, box, (1, 3), dtype=np.float64, keep=True), smallest)


def test_subnormal_differences(crop: Crop) -> None:
    """1.3e-38 - 1.2e-38 is flushed, so nothing lies between the two pixels."""
    a, b = np.float32(1.2e-38), np.float32(1.3e-38)
    same(crop([[a, b]], [0, 0, 0, 1], (1, 5)), [[a, a, a, a, b]])


def test_subnormal_halves_are_normal_floats(crop: Crop) -> None:
    image = np.array([[2.0**-24, -(2.0**-24), 3 * 2.0**-24, 65504]], np.float16)
    for method in ("bilinear", "nearest"):
        same(crop(image, [0, 0, 0, 1], (1, 4), method), image.astype(np.float32))


# ---- how pixels become numbers ------------------------------------------------------------

EXTREMES = {
    "bool": ([False, True], [0, 1]),
    "uint8": ([0, 255], [0, 255]),
    "int8": ([-128, 127], [-128, 127]),
    "uint16": ([0, 65535], [0, 65535]),
    "int16": ([-32768, 32767], [-32768, 32767]),
    "uint32": ([1, 2**32 - 1, 2**24 + 1, 2**24 + 3], [1, 2**32, 2**24, 2**24 + 4]),
    "int32": ([-(2**31), 2**31 - 1, 2**24 + 1, -(2**24) - 3],
              [-(2**31), 2**31, 2**24, -(2**24) - 4]),
    # 2**62 + 2**38 + 1 lies just above the middle between two floats; rounded to float64
    # first, it would lie on it and go to the even one, 2**62.
    "uint64": ([1, 2**64 - 1, 2**63, 2**62 + 2**38 + 1], [1, 2**64, 2**63, 2**62 + 2**39]),
    "int64": ([-(2**63), 2**63 - 1, -1, 2**62 + 2**38 + 1],
              [-(2**63), 2**63, -1, 2**62 + 2**39]),
    "float16": ([65504, -0.5, 2.0**-24], [65504, -0.5, 2.0**-24]),
    "float32": ([3e38, -1.5], [np.float32(3e38), -1.5]),
    "float64": ([1 / 3, 1e300, 2**24 + 1], [np.float32(1 / 3), INF, 2**24]),
}  # fmt: skip


@pytest.mark.parametrize("dtype", EXTREMES)
def test_pixels_are_rounded_to_float32(crop: Crop, dtype: str) -> None:
    given, expected = EXTREMES[dtype]
    image = np.array([given], dtype)
    last = len(given) - 1
    for position, value in enumerate(expected):
        v = position / last
        box = [0, v, 0, v]
        same(crop(image, box, (1, 1), "nearest", keep=True), [[value]])
        if abs(value) < INF and v in (0, 1):
            same(crop(image, box, (1, 1), keep=True), [[value]])


def test_bfloat16_pixels(crop: Crop) -> None:
    image = np.array([[1.0, -2.5, 3e38]], ml_dtypes.bfloat16)
    expected = [[1, -2.5, np.float32(image[0, 2])]]
    for method in ("bilinear", "nearest"):
        same(crop(image, [0, 0, 0, 1], (1, 3), method), expected)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_float64_result_keeps_what_float32_cannot(crop: Crop, method: str) -> None:
    image = np.array([[2**53 - 1, 2**24 + 1, -(2**53)]])
    result = crop(image, [0, 0, 0, 1], (1, 3), method, dtype=np.float64)
    same(result, image.astype(np.float64))
    # 2**53 + 1 is not a float64
    same(crop([[2**53 + 1]], [0, 0, 0, 0], (1, 1), method, dtype=np.float64), [[2.0**53]])


def test_columns_are_interpolated_first(crop: Crop) -> None:
    """Rows first, the right column would round 8388608.5 to even, and the result be 0."""
    # top 0.5; bottom -2**24 + 2**25 / 2 = 0
    same(crop([[0, 1], [-(2**24), 2**24]], [0.5, 0.5, 0.5, 0.5], (1, 1)), [[0.25]])


def test_each_operation_is_rounded(crop: Crop) -> None:
    """A fused multiply-add would give 1 + 2**-23 - 2**-47 before its one rounding."""
    # w = 1/4, pixels a = 1, b = a + d: d * w is exact; a + d * w rounds to even.
    a, d = 1.0, 3 * 2.0**-23
    # d * w = 0.75 * 2**-23, and 1 + 0.75 * 2**-23 rounds to 1 + 2**-23
    same(crop([[a, a + d]], [0, 0.25, 0, 0.25], (1, 1)), [[1 + 2.0**-23]])
    # -1 + (1 + e) * (1 - e) with e = 2**-23: rounded, the product is 1 and the sum 0
    e = 2.0**-23
    w = 1 - e
    same(crop([[-1, e]], [0, w, 0, w], (1, 1)), [[0.0]])
