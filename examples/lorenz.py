"""Lorenz's equations fitted to a noisy orbit: a Runge-Kutta step recorded once, carried out in a loop with derivatives.

The orbit is cut into windows, for beyond a few seconds it forgets where it started. Each window is integrated from
where it was observed to begin; the loss is the sum of the squared distances to what was observed, over all its steps.
Windows are side by side in lanes, and the mean over them is what is minimized. Newton's method finds the three
parameters, with Hessians of three products each."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import tapegrad

TRUE = (10.0, 28.0, 8.0 / 3.0)
GUESS = (6.0, 22.0, 4.0)
SECONDS = 0.01  # of a step


def slope(state, params):
    x, y, z = state
    sigma, rho, beta = params
    return sigma * (y - x), x * (rho - z) - y, x * y - beta * z


def moved(state, slopes, seconds):
    return [x + seconds * dx for x, dx in zip(state, slopes)]


def after(state, params):
    """The state a step later, by Runge and Kutta's fourth-order rule."""
    k1 = slope(state, params)
    k2 = slope(moved(state, k1, SECONDS / 2), params)
    k3 = slope(moved(state, k2, SECONDS / 2), params)
    k4 = slope(moved(state, k3, SECONDS), params)
    return [x + SECONDS / 6 * (a + 2.0 * (b + c) + d) for x, a, b, c, d in zip(state, k1, k2, k3, k4)]


def step(state, seen, params):
    """The next state, and its squared distance to what was seen there."""
    state = after(state, params)
    return state, tapegrad.sum([(a - b) ** 2 for a, b in zip(state, seen)])


def fitted(loss, args, rounds):
    """The parameters that Newton's method comes to, as long as the loss gets less."""
    params = np.array(GUESS)
    for k in range(rounds):
        value, grad = loss.value_and_grad(*args, params, argnums=2)
        hessian = np.array([loss.hvp(args[0], unit, args[1], params, argnums=2) for unit in np.eye(3)])
        direction = np.linalg.solve(hessian + 1e-9 * np.eye(3), grad)
        if direction @ grad < 0.0:  # uphill: the loss is bent the other way there
            direction = grad / np.linalg.norm(hessian)
        size = 1.0
        while size > 1e-6 and not loss.value_and_grad(*args, params - size * direction, argnums=2)[0] < value:
            size /= 2.0
        if size <= 1e-6:
            break
        params = params - size * direction
        print(f"round {k + 1}: loss {value:.6f}, sigma {params[0]:.4f}, rho {params[1]:.4f}, beta {params[2]:.4f}")
    return params


def picture(path, seen, orbit):
    """An SVG of x and z: what was seen as dots, the orbit of the parameters that were found as a line."""

    def point(state):
        return f"{400 + 17 * state[0]:.1f},{560 - 11 * state[2]:.1f}"

    dots = "".join("<circle cx='{}' cy='{}' r='1.5'/>".format(*point(s).split(",")) for s in seen)
    line = " ".join(map(point, orbit))
    path.write_text(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 800 600'><rect width='800' height='600' fill='white'/>"
        f"<polyline points='{line}' fill='none' stroke='#4477aa' stroke-width='0.8'/>"
        f"<g fill='#cc6677'>{dots}</g></svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="fit the three parameters of Lorenz's equations to a noisy orbit")
    parser.add_argument("--windows", type=int, default=200, help="of the orbit (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="of 0.01 s, in each (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.2, help="standard deviation (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path, default=Path("lorenz.svg"), help="default: %(default)s")
    args = parser.parse_args()
    draw = np.random.default_rng(args.seed)

    began = time.perf_counter()
    n = args.windows * args.steps
    plain = tapegrad.record(lambda state, x, params: (after(state, params),) * 2, [1.0] * 3, None, list(TRUE))
    orbit = np.array(plain.scan(length=n)([1.0, 1.0, 20.0], None, list(TRUE))[1])
    seen = orbit + draw.normal(0.0, args.noise, orbit.shape)
    print(f"{n} steps of the orbit in {args.windows} windows, {plain.stats['instructions']} instructions a step")

    windows = seen.reshape(args.windows, args.steps, 3)
    loop = tapegrad.record(step, [1.0] * 3, [1.0] * 3, list(GUESS)).scan()
    loss = loop.map(in_axes=(0, 0, None), reduce="mean")
    params = fitted(loss, (windows[:, 0], windows[:, 1:]), rounds=30)
    for name, found, true in zip(("sigma", "rho", "beta"), params, TRUE):
        print(f"{name} {found:.4f}, in truth {true:.4f}")
    picture(args.picture, seen[:2000], plain.scan(length=2000)(list(seen[0]), None, list(params))[1])
    print(f"{args.picture} shows both, after {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
