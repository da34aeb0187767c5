/*  What a frame tells: see frame.h.  */
#include "frame.h"

#include <string.h>
#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

/* What a frame has as an attribute, but for the way through its name: the limited API has no f_lasti and no f_back.
   d: all zero at first, then where it is found. */
static inline PyObject *of_frame(PyFrameObject *frame, const char *name, PyGetSetDef *d)
{
    PyObject *o = (PyObject *)frame;
    if (!d->name) {
        const PyGetSetDef *own = PyType_GetSlot(Py_TYPE(o), Py_tp_getset);
        while (own && own->name && strcmp(own->name, name))
            own++;
        *d = own && own->name ? *own : (PyGetSetDef){.name = name};
    }
    return d->get ? d->get(o, d->closure) : PyObject_GetAttrString(o, name);
}

/* f_lasti, by way of an object. */
static int lasti_of(PyFrameObject *frame)
{
    static PyGetSetDef lasti;
    PyObject *at = of_frame(frame, "f_lasti", &lasti);
    const Py_ssize_t k = at ? PyLong_AsSsize_t(at) : -1;
    Py_XDECREF(at);
    if (k < 0)
        PyErr_Clear();
    return (int)k;
}

int (*tg_instruction_of)(PyFrameObject *frame);

void tg_find_instruction_of(void)
{
    if (tg_instruction_of)
        return;
#if defined(__unix__) || defined(__APPLE__)
    /* without an object, by a function that is public but not in the limited API, where the process has it */
    void *process = dlopen(NULL, RTLD_LAZY);
    tg_instruction_of = process ? (int (*)(PyFrameObject *))dlsym(process, "PyFrame_GetLasti") : NULL;
#endif
    if (!tg_instruction_of)
        tg_instruction_of = lasti_of;
}

uint32_t tg_line_of(PyObject *table, PyFrameObject *frame, int at)
{
    char *lines;
    Py_ssize_t n;
    uint32_t line = 0;
    if (table == Py_None)
        return (uint32_t)PyFrame_GetLineNumber(frame);
    if (at >= 0 && !PyBytes_AsStringAndSize(table, &lines, &n) && at / 2 < n / (Py_ssize_t)sizeof line)
        memcpy(&line, lines + at / 2 * (Py_ssize_t)sizeof line, sizeof line);
    PyErr_Clear();
    return line;
}

PyObject *tg_back_of(PyFrameObject *frame)
{
    static PyGetSetDef back;
    return of_frame(frame, "f_back", &back);
}
