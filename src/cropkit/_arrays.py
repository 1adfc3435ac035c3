"""Arrays of other libraries, in and out by DLPack; none of the libraries is imported here.

An array in the CPU's memory becomes a NumPy view of the same memory, and a result goes back
the same way: nothing is copied. An array on another device stays as it is, beside the shape
and the dtype that the checks need (`DeviceArray`), and a backend for that device reads it.

`Library` reads and makes the arrays of any library that follows the array API standard. The
subclasses, in the table `_LIBRARIES`, are for libraries that differ: they refuse arrays that
are traced or require gradients, view sixteen bits as an integer in their own way (NumPy has no
bfloat16 for DLPack), or need a result with other memory.
"""

import math
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cropkit._kernels._checks import in_environment
from cropkit._kernels._memory import AVAILABLE, Block

# DLPack's device types of memory that the CPU can read: its own, and pinned by CUDA and ROCm.
_HOST_DEVICES: Final = frozenset({1, 3, 11})
_DEVICE_NAMES: Final = {1: "CPU", 2: "CUDA", 4: "OpenCL", 8: "Metal", 10: "ROCm", 14: "oneAPI"}
_OPENCL: Final = 4
# JAX, and TensorFlow in a graph, share memory only if it begins at a multiple of this.
_ALIGNMENT: Final = 64
# An array of at least this many bytes takes the memory of an earlier, deleted one.
_LARGE: Final = 4 << 20
_UINT8: Final = np.dtype(np.uint8)


class DeviceArray(NamedTuple):
    """An array that the CPU cannot read, as the checks see it.

    Attributes
    ----------
    array : object
        The array itself, which the backend gets.
    shape : tuple of int
    dtype : numpy.dtype
    device : (int, int)
        DLPack's type and number of the device.
    """

    array: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


# ---- in -------------------------------------------------------------------------------


