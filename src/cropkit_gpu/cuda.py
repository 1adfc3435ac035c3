"""Backend ``cuda``: the kernels on NVIDIA's GPUs, through ``cuda-core`` and NVRTC.

The backend uses the arrays of CuPy, PyTorch and JAX in place, works on the stream that is
current in the caller's library, and lets that library allocate the result. A call waits for
the GPU only with JAX, whose streams are not visible outside of it.
"""

import os
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cropkit import BackendError, Request
from cropkit_gpu import _launches
from cropkit_gpu._backend import GpuBackend, check_out, forked, span
from cropkit_gpu._launches import Launch, Macros, Operand

CUDA: Final = 2  # DLPack's device type
# Bytes to which allocators of device memory align, at least.
_OWN_ALIGNMENT: Final = 256
# The driver's handles of the default stream that waits for the others.
_DEFAULT_STREAMS: Final = (0, 1)


class CudaBackend(GpuBackend):
    """The kernels on the GPU where an array is."""

    name: Final = "cuda"
    device_types: Final = frozenset({CUDA})

    def __init__(self) -> None:
        self._process: int | None = None  # the process that started CUDA
        self._lock = threading.Lock()
        self._kernels: dict[tuple[int, Macros], Any] = {}

    def unavailable(self) -> str | None:
        """Say which of cuda-core, a driver, a GPU and NVRTC is missing, or return None."""
        if self._process is None:
            missing = what_is_missing()
            if missing is not None:
                return missing
            self._process = os.getpid()
        return None if self._process == os.getpid() else forked("CUDA")

    def refuses(self, request: Request) -> str | None:
        """Return None: every call is computed if its memory can be allocated."""
        return None

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], like: Any) -> Any:
        """Allocate a result on the device of `like`, as an array of the same library."""
        try:
            return library_of(like).empty(shape, dtype.name, like)
        except (BackendError, TypeError):
            raise
        except Exception as error:  # each library has a class of its own
            raise MemoryError(
                f"the result, {shape} {dtype}, cannot be allocated: {_one_line(error)}"
            ) from error

    def synchronize(self) -> None:
        """Wait for everything on the current device."""
        from cuda.core import Device

        Device().sync()

    def call(self, request: Request, like: Any) -> "CudaCall":
        """Begin a call on the device and the stream of `like`."""
        return CudaCall(self, like)

    def kernel(self, device: Any, launch: Launch) -> Any:
        """Compile a kernel, once for each device and set of macros."""
        from cuda.core import Program

        key = (device.device_id, launch.macros)
        with self._lock:
            if key not in self._kernels:
                options = compiler_options(f"sm_{device.arch}", launch.macros)
                program = Program(_launches.source(), "c++", options)
                self._kernels[key] = program.compile("cubin").get_kernel(launch.kernel)
            return self._kernels[key]


def what_is_missing() -> str | None:
    """Say why CUDA cannot be used here, or return None."""
    if find_spec("cuda") is None or find_spec("cuda.core") is None:
        return "cuda-core is not installed: pip install 'cropkit[cuda]'"
    try:
        from cuda.bindings import nvrtc
        from cuda.core import Device
    except ImportError as error:
        return f"cuda-core cannot be imported: {error}"
    try:
        devices = Device.get_all_devices()
    except Exception as error:  # no driver, or one that cannot be initialized
        return f"there is no driver of an NVIDIA GPU: {_one_line(error)}"
    if not devices:
        return "the driver finds no GPU"
    try:
        nvrtc.nvrtcVersion()
    except Exception as error:
        return f"NVRTC, which compiles the kernels, is not found: {_one_line(error)}"
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def compiler_options(arch: str, macros: Macros) -> Any:
    """Options of NVRTC: each operation rounded on its own, divisions rounded correctly.

    No option flushes float32 subnormals, since it would also affect conversions and copies; the
    operations in the source flush them.
    """
    from cuda.core import ProgramOptions

    return ProgramOptions(
        name="cropkit_gpu/kernels.cl",
        arch=arch,
        fma=False,
        prec_div=True,
        ftz=False,
        define_macro=[(name, str(value)) for name, value in macros],
    )


# ---- libraries -----------------------------------------------------------------------


class Library(NamedTuple):
    """The functions that the backend needs of a library of arrays on the GPU.

    Attributes
    ----------
    stream : callable
        Returns the driver's handle of the stream that is current for an array's device.
    empty : callable
        Allocates a result, given its shape, the name of its dtype and an array on its device.
    own_streams : bool
        Whether the library runs on streams that only it knows. A call then waits for the
        library's work before it begins, and for its own work before it returns.
    """

    stream: Callable[[Any], int]
    empty: Callable[[tuple[int, ...], str, Any], Any]
    own_streams: bool = False


def _torch_stream(array: Any) -> int:
    return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream)


def _torch_empty(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    torch = sys.modules["torch"]
    return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)


def _cupy_stream(array: Any) -> int:
    with array.device:
        return int(sys.modules["cupy"].cuda.get_current_stream().ptr)


