"""The fit of impact off the loop: what three sources have said goes out, the impact that follows from all of them comes back.

Each fit begins anew, at what is believed of a market of which only the volatility is known, and learns from displayed books, then from
the tape, then from own executions. A source that has said too little is left out.
"""

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.models import impact
from alphapack.models.impact import BARS_MIN, BPS_MAX, SHARE_MAX, SHARE_MIN, SWEEPS_MIN, Impact

WORK = "impact"
"""Work requested of the shell: fit a symbol's impact."""


class Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a request: columns of float64, see the functions of ``models.impact`` that they go to."""

    symbol: str
    sigma_1d: float
    sweeps: tuple[bytes, bytes] | None
    """Shares and mean costs; None: too little was seen, here and below."""
    bars: tuple[bytes, bytes] | None
    """Signed shares and moves, of bars of one length."""
    fills: tuple[bytes, bytes, bytes, bytes] | None
    """Shares, costs, durations, standard deviations of a second."""


_request = msgspec.msgpack.Decoder(Request)
_answer = msgspec.msgpack.Decoder(Impact)


def request(
    symbol: str,
    sigma_1d: float,
    sweeps: tuple[Float64Array1D, Float64Array1D],
    bars: tuple[Float64Array1D, Float64Array1D],
    fills: tuple[Float64Array1D, Float64Array1D, Float64Array1D, Float64Array1D],
) -> bytes | None:
    """Return the body of a request for a fit; None where no source has said enough.

    Parameters
    ----------
    sigma_1d
        Volatility of a day, a fraction.
    sweeps
        Sizes as shares of a day's volume, and what each costs in bps beyond the half spread, on average over many books.
    bars
        Signed net volume of the tape's bars as shares of a day's, and moves of the log mid in bps.
    fills
        Sizes of own executions as shares of a day's volume, costs in bps beyond the half spread, durations in seconds, standard
        deviations of the mid over one second in bps.
    """
    along, moves = bars
    fit_for_use = (np.abs(along) >= SHARE_MIN) & (np.abs(along) <= SHARE_MAX) & (np.abs(moves) <= BPS_MAX)
    along, moves = along[fit_for_use], moves[fit_for_use]
    bought = int(np.count_nonzero(along > 0.0))
    asked = Request(
        symbol=symbol,
        sigma_1d=sigma_1d,
        sweeps=(sweeps[0].tobytes(), sweeps[1].tobytes()) if len(sweeps[0]) >= SWEEPS_MIN and sweeps[1].any() else None,
        bars=(along.tobytes(), moves.tobytes()) if len(along) >= BARS_MIN and 0 < bought < len(along) else None,
        fills=(fills[0].tobytes(), fills[1].tobytes(), fills[2].tobytes(), fills[3].tobytes()) if len(fills[0]) else None,
    )
    return msgspec.msgpack.encode(asked) if asked.sweeps or asked.bars or asked.fills else None


def work(body: bytes) -> bytes:
    """Fit what ``request`` asked for and return what ``answer`` reads; off the loop."""
    asked = _request.decode(body)
    found = impact.prior(asked.sigma_1d)
    if asked.sweeps is not None:
        shares, costs = map(np.frombuffer, asked.sweeps)
        found = impact.from_sweeps(shares, costs, found)
    if asked.bars is not None:
        shares, moves = map(np.frombuffer, asked.bars)
        found = impact.from_bars(shares, moves, found)
    if asked.fills is not None:
        shares, costs, durations, sigmas = map(np.frombuffer, asked.fills)
        found = impact.from_fills(shares, costs, durations, sigmas, found)
    return msgspec.msgpack.encode(found)


def answer(body: bytes) -> Impact:
    """Return the impact that a result holds; raises ``ValueError`` where it is none, since answers come from outside the core."""
    try:
        return _answer.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected a fitted impact, found: {error}") from None


def warm() -> None:
    """Compile, or load from the cache, every kernel of a fit."""
    ones = np.ones(BARS_MIN)
    bars = 1e-3 * np.where(np.arange(BARS_MIN) % 2 == 0, 1.0, -1.0)
    body = request("", 1e-2, (1e-3 * ones, ones), (bars, 1e3 * bars), (1e-3 * ones, ones, ones, ones))
    assert body is not None, "made to be enough"
    work(body)
