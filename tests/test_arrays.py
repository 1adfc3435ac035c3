"""Arrays of other libraries, in and out: stand-ins for a library and for a device.

The real libraries are in the tests named after them.
"""

import sys
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import BackendError

from .support.cases import pixels
from .support.device_arrays import (
    DeviceBackend,
    Nameless,
    OnDevice,
    OnSecondDevice,
    Pinned,
    Sealed,
    Standard,
)
from .support.recording import Recording

IMAGE: Final = pixels((2, 6, 5, 3), "float32")
BOXES: Final = np.array([[0, 0, 1, 1], [0.9, 0.1, 0.2, 0.8], [-0.2, 0, 0.5, 1.3]], np.float32)
INDICES: Final = np.array([1, 0, 1])
GRADS: Final = pixels((3, 4, 7, 3), "float32", 1)
# ---- in the CPU's memory ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Standard, Pinned])
def test_a_library_gets_its_own_arrays_back(kind: Any, bits_equal: Any) -> None:
    image, boxes, indices, grads = map(kind, (IMAGE, BOXES, INDICES, GRADS))
    crops = cropkit.crop_and_resize(image, boxes, indices, (4, 7))
    of_image = cropkit.crop_and_resize_grad_image(grads, boxes, indices, IMAGE.shape)
    of_boxes = cropkit.crop_and_resize_grad_boxes(grads, image, boxes, indices)
    assert type(crops) is type(of_image) is type(of_boxes) is Standard
    bits_equal(crops.memory, cropkit.crop_and_resize(IMAGE, BOXES, INDICES, (4, 7)))
    bits_equal(
        of_image.memory, cropkit.crop_and_resize_grad_image(GRADS, BOXES, INDICES, IMAGE.shape)
    )
    bits_equal(of_boxes.memory, cropkit.crop_and_resize_grad_boxes(GRADS, IMAGE, BOXES, INDICES))


def test_the_result_follows_the_image_and_for_grad_image_the_gradients() -> None:
    crops = cropkit.crop_and_resize(IMAGE, Standard(BOXES), Standard(INDICES), (4, 7))
    assert type(crops) is np.ndarray
    assert type(cropkit.crop_and_resize(Standard(IMAGE), BOXES.tolist(), [1, 0, 1], (4, 7))) is (
        Standard
    )
    of_image = cropkit.crop_and_resize_grad_image(GRADS, Standard(BOXES), INDICES, IMAGE.shape)
    assert type(of_image) is np.ndarray
    of_boxes = cropkit.crop_and_resize_grad_boxes(Standard(GRADS), IMAGE, BOXES, INDICES)
    assert type(of_boxes) is np.ndarray
    assert type(cropkit.crop_and_resize(Nameless(IMAGE), BOXES, INDICES, (4, 7))) is np.ndarray


def test_nothing_is_copied() -> None:
    backend = Recording()
    result = cropkit.crop_and_resize(
        Standard(IMAGE), Standard(BOXES), Standard(INDICES), (4, 7), backend=backend
    )
    assert backend.addresses == {
        "image": IMAGE.ctypes.data, "boxes": BOXES.ctypes.data,
        "box_indices": INDICES.ctypes.data, "out": result.memory.ctypes.data,
    }  # fmt: skip
    assert backend.addresses["out"] % 64 == 0  # which JAX asks for


def test_out_of_another_library() -> None:
    memory = np.zeros((3, 4, 7, 3), np.float32)
    out = Standard(memory)
    expected = cropkit.crop_and_resize(IMAGE, BOXES, INDICES, (4, 7))
    for image in (Standard(IMAGE), IMAGE):
        assert cropkit.crop_and_resize(image, BOXES, INDICES, (4, 7), out=out) is out
        np.testing.assert_array_equal(memory, expected)
        memory[...] = 0
    given = np.zeros_like(memory)
    result = cropkit.crop_and_resize(Standard(IMAGE), BOXES, INDICES, (4, 7), out=given)
    assert result is given
    np.testing.assert_array_equal(given, expected)


def test_bad_out_of_another_library() -> None:
    def fails(text: str, out: Any) -> None:
        with pytest.raises(ValueError, match=text):
            cropkit.crop_and_resize(Standard(IMAGE), BOXES, INDICES, (4, 7), out=out)

    memory = np.zeros((3, 4, 7, 3), np.float32)
    fails(r"out has shape \(3, 4, 6, 3\): expected \(3, 4, 7, 3\)", Standard(memory[:, :, :6]))
    fails("out has dtype float64: expected float32", Standard(memory.astype(float)))
    memory.flags.writeable = False
    fails("out is read-only", Standard(memory))
    fails("out is on CUDA: expected CPU, where the other arrays are", OnDevice(memory))
    shared = np.zeros((8, 6, 7, 3), np.float32)
    with pytest.raises(ValueError, match="out overlaps image: expected memory of its own"):
        cropkit.crop_and_resize(
            Standard(shared[:2]), BOXES, INDICES, (6, 7), out=Standard(shared[1:4])
        )


