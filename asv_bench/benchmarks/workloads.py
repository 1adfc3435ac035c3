"""The eight workloads, made the same way everywhere: seeded, from one table.

| name       | who does this                                                     |
|------------|-------------------------------------------------------------------|
| `rgb_u8`   | a detector hands its boxes to a classifier                        |
| `rgb_f32`  | the same, images decoded to float32 earlier                       |
| `rgba_u8`  | screens, sprites                                                  |
| `gray_u8`  | text recognition, microscopy                                      |
| `features` | the second stage of Faster R-CNN                                  |
| `masks`    | the targets of Mask R-CNN                                         |
| `upsample` | previews, super-resolution patches                                |
| `tiny`     | the operator's own example: nothing but the overhead of a call    |
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = ("bilinear", "nearest")


@dataclass(frozen=True)
class Shape:
    """What makes a workload: no array yet."""

    dtype: str
    image: tuple[int, int, int, int]  # batch, height, width, depth
    num_boxes: int
    crop_size: tuple[int, int]


SHAPES = {
    "rgb_u8": Shape("uint8", (8, 720, 1280, 3), 256, (224, 224)),
    "rgb_f32": Shape("float32", (8, 720, 1280, 3), 256, (224, 224)),
    "rgba_u8": Shape("uint8", (2, 1080, 1920, 4), 64, (256, 256)),
    "gray_u8": Shape("uint8", (4, 480, 640, 1), 256, (128, 128)),
    "features": Shape("float32", (2, 64, 64, 256), 300, (14, 14)),
    "masks": Shape("float32", (64, 512, 512, 1), 64, (28, 28)),
    "upsample": Shape("float32", (1, 128, 128, 3), 64, (512, 512)),
    "tiny": Shape("float32", (1, 256, 256, 3), 5, (24, 24)),
}
NAMES = tuple(SHAPES)
# Those that are run with dtype=float64 too.
FLOAT64_NAMES = ("rgb_f32", "features")
# Those whose gradients are timed; `rgb_f32` with fewer boxes.
GRADIENT_NAMES = ("features", "rgb_f32", "masks")


@dataclass(frozen=True)
class Workload:
    """The arguments of one call."""

    name: str
    image: NDArray[Any]
    boxes: NDArray[np.float32]
    box_indices: NDArray[np.int32]
    crop_size: tuple[int, int]

    @property
    def result_shape(self) -> tuple[int, int, int, int]:
        """Shape of the crops."""
        return (len(self.boxes), *self.crop_size, self.image.shape[3])

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The four positional arguments of ``crop_and_resize``."""
        return self.image, self.boxes, self.box_indices, self.crop_size


def random_boxes(num_boxes: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Boxes with centres anywhere and sides of 0.1 to 0.5 of the image, clipped to it."""
    centre = rng.uniform(0.0, 1.0, (num_boxes, 2))
    side = rng.uniform(0.1, 0.5, (num_boxes, 2))
    corners = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    return np.clip(corners, 0.0, 1.0).astype(np.float32)


def noise(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> NDArray[Any]:
    """Images of random pixels."""
    if dtype == "float32":
        return rng.random(shape, dtype=np.float32)
    return rng.integers(0, 256, shape, dtype=dtype)


def smooth(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> NDArray[Any]:
    """Images of slow waves between 20 and 220, three down and two across, or of 133 and 200 pixels.

    A peer that reads half a pixel elsewhere gives nearly the same crops here, one that reads
    another box or swaps the axes does not. `rng` gives each image and channel its phase.
    """
    batch, height, width, depth = shape
    phase = rng.uniform(0.0, 2.0 * np.pi, (2, batch, 1, 1, depth))
    period_y, period_x = min(height, 400) / 3, min(width, 400) / 2
    y = np.arange(height).reshape(1, -1, 1, 1) * (2.0 * np.pi / period_y)
    x = np.arange(width).reshape(1, 1, -1, 1) * (2.0 * np.pi / period_x)
    waves = 120.0 + 50.0 * np.sin(y + phase[0]) + 50.0 * np.sin(x + phase[1])
    return waves.astype(dtype)


def make(name: str, pixels: Any = noise, **changes: Any) -> Workload:
    """Make the workload `name`.

    Parameters
    ----------
    name : str
        One of ``NAMES``.
    pixels : callable, default `noise`
        `noise` or `smooth`.
    **changes
        Fields of `Shape` that differ from the table, for example ``num_boxes=8``.
    """
    shape = replace(SHAPES[name], **changes)
    rng = np.random.default_rng(NAMES.index(name))
    return Workload(
        name,
        pixels(shape.image, shape.dtype, rng),
        random_boxes(shape.num_boxes, rng),
        rng.integers(0, shape.image[0], shape.num_boxes).astype(np.int32),
        shape.crop_size,
    )


def make_gradient(name: str, **changes: Any) -> Workload:
    """Make one of ``GRADIENT_NAMES`` as its gradients are timed; `changes` as in `make`."""
    return make(name, **({"num_boxes": 64} if name == "rgb_f32" else {}) | changes)


def crop_gradients(work: Workload) -> NDArray[np.float32]:
    """Return gradients with respect to the crops of a workload."""
    return np.random.default_rng(0).random(work.result_shape, dtype=np.float32)
