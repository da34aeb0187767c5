"""The portable handle: `Value` as a Python class, every operation a cffi call. It is the fast one on PyPy.

Its files have the names of those of csrc/handle/, and stand on each other in the same order: handle, operands,
recording, held, operations, attributes, value, many, bulk, gradients, layout, copies, quick. Three are C's alone."""
from .bulk import adam, data, grads, leaves, plain_leaves, rmsprop, set_data, set_grads, sgd, zero_grad
from .copies import copies, history
from .gradients import adjoints, all_finite, depends_on_older, fresh, graph, primals, record_sweep
from .handle import leave_no_grad, no_grad_by
from .held import clear_grads, collect, nbytes, reset, size, stats
from .layout import lay_out, lay_out_call
from .many import affine, dot, many, softmax, sum
from .quick import Quick, quick
from .recording import as_numbers_by, begin_recording, differentiating, end_recording, freeze, held_from, older
from .value import Value

__all__ = [
    "Quick", "Value", "adam", "adjoints", "affine", "all_finite", "as_numbers_by", "begin_recording", "clear_grads",
    "collect", "copies", "data", "depends_on_older", "differentiating", "dot", "end_recording", "freeze", "fresh",
    "grads", "graph", "held_from", "history", "lay_out", "lay_out_call", "leave_no_grad", "leaves", "many", "nbytes",
    "no_grad_by", "older", "plain_leaves", "primals", "quick", "record_sweep", "reset", "rmsprop", "set_data",
    "set_grads", "sgd", "size", "softmax", "stats", "sum", "zero_grad",
]  # fmt: skip
