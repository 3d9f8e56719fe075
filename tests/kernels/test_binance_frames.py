"""The strict reader of Binance's frames against the general decoder: what it takes it reads alike, and it reads nothing outside."""

import gzip
import itertools
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.events import DepthDiff, FrameError, TopOfBook, Trade
from alphapack.domain.market import BinanceMarket, Step
from alphapack.jit import address
from alphapack.kernels import binance, wire
from alphapack.kernels import marks as m
from alphapack.models import steps
from alphapack.models.book import DECLINED, FeatureBook
from alphapack.venues.binance import BinanceCodec
from interpreted import Text, modules

MARKETS: tuple[BinanceMarket, ...] = ("spot", "usdm", "coinm")
KINDS = {"depthUpdate": binance.DEPTH, "trade": binance.TRADE, "aggTrade": binance.AGGREGATE, "bookTicker": binance.TICKER}
FINE = Step(1, 8)
"""A step on which every number of every venue lies."""
NOW_NS = 1_723_161_300 * m.NS_PER_S
NUMBERS = ("E", "T", "U", "u", "t", "f", "l", "m", "p", "q", "B", "A", "b", "a", "pu")

interpreted: Any = modules()["binance"]


CODECS = {market: BinanceCodec(market) for market in MARKETS}


TICK, LOT = Step(1, 2), Step(1, 3)


def opened(market: BinanceMarket, name: str = "BTCUSDT", tick: Step = TICK, lot: Step = LOT) -> FeatureBook:
    """Return a LIVE book at update 10 that listens to this name."""
    one = FeatureBook(tick, lot, CODECS[market].contract_value(name))
    one.listen(name, CODECS[market].frame_format)
    one.snapshot(b'[["100.00","2"],["99.00","3"]]', b'[["101.00","1"],["102.00","5"]]')
    one.start(NOW_NS)
    one.last_update, one.live = 10, True
    return one


def field(one: FeatureBook, key: str) -> int:
    return int(one.marks[m.FIELDS + (binance.PREVIOUS if key == "pu" else ord(key))])


def in_scratch(one: FeatureBook, side: int) -> list[tuple[int, int]] | None:
    """Return the levels that were read, as (ticks, lots); None where there was no list."""
    n, room = int(one.marks[m.BIDS_N + side]), int(one.marks[m.SCRATCH + 1])
    at = int(one.marks[m.SCRATCH]) + 2 * room * side
    keys, lots = one.marks[at : at + n].tolist(), one.marks[at + room : at + room + n].tolist()
    return [((-1 if side else 1) * key, size) for key, size in zip(keys, lots, strict=True)] if n >= 0 else None


def counted(raw: bytes, step: Step | None) -> int:
    """Return a number in steps, by the exact and slow way; one that is off the grid is refused."""
    assert step is not None
    found = steps.multiple(steps.single(raw), step)
    if found is None:
        raise FrameError("off the grid")
    return found


def meaning(market: BinanceMarket, raw: bytes, one: FeatureBook) -> dict[str, Any]:
    """Return all that a frame says by the general decoder, as the fields of the reader; raises ``FrameError``."""
    (event,) = CODECS[market].decode(raw, "")
    if isinstance(event, DepthDiff):
        sides = [
            [(int(Fraction(price) / one.tick.size), int(Fraction(lots) / one.lot.size)) for price, lots in steps.pairs(side)]
            for side in (event.bids, event.asks)
        ]
        previous = -1 if event.previous is None else event.previous
        return {"s": event.symbol, "U": event.first, "u": event.last, "pu": previous, "ns": event.venue_ns, "b": sides[0], "a": sides[1]}
    if isinstance(event, Trade):
        ids = {"t": event.last_id}
        if event.aggregate:
            ids = {"a": event.aggregate_id, "f": event.first_id, "l": event.last_id}
        numbers = {"p": counted(event.price, one.tick), "q": counted(event.quantity, one.lot)}
        return {"s": event.symbol, "m": int(not event.buyer_is_taker), "ns": event.venue_ns, **ids, **numbers}
    assert isinstance(event, TopOfBook), event
    tops = {"b": counted(event.bid, one.tick), "B": counted(event.bid_quantity, one.lot)}
    tops |= {"a": counted(event.ask, one.tick), "A": counted(event.ask_quantity, one.lot)}
    return {"s": event.symbol, "u": event.update, "ns": event.venue_ns, **tops}


