"""no_grad is a context of the task, not of the thread or the program."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import sys
import threading
import time

import pytest

import tapegrad
from tapegrad import Value, no_grad, record, tape
from tapegrad.value import handle


def recorded():
    """Whether an operation leaves history here."""
    return (Value(2.0) * 3).operands != ()


def alternating(first, second):
    """Run two coroutines that hand over to each other at every `await asyncio.sleep(0)`."""

    async def both():
        return await asyncio.gather(first(), second())

    return asyncio.run(both())


def test_tasks_do_not_switch_it_for_each_other():
    async def inside():
        with no_grad():
            seen = []
            for _ in range(3):
                seen.append(recorded())
                await asyncio.sleep(0)
        return [*seen, recorded()]

    async def outside():
        seen = []
        for _ in range(4):
            seen.append(recorded())
            await asyncio.sleep(0)
        return seen

    assert alternating(inside, outside) == [[False, False, False, True], [True] * 4]
    assert recorded()


def test_tasks_that_overlap_leave_in_any_order():
    async def stays(steps):
        with no_grad():
            for _ in range(steps):
                await asyncio.sleep(0)
            last = recorded()
        return last, recorded()

    assert alternating(lambda: stays(1), lambda: stays(3)) == [(False, True)] * 2
    assert alternating(lambda: stays(3), lambda: stays(1)) == [(False, True)] * 2


def test_one_no_grad_serves_several_tasks_at_once():
    off = no_grad()

    async def stays(steps):
        with off:
            for _ in range(steps):
                await asyncio.sleep(0)
        return recorded()

    assert alternating(lambda: stays(1), lambda: stays(3)) == [True, True]
    assert recorded()


def test_a_task_made_inside_stays_inside_and_alone():
    """It has a copy of its maker's context, whether anybody else is in no_grad or not."""

    async def late():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return recorded()

    async def maker():
        with no_grad():
            task = asyncio.create_task(late())
        before = recorded()
        return before, await task, recorded()

    assert asyncio.run(maker()) == (True, False, True)


def test_a_context_that_was_copied_inside_is_inside():
    with no_grad():
        context = contextvars.copy_context()
    assert recorded() and not context.run(recorded) and recorded()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here")
@pytest.mark.skipif(tape.handle == "cffi", reason="a signal may come as its __exit__, which is Python, begins")
def test_an_interrupted_block_is_left_wherever_the_signal_comes():
    """A notebook whose evaluation was interrupted would train without slopes."""

    class Interrupted(Exception):
        pass

    def interrupt(*signalled):
        raise Interrupted

    def go_on():
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with no_grad():
                pass
        signal.signal(signal.SIGALRM, interrupt)  # CPython 3.11 looks at last: it may miss what comes after another one
        pytest.fail("the signal was swallowed")

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # it may have callbacks, as Hypothesis's, and nobody hears what is raised in these
    try:
        for k in range(1000):
            try:
                signal.setitimer(signal.ITIMER_REAL, (1 + k % 50) * 1e-6)
                go_on()
            except Interrupted:
                assert handle.no_grad_by(0) == 0 and recorded()
    finally:
        signal.signal(signal.SIGALRM, before)
        gc.enable()


@pytest.mark.parametrize("after", [False, True])
def test_a_block_that_is_interrupted_as_it_begins_is_left(monkeypatch, after):
    by = handle.no_grad_by

    def interrupted(step):
        depth = by(step) if after or step <= 0 else None
        if step > 0:
            raise KeyboardInterrupt
        return depth

    monkeypatch.setattr(handle, "no_grad_by", interrupted)
    with pytest.raises(KeyboardInterrupt), no_grad():
        pass
    assert by(0) == 0


def test_a_thread_starts_outside():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(recorded()))
        thread.start()
        thread.join()
        assert not recorded()
    assert seen == [not getattr(sys.flags, "thread_inherit_context", 0)]  # of Python 3.14, off by default


def test_it_is_a_decorator_of_a_coroutine():
    @no_grad()
    async def inside():
        await asyncio.sleep(0)
        return recorded()

    async def outside():
        seen = [recorded()]
        await asyncio.sleep(0)
        return [*seen, recorded()]

    assert alternating(inside, outside) == [False, [True, True]]
    assert inside.__name__ == "inside"


