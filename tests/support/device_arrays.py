"""Arrays of other libraries, acted out in NumPy: on the CPU, and on a device it cannot read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cropkit import Request
from cropkit._reference import ReferenceBackend

CPU, CUDA_HOST, CUDA = 1, 3, 2


class Standard:
    """An array of a library that follows the array API standard, on the CPU."""

    device: tuple[int, int] = (CPU, 0)

    def __init__(self, memory: NDArray[Any]) -> None:
        self.memory = memory

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        return self.memory.__dlpack__(**options)

    def __array_namespace__(self) -> Any:
        return StandardNamespace

    @property
    def shape(self) -> tuple[int, ...]:
        return self.memory.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.memory.dtype


class StandardNamespace:
    """The library's namespace: makes its arrays."""

    @staticmethod
    def from_dlpack(array: Any) -> Standard:
        return Standard(np.from_dlpack(array))


class Nameless(Standard):
    """An array whose library says not how its arrays are made."""

    __array_namespace__ = None


class Pinned(Standard):
    """Memory that CUDA has pinned, which the CPU reads."""

    device = (CUDA_HOST, 0)


class OnDevice(Standard):
    """An array that only its device can read; what it holds is for its backend."""

    device = (CUDA, 0)

    def __dlpack__(self, **options: Any) -> Any:
        if options.get("dl_device") == (CPU, 0):
            return self.memory.copy().__dlpack__(**{**options, "dl_device": None, "copy": None})
        raise BufferError("this memory is on another device")

    def __setitem__(self, where: Any, value: Any) -> None:
        self.memory[where] = value


class OnSecondDevice(OnDevice):
    """An array on another device of the same kind."""

    device = (CUDA, 1)


class Sealed(OnDevice):
    """An array that its library does not copy to the CPU."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("no way out")


class DeviceBackend:
    """Runs on `OnDevice` arrays, by the reference; remembers what it was given."""

    name = "device"
    device_types = frozenset({CUDA})
    exact = True

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def unavailable(self) -> str | None:
        return None

    def refuses(self, request: Request) -> str | None:
        return None if request.device_type == CUDA else "not mine"

    def empty(self, shape: Any, dtype: Any, like: Any) -> OnDevice:
        self.seen.append(("empty", like))
        return OnDevice(np.full(shape, 77, dtype))

    def crop_and_resize(
        self, request: Request, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self.seen.append(("crop_and_resize", image, boxes, box_indices, out))
        ReferenceBackend().crop_and_resize(request, image.memory, boxes, box_indices, out.memory)

    def grad_image(
        self, request: Request, grads: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self.seen.append(("grad_image", grads, boxes, box_indices, out))
        ReferenceBackend().grad_image(request, grads.memory, boxes, box_indices, out.memory)

    def grad_boxes(
        self, request: Request, grads: Any, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self.seen.append(("grad_boxes", grads, image, boxes, box_indices, out))
        ReferenceBackend().grad_boxes(
            request, grads.memory, image.memory, boxes, box_indices, out.memory
        )
