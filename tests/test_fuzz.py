"""A short run of the differential fuzz, what it has found so far as fixed cases, and that it would find a difference."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest

from alphapack.domain.inputs import Configure, CoreSettings, Frame
from alphapack.domain.market import BookState
from alphapack.kernels import marks as m
from alphapack.models.book import FEATURES
from rig import MS, START_NS, script

fuzz = script("fuzz")

LINES = 1_500
SPOT, NAME = "binance-spot", "XUSDT"
SYMBOL = f"{SPOT}:{NAME}"


def depth(first: int, last: int, bids: bytes = b"[]", asks: bytes = b"[]") -> bytes:
    return b'{"e":"depthUpdate","E":1700000000000,"s":"XUSDT","U":%d,"u":%d,"b":%b,"a":%b}' % (first, last, bids, asks)


def ticker(bid: bytes, ask: bytes, update: int = 4) -> bytes:
    return b'{"u":%d,"s":"XUSDT","b":%b,"B":"1.75","a":%b,"A":"2.55","E":1700000000000}' % (update, bid, ask)


class Engines:
    """Both engines on a LIVE book of two levels a side, at update 4."""

    def __init__(self) -> None:
        self.pair, self.now_ns = fuzz.Pair(), START_NS
        assert self.pair.step(Configure(0, self.now_ns, CoreSettings())) == ""
        self.take(depth(1, 2, b'[["10.10","1.5"]]'))
        self.take(b'{"lastUpdateId":2,"bids":[["10.10","1.5"],["10.00","1.25"]],"asks":[["10.20","2.55"],["10.31","3.00"]]}')
        self.take(depth(3, 4, b'[["10.10","1.75"]]'))
        assert self.state is BookState.LIVE

    @property
    def state(self) -> BookState:
        return self.pair.fast.microstructure._markets[SYMBOL].facts.state

    def take(self, payload: bytes, after_ns: int = MS) -> bool:
        """Let both take a frame and agree; tells whether it was taken in one call."""
        self.now_ns += after_ns
        frame = Frame(0, self.now_ns, SPOT, NAME, payload)
        assert self.pair.step(frame) == ""
        assert self.pair.embedded(frame) == ""
        assert self.pair.read() == ""
        return bool(self.pair.taken)


@pytest.fixture
def engines() -> Engines:
    return Engines()


@pytest.fixture
def rooms() -> Iterator[None]:
    with fuzz.cramped(Random(0)):
        yield


@pytest.mark.parametrize("number", [0, 3])
def test_mutated_recordings_leave_both_engines_alike(data: Path, number: int) -> None:
    outcome = fuzz.round_of(2, number, 2_500, LINES)
    assert outcome.difference == "", outcome.shown_by[-3:]
    counts = outcome.counts
    for what in ("valid", "mutated"):
        total = sum(n for name, n in counts.items() if name.startswith(f"{what}\t"))
        assert counts[f"{what}\ttaken in one call"] > 0.2 * total
        assert counts[f"{what}\tgeneral: accepted"] > 0
    assert counts["state\tLIVE"] > 0.7 * sum(n for name, n in counts.items() if name.startswith("state\t"))


def test_a_round_is_the_same_whenever_it_is_run(data: Path) -> None:
    assert fuzz.round_of(1, 1, 300, LINES) == fuzz.round_of(1, 1, 300, LINES)


@pytest.mark.parametrize("at", range(2))
def test_frames_cut_or_lengthened_anywhere_leave_both_engines_alike(data: Path, at: int) -> None:
    base = fuzz.Base(at, fuzz.recordings(LINES))
    statuses = set()
    for payload in islice(base.everywhere(), 0, None, 13):
        base.restore()
        assert base.take(payload) == "", payload
        statuses.add(base.pair.status())
    assert {"taken in one call", "general: accepted", "general: rejected"} <= statuses


@pytest.mark.parametrize("price", [b"true", b"10.1", b"10", b"0", b'"x"', b"null", b"{}"])
@pytest.mark.parametrize("update", [4, 5])
def test_a_ticker_whose_price_is_no_quoted_decimal_is_for_the_decoder(engines: Engines, price: bytes, update: int) -> None:
    assert not engines.take(ticker(price, b'"10.20"', update))
    assert not engines.take(ticker(b'"10.10"', price, update))
    engines.take(depth(5, 5))


def test_a_plain_ticker_is_taken_in_one_call(engines: Engines) -> None:
    assert engines.take(ticker(b'"10.10"', b'"10.20"'))
    assert engines.state is BookState.LIVE


@pytest.mark.parametrize("figures", [18, 19, 29, 30, 31, 32, 60])
@pytest.mark.parametrize("form", [b'"10.1%b"', b'"%b10.1"'])
def test_both_ways_take_numbers_of_the_same_length(engines: Engines, figures: int, form: bytes) -> None:
    engines.take(depth(5, 5, b'[[%b,"1.75"]]' % (form % (b"0" * (figures - 3)))))
    assert engines.pair.whole() == ""


def test_a_saved_state_does_not_tell_how_long_a_message_was(engines: Engines) -> None:
    levels = b",".join(b'["9.%03d","1.25"]' % i for i in range(1_100))
    for i in range(3):  # They leave the window, and remain in the ring.
        assert engines.take(b'{"e":"trade","E":1700000000000,"s":"XUSDT","t":%d,"p":"10.10","q":"0.25","m":true}' % i)
    engines.take(depth(5, 5, b"[%b]" % levels))
    assert engines.pair.whole(again=True) == ""
    engines.take(depth(6, 6, b"[%b]" % levels.replace(b"1.25", b"1.50")), after_ns=40_000 * MS)
    engines.take(depth(7, 7, b"[%b]" % levels))
    assert engines.pair.whole(again=True) == ""
    assert engines.take(depth(8, 8, b'[["10.10","2.00"]]'))


@pytest.mark.parametrize("side", [b"b", b"a", b"ba"])
def test_an_empty_side_may_be_the_first_that_is_said_of_a_symbol(side: bytes) -> None:
    pair, zero = fuzz.Pair(), b'"0.00000000"'
    prices = (zero if b"b" in side else b'"10.10"', zero if b"a" in side else b'"10.20"')
    for entry in (Configure(0, START_NS, CoreSettings()), Frame(0, START_NS, SPOT, "", ticker(*prices))):
        assert pair.step(entry) == ""
    assert pair.whole(again=True) == ""


@pytest.mark.usefixtures("rooms")
def test_no_message_is_lost_where_a_ring_grows(engines: Engines) -> None:
    for i in range(40):
        assert engines.take(depth(5 + i, 5 + i, b'[["10.10","%d.25"]]' % (i + 1)), after_ns=1)
    assert engines.pair.fast.microstructure._markets[SYMBOL].book.marks[m.DEPTHS_5S + 4] == 40
    assert engines.pair.whole(again=True) == ""


def test_a_difference_is_found_and_shortened_and_written(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lots = fuzz.GeneralBook.lots

    def wrong(book: object, quantity: bytes) -> int:
        return int(lots(book, quantity)) + (quantity == b'"0.00200000"')

    monkeypatch.setattr(fuzz.GeneralBook, "lots", wrong)
    outcome = fuzz.round_of(1, 0, 5_000, LINES)
    assert "differ" in outcome.difference
    assert len(outcome.shown_by) < 12 and fuzz.fails(outcome.shown_by)
    assert any(b'"0.00200000"' in path.read_bytes() for path in fuzz.written(outcome.shown_by, tmp_path))


def test_what_no_live_book_may_show_is_a_finding(engines: Engines) -> None:
    market = engines.pair.fast.microstructure._markets[SYMBOL]
    assert fuzz.implausible(market, engines.now_ns) == ""
    for name, value in (("obi", np.inf), ("obi", 1.5), ("mid", np.nan), ("ti", 0.0), ("microprice", 11.0), ("depth_bid", np.nan)):
        kept = market.row[FEATURES.index(name)]
        market.row[FEATURES.index(name)] = value
        assert fuzz.implausible(market, engines.now_ns) != "", name
        market.row[FEATURES.index(name)] = kept
