"""While nothing can be kept on disk the market goes on and trading stands still."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from alphapack import app
from alphapack.domain.events import OrderChanged, Record, TradingHalted
from alphapack.domain.inputs import AnyInput, CoreSettings, Halt, Heartbeat, InstrumentSettings
from alphapack.domain.simulation import SimulatorSettings
from alphapack.domain.trading import RouterSettings
from alphapack.shell import journal as journal_module
from alphapack.shell.clock import SetClock
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import SimulatedMarket
from rig import START_NS, Live, S, rows_of, stepped, until

SYMBOL = "sim:BTCUSDT"
WANTED = {"decision", "sizing", "plan"}
"""Kinds of records that say that something is wanted."""


class Tape:
    """Two minutes of a market that is traded every two seconds, behind the days that a forecast needs."""

    def __init__(self) -> None:
        self.entries: list[AnyInput] = []
        self._working: list[set[int]] = []

    async def make(self) -> None:
        cheap = (InstrumentSettings(SYMBOL, maker_fee_bps=0.0, taker_fee_bps=0.0),)  # Else hardly anything is wanted.
        core = CoreSettings(router=RouterSettings(interval_s=2, horizon_s=10, floor=0.05), instruments=cheap)
        one = SimulatorSettings(symbols=("BTCUSDT",))
        market = SimulatedMarket(one, core, SetClock(START_NS), app.WORKS, app.WORK_DELAY_NS, past_ns=90 * S, history_minutes=20_000)
        runner = Runner(app.build(), source="test", clock=market, config=dict)

        def note(entry: AnyInput) -> None:
            self.entries.append(entry)
            self._working.append({order.id for order in runner.engine.exchange.open_orders(SYMBOL) if order.state == "working"})

        runner.tap = note
        await market.make(runner)

    def working(self, from_ns: int) -> int:
        """Return the seq from which on an order works for three inputs."""
        return next(
            entry.seq
            for place, entry in enumerate(self.entries)
            if entry.ts_ns >= from_ns and set.intersection(*self._working[place : place + 3])
        )


@pytest.fixture(scope="module")
def tape() -> Tape:
    tape = Tape()
    asyncio.run(tape.make())
    return tape


def refuse(fd: int) -> None:
    raise OSError(28, "No space left on device")


class Market:
    """Inputs that an engine steps until something is so."""

    def __init__(self, host: Live, tape: Tape) -> None:
        self.host, self.tape, self._left = host, tape, iter(tape.entries)

    def one(self) -> None:
        """Step the next input, at the place that it now has."""
        entry = next(self._left)
        self.host.runner.submit(lambda seq, ts_ns: msgspec.structs.replace(entry, seq=seq))

    def until(self, ts_ns: int) -> None:
        while self.host.engine.now_ns < ts_ns:
            self.one()

    def end(self) -> None:
        for entry in self._left:
            self.host.runner.submit(lambda seq, ts_ns, entry=entry: msgspec.structs.replace(entry, seq=seq))

    def records(self, after_seq: int = 0) -> list[Record]:
        return [record for entry, caused in self.host.seen if entry.seq > after_seq for record in caused]


async def fill_the_disk(market: Market, patch: pytest.MonkeyPatch) -> int:
    """Let the disk refuse while an order works; returns the seq of the halt."""
    host = market.host
    working_seq = market.tape.working(START_NS - 60 * S)
    while host.engine.seq < working_seq:
        market.one()
    await host.settle()
    patch.setattr(journal_module, "sync_file", refuse)
    market.one()
    await until(lambda: host.runner.health().status == "degraded")
    assert not host.engine.halted, "the engine is told by an input and by nothing else"
    market.one()
    assert host.engine.halted and host.seen[-1][0] == Halt(host.engine.seq, host.engine.now_ns, True)
    return host.engine.seq


def kinds(records: list[Record]) -> set[str]:
    return {str(record.__struct_config__.tag) for record in records}


def sent(records: list[Record]) -> list[int]:
    return [record.order for record in records if type(record) is OrderChanged and record.state == "sent"]


def test_execution_planner_wants_and_sends_nothing_while_nothing_can_be_kept(
    tape: Tape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def live() -> str:
        async with Live(tmp_path) as host:
            market, engine = Market(host, tape), host.engine
            with monkeypatch.context() as patch:
                halted_seq = await fill_the_disk(market, patch)
                assert kinds(market.records()) >= WANTED and sent(market.records())
                working = [order.id for order in engine.exchange.open_orders(SYMBOL)]
                assert working != []
                market.until(engine.now_ns + 12 * S)
                meanwhile = market.records(halted_seq)
                assert kinds(meanwhile) & {*WANTED, "cross"} == set() and sent(meanwhile) == []
                assert engine.exchange.open_orders(SYMBOL) == [] and not engine.exchange.resting
                assert {engine.exchange.order(order).state for order in working} <= {"cancelled", "filled"}
                assert "cancelled" in {engine.exchange.order(order).state for order in working}
                assert engine.microstructure.health(SYMBOL).state == "LIVE", "the market goes on"
            await until(lambda: host.runner.health().ledger.ok)
            resumed_seq = engine.seq
            assert engine.halted and engine.now_ns < START_NS - 5 * S
            market.end()
            assert not engine.halted
            assert kinds(market.records(resumed_seq)) >= WANTED and sent(market.records(resumed_seq))
            halts = [record.on for record in market.records() if type(record) is TradingHalted]
            assert halts == [True, False]
            await host.settle()
            whole, records = stepped([entry for entry, _ in host.seen])
            assert whole.hexdigest() == engine.hexdigest() and [caused for _, caused in host.seen] == records
            assert list(host.ledger.rows()) == rows_of([entry for entry, _ in host.seen], records), "rows outlive the hole"
            return engine.hexdigest()

    async def again() -> str:
        async with Live(tmp_path) as host:
            return host.engine.hexdigest()

    assert asyncio.run(live()) == asyncio.run(again())


def test_execution_planner_goes_on_after_a_crash_on_the_way_back(tape: Tape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint that covers the hole says that trading stands still; a start on a disk that works lets it go on."""

    async def killed() -> None:
        async with Live(tmp_path) as host:
            with monkeypatch.context() as patch:
                await fill_the_disk(Market(host, tape), patch)
            await until(lambda: host.runner.health().ledger.ok)

    async def again() -> None:
        async with Live(tmp_path) as host:
            assert host.engine.halted
            host.runner.submit(Heartbeat)
            assert [type(entry) for entry, _ in host.seen] == [Heartbeat, Halt] and not host.engine.halted
            await host.settle()

    asyncio.run(killed())
    asyncio.run(again())


def test_execution_planner_is_not_halted_by_a_crash_while_the_disk_is_full(
    tape: Tape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not kept has not happened: neither the halt nor what was stepped in it."""

    async def killed() -> tuple[int, int]:
        async with Live(tmp_path, retry_s=60.0) as host:
            with monkeypatch.context() as patch:
                halted_seq = await fill_the_disk(Market(host, tape), patch)
                return host.runner.sequence()[1], halted_seq

    async def again() -> int:
        async with Live(tmp_path) as host:
            assert not host.engine.halted and host.engine.exchange.open_orders(SYMBOL) != []
            return host.engine.seq

    durable_seq, halted_seq = asyncio.run(killed())
    assert durable_seq <= asyncio.run(again()) < halted_seq
