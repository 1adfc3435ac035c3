# The gradient of the boxes, included after _grad_image.pxi by each instruction set's module.
#
# A task sums a chunk, some rows of one crop, in float64, as _grad_boxes.h explains. The sums of
# a crop's chunks are added in order. How a crop is cut does not depend on the threads.

include "_taps.pxi"

from cropkit._kernels._axis cimport share_of
from libc.math cimport isfinite

cdef extern from "_grad_boxes.h" nogil:
    double cropkit_lane_sum(const double*, Py_ssize_t) noexcept
    void cropkit_lane_sums(double*, const double*, Py_ssize_t, Py_ssize_t) noexcept
    double cropkit_sum_dots(
        double*, const float*, const float*, const float*, const Py_ssize_t*,
        const Py_ssize_t*, const double*, double, Py_ssize_t, Py_ssize_t) noexcept
    double cropkit_sum_rows(
        double*, const float*, const double*, const double*, const double*, const double*,
        double, Py_ssize_t) noexcept
    double cropkit_sum_pairs(
        double*, const float*, const float*, const float*, const Py_ssize_t*, const double*,
        const double*, double, Py_ssize_t) noexcept
    double cropkit_sum_slopes(
        double*, const double*, const double*, const double*, const double*, const double*,
        const double*, double, Py_ssize_t) noexcept

cdef enum:
    # Values of a chunk, which has at least one row of a crop: enough work for a task.
    CHUNK_VALUES = 1 << 16


# ---- sums ------------------------------------------------------------------------------


cdef void follow_edges(
    const double* sums, Py_ssize_t first, Py_ssize_t n, const Axis* axis, double* products,
    double* low, double* high,
) noexcept nogil:
    """Sum over samples, each times how far it moves with the axis' first and second edge."""
    cdef Py_ssize_t i
    cdef double limit = <double>(axis.n - 1), share
    if axis.count == 1:
        low[0] = high[0] = sums[0] * (0.5 * limit)
        return
    share = share_of(axis)
    for i in range(n):
        products[i] = sums[i] * (limit - <double>(first + i) * share)
    low[0] = cropkit_lane_sum(products, n)
    for i in range(n):
        products[i] = sums[i] * (<double>(first + i) * share)
    high[0] = cropkit_lane_sum(products, n)


cdef void finish_chunk(
    const SumScratch* s, const Chunk* chunk, Py_ssize_t lanes, double* sums,
) noexcept nogil:
    """Set `sums` to the chunk's part of the gradient of [y1, x1, y2, x2].

    `s` holds the sum of each row, and in `across` the `lanes` values that make each column's sum.
    """
    cdef Py_ssize_t n = chunk.x_last - chunk.x_first
    cropkit_lane_sums(s.column_sums, s.across, n, lanes)
    follow_edges(
        s.row_sums + chunk.y_first - chunk.begin, chunk.y_first, chunk.y_last - chunk.y_first,
        &chunk.y, s.products, &sums[0], &sums[2])
    follow_edges(
        s.column_sums, chunk.x_first, n, &chunk.x, s.products, &sums[1], &sums[3])


cdef inline const real* load_row(
    const real* unused, const char* crop, const Array4* grads, const SumScratch* s,
    const Chunk* chunk, Py_ssize_t y, bint direct,
) noexcept nogil:
    """Return the inside run of crop row y, in place if `direct`, else loaded into the scratch.

    `unused` only names the type ``real``.
    """
    cdef const char* row = crop + y * grads.stride_y
    if direct:
        return <const real*>(row + chunk.x_first * grads.stride_x)
    load_pixels(
        <real*>s.loaded, row, grads, NULL, chunk.x_first, chunk.x_last - chunk.x_first, s.raw)
    return <const real*>s.loaded


cdef void sum_dots(
    const char* crop, const char* pixels, const Array4* grads, const Array4* image,
    SumScratch* s, const Chunk* chunk,
) noexcept nogil:
    """Add each crop row to its sum and to `across` by dot products along the channels.

    The dtypes must be ones of which float32 holds every value.
    """
    cdef Py_ssize_t y, i, n = chunk.x_last - chunk.x_first
    cdef RowRing rows
    cdef bint direct = packs_reals(<float*>NULL, grads)
    # Pixels are read in place if they are float32.
    cdef bint in_place = holds_reals(<float*>NULL, image)
    cdef const void* top
    cdef const void* bottom
    cdef Columns columns = read_columns(image, s, chunk)
    empty_ring(&rows, s.tap_rows[0], s.tap_rows[1])
    locate_taps(<float*>NULL, s, chunk, image)
    memset(s.across, 0, n * CROPKIT_LANES * sizeof(double))
    for y in range(chunk.y_first, chunk.y_last):
        i = y - chunk.begin
        if y + 1 < chunk.y_last:
            prefetch_taps(s, i, pixels, image, &columns)
        if in_place:
            top = pixels + s.y.lo[i] * image.stride_y
            bottom = pixels + s.y.hi[i] * image.stride_y
        else:
            bottom = fetch_rows_of(<float*>NULL, s, &rows, i, pixels, image, chunk, False)
            top = rows.at[0]
        s.row_sums[i] = cropkit_sum_dots(
            s.across, load_row(<float*>NULL, crop, grads, s, chunk, y, direct),
            <const float*>top, <const float*>bottom, s.left, s.right,
            s.column_weight + chunk.x_first, s.row_weight[i], n, grads.depth)


