# How a call is cut into tiles, and in which order they are worked through; included by
# _forward.pxi. The gradient of the boxes sorts its tasks with it too.

from libc.stdlib cimport malloc, qsort

cdef enum:
    # A tile's columns: two rows of this many values stay in the first-level cache. Its
    # rows: enough tiles to share out (TILES_PER_THREAD), but none too small to be worth
    # its tables, none so large that signals wait for it.
    TILE_ROW = 1 << 12
    TILE_MIN = 1 << 14
    TILE_MAX = 1 << 20
    TILE_ROWS = 1 << 14
    TILES_PER_THREAD = 4
    # Bytes of the image's rows that tiles in order should read: they, and those of the
    # tiles before and after, stay in a core's own cache.
    BAND_ORDER = 1 << 20


cdef struct Tiling:
    Py_ssize_t rows, columns                # of a tile
    Py_ssize_t row_tiles, column_tiles      # of a crop


cdef struct Order:
    # A box's row of tiles, with what it is sorted by.
    Py_ssize_t image
    double top      # the first image row that it reads, roughly
    Py_ssize_t box, row_tile


cdef Tiling plan_tiles(
    const Array4* crops, int num_threads, Py_ssize_t band_rows,
) noexcept nogil:
    """Choose the size of a tile, which bounds what a thread needs of scratch.

    Tiles that are to be sorted have about `band_rows` rows, else that is 0.
    """
    cdef Tiling tiling
    cdef Py_ssize_t values, wanted, least
    tiling.columns = min(crops.width, max(1, TILE_ROW // crops.depth))
    values = tiling.columns * crops.depth
    least = (TILE_MIN + values - 1) // values
    tiling.rows = max(1, min(min(crops.height, TILE_ROWS), TILE_MAX // values))
    if crops.batch < TILES_PER_THREAD * num_threads:
        wanted = (TILES_PER_THREAD * num_threads + crops.batch - 1) // crops.batch
        tiling.rows = min(tiling.rows, max((crops.height + wanted - 1) // wanted, least))
    if band_rows:
        tiling.rows = min(tiling.rows, max(band_rows, least))
    tiling.row_tiles = (crops.height + tiling.rows - 1) // tiling.rows
    tiling.column_tiles = (crops.width + tiling.columns - 1) // tiling.columns
    return tiling


cdef int compare_order(const void* a, const void* b) noexcept nogil:
    cdef const Order* p = <const Order*>a
    cdef const Order* q = <const Order*>b
    if p.image != q.image:
        return 1 if p.image > q.image else -1
    if p.top != q.top:
        return 1 if p.top > q.top else -1
    return 0


cdef Order* sort_tiles(
    const real* boxes, const Py_ssize_t* box_indices, const Array4* image,
    const Array4* crops, Py_ssize_t tile_rows, Py_ssize_t row_tiles,
) except NULL:
    """Order the crops' rows of tiles by image and the first row they read.

    Neighbours in that order read the same rows: a sweep down each image, in which what
    several boxes read is fetched into a core's own cache once.
    """
    cdef Py_ssize_t n, t, count = crops.batch * row_tiles
    cdef Axis axis
    cdef Order* order = <Order*>malloc(count * sizeof(Order))
    cdef Order* at = order
    if order == NULL:
        raise MemoryError(f"no memory for the order of {count} tiles")
    for n in range(crops.batch):
        axis = corners_axis(boxes[4 * n], boxes[4 * n + 2], image.height, crops.height)
        for t in range(row_tiles):
            at.image = box_indices[n]
            at.top = min(
                position(boxes, &axis, t * tile_rows),
                position(boxes, &axis, min((t + 1) * tile_rows, crops.height) - 1))
            at.box = n
            at.row_tile = t
            at += 1
    qsort(order, count, sizeof(Order), &compare_order)
    return order
