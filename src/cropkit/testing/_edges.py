"""Boxes for which one rounding decides whether a sample is inside the image.

A sample at the position ``v`` is inside if ``0 <= v <= n - 1``. For common boxes, the exact
position of the first or last sample is 0 or ``n - 1``, so the roundings decide on which side
the sample falls. The search below computes positions as the specification says and in wrong
ways, and keeps the boxes for which the two disagree.
"""

from functools import cache
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Variant = Literal["reciprocal", "fused", "ratio first", "double"]

# Edges of boxes that meet, or nearly meet, a border of the image: whole, flipped, a part.
BOXES: Final = (
    (0.0, 1.0), (1.0, 0.0), (0.1, 1.0), (1 / 3, 1.0), (0.3, 1.0), (-0.25, 1.0), (0.7, 0.0),
    (1.0, 0.2), (0.0, 1.25),
)  # fmt: skip
SIZES: Final = range(2, 51)
COUNTS: Final = range(2, 44)


class EdgeCase(NamedTuple):
    """The edges `a` and `b` of a box along an axis of `n` pixels, and the number of samples."""

    a: float
    b: float
    n: int
    samples: int

    def __str__(self) -> str:
        return f"edges {self.a:.6g} and {self.b:.6g} on {self.n} pixels to {self.samples} samples"


def positions(
    a: Any, b: Any, n: Any, count: int, dtype: Any = np.float32, variant: Variant | None = None
) -> NDArray[Any]:
    """Return the positions of `count` > 1 samples, as specified or in the wrong way `variant`.

    Parameters
    ----------
    a, b : float
        Normalized edges.
    n : int, or ndarray of int, shape (sizes, 1)
        Pixels of the axis.
    count : int
    dtype : {numpy.float32, numpy.float64}
        The dtype of the arithmetic.
    variant : str, optional
        ``"reciprocal"`` multiplies by ``1 / (count - 1)``, ``"fused"`` rounds the last
        product and sum once (float32 only), ``"ratio first"`` computes
        ``(n - 1) / (count - 1)`` before the box's extent comes in, and ``"double"``
        computes everything in float64.
    """
    real = np.float64 if variant == "double" else dtype
    a, b = (real(dtype(edge)) for edge in (a, b))
    limit = np.asarray(n - 1).astype(real)
    i = np.arange(count).astype(real)
    last = real(count - 1)
    if variant == "reciprocal":
        scale = (b - a) * limit * (real(1) / last)
    elif variant == "ratio first":
        scale = (b - a) * (limit / last)
    else:
        scale = (b - a) * limit / last
    start = a * limit
    if variant == "fused":
        # A product of two float32 is exact in float64. The sum is rounded once more than in
        # hardware, which changes one sum in 2**29.
        exact = start.astype(np.float64) + i.astype(np.float64) * scale.astype(np.float64)
        return np.asarray(exact.astype(np.float32))
    return np.asarray(start + i * scale)


def is_inside(v: NDArray[Any], n: Any) -> NDArray[np.bool]:
    """Tell which positions lie on an axis of `n` pixels."""
    inside: NDArray[np.bool] = (v >= 0) & (v <= np.asarray(n - 1).astype(v.dtype))
    return inside


@cache
def flipped_cases(variant: Variant, dtype: str = "float32") -> tuple[EdgeCase, ...]:
    """Return the cases in which `variant` flips a sample between inside and outside."""
    real = np.dtype(dtype).type
    n = np.array(SIZES)[:, None]
    cases = []
    for a, b in BOXES:
        for count in COUNTS:
            right = is_inside(positions(a, b, n, count, real), n)
            wrong = is_inside(positions(a, b, n, count, real, variant), n)
            sizes = n[(right != wrong).any(axis=1), 0]
            cases += [EdgeCase(a, b, int(size), count) for size in sizes]
    return tuple(cases)
