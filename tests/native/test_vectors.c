/* The headers of the kernels against plain scalar loops, bit for bit.
 *
 * Needs no Python, so that it can be cross-compiled and run in an emulator: the only test
 * of the NEON code on a machine that is not AArch64 (`.ci/run native`).
 *
 *     gcc -O3 -ffp-contract=off -Isrc/cropkit/_kernels tests/native/test_vectors.c -lm
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "_environment.h"
#include "_pixels.h"
#include "_simd.h"

/* A reference must stay what it looks like: one value at a time. */
#define SCALAR __attribute__((noinline, optimize("no-tree-vectorize", "no-tree-slp-vectorize")))
#define LENGTH(array) ((ptrdiff_t)(sizeof(array) / sizeof(array)[0]))

enum { ROOM = 128, LONGEST = 70 };

static long passed, failed;

static void check(int holds, const char *what, long detail)
{
    if (holds) {
        passed++;
    } else if (failed++ < 20) {
        printf("FAILED %s (%ld)\n", what, detail);
    }
}

/* ---- values ----------------------------------------------------------------------- */

static uint64_t random_state = 1;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static double random_value(void)
{
    static const double special[] = {0.0, -0.0, INFINITY, -INFINITY, NAN, 1e-40, -1e-40, 1e-310,
        FLT_MIN, -FLT_MIN, 3e38, -3e38, 1.0};
    const uint64_t bits = random_bits();
    if (bits % 8 == 0)
        return special[bits / 8 % LENGTH(special)];
    return ldexp((double)(int64_t)bits, (int)(random_bits() % 60) - 90);
}

#define DEFINE_REAL(REAL, NAME, BITS)                                                    \
    static int same_##NAME(const REAL *a, const REAL *b, ptrdiff_t n)                    \
    {                                                                                    \
        for (ptrdiff_t i = 0; i < n; i++) {                                              \
            BITS x, y;                                                                   \
            memcpy(&x, a + i, sizeof x);                                                 \
            memcpy(&y, b + i, sizeof y);                                                 \
            if (x != y && !(isnan(a[i]) && isnan(b[i])))                                 \
                return 0;                                                                \
        }                                                                                \
        return 1;                                                                        \
    }                                                                                    \
                                                                                         \
    static SCALAR REAL scalar_lerp_##NAME(REAL a, REAL b, REAL w)                        \
    {                                                                                    \
        const volatile REAL difference = b - a;                                          \
        const volatile REAL product = difference * w;                                    \
        return a + product;                                                              \
    }                                                                                    \
                                                                                         \
    /* Rows of every length and alignment, one after the other or with gaps, which stay as\
     * they are. What is read has a vector of room on either side. */                    \
    static void test_rows_##NAME(int flush)                                              \
    {                                                                                    \
        enum { MARGIN = 16, ROWS = 4, OUT = 32 + ROWS * (LONGEST + 4) };                 \
        static REAL top[MARGIN + LONGEST + MARGIN], bottom[MARGIN + LONGEST + MARGIN];   \
        static REAL blend[OUT], copy[OUT], want_blend[OUT], want_copy[OUT];              \
        for (int round = 0; round < 1000; round++) {                                     \
            const int stream = round % 2;                                                \
            cropkit_carry blended = {.bytes = 0}, copied = {.bytes = 0};                 \
            ptrdiff_t at = random_bits() % 32;                                           \
            for (int i = 0; i < OUT; i++)                                                \
                blend[i] = copy[i] = want_blend[i] = want_copy[i] = 77;                  \
            const uint64_t saved = cropkit_enter(flush);                                 \
            for (int row = 0; row < ROWS; row++) {                                       \
                const ptrdiff_t n = 1 + random_bits() % (random_bits() % LONGEST + 1);   \
                const REAL weight = (REAL)(random_bits() % 1024) / 1024;                 \
                for (int i = 0; i < LENGTH(top); i++) {                                  \
                    top[i] = (REAL)random_value();                                       \
                    bottom[i] = (REAL)random_value();                                    \
                }                                                                        \
                cropkit_blend_##NAME(                                                    \
                    blend + at, top + MARGIN, bottom + MARGIN, weight, n, stream, &blended);\
                cropkit_copy_##NAME(                                                     \
                    copy + at, top + MARGIN, top + MARGIN, weight, n, stream, &copied);  \
                for (ptrdiff_t i = 0; i < n; i++)                                        \
                    want_blend[at + i] =                                                 \
                        scalar_lerp_##NAME(top[MARGIN + i], bottom[MARGIN + i], weight); \
                memcpy(want_copy + at, top + MARGIN, n * sizeof(REAL));                  \
                at += n + (random_bits() % 2 ? random_bits() % 4 : 0);                   \
            }                                                                            \
            cropkit_flush_carry(&blended);                                               \
            cropkit_flush_carry(&copied);                                                \
            cropkit_stream_fence();                                                      \
            cropkit_leave(saved);                                                        \
            check(same_##NAME(blend, want_blend, OUT), "blend_" #NAME, round);           \
            check(same_##NAME(copy, want_copy, OUT), "copy_" #NAME, round);              \
        }                                                                                \
    }

