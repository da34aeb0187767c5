"""What is typed wrongly is answered by what came, what was expected, and the way out."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import pytest

import tapegrad
from tapegrad import Value, load, nn, optim, record


def f(x, y):
    return x * x * y


def says(error, *words):
    """A context that expects an error with all of these words in it, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, words)))


@pytest.mark.parametrize("function", [float, math.exp, math.sin, math.sqrt])
def test_a_function_of_floats_names_the_ways_that_keep_the_gradient(function):
    with says(TypeError, "drop its gradient", "v.exp()", "tapegrad.math", "v.data"):
        function(Value(0.5))


@pytest.mark.parametrize(
    ("f", "symbol"), [(lambda x: 1.0 // x, "//"), (lambda x: 1.0 % x, "%"), (lambda x: 1.0 / x, "/")]
)
def test_a_division_by_zero_is_called_so(f, symbol):
    for call in (lambda: f(Value(0.0)), lambda: record(f, 2.0)(0.0)):
        with says(ZeroDivisionError, f"1.0 {symbol} 0.0: division by zero"):
            call()


def test_argnums_takes_params_beside_integers():
    w = Value(3.0)
    program = record(lambda x: x * w, 2.0, params=[w])
    assert program.value_and_grad(4.0, argnums=(0, "params")) == (12.0, (3.0, [4.0]))
    assert program.grad(4.0, argnums=["params", 0]) == ([4.0], 3.0)
    assert program.jacobian(4.0, argnums=(0, "params")) == (3.0, [4.0])
    assert program.map(reduce="sum").value_and_grad([4.0, 5.0], argnums=(0, "params")) == (27.0, ([3.0, 3.0], [9.0]))
    with says(TypeError, "an integer, 'params' or a tuple of these", "'parms'"):
        program.grad(4.0, argnums="parms")
    with says(TypeError, "an integer", "'params'", "record(.., params=..)"):
        tapegrad.grad(lambda x: x * w, argnums="params")(4.0)


def test_argnums_of_programs_may_be_numpys():
    numpy = pytest.importorskip("numpy")
    program = record(lambda x, y: x * y, 2.0, 3.0)
    assert program.grad(2.0, 3.0, argnums=numpy.int64(1)) == 2.0
    loop = program.scan(checkpoints=numpy.int32(1))
    assert loop.grad(2.0, [3.0, 5.0], argnums=(0, numpy.int8(1))) == (15.0, [10.0, 6.0])
    with says(ValueError, "length must be an integer", "3.0"):
        program.scan(length=numpy.float64(3.0))


def test_true_is_no_place_of_an_argument():
    """Though it is an int, and 1."""
    def product(x, y):
        return x * y

    program, two = record(product, 2.0, 3.0), (2.0, 3.0)
    batch, loop = program.map(), record(product, 2.0, 3.0).scan()
    rows, pull = ([2.0], [3.0]), program.vjp(*two)[1]
    asked = [
        lambda k: program.grad(*two, argnums=k), lambda k: program.value_and_grad(*two, argnums=(0, k)),
        lambda k: program.jacobian(*two, argnums=k), lambda k: program.hessian(*two, argnums=k),
        lambda k: program.hvp(2.0, 1.0, 3.0, argnums=k), lambda k: pull(1.0, argnums=k),
        program.sparse_jacobian, program.sparse_hessian,
        lambda k: batch.grad(*rows, argnums=k), lambda k: batch.hvp([2.0], [1.0], [3.0], argnums=k),
        lambda k: loop.grad(2.0, [3.0], argnums=k), lambda k: loop.hvp(2.0, [1.0], [3.0], argnums=k),
        lambda k: loop.map((0, None)).grad([2.0], [3.0], argnums=k), lambda k: tapegrad.hvp(product, argnums=k),
        *(lambda k, of=of: of(product, argnums=k)(*two) for of in (
            tapegrad.grad, tapegrad.value_and_grad, tapegrad.jacobian, tapegrad.hessian)),
        lambda k: tapegrad.vjp(product, *two)[1](1.0, argnums=k),
    ]  # fmt: skip
    for ask in asked:
        with says(TypeError, "argnums must be", "integer", "not True"):
            ask(True)
    for make in (program.map, loop.map):
        with says(TypeError, "in_axes[0] must be integers and None", "not True"):
            make(True).grad(*rows)
    for axis in (True, 1.0, "0", [0]):  # of the steps of a loop
        with says(TypeError, "in_axes[1] must be integers and None", f"not {axis!r}"):
            loop.map((None, axis))


def test_params_that_are_not_there_are_no_empty_gradient():
    program = record(lambda x: x * x, 2.0)
    batch = program.map()
    for call in (program.grad, program.value_and_grad, program.jacobian, program.hessian):
        with says(ValueError, "no params", "record(.., params=..)"):
            call(2.0, argnums="params")
    for call in (batch.grad, batch.jacobian):
        with says(ValueError, "no params", "record(.., params=..)"):
            call([2.0], argnums=(0, "params"))


def test_jvp_asks_for_tuples():
    program = record(lambda x: x * x, 2.0)
    for call in (program.jvp, program.map().jvp, lambda *given: tapegrad.jvp(lambda x: x * x, *given)):
        with says(TypeError, "primals must be a tuple", "not 2.0", "(x,), (t,)"):
            call(2.0, 1.0)
        with says(TypeError, "tangents must be a tuple", "not 1.0", "(x,), (t,)"):
            call((2.0,), 1.0)


@pytest.mark.parametrize("name", ["sum", "softmax"])
def test_operands_given_one_by_one_are_to_be_put_in_a_list(name):
    with says(TypeError, f"{name}() takes one iterable, not 2 arguments", f"{name}([a, b, ..])"):
        getattr(tapegrad, name)(Value(1.0), Value(2.0))
    with says(TypeError, f"{name}() takes one iterable, not 0 arguments"):
        getattr(tapegrad, name)()


def test_dask_names_the_batch_that_it_takes():
    dask = pytest.importorskip("tapegrad.dask", exc_type=ImportError)
    with says(TypeError, "takes a batch, not 'Program'", "program.map("):
        dask.value_and_grad(record(lambda x: x * x, 2.0), [1.0])
    with says(TypeError, "takes a batch, not 'function'"):
        dask.value_and_grad(f, [1.0])


def test_an_optimizer_names_the_option_that_is_no_number_and_takes_a_module():
    model = nn.MLP(2, [3, 1])
    with says(TypeError, "lr must be a number", "'str'"):
        optim.SGD(model, lr="a")
    before = tapegrad.data(model)
    tapegrad.set_grads(model, [1.0] * len(before))
    optim.SGD(model, lr=0.5).step()
    assert tapegrad.data(model) == [x - 0.5 for x in before]
    tapegrad.zero_grad(model)
    assert not any(tapegrad.grads(model))


def test_load_takes_a_path_and_nothing_else(tmp_path):
    with says(TypeError, "load takes the path of a file", "'int'"):
        load(3)
    path = tmp_path / "program"
    record(f, 1.0, 2.0).save(path)
    with says(TypeError, "load takes the path of a file, not what is in one"):
        load(path.read_bytes())
    with path.open("rb") as stream, says(TypeError, "load takes the path of a file", "BufferedReader"):
        load(stream)
    with says(FileNotFoundError, "b'missing'"):
        load(b"missing")
    assert load(os.fsencode(path))(3.0, 2.0) == 18.0


def test_save_names_the_path_that_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = record(f, 1.0, 2.0)
    with says(FileNotFoundError, "'missing/x'") as caught:
        program.save("missing/x")
    assert caught.value.filename == "missing/x" and not os.listdir()
    os.mkdir("folder")
    with says(IsADirectoryError, "'folder'"):
        program.save("folder")
    assert os.listdir() == ["folder"]


def test_a_missing_argument_has_its_name():
    program = record(f, 1.0, 2.0)
    for call in (program, program.grad, program.hessian, program.vjp):
        with says(TypeError, "takes 2 arguments, not 1: argument y is missing"):
            call(1.0)
        with says(TypeError, "takes 2 arguments, not 1: argument x is missing"):
            call(y=1.0)
        with says(TypeError, "takes 2 arguments, not 0: argument x", "argument y"):
            call()
        with says(TypeError, "takes 2 arguments, not 3"):
            call(1.0, 2.0, 3.0)
    with says(TypeError, "takes 2 arguments, not 1: argument y is missing"):
        program.map()([1.0])
    with says(TypeError, "takes 2 arguments, not 1: argument y is missing"):
        program.jvp((1.0,), (1.0,))
    with says(TypeError, "takes 2 tangents, not 1"):
        program.jvp((1.0, 2.0), (1.0,))
    with says(TypeError, "takes 1 argument, not 2"):
        record(lambda x: x * x, 1.0)(1.0, 2.0)


# ---- listings ----


def test_a_long_program_is_printed_in_part_and_listed_whole():
    def long(x):
        for _ in range(50):
            x = (x + 1.0).tanh()
            if x > 2.0:
                return x
        return x

    program = record(long, 0.5)
    n = program.stats["instructions"]
    printed, listed = str(program).splitlines(), program.listing().splitlines()
    assert n == 150 and len(listed) == n + 2 and len(printed) == 63
    assert f"{n} instructions" in printed[0] and "90 more" in printed[31] and "listing()" in printed[31]
    assert printed[:31] == listed[:31] and printed[32:] == listed[-31:]
    short = record(lambda x: x * 2.0, 1.0)
    assert str(short) == short.listing()


def test_files_are_named_from_the_working_folder_on(script, tmp_path):
    (tmp_path / "recorded.py").write_text("def f(x):\n    return x.log() if x < 1.0 else x\n")
    code = f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
from recorded import f
from tapegrad import BranchChanged, record
p = record(f, 0.5)
print(p)
try:
    p(2.0)
except BranchChanged as error:
    print(error, os.path.isabs(error.filename))
try:
    p(-1.0)
except ValueError as error:
    print(error)
os.mkdir("other")
os.chdir("other")
print(p)
"""
    lines = script(code).stdout.splitlines()
    assert lines[1].endswith("  recorded.py:2") and lines[4].startswith("recorded.py:2: 2.0 < 1.0 is False")
    assert lines[4].endswith("True") and lines[5].endswith("recorded at recorded.py:2")
    assert lines[7].endswith(f"  {tmp_path}/recorded.py:2")


def test_the_version_is_printed():
    done = subprocess.run([sys.executable, "-m", "tapegrad", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tapegrad {tapegrad.__version__}\n"


class Two:
    """An integer as NumPy's are one."""

    def __index__(self):
        return 2


def product(x, y, z):
    return x * y * z


PRODUCT = (1.0, 2.0, 3.0)
ROW = record(lambda x: x[0] * x[1], [1.0, 2.0])
STEP = record(lambda s, x, *w: s * x, 1.0, 1.0, 1.0)
OF_INTEGERS = {  # with 2 the same as with an int
    "argnums": lambda k: record(product, *PRODUCT).grad(*PRODUCT, argnums=k),
    "a tuple": lambda k: record(product, *PRODUCT).grad(*PRODUCT, argnums=(0, k)),
    "hvp": lambda k: record(product, *PRODUCT).hvp(1.0, 2.0, 2.0, 3.0, argnums=k),
    "jacobian": lambda k: record(product, *PRODUCT).jacobian(*PRODUCT, argnums=k),
    "sparse": lambda k: record(lambda x, y, z: [x * y[0] * z[0], z[0]], 1.0, [2.0], [3.0]).sparse_jacobian(k).nnz,
    "vjp": lambda k: record(product, *PRODUCT).vjp(*PRODUCT)[1](1.0, argnums=k),
    "tapegrad.grad": lambda k: tapegrad.grad(product, k)(*PRODUCT),
    "tapegrad.hvp": lambda k: tapegrad.hvp(product, k)(1.0, 2.0, 2.0, 3.0),
    "tapegrad.vjp": lambda k: tapegrad.vjp(product, *PRODUCT)[1](1.0, argnums=k),
    "loop": lambda k: STEP.scan().grad(1.0, [2.0], 3.0, argnums=k),
    "threads": lambda k: ROW.map(threads=k)([[1.0, 2.0], [3.0, 4.0]]),
    "loop's threads": lambda k: STEP.scan().map((0, None, None), threads=k)([1.0, 2.0], [2.0], 3.0),
    "set_num_threads": tapegrad.set_num_threads,
    "max_paths": lambda k: record(lambda x: x * x, 1.0, max_paths=k)(2.0),
    "length": lambda k: STEP.scan(length=k)(1.0, [2.0, 3.0], 4.0),
    "checkpoints": lambda k: STEP.scan(checkpoints=k).grad(1.0, [2.0, 3.0], 4.0),
    "tapegrad.scan": lambda k: tapegrad.scan(lambda s, x: s + s, 1.0, length=k),
    "order": lambda k: tapegrad.check_grads(lambda x: x * x, 1.0, order=k),
}


@pytest.fixture
def one_thread():
    yield
    tapegrad.set_num_threads(1)


@pytest.mark.parametrize("what", OF_INTEGERS)
def test_integers_are_what_index_takes_but_truth_is_none(what, one_thread):
    call = OF_INTEGERS[what]
    assert call(Two()) == call(2)
    for wrong in (True, 2.0, "2"):
        with pytest.raises((TypeError, ValueError)):
            call(wrong)


def test_axes_are_such_integers():
    np = pytest.importorskip("numpy")
    rows = np.array([[1.0, 2.0], [3.0, 5.0]])
    for axis in np.int64(1), np.int8(-1), np.array(1):
        for in_axes in axis, (axis,), [axis]:
            assert ROW.map(in_axes)(rows).tolist() == ROW.map(1)(rows).tolist()
        loop = record(lambda s, x: s * x, 1.0, 1.0).scan()
        assert loop.map((None, axis))(1.0, rows)[0].tolist() == loop.map((None, 1))(1.0, rows)[0].tolist()
        assert tapegrad.linalg.norm(rows, axis=axis).tolist() == tapegrad.linalg.norm(rows, axis=1).tolist()
    parts = [[1.0, 2.0], 3.0]
    assert ROW.map(([np.int64(0), None],))(parts) == ROW.map(([0, None],))(parts) == [3.0, 6.0]
    for wrong in True, np.bool_(True), 1.0:
        for in_axes in wrong, (wrong,), ([wrong, None],):
            with pytest.raises(TypeError, match="in_axes"):
                ROW.map(in_axes)
    with pytest.raises(ValueError, match="axis True"):
        tapegrad.linalg.norm(rows, axis=True)
