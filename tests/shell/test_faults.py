import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.events import DepthDiff, FrameError
from alphapack.domain.market import BinanceMarket, Verdict
from alphapack.shell import faults
from alphapack.shell.faults import (
    KINDS,
    OF_ANSWERS,
    OF_CONNECTIONS,
    Deed,
    FaultRecord,
    FaultRefused,
    FaultRequest,
    Form,
    Injector,
    Kind,
    Released,
    TapeFrame,
    combined,
    data_of,
    filled,
    garbled,
    stream_of,
)
from alphapack.venues.binance import BinanceCodec
from rig import MS, START_NS, S

OF_FRAMES = tuple(kind for kind in KINDS if kind not in OF_CONNECTIONS | OF_ANSWERS)
CHANNELS = ("depth@100ms", "trade", "bookTicker")
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def tape(what: Sequence[tuple[int, int, int]]) -> list[TapeFrame]:
    """Frames of (symbol, channel, milliseconds since the one before), their ids without a gap by every market's rule."""
    ts_ns = START_NS
    updates, trades = dict.fromkeys(SYMBOLS, 100), dict.fromkeys(SYMBOLS, 500)
    frames = []
    for symbol, channel, after_ms in what:
        ts_ns += after_ms * MS
        name, stream = SYMBOLS[symbol], f"{SYMBOLS[symbol].lower()}@{CHANNELS[channel]}"
        data: dict[str, Any] = {"E": ts_ns // MS, "s": name}
        if channel == 0:
            last = updates[name]
            updates[name] += 1 + ts_ns // MS % 3
            data = {"e": "depthUpdate"} | data | {"U": last + 1, "u": updates[name], "pu": last, "b": [["1.0", str(last)]], "a": []}
        elif channel == 1:
            trades[name] += 1
            data = {"e": "trade"} | data | {"t": trades[name], "p": "1.0", "q": "2", "T": ts_ns // MS, "m": True}
        else:
            data = {"e": "bookTicker", "u": updates[name]} | data | {"b": "1", "B": "1", "a": "2", "A": "1", "T": 1}
        frames.append((ts_ns, combined(stream.encode(), msgspec.json.encode(data))))
    return frames


def shape(seed: int, count: int) -> list[tuple[int, int, int]]:
    chance = random.Random(seed)
    return [(chance.randrange(len(SYMBOLS)), chance.choice((0, 0, 1, 2)), chance.randrange(40)) for _ in range(count)]


def drawn_tape(seed: int, count: int) -> list[TapeFrame]:
    return tape(shape(seed, count))


tapes = st.builds(drawn_tape, st.integers(0, 1_000_000), st.integers(0, 400))


def run(injector: Injector, frames: list[TapeFrame], cuts: Sequence[int] = ()) -> list[Released]:
    """What becomes of the frames, released in slices."""
    out: list[Released] = []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(frames)], strict=True):
        if frames[begin:end]:
            out += injector.run(frames[begin:end], frames[end - 1][0])
    return out


def asked(request: FaultRequest, frames: list[TapeFrame]) -> tuple[list[Released], FaultRecord]:
    """What becomes of the frames by one fault."""
    injector = Injector(1)
    injector.ask(request)
    out = injector.run(frames, frames[-1][0])
    (record,) = injector.truth
    return out, record


def only(frames: Sequence[Released], symbol: str, channel: str | None = None) -> list[TapeFrame]:
    stream = f"{symbol.lower()}@{channel or ''}".encode()
    return [one for one in frames if not isinstance(one, Deed) and stream_of(one[1]).startswith(stream)]


DEPTHS = tape([(0, 0, 10), (0, 1, 10), (1, 0, 10)] * 10)
"""Of BTCUSDT a difference and a trade, of ETHUSDT a difference, ten times."""


# Law


@given(tapes, st.integers(0, 50))
def test_without_faults_nothing_changes(frames: list[TapeFrame], cut: int) -> None:
    injector = Injector(7)
    assert run(injector, frames, [min(cut, len(frames))]) == frames
    assert injector.n == len(frames) and not injector.truth