def test_out_of_a_library_whose_arrays_never_change(monkeypatch: pytest.MonkeyPatch) -> None:
    class Array(OnDevice):
        def is_deleted(self) -> bool:
            return False

    jax = SimpleNamespace(core=SimpleNamespace(Tracer=type("Tracer", (), {})), Array=Array)
    monkeypatch.setitem(sys.modules, "jax", jax)
    out = Array(np.zeros((3, 4, 7, 3), np.float32))
    with pytest.raises(ValueError, match="out is read-only"):
        cropkit.crop_and_resize(Array(IMAGE), BOXES, INDICES, (4, 7), out=out)


@pytest.mark.parametrize("module", ["torch", "jax", "jaxlib._jax", "tensorflow", "pyopencl.array"])
@pytest.mark.parametrize("installed", [True, False])
def test_a_class_is_not_known_by_the_name_of_its_module(
    module: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there is a module of that name or not: a file ``jax.py`` of the user's own."""

    class Array:
        def __init__(self, memory: NDArray[Any]) -> None:
            self.memory = memory

        def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
            return self.memory

    class Shared(Standard):
        pass

    if installed:
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(Tensor=Array))  # type: ignore[arg-type]
        if module == "jax":
            sys.modules[module].Array = Array  # type: ignore[attr-defined]
    expected = cropkit.crop_and_resize(IMAGE, BOXES, INDICES, (4, 7))
    for kind in (Array, Shared):
        kind.__module__ = module
        image, boxes, indices, grads = map(kind, (IMAGE, BOXES, INDICES, GRADS))
        crops = cropkit.crop_and_resize(image, boxes, indices, (4, 7))
        cropkit.crop_and_resize_grad_image(grads, boxes, indices, IMAGE.shape)
        cropkit.crop_and_resize_grad_boxes(grads, image, boxes, indices)
        assert type(crops) is (np.ndarray if kind is Array else Standard)
        np.testing.assert_array_equal(getattr(crops, "memory", crops), expected)


