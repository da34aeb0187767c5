"""A closure engine to compare with: one object a node, sorted without recursion, fresh adjoints for each sweep.

Partials read the operands' current data, and those written in terms of y the node's own, as the tape does.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

SMALLEST_NORMAL = 2.2250738585072014e-308


class Operation(NamedTuple):
    """A row of the table in plain Python: the value on floats, its partials by a, b and the result y."""

    primal: Callable[..., float]
    da: Callable[[float, float, float], float]
    db: Callable[[float, float, float], float] = lambda a, b, y: 0.0


def div(a, b):
    """IEEE division, for slopes may be infinite."""
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def power(a, b):
    if a < 0 and not math.isinf(a) and math.isfinite(b) and b % 1:
        raise ValueError(f"{a} ** {b} is complex")
    y = a**b
    if math.isinf(y) and math.isfinite(a) and math.isfinite(b):  # PyPy squares by multiplying, which does not raise
        raise OverflowError(f"{a} ** {b}")
    return y


def power_da(a, b, y):
    if b == 0:
        return 0.0
    try:
        return b * math.pow(a, b - 1)
    except OverflowError:
        return b * math.copysign(math.inf, a if (b - 1) % 2 == 1 else 1.0)
    except ValueError:
        return b * math.copysign(math.inf, a if (b - 1) % 2 == 1 else 1.0) if a == 0 else math.nan


def power_db(a, b, y):
    if a == 0:
        return 0.0 if b >= 0 else y * -math.inf
    return y * math.log(a) if a > 0 else math.nan


def unbounded(function):
    """A function of math that gives infinity where math raises OverflowError; its argument's sign where it is odd."""

    def f(x):
        try:
            return function(x)
        except OverflowError:
            return math.copysign(math.inf, function(math.copysign(1.0, x)))

    return f


def root(x):
    return math.sqrt(x) if x >= 0 else math.nan


def sigmoid(a):
    e = math.exp(-abs(a))
    return (1.0 if a >= 0 else e) / (1.0 + e)


def greater(a, b):
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def smaller(a, b):
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


def step(a, b):
    """The slope of max by a: ties pass half each."""
    return 0.5 if a == b else float(a > b)


def share(a, y):
    return a / y if y else 0.0


def sign(a):
    return math.copysign(1.0, a) if a else 0.0


def logsumexp(xs):
    m = max(xs)
    return m if math.isinf(m) else m + math.log(_total(xs, m))


def _total(xs, m):
    """Added one after the other, as C does: log(1 + tiny) makes 1e-10 of a last bit."""
    total = 0.0
    for x in xs:
        total += math.exp(x - m)
    return total


def cross_entropy(xs, target):
    m = max(xs)
    if math.isinf(m) or math.isnan(m):
        return logsumexp(xs) - xs[target]
    return math.log(_total(xs, m)) - (xs[target] - m)


def mse(xs, ys):
    return math.fsum((x - y) ** 2 for x, y in zip(xs, ys)) / len(xs)


def hinge(xs, ys):
    return math.fsum(max(0.0, 1.0 - y * x) for x, y in zip(xs, ys)) / len(xs)


def flat(primal):
    """An operation without slope."""
    return Operation(lambda *operands: float(primal(*operands)), lambda a, b, y: 0.0)


def whole(function):
    """A function of math that gives an integer, as a float with the sign of its argument; infinity and nan stay."""
    return lambda x: math.copysign(function(x), x) if math.isfinite(x) else x


def cbrt(x):
    if not x or not math.isfinite(x):
        return x
    y = math.copysign(abs(x) ** (1 / 3), x)
    return y - (y * y * y - x) / (3 * y * y) if 1e-290 < abs(x) < 1e290 else y


def digamma(x):
    """By recurrence and the asymptotic series."""
    if math.isinf(x):
        return x if x > 0 else math.nan
    if x <= 0:
        return math.nan if x == math.floor(x) else digamma(1 - x) - math.pi / math.tan(math.pi * x)
    below = 0.0
    while x < 12:
        below, x = below + 1 / x, x + 1
    series = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
    return math.log(x) - 0.5 / x - math.fsum(c / x ** (2 * k + 2) for k, c in enumerate(series)) - below


