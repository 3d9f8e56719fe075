"""The option chain of the simulated market: quotes of a smile that is known, in Deribit's words.

Of each coin there is one surface, a function of the seed, the coin and the time alone. Its total variance is the surface
SVI of Gatheral and Jacquier (2014) with phi = eta / sqrt(theta): theta rises with maturity and eta (1 + |rho|) < 2, so that
no butterfly and no calendar spread of it is an arbitrage. What is quoted is that smile to Deribit's own digits.
"""

import hashlib
import math

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.models import black
from alphapack.models.instruments import DAY_MS, EXPIRY_MS, YEAR_MS, date_text

STRIKES_A_SIDE = 7
STEPS_A_SD = 4
"""Strikes within one standard deviation of the forward."""
MONTH_WEEKS = 4
CARRY = 0.05
"""Yearly rate by which forwards stand above the coin."""
REVERSION = 365.0 / 15.0
"""Yearly rate at which the variance of today goes back to that of always: a time constant of fifteen days."""
SLOW_MS, FAST_MS = 4 * DAY_MS, DAY_MS // 2
COIN_TICK = 1e-4
SPREAD = 0.015
"""Half of the quoted spread, as a fraction of the mark."""
MARGIN_MS = 3_600_000
"""An option that expires sooner is not quoted."""


class _Row(msgspec.Struct):
    instrument_name: str
    underlying_price: float
    mark_price: float
    mark_iv: float
    bid_price: float | None
    ask_price: float


class _Body(msgspec.Struct):
    chain: list[_Row]
    ts_ms: int
    iv_unit: str = "percent"


def smile(seed: int, base: str, ts_ms: int, t: float, usual: float) -> Float64Array1D:
    """Return what the smile of a maturity is: a, b, rho, m, sigma of raw SVI.

    Parameters
    ----------
    seed : int
    base : str
        The coin.
    ts_ms : int
        Time of the quotes, milliseconds since 1970.
    t : float
        Years from then to expiry, above 0.
    usual : float
        The coin's usual volatility, an annualised fraction.
    """
    key = f"{seed}\0{base}"
    now = (usual * math.exp(0.3 * _wave(f"{key}\0now", ts_ms))) ** 2
    always = (usual * math.exp(0.1 * _wave(f"{key}\0always", ts_ms))) ** 2
    rho = -0.15 + 0.35 * _wave(f"{key}\0rho", ts_ms)
    eta = 0.9 + 0.3 * _wave(f"{key}\0eta", ts_ms)
    theta = always * t - (now - always) * math.expm1(-REVERSION * t) / REVERSION
    phi = eta / math.sqrt(theta)
    root = math.sqrt(1.0 - rho * rho)
    return np.array([theta / 2.0 * root * root, theta * phi / 2.0, rho, -rho / phi, root / phi])


def yearly(minute_bps: float) -> float:
    """Return the annualised volatility of minutes whose returns deviate by so many basis points."""
    return minute_bps * 1e-4 * math.sqrt(YEAR_MS / 60_000)


def expiries(ts_ms: int) -> list[int]:
    """Return when the listed options expire, in milliseconds: the next two days, four Fridays and two months, at 08:00 UTC."""
    today = (ts_ms + MARGIN_MS - EXPIRY_MS) // DAY_MS + 1
    friday = today + (1 - today) % 7
    days = {today, today + 1, *(friday + 7 * week for week in range(4))}
    month = friday + 7 * 4
    month += 7 * (-(month // 7) % MONTH_WEEKS)
    days |= {month, month + 7 * MONTH_WEEKS}
    return [day * DAY_MS + EXPIRY_MS for day in sorted(days)]


def body(seed: int, base: str, ts_ms: int, price: float, usual: float) -> bytes:
    """Return a chain as it would be posted; ``price`` is the coin's, ``usual`` as ``smile`` takes it."""
    rows: list[_Row] = []
    for expiry_ms in expiries(ts_ms):
        t = (expiry_ms - ts_ms) / YEAR_MS
        rows += _rows(base, expiry_ms, t, price * math.exp(CARRY * t), smile(seed, base, ts_ms, t, usual))
    return msgspec.json.encode(_Body(rows, ts_ms))


def _rows(base: str, expiry_ms: int, t: float, forward: float, params: Float64Array1D) -> list[_Row]:
    a, b, rho, m, sigma = params.tolist()
    atm = math.sqrt(a + b * (-rho * m + math.hypot(m, sigma)))
    step = _round_step(forward * atm / STEPS_A_SD)
    middle = round(forward / step)
    strikes = np.arange(max(1, middle - STRIKES_A_SIDE), middle + STRIKES_A_SIDE + 1) * step
    x = np.log(strikes / forward)
    vols = np.sqrt((a + b * (rho * (x - m) + np.hypot(x - m, sigma))) / t)
    is_call = strikes >= forward
    marks = black.price(forward, strikes, vols, t, is_call) / forward
    date = date_text(expiry_ms)
    rows = []
    for strike, vol, mark, call in zip(strikes.tolist(), vols.tolist(), marks.tolist(), is_call.tolist(), strict=True):
        bid = math.floor(mark * (1.0 - SPREAD) / COIN_TICK)
        ask = math.ceil(mark * (1.0 + SPREAD) / COIN_TICK)
        name = f"{base}-{date}-{_strike_text(strike)}-{'C' if call else 'P'}"
        quotes = (bid / round(1.0 / COIN_TICK) if bid else None, ask / round(1.0 / COIN_TICK))
        rows.append(_Row(name, float(f"{forward:.9g}"), round(mark, 8), round(100.0 * vol, 2), *quotes))
    return rows


def _round_step(step: float) -> float:
    """Return the greatest of 1, 2, 2.5, 5 times a power of ten that is not above ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return max(one * power for one in (1.0, 2.0, 2.5, 5.0) if one * power <= step * (1.0 + 1e-12))


def _strike_text(strike: float) -> str:
    """Return a strike in digits, a decimal point as Deribit writes it."""
    return f"{strike:.8f}".rstrip("0").rstrip(".").replace(".", "d")


def _wave(key: str, ts_ms: int) -> float:
    """Return a smooth function of time that wanders within -1 and 1, over days and over half days."""
    return 0.7 * _lattice(f"{key}\0slow", ts_ms / SLOW_MS) + 0.3 * _lattice(f"{key}\0fast", ts_ms / FAST_MS)


def _lattice(key: str, at: float) -> float:
    """Return a value that is drawn at whole numbers, and between them goes smoothly from one to the next."""
    whole = math.floor(at)
    share = at - whole
    share *= share * (3.0 - 2.0 * share)
    before, after = (
        int.from_bytes(hashlib.blake2b(f"{key}\0{one}".encode(), digest_size=8).digest(), "little") / 2.0**63 - 1.0
        for one in (whole, whole + 1)
    )
    return before + share * (after - before)
