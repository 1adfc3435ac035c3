# The gradient of the boxes, included after _grad_image.pxi by each instruction set's module.
#
# A task sums some rows of one crop in float64; the sums of a crop's tasks are added up in
# order. How a crop is cut does not depend on the threads.

cdef extern from "_grad_boxes.h" nogil:
    void cropkit_pick_taps_f32(
        float*, float*, const float*, const Py_ssize_t*, const Py_ssize_t*, Py_ssize_t,
        Py_ssize_t, Py_ssize_t) noexcept
    void cropkit_pick_taps_f64(
        double*, double*, const double*, const Py_ssize_t*, const Py_ssize_t*, Py_ssize_t,
        Py_ssize_t, Py_ssize_t) noexcept
    const int CROPKIT_LANES
    double cropkit_lane_sum(const double*, Py_ssize_t) noexcept
    double cropkit_flat_slopes_f32(
        double*, const float*, const float*, const float*, const float*, const float*,
        const double*, double, Py_ssize_t) noexcept
    double cropkit_flat_slopes_f64(
        double*, const double*, const double*, const double*, const double*, const double*,
        const double*, double, Py_ssize_t) noexcept
    double cropkit_deep_slopes_f32(
        double*, const float*, const float*, const float*, const Py_ssize_t*,
        const Py_ssize_t*, Py_ssize_t, const double*, double, Py_ssize_t, Py_ssize_t) noexcept
    double cropkit_deep_slopes_f64(
        double*, const double*, const double*, const double*, const Py_ssize_t*,
        const Py_ssize_t*, Py_ssize_t, const double*, double, Py_ssize_t, Py_ssize_t) noexcept

cdef enum:
    # Part of the box gradient's contract: how many values of a crop are summed before the
    # sums are added to the box's (at least one row).
    CHUNK_VALUES = 1 << 16


cdef struct SumScratch:
    Py_ssize_t* y_lo
    Py_ssize_t* y_hi
    void* y_weight
    Py_ssize_t* x_lo
    Py_ssize_t* x_hi
    void* x_weight
    double* row_weight      # the weights in float64: of rows, of columns, of values
    double* column_weight
    double* value_weight
    double* across          # sums of g times the slope along x, of a row's values or lanes
    double* columns         # the same, of every column
    double* moments
    Py_ssize_t* left        # where a pixel's taps are in `taps`
    Py_ssize_t* right
    void* taps[2]           # of two source rows: left, then right, each as a crop row
    void* loaded            # a crop row
    char* raw


cdef struct Chunk:
    Py_ssize_t begin                # the crop row of the tables' first entry
    Py_ssize_t y_first, y_last      # inside rows of this chunk
    Py_ssize_t x_first, x_last      # inside columns


cdef Py_ssize_t carve_sums(
    SumScratch* s, char* base, const Image* grads, const Image* image, Py_ssize_t rows,
) noexcept nogil:
    """Lay a thread's scratch out from `base`; its size in bytes (also for NULL)."""
    cdef Py_ssize_t n = grads.width, values = n * grads.depth, at = 0, i
    cdef Py_ssize_t lanes = n * min(grads.depth, CROPKIT_LANES)
    at = place(base, <void**>&s.y_lo, at, rows * sizeof(Py_ssize_t))
    at = place(base, <void**>&s.y_hi, at, rows * sizeof(Py_ssize_t))
    at = place(base, &s.y_weight, at, rows * sizeof(double))
    at = place(base, <void**>&s.x_lo, at, n * sizeof(Py_ssize_t))
    at = place(base, <void**>&s.x_hi, at, n * sizeof(Py_ssize_t))
    at = place(base, &s.x_weight, at, n * sizeof(double))
    at = place(base, <void**>&s.row_weight, at, rows * sizeof(double))
    at = place(base, <void**>&s.column_weight, at, n * sizeof(double))
    at = place(base, <void**>&s.value_weight, at, lanes * sizeof(double))
    at = place(base, <void**>&s.across, at, lanes * sizeof(double))
    at = place(base, <void**>&s.columns, at, n * sizeof(double))
    at = place(base, <void**>&s.moments, at, n * sizeof(double))
    at = place(base, <void**>&s.left, at, n * sizeof(Py_ssize_t))
    at = place(base, <void**>&s.right, at, n * sizeof(Py_ssize_t))
    for i in range(2):
        at = place(base, &s.taps[i], at, 2 * values * sizeof(double))
    at = place(base, &s.loaded, at, values * sizeof(double))
    return place(base, <void**>&s.raw, at, values * max(grads.itemsize, image.itemsize))


