"""Measures gradients of posteriors beside BridgeStan's, which has to give the same densities and gradients to 1e-9, and
prints a table.

    python benchmarks/posteriors/measure.py --bridgestan PYTHON

PYTHON is an interpreter that has bridgestan, which compiles the models of a clone of posteriordb; the clone is made
where there is none. Without it tapegrad alone is measured. Stan solves differential equations as exactly as a model
asks, which is too coarse to compare 9 digits: then it is asked for 12. Times are of the models as they are."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from models import MODELS, Posterior, data

from tapegrad.demo.progress import Progress

HERE = Path(__file__).parent
URL, COMMIT = "https://github.com/stan-dev/posteriordb", "28f8d3d6"
SAME = 1e-9  # of density and gradient, relative to the largest component
EXACTLY = {  # what a model says of its differential equations, and what it is to say
    "lotka_volterra": [("1e-5, 1e-3, 5e2", "1e-12, 1e-12, 1e6")],
    "one_comp_mm_elim_abs": [
        ("x_i);", "x_i, 1e-12, 1e-12, 1e6);"), ("integrate_ode_bdf", "integrate_ode_rk45"),
    ],  # by bdf it is 3e-9 off
}  # fmt: skip
STEPS = {"lotka_volterra": 400, "one_comp_mm_elim_abs": 400}  # from one time to the next, where 9 digits are compared


def clone(folder: Path) -> Path:
    if not folder.exists():
        subprocess.run(["git", "clone", "--quiet", URL, str(folder)], check=True)
        subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", COMMIT], check=True)
    return folder / "posterior_database" / "models" / "stan"


def best(f: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest of many runs."""
    least, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        f()
        least, runs = min(least, time.perf_counter() - began), runs + 1
    return least


def posterior(name: str, **more: Any) -> Posterior:
    density, start, _ = MODELS[name]
    d = data(name)
    return Posterior(lambda u: density(u, d, **more), start)


def of_tapegrad(name: str, seconds: float) -> dict[str, Any]:
    one, at = posterior(name), np.array(MODELS[name].start)
    took = best(lambda: one.log_density_gradient(at), seconds)
    value, gradient = one.log_density_gradient(at)
    nodes = one.program.stats["recorded"]
    return {"value": value, "gradient": gradient.tolist(), "seconds": took, "nodes": nodes}


def of_stan(name: str, python: str, models: Path, made: Path, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """What BridgeStan gives for the model as it is, and as exactly as we compare it."""
    found = []
    for more in ("", "_exactly"):
        if more and name not in EXACTLY:
            found.append(found[0])
            continue
        text = (models / f"{MODELS[name].stan}.stan").read_text(encoding="utf-8")
        file = made / f"{name}{more}.stan"
        for loosely, exactly in EXACTLY[name] if more else []:
            if loosely not in text:
                raise RuntimeError(f"{name}: there is no {loosely!r} in its model")
            text = text.replace(loosely, exactly)
        file.write_text(text, encoding="utf-8")
        compiled = file.with_name(f"{file.stem}_model.so")
        asked = {
            "file": str(compiled if compiled.exists() else file), "data": data(name), "at": MODELS[name].start,
            "seconds": seconds, "hessian": False,
        }  # fmt: skip
        done = subprocess.run(
            [python, str(HERE / "stan.py")], input=json.dumps(asked), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found[0], found[1]


def apart(a: dict[str, Any], b: dict[str, Any]) -> float:
    """The largest difference of density and gradient, relative to the largest component."""
    ours, theirs = (np.array([one["value"], *one["gradient"]]) for one in (a, b))
    return float(abs(ours - theirs).max() / abs(theirs).max())


def measure(seconds: float, python: str | None = None, build: Path | None = None) -> dict[str, dict[str, Any]]:
    """Of each posterior what a gradient takes, by tapegrad and by BridgeStan, and how far they are apart."""
    results: dict[str, dict[str, Any]] = {}
    models = clone(build / "posteriordb") if python and build else None
    with Progress(len(MODELS), "posteriors") as progress:
        for k, name in enumerate(MODELS, 1):
            results[name] = one = {"tapegrad": of_tapegrad(name, seconds)}
            if python and build and models:
                made = build / "stan"
                made.mkdir(parents=True, exist_ok=True)
                one["BridgeStan"], exactly = of_stan(name, python, models, made, seconds)
                ours = one["tapegrad"]
                if name in STEPS:
                    value, gradient = posterior(name, steps=STEPS[name]).log_density_gradient(MODELS[name].start)
                    ours = {"value": value, "gradient": gradient}
                one["apart"] = apart(ours, exactly)
                if not one["apart"] <= SAME:
                    raise RuntimeError(f"{name}: density and gradient are {one['apart']:.1e} from BridgeStan's")
            progress(k, name)
    return results


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| posterior | parameters | nodes | tapegrad, µs | BridgeStan, µs | times BridgeStan's | apart |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in results.items():
        ours, theirs = one["tapegrad"], one.get("BridgeStan")
        shown = [""] * 3
        if theirs:
            ratio = ours["seconds"] / theirs["seconds"]
            shown = [f"{1e6 * theirs['seconds']:.3g}", f"{ratio:.3g}", f"{one['apart']:.0e}"]
        head = f"| {name} | {len(MODELS[name].start)} | {ours['nodes']:,} | {1e6 * ours['seconds']:.3g} |"
        lines.append(f"{head} {' | '.join(shown)} |")
    return lines


def goals(results: dict[str, dict[str, Any]]) -> list[tuple[str, str, float, list[float]]]:
    return [
        (f"posterior {name}: gradient, in BridgeStan's", "at most", 1.0,
         [one["tapegrad"]["seconds"] / one["BridgeStan"]["seconds"]])
        for name, one in results.items() if "BridgeStan" in one
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridgestan", metavar="PYTHON", help="an interpreter that has bridgestan")
    parser.add_argument("--build", type=Path, default=HERE.parents[1] / "build", help="where clone and models are")
    parser.add_argument("--smoke", action="store_true", help="as briefly as possible")
    parser.add_argument("--json", action="store_true", help="print the table as run.py reads it")
    args = parser.parse_args()
    found = measure(0.0 if args.smoke else 0.5, args.bridgestan, args.build.resolve())
    print(json.dumps({"table": table(found), "goals": goals(found)}) if args.json else "\n".join(table(found)))


if __name__ == "__main__":
    main()
