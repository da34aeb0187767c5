/*  Copies of Values, with the history that is copied with them.  */
#ifndef TG_COPIES_H
#define TG_COPIES_H

#include "handle.h"

/* history, copies: what copy and deepcopy of a Value are made of, in tapegrad/value.py. */
extern PyMethodDef tg_copies_functions[];

#endif
