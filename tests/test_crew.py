"""The threads that share a batch's rows: signals, forks, exit, several callers, threads that cannot be made."""

from __future__ import annotations

import math
import os
import signal
import threading
import time

import pytest
from tapegrad._core import lib
from test_threads import together

from tapegrad import BranchChanged, record

POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
ROWS = [0.001 * k for k in range(20_000)]

SETUP = """
import os, signal, sys, threading, time
from tapegrad import record
def f(x):
    for _ in range(60):
        x = (x * 1.01).sin() + 0.5
    return x
program = record(f, 0.5)
rows = [0.001 * k for k in range(20_000)]
batch = program.map(reduce="mean", threads=2)
expected = program.map(reduce="mean").value_and_grad(rows)
assert batch.value_and_grad(rows) == expected
"""


def wave(x):
    for _ in range(60):
        x = (x * 1.01).sin() + 0.5
    return x


@pytest.fixture(scope="module")
def program():
    return record(wave, 0.5)


def test_a_chunk_is_as_large_as_program_and_rows_say(program):
    """Whatever the threads: so are the bits of sums."""
    path = program._recorded.paths[0]
    for count in (1, 100, 5000, 10**6):
        steps = {program.map(threads=n)._rows._shared(path, count)[0] for n in (1, 2, 100)}
        assert len(steps) == 1 and steps.pop() * lib.tg_chunks.most >= count
    assert program.map(threads=10**20)._rows._shared(path, 10**6)[1] == lib.tg_chunks.most
    assert program.map(threads=2)._rows._shared(path, 1)[1] == 1


@pytest.mark.parametrize("reduce", [None, "sum"])
def test_any_number_of_threads_gives_the_same_bits(program, reduce):
    one, *others = (program.map(reduce=reduce, threads=n).value_and_grad(ROWS) for n in (1, 2, 5, 1000))
    assert all(other == one for other in others)


def test_native_code_takes_the_same_threads(program, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CACHE", str(tmp_path / "cache"))
    try:
        native = program.native()
    except RuntimeError as error:
        pytest.skip(str(error))
    for reduce in (None, "mean"):
        expected = program.map(reduce=reduce).value_and_grad(ROWS)
        assert native.map(reduce=reduce, threads=3).value_and_grad(ROWS) == expected


def test_several_callers_share_the_threads(program):
    batch = program.map(reduce="mean", threads=3)
    expected = batch.value_and_grad(ROWS)

    def work():
        for _ in range(10):
            assert batch.value_and_grad(ROWS) == expected

    together(*[work] * 4)


@pytest.mark.parametrize("bad", [7, 9_999, 19_999])
def test_the_first_row_that_is_refused_is_named_whoever_had_it(bad):
    rows = [1.0 + x for x in ROWS]
    rows[bad] = rows[19_999] = -1.0
    for threads in (1, 4):
        with pytest.raises(ValueError, match=f"in row {bad}, recorded at"):
            record(lambda x: wave(x.log()), 1.0).map(reduce="sum", threads=threads)(rows)


def test_rows_on_other_paths_are_found_by_all_threads():
    def f(x):
        return wave(x) if x < 10.0 else wave(-x) * 2 if x < 15.0 else wave(x * x)

    def both(threads):
        return record(f, 0.5, on_branch="record").map(reduce="sum", threads=threads).value_and_grad(ROWS)

    assert both(1) == both(3)
    assert both(1)[0] == pytest.approx(math.fsum(record(f, 0.5, on_branch="record").map()(ROWS)), rel=1e-12)
    with pytest.raises(BranchChanged, match=r"in row 10000.*\(10000 rows leave"):
        record(f, 0.5).map(threads=3)(ROWS)


def rows_as(kind, rows):
    return pytest.importorskip("numpy").array(rows) if kind == "array" else rows


def in_one_list(found):
    """A value and a gradient, which is an array where the rows are."""
    return [found[0], *found[1]]


@POSIX
@pytest.mark.parametrize("threads, kind", [(1, "list"), (2, "array"), (4, "array"), (4, "list")])
def test_an_interrupt_ends_a_batch_soon_and_leaves_all_usable(program, threads, kind):
    """Also where the caller has nothing left to do but wait."""
    few, rows = rows_as(kind, ROWS), rows_as(kind, ROWS * 40)  # a second's work, read in some 20 ms
    batch = program.map(reduce="mean", threads=threads)
    expected = in_one_list(batch.value_and_grad(few))
    for delay in (0.05, 0.15):
        sent = []

        def interrupt(sent=sent):
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(delay, interrupt)
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while True:
                batch.value_and_grad(rows)
        late = time.perf_counter() - sent[0]
        assert late < 2.0  # 0.2 where nothing else runs
        timer.join()
        assert in_one_list(batch.value_and_grad(few)) == expected


@POSIX
@pytest.mark.parametrize("kind", ["list", "array"])
def test_a_handler_may_use_the_batch_that_it_interrupts(program, kind):
    batch, seen = program.map(reduce="mean", threads=2), []
    rows = rows_as(kind, ROWS)
    expected = in_one_list(batch.value_and_grad(rows))
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(in_one_list(batch.value_and_grad(rows))))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        until = time.monotonic() + 60
        while not seen and time.monotonic() < until:
            assert in_one_list(batch.value_and_grad(rows)) == expected
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [expected]