def read(one: FeatureBook, raw: bytes) -> int:
    return int(binance.read(address(raw), 0, len(raw), one.marks))


def check(market: BinanceMarket, one: FeatureBook, raw: bytes) -> int:
    """Hold what the reader says of a frame against the general decoder; returns its kind."""
    kind = read(one, raw)
    if kind < 0:
        assert kind == wire.UNFAMILIAR
        return kind
    fields = {key: field(one, key) for key in NUMBERS}
    fields |= {key: levels for side, key in enumerate("ba") if (levels := in_scratch(one, side)) is not None}
    try:
        wanted = meaning(market, raw, one)
    except FrameError:
        before = one.save()
        assert one.frame(NOW_NS, raw) == DECLINED, f"taken, but the decoder refuses {raw!r}"
        assert one.save() == before
        return kind
    assert wanted.pop("s") == f"binance-{market}:BTCUSDT"
    time = fields["E"] if kind not in (binance.TRADE, binance.AGGREGATE) or fields["T"] <= 0 else fields["T"]
    assert wire.nanos(max(time, 0)) == wanted.pop("ns")
    if {key: fields[key] for key in wanted} != wanted:  # What it did not read it must not take either.
        before = one.save()
        assert one.frame(NOW_NS, raw) == DECLINED, f"taken otherwise than read by the decoder: {raw!r} {fields} {wanted}"
        assert one.save() == before
    return kind


def check_reads(one: FeatureBook, raw: bytes) -> None:
    """Read once more with every read watched, and with other frames around, which change nothing."""
    kind, found = read(one, raw), one.marks[m.BIDS_N : m.MARKS].tolist()
    scratch = [in_scratch(one, 0), in_scratch(one, 1)]
    assert interpreted.read(Text(raw), 0, len(raw), one.marks) == kind
    assert one.marks[m.BIDS_N : m.MARKS].tolist() == found or kind < 0
    for around in (b'","X":"', b"00000000}", b'"@depth5'):
        text = around + raw + around[::-1] * 8
        assert binance.read(address(text), len(around), len(around) + len(raw), one.marks) == kind
        if kind >= 0:
            assert one.marks[m.BIDS_N : m.MARKS].tolist() == found and [in_scratch(one, 0), in_scratch(one, 1)] == scratch


# Frames as the venues send them

HEAD = b'"E":1723161256299,"s":"BTCUSDT"'
TOP = b'"s":"BTCUSDT","b":"100.00","B":"2.000","a":"101.00","A":"1.000"'
DEPTH = b'{"e":"depthUpdate",' + HEAD + b',"U":11,"u":12,"b":[["100.10","1.500"],["99.00","0"]],"a":[["101.00","2.125"]]}'
DEPTH_FUTURES = (
    b'{"e":"depthUpdate","T":1723161256298,' + HEAD + b',"ps":"BTCUSD","st":1,"U":11,"u":12,"pu":10,"b":[],"a":[["101.00","2.125"]]}'
)
TRADE = b'{"e":"trade",' + HEAD + b',"t":3735683259,"p":"101.00","q":"0.020","T":1723161255342,"m":true,"M":true}'
TRADE_FUTURES = b'{"e":"trade","T":1723161256322,' + HEAD + b',"t":5266583935,"p":"101.00","q":"0.006","X":"MARKET","m":false}'
AGGREGATE = b'{"e":"aggTrade",' + HEAD + b',"a":408202367,"p":"101.00","q":"0.008","f":448745700,"l":448745703,"T":1604221200090,"m":false}'
TICKER = b'{"u":50093239212,' + TOP + b"}"
TICKER_FUTURES = b'{"e":"bookTicker","u":5123107839020,' + TOP + b',"T":1723161256313,"E":1723161256313}'
FRAMES: tuple[tuple[BinanceMarket, bytes], ...] = (
    ("spot", DEPTH),
    ("usdm", DEPTH_FUTURES),
    ("spot", TRADE),
    ("coinm", TRADE_FUTURES),
    ("spot", AGGREGATE),
    ("spot", TICKER),
    ("usdm", TICKER_FUTURES),
)


def wrapped(raw: bytes, stream: bytes = b"btcusdt@depth@100ms") -> bytes:
    return b'{"stream":"' + stream + b'","data":' + raw + b"}"


