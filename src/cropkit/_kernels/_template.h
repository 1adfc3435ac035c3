/* Names for functions that are made from one text for several types.
 *
 * A template is a header without a guard, which is included once for each type. It takes the type
 * as the macro REAL (its first lines name others), and names its functions by NAMED. */
#ifndef CROPKIT_TEMPLATE_H
#define CROPKIT_TEMPLATE_H

#define CROPKIT_PASTE(name, suffix) name##_##suffix
#define CROPKIT_NAMED(name, suffix) CROPKIT_PASTE(name, suffix)
#define NAMED(name) CROPKIT_NAMED(name, SUFFIX)

#endif
