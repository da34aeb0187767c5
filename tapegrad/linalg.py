"""Linear algebra of Values and floats, with NumPy's names: elimination in fused dots, pivots chosen by data."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from typing import Any, NamedTuple

from ._integer import as_integer
from ._refusals import as_number
from ._rows import binary, unary
from .value import Value, dot, leaves, sum

__all__ = ["LinAlgError", "SlogdetResult", "cholesky", "det", "inv", "norm", "slogdet", "solve"]

_Row = list[Any]  # of Values alone or of floats alone
_sqrt, _log, _max, _min = unary("SQRT"), unary("LOG"), binary("MAX"), binary("MIN")


class LinAlgError(ValueError):
    """A matrix is singular, not positive definite, or none; a ValueError, as NumPy's error of that name is.

    >>> linalg.inv([[1.0, 2.0], [2.0, 4.0]])
    Traceback (most recent call last):
    tapegrad.linalg.LinAlgError: the matrix is singular
    """


class SlogdetResult(NamedTuple):
    """What `slogdet` returns: det = sign * exp(logabsdet).

    >>> sign, logabsdet = linalg.slogdet([[0.0, 1.0], [1.0, 0.0]])
    >>> sign, logabsdet
    (-1.0, 0.0)
    """

    sign: Any
    logabsdet: Any


class _Array(NamedTuple):
    """Elements in row-major order: Values alone or floats alone."""

    items: _Row
    shape: tuple[int, ...]
    boxed: bool  # came as a NumPy array, and what is made of it goes as one

    @property
    def valued(self) -> bool:
        return bool(self.items) and isinstance(self.items[0], Value)

    def matrix(self, k: int) -> list[_Row]:
        """The k-th matrix of the last two axes, by rows."""
        m, n = self.shape[-2:]
        return [self.items[i : i + n] for i in range(k * m * n, (k + 1) * m * n, n)] if n else [[]] * m

    def matrices(self) -> Iterator[list[_Row]]:
        return map(self.matrix, range(math.prod(self.shape[:-2])))


def _array(x: Any) -> _Array:
    """Take nested sequences and arrays apart.

    Raises:
        TypeError: an element is no number. ValueError: rows differ in length.
    """
    boxed = hasattr(x, "tolist") and hasattr(x, "shape")
    items: _Row = []
    shape = _gather(x, items)
    return _Array(_alike(items), shape, boxed)


def _gather(x: Any, items: _Row) -> tuple[int, ...]:
    if hasattr(x, "tolist") and hasattr(x, "shape"):
        shape = tuple(x.shape)
        if shape:
            for element in x.ravel().tolist():
                _gather(element, items)
            return shape
        x = x.tolist()
    if isinstance(x, Value):
        items.append(x)
        return ()
    if isinstance(x, Sequence) and not isinstance(x, (str, bytes)):
        shapes = [_gather(element, items) for element in x]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("the rows differ in length: a matrix needs rows of the same length")
        return (len(shapes), *(shapes[0] if shapes else ()))
    number = as_number(x)
    if number is NotImplemented:
        raise TypeError(f"matrices are made of Values and numbers, not {type(x).__name__!r}")
    items.append(number)
    return ()


def _alike(items: _Row) -> _Row:
    """Leaves in place of the numbers where there is a Value among them."""
    if not any(isinstance(x, Value) for x in items) or all(isinstance(x, Value) for x in items):
        return items
    made = iter(leaves(x for x in items if not isinstance(x, Value)))
    return [x if isinstance(x, Value) else next(made) for x in items]


def _shaped(items: _Row, shape: Sequence[int], boxed: bool) -> Any:
    """The elements as nested lists, or as an array; the element itself where there are no dimensions."""
    if not shape:
        return items[0]
    items = _alike(items)
    if boxed:
        import numpy  # not at the top: only who has an array has it loaded

        plain = not any(isinstance(x, Value) for x in items)
        array = numpy.empty(len(items), dtype=numpy.float64 if plain else object)
        array[:] = items
        return array.reshape(shape)
    for n in reversed(shape[1:]):
        rows = math.prod(shape) // n if n else math.prod(shape[:-1])
        items = [items[k * n : (k + 1) * n] for k in range(rows)]
        shape = shape[:-1]
    return items


def _total(xs: Sequence[Any]) -> Any:
    """The sum, from left to right: Python's own rounds otherwise."""
    return sum(xs) if xs and isinstance(xs[0], Value) else reduce(operator.add, xs, 0)