def as_array(value: object, name: str) -> NDArray[Any] | DeviceArray:
    """View the argument `name`, `value`, as an array; an array is not copied.

    Raises
    ------
    TypeError, ValueError
        `value` is no array, or is traced, requires gradients, is deleted or masked.
    """
    refuse_masked(value, name)
    library = library_of(value)
    try:
        return np.asarray(value) if library is None else library.view(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array: {error}") from None
    except (TypeError, AttributeError, BufferError, RuntimeError) as error:
        raise TypeError(f"{name}: expected an array: {error}") from None


def host_views(*arrays: object) -> list[Any] | None:
    """View arrays as NumPy's, if the first is another library's and all are in the CPU's memory.

    Returns None if one of them is elsewhere or must not be read; `as_array` then says why.
    """
    if library_of(arrays[0]) is None:
        return None
    views: list[Any] = []
    try:
        for array in arrays:
            library = library_of(array)
            views.append(array if library is None else library.view(array))
    except Exception:
        return None
    return views


def is_masked(value: object) -> bool:
    """Whether `value` is a masked array; only a program that imports ``numpy.ma`` has one."""
    ma = sys.modules.get("numpy.ma")
    return ma is not None and isinstance(value, ma.MaskedArray)


def refuse_masked(value: object, name: str) -> None:
    """Refuse masked arrays, alone or in a list: NumPy would convert them without their masks.

    An array that masks no element is refused too, so that no program fails only on some data.
    """
    if is_masked(value):
        raise TypeError(
            f"{name} is a masked array, whose mask would be dropped: {name}.filled(value) is a "
            "plain array"
        )
    ma = sys.modules.get("numpy.ma")
    if ma is not None and isinstance(value, (list, tuple)) and _holds(value, ma.MaskedArray):
        raise TypeError(
            f"{name} holds a masked array, whose mask would be dropped: its filled(value) is a "
            "plain one"
        )


def _holds(values: Iterable[Any], kind: type[Any]) -> bool:
    """Whether an entry is of type `kind`, or an entry of a list among them, four levels deep."""
    for _ in range(4):
        entries = list(values)
        kinds = set(map(type, entries))  # few, however many entries there are
        if any(issubclass(one, kind) for one in kinds):
            return True
        if not kinds <= {list, tuple}:
            entries = [entry for entry in entries if isinstance(entry, (list, tuple))]
        values = chain.from_iterable(entries)
    return False


def as_host_array(value: object, name: str) -> NDArray[Any]:
    """View `value` as a NumPy array, or copy it to the CPU's memory from another device."""
    given = as_array(value, name)
    if isinstance(given, np.ndarray):
        return given
    library = library_of(value)
    assert library is not None
    try:
        return library.to_host(value)
    except (ValueError, TypeError, AttributeError, BufferError, RuntimeError) as error:
        raise TypeError(f"{name} cannot be copied to the CPU's memory: {error}") from None


def numpy_dtype(dtype: object) -> np.dtype[Any]:
    """Return NumPy's dtype with the same name as `dtype`, which is of any library.

    Raises
    ------
    TypeError
        NumPy has no dtype of that name.
    """
    name = _name(dtype)
    return _bfloat16() if name == "bfloat16" else np.dtype(name)


def grad_image_dtype(image_dtype: Any, real: Any) -> Any:
    """Return the dtype, of any library, in which to compute an image's gradient.

    `real` is the dtype of the forward call, in which the samples' positions are computed. For a
    16-bit image the kernel itself rounds its float32 sums, which saves a float32 image. For every
    other image the result is `real`, and the caller converts the gradient.
    """
    return image_dtype if image_dtype.itemsize == 2 and real.itemsize == 4 else real


def _name(dtype: object) -> str:
    """Return the name of any library's dtype, ``float32`` for ``torch.float32`` too."""
    name: object = getattr(dtype, "name", None)
    return name if isinstance(name, str) else str(dtype).rpartition(".")[2]


def _bfloat16() -> np.dtype[Any]:
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise TypeError("NumPy's bfloat16 is that of ml_dtypes: pip install ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(bfloat16)
    return dtype


def device_name(device_type: int, number: int = 0) -> str:
    """Return the name of a DLPack device type, and the device's number unless it is 0."""
    name = _DEVICE_NAMES.get(device_type, f"DLPack device type {device_type}")
    return f"{name} {number}" if number else name


# ---- out ------------------------------------------------------------------------------


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], like: object) -> NDArray[Any]:
    """Allocate a result that `hand_over` can give to the library of `like`."""
    library = None if type(like) is np.ndarray else library_of(like)
    return _empty(shape, dtype) if library is None else library.empty(shape, dtype)


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Allocate an array; a large one takes the memory of an earlier, deleted one."""
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE or not AVAILABLE or not _reuses_memory():
        return np.empty(shape, dtype)
    block: Any = Block(size)  # NumPy's stubs do not know every buffer
    return np.ndarray(shape, dtype, buffer=block)


def _reuses_memory() -> bool:
    if not in_environment(b"CROPKIT_REUSE_MEMORY"):
        return True
    text = os.environ.get("CROPKIT_REUSE_MEMORY", "")
    if text not in ("", "0", "1"):
        raise ValueError(f"CROPKIT_REUSE_MEMORY={text!r}: expected 0 or 1")
    return text != "0"


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Allocate an array whose memory every library can share; reuse memory if it is large."""
    size = math.prod(shape) * dtype.itemsize
    if size >= _LARGE and AVAILABLE and _reuses_memory():
        return _empty(shape, dtype)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def hand_over(result: Any, like: object) -> Any:
    """Return `result` as an array of the library of `like`, which takes over its memory."""
    library = library_of(like)
    if library is None or not isinstance(result, np.ndarray):
        return result
    return library.adopt(result, like)


# ---- libraries ------------------------------------------------------------------------


