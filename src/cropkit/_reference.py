"""Backend ``reference``: the operator in NumPy, readable as its specification.

This backend is slow next to ``cpu``; every other backend is compared with it. The formulas are
those of ``tf.image.crop_and_resize`` (TensorFlow 2.21), each operation rounded on its own in
the request's ``compute_dtype``.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cropkit._arguments import CPU_DEVICE
from cropkit._request import Request


class Samples(NamedTuple):
    """The taps of one axis: the source pixels that its inside samples read, and the weights.

    Attributes
    ----------
    inside : slice
        The inside samples; they are one run since positions are monotone.
    lo, hi : ndarray of intp, shape (inside,)
        Indices of the two taps.
    weight : ndarray, shape (inside,)
        Lerp weight from `lo` to `hi`, in [0, 1).
    """

    inside: slice
    lo: NDArray[np.intp]
    hi: NDArray[np.intp]
    weight: NDArray[Any]


def sample_axis(a: Any, b: Any, n: int, count: int, method: str) -> Samples:
    """Place `count` samples between the edges `a` and `b` of an axis of length `n`.

    Parameters
    ----------
    a, b : numpy.float32 or numpy.float64
        Normalized edges; all arithmetic is in their type.
    n, count : int
    method : {"bilinear", "nearest"}
    """
    real = type(a)
    limit = real(n - 1)
    a, b = flush(a), flush(b)
    if count > 1:
        scale = flush(flush(flush(b - a) * limit) / real(count - 1))
        v = flush(flush(a * limit) + flush(np.arange(count).astype(real) * scale))
    else:
        v = flush(np.array([0.5 * np.float64(flush(a + b)) * np.float64(n - 1)]).astype(real))
    (where,) = np.nonzero((v >= 0) & (v <= limit))
    inside = slice(where[0], where[-1] + 1) if where.size else slice(0, 0)
    v = v[inside]
    floor = np.floor(v).astype(np.intp)
    if method == "nearest":
        index = np.minimum(floor + (v - floor.astype(real) >= real(0.5)), n - 1)
        return Samples(inside, index, index, v - v)
    ceil = np.ceil(v).astype(np.intp)
    # The floor has become an integer: at v = -0.0 the weight is -0.0, as in TensorFlow.
    weight = v - floor.astype(real)
    return Samples(inside, np.minimum(floor, n - 1), np.minimum(ceil, n - 1), weight)


class ReferenceBackend:
    """The specification as a backend."""

    name: Final = "reference"
    device_types: Final = frozenset({CPU_DEVICE})
    exact: Final = True

    def unavailable(self) -> str | None:
        """Return None: this backend always runs."""
        return None

    def refuses(self, request: Request) -> str | None:
        """Return None: this backend computes every call."""
        return None

    def crop_and_resize(
        self,
        request: Request,
        image: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out`, box by box."""
        real, method = request.compute_dtype, request.sampling.method
        crop_height, crop_width = request.crop_size
        _, height, width, _ = request.image_shape
        with np.errstate(all="ignore"):
            out[...] = real.type(request.extrapolation_value)
            for crop, (y1, x1, y2, x2), index in zip(out, boxes, box_indices, strict=True):
                rows = sample_axis(y1, y2, height, crop_height, method)
                columns = sample_axis(x1, x2, width, crop_width, method)
                inside = crop[rows.inside, columns.inside]
                if method == "nearest":
                    pixels = image[index][np.ix_(rows.lo, columns.lo)]
                    # A copy flushes nothing; rounding from float64 does.
                    rounded = pixels.dtype.name == "float64"
                    pixels = pixels.astype(real)
                    inside[...] = flush(pixels) if rounded else pixels
                else:
                    inside[...] = bilinear(image[index], rows, columns, real)

    def grad_image(
        self,
        request: Request,
        grads: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out`: add one crop pixel after the other, in the order of TensorFlow."""
        real, method = request.compute_dtype, request.sampling.method
        crop_height, crop_width = request.crop_size
        _, height, width, _ = request.image_shape
        with np.errstate(all="ignore"):
            sums = np.zeros(request.image_shape, real)
            for grad, (y1, x1, y2, x2), index in zip(grads, boxes, box_indices, strict=True):
                rows = sample_axis(y1, y2, height, crop_height, method)
                columns = sample_axis(x1, x2, width, crop_width, method)
                inside = flush(grad[rows.inside, columns.inside].astype(real))
                add = add_nearest if method == "nearest" else add_bilinear
                add(sums[index], inside, rows, columns)
            out[...] = cast_sums(sums, out.dtype)

    def grad_boxes(
        self,
        request: Request,
        grads: NDArray[Any],
        image: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out` box by box, with sums in float64; the gradient is always of bilinear."""
        crop_height, crop_width = request.crop_size
        _, height, width, _ = request.image_shape
        with np.errstate(all="ignore"):
            for n, ((y1, x1, y2, x2), index) in enumerate(zip(boxes, box_indices, strict=True)):
                rows = sample_axis(y1, y2, height, crop_height, "bilinear")
                columns = sample_axis(x1, x2, width, crop_width, "bilinear")
                grad = grads[n, rows.inside, columns.inside].astype(np.float64)
                along_y, along_x = slopes_of(image[index], rows, columns)
                of_rows = (grad * along_y).sum((1, 2))
                of_columns = (grad * along_x).sum((0, 2))
                y1, y2 = (edge_weights(height, crop_height)[:, rows.inside] * of_rows).sum(1)
                x1, x2 = (edge_weights(width, crop_width)[:, columns.inside] * of_columns).sum(1)
                out[n] = np.array([y1, x1, y2, x2]).astype(out.dtype)


def bilinear(
    image: NDArray[Any], rows: Samples, columns: Samples, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Interpolate one image at the inside samples, between columns first."""

    def taps(y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[Any]:
        pixels: NDArray[Any] = flush(image[np.ix_(y, x)].astype(dtype))
        return pixels

    wx = columns.weight[:, None]
    wy = rows.weight[:, None, None]
    top = lerp(taps(rows.lo, columns.lo), taps(rows.lo, columns.hi), wx)
    bottom = lerp(taps(rows.hi, columns.lo), taps(rows.hi, columns.hi), wx)
    return lerp(top, bottom, wy)


def lerp(a: NDArray[Any], b: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Interpolate from `a` to `b`: a subtraction, a multiplication and an addition."""
    blend: NDArray[Any] = flush(a + flush(flush(b - a) * weight))
    return blend


# ---- gradients -----------------------------------------------------------------------


def add_bilinear(sums: NDArray[Any], grad: NDArray[Any], rows: Samples, columns: Samples) -> None:
    """Add a crop's gradient to the taps of its inside samples, times their weights."""
    wx = columns.weight[:, None]
    wy = rows.weight[:, None, None]
    top = flush((1 - wy) * grad)
    bottom = flush(wy * grad)
    parts = [flush((1 - wx) * top), flush(wx * top), flush((1 - wx) * bottom), flush(wx * bottom)]
    for y, row in enumerate(zip(rows.lo, rows.lo, rows.hi, rows.hi, strict=True)):
        for x, column in enumerate(
            zip(columns.lo, columns.hi, columns.lo, columns.hi, strict=True)
        ):
            for part, i, j in zip(parts, row, column, strict=True):
                sums[i, j] = flush(sums[i, j] + part[y, x])


def add_nearest(sums: NDArray[Any], grad: NDArray[Any], rows: Samples, columns: Samples) -> None:
    """Add a crop's gradient to the pixels that its inside samples are copies of."""
    for y, i in enumerate(rows.lo):
        for x, j in enumerate(columns.lo):
            sums[i, j] = flush(sums[i, j] + grad[y, x])


def cast_sums(sums: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Cast finished sums; a cast to an integer goes towards zero and saturates, NaN gives 0."""
    if dtype.kind not in "iu":
        return sums.astype(dtype)
    limits = np.iinfo(dtype)
    low = sums <= float(limits.min)
    high = sums >= float(limits.max + 1)
    between = np.where(low | high | np.isnan(sums), 0, sums).astype(dtype)
    return np.where(low, limits.min, np.where(high, limits.max, between)).astype(dtype)


def slopes_of(
    image: NDArray[Any], rows: Samples, columns: Samples
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the image's slopes along y and x at the inside samples, in float64."""

    def taps(y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.float64]:
        return image[np.ix_(y, x)].astype(np.float64)

    wx = columns.weight.astype(np.float64)[:, None]
    wy = rows.weight.astype(np.float64)[:, None, None]
    tl, tr = taps(rows.lo, columns.lo), taps(rows.lo, columns.hi)
    bl, br = taps(rows.hi, columns.lo), taps(rows.hi, columns.hi)
    along_y = (1 - wx) * (bl - tl) + wx * (br - tr)
    along_x = (1 - wy) * (tr - tl) + wy * (br - bl)
    return along_y, along_x


def edge_weights(n: int, count: int) -> NDArray[np.float64]:
    """Return how far each sample moves, in pixels, with its axis' first and second edge.

    The shape is (2, `count`): the derivatives of the samples' positions by the two edges.
    """
    limit = float(n - 1)
    if count == 1:
        return np.full((2, 1), 0.5 * limit)
    second = np.arange(count) * (limit / (count - 1))
    return np.stack([limit - second, second])


# ---- float32 without subnormals, as in TensorFlow's threads --------------------------


def flush(x: Any) -> Any:
    """Return `x` with float32 subnormals replaced by zeros of their sign; float64 unchanged.

    TensorFlow's threads and cropkit's kernels run in a mode of the CPU that flushes subnormals.
    The CPU decides by the exact result, this function by the rounded one: a product or quotient
    within 2**-150 below the smallest normal number can differ.
    """
    if x.dtype != np.float32:
        return x
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)[()]


backend: Final = ReferenceBackend()
