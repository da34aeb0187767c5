/*  Between the arrays of rows that a job has and the lanes of a loop at work.  */
#include "loops/looping.h"
#include "flush.h"

#include <math.h>

static int64_t output_of_y(const tg_loop *o, uint32_t i, int64_t step)
{
    return o->y_at[i] + step * o->y_by[i];
}

/* The weight of an output of a lane, or its tangent. */
static double seed_of(const tg_job *j, int order, int64_t output, int l)
{
    const double *of = order ? j->seed_tangent : j->seed;
    return of ? of[(j->seed_stride ? j->seed_stride * tg_row_of(j, l) : 0) + output] : 0.0;
}

static const tg_feed *feed_of(const tg_job *j, uint32_t input)
{
    const tg_feed *f = j->feed;
    while (input < f->first || input - f->first >= f->count)
        f++;
    return f;
}

void tg_read_inputs(const tg_job *j, uint32_t first, uint32_t n, double *const to[2])
{
    for (uint32_t i = 0; i < n; i++) {
        const tg_feed *f = feed_of(j, first + i);
        const uint32_t k = first + i - f->first;
        if (!f->in_stride && !j->tangents) {
            const double x = f->in[k];
            for (size_t l = 0; l < tg_width(j); l++)
                to[0][i * tg_width(j) + l] = x;
            continue;
        }
        for (size_t l = 0; l < tg_width(j); l++) {
            const int64_t row = tg_row_of(j, (int)l);
            to[0][i * tg_width(j) + l] = f->in[f->in_stride * row + k];
            if (j->tangents)
                to[1][i * tg_width(j) + l] = f->tangent ? f->tangent[f->tangent_stride * row + k] : 0.0;
        }
    }
}

void tg_find_x(const tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    w->tiled = -1;
    for (uint32_t i = 0; i < o->n_x && o->length; i++) {
        const tg_feed *f = feed_of(j, o->x_at[i]);
        const uint32_t k = o->x_at[i] - f->first;
        for (size_t l = 0; l < tg_width(j); l++) {
            const int64_t row = tg_row_of(j, (int)l);
            w->x[0][i * tg_width(j) + l] = f->in + f->in_stride * row + k;
            if (j->tangents)
                w->x[1][i * tg_width(j) + l] = f->tangent ? f->tangent + f->tangent_stride * row + k : NULL;
        }
    }
}

#define LINE 8u                 /* numbers that come near at once */
#define NEARBY ((uint64_t)1 << 18)      /* bytes of rows beside which there is room for as many that come near */

/* Have a number come near, to be read later on: not into the nearest cache, which has few lines under way. */
static inline void fetch(const double *x)
{
#if defined(__GNUC__)
    __builtin_prefetch(x, 0, 2);
#else
    (void)x;
#endif
}

/* Whether the xs of a row are numbers side by side, those of a step after those of the last. */
static int in_line(const tg_job *j, int order)
{
    const tg_loop *o = j->loop;
    const double **x = j->looping->x[order];
    uint32_t i = 0;
    while (x[0] && i < o->n_x && x[i * tg_width(j)] == x[0] + i && o->x_by[i] == o->n_x)
        i++;
    return i == o->n_x;
}

/* How far it is from numbers of rows in line to those that come near meanwhile: the same ones of the next block, where
   all of it does; else those of the next steps. */
static size_t ahead(const tg_job *j, size_t steps, size_t next)
{
    const uint64_t row = (uint64_t)j->loop->length * j->loop->n_x;
    if (row > NEARBY / sizeof(double) / tg_width(j))
        return next ? steps * j->loop->n_x : 0;
    if (j->row || j->stop - j->base < 2 * (int64_t)j->lanes)
        return 0;
    return (size_t)feed_of(j, j->loop->x_at[0])->in_stride * tg_width(j);
}

/* Of rows in line, as read_steps: all numbers of these steps. */
static void read_lines(const tg_job *j, int order, int64_t step, size_t steps, size_t next, double *to, size_t size)
{
    const uint32_t n_x = j->loop->n_x;
    const size_t w = tg_width(j), from = (size_t)step * n_x, n = steps * n_x;
    const size_t by = n_x == 1 ? size : w, run = n_x == 1 || size == n_x * w ? n : n_x; /* so many are by apart */
    const size_t far = order ? 0 : ahead(j, steps, next);
    for (size_t l = 0; l + 1 < w; l += 2) {
        const double *p = j->looping->x[order][l] + from, *q = j->looping->x[order][l + 1] + from;
        double *x = to + l;
        for (size_t k = 0; k < n; k += run, x += size) {
            for (size_t m = 0; m + 1 < run; m += 2)
                tg_cross(p + k + m, q + k + m, x + m * by, x + (m + 1) * by);
            if (run % 2) {
                x[(run - 1) * by] = p[k + run - 1];
                x[(run - 1) * by + 1] = q[k + run - 1];
            }
        }
        for (size_t k = 0; far && k < n; k += LINE) {
            fetch(p + far + k);
            fetch(q + far + k);
        }
    }
}

