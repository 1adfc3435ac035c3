"""The public operators.

For type checkers, four signatures stand before each: NumPy's arrays with the default dtype, with
one whose type is known, and with any other or `out`; and whatever else is an image. The
documentation is that of the function after them, which runs.
"""

from __future__ import annotations  # else importing would evaluate every signature

from collections.abc import Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    SupportsFloat,
    SupportsIndex,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cropkit._arrays import hand_over
from cropkit._backends import allocate, choose, perform
from cropkit._kernels._checks import Call
from cropkit._plugins import built_in
from cropkit._protocol import Backend
from cropkit._request import check_forward, check_grad_boxes, check_grad_image, request_of
from cropkit._sampling import Method

if TYPE_CHECKING:
    from cropkit._cpu import CpuBackend

    Scalar = TypeVar("Scalar", bound=np.generic)

    class How(TypedDict, total=False):
        """Keywords that have no say in the type of the result."""

        backend: str | Backend | None
        num_threads: SupportsIndex | None


Sizes = Sequence[SupportsIndex] | NDArray[np.integer[Any]]


@overload
def crop_and_resize(
    image: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    crop_size: Sizes,
    method: Method = ...,
    extrapolation_value: SupportsFloat = ...,
    name: str | None = ...,
    *,
    dtype: None = None,
    out: None = None,
    **how: Unpack[How],
) -> NDArray[np.float32]: ...
@overload
def crop_and_resize(
    image: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    crop_size: Sizes,
    method: Method = ...,
    extrapolation_value: SupportsFloat = ...,
    name: str | None = ...,
    *,
    dtype: type[Scalar] | np.dtype[Scalar],
    out: None = None,
    **how: Unpack[How],
) -> NDArray[Scalar]: ...
@overload
def crop_and_resize(
    image: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    crop_size: Sizes,
    method: Method = ...,
    extrapolation_value: SupportsFloat = ...,
    name: str | None = ...,
    *,
    dtype: DTypeLike | None = ...,
    out: NDArray[Any] | None = ...,
    **how: Unpack[How],
) -> NDArray[Any]: ...
@overload
def crop_and_resize(
    image: ArrayLike,
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    crop_size: Sizes,
    method: Method = ...,
    extrapolation_value: SupportsFloat = ...,
    name: str | None = ...,
    *,
    dtype: DTypeLike | None = ...,
    out: Any = ...,
    **how: Unpack[How],
) -> Any: ...
def crop_and_resize(
    image: ArrayLike,
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    crop_size: Sizes,
    method: Method = "bilinear",
    extrapolation_value: SupportsFloat = 0.0,
    name: str | None = None,
    *,
    dtype: DTypeLike | None = None,
    out: Any = None,
    backend: str | Backend | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any:
    """Cut boxes out of images and resize each to the same size.

    The arguments, and with the default `dtype` every bit of the result, are those of
    ``tf.image.crop_and_resize`` [1]_; what follows ``*`` is new.

    Parameters
    ----------
    image : array_like, shape (batch, height, width, depth)
        Images of bool, any integer, float16, float32, float64 or ``ml_dtypes.bfloat16``.
        Any strides, byte order and alignment; nothing is copied to change them. Height and
        width must be at least 1. Channels-first images enter as a transposed view.
    boxes : array_like, shape (num_boxes, 4)
        ``[y1, x1, y2, x2]``, normalized: y maps to the row ``y * (height - 1)``, x to the
        column ``x * (width - 1)``. ``y1 > y2`` flips the crop, likewise for x. Boxes may
        reach outside ``[0, 1]``. Must be finite.
    box_indices : array_like of int, shape (num_boxes,), or None
        The image of each box, in ``[0, batch)``. None is allowed for one image, or for one
        box per image, in order.
    crop_size : (int, int)
        ``(crop_height, crop_width)`` in pixels, both at least 1.
    method : {"bilinear", "nearest"}, default "bilinear"
        Interpolation between pixels.
    extrapolation_value : float, default 0.0
        The value of crop pixels that lie outside the image.
    name : str, optional
        Ignored; there for programs that pass it to TensorFlow.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        Of the result and of all arithmetic. With float64, nothing is rounded to float32.
    out : array, shape (num_boxes, crop_height, crop_width, depth), optional
        Where to put the result: of dtype `dtype`, writable, any strides, sharing no memory
        with the inputs. Without it, a result of 4 MiB or more is made of memory that an
        earlier one may have given back, of which at most one block of at most 256 MiB is
        kept (on Linux; ``CROPKIT_REUSE_MEMORY=0`` turns it off). Such an array does not own
        its memory, so that ``ndarray.resize`` refuses it.
    backend : str or Backend, optional
        Which backend runs; see `list_backends`. By default `use_backend`, then the
        environment's ``CROPKIT_BACKEND``, then ``"cpu"`` for arrays in the CPU's memory.
    num_threads : int, optional
        How many threads at most; a small call uses fewer. By default
        ``CROPKIT_NUM_THREADS``, then one for a small call, else as many as OpenMP, the
        process' CPUs and its control group allow. The result does not depend on it.

    Returns
    -------
    array, shape (num_boxes, crop_height, crop_width, depth)
        The crops, as an array of the image's library; `out` if it was given.

    Raises
    ------
    ValueError
        A shape does not fit, a box is not finite, `method` is unknown, or `out` is
        read-only, of another shape or dtype, or overlaps an input.
    IndexError
        An entry of `box_indices` is not an image's index.
    TypeError
        An argument is of a kind that cannot be used: a complex image, a fractional index,
        a tensor that requires grad.
    MemoryError
        The result would be larger than the memory. Nothing has been allocated.
    BackendError
        The backend asked for cannot run this call; the message says why.

    Notes
    -----
    With `n` pixels and `count` samples along an axis and a box's edges `a`, `b` there,
    sample `i` lies at ``v = a * (n - 1) + i * (b - a) * (n - 1) / (count - 1)``, in the
    middle of the box if `count` is 1. It is inside if ``0 <= v <= n - 1``; a crop pixel
    whose row or column is not inside is `extrapolation_value`. Bilinear interpolation
    lerps between columns first, then between rows; nearest rounds halves away from zero.

    Boxes so large that a position overflows are extrapolated everywhere.

    Arrays of other libraries are read and returned without a copy in the CPU's memory, and
    nothing is ever moved to another device but boxes and indices. Gradients do not pass
    through this function: `cropkit.torch`, `cropkit.jax` and `cropkit.tensorflow`
    differentiate.

    References
    ----------
    .. [1] TensorFlow 2.21, ``tensorflow/core/kernels/image/crop_and_resize_op.cc``.

    Examples
    --------
    The two halves of an image, the lower one upside down:

    >>> import numpy as np
    >>> import cropkit
    >>> image = np.arange(12, dtype=np.uint8).reshape(1, 4, 3, 1)
    >>> boxes = [[0, 0, 1 / 3, 1], [1, 0, 2 / 3, 1]]
    >>> crops = cropkit.crop_and_resize(image, boxes, [0, 0], (2, 3))
    >>> crops[..., 0]
    array([[[ 0.,  1.,  2.],
            [ 3.,  4.,  5.]],
    <BLANKLINE>
           [[ 9., 10., 11.],
            [ 6.,  7.,  8.]]], dtype=float32)
    """
    call = check_forward(
        image, boxes, box_indices, crop_size, method, extrapolation_value, dtype, out, num_threads
    )
    return _run(call, image, out, backend)


@overload
def crop_and_resize_grad_image(
    grads: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    image_size: Sizes,
    method: Method = ...,
    *,
    dtype: None = None,
    out: None = None,
    **how: Unpack[How],
) -> NDArray[np.float32]: ...
@overload
def crop_and_resize_grad_image(
    grads: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    image_size: Sizes,
    method: Method = ...,
    *,
    dtype: type[Scalar] | np.dtype[Scalar],
    out: None = None,
    **how: Unpack[How],
) -> NDArray[Scalar]: ...
@overload
def crop_and_resize_grad_image(
    grads: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    image_size: Sizes,
    method: Method = ...,
    *,
    dtype: DTypeLike | None = ...,
    out: NDArray[Any] | None = ...,
    **how: Unpack[How],
) -> NDArray[Any]: ...
@overload
def crop_and_resize_grad_image(
    grads: ArrayLike,
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    image_size: Sizes,
    method: Method = ...,
    *,
    dtype: DTypeLike | None = ...,
    out: Any = ...,
    **how: Unpack[How],
) -> Any: ...
def crop_and_resize_grad_image(
    grads: ArrayLike,
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    image_size: Sizes,
    method: Method = "bilinear",
    *,
    dtype: DTypeLike | None = None,
    out: Any = None,
    backend: str | Backend | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any:
    """Gradient of `crop_and_resize` with respect to its image.

    Every crop pixel adds its gradient to the pixels that it read, with the weights it
    read them with. The result is the same, bit for bit, on every run and on any number of
    threads.

    Parameters
    ----------
    grads : array_like, shape (num_boxes, crop_height, crop_width, depth)
        Gradient with respect to the crops: any dtype that an image may have, any strides,
        byte order and alignment.
    boxes : array_like, shape (num_boxes, 4)
        The boxes of the forward call: ``[y1, x1, y2, x2]``, normalized.
    box_indices : array_like of int, shape (num_boxes,), or None
        The image of each box, as in the forward call.
    image_size : (int, int, int, int)
        Shape of the image: ``(batch, height, width, depth)``.
    method : {"bilinear", "nearest"}, default "bilinear"
        The method of the forward call.
    dtype : dtype_like, default numpy.float32
        Of the result: any dtype that an image may have, in native byte order. With
        float64, all arithmetic is float64 and nothing is rounded to float32. Every other
        dtype is summed in float32 and cast once, at the end; a cast to an integer goes
        towards zero, stays within the dtype's limits, and makes NaN 0.
    out : array, shape `image_size`, optional
        Where to put the result: of dtype `dtype`, writable, any strides, sharing no memory
        with the inputs. What it held is overwritten, not added to. Without it, a result of
        4 MiB or more is made of kept memory as in `crop_and_resize`: at most one block of at
        most 256 MiB (``CROPKIT_REUSE_MEMORY=0``: none), and ``ndarray.resize`` refuses it.
    backend : str or Backend, optional
        Which backend runs, as in `crop_and_resize`.
    num_threads : int, optional
        How many threads, as in `crop_and_resize`. The result does not depend on it.

    Returns
    -------
    array, shape `image_size`
        The gradient, as an array of the library of `grads`; `out` if it was given.

    Raises
    ------
    ValueError
        A shape does not fit, a box is not finite, `method` is unknown, `image_size` is
        negative or has no pixels, or `out` is read-only, of another shape or dtype, or
        overlaps an input.
    IndexError
        An entry of `box_indices` is not an image's index.
    TypeError
        An argument is of a kind that cannot be used: complex gradients, a fractional size.
    MemoryError
        The result would be larger than the memory. Nothing has been allocated.
    BackendError
        The backend asked for cannot run this call; the message says why.

    See Also
    --------
    crop_and_resize_grad_boxes : Gradient with respect to the boxes.

    Notes
    -----
    With the forward call's taps and weights, a gradient ``g`` of a crop pixel adds::

        top = (1 - wy) * g       tl += (1 - wx) * top       tr += wx * top
        bottom = wy * g          bl += (1 - wx) * bottom    br += wx * bottom

    and for nearest, ``g`` itself to the one pixel that was read. Crop pixels outside the
    image add nothing. Additions to one element are made in the order of the boxes, of the
    crop's rows and of its columns, and then tl, tr, bl, br: the result in float32 is
    bit-equal to ``tf.raw_ops.CropAndResizeGradImage`` [1]_ under
    ``enable_op_determinism``.

    References
    ----------
    .. [1] TensorFlow 2.21, ``tensorflow/core/kernels/image/crop_and_resize_op.cc``.

    Examples
    --------
    A crop of one pixel between four, and one on a pixel:

    >>> import numpy as np
    >>> import cropkit
    >>> grads = np.ones((2, 1, 1, 1), np.float32)
    >>> boxes = [[0.25, 0.25, 0.25, 0.25], [1.0, 1.0, 1.0, 1.0]]
    >>> cropkit.crop_and_resize_grad_image(grads, boxes, [0, 0], (1, 3, 3, 1))[0, ..., 0]
    array([[0.25, 0.25, 0.  ],
           [0.25, 0.25, 0.  ],
           [0.  , 0.  , 1.  ]], dtype=float32)
    """
    call = check_grad_image(grads, boxes, box_indices, image_size, method, dtype, out, num_threads)
    return _run(call, grads, out, backend)


@overload
def crop_and_resize_grad_boxes(
    grads: ArrayLike,
    image: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    *,
    method: Method = ...,
    dtype: None = None,
    out: None = None,
    **how: Unpack[How],
) -> NDArray[np.float32]: ...
@overload
def crop_and_resize_grad_boxes(
    grads: ArrayLike,
    image: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    *,
    method: Method = ...,
    dtype: type[Scalar] | np.dtype[Scalar],
    out: None = None,
    **how: Unpack[How],
) -> NDArray[Scalar]: ...
@overload
def crop_and_resize_grad_boxes(
    grads: ArrayLike,
    image: NDArray[Any],
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    *,
    method: Method = ...,
    dtype: DTypeLike | None = ...,
    out: NDArray[Any] | None = ...,
    **how: Unpack[How],
) -> NDArray[Any]: ...
@overload
def crop_and_resize_grad_boxes(
    grads: ArrayLike,
    image: ArrayLike,
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    *,
    method: Method = ...,
    dtype: DTypeLike | None = ...,
    out: Any = ...,
    **how: Unpack[How],
) -> Any: ...
def crop_and_resize_grad_boxes(
    grads: ArrayLike,
    image: ArrayLike,
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    *,
    method: Method = "bilinear",
    dtype: DTypeLike | None = None,
    out: Any = None,
    backend: str | Backend | None = None,
    num_threads: SupportsIndex | None = None,
) -> Any:
    """Gradient of `crop_and_resize` with respect to its boxes.

    Sums are made in float64, in an order that depends on the sizes alone: the result is
    the same, bit for bit, on every run and on any number of threads.

    Parameters
    ----------
    grads : array_like, shape (num_boxes, crop_height, crop_width, depth)
        Gradient with respect to the crops: any dtype that an image may have, any strides,
        byte order and alignment.
    image : array_like, shape (batch, height, width, depth)
        The image of the forward call.
    boxes : array_like, shape (num_boxes, 4)
        The boxes of the forward call: ``[y1, x1, y2, x2]``, normalized.
    box_indices : array_like of int, shape (num_boxes,), or None
        The image of each box, as in the forward call.
    method : {"bilinear", "nearest"}, default "bilinear"
        The method of the forward call. The gradient of nearest is 0 almost everywhere;
        what is returned is that of bilinear for both, as TensorFlow does.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        Of the result, and of the positions of the samples: the `dtype` of the forward
        call.
    out : array, shape (num_boxes, 4), optional
        Where to put the result: of dtype `dtype`, writable, any strides, sharing no memory
        with the inputs. Without it, a result of 4 MiB or more is made of kept memory as in
        `crop_and_resize`: at most one block of at most 256 MiB
        (``CROPKIT_REUSE_MEMORY=0``: none), and ``ndarray.resize`` refuses it.
    backend : str or Backend, optional
        Which backend runs, as in `crop_and_resize`.
    num_threads : int, optional
        How many threads, as in `crop_and_resize`. The result does not depend on it.

    Returns
    -------
    array, shape (num_boxes, 4)
        The gradient with respect to ``[y1, x1, y2, x2]``, as an array of the image's library;
        `out` if it was given.

    Raises
    ------
    ValueError
        A shape does not fit, a box is not finite, `method` is unknown, or `out` is
        read-only, of another shape or dtype, or overlaps an input.
    IndexError
        An entry of `box_indices` is not an image's index.
    TypeError
        An argument is of a kind that cannot be used: a complex image, a fractional index,
        a tensor that requires grad.
    BackendError
        The backend asked for cannot run this call; the message says why.

    See Also
    --------
    crop_and_resize_grad_image : Gradient with respect to the image.

    Notes
    -----
    A crop pixel in row `i` with the gradient ``g``, the taps ``tl, tr, bl, br`` and the
    weights ``wy, wx`` adds, with ``r = (height - 1) / (crop_height - 1)``::

        dy = (1 - wx) * (bl - tl) + wx * (br - tr)
        y1 += g * dy * ((height - 1) - i * r)       y2 += g * dy * (i * r)

    or half of ``(height - 1)`` to both if there is one row; likewise for x. Crop pixels
    outside the image add nothing. At a sample on a pixel, where the slope changes, it is
    0 along that axis, since both taps are that pixel.

    Pixels and gradients are taken as float64; positions, and with them the taps and the
    weights, are those of the forward call. What is rounded to `dtype` is the sum.

    Examples
    --------
    On a ramp from 0 to 10 the middle of a box rises by 5 for each edge that is moved by 1:

    >>> import numpy as np
    >>> import cropkit
    >>> image = np.arange(11, dtype=np.float32).reshape(1, 1, 11, 1)
    >>> grads = np.ones((1, 1, 1, 1), np.float32)
    >>> cropkit.crop_and_resize_grad_boxes(grads, image, [[0, 0.1, 0, 0.4]], [0])
    array([[0., 5., 0., 5.]], dtype=float32)
    """
    call = check_grad_boxes(grads, image, boxes, box_indices, method, dtype, out, num_threads)
    return _run(call, image, out, backend)


def _run(call: Call, like: object, given_out: object, backend: str | Backend | None) -> Any:
    """Choose a backend, let it fill the result, and return that as `like` is, or as given."""
    chosen = choose(call, backend)
    if call.out is None:
        call.out = allocate(chosen, request_of(call), like)
    if call.is_empty():
        call.out = _zeroed(call.out, given_out)
    elif chosen is built_in("cpu").backend:
        # Itself, and nothing that wraps it. A request would cost a small call a tenth of its time.
        cast("CpuBackend", chosen).run(call)
    else:
        perform(chosen, call)
    if given_out is not None:
        return given_out
    return call.out if type(like) is np.ndarray else hand_over(call.out, like)


def _zeroed(out: Any, given_out: object) -> Any:
    """Return `out` full of zeros, or others like it if its library's arrays never change."""
    try:
        out[...] = 0
    except TypeError:  # as JAX's on a device, which its backend alone writes
        if given_out is not None:
            raise ValueError("out is read-only") from None
        return out.__array_namespace__().zeros_like(out, device=out.device)
    return out