cdef void sum_rows(
    const char* crop, const char* pixels, const Array4* grads, const Array4* image,
    SumScratch* s, const Chunk* chunk,
) noexcept nogil:
    """Add each crop row to its sum and to `across` from source rows interpolated along x.

    The last two source rows are kept. float32 must hold every value of the dtypes.
    """
    cdef Py_ssize_t y, i, count = (chunk.x_last - chunk.x_first) * grads.depth
    cdef Py_ssize_t values = whole_lanes(count)
    cdef RowRing rows
    cdef bint direct = packs_reals(<float*>NULL, grads)
    cdef const double* top
    cdef const double* bottom
    cdef Columns columns = read_columns(image, s, chunk)
    empty_ring(&rows, s.tap_rows[0], s.tap_rows[1])
    list_source_rows(s, chunk)
    for i in range(ROWS_AHEAD):
        cropkit_prefetch(
            pixels + s.source_rows[i] * image.stride_y + columns.ahead, columns.ahead_bytes)
    locate_taps(<float*>NULL, s, chunk, image)
    spread_weights(s, chunk, grads.depth)
    memset(s.across, 0, values * sizeof(double))
    for y in range(chunk.y_first, chunk.y_last):
        i = y - chunk.begin
        bottom = <const double*>fetch_rows_of(
            <float*>NULL, s, &rows, i, pixels, image, chunk, True)
        top = <const double*>rows.at[0]
        s.row_sums[i] = cropkit_sum_rows(
            s.across, load_row(<float*>NULL, crop, grads, s, chunk, y, direct), top, bottom,
            top + values, bottom + values, s.row_weight[i], count)


cdef void sum_pairs(
    const char* crop, const char* pixels, const Array4* grads, const Array4* image,
    SumScratch* s, const Chunk* chunk,
) noexcept nogil:
    """Add each crop row to its sum and to `across`, for crop rows that share no source rows.

    No source row is kept. The image is float32 of depth 1 whose pixels adjoin.
    """
    cdef Py_ssize_t y, i, n = chunk.x_last - chunk.x_first
    cdef bint direct = packs_reals(<float*>NULL, grads)
    cdef const double* seconds
    cdef Columns columns = read_columns(image, s, chunk)
    for y in range(chunk.y_first, min(chunk.y_first + PAIRS_AHEAD, chunk.y_last)):
        prefetch_pairs(s, y - chunk.begin, pixels, image, &columns)
    seconds = pair_taps(s, chunk, image.width)
    memset(s.across, 0, whole_lanes(n) * sizeof(double))
    for y in range(chunk.y_first, chunk.y_last):
        i = y - chunk.begin
        if y + PAIRS_AHEAD < chunk.y_last:
            prefetch_pairs(s, i + PAIRS_AHEAD, pixels, image, &columns)
        s.row_sums[i] = cropkit_sum_pairs(
            s.across, load_row(<float*>NULL, crop, grads, s, chunk, y, direct),
            <const float*>(pixels + s.y.lo[i] * image.stride_y),
            <const float*>(pixels + s.y.hi[i] * image.stride_y), s.pairs, seconds,
            s.value_weight, s.row_weight[i], n)
    # For a sample on a pixel, both taps are that pixel: the rise between them is 0.
    for i in range(n):
        if s.value_weight[i] == 0:
            s.across[i] = 0