/* xs of steps from one on, number after number of a step, those of the next so many numbers on; next: so many steps
   will be read after these. */
static void read_steps(const tg_job *j, int order, int64_t step, size_t steps, size_t next, double *to, size_t size)
{
    const tg_loop *o = j->loop;
    const size_t w = tg_width(j);
    if (w > 1 && in_line(j, order)) {
        read_lines(j, order, step, steps, next, to, size);
        return;
    }
    for (uint32_t i = 0; i < o->n_x; i++) {
        const size_t by = o->x_by[i];
        for (size_t l = 0; l < w; l++) {
            const double *from = j->looping->x[order][i * w + l];
            double *x = to + i * w + l;
            if (order && !from) {
                for (size_t k = 0; k < steps; k++)
                    x[k * size] = 0.0;
                continue;
            }
            from += (size_t)step * by;
            for (size_t k = 0; k < steps; k++)
                x[k * size] = from[k * by];
            for (size_t k = steps; k < steps + next; k += by && by < LINE ? LINE / by : 1)
                fetch(from + k * by);
        }
    }
}

/* xs of n steps, if there are as many. */
static void read_some(const tg_job *j, int order, int64_t first, int64_t n, double *to, size_t size)
{
    const int64_t left = j->loop->length - first;
    read_steps(j, order, first, (size_t)(left < n ? left : n), left < 2 * n ? 0 : (size_t)n, to, size);
}

void tg_read_x(const tg_job *j, int64_t step)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    const int64_t tile = step / TG_TILED, first = tile * TG_TILED;
    const size_t size = o->n_x * tg_width(j);
    if (!size)
        return;
    for (int order = 0; order < tg_orders(j); order++) {
        double *to = w->in[order] + tg_state_size(j);
        if (j->lanes == 1) {
            read_steps(j, order, step, 1, 0, to, size);
            continue;
        }
        if (tile != w->tiled)
            read_some(j, order, first, TG_TILED, w->tile[order], size);
        tg_move_numbers(to, w->tile[order] + (size_t)(step - first) * size, size);
    }
    w->tiled = tile;
}

void tg_read_some_x(const tg_job *j, int64_t first, int64_t n, double *to)
{
    if (j->loop->n_x)
        read_some(j, 0, first, n, to, j->loop->n_x * tg_width(j));
}

const double *tg_read_tile(const tg_job *j, int64_t first)
{
    tg_looping *w = j->looping;
    tg_read_some_x(j, first, TG_TILED, w->tile[0]);
    w->tiled = first / TG_TILED;
    return w->tile[0];
}

void tg_read_all_x(const tg_job *j, double *to, size_t size)
{
    const int64_t n = j->loop->n_x ? j->loop->length : 0;
    for (int64_t step = 0; step < n; step += TG_TILED)
        read_some(j, 0, step, TG_TILED, to + (size_t)step * size, size);
}

int tg_wants(const tg_job *j, uint32_t first, uint32_t n)
{
    int any = 0;
    for (const tg_feed *f = j->feed; f < j->feed + j->n_feeds; f++)
        any |= f->first < first + (uint64_t)n && f->first + (uint64_t)f->count > first && (f->grad || f->grad_tangent);
    return any;
}

void tg_write_adjoints(const tg_job *j, uint32_t input, double *const from[2], uint32_t lanes)
{
    const tg_feed *f = feed_of(j, input);
    for (int order = 0; order < tg_orders(j); order++) {
        double *to = order ? f->grad_tangent : f->grad;
        const int64_t stride = order ? f->grad_tangent_stride : f->grad_stride;
        double sum = 0.0;
        if (!to)
            continue;
        to += input - f->first;
        for (int l = 0; l < j->lanes; l++)
            if (lanes >> l & 1) {
                if (stride)
                    to[stride * tg_row_of(j, l)] = from[order][l];
                sum += from[order][l];
            }
        if (!stride)
            *to += sum;
    }
}

void tg_write_all_adjoints(const tg_job *j, uint32_t first, uint32_t n, double *const of[2])
{
    for (uint32_t k = 0; k < n; k++) {
        double *from[2] = {of[0] + k * tg_width(j), j->tangents ? of[1] + k * tg_width(j) : NULL};
        tg_write_adjoints(j, first + k, from, j->looping->alive);
    }
}

