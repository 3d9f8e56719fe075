import asyncio
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack import app
from alphapack.domain.events import IntakeOverloaded
from alphapack.domain.inputs import Configure, Conflated, CoreSettings, Frame, Heartbeat, Shed
from alphapack.shell.intake import Intake, Waiting
from rig import BTC, START_NS, VENUE, FakeClock, FakeMarket, Live, S

CODECS = app.build().codecs
ETH = BTC.replace("BTC", "ETH")


def ticker(name: str, update: int) -> bytes:
    return b'{"e":"bookTicker","u":%d,"s":"%b","b":"1.0","B":"1","a":"2.0","A":"1"}' % (update, name.encode())


def trade(name: str, trade_id: int) -> bytes:
    return b'{"e":"trade","E":1,"T":1,"s":"%b","t":%d,"p":"1.0","q":"1","m":true}' % (name.encode(), trade_id)


def made(*, frames_max: int = 100, conflate_from: int = 100) -> Intake:
    return Intake(CODECS, frames_max=frames_max, conflate_from=conflate_from)


SECONDS = itertools.count(1)


def losses(intake: Intake) -> list[tuple[str, str, int]]:
    """What was lost, asked for a second after the time before."""
    return intake.losses(next(SECONDS) * S)


def symbol_of(waiting: Waiting) -> str:
    assert waiting.payload is not None
    return f"{waiting.venue}:{json.loads(waiting.payload)['s']}"


def offer(intake: Intake, *payloads: bytes) -> None:
    for payload in payloads:
        intake.offer(VENUE, "", payload)


def taken(intake: Intake) -> list[bytes]:
    found = []
    while (waiting := intake.take()) is not None:
        assert waiting.payload is not None
        found.append(waiting.payload)
    return found


def test_what_comes_goes_in_order_and_whole() -> None:
    intake = made()
    payloads = [trade("BTCUSDT", 1), ticker("ETHUSDT", 1), ticker("ETHUSDT", 2), b"garbage", trade("BTCUSDT", 2)]
    offer(intake, *payloads)
    assert intake.frames == 5 and losses(intake) == []
    assert taken(intake) == payloads
    assert intake.frames == 0 and intake.take() is None


def test_the_names_the_connection_gave_stay_with_the_frame() -> None:
    intake = made()
    intake.offer("okx", "BTC-USDT", b"{}")
    waiting = intake.take()
    assert waiting is not None
    assert (waiting.venue, waiting.wire_symbol, waiting.payload) == ("okx", "BTC-USDT", b"{}")


def test_a_crowd_conflates_tickers_and_nothing_else() -> None:
    intake = made(conflate_from=3)
    first = [trade("BTCUSDT", 1), ticker("BTCUSDT", 1), ticker("ETHUSDT", 1)]
    offer(intake, *first)
    offer(intake, ticker("BTCUSDT", 2), trade("BTCUSDT", 2), trade("BTCUSDT", 3), ticker("BTCUSDT", 3))
    assert losses(intake) == [("conflated", BTC, 2)]
    assert losses(intake) == [], "told once"
    assert taken(intake) == [trade("BTCUSDT", 1), ticker("ETHUSDT", 1), trade("BTCUSDT", 2), trade("BTCUSDT", 3), ticker("BTCUSDT", 3)]


def test_a_ticker_that_was_handed_out_is_not_given_up_again() -> None:
    intake = made(conflate_from=0)
    offer(intake, ticker("BTCUSDT", 1))
    assert taken(intake) == [ticker("BTCUSDT", 1)]
    offer(intake, ticker("BTCUSDT", 2))
    assert losses(intake) == [] and intake.frames == 1
    assert taken(intake) == [ticker("BTCUSDT", 2)] and intake.frames == 0


def test_too_many_frames_shed_the_symbol_that_has_most_of_them() -> None:
    intake = made(frames_max=6)
    offer(
        intake,
        trade("ETHUSDT", 1),
        trade("BTCUSDT", 1),
        trade("BTCUSDT", 2),
        trade("ETHUSDT", 2),
        trade("BTCUSDT", 3),
        ticker("BTCUSDT", 4),
    )
    assert losses(intake) == [] and intake.frames == 6
    offer(intake, trade("ETHUSDT", 3))
    assert losses(intake) == [("shed", BTC, 4)]
    assert intake.frames == 3
    offer(intake, ticker("BTCUSDT", 5))
    assert taken(intake) == [trade("ETHUSDT", 1), trade("ETHUSDT", 2), trade("ETHUSDT", 3), ticker("BTCUSDT", 5)]
    assert losses(intake) == []


def test_of_symbols_with_equally_many_the_first_by_name_is_shed() -> None:
    intake = made(frames_max=3)
    offer(intake, trade("ETHUSDT", 1), trade("BTCUSDT", 1), trade("ETHUSDT", 2), trade("BTCUSDT", 2))
    assert losses(intake) == [("shed", BTC, 2)]


OFFERS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["BTCUSDT", "ETHUSDT", "SOLUSDT"]), st.sampled_from([ticker, ticker, trade])),
        st.just("take"),
        st.just("losses"),
    ),
    max_size=120,
)


