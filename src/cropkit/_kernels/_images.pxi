# Images as the kernels see them: a pointer, strides in bytes, and the code of the dtype.

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
    const int CROPKIT_PIXEL_TYPE_COUNT
    const int CROPKIT_uint8, CROPKIT_float32, CROPKIT_float64
    void cropkit_realign(
        char*, const char*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, int) noexcept

# Names of the image dtypes; an image's code is its dtype's position here.
PIXEL_TYPES = tuple(
    [cropkit_pixel_names[code].decode() for code in range(CROPKIT_PIXEL_TYPE_COUNT)])

# What the kernels take for a method's name.
METHODS = {"nearest": NEAREST, "bilinear": BILINEAR}


cdef struct Image:
    const char* data
    Py_ssize_t batch, height, width, depth
    Py_ssize_t stride_b, stride_y, stride_x, stride_c   # bytes
    Py_ssize_t itemsize
    int code
    bint swapped, aligned


cdef Image read_image(cnp.ndarray array, int code, bint swapped):
    """Describe an array of four axes; it must outlive the description."""
    cdef Image image
    image.data = <const char*>cnp.PyArray_DATA(array)
    image.batch, image.height, image.width, image.depth = (
        array.shape[0], array.shape[1], array.shape[2], array.shape[3])
    image.stride_b, image.stride_y, image.stride_x, image.stride_c = (
        array.strides[0], array.strides[1], array.strides[2], array.strides[3])
    image.itemsize = cnp.PyArray_ITEMSIZE(array)
    image.code = code
    image.swapped = swapped
    image.aligned = cnp.PyArray_ISALIGNED(array)
    return image


cdef inline bint holds_reals(const real* unused, const Image* image) noexcept nogil:
    """Whether a pixel of the array is a run of reals as they are."""
    cdef int own_code
    if real is float:
        own_code = CROPKIT_float32
    else:
        own_code = CROPKIT_float64
    return (
        image.code == own_code and image.aligned and not image.swapped
        and (image.depth == 1 or image.stride_c == <Py_ssize_t>sizeof(real)))


cdef void load_pixels(
    real* dst, const char* row, const Image* image, const Py_ssize_t* columns,
    Py_ssize_t begin, Py_ssize_t count, char* raw,
) noexcept nogil:
    """Load pixels of a row as packed reals: those listed, or ``begin, begin + 1, ...``."""
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