def test_it_is_a_decorator_of_a_generator_that_its_caller_does_not_see():
    @no_grad()
    def steps():
        try:
            got = yield recorded()
            yield got, recorded()
        except KeyError:
            yield "caught", recorded()
        finally:
            ended.append(recorded())

    ended = []
    g = steps()
    assert next(g) is False and recorded()
    assert g.send("sent") == ("sent", False) and recorded()
    assert g.throw(KeyError("k")) == ("caught", False) and recorded()
    g.close()
    assert ended == [False] and recorded()
    assert list(steps()) == [False, (None, False)]


def test_it_is_a_decorator_of_an_asynchronous_generator():
    @no_grad()
    async def steps():
        for _ in range(2):
            await asyncio.sleep(0)
            yield recorded()

    async def use():
        return [(inner, recorded()) async for inner in steps()]

    assert asyncio.run(use()) == [(False, True)] * 2


def test_a_generator_with_a_block_of_its_own_is_its_callers_context():
    def steps():
        with no_grad():
            yield

    g = steps()
    next(g)
    assert not recorded()
    next(g, None)
    assert recorded()


def test_leaving_what_was_not_entered_does_nothing():
    no_grad().__exit__(None, None, None)
    assert recorded()
    with no_grad():
        assert not recorded()
    assert recorded()


def cube(x):
    return x * x * x


def times(state, x):
    return state * x


CALLS = [
    cube,
    record(cube, 1.0),
    lambda x: record(cube, 1.0).value_and_grad(x)[0],
    lambda x: record(cube, 1.0).grad(x) * x / 3.0,
    lambda x: record(times, 1.0, 1.0).scan()(x, [x, x])[0],
    lambda x: record(times, 1.0, 1.0).scan().value_and_grad(x, [x, x])[0],
    lambda x: record(times, 1.0, 1.0).scan().grad(x, [x, x]) * x,
    lambda x: record(times, 1.0, 1.0).scan().grad(x, [x, x], argnums=(0, 1))[1][0] * x,
]


@pytest.mark.parametrize("call", CALLS)
def test_a_program_at_values_leaves_no_history_either(call):
    def f(x):
        with no_grad():
            y = call(x)
        return x * y

    x = Value(2.0)
    with no_grad():
        assert call(x).operands == () and call(x).data == 8.0
    assert call(x).operands != ()
    assert tapegrad.grad(f)(2.0) == 8.0
    with pytest.warns(RuntimeWarning, match="no_grad was on"):
        program = record(f, 2.0)
    assert program(3.0) == 24.0


def test_a_gradient_of_values_has_its_shape_there():
    w, x = Value(3.0), [Value(2.0), 5.0]
    program = record(lambda x, y: w * x[0] * x[1] * y, [1.0, 1.0], 1.0, params=[w])
    with no_grad():
        value, (by_x, by_params) = program.value_and_grad(x, 7.0, argnums=(0, "params"))
    assert (value.data, [v.data for v in by_x], by_params[0].data) == (210.0, [105.0, 42.0], 70.0)
    assert all(v.operands == () for v in (value, *by_x, *by_params))


def test_a_recording_sets_it_aside_and_puts_it_back():
    def f(x):
        assert recorded()
        with no_grad():
            inner = recorded()
        return x * 3 if not inner else x

    with no_grad(), no_grad():
        with pytest.warns(RuntimeWarning, match="no_grad was on"):
            assert record(f, 1.0)(2.0) == 6.0
        assert not recorded()
    assert recorded()


def test_recordings_of_tasks_are_theirs():
    async def records():
        program = record(lambda x: x * x, 1.0, strict=True)
        await asyncio.sleep(0)
        return program(3.0), recorded()

    async def inside():
        with no_grad():
            result = await records()
        return result

    assert alternating(records, inside) == [(9.0, True), (9.0, False)]


def test_nothing_is_left_of_contexts_that_are_gone():
    """What an operation asks first is whether any context is in it."""
    if not hasattr(handle, "__path__"):
        pytest.skip("the C handle keeps the count to itself")
    from tapegrad._cffi_handle.handle import off_anywhere

    async def stays():
        with no_grad():
            await asyncio.sleep(0)

    alternating(stays, stays)
    with no_grad():
        assert len(off_anywhere) >= 1
    for _ in range(9):  # PyPy finalizes what others hold a layer at a time
        gc.collect()
    assert not off_anywhere
