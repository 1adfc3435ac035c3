# The taps of a chunk, some rows of a crop: their places in the image, and source rows read there.
# For the gradient of the boxes; included by _grad_boxes.pxi.
#
# The tables are those of the forward kernel; sums use the weights in float64. The last two source
# rows are kept, either as the taps of a crop row or interpolated, as _grad_boxes.h explains.

cdef extern from "_grad_boxes.h" nogil:
    const int CROPKIT_LANES
    void cropkit_prefetch_near(const char*, Py_ssize_t) noexcept
    void cropkit_blend_taps(
        double*, double*, const float*, const float*, const double*, Py_ssize_t) noexcept
    void cropkit_blend_pixels(
        double*, double*, const float*, const float*, const Py_ssize_t*, const Py_ssize_t*,
        const double*, Py_ssize_t, Py_ssize_t) noexcept
    void cropkit_pick_taps(
        double*, double*, const double*, const Py_ssize_t*, const Py_ssize_t*, Py_ssize_t,
        Py_ssize_t) noexcept


cdef struct SumScratch:
    AxisTable y
    AxisTable x
    double* row_weight      # weights in float64: of crop rows, of columns, of values of a row
    double* column_weight
    double* value_weight
    double* across          # sums over crop rows, for each value or for each lane of a pixel
    double* row_sums
    double* column_sums
    double* products        # row or column sums times how far the sample moves with an edge
    Py_ssize_t* left        # offsets of a pixel's taps, in values: in an image row or in `tap_rows`
    Py_ssize_t* right
    Py_ssize_t* pairs       # offsets of two neighbours' left pixel
    double* seconds         # 1 where the right neighbour is the left tap, else 0
    void* tap_rows[2]       # two source rows: left and right taps, or interpolated and rise
    void* picked            # left and right taps, before they are interpolated
    void* loaded            # a crop row as reals
    Py_ssize_t* source_rows  # source rows in the order in which they are interpolated
    Py_ssize_t* later       # the next entry of that list to prefetch
    char* raw


cdef struct Chunk:
    Py_ssize_t begin                # the crop row of the tables' first entry
    Py_ssize_t y_first, y_last      # inside rows of this chunk
    Py_ssize_t x_first, x_last      # inside columns
    Axis y, x


cdef enum:
    # How many source rows ahead a row is prefetched; in `sum_pairs`, how many crop rows ahead.
    ROWS_AHEAD = 2
    PAIRS_AHEAD = 3


cdef inline bint packs_reals(const real* unused, const Array4* image) noexcept nogil:
    """Whether a row of the array can be read in place as a run of ``real`` values."""
    return holds_reals(unused, image) and image.packed


# ---- tables ----------------------------------------------------------------------------


