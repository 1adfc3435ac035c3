# The forward kernel, included by each instruction set's module.
#
# A call is cut into tiles: a box's whole crop, or some rows and columns of a large crop. A tile
# tabulates its taps (one table for each axis), then makes its crop rows one by one. It keeps
# the last two source rows, already interpolated along x: crop rows that fall between the same
# two source rows read them again, and a crop row is one pass over two rows in the first-level
# cache:
#
#     source row --(_rows.pxi: load, lerp along x)--> row --(lerp along y)--> crop row
#
# Tasks raise nothing, and read by no index that was not compared in `fill_table` or here.

include "_arrays4.pxi"
include "_store.pxi"
include "_team.pxi"
include "_rows.pxi"
include "_tiles.pxi"

from libc.string cimport memcpy

cdef extern from "_environment.h" nogil:
    uint64_t cropkit_enter(bint flush) noexcept
    void cropkit_leave(uint64_t saved) noexcept

cdef extern from "_simd.h" nogil:
    void cropkit_stream_fence() noexcept
    void cropkit_prefetch(const char*, Py_ssize_t) noexcept
    ctypedef struct cropkit_carry:
        Py_ssize_t bytes
    void cropkit_flush_carry(cropkit_carry*) noexcept
    void cropkit_blend_f32(
        float*, const float*, const float*, float, Py_ssize_t, int, cropkit_carry*) noexcept
    void cropkit_blend_f64(
        double*, const double*, const double*, double, Py_ssize_t, int, cropkit_carry*) noexcept
    void cropkit_copy_f32(
        float*, const float*, const float*, float, Py_ssize_t, int, cropkit_carry*) noexcept
    void cropkit_copy_f64(
        double*, const double*, const double*, double, Py_ssize_t, int, cropkit_carry*) noexcept

cdef extern from "_deep.h" nogil:
    void cropkit_deep_lerp_f32(
        float*, const float*, const float*, const Py_ssize_t*, const Py_ssize_t*,
        const float*, float, Py_ssize_t, Py_ssize_t, int, cropkit_carry*) noexcept
    void cropkit_deep_lerp_f64(
        double*, const double*, const double*, const Py_ssize_t*, const Py_ssize_t*,
        const double*, double, Py_ssize_t, Py_ssize_t, int, cropkit_carry*) noexcept
    void cropkit_deep_pick_f32(
        float*, const float*, const float*, const Py_ssize_t*, const Py_ssize_t*,
        const float*, float, Py_ssize_t, Py_ssize_t, int, cropkit_carry*) noexcept
    void cropkit_deep_pick_f64(
        double*, const double*, const double*, const Py_ssize_t*, const Py_ssize_t*,
        const double*, double, Py_ssize_t, Py_ssize_t, int, cropkit_carry*) noexcept

cdef enum:
    PAD = 16    # reals that a vector store may write past the end of a scratch row


cdef struct Scratch:
    AxisTable y
    AxisTable x
    Columns columns
    void* rows[2]
    void* line      # a crop row that `out` cannot take directly


cdef Py_ssize_t carve(
    Scratch* s, char* base, const Array4* image, const Tiling* tiling, Py_ssize_t real_size,
) noexcept nogil:
    """Lay a thread's scratch out from `base`, which may be NULL; return its size in bytes.

    Each array has the size of a tile's row or of its number of rows.
    """
    cdef Columns* x = &s.columns
    cdef Py_ssize_t n = tiling.columns, values = n * image.depth
    cdef Py_ssize_t row = (values + PAD) * real_size + 2 * LINE
    cdef Py_ssize_t loadable = min(image.width, 2 * n) * image.depth
    cdef Py_ssize_t lanes = (values + 2 * PAD) // 16 * 16 if image.depth <= 4 else 0
    cdef Py_ssize_t at = 0
    at = place_table(base, &s.y, at, tiling.rows, real_size)
    at = place_table(base, &s.x, at, n, real_size)
    at = place(base, <void**>&x.load, at, 2 * n * sizeof(Py_ssize_t))
    at = place(base, &x.loaded, at, loadable * real_size)
    at = place(base, <void**>&x.raw, at, loadable * image.itemsize)
    at = place(base, <void**>&x.start, at, lanes)
    at = place(base, <void**>&x.left, at, 4 * lanes)
    at = place(base, <void**>&x.right, at, 4 * lanes)
    at = place(base, <void**>&x.lane_weight, at, 4 * lanes)
    at = place(base, &s.rows[0], at, row)
    at = place(base, &s.rows[1], at, row)
    return place(base, &s.line, at, row)


# ---- one tile ------------------------------------------------------------------------