cdef void sum_slopes(
    const char* crop, const char* pixels, const Array4* grads, const Array4* image,
    SumScratch* s, const Chunk* chunk,
) noexcept nogil:
    """Add each crop row to its sum and to `across` by slopes in float64, for any dtype.

    Pixels of 8 channels or more are summed one pixel at a time.
    """
    cdef Py_ssize_t y, i, k, depth = grads.depth
    cdef RowRing rows
    cdef Py_ssize_t n = chunk.x_last - chunk.x_first, values = whole_lanes(n * depth)
    cdef bint deep = depth >= CROPKIT_LANES
    cdef bint direct = packs_reals(<double*>NULL, grads)
    cdef bint in_place = deep and holds_reals(<double*>NULL, image)
    cdef const double* g
    cdef const double* top
    cdef const double* bottom
    empty_ring(&rows, s.tap_rows[0], s.tap_rows[1])
    locate_taps(<double*>NULL, s, chunk, image)
    spread_weights(s, chunk, depth)
    memset(s.across, 0, values * sizeof(double))
    for y in range(chunk.y_first, chunk.y_last):
        i = y - chunk.begin
        g = load_row(<double*>NULL, crop, grads, s, chunk, y, direct)
        if in_place:
            top = <const double*>(pixels + s.y.lo[i] * image.stride_y)
            bottom = <const double*>(pixels + s.y.hi[i] * image.stride_y)
        else:
            bottom = <const double*>fetch_rows_of(
                <double*>NULL, s, &rows, i, pixels, image, chunk, False)
            top = <const double*>rows.at[0]
        if not deep:
            s.row_sums[i] = cropkit_sum_slopes(
                s.across, g, top, top + values, bottom, bottom + values, s.value_weight,
                s.row_weight[i], n * depth)
            continue
        s.row_sums[i] = 0
        for k in range(n):
            s.row_sums[i] += cropkit_sum_slopes(
                s.across + k * depth, g + k * depth, top + s.left[k], top + s.right[k],
                bottom + s.left[k], bottom + s.right[k], s.value_weight + k * depth,
                s.row_weight[i], depth)


cdef Py_ssize_t sum_floats(
    const char* crop, const char* pixels, const Array4* grads, const Array4* image,
    SumScratch* s, const Chunk* chunk,
) noexcept nogil:
    """Add each crop row to its sum and to `across`, in the fastest way for the chunk.

    float32 must hold every value of the dtypes. Returns how many entries of `across` make the
    sum of a column.
    """
    cdef Py_ssize_t depth = grads.depth
    if depth >= CROPKIT_LANES:
        sum_dots(crop, pixels, grads, image, s, chunk)
        return CROPKIT_LANES
    if (
        depth == 1 and image.width > 1 and holds_reals(<float*>NULL, image)
        and image.stride_x == <Py_ssize_t>sizeof(float)
        and distance(s.y.lo[chunk.y_first - chunk.begin], s.y.lo[chunk.y_last - 1 - chunk.begin])
        >= chunk.y_last - chunk.y_first
    ):
        sum_pairs(crop, pixels, grads, image, s, chunk)
    else:
        sum_rows(crop, pixels, grads, image, s, chunk)
    return depth


cdef struct BoxesJob:
    Order* order            # the order of the tasks; NULL for the order of the boxes
    Py_ssize_t chunks       # chunks of a crop
    Py_ssize_t rows         # rows of a chunk
    bint single             # whether float32 holds every value of the two dtypes
    const void* boxes
    const Py_ssize_t* box_indices
    Array4 grads
    Array4 image
    double* sums            # four sums for each task: y1, x1, y2, x2


cdef inline void run_chunk(
    const real* boxes, Py_ssize_t task, const BoxesJob* job, char* scratch,
) noexcept nogil:
    """Sum a chunk of one crop."""
    cdef SumScratch s
    cdef Chunk chunk
    cdef const Array4* grads = &job.grads
    cdef const Array4* image = &job.image
    cdef double* sums
    cdef bint single = job.single
    cdef Py_ssize_t n, index, lanes
    cdef uint64_t saved
    cdef const char* crop
    cdef const char* pixels
    if job.order != NULL:
        task = job.order[task].box * job.chunks + job.order[task].row_tile
    n = task // job.chunks
    index = job.box_indices[n]
    crop = grads.data + n * grads.stride_b
    pixels = image.data + index * image.stride_b
    sums = job.sums + 4 * task
    memset(sums, 0, 4 * sizeof(double))
    if index < 0 or index >= image.batch:
        return
    carve_sums(&s, scratch, grads, image, job.rows)
    chunk.begin = (task % job.chunks) * job.rows
    # Tables are made with subnormals flushed, as in the forward kernel; sums flush nothing.
    saved = cropkit_enter(sizeof(real) == sizeof(float))
    tabulate(
        boxes + 4 * n, min(chunk.begin + job.rows, grads.height), grads, image, &s, &chunk)
    cropkit_enter(False)
    if chunk.y_first < chunk.y_last and chunk.x_first < chunk.x_last:
        if single:
            lanes = sum_floats(crop, pixels, grads, image, &s, &chunk)
            finish_chunk(&s, &chunk, lanes, sums)
            # A sum that is not finite comes from an input: float32 terms do not overflow float64.
            single = (
                isfinite(sums[0]) and isfinite(sums[1])
                and isfinite(sums[2]) and isfinite(sums[3]))
        if not single:
            sum_slopes(crop, pixels, grads, image, &s, &chunk)
            finish_chunk(&s, &chunk, grads.depth, sums)
    cropkit_leave(saved)


