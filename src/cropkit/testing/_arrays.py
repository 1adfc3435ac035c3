"""Arrays to test with: pixels that reach every corner of a dtype, layouts, geometries.

Pixels come from an integer hash and not from a random generator, so every release of NumPy
gives the same pixels.
"""

import math
import tempfile
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cropkit import IMAGE_DTYPES

DTYPES: Final = IMAGE_DTYPES
METHODS: Final = ("bilinear", "nearest")
# A few pixels of a floating-point image are replaced with these.
SPECIAL: Final = (math.inf, -math.inf, math.nan, -0.0, 0.0, 1e-40, -1e-40, 1.2e-38, 3e38, 65504.0)


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype named `name`, bfloat16 included if ``ml_dtypes`` is installed."""
    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


def pixels(shape: tuple[int, ...], dtype: str, seed: int = 0, special: float = 0.0) -> NDArray[Any]:
    """Make an image whose pixels use the whole range of an integer dtype.

    Floating-point pixels lie in [-128, 128); the fraction `special` of them is from `SPECIAL`.
    """
    n = math.prod(shape)
    start = np.uint64(seed % 2**32 * 0x9E3779B97F4A7C15 % 2**64)
    x = np.arange(n, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95) + start
    # splitmix64's finalizer
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = (x ^ (x >> np.uint64(31))).reshape(shape)
    kind = dtype_of(dtype)
    if dtype == "bool":
        return np.asarray(x % np.uint64(2) == 1)
    if kind.kind in "iu":
        return x.view(np.int64).astype(kind)
    image = ((x >> np.uint64(24)).astype(np.float64) * 2.0**-32 - 128.0).astype(kind)
    if special:
        with np.errstate(over="ignore"):
            replacement = np.array(SPECIAL).astype(kind)
        chosen = (x % np.uint64(1000)).astype(float) < 1000 * special
        image[chosen] = replacement[(x[chosen] >> np.uint64(12)) % np.uint64(len(SPECIAL))]
    return image


# ---- layouts ---------------------------------------------------------------------------
# Each function takes an array of four axes and any dtype, and returns an equal one of another
# layout. Memory around its elements holds bytes of 0x7f, which show a read that goes astray.


class View(NamedTuple):
    """A layout that any library's arrays can have: a slice of a larger array.

    Attributes
    ----------
    room : callable
        Returns the shape of the larger array, given that of the slice.
    place : tuple
        The index that takes the slice from the larger array.
    """

    room: Callable[[int, int, int, int], tuple[int, int, int, int]]
    place: tuple[Any, ...]


VIEWS: Final = {
    "sliced": View(
        lambda b, h, w, d: (b + 1, 2 * h, 3 * w, d + 2),
        (slice(1, None), slice(None, None, 2), slice(1, None, 3), slice(1, -1)),
    ),
    # A region of a larger image: packed pixels, padded rows.
    "inner_columns": View(
        lambda b, h, w, d: (b, h + 3, w + 5, d), (slice(None), slice(1, -2), slice(2, -3))
    ),
    "one_of_many_channels": View(
        lambda b, h, w, d: (b, h, w, 2 * d), (..., slice(None, None, 2))
    ),
}  # fmt: skip


def room_for(view: View, array: NDArray[Any]) -> NDArray[Any]:
    """Return the larger array of which `view` is a slice, with `array` in the slice."""
    b, h, w, d = array.shape
    room = _room(view.room(b, h, w, d), array.dtype)
    room[view.place] = array
    return room


def _viewed(name: str, array: NDArray[Any]) -> NDArray[Any]:
    view: NDArray[Any] = room_for(VIEWS[name], array)[VIEWS[name].place]
    return view


def _room(shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0) -> NDArray[Any]:
    raw = np.full(math.prod(shape) * dtype.itemsize + offset, 0x7F, np.uint8)
    return raw[offset:].view(dtype).reshape(shape)


def _filled(view: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    view[...] = array
    return view


def packed(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` in C order."""
    return array.copy(order="C")


