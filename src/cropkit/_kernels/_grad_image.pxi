# The gradient of the image, included after _forward.pxi by each instruction set's module.
#
# A task makes a band, some rows of one image: it goes through the boxes of that image in order,
# adds to the band's rows only, and writes them to `out` once. So every element gets its additions
# in the order of the boxes, of the crop's rows and of its columns, on any number of threads, and
# all threads can work on one box in one image:
#
#     crop row --(add, in order)--> rows of the band, in cache --(cast, stream)--> out

from libc.stdlib cimport calloc
from libc.string cimport memset
from cropkit._kernels._axis cimport samples_reading, span_of

cdef extern from "_grad_image.h" nogil:
    void cropkit_scatter_f32(
        float*, float*, const float*, Py_ssize_t, const Py_ssize_t*, const Py_ssize_t*,
        const float*, float, Py_ssize_t, Py_ssize_t) noexcept
    void cropkit_scatter_f64(
        double*, double*, const double*, Py_ssize_t, const Py_ssize_t*, const Py_ssize_t*,
        const double*, double, Py_ssize_t, Py_ssize_t) noexcept
    void cropkit_drop_f32(
        float*, const float*, Py_ssize_t, const Py_ssize_t*, Py_ssize_t, Py_ssize_t) noexcept
    void cropkit_drop_f64(
        double*, const double*, Py_ssize_t, const Py_ssize_t*, Py_ssize_t, Py_ssize_t) noexcept
    void cropkit_pack_f32(float*, const float*, Py_ssize_t, Py_ssize_t) noexcept
    void cropkit_pack_f64(double*, const double*, Py_ssize_t, Py_ssize_t) noexcept

cdef enum:
    # A band of BAND_BYTES stays in a core's second-level cache, beside the crop rows that are
    # read. A small image is cut into BANDS_PER_THREAD bands for each thread, but no band has fewer
    # than BAND_ROWS_MIN rows: two neighbouring bands may read the same crop rows.
    BAND_BYTES = 1 << 20
    BAND_ROWS_MIN = 4
    BANDS_PER_THREAD = 6
    Y_TABLE = 64            # crop rows tabulated at a time
    # Crop rows of 2**40 values and more exist only as broadcast views; the size of their scratch
    # would overflow.
    ROW_BITS = 40


cdef struct Bands:
    Store store
    Py_ssize_t pixel        # values of a pixel in a band, padded to 4 for depth 2 and 3
    Py_ssize_t rows         # rows of a band
    Method method


cdef struct BandScratch:
    void* rows              # the rectangle of the band that boxes touch, row by row
    void* sink              # a row for additions that belong to another band; its values are unused
    AxisTable y
    AxisTable x
    void* loaded            # a crop row as reals
    char* raw               # a crop row made native and aligned
    void* line              # a finished row without padding


cdef struct Rectangle:
    Py_ssize_t top, bottom, left, right     # rows and columns, the ends excluded


cdef struct Span:
    Py_ssize_t box
    Py_ssize_t low, high    # bounds of the image rows that the box reads
    # The axes are kept, and not made again from the box: another thread of the program may write
    # to the caller's boxes, and the scratch of a band has room for these axes only.
    Axis y, x


cdef struct Grouped:
    Py_ssize_t* images      # each box's image; a copy, since the caller's array may change
    Py_ssize_t* starts      # where each image's boxes begin in `spans`
    Span* spans


# ---- one band ------------------------------------------------------------------------


cdef Py_ssize_t carve_band(
    BandScratch* s, char* base, const Array4* grads, const Bands* bands, Py_ssize_t real_size,
) noexcept nogil:
    """Lay a thread's scratch out from `base`, which may be NULL; return its size in bytes."""
    cdef Py_ssize_t n = grads.width, row = bands.store.out.width * bands.pixel * real_size
    cdef Py_ssize_t at = 0
    at = place(base, &s.rows, at, bands.rows * row)
    at = place(base, &s.sink, at, row)
    at = place_table(base, &s.y, at, Y_TABLE, real_size)
    at = place_table(base, &s.x, at, n, real_size)
    at = place(base, &s.loaded, at, n * grads.depth * real_size)
    at = place(base, <void**>&s.raw, at, n * grads.depth * grads.itemsize)
    return place(base, &s.line, at, row)