def _dot_floats(xs: _Row, ys: _Row, bias: float) -> float:
    for x, y in zip(xs, ys):
        bias += x * y
    return bias


def _dot(xs: _Row, ys: _Row, bias: Any) -> Any:
    """bias + xs . ys, in that order, in one node."""
    if not xs:
        return bias
    return dot(xs, ys, bias) if isinstance(bias, Value) else _dot_floats(xs, ys, bias)


def _square(x: Any) -> _Array:
    """The same for a square matrix, or a stack of them in the last two axes."""
    a = _array(x)
    if len(a.shape) < 2:
        raise LinAlgError(f"this takes a matrix, two dimensions or more, not {len(a.shape)}")
    if a.shape[-1] != a.shape[-2]:
        raise LinAlgError(f"this takes a square matrix, not {a.shape[-2]} x {a.shape[-1]}")
    return a


class _Factors(NamedTuple):
    """A = P L U: row i of L U is row order[i] of A."""

    order: list[int]
    lower: list[_Row]  # by rows, negated, without the diagonal of ones
    upper: list[_Row]  # by columns, the diagonal last
    sign: float  # of the permutation of rows

    def solve(self, b: _Row) -> _Row:
        """x of A x = b, by substitution forwards and backwards."""
        y: _Row = []
        for i, row in zip(self.order, self.lower):
            y.append(_dot(row, y, b[i]))
        x: _Row = []
        negated: _Row = []  # both from the last one on
        n = len(y)
        for i in reversed(range(n)):
            x.append(_dot([self.upper[k][i] for k in range(n - 1, i, -1)], negated, y[i]) / self.upper[i][i])
            negated.append(-x[-1])
        return x[::-1]


def _eliminate(a: list[_Row], give_up: bool = True) -> _Factors:
    """Factor column by column; the pivot is the largest of what is left of a column.

    Args:
        a: a square matrix by rows.
        give_up: raise LinAlgError where nothing but zeros is left of a column. Otherwise such columns go last, their
            changes of place count in `sign`, and the last pivot is the determinant of all that is left: so that the
            product of the pivots has the determinant's derivatives also where it is 0.
    """
    n = len(a)
    a, order, places = a[:], list(range(n)), list(range(n))
    lower: list[_Row] = [[] for _ in a]
    upper: list[_Row] = []
    sign = 1.0
    zeros: list[_Row] = []  # what is left of the columns tried since the last pivot
    while len(upper) + len(zeros) < n:
        j = len(upper)
        column: _Row = []
        for row, factors in zip(a, lower):
            column.append(_dot(factors, column[: len(factors)], row[places[j]]))
        sizes, p = [*map(abs, column)], j
        for i in range(j + 1, n):
            if sizes[i] > sizes[p]:
                p = i
        if sizes[p] <= 0:
            if give_up:
                raise LinAlgError("the matrix is singular")
            places.append(places.pop(j))
            sign *= (-1.0) ** (n - 1 - j)
            zeros.append(column[j:])
            continue
        if p != j:
            swapped: Any
            for swapped in (a, lower, column, order):
                swapped[j], swapped[p] = swapped[p], swapped[j]
            sign = -sign
        divisor = -column[j]
        for i in range(j + 1, n):
            lower[i].append(column[i] / divisor)
        upper.append(column[: j + 1])
        zeros.clear()
    return _Factors(order, lower, [*upper, [_det_of_zeros(zeros)]] if zeros else upper, sign)


