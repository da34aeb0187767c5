"""The two pictures beside RESULTS.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

__all__ = ["draw_costs", "draw_steps"]

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "tapegrad",  # the same file from the same numbers
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
COLORS = {
    "tapegrad": "#c1272d",
    "tapegrad, cffi": "#e58a7b",
    "closures": "#0b4f8a",
    "closures, gc off": "#6aa6d6",
    "micrograd": "#0b4f8a",
    "micrograd, gc off": "#6aa6d6",
    "floats": "#222222",
    "NumPy scalars": "#888888",
    "XAD": "#2e7d4f",
    "PyTorch": "#d98200",
    "CasADi SX": "#7a4fa0",
    "autograd": "#8c6d46",
}


def draw_costs(costs: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Draw the cost of an operation against the size of the graph, a line a contender, named at its end.

    Args:
        costs: of each contender, operations and nanoseconds for each.
        path: of the SVG file.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
        ends = []
        for name, points in costs.items():
            sizes, nanoseconds = zip(*points)
            floor = name in ("floats", "NumPy scalars")
            axes.plot(
                sizes, nanoseconds, color=COLORS[name], marker="o", markersize=3.5,
                linewidth=2.4 if name == "tapegrad" else 1.4, linestyle=":" if floor else "-",
            )  # fmt: skip
            ends.append((nanoseconds[-1], sizes[-1], f"{name}, no gradient" if floor else name, COLORS[name]))
        axes.set(
            xscale="log", yscale="log", xlabel="operations in the graph", ylabel="ns an operation, record and sweep"
        )
        axes.grid(True)
        right = max(size for _, size, _, _ in ends) * 1.5
        heights = _spread([height for height, *_ in ends], 1.42)
        for (height, size, text, color), shown in zip(ends, heights):
            axes.annotate(
                text, (size, height), (right, shown), color=color, va="center", annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "alpha": 0.5},
            )  # fmt: skip
        _save(figure, path)


def _spread(heights: Sequence[float], factor: float) -> list[float]:
    """Move heights apart, each at least `factor` times the one below."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    shown = list(heights)
    for below, above in zip(order, order[1:]):
        shown[above] = max(shown[above], shown[below] * factor)
    return shown


def draw_steps(panels: Sequence[tuple[str, Sequence[tuple[str, str, float]]]], path: Path) -> None:
    """Draw the time of a training step, a bar a contender.

    Args:
        panels: titles, each with its bars: name, contender, milliseconds.
        path: of the SVG file.
    """
    with plt.rc_context(STYLE):
        height = 0.28 * sum(len(bars) for _, bars in panels) + 0.9 * len(panels)
        figure, rows = plt.subplots(
            len(panels), 1, figsize=(8, height), layout="constrained", squeeze=False,
            height_ratios=[len(bars) for _, bars in panels],
        )  # fmt: skip
        for axes, (title, bars) in zip(rows[:, 0], panels):
            bars = sorted(bars, key=lambda bar: -bar[2])
            names, contenders, times = zip(*bars)
            drawn = axes.barh(range(len(bars)), times, color=[COLORS[name] for name in contenders], height=0.7)
            axes.bar_label(drawn, [f"{t:.3g}" if t < 1000 else f"{t:,.0f}" for t in times], padding=4)
            axes.set_yticks(range(len(bars)), names)
            axes.set_title(title, loc="left")
            axes.set(xscale="log", xlabel="ms a step", xlim=(None, max(times) * 3))
            axes.grid(True, axis="x")
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
