"""Problems of the CUTEst collection as plain functions of a list of numbers, with formulas as the literature has them,
some of them smaller and with rounded data: their objectives, without bounds.

N. I. M. Gould, D. Orban, Ph. L. Toint, "CUTEst: a constrained and unconstrained testing environment with safe threads
for mathematical optimization", Computational Optimization and Applications 60 (2015)."""

from __future__ import annotations

from typing import NamedTuple

from tapegrad import math


class Problem(NamedTuple):
    """A function, where it starts, where it is least and how much there (None: not known in closed form), and how many
    nonzeros its Hessian has (None: not said)."""

    f: object
    start: list
    least: list | None = None
    optimum: float | None = None
    nonzeros: int | None = None


PROBLEMS: dict[str, Problem] = {}


def problem(name, start, least=None, optimum=None, nonzeros=None):
    def put(f):
        PROBLEMS[name] = Problem(f, list(map(float, start)), least, optimum, nonzeros)
        return f

    return put


def sq(x):
    return x * x


N = 24


# ---- two to six unknowns ----


@problem("ROSENBR", [-1.2, 1.0], [1.0, 1.0], 0.0, 4)
def _(x):
    return 100 * sq(x[1] - sq(x[0])) + sq(1 - x[0])


@problem("BEALE", [1.0, 1.0], [3.0, 0.5], 0.0, 4)
def _(x):
    return sum(sq(c - x[0] * (1 - x[1] ** k)) for k, c in ((1, 1.5), (2, 2.25), (3, 2.625)))


@problem("BRKMCC", [2.0, 2.0], nonzeros=4)
def _(x):
    p = -0.25 * sq(x[0]) - sq(x[1]) + 1
    return sq(x[0] - 2) + sq(x[1] - 1) + 0.04 / p + 5 * sq(x[0] - 2 * x[1] + 1)


@problem("CLIFF", [0.0, -1.0], nonzeros=4)
def _(x):
    return sq(0.01 * x[0] - 0.03) - x[0] + x[1] + math.exp(20 * (x[0] - x[1]))


@problem("CUBE", [-1.2, 1.0], [1.0, 1.0], 0.0, 4)
def _(x):
    return sq(x[0] - 1) + 100 * sq(x[1] - x[0] ** 3)


@problem("DENSCHNA", [1.0, 1.0], [0.0, 0.0], 0.0, 4)
def _(x):
    return x[0] ** 4 + sq(x[0] + x[1]) + sq(math.exp(x[1]) - 1)


@problem("DENSCHNB", [1.0, 1.0], [2.0, -1.0], 0.0, 4)
def _(x):
    return sq(x[0] - 2) + sq((x[0] - 2) * x[1]) + sq(x[1] + 1)


@problem("DENSCHNC", [2.0, 3.0], [1.0, 1.0], 0.0, 4)
def _(x):
    return sq(-2 + sq(x[0]) + sq(x[1])) + sq(-2 + math.exp(x[0] - 1) + x[1] ** 3)


@problem("DENSCHND", [10.0, 10.0, 10.0], nonzeros=9)
def _(x):
    return sq(sq(x[0]) + x[1] ** 3 - x[2] ** 4) + sq(2 * x[0] * x[1] * x[2]) + sq(
        2 * x[0] * x[1] - 3 * x[1] * x[2] + x[0] * x[2]
    )


@problem("DENSCHNE", [2.0, 3.0, -8.0], [0.0, 0.0, 0.0], 0.0, 3)
def _(x):
    return sq(x[0]) + sq(x[1] + sq(x[1])) + sq(-1 + math.exp(x[2]))


@problem("DENSCHNF", [2.0, 0.0], [1.0, 1.0], 0.0, 4)
def _(x):
    return sq(2 * sq(x[0] + x[1]) + sq(x[0] - x[1]) - 8) + sq(5 * sq(x[0]) + sq(x[1] - 3) - 9)


@problem("HIMMELBG", [0.5, 0.5], [0.0, 0.0], 0.0, 4)
def _(x):
    return math.exp(-x[0] - x[1]) * (2 * sq(x[0]) + 3 * sq(x[1]))


@problem("HIMMELBH", [0.0, 2.0], [1.0, 1.0], -1.0, 2)
def _(x):
    return -3 * x[0] - 2 * x[1] + 2 + x[0] ** 3 + sq(x[1])


@problem("JENSMP", [0.3, 0.4], nonzeros=4)
def _(x):
    return sum(sq(2 + 2 * i - (math.exp(i * x[0]) + math.exp(i * x[1]))) for i in range(1, 11))


