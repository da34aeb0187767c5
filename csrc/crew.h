/*  The crew: threads that are kept, and lend a hand to whoever calls for it.

    A call runs one function on the calling thread and, beside it, on as many threads of the crew as are free, and comes
    back when all of them have. So between two calls no thread of the crew touches anything of the caller's, whatever
    becomes of it, and a caller whom nobody helps does the work alone: any number of threads may call at once, from
    within Python or not, and none waits for another's work. A call from within a call is one like any other.

    Threads are made when a call first wants so many, with all signals blocked but those of faults; where none can be
    made there are fewer. They hold nothing at the end of the process, which need not wait for them. Before a fork they
    are let go, so that neither side has a thread that it does not know of; the next call makes them anew.

    Memory: all that the crew knows is guarded by its lock, and the lock is taken before a thread begins with a call and
    after it ends, so what the caller wrote before the call is seen by all, and what they wrote is seen after it. What
    they share in between they guard with the same lock, for short: nobody who holds it waits for anything but memory.
    Without POSIX threads there is no crew, and the lock does nothing.  */
#ifndef TG_CREW_H
#define TG_CREW_H

#include <stddef.h>
#include <stdint.h>
#if defined(__unix__) || defined(__APPLE__)
#include <stdatomic.h>
#define TG_ATOMIC _Atomic
#else
#define TG_ATOMIC
#define atomic_store_explicit(to, n, order) (void)(*(to) = (n))
#define atomic_load_explicit(from, order) (*(from))
#define atomic_fetch_add_explicit(to, n, order) ((*(to) += (n)) - (n))
#endif

/* Run work(context) on at most this many threads at once; it has to bear that others of them come late, or never. */
void tg_together(int threads, void (*work)(void *), void *context);

/* Numbers to their place, or zeros where from is NULL, by so many threads where they are enough to be worth it. */
void tg_copy_together(int threads, double *to, const double *from, size_t n);

void tg_lock_crew(void);
void tg_unlock_crew(void);

/* A number by which threads of a call tell each other how far they are: what one wrote before it set the number is
   there for whoever has seen that. It has a line of the caches to itself. */
typedef struct {
    TG_ATOMIC uint32_t n;
    uint32_t apart[15];
} tg_progress;

static inline void tg_set_progress(tg_progress *p, uint32_t n)
{
    atomic_store_explicit(&p->n, n, memory_order_release);
}
static inline uint32_t tg_progress_of(const tg_progress *p)
{
    return atomic_load_explicit(&p->n, memory_order_acquire);
}
/* What it was; now it is one more. */
static inline uint32_t tg_take_next(tg_progress *p)
{
    return atomic_fetch_add_explicit(&p->n, 1, memory_order_relaxed);
}
/* Until it is n at least, towards which another thread has to be at work. */
void tg_wait_for_progress(const tg_progress *p, uint32_t n);

/* Let all threads go; those that are at work end it first. */
void tg_dismiss_crew(void);

#endif
