"""A character GPT of scalar Values: a transformer of one block learns names letter by letter, then writes some."""

from __future__ import annotations

import argparse
import math
import random
import string
import time
from pathlib import Path

import tapegrad
from tapegrad import Value, affine, cross_entropy, dot, no_grad, softmax
from tapegrad.demo.progress import Progress
from tapegrad.optim import Adam

WIDTH, HEADS, CONTEXT = 16, 4, 16
HEAD = WIDTH // HEADS
SYMBOLS = "." + string.ascii_lowercase  # a name starts and ends with a dot
BATCH = 8


def matrix(rows: int, columns: int) -> list[list[Value]]:
    return [[Value(random.gauss(0.0, 0.08)) for _ in range(columns)] for _ in range(rows)]


class Gpt:
    """One block of attention over all letters so far, and of two linear maps with a relu in between."""

    def __init__(self) -> None:
        self.token = matrix(len(SYMBOLS), WIDTH)
        self.position = matrix(CONTEXT, WIDTH)
        self.query, self.key, self.value, self.mix = (matrix(WIDTH, WIDTH) for _ in range(4))
        self.widen, self.narrow = matrix(4 * WIDTH, WIDTH), matrix(WIDTH, 4 * WIDTH)
        self.score = matrix(len(SYMBOLS), WIDTH)

    def parameters(self) -> list[Value]:
        return [p for rows in vars(self).values() for row in rows for p in row]

    def __call__(self, symbol: int, keys: list[list[Value]], values: list[list[Value]]) -> list[Value]:
        """Return a score for each symbol that may follow.

        Args:
            symbol: the last one.
            keys: of the symbols before; the new one's is appended.
            values: likewise.
        """
        x = normalized([t + p for t, p in zip(self.token[symbol], self.position[len(keys)])])

        y = normalized(x)
        query = affine(self.query, None, y)
        keys.append(affine(self.key, None, y))
        values.append(affine(self.value, None, y))
        seen: list[Value] = []
        for h in range(0, WIDTH, HEAD):
            q = query[h : h + HEAD]
            weights = softmax([dot(q, k[h : h + HEAD]) * HEAD**-0.5 for k in keys])
            seen += affine([list(column) for column in zip(*(v[h : h + HEAD] for v in values))], None, weights)
        x = [a + b for a, b in zip(affine(self.mix, None, seen), x)]

        y = affine(self.narrow, None, affine(self.widen, None, normalized(x), "relu"))
        x = [a + b for a, b in zip(x, y)]
        return affine(self.score, None, x)


def normalized(x: list[Value]) -> list[Value]:
    """Divide x by its root mean square."""
    scale = (dot(x, x) / len(x) + 1e-5) ** -0.5
    return [xi * scale for xi in x]


def loss(model: Gpt, name: str) -> Value:
    """Return the mean cross-entropy of the letters of a name and of its end."""
    symbols = [SYMBOLS.index(letter) for letter in f".{name}."]
    keys: list[list[Value]] = []
    values: list[list[Value]] = []
    losses = [cross_entropy(model(s, keys, values), target) for s, target in zip(symbols, symbols[1:])]
    return tapegrad.sum(losses) / len(losses)


@no_grad()
def write(model: Gpt, temperature: float) -> str:
    """Draw one letter after the other until a dot.

    Args:
        model: that scores the letters.
        temperature: below 1, likely letters become likelier.
    """
    name, symbol = "", 0
    keys: list[list[Value]] = []
    values: list[list[Value]] = []
    while len(name) < CONTEXT - 1:
        weights = softmax([s / temperature for s in model(symbol, keys, values)])
        (symbol,) = random.choices(range(len(SYMBOLS)), [w.data for w in weights])
        if symbol == 0:
            break
        name += SYMBOLS[symbol]
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description="train a character GPT of scalar Values on names, and write some")
    parser.add_argument("--steps", type=int, default=3000, help="of 8 names each (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=20, help="names to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of everything random (default: %(default)s)")
    parser.add_argument("--picture", help="a file to draw the loss into; needs matplotlib")
    args = parser.parse_args()
    random.seed(args.seed)

    names = Path(__file__).with_name("names.txt").read_text(encoding="ascii").lower().split()
    random.shuffle(names)
    model = Gpt()
    optimizer = Adam(model.parameters(), lr=0.01, betas=(0.9, 0.99))
    print(f"{len(names)} names, {len(model.parameters())} parameters")

    mean, means = 0.0, []
    began = time.perf_counter()
    with Progress(args.steps, "training") as progress:
        for step in range(args.steps):
            batch = [names[(step * BATCH + i) % len(names)] for i in range(BATCH)]
            total = tapegrad.sum([loss(model, name) for name in batch]) / BATCH
            optimizer.zero_grad()
            total.backward()
            optimizer.lr = 0.01 * (1 - step / args.steps)
            optimizer.step()
            mean += (total.data - mean) / min(step + 1, 100)
            means.append(mean)
            progress(step + 1, f"loss {mean:.3f}")
    taken = time.perf_counter() - began
    print(f"loss {mean:.3f} after {args.steps} steps in {taken:.1f} s, {1e3 * taken / args.steps:.2f} ms a step")

    known = set(names)
    for _ in range(args.samples):
        name = write(model, temperature=0.6)
        print(name.capitalize() + (" (in the list)" if name in known else ""))
    if args.picture:
        draw(means, args.picture)


def draw(means: list[float], path: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.plot(means)
    axes.axhline(math.log(len(SYMBOLS)), linestyle="--", color="gray", label="of letters drawn by lot")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, mean of the last 100 steps")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
