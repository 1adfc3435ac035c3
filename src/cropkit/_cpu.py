"""Backend ``cpu``: picks the instruction set and the threads, and calls the kernels."""

import importlib
import os
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cropkit._arguments import CPU_DEVICE
from cropkit._kernels._checks import Call
from cropkit._request import Request
from cropkit._system import read, whole_number
from cropkit._threads import SERIAL_SUMS, guard_forks, short_spinning, team_size

# Sorting boxes by the rows that they read pays if there are at least `_SORT_BOXES` of them, and
# an image is too large to stay in the caches.
_SORT_IMAGE_BYTES: Final = 1 << 20
_SORT_BOXES: Final = 8
_STREAMING_BYTES: Final = 16 << 20
_CACHE_SIZE: Final = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


def built_instruction_sets() -> tuple[str, ...]:
    """Return the names of the instruction sets that this build and this CPU have, best first."""
    with short_spinning():
        from cropkit._kernels import _features

    return tuple(isa for isa in _features.instruction_sets() if find_spec(_module_name(isa)))


def choose_instruction_set(wanted: str | None = None) -> str:
    """Return `wanted`, else ``CROPKIT_ISA``, else the best that this build and this CPU have.

    Raises
    ------
    ValueError
        This build or this CPU lacks the instruction set that was asked for.
    """
    usable = built_instruction_sets()
    source, isa = ("isa", wanted) if wanted else ("CROPKIT_ISA", os.environ.get("CROPKIT_ISA"))
    if not isa:
        return usable[0]
    if isa not in usable:
        raise ValueError(
            f"{source}={isa!r}: expected one that this build and this CPU have: {', '.join(usable)}"
        )
    return isa


def _module_name(isa: str) -> str:
    return f"cropkit._kernels._{isa}"


class _Kernels:
    """The kernels of one instruction set, by dtype."""

    def __init__(self, isa: str) -> None:
        with short_spinning():
            module = importlib.import_module(_module_name(isa))
        guard_forks()
        self.forward = {
            np.dtype(np.float32): module.crop_and_resize["float"],
            np.dtype(np.float64): module.crop_and_resize["double"],
        }
        self.grad_image = {
            np.dtype(np.float32): module.crop_and_resize_grad_image["float"],
            np.dtype(np.float64): module.crop_and_resize_grad_image["double"],
        }
        self.grad_boxes = {
            np.dtype(np.float32): module.crop_and_resize_grad_boxes["float"],
            np.dtype(np.float64): module.crop_and_resize_grad_boxes["double"],
        }
        self.methods = module.METHODS
        self._codes = {name: code for code, name in enumerate(module.PIXEL_TYPES)}
        self.exact_in_float32 = module.EXACT_IN_FLOAT32
        self._by_dtype: dict[np.dtype[Any], tuple[int, bool]] = {}

    def pixel_code(self, dtype: np.dtype[Any]) -> tuple[int, bool]:
        """Return the kernel's code of an image dtype and whether its bytes are swapped."""
        found = self._by_dtype.get(dtype)
        if found is None:
            found = self._by_dtype[dtype] = (self._codes[dtype.name], not dtype.isnative)
        return found


