"""P12 and P13: the served engine under load, and its start."""

import asyncio
import compileall
import gzip
import heapq
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from report import FOUR, PROJECT, Row, median, quantile

RATE = 20_000
"""Book messages (depth, tickers) a second; the captures' trades are left out of this load."""
REQUESTS = 2_000
CONNECTIONS = 32
LOAD_S = 10.0
STARTS = 3


@contextmanager
def served(captures: list[Path], speed: str, data: Path, cache: Path | None = None) -> Iterator[int]:
    """Serve captures, without any the simulator, in a process of their own; yields the port once the process was started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = dict(os.environ, PYTHONPATH=str(PROJECT / "src"))
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-m", "alphapack", "serve", "--port", str(port), "--data-dir", str(data)]
    if captures:
        command += ["--speed", speed, "--capture", *map(str, captures)]
    with (data / "serve.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ready_s(port: int, wait_s: float = 60.0) -> float:
    """Return the seconds until health says ready (or ended)."""
    start = time.perf_counter()
    while time.perf_counter() - start < wait_s:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
                if json.load(answer)["status"] in ("ready", "ended"):
                    return time.perf_counter() - start
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.01)
    raise TimeoutError(f"not ready within {wait_s} s")


async def load(port: int, seconds: float) -> tuple[list[float], list[tuple[float, int]]]:
    """Send requests on a fixed schedule; returns latencies from the scheduled instant (ms) and (wall time, ts_ms) of each answer."""
    latencies: list[float] = []
    stamps: list[tuple[float, int]] = []
    start = time.perf_counter() + 0.1
    each = CONNECTIONS / REQUESTS

    async def client(i: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = start + i / REQUESTS
        request = b"GET /api/microstructure/binance-usdm:BTCUSDT HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        while due < start + seconds:
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            now = time.perf_counter()
            assert head.startswith(b"HTTP/1.1 200"), head
            latencies.append(1_000 * (now - due))
            stamps.append((now, json.loads(body)["ts_ms"]))
            due += each
        writer.close()

    await asyncio.gather(*(client(i) for i in range(CONNECTIONS)))
    return latencies, stamps


def restamped(captures: list[Path], folder: Path) -> list[Path]:
    """Write the captures with their book messages evenly ``1 / RATE`` apart, so that the load is the stated one at every moment."""
    names = [path.name.partition(".")[0] + ".raw" for path in captures]
    streams = [_lines(path, i) for i, path in enumerate(captures)]
    start_ns, book = 1_723_161_253_000_000_000, 0
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in names]
        for _, i, payload in heapq.merge(*streams):
            if b'@trade"' in payload[:60]:
                continue
            book += 1
            files[i].write(b"%d %b\n" % (start_ns + book * 1_000_000_000 // RATE, payload))
    return [folder / name for name in names]


def _lines(path: Path, i: int) -> Iterator[tuple[int, int, bytes]]:
    with gzip.open(path) as lines:
        for line in lines:
            stamp, _, payload = line.rstrip(b"\n").partition(b" ")
            yield int(stamp), i, payload


def under_load() -> list[Row]:
    speed = 1.0
    with tempfile.TemporaryDirectory() as name, served(restamped(FOUR, Path(name)), f"{speed:.1f}", Path(name)) as port:
        ready_s(port)
        time.sleep(0.5)
        before = counted(port)
        latencies, stamps = asyncio.run(load(port, LOAD_S))
        after = counted(port)
    # What was received when it should have been lies on one line of wall time against the recording's; the answers' distance
    # behind the earliest of them is the age of what they say.
    offsets = [1_000 * wall - ts_ms / speed for wall, ts_ms in stamps]
    ages = [offset - min(offsets) for offset in offsets]
    rate = (after[1] - before[1]) / (after[0] - before[0])
    what = f"GET microstructure at {len(latencies) / LOAD_S:,.0f} requests/s while {rate:,.0f} messages/s are stepped and journaled"
    p50, p95, p99 = (quantile(latencies, q) for q in (0.5, 0.95, 0.99))
    age = quantile(ages, 0.99)
    return [
        Row("P12", what, f"p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms", "p95 <= 5, p99 <= 10 ms", p95 <= 5 and p99 <= 10),
        Row("P12", "  age of the data at the read (beyond the youngest seen)", f"p99 {age:.2f} ms", "p99 <= 5 ms", age <= 5),
    ]


def counted(port: int) -> tuple[float, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return time.perf_counter(), next(float(line.split()[1]) for line in text.splitlines() if line.startswith("alphapack_messages_total "))


def starts() -> list[Row]:
    compileall.compile_dir(PROJECT / "src", quiet=1)  # An installer leaves bytecode behind, an environment may forbid to write it.
    cold, warm = [], []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
            for kind in (cold, warm):
                data = Path(folder) / ("cold" if kind is cold else "warm")
                data.mkdir()
                start = time.perf_counter()
                with served([], "", data, Path(cache)) as port:
                    ready_s(port)
                    kind.append(time.perf_counter() - start)
    return [
        Row(
            "P13",
            f"serve to ready, 30 days of candles and an hour of order flow made, nothing compiled yet, median of {STARTS}",
            f"{median(cold):.1f} s",
            "<= 15 s",
            median(cold) <= 15,
        ),
        Row("P13", "  the same with compiled kernels in the cache", f"{median(warm):.2f} s", "<= 3 s", median(warm) <= 3),
    ]


def run() -> list[Row]:
    return starts() + under_load()