cdef inline void fill(real* dst, Py_ssize_t n, real value) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        dst[i] = value


cdef inline const real* fetch_rows(
    const real* unused, RowRing* rows, Py_ssize_t lo, Py_ssize_t hi,
    const char* pixels, const Array4* image, const Columns* x,
) noexcept nogil:
    """Bring source row `lo` to ``rows.at[0]``; return where source row `hi` is then.

    `unused` only names the type ``real``.
    """
    turn_ring(rows, lo, hi)
    if lo != rows.tag[0]:
        interpolate_row(<real*>rows.at[0], pixels + lo * image.stride_y, image, x)
        rows.tag[0] = lo
    if hi == lo:
        return <const real*>rows.at[0]
    if hi != rows.tag[1]:
        interpolate_row(<real*>rows.at[1], pixels + hi * image.stride_y, image, x)
        rows.tag[1] = hi
    return <const real*>rows.at[1]


cdef inline void prefetch_rows(
    const RowRing* rows, Py_ssize_t lo, Py_ssize_t hi,
    const char* pixels, const Array4* image, const Columns* x,
) noexcept nogil:
    """Prefetch the tile's part of source rows `lo` and `hi`, unless the ring holds them."""
    if lo != rows.tag[0] and lo != rows.tag[1]:
        cropkit_prefetch(pixels + lo * image.stride_y + x.ahead, x.ahead_bytes)
    if hi != lo and hi != rows.tag[0] and hi != rows.tag[1]:
        cropkit_prefetch(pixels + hi * image.stride_y + x.ahead, x.ahead_bytes)


cdef inline void write_row(
    real* dst, const real* top, const real* bottom, real weight, Py_ssize_t n,
    Method method, bint stream, cropkit_carry* carry,
) noexcept nogil:
    """Write the inside run of a crop row, from two rows interpolated along x."""
    if real is float:
        if method == NEAREST:
            cropkit_copy_f32(dst, top, top, weight, n, stream, carry)
        else:
            cropkit_blend_f32(dst, top, bottom, weight, n, stream, carry)
    else:
        if method == NEAREST:
            cropkit_copy_f64(dst, top, top, weight, n, stream, carry)
        else:
            cropkit_blend_f64(dst, top, bottom, weight, n, stream, carry)


cdef inline void write_deep_row(
    real* dst, const char* top, const char* bottom, real weight, const Columns* x,
    Py_ssize_t depth, bint stream, cropkit_carry* carry,
) noexcept nogil:
    """Write the inside run of a crop row by the schedule DEEP, from two rows of the image."""
    cdef const real* x_weight = <const real*>x.weight
    if real is float:
        if x.method == NEAREST:
            cropkit_deep_pick_f32(
                dst, <const float*>top, <const float*>bottom, x.lo, x.hi, x_weight, weight,
                x.count, depth, stream, carry)
        else:
            cropkit_deep_lerp_f32(
                dst, <const float*>top, <const float*>bottom, x.lo, x.hi, x_weight, weight,
                x.count, depth, stream, carry)
    else:
        if x.method == NEAREST:
            cropkit_deep_pick_f64(
                dst, <const double*>top, <const double*>bottom, x.lo, x.hi, x_weight, weight,
                x.count, depth, stream, carry)
        else:
            cropkit_deep_lerp_f64(
                dst, <const double*>top, <const double*>bottom, x.lo, x.hi, x_weight, weight,
                x.count, depth, stream, carry)


cdef inline void write_taps_row(
    real* dst, const char* top, const char* bottom, real weight, const Columns* x,
) noexcept nogil:
    """Write the inside run of a crop row by the schedule TAPS, from two rows of the image."""
    if real is float:
        if x.method == NEAREST:
            cropkit_pick_pixels3(dst, <const float*>top, x.lo, x.count, x.last)
        else:
            cropkit_lerp_pixels3(
                2, dst, <const float*>top, <const float*>bottom, x.lo, x.hi,
                <const float*>x.weight, weight, x.count, x.last)


cdef inline Py_ssize_t new_rows(const Py_ssize_t* y_lo, Py_ssize_t n) noexcept nogil:
    """Return by how many source rows four crop rows advance on average, rounded down."""
    cdef Py_ssize_t moved = y_lo[n - 1] - y_lo[0]
    return 4 * max(moved, -moved) // (n - 1) if n > 1 else PY_SSIZE_T_MAX


cdef struct ForwardJob:
    Order* order            # the order of rows of tiles; NULL for the order of the boxes
    const void* boxes
    const Py_ssize_t* box_indices
    const void* extrapolation   # a ``real``; to convert it here would flush a subnormal value
    Array4 image
    Method method
    Store store
    Tiling tiling