cdef void run_chunk_f32(Py_ssize_t task, const void* job, char* scratch) noexcept nogil:
    run_chunk(<const float*>(<const BoxesJob*>job).boxes, task, <const BoxesJob*>job, scratch)


cdef void run_chunk_f64(Py_ssize_t task, const void* job, char* scratch) noexcept nogil:
    run_chunk(<const double*>(<const BoxesJob*>job).boxes, task, <const BoxesJob*>job, scratch)


cdef void add_chunks(
    const real* unused, const double* sums, Py_ssize_t chunks, char* out,
    Py_ssize_t num_boxes, Py_ssize_t stride_n, Py_ssize_t stride_k,
) noexcept nogil:
    """Add the sums of each box's chunks in order, and round each result once."""
    cdef Py_ssize_t n, k, i
    cdef double total
    cdef real rounded
    cdef uint64_t saved = cropkit_enter(False)
    for n in range(num_boxes):
        for k in range(4):
            total = 0
            for i in range(chunks):
                total += sums[4 * (n * chunks + i) + k]
            rounded = <real>total
            memcpy(out + n * stride_n + k * stride_k, &rounded, sizeof(real))
    cropkit_leave(saved)


def crop_and_resize_grad_boxes(
    cnp.ndarray grads, int grads_code, bint grads_swapped, cnp.ndarray image, int code,
    bint swapped, const real[:, ::1] boxes, const Py_ssize_t[::1] box_indices,
    cnp.ndarray out, bint single, int num_threads, bint in_order,
):
    """Fill `out` with the boxes' gradient. ``_cpu.py`` has checked every argument.

    Parameters
    ----------
    grads : ndarray, shape (num_boxes, crop_height, crop_width, depth)
        Any strides, alignment and byte order; not empty.
    grads_code : int
        The position of the dtype of `grads` in ``PIXEL_TYPES``.
    grads_swapped : bool
        Whether the byte order of `grads` is not the machine's.
    image : ndarray, shape (batch, height, width, depth)
        Any strides, alignment and byte order; not empty.
    code : int
        The position of the image's dtype in ``PIXEL_TYPES``.
    swapped : bool
        Whether the image's byte order is not the machine's.
    boxes : ndarray, shape (num_boxes, 4)
        Normalized; float32 or float64, which is the type of all positions.
    box_indices : ndarray of intp, shape (num_boxes,)
    out : ndarray, shape (num_boxes, 4)
        The dtype of `boxes`, native; any strides and alignment.
    single : bool
        Whether float32 holds every value that the dtypes of `grads` and `image` have.
    num_threads : int
        The largest size of the team; 1 starts no thread.
    in_order : bool
        Whether to work through the boxes as given, not sorted by the rows that they read.

    Raises
    ------
    MemoryError
        There is no memory for the sums.
    KeyboardInterrupt
        A signal arrived; `out` is then not filled.
    """
    cdef BoxesJob job
    cdef Array4* crops = &job.grads
    cdef SumScratch unused
    cdef Py_ssize_t num_boxes = boxes.shape[0], values, tasks, round_tasks
    crops[0] = read_array(grads, grads_code, grads_swapped)
    job.image = read_array(image, code, swapped)
    job.single = single
    job.boxes = &boxes[0, 0]
    job.box_indices = &box_indices[0]
    job.order = NULL
    job.sums = NULL
    if (crops.width * crops.depth) >> ROW_BITS:
        raise MemoryError(f"no memory for crop rows of {crops.width * crops.depth} values")
    values = crops.width * crops.depth
    job.rows = min(crops.height, max(1, CHUNK_VALUES // values))
    job.chunks = (crops.height + job.rows - 1) // job.rows
    tasks = num_boxes * job.chunks
    round_tasks = max(num_threads, ROUND_VALUES // (job.rows * values)) * num_threads
    try:
        job.sums = <double*>malloc(tasks * 4 * sizeof(double))
        if job.sums == NULL:
            raise MemoryError(f"no memory for the sums of {tasks} pieces")
        if not in_order:
            job.order = sort_tiles(
                &boxes[0, 0], job.box_indices, &job.image, crops, job.rows, job.chunks)
        run_tasks(
            &run_chunk_f32 if real is float else &run_chunk_f64, &job, tasks, round_tasks,
            <int>min(num_threads, tasks),
            carve_sums(&unused, NULL, crops, &job.image, job.rows))
        add_chunks(
            &boxes[0, 0], job.sums, job.chunks, <char*>cnp.PyArray_DATA(out), num_boxes,
            out.strides[0], out.strides[1])
    finally:
        free(job.order)
        free(job.sums)
