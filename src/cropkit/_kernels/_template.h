/* Names for functions that are made from one text for several types.
 *
 * A template is a header without a guard, which is included once for each type. It finds the
 * type as REAL (and what else its first lines name) and gives a function its name by NAMED. */
#ifndef CROPKIT_TEMPLATE_H
#define CROPKIT_TEMPLATE_H

#define CROPKIT_PASTE(name, suffix) name##_##suffix
#define CROPKIT_NAMED(name, suffix) CROPKIT_PASTE(name, suffix)
#define NAMED(name) CROPKIT_NAMED(name, SUFFIX)

#endif
