"""crop_and_resize for JAX: works under jit, grad and vmap.

>>> import jax, jax.numpy as jnp
>>> from cropkit.jax import crop_and_resize
>>> image = jnp.arange(11.0).reshape(1, 1, 11, 1)
>>> def middle(boxes):
...     return crop_and_resize(image, boxes, None, (1, 1)).sum()
>>> jax.jit(jax.grad(middle))(jnp.array([[0.0, 0.1, 0.0, 0.4]]))
Array([[0., 5., 0., 5.]], dtype=float32)

What JAX traces becomes a callback to one of the three functions of `cropkit`, and a
``custom_vjp`` says which gradients belong to which. A mapped axis becomes more images and more
boxes of one call: nothing is looped over, and an image that is not mapped is not repeated.

On the CPU the callback is a ``buffer_callback``, which reads and writes JAX's own memory;
elsewhere, and where JAX has none, a ``pure_callback``, which copies what goes in and what
comes out, and takes two to nine times as long (``docs/design/frameworks.md``).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

try:
    import jax
    from jax.custom_derivatives import SymbolicZero
except ImportError as error:
    raise ImportError("cropkit.jax needs JAX: pip install jax") from error

try:
    from jax.experimental.buffer_callback import buffer_callback
except ImportError:  # it is experimental, and may go or change its name
    buffer_callback = None

import cropkit
from cropkit._arguments import (
    Method,
    check_box_indices,
    check_crop_size,
    check_dtype,
    check_extrapolation_value,
    check_method,
    check_num_threads,
)
from cropkit._arrays import grad_image_dtype

__all__ = ["crop_and_resize"]


def crop_and_resize(
    image: jax.Array,
    boxes: jax.Array,
    box_indices: jax.Array | None,
    crop_size: Sequence[int],
    method: str = "bilinear",
    extrapolation_value: float = 0.0,
    *,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
    backend: str | None = None,
) -> jax.Array:
    """Cut boxes out of images and resize each to the same size; differentiable.

    Parameters
    ----------
    image : jax.Array, shape (batch, height, width, depth)
        Images of any dtype that `cropkit.crop_and_resize` takes.
    boxes : jax.Array, shape (num_boxes, 4)
        ``[y1, x1, y2, x2]``, normalized.
    box_indices : jax.Array of int, shape (num_boxes,), or None
        The image of each box, as in `cropkit.crop_and_resize`.
    crop_size : (int, int)
        ``(crop_height, crop_width)`` in pixels, both at least 1; not traced.
    method : {"bilinear", "nearest"}, default "bilinear"
        Interpolation between pixels. The gradient of the boxes is that of bilinear for both.
    extrapolation_value : float, default 0.0
        The value of crop pixels that lie outside the image; not traced.
    dtype : dtype_like, optional
        Of the result and of all arithmetic, float32 or float64. By default float64 if the
        image or the boxes are of it, else float32. float64 needs ``jax_enable_x64``.
    num_threads, backend
        As in `cropkit.crop_and_resize`, for the gradients too; `backend` is a name.

    Returns
    -------
    jax.Array, shape (num_boxes, crop_height, crop_width, depth)
        The crops.

    Notes
    -----
    Everything runs on the CPU: JAX copies the arrays of an accelerator there, and the
    result back. What is wrong with values, a box that is not finite or an index out of
    range, is known in the callback only, and JAX reports it as an error of its own with the
    message inside.

    The gradient of the image has the image's dtype; for float16 and bfloat16 it is summed in
    float32 and rounded once. The gradients cannot be differentiated again.

    Examples
    --------
    Each image of a stack with boxes of its own:

    >>> import jax, jax.numpy as jnp
    >>> from cropkit.jax import crop_and_resize
    >>> stack = jnp.zeros((5, 1, 48, 64, 3))
    >>> boxes = jnp.tile(jnp.array([0.1, 0.2, 0.5, 0.6]), (5, 7, 1))
    >>> jax.vmap(lambda image, b: crop_and_resize(image, b, None, (14, 14)))(stack, boxes).shape
    (5, 7, 14, 14, 3)
    """
    image, boxes = jax.numpy.asarray(image), jax.numpy.asarray(boxes)
    if image.ndim != 4:
        raise ValueError(
            f"image has shape {image.shape}: expected 4 axes, [batch, height, width, depth]"
        )
    if boxes.ndim != 2:
        raise ValueError(f"boxes has shape {boxes.shape}: expected [num_boxes, 4]")
    if box_indices is None:
        box_indices = check_box_indices(None, boxes.shape[0], image.shape[0])
    if dtype is None:
        double = np.float64 in (image.dtype, boxes.dtype)
        dtype = np.float64 if double else np.float32
    real = check_dtype(dtype)
    if real == np.float64 and not jax.config.jax_enable_x64:
        raise TypeError(
            'dtype=float64 needs 64 bits in JAX: jax.config.update("jax_enable_x64", True)'
        )
    options = _Options(
        image.shape, image.dtype, boxes.dtype, check_crop_size(crop_size), check_method(method),
        check_extrapolation_value(extrapolation_value), real,
        None if num_threads is None else check_num_threads(num_threads), backend,
    )  # fmt: skip
    crops: jax.Array = _crop_and_resize(options, image, boxes, jax.numpy.asarray(box_indices))
    return crops


class _Options(NamedTuple):
    """What is known when a call is traced; hashable, as JAX wants it."""

    image_shape: tuple[int, int, int, int]
    image_dtype: np.dtype[Any]
    boxes_dtype: np.dtype[Any]
    crop_size: tuple[int, int]
    method: Method
    extrapolation_value: float
    dtype: np.dtype[Any]
    num_threads: int | None
    backend: str | None

    @property
    def how(self) -> dict[str, Any]:
        """The keywords that choose what runs."""
        return {"num_threads": self.num_threads, "backend": self.backend}


# ---- what JAX differentiates ------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _crop_and_resize(options: _Options, image: Any, boxes: Any, box_indices: Any) -> Any:
    shape = (boxes.shape[0], *options.crop_size, options.image_shape[3])
    return _call_back(_crops, options, shape, options.dtype, image, boxes, box_indices)


def _forward(options: _Options, image: Any, boxes: Any, box_indices: Any) -> Any:
    crops = _crop_and_resize(options, image.value, boxes.value, box_indices.value)
    # Only what is asked for is computed later, and kept: the image for the boxes alone.
    return crops, (
        () if image.perturbed else None,
        image.value if boxes.perturbed else None,
        boxes.value,
        box_indices.value,
    )


def _backward(options: _Options, kept: Any, grads: Any) -> tuple[Any, Any, None]:
    wanted, image, boxes, box_indices = kept
    if isinstance(grads, SymbolicZero):
        return None, None, None
    of_image = of_boxes = None
    if wanted is not None:
        of_image = _call_back(
            _of_image, options, options.image_shape,
            grad_image_dtype(options.image_dtype, options.dtype), grads, boxes, box_indices,
        ).astype(options.image_dtype)  # fmt: skip
    if image is not None:
        of_boxes = _call_back(
            _of_boxes, options, boxes.shape, options.dtype, grads, image, boxes, box_indices
        ).astype(options.boxes_dtype)
    return of_image, of_boxes, None


_crop_and_resize.defvjp(_forward, _backward, symbolic_zeros=True)


# ---- what JAX calls back ----------------------------------------------------------------


def _call_back(compute: Any, options: _Options, shape: Any, dtype: Any, *arrays: Any) -> Any:
    """Let JAX call `compute` with the arrays: images and gradients, boxes, box_indices."""

    def fill(_: Any, out: Any, *arrays: Any) -> None:
        mapped = _Mapped(options, arrays)
        compute(mapped, mapped.flat(np.asarray(out), len(shape) - 1))

    def make(*arrays: Any) -> NDArray[Any]:
        mapped = _Mapped(options, arrays)
        out = np.empty((*mapped.axes, *shape), dtype)
        compute(mapped, mapped.flat(out, len(shape) - 1))
        return out

    result = jax.ShapeDtypeStruct(shape, dtype)
    if buffer_callback is not None and jax.default_backend() == "cpu":
        return buffer_callback(fill, result, vmap_method="expand_dims")(*arrays)
    return jax.pure_callback(make, result, *arrays, vmap_method="expand_dims")


class _Mapped:
    """The arrays of a call without the axes in front that come from vmap.

    Such an axis has length 1 in an array that is not mapped.

    Parameters
    ----------
    options : _Options
    arrays : sequence of array_like
        Images and gradients, with four axes of their own; boxes; box_indices.
    """

    def __init__(self, options: _Options, arrays: Sequence[Any]) -> None:
        *self.others, boxes, box_indices = map(np.asarray, arrays)
        self.options = options
        self.axes = np.broadcast_shapes(
            boxes.shape[:-2], box_indices.shape[:-1], *(a.shape[:-4] for a in self.others)
        )
        self.number = math.prod(self.axes)
        self.boxes = self.flat(boxes, 1)
        # Before they are moved to where the next element's images are.
        self.indices = check_box_indices(
            self.flat(box_indices, 0), len(self.boxes), options.image_shape[0]
        )

    def flat(self, array: NDArray[Any], inner: int) -> NDArray[Any]:
        """Join the mapped axes with the first of an array's own, which `inner` more follow."""
        own = array.shape[-inner - 1 :]
        if array.shape != self.axes + own:
            array = np.broadcast_to(array, self.axes + own)
        return array.reshape(self.number * own[0], *own[1:])

    def images(self, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Join all images into one batch, none twice; return the boxes' indices there, too."""
        axes, (batch, *own) = array.shape[:-4], array.shape[-4:]
        count = math.prod(axes)
        which = np.broadcast_to(np.arange(count).reshape(axes), self.axes)
        return array.reshape(count * batch, *own), self.moved(which * batch)

    def moved(self, offsets: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the indices with an offset for each element of the map."""
        each = math.prod(self.indices.shape) // max(self.number, 1)
        return self.indices + np.repeat(offsets.ravel(), each)


def _crops(mapped: _Mapped, out: NDArray[Any]) -> None:
    options = mapped.options
    images, indices = mapped.images(mapped.others[0])
    cropkit.crop_and_resize(
        images, mapped.boxes, indices, options.crop_size, options.method,
        options.extrapolation_value, dtype=out.dtype, out=out, **options.how,
    )  # fmt: skip


def _of_image(mapped: _Mapped, out: NDArray[Any]) -> None:
    options = mapped.options
    indices = mapped.moved(np.arange(mapped.number) * options.image_shape[0])
    cropkit.crop_and_resize_grad_image(
        mapped.flat(mapped.others[0], 3), mapped.boxes, indices, out.shape, options.method,
        dtype=out.dtype, out=out, **options.how,
    )  # fmt: skip


def _of_boxes(mapped: _Mapped, out: NDArray[Any]) -> None:
    grads, image = mapped.others
    images, indices = mapped.images(image)
    cropkit.crop_and_resize_grad_boxes(
        mapped.flat(grads, 3), images, mapped.boxes, indices, method=mapped.options.method,
        dtype=out.dtype, out=out, **mapped.options.how,
    )  # fmt: skip
