"""Differential fuzz: the one-call path of frames against the general decoder, on the same hostile inputs.

    python bench/fuzz.py --frames 1000000 --seed 1 [--processes 2]
    python bench/fuzz.py --guided 600

Two engines live through the same inputs. One is as it ships. In the other no frame is taken by the kernel, and every number is read
by the general decoder. After each frame both must have returned the same records, hold the same state bit for bit, and serve the same
features; a difference ends the run, and the shortest prefix of inputs that shows it is written as a recording.

The first form mutates recorded frames, by seed. The second lets the coverage of the interpreted kernels guide the bytes of one frame
on a LIVE book; it needs ``atheris``, which nothing else needs.
"""

import argparse
import contextlib
import gzip
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FrameType, FunctionType
from typing import NamedTuple

import msgspec
import numpy as np
from rich.progress import Progress

from alphapack import app, jit
from alphapack.domain.events import Record, WorkRequested
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Frame, Heartbeat, InstrumentSettings, Result, SessionStart, Shed
from alphapack.domain.market import BookState, Step
from alphapack.engine.engine import Engine
from alphapack.kernels import binance
from alphapack.kernels import marks as m
from alphapack.models import book, microprice, steps
from alphapack.models.book import FEATURES, FeatureBook
from alphapack.services.microstructure import MICROPRICE, Market

PROJECT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ALPHAPACK_DATA") or PROJECT.parent / "shared" / "data")

RECORDINGS = (  # The share of the mid within which levels are kept: small books make many frames a second.
    ("binance-usdm", "BTCUSDT", "binance-usdm_BTCUSDT_20240808T2354", 0.0003),
    ("binance-spot", "BTCUSDT", "binance-spot_BTCUSDT_20240808T2354", 0.0004),
    ("binance-spot", "ETHUSDT", "binance-spot_ETHUSDT_20240808T2354", 0.001),
    ("binance-coinm", "ETHUSD_PERP", "binance-coinm_ETHUSD_PERP_20240808T2354", 0.002),
    ("binance-spot", "ETHBTC", "binance-spot_ETHBTC_20201101T09", 0.004),
    ("binance-spot", "NKNUSDT", "binance-spot_NKNUSDT_20211012", 0.05),
)
TRADES = "binance-spot_BTCUSDT_trades_20201101T09"
LINES = 10_000
"""Lines read of each recording; then it begins again, with other ids."""
TICKERS_EVERY = 8
"""Of so many tickers one is kept: recordings have little else."""
FOREIGN_LINES = 300
WEIGHTS = (4, 3, 3, 4, 3, 2)
ROUND_FRAMES = (20_000, 5_000, 5_000)
"""Long rounds fill long windows; every round begins with nothing known."""
START_NS = 1_700_000_000_000_000_000
MUTATED = 0.5
NEWCOMERS = 0.01
SNAPSHOT_LEVELS = 15
SAVE_EVERY = 499
READ_EVERY = 50
EMBED_EVERY = 3
SHORTEN_S = 120.0
MS, S = 1_000_000, 1_000_000_000

UPDATE_IDS, TRADE_IDS = frozenset(b"U u pu".split()), frozenset(b"t f l".split())
Levels = dict[bytes, bytes]

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_levels = msgspec.json.Decoder(list[tuple[str, str]])


# Recorded messages


class Message(NamedTuple):
    """A venue's message as the fields it was written with; ``stream`` is empty where there was no wrapper."""

    stream: bytes
    fields: tuple[tuple[bytes, bytes], ...]

    def value(self, key: bytes) -> bytes:
        return next((value for one, value in self.fields if one == key), b"")

    def put(self, **values: bytes) -> "Message":
        """Return the message with other values of keys that it has."""
        return Message(self.stream, tuple((key, values.get(key.decode("latin1"), value)) for key, value in self.fields))

    def render(self) -> bytes:
        body = b"{%b}" % b",".join([b'"%b":%b' % field for field in self.fields])
        return b'{"stream":%b,"data":%b}' % (self.stream, body) if self.stream else body


def message(payload: bytes) -> Message:
    fields = _object.decode(payload)
    stream = b""
    if "stream" in fields and "data" in fields:
        stream, fields = bytes(fields["stream"]), _object.decode(fields["data"])
    return Message(stream, tuple((key.encode(), bytes(value)) for key, value in fields.items()))


