"""A character RNN on a list of names: one step recorded once, unrolled by nobody, trained over batches in lanes.

A step reads a letter and gives the cross-entropy of the next one; a name is a loop over its letters, a batch is the
rows of that loop. Names are as long as the longest: behind their end the loss weighs 0."""

from __future__ import annotations

import argparse
import random
import string
import time
from pathlib import Path

import numpy as np

import tapegrad
from tapegrad import Value
from tapegrad.demo.progress import Progress
from tapegrad.optim import Adam

SYMBOLS = "." + string.ascii_lowercase  # a name starts and ends with a dot
HIDDEN, BATCH, LONGEST = 24, 64, 10


class Rnn:
    """A layer of tanh that sees itself a letter ago, and a linear one that scores the letters."""

    def __init__(self) -> None:
        def matrix(rows: int, columns: int) -> list[list[Value]]:
            return [[Value(random.gauss(0.0, columns**-0.5)) for _ in range(columns)] for _ in range(rows)]

        self.seen, self.again = matrix(HIDDEN, len(SYMBOLS)), matrix(HIDDEN, HIDDEN)
        self.score = matrix(len(SYMBOLS), HIDDEN)

    def parameters(self) -> list[Value]:
        return [p for rows in vars(self).values() for row in rows for p in row]

    def scores(self, hidden, letter):
        """The next state, and a score for each symbol."""
        both = zip(tapegrad.affine(self.seen, None, letter), tapegrad.affine(self.again, None, hidden))
        hidden = [(a + b).tanh() for a, b in both]
        return hidden, tapegrad.affine(self.score, None, hidden)

    def step(self, hidden, x):
        """The next state, and the loss of what comes next; x: the letter and the next one, each as a one among zeros,
        or nothing but zeros."""
        hidden, scores = self.scores(hidden, x["letter"])
        weight = tapegrad.sum(x["next"])
        return hidden, weight * tapegrad.logsumexp(scores) - tapegrad.dot(x["next"], scores)


def spread(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The letters of a name and those that follow, a row of ones and zeros for each."""
    table = np.zeros((2, LONGEST + 1, len(SYMBOLS)))
    symbols = [SYMBOLS.index(letter) for letter in f".{name}."]
    for k, (now, later) in enumerate(zip(symbols, symbols[1:])):
        table[0, k, now] = table[1, k, later] = 1.0
    return table[0], table[1]


def write(scores: tapegrad.Program, temperature: float) -> str:
    """Draw one letter after the other until a dot."""
    name, symbol, hidden = "", 0, [0.0] * HIDDEN
    while len(name) < LONGEST:
        letter = [float(k == symbol) for k in range(len(SYMBOLS))]
        hidden, found = scores(hidden, letter)
        weights = np.exp((np.array(found) - max(found)) / temperature)
        (symbol,) = random.choices(range(len(SYMBOLS)), weights.tolist())
        if symbol == 0:
            break
        name += SYMBOLS[symbol]
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description="train a character RNN on names, and write some")
    parser.add_argument("--steps", type=int, default=1500, help=f"of {BATCH} names each (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=10, help="names to write (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    random.seed(args.seed)

    names = Path(__file__).with_name("names.txt").read_text(encoding="ascii").lower().split()
    names = [name for name in names if len(name) <= LONGEST]
    random.shuffle(names)
    letters, following = map(np.array, zip(*map(spread, names)))
    model = Rnn()
    weights = model.parameters()
    optimizer = Adam(weights, lr=0.01)
    zeros = [0.0] * HIDDEN
    one = {"letter": [0.0] * len(SYMBOLS), "next": [0.0] * len(SYMBOLS)}
    step = tapegrad.record(model.step, zeros, one, params=weights)
    loss = step.scan().map(in_axes=(None, 0), reduce="mean", threads=args.threads)
    print(f"{len(names)} names, {len(weights)} weights, {step.stats['recorded']} nodes a letter")

    mean = 0.0
    began = time.perf_counter()
    with Progress(args.steps, "training") as progress:
        for k in range(args.steps):
            rows = np.arange(k * BATCH, (k + 1) * BATCH) % len(names)
            batch = {"letter": letters[rows], "next": following[rows]}
            value, gradient = loss.value_and_grad(zeros, batch, argnums="params")
            tapegrad.set_grads(weights, gradient)
            optimizer.lr = 0.01 * (1 - k / args.steps)
            optimizer.step()
            value /= following[rows].sum() / BATCH
            mean += (value - mean) / min(k + 1, 50)
            progress(k + 1, f"loss {mean:.3f} a letter")
    taken = time.perf_counter() - began
    each = 1e3 * taken / args.steps
    print(f"loss {mean:.3f} a letter after {args.steps} steps in {taken:.1f} s, {each:.2f} ms a step")

    scores = tapegrad.record(model.scores, zeros, one["letter"], params=weights)
    known = set(names)
    for _ in range(args.samples):
        name = write(scores, temperature=0.7)
        print(name.capitalize() + (" (in the list)" if name in known else ""))


if __name__ == "__main__":
    main()
