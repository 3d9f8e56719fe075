"""One row a goal, as a table and as JSON."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ALPHAPACK_DATA") or PROJECT.parent / "shared" / "data")
USDM = DATA / "captures" / "binance-usdm_BTCUSDT_20240808T2354.raw.gz"
FOUR = [
    DATA / "captures" / f"{name}_20240808T2354.raw.gz"
    for name in ("binance-usdm_BTCUSDT", "binance-spot_BTCUSDT", "binance-spot_ETHUSDT", "binance-coinm_ETHUSD_PERP")
]


@dataclass(frozen=True)
class Row:
    """A measured goal; ``peer`` and ``ratio`` are empty where the goal is absolute."""

    id: str
    what: str
    ours: str
    goal: str
    met: bool | None
    peer: str = ""
    ratio: str = ""


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quantile(values: Sequence[float], q: float) -> float:
    """Return the smallest value that at least the share ``q`` of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(q * 1_000_000) * len(ordered) // 1_000_000) - 1))]


def environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine(), "cores": str(os.cpu_count())}
    for name in ("numpy", "numba", "msgspec", "litestar", "uvicorn", "uvloop"):
        found[name] = version(name)
    return found


def show(rows: Sequence[Row], json_path: Path | None) -> None:
    table = [("id", "what", "ours", "peer", "ratio", "goal", "")]
    verdict = {True: "met", False: "short", None: ""}
    table += [(row.id, row.what, row.ours, row.peer, row.ratio, row.goal, verdict[row.met]) for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print("  ".join(f"{name} {value}" for name, value in environment().items()))
    if json_path is not None:
        json_path.write_text(json.dumps({"environment": environment(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
