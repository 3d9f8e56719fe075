"""Black's formula and its inverse against decimal arithmetic, and compiled against interpreted."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import interpreted
from alphapack.kernels import black

DIGITS = 90
"""Enough for differences of tails that agree in 40 digits."""


def pi() -> Decimal:
    """Return pi by Machin's formula, in the precision of the context."""

    def arctan(inverse: int) -> Decimal:
        power, total, n = 1 / Decimal(inverse), Decimal(0), 1
        while total + power / n != total:
            total += power / n if n % 4 == 1 else -power / n
            power /= inverse * inverse
            n += 2
        return total

    return 16 * arctan(5) - 4 * arctan(239)


def upper(z: Decimal) -> Decimal:
    """Return the normal probability above z by the series of the one below, in the precision of the context."""
    term, total, n = z, z, 1
    while abs(term) > abs(total).scaleb(-DIGITS - 400):
        n += 2
        term = term * z * z / n
        total += term
    return (1 - 2 * (-z * z / 2).exp() / (2 * pi()).sqrt() * total) / 2


def exact_share(x: Decimal, s: float) -> Decimal:
    """Return the share to at least 40 digits."""
    with localcontext() as context:
        context.prec = DIGITS + 400
        u, h = x / Decimal(s), Decimal(s) / 2
        return upper(u - h) - x.exp() * upper(u + h)


def exact_slope(x: Decimal, s: float) -> Decimal:
    """Return the change of the share with s."""
    with localcontext() as context:
        context.prec = DIGITS
        z = x / Decimal(s) - Decimal(s) / 2
        return (-z * z / 2).exp() / (2 * pi()).sqrt()


@pytest.mark.parametrize("z", [-0.74, -0.3, -1e-9, 0.0, 1e-9, 0.1, 0.7, 1.9, 3.3, 7.7, 12.5, 20.0, 36.0])
def test_options_smile_tail_is_exact(z: float) -> None:
    with localcontext() as context:
        context.prec = DIGITS + 400
        exact = 2 * upper(Decimal(z)) * (Decimal(z) * Decimal(z) / 2).exp()
        assert abs(Decimal(black.tail(z)) / exact - 1) < Decimal(3e-15 if z < -0.2 else 7e-16)


def test_options_smile_tail_tends_to_its_asymptote() -> None:
    for z in (1e3, 1e8, 1e20):
        assert black.tail(z) * z == pytest.approx(black.SLOPE * (1.0 - 1.0 / z / z * (1.0 - 3.0 / z / z)), rel=1e-15, abs=0.0)


CASES = [
    (x, s) for s in (1e-8, 1e-3, 0.0311, 0.12499, 0.12501, 0.7, 1.35, 3.0, 9.0) for x in (0.0, 0.1 * s, s, 3.0 * s, 12.0 * s, 36.0 * s)
]


@pytest.mark.parametrize(("x", "s"), CASES)
def test_options_smile_share_is_exact(x: float, s: float) -> None:
    """The square of u is what an error of the argument is multiplied by: none but that grows."""
    found, exact = black.share(x, s), exact_share(Decimal(x), s)
    assert abs(Decimal(found) / exact - 1) < Decimal(1.2e-14 + 5e-16 * (x / s) ** 2)


@settings(max_examples=60)
@given(scale=st.floats(-16.0, 2.5), z=st.floats(-7.0, 36.0), side=st.booleans())
def test_options_smile_inverse_is_exact(scale: float, z: float, side: bool) -> None:
    """Sizes of s from 1e-7 to 12, and z = x / s - s / 2 from the maximum of the price to 1e-290 of it."""
    s = math.exp(scale)
    x = max(s * (z + 0.5 * s), 0.0) if side else 0.0
    gap = math.expm1(x)
    with localcontext() as context:
        context.prec = DIGITS
        exact_x = (1 + Decimal(gap)).ln()
    part = float(exact_share(exact_x, s))
    assume(1e-300 < part < 1.0)
    found = black.total_volatility(gap, part, 1.0 - part)  # The complement is exact where it is used, from a half on.
    error = (exact_share(exact_x, found) - Decimal(part)) / exact_slope(exact_x, found) / Decimal(found)
    assert abs(error) < Decimal("1e-14")


def test_options_smile_inverse_holds_over_all_floats() -> None:
    """What comes out is priced again; where a share says little about s, s may be off by more."""
    for x in (0.0, 1e-300, 1e-15, 1e-3, 0.3, 5.0, 90.0, 700.0):
        for part in (1e-307, 1e-200, 1e-20, 1e-3, 0.3, 0.5, 0.7, 0.99, 1.0 - 1e-10, 1.0 - 2.0**-53):
            s = black.total_volatility(math.expm1(x), part, 1.0 - part)
            assert 0.0 < s < 100.0 + 2.0 * x
            u2 = (x / s) ** 2
            again = black.share(x, s)
            assert abs(again - part) <= 1e-14 * (1.0 + u2) * part
            if part > 0.5:
                h = 0.5 * s
                z = x / s - h
                rest = 0.5 * math.exp(-0.5 * z * z) * black.width(x / s, h, -1.0)
                assert rest == pytest.approx(1.0 - part, rel=1e-13, abs=0.0)


def sample(n: int) -> tuple[np.ndarray, ...]:
    """Return price, forward, strike, years and call of options of all kinds and of every status."""
    chance = np.random.default_rng(7)
    forward = np.exp(chance.uniform(-3.0, 11.0, n))
    strike = forward * np.exp(chance.normal(0.0, 0.4, n) * chance.choice([0.0, 1e-6, 0.1, 1.0, 10.0], n))
    years = np.exp(chance.uniform(-10.0, 1.0, n))
    call = chance.integers(0, 2, n).astype(np.uint8)
    price = np.empty(n)
    black.prices(forward, strike, np.exp(chance.uniform(-3.0, 1.5, n)), years, call, price)
    price[::11] = chance.choice([0.0, -1.0, math.nan, math.inf, 1e9, 1e-310], len(price[::11]))
    years[::23], strike[::29], forward[::31] = 0.0, -1.0, math.inf
    return price, forward, strike, years, call


def test_options_smile_black_compiled_and_interpreted_agree_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreted, "NAMES", ("black",))
    plain = interpreted.modules()["black"]
    n = 3_000
    price, forward, strike, years, call = sample(n)
    found = []
    for module in (black, plain):
        vols, status, prices, vegas = np.empty(n), np.empty(n, np.uint8), np.empty(n), np.empty(n)
        with np.errstate(all="ignore"):  # Scalars of numpy warn where machine code does not.
            module.implied(price, forward, strike, years, call, vols, status)
            sigma = np.nan_to_num(vols, nan=0.3)
            module.prices(forward, strike, sigma, years, call, prices)
            module.vegas(forward, strike, sigma, years, vegas)
        found.append((vols, status, prices, vegas))
    assert interpreted.bits(found[0]) == interpreted.bits(found[1])
    assert set(found[0][1].tolist()) == set(range(7))
