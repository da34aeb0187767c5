/*  A program: a piece of tape, frozen, cleaned up, and replayed without the tape.

    It is a list of instructions over slots. Two numberings of slots go side by side:

        kept    a primal that some partial of first or second order names keeps its slot to the end of the reverse
                sweep; the others share slots
        live    a slot is taken from where a node is made to its last use, then given on: the least there is for the
                value alone. Backwards an adjoint lives from the last use to the making, so adjoints use it, too

    In both, constants come first, then inputs; neither gives its slot away. A result never has the slot of one of its
    own operands. Of the many-operand rows those that are TG_MANY occur, each operand of theirs a pair (kept, live)
    in the pool; DOT has its pairs side by side, x0 w0 x1 w1 .., and a bias last where the count is odd. An instruction
    may call a loop: see loops/call.h.

    Lifetime: freed with tg_free_program. Read only once made: any number of threads may replay it at once, each with a
    job of its own. Nothing here touches the tape but tg_freeze (freeze.c), which reads it.  */
#ifndef TG_PROGRAM_H
#define TG_PROGRAM_H

#include "tape.h"

/* cdef: begin */
#define TG_WHERE_LINE 20        /* bits of a line number in where */
#define TG_FOREIGN 0xFFFFFFFFu  /* a where: another thread */

#define TG_DEEPEST 8u           /* loops within one another */
#define TG_QUIET 0x80000000u    /* in the op of an instruction: whatever it gives is not refused */
#define TG_LINK 0x40000000u     /* in the op of one that is packed: see links.h */

typedef struct tg_instr {
    uint32_t op;            /* a row of the table, TG_QUIET where it is, TG_GUARD or TG_CALL */
    uint32_t y, a, b;       /* kept slots; of many operands: the first in the pool, and their count */
    uint32_t live_y, live_a, live_b;
    uint32_t where;         /* who recorded it: index of the code << 20 | line; 0: unknown */
} tg_instr;                 /* of a guard, y is how << 1 | its outcome and live_y its number */

enum { TG_KEPT, TG_LIVE };      /* the two numberings */

/* What a replay reads of an instruction: its slots in one of the numberings. Of many operands, a and b are the same in
   both. */
typedef struct tg_half {
    uint32_t op, y, a, b;
} tg_half;

/* The halves of some instructions. */
typedef struct tg_halves {
    const tg_half *of[2];
} tg_halves;

typedef struct tg_wide tg_wide;
typedef struct tg_pieces tg_pieces;
typedef struct tg_loop tg_loop;

/* A loop that an instruction calls, which is somebody else's. */
typedef struct tg_called {
    const tg_loop *loop;
    uint32_t at, n_in, n_out;   /* at: which instruction */
} tg_called;

typedef struct tg_program {
    uint32_t n_const, n_in, n_out, n_instr, n_pool, n_kept, n_live, n_guards;
    uint32_t n_alone;
    uint32_t recorded, reached, folded, shared, fused;  /* nodes: between the first and the last; needed by the
                                                           outputs; gone as constants, as equals, into dots */
    uint32_t captured, foreign;     /* needed nodes of an outer recording, which became constants; of other threads */
    double *constant;
    tg_instr *instr;        /* while it is made: the instructions that are in no group, n_alone of them; all where
                               there is no order. NULL once they are packed: then there are */
    tg_half *alone[2];      /*   their halves, */
    uint32_t *where;        /*   and who recorded them */
    uint32_t *pool;         /* pairs */
    uint32_t *out;          /* pairs */
    uint64_t bytes;         /* of all that it owns */
    uint32_t *order;        /* of a wide program or a hoisted one: where each instruction is in the function's order */
    tg_wide *wide;          /* its groups: see wide/wide.h */
    uint32_t n_groups, grouped;     /* how many, and the instructions in them */
    uint32_t n_hoisted;     /* how many come first that a loop carries out once: see loops/hoist.h */
    tg_pieces *pieces;      /* NULL until they are wanted: see wide/pieces.h; guarded by the crew's lock */
    uint32_t n_calls, depth;    /* depth: how many loops are within one another */
    tg_called *call;            /* in the order of their instructions */
} tg_program;

