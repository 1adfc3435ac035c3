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
kernels are the three functions of `cropkit`; so all that is said there about bits, threads
and bad input holds here.
"""

from collections.abc import Sequence
from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError("cropkit.torch needs PyTorch: pip install torch") from error

import cropkit
from cropkit._arguments import check_crop_size, check_extrapolation_value, check_num_threads
from cropkit._arrays import grad_image_dtype

__all__ = ["crop_and_resize"]


def crop_and_resize(
    image: torch.Tensor,
    boxes: torch.Tensor,
    box_indices: torch.Tensor | None,
    crop_size: Sequence[int],
    method: str = "bilinear",
    extrapolation_value: float = 0.0,
    *,
    dtype: torch.dtype | None = None,
    num_threads: int | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Cut boxes out of images and resize each to the same size; differentiable.

    Parameters
    ----------
    image : torch.Tensor, shape (batch, height, width, depth)
        Images of any dtype that `cropkit.crop_and_resize` takes, and any strides:
        channels-first images enter as ``image.permute(0, 2, 3, 1)``, which copies nothing.
    boxes : torch.Tensor, shape (num_boxes, 4)
        ``[y1, x1, y2, x2]``, normalized. A list or an array will do.
    box_indices : torch.Tensor of int, shape (num_boxes,), or None
        The image of each box, as in `cropkit.crop_and_resize`. A list or an array will do.
    crop_size : (int, int)
        ``(crop_height, crop_width)`` in pixels, both at least 1.
    method : {"bilinear", "nearest"}, default "bilinear"
        Interpolation between pixels. The gradient of the boxes is that of bilinear for both.
    extrapolation_value : float, default 0.0
        The value of crop pixels that lie outside the image.
    dtype : torch.dtype, optional
        Of the result and of all arithmetic, ``torch.float32`` or ``torch.float64``. By
        default float64 if the image or the boxes are of it, else float32.
    num_threads, backend
        As in `cropkit.crop_and_resize`, for the gradients too; `backend` is a name.

    Returns
    -------
    torch.Tensor, shape (num_boxes, crop_height, crop_width, depth)
        The crops, on the image's device.

    Notes
    -----
    The gradient of the image has the image's dtype. For float16 and bfloat16 it is summed in
    float32 and rounded once, so autocast needs no casts around this function. The gradients
    cannot be differentiated again.

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
    image = torch.as_tensor(image)
    boxes = torch.as_tensor(boxes)
    if box_indices is not None:
        box_indices = _indices(box_indices)
    if dtype is None:
        double = torch.float64 in (image.dtype, boxes.dtype)
        dtype = torch.float64 if double else torch.float32
    elif dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype={dtype!r}: expected torch.float32 or torch.float64")
    # What the operators' schemas would refuse with sentences of their own.
    size = check_crop_size(crop_size)
    value = check_extrapolation_value(extrapolation_value)
    threads = None if num_threads is None else check_num_threads(num_threads)
    crops: torch.Tensor = _crop_and_resize(
        image, boxes, box_indices, size, method, value, dtype, threads, backend
    )
    return crops


def _indices(given: Any) -> torch.Tensor:
    indices = torch.as_tensor(given)
    # An empty list becomes a tensor of floats.
    return indices.long() if indices.numel() == 0 and isinstance(given, list | tuple) else indices


# ---- the operators --------------------------------------------------------------------


@torch.library.custom_op("cropkit::crop_and_resize", mutates_args=())
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
    crops: torch.Tensor = cropkit.crop_and_resize(
        image.detach(), boxes.detach(), box_indices, crop_size, method, extrapolation_value,
        dtype=dtype, num_threads=num_threads, backend=backend,
    )  # fmt: skip
    return crops


@torch.library.custom_op("cropkit::crop_and_resize_grad_image", mutates_args=())
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
    grad: torch.Tensor = cropkit.crop_and_resize_grad_image(
        grads.detach(), boxes.detach(), box_indices, image_size, method,
        dtype=dtype, num_threads=num_threads, backend=backend,
    )  # fmt: skip
    return grad


@torch.library.custom_op("cropkit::crop_and_resize_grad_boxes", mutates_args=())
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
        grads.detach(), image.detach(), boxes.detach(), box_indices, method=method,
        dtype=dtype, num_threads=num_threads, backend=backend,
    )  # fmt: skip
    return grad


# ---- what the compiler sees: shapes and dtypes ------------------------------------------


@_crop_and_resize.register_fake
def _(image, boxes, box_indices, crop_size, method, extrapolation_value, dtype, *_):  # type: ignore[no-untyped-def]
    torch._check(image.dim() == 4, lambda: f"image has {image.dim()} axes: expected 4")
    return image.new_empty((boxes.shape[0], *crop_size, image.shape[3]), dtype=dtype)


@_grad_image.register_fake
def _(grads, boxes, box_indices, image_size, method, dtype, *_):  # type: ignore[no-untyped-def]
    return grads.new_empty(image_size, dtype=dtype)


@_grad_boxes.register_fake
def _(grads, image, boxes, box_indices, method, dtype, *_):  # type: ignore[no-untyped-def]
    return image.new_empty((boxes.shape[0], 4), dtype=dtype)


# ---- the gradients --------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    image, boxes, box_indices, _, ctx.method, _, ctx.dtype, *ctx.how = inputs
    ctx.image_size, ctx.image_dtype, ctx.boxes_dtype = image.shape, image.dtype, boxes.dtype
    # The image itself is needed for the boxes only.
    ctx.save_for_backward(image if ctx.needs_input_grad[1] else None, boxes, box_indices)


def _backward(ctx: Any, grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    image, boxes, box_indices = ctx.saved_tensors
    of_image = of_boxes = None
    if ctx.needs_input_grad[0]:
        of_image = _grad_image(
            grads, boxes, box_indices, ctx.image_size, ctx.method,
            grad_image_dtype(ctx.image_dtype, ctx.dtype), *ctx.how,
        ).to(ctx.image_dtype)  # fmt: skip
    if ctx.needs_input_grad[1]:
        of_boxes = _grad_boxes(
            grads, image, boxes, box_indices, ctx.method, ctx.dtype, *ctx.how
        ).to(ctx.boxes_dtype)  # fmt: skip
    return of_image, of_boxes, *[None] * 7


_crop_and_resize.register_autograd(_backward, setup_context=_keep)