@given(tapes, st.integers(0, 1 << 32), st.integers(1, 60), st.integers(0, 10), st.lists(st.integers(0, 400), max_size=20))
def test_faults_follow_from_frames_and_seed_and_not_from_the_slices(
    frames: list[TapeFrame], seed: int, every: int, spacing: int, cuts: list[int]
) -> None:
    whole, sliced = (Injector(seed, every=every, spacing=spacing) for _ in range(2))
    expected, found = run(whole, frames), run(sliced, frames, [min(cut, len(frames)) for cut in cuts])
    assert found == expected
    assert sliced.truth == whole.truth


def test_another_seed_has_other_faults() -> None:
    frames = drawn_tape(0, 2_000)
    injectors = [Injector(seed, every=50) for seed in (1, 1, 2)]
    out = [run(injector, frames) for injector in injectors]
    assert out[0] == out[1] != out[2]
    assert len(injectors[0].truth) > 20


@given(tapes, st.integers(0, 1 << 32), st.integers(1, 30), st.integers(1, 20))
def test_faults_of_one_symbol_keep_their_distance(frames: list[TapeFrame], seed: int, every: int, spacing: int) -> None:
    injector = Injector(seed, every=every, spacing=spacing)
    run(injector, frames)
    place = {
        symbol: [n for n, (_, payload) in enumerate(frames, 1) if stream_of(payload).startswith(symbol.lower().encode())]
        for symbol in SYMBOLS
    }
    of_streams = [record for record in injector.truth if record.kind not in OF_ANSWERS]
    for symbol in SYMBOLS:
        hits = [record for record in of_streams if record.symbol in (symbol, "")]
        for before, after in itertools.pairwise(hits):
            if not before.symbol and not after.symbol:
                continue  # Of this symbol there may be nothing in between, where others have moved on.
            assert before.done, "one is over before the next begins"
            end_n = max(before.n, before.seen_n) if before.symbol else before.n - 1  # A deed stands before its frame.
            assert sum(end_n < n < after.n for n in place[symbol]) >= spacing


class Judge:
    """A client that resynchronises at once: what it finds is what a fault has to show."""

    def __init__(self, market: BinanceMarket) -> None:
        self._codec = BinanceCodec(market)
        self._last: dict[str, int] = {}
        self.gaps: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.rejected = 0

    def take(self, payload: bytes) -> None:
        try:
            json.loads(payload)
            (event,) = self._codec.decode(payload, "")
        except (ValueError, FrameError):
            self.rejected += 1
            return
        if not isinstance(event, DepthDiff):
            return
        name = event.symbol.partition(":")[2]
        verdict = self._codec.verdict(event, self._last.get(name, event.first - 1), first_after_snapshot=False)
        self.gaps[name] += verdict is Verdict.GAP
        self.duplicates[name] += verdict is Verdict.DUPLICATE
        self._last[name] = max(event.last, self._last.get(name, 0))


@given(st.integers(0, 1 << 32), st.integers(10, 60), st.sampled_from(["spot", "usdm", "coinm"]))
def test_the_truth_is_what_a_right_client_finds(seed: int, every: int, market: BinanceMarket) -> None:
    frames = tape([*((symbol, 0, 1) for symbol in range(len(SYMBOLS))), *shape(seed, 600)])
    injector = Injector(seed, every=every, spacing=3, kinds=OF_FRAMES)
    judge = Judge(market)
    for _, payload in frames[: len(SYMBOLS)]:
        judge.take(payload)
    for item in injector.run(frames[len(SYMBOLS) :], frames[-1][0]):
        assert not isinstance(item, Deed)
        judge.take(item[1])
    for symbol in SYMBOLS:
        shown = [
            record
            for record in injector.truth
            if record.symbol == symbol and record.expect == "gap" and record.detectable and (record.kind != "garbage" or record.done)
        ]
        assert judge.gaps[symbol] == len(shown), [record for record in injector.truth if record.symbol == symbol]
    assert judge.rejected == sum(record.kind == "garbage" for record in injector.truth)


# Each kind