cdef void tabulate(
    const real* box, Py_ssize_t end, const Image* grads, const Image* image,
    const SumScratch* s, Chunk* chunk,
) noexcept nogil:
    """Make the tables of crop rows from ``chunk.begin`` to `end`: the forward kernel's."""
    cdef Py_ssize_t i, c, depth = grads.depth
    cdef real* weight = <real*>s.y_weight
    sample_axis(
        box[0], box[2], image.height, grads.height, chunk.begin, end, False,
        s.y_lo, s.y_hi, weight, &chunk.y_first, &chunk.y_last)
    for i in range(chunk.y_first - chunk.begin, chunk.y_last - chunk.begin):
        s.row_weight[i] = weight[i]
    weight = <real*>s.x_weight
    sample_axis(
        box[1], box[3], image.width, grads.width, 0, grads.width, False,
        s.x_lo, s.x_hi, weight, &chunk.x_first, &chunk.x_last)
    for i in range(chunk.x_first, chunk.x_last):
        s.column_weight[i] = weight[i]
        if depth < CROPKIT_LANES:
            for c in range(depth):
                s.value_weight[i * depth + c] = weight[i]


cdef void load_taps(
    real* taps, const char* row, const Image* image, const SumScratch* s, const Chunk* chunk,
) noexcept nogil:
    """Lay a source row's taps out as a crop row's inside run: the left ones, the right ones."""
    cdef Py_ssize_t n = chunk.x_last - chunk.x_first, depth = image.depth
    cdef Py_ssize_t stride_x = image.stride_x // <Py_ssize_t>sizeof(real)
    cdef const Py_ssize_t* lo = s.x_lo + chunk.x_first
    cdef const Py_ssize_t* hi = s.x_hi + chunk.x_first
    if not holds_reals(<real*>NULL, image):
        load_pixels(taps + n * depth, row, image, hi, 0, n, s.raw)
        load_pixels(taps, row, image, lo, 0, n, s.raw)
    elif real is float:
        cropkit_pick_taps_f32(
            taps, taps + n * depth, <const float*>row, lo, hi, stride_x, n, depth)
    else:
        cropkit_pick_taps_f64(
            taps, taps + n * depth, <const double*>row, lo, hi, stride_x, n, depth)


cdef const real* fetch_taps(
    const real* unused, SumScratch* s, Py_ssize_t* tag, Py_ssize_t lo, Py_ssize_t hi,
    const char* pixels, const Image* image, const Chunk* chunk,
) noexcept nogil:
    """Bring the taps of source row `lo` to ``s.taps[0]``; where those of row `hi` are then."""
    # Also swapped when `lo` is to be made and row 0 is the one that `hi` needs.
    if lo == tag[1] or (lo != tag[0] and hi == tag[0]):
        tag[0], tag[1] = tag[1], tag[0]
        s.taps[0], s.taps[1] = s.taps[1], s.taps[0]
    if lo != tag[0]:
        load_taps(<real*>s.taps[0], pixels + lo * image.stride_y, image, s, chunk)
        tag[0] = lo
    if hi == lo:
        return <const real*>s.taps[0]
    if hi != tag[1]:
        load_taps(<real*>s.taps[1], pixels + hi * image.stride_y, image, s, chunk)
        tag[1] = hi
    return <const real*>s.taps[1]


cdef void moments(
    const double* sums, Py_ssize_t first, Py_ssize_t n, Py_ssize_t length, Py_ssize_t count,
    double* products, double* low, double* high,
) noexcept nogil:
    """Sum over samples, weighted by how far they follow the axis' two edges."""
    cdef Py_ssize_t i
    cdef double limit = <double>(length - 1), ratio
    if count == 1:
        low[0] = high[0] = sums[0] * (0.5 * limit)
        return
    ratio = limit / <double>(count - 1)
    for i in range(n):
        products[i] = sums[i] * (limit - <double>(first + i) * ratio)
    low[0] = cropkit_lane_sum(products, n)
    for i in range(n):
        products[i] = sums[i] * (<double>(first + i) * ratio)
    high[0] = cropkit_lane_sum(products, n)


