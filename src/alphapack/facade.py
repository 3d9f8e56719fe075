"""What notebooks and scripts call as ``ap.*``."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack import app, config
from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array2D
from alphapack.config import Settings
from alphapack.domain.backtest import Backtest
from alphapack.domain.market import NANOS_PER_MS
from alphapack.domain.readings import SymbolHealth
from alphapack.models import black, book, impact, quotes, risk, schedules, volatility
from alphapack.models import chain as chain_model
from alphapack.models import garch as garch_model
from alphapack.models import har as har_model
from alphapack.models import off_policy as off_policy_model
from alphapack.models import shapley as shapley_model
from alphapack.models import smile as smile_model
from alphapack.models.bandit import Bandit as Bandit
from alphapack.models.book import FEATURES
from alphapack.models.candles import COLUMNS, in_order
from alphapack.models.minutes import MinuteGrid
from alphapack.shell.backtest_report import html
from alphapack.shell.clock import SystemClock

STAMPS = ("timestamp", "creation_timestamp", "snapshot_ms")
"""Where the rows of a chain may say when they were, in milliseconds."""

Row = np.void
"""One structured row: a scalar of ``ROW`` whose fields are read by name."""

ROW = np.dtype(
    [("seq", np.int64), ("ts_ns", np.int64), ("symbol", np.int32), ("state", np.int8), *((name, np.float64) for name in FEATURES)]
)
"""A row of ``Replay``; features are NaN where they are not known, ``state`` is a ``BookState``."""


class Replay:
    """A recording as feature rows, one a market-data message of the symbols asked for.

    Iterate over it, or take everything at once with ``to_numpy``; both may be repeated. The totals below are those of
    the last pass, and each makes one where there was none.
    """

    def __init__(self, paths: Sequence[Path], venue: str | None, symbols: Sequence[str] | None) -> None:
        self._paths, self._venue = list(paths), venue
        self._wanted = None if symbols is None else {symbol.upper() for symbol in symbols}
        self.symbols: list[str] = []
        """Full names; a row's ``symbol`` is an index into them."""
        self.complaints: list[str] = []
        """Lines that could not be used, with file, line and reason."""
        self._health: dict[str, SymbolHealth] | None = None
        self._digest = ""

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows one by one (scalars of ``ROW``)."""
        for chunk in self._chunks(1_024):
            yield from chunk

    def to_numpy(self) -> np.ndarray[Any, np.dtype[np.void]]:
        """Return all rows as a structured array of ``ROW``."""
        chunks = list(self._chunks(65_536))
        return np.concatenate(chunks) if chunks else np.empty(0, ROW)

    @property
    def gaps(self) -> int:
        """Breaks of the venue's chain of updates, over all symbols."""
        return sum(one.gaps for one in self.health().values())

    @property
    def crossed(self) -> int:
        """Times that a book was crossed."""
        return sum(one.crossed for one in self.health().values())

    @property
    def digest(self) -> str:
        """128-bit digest of all inputs and of all that was computed from them, in hex."""
        self.health()
        return self._digest

    def health(self) -> dict[str, SymbolHealth]:
        """Return how well each symbol's data held together, by full name."""
        if self._health is None:
            for _ in self._chunks(65_536):
                pass
        assert self._health is not None
        return self._health

    def _chunks(self, size: int) -> Iterator[np.ndarray[Any, np.dtype[np.void]]]:
        book.warm()
        engine, self.symbols, self.complaints = app.build(), [], []
        recording = app.record_of(self._paths, Settings(), self._venue, self.complaints.append)
        places: dict[str, int] = {}
        head, values, n = np.empty((size, 4), np.int64), np.empty((size, len(FEATURES))), 0
        for entry, _ in app.steps(engine, recording):
            market = engine.microstructure.touched
            if market is None:
                continue
            symbol = market.facts.symbol
            if self._wanted is not None and self._wanted.isdisjoint((symbol.upper(), symbol.partition(":")[2])):
                continue
            if symbol not in places:
                places[symbol] = len(places)
                self.symbols.append(symbol)
            head[n] = entry.seq, entry.ts_ns, places[symbol], market.facts.state
            values[n] = engine.microstructure.features(market)
            n += 1
            if n == size:
                yield _structured(head, values)
                n = 0
        if n:
            yield _structured(head[:n], values[:n])
        self._health = {name: engine.microstructure.health(name) for name in engine.microstructure.symbols()}
        self._digest = engine.hexdigest()


