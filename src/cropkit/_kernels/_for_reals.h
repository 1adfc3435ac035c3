/* Includes the template that TEMPLATE names once for each type of arithmetic. Without a guard. */
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
