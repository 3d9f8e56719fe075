"""The bounded queue in front of the journal: the only place where anything may be given up, and it says so.

Beyond ``conflate_from`` waiting frames, a top-of-book ticker replaces the one of its symbol that waits. At ``frames_max``
the symbol with most frames waiting is shed whole. Both are journaled inputs; a shed symbol's book goes back to SYNCING.
What a frame is about is looked at only where that is in question, and no closer than it takes to tell them apart.
"""

from collections import Counter, deque
from collections.abc import Mapping

from alphapack.domain.market import NANOS_PER_S, symbol_id
from alphapack.engine.ports import Codec

FRAMES_MAX = 20_000
BYTES_MAX = 256 << 20
CONFLATE_FROM = 5_000
TELL_NS = NANOS_PER_S
"""Conflation is told once in so long, summed: there may be as much of it as there are frames."""


class Waiting:
    """A frame in the queue; ``payload`` None marks one that was given up, an empty ``symbol`` one that was not looked at."""

    __slots__ = ("is_ticker", "payload", "receive_ns", "symbol", "venue", "wire_symbol")

    def __init__(self, venue: str, wire_symbol: str, payload: bytes, receive_ns: int) -> None:
        self.venue, self.wire_symbol, self.receive_ns = venue, wire_symbol, receive_ns
        self.payload: bytes | None = payload
        self.symbol, self.is_ticker = "", False


class Intake:
    """Frames that came and were not stepped yet."""

    def __init__(self, codecs: Mapping[str, Codec], *, frames_max: int = FRAMES_MAX, conflate_from: int = CONFLATE_FROM) -> None:
        self._codecs, self._frames_max, self._conflate_from = codecs, frames_max, conflate_from
        self._queue: deque[Waiting] = deque()
        self._tickers: dict[str, Waiting] = {}
        """By symbol the newest ticker that waits, while there is a crowd."""
        self._crowded = False
        self._shed: Counter[str] = Counter()
        self._conflated: Counter[str] = Counter()
        self._told_ns = 0
        self.frames = 0
        """Frames that wait."""
        self.bytes = 0
        """Their size."""

    def offer(self, venue: str, wire_symbol: str, payload: bytes, receive_ns: int = 0) -> None:
        """Take a frame in, giving up others or this one where there are too many."""
        waiting = Waiting(venue, wire_symbol, payload, receive_ns)
        if self.frames >= self._conflate_from:
            self._conflate(waiting)
        else:
            self._crowded = False
        self._queue.append(waiting)
        self.frames += 1
        self.bytes += len(payload)
        while self.frames > self._frames_max or self.bytes > BYTES_MAX:
            self._shed_largest()
        if len(self._queue) > 2 * self._frames_max:
            self._queue = deque(one for one in self._queue if one.payload is not None)

    @property
    def lost(self) -> bool:
        """Whether anything was given up that was not told yet."""
        return bool(self._shed or self._conflated)

    def losses(self, now_ns: int) -> list[tuple[str, str, int]]:
        """Return and forget what was given up: ``(how, symbol, frames)``; what was shed is to be journaled before the next frame."""
        lost = [("shed", symbol, frames) for symbol, frames in sorted(self._shed.items())]
        self._shed.clear()
        if self._conflated and now_ns - self._told_ns >= TELL_NS:
            lost += [("conflated", symbol, frames) for symbol, frames in sorted(self._conflated.items())]
            self._conflated.clear()
            self._told_ns = now_ns
        return lost

    def take(self) -> Waiting | None:
        """Return the frame that has waited longest, None where none waits."""
        while self._queue:
            waiting = self._queue.popleft()
            if self._tickers.get(waiting.symbol) is waiting:
                del self._tickers[waiting.symbol]
            if waiting.payload is not None:
                self.frames -= 1
                self.bytes -= len(waiting.payload)
                return waiting
        return None

    def _conflate(self, waiting: Waiting) -> None:
        """Let a ticker take the place of the one of its symbol that waits."""
        if not self._crowded:
            self._crowded = True
            self._tickers = {one.symbol: one for one in self._queue if self._look_at(one).is_ticker}
        if self._look_at(waiting).is_ticker:
            older = self._tickers.get(waiting.symbol)
            if older is not None and older.payload is not None:
                self.bytes -= len(older.payload)
                older.payload = None
                self.frames -= 1
                self._conflated[waiting.symbol] += 1
            self._tickers[waiting.symbol] = waiting

    def _look_at(self, waiting: Waiting) -> Waiting:
        """Read which symbol a frame is about, once."""
        if waiting.symbol or waiting.payload is None:
            return waiting
        codec = self._codecs.get(waiting.venue)
        name, waiting.is_ticker = codec.glance(waiting.payload) if codec is not None else ("", False)
        waiting.symbol = symbol_id(waiting.venue, name or waiting.wire_symbol)
        return waiting

    def _shed_largest(self) -> None:
        for waiting in self._queue:
            self._look_at(waiting)
        counts = Counter(one.symbol for one in self._queue if one.payload is not None)
        symbol, frames = min(counts.items(), key=lambda item: (-item[1], item[0]))
        self._queue = deque(one for one in self._queue if one.payload is not None and one.symbol != symbol)
        self._tickers.pop(symbol, None)
        self._shed[symbol] += frames
        self.frames -= frames
        self.bytes = sum(len(one.payload) for one in self._queue if one.payload is not None)