cdef bint touched(
    const real* unused, const Span* begin, const Span* end, const Array4* grads,
    const Bands* bands, Py_ssize_t row_begin, Py_ssize_t row_end, Rectangle* area,
) noexcept nogil:
    """Find the rectangle of a band that an image's boxes touch; False if they touch none.

    `unused` only names the type ``real``.
    """
    cdef Py_ssize_t left, right
    cdef const Span* span = begin
    area.top = row_end
    area.bottom = row_begin
    area.left = bands.store.out.width
    area.right = 0
    while span < end:
        if span.low < row_end and span.high >= row_begin and span_of(
            unused, &span.x, &left, &right
        ):
            area.top = min(area.top, max(span.low, row_begin))
            area.bottom = max(area.bottom, min(span.high + 1, row_end))
            area.left = min(area.left, left)
            area.right = max(area.right, right + 1)
        span += 1
    return area.top < area.bottom


cdef void add_crop(
    const real* unused, const Span* span, const Array4* grads, const Bands* bands,
    const Rectangle* area, BandScratch* s,
) noexcept nogil:
    """Add the part of one crop's gradients that belongs to the rows of a band."""
    cdef const char* crop = grads.data + span.box * grads.stride_b
    cdef Py_ssize_t begin, end, chunk, chunk_end, y, y_last, lo, hi, i
    cdef Py_ssize_t first = 0, last = 0, step = grads.depth, ahead, ahead_bytes
    cdef Py_ssize_t row_size = (area.right - area.left) * bands.pixel
    cdef bint direct = holds_reals(<real*>NULL, grads)
    cdef real* rows = <real*>s.rows
    cdef real* top
    cdef real* bottom
    cdef Py_ssize_t* x_lo = s.x.lo
    cdef Py_ssize_t* x_hi = s.x.hi
    cdef const real* x_weight = <const real*>s.x.weight
    cdef const real* y_weight = <const real*>s.y.weight
    cdef const real* g
    samples_reading(unused, &span.y, area.top, area.bottom - 1, &begin, &end)
    if begin >= end:
        return
    fill_table(unused, &span.x, 0, grads.width, bands.method, &s.x)
    first, last = s.x.first, s.x.last
    if first == last:
        return
    for i in range(first, last):
        x_lo[i] = (x_lo[i] - area.left) * bands.pixel
        x_hi[i] = (x_hi[i] - area.left) * bands.pixel
    if direct:
        step = grads.stride_x // <Py_ssize_t>sizeof(real)
    ahead = first * grads.stride_x
    ahead_bytes = (last - first) * grads.stride_x
    chunk = begin
    while chunk < end:
        chunk_end = min(chunk + Y_TABLE, end)
        fill_table(unused, &span.y, chunk, chunk_end, bands.method, &s.y)
        y_last = s.y.last
        for y in range(s.y.first, y_last):
            lo = s.y.lo[y - chunk]
            hi = s.y.hi[y - chunk]
            top = bottom = <real*>s.sink
            if area.top <= lo < area.bottom:
                top = rows + (lo - area.top) * row_size
            if area.top <= hi < area.bottom:
                bottom = rows + (hi - area.top) * row_size
            if top == bottom and lo != hi or top == <real*>s.sink and bands.method == NEAREST:
                continue
            # For deeper pixels, the loops themselves prefetch a page ahead.
            if y + 1 < y_last and grads.depth <= 4:
                cropkit_prefetch(crop + (y + 1) * grads.stride_y + ahead, ahead_bytes)
            if direct:
                g = <const real*>(crop + y * grads.stride_y + first * grads.stride_x)
            else:
                load_pixels(
                    <real*>s.loaded, crop + y * grads.stride_y, grads, NULL, first,
                    last - first, s.raw)
                g = <const real*>s.loaded
            if bands.method == NEAREST:
                if real is float:
                    cropkit_drop_f32(top, g, step, x_lo + first, last - first, grads.depth)
                else:
                    cropkit_drop_f64(top, g, step, x_lo + first, last - first, grads.depth)
            elif real is float:
                cropkit_scatter_f32(
                    top, bottom, g, step, x_lo + first, x_hi + first, x_weight + first,
                    y_weight[y - chunk], last - first, grads.depth)
            else:
                cropkit_scatter_f64(
                    top, bottom, g, step, x_lo + first, x_hi + first, x_weight + first,
                    y_weight[y - chunk], last - first, grads.depth)
        chunk = chunk_end


cdef void store_band_row(
    const real* src, char* dst, const Bands* bands, Py_ssize_t n, void* line,
) noexcept nogil:
    """Write n pixels of a band to the result, without their padding."""
    if bands.pixel != bands.store.out.depth:
        if real is float:
            cropkit_pack_f32(<float*>line, src, n, bands.store.out.depth)
        else:
            cropkit_pack_f64(<double*>line, src, n, bands.store.out.depth)
        src = <const real*>line
    store_pixels(src, dst, &bands.store, n)


