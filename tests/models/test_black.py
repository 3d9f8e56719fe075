"""Prices and implied volatilities against forty-digit arithmetic, a bisection, and what Black's formula is known to obey."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models import black
from alphapack.models.black import Status

EXACT = (
    (1.0, 1.0, 1.0, 1e-08, False, "3.9894228040143268462e-9", "9.9999999999999997615e-9"),
    (65432.1, 65432.100065432096, 1.0, 1e-08, True, "2.2962435814248154915e-4", "9.9999999999999999155e-9"),
    (0.0371, 0.037100000371, 0.25, 2e-08, True, "3.0910039790444422092e-11", "1.9999999999999999813e-8"),
    (2500.0, 2499.9999375000007, 0.25, 2e-08, False, "5.0103428157287206642e-8", "2.0000000000000000501e-8"),
    (1.0842, 1.0841999457900013, 0.0191781, 7.221e-08, False, "5.7963622206243791659e-16", "7.2209999999999996318e-8"),
    (1.0, 0.999999900000005, 0.0191781, 7.221e-08, False, "7.474798396074918425e-33", "7.2209999999999996091e-8"),
    (65432.1, 65432.113086421305, 0.000114155, 9.3595e-07, True, "8.9652611300175069241e-94", "9.3595000000000001314e-7"),
    (0.0371, 0.03710001113000167, 0.000114155, 9.3595e-07, True, "6.0560433670998295199e-209", "9.359500000000000132e-7"),
    (2500.0, 2500.000920000169, 2.5, 6.32456e-09, True, "6.2683259302761247019e-303", "6.324559999999999923e-9"),
    (1.0842, 1.0842, 2.5, 6.32456e-05, True, "4.3253354027087277493e-5", "0.000063245599999999993969"),
    (1.0, 0.9999900000499998, 1.0, 0.0001, False, "3.5093357636848512499e-5", "0.00010000000000000000371"),
    (65432.1, 65425.55711714959, 1.0, 0.0001, False, "5.4512336302144425353e-1", "0.00010000000000000000537"),
    (0.0371, 0.03710927615947162, 0.25, 0.0002, True, "7.4362784035498634698e-9", "0.00020000000000000000994"),
    (2500.0, 2501.25031255209, 0.25, 0.0002, True, "1.3368755590115366947e-8", "0.0002000000000000000098"),
    (1.0842, 1.0852847422807452, 0.0191781, 0.0007221, True, "8.1082295158525067081e-29", "0.00072210000000000004245"),
    (1.0, 0.9980019986673331, 0.0191781, 0.0007221, False, "1.3688138734810551315e-94", "0.00072210000000000004234"),
    (65432.1, 65236.09785022625, 0.000114155, 0.0093595, False, "1.0664842510837136973e-198", "0.0093594999999999997638"),
    (0.0371, 0.03696372290365049, 0.000114155, 0.0093595, False, "9.2791875748397028717e-304", "0.0093594999999999997644"),
    (2500.0, 2500.0, 2.5, 0.00632456, False, "9.9735228332434391577", "0.0063245600000000001707"),
    (1.0842, 1.0852847422807452, 2.5, 0.00632456, True, "3.8067291604073751902e-3", "0.0063245600000000001125"),
    (1.0, 1.010050167084168, 1.0, 0.01, True, "8.3732426747735944809e-4", "0.010000000000000000242"),
    (65432.1, 63816.575694829065, 1.0, 0.01, False, "1.2950457348895102328", "0.010000000000000000123"),
    (0.0371, 0.03529061164897649, 0.25, 0.02, False, "1.9344337740164411285e-11", "0.020000000000000000429"),
    (2500.0, 2262.0935450898987, 0.25, 0.02, False, "1.7774836096660281404e-23", "0.0200000000000000004"),
    (1.0842, 1.3242448703972562, 0.0191781, 0.07221, True, "1.6417693456291227226e-92", "0.072209999999999996395"),
    (1.0, 1.3498588075760032, 0.0191781, 0.07221, True, "1.8965695247349277632e-201", "0.072209999999999996406"),
    (65432.1, 94539.04877834275, 0.000114155, 0.93595, True, "1.9707465254895789227e-295", "0.93594999999999994867"),
    (0.0371, 0.0371, 0.000114155, 10.2954, True, "1.6272555393769845294e-3", "10.295400000000000335"),
    (2500.0, 2472.650696938422, 2.5, 0.0695701, False, "9.5923644793491213687e+1", "0.069570100000000000294"),
    (1.0842, 0.971263369488496, 2.5, 0.0695701, False, "9.3955987404972962099e-3", "0.06957009999999999774"),
    (1.0, 1.3165306748676215, 1.0, 0.11, True, "2.5263243072275695052e-4", "0.11000000000000000155"),
    (65432.1, 113410.3847904012, 1.0, 0.11, True, "5.0587342179245470594e-4", "0.11000000000000000048"),
    (0.0371, 0.11145455948841268, 0.25, 0.22, True, "5.279218478910497013e-27", "0.22000000000000000115"),
    (2500.0, 277.0078959058347, 0.25, 0.22, False, "1.2522171561802723975e-88", "0.22000000000000000113"),
    (1.0842, 0.039988730096424424, 0.0191781, 0.79431, False, "3.733281883686827332e-201", "0.79430999999999996056"),
    (1.0, 0.01745725425676323, 0.0191781, 0.79431, False, "3.6364901350927232881e-300", "0.79430999999999996049"),
    (65432.1, 65432.1, 0.000114155, 46.7975, False, "1.2917127777283286523e+4", "46.797500000000002259"),
    (0.0371, 0.03900215767555049, 0.000114155, 46.7975, True, "6.5974301663272230743e-3", "46.797500000000000936"),
    (2500.0, 4121.803176750321, 2.5, 0.316228, True, "1.31101086741178685e+2", "0.31622800000000000171"),
    (1.0842, 0.3106285007558181, 2.5, 0.316228, False, "5.6661396145248323107e-4", "0.31622800000000001129"),
    (1.0, 0.0820849986238988, 1.0, 0.5, False, "7.4376714017553866765e-9", "0.50000000000000000058"),
    (65432.1, 440.8780218388602, 1.0, 0.5, False, "1.946671982727010417e-21", "0.50000000000000000014"),
    (0.0371, 817.1818809873292, 0.25, 1.0, True, "3.6562497466254061178e-90", "1.0000000000000000001"),
    (2500.0, 8172543431.180277, 0.25, 1.0, True, "3.5750777710900652588e-193", "1.0000000000000000001"),
    (1.0842, 106200819.98101056, 0.0191781, 3.6105, True, "1.3031503842223816663e-294", "3.6105000000000000426"),
    (1.0, 1.0, 0.0191781, 10.8315, True, "5.4674543504523991264e-1", "10.831499999999999087"),
    (65432.1, 56317.93038424202, 0.000114155, 140.392, False, "2.8863006010401882802e+4", "140.39199999999998773"),
    (0.0371, 0.008278128941506747, 0.000114155, 140.392, False, "1.8357502626286296919e-3", "140.39199999999999633"),
    (2500.0, 106302.70500015696, 2.5, 0.948683, True, "3.8808467653205387965e+1", "0.94868300000000006141"),
    (1.0842, 1960.2795857532637, 2.5, 0.948683, True, "2.8413696944583617021e-6", "0.948683000000000054"),
    (1.0, 3269017.3724721107, 1.0, 1.5, True, "1.5382707247976080902e-21", "1.5000000000000000001"),
    (65432.1, 6.122889218594472e-09, 1.0, 1.5, False, "3.109172345095148533e-92", "1.5"),
    (0.0371, 1.061994393383825e-21, 0.25, 3.0, False, "1.1605719558931160786e-210", "3.0000000000000000002"),
    (2500.0, 2.660018196956386e-21, 0.25, 3.0, False, "7.3166618545570253237e-307", "3.0000000000000000001"),
    (1.0842, 1.0842, 0.0191781, 28.884, False, "1.0348686863502298621", "28.884000000000002884"),
    (1.0, 1.4918246976412703, 0.0191781, 28.884, True, "9.4463293760930482198e-1", "28.883999999999995629"),
    (65432.1, 3572471.612783697, 0.000114155, 374.38, True, "5.02284983418384747e+4", "374.37999999999998362"),
    (0.0371, 1.684337394188188e-06, 0.000114155, 374.38, False, "3.9362828454872763154e-7", "374.37999999999999323"),
    (2500.0, 5.152884056096395e-06, 2.5, 2.52982, False, "3.7562598424936116102e-9", "2.5298199999999999507"),
    (1.0842, 4.606065683587141e-18, 2.5, 2.52982, False, "9.3927509490710785094e-34", "2.5298199999999999557"),
    (1.0, 5.54062238439351e34, 1.0, 4.0, True, "1.7630486616534454006e-73", "4.0000000000000000001"),
    (65432.1, 8.533529365313998e56, 1.0, 4.0, True, "6.6306940204383568465e-169", "4.0000000000000000003"),
    (0.0371, 3.1442831313106194e62, 0.25, 8.0, True, "4.6448543391247494683e-268", "7.9999999999999999997"),
    (2500.0, 2500.0, 0.25, 40.0, True, "2.5e+3", ""),
    (1.0842, 2.0911505851624797e-22, 0.0191781, 144.42, False, "2.0911505851623724686e-22", "144.41980958926855275"),
    (1.0, 3.720075976020836e-44, 0.0191781, 144.42, False, "3.7200745425928238518e-44", "144.42000000017896723"),
    (65432.1, 4.728106381933808e91, 0.000114155, 1871.9, True, "3.1414248854601137855e+4", "1871.9000000000000889"),
    (0.0371, 1.9371652549024976e172, 0.000114155, 1871.9, True, "1.8766087930558148029e-25", "1871.9000000000000913"),
    (2500.0, 9.432550752324849e263, 2.5, 12.6491, True, "3.433298777126101898e-86", "12.649100000000000677"),
    (100.0, 80.0, 0.25, 0.5, True, "2.2265590130531828137e+1", "0.49999999999999987686"),
    (100.0, 125.0, 0.25, 0.5, False, "2.7831987663164785172e+1", "0.49999999999999999642"),
    (65000.0, 40000.0, 0.02, 0.9, True, "2.5000103681092620656e+4", "0.89999999999957375553"),
    (65000.0, 90000.0, 0.1, 0.6, False, "2.5254900485853725217e+4", "0.60000000000000052417"),
    (1.0, 0.5, 1.0, 0.8, True, "5.5754734749284214243e-1", "0.80000000000000026794"),
    (1.0, 3.0, 2.0, 1.2, False, "2.3776922354293208342", "1.1999999999999995715"),
)
"""Forward, strike, years, sigma, call; the price of these floats, and the volatility of that price rounded to a float, where it has one.

