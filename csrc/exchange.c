/*  Between the arrays of rows that a job has and the lanes of a loop at work.  */
#include "looping.h"
#include "flush.h"

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

/* Have a number come near, to be read later on. */
static inline void fetch(const double *x)
{
#if defined(__GNUC__)
    __builtin_prefetch(x);
#else
    (void)x;
#endif
}

/* xs of steps from one on, number after number of a step after the other; as many come after these. */
static void read_steps(const tg_job *j, int order, int64_t step, int64_t steps, double *to)
{
    const tg_loop *o = j->loop;
    const size_t w = tg_width(j), size = o->n_x * w;
    const size_t next = (size_t)(step + 2 * steps <= o->length ? 2 * steps : 0);
    for (uint32_t i = 0; i < o->n_x; i++) {
        const size_t by = o->x_by[i];
        for (size_t l = 0; l < w; l++) {
            const double *from = j->looping->x[order][i * w + l];
            double *x = to + i * w + l;
            if (order && !from) {
                for (size_t k = 0; k < (size_t)steps; k++)
                    x[k * size] = 0.0;
                continue;
            }
            from += (size_t)step * by;
            for (size_t k = 0; k < (size_t)steps; k++)
                x[k * size] = from[k * by];
            for (size_t k = (size_t)steps; k < next; k += by && by < LINE ? LINE / by : 1)
                fetch(from + k * by);
        }
    }
}

void tg_read_x(const tg_job *j, int64_t step)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    const int64_t tile = step / TG_TILED, first = tile * TG_TILED, left = o->length - first;
    const size_t size = o->n_x * tg_width(j);
    for (int order = 0; order < tg_orders(j) && o->n_x; order++) {
        double *to = w->in[order] + tg_state_size(j);
        if (j->lanes == 1) {
            read_steps(j, order, step, 1, to);
            continue;
        }
        if (tile != w->tiled)
            read_steps(j, order, first, left < TG_TILED ? left : TG_TILED, w->tile[order]);
        tg_move(to, w->tile[order] + (size_t)(step - first) * size, size);
    }
    w->tiled = tile;
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
    double *to = j->looping->out_adj[0] + tg_state_size(j);
    for (uint32_t i = 0; i < o->n_y; i++)
        for (int l = 0; l < j->lanes; l++)
            *to++ = tg_seed_of(j, o->total ? 0 : tg_output_of_y(o, i, step), l);
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

double tg_seed_of(const tg_job *j, int64_t output, int l)
{
    return j->seed[(j->seed_stride ? j->seed_stride * tg_row_of(j, l) : 0) + output];
}