cdef void clear_rows(
    const real* unused, char* out, Py_ssize_t begin, Py_ssize_t end, const Bands* bands,
) noexcept nogil:
    """Write zeros to rows of an image at `out`; rows that adjoin are written as one run."""
    cdef const Store* store = &bands.store
    cdef Py_ssize_t y, stride = store.out.stride_y
    if begin >= end:
        return
    if store.out.packed and stride == store.out.width * store.out.depth * store.out.itemsize:
        cropkit_put(out + begin * stride, NULL, (end - begin) * stride, bands.store.stream)
        return
    for y in range(begin, end):
        store_pixels(<const real*>NULL, out + y * stride, &bands.store, bands.store.out.width)


cdef void write_band(
    char* out, Py_ssize_t row_begin, Py_ssize_t row_end, const Bands* bands,
    const Rectangle* area, const BandScratch* s, const real* rows,
) noexcept nogil:
    """Write a band of the image at `out`: the touched rectangle, and zeros around it."""
    cdef Py_ssize_t y, row_size = (area.right - area.left) * bands.pixel
    cdef char* row
    clear_rows(<real*>NULL, out, row_begin, area.top, bands)
    for y in range(area.top, area.bottom):
        row = out + y * bands.store.out.stride_y
        if area.left > 0:
            store_pixels(<const real*>NULL, row, &bands.store, area.left)
        store_band_row(
            rows + (y - area.top) * row_size, row + area.left * bands.store.out.stride_x, bands,
            area.right - area.left, s.line)
        if area.right < bands.store.out.width:
            store_pixels(
                <const real*>NULL, row + area.right * bands.store.out.stride_x, &bands.store,
                bands.store.out.width - area.right)
    clear_rows(<real*>NULL, out, area.bottom, row_end, bands)


cdef struct ImageJob:
    Grouped grouped
    Array4 grads
    Bands bands
    Py_ssize_t bands_per_image


cdef inline void run_band(
    const real* unused, Py_ssize_t task, const ImageJob* job, char* scratch,
) noexcept nogil:
    """Make a band, and write it to the result. `unused` only names the type ``real``."""
    cdef BandScratch s
    cdef Rectangle area
    cdef const Bands* bands = &job.bands
    cdef Py_ssize_t n = task // job.bands_per_image
    cdef Py_ssize_t row_begin = (task % job.bands_per_image) * bands.rows
    cdef Py_ssize_t row_end = min(row_begin + bands.rows, bands.store.out.height)
    cdef const Span* span = job.grouped.spans + job.grouped.starts[n]
    cdef const Span* end = job.grouped.spans + job.grouped.starts[n + 1]
    cdef char* out = bands.store.out.data + n * bands.store.out.stride_b
    cdef uint64_t saved = cropkit_enter(sizeof(real) == sizeof(float))
    carve_band(&s, scratch, &job.grads, bands, sizeof(real))
    if touched(unused, span, end, &job.grads, bands, row_begin, row_end, &area):
        memset(
            s.rows, 0, (area.bottom - area.top) * (area.right - area.left) * bands.pixel
            * sizeof(real))
        while span < end:
            if span.low < area.bottom and span.high >= area.top:
                add_crop(unused, span, &job.grads, bands, &area, &s)
            span += 1
        write_band(out, row_begin, row_end, bands, &area, &s, <const real*>s.rows)
    else:
        clear_rows(unused, out, row_begin, row_end, bands)
    cropkit_leave(saved)
    if bands.store.stream:
        cropkit_stream_fence()


cdef void run_band_f32(Py_ssize_t task, const void* job, char* scratch) noexcept nogil:
    run_band(<const float*>NULL, task, <const ImageJob*>job, scratch)


cdef void run_band_f64(Py_ssize_t task, const void* job, char* scratch) noexcept nogil:
    run_band(<const double*>NULL, task, <const ImageJob*>job, scratch)


# ---- all bands -----------------------------------------------------------------------


cdef void group(
    Grouped* grouped, const real[:, ::1] boxes, const Py_ssize_t[::1] box_indices,
    const Array4* grads, const Bands* bands,
) noexcept nogil:
    """List each image's boxes in order, with the rows that they read; `starts` begins as zeros."""
    cdef Py_ssize_t i, n, num_boxes = boxes.shape[0]
    cdef Py_ssize_t* starts = grouped.starts
    cdef Span* span
    cdef uint64_t saved = cropkit_enter(sizeof(real) == sizeof(float))
    for i in range(num_boxes):
        n = box_indices[i]
        grouped.images[i] = n
        if 0 <= n < bands.store.out.batch:
            starts[n + 2] += 1
    for n in range(bands.store.out.batch):
        starts[n + 2] += starts[n + 1]
    # starts[n + 1] begins as the start of image n, and grows with each of its boxes to its end.
    for i in range(num_boxes):
        n = grouped.images[i]
        if 0 <= n < bands.store.out.batch:
            span = &grouped.spans[starts[n + 1]]
            starts[n + 1] += 1
            span.box = i
            span.y = corners_axis(boxes[i, 0], boxes[i, 2], bands.store.out.height, grads.height)
            span.x = corners_axis(boxes[i, 1], boxes[i, 3], bands.store.out.width, grads.width)
            if not span_of(<const real*>NULL, &span.y, &span.low, &span.high):
                span.low = bands.store.out.height
                span.high = -1
    cropkit_leave(saved)


