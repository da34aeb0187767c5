#include "form.h"
#include "crew.h"
#include "wide/share.h"

#include <stdlib.h>
#include <string.h>

static PyTypeObject *array_type, *float64_type;         /* NULL until NumPy is imported */
static PyObject *empty;

void tg_look_for_numpy(void)
{
    PyObject *numpy = empty ? NULL : PyDict_GetItemString(PyImport_GetModuleDict(), "numpy");
    if (!numpy)
        return;
    array_type = (PyTypeObject *)PyObject_GetAttrString(numpy, "ndarray");
    float64_type = array_type ? (PyTypeObject *)PyObject_GetAttrString(numpy, "float64") : NULL;
    empty = float64_type ? PyObject_GetAttrString(numpy, "empty") : NULL;
    if (!empty) {                                       /* its import is under way */
        PyErr_Clear();
        Py_CLEAR(array_type);
        Py_CLEAR(float64_type);
    }
}

/* ---- forms ---- */

void tg_drop_form(tg_form *f)
{
    for (Py_ssize_t k = 0; f->part && k < (f->step ? f->length : 1); k++)
        tg_drop_form(f->part + k);
    free(f->part);
    f->part = NULL;
}

static int make_parts(tg_form *f, PyObject *parts)
{
    const Py_ssize_t n = PyTuple_Size(parts);
    f->step = n != 1;
    if (f->length < 0 || (f->step && n != f->length)) {
        PyErr_SetString(PyExc_ValueError, "a form does not have as many parts as it says");
        return 0;
    }
    f->part = tg_zeroed(((size_t)n + 1) * sizeof *f->part);
    if (!f->part) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t k = 0; k < n; k++)
        if (!tg_make_form(f->part + k, PyTuple_GetItem(parts, k)))
            return 0;
    for (Py_ssize_t k = 0; f->step && k < n; k++)
        f->size += f->part[k].size;
    if (!f->step)
        f->size = (size_t)f->length * f->part->size;
    return 1;
}

int tg_make_form(tg_form *f, PyObject *description)
{
    PyObject *kind, *shape, *parts;
    memset(f, 0, sizeof *f);
    f->size = 1;
    if (description == Py_None)
        return 1;
    f->size = 0;
    if (PyTuple_Check(description) && PyTuple_Size(description) == 1) {
        f->kind = TG_A_STATIC;
        f->value = PyTuple_GetItem(description, 0);
        return 1;
    }
    if (!PyArg_ParseTuple(description, "OOnO!", &kind, &shape, &f->length, &PyTuple_Type, &parts))
        return 0;
    f->kind = kind == Py_None ? TG_AN_ARRAY : kind == (PyObject *)&PyTuple_Type ? TG_A_TUPLE : TG_A_LIST;
    f->shape = PyTuple_Check(shape) ? shape : NULL;
    return make_parts(f, parts);
}

/* ---- numbers out of a nest ---- */

static inline int read_number(PyObject *x, double *to)
{
    PyTypeObject *type = Py_TYPE(x);
    if (type == &PyFloat_Type || (type == float64_type && type)) {
        *to = PyFloat_AsDouble(x);
        return 1;
    }
    if (type != &PyLong_Type && type != &PyBool_Type)
        return 0;
    *to = PyLong_AsDouble(x);
    if (*to != -1.0 || !PyErr_Occurred())
        return 1;
    PyErr_Clear();                                      /* too large */
    return 0;
}

/* Whether the shape is this, behind so many dimensions. */
static int has_shape(const Py_buffer *view, PyObject *shape, int behind)
{
    if (view->ndim - behind != PyTuple_Size(shape))
        return 0;
    for (int k = behind; k < view->ndim; k++)
        if (PyLong_AsSsize_t(PyTuple_GetItem(shape, k - behind)) != view->shape[k])
            return 0;
    return 1;
}

