"""A minute of a live market at 20,000 messages a second, then twice as much (R11, P12).

    python bench/live.py --seconds 60 --overload-seconds 15

The mock exchange, ``alphapack serve`` and the client of its API are three processes that share the machine. The mock plays
40 simulated symbols: differences of about 40 levels, one ticker in ten, the trades of one symbol, so that a message is about 1 kB.
"""

import argparse
import array
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from faults import _DEPTH, STOP_S, Mock, Server, VenueSettings, names, settled
from report import PROJECT, Row, quantile, show

from alphapack import app
from alphapack.domain.inputs import AnyInput, Conflated, Frame, Shed
from alphapack.domain.market import NANOS_PER_MS
from alphapack.domain.simulation import SimulatorSettings
from alphapack.shell.intake import FRAMES_MAX
from alphapack.shell.journal import read_journal
from alphapack.shell.mock import MockSettings
from alphapack.shell.runner import Runner

RATE = 20_000
SECONDS = 60.0
OVERLOAD_S = 15.0
SYMBOLS = 40
"""So few that the venue's budget of requests lets every book begin anew twice a minute."""
ACTIVITY = 14.0
TICKERS_EVERY = 10
REQUESTS = (200, 2_000)
CONNECTIONS = 32
PATIENCE = 2.0
"""Times its seconds that a client goes on where it is behind its schedule."""
SETTLE_S = 3.0
START_S, HEAL_S = 90.0, 180.0
PROBED = "BTCUSDT"
NEVER = [float("inf")]


# In the server's process


