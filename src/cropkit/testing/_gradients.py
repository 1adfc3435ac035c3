"""Gradients: by hand, by their laws, and against the reference."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cropkit.testing._arrays import (
    DTYPES,
    GEOMETRIES,
    OUT_LAYOUTS,
    Geometry,
    dtype_of,
    empty_out,
    indices_of,
    memory_of,
    pixels,
)
from cropkit.testing._suite import Suite, reference
from cropkit.testing._values import DEPTHS, image_dtypes, methods, need_dtype, result_dtypes

# Boxes for crops of 5x5 from an image of 5x9, whose samples lie on quarters of a pixel: all
# weights are exact in every dtype, and no rounding moves a sample onto a pixel.
DYADIC = np.array([[0.125, 0.0625, 0.875, 0.9375], [0.9375, 0.5, 0.1875, 0.25]])


class GradientTests(Suite):
    """Gradients."""

    # ---- of the image, by hand ----------------------------------------------------------

    def test_a_sample_between_four_pixels_gives_each_a_quarter(self) -> None:
        grads = np.ones((2, 1, 1, 1), np.float32)
        result = self.grad_image(grads, [[0.25] * 4, [1, 1, 1, 1]], [0, 0], (1, 3, 3, 1))
        expected = np.array([[0.25, 0.25, 0], [0.25, 0.25, 0], [0, 0, 1]], np.float32)
        self.same(result[0, :, :, 0], expected, "one sample between pixels, one on a pixel")

    def test_nearest_gives_all_to_the_pixel_that_was_read(self) -> None:
        grads = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4, 1)
        result = self.grad_image(grads, [[0, 0.125, 0, 0.875]], [0], (1, 1, 5, 1), "nearest")
        self.same(result.ravel(), np.array([0, 1, 2, 3, 4], np.float32), "halves, nearest")

    @methods
    def test_samples_outside_give_nothing(self, method: str) -> None:
        grads = np.ones((2, 5, 5, 1), np.float32)
        boxes = [[-0.5, -0.5, 1.5, 1.5], [2, 0, 3, 1]]
        result = self.grad_image(grads, boxes, [0, 1], (3, 3, 3, 1), method)
        expected = np.zeros((3, 3, 3, 1), np.float32)
        expected[0] = 1
        self.same(result, expected, "boxes that reach outside, and an image without a box")

    @methods
    def test_no_addition_is_lost(self, method: str) -> None:
        """Two hundred equal boxes: each element is added to two hundred times."""
        grads = np.ones((200, 4, 4, 64), np.float32)
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (200, 1))
        for _ in range(2):
            result = self.grad_image(grads, boxes, [0] * 200, (1, 4, 4, 64), method, num_threads=4)
            self.same(result, np.full((1, 4, 4, 64), 200, np.float32), "200 equal boxes")

    def test_narrow_sums_are_not_made_in_a_narrow_dtype(self) -> None:
        """4096 ones summed in float16 give 2048."""
        grads = np.ones((1, 64, 64, 1), np.float32)
        for given, dtype in (("float32", "float16"), ("float16", "float32"), ("float16", "int16")):
            result = self.grad_image(
                grads.astype(given), [[0, 0, 1, 1]], [0], (1, 1, 1, 1), "nearest", dtype=dtype
            )
            expected = np.full((1, 1, 1, 1), 4096, dtype)
            self.same(result, expected, f"4096 {given} ones to {dtype}")

    def test_additions_are_made_in_the_order_of_the_boxes(self) -> None:
        """1e8 + 1 - 1e8 is 0 in float32, and 1e8 - 1e8 + 1 is 1."""
        if not self.exact:
            pytest.skip("not offered: the backend is not exact, the order is its own")
        boxes = np.zeros((3, 4), np.float32)
        for values, expected in (((1e8, 1, -1e8), 0), ((1e8, -1e8, 1), 1)):
            grads = np.array(values, np.float32).reshape(3, 1, 1, 1)
            result = self.grad_image(grads, boxes, [0] * 3, (1, 1, 1, 1))
            what = f"the sum of {values}, boxes in order"
            self.same(result.ravel(), np.array([expected], np.float32), what)

    @result_dtypes
    @methods
    def test_float32_sums_that_are_subnormal_are_zero(self, method: str, dtype: str) -> None:
        """float32 sums below 2**-126 are zero; float64 sums of that size are kept."""
        if not self.exact:
            pytest.skip("not offered: the backend is not exact, subnormals are not compared")
        grads = np.array([1.5e-38, -1.2e-38], np.float32).reshape(2, 1, 1, 1)
        boxes, size = np.zeros((2, 4)), (1, 1, 1, 1)
        result = self.grad_image(grads, boxes, [0, 0], size, method, dtype=dtype)
        expected = 0.0 if dtype == "float32" else grads[0].item() + grads[1].item()
        what = f"1.5e-38 - 1.2e-38, {method} in {dtype}"
        self.same(result.ravel(), np.array([expected], dtype), what)

    @methods
    def test_infinite_gradients_go_where_they_are_added(self, method: str) -> None:
        """At a sample on a pixel, bilinear also adds 0 * inf, which is NaN."""
        grads = np.ones((1, 2, 2, 2), np.float32)
        grads[0, 1, 1, 1] = np.inf
        result = self.grad_image(grads, [[0, 0, 1, 1]], [0], (1, 2, 2, 2), method)
        expected = grads.copy()
        if method == "bilinear":
            expected[0, 1, 1, 1] = np.nan
        self.same(result, expected, "an infinite gradient")

    def test_sums_are_cast_once_and_stay_within_integers(self) -> None:
        given = np.array([300, -5, 2.75, np.nan], np.float32)
        result = self.grad_image(given.reshape(1, 1, 4, 1), [[0, 0, 0, 1]], [0], (1, 1, 4, 1),
                                 "nearest", dtype=np.uint8)  # fmt: skip
        self.same(result.ravel(), np.array([255, 0, 2, 0], np.uint8), f"{given} to uint8")

    def test_out_is_overwritten_not_added_to(self) -> None:
        grads = np.ones((1, 2, 2, 1), np.float32)
        out = self.to_device(np.full((2, 2, 2, 1), 9, np.float32))
        self.run("grad_image", self.to_device(grads), [[0, 0, 1, 1]], [1], (2, 2, 2, 1), out=out)
        expected = np.zeros((2, 2, 2, 1), np.float32)
        expected[1] = 1
        self.same(self.from_device(out), expected, "an out that held nines")

    # ---- of the boxes, by hand ----------------------------------------------------------

    def test_the_box_gradient_of_a_ramp(self) -> None:
        """On a ramp from 0 to 10 the middle of a box rises by 5 for each edge moved by 1."""
        image = np.arange(11, dtype=np.float32).reshape(1, 1, 11, 1)
        grads = np.ones((1, 1, 1, 1), np.float32)
        result = self.grad_boxes(grads, image, [[0, 0.12, 0, 0.44]], [0])
        self.same(result, np.array([[0, 5, 0, 5]], np.float32), "one sample on a ramp")
        result = self.grad_boxes(np.ones((1, 1, 3, 1), np.float32), image, [[0, 0.12, 0, 0.34]],
                                 [0])  # fmt: skip
        expected = np.array([[0, 15, 0, 15]], np.float32)
        self.same(result, expected, "three samples on a ramp")

    def test_box_sums_are_made_in_float64(self) -> None:
        """The result differs from the exact sum by its rounding to float32 alone."""
        image = np.array([0, 1], np.float32).reshape(1, 1, 2, 1)
        grads = pixels((1, 30, 40, 1), "float32", 1)
        found = float(self.grad_boxes(grads, image, [[0, 0.1, 0, 0.9]], [0])[0, 1])
        terms = grads[0, :, :, 0].astype(float) * (1 - np.arange(40) / 39)
        exact = math.fsum(terms.ravel())
        limit = 2.0**-24 * abs(exact) + 1e-14 * float(np.abs(terms).sum())
        limit += self.tolerance * float(np.abs(terms).sum())
        assert abs(found - exact) <= limit, (
            f"the sum of 1200 terms is {found!r}, exactly {exact!r}: off by more than {limit:.3g}"
        )

    def test_the_box_gradient_of_nearest_is_that_of_bilinear(self) -> None:
        grads, image = pixels((2, 4, 5, 3), "float32", 1), pixels((2, 6, 7, 3), "float32", 2)
        boxes = [[0.1, 0.2, 0.8, 0.9], [0.9, -0.1, 0.2, 0.7]]
        nearest = self.grad_boxes(grads, image, boxes, [1, 0], method="nearest")
        self.same(nearest, self.grad_boxes(grads, image, boxes, [1, 0]), "nearest and bilinear")

    # ---- laws ---------------------------------------------------------------------------

    @result_dtypes
    @methods
    def test_the_image_gradient_is_the_adjoint(self, method: str, dtype: str) -> None:
        """<crop(image), grads> is <image, grad_image(grads)>."""
        for geometry in GEOMETRIES:
            grads, image, boxes, indices = arrays_of(geometry, 3)
            crops = self.crop(image, boxes, indices, geometry.crop_size, method, dtype=dtype)
            result = self.grad_image(grads, boxes, indices, image.shape, method, dtype=dtype)
            ahead = np.vdot(crops.astype(float), grads.astype(float))
            back = np.vdot(image.astype(float), result.astype(float))
            scale = float(np.abs(grads.astype(float)).sum() * np.abs(image).max())
            limit = scale * (1e-14 if dtype == "float64" else 1e-6)
            assert abs(ahead - back) <= max(limit, self.tolerance * scale), (
                f"{geometry.name}, {method} in {dtype}: <crop(image), grads> = {ahead!r} and "
                f"<image, grad_image(grads)> = {back!r} differ by more than {limit:.3g}"
            )

    @result_dtypes
    @methods
    def test_the_image_gradient_conserves_mass(self, method: str, dtype: str) -> None:
        """The image's gradient has the sum of the inside samples' gradients, exact for integers."""
        grads = pixels((6, 5, 5, 2), "int8", 7).astype(np.float32)
        boxes = np.concatenate([DYADIC] * 3)
        indices = np.array([0, 1, 2, 1, 0, 1])
        result = self.grad_image(grads, boxes, indices, (4, 5, 9, 2), method, dtype=dtype)
        for index in range(4):
            brought = grads[indices == index].astype(float).sum((0, 1, 2))
            found = result[index].astype(float).sum((0, 1))
            limit = self.tolerance * float(np.abs(grads).sum())
            assert (np.abs(found - brought) <= limit).all(), (
                f"image {index}, {method} in {dtype}: the gradient's sum is {found}, "
                f"the crops' gradients sum up to {brought}"
            )

    @methods
    def test_boxes_of_other_images_do_not_matter(self, method: str) -> None:
        grads = pixels((4, 5, 5, 3), "float32", 1)
        boxes, indices = np.concatenate([DYADIC, DYADIC]), np.array([0, 1, 1, 0])
        result = self.grad_image(grads, boxes, indices, (2, 5, 9, 3), method)
        for index in range(2):
            mine = indices == index
            alone = self.grad_image(
                grads[mine], boxes[mine], [0] * int(mine.sum()), (1, 5, 9, 3), method
            )
            self.same(result[index], alone[0], f"image {index} of two, and alone", 1e3)

    def test_the_box_gradient_is_the_limit_of_differences(self) -> None:
        """Compare with differences of the backend's float64 crops, edges moved by 1e-7."""
        step = 1e-7
        # The edges are a little off the quarters, so that no step crosses a pixel.
        boxes = DYADIC + 0.003
        grads, image = pixels((2, 5, 5, 3), "float32", 1), pixels((2, 5, 9, 3), "float32", 2)
        result = self.grad_boxes(grads, image, boxes, [1, 0], dtype=np.float64)
        for edge in range(4):
            sums = []
            for sign in (1, -1):
                moved = boxes.copy()
                moved[:, edge] += sign * step
                crops = self.crop(image, moved, [1, 0], (5, 5), dtype=np.float64)
                sums.append((crops * grads).sum((1, 2, 3)))
            slope = (sums[0] - sums[1]) / (2 * step)
            scale = float(np.abs(grads).sum()) * 128
            assert (np.abs(result[:, edge] - slope) <= (1e-8 + self.tolerance) * scale).all(), (
                f"the gradient of edge {edge} is {result[:, edge]}, differences give {slope}"
            )

    @pytest.mark.parametrize("operation", ["grad_image", "grad_boxes"])
    def test_float32_gradients_are_near_those_in_float64(self, operation: str) -> None:
        """At exact positions, gradients in float32 and float64 differ by rounding alone."""
        grads, image = pixels((2, 5, 5, 3), "float32", 3), pixels((2, 5, 9, 3), "float32", 4)
        if operation == "grad_image":
            found = self.grad_image(grads, DYADIC, [1, 1], image.shape)
            exact = reference(operation, grads, DYADIC, [1, 1], image.shape, dtype=np.float64)
        else:
            found = self.grad_boxes(grads, image, DYADIC, [1, 1])
            exact = reference(operation, grads, image, DYADIC, [1, 1], dtype=np.float64)
        limit = (1e-5 + self.tolerance) * float(np.abs(exact).max())
        error = float(np.abs(found - exact).max())
        assert error <= limit, (
            f"{operation} in float32 is off by {error:.3g} from float64, limit {limit:.3g}"
        )

    # ---- against the reference ----------------------------------------------------------

    @methods
    @image_dtypes
    def test_the_image_gradient_of_every_dtype(self, image_dtype: str, method: str) -> None:
        """Try each dtype as that of the result, and as that of the crops' gradients."""
        need_dtype(image_dtype)
        for geometry, depth in each_geometry(image_dtype):
            grads, image, boxes, indices = arrays_of(geometry, depth)
            more = (boxes, indices, image.shape, method)
            for given, dtype in (
                (grads, image_dtype), (pixels(grads.shape, image_dtype, 9), "float32"),
            ):  # fmt: skip
                expected = reference("grad_image", given, *more, dtype=dtype_of(dtype))
                result = self.grad_image(given, *more, dtype=dtype_of(dtype))
                what = f"{given.dtype} gradients to {dtype}, {geometry.name}, {method}"
                self.same(result, expected, f"{what}, depth {depth}")

    @result_dtypes
    @image_dtypes
    def test_the_box_gradient_of_every_dtype(self, image_dtype: str, dtype: str) -> None:
        need_dtype(image_dtype)
        for geometry, depth in each_geometry(image_dtype):
            grads, _, boxes, indices = arrays_of(geometry, depth)
            image = pixels((*geometry.image_shape, depth), image_dtype, 5)
            expected = reference("grad_boxes", grads, image, boxes, indices, dtype=dtype)
            result = self.grad_boxes(grads, image, boxes, indices, dtype=dtype)
            what = f"{image_dtype} image, {geometry.name}, depth {depth} in {dtype}"
            self.same_boxes(result, expected, grads, image, what)

    def test_gradients_of_any_layout_and_nothing_around_out(self) -> None:
        grads, image, boxes, indices = arrays_of(GEOMETRIES[5], 3)
        expected = reference("grad_image", grads, boxes, indices, image.shape)
        expected_boxes = reference("grad_boxes", grads, image, boxes, indices)
        of_images = dict(self.layouts(image))
        for name, given in self.layouts(grads):
            result = self.run("grad_image", given, boxes, indices, image.shape)
            self.same(self.from_device(result), expected, f"grads of layout {name}")
            result = self.run("grad_boxes", given, of_images[name], boxes, indices)
            found = self.from_device(result)
            self.same_boxes(found, expected_boxes, grads, image, f"both of layout {name}")
        for name in OUT_LAYOUTS if self.on_host else ():
            out = empty_out(expected.shape, "float32", name)
            before = memory_of(out)
            self.run("grad_image", grads, boxes, indices, image.shape, out=out)
            self.same(out.copy(), expected, f"out of layout {name}")
            out[...] = -77777.25
            assert memory_of(out) == before, f"layout {name}: bytes outside of out were written"

    def test_empty_gradients(self) -> None:
        grads = np.zeros((0, 2, 3, 3), np.float32)
        result = self.grad_image(grads, np.zeros((0, 4)), [], (2, 4, 5, 3))
        self.same(result, np.zeros((2, 4, 5, 3), np.float32), "no boxes")
        image = np.ones((2, 4, 5, 3), np.float32)
        result = self.grad_boxes(grads, image, np.zeros((0, 4)), [])
        self.same(result, np.zeros((0, 4), np.float32), "no boxes")
        result = self.grad_boxes(
            np.ones((1, 2, 3, 0), np.float32), image[..., :0].copy(), [[0, 0, 1, 1]], [0]
        )
        self.same(result, np.zeros((1, 4), np.float32), "no channels")

    @methods
    def test_gradients_of_boxes_whose_positions_overflow_are_zero(self, method: str) -> None:
        boxes = [[-1e38, 0, 1e38, 1], [3e38, 3e38, 3e38, 3e38]]
        grads, image = np.ones((2, 3, 3, 1), np.float32), np.ones((1, 1000, 4, 1), np.float32)
        result = self.grad_image(grads, boxes, [0, 0], image.shape, method)
        self.same(result, np.zeros(image.shape, np.float32), "positions that overflow")
        result = self.grad_boxes(grads, image, boxes, [0, 0], method=method)
        self.same(result, np.zeros((2, 4), np.float32), "positions that overflow")


def each_geometry(dtype: str) -> Iterator[tuple[Geometry, int]]:
    """Yield every third geometry, with depths in turn.

    The choice depends on the dtype, so that all dtypes together have every geometry with
    every depth.
    """
    first = DTYPES.index(dtype)
    for number in range(first % 3, len(GEOMETRIES), 3):
        yield GEOMETRIES[number], DEPTHS[(first // 3 + number // 3) % len(DEPTHS)]


def arrays_of(
    geometry: Geometry, depth: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return gradients, an image, boxes and indices of a geometry, in float32."""
    boxes = np.array(geometry.boxes, np.float32)
    grads = pixels((len(boxes), *geometry.crop_size, depth), "float32", depth)
    image = pixels((*geometry.image_shape, depth), "float32", depth + 1)
    return grads, image, boxes, indices_of(geometry)
