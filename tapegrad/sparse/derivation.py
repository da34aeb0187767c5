"""The nonzeros of one path, derived by the core in whichever way is the cheapest by count: see csrc/sparse/nonzeros.h.

Each way is tried within a budget of links, each of which passes one number from a node to one of its operands; what
does not fit is thrown away."""
from __future__ import annotations

from array import array
from typing import Any, NamedTuple

from .._core import ffi, lib
from ..program.replay import Trace
from .pattern import INDEX, Pattern

MOST = 1 << 31  # links that a derivation visits
MOST_ENTRIES = 1 << 26  # of a matrix whose pattern is taken for full unseen
GOOD = 6  # sweeps over all links: what is done within that is not compared with anything


class Asked(NamedTuple):
    """What is to be derived.

    Attributes:
        first, size: the inputs that it is derived by.
        second: the Hessian, else the Jacobian.
        weights, at: how many inputs weigh the outputs, and the first of them.
    """

    first: int
    size: int
    second: bool
    weights: int = 0
    at: int = 0


class Derivation:
    """The nonzeros of a path.

    Attributes:
        pattern: where they are.
        how: in which way they are made, or "dense": that the pattern calls for no sparse way.
        links, each: what that visits, and what one sweep of all outputs would.
    """

    def __init__(self, core: Any, asked: Asked, path: Trace, how: str, each: int) -> None:
        shape = asked.size if asked.second else path.core.n_out, asked.size
        self._core, self._asked, self._path = core, asked, path
        self.how, self.each, self.links = how, each, 0
        if core is None:
            self.pattern = Pattern.full(shape)
            return
        self.links = lib.tg_nonzeros_work(core)
        n = lib.tg_nonzeros_count(core)
        rows, cols = array(INDEX, bytes(4 * n)), array(INDEX, bytes(4 * n))
        lib.tg_nonzeros_pattern(core, _words(rows), _words(cols))
        self.pattern = Pattern(shape, rows, cols)

    def forget(self) -> None:
        """It is dense: whoever wants its program has it derived again."""
        self._core, self.how = None, "dense"

    def program(self, pattern: Pattern) -> Trace:
        """The program that gives them, in the order of a pattern that has them all; once."""
        core, self._core, code = self._core, None, ffi.new("int64_t *")
        if core is None or self.how == "dense":
            core = (_by_edges if self._asked.second else _by_cones)(self._path, self._asked)
        made = lib.tg_nonzeros_program(core, _words(pattern.rows), _words(pattern.cols), len(pattern), code)
        if made == ffi.NULL:
            raise _error(code[0])
        return Trace(ffi.gc(made, lib.tg_free_program, made.bytes), self._path.codes, 0.0)


def _words(numbers: array[int]) -> Any:
    return ffi.from_buffer("uint32_t[]", numbers)


def _error(code: int) -> Exception:
    if code == lib.TG_OVER:
        return OverflowError(f"a sparse derivative of this program takes more than {MOST} multiplications")
    if code == lib.TG_FULL:
        return MemoryError("a sparse derivative of this program takes more than 2**30 instructions")
    return MemoryError()


def _open(path: Trace, asked: Asked) -> Any:
    assert not path.calls  # which the core does not see into
    code = ffi.new("int64_t *")
    core = lib.tg_open_nonzeros(path.core, asked.first, asked.size, asked.weights, asked.at, code)
    if core == ffi.NULL:
        raise _error(code[0])
    return ffi.gc(core, lib.tg_close_nonzeros, 64 * path.core.n_instr)


def _within(code: int) -> bool:
    """Whether the budget was enough."""
    if code not in (lib.TG_OK, lib.TG_OVER):
        raise _error(code)
    return bool(code == lib.TG_OK)


