"""Faults by the thousand, judged against the truth; and a million clean messages (Q5, R1 to R4).

    python bench/faults.py --markets usdm --faults 2000 --clean 340000

A mock exchange in a process of its own plays a simulated market over loopback sockets and does faults to it. ``alphapack
serve`` follows it. Then everything is judged from the server's journal: each input is stepped again, to the digest that the
server ended with, and held against what the venue would have sent, which the simulator says once more.

So that thousands of faults fit into minutes, the request budget of venue and feed is raised and a connection counts as held
after two seconds; all else is as a user has it.
"""

import argparse
import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from report import Row, quantile, show

import alphapack
from alphapack import app
from alphapack.domain.events import BookStateChanged, Record, TradesMissed
from alphapack.domain.inputs import AnyInput, Configure, Frame
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, BookState
from alphapack.domain.simulation import SimulatorSettings
from alphapack.models.simulator import Simulator
from alphapack.shell.faults import OF_CONNECTIONS, FaultRecord, TapeFrame, stream_of
from alphapack.shell.feed import SNAPSHOTS_PER_10_S
from alphapack.shell.journal import read_journal
from alphapack.shell.mock import LIMITS, MockExchange, MockSettings

MARKETS = ("usdm", "spot", "coinm")
SYMBOLS = 60
FAULTS = 2_000
CLEAN = 340_000
CLEAN_RATE = 20_000
SPACING = 30
FAULTS_PER_S = 25.0
KINDS = (
    *(("drop", "depth"),) * 10,
    *(("drop", "trade"),) * 2,
    *(("drop", "bookTicker"),),
    *(("duplicate", None), ("reorder", None), ("garbage", "depth"), ("garbage", None)) * 2,
    *(("delay", None), ("stall", None)),
)
"""Kinds of symbols' faults and the channels that they hit, each as likely."""
WEIGHT_A_MINUTE = 1_000_000
HELD_S = 2.0
STALE_MS = app.LIVE_STALE_MS
LEVELS = 1_000
"""Levels a side that a snapshot holds, and that are compared."""
CLOCK_NS = NANOS_PER_S // 5
POINTS_EVERY = 30
"""Mean number of a market's differences from one random point at which its whole book is compared to the next."""
HISTORY_DAYS = "0.01"
START_S, STOP_S, HEAL_S, HOLD_S = 90.0, 20.0, 45.0, 14.0

_DEPTH = re.compile(rb'"U":(\d+),"u":(\d+)')
_TRADE = re.compile(rb'"t":(\d+)')
_AGGREGATE = re.compile(rb'"f":(\d+),"l":(\d+)')
_SNAPSHOT = re.compile(rb'"lastUpdateId":(\d+)')
STOPPED = "process stopped"
"""Done to the mock exchange, not by it, so that the judge adds it to the truth."""
_LOST_KINDS = frozenset({"drop", "reorder", "stall", "garbage"})


# The two processes


class VenueSettings(msgspec.Struct, frozen=True):
    """A simulated market behind a mock exchange."""

    simulator: SimulatorSettings
    mock: MockSettings
    start_ns: int
    rate: float | None = None
    """Frames a second between two SIGUSR2; before and after the market goes at its own pace, so that books can begin."""
    keep_tickers_every: int = 1
    """One of so many tickers of a symbol is sent; above 1 no trades are sent but those of the symbol that is stamped."""
    stamped: str = ""
    """Symbol, in lower case, whose differences are stamped when they are released."""
    stamps: str = ""
    """File of those stamps, ``u monotonic_ns`` a line."""


class Thinned:
    """A simulator's tape with fewer tickers and hardly a trade, so that messages are large; differences may be stamped."""

    def __init__(self, simulator: Simulator, settings: VenueSettings) -> None:
        self._simulator, self._every = simulator, settings.keep_tickers_every
        self._mark = f'{{"stream":"{settings.stamped}@depth'.encode() if settings.stamped else None
        self._trades = f"{settings.stamped}@trade".encode()  # Without any their connection would be taken for dead.
        self._tickers: Counter[bytes] = Counter()
        self.stamps: list[tuple[int, int]] = []
        self.snapshot, self.klines, self.exchange_info = simulator.snapshot, simulator.klines, simulator.exchange_info

    @property
    def now_ns(self) -> int:
        """Tape time."""
        return self._simulator.now_ns

    def advance(self, until_ns: int) -> list[TapeFrame]:
        """Return the frames that are kept."""
        frames = self._simulator.advance(until_ns)
        if self._every > 1:
            frames = [frame for frame in frames if self._kept(frame[1])]
        if self._mark is not None:
            now_ns = time.monotonic_ns()
            for _, payload in frames:
                if payload.startswith(self._mark) and (found := _DEPTH.search(payload)):
                    self.stamps.append((int(found[2]), now_ns))
        return frames

    def _kept(self, payload: bytes) -> bool:
        stream = stream_of(payload)
        if stream.endswith(b"@bookTicker"):
            self._tickers[stream] += 1
            return self._tickers[stream] % self._every == 0
        return not stream.endswith(b"@trade") or stream == self._trades