def _cupy_empty(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    with like.device:
        return sys.modules["cupy"].empty(shape, dtype)


def _jax_empty(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    # The kernels write to this array once, before the caller gets it. JAX's arrays are constant.
    result = sys.modules["jax"].numpy.zeros(shape, dtype, device=like.device)
    if result.dtype.name != dtype:
        raise TypeError(
            f"dtype={dtype}: JAX would round it to 32 bits; "
            'jax.config.update("jax_enable_x64", True) allows 64'
        )
    return result


def _no_empty(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    raise BackendError(
        f"backend 'cuda' does not know how {type(like).__module__} allocates arrays: pass out="
    )


def _legacy_stream(array: Any) -> int:
    return 1


_JAX: Final = Library(_legacy_stream, _jax_empty, own_streams=True)
# The name of a module, of its class of arrays, and the library's functions.
_LIBRARIES: Final = (
    ("torch", "Tensor", Library(_torch_stream, _torch_empty)),
    ("cupy", "ndarray", Library(_cupy_stream, _cupy_empty)),
    ("jax", "Array", _JAX),
)
_OTHER: Final = Library(_legacy_stream, _no_empty, own_streams=True)


def library_of(array: object) -> Library:
    """Return the `Library` of an array, found by the array's class, not by the class's name."""
    for module, name, library in _LIBRARIES:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and isinstance(array, kind):
            return library
    return _OTHER


# ---- one call ------------------------------------------------------------------------


class CudaCall:
    """The memory and the launches of one call, on one device and stream.

    Parameters
    ----------
    backend : CudaBackend
    like : object
        An array, whose device and current stream are used.
    """

    local_size: Final = 256

    def __init__(self, backend: CudaBackend, like: Any) -> None:
        self._backend = backend
        self._like = like
        self._library = library_of(like)
        self._views: list[Any] = []
        self._buffers: list[Any] = []
        self._inputs: list[tuple[str, int, int]] = []

    def __enter__(self) -> Self:
        from cuda.core import LEGACY_DEFAULT_STREAM, Device, Stream

        handle = self._library.stream(self._like)
        self._handle = handle or 1
        self._before = Device()
        self._device = Device(int(self._like.__dlpack_device__()[1]))
        self._device.set_current()
        default = handle in _DEFAULT_STREAMS
        self._stream = LEGACY_DEFAULT_STREAM if default else Stream.from_handle(handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for buffer in self._buffers:
                buffer.close(self._stream)  # once the kernels are done
            if self._library.own_streams:
                self._stream.sync()
        finally:
            self._before.set_current()
        if error is not None and "OUT_OF_MEMORY" in str(error):
            raise MemoryError(
                f"backend 'cuda': {self._device.name} has too little memory for this call"
            ) from error

    def read(self, name: str, array: Any, dtype: np.dtype[Any]) -> Operand:
        """Let kernels read the argument `name`."""
        view = self._view(array)
        strides = _strides(view)
        bounds = span(view.ptr, view.shape, strides, dtype.itemsize)
        self._inputs.append((name, *bounds))
        return _operand(view.ptr, strides, dtype)

    def write(self, out: Any, dtype: np.dtype[Any]) -> Operand:
        """Let kernels write `out`."""
        view = self._view(out)
        # JAX's arrays are read-only, but this one was made for this call alone.
        if view.readonly and not self._library.own_streams:
            raise ValueError("out is read-only")
        strides = _strides(view)
        check_out(view.ptr, view.shape, strides, dtype.itemsize, self._inputs)
        return _operand(view.ptr, strides, dtype)

    def send(self, array: NDArray[Any]) -> Any:
        """Copy a packed array to the device; the caller may change it after this returns."""
        from cuda.core import Buffer

        buffer = self._allocate(array.nbytes)
        host = Buffer.from_handle(array.ctypes.data, array.nbytes, owner=array)
        buffer.copy_from(host, stream=self._stream)
        return buffer

    def allocate(self, dtype: str, count: int) -> Any:
        """Allocate scratch memory."""
        return self._allocate(count * _launches.itemsize_of(dtype))

    def run(self, launches: list[Launch]) -> None:
        """Enqueue kernels, one after the other."""
        from cuda.core import LaunchConfig, launch

        for each in launches:
            config = LaunchConfig(grid=each.groups, block=each.local_size)
            kernel = self._backend.kernel(self._device, each)
            launch(self._stream, config, kernel, *each.arguments)

    def _allocate(self, size: int) -> Any:
        buffer = self._device.allocate(size, stream=self._stream)
        self._buffers.append(buffer)
        return buffer

    def _view(self, array: Any) -> Any:
        """View the memory of an array; the view lives until the end of the call."""
        from cuda.core.utils import StridedMemoryView

        # On the library's current stream, its arrays are ready: -1 asks for no more waiting.
        stream = self._handle if self._library.own_streams else -1
        view = StridedMemoryView.from_any_interface(array, stream_ptr=stream)
        self._views.append(view)
        return view


def _strides(view: Any) -> tuple[int, ...]:
    """Return the strides in elements, 0 along an axis of one element."""
    strides = view.strides
    if strides is None:
        sizes = [int(n) for n in np.cumprod((1, *view.shape[:0:-1]), dtype=object)]
        strides = sizes[::-1]
    return tuple(s if n > 1 else 0 for s, n in zip(strides, view.shape, strict=True))


def _operand(address: int, strides: tuple[int, ...], dtype: np.dtype[Any]) -> Operand:
    alignment = (address | _OWN_ALIGNMENT) & -(address | _OWN_ALIGNMENT)
    return Operand(int(address), 0, strides, dtype.name, alignment)


backend: Final = CudaBackend()
