"""Backend ``opencl``: the kernels on an OpenCL device, through PyOpenCL.

NumPy arrays run here only if the backend is named (``backend="opencl"``). A device that shares
the host's memory reads and writes NumPy arrays in place; for any other device they are copied
there, and the result is copied back. A ``pyopencl.array.Array`` stays where it is, and its own
queue is used.
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
from cropkit_gpu._backend import Call, GpuBackend, check_out, forked, span
from cropkit_gpu._launches import Launch, Macros, Operand

# DLPack's device types.
CPU: Final = 1
OPENCL: Final = 4
# OpenCL aligns its allocations to at least 128 bytes, the size of its largest type.
_OWN_ALIGNMENT: Final = 128
# Up to this length n of an axis, n - 1 is exact in float32.
_EXACT_AXIS: Final = 1 << 24


class OpenCLBackend(GpuBackend):
    """The kernels on OpenCL devices.

    NumPy arrays go to the device of ``PYOPENCL_CTX`` where this is set, else to the first
    GPU, else to the first device.
    """

    name: Final = "opencl"
    device_types: Final = frozenset({CPU, OPENCL})

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._machine: Machine | None = None
        self._of_arrays: dict[tuple[int, int], Machine] = {}  # by context and device

    def unavailable(self) -> str | None:
        """Say which of PyOpenCL, a platform, a device and its compiler is missing, if any."""
        try:
            machine = self.machine
        except BackendError as error:
            return str(error)
        return None if machine.process == os.getpid() else forked("OpenCL")

    def refuses(self, request: Request) -> str | None:
        """Say what the device lacks for this call, float64 or memory, or return None."""
        return self.machine.refuses(request) if request.device_type == CPU else None

    @property
    def machine(self) -> "Machine":
        """The device for NumPy arrays; until one is found, each use searches again."""
        with self._lock:
            if self._machine is None:
                self._machine = find_machine()
            return self._machine

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], like: Any) -> Any:
        """Allocate a result in the context of `like`."""
        from pyopencl import array

        limit = int(self._machine_of(like).device.max_mem_alloc_size)
        size = _bytes(shape, dtype)
        if size > limit:
            raise MemoryError(
                f"the result, {shape} {dtype}, takes {size} bytes; {self._machine_of(like)} "
                f"allows {limit} for one array"
            )
        return array.empty(like.queue or like.context, shape, dtype)

    def synchronize(self) -> None:
        """Wait for the device that NumPy arrays go to; calls on it wait at their end anyway."""
        self.machine.queue.finish()

    def call(self, request: Request, like: Any) -> Call:
        """Begin a call on the device of `like`, or on that for NumPy arrays."""
        if isinstance(like, np.ndarray):
            return HostCall(self.machine)
        machine = self._machine_of(like)
        reason = _flaw(machine.device) or machine.refuses(request)
        if reason is not None:
            raise BackendError(f"backend 'opencl' cannot run this call: {reason}")
        return DeviceCall(machine, like.queue or machine.queue)

    def _machine_of(self, array: Any) -> "Machine":
        """Return the device of an array, with the programs compiled for its context."""
        device = array.queue.device if array.queue else array.context.devices[0]
        key = array.context.int_ptr, device.int_ptr
        with self._lock:
            if key not in self._of_arrays:
                self._of_arrays[key] = Machine(array.context, device)
            return self._of_arrays[key]


# ---- the device ----------------------------------------------------------------------


class Machine:
    """An OpenCL device, its queue, and the programs compiled for it.

    Attributes
    ----------
    process : int
        The process that created the context.
    has_float64, exact_division, shares_memory : bool
        Whether the device has float64, rounds float32 divisions correctly, and shares the
        host's memory.
    local_size : int
        Work-items of a group.
    """

    def __init__(self, context: Any, device: Any) -> None:
        import pyopencl as cl

        self.process: int = os.getpid()
        self.context = context
        self.device = device
        self.queue: Any = cl.CommandQueue(context, device)
        self.has_float64: bool = "cl_khr_fp64" in device.extensions.split()
        exact = cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT
        self.exact_division: bool = bool(device.single_fp_config & exact)
        self.local_size: int = min(256, 1 << device.max_work_group_size.bit_length() - 1)
        self.shares_memory: bool = bool(device.host_unified_memory)
        self._lock = threading.Lock()
        self._programs: dict[Macros, Any] = {}

    def __str__(self) -> str:
        return str(self.device.name).strip()

    def refuses(self, request: Request) -> str | None:
        """Say what the device lacks for this call, or return None."""
        if not self.has_float64:
            need = _float64_need(request)
            if need is not None:
                return f"{self} has no float64, which {need}"
        arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any] | None]]
        arrays = {"image": (request.image_shape, request.image_dtype)}
        if request.operation != "crop_and_resize":
            arrays["grads"] = (request.crops_shape, request.grads_dtype)
        if request.operation != "grad_image":
            arrays["result"] = (request.result_shape, request.result_dtype)
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

    def program(self, macros: Macros) -> Any:
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

    def options(self, macros: Macros) -> list[str]:
        """Return the options of the compiler."""
        own = (("HAS_FLOAT64", self.has_float64), ("EXACT_DIVISION", self.exact_division))
        options = [f"-D{name}={int(value)}" for name, value in own]
        options += [f"-D{name}={value}" for name, value in macros]
        if self.exact_division:
            options.append("-cl-fp32-correctly-rounded-divide-sqrt")
        return options


def find_machine() -> Machine:
    """Find the device for NumPy arrays.

    Raises
    ------
    BackendError
        There is no usable device; the message says what is missing.
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
    """Say why kernels cannot run, or not exactly, on a device, or return None."""
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
    """Say which part of a call needs float64, or return None."""
    if request.compute_dtype == np.float64:
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


