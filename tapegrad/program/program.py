"""Programs: a function recorded once on Values, frozen, and replayed in C with derivatives."""
from __future__ import annotations

import copy
import functools
import itertools
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._core import ffi, lib
from ..value import Value, handle
from . import file, native, nest, source
from .batch import Loop
from .file import MOST_PATHS, Contents
from .nest import NUMBER, Form
from .replay import GUARD, BranchChanged, Feed, Path, Work, zeros
from .trace import trace

__all__ = ["BranchChanged", "Program", "load", "record"]


class Program:
    """A recorded function; see `record`. Calling it replays it: numbers in, numbers out.

    It may be called from any number of threads at once. It can be saved, pickled and copied. A copy shares f and the
    params. A deep copy has params of its own, and f only where there are none: f reads the old ones. One that was saved
    or pickled has no f, and its params are numbers. Without f, paths that are not known raise BranchChanged.
    """

    def __init__(
        self, f: Callable[..., Any] | None, forms: Sequence[Form], out: Form, paths: list[Path], params: list[Any],
        *, on_branch: str = "raise", on_error: str = "raise", strict: bool = False,
    ) -> None:  # fmt: skip
        self._f, self.forms, self.out, self.paths = f, tuple(forms), out, paths
        self._params, self._on_branch, self.on_error, self._strict = params, on_branch, on_error, strict
        self._sizes, self._n_params = [nest.size(form) for form in forms], len(params)
        self._readers = [(nest.reader(form), f"argument {k}") for k, form in enumerate(forms)]
        self._choices = list(zip(self.forms, itertools.accumulate(self._sizes, initial=0), self._sizes))
        self._idle: list[Any] = []  # jobs of `value_and_grad` with their buffers: as many as ever ran at once
        self._children: dict[tuple[int, int], int] = {}
        self._lock = threading.RLock()  # f may call its own program

    # ---- what it is ----

    @property
    def params(self) -> list[Any]:
        """The Values that are inputs besides the arguments; numbers after loading. Each replay reads them."""
        return self._params

    @property
    def stats(self) -> dict[str, Any]:
        """Counts, of the first path where there are several.

        Returns:
            recorded: nodes that f made; needed: those that its results need, inputs included; then how many are left
            after_folding constants, after_sharing common subexpressions, after_fusing sums of products into dots;
            instructions, guards, constants, inputs, outputs; slots: for values and derivatives; live_slots: for values
            alone; bytes; lanes: rows that a batch takes side by side; paths; seconds: of freezing.
        """
        p, path = self.paths[0].core, self.paths[0]
        folded = p.reached - p.folded
        return {
            "recorded": p.recorded, "needed": p.reached, "after_folding": folded,
            "after_sharing": folded - p.shared, "after_fusing": folded - p.shared - p.fused,
            "instructions": p.n_instr, "guards": p.n_guards, "constants": p.n_const, "inputs": p.n_in,
            "outputs": p.n_out, "slots": p.n_kept, "live_slots": p.n_live, "bytes": p.bytes,
            "lanes": lib.tg_lanes, "paths": len(self.paths), "seconds": path.seconds,
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(
            (f"path {k}: " if len(self.paths) > 1 else "") + path.listing() for k, path in enumerate(self.paths)
        )

    def __repr__(self) -> str:
        s = self.stats
        return f"<program: {s['inputs']} inputs, {s['outputs']} outputs, {s['instructions']} instructions>"

    # ---- saved and copied ----

    def _contents(self) -> Contents:
        with self._lock:
            paths, children = list(self.paths), dict(self._children)
        return Contents(self.forms, self.out, self.param_data(), paths, children, self._on_branch, self.on_error)

    def save(self, path: str | bytes | os.PathLike[Any]) -> None:
        """Write the program to a file, which `load` reads: its paths, the data of its params, where it was recorded.

        A file that is there is replaced at once or not at all.

        Args:
            path: of the file; docs/program-format.md says what is in it.

        Raises:
            OSError: it cannot be written.
            ValueError: an argument or result is nested more than 100 deep.
        """
        data, name = file.encode(self._contents()), os.fsdecode(path)
        new = f"{name}.{os.urandom(8).hex()}.tmp"
        try:
            with open(new, "xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(new, name)
        except BaseException:
            if os.path.exists(new):
                os.unlink(new)
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _decoded, (file.encode(self._contents()),)

    def _copy(self, f: Callable[..., Any] | None, params: list[Any]) -> Program:
        with self._lock:
            program = Program(
                f, self.forms, self.out, list(self.paths), params,
                on_branch=self._on_branch, on_error=self.on_error, strict=self._strict,
            )  # fmt: skip
            program._children = dict(self._children)
        return program

    def __copy__(self) -> Program:
        return self._copy(self._f, self._params)

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self._copy(None if self._params else self._f, copy.deepcopy(self._params, memo))

    # ---- as machine code ----

    def to_c(self) -> str:
        """The C source that `native` compiles, of the first path."""
        return source.write(self.paths[0].core)[0]

    def native(self) -> Program:
        """Compile the program with the system's C compiler, and have every replay run that code from here on.

        Values and gradients have the same bits. A block of rows that does not go as recorded is interpreted, and so are
        derivatives along tangents, once native code has their values, and paths recorded later, until the next call.
        The code is kept in the folder that TAPEGRAD_CACHE names, or in ~/.cache/tapegrad, for the next process.

        Returns:
            The program itself.

        Raises:
            RuntimeError: there is no compiler that works, or the folder is not the user's alone; the program stays as
                it was.
        """
        for path in self.paths:
            if path.native is None:
                path.native = native.compiled(path.core)
        return self

    # ---- numbers in ----

    def param_data(self) -> list[float]:
        """The numbers of the params now."""
        if len(self._params) != self._n_params:
            raise ValueError(f"params has {len(self._params)} elements, not {self._n_params} as recorded")
        if not self._params:
            return []
        if isinstance(self._params[0], Value):
            return handle.data(self._params)
        return self._params

    def flat(self, args: Sequence[Any]) -> array[float]:
        """All inputs, arguments and params, as one array."""
        if len(args) != len(self.forms):
            raise TypeError(f"the program takes {len(self.forms)} arguments, not {len(args)}")
        to = array("d")
        for x, (read, what) in zip(args, self._readers):
            read(x, what, to)
        if self._n_params or self._params:
            to.extend(self.param_data())
        return to

    def chosen(self, argnums: Any) -> list[tuple[Form, int, int]]:
        """Form, first input and count of the arguments that argnums names."""
        if argnums == "params":
            n = self._n_params
            return [(("list", (NUMBER,) * n), sum(self._sizes), n)]
        picked = []
        for k in argnums if isinstance(argnums, (tuple, list)) else (argnums,):
            if not isinstance(k, int):
                raise TypeError(f"argnums must be an integer, a tuple of them or 'params', not {k!r}")
            if not -len(self.forms) <= k < len(self.forms):
                raise ValueError(f"argnums {k}: the program takes {len(self.forms)} arguments")
            picked.append(self._choices[k])
        return picked

    def chosen_one(self, argnums: Any) -> tuple[Form, int, int]:
        """As `chosen`, of the one argument that a second derivative is by."""
        if isinstance(argnums, (tuple, list)):
            raise TypeError(f"argnums must be one integer or 'params' for a second derivative, not {argnums!r}")
        return self.chosen(argnums)[0]

    def gathered(self, argnums: Any, parts: list[Any]) -> Any:
        """One part, or a tuple where argnums is one."""
        return tuple(parts) if isinstance(argnums, (tuple, list)) else parts[0]

    def need_scalar(self, what: str) -> None:
        if self.out != NUMBER:
            returns = nest.describe(self.out)
            raise TypeError(f"{what} is of a function that returns one Value; this one returns {returns}")

    # ---- replay ----

    def perform(self, flat: array[float], work: Work) -> None:
        """Run a job over the path that these inputs take; what it writes is not summed."""
        k = 0
        work.job.nan_errors = self.on_error == "nan"
        while True:
            path = self.paths[k]
            path.run(work.job)
            if not work.job.failures:
                return
            at = next(x for x in work.failed if x) - 1
            ffi.buffer(work.failed)[:] = bytes(ffi.sizeof(work.failed))
            guard = self.guard_of(k, at)
            if guard is None:
                raise path.error(at, work.job, None)
            k = self.other_path(k, guard, flat)

    def guard_of(self, k: int, at: int) -> int | None:
        """The number of the guard at this instruction of path k, where another path takes over or can be recorded."""
        s = self.paths[k].core.instr[at]
        can_record = self._on_branch == "record" and self._f is not None
        return s.live_y if s.op == GUARD and (can_record or (k, s.live_y) in self._children) else None

    def other_path(self, k: int, guard: int, flat: Sequence[float]) -> int:
        """The path that goes the other way at a guard of path k, recorded at these inputs where it is new."""
        with self._lock:
            known = self._children.get((k, guard))
            if known is not None:
                return known
            if len(self.paths) >= MOST_PATHS:
                raise RuntimeError(f"f has taken more than {MOST_PATHS} paths: too many to keep a program for each")
            n = sum(self._sizes)
            path, out = self._record(flat[:n])
            if out != self.out:
                raise ValueError(f"f returned {nest.describe(self.out)}, on another path {nest.describe(out)}")
            self.paths.append(path)
            self._children[k, guard] = len(self.paths) - 1
            return len(self.paths) - 1

    def _record(self, numbers: Iterable[float]) -> tuple[Path, Form]:
        assert self._f is not None
        return trace(self._f, self.forms, numbers, self._params, self._strict)

    def _shaped(self, flat: array[float]) -> Any:
        return nest.shaped(self.out, flat)

    def map(self, in_axes: Any = 0, reduce: str | None = None, threads: int = 1) -> Loop:
        """The program over the rows of a batch.

        Args:
            in_axes: for each argument the axis of the rows, or None for an argument that all rows share; one for all.
                params are shared.
            reduce: "mean" or "sum" of the results over the rows, or None for one result a row.
            threads: how many threads share the rows; the bits of the result do not depend on it.

        Returns:
            A Loop.
        """
        return Loop(self, in_axes, reduce, threads)

    def __call__(self, *args: Any) -> Any:
        """The value, as f on numbers gives it.

        Raises:
            TypeError, ValueError: an argument is not as it was recorded.
            BranchChanged: f would take another branch here, and on_branch is "raise".
            ValueError, ZeroDivisionError, OverflowError: as on Values.
        """
        flat, out = self.flat(args), zeros(self.paths[0].core.n_out)
        work = Work([Feed(0, len(flat), flat)], 0, 1)
        work.out(out, len(out))
        self.perform(flat, work)
        return self._shaped(out)

    def reverse(self, flat: array[float], seed: array[float]) -> tuple[array[float], array[float]]:
        """Outputs, and the gradient of their sum weighed by seed."""
        out, grad = zeros(len(seed)), zeros(len(flat))
        self.perform(flat, self._reverse_work(flat, seed, out, grad))
        return out, grad

    def _reverse_work(self, flat: array[float], seed: array[float], out: array[float], grad: array[float]) -> Work:
        feed = Feed(0, len(flat), flat)
        feed.grad, feed.grad_stride = grad, len(flat)
        work = Work([feed], 0, 1)
        work.out(out, len(out))
        work.seed(seed)
        return work

    def _parts(self, grad: array[float], argnums: Any) -> Any:
        return self.gathered(
            argnums,
            [nest.shaped(form, grad[first : first + count]) for form, first, count in self.chosen(argnums)],
        )

    def value_and_grad(self, *args: Any, argnums: Any = 0) -> tuple[float, Any]:
        """The value and its gradient.

        Args:
            args: as the examples were.
            argnums: which argument to differentiate by; a tuple of them, or "params".

        Returns:
            A float, and a gradient shaped like the argument, or a tuple of those.

        Raises:
            TypeError: f returns more than one Value.
        """
        self.need_scalar("a gradient")
        self.chosen(argnums)
        flat = self.flat(args)
        try:
            idle = self._idle.pop()
        except IndexError:
            inputs, out, grad = zeros(len(flat)), zeros(1), zeros(len(flat))
            idle = self._reverse_work(inputs, array("d", (1.0,)), out, grad), inputs, out, grad
        work, inputs, out, grad = idle
        inputs[:] = flat
        try:
            self.perform(flat, work)
            return out[0], self._parts(grad, argnums)
        finally:
            self._idle.append(idle)

    def grad(self, *args: Any, argnums: Any = 0) -> Any:
        """The gradient; see `value_and_grad`."""
        return self.value_and_grad(*args, argnums=argnums)[1]

    def vjp(self, *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        """The value, and a function from a cotangent, shaped like it, to the tuple of v^T J for each argument."""
        flat = self.flat(primals)
        value = self(*primals)

        def pull(cotangent: Any) -> tuple[Any, ...]:
            seed = array("d")
            nest.flatten(cotangent, self.out, "the cotangent", seed)
            _, grad = self.reverse(flat, seed)
            parts: tuple[Any, ...] = self._parts(grad, tuple(range(len(self.forms))))
            return parts

        return value, pull

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
        """The value and J v.

        Args:
            primals, tangents: as many as f has arguments, tangents shaped like them.

        Returns:
            Two results shaped like f's.
        """
        flat, n_out = self.flat(primals), self.paths[0].core.n_out
        tangent, out, out_tangent = self._tangent(tangents), zeros(n_out), zeros(n_out)
        feed = Feed(0, len(flat), flat)
        feed.tangent = tangent
        work = Work([feed], 0, 1)
        work.job.tangents = 1
        work.out(out, n_out)
        work.out_tangent(out_tangent, n_out)
        self.perform(flat, work)
        return self._shaped(out), self._shaped(out_tangent)

    def _tangent(self, tangents: Sequence[Any]) -> array[float]:
        if len(tangents) != len(self.forms):
            raise TypeError(f"the program takes {len(self.forms)} tangents, not {len(tangents)}")
        tangent = array("d")
        for k, (x, form) in enumerate(zip(tangents, self.forms)):
            nest.flatten(x, form, f"tangent {k}", tangent)
        tangent.frombytes(bytes(8 * self._n_params))
        return tangent

    def _pass(self, flat: array[float], n: int, width: int, make: Callable[[Feed, Any, int], Work]) -> array[float]:
        """One replay of n rows that differ in seeds or tangents alone; make lets it write width numbers for each."""
        buffer = zeros(n * width)
        work = make(Feed(0, len(flat), flat), buffer, n)
        work.fail_into(ffi.new("uint32_t[]", n))
        self.perform(flat, work)
        return buffer

    def _passes(self, flat: array[float], rows: int, width: int, first: int, make: Callable[..., Work]) -> array[float]:
        """Rows of derivatives, one for each unit vector from first on; buffers stay small."""
        found, inner = array("d"), max(len(flat), self.paths[0].core.n_out)
        most = max(lib.tg_lanes, (1 << 22) // (inner + 1))
        for start in range(0, rows, most):
            n = min(most, rows - start)
            found.extend(self._pass(flat, n, width, functools.partial(make, first + start)))
        return found

    def jacobian(self, *args: Any, argnums: Any = 0) -> Any:
        """The Jacobian: by rows in reverse or by columns forward, whichever are fewer.

        Returns:
            Shaped like f's result, in every place a gradient shaped like the argument; where both are arrays (or one is
            a number), one array of the result's shape and then the argument's. A tuple of those for a tuple of argnums.
        """
        flat, n_out = self.flat(args), self.paths[0].core.n_out
        n_in = len(flat)

        def row(start: int, feed: Feed, buffer: Any, n: int) -> Work:
            feed.grad, feed.grad_stride = buffer, n_in
            work = Work([feed], 0, n)
            work.seed(_units(n, n_out, start), n_out)
            return work

        def column(start: int, feed: Feed, buffer: Any, n: int) -> Work:
            feed.tangent, feed.tangent_stride = _units(n, n_in, start), n_in
            work = Work([feed], 0, n)
            work.job.tangents = 1
            work.out_tangent(buffer, n_out)
            return work

        parts = []
        for form, first, count in self.chosen(argnums):
            if n_out <= count:
                entries = _columns(self._passes(flat, n_out, n_in, 0, row), n_in, first, count)
            else:
                columns, entries = self._passes(flat, count, n_out, first, column), array("d")
                for i in range(n_out):
                    entries.extend(columns[i::n_out])
            parts.append(_matrix(self.out, form, entries))
        return self.gathered(argnums, parts)

    def tangent_over_reverse(self, flat: array[float], tangent: array[float], seed: array[float]) -> array[float]:
        """The derivative along tangent of what `reverse` gives."""
        result = zeros(len(flat))
        feed = Feed(0, len(flat), flat)
        feed.tangent, feed.grad_tangent, feed.grad_tangent_stride = tangent, result, len(flat)
        work = Work([feed], 0, 1)
        work.job.tangents = 1
        work.seed(seed)
        self.perform(flat, work)
        return result

    def second_order(self, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        """The derivative along tangents of the gradient by the first argument."""
        self.need_scalar("a Hessian")
        tangent = self._tangent(tangents)
        return self._parts(self.tangent_over_reverse(self.flat(primals), tangent, array("d", (1.0,))), 0)

    def hvp(self, x: Any, v: Any, *rest: Any, argnums: int = 0) -> Any:
        """The Hessian by argument argnums times v, exactly: a tangent over the adjoints.

        Args:
            x, rest: the arguments of f; v comes second, as `scipy.optimize.minimize` calls its hessp.
            v: shaped like argument argnums.

        Returns:
            H v, shaped like v.
        """
        self.need_scalar("a Hessian")
        flat = self.flat((x, *rest))
        form, first, _ = self.chosen_one(argnums)
        direction, tangent = array("d"), zeros(len(flat))
        nest.flatten(v, form, "v", direction)
        tangent[first : first + len(direction)] = direction
        return self._parts(self.tangent_over_reverse(flat, tangent, array("d", (1.0,))), argnums)

    def hessian(self, *args: Any, argnums: int = 0) -> Any:
        """The Hessian by argument argnums: shaped like it, in every place a row shaped like it."""
        self.need_scalar("a Hessian")
        flat = self.flat(args)
        form, first, count = self.chosen_one(argnums)
        n_in = len(flat)

        def row(start: int, feed: Feed, buffer: Any, n: int) -> Work:
            feed.tangent, feed.tangent_stride = _units(n, n_in, start), n_in
            feed.grad_tangent, feed.grad_tangent_stride = buffer, n_in
            work = Work([feed], 0, n)
            work.job.tangents = 1
            work.seed(array("d", (1.0,)))
            return work

        return _matrix(form, form, _columns(self._passes(flat, count, n_in, first, row), n_in, first, count))


def _units(n: int, width: int, first: int) -> array[float]:
    """n rows: the unit vectors from first on."""
    rows = zeros(n * width)
    for k in range(n):
        rows[k * width + first + k] = 1.0
    return rows


def _columns(rows: array[float], width: int, first: int, count: int) -> array[float]:
    """count columns from first on."""
    if count == width:
        return rows
    found = array("d")
    for start in range(first, len(rows), width):
        found.extend(rows[start : start + count])
    return found


def _matrix(out: Form, form: Form, entries: array[float]) -> Any:
    """Rows of derivatives as a nest of nests."""
    n = nest.size(form)
    rows = [nest.shaped(form, entries[k * n : k * n + n]) for k in range(nest.size(out))]
    if out == NUMBER:
        return rows[0]
    return nest.build(out, iter(rows), nest.numbers)


def record(
    f: Callable[..., Any], *examples: Any, params: Iterable[Value] = (), on_branch: str = "raise",
    on_error: str = "raise", strict: bool = False,
) -> Program:  # fmt: skip
    """Run f once on Values and freeze what it did as a program.

    Args:
        f: returns a Value, or a list, tuple or array of them, or a nest of those. It may branch on comparisons of its
            Values: each is kept as a guard.
        examples: the arguments: numbers become Values, lists lists of Values, NumPy arrays object arrays of Values.
        params: Values that f closes over and that are inputs, too: every replay reads their data, and argnums="params"
            differentiates by them. Other Values that f closes over are constants, with the data that they have when
            the path is recorded.
        on_branch: "raise": a replay that would take another branch raises BranchChanged; "record": f is recorded there
            as well, a program for each path, at most 64.
        on_error: "raise": what raises on Values raises in a replay; "nan": it gives nan.
        strict: raise where f reads `.data`, sets `_backward` or goes past the tape otherwise, instead of warning.

    Returns:
        A Program.

    Raises:
        TypeError, ValueError: f returned something else than Values that it computed.
    """
    if on_branch not in ("raise", "record"):
        raise ValueError(f"on_branch must be 'raise' or 'record', not {on_branch!r}")
    if on_error not in ("raise", "nan"):
        raise ValueError(f"on_error must be 'raise' or 'nan', not {on_error!r}")
    inputs = list(params)
    for v in inputs:
        if not isinstance(v, Value):
            raise TypeError(f"params must be Values, not {type(v).__name__!r}")
    if len(set(map(id, inputs))) < len(inputs):
        raise ValueError("a Value is in params twice")
    forms = [nest.form_of(x, f"example {k}") for k, x in enumerate(examples)]
    flat = array("d")
    for k, x in enumerate(examples):
        flat.extend(v.data if isinstance(v, Value) else nest.number(v, f"example {k}") for v in nest.leaves(x))
    path, out = trace(f, forms, flat, inputs, strict)
    return Program(f, forms, out, [path], inputs, on_branch=on_branch, on_error=on_error, strict=strict)


def _decoded(data: bytes) -> Program:
    c = file.decode(data)
    program = Program(None, c.forms, c.out, c.paths, c.params, on_branch=c.on_branch, on_error=c.on_error)
    program._children = c.children
    return program


def load(path: str | bytes | os.PathLike[Any]) -> Program:
    """The program that `Program.save` wrote to a file, which may come from anywhere: nothing in it is trusted.

    Args:
        path: of the file.

    Returns:
        A Program whose params are numbers. f is not in the file: a replay that leaves the paths that are raises
        BranchChanged.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no program, is damaged, or was written by another version of the format.
    """
    with open(path, "rb") as stream:
        return _decoded(stream.read())
