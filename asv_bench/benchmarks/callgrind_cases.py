"""The calls that `callgrind` counts; a program, run under valgrind.

Each workload at its own image and crop size, so that the mixture of sampling steps is the
real one, but with few boxes.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from unittest.mock import patch

import numpy as np

from cropkit import (
    _cpu,
    crop_and_resize,
    crop_and_resize_grad_boxes,
    crop_and_resize_grad_image,
)

if __package__:
    from . import workloads
    from .c_helper import load_c
else:
    import workloads
    from c_helper import load_c

# `masks` and `tiny` are small; `features` has much work in few values of the crop.
_NUM_BOXES = {"masks": 16, "tiny": 5, "upsample": 3}
GRADIENTS = ("grad_image", "grad_boxes")
_CLIENT_REQUESTS = """
#include <valgrind/callgrind.h>
void count_on(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void count_off(void) { CALLGRIND_STOP_INSTRUMENTATION; }
void write_profile(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
"""


def names() -> list[str]:
    """Return the names of the cases: ISA/workload/method or gradient, or a variation of it."""
    kinds = plain_names()
    kinds += [f"{name}-float64/bilinear" for name in workloads.FLOAT64_NAMES]
    # Streaming stores, the pixels of no special route, and strides of no special kind.
    kinds += ["rgb_u8-stream/bilinear", "rgb_u16/bilinear", "rgb_f32-channels_first/bilinear"]
    return [f"{isa}/{kind}" for isa in ("avx2", "baseline") for kind in kinds]


def plain_names() -> list[str]:
    """Return the names without variation, for any instruction set: workload/method or gradient."""
    kinds = [f"{name}/{method}" for name in workloads.NAMES for method in workloads.METHODS]
    return kinds + [f"{name}/{what}" for name in workloads.GRADIENT_NAMES for what in GRADIENTS]


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array on a page boundary: the heads and tails of loops depend on it."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + size].view(dtype).reshape(shape)


def prepare(kind: str, backend: _cpu.CpuBackend) -> Callable[[], object]:
    """Return the call that `kind` names: a case's name without its instruction set."""
    kind, method = kind.split("/")
    kind, _, variation = kind.partition("-")
    name = {"rgb_u16": "rgb_u8"}.get(kind, kind)
    _, height, width, depth = workloads.SHAPES[name].image
    batch = 2 if name == "masks" else 1
    work = workloads.make(
        name, image=(batch, height, width, depth), num_boxes=_NUM_BOXES.get(name, 8)
    )
    image = work.image.astype(np.uint16) if kind == "rgb_u16" else work.image
    if variation == "channels_first":
        image = np.ascontiguousarray(image.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    else:
        page = aligned_empty(image.shape, image.dtype)
        page[...] = image
        image = page
    dtype = np.dtype(np.float64 if variation == "float64" else np.float32)
    out = aligned_empty(work.result_shape, dtype)

    if method in GRADIENTS:
        return prepare_gradient(method, work, image, backend)

    def call() -> object:
        return crop_and_resize(
            image, work.boxes, work.box_indices, work.crop_size, method,
            dtype=dtype, out=out, backend=backend, num_threads=1,
        )  # fmt: skip

    return call


def prepare_gradient(
    which: str, work: workloads.Workload, image: np.ndarray, backend: _cpu.CpuBackend
) -> Callable[[], object]:
    """Return the call of one gradient."""
    grads = aligned_empty(work.result_shape, np.dtype(np.float32))
    grads[...] = workloads.crop_gradients(work)
    boxes, indices = work.boxes, work.box_indices
    out = aligned_empty(image.shape, np.dtype(np.float32))

    def grad_image() -> object:
        return crop_and_resize_grad_image(
            grads, boxes, indices, image.shape, out=out, backend=backend, num_threads=1
        )

    def grad_boxes() -> object:
        return crop_and_resize_grad_boxes(
            grads, image, boxes, indices, backend=backend, num_threads=1
        )

    return grad_image if which == "grad_image" else grad_boxes


def selected(text: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each case whose name contains `text`, with its call."""
    backends = {isa: _cpu.CpuBackend(isa) for isa in _cpu.built_instruction_sets()}
    for case in names():
        isa, _, kind = case.partition("/")
        if text in case and isa in backends:
            yield case, prepare(kind, backends[isa])


def main() -> None:
    """Run the cases whose names contain the first argument, each counted."""
    valgrind = load_c(_CLIENT_REQUESTS)
    gc.disable()
    for case, call in selected(sys.argv[1]):
        # Streaming depends on the machine's cache; a count must not.
        cache = 0 if "-stream/" in case else 1 << 62
        with patch.object(_cpu, "streaming_threshold", return_value=cache):
            call()
            valgrind.count_on()
            call()
            valgrind.count_off()
        valgrind.write_profile(case.encode())


if __name__ == "__main__":
    main()