async def play(settings: VenueSettings) -> None:
    """Be the mock exchange until SIGTERM; SIGUSR2 begins the rate and ends it, SIGUSR1 ends the tape and leaves the sockets open."""
    loop = asyncio.get_running_loop()
    ending, holding = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    loop.add_signal_handler(signal.SIGUSR1, holding.set)
    simulator = Simulator(settings.simulator, settings.start_ns, market=settings.mock.market)
    tape = Thinned(simulator, settings)
    async with MockExchange(tape, settings.mock) as exchange:

        def turn() -> None:
            rate = settings.rate if exchange.settings.rate is None else None
            exchange.settings = msgspec.structs.replace(settings.mock, rate=rate)

        loop.add_signal_handler(signal.SIGUSR2, turn)
        playing = asyncio.create_task(exchange.run())
        print(json.dumps({"port": exchange.port}), flush=True)
        waits = [asyncio.create_task(ending.wait()), asyncio.create_task(holding.wait())]
        await asyncio.wait({playing, *waits}, return_when=asyncio.FIRST_COMPLETED)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await ending.wait()
        for wait in waits:
            wait.cancel()
    if settings.stamps:
        Path(settings.stamps).write_text("".join(f"{u} {ns}\n" for u, ns in tape.stamps))


def serve(arguments: Sequence[str]) -> int:
    """Be ``alphapack serve`` with a raised budget of requests and short memory of failures."""
    from alphapack import cli
    from alphapack.config import LiveSection
    from alphapack.venues import binance_api

    plans = binance_api.plans()
    for plan in plans:
        plan.limits = msgspec.structs.replace(plan.limits, weight_per_minute=WEIGHT_A_MINUTE)
    binance_api.plans = lambda: plans
    feed = LiveSection.feed
    LiveSection.feed = property(lambda section: msgspec.structs.replace(feed.fget(section), held_s=HELD_S))  # type: ignore[method-assign, assignment]
    return cli.main(["serve", *arguments])


class Process:
    """A process that speaks HTTP on loopback; leaving the block ends it, however it went."""

    port = 0

    def __init__(self, command: Sequence[str], log: Path, **environ: str) -> None:
        source = str(Path(alphapack.__file__).parents[1])
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, "PYTHONPATH": source, "ALPHAPACK__LOG__JSON": "true", **environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
            )

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        found = []
        for line in self.log.read_bytes().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict)]

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the document of one answer, a list of them for lines of JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            raw = answer.read()
            if answer.status >= 400 and path != "/api/health":
                raise RuntimeError(f"expected an answer to {method} {path}, found HTTP {answer.status}: {raw[:200]!r}")
            if answer.getheader("Content-Type", "").startswith("application/x-ndjson"):
                return [json.loads(line) for line in raw.splitlines()]
            return json.loads(raw)
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(STOP_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Mock(Process):
    """The mock exchange."""

    def __init__(self, settings: VenueSettings, folder: Path) -> None:
        super().__init__([__file__, "--as-mock", msgspec.json.encode(settings).decode()], folder / "mock.log")
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_S)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"expected the mock exchange to open, found:\n{self.log.read_text()[-2_000:]}")
        self.port = json.loads(line)["port"]

    def fault(self, kind: str, **fields: object) -> None:
        """Have a fault done at the next frame that it fits."""
        self.ask("POST", "/mock/fault", {"kind": kind, **{name: value for name, value in fields.items() if value is not None}})

    def truth(self) -> list[FaultRecord]:
        """Return the faults so far."""
        return msgspec.convert(self.ask("GET", "/mock/truth"), list[FaultRecord])

    def hurry(self) -> None:
        """Begin the rate that the settings name, or end it."""
        self.process.send_signal(signal.SIGUSR2)

    def hold(self) -> None:
        """End the tape; what was sent stays on its way."""
        self.process.send_signal(signal.SIGUSR1)


class Server(Process):
    """An ``alphapack serve`` that follows a mock exchange."""

    def __init__(self, command: Sequence[str], venue: str, symbols: Sequence[str], mock_port: int, folder: Path, **environ: str) -> None:
        self.data, self.venue, self.symbols = folder / "data", venue, tuple(symbols)
        at = f"127.0.0.1:{mock_port}"
        market = ["--venue", venue, "--symbols", ",".join(symbols), "--ws-url", f"ws://{at}", "--rest-url", f"http://{at}"]
        arguments = [*command, *market, "--port", "0", "--data-dir", str(self.data)]
        super().__init__(arguments, folder / "server.log", ALPHAPACK__LIVE__HISTORY_DAYS=HISTORY_DAYS, **environ)
        until_s = time.monotonic() + START_S
        while not self.port:
            urls = [line["url"] for line in self.lines() if line.get("event") == "serving"]
            self.port = int(urls[0].rpartition(":")[2]) if urls else 0
            if self.process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"expected the server to listen, found:\n{self.log.read_text()[-2_000:]}")
            time.sleep(0.02)

    def health(self) -> dict[str, Any]:
        """Return the health document."""
        found: dict[str, Any] = self.ask("GET", "/api/health")
        return found

    def all_live(self) -> bool:
        """Tell whether every symbol's book is LIVE; one that has ended is for ``until`` to tell of."""
        try:
            symbols = self.health()["symbols"]
        except OSError:
            return False
        return len(symbols) == len(self.symbols) and all(one["state"] == "LIVE" for one in symbols.values())

    def until(self, what: Callable[[], bool], seconds: float) -> float:
        """Return how long it took until ``what`` held, in seconds."""
        start_s = time.monotonic()
        while not what():
            if time.monotonic() - start_s > seconds or self.process.poll() is not None:
                raise TimeoutError(f"expected it within {seconds} s, found:\n{self.log.read_text()[-3_000:]}")
            time.sleep(0.05)
        return time.monotonic() - start_s

    @property
    def journal(self) -> Path:
        """The folder of its journal."""
        return next(self.data.iterdir()) / "journal"

    def finish(self) -> str:
        """Stop it and return the digest that it ended with."""
        code = self.stop()
        digests = [str(line["digest"]) for line in self.lines() if line.get("event") == "stopped"]
        if code or not digests:
            raise RuntimeError(f"expected a clean end, found exit code {code}:\n{self.log.read_text()[-2_000:]}")
        return digests[-1]


