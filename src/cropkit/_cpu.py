"""Backend ``cpu``: picks the instruction set and the threads, and calls the kernels."""

import importlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cropkit._request import CPU_DEVICE, Request
from cropkit._threads import guard_forks, short_spinning, team_size

# Ordering the boxes by where they read pays when an image does not stay in the caches.
_SORT_IMAGE_BYTES: Final = 1 << 20
_SORT_BOXES: Final = 8


def built_instruction_sets() -> tuple[str, ...]:
    """Names of the instruction sets that kernels were built for and this CPU has, best first."""
    with short_spinning():
        from cropkit._kernels import _features

    folder = Path(__file__).parent / "_kernels"
    return tuple(
        isa for isa in _features.instruction_sets() if any(folder.glob(f"_{isa}.*.so"))
    )  # fmt: skip


def choose_instruction_set() -> str:
    """Return ``CROPKIT_ISA``, or the best that was built and this CPU has.

    Raises
    ------
    ValueError
        ``CROPKIT_ISA`` names one that cannot be had.
    """
    usable = built_instruction_sets()
    forced = os.environ.get("CROPKIT_ISA")
    if not forced:
        return usable[0]
    if forced not in usable:
        raise ValueError(
            f"CROPKIT_ISA={forced!r}: expected one that this build and this CPU have: "
            f"{', '.join(usable)}"
        )
    return forced


class _Kernels:
    """The kernels of one instruction set, by dtype."""

    def __init__(self, isa: str) -> None:
        with short_spinning():
            module = importlib.import_module(f"cropkit._kernels._{isa}")
        guard_forks()
        self.isa = isa
        self.forward = {
            np.dtype(np.float32): module.crop_and_resize["float"],
            np.dtype(np.float64): module.crop_and_resize["double"],
        }
        self._codes = {name: code for code, name in enumerate(module.PIXEL_TYPES)}
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
    def kernels(self) -> _Kernels:
        """The kernels, imported on first use."""
        return _Kernels(self._isa or choose_instruction_set())

    def unavailable(self) -> str | None:
        """Nothing keeps it from running: a baseline is always built."""
        return None

    def refuses(self, request: Request) -> str | None:
        """Every call is computed."""
        return None

    def crop_and_resize(
        self,
        request: Request,
        image: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out`."""
        kernels = self.kernels
        code, swapped = kernels.pixel_code(request.image_dtype)
        sort = (
            request.num_boxes >= _SORT_BOXES
            and image.nbytes > _SORT_IMAGE_BYTES * request.image_shape[0]
        )
        kernels.forward[request.dtype](
            image,
            code,
            swapped,
            boxes,
            box_indices,
            out,
            request.method == "nearest",
            request.extrapolation_value,
            team_size(request, out.size),
            out.nbytes > last_level_cache_bytes(),
            not sort,
        )


_cache_bytes = 0


def last_level_cache_bytes() -> int:
    """Size of the largest cache that the first CPU sees; 32 MiB where that is unknown.

    Read from sysfs: ``sysconf`` has been seen to report the sum over all sockets.
    """
    global _cache_bytes
    if not _cache_bytes:
        units = {"K": 1 << 10, "M": 1 << 20}
        sizes = [32 << 20]
        for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index3/size"):
            text = path.read_text().strip()
            if text[:-1].isdigit() and text[-1] in units:
                sizes = [int(text[:-1]) * units[text[-1]]]
        _cache_bytes = max(sizes)
    return _cache_bytes


backend: Final = CpuBackend()
