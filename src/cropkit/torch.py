"""crop_and_resize for PyTorch: differentiable, and an operator that torch.compile knows.

>>> import torch
>>> from cropkit.torch import crop_and_resize
>>> image = torch.arange(11.0).reshape(1, 1, 11, 1)
>>> boxes = torch.tensor([[0.0, 0.1, 0.0, 0.4]], requires_grad=True)
>>> crops = crop_and_resize(image, boxes, None, (1, 1))
>>> crops.sum().backward()
>>> boxes.grad
tensor([[0., 5., 0., 5.]])

The forward operator and both gradients are custom operators of ``torch.library``, whose
kernels are the three functions of `cropkit`: bits and errors are those of the functions. Unless
``num_threads`` is given, a call uses no more threads than ``torch.get_num_threads()``. Where only
autograd has to see a call, its kernel is called without PyTorch's dispatcher, which would take
longer than a small crop.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, SupportsFloat, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    import torch
    from torch._functorch.utils import enable_single_level_autograd_function
    from torch.autograd import forward_ad
    from torch.autograd.function import _SingleLevelFunction
    from torch.overrides import handle_torch_function, has_torch_function
except ImportError as _error:
    raise ImportError("cropkit.torch needs PyTorch: pip install torch") from _error

import cropkit
from cropkit._arguments import (
    check_box_indices,
    check_boxes,
    check_crop_size,
    check_extrapolation_value,
    check_image,
    check_num_threads,
)
from cropkit._arrays import grad_image_dtype, numpy_dtype
from cropkit._sampling import Method
from cropkit._threads import within

__all__ = ["crop_and_resize"]


def crop_and_resize(
    image: torch.Tensor | ArrayLike,
    boxes: torch.Tensor | ArrayLike,
    box_indices: torch.Tensor | ArrayLike | None,
    crop_size: Sequence[SupportsIndex] | NDArray[np.integer[Any]],
    method: Method = "bilinear",
    extrapolation_value: SupportsFloat = 0.0,
    *,
    dtype: torch.dtype | None = None,
    num_threads: SupportsIndex | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Cut boxes out of images and resize each to the same size; differentiable.

    Parameters
    ----------
    image : torch.Tensor, shape (batch, height, width, depth)
        Images of any dtype that `cropkit.crop_and_resize` takes, and any strides:
        channels-first images enter as ``image.permute(0, 2, 3, 1)``, which copies nothing.
        `image`, `boxes` and `box_indices` may also be lists or arrays.
    boxes : torch.Tensor, shape (num_boxes, 4)
        ``[y1, x1, y2, x2]``, normalized.
    box_indices : torch.Tensor of int, shape (num_boxes,), or None
        The image of each box, as in `cropkit.crop_and_resize`.
    crop_size : (int, int)
        ``(crop_height, crop_width)`` in pixels, both at least 1.
    method : {"bilinear", "nearest"}, default "bilinear"
        Interpolation between pixels. Both methods have the box gradient of bilinear.
    extrapolation_value : float, default 0.0
        The value of crop pixels that lie outside the image.
    dtype : torch.dtype, optional
        The dtype of the result and of all arithmetic, ``torch.float32`` or ``torch.float64``.
        The default is float64 if the image or the boxes are a float64 tensor, else float32;
        the dtype of a list or a NumPy array does not count.
    num_threads, backend
        The arguments of `cropkit.crop_and_resize`; they hold for the gradients too. By default
        there are no more threads than ``torch.get_num_threads()``. `backend` must be a name.

    Returns
    -------
    torch.Tensor, shape (num_boxes, crop_height, crop_width, depth)
        The crops, on the image's device.

    Notes
    -----
    The gradient of the image has the image's dtype. A float16 or bfloat16 gradient is summed
    in float32 and rounded once, so autocast needs no casts around this function. Forward-mode
    derivatives and second derivatives are refused.

    Examples
    --------
    >>> import torch
    >>> from cropkit.torch import crop_and_resize
    >>> image = torch.zeros(2, 3, 480, 640)
    >>> boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]])
    >>> crops = crop_and_resize(image.permute(0, 2, 3, 1), boxes, [0, 1], (224, 224))
    >>> crops.permute(0, 3, 1, 2).shape
    torch.Size([2, 3, 224, 224])
    """
    given: tuple[Any, Any, Any] = (image, boxes, box_indices)
    if has_torch_function(given):
        # Tracers such as torch.fx, and subclasses of tensors, see one call.
        return handle_torch_function(
            crop_and_resize, given, image, boxes, box_indices, crop_size, method,
            extrapolation_value, dtype=dtype, num_threads=num_threads, backend=backend,
        )  # fmt: skip
    if dtype is None:
        double = any(isinstance(x, torch.Tensor) and x.dtype == torch.float64 for x in given)
        dtype = torch.float64 if double else torch.float32
    elif dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype={dtype!r}: expected torch.float32 or torch.float64")
    at_hand = given[:2] if box_indices is None else given
    unwatched = not torch.compiler.is_compiling() and _is_unwatched(at_hand)
    learns = unwatched and torch.is_grad_enabled() and any(x.requires_grad for x in given[:2])
    if unwatched and not learns:
        return _KERNELS[_crop_and_resize](
            image, boxes, box_indices, crop_size, method, extrapolation_value, dtype, num_threads,
            backend,
        )  # fmt: skip
    # Checked here, since the operators' schemas would refuse these with other messages.
    size = check_crop_size(crop_size)
    value = check_extrapolation_value(extrapolation_value)
    threads = check_num_threads(num_threads)
    if not isinstance(image, torch.Tensor):
        image = _tensor(image, check_image)
    if not isinstance(boxes, torch.Tensor):
        real = numpy_dtype(dtype)
        boxes = _tensor(boxes, lambda given: check_boxes(given, real))
    if not isinstance(box_indices, torch.Tensor | None):
        count, batch = boxes.shape[0], image.shape[0]
        box_indices = _tensor(box_indices, lambda given: check_box_indices(given, count, batch))
    inputs = image, boxes, box_indices, size, method, value, dtype, threads, backend
    return _apply(_Crop, *inputs) if learns else _crop_and_resize(*inputs)


