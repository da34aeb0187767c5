/*  Between the arrays of rows that a job has and the lanes of a loop at work.  */
#include "looping.h"

int64_t tg_row_of(const tg_job *j, int l)
{
    const int64_t at = j->base + l < j->stop ? j->base + l : j->stop - 1;
    return j->row ? j->row[at] : at;
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

void tg_read_x(const tg_job *j, int64_t step)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    for (int order = 0; order < tg_orders(j); order++) {
        const double **from = w->x[order];
        double *to = w->in[order] + tg_state_size(j);
        for (uint32_t i = 0; i < o->n_x; i++)
            for (int l = 0; l < j->lanes; l++, from++)
                *to++ = *from ? (*from)[step * o->x_by[i]] : 0.0;
    }
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

void tg_write_output(const tg_job *j, int64_t output, double *const from[2], uint32_t lanes)
{
    for (int order = 0; order < tg_orders(j); order++) {
        double *to = order ? j->out_tangent : j->out;
        const int64_t stride = order ? j->out_tangent_stride : j->out_stride;
        for (int l = 0; to && l < j->lanes; l++)
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