class Unreadable(Standard):
    """An array whose library refuses to hand it out."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("a lazy array")


def test_arrays_that_their_library_does_not_hand_out() -> None:
    for name in ("image", "boxes", "box_indices"):
        arguments: dict[str, Any] = {"image": IMAGE, "boxes": BOXES, "box_indices": INDICES}
        arguments[name] = Unreadable(arguments[name])
        with pytest.raises(TypeError, match=f"^{name}: expected an array: a lazy array$"):
            cropkit.crop_and_resize(**arguments, crop_size=(4, 7))


def test_errors_name_the_argument_as_for_numpy() -> None:
    with pytest.raises(ValueError, match=r"image has shape \(6, 5, 3\): expected 4 axes"):
        cropkit.crop_and_resize(Standard(IMAGE[0]), BOXES, INDICES, (4, 7))
    boxes = np.array([[0, 0, 1, 1], [0, np.nan, 1, 1], [0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"boxes\[1\] = \[0.0, nan, 1.0, 1.0\]: .* be finite"):
        cropkit.crop_and_resize(Standard(IMAGE), Standard(boxes), INDICES, (4, 7))
    with pytest.raises(IndexError, match=r"box_indices\[2\] = 2: expected .* 2 images"):
        cropkit.crop_and_resize(Standard(IMAGE), BOXES, Standard(np.array([1, 0, 2])), (4, 7))
    with pytest.raises(TypeError, match="image has dtype complex128: expected one of bool, "):
        cropkit.crop_and_resize(Standard(IMAGE.astype(complex)), BOXES, INDICES, (4, 7))


# ---- on another device -----------------------------------------------------------------------


def test_a_device_array_reaches_its_backend_unconverted(bits_equal: Any) -> None:
    backend = DeviceBackend()
    image = OnDevice(IMAGE)
    crops = cropkit.crop_and_resize(image, BOXES, INDICES, (4, 7), backend=backend)
    assert backend.seen[0] == ("empty", image)
    _, given, boxes, indices, out = backend.seen[1]
    assert given is image
    assert crops is out
    # Boxes and indices have been looked at, so they are where that was possible.
    assert (type(boxes), type(indices)) == (np.ndarray, np.ndarray)
    assert (boxes.dtype, indices.dtype) == (np.float32, np.intp)
    bits_equal(crops.memory, cropkit.crop_and_resize(IMAGE, BOXES, INDICES, (4, 7)))


def test_gradients_of_device_arrays(bits_equal: Any) -> None:
    backend = DeviceBackend()
    grads, image = OnDevice(GRADS), OnDevice(IMAGE)
    of_image = cropkit.crop_and_resize_grad_image(
        grads, BOXES, INDICES, IMAGE.shape, dtype="float16", backend=backend
    )
    assert backend.seen[0] == ("empty", grads)
    bits_equal(
        of_image.memory,
        cropkit.crop_and_resize_grad_image(GRADS, BOXES, INDICES, IMAGE.shape, dtype="float16"),
    )
    backend.seen.clear()
    of_boxes = cropkit.crop_and_resize_grad_boxes(grads, image, BOXES, INDICES, backend=backend)
    assert backend.seen[0] == ("empty", image)
    assert backend.seen[1][1:3] == (grads, image)
    bits_equal(of_boxes.memory, cropkit.crop_and_resize_grad_boxes(GRADS, IMAGE, BOXES, INDICES))


def test_no_library_is_asked_for_what_it_cannot_count() -> None:
    """CuPy's product of such a shape overflows to 0; another's could to a little."""
    backend = DeviceBackend()
    image, grads = OnDevice(IMAGE), OnDevice(GRADS)
    message = r"the result, \(.*\) float32, is larger than the address space"
    with pytest.raises(MemoryError, match=message):
        cropkit.crop_and_resize(image, BOXES, INDICES, (2**40, 2**40), backend=backend)
    with pytest.raises(MemoryError, match=message):
        cropkit.crop_and_resize_grad_image(
            grads, BOXES, INDICES, (len(IMAGE), 2**40, 2**40, 3), backend=backend
        )
    assert backend.seen == []


def test_boxes_and_indices_may_be_on_the_device(bits_equal: Any) -> None:
    backend = DeviceBackend()
    crops = cropkit.crop_and_resize(
        OnDevice(IMAGE), OnDevice(BOXES), OnDevice(INDICES), (4, 7), backend=backend
    )
    bits_equal(crops.memory, cropkit.crop_and_resize(IMAGE, BOXES, INDICES, (4, 7)))
    # With an image on the CPU, too: it decides.
    crops = cropkit.crop_and_resize(IMAGE, OnDevice(BOXES), OnDevice(INDICES), (4, 7))
    bits_equal(crops, cropkit.crop_and_resize(IMAGE, BOXES, INDICES, (4, 7)))


def test_out_on_the_device() -> None:
    backend = DeviceBackend()
    out = OnDevice(np.zeros((3, 4, 7, 3), np.float32))
    result = cropkit.crop_and_resize(
        OnDevice(IMAGE), BOXES, INDICES, (4, 7), out=out, backend=backend
    )
    assert result is out
    assert [row[0] for row in backend.seen] == ["crop_and_resize"]
    for text, bad in (
        (r"out has shape \(3, 4, 7\): expected \(3, 4, 7, 3\)", OnDevice(out.memory[..., 0])),
        ("out has dtype float64: expected float32", OnDevice(out.memory.astype(float))),
        ("out is on CUDA 1: expected CUDA, where", OnSecondDevice(out.memory)),
        ("out is on CPU: expected CUDA, where the other arrays are", out.memory),
    ):
        with pytest.raises(ValueError, match=text):
            cropkit.crop_and_resize(
                OnDevice(IMAGE), BOXES, INDICES, (4, 7), out=bad, backend=backend
            )


def test_empty_results_on_the_device_need_no_backend_but_its_memory() -> None:
    backend = DeviceBackend()
    none = np.zeros((0, 4))
    crops = cropkit.crop_and_resize(OnDevice(IMAGE), none, [], (4, 7), backend=backend)
    assert crops.shape == (0, 4, 7, 3)
    of_image = cropkit.crop_and_resize_grad_image(
        OnDevice(GRADS[:0]), none, [], IMAGE.shape, backend=backend
    )
    assert of_image.shape == IMAGE.shape
    assert not of_image.memory.any()
    assert [row[0] for row in backend.seen] == ["empty", "empty"]


class Constant(OnDevice):
    """An array that only a backend for its device writes, as JAX's are."""

    def __setitem__(self, where: Any, value: Any) -> None:
        raise TypeError("these arrays are constant")

    def __array_namespace__(self) -> Any:
        return ConstantNamespace


class ConstantNamespace:
    """The library's namespace."""

    @staticmethod
    def zeros_like(array: Constant, *, device: Any) -> Constant:
        assert device == array.device
        return Constant(np.zeros_like(array.memory))