# The judge


class Place(NamedTuple):
    """Where a difference stands on the tape."""

    index: int
    """Among its symbol's differences."""
    n: int
    """Among all frames, counted from 1, as in the truth about faults."""
    ts_ns: int


class Tape:
    """What the venue would have sent, had nothing gone wrong: each symbol's differences by their last id."""

    def __init__(self, frames: Iterable[TapeFrame]) -> None:
        self.places: dict[tuple[str, int], Place] = {}
        counts: Counter[str] = Counter()
        self.frames = 0
        for ts_ns, payload in frames:
            self.frames += 1
            symbol, channel = named(payload)
            if channel == "depth" and (found := _DEPTH.search(payload)):
                self.places[symbol, int(found[2])] = Place(counts[symbol], self.frames, ts_ns)
                counts[symbol] += 1


def named(payload: bytes) -> tuple[str, str]:
    """Return symbol and channel of a combined frame; a trade and an aggregate of trades are one channel."""
    name, _, rest = stream_of(payload).decode("ascii", "replace").partition("@")
    channel = rest.partition("@")[0]
    return name.upper(), "trade" if channel == "aggTrade" else channel


@dataclass
class Tally:
    """What became of one kind of fault in one market."""

    injected: int = 0
    reached: int = 0
    """Somebody was subscribed."""
    shown: int = 0
    """Losses, or broken frames, that the client was shown."""
    flagged: int = 0
    """Of these, told in the very step that showed them, before any feature row."""
    out: int = 0
    """Of these, those that hit a book that was not served anyhow."""
    missed: int = 0
    """Of these, neither."""
    disturbed: int = 0
    """Books that ceased to be LIVE though nothing of theirs was lost."""


@dataclass
class _Book:
    state: BookState = BookState.SYNCING
    at: int = -1
    """Index of the last difference in the engine's book."""
    seen: set[int] = field(default_factory=set)
    heard_ns: int = 0
    trade: int = -1
    broke_ns: int = 0
    by_all: bool = False
    """Whether it broke with all the others, by a fault of their connection."""
    gap_first: int = 0
    ever: bool = False
    snapshots_ns: deque[int] = field(default_factory=lambda: deque(maxlen=SNAPSHOTS_PER_10_S))


class Resync(NamedTuple):
    """From the frame that showed a hole to LIVE, in engine time."""

    begin_ns: int
    end_ns: int
    symbol: str
    by_all: bool
    """Whether every symbol was hit at once."""
    paced: bool
    """Whether the symbol had used up its snapshots (five in ten seconds) and had to wait."""


