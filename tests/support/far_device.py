"""A device that is far from the CPU, acted out in NumPy: its arrays, streams and backends."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cropkit import Request
from cropkit._cpu import backend as cpu

from .device_arrays import CUDA, OnDevice

Work = Callable[[], None]

_current = threading.local()  # .stream: where this thread queues its work, if anywhere
_streams: list[list[Work]] = []


@contextmanager
def stream() -> Iterator[None]:
    """Queue work on a new stream, where it waits for `synchronize`."""
    _streams.append([])
    _current.stream = _streams[-1]
    try:
        yield
    finally:
        _current.stream = None


def queue(work: Work) -> None:
    """Do `work` now, or on the current stream, after what was queued there."""
    current = getattr(_current, "stream", None)
    if current is None:
        work()
    else:
        current.append(work)


def synchronize() -> None:
    """Do all that is queued."""
    for queued in _streams:
        while queued:
            queued.pop(0)()


class FarArray(OnDevice):
    """An array of the device's library, which can be sliced, reshaped and assigned to."""

    def __getitem__(self, where: Any) -> "FarArray":
        return FarArray(self.memory[where])

    def __setitem__(self, where: Any, value: Any) -> None:
        given = value.memory if isinstance(value, FarArray) else value
        queue(lambda: self.memory.__setitem__(where, given))

    def reshape(self, shape: tuple[int, ...]) -> "FarArray":
        return FarArray(self.memory.reshape(shape))


class FarBackend:
    """Right: computes on the caller's stream, and says when `out` overlaps an input."""

    name = "far"
    device_types = frozenset({CUDA})
    exact = True

    def unavailable(self) -> str | None:
        return None

    def refuses(self, request: Request) -> str | None:
        return None

    def empty(self, shape: tuple[int, ...], dtype: Any, like: FarArray) -> FarArray:
        if math.prod(shape) > 1 << 30:
            raise MemoryError(f"{shape} {dtype} is more than the device has")
        return FarArray(np.full(shape, 77).astype(dtype))

    def crop_and_resize(
        self, request: Request, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self.compute(request, (image,), boxes, box_indices, out)

    def grad_image(
        self, request: Request, grads: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self.compute(request, (grads,), boxes, box_indices, out)

    def grad_boxes(
        self, request: Request, grads: Any, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self.compute(request, (grads, image), boxes, box_indices, out)

    def compute(
        self, request: Request, arrays: Any, boxes: NDArray[Any], box_indices: Any, out: Any
    ) -> None:
        if any(np.shares_memory(array.memory, out.memory) for array in arrays):
            raise ValueError("out overlaps image: expected memory of its own")
        self.launch(request, arrays, boxes.copy(), box_indices.copy(), out)

    def launch(self, request: Request, arrays: Any, boxes: Any, box_indices: Any, out: Any) -> None:
        method = getattr(cpu, request.operation)
        given = [array.memory for array in arrays]
        queue(lambda: method(request, *given, boxes, box_indices, out.memory))


class IgnoresStreams(FarBackend):
    """Computes at once, on what the arrays hold before the queued work is done."""

    def launch(self, *arguments: Any) -> None:
        kept, _current.stream = getattr(_current, "stream", None), None
        super().launch(*arguments)
        _current.stream = kept


class AllocatesElsewhere(FarBackend):
    """Allocates results on another device than the image's."""

    def empty(self, shape: tuple[int, ...], dtype: Any, like: FarArray) -> FarArray:
        array = super().empty(shape, dtype, like)
        array.device = (CUDA, 1)
        return array


class CopiesOut(FarBackend):
    """Fills a copy of `out`."""

    def launch(self, request: Request, arrays: Any, boxes: Any, box_indices: Any, out: Any) -> None:
        super().launch(request, arrays, boxes, box_indices, FarArray(out.memory.copy()))


class OverlooksOverlap(FarBackend):
    """Writes to `out` even where it is the image."""

    def compute(self, *arguments: Any) -> None:
        self.launch(*arguments)
