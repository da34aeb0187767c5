/*  Sweeps for functions of functions: adjoints as numbers, which touch no grad, and recorded as Values.  */
#ifndef TG_GRADIENTS_H
#define TG_GRADIENTS_H

#include "handle.h"

/* adjoints, record_sweep, depends_on_older, all_finite, graph. */
extern PyMethodDef tg_gradient_functions[];

#endif