class Judge:
    """Reads inputs in order, with what the engine said of each, and holds every finding against the tape and the faults.

    Nothing of the engine's own judgement is used: what was delivered is known from the inputs, what should have been from the
    tape. ``violations`` are rows from data with a hole; ``alarms`` are books that were given up though they had none.
    """

    def __init__(self, tape: Tape, truth: Iterable[FaultRecord], *, stale_ms: int = STALE_MS) -> None:
        self.tally: dict[str, Tally] = {}
        self.violations: list[str] = []
        self.alarms: list[str] = []
        self.resyncs: list[Resync] = []
        self.stale_ms: list[float] = []
        """Silence of a book's stream when it became STALE."""
        self.frames = 0
        self.clock: list[tuple[int, int]] = []
        """Tape time and engine time of a difference now and then."""
        self.stream_frames = 0
        self._tape, self._stale_ns = tape, stale_ms * NANOS_PER_MS
        self._books: dict[str, _Book] = {}
        self._lost: dict[str, deque[FaultRecord]] = {}
        self._trades: dict[str, deque[FaultRecord]] = {}
        self._faults: dict[str, list[FaultRecord]] = {}
        self._shaken: list[FaultRecord] = []
        for record in truth:
            tally = self.of(record.kind)
            tally.injected += 1
            tally.reached += record.listeners > 0
            if record.kind in OF_CONNECTIONS or record.kind == STOPPED:
                self._shaken.append(record)
            self._faults.setdefault(record.symbol, []).append(record)
            if record.kind not in _LOST_KINDS or not record.detectable or not record.listeners:
                continue
            channel = record.stream.partition("@")[2].partition("@")[0]
            if record.kind == "drop" and channel == "trade":
                self._trades.setdefault(record.symbol, deque()).append(record)
            elif record.expect == "gap":
                self._lost.setdefault(record.symbol, deque()).append(record)

    def of(self, kind: str) -> Tally:
        """Return the tally of a kind."""
        return self.tally.setdefault(kind, Tally())

    def state(self, symbol: str) -> BookState:
        """Return a symbol's state after the last input; the name is the venue's own."""
        return self._book(symbol).state

    def see(self, entry: AnyInput, records: Sequence[Record], rejection: str | None, last_update: Callable[[str], int]) -> str:
        """Judge one input; ``last_update`` is the last id in the engine's book of a symbol, by the venue's name.

        Returns the symbol whose book just proved itself anew, or which took a difference; else nothing.
        """
        changes = [(record.symbol.partition(":")[2], record) for record in records if isinstance(record, BookStateChanged)]
        if type(entry) is not Frame:
            self._take_states(changes, entry.ts_ns, "", whole=False, broken=False)
            return ""
        self.frames += 1
        if entry.symbol or not entry.payload.startswith(b'{"stream":"'):
            return self._see_answer(entry, changes, last_update)
        self.stream_frames += 1
        symbol, channel = named(entry.payload)
        broken = not is_json(entry.payload)
        if broken or rejection is not None:
            self._see_broken(entry, symbol, channel, broken, rejection)
        elif channel == "trade":
            self._see_trade(entry.payload, symbol, records)
        if channel == "depth" and not broken and (found := _DEPTH.search(entry.payload)):
            return self._see_depth(entry, symbol, int(found[1]), int(found[2]), changes, last_update)
        self._take_states(changes, entry.ts_ns, symbol, whole=True, broken=broken)
        self._follow(symbol, last_update)
        return ""

    def _see_depth(
        self,
        entry: Frame,
        symbol: str,
        first: int,
        last: int,
        changes: list[tuple[str, BookStateChanged]],
        last_update: Callable[[str], int],
    ) -> str:
        book, place = self._book(symbol), self._tape.places.get((symbol, last))
        if place is None:
            self.violations.append(f"seq {entry.seq}: {symbol} update {last} is not on the tape")
            return ""
        if not self.clock or place.ts_ns - self.clock[-1][0] >= CLOCK_NS:
            self.clock.append((place.ts_ns, entry.ts_ns))
        before, at = book.state, book.at
        proven = before in (BookState.LIVE, BookState.STALE)
        hole = proven and place.index > at + 1 and not all(i in book.seen for i in range(at + 1, place.index))
        told = any(name == symbol and one.after is BookState.CORRUPT for name, one in changes)
        fault = None
        waiting = self._lost.get(symbol)
        while waiting and first > waiting[0].first:
            fault = waiting.popleft()
            self._shown(self.of(fault.kind), told, not proven, f"seq {entry.seq}: {symbol} {fault.kind} {fault.first}..{fault.last}")
        if hole and fault is None:
            shaken = self._shaken_before(place.n)
            kind = shaken.kind if shaken is not None else "none logged"
            self._shown(self.of(kind), told, False, f"seq {entry.seq}: {symbol} has a hole at {place.index} after {kind}")
        if told:
            book.gap_first, book.by_all = first, fault is None
        self._take_states(changes, entry.ts_ns, symbol, whole=not hole, broken=False, n=place.n)
        book.seen.add(place.index)
        book.heard_ns = entry.ts_ns
        was_proven = proven and not told
        self._follow(symbol, last_update)
        if book.state is BookState.LIVE and was_proven and book.at > at + 1:
            self.violations.append(f"seq {entry.seq}: {symbol} went from difference {at} to {book.at} and stayed LIVE")
        return symbol if book.state is BookState.LIVE and (book.at != at or not was_proven) else ""

    def engine_ns(self, tape_ns: int) -> int:
        """Return the engine's time when the tape showed ``tape_ns``."""
        at = max(0, bisect_right(self.clock, (tape_ns, sys.maxsize)) - 1)
        return tape_ns + self.clock[at][1] - self.clock[at][0]

    def _shown(self, tally: Tally, told: bool, out: bool, what: str) -> None:
        tally.shown += 1
        tally.flagged += told
        tally.out += not told and out
        if not told and not out:
            tally.missed += 1
            self.violations.append(what)

    def _see_trade(self, payload: bytes, symbol: str, records: Sequence[Record]) -> None:
        found = _AGGREGATE.search(payload) or _TRADE.search(payload)
        assert found is not None, f"a whole trade has an id: {payload[:200]!r}"
        first, last = int(found[1]), int(found[found.lastindex or 1])
        book = self._book(symbol)
        missed = [one for one in records if isinstance(one, TradesMissed)]
        hole = 0 <= book.trade < first - 1
        right = [(one.first, one.last) for one in missed] == ([(book.trade + 1, first - 1)] if hole else [])
        waiting = self._trades.get(symbol)
        fault = None
        while waiting and first > waiting[0].last:
            fault = waiting.popleft()
            if book.trade < 0:  # Nobody can miss what comes before the first.
                continue
            self._shown(self.of("drop of trades"), hole and right, False, f"trades {fault.first}..{fault.last} of {symbol}")
        if hole and fault is None:
            self._shown(self.of("trades by the way"), right, False, f"trades {book.trade + 1}..{first - 1} of {symbol}")
        if not hole and missed:
            self.alarms.append(f"{symbol}: trades {missed[0].first}..{missed[0].last} said to be missed")
        book.trade = max(book.trade, last)

    def _see_broken(self, entry: Frame, symbol: str, channel: str, broken: bool, rejection: str | None) -> None:
        if not broken:
            self.alarms.append(f"seq {entry.seq}: a whole frame of {symbol} was refused: {rejection}")
            return
        self._shown(self.of(f"garbage frame of {channel}"), rejection is not None, False, f"seq {entry.seq}: garbage of {symbol} was taken")

    def _see_answer(self, entry: Frame, changes: list[tuple[str, BookStateChanged]], last_update: Callable[[str], int]) -> str:
        """A REST answer: a snapshot may make a book LIVE, but not one from before the hole that it is to mend."""
        symbol, found = entry.symbol, _SNAPSHOT.search(entry.payload, 0, 100)
        if not symbol or found is None:
            self._take_states(changes, entry.ts_ns, symbol, whole=True, broken=False)
            return ""
        book = self._book(symbol)
        before = book.state
        book.snapshots_ns.append(entry.ts_ns)
        self._take_states(changes, entry.ts_ns, symbol, whole=True, broken=False)
        self._follow(symbol, last_update)
        if before is BookState.SYNCING and book.gap_first and int(found[1]) + 1 < book.gap_first:
            live = book.state is BookState.LIVE
            self._shown(self.of("snapshot from before the hole"), not live, False, f"seq {entry.seq}: {symbol} LIVE by a stale snapshot")
        return symbol if book.state is BookState.LIVE and before is not BookState.LIVE else ""

    def _take_states(
        self,
        changes: list[tuple[str, BookStateChanged]],
        ts_ns: int,
        about: str,
        *,
        whole: bool,
        broken: bool,
        n: int = 0,
    ) -> None:
        """Follow the states; say what was given up without a reason."""
        for symbol, one in changes:
            book = self._book(symbol)
            if one.after is BookState.STALE:
                silence_ns = ts_ns - book.heard_ns
                self.stale_ms.append(silence_ns / NANOS_PER_MS)
                if silence_ns < self._stale_ns:
                    self._alarm(symbol, n, f"{symbol} STALE after {silence_ns / NANOS_PER_MS:.0f} ms: {one.reason}")
            elif one.after is BookState.CORRUPT:
                book.broke_ns = ts_ns
                if symbol != about or (whole and not broken):
                    self._alarm(symbol, n, f"{symbol} CORRUPT: {one.reason}")
            elif one.after is BookState.LIVE:
                if one.before is BookState.SYNCING and book.ever:
                    recent = sum(ns > book.broke_ns - 10 * NANOS_PER_S for ns in book.snapshots_ns)
                    self.resyncs.append(Resync(book.broke_ns, ts_ns, symbol, book.by_all, recent >= SNAPSHOTS_PER_10_S))
                book.ever = True
            book.state = one.after

    def _alarm(self, symbol: str, n: int, what: str) -> None:
        self.alarms.append(what)
        recent = [record for record in self._faults.get(symbol, []) if record.n <= n]
        self.of(recent[-1].kind if recent else "none").disturbed += 1

    def _follow(self, symbol: str, last_update: Callable[[str], int]) -> None:
        book = self._book(symbol)
        if book.state in (BookState.LIVE, BookState.STALE):
            place = self._tape.places.get((symbol, last_update(symbol)))
            if place is None:
                self.violations.append(f"{symbol} is {book.state.name} at update {last_update(symbol)}, which the venue never sent")
            else:
                book.at = place.index

    def _shaken_before(self, n: int) -> FaultRecord | None:
        at = bisect_right(self._shaken, n, key=lambda record: record.n)
        return self._shaken[at - 1] if at else None

    def _book(self, symbol: str) -> _Book:
        book = self._books.get(symbol)
        if book is None:
            book = self._books[symbol] = _Book()
        return book


