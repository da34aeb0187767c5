/*  Where a frame is, which the limited API has no functions for.  */
#ifndef TG_FRAME_H
#define TG_FRAME_H

#include "handle.h"

/* f_lasti; -1 where it is unknown. Once tg_find_instruction_of() was called. */
extern int (*tg_instruction_of)(PyFrameObject *frame);
void tg_find_instruction_of(void);

/* The line that a frame is at; 0: unknown. table: the line of each instruction of its code, or None. */
uint32_t tg_line_of(PyObject *table, PyFrameObject *frame, int at);

/* Who called it: a new reference, of None where nobody did; or NULL with an exception. */
PyObject *tg_back_of(PyFrameObject *frame);

#endif