def density(x):
    return math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def ndtr(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def mills(x):
    """log(ndtr(x)) and its slope: far out by the continued fraction of Laplace."""
    if math.isnan(x):
        return x, x
    if x == -math.inf:
        return x, math.inf
    if x > -5:
        return math.log(ndtr(x)) if x < 0 else math.log1p(-ndtr(-x)), density(x) / ndtr(x)
    slope = -x
    for k in range(60, 0, -1):
        slope = -x + k / slope
    return -0.5 * x * x - math.log(slope * math.sqrt(2 * math.pi)), slope


def ndtri(p):
    if math.isnan(p):
        return p
    if not 0 < p < 1:
        raise ValueError(f"ndtri({p})")
    if p > 0.5:
        return -ndtri(1 - p)
    y = 0.0 if p > 1e-3 else -math.sqrt(-2 * math.log(p))
    for _ in range(100):
        y -= (mills(y)[0] - math.log(p)) / mills(y)[1]
    return y


def logit(p):
    if math.isnan(p):
        return p
    if not 0 < p < 1:
        raise ValueError(f"logit({p})")
    return 2 * math.atanh(2 * p - 1) if 0.25 < p < 0.75 else math.log(p) - math.log1p(-p)


def log(x):
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def xlogy(a, b):
    if math.isnan(a) or math.isnan(b):
        return math.nan
    if not a:
        return 0.0
    y = a * log(b)
    if math.isnan(y) or (math.isinf(y) and math.isfinite(a) and math.isfinite(b)):
        raise ValueError(f"xlogy({a}, {b})")
    return y


def logaddexp(a, b):
    m = greater(a, b)
    return m + math.log1p(math.exp(-abs(a - b))) if math.isfinite(m) else m


def betaln(a, b):
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


OPERATIONS = {
    "add": Operation(operator.add, lambda a, b, y: 1.0, lambda a, b, y: 1.0),
    "sub": Operation(operator.sub, lambda a, b, y: 1.0, lambda a, b, y: -1.0),
    "mul": Operation(operator.mul, lambda a, b, y: b, lambda a, b, y: a),
    "truediv": Operation(operator.truediv, lambda a, b, y: div(1.0, b), lambda a, b, y: div(div(-a, b), b)),
    "pow": Operation(power, power_da, power_db),
    "neg": Operation(operator.neg, lambda a, b, y: -1.0),
    "tanh": Operation(math.tanh, lambda a, b, y: 1.0 - y * y),
    "relu": Operation(lambda a: 0.0 if a < 0 else a, lambda a, b, y: float(y > 0)),
    "exp": Operation(math.exp, lambda a, b, y: y),
    "log": Operation(math.log, lambda a, b, y: div(1.0, a)),
    "sqrt": Operation(math.sqrt, lambda a, b, y: div(0.5, y)),
    "sin": Operation(math.sin, lambda a, b, y: math.cos(a)),
    "cos": Operation(math.cos, lambda a, b, y: -math.sin(a)),
    "tan": Operation(math.tan, lambda a, b, y: 1.0 + y * y),
    "asin": Operation(math.asin, lambda a, b, y: div(1.0, root((1.0 - a) * (1.0 + a)))),
    "acos": Operation(math.acos, lambda a, b, y: div(-1.0, root((1.0 - a) * (1.0 + a)))),
    "atan": Operation(math.atan, lambda a, b, y: 1.0 / (1.0 + a * a)),
    "sinh": Operation(math.sinh, lambda a, b, y: unbounded(math.cosh)(a)),
    "cosh": Operation(math.cosh, lambda a, b, y: unbounded(math.sinh)(a)),
    "sigmoid": Operation(sigmoid, lambda a, b, y: y * (1.0 - y)),
    "softplus": Operation(lambda a: max(a, 0.0) + math.log1p(math.exp(-abs(a))), lambda a, b, y: sigmoid(a)),
    "abs": Operation(abs, lambda a, b, y: sign(a)),
    "max": Operation(greater, lambda a, b, y: step(a, b), lambda a, b, y: step(b, a)),
    "min": Operation(smaller, lambda a, b, y: step(b, a), lambda a, b, y: step(a, b)),
    "expm1": Operation(math.expm1, lambda a, b, y: unbounded(math.exp)(a)),
    "log1p": Operation(math.log1p, lambda a, b, y: div(1.0, 1.0 + a)),
    "log2": Operation(math.log2, lambda a, b, y: div(1.0, a * math.log(2.0))),
    "log10": Operation(math.log10, lambda a, b, y: div(1.0, a * math.log(10.0))),
    "erf": Operation(math.erf, lambda a, b, y: 2.0 / math.sqrt(math.pi) * math.exp(-a * a)),
    "atan2": Operation(math.atan2, lambda a, b, y: div(b, a * a + b * b), lambda a, b, y: div(-a, a * a + b * b)),
    "hypot": Operation(math.hypot, lambda a, b, y: share(a, y), lambda a, b, y: share(b, y)),
    "less": flat(operator.lt),
    "less_equal": flat(operator.le),
    "greater": flat(operator.gt),
    "greater_equal": flat(operator.ge),
    "equal": flat(operator.eq),
    "not_equal": flat(operator.ne),
    "sign": flat(lambda a: a if math.isnan(a) else sign(a)),
    "asinh": Operation(math.asinh, lambda a, b, y: 1.0 / math.hypot(a, 1.0)),
    "acosh": Operation(math.acosh, lambda a, b, y: div(1.0, root(a - 1.0) * root(a + 1.0))),
    "atanh": Operation(math.atanh, lambda a, b, y: div(1.0, (1.0 - a) * (1.0 + a))),
    "cbrt": Operation(cbrt, lambda a, b, y: div(1.0, 3.0 * y * y)),
    "erfc": Operation(math.erfc, lambda a, b, y: -2.0 / math.sqrt(math.pi) * math.exp(-a * a)),
    "gamma": Operation(math.gamma, lambda a, b, y: y * digamma(a)),
    "lgamma": Operation(math.lgamma, lambda a, b, y: digamma(a)),
    "floor": flat(whole(math.floor)),
    "ceil": flat(whole(math.ceil)),
    "trunc": flat(whole(math.trunc)),
    "rint": flat(whole(round)),
    "fmod": Operation(math.fmod, lambda a, b, y: 1.0, lambda a, b, y: -whole(round)(div(a - y, b))),
    "remainder": Operation(math.remainder, lambda a, b, y: 1.0, lambda a, b, y: -whole(round)(div(a - y, b))),
    "mod": Operation(operator.mod, lambda a, b, y: 1.0, lambda a, b, y: -whole(round)(div(a - y, b))),
    "floordiv": flat(operator.floordiv),
    "copysign": Operation(math.copysign, lambda a, b, y: sign(a) * math.copysign(1.0, b)),
    "ndtr": Operation(ndtr, lambda a, b, y: density(a)),
    "log_ndtr": Operation(lambda a: mills(a)[0], lambda a, b, y: mills(a)[1]),
    "ndtri": Operation(ndtri, lambda a, b, y: div(1.0, a * mills(y)[1])),
    "logit": Operation(logit, lambda a, b, y: div(1.0, a * (1.0 - a))),
    "expit": Operation(sigmoid, lambda a, b, y: y * sigmoid(-a)),
    "xlogy": Operation(xlogy, lambda a, b, y: log(b), lambda a, b, y: div(a, b) if a else 0.0),
    "logaddexp": Operation(
        logaddexp, lambda a, b, y: sigmoid(a - b), lambda a, b, y: sigmoid(b - a)
    ),
    "betaln": Operation(
        betaln, lambda a, b, y: digamma(a) - digamma(a + b), lambda a, b, y: digamma(b) - digamma(a + b)
    ),
}
BINARY = (
    "add", "sub", "mul", "truediv", "pow", "max", "min", "atan2", "hypot", "less", "less_equal", "greater",
    "greater_equal", "equal", "not_equal", "fmod", "remainder", "mod", "floordiv", "copysign", "xlogy", "logaddexp",
    "betaln",
)  # fmt: skip
# What jumps, where rounding decides, and what plain Python has not to the last digits everywhere.
_DELICATE = {
    "less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "sign", "floor", "ceil", "trunc", "rint",
    "fmod", "remainder", "mod", "floordiv", "gamma", "lgamma", "betaln", "ndtr", "log_ndtr", "ndtri", "logit", "xlogy",
}  # fmt: skip
UNARY = tuple(name for name in OPERATIONS if name not in BINARY)
STEADY_UNARY, STEADY_BINARY = (tuple(x for x in names if x not in _DELICATE) for names in (UNARY, BINARY))
LOSSES = ("cross_entropy", "mse", "hinge")
MANY = ("dot", "sum", "logsumexp", "where", *LOSSES)
OPERATORS = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "pow", "neg", "abs", "mod", "floordiv")
}


