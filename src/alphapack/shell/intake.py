"""The bounded queue in front of the journal: the only place where anything may be given up, and it says so.

Beyond ``conflate_from`` waiting frames, a top-of-book ticker replaces the one of its symbol that waits. At ``frames_max``
the symbol with most frames waiting is shed whole. Both are journaled inputs; a shed symbol's book goes back to SYNCING.
What a frame is about is read only where that is in question: reading it twice would cost as much as stepping it.
"""

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress

from alphapack.domain.events import FrameError, TopOfBook
from alphapack.engine.ports import Codec

FRAMES_MAX = 20_000
CONFLATE_FROM = 5_000


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
        self.frames = 0
        """Frames that wait."""

    def offer(self, venue: str, wire_symbol: str, payload: bytes, receive_ns: int = 0) -> None:
        """Take a frame in, giving up others or this one where there are too many."""
        waiting = Waiting(venue, wire_symbol, payload, receive_ns)
        if self.frames >= self._conflate_from:
            self._conflate(waiting)
        else:
            self._crowded = False
        self._queue.append(waiting)
        self.frames += 1
        if self.frames > self._frames_max:
            self._shed_largest()
        if len(self._queue) > 2 * self._frames_max:
            self._queue = deque(one for one in self._queue if one.payload is not None)

    def losses(self) -> list[tuple[str, str, int]]:
        """Return and forget what was given up: ``(how, symbol, frames)``; to be journaled before the next frame."""
        lost = [("shed", symbol, frames) for symbol, frames in sorted(self._shed.items())]
        lost += [("conflated", symbol, frames) for symbol, frames in sorted(self._conflated.items())]
        self._shed.clear()
        self._conflated.clear()
        return lost

    def take(self) -> Waiting | None:
        """Return the frame that has waited longest, None where none waits."""
        while self._queue:
            waiting = self._queue.popleft()
            if self._tickers.get(waiting.symbol) is waiting:
                del self._tickers[waiting.symbol]
            if waiting.payload is not None:
                self.frames -= 1
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
                older.payload = None
                self.frames -= 1
                self._conflated[waiting.symbol] += 1
            self._tickers[waiting.symbol] = waiting

    def _look_at(self, waiting: Waiting) -> Waiting:
        """Read which symbol a frame is about, once."""
        if waiting.symbol or waiting.payload is None:
            return waiting
        waiting.symbol = f"{waiting.venue}:{waiting.wire_symbol}"
        codec = self._codecs.get(waiting.venue)
        if codec is not None:
            with suppress(FrameError):  # The engine will say what is wrong with it.
                events = codec.decode(waiting.payload, waiting.wire_symbol)
                if events:
                    waiting.symbol, waiting.is_ticker = events[0].symbol, len(events) == 1 and type(events[0]) is TopOfBook
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
