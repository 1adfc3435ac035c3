"""Checks of every entry of an argument, in one pass and without temporaries.

An argument is *plain* if it is right and a backend can take it unconverted. `plain_forward`
recognizes a call with plain arguments in a microsecond. Any other call is checked argument by
argument in ``_arguments.py``, which says what is wrong with it.
"""

cimport cython
cimport numpy as cnp
from libc.math cimport isfinite
from libc.stdint cimport int32_t
from libc.stdlib cimport getenv

cnp.import_array()

# An axis this long exists only as a broadcast view. On a longer axis, a position rounded up to
# the next float could not be converted to an index.
cdef Py_ssize_t _MAX_AXIS = 1 << 62
MAX_AXIS = _MAX_AXIS
# Other libraries share memory that begins at a multiple of this, and copy any other memory.
cdef enum:
    ALIGNMENT = 64
# Bytes of the largest result that is allocated here: every machine has that much memory, and
# ``_arrays.py`` reuses memory for larger results only.
cdef Py_ssize_t _SMALL = 1 << 20

ctypedef fused real:
    float
    double


cdef Py_ssize_t _first_bad_box(const real[:, ::1] boxes) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(boxes.shape[0]):
        for j in range(4):
            if not isfinite(boxes[i, j]):
                return i
    return -1


def first_bad_box_float32(const float[:, ::1] boxes):
    """Return the row of the first box that is not finite, or -1."""
    return _first_bad_box(boxes)


def first_bad_box_float64(const double[:, ::1] boxes):
    """Return the row of the first box that is not finite, or -1."""
    return _first_bad_box(boxes)


def first_bad_index(const Py_ssize_t[::1] indices, Py_ssize_t batch):
    """Return the position of the first index outside ``[0, batch)``, or -1."""
    cdef Py_ssize_t i
    for i in range(indices.shape[0]):
        if indices[i] < 0 or indices[i] >= batch:
            return i
    return -1


cdef bint _are_finite(const real* values, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        if not isfinite(values[i]):
            return False
    return True


cdef bint _is_plain(object value, int ndim):
    """Whether `value` is a packed, aligned, native NumPy array of `ndim` axes, no subclass."""
    return (
        type(value) is cnp.ndarray and cnp.PyArray_NDIM(<cnp.ndarray>value) == ndim
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>value))


cdef bint _is_plain_size(object value):
    return type(value) is int and 1 <= value <= _MAX_AXIS


cdef bint _is_plain_image(object value):
    """Whether `value` is a NumPy array of four axes, with pixels, of one of NumPy's own dtypes."""
    cdef int kind, n
    if not (type(value) is cnp.ndarray and cnp.PyArray_NDIM(<cnp.ndarray>value) == 4):
        return False
    kind = cnp.PyArray_TYPE(<cnp.ndarray>value)
    if not (cnp.NPY_BOOL <= kind <= cnp.NPY_FLOAT64 or kind == cnp.NPY_FLOAT16):
        return False
    for n in range(1, 3):
        if not 1 <= cnp.PyArray_DIM(<cnp.ndarray>value, n) <= _MAX_AXIS:
            return False
    return True


cdef bint _are_plain_boxes(object value, bint in_float64):
    """Whether `value` is an array of packed, finite boxes, in float64 or else in float32."""
    cdef Py_ssize_t count
    if not (_is_plain(value, 2) and cnp.PyArray_DIM(<cnp.ndarray>value, 1) == 4):
        return False
    if cnp.PyArray_TYPE(<cnp.ndarray>value) != (
            cnp.NPY_FLOAT64 if in_float64 else cnp.NPY_FLOAT32):
        return False
    count = cnp.PyArray_DIM(<cnp.ndarray>value, 0)
    if in_float64:
        return _are_finite(<const double*>cnp.PyArray_DATA(<cnp.ndarray>value), 4 * count)
    return _are_finite(<const float*>cnp.PyArray_DATA(<cnp.ndarray>value), 4 * count)


cdef cnp.ndarray _plain_indices(object value, Py_ssize_t count, Py_ssize_t batch):
    """Return `value` as `count` packed intp indices below `batch`; None if they are not plain.

    int32 indices are copied, intp indices are not.
    """
    cdef Py_ssize_t n
    cdef int kind
    cdef cnp.ndarray indices
    cdef cnp.intp_t* at
    cdef const int32_t* narrow
    if not (_is_plain(value, 1) and cnp.PyArray_DIM(<cnp.ndarray>value, 0) == count):
        return None
    indices = <cnp.ndarray>value
    kind = cnp.PyArray_TYPE(indices)
    if kind == cnp.NPY_INT32:
        narrow = <const int32_t*>cnp.PyArray_DATA(indices)
        indices = cnp.PyArray_EMPTY(1, cnp.PyArray_DIMS(indices), cnp.NPY_INTP, 0)
        at = <cnp.intp_t*>cnp.PyArray_DATA(indices)
        for n in range(count):
            at[n] = narrow[n]
    elif kind != cnp.NPY_INTP:
        return None
    at = <cnp.intp_t*>cnp.PyArray_DATA(indices)
    for n in range(count):
        if not 0 <= at[n] < batch:
            return None
    return indices


