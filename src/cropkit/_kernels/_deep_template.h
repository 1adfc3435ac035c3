/* The functions of _deep.h for one type: a template that takes REAL and SUFFIX. */

#define VECTOR NAMED(cropkit_vector)

static inline __attribute__((always_inline)) VECTOR NAMED(cropkit_deep_vector)(const REAL *tl,
    const REAL *tr, const REAL *bl, const REAL *br, REAL wx, REAL wy, const int picks)
{
    if (picks)
        return *(const VECTOR *)tl;
    return NAMED(cropkit_between)(
        NAMED(cropkit_lerp)(tl, tr, wx), NAMED(cropkit_lerp)(bl, br, wx), wy);
}

/* cropkit_deep_lerp_*: make n pixels of a crop row from two source rows.
 * cropkit_deep_pick_*: copy n pixels of a crop row from `top`; `bottom`, `hi` and the weights are
 * not read.
 *
 * `line` is a vector of `dst` that is being put together, with room on both sides for values
 * of its neighbours. `picks` is a constant. */
static inline __attribute__((always_inline)) void NAMED(cropkit_deep)(
    REAL *dst, const REAL *top, const REAL *bottom, const ptrdiff_t *lo, const ptrdiff_t *hi,
    const REAL *weight, REAL wy, ptrdiff_t n, ptrdiff_t depth, int stream,
    cropkit_carry *carry, const int picks)
{
    enum { LANES = CROPKIT_VECTOR_BYTES / sizeof(REAL) };
    struct {
        REAL before[LANES], line[LANES], after[LANES];
    } __attribute__((aligned(CROPKIT_VECTOR_BYTES))) at;
    ptrdiff_t held = (uintptr_t)dst % CROPKIT_VECTOR_BYTES / sizeof(REAL);
    ptrdiff_t skip = 0; /* lanes of the first vector that are not written here */
    VECTOR v;
    dst -= held;
    if (held && carry->line == (char *)dst
        && carry->bytes == held * (ptrdiff_t)sizeof(REAL)) {
        memcpy(at.line, carry->held, sizeof v);
        carry->bytes = 0;
    } else {
        cropkit_flush_carry(carry);
        skip = held;
    }
    for (ptrdiff_t s = 0; s < n; s++) {
        const REAL *tl = top + lo[s], *tr = picks ? tl : top + hi[s];
        const REAL *bl = picks ? tl : bottom + lo[s], *br = picks ? tl : bottom + hi[s];
        const REAL wx = picks ? 0 : weight[s];
        ptrdiff_t i = 0;
        if (held) {
            v = NAMED(cropkit_deep_vector)(tl + i, tr + i, bl + i, br + i, wx, wy, picks);
            memcpy(at.line + held, &v, sizeof v);
            if (skip) {
                memcpy(dst + skip, at.line + skip, (LANES - skip) * sizeof(REAL));
                skip = 0;
            } else {
                memcpy(&v, at.line, sizeof v);
                CROPKIT_STORE(dst, v, stream);
            }
            dst += LANES;
            i = LANES - held;
        }
        if (stream)
            for (; i + LANES <= depth; i += LANES, dst += LANES) {
                v = NAMED(cropkit_deep_vector)(tl + i, tr + i, bl + i, br + i, wx, wy, picks);
                CROPKIT_STORE(dst, v, 1);
            }
        else
            for (; i + LANES <= depth; i += LANES, dst += LANES) {
                v = NAMED(cropkit_deep_vector)(tl + i, tr + i, bl + i, br + i, wx, wy, picks);
                CROPKIT_STORE(dst, v, 0);
            }
        held = depth - i;
        if (held) {
            i = depth - LANES;
            v = NAMED(cropkit_deep_vector)(tl + i, tr + i, bl + i, br + i, wx, wy, picks);
            memcpy(at.line + held - LANES, &v, sizeof v);
        }
    }
    if (held) {
        memcpy(carry->held, at.line, sizeof v);
        carry->line = (char *)dst;
        carry->bytes = held * sizeof(REAL);
    }
}

static inline void NAMED(cropkit_deep_lerp)(REAL *dst, const REAL *top, const REAL *bottom,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *weight, REAL wy, ptrdiff_t n,
    ptrdiff_t depth, int stream, cropkit_carry *carry)
{
    NAMED(cropkit_deep)(dst, top, bottom, lo, hi, weight, wy, n, depth, stream, carry, 0);
}

static inline void NAMED(cropkit_deep_pick)(REAL *dst, const REAL *top, const REAL *bottom,
    const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *weight, REAL wy, ptrdiff_t n,
    ptrdiff_t depth, int stream, cropkit_carry *carry)
{
    NAMED(cropkit_deep)(dst, top, bottom, lo, hi, weight, wy, n, depth, stream, carry, 1);
}
#undef VECTOR
