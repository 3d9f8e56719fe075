"""Measure the goals: ``python bench/run.py [GROUP ...] [--json FILE]``.

Groups: wire (P1, P2), book (P4), curves (cost against symbols, depth and window), step (rate of the engine), memory (P14),
serve (P12, P13), garch (Q4, P5), har (P6), volatility (Q1, the route), implied (P7), svi, chain (P8), deribit (recorded
chains), fills (what is filled of the same orders), matching (what orders cost), calibration (Q3), router (P9, Q2), shapley
(P10), loop (P3). They need the recorded captures (``ALPHAPACK_DATA``) and the package's ``bench`` extra. Two more are run by
name alone, for they take minutes and need no captures: faults (Q5, R1 to R4), live (R11, P12). What other projects make of the
same work is measured beside it where they are installed, as ``requirements/peers.txt`` locks them with all that the package
itself needs; without them their rows say so.
"""

import argparse
import importlib
import sys
from pathlib import Path

from report import DATA, Row, show

GROUPS = (
    "wire",
    "book",
    "curves",
    "step",
    "memory",
    "serve",
    "garch",
    "har",
    "volatility",
    "implied",
    "svi",
    "chain",
    "deribit",
    "fills",
    "matching",
    "calibration",
    "router",
    "shapley",
    "loop",
)
ON_LOOPBACK = ("faults", "live")
"""Against a mock exchange."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "groups", nargs="*", choices=[*GROUPS, *ON_LOOPBACK, []], help="what to measure; where left out, all that needs captures"
    )
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    groups = arguments.groups or GROUPS
    if not DATA.is_dir() and set(groups) - set(ON_LOOPBACK):
        print(f"error: expected the recorded market data in {DATA}, found no such folder; set ALPHAPACK_DATA", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for group in groups:
        print(f"measuring {group} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(group).run()
    show(rows, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
