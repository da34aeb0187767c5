"""What is shipped and what is promised about it: sdist, wheel, README, imports, and what a build that fails says."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import HeaderParser

import pytest

import tapegrad
from tapegrad import tape

ROOT = pathlib.Path(__file__).resolve().parent.parent
ABI3 = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
FOLDERS = ["benchmarks", "csrc", "docs", "examples", "tapegrad", "tests", "tools"]
SOURCES = {".c", ".csv", ".def", ".h", ".md", ".py", ".pyi", ".typed"}

source = pytest.mark.skipif(not (ROOT / "build_ffi.py").is_file(), reason="the tests are not beside their source")


def run(*command, cwd=ROOT, code=0, **variables):
    """Run a command, expect this exit status and return what it said."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def python_path(*entries):
    return os.pathsep.join(filter(None, [*map(str, entries), os.environ.get("PYTHONPATH")]))


def built(kind, tree, out):
    """The file that the build backend makes of a tree; setuptools itself, so that no network is needed."""
    try:
        import setuptools
    except ImportError:
        pytest.skip("setuptools is not installed")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools is {setuptools.__version__}, the build needs 77")
    out.mkdir()
    run(sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})", cwd=tree)
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution of a copy of this tree in which somebody has built in place."""
    folder = tmp_path_factory.mktemp("sdist")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "*.pyd"))
    (tree / "tapegrad" / "__pycache__").mkdir(exist_ok=True)
    for name in ("csrc/tape.o", "tapegrad/_core.c", "tapegrad/_core.o", "tapegrad/__pycache__/tape.cpython-39.pyc"):
        (tree / name).touch()
    (tree / "tapegrad" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    return built("sdist", tree, folder / "dist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel that TAPEGRAD_WHEEL names, or that made of this source distribution: one for both handles."""
    if os.environ.get("TAPEGRAD_WHEEL"):
        return pathlib.Path(os.environ["TAPEGRAD_WHEEL"])
    if tape.handle == "cffi" and ABI3:
        pytest.skip("the c handle's tests build the wheel")
    if subprocess.run([sys.executable, ROOT / "build_ffi.py", "--check"], capture_output=True, check=False).returncode:
        pytest.skip("no compiler or no Python header")
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (tree,) = folder.iterdir()
    return built("wheel", tree, folder / "dist")


@pytest.fixture(scope="module")
def shipped(sdist):
    """The names of the files in the source distribution."""
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def installed(wheel):
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@source
@pytest.mark.parametrize("folder", [name for name in FOLDERS if (ROOT / name).is_dir()])
def test_the_sdist_holds_every_source(folder, shipped):
    here = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.suffix in SOURCES}
    assert here - {"tapegrad/_core.c"} <= shipped


@source
def test_the_sdist_holds_what_builds_tests_and_explains_it(shipped):
    assert {"pyproject.toml", "setup.py", "build_ffi.py", "MANIFEST.in", "Makefile"} <= shipped
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"} <= shipped


@source
def test_the_sdist_holds_nothing_generated(shipped):
    generated = re.compile(r"\.(o|so|pyd|py[cod])$|__pycache__|/_core\.c$|^\.|^build/")
    assert not [name for name in shipped if generated.search(name)]


@source
def test_the_wheel_is_for_every_cpython_from_3_11(wheel, installed):
    if not ABI3:
        pytest.skip("the stable ABI is CPython's, with a GIL")
    assert wheel.name.startswith(f"tapegrad-{tapegrad.__version__}-cp311-abi3-")
    assert [name for name in installed if "_core" in name] in (["tapegrad/_core.abi3.so"], ["tapegrad/_core.pyd"])


@source
def test_the_wheel_holds_types_and_the_demo_data(installed):
    assert {"tapegrad/py.typed", "tapegrad/_c_handle.pyi"} <= installed
    assert {"tapegrad/demo/iris.csv", "tapegrad/demo/README.md"} <= installed
    assert {"tapegrad/look/page.css", "tapegrad/look/page.js"} <= installed


@source
def test_the_wheel_holds_every_module_and_nothing_else(installed):
    package = ROOT / "tapegrad"
    assert {p.relative_to(ROOT).as_posix() for p in package.rglob("*.py")} <= installed
    assert {name.split("/")[0] for name in installed} == {"tapegrad", f"tapegrad-{tapegrad.__version__}.dist-info"}
    assert not [name for name in installed if name.endswith((".c", ".h", ".o"))]


@source
def test_the_wheel_says_what_it_is(wheel, installed):
    info = f"tapegrad-{tapegrad.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        about = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("tapegrad", tapegrad.__version__, "MIT")
    assert about["Requires-Python"] == ">=3.9"
    assert [need for need in about.get_all("Requires-Dist") if "extra" not in need] == ["cffi>=1.15.1"]
    assert f"{info}/licenses/LICENSE" in installed