class CpuBackend:
    """Compiled kernels.

    Parameters
    ----------
    isa : str, optional
        Instruction set; the default is `choose_instruction_set`, on first use.
    """

    name: Final = "cpu"
    device_types: Final = frozenset({CPU_DEVICE})
    exact: Final = True

    def __init__(self, isa: str | None = None) -> None:
        self._isa = isa

    @cached_property
    def isa(self) -> str:
        """Name of the instruction set, chosen once."""
        return choose_instruction_set(self._isa)

    @cached_property
    def kernels(self) -> _Kernels:
        """The kernels, imported on first use."""
        return _Kernels(self.isa)

    def unavailable(self) -> str | None:
        """Say that this build or CPU lacks the instruction set asked for, or return None."""
        try:
            self.isa  # noqa: B018
        except ValueError as error:
            return str(error)
        return None

    def refuses(self, request: Request) -> str | None:
        """Return None: this backend computes every call."""
        return None

    def run(self, call: Call) -> None:
        """Fill ``call.out``, whatever the operation; no `Request` is made."""
        if call.operation == "grad_image":
            self._run_grad_image(call)
            return
        if call.operation == "grad_boxes":
            self._run_grad_boxes(call)
            return
        kernels, image, out = self.kernels, call.image, call.out
        code, swapped = kernels.pixel_code(image.dtype)
        kernels.forward[call.compute_dtype](
            image,
            code,
            swapped,
            call.boxes,
            call.box_indices,
            out,
            kernels.methods[call.sampling.method],
            call.extrapolation_value,
            team_size(call.num_threads, out.size, image),
            out.nbytes > streaming_threshold(),
            not sorting_pays(call.boxes, image),
        )

    def _run_grad_image(self, call: Call) -> None:
        kernels, grads, out = self.kernels, call.grads, call.out
        code, swapped = kernels.pixel_code(grads.dtype)
        kernels.grad_image[call.compute_dtype](
            grads,
            code,
            swapped,
            call.boxes,
            call.box_indices,
            out,
            kernels.pixel_code(out.dtype)[0],
            kernels.methods[call.sampling.method],
            team_size(call.num_threads, max(grads.size, out.size)),
            out.nbytes > streaming_threshold(),
        )

    def _run_grad_boxes(self, call: Call) -> None:
        kernels, grads, image = self.kernels, call.grads, call.image
        grads_code, grads_swapped = kernels.pixel_code(grads.dtype)
        code, swapped = kernels.pixel_code(image.dtype)
        kernels.grad_boxes[call.compute_dtype](
            grads,
            grads_code,
            grads_swapped,
            image,
            code,
            swapped,
            call.boxes,
            call.box_indices,
            call.out,
            kernels.exact_in_float32.issuperset((grads_code, code)),
            team_size(call.num_threads, grads.size, image, SERIAL_SUMS),
            not sorting_pays(call.boxes, image),
        )

    def crop_and_resize(
        self,
        request: Request,
        image: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out` as `cropkit.Backend` asks."""
        self.run(_call(request, boxes, box_indices, out, image=image))

    def grad_image(
        self,
        request: Request,
        grads: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out` as `cropkit.Backend` asks."""
        self.run(_call(request, boxes, box_indices, out, grads=grads))

    def grad_boxes(
        self,
        request: Request,
        grads: NDArray[Any],
        image: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out` as `cropkit.Backend` asks."""
        self.run(_call(request, boxes, box_indices, out, image=image, grads=grads))


def _call(
    request: Request,
    boxes: NDArray[Any],
    box_indices: NDArray[Any],
    out: NDArray[Any],
    *,
    image: NDArray[Any] | None = None,
    grads: NDArray[Any] | None = None,
) -> Call:
    """Return the `Call` that a request and its arrays describe."""
    call = Call(
        request.operation, request.sampling, request.compute_dtype,
        request.extrapolation_value, request.num_threads,
    )  # fmt: skip
    call.image, call.grads, call.out = image, grads, out
    call.boxes, call.box_indices = boxes, box_indices
    call.request = request
    return call


def sorting_pays(boxes: NDArray[Any], image: NDArray[Any]) -> bool:
    """Whether to work through the boxes sorted by the image rows that they read."""
    return len(boxes) >= _SORT_BOXES and image.nbytes > _SORT_IMAGE_BYTES * len(image)


@cache
def streaming_threshold() -> int:
    """Return how many bytes a result must have to be written past the caches.

    Such stores pay once the result would not stay in the third-level cache. The size of that
    cache is read from sysfs (``sysconf`` has been seen to report the sum over all sockets), and
    counts as 16 MiB at most: a larger cache serves many cores, in a virtual machine also those
    of other machines (docs/design/kernel-log.md).
    """
    text = read(_CACHE_SIZE).strip()
    unit = {b"K": 1 << 10, b"M": 1 << 20}.get(text[-1:])
    size = whole_number(text[:-1])
    if unit is None or not size:
        return _STREAMING_BYTES
    return min(size * unit, _STREAMING_BYTES)


backend: Final = CpuBackend()
