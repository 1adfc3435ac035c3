"""crop_and_resize for TensorFlow: in place of ``tf.image.crop_and_resize``.

>>> import tensorflow as tf
>>> from cropkit.tensorflow import crop_and_resize
>>> image = tf.reshape(tf.range(11.0), (1, 1, 11, 1))
>>> boxes = tf.constant([[0.0, 0.1, 0.0, 0.4]])
>>> with tf.GradientTape() as tape:
...     tape.watch(boxes)
...     crops = crop_and_resize(image, boxes, [0], (1, 1))
>>> print(tape.gradient(crops, boxes))
tf.Tensor([[0. 5. 0. 5.]], shape=(1, 4), dtype=float32)

Eager tensors go straight to the three functions of `cropkit`, by DLPack; in a graph,
``tf.numpy_function`` calls them. A ``tf.custom_gradient`` gives the operator its gradients,
wherever one may be asked for.
"""

import math
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from itertools import compress
from typing import Any, Final, SupportsFloat, SupportsIndex, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

try:
    import tensorflow as tf
except ImportError as _error:
    raise ImportError("cropkit.tensorflow needs TensorFlow: pip install tensorflow") from _error

import cropkit
from cropkit import _arrays
from cropkit._arguments import check_box_indices, check_crop_size
from cropkit._options import Options, check_options
from cropkit._results import check_memory
from cropkit._sampling import Method
from cropkit._threads import within

try:
    # Private: tells whether a tape or an accumulator would record gradients of tensors; 0 is no.
    from tensorflow.python.ops import gradients_util

    _gradient_types = gradients_util.PossibleTapeGradientTypes
except (ImportError, AttributeError):

    def _gradient_types(tensors: Any) -> int:
        return 1


__all__ = ["crop_and_resize"]

# Bytes up to which TensorFlow copies a result of NumPy's sooner than it takes over an aligned one:
# 30 of 380 microseconds for one of 7 kB.
_COPIED: Final = 1 << 16
_NOT_SAVED: Final = (
    "crop_and_resize calls back into Python, which a SavedModel does not contain: it could not be "
    "loaded elsewhere; export with tf.image.crop_and_resize in its place"
)


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _not_converted(function: _Function) -> _Function:
    """Keep AutoGraph out of `function`, and type checkers informed: TensorFlow has no types."""
    same: _Function = tf.autograph.experimental.do_not_convert(function)
    return same


