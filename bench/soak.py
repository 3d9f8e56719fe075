"""A server against a mock exchange that does faults for a long time (R10).

    nice -n 5 python bench/soak.py --minutes 30

``alphapack mock`` plays 15 busy symbols, about 2,000 messages a second, and does a fault every few seconds, ``alphapack
serve`` follows it. Each second memory, file handles, threads, the loop's lag and the books' states are noted. In the end the
journal is replayed to the digest that the server ended with. History is kept for a minute alone, so that memory is not still
filling up while it is looked at.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from faults import STOP_S, Process, Server, names
from live import replayed
from report import Row, quantile, show

MINUTES = 30.0
WARM_UP_MINUTES = 5.0
SYMBOLS = 15
ACTIVITY = "20"
RATE = "2000"
FAULT_EVERY = 8_000
"""Mean number of messages from one fault to the next: four seconds."""
OF_SYMBOLS = ("drop", "duplicate", "reorder", "delay", "stall", "garbage", "stale_snapshot") * 5
KINDS = (*OF_SYMBOLS, "http_429", "http_418", "disconnect", "giant", "half_open", "server_shutdown")
"""Each as likely: those that hit every symbol are seldom, so that most of the time the market is followed."""
HISTORY_ROWS = "60"
SAMPLE_S = 1.0
START_S, HEAL_S = 90.0, 120.0
FDS_DRIFT_MAX, FDS_SPREAD_MAX = 2, 20


@dataclass(frozen=True)
class Sample:
    """The server at one moment."""

    at_s: float
    rss_mb: float
    fds: int
    threads: int
    lag_ms: float
    not_live: int
    gaps: int
    resyncs: int
    seq: int
    backlog: int


class PlainMock(Process):
    """``alphapack mock`` as a user starts it."""

    def __init__(self, symbols: Sequence[str], folder: Path, seed: int) -> None:
        market = ["--venue", "binance-usdm", "--symbols", ",".join(symbols), "--seed", str(seed), "--port", "0"]
        faults = ["--rate", RATE, "--fault-every", str(FAULT_EVERY), "--fault-kinds", *KINDS]
        super().__init__(["-m", "alphapack", "mock", *market, *faults], folder / "mock.log", ALPHAPACK__SIMULATOR__ACTIVITY=ACTIVITY)
        until_s = time.monotonic() + START_S
        while not self.port:
            urls = [line["url"] for line in self.lines() if line.get("event") == "mock exchange"]
            self.port = int(urls[0].rpartition(":")[2]) if urls else 0
            if self.process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"expected the mock exchange to open, found:\n{self.log.read_text()[-2_000:]}")
            time.sleep(0.05)


def sampled(server: Server, process: psutil.Process, at_s: float) -> Sample:
    """Look at the server once."""
    health = server.health()
    symbols = health["symbols"].values()
    return Sample(
        at_s,
        process.memory_info().rss / (1 << 20),
        process.num_fds(),
        process.num_threads(),
        health["loop_lag_ms"],
        sum(one["state"] != "LIVE" for one in symbols),
        sum(one["gaps"] for one in symbols),
        sum(one["resyncs"] for one in symbols),
        health["ledger"]["seq"],
        health["ledger"]["backlog"],
    )


def slope_mb_per_hour(samples: Sequence[Sample]) -> float:
    """Return the slope of a straight line through the memory of the samples, by least squares."""
    at_h = np.array([one.at_s for one in samples]) / 3_600.0
    rss_mb = np.array([one.rss_mb for one in samples])
    at_h = at_h - at_h.mean()
    return float((at_h @ (rss_mb - rss_mb.mean())) / (at_h @ at_h))


def longest_outage_s(samples: Sequence[Sample]) -> float:
    """Return the longest time for which some book was not LIVE at every look."""
    longest, since = 0.0, None
    for one in samples:
        if not one.not_live:
            since = None
            continue
        since = one.at_s if since is None else since
        longest = max(longest, one.at_s - since + SAMPLE_S)
    return longest


def soak(minutes: float, seed: int = 7, samples_path: Path | None = None) -> list[Row]:
    """Follow the market for so long; the first five minutes, or a third, are not judged."""
    symbols = names("usdm", SYMBOLS)
    warm_s = 60.0 * min(WARM_UP_MINUTES, minutes / 3)
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="alphapack-soak-") as name:
        folder = Path(name)
        with PlainMock(symbols, folder, seed) as mock:
            command = ["-m", "alphapack", "serve"]
            rows = {"ALPHAPACK__CORE__HISTORY_ROWS": HISTORY_ROWS}
            with Server(command, "binance-usdm", symbols, mock.port, folder, **rows) as server:
                server.until(server.all_live, START_S)
                process, start_s = psutil.Process(server.process.pid), time.monotonic()
                while (at_s := time.monotonic() - start_s) < 60.0 * minutes:
                    samples.append(sampled(server, process, at_s))
                    if len(samples) % 60 == 0:
                        print(f"  {samples[-1]}", file=sys.stderr, flush=True)
                    time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - start_s - at_s)))
                stats = mock.ask("GET", "/mock/stats")
                healed_s = server.until(server.all_live, HEAL_S)
                digest = server.finish()
                replay = replayed(server.journal)
            mock.process.terminate()
            mock.process.wait(STOP_S)
    if samples_path is not None:
        samples_path.write_text(json.dumps([asdict(one) for one in samples]))
    return rows_of(samples, warm_s, stats["faults_by_kind"], healed_s, str(replay["digest"]), digest, int(replay["inputs"]))


def rows_of(
    samples: Sequence[Sample], warm_s: float, faults: dict[str, int], healed_s: float, replayed_digest: str, digest: str, inputs: int
) -> list[Row]:
    """Return what the samples after the warm-up show."""
    judged = [one for one in samples if one.at_s >= warm_s]
    span_min = (judged[-1].at_s - judged[0].at_s) / 60.0
    slope = slope_mb_per_hour(judged)
    per_s = (judged[-1].seq - judged[0].seq) / (judged[-1].at_s - judged[0].at_s)
    lags = [one.lag_ms for one in judged]
    p50, p99 = quantile(lags, 0.5), quantile(lags, 0.99)
    fds = [one.fds for one in judged]
    half = len(fds) // 2
    fds_before, fds_after = quantile(fds[:half], 0.5), quantile(fds[half:], 0.5)
    threads = {one.threads for one in judged}
    span = f"{span_min:.0f} min after a warm-up of {warm_s / 60:.0f}"
    what = f"{sum(faults.values())} faults, {per_s:,.0f} inputs/s, {len(judged)} looks over {span}"
    outage_s, broken = longest_outage_s(judged), sum(one.not_live > 0 for one in judged) / len(judged)
    same = replayed_digest == digest
    return [
        Row("R10", f"{what}: memory, linear fit", f"{slope:+.2f} MB/h at {judged[-1].rss_mb:.0f} MB", "<= 1 MB/h", slope <= 1.0),
        Row(
            "R10",
            "  file handles, medians of the halves; least and most; threads",
            f"{fds_before} and {fds_after}; {min(fds)} to {max(fds)}; {min(threads)} to {max(threads)}",
            f"medians within {FDS_DRIFT_MAX}",
            abs(fds_after - fds_before) <= FDS_DRIFT_MAX and max(fds) - min(fds) <= FDS_SPREAD_MAX,
        ),
        Row(
            "R10",
            "  lag of the loop, the worst of each second",
            f"p50 {p50:.1f}, p99 {p99:.1f}, most {max(lags):.1f} ms",
            "p99 <= 20 ms",
            p99 <= 20,
        ),
        Row(
            "R10",
            f"  {judged[-1].gaps:,} gaps, {judged[-1].resyncs:,} resyncs: longest time with a book not LIVE; share of looks with one",
            f"{outage_s:.0f} s; {broken:.0%}; all LIVE {healed_s:.1f} s after the end",
            "all LIVE",
            True,
        ),
        Row("R9", f"  alphapack replay of the journal, {inputs:,} inputs: digest", "equal" if same else "DIFFERENT", "equal", same),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--samples", type=Path, help="also write every sample here")
    arguments = parser.parse_args()
    rows = soak(arguments.minutes, arguments.seed, arguments.samples)
    show(rows, arguments.json)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
