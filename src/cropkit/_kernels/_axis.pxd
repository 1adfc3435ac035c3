"""Where a crop reads: the positions of samples along one axis, and the table of their taps.

A convention is a function that makes an `Axis`; everything else asks the axis. There is one
convention so far, `corners_axis`::

    count > 1:  scale = (b - a) * (n - 1) / (count - 1)      v[i] = a * (n - 1) + i * scale
    count = 1:  v[0]  = 0.5 * double(a + b) * (n - 1)
    inside      v >= 0 and v <= n - 1

`fill_table` tabulates the taps of each sample, the source pixels `lo` and `hi` with a weight::

    BILINEAR    lo = floor(v)   hi = ceil(v)   weight = v - lo
    NEAREST     lo = hi = v rounded half away from zero

Every operation is rounded on its own, in ``real``; the formulas and the order are those
of ``tf.image.crop_and_resize`` (TensorFlow 2.21, ``crop_and_resize_op.cc``).

A Cython fused function is compiled for both types of ``real``. If no other argument has that
type, the function takes a pointer `unused`, which is never read.
"""

ctypedef fused real:
    float
    double


cdef enum Method:
    # The method of interpolation; its value is the number of taps of a sample along an axis.
    NEAREST = 1
    BILINEAR = 2


cdef struct Axis:
    # `count` samples along `n` pixels. Sample i is at start + i * scale, computed in ``real``;
    # `start` and `scale` hold values of that type.
    Py_ssize_t n, count
    double start, scale


cdef struct AxisTable:
    # The taps of an axis' samples, from sample `begin` on. Only the entries of the inside samples
    # [first, last) are written. `lo` and `hi` lie in [0, n - 1], which keeps every read in
    # bounds.
    Py_ssize_t begin, first, last
    Py_ssize_t* lo
    Py_ssize_t* hi
    void* weight            # ``real``: the lerp weight from `lo` to `hi`; BILINEAR only


cdef inline Axis corners_axis(real a, real b, Py_ssize_t n, Py_ssize_t count) noexcept nogil:
    """Lay samples from edge `a` to edge `b`, normalized: 0 is the first pixel, 1 the last."""
    cdef Axis axis
    cdef real limit = <real>(n - 1)
    axis.n = n
    axis.count = count
    if count > 1:
        axis.start = a * limit
        axis.scale = (b - a) * limit / <real>(count - 1)
    else:
        axis.start = <real>(0.5 * <double>(a + b) * <double>(n - 1))
        axis.scale = -0.0    # start + 0 * scale is start, even if that is -0.0
    return axis


cdef inline real position(
    const real* unused, const Axis* axis, Py_ssize_t i,
) noexcept nogil:
    """Return the position of sample i, in pixels."""
    return <real>axis.start + <real>i * <real>axis.scale


cdef inline real limit_of(const real* unused, const Axis* axis) noexcept nogil:
    """Return the last position that is inside.

    If n - 1 is rounded up in ``real``, this position is beyond the last pixel; a sample there
    reads the last pixel.
    """
    return <real>(axis.n - 1)


cdef inline bint is_inside(real v, real limit) noexcept nogil:
    """Whether a position is inside; a NaN is not."""
    return v >= 0 and v <= limit


cdef inline void fill_table(
    const real* unused, const Axis* axis, Py_ssize_t begin, Py_ssize_t end, Method method,
    AxisTable* table,
) noexcept nogil:
    """Tabulate the taps of the samples ``begin <= i < end``.

    Since positions are monotone, the inside samples are one run; if no sample is inside,
    ``first == last``. A position is converted to an integer only after it has compared inside.
    """
    cdef real limit = limit_of(unused, axis)
    cdef real start = <real>axis.start, scale = <real>axis.scale, v, floor_v
    cdef Py_ssize_t i, index, top = axis.n - 1, origin = begin
    cdef Py_ssize_t* lo = table.lo
    cdef Py_ssize_t* hi = table.hi
    cdef real* weight = <real*>table.weight

    # Outside samples are cut off at both ends, so that the loops below need no test.
    while begin < end and not is_inside(start + <real>begin * scale, limit):
        begin += 1
    while begin < end and not is_inside(start + <real>(end - 1) * scale, limit):
        end -= 1
    table.begin = origin
    table.first = begin
    table.last = end
    if method == NEAREST:
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


cdef inline bint span_of(
    const real* unused, const Axis* axis, Py_ssize_t* low, Py_ssize_t* high,
) noexcept nogil:
    """Bound the pixels that the samples of an axis read to ``[low, high]``; False if none is.

    Positions are monotone, so the first and the last sample bound all others. If one of these
    positions is NaN, it comes from an overflow, and no sample is inside.
    """
    cdef double first = position(unused, axis, 0)
    cdef double last = position(unused, axis, axis.count - 1)
    cdef double least = first if first < last else last
    cdef double most = last if first < last else first
    cdef double limit = limit_of(unused, axis)
    cdef Py_ssize_t top = axis.n - 1
    if not (least <= limit and most >= 0):
        return False
    least = least if least > 0 else 0
    most = most if most < limit else limit
    low[0] = min(<Py_ssize_t>least, top)
    high[0] = <Py_ssize_t>most
    if <double>high[0] < most:
        high[0] += 1
    high[0] = min(high[0], top)
    return True


cdef inline Py_ssize_t first_sample(
    const real* unused, const Axis* axis, double bound, bint rising, bint strict,
) noexcept nogil:
    """Return the first sample at or past `bound`, or past it if `strict`.

    Past means above if positions rise with the sample (`rising`), else below.
    """
    cdef Py_ssize_t begin = 0, end = axis.count, middle
    cdef double ahead
    while begin < end:
        middle = begin + (end - begin) // 2
        ahead = <double>position(unused, axis, middle) - bound
        if not rising:
            ahead = -ahead
        if ahead > 0 or (ahead == 0 and not strict):
            end = middle
        else:
            begin = middle + 1
    return begin


cdef inline void samples_reading(
    const real* unused, const Axis* axis, Py_ssize_t low, Py_ssize_t high,
    Py_ssize_t* begin, Py_ssize_t* end,
) noexcept nogil:
    """Find the samples ``[begin, end)`` that may read one of the pixels ``[low, high]``."""
    cdef bint rising = (
        position(unused, axis, 0) <= position(unused, axis, axis.count - 1))
    cdef double before = <double>(low - 1), after = <double>(high + 1)
    if high == axis.n - 1:
        after = max(after, <double>limit_of(unused, axis) + 1)
    if rising:
        begin[0] = first_sample(unused, axis, before, True, True)
        end[0] = first_sample(unused, axis, after, True, False)
    else:
        begin[0] = first_sample(unused, axis, after, False, True)
        end[0] = first_sample(unused, axis, before, False, False)


cdef inline double share_of(const Axis* axis) noexcept nogil:
    """Return by how much more than its predecessor a sample moves with the axis' second edge.

    The unit is pixels; the axis has several samples. The gradient of the edges needs this.
    """
    return <double>(axis.n - 1) / <double>(axis.count - 1)
