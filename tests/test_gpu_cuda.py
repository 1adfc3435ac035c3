"""Backend ``cuda`` as far as no GPU is needed: the source compiled, the calls prepared.

The kernels are those that ``test_gpu_opencl.py`` runs. Here NVRTC compiles them for each
architecture, and what it made of each operation is read in the PTX. Launches go to a
recorder in place of a driver. Nothing here shows that a GPU computes the right bits.
"""

import ctypes
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import BackendError, Request, Sampling
from cropkit_gpu import _launches, cuda
from cropkit_gpu._launches import Launch, Operand
from cropkit_gpu.cuda import CudaBackend

from .support.cases import DTYPES, METHODS, dtype_of
from .support.children import python

pytestmark = pytest.mark.gpu
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


@pytest.fixture(scope="module", autouse=True)
def nvrtc() -> Any:
    """Return NVRTC's functions, which need no driver."""
    bindings = pytest.importorskip(
        "cuda.bindings", reason="the CUDA source is compiled with cuda-core: make test-gpu has it"
    )
    from cuda.bindings import nvrtc

    assert bindings
    return nvrtc


def request(operation: Any, **changes: Any) -> Request:
    """Make a request as the core does."""
    fields: dict[str, Any] = {
        "image_shape": (2, 50, 60, 4),
        "image_dtype": np.dtype(np.float32),
        "num_boxes": 3,
        "crop_size": (14, 15),
        "sampling": Sampling(),
        "compute_dtype": np.dtype(np.float32),
        "result_dtype": np.dtype(np.float32),
        "extrapolation_value": -3.5,
        "device_type": 2,
        "num_threads": None,
        "operation": operation,
        "grads_dtype": None if operation == "crop_and_resize" else np.dtype(np.float32),
    }
    return Request(**fields | changes)