def members(raw: bytes) -> list[tuple[str, bytes]]:
    """Return the keys of a frame with their values as they stand there."""
    return [(key, json.dumps(value, separators=(",", ":")).encode()) for key, value in json.loads(raw).items()]


def joined(found: list[tuple[str, bytes]]) -> bytes:
    return b"{" + b",".join(b'"%b":%b' % (key.encode(), value) for key, value in found) + b"}"


@pytest.mark.parametrize(("market", "raw"), FRAMES)
def test_every_kind_is_read_and_so_is_what_it_says(market: BinanceMarket, raw: bytes) -> None:
    one = opened(market)
    kind = KINDS.get(json.loads(raw).get("e"), binance.TICKER)
    assert check(market, one, raw) == check(market, one, wrapped(raw)) == kind
    wanted = meaning(market, raw, one)
    del wanted["s"], wanted["ns"]
    for key, value in wanted.items():
        assert (in_scratch(one, "ba".index(key)) if isinstance(value, list) else field(one, key)) == value, key
    for text in (raw, wrapped(raw)):
        check_reads(one, text)


CAPTURES = (
    ("binance-spot_BTCUSDT_20240808T2354", {"depthUpdate", "trade", "bookTicker"}),
    ("binance-spot_ETHBTC_20201101T09", {"depthUpdate", "aggTrade"}),
    ("binance-spot_NKNUSDT_20211012", {"depthUpdate", "aggTrade", "bookTicker"}),
    ("binance-usdm_BTCUSDT_20240808T2354", {"depthUpdate", "trade", "bookTicker"}),
    ("binance-coinm_ETHUSD_PERP_20240808T2354", {"depthUpdate", "trade", "bookTicker"}),
)


@pytest.mark.parametrize(("capture", "kinds"), CAPTURES)
def test_every_market_message_of_a_recording_is_read_as_the_decoder_reads_it(data: Path, capture: str, kinds: set[str]) -> None:
    market, name = capture.removeprefix("binance-").partition("_")[::2]
    name = name.rpartition("_")[0]
    one = FeatureBook(FINE, FINE, None)
    one.listen(name, CODECS[market].frame_format)  # type: ignore[index]
    seen: Counter[str] = Counter()
    with gzip.open(data / "captures" / f"{capture}.raw.gz") as lines:
        for line in itertools.islice(lines, 3_000):
            raw = line.rstrip(b"\n").partition(b" ")[2]
            message = json.loads(raw).get("data", json.loads(raw))
            what = message.get("e", "bookTicker" if "B" in message else "snapshot")
            seen[what] += 1
            assert read(one, raw) == KINDS.get(what, wire.UNFAMILIAR), raw
            if what in KINDS and seen[what] <= 300:
                wanted = meaning(market, raw, one)  # type: ignore[arg-type]
                assert wanted.pop("s") == f"binance-{market}:{name}"
                assert wire.nanos(max(field(one, "T") if "rade" in what else field(one, "E"), 0)) == wanted.pop("ns")
                for key, value in wanted.items():
                    assert (in_scratch(one, "ba".index(key)) if isinstance(value, list) else field(one, key)) == value, (key, raw)
            if seen[what] <= 3 and len(raw) < 5_000:
                check_reads(one, raw)
    assert kinds <= set(seen) and "snapshot" in seen


def test_published_samples_are_read_alike_or_left_to_the_decoder(data: Path) -> None:
    with gzip.open(data / "captures" / "wire_samples.jsonl.gz", "rt") as lines:
        samples = [json.loads(line) for line in lines]
    found = 0
    for sample in samples:
        if sample["venue"] == "binance":
            name = sample["message"].get("s", "BTCUSDT")
            one = opened("usdm", name if isinstance(name, str) else "BTCUSDT", FINE, FINE)
            for message in (sample["message"], sample["message"].get("data", {})):
                raw = json.dumps(message, separators=(",", ":")).encode()
                kind = read(one, raw)
                check_reads(one, raw)
                if kind >= 0:
                    found += 1
                    assert kind == KINDS[message["e"]] and meaning("usdm", raw, one)["s"] == f"binance-usdm:{name}"
                assert kind < 0 or message.get("e") in KINDS
    assert found > 0


# Not quite as the venues send them


