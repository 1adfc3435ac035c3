"""Backend ``reference``: the operator in NumPy, readable as its specification.

Slow next to ``cpu``, and the one that everything else is compared with. The formulas are
those of ``tf.image.crop_and_resize`` (TensorFlow 2.21), each operation rounded on its
own in the request's dtype.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cropkit._request import CPU_DEVICE, Request


class Samples(NamedTuple):
    """Where the samples of one axis read: the inside ones only, with their positions.

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
        Normalized edges; their type is the type of all arithmetic.
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
    # The floor is an integer by now: at v = -0.0 the weight is -0.0, as in the operator.
    weight = v - floor.astype(real)
    return Samples(inside, np.minimum(floor, n - 1), np.minimum(ceil, n - 1), weight)


class ReferenceBackend:
    """The specification as a backend."""

    name: Final = "reference"
    device_types: Final = frozenset({CPU_DEVICE})
    exact: Final = True

    def unavailable(self) -> str | None:
        """Nothing keeps it from running."""
        return None

    def refuses(self, request: Request) -> str | None:
        """Every call is computed."""
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
        crop_height, crop_width = request.crop_size
        _, height, width, _ = request.image_shape
        with np.errstate(all="ignore"):
            out[...] = request.dtype.type(request.extrapolation_value)
            for crop, (y1, x1, y2, x2), index in zip(out, boxes, box_indices, strict=True):
                rows = sample_axis(y1, y2, height, crop_height, request.method)
                columns = sample_axis(x1, x2, width, crop_width, request.method)
                inside = crop[rows.inside, columns.inside]
                if request.method == "nearest":
                    pixels = image[index][np.ix_(rows.lo, columns.lo)]
                    # A copy flushes nothing; rounding from float64 does.
                    rounded = pixels.dtype.name == "float64"
                    pixels = pixels.astype(request.dtype)
                    inside[...] = flush(pixels) if rounded else pixels
                else:
                    inside[...] = bilinear(image[index], rows, columns, request.dtype)


def bilinear(
    image: NDArray[Any], rows: Samples, columns: Samples, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Interpolate one image at the inside samples, horizontally first."""

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


def flush(x: Any) -> Any:
    """Make float32 subnormals zero, keeping the sign; float64 stays as it is.

    The threads of the operator run with subnormals flushed, and so do the kernels here.
    They decide by the exact result and this by the rounded one: a product or quotient
    within 2**-150 below the smallest normal number can differ.
    """
    if x.dtype != np.float32:
        return x
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)[()]


backend: Final = ReferenceBackend()