def _tensor(given: Any, check: Callable[[Any], Any]) -> torch.Tensor:
    """Check `given`, which is no tensor, and return it as one, sharing memory if possible."""
    if torch.compiler.is_compiling():  # arrays are tensors there, and no check can be traced
        return torch.as_tensor(given)
    array = check(given)
    if not isinstance(array, np.ndarray):  # on another device
        return torch.as_tensor(array.array)
    bfloat16 = array.dtype.name == "bfloat16"
    array = array.view(np.int16) if bfloat16 else array
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if min(array.strides, default=0) < 0 or any(n % array.itemsize for n in array.strides):
        array = array.copy()  # strides that no tensor has
    if not array.flags.writeable:
        array = np.asarray(_Unlocked(array))
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if bfloat16 else tensor


class _Unlocked:
    """The memory of a read-only array as if writable; PyTorch warns of read-only memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # keeps the memory alive
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


# ---- the operators --------------------------------------------------------------------

# Not by torch.library.custom_op: its kernel for autograd, which cannot be replaced without a
# warning, drops the tangents of forward mode without a word, and refuses torch.func.grad.
_LIBRARY: Final = torch.library.Library("cropkit", "FRAGMENT")
_REALS: Final[dict[Any, np.dtype[Any]]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
_CPUS: Final = os.cpu_count() or 1
_KERNELS: Final[dict[Any, Callable[..., torch.Tensor]]] = {}


def _operator(name: str) -> Callable[[Callable[..., torch.Tensor]], Any]:
    """Return a decorator that registers a kernel as the operator `name`, for every device."""

    def make(kernel: Callable[..., torch.Tensor]) -> Any:
        schema = torch.library.infer_schema(kernel, mutates_args=())
        _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
        operator = getattr(torch.ops.cropkit, name).default
        _KERNELS[operator] = kernel
        _LIBRARY.impl(name, lambda *inputs: _differentiable(operator, *inputs), "Autograd")
        return operator

    return make


@_operator("crop_and_resize")
def _crop_and_resize(
    image: torch.Tensor,
    boxes: torch.Tensor,
    box_indices: torch.Tensor | None,
    crop_size: Sequence[int],
    method: str,
    extrapolation_value: float,
    dtype: torch.dtype,
    num_threads: int | None,
    backend: str | None,
) -> torch.Tensor:
    def values() -> int:
        size = math.prod(check_crop_size(crop_size))
        return size * boxes.shape[:1].numel() * image.shape[3:].numel()

    crops: torch.Tensor = cropkit.crop_and_resize(
        _values(image), _values(boxes), box_indices,
        tuple(crop_size) if type(crop_size) is list else crop_size,  # a list from the dispatcher
        cast(Method, method), extrapolation_value, dtype=_REALS[dtype],
        num_threads=_at_most(num_threads, values), backend=backend,
    )  # fmt: skip
    return crops


@_operator("crop_and_resize_grad_image")
def _grad_image(
    grads: torch.Tensor,
    boxes: torch.Tensor,
    box_indices: torch.Tensor | None,
    image_size: Sequence[int],
    method: str,
    dtype: torch.dtype,
    num_threads: int | None,
    backend: str | None,
) -> torch.Tensor:
    threads = _at_most(num_threads, lambda: max(grads.numel(), math.prod(image_size)))
    grad: torch.Tensor = cropkit.crop_and_resize_grad_image(
        _values(grads), _values(boxes), box_indices, image_size, cast(Method, method),
        dtype=dtype, num_threads=threads, backend=backend,
    )  # fmt: skip
    return grad


@_operator("crop_and_resize_grad_boxes")
def _grad_boxes(
    grads: torch.Tensor,
    image: torch.Tensor,
    boxes: torch.Tensor,
    box_indices: torch.Tensor | None,
    method: str,
    dtype: torch.dtype,
    num_threads: int | None,
    backend: str | None,
) -> torch.Tensor:
    grad: torch.Tensor = cropkit.crop_and_resize_grad_boxes(
        _values(grads), _values(image), _values(boxes), box_indices, method=cast(Method, method),
        dtype=_REALS[dtype], num_threads=_at_most(num_threads, grads.numel), backend=backend,
    )  # fmt: skip
    return grad


def _values(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor: the plain functions refuse one that requires grad."""
    return tensor.detach() if tensor.requires_grad else tensor