void tg_write_x(const tg_job *j, uint32_t lanes)
{
    const tg_loop *o = j->loop;
    const tg_looping *w = j->looping;
    const fp_mode mode = flush_to_zero();
    for (uint32_t i = 0; i < o->n_x; i++) {
        const size_t k = (o->n_state + i) * tg_width(j);
        double *from[2] = {w->in_adj[0] + k, j->tangents ? w->in_adj[1] + k : NULL};
        tg_write_adjoints(j, o->x_at[i] + (uint32_t)(w->at * o->x_by[i]), from, lanes);
    }
    restore_fp(mode);
}

void tg_weigh_ys(const tg_job *j, int64_t step)
{
    const tg_loop *o = j->loop;
    for (int order = 0; order < tg_orders(j); order++) {
        double *to = j->looping->out_adj[order] + tg_state_size(j);
        for (uint32_t i = 0; i < o->n_y; i++)
            for (int l = 0; l < j->lanes; l++)
                *to++ = seed_of(j, order, o->total ? 0 : output_of_y(o, i, step), l);
    }
}

void tg_write_output(const tg_job *j, int64_t output, double *const from[2], uint32_t lanes)
{
    for (int order = 0; order < tg_orders(j); order++) {
        double *to = order ? j->out_tangent : j->out;
        const int64_t stride = order ? j->out_tangent_stride : j->out_stride;
        for (int l = 0; to && !j->looping->step.written_out && l < j->lanes; l++)
            if (lanes >> l & 1) {
                double *one = to + (stride ? stride * tg_row_of(j, l) : 0) + output;
                *one = stride ? from[order][l] : *one + from[order][l];
            }
    }
}

void tg_tell(tg_job *j, uint32_t lanes)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    for (uint32_t i = 0; i < o->n_y; i++) {
        double *y[2];
        for (int order = 0; order < tg_orders(j); order++) {
            y[order] = w->in[order] + (o->n_state + i) * tg_width(j);
            for (int l = 0; o->total && l < j->lanes; l++)
                if (lanes >> l & 1)
                    w->total[order][l] += y[order][l];
        }
        if (!o->total)
            tg_write_output(j, output_of_y(o, i, w->at), y, lanes);
    }
}

void tg_give(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    if (o->total)
        tg_write_output(j, 0, w->total, w->alive);
    for (uint32_t i = 0; !o->total && i < o->n_state; i++) {
        double *from[2] = {w->in[0] + i * tg_width(j), j->tangents ? w->in[1] + i * tg_width(j) : NULL};
        tg_write_output(j, i, from, w->alive);
    }
    if (!o->total && o->until) {
        double steps[TG_WIDEST], zeros[TG_WIDEST] = {0}, *from[2] = {steps, zeros};
        for (int l = 0; l < j->lanes; l++)
            steps[l] = (double)w->steps[l];
        tg_write_output(j, o->n_state + o->n_y * o->length, from, w->alive);
    }
    for (int order = 0; j->seed && order < tg_orders(j); order++)
        for (int l = 0; l < j->lanes; l++) {
            if (o->total)
                w->out_adj[order][l] = seed_of(j, order, 0, l);
            for (uint32_t i = 0; i < o->n_state; i++)
                w->in_adj[order][i * tg_width(j) + (size_t)l] =
                    !o->total ? seed_of(j, order, i, l)
                              : o->final || o->n_y ? 0.0 : seed_of(j, order, 0, l);
        }
}

void tg_fill_unreached(const tg_job *j)
{
    const tg_loop *o = j->loop;
    const uint32_t lanes = j->looping->alive;
    double none[TG_WIDEST], zeros[TG_WIDEST] = {0}, *nothing[2] = {none, zeros}, *no_slope[2] = {zeros, zeros};
    for (int l = 0; l < TG_WIDEST; l++)
        none[l] = NAN;
    for (uint32_t i = 0; i < o->n_y && !o->total && j->out_stride; i++)
        for (int64_t step = 0; step < o->length; step++)
            tg_write_output(j, output_of_y(o, i, step), nothing, lanes);
    for (uint32_t i = 0; i < o->n_x && j->looping->x_wanted; i++)
        for (int64_t step = 0; step < o->length; step++)
            tg_write_adjoints(j, o->x_at[i] + (uint32_t)(step * o->x_by[i]), no_slope, lanes);
}

tg_stopped tg_where_stopped(const tg_job *j) { return j->looping->stopped; }
uint64_t tg_advanced(const tg_job *j) { return j->looping->advanced; }
