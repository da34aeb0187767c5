/*  Along tangents: those of a block's slots, and the derivative of the sweep. Included by lanes.h.

    EACH is of a PART of the lanes here.  */

#undef EACH
#define EACH OF_PART

/* Tangents of the kept slots, whose primals are there. */
TG_CLONES static void NAME(tangents)(tg_job *j, tg_halves halves, uint32_t from, uint32_t to)
{
    const tg_half *s = halves.of[TG_KEPT];
    const tg_program *p = j->program;
    double *v = j->primal, *d = j->tangent, all[LANES], t[PART];
    for (uint32_t k = from; k < to; k++, s++) {
        const uint32_t *pool = p->pool + 2 * (size_t)s->a;
        double *Y = AT(d, s->y);
        switch (tg_row(s)) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                      \
    case TG_##NAME_:                                                                                                   \
        if (!IS_SHORT(TG_##NAME_)) {                                                                                   \
            NAME(long_tangents)(TG_##NAME_, all, AT(v, s->a), AT(v, s->b), AT(v, s->y), AT(d, s->a), AT(d, s->b));     \
            OF_ALL Y[l] = all[l];                                                                                      \
        } else                                                                                                         \
            PARTS {                                                                                                    \
                const double *xa = IN_PART(v, s->a), *xb = IN_PART(v, s->b), *xy = IN_PART(v, s->y);                   \
                const double *ta = IN_PART(d, s->a), *tb = IN_PART(d, s->b);                                           \
                TANGENTS_OF(NAME_, da, db)                                                                             \
                EACH Y[q + l] = t[l];                                                                                  \
            }                                                                                                          \
        break;
#include "ops.def"
        case TG_DOT: PARTS {
            const uint32_t n = s->b & ~1u;
            if (s->b % 2)
                EACH t[l] = IN_PART(d, pool[2 * n])[l];
            else
                EACH t[l] = 0.0;
            for (uint32_t i = 0; i < n; i += 2) {
                const uint32_t x = pool[2 * i], w = pool[2 * i + 2];
                const double *a = IN_PART(v, x), *b = IN_PART(v, w), *ta = IN_PART(d, x), *tb = IN_PART(d, w);
                if (x == w)
                    EACH {
                        const double half = tg_bent_along(a[l], ta[l]);
                        t[l] += half + half;
                    }
                else
                    EACH t[l] += tg_product_along(a[l], ta[l], b[l], tb[l]);
            }
            EACH Y[q + l] = t[l];
        }
            break;
        case TG_SUM:
        case TG_FSUM: PARTS {
            EACH t[l] = 0.0;
            for (uint32_t i = 0; i < s->b; i++)
                EACH t[l] += IN_PART(d, pool[2 * i])[l];
            EACH Y[q + l] = t[l];
        }
            break;
        case TG_TOP:
            OF_ALL Y[l] = 0.0;
            break;
        case TG_WHERE: NAME(choose)(Y, AT(v, pool[0]), AT(d, pool[2]), AT(d, pool[4])); break;
        case TG_LOGSUMEXP:
            OF_ALL all[l] = 0.0;
            for (uint32_t i = 0; i < s->b; i++)
                OF_ALL all[l] += SLOPE(AT(d, pool[2 * i])[l], tg_exp(AT(v, pool[2 * i])[l] - AT(v, s->y)[l]));
            OF_ALL Y[l] = all[l];
            break;
        default: break;
        }
    }
}

/* One instruction of the sweep below, of a row that takes an instruction or two, or of a dot; 0: it is another. */
TG_INLINE int NAME(bend_parts)(tg_job *j, const tg_half *s, const tg_half *live)
{
    const tg_program *p = j->program;
    const uint32_t n_const = p->n_const, n_fixed = n_const + p->n_in, *pool = p->pool + 2 * (size_t)s->a;
    const uint8_t *idle = j->shared;
    const double *v = j->primal, *d = j->tangent;
    double *adj = j->adj, *adt = j->adj_tangent;
#define TAKE                                                                                                           \
    double *G = IN_PART(adj, live->y), *H = IN_PART(adt, live->y);                                                     \
    double g[PART], h[PART], ga[PART], gb[PART], ha[PART], hb[PART];                                                   \
    (void)gb, (void)hb;                                                                                                \
    EACH g[l] = G[l];                                                                                                  \
    EACH h[l] = H[l];                                                                                                  \
    EACH G[l] = 0.0;                                                                                                   \
    EACH H[l] = 0.0;                                                                                                   \
    if (LANES == 1 && g[0] == 0.0 && h[0] == 0.0)                                                                      \
        return 1;
#define PASS(slot, x, dx)                                                                                              \
    if (IS_WANTED(slot)) {                                                                                             \
        double *to = IN_PART(adj, slot), *along = IN_PART(adt, slot);                                                  \
        EACH to[l] += x[l];                                                                                            \
        EACH along[l] += dx[l];                                                                                        \
    }
    switch (tg_row(s)) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, daa, dab, dbb)                            \
    case TG_##NAME_:                                                                                                   \
        if (!IS_SHORT(TG_##NAME_))                                                                                     \
            return 0;                                                                                                  \
        PARTS {                                                                                                        \
            const double *xa = IN_PART(v, s->a), *xb = IN_PART(v, s->b), *xy = IN_PART(v, s->y);                       \
            const double *ta = IN_PART(d, s->a), *tb = IN_PART(d, s->b);                                               \
            TAKE                                                                                                       \
            BENDS_OF(NAME_, da, db, daa, dab, dbb)                                                                     \
            PASS(live->a, ga, ha)                                                                                      \
            if (tg_passes_to_b(TG_##NAME_))                                                                            \
                PASS(live->b, gb, hb)                                                                                  \
        }                                                                                                              \
        return 1;
#include "ops.def"
    case TG_DOT: PARTS {
        const uint32_t n = s->b & ~1u;
        TAKE
        if (s->b % 2)
            PASS(pool[2 * n + 1], g, h)
        for (uint32_t i = 0; i < n; i += 2) {
            const uint32_t x = pool[2 * i], w = pool[2 * i + 2];
            const double *a = IN_PART(v, x), *b = IN_PART(v, w), *ta = IN_PART(d, x), *tb = IN_PART(d, w);
            EACH ga[l] = tg_passed_on(g[l], b[l]);
            EACH ha[l] = tg_passed_on(h[l], b[l]) + tg_passed_on(g[l], tb[l]);
            if (x == w && IS_WANTED(pool[2 * i + 1])) { /* of a square twice the same, in one pass */
                double *to = IN_PART(adj, pool[2 * i + 1]), *along = IN_PART(adt, pool[2 * i + 1]);
                EACH to[l] = to[l] + ga[l] + ga[l];
                EACH along[l] = along[l] + ha[l] + ha[l];
            }
            if (x == w)
                continue;
            PASS(pool[2 * i + 1], ga, ha)
            EACH ga[l] = tg_passed_on(g[l], a[l]);
            EACH ha[l] = tg_passed_on(h[l], a[l]) + tg_passed_on(g[l], ta[l]);
            PASS(pool[2 * i + 3], ga, ha)
        }
    }
        return 1;
    default: return 0;
    }
#undef PASS
#undef TAKE
}

/* The reverse sweep and its derivative along the tangents: adj_tangent is d(adj). */
TG_CLONES static void NAME(reverse_tangents)(tg_job *j, tg_halves halves, uint32_t from, uint32_t to)
{
    const tg_half *s = halves.of[TG_KEPT] + (to - from), *live = halves.of[TG_LIVE] + (to - from);
    const tg_program *p = j->program;
    const uint32_t n_const = p->n_const, n_fixed = n_const + p->n_in;
    const uint8_t *idle = j->shared;
    const double *v = j->primal, *d = j->tangent;
    double *adj = j->adj, *adt = j->adj_tangent, g[LANES], h[LANES], ga[LANES], gb[LANES], ha[LANES], hb[LANES];
    const double zero = tg_zero();
    for (uint32_t k = to; k-- > from;) {
        s--;
        live--;
        const uint32_t *pool = p->pool + 2 * (size_t)s->a;
        double *G = AT(adj, live->y), *H = AT(adt, live->y);
        if (tg_row(s) == TG_GUARD || NAME(bend_parts)(j, s, live))
            continue;
        OF_ALL {
            g[l] = G[l];
            h[l] = H[l];
            G[l] = H[l] = zero;
        }
        if (LANES == 1 && g[0] == 0.0 && h[0] == 0.0)
            continue;
        switch (tg_row(s)) {
#define PASS(slot, x, dx)                                                                                              \
    if (IS_WANTED(slot)) {                                                                                             \
        NAME(add_to)(AT(adj, slot), x);                                                                                \
        NAME(add_to)(AT(adt, slot), dx);                                                                               \
    }
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, daa, dab, dbb)                            \
    case TG_##NAME_:                                                                                                   \
        if (!IS_SHORT(TG_##NAME_)) {                                                                                   \
            NAME(long_bends)(TG_##NAME_, ga, gb, ha, hb, g, h, AT(v, s->a), AT(v, s->b), AT(v, s->y), AT(d, s->a),     \
                             AT(d, s->b));                                                                             \
            PASS(live->a, ga, ha)                                                                                      \
            if (tg_passes_to_b(TG_##NAME_))                                                                            \
                PASS(live->b, gb, hb)                                                                                  \
        }                                                                                                              \
        break;
#include "ops.def"
        case TG_SUM:
        case TG_FSUM:
            for (uint32_t i = 0; i < s->b; i++)
                PASS(pool[2 * i + 1], g, h)
            break;
        case TG_WHERE:
            NAME(split)(AT(v, pool[0]), g, ga, gb);
            NAME(split)(AT(v, pool[0]), h, ha, hb);
            PASS(pool[3], ga, ha)
            PASS(pool[5], gb, hb)
            break;
        case TG_LOGSUMEXP:
            for (uint32_t i = 0; i < s->b; i++) {
                OF_ALL {
                    double share = tg_exp(AT(v, pool[2 * i])[l] - AT(v, s->y)[l]);
                    ga[l] = WEIGHED(g[l], share);
                    ha[l] = WEIGHED(h[l], share) +
                            WEIGHED(g[l], share * (AT(d, pool[2 * i])[l] - AT(d, s->y)[l]));
                }
                PASS(pool[2 * i + 1], ga, ha)
            }
            break;
        default: break;
        }
    }
}

#undef PASS
#undef EACH
#define EACH OF_ALL