@pytest.mark.parametrize(("market", "raw"), FRAMES)
def test_a_truncated_frame_is_never_taken_and_nothing_beyond_it_is_read(market: BinanceMarket, raw: bytes) -> None:
    one = opened(market)
    for whole in (raw, wrapped(raw)):
        for end in range(len(whole)):
            assert read(one, whole[:end]) < 0
            for cut in (whole[:end], whole[:end] + b"}", whole[:end] + b'"}', whole[:end] + b"}}", b" " * 64 + whole[:end] + b"}"):
                check(market, one, cut)
                check_reads(one, cut)


BYTES = (b'"', b",", b":", b"}", b"{", b"[", b"]", b" ", b"0", b"-", b".", b"\\", b"e", b"\x80", b"\xfd", b"\x00", b"\n", b"@")


@pytest.mark.parametrize(("market", "raw"), FRAMES)
def test_a_frame_with_any_byte_changed_is_read_as_the_decoder_does_or_not_at_all(market: BinanceMarket, raw: bytes) -> None:
    one = opened(market)
    taken = 0
    for at in range(len(raw)):
        variants = [raw[:at] + raw[at + 1 :], raw[:at] + raw[at : at + 1] + raw[at:]]
        for byte in BYTES:
            variants += [raw[:at] + byte + raw[at + 1 :], raw[:at] + byte + raw[at:]]
        for i, variant in enumerate(variants):
            taken += check(market, one, variant) >= 0
            check(market, one, wrapped(variant))
            if i % 7 == at % 7:
                check_reads(one, variant)
    assert taken > len(raw) / 4, "digits may change without harm"


@pytest.mark.parametrize("space", [b" ", b"\t", b"\n"])
def test_whitespace_between_tokens_is_for_the_decoder(space: bytes) -> None:
    one = opened("spot")
    for raw in (DEPTH, wrapped(DEPTH)):
        quotes = 0
        for at in range(len(raw) + 1):
            if quotes % 2 == 0:
                assert read(one, raw[:at] + space + raw[at:]) == wire.UNFAMILIAR, at
            quotes += raw[at : at + 1] == b'"'


@settings(max_examples=60)
@given(st.sampled_from(FRAMES), st.randoms(use_true_random=False), st.booleans())
def test_keys_come_in_any_order(frame: tuple[BinanceMarket, bytes], chance: Any, wrap: bool) -> None:
    market, raw = frame
    one, found = opened(market), members(raw)
    kind = check(market, one, raw)
    chance.shuffle(found)
    shuffled = joined(found)
    assert check(market, one, wrapped(shuffled) if wrap else shuffled) in (kind, wire.UNFAMILIAR)
    roomy = joined([*found, ("Z", b'"' + b"." * 64 + b'"')])  # With room behind, nothing stands too near the end.
    assert check(market, one, wrapped(roomy) if wrap else roomy) == kind


@pytest.mark.parametrize(("market", "raw"), FRAMES)
def test_a_key_that_comes_twice_is_for_the_decoder(market: BinanceMarket, raw: bytes) -> None:
    found = members(raw)
    for key, value in found:
        if key in ("ps", "st"):
            continue  # Nobody asks for it.
        for at in range(len(found) + 1):
            assert read(opened(market), joined([*found[:at], (key, value), *found[at:]])) == wire.UNFAMILIAR, key


@pytest.mark.parametrize(("market", "raw"), FRAMES)
@pytest.mark.parametrize("key", ["c", "k", "g", "z", "1", "_", "e2", "sp", "px", "stream", "data", "lastUpdateId", "", "é", "\x01"])
def test_unknown_keys_are_for_the_decoder(market: BinanceMarket, raw: bytes, key: str) -> None:
    found = members(raw)
    for value in (b"1", b'"x"', b"true"):
        for at in (0, 2, len(found)):
            assert read(opened(market), joined([*found[:at], (key, value), *found[at:]])) == wire.UNFAMILIAR


