/*  Cells at work: memory, the way of each lane through the tree of paths, and sums of adjoints.  */
#include "loops/call.h"
#include "compiled.h"
#include "flush.h"
#include "loops/once.h"

static size_t width(const tg_stage *s) { return (size_t)s->lanes; }
static uint32_t all_lanes(const tg_stage *s) { return (uint32_t)((1ull << s->lanes) - 1); }

static int lowest(uint32_t lanes)
{
    int l = 0;
    while (!(lanes >> l & 1))
        l++;
    return l;
}

void *tg_carve(char *memory, uint64_t *used, uint64_t n, size_t size)
{
    char *here = memory ? memory + *used : NULL;
    const uint64_t most = (uint64_t)1 << 62, left = *used < most ? most - *used : 0;
    if (size && n > left / size)
        *used = most;
    else
        *used += (n * size + 63) & ~(uint64_t)63;
    return here;
}

static double *numbers(char *memory, uint64_t *used, uint64_t slots, const tg_stage *s)
{
    return tg_carve(memory, used, slots * width(s), sizeof(double));
}

void tg_lay_stage(tg_stage *s, const tg_cell *cell, uint32_t n_own, const tg_job *like, char *memory, uint64_t *used)
{
    tg_job within = *like;              /* what the loops of a path are carried out like */
    within.nan_errors |= cell->nan_errors;
    s->cell = cell;
    s->lanes = like->lanes;
    s->orders = like->tangents ? 2 : 1;
    s->n_own = s->n_wanted = n_own;
    s->n_shared = cell->program[0]->n_in - n_own;
    s->n_out = cell->program[0]->n_out;
    s->job = tg_carve(memory, used, cell->n_paths, sizeof *s->job);
    for (uint32_t k = 0; k < cell->n_paths; k++) {
        const tg_program *p = cell->program[k];
        tg_job j = {.program = p, .native = cell->native[k], .tangents = like->tangents, .lanes = like->lanes,
                    .nan_errors = within.nan_errors, .stop = like->lanes, .failed = s->failed};
        j.primal = numbers(memory, used, p->n_kept, s);
        if (j.tangents)
            j.tangent = numbers(memory, used, p->n_kept, s);
        if (like->seed)
            j.adj = numbers(memory, used, p->n_live, s);
        if (like->seed && j.tangents)
            j.adj_tangent = numbers(memory, used, p->n_live, s);
        if (like->seed && s->lanes > 1)
            j.shared = tg_carve(memory, used, p->n_const + (uint64_t)p->n_in, 1);
        tg_lay_calls(&j, &within, cell->n_paths, memory, used);
        if (like->seed && !k && p->n_hoisted)
            tg_lay_watch(s, memory, used);
        if (!memory)
            continue;
        s->job[k] = j;
        for (size_t i = 0; i < p->n_const * width(s); i++)
            j.primal[i] = p->constant[i / width(s)];
    }
}

uint64_t tg_dearest(const tg_cell *c)
{
    uint64_t most = 0;
    for (uint32_t k = 0; k < c->n_paths; k++) {
        const uint64_t cost = tg_cost(c->program[k]);
        most = cost > most ? cost : most;
    }
    return most;
}

int tg_takes_long(const tg_cell *c, int lanes)
{
    int calls = 0;
    for (uint32_t k = 0; k < c->n_paths; k++)
        calls |= c->program[k]->n_calls != 0;
    return calls && tg_dearest(c) > TG_SLICE / (uint64_t)lanes;
}

/* Of an order: primals or adjoints, or their tangents. */
static double *primals_of(const tg_job *j, int order) { return order ? j->tangent : j->primal; }
static double *adjoints_of(const tg_job *j, int order) { return order ? j->adj_tangent : j->adj; }

/* Where the shared inputs of a path begin. */
static size_t shared_from(const tg_stage *s, const tg_job *j) { return (j->program->n_const + s->n_own) * width(s); }

/* Carry out what is hoisted, unless it is there already. */
static void go_once(tg_stage *s, int is_there)
{
    tg_job *j = s->job;
    s->written_out = 0;
    for (int order = 0; s->watched && order < s->orders; order++)
        memset(s->amount[order], 0, width(s) * sizeof(double));
    if (!is_there) {
        s->refused = 0;
        s->interpreted_once = 0;
        s->weighed = 0;
    }
    if (!is_there && j->program->n_hoisted) {
        memset(s->refused_at, 0, sizeof s->refused_at);
        j->failed = s->refused_at;
        j->alive = all_lanes(s);
        j->failures = 0;
        tg_forward_hoisted(j);
        j->failed = s->failed;
        s->refused = all_lanes(s) & ~j->alive;
        s->refused_a = j->fail_a;
        s->refused_b = j->fail_b;
        s->interpreted_once = j->interpreted;
    }
    s->interpreted = s->interpreted_once;
}