DEFINE_REAL(float, f32, uint32_t)
DEFINE_REAL(double, f64, uint64_t)

/* ---- uint8 windows ---------------------------------------------------------------- */

static void test_bytes(void)
{
    static uint8_t row[ROOM];
    static int32_t start[16], left[64], right[64];
    static float weight[64], lerp[64], pick[64], want_lerp[64], want_pick[64];
    for (int round = 0; round < 2000; round++) {
        const ptrdiff_t quads = 4 * (round % 5);
        for (int i = 0; i < ROOM; i++)
            row[i] = (uint8_t)random_bits();
        for (int i = 0; i < 64; i++) {
            const int l = random_bits() % 16, r = random_bits() % 16;
            if (i % 4 == 0)
                start[i / 4] = random_bits() % (ROOM - 15);
            left[i] = l | (int32_t)0x80808000;
            right[i] = r | (int32_t)0x80808000;
            weight[i] = (float)(random_bits() % 4096) / 4096;
            lerp[i] = pick[i] = want_lerp[i] = want_pick[i] = 77;
            if (i < 4 * quads && CROPKIT_QUADS) {
                const uint8_t *window = row + start[i / 4];
                want_lerp[i] = scalar_lerp_f32(window[l], window[r], weight[i]);
                want_pick[i] = window[l];
            }
        }
        cropkit_lerp_bytes(lerp, row, start, left, right, weight, quads);
        cropkit_pick_bytes(pick, row, start, left, quads);
        check(same_f32(lerp, want_lerp, 64), "lerp_bytes", quads);
        check(same_f32(pick, want_pick, 64), "pick_bytes", quads);
    }
}

/* ---- float32 pixels --------------------------------------------------------------- */

/* From two rows at once, straight into a result with no room to spare. */
static void test_two_rows(const float *top, const ptrdiff_t *lo, const ptrdiff_t *hi,
    const float *weight, ptrdiff_t n, ptrdiff_t last, int flush)
{
    const float wy = (float)(random_bits() % 8) / 8;
    float *bottom = malloc(3 * ROOM * sizeof *bottom);
    float *dst = malloc(3 * n * sizeof *dst), *want = malloc(3 * n * sizeof *want);
    for (int i = 0; i < 3 * ROOM; i++)
        bottom[i] = (float)random_value();
    const uint64_t saved = cropkit_enter(flush);
    cropkit_lerp_pixels3(2, dst, top, bottom, lo, hi, weight, wy, n, last);
    for (ptrdiff_t i = 0; i < 3 * n; i++) {
        const ptrdiff_t l = lo[i / 3] + i % 3, r = hi[i / 3] + i % 3;
        want[i] = scalar_lerp_f32(scalar_lerp_f32(top[l], top[r], weight[i / 3]),
            scalar_lerp_f32(bottom[l], bottom[r], weight[i / 3]), wy);
    }
    cropkit_leave(saved);
    check(same_f32(dst, want, 3 * n), "lerp_pixels3 of two rows", n);
    free(bottom);
    free(dst);
    free(want);
}