@problem("MARATOSB", [1.1, 0.1], nonzeros=4)
def _(x):
    return x[0] + 1e6 * sq(sq(x[0]) + sq(x[1]) - 1)


@problem("SINEVAL", [4.712389, -1.0], [0.0, 0.0], 0.0, 4)
def _(x):
    return 1e4 * sq(x[1] - math.sin(x[0])) + 0.25 * sq(x[0])


@problem("SISSER", [1.0, 0.1], [0.0, 0.0], 0.0, 4)
def _(x):
    return 3 * x[0] ** 4 - 2 * sq(x[0] * x[1]) + 3 * x[1] ** 4


@problem("ZANGWIL2", [3.0, 8.0], [4.0, 9.0], -18.2, 4)
def _(x):
    return (16 * sq(x[0]) + 16 * sq(x[1]) - 8 * x[0] * x[1] - 56 * x[0] - 256 * x[1] + 991) / 15


@problem("HUMPS", [-506.0, -506.2], [0.0, 0.0], 0.0, 4)
def _(x):
    return 0.05 * (sq(x[0]) + sq(x[1])) + sq(math.sin(20 * x[0]) * math.sin(20 * x[1]))


@problem("BOX3", [0.0, 10.0, 1.0], [1.0, 10.0, 1.0], 0.0, 9)
def _(x):
    return sum(
        sq(math.exp(-t * x[0]) - math.exp(-t * x[1]) - x[2] * (math.exp(-t) - math.exp(-10 * t)))
        for t in (k / 10 for k in range(1, 11))
    )


@problem("ENGVAL2", [1.0, 2.0, 0.0], [0.0, 0.0, 1.0], 0.0, 9)
def _(x):
    a, b, c = x
    s = a * a + b * b
    return (
        sq(s + sq(c) - 1) + sq(s + sq(c - 2) - 1) + sq(a + b + c - 1) + sq(a + b - c + 1)
        + sq(3 * b * b + a**3 + sq(5 * c - a + 1) - 36)
    )  # fmt: skip


@problem("BIGGS6", [1.0, 2.0, 1.0, 1.0, 1.0, 1.0], [1.0, 10.0, 1.0, 5.0, 4.0, 3.0], 0.0)
def _(x):
    total = 0.0
    for i in range(1, 14):
        t = 0.1 * i
        y = math.exp(-t) - 5 * math.exp(-10 * t) + 3 * math.exp(-4 * t)
        total = total + sq(
            x[2] * math.exp(-t * x[0]) - x[3] * math.exp(-t * x[1]) + x[5] * math.exp(-t * x[4]) - y
        )
    return total


@problem("KOWOSB", [0.25, 0.39, 0.415, 0.39], nonzeros=16)
def _(x):
    y = (0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246)
    u = (4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)
    return sum(sq(a - x[0] * (b * b + b * x[1]) / (b * b + b * x[2] + x[3])) for a, b in zip(y, u))


# ---- as many as are asked for ----


@problem("ARWHEAD", [1.0] * N, [*[1.0] * (N - 1), 0.0], 0.0, 3 * N - 2)
def _(x):
    return sum(sq(sq(a) + sq(x[-1])) - 4 * a + 3 for a in x[:-1])


@problem("BDQRTIC", [1.0] * N, nonzeros=9 * (N - 1) - 11)
def _(x):
    return sum(
        sq(-4 * x[i] + 3)
        + sq(sq(x[i]) + 2 * sq(x[i + 1]) + 3 * sq(x[i + 2]) + 4 * sq(x[i + 3]) + 5 * sq(x[-1]))
        for i in range(len(x) - 4)
    )


