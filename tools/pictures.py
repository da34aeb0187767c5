"""Writes the pictures of README.md and docs/look.md.

    python tools/pictures.py            write them
    python tools/pictures.py --check    exit 1 if one is not what it would write"""
from __future__ import annotations

import sys
from pathlib import Path

from tapegrad import Value, draw, record
from tapegrad.demo.iris import split
from tapegrad.demo.network import Network, initial_weights

ROOT = Path(__file__).resolve().parent.parent


def neuron() -> str:
    """The tutorial's, swept."""
    x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
    w1, w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
    b = Value(6.8813735870195432, label="b")
    o = (x1 * w1 + x2 * w2 + b).tanh()
    o.label = "o"
    o.backward()
    return draw(o).to_svg()


def folded() -> str:
    """The loss of the demo's network over ten flowers, folded to its lines."""
    weights, (flowers, _) = initial_weights(0), split(0)
    program = record(lambda ws: Network(lambda w: w, ws).loss(flowers[:10]), weights)
    return draw(program, weights).to_svg()


def main() -> None:
    stale = []
    for name, make in (("docs/neuron.svg", neuron), ("docs/folded.svg", folded)):
        path, text = ROOT / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if sys.argv[1:] != ["--check"]:
                path.write_text(text, encoding="utf-8")
    if stale and sys.argv[1:] == ["--check"]:
        sys.exit(f"not up to date, run python tools/pictures.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
