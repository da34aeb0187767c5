"""Where boxes go: a layered drawing from left to right, after Sugiyama, Tagawa and Toda (1981)."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

GAP = 18.0  # between boxes of a layer
ROUNDS = 8

Point = tuple[float, float]


class Layout(NamedTuple):
    """Centres of the boxes, the points that each edge goes through between its ends, and how much room all takes."""

    at: list[Point]
    through: list[list[Point]]
    width: float
    height: float


class _Layers:
    """Boxes, and for an edge that passes layers a joint in each of them; edges of one box share their joints."""

    def __init__(self, n: int, edges: Sequence[tuple[int, int]]) -> None:
        users: list[list[int]] = [[] for _ in range(n)]
        layer = [0] * n
        for a, b in sorted({(min(e), max(e)) for e in edges if e[0] != e[1]}, key=lambda e: e[1]):
            users[a].append(b)
            layer[b] = max(layer[b], layer[a] + 1)
        has_operand = {max(e) for e in edges if e[0] != e[1]}
        for k in range(n):
            if users[k] and k not in has_operand:  # a leaf beside who reads it first
                layer[k] = min(layer[u] for u in users[k]) - 1
        self.layer = layer
        self.before: list[list[int]] = [[] for _ in range(n)]
        self.after: list[list[int]] = [[] for _ in range(n)]
        self.joints: dict[tuple[int, int], int] = {}  # (box, layer)
        for a in range(n):
            far = max((layer[u] for u in users[a]), default=layer[a])
            tail = {layer[a]: a}
            for at in range(layer[a] + 1, far):
                tail[at] = self.joints[a, at] = len(self.layer)
                self.layer.append(at)
                self.before.append([])
                self.after.append([])
                self._join(tail[at - 1], tail[at])
            for u in users[a]:
                self._join(tail[layer[u] - 1], u)
        self.order: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
        for k, at in enumerate(self.layer):
            self.order[at].append(k)

    def _join(self, a: int, b: int) -> None:
        self.after[a].append(b)
        self.before[b].append(a)

    def crossings(self) -> int:
        count = 0
        rank = {k: r for row in self.order for r, k in enumerate(row)}
        for row in self.order:
            ends = [rank[b] for a in row for b in sorted(self.after[a], key=rank.__getitem__)]
            size = max(ends, default=0) + 1
            tree = [0] * (size + 1)
            for seen, end in enumerate(ends):
                at, below = end + 1, 0
                while at:
                    below += tree[at]
                    at &= at - 1
                count += seen - below
                at = end + 1
                while at <= size:
                    tree[at] += 1
                    at += at & -at
        return count

    def untangle(self) -> None:
        """Order each layer by the mean rank of its neighbours, there and back, and keep the best order."""
        best, least = [row[:] for row in self.order], self.crossings()
        rank = {k: float(r) for row in self.order for r, k in enumerate(row)}
        for turn in range(ROUNDS):
            if not least:
                break
            forth = turn % 2 == 0
            near = self.before if forth else self.after
            for row in self.order if forth else self.order[::-1]:
                mean = {k: sum(rank[m] for m in near[k]) / len(near[k]) if near[k] else rank[k] for k in row}
                row.sort(key=mean.__getitem__)
                rank.update((k, float(r)) for r, k in enumerate(row))
            crossings = self.crossings()
            if crossings < least:
                best, least = [row[:] for row in self.order], crossings
        self.order = best


def _spread(wanted: list[float], sizes: list[float], weights: list[float]) -> list[float]:
    """The places nearest to the wanted ones, in the mean square, with room between neighbours: pool adjacent ones."""
    offset, offsets = 0.0, []
    for k, size in enumerate(sizes):
        offset += (sizes[k - 1] + size) / 2 + GAP if k else 0.0
        offsets.append(offset)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for want, off, weight in zip(wanted, offsets, weights):
        mean, total, count = want - off, weight, 1
        while pools and pools[-1][0] >= mean:
            other, heavy, n = pools.pop()
            mean, total, count = (mean * total + other * heavy) / (total + heavy), total + heavy, count + n
        pools.append((mean, total, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + off for mean, off in zip(means, offsets)]


def layered(
    sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], gap: float, margin: float = 16.0
) -> Layout:
    """Lay out boxes, an edge going from a lower to a higher number; one that does not is drawn backwards.

    Args:
        sizes: width and height of each box.
        edges: pairs of boxes, with repeats.
        gap: between layers.
        margin: around all.
    """
    n = len(sizes)
    layers = _Layers(n, edges)
    layers.untangle()
    height = [sizes[k][1] if k < n else 4.0 for k in range(len(layers.layer))]
    y = [0.0] * len(layers.layer)
    for row in layers.order:
        for k, place in zip(row, _spread([0.0] * len(row), [height[k] for k in row], [1.0] * len(row))):
            y[k] = place
    for turn in range(ROUNDS):
        forth = turn % 2 == 0
        for row in layers.order if forth else layers.order[::-1]:
            near = layers.before if forth else layers.after
            if turn >= ROUNDS // 2:
                both = [layers.before[k] + layers.after[k] for k in row]
            else:
                both = [near[k] for k in row]
            wanted = [sum(y[m] for m in ms) / len(ms) if ms else y[k] for k, ms in zip(row, both)]
            weights = [(8.0 if k >= n else 1.0) if ms else 0.05 for k, ms in zip(row, both)]
            for k, place in zip(row, _spread(wanted, [height[k] for k in row], weights)):
                y[k] = place
    top = min((y[k] - height[k] / 2 for k in range(len(y))), default=0.0) - margin
    x, left, half = [0.0] * len(y), margin, [0.0] * len(y)
    for row in layers.order:
        wide = max((sizes[k][0] for k in row if k < n), default=0.0)
        for k in row:
            x[k], half[k] = left + wide / 2, wide / 2
        left += wide + gap
    at = [(round(x[k], 1), round(y[k] - top, 1)) for k in range(len(y))]
    through = []
    for a, b in edges:
        low, high = min(a, b), max(a, b)
        joints = [layers.joints[low, m] for m in range(layers.layer[low] + 1, layers.layer[high])] if a != b else []
        between = [(at[j][0] + side * half[j], at[j][1]) for j in joints for side in (-1, 1)]  # straight past a column
        through.append(between if a < b else between[::-1])
    bottom = max((at[k][1] + height[k] / 2 for k in range(len(y))), default=0.0)
    return Layout(at[:n], through, round(left - gap + margin, 1), round(bottom + margin, 1))
