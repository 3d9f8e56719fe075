"""Measure the goals: ``python bench/run.py [GROUP ...] [--json FILE]``.

Groups: step (rate of the engine), memory (P14), serve (P12, P13). Needs the recorded captures (``ALPHAPACK_DATA``) and the
package's ``bench`` extra.
"""

import argparse
import importlib
import sys
from pathlib import Path

from report import DATA, Row, show

GROUPS = ("step", "memory", "serve")


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