cdef void crop_tile(
    const real* box, Py_ssize_t image_index, real extrapolation, char* out,
    Py_ssize_t y_begin, Py_ssize_t y_end, Py_ssize_t x_begin, Py_ssize_t x_end,
    const ForwardJob* job, Scratch* s,
) noexcept nogil:
    """Write rows [y_begin, y_end) and columns [x_begin, x_end) of one box's crop to `out`."""
    cdef const Array4* image = &job.image
    cdef const Array4* crops = &job.store.out
    cdef Columns* x = &s.columns
    cdef RowRing rows
    cdef cropkit_carry carry
    cdef Axis axis
    cdef Py_ssize_t y, i, y_first = y_end, y_last = y_end, x_first = x_end, x_last = x_end
    cdef Py_ssize_t depth = crops.depth, before, inside, after, phase
    cdef const char* pixels = image.data + image_index * image.stride_b
    cdef const real* bottom
    cdef const Py_ssize_t* y_lo = s.y.lo
    cdef const Py_ssize_t* y_hi = s.y.hi
    cdef const real* y_weight = <const real*>s.y.weight
    cdef real* line

    if image_index >= 0 and image_index < image.batch:
        axis = corners_axis(box[0], box[2], image.height, crops.height)
        fill_table(box, &axis, y_begin, y_end, job.method, &s.y)
        y_first, y_last = s.y.first, s.y.last
        axis = corners_axis(box[1], box[3], image.width, crops.width)
        fill_table(box, &axis, x_begin, x_end, job.method, &s.x)
        x_first, x_last = s.x.first, s.x.last
    if x_first == x_last:
        y_first = y_last = y_end
    before = (x_first - x_begin) * depth
    inside = (x_last - x_first) * depth
    after = (x_end - x_last) * depth

    # Scratch rows start at the same offset within a cache line as the crop row, so that a vector
    # that is aligned in one is aligned in the other.
    out += x_begin * crops.stride_x
    line = <real*>(out + y_begin * crops.stride_y) if job.store.direct else <real*>s.line
    phase = <size_t>(line + before) % LINE
    empty_ring(&rows, <char*>s.rows[0] + LINE + phase, <char*>s.rows[1] + LINE + phase)
    carry.bytes = 0
    if y_first < y_last:
        x.count = x_last - x_first
        x.lo = s.x.lo + (x_first - x_begin)
        x.hi = s.x.hi + (x_first - x_begin)
        x.weight = <real*>s.x.weight + (x_first - x_begin)
        x.method = job.method
        x.lead = phase // <Py_ssize_t>sizeof(real)
        plan_columns(
            <const real*>box, image, x,
            new_rows(y_lo + (y_first - y_begin), y_last - y_first), job.store.stream)

    for y in range(y_begin, y_end):
        i = y - y_begin
        if job.store.direct:
            line = <real*>(out + y * crops.stride_y)
        if y < y_first or y >= y_last:
            fill(line, before + inside + after, extrapolation)
        else:
            if x.ahead_bytes and y + 1 < y_last:
                prefetch_rows(&rows, y_lo[i + 1], y_hi[i + 1], pixels, image, x)
            fill(line, before, extrapolation)
            if x.schedule == DEEP:
                write_deep_row(
                    line + before, pixels + y_lo[i] * image.stride_y,
                    pixels + y_hi[i] * image.stride_y, y_weight[i], x, depth, job.store.stream,
                    &carry)
            elif x.schedule == TAPS:
                write_taps_row(
                    line + before, pixels + y_lo[i] * image.stride_y,
                    pixels + y_hi[i] * image.stride_y, y_weight[i], x)
            else:
                bottom = fetch_rows(box, &rows, y_lo[i], y_hi[i], pixels, image, x)
                write_row(
                    line + before, <const real*>rows.at[0], bottom, y_weight[i], inside, x.method,
                    job.store.stream, &carry)
            fill(line + before + inside, after, extrapolation)
        if not job.store.direct:
            cropkit_flush_carry(&carry)
            store_pixels(line, out + y * crops.stride_y, &job.store, x_end - x_begin)
    cropkit_flush_carry(&carry)


# ---- all tiles -----------------------------------------------------------------------