def derive(path: Trace, asked: Asked) -> Derivation:
    """The nonzeros of a path, with their pattern."""
    core = _open(path, asked)
    each = lib.tg_nonzeros_links(core)
    budget = GOOD * each + 64
    if asked.second and _within(lib.tg_hessian_edges(core, budget)):
        how = "edge pushing"
    elif not asked.second and _within(lib.tg_jacobian_rows(core, budget, 0)):
        how = "a sweep for each row"
    else:
        core, how = (_compared_hessian if asked.second else _compared_jacobian)(path, asked, budget)
    found = Derivation(core, asked, path, how, each)
    if found.pattern.is_dense:
        found.forget()
    return found


# ---- Jacobians ----

_ROWS, _COLUMNS = "a sweep for each row", "a tangent for each column"


def _jacobian(core: Any, how: str, budget: int, dry: int) -> bool:
    return _within((lib.tg_jacobian_rows if how == _ROWS else lib.tg_jacobian_columns)(core, budget, dry))


def _cheaper(path: Trace, asked: Asked, budget: int) -> tuple[Any, str] | None:
    """A dry derivation in the cheaper way; None where neither fits."""
    while budget < MOST:
        budget *= 2
        for how, other in (_COLUMNS, _ROWS), (_ROWS, _COLUMNS):
            core = _open(path, asked)
            if not _jacobian(core, how, budget, 1):
                continue
            second = _open(path, asked)
            if _jacobian(second, other, lib.tg_nonzeros_work(core), 1):
                return second, other
            return core, how
    return None


def _compared_jacobian(path: Trace, asked: Asked, budget: int) -> tuple[Any, str]:
    found = _cheaper(path, asked, budget)
    if found is None:
        return _full(asked.size * path.core.n_out)
    core, how = found
    if 2 * lib.tg_nonzeros_count(core) > asked.size * path.core.n_out:
        return core, "dense"
    core = _open(path, asked)
    if not _jacobian(core, how, MOST, 0):
        raise _error(lib.TG_OVER)
    return core, how


def _by_cones(path: Trace, asked: Asked) -> Any:
    """A Jacobian that is dense, whichever way it takes."""
    found = _cheaper(path, asked, GOOD * path.core.n_instr + 64)
    core = _open(path, asked)
    if found is None or not _jacobian(core, found[1], MOST, 0):
        raise _error(lib.TG_OVER)
    return core


def _full(entries: int) -> tuple[Any, str]:
    """What is too long to look at counts as dense where there is room for all of it."""
    if entries > MOST_ENTRIES:
        raise _error(lib.TG_OVER)
    return None, "dense"


# ---- Hessians ----


def _compared_hessian(path: Trace, asked: Asked, budget: int) -> tuple[Any, str]:
    """Edge pushing against colours, by count."""
    n = asked.size
    core = _open(path, asked)
    if not _within(lib.tg_hessian_probe(core, MOST)):
        return _full(n * n)
    entries = lib.tg_nonzeros_count(core)
    if 2 * entries > n * n:
        return core, "dense"
    pattern = Derivation(core, asked, path, "", 0).pattern
    rows, cols, colours = _words(pattern.rows), _words(pattern.cols), ffi.new("uint32_t[]", max(1, n))
    work = 64 * (entries + n) + 4 * lib.tg_nonzeros_work(core)
    n_colours = lib.tg_star_colours(n, rows, cols, entries, work, colours)
    if n_colours < 0:
        raise MemoryError
    most = MOST
    if n_colours:
        core = _open(path, asked)
        if _within(lib.tg_hessian_colours(core, colours, n_colours, rows, cols, entries, MOST, 1)):
            most = lib.tg_nonzeros_work(core)
    core = _open(path, asked)
    if most > budget and _within(lib.tg_hessian_edges(core, most)):
        return core, "edge pushing"
    core = _open(path, asked)
    if not n_colours or not _within(
        lib.tg_hessian_colours(core, colours, n_colours, rows, cols, entries, MOST, 0)
    ):  # fmt: skip
        raise _error(lib.TG_OVER)
    return core, f"a tangent and a sweep for each of {n_colours} colours"


def _by_edges(path: Trace, asked: Asked) -> Any:
    """A Hessian that is dense."""
    core = _open(path, asked)
    if not _within(lib.tg_hessian_edges(core, MOST)):
        raise _error(lib.TG_OVER)
    return core
