"""The iris data, split and standardised."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from statistics import fmean, pstdev
from typing import NamedTuple

__all__ = ["Flower", "split"]

SPECIES = ("setosa", "versicolor", "virginica")


class Flower(NamedTuple):
    x: list[float]
    species: int


def split(seed: int, held_out: int = 30) -> tuple[list[Flower], list[Flower]]:
    """Shuffle the flowers and hold some out.

    Args:
        seed: of the shuffle.
        held_out: how many of the 150.

    Returns:
        The flowers to learn from and those held out, in units of the former's standard deviation from their mean.
    """
    with open(Path(__file__).with_name("iris.csv"), encoding="ascii", newline="") as file:
        _, *rows = csv.reader(file)
    flowers = [Flower([float(cell) for cell in cells], SPECIES.index(name)) for *cells, name in rows]
    random.Random(seed).shuffle(flowers)
    columns = list(zip(*(flower.x for flower in flowers[held_out:])))
    scales = [(fmean(column), pstdev(column)) for column in columns]
    flowers = [Flower([(x - mean) / sd for x, (mean, sd) in zip(f.x, scales)], f.species) for f in flowers]
    return flowers[held_out:], flowers[:held_out]