def operand(memory: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Operand:
    strides = [int(n) for n in np.cumprod((1, *shape[:0:-1]))][::-1]
    return Operand(memory, 0, tuple(strides), dtype.name, 256)


def launches_of(asked: Request) -> list[Launch]:
    """Plan a call; memory is numbers."""
    plan: Any = {
        "crop_and_resize": _launches.forward,
        "grad_image": _launches.grad_image,
        "grad_boxes": _launches.grad_boxes,
    }[asked.operation]
    image = operand(1 << 40, asked.image_shape, asked.image_dtype)
    grads = operand(2 << 40, asked.crops_shape, asked.grads_dtype or asked.compute_dtype)
    out = operand(3 << 40, asked.result_shape, asked.result_dtype)
    arrays = {"crop_and_resize": (image,), "grad_image": (grads,), "grad_boxes": (grads, image)}
    memory = arrays[asked.operation]
    launches: list[Launch] = plan(asked, *memory, 4 << 40, 5 << 40, out, lambda *_: 6 << 40, 256)
    return launches


def ptx_of(launch: Launch, arch: str, nvrtc: Any) -> str:
    """Compile with the options that the backend passes."""
    made = cuda.compiler_options(arch.replace("sm_", "compute_"), launch.macros)
    options = made.as_bytes("nvrtc", "ptx")
    _, program = nvrtc.nvrtcCreateProgram(_launches.source().encode(), b"kernels.cl", 0, [], [])
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = bytes(nvrtc.nvrtcGetProgramLogSize(program)[1])
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    assert not log.strip(b"\0 \n"), log.decode()
    ptx = bytes(nvrtc.nvrtcGetPTXSize(program)[1])
    nvrtc.nvrtcGetPTX(program, ptx)
    return ptx.decode()


def operations_in(ptx: str) -> set[str]:
    """Floating-point arithmetic: names such as ``mul.rn.ftz.f32``."""
    return set(OPERATION.findall(ptx))


OPERATION = re.compile(r"^\s*((?:add|sub|mul|div|fma|mad|rcp)\.[\w.]*f(?:32|64))\b", re.M)
ROUNDED = re.compile(r"(add|sub|mul|div)\.rn(\.ftz\.f32|\.f64)")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_operation_is_rounded_on_its_own(arch: str, nvrtc: Any) -> None:
    seen: set[str] = set()
    for operation in ("crop_and_resize", "grad_image", "grad_boxes"):
        for dtype in ("float32", "float64"):
            real = np.dtype(dtype)
            asked = request(operation, compute_dtype=real, result_dtype=real, image_dtype=real)
            for launch in launches_of(asked):
                found = operations_in(ptx_of(launch, arch, nvrtc))
                wrong = {name for name in found if not ROUNDED.fullmatch(name)}
                assert not wrong, f"{launch.kernel} for {arch} in {dtype}: {sorted(wrong)}"
                if launch.kernel == "axis_tables":
                    assert ("div.rn.ftz.f32" if dtype == "float32" else "div.rn.f64") in found
                seen |= found
    assert {"add.rn.ftz.f32", "sub.rn.ftz.f32", "mul.rn.ftz.f32", "mul.rn.f64"} <= seen


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_dtype_compiles(dtype: str, method: str, nvrtc: Any) -> None:
    kind = dtype_of(dtype)
    real = np.dtype(np.float64 if dtype == "float64" else np.float32)
    sampling = Sampling(method=method)  # type: ignore[arg-type]
    for depth in (3, 4, 5):
        shape = (2, 50, 60, depth)
        for asked in (
            request("crop_and_resize", image_shape=shape, image_dtype=kind, sampling=sampling),
            request(
                "grad_image", image_shape=shape, image_dtype=kind, grads_dtype=kind,
                sampling=sampling, compute_dtype=real, result_dtype=kind,
            ),
            request("grad_boxes", image_shape=shape, image_dtype=kind, grads_dtype=kind),
        ):  # fmt: skip
            ptx_of(launches_of(asked)[1], "sm_90", nvrtc)


def test_four_channels_move_at_once(nvrtc: Any) -> None:
    ptx = ptx_of(launches_of(request("crop_and_resize"))[1], "sm_90", nvrtc)
    assert len(re.findall(r"ld\.global\.nc\.v4\.f32", ptx)) == 4
    assert len(re.findall(r"st\.global\.wb\.v4\.f32", ptx)) == 1
    assert ".local" not in ptx


# ---- launches, without a driver -------------------------------------------------------


def packed(arguments: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Let cuda-core pack arguments, and read them back: (value, as which it was read)."""
    from cuda.core._kernel_arg_handler import ParamHolder

    holder = ParamHolder(arguments)
    pointers = ctypes.cast(holder.ptr, ctypes.POINTER(ctypes.c_void_p))
    types: dict[str, Any]
    types = {"i8": ctypes.c_int64, "i4": ctypes.c_int32, "f4": ctypes.c_float}
    values = []
    for number, argument in enumerate(arguments):
        kind = getattr(argument, "dtype", np.dtype("i8")).str[1:]
        address = pointers[number]
        assert address is not None
        values.append((types[kind].from_address(address).value, kind))
    return values


def test_arguments_are_packed_as_the_kernels_take_them() -> None:
    for operation in ("crop_and_resize", "grad_image", "grad_boxes"):
        for launch in launches_of(request(operation)):
            parameters = parameters_of(launch.kernel)
            values = packed(launch.arguments)
            assert [kind for _, kind in values] == parameters, launch.kernel
            assert [value for value, _ in values] == [n.item() if hasattr(n, "item") else n
                                                      for n in launch.arguments]  # fmt: skip


def parameters_of(kernel: str) -> list[str]:
    """Types of a kernel's parameters, read in its source; a pointer is an ``i8``."""
    found = re.search(rf"^KERNEL {kernel}\((.*?)\)\n\{{", _launches.source(), re.S | re.M)
    assert found
    text = found[1]
    text = re.sub(r"ARRAY\([^)]*\)", "p, i64, i64, i64, i64, i64", text)
    text = text.replace("TABLES", "p, p, p")
    types = []
    for parameter in text.split(","):
        words = parameter.split()
        types.append("i8" if "*" in parameter or words[0] in ("p", "i64") else words[0])
    return [{"real": "f4", "i32": "i4"}.get(name, name) for name in types]


class Memory:
    """A buffer of the device."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.copied: Any = None
        self.closed: Any = None

    def copy_from(self, source: Any, *, stream: Any) -> None:
        self.copied = (source.size, stream)

    def close(self, stream: Any) -> None:
        self.closed = stream


class Recorder:
    """A device that records what is asked of it."""

    arch = "90"
    name = "Recorder"
    current = -1

    def __init__(self, device_id: int | None = None) -> None:
        self.device_id = Recorder.current if device_id is None else device_id
        Recorder.devices.append(self)

    devices: list["Recorder"] = []  # noqa: RUF012

    def set_current(self) -> None:
        Recorder.current = self.device_id

    def allocate(self, size: int, *, stream: Any) -> Memory:
        buffers.append(Memory(size))
        return buffers[-1]


buffers: list[Memory] = []


class Tensor:
    """An array on device 1, as PyTorch has it."""

    device = "cuda:1"

    def __init__(self, address: int, shape: tuple[int, ...], dtype: Any = np.float32) -> None:
        self.ptr = address
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.strides = None
        self.readonly = False

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 1)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put recorders in the place of a driver and of PyTorch; return what is launched."""
    import cuda.core
    import cuda.core.utils

    calls: list[Any] = []
    buffers.clear()
    monkeypatch.setattr(Recorder, "current", 0)
    monkeypatch.setattr(cuda.core, "Device", Recorder)
    monkeypatch.setattr(cuda.core, "launch", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(CudaBackend, "kernel", lambda self, device, launch: launch.kernel)
    monkeypatch.setattr(CudaBackend, "unavailable", lambda self: None)
    view = SimpleNamespace(from_any_interface=lambda array, stream_ptr: array)
    monkeypatch.setattr(cuda.core.utils, "StridedMemoryView", view)
    stream = SimpleNamespace(cuda_stream=7)
    torch = SimpleNamespace(
        cuda=SimpleNamespace(current_stream=lambda device: stream),
        float32="torch.float32",
        empty=lambda shape, dtype, device: Tensor(1 << 41, shape, dtype.rpartition(".")[2]),
        Tensor=Tensor,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    return calls


BOX: NDArray[np.float64] = np.array([[0, 0, 1, 1]])


def test_a_call_goes_to_the_device_and_the_stream_of_its_image(launched: list[Any]) -> None:
    backend = CudaBackend()
    image = Tensor(1 << 40, (1, 8, 9, 4))
    out = Tensor(1 << 41, (1, 5, 6, 4))
    with backend.call(request("crop_and_resize"), image) as call:
        assert Recorder.current == 1
        assert call.read("image", image, image.dtype).strides == (0, 36, 4, 1)
        call.write(out, out.dtype)
    asked = request("crop_and_resize", image_shape=image.shape, num_boxes=1, crop_size=(5, 6))
    backend.crop_and_resize(asked, image, BOX.astype(np.float32), np.array([0]), out)
    assert Recorder.current == 0
    assert [call[2] for call in launched] == ["axis_tables", "forward"]
    for stream, config, _, *_ in launched:
        assert int(stream.handle) == 7
        assert config.block == (256, 1, 1)
    forward = launched[1][3:]
    assert forward[0] == image.ptr
    assert out.ptr in forward
    sizes = sorted(buffer.size for buffer in buffers)
    assert sizes == sorted([16, 8, 11 * 8, 11 * 4])  # boxes, indices, and the two tables
    assert all(int(buffer.closed.handle) == 7 for buffer in buffers)


def test_a_result_is_allocated_by_the_library(launched: list[Any]) -> None:
    result = CudaBackend().empty((1, 5, 6, 4), np.dtype(np.float32), Tensor(0, (1, 8, 9, 4)))
    assert (type(result), result.shape, result.dtype) == (Tensor, (1, 5, 6, 4), np.float32)

    class Strange:
        __module__ = "strange.arrays"

    message = "backend 'cuda' does not know how strange.arrays allocates arrays: pass out="
    with pytest.raises(BackendError, match=message):
        CudaBackend().empty((1,), np.dtype(np.float32), Strange())


@pytest.mark.parametrize("module", ["torch", "jaxlib", "cupy.cuda"])
def test_a_librarys_name_makes_no_array_its_own(launched: list[Any], module: str) -> None:
    array = type("Tensor", (), {"__module__": module})()
    with pytest.raises(BackendError, match=r"does not know how .* allocates arrays: pass out="):
        CudaBackend().empty((1,), np.dtype(np.float32), array)


def test_a_result_that_cannot_be_allocated(
    launched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(sys.modules["torch"], "empty", full)
    message = (
        r"the result, \(1, 5\) float32, cannot be allocated: CUDA out of memory. Tried to "
        "allocate 2 GiB"
    )
    with pytest.raises(MemoryError, match=message):
        CudaBackend().empty((1, 5), np.dtype(np.float32), Tensor(0, (1, 8, 9, 4)))


def test_jax_may_have_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    class Array:
        device = "cuda:0"

    def zeros(shape: tuple[int, ...], dtype: str, device: str) -> Tensor:
        return Tensor(0, shape, "float32")

    jax = SimpleNamespace(numpy=SimpleNamespace(zeros=zeros), Array=Array)
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert CudaBackend().empty((2, 3), np.dtype(np.float32), Array()).shape == (2, 3)
    with pytest.raises(TypeError, match="dtype=float64: JAX would round it to 32 bits"):
        CudaBackend().empty((2, 3), np.dtype(np.float64), Array())


def test_bad_outs(launched: list[Any]) -> None:
    image, out = Tensor(1 << 40, (1, 8, 9, 4)), Tensor((1 << 40) + 16, (1, 5, 6, 4))
    backend = CudaBackend()
    arguments = request("crop_and_resize"), image, BOX, np.array([0])
    with pytest.raises(ValueError, match="out overlaps image: expected memory of its own"):
        backend.crop_and_resize(*arguments, out)
    out.ptr = image.ptr + 8 * 9 * 4 * 4
    out.readonly = True
    with pytest.raises(ValueError, match="out is read-only"):
        backend.crop_and_resize(*arguments, out)
    assert Recorder.current == 0


def test_too_little_memory(launched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed")

    monkeypatch.setattr(Recorder, "allocate", full)
    image, out = Tensor(1 << 40, (1, 8, 9, 4)), Tensor(1 << 41, (1, 5, 6, 4))
    message = "backend 'cuda': Recorder has too little memory for this call"
    with pytest.raises(MemoryError, match=message):
        CudaBackend().crop_and_resize(request("crop_and_resize"), image, BOX, np.array([0]), out)


# ---- where it cannot be used ----------------------------------------------------------


def reason_in_a_child(code: str) -> str:
    code += "\nfrom cropkit_gpu.cuda import backend\nprint(backend.unavailable())"
    return python(code).stdout.strip()


HIDE = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "cuda.core" else find(name, *rest)
"""
NO_GPU = """
import cuda.core
def devices():
    raise RuntimeError("found no driver\\nat all")
cuda.core.Device = type("Device", (), {"get_all_devices": staticmethod(devices)})
"""
NO_NVRTC = """
import cuda.bindings.nvrtc, cuda.core
def version():
    raise RuntimeError("libnvrtc is missing")
cuda.bindings.nvrtc.nvrtcVersion = version
cuda.core.Device = type("Device", (), {"get_all_devices": staticmethod(lambda: (0,))})
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (HIDE, "cuda-core is not installed: pip install 'cropkit[cuda]'"),
        (NO_GPU, "there is no driver of an NVIDIA GPU: found no driver at all"),
        (NO_GPU.replace('raise RuntimeError("found no driver\\nat all")', "return ()"),
         "the driver finds no GPU"),
        (NO_NVRTC, "NVRTC, which compiles the kernels, is not found: libnvrtc is missing"),
    ],
)  # fmt: skip
def test_what_is_missing(code: str, reason: str) -> None:
    assert reason_in_a_child(code) == reason


def test_numpy_arrays_are_refused() -> None:
    backend = CudaBackend()
    backend.unavailable = lambda: None  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="it does not run on CPU arrays"):
        cropkit.crop_and_resize(np.zeros((1, 2, 2, 1)), BOX, [0], (1, 1), backend=backend)
