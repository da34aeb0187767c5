"""Recorded functions as bytes: the format that docs/program-format.md describes, written and read."""
from __future__ import annotations

import binascii
import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .._core import ffi, lib
from .nest import NUMBER, Array, Form, Series
from .replay import CAN_REFUSE, GUARD, QUIET, CData, Trace

MAGIC = b"\x89TGP\r\n\x1a\n"
VERSION = 2
OLDEST = 1
DEEPEST = 100  # nests within nests in a form
_COUNTS = ("n_const", "n_instr", "n_pool", "n_kept", "n_live", "n_guards")
_STATS = ("recorded", "reached", "folded", "shared", "fused")
_SERIES: tuple[type[Any], ...] = (list, tuple)
_NUMBER, _FIRST_SERIES, _ARRAY = 0, 1, 3  # how kinds of forms are written
_MOST_BYTES = (1 << 63) - 1  # of an array, by NumPy's count: lengths of 0 do not make it smaller


class Contents(NamedTuple):
    """What a file holds of a recorded function."""

    forms: tuple[Form, ...]
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


def _form(form: Form, depth: int = 0) -> Iterator[bytes]:
    if depth > DEEPEST:
        raise ValueError(f"an argument or result is nested more than {DEEPEST} deep: it cannot be saved")
    if isinstance(form, Array):
        yield struct.pack(f"<BI{len(form.shape)}Q", _ARRAY, len(form.shape), *form.shape)
    elif isinstance(form, Series):
        yield struct.pack("<BI", _FIRST_SERIES + _SERIES.index(form.kind), len(form.parts))
        for part in form.parts:
            yield from _form(part, depth + 1)
    else:
        yield bytes((_NUMBER,))


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return _u32(len(data)) + data


def _path(path: Trace, parent: tuple[int, int]) -> Iterator[bytes]:
    p = path.core
    yield _u32(*parent, *(getattr(p, name) for name in _COUNTS + _STATS), len(path.codes))
    yield _little("d", ffi.buffer(p.constant, 8 * p.n_const)[:])
    for words, n in ((p.instr, 32 * p.n_instr), (p.pool, 8 * p.n_pool), (p.out, 8 * p.n_out)):
        yield _little("I", ffi.buffer(words, n)[:])
    for code in path.codes:
        yield from map(_text, code)


def encode(contents: Contents) -> bytes:
    """The bytes of a program.

    Raises:
        ValueError: a form is nested too deep.
    """
    c = contents
    parents = {child: parent for parent, child in c.children.items()}
    body = [
        bytes((ON_BRANCH.index(c.on_branch), ON_ERROR.index(c.on_error))),
        _u32(len(c.forms), len(c.params), len(c.paths)),
        struct.pack(f"<{len(c.params)}d", *c.params),
    ]
    for form in (*c.forms, c.out):
        body.extend(_form(form))
    for k, path in enumerate(c.paths):
        body.extend(_path(path, parents.get(k, (0, 0))))
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
    except BaseException:
        if os.path.exists(new):
            os.unlink(new)
        raise


# ---- reading ----


class _Reader:
    """Takes a file apart from its start; nothing is made before the bytes for it are known to be there."""

    def __init__(self, data: memoryview, version: int, guard: int) -> None:
        self._data, self._at, self._guard = data, 0, guard
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
        if kind > _ARRAY:
            raise ValueError(f"{kind} is no kind of form")
        n = self.u32()
        if kind == _ARRAY:
            return Array(self._shape(n))
        if n > self.left():
            raise ValueError("it ends too early")
        return Series(_SERIES[kind - _FIRST_SERIES], tuple(self.form(depth + 1) for _ in range(n)))

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
        return op if op & ~QUIET < self._guard else GUARD if op == self._guard else lib.TG_NONE

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
        code = lib.tg_check_program(p)
        if code == lib.TG_MEMORY:
            raise MemoryError
        if code:
            raise ValueError("its instructions do not fit together")
        return Trace(p, [(self.text(), self.text()) for _ in range(n_codes)], 0.0), (parent, stop)


def _stops(path: Trace, version: int) -> dict[int, int]:
    """The instructions at which a path may stop, by what a file has for them; in version 1, the numbers of guards."""
    words = array("I", ffi.buffer(path.core.instr, 32 * path.core.n_instr)[:])
    if version > 1:
        return {k: k for k, op in enumerate(words[0::8]) if op == GUARD or (op < GUARD and CAN_REFUSE[op])}
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
    forms = tuple(reader.form() for _ in range(n_args))
    out = reader.form()
    n_in, n_out = sum(form.size for form in forms) + n_params, out.size
    if not n_out or 8 * n_out > reader.left() or n_in >> 32:
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
    if reader.left():
        raise ValueError(f"{reader.left()} bytes are left over")
    return Contents(forms, out, params, paths, children, on_branch, on_error)


def decode(data: bytes) -> Contents:
    """What these bytes hold; nothing in them is trusted.

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
    reader = _Reader(view[:-4], version, operations)
    reader.take(len(MAGIC) + 8)
    try:
        return _contents(reader)
    except ValueError as error:
        raise ValueError(f"a damaged tapegrad program: {error}") from None
