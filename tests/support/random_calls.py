"""Random calls that TensorFlow's operator takes, for comparisons with it.

Environment
-----------
CROPKIT_ORACLE_CALLS
    How many calls (default 4000), half from a fixed seed and half from a fresh one.
CROPKIT_ORACLE_SEED
    The second seed, which a failure prints (default: the time).
"""

import os
import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .cases import DEPTHS, METHODS, TENSORFLOW_DTYPES, pixels

CALLS: Final = int(os.environ.get("CROPKIT_ORACLE_CALLS", "4000"))
FIXED_SEED: Final = 20250131
FRESH_SEED: Final = int(os.environ.get("CROPKIT_ORACLE_SEED") or time.time_ns() // 10**6)


def random_image(rng: np.random.Generator) -> NDArray[Any]:
    """Draw an image of one of the operator's dtypes: shape, magnitude, special pixels."""
    heights = [1, 2, *rng.integers(3, 40, 18)]
    widths = [1, 2, *rng.integers(3, 70, 14), *rng.integers(70, 400, 4)]
    depths = [*DEPTHS, 6, 7, 16, 33]
    batch = int(rng.integers(1, 4))
    shape = (batch, *(int(rng.choice(sizes)) for sizes in (heights, widths, depths)))
    dtype = str(rng.choice(TENSORFLOW_DTYPES))
    image = pixels(shape, dtype, int(rng.integers(2**32)), special=float(rng.choice([0, 0, 0.03])))
    if image.dtype.kind == "f":
        # From where products are subnormal to where sums overflow.
        power = int(rng.choice([0, 0, 0, -40, -44, -38, 30, 36]))
        with np.errstate(all="ignore"):
            image *= image.dtype.type(10.0 ** min(power, 4 if dtype == "float16" else power))
    return image


def random_boxes(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Draw boxes of one kind: inside, outside, on pixels, tiny, subnormal, large, degenerate."""
    shape = (int(rng.integers(1, 12)), 4)
    pixel = np.array([max(height - 1, 1), max(width - 1, 1)] * 2)
    kind = rng.integers(9)
    if kind == 0:
        boxes = rng.uniform(0, 1, shape)
    elif kind == 1:
        boxes = rng.uniform(-0.4, 1.4, shape)
    elif kind == 2:
        boxes = rng.choice([0, -0.0, 1, 0.5, 0.25, 1 / 3, -0.1, 1.1], shape)
    elif kind == 3:  # on pixels, or halfway between two
        boxes = (
            rng.integers(-2, 2 * np.array([height, width] * 2), shape) / rng.choice([1, 2]) / pixel
        )
    elif kind == 4:  # as large as a few pixels
        middle = rng.uniform(0, 1, (shape[0], 2))
        boxes = np.concatenate([middle, middle + rng.normal(0, 3, (shape[0], 2)) / pixel[:2]], 1)
    elif kind == 5:  # an edge a few roundings away from where it matters
        boxes = rng.choice([0, 1], shape).astype(np.float32)
        for _ in range(int(rng.integers(1, 4))):
            boxes = np.nextafter(boxes, rng.choice([-9, 9], shape).astype(np.float32))
    elif kind == 6:  # subnormal ones among them
        boxes = rng.normal(0, 1, shape) * 10.0 ** rng.integers(-46, -30, shape)
        boxes = np.where(rng.random(shape) < 0.3, rng.uniform(0, 1, shape), boxes)
    elif kind == 7:
        # Larger ones make the operator read outside its arrays (the scale overflows).
        boxes = rng.normal(0, 1, shape) * 10.0 ** rng.integers(0, 30, shape)
    else:  # no height, no width
        boxes = rng.uniform(-0.1, 1.1, shape)
        boxes[:, 2:] = np.where(rng.random((shape[0], 2)) < 0.5, boxes[:, :2], boxes[:, 2:])
    return boxes.astype(np.float32)


def random_call(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw the operator's arguments."""
    image = random_image(rng)
    boxes = random_boxes(rng, image.shape[1], image.shape[2])
    size = (
        int(rng.integers(1, 24)),
        int(rng.choice([1, rng.integers(2, 20), rng.integers(20, 80)])),
    )
    return (
        image,
        boxes,
        rng.integers(0, len(image), len(boxes)).astype(np.int32),
        size,
        str(rng.choice(METHODS)),
        float(rng.choice([0.0, 1.5, -0.0, 1e-40, np.nan, np.inf])),
    )
