"""The gradient of a box in exact arithmetic."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cropkit._reference import sample_axis


def exact_box_gradient(
    grads: NDArray[Any], image: NDArray[Any], box: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sum the terms of one box exactly; and their magnitudes."""
    sizes, counts = image.shape[:2], grads.shape[:2]
    axes = [sample_axis(box[k], box[k + 2], sizes[k], counts[k], "bilinear") for k in range(2)]
    terms: list[list[float]] = [[], [], [], []]
    pixels_ = image.astype(float)
    for i, (yl, yh, wy) in enumerate(zip(*axes[0][1:], strict=True)):
        for j, (xl, xh, wx) in enumerate(zip(*axes[1][1:], strict=True)):
            tl, tr, bl, br = (pixels_[y, x] for y in (yl, yh) for x in (xl, xh))
            g = grads[axes[0].inside.start + i, axes[1].inside.start + j].astype(float)
            slopes = (
                g * ((1 - float(wx)) * (bl - tl) + float(wx) * (br - tr)),
                g * ((1 - float(wy)) * (tr - tl) + float(wy) * (br - bl)),
            )
            for k, at in enumerate((axes[0].inside.start + i, axes[1].inside.start + j)):
                limit = sizes[k] - 1
                share = at * limit / (counts[k] - 1) if counts[k] > 1 else 0.5 * limit
                first = limit - share if counts[k] > 1 else share
                terms[k] += (slopes[k] * first).tolist()
                terms[k + 2] += (slopes[k] * share).tolist()
    sums = np.array([math.fsum(t) for t in terms])
    return sums, np.array([math.fsum(map(abs, t)) for t in terms])