def _det_of_zeros(a: list[_Row]) -> Any:
    """The determinant of a square matrix of zeros, whose derivatives from order n on are not 0.

    Without division: Bird, "A simple division-free algorithm for computing determinants", Inf. Process. Lett. 111
    (2011). Beyond 8 rows that is a long way to a derivative of such an order.
    """
    n = len(a)
    if n == 1 or n > 8 or not any(isinstance(x, Value) for row in a for x in row):
        return reduce(operator.mul, [row[0] for row in a])
    rows, columns = a, [list(column) for column in zip(*a)]
    for _ in range(n - 1):
        made: list[_Row] = []
        trace: Any = 0.0  # of the rows below
        for i in reversed(range(n)):
            left = [-trace, *rows[i][i + 1 :]]
            made.append([dot(left, column[i:]) for column in columns])
            trace = trace + rows[i][i]
        rows = made[::-1]
    return rows[0][0] if n % 2 else -rows[0][0]


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that two shapes have in common after broadcasting."""
    n = max(len(a), len(b))
    pairs = list(zip((1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b))
    if any(p != q and 1 not in (p, q) for p, q in pairs):
        raise ValueError(f"stacks of the shapes {a} and {b} do not broadcast")
    return tuple(q if p == 1 else p for p, q in pairs)


def _position(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Where an index of the broadcast stack is in a stack of that shape."""
    k = 0
    for i, n in zip(index[len(index) - len(shape) :], shape):
        k = k * n + (i if n > 1 else 0)
    return k


def solve(a: Any, b: Any) -> Any:
    """Solve a x = b, as numpy.linalg.solve does.

    Args:
        a: (.., n, n), nested lists or a NumPy array of Values and numbers.
        b: (n,), or (.., n, k) with leading dimensions that broadcast against those of `a`.

    Returns:
        x of the shape of `b` after broadcasting: an array where one came, else nested lists; of Values where one came,
        else of floats.

    Raises:
        LinAlgError: `a` is no square matrix, or a singular one.
        ValueError: the shapes do not fit.

    >>> linalg.solve([[2.0, 1.0], [1.0, 3.0]], [3.0, 4.0])
    [1.0, 1.0]
    """
    left, right = _square(a), _array(b)
    n, tail = left.shape[-1], right.shape[-2:]
    if len(tail) == 1:
        right = right._replace(shape=(*tail, 1))
    if not tail or right.shape[-2] != n:
        raise ValueError(f"solve: a is {n} x {n}, but b has the shape {(*right.shape[:-2], *tail)}")
    lift = right.valued and not left.valued
    if left.valued and not right.valued:
        right = right._replace(items=leaves(right.items))
    stack = _broadcast(left.shape[:-2], right.shape[:-2])
    factored = [_eliminate(matrix) for matrix in left.matrices()]
    if lift:
        factored = [f._replace(lower=[*map(leaves, f.lower)], upper=[*map(leaves, f.upper)]) for f in factored]
    x: _Row = []
    for index in product(*map(range, stack)):
        factors = factored[_position(index, left.shape[:-2])]
        columns = zip(*right.matrix(_position(index, right.shape[:-2])))
        x += _transposed([factors.solve(list(column)) for column in columns])
    return _shaped(x, (*stack, *tail), left.boxed or right.boxed)


def _transposed(columns: list[_Row]) -> _Row:
    """The elements row by row."""
    return [x for row in zip(*columns) for x in row]


def inv(a: Any) -> Any:
    """The inverse of a matrix, as numpy.linalg.inv gives it.

    Args:
        a: (.., n, n), nested lists or a NumPy array of Values and numbers.

    Returns:
        The same shape: an array where one came, else nested lists; of Values where one came, else of floats.

    Raises:
        LinAlgError: `a` is no square matrix, or a singular one.

    >>> linalg.inv([[2.0, 0.0], [0.0, 4.0]])
    [[0.5, 0.0], [0.0, 0.25]]
    """
    whole = _square(a)
    n = whole.shape[-1]
    unit = [float(i == j) for i in range(n) for j in range(n)]
    right = _Array(leaves(unit) if whole.valued else unit, (n, n), whole.boxed)
    items: _Row = []
    for matrix in whole.matrices():
        factors = _eliminate(matrix)
        items += _transposed([factors.solve(list(column)) for column in right.matrix(0)])
    return _shaped(items, whole.shape, whole.boxed)