/* A question that was asked while recording: its operands, one of them TG_NONE for the number k, and how it went: a
   comparison, or whether an operation that can refuse refuses, which is noted where it did. */
typedef struct tg_comparison {
    uint32_t a, b;
    double k;
    uint32_t how, outcome, where;   /* how: 0 <, 1 <=, 2 >, 3 >=, 4 ==, 5 !=, TG_REFUSES + the row
                                           + TG_REFUSAL times the code's */
} tg_comparison;
#define TG_REFUSES 6
#define TG_REFUSAL 256          /* times 1 for TG_ZERO_DIVISION, 2 for TG_DOMAIN, 3 for TG_OVERFLOW, 0 for any */

/* From node id on, until the next event, nodes are from there; quiet: of a recorded sweep, which refuses nothing. */
typedef struct tg_event {
    uint32_t id, where, quiet;
} tg_event;

/* A loop that was carried out while recording: the ids of its inputs, then those of its outputs, which came later and
   in order. */
typedef struct tg_noted_call {
    const tg_loop *loop;
    const uint32_t *id;
    uint32_t n_in, n_out, where;
} tg_noted_call;

/* What there is to freeze: the nodes from start on that compute out from in, different nodes all; and what can refuse
   on the way, whoever uses it, but for nodes of quiet events and of other threads. What is older is a constant, and
   counted as captured where it is not older than node outer; TG_NONE: no recording is around this one. */
typedef struct tg_recording {
    uint32_t start, outer, n_in, n_out, n_compared, n_events;
    const uint32_t *in, *out;
    const tg_comparison *compared;      /* in the order in which they were made */
    const tg_event *event;
    const tg_noted_call *call;          /* in order, too; each is needed, for it may refuse */
    uint32_t n_calls;
} tg_recording;

/* The program, or NULL with *code where memory or an id is missing. */
tg_program *tg_freeze(const tg_tape *t, const tg_recording *rec, int64_t *code);
/* Which nodes older than the start it would take for constants: ids in ascending order, at most `most`; how many there
   are, or a code. */
int64_t tg_find_older(const tg_tape *t, const tg_recording *rec, uint32_t *ids, uint32_t most);
/* A program with room for this much, all zero, its instructions in `instr`; NULL without memory. */
tg_program *tg_new_program(uint32_t n_const, uint32_t n_in, uint32_t n_out, uint32_t n_instr, uint32_t n_pool);
/* Whether a program from elsewhere can be replayed, its counts but n_kept, n_live and n_guards being those it was made
   with: TG_OK, TG_MEMORY, or TG_BAD_ID where an opcode, an index or a slot is out of bounds, a slot is read before it
   is written, in the function's order, too, both numberings do not name the same values, or a slot that a partial needs
   is written again. */
int tg_check_program(const tg_program *p);
void tg_free_program(tg_program *p);
/* Make it a wide one, whose instructions are in this order: TG_OK or TG_MEMORY. A program from elsewhere has to be
   checked with its order first, and is grouped then. What is in groups is not stored besides. */
int tg_set_order(tg_program *p, const uint32_t *order);
int tg_group_program(tg_program *p);
/* Pack its instructions and mark the links, once, when it is what it is to be: TG_OK or TG_MEMORY. Before, nobody
   replays it. */
int tg_pack_program(tg_program *p);
/* Instruction k; all of them. Who reads many in C has a tg_window. */
tg_instr tg_instruction(const tg_program *p, uint32_t k);
void tg_copy_instructions(const tg_program *p, tg_instr *to);
/* Name the loops that its calls carry out, in their order: TG_OK, TG_MEMORY, or TG_BAD_ID where these are not as many,
   too many within one another, or one has 2^32 inputs or outputs. */
int tg_set_calls(tg_program *p, const tg_loop *const *loops, uint32_t n);
/* The same program in the function's order, each result in a slot of its own, to be read and freed, not packed; NULL
   without memory. */
tg_program *tg_plain_program(const tg_program *p);
/* About what its instructions cost in one lane, in additions: what calls a function counts for 16. */
uint64_t tg_cost(const tg_program *p);

