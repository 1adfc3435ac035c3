"""crop_and_resize for JAX: works under jit, grad and vmap.

>>> import jax, jax.numpy as jnp
>>> from cropkit.jax import crop_and_resize
>>> image = jnp.arange(11.0).reshape(1, 1, 11, 1)
>>> def middle(boxes: jax.Array) -> jax.Array:
...     return crop_and_resize(image, boxes, None, (1, 1)).sum()
>>> jax.jit(jax.grad(middle))(jnp.array([[0.0, 0.1, 0.0, 0.4]]))
Array([[0., 5., 0., 5.]], dtype=float32)

A traced call becomes a callback to one of the three functions of `cropkit`, and a
``custom_vjp`` gives the operator its gradients; a call that nothing traces computes at once.
``vmap`` turns a mapped axis into more images and more boxes of one call, without a loop; an
image that is not mapped is not repeated.

On the CPU the callback is a ``buffer_callback``, which reads and writes JAX's own memory. On
other devices, and in releases of JAX without it, the callback is a ``pure_callback``, which
copies arguments and result and takes two to nine times as long
(``docs/design/frameworks.md``).
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

try:
    import jax
    from jax.custom_derivatives import SymbolicZero
except ImportError as _error:
    raise ImportError("cropkit.jax needs JAX: pip install jax") from _error

try:
    from jax.experimental.buffer_callback import buffer_callback
except ImportError:  # buffer_callback is experimental, and may go or change its name
    buffer_callback = None

try:
    from jax._src.core import trace_state_clean  # private
except ImportError:

    def trace_state_clean() -> bool:
        """Return False: a release of JAX without this function may always be tracing."""
        return False


import cropkit
from cropkit._arguments import (
    check_box_indices,
    check_boxes,
    check_crop_size,
    check_dtype,
    check_image,
)
from cropkit._arrays import aligned_empty, as_host_array, grad_image_dtype, refuse_deleted
from cropkit._options import Options, check_options
from cropkit._results import check_memory
from cropkit._sampling import Method

__all__ = ["crop_and_resize"]


def crop_and_resize(
    image: jax.Array | ArrayLike,
    boxes: jax.Array | ArrayLike,
    box_indices: jax.Array | ArrayLike | None,
    crop_size: Sequence[SupportsIndex] | NDArray[np.integer[Any]],
    method: Method = "bilinear",
    extrapolation_value: SupportsFloat = 0.0,
    *,
    dtype: DTypeLike | None = None,
    num_threads: SupportsIndex | None = None,
    backend: str | None = None,
) -> jax.Array:
    """Cut boxes out of images and resize each to the same size; differentiable.

    Parameters
    ----------
    image : jax.Array, shape (batch, height, width, depth)
        Images of any dtype that `cropkit.crop_and_resize` takes. `image`, `boxes` and
        `box_indices` may also be lists or arrays.
    boxes : jax.Array, shape (num_boxes, 4)
        ``[y1, x1, y2, x2]``, normalized.
    box_indices : jax.Array of int, shape (num_boxes,), or None
        The image of each box, as in `cropkit.crop_and_resize`.
    crop_size : (int, int)
        ``(crop_height, crop_width)`` in pixels, both at least 1; not traced.
    method : {"bilinear", "nearest"}, default "bilinear"
        Interpolation between pixels. Both methods have the box gradient of bilinear.
    extrapolation_value : float, default 0.0
        The value of crop pixels that lie outside the image; not traced.
    dtype : dtype_like, optional
        The dtype of the result and of all arithmetic, float32 or float64. The default is
        float64 if the image or the boxes are float64, else float32. float64 needs
        ``jax_enable_x64``.
    num_threads, backend
        The arguments of `cropkit.crop_and_resize`; they hold for the gradients too. `backend`
        must be a name.

    Returns
    -------
    jax.Array, shape (num_boxes, crop_height, crop_width, depth)
        The crops.

    Notes
    -----
    The operator runs on the CPU: JAX copies arrays of an accelerator to the CPU, and the
    result back. In traced arrays, a box that is not finite or an index out of range is found
    in the callback, and JAX raises an error of its own with cropkit's message inside; in
    arrays that are not traced, cropkit raises its own error before.

    The gradient of the image has the image's dtype; a float16 or bfloat16 gradient is summed
    in float32 and rounded once. The gradients cannot be differentiated again.

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
    # All checks come before the conversion by JAX, which silently cuts 64 bits to 32.
    image, boxes = _taken(image, "image"), _taken(boxes, "boxes")
    box_indices = _taken(box_indices, "box_indices")
    if isinstance(image, jax.Array):
        check_image(_outline(image))
    else:
        checked = check_image(image)
        image = _fits_in_jax(checked) if isinstance(checked, np.ndarray) else image
    image = jax.numpy.asarray(image)
    if not isinstance(boxes, jax.Array):
        boxes = as_host_array(boxes, "boxes")
    if dtype is None:
        double = np.float64 in (image.dtype, boxes.dtype) and jax.config.jax_enable_x64
        dtype = np.float64 if double else np.float32
    real = check_dtype(dtype)
    if real == np.float64 and not jax.config.jax_enable_x64:
        raise TypeError(
            'dtype=float64 needs 64 bits in JAX: jax.config.update("jax_enable_x64", True)'
        )
    boxes = _checked(boxes, lambda values: check_boxes(values, real))
    # `_outline` has zeros for traced indices, which must be no error if there is no image.
    batch = max(image.shape[0], isinstance(box_indices, jax.core.Tracer))
    box_indices = _checked(
        box_indices, lambda values: check_box_indices(values, boxes.shape[0], batch)
    )
    size = check_crop_size(crop_size)
    how = check_options(method, extrapolation_value, real, num_threads, backend)
    crops: jax.Array
    if _is_at_hand(image, boxes, box_indices):
        shape = (boxes.shape[0], *size, image.shape[3])
        check_memory(shape, real)
        out = aligned_empty(shape, real)
        cropkit.crop_and_resize(
            np.asarray(image), np.asarray(boxes), np.asarray(box_indices), size, dtype=real,
            out=out, **how.of_crops,
        )  # fmt: skip
        crops = jax.device_put(out, may_alias=True)  # on no device for good, unlike by DLPack
    else:
        options = _Options(image.shape, image.dtype, boxes.dtype, size, how)
        crops = _crop_and_resize(options, *_varying(image, boxes, box_indices))
    return crops


