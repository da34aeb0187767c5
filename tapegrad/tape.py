"""`tape`: the one tape that all Values record on."""
from __future__ import annotations

from . import _core
from ._core import ffi, lib
from .value import handle

TYPE_CHECKING = False  # of typing's, which takes long to import

if TYPE_CHECKING:
    from typing import Any

    from ._operation import Operation


class Tape:
    """The tape: the list of all nodes in order of making.

    Nodes go by themselves when no live Value depends on them; nothing here has to be called.

    >>> len(tape) >= tape.stats()["handles"]
    True
    """

    __slots__ = ()

    def __len__(self) -> int:
        """Nodes now.

        >>> n = len(tape)
        >>> x = Value(1.0)
        >>> len(tape) - n
        1
        """
        return handle.size()

    def __bool__(self) -> bool:
        """True: an empty tape is a tape."""
        return True

    @property
    def nbytes(self) -> int:
        """Bytes that the arena holds, used or kept for later.

        >>> tape.nbytes >= len(tape) * tape.build["bytes_per_node"]
        True
        """
        return handle.nbytes()

    @property
    def handle(self) -> str:
        """Which implementation of Value is in use: "c" or "cffi".

        >>> tape.handle in ("c", "cffi")
        True
        """
        return "c" if handle.__name__.endswith("_c_handle") else "cffi"

    def collect(self) -> int:
        """Remove the nodes that no live Value depends on, now.

        Returns:
            How many nodes went; 0 while a sweep is running a rule or a program is being recorded, in any thread:
            what they know of nodes is their place on the tape.

        Raises:
            MemoryError: no memory for the renumbering; nothing has changed.

        >>> gone = tape.collect()
        >>> tape.collect()
        0
        """
        return handle.collect()

    def reset(self) -> None:
        """Forget all history: live Values become leaves with their data and grad.

        Raises:
            RuntimeError: a sweep is running a rule or a program is being recorded, in any thread, or this one is
                differentiating a function; nothing has changed.
            MemoryError: no memory for the renumbering; nothing has changed.

        >>> y = Value(2.0) * 3.0
        >>> tape.reset()
        >>> y, y.operands
        (Value(data=6.0, grad=0.0), ())
        """
        if handle.differentiating():
            raise RuntimeError("the tape cannot be reset while a function is being differentiated")
        handle.reset()

    def zero_grad(self) -> None:
        """Set the grad of every node to 0.0.

        >>> x = Value(2.0)
        >>> (x * x).backward()
        >>> tape.zero_grad()
        >>> x.grad
        0.0
        """
        handle.clear_grads()

    def stats(self) -> dict[str, float]:
        """Counts of the tape.

        Returns:
            nodes: now; handles: live Values; capacity: nodes without growing; bytes: held by the arena;
            reclaims: so far, explicit ones included; seconds: spent in them.

        >>> sorted(tape.stats())
        ['bytes', 'capacity', 'handles', 'nodes', 'reclaims', 'seconds']
        """
        return dict(zip(("nodes", "handles", "capacity", "bytes", "reclaims", "seconds"), handle.stats()))

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The table of operations.

        >>> next(row.doc for row in tape.operations if row.method == "tanh")
        'hyperbolic tangent'
        """
        from ._operation import operations  # slow to import, and seldom needed

        return operations()

    @property
    def build(self) -> dict[str, Any]:
        """How the core was built: compiler, bytes_per_node (recorded), bytes_per_swept_node, abi.

        >>> sorted(tape.build)
        ['abi', 'bytes_per_node', 'bytes_per_swept_node', 'compiler']
        """
        return {
            "compiler": ffi.string(lib.tg_compiler).decode(),
            "bytes_per_node": lib.tg_node_bytes(0),
            "bytes_per_swept_node": lib.tg_node_bytes(1),
            "abi": _core.__file__.split(".")[-2],
        }

    def __repr__(self) -> str:
        s = self.stats()
        return (
            f"<tape: {s['nodes']} nodes, {s['handles']} live Values, {s['bytes'] / 2**20:.1f} MiB, "
            f"{s['reclaims']} reclaims, {self.handle} handle>"
        )


tape = Tape()
