"""A rocket that is to climb ten kilometres and stand still there on the least thrust: an optimal control problem.

SciPy's trust-constr solves it with sparse derivatives of programs, and where CasADi is installed so does IPOPT, with
CasADi's. The path is cut into intervals. Unknowns are height, speed, mass and thrust at the start of each; that every
interval ends where the next one starts is a constraint (direct multiple shooting, by Runge and Kutta's fourth-order
rule)."""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.optimize import Bounds, NonlinearConstraint, minimize

import tapegrad

SECONDS, HEIGHT = 10.0, 10.0


def slope(state, thrust):
    """Of height, speed and mass."""
    _, speed, mass = state
    return speed, (thrust - 0.02 * speed * speed) / mass, -0.01 * thrust * thrust


def moved(state, slopes, seconds):
    return [x + seconds * dx for x, dx in zip(state, slopes)]


def step(state, thrust, seconds):
    """The state some seconds later."""
    k1 = slope(state, thrust)
    k2 = slope(moved(state, k1, seconds / 2), thrust)
    k3 = slope(moved(state, k2, seconds / 2), thrust)
    k4 = slope(moved(state, k3, seconds), thrust)
    return [x + seconds / 6 * (a + 2 * b + 2 * c + d) for x, a, b, c, d in zip(state, k1, k2, k3, k4)]


def cost(z):
    return sum(u * u for u in z[3::4]) * (4.0 / (len(z) - 3))


def gaps(z):
    """What has to be 0: the ends of the intervals less the starts of the next ones, and the states at both ends."""
    n = (len(z) - 3) // 4
    found = [z[0], z[1], z[2] - 1.0, z[-3] - HEIGHT, z[-2]]
    for k in range(n):
        end = step(z[4 * k : 4 * k + 3], z[4 * k + 3], SECONDS / n)
        found += [a - b for a, b in zip(end, z[4 * k + 4 : 4 * k + 7])]
    return found


def start(n):
    """A straight line."""
    z = np.zeros(4 * n + 3)
    z[0::4], z[1::4], z[2::4] = np.linspace(0.0, HEIGHT, n + 1), 1.0, 1.0
    return z


def limits(n):
    """Of each unknown: no falling, some mass, and what the engine gives."""
    low, high = np.full(4 * n + 3, -np.inf), np.full(4 * n + 3, np.inf)
    low[1::4], high[1::4] = -0.1, 1.3
    low[2::4] = 0.1
    low[3::4], high[3::4] = -2.0, 2.0
    return low, high


class Derivatives:
    """The programs, and their sparse derivatives."""

    def __init__(self, z):
        self.cost, self.gaps = tapegrad.record(cost, z), tapegrad.record(lambda z: np.array(gaps(z)), z)
        self.jacobian, self.hessian = self.gaps.sparse_jacobian(), self.gaps.sparse_hessian()
        self.cost_hessian = self.cost.sparse_hessian()


def by_trust_constr(d, z, low, high):
    constraint = NonlinearConstraint(d.gaps, 0.0, 0.0, jac=d.jacobian, hess=d.hessian)
    options = {"maxiter": 1000, "gtol": 1e-9, "xtol": 1e-12, "barrier_tol": 1e-10}
    found = minimize(
        d.cost, z, jac=d.cost.grad, hess=d.cost_hessian, method="trust-constr", constraints=[constraint],
        bounds=Bounds(low, high), options=options,
    )  # fmt: skip
    return found.x


def by_casadi(_, z, low, high):
    """The same functions on CasADi's expressions, derived by CasADi."""
    import casadi

    x = casadi.SX.sym("z", len(z))
    parts = casadi.vertsplit(x)
    problem = {"x": x, "f": cost(parts), "g": casadi.vertcat(*gaps(parts))}
    solver = casadi.nlpsol("solver", "ipopt", problem, {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes"}})
    return np.array(solver(x0=z, lbx=low, ubx=high, lbg=0.0, ubg=0.0)["x"]).ravel()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intervals", type=int, default=50)
    parser.add_argument("--picture", help="a file to draw the flight into; needs matplotlib")
    args = parser.parse_args()
    n = args.intervals
    z, (low, high) = start(n), limits(n)
    d = Derivatives(z)
    print(f"{len(z)} unknowns, {d.jacobian.shape[0]} constraints")
    print(d.jacobian)
    print(d.hessian)
    for name, solve in ("trust-constr", by_trust_constr), ("CasADi, IPOPT", by_casadi):
        began = time.perf_counter()
        try:
            found = solve(d, z, low, high)
        except ImportError as error:
            print(f"{name:<14} {error}")
            continue
        if args.picture and solve is by_trust_constr:
            draw(found, args.picture)
        seconds, off = time.perf_counter() - began, abs(np.asarray(d.gaps(found))).max()
        print(f"{name:<14} objective {d.cost(found):.9f}  constraints within {off:.1e}  {seconds:.2f} s")


def draw(z, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(4, 1, sharex=True, figsize=(8, 7), layout="constrained")
    t = np.linspace(0.0, SECONDS, (len(z) - 3) // 4 + 1)
    for k, (axes, title) in enumerate(zip(rows, ("height", "speed", "mass"))):
        axes.plot(t, z[k::4])
        axes.set_ylabel(title)
    rows[3].stairs(z[3::4], t)
    rows[3].set_ylabel("thrust")
    rows[3].set_xlabel("seconds")
    figure.savefig(path)


if __name__ == "__main__":
    main()
