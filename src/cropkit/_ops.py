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

    The arguments up to `name`, and with the default `dtype` every bit of the result, equal
    those of ``tf.image.crop_and_resize`` [1]_ on the CPU; the other arguments are new.

    Parameters
    ----------
    image : array_like, shape (batch, height, width, depth)
        Images of bool, any integer, float16, float32, float64 or ``ml_dtypes.bfloat16``.
        Strides, byte order and alignment are free, and the image is never copied. Height and
        width must be at least 1. Channels-first images enter as a transposed view.
    boxes : array_like, shape (num_boxes, 4)
        ``[y1, x1, y2, x2]``, normalized: y maps to the row ``y * (height - 1)``, x to the
        column ``x * (width - 1)``. ``y1 > y2`` turns the crop upside down, ``x1 > x2`` mirrors
        it. Boxes may reach outside ``[0, 1]``, and must be finite.
    box_indices : array_like of int, shape (num_boxes,), or None
        The image of each box, in ``[0, batch)``. None is allowed if there is one image, and
        if there are as many boxes as images: box `i` is then cut out of image `i`.
    crop_size : (int, int)
        ``(crop_height, crop_width)`` in pixels, both at least 1.
    method : {"bilinear", "nearest"}, default "bilinear"
        Interpolation between pixels.
    extrapolation_value : float, default 0.0
        The value of crop pixels that lie outside the image.
    name : str, optional
        Ignored; accepted because programs pass it to TensorFlow.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of the result and of all arithmetic. With float64, nothing is rounded to
        float32.
    out : array, shape (num_boxes, crop_height, crop_width, depth), optional
        The array that receives the result: of dtype `dtype`, writable, with any strides,
        sharing no memory with the inputs. Without `out`, a result of 4 MiB or more takes the
        memory of an earlier result that has been deleted; two blocks, of 256 MiB in all, are
        kept for this (on Linux; none with ``CROPKIT_REUSE_MEMORY=0``). Such a result does not
        own its memory, so ``ndarray.resize`` refuses it.
    backend : str or Backend, optional
        The backend that runs, or its name; see `list_backends`. The default is that of
        `use_backend`, else of the environment variable ``CROPKIT_BACKEND``, else ``"cpu"``
        for arrays in the CPU's memory, and a backend of their device for other arrays.
    num_threads : int, optional
        The largest number of threads; a small call uses fewer. The default is
        ``CROPKIT_NUM_THREADS``, else one thread for a small call, else the least of OpenMP's
        maximum, the CPUs of the process and the quota of its control group. The number of
        threads does not change the result.

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
        The result would be larger than the machine's memory. Nothing has been allocated.
    BackendError
        The backend asked for cannot run this call; the message says why.

    Notes
    -----
    Along an axis of `n` pixels, a box with the edges `a` and `b` has `count` samples. Sample
    `i` lies at the position ``v = a * (n - 1) + i * (b - a) * (n - 1) / (count - 1)``, or in
    the middle of the box if `count` is 1. A sample is inside if ``0 <= v <= n - 1``; a crop
    pixel whose row or column is not inside is `extrapolation_value`. Bilinear interpolates
    between columns first, then between rows; nearest rounds the position, halves away from
    zero.

    Boxes so large that a position overflows are extrapolated everywhere.

    Arrays of other libraries are read and returned without a copy if they are in the CPU's
    memory. Images and results never move to another device; boxes and indices may.
    Gradients do not pass through this function: `cropkit.torch`, `cropkit.jax` and
    `cropkit.tensorflow` differentiate.

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

    Every crop pixel adds its gradient to its taps, the source pixels that it has read, each
    times the weight of the tap. The result is the same, bit for bit, on every run and on any
    number of threads.

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
        The dtype of the result: any that an image may have, in native byte order. With
        float64, all arithmetic is float64 and nothing is rounded to float32. With every other
        dtype, sums are float32 and are cast once, at the end; a cast to an integer rounds
        towards zero, stays within the dtype's limits, and makes NaN 0.
    out : array, shape `image_size`, optional
        The array that receives the result: of dtype `dtype`, writable, with any strides,
        sharing no memory with the inputs. Its old values are overwritten, not added to.
        Without `out`, a result of 4 MiB or more takes the memory of an earlier, deleted one; two
        blocks, of 256 MiB in all, are kept for this (on Linux; none with
        ``CROPKIT_REUSE_MEMORY=0``), and ``ndarray.resize`` refuses such a result.
    backend : str or Backend, optional
        The backend that runs, or its name; `crop_and_resize` explains the default.
    num_threads : int, optional
        The largest number of threads; `crop_and_resize` explains the default. The number of
        threads does not change the result.

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
        The result would be larger than the machine's memory. Nothing has been allocated.
    BackendError
        The backend asked for cannot run this call; the message says why.

    See Also
    --------
    crop_and_resize_grad_boxes : Gradient with respect to the boxes.

    Notes
    -----
    A crop pixel has four taps, top left ``tl`` to bottom right ``br``, and the weights ``wx``
    along x and ``wy`` along y. Its gradient ``g`` is added to the taps as follows::

        top = (1 - wy) * g       tl += (1 - wx) * top       tr += wx * top
        bottom = wy * g          bl += (1 - wx) * bottom    br += wx * bottom

    With nearest, ``g`` itself is added to the only tap. Crop pixels outside the image add
    nothing. Additions to one element are made in the order of the boxes, of the crop's rows,
    of its columns, and then tl, tr, bl, br. The result in float32 is therefore bit-equal to
    ``tf.raw_ops.CropAndResizeGradImage`` [1]_ under ``enable_op_determinism``.

    References
    ----------
    .. [1] TensorFlow 2.21, ``tensorflow/core/kernels/image/crop_and_resize_op.cc``.

    Examples
    --------
    Two crops of one pixel: the first lies between four source pixels, the second on one:

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
        The method of the forward call. The gradient of nearest is 0 almost everywhere, so
        the gradient of bilinear is returned for both methods, as TensorFlow does.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of the result and of the samples' positions: that of the forward call.
    out : array, shape (num_boxes, 4), optional
        The array that receives the result: of dtype `dtype`, writable, with any strides,
        sharing no memory with the inputs. Without `out`, a result of 4 MiB or more takes the
        memory of an earlier, deleted one; two blocks, of 256 MiB in all, are kept for this (on
        Linux; none with ``CROPKIT_REUSE_MEMORY=0``), and ``ndarray.resize`` refuses such a
        result.
    backend : str or Backend, optional
        The backend that runs, or its name; `crop_and_resize` explains the default.
    num_threads : int, optional
        The largest number of threads; `crop_and_resize` explains the default. The number of
        threads does not change the result.

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
    A crop pixel in row `i` has the gradient ``g``, four taps, top left ``tl`` to bottom right
    ``br``, and the weights ``wx`` and ``wy``. With ``r = (height - 1) / (crop_height - 1)`` it
    adds::

        dy = (1 - wx) * (bl - tl) + wx * (br - tr)
        y1 += g * dy * ((height - 1) - i * r)       y2 += g * dy * (i * r)

    In a crop of one row, the last factor is half of ``height - 1`` for both edges. The
    gradient of x1 and x2 is the same formula with rows and columns exchanged. Crop pixels
    outside the image add nothing. Where a sample is on a pixel, the slope of the image
    changes; the slope ``dy`` is 0 there, since both taps along the axis are that pixel.

    Pixels and gradients are taken as float64; positions, taps and weights are those of the
    forward call. Only the sum is rounded to `dtype`.

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
    """Run `call` on a backend; return `given_out`, else the result as an array like `like`."""
    chosen = choose(call, backend)
    if call.out is None:
        call.out = allocate(chosen, request_of(call), like)
    if call.is_empty():
        call.out = _zeroed(call.out, given_out)
    elif type(chosen) is type(built_in("cpu").backend):
        # Only for the backend itself, not for what wraps or extends it. To make a request would
        # cost a small call a tenth of its time.
        cast("CpuBackend", chosen).run(call)
    else:
        perform(chosen, call)
    if given_out is not None:
        return given_out
    return call.out if type(like) is np.ndarray else hand_over(call.out, like)


def _zeroed(out: Any, given_out: object) -> Any:
    """Return `out` filled with zeros, or new zeros like `out` if such arrays never change."""
    try:
        out[...] = 0
    except TypeError:  # an array of JAX's on a device: only the backend can write to it
        if given_out is not None:
            raise ValueError("out is read-only") from None
        return out.__array_namespace__().zeros_like(out, device=out.device)
    return out
