"""Bayesian inference with samplers that others keep: a program is their log density.

mici takes the density as a potential and (gradient, value) of it, nutpie a function of parameters that gives value and
gradient: a program is both as it stands. Three posteriors: eight schools that coached for a test, the hares and lynxes
of the Hudson's Bay Company as Lotka's and Volterra's equation, and a mixture of two normals.

    pip install mici nutpie"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

import tapegrad
from tapegrad.math import exp, log

EFFECTS = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
ERRORS = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]
PELTS = [  # thousands of hares and lynxes, 1900 to 1920
    (30.0, 4.0), (47.2, 6.1), (70.2, 9.8), (77.4, 35.2), (36.3, 59.4), (20.6, 41.7), (18.1, 19.0), (21.4, 13.0),
    (22.0, 8.3), (25.4, 9.1), (27.1, 7.4), (40.3, 8.0), (57.0, 12.3), (76.6, 19.5), (52.3, 45.7), (19.5, 51.1),
    (11.2, 29.7), (7.6, 15.8), (14.6, 9.7), (16.2, 10.1), (24.7, 8.6),
]  # fmt: skip
STEPS = 10  # of a year


def normal(x, mean, sd):
    off = (x - mean) / sd
    return -0.5 * off * off - log(sd)


def eight_schools(u):
    """What coaching gains in each school: effects around a mean, how far around it being unknown.

    u: the effects in units of the spread and less the mean; the mean; the logarithm of the spread."""
    *effects, mean, log_spread = u
    spread = exp(log_spread)
    total = normal(mean, 0.0, 5.0) - log(1.0 + (spread / 5.0) ** 2) + log_spread
    for effect, y, error in zip(effects, EFFECTS, ERRORS):
        total = total + normal(effect, 0.0, 1.0) + normal(y, mean + spread * effect, error)
    return total


def hares_and_lynxes(u):
    """u: logarithms of four rates, of the numbers in 1900, and of the errors of measurement."""
    rates, start, errors = [exp(v) for v in u[:4]], [exp(v) for v in u[4:6]], [exp(v) for v in u[6:]]
    total = tapegrad.sum(list(u[:4]))  # the others' priors are of logarithms
    for rate, (mean, sd) in zip(rates, [(1.0, 0.5), (0.05, 0.05)] * 2):
        total = total + normal(rate, mean, sd)
    for k in range(2):
        total = total + normal(u[4 + k], math.log(10.0), 1.0) + normal(u[6 + k], -1.0, 1.0)
    for state, pelts in zip(populations(rates, start, len(PELTS)), PELTS):
        for k in range(2):
            total = total + normal(math.log(pelts[k]), log(state[k]), errors[k])
    return total


def populations(rates, start, years):
    """Hares and lynxes year by year, by Runge and Kutta's fourth-order rule."""
    birth, eaten, death, fed = rates
    h = 1.0 / STEPS

    def slope(hares, lynxes):
        return (birth - eaten * lynxes) * hares, (fed * hares - death) * lynxes

    state, found = list(start), [list(start)]
    for _ in range(years - 1):
        for _ in range(STEPS):
            k1 = slope(*state)
            k2 = slope(*(x + h / 2 * k for x, k in zip(state, k1)))
            k3 = slope(*(x + h / 2 * k for x, k in zip(state, k2)))
            k4 = slope(*(x + h * k for x, k in zip(state, k3)))
            state = [x + h / 6 * (a + 2 * b + 2 * c + d) for x, a, b, c, d in zip(state, k1, k2, k3, k4)]
        found.append(state)
    return found


MIXED = np.random.default_rng(4).choice([-2.0, 1.5], 300, p=[0.3, 0.7]) + np.random.default_rng(5).standard_normal(300)


def mixture(u):
    """u: the lower mean, the logarithm of what the higher one is above it, the logit of the lower one's share."""
    means, share = (u[0], u[0] + exp(u[1])), u[2].sigmoid()
    weights = -(-u[2]).softplus(), -u[2].softplus()  # log(share), log(1 - share)
    total = u[1] + sum(weights) + normal(means[0], 0.0, 3.0) + normal(means[1], 0.0, 3.0)
    total = total + log(share) + log(1.0 - share)  # Beta(2, 2)
    for y in MIXED.tolist():
        total = total + tapegrad.logsumexp([w + normal(y, m, 1.0) for w, m in zip(weights, means)])
    return total