class OpenCLCall:
    """The memory and the launches of one call.

    Parameters
    ----------
    machine : Machine
    queue : pyopencl.CommandQueue
    """

    def __init__(self, machine: Machine, queue: Any) -> None:
        self.local_size: int = machine.local_size
        self._machine = machine
        self._queue = queue
        self._wait_for: list[Any] = []
        self._last: Any = None  # event of the last kernel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import pyopencl as cl

        if isinstance(error, cl.MemoryError):
            raise MemoryError(
                f"backend 'opencl': {self._machine} has too little memory for this call: {error}"
            ) from error

    def send(self, array: NDArray[Any]) -> Any:
        """Copy a packed array to the device; return its memory."""
        import pyopencl as cl

        flags = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
        return cl.Buffer(self._machine.context, flags, hostbuf=array)

    def allocate(self, dtype: str, count: int) -> Any:
        """Allocate scratch memory."""
        import pyopencl as cl

        size = count * _launches.itemsize_of(dtype)
        return cl.Buffer(self._machine.context, cl.mem_flags.READ_WRITE, size)

    def run(self, launches: list[Launch]) -> None:
        """Enqueue kernels, one after the other."""
        import pyopencl as cl

        for launch in launches:
            # Each call has its own kernel object, since that holds the arguments, and calls may
            # come from several threads.
            kernel = cl.Kernel(self._machine.program(launch.macros), launch.kernel)
            kernel.set_args(*launch.arguments)
            items, group = (launch.groups * launch.local_size,), (launch.local_size,)
            self._last = cl.enqueue_nd_range_kernel(
                self._queue, kernel, items, group, wait_for=self._wait_for
            )
            self._wait_for = [self._last]