def apply(name, *operands):
    """The operation of that name on Values, written as a program would write it."""
    return OPERATORS[name](*operands) if name in OPERATORS else getattr(operands[0], name)(*operands[1:])


def same(got, expected, rel=1e-12):
    """Equal down to the sign of zero, or both nan, or within the relative tolerance."""
    if math.isnan(got) or math.isnan(expected):
        return math.isnan(got) and math.isnan(expected)
    if got == 0 == expected:
        return math.copysign(1.0, got) == math.copysign(1.0, expected)
    return math.isclose(got, expected, rel_tol=rel)


def flush(x):
    """Adjoints below the smallest normal number count as 0."""
    return 0.0 if abs(x) < SMALLEST_NORMAL else x


class Node:
    """A number with its history; `slack` bounds what rounding may do to `grad`."""

    serial = itertools.count()

    def __init__(self, data, operands=(), partials=lambda node: ()):
        self.data, self.grad, self.slack = float(data), 0.0, 0.0
        self.operands, self.partials, self.id = operands, partials, next(Node.serial)

    def backward(self, seed=1.0):
        """Adds d(self)/d(node) to the grad of every node below, and sets the grad of self to the seed."""
        below, stack = {self}, [self]
        while stack:
            fresh = set(stack.pop().operands) - below
            below |= fresh
            stack.extend(fresh)
        adjoint = dict.fromkeys(below, 0.0)
        size = dict.fromkeys(below, 0.0)  # the same sum over absolute values
        adjoint[self] = size[self] = seed
        for node in sorted(below, key=lambda node: -node.id):
            if adjoint[node] == 0:
                continue
            for operand, partial in zip(node.operands, node.partials(node)):
                adjoint[operand] = flush(adjoint[operand] + flush(adjoint[node] * partial))
                size[operand] += abs(size[node] * partial)
        for node in below:
            node.grad += adjoint[node]
            node.slack += 1e-12 * abs(size[node])
        self.grad, self.slack = seed, 0.0