def _structured(head: Int64Array2D, values: Float64Array2D) -> np.ndarray[Any, np.dtype[np.void]]:
    rows = np.empty(len(head), ROW)
    for i, name in enumerate(("seq", "ts_ns", "symbol", "state")):
        rows[name] = head[:, i]
    for i, name in enumerate(FEATURES):
        rows[name] = values[:, i]
    return rows


def replay(path: str | Path | Sequence[str | Path], symbols: Sequence[str] | None = None, *, venue: str | None = None) -> Replay:
    """Return a recording (captures, or one journal) as feature rows.

    Parameters
    ----------
    path : path or paths
        Capture files, whose names begin with the venue, or the folder of a journal.
    symbols : names, optional
        ``"BTCUSDT"`` or ``"binance-usdm:BTCUSDT"``; all of them where left out.
    venue : str, optional
        Venue of the files where their names do not say it.

    Raises
    ------
    CaptureError
        Where a path or a venue is not one that can be read.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    return Replay([Path(one) for one in paths], venue, symbols)


def garch(
    returns: npt.ArrayLike, mean: Literal["zero", "constant"] = "zero", presample: Literal["ssr", "ewma"] | float = "ssr"
) -> garch_model.Garch:
    """Fit GARCH(1,1) by Gaussian quasi-maximum likelihood; returns on any scale, one-minute fractions among them.

    Parameters
    ----------
    returns : float64[n]
        Oldest first; at least 50, finite, not all alike.
    mean : "zero" or "constant"
        Whether a mean is estimated.
    presample : "ssr", "ewma" or a variance
        The variance before the first return: mean squared residual at the current mean (Fiorentini, Calzolari, Panattoni),
        an exponentially weighted one (arch's default), or the one given.

    Returns
    -------
    Garch
        ``.params``, ``.mu .omega .alpha .beta``, ``.loglik``, ``.converged``, ``.stderr(kind)`` with kinds hessian, opg, im, bw and
        white, ``.forecast(h)``: variance of the sum over the next h steps.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    return garch_model.fit(_vector(returns, "returns"), mean, presample)


def har(
    rv: npt.ArrayLike,
    lags: Sequence[int] = (1, 5, 22),
    variant: Literal["plain", "log", "harq", "harj"] = "plain",
    rq: npt.ArrayLike | None = None,
    bpv: npt.ArrayLike | None = None,
) -> har_model.Har:
    """Fit a heterogeneous autoregression to realised variances, one a period.

    Parameters
    ----------
    rv : float64[n]
        Realised variances, oldest first.
    lags : ints
        Windows, in periods.
    variant : "plain", "log", "harq" or "harj"
        Corsi's; in logarithms with smearing; with realised quarticity ``rq``; with jumps over bipower variation ``bpv``.
    rq, bpv : float64[n], optional
        What the variants harq and harj need.

    Returns
    -------
    Har
        ``.params`` (constant first), ``.stderr()`` (Newey-West), ``.r2``, ``.forecast()`` of the next period.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    quarticity = None if rq is None else _vector(rq, "rq")
    bipower = None if bpv is None else _vector(bpv, "bpv")
    return har_model.fit(_vector(rv, "rv"), lags, variant, quarticity=quarticity, bipower=bipower)


def forecast_vol(candles: Mapping[str, npt.ArrayLike] | npt.ArrayLike, horizon_minutes: int) -> tuple[float, float]:
    """Return what the HAR and GARCH say of the next minutes: standard deviations of the log return over all of them, as fractions.

    The models are those that the engine serves, fitted to the newest thirty days. See docs/VOLATILITY.md.

    Parameters
    ----------
    candles : (n, 6) array, or columns by name
        One-minute candles: ``ts_ms, open, high, low, close, volume``; a table with such columns will do. A minute that is left out
        is not known. At least 10,110 of them: a week and thirty minutes.
    horizon_minutes : int
        From 1 to 10,080.

    Returns
    -------
    (sigma_har, sigma_garch)

    Raises
    ------
    ValueError
        For candles that are none, contradict each other or do not move, for too few of them, and for a horizon out of range; with
        what was expected and what came.
    """
    horizon = volatility.check_horizon(horizon_minutes)
    grid = MinuteGrid(in_order(_rows(candles)))
    forecaster = volatility.Forecaster(volatility.fit(grid, (horizon,)))
    made = forecaster.forecast(grid, grid.end - 1, horizon)
    return math.sqrt(made.har), math.sqrt(made.garch)


@overload
def implied_vol(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    t: npt.ArrayLike,
    call: npt.ArrayLike,
    return_status: Literal[False] = False,
) -> Float64Array1D: ...


@overload
def implied_vol(
    price: npt.ArrayLike, forward: npt.ArrayLike, strike: npt.ArrayLike, t: npt.ArrayLike, call: npt.ArrayLike, return_status: Literal[True]
) -> tuple[Float64Array1D, npt.NDArray[np.uint8]]: ...


def implied_vol(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    t: npt.ArrayLike,
    call: npt.ArrayLike,
    return_status: bool = False,
) -> Float64Array1D | tuple[Float64Array1D, npt.NDArray[np.uint8]]:
    """Return the volatilities at which Black-76 gives these prices. See docs/IMPLIED.md.

    Parameters
    ----------
    price : float64[n]
        Undiscounted prices, in the unit of the forward. An option of Deribit whose premium is in coin: premium x forward.
    forward, strike : float64[n]
        Above zero.
    t : float64[n]
        Years to expiry, above zero.
    call : bool[n]
        Calls are true, puts false. All five arguments broadcast to one row.
    return_status : bool
        Whether to say why a volatility is NaN.

    Returns
    -------
    float64[n]
        Annualised fractions; NaN for a price outside the arbitrage bounds and whatever else has none.
    uint8[n]
        With ``return_status``: ``alphapack.models.black.Status`` of each, 0 where all is well.

    Raises
    ------
    ValueError
        Where shapes do not go together or values are no numbers.
    """
    vols, statuses = black.implied_vol(price, forward, strike, t, call)
    return (vols, statuses) if return_status else vols


def smile(
    strike: npt.ArrayLike,
    iv: npt.ArrayLike,
    t: float,
    forward: float = 1.0,
    delta: smile_model.Convention = "forward",
    discount_foreign: float = 1.0,
) -> smile_model.Smile:
    """Return the smile of one expiry: SVI of five strikes or more, total variance linear in ln(K/F) of fewer. See docs/OPTIONS.md.

    Parameters
    ----------
    strike : float64[n]
        Each once, in any order.
    iv : float64[n]
        Their implied volatilities, annualised fractions.
    t : float
        Years to expiry.
    forward : float
        In the unit of the strikes; 1 where those are moneyness.
    delta : "forward", "spot" or "premium_adjusted"
        Whose 25 the strikes of rr25 and fly25 have.
    discount_foreign : float
        Discount factor of the coin (or foreign currency) to expiry; spot deltas need it.

    Returns
    -------
    Smile
        ``.atm .rr25 .fly25 .svi .butterfly_free .quality``, ``.vol(strike)``, ``.strike_of(delta, call)`` and more.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    return smile_model.fit(_vector(strike, "strike"), _vector(iv, "iv"), t, forward, delta, discount_foreign)


def chain(
    rows: Iterable[Mapping[str, object]],
    ts_ms: int | None = None,
    *,
    base: str | None = None,
    spot: float | None = None,
    forward: float | None = None,
    k_unit: quotes.KUnit | None = None,
    iv_unit: quotes.IvUnit | None = None,
    delta: smile_model.Convention = "forward",
) -> chain_model.Surface:
    """Return what an option chain says: a smile a tenor, risk reversal, butterfly and term slope. See docs/OPTIONS.md.

    Parameters
    ----------
    rows : mappings
        ``{"k", "tenor", "type", "iv"}``, or ``bid``, ``ask``, ``mark`` for ``iv``; or rows as Deribit has them, with an
        ``instrument_name``. NaN and None are absent.
    ts_ms : int, optional
        When the chain was; left out: the newest ``timestamp``, ``creation_timestamp`` or ``snapshot_ms`` of its rows, else now.
    base : str, optional
        The coin, left out that of the first named row; rows of others are rejected.
    spot, forward, k_unit, iv_unit
        As ``POST /api/options/chain`` takes them.
    delta : "forward" or "premium_adjusted"
        Whose 25 the strikes of rr25 and fly25 have.

    Returns
    -------
    Surface
        ``.tenors`` (each ``.t .forward .atm .rr25 .fly25 .quality``), ``.rr25 .fly25 .iv_term_slope``, ``.rejected`` (each
        ``.index .reason``).

    Raises
    ------
    ValueError
        For a chain that cannot be read at all; a row that cannot is in ``.rejected``.
    """
    listed = list(rows)
    if ts_ms is None:
        stamps = [_stamp(name, row[name]) for row in listed if isinstance(row, Mapping) for name in STAMPS if row.get(name) is not None]
        ts_ms = max(stamps, default=SystemClock().now_ns() // NANOS_PER_MS)
    return chain_model.build(listed, ts_ms, base=base, spot=spot, forward=forward, k_unit=k_unit, iv_unit=iv_unit, delta=delta)


def backtest(
    paths: str | Path | Sequence[str | Path],
    settings: Mapping[str, Mapping[str, object]] | None = None,
    *,
    history: str | Path | Sequence[str | Path] = (),
    history_shift: bool = False,
    venue: str | None = None,
    report: str | Path | None = None,
) -> Backtest:
    """Trade recordings on paper from beginning to end. See docs/BACKTEST.md.

    Parameters
    ----------
    paths : path or paths
        Capture files, merged by time.
    settings : mapping, optional
        By section and key, such as ``{"router": {"interval_s": 10}}``; no file and no variable is looked at.
    history : path or paths
        Candles from before, as ``alphapack backtest --history`` takes them: without a week of them nothing is traded.
    history_shift : bool
        Whether to move them so that they end where the recordings begin.
    venue : str, optional
        Venue of the files where their names do not say it.
    report : path, optional
        HTML file to write.

    Returns
    -------
    Backtest
        ``.trades .equity .alpha_pnl .risk .bounds`` and more: the numbers of the report. Money in units of 1e-8.

    Raises
    ------
    SettingsError, CaptureError, CandleFileError, PluginError
        With what was expected and what came.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    pasts = [history] if isinstance(history, str | Path) else list(history)
    complaints: list[str] = []
    found = app.backtest(
        app.prepared(config.stated(settings or {})),
        [Path(one) for one in files],
        venue=venue,
        history=[str(one) for one in pasts],
        shifted=history_shift,
        complain=complaints.append,
    )
    found = msgspec.structs.replace(found, notes=[*found.notes, *complaints])
    if report is not None:
        Path(report).write_text(html(found), encoding="utf-8")
    return found


def shapley(value: npt.ArrayLike, n: int) -> Float64Array1D:
    """Return the Shapley value of each of ``n`` players, exactly. See docs/SHAPLEY.md.

    Parameters
    ----------
    value : float[2**n]
        What each coalition is worth: bit i of its index says whether player i is in it.
    n : int
        1 to 20.

    Returns
    -------
    float64[n]
        They sum to what all together are worth beyond nobody.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    return shapley_model.shapley(value, n)


def off_policy(
    rewards: npt.ArrayLike,
    logged_propensities: npt.ArrayLike,
    target_propensities: npt.ArrayLike,
    *,
    blocks: npt.ArrayLike | None = None,
    refuse: bool = True,
) -> off_policy_model.OffPolicy:
    """Return what another policy would have earned, from the log of one whose propensities are known. See docs/OFF_POLICY.md.

    Parameters
    ----------
    rewards : float[n]
        Of the actions that were taken.
    logged_propensities : float[n]
        With which they were taken: above 0 and up to 1.
    target_propensities : float[n]
        With which the other policy would have taken the same ones: 0 to 1.
    blocks : int[n], optional
        Rows with one number depend on each other; intervals follow from the sums of the blocks.
    refuse : bool
        Whether fewer than 50 effective rows are an error.

    Returns
    -------
    OffPolicy
        ``.ips .snips .ess .n`` and the bounds of 95% intervals ``.ips_low .ips_high .snips_low .snips_high``.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    return off_policy_model.off_policy(rewards, logged_propensities, target_propensities, blocks=blocks, refuse=refuse)


def expected_shortfall(returns: npt.ArrayLike, level: float = 0.95) -> float:
    """Return the mean loss of the worst ``1 - level`` of the returns: above zero where money is lost. See docs/RISK.md.

    Parameters
    ----------
    returns : float[n]
        In any order; of a bar each, or of a trade.
    level : float
        Above 0 and below 1.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    return risk.expected_shortfall(_vector(returns, "returns"), level)


def max_drawdown(equity: npt.ArrayLike) -> float:
    """Return the largest fall from a highest equity before it, as a fraction of that: 0 or more. See docs/RISK.md.

    Parameters
    ----------
    equity : float[n]
        In order of time; the first above 0.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    return risk.max_drawdown(_vector(equity, "equity"))


def almgren_chriss(
    quantity: float, periods: int, sigma: float, epsilon: float, eta: float, gamma: float, lam: float, tau: float = 1.0
) -> schedules.Schedule:
    """Return the schedule of Almgren and Chriss (2000): the least of mean cost plus ``lam`` times its variance, without drift.

    Parameters
    ----------
    quantity
        Units to sell, below 0 to buy.
    periods
        1 to 100,000, of length ``tau`` each.
    sigma
        Volatility in units of price per square root of time.
    epsilon
        Fixed cost of a unit, such as half the spread, in units of price.
    eta
        Temporary impact: price per unit of quantity per unit of time; above ``gamma tau / 2``.
    gamma
        Permanent impact: price per unit of quantity.
    lam
        Aversion to risk, per unit of money; 0 gives a straight line.
    tau
        In the unit of time of ``sigma`` and ``eta``.

    Returns
    -------
    Schedule
        ``.holdings`` float64[periods + 1] from the quantity to 0, ``.trades`` float64[periods] that sum to it, ``.cost`` and ``.variance``
        in money and money squared, ``.kappa`` per unit of time, ``.half_life``.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """
    return schedules.almgren_chriss(quantity, periods, sigma, epsilon, eta, gamma, lam, tau)


def impact_cost(size: float, k: float, a: float, spread: float) -> float:
    """Return the expected cost ``k size^a + spread / 2`` of an order, in bps.

    Parameters
    ----------
    size
        In the unit in which ``k`` is stated, such as a share of a day's volume: 0 or more.
    k
        Impact of a size of 1, in bps; 0 or more.
    a
        Exponent, above 0 and up to 2; a half is the square-root law.
    spread
        Quoted spread in bps, 0 or more.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """
    return impact.cost_bps(size, k, a, 0.5 * spread)


def _stamp(name: str, value: object) -> int:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    raise ValueError(f"expected {name} of a row in whole milliseconds, found {str(value)[:60]!r}: give ts_ms")


def _vector(values: npt.ArrayLike, name: str) -> Float64Array1D:
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "fiu":
        raise ValueError(f"expected {name} as a row of numbers, found {found.dtype} of shape {found.shape}")
    return np.ascontiguousarray(found, np.float64)


def _rows(candles: Mapping[str, npt.ArrayLike] | npt.ArrayLike) -> Float64Array2D:
    """Return candles as rows: of an array of that shape, a structured one, or anything that gives columns by name."""
    names = ("ts_ms", *COLUMNS)
    named = getattr(getattr(candles, "dtype", None), "names", None) or (list(candles.keys()) if hasattr(candles, "keys") else None)
    if named is None:
        found = np.asarray(candles)
        if found.ndim != 2 or found.shape[1] != len(names) or found.dtype.kind not in "fiu":
            raise ValueError(
                f"expected candles of shape (n, {len(names)}) or columns {', '.join(names)}, found {found.dtype} of {found.shape}"
            )
        return np.ascontiguousarray(found, np.float64)
    if missing := [name for name in names if name not in named]:
        raise ValueError(f"expected the columns {', '.join(names)}, found none of {', '.join(missing)}")
    columns: Any = candles
    return np.column_stack([_vector(columns[name], name) for name in names])
