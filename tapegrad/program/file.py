"""Recorded functions as bytes: the format that docs/program-format.md describes, written and read."""
from __future__ import annotations

import binascii
import collections
import functools
import keyword
import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from .._core import ffi, lib
from .arguments import Arguments
from .containers import Container, Fields, Mapping
from .form import NUMBER, Array, Form, Series, Static
from .replay import CALL, CAN_REFUSE, GUARD, QUIET, Called, CData, Trace, instructions

MAGIC = b"\x89TGP\r\n\x1a\n"
MAGIC_OF_LOOPS = b"\x89TGL\r\n\x1a\n"  # of files that hold several programs: tapegrad.loops
VERSION = 4
OLDEST = 1
DEEPEST = 100  # nests within nests in a form
_COUNTS = ("n_const", "n_instr", "n_pool", "n_kept", "n_live", "n_guards")
_STATS = ("recorded", "reached", "folded", "shared", "fused")
_SERIES: tuple[type[Any], ...] = (list, tuple)
_NUMBER, _FIRST_SERIES, _ARRAY, _DICT, _TUPLE, _RECORD, _STATIC = 0, 1, 3, 4, 5, 6, 7  # how kinds of forms are written
_NONE, _TEXT, _INTEGER = 0, 1, 2  # and what is no number
_MOST_BYTES = (1 << 63) - 1  # of an array, by NumPy's count: lengths of 0 do not make it smaller


class Contents(NamedTuple):
    """What a file holds of a recorded function."""

    forms: Arguments
    out: Form
    params: list[float]
    paths: list[Trace]
    children: dict[tuple[int, int], int]  # (path, instruction at which it stops): the path that goes on
    on_branch: str
    on_error: str


ON_BRANCH = ("raise", "record")
ON_ERROR = ("raise", "nan")


def _little(typecode: str, data: bytes) -> bytes:
    """Words of this host, little-endian; or the other way round."""
    if sys.byteorder == "little":
        return data
    words = array(typecode, data)
    words.byteswap()
    return words.tobytes()


# ---- writing ----


