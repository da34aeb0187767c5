/*  Calls of a program at one point that go as most do: plain numbers in, over paths that are known, numbers out. What
    they give is what tapegrad/program/ gives, where all else goes.

    A job is kept between calls, with its memory, and belongs to one call at a time: a call in another thread, or from
    within this one, takes another. Small programs keep the GIL, large ones release it for the replay.  */
#ifndef TG_HANDLE_CALL_H
#define TG_HANDLE_CALL_H

#include "form.h"
#include "program.h"

typedef enum {
    TG_VALUE, TG_VALUE_AND_GRAD, TG_GRAD, TG_JVP, TG_HVP, TG_A_JACOBIAN, TG_A_HESSIAN, TG_KINDS
} tg_call_kind;

/* What is known of a path through the recorded function, see replay.py, and its idle jobs. */
typedef struct tg_path {
    const tg_program *program;
    const tg_native *native;
    uint64_t cost, slice;
    struct tg_replay *idle[TG_KINDS];
} tg_path;

/* What is known of a recorded function. */
typedef struct tg_known {
    unsigned users;             /* who made it, and calls under way */
    PyObject *told;             /* holds what is borrowed here and in the forms, and what the addresses are of */
    PyObject *paths, *compiled; /* lists, which may have grown since: of the paths, of those that were to be compiled */
    PyObject *values;           /* a list of the params, Values or numbers */
    PyObject *children;         /* a dict: (path, instruction at which it stops): the path that goes on */
    tg_path *path;
    Py_ssize_t n_paths, n_compiled;
    int nan_errors;
    tg_form args, params, out;  /* args: as of a tuple of all */
    size_t *first;              /* of each argument, then of the params: where its numbers are among the inputs */
    char *mapped;               /* of each argument, whether it has rows; NULL: calls are at one point */
    int reduce;                 /* of what has rows: 0, to a sum, to a mean */
    unsigned long long threads;
} tg_known;

/* The form of argument k; the params come behind the last. */
static inline const tg_form *tg_form_of(const tg_known *p, Py_ssize_t k)
{
    return k < p->args.length ? p->args.part + k * p->args.step : &p->params;
}

/* What tapegrad/program/told.py told, with one user; NULL with an exception. */
tg_known *tg_make_known(PyObject *told);

/* A user less; NULL is none. */
void tg_let_go_known(tg_known *p);

/* What calls of both kinds are made of.
   The numbers of the params: 1, or 0 where they do not come plainly. */
int tg_read_params(const tg_known *p, double *to);
/* Which argument an element of argnums names, the params being behind the last; -1: none that has a derivative. */
Py_ssize_t tg_chosen(const tg_known *p, PyObject *argnum);
/* Whether there are derivatives by all that argnums names. */
int tg_can_choose(const tg_known *p, PyObject *argnums);
/* A tuple of two, whose references it takes over; NULL where one is. */
PyObject *tg_both(PyObject *a, PyObject *b);

/* What a method of the program gives for the arguments that it was given, argnums left out. NULL with an exception, and
   without one where this is not for here: nothing has happened then. */
PyObject *tg_call(tg_known *p, tg_call_kind kind, PyObject *const *given, Py_ssize_t n, PyObject *argnums);

#endif