def crop_and_resize_grad_image(
    cnp.ndarray grads, int code, bint swapped, const real[:, ::1] boxes,
    const Py_ssize_t[::1] box_indices, cnp.ndarray out, int out_code, Method method,
    int num_threads, bint stream,
):
    """Fill `out` with the image's gradient. ``_cpu.py`` has checked every argument.

    Parameters
    ----------
    grads : ndarray, shape (num_boxes, crop_height, crop_width, depth)
        Any strides, alignment and byte order.
    code : int
        The position of the dtype of `grads` in ``PIXEL_TYPES``.
    swapped : bool
        Whether the byte order of `grads` is not the machine's.
    boxes : ndarray, shape (num_boxes, 4)
        Normalized; float32 or float64, which is the type of all arithmetic.
    box_indices : ndarray of intp, shape (num_boxes,)
    out : ndarray, shape (batch, height, width, depth)
        Native; any strides and alignment; not empty. float64 if and only if `boxes` is.
    out_code : int
        The position of the dtype of `out` in ``PIXEL_TYPES``.
    method : int
        One of ``METHODS``.
    num_threads : int
        The largest size of the team; 1 starts no thread.
    stream : bool
        Whether to use streaming stores, which bypass the caches.

    Raises
    ------
    MemoryError
        There is no memory for the bands.
    KeyboardInterrupt
        A signal arrived; `out` is then partly filled.
    """
    cdef ImageJob job
    cdef Bands* bands = &job.bands
    cdef Array4* crops = &job.grads
    cdef Grouped* grouped = &job.grouped
    cdef BandScratch unused
    cdef Py_ssize_t num_boxes = boxes.shape[0], row_bytes, rows, shares, tasks, round_tasks

    crops[0] = read_array(grads, code, swapped)
    bands.store = open_store(<real*>NULL, out, out_code, stream)
    bands.method = method
    bands.pixel = 4 if 2 <= bands.store.out.depth <= 3 else bands.store.out.depth

    if (crops.width * crops.depth) >> ROW_BITS:
        raise MemoryError(f"no memory for crop rows of {crops.width * crops.depth} values")
    row_bytes = bands.store.out.width * bands.pixel * <Py_ssize_t>sizeof(real)
    rows = max(1, BAND_BYTES // row_bytes)
    if num_threads > 1:
        shares = BANDS_PER_THREAD * num_threads
        shares = (shares + bands.store.out.batch - 1) // bands.store.out.batch
        rows = min(rows, max(BAND_ROWS_MIN, (bands.store.out.height + shares - 1) // shares))
    bands.rows = min(rows, bands.store.out.height)
    job.bands_per_image = (bands.store.out.height + bands.rows - 1) // bands.rows
    tasks = bands.store.out.batch * job.bands_per_image
    round_tasks = ROUND_VALUES // (
        (cnp.PyArray_SIZE(out) + cnp.PyArray_SIZE(grads)) // tasks + 1)
    num_threads = <int>min(num_threads, tasks)
    round_tasks = max(num_threads, round_tasks) * num_threads

    grouped.images = NULL
    grouped.starts = NULL
    grouped.spans = NULL
    try:
        grouped.starts = <Py_ssize_t*>calloc(bands.store.out.batch + 2, sizeof(Py_ssize_t))
        grouped.spans = <Span*>malloc(num_boxes * sizeof(Span))
        grouped.images = <Py_ssize_t*>malloc(num_boxes * sizeof(Py_ssize_t))
        if grouped.images == NULL or grouped.starts == NULL or grouped.spans == NULL:
            raise MemoryError(f"no memory for the order of {num_boxes} boxes")
        group(grouped, boxes, box_indices, crops, bands)
        run_tasks(
            &run_band_f32 if real is float else &run_band_f64, &job, tasks, round_tasks,
            num_threads, carve_band(&unused, NULL, crops, bands, sizeof(real)))
    finally:
        free(grouped.spans)
        free(grouped.starts)
        free(grouped.images)