@_not_converted
def crop_and_resize(
    image: tf.Tensor | ArrayLike,
    boxes: tf.Tensor | ArrayLike,
    box_indices: tf.Tensor | ArrayLike | None,
    crop_size: tf.Tensor | Sequence[tf.Tensor | SupportsIndex] | NDArray[np.integer[Any]],
    method: Method = "bilinear",
    extrapolation_value: SupportsFloat = 0.0,
    name: str | None = None,
    *,
    dtype: DTypeLike | None = None,
    num_threads: SupportsIndex | None = None,
    backend: str | None = None,
) -> tf.Tensor:
    """Cut boxes out of images and resize each to the same size; differentiable.

    The arguments, and with the default `dtype` every bit of the result and of the image's
    gradient in float32, are those of ``tf.image.crop_and_resize`` on the CPU (of its gradient
    under ``enable_op_determinism``). The gradient of the boxes is more exact than TensorFlow's.

    Parameters
    ----------
    image : tf.Tensor, shape (batch, height, width, depth)
        Images of any dtype that `cropkit.crop_and_resize` takes. `image`, `boxes`,
        `box_indices` and `crop_size` may also be lists or arrays.
    boxes : tf.Tensor, shape (num_boxes, 4)
        ``[y1, x1, y2, x2]``, normalized.
    box_indices : tf.Tensor of int, shape (num_boxes,), or None
        The image of each box, as in `cropkit.crop_and_resize`. A graph of unknown shapes checks
        when it runs whether None is allowed.
    crop_size : tf.Tensor of int, shape (2,)
        ``(crop_height, crop_width)`` in pixels, both at least 1.
    method : {"bilinear", "nearest"}, default "bilinear"
        Interpolation between pixels. Both methods have the box gradient of bilinear.
    extrapolation_value : float, default 0.0
        The value of crop pixels that lie outside the image.
    name : str, optional
        The name of the operation in a graph.
    dtype : dtype_like, default float32
        The dtype of the result and of all arithmetic, float32 or float64.
    num_threads, backend
        The arguments of `cropkit.crop_and_resize`; they hold for the gradients too. `backend`
        must be a name.

    Returns
    -------
    tf.Tensor, shape (num_boxes, crop_height, crop_width, depth)
        The crops. In a graph, the static shape holds every size that is known.

    Notes
    -----
    A graph calls back into Python and runs only in the process that made it: saving it as a
    SavedModel is refused, and so is ``jit_compile=True``. The gradients cannot be
    differentiated again.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from cropkit.tensorflow import crop_and_resize
    >>> images = tf.zeros((2, 480, 640, 3))
    >>> boxes = [[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]]
    >>> crop_and_resize(images, boxes, [0, 1], (224, 224)).shape
    TensorShape([2, 224, 224, 3])
    """
    eager, size = tf.executing_eagerly(), crop_size
    if eager:  # the functions that are called check every argument
        image, boxes = _tensor(image), _tensor(boxes, dtype or np.float32)
        if isinstance(size, tf.Tensor):
            size = _numbers(size.numpy())
        elif type(size) is not tuple or not all(type(n) is int for n in size):
            size = _numbers(_size(size).numpy())  # a variable, or a list with tensors in it
        # If no tape watches a tensor, no gradient is registered: it takes as long as the crops.
        watched = _gradient_types([image, boxes])
        if not watched and not _intra_op_threads():
            return cropkit.crop_and_resize(
                image, boxes, box_indices, size, method, extrapolation_value,
                dtype=cast(Any, dtype), backend=backend, num_threads=num_threads,
            )  # fmt: skip
    how = check_options(
        method, extrapolation_value, np.float32 if dtype is None else dtype, num_threads, backend
    )
    if eager:
        return _crop_eagerly(how, image, boxes, box_indices, size)
    with tf.name_scope(name or "crop_and_resize"):
        # Tensors of this graph and no other's: a loop's or a condition's has its own.
        image = tf.ensure_shape(tf.convert_to_tensor(image), [None] * 4)
        boxes = tf.convert_to_tensor(boxes, dtype_hint=tf.as_dtype(how.dtype))
        boxes = tf.ensure_shape(boxes, [None, 4])
        if box_indices is None:
            box_indices = _indices(boxes, image)
        indices = tf.identity(tf.convert_to_tensor(box_indices, dtype_hint=tf.int32))
        return _crop_in_graph(how, image, boxes, indices, _size(crop_size))


def _tensor(given: Any, hint: DTypeLike | None = None) -> Any:
    """Return an argument as a tensor; a list of numbers becomes one of the dtype `hint`."""
    if isinstance(given, tf.Tensor):
        return given
    return tf.convert_to_tensor(given, dtype_hint=None if hint is None else tf.as_dtype(hint))


def _size(given: Any) -> Any:
    """Return ``crop_size`` as a tensor, checked if its value is known already."""
    if any(map(tf.is_tensor, tf.nest.flatten(given))):  # a tensor, or a list with tensors in it
        given = tf.convert_to_tensor(given)
        static = tf.get_static_value(given)
        if static is None:
            return given
        given = static
    return tf.convert_to_tensor(check_crop_size(given))


def _numbers(size: NDArray[Any]) -> Any:
    """Return a size as a tuple of int, which is checked faster than an array."""
    return tuple(size.tolist()) if size.ndim == 1 else size


def _indices(boxes: Any, image: Any) -> Any:
    """Return the ``box_indices`` that None stands for; check now or when the graph runs."""
    if boxes.shape[0] is not None and image.shape[0] is not None:
        return check_box_indices(None, boxes.shape[0], image.shape[0])

    def when_run(num_boxes: Any, batch: Any) -> Any:
        return np.asarray(check_box_indices(None, int(num_boxes), int(batch)), np.int32)

    counts = tf.shape(boxes)[0], tf.shape(image)[0]
    result = tf.numpy_function(when_run, counts, tf.int32, stateful=False)
    return _with_shape(result, boxes.shape[:1])


