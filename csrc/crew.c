/*  The threads of crew.h, and who waits for what: a thread for a call, a caller for those who came.  */
#define _DEFAULT_SOURCE
#include "crew.h"

#include <string.h>

#if defined(__unix__) || defined(__APPLE__)

#include "tape.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define STACK (1u << 20)        /* bytes: some systems give a thread less than chunks of native code may want */
#define SPINS 1000u             /* some 20 us, as long as it takes to sleep and be woken */
#define MORE_SPINS 5000u        /* some 100 us: calls follow one another with 40 us of Python between them */

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

/* On the stack of its caller, in the list as long as it wants hands or has some. */
typedef struct call {
    void (*work)(void *);
    void *context;
    int wanted, inside;
    struct call *next;
} call;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t called = PTHREAD_COND_INITIALIZER, left = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Guarded by the lock. */
static call *calls;             /* the oldest first */
static pthread_t *threads;
static int made, present;       /* made have to be joined, of which present have not left */
static int leaving;
static unsigned patience = SPINS;   /* who waits for news spins as often: more where all threads have a processor */

void tg_lock_crew(void)
{
    for (unsigned k = 0; k < SPINS; k++) {              /* most hold it for less than it takes to fall asleep */
        if (!pthread_mutex_trylock(&lock))
            return;
        PAUSE();
    }
    pthread_mutex_lock(&lock);
}
void tg_unlock_crew(void) { pthread_mutex_unlock(&lock); }

/* Counts whatever a thread may wait for: written with the lock held, and looked at for a while before one sleeps. */
static atomic_uint news;

static void tell(pthread_cond_t *who, int many)
{
    atomic_fetch_add_explicit(&news, 1, memory_order_relaxed);
    for (int k = 0; k < many; k++)
        pthread_cond_signal(who);
}

static void tell_all(pthread_cond_t *who)
{
    tell(who, 0);
    pthread_cond_broadcast(who);
}

/* Wait until there are news, or for nothing; the lock is held, and let go in between. */
static void wait_for_news(pthread_cond_t *who)
{
    const unsigned known = atomic_load_explicit(&news, memory_order_relaxed), spins = patience;
    tg_unlock_crew();
    for (unsigned k = 0; k < spins && atomic_load_explicit(&news, memory_order_relaxed) == known; k++)
        PAUSE();
    tg_lock_crew();
    if (atomic_load_explicit(&news, memory_order_relaxed) == known)
        pthread_cond_wait(who, &lock);
}

void tg_wait_for_progress(const tg_progress *p, uint32_t n)
{
    for (unsigned k = 0; tg_progress_of(p) < n; k++)
        if (k < SPINS)
            PAUSE();
        else
            sched_yield();                              /* it may be that processor that who is at work waits for */
}

static void *serve(void *unused)
{
    tg_lock_crew();
    while (!leaving) {
        call *c = calls;
        while (c && !c->wanted)
            c = c->next;
        if (!c) {
            wait_for_news(&called);
            continue;
        }
        c->wanted--;
        c->inside++;
        tg_unlock_crew();
        c->work(c->context);
        tg_lock_crew();
        if (!--c->inside)
            tell_all(&left);
    }
    present--;
    tell_all(&left);
    tg_unlock_crew();
    return unused;
}

/* All threads leave; the lock is held, and let go in between. */
static void dismiss(void)
{
    leaving++;
    tell_all(&called);
    while (present)
        wait_for_news(&left);
    for (int k = 0; k < made; k++)
        pthread_join(threads[k], NULL);
    free(threads);
    threads = NULL;
    made = 0;
    leaving--;
}

void tg_dismiss_crew(void)
{
    tg_lock_crew();
    dismiss();
    tg_unlock_crew();
}

/* ---- across a fork: the lock is held, and no thread is there ---- */

static void before_fork(void)
{
    tg_lock_crew();
    dismiss();
}

static void in_child(void)
{
    calls = NULL;                                       /* their callers are not here */
    leaving = 0;
    pthread_cond_init(&called, NULL);                   /* neither is who waited */
    pthread_cond_init(&left, NULL);
    tg_unlock_crew();
}

static int watched;

static void watch_forks(void) { watched = !pthread_atfork(before_fork, tg_unlock_crew, in_child); }

/* ---- calls ---- */

/* One more thread; whether there is. The lock is held. */
static int make_thread(void)
{
    pthread_t *more = tg_realloc(threads, (size_t)(made + 1) * sizeof *more);
    pthread_attr_t attr;
    sigset_t all, before;
    int failed;
    if (!more)
        return 0;
    threads = more;
    if (pthread_attr_init(&attr))
        return 0;
    pthread_attr_setstacksize(&attr, STACK);
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGABRT);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(threads + made, &attr, serve, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (failed)
        return 0;
    made++;
    present++;
    patience = made < sysconf(_SC_NPROCESSORS_ONLN) ? MORE_SPINS : SPINS;
    return 1;
}

void tg_together(int n, void (*work)(void *), void *context)
{
    call own = {.work = work, .context = context, .wanted = n - 1}, **end = &calls;
    if (n > 1)
        pthread_once(&once, watch_forks);
    if (n < 2 || !watched) {
        work(context);
        return;
    }
    tg_lock_crew();
    while (!leaving && made < n - 1 && make_thread())
        ;
    while (*end)
        end = &(*end)->next;
    *end = &own;
    tell(&called, own.wanted < made ? own.wanted : made);
    tg_unlock_crew();
    work(context);
    tg_lock_crew();
    own.wanted = 0;
    while (own.inside)
        wait_for_news(&left);
    for (end = &calls; *end != &own; end = &(*end)->next)
        ;
    *end = own.next;
    tg_unlock_crew();
}

#else

void tg_lock_crew(void) {}
void tg_unlock_crew(void) {}
void tg_dismiss_crew(void) {}
void tg_wait_for_progress(const tg_progress *p, uint32_t n) { (void)p, (void)n; }

void tg_together(int n, void (*work)(void *), void *context)
{
    (void)n;
    work(context);
}

#endif

/* ---- copies ---- */

enum { WORTH = 1 << 15, PARTS = 16 };   /* numbers: a few times what it takes to begin, and pages that are new */

typedef struct {
    double *to;
    const double *from;
    size_t n;
    tg_progress next;
} copying;

static void copy(const copying *c, size_t first, size_t n)
{
    if (c->from)
        memcpy(c->to + first, c->from + first, n * sizeof *c->to);
    else
        memset(c->to + first, 0, n * sizeof *c->to);
}

static void copy_some(void *context)
{
    copying *c = context;
    for (size_t k; (k = tg_take_next(&c->next)) < PARTS;) {
        const size_t first = c->n / PARTS * k;
        copy(c, first, k + 1 < PARTS ? c->n / PARTS : c->n - first);
    }
}

void tg_copy_together(int threads, double *to, const double *from, size_t n)
{
    copying c = {.to = to, .from = from, .n = n};
    if (n < WORTH)
        copy(&c, 0, n);
    else
        tg_together(threads, copy_some, &c);
}