def is_json(payload: bytes) -> bool:
    """Tell whether a frame is JSON to the last byte."""
    try:
        json.loads(payload)
    except ValueError:  # Text that is no UTF-8 raises one too.
        return False
    return True


# What is held against what


Levels = Sequence[tuple[float, float]]


def fingerprint(bids: Levels, asks: Levels) -> bytes:
    """Return what tells two books apart, by their best ``LEVELS``."""
    digest = hashlib.blake2b(digest_size=16)
    for side in (bids, asks):
        digest.update(np.array(side[:LEVELS], np.float64).tobytes() + b"|")
    return digest.digest()


def differing(points: Mapping[tuple[str, int], bytes], tape: Tape, simulator: Simulator) -> list[str]:
    """Hold the engine's books, by symbol and update, against the simulator's; say which differ."""
    wrong = []
    for (symbol, update), found in sorted(points.items(), key=lambda item: tape.places[item[0]].ts_ns):
        simulator.advance(tape.places[symbol, update].ts_ns)
        stated = _SNAPSHOT.search(simulator.snapshot(symbol, 1))
        assert stated is not None and int(stated[1]) == update, f"the simulator stands at {stated} where {update} was sent"
        terms = simulator.terms(symbol)
        sides = [[(terms.tick.number(price), terms.lot.number(lots)) for price, lots in side] for side in simulator.levels(symbol)]
        if fingerprint(*sides) != found:
            wrong.append(f"{symbol} at update {update}")
    return wrong


class Judged(NamedTuple):
    """What a journal shows."""

    judge: Judge
    digest: str
    points: dict[tuple[str, int], bytes]
    resync_points: int