# ---- what TensorFlow differentiates -------------------------------------------------------
# `compute` gets the tensors, or NumPy's views of them in a graph.


def _crop_eagerly(how: Options, image: Any, boxes: Any, indices: Any, size: Any) -> Any:
    wanted = [bool(_gradient_types([tensor])) for tensor in (image, boxes)]

    def crops() -> Any:
        return cropkit.crop_and_resize(
            image, boxes, indices, size, dtype=how.dtype,
            **_at_most(how.of_crops, lambda: math.prod(_crops_shape(image, boxes, size))),
        )  # fmt: skip

    if not any(wanted):
        return crops()
    if indices is None:
        indices = _indices(boxes, image)
    indices = tf.convert_to_tensor(indices, dtype_hint=tf.int32)  # no variable is read below

    @tf.custom_gradient
    def of_wanted(*_: Any) -> Any:
        def gradient(grads: Any) -> list[Any]:
            every = _gradients(how, grads, image, boxes, indices, wanted)
            return list(compress(every, wanted))

        return crops(), gradient

    return of_wanted(*compress((image, boxes), wanted))


def _crop_in_graph(how: Options, image: Any, boxes: Any, indices: Any, size: Any) -> Any:
    given = tf.get_static_value(size)
    static = None if given is None else check_crop_size(given)
    rows, columns = static or (None, None)
    sizes = [] if static else [size]  # what is known is no input, which would be converted

    def compute(image: Any, boxes: Any, indices: Any, *sizes: Any, out: Any) -> Any:
        return cropkit.crop_and_resize(
            image, boxes, indices, static or _numbers(*sizes), dtype=how.dtype, out=out,
            **_at_most(how.of_crops, lambda: 0 if out is None else out.size),
        )  # fmt: skip

    def shape(image: Any, boxes: Any, indices: Any, *sizes: Any) -> tuple[int, ...]:
        return (len(boxes), *(static or check_crop_size(_numbers(*sizes))), image.shape[3])

    def of_operation(operation: Any, grads: Any) -> tuple[Any, ...]:
        image, boxes, indices, *_ = operation.inputs
        both = _gradients(how, grads, image, boxes, indices, (True, True))
        return *both, None, *[None for _ in sizes]

    @tf.custom_gradient
    def crops(image: Any, boxes: Any) -> Any:
        def gradient(grads: Any) -> tuple[Any, Any]:
            return _gradients(how, grads, image, boxes, indices, (True, True))

        known = (boxes.shape[0], rows, columns, image.shape[3])
        if None not in known:
            check_memory(cast(tuple[int, ...], known), how.dtype)
        result = _call(compute, shape, how.dtype, of_operation, image, boxes, indices, *sizes)
        return _with_shape(result, known), gradient

    return crops(image, boxes)


def _gradients(
    how: Options, grads: Any, image: Any, boxes: Any, indices: Any, wanted: Sequence[bool]
) -> tuple[Any, Any]:
    grads = tf.convert_to_tensor(grads)  # a graph has IndexedSlices after tf.gather
    of_image = of_boxes = None
    if wanted[0] and image.dtype.is_floating:
        of_image = _grad_image(how, grads, image, boxes, indices)
    if wanted[1]:
        of_boxes = _grad_boxes(how, grads, image, boxes, indices)
    return of_image, of_boxes


def _grad_image(how: Options, grads: Any, image: Any, boxes: Any, indices: Any) -> Any:
    dtype = _arrays.grad_image_dtype(np.dtype(image.dtype.as_numpy_dtype), how.dtype)

    def compute(grads: Any, boxes: Any, indices: Any, size: Any, out: Any) -> Any:
        return cropkit.crop_and_resize_grad_image(
            grads, boxes, indices, np.asarray(size), dtype=dtype, out=out,
            **_at_most(how.of_gradients, lambda: max(_count(grads), math.prod(size))),
        )  # fmt: skip

    def shape(grads: Any, boxes: Any, indices: Any, size: Any) -> tuple[int, ...]:
        return tuple(size)

    @tf.custom_gradient
    def of_image(grads: Any, boxes: Any) -> Any:
        size = tf.shape(image, tf.int64)
        return _call(compute, shape, dtype, _refuse, grads, boxes, indices, size), _refuse

    return tf.cast(_with_shape(of_image(grads, boxes), image.shape), image.dtype)


