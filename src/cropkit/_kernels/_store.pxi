# Writing finished rows to the result, of any dtype, strides and alignment; included by
# _forward.pxi.

cdef extern from "_pixels.h" nogil:
    ctypedef void (*cropkit_store_float)(
        char*, const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
    const cropkit_store_float* cropkit_stores
    void cropkit_store_float64_double(
        char*, const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept

cdef extern from "_store.h" nogil:
    void cropkit_put(char*, const char*, Py_ssize_t, int) noexcept


cdef struct Store:
    Array4 out      # in native byte order
    bint stream     # whether stores bypass the caches
    bint direct     # whether kernels can make a row of reals in the result itself


cdef Store open_store(
    const real* unused, cnp.ndarray out, int code, bint stream,
):
    """Describe a result in native byte order, which must outlive the description."""
    cdef Store store
    store.out = read_array(out, code, False)
    store.stream = stream
    store.direct = store.out.packed and store.out.aligned and code == code_of(unused)
    return store


cdef void store_pixels(
    const real* src, char* dst, const Store* store, Py_ssize_t n,
) noexcept nogil:
    """Write n pixels of a row to the result, or zeros if `src` is NULL."""
    cdef const Array4* out = &store.out
    if out.packed and (src == NULL or out.code == code_of(src)):
        cropkit_put(dst, <const char*>src, n * out.depth * out.itemsize, store.stream)
    elif real is float:
        cropkit_stores[out.code](dst, src, n, out.stride_x, out.depth, out.stride_c)
    else:
        cropkit_store_float64_double(dst, src, n, out.stride_x, out.depth, out.stride_c)
