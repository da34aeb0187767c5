"""The demo's page: how the loss fell, what the network decides, the film of one of its neurons, the heat of a step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from statistics import fmean

from ..look.drawing import Drawing, draw
from ..look.heat import heat
from ..look.page import literal, page
from ..program import record
from ..value import Value
from .iris import SPECIES, Flower
from .network import Network

__all__ = ["write"]

WIDE, HIGH = 420, 300
GRID = 48  # cells of the decision, each way
FROM, TO = -2.2, 2.2  # standard deviations
SHADES = ("#9ec5fe", "#ffd8a8", "#b2d8b2")
CIRCLE, SQUARE, TRIANGLE = "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-3.5 -3.5h7v7h-7z", "M0 -4.5L4.5 3.5H-4.5z"
STYLE = 'style="font: 12px system-ui, sans-serif; fill: var(--ink)"'


def write(path: str | os.PathLike[str], network: Network, losses: Sequence[float], train: Sequence[Flower]) -> None:
    """Write the page of a network that was trained."""
    names = ["sepal length", "sepal width", "petal length", "petal width"]
    neuron = _neuron(network, train[0], names)
    data = neuron._picture().data()
    rows = data.pop("rows")
    weights = [[[w.data for w in row] for row in layer] for layer in network.layers]
    step = heat(lambda weights: Network(lambda w: w, weights).loss(train), weights)
    species = ", ".join(f"{name} {mark}" for name, mark in zip(SPECIES, "●■▲"))
    body = "\n".join([
        "<h1>A network of scalar Values learns the iris data</h1>",
        f'<div class="pair"><figure>{_curve(losses)}<figcaption>The loss, step by step</figcaption></figure>'
        f"<figure>{_decision(network, train)}<figcaption>What it decides by petal length and width, the sepal being "
        f"average: {species}</figcaption></figure></div>",
        f"<h2>The first neuron, for a flower of {escape(SPECIES[train[0].species])}</h2>", '<div id="film"></div>',
        "<h2>Where a training step goes</h2>", f'<div class="scroll">{step.to_html()}</div>',
    ])  # fmt: skip
    start = f'film(document.getElementById("film"), {literal(data)});'
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(page("tapegrad: the demo", body, rows, start))


def _neuron(network: Network, flower: Flower, names: Sequence[str]) -> Drawing:
    *weights, bias = (w.data for w in network.layers[0][0])
    total = Value(bias, label="bias")
    for name, w, x in zip(names, weights, flower.x):
        total = total + Value(w, label=f"weight of {name}") * Value(round(x, 3), label=name)
    result = total.tanh()
    result.label = "neuron"
    result.backward()
    return draw(result)


def _curve(losses: Sequence[float]) -> str:
    top = max(losses)
    points = " ".join(
        f"{46 + k * (WIDE - 60) / max(1, len(losses) - 1):.1f},{12 + (HIGH - 48) * (1 - loss / top):.1f}"
        for k, loss in enumerate(losses)
    )
    return (
        f'<svg viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" role="img" '
        f'aria-label="the loss falls from {losses[0]:.3f} to {losses[-1]:.3f}">'
        f'<path d="M46 12V{HIGH - 36}H{WIDE - 14}" fill="none" stroke="var(--line)"/>'
        f'<polyline points="{points}" fill="none" stroke="var(--link)" stroke-width="2"/>'
        f'<text x="40" y="18" text-anchor="end" {STYLE}>{top:.2f}</text>'
        f'<text x="40" y="{HIGH - 34}" text-anchor="end" {STYLE}>0</text>'
        f'<text x="{WIDE - 14}" y="{HIGH - 18}" text-anchor="end" {STYLE}>step {len(losses)}: {losses[-1]:.4f}</text>'
        "</svg>"
    )


def _decision(network: Network, flowers: Sequence[Flower]) -> str:
    size = (HIGH - 20) / GRID
    scores = record(network.scores, [0.0] * 4).map()
    mean = [fmean(f.x[k] for f in flowers) for k in (0, 1)]
    at = [FROM + (TO - FROM) * (k + 0.5) / GRID for k in range(GRID)]
    each = scores([[*mean, x, y] for y in reversed(at) for x in at])  # of each class, at all points
    found = [point.index(max(point)) for point in zip(*each)]
    parts = [f'<svg viewBox="0 0 {HIGH - 20} {HIGH - 20}" width="{HIGH - 20}" role="img" '
             'shape-rendering="crispEdges" aria-label="the decision">']
    for row in range(GRID):
        cells, start = found[row * GRID : (row + 1) * GRID], 0
        for k in range(1, GRID + 1):
            if k == GRID or cells[k] != cells[start]:  # a run of one colour
                parts.append(
                    f'<rect x="{start * size:.2f}" y="{row * size:.2f}" width="{(k - start) * size + 0.2:.2f}" '
                    f'height="{size + 0.2:.2f}" fill="{SHADES[cells[start]]}"/>'
                )
                start = k
    for flower in flowers:
        x, y = ((v - FROM) / (TO - FROM) * (HIGH - 20) for v in flower.x[2:])
        mark = (CIRCLE, SQUARE, TRIANGLE)[flower.species]
        at_it = f'transform="translate({x:.1f} {HIGH - 20 - y:.1f})"'
        parts.append(f'<path d="{mark}" {at_it} fill="#1b1f24" opacity=".75"/>')
    return "".join([*parts, "</svg>"])
