/*  `Quick`, the class under tapegrad.Program and batches, and `quick`, the decorator of those of their methods that
    call.h and rows.h know.

    What it makes tries a call there first, and goes by the method itself where it is not for there. The method has all
    forms, all paths and all errors, and is what it is documented and inspected by.  */
#ifndef TG_HANDLE_QUICK_H
#define TG_HANDLE_QUICK_H

#include "handle.h"

/* Add both to the module. 0, or -1 with an exception. */
int tg_add_quick(PyObject *module);

#endif
