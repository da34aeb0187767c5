"""tapegrad as a tool of GradBench, on one thread.

    python benchmarks/gradbench/tool.py               programs are interpreted
    python benchmarks/gradbench/tool.py --native      those of some thousand instructions are compiled"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from evals import EVALS
from protocol import serve

LARGEST = 10_000  # instructions that are compiled: more take longer than a minute


def as_it_is(program: Any) -> Any:
    return program


def native(program: Any) -> Any:
    return program.native() if program.stats["instructions"] <= LARGEST else program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--native", action="store_true", help="compile what is small enough")
    ready = native if parser.parse_args().native else as_it_is
    serve("tapegrad", {m: {n: partial(f, ready=ready) for n, f in fs.items()} for m, fs in EVALS.items()})


if __name__ == "__main__":
    main()
