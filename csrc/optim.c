/*  One optimizer step over many leaves, by the rules of PyTorch (torch.optim.SGD, Adam, AdamW, RMSprop).

    State is kept by the caller, a double per leaf; it is all zero before the first step.  */
#include "ops.h"

void tg_sgd(tg_tape *t, const uint32_t *ids, uint32_t n, const tg_sgd_settings *r, double *buffer)
{
    for (uint32_t k = 0; k < n; k++) {
        double *p = &t->data[ids[k]], g = r->maximize ? -t->grad[ids[k]] : t->grad[ids[k]];
        if (r->weight_decay != 0.0)
            g += r->weight_decay * *p;
        if (buffer) {
            buffer[k] = r->first ? g : r->momentum * buffer[k] + (1.0 - r->dampening) * g;
            g = r->nesterov ? g + r->momentum * buffer[k] : buffer[k];
        }
        *p -= r->lr * g;
    }
}

/* Kingma, Ba, "Adam: a method for stochastic optimization" (2015); amsgrad: Reddi, Kale, Kumar (2018); decoupled weight
   decay: Loshchilov, Hutter (2019). */
void tg_adam(tg_tape *t, const uint32_t *ids, uint32_t n, const tg_adam_settings *r, double *m, double *v, double *top)
{
    double size = r->lr / (1.0 - tg_pow(r->beta1, r->step)), root = sqrt(1.0 - tg_pow(r->beta2, r->step));
    for (uint32_t k = 0; k < n; k++) {
        double *p = &t->data[ids[k]], g = r->maximize ? -t->grad[ids[k]] : t->grad[ids[k]], second;
        if (r->decoupled)
            *p *= 1.0 - r->lr * r->weight_decay;
        else if (r->weight_decay != 0.0)
            g += r->weight_decay * *p;
        m[k] += (g - m[k]) * (1.0 - r->beta1);
        v[k] = r->beta2 * v[k] + (1.0 - r->beta2) * g * g;
        second = v[k];
        if (top)
            second = top[k] = tg_max(top[k], v[k]);
        *p -= size * (m[k] / (sqrt(second) / root + r->eps));
    }
}

/* Tieleman, Hinton, "Lecture 6.5: rmsprop" (2012); centered: Graves, "Generating sequences with recurrent neural
   networks" (2013). */
void tg_rmsprop(tg_tape *t, const uint32_t *ids, uint32_t n, const tg_rmsprop_settings *r, double *square, double *mean,
                double *buffer)
{
    for (uint32_t k = 0; k < n; k++) {
        double *p = &t->data[ids[k]], g = r->maximize ? -t->grad[ids[k]] : t->grad[ids[k]], spread;
        if (r->weight_decay != 0.0)
            g += r->weight_decay * *p;
        spread = square[k] = r->alpha * square[k] + (1.0 - r->alpha) * g * g;
        if (mean) {
            mean[k] += (g - mean[k]) * (1.0 - r->alpha);
            spread -= mean[k] * mean[k];
        }
        g /= sqrt(spread) + r->eps;
        if (buffer)
            g = buffer[k] = r->momentum * buffer[k] + g;
        *p -= r->lr * g;
    }
}
