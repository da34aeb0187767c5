/*  How a nest of numbers is made up, as tapegrad/program/form.py has it: numbers out of a nest into doubles, and nests
    made of doubles.

    What comes plainly is read: floats, ints and bools, in lists and tuples and in contiguous arrays of float64, which
    may stand for each other. All else is left to form.py, which says what is wrong where something is.  */
#ifndef TG_HANDLE_FORM_H
#define TG_HANDLE_FORM_H

#include "handle.h"

typedef enum { TG_A_NUMBER, TG_A_STATIC, TG_A_LIST, TG_A_TUPLE, TG_AN_ARRAY } tg_form_kind;

/*  Objects are borrowed from the description that a form is made of.  */
typedef struct tg_form {
    tg_form_kind kind;
    size_t size;                /* numbers */
    Py_ssize_t length;          /* of what has parts */
    struct tg_form *part;       /* part k is part[k * step] */
    Py_ssize_t step;            /* 0: all are alike, and only one is there */
    PyObject *shape;            /* of an array of the same numbers, a tuple; NULL where there is none */
    PyObject *value;            /* of what is no number */
} tg_form;

/* Make a form of a description: None, a number; (value,); or (list, tuple or None for an array; the shape or None; how
   many parts; descriptions of the parts, of one where all are alike). 1, or 0 with an exception; drop it anyway. */
int tg_make_form(tg_form *f, PyObject *description);
void tg_drop_form(tg_form *f);

/* Read the f->size numbers of a nest: 1; 0: it does not come plainly, or is not as the form says. Sets no exception.
   May run Python code. */
int tg_read_form(const tg_form *f, PyObject *x, double *to);

/* An array of rows of the numbers of a form, which is float64 and contiguous: 1, and release the view; 0: it is none.
   Sets no exception. May run Python code. */
int tg_open_array_of(const tg_form *f, PyObject *x, Py_buffer *view);
/* A new one of so many rows, with a view likewise; NULL with an exception, and without one where the numbers of a form
   are no array, or NumPy is not there. */
PyObject *tg_new_array_of(const tg_form *f, Py_ssize_t rows, Py_buffer *view);

/* A nest of these numbers, made up as the form says; or like x, which was read by it. NULL with an exception; and
   without one where x has changed since, or NumPy is not there. May run Python code. */
PyObject *tg_build_form(const tg_form *f, PyObject *x, const double *from);

/* A matrix: a row made up like `by` in every place of a number of `out`, the numbers side by side until it is built; an
   array where either is one. What came for each, like the arguments of tg_build_form. */
typedef struct tg_rows {
    const tg_form *out, *by;
    PyObject *like_out, *like_by;
    double *entries;            /* out->size * by->size, to be written */
    PyObject *array;            /* whose they are, or NULL */
    Py_buffer view;             /* of the array */
} tg_rows;

/* Room for the entries: 1; 0 with an exception, and without one where this is not for here; close them if 1. */
int tg_open_rows(tg_rows *r);
/* What is made of the entries; as tg_build_form. */
PyObject *tg_build_rows(const tg_rows *r);
void tg_close_rows(tg_rows *r);

/* Once NumPy is imported, arrays are known. */
void tg_look_for_numpy(void);

#endif
