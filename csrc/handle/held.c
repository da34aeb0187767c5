/*  Which nodes are held from outside?

    A live handle holds its node. But a rule usually closes over its own node: handle -> dict -> function -> cell ->
    handle, a cycle that Python's collector cannot see, for handles are not its objects (that would cost every operation
    20 ns). So reclaim counts, as the collector does: from the handles with attributes, walk what they reach; an object
    with more references than the walk found is held from outside, with all it reaches. Modules, classes and the globals
    of functions are not entered: what they hold counts as held.

    A node that others need needs its rule, and so what the rule reaches: marking nodes and reaching objects alternate
    until nothing is added. Nothing here runs Python code, so nothing moves meanwhile.  */
#include "held.h"

#include "recording.h"

#include <stdlib.h>

typedef struct {
    void *object;               /* an object, or memory left with a node */
    uint32_t first, edges;      /* what it refers to, in graph.edge */
    Py_ssize_t inside;          /* references found by the walk */
    int left, held;
} vertex;

typedef struct {
    vertex *v;
    uint32_t n, cap;
    uint32_t *edge, edges, edge_cap;
    uint32_t *slot, slots;      /* open addressing, by object: index + 1 */
    uint32_t *stack;
    PyObject *get_referents, *builtins;
    uint32_t top;               /* highest node that the last spread marked */
} graph;