class Library:
    """Reads and makes the arrays of a library that follows the array API standard."""

    constant = False  # whether the library's arrays never change

    def view(self, value: Any) -> NDArray[Any] | DeviceArray:
        """View the memory of an array, or describe an array that the CPU cannot read."""
        device_type, number = value.__dlpack_device__()
        if device_type in _HOST_DEVICES:
            return self.host_view(value)
        device = (int(device_type), int(number))
        return DeviceArray(value, tuple(value.shape), numpy_dtype(value.dtype), device)

    def host_view(self, value: Any) -> NDArray[Any]:
        """View the memory of an array that the CPU can read."""
        if _name(value.dtype) == "bfloat16":
            return np.from_dlpack(self.as_int16(value)).view(_bfloat16())
        return np.from_dlpack(value)

    def as_int16(self, value: Any) -> Any:
        """View an array of 16-bit elements as integers."""
        return value.view(np.dtype(np.int16))

    def to_host(self, value: Any) -> NDArray[Any]:
        """Copy an array to the CPU's memory."""
        if hasattr(value, "get"):  # CuPy, whose DLPack does not copy to the CPU
            return np.asarray(value.get())
        return np.from_dlpack(value, device="cpu")

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Allocate memory that `adopt` need not copy."""
        return aligned_empty(shape, dtype)

    def adopt(self, result: NDArray[Any], like: Any) -> Any:
        """Make an array of this library on the memory of `result`."""
        namespace = getattr(like, "__array_namespace__", None)
        return result if namespace is None else namespace().from_dlpack(result)


class _Torch(Library):
    def view(self, value: Any) -> NDArray[Any] | DeviceArray:
        torch: Any = sys.modules["torch"]
        if value.requires_grad:
            raise TypeError(
                "a tensor that requires grad is for cropkit.torch.crop_and_resize, which "
                "differentiates; detach() gives its values alone"
            )
        if torch.jit.is_tracing():  # which would take the result for a constant
            raise TypeError(
                "what torch.jit.trace records is for cropkit.torch.crop_and_resize, an operator "
                "of PyTorch's"
            )
        forward_ad = torch.autograd.forward_ad
        # Outside of a level, no tensor has a tangent; to ask one takes half a microsecond.
        inside = getattr(forward_ad, "_current_level", 0) >= 0
        if inside and forward_ad.unpack_dual(value).tangent is not None:
            raise TypeError(
                "forward-mode derivatives are not offered; unpack_dual(tensor).primal gives a "
                "dual tensor's values alone"
            )
        return self.host_view(value) if value.is_cpu else super().view(value)

    def host_view(self, value: Any) -> NDArray[Any]:
        # Not by DLPack, which loses the negative bit of a view (torch 2.13), and in older
        # releases exports memory that may not be written to.
        if value.dtype is sys.modules["torch"].bfloat16:
            view: NDArray[Any] = self.as_int16(value).numpy().view(_bfloat16())
        else:
            view = value.numpy()
        if view.size and value.untyped_storage().nbytes() == 0:
            raise ValueError("this tensor's memory has been freed, by resizing its storage")
        return view

    def as_int16(self, value: Any) -> Any:
        return value.view(sys.modules["torch"].int16)

    def to_host(self, value: Any) -> NDArray[Any]:
        return self.host_view(value.cpu())

    def adopt(self, result: NDArray[Any], like: Any) -> Any:
        torch: Any = sys.modules["torch"]
        if result.dtype.kind == "f":
            return torch.from_numpy(result)
        if result.dtype.kind == "V":  # bfloat16, whose name takes a microsecond to ask for
            return torch.from_dlpack(result.view(np.int16)).view(torch.bfloat16)
        return torch.from_dlpack(result)


class _Jax(Library):
    constant = True

    def view(self, value: Any) -> NDArray[Any] | DeviceArray:
        if isinstance(value, sys.modules["jax"].core.Tracer):
            raise TypeError(
                "what JAX traces is for cropkit.jax.crop_and_resize, which works under jit, "
                "grad and vmap"
            )
        refuse_deleted(value)
        return super().view(value)

    def host_view(self, value: Any) -> NDArray[Any]:
        # JAX's own view as integers is a copy; this one is not, and knows bfloat16.
        return np.asarray(value)

    def to_host(self, value: Any) -> NDArray[Any]:
        return np.asarray(value)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        if dtype.itemsize == 8 and not sys.modules["jax"].config.jax_enable_x64:
            raise TypeError(
                f"dtype={dtype}: JAX would round it to 32 bits; "
                'jax.config.update("jax_enable_x64", True) allows 64'
            )
        return super().empty(shape, dtype)

    def adopt(self, result: NDArray[Any], like: Any) -> Any:
        if result.dtype.kind == "V":  # bfloat16, whose name takes a microsecond to ask for
            return sys.modules["jax"].device_put(result, may_alias=True)
        return super().adopt(result, like)


def refuse_deleted(value: Any) -> None:
    """Refuse an array of JAX's whose memory is gone."""
    if isinstance(value, sys.modules["jax"].Array) and value.is_deleted():
        raise ValueError("this one has been deleted, by delete() or as an argument donated to jit")