class HostCall(OpenCLCall):
    """A call with NumPy arrays, which returns when the result is complete."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, machine.queue)
        self._inputs: list[NDArray[Any]] = []  # alive until the kernels are done
        self._fetch: Callable[[], None] | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the kernels, and copy the result to the caller's array."""
        try:
            if self._last is not None:
                self._last.wait()
            if error is None and self._fetch is not None:
                self._fetch()
        finally:
            super().__exit__(kind, error, traceback)

    def read(self, name: str, array: NDArray[Any], dtype: np.dtype[Any]) -> Operand:
        """Let kernels read an array in place, or a copy of it."""
        import pyopencl as cl

        if not (array.dtype.isnative and array.flags.aligned):
            array = array.astype(dtype.newbyteorder("="))
        low, high = np.lib.array_utils.byte_bounds(array)
        flags = cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR
        if not self._machine.shares_memory:
            flags = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
            if high - low > array.nbytes:  # the array has gaps
                array = array.copy()
                low, high = np.lib.array_utils.byte_bounds(array)
        self._inputs.append(array)
        buffer = cl.Buffer(self._machine.context, flags, hostbuf=_bytes_at(low, high))
        base = low if self._machine.shares_memory else 0
        return _operand(buffer, base, array.ctypes.data - low, array)

    def write(self, out: NDArray[Any], dtype: np.dtype[Any]) -> Operand:
        """Let kernels write `out` in place, or packed memory that is copied to `out` later."""
        import pyopencl as cl

        machine = self._machine
        low, high = np.lib.array_utils.byte_bounds(out)
        if machine.shares_memory and out.flags.aligned and high - low == out.nbytes:
            flags = cl.mem_flags.WRITE_ONLY | cl.mem_flags.USE_HOST_PTR
            buffer = cl.Buffer(machine.context, flags, hostbuf=_bytes_at(low, high))

            def look() -> None:
                mapped, _ = cl.enqueue_map_buffer(
                    self._queue, buffer, cl.map_flags.READ, 0, (out.nbytes,), np.uint8
                )
                mapped.base.release(self._queue).wait()

            self._fetch = look
            return _operand(buffer, low, out.ctypes.data - low, out)

        packed = out if out.flags.carray else np.empty(out.shape, dtype)
        buffer = cl.Buffer(machine.context, cl.mem_flags.WRITE_ONLY, out.nbytes)

        def fetch() -> None:
            cl.enqueue_copy(self._queue, packed.view(np.uint8), buffer)
            if packed is not out:
                out[...] = packed

        self._fetch = fetch
        return _operand(buffer, 0, 0, packed)


class DeviceCall(OpenCLCall):
    """A call with arrays of PyOpenCL, which is enqueued and returns without waiting."""

    def __init__(self, machine: Machine, queue: Any) -> None:
        super().__init__(machine, queue)
        self._inputs: list[tuple[Any, str, int, int]] = []
        self._out: Any = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Add the event of the last kernel to the result, so that its users wait for it."""
        if self._last is not None:
            self._out.add_event(self._last)
        super().__exit__(kind, error, traceback)

    def read(self, name: str, array: Any, dtype: np.dtype[Any]) -> Operand:
        """Let kernels read an array."""
        operand = self._operand(name, array, dtype)
        first = operand.offset * dtype.itemsize
        bounds = span(first, array.shape, operand.strides, dtype.itemsize)
        self._inputs.append((array.base_data, name, *bounds))
        return operand

    def write(self, out: Any, dtype: np.dtype[Any]) -> Operand:
        """Let kernels write an array."""
        operand = self._operand("out", out, dtype)
        shared = [entry[1:] for entry in self._inputs if entry[0] == out.base_data]
        first = operand.offset * dtype.itemsize
        check_out(first, out.shape, operand.strides, dtype.itemsize, shared)
        self._out = out
        return operand

    def _operand(self, name: str, array: Any, dtype: np.dtype[Any]) -> Operand:
        if array.context != self._machine.context:
            raise ValueError(f"{name} is in another OpenCL context than the other arrays")
        if not dtype.isnative or array.offset % dtype.itemsize:
            raise ValueError(f"{name} is byte-swapped or misaligned: expected neither")
        self._wait_for += array.events
        return _operand(array.base_data, 0, array.offset, array)


def _bytes_at(low: int, high: int) -> Any:
    """View memory as an object with the buffer interface, which does not keep it alive."""
    return (ctypes.c_char * (high - low)).from_address(low)


def _operand(memory: Any, base: int, offset: int, array: Any) -> Operand:
    """Describe an array in `memory`, at the address `base`, or 0 if OpenCL allocated it."""
    itemsize = array.dtype.itemsize
    strides = tuple(
        stride // itemsize if n > 1 else 0
        for stride, n in zip(array.strides, array.shape, strict=True)
    )
    bits = base | offset | _OWN_ALIGNMENT
    return Operand(memory, offset // itemsize, strides, array.dtype.name, bits & -bits)


backend: Final = OpenCLBackend()
