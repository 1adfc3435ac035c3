/* Include the template that TEMPLATE names, once for each type of arithmetic. This header has no
 * guard, since it is included once for each template. */
#include "_template.h"

#define REAL float
#define SUFFIX f32
#include TEMPLATE
#undef REAL
#undef SUFFIX

#define REAL double
#define SUFFIX f64
#include TEMPLATE
#undef REAL
#undef SUFFIX

#undef TEMPLATE