def judged(entries: Iterable[AnyInput], venue: str, tape: Tape, truth: Iterable[FaultRecord], *, seed: int = 7) -> Judged:
    """Step a journal once more and judge it; the whole book is noted after every resync and at random points."""
    engine, judge, chance = app.build(), Judge(tape, truth), random.Random(f"points {seed}")
    micro = engine.microstructure
    points: dict[tuple[str, int], bytes] = {}
    resync_points = 0

    def last_update(symbol: str) -> int:
        return int(micro._markets[f"{venue}:{symbol}"].book.last_update)

    for entry in entries:
        if type(entry) is Configure:
            assert entry.settings.stale_after_ms == STALE_MS, "the silence that is judged is the server's"
        records = engine.step(entry)
        resynced = len(judge.resyncs)
        symbol = judge.see(entry, records, engine.rejection, last_update)
        if symbol and (len(judge.resyncs) > resynced or chance.randrange(POINTS_EVERY) == 0):
            book = micro.book(f"{venue}:{symbol}", LEVELS)
            assert book is not None, "a LIVE book is served"
            points[symbol, last_update(symbol)] = fingerprint(book.bids, book.asks)
            resync_points += len(judge.resyncs) > resynced
    return Judged(judge, engine.hexdigest(), points, resync_points)


def pieces(simulator: Simulator, until_ns: int) -> Iterator[TapeFrame]:
    """Yield all that a simulator sends, a second at a time."""
    while simulator.now_ns < until_ns:
        yield from simulator.advance(min(until_ns, simulator.now_ns + NANOS_PER_S))


# The runs


def names(market: str, count: int) -> tuple[str, ...]:
    """Return so many symbols of a market."""
    bases = ["BTC", "ETH", "SOL", *(f"X{i:02d}" for i in range(count))][:count]
    return tuple(f"{base}USD_PERP" if market == "coinm" else f"{base}USDT" for base in bases)


def venue_settings(market: str, symbols: tuple[str, ...], seed: int, rate: float | None = None) -> VenueSettings:
    """Return a market at its own pace, which may be told to hurry to so many frames a second."""
    limits = msgspec.structs.replace(LIMITS[market], weight_per_minute=WEIGHT_A_MINUTE, connections_per_5min=10_000)  # type: ignore[index]
    mock = MockSettings(market=market, seed=seed, fault_spacing=SPACING, limits=limits, send_buffer_bytes=64 << 20)  # type: ignore[arg-type]
    return VenueSettings(SimulatorSettings(seed=seed, symbols=symbols), mock, time.time_ns(), rate)


def clean(market: str, frames: int, seed: int) -> tuple[Counter[str], int, int]:
    """Send clean messages alone; return every kind of alarm that was raised, what was sent and what reached the engine."""
    symbols = names(market, SYMBOLS)
    with tempfile.TemporaryDirectory(prefix="alphapack-faults-") as folder:
        path = Path(folder)
        settings = venue_settings(market, symbols, seed, CLEAN_RATE)
        with Mock(settings, path) as mock, Server([__file__, "--as-server"], f"binance-{market}", symbols, mock.port, path) as server:
            server.until(server.all_live, START_S)
            mock.hurry()
            server.until(lambda: mock.ask("GET", "/mock/stats")["sent"] >= frames, START_S + 4 * frames / CLEAN_RATE)
            mock.hold()
            sent = settled(mock, server)
            health = server.health()
            alarms = Counter({"reconnects": health["feeds"][0]["reconnects"], "resubscribes": health["feeds"][0]["resubscribes"]})
            for one in health["symbols"].values():
                alarms.update(
                    {name: one[name] for name in ("gaps", "crossed", "resyncs", "ticker_mismatched", "rejected", "trades_missed")}
                )
                alarms["not LIVE"] += one["state"] != "LIVE"
            digest = server.finish()
            received, engine = 0, app.build()
            for entry in read_journal(server.journal):
                records = engine.step(entry)
                received += type(entry) is Frame and entry.payload.startswith(b'{"stream":"')
                for record in records:
                    kind = str(record.__struct_config__.tag)
                    alarms[kind] += kind in ("frame_rejected", "overload", "trades_missed")
            alarms["digest"] += engine.hexdigest() != digest
    return alarms, sent, received


def settled(mock: Mock, server: Server) -> int:
    """Wait until all that was sent has been stepped; return how many frames were sent."""
    before = (-1, -1)
    for _ in range(100):
        now = int(mock.ask("GET", "/mock/stats")["sent"]), int(server.health()["feeds"][0]["frames"])
        if now == before:
            break
        before = now
        time.sleep(0.2)
    return before[0]


@dataclass
class Outcome:
    """What one market showed."""

    market: str
    judged: Judged
    wrong: list[str]
    served_digest: str
    half_open_s: list[float]
    stopped_s: float
    stopped_stale_s: float
    back_s: float
    refused: list[tuple[int, int]]

    @property
    def ok(self) -> bool:
        judge = self.judged.judge
        return not (judge.violations or judge.alarms or self.wrong) and self.judged.digest == self.served_digest