static void test_pixels(int flush)
{
    static float dst[4 * LONGEST + 16], want[4 * LONGEST + 16], weight[LONGEST + 4];
    static ptrdiff_t lo[LONGEST], hi[LONGEST];
    for (int round = 0; round < 60 * LONGEST; round++) {
        const ptrdiff_t n = round % LONGEST, depth = (ptrdiff_t[]){1, 3, 4}[round % 3];
        const ptrdiff_t step = random_bits() % 20, flips = random_bits() % 2;
        const ptrdiff_t last = random_bits() % 4 ? depth * (ROOM - 1) : PTRDIFF_MIN;
        /* As large as it must be: AddressSanitizer sees what is read beyond. */
        float *row = malloc(depth * ROOM * sizeof *row);
        for (int i = 0; i < depth * ROOM; i++)
            row[i] = (float)random_value();
        for (ptrdiff_t i = 0; i < n; i++) {
            const ptrdiff_t position = (flips ? n - 1 - i : i) * step / 8;
            const ptrdiff_t at = position < ROOM - 1 ? position : ROOM - 1;
            weight[i] = at == ROOM - 1 ? 0 : (float)(random_bits() % 8) / 8;
            lo[i] = depth * at;
            hi[i] = weight[i] == 0 ? lo[i] : lo[i] + depth;
        }
        const uint64_t saved = cropkit_enter(flush);
        const ptrdiff_t done = depth == 1 ? cropkit_lerp_pixels1(dst, row, lo, hi, weight, n, last)
            : depth == 3
            ? cropkit_lerp_pixels3(1, dst, row, row, lo, hi, weight, 0, n, last)
                         : cropkit_lerp_pixels4(dst, row, lo, hi, weight, n);
        for (ptrdiff_t i = 0; i < done * depth; i++)
            want[i] = scalar_lerp_f32(
                row[lo[i / depth] + i % depth], row[hi[i / depth] + i % depth], weight[i / depth]);
        cropkit_leave(saved);
        check(done >= 0 && done <= n, "lerp_pixels: samples done", done);
        check(same_f32(dst, want, done * depth), "lerp_pixels", depth);
        if (depth == 3) {
            cropkit_pick_pixels3(dst, row, lo, n, last);
            for (ptrdiff_t i = 0; i < 3 * n; i++)
                want[i] = row[lo[i / 3] + i % 3];
            check(same_f32(dst, want, 3 * n), "pick_pixels3", n);
            if (n >= CROPKIT_TAPS && CROPKIT_TAPS > 0 && last >= 0)
                test_two_rows(row, lo, hi, weight, n, last, flush);
        }
        free(row);
    }
}

/* ---- conversions ------------------------------------------------------------------ */

static SCALAR float scalar_float16(unsigned bits)
{
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
        : exponent                          ? ldexp(1024 + mantissa, exponent - 25)
                                            : ldexp(mantissa, -24);
    return (float)(bits >> 15 ? -magnitude : magnitude);
}

static void test_float16(int flush)
{
    for (unsigned bits = 0; bits < 1 << 16; bits++) {
        const uint64_t saved = cropkit_enter(flush);
        const float got = cropkit_from_float16((cropkit_float16){(uint16_t)bits});
        cropkit_leave(saved);
        const float want = scalar_float16(bits);
        check(same_f32(&got, &want, 1), "from_float16", bits);
    }
}