static uint32_t *find(const graph *g, void *object)
{
    uint32_t h = (uint32_t)(((uintptr_t)object >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (g->slots - 1);
    while (g->slot[h] && g->v[g->slot[h] - 1].object != object)
        h = (h + 1) & (g->slots - 1);
    return g->slot + h;
}

static int grow(graph *g)
{
    uint32_t cap = g->cap ? 2 * g->cap : 256, *slot;
    vertex *v = tg_realloc(g->v, cap * sizeof *v);
    if (!v)
        return -1;
    g->v = v;
    slot = tg_zeroed(2 * cap * sizeof *slot);
    if (!slot)
        return -1;
    free(g->slot);
    g->slot = slot;
    g->slots = 2 * cap;
    g->cap = cap;
    for (uint32_t k = 0; k < g->n; k++)
        *find(g, v[k].object) = k + 1;
    return 0;
}

/* The index of an object in the graph, added if it is new; TG_NONE without memory. */
static uint32_t enter(graph *g, void *object, int left)
{
    uint32_t *slot;
    if (g->n == g->cap && grow(g))
        return TG_NONE;
    slot = find(g, object);
    if (!*slot) {
        g->v[g->n] = (vertex){.object = object, .left = left};
        *slot = ++g->n;
    }
    return *slot - 1;
}

static int add_edge(graph *g, uint32_t from, PyObject *to)
{
    uint32_t k;
    if (g->edges == g->edge_cap) {
        uint32_t cap = g->edge_cap ? 2 * g->edge_cap : 256, *edge = tg_realloc(g->edge, cap * sizeof *edge);
        if (!edge)
            return -1;
        g->edge = edge;
        g->edge_cap = cap;
    }
    k = enter(g, to, 0);
    if (k == TG_NONE)
        return -1;
    g->v[k].inside++;
    g->v[from].edges++;
    g->edge[g->edges++] = k;
    return 0;
}

static int may_enter(PyObject *o)
{
    unsigned long flags = PyType_GetFlags(Py_TYPE(o));
    return is_value(o) || ((flags & Py_TPFLAGS_HAVE_GC) && !(flags & Py_TPFLAGS_TYPE_SUBCLASS) && !PyModule_Check(o));
}

/* Add what the k-th object refers to. */
static int walk(graph *g, uint32_t k)
{
    PyObject *o = g->v[k].object, *globals, *list;
    int value = g->v[k].left || is_value(o), code = 0;
    g->v[k].first = g->edges;
    if (value && ((Value *)o)->dict && add_edge(g, k, ((Value *)o)->dict))
        return -1;
    if (g->v[k].left || Py_REFCNT(o) == 0 || !(PyType_GetFlags(Py_TYPE(o)) & Py_TPFLAGS_HAVE_GC))
        return 0;                       /* who is on its way out must not be referred to: it would go twice */
    globals = Py_TYPE(o) == Py_TYPE(tg_refused) ? PyObject_GetAttrString(o, "__globals__") : NULL;
    list = PyObject_CallFunctionObjArgs(g->get_referents, o, NULL);
    for (Py_ssize_t i = 0; list && !code && i < PyList_Size(list); i++) {
        PyObject *to = PyList_GetItem(list, i);
        if (to != globals && to != g->builtins && may_enter(to))
            code = add_edge(g, k, to);
    }
    if (!list)
        code = -1;
    Py_XDECREF(globals);
    Py_XDECREF(list);
    return code;
}

/* The k-th object is held, and so is all it reaches; nodes among it are marked. */
static void spread(graph *g, uint32_t k)
{
    uint32_t depth = 0;
    if (g->v[k].held)
        return;
    g->v[k].held = 1;
    g->stack[depth++] = k;
    while (depth) {
        const vertex *v = &g->v[g->stack[--depth]];
        if (v->left || is_value(v->object)) {
            uint32_t id = ((Value *)v->object)->id;
            tg_mark(T, id);
            if (id < T->len && id > g->top)
                g->top = id;
        }
        for (uint32_t e = v->first; e < v->first + v->edges; e++)
            if (!g->v[g->edge[e]].held) {
                g->v[g->edge[e]].held = 1;
                g->stack[depth++] = g->edge[e];
            }
    }
}

/* A marked node with an owner: whatever its attributes reach is held. */
static uint32_t seen(void *context, uint32_t id)
{
    graph *g = context;
    uint32_t k = *find(g, HANDLE(T->owner[id]));
    g->top = 0;
    if (k)
        spread(g, k - 1);
    return g->top;
}

static int build(graph *g)
{
    for (uint32_t i = 0; i < T->len; i++) {
        Value *v = HANDLE(T->owner[i]);
        if (v && (v->dict || Py_TYPE((PyObject *)v) != tg_value_type) && enter(g, v, TG_LEFT(T->owner[i])) == TG_NONE)
            return -1;
    }
    if (!g->n)
        return 0;
    for (uint32_t k = 0; k < g->n; k++)
        if (walk(g, k))
            return -1;
    g->stack = tg_realloc(NULL, g->n * sizeof *g->stack);
    return g->stack ? 0 : -1;
}

/* Call a function of the gc module; -1 on error. */
static int gc_call(PyObject *gc, const char *name)
{
    PyObject *result = gc ? PyObject_CallMethod(gc, name, NULL) : NULL;
    int truth = result ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    return truth;
}

/* Mark every node that something outside the tape's own rules and attributes holds, with all it depends on. */
static void mark_held(void)
{
    PyObject *type, *value, *trace, *gc;
    graph g = {0};
    int collecting, failed;
    PyErr_Fetch(&type, &value, &trace);
    gc = PyImport_ImportModule("gc");
    collecting = gc_call(gc, "isenabled");
    g.get_referents = gc ? PyObject_GetAttrString(gc, "get_referents") : NULL;
    g.builtins = PyEval_GetBuiltins();
    failed = collecting < 0 || !g.get_referents || (collecting && gc_call(gc, "disable") < 0);
    failed = failed || build(&g);
    if (failed || !g.n)                 /* without memory for the question, every handle holds */
        tg_mark_owned(T);
    else {
        for (uint32_t i = 0; i < T->len; i++)
            if (TG_LIVE(T->owner[i]) && !*find(&g, T->owner[i]))
                tg_mark(T, i);
        for (uint32_t k = 0; k < g.n; k++) {
            Py_ssize_t count = g.v[k].left ? -1 : Py_REFCNT((PyObject *)g.v[k].object);
            if (count == 0 || count > g.v[k].inside)    /* 0: a handle on its way out, its weakref callbacks run */
                spread(&g, k);
        }
    }
    tg_mark_operands(T, failed || !g.n ? NULL : seen, &g);
    if (collecting > 0)
        gc_call(gc, "enable");
    Py_XDECREF(gc);
    Py_XDECREF(g.get_referents);
    free(g.v);
    free(g.edge);
    free(g.slot);
    free(g.stack);
    PyErr_Restore(type, value, trace);
}

/* ---- reclaim ---- */

typedef struct {
    Value *left;                /* memory left with nodes that went */
    Value **severed;            /* handles whose nodes went: only rules and attributes among themselves held them */
    size_t severed_len;
} dropped_owners;

static void dropped(void *context, void *owner)
{
    dropped_owners *gone = context;
    Value *v = HANDLE(owner);
    if (TG_LEFT(owner)) {
        v->weakrefs = (PyObject *)gone->left;
        gone->left = v;
    } else {
        Py_INCREF((PyObject *)v);
        v->id = TG_NONE;
        gone->severed[gone->severed_len++] = v;
    }
}

/* Slide the marked nodes down, or make them leaves first; nodes freed, or a code. Python code runs only afterwards. */
static int64_t slide(int64_t (*how)(tg_tape *, void (*)(void *, void *), void *))
{
    dropped_owners gone = {0};
    uint32_t before = T->len;
    size_t n = 0;
    int64_t code;
    for (uint32_t i = 0; i < T->len; i++)
        n += TG_LIVE(T->owner[i]) && !(T->op[i] & TG_MARK);
    if (n) {
        gone.severed = tg_realloc(NULL, n * sizeof *gone.severed);
        if (!gone.severed) {            /* keep them, then */
            tg_mark_owned(T);
            tg_mark_operands(T, NULL, NULL);
        }
    }
    code = how(T, dropped, &gone);
    for (uint32_t i = 0; i < T->len; i++)
        if (T->owner[i])
            HANDLE(T->owner[i])->id = i;
    tg_discard(gone.left);
    for (size_t k = 0; k < gone.severed_len; k++) {
        PyObject *dict = gone.severed[k]->dict;
        gone.severed[k]->dict = NULL;
        Py_XDECREF(dict);
        Py_DECREF(gone.severed[k]);
    }
    free(gone.severed);
    return code < 0 ? code : before > T->len ? before - T->len : 0;
}

int64_t tg_reclaim(void)
{
    if (T->sweep || T->recorders)       /* their ids must stay */
        return 0;
    tg_pop_dead();
    mark_held();
    return slide(tg_slide);
}

int tg_make_room(uint64_t nodes, uint64_t words)
{
    int code;
    if (tg_note_place())
        return 0;
    if (T->recorders && T->len + nodes <= T->cap && T->pool_len + words <= T->pool_cap)
        return 1;                       /* what every node that is recorded asks for */
    if (tg_reclaim_due(T, nodes, words) && tg_reclaim() < 0)
        tg_set_reclaim_point(T);        /* no memory for it: there may still be some to grow, so ask again later */
    code = tg_grow(T, nodes, words);
    if (code)
        tg_raise(code, TG_LEAF, 0.0, 0.0);
    return !code;
}

/* No rule and no symbol is left to a leaf. Letting go of rules runs Python code: their handles are held meanwhile. */
int64_t tg_forget_history(void)
{
    PyObject *special = PyList_New(0);
    int64_t code = special ? TG_OK : TG_MEMORY;
    for (uint32_t i = 0; !code && i < T->len; i++) {
        Value *v = HANDLE(T->owner[i]);
        if (TG_LIVE(T->owner[i]) && v->dict && Py_REFCNT((PyObject *)v) > 0 && PyList_Append(special, (PyObject *)v))
            code = TG_RAISED;
    }
    if (!code) {
        tg_mark_owned(T);
        code = slide(tg_forget);
    }
    for (Py_ssize_t k = 0; code >= 0 && k < PyList_Size(special); k++) {
        Value *v = (Value *)PyList_GetItem(special, k);
        if (tg_set_attribute(v, tg_rule_name, NULL) || tg_set_attribute(v, tg_op_name, NULL))
            code = TG_RAISED;
    }
    Py_XDECREF(special);
    return code;
}
