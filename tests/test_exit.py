"""Values that outlive almost everything: finalizers and threads at interpreter exit."""

from __future__ import annotations

import pytest

START = """
import atexit, builtins, gc, sys, threading, time, weakref
import tapegrad
from tapegrad import Value, no_grad, tape

def compute(Value=Value):
    x = Value(3.0)
    y = (x * x + 1).tanh() * 0.0 + x * x
    y.backward()
    assert (y.data, x.grad) == (9.0, 6.0)
    return y

class AtExit:
    def __init__(self, act, *held):
        self.act, self.held = act, held
    def __del__(self):
        try:
            self.act(*self.held)
        except Exception:  # modules may be gone: an exception is all right, a crash is not
            pass
"""


@pytest.mark.parametrize(
    "code",
    [
        "held = AtExit(compute)",
        "held = AtExit(compute, Value)",
        "held = AtExit(lambda v: (v * v).backward(), compute())",
        "held = AtExit(lambda v: v._prev, compute())",
        "held = AtExit(lambda v, tape: (tape.collect(), tape.reset(), v.data), compute(), tape)",
        "builtins.held = AtExit(compute)",
        "builtins.held = compute()",
        "sys.held = AtExit(lambda v: v.tanh().backward(), compute())",
        "sys.modules['held'] = AtExit(compute)",
        "atexit.register(compute)",
        "held = [compute()]; atexit.register(held.clear)",
        "held = compute(); weakref.finalize(held, compute)",
        "held = compute(); weakref.finalize(held, compute).atexit = True",
        "held = [compute()]; held.append(held)",
        "held = AtExit(compute); held.me = held; gc.disable()",
        "held = compute(); held.note = AtExit(compute)",
        "held = compute(); held.me = held; held.note = AtExit(lambda v: v.data, held)",
        "y = compute(); y._backward = lambda: y.data; y.note = AtExit(compute)",
        "y = Value(1.0); z = y * 2; z._backward = lambda held=AtExit(compute), z=z: None; del z",
        "with no_grad(): held = AtExit(compute, Value)",
        "off = no_grad(); off.__enter__(); held = AtExit(off.__exit__, None, None, None)",
        "tape.reset(); held = AtExit(tape.reset)",
        "rows = tapegrad.leaves(range(100_000)); held = tapegrad.sum(rows)",
        "held = compute(); del tapegrad, Value, tape; sys.modules.pop('tapegrad')",
        "held = compute(); [sys.modules.pop(name) for name in list(sys.modules) if 'tapegrad' in name]",
        """
class Loud(Value):
    def __del__(self):
        try:
            (self * 2).backward()
        except Exception:
            pass
held = [Loud(1.0), Loud(2.0)]
held.append(held)
""",
        """
class Undead(Value):
    def __del__(self):
        back.append(self)
back = []
Undead(1.0)
gc.collect()
tape.collect()
assert sys.implementation.name != "cpython" or (back[0].data, (back[0] * 2).data) == (1.0, 2.0)
""",
        """
def forever():
    while True:
        compute()
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
sys.setswitchinterval(1e-5)
time.sleep(0.2)
""",
        """
def late():
    threading.main_thread().join()
    for _ in range(100):
        compute()
threading.Thread(target=late).start()
""",
        """
def sweeping():
    y = Value(1.0) * 2
    y._backward = lambda: time.sleep(100)
    y.backward()
threading.Thread(target=sweeping, daemon=True).start()
time.sleep(0.2)
held = compute()
""",
    ],
)
def test_the_interpreter_exits_cleanly(code, script):
    out = script(f"{START}\n{code.strip()}\nprint('done')")
    assert out.stdout == "done\n"
    assert "Error" not in out.stderr


def test_an_error_is_the_only_thing_a_failing_program_says(script):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        script(f"{START}\nheld = compute()\nheld / 0")


def test_a_program_may_fork_while_it_holds_values(script):
    out = script(
        f"{START}\nimport os\nheld = compute()\n"
        "child = os.fork() if hasattr(os, 'fork') else 0\n"
        "compute(); tape.collect()\n"
        "assert held.data == 9.0\n"
        "if child: assert os.waitpid(child, 0)[1] == 0; print('done')"
    )
    assert out.stdout in ("done\n", "")