@pytest.mark.parametrize(("market", "raw"), FRAMES)
@pytest.mark.parametrize("key", ["X", "N", "Z", "R"])
def test_capitals_that_a_venue_adds_say_nothing(market: BinanceMarket, raw: bytes, key: str) -> None:
    one, found = opened(market), members(raw)
    if any(known == key for known, _ in found):
        return
    kind = read(one, raw)
    fields = one.marks[m.FIELDS : m.MARKS].tolist()
    for value in (b"1", b"0", b'""', b'"MARKET"', b'"LONGER THAN A WORD"', b"true", b"false"):
        for at in range(len(found) + 1):
            variant = joined([*found[:at], (key, value), *found[at:]])
            if check(market, one, variant) != kind:
                assert at == len(found), "all but what stands at the very end is read"
                continue
            got = one.marks[m.FIELDS : m.MARKS].tolist()
            got[ord(key)] = fields[ord(key)]
            assert got == fields
    for value in (b"1.5", b"-1", b"null", b"[]", b"{}", b'"\\u0041"', b'"\xc3\xa9"', b"01", b"tru", b'"open'):
        assert check(market, one, joined([found[0], (key, value), *found[1:]])) == wire.UNFAMILIAR


VALUES = (
    *(b'"100.00"', b'"1.5"', b'"0"', b'"0.00"', b'"1.005"', b'"1e2"', b'"x"', b'""', b'" 1"', b'"-1"', b'"1,5"', b'"5000000000000000000"'),
    *(b"100", b"1.5", b"15", b"0", b"007", b"-1", b"1e3", b"true", b"false", b"null", b"[]", b"{}", b'[["1.5","2"]]'),
    *(b'[["100.5","2"],["99","0"]]', b'[["1.5",2]]', b"[[]]", b'[["0","2"]]', b'"BTCUSDT"', b'"btcusdt"', b'"BTCUSD"', b'"BTCUSDTX"'),
    *(b'"trade"', b'"depthUpdate"', b'"bookTicker"', b'"aggTrade"', b'"kline"', b'"tradeX"', b'"\\u0074rade"', b"9007199254740993"),
    *(b"999999999999999999", b"1000000000000000000", b"9223372036854775807", b"1723161256299", b"1723161256299000", b"99999999999999999"),
    *(b"10", b"11", b"12", b"2147483648", b'"1723161256299"', b'"1.' + b"0" * 40 + b'"'),
)
KEYS = ["e", "E", "T", "s", "U", "u", "pu", "b", "a", "B", "A", "t", "f", "l", "p", "q", "m", "M", "X", "ps", "st", "k", "lastUpdateId"]


@settings(max_examples=600)
@given(st.sampled_from(FRAMES), st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES), st.booleans()), min_size=1, max_size=3))
def test_frames_with_other_values_are_read_as_the_decoder_does_or_not_at_all(
    frame: tuple[BinanceMarket, bytes], changes: list[tuple[str, bytes, bool]]
) -> None:
    market, raw = frame
    found = dict(members(raw))
    for key, value, drop in changes:
        found[key] = value
        if drop:
            del found[key]
    one = SHARED[market]
    text = joined(list(found.items()))
    check(market, one, text)
    check(market, one, wrapped(text))
    check_reads(one, text)


@pytest.mark.parametrize(("market", "raw"), FRAMES)
def test_each_key_with_each_value_is_read_as_the_decoder_does_or_not_at_all(market: BinanceMarket, raw: bytes) -> None:
    one, found = SHARED[market], dict(members(raw))
    for key, value in itertools.product(KEYS, VALUES):
        check(market, one, joined(list((found | {key: value}).items())))
    for key in found:
        check(market, one, joined([(other, value) for other, value in found.items() if other != key]))


SHARED = {market: opened(market) for market in MARKETS}
"""They take nothing in these tests: what is compared is what was read."""


# Wrappers and names


@pytest.mark.parametrize("before", range(26))
@pytest.mark.parametrize("depth", [b"@depth5", b"@depth10", b"@depth20@100ms", b"@depth5@0ms"])
def test_streams_of_partial_depth_are_declined_wherever_they_say_so(before: int, depth: bytes) -> None:
    stream = b"abcdefgh@jklmnopqrst@vwxyz"[:before] + depth
    raw = wrapped(DEPTH, stream)
    one = opened("spot")
    assert read(one, raw) == wire.UNFAMILIAR
    check_reads(one, raw)
    whole = stream[: before + 6]
    for other in (stream.replace(b"@depth", b"@dept"), whole, whole + b"@100ms", stream.replace(b"@depth", b"@depth@")):
        assert read(one, wrapped(DEPTH, other)) == binance.DEPTH
        check_reads(one, wrapped(DEPTH, other))


