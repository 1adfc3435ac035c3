"""Values of crop pixels, for every dtype, layout and size."""

from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from cropkit.testing._arrays import (
    DTYPES,
    GEOMETRIES,
    METHODS,
    OUT_LAYOUTS,
    VIEWS,
    dtype_of,
    empty_out,
    indices_of,
    memory_of,
    pixels,
    room_for,
)
from cropkit.testing._suite import Suite, reference, same_bits

INF, NAN = np.inf, np.nan
# Depths for which a kernel may have loops of their own: one, RGB, RGBA, more than a vector.
DEPTHS: Final = (1, 3, 4, 17)

methods = pytest.mark.parametrize("method", METHODS)
result_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
image_dtypes = pytest.mark.parametrize("image_dtype", DTYPES)

# Pixels that float32 cannot hold, and the float32 to which each is rounded.
ROUNDED: Final[dict[str, tuple[list[Any], list[Any]]]] = {
    "int32": ([2**31 - 1, 2**24 + 1, -(2**24) - 3], [2**31, 2**24, -(2**24) - 4]),
    "uint32": ([2**32 - 1, 2**24 + 1, 2**24 + 3], [2**32, 2**24, 2**24 + 4]),
    # 2**62 + 2**38 + 1 lies just above the middle between two floats. Rounded to float64
    # first, it would lie on the middle and be rounded to the even float, 2**62.
    "int64": ([2**63 - 1, -1, 2**62 + 2**38 + 1], [2**63, -1, 2**62 + 2**39]),
    "uint64": ([2**64 - 1, 2**63, 2**62 + 2**38 + 1], [2**64, 2**63, 2**62 + 2**39]),
    "float64": ([1 / 3, 1e300, 2**24 + 1], [np.float32(1 / 3), INF, 2**24]),
}  # fmt: skip


def need_dtype(name: str) -> None:
    """Skip the test if `name` is bfloat16 and NumPy has no such dtype here."""
    try:
        dtype_of(name)
    except ImportError:
        pytest.skip("not tested: bfloat16 needs ml_dtypes: pip install ml_dtypes")


