/*  Value: how it is constructed, and its type, made of what the files below have.  */
#ifndef TG_VALUE_H
#define TG_VALUE_H

#include "handle.h"

/* A new reference, or NULL with an exception. */
PyTypeObject *tg_make_value_type(void);

#endif
