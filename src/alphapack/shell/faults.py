"""Seeded faults of a venue's streams, and the truth about each.

Law: what happens to a sequence of frames follows from the frames, the seed and what was asked, never from how the
sequence was sliced or from any clock. Faults of one symbol never overlap, and ``spacing`` frames of the symbol go by in
between, so that whoever judges a client can tell which of its findings belongs to which fault.

The frames here are a tape's: ``(ts_ns, payload)`` in the combined form ``{"stream":"btcusdt@depth@100ms","data":{...}}``.
A fault of a symbol's frames is done here. One of connections or of REST answers comes out as a ``Deed`` between the
frames, for the server to do.
"""

import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import msgspec

from alphapack.domain.market import NANOS_PER_MS

Kind = Literal[
    "drop",
    "duplicate",
    "reorder",
    "delay",
    "stall",
    "garbage",
    "giant",
    "half_open",
    "disconnect",
    "server_shutdown",
    "stale_snapshot",
    "http_429",
    "http_418",
]
Expect = Literal["gap", "none", "reject", "resync", "reconnect"]
Channel = Literal["depth", "trade", "bookTicker"]
Form = Literal["truncated", "damaged", "utf8", "text"]

KINDS: tuple[Kind, ...] = get_args(Kind)
OF_CONNECTIONS = frozenset({"giant", "half_open", "disconnect", "server_shutdown"})
"""They hit every symbol at once."""
OF_ANSWERS = frozenset({"stale_snapshot", "http_429", "http_418"})
"""They touch no stream, and may come while a fault of a stream is being repaired."""

DROPPED_MAX = 5
MS_MAX = 60_000
ASKED_MAX = 1_000
SCHEDULED_MAX = 16
"""Scheduled faults that wait for a frame they fit; those that come meanwhile are left out."""
TRUTH_MAX = 100_000
WAITED_FRAMES_MAX = 20_000
"""The tape's frames for which a fault of all symbols waits for those at hand: one of a symbol that has gone silent never ends."""
HELD_FRAMES_MAX = 10_000
HELD_BYTES_MAX = 1 << 26

TapeFrame = tuple[int, bytes]
_HEAD = b'{"stream":"'
_IDS = {
    "depth": re.compile(rb'"U":(\d+),"u":(\d+)'),
    "trade": re.compile(rb'"t":(\d+)'),
    "aggTrade": re.compile(rb'"f":(\d+),"l":(\d+)'),
    "bookTicker": re.compile(rb'"u":(\d+)'),
}
_FIELDS: dict[str, frozenset[str]] = {
    "drop": frozenset({"symbol", "channel", "frames"}),
    "duplicate": frozenset({"symbol", "channel"}),
    "reorder": frozenset({"symbol"}),
    "delay": frozenset({"symbol", "ms"}),
    "stall": frozenset({"symbol", "ms", "lost"}),
    "garbage": frozenset({"symbol", "channel", "form"}),
    "stale_snapshot": frozenset({"symbol"}),
    "disconnect": frozenset({"code"}),
    "server_shutdown": frozenset({"ms"}),
    "http_429": frozenset({"ms"}),
    "http_418": frozenset({"ms"}),
    "giant": frozenset(),
    "half_open": frozenset(),
}
_MS_DRAWN = {
    "delay": (200, 1_500),
    "stall": (3_000, 8_000),
    "server_shutdown": (5_000, 10_000),
    "http_429": (1_000, 3_000),
    "http_418": (1_000, 3_000),
}


class FaultRefused(ValueError):
    """A fault that cannot be asked for now."""


class FaultRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fault to do at the next frame that it fits; what is left out is drawn by the seed.

    Raises ``ValueError`` for a value out of range, or one that says nothing of this kind.
    """

    kind: Kind
    symbol: str | None = None
    """The venue's name; left out: that of the frame at hand."""
    channel: Channel | None = None
    """Left out: depth for a drop, the frame at hand for a duplicate or garbage."""
    frames: int | None = None
    """How many consecutive frames a drop takes: 1..5."""
    ms: int | None = None
    """1..60,000. Of a delay or stall: tape time until it ends. Of a refusal: the wait that ``Retry-After`` states, in whole
    seconds. Of a shutdown: from the notice to the close."""
    lost: bool | None = None
    """Whether a stall loses what was due, or delays it."""
    form: Form | None = None
    code: Literal[1001, 1006] | None = None
    """How a disconnect ends: with this close frame, or with none (1006)."""

    def __post_init__(self) -> None:
        stated = {name for name in self.__struct_fields__[1:] if getattr(self, name) is not None}
        if stray := sorted(stated - _FIELDS[self.kind]):
            raise ValueError(
                f"expected {' or '.join(sorted(_FIELDS[self.kind])) or 'nothing'} beside kind {self.kind!r}, found {stray[0]!r}"
            )
        if self.frames is not None and not 1 <= self.frames <= DROPPED_MAX:
            raise ValueError(f"expected frames of 1 to {DROPPED_MAX}, found {self.frames}")
        if self.ms is not None and not 1 <= self.ms <= MS_MAX:
            raise ValueError(f"expected ms of 1 to {MS_MAX}, found {self.ms}")
        if self.symbol is not None and (not self.symbol or self.symbol != self.symbol.upper()):
            raise ValueError(f"expected the venue's name of a symbol in capitals, found {self.symbol!r}")


class FaultRecord(msgspec.Struct):
    """One fault: written before it is done, completed while it lasts."""

    n: int
    """The tape's frame at which it began, counted from 1."""
    ts_ns: int
    """Tape time."""
    kind: Kind
    symbol: str
    """Empty where every symbol is hit, or none."""
    stream: str
    detail: str
    expect: Expect
    """What a right client makes of it. A lost depth frame is a gap also where garbage took its place."""
    detectable: bool = False
    """Whether the client has been shown that something was lost or broken: of lost frames, once a later one has passed."""
    first: int = -1
    """First id hit: U of a difference, a trade's id, u of a ticker; -1 where there is none."""
    last: int = -1
    frames: int = 0
    seen_n: int = 0
    """The tape's frame that showed it; 0 until then."""
    listeners: int = 0
    """Connections that would have been sent the first frame that was hit; those that there are, where all are hit."""
    done: bool = False


class Deed(msgspec.Struct, frozen=True):
    """A fault for the server to do, at its place between the frames."""

    request: FaultRequest
    record: FaultRecord


Released = TapeFrame | Deed


def stream_of(payload: bytes) -> bytes:
    """Return the stream that a tape's frame names."""
    return payload[len(_HEAD) : payload.index(b'"', len(_HEAD))]


def data_of(payload: bytes, stream: bytes) -> bytes:
    """Return a tape's frame without its wrapper, as a raw connection is sent it."""
    return payload[len(_HEAD) + len(stream) + len(b'","data":') : -1]


def combined(stream: bytes, data: bytes) -> bytes:
    """Return ``data`` in the wrapper of a combined connection."""
    return b'{"stream":"%b","data":%b}' % (stream, data)


class _Parsed(msgspec.Struct, gc=False):
    n: int
    ts_ns: int
    payload: bytes
    stream: str
    symbol: str
    channel: str

    @property
    def ids(self) -> tuple[int, int]:
        """First and last id that the frame carries, -1 where it has none."""
        found = _IDS[self.channel].search(self.payload) if self.channel in _IDS else None
        return (int(found[1]), int(found[found.lastindex or 1])) if found else (-1, -1)


class _Active:
    """A fault that a symbol's frames go through until it is done."""

    def __init__(self, request: FaultRequest, record: FaultRecord) -> None:
        self.request, self.record = request, record

    def take(self, frame: _Parsed, out: list[Released]) -> None:
        """Do with one frame of the symbol what the fault does."""
        raise NotImplementedError

    def at(self, ts_ns: int, out: list[Released]) -> None:
        """See that tape time has come to ``ts_ns``."""

    def abandon(self, out: list[Released]) -> None:
        """Give back what is held; the fault stays undone."""

    def hit(self, frame: _Parsed) -> None:
        """Note a frame that was hit."""
        first, last = frame.ids
        if self.record.frames == 0:
            self.record.first = first
        self.record.last = max(self.record.last, last)
        self.record.frames += 1

    def show(self, frame: _Parsed) -> None:
        """Note the frame that lets the client see it, and end."""
        self.record.detectable, self.record.seen_n, self.record.done = True, frame.n, True


class _Drop(_Active):
    def take(self, frame: _Parsed, out: list[Released]) -> None:
        if frame.channel == (self.request.channel or "depth"):
            if self.record.frames < (self.request.frames or 1):
                self.hit(frame)
                return
            self.show(frame)
            self.record.detectable = frame.channel != "bookTicker"  # A ticker says nothing of the one before.
        out.append((frame.ts_ns, frame.payload))


