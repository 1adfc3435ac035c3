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
    if count > 1:
        scale = (b - a) * limit / real(count - 1)
        v = a * limit + np.arange(count).astype(real) * scale
    else:
        v = np.array([0.5 * np.float64(a + b) * np.float64(n - 1)]).astype(real)
    (where,) = np.nonzero((v >= 0) & (v <= limit))
    inside = slice(where[0], where[-1] + 1) if where.size else slice(0, 0)
    v = v[inside]
    floor = np.floor(v)
    if method == "nearest":
        index = floor.astype(np.intp) + (v - floor >= real(0.5))
        index = np.minimum(index, n - 1)
        return Samples(inside, index, index, v - v)
    lo = np.minimum(floor.astype(np.intp), n - 1)
    hi = np.minimum(np.ceil(v).astype(np.intp), n - 1)
    return Samples(inside, lo, hi, v - floor)


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
                    inside[...] = image[index][np.ix_(rows.lo, columns.lo)]
                else:
                    inside[...] = bilinear(image[index], rows, columns, request.dtype)


def bilinear(
    image: NDArray[Any], rows: Samples, columns: Samples, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Interpolate one image at the inside samples, horizontally first."""

    def taps(y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[Any]:
        return image[np.ix_(y, x)].astype(dtype)

    wx = columns.weight[:, None]
    wy = rows.weight[:, None, None]
    left, right = taps(rows.lo, columns.lo), taps(rows.lo, columns.hi)
    top = left + (right - left) * wx
    left, right = taps(rows.hi, columns.lo), taps(rows.hi, columns.hi)
    bottom = left + (right - left) * wx
    return top + (bottom - top) * wy


backend: Final = ReferenceBackend()