def record(name, a, b=None):
    """A unary or binary operation of the table, on Nodes."""
    op = OPERATIONS[name]
    if b is None:
        return Node(op.primal(a.data), (a,), lambda y: (op.da(a.data, 0.0, y.data),))
    return Node(
        op.primal(a.data, b.data),
        (a, b),
        lambda y: (op.da(a.data, b.data, y.data), op.db(a.data, b.data, y.data)),
    )


def dot(xs, ys, bias=None):
    """bias + x*y + ..., added from left to right, as one node."""
    data = bias.data if bias else 0.0
    for x, y in zip(xs, ys):
        data += x.data * y.data
    tail = () if bias is None else (bias,)
    ones = [1.0] * len(tail)
    return Node(data, (*xs, *ys, *tail), lambda _: [y.data for y in ys] + [x.data for x in xs] + ones)


def total(xs):
    """The sum of xs as one node."""
    data = 0.0
    for x in xs:
        data += x.data
    return Node(data, tuple(xs), lambda _: [1.0] * len(xs))


def logsumexp_node(xs):
    """log(exp(x) + ...) as one node."""
    exp = unbounded(math.exp)
    return Node(logsumexp([x.data for x in xs]), tuple(xs), lambda y: [exp(x.data - y.data) for x in xs])


def cross_entropy_node(xs, target):
    """-log(softmax(xs)[target]) as one node."""
    exp, right = unbounded(math.exp), xs[target]

    def partials(_):
        total = logsumexp([x.data for x in xs])
        return [*(exp(x.data - total) for x in xs), -1.0]

    return Node(cross_entropy([x.data for x in xs], target), (*xs, right), partials)


def mse_node(xs, ys):
    """The mean of (x - y) ** 2 as one node."""

    def partials(_):
        slopes = [2.0 / len(xs) * (x.data - y.data) for x, y in zip(xs, ys)]
        return [*slopes, *(-slope for slope in slopes)]

    return Node(mse([x.data for x in xs], [y.data for y in ys]), (*xs, *ys), partials)


def hinge_node(xs, ys):
    """The mean of max(0, 1 - y * x) as one node."""

    def partials(_):
        wrong = [(x.data, y.data) if y.data * x.data < 1 else (0.0, 0.0) for x, y in zip(xs, ys)]
        return [*(-y / len(xs) for _, y in wrong), *(-x / len(xs) for x, _ in wrong)]

    return Node(hinge([x.data for x in xs], [y.data for y in ys]), (*xs, *ys), partials)