def det(a: Any) -> Any:
    """The determinant, as numpy.linalg.det gives it; its derivatives are right at singular matrices, too.

    Args:
        a: (.., n, n), nested lists or a NumPy array of Values and numbers.

    Returns:
        A Value or float; of a stack of matrices, the shape without the last two dimensions.

    Raises:
        LinAlgError: `a` is no square matrix.

    >>> value_and_grad(linalg.det)([[2.0, 1.0], [1.0, 3.0]])
    (5.0, [[3.0, -1.0], [-1.0, 2.0]])
    """
    whole = _square(a)
    items: _Row = []
    for matrix in whole.matrices():
        factors = _eliminate(matrix, give_up=False)
        items.append(reduce(operator.mul, [column[-1] for column in factors.upper], factors.sign))
    return _shaped(items, whole.shape[:-2], whole.boxed)


def slogdet(a: Any) -> SlogdetResult:
    """Sign and logarithm of the determinant's size, as numpy.linalg.slogdet gives them.

    Args:
        a: (.., n, n), nested lists or a NumPy array of Values and numbers.

    Returns:
        (sign, logabsdet). The sign is -1.0, 0.0 or 1.0, a float without a slope; a singular matrix has (0.0, -inf).

    Raises:
        LinAlgError: `a` is no square matrix.

    >>> linalg.slogdet([[0.0, 1.0], [1.0, 0.0]])
    SlogdetResult(sign=-1.0, logabsdet=0.0)
    """
    whole = _square(a)
    signs: _Row = []
    logs: _Row = []
    for matrix in whole.matrices():
        try:
            factors = _eliminate(matrix)
        except LinAlgError:
            signs.append(0.0)
            logs.append(-math.inf)
            continue
        pivots = [column[-1] for column in factors.upper]
        signs.append(reduce(operator.mul, [-1.0 if x < 0 else 1.0 for x in pivots], factors.sign))
        logs.append(_total([_log(abs(x)) for x in pivots]))
    if whole.valued:
        logs = [x if isinstance(x, Value) else Value(x) for x in logs]
    stack = whole.shape[:-2]
    return SlogdetResult(_shaped(signs, stack, whole.boxed), _shaped(logs, stack, whole.boxed))