cdef void sum_chunk(
    const real* unused, const char* crop, const char* pixels, const Image* grads,
    const Image* image, SumScratch* s, const Chunk* chunk, double* sums,
) noexcept nogil:
    """Set `sums` to what the chunk's rows add to the gradient of [y1, x1, y2, x2]."""
    cdef Py_ssize_t y, i, lo, hi, depth = grads.depth
    cdef Py_ssize_t[2] tag
    cdef Py_ssize_t n = chunk.x_last - chunk.x_first, values = n * depth
    cdef Py_ssize_t lanes = min(depth, CROPKIT_LANES), stride_x = depth
    cdef bint direct = holds_reals(<real*>NULL, grads) and (
        grads.width == 1 or grads.stride_x == depth * <Py_ssize_t>sizeof(real))
    # Deep pixels are read where they are; others are laid out as a crop row first.
    cdef bint in_place = depth >= CROPKIT_LANES and holds_reals(<real*>NULL, image)
    cdef const Py_ssize_t* left = s.left
    cdef const Py_ssize_t* right = s.right
    cdef const char* row
    cdef const real* g
    cdef const real* top
    cdef const real* bottom
    cdef double down, up, slope
    cdef Columns columns
    columns.lo = s.x_lo + chunk.x_first
    columns.hi = s.x_hi + chunk.x_first
    columns.count = n
    plan_prefetch(image, &columns)
    tag[0] = tag[1] = -1
    if in_place:
        left = s.x_lo + chunk.x_first
        right = s.x_hi + chunk.x_first
        stride_x = image.stride_x // <Py_ssize_t>sizeof(real)
    else:
        for i in range(n):
            s.left[i] = i
            s.right[i] = n + i
    memset(s.across, 0, n * lanes * sizeof(double))
    for y in range(chunk.y_first, chunk.y_last):
        row = crop + y * grads.stride_y
        g = <const real*>(row + chunk.x_first * grads.stride_x)
        if not direct:
            load_pixels(<real*>s.loaded, row, grads, NULL, chunk.x_first, n, s.raw)
            g = <const real*>s.loaded
        i = y - chunk.begin
        lo = s.y_lo[i]
        hi = s.y_hi[i]
        if y + 1 < chunk.y_last and columns.ahead_bytes > 0:
            if s.y_lo[i + 1] != lo and s.y_lo[i + 1] != hi:
                cropkit_prefetch(
                    pixels + s.y_lo[i + 1] * image.stride_y + columns.ahead, columns.ahead_bytes)
            if s.y_hi[i + 1] != lo and s.y_hi[i + 1] != hi:
                cropkit_prefetch(
                    pixels + s.y_hi[i + 1] * image.stride_y + columns.ahead, columns.ahead_bytes)
        if in_place:
            top = <const real*>(pixels + lo * image.stride_y)
            bottom = <const real*>(pixels + hi * image.stride_y)
        else:
            bottom = fetch_taps(<real*>NULL, s, tag, lo, hi, pixels, image, chunk)
            top = <const real*>s.taps[0]
        if depth >= CROPKIT_LANES:
            if real is float:
                slope = cropkit_deep_slopes_f32(
                    s.across, g, top, bottom, left, right, stride_x,
                    s.column_weight + chunk.x_first, s.row_weight[i], n, depth)
            else:
                slope = cropkit_deep_slopes_f64(
                    s.across, g, top, bottom, left, right, stride_x,
                    s.column_weight + chunk.x_first, s.row_weight[i], n, depth)
        elif real is float:
            slope = cropkit_flat_slopes_f32(
                s.across, g, top, top + values, bottom, bottom + values,
                s.value_weight + chunk.x_first * depth, s.row_weight[i], values)
        else:
            slope = cropkit_flat_slopes_f64(
                s.across, g, top, top + values, bottom, bottom + values,
                s.value_weight + chunk.x_first * depth, s.row_weight[i], values)
        moments(&slope, y, 1, image.height, grads.height, s.moments, &down, &up)
        sums[0] += down
        sums[2] += up
    for i in range(n):
        s.columns[i] = cropkit_lane_sum(s.across + i * lanes, lanes)
    moments(
        s.columns, chunk.x_first, n, image.width, grads.width, s.moments, &sums[1], &sums[3])


