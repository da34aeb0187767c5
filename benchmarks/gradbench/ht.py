"""GradBench's hand tracking: how far points of a hand of bones are from where they were seen, and the Jacobian of that.

The pose moves 22 bones, and a point of the hand follows a few of these, in linear maps. So there are two programs: from
the pose to the bones, and, a row for each point, from the bones to one coordinate of it. Their derivatives meet in a
product of matrices, as the chain rule has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from protocol import Prepared

import tapegrad

__all__ = ["ht_jacobian", "ht_objective"]

Number = Any
Ready = Callable[[Any], Any]  # a program as it is, or native

FINGERS = range(1, 21, 4)  # the first bone of each, which does not turn
STILL = 1e-4  # turns by less are none


# ---- the bones ----


def after(a: Any, b: Any) -> Any:
    """Two affine maps of 3 rows and 4 columns as one, b first."""
    return np.column_stack([a[:, :3] @ b[:, :3], a[:, :3] @ b[:, 3] + a[:, 3]])


def turned(x: Number, z: Number) -> Any:
    """By an angle about x, then by one about z."""
    (a, b), (c, d) = ((tapegrad.math.cos(angle), tapegrad.math.sin(angle)) for angle in (x, z))
    return np.array([[c, -d * a, d * b, 0.0], [d, c * a, -c * b, 0.0], [0.0, b, a, 0.0]])


def turned_about(axis: Sequence[Number]) -> Any:
    """By the length of an axis, about it."""
    angle = tapegrad.math.hypot(*axis)
    if angle < STILL:
        return np.eye(3)
    w = [a / angle for a in axis]
    sine, cosine = angle.sin(), angle.cos()
    across = np.array([[0.0, -w[2], w[1]], [w[2], 0.0, -w[0]], [-w[1], w[0], 0.0]])
    return np.outer(w, w) * (1.0 - cosine) + np.eye(3) * cosine + across * sine


def bones(theta: Any, model: dict[str, Any]) -> tuple[Any, Any]:
    """For each bone what of its map is linear in homogeneous coordinates, by rows; and by how much all is shifted.

    theta: the turn of the hand, its shift, and for each finger the angles of its three other bones: two, one, one."""
    turns = {}
    for first, (x, z, *others) in zip(FINGERS, theta[6:].reshape(5, 4)):
        turns[first + 1] = turned(x, z)
        turns.update((first + 2 + k, turned(x, 0.0)) for k, x in enumerate(others))
    hand = turned_about(theta[:3]) * ([-1.0, 1.0, 1.0] if model["is_mirrored"] else 1.0)
    placed: list[Any] = []
    for k, (parent, at_rest) in enumerate(zip(model["parents"], np.array(model["base_relatives"])[:, :3])):
        own = after(at_rest, turns[k]) if k in turns else at_rest
        placed.append(own if parent < 0 else after(placed[parent], own))
    back = np.array(model["inverse_base_absolutes"])[:, :3]
    return np.array([hand @ after(a, b) for a, b in zip(placed, back)]), theta[3:6]


# ---- the points ----


def coordinate(rows: Any, shift: Number, u: Any, corners: Any, weights: Any, seen: Number) -> Number:
    """What a point of the hand misses in one coordinate.

    Args:
        rows: of the bones' maps, those of this coordinate.
        u: how the point is made up of the corners of its triangle, but for the last one.
        corners, weights: where they are at rest, and by how much they follow each bone."""
    shares = [*u, 1.0 - tapegrad.sum(u)] if len(u) else [1.0]
    terms = [s * tapegrad.dot(w, [tapegrad.dot(row, x) for row in rows]) for s, w, x in zip(shares, weights, corners)]
    return seen - (tapegrad.sum(terms) + shift)


class Hand:
    """A hand in a pose, and where its points were seen."""

    def __init__(self, given: dict[str, Any], ready: Ready) -> None:
        model, seen = given["data"]["model"], np.array(given["data"]["points"])
        self.theta, self.u = np.array(given["theta"]), np.array(given["us"]).reshape(len(seen), -1)
        at = np.array(given["data"]["correspondences"])[:, None]  # a vertex, or the corners of a triangle
        if self.u.size:
            at = np.array(model["triangles"])[at[:, 0]]
        self.points = np.array(model["base_positions"])[at], np.array(model["weights"])[at]
        self.seen = seen.T.copy()
        self.bones = ready(tapegrad.record(lambda theta: bones(theta, model), self.theta))
        rows, shift = self.bones(self.theta)
        example = rows[:, 0], shift[0], self.u[0], *(x[0] for x in self.points), 0.0
        self.coordinate = ready(tapegrad.record(coordinate, *example)).map((None, None, 0, 0, 0, 0))

    def objective(self) -> Any:
        """The coordinates of each point."""
        rows, shift = self.bones(self.theta)
        found = [self.coordinate(rows[:, r], shift[r], self.u, *self.points, self.seen[r]) for r in range(3)]
        return np.stack(found, axis=1)

    def jacobian(self) -> Any:
        """A row for each coordinate of each point: by its own u, if there is any, then by the pose."""
        rows, shift = self.bones(self.theta)
        by_pose, shift_by_pose = self.bones.jacobian(self.theta)
        found = []
        for r in range(3):
            at = rows[:, r], shift[r], self.u, *self.points, self.seen[r]
            by_rows, by_shift, *by_u = self.coordinate.grad(*at, argnums=(0, 1, 2) if self.u.size else (0, 1))
            chained = by_rows.reshape(len(by_rows), -1) @ by_pose[:, r].reshape(-1, len(self.theta))
            chained += np.outer(by_shift, shift_by_pose[r])
            found.append(np.concatenate([*by_u, chained], axis=1))
        return np.stack(found, axis=1)


def ht_objective(given: dict[str, Any], ready: Ready) -> Prepared:
    return Prepared(Hand(given, ready).objective, lambda found: found.ravel().tolist())


def ht_jacobian(given: dict[str, Any], ready: Ready) -> Prepared:
    return Prepared(Hand(given, ready).jacobian, lambda found: found.reshape(-1, found.shape[-1]).tolist())
