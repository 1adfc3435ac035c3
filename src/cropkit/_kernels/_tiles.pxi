# How a call is cut into tiles, and in which order they are worked through; included by
# _forward.pxi. The gradient of the boxes sorts its tasks with it too.

from libc.stdlib cimport malloc, qsort

cdef enum:
    # TILE_ROW bounds the values of a tile's row: two such rows stay in the first-level cache.
    # A tile has so few rows that there are TILES_PER_THREAD tiles for each thread, but at least
    # TILE_MIN values, to be worth its tables, and at most TILE_MAX, since signals wait for it.
    TILE_ROW = 1 << 12
    TILE_MIN = 1 << 14
    TILE_MAX = 1 << 20
    TILE_ROWS = 1 << 14
    TILES_PER_THREAD = 4
    # About how many bytes of image rows a tile should read if tiles are sorted: they, and those
    # of the tiles before and after, stay in a core's second-level cache.
    BAND_ORDER = 1 << 20


cdef struct Tiling:
    Py_ssize_t rows, columns                # rows and columns of a tile
    Py_ssize_t row_tiles, column_tiles      # tiles of a crop along y and along x


cdef struct Order:
    # A row of tiles of one box, and its sort key: image, then top.
    Py_ssize_t image
    double top      # about the first image row that these tiles read
    Py_ssize_t box, row_tile


cdef Tiling plan_tiles(
    const Array4* crops, int num_threads, Py_ssize_t band_rows,
) noexcept nogil:
    """Choose the size of a tile, which bounds the scratch that a thread needs.

    If tiles are to be sorted, they have about `band_rows` rows; `band_rows` is 0 if not.
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
    """Sort the crops' rows of tiles by image and by the first image row that they read.

    The tiles then sweep down each image: rows that several boxes read are fetched into a core's
    second-level cache once.
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
