/* Types of vectors; the including header has defined CROPKIT_VECTOR_BYTES. */
#ifndef CROPKIT_VECTORS_H
#define CROPKIT_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A pixel of up to four channels. */
typedef float cropkit_pixel_f32 __attribute__((vector_size(16), aligned(4), may_alias));
typedef double cropkit_pixel_f64 __attribute__((vector_size(32), aligned(8), may_alias));

#define CROPKIT_DOUBLES (CROPKIT_VECTOR_BYTES / (int)sizeof(double))
typedef double cropkit_doubles __attribute__((
    vector_size(CROPKIT_VECTOR_BYTES), aligned(8), may_alias));

#endif
