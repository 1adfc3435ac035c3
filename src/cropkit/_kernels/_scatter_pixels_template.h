/* The functions of _scatter_template.h for pixels of up to four channels, each held in one vector
 * or scalar: a template that takes REAL, SUFFIX, DEPTH (a digit), PIXEL and GET_PIXEL(to, g). */

#define OF_DEPTH(name) NAMED(CROPKIT_NAMED(name, DEPTH))

/* Add n crop pixels at g, `step` values apart, to the image rows top and bottom at the offsets
 * lo and hi, with the weights wx and wy. `same` says that the two rows are one.
 *
 * The sums of the current taps stay in registers until the taps move; the sum of a tap that the
 * next crop pixel has too stays there for longer. So in a magnified crop no addition waits for
 * the store of the one before. A sample on a pixel has that pixel as both taps (lo == hi), and
 * its additions go through memory. */
static inline __attribute__((always_inline)) void OF_DEPTH(cropkit_scatter_pixels)(
    REAL *top, REAL *bottom, const REAL *g, ptrdiff_t step, const ptrdiff_t *lo,
    const ptrdiff_t *hi, const REAL *wx, REAL wy, ptrdiff_t n, const int same)
{
    const REAL up = 1 - wy;
    PIXEL tl = {0}, tr = {0}, bl = {0}, br = {0};
    ptrdiff_t left = -1, right = -1;
    for (ptrdiff_t i = 0; i < n; i++, g += step) {
        PIXEL pixel;
        GET_PIXEL(pixel, g);
        const PIXEL t = up * pixel, b = wy * pixel;
        const REAL w = wx[i], v = 1 - w;
        const ptrdiff_t l = lo[i], r = hi[i];
        if (l != left || r != right) {
            if (left >= 0) {
                *(PIXEL *)(top + left) = tl;
                *(PIXEL *)(top + right) = tr;
                if (!same) {
                    *(PIXEL *)(bottom + left) = bl;
                    *(PIXEL *)(bottom + right) = br;
                }
            }
            if (l == r) {
                PIXEL sum = *(PIXEL *)(top + l) + v * t + w * t;
                if (same)
                    sum = sum + v * b + w * b;
                else
                    *(PIXEL *)(bottom + l) = *(PIXEL *)(bottom + l) + v * b + w * b;
                *(PIXEL *)(top + l) = sum;
                left = right = -1;
                continue;
            }
            const PIXEL old_tl = tl, old_bl = bl;
            if (l == right) {
                tl = tr;
                bl = br;
            } else {
                tl = *(PIXEL *)(top + l);
                if (!same)
                    bl = *(PIXEL *)(bottom + l);
            }
            if (r == left) {
                tr = old_tl;
                br = old_bl;
            } else {
                tr = *(PIXEL *)(top + r);
                if (!same)
                    br = *(PIXEL *)(bottom + r);
            }
            left = l;
            right = r;
        }
        tl += v * t;
        tr += w * t;
        if (same) {
            tl += v * b;
            tr += w * b;
        } else {
            bl += v * b;
            br += w * b;
        }
    }
    if (left >= 0) {
        *(PIXEL *)(top + left) = tl;
        *(PIXEL *)(top + right) = tr;
        if (!same) {
            *(PIXEL *)(bottom + left) = bl;
            *(PIXEL *)(bottom + right) = br;
        }
    }
}

static void OF_DEPTH(cropkit_scatter)(REAL *top, REAL *bottom, const REAL *g,
    ptrdiff_t step, const ptrdiff_t *lo, const ptrdiff_t *hi, const REAL *wx,
    REAL wy, ptrdiff_t n)
{
    if (top == bottom)
        OF_DEPTH(cropkit_scatter_pixels)(top, bottom, g, step, lo, hi, wx, wy, n, 1);
    else
        OF_DEPTH(cropkit_scatter_pixels)(top, bottom, g, step, lo, hi, wx, wy, n, 0);
}

static void OF_DEPTH(cropkit_drop)(REAL *row, const REAL *g, ptrdiff_t step,
    const ptrdiff_t *index, ptrdiff_t n)
{
    ptrdiff_t at = index[0];
    PIXEL sum = *(PIXEL *)(row + at);
    for (ptrdiff_t i = 0; i < n; i++, g += step) {
        if (index[i] != at) {
            *(PIXEL *)(row + at) = sum;
            at = index[i];
            sum = *(PIXEL *)(row + at);
        }
        PIXEL pixel;
        GET_PIXEL(pixel, g);
        sum += pixel;
    }
    *(PIXEL *)(row + at) = sum;
}

#undef OF_DEPTH
#undef DEPTH
#undef PIXEL
#undef GET_PIXEL