class ValueTests(Suite):
    """Values: pixels, dtypes and layouts."""

    def row(self, image: ArrayLike, edges: tuple[float, float], count: int, *more: Any,
            dtype: Any = np.float32, pixel: Any = np.float32) -> NDArray[Any]:  # fmt: skip
        """Crop `image`, which is one row, between two edges."""
        array = np.asarray(image, pixel).reshape(1, 1, -1, 1)
        box = [[0, edges[0], 0, edges[1]]]
        return self.crop(array, box, [0], (1, count), *more, dtype=dtype)[0, 0, :, 0]

    # ---- against the reference ----------------------------------------------------------

    @result_dtypes
    @methods
    @image_dtypes
    def test_every_dtype_and_depth(self, image_dtype: str, method: str, dtype: str) -> None:
        """Pixels include infinity, NaN, -0.0 and subnormal numbers if the dtype has them."""
        need_dtype(image_dtype)
        first = DTYPES.index(image_dtype)
        for number, geometry in enumerate(GEOMETRIES * 2):
            depth = DEPTHS[(first + number) % len(DEPTHS)]  # two depths for each geometry
            special = 0.02 if self.exact else 0.0
            image = pixels((*geometry.image_shape, depth), image_dtype, depth, special)
            call = (image, geometry.boxes, indices_of(geometry), geometry.crop_size, method, 0.5)
            expected = reference("crop_and_resize", *call, dtype=dtype)
            result = self.crop(*call, dtype=dtype)
            what = f"{image_dtype} image {image.shape}, {geometry.name}, {method} in {dtype}"
            if method == "nearest":
                same_bits(result, expected, what)
            else:
                with np.errstate(all="ignore"):
                    scale = float(np.abs(image.astype(np.float64)).max())
                self.same(result, expected, what, scale)

    @result_dtypes
    def test_values_that_a_fused_multiply_add_rounds_otherwise(self, dtype: str) -> None:
        """The values are random first, and then worked out by hand."""
        image, more = pixels((1, 1, 50, 16), dtype, 1), ([[0, 0.03, 0, 0.9]], [0], (1, 71))
        expected = reference("crop_and_resize", image, *more, dtype=dtype)
        result = self.crop(image, *more, dtype=dtype)
        what = "random pixels"
        if dtype == "float32":
            fused = fused_lerp(image, 0.03, 0.9, 71)
            as_fused = np.count_nonzero((result == fused) & (result != expected))
            what = f"{what}, {as_fused} of them as a fused multiply-add gives them"
        self.same(result, expected, what, 128.0)
        # -1 + (1 + e) * (1 - e) is 0 if the product is rounded to 1, and -e**2 if fused.
        e = float(np.finfo(dtype).eps)
        image = np.array([-1, e], dtype).reshape(1, 1, 2, 1)
        crop = self.crop(image, [[0, 1 - e, 0, 1 - e]], [0], (1, 1), dtype=dtype)
        self.same(crop, np.zeros_like(crop), "-1 + (1 + e) * (1 - e)", 1.0)

    def test_columns_are_interpolated_before_rows(self) -> None:
        """With rows first, 8388608.5 would be rounded to even and the result would be 0."""
        image = np.array([[0, 1], [-(2**24), 2**24]], np.float32).reshape(1, 2, 2, 1)
        crop = self.crop(image, [[0.5] * 4], [0], (1, 1))
        self.same(crop, np.full((1, 1, 1, 1), 0.25, np.float32), "columns first", 2.0**24)

    # ---- by hand ------------------------------------------------------------------------

    @methods
    def test_one_pixel_images(self, method: str) -> None:
        image = np.array([5], np.float32).reshape(1, 1, 1, 1)
        boxes = [[0, 0, 1, 1], [1, 1, 0, 0], [0.3, -8, 0.6, 9]]
        crops = self.crop(image, boxes, [0] * 3, (3, 2), method, -1)
        self.same(crops, np.full((3, 3, 2, 1), 5, np.float32), "an image of one pixel")

    def test_one_sample_lies_in_the_middle(self) -> None:
        image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
        crop = self.crop(image, [[0, 0, 1, 1], [1, 1, 1, 1]], [0, 0], (1, 1))
        self.same(crop.ravel(), np.array([7.5, 15], np.float32), "one sample", 16.0)
        crop = self.crop(image, [[0, 0, 1, 1]], [0], (1, 1), "nearest")
        self.same(crop.ravel(), np.array([10], np.float32), "one sample, nearest")
        crop = self.crop(image, [[0, 0, 1, 1]], [0], (4, 1))
        self.same(crop.ravel(), np.array([1.5, 5.5, 9.5, 13.5], np.float32), "one column", 16.0)

    @methods
    def test_flipped_boxes_read_backwards(self, method: str) -> None:
        image = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
        boxes = [[1, 0, 0, 1], [0, 1, 1, 0]]
        crops = self.crop(image, boxes, [0, 0], (3, 3), method)
        self.same(crops[0], image[0, ::-1], "y1 > y2")
        self.same(crops[1], image[0, :, ::-1], "x1 > x2")

    def test_boxes_choose_their_images(self) -> None:
        image = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)
        indices = [4, 0, 2, 2, 1, 3]
        crops = self.crop(image, [[0, 0, 1, 1]] * 6, indices, (1, 1))
        self.same(crops.ravel(), np.array(indices, np.float32), "images by index")

    @result_dtypes
    def test_infinite_pixels_spoil_samples_that_have_them_as_a_tap(self, dtype: str) -> None:
        """An infinite tap gives NaN even at weight 0; a neighbour that is no tap does nothing."""
        crop = self.row([1, INF, 3], (0, 1), 5, dtype=dtype)
        what = "an infinite pixel between two, at half steps"
        self.same(crop, np.array([1, NAN, NAN, NAN, 3], dtype), what)
        crop = self.row([1, INF, 3], (0, 1), 3, "nearest", dtype=dtype)
        self.same(crop, np.array([1, INF, 3], dtype), "an infinite pixel, nearest")

    @result_dtypes
    def test_nan_pixels_stay_where_they_are_read(self, dtype: str) -> None:
        crop = self.row([1, NAN, 3, 4], (0, 1), 4, dtype=dtype)
        self.same(crop, np.array([1, NAN, 3, 4], dtype), "a NaN pixel at weight 0")

    @result_dtypes
    def test_signs_of_zeros(self, dtype: str) -> None:
        """At weight 0 both taps are the left pixel, and -0 + (-0 - -0) * 0 is +0."""
        if not self.exact:
            pytest.skip("not offered: the backend is not exact, signs of zeros are not compared")
        crop = self.row([-0.0, -5, -0.0, -5, -0.0], (0, 1), 5, dtype=dtype)
        self.same(crop, np.array([0.0, -5, 0.0, -5, 0.0], dtype), "pixels of -0.0")
        image = np.full((1, 2, 2, 1), -0.0, np.float32)
        crop = self.crop(image, [[-0.0] * 4], [0], (1, 1), dtype=dtype)
        self.same(crop, np.full((1, 1, 1, 1), -0.0, dtype), "a pixel of -0.0 at position -0.0")

    def test_float32_subnormals_are_zeros(self) -> None:
        if not self.exact:
            pytest.skip("not offered: the backend is not exact, subnormals are not compared")
        tiny = np.array([1e-40, -1e-40, 1e-40], np.float32)
        self.same(self.row(tiny, (0, 1), 3), np.zeros(3, np.float32), "pixels of 1e-40")
        a, b = np.float32(1.2e-38), np.float32(1.3e-38)
        crop = self.row([a, b], (0, 1), 5)
        self.same(crop, np.array([a, a, a, a, b]), "pixels with a subnormal difference")
        self.same(self.row(tiny, (0, 1), 3, "nearest"), tiny, "copies of 1e-40, nearest")
        rounded = self.row(tiny, (0, 1), 3, "nearest", pixel=np.float64)
        self.same(rounded, np.array([0, -0.0, 0], np.float32), "float64 pixels of 1e-40, rounded")

    def test_float64_keeps_subnormals(self) -> None:
        tiny = np.array([5e-324, 1, 5e-324])
        crop = self.row(tiny, (0, 1), 3, dtype=np.float64, pixel=np.float64)
        self.same(crop, tiny, "pixels of 5e-324")

    @methods
    @pytest.mark.parametrize("image_dtype", ROUNDED)
    def test_pixels_are_rounded_to_float32_first(self, image_dtype: str, method: str) -> None:
        for given, value in zip(*ROUNDED[image_dtype], strict=True):
            pixel = np.array(given, image_dtype)
            crop = self.row(pixel, (0, 0), 1, method, pixel=image_dtype)
            wanted = NAN if method == "bilinear" and value == INF else value
            what = f"the {image_dtype} pixel {given}, {method}"
            self.same(crop, np.array([wanted], np.float32), what)

    @methods
    def test_float64_results_keep_what_float32_cannot(self, method: str) -> None:
        given = [2**53 - 1, 2**24 + 1, -(2**53)]
        crop = self.row(given, (0, 1), 3, method, dtype=np.float64, pixel=np.int64)
        self.same(crop, np.array(given, np.float64), "int64 pixels in float64")

    @methods
    def test_bfloat16_pixels(self, method: str) -> None:
        need_dtype("bfloat16")
        given = np.array([1.0, -2.5, 3e38], dtype_of("bfloat16"))
        crop = self.row(given, (0, 1), 3, method, pixel=given.dtype)
        self.same(crop, given.astype(np.float32), "bfloat16 pixels")

    @result_dtypes
    def test_extrapolation_values_are_copied(self, dtype: str) -> None:
        for value in (NAN, INF, -INF, -0.0, 1e-40, 1e300, 1 / 3):
            with np.errstate(over="ignore"):
                expected = np.array([value], dtype)
            crop = self.row([1, 1], (2, 2), 1, "bilinear", value, dtype=dtype)
            same_bits(crop, expected, f"extrapolation_value {value}")

    def test_empty_calls(self) -> None:
        """A call may have no boxes, no channels, or neither images nor boxes."""
        image = np.ones((2, 4, 5, 3), np.float32)
        box, none = [[0, 0, 1, 1]], np.zeros((0, 4))
        for given, boxes, indices, expected in (
            (image, none, [], (0, 2, 3, 3)),
            (image[..., :0], box, [0], (1, 2, 3, 0)),
            (image[:0], none, [], (0, 2, 3, 3)),
        ):
            result = self.crop(given.copy(), boxes, indices, (2, 3))
            what = f"an image {given.shape} and {len(boxes)} boxes"
            self.same(result, np.zeros(expected, np.float32), what)

    # ---- layouts ------------------------------------------------------------------------

    @pytest.mark.parametrize("image_dtype", ["uint8", "float16", "float32", "float64"])
    @methods
    def test_images_of_any_layout(self, image_dtype: str, method: str) -> None:
        """Strides, byte order and alignment are free; images may be read-only or mapped files."""
        for depth in (1, 3, 4):
            image = pixels((2, 7, 23, depth), image_dtype, 3)
            more = ([[0, 0, 1, 1], [0.9, 1.2, 0.1, 0.3]], [1, 0], (5, 29), method)
            expected = reference("crop_and_resize", image, *more)
            for name, given in self.layouts(image):
                before = memory_of(given) if self.on_host else b""
                result = self.from_device(self.run("crop_and_resize", given, *more))
                what = f"image of layout {name}, {image_dtype}, depth {depth}, {method}"
                self.same(result, expected, what, 128.0 if image_dtype != "uint8" else 255.0)
                if self.on_host:
                    assert memory_of(given) == before, f"{what}: the image was written to"

    @result_dtypes
    @methods
    def test_out_of_any_layout_and_nothing_around_it(self, method: str, dtype: str) -> None:
        """The bytes around `out`, and between its elements, stay as they were."""
        for depth in (1, 3, 4):
            image = pixels((2, 7, 23, depth), "uint8", 3)
            more = ([[0, 0, 1, 1], [0.9, 1.2, -0.1, 0.3]], [1, 0], (5, 29), method, 0.5)
            expected = reference("crop_and_resize", image, *more, dtype=dtype)
            given = self.to_device(image)
            for name in OUT_LAYOUTS if self.on_host else VIEWS:
                what = f"out of layout {name}, depth {depth}, {method}"
                if self.on_host:
                    out = empty_out(expected.shape, dtype, name)
                    before = memory_of(out)
                    self.run("crop_and_resize", given, *more, dtype=dtype, out=out)
                    self.same(out.copy(), expected, what, 255.0)
                    out[...] = -77777.25
                    assert memory_of(out) == before, f"{what}: bytes outside of out were written"
                    continue
                view = VIEWS[name]
                room = room_for(view, np.full(expected.shape, -77777.25, dtype))
                there = self.to_device(room.copy())
                self.run("crop_and_resize", given, *more, dtype=dtype, out=there[view.place])
                found = self.from_device(there).copy()
                self.same(found[view.place], expected, what, 255.0)
                found[view.place] = -77777.25
                same_bits(found, room, f"{what}: what lies around out")

    @result_dtypes
    def test_nothing_is_written_before_or_behind_a_packed_out(self, dtype: str) -> None:
        """`out` begins at each offset within a cache line; its rows fill no whole vector."""
        image = pixels((1, 6, 40, 3), "uint8", 2)
        there = self.to_device(image)
        for box, columns in (([0, 0, 1, 1], 23), ([0.2, -0.3, 0.9, 1.1], 37), ([0, 0, 1, 1], 3)):
            more = ([box, box], [0, 0], (5, columns))
            expected = reference("crop_and_resize", image, *more, dtype=dtype)
            for offset in range(17):
                place = slice(offset, offset + expected.size)
                memory = self.to_device(np.full(expected.size + 40, 0.625, dtype))
                out = memory[place].reshape(expected.shape)
                self.run("crop_and_resize", there, *more, dtype=dtype, out=out)
                what = f"out {offset} elements into its memory, {columns} columns"
                found = self.from_device(memory)
                self.same(found[place].reshape(expected.shape), expected, what, 255.0)
                around = np.delete(found, place)
                assert (around == 0.625).all(), f"{what}: elements around out were written"

    def test_boxes_and_indices_of_any_layout(self) -> None:
        image = pixels((3, 6, 9, 3), "uint8", 3)
        boxes = (pixels((7, 4), "int8", 4) / 128).astype(np.float32)
        indices = np.arange(7) % 3
        expected = reference("crop_and_resize", image, boxes, indices, (4, 5))
        spaced = np.zeros((7, 2), np.intp)
        spaced[:, 1] = indices
        for name, given_boxes, given_indices in (
            ("boxes in Fortran order", np.asfortranarray(boxes), indices),
            ("boxes backwards", boxes[::-1].copy()[::-1], indices),
            ("boxes byte-swapped", boxes.astype(boxes.dtype.newbyteorder()), indices),
            ("boxes as lists", boxes.tolist(), indices.tolist()),
            ("indices with a stride", boxes, spaced[:, 1]),
            ("indices as uint8", boxes, indices.astype(np.uint8)),
        ):
            result = self.crop(image, given_boxes, given_indices, (4, 5))
            self.same(result, expected, name, 255.0)

    @methods
    def test_inputs_are_left_alone(self, method: str) -> None:
        image = pixels((2, 6, 9, 3), "float32", 5)
        boxes = np.array([[0, 0, 1, 1], [0.7, 0.2, -0.2, 1.3]], np.float32)
        indices = np.array([1, 0], np.intp)
        kept = [array.copy() for array in (image, boxes, indices)]
        there = self.to_device(image.copy())
        self.run("crop_and_resize", there, boxes, indices, (4, 5), method)
        arrays = {"image": self.from_device(there), "boxes": boxes, "box_indices": indices}
        for (name, array), before in zip(arrays.items(), kept, strict=True):
            assert array.tobytes() == before.tobytes(), f"{name} was written to"


def fused_lerp(image: NDArray[Any], a: float, b: float, count: int) -> NDArray[Any]:
    """Interpolate float32 rows as a fused multiply-add would, but rounded twice."""
    n = image.shape[2]
    real = np.float32
    scale = (real(b) - real(a)) * real(n - 1) / real(count - 1)
    v = real(a) * real(n - 1) + np.arange(count).astype(real) * scale
    lo, hi = np.floor(v).astype(int), np.ceil(v).astype(int)
    weight = (v - lo.astype(real)).astype(np.float64)[:, None]
    left, right = image[:, :, lo], image[:, :, hi]
    difference = (right - left).astype(np.float64)
    fused: NDArray[Any] = (left.astype(np.float64) + difference * weight).astype(real)
    return fused