@settings(max_examples=200)
@given(OFFERS, st.integers(1, 12), st.integers(0, 12))
def test_every_frame_is_handed_out_or_told_as_lost_and_never_too_many_wait(
    actions: list[object], frames_max: int, conflate_from: int
) -> None:
    intake = made(frames_max=frames_max, conflate_from=conflate_from)
    offered: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    newest: dict[str, bytes] = {}
    for number, action in enumerate(actions):
        if action == "take":
            waiting = intake.take()
            if waiting is not None:
                ended[symbol_of(waiting)] += 1
        elif action == "losses":
            for _, symbol, frames in losses(intake):
                lost[symbol] += frames
        else:
            assert isinstance(action, tuple)
            name, make = action
            newest[name] = make(name, number)
            intake.offer(VENUE, "", newest[name])
            offered[f"{VENUE}:{name}"] += 1
        assert 0 <= intake.frames <= frames_max
        assert len(intake._queue) <= 2 * frames_max, "frames that were given up take no room for long"
    while (waiting := intake.take()) is not None:
        ended[symbol_of(waiting)] += 1
    for how, symbol, frames in losses(intake):
        assert how in ("shed", "conflated") and frames > 0
        lost[symbol] += frames
    assert ended + lost == offered
    assert intake.frames == 0


def test_invented_names_do_not_fill_the_memory() -> None:
    intake = made(frames_max=50)
    for i in range(2_000):
        offer(intake, ticker(f"X{i}", 1))
        intake.take()
        losses(intake)
    assert len(intake._tickers) <= 50


def test_the_runner_journals_losses_before_the_next_frame_and_the_book_resyncs(tmp_path: Path) -> None:
    async def live() -> Live:
        async with Live(tmp_path, clock=FakeClock()) as host:
            runner = host.runner
            runner.intake = made(frames_max=20, conflate_from=8)
            runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings()))
            feeds = {name: FakeMarket(name) for name in ("BTCUSDT", "ETHUSDT")}
            for market in feeds.values():
                runner.intake.offer(VENUE, "", market.diff(START_NS))
                runner.intake.offer(VENUE, "", market.snapshot())
            while runner.drain():
                pass
            assert {name: one.state for name, one in runner.health().symbols.items()} == {"BTCUSDT": "LIVE", "ETHUSDT": "LIVE"}
            for _ in range(5):
                runner.intake.offer(VENUE, "", feeds["ETHUSDT"].diff(START_NS))
            for _ in range(16):
                runner.intake.offer(VENUE, "", feeds["BTCUSDT"].diff(START_NS))
            eth = runner.engine.microstructure.health(ETH)
            assert runner.intake.frames == 5
            for _ in range(4):
                runner.intake.offer(VENUE, "", feeds["ETHUSDT"].ticker(START_NS))
            while runner.drain():
                pass
            after = runner.engine.microstructure.health(ETH)
            assert {name: one.state for name, one in runner.health().symbols.items()} == {"BTCUSDT": "SYNCING", "ETHUSDT": "LIVE"}
            assert (after.gaps, after.resyncs, after.messages) == (eth.gaps, eth.resyncs, eth.messages + 8)
            runner.submit(Heartbeat)
            await host.settle()
            return host

    host = asyncio.run(live())
    entries = [entry for entry, _ in host.seen]
    lost = [entry for entry in entries if isinstance(entry, Shed | Conflated)]
    assert [(type(one).__name__, one.symbol, one.frames) for one in lost] == [("Shed", BTC, 16), ("Conflated", ETH, 1)]
    at = entries.index(lost[0])
    assert entries[at + 1] is lost[1] and isinstance(entries[at + 2], Frame), "losses come first"
    told = [record for _, records in host.seen for record in records if isinstance(record, IntakeOverloaded)]
    assert told == [IntakeOverloaded(BTC, 16, "shed"), IntakeOverloaded(ETH, 1, "conflated")]


def test_conflation_is_told_once_a_second_and_shedding_at_once() -> None:
    intake = made(conflate_from=1, frames_max=3)
    offer(intake, ticker("BTCUSDT", 1), ticker("BTCUSDT", 2))
    assert intake.lost and intake.losses(5 * S) == [("conflated", BTC, 1)]
    offer(intake, ticker("BTCUSDT", 3), ticker("BTCUSDT", 4))
    assert intake.lost and intake.losses(6 * S - 1) == []
    offer(intake, trade("ETHUSDT", 1), trade("ETHUSDT", 2), trade("ETHUSDT", 3))
    assert intake.losses(6 * S - 1) == [("shed", ETH, 3)]
    assert intake.losses(6 * S) == [("conflated", BTC, 2)]
    assert not intake.lost


def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphapack.shell.intake.BYTES_MAX", 1_000)
    intake = made()
    large = trade("ETHUSDT", 1).ljust(600)
    offer(intake, trade("BTCUSDT", 1), large, large)
    assert losses(intake) == [("shed", ETH, 2)]
    assert taken(intake) == [trade("BTCUSDT", 1)]
    assert intake.bytes == 0