# Of each the log density, where to start, the names of what is drawn, and what is shown of it.
POSTERIORS = {
    "eight schools": (
        eight_schools, np.r_[np.zeros(8), 5.0, 1.0], ["mean", "spread"],
        lambda u: np.stack([u[:, 8], np.exp(u[:, 9])], axis=1),
    ),
    "hares and lynxes": (
        hares_and_lynxes, np.log([0.5, 0.03, 0.8, 0.025, 30.0, 5.0, 0.3, 0.3]), ["birth", "eaten", "death", "fed"],
        lambda u: np.exp(u[:, :4]),
    ),
    "mixture": (
        mixture, np.array([-1.0, 0.5, 0.0]), ["lower mean", "higher mean", "share"],
        lambda u: np.stack([u[:, 0], u[:, 0] + np.exp(u[:, 1]), 1.0 / (1.0 + np.exp(-u[:, 2]))], axis=1),
    ),
}  # fmt: skip


def by_mici(density, start, warm_up, draws, seed):
    import mici

    potential = tapegrad.record(lambda u: -density(u), start, on_error="nan")
    system = mici.systems.EuclideanMetricSystem(
        neg_log_dens=potential, grad_neg_log_dens=lambda u: potential.value_and_grad(u)[::-1]
    )
    sampler = mici.samplers.DynamicMultinomialHMC(
        system, mici.integrators.LeapfrogIntegrator(system), np.random.default_rng(seed)
    )
    found = sampler.sample_chains(
        warm_up, draws, [start] * 2, trace_funcs=[lambda state: {"u": state.pos}], display_progress=False,
        adapters=[mici.adapters.DualAveragingStepSizeAdapter(0.9), mici.adapters.OnlineVarianceMetricAdapter()],
    )  # fmt: skip
    return np.concatenate([np.asarray(chain) for chain in found.traces["u"]])


def by_nutpie(density, start, warm_up, draws, seed):
    import nutpie

    program = tapegrad.record(density, start, on_error="nan")
    model = nutpie.compiled_pyfunc.from_pyfunc(
        len(start), lambda: program.value_and_grad, lambda *_: lambda u: {"u": u}, [np.dtype("float64")],
        [(len(start),)], ["u"], make_initial_point_fn=lambda seed: start,
    )  # fmt: skip
    found = nutpie.sample(model, tune=warm_up, draws=draws, chains=2, cores=1, seed=seed, progress_bar=False)
    return np.asarray(found.posterior["u"]).reshape(-1, len(start))


SAMPLERS = {"mici": by_mici, "nutpie": by_nutpie}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posteriors", nargs="+", choices=POSTERIORS, default=list(POSTERIORS))
    parser.add_argument("--sampler", choices=SAMPLERS, default="mici")
    parser.add_argument("--draws", type=int, default=500, help="of each of two chains (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--picture", help="a file to draw all posteriors into; needs matplotlib")
    args = parser.parse_args()
    drawn = {}
    for title in args.posteriors:
        density, start, names, shown = POSTERIORS[title]
        began = time.perf_counter()
        numbers = shown(SAMPLERS[args.sampler](density, start, args.draws, args.draws, args.seed))
        print(f"{title}: {len(numbers)} draws by {args.sampler} in {time.perf_counter() - began:.1f} s")
        for name, column in zip(names, numbers.T):
            print(f"    {name:<12} {column.mean():8.4f} with a standard deviation of {column.std():.4f}")
        drawn[title] = names, numbers
    if args.picture:
        draw(drawn, args.picture)


def draw(drawn, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(drawn), 4, figsize=(10, 2.2 * len(drawn)), squeeze=False, layout="constrained")
    for row, (title, (names, numbers)) in zip(rows, drawn.items()):
        row[0].set_ylabel(title)
        for k, axes in enumerate(row):
            axes.set_yticks([])
            if k < len(names):
                axes.hist(numbers[:, k], bins=40)
                axes.set_xlabel(names[k])
            else:
                axes.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    main()
