# How a tile reads source rows and makes crop rows: two choices, made once for each tile.
#
# How is a source row read? By the first *reader* that can:
#
#     IN_PLACE   the image holds reals, which are read where they are
#     BYTES      uint8, packed, up to four channels: 16-byte windows and byte shuffles
#     CONVERT    any image: pixels are loaded as reals first; when the sampling step is large,
#                only the taps are loaded
#
# In which order is a crop row made? By the first *schedule* that pays:
#
#     TAPS       all four taps of a crop pixel at once, for float32 of three channels, if crop
#                rows share few source rows and stores are not streamed
#     DEEP       all four taps of a crop pixel at once, for many channels
#     KEEP_ROWS  each source row is interpolated along x, the last two are kept; then along y
#
# TAPS and DEEP need the reader IN_PLACE.

cdef extern from "Python.h" nogil:
    const Py_ssize_t PY_SSIZE_T_MAX, PY_SSIZE_T_MIN

cdef extern from "_simd.h" nogil:
    const int CROPKIT_VECTOR_BYTES
    const int CROPKIT_QUADS
    const int CROPKIT_TAPS
    void cropkit_lerp_bytes(
        float*, const uint8_t*, const int32_t*, const int32_t*, const int32_t*,
        const float*, Py_ssize_t) noexcept
    void cropkit_pick_bytes(
        float*, const uint8_t*, const int32_t*, const int32_t*, Py_ssize_t) noexcept
    Py_ssize_t cropkit_lerp_pixels1(
        float*, const float*, const Py_ssize_t*, const Py_ssize_t*, const float*,
        Py_ssize_t, Py_ssize_t) noexcept
    Py_ssize_t cropkit_lerp_pixels3(
        int, float*, const float*, const float*, const Py_ssize_t*, const Py_ssize_t*,
        const float*, float, Py_ssize_t, Py_ssize_t) noexcept
    void cropkit_pick_pixels3(
        float*, const float*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t) noexcept
    Py_ssize_t cropkit_lerp_pixels4(
        float*, const float*, const Py_ssize_t*, const Py_ssize_t*, const float*,
        Py_ssize_t) noexcept

cdef enum:
    BYTES_WINDOW = 16
    # Source rows are prefetched only if the images do not stay in the second-level cache, and if
    # the rows do not push each other out of the first-level cache. Both are in bytes.
    PREFETCH_IMAGES = 1 << 21
    PREFETCH_ROW = 1 << 13

    # To read all taps at once pays if four crop rows need at least this many new source rows.
    # DEEP: a kept row costs a store and a load; four taps cost two loads more than kept rows.
    # TAPS: the cost is the lerp along x, of two rows for each crop row. PICK is TAPS of nearest:
    # reading a tap costs as much as keeping a row and copying it.
    NEW_ROWS_DEEP = 3
    NEW_ROWS_TAPS = 5
    NEW_ROWS_PICK = 3

cdef enum Reader:
    IN_PLACE
    BYTES
    CONVERT

cdef enum Schedule:
    KEEP_ROWS
    DEEP
    TAPS


cdef struct Columns:
    # The x table of a tile's inside samples, and the other tables of its reader.
    Py_ssize_t count
    Py_ssize_t* lo          # columns of the image; once planned, offsets into the row read
    Py_ssize_t* hi
    void* weight
    Py_ssize_t last         # offset of that row's last pixel, if neighbours are adjacent
    Method method
    Reader reader
    Schedule schedule
    Py_ssize_t* load        # for CONVERT: the columns to load if it loads only the taps
    void* loaded            # for CONVERT: the pixels as reals
    char* raw               # for CONVERT: the pixels made native and aligned
    int32_t* start          # for BYTES: see _simd.h
    int32_t* left
    int32_t* right
    float* lane_weight
    bint load_taps
    Py_ssize_t load_first, load_count
    Py_ssize_t quads        # for BYTES: windows in a row, a multiple of every CROPKIT_QUADS
    Py_ssize_t lead         # for BYTES: dummy floats before the first, which align the stores
    Py_ssize_t ahead, ahead_bytes   # the part of a source row to prefetch; 0 bytes for none


cdef struct RowRing:
    # The last two source rows as a tile has made them, for crop rows that read them again.
    void* at[2]
    Py_ssize_t tag[2]       # which rows they are; -1 where there is none yet


cdef inline void empty_ring(RowRing* ring, void* first, void* second) noexcept nogil:
    """Give the ring memory for two rows."""
    ring.at[0] = first
    ring.at[1] = second
    ring.tag[0] = ring.tag[1] = -1


