"""`python -m tapegrad`: programs under `run` behave as under `python`; `info` and `demo` say what they promise."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import zipfile

import pytest

import tapegrad
from tapegrad import demo, tape
from tapegrad.demo import closure, iris, network
from tapegrad.demo.progress import Progress

ROOT = pathlib.Path(tapegrad.__file__).parent.parent
posix = pytest.mark.skipif(os.name != "posix", reason="signals, fork and pseudo-terminals are POSIX")


@pytest.fixture
def python(tmp_path):
    """A function that runs an interpreter in tmp_path, on this package and this handle."""

    def run(*args, code=0, stdin=None, **variables):
        env = {**os.environ, "TAPEGRAD_HANDLE": tape.handle, **variables}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
        command = [sys.executable, *map(str, args)]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, input=stdin, capture_output=True, text=True, timeout=300, check=False
        )
        if code is not None:
            assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture
def cli(python):
    """A function that runs `python -m tapegrad` with these arguments."""
    return lambda *args, **kwargs: python("-m", "tapegrad", *args, **kwargs)


@pytest.fixture
def write(tmp_path):
    """A function that writes a program below tmp_path and returns its relative name."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return name

    return write


@pytest.fixture
def as_python(python, cli):
    """A function that runs the same under plain python and under run, and compares all that can be seen."""

    def compare(*args, stdin=None):
        plain = python(*args, stdin=stdin, code=None)
        served = cli("run", *args, stdin=stdin, code=None)
        assert (served.stdout, served.stderr, served.returncode) == (plain.stdout, plain.stderr, plain.returncode)
        return served

    return compare


