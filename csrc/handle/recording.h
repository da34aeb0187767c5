/*  What a program that is being recorded in this thread has to know: notes of comparisons, of places, of what goes past
    the tape. Without a recording a note is one test, here; so an operation pays nothing for it.  */
#ifndef TG_RECORDING_H
#define TG_RECORDING_H

#include "handle.h"
#include "program.h"

int tg_do_note_question(uint32_t a, uint32_t b, double k, uint32_t how, int outcome);
void tg_do_note_stranger(uint32_t a, uint32_t b);
int tg_do_note_escape(const char *what);
int tg_do_note_place(void);

/* A question was asked of two nodes, one of them TG_NONE for the number k; see tg_comparison. 0, or -1 with an
   exception. */
static inline int tg_note_question(uint32_t a, uint32_t b, double k, uint32_t how, int outcome)
{
    return T->recorders ? tg_do_note_question(a, b, k, how, outcome) : 0;
}

/* Something was asked of two nodes, or of one and TG_NONE, that this thread's recording is not told as a question:
   where they are of what another thread records, that is to know. */
static inline void tg_note_stranger(uint32_t a, uint32_t b)
{
    if (T->recorders)
        tg_do_note_stranger(a, b);
}

/* Something happens that a replay cannot see. 0, or -1 with an exception. */
static inline int tg_note_escape(const char *what) { return T->recorders ? tg_do_note_escape(what) : 0; }

/* Here the next nodes come from. 0, or -1 with an exception. */
static inline int tg_note_place(void) { return T->recorders ? tg_do_note_place() : 0; }

/* The nodes that come next refuse nothing, in a replay neither, as those of a recorded sweep (1); or they may (0). */
void tg_note_sweep(int on);

/* A program was laid out on the tape, as tg_lay_out gives it; codes are what its lines are of. 0, or -1 with an
   exception. */
int tg_note_layout(const tg_program *p, PyObject *codes, const uint32_t *of, const uint32_t *a, const uint32_t *b);

/* A loop was carried out on nodes: see tg_noted_call; the ids are copied. 0, or -1 with an exception. */
int tg_note_call(const tg_loop *loop, const uint32_t *ids, uint32_t n_in, uint32_t n_out);

/* Whether Values answer as numbers in this thread: a function is being recorded, or differentiated. */
extern int tg_as_numbers_anywhere;      /* over all threads: mostly 0, and cheaper to ask */
int tg_as_numbers_here(void);
static inline int tg_as_numbers(void) { return tg_as_numbers_anywhere ? tg_as_numbers_here() : 0; }

/* begin_recording, end_recording, freeze, older, held_from, differentiating, as_numbers_by. */
extern PyMethodDef tg_recording_functions[];

#endif
