"""Several threads on the one tape: expressions interleave on it and stay right."""

from __future__ import annotations

import random
import sys
import threading

import pytest

import tapegrad
from tapegrad import Value, no_grad, tape

ROUNDS = 10 if tape.handle == "c" else 1  # as many turns for the handle that is ten times as fast


@pytest.fixture(autouse=True)
def contention():
    """Threads take turns every 10 us."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*works):
    """Runs each function in a thread of its own and raises what any of them raised."""
    failures, barrier = [], threading.Barrier(len(works))

    def run(work):
        try:
            barrier.wait(60)
            work()
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def polynomial(k, rounds, meddle=lambda i: None):
    """Checks the value and the gradient of (x*k + i) * x at x = 3, again and again."""
    for i in range(rounds * ROUNDS):
        x = Value(3.0)
        y = x * k
        meddle(i)
        z = (y + i) * x
        z.backward()
        meddle(i)
        assert (z.data, x.grad, y.grad) == ((3.0 * k + i) * 3, 6.0 * k + i, 3.0)


def test_four_threads_record_sweep_drop_and_collect():
    def work(k):
        draw, kept = random.Random(k), []

        def meddle(i):
            kept.append(Value(float(i)) * k)
            if draw.random() < 0.3:
                del kept[draw.randrange(len(kept)) :]
            if draw.random() < 0.05:
                tape.collect()

        return lambda: polynomial(k, 1500, meddle)

    together(*map(work, (2, 3, 5, 7)))


def test_four_threads_grow_the_tape():
    def work(k):
        def run():
            x = Value(1.0)
            y = x
            for _ in range(30_000 * ROUNDS):
                y = y + k
            y.backward()
            assert (y.data, x.grad) == (1.0 + 30_000 * ROUNDS * k, 1.0)

        return run

    together(*map(work, (2, 3, 5, 7)))


def test_four_threads_sweep_through_rules():
    def square(x):
        out = Value(x.data**2, (x,), "square")

        def _backward():
            x.grad += 2 * x.data * out.grad

        out._backward = _backward
        return out

    def work(k):
        def run():
            for i in range(500 * ROUNDS):
                x = Value(float(k))
                x.grad = 1.0
                (square(x) * i + square(x)).backward()
                assert x.grad == 2.0 * k * i + 2.0 * k + 1.0

        return run

    together(*map(work, (2, 3, 5, 7)))


def test_four_threads_use_fused_nodes_labels_and_prev():
    def work(k):
        def run():
            for i in range(300 * ROUNDS):
                xs = tapegrad.leaves([float(k)] * 20)
                y = tapegrad.dot(xs, xs, i)
                y.label, y.owner = f"{k}", k
                z = tapegrad.sum([y, y])
                del y
                (y,) = z._prev
                assert (y.label, y.owner, set(y._prev) - {y.operands[-1]}) == (f"{k}", k, set(xs))
                z.backward()
                assert {x.grad for x in xs} == {4.0 * k}

        return run

    together(*map(work, (2, 3, 5, 7)))


def test_four_threads_read_and_write_the_same_leaf():
    """Additions to one grad may get lost, as they would on a float; nothing else may go wrong."""
    x = Value(2.0)

    def run():
        for i in range(2000 * ROUNDS):
            y = x * i
            assert y.data in (2.0 * i, 3.0 * i)
            x.data = 2.0 + i % 2
            x.grad = float(i)
            assert x.grad.is_integer() and x.operands == ()

    together(run, run, run, run)


def test_four_threads_look_for_the_same_dropped_handle():
    """A node has one handle, whoever asks for it first."""
    roots = [Value(float(i)) * 2 + 1 for i in range(2000)]
    found = [[], [], [], []]
    together(*(lambda k=k: found[k].extend(root.operands[0] for root in roots) for k in range(4)))
    assert all(len({id(v) for v in same}) == 1 for same in zip(*found))


def test_handles_may_die_in_another_thread():
    boxes = [[], [], [], []]

    def work(k):
        def run():
            for i in range(3000 * ROUNDS):
                boxes[(k + 1) % 4].append(Value(float(i)) * k)
                mine = boxes[k]
                if mine:
                    mine.pop()

        return run

    together(*map(work, range(4)))
    for box in boxes:
        box.clear()
    polynomial(2, 10)


def test_no_grad_in_some_threads_does_not_reach_the_others():
    def off():
        x = Value(2.0)
        for _ in range(3000 * ROUNDS):
            with no_grad():
                assert (x * x).operands == ()

    def on():
        polynomial(3, 1500)

    together(off, on, off, on)


def in_a_rule(meanwhile):
    """Runs meanwhile(x) in another thread while a rule of slope 3 over x waits for it, for as long as it may."""
    x = Value(2.0)
    x.grad = 7.0
    out = Value(6.0, (x,), "op")
    running, over = threading.Event(), threading.Event()

    def _backward():
        running.set()
        over.wait(1.0)  # the other one may have to wait for the sweep in its turn
        x.grad += 3 * out.grad

    def other():
        running.wait(60)
        meanwhile(x)
        over.set()

    out._backward = _backward
    together((out * 5).backward, other)
    return x


def test_grads_read_while_a_rule_of_another_thread_runs_are_the_sums():
    seen = []
    unrelated = Value(1.0)
    unrelated.grad = 4.0
    x = in_a_rule(lambda x: seen.append((x.grad, unrelated.grad)))
    assert seen in ([(7.0, 4.0)], [(22.0, 4.0)]) and x.grad == 22.0


def test_another_thread_may_record_and_sweep_while_a_rule_runs():
    assert in_a_rule(lambda x: polynomial(3, 20)).grad == 22.0


def test_another_thread_may_sweep_the_same_leaf_while_a_rule_runs():
    assert in_a_rule(lambda x: (x * 100).backward()).grad == 122.0


def test_another_thread_may_collect_while_a_rule_runs():
    junk = [Value(0.0) for _ in range(100)]
    keep = Value(1.0)

    def meanwhile(x):
        junk.clear()
        try:
            tape.collect()
        except RuntimeError:
            pass
        polynomial(3, 20)

    assert in_a_rule(meanwhile).grad == 22.0 and keep.data == 1.0


def test_grads_are_readable_all_the_time_while_rules_run():
    """Whatever state the sweep of the other thread is in, a grad is what this thread made it."""
    over = threading.Event()
    mine = Value(1.0)
    (mine * 4).backward()

    def sweep():
        try:
            for _ in range(200 * ROUNDS):
                x = Value(2.0)
                y = x * x
                y._backward = lambda x=x, y=y: setattr(x, "grad", x.grad + 10 * y.grad)
                (y * 2 + x).backward()
                assert x.grad == 21.0
        finally:
            over.set()

    def read():
        while not over.is_set():
            assert mine.grad == 4.0
            mine.grad = 4.0

    together(sweep, sweep, read, read)


def test_a_rule_that_raises_in_one_thread_leaves_the_others_alone():
    def raising():
        for _ in range(300 * ROUNDS):
            x = Value(2.0)
            y = x * x
            y._backward = lambda: 1 / 0
            with pytest.raises(ZeroDivisionError):
                (y * 2).backward()
            assert x.grad == y.grad == 0.0

    together(raising, lambda: polynomial(2, 1000), raising, lambda: polynomial(3, 1000))