def _at_most(num_threads: int | None, values: Callable[[], int]) -> int | None:
    """Let a call of so many `values` use no more threads than PyTorch allows itself."""
    limit = torch.get_num_threads()
    if num_threads is not None or limit >= _CPUS:
        return num_threads
    return within(limit, num_threads, values())


# ---- what the compiler sees: shapes and dtypes ------------------------------------------


@torch.library.register_fake("cropkit::crop_and_resize", lib=_LIBRARY)
def _(image, boxes, box_indices, crop_size, method, extrapolation_value, dtype, *_):  # type: ignore[no-untyped-def]
    torch._check(image.dim() == 4, lambda: f"image has {image.dim()} axes: expected 4")
    _check_meta(image, boxes)
    return image.new_empty((boxes.shape[0], *crop_size, image.shape[3]), dtype=dtype)


@torch.library.register_fake("cropkit::crop_and_resize_grad_image", lib=_LIBRARY)
def _(grads, boxes, box_indices, image_size, method, dtype, *_):  # type: ignore[no-untyped-def]
    _check_meta(grads, boxes)
    return grads.new_empty(image_size, dtype=dtype)


@torch.library.register_fake("cropkit::crop_and_resize_grad_boxes", lib=_LIBRARY)
def _(grads, image, boxes, box_indices, method, dtype, *_):  # type: ignore[no-untyped-def]
    _check_meta(image, boxes)
    return image.new_empty((boxes.shape[0], 4), dtype=dtype)


def _check_meta(image: Any, boxes: Any) -> None:
    """Refuse boxes without values where the result would be taken for values."""
    torch._check(
        boxes.device.type != "meta" or image.device.type == "meta",
        lambda: f"boxes is a meta tensor, and the other arrays are on {image.device}",
    )


# ---- the gradients --------------------------------------------------------------------