cdef void run_chunk(
    Py_ssize_t task, const Order* order, Py_ssize_t chunks, Py_ssize_t rows, bint single,
    const real[:, ::1] boxes, const Py_ssize_t[::1] box_indices, const Image* grads,
    const Image* image, double* sums, char* scratch,
) noexcept nogil:
    cdef SumScratch s
    cdef Chunk chunk
    cdef Py_ssize_t n, index
    cdef uint64_t saved
    cdef const char* crop
    cdef const char* pixels
    if order != NULL:
        task = order[task].box * chunks + order[task].row_tile
    n = task // chunks
    index = box_indices[n]
    crop = grads.data + n * grads.stride_b
    pixels = image.data + index * image.stride_b
    memset(sums + 4 * task, 0, 4 * sizeof(double))
    if index < 0 or index >= image.batch:
        return
    carve_sums(&s, <char*>((<size_t>scratch + LINE - 1) // LINE * LINE), grads, image, rows)
    chunk.begin = (task % chunks) * rows
    # The tables are the forward kernel's, subnormals flushed; the sums flush nothing.
    saved = cropkit_enter(sizeof(real) == sizeof(float))
    tabulate(
        &boxes[n, 0], min(chunk.begin + rows, grads.height), grads, image, &s, &chunk)
    cropkit_enter(False)
    if chunk.y_first < chunk.y_last and chunk.x_first < chunk.x_last:
        if single:
            sum_chunk(<const float*>NULL, crop, pixels, grads, image, &s, &chunk, sums + 4 * task)
        else:
            sum_chunk(<const double*>NULL, crop, pixels, grads, image, &s, &chunk, sums + 4 * task)
    cropkit_leave(saved)


cdef void add_chunks(
    const real* unused, const double* sums, Py_ssize_t chunks, char* out,
    Py_ssize_t num_boxes, Py_ssize_t stride_n, Py_ssize_t stride_k,
) noexcept nogil:
    """Add each box's chunks in order and round once."""
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
    """Fill `out`. The caller has checked everything; see ``_cpu.py``.

    Parameters
    ----------
    grads : ndarray, shape (num_boxes, crop_height, crop_width, depth)
        Any strides, alignment and byte order; not empty.
    grads_code : int
        The position of its dtype in ``PIXEL_TYPES``.
    grads_swapped : bool
        Whether its byte order is not the machine's.
    image : ndarray, shape (batch, height, width, depth)
        Likewise.
    code : int
    swapped : bool
    boxes : ndarray, shape (num_boxes, 4)
        Normalized; float32 or float64, which is the type that positions are computed in.
    box_indices : ndarray of intp, shape (num_boxes,)
    out : ndarray, shape (num_boxes, 4)
        The dtype of `boxes`, native; any strides and alignment.
    single : bool
        Whether float32 holds every value that the dtypes of `grads` and `image` have.
    num_threads : int
        Size of the team; 1 starts none.
    in_order : bool
        Work through the boxes as given, not sorted by where they read.

    Raises
    ------
    MemoryError
        There is no memory for the sums.
    KeyboardInterrupt
        A signal arrived; `out` is then not filled.
    """
    cdef Image crops = read_image(grads, grads_code, grads_swapped)
    cdef Image source = read_image(image, code, swapped)
    cdef SumScratch unused
    cdef Py_ssize_t num_boxes = boxes.shape[0], values, rows, chunks
    cdef Py_ssize_t tasks, task, begin, end, round_tasks, scratch_size
    cdef char* scratch = NULL
    cdef double* sums = NULL
    cdef Order* order = NULL
    cdef Crops tiles
    if (crops.width * crops.depth) >> ROW_BITS:
        raise MemoryError(f"no memory for crop rows of {crops.width * crops.depth} values")
    values = crops.width * crops.depth
    rows = min(crops.height, max(1, CHUNK_VALUES // values))
    chunks = (crops.height + rows - 1) // rows
    tasks = num_boxes * chunks
    round_tasks = max(num_threads, ROUND_VALUES // (rows * values)) * num_threads
    num_threads = <int>min(num_threads, tasks)
    scratch_size = carve_sums(&unused, NULL, &crops, &source, rows)
    try:
        scratch = <char*>malloc(num_threads * scratch_size + LINE)
        sums = <double*>malloc(tasks * 4 * sizeof(double))
        if scratch == NULL or sums == NULL:
            raise MemoryError(
                f"no memory for {tasks} sums and {num_threads} threads' rows of "
                f"{scratch_size} bytes")
        if not in_order:
            tiles.count, tiles.height, tiles.tile_rows, tiles.row_tiles = (
                num_boxes, crops.height, rows, chunks)
            order = sort_tiles(&boxes[0, 0], &box_indices[0], &source, &tiles)
        begin = 0
        while begin < tasks:
            end = tasks if tasks - begin <= round_tasks else begin + round_tasks
            with nogil:
                if num_threads == 1:
                    for task in range(begin, end):
                        run_chunk(task, order, chunks, rows, single, boxes, box_indices, &crops,
                                  &source, sums, scratch)
                else:
                    for task in prange(begin, end, schedule="dynamic", num_threads=num_threads):
                        run_chunk(task, order, chunks, rows, single, boxes, box_indices, &crops,
                                  &source, sums, scratch + threadid() * scratch_size)
            begin = end
            if begin < tasks:
                PyErr_CheckSignals()
        add_chunks(
            <const real*>NULL, sums, chunks, <char*>cnp.PyArray_DATA(out), num_boxes,
            out.strides[0], out.strides[1])
    finally:
        free(order)
        free(sums)
        free(scratch)
