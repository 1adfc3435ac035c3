# The forward kernel, included by each instruction set's module.
#
# A call is cut into tasks: a box, or a band of rows of a large box. A task tabulates
# where it reads (one table an axis), then walks its crop rows. Of the source rows it
# keeps the last two, already interpolated horizontally: crop rows that fall between the
# same two source rows read them again, and a crop row is one pass over two rows in L1:
#
#     source row --(load)--> reals --(lerp along x)--> row --(lerp along y)--> crop row
#
# How the first two steps are done is the task's route:
#
#     DIRECT   the image already holds reals: lerp straight from it
#     BYTES    uint8, packed, up to four channels: 16-byte windows and byte shuffles
#     CONVERT  everything else: load the box's pixels as reals first; when the sampling
#              step is large, only the pixels that are taps
#
# Nothing here raises, and nothing trusts an index that it has not compared itself.

from cython.parallel cimport prange, threadid
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy
cimport numpy as cnp
from cropkit._kernels._sampling cimport real, sample_axis

cnp.import_array()

cdef extern from "Python.h" nogil:
    const Py_ssize_t PY_SSIZE_T_MIN

cdef extern from "_pixels.h" nogil:
    ctypedef void (*cropkit_loader_float)(
        float*, const char*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef void (*cropkit_loader_double)(
        double*, const char*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t) noexcept nogil
    const cropkit_loader_float* cropkit_loaders_float
    const cropkit_loader_double* cropkit_loaders_double
    const char** cropkit_pixel_names
    const int CROPKIT_PIXEL_TYPE_COUNT
    const int CROPKIT_uint8, CROPKIT_float32, CROPKIT_float64
    void cropkit_realign(
        char*, const char*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, int) noexcept

cdef extern from "_simd.h" nogil:
    const int CROPKIT_QUADS
    uint64_t cropkit_enter(bint flush) noexcept
    void cropkit_leave(uint64_t saved) noexcept
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
    void cropkit_lerp_bytes(
        float*, const uint8_t*, const int32_t*, const int32_t*, const int32_t*,
        const float*, Py_ssize_t) noexcept
    void cropkit_pick_bytes(
        float*, const uint8_t*, const int32_t*, const int32_t*, Py_ssize_t) noexcept
    Py_ssize_t cropkit_lerp_pixels1(
        float*, const float*, const Py_ssize_t*, const Py_ssize_t*, const float*,
        Py_ssize_t, Py_ssize_t) noexcept
    Py_ssize_t cropkit_lerp_pixels3(
        float*, const float*, const Py_ssize_t*, const Py_ssize_t*, const float*,
        Py_ssize_t, Py_ssize_t) noexcept
    Py_ssize_t cropkit_lerp_pixels4(
        float*, const float*, const Py_ssize_t*, const Py_ssize_t*, const float*,
        Py_ssize_t) noexcept

# Names of the image dtypes; an image's code is its dtype's position here.
PIXEL_TYPES = tuple(
    [cropkit_pixel_names[code].decode() for code in range(CROPKIT_PIXEL_TYPE_COUNT)])

cdef enum:
    LINE = 64   # bytes of a cache line, and of the widest vector
    PAD = 16    # reals that a vector store may write past the end of a scratch row
    BYTES_WINDOW = 16
    # Work of one task and of one round of tasks, in values of the result. A task of
    # 2**18 values is some 50 µs; between rounds, signals are looked at.
    TASK_MIN = 1 << 14
    TASK_MAX = 1 << 20
    ROUND_VALUES = 1 << 23
    TASKS_PER_THREAD = 4
    # Rows of images that do not stay in the second-level cache are asked for one crop row
    # ahead (a box's rows are too short for hardware prefetchers to learn: a third of the
    # cycles of `rgb_f32`), unless they would push each other out of the first level.
    PREFETCH_IMAGES = 1 << 21
    PREFETCH_ROW = 1 << 13

cdef enum Route:
    DIRECT
    BYTES
    CONVERT


cdef struct Image:
    const char* data
    Py_ssize_t batch, height, width, depth
    Py_ssize_t stride_b, stride_y, stride_x, stride_c   # bytes
    Py_ssize_t itemsize
    int code
    bint swapped, aligned


cdef struct Crops:
    char* data
    Py_ssize_t height, width
    Py_ssize_t stride_n, stride_y, stride_x, stride_c   # bytes
    bint packed     # a crop row is one aligned run
    bint nearest, stream


cdef struct Scratch:
    Py_ssize_t* y_lo
    Py_ssize_t* y_hi
    void* y_weight
    Py_ssize_t* x_lo
    Py_ssize_t* x_hi
    void* x_weight
    Py_ssize_t* columns     # of CONVERT, when it loads only the taps
    void* loaded            # of CONVERT, the pixels as reals
    char* raw               # of CONVERT, the pixels made native and aligned
    int32_t* start          # of BYTES, see _simd.h
    int32_t* left
    int32_t* right
    float* lane_weight
    void* rows[2]
    void* line              # a crop row that `out` cannot take directly


cdef struct Task:
    Route route
    Py_ssize_t first, last      # inside samples of the x axis
    Py_ssize_t load_first, load_count
    bint load_taps
    Py_ssize_t ahead, ahead_bytes   # of a source row, what to ask for early; 0 for nothing
    Py_ssize_t quads, lead      # of BYTES: windows a row, dummy floats before its first


cdef struct Order:
    Py_ssize_t image
    double top
    Py_ssize_t box


cdef inline Py_ssize_t place(char* base, void** slot, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Give `slot` its `size` bytes at offset `at`; the next free offset, on a cache line."""
    slot[0] = base + at if base != NULL else NULL
    return at + (size + LINE - 1) // LINE * LINE


cdef Py_ssize_t carve(
    Scratch* s, char* base, const Image* image, const Crops* crops,
    Py_ssize_t band, Py_ssize_t real_size,
) noexcept nogil:
    """Lay a thread's scratch out from `base`; its size in bytes (also for NULL)."""
    cdef Py_ssize_t n = crops.width
    cdef Py_ssize_t row = (n * image.depth + PAD) * real_size + 2 * LINE
    cdef Py_ssize_t loadable = min(image.width, 2 * n) * image.depth
    cdef Py_ssize_t lanes = (n * image.depth + 2 * PAD) // 16 * 16 if image.depth <= 4 else 0
    cdef Py_ssize_t at = 0
    at = place(base, <void**>&s.y_lo, at, band * sizeof(Py_ssize_t))
    at = place(base, <void**>&s.y_hi, at, band * sizeof(Py_ssize_t))
    at = place(base, &s.y_weight, at, band * real_size)
    at = place(base, <void**>&s.x_lo, at, n * sizeof(Py_ssize_t))
    at = place(base, <void**>&s.x_hi, at, n * sizeof(Py_ssize_t))
    at = place(base, &s.x_weight, at, n * real_size)
    at = place(base, <void**>&s.columns, at, 2 * n * sizeof(Py_ssize_t))
    at = place(base, &s.loaded, at, loadable * real_size)
    at = place(base, <void**>&s.raw, at, loadable * image.itemsize)
    at = place(base, <void**>&s.start, at, lanes)
    at = place(base, <void**>&s.left, at, 4 * lanes)
    at = place(base, <void**>&s.right, at, 4 * lanes)
    at = place(base, <void**>&s.lane_weight, at, 4 * lanes)
    at = place(base, &s.rows[0], at, row)
    at = place(base, &s.rows[1], at, row)
    return place(base, &s.line, at, row)


# ---- one source row ------------------------------------------------------------------


cdef inline void lerp_pixels(
    real* dst, const real* row, const Py_ssize_t* lo, const Py_ssize_t* hi,
    const real* weight, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t depth,
) noexcept nogil:
    """Plain loop; inlined with a constant depth, the compiler unrolls it."""
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
    real* dst, const real* row, const Scratch* s, Py_ssize_t first, Py_ssize_t n,
    Py_ssize_t depth, Py_ssize_t adjacent_last, bint nearest,
) noexcept nogil:
    """One crop row's inside run from a source row of reals, along x.

    ``adjacent_last`` is the offset of the row's last pixel when neighbours are adjacent in
    memory, else less than any offset.
    """
    cdef const Py_ssize_t* lo = s.x_lo + first
    cdef const Py_ssize_t* hi = s.x_hi + first
    cdef const real* weight = <const real*>s.x_weight + first
    cdef Py_ssize_t done = 0
    if nearest:
        if depth == 1:
            pick_pixels(dst, row, lo, n, 1)
        elif depth == 3:
            pick_pixels(dst, row, lo, n, 3)
        elif depth == 4:
            pick_pixels(dst, row, lo, n, 4)
        else:
            pick_pixels(dst, row, lo, n, depth)
    elif depth == 1:
        if real is float:
            done = cropkit_lerp_pixels1(dst, row, lo, hi, weight, n, adjacent_last)
        lerp_pixels(dst, row, lo, hi, weight, done, n, 1)
    elif depth == 3:
        if real is float:
            done = cropkit_lerp_pixels3(dst, row, lo, hi, weight, n, adjacent_last)
        lerp_pixels(dst, row, lo, hi, weight, done, n, 3)
    elif depth == 4:
        if real is float:
            done = cropkit_lerp_pixels4(dst, row, lo, hi, weight, n)
        lerp_pixels(dst, row, lo, hi, weight, done, n, 4)
    else:
        lerp_pixels(dst, row, lo, hi, weight, 0, n, depth)


cdef void interpolate_row(
    real* dst, const char* row, const Image* image, const Crops* crops,
    const Scratch* s, const Task* task,
) noexcept nogil:
    """One crop row's inside run from a source row of the image, along x, by its route."""
    cdef Py_ssize_t n = task.last - task.first, depth = image.depth
    cdef Py_ssize_t last = PY_SSIZE_T_MIN
    cdef const char* source = row
    cdef const Py_ssize_t* columns = s.columns if task.load_taps else NULL
    cdef Py_ssize_t begin = task.load_first
    cdef Py_ssize_t stride_x = image.stride_x, stride_c = image.stride_c
    if task.route == DIRECT:
        if stride_x == depth * <Py_ssize_t>sizeof(real):
            last = (image.width - 1) * depth
        interpolate_reals(
            dst, <const real*>row, s, task.first, n, depth, last, crops.nearest)
        return
    if task.route == BYTES:
        if real is float:
            if crops.nearest:
                cropkit_pick_bytes(dst - task.lead, <const uint8_t*>row, s.start, s.left, task.quads)
            else:
                cropkit_lerp_bytes(
                    dst - task.lead, <const uint8_t*>row, s.start, s.left, s.right, s.lane_weight,
                    task.quads)
        return
    if image.swapped or not image.aligned:
        cropkit_realign(
            s.raw, row, columns, begin, task.load_count, stride_x, depth, stride_c,
            image.itemsize, image.swapped)
        source = s.raw
        columns = NULL
        begin = 0
        stride_c = image.itemsize
        stride_x = depth * stride_c
    if real is float:
        cropkit_loaders_float[image.code](
            <float*>s.loaded, source, columns, begin, task.load_count, stride_x, depth, stride_c)
    else:
        cropkit_loaders_double[image.code](
            <double*>s.loaded, source, columns, begin, task.load_count, stride_x, depth, stride_c)
    interpolate_reals(
        dst, <const real*>s.loaded, s, task.first, n, depth, (task.load_count - 1) * depth,
        crops.nearest)


# ---- one task ------------------------------------------------------------------------


cdef bint plan_bytes(const Image* image, const Crops* crops, const Scratch* s, Task* task) noexcept nogil:
    """Make the tables of the BYTES route, or say that some quad's taps are too far apart."""
    cdef Py_ssize_t depth = image.depth, row_bytes = image.width * depth
    cdef Py_ssize_t begin = task.lead, end = begin + (task.last - task.first) * depth
    cdef Py_ssize_t q, k, i = task.first, c = 0, f
    cdef int32_t low, high
    cdef const float* weight = <const float*>s.x_weight
    for f in range(begin, end):
        s.left[f] = <int32_t>(s.x_lo[i] * depth + c)
        if not crops.nearest:
            s.right[f] = <int32_t>(s.x_hi[i] * depth + c)
            s.lane_weight[f] = weight[i]
        c += 1
        if c == depth:
            c = 0
            i += 1
    task.quads = (end + 15) // 16 * 4     # a multiple of every CROPKIT_QUADS
    for f in range(4 * task.quads):
        if f < begin or f >= end:
            k = begin if f < begin else end - 1
            s.left[f] = s.left[k]
            if not crops.nearest:
                s.right[f] = s.right[k]
                s.lane_weight[f] = 0
    for q in range(task.quads):
        low = s.left[4 * q]
        high = low
        for k in range(4 * q, 4 * q + 4):
            low = min(low, s.left[k])
            high = max(high, s.left[k] if crops.nearest else s.right[k])
        low = <int32_t>min(low, row_bytes - BYTES_WINDOW)
        if high - low >= BYTES_WINDOW:
            return False
        s.start[q] = low
        for k in range(4 * q, 4 * q + 4):
            s.left[k] = (s.left[k] - low) | <int32_t>0x80808000
            if not crops.nearest:
                s.right[k] = (s.right[k] - low) | <int32_t>0x80808000
    return True


cdef void plan_load(const Image* image, const Crops* crops, const Scratch* s, Task* task) noexcept nogil:
    """Choose what CONVERT loads, and make the tap tables offsets into it."""
    cdef Py_ssize_t i, low, high, n = task.last - task.first
    cdef Py_ssize_t taps = 1 if crops.nearest else 2
    low = min(s.x_lo[task.first], s.x_lo[task.last - 1])
    high = max(s.x_hi[task.first], s.x_hi[task.last - 1])
    task.load_taps = high - low + 1 > taps * n
    if task.load_taps:
        task.load_count = taps * n
        for i in range(n):
            s.columns[taps * i] = s.x_lo[task.first + i]
            s.x_lo[task.first + i] = taps * i * image.depth
            if not crops.nearest:
                s.columns[2 * i + 1] = s.x_hi[task.first + i]
                s.x_hi[task.first + i] = (2 * i + 1) * image.depth
    else:
        task.load_first = low
        task.load_count = high - low + 1
        for i in range(task.first, task.last):
            s.x_lo[i] = (s.x_lo[i] - low) * image.depth
            s.x_hi[i] = (s.x_hi[i] - low) * image.depth


cdef void plan_prefetch(const Image* image, const Scratch* s, Task* task) noexcept nogil:
    """Find the bytes of a source row that the task reads, if asking for them early pays."""
    cdef Py_ssize_t low = s.x_lo[task.first], high = s.x_hi[task.last - 1]
    cdef Py_ssize_t near = low * image.stride_x, far = high * image.stride_x
    cdef Py_ssize_t plane = image.height * max(image.stride_y, -image.stride_y)
    task.ahead = min(near, far)
    task.ahead_bytes = max(near, far) - task.ahead
    # In floating point: a broadcast batch may have more images than there is memory.
    if <double>plane * <double>image.batch < PREFETCH_IMAGES or task.ahead_bytes > PREFETCH_ROW:
        task.ahead_bytes = 0


cdef inline void prefetch_taps(
    const char* pixels, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t tag0, Py_ssize_t tag1,
    const Image* image, const Task* task,
) noexcept nogil:
    """Ask for the source rows `lo` and `hi`, as far as they are not at hand."""
    if lo != tag0 and lo != tag1:
        cropkit_prefetch(pixels + lo * image.stride_y + task.ahead, task.ahead_bytes)
    if hi != lo and hi != tag0 and hi != tag1:
        cropkit_prefetch(pixels + hi * image.stride_y + task.ahead, task.ahead_bytes)


cdef void plan_route(
    const real* unused, const Image* image, const Crops* crops, const Scratch* s, Task* task,
) noexcept nogil:
    """Choose the task's route and turn its x table into what the route reads by."""
    cdef Py_ssize_t i, stride = image.stride_x // <Py_ssize_t>sizeof(real)
    cdef bint native = image.aligned and not image.swapped
    cdef int own_code
    if real is float:
        own_code = CROPKIT_float32
    else:
        own_code = CROPKIT_float64
    task.load_taps = False
    task.load_first = task.load_count = task.quads = 0
    if (
        native and (image.depth == 1 or image.stride_c == <Py_ssize_t>sizeof(real))
        and image.code == own_code
    ):
        task.route = DIRECT
        for i in range(task.first, task.last):
            s.x_lo[i] *= stride
            s.x_hi[i] *= stride
        return
    if real is float:
        if (
            CROPKIT_QUADS > 0 and image.code == CROPKIT_uint8 and image.depth <= 4
            and (image.depth == 1 or image.stride_c == 1)
            and image.stride_x == image.depth
            and BYTES_WINDOW <= image.width * image.depth <= 0x7fffffff
            and plan_bytes(image, crops, s, task)
        ):
            task.route = BYTES
            return
    task.route = CONVERT
    plan_load(image, crops, s, task)


cdef void fill(real* dst, Py_ssize_t n, real value) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        dst[i] = value


cdef void store_line(const real* line, char* dst, const Image* image, const Crops* crops) noexcept nogil:
    """Spread a crop row over an `out` of any strides and alignment."""
    cdef Py_ssize_t x, c
    for x in range(crops.width):
        for c in range(image.depth):
            memcpy(
                dst + x * crops.stride_x + c * crops.stride_c,
                line + x * image.depth + c, sizeof(real))


cdef void crop_band(
    const real* box, Py_ssize_t image_index, real extrapolation, char* out,
    Py_ssize_t begin, Py_ssize_t end,
    const Image* image, const Crops* crops, const Scratch* s,
) noexcept nogil:
    """Crop rows ``begin <= y < end`` of one box, written to `out`, the box's crop."""
    cdef Task task
    cdef Py_ssize_t y, y_first = end, y_last = end, depth = image.depth
    cdef Py_ssize_t before, inside, after, keep, phase, tag0 = -1, tag1 = -1
    cdef real* line
    cdef real* rows[2]
    cdef const real* top
    cdef const real* bottom
    cdef const char* pixels
    cdef real* y_weight = <real*>s.y_weight
    cdef cropkit_carry carry
    carry.bytes = 0

    task.first = task.last = crops.width
    if image_index >= 0 and image_index < image.batch:
        sample_axis(
            box[0], box[2], image.height, crops.height, begin, end, crops.nearest,
            s.y_lo, s.y_hi, y_weight, &y_first, &y_last)
        sample_axis(
            box[1], box[3], image.width, crops.width, 0, crops.width, crops.nearest,
            s.x_lo, s.x_hi, <real*>s.x_weight, &task.first, &task.last)
    if task.first == task.last:
        y_first = y_last = end
    before = task.first * depth
    inside = (task.last - task.first) * depth
    after = (crops.width - task.last) * depth
    pixels = image.data + image_index * image.stride_b
    # Rows start at the crop row's own place within a cache line, so that a vector that is
    # aligned in one is aligned in the other.
    line = <real*>(out + begin * crops.stride_y) if crops.packed else <real*>s.line
    phase = <size_t>(line + before) % LINE
    rows[0] = <real*>(<char*>s.rows[0] + LINE + phase)
    rows[1] = <real*>(<char*>s.rows[1] + LINE + phase)
    task.lead = phase // <Py_ssize_t>sizeof(real)
    if y_first < y_last:
        plan_prefetch(image, s, &task)
        plan_route(<real*>NULL, image, crops, s, &task)

    for y in range(begin, end):
        line = <real*>(out + y * crops.stride_y) if crops.packed else <real*>s.line
        if y < y_first or y >= y_last:
            fill(line, crops.width * depth, extrapolation)
        else:
            fill(line, before, extrapolation)
            if task.ahead_bytes and y + 1 < y_last:
                prefetch_taps(
                    pixels, s.y_lo[y + 1 - begin], s.y_hi[y + 1 - begin], tag0, tag1, image, &task)
            keep = s.y_lo[y - begin]
            if keep == tag1:
                tag0, tag1 = tag1, tag0
                rows[0], rows[1] = rows[1], rows[0]
            elif keep != tag0:
                # The row that is overwritten must not be the one that `hi` needs.
                if tag0 == s.y_hi[y - begin]:
                    tag0, tag1 = tag1, tag0
                    rows[0], rows[1] = rows[1], rows[0]
                interpolate_row(
                    rows[0], pixels + keep * image.stride_y, image, crops, s, &task)
                tag0 = keep
            top = bottom = rows[0]
            keep = s.y_hi[y - begin]
            if keep != tag0:
                if keep != tag1:
                    interpolate_row(
                        rows[1], pixels + keep * image.stride_y, image, crops, s, &task)
                    tag1 = keep
                bottom = rows[1]
            if real is float:
                if crops.nearest:
                    cropkit_copy_f32(line + before, top, top, 0, inside, crops.stream, &carry)
                else:
                    cropkit_blend_f32(
                        line + before, top, bottom, y_weight[y - begin], inside, crops.stream,
                        &carry)
            else:
                if crops.nearest:
                    cropkit_copy_f64(line + before, top, top, 0, inside, crops.stream, &carry)
                else:
                    cropkit_blend_f64(
                        line + before, top, bottom, y_weight[y - begin], inside, crops.stream,
                        &carry)
            fill(line + before + inside, after, extrapolation)
        if not crops.packed:
            cropkit_flush_carry(&carry)
            store_line(line, out + y * crops.stride_y, image, crops)
    cropkit_flush_carry(&carry)


# ---- all tasks -----------------------------------------------------------------------


cdef int compare_order(const void* a, const void* b) noexcept nogil:
    cdef const Order* p = <const Order*>a
    cdef const Order* q = <const Order*>b
    if p.image != q.image:
        return 1 if p.image > q.image else -1
    if p.top != q.top:
        return 1 if p.top > q.top else -1
    return 0


def crop_and_resize(
    cnp.ndarray image, int code, bint swapped, const real[:, ::1] boxes,
    const Py_ssize_t[::1] box_indices, cnp.ndarray out, bint nearest,
    double extrapolation, int num_threads, bint stream, bint in_order,
):
    """Fill `out`. The caller has checked everything; see ``_cpu.py``.

    Parameters
    ----------
    image : ndarray, shape (batch, height, width, depth)
        Any strides, alignment and byte order.
    code : int
        The image dtype's position in ``PIXEL_TYPES``.
    swapped : bool
        Whether the image's byte order is not the machine's.
    boxes : ndarray, shape (num_boxes, 4)
        Normalized; float32 or float64, which is the type of all arithmetic.
    box_indices : ndarray of intp, shape (num_boxes,)
    out : ndarray, shape (num_boxes, crop_height, crop_width, depth)
        The dtype of `boxes`, native; any strides and alignment; not empty.
    nearest : bool
    extrapolation : float
    num_threads : int
        Size of the team; 1 starts none.
    stream : bool
        Use streaming stores.
    in_order : bool
        Work through the boxes as given, not sorted by image and top edge.

    Raises
    ------
    MemoryError
        There is no memory for the scratch rows.
    KeyboardInterrupt
        A signal arrived; `out` is then partly filled.
    """
    cdef Image source
    cdef Crops crops
    cdef Scratch unused
    cdef Py_ssize_t num_boxes = boxes.shape[0], band, bands, values, rows
    cdef Py_ssize_t tasks, task, begin, end, round_tasks, scratch_size, n
    cdef char* scratch = NULL
    cdef Order* order = NULL
    cdef real fill_value = <real>extrapolation

    source.data = <const char*>cnp.PyArray_DATA(image)
    source.batch, source.height, source.width, source.depth = (
        image.shape[0], image.shape[1], image.shape[2], image.shape[3])
    source.stride_b, source.stride_y, source.stride_x, source.stride_c = (
        image.strides[0], image.strides[1], image.strides[2], image.strides[3])
    source.itemsize = cnp.PyArray_ITEMSIZE(image)
    source.code = code
    source.swapped = swapped
    source.aligned = cnp.PyArray_ISALIGNED(image)
    crops.data = <char*>cnp.PyArray_DATA(out)
    crops.height, crops.width = out.shape[1], out.shape[2]
    crops.stride_n, crops.stride_y, crops.stride_x, crops.stride_c = (
        out.strides[0], out.strides[1], out.strides[2], out.strides[3])
    crops.packed = (
        cnp.PyArray_ISALIGNED(out)
        and (source.depth == 1 or crops.stride_c == <Py_ssize_t>sizeof(real))
        and (crops.width == 1 or crops.stride_x == source.depth * <Py_ssize_t>sizeof(real)))
    crops.nearest = nearest
    crops.stream = stream

    # Bands: enough tasks to share out, none so long that signals wait for it.
    values = crops.width * source.depth
    rows = max(1, min(crops.height, TASK_MAX // values))
    if num_boxes < TASKS_PER_THREAD * num_threads:
        bands = (TASKS_PER_THREAD * num_threads + num_boxes - 1) // num_boxes
        rows = min(rows, max((crops.height + bands - 1) // bands, 1 + (TASK_MIN - 1) // values))
    band = min(rows, crops.height)
    bands = (crops.height + band - 1) // band
    tasks = num_boxes * bands
    round_tasks = max(num_threads, ROUND_VALUES // (band * values)) * num_threads
    num_threads = <int>min(num_threads, tasks)

    scratch_size = carve(&unused, NULL, &source, &crops, band, sizeof(real))
    try:
        scratch = <char*>malloc(num_threads * scratch_size + 64)
        if scratch == NULL:
            raise MemoryError(
                f"no memory for {num_threads} threads' rows of {scratch_size} bytes")
        if not in_order:
            order = <Order*>malloc(num_boxes * sizeof(Order))
            if order == NULL:
                raise MemoryError(f"no memory for the order of {num_boxes} boxes")
            for n in range(num_boxes):
                order[n].image = box_indices[n]
                order[n].top = min(boxes[n, 0], boxes[n, 2])
                order[n].box = n
            qsort(order, num_boxes, sizeof(Order), &compare_order)

        begin = 0
        while begin < tasks:
            end = tasks if tasks - begin <= round_tasks else begin + round_tasks
            with nogil:
                if num_threads == 1:
                    for task in range(begin, end):
                        run_task(task, bands, band, order, boxes, box_indices, fill_value, &source, &crops,
                                 scratch)
                else:
                    for task in prange(begin, end, schedule="dynamic", num_threads=num_threads):
                        run_task(task, bands, band, order, boxes, box_indices, fill_value, &source, &crops,
                                 scratch + threadid() * scratch_size)
            begin = end
            if begin < tasks:
                PyErr_CheckSignals()
    finally:
        free(order)
        free(scratch)


cdef void run_task(
    Py_ssize_t task, Py_ssize_t bands, Py_ssize_t band, const Order* order,
    const real[:, ::1] boxes, const Py_ssize_t[::1] box_indices, real extrapolation,
    const Image* image, const Crops* crops, char* scratch,
) noexcept nogil:
    cdef Scratch s
    cdef uint64_t saved
    cdef Py_ssize_t n = task // bands, begin = (task % bands) * band
    if order != NULL:
        n = order[n].box
    carve(&s, <char*>((<size_t>scratch + 63) // 64 * 64), image, crops, band, sizeof(real))
    saved = cropkit_enter(sizeof(real) == sizeof(float))
    crop_band(
        &boxes[n, 0], box_indices[n], extrapolation, crops.data + n * crops.stride_n,
        begin, min(begin + band, crops.height), image, crops, &s)
    cropkit_leave(saved)
    if crops.stream:
        cropkit_stream_fence()
