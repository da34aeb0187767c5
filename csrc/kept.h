/*  Memory for a while, for who needs as much over and over: touching what is fresh takes longer than most of what is
    done with it. What was given back last is kept for the next time, if it is at most TG_KEPT_BYTES, and is there to
    stay; what it holds is anything. Any number of threads may borrow at once.  */
#ifndef TG_KEPT_H
#define TG_KEPT_H

#include <stdatomic.h>
#include <stddef.h>

#define TG_KEPT_BYTES (4u << 20)

typedef struct {
    _Atomic(void *) block;
} tg_kept;

/* So many bytes, or NULL without memory. */
void *tg_borrow(tg_kept *kept, size_t bytes);
/* That, or NULL. */
void tg_give_back(tg_kept *kept, void *memory);

#endif