@pytest.fixture
def impostor(write, tmp_path, monkeypatch):
    """A micrograd that is installed, which must not be the one that is imported."""
    write("installed/micrograd/__init__.py", "raise SystemExit('the wrong micrograd')")
    write("installed/micrograd/engine.py", "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))


WHAT_MAIN_IS = """
    import sys
    main = sys.modules["__main__"]
    names = {name: vars(main).get(name, "absent") for name in
             ("__name__", "__doc__", "__file__", "__package__", "__cached__")}
    spec = main.__spec__ and (main.__spec__.name, main.__spec__.origin, main.__spec__.parent)
    print(names, spec, type(main.__loader__), type(main.__builtins__), main is sys.modules[__name__], __name__)
    print(sys.argv, sys.path[0], globals() is vars(main))
"""


# Which micrograd a program gets


IMPORTS = [
    "from micrograd.engine import Value",
    "import micrograd.engine as e; Value = e.Value",
    "import micrograd.engine; Value = micrograd.engine.Value",
    "from micrograd import engine; Value = engine.Value",
    "from micrograd.tensor import Value",
    "from micrograd.nn import Value",
    "from micrograd import Value",
    "import importlib; Value = importlib.import_module('micrograd.engine').Value",
    "import micrograd; Value = micrograd.engine.Value",
    "import importlib.util; Value = importlib.util.find_spec('micrograd.engine') and __import__('tapegrad').Value",
    "import pickle; Value = pickle.loads(b'cmicrograd.engine\\nValue\\n.')",
]


@pytest.mark.parametrize("line", IMPORTS)
def test_every_way_to_import_gives_the_same_value(cli, write, impostor, line):
    program = write("prog.py", f"{line}\nimport tapegrad\nprint(Value is tapegrad.Value)")
    assert cli("run", program).stdout == "True\n"


def test_modules_are_tapegrads_own(cli, write, impostor):
    program = write(
        "prog.py",
        """
        import micrograd.engine, micrograd.nn, micrograd.tensor
        import tapegrad.engine, tapegrad.nn, tapegrad.tensor
        for name in ("engine", "nn", "tensor"):
            assert getattr(micrograd, name) is getattr(tapegrad, name)
            assert getattr(tapegrad, name).__spec__.name == f"tapegrad.{name}"
        print(micrograd.__version__ == tapegrad.__version__, micrograd.__file__ == tapegrad.__file__)
        """,
    )
    assert cli("run", program).stdout == "True True\n"


def test_a_submodule_that_micrograd_lacks_is_not_found(cli, write, impostor):
    program = write("prog.py", "import micrograd.optim")
    assert "ModuleNotFoundError: No module named 'micrograd.optim'" in cli("run", program, code=1).stderr


def test_modules_imported_afresh_are_served_again(cli, write, impostor):
    program = write(
        "prog.py",
        """
        import sys, micrograd.nn
        for name in [name for name in sys.modules if name.startswith("micrograd")]:
            del sys.modules[name]
        import micrograd.nn, tapegrad
        print(micrograd.nn is tapegrad.nn)
        """,
    )
    assert cli("run", program).stdout == "True\n"


def test_outside_run_nothing_is_served(python):
    done = python("-c", "import tapegrad, importlib.util, sys; print('micrograd' in sys.modules, len(sys.meta_path))")
    plain = python("-c", "import sys; print('micrograd' in sys.modules, len(sys.meta_path))")
    assert done.stdout == plain.stdout


def test_a_module_program_is_served_too(cli, write, impostor):
    write("pkg/__init__.py", "")
    write("pkg/train.py", "from micrograd.nn import MLP\nprint(MLP(2, [1]))")
    assert cli("run", "-m", "pkg.train").stdout == "MLP of [Layer of [LinearNeuron(2)]]\n"


def test_tests_under_pytest_are_served(cli, write, impostor):
    write("test_it.py", "import micrograd.nn, tapegrad\ndef test(): assert micrograd.nn is tapegrad.nn")
    assert "1 passed" in cli("run", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py").stdout


# A micrograd of the program's own


@pytest.fixture
def own(write):
    """A function that writes a micrograd of the program's own into a folder."""

    def own(folder="."):
        write(f"{folder}/micrograd/__init__.py", "from .engine import Value\nfrom .nn import MLP\nmine = True")
        write(f"{folder}/micrograd/engine.py", "raise SystemExit('the wrong engine')")
        write(f"{folder}/micrograd/nn.py", "from .engine import Value\nclass MLP: mine = True")
        write(f"{folder}/micrograd/layers.py", "from micrograd.engine import Value\nclass Linear: mine = True")

    return own


USES_OWN = """
    import sys
    import tapegrad
    import micrograd.nn
    from micrograd import MLP, Value, engine, mine
    from micrograd.layers import Linear, Value as V
    print(Value is V is tapegrad.Value, engine is tapegrad.engine, MLP.mine, Linear.mine, micrograd.nn.MLP is MLP)
"""
ALL_ITS_OWN = "True True True True True\n"


@pytest.mark.parametrize("arguments", [["sub/prog.py"], ["sub"], ["-m", "prog"], ["-c", "import prog"]], ids=str)
def test_of_a_micrograd_beside_the_program_the_engine_alone_is_served(cli, write, own, arguments):
    where = "sub" if arguments[0].startswith("sub") else "."
    own(where)
    write(f"{where}/prog.py", USES_OWN)
    write(f"{where}/__main__.py", USES_OWN)
    assert cli("run", *arguments).stdout == ALL_ITS_OWN


def test_it_may_be_a_package_without_an_init(cli, write):
    write("micrograd/engine.py", "raise SystemExit('the wrong engine')")
    write("micrograd/adam.py", "from micrograd.engine import Value")
    program = write("prog.py", "from micrograd.adam import Value\nimport tapegrad\nprint(Value is tapegrad.Value)")
    assert cli("run", program).stdout == "True\n"


def test_it_may_lie_where_the_program_says(cli, write, own, impostor):
    own("lib")
    program = write("sub/prog.py", "import sys; sys.path.append('lib')\n" + textwrap.dedent(USES_OWN))
    assert cli("run", program).stdout == ALL_ITS_OWN


def test_it_comes_before_one_that_is_installed(cli, write, own, impostor):
    own()
    assert cli("run", write("prog.py", USES_OWN)).stdout == ALL_ITS_OWN


def test_a_folder_that_just_has_the_name_is_no_package(cli, write):
    write("micrograd/README", "a clone")
    write("micrograd/micrograd/engine.py", "")
    program = write("prog.py", "from micrograd.nn import MLP\nimport tapegrad\nprint(MLP is tapegrad.nn.MLP)")
    assert cli("run", program).stdout == "True\n"


def test_what_a_package_of_its_own_lacks_is_not_found(cli, write, own):
    own()
    program = write("prog.py", "import micrograd.tensor")
    assert "ModuleNotFoundError: No module named 'micrograd.tensor'" in cli("run", program, code=1).stderr


# The program sees what plain python shows it


def test_a_script_sees_the_main_module_of_python(as_python, write):
    assert "'__name__': '__main__'" in as_python(write("sub/prog.py", WHAT_MAIN_IS), "one", "-x", "--", "run").stdout


def test_a_module_sees_the_main_module_of_python(as_python, write):
    write("pkg/__init__.py", "")
    write("pkg/prog.py", WHAT_MAIN_IS)
    as_python("-m", "pkg.prog", "-m", "x")


def test_a_package_sees_the_main_module_of_python(as_python, write):
    write("pkg/__init__.py", "")
    write("pkg/__main__.py", WHAT_MAIN_IS)
    as_python("-m", "pkg", "x")


def test_a_directory_sees_the_main_module_of_python(as_python, write):
    write("app/__main__.py", WHAT_MAIN_IS)
    as_python("app", "x")


def test_a_zip_file_sees_the_main_module_of_python(as_python, write, tmp_path):
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
        file.writestr("__main__.py", textwrap.dedent(WHAT_MAIN_IS))
    as_python("app.zip", "x")


def test_standard_input_is_a_program(as_python):
    assert as_python("-", "x", stdin=textwrap.dedent(WHAT_MAIN_IS)).stdout.endswith("['-', 'x']  True\n")


def test_a_string_of_code_is_a_program(as_python):
    assert as_python("-c", textwrap.dedent(WHAT_MAIN_IS), "x", "-c").stdout.endswith("['-c', 'x', '-c']  True\n")


def test_a_compiled_file_is_a_program(as_python, python, write, tmp_path):
    program = write("prog.py", WHAT_MAIN_IS)
    python("-c", f"import py_compile; py_compile.compile({program!r}, 'prog.pyc')")
    as_python("prog.pyc", "x")


@posix
def test_a_link_to_a_script_finds_the_modules_beside_the_script(as_python, write, tmp_path):
    write("real/beside.py", "print('found')")
    (tmp_path / "link.py").symlink_to(tmp_path / write("real/prog.py", "import beside"))
    assert as_python("link.py").stdout == "found\n"


def test_the_encoding_of_a_source_file_counts(as_python, tmp_path):
    (tmp_path / "prog.py").write_bytes(b"# coding: latin-1\nprint(ascii('\xe4'))\n")
    assert as_python("prog.py").stdout == "'\\xe4'\n"


def test_future_imports_of_the_command_line_stay_out_of_the_program(as_python, write):
    program = write("prog.py", "def f(x: 1 + 1): pass\nprint(f.__annotations__)")
    assert as_python(program).stdout == "{'x': 2}\n"


def test_classes_of_a_program_pickle(as_python, write):
    program = write(
        "prog.py",
        """
        import pickle
        class Point:
            x = 3
        print(pickle.loads(pickle.dumps(Point())).x, Point.__module__)
        """,
    )
    assert as_python(program).stdout == "3 __main__\n"


def test_options_after_the_program_are_the_programs(cli, write):
    program = write("prog.py", "import sys; print(sys.argv[1:])")
    assert cli("run", program, "-h", "-m", "--steps", "info").stdout == "['-h', '-m', '--steps', 'info']\n"


def test_isolated_mode_puts_nothing_on_the_path(python, write):
    program = write("sub/prog.py", "import sys; print(sys.path)")
    start = f"import sys; sys.path.append({str(ROOT)!r}); from tapegrad.__main__ import main; main(sys.argv[1:])"
    assert str(pathlib.Path(program).parent) not in python("-I", "-c", start, "run", program).stdout


# Exit status and tracebacks


@pytest.mark.parametrize("argument", ["", "None", "0", "3", "'a message'", "True", "2.5", "-1"])
def test_the_exit_status_is_the_programs(as_python, write, argument):
    as_python(write("prog.py", f"import sys; sys.exit({argument})"))


def test_a_traceback_shows_the_program_alone(as_python, write):
    program = write("prog.py", "def f():\n    return 1 / 0\n\nf()")
    done = as_python(program)
    assert done.returncode == 1
    assert "tapegrad" not in done.stderr


def test_chained_errors_print_as_under_python(as_python, write):
    program = write("prog.py", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('x') from e")
    assert "direct cause" in as_python(program).stderr


@pytest.mark.parametrize("program", ["x = = 1", "def f():\n  x\n y", "'\\x'", "return 1", "x = '"])
def test_a_syntax_error_prints_as_under_python(as_python, write, program):
    assert as_python(write("prog.py", program + "\n")).returncode == 1


def test_a_module_that_fails_shows_no_frame_of_the_machinery(cli, write):
    write("pkg/__init__.py", "")
    write("pkg/prog.py", "1 / 0")
    lines = cli("run", "-m", "pkg.prog", code=1).stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert re.search(r"prog\.py\W+line 1, in <module>", lines[1])
    assert lines[-1] == "ZeroDivisionError: division by zero"
    write("pkg/__init__.py", "1 / 0")
    assert re.search(r"__init__\.py\W+line 1", cli("run", "-m", "pkg.prog", code=1).stderr.splitlines()[1])


def test_an_excepthook_of_the_program_is_called(as_python, write):
    program = write(
        "prog.py",
        """
        import sys, traceback
        def hook(kind, error, trace):
            print("hook", kind, [frame.name for frame in traceback.extract_tb(trace)], sys.exc_info())
            print(trace is error.__traceback__)
        sys.excepthook = hook
        1 / 0
        """,
    )
    assert as_python(program).stdout.startswith("hook <class 'ZeroDivisionError'> ['<module>'] (None, None, None)")


def test_exit_handlers_run_after_the_traceback(as_python, write):
    program = write("prog.py", "import atexit, sys; atexit.register(print, 'bye', file=sys.stderr); 1 / 0")
    assert as_python(program).stderr.endswith("by zero\nbye\n")


def test_globals_live_until_the_interpreter_ends(as_python, write):
    program = write("prog.py", "import atexit\nx = 'alive'\n@atexit.register\ndef f(): print(x)")
    assert as_python(program).stdout == "alive\n"


@posix
def test_an_interrupt_ends_the_program_by_the_signal(as_python, write):
    done = as_python(write("prog.py", "raise KeyboardInterrupt"))
    assert done.returncode == -signal.SIGINT
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_a_missing_file_is_refused_as_by_python(python, cli):
    plain, served = python("missing.py", code=2), cli("run", "missing.py", code=2)
    assert served.stderr.replace("'", "") == plain.stderr.replace("'", "")  # PyPy does not quote the name


def test_a_missing_module_is_refused_as_by_python(as_python):
    assert as_python("-m", "no.such.module").returncode == 1
    assert as_python("-m", "no_such_module").stderr.endswith(": No module named no_such_module\n")


def test_a_package_without_a_main_is_refused_as_by_python(as_python, write):
    write("pkg/__init__.py", "")
    assert "cannot be directly executed" in as_python("-m", "pkg").stderr


def test_a_directory_without_a_main_is_refused_as_by_python(as_python, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "can't find '__main__' module" in as_python("empty").stderr


# Children


@pytest.mark.parametrize("method", ["spawn", "forkserver", pytest.param("fork", marks=posix)])
def test_multiprocessing_children_are_served(cli, write, impostor, method):
    if method == "forkserver" and os.name != "posix":
        pytest.skip("Windows has no fork server")
    program = write(
        "sub/prog.py",
        f"""
        import multiprocessing
        from micrograd.engine import Value

        def slope(x):
            v = Value(x)
            (v * v).backward()
            return v.grad, Value.__module__

        if __name__ == "__main__":
            with multiprocessing.get_context({method!r}).Pool(1) as pool:
                print(pool.map(slope, [3.0]) == [slope(3.0)], slope(3.0)[0])
        """,
    )
    assert cli("run", program).stdout == "True 6.0\n"


WHICH = "import sys, tapegrad, micrograd.engine as e; print(e is tapegrad.engine, any('child' in p for p in sys.path))"


@pytest.mark.parametrize("command", [["-c", WHICH], ["which.py"], ["-m", "which"]], ids=["-c", "file", "-m"])
def test_interpreters_that_a_program_starts_are_served(cli, write, impostor, command):
    write("which.py", WHICH)
    program = write("prog.py", f"import subprocess, sys; subprocess.run([sys.executable, *{command}], check=True)")
    assert cli("run", program).stdout == "True False\n"


def test_so_are_those_that_these_start(cli, write, impostor):
    write("which.py", WHICH)
    write("child.py", "import subprocess, sys; subprocess.run([sys.executable, 'which.py'], check=True)")
    program = write("prog.py", "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=True)")
    assert cli("run", program).stdout == "True False\n"


def test_their_own_micrograd_is_their_own(cli, write, own, impostor):
    own("sub")
    write("sub/child.py", USES_OWN)
    program = write("prog.py", "import subprocess, sys; subprocess.run([sys.executable, 'sub/child.py'], check=True)")
    assert cli("run", program).stdout == ALL_ITS_OWN


def test_a_sitecustomize_that_there_was_runs_in_them(cli, write, tmp_path):
    write("site/sitecustomize.py", "import sys; sys.customized = __name__")
    write("child.py", "import sys, sitecustomize; print(sys.customized, sitecustomize.__file__)")
    program = write("prog.py", "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=True)")
    out = cli("run", program, PYTHONPATH=str(tmp_path / "site")).stdout
    assert out == f"sitecustomize {tmp_path / 'site' / 'sitecustomize.py'}\n"


def test_interpreters_without_tapegrad_find_no_micrograd(cli, write):
    write("child.py", "import sys; sys.modules['tapegrad'] = None; import micrograd")
    program = write("prog.py", "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=False)")
    assert "ModuleNotFoundError: No module named 'micrograd'" in cli("run", program).stderr


# micrograd's own programs


def test_a_program_written_for_micrograd_trains(cli, write):
    program = write(
        "prog.py",
        """
        import random
        from micrograd.engine import Value
        from micrograd.nn import MLP

        random.seed(1337)
        model = MLP(2, [8, 1])
        points = [(random.uniform(-1, 1), random.uniform(-1, 1)) for _ in range(20)]
        for k in range(60):
            losses = [(1 + -(1 if x * y > 0 else -1) * model([Value(x), Value(y)])).relu() for x, y in points]
            loss = sum(losses) * (1.0 / len(losses)) + 1e-4 * sum((p * p for p in model.parameters()))
            model.zero_grad()
            loss.backward()
            for p in model.parameters():
                p.data -= 0.3 * p.grad
            if k == 0:
                first = loss.data
        print(loss.data < 0.5 * first)
        """,
    )
    assert cli("run", program).stdout == "True\n"


# The rest of the command line


def test_info_tells_what_was_built(cli):
    lines = [re.split(r"\s{2,}", line, maxsplit=1) for line in cli("info").stdout.splitlines()]
    build = tape.build
    assert lines == [
        ["version", tapegrad.__version__],
        ["handle", tape.handle],
        ["compiler", build["compiler"]],
        ["bytes a node", str(build["bytes_per_node"])],
        ["ABI", build["abi"]],
    ]


WRONG = [
    [],
    ["fly"],
    ["--fly"],
    ["info", "more"],
    ["demo", "--step", "3"],
    ["demo", "--steps", "0"],
    ["demo", "--steps", "many"],
    ["demo", "more"],
    ["run"],
    ["run", "-m"],
    ["run", "-c"],
    ["run", "--fast", "prog.py"],
    ["run", "-mpkg", "prog.py"],
]


@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_unknown_arguments_get_a_usage_line_and_status_2(cli, args):
    done = cli(*args, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("usage: python -m tapegrad")


def test_help_names_every_command(cli):
    text = cli("--help").stdout
    assert all(command in text for command in ("run", "demo", "info"))
    assert "ARGS" in cli("run", "--help").stdout


# The demo


@pytest.fixture(scope="module")
def steps(sized):
    return sized(7, 25, cffi=7)


@pytest.fixture(scope="module")
def demo_run(steps, sized):
    """A demo of so many steps, standard output and standard error in pipes; the small one times each step once."""
    env = {**os.environ, "TAPEGRAD_HANDLE": tape.handle, "PYTHONPATH": str(ROOT)}
    once = f"from tapegrad import __main__, demo; demo.ROUNDS = 1; __main__.main(['demo', '--steps', '{steps}'])"
    command = [sys.executable, *sized(["-c", once], ["-m", "tapegrad", "demo", "--steps", str(steps)])]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=True)


def test_the_demo_reports_loss_accuracy_and_both_designs(demo_run, steps):
    out = demo_run.stdout
    assert re.search(rf"^loss \d\.\d{{4}}, held-out accuracy \d+\.\d% after {steps} steps$", out, re.M)
    rows = (f"tapegrad, {tape.handle} handle", "closures", "ratio")
    times, slower, ratios = (re.search(rf"^{row} +(\d+\.\d) +(\d+\.\d)$", out, re.M).groups() for row in rows)
    for time, other, ratio in zip(times, slower, ratios):
        assert float(ratio) == pytest.approx(float(other) / float(time), rel=0.05, abs=0.1)
    assert float(re.search(r"difference between their losses: (\S+)", out)[1]) < 1e-12


def test_in_a_log_progress_is_plain_lines(demo_run, steps):
    lines = demo_run.stderr.splitlines()
    assert re.fullmatch(rf"training [13]/{steps} loss \d\.\d{{4}}", lines[0])
    counts = [line.split()[1] for line in lines if line.startswith("training")]
    assert counts[-2:] == [f"{steps - 1}/{steps}", f"{steps}/{steps}"] and len(counts) == min(steps, 9)
    assert not {"\r", "\x1b"} & set(demo_run.stderr + demo_run.stdout)


def test_results_and_progress_go_separate_ways(demo_run, steps):
    assert f"{steps}/{steps}" not in demo_run.stdout
    assert "accuracy" not in demo_run.stderr


@posix
def test_on_a_terminal_progress_is_one_line_redrawn():
    output = on_terminal(70, "-c", "from tapegrad import demo; demo.ROUNDS = 1; demo.main(3, 0)")
    assert "\x1b" not in output
    rows = output.replace("\r\n", "\n").split("\n")
    for title, total in (("training", 3), ("timing", 4)):
        (row,) = (row for row in rows if title in row and "ms" not in row)
        drawings = row.split("\r")[1:]
        assert 1 < len(drawings) <= total
        assert set(map(len, drawings)) == {69}
        assert re.match(rf"{title} \[#+\] {total}/{total}\b", drawings[-1])
    assert any(row.startswith("loss ") for row in rows)


@posix
@pytest.mark.parametrize("columns", [200, 80, 33, 20, 8, 2])
def test_a_bar_is_one_column_narrower_than_the_terminal(columns):
    code = """
        import time
        from tapegrad.demo.progress import Progress
        with Progress(3, "training") as progress:
            for done in range(1, 4):
                progress(done, "loss 0.1234")
                time.sleep(0.15)
        """
    _, *drawings = on_terminal(columns, "-c", textwrap.dedent(code)).rstrip().split("\r")
    assert [len(drawing) for drawing in drawings] == [columns - 1] * 3


def on_terminal(columns, *args):
    """Run an interpreter on a pseudo-terminal of this width and return all that was written there."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {**os.environ, "TAPEGRAD_HANDLE": tape.handle, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as child:
        os.close(theirs)
        chunks = [b"?"]
        while chunks[-1]:
            try:
                chunks.append(os.read(ours, 4096))
            except OSError:  # how Linux says that the other end is closed
                break
        os.close(ours)
    output = b"".join(chunks[1:]).decode()
    assert child.returncode == 0, output
    return output


class Screen(io.StringIO):
    """A terminal whose size nobody knows."""

    def isatty(self):
        return True


def test_a_bar_that_is_interrupted_ends_its_line():
    screen = Screen()
    with contextlib.suppress(KeyboardInterrupt), Progress(10, "training", screen) as progress:
        progress(1, "loss 2.0")
        raise KeyboardInterrupt
    assert re.fullmatch(r"\rtraining \[#+\.+\] 1/10 loss 2\.0\n", screen.getvalue())


def test_a_bar_that_never_moved_leaves_no_empty_line():
    screen = Screen()
    with Progress(10, "training", screen):
        pass
    assert screen.getvalue() == ""


def test_a_shorter_drawing_wipes_out_the_longer_one(monkeypatch):
    screen = Screen()
    with Progress(2, "training", screen) as progress:
        monkeypatch.setattr(progress, "_columns", lambda: 20)
        progress(1, "a long note")
        progress(2)
    assert screen.getvalue() == "\rtraining 1/2 a long\rtraining 2/2       \n"


@pytest.mark.parametrize("total", [1, 2, 7, 10, 11, 99, 1000])
def test_a_log_gets_ten_lines_at_most_and_the_last_round(total):
    log = io.StringIO()
    with Progress(total, "training", log) as progress:
        for done in range(1, total + 1):
            progress(done)
    lines = log.getvalue().splitlines()
    assert len(lines) <= 10
    assert lines[-1] == f"training {total}/{total}"


def test_the_seed_decides_the_split_and_the_weights():
    assert iris.split(5) == iris.split(5) != iris.split(6)
    assert network.initial_weights(5) == network.initial_weights(5) != network.initial_weights(6)


def test_the_demo_learns(sized):
    train, test = iris.split(seed=1936)
    learner = network.Network(tapegrad.Value, network.initial_weights(1936))
    losses = [learner.step(train[:40], demo.RATE) for _ in range(sized(20, 40, cffi=20))]
    assert losses[-1] < 0.25 * losses[0]
    assert learner.accuracy(test) > 0.8


def test_both_designs_agree_on_loss_and_grads():
    flowers, _ = iris.split(seed=1)
    learners = [network.Network(number, network.initial_weights(1)) for number in (tapegrad.Value, closure.Scalar)]
    losses = [learner.loss(flowers[:7]) for learner in learners]
    for loss in losses:
        loss.backward()
    assert losses[0].data == pytest.approx(losses[1].data, rel=1e-12)
    grads = [[p.grad for p in learner.parameters] for learner in learners]
    assert grads[0] == pytest.approx(grads[1], rel=1e-9, abs=1e-12)
    assert any(grads[0])


def test_the_closure_design_does_not_import_tapegrad():
    tree = ast.parse(pathlib.Path(closure.__file__).read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not any(name.startswith("tapegrad") for name in names)


def test_the_flowers_are_fishers():
    train, test = iris.split(seed=0)
    assert (len(train), len(test)) == (120, 30)
    assert [sum(f.species == k for f in train + test) for k in range(3)] == [50, 50, 50]
    text = pathlib.Path(iris.__file__).with_name("iris.csv").read_text(encoding="ascii").splitlines()
    assert text[35] == "4.9,3.1,1.5,0.2,setosa"  # rows that the repository's file has wrong
    assert text[38] == "4.9,3.6,1.4,0.1,setosa"


def test_training_flowers_are_standardised():
    train, _ = iris.split(seed=0)
    for column in zip(*(f.x for f in train)):
        assert sum(column) == pytest.approx(0.0, abs=1e-9)
        assert sum(x * x for x in column) / len(column) == pytest.approx(1.0)


def test_the_demo_writes_a_page_that_shows_it_and_says_where(tmp_path, sized, capsys, monkeypatch):
    monkeypatch.setattr(demo, "ROUNDS", 1)
    demo.main(sized(2, 20, cffi=2), 0, str(tmp_path / "demo.html"))
    html = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out.rstrip().endswith(f"see it: {(tmp_path / 'demo.html').resolve().as_uri()}")
    assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    for part in ("The loss, step by step", "What it decides", "The first neuron", "Where a training step goes"):
        assert part in html
    assert "sums = _affine(first, x)" in html and "film(document" in html
