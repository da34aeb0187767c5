/*  Many Values at once: their data and grads, new leaves, optimizer steps.  */
#ifndef TG_BULK_H
#define TG_BULK_H

#include "handle.h"

extern PyMethodDef tg_bulk_functions[];

#endif