/* What an argument is and what becomes of it: count inputs from input first on. Strides are in doubles from row to row;
   0 reads the same for all rows, and adds up over them where it is written. */
typedef struct tg_feed {
    uint32_t first, count;
    const double *in, *tangent;         /* no tangent: zeros */
    double *grad, *grad_tangent;        /* NULL: not wanted */
    int64_t in_stride, tangent_stride, grad_stride, grad_tangent_stride;
} tg_feed;

/* Machine code in pieces: piece k is the instructions first[k] .. first[k + 1] - 1, of which function[k] of the tables
   is told the numbers from told + at[k] on and the lists of groups; TG_NONE leaves it to the interpreter. What a
   forward function gives other than 0 says that a guard came out otherwise or that a result is not finite, and that
   what it wrote is no good. Adjoints whose turn is over are 0 again. */
typedef struct tg_code {
    uint32_t n;
    const uint32_t *first, *function, *at, *told, *list;
    int (*const *forward)(double *, const uint32_t *, const uint32_t *);
    void (*const *reverse)(const double *, double *, const uint32_t *, const uint32_t *);
} tg_code;

/* A program as machine code, for one lane and for tg_lanes: over kept slots, and for values alone over live ones, where
   it has pieces. */
typedef struct tg_native {
    tg_code code[2], values[2];
} tg_native;

typedef struct tg_looping tg_looping;
typedef struct tg_sharing tg_sharing;
typedef struct tg_calling tg_calling;
typedef struct tg_weights tg_weights;

/* A replay over rows start .. stop - 1, or row[start] .. row[stop - 1]. What is added up is added row after row within
   a job, so its bits depend on the rows alone. */
typedef struct tg_job {
    const tg_program *program;
    const tg_loop *loop;                /* see loops/loop.h: then the program only says how many inputs and
                                           outputs there are; NULL: none */
    const tg_native *native;            /* NULL: interpreted */
    const tg_feed *feed;
    uint32_t n_feeds;
    const double *seed, *seed_tangent;  /* NULL: no reverse sweep; of a loop alone, else NULL: zeros, strides alike */
    double *out, *out_tangent;
    int64_t seed_stride, out_stride, out_tangent_stride;
    const int64_t *row;
    int64_t start, stop;
    uint32_t *failed;                   /* by row: 0, or 1 + the instruction that would not do as recorded */
    int tangents, nan_errors;           /* nan_errors: results that are refused become nan */
    double *keep;                       /* NULL, or where primals stay: n_kept for each of the rows, of which there is
                                           room for a multiple of tg_lanes if they are several; for native
                                           code at a multiple of its vectors' size */
    uint32_t *lives;                    /* with keep, for each of the rows: which did as recorded */
    int again;                          /* with keep: they are there, of a job for the same rows */
    /* of the replay itself */
    int lanes, phase, loaded, interpreted;  /* loaded: what all rows share; interpreted: this block of rows, whatever
                                               native is */
    uint32_t at, alive;
    int64_t base;
    uint64_t failures;
    int64_t fail_row;
    double fail_a, fail_b, fail_y;
    uint64_t bytes;                     /* of memory, that of other threads' hands included */
    double *memory, *primal, *tangent, *adj, *adj_tangent;
    uint8_t *shared;                    /* of the fixed slots, NULL where nobody asks: TG_SHARED, the same in all
                                           rows, TG_WEIGHT, too; TG_IDLE, whose gradient nobody wants */
    double *same;                       /* of the shared ones: that number; NULL where there are none */
    tg_looping *looping;                /* of a loop */
    tg_sharing *sharing;                /* of several threads: see wide/share.h; else NULL */
    tg_calling *calling;                /* by call */
    tg_weights *weights;                /* see weights.h; NULL: none */
} tg_job;

enum { TG_SHARED = 1, TG_IDLE = 2, TG_WEIGHT = 4 };

/* to[k] += from[k] */
void tg_accumulate(double *to, const double *from, uint64_t n);

extern const int tg_lanes;
int tg_start(tg_job *j);                /* TG_OK or TG_MEMORY */
void tg_again(tg_job *j);               /* from the start, in the same memory, once it is done */
int tg_run(tg_job *j, uint64_t budget); /* 1: there is more to do after this many instructions; 0: done */
void tg_next_rows(tg_job *j, int64_t start, int64_t stop);  /* other rows of the same arrays, once it is done */
void tg_finish(tg_job *j);
/* cdef: end */

