"""Where a crop reads: one axis' table. Shared by forward and gradients.

::

    count > 1:  scale = (b - a) * (n - 1) / (count - 1)      v[i] = a * (n - 1) + i * scale
    count = 1:  v[0]  = 0.5 * double(a + b) * (n - 1)
    inside      v >= 0 and v <= n - 1
    bilinear    lo = floor(v)   hi = ceil(v)   weight = v - lo
    nearest     lo = hi = v rounded half away from zero      weight = 0

Every operation is rounded on its own, in ``real``; the formulas and the order are those
of ``tf.image.crop_and_resize`` (TensorFlow 2.21, ``crop_and_resize_op.cc``).
"""

ctypedef fused real:
    float
    double


cdef inline void sample_axis(
    real a, real b, Py_ssize_t n, Py_ssize_t count,
    Py_ssize_t begin, Py_ssize_t end, bint nearest,
    Py_ssize_t* lo, Py_ssize_t* hi, real* weight,
    Py_ssize_t* first, Py_ssize_t* last,
) noexcept nogil:
    """Tabulate samples ``begin <= i < end`` of ``count`` along an axis of length ``n``.

    Parameters
    ----------
    a, b
        The box's two edges, normalized.
    lo, hi, weight
        Written at ``[i - begin]`` for every inside sample i; else left alone.
    first, last
        Set to the run of inside samples ``[first, last)``. Since v is monotone in i
        they are one run. ``first == last`` when none is inside, NaN included.

    Notes
    -----
    Entries of ``lo`` and ``hi`` lie in ``[0, n - 1]``, for any a and b: these tables are
    what makes every read in bounds. A value is converted to an integer only after it has
    compared inside. The clamp matters for n - 1 not representable in ``real``, which may
    have been rounded up.
    """
    cdef real limit = <real>(n - 1)
    cdef real start, scale, v, floor_v
    cdef Py_ssize_t i, index, top = n - 1

    if count > 1:
        start = a * limit
        scale = (b - a) * limit / <real>(count - 1)
    else:
        start = <real>(0.5 * <double>(a + b) * <double>(n - 1))
        scale = 0

    first[0] = last[0] = end
    for i in range(begin, end):
        v = start + <real>i * scale if count > 1 else start
        if not (v >= 0 and v <= limit):
            if first[0] < end:
                last[0] = i
                return
            continue
        if first[0] == end:
            first[0] = i
        index = <Py_ssize_t>v
        floor_v = <real>index
        if nearest:
            if v - floor_v >= <real>0.5:
                index += 1
            lo[i - begin] = hi[i - begin] = index if index < top else top
        else:
            lo[i - begin] = index if index < top else top
            if v > floor_v:
                index += 1
            hi[i - begin] = index if index < top else top
            weight[i - begin] = v - floor_v
