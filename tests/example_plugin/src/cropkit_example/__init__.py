"""Backend ``example``: crop_and_resize in vectorized NumPy, a whole box at a time.

cropkit has checked every argument before a backend sees it: the image has four axes, the
boxes are finite, each index is an image's, `out` has the right shape and dtype, and nothing
is empty. What is left is the arithmetic. To be bit-equal, it rounds each operation on its
own in the request's dtype, and makes float32 subnormals zero where the formulas say so.

This module imports nothing but NumPy: a backend is found by importing it, so a driver or a
framework is for `unavailable` and later.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cropkit import Request

CPU = 1  # DLPack's device types: 1 CPU, 2 CUDA, 4 OpenCL, 10 ROCm


class ExampleBackend:
    """What cropkit asks a backend for: three attributes and three methods."""

    name = "example"  # as in the entry point
    device_types = frozenset({CPU})
    exact = True  # every bit is that of backend "reference"

    def unavailable(self) -> str | None:
        """Say why it cannot run on this machine (no driver, no package), or None."""
        return None

    def refuses(self, request: Request) -> str | None:
        """Say why it cannot run this call, or None. There are no arrays to look at yet."""
        if request.image_dtype.name == "bfloat16":
            return "bfloat16 images are not supported"
        return None

    def crop_and_resize(
        self,
        request: Request,
        image: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out`, an array of the request's dtype and any strides."""
        _, height, width, _ = request.image_shape
        crop_height, crop_width = request.crop_size
        out[...] = request.extrapolation_value
        # Huge boxes overflow to positions that are not inside; infinite pixels give NaN.
        with np.errstate(all="ignore"):
            for crop, (y1, x1, y2, x2), index in zip(out, boxes, box_indices, strict=True):
                y = positions(y1, y2, height, crop_height)
                x = positions(x1, x2, width, crop_width)
                y_inside, x_inside = inside(y, height), inside(x, width)
                if not (y_inside.any() and x_inside.any()):
                    continue
                sample = nearest if request.sampling.method == "nearest" else bilinear
                crop[np.ix_(y_inside, x_inside)] = sample(
                    image[index], y[y_inside], x[x_inside], request.compute_dtype
                )


def positions(a: Any, b: Any, n: int, count: int) -> NDArray[Any]:
    """Where `count` samples between the edges `a` and `b` lie, in pixels of an axis of `n`."""
    real = type(a)
    a, b, last = flush(a), flush(b), real(n - 1)
    if count == 1:
        return flush(np.array([0.5 * float(flush(a + b)) * float(n - 1)]).astype(real))
    scale = flush(flush(flush(b - a) * last) / real(count - 1))
    return flush(flush(a * last) + flush(np.arange(count).astype(real) * scale))


def inside(v: NDArray[Any], n: int) -> NDArray[np.bool]:
    """Which positions lie on the image; NaN does not."""
    return (v >= 0) & (v <= v.dtype.type(n - 1))


def nearest(image: NDArray[Any], y: NDArray[Any], x: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Copy the nearest pixels; halves round up, positions being positive."""

    def index(v: NDArray[Any], n: int) -> NDArray[np.intp]:
        floor = np.floor(v)
        return np.minimum(floor.astype(np.intp) + (v - floor >= v.dtype.type(0.5)), n - 1)

    pixels = image[np.ix_(index(y, image.shape[0]), index(x, image.shape[1]))]
    # A copy keeps subnormals; rounding from float64 does not.
    return flush(pixels.astype(dtype)) if pixels.dtype.name == "float64" else pixels.astype(dtype)


def bilinear(image: NDArray[Any], y: NDArray[Any], x: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Interpolate along x in the two rows that each sample lies between, then along y."""

    def taps(v: NDArray[Any], n: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
        lo, hi = (np.minimum(f(v).astype(np.intp), n - 1) for f in (np.floor, np.ceil))
        # Through integers: a position of -0.0 weighs -0.0, and the sign can show.
        return lo, hi, v - np.floor(v).astype(np.intp).astype(v.dtype)

    y_lo, y_hi, y_weight = taps(y, image.shape[0])
    left, right, x_weight = taps(x, image.shape[1])

    def row(y_taps: NDArray[np.intp]) -> NDArray[Any]:
        a, b = (flush(image[np.ix_(y_taps, x_taps)].astype(dtype)) for x_taps in (left, right))
        return lerp(a, b, x_weight[:, None])

    return lerp(row(y_lo), row(y_hi), y_weight[:, None, None])


def lerp(a: NDArray[Any], b: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """From `a` to `b`: a subtraction, a multiplication and an addition, each rounded."""
    return flush(a + flush(flush(b - a) * weight))


def flush(x: Any) -> Any:
    """Make float32 subnormals zero of their sign; float64 keeps them."""
    if x.dtype != np.float32:
        return x
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)[()]


backend = ExampleBackend()
