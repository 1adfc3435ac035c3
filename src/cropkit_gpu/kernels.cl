/* The operators for GPUs: one source, compiled by OpenCL and by NVRTC.
 *
 * A program holds one kernel, chosen by macros that the host defines (_launches.py):
 *
 *   KERNEL_...    which: AXIS_TABLES, FORWARD, GRAD_IMAGE, GRAD_BOXES or ADD_CHUNKS
 *   PIXEL         dtype of the array that is read, the image or the crops' gradients
 *   TAP           dtype of the image beside the gradients, for GRAD_BOXES
 *   RESULT        dtype of the result, REAL but for the image's gradient
 *   REAL          float32 or float64: of positions, weights and arithmetic
 *   VALUE         what pixels are converted to: REAL, or float64 for GRAD_BOXES
 *   NEAREST       0 or 1
 *   CHANNELS      consecutive channels that a work-item handles, a run
 *   PIXEL_VECTOR, RESULT_VECTOR   0 or 1: whether a run is four channels, aligned as such
 *   LOCAL_SIZE    work-items of a group, a power of two, at least 64
 *   HAS_FLOAT64, EXACT_DIVISION   0 or 1: features of an OpenCL device
 *
 * Sizes and strides are 64 bits wide; strides count elements. Each group loops over its share
 * of the tasks, so a launch may have any number of groups.
 */

/* ---- where CUDA and OpenCL differ -------------------------------------------------- */

#ifdef __CUDACC__

#pragma nv_diag_suppress 177 /* functions that this kernel has no use for */
#define KERNEL extern "C" __global__ void __launch_bounds__(LOCAL_SIZE)
#define FUNCTION static __device__ __forceinline__
#define GLOBAL
/* A plain assignment of four words would become four stores. */
#define STORE(at, piece) __stwb(at, piece)
#define RESTRICT __restrict__
#define LOCAL __shared__
#define LOCAL_POINTER(TYPE) TYPE *
#define BARRIER() __syncthreads()
#define ITEM ((int)threadIdx.x)
#define GROUP ((i64)blockIdx.x)
#define GROUPS ((i64)gridDim.x)
#define AS_FLOAT(x) __uint_as_float(x)
#define AS_BITS(x) __float_as_uint(x)
typedef long long i64;
typedef unsigned long long u64;
#define HAS_FLOAT64 1

#else

#pragma OPENCL FP_CONTRACT OFF
#define KERNEL __attribute__((reqd_work_group_size(LOCAL_SIZE, 1, 1))) kernel void
#define FUNCTION static inline
#define GLOBAL global
#define STORE(at, piece) (*(at) = (piece))
#define RESTRICT restrict
#define LOCAL local
#define LOCAL_POINTER(TYPE) local TYPE *
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE)
#define ITEM ((int)get_local_id(0))
#define GROUP ((i64)get_group_id(0))
#define GROUPS ((i64)get_num_groups(0))
#define AS_FLOAT(x) as_float(x)
#define AS_BITS(x) as_uint(x)
typedef long i64;
typedef ulong u64;

#endif

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef float f32;
#if HAS_FLOAT64
typedef double f64;
#endif

/* ---- arithmetic: each operation rounded on its own --------------------------------- */

/* float32 subnormals become zeros of their sign, as operands and as results. OpenCL does not say
 * whether a device flushes them, so it is done here. In PTX a suffix flushes, and operations
 * written in PTX are not contracted either. */
#ifdef __CUDACC__

