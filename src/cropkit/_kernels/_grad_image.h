/* The image gradient's inner loops: what a crop row adds to an image row.
 *
 * Additions keep the operator's order; nothing is fused or reassociated. Rows that are
 * added to have their pixels padded to whole vectors where depth is 2 or 3, so that a
 * pixel is one load and one store.
 */
#ifndef CROPKIT_GRAD_IMAGE_H
#define CROPKIT_GRAD_IMAGE_H

#include "_simd.h"

static inline void cropkit_prefetch_pixel(const char *g, ptrdiff_t bytes)
{
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        cropkit_prefetch_page_ahead(g + i);
}

#define TEMPLATE "_scatter_template.h"
#include "_for_reals.h"

#endif
