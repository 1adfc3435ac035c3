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


cdef inline bint _is_inside(real v, real limit) noexcept nogil:
    return v >= 0 and v <= limit


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
    cdef Py_ssize_t i, index, top = n - 1, origin = begin

    if count > 1:
        start = a * limit
        scale = (b - a) * limit / <real>(count - 1)
    else:
        start = <real>(0.5 * <double>(a + b) * <double>(n - 1))
        scale = -0.0    # start + 0 * scale is start, even if that is -0.0

    # From both ends, so that the loops over what is inside are free of choices.
    while begin < end and not _is_inside(start + <real>begin * scale, limit):
        begin += 1
    while begin < end and not _is_inside(start + <real>(end - 1) * scale, limit):
        end -= 1
    first[0], last[0] = begin, end
    if nearest:
        for i in range(begin, end):
            v = start + <real>i * scale
            index = <Py_ssize_t>v
            index += v - <real>index >= <real>0.5
            lo[i - origin] = hi[i - origin] = min(index, top)
    else:
        for i in range(begin, end):
            v = start + <real>i * scale
            index = <Py_ssize_t>v
            floor_v = <real>index
            lo[i - origin] = min(index, top)
            hi[i - origin] = min(index + (v > floor_v), top)
            weight[i - origin] = v - floor_v


cdef inline double position(
    real a, real b, Py_ssize_t n, Py_ssize_t count, Py_ssize_t i,
) noexcept nogil:
    """Position v of sample i, as `sample_axis` computes it; exact in the double."""
    cdef real v
    if count == 1:
        v = <real>(0.5 * <double>(a + b) * <double>(n - 1))
    else:
        v = a * <real>(n - 1) + <real>i * ((b - a) * <real>(n - 1) / <real>(count - 1))
    return <double>v


cdef inline bint sample_span(
    real a, real b, Py_ssize_t n, Py_ssize_t count, Py_ssize_t* low, Py_ssize_t* high,
) noexcept nogil:
    """Bound the pixels that the samples of an axis read; False if they read none.

    Positions are monotone, so the two end samples say it all: what is read lies in
    ``[low, high]``. An end that is not a number comes from an overflow, and then no
    sample is inside.
    """
    cdef double first = position(a, b, n, count, 0)
    cdef double last = position(a, b, n, count, count - 1)
    cdef double least = first if first < last else last
    cdef double most = last if first < last else first
    # As `sample_axis` compares: it may be beyond the last pixel, which is then what is read.
    cdef double limit = <double><real>(n - 1)
    if not (least <= limit and most >= 0):
        return False
    least = least if least > 0 else 0
    most = most if most < limit else limit
    low[0] = min(<Py_ssize_t>least, n - 1)
    high[0] = <Py_ssize_t>most
    if <double>high[0] < most:
        high[0] += 1
    high[0] = min(high[0], n - 1)
    return True


cdef inline Py_ssize_t first_sample(
    real a, real b, Py_ssize_t n, Py_ssize_t count, double bound, bint rising, bint strict,
) noexcept nogil:
    """First sample at or past `bound` (beyond it if `strict`), going the way they go."""
    cdef Py_ssize_t begin = 0, end = count, middle
    cdef double ahead
    while begin < end:
        middle = begin + (end - begin) // 2
        ahead = position(a, b, n, count, middle) - bound
        if not rising:
            ahead = -ahead
        if ahead > 0 or (ahead == 0 and not strict):
            end = middle
        else:
            begin = middle + 1
    return begin


cdef inline void samples_reading(
    real a, real b, Py_ssize_t n, Py_ssize_t count, Py_ssize_t low, Py_ssize_t high,
    Py_ssize_t* begin, Py_ssize_t* end,
) noexcept nogil:
    """Find the samples ``[begin, end)`` that may read one of the pixels ``[low, high]``."""
    cdef bint rising = (
        position(a, b, n, count, 0) <= position(a, b, n, count, count - 1))
    cdef double before = <double>(low - 1), after = <double>(high + 1)
    if high == n - 1:  # read from positions up to the limit of `sample_axis`
        after = max(after, <double><real>(n - 1) + 1)
    if rising:
        begin[0] = first_sample(a, b, n, count, before, True, True)
        end[0] = first_sample(a, b, n, count, after, True, False)
    else:
        begin[0] = first_sample(a, b, n, count, after, False, True)
        end[0] = first_sample(a, b, n, count, before, False, False)