def drive(
    mock: Mock, server: Server, symbols: Sequence[str], faults: int, seed: int, tell: Callable[[str], None]
) -> tuple[float, FaultRecord]:
    """Have the faults done; returns the wall time at which the mock's process was stopped, and that as a fault of the truth."""
    chance = random.Random(f"drive {seed}")

    def heal(what: str) -> None:
        tell(f"{what}: healed after {server.until(server.all_live, HEAL_S):.1f} s")

    special = 2 * 10 + 2 * 6 + 5 + 8 + 3 + 2 + 2
    due_s = time.monotonic()
    for i in range(max(0, faults - special)):
        kind, channel = chance.choice(KINDS)
        fields: dict[str, object] = {"symbol": chance.choice(symbols), "channel": channel}
        if kind == "stall":
            fields |= {"ms": chance.randint(300, 1_500), "lost": True}
        mock.fault(kind, **fields)
        due_s += chance.expovariate(FAULTS_PER_S)
        time.sleep(max(0.0, due_s - time.monotonic()))
        if i % 500 == 499:
            tell(f"{i + 1} faults asked for, {mock.ask('GET', '/mock/stats')['faults_waiting']} wait")
    server.until(lambda: mock.ask("GET", "/mock/stats")["faults_waiting"] == 0, HEAL_S)
    time.sleep(2.0)
    heal("faults of symbols")
    for symbol in chance.sample(list(symbols), 10):
        mock.fault("stale_snapshot", symbol=symbol)
        time.sleep(0.3)
        mock.fault("drop", symbol=symbol, channel="depth")
    time.sleep(5.0)
    heal("stale snapshots")
    for kind in ("http_429", "http_418"):
        for _ in range(3):
            mock.fault(kind, ms=1_000)
            mock.fault("drop", symbol=chance.choice(symbols), channel="depth", frames=1)
            time.sleep(2.5)
    heal("refusals")
    for symbol in chance.sample(list(symbols), 5):
        mock.fault("stall", symbol=symbol, ms=4_000, lost=True)
    time.sleep(5.0)
    heal("stalls")
    for kind, count, fields in (
        ("disconnect", 8, {}),
        ("giant", 3, {}),
        ("server_shutdown", 2, {"ms": 3_000}),
        ("half_open", 2, {}),
    ):
        for _ in range(count):
            before = server.health()["feeds"][0]["reconnects"]
            mock.fault(kind, **fields)
            server.until(lambda before=before: server.health()["feeds"][0]["reconnects"] > before, HEAL_S)
            time.sleep(HELD_S + (2.0 if kind == "server_shutdown" else 1.0))
            heal(kind)
    frames = int(mock.ask("GET", "/mock/stats")["frames"])
    mock.process.send_signal(signal.SIGSTOP)
    at_s = time.time()
    record = FaultRecord(frames + 1, 0, STOPPED, "", "", "", "reconnect", detectable=True, listeners=1, done=True)  # type: ignore[arg-type]
    time.sleep(HOLD_S)
    mock.process.send_signal(signal.SIGCONT)
    heal("a process that stood still")
    return at_s, record


def faulty(market: str, faults: int, seed: int, tell: Callable[[str], None]) -> Outcome:
    """Do faults to one market and judge what the engine made of them."""
    symbols = names(market, SYMBOLS)
    with tempfile.TemporaryDirectory(prefix="alphapack-faults-") as folder:
        path = Path(folder)
        settings = venue_settings(market, symbols, seed)
        with Mock(settings, path) as mock, Server([__file__, "--as-server"], f"binance-{market}", symbols, mock.port, path) as server:
            server.until(server.all_live, START_S)
            stopped_at_s, stopping = drive(mock, server, symbols, faults, seed, tell)
            time.sleep(1.0)
            back_s = time.time() - stopped_at_s - HOLD_S - 1.0
            truth = [*mock.truth(), stopping]
            now_ns = int(mock.ask("GET", "/mock/stats")["now_ms"]) * NANOS_PER_MS + 10 * NANOS_PER_S
            digest = server.finish()
            anew = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in server.lines() if line["event"] == "connecting anew"]
            tell("judging")
            tape = Tape(pieces(Simulator(settings.simulator, settings.start_ns, market=market), now_ns))  # type: ignore[arg-type]
            found = judged(read_journal(server.journal), server.venue, tape, truth, seed=seed)
    wrong = differing(found.points, tape, Simulator(settings.simulator, settings.start_ns, market=market))  # type: ignore[arg-type]
    times = [found.judge.engine_ns(record.ts_ns) for record in truth]
    half_open = [
        min((at for at in anew if at > ns / NANOS_PER_S), default=float("inf")) - ns / NANOS_PER_S
        for ns, record in zip(times, truth, strict=True)
        if record.kind == "half_open"
    ]
    refused = [(ns, ns + 2 * NANOS_PER_S) for ns, record in zip(times, truth, strict=True) if record.kind in ("http_429", "http_418")]
    stopped = min((at for at in anew if at > stopped_at_s), default=float("inf")) - stopped_at_s
    stale = found.judge.stale_ms[-len(symbols) :]
    return Outcome(market, found, wrong, digest, half_open, stopped, max(stale, default=0.0) / 1_000, back_s, refused)