/* Packed rows, listed columns, and channels that are not neighbours. */
#define DEFINE_TEST_LOADER(NAME, PIXEL, VALUE, CAST, SINGLE, REAL)                       \
    static SCALAR REAL scalar_##NAME##_##REAL(const char *at)                            \
    {                                                                                    \
        PIXEL p;                                                                         \
        memcpy(&p, at, sizeof p);                                                        \
        return (REAL)(VALUE);                                                            \
    }                                                                                    \
                                                                                         \
    static void test_load_##NAME##_##REAL(void)                                          \
    {                                                                                    \
        enum { COUNT = 23, MOST = 3 * COUNT };                                           \
        static PIXEL pixels[4 * MOST];                                                   \
        static REAL got[MOST], want[MOST];                                               \
        static ptrdiff_t columns[COUNT];                                                 \
        for (size_t i = 0; i < sizeof pixels; i++)                                       \
            ((uint8_t *)pixels)[i] = (uint8_t)random_bits();                             \
        for (int layout = 0; layout < 4; layout++) {                                     \
            const ptrdiff_t size = sizeof(PIXEL), stride_c = layout & 1 ? 2 * size : size;\
            const ptrdiff_t stride_x = 3 * stride_c, first = 2;                          \
            for (ptrdiff_t i = 0; i < COUNT; i++)                                        \
                columns[i] = layout & 2 ? (ptrdiff_t)(random_bits() % COUNT) : first + i;\
            for (ptrdiff_t i = 0; i < MOST; i++)                                         \
                want[i] = scalar_##NAME##_##REAL((const char *)pixels                    \
                    + columns[i / 3] * stride_x + i % 3 * stride_c);                     \
            cropkit_load_##NAME##_##REAL(got, (const char *)pixels,                      \
                layout & 2 ? columns : NULL, first, COUNT, stride_x, 3, stride_c);       \
            int same = 1;                                                                \
            for (ptrdiff_t i = 0; i < MOST; i++)                                         \
                same &= got[i] == want[i] ? !signbit(got[i]) == !signbit(want[i])        \
                                          : isnan(got[i]) && isnan(want[i]);             \
            check(same, "load_" #NAME "_" #REAL, layout);                                \
        }                                                                                \
    }

CROPKIT_PIXEL_TYPES(DEFINE_TEST_LOADER, float)
CROPKIT_PIXEL_TYPES(DEFINE_TEST_LOADER, double)

#define CALL_TEST_LOADER(NAME, PIXEL, VALUE, CAST, SINGLE, REAL) test_load_##NAME##_##REAL();

/* ---- floating-point environment --------------------------------------------------- */

/* Volatile: no value may be known, or be computed before the state is set. */
static volatile float smallest_normal = FLT_MIN, half = 0.5f, quarter = FLT_MIN / 4, four = 4;

static void test_environment(void)
{
    volatile float result, operand, kept, again;
    result = smallest_normal * half;
    check(result != 0, "subnormals are on before", 0);
    const uint64_t outer = cropkit_enter(1);
    result = smallest_normal * half;
    operand = quarter * four;
    const uint64_t inner = cropkit_enter(0);
    kept = smallest_normal * half;
    cropkit_leave(inner);
    again = smallest_normal * half;
    cropkit_leave(outer);
    check(result == 0, "enter(1) flushes results", 0);
    check(operand == 0, "enter(1) flushes operands", 0);
    check(kept != 0, "enter(0) keeps subnormals", 0);
    check(again == 0, "leave gives the former state back", 0);
    result = smallest_normal * half;
    check(result != 0, "leave gives the first state back", 0);
}

int main(void)
{
    test_environment();
    test_bytes();
    for (int flush = 0; flush < 2; flush++) {
        test_rows_f32(flush);
        test_rows_f64(flush);
        test_pixels(flush);
        test_float16(flush);
    }
    CROPKIT_PIXEL_TYPES(CALL_TEST_LOADER, float)
    CROPKIT_PIXEL_TYPES(CALL_TEST_LOADER, double)
    printf("vectors of %d bytes, windows of %d quads: %ld passed, %ld failed\n",
        CROPKIT_VECTOR_BYTES, CROPKIT_QUADS, passed, failed);
    return failed != 0;
}
