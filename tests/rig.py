"""A seeded market that speaks Binance USD-M's wire format, and an engine that lives through it on real stores."""

import asyncio
import gzip
import importlib.util
import itertools
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from alphapack import app
from alphapack.domain.events import Record
from alphapack.domain.inputs import AnyInput, CoreSettings
from alphapack.engine.engine import Engine
from alphapack.engine.ports import LedgerRow
from alphapack.shell.captures import Capture, inputs
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.clock import Clock
from alphapack.shell.committer import Committer
from alphapack.shell.journal import FileJournal
from alphapack.shell.ledger import SqliteLedger
from alphapack.shell.offloop import Work
from alphapack.shell.recovery import ledger_rows, recover
from alphapack.shell.runner import Runner

MS, S = 1_000_000, 1_000_000_000
START_NS = 1_700_000_000 * S
VENUE = "binance-usdm"
BTC = "binance-usdm:BTCUSDT"
PATIENCE_S = 20.0
"""How long a test waits for what must come; never how long anything may take."""

Line = tuple[int, bytes]


class FakeMarket:
    """One symbol's order flow: prices in tenths, quantities in thousandths, never crossed, no update missing."""

    def __init__(self, name: str = "BTCUSDT", seed: int = 0) -> None:
        self.name = name
        self.chance = random.Random(f"{name} {seed}")
        self.update, self.trade_id, self.bid = 1_000, 500, 600_000
        self.sides = {"b": {self.bid - i: 100 + i for i in range(30)}, "a": {self.bid + 1 + i: 100 + i for i in range(30)}}

    def snapshot(self) -> bytes:
        bids, asks = self._levels("b", sorted(self.sides["b"], reverse=True)), self._levels("a", sorted(self.sides["a"]))
        return b'{"lastUpdateId":%d,"symbol":"%b","bids":[%b],"asks":[%b]}' % (self.update, self.name.encode(), bids, asks)

    def diff(self, ts_ns: int) -> bytes:
        self.bid += self.chance.choice((-1, 0, 0, 0, 1))
        touched: dict[str, dict[int, int]] = {"b": {}, "a": {}}
        for side, held in self.sides.items():
            for tick in [tick for tick in held if (tick > self.bid if side == "b" else tick <= self.bid)]:
                touched[side][tick] = 0
            for _ in range(self.chance.randrange(4)):
                away = self.chance.randrange(20)
                tick = self.bid - away if side == "b" else self.bid + 1 + away
                touched[side][tick] = self.chance.choice((0, self.chance.randrange(1, 500))) if away else self.chance.randrange(1, 500)
            held.update(touched[side])
            self.sides[side] = {tick: lots for tick, lots in held.items() if lots}
        before, self.update = self.update, self.update + self.chance.randrange(1, 9)
        bids, asks = self._levels("b", list(touched["b"]), touched["b"]), self._levels("a", list(touched["a"]), touched["a"])
        return b'{"e":"depthUpdate","E":%d,"s":"%b","U":%d,"u":%d,"pu":%d,"b":[%b],"a":[%b]}' % (
            *(ts_ns // MS, self.name.encode()),
            *(before + 1, self.update, before),
            *(bids, asks),
        )

    def trade(self, ts_ns: int) -> bytes:
        self.trade_id += 1
        buys = self.chance.random() < 0.5
        price, lots = self.bid + buys, self.chance.randrange(1, 50)
        return b'{"e":"trade","E":%d,"T":%d,"s":"%b","t":%d,"p":"%b","q":"%b","m":%b}' % (
            *(ts_ns // MS, ts_ns // MS, self.name.encode(), self.trade_id),
            *(_decimal(price, 1), _decimal(lots, 3), b"false" if buys else b"true"),
        )

    def ticker(self, ts_ns: int) -> bytes:
        """The best of both sides, as the venue's ticker tells it for the update that was sent last."""
        bid, ask = max(self.sides["b"]), min(self.sides["a"])
        stated = (_decimal(bid, 1), _decimal(self.sides["b"][bid], 3), _decimal(ask, 1), _decimal(self.sides["a"][ask], 3))
        return b'{"e":"bookTicker","u":%d,"s":"%b","b":"%b","B":"%b","a":"%b","A":"%b","T":%d,"E":%d}' % (
            *(self.update, self.name.encode()),
            *stated,
            *(ts_ns // MS, ts_ns // MS),
        )

    def messages(self, ts_ns: Callable[[], int]) -> Iterator[bytes]:
        """A difference, a snapshot, then whatever comes, without end; now and then another snapshot."""
        yield self.diff(ts_ns())
        for i in itertools.count():
            yield self.chance.choice((self.diff, self.diff, self.ticker, self.trade))(ts_ns()) if i % 50 else self.snapshot()

    def _levels(self, side: str, ticks: Sequence[int], lots: dict[int, int] | None = None) -> bytes:
        held = self.sides[side] if lots is None else lots
        return b",".join(b'["%b","%b"]' % (_decimal(tick, 1), _decimal(held[tick], 3)) for tick in ticks)


def _decimal(units: int, places: int) -> bytes:
    return b"%d.%0*d" % (*divmod(units, 10**places)[:1], places, units % 10**places)


def market_lines(count: int, *, names: Sequence[str] = ("BTCUSDT",), step_ns: int = 20 * MS, seed: int = 0) -> list[Line]:
    """``count`` messages of these symbols in turn, one every ``step_ns``."""
    now = START_NS
    feeds = itertools.cycle([FakeMarket(name, seed).messages(lambda: now) for name in names])
    lines = []
    for _ in range(count):
        lines.append((now, next(next(feeds))))
        now += step_ns
    return lines


def spoil(lines: Sequence[Line], seed: int = 0, every: int = 40) -> list[Line]:
    """Lose, repeat and garble messages now and then, so that there is much to tell."""
    chance = random.Random(seed)
    spoilt: list[Line] = []
    for ts_ns, payload in lines:
        what = chance.randrange(every)
        if what == 0:
            continue
        spoilt.append((ts_ns, payload))
        if what == 1:
            spoilt.append((ts_ns, payload))
        elif what == 2:
            spoilt.append((ts_ns, payload[: len(payload) // 2]))
    return spoilt


def write_capture(folder: Path, lines: Sequence[Line], name: str = f"{VENUE}_BTCUSDT_20240101.raw") -> Path:
    path = folder / name
    content = b"".join(b"%d %b\n" % line for line in lines)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def head(recording: Path, count: int, folder: Path) -> Path:
    """The first lines of a recording as a recording of the same name."""
    with gzip.open(recording) as stream:
        content = b"".join(itertools.islice(stream, count))
    path = folder / recording.name.removesuffix(".gz")
    path.write_bytes(content)
    return path


def recorded(path: Path, settings: CoreSettings | None = None) -> list[AnyInput]:
    """The inputs that a recording is."""
    complaints: list[object] = []
    entries = list(inputs(Capture([path], report=complaints.append), settings or CoreSettings()))
    assert complaints == []
    return entries


def stepped(entries: Sequence[AnyInput], engine: Engine | None = None) -> tuple[Engine, list[list[Record]]]:
    """An engine after these inputs, and what each of them caused."""
    engine = engine or app.build()
    return engine, [engine.step(entry) for entry in entries]


def rows_of(entries: Sequence[AnyInput], records: Sequence[list[Record]]) -> list[LedgerRow]:
    return [row for entry, caused in zip(entries, records, strict=True) for row in ledger_rows(entry, caused)]


class FakeClock(Clock):
    """Shows what the test sets, also a time that was before."""

    def __init__(self, at_ns: int = START_NS) -> None:
        self.at_ns = at_ns

    def now_ns(self) -> int:
        return self.at_ns


class Live:
    """A runner with real stores behind it, put together as the composition root does; made inside a running loop."""

    def __init__(
        self, folder: Path, *, clock: Clock | None = None, build: Callable[[], Engine] = app.build, retry_s: float = 0.01, **options: Any
    ) -> None:
        self.reports: list[str] = []
        self.reasons: list[str] = []
        self.seen: list[tuple[AnyInput, list[Record]]] = []
        """Every input and what it caused, as it was stepped."""
        self.journal = FileJournal(folder / "journal", report=self.reports.append)
        self.ledger = SqliteLedger(folder / "ledger.sqlite", engine="test")
        self.checkpoints = FileCheckpoints(folder / "checkpoints", report=self.reports.append)
        self.committer: Committer | None = None
        try:
            self.engine = recover(build, self.journal, self.ledger, self.checkpoints, self.reports.append)
            self._witness()
            self.runner = Runner(build(), source="test", clock=clock, config=dict, **options)
            self.committer = Committer(
                self.journal,
                self.ledger,
                self.checkpoints,
                published=self.runner.published,
                degraded=self.reasons.append,
                recovered=self.runner.recovered,
                linger_s=0.0,
                retry_s=retry_s,
                durable_seq=self.engine.seq,
            )
            self.runner.take_over(self.engine, self.committer, lambda: self.ledger.count)
        except BaseException:
            self.close()
            raise

    def _witness(self) -> None:
        step = self.engine.step

        def witnessed(entry: AnyInput) -> list[Record]:
            records = step(entry)
            self.seen.append((entry, records))
            return records

        self.engine.step = witnessed  # type: ignore[method-assign]

    async def play(
        self, entries: Iterable[AnyInput], speed: float = float("inf"), works: Mapping[str, Work] | None = None, delay_ns: int = 0
    ) -> list[str]:
        """Play a recording and wait until it is durable; returns why frames of it were rejected."""
        rejected: list[str] = []
        await asyncio.wait_for(self.runner.play(entries, speed, rejected.append, works or {}, delay_ns), PATIENCE_S)
        await self.settle()
        return rejected

    def submit(self, entry: AnyInput) -> None:
        """Step one input of a recording, at the place that it now has."""
        self.runner.submit(lambda seq, ts_ns: msgspec.structs.replace(entry, seq=seq))

    async def settle(self) -> None:
        await asyncio.wait_for(self.runner.wait_durable(self.engine.seq), PATIENCE_S)

    def close(self, *, checkpoint: bool = False) -> None:
        """Stop; without a checkpoint the files are those of a process that was killed when all was durable."""
        if self.committer is not None:
            if checkpoint:
                self.runner.checkpoint()
            self.committer.close(PATIENCE_S)
        self.ledger.close()
        self.journal.close()

    async def __aenter__(self) -> "Live":
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()


async def until(what: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""

    async def watch() -> None:
        while not what():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(watch(), PATIENCE_S)


def script(name: str) -> ModuleType:
    """A file of ``bench/`` as a module."""
    path = Path(__file__).parent.parent / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