@pytest.mark.parametrize(
    "stream", [b"", b"x", b"\\u0040depth5", b'"', b"a\\", b"\xc3\xa9", b"}", b"\x1f", b"tab\t", b"a" * 7, b"a" * 8, b"a" * 500]
)
def test_a_stream_name_is_plain_text_or_for_the_decoder(stream: bytes) -> None:
    one = opened("spot")
    plain = all(32 <= byte < 125 and byte not in b'"\\' for byte in stream)
    assert read(one, wrapped(DEPTH, stream)) == (binance.DEPTH if plain else wire.UNFAMILIAR)
    check_reads(one, wrapped(DEPTH, stream))


@pytest.mark.parametrize("n", range(50, 80))
def test_a_wrapper_that_ends_early_is_read_no_further(n: int) -> None:
    one, whole = opened("spot"), wrapped(DEPTH, b"a" * n)
    for end in range(11 + n, len(whole)):
        for cut in (whole[:end] + b"}", whole[:end] + b"}}", whole[:end] + b'"}}'):
            assert read(one, cut) == interpreted.read(Text(cut), 0, len(cut), one.marks)
    for stream in (b"@" * n, b"a" * n + b"@depth", b"a" * n + b"@depth1"):
        for cut in (b'{"stream":"' + stream + b'"}', b'{"stream":"' + stream + b'","data":{}}', b'{"stream":"' + stream + b'","data"}'):
            assert read(one, cut) == interpreted.read(Text(cut), 0, len(cut), one.marks) == wire.UNFAMILIAR


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw: wrapped(wrapped(raw)),
        lambda raw: b'{"data":' + raw + b',"stream":"x@depth"}',
        lambda raw: b'{"stream":"x@depth","data":[' + raw + b"]}",
        lambda raw: b'{"stream":"x@depth","data":' + raw + b',"id":1}',
        lambda raw: b'{"stream":"x@depth","date":' + raw + b"}",
        lambda raw: b'{"stream":"x@depth","data" :' + raw + b"}",
        lambda raw: wrapped(raw) + b"}",
        lambda raw: wrapped(raw[:-1]),
        lambda raw: raw + raw,
        lambda raw: b"[" + raw + b"}",
        lambda raw: raw[:-1] + b",}",
        lambda raw: raw[:-1] + b"}}",
    ],
)
def test_other_wrappers_are_for_the_decoder(wrap: Any) -> None:
    for market, raw in FRAMES:
        one = opened(market)
        assert read(one, wrap(raw)) == wire.UNFAMILIAR
        check_reads(one, wrap(raw))


@pytest.mark.parametrize("n", range(1, m.NAME_MAX + 1))
def test_the_name_is_the_books_own_to_the_last_letter(n: int) -> None:
    name = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789abcdef"[:n]
    one = opened("spot", name)
    frame = TICKER.replace(b"BTCUSDT", b"%b")
    own = frame.replace(b"%b", name.encode())
    assert read(one, own) == binance.TICKER
    check_reads(one, own)
    others = [name[:-1], name + "X", name + "\0", name[:-1] + "#", "#" + name[1:], name[: n // 2] + "#" + name[n // 2 + 1 :], ""]
    for other in others:
        assert read(one, frame.replace(b"%b", other.encode())) == wire.UNFAMILIAR, other


def test_a_book_whose_name_is_no_plain_word_takes_nothing() -> None:
    for name in ("X" * 41, "BTC-USDT", "币安", "A B", 'A"B', ""):
        one = FeatureBook(Step(1, 2), Step(1, 3), None)
        one.listen(name, wire.BINANCE_SPOT)
        one.snapshot(b'[["100.00","2"]]', b'[["101.00","1"]]')
        one.start(NOW_NS)
        one.last_update, one.live = 10, True
        assert not one.live
        assert one.frame(NOW_NS, TICKER.replace(b"BTCUSDT", name.encode())) == DECLINED


def test_more_levels_than_the_scratch_holds_are_for_the_decoder() -> None:
    one = opened("spot")
    room = int(one.marks[m.SCRATCH + 1])
    for n, wanted in ((room, binance.DEPTH), (room + 1, wire.UNFAMILIAR)):
        many = b",".join(b'["%d.00","1"]' % (200 + i) for i in range(n))
        assert read(one, DEPTH.replace(b'["101.00","2.125"]', many)) == wanted
