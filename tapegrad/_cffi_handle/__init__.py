"""The portable handle: `Value` as a Python class, every operation a cffi call. It is the fast one on PyPy.

Its files have the names of those of csrc/handle/, and stand on each other in the same order: handle, operands,
recording, held, operations, attributes, value, many, bulk, copies."""
from .bulk import adam, data, grads, leaves, set_data, sgd, zero_grad
from .copies import copies, history
from .handle import no_grad_by
from .held import clear_grads, collect, nbytes, reset, size, stats
from .many import affine, dot, many, softmax, sum
from .recording import begin_recording, end_recording, freeze
from .value import Value

__all__ = [
    "Value", "adam", "affine", "begin_recording", "clear_grads", "collect", "copies", "data", "dot", "end_recording",
    "freeze", "grads", "history", "leaves", "many", "nbytes", "no_grad_by", "reset", "set_data", "sgd", "size",
    "softmax", "stats", "sum", "zero_grad",
]  # fmt: skip