@source
def test_the_wheel_computes(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from tapegrad import Value; x = Value(3.0); (x * x).backward(); print(x.grad, Value.__module__)"
    run(sys.executable, "-c", f"{code}; import tapegrad; assert tapegrad.__file__.startswith({str(tmp_path)!r})",
        cwd=tmp_path, PYTHONPATH=python_path(tmp_path), TAPEGRAD_HANDLE=tape.handle)  # fmt: skip


@source
def test_a_source_that_is_not_built_says_so(tmp_path):
    shutil.copytree(ROOT / "tapegrad", tmp_path / "tapegrad", ignore=shutil.ignore_patterns("_core*", "__pycache__"))
    # Not site-packages, for what an editable installation has there finds the core of another source.
    said = run(sys.executable, "-S", "-c", "import tapegrad", cwd=tmp_path, code=1, PYTHONPATH=str(tmp_path)).stderr
    assert "ImportError: tapegrad is not built in " in said.splitlines()[-1]


@source
def test_the_version_stands_in_one_place():
    files = [ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "build_ffi.py", *(ROOT / "tapegrad").rglob("*.py")]
    holders = [p.name for p in files if f'"{tapegrad.__version__}"' in p.read_text(encoding="utf-8")]
    assert holders == ["_version.py"]


@source
def test_the_changelog_knows_this_version():
    assert re.search(rf"^## \[?{re.escape(tapegrad.__version__)}\b", read("CHANGELOG.md"), re.MULTILINE)


@source
@pytest.mark.parametrize("k", (0, 1, 2))
def test_the_readme_shows_what_its_examples_print(script, k):
    examples = re.findall(r"^```python\n(.*?)^```\n+^```\n(.*?)^```$", read("README.md"), re.DOTALL | re.M)
    assert len(examples) == 3
    code, output = examples[k]
    assert len(code.splitlines()) <= (15, 18, 18)[k]
    assert script(code).stdout.replace("<string>", "loss.py") == output


@source
def test_the_readme_names_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", read("Makefile"), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"^    make (\w+)", read("README.md"), re.MULTILINE)) <= targets


@pytest.mark.parametrize("name", tapegrad.__all__)
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(tapegrad, name)
    assert name == "__version__" or (thing.__doc__ or "").strip()


@source
@pytest.mark.parametrize("name", sorted(set(tapegrad.__all__) - {"__version__"}))
def test_the_readme_names_every_public_name(name):
    assert re.search(rf"`(tapegrad\.)?{name}\b", read("README.md"))


def test_public_names_come_with_a_star(script):
    names = set(tapegrad.__all__)
    assert script(f"from tapegrad import *\nassert globals().keys() >= {names}\nprint('done')").stdout


@source
def test_what_is_derived_from_the_table_is_up_to_date():
    run(sys.executable, "tools/derive.py", "--check", PYTHONPATH=python_path(ROOT))


@pytest.mark.skipif(not ABI3, reason="the bar is CPython's")
def test_importing_takes_less_than_30_ms(script):
    """In time of the processor, and the best of several: a test must not fail because others use the machine."""
    code = "import time; start = time.process_time(); import tapegrad; print(time.process_time() - start)"
    script(code)  # writes the byte code
    assert any(float(script(code).stdout) < 0.030 for _ in range(20))


def test_importing_takes_no_numpy_along(script, np):
    assert script("import sys, tapegrad; print('numpy' in sys.modules)").stdout == "False\n"


def test_without_dask_its_module_says_what_to_install(script):
    code = "import sys\nsys.modules['distributed'] = None\ntry: import tapegrad.dask\nexcept ImportError as e: print(e)"
    assert script(code).stdout == "tapegrad.dask needs Dask: pip install 'tapegrad[dask]'\n"


@pytest.fixture
def no_header(tmp_path):
    """A PYTHONPATH under which the header of Python is looked for where it is not."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sysconfig\n"
        "paths = sysconfig.get_paths()\n"
        f"sysconfig.get_paths = lambda *args, **kwargs: {{**paths, 'include': {str(tmp_path / 'no')!r}}}\n"
    )
    return python_path(tmp_path)


NO_COMPILER = r"tapegrad cannot be built: missing a C compiler \(/nonexistent does not work\): .*apt install gcc"
NO_HEADER = r"tapegrad cannot be built: missing the Python header .*/no/Python.h: .*apt install \S+-dev"


@source
def test_a_missing_compiler_is_said_in_one_line():
    said = run(sys.executable, "build_ffi.py", "--check", code=1, CC="/nonexistent").stderr
    assert re.fullmatch(NO_COMPILER + "\n", said)


@source
@pytest.mark.parametrize("arguments", [["build_ffi.py", "--check"], ["setup.py", "--quiet", "--version"]])
def test_a_python_that_is_too_old_is_refused_in_one_line(arguments, tmp_path):
    """By pip as well, which asks setup.py: requires-python has one floor for CPython and PyPy."""
    floor = (3, 11) if platform.python_implementation() == "CPython" else (3, 9)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.version_info = {(3, floor[1] - 1, 19, 'final', 0)}\n")
    said = run(sys.executable, *arguments, code=1, PYTHONPATH=python_path(tmp_path)).stderr
    assert re.fullmatch(r"tapegrad cannot be built: missing CPython 3\.11, PyPy 3\.9 or later \(this is .*\)\n", said)


@source
def test_a_missing_header_is_said_in_one_line(no_header):
    if subprocess.run([sys.executable, ROOT / "build_ffi.py", "--check"], capture_output=True, check=False).returncode:
        pytest.skip("there is no compiler")
    said = run(sys.executable, "build_ffi.py", "--check", code=1, PYTHONPATH=no_header).stderr
    assert re.fullmatch(NO_HEADER + "\n", said)


@source
@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
@pytest.mark.parametrize("target", ["demo", "test"])
@pytest.mark.parametrize("lack", ["compiler", "header", "python"])
def test_make_says_in_one_line_what_is_missing(lack, target, no_header, tmp_path):
    python, expected, variables = sys.executable, NO_COMPILER, {"CC": "/nonexistent"}
    if lack == "header":
        expected, variables = NO_HEADER, {"PYTHONPATH": no_header}
    elif lack == "python":
        python, expected, variables = "/nonexistent", "tapegrad cannot be built: missing CPython 3.11, PyPy 3.9 .*", {}
    variables = {"MAKEFLAGS": "", "MAKELEVEL": "", **variables}  # as if no make had started these tests
    done = run("make", target, f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", code=2, **variables)
    ours = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(ours) == 1 and re.fullmatch(expected, ours[0]) and not done.stdout
    assert not (tmp_path / "venv").exists()
