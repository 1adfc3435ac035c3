"""Launches for a request: the kernels to run, with their macros and arguments.

This module knows sizes, strides and alignment, and nothing of OpenCL or CUDA. The modules of
those compile, bind arguments and launch. ``kernels.cl`` says what each kernel does.
"""

import math
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

import numpy as np

from cropkit import Request

# More groups than fill any device; a group loops over the tasks beyond.
_MAX_GROUPS: Final = 1 << 20
# Values of a chunk, which one group sums; part of the order of a box gradient's additions.
_CHUNK_VALUES: Final = 1 << 16
# The fewest work-items of a group: eight lanes for each of eight columns.
MIN_LOCAL_SIZE: Final = 64


Macros = tuple[tuple[str, str | int], ...]


class Operand(NamedTuple):
    """An array in the device's memory.

    Attributes
    ----------
    memory : object
        The memory, as the backend binds it to a pointer of a kernel.
    offset : int
        Offset of element 0 in `memory`, in elements.
    strides : tuple of int
        Stride of each axis, in elements.
    dtype : str
        NumPy's name of the dtype.
    alignment : int
        A power of two, in bytes, that divides the address of element 0.
    """

    memory: Any
    offset: int
    strides: tuple[int, ...]
    dtype: str
    alignment: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments that a kernel takes for this array."""
        return (self.memory, np.int64(self.offset), *map(np.int64, self.strides))


class Launch(NamedTuple):
    """One kernel to run, after those before it.

    Attributes
    ----------
    kernel : str
        The kernel's name.
    macros : tuple of (str, str or int)
        The macros with which the kernel is compiled.
    groups, local_size : int
        The number of groups, and of work-items in a group.
    arguments : tuple
        Numbers are NumPy scalars of the parameters' types; every other argument is memory.
    """

    kernel: str
    macros: Macros
    groups: int
    local_size: int
    arguments: tuple[Any, ...]


# A function that allocates device memory, given a dtype's name and the number of elements.
Allocate = Callable[[str, int], Any]


@cache
def source() -> str:
    """Return the source of the kernels."""
    return files("cropkit_gpu").joinpath("kernels.cl").read_text(encoding="utf-8")


def scratch_bytes(request: Request) -> int:
    """Return about how many bytes of device memory a call needs beside its arrays."""
    samples = request.num_boxes * sum(request.crop_size)
    chunks = request.num_boxes * _chunks(request)[1] if request.operation == "grad_boxes" else 0
    return samples * (8 + request.compute_dtype.itemsize) + 32 * chunks


def forward(
    request: Request,
    image: Operand,
    boxes: Any,
    box_indices: Any,
    out: Operand,
    allocate: Allocate,
    local_size: int,
) -> list[Launch]:
    """Plan the launches that fill `out` with the crops."""
    tables, lo, weight = _axis_tables(request, boxes, allocate, local_size, request.sampling.method)
    num_boxes, crop_height, crop_width, depth = request.crops_shape
    channels = _run_length(depth, image, out)
    row_items = min(local_size, _power_of_two(crop_width * (depth // channels)))
    macros = _macros(
        "FORWARD", request, local_size, request.sampling.method,
        PIXEL=image.dtype, VALUE=request.compute_dtype.name, CHANNELS=channels,
        RESULT=out.dtype, PIXEL_VECTOR=_is_vector(image, channels),
        RESULT_VECTOR=_is_vector(out, channels),
    )  # fmt: skip
    with np.errstate(all="ignore"):  # the caller's errstate may raise
        extrapolation_value = request.compute_dtype.type(request.extrapolation_value)
    arguments = (
        *image.arguments, box_indices, lo, weight, *out.arguments, *_sizes(request),
        extrapolation_value, np.int32(row_items),
    )  # fmt: skip
    groups = _groups(num_boxes * crop_height, local_size // row_items)
    return [tables, Launch("forward", macros, groups, local_size, arguments)]


def grad_image(
    request: Request,
    grads: Operand,
    boxes: Any,
    box_indices: Any,
    out: Operand,
    allocate: Allocate,
    local_size: int,
) -> list[Launch]:
    """Plan the launches that fill `out` with the image's gradient."""
    tables, lo, weight = _axis_tables(request, boxes, allocate, local_size, request.sampling.method)
    batch, height, width, depth = request.image_shape
    channels = _run_length(depth, grads, out)
    # A group takes channels first, which share the tables; its pixels are about a square.
    tile_c = min(local_size // 4, _power_of_two(depth // channels))
    tile_x = _power_of_two(math.isqrt(local_size // tile_c))
    tile_y = local_size // tile_c // tile_x
    macros = _macros(
        "GRAD_IMAGE", request, local_size, request.sampling.method,
        PIXEL=grads.dtype, VALUE=request.compute_dtype.name, RESULT=out.dtype, CHANNELS=channels,
        PIXEL_VECTOR=_is_vector(grads, channels), RESULT_VECTOR=_is_vector(out, channels),
    )  # fmt: skip
    arguments = (
        *grads.arguments, box_indices, lo, weight, *out.arguments, np.int64(batch),
        *_sizes(request), np.int32(tile_y), np.int32(tile_x),
    )  # fmt: skip
    tiles = batch * -(-height // tile_y) * -(-width // tile_x) * -(-depth // (channels * tile_c))
    return [tables, Launch("grad_image", macros, _groups(tiles), local_size, arguments)]


def grad_boxes(
    request: Request,
    grads: Operand,
    image: Operand,
    boxes: Any,
    box_indices: Any,
    out: Operand,
    allocate: Allocate,
    local_size: int,
) -> list[Launch]:
    """Plan the launches that fill `out` with the boxes' gradient, which is always bilinear."""
    tables, lo, weight = _axis_tables(request, boxes, allocate, local_size, "bilinear")
    chunk_rows, chunks = _chunks(request)
    chunk_sums = allocate("float64", 4 * request.num_boxes * chunks)
    macros = _macros(
        "GRAD_BOXES", request, local_size, "bilinear",
        PIXEL=grads.dtype, TAP=image.dtype, VALUE="float64",
    )  # fmt: skip
    arguments = (
        *grads.arguments, *image.arguments, box_indices, lo, weight, chunk_sums,
        *_sizes(request), np.int64(chunk_rows), np.int64(chunks),
    )  # fmt: skip
    sums = Launch("grad_boxes", macros, _groups(request.num_boxes * chunks), local_size, arguments)
    macros = _macros("ADD_CHUNKS", request, local_size, "bilinear", VALUE="float64")
    arguments = (chunk_sums, *out.arguments, np.int64(request.num_boxes), np.int64(chunks))
    groups = _groups(4 * request.num_boxes, local_size)
    return [tables, sums, Launch("add_chunks", macros, groups, local_size, arguments)]


def _axis_tables(
    request: Request, boxes: Any, allocate: Allocate, local_size: int, method: str
) -> tuple[Launch, Any, Any]:
    """Plan the launch that tabulates taps; return it, the taps' indices and the weights."""
    samples = request.num_boxes * sum(request.crop_size)
    lo, weight = allocate("int64", samples), allocate(request.compute_dtype.name, samples)
    macros = _macros("AXIS_TABLES", request, local_size, method, VALUE=request.compute_dtype.name)
    height, width, _, *crops = _sizes(request)
    arguments = (boxes, lo, weight, height, width, *crops)
    groups = _groups(samples, local_size)
    return Launch("axis_tables", macros, groups, local_size, arguments), lo, weight


def _macros(
    kernel: str, request: Request, local_size: int, method: str, **others: str | int
) -> Macros:
    return (
        (f"KERNEL_{kernel}", 1),
        ("REAL", request.compute_dtype.name),
        ("NEAREST", int(method == "nearest")),
        ("LOCAL_SIZE", local_size),
        *others.items(),
    )


def _sizes(request: Request) -> tuple[np.int64, ...]:
    """Return height, width, depth, num_boxes, crop_height, crop_width: arguments of kernels."""
    sizes = (*request.image_shape[1:], request.num_boxes, *request.crop_size)
    return tuple(np.int64(size) for size in sizes)


def _chunks(request: Request) -> tuple[int, int]:
    """Return the rows of a chunk, and the chunks of a crop."""
    _, crop_height, crop_width, depth = request.crops_shape
    rows = max(1, _CHUNK_VALUES // (crop_width * max(1, depth)))
    return rows, -(-crop_height // rows)


def _groups(tasks: int, at_once: int = 1) -> int:
    return min(-(-tasks // at_once), _MAX_GROUPS)


def _power_of_two(n: int) -> int:
    """Return the largest power of two that is at most `n`."""
    return 1 << n.bit_length() - 1


def _run_length(depth: int, *arrays: Operand) -> int:
    """Return how many channels a work-item handles: all of a pixel, four, or one."""
    if any(array.strides[3] != 1 for array in arrays):
        return 1
    if depth <= 4:
        return depth
    return 4 if depth % 4 == 0 else 1


def _is_vector(array: Operand, channels: int) -> int:
    """Whether every run of four channels of an array can be loaded at once."""
    itemsize = itemsize_of(array.dtype)
    steps = [stride * itemsize for stride in array.strides[:3]]
    size = channels * itemsize
    return int(channels == 4 and size <= 16 and math.gcd(size, array.alignment, *steps) == size)


def itemsize_of(dtype: str) -> int:
    """Return the bytes of an element; NumPy knows bfloat16 only if ml_dtypes is loaded."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
