"""Backend ``opencl``: the kernels on an OpenCL device, through PyOpenCL.

It takes NumPy arrays, and so runs only where it is named (``backend="opencl"``). A device
that shares the host's memory reads and writes them where they are; for another they are
copied to its memory, and the result back.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from cropkit import BackendError, Request
from cropkit_gpu import _launches
from cropkit_gpu._launches import Launch, Operand

CPU: Final = 1  # DLPack's device type
# OpenCL aligns memory that it allocates to the largest type's 128 bytes, or more.
_OWN_ALIGNMENT: Final = 128
# Up to this length n - 1 is exact in float32.
_EXACT_AXIS: Final = 1 << 24


class OpenCLBackend:
    """The kernels on one OpenCL device.

    That of ``PYOPENCL_CTX`` where this is set, else the first GPU, else the first device.
    """

    name: Final = "opencl"
    device_types: Final = frozenset({CPU})
    exact: Final = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._machine: Machine | None = None

    def unavailable(self) -> str | None:
        """Say what is missing: PyOpenCL, a platform, a device, its compiler."""
        try:
            machine = self.machine
        except BackendError as error:
            return str(error)
        if machine.process != os.getpid():
            return (
                "OpenCL was started before this process was forked, and does not survive "
                "that; multiprocessing's start method 'spawn' avoids it"
            )
        return None

    def refuses(self, request: Request) -> str | None:
        """Say what the device lacks for this call: float64, or memory."""
        return self.machine.refuses(request)

    @property
    def machine(self) -> "Machine":
        """The device, looked for until it is found."""
        with self._lock:
            if self._machine is None:
                self._machine = find_machine()
            return self._machine

    def crop_and_resize(
        self,
        request: Request,
        image: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out`."""
        with Call(self.machine) as call:
            call.run(
                _launches.forward(
                    request,
                    call.read(image),
                    call.read(boxes).memory,
                    call.read(box_indices).memory,
                    call.write(out),
                    call.allocate,
                    self.machine.local_size,
                )
            )

    def grad_image(
        self,
        request: Request,
        grads: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out`."""
        with Call(self.machine) as call:
            call.run(
                _launches.grad_image(
                    request,
                    call.read(grads),
                    call.read(boxes).memory,
                    call.read(box_indices).memory,
                    call.write(out),
                    call.allocate,
                    self.machine.local_size,
                )
            )

    def grad_boxes(
        self,
        request: Request,
        grads: NDArray[Any],
        image: NDArray[Any],
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Fill `out`."""
        with Call(self.machine) as call:
            call.run(
                _launches.grad_boxes(
                    request,
                    call.read(grads),
                    call.read(image),
                    call.read(boxes).memory,
                    call.read(box_indices).memory,
                    call.write(out),
                    call.allocate,
                    self.machine.local_size,
                )
            )


# ---- the device ----------------------------------------------------------------------


class Machine:
    """An OpenCL device, its queue, and the programs compiled for it.

    Attributes
    ----------
    process : int
        The process that started it.
    has_float64, exact_division, shares_memory : bool
        What the device can do; `exact_division` is of float32, rounded correctly.
    local_size : int
        Work-items of a group.
    """

    def __init__(self, context: Any, device: Any) -> None:
        import pyopencl as cl

        self.process = os.getpid()
        self.context = context
        self.device = device
        self.queue = cl.CommandQueue(context, device)
        self.has_float64 = "cl_khr_fp64" in device.extensions.split()
        exact = cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT
        self.exact_division = bool(device.single_fp_config & exact)
        self.local_size = min(256, 1 << device.max_work_group_size.bit_length() - 1)
        self.shares_memory = bool(device.host_unified_memory)
        self._lock = threading.Lock()
        self._programs: dict[tuple[tuple[str, str | int], ...], Any] = {}

    def __str__(self) -> str:
        return str(self.device.name).strip()

    def refuses(self, request: Request) -> str | None:
        """Say what the device lacks for this call, or None."""
        if not self.has_float64:
            need = _float64_need(request)
            if need is not None:
                return f"{self} has no float64, which {need}"
        arrays = {"image": (request.image_shape, request.image_dtype)}
        if request.operation != "crop_and_resize":
            arrays["grads"] = (request.crops_shape, request.grads_dtype)
        if request.operation != "grad_image":
            arrays["result"] = (request.result_shape, request.dtype)
        sizes = {name: _bytes(shape, dtype) for name, (shape, dtype) in arrays.items()}
        sizes["scratch memory"] = _launches.scratch_bytes(request)
        for name, size in sizes.items():
            limit = int(self.device.max_mem_alloc_size)
            if size > limit:
                return f"the {name} takes {size} bytes; {self} allows {limit} for one array"
        memory = int(self.device.global_mem_size)
        if sum(sizes.values()) > memory:
            return f"the call takes {sum(sizes.values())} bytes; {self} has {memory}"
        return None

    def program(self, macros: tuple[tuple[str, str | int], ...]) -> Any:
        """Compile the kernels, once for each set of macros."""
        import pyopencl as cl

        with self._lock:
            program = self._programs.get(macros)
            if program is None:
                try:
                    program = cl.Program(self.context, _launches.source()).build(
                        self.options(macros)
                    )
                except cl.RuntimeError as error:
                    raise BackendError(
                        f"backend 'opencl': {self} does not compile the kernels: {error}"
                    ) from error
                self._programs[macros] = program
            return program

    def options(self, macros: tuple[tuple[str, str | int], ...]) -> list[str]:
        """Options of the compiler."""
        own = (("HAS_FLOAT64", self.has_float64), ("EXACT_DIVISION", self.exact_division))
        options = [f"-D{name}={int(value)}" for name, value in own]
        options += [f"-D{name}={value}" for name, value in macros]
        if self.exact_division:
            options.append("-cl-fp32-correctly-rounded-divide-sqrt")
        return options


def find_machine() -> Machine:
    """Find the device.

    Raises
    ------
    BackendError
        Saying what is missing.
    """
    if find_spec("pyopencl") is None:
        raise BackendError("PyOpenCL is not installed: pip install 'cropkit[opencl]'")
    try:
        import pyopencl as cl
    except ImportError as error:
        raise BackendError(f"PyOpenCL cannot be imported: {error}") from None
    try:
        platforms = cl.get_platforms()
    except cl.Error:
        platforms = []
    if not platforms:
        raise BackendError(
            "OpenCL finds no platform: install the driver of a device, or PoCL, which makes "
            "one of the CPU (pip install pocl-binary-distribution)"
        )
    wanted = os.environ.get("PYOPENCL_CTX")
    if wanted is not None:
        try:
            devices = cl.create_some_context(interactive=False).devices
        except (cl.Error, RuntimeError, ValueError) as error:
            raise BackendError(f"PYOPENCL_CTX={wanted!r} chooses no device: {error}") from None
    else:
        devices = [device for platform in platforms for device in platform.get_devices()]
        devices.sort(key=lambda device: not device.type & cl.device_type.GPU)
    flaws = []
    for device in devices:
        flaw = _flaw(device)
        if flaw is None:
            return Machine(cl.Context([device]), device)
        flaws.append(f"{device.name.strip()} {flaw}")
    names = ", ".join(platform.name for platform in platforms)
    raise BackendError("; ".join(flaws) or f"no platform of OpenCL has a device: {names}")


def _flaw(device: Any) -> str | None:
    """Say what keeps the kernels from being exact, or from running, on a device."""
    import pyopencl as cl

    config = cl.device_fp_config
    if not (device.available and device.compiler_available):
        return "has no compiler" if device.available else "is not available"
    if device.max_work_group_size < _launches.MIN_LOCAL_SIZE:
        return (
            f"has groups of at most {device.max_work_group_size} work-items: expected at least "
            f"{_launches.MIN_LOCAL_SIZE}"
        )
    if not (device.single_fp_config & config.INF_NAN) or not (
        device.single_fp_config & config.ROUND_TO_NEAREST
    ):
        return "has no float32 that rounds to nearest and has infinities"
    if (
        not device.single_fp_config & config.CORRECTLY_ROUNDED_DIVIDE_SQRT
        and "cl_khr_fp64" not in device.extensions.split()
    ):
        return "does not round float32 divisions correctly, and has no float64 to do it with"
    return None


def _float64_need(request: Request) -> str | None:
    """Say what of a call needs float64, or None."""
    if request.dtype == np.float64:
        return "dtype=float64 needs"
    if request.operation == "grad_boxes":
        return "the sums of the boxes' gradient need"
    if request.image_dtype == np.float64:
        return "float64 images need"
    if request.grads_dtype == np.float64:
        return "float64 gradients need"
    axes = zip(request.image_shape[1:3], request.crop_size, strict=True)
    if any(n > _EXACT_AXIS and count == 1 for n, count in axes):
        return f"one sample of an axis longer than {_EXACT_AXIS} needs"
    return None


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> int:
    size = 1 if dtype is None else dtype.itemsize
    for n in shape:
        size *= n
    return size


# ---- one call ------------------------------------------------------------------------


class Call:
    """The memory and the launches of one call: a context that ends when all is done.

    Parameters
    ----------
    machine : Machine
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._inputs: list[Any] = []  # alive until the kernels are done
        self._fetch: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import pyopencl as cl

        try:
            if error is None and self._fetch is not None:
                self._fetch()
        finally:
            self._machine.queue.finish()
        if isinstance(error, cl.MemoryError):
            raise MemoryError(
                f"backend 'opencl': {self._machine} has too little memory for this call: {error}"
            ) from error

    def read(self, array: NDArray[Any]) -> Operand:
        """Let kernels read an array."""
        import pyopencl as cl

        if not (array.dtype.isnative and array.flags.aligned):
            array = array.astype(array.dtype.newbyteorder("="))
        shares = self._machine.shares_memory
        low, high = np.lib.array_utils.byte_bounds(array)
        if not shares and high - low > array.nbytes:
            array = array.copy()
            low, high = np.lib.array_utils.byte_bounds(array)
        flags = cl.mem_flags.USE_HOST_PTR if shares else cl.mem_flags.COPY_HOST_PTR
        flags |= cl.mem_flags.READ_ONLY
        buffer = cl.Buffer(self._machine.context, flags, hostbuf=_bytes_at(low, high))
        self._inputs.append(array)
        return _operand(array, buffer, low, shares)

    def write(self, out: NDArray[Any]) -> Operand:
        """Let kernels write `out`: where it is, or packed and copied to it afterwards."""
        import pyopencl as cl

        machine = self._machine
        low, high = np.lib.array_utils.byte_bounds(out)
        if machine.shares_memory and out.flags.aligned and high - low == out.nbytes:
            flags = cl.mem_flags.WRITE_ONLY | cl.mem_flags.USE_HOST_PTR
            buffer = cl.Buffer(machine.context, flags, hostbuf=_bytes_at(low, high))

            def fetch() -> None:
                mapped, _ = cl.enqueue_map_buffer(
                    machine.queue, buffer, cl.map_flags.READ, 0, (out.nbytes,), np.uint8
                )
                mapped.base.release(machine.queue)

            self._fetch = fetch
            return _operand(out, buffer, low, True)

        packed = out if out.flags.carray else np.empty(out.shape, out.dtype)
        buffer = cl.Buffer(machine.context, cl.mem_flags.WRITE_ONLY, out.nbytes)

        def fetch_packed() -> None:
            cl.enqueue_copy(machine.queue, packed.view(np.uint8), buffer)
            if packed is not out:
                out[...] = packed

        self._fetch = fetch_packed
        return _operand(packed, buffer, packed.ctypes.data, False)

    def allocate(self, dtype: str, count: int) -> Any:
        """Allocate scratch memory."""
        import pyopencl as cl

        size = count * _launches.itemsize_of(dtype)
        return cl.Buffer(self._machine.context, cl.mem_flags.READ_WRITE, size)

    def run(self, launches: list[Launch]) -> None:
        """Enqueue kernels, one after the other."""
        import pyopencl as cl

        for launch in launches:
            # A kernel of its own for each call: arguments are set in it, and calls may come
            # from several threads.
            kernel = cl.Kernel(self._machine.program(launch.macros), launch.kernel)
            kernel.set_args(*launch.arguments)
            items = launch.groups * launch.local_size
            cl.enqueue_nd_range_kernel(
                self._machine.queue, kernel, (items,), (launch.local_size,)
            )


def _bytes_at(low: int, high: int) -> Any:
    """See memory as an object with the buffer interface. Nothing keeps it alive."""
    return (ctypes.c_char * (high - low)).from_address(low)


def _operand(array: NDArray[Any], memory: Any, low: int, in_place: bool) -> Operand:
    """Describe `array` in `memory`, which holds it from its lowest address, `low`, on."""
    itemsize = array.dtype.itemsize
    offset = array.ctypes.data - low
    base = low if in_place else _OWN_ALIGNMENT
    strides = tuple(
        stride // itemsize if n > 1 else 0
        for stride, n in zip(array.strides, array.shape, strict=True)
    )
    alignment = (base | offset | _OWN_ALIGNMENT) & -(base | offset | _OWN_ALIGNMENT)
    return Operand(memory, offset // itemsize, strides, array.dtype.name, alignment)


backend: Final = OpenCLBackend()