def _grad_boxes(how: Options, grads: Any, image: Any, boxes: Any, indices: Any) -> Any:
    def compute(grads: Any, image: Any, boxes: Any, indices: Any, out: Any) -> Any:
        return cropkit.crop_and_resize_grad_boxes(
            grads, image, boxes, indices, dtype=how.dtype, out=out,
            **_at_most(how.of_gradients, lambda: _count(grads)),
        )  # fmt: skip

    def shape(grads: Any, image: Any, boxes: Any, indices: Any) -> tuple[int, ...]:
        return (len(boxes), 4)

    @tf.custom_gradient
    def of_boxes(grads: Any, image: Any, boxes: Any) -> Any:
        return _call(compute, shape, how.dtype, _refuse, grads, image, boxes, indices), _refuse

    return tf.cast(_with_shape(of_boxes(grads, image, boxes), boxes.shape), boxes.dtype)


def _crops_shape(image: Any, boxes: Any, size: Any) -> tuple[int, ...]:
    return (len(boxes), *check_crop_size(size), image.shape[3])


def _count(array: Any) -> int:
    return math.prod(array.shape)


def _at_most(keywords: dict[str, Any], values: Callable[[], int]) -> dict[str, Any]:
    """Let a call of so many `values` use no more threads than TensorFlow's operators do."""
    limit = _intra_op_threads()
    if limit:
        keywords["num_threads"] = within(limit, keywords["num_threads"], values())
    return keywords


@cache
def _intra_op_threads() -> int:
    """Return what ``tf.config.threading`` says, 0 if nothing; settled by the first tensor."""
    threads: int = tf.config.threading.get_intra_op_parallelism_threads()
    return threads


def _refuse(*_: Any) -> Any:
    raise NotImplementedError("the gradients of crop_and_resize cannot be differentiated again")


# ---- what TensorFlow calls ----------------------------------------------------------------


def _call(
    compute: Callable[..., Any], shape: Callable[..., tuple[int, ...]], dtype: np.dtype[Any],
    gradient: Callable[..., Any], *tensors: Any,
) -> Any:  # fmt: skip
    """Call `compute` now, or in a graph whenever it runs, with an `out` of the shape `shape`.

    `gradient` is registered as that of the operation in the graph. A ``tf.custom_gradient``
    usually hides it, but ``tf.vectorized_map`` copies the operation without that, and the
    gradient would be zero.
    """
    if tf.executing_eagerly():
        return compute(*tensors, out=None)

    def when_run(*arrays: NDArray[Any]) -> NDArray[Any]:
        size = shape(*arrays)
        if math.prod(size) * dtype.itemsize <= _COPIED:
            small: NDArray[Any] = compute(*arrays, out=None)
            return small
        check_memory(size, dtype)
        result: NDArray[Any] = compute(*arrays, out=_arrays.aligned_empty(size, dtype))
        return result

    def of_operation(operation: Any, *grads: Any) -> Any:
        if operation is None:  # ``tf.saved_model.save`` asks for a gradient in this way
            raise NotImplementedError(_NOT_SAVED)
        return gradient(operation, *grads)

    registered = f"CropkitGradient-{uuid.uuid4()}"  # TensorFlow registers a name once, for good
    tf.RegisterGradient(registered)(of_operation)
    graph = tf.compat.v1.get_default_graph()
    with graph.gradient_override_map({"PyFuncStateless": registered}):
        # Without state, the graph leaves out a gradient that nobody needs.
        return tf.numpy_function(when_run, tensors, tf.as_dtype(dtype), stateful=False)


def _with_shape(tensor: Any, shape: Any) -> Any:
    """Tell a graph, and its optimizer, as much of a tensor's shape as is known.

    ``set_shape`` does not reach the optimizer, which then leaves slow operations as they are.
    """
    known = tensor.shape.as_list() if tensor.shape.rank == len(shape) else []
    if known and all(wanted in (None, axis) for wanted, axis in zip(shape, known, strict=True)):
        return tensor  # an operation that says nothing new would take time at each run
    return tf.ensure_shape(tensor, shape)
