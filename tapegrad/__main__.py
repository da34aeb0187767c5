"""The command line: `python -m tapegrad run | demo | info | --version`."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import tapegrad
from tapegrad.serving import serve

if TYPE_CHECKING:
    from argparse import ArgumentParser

class CannotRun(Exception):
    """There is no such program."""


def run(kind: str, program: str, args: Sequence[str]) -> None:
    """Run a program as `python` would, with micrograd served from tapegrad, also to the interpreters it starts.

    Args:
        kind: "-m" for a module, "-c" for a string of code, "" for a file, a directory, a zip file or "-".
        program: which one.
        args: what the program finds in `sys.argv[1:]`.
    """
    serve(sys.path if _safe_path() else sys.path[1:])
    sys.argv = [kind or program, *args]
    try:
        code, names = _load(kind, program)
        main = sys.modules["__main__"] = ModuleType("__main__")
        vars(main).update(__builtins__=builtins, **names)
        exec(code, vars(main))
    except CannotRun as error:
        sys.exit(f"{sys.executable}: {error}")
    except BaseException as error:
        _hide_own_frames(error)
        raise


def _load(kind: str, program: str) -> tuple[CodeType, dict[str, Any]]:
    """Find a program, set `sys.path[0]` and `sys.argv[0]`, and return its code and the names `python` gives it."""
    if kind == "-m":
        return _load_module(program)
    if kind == "-c":
        _set_path("")
        return _compile(program, "<string>"), {"__loader__": BuiltinImporter}
    if program == "-":
        _set_path("")
        names: dict[str, Any] = {"__file__": "<stdin>", "__cached__": None, "__loader__": BuiltinImporter}
        return _compile(sys.stdin.buffer.read(), "<stdin>"), names

    import pkgutil

    path = os.path.join(os.getcwd(), program)
    if pkgutil.get_importer(path):
        _set_path(path, always=True)
        return _load_module("")
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        sys.exit(2)
    _set_path(os.path.dirname(os.path.realpath(path)))
    names = {"__file__": path, "__cached__": None, "__loader__": SourceFileLoader("__main__", path)}
    code = pkgutil.read_code(io.BytesIO(source))
    if code:
        return code, {**names, "__loader__": SourcelessFileLoader("__main__", path)}
    return _compile(source, path), names


def _load_module(name: str) -> tuple[CodeType, dict[str, Any]]:
    """Do so for a module, or for the `__main__` of `sys.path[0]` where the name is empty."""
    import runpy

    # What `python -m` itself calls; runpy's public functions execute, and put frames in between.
    find: Any = runpy._get_module_details if name else runpy._get_main_module_details  # type: ignore[attr-defined]
    _, spec, code = find(name, CannotRun) if name else find(CannotRun)
    if name:
        sys.argv[0] = spec.origin
    return code, {
        "__file__": spec.origin,
        "__cached__": spec.cached,
        "__loader__": spec.loader,
        "__package__": spec.parent,
        "__spec__": spec,
    }


def _compile(source: str | bytes, filename: str) -> CodeType:
    code: CodeType = compile(source, filename, "exec", dont_inherit=True)
    return code


def _set_path(entry: str, always: bool = False) -> None:
    """Put an entry where `python -m` put the working directory, if it did (-I and -P say no)."""
    if not _safe_path():
        sys.path[0] = entry
    elif always:
        sys.path.insert(0, entry)


def _safe_path() -> bool:
    return bool(getattr(sys.flags, "safe_path", False) or sys.flags.isolated)


def _hide_own_frames(error: BaseException) -> None:
    """Have the interpreter, when it prints this error, start the traceback in the program."""
    trace = error.__traceback__
    while trace and _is_own(trace):
        trace = trace.tb_next
    hook = getattr(sys, "excepthook", sys.__excepthook__)

    def show(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = show


def _is_own(trace: TracebackType) -> bool:
    names = trace.tb_frame.f_globals
    name = names.get("__name__", "")
    return names is globals() or name in ("runpy", "zipimport") or name.startswith(("importlib.", "_frozen_importlib"))


def info() -> None:
    """Print what was built, and how."""
    build = tapegrad.tape.build
    print("version      ", tapegrad.__version__)
    print("handle       ", tapegrad.tape.handle)
    print("compiler     ", build["compiler"])
    print("bytes a node ", build["bytes_per_node"])
    print("ABI          ", build["abi"])


def _parser() -> ArgumentParser:
    import argparse

    def positive(text: str) -> int:
        number = int(text)
        if number < 1:
            raise ValueError
        return number

    parser = argparse.ArgumentParser(prog="python -m tapegrad", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"tapegrad {tapegrad.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    what = "run a program that imports micrograd on tapegrad"
    command = commands.add_parser(
        "run", help=what, description=what, usage="%(prog)s PROG [ARGS...] | -m MODULE [ARGS...] | -c CODE [ARGS...]"
    )
    command.add_argument("-m", metavar="MODULE", help="run a module, as python -m does")
    command.add_argument("-c", metavar="CODE", help="run a string of code, as python -c does")
    command.add_argument("PROG", help="a file, a directory or zip file with __main__.py, or - for standard input")
    command.add_argument("ARGS", nargs="*", help="all that follows goes to the program")

    what = "train a network of scalar Values on the iris data, and time it beside a closure engine"
    command = commands.add_parser("demo", help=what, description=what, allow_abbrev=False)
    command.add_argument("--steps", type=positive, default=200, help="training steps (default: %(default)s)")
    command.add_argument("--seed", type=int, default=1936, help="of the split and the weights (default: %(default)s)")

    command.add_argument("--page", metavar="FILE", help="write a page that shows it: loss, decision, a neuron, heat")

    what = "print version, handle, compiler, bytes a node and ABI"
    commands.add_parser("info", help=what, description=what, allow_abbrev=False)
    return parser


def main(argv: Sequence[str]) -> None:
    """Do what the command line says, or print a usage line and exit with status 2."""
    if argv[:1] == ["run"]:
        kind = argv[1] if argv[1:2] in (["-m"], ["-c"]) else ""
        program = argv[2 if kind else 1 :]
        if program and (kind or program[0] == "-" or not program[0].startswith("-")):
            return run(kind, program[0], program[1:])
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command == "info":
        info()
    elif args.command == "demo":
        from tapegrad import demo

        demo.main(args.steps, args.seed, args.page)
    else:
        parser.error("run takes PROG, -m MODULE or -c CODE, then a space")
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
