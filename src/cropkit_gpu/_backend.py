"""The code that both GPU backends share: the three operators, by the methods of a `Call`."""

from types import TracebackType
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cropkit import Request
from cropkit_gpu import _launches
from cropkit_gpu._launches import Launch, Operand


def forked(library: str) -> str:
    """Say why a driver cannot be used in a forked process."""
    return (
        f"{library} was started before this process was forked, and does not survive that; "
        "multiprocessing's start method 'spawn' avoids it"
    )


class Call(Protocol):
    """The memory and the launches of one call: a context, entered before its other methods."""

    @property
    def local_size(self) -> int:
        """Work-items of a group."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def read(self, name: str, array: Any, dtype: np.dtype[Any]) -> Operand:
        """Let kernels read the argument `name`."""
        ...

    def write(self, out: Any, dtype: np.dtype[Any]) -> Operand:
        """Let kernels write `out`; raise if it shares memory with an argument already read."""
        ...

    def send(self, array: NDArray[Any]) -> Any:
        """Copy a packed array to the device; return its memory."""
        ...

    def allocate(self, dtype: str, count: int) -> Any:
        """Allocate scratch memory."""
        ...

    def run(self, launches: list[Launch]) -> None:
        """Enqueue kernels, one after the other."""
        ...


class GpuBackend:
    """The three operators; a subclass's `call` says where and how the kernels run."""

    exact: Final = True

    def call(self, request: Request, like: Any) -> Call:
        """Begin a call where the array `like` is."""
        raise NotImplementedError

    def crop_and_resize(
        self,
        request: Request,
        image: Any,
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: Any,
    ) -> None:
        """Fill `out` as `cropkit.Backend` asks."""
        with self.call(request, image) as call:
            arrays = call.read("image", image, request.image_dtype)
            result = call.write(out, request.result_dtype)
            sent = call.send(boxes), call.send(box_indices)
            call.run(
                _launches.forward(request, arrays, *sent, result, call.allocate, call.local_size)
            )

    def grad_image(
        self,
        request: Request,
        grads: Any,
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: Any,
    ) -> None:
        """Fill `out` as `cropkit.Backend` asks."""
        assert request.grads_dtype is not None
        with self.call(request, grads) as call:
            crops = call.read("grads", grads, request.grads_dtype)
            result = call.write(out, request.result_dtype)
            sent = call.send(boxes), call.send(box_indices)
            call.run(
                _launches.grad_image(request, crops, *sent, result, call.allocate, call.local_size)
            )

    def grad_boxes(
        self,
        request: Request,
        grads: Any,
        image: Any,
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: Any,
    ) -> None:
        """Fill `out` as `cropkit.Backend` asks."""
        assert request.grads_dtype is not None
        with self.call(request, image) as call:
            crops = call.read("grads", grads, request.grads_dtype)
            pixels = call.read("image", image, request.image_dtype)
            result = call.write(out, request.result_dtype)
            sent = call.send(boxes), call.send(box_indices)
            call.run(
                _launches.grad_boxes(
                    request, crops, pixels, *sent, result, call.allocate, call.local_size
                )
            )


def check_out(
    first: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    itemsize: int,
    inputs: list[tuple[str, int, int]],
) -> None:
    """Check an `out` in the device's memory, since cropkit checks those in the CPU's only.

    Parameters
    ----------
    first : int
        Address of element 0 of `out`.
    shape, strides : tuple of int
        Shape and strides of `out`; strides are in elements.
    itemsize : int
        Bytes of an element.
    inputs : list of (str, int, int)
        Each input's name, and the two addresses that `span` returns for it.

    Raises
    ------
    ValueError
        Writing to `out` would change an input, or write one element twice.
    """
    if any(stride == 0 and n > 1 for stride, n in zip(strides, shape, strict=True)):
        raise ValueError("out has elements that share memory with each other (a stride is 0)")
    low, high = span(first, shape, strides, itemsize)
    for name, begin, end in inputs:
        if low < end and begin < high:
            raise ValueError(
                f"out overlaps {name}: expected memory of its own, not even between the "
                f"elements of {name}"
            )


def span(
    first: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> tuple[int, int]:
    """Return the addresses of an array's first byte and of the byte after its last."""
    steps = [(n - 1) * stride * itemsize for n, stride in zip(shape, strides, strict=True)]
    low = first + sum(step for step in steps if step < 0)
    return low, first + sum(step for step in steps if step > 0) + itemsize