class _Duplicate(_Active):
    def take(self, frame: _Parsed, out: list[Released]) -> None:
        self.hit(frame)
        self.record.done = True
        out += [(frame.ts_ns, frame.payload)] * 2


class _Reorder(_Active):
    held: TapeFrame | None = None

    def take(self, frame: _Parsed, out: list[Released]) -> None:
        if frame.channel == "depth":
            self.hit(frame)
            if self.held is None:
                self.held = frame.ts_ns, frame.payload
                return
            self.show(frame)
            out += [(frame.ts_ns, frame.payload), self.held]
        else:
            out.append((frame.ts_ns, frame.payload))

    def abandon(self, out: list[Released]) -> None:
        if self.held is not None:
            out.append(self.held)


class _Delay(_Active):
    def __init__(self, request: FaultRequest, record: FaultRecord) -> None:
        super().__init__(request, record)
        self._until_ns = record.ts_ns + (request.ms or 1) * NANOS_PER_MS
        self._held: list[Released] = []
        self._held_bytes = 0

    def take(self, frame: _Parsed, out: list[Released]) -> None:
        if len(self._held) >= HELD_FRAMES_MAX or self._held_bytes >= HELD_BYTES_MAX:
            self._until_ns = frame.ts_ns
            self.at(frame.ts_ns, out)
            out.append((frame.ts_ns, frame.payload))
            return
        self.hit(frame)
        self._held.append((frame.ts_ns, frame.payload))
        self._held_bytes += len(frame.payload)

    def at(self, ts_ns: int, out: list[Released]) -> None:
        if ts_ns >= self._until_ns:
            self.abandon(out)
            self.record.done = True

    def abandon(self, out: list[Released]) -> None:
        out += self._held
        self._held = []


class _Silence(_Active):
    """A stall that loses what was due."""

    def __init__(self, request: FaultRequest, record: FaultRecord) -> None:
        super().__init__(request, record)
        self._until_ns = record.ts_ns + (request.ms or 1) * NANOS_PER_MS
        self._depths = 0

    def take(self, frame: _Parsed, out: list[Released]) -> None:
        if frame.ts_ns < self._until_ns:
            self.hit(frame)
            if frame.channel == "depth":
                if self._depths == 0:
                    self.record.first, self.record.last = frame.ids
                self._depths += 1
            return
        if frame.channel == "depth":
            self.show(frame)
            self.record.detectable = self._depths > 0
        out.append((frame.ts_ns, frame.payload))


class _Garbage(_Active):
    def take(self, frame: _Parsed, out: list[Released]) -> None:
        if self.record.frames == 0:
            self.hit(frame)
            self.record.detectable, self.record.seen_n = True, frame.n
            self.record.done = frame.channel != "depth"
            out.append((frame.ts_ns, garbled(frame.payload, self.request.form or "truncated")))
            return
        self.record.done = frame.channel == "depth"
        out.append((frame.ts_ns, frame.payload))


_ACTIVES: dict[str, type[_Active]] = {
    "drop": _Drop,
    "duplicate": _Duplicate,
    "reorder": _Reorder,
    "delay": _Delay,
    "garbage": _Garbage,
}


def garbled(payload: bytes, form: Form) -> bytes:
    """Return a frame that no reader of JSON may take; only its data is hit, so that it finds its way to who asked for it."""
    stream = stream_of(payload)
    begin = len(payload) - 1 - len(data_of(payload, stream))
    middle = (begin + len(payload)) // 2
    match form:
        case "truncated":
            return payload[:middle]
        case "damaged":
            return payload[:middle] + b"\0" * 4 + payload[middle + 4 :]
        case "utf8":
            return payload[:middle] + b"\xff\xfe" + payload[middle + 2 :]
        case "text":
            return combined(stream, b"<html><body>502 Bad Gateway</body></html>")


