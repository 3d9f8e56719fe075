"""P14: memory of one book, and of twenty symbols replayed."""

import gc
import gzip
import heapq
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import peers
from report import USDM, Row, median

SYMBOLS = 20
MB = 1e6


def lines_of(path: Path, i: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the capture under the name of symbol ``i``."""
    symbol = b"S%02dUSDT" % i
    with gzip.open(path) as lines:
        for line in lines:
            stamp, _, payload = line.rstrip(b"\n").partition(b" ")
            yield int(stamp), i, payload.replace(b'"BTCUSDT"', b'"%b"' % symbol)


def replay(symbols: int) -> dict[str, float]:
    """Replay the capture as so many symbols at once and return what the process took."""
    from alphapack import app
    from alphapack.domain.inputs import Configure, CoreSettings, Frame, SessionStart
    from alphapack.models import book

    book.warm()
    gc.collect()
    before = resident()
    engine, seq, rss = app.build(), 0, []
    streams = [lines_of(USDM, i) for i in range(symbols)]
    for ts_ns, i, payload in heapq.merge(*streams):
        if seq == 0:
            engine.step(Configure(1, ts_ns, CoreSettings()))
            engine.step(SessionStart(2, ts_ns, "bench"))
            seq = 2
        seq += 1
        engine.step(Frame(seq, ts_ns, "binance-usdm", f"S{i:02d}USDT", payload))
        if seq % 50_000 == 0:
            rss.append(resident())
    market = next(iter(engine.microstructure._markets.values()))
    saves = []
    for _ in range(5):
        start = time.perf_counter()
        engine.save()
        saves.append(1_000 * (time.perf_counter() - start))
    live = sum(engine.microstructure.health(name).state == "LIVE" for name in engine.microstructure.symbols())
    return {
        "live": live,
        "frames": seq - 2,
        "before": before,
        "half": rss[len(rss) // 2] if rss else 0.0,
        "end": resident(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB,
        "book": arrays(market.book) / MB,
        "history": arrays(market.history) / MB,
        "save_ms": median(saves),
    }


def arrays(holder: object) -> int:
    """Return the bytes of the arrays that an object owns."""
    return sum(value.nbytes for value in vars(holder).values() if isinstance(value, np.ndarray) and value.base is None)


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MB


def measured(what: int | str) -> dict[str, float]:
    """Measure in a process of its own: so many symbols replayed, or a peer's backtest of the files in a folder."""
    answer = subprocess.run([sys.executable, __file__, str(what)], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def backtested(folder: Path) -> dict[str, float]:
    """Run hftbacktest over its files of the capture and return what the process took for them."""
    snapshot, events, loop = str(folder / "snapshot.npz"), str(folder / "events.npz"), peers.hftbacktest_loop()
    first = peers.hftbacktest_of(snapshot, snapshot)
    loop(first)  # Compiled now, so that the compiler's memory is not taken for the backtest's.
    first.close()
    before = resident()
    backtest = peers.hftbacktest_of(snapshot, events)
    loop(backtest)
    return {"taken": resident() - before}


def of_peer(ours: float) -> Row:
    """Return the row of what is held for one symbol by a backtest over the same messages."""
    peer = peers.Peer("backtest over the same messages, ROIVector", ("hftbacktest",), peers.hftbacktest_roi)
    if peer.missing():
        return Row("P14", f"  hftbacktest {peer.what}", "", "", None, "not installed")
    with tempfile.TemporaryDirectory() as folder:
        for name, events in zip(("snapshot", "events"), peers.hftbacktest_events(peers.real()), strict=True):
            np.savez(Path(folder) / name, data=events)
        taken = measured(folder)["taken"]
    return Row("P14", f"  {peer.label()}", "", "", None, f"{taken:.0f} MB, grows with the recording", f"{taken / ours:.0f}x")


def run() -> list[Row]:
    one, many = measured(1), measured(SYMBOLS)
    assert (one["live"], many["live"]) == (1, SYMBOLS)
    book = f"{one['book'] + one['history']:.2f} MB ({one['book']:.2f} book and windows, {one['history']:.2f} an hour's history)"
    whole = f"{many['peak']:.0f} MB peak (half way {many['half']:.0f}, end {many['end']:.0f}; {many['before']:.0f} before the first frame)"
    return [
        Row("P14", "one book over the USD-M capture (9,596 levels at its end)", book, "<= 5 MB", one["book"] + one["history"] <= 5),
        of_peer(one["book"] + one["history"]),
        Row("save", f"state taken for a checkpoint, {SYMBOLS} symbols", f"{many['save_ms']:.1f} ms", "-", None),
        Row("P14", f"{SYMBOLS} symbols, {many['frames']:,.0f} frames replayed", whole, "< 500 MB", many["peak"] < 500),
    ]


if __name__ == "__main__":
    asked = sys.argv[1]
    print(json.dumps(replay(int(asked)) if asked.isdecimal() else backtested(Path(asked))))