@cython.final
@cython.auto_pickle(False)
cdef class Call:
    """One call on its way to a backend: how it is computed, and its arrays.

    `_request.py` makes a call and fills it in as the checks go. The class is written in Cython,
    since making an object in Python would take a large part of the time of a small call.

    Attributes
    ----------
    operation : {"crop_and_resize", "grad_image", "grad_boxes"}
        The backend's method that computes the call.
    sampling : Sampling
    compute_dtype : numpy.dtype
        float32 or float64: the dtype of the boxes and of all arithmetic.
    extrapolation_value : float
    num_threads : int or None
    image, grads
        The checked arrays, as the backend gets them; None if the operation has no such array.
    boxes : ndarray, shape (num_boxes, 4)
        Packed, of `compute_dtype`, finite, in the CPU's memory.
    box_indices : ndarray of intp, shape (num_boxes,)
        Packed, each below the number of images, in the CPU's memory.
    out
        The caller's array, checked, or a new one; None if the backend is to allocate it.
    request : Request or None
        None until `request_of` makes it; calls with arrays on other devices have one at once.
    """

    cdef readonly object operation, sampling, compute_dtype, extrapolation_value, num_threads
    cdef public object image, grads, boxes, box_indices, out, request

    def __init__(
        self, operation, sampling, compute_dtype, extrapolation_value=0.0, num_threads=None,
    ):
        self.operation = operation
        self.sampling = sampling
        self.compute_dtype = compute_dtype
        self.extrapolation_value = extrapolation_value
        self.num_threads = num_threads

    def is_empty(self):
        """Whether there are no boxes or no channels, so that there is nothing to compute."""
        if self.request is not None:
            return self.request.num_boxes == 0 or self.request.image_shape[3] == 0
        pixels = self.grads if self.image is None else self.image
        return (
            cnp.PyArray_DIM(<cnp.ndarray>self.box_indices, 0) == 0
            or cnp.PyArray_DIM(<cnp.ndarray?>pixels, 3) == 0)


cdef cnp.ndarray _new_aligned(int ndim, cnp.npy_intp* shape, int kind, Py_ssize_t size):
    """Return a new array of `size` bytes that begins at a multiple of ALIGNMENT."""
    cdef cnp.npy_intp bytes_needed = size + ALIGNMENT
    cdef cnp.ndarray memory = cnp.PyArray_EMPTY(1, &bytes_needed, cnp.NPY_UINT8, 0)
    cdef char* data = <char*>cnp.PyArray_DATA(memory)
    cdef cnp.ndarray array
    data += -<size_t>data % ALIGNMENT
    array = cnp.PyArray_SimpleNewFromData(ndim, shape, kind, data)
    cnp.set_array_base(array, memory)
    return array


def plain_forward(
    object image, object boxes, object box_indices, object crop_size, object out,
    object sampling, object compute_dtype, bint in_float64, object extrapolation_value,
    object num_threads, bint shared=False,
):
    """Make a forward call if its arguments are plain.

    Returns
    -------
    Call or None
        None unless `image` has four axes and one of NumPy's own dtypes that images may
        have, `boxes` and `box_indices` are packed, `crop_size` is a tuple of two ints, and
        every entry is right.

    Notes
    -----
    The call's ``out`` is `out` if that is packed, writable and apart from the other arrays, or a
    small new array if `out` is None, aligned if it is to be `shared` with another library. The
    call's ``out`` is None if the result is empty or large, or if `out` needs the checks of
    ``_results.py``.
    """
    cdef double size
    cdef cnp.npy_intp shape[4]
    cdef int kind = cnp.NPY_FLOAT64 if in_float64 else cnp.NPY_FLOAT32
    cdef cnp.ndarray indices
    cdef Call call
    if not (
        _is_plain_image(image) and type(crop_size) is tuple and len(<tuple>crop_size) == 2
        and _is_plain_size((<tuple>crop_size)[0]) and _is_plain_size((<tuple>crop_size)[1])
        and _are_plain_boxes(boxes, in_float64)
    ):
        return None
    shape[0] = cnp.PyArray_DIM(<cnp.ndarray>boxes, 0)
    shape[1] = (<tuple>crop_size)[0]
    shape[2] = (<tuple>crop_size)[1]
    shape[3] = cnp.PyArray_DIM(<cnp.ndarray>image, 3)
    indices = _plain_indices(box_indices, shape[0], cnp.PyArray_DIM(<cnp.ndarray>image, 0))
    if indices is None:
        return None
    call = Call.__new__(Call)
    call.operation = "crop_and_resize"
    call.sampling = sampling
    call.compute_dtype = compute_dtype
    call.extrapolation_value = extrapolation_value
    call.num_threads = num_threads
    call.image = image
    call.boxes = boxes
    call.box_indices = indices
    if out is not None:
        if _is_plain_out(out, shape, kind, image, boxes, indices):
            call.out = out
        return call
    size = <double>shape[0] * shape[1] * shape[2] * shape[3] * (8 if in_float64 else 4)
    if 0 < size <= _SMALL:
        if shared:
            call.out = _new_aligned(4, shape, kind, <Py_ssize_t>size)
        else:
            call.out = cnp.PyArray_EMPTY(4, shape, kind, 0)
    return call