def rows_of(outcome: Outcome) -> list[Row]:
    """Return the market's rows of the report."""
    judge, market = outcome.judged.judge, outcome.market
    shown, flagged = (sum(getattr(one, name) for one in judge.tally.values()) for name in ("shown", "flagged"))
    out, missed = (sum(getattr(one, name) for one in judge.tally.values()) for name in ("out", "missed"))
    injected = sum(one.injected for one in judge.tally.values())
    ids = f"{market}: {injected:,} faults, {judge.frames:,} frames"
    right = outcome.judged.digest == outcome.served_digest
    rows = [
        Row(
            "Q5 R1",
            f"{ids}; what was lost or broken and shown is told before the next row",
            f"{flagged:,} told + {out:,} of books not served, of {shown:,}; missed {missed}, rows from a hole {len(judge.violations)}",
            "all",
            not judge.violations and right,
        ),
        Row("Q5 R1", "  books given up though nothing of theirs was lost", f"{len(judge.alarms)}", "0", not judge.alarms),
        Row(
            "R2",
            f"  whole books equal to the venue's: {outcome.judged.resync_points:,} after a resync, "
            f"{len(outcome.judged.points) - outcome.judged.resync_points:,} at random",
            f"{len(outcome.wrong)} differ",
            "0",
            not outcome.wrong,
        ),
    ]
    free = [one for one in judge.resyncs if not any(one.begin_ns <= end and begin <= one.end_ns for begin, end in outcome.refused)]
    kinds = (
        ("one symbol's", [one for one in free if not one.by_all and not one.paced], True),
        ("every symbol's at once (after a reconnection)", [one for one in free if one.by_all], True),
        ("a symbol that has had five snapshots in ten seconds, and waits", [one for one in free if one.paced and not one.by_all], False),
    )
    for what, resyncs, is_goal in kinds:
        times = [(one.end_ns - one.begin_ns) / NANOS_PER_MS for one in resyncs]
        if times:
            p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
            text = f"p50 {p50:.0f}, p99 {p99:.0f}, worst {max(times):.0f} ms"
            heading = f"  {len(times):,} resyncs of {what}, from the frame that showed the hole to LIVE"
            rows.append(Row("R3", heading, text, "p99 <= 500 ms" if is_goal else "-", p99 <= 500 if is_goal else None))
    if judge.stale_ms:
        worst = max(judge.stale_ms)
        rows.append(
            Row(
                "R4",
                f"  silence of a stream until STALE, {len(judge.stale_ms)} times",
                f"worst {worst:.0f} ms",
                "<= 2,500 ms",
                worst <= 2_500,
            )
        )
    if outcome.half_open_s:
        worst_s = max(outcome.half_open_s)
        rows.append(Row("R4", "  half-open connection until it is given up", f"worst {worst_s:.1f} s", "<= 10 s", worst_s <= 10))
    rows.append(
        Row(
            "R4",
            f"  the venue's process stopped for {HOLD_S:.0f} s, until the connection is given up (books are STALE by then)",
            f"{outcome.stopped_s:.1f} s (STALE {outcome.stopped_stale_s:.1f} s); all LIVE {outcome.back_s:.1f} s after it went on",
            "<= 10 s",
            outcome.stopped_s <= 10,
        )
    )
    return rows


def matrix(outcomes: Sequence[Outcome]) -> str:
    """Return the confusion matrix by market and kind."""
    heads = ("injected", "reached", "shown", "flagged", "out", "missed", "disturbed")
    lines = [f"{'market':8}{'kind':34}" + "".join(f"{head:>10}" for head in heads)]
    for outcome in outcomes:
        for kind, tally in sorted(outcome.judged.judge.tally.items()):
            lines.append(f"{outcome.market:8}{kind:34}" + "".join(f"{getattr(tally, head):>10,}" for head in heads))
    note = (
        "(shown: losses or broken frames that the client was shown, of a connection's fault one a symbol; out: of a book not served then)"
    )
    return "\n".join([*lines, note])


def measure(markets: Sequence[str], faults: int, frames: int, seed: int) -> tuple[list[Row], list[Outcome]]:
    """Run everything for these markets; the rows of the report, and what each market showed."""
    rows, outcomes = [], []
    for market in markets:

        def tell(text: str, market: str = market) -> None:
            print(f"  {market}: {text}", file=sys.stderr, flush=True)

        if frames:
            alarms, sent, received = clean(market, frames, seed)
            raised = {name: count for name, count in alarms.items() if count}
            what = f"{market}: {sent:,} clean messages at {CLEAN_RATE:,}/s: alarms of any kind; messages lost"
            rows.append(Row("Q5 R1", what, f"{raised or 0}; {sent - received}", "0; 0", not raised and sent == received))
        if faults:
            outcomes.append(faulty(market, faults, seed, tell))
            found = rows_of(outcomes[-1])
            for row in found:  # Each market takes minutes: what is known is not lost with the next.
                tell(f"{row.id} {row.what.strip()}: {row.ours}")
            rows += found
    return rows, outcomes


def run() -> list[Row]:
    rows, outcomes = measure(MARKETS, FAULTS, CLEAN, seed=7)
    print(matrix(outcomes), file=sys.stderr)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markets", nargs="+", choices=MARKETS, default=list(MARKETS))
    parser.add_argument("--faults", type=int, default=FAULTS, help="of each market; 0: none")
    parser.add_argument("--clean", type=int, default=CLEAN, help="clean messages of each market; 0: none")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--as-mock", help=argparse.SUPPRESS)
    parser.add_argument("--as-server", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_mock is not None:
        asyncio.run(play(msgspec.json.decode(arguments.as_mock, type=VenueSettings)))
        return 0
    if arguments.as_server is not None:
        return serve(arguments.as_server)
    rows, outcomes = measure(arguments.markets, arguments.faults, arguments.clean, arguments.seed)
    for outcome in outcomes:
        for text in (*outcome.judged.judge.violations[:20], *outcome.judged.judge.alarms[:20], *outcome.wrong[:20]):
            print(f"  {outcome.market}: {text}", file=sys.stderr)
    if outcomes:
        print(matrix(outcomes))
    show(rows, arguments.json)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