# ---- what is checked before JAX converts ------------------------------------------------


def _taken(value: Any, name: str) -> Any:
    """Return the argument `name` as a JAX array if any part of it is one, else unchanged."""
    if isinstance(value, jax.Array):
        if not isinstance(value, jax.core.Tracer):
            try:
                refuse_deleted(value)
            except ValueError as error:
                raise ValueError(f"{name}: expected an array: {error}") from None
    elif hasattr(value, "__jax_array__") or (
        isinstance(value, (list, tuple))
        and any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))
    ):
        value = jax.numpy.asarray(value)
    if isinstance(value, jax.Array) and not isinstance(value.dtype, np.dtype):  # random keys
        raise TypeError(f"{name} has dtype {value.dtype}: expected numbers")
    return value


def _outline(array: jax.Array) -> NDArray[Any]:
    """Return zeros of the shape and dtype of `array`, which share one element of memory."""
    if not all(isinstance(n, int) for n in array.shape):
        raise TypeError(f"an array has shape {array.shape}: cropkit.jax needs it in numbers")
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _checked(array: Any, check: Any) -> jax.Array:
    """Check an array and convert it; of a traced array, check the shape and the dtype."""
    if not isinstance(array, jax.Array):
        array = check(array)
    elif isinstance(array, jax.core.Tracer):
        check(_outline(array))
    else:
        check(np.asarray(array))
    return jax.numpy.asarray(array)


