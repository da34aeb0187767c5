"""How many threads share what one call does."""
from __future__ import annotations

from ._core import lib
from ._integer import as_integer

_MOST = (1 << 31) - 1  # of a C int


def set_num_threads(n: int) -> None:
    """Let a call of a wide program at one point use up to so many threads, in this process, from now on; 1 at first.

    What `Program` gives as value, gradient, `jvp` and `hvp`, and the nonzeros of sparse derivatives, are shared where
    the program is wide, has 16,384 instructions, and is not compiled. No bit and no error depends on it. Each thread
    takes as much memory as a replay. The rows of a batch have threads of their own: see `Program.map`.

    Args:
        n: how many, the caller's among them.

    Raises:
        ValueError: n is no positive integer.

    >>> tapegrad.set_num_threads(2)
    >>> tapegrad.set_num_threads(1)
    """
    threads = as_integer(n)
    if threads is None or threads < 1:
        raise ValueError(f"the number of threads must be a positive integer, not {n!r}")
    lib.tg_set_threads(min(threads, _MOST))


def get_num_threads() -> int:
    """What `set_num_threads` said.

    >>> tapegrad.get_num_threads()
    1
    """
    return int(lib.tg_threads())
