"""What the engine tells its services while it steps: time, order, chance, and where to put what they say."""

from collections.abc import Iterator
from typing import Protocol

from alphapack.domain.events import Record
from alphapack.domain.inputs import CoreSettings


class Context(Protocol):
    """The only way out of a service's own state."""

    now_ns: int
    """Engine time: of the input being handled, or the due time of the timer that fires."""
    seq: int
    settings: CoreSettings

    def emit(self, record: Record) -> None:
        """Say that something happened."""
        ...

    def observe(self, values: bytes) -> None:
        """Put computed values into the digest."""
        ...

    def request(self, work: str, body: bytes) -> int:
        """Ask the shell for work off the loop; returns the id that its ``Result`` will carry."""
        ...

    def after(self, delay_ns: int, timer: str, argument: str = "") -> None:
        """Have the handler of ``timer`` called once, ``delay_ns`` from now."""
        ...

    def draws(self, stream: str, symbol: str = "") -> Iterator[float]:
        """Return uniforms in [0, 1) of one stream; drawing from one never changes another."""
        ...