@problem("WOODS", [-3.0, -1.0] * (N // 2), [1.0] * N, 0.0, N // 4 * 10)
def _(x):
    return sum(
        100 * sq(x[i + 1] - sq(x[i])) + sq(1 - x[i]) + 90 * sq(x[i + 3] - sq(x[i + 2])) + sq(1 - x[i + 2])
        + 10 * sq(x[i + 1] + x[i + 3] - 2) + 0.1 * sq(x[i + 1] - x[i + 3])
        for i in range(0, len(x), 4)
    )  # fmt: skip


@problem("BROYDN3D", [-1.0] * N, nonzeros=5 * N - 6)
def _(x):
    y = [0.0, *x, 0.0]
    return sum(sq((3 - 2 * y[i]) * y[i] - y[i - 1] - 2 * y[i + 1] + 1) for i in range(1, len(y) - 1))


@problem("BROYDN7D", [1.0] * N)
def _(x):
    n, y = len(x), [0.0, *x, 0.0]
    return sum(
        abs(y[i - 1] - y[i] * (3 - y[i] / 2) + 2 * y[i + 1] - 1) ** (7 / 3) for i in range(1, n + 1)
    ) + sum(abs(x[i] + x[i + n // 2]) ** (7 / 3) for i in range(n // 2))


@problem("BRYBND", [-1.0] * N)
def _(x):
    total = 0.0
    for i, a in enumerate(x):
        near = [x[j] for j in range(max(0, i - 5), min(len(x), i + 2)) if j != i]
        total = total + sq(a * (2 + 5 * sq(a)) + 1 - sum(b * (1 + b) for b in near))
    return total


@problem("CHNROSNB", [-1.0] * N, [1.0] * N, 0.0, 3 * N - 2)
def _(x):
    return sum(100 * (1.0 + i % 3) * sq(x[i] - sq(x[i + 1])) + sq(x[i + 1] - 1) for i in range(len(x) - 1))


@problem("COSINE", [1.0] * N, nonzeros=3 * N - 2)
def _(x):
    return sum(math.cos(-0.5 * x[i + 1] + sq(x[i])) for i in range(len(x) - 1))


@problem("CRAGGLVY", [1.0, *[2.0] * (N - 1)], nonzeros=3 * N - 2)
def _(x):
    return sum(
        (math.exp(a) - b) ** 4 + 100 * (b - c) ** 6 + (math.tan(c - d) + c - d) ** 4 + a**8 + sq(d - 1)
        for a, b, c, d in (x[i : i + 4] for i in range(0, len(x) - 2, 2))
    )


@problem("CURLY10", [0.0001 * i / (N + 1) for i in range(1, N + 1)])
def _(x):
    sums = [sum(x[i : i + 11]) for i in range(len(x))]
    return sum(q * (q * (q * q - 20) - 0.1) for q in sums)


def dixmaan(x, alpha, beta, gamma, delta, k1, k2, k3, k4):
    n, m = len(x), len(x) // 3
    w = [(i + 1) / n for i in range(n)]
    f = 1.0 + sum(alpha * sq(x[i]) * w[i] ** k1 for i in range(n))
    if beta:
        f = f + sum(beta * sq(x[i]) * sq(x[i + 1] + sq(x[i + 1])) * w[i] ** k2 for i in range(n - 1))
    f = f + sum(gamma * sq(x[i]) * x[i + m] ** 4 * w[i] ** k3 for i in range(2 * m))
    return f + sum(delta * x[i] * x[i + 2 * m] * w[i] ** k4 for i in range(m))


for letters, powers in (("ABCD", (0, 0, 0, 0)), ("EFGH", (1, 0, 0, 1)), ("IJKL", (2, 0, 0, 2)), ("MNOP", (2, 1, 1, 2))):
    sizes = ((0.0, 0.125, 0.125), (0.0625, 0.0625, 0.0625), (0.125, 0.125, 0.125), (0.26, 0.26, 0.26))
    for letter, (beta, gamma, delta) in zip(letters, sizes):
        M = N // 3
        problem(
            "DIXMAAN" + letter, [2.0] * N, [0.0] * N, 1.0, N + 6 * M + (2 * (N - 1) if beta else 0),
        )(lambda x, c=(1.0, beta, gamma, delta, *powers): dixmaan(x, *c))  # fmt: skip


@problem("DQDRTIC", [3.0] * N, [0.0] * N, 0.0, N)
def _(x):
    return sum(sq(x[i]) + 100 * sq(x[i + 1]) + 100 * sq(x[i + 2]) for i in range(len(x) - 2))


@problem("DQRTIC", [2.0] * N, [float(i) for i in range(1, N + 1)], 0.0, N)
def _(x):
    return sum((a - i) ** 4 for i, a in enumerate(x, 1))


@problem("EDENSCH", [8.0] * N, nonzeros=3 * N - 2)
def _(x):
    return 16 + sum(
        (x[i] - 2) ** 4 + sq(x[i] * x[i + 1] - 2 * x[i + 1]) + sq(x[i + 1] + 1) for i in range(len(x) - 1)
    )


@problem("EG2", [0.1] * N, nonzeros=3 * N - 4)
def _(x):
    return sum(math.sin(x[0] + sq(a) - 1) for a in x[:-1]) + 0.5 * math.sin(sq(x[-1]))


@problem("ENGVAL1", [2.0] * N, nonzeros=3 * N - 2)
def _(x):
    return sum(sq(sq(x[i]) + sq(x[i + 1])) - 4 * x[i] + 3 for i in range(len(x) - 1))


@problem("EXTROSNB", [-1.0] * N, [1.0] * N, 0.0, 3 * N - 2)
def _(x):
    return sq(x[0] - 1) + sum(100 * sq(x[i] - sq(x[i - 1])) for i in range(1, len(x)))


@problem("FLETCBV2", [i / (N + 1) for i in range(1, N + 1)], nonzeros=3 * N - 2)
def _(x):
    h = 1 / (len(x) + 1)
    return (
        0.5 * (sq(x[0]) + sum(sq(x[i] - x[i + 1]) for i in range(len(x) - 1)) + sq(x[-1]))
        - h * h * sum(2 * a + math.cos(a) for a in x) - x[-1]
    )  # fmt: skip


@problem("FLETCHCR", [0.0] * N, nonzeros=3 * N - 2)
def _(x):
    return sum(100 * sq(x[i + 1] - x[i] + 1 - sq(x[i])) for i in range(len(x) - 1))


@problem("FREUROTH", [0.5, -2.0, *[0.0] * (N - 2)], nonzeros=3 * N - 2)
def _(x):
    return sum(
        sq(x[i] + x[i + 1] * ((5 - x[i + 1]) * x[i + 1] - 2) - 13)
        + sq(x[i] + x[i + 1] * ((1 + x[i + 1]) * x[i + 1] - 14) - 29)
        for i in range(len(x) - 1)
    )


@problem("GENHUMPS", [-506.0, *[506.2] * (N - 1)], [0.0] * N, 0.0, 3 * N - 2)
def _(x):
    return sum(
        sq(math.sin(20 * x[i]) * math.sin(20 * x[i + 1])) + 0.05 * (sq(x[i]) + sq(x[i + 1])) for i in range(len(x) - 1)
    )


@problem("GENROSE", [i / (N + 1) for i in range(1, N + 1)], [1.0] * N, 1.0, 3 * N - 2)
def _(x):
    return 1 + sum(100 * sq(x[i] - sq(x[i - 1])) + sq(x[i] - 1) for i in range(1, len(x)))


@problem("HILBERTA", [1.0] * 6, [0.0] * 6, 0.0, 36)
def _(x):
    return sum(x[i] * x[j] / (i + j + 1) for i in range(len(x)) for j in range(len(x)))


@problem("INDEF", [i / (N + 1) for i in range(1, N + 1)])
def _(x):
    n = len(x)
    return sum(100 * math.sin(0.01 * a) for a in x) + 0.5 * sum(
        math.cos(2 * x[i] - x[-1] - x[0]) for i in range(1, n - 1)
    )


@problem("LIARWHD", [4.0] * N, [1.0] * N, 0.0, 3 * N - 2)
def _(x):
    return sum(4 * sq(sq(a) - x[0]) + sq(a - 1) for a in x)


@problem("MOREBV", [0.5] * N, nonzeros=5 * N - 6)
def _(x):
    h, y = 1 / (len(x) + 1), [0.0, *x, 0.0]
    return sum(
        sq(2 * y[i] - y[i - 1] - y[i + 1] + h * h / 2 * (y[i] + i * h + 1) ** 3) for i in range(1, len(y) - 1)
    )


@problem("NONCVXU2", [float(i) for i in range(1, N + 1)])
def _(x):
    n = len(x)
    terms = [x[i] + x[(3 * i + 1) % n] + x[(7 * i + 5) % n] for i in range(n)]
    return sum(sq(t) + 4 * math.cos(t) for t in terms)


@problem("NONCVXUN", [float(i) for i in range(1, N + 1)])
def _(x):
    n = len(x)
    terms = [x[i] + x[(2 * i + 1) % n] + x[(3 * i + 2) % n] for i in range(n)]
    return sum(sq(t) + 4 * math.cos(t) for t in terms)


@problem("NONDIA", [-1.0] * N, [1.0] * N, 0.0)
def _(x):
    return sq(x[0] - 1) + sum(100 * sq(x[0] - sq(x[i - 1])) for i in range(1, len(x)))


@problem("NONDQUAR", [1.0, -1.0] * (N // 2), [0.0] * N, 0.0)
def _(x):
    return sq(x[0] - x[1]) + sum((x[i] + x[i + 1] + x[-1]) ** 4 for i in range(len(x) - 2)) + sq(x[-2] + x[-1])


@problem("NONSCOMP", [3.0] * N, [1.0] * N, 0.0, 3 * N - 2)
def _(x):
    return sq(x[0] - 1) + sum(4 * sq(x[i] - sq(x[i - 1])) for i in range(1, len(x)))


@problem("PENALTY1", [float(i) for i in range(1, 9)], nonzeros=64)
def _(x):
    return sum(1e-5 * sq(a - 1) for a in x) + sq(sum(sq(a) for a in x) - 0.25)


@problem("POWELLSG", [3.0, -1.0, 0.0, 1.0] * (N // 4), [0.0] * N, 0.0, N // 4 * 12)
def _(x):
    return sum(
        sq(a + 10 * b) + 5 * sq(c - d) + (b - 2 * c) ** 4 + 10 * (a - d) ** 4
        for a, b, c, d in (x[i : i + 4] for i in range(0, len(x), 4))
    )


@problem("POWER", [1.0] * N, [0.0] * N, 0.0, N)
def _(x):
    return sum(sq(i * a) for i, a in enumerate(x, 1))


@problem("SCHMVETT", [0.5] * N, nonzeros=5 * N - 6)
def _(x):
    return sum(
        -1 / (1 + sq(a - b)) - math.sin((math.pi * b + c) / 2) - math.exp(-sq((a + c) / b - 2))
        for a, b, c in (x[i : i + 3] for i in range(len(x) - 2))
    )


@problem("SINQUAD", [0.1] * N)
def _(x):
    return (x[0] - 1) ** 4 + sum(
        sq(math.sin(a - x[-1]) - sq(x[0]) + sq(a)) for a in x[1:-1]
    ) + sq(sq(x[-1]) - sq(x[0]))


@problem("SPARSINE", [0.5] * N, [0.0] * N, 0.0)
def _(x):
    n = len(x)
    return sum(
        0.5 * (i + 1) * sq(sum(math.sin(x[(k * i + k - 1) % n]) for k in (1, 2, 3, 5, 7, 11)))
        for i in range(n)
    )


@problem("SPARSQUR", [0.5] * N, [0.0] * N, 0.0)
def _(x):
    n = len(x)
    return sum(
        0.125 * (i + 1) * sq(sum(sq(x[(k * i + k - 1) % n]) for k in (1, 2, 3, 5, 7, 11)))
        for i in range(n)
    )


@problem("SROSENBR", [-1.2, 1.0] * (N // 2), [1.0] * N, 0.0, 2 * N)
def _(x):
    return sum(100 * sq(x[i + 1] - sq(x[i])) + sq(x[i] - 1) for i in range(0, len(x), 2))


@problem("TESTQUAD", [1.0] * N, [0.0] * N, 0.0, N)
def _(x):
    return sum((i + 1) * sq(a) for i, a in enumerate(x))


@problem("TOINTGSS", [3.0] * N)
def _(x):
    n = len(x)
    return sum(
        (10 / (n + 2) + sq(c)) * (2 - math.exp(-sq(a - b) / (0.1 + sq(c))))
        for a, b, c in (x[i : i + 3] for i in range(n - 2))
    )


@problem("TQUARTIC", [0.1] * N, [1.0] * N, 0.0, 3 * N - 2)
def _(x):
    return sq(x[0] - 1) + sum(sq(sq(x[0]) - sq(a)) for a in x[1:])


@problem("TRIDIA", [1.0] * N, [2.0**-i for i in range(N)], 0.0, 3 * N - 2)
def _(x):
    return sq(x[0] - 1) + sum((i + 1) * sq(2 * x[i] - x[i - 1]) for i in range(1, len(x)))


@problem("VARDIM", [1 - i / 8 for i in range(1, 9)], [1.0] * 8, 0.0, 64)
def _(x):
    s = sum(i * (a - 1) for i, a in enumerate(x, 1))
    return sum(sq(a - 1) for a in x) + sq(s) + s**4


@problem("VAREIGVL", [1.0] * 8, nonzeros=64)
def _(x):
    n = len(x)
    mu = x[-1]
    inner = sum(
        sq(sum(x[j] * math.sin(i * j) * math.exp(-((i - j) ** 2)) for j in range(1, n - 1)) - mu * x[i])
        for i in range(n - 1)
    )
    return inner + sq(sum(sq(a) for a in x[:-1]) - 1)
