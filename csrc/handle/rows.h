/*  Calls of a batch that go as most do: rows in arrays, on the one path that is known. What they give is what
    tapegrad/program/batch.py gives, where all else goes.  */
#ifndef TG_HANDLE_ROWS_H
#define TG_HANDLE_ROWS_H

#include "call.h"

/* As tg_call, of what is mapped. */
PyObject *tg_call_rows(tg_known *p, tg_call_kind kind, PyObject *const *given, Py_ssize_t n, PyObject *argnums);

#endif