void tg_set_shared(tg_stage *s, double *const params[2], int one_for_all)
{
    const size_t w = width(s), from = one_for_all ? 1 : w;
    int same = s->is_set;
    for (uint32_t k = 0; k < s->cell->n_paths; k++)
        for (int order = 0; order < s->orders; order++) {
            double *to = primals_of(s->job + k, order) + shared_from(s, s->job + k);
            for (uint32_t i = 0; i < s->n_shared; i++, to += w) {
                const double *x = params[order] + s->cell->shared[i] * from;
                double filled[TG_WIDEST];
                for (size_t l = 0; one_for_all && l < w; l++)
                    filled[l] = *x;
                x = one_for_all ? filled : x;
                same = same && !memcmp(to, x, w * sizeof *to);
                tg_move_numbers(to, x, w);
            }
        }
    s->is_set = 1;
    go_once(s, same);
}

void tg_set_all(const tg_stage *s, double *primals, size_t each, int64_t n)
{
    const tg_job *j = s->job;
    const tg_program *p = j->program;
    const size_t from = shared_from(s, j), constants = p->n_const * width(s) * sizeof *primals,
                 shared = ((size_t)p->n_in - s->n_own + p->n_hoisted) * width(s) * sizeof *primals;
    if (!n || (!memcmp(primals, j->primal, constants) && !memcmp(primals + from, j->primal + from, shared)))
        return;
    for (; n-- > 0; primals += each) {
        memcpy(primals, j->primal, constants);
        memcpy(primals + from, j->primal + from, shared);
    }
}

/* Lanes to slots, the others with the numbers of the lowest of them. */
static void put(const tg_stage *s, tg_job *j, uint32_t lanes, double *const in[2])
{
    const size_t w = width(s), n = s->n_own * w, from = j->program->n_const * w;
    for (int order = 0; order < s->orders; order++) {
        double *to = primals_of(j, order) + from;
        tg_move_numbers(to, in[order], n);
        for (size_t l = 0; lanes != all_lanes(s) && l < w; l++)
            for (size_t i = 0; !(lanes >> l & 1) && i < n; i += w)
                to[i + l] = in[order][i + (size_t)lowest(lanes)];
    }
}

/* One number of lanes, of w there are. What is 16 wide is compiled for the vectors of replay.c: what was stored in
   narrower ones a wide one takes long to load. */
TG_INLINE void move(const double *from, double *to, uint32_t lanes, size_t w)
{
    if (lanes == (1u << w) - 1)
        TG_TURNS_APART for (size_t l = 0; l < w; l++)   /* else it is a call of memcpy */
            to[l] = from[l];
    else
        TG_TURNS_APART for (size_t l = 0; l < w; l++)
            to[l] = lanes >> l & 1 ? from[l] : to[l];
}

TG_INLINE void add(const double *from, double *to, uint32_t lanes, size_t w)
{
    if (lanes == (1u << w) - 1)
        TG_TURNS_APART for (size_t l = 0; l < w; l++)
            to[l] += from[l];
    else
        TG_TURNS_APART for (size_t l = 0; l < w; l++)
            to[l] += lanes >> l & 1 ? from[l] : 0.0;
}

/* Outputs of lanes. */
TG_INLINE void get(const tg_stage *s, const tg_program *p, const double *from, double *to, uint32_t lanes, size_t w)
{
    for (uint32_t i = 0; i < s->n_out; i++)
        move(from + p->out[2 * i] * w, to + i * w, lanes, w);
}

TG_CLONES static void get_wide(const tg_stage *s, const tg_program *p, const double *from, double *to, uint32_t lanes)
{
    get(s, p, from, to, lanes, TG_WIDEST);
}

static int way_on(const tg_cell *c, uint32_t path, uint32_t at)
{
    for (uint32_t k = 0; k < c->n_ways; k++)
        if (c->way[3 * k] == path && c->way[3 * k + 1] == at)
            return (int)c->way[3 * k + 2];
    return -1;
}

/* Outputs of the lanes that are alive. */
static void get_all(const tg_stage *s, const tg_job *j, double *const out[2])
{
    for (int order = 0; order < s->orders && j->alive; order++)
        if (s->lanes == 1)
            get(s, j->program, primals_of(j, order), out[order], 1, 1);
        else
            get_wide(s, j->program, primals_of(j, order), out[order], j->alive);
}