class _TensorFlow(Library):
    constant = True

    def view(self, value: Any) -> NDArray[Any] | DeviceArray:
        tf: Any = sys.modules["tensorflow"]
        if not isinstance(value, tf.Tensor):
            value = tf.convert_to_tensor(value)  # a variable's value
        if tf.is_symbolic_tensor(value):
            raise TypeError(
                "a tensor of a tf.function is for cropkit.tensorflow.crop_and_resize, which "
                "works in graphs and under GradientTape"
            )
        dtype = value.dtype  # TensorFlow ends the process where it is asked for a string's memory
        if not (dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex):
            raise TypeError(f"a tensor of dtype {dtype.name}, which is none of numbers")
        return super().view(value)

    def as_int16(self, value: Any) -> Any:
        tf: Any = sys.modules["tensorflow"]
        return tf.bitcast(value, tf.int16)

    def to_host(self, value: Any) -> NDArray[Any]:
        return np.asarray(sys.modules["tensorflow"].convert_to_tensor(value).numpy())

    def adopt(self, result: NDArray[Any], like: Any) -> Any:
        tf: Any = sys.modules["tensorflow"]
        if result.dtype.kind == "V":  # bfloat16, whose name takes a microsecond to ask for
            return tf.bitcast(self.adopt(result.view(np.int16), like), tf.bfloat16)
        return tf.experimental.dlpack.from_dlpack(result.__dlpack__())


class _PyOpenCL(Library):
    """PyOpenCL, whose arrays have no DLPack; their ``get`` copies to the CPU's memory."""

    def view(self, value: Any) -> DeviceArray:
        return DeviceArray(value, value.shape, numpy_dtype(value.dtype), (_OPENCL, 0))


_ARRAY_API: Final = Library()
# A library's module, the names of its classes of arrays and dtypes there, and its `Library`.
_LIBRARIES: Final[tuple[tuple[str, tuple[str, ...], Library], ...]] = (
    ("torch", ("Tensor", "dtype"), _Torch()),
    ("jax", ("Array", "core.Tracer"), _Jax()),
    ("pyopencl.array", ("Array",), _PyOpenCL()),
    ("tensorflow", ("Tensor", "Variable", "IndexedSlices", "DType"), _TensorFlow()),
)


def library_of(value: object) -> Library | None:
    """Return the library of an array, or None for NumPy and what NumPy converts."""
    kind: Any = type(value)
    return _library_of_class(kind)


@lru_cache(256)
def _library_of_class(kind: type[Any]) -> Library | None:
    if issubclass(kind, np.ndarray):
        return None
    for module, names, library in _LIBRARIES:
        if any(issubclass(kind, one) for one in _classes(module, names)):
            return library
    return _ARRAY_API if hasattr(kind, "__dlpack_device__") else None


def _classes(module: str, names: tuple[str, ...]) -> list[type[Any]]:
    """Return the classes `names` of an imported module, or none if one of them is missing.

    The classes themselves are compared, not their names, which any module may use: a user's
    own ``jax.py`` with an ``Array`` in it is not taken for the library.
    """
    found: list[type[Any]] = []
    for name in names:
        one: Any = sys.modules.get(module)
        for part in name.split("."):
            one = getattr(one, part, None)
        if not isinstance(one, type):
            return []
        found.append(one)
    return found