def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The Cholesky factor L of a = L L^T, as numpy.linalg.cholesky gives it.

    Args:
        a: (.., n, n), symmetric; the lower triangle is read, the upper one where `upper` is true.
        upper: return L^T.

    Returns:
        The same shape: an array where one came, else nested lists; of Values where one came, else of floats.

    Raises:
        LinAlgError: `a` is no square matrix, or not positive definite.

    >>> linalg.cholesky([[4.0, 2.0], [2.0, 5.0]])
    [[2.0, 0.0], [1.0, 2.0]]
    """
    whole = _square(a)
    zero = Value(0.0) if whole.valued else 0.0
    items: _Row = []
    for matrix in whole.matrices():
        columns = [list(column) for column in zip(*matrix)] if upper else matrix
        factor = _cholesky(columns)
        rows = [row + [zero] * (len(columns) - len(row)) for row in factor]
        items += _transposed(rows) if upper else [x for row in rows for x in row]
    return _shaped(items, whole.shape, whole.boxed)


def _cholesky(a: list[_Row]) -> list[_Row]:
    """The rows of L up to the diagonal."""
    rows: list[_Row] = []
    for given in a:
        row: _Row = []
        negated: _Row = []
        for above, x in zip(rows, given):
            row.append(_dot(negated, above[:-1], x) / above[-1])
            negated.append(-row[-1])
        square = _dot(negated, row, given[len(row)])
        if not square > 0:
            raise LinAlgError("the matrix is not positive definite")
        rows.append([*row, _sqrt(square)])
    return rows


def norm(x: Any, ord: Any = None, axis: int | tuple[int, int] | None = None, keepdims: bool = False) -> Any:
    """Norm of a vector or a matrix, as numpy.linalg.norm gives it; slope 0 at a vector of zeros.

    Args:
        x: nested lists or a NumPy array of Values and numbers.
        ord: None: square root of the sum of squares. Of vectors, any number p: sum(abs(x) ** p) ** (1 / p), with inf
            and -inf the largest and smallest size, with 0 how many are not zero. Of matrices: 'fro' as None; 1, -1 the
            largest and smallest sum of a column's sizes, inf, -inf of a row's. 2, -2 and 'nuc' need singular values
            and are refused.
        axis: of the vectors, or the two of the matrices; None: all of `x`, which is one vector where `ord` is None.
        keepdims: keep the axes with length 1.

    Raises:
        ValueError: there is no such norm or axis.

    >>> linalg.norm([3.0, 4.0])
    5.0
    """
    a = _array(x)
    n = len(a.shape)
    given = axis if isinstance(axis, (tuple, list)) else range(n) if axis is None else (axis,)
    found = [as_integer(k) for k in given]
    if not all(k is not None and -n <= k < n for k in found):
        raise ValueError(f"norm: axis {axis} of {n} dimensions")
    axes = tuple(k % n for k in found if k is not None)
    if len(set(axes)) != len(axes):
        raise ValueError(f"norm: axis {axis} names the same one twice")
    strides = [math.prod(a.shape[k + 1 :]) for k in range(n)]
    steps = [[i * stride for i in range(size)] for size, stride in zip(a.shape, strides)]
    items: _Row = []
    for start in product(*(steps[k] for k in range(n) if k not in axes)):
        base = _total(start)
        if axis is None and ord is None:
            items.append(_length(a.items))
        elif len(axes) == 1:
            items.append(_vector_norm([a.items[base + i] for i in steps[axes[0]]], ord))
        elif len(axes) == 2:
            items.append(_matrix_norm([[a.items[base + i + j] for j in steps[axes[1]]] for i in steps[axes[0]]], ord))
        else:
            raise ValueError(f"norm: ord {ord!r} is of vectors or matrices, not of {len(axes)} dimensions")
    shape = [1 if k in axes else size for k, size in enumerate(a.shape) if keepdims or k not in axes]
    if a.valued:
        items = [v if isinstance(v, Value) else Value(v) for v in items]
    return _shaped(items, shape, a.boxed)


def _vector_norm(xs: _Row, ord: Any) -> Any:
    if ord is None or ord == 2:
        return _length(xs)
    if isinstance(ord, str):
        raise ValueError(f"norm: vectors have no ord {ord!r}")
    if ord == 0:
        return float(len([x for x in xs if not 0 <= x <= 0]))
    sizes = [*map(abs, xs)]
    if math.isinf(ord):
        return _extreme(sizes, ord)
    if ord == 1:
        return _total(sizes)
    return _root(_total([x**ord for x in (sizes if ord % 2 else xs)]), ord)  # a size bends nowhere, at 0 either


def _matrix_norm(rows: list[_Row], ord: Any) -> Any:
    if ord is None or ord in ("fro", "f"):
        return _length([x for row in rows for x in row])
    if ord in (2, -2, "nuc"):
        raise ValueError(f"norm: ord {ord!r} of a matrix needs singular values, which are not here: 'fro', 1 or inf")
    if ord not in (1, -1, math.inf, -math.inf):
        raise ValueError(f"norm: matrices have no ord {ord!r}")
    lines = rows if math.isinf(ord) else zip(*rows)
    return _extreme([_total([*map(abs, line)]) for line in lines], ord)


def _extreme(sizes: _Row, ord: float) -> Any:
    """The largest of these sizes, or where ord is negative the smallest."""
    if not sizes and ord < 0:
        raise ValueError(f"norm: ord {ord!r} of nothing")
    return reduce(_max if ord > 0 else _min, sizes) if sizes else 0.0


def _length(xs: _Row) -> Any:
    return _root(_dot(xs[1:], xs[1:], xs[0] * xs[0]), 2) if xs else 0.0


def _root(x: Any, p: float) -> Any:
    """x ** (1 / p); without slope at 0 where p is positive, for it would be infinite there."""
    return x * 0.0 if x <= 0 < p else _sqrt(x) if p == 2 else x ** (1.0 / p)