/* Of a job whose memory is somebody else's, over the rows that are in its slots: all instructions that are not hoisted,
   tangents included; and the sweep after that, from adjoints that are there to those of inputs, as flush.h has it. The
   same of those that are, which come before and after. */
void tg_forward(tg_job *j);
void tg_reverse(tg_job *j);
void tg_forward_hoisted(tg_job *j);
void tg_reverse_hoisted(tg_job *j);
/* The first two in the interpreter, up to where one should look for signals in a loop that is called: whether there is
   more to do. more: whether it is under way. */
int tg_forward_some(tg_job *j, int more);
int tg_reverse_some(tg_job *j, int more);

/* The row that is in a lane; past the end, the last once more. */
static inline int64_t tg_row_of(const tg_job *j, int lane)
{
    const int64_t at = j->base + lane < j->stop ? j->base + lane : j->stop - 1;
    return j->row ? j->row[at] : at;
}

/* Two elements of p and of q to one of each in s and in t: as pairs, which the compiler loads and stores at once. */
static inline void tg_cross(const double *p, const double *q, double *s, double *t)
{
    double a = p[0], b = q[0], c = p[1], d = q[1];
    s[0] = a;
    s[1] = b;
    t[0] = c;
    t[1] = d;
}

#define TG_GUARD TG_OPS
#define TG_CALL (TG_OPS + 1)
#define TG_GROUP 8u             /* instructions of a group, at least */
#define TG_FEW_LINKS 8u         /* in a row: fewer are not marked */

enum { TG_WINDOW = 128 };

/* Instructions as they follow one another: where it is, those from first on, as they are stored, or made from their
   halves or their group. */
typedef struct {
    const tg_program *program;
    const tg_instr *instr;
    uint32_t first, n;
    tg_instr made[TG_WINDOW];
} tg_window;

static inline void tg_open_window(tg_window *w, const tg_program *p)
{
    w->program = p;
    w->first = w->n = 0;
}

void tg_move_window(tg_window *w, uint32_t k);

/* Instruction k, until another one is asked for. */
static inline const tg_instr *tg_at(tg_window *w, uint32_t k)
{
    if (k - w->first >= w->n)
        tg_move_window(w, k);
    return w->instr + (k - w->first);
}

/* The row of an instruction or of half of one. */
#define tg_row(s) ((int)((s)->op & ~(TG_QUIET | TG_LINK)))

/* Whether the operands of a row are in the pool. */
static inline int tg_is_pooled(int row) { return row == TG_CALL || tg_is_many(row); }

/* Whether a row goes through much of a program: for who asks where parts of it end, what it reads last is not in use
   until then. */
static inline int tg_is_long(int op, uint32_t n) { return op != TG_GUARD && tg_is_many(op) && n > 64; }

/* Which operands are no constants, a bit each, as tg_names has it; of many all, as far as that goes. */
static inline int tg_moving(const tg_program *p, const tg_instr *s)
{
    return tg_is_many(tg_row(s)) ? 3 : (s->a >= p->n_const) | (s->b >= p->n_const) << 1;
}

/* Whether the partials of a many-operand row whose partials name operands name operand k of n: in a dot not where what
   it is multiplied by is a constant, besides. */
static inline int tg_names_operand(int op, uint32_t k, uint32_t n)
{
    return op == TG_DOT ? n % 2 == 0 || k < n - 1 : op != TG_WHERE || k == 0;     /* a bias is only added */
}

/* Where operand k of n is on the tape, which has those of a dot as xs, then ys, then a bias. */
static inline uint32_t tg_place(int op, uint32_t k, uint32_t n)
{
    const uint32_t half = n / 2;
    return op != TG_DOT || k == 2 * half ? k : k % 2 ? half + k / 2 : k / 2;
}

/* X(how, sign) for each comparison. */
#define TG_COMPARISONS(X) X(0, <) X(1, <=) X(2, >) X(3, >=) X(4, ==) X(5, !=)

#endif
