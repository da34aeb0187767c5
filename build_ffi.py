"""Describes the C core to cffi, which builds one extension, `tapegrad._core`; setuptools runs it.

    python build_ffi.py            build in place
    python build_ffi.py --check    say in one line what is missing to build, exit 1 if something is

TAPEGRAD_SANITIZE=address,undefined in the environment builds with those sanitizers."""
from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"

# The C handle is written for CPython's limited API, which free-threaded builds do not have; nor would a GIL guard it.
C_HANDLE = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

HANDLES = ("c", "cffi") if C_HANDLE else ("cffi",)

FILES = sorted(path.relative_to(ROOT) for path in CSRC.rglob("*.c"))
CORE = [path.as_posix() for path in FILES if path.parent.name != "handle"]
HANDLE = [path.as_posix() for path in FILES if path.parent.name == "handle"]
SOURCES = CORE + (HANDLE if C_HANDLE else [])
DEPENDS = sorted(p.relative_to(ROOT).as_posix() for kind in ("*.def", "*.h") for p in CSRC.rglob(kind))

HEADERS = (
    "tape.h", "partials.h", "gradient.h", "program.h", "wide/wide.h", "wide/share.h", "loops/hoist.h",
    "loops/stretch.h", "loops/cell.h", "loops/loop.h", "loops/call.h", "batch.h", "matrix.h", "lay_out.h",
    "look/look.h", "look/steps.h", "sparse/nonzeros.h", "sparse/colouring.h",
)  # fmt: skip

# -ffp-contract=off: no fused multiply-add, the same bits on every machine. Nobody reads errno or floating-point
# exceptions: so selections become vectors; no number depends on it. -g1: names and lines are what a crash is told by,
# and where variables are, which Python's own -g asks for, takes the compiler nearly as long as the code.
FLAGS = [] if os.name == "nt" else [
    "-std=c11", "-O2", "-g1", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden",
    "-pthread",
]  # fmt: skip


def declarations() -> str:
    """The marked sections of the headers, which are also the cdef."""
    section = ""
    for name in HEADERS:
        header = (CSRC / name).read_text(encoding="utf-8")
        section += header.split("/* cdef: begin */")[1].split("/* cdef: end */")[0]
    section += 'extern "Python" int _call_rule(void *, uint32_t);\nstatic const char *const tg_scalar_source;\n'
    return section + ("int tg_make_c_handle(void);\n" if C_HANDLE else "")


def preamble() -> str:
    """What cffi's part of the extension includes, and the text of scalar.h, which generated C carries a copy of."""
    text = (CSRC / "scalar.h").read_text(encoding="utf-8")
    for name in ("elementary.h", "compiled.h", "special.h", "formulas.def"):
        text = text.replace(f'#include "{name}"\n', (CSRC / name).read_text(encoding="utf-8"))
    lines = text.splitlines()
    text = "\n".join(json.dumps(line + "\n") for line in lines)
    includes = "".join(f'#include "{name}"\n' for name in HEADERS)
    made = "int tg_make_c_handle(void);\n" if C_HANDLE else ""
    return f"{includes}{made}static const char *const tg_scalar_source =\n{text};\n"


def builder() -> Any:
    """The FFI that setup.py names in `cffi_modules`."""
    old = too_old()
    if old:
        sys.exit(f"tapegrad cannot be built: missing {old}")
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(declarations())
    sanitize = os.environ.get("TAPEGRAD_SANITIZE")
    extra = ["-O1", f"-fsanitize={sanitize}", "-fno-sanitize-recover=all"] if sanitize else []
    ffi.set_source(
        "tapegrad._core",
        preamble(),
        sources=SOURCES,
        depends=DEPENDS,
        include_dirs=["csrc"],
        extra_compile_args=FLAGS + extra,
        extra_link_args=[] if os.name == "nt" else ["-pthread", *extra],
        libraries=[] if os.name == "nt" else ["m"],
        py_limited_api=True,
    )
    return ffi


def too_old() -> str | None:
    """Which Python it takes where this one is too old, or None: the C handle is built on the limited API of 3.11."""
    implementation = platform.python_implementation()
    if sys.version_info >= ((3, 9) if implementation == "PyPy" else (3, 11)):
        return None
    return f"CPython 3.11, PyPy 3.9 or later (this is {implementation} {platform.python_version()})"


def missing() -> str | None:
    """What is missing to build an extension, in one line, or None."""
    old = too_old()
    if old:
        return old
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    include = sysconfig.get_paths()["include"]
    with tempfile.TemporaryDirectory() as folder:
        for what, line in (
            (f"a C compiler ({compiler[0]} does not work): on Debian, apt install gcc", "int x;"),
            (f"the Python header {include}/Python.h: on Debian, apt install python3-dev", "#include <Python.h>"),
        ):
            source = Path(folder, "probe.c")
            source.write_text(line + "\n")
            command = [*compiler, f"-I{include}", "-c", str(source), "-o", str(Path(folder, "probe.o"))]
            try:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except (OSError, subprocess.CalledProcessError):
                return what
    return None


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        lack = missing()
        if lack:
            sys.exit(f"tapegrad cannot be built: missing {lack}")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        os.chdir(ROOT)
        builder().compile(verbose=False)