class _Crop(_SingleLevelFunction):
    """The forward operator with its two gradients."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        image, boxes, box_indices, _, ctx.method, _, ctx.dtype, *ctx.how = inputs
        ctx.image_size, ctx.image_dtype, ctx.boxes_dtype = image.shape, image.dtype, boxes.dtype
        # Only the gradient of the boxes needs the image.
        ctx.save_for_backward(image if ctx.needs_input_grad[1] else None, boxes, box_indices)
        return _of_function(_crop_and_resize, inputs)

    @staticmethod
    def backward(ctx: Any, *given: Any) -> tuple[torch.Tensor | None, ...]:
        (grads,) = given
        image, boxes, box_indices = ctx.saved_tensors
        of_image = of_boxes = None
        if ctx.needs_input_grad[0]:
            of_image = _call(
                _grad_image, grads, boxes, box_indices, ctx.image_size, ctx.method,
                grad_image_dtype(ctx.image_dtype, ctx.dtype), *ctx.how,
            ).to(ctx.image_dtype)  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_boxes = _call(
                _grad_boxes, grads, image, boxes, box_indices, ctx.method, ctx.dtype, *ctx.how
            ).to(ctx.boxes_dtype)  # fmt: skip
        return of_image, of_boxes, *[None] * 7


class _Gradient(_SingleLevelFunction):
    """A gradient operator, whose result cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, operator: Any, *inputs: Any) -> Any:
        return _of_function(operator, inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            "second derivatives of crop_and_resize are not offered: its gradients cannot be "
            "differentiated again; detach() makes constants of them"
        )


def _of_function(operator: Any, inputs: tuple[Any, ...]) -> Any:
    if _is_unwatched(x for x in inputs if isinstance(x, torch.Tensor)):
        return _KERNELS[operator](*inputs)
    # An autograd function's forward switches gradients off in both modes, also for the outer
    # levels of torch.func, whose derivatives would silently be 0.
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        return _below_autograd(operator, inputs)


def _is_unwatched(arguments: Iterable[Any]) -> bool:
    """Whether all are tensors and only autograd has to see a call: no tracer, transform or mode.

    The functions asked are private in PyTorch; if one of them is missing, the answer is no.
    """
    try:
        return (
            torch._C._len_torch_dispatch_stack() == 0
            and torch._ops._len_torch_dispatch_stack_pre_dispatch() == 0
            and not torch.jit.is_tracing()
            and not torch.autograd.profiler._is_profiler_enabled
            and torch._C._functorch.peek_interpreter_stack() is None
            and forward_ad._current_level < 0
            and all(_keys(x) in _plain_keys() for x in arguments)
        )
    except (AttributeError, TypeError):
        return False


def _keys(tensor: torch.Tensor) -> int:
    """Return the dispatch keys of a tensor, which choose the dispatcher's kernels."""
    keys: int = torch._C._dispatch_keys(tensor).raw_repr()
    return keys


@cache
def _plain_keys() -> frozenset[int]:
    """Return the keys of the CPU's tensors, also of those made in inference mode.

    Asked for where no mode is active, which would make other tensors.
    """
    with torch.inference_mode():
        inference = _keys(torch.empty(0, device="cpu"))
    with torch.inference_mode(False):
        return frozenset({inference, _keys(torch.empty(0, device="cpu"))})


def _below_autograd(operator: Any, inputs: tuple[Any, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*inputs)


def _differentiable(operator: Any, *inputs: Any) -> Any:
    """Call an operator as autograd sees it: the kernel of the dispatch key ``Autograd``.

    Under torch.func, PyTorch calls this once for each level of differentiation.
    """
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    unpack: Any = forward_ad.unpack_dual
    if any(unpack(x).tangent is not None for x in tensors):
        raise NotImplementedError(
            "forward-mode derivatives of crop_and_resize are not offered: use reverse mode, "
            "such as backward(), torch.autograd.grad, torch.func.vjp or torch.func.jacrev"
        )
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        return _below_autograd(operator, inputs)
    if operator is _crop_and_resize:
        return _apply(_Crop, *inputs)
    return _apply(_Gradient, operator, *inputs)


def _call(operator: Any, *inputs: Any) -> Any:
    """Call a gradient's operator, by the short way if there is one.

    Under a transform PyTorch has to see the call at each level of differentiation.
    """
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    if not _is_unwatched(tensors):
        return operator(*inputs)
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return _apply(_Gradient, operator, *inputs)
    return _KERNELS[operator](*inputs)


def _apply(function: Any, *inputs: Any) -> Any:
    with enable_single_level_autograd_function():
        return function.apply(*inputs)
