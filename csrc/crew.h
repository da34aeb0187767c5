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

/* Run work(context) on at most this many threads at once; it has to bear that others of them come late, or never. */
void tg_together(int threads, void (*work)(void *), void *context);

void tg_lock_crew(void);
void tg_unlock_crew(void);

/* Let all threads go; those that are at work end it first. */
void tg_dismiss_crew(void);

#endif