class Injector:
    """Does faults to a tape's frames: every so many frames by the seed, and as asked.

    Parameters
    ----------
    seed : int
        Equal seeds do equal faults at equal frames.
    every : int
        Mean number of the tape's frames from one scheduled fault to the next; 0: none are scheduled.
    kinds : sequence of str
        The kinds that are scheduled, each as likely.
    spacing : int
        Frames of a symbol from the end of one fault of it to the next.
    listeners : callable
        How many connections would be sent a frame of a stream.
    """

    def __init__(
        self,
        seed: int,
        *,
        every: int = 0,
        kinds: Sequence[Kind] = KINDS,
        spacing: int = 50,
        listeners: Callable[[bytes], int] = lambda stream: 0,
    ) -> None:
        if every < 0 or spacing < 0 or not kinds:
            raise ValueError(f"expected every >= 0, spacing >= 0 and a kind at least, found {every}, {spacing} and {list(kinds)}")
        self.n = 0
        """Frames of the tape so far."""
        self.truth: deque[FaultRecord] = deque(maxlen=TRUTH_MAX)
        self.faults = 0
        """Faults so far, those that ``truth`` no longer holds among them."""
        self.skipped = 0
        """Scheduled faults that were left out because too many waited."""
        self._seed, self._every, self._kinds, self._spacing = seed, every, tuple(kinds), spacing
        self._listeners = listeners
        self._chance = random.Random(f"faults {seed}")
        self._next_n = self._gap() if every else 0
        self._armed: list[FaultRequest] = []
        self._asked = 0
        self._active: dict[str, _Active] = {}
        self._cooling: dict[str, int] = {}
        self._symbols: dict[str, None] = {}
        self._blocked_n = 0
        """Where a fault of all symbols began to wait; 0: none does."""
        self._shaken = False
        """Whether all symbols have been hit at once, those not met yet among them."""

    def ask(self, request: FaultRequest) -> int:
        """Queue a fault and return its number among those asked for; raise ``FaultRefused`` where too many wait."""
        if len(self._armed) >= ASKED_MAX:
            raise FaultRefused(f"expected at most {ASKED_MAX} faults to wait for their frames, found as many waiting")
        self._asked += 1
        # Chance of its own: what is asked for does not move what is scheduled.
        self._armed.append(filled(request, random.Random(f"asked {self._seed} {self._asked}")))
        return self._asked

    @property
    def waiting(self) -> int:
        """How many faults wait for a frame that they fit."""
        return len(self._armed)

    def run(self, frames: list[TapeFrame], now_ns: int) -> list[Released]:
        """Return what becomes of the tape's next frames, the last of them at or before ``now_ns``."""
        if not self._armed and not self._active and not self._cooling and not (self._every and self.n + len(frames) >= self._next_n):
            self.n += len(frames)
            return list[Released](frames)
        out: list[Released] = []
        for ts_ns, payload in frames:
            self._take(ts_ns, payload, out)
        self._pass_time(now_ns, out)
        return out

    def _take(self, ts_ns: int, payload: bytes, out: list[Released]) -> None:
        self.n += 1
        self._pass_time(ts_ns, out)
        if self._every and self.n >= self._next_n:
            self._next_n = self.n + self._gap()
            self._schedule()
        stream = stream_of(payload).decode()
        name, _, rest = stream.partition("@")
        frame = _Parsed(self.n, ts_ns, payload, stream, name.upper(), rest.partition("@")[0])
        if frame.symbol not in self._symbols:
            self._symbols[frame.symbol] = None
            if self._shaken:  # Of the connections it is on, for all that is known here.
                self._cool((frame.symbol,))
        if self._armed:
            self._begin(frame, out)
        active = self._active.get(frame.symbol)
        if active is not None:
            active.take(frame, out)
            self._end(frame.symbol, active)
            return
        cooling = self._cooling.get(frame.symbol)
        if cooling is not None:
            if cooling > 1:
                self._cooling[frame.symbol] = cooling - 1
            else:
                del self._cooling[frame.symbol]
        out.append((ts_ns, payload))

    def _pass_time(self, ts_ns: int, out: list[Released]) -> None:
        for symbol, active in list(self._active.items()):
            active.at(ts_ns, out)
            self._end(symbol, active)

    def _end(self, symbol: str, active: _Active) -> None:
        if active.record.done:
            del self._active[symbol]
            self._cool((symbol,))

    def _cool(self, symbols: Iterable[str]) -> None:
        if self._spacing:
            self._cooling.update(dict.fromkeys(symbols, self._spacing))

    def _gap(self) -> int:
        return self._chance.randint(max(1, self._every // 2), max(1, self._every + self._every // 2))

    def _schedule(self) -> None:
        request = filled(FaultRequest(self._chance.choice(self._kinds)), self._chance)
        if len(self._armed) >= SCHEDULED_MAX:
            self.skipped += 1
            return
        self._armed.append(request)

    def _begin(self, frame: _Parsed, out: list[Released]) -> None:
        """Begin the faults that wait and fit this frame: in order, so that none that hits all symbols waits forever."""
        for request in list(self._armed):
            if not self._fits(request, frame):
                if request.kind not in OF_CONNECTIONS:
                    continue
                self._blocked_n = self._blocked_n or self.n
                if self.n - self._blocked_n < WAITED_FRAMES_MAX:
                    return
                for active in self._active.values():
                    active.abandon(out)
                self._active.clear()
            if request.kind in OF_CONNECTIONS:
                self._blocked_n = 0
            self._armed.remove(request)
            record = self._note(request, frame)
            if request.kind in OF_CONNECTIONS or request.kind in OF_ANSWERS:
                record.detectable, record.seen_n, record.done = True, frame.n, True
                out.append(Deed(request, record))
                if request.kind in OF_CONNECTIONS:
                    self._shaken = True
                    self._cool(self._symbols)
            else:
                self._active[frame.symbol] = active_of(request, record)

    def _fits(self, request: FaultRequest, frame: _Parsed) -> bool:
        if request.kind in OF_CONNECTIONS:
            return not self._active and not self._cooling
        if request.symbol is not None and request.symbol != frame.symbol:
            return False
        if request.kind in OF_ANSWERS:
            return True
        wanted = request.channel or ("depth" if request.kind in ("drop", "reorder") else frame.channel)
        return wanted == frame.channel and frame.symbol not in self._active and frame.symbol not in self._cooling

    def _note(self, request: FaultRequest, frame: _Parsed) -> FaultRecord:
        """Write the fault down before it is done."""
        of_symbol = request.kind not in OF_CONNECTIONS and request.kind not in ("http_429", "http_418")
        of_stream = of_symbol and request.kind != "stale_snapshot"
        first, last = frame.ids if of_stream else (-1, -1)
        record = FaultRecord(
            n=frame.n,
            ts_ns=frame.ts_ns,
            kind=request.kind,
            symbol=frame.symbol if of_symbol else "",
            stream=frame.stream if of_stream else "",
            detail=detail(request),
            expect=expected(request, frame.channel),
            first=first,
            last=last,
            listeners=self._listeners(frame.stream.encode()),
        )
        self.faults += 1
        self.truth.append(record)
        return record


def filled(request: FaultRequest, chance: random.Random) -> FaultRequest:
    """Return the request with all that its kind needs, drawn where it was left out."""
    drawn: dict[str, object] = {
        "frames": chance.randint(1, DROPPED_MAX),
        "ms": chance.randint(*_MS_DRAWN.get(request.kind, (1, 1))),
        "lost": chance.random() < 0.5,
        "form": chance.choice(get_args(Form)),
        "code": chance.choice((1001, 1006)),
    }
    wanted = {name: value for name, value in drawn.items() if name in _FIELDS[request.kind] and getattr(request, name) is None}
    return msgspec.structs.replace(request, **wanted)


def active_of(request: FaultRequest, record: FaultRecord) -> _Active:
    """Return what does a fault to a symbol's frames."""
    if request.kind == "stall":
        return (_Silence if request.lost else _Delay)(request, record)
    return _ACTIVES[request.kind](request, record)


def expected(request: FaultRequest, channel: str) -> Expect:
    """Return what a right client makes of a fault that hits a frame of this channel first."""
    match request.kind:
        case "drop":
            # Lost trades show in the trades' ids; the book is not touched by them.
            return "gap" if (request.channel or "depth") == "depth" else "none"
        case "reorder":
            return "gap"
        case "stall":
            return "gap" if request.lost else "none"
        case "garbage":
            return "gap" if channel == "depth" else "reject"
        case "stale_snapshot":
            return "resync"
        case "giant" | "half_open" | "disconnect" | "server_shutdown":
            return "reconnect"
        case "duplicate" | "delay" | "http_429" | "http_418":
            return "none"


def detail(request: FaultRequest) -> str:
    """Return what a request says beyond kind and symbol, such as ``"ms 500 lost True"``."""
    named = ((name, getattr(request, name)) for name in ("channel", "frames", "ms", "lost", "form", "code"))
    return " ".join(f"{name} {value}" for name, value in named if value is not None)