def plain_grad_boxes(
    object grads, object image, object boxes, object box_indices, object sampling,
    object compute_dtype, bint in_float64, object num_threads, bint shared=False,
):
    """Make a call of a box gradient if its arguments are plain and the result small; or None."""
    cdef cnp.npy_intp shape[2]
    cdef int kind
    cdef cnp.ndarray indices
    cdef Call call
    if not (
        _is_plain_image(grads) and _is_plain_image(image)
        and _are_plain_boxes(boxes, in_float64)
    ):
        return None
    shape[0] = cnp.PyArray_DIM(<cnp.ndarray>boxes, 0)
    shape[1] = 4
    if not (
        0 < shape[0] <= _SMALL // 32 and cnp.PyArray_DIM(<cnp.ndarray>grads, 0) == shape[0]
        and cnp.PyArray_DIM(<cnp.ndarray>image, 3) > 0
        and cnp.PyArray_DIM(<cnp.ndarray>grads, 3) == cnp.PyArray_DIM(<cnp.ndarray>image, 3)
    ):
        return None
    indices = _plain_indices(box_indices, shape[0], cnp.PyArray_DIM(<cnp.ndarray>image, 0))
    if indices is None:
        return None
    call = Call.__new__(Call)
    call.operation = "grad_boxes"
    call.sampling = sampling
    call.compute_dtype = compute_dtype
    call.extrapolation_value = 0.0
    call.num_threads = num_threads
    call.grads = grads
    call.image = image
    call.boxes = boxes
    call.box_indices = indices
    kind = cnp.NPY_FLOAT64 if in_float64 else cnp.NPY_FLOAT32
    if shared:
        call.out = _new_aligned(2, shape, kind, shape[0] * (32 if in_float64 else 16))
    else:
        call.out = cnp.PyArray_EMPTY(2, shape, kind, 0)
    return call


cdef bint _apart(cnp.ndarray a, cnp.ndarray b):
    """Whether the memory from the first to the last byte of `a`, which is packed, and of `b`
    does not overlap."""
    cdef size_t a_low = <size_t>cnp.PyArray_DATA(a), a_high = a_low + <size_t>cnp.PyArray_NBYTES(a)
    cdef size_t b_low = <size_t>cnp.PyArray_DATA(b), b_high = b_low
    cdef Py_ssize_t reach
    cdef int n
    for n in range(cnp.PyArray_NDIM(b)):
        reach = (cnp.PyArray_DIM(b, n) - 1) * cnp.PyArray_STRIDE(b, n)
        if reach < 0:
            b_low += <size_t>reach
        else:
            b_high += <size_t>reach
    b_high += <size_t>cnp.PyArray_ITEMSIZE(b)
    return a_high <= b_low or b_high <= a_low


cdef bint _is_plain_out(
    object out, const cnp.npy_intp* shape, int kind, cnp.ndarray image, cnp.ndarray boxes,
    cnp.ndarray indices,
):
    """Whether `out` is packed and writable, of that shape and dtype, and apart from the inputs.

    An `out` that is not plain may still be right. Only the first and the last axis of `image`
    may be empty.
    """
    cdef cnp.ndarray array
    cdef int n
    if not (_is_plain(out, 4) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)):
        return False
    array = <cnp.ndarray>out
    if cnp.PyArray_TYPE(array) != kind:
        return False
    for n in range(4):
        if cnp.PyArray_DIM(array, n) != shape[n]:
            return False
    return (
        cnp.PyArray_SIZE(array) > 0 and _apart(array, image) and _apart(array, boxes)
        and _apart(array, indices))


def in_environment(const char* name):
    """Whether an environment variable is set; ``os.environ`` takes a microsecond to say no."""
    return getenv(name) != NULL
