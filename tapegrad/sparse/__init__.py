"""Sparse Jacobians and Hessians of programs: the pattern, and a program whose outputs are the nonzeros.

Files, each of which stands on those before it alone: pattern, printing, derivation, derived, written, matrix,
jacobian, hessian."""
from .hessian import SparseHessian
from .jacobian import SparseJacobian

__all__ = ["SparseHessian", "SparseJacobian"]