int tg_go_well(tg_stage *s, uint32_t n, double *inout, double *primals)
{
    tg_job *j = s->job;
    double *own = j->primal;
    const size_t w = width(s);
    if (s->cell->n_paths > 1 || s->orders > 1 || s->refused || s->is_long)
        return 0;
    if (primals)
        j->primal = primals;
    primals = j->primal;
    tg_move_numbers(primals + j->program->n_const * w, inout, n * w);
    j->alive = all_lanes(s);
    tg_forward(j);
    j->primal = own;
    s->interpreted |= j->interpreted;
    if (j->alive != all_lanes(s))
        return 0;
    if (w == 1)
        get(s, j->program, primals, inout, 1, 1);
    else
        get_wide(s, j->program, primals, inout, j->alive);
    return 1;
}

/* Lanes that are to take this path. */
static uint32_t lanes_on(const tg_stage *s, uint32_t lanes, const uint8_t *path, uint32_t p)
{
    uint32_t group = 0;
    if (s->cell->n_paths == 1)
        return lanes;
    for (int l = 0; l < s->lanes; l++)
        group |= (uint32_t)((lanes >> l & 1) && path[l] == p) << l;
    return group;
}

enum { NOTHING, FORTH, BACK };

/* Primals and tangents, or a part of what is long. */
static void go_forward(tg_stage *s, tg_job *j)
{
    if (s->is_long)
        s->more = tg_forward_some(j, s->more == FORTH) ? FORTH : NOTHING;
    else
        tg_forward(j);
}

uint32_t tg_go(tg_stage *s, uint32_t lanes, uint8_t *path, double *const in[2], double *primals, double *const out[2])
{
    uint32_t walking = 0, lost = 0;     /* walking: from the first path on, where each stop leads */
    if (s->more) {
        lanes = s->left;
        walking = s->walking;
        lost = s->lost;
    }
    while (lanes) {
        const int one = lowest(lanes);
        const uint32_t p = path[one];
        tg_job *j = s->job + p;
        const uint32_t group = lanes_on(s, lanes, path, p);
        double *own = j->primal;
        uint32_t stopped;
        if (primals)
            j->primal = primals;
        if (!s->more) {
            put(s, j, group, in);
            j->alive = group & ~s->refused;
            j->failures = s->refused != 0;
            j->fail_a = s->refused_a;
            j->fail_b = s->refused_b;
            memcpy(s->failed, s->refused_at, sizeof s->failed);
        }
        go_forward(s, j);
        if (s->more) {
            s->left = lanes;
            s->walking = walking;
            s->lost = lost;
            j->primal = own;
            return 0;
        }
        s->interpreted |= j->interpreted;
        get_all(s, j, out);
        j->primal = own;
        if (j->alive == lanes)
            return lost;
        stopped = group & ~j->alive;
        lanes &= ~j->alive;
        for (int l = 0; stopped && l < s->lanes; l++) {
            const uint32_t at = s->failed[l] - 1;
            int next;
            if (!(stopped >> l & 1))
                continue;
            next = p && !(walking >> l & 1) ? 0 : way_on(s->cell, p, at);
            walking |= 1u << l;
            if (next >= 0) {
                path[l] = (uint8_t)next;
                continue;
            }
            lanes &= ~(1u << l);
            if (!lost || l < s->failed_first) {
                s->failed_first = l;
                s->stopped_on = p;
                s->stopped_at = j->program->n_hoisted ? j->program->order[at] : at;
                s->fail_a = j->fail_a;          /* of this lane where there is only one */
                s->fail_b = j->fail_b;
            }
            lost |= 1u << l;
        }
    }
    return lost;
}

/* The shared adjoints to the slots of another path. */
static void hand_over(tg_stage *s, uint32_t path)
{
    tg_job *from = s->job + s->holder, *to = s->job + path;
    const size_t bytes = s->n_shared * width(s) * sizeof(double);
    for (int order = 0; order < s->orders; order++) {
        double *old = adjoints_of(from, order) + shared_from(s, from);
        memcpy(adjoints_of(to, order) + shared_from(s, to), old, bytes);
        memset(old, 0, bytes);
    }
    s->holder = path;
}