cdef inline Py_ssize_t distance(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a - b if a > b else b - a


cdef inline Py_ssize_t whole_lanes(Py_ssize_t values) noexcept nogil:
    return (values + CROPKIT_LANES - 1) // CROPKIT_LANES * CROPKIT_LANES


cdef Py_ssize_t carve_sums(
    SumScratch* s, char* base, const Array4* grads, const Array4* image, Py_ssize_t rows,
) noexcept nogil:
    """Lay a thread's scratch out from `base`, which may be NULL; return its size in bytes."""
    cdef Py_ssize_t n = grads.width, at = 0, i
    cdef Py_ssize_t values = whole_lanes(n * grads.depth)
    at = place_table(base, &s.y, at, rows, sizeof(double))
    at = place_table(base, &s.x, at, n, sizeof(double))
    at = place(base, <void**>&s.row_weight, at, rows * sizeof(double))
    at = place(base, <void**>&s.column_weight, at, n * sizeof(double))
    at = place(base, <void**>&s.value_weight, at, values * sizeof(double))
    at = place(base, <void**>&s.across, at, values * sizeof(double))
    at = place(base, <void**>&s.row_sums, at, rows * sizeof(double))
    at = place(base, <void**>&s.column_sums, at, n * sizeof(double))
    at = place(base, <void**>&s.products, at, max(rows, n) * sizeof(double))
    at = place(base, <void**>&s.left, at, n * sizeof(Py_ssize_t))
    at = place(base, <void**>&s.right, at, n * sizeof(Py_ssize_t))
    at = place(base, <void**>&s.pairs, at, whole_lanes(n) * sizeof(Py_ssize_t))
    at = place(base, <void**>&s.seconds, at, whole_lanes(n) * sizeof(double))
    for i in range(2):
        at = place(base, &s.tap_rows[i], at, 2 * values * sizeof(double))
    at = place(base, &s.picked, at, 2 * values * sizeof(float))
    at = place(base, &s.loaded, at, values * sizeof(double))
    at = place(
        base, <void**>&s.source_rows, at, (2 * rows + ROWS_AHEAD) * sizeof(Py_ssize_t))
    return place(base, <void**>&s.raw, at, values * max(grads.itemsize, image.itemsize))


cdef void tabulate(
    const real* box, Py_ssize_t end, const Array4* grads, const Array4* image, SumScratch* s,
    Chunk* chunk,
) noexcept nogil:
    """Make the forward kernel's tables for the crop rows from ``chunk.begin`` to `end`."""
    cdef Py_ssize_t i
    cdef const real* weight = <const real*>s.y.weight
    chunk.y = corners_axis(box[0], box[2], image.height, grads.height)
    fill_table(box, &chunk.y, chunk.begin, end, BILINEAR, &s.y)
    chunk.y_first, chunk.y_last = s.y.first, s.y.last
    for i in range(chunk.y_first - chunk.begin, chunk.y_last - chunk.begin):
        s.row_weight[i] = weight[i]
    weight = <const real*>s.x.weight
    chunk.x = corners_axis(box[1], box[3], image.width, grads.width)
    fill_table(box, &chunk.x, 0, grads.width, BILINEAR, &s.x)
    chunk.x_first, chunk.x_last = s.x.first, s.x.last
    for i in range(chunk.x_first, chunk.x_last):
        s.column_weight[i] = weight[i]


cdef void spread_weights(
    const SumScratch* s, const Chunk* chunk, Py_ssize_t depth,
) noexcept nogil:
    """Copy each column's weight to all values of its pixel; pad with zeros to whole lanes."""
    cdef Py_ssize_t i, c, n = chunk.x_last - chunk.x_first
    for i in range(n):
        for c in range(depth):
            s.value_weight[i * depth + c] = s.column_weight[chunk.x_first + i]
    for i in range(n * depth, whole_lanes(n * depth)):
        s.value_weight[i] = 0


cdef void locate_taps(
    const real* unused, const SumScratch* s, const Chunk* chunk, const Array4* image,
) noexcept nogil:
    """Tabulate the taps' offsets: in an image row of reals, else in a row of `load_taps`."""
    cdef Py_ssize_t i, n = chunk.x_last - chunk.x_first, depth = image.depth
    cdef Py_ssize_t stride_x = image.stride_x // <Py_ssize_t>sizeof(real)
    if holds_reals(unused, image):
        for i in range(n):
            s.left[i] = s.x.lo[chunk.x_first + i] * stride_x
            s.right[i] = s.x.hi[chunk.x_first + i] * stride_x
    else:
        for i in range(n):
            s.left[i] = i * depth
            s.right[i] = whole_lanes(n * depth) + i * depth


cdef const double* pair_taps(
    const SumScratch* s, const Chunk* chunk, Py_ssize_t width,
) noexcept nogil:
    """Tabulate two neighbouring pixels for each sample, in a row of at least 2 pixels.

    The neighbours are the sample's taps, unless the sample is on a pixel. On the last pixel, the
    neighbours are the pixel before and the last one; the table returned has 1 there, else 0.
    Returns NULL if no sample is on the last pixel.
    """
    cdef Py_ssize_t i, n = chunk.x_last - chunk.x_first, last = width - 1
    cdef const Py_ssize_t* lo = s.x.lo + chunk.x_first
    spread_weights(s, chunk, 1)
    for i in range(whole_lanes(n)):
        s.pairs[i] = min(lo[min(i, n - 1)], last - 1)
    # Positions are monotone, so a sample on the last pixel is the first or the last sample.
    if lo[0] < last and lo[n - 1] < last:
        return NULL
    for i in range(whole_lanes(n)):
        s.seconds[i] = lo[min(i, n - 1)] == last
    return s.seconds


# ---- source rows -----------------------------------------------------------------------


cdef void load_taps(
    real* taps, const char* row, const Array4* image, const SumScratch* s, const Chunk* chunk,
) noexcept nogil:
    """Copy the taps in a source row to two runs, each like a crop row: left taps, right taps."""
    cdef Py_ssize_t n = chunk.x_last - chunk.x_first, values = whole_lanes(n * image.depth)
    if real is double and holds_reals(<real*>NULL, image):
        cropkit_pick_taps(
            taps, taps + values, <const double*>row, s.left, s.right, n, image.depth)
        return
    load_pixels(taps, row, image, s.x.lo + chunk.x_first, 0, n, s.raw)
    load_pixels(taps + values, row, image, s.x.hi + chunk.x_first, 0, n, s.raw)


cdef void blend_taps(
    double* taps, const char* row, const char* later, const Array4* image, const SumScratch* s,
    const Chunk* chunk,
) noexcept nogil:
    """Interpolate a source row along x to one run, and its rise to the right taps to another.

    The source row at `later` is prefetched meanwhile.
    """
    cdef Py_ssize_t i, n = chunk.x_last - chunk.x_first, values = whole_lanes(n * image.depth)
    cdef float* left = <float*>s.picked
    cdef float* right = left + values
    if holds_reals(<float*>NULL, image):
        cropkit_blend_pixels(
            taps, taps + values, <const float*>row, <const float*>later, s.left, s.right,
            s.value_weight, n, image.depth)
    else:
        load_taps(left, row, image, s, chunk)
        cropkit_blend_taps(
            taps, taps + values, left, right, s.value_weight, n * image.depth)
    for i in range(n * image.depth, values):
        taps[i] = taps[values + i] = 0


cdef void list_source_rows(SumScratch* s, const Chunk* chunk) noexcept nogil:
    """List the source rows that `fetch_rows_of` will make, in order, and repeat the last one.

    The list goes through all crop rows, since the ring may already hold either row of the next.
    """
    cdef Py_ssize_t i, k, row, lo, hi, count = 0
    cdef RowRing rows
    empty_ring(&rows, NULL, NULL)
    for i in range(chunk.y_first - chunk.begin, chunk.y_last - chunk.begin):
        lo, hi = s.y.lo[i], s.y.hi[i]
        turn_ring(&rows, lo, hi)
        for k in range(1 if lo == hi else 2):
            row = hi if k else lo
            if row != rows.tag[k]:
                rows.tag[k] = s.source_rows[count] = row
                count += 1
    for k in range(ROWS_AHEAD):
        s.source_rows[count + k] = s.source_rows[count - 1]
    s.later = s.source_rows + ROWS_AHEAD


cdef void* fetch_rows_of(
    const real* unused, SumScratch* s, RowRing* rows, Py_ssize_t i, const char* pixels,
    const Array4* image, const Chunk* chunk, bint blended,
) noexcept nogil:
    """Bring the upper source row of crop row i to ``rows.at[0]``; return where the lower one is.

    `unused` only names the type ``real`` of taps that are not `blended` (interpolated).
    """
    cdef Py_ssize_t lo = s.y.lo[i], hi = s.y.hi[i], k, row
    turn_ring(rows, lo, hi)
    for k in range(1 if lo == hi else 2):
        row = hi if k else lo
        if row == rows.tag[k]:
            continue
        rows.tag[k] = row
        if blended:
            blend_taps(
                <double*>rows.at[k], pixels + row * image.stride_y,
                pixels + s.later[0] * image.stride_y, image, s, chunk)
            s.later += 1
        else:
            load_taps(<real*>rows.at[k], pixels + row * image.stride_y, image, s, chunk)
    return rows.at[0 if lo == hi else 1]


cdef Columns read_columns(
    const Array4* image, const SumScratch* s, const Chunk* chunk,
) noexcept nogil:
    """Return the columns that the chunk reads in each source row, and the bytes to prefetch."""
    cdef Columns columns
    columns.lo = s.x.lo + chunk.x_first
    columns.hi = s.x.hi + chunk.x_first
    columns.count = chunk.x_last - chunk.x_first
    plan_prefetch(image, &columns)
    return columns


cdef void prefetch_taps(
    const SumScratch* s, Py_ssize_t i, const char* pixels, const Array4* image,
    const Columns* columns,
) noexcept nogil:
    """Prefetch the source rows of crop row i + 1, unless crop row i reads them too."""
    cdef Py_ssize_t lo = s.y.lo[i], hi = s.y.hi[i], next_lo = s.y.lo[i + 1]
    cdef Py_ssize_t next_hi = s.y.hi[i + 1]
    if next_lo != lo and next_lo != hi:
        cropkit_prefetch(
            pixels + next_lo * image.stride_y + columns.ahead, columns.ahead_bytes)
    if next_hi != lo and next_hi != hi:
        cropkit_prefetch(
            pixels + next_hi * image.stride_y + columns.ahead, columns.ahead_bytes)


cdef void prefetch_pairs(
    const SumScratch* s, Py_ssize_t i, const char* pixels, const Array4* image,
    const Columns* columns,
) noexcept nogil:
    """Prefetch the source rows of crop row i, which no other crop row reads."""
    cropkit_prefetch_near(
        pixels + s.y.lo[i] * image.stride_y + columns.ahead, columns.ahead_bytes)
    cropkit_prefetch_near(
        pixels + s.y.hi[i] * image.stride_y + columns.ahead, columns.ahead_bytes)
