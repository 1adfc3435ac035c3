"""The public operator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cropkit._backends import Backend, choose
from cropkit._request import check_forward


def crop_and_resize(
    image: ArrayLike,
    boxes: ArrayLike,
    box_indices: ArrayLike | None,
    crop_size: Sequence[int] | NDArray[np.integer[Any]],
    method: str = "bilinear",
    extrapolation_value: float = 0.0,
    name: str | None = None,
    *,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
    backend: str | Backend | None = None,
    num_threads: int | None = None,
) -> NDArray[Any]:
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
    out : ndarray, shape (num_boxes, crop_height, crop_width, depth), optional
        Where to put the result: of dtype `dtype`, writable, any strides, sharing no memory
        with the inputs.
    backend : str or Backend, optional
        Which backend runs; see `list_backends`. By default `use_backend`, then the
        environment's ``CROPKIT_BACKEND``, then ``"cpu"`` for arrays in the CPU's memory.
    num_threads : int, optional
        How many threads. By default ``CROPKIT_NUM_THREADS``, then one for a small call,
        else as many as OpenMP, the process' CPUs and its control group allow. The result
        does not depend on it.

    Returns
    -------
    ndarray, shape (num_boxes, crop_height, crop_width, depth)
        The crops; `out` if it was given.

    Raises
    ------
    ValueError
        A shape does not fit, a box is not finite, `method` is unknown, or `out` is
        read-only, of another shape or dtype, or overlaps an input.
    IndexError
        An entry of `box_indices` is not an image's index.
    TypeError
        An argument is of a kind that cannot be used: a complex image, a fractional index.
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
    chosen = choose(call.request, backend)
    if call.out.size:
        chosen.crop_and_resize(*call)
    return call.out
