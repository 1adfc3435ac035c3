"""Masks: which samples are inside. Exact for every backend, whatever its tolerance."""

from collections import defaultdict
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from cropkit.testing._edges import EdgeCase, Variant, flipped_cases, is_inside, positions
from cropkit.testing._suite import Suite, same_bits

OUTSIDE: Final = -7.0
methods = pytest.mark.parametrize("method", ["bilinear", "nearest"])


class MaskTests(Suite):
    """Masks: inside or outside."""

    def mask(
        self, size: tuple[int, int], boxes: Any, crop_size: tuple[int, int], **options: Any
    ) -> NDArray[np.bool]:
        """Return which samples of the boxes are inside an image of ones."""
        image = np.ones((1, *size, 1), np.float32)
        indices = np.zeros(len(boxes), np.intp)
        crops = self.crop(image, boxes, indices, crop_size, extrapolation_value=OUTSIDE, **options)
        mask: NDArray[np.bool] = crops[..., 0] != OUTSIDE
        return mask

    @methods
    def test_samples_outside_are_filled_and_those_inside_are_not(self, method: str) -> None:
        """Samples at -1, 0, 1, 2, 3 on three pixels; then a crop that is all outside."""
        boxes = [[-0.5, -0.5, 1.5, 1.5], [1.5, 1.5, -0.5, -0.5], [2, 0, 3, 1], [0, -3, 1, -2]]
        image = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
        crops = self.crop(image, boxes, [0] * 4, (5, 5), method, OUTSIDE)[..., 0]
        expected = np.full((4, 5, 5), OUTSIDE, np.float32)
        expected[0, 1:4, 1:4] = image[0, :, :, 0]
        expected[1, 1:4, 1:4] = image[0, ::-1, ::-1, 0]
        self.same(crops, expected, "boxes that reach outside, or lie there")

    @methods
    def test_the_last_row_and_the_last_column_are_read(self, method: str) -> None:
        for height, width in ((1, 1), (2, 3), (5, 17), (16, 4), (33, 70)):
            image = np.arange(1, 1 + height * width, dtype=np.float32).reshape(1, height, width, 1)
            boxes = [[0, 0, 1, 1], [1, 1, 0, 0]]
            crops = self.crop(image, boxes, [0, 0], (height, width), method, OUTSIDE)
            what = f"an image of {height}x{width} at its own size"
            self.same(crops[:1], image, what)
            self.same(crops[1:], image[:, ::-1, ::-1], f"{what}, rotated by half a turn")

    @methods
    def test_four_pixels_to_22_samples_lose_the_last(self, method: str) -> None:
        """In float32, 21 * (3 / 21) is more than 3: TensorFlow extrapolates the last sample."""
        mask = self.mask((4, 4), [[0, 0, 1, 1]], (22, 22), method=method)
        expected = np.ones((1, 22, 22), bool)
        expected[:, -1] = expected[:, :, -1] = False
        assert np.array_equal(mask, expected), (
            "4x4 pixels to 22x22 samples: expected the last row and column outside and all "
            f"others inside, but {np.count_nonzero(mask != expected)} of 484 samples differ"
        )

    def test_edges_that_a_reciprocal_division_flips(self) -> None:
        self.check_edges("reciprocal", "a multiplication by 1 / (count - 1)")

    def test_edges_that_a_fused_multiply_add_flips(self) -> None:
        self.check_edges("fused", "a fused multiply-add")

    def test_edges_that_a_ratio_taken_first_flips(self) -> None:
        self.check_edges("ratio first", "(b - a) times (n - 1) / (count - 1)")

    def test_edges_that_double_precision_flips(self) -> None:
        self.check_edges("double", "computing in float64")

    def test_edges_that_a_reciprocal_division_flips_in_float64(self) -> None:
        self.check_edges("reciprocal", "a multiplication by 1 / (count - 1)", "float64")

    def check_edges(self, variant: Variant, name: str, dtype: str = "float32") -> None:
        """Compare each case that `variant` gets wrong with the formula, on both axes."""
        together: dict[tuple[int, int], list[EdgeCase]] = defaultdict(list)
        for case in flipped_cases(variant, dtype):
            together[case.n, case.samples].append(case)
        wrong = []
        as_variant = 0
        for (n, count), cases in together.items():
            boxes = np.array([[case.a, case.a, case.b, case.b] for case in cases], dtype)
            mask = self.mask((n, n), boxes, (count, count), dtype=dtype)
            for case, found in zip(cases, mask, strict=True):
                axis = is_inside(positions(case.a, case.b, n, count, np.dtype(dtype).type), n)
                if not np.array_equal(found, axis[:, None] & axis):
                    wrong.append(case)
                    axis = is_inside(
                        positions(case.a, case.b, n, count, np.dtype(dtype).type, variant), n
                    )
                    as_variant += np.array_equal(found, axis[:, None] & axis)
        if wrong:
            total = len(flipped_cases(variant, dtype))
            pytest.fail(
                f"{len(wrong)} of {total} boxes have a sample on the wrong side of an edge, "
                f"{as_variant} of them just as with {name}; the first: {wrong[0]}"
            )

    def test_random_edges(self) -> None:
        """Edges lie on pixels and between them, for images of every size."""
        for n, count in ((2, 3), (7, 29), (50, 43), (101, 64), (640, 224), (4097, 33)):
            k = np.arange(200)
            a, b = (k * 37 % (2 * n) - n // 2) / (n - 1), (k * 101 % (3 * n) - n) / (n - 1)
            boxes = np.stack([a, np.zeros(200), b, np.zeros(200)], axis=1).astype(np.float32)
            mask = self.mask((n, 1), boxes, (count, 1))[:, :, 0]
            for box, found in zip(boxes, mask, strict=True):
                expected = is_inside(positions(box[0], box[2], n, count), n)
                assert np.array_equal(found, expected), (
                    f"edges {box[0]!r} and {box[2]!r} on {n} pixels to {count} samples: "
                    f"{np.count_nonzero(found != expected)} samples are on the wrong side"
                )

    def test_the_middle_of_one_sample_is_rounded_as_the_formula_says(self) -> None:
        """The edges are added in float32, the products are taken in float64."""
        # 1 + 2**-25 is 1 in float32, so v = 2 * 0.5 * 1 = 1, the last pixel.
        box = [[0, 2.0**-25, 0, 2.0]]
        assert self.mask((1, 2), box, (1, 1)).all(), "edges of one sample: not added in float32"
        # v = 0.5 * (2 + 2**-22) * 1 lies just past the last pixel.
        box = [[0, 1, 0, 1 + 2.0**-22]]
        assert not self.mask((1, 2), box, (1, 1)).any(), "the middle of one sample: rounded inside"
        # a + b = 2**-126, and its half only survives in float64: v = 2**-127 * 4.
        image = np.zeros((1, 1, 5, 1), np.float32)
        image[0, 0, 1] = 2.0**127
        crop = self.crop(image, [[0, 0, 0, 2.0**-126]], [0], (1, 1))
        self.same(crop, np.full((1, 1, 1, 1), 4, np.float32), "the middle of one sample", 2.0**127)

    def test_the_middle_of_one_sample_in_float64(self) -> None:
        box = [[0, 2.0**-25, 0, 2.0]]
        mask = self.mask((1, 2), box, (1, 1), dtype=np.float64)
        assert not mask.any(), "edges of one sample: not added in float64 with dtype=float64"

    @methods
    def test_boxes_whose_positions_overflow_are_outside(self, method: str) -> None:
        for n, box in (
            (4, [-3e38, 0, 3e38, 1]),
            (1000, [-1e38, 0, 1e38, 1]),
            (1000, [3e38, 3e38, 3e38, 3e38]),
        ):
            for size in ((1, 1), (3, 3)):
                if size == (1, 1) and sum(box) < 3:
                    continue  # the middle between these two edges does not overflow
                mask = self.mask((n, 4), [box], size, method=method)
                assert not mask.any(), f"box {box} on {n} rows to {size}: some samples are inside"

    @methods
    def test_a_subnormal_negative_edge_counts_as_zero(self, method: str) -> None:
        """In float32, a subnormal number counts as zero; in float64 it does not."""
        for size in ((1, 1), (2, 2)):
            mask = self.mask((3, 3), [[-1e-43] * 4], size, method=method)
            assert mask.all(), f"edges of -1e-43, crop {size}: outside, expected inside"

    def test_float64_edges_are_not_flushed(self) -> None:
        for edge in (-1e-43, -5e-324):
            mask = self.mask((3, 3), [[edge] * 4], (1, 1), dtype=np.float64)
            assert not mask.any(), f"edges of {edge}: inside, expected outside in float64"

    def test_positions_of_negative_zero_are_inside(self) -> None:
        mask = self.mask((2, 2), [[-0.0, -0.0, -1, -1]], (2, 2))
        assert mask.tolist() == [[[True, False], [False, False]]], (
            f"positions -0.0 and -1: inside are {mask[0].tolist()}, expected the first alone"
        )

    def test_nearest_rounds_halves_up(self) -> None:
        image = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1)
        boxes = [[0, 0.125, 0, 0.875], [0, 0.875, 0, 0.125]]  # 0.5, 1.5, 2.5, 3.5
        crops = self.crop(image, boxes, [0, 0], (1, 4), "nearest")[:, 0, :, 0]
        expected = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
        same_bits(crops, expected, "positions half way between pixels, nearest")
        # Adding one half and taking the floor would round this one up.
        below = np.nextafter(np.float32(0.5), np.float32(0))
        crop = self.crop(image[:, :, 1:3], [[0, below, 0, below]], [0], (1, 1), "nearest")
        same_bits(crop, np.ones((1, 1, 1, 1), np.float32), "a position just below one half")