@POSIX
def test_a_fork_has_threads_of_its_own_and_so_has_its_parent(script):
    """In the quiet and in the middle of another thread's batch; and Python finds no thread that it has to warn of."""
    out = script(
        SETUP
        + """
import warnings
warnings.simplefilter("error")
def forked(first):
    child = os.fork()
    if not child:
        signal.alarm(120)
        os._exit(0 if first() == expected and batch.value_and_grad(rows) == expected else 1)
    assert batch.value_and_grad(rows) == expected
    assert os.waitpid(child, 0)[1] == 0
for _ in range(3):
    forked(lambda: batch.value_and_grad(rows))
warnings.simplefilter("ignore")
over = []
def meanwhile():
    while not over:
        assert batch.value_and_grad(rows) == expected
other = threading.Thread(target=meanwhile)
other.start()
try:
    for _ in range(10):
        forked(lambda: batch.value_and_grad(rows))
finally:
    over.append(True)
    other.join()
def handler(*_):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    forked(lambda: expected)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
assert len(program.map(threads=2)(rows * 100)) == 2_000_000
print("done")
"""
    )
    assert out.stdout == "done\n"


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "threading.Thread(target=lambda: [batch.value_and_grad(rows) for _ in iter(int, 1)], daemon=True).start(); "
        "time.sleep(0.2)",
        "import atexit; atexit.register(batch.value_and_grad, rows)",
        "def late():\n    threading.main_thread().join(); batch.value_and_grad(rows)\n"
        "threading.Thread(target=late).start()",
        "class Last:\n    def __del__(self, batch=batch, rows=rows): batch.value_and_grad(rows)\nlast = Last()",
    ],
)
def test_the_interpreter_ends_with_threads_that_wait_or_work(ending, script):
    out = script(f"{SETUP}\nsys.stdout.write('done'); sys.stdout.flush()\n{ending}")
    assert out.stdout == "done" and "Error" not in out.stderr


def test_without_threads_the_caller_does_it_all(script):
    out = script(
        SETUP
        + """
from tapegrad._core import lib
for n in range(1, 20):
    wide = program.map(reduce="mean", threads=2 + n)
    lib.tg_fail_allocation(n)
    try:
        assert wide.value_and_grad(rows) == expected
    except MemoryError:
        pass
    finally:
        lib.tg_fail_allocation(0)
    assert wide.value_and_grad(rows) == expected
print("done")
"""
    )
    assert out.stdout == "done\n"