cdef inline void turn_ring(RowRing* ring, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    """Swap the two slots if source row `lo` is in slot 1, or `hi` in slot 0.

    The caller then makes each row that is missing in its slot, `lo` in slot 0 first.
    """
    # `hi` must leave slot 0 before `lo` is made there.
    if lo == ring.tag[1] or (lo != ring.tag[0] and hi == ring.tag[0]):
        ring.tag[0], ring.tag[1] = ring.tag[1], ring.tag[0]
        ring.at[0], ring.at[1] = ring.at[1], ring.at[0]


cdef inline void lerp_pixels(
    real* dst, const real* row, const Py_ssize_t* lo, const Py_ssize_t* hi,
    const real* weight, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t depth,
) noexcept nogil:
    """Interpolate pixels one by one; with a constant `depth` the compiler unrolls the loop."""
    cdef Py_ssize_t i, c
    cdef const real* a
    cdef const real* b
    cdef real w
    for i in range(begin, end):
        a = row + lo[i]
        b = row + hi[i]
        w = weight[i]
        for c in range(depth):
            dst[i * depth + c] = a[c] + (b[c] - a[c]) * w


cdef inline void pick_pixels(
    real* dst, const real* row, const Py_ssize_t* lo, Py_ssize_t n, Py_ssize_t depth,
) noexcept nogil:
    cdef Py_ssize_t i, c
    for i in range(n):
        for c in range(depth):
            dst[i * depth + c] = row[lo[i] + c]


cdef void interpolate_reals(
    real* dst, const real* row, const Columns* x, Py_ssize_t depth,
) noexcept nogil:
    """Interpolate a source row of reals along x, at the samples of a crop row's inside run."""
    cdef const Py_ssize_t* lo = x.lo
    cdef const Py_ssize_t* hi = x.hi
    cdef const real* weight = <const real*>x.weight
    cdef Py_ssize_t done = 0, n = x.count
    if x.method == NEAREST:
        if depth == 1:
            pick_pixels(dst, row, lo, n, 1)
        elif depth == 3:
            if real is float:
                cropkit_pick_pixels3(dst, row, lo, n, x.last)
            else:
                pick_pixels(dst, row, lo, n, 3)
        elif depth == 4:
            pick_pixels(dst, row, lo, n, 4)
        else:
            pick_pixels(dst, row, lo, n, depth)
    elif depth == 1:
        if real is float:
            done = cropkit_lerp_pixels1(dst, row, lo, hi, weight, n, x.last)
        lerp_pixels(dst, row, lo, hi, weight, done, n, 1)
    elif depth == 3:
        if real is float:
            done = cropkit_lerp_pixels3(1, dst, row, row, lo, hi, weight, 0, n, x.last)
        lerp_pixels(dst, row, lo, hi, weight, done, n, 3)
    elif depth == 4:
        if real is float:
            done = cropkit_lerp_pixels4(dst, row, lo, hi, weight, n)
        lerp_pixels(dst, row, lo, hi, weight, done, n, 4)
    else:
        lerp_pixels(dst, row, lo, hi, weight, 0, n, depth)


cdef void convert_row(
    real* dst, const char* row, const Array4* image, const Columns* x,
) noexcept nogil:
    """Interpolate a source row of the image along x by the reader CONVERT."""
    load_pixels(
        <real*>x.loaded, row, image, x.load if x.load_taps else NULL, x.load_first,
        x.load_count, x.raw)
    interpolate_reals(dst, <const real*>x.loaded, x, image.depth)


cdef inline void interpolate_row(
    real* dst, const char* row, const Array4* image, const Columns* x,
) noexcept nogil:
    """Interpolate a source row of the image along x by the reader that the tile has chosen."""
    if x.reader == IN_PLACE:
        interpolate_reals(dst, <const real*>row, x, image.depth)
    elif x.reader == CONVERT:
        convert_row(dst, row, image, x)
    elif real is float:
        if x.method == NEAREST:
            cropkit_pick_bytes(dst - x.lead, <const uint8_t*>row, x.start, x.left, x.quads)
        else:
            cropkit_lerp_bytes(
                dst - x.lead, <const uint8_t*>row, x.start, x.left, x.right, x.lane_weight,
                x.quads)


cdef bint plan_bytes(const Array4* image, Columns* x) noexcept nogil:
    """Make the tables of the reader BYTES; False if some quad's taps are too far apart."""
    cdef Py_ssize_t depth = image.depth, row_bytes = image.width * depth
    cdef Py_ssize_t begin = x.lead, end = begin + x.count * depth
    cdef Py_ssize_t q, k, i = 0, c = 0, f
    cdef int32_t low, high
    cdef const float* weight = <const float*>x.weight
    for f in range(begin, end):
        x.left[f] = <int32_t>(x.lo[i] * depth + c)
        if x.method != NEAREST:
            x.right[f] = <int32_t>(x.hi[i] * depth + c)
            x.lane_weight[f] = weight[i]
        c += 1
        if c == depth:
            c = 0
            i += 1
    x.quads = (end + 15) // 16 * 4
    for f in range(4 * x.quads):
        if f < begin or f >= end:
            k = begin if f < begin else end - 1
            x.left[f] = x.left[k]
            if x.method != NEAREST:
                x.right[f] = x.right[k]
                x.lane_weight[f] = 0
    for q in range(x.quads):
        low = x.left[4 * q]
        high = low
        for k in range(4 * q, 4 * q + 4):
            low = min(low, x.left[k])
            high = max(high, x.left[k] if x.method == NEAREST else x.right[k])
        low = <int32_t>min(low, row_bytes - BYTES_WINDOW)
        if high - low >= BYTES_WINDOW:
            return False
        x.start[q] = low
        for k in range(4 * q, 4 * q + 4):
            x.left[k] = (x.left[k] - low) | <int32_t>0x80808000
            if x.method != NEAREST:
                x.right[k] = (x.right[k] - low) | <int32_t>0x80808000
    return True


cdef void plan_load(const Array4* image, Columns* x) noexcept nogil:
    """Choose the pixels that CONVERT loads, and make the tables offsets into those pixels."""
    cdef Py_ssize_t i, low, high, taps = x.method
    low = min(x.lo[0], x.lo[x.count - 1])
    high = max(x.hi[0], x.hi[x.count - 1])
    x.load_taps = high - low + 1 > taps * x.count
    if x.load_taps:
        x.load_first = 0
        x.load_count = taps * x.count
        for i in range(x.count):
            x.load[taps * i] = x.lo[i]
            x.lo[i] = taps * i * image.depth
            if x.method != NEAREST:
                x.load[2 * i + 1] = x.hi[i]
                x.hi[i] = (2 * i + 1) * image.depth
    else:
        x.load_first = low
        x.load_count = high - low + 1
        for i in range(x.count):
            x.lo[i] = (x.lo[i] - low) * image.depth
            x.hi[i] = (x.hi[i] - low) * image.depth
    x.last = (x.load_count - 1) * image.depth


cdef void plan_prefetch(const Array4* image, Columns* x) noexcept nogil:
    """Find the bytes of a source row that the tile reads, if to prefetch them pays.

    A tile's rows are too short for hardware prefetchers to learn; prefetching them one crop row
    ahead saved a third of the cycles of `rgb_f32` (docs/design/kernel-log.md).
    """
    cdef Py_ssize_t near = x.lo[0] * image.stride_x, far = x.hi[x.count - 1] * image.stride_x
    cdef Py_ssize_t plane = image.height * max(image.stride_y, -image.stride_y)
    x.ahead = min(near, far)
    x.ahead_bytes = max(near, far) - x.ahead
    # The product is float64, since a broadcast batch may have more bytes than an integer counts.
    if <double>plane * <double>image.batch < PREFETCH_IMAGES or x.ahead_bytes > PREFETCH_ROW:
        x.ahead_bytes = 0


cdef inline Reader choose_reader(
    const real* unused, const Array4* image, Columns* x,
) noexcept nogil:
    """Choose the tile's reader; for BYTES this makes the tables, which shows whether it can."""
    if holds_reals(unused, image):
        return IN_PLACE
    if real is float:
        if (
            CROPKIT_QUADS > 0 and image.code == CROPKIT_uint8 and image.depth <= 4
            and image.packed and BYTES_WINDOW <= image.width * image.depth <= 0x7fffffff
            and plan_bytes(image, x)
        ):
            return BYTES
    return CONVERT


cdef inline Schedule choose_schedule(
    const real* unused, const Array4* image, const Columns* x, Py_ssize_t new_rows, bint stream,
) noexcept nogil:
    """Choose in which order the tile's crop rows are made."""
    if x.reader != IN_PLACE:
        return KEEP_ROWS
    if real is float:
        if (
            not stream and image.depth == 3
            and image.stride_x == 3 * <Py_ssize_t>sizeof(float)
            and new_rows >= (NEW_ROWS_PICK if x.method == NEAREST else NEW_ROWS_TAPS)
            and (x.method == NEAREST or x.count >= CROPKIT_TAPS > 0)
        ):
            return TAPS
    if (
        image.depth * <Py_ssize_t>sizeof(real) >= CROPKIT_VECTOR_BYTES
        and (x.method == NEAREST or new_rows >= NEW_ROWS_DEEP)
    ):
        return DEEP
    return KEEP_ROWS


cdef void plan_columns(
    const real* unused, const Array4* image, Columns* x, Py_ssize_t new_rows, bint stream,
) noexcept nogil:
    """Choose reader and schedule, and turn the columns in the x table into the reader's offsets.

    `new_rows` is the number of source rows by which four crop rows advance; `stream` says
    whether the result is written by streaming stores.
    """
    cdef Py_ssize_t i, stride = image.stride_x // <Py_ssize_t>sizeof(real)
    plan_prefetch(image, x)
    x.reader = choose_reader(unused, image, x)
    x.schedule = choose_schedule(unused, image, x, new_rows, stream)
    if x.reader == CONVERT:
        plan_load(image, x)
    elif x.reader == IN_PLACE:
        x.last = (image.width - 1) * stride if stride == image.depth else PY_SSIZE_T_MIN
        for i in range(x.count):
            x.lo[i] *= stride
            x.hi[i] *= stride