def _u32(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return _u32(len(data)) + data


def _plain(x: object, what: str) -> bytes:
    """None, a text or an integer."""
    if x is None:
        return bytes((_NONE,))
    if isinstance(x, str):
        return bytes((_TEXT,)) + _text(x)
    if isinstance(x, int) and not isinstance(x, bool) and -(1 << 63) <= x < 1 << 63:
        return struct.pack("<Bq", _INTEGER, x)
    raise ValueError(f"{what} is {x!r}: a program that is saved can hold numbers, text and None")


def _form(form: Form, what: str, depth: int = 0) -> Iterator[bytes]:
    if depth > DEEPEST:
        raise ValueError(f"an argument or result is nested more than {DEEPEST} deep: it cannot be saved")
    if isinstance(form, Array):
        yield struct.pack(f"<BI{len(form.shape)}Q", _ARRAY, len(form.shape), *form.shape)
    elif isinstance(form, Series):
        yield struct.pack("<BI", _FIRST_SERIES + _SERIES.index(form.kind), len(form.parts))
        for k, part in enumerate(form.parts):
            yield from _form(part, f"{what}[{k}]", depth + 1)
    elif isinstance(form, Container):
        yield from _container(form, what, depth)
    elif isinstance(form, Static):
        yield bytes((_STATIC,)) + _plain(form.value, what)
    else:
        yield bytes((_NUMBER,))


def _container(form: Container, what: str, depth: int) -> Iterator[bytes]:
    if isinstance(form, Mapping):
        yield struct.pack("<BI", _DICT, len(form.parts))
        names = [_plain(key, f"a key of {what}") for key in form.keys]
    elif isinstance(form, Fields):
        is_tuple = hasattr(form.cls, "_fields")
        for field in form.fields:
            if field.startswith("_" if is_tuple else "__"):
                raise ValueError(f"{what} has the field {field!r}: it cannot be saved")
        yield bytes((_TUPLE if is_tuple else _RECORD,)) + _text(form.cls.__name__) + _u32(len(form.parts))
        names = [_text(name) for name in form.fields]
    else:
        raise ValueError(f"{what} is {form}, which optree knows: it cannot be saved")
    for name, label, part in zip(names, form.labels(), form.parts):
        yield name
        yield from _form(part, what + label, depth + 1)


def keeps(form: Form) -> bool:
    """Whether a form that is written is read as it was: classes are not, and what is no number may not be written."""
    if isinstance(form, Series):
        return form.shape is not None or all(map(keeps, form.parts))
    if isinstance(form, Mapping):
        return all(type(key) in (str, int, type(None)) for key in form.keys) and all(map(keeps, form.parts))
    return not isinstance(form, Container) and (not isinstance(form, Static) or type(form.value) in (str, type(None)))


def _path(path: Trace, parent: tuple[int, int]) -> Iterator[bytes]:
    p = path.core
    yield _u32(*parent, *(getattr(p, name) for name in _COUNTS + _STATS), len(path.codes))
    yield _little("d", ffi.buffer(p.constant, 8 * p.n_const)[:])
    for words, n in ((instructions(p), 32 * p.n_instr), (p.pool, 8 * p.n_pool), (p.out, 8 * p.n_out)):
        yield _little("I", ffi.buffer(words, n)[:])
    yield _u32(1 if p.order else 0)
    if p.order:
        yield _little("I", ffi.buffer(p.order, 4 * p.n_instr)[:])
    yield _u32(len(path.calls))
    for call in path.calls:
        step = encode(call.step.contents())
        yield struct.pack("<QQ", call.length, len(step)) + step
    for code in path.codes:
        yield from map(_text, code)


def encode(contents: Contents) -> bytes:
    """The bytes of a program.

    Raises:
        ValueError: a form is nested too deep, or holds what is neither a number nor text nor None.
    """
    c = contents
    parents = {child: parent for parent, child in c.children.items()}
    body = [
        bytes((ON_BRANCH.index(c.on_branch), ON_ERROR.index(c.on_error))),
        _u32(len(c.forms), len(c.params), len(c.paths)),
        struct.pack(f"<{len(c.params)}d", *c.params),
    ]
    for k, form in enumerate(c.forms):
        body.extend(_form(form, f"argument {c.forms.label(k)}"))
    body.extend(_form(c.out, "the result"))
    for k, path in enumerate(c.paths):
        body.extend(_path(path, parents.get(k, (0, 0))))
    body.append(_u32(c.forms.by_name))
    body.extend(map(_text, c.forms.names))
    data = MAGIC + _u32(VERSION, GUARD) + b"".join(body)
    return data + _u32(binascii.crc32(data))


def replace(path: str | bytes | os.PathLike[Any], data: bytes) -> None:
    """Write a file; one that is there is replaced at once or not at all."""
    name = os.fsdecode(path)
    new = f"{name}.{os.urandom(8).hex()}.tmp"
    try:
        with open(new, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, name)
    except BaseException as error:
        if os.path.exists(new):
            os.unlink(new)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, name) from None
        raise


# ---- reading ----