#define PTX_OPERATION(NAME, CODE)                                                        \
    FUNCTION f32 NAME##_float32(f32 a, f32 b)                                            \
    {                                                                                    \
        f32 result;                                                                      \
        asm(CODE ".rn.ftz.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));             \
        return result;                                                                   \
    }
PTX_OPERATION(add, "add")
PTX_OPERATION(sub, "sub")
PTX_OPERATION(mul, "mul")
PTX_OPERATION(div, "div")
FUNCTION f32 flush_float32(f32 x) { return mul_float32(x, 1.0f); }

#else

FUNCTION f32 flush_float32(f32 x)
{
    const u32 bits = AS_BITS(x);
    return bits & 0x7f800000u ? x : AS_FLOAT(bits & 0x80000000u);
}
FUNCTION f32 add_float32(f32 a, f32 b) { return flush_float32(a + b); }
FUNCTION f32 sub_float32(f32 a, f32 b) { return flush_float32(a - b); }
FUNCTION f32 mul_float32(f32 a, f32 b) { return flush_float32(a * b); }
/* OpenCL's own division may be wrong by two units in the last place; a float64 quotient rounded
 * to float32 is correct. */
#if EXACT_DIVISION
FUNCTION f32 div_float32(f32 a, f32 b) { return flush_float32(a / b); }
#else
FUNCTION f32 div_float32(f32 a, f32 b) { return flush_float32((f32)((f64)a / (f64)b)); }
#endif

#endif

#if HAS_FLOAT64
FUNCTION f64 flush_float64(f64 x) { return x; }
FUNCTION f64 add_float64(f64 a, f64 b) { return a + b; }
FUNCTION f64 sub_float64(f64 a, f64 b) { return a - b; }
FUNCTION f64 mul_float64(f64 a, f64 b) { return a * b; }
FUNCTION f64 div_float64(f64 a, f64 b) { return a / b; }
#endif

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define ADD JOIN(add, REAL)
#define SUB JOIN(sub, REAL)
#define MUL JOIN(mul, REAL)
#define DIV JOIN(div, REAL)
#define FLUSH JOIN(flush, REAL)
#define real JOIN(stored, REAL)

/* The parameters of an array: its memory, the offset of element 0, and each axis' stride. */
#define ARRAY(TYPE, NAME)                                                                \
    GLOBAL TYPE *RESTRICT NAME, i64 NAME##_0, i64 NAME##_n, i64 NAME##_y, i64 NAME##_x,  \
        i64 NAME##_c
/* The parameters of the tables: each box's image, the taps and the weights. */
#define TABLES                                                                           \
    GLOBAL const i64 *RESTRICT box_indices, GLOBAL const i64 *RESTRICT lo,               \
        GLOBAL const real *RESTRICT weight

/* Divide sizes, in 32 bits if they fit: 64-bit division is a long subroutine on a GPU. */
FUNCTION i64 quotient(i64 a, i64 b)
{
    return (a | b) >> 32 ? a / b : (i64)((u32)a / (u32)b);
}

/* ---- pixels ------------------------------------------------------------------------ */

/* The conversion is exact: a subnormal float16 is a normal float32. */
FUNCTION f32 from_float16(u16 half_bits)
{
    const u32 sign = (u32)(half_bits & 0x8000) << 16;
    const u32 magnitude = (u32)(half_bits & 0x7fff) << 13;
    if (magnitude < 0x00800000u)
        return AS_FLOAT(AS_BITS(mul_float32((f32)(half_bits & 0x3ff), 0x1p-24f)) | sign);
    const u32 rebias = magnitude < 0x0f800000u ? 112u << 23 : 224u << 23;
    return AS_FLOAT((magnitude + rebias) | sign);
}

/* One row for each dtype: its name, the type that stores it, and the value of the pixel `p`. */
#define value JOIN(stored, VALUE)
#define DTYPES(ROW)                                                                      \
    ROW(bool, u8, p != 0)                                                                \
    ROW(uint8, u8, p)                                                                    \
    ROW(int8, i8, p)                                                                     \
    ROW(uint16, u16, p)                                                                  \
    ROW(int16, i16, p)                                                                   \
    ROW(uint32, u32, p)                                                                  \
    ROW(int32, i32, p)                                                                   \
    ROW(uint64, u64, p)                                                                  \
    ROW(int64, i64, p)                                                                   \
    ROW(float16, u16, from_float16(p))                                                   \
    ROW(bfloat16, u16, AS_FLOAT((u32)p << 16))                                           \
    ROW(float32, f32, p)

#define STORED(NAME, TYPE, VALUE_OF_P) typedef TYPE stored_##NAME;
DTYPES(STORED)
#if HAS_FLOAT64
STORED(float64, f64, )
#endif

#define CONVERT(NAME, TYPE, VALUE_OF_P)                                                  \
    FUNCTION value load_##NAME(TYPE p) { return (value)(VALUE_OF_P); }
DTYPES(CONVERT)
#if HAS_FLOAT64
CONVERT(float64, f64, p)
#endif

#define PIXEL_VALUE JOIN(load, PIXEL)
#define pixel JOIN(stored, PIXEL)
/* The value of a pixel as an operand of arithmetic. */
#define ARITHMETIC(p) FLUSH(PIXEL_VALUE(p))

/* An aligned run of four channels is loaded and stored as one vector: compilers do not join
 * four loads or stores. Rejected: a union of array and vector, which is one line for all
 * dtypes, but held garbage on PoCL 3.0 when passed by value. */
typedef uchar4 four_bool;
typedef uchar4 four_uint8;
typedef char4 four_int8;
typedef ushort4 four_uint16;
typedef short4 four_int16;
typedef uint4 four_uint32;
typedef int4 four_int32;
typedef ushort4 four_float16;
typedef ushort4 four_bfloat16;
typedef float4 four_float32;

#ifdef CHANNELS
FUNCTION void load_run(pixel *run, GLOBAL const pixel *at)
{
#if PIXEL_VECTOR
    const JOIN(four, PIXEL) four = *(GLOBAL const JOIN(four, PIXEL) *)at;
    run[0] = four.x, run[1] = four.y, run[2] = four.z, run[3] = four.w;
#else
    for (int k = 0; k < CHANNELS; k++)
        run[k] = at[k];
#endif
}

#define result JOIN(stored, RESULT)
FUNCTION void store_run(GLOBAL result *at, const result *run)
{
#if RESULT_VECTOR
    JOIN(four, RESULT) four;
    four.x = run[0], four.y = run[1], four.z = run[2], four.w = run[3];
    STORE((GLOBAL JOIN(four, RESULT) *)at, four);
#else
    for (int k = 0; k < CHANNELS; k++)
        at[k] = run[k];
#endif
}
#endif

/* ---- axis tables: where a crop reads ----------------------------------------------- */

/* A table has, for each box, the samples of the crop's rows and then of its columns. `lo` is a
 * sample's first tap. The second tap is the next pixel if the weight is positive, else the same
 * pixel. Outside samples have lo = -1 before the image, lo = n after it, and the weight 0: so
 * lo is monotone along an axis, and a run of samples can be found by bisection. A position that
 * is NaN gets -1; its axis has no inside sample. */

#ifdef KERNEL_AXIS_TABLES
FUNCTION real position(real a, real b, i64 n, i64 count, i64 i)
{
    const real limit = (real)(n - 1);
    if (count > 1) {
        const real scale = DIV(MUL(SUB(b, a), limit), (real)(count - 1));
        return ADD(MUL(a, limit), MUL((real)i, scale));
    }
#if HAS_FLOAT64
    return FLUSH((real)(0.5 * (f64)ADD(a, b) * (f64)(n - 1)));
#else /* equal to the above as long as n - 1 has 24 bits, which the host checks */
    return MUL(ADD(a, b), 0.5f * limit);
#endif
}

KERNEL axis_tables(GLOBAL const real *boxes, GLOBAL i64 *lo, GLOBAL real *weight,
    i64 height, i64 width, i64 num_boxes, i64 crop_height, i64 crop_width)
{
    const i64 samples = crop_height + crop_width, end = num_boxes * samples;
    for (i64 at = GROUP * LOCAL_SIZE + ITEM; at < end; at += GROUPS * LOCAL_SIZE) {
        const i64 box = quotient(at, samples), i = at - box * samples;
        const int along_x = i >= crop_height;
        const i64 n = along_x ? width : height;
        const real a = FLUSH(boxes[4 * box + along_x]);
        const real b = FLUSH(boxes[4 * box + 2 + along_x]);
        const real v = along_x ? position(a, b, n, crop_width, i - crop_height)
                               : position(a, b, n, crop_height, i);
        i64 low = -1;
        real w = 0;
        if (v > (real)(n - 1))
            low = n;
        else if (v >= 0) {
            low = (i64)v;
            /* For v = -0.0 the weight must be -0.0. v - low alone would give 0.0 if a compiler
             * made a truncation of the conversion to integer and back. */
            w = v == 0 ? v : SUB(v, (real)low);
#if NEAREST
            low += w >= (real)0.5;
            w = 0;
#endif
            low = low < n ? low : n - 1;
        }
        lo[at] = low;
        weight[at] = w;
    }
}
#endif

FUNCTION i64 second_tap(i64 lo, real weight) { return lo + (weight > 0); }

/* Find the samples [begin, end) of an axis whose first tap is one of [first, last]. */
FUNCTION void find_samples(
    GLOBAL const i64 *lo, i64 count, i64 first, i64 last, i64 *begin, i64 *end)
{
    const int rising = lo[0] <= lo[count - 1];
    i64 bounds[2];
    for (int side = 0; side < 2; side++) {
        const i64 bound = rising ? first + side * (last + 1 - first)
                                 : last - side * (last + 1 - first);
        i64 from = 0, to = count;
        while (from < to) {
            const i64 middle = from + (to - from) / 2;
            if (rising ? lo[middle] >= bound : lo[middle] <= bound)
                to = middle;
            else
                from = middle + 1;
        }
        bounds[side] = from;
    }
    *begin = bounds[0];
    *end = bounds[1];
}

/* ---- forward ----------------------------------------------------------------------- */

#ifdef KERNEL_FORWARD
FUNCTION real lerp(real a, real b, real weight)
{
    return ADD(a, MUL(SUB(b, a), weight));
}

/* `row_items` work-items of a group share a crop row. Each takes a run of channels, channels
 * first, and steps by `row_items` until the end of the row. */
KERNEL forward(ARRAY(const pixel, image), TABLES, ARRAY(result, out), i64 height, i64 width,
    i64 depth, i64 num_boxes, i64 crop_height, i64 crop_width, real extrapolation_value,
    i32 row_items)
{
    const i64 runs = depth / CHANNELS, rows = num_boxes * crop_height;
    const i32 rows_at_once = LOCAL_SIZE / row_items;
    const i64 first = ITEM % row_items, step_x = quotient(row_items, runs);
    const i64 step_c = row_items - step_x * runs;

    for (i64 row = GROUP * rows_at_once + ITEM / row_items; row < rows;
         row += GROUPS * rows_at_once) {
        const i64 box = quotient(row, crop_height), y = row - box * crop_height;
        GLOBAL const i64 *row_lo = lo + box * (crop_height + crop_width);
        GLOBAL const real *row_weight = weight + box * (crop_height + crop_width);
        const i64 top = row_lo[y];
        const real wy = row_weight[y];
        const int row_inside = top >= 0 && top < height;
        GLOBAL const pixel *upper =
            image + image_0 + box_indices[box] * image_n + top * image_y;
        GLOBAL const pixel *lower = upper + (second_tap(top, wy) - top) * image_y;
        GLOBAL result *crop_row = out + out_0 + box * out_n + y * out_y;
        row_lo += crop_height;
        row_weight += crop_height;

        i64 x = quotient(first, runs), c = first - x * runs;
        while (x < crop_width) {
            const i64 left = row_lo[x];
            real crop_pixel[CHANNELS];
            if (row_inside && left >= 0 && left < width) {
                const i64 at = left * image_x + c * CHANNELS * image_c;
                pixel tl[CHANNELS];
                load_run(tl, upper + at);
#if NEAREST
                for (int k = 0; k < CHANNELS; k++) {
                    const real v = PIXEL_VALUE(tl[k]);
                    /* A copied pixel is not flushed; a rounded one is. */
                    crop_pixel[k] = sizeof(pixel) > sizeof(real) ? FLUSH(v) : v;
                }
#else
                const real wx = row_weight[x];
                const i64 across = (second_tap(left, wx) - left) * image_x;
                pixel tr[CHANNELS], bl[CHANNELS], br[CHANNELS];
                load_run(tr, upper + at + across);
                load_run(bl, lower + at);
                load_run(br, lower + at + across);
                for (int k = 0; k < CHANNELS; k++)
                    crop_pixel[k] = lerp(
                        lerp(ARITHMETIC(tl[k]), ARITHMETIC(tr[k]), wx),
                        lerp(ARITHMETIC(bl[k]), ARITHMETIC(br[k]), wx), wy);
#endif
            } else {
                for (int k = 0; k < CHANNELS; k++)
                    crop_pixel[k] = extrapolation_value;
            }
            store_run(crop_row + x * out_x + c * CHANNELS * out_c, crop_pixel);
            x += step_x;
            c += step_c;
            if (c >= runs) {
                c -= runs;
                x++;
            }
        }
    }
}
#endif

/* ---- gradient of the image --------------------------------------------------------- */

#ifdef KERNEL_GRAD_IMAGE

/* Casts of a finished sum. A cast to an integer goes towards zero and saturates; NaN gives 0. */
#define SATURATE(NAME, TYPE, LEAST, MOST, BEYOND)                                        \
    FUNCTION TYPE cast_to_##NAME(f32 v)                                                   \
    {                                                                                    \
        return v != v ? 0 : v <= (f32)(LEAST) ? LEAST : v >= BEYOND ? MOST : (TYPE)v;    \
    }
SATURATE(uint8, u8, 0, 0xff, 0x1p8f)
SATURATE(int8, i8, -0x80, 0x7f, 0x1p7f)
SATURATE(uint16, u16, 0, 0xffff, 0x1p16f)
SATURATE(int16, i16, -0x8000, 0x7fff, 0x1p15f)
SATURATE(uint32, u32, 0, 0xffffffffu, 0x1p32f)
SATURATE(int32, i32, -0x7fffffff - 1, 0x7fffffff, 0x1p31f)
SATURATE(uint64, u64, 0, 0xffffffffffffffffu, 0x1p64f)
SATURATE(int64, i64, -(i64)0x7fffffffffffffff - 1, (i64)0x7fffffffffffffff, 0x1p63f)

FUNCTION u8 cast_to_bool(f32 v) { return v != 0; }

FUNCTION u16 cast_to_float16(f32 v)
{
    const u32 sign = AS_BITS(v) >> 16 & 0x8000;
    u32 bits = AS_BITS(v) & 0x7fffffff;
    if (bits > 0x7f800000)
        return (u16)(sign | 0x7e00);
    if (bits >= 0x477ff000) /* 65520 and above */
        return (u16)(sign | 0x7c00);
    if (bits < 0x38800000) /* below 2^-14: the last bit of v + 0.5 is that of the float16 */
        return (u16)(sign | (AS_BITS(add_float32(AS_FLOAT(bits), 0.5f)) - 0x3f000000));
    bits += 0xfff + (bits >> 13 & 1);
    return (u16)(sign | (bits - 0x38000000) >> 13);
}

FUNCTION u16 cast_to_bfloat16(f32 v)
{
    const u32 bits = AS_BITS(v);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (u16)(bits >> 16 | 0x40);
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

FUNCTION f32 cast_to_float32(f32 v) { return v; }
#if HAS_FLOAT64
FUNCTION f64 cast_to_float64(f64 v) { return v; }
#endif

/* Whether one of an axis' samples may read one of the pixels [first, last]. */
FUNCTION int may_read(GLOBAL const i64 *lo, i64 count, i64 first, i64 last)
{
    const i64 a = lo[0], b = lo[count - 1];
    return (a < b ? a : b) <= last && (a < b ? b : a) + 1 >= first;
}

/* Add one crop's gradients to CHANNELS values of the image pixel (y, x). `grads` points to the
 * first of these channels in the crop's first pixel. */
FUNCTION void add_crop(real *sums, GLOBAL const pixel *grads, i64 grads_y, i64 grads_x,
    GLOBAL const i64 *lo, GLOBAL const real *weight, i64 crop_height, i64 crop_width, i64 y,
    i64 x)
{
    GLOBAL const i64 *column_lo = lo + crop_height;
    GLOBAL const real *column_weight = weight + crop_height;
    i64 i, i_end, j, j_begin, j_end;
    /* A sample whose first tap is the pixel before may have (y, x) as its second tap. */
    find_samples(lo, crop_height, y - !NEAREST, y, &i, &i_end);
    find_samples(column_lo, crop_width, x - !NEAREST, x, &j_begin, &j_end);
    for (; i < i_end; i++) {
        const real wy = weight[i];
        const int is_top = lo[i] == y, is_bottom = second_tap(lo[i], wy) == y;
        for (j = j_begin; j < j_end; j++) {
            const real wx = column_weight[j];
            const int is_left = column_lo[j] == x;
            const int is_right = second_tap(column_lo[j], wx) == x;
            pixel run[CHANNELS];
            load_run(run, grads + i * grads_y + j * grads_x);
            for (int k = 0; k < CHANNELS; k++) {
                const real g = ARITHMETIC(run[k]);
#if NEAREST
                sums[k] = ADD(sums[k], g);
#else
                const real top = MUL(SUB(1, wy), g), bottom = MUL(wy, g);
                if (is_top && is_left)
                    sums[k] = ADD(sums[k], MUL(SUB(1, wx), top));
                if (is_top && is_right)
                    sums[k] = ADD(sums[k], MUL(wx, top));
                if (is_bottom && is_left)
                    sums[k] = ADD(sums[k], MUL(SUB(1, wx), bottom));
                if (is_bottom && is_right)
                    sums[k] = ADD(sums[k], MUL(wx, bottom));
#endif
            }
        }
    }
}

/* A group owns a tile of `tile_y` rows, `tile_x` columns and some channels of an image; a
 * work-item owns a run of channels of one pixel. A work-item adds in TensorFlow's order:
 * boxes, crop rows, crop columns, and then tl, tr, bl, br. */
KERNEL grad_image(ARRAY(const pixel, grads), TABLES, ARRAY(result, out), i64 batch,
    i64 height, i64 width, i64 depth, i64 num_boxes, i64 crop_height, i64 crop_width,
    i32 tile_y, i32 tile_x)
{
    /* One bit for each box, eight in a word: whether the box may reach into the tile. */
    LOCAL u32 near[LOCAL_SIZE];
    const i32 tile_c = LOCAL_SIZE / (tile_y * tile_x);
    const i64 runs = depth / CHANNELS, samples = crop_height + crop_width;
    const i64 tiles_y = quotient(height + tile_y - 1, tile_y);
    const i64 tiles_x = quotient(width + tile_x - 1, tile_x);
    const i64 tiles_c = quotient(runs + tile_c - 1, tile_c);
    const i64 tiles = batch * tiles_y * tiles_x * tiles_c;

    for (i64 tile = GROUP; tile < tiles; tile += GROUPS) {
        const i64 pillar = quotient(tile, tiles_c); /* all channels of a tile */
        const i64 tile_row = quotient(pillar, tiles_x), n = quotient(tile_row, tiles_y);
        const i64 tile_top = (tile_row - n * tiles_y) * tile_y;
        const i64 tile_left = (pillar - tile_row * tiles_x) * tile_x;
        const i64 y = tile_top + ITEM / (tile_x * tile_c);
        const i64 x = tile_left + ITEM / tile_c % tile_x;
        const i64 run = (tile - pillar * tiles_c) * tile_c + ITEM % tile_c;
        const i64 c = run * CHANNELS;
        const int owns = y < height && x < width && run < runs;
        real sums[CHANNELS];
        for (int k = 0; k < CHANNELS; k++)
            sums[k] = 0;

        for (i64 first_box = 0; first_box < num_boxes; first_box += 8 * LOCAL_SIZE) {
            u32 mine = 0;
            for (int k = 0; k < 8; k++) {
                const i64 box = first_box + 8 * ITEM + k;
                GLOBAL const i64 *box_lo = lo + box * samples;
                if (box < num_boxes && box_indices[box] == n
                    && may_read(box_lo, crop_height, tile_top, tile_top + tile_y - 1)
                    && may_read(box_lo + crop_height, crop_width, tile_left,
                        tile_left + tile_x - 1))
                    mine |= 1u << k;
            }
            BARRIER();
            near[ITEM] = mine;
            BARRIER();
            for (int word = 0; word < LOCAL_SIZE; word++) {
                const i64 box = first_box + 8 * word;
                if (box >= num_boxes)
                    break;
                for (u32 bits = owns ? near[word] : 0, k = 0; bits >> k; k++)
                    if (bits >> k & 1)
                        add_crop(sums, grads + grads_0 + (box + k) * grads_n + c * grads_c,
                            grads_y, grads_x, lo + (box + k) * samples,
                            weight + (box + k) * samples, crop_height, crop_width, y, x);
            }
        }
        if (owns) {
            GLOBAL result *at = out + out_0 + n * out_n + y * out_y + x * out_x;
            result cast[CHANNELS];
            for (int k = 0; k < CHANNELS; k++)
                cast[k] = JOIN(cast_to, RESULT)(sums[k]);
            store_run(at + c * out_c, cast);
        }
    }
}
#endif

/* ---- gradient of the boxes --------------------------------------------------------- */

/* Sums are float64, in an order that does not depend on the size of a group: value f of a crop
 * row, or of the columns, goes to lane f % 8; each lane is one chain of additions, and the lanes
 * are folded 8 to 4 to 2 to 1. */

#ifdef KERNEL_GRAD_BOXES

#define TAP_VALUE JOIN(load, TAP)
#define tap JOIN(stored, TAP)

FUNCTION f64 fold(LOCAL_POINTER(const f64) lanes)
{
    const f64 a = lanes[0] + lanes[4], b = lanes[1] + lanes[5];
    const f64 c = lanes[2] + lanes[6], d = lanes[3] + lanes[7];
    return (a + c) + (b + d);
}

/* How far sample i moves, in pixels, with its axis' first edge (side 0) or second (side 1). */
FUNCTION f64 edge_weight(i64 n, i64 count, i64 i, int side)
{
    const f64 limit = (f64)(n - 1);
    if (count == 1)
        return 0.5 * limit;
    const f64 second = (f64)i * (limit / (f64)(count - 1));
    return side ? second : limit - second;
}

/* The taps of one box. `image` and `grads` point to the first pixel of its image and crop. */
typedef struct {
    GLOBAL const pixel *grads;
    GLOBAL const tap *image;
    i64 grads_y, grads_x, grads_c, image_y, image_x, image_c, depth;
    GLOBAL const i64 *row_lo, *column_lo;
    GLOBAL const real *row_weight, *column_weight;
} box_taps;

/* The gradient of a crop pixel times the slope of the image there, along y or x. */
FUNCTION f64 slope(const box_taps *t, i64 i, i64 j, i64 c, int along_x)
{
    const i64 top = t->row_lo[i], left = t->column_lo[j];
    const i64 down = (second_tap(top, t->row_weight[i]) - top) * t->image_y;
    const i64 across = (second_tap(left, t->column_weight[j]) - left) * t->image_x;
    GLOBAL const tap *at = t->image + top * t->image_y + left * t->image_x + c * t->image_c;
    const f64 tl = TAP_VALUE(at[0]), tr = TAP_VALUE(at[across]);
    const f64 bl = TAP_VALUE(at[down]), br = TAP_VALUE(at[down + across]);
    const f64 g =
        PIXEL_VALUE(t->grads[i * t->grads_y + j * t->grads_x + c * t->grads_c]);
    const f64 w = along_x ? t->row_weight[i] : t->column_weight[j];
    return along_x ? g * ((1 - w) * (tr - tl) + w * (br - bl))
                   : g * ((1 - w) * (bl - tl) + w * (br - tr));
}

/* One lane of a crop row, through the columns [j, j_end). A pixel of 8 channels or more
 * begins at lane 0 anew. */
FUNCTION f64 row_lane(const box_taps *t, i64 i, i64 j, i64 j_end, int lane)
{
    const i64 depth = t->depth, step_j = depth < 8 ? 8 / (int)depth : 0;
    const i64 step_c = depth < 8 ? 8 % (int)depth : 8;
    f64 sum = 0;
    i64 c = depth < 8 ? lane % (int)depth : lane;
    j += depth < 8 ? lane / (int)depth : 0;
    while (j < j_end) {
        sum += slope(t, i, j, c, 0);
        j += step_j;
        c += step_c;
        if (c >= depth) {
            c = depth < 8 ? c - depth : lane;
            j++;
        }
    }
    return sum;
}

/* One lane of a crop column, through the rows [i, i_end). */
FUNCTION f64 column_lane(const box_taps *t, i64 i, i64 i_end, i64 j, int lane)
{
    f64 sum = 0;
    for (; i < i_end; i++)
        for (i64 c = lane; c < t->depth; c += 8)
            sum += slope(t, i, j, c, 1);
    return sum;
}

/* A group sums a chunk, some rows of a crop, to the four values that the chunk adds. */
KERNEL grad_boxes(ARRAY(const pixel, grads), ARRAY(const tap, image), TABLES,
    GLOBAL f64 *chunk_sums, i64 height, i64 width, i64 depth, i64 num_boxes,
    i64 crop_height, i64 crop_width, i64 chunk_rows, i64 chunks)
{
    LOCAL f64 lanes[LOCAL_SIZE];
    const int lane = ITEM % 8, at_once = LOCAL_SIZE / 8;
    for (i64 task = GROUP; task < num_boxes * chunks; task += GROUPS) {
        const i64 box = quotient(task, chunks), chunk = task - box * chunks;
        box_taps t;
        t.grads = grads + grads_0 + box * grads_n;
        t.image = image + image_0 + box_indices[box] * image_n;
        t.grads_y = grads_y, t.grads_x = grads_x, t.grads_c = grads_c;
        t.image_y = image_y, t.image_x = image_x, t.image_c = image_c, t.depth = depth;
        t.row_lo = lo + box * (crop_height + crop_width);
        t.row_weight = weight + box * (crop_height + crop_width);
        t.column_lo = t.row_lo + crop_height;
        t.column_weight = t.row_weight + crop_height;

        i64 i_begin, i_end, j_begin, j_end;
        find_samples(t.row_lo, crop_height, 0, height - 1, &i_begin, &i_end);
        find_samples(t.column_lo, crop_width, 0, width - 1, &j_begin, &j_end);
        if (i_begin < chunk * chunk_rows)
            i_begin = chunk * chunk_rows;
        if (i_end > (chunk + 1) * chunk_rows)
            i_end = (chunk + 1) * chunk_rows;

        /* Item 0 holds y1 and y2; each of the first eight items holds a lane of x1 and x2. */
        f64 y1 = 0, y2 = 0, x1 = 0, x2 = 0;
        for (i64 first = i_begin; first < i_end; first += at_once) {
            const i64 i = first + ITEM / 8;
            lanes[ITEM] = i < i_end ? row_lane(&t, i, j_begin, j_end, lane) : 0;
            BARRIER();
            for (int k = 0; ITEM == 0 && k < at_once && first + k < i_end; k++) {
                const f64 sum = fold(lanes + 8 * k);
                y1 += edge_weight(height, crop_height, first + k, 0) * sum;
                y2 += edge_weight(height, crop_height, first + k, 1) * sum;
            }
            BARRIER();
        }
        for (i64 first = j_begin; first < j_end; first += at_once) {
            const i64 j = first + ITEM / 8;
            lanes[ITEM] = j < j_end ? column_lane(&t, i_begin, i_end, j, lane) : 0;
            BARRIER();
            for (int k = ITEM; ITEM < 8 && k < at_once && first + k < j_end; k += 8) {
                const f64 sum = fold(lanes + 8 * k);
                x1 += edge_weight(width, crop_width, first + k, 0) * sum;
                x2 += edge_weight(width, crop_width, first + k, 1) * sum;
            }
            BARRIER();
        }
        if (ITEM < 8) {
            lanes[ITEM] = x1;
            lanes[8 + ITEM] = x2;
        }
        BARRIER();
        if (ITEM == 0) {
            GLOBAL f64 *sums = chunk_sums + 4 * task;
            sums[0] = y1, sums[1] = fold(lanes), sums[2] = y2, sums[3] = fold(lanes + 8);
        }
        BARRIER();
    }
}
#endif

#ifdef KERNEL_ADD_CHUNKS
KERNEL add_chunks(GLOBAL const f64 *chunk_sums, GLOBAL real *out, i64 out_0, i64 out_n,
    i64 out_edge, i64 num_boxes, i64 chunks)
{
    const i64 step = GROUPS * LOCAL_SIZE;
    for (i64 at = GROUP * LOCAL_SIZE + ITEM; at < 4 * num_boxes; at += step) {
        f64 sum = 0;
        for (i64 chunk = 0; chunk < chunks; chunk++)
            sum += chunk_sums[4 * (at / 4 * chunks + chunk) + at % 4];
        out[out_0 + at / 4 * out_n + at % 4 * out_edge] = (real)sum;
    }
}
#endif