def _fits_in_jax(image: NDArray[Any]) -> NDArray[Any]:
    """Return `image` in native byte order; refuse integers that JAX would cut to 32 bits."""
    if image.dtype.kind in "iu" and image.dtype.itemsize == 8 and not jax.config.jax_enable_x64:
        cut = np.argwhere(image.astype(f"{image.dtype.kind}4") != image)
        if len(cut):
            first = tuple(cut[0].tolist())
            raise ValueError(
                f"image{list(first)} = {image[first]}: JAX would cut it to 32 bits; "
                'jax.config.update("jax_enable_x64", True) allows 64'
            )
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _is_at_hand(*arrays: jax.Array) -> bool:
    """Whether the result can be computed at once, without a callback: nothing is traced.

    With several devices or an accelerator the answer is no, since JAX then places the result.
    """
    return (
        not any(isinstance(array, jax.core.Tracer) for array in arrays)
        and trace_state_clean()
        and jax.default_backend() == "cpu"
        and jax.device_count() == 1
        and not any(_debugging())  # JAX looks for NaN in what it has computed
    )


class _Options(NamedTuple):
    """The options and sizes known when a call is traced; JAX requires them hashable."""

    image_shape: tuple[int, int, int, int]
    image_dtype: np.dtype[Any]
    boxes_dtype: np.dtype[Any]
    crop_size: tuple[int, int]
    how: Options


# ---- what JAX differentiates ------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _crop_and_resize(options: _Options, image: Any, boxes: Any, box_indices: Any) -> Any:
    shape = (boxes.shape[0], *options.crop_size, options.image_shape[3])
    return _call_back(_crops, options, shape, options.how.dtype, image, boxes, box_indices)


def _forward(options: _Options, image: Any, boxes: Any, box_indices: Any) -> Any:
    crops = _crop_and_resize(options, image.value, boxes.value, box_indices.value)
    # Only the gradients asked for are computed later; only that of the boxes needs the image.
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
        of_image = _call_back_for_gradient(
            _of_image, options, options.image_shape,
            grad_image_dtype(options.image_dtype, options.how.dtype), grads, boxes, box_indices,
        ).astype(options.image_dtype)  # fmt: skip
    if image is not None:
        of_boxes = _call_back_for_gradient(
            _of_boxes, options, boxes.shape, options.how.dtype, grads, image, boxes, box_indices
        ).astype(options.boxes_dtype)
    return of_image, of_boxes, None


_crop_and_resize.defvjp(_forward, _backward, symbolic_zeros=True)


# ---- what JAX calls back ----------------------------------------------------------------


def _call_back(compute: Any, options: _Options, shape: Any, dtype: Any, *arrays: Any) -> Any:
    """Let JAX call `compute` with the arrays: images and gradients, boxes, box_indices."""
    on_host = buffer_callback is not None and jax.default_backend() == "cpu"
    # 0.0 and -0.0 are equal, and are not the same; what is compiled looks for NaN or does not.
    key = options.how.extrapolation_value.hex(), _debugging()
    return _varying(_callback(compute, options, shape, dtype, on_host, key)(*arrays), *arrays)[0]


def _debugging() -> tuple[bool, bool]:
    return jax.config.jax_debug_nans, jax.config.jax_debug_infs


@lru_cache(256)
def _callback(
    compute: Any, options: _Options, shape: Any, dtype: Any, on_host: bool, key: Any
) -> Any:
    """Return a function of arrays that calls `compute` back, and that JAX compiles once.

    JAX finds compiled code by the function object. Outside of ``jit``, as in ``jax.grad`` alone,
    a new function for each call would be compiled at each call.
    """

    def fill(_: Any, out: Any, *arrays: Any) -> None:
        mapped = _Mapped(options, arrays)
        compute(mapped, mapped.flat(np.asarray(out), len(shape) - 1))

    def make(*arrays: Any) -> NDArray[Any]:
        mapped = _Mapped(options, arrays)
        out = np.empty((*mapped.axes, *shape), dtype)
        compute(mapped, mapped.flat(out, len(shape) - 1))
        return out

    result = jax.ShapeDtypeStruct(shape, dtype)
    if on_host:
        return jax.jit(buffer_callback(fill, result, vmap_method="expand_dims"))
    return jax.jit(partial(jax.pure_callback, make, result, vmap_method="expand_dims"))


