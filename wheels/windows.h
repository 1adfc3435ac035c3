/* Python's configuration as it is on Windows, made of the one of the Linux that compiles.
 * Included before all else, it is what Python.h finds. */
#include <pyconfig.h>
#define MS_WINDOWS
#define MS_WIN64
#undef HAVE_SYS_SELECT_H
#undef HAVE_PTHREAD_H
#undef SIZEOF_LONG
#define SIZEOF_LONG 4
#undef SIZEOF_WCHAR_T
#define SIZEOF_WCHAR_T 2
