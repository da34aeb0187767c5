/*  How a wide program is cut, so that several threads can carry it out for one sample.

    Pieces are instructions in a row, each about a tile of the order: its groups, and little that others need. A thread
    carries a piece out in slots of its own, as if nobody else were there, so that slots which one piece after the other
    uses are no matter. What crosses from piece to piece, inputs among it, has a place that all threads see, and is
    carried from there and to there by the moves of a step: a part of a piece that waits for others before it, and that
    others may wait for after it. Each waits for earlier pieces alone, backwards for later ones, so whoever takes them
    in turn may wait for any that was taken.

    Terms of a long sum are not carried, if nobody else wants them: what has been added up goes from piece to piece,
    each of which adds its own terms to it, and backwards passes on to them. So it is with a running total, additions
    one after the other: a piece leaves them out, and keeps what they add until it is done with all else.

    Adjoints that pieces add in one place are added there in the order of one thread. A piece that adds first, or only
    once, begins with 0 and adds its sum when it is its turn; any other fetches what has been added until then.  */
#ifndef TG_PIECES_H
#define TG_PIECES_H

#include "program.h"

enum { TG_UPWARDS, TG_DOWNWARDS, TG_WAYS };

/* n numbers, from slots on, of one numbering or the other, and from place on: a fixed slot, or behind those. */
typedef struct {
    uint32_t kept, live, place, n;
} tg_move;

/* Until so many steps of a piece are done. */
typedef struct {
    uint32_t piece, steps;
} tg_wait;

/* Instructions from .. to - 1. Its waits and moves: what comes before it, then, from out on, what comes after it; they
   end where those of the next step begin. */
typedef struct {
    uint32_t from, to;
    uint32_t wait, wait_out, move, move_out;
} tg_step;

/* The pieces in the order in which they are carried out, the steps of each from first on. */
typedef struct {
    uint32_t *first;
    tg_step *step;              /* and one behind the last */
    tg_wait *wait;
    tg_move *move;
} tg_way;

/* A long sum, or a dot: the instruction, and the piece that it is in, which has the last part of it; own: which operand
   is the first of that. */
typedef struct {
    uint32_t at, piece, own;
} tg_long_sum;

/* The terms that a piece makes, which may be none of its own sum's, and the piece with those before, or TG_NONE. */
typedef struct {
    uint32_t piece, sum, first, n, before;
} tg_part;

/* A running total: additions each of which adds to what the one before gave, which nobody else wants. The last of them,
   and the piece with that. */
typedef struct {
    uint32_t last, piece;
} tg_total;

/* What a piece does for a total, with instructions first .. last, among others: it adds n numbers, which are kept from
   `room` on, and the first of which is what the total begins with where no piece comes before. */
typedef struct {
    uint32_t total, first, last, n, room, before;
} tg_span;

/* Additions of a span in a row, n of them; room: in the span's. slot: of the total before them. */
typedef struct {
    uint32_t at, n, span, room, slot[2];
} tg_links;

struct tg_pieces {
    uint32_t n_pieces;          /* 0: there are too few */
    int pays[2];                /* whether two threads are faster than one: for values, and for derivatives */
    uint32_t n_carried;         /* places behind fixed slots */
    uint32_t *start;            /* of each piece, and behind the last */
    tg_way way[TG_WAYS];
    uint32_t n_sums;
    tg_long_sum *sum;           /* in order */
    uint32_t *first_part;       /* of each piece, and behind the last */
    tg_part *part;              /* of a piece in the order of their sums */
    uint32_t n_totals, n_spans, n_links, n_room;        /* n_room: what the spans of a piece take, at most */
    tg_total *total;
    uint32_t *first_span, *first_links;     /* of each piece, and behind the last */
    tg_span *span;
    tg_links *links;            /* in order */
    uint32_t *out_piece, *out_place;    /* of each output: the piece that gives it, n_pieces of a fixed one; and where
                                           its adjoint is */
};

/* The pieces of a program, which are its own, and made when they are wanted first; NULL without memory. */
const tg_pieces *tg_pieces_of(const tg_program *p);
void tg_free_pieces(tg_pieces *s);

/* Find out whether they pay, once all else is known: TG_OK or TG_MEMORY. See pays.c. */
int tg_find_pays(const tg_program *p, tg_pieces *s);

#endif