class ConstantBackend(DeviceBackend):
    """Allocates such arrays, full of garbage."""

    def empty(self, shape: Any, dtype: Any, like: Any) -> Constant:
        return Constant(np.full(shape, 77, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_empty_results_of_a_library_whose_arrays_never_change(dtype: str, bits_equal: Any) -> None:
    backend = ConstantBackend()
    image, grads, none = Constant(IMAGE), Constant(GRADS[:0]), np.zeros((0, 4))
    crops = cropkit.crop_and_resize(image, none, [], (4, 7), backend=backend)
    assert (type(crops), crops.shape) == (Constant, (0, 4, 7, 3))
    of_image = cropkit.crop_and_resize_grad_image(
        grads, none, [], IMAGE.shape, dtype=dtype, backend=backend
    )
    assert type(of_image) is Constant
    bits_equal(of_image.memory, np.zeros(IMAGE.shape, dtype))
    of_boxes = cropkit.crop_and_resize_grad_boxes(
        Constant(GRADS[..., :0]), Constant(IMAGE[..., :0]), BOXES, INDICES, backend=backend
    )
    assert type(of_boxes) is Constant
    bits_equal(of_boxes.memory, np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="out is read-only"):
        cropkit.crop_and_resize_grad_image(
            grads, none, [], IMAGE.shape, out=Constant(IMAGE), backend=backend
        )


def test_checks_of_device_arrays_before_any_work() -> None:
    backend = DeviceBackend()

    def fails(error: type[Exception], text: str, **changed: Any) -> None:
        arguments: dict[str, Any] = {
            "image": OnDevice(IMAGE), "boxes": BOXES, "box_indices": INDICES, "crop_size": (4, 7),
        }  # fmt: skip
        with pytest.raises(error, match=text):
            cropkit.crop_and_resize(**(arguments | changed), backend=backend)

    fails(ValueError, r"image has shape \(6, 5, 3\): expected 4 axes", image=OnDevice(IMAGE[0]))
    fails(TypeError, "image has dtype complex128", image=OnDevice(IMAGE.astype(complex)))
    fails(ValueError, r"boxes\[1\] = \[inf, ", boxes=OnDevice(BOXES * [[1], [np.inf], [1]]))
    fails(IndexError, r"box_indices\[0\] = 3", box_indices=OnDevice(INDICES + 2))
    text = "boxes cannot be copied to the CPU's memory: no way out"
    fails(TypeError, text, boxes=Sealed(BOXES))
    with pytest.raises(ValueError, match="grads is on CPU: expected CUDA, where the other arrays"):
        cropkit.crop_and_resize_grad_boxes(GRADS, OnDevice(IMAGE), BOXES, INDICES, backend=backend)
    with pytest.raises(ValueError, match="grads is on CUDA: expected CPU, where the other arrays"):
        cropkit.crop_and_resize_grad_boxes(OnDevice(GRADS), IMAGE, BOXES, INDICES)
    assert backend.seen == []


def test_arrays_are_never_moved_to_where_a_backend_is() -> None:
    for name in ("cpu", "reference"):
        text = f"backend '{name}' .* cannot run this call: it does not run on CUDA arrays"
        with pytest.raises(BackendError, match=text):
            cropkit.crop_and_resize(OnDevice(IMAGE), BOXES, INDICES, (4, 7), backend=name)
    with pytest.raises(BackendError, match="no backend runs on CUDA arrays:\n  'cpu'"):
        cropkit.crop_and_resize(OnDevice(IMAGE), BOXES, INDICES, (4, 7))
    with pytest.raises(BackendError, match="it does not run on CPU arrays"):
        cropkit.crop_and_resize(IMAGE, BOXES, INDICES, (4, 7), backend=DeviceBackend())


class WithoutEmpty(DeviceBackend):
    """A backend that allocates nothing."""

    empty = property()  # type: ignore[assignment]  # reading it is an AttributeError


def test_a_backend_that_allocates_nothing_needs_out() -> None:
    backend = WithoutEmpty()
    image, out = OnDevice(IMAGE), OnDevice(np.zeros((3, 4, 7, 3), np.float32))
    text = "backend 'device' allocates no results on CUDA, since it has no method empty: pass out="
    with pytest.raises(BackendError, match=text):
        cropkit.crop_and_resize(image, BOXES, INDICES, (4, 7), backend=backend)
    assert cropkit.crop_and_resize(
        image, BOXES, INDICES, (4, 7), out=out, backend=backend
    ) is out  # fmt: skip


class WrongEmpty(DeviceBackend):
    """A backend whose optional method has another signature."""

    def empty(self, shape: Any) -> Any:  # type: ignore[override]
        raise AssertionError


class WrongSynchronize(DeviceBackend):
    """Likewise."""

    def synchronize(self, stream: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (WrongEmpty, r"has a method empty\(shape: Any\) -> Any: expected 3 parameters"),
        (WrongSynchronize, r"has a method synchronize\(stream: .*: expected 0 parameters"),
    ],
)
def test_optional_methods_are_checked_too(kind: Any, text: str) -> None:
    with pytest.raises(BackendError, match=text):
        cropkit.crop_and_resize(OnDevice(IMAGE), BOXES, INDICES, (4, 7), backend=kind())
