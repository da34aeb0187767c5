/*  A program laid out on the tape, for Values.  */
#ifndef TG_HANDLE_LAYOUT_H
#define TG_HANDLE_LAYOUT_H

#include "handle.h"

/* lay_out, lay_out_call. */
extern PyMethodDef tg_layout_functions[];

#endif