/* The memory of an array of numbers: 1, and release it; 0: it is not plainly there. */
static int open_array(PyObject *x, Py_buffer *view)
{
    if (PyObject_GetBuffer(x, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) {
        PyErr_Clear();                                  /* it is not contiguous */
        return 0;
    }
    if (view->format && !strcmp(view->format, "d"))
        return 1;
    PyBuffer_Release(view);
    return 0;
}

static int is_array(const tg_form *f, PyObject *x) { return f->shape && Py_TYPE(x) == array_type; }

static int read_array(const tg_form *f, PyObject *x, double *to)
{
    Py_buffer view;
    int good;
    if (!open_array(x, &view))
        return 0;
    good = has_shape(&view, f->shape, 0) && (size_t)view.len == f->size * sizeof *to;
    if (good && f->size)
        tg_copy_together(tg_threads(), to, view.buf, f->size);
    PyBuffer_Release(&view);
    return good;
}

/* Whether all parts are numbers, which run no code to be read. */
static int is_plain(const tg_form *f) { return !f->step && f->part->kind == TG_A_NUMBER; }

static int read_plain(PyObject *(*get)(PyObject *, Py_ssize_t), PyObject *x, Py_ssize_t n, double *to)
{
    for (Py_ssize_t k = 0; k < n; k++)
        if (!read_number(get(x, k), to + k))
            return 0;
    return 1;
}

/* An array that is not contiguous makes an exception, and so perhaps a collection, which runs any code. */
int tg_read_form(const tg_form *f, PyObject *x, double *to)
{
    const int list = PyList_CheckExact(x);
    const tg_form *part = f->part;
    if (f->kind == TG_A_NUMBER)
        return read_number(x, to);
    if (f->kind == TG_A_STATIC)
        return x == f->value;
    if (!list && !PyTuple_CheckExact(x))
        return is_array(f, x) && read_array(f, x, to);
    if ((list ? PyList_Size(x) : PyTuple_Size(x)) != f->length)
        return 0;
    if (is_plain(f))
        return read_plain(list ? PyList_GetItem : PyTuple_GetItem, x, f->length, to);
    for (Py_ssize_t k = 0; k < f->length; k++, part += f->step) {
        PyObject *item = list ? PyList_GetItem(x, k) : PyTuple_GetItem(x, k);
        int good;
        if (!item) {
            PyErr_Clear();                              /* the list has changed meanwhile */
            return 0;
        }
        if (part->kind == TG_A_NUMBER)
            good = read_number(item, to);
        else {
            Py_INCREF(item);
            good = tg_read_form(part, item, to);
            Py_DECREF(item);
        }
        if (!good)
            return 0;
        to += part->size;
    }
    return 1;
}

/* ---- nests of doubles ---- */

/* An array of this shape, and its memory; NULL with an exception, and without one where NumPy is not there. */
static PyObject *new_array(PyObject *shape, size_t size, Py_buffer *view)
{
    PyObject *x = empty ? PyObject_CallFunctionObjArgs(empty, shape, NULL) : NULL;
    if (!x || PyObject_GetBuffer(x, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)) {
        Py_XDECREF(x);
        return NULL;
    }
    if ((size_t)view->len != size * sizeof(double)) {
        PyErr_SetString(PyExc_RuntimeError, "numpy.empty made an array of another size");
        PyBuffer_Release(view);
        Py_CLEAR(x);
    }
    return x;
}

int tg_open_array_of(const tg_form *f, PyObject *x, Py_buffer *view)
{
    const int number = f->kind == TG_A_NUMBER;
    if (Py_TYPE(x) != array_type || (!number && !f->shape) || !open_array(x, view))
        return 0;
    if (view->ndim && (number ? view->ndim == 1 : has_shape(view, f->shape, 1)))
        return 1;
    PyBuffer_Release(view);
    return 0;
}

PyObject *tg_new_array_of(const tg_form *f, Py_ssize_t rows, Py_buffer *view)
{
    PyObject *shape = NULL, *all = NULL, *made = NULL;
    if (f->kind == TG_A_NUMBER || f->shape)
        shape = Py_BuildValue("(n)", rows);
    if (shape)
        all = f->shape ? PySequence_Concat(shape, f->shape) : Py_NewRef(shape);
    if (all)
        made = new_array(all, (size_t)rows * f->size, view);
    Py_XDECREF(shape);
    Py_XDECREF(all);
    return made;
}

static PyObject *build_array(const tg_form *f, const double *from)
{
    Py_buffer view;
    PyObject *x = new_array(f->shape, f->size, &view);
    if (x && f->size)
        tg_copy_together(tg_threads(), view.buf, from, f->size);
    if (x)
        PyBuffer_Release(&view);
    return x;
}

/* What stands for part k in x, a new reference; NULL: x has changed. */
static PyObject *item_of(PyObject *x, Py_ssize_t k)
{
    PyObject *item = PyList_CheckExact(x) ? PyList_GetItem(x, k) : PyTuple_GetItem(x, k);
    Py_XINCREF(item);
    if (!item)
        PyErr_Clear();
    return item;
}

/* What stands in the place of a number: itself, or the row that starts there. */
static PyObject *build_number(const tg_rows *rows, const double *from)
{
    if (!rows)
        return PyFloat_FromDouble(*from);
    if (rows->array)
        return PySequence_GetItem(rows->array, (from - rows->entries) / (Py_ssize_t)rows->by->size);
    return tg_build_form(rows->by, rows->like_by, from);
}

static PyObject *build(const tg_form *f, PyObject *x, const tg_rows *rows, const double *from);

static PyObject *build_part(const tg_form *f, PyObject *x, Py_ssize_t k, const tg_rows *rows, const double *from)
{
    PyObject *item, *made;
    if (f->kind == TG_A_NUMBER)
        return build_number(rows, from);
    if (!x)
        return build(f, NULL, rows, from);
    item = item_of(x, k);
    made = item ? build(f, item, rows, from) : NULL;
    Py_XDECREF(item);
    return made;
}

static PyObject *build_plain(int list, Py_ssize_t n, const double *from)
{
    int (*const set)(PyObject *, Py_ssize_t, PyObject *) = list ? PyList_SetItem : PyTuple_SetItem;
    PyObject *made = list ? PyList_New(n) : PyTuple_New(n);
    for (Py_ssize_t k = 0; made && k < n; k++) {
        PyObject *item = PyFloat_FromDouble(from[k]);
        if (!item || set(made, k, item))
            Py_CLEAR(made);
    }
    return made;
}

static PyObject *build_series(const tg_form *f, PyObject *x, int list, const tg_rows *rows, const double *from)
{
    PyObject *made;
    const tg_form *part = f->part;
    if (is_plain(f) && !rows)
        return build_plain(list, f->length, from);
    if (is_plain(f) && f == rows->out && rows->array && list)
        return PySequence_List(rows->array);
    made = list ? PyList_New(f->length) : PyTuple_New(f->length);
    for (Py_ssize_t k = 0; made && k < f->length; k++, part += f->step) {
        PyObject *item = build_part(part, x, k, rows, from);
        if (!item || (list ? PyList_SetItem(made, k, item) : PyTuple_SetItem(made, k, item)))
            Py_CLEAR(made);
        from += part->size * (rows ? rows->by->size : 1);
    }
    return made;
}

/* As tg_build_form; with rows, in the place of each number one of them. */
static PyObject *build(const tg_form *f, PyObject *x, const tg_rows *rows, const double *from)
{
    if (f->kind == TG_A_NUMBER)
        return build_number(rows, from);
    if (f->kind == TG_A_STATIC) {
        Py_INCREF(f->value);
        return f->value;
    }
    if (!x)
        return f->kind == TG_AN_ARRAY ? build_array(f, from) : build_series(f, NULL, f->kind == TG_A_LIST, rows, from);
    if (PyList_CheckExact(x) || PyTuple_CheckExact(x))
        return build_series(f, x, PyList_CheckExact(x), rows, from);
    return is_array(f, x) ? build_array(f, from) : NULL;
}

PyObject *tg_build_form(const tg_form *f, PyObject *x, const double *from) { return build(f, x, NULL, from); }

/* ---- matrices ---- */

enum { NO_ARRAY, ARRAYS_INSIDE, AN_ARRAY };

/* Where arrays are in a form as it came in x; inside as well where x has changed. */
static int arrays_in(const tg_form *f, PyObject *x)
{
    const int series = x ? PyList_CheckExact(x) || PyTuple_CheckExact(x) : f->kind != TG_AN_ARRAY;
    int found = NO_ARRAY;
    if (f->kind == TG_A_NUMBER || f->kind == TG_A_STATIC)
        return NO_ARRAY;
    if (!series)
        return AN_ARRAY;
    if (!f->step && f->part->kind == TG_A_NUMBER)
        return NO_ARRAY;
    for (Py_ssize_t k = 0; found == NO_ARRAY && k < f->length; k++) {
        PyObject *item = x ? item_of(x, k) : NULL;
        found = x && !item ? ARRAYS_INSIDE : arrays_in(f->part + k * f->step, item);
        Py_XDECREF(item);
    }
    return found == NO_ARRAY ? NO_ARRAY : ARRAYS_INSIDE;
}

/* Whether the array is what is made, instead of its rows. */
static int is_whole(const tg_rows *r)
{
    return r->array && (r->out->kind == TG_A_NUMBER || arrays_in(r->out, r->like_out) == AN_ARRAY);
}

/* Of the array that the entries are in; NULL with an exception, and without one where there is none. */
static PyObject *shape_of_rows(const tg_rows *r, int in_out, int in_by)
{
    PyObject *length, *shape;
    if (in_out == AN_ARRAY && r->by->kind == TG_A_NUMBER)
        return Py_NewRef(r->out->shape);
    if (in_out == AN_ARRAY)
        return r->by->shape ? PySequence_Concat(r->out->shape, r->by->shape) : NULL;
    if (in_out != NO_ARRAY || in_by != AN_ARRAY)
        return NULL;
    if (r->out->kind == TG_A_NUMBER)
        return Py_NewRef(r->by->shape);
    length = Py_BuildValue("(n)", (Py_ssize_t)r->out->size);
    shape = length ? PySequence_Concat(length, r->by->shape) : NULL;
    Py_XDECREF(length);
    return shape;
}

int tg_open_rows(tg_rows *r)
{
    const int in_out = arrays_in(r->out, r->like_out), in_by = arrays_in(r->by, r->like_by);
    const size_t size = r->out->size * r->by->size;
    PyObject *shape;
    r->array = NULL;
    if (in_out == NO_ARRAY && in_by == NO_ARRAY) {
        r->entries = tg_realloc(NULL, size * sizeof *r->entries);
        if (!r->entries)
            PyErr_NoMemory();
        return r->entries != NULL;
    }
    shape = shape_of_rows(r, in_out, in_by);
    r->array = shape ? new_array(shape, size, &r->view) : NULL;
    r->entries = r->array ? r->view.buf : NULL;
    Py_XDECREF(shape);
    return r->array != NULL;
}

PyObject *tg_build_rows(const tg_rows *r)
{
    return is_whole(r) ? Py_NewRef(r->array) : build(r->out, r->like_out, r, r->entries);
}

void tg_close_rows(tg_rows *r)
{
    if (r->array) {
        PyBuffer_Release(&r->view);
        Py_DECREF(r->array);
    } else
        free(r->entries);
}