@pytest.mark.parametrize("frames", [1, 5])
def test_a_drop_takes_consecutive_differences_and_shows_at_the_next(frames: int) -> None:
    out, record = asked(FaultRequest("drop", symbol="BTCUSDT", frames=frames), DEPTHS)
    before, after = only(DEPTHS, "BTCUSDT", "depth"), only(out, "BTCUSDT", "depth")
    assert after == before[frames:]
    assert [one for one in out if one not in after] == [one for one in DEPTHS if one not in before]
    first, last = (json.loads(before[at][1])["data"] for at in (0, frames - 1))
    assert (record.first, record.last, record.frames, record.expect) == (first["U"], last["u"], frames, "gap")
    assert (record.detectable, record.done, record.seen_n) == (True, True, 1 + 3 * frames)


def test_a_drop_at_the_end_shows_nothing() -> None:
    _, record = asked(FaultRequest("drop", frames=5), DEPTHS[:9])
    assert (record.frames, record.detectable, record.done, record.seen_n) == (3, False, False, 0)


def test_lost_trades_are_no_gap_of_the_book() -> None:
    out, record = asked(FaultRequest("drop", channel="trade", frames=2), DEPTHS)
    assert only(out, "BTCUSDT", "trade") == only(DEPTHS, "BTCUSDT", "trade")[2:]
    assert (record.first, record.last, record.expect, record.detectable) == (501, 502, "none", True)


def test_a_lost_ticker_cannot_be_told() -> None:
    out, record = asked(FaultRequest("drop", channel="bookTicker", frames=1), tape([(0, 2, 10)] * 3))
    assert len(out) == 2 and record.done and not record.detectable


def test_a_duplicate_comes_right_after() -> None:
    out, record = asked(FaultRequest("duplicate", symbol="ETHUSDT"), DEPTHS)
    assert out == [*DEPTHS[:3], DEPTHS[2], *DEPTHS[3:]]
    assert (record.expect, record.detectable, record.done) == ("none", False, True)


def test_neighbours_change_places() -> None:
    out, record = asked(FaultRequest("reorder", symbol="BTCUSDT"), DEPTHS)
    assert out == [DEPTHS[1], DEPTHS[2], DEPTHS[3], DEPTHS[0], *DEPTHS[4:]]
    assert (record.expect, record.detectable, record.seen_n, record.frames) == ("gap", True, 4, 2)


@pytest.mark.parametrize(
    "request_", [FaultRequest("delay", symbol="BTCUSDT", ms=75), FaultRequest("stall", symbol="BTCUSDT", ms=75, lost=False)]
)
def test_delayed_frames_come_in_order_when_the_time_is_over(request_: FaultRequest) -> None:
    out, record = asked(request_, DEPTHS)
    assert only(out, "BTCUSDT") == only(DEPTHS, "BTCUSDT") and only(out, "ETHUSDT") == only(DEPTHS, "ETHUSDT")
    # Begun with the frame at 10 ms, over with the one at 90 ms; those of 10, 20, 40, 50, 70 and 80 ms were held.
    assert out[:2] == [DEPTHS[2], DEPTHS[5]] and out[2:8] == [DEPTHS[at] for at in (0, 1, 3, 4, 6, 7)] and out[8:] == DEPTHS[8:]
    assert (record.frames, record.expect, record.detectable, record.done) == (6, "none", False, True)


def test_a_delay_ends_with_time_and_not_with_the_next_frame() -> None:
    injector = Injector(1)
    injector.ask(FaultRequest("delay", ms=1_000))
    assert injector.run(DEPTHS[:1], DEPTHS[0][0]) == []
    assert injector.run([], DEPTHS[0][0] + S - 1) == []
    assert injector.run([], DEPTHS[0][0] + S) == DEPTHS[:1]


def test_a_delay_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "HELD_FRAMES_MAX", 4)
    out, record = asked(FaultRequest("delay", symbol="BTCUSDT", ms=60_000), DEPTHS)
    assert only(out, "BTCUSDT") == only(DEPTHS, "BTCUSDT") and record.frames == 4 and record.done


