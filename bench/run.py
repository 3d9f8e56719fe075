"""Measure the goals: ``python bench/run.py [GROUP ...] [--json FILE]``.

Groups: wire (P1, P2), book (P4), curves (cost against symbols, depth and window), step (rate of the engine), memory (P14),
serve (P12, P13). Needs the recorded captures (``ALPHAPACK_DATA``) and the package's ``bench`` extra. What other projects make of
the same work is measured beside it where they are installed, as ``requirements/peers.txt`` locks them with all that the package
itself needs; without them their rows say so.
"""

import argparse
import importlib
import sys
from pathlib import Path

from report import DATA, Row, show

GROUPS = ("wire", "book", "curves", "step", "memory", "serve")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="what to measure; everything where left out")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(f"error: expected the recorded market data in {DATA}, found no such folder; set ALPHAPACK_DATA", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for group in arguments.groups or GROUPS:
        print(f"measuring {group} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(group).run()
    show(rows, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