class Traced(Runner):
    """A runner that notes how long each frame took from its receipt until its effect could be read."""

    made: "Traced"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.at_ns, self.waited_us = array.array("q"), array.array("I")
        self.probed: list[tuple[int, int]] = []
        self._mark = f'{{"stream":"{PROBED.lower()}@depth'.encode()
        self.tap = self._note
        Traced.made = self

    def _note(self, entry: AnyInput) -> None:
        """Runs after the step and before the loop's next turn: an answer from here on has the frame in it."""
        if type(entry) is not Frame:
            return
        assert self.clock is not None, "what is live has a clock"
        now_ns = time.monotonic_ns()
        self.at_ns.append(now_ns)
        self.waited_us.append(min(max(0, self.clock.now_ns() - entry.ts_ns) // 1_000, 0xFFFFFFFF))
        if entry.payload.startswith(self._mark) and (found := _DEPTH.search(entry.payload)):
            self.probed.append((int(found[2]), now_ns))


def serve(trace: Path, arguments: Sequence[str]) -> int:
    """Be ``alphapack serve`` with a tap behind each step."""
    from alphapack import cli

    app.Runner = Traced  # type: ignore[misc]
    code = cli.main(["serve", *arguments])
    runner = Traced.made
    (trace / "at_ns").write_bytes(runner.at_ns.tobytes())
    (trace / "waited_us").write_bytes(runner.waited_us.tobytes())
    (trace / "probed").write_text("".join(f"{u} {ns}\n" for u, ns in runner.probed))
    return code


# In the client's process


async def read(port: int, requests_per_s: int, seconds: float) -> tuple[list[float], list[float]]:
    """Send GETs on a fixed schedule; return latencies from the scheduled instant, and the ages of what was answered, in ms."""
    latencies: list[float] = []
    ages: list[float] = []
    start_s = time.perf_counter() + 0.1
    path = f"/api/microstructure/binance-usdm:{PROBED}"
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    async def client(i: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due_s = start_s + i / requests_per_s
        while due_s < start_s + seconds and time.perf_counter() < start_s + PATIENCE * seconds:
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            latencies.append(1_000 * (time.perf_counter() - due_s))
            now_ms = time.time_ns() / NANOS_PER_MS
            if head.startswith(b"HTTP/1.1 200"):
                ages.append(now_ms - json.loads(body)["ts_ms"])
            due_s += CONNECTIONS / requests_per_s
        writer.close()

    await asyncio.gather(*(client(i) for i in range(CONNECTIONS)))
    return latencies, ages


class Load(NamedTuple):
    """What a client of the API saw."""

    requests_per_s: int
    asked: int
    answered: int
    refused: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    age_p50_ms: float
    age_p99_ms: float
    begin_ns: int
    end_ns: int


def loaded(port: int, requests_per_s: int, seconds: float) -> Load:
    """Read the API from a process of its own."""
    begin_ns = time.monotonic_ns()
    command = [sys.executable, __file__, "--as-client", str(port), str(requests_per_s), str(seconds)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 60.0)
    found = json.loads(ran.stdout)
    return Load(requests_per_s, round(requests_per_s * seconds), *found, begin_ns, time.monotonic_ns())


def client(port: int, requests_per_s: int, seconds: float) -> int:
    """Print what ``read`` measured."""
    import uvloop

    latencies, ages = uvloop.run(read(port, requests_per_s, seconds))
    times = [quantile(latencies or NEVER, q) for q in (0.5, 0.95, 0.99)] + [quantile(ages or NEVER, q) for q in (0.5, 0.99)]
    print(json.dumps([len(latencies), len(latencies) - len(ages), *times]))
    return 0


# The runs


def venue_settings(rate: int, folder: Path, symbols: int) -> VenueSettings:
    """Return the market of large messages."""
    simulator = SimulatorSettings(symbols=names("usdm", symbols), activity=ACTIVITY)
    stamped = {"stamped": PROBED.lower(), "stamps": str(folder / "stamps")}
    return VenueSettings(simulator, MockSettings(market="usdm"), time.time_ns(), float(rate), TICKERS_EVERY, **stamped)


def replayed(journal: Path) -> dict[str, Any]:
    """Return what ``alphapack replay`` says of a journal."""
    command = [sys.executable, "-m", "alphapack", "replay", str(journal), "--json"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=900, env={**_environment()})
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(PROJECT / "src")}


def pairs(path: Path) -> dict[int, int]:
    """Read stamps, ``u ns`` a line."""
    return {int(u): int(ns) for u, ns in (line.split() for line in path.read_text().splitlines())}


def counted(journal: Path) -> Counter[str]:
    """Count what a journal holds."""
    counts: Counter[str] = Counter()
    for entry in read_journal(journal):
        if type(entry) is Frame:
            counts["stream"] += entry.payload.startswith(b'{"stream":"')
            counts["bytes"] += len(entry.payload)
        elif isinstance(entry, Shed | Conflated):
            counts[type(entry).__name__] += 1
            counts[f"{type(entry).__name__} frames"] += entry.frames
    return counts


class Freshness(NamedTuple):
    """Of the frames of one phase: receipt to readable, and release by the mock to readable, in ms."""

    frames: int
    received_p50_ms: float
    received_p99_ms: float
    released_p50_ms: float
    released_p99_ms: float


def freshness(folder: Path, begin_ns: int, end_ns: int) -> Freshness:
    """Read the trace between two instants."""
    at_ns, waited_us = array.array("q"), array.array("I")
    at_ns.frombytes((folder / "at_ns").read_bytes())
    waited_us.frombytes((folder / "waited_us").read_bytes())
    waited = [us / 1_000 for ns, us in zip(at_ns, waited_us, strict=True) if begin_ns <= ns < end_ns]
    sent, stepped = pairs(folder / "stamps"), pairs(folder / "probed")
    whole = [(ns - sent[u]) / NANOS_PER_MS for u, ns in stepped.items() if u in sent and begin_ns <= ns < end_ns]
    return Freshness(len(waited), *(quantile(waited, q) for q in (0.5, 0.99)), *(quantile(whole, q) for q in (0.5, 0.99)))


def steady(seconds: float, rate: int = RATE, symbols_n: int = SYMBOLS, **environ: str) -> list[Row]:
    """Hold the rate, read the API, stop, and replay."""
    with tempfile.TemporaryDirectory(prefix="alphapack-live-") as name:
        folder = Path(name)
        settings = venue_settings(rate, folder, symbols_n)
        symbols, command = settings.simulator.symbols, [__file__, "--as-server", name]
        with Mock(settings, folder) as mock, Server(command, "binance-usdm", symbols, mock.port, folder, **environ) as server:
            server.until(server.all_live, START_S)
            mock.hurry()
            time.sleep(SETTLE_S)
            before, began_s = mock.ask("GET", "/mock/stats"), time.monotonic()
            loads = [loaded(server.port, requests, seconds / len(REQUESTS)) for requests in REQUESTS]
            after, took_s = mock.ask("GET", "/mock/stats"), time.monotonic() - began_s
            mock.hold()
            sent = settled(mock, server)
            health = server.health()
            lag_ms, reconnects = health["loop_lag_ms"], health["feeds"][0]["reconnects"]
            digest = server.finish()
            mock.stop()
            counts = counted(server.journal)
            replay = replayed(server.journal)
            fresh = [freshness(folder, load.begin_ns, load.end_ns) for load in loads]
    lost = sent - counts["stream"]
    told = counts["Shed"] + counts["Conflated"]
    per_s = (after["sent"] - before["sent"]) / took_s
    mean_bytes = (after["sent_bytes"] - before["sent_bytes"]) / (after["sent"] - before["sent"])
    what = f"{per_s:,.0f} messages/s of {mean_bytes:,.0f} bytes for {took_s:.0f} s, {symbols_n} symbols: lost; given up; reconnections"
    right = not lost and not told and not reconnects and per_s >= 0.97 * rate
    rows = [Row("R11", what, f"{lost}; {told}; {reconnects} of {sent:,} sent", "0; 0; 0", right)]
    for load, one in zip(loads, fresh, strict=True):
        beside = f"  beside {load.requests_per_s:,} requests/s"
        text = f"p50 {one.received_p50_ms:.2f}, p99 {one.received_p99_ms:.2f} ms"
        good = one.received_p99_ms <= 5
        rows.append(Row("R11", f"{beside}: receipt to readable, {one.frames:,} messages", text, "p99 <= 5 ms", good))
        text = f"p50 {one.released_p50_ms:.2f}, p99 {one.released_p99_ms:.2f} ms"
        rows.append(Row("R11", f"{beside}: released by the mock's process to readable, {PROBED}", text, "-", None))
        text = f"p50 {load.p50_ms:.2f}, p95 {load.p95_ms:.2f}, p99 {load.p99_ms:.2f} ms"
        good = load.p95_ms <= 5 and load.p99_ms <= 10 and load.answered - load.refused >= 0.99 * load.asked
        rows.append(
            Row(
                "P12",
                f"{beside}: GET microstructure, {load.answered:,} answers of {load.asked:,}, {load.refused} not 200",
                text,
                "p95 <= 5, p99 <= 10 ms",
                good,
            )
        )
        text = f"p50 {load.age_p50_ms:.1f}, p99 {load.age_p99_ms:.1f} ms"
        rows.append(Row("P12", f"{beside}: age of the answer (the client's clock less ts_ms)", text, "p99 <= 5 ms", load.age_p99_ms <= 5))
    rows.append(Row("R11", "  lag of the server's loop in the last second", f"{lag_ms:.1f} ms", "-", None))
    same = replay["digest"] == digest
    what = f"  alphapack replay of the journal, {replay['inputs']:,} inputs: digest"
    rows.append(Row("R9", what, f"{'equal' if same else 'DIFFERENT'} {digest[:16]}", "equal", same))
    return rows


class Watch(threading.Thread):
    """Samples memory and queue of a server five times a second."""

    def __init__(self, pid: int, port: int) -> None:
        super().__init__(daemon=True)
        self.rss_mb: list[float] = []
        self.waiting: list[float] = []
        self._process, self._port, self._ending = psutil.Process(pid), port, threading.Event()

    def run(self) -> None:
        while not self._ending.wait(0.2):
            self.rss_mb.append(self._process.memory_info().rss / (1 << 20))
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith("alphapack_intake_frames "):
                        self.waiting.append(float(line.split()[1]))

    def end(self) -> None:
        self._ending.set()
        self.join(STOP_S)


def overloaded(seconds: float, rate: int, symbols_n: int = SYMBOLS, **environ: str) -> list[Row]:
    """Send more than is promised, then the market's own pace again."""
    with tempfile.TemporaryDirectory(prefix="alphapack-live-") as name:
        folder = Path(name)
        settings = venue_settings(rate, folder, symbols_n)
        symbols, command = settings.simulator.symbols, [__file__, "--as-server", name]
        with Mock(settings, folder) as mock, Server(command, "binance-usdm", symbols, mock.port, folder, **environ) as server:
            server.until(server.all_live, START_S)
            watch = Watch(server.process.pid, server.port)
            watch.start()
            time.sleep(1.0)
            calm_mb = max(watch.rss_mb)
            before, began_s = mock.ask("GET", "/mock/stats"), time.monotonic()
            mock.hurry()
            time.sleep(seconds)
            after, took_s = mock.ask("GET", "/mock/stats"), time.monotonic() - began_s
            mock.hurry()
            healed_s = server.until(server.all_live, HEAL_S)
            time.sleep(SETTLE_S)
            watch.end()
            mock.hold()
            sent = settled(mock, server)
            health = server.health()
            slow = mock.ask("GET", "/mock/stats")["slow_clients"]
            digest = server.finish()
            mock.stop()
            counts = counted(server.journal)
            replay = replayed(server.journal)
    per_s = (after["sent"] - before["sent"]) / took_s
    lost = sent - counts["stream"]
    said = counts["Shed frames"] + counts["Conflated frames"]
    what = f"{per_s:,.0f} messages/s asked of {rate:,} for {took_s:.0f} s: messages that were not stepped; of these told as inputs"
    reconnects = health["feeds"][0]["reconnects"]
    text = f"{lost:,}; {said:,} ({counts['Shed frames']:,} shed, {counts['Conflated frames']:,} conflated; {slow} cut off by the venue)"
    rows = [Row("R11", what, text, "all told", said == lost if not reconnects else None)]
    most = max(watch.waiting, default=0.0)
    rows.append(Row("R11", "  most frames that waited", f"{most:,.0f}", f"<= {FRAMES_MAX:,}", most <= FRAMES_MAX))
    grown_mb = max(watch.rss_mb) - calm_mb
    rows.append(Row("R11", f"  memory over the {calm_mb:.0f} MB before", f"{grown_mb:+.0f} MB", "<= 200 MB", grown_mb <= 200))
    well = health["status"] == "ready" and all(one["state"] == "LIVE" for one in health["symbols"].values())
    text = f"{'ready, all LIVE' if well else health['status']} after {healed_s:.1f} s; {reconnects} reconnections"
    rows.append(Row("R11", "  at the market's own pace again", text, "all LIVE", well))
    same = replay["digest"] == digest
    rows.append(
        Row(
            "R9", f"  alphapack replay of the journal, {replay['inputs']:,} inputs: digest", "equal" if same else "DIFFERENT", "equal", same
        )
    )
    return rows


def run() -> list[Row]:
    return steady(SECONDS) + overloaded(OVERLOAD_S, 2 * RATE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the steady load; 0: none")
    parser.add_argument("--overload-seconds", type=float, default=OVERLOAD_S, help="of the overload; 0: none")
    parser.add_argument("--rate", type=int, default=RATE, help="messages a second")
    parser.add_argument("--symbols", type=int, default=SYMBOLS)
    parser.add_argument("--checkpoint-inputs", type=int, help="the server's setting; its default where left out")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--as-server", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("--as-client", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_server is not None:
        return serve(Path(arguments.as_server[0]), arguments.as_server[1:])
    if arguments.as_client is not None:
        port, requests, seconds = arguments.as_client
        return client(int(port), int(requests), float(seconds))
    environ = {}
    if arguments.checkpoint_inputs is not None:
        environ["ALPHAPACK__STORAGE__CHECKPOINT_INPUTS"] = str(arguments.checkpoint_inputs)
    rows = []
    if arguments.seconds:
        rows += steady(arguments.seconds, arguments.rate, arguments.symbols, **environ)
        for row in rows:  # What is known is not lost with what follows.
            print(f"  {row.id} {row.what.strip()}: {row.ours}", file=sys.stderr, flush=True)
    if arguments.overload_seconds:
        rows += overloaded(arguments.overload_seconds, 2 * arguments.rate, arguments.symbols, **environ)
    show(rows, arguments.json)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