void tg_go_along(tg_stage *s, uint32_t lanes, uint32_t path, double *const in[2], size_t first, double *columns,
                 size_t apart)
{
    tg_job *j = s->job + path;
    const size_t n = j->program->n_kept;
    put(s, j, lanes, in);
    j->alive = lanes;
    tg_forward(j);
    for (size_t i = first; i < n; i += 2, columns += 2)     /* two of each of two lanes at once */
        for (size_t l = 0; l < TG_WIDEST; l += 2) {
            const double *from = j->primal + i * TG_WIDEST + l, *next = i + 1 < n ? from + TG_WIDEST : from;
            const double a = from[0], b = next[0], c = from[1], d = next[1];
            double *to = columns + l * apart;
            to[0] = a;
            to[1] = b;
            to += apart;
            to[0] = c;
            to[1] = d;
        }
}

/* Add the adjoints of outputs, an order and a width of them. */
TG_INLINE void seed(const tg_stage *s, const tg_program *p, double *adj, const double *from, uint32_t lanes, size_t w)
{
    for (uint32_t i = 0; i < s->n_out; i++)
        add(from + i * w, adj + p->out[2 * i + 1] * w, lanes, w);
}

/* Take those of its own inputs, an order of them. */
TG_INLINE void collect(const tg_stage *s, const tg_job *j, int order, double *to, uint32_t lanes, size_t w)
{
    double *adj = adjoints_of(j, order), *from = adj + j->program->n_const * w;
    const size_t n = (j->interpreted ? s->n_wanted : s->n_own) * w;     /* native code knows none that are idle */
    const double zero = tg_zero();
    for (size_t i = 0; i < n; i += w) {
        move(from + i, to + i, lanes, w);
        TG_TURNS_APART for (size_t l = 0; l < w; l++)
            from[i + l] = zero;
    }
    tg_watch(s, adj, s->amount[order], w);
}

TG_CLONES static void seed_wide(const tg_stage *s, const tg_program *p, double *adj, const double *from, uint32_t lanes)
{
    seed(s, p, adj, from, lanes, TG_WIDEST);
}

TG_CLONES static void collect_wide(const tg_stage *s, const tg_job *j, int order, double *to, uint32_t lanes)
{
    collect(s, j, order, to, lanes, TG_WIDEST);
}

void tg_come_back(tg_stage *s, uint32_t lanes, uint32_t path, double *const in[2], double *primals,
                  double *const out_adj[2], double *const in_adj[2])
{
    tg_job *j = s->job + path;
    const tg_program *p = j->program;
    double *own = j->primal;
    fp_mode mode;
    if (!s->more) {
        if (path != s->holder)
            hand_over(s, path);
        j->alive = lanes;
        if (!primals)
            put(s, j, lanes, in);
    }
    if (primals)
        j->primal = primals;
    else {
        if (s->more != BACK)
            go_forward(s, j);
        if (s->more == FORTH)
            return;
        mode = flush_to_zero();
    }
    for (int order = 0; order < s->orders && !s->more; order++)
        if (s->lanes == 1)
            seed(s, p, adjoints_of(j, order), out_adj[order], 1, 1);
        else
            seed_wide(s, p, adjoints_of(j, order), out_adj[order], lanes);
    if (s->is_long)
        s->more = tg_reverse_some(j, s->more == BACK) ? BACK : NOTHING;
    else if (s->written_out)
        tg_reverse_written_out(j);
    else
        tg_reverse(j);
    if (!primals)
        restore_fp(mode);
    j->primal = own;
    if (s->more)
        return;
    for (int order = 0; order < s->orders; order++)
        if (s->lanes == 1)
            collect(s, j, order, in_adj[order], 1, 1);
        else
            collect_wide(s, j, order, in_adj[order], lanes);
}

void tg_take_adjoints(tg_stage *s, double *const sums[2])
{
    tg_job *j = s->job + s->holder;
    if (j->program->n_hoisted && !s->written_out) {
        const fp_mode mode = flush_to_zero();
        j->interpreted = s->interpreted;
        tg_reverse_hoisted(j);
        restore_fp(mode);
    }
    for (int order = 0; order < s->orders; order++)
        for (uint32_t i = 0; i < s->n_shared; i++) {
            double *from = adjoints_of(j, order) + shared_from(s, j) + i * width(s);
            for (size_t l = 0; l < width(s); l++) {
                sums[order][s->cell->shared[i] * width(s) + l] += from[l];
                from[l] = 0.0;
            }
        }
}

void tg_give_adjoints(tg_stage *s, double *const sums[2])
{
    tg_job *j = s->job + s->holder;
    for (int order = 0; order < s->orders; order++)
        for (uint32_t i = 0; i < s->n_shared; i++) {
            double *from = sums[order] + s->cell->shared[i] * width(s);
            for (size_t l = 0; l < width(s); l++) {
                adjoints_of(j, order)[shared_from(s, j) + i * width(s) + l] = from[l];
                from[l] = 0.0;
            }
        }
}