def test_a_stall_loses_what_was_due() -> None:
    out, record = asked(FaultRequest("stall", symbol="BTCUSDT", ms=75, lost=True), DEPTHS)
    assert only(out, "BTCUSDT") == only(DEPTHS, "BTCUSDT")[6:] and only(out, "ETHUSDT") == only(DEPTHS, "ETHUSDT")
    assert (record.frames, record.expect, record.detectable, record.done) == (6, "gap", True, True)
    lost = [json.loads(payload)["data"] for _, payload in only(DEPTHS, "BTCUSDT", "depth")[:3]]
    assert (record.first, record.last >= lost[2]["u"]) == (lost[0]["U"], True)


def test_a_stall_without_a_difference_shows_nothing() -> None:
    frames = tape([(0, 1, 10), (0, 1, 10), (0, 0, 100), (0, 0, 10)])
    out, record = asked(FaultRequest("stall", ms=50, lost=True), frames)
    assert out == frames[2:]
    assert (record.frames, record.detectable, record.done) == (2, False, True)


@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize(("channel", "expect"), [("depth", "gap"), ("trade", "reject"), ("bookTicker", "reject")])
def test_garbage_takes_the_place_of_a_frame(form: Form, channel: Any, expect: str) -> None:
    frames = tape([(0, at, 10) for at in (0, 1, 2)] * 3)
    out, record = asked(FaultRequest("garbage", channel=channel, form=form), frames)
    at = [name.partition("@")[0] for name in CHANNELS].index(channel)
    assert out[:at] + out[at + 1 :] == frames[:at] + frames[at + 1 :]
    assert (record.expect, record.detectable, record.done, record.n) == (expect, True, True, at + 1)


@given(st.builds(drawn_tape, st.integers(0, 1_000_000), st.integers(1, 10)), st.sampled_from(get_args(Form)))
def test_no_reader_takes_garbage_for_a_frame(frames: list[TapeFrame], form: Form) -> None:
    for _, payload in frames:
        stream = stream_of(payload)
        damaged = garbled(payload, form)
        assert stream_of(damaged) == stream
        for found in (damaged, combined(b"other@trade", data_of(damaged, stream))):
            with pytest.raises(ValueError):
                json.loads(found)
            with pytest.raises(FrameError):
                BinanceCodec("usdm").decode(found, "")


# Faults of connections and of answers


@pytest.mark.parametrize("kind", sorted(OF_CONNECTIONS | OF_ANSWERS))
def test_a_deed_stands_before_the_frame_at_which_it_is_done(kind: Kind) -> None:
    injector = Injector(1)
    injector.run(DEPTHS[:4], DEPTHS[3][0])
    injector.ask(FaultRequest(kind))
    deed, *frames = injector.run(DEPTHS[4:], DEPTHS[-1][0])
    assert isinstance(deed, Deed) and frames == DEPTHS[4:]
    assert deed.record is injector.truth[0]
    assert (deed.record.n, deed.record.done, deed.record.detectable) == (5, True, True)
    assert deed.record.symbol == ("BTCUSDT" if kind == "stale_snapshot" else "")
    assert deed.record.expect == {"stale_snapshot": "resync", "http_429": "none", "http_418": "none"}.get(kind, "reconnect")


def test_what_hits_all_waits_for_all_and_is_not_overtaken() -> None:
    injector = Injector(1, spacing=2)
    for request in (FaultRequest("drop", frames=1), FaultRequest("disconnect"), FaultRequest("duplicate", symbol="ETHUSDT")):
        injector.ask(request)
    injector.run(DEPTHS, DEPTHS[-1][0])
    drop, disconnect, duplicate = injector.truth
    assert [record.kind for record in injector.truth] == ["drop", "disconnect", "duplicate"]
    assert drop.seen_n < disconnect.n < duplicate.n


