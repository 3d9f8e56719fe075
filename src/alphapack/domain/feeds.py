"""What a live feed and a venue's plan of it say to each other: streams, requests, limits, notices, health."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec


class UnknownSymbol(ValueError):
    """A symbol to be followed that the venue does not list; the text names the nearest that it does."""


class UnknownVenue(ValueError):
    """A venue that cannot be followed; the text names those that can."""


class Stream(msgspec.Struct, frozen=True):
    """One subscription of a venue's WebSocket."""

    name: str
    """As the venue names it, and as its frames do."""
    symbol: str
    """The venue's own name of the symbol."""
    path: str
    """Where on the host it is served, with a leading slash."""
    steady: bool = False
    """Whether it never falls silent in a market that trades, so that silence is a fault."""
    aside: bool = False
    """Whether it flows by a clock of the venue's own, whatever becomes of the others, so that it says nothing of them."""


class Request(msgspec.Struct, frozen=True):
    """One REST request, GET."""

    path: str
    parameters: tuple[tuple[str, str], ...]
    weight: int
    """What it takes of the venue's budget."""
    mark: bytes
    """Bytes without which an answer of status 200 is not one."""
    bulk: bool = False
    """Whether it may wait: bulk comes after all else, and may use half of the budget alone."""


class Limits(msgspec.Struct, frozen=True):
    """What a venue bears, as it states it."""

    weight_per_minute: int
    """Of all requests of one address; a feed uses 80% of it."""
    weight_header: str
    """Header of an answer that tells the weight used in this minute."""
    messages_per_s: float
    """Messages that a connection may send; a feed uses half of it."""
    connections_per_5_min: int = 300
    """A feed tries 80% of them at most."""


class Acknowledged(msgspec.Struct, frozen=True):
    """The venue's answer to a control message; ``request_id`` None where it does not say to which."""

    request_id: int | None
    error: str | None = None


class ShuttingDown(msgspec.Struct, frozen=True):
    """The venue is about to close the connection."""


class FeedPlan(Protocol):
    """How one market of one venue is followed: pure values, no connection."""

    venue: str
    ws_url: str
    rest_url: str
    limits: Limits

    def streams(self, symbol: str) -> tuple[Stream, ...]:
        """Return what to subscribe to for a symbol."""
        ...

    def subscribe(self, streams: Sequence[Stream], request_id: int) -> str:
        """Return the control message that begins the streams."""
        ...

    def unsubscribe(self, streams: Sequence[Stream], request_id: int) -> str:
        """Return the control message that ends the streams."""
        ...

    def stream_of(self, payload: bytes) -> bytes:
        """Return the stream's name cut out of a frame's first bytes, empty where it names none; called for every frame."""
        ...

    def notice(self, payload: bytes) -> Acknowledged | ShuttingDown | None:
        """Read a frame that is of no known stream; None where it is neither."""
        ...

    def snapshot(self, symbol: str) -> Request:
        """Return the request of a symbol's book."""
        ...

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Iterator[Request]:
        """Yield the requests of the 1-minute candles that open in ``[start_ms, end_ms)``, oldest first."""
        ...

    def listing(self) -> Request:
        """Return the request of all that the venue says about its instruments."""
        ...

    def cut(self, body: bytes, symbols: Iterable[str]) -> bytes:
        """Return the answer to ``listing`` with nothing but these symbols, their objects as the venue wrote them.

        Raises ``UnknownSymbol`` where one is missing, and ``ValueError`` where the body is no listing.
        """
        ...


class FeedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How patient a feed is, in seconds of the monotonic clock, and where the venue is."""

    ws_url: str | None = None
    """Base address of the WebSockets, without a path; None: the venue's own."""
    rest_url: str | None = None
    handshake_s: float = 10.0
    acknowledge_s: float = 8.0
    """Time for the answer to a control message."""
    silence_s: float = 5.0
    """Silence of a steady stream before it is subscribed anew, and again before its connection is replaced."""
    dead_s: float = 10.0
    """Silence of a whole connection before it is replaced."""
    patience_max_s: float = 300.0
    """Both silences double where much was done about them of late, up to this, and fall back after a calm minute."""
    heartbeat_s: float = 5.0
    """Silence before a ping; its pong must come within half of it."""
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    held_s: float = 60.0
    """A connection that lasted so long makes those before it forgotten."""
    rotate_s: float = 82_800.0
    """Age at which a connection is replaced, before the venue closes it."""
    rotate_jitter_s: float = 1_800.0
    overlap_s: float = 1.0
    """How long the old connection goes on beside one that delivers."""
    request_s: float = 30.0
    """Time for one REST answer."""


class FeedHealth(msgspec.Struct, frozen=True):
    """Counters of one feed since it began, and how it stands now."""

    venue: str
    connections: int
    """Open now."""
    attempts: int
    reconnects: int
    """Connections begun in place of one that ended or was to be replaced."""
    resubscribes: int
    """Streams subscribed anew because of silence."""
    frames: int
    bytes: int
    snapshots: int
    """REST snapshots handed over."""
    refused: tuple[str, ...]
    """Streams that the venue would not serve on the connections of now."""
    reason: str
    """Why a connection was ended or replaced last; empty while none was."""
    rest_reason: str
    """Why a REST request failed last."""
    weight_used: int
    """Of the venue's REST budget, in the last minute."""
    retry_after_s: float
    """How long the venue has told us to wait still."""