Total volatilities from 1e-8 to 20, prices from the middle to 37 standard deviations away; at the end some in the money. Made with
arithmetic of eighty digits.
"""


def row_id(row: tuple[float, float, float, float, bool, str, str]) -> str:
    forward, strike, years, sigma, _, price, _ = row
    return f"s={sigma * math.sqrt(years):.3g} x={math.log(strike / forward):.3g} price={float(price):.3g}"


@pytest.mark.parametrize("row", EXACT, ids=row_id)
def test_options_smile_price_is_exact(row: tuple[float, float, float, float, bool, str, str]) -> None:
    """Far from the forward an ulp of the strike changes a price by more than an ulp, and the square of u says by how many."""
    forward, strike, years, sigma, call, exact, _ = row
    u = math.log(strike / forward) / (sigma * math.sqrt(years))
    assert black.price(forward, strike, sigma, years, call)[0] == pytest.approx(float(exact), rel=1e-14 + 8e-16 * u * u, abs=0.0)


@pytest.mark.parametrize("row", [row for row in EXACT if row[-1]], ids=row_id)
def test_options_smile_implied_volatility_is_exact(row: tuple[float, float, float, float, bool, str, str]) -> None:
    forward, strike, years, _, call, price, exact = row
    vols, status = black.implied_vol(float(price), forward, strike, years, call)
    assert status.tolist() == [Status.OK]
    assert vols[0] == pytest.approx(float(exact), rel=1e-14, abs=0.0)


def plainly(forward: float, strike: float, sigma: float, years: float, call: bool) -> float:
    """Return the price as the textbook has it."""
    s = sigma * math.sqrt(years)
    sign = 1.0 if call else -1.0
    d1 = math.log(forward / strike) / s + 0.5 * s
    below = [0.5 * math.erfc(-sign * d / math.sqrt(2.0)) for d in (d1, d1 - s)]
    return sign * (forward * below[0] - strike * below[1])


def bisected(price: float, forward: float, strike: float, years: float, call: bool) -> float:
    low, high = 1e-4, 20.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if plainly(forward, strike, middle, years, call) < price else (low, middle)
    return 0.5 * (low + high)


options = {
    "forward": st.floats(1e-3, 1e6),
    "moneyness": st.floats(-2.0, 2.0),
    "sigma": st.floats(0.05, 3.0),
    "years": st.floats(1e-4, 3.0),
    "call": st.booleans(),
}


@given(**options)
def test_options_smile_agrees_with_the_textbook_and_a_bisection(
    forward: float, moneyness: float, sigma: float, years: float, call: bool
) -> None:
    strike = forward * math.exp(moneyness * sigma * math.sqrt(years))
    expected = plainly(forward, strike, sigma, years, call)
    assert black.price(forward, strike, sigma, years, call)[0] == pytest.approx(expected, rel=1e-9, abs=1e-13 * forward)
    found, status = black.implied_vol(expected, forward, strike, years, call)
    assert status[0] == Status.OK
    assert found[0] == pytest.approx(bisected(expected, forward, strike, years, call), rel=1e-9)
    step = 1e-4 * sigma
    slope = (plainly(forward, strike, sigma + step, years, call) - plainly(forward, strike, sigma - step, years, call)) / (2.0 * step)
    assert black.vega(forward, strike, sigma, years)[0] == pytest.approx(slope, rel=1e-5)


@given(**options | {"moneyness": st.floats(-30.0, 30.0)})
def test_options_smile_price_and_implied_volatility_are_inverse(
    forward: float, moneyness: float, sigma: float, years: float, call: bool
) -> None:
    """Out of the money an ulp of the price is less than an ulp of the volatility, times what the volatility adds to the price."""
    strike = forward * math.exp(moneyness * sigma * math.sqrt(years))
    call = bool(strike >= forward)
    found, status = black.implied_vol(black.price(forward, strike, sigma, years, call), forward, strike, years, call)
    assert status[0] == Status.OK
    s = sigma * math.sqrt(years)
    assert found[0] == pytest.approx(sigma, rel=2e-14 * (1.0 + math.exp(0.5 * (0.5 * s) ** 2) * s), abs=0.0)


@given(**options)
def test_options_smile_calls_and_puts_mirror_each_other(forward: float, moneyness: float, sigma: float, years: float, call: bool) -> None:
    """A call is a put with forward and strike exchanged, and a call less a put is forward less strike."""
    strike = forward * math.exp(moneyness * sigma * math.sqrt(years))
    here = black.price(forward, strike, sigma, years, call)
    there = black.price(strike, forward, sigma, years, not call)
    assert here.tobytes() == there.tobytes()
    vols = black.implied_vol(here, forward, strike, years, call), black.implied_vol(there, strike, forward, years, not call)
    assert vols[0][0].tobytes() == vols[1][0].tobytes() and vols[0][1].tobytes() == vols[1][1].tobytes()
    call_price, put_price = black.price(forward, strike, sigma, years, np.array([True, False]))
    assert call_price - put_price == pytest.approx(forward - strike, rel=1e-12, abs=1e-14 * (forward + strike))


@given(**options, power=st.integers(-40, 40))
def test_options_smile_scale_of_money_changes_nothing(
    forward: float, moneyness: float, sigma: float, years: float, call: bool, power: int
) -> None:
    scale = 2.0**power
    strike = forward * math.exp(moneyness * sigma * math.sqrt(years))
    price = black.price(forward, strike, sigma, years, call)
    assert (scale * price).tobytes() == black.price(scale * forward, scale * strike, sigma, years, call).tobytes()
    here = black.implied_vol(price, forward, strike, years, call)
    there = black.implied_vol(scale * price, scale * forward, scale * strike, years, call)
    assert here[0].tobytes() == there[0].tobytes() and here[1].tobytes() == there[1].tobytes()


@pytest.mark.parametrize("strike", [30.0, 80.0, 99.999, 100.0, 100.001, 125.0, 400.0])
def test_options_smile_rises_with_the_price(strike: float) -> None:
    """Over all sizes of prices, and across the half of the maximum, where the complement takes over."""
    most = min(100.0, strike)
    prices = most * np.concatenate(
        [np.geomspace(1e-290, 0.4, 500), 0.5 + np.linspace(-1e-3, 1e-3, 401), 1.0 - np.geomspace(0.4, 1e-14, 300)]
    )
    vols, status = black.implied_vol(prices, 100.0, strike, 0.25, strike >= 100.0)
    assert not status.any()
    assert (np.diff(vols) > 0.0).all()
    again = black.price(100.0, strike, vols, 0.25, strike >= 100.0)
    assert (np.diff(again) >= 0.0).all()


@pytest.mark.parametrize(
    ("price", "forward", "strike", "years", "call", "status"),
    [
        (5.0, 100.0, 100.0, 0.25, True, Status.OK),
        (19.0, 100.0, 80.0, 0.25, True, Status.BELOW_INTRINSIC),
        (-1e-9, 100.0, 120.0, 0.25, True, Status.BELOW_INTRINSIC),
        (24.0, 100.0, 125.0, 0.25, False, Status.BELOW_INTRINSIC),
        (20.0, 100.0, 80.0, 0.25, True, Status.AT_INTRINSIC),
        (0.0, 100.0, 120.0, 0.25, True, Status.AT_INTRINSIC),
        (0.0, 100.0, 100.0, 0.25, False, Status.AT_INTRINSIC),
        (100.0, 100.0, 120.0, 0.25, True, Status.ABOVE_MAXIMUM),
        (101.0, 100.0, 80.0, 0.25, True, Status.ABOVE_MAXIMUM),
        (80.0, 100.0, 80.0, 0.25, False, Status.ABOVE_MAXIMUM),
        (125.0, 100.0, 125.0, 0.25, False, Status.ABOVE_MAXIMUM),
        (math.nextafter(20.0, 21.0), 100.0, 80.0, 0.25, True, Status.UNRESOLVED),
        (1e-310, 100.0, 120.0, 0.25, True, Status.UNRESOLVED),
        (math.nan, 100.0, 120.0, 0.25, True, Status.NOT_FINITE),
        (1.0, math.inf, 120.0, 0.25, True, Status.NOT_FINITE),
        (1.0, 100.0, math.nan, 0.25, True, Status.NOT_FINITE),
        (1.0, 100.0, 120.0, math.inf, True, Status.NOT_FINITE),
        (1.0, 1e-200, 1e200, 0.25, False, Status.NOT_FINITE),
        (1.0, 0.0, 120.0, 0.25, True, Status.NOT_POSITIVE),
        (1.0, 100.0, -120.0, 0.25, True, Status.NOT_POSITIVE),
        (1.0, 100.0, 120.0, 0.0, True, Status.NOT_POSITIVE),
    ],
)
def test_options_smile_status_says_why(price: float, forward: float, strike: float, years: float, call: bool, status: Status) -> None:
    vols, found = black.implied_vol(price, forward, strike, years, call)
    assert found.tolist() == [status]
    assert math.isnan(vols[0]) == (status != Status.OK)


def test_options_smile_every_status_has_words_of_its_own() -> None:
    assert len({status.text for status in Status}) == len(Status)


def test_options_smile_in_the_money_is_as_good_as_the_time_value() -> None:
    """Of 2,500 for a forward 25,000 above the strike rounding leaves 12 digits, of less it leaves less."""
    for sigma in (0.9, 0.5, 0.3, 0.2):
        dear = black.price(65_000.0, 40_000.0, sigma, 0.1, True)
        value = black.price(65_000.0, 40_000.0, sigma, 0.1, False)
        vols, status = black.implied_vol(dear, 65_000.0, 40_000.0, 0.1, True)
        lost = math.ulp(dear[0]) / value[0]
        if lost > 0.25:
            assert status[0] in (Status.AT_INTRINSIC, Status.UNRESOLVED)
        else:
            assert vols[0] == pytest.approx(sigma, rel=2.0 * lost + 1e-14, abs=0.0)
    assert status[0] != Status.OK


def test_options_smile_numbers_stand_for_as_many_as_the_others() -> None:
    strikes = np.array([80.0, 100.0, 120.0])
    calls = np.array([False, True, True])
    together = black.price(100, strikes, 0.5, [0.25], calls)
    assert together.tolist() == [black.price(100.0, k, 0.5, 0.25, c)[0] for k, c in zip(strikes, calls, strict=True)]
    vols, status = black.implied_vol(together, 100, [80, 100, 120], 0.25, calls)
    assert vols == pytest.approx(0.5, rel=1e-14) and vols.dtype == np.float64 and status.dtype == np.uint8
    strided = black.price(np.full(6, 100.0)[::2], np.repeat(strikes, 2)[::2], 0.5, np.float32(0.25), np.repeat(calls, 2)[::2])
    assert strided.tobytes() == together.tobytes()
    assert [len(one) for one in black.implied_vol([], 100.0, 100.0, 1.0, True)] == [0, 0]


def test_options_smile_price_has_limits() -> None:
    assert black.price(100.0, [80.0, 120.0], 0.0, 0.25, [True, False]).tolist() == [20.0, 20.0]
    assert black.price(100.0, [80.0, 120.0], 0.5, 0.0, [False, True]).tolist() == [0.0, 0.0]
    assert black.price(100.0, [80.0, 120.0], 1e9, 1.0, True).tolist() == [100.0, 100.0]
    assert black.vega(100.0, [80.0, 100.0], 0.0, 0.25)[0] == 0.0
    assert black.vega(100.0, 100.0, 0.0, 0.25)[0] == pytest.approx(100.0 * 0.5 / math.sqrt(2.0 * math.pi), rel=1e-15)
    wrong = [(math.nan, 1.0, 1.0, 1.0), (-1.0, 1.0, 1.0, 1.0), (1.0, 0.0, 1.0, 1.0), (1.0, 1.0, -1.0, 1.0), (1.0, 1.0, 1.0, math.nan)]
    for one in wrong:
        assert math.isnan(black.price(*one, True)[0]) and math.isnan(black.vega(*one)[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, 2.0], [1.0, 2.0, 3.0], 1.0, 1.0, True), "expected one length, or 1, found price 2, forward 3, strike 1, t 1, call 1"),
        ((1.0, [[1.0]], 1.0, 1.0, True), r"expected forward as real numbers in one dimension, found float64 of shape \(1, 1\)"),
        ((1.0, 1.0, "1.0", 1.0, True), "expected strike as real numbers in one dimension, found <U3"),
        ((1.0, 1.0, 1.0, 1j, True), "expected t as real numbers in one dimension, found complex128"),
        ((True, 1.0, 1.0, 1.0, True), "expected price as real numbers in one dimension, found bool"),
        ((1.0, 1.0, 1.0, 1.0, 1.0), "expected call as booleans in one dimension, found float64"),
        ((1.0, 1.0, 1.0, 1.0, "call"), "expected call as booleans in one dimension, found <U4"),
    ],
)
def test_options_smile_black_refuses_what_are_no_numbers(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        black.implied_vol(*arguments)  # type: ignore[arg-type]
