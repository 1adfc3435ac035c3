/* The image gradient's inner loops: they add a crop row's gradients to image rows.
 *
 * Additions keep TensorFlow's order; none is fused or reassociated. In the image rows that are
 * added to, pixels of depth 2 and 3 are padded to four values, so that a pixel is one load and
 * one store.
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
