/*  Functions of many operands: dot, sum, affine, softmax, and the primitive for all the others.  */
#ifndef TG_MANY_H
#define TG_MANY_H

#include "handle.h"

extern PyMethodDef tg_many_functions[];

#endif