def _swapped(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return `dtype` in the other byte order, except bfloat16, of which NumPy has one order."""
    return dtype if dtype.name == "bfloat16" else dtype.newbyteorder()


def byte_swapped(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` in the other byte order."""
    return array.astype(_swapped(array.dtype))


def misaligned(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` to an odd address."""
    return _filled(_room(array.shape, array.dtype, 1), array)


def misaligned_and_swapped(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` to an odd address, in the other byte order."""
    return _filled(_room(array.shape, _swapped(array.dtype), 1), array)


def negative_strides(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` with negative strides along every axis."""
    return array[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1]


def mirrored_columns(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` with a negative stride along the columns."""
    return array[:, :, ::-1].copy()[:, :, ::-1]


def channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` with the channels before the rows in memory."""
    return array.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)


def fortran_order(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` in Fortran order: the batch is the fastest axis."""
    return np.asfortranarray(array)


def sliced(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` into a part of a larger array, with steps along rows and columns."""
    return _viewed("sliced", array)


def inner_columns(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` into a region of larger images."""
    return _viewed("inner_columns", array)


def one_of_many_channels(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` into every second channel of a larger array."""
    return _viewed("one_of_many_channels", array)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` and make the copy read-only."""
    view = array.copy()
    view.flags.writeable = False
    return view


def memory_mapped(array: NDArray[Any]) -> NDArray[Any]:
    """Copy `array` into a memory-mapped file."""
    with tempfile.TemporaryFile() as file:
        offset = 3 * array.dtype.itemsize
        mapped = np.memmap(file, array.dtype, "w+", offset=offset, shape=array.shape)
    return _filled(mapped, array)


LAYOUTS: Final[dict[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    function.__name__: function
    for function in (
        packed, byte_swapped, misaligned, misaligned_and_swapped, negative_strides,
        mirrored_columns, channels_first, fortran_order, sliced, inner_columns,
        one_of_many_channels, read_only, memory_mapped,
    )
}  # fmt: skip

# The layouts that an `out` may have: writable, in native byte order.
OUT_LAYOUTS: Final = (
    "packed", "misaligned", "negative_strides", "mirrored_columns", "channels_first",
    "fortran_order", "sliced", "inner_columns", "one_of_many_channels", "memory_mapped",
)  # fmt: skip


def empty_out(shape: tuple[int, ...], dtype: str, layout: str) -> NDArray[Any]:
    """Make an `out` of some layout, filled with a value that no test expects."""
    return LAYOUTS[layout](np.full(shape, -77777.25, dtype))


def memory_of(array: NDArray[Any]) -> bytes:
    """Return all bytes of the memory that an array is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.tobytes("A")


# ---- calls that reach every part of the kernels --------------------------------------


class Geometry(NamedTuple):
    """Shapes and boxes of one call."""

    name: str
    image_shape: tuple[int, int, int]  # batch, height, width
    boxes: tuple[tuple[float, float, float, float], ...]
    crop_size: tuple[int, int]


# The kernels choose their loops by depth, dtype and sampling step. These geometries have all
# steps, and rows of several vectors of the widest instruction set and a rest.
GEOMETRIES: Final = (
    Geometry("identity", (1, 5, 37), ((0, 0, 1, 1),), (5, 37)),
    Geometry("magnify", (2, 4, 23), ((0, 0, 1, 1), (0.9, 0.8, 0.1, 0.1)), (9, 71)),
    # uint8: neighbouring samples' taps still fit in one 16-byte window, or just do not
    Geometry("step 1.7", (2, 12, 61), ((0.1, 0, 0.8, 1), (0, 1, 1, 0)), (7, 36)),
    Geometry("step 4.5", (1, 9, 200), ((0, 0, 1, 1), (1, 0.9, 0.3, 0.1)), (4, 43)),
    # taps so far apart that only they are converted
    Geometry("step 30", (2, 40, 601), ((0, 0, 1, 1), (0.95, 0.97, 0.02, 0.03)), (5, 20)),
    Geometry("outside", (2, 7, 33), ((-0.6, -0.4, 1.2, 1.7), (0.5, 1.3, 3, -0.2)), (8, 49)),
    Geometry("last pixel", (1, 6, 40), ((0.7, 0.86, 1, 1), (1, 1, 0.6, 0.7)), (5, 33)),
    Geometry("narrow", (2, 3, 2), ((0, 0, 1, 1), (0.2, 0.1, 0.7, 0.8)), (4, 19)),
    Geometry("one column", (1, 6, 1), ((0, 0, 1, 1), (0.5, -0.5, 0.6, 0.5)), (3, 5)),
    Geometry("one sample", (2, 8, 25), ((0.1, 0.2, 0.5, 0.9), (0, 0, 1, 1)), (1, 1)),
    Geometry("one row", (1, 8, 30), ((0.1, 0.2, 0.5, 0.9), (0.4, 0.4, 0.4, 0.4)), (1, 35)),
)
GEOMETRY_IDS: Final = tuple(geometry.name for geometry in GEOMETRIES)
DEPTHS: Final = (1, 2, 3, 4, 5, 8, 17)


def indices_of(geometry: Geometry) -> NDArray[np.int32]:
    """Give the boxes of `geometry` its images in turn, the last one first."""
    n = len(geometry.boxes)
    return (np.arange(n, 0, -1) % geometry.image_shape[0]).astype(np.int32)