def rendered(levels: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"[%b]" % b",".join([b'["%b","%b"]' % level for level in levels])


class Recording(NamedTuple):
    """A symbol's snapshot and the messages that follow it without a gap, near the touch alone."""

    venue: str
    name: str
    last: int
    bids: Levels
    asks: Levels
    messages: tuple[Message, ...]


def lines_of(name: str, count: int) -> list[bytes]:
    with gzip.open(DATA / "captures" / f"{name}.raw.gz") as stream:
        return [line.rstrip(b"\n").split(b" ", 1)[1] for line in itertools.islice(stream, count)]


@cache
def recording(venue: str, name: str, file: str, share: float, count: int) -> Recording:
    """Read the beginning of a capture; a difference is kept from the first that the snapshot links up with."""
    found = [message(line) for line in lines_of(file, count)]
    at = next(i for i, one in enumerate(found) if one.value(b"lastUpdateId"))
    last = int(found[at].value(b"lastUpdateId"))
    sides = [[(price.encode(), size.encode()) for price, size in _levels.decode(found[at].value(key))] for key in (b"bids", b"asks")]
    mid = (float(sides[0][0][0]) + float(sides[1][0][0])) / 2

    def near(levels: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [(price, size) for price, size in levels if abs(float(price) / mid - 1) < share]

    kept, tickers = [], 0
    for one in found:
        update = int(one.value(b"u") or -1)
        if one.value(b"lastUpdateId") or -1 < update <= last:
            continue
        if one.value(b"e") == b'"depthUpdate"':
            one = one.put(
                **{key: rendered(near((p.encode(), q.encode()) for p, q in _levels.decode(one.value(key.encode())))) for key in "ba"}
            )
        elif update >= 0:
            tickers += 1
            if tickers % TICKERS_EVERY:
                continue
        kept.append(one)
    return Recording(venue, name, last, dict(near(sides[0])), dict(near(sides[1])), tuple(kept))


@cache
def recordings(count: int) -> tuple[Recording, ...]:
    return tuple(recording(*one, count) for one in RECORDINGS)


@cache
def foreign() -> tuple[bytes, ...]:
    """Frames of streams and venues that these books are not fed by."""
    found = []
    for path in sorted((DATA / "captures").glob("*.raw.gz")):
        if not path.name.startswith("binance"):
            found += lines_of(path.name.removesuffix(".raw.gz"), FOREIGN_LINES)
    with gzip.open(DATA / "captures" / "wire_samples.jsonl.gz") as stream:
        found += [json.dumps(json.loads(line)["message"], separators=(",", ":")).encode() for line in stream]
    found += lines_of(TRADES, FOREIGN_LINES)
    return tuple(line for line in found if len(line) < 10_000)


class Feed:
    """A recording without end, and the true book that it tells of."""

    def __init__(self, recorded: Recording, others: Sequence[Recording]) -> None:
        self.recorded, self.others = recorded, others
        self.venue, self.name = recorded.venue, recorded.name
        self.symbol = f"{self.venue}:{self.name}"
        self.at = self.shift = self.trades_shift = self.trade = self.aggregate = 0
        self.calm = True
        """Whether mutations that change what is said are kept away, so that long windows fill."""
        self.syncing = 0
        """Frames since the book was last proven."""
        self.owed: Message | None = None
        """The difference that was last sent mutated."""
        self._rewind()

    def _rewind(self) -> None:
        self.at, self.last = 0, self.recorded.last + self.shift
        self.sides = {b"b": dict(self.recorded.bids), b"a": dict(self.recorded.asks)}

    def following(self) -> Message:
        """Return the next message of the chain."""
        if self.at == len(self.recorded.messages):
            self.shift += 10_000_000_000
            self.trades_shift = self.trade + 1_000 - min(self._trade_ids())
            self._rewind()
        found = self.recorded.messages[self.at]
        self.at += 1
        if self.shift:
            found = Message(found.stream, tuple((key, self._shifted(key, value)) for key, value in found.fields))
        if found.value(b"e") == b'"depthUpdate"':
            self.last = int(found.value(b"u"))
            for key, side in self.sides.items():
                for price, size in _levels.decode(found.value(key)):
                    if float(size) > 0:
                        side[price.encode()] = size.encode()
                    else:
                        side.pop(price.encode(), None)
        self.trade = max(self.trade, int(found.value(b"t") or found.value(b"l") or 0))
        if found.value(b"a").isdigit():
            self.aggregate = int(found.value(b"a"))
        return found

    def near(self, chance: random.Random) -> Message:
        """Return a message from shortly before or after this place of the recording, as it was recorded."""
        return self.recorded.messages[min(max(0, self.at - chance.randrange(-3, 40)), len(self.recorded.messages) - 1)]

    def _trade_ids(self) -> list[int]:
        return [int(one.value(b"t") or one.value(b"f")) for one in self.recorded.messages if one.value(b"t") or one.value(b"f")] or [0]

    def _shifted(self, key: bytes, value: bytes) -> bytes:
        if key in UPDATE_IDS:
            return b"%d" % (int(value) + self.shift)
        return b"%d" % (int(value) + self.trades_shift) if key in TRADE_IDS or (key == b"a" and value.isdigit()) else value

    def snapshot(self) -> Message:
        bids = sorted(self.sides[b"b"].items(), key=lambda level: -float(level[0]))[:SNAPSHOT_LEVELS]
        asks = sorted(self.sides[b"a"].items(), key=lambda level: float(level[0]))[:SNAPSHOT_LEVELS]
        return Message(b"", ((b"lastUpdateId", b"%d" % self.last), (b"bids", rendered(bids)), (b"asks", rendered(asks))))


# Mutations

Chance = random.Random
Change = Callable[[Message, Chance, Feed], Message]
Damage = Callable[[bytes, Chance], bytes]

_QUOTED = re.compile(rb'"(\d+(?:\.\d+)?)"')
_DIGITS = re.compile(rb"\d+")
_JOINT = re.compile(rb"[,:{}\[\]]")
_TEXT = re.compile(rb'"([A-Za-z@_0-9.]+)"')
LARGE = b"4503599627370496 4503599627370497 9007199254740993 9223372036854775807 9223372036854775808 18446744073709551616".split()
IDS = [*b'0 -1 -0 5.0 1e3 "7" null true 00 [] 999999999999999999 1000000000000000000'.split(), *LARGE, b"9" * 19, b"9" * 30]
TIMES = [
    *b"0 -1 1 9000000000000 9000000000001 99999999999999 100000000000000 3999999999999999 4000000000000000".split(),
    *b'1723161255030314 "1723161255030" 1.5 1723161255030.0 null 999999999999999999 99999999999999999999'.split(),
]
NUMBERS = [
    *b"0 0.0 1e3 .5 NaN Infinity 1_000 \xd9\xa1 0x1F 1,5 null 1e999 1e-30 0.00000001 99999999.99999999 0.000000000000000001".split(),
    *LARGE,
    b"",
]
"""One of them is a digit of another script."""
VALUES = b'null true false 0 1 "" "x" [] {} -1 1.5 [[]] [["1","1"]] "1" tru nul'.split()
PLAIN = b'"MARKET" 123 true false "" 0'.split()
ODD = [*VALUES, *b'12345678901234567890 {"a":[1,{}]} "\\u00e9" "\xc3\xa9" "}" "a\\"b"'.split()]
KEYS = [*b"X M N C Z V ps pp st nf i p \xd0\xba\xd0\xbb \\u0058".split(), b"", b"longer key"]
LISTS = b"[ ] [[]] []] [[],[]] [,]".split()
KINDS = [*b"depthUpdate trade aggTrade bookTicker kline 24hrTicker Trade depthUpdat depthUpdatee".split(), b"", b"trade "]
STREAMS = [
    *b"@depth5 @depth10@100ms @depth20 @depth @depth@100ms @depth50 @depth5x @bookTicker @dep\\u0074h5 @\xc3\xa9 @\xff \\n".split(),
    *b'x@depth1000ms !bookTicker@arr \\" @depth\\u0035'.split(),
    *(b"", b"@" * 300),
]
NAMES = [
    *b"btcusdt NOSUCH ETHUSDT BTCUSDT ETHBTC BTC/USDT \xc3\x84THER BTC\\u0055SDT BTCUSDTX NUL\\u0000".split(),
    *(b"", b"BTCUSDT ", b"X" * 40, b"X" * 41),
]
JUNK = [*b"} , {} \0 ] x \xff /*}*/}".split(), b" ", b"\r", b"[" * 60]
NESTS = [
    *b'{"stream":"x","data":%b} {"data":%b,"stream":"x"} {"stream":"x","data":%b,"more":1} {"data":%b} [%b]'.split(),
    *b'{"stream":"","data":%b} {"stream":"x@depth5","data":%b} {"stream":1,"data":%b} {"stream":"a","stream":"b","data":%b}'.split(),
    b'{"result":null,"id":%b}',
]


def other_number(text: bytes, chance: Chance) -> bytes:
    """Return a number that is not the one that was there, or no number at all."""
    if chance.random() < 0.4:
        at = chance.randrange(len(text))
        return text[:at] + b"%d" % chance.randrange(10) + text[at + 1 :]
    zeros = b"0" * chance.choice((1, 17, 20, 30, 40))
    near = [form % text for form in (b"-%b", b"+%b", b"%b1", b"%be1", b"%bE-2", b"%b.", b" %b", b"%b ")]
    near += [
        text + zeros,
        zeros + text,
        b"0." + zeros + b"1",
        b"9" * chance.randint(1, 40),
        text.replace(b".", b""),
        text.replace(b".", b".."),
    ]
    return chance.choice((*near, *NUMBERS))


def same_number(text: bytes, chance: Chance) -> bytes:
    """Return another writing of the number that was there."""
    zeros = b"0" * chance.choice((1, 1, 2, 3, 5, 8, 9, 12))
    dotted = text if b"." in text else text + b"."
    return chance.choice(
        (
            dotted + zeros,
            zeros + text,
            zeros + dotted + zeros,
            text + b"e0",
            text + b"E+00",
            (text.rstrip(b"0") + b"0") if b"." in text else text,
        )
    )


def number_changed(value: bytes, chance: Chance, form: Callable[[bytes, Chance], bytes]) -> bytes:
    """Change one quoted number of a value; now and then its quotes go."""
    numbers = list(_QUOTED.finditer(value))
    if not numbers:
        return value
    found = chance.choice(numbers[:12])
    text = form(found[1], chance)
    return value[: found.start()] + (text if chance.random() < 0.1 else b'"%b"' % text) + value[found.end() :]


def some_field(one: Message, chance: Chance, keys: Sequence[bytes] = ()) -> int:
    """Return the place of a field, one of the keys if it has any of them."""
    places = [i for i, (key, _) in enumerate(one.fields) if key in keys] or range(len(one.fields))
    return chance.choice(places)


def with_field(one: Message, at: int, *fields: tuple[bytes, bytes]) -> Message:
    return Message(one.stream, one.fields[:at] + fields + one.fields[at + 1 :])


def renumber(form: Callable[[bytes, Chance], bytes]) -> Change:
    def change(one: Message, chance: Chance, feed: Feed) -> Message:
        at = some_field(one, chance, (b"b", b"a", b"p", b"q", b"B", b"A", b"bids", b"asks"))
        key, value = one.fields[at]
        return with_field(one, at, (key, number_changed(value, chance, form)))

    return change


def reorder(one: Message, chance: Chance, feed: Feed) -> Message:
    return Message(one.stream, tuple(chance.sample(one.fields, len(one.fields))))


def extra(one: Message, chance: Chance, feed: Feed) -> Message:
    keys, values = (KEYS, ODD) if chance.random() < 0.5 else (KEYS[:7], PLAIN)
    at = chance.randrange(len(one.fields) + 1)
    return Message(one.stream, (*one.fields[:at], (chance.choice(keys), chance.choice(values)), *one.fields[at:]))


def wrapper(one: Message, chance: Chance, feed: Feed) -> Message:
    if one.stream and chance.random() < 0.3:
        return Message(b"", one.fields)
    stream = chance.choice((b"", *b"@depth @depth@100ms @trade @bookTicker".split()))
    return Message(b'"%b%b"' % (feed.name.lower().encode(), stream), one.fields)


def partial(one: Message, chance: Chance, feed: Feed) -> Message:
    return Message(b'"%b"' % (feed.name.lower().encode() + chance.choice(STREAMS)), one.fields)


def double(one: Message, chance: Chance, feed: Feed) -> Message:
    field = chance.choice(one.fields)
    value = field[1] if chance.random() < 0.5 else chance.choice((*VALUES, number_changed(field[1], chance, other_number)))
    at = chance.randrange(len(one.fields) + 1)
    return Message(one.stream, (*one.fields[:at], (field[0], value), *one.fields[at:]))


def empty(one: Message, chance: Chance, feed: Feed) -> Message:
    """Say that a side is empty, as Binance does."""
    zero, nothing = b'"0.00000000"', b"[]"
    if one.value(b"e") == b'"depthUpdate"':
        return one.put(**{chance.choice("ab"): nothing})
    return one.put(**{key: zero for side in chance.choice(("b", "a", "ba")) for key in (side, side.upper())})


def drop(one: Message, chance: Chance, feed: Feed) -> Message:
    return with_field(one, some_field(one, chance))


def rename(one: Message, chance: Chance, feed: Feed) -> Message:
    at = some_field(one, chance)
    key, value = one.fields[at]
    new = chance.choice(
        (key.swapcase(), key + b"x", b"p" + key, b"%c" % chance.randrange(65, 123), chance.choice(one.fields)[0], b"", key + b" ")
    )
    return with_field(one, at, (new, value))


def retype(one: Message, chance: Chance, feed: Feed) -> Message:
    at = some_field(one, chance)
    key, value = one.fields[at]
    unquoted = value.strip(b'"') or b'""'
    return with_field(one, at, (key, chance.choice((*VALUES, unquoted, b'"%b"' % unquoted, b"[%b]" % value, b'{"x":%b}' % value))))


def level(one: Message, chance: Chance, feed: Feed) -> Message:
    """Repeat, empty, move or misshape levels of one side, or exchange the sides."""
    at = some_field(one, chance, (b"b", b"a", b"bids", b"asks"))
    key, value = one.fields[at]
    levels = re.findall(rb"\[\"[^\]]*\]", value) or [b'["1.00","1.000"]']
    kind, i = chance.randrange(12), chance.randrange(len(levels))
    price, size = [*_QUOTED.findall(levels[i]), b"1", b"1"][:2]
    if kind == 0:
        levels.insert(chance.randrange(len(levels) + 1), levels[i])
    elif kind == 1:
        levels[i] = b'["%b","%b"]' % (price, chance.choice((b"0", b"0.000", b"0.00000000", b"-0")))
    elif kind == 2:
        levels = []
    elif kind == 3:
        levels[i] = b'["%b","%b"]' % (chance.choice((b"0", b"0.00", b"-0.0")), size)
    elif kind == 4:
        forms = b"[]", b'["%b"]' % price, b'["%b","%b","1"]' % (price, size), b"[[%b]]" % levels[i], b"null", b'"%b"' % price, b"{}"
        levels[i] = chance.choice(forms)
    elif kind == 5:
        chance.shuffle(levels)
    elif kind == 6:
        ticks = chance.choice((-100, -10, -3, -2, -1, 1, 2, 3, 10, 100))
        levels[i] = b'["%b","%b"]' % (moved(price, ticks), size)
    elif kind == 7:
        levels = levels[: i + 1]
    elif kind == 8:
        levels.insert(i, b'["%b","%b"]' % (moved(price, chance.randint(-5, 5)), moved(size, chance.randint(-50, 50))))
    elif kind == 9 and chance.random() < 0.2:
        away = -1 if key in (b"b", b"bids") else 1
        levels += [b'["%b","%b"]' % (moved(price, away * n), size) for n in range(1, chance.choice((40, 40, 40, 300, 1_200)))]
    elif kind == 10:
        return with_field(one, at, (key, chance.choice((*LISTS, value + b",", value[:-1] + b",]", b"[%b]" % value))))
    else:
        sides = {b"b": b"a", b"a": b"b", b"bids": b"asks", b"asks": b"bids"}
        return Message(one.stream, tuple((sides.get(key, key), value) for key, value in one.fields))
    return with_field(one, at, (key, b"[%b]" % b",".join(levels)))


def moved(number: bytes, units: int) -> bytes:
    """Return a decimal moved by units of its last figure, not below zero."""
    places = len(number.partition(b".")[2])
    value = b"%0*d" % (places + 1, max(0, int(number.replace(b".", b"")) + units))
    return value if not places else b"%b.%b" % (value[:-places], value[-places:])


def identity(one: Message, chance: Chance, feed: Feed) -> Message:
    at = some_field(one, chance, (b"U", b"u", b"pu", b"t", b"f", b"l", b"lastUpdateId", b"a"))
    key, value = one.fields[at]
    near = [b"%d" % (int(value) + chance.choice((-1_000, -2, -1, 1, 2, 1_000, 10**9, 10**9 + 1, 10**12)))] * 8 if value.isdigit() else []
    return with_field(one, at, (key, chance.choice((*IDS, *near))))


def moment(one: Message, chance: Chance, feed: Feed) -> Message:
    at = some_field(one, chance, (b"E", b"T"))
    return with_field(one, at, (one.fields[at][0], chance.choice(TIMES)))


def symbol(one: Message, chance: Chance, feed: Feed) -> Message:
    at = some_field(one, chance, (b"s",))
    return with_field(one, at, (one.fields[at][0], b'"%b"' % chance.choice(NAMES)))


def kind(one: Message, chance: Chance, feed: Feed) -> Message:
    at = some_field(one, chance, (b"e",))
    return with_field(one, at, (b"e", b'"%b"' % chance.choice(KINDS)))


def adopt(one: Message, chance: Chance, feed: Feed) -> Message:
    """Let a message of another recording go on from where this chain stands."""
    other = chance.choice(chance.choice(feed.others).messages)
    last = feed.last + chance.randint(1, 5)
    ids = {"U": feed.last + 1, "u": last, "pu": feed.last, "t": feed.trade + 1, "f": feed.trade + 1, "l": feed.trade + 1}
    if other.value(b"a").isdigit():
        ids["a"] = feed.aggregate + 1
    return other.put(s=b'"%b"' % feed.name.encode(), **{key: b"%d" % value for key, value in ids.items()})


def space(payload: bytes, chance: Chance) -> bytes:
    for _ in range(chance.randint(1, 4)):
        joints = [found.start() for found in _JOINT.finditer(payload)] or [0]
        at = chance.choice(joints) + chance.randint(0, 1)
        payload = payload[:at] + chance.choice((b" ", b"\t", b"\r", b"  ")) + payload[at:]
    return payload


def escape(payload: bytes, chance: Chance) -> bytes:
    texts = list(itertools.islice(_TEXT.finditer(payload), 40))
    if not texts:
        return payload
    at = chance.randrange(*chance.choice(texts).span(1))
    return b"%b\\u%04x%b" % (payload[:at], payload[at], payload[at + 1 :])


def flip(payload: bytes, chance: Chance) -> bytes:
    at = chance.randrange(len(payload) or 1)
    byte = payload[at] ^ 1 << chance.randrange(8) if payload and chance.random() < 0.5 else chance.randrange(256)
    return payload[:at] + bytes([byte]) + payload[at + 1 :]


def digit(payload: bytes, chance: Chance) -> bytes:
    found = list(_DIGITS.finditer(payload))
    if not found:
        return payload
    at = chance.randrange(*chance.choice(found).span())
    return payload[:at] + b"%d" % chance.randrange(10) + payload[at + 1 :]


def truncate(payload: bytes, chance: Chance) -> bytes:
    at = chance.randrange(len(payload) or 1)
    return chance.choice((payload[:at], payload[at:], payload[: -chance.randint(1, 4)], payload[:at] + b"}", payload[:at] + b"}}"))


def extend(payload: bytes, chance: Chance) -> bytes:
    at = chance.choice((0, len(payload), len(payload), chance.randrange(len(payload) or 1)))
    return payload[:at] + chance.choice((*JUNK, payload)) + payload[at:]


def cut(payload: bytes, chance: Chance) -> bytes:
    at = chance.randrange(len(payload) or 1)
    return payload[:at] + payload[at + chance.randint(1, 30) :]


def nest(payload: bytes, chance: Chance) -> bytes:
    return chance.choice(NESTS).replace(b"%b", payload)


KEEPING: dict[str, Change] = {
    "number rewritten": renumber(same_number),
    "keys reordered": reorder,
    "key added": extra,
    "wrapper put on or off": wrapper,
}
"""What means the same as before, or nothing at all."""
CHANGING: dict[str, Change] = {
    "number changed": renumber(other_number),
    "key twice": double,
    "side emptied": empty,
    "key dropped": drop,
    "key renamed": rename,
    "type changed": retype,
    "levels changed": level,
    "id changed": identity,
    "time changed": moment,
    "symbol changed": symbol,
    "kind changed": kind,
    "stream changed": partial,
    "other recording's": adopt,
}
BREAKING: dict[str, Damage] = {
    "whitespace": space,
    "escapes": escape,
    "truncated": truncate,
    "nested": nest,
}
"""What leaves the message as it was, or leaves none."""
GARBLING: dict[str, Damage] = {"byte flipped": flip, "digit changed": digit, "extended": extend, "bytes cut": cut}


def mutated(one: Message, chance: Chance, feed: Feed) -> tuple[str, bytes]:
    """Return a mutation's name and its outcome; the name of the first where there are several."""
    changes = KEEPING if feed.calm else KEEPING | CHANGING
    damages = BREAKING if feed.calm else BREAKING | GARBLING
    known = [*changes, *damages]
    names = chance.choices(known, [3 if name in KEEPING else 1 for name in known], k=chance.choice((1, 1, 1, 1, 2, 3)))
    for name in names:
        if name in changes:
            one = changes[name](one, chance, feed) if one.fields else one
    payload = one.render()
    for name in names:
        if name in damages:
            payload = damages[name](payload, chance)
    return names[0], payload.replace(b"\n", b"\t")  # A recording is lines.


# Inputs


class Drawn(NamedTuple):
    """An input, the symbol that it is about, and what was done to it (nothing: valid)."""

    entry: AnyInput
    feed: Feed | None
    mutation: str


def pace(chance: Chance, regime: str, count: int) -> int:
    """Return nanoseconds to the next of ``count`` inputs."""
    if regime == "still":  # Rings grow where much happens before anything can leave a window.
        return chance.choice((0, 0, 1, 100, 10_000))
    if regime == "burst":
        return chance.choice((0, 0, 1, 100, chance.randrange(1, 200_000), chance.randrange(1, 2 * MS)))
    step = 0 if chance.random() < 0.1 else int(chance.expovariate(1 / (40 * MS)))
    if regime in ("slow", "day") and chance.random() < 0.005:
        step = chance.choice((chance.randrange(S, 3 * S), chance.randrange(3 * S, 8 * S)))
    if regime == "day" and chance.random() < 20 / count:  # A day passes within the round.
        step = chance.randrange(1_800 * S, 7_200 * S)
    return step


def settings(chance: Chance) -> CoreSettings:
    """Return settings in which some buckets of VPIN are small enough to be filled."""
    buckets = {"binance-usdm:BTCUSDT": 0.5, "binance-spot:ETHUSDT": 2.0, "binance-coinm:ETHUSD_PERP": 3.0, "binance-spot:ETHBTC": 1.5}
    kept = [InstrumentSettings(symbol, vpin_bucket=size) for symbol, size in buckets.items() if chance.random() < 0.6]
    return CoreSettings(
        instruments=tuple(kept), symbols_max=48, sync_buffer_frames=6, stale_after_ms=chance.choice((3_000, 20_000, 60_000))
    )


def inputs(
    chance: Chance, count: int, recorded: Sequence[Recording], engine: Callable[[], Engine], seen: Callable[[], Sequence[Record]]
) -> Iterator[Drawn]:
    """Yield inputs in which ``count`` are frames; what is drawn follows the engine's states as a shell would."""
    feeds = [Feed(one, recorded) for one in recorded]
    now = START_NS + chance.randrange(S)
    for feed in feeds:
        feed.calm = chance.random() < 0.5
    regime = chance.choices(("still", "burst", "steady", "slow", "day"), (4, 4, 8, 3, 1))[0]
    weights = [weight * chance.choice((0.5, 1, 1, 3)) for weight in WEIGHTS]
    yield Drawn(Configure(0, now, settings(chance)), None, "")
    yield Drawn(SessionStart(0, now, "fuzz"), None, "")
    answers: list[tuple[int, Result]] = []
    for _ in range(count):
        now += pace(chance, regime, count)
        if chance.random() < 0.05:
            now = -(-now // (100 * MS)) * 100 * MS if chance.random() < 0.7 else -(-now // S) * S
        for record in seen():
            if type(record) is WorkRequested and record.work == MICROPRICE:
                good = chance.random() < 0.8
                answers.append(
                    (now + 50 * MS, Result(0, 0, record.request_id, MICROPRICE, good, microprice.work(record.body) if good else b"no"))
                )
        if answers and answers[0][0] <= now:
            yield Drawn(msgspec.structs.replace(answers.pop(0)[1], ts_ns=now), None, "")
        (feed,) = chance.choices(feeds, weights)
        odd = chance.random()
        if odd < 0.0002:
            yield Drawn(SessionStart(0, now, "again"), None, "")
        elif odd < 0.0004:
            yield Drawn(Shed(0, now, feed.symbol, 3), None, "")
        elif odd < 0.003:
            yield Drawn(Heartbeat(0, now), None, "")
        venue, payload, mutation = drawn(feed, chance, engine().microstructure._markets.get(feed.symbol))
        yield Drawn(Frame(0, now, venue, feed.name, payload), feed, mutation)


def drawn(feed: Feed, chance: Chance, market: Market | None) -> tuple[str, bytes, str]:
    """Return the next frame of a feed: venue, payload and what was done to it."""
    live = market is not None and market.facts.state is BookState.LIVE
    proven = live or (market is not None and market.facts.state is BookState.STALE)
    feed.syncing = 0 if proven else feed.syncing + 1
    if feed.syncing % 4 == 2 or chance.random() < 0.001:
        found = feed.snapshot()
        if chance.random() < 0.1:
            name, payload = mutated(found, chance, feed)
            return feed.venue, payload, f"snapshot: {name}"
        return feed.venue, found.render(), ""
    if feed.owed is not None and proven and market is not None and market.book.last_update < feed.last:
        owed, feed.owed = feed.owed, None
        if feed.calm or chance.random() < 0.98:
            return feed.venue, owed.render(), ""
    odd = chance.random()
    if odd < NEWCOMERS:  # Of a symbol that nothing is known of yet, or not much.
        name = b'"N%dUSDT"' % (feed.at // 20 % 10)
        one = chance.choice(feed.recorded.messages).put(s=name)
        changes = chance.choices([*CHANGING.values(), *KEEPING.values()], k=chance.choice((0, 1, 1, 2)))
        for change in changes:
            one = change(one, chance, feed) if one.fields else one
        return feed.venue, one.render().replace(b"\n", b"\t"), "newcomer"
    odd = chance.random()
    if odd < 0.01:
        venue = chance.choice(("binance-spot", "binance-usdm", "binance-coinm", "kraken", ""))
        return (feed.venue if chance.random() < 0.7 else venue), chance.choice(foreign()).replace(b"\n", b"\t"), "foreign"
    if odd < 0.02 and not feed.calm:
        return feed.venue, feed.near(chance).render(), "out of order"
    if odd < 0.025 and not feed.calm:
        return chance.choice(("binance-spot", "binance-usdm", "binance-coinm")), feed.following().render(), "other venue"
    following = feed.following()
    while not live and following.value(b"e") != b'"depthUpdate"' and chance.random() < 0.8:
        following = feed.following()
    if chance.random() >= (MUTATED if live or market is None else 0.1):
        return feed.venue, following.render(), ""
    # Where the mutation is not taken, the message itself comes after it: a chain is not to be broken by what was refused.
    feed.owed = following if following.value(b"e") == b'"depthUpdate"' else None
    name, payload = mutated(following, chance, feed)
    return feed.venue, payload, name


# The two engines


class GeneralBook(FeatureBook):
    """A book that reads every number the exact and slow way."""

    def _parse(self, bids: bytes, asks: bytes) -> tuple[int, int]:
        return self._parse_slowly(bids, asks)

    def ticks(self, price: bytes) -> int:
        exact = steps.single(price)
        self.refine([exact], [])
        return self._ticks(exact)

    def lots(self, quantity: bytes) -> int:
        exact = steps.single(quantity)
        self.refine([], [exact])
        return self._lots(exact)


def general() -> Engine:
    """Return an engine that takes no frame in one call and reads no number by the strict parser."""
    engine = app.build()
    service = engine.microstructure
    admit = service._market

    def market(symbol: str) -> Market:
        one = admit(symbol)
        one.book.__class__ = GeneralBook
        return one

    service._market = market  # type: ignore[method-assign]
    service.on_frame = lambda venue, payload: False  # type: ignore[method-assign]
    return engine


_WINDOWS = [(m.TI_1S, 1), (m.MICRO_VOL_1S, 1), (m.OFI_1, 1), (m.TI, 5), (m.MICRO_VOL, 5), (m.CANCEL_RATE, 5), (m.QUEUE_RATE, 5)]
_WINDOWS += [(m.TRADE_RATE, 5), (m.TI_30S, 30)]
_NEVER_NULL = [m.TI_N, m.CANCEL_N, m.VPIN_N, m.KYLE_SECONDS, m.DEPTH_BID, m.DEPTH_ASK, m.DEPTH_BID_QUOTE, m.DEPTH_ASK_QUOTE]
_TWO_SIDED = [m.MID, m.MICROPRICE, m.SPREAD_BPS, m.OBI, m.OBI_1, m.OBI_10]
_SHARES = [m.OBI, m.OBI_1, m.OBI_10, m.TI, m.TI_1S, m.TI_30S]
_NAMES = np.array(FEATURES)


@cache
def nulls(age_s: int, has_bid: bool, has_ask: bool, has_vpin: bool, old: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return which features of a LIVE book must be null, and which must not be."""
    must, never = np.zeros(m.FEATURES, bool), np.zeros(m.FEATURES, bool)
    never[_NEVER_NULL] = True
    for at, width in _WINDOWS:
        (never if age_s >= width else must)[at] = True
    (never if has_bid else must)[m.BID] = True
    (never if has_ask else must)[m.ASK] = True
    (never if has_bid and has_ask else must)[_TWO_SIDED] = True
    (never if has_vpin else must)[m.VPIN] = True
    must[m.OFI] = age_s < 1 or not (has_bid or has_ask)
    never[m.OFI] = not must[m.OFI]
    must[m.KYLE_LAMBDA] = not old
    return must, never


def implausible(market: Market, now_ns: int) -> str:
    """Return what no LIVE book's row may show, empty where there is nothing of it."""
    row, marks = market.row, market.book.marks
    age_s = (now_ns - int(marks[m.LIVE_SINCE])) // S
    ages = max(age for age in (0, 1, 5, 30, 300) if age_s >= age)
    bid, ask = market.book.best()
    old = ages == 300 and row[m.KYLE_SECONDS] >= 30
    must, never = nulls(ages, bid is not None, ask is not None, bool(row[m.VPIN_N] == m.BUCKETS_N), bool(old))
    null = np.isnan(row)
    if (wrong := (must & ~null) | (never & null)).any():
        return f"null or not null against the definitions, {age_s} s after LIVE: {_NAMES[wrong].tolist()} in {row.tolist()}"
    if np.isinf(row).any():
        return f"infinite: {_NAMES[np.isinf(row)].tolist()}"
    if (np.abs(row[_SHARES]) > 1).any() or not all(row[at] != row[at] or 0 <= row[at] <= 1 for at in (m.CANCEL_RATE, m.VPIN)):
        return f"out of range: {dict(zip(FEATURES, row.tolist(), strict=True))}"
    if bid is not None and ask is not None and not row[m.BID] <= row[m.MICROPRICE] <= row[m.ASK]:
        return f"microprice {row[m.MICROPRICE]} beyond {row[m.BID]}..{row[m.ASK]}"
    return ""


def not_finite(value: object) -> bool:
    """Tell whether an answer of plain values holds a float that JSON has no word for."""
    if isinstance(value, dict):
        return any(map(not_finite, value.values()))
    if isinstance(value, list | tuple):
        return any(map(not_finite, value))
    return isinstance(value, float) and not math.isfinite(value)


class Pair:
    """The engine as it ships and the general one, stepped alike and compared."""

    def __init__(self) -> None:
        self.fast, self.general = app.build(), general()
        self.taken = False
        """Whether the last frame was taken in one call."""
        self.records: list[Record] = []
        self._spy()

    def _spy(self) -> None:
        take = self.fast.microstructure.on_frame

        def on_frame(venue: str, payload: bytes) -> bool:
            self.taken = take(venue, payload)
            return self.taken

        self.fast.microstructure.on_frame = on_frame  # type: ignore[method-assign]

    def status(self) -> str:
        """Return what became of the last frame."""
        if self.taken:
            return "taken, then the book was wrong" if self.records else "taken in one call"
        return "general: accepted" if self.fast.rejection is None else "general: rejected"

    def step(self, entry: AnyInput, *, ask: bool = True) -> str:
        """Step both; returns what differs or may not be, empty where all is well."""
        entry = msgspec.structs.replace(entry, seq=self.fast.seq + 1)
        self.taken = False
        try:
            self.records = self.fast.step(entry)
        except Exception as error:
            return f"the engine raised {error!r}"
        try:
            others = self.general.step(entry)
        except Exception as error:
            return f"the general engine raised {error!r}"
        if self.records != others:
            return f"records differ: {self.records} and {others}"
        if self.fast.rejection != self.general.rejection:
            return f"rejections differ: {self.fast.rejection!r} and {self.general.rejection!r}"
        if self.fast._digest._block != self.general._digest._block:
            return "digests differ"
        return self._market(ask)

    def _market(self, ask: bool) -> str:
        one, other = self.fast.microstructure.touched, self.general.microstructure.touched
        if one is None or other is None:
            return "" if one is other else f"markets differ: {one} and {other}"
        if one.facts != other.facts:
            return f"facts differ: {one.facts} and {other.facts}"
        if ask:
            self.fast.microstructure.features(one)
            self.general.microstructure.features(other)
        for name, first, end in (
            ("head", 0, m.TOUCHED),
            ("middle", m.BUCKET, m.BIDS_N),
            ("rings", m.TRADES, m.SCRATCH),
            ("name", m.FORMAT, m.FIELDS),
        ):
            a, b = one.book.marks[first:end], other.book.marks[first:end]
            if a.tobytes() != b.tobytes():
                places = (np.flatnonzero(a != b) + first).tolist()
                return f"marks differ ({name}): {[(at, int(one.book.marks[at]), int(other.book.marks[at])) for at in places]}"
        if one.book.reals.tobytes() != other.book.reals.tobytes():
            places = np.flatnonzero(~((one.book.reals == other.book.reals) | np.isnan(one.book.reals) & np.isnan(other.book.reals)))
            return f"reals or features differ at {places.tolist()} (the row begins at {m.ROW})"
        if ask and one.facts.state is BookState.LIVE:
            return implausible(one, self.fast.now_ns)
        return ""

    def embedded(self, frame: Frame) -> str:
        """Compare what the strict parser makes of a frame alone, and amid others as recordings hold them."""
        market = next(iter(self.fast.microstructure._markets.values()), None)
        market = self.fast.microstructure.touched or market
        if market is None or market.book.tick is None or not frame.payload:
            return ""
        buffer = frame.payload + frame.payload + b"1" * 64
        found = []
        for raw, start in ((frame.payload, 0), (buffer, 0), (buffer, len(frame.payload))):
            marks = market.book.marks.copy()
            found.append((binance.read(jit.address(raw), start, start + len(frame.payload), marks), marks))
        (kind, alone), *others = found
        if any(other != kind or (kind >= 0 and (marks != alone).any()) for other, marks in others):
            return f"the parser reads {[one for one, _ in found]} of the frame alone, before others and after others"
        return ""

    def read(self) -> str:
        """Compare what readers are answered."""
        for name in self.fast.microstructure.symbols():
            one, other = (
                (service.health(name), service.kinds(name), service.microstructure(name), service.book(name, 20), service.info(name))
                for service in (self.fast.microstructure, self.general.microstructure)
            )
            if msgspec.json.encode(one) != msgspec.json.encode(other):
                return f"answers differ: {one} and {other}"
            if not_finite(msgspec.to_builtins(one)):
                return f"not finite: {one}"
        return ""

    def whole(self, *, again: bool = False) -> str:
        """Compare all that is saved; ``again``: the engine as it ships goes on from what it saved."""
        saved, other = self.fast.save(), self.general.save()
        if saved != other:
            return f"saved states differ: {unlike(saved, other)}"
        if again:
            loaded = app.build()
            loaded.load(saved)
            if (found := loaded.save()) != saved:
                return f"a loaded state is not saved as it was: {unlike(saved, found)}"
            self.fast = loaded
            self._spy()
        return self.read()


def unlike(one: bytes, other: bytes) -> str:
    """Return where two saved engines differ."""
    left, right = msgspec.msgpack.decode(one), msgspec.msgpack.decode(other)

    def differing(a: object, b: object, path: str) -> Iterator[str]:
        if type(a) is type(b) and isinstance(a, list | dict) and isinstance(b, list | dict) and len(a) == len(b):
            places = range(len(a)) if isinstance(a, list) else a
            for place in places:
                yield from differing(a[place], b[place], f"{path}.{place}")
        elif isinstance(a, bytes) and isinstance(b, bytes) and a != b:
            try:
                yield from differing(msgspec.msgpack.decode(a), msgspec.msgpack.decode(b), f"{path}:")
                return
            except (msgspec.MsgspecError, UnicodeDecodeError):
                pass
            if len(a) == len(b) and len(a) % 8 == 0:
                x, y = np.frombuffer(a, np.int64), np.frombuffer(b, np.int64)
                yield f"{path}[{[(int(at), int(x[at]), int(y[at])) for at in np.flatnonzero(x != y)[:8]]}]"
            else:
                yield f"{path} of {len(a)} and {len(b)} bytes"
        elif a != b:
            yield f"{path}: {a!r:.80} and {b!r:.80}"

    return "; ".join(itertools.islice(differing(left, right, ""), 6))


# A round


class Outcome(NamedTuple):
    """What came of a round; ``difference`` is empty where the engines agreed."""

    counts: Counter[str]
    difference: str
    shown_by: tuple[AnyInput, ...]
    digest: str


ROOMS = {m.TRADES: 16, m.DEPTHS: 4, m.WAITING: 8, m.UNUSED: 32, m.TICKERS: 16, m.SCRATCH: 16}
"""Elements of the rings of a cramped book at first: it grows all the time."""


@contextlib.contextmanager
def cramped(chance: Chance) -> Iterator[None]:
    """Let books begin with little room, and be full soon."""
    kept = {name: getattr(book, name) for name in ("_RINGS", "LEVELS_FIRST", "LEVELS_MAX", "BOOK_LEVELS_MAX")}
    book._RINGS = tuple((ring, ROOMS.get(ring, n), *rest) for ring, n, *rest in book._RINGS)  # type: ignore[assignment]
    book.LEVELS_FIRST, book.LEVELS_MAX, book.BOOK_LEVELS_MAX = 32, 250, chance.choice((60, 300, 2_000))
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(book, name, value)


def fails(entries: Iterable[AnyInput]) -> str:
    """Return how the engines differ after these inputs alone."""
    pair, now_ns = Pair(), 0
    for entry in entries:
        now_ns = max(now_ns, entry.ts_ns)
        if difference := pair.step(entry) or (pair.whole() if type(entry) is not Frame else ""):
            return difference
    return pair.whole(again=True)


def shortest(entries: list[AnyInput], deadline: float) -> list[AnyInput]:
    """Leave out what the difference does not need, in halves and down to single inputs, while time remains."""
    if not fails(entries):
        return entries  # Seen by a check that a bare replay does not make: all of it is evidence.
    size = len(entries) // 2
    while size:
        at = 1
        while at < len(entries) - 1:
            if time.monotonic() > deadline:
                return entries
            less = entries[:at] + entries[min(at + size, len(entries) - 1) :]
            if fails(less):
                entries = less
            else:
                at += size
        size //= 2
    return entries


def round_of(seed: int, number: int, frames: int, lines: int = LINES) -> Outcome:
    """Run one round: engines anew, feeds of their own pace and temper."""
    chance = random.Random(f"{seed} {number}")
    with cramped(chance) if chance.random() < 0.5 else contextlib.nullcontext():
        return _round(chance, frames, recordings(lines))


def _round(chance: Chance, frames: int, recorded: Sequence[Recording]) -> Outcome:
    pair, log = Pair(), list[AnyInput]()
    counts: Counter[str] = Counter()
    difference = ""
    always = chance.random() < 0.5
    for i, (entry, feed, mutation) in enumerate(inputs(chance, frames, recorded, lambda: pair.fast, lambda: pair.records)):
        log.append(entry)
        difference = pair.step(entry, ask=always or i % 7 == 0)
        if not difference and i % SAVE_EVERY == SAVE_EVERY - 1:
            difference = pair.whole(again=i % (5 * SAVE_EVERY) == SAVE_EVERY - 1)
        elif not difference and i % READ_EVERY == 0:
            difference = pair.read()
        if not difference and type(entry) is Frame and i % EMBED_EVERY == 0:
            difference = pair.embedded(entry)
        if difference:
            break
        if feed is not None:
            count(counts, pair, feed, mutation)
    else:
        difference = pair.whole()
    shown_by = shortest(log, time.monotonic() + SHORTEN_S) if difference else []
    return Outcome(counts, difference, tuple(shown_by), pair.fast.hexdigest())


def count(counts: Counter[str], pair: Pair, feed: Feed, mutation: str) -> None:
    counts[f"{'mutated' if mutation else 'valid'}\t{pair.status()}"] += 1
    if mutation:
        counts[f"by {mutation.partition(':')[0]}\t{pair.status()}"] += 1
    market = pair.fast.microstructure._markets.get(feed.symbol)
    if market is not None:
        counts[f"state\t{market.facts.state.name}"] += 1
        if market.facts.state is BookState.LIVE:
            known = ~np.isnan(market.row)
            counts["known\trows"] += 1
            for name in ("vpin", "kyle_lambda", "ti_30s", "ofi", "microprice_stoikov"):
                counts[f"known\t{name}"] += int(known[FEATURES.index(name)])


def table(counts: Counter[str]) -> str:
    """Return the counts as lines, with shares of each group."""
    groups: dict[str, dict[str, int]] = {}
    for name, n in counts.items():
        group, _, status = name.partition("\t")
        groups.setdefault(group, {})[status] = n
    known = groups.pop("known", {})
    rows = max(1, known.pop("rows", 0))
    lines = []
    for group in sorted(groups, key=lambda name: (name.startswith("by "), name)):
        total = sum(groups[group].values())
        shares = ", ".join(f"{status} {n:,} ({n / total:.1%})" for status, n in sorted(groups[group].items()))
        lines.append(f"{group} {total:,}: {shares}")
    if known:
        lines.append("rows of LIVE books with " + ", ".join(f"{name} {n / rows:.1%}" for name, n in sorted(known.items())))
    return "\n".join(lines)


def written(entries: Sequence[AnyInput], folder: Path) -> list[Path]:
    """Write the frames among these inputs as recordings, one a venue and symbol."""
    folder.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys((entry.venue, entry.symbol) for entry in entries if isinstance(entry, Frame))
    paths = []
    for venue, name in names:
        path = folder / f"{venue or 'none'}_{name}_fuzz.raw"
        kept = [entry for entry in entries if isinstance(entry, Frame) and (entry.venue, entry.symbol) == (venue, name)]
        path.write_bytes(b"".join(b"%d %b\n" % (entry.ts_ns, entry.payload) for entry in kept))
        paths.append(path)
    return paths


def _one(arguments: tuple[int, int, int]) -> Outcome:
    return round_of(*arguments)


def fuzz(frames: int, seed: int, processes: int, folder: Path) -> int:
    """Run rounds until ``frames`` frames have passed; returns the exit code."""
    ends = itertools.accumulate(itertools.cycle(ROUND_FRAMES), initial=0)
    spans = itertools.takewhile(lambda span: span[0] < frames, itertools.pairwise(ends))
    rounds = [(seed, number, min(end, frames) - first) for number, (first, end) in enumerate(spans)]
    counts: Counter[str] = Counter()
    digests = []
    for at in range(GUIDED_BASES):
        base = Base(at, recordings(GUIDED_LINES))
        for payload in base.everywhere():
            base.restore()
            if difference := base.take(payload):
                print(f"{base.feed.symbol}: {difference} for {payload!r}")
                return 1
            counts[f"cut or lengthened at a byte\t{base.pair.status()}"] += 1
    start = time.perf_counter()
    with Progress() as progress, multiprocessing.get_context("spawn").Pool(processes) if processes > 1 else _Alone() as pool:
        bar = progress.add_task("frames", total=frames)
        for arguments, outcome in zip(rounds, pool.imap(_one, rounds), strict=True):
            counts += outcome.counts
            digests.append(outcome.digest)
            progress.advance(bar, arguments[2])
            if outcome.difference:
                progress.stop()
                print(f"round {arguments[1]} of seed {seed}: {outcome.difference}")
                for entry in outcome.shown_by[-20:]:
                    print(f"  {entry!r:.2000}")
                print("shown by", len(outcome.shown_by), "inputs:", *written(outcome.shown_by, folder))
                return 1
    seconds = time.perf_counter() - start
    print(table(counts))
    print(f"{frames:,} frames in {seconds:,.0f} s ({frames / seconds:,.0f}/s): the engines agree; digest {hash_of(digests)}")
    return 0


class _Alone:
    """A pool of this process alone."""

    def __enter__(self) -> "_Alone":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def imap(self, function: Callable[[tuple[int, int, int]], Outcome], rounds: Iterable[tuple[int, int, int]]) -> Iterator[Outcome]:
        return map(function, rounds)


def hash_of(digests: Sequence[str]) -> str:
    return hashlib.blake2b(" ".join(digests).encode(), digest_size=8).hexdigest()


# Guided by coverage

GUIDED = ("kernels.binance", "kernels.wire", "kernels.frames", "venues.binance", "models.steps")
"""Modules that decide whether a frame is taken and what it says."""
GUIDED_LEVELS = 8
GUIDED_LINES = 2_000
GUIDED_BASES = 4
EVERYWHERE = [*b'0 } " , \\ [ -'.split(), b" "]
GUIDED_KINDS = 4
GUIDED_BYTES = 1_500
GUIDED_SEEDS = 20
GUIDED_STEP_NS = 200 * MS
GUIDED_FRAMES = 40
"""So many, so far apart, that windows of 5 s are whole."""
WORDS = (
    *("depthUpdate", "trade", "aggTrade", "bookTicker", "stream", "data", "@depth5", "@depth10@100ms", "lastUpdateId", "bids", "asks"),
    *(
        f'\\"{key}\\":'
        for key in ("e", "E", "T", "s", "U", "u", "pu", "b", "a", "B", "A", "t", "p", "q", "m", "f", "l", "ps", "st", "X", "M", "k")
    ),
    *(
        "true",
        "false",
        "null",
        "[[",
        "]]",
        '\\",\\"',
        '[\\"',
        '\\"]',
        "{",
        "}",
        "}}",
        "1e3",
        "-1",
        "0.0",
        '\\"0\\"',
        "9223372036854775807",
        "00",
    ),
)


def live_pair(feed: Feed) -> tuple[Pair, int]:
    """Return engines on a LIVE book of a few levels, with trades and tickers behind it, and the time that it is."""
    pair, now = Pair(), START_NS
    feed.sides = {key: dict(itertools.islice(side.items(), GUIDED_LEVELS)) for key, side in feed.sides.items()}
    pair.step(Configure(0, now, CoreSettings()))
    payloads = [feed.following().render(), feed.snapshot().render()]
    while len(payloads) < GUIDED_FRAMES or feed.recorded.messages[feed.at - 1].value(b"e") != b'"depthUpdate"':
        payloads.append(feed.following().render())
    for payload in payloads:
        now += GUIDED_STEP_NS
        if difference := pair.step(Frame(0, now, feed.venue, feed.name, payload)):
            raise SystemExit(f"the engines differ before any guidance: {difference}")
    now += GUIDED_STEP_NS // 3
    pair.step(Heartbeat(0, now))
    market = pair.fast.microstructure._markets[feed.symbol]
    if market.facts.state is not BookState.LIVE or not market.book.live:
        raise SystemExit(f"expected a LIVE {feed.symbol} to begin with, found {market.facts.state.name}")
    return pair, now


class Base:
    """A pair on a LIVE book that is put back to where it was after every frame."""

    def __init__(self, at: int, recorded: Sequence[Recording]) -> None:
        self.feed = Feed(recorded[at], recorded)
        self.pair, self.now_ns = live_pair(self.feed)
        self.feed.calm = False
        self.plain = [self.feed.snapshot()]
        """Messages that go on from there, one a kind."""
        kinds = {b""}
        while len(kinds) < GUIDED_KINDS and self.feed.at < len(self.feed.recorded.messages):
            one = self.feed.following()
            kind = one.value(b"e") or b"bookTicker"
            if kind not in kinds and len(one.render()) < GUIDED_BYTES // 2:
                kinds.add(kind)
                self.plain.append(one)
        self._engines = self.pair.fast, self.pair.general
        self._kept = [self._keep(engine) for engine in self._engines]

    def _keep(self, engine: Engine) -> tuple[bytes, bytes, FeatureBook, tuple[np.ndarray, ...], list[int], Step | None, Step | None]:
        market = engine.microstructure._markets[self.feed.symbol]
        one = market.book
        arrays = one.marks.copy(), one.reals.copy(), one.levels.copy()
        return msgspec.msgpack.encode(market.facts), bytes(engine._digest._block), one, arrays, list(one._sizes), one.tick, one.lot

    def restore(self) -> None:
        """Undo what a frame did."""
        for engine, (facts, block, one, arrays, sizes, tick, lot) in zip(self._engines, self._kept, strict=True):
            service = engine.microstructure
            market = service._markets[self.feed.symbol]
            market.facts = msgspec.msgpack.decode(facts, type=type(market.facts))
            for name, array in zip(("marks", "reals", "levels"), arrays, strict=True):
                if getattr(one, name).shape == array.shape:
                    getattr(one, name)[:] = array
                else:
                    setattr(one, name, array.copy())
            one.row, one._sizes, one.tick, one.lot = one.reals[m.ROW :], list(sizes), tick, lot
            one._scratch_at = int(one.marks[m.SCRATCH])
            for other in [name for name in service._markets if name != self.feed.symbol]:
                del service._markets[other]
                service._by_name[self.feed.venue].pop(other.partition(":")[2].encode(), None)
            engine._digest._block[:] = block
            engine._rejections.clear()
            engine.outstanding.clear()
            engine.seq, engine.now_ns, engine._requests = self.pair.fast.seq, self.now_ns, 0

    def take(self, payload: bytes) -> str:
        """Let both engines take one frame."""
        frame = Frame(0, self.now_ns, self.feed.venue, self.feed.name, payload)
        return self.pair.step(frame) or self.pair.embedded(frame) or (self.pair.read() if self.pair.taken else "")

    def everywhere(self) -> Iterator[bytes]:
        """Yield the plain messages cut, shortened and lengthened at each of their bytes."""
        for one in self.plain:
            payload = one.render()
            yield payload
            for at in range(len(payload)):
                yield payload[:at]
                yield payload[at:]
                yield payload[:at] + payload[at + 1 :]
                for junk in EVERYWHERE:
                    yield payload[:at] + junk + payload[at:]


class Target:
    """What libFuzzer calls: bytes of which the first chooses the book and the rest are the frame."""

    def __init__(self, bases: Sequence[Base], folder: Path, counted: Path) -> None:
        self.bases, self.folder, self._counted = bases, folder, counted
        self.counts: Counter[str] = Counter()

    def __call__(self, data: bytes) -> None:
        base = self.base(data)
        base.restore()
        difference = base.take(data[1:])
        self.counts[f"frames\t{base.pair.status()}"] += 1
        if self.counts.total() % 1_000 == 0:  # The process ends without a word.
            self._counted.write_bytes(msgspec.json.encode(self.counts))
        if difference:
            paths = written([Frame(0, base.now_ns, base.feed.venue, base.feed.name, data[1:])], self.folder)
            raise AssertionError(f"{base.feed.symbol}: {difference} for {data[1:]!r}, written to {paths[0]}")

    def base(self, data: bytes) -> Base:
        return self.bases[data[0] % len(self.bases) if data else 0]

    def mutate(self, data: bytes, size_max: int, seed: int, bytewise: Callable[[bytes, int], bytes]) -> bytes:
        """Mutate as the other fuzz does, where the bytes are a message, or as libFuzzer would."""
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytewise(data, size_max)
        base = self.base(data)
        try:
            one = message(data[1:]) if chance.random() < 0.5 else chance.choice(base.plain)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            one = chance.choice(base.plain)
        return (data[:1] + mutated(one, chance, base.feed)[1])[:size_max]


def functions_of(name: str) -> list[FunctionType]:
    module = sys.modules[f"alphapack.{name}"]
    owners = [module, *(one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__)]
    found = [one for owner in owners for one in vars(owner).values() if isinstance(one, FunctionType)]
    return [one for one in found if one.__module__ == module.__name__]


def lines_in(name: str) -> set[int]:
    codes = [one.__code__ for one in functions_of(name)]
    return {line for code in codes for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno}


def reached(target: Target, corpus: Iterable[bytes]) -> str:
    """Return how many lines of each module the frames of a corpus reach."""
    files = {sys.modules[f"alphapack.{name}"].__file__: name for name in GUIDED}
    seen: dict[str, set[int]] = {name: set() for name in GUIDED}

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object] | None:
        name = files.get(frame.f_code.co_filename)
        if name is None:
            return None
        if event == "line":
            seen[name].add(frame.f_lineno)
        return trace

    sys.settrace(trace)
    try:
        for data in corpus:
            target(data)
    finally:
        sys.settrace(None)
    shares = []
    for name in GUIDED:
        lines = lines_in(name)
        missed = sorted(lines - seen[name])
        shares.append(f"  {name} {len(lines & seen[name])} of {len(lines)} lines" + (f", not {missed}" if missed else ""))
    return "lines reached by the corpus:\n" + "\n".join(shares)


def guided(seconds: int, folder: Path, corpus: Path | None) -> int:
    """Let libFuzzer look for frames that reach new lines; returns the exit code."""
    try:
        import atheris  # type: ignore[import-not-found]
    except ImportError:
        print("expected atheris beside this project's packages, found none: pip install atheris")
        return 2
    warnings.filterwarnings("error", category=RuntimeWarning)  # Integers of a kernel that overflow.
    folder.mkdir(parents=True, exist_ok=True)
    bases = [Base(at, recordings(GUIDED_LINES)) for at in range(GUIDED_BASES)]
    with tempfile.TemporaryDirectory() as scratch:
        place, counted, words = corpus or Path(scratch, "corpus"), Path(scratch, "counts"), Path(scratch, "words")
        place.mkdir(parents=True, exist_ok=True)
        words.write_text("".join(f'"{word}"\n' for word in WORDS))
        target = Target(bases, folder, counted)
        chance = random.Random(1)
        for i, base in enumerate(bases):
            for j, one in enumerate(base.plain):
                (place / f"seed-{i}-{j}").write_bytes(bytes([i]) + one.render())
                for n in range(GUIDED_SEEDS):
                    (place / f"seed-{i}-{j}-{n}").write_bytes(bytes([i]) + mutated(one, chance, base.feed)[1])
        child = os.fork()  # libFuzzer ends its process.
        if child == 0:
            for name in GUIDED:
                for function in functions_of(name):
                    atheris.instrument_func(function)
            flags = [
                f"-max_total_time={seconds}",
                f"-max_len={GUIDED_BYTES}",
                "-len_control=0",
                "-print_final_stats=1",
                "-timeout=20",
                f"-dict={words}",
            ]
            arguments = [sys.argv[0], *flags, f"-artifact_prefix={folder}/", str(place)]

            def mutate(data: bytes, size_max: int, seed: int) -> bytes:
                return target.mutate(data, size_max, seed, atheris.Mutate)

            atheris.Setup(arguments, target, custom_mutator=mutate)
            atheris.Fuzz()
        _, status = os.waitpid(child, 0)
        if counted.exists():
            print(table(Counter(msgspec.json.decode(counted.read_bytes(), type=dict[str, int]))))
        if status == 0:
            print(reached(target, (path.read_bytes() for path in sorted(place.iterdir()))))
    return os.waitstatus_to_exitcode(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path(tempfile.gettempdir()) / "alphapack-fuzz", help="folder of the recording of a difference"
    )
    parser.add_argument("--guided", type=int, default=0, metavar="SECONDS", help="let coverage guide the bytes of single frames instead")
    parser.add_argument("--corpus", type=Path, help="folder in which the guided fuzz keeps what it found worth keeping")
    options = parser.parse_args()
    if options.guided and os.environ.get("NUMBA_DISABLE_JIT") != "1":  # Only interpreted kernels have a coverage.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "NUMBA_DISABLE_JIT": "1"})
    if options.guided:
        return guided(options.guided, options.out, options.corpus)
    return fuzz(options.frames, options.seed, options.processes, options.out)


if __name__ == "__main__":
    sys.exit(main())
