# Arrays of four axes as the kernels see them: a pointer, strides in bytes, and the code of the
# dtype. Images, crops and their gradients are all of this kind.

from libc.stdint cimport int32_t, uint64_t, uint8_t
cimport numpy as cnp
from cropkit._kernels._axis cimport (
    BILINEAR, NEAREST, Axis, AxisTable, Method, corners_axis, fill_table, position, real)

cnp.import_array()

cdef extern from "_pixels.h" nogil:
    ctypedef void (*cropkit_loader_float)(
        float*, const char*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef void (*cropkit_loader_double)(
        double*, const char*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t) noexcept nogil
    const cropkit_loader_float* cropkit_loaders_float
    const cropkit_loader_double* cropkit_loaders_double
    const char** cropkit_pixel_names
    const int* cropkit_pixel_is_single
    const int CROPKIT_PIXEL_TYPE_COUNT
    const int CROPKIT_uint8, CROPKIT_float32, CROPKIT_float64
    void cropkit_realign(
        char*, const char*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, int) noexcept

# Names of the image dtypes; a dtype's code is its position in this tuple.
PIXEL_TYPES = tuple(
    [cropkit_pixel_names[code].decode() for code in range(CROPKIT_PIXEL_TYPE_COUNT)])

# The codes of the dtypes of which float32 holds every value.
EXACT_IN_FLOAT32 = frozenset(
    [code for code in range(CROPKIT_PIXEL_TYPE_COUNT) if cropkit_pixel_is_single[code]])

# The value that the kernels take for each method.
METHODS = {"nearest": NEAREST, "bilinear": BILINEAR}


cdef struct Array4:
    char* data
    Py_ssize_t batch, height, width, depth              # `batch` is also the number of crops
    Py_ssize_t stride_b, stride_y, stride_x, stride_c   # bytes
    Py_ssize_t itemsize
    int code            # of the dtype, its position in PIXEL_TYPES
    bint swapped        # whether its byte order is not the machine's
    bint aligned
    bint packed         # whether the pixels of a row adjoin, and the channels of a pixel


cdef Array4 read_array(cnp.ndarray array, int code, bint swapped):
    """Describe an array of four axes, which must outlive the description."""
    cdef Array4 it
    it.data = <char*>cnp.PyArray_DATA(array)
    it.batch, it.height, it.width, it.depth = (
        array.shape[0], array.shape[1], array.shape[2], array.shape[3])
    it.stride_b, it.stride_y, it.stride_x, it.stride_c = (
        array.strides[0], array.strides[1], array.strides[2], array.strides[3])
    it.itemsize = cnp.PyArray_ITEMSIZE(array)
    it.code = code
    it.swapped = swapped
    it.aligned = cnp.PyArray_ISALIGNED(array)
    it.packed = (
        (it.depth == 1 or it.stride_c == it.itemsize)
        and (it.width == 1 or it.stride_x == it.depth * it.itemsize))
    return it


cdef inline int code_of(const real* unused) noexcept nogil:
    """Return the code of the dtype ``real``."""
    if real is float:
        return CROPKIT_float32
    else:
        return CROPKIT_float64


cdef inline bint holds_reals(const real* unused, const Array4* image) noexcept nogil:
    """Whether a pixel of the array can be read in place as a run of ``real`` values."""
    return (
        image.code == code_of(unused) and image.aligned and not image.swapped
        and (image.depth == 1 or image.stride_c == <Py_ssize_t>sizeof(real)))


cdef void load_pixels(
    real* dst, const char* row, const Array4* image, const Py_ssize_t* columns,
    Py_ssize_t begin, Py_ssize_t count, char* raw,
) noexcept nogil:
    """Load `count` pixels of a row as packed reals: those in `columns`, or from `begin` on."""
    cdef Py_ssize_t stride_x = image.stride_x, stride_c = image.stride_c
    if image.swapped or not image.aligned:
        cropkit_realign(
            raw, row, columns, begin, count, stride_x, image.depth, stride_c,
            image.itemsize, image.swapped)
        row = raw
        columns = NULL
        begin = 0
        stride_c = image.itemsize
        stride_x = image.depth * stride_c
    if real is float:
        cropkit_loaders_float[image.code](
            dst, row, columns, begin, count, stride_x, image.depth, stride_c)
    else:
        cropkit_loaders_double[image.code](
            dst, row, columns, begin, count, stride_x, image.depth, stride_c)