cdef inline void run_tile(
    const real* boxes, Py_ssize_t tile, const ForwardJob* job, char* scratch,
) noexcept nogil:
    """Make tile number `tile`: columns are the fastest axis, then rows of tiles in order."""
    cdef Scratch s
    cdef uint64_t saved
    cdef const Tiling* tiling = &job.tiling
    cdef const Array4* crops = &job.store.out
    cdef Py_ssize_t x = tile % tiling.column_tiles * tiling.columns
    cdef Py_ssize_t row = tile // tiling.column_tiles
    cdef Py_ssize_t n = row // tiling.row_tiles, y = row % tiling.row_tiles * tiling.rows
    if job.order != NULL:
        n = job.order[row].box
        y = job.order[row].row_tile * tiling.rows
    carve(&s, scratch, &job.image, tiling, sizeof(real))
    saved = cropkit_enter(sizeof(real) == sizeof(float))
    crop_tile(
        boxes + 4 * n, job.box_indices[n], (<const real*>job.extrapolation)[0],
        crops.data + n * crops.stride_b, y, min(y + tiling.rows, crops.height),
        x, min(x + tiling.columns, crops.width), job, &s)
    cropkit_leave(saved)
    if job.store.stream:
        cropkit_stream_fence()


cdef void run_tile_f32(Py_ssize_t tile, const void* job, char* scratch) noexcept nogil:
    run_tile(<const float*>(<const ForwardJob*>job).boxes, tile, <const ForwardJob*>job, scratch)


cdef void run_tile_f64(Py_ssize_t tile, const void* job, char* scratch) noexcept nogil:
    run_tile(<const double*>(<const ForwardJob*>job).boxes, tile, <const ForwardJob*>job, scratch)


def crop_and_resize(
    cnp.ndarray image, int code, bint swapped, cnp.ndarray boxes, cnp.ndarray box_indices,
    cnp.ndarray out, Method method, real extrapolation, int num_threads, bint stream,
    bint in_order,
):
    """Fill `out` with crops. ``_cpu.py`` has checked every argument.

    Parameters
    ----------
    image : ndarray, shape (batch, height, width, depth)
        Any strides, alignment and byte order.
    code : int
        The image dtype's position in ``PIXEL_TYPES``.
    swapped : bool
        Whether the image's byte order is not the machine's.
    boxes : ndarray, shape (num_boxes, 4)
        Normalized; packed, float32 or float64, which is the type of all arithmetic. The type is
        chosen by a subscript of this function (``crop_and_resize["float"]``).
    box_indices : ndarray of intp, shape (num_boxes,)
        Packed.
    out : ndarray, shape (num_boxes, crop_height, crop_width, depth)
        The dtype of `boxes`, native; any strides and alignment; not empty.
    method : int
        One of ``METHODS``.
    extrapolation : float
    num_threads : int
        The largest size of the team; 1 starts no thread.
    stream : bool
        Whether to use streaming stores, which bypass the caches.
    in_order : bool
        Whether to work through the boxes as given, not sorted by the rows that they read.

    Raises
    ------
    MemoryError
        There is no memory for the scratch rows.
    KeyboardInterrupt
        A signal arrived; `out` is then partly filled.
    """
    cdef ForwardJob job
    cdef Tiling* tiling = &job.tiling
    cdef const Array4* crops = &job.store.out
    cdef Scratch unused
    cdef Py_ssize_t tiles, round_tiles
    # Not memoryviews: to acquire one takes as long as a small crop.
    cdef const real* edges = <const real*>cnp.PyArray_DATA(boxes)

    job.order = NULL
    job.boxes = edges
    job.box_indices = <const Py_ssize_t*>cnp.PyArray_DATA(box_indices)
    job.extrapolation = &extrapolation
    job.image = read_array(image, code, swapped)
    job.method = method
    job.store = open_store(edges, out, code_of(edges), stream)
    # A thread for fewer values than TILE_MIN costs more than it saves.
    num_threads = <int>min(num_threads, max(1, cnp.PyArray_SIZE(out) // TILE_MIN))
    tiling[0] = plan_tiles(crops, num_threads, 0 if in_order else max(1, <Py_ssize_t>(
        BAND_ORDER / (<double>job.image.width
                      * <double>(job.image.depth * job.image.itemsize)))))
    tiles = crops.batch * tiling.row_tiles * tiling.column_tiles
    round_tiles = max(
        1, ROUND_VALUES // (tiling.rows * tiling.columns * crops.depth)) * num_threads
    try:
        if not in_order:
            job.order = sort_tiles(
                edges, job.box_indices, &job.image, crops, tiling.rows, tiling.row_tiles)
        run_tasks(
            &run_tile_f32 if real is float else &run_tile_f64, &job, tiles, round_tiles,
            <int>min(num_threads, tiles), carve(&unused, NULL, &job.image, tiling, sizeof(real)))
    finally:
        free(job.order)