def _varying(*arrays: Any) -> list[Any]:
    """Let each array vary along every axis of a ``shard_map`` along which one of them varies.

    JAX does not see that the result of a callback varies with its arguments. Without this, it
    would leave out the sum over devices in the gradient of an array that does not vary.
    """
    axes: list[frozenset[str]] = []
    for array in arrays:
        kind = jax.typeof(array)
        manual = getattr(kind, "manual_axis_type", None)  # earlier releases: vma
        axes.append(frozenset(manual.varying if manual else getattr(kind, "vma", ())))
    every = frozenset().union(*axes)
    return [
        jax.lax.pcast(array, tuple(sorted(every - own)), to="varying") if every - own else array
        for array, own in zip(arrays, axes, strict=True)
    ]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def _call_back_for_gradient(
    compute: Any, options: _Options, shape: Any, dtype: Any, *arrays: Any
) -> Any:
    """Let JAX call `compute` as `_call_back` does, and refuse to differentiate the result."""
    return _call_back(compute, options, shape, dtype, *arrays)


@_call_back_for_gradient.defjvp
def _refuse(*_: Any) -> Any:
    raise TypeError(
        "the gradients of crop_and_resize cannot be differentiated again; "
        "jax.lax.stop_gradient around the arguments makes constants of them, and differences of "
        "gradients approximate the second derivative"
    )


class _Mapped:
    """The arrays of a call without the leading axes that vmap has added.

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
        # Checked before offsets are added: an index too large would reach other images.
        self.indices = check_box_indices(
            self.flat(box_indices, 0), len(self.boxes), options.image_shape[0]
        )

    def flat(self, array: NDArray[Any], inner: int) -> NDArray[Any]:
        """Join the mapped axes with the first axis of the call's own array, of `inner` + 1 axes."""
        own = array.shape[-inner - 1 :]
        if array.shape != self.axes + own:
            array = np.broadcast_to(array, self.axes + own)
        return array.reshape(self.number * own[0], *own[1:])

    def images(self, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Join all images into one batch, none twice; return it and the boxes' indices in it."""
        axes, (batch, *own) = array.shape[:-4], array.shape[-4:]
        count = math.prod(axes)
        which = np.broadcast_to(np.arange(count).reshape(axes), self.axes)
        return array.reshape(count * batch, *own), self.moved(which * batch)

    def moved(self, offsets: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the box indices plus the offset of each element of the map."""
        each = math.prod(self.indices.shape) // max(self.number, 1)
        return self.indices + np.repeat(offsets.ravel(), each)


def _crops(mapped: _Mapped, out: NDArray[Any]) -> None:
    options = mapped.options
    images, indices = mapped.images(mapped.others[0])
    cropkit.crop_and_resize(
        images, mapped.boxes, indices, options.crop_size, dtype=out.dtype, out=out,
        **options.how.of_crops,
    )  # fmt: skip


def _of_image(mapped: _Mapped, out: NDArray[Any]) -> None:
    options = mapped.options
    indices = mapped.moved(np.arange(mapped.number) * options.image_shape[0])
    cropkit.crop_and_resize_grad_image(
        mapped.flat(mapped.others[0], 3), mapped.boxes, indices, out.shape, dtype=out.dtype,
        out=out, **options.how.of_gradients,
    )  # fmt: skip


def _of_boxes(mapped: _Mapped, out: NDArray[Any]) -> None:
    grads, image = mapped.others
    images, indices = mapped.images(image)
    cropkit.crop_and_resize_grad_boxes(
        mapped.flat(grads, 3), images, mapped.boxes, indices, dtype=out.dtype, out=out,
        **mapped.options.how.of_gradients,
    )  # fmt: skip