class _Reader:
    """Takes a file apart from its start; nothing is made before the bytes for it are known to be there."""

    def __init__(self, data: memoryview, version: int, guard: int, within: int) -> None:
        self._data, self._at, self._guard, self._within = data, 0, guard, within
        self.version = version

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, n: int) -> memoryview:
        if n > self.left():
            raise ValueError("it ends too early")
        self._at += n
        return self._data[self._at - n : self._at]

    def unpack(self, layout: str) -> Any:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def u32(self) -> int:
        return self.unpack("I")[0]  # type: ignore[no-any-return]

    def choice(self, of: Sequence[str], what: str) -> str:
        k = self.take(1)[0]
        if k >= len(of):
            raise ValueError(f"{k} is no {what}")
        return of[k]

    def words(self, typecode: str, to: CData, n: int) -> None:
        ffi.memmove(to, _little(typecode, self.take(n).tobytes()), n)

    def text(self) -> str:
        try:
            return str(self.take(self.u32()), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise ValueError("a name is not UTF-8") from None

    def form(self, depth: int = 0) -> Form:
        if depth > DEEPEST:
            raise ValueError(f"a form is nested more than {DEEPEST} deep")
        kind = self.take(1)[0]
        if kind == _NUMBER:
            return NUMBER
        if kind > (_STATIC if self.version > 1 else _ARRAY):
            raise ValueError(f"{kind} is no kind of form")
        if kind == _STATIC:
            return Static(self.plain())
        cls = self.text() if kind in (_TUPLE, _RECORD) else ""
        n = self.u32()
        if kind == _ARRAY:
            return Array(self._shape(n))
        if n > self.left():
            raise ValueError("it ends too early")
        if kind < _ARRAY:
            return Series(_SERIES[kind - _FIRST_SERIES], tuple(self.form(depth + 1) for _ in range(n)))
        named = [((self.plain if kind == _DICT else self.text)(), self.form(depth + 1)) for _ in range(n)]
        names, parts = tuple(name for name, _ in named), tuple(part for _, part in named)
        if len(set(names)) < n:
            raise ValueError("a key or field is there twice")
        if kind == _DICT:
            return Mapping(names, parts)
        if kind == _TUPLE:
            return Fields(_tuple_class(cls, names), names, parts)
        if any(name.startswith("__") for name in names):
            raise ValueError("a field has a name of Python's own")
        return Fields(SimpleNamespace, names, parts)

    def plain(self) -> Any:
        kind = self.take(1)[0]
        if kind > _INTEGER:
            raise ValueError(f"{kind} is no kind of key or of what is no number")
        return self.unpack("q")[0] if kind == _INTEGER else self.text() if kind == _TEXT else None

    def arguments(self, forms: list[Form]) -> Arguments:
        """The names of arguments that have these forms."""
        if self.version == 1:
            return Arguments(forms)
        by_name = self.u32()
        names = [self.text() for _ in forms]
        given = [name for name in names if name]
        if by_name > len(forms) or len(set(given)) < len(given) or not all(names[len(forms) - by_name :]):
            raise ValueError("its arguments are not named one by one")
        return Arguments(forms, names, by_name)

    def _shape(self, n: int) -> tuple[int, ...]:
        if not 0 < n <= 64:
            raise ValueError(f"an array has {n} dimensions")
        shape: tuple[int, ...] = self.unpack(f"{n}Q")
        size = 8
        for length in shape:
            size *= max(1, length)
        if size > _MOST_BYTES:
            raise ValueError(f"an array has the shape {shape}")
        return shape

    def _opcode(self, op: int) -> int:
        """Rows keep their numbers; what comes after them does not."""
        if op & ~QUIET < self._guard:
            return op
        known = op <= self._guard + (self.version > 3)
        return op - self._guard + GUARD if known else int(lib.TG_NONE)

    def _order(self, n_instr: int) -> CData | None:
        """Where each instruction of a wide path is in the function's order."""
        wide = self.u32() if self.version > 2 else 0
        if wide > 1 or 4 * n_instr * wide > self.left():
            raise ValueError(f"{wide} is no kind of order" if wide > 1 else "it ends too early")
        if not wide:
            return None
        order = ffi.new("uint32_t[]", n_instr)
        self.words("I", order, 4 * n_instr)
        return order

    def _calls(self, most: int) -> list[Called]:
        """The loops that a path carries out, each of so many inputs and outputs at most."""
        if self.version < 4:
            return []
        n = self.u32()
        if 16 * n > self.left():
            raise ValueError("it ends too early")
        found: list[Called] = []
        for _ in range(n):
            from ..loops.called import read  # seldom needed

            length, size = self.unpack("2Q")
            found.append(read(length, self.take(size), self._within + 1, most))
        return found

    def path(self, n_in: int, n_out: int) -> tuple[Trace, tuple[int, int]]:
        parent, stop = self.unpack("2I")
        counts = dict(zip(_COUNTS + _STATS, self.unpack(f"{len(_COUNTS + _STATS)}I")))
        n_codes = self.u32()
        n_const, n_instr, n_pool = counts["n_const"], counts["n_instr"], counts["n_pool"]
        if 8 * n_const + 32 * n_instr + 8 * n_pool + 8 * n_out + 8 * n_codes > self.left():
            raise ValueError("it ends too early")
        p = lib.tg_new_program(n_const, n_in, n_out, n_instr, n_pool)
        if not p:
            raise MemoryError
        p = ffi.gc(p, lib.tg_free_program, p.bytes)
        self.words("d", p.constant, 8 * n_const)
        self.words("I", p.instr, 32 * n_instr)
        if self._guard != GUARD:  # rows have come since
            words = array("I", ffi.buffer(p.instr, 32 * n_instr)[:])
            words[::8] = array("I", map(self._opcode, words[::8]))
            ffi.memmove(p.instr, words, 32 * n_instr)
        self.words("I", p.pool, 8 * n_pool)
        self.words("I", p.out, 8 * n_out)
        for name, n in counts.items():
            setattr(p, name, n)
        order = self._order(n_instr)
        code = lib.tg_set_order(p, order) if order is not None else lib.TG_OK
        calls = self._calls(n_pool)
        if calls:
            code = code or lib.tg_set_calls(p, ffi.new("tg_loop *[]", [call.core for call in calls]), len(calls))
        code = code or lib.tg_check_program(p)
        if not code and order is not None:
            code = lib.tg_group_program(p)
        code = code or lib.tg_pack_program(p)
        if code == lib.TG_MEMORY:
            raise MemoryError
        if code:
            raise ValueError("its instructions do not fit together")
        return Trace(p, [(self.text(), self.text()) for _ in range(n_codes)], 0.0, calls), (parent, stop)


@functools.lru_cache(maxsize=64)
def _tuple_class(name: str, fields: tuple[str, ...]) -> type[Any]:
    """A class of named tuples that is made anew, the same for the same names."""
    if not name.isidentifier() or keyword.iskeyword(name):
        name = "Fields"
    return collections.namedtuple(name, fields)  # ValueError: these are no names


def _stops(path: Trace, version: int) -> dict[int, int]:
    """The instructions at which a path may stop, by what a file has for them; in version 1, the numbers of guards."""
    words = array("I", ffi.buffer(instructions(path.core), 32 * path.core.n_instr)[:])
    if version > 1:
        return {k: k for k, op in enumerate(words[0::8]) if op in (GUARD, CALL) or (op < GUARD and CAN_REFUSE[op])}
    if any(op == GUARD and asked > 7 for op, asked in zip(words[0::8], words[1::8])):
        raise ValueError("a guard is of a kind that its version does not have")
    return {number: k for k, (op, number) in enumerate(zip(words[0::8], words[4::8])) if op == GUARD}


def _contents(reader: _Reader) -> Contents:
    on_branch, on_error = reader.choice(ON_BRANCH, "on_branch"), reader.choice(ON_ERROR, "on_error")
    n_args, n_params, n_paths = reader.unpack("3I")
    if not 0 < n_paths <= reader.left():
        raise ValueError(f"it has {n_paths} paths")
    if 8 * n_params + n_args > reader.left():
        raise ValueError("it ends too early")
    params = list(reader.unpack(f"{n_params}d"))
    forms = [reader.form() for _ in range(n_args)]
    out = reader.form()
    n_in, n_out = sum(form.size for form in forms) + n_params, out.size
    if 8 * n_out > reader.left() or n_in >> 32:
        raise ValueError(f"it has {n_in} inputs and {n_out} outputs")
    paths: list[Trace] = []
    stops: list[dict[int, int]] = []
    children: dict[tuple[int, int], int] = {}
    for k in range(n_paths):
        path, (parent, stop) = reader.path(n_in, n_out)
        at = stops[parent].get(stop) if parent < k else None
        if k == 0 and (parent, stop) == (0, 0):
            pass
        elif at is None or (parent, at) in children:
            raise ValueError(f"path {k} does not branch off where an earlier one stops")
        else:
            children[parent, at] = k
        paths.append(path)
        stops.append(_stops(path, reader.version))
    arguments = reader.arguments(forms)
    if reader.left():
        raise ValueError(f"{reader.left()} bytes are left over")
    return Contents(arguments, out, params, paths, children, on_branch, on_error)


def decode(data: bytes, within: int = 0) -> Contents:
    """What these bytes hold; nothing in them is trusted.

    Args:
        within: how many loops the program is in.

    Raises:
        ValueError: they are not a program, or not of this version, or damaged.
    """
    view = memoryview(data)
    if view[: len(MAGIC)] != MAGIC:
        raise ValueError("not a tapegrad program")
    if len(view) < len(MAGIC) + 12:
        raise ValueError("a damaged tapegrad program: it ends too early")
    version, operations = struct.unpack_from("<2I", view, len(MAGIC))
    if not OLDEST <= version <= VERSION or operations > GUARD:
        age = "a newer" if (version, operations) > (VERSION, GUARD) else "another"
        raise ValueError(
            f"a tapegrad program of {age} tapegrad: format {version} with {operations} operations, "
            f"this one reads format {OLDEST} to {VERSION} with {GUARD}"
        )
    if binascii.crc32(view[:-4]) != struct.unpack("<I", view[-4:])[0]:
        raise ValueError("a damaged tapegrad program: its checksum is wrong")
    reader = _Reader(view[:-4], version, operations, within)
    reader.take(len(MAGIC) + 8)
    try:
        return _contents(reader)
    except ValueError as error:
        raise ValueError(f"a damaged tapegrad program: {error}") from None
