"""Programs as machine code: compiled by the system's compiler, kept in a folder of the user's, loaded from there.

What is in that folder is run, so it has to be the user's own, and nobody else may write there. A library is named after
what it was made of and after its own bytes: a torn one is not taken for whole, and two processes at once write alike.
"""
from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import sysconfig
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._core import ffi, lib
from .grouped import write
from .replay import CData, Trace
from .source import Pieces

PART = 24  # chunks, some second, that a compiler gets at most
LEAST = 6  # chunks that are worth a compiler of their own

_log = logging.getLogger("tapegrad")

# No fused multiply-add; loops become vectors, straight lines are made of them as it is.
FLAGS = [
    "-std=gnu11", "-O1", "-ftree-vectorize", "-fno-tree-slp-vectorize", "-ffp-contract=off", "-fno-math-errno",
    "-fno-trapping-math", "-fPIC", "-shared",
]  # fmt: skip


def folder() -> Path:
    """Where libraries are kept: TAPEGRAD_CACHE, or tapegrad in XDG_CACHE_HOME or in ~/.cache; made where it is missing.

    Raises:
        RuntimeError: it is not a folder of the user's that nobody else may write to.
    """
    own = os.environ.get("TAPEGRAD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME", "")
    path = Path(own) if own else (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "tapegrad"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        if error.filename is None:  # a signal's handler raised it
            raise
        raise RuntimeError(f"native code cannot be kept: {error}; TAPEGRAD_CACHE names another folder") from error
    _trusted(path, stat.S_ISDIR, "a folder")
    return path


def _trusted(path: Path, is_kind: Callable[[int], bool], kind: str) -> None:
    status = path.lstat()
    if not is_kind(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise RuntimeError(f"{path} is not {kind} that this user owns and nobody else can write to: it is not loaded")


class Compilers:
    """Those that are running, each in a session of its own: gcc, if it alone is killed, leaves at work what it started.

    Args:
        scratch: the folder for what they write meanwhile.
    """

    def __init__(self, scratch: str | None = None) -> None:
        self._env = {**os.environ, "LC_ALL": "C", **({"TMPDIR": scratch} if scratch else {})}
        self._running: list[subprocess.Popen[str]] = []
        self._lock, self._ended = threading.Lock(), False

    def ask(self, command: list[str], source: str = "") -> tuple[int, str, str]:
        """What a command returns, prints, and complains of; RuntimeError where it does not run."""
        pipe = subprocess.PIPE
        try:
            with self._lock:
                if self._ended:
                    raise RuntimeError("native code is not wanted any more")
                process = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=self._env, start_new_session=True
                )
                self._running.append(process)
        except OSError as error:
            if error.filename is None:  # a signal's handler raised it, or there is no room for another process
                raise
            raise RuntimeError(f"native code needs a C compiler: {command[0]!r} does not run: {error}") from error
        with process:
            try:
                out, complaints = process.communicate(source)
            except BaseException:
                self.end()
                process.wait()
                raise
            finally:
                self._running.remove(process)
        return process.returncode, out, complaints

    def run(self, command: list[str], source: str = "") -> str:
        """What a command prints; RuntimeError where it fails."""
        code, out, complaints = self.ask(command, source)
        if code:
            raise RuntimeError(f"native code needs a C compiler: {' '.join(command)} failed:\n{complaints[-2000:]}")
        return out

    def end(self) -> None:
        """Kill those that are running, and begin no more."""
        with self._lock:
            self._ended = True
        for process in list(self._running):
            if process.poll() is None:
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(process.pid, signal.SIGKILL)


def compiler() -> tuple[list[str], str]:
    """The command that compiles, from CC or the first that is found, and what tells it from others: the file, and all
    that it defines, its version and this processor's features among it.

    Raises:
        RuntimeError: there is none, or it does not work.
    """
    if os.name == "nt":
        raise RuntimeError("native code needs gcc or clang on a POSIX system")
    named = os.environ.get("CC")
    candidates = [named] if named else [sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]
    for candidate in filter(None, candidates):
        command = candidate.split()
        path = shutil.which(command[0])
        if path is not None:
            break
    else:
        tried = ", ".join(filter(None, candidates))
        raise RuntimeError(f"native code needs a C compiler, and none was found ({tried}): install gcc, or set CC")
    command = [path, *command[1:]]
    defines = ["-E", "-dM", "-x", "c", "-"]
    compilers = Compilers()
    code, out, _ = compilers.ask([*command, "-march=native", *defines])
    if code == 0:
        return [*command, *FLAGS, "-march=native"], out
    return [*command, *FLAGS], compilers.run([*command, *defines])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parts(chunks: int, cores: int) -> list[tuple[int, int]]:
    """The chunks of each part, the first one's and the one behind its last; as many parts as keep all cores busy."""
    parts = max(1, -(-chunks // PART))
    parts = min(-(-parts // cores) * cores, max(1, chunks // LEAST))
    ends = [chunks * k // parts for k in range(parts + 1)]
    return list(zip(ends, ends[1:]))


def _compile(command: list[str], text: Path, made: Path, chunks: int) -> None:
    """Compile a source, a large one in parts on all cores."""
    cores, compilers = _cores(), Compilers(str(text.parent))
    parts = _parts(chunks, cores)
    if len(parts) == 1:
        compilers.run([*command, str(text), "-o", str(made), "-lm"])
        return
    objects = [str(text.with_suffix(f".{k}.o")) for k in range(len(parts))]
    _log.info("native code: compiling %d chunks in %d parts on %d cores", chunks, len(parts), cores)
    with ThreadPoolExecutor(cores, "tapegrad") as pool:
        jobs = [
            pool.submit(compilers.run, [*command, f"-DFROM={start}", f"-DTO={stop}", "-c", str(text), "-o", to])
            for (start, stop), to in zip(parts, objects)
        ]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                _log.info("native code: %d of %d parts are compiled", done, len(parts))
        except BaseException:
            for job in jobs:
                job.cancel()
            compilers.end()
            raise
    compilers.run([*command, *objects, "-o", str(made), "-lm"])


def library(source: str, chunks: int) -> Path:
    """The compiled source, from the folder where it is there and whole."""
    command, described = compiler()
    made_of = hashlib.sha256("\0".join([*command, described, source]).encode()).hexdigest()[:32]
    where = folder()
    for path in where.glob(f"{made_of}-*.so"):
        _trusted(path, stat.S_ISREG, "a file")
        if path.stem.endswith("-" + _digest(path)):
            return path
    with tempfile.TemporaryDirectory(dir=where) as scratch:
        text, made = Path(scratch, "program.c"), Path(scratch, "program.so")
        text.write_text(source, encoding="utf-8")
        _compile(command, text, made, chunks)
        with made.open("rb+") as file:
            os.fsync(file.fileno())
        path = where / f"{made_of}-{_digest(made)}.so"
        os.chmod(made, 0o700)
        os.replace(made, path)
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def make_native(path: Trace) -> None:
    """Compile a path that is not yet compiled, and the steps of the loops in it."""
    for number, call in enumerate(path.calls):
        for k, step in enumerate(call.step.paths):
            make_native(step)
            assert step.native is not None
            path.core.call[number].loop.step.native[k] = step.native[0]
    if path.native is None:
        path.native = compiled(path.core)


def opened(path: Path) -> ctypes.CDLL:
    """A library, loaded."""
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        if type(error) is not OSError:  # a signal's handler raised it: the loader's are of no kind
            raise
        raise RuntimeError(f"native code cannot be loaded: {error}; TAPEGRAD_CACHE names another folder") from error


def table_in(loaded: ctypes.CDLL, name: str) -> int:
    """Where a table of functions is in a library."""
    return ctypes.addressof(ctypes.c_char.in_dll(loaded, name))


def compiled(program: CData) -> tuple[Any, ...]:
    """A tg_native of a program of the core, and what it points to; a library that goes may take its code with it."""
    source = write(program)
    loaded = opened(library(source.text, source.functions))
    native = ffi.new("tg_native *")
    numbers = []
    for codes, by_width in (native.code, source.pieces), (native.values, source.values):
        for code, width, pieces in zip(codes, ("one", "wide"), by_width):
            numbers.append(_code(code, program, pieces))
            for table in ("forward", "reverse"):
                setattr(code, table, ffi.cast(ffi.typeof(getattr(code, table)), table_in(loaded, f"{width}_{table}")))
    return native, numbers, loaded


def _code(code: CData, program: CData, pieces: Pieces) -> list[CData]:
    """Say what pieces of a program are; what the code then points to."""
    told: list[int] = []
    at = []
    for piece in pieces:
        at.append(len(told))
        told.extend(piece[2])
    functions = [lib.TG_NONE if function is None else function for _, function, _ in pieces]
    first = [*(start for start, _, _ in pieces), program.n_instr]
    arrays = [ffi.new("uint32_t[]", numbers or [0]) for numbers in (first, functions, at, told)]
    code.n = len(pieces)
    code.first, code.function, code.at, code.told = arrays
    code.list = program.wide.list if program.wide else ffi.NULL
    return arrays