@pytest.mark.parametrize(("kind", "kept"), [("drop", 0), ("reorder", 1), ("delay", 1)])
def test_what_hits_all_does_not_wait_forever(monkeypatch: pytest.MonkeyPatch, kind: Kind, kept: int) -> None:
    monkeypatch.setattr(faults, "WAITED_FRAMES_MAX", 6)
    frames = tape([(0, 0, 10), *[(1, 0, 1)] * 20])
    injector = Injector(1)
    injector.ask(FaultRequest(kind, symbol="BTCUSDT", ms=60_000 if kind == "delay" else None))
    injector.ask(FaultRequest("disconnect"))
    out = injector.run(frames, frames[-1][0])
    silent, disconnect = injector.truth
    assert (silent.done, silent.detectable, disconnect.done) == (False, False, True)
    assert [isinstance(item, Deed) for item in out].index(True) == 5 + kept
    assert only(out, "BTCUSDT") == frames[:1] * kept, "what was held is given back"


def test_an_answer_may_fail_while_a_stream_is_repaired() -> None:
    injector = Injector(1)
    for request in (FaultRequest("drop", frames=5), FaultRequest("http_429"), FaultRequest("stale_snapshot", symbol="BTCUSDT")):
        injector.ask(request)
    injector.run(DEPTHS[:1], DEPTHS[0][0])
    assert [record.kind for record in injector.truth] == ["drop", "http_429", "stale_snapshot"]


# Requests


@given(st.sampled_from(KINDS), st.integers(0, 1 << 32))
def test_what_is_not_stated_is_drawn(kind: Kind, seed: int) -> None:
    request = filled(FaultRequest(kind), random.Random(seed))
    assert request == filled(FaultRequest(kind), random.Random(seed))
    again = msgspec.convert(msgspec.to_builtins(request), FaultRequest)
    assert again == request, "and is in range"
    assert (request.frames is not None) == (kind == "drop") and (request.code is not None) == (kind == "disconnect")


def test_what_is_stated_stays() -> None:
    stated = FaultRequest("stall", symbol="BTCUSDT", ms=77, lost=False)
    assert filled(stated, random.Random(0)) == stated


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "drop", "frames": 0}, "expected frames of 1 to 5, found 0"),
        ({"kind": "delay", "ms": 60_001}, "expected ms of 1 to 60000, found 60001"),
        ({"kind": "drop", "symbol": "btcusdt"}, "in capitals"),
        ({"kind": "giant", "ms": 5}, "expected nothing beside kind 'giant', found 'ms'"),
        ({"kind": "reorder", "channel": "depth"}, "expected symbol beside kind 'reorder', found 'channel'"),
        ({"kind": "nothing"}, "nothing"),
        ({"kind": "disconnect", "code": 1000}, "1000"),
    ],
)
def test_a_request_out_of_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.convert(fields, FaultRequest)


def test_requests_that_wait_are_bounded() -> None:
    injector = Injector(1, every=1)
    for number in range(faults.ASKED_MAX):
        assert injector.ask(FaultRequest("drop", symbol="NOSUCH")) == number + 1
    with pytest.raises(FaultRefused, match="at most 1000"):
        injector.ask(FaultRequest("drop"))
    injector.run(DEPTHS, DEPTHS[-1][0])
    assert injector.waiting == faults.ASKED_MAX and injector.skipped > 0


@pytest.mark.parametrize("options", [{"every": -1}, {"spacing": -1}, {"kinds": ()}])
def test_an_injector_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Injector(1, **options)


def test_a_fault_is_written_down_before_it_is_done() -> None:
    injector = Injector(1, listeners=lambda stream: len(stream))
    injector.ask(FaultRequest("drop", frames=2))
    assert injector.run(DEPTHS[:1], DEPTHS[0][0]) == []
    assert [msgspec.json.decode(msgspec.json.encode(record)) for record in injector.truth] == [
        {
            **{"n": 1, "ts_ns": DEPTHS[0][0], "kind": "drop", "symbol": "BTCUSDT", "stream": "btcusdt@depth@100ms"},
            **{"detail": "frames 2", "expect": "gap", "detectable": False, "first": 101, "last": json.loads(DEPTHS[0][1])["data"]["u"]},
            **{"frames": 1, "seen_n": 0, "listeners": len("btcusdt@depth@100ms"), "done": False},
        }
    ]
