"""HAR: the published numbers, a plain twin by least squares over loops, and what no number may get past."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.kernels import har as kernels
from alphapack.models import har
from alphapack.models.har import Har, Variant

DIGITS = 1e-9
LAGS = (1, 5, 22)


class Twin(NamedTuple):
    """A regression as a textbook has it."""

    design: Float64Array2D
    target: Float64Array1D
    times: list[int]
    """Place of each kept observation in time."""
    left_out: int
    levels: Float64Array1D
    """Target before any logarithm."""

    @property
    def coefficients(self) -> Float64Array1D:
        """By singular values of columns of one size."""
        scales = np.sqrt(np.mean(self.design**2, axis=0))
        found: Float64Array1D = np.linalg.lstsq(self.design / scales, self.target, rcond=None)[0] / scales
        return found

    def errors(self, lag: int) -> list[float]:
        """Return Newey-West errors: a sandwich with a sum over lags, in which what was left out keeps its place."""
        scales = np.sqrt(np.mean(self.design**2, axis=0))
        design = self.design / scales
        scores = np.zeros((self.times[-1] - self.times[0] + 1, design.shape[1]))
        scores[np.array(self.times) - self.times[0]] = design * (self.target - self.design @ self.coefficients)[:, None]
        meat = scores.T @ scores
        for shift in range(1, min(lag, len(scores) - 1) + 1):
            crossed = scores[shift:].T @ scores[:-shift]
            meat += (1.0 - shift / (lag + 1.0)) * (crossed + crossed.T)
        bread = np.linalg.inv(design.T @ design)
        return (np.sqrt(np.diag(bread @ meat @ bread)) / scales).tolist()  # type: ignore[no-any-return]


def twin(
    values: Float64Array1D,
    lags: Sequence[int] = LAGS,
    variant: Variant = "plain",
    extra: Float64Array1D | None = None,
    horizon: int = 1,
    step: int = 1,
    valid: Sequence[bool] | None = None,
) -> Twin:
    """Return the observations, one by one."""
    n = len(values)
    known = [True] * n if valid is None else list(valid)

    def mean(series: Float64Array1D, begin: int, end: int) -> float:
        span = [series[i] for i in range(begin, end) if known[i]]
        return math.fsum(span) / len(span) if 10 * len(span) >= 9 * (end - begin) else math.nan

    rows, targets, times, left_out = [], [], [], 0
    ends = list(range(n - 1 - horizon, lags[-1] - 2, -step))[::-1]
    for time, t in enumerate(ends):
        row = [mean(values, t + 1 - w, t + 1) for w in lags]
        if extra is not None:
            row.append(mean(extra, t + 1 - lags[0], t + 1))
        target = mean(values, t + 1, t + 1 + horizon)
        if any(math.isnan(one) or (variant == "log" and one == 0.0) for one in (*row, target)):
            left_out += 1
            continue
        rows.append(row)
        targets.append(target)
        times.append(time)
    x, y = np.array(rows).reshape(len(rows), -1), np.array(targets)
    if variant == "log":
        x = np.log(x)
    elif variant == "harq":
        roots = np.sqrt(x[:, -1])
        x[:, -1] = (roots - np.mean(roots)) * x[:, 0]
    elif variant == "harj":
        x[:, -1] = np.maximum(x[:, 0] - x[:, -1], 0.0)
    return Twin(np.column_stack((np.ones(len(x)), x)), np.log(y) if variant == "log" else y, times, left_out, y)


def series(n: int, seed: int = 1, persistence: float = 0.97) -> Float64Array1D:
    """Return variances whose logarithm is slow, as measured ones are."""
    draws = np.random.default_rng(seed)
    logs = np.zeros(n)
    for i in range(1, n):
        logs[i] = persistence * logs[i - 1] + 0.25 * draws.standard_normal()
    return np.exp(logs) * draws.chisquare(5, n) / 5.0


def extras(variant: Variant, values: Float64Array1D, seed: int = 2) -> dict[str, Any]:
    """Return what a variant takes beside the values, by its name."""
    noise = np.random.default_rng(seed).uniform(0.5, 1.4, len(values))
    found = {"harq": {"quarticity": (values * noise) ** 2}, "harj": {"bipower": values * noise}}
    return found.get(variant, {})


@pytest.fixture(scope="module")
def measures(request: pytest.FixtureRequest) -> dict[str, Float64Array1D]:
    """Columns of the S&P 500 measures, 1997 to 2013."""
    data: Path = request.getfixturevalue("data")
    table = np.genfromtxt(data / "econ" / "sp500_rm_1997_2013.csv", delimiter=",", names=True)
    return {name: np.ascontiguousarray(table[name]) for name in ("RV", "RQ", "BPV")}


# Against published and textbook numbers


def test_vol_models_har_of_the_sp500_has_the_known_coefficients(measures: dict[str, Float64Array1D]) -> None:
    one = har.fit(measures["RV"])
    assert list(one.params) == ["const", "rv_1", "rv_5", "rv_22"]
    assert [round(value, 5) for value in one.params.values()] == [0.11231, 0.22734, 0.49035, 0.18638]
    assert (round(one.r2, 5), one.n, one.rows_left_out, one.lag) == (0.52243, 4_074, 0, 9)
    assert one.persistence == pytest.approx(0.22734 + 0.49035 + 0.18638, abs=2e-5)


VARIANTS: list[tuple[Variant, str | None, str | None]] = [
    ("plain", None, None),
    ("log", None, None),
    ("harq", "quarticity", "RQ"),
    ("harj", "bipower", "BPV"),
]


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
@pytest.mark.parametrize(("variant", "name", "column"), VARIANTS)
def test_vol_models_har_of_the_sp500_equals_the_twin(
    measures: dict[str, Float64Array1D], variant: Variant, name: str | None, column: str | None, scale: float
) -> None:
    """To nine digits, coefficients and errors, in units in which the columns of HARQ are sixteen powers of ten apart too."""
    extra = measures[column] * (scale * scale if variant == "harq" else scale) if column else None
    values = scale * measures["RV"]
    one = har.fit(values, variant=variant, **({name: extra} if name else {}))
    other = twin(values, variant=variant, extra=extra)
    np.testing.assert_allclose(one.coefficients, other.coefficients, rtol=DIGITS)
    np.testing.assert_allclose(one.errors, other.errors(one.lag), rtol=DIGITS)
    residual = other.target - other.design @ other.coefficients
    assert one.r2 == pytest.approx(1.0 - residual.var() / other.target.var(), rel=DIGITS)
    assert one.smearing == pytest.approx(np.mean(np.exp(residual)) if variant == "log" else 1.0, rel=DIGITS)
    assert (one.low, one.high) == (other.levels.min(), other.levels.max())
    assert one.names[4:] == {"harq": ("rq",), "harj": ("jump",)}.get(variant, ())


@pytest.mark.parametrize("lag", [0, 5, 60])
@pytest.mark.parametrize(("variant", "name", "column"), VARIANTS)
def test_vol_models_har_errors_equal_those_of_statsmodels(
    measures: dict[str, Float64Array1D], variant: Variant, name: str | None, column: str | None, lag: int
) -> None:
    api = pytest.importorskip("statsmodels.api")
    extra = measures[column] if column else None
    one = har.fit(measures["RV"], variant=variant, lag=lag, **({name: extra} if name else {}))
    other = twin(measures["RV"], variant=variant, extra=extra)
    fitted = api.OLS(other.target, other.design).fit(cov_type="HAC", cov_kwds={"maxlags": lag})
    np.testing.assert_allclose(one.coefficients, fitted.params, rtol=DIGITS)
    np.testing.assert_allclose(list(one.stderr().values()), fitted.bse, rtol=DIGITS)


@given(
    st.integers(0, 50),
    st.lists(st.integers(1, 30), min_size=1, max_size=4, unique=True).map(sorted),
    st.integers(1, 12),
    st.integers(1, 5),
    st.sampled_from(["plain", "log", "harq", "harj"]),
    st.sampled_from([0.0, 0.01, 0.05]),
)
def test_vol_models_har_equals_the_twin(seed: int, lags: list[int], horizon: int, step: int, variant: Variant, missing: float) -> None:
    values = series(420, seed)
    valid = np.random.default_rng(seed).random(len(values)) >= missing
    extra = extras(variant, values, seed)
    other = twin(values, lags, variant, next(iter(extra.values()), None), horizon, step, valid.tolist())
    assume(len(other.target) >= 30)
    one = har.fit(values, lags, variant, horizon=horizon, step=step, valid=valid, **extra)
    assert (one.n, one.rows_left_out) == (len(other.target), other.left_out)
    assert one.lag == har.newey_west_lag(one.n, math.ceil(horizon / step))
    size = np.sqrt(np.mean(other.design**2, axis=0)) / np.std(other.target)
    np.testing.assert_allclose(one.coefficients * size, other.coefficients * size, rtol=DIGITS, atol=DIGITS)
    np.testing.assert_allclose(one.errors, other.errors(one.lag), rtol=1e-7)
    assert (one.low, one.high) == pytest.approx((other.levels.min(), other.levels.max()), rel=1e-14)


def test_vol_models_har_of_variances_that_hardly_vary_keeps_its_digits() -> None:
    """With a mean ten million times the deviations: least squares of the deviations, for which nothing cancels."""
    noise = series(600) - 1.0
    one, other = har.fit(1e7 + noise, (1, 4)), twin(noise, (1, 4))
    np.testing.assert_allclose(one.coefficients[1:], other.coefficients[1:], rtol=1e-6)
    np.testing.assert_allclose(one.errors[1:], other.errors(one.lag)[1:], rtol=1e-6)


def test_vol_models_har_left_out_observations_keep_their_place_in_time() -> None:
    """Errors of a series with an outage are not those of the observations pushed together."""
    values, valid = series(300), np.ones(300, np.uint8)
    valid[100:160] = 0
    one, other = har.fit(values, (1, 3), valid=valid, lag=20), twin(values, (1, 3), valid=[bool(known) for known in valid])
    np.testing.assert_allclose(one.errors, other.errors(20), rtol=DIGITS)
    together = other._replace(times=list(range(len(other.times))))
    assert np.abs(np.array(together.errors(20)) / one.errors - 1.0).max() > 1e-4


# Properties


@given(st.integers(0, 30), st.floats(1e-12, 1e12), st.sampled_from(["plain", "log", "harq", "harj"]))
def test_vol_models_har_follows_the_unit(seed: int, unit: float, variant: Variant) -> None:
    values = series(200, seed)
    extra = extras(variant, values)
    one = har.fit(values, (1, 5), variant, **extra)
    scaled = {name: other * (unit * unit if name == "quarticity" else unit) for name, other in extra.items()}
    other = har.fit(unit * values, (1, 5), variant, **scaled)
    np.testing.assert_allclose(other.coefficients[1:3], one.coefficients[1:3], rtol=1e-8, atol=1e-11)
    constant = one.coefficients[0] + math.log(unit) * (1.0 - one.persistence) if variant == "log" else unit * one.coefficients[0]
    assert other.coefficients[0] == pytest.approx(constant, rel=1e-8, abs=1e-9 * (1.0 if variant == "log" else unit))
    assert other.forecast() == pytest.approx(unit * one.forecast(), rel=1e-9)
    assert (other.r2, other.smearing) == pytest.approx((one.r2, one.smearing), rel=1e-9)


@given(st.integers(0, 20), st.sampled_from([math.nan, math.inf, -1.0, 0.0, 7.0]))
def test_vol_models_har_reads_nothing_of_a_missing_period(seed: int, filler: float) -> None:
    values = series(150, seed)
    valid = np.random.default_rng(seed).random(150) > 0.02
    for variant in ("plain", "log", "harq", "harj"):
        extra = extras(variant, values)
        one = har.fit(values, (1, 10), variant, horizon=2, valid=valid, **extra)
        other = har.fit(
            np.where(valid, values, filler),
            (1, 10),
            variant,
            horizon=2,
            valid=valid.astype(np.uint8),
            **{name: np.where(valid, series, filler) for name, series in extra.items()},
        )
        assert one == other


@given(
    st.integers(0, 149), st.sampled_from([math.nan, math.inf, -math.inf, -1e-9, 1e51]), st.sampled_from(["plain", "log", "harq", "harj"])
)
def test_vol_models_har_lets_no_bad_number_pass(at: int, bad: float, variant: Variant) -> None:
    values = series(150)
    extra = extras(variant, values)
    spoilt = values.copy()
    spoilt[at] = bad
    with pytest.raises(ValueError, match=re.escape(f"expected values from 0 to 1e+50 in known periods, found {bad} at index {at}")):
        har.fit(spoilt, (1, 10), variant, **extra)
    for name, other in extra.items():
        other[at] = bad
        with pytest.raises(ValueError, match=re.escape(f"expected {name} from 0 to 1e+50 in known periods, found {bad} at index {at}")):
            har.fit(values, (1, 10), variant, **extra)


# Means


@given(st.integers(0, 40), st.integers(0, 60), st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True).map(sorted))
def test_vol_models_har_means_depend_on_their_windows_alone(seed: int, before: int, lags: list[int]) -> None:
    draws = np.random.default_rng(seed)
    values, valid = 10.0 ** draws.uniform(-9, 9, 160), draws.random(160) > 0.02
    at = 130
    whole = har.means(values, valid, lags, at)
    begin = at + 1 - lags[-1] - min(before, at + 1 - lags[-1])
    part = har.means(values[begin:], valid[begin:], lags, at - begin)
    for found in (whole, part):
        if any(10 * valid[at + 1 - lag : at + 1].sum() < 9 * lag for lag in lags):
            assert found is None
        else:
            assert found is not None and whole is not None
            assert found.tobytes() == whole.tobytes()
            for mean, lag in zip(found, lags, strict=True):
                span = slice(at + 1 - lag, at + 1)
                assert mean == pytest.approx(math.fsum(values[span][valid[span]]) / valid[span].sum(), rel=1e-13)


def test_vol_models_har_means_need_nine_tenths_of_a_window() -> None:
    values, valid = np.arange(1.0, 41.0), np.ones(40, bool)
    valid[[31, 35]] = False
    found = har.means(values, valid, (20,), 39)
    assert found is not None
    assert found.tolist() == [sum(one for one in range(21, 41) if one not in (32, 36)) / 18]
    assert har.means(values, valid, (19,), 39) is None  # 17 of 19.
    assert har.means(values, None, (40,), 39) is not None
    assert har.means(values, None, (41,), 39) is None
    assert har.means(values, None, (39, 40), 38) is None


def test_vol_models_har_means_refuse_what_is_no_variance() -> None:
    for bad in (math.nan, math.inf, -1.0):
        values = np.array([1.0, bad, 2.0, 3.0])
        assert har.means(values, None, (2,), 3) is not None
        with pytest.raises(ValueError, match=r"expected values from 0 to 1e\+50, found others among the 3 up to index 3"):
            har.means(values, None, (1, 3), 3)
    for at in (-1, 4):
        with pytest.raises(ValueError, match="expected an index from 0 to 3"):
            har.means(np.ones(4), None, (1,), at)


def test_vol_models_har_takes_read_only_and_strided_arrays() -> None:
    values = series(200)
    frozen, strided = values.copy(), np.repeat(values, 2)[::2]
    frozen.setflags(write=False)
    assert har.fit(frozen) == har.fit(strided) == har.fit(values)
    for other in (frozen, strided):
        found, expected = har.means(other, None, LAGS, 150), har.means(values, None, LAGS, 150)
        assert found is not None and expected is not None and found.tobytes() == expected.tobytes()


# Forecasts and their guards


@pytest.mark.parametrize("variant", ["plain", "log", "harq", "harj"])
def test_vol_models_har_forecast_is_the_fit_at_the_end_of_the_sample(variant: Variant) -> None:
    values = series(400, 9)
    extra = extras(variant, values)
    one = har.fit(values, (2, 10), variant, horizon=3, **extra)
    levels = har.means(values, None, (2, 10), 399)
    assert levels is not None
    beside = [har.means(series, None, (2,), 399) for series in extra.values()]
    given = np.concatenate((levels, *(one for one in beside if one is not None)))
    assert one.latest == tuple(given.tolist())
    x = given.tolist()
    if variant == "log":
        x = [math.log(level) for level in x]
    elif variant == "harq":
        x[2] = (math.sqrt(x[2]) - one.centre) * x[0]
    elif variant == "harj":
        x[2] = max(x[0] - x[2], 0.0)
    fitted = one.coefficients[0] + sum(b * level for b, level in zip(one.coefficients[1:], x, strict=True))
    expected = one.smearing * math.exp(fitted) if variant == "log" else fitted
    assert one.low < expected < one.high, "the case says nothing where the guard acts"
    assert one.forecast() == one.predict(given) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.floats(1e-40, 1e40), min_size=3, max_size=3), st.sampled_from(["plain", "log", "harq", "harj"]))
def test_vol_models_har_forecasts_stay_in_the_range_that_was_seen(levels: list[float], variant: Variant) -> None:
    values = series(200, 4)
    one = har.fit(values, (1, 5, 22) if variant in ("plain", "log") else (1, 5), variant, **extras(variant, values))
    assert 0.0 < one.low <= one.predict(np.array(levels)) <= one.high


def test_vol_models_har_forecasts_are_positive_where_most_targets_are_zero() -> None:
    values = np.where(np.random.default_rng(1).random(500) < 0.3, series(500), 0.0)
    one = har.fit(values, (1, 5))
    targets = values[5:]
    assert one.low == targets[targets > 0.0].min()
    assert one.predict(np.zeros(2)) >= one.low


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_vol_models_har_predicts_from_nothing_that_is_no_variance(bad: float) -> None:
    one = har.fit(series(100), (1, 5))
    with pytest.raises(ValueError, match=rf"expected means of at least 0 and at most 1e\+50, found {bad}"):
        one.predict(np.array([1.0, bad]))
    with pytest.raises(ValueError, match="expected 2 means, found 3"):
        one.predict(np.ones(3))
    logs = har.fit(series(100), (1, 5), "log")
    with pytest.raises(ValueError, match=r"expected means above 0 and at most 1e\+50, found 0.0"):
        logs.predict(np.array([0.0, 1.0]))


def test_vol_models_har_without_an_end_forecasts_nothing() -> None:
    values, valid = series(200), np.ones(200, bool)
    valid[-1] = False
    one = har.fit(values, (1, 5), valid=valid)
    assert one.latest == ()
    with pytest.raises(ValueError, match="expected at least 90% of the last 5 periods of the sample, found fewer"):
        one.forecast()


def test_vol_models_har_of_logs_leaves_out_windows_without_a_move() -> None:
    values = series(300)
    values[100:104] = 0.0
    one, other = har.fit(values, (1, 5), "log"), twin(values, (1, 5), "log")
    assert (one.rows_left_out, one.n) == (5, 290) == (other.left_out, len(other.target))
    np.testing.assert_allclose(one.coefficients, other.coefficients, rtol=DIGITS)
    assert har.fit(values, (1, 5)).rows_left_out == 0


def test_vol_models_har_forecasts_the_horizon_that_it_was_fitted_to() -> None:
    """Of a process whose variance returns to 1 by a tenth a period, seen without noise."""
    draws, values = np.random.default_rng(8), np.ones(4_000)
    for i in range(1, len(values)):
        values[i] = 1.0 + 0.9 * (values[i - 1] - 1.0) + 0.02 * draws.standard_normal()
    for horizon in (1, 10, 40):
        one = har.fit(values, (1,), horizon=horizon, step=2)
        assert one.persistence == pytest.approx(sum(0.9**i for i in range(1, horizon + 1)) / horizon, abs=0.06)
        assert one.lag >= math.ceil(horizon / 2) - 1


# What is refused, and what is stored


def test_vol_models_har_names_what_cannot_be_told_apart() -> None:
    flat, values = np.full(300, 2.5), series(300)
    for variant in ("plain", "log"):
        with pytest.raises(ValueError, match="expected numbers that vary, found rv_1 the same in all observations"):
            har.fit(flat, variant=variant)
    with pytest.raises(ValueError, match="found rq the same"):
        har.fit(values, variant="harq", quarticity=np.full(300, 0.3))
    with pytest.raises(ValueError, match="found jump the same"):
        har.fit(values, variant="harj", bipower=2.0 * values)
    with pytest.raises(ValueError, match="found rv_5 the same"):  # A cycle of five.
        har.fit(np.tile(values[:5], 60), (1, 5))
    with pytest.raises(ValueError, match="expected regressors that do not follow from each other, found that rv_6 does"):
        har.fit(np.tile(values[:4], 75), (2, 6))  # Of two periods and a whole cycle.
    with pytest.raises(ValueError, match="expected values with a mean of at least 1e-50, found 0"):
        har.fit(np.zeros(300))
    last = np.zeros(100)
    last[:3] = 1.0
    with pytest.raises(ValueError, match="found the target the same"):
        har.fit(last, (3,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lags": ()}, r"expected 1 to 8 whole lags, ascending, from 1 to 1,073,741,824, found \(\)"),
        ({"lags": (5, 1)}, "ascending"),
        ({"lags": (1, 1)}, "ascending"),
        ({"lags": (0, 1)}, "from 1"),
        ({"lags": (1.0, 2.0)}, "whole lags"),
        ({"lags": tuple(range(1, 10))}, "expected 1 to 8"),
        ({"lags": (1, 10**30)}, "to 1,073,741,824"),
        ({"lags": (1, 200)}, "expected at least 206 values for 6 observations of 3 parameters, found 150"),
        ({"horizon": 0}, "expected horizon as a whole number of at least 1, found 0"),
        ({"horizon": 2.5}, "expected horizon"),
        ({"horizon": 10**9}, "expected at least 1000000029 values"),
        ({"step": 0}, "expected step"),
        ({"step": "1"}, "expected step"),
        ({"lag": -1}, "expected lag as a whole number of at least 0"),
        ({"variant": "weekly"}, "expected a variant of plain, log, harq, harj, found 'weekly'"),
        ({"variant": "harq"}, "expected quarticity with variant harq, found that quarticity was not"),
        ({"quarticity": np.ones(150)}, "expected no other series with variant plain, found that quarticity was given"),
        ({"variant": "harq", "quarticity": np.ones(150), "bipower": np.ones(150)}, "found that bipower was given"),
        ({"variant": "harj", "bipower": np.ones(149)}, r"expected bipower of shape \(150,\), found \(149,\)"),
        ({"values": np.ones((5, 30))}, r"expected values of shape \(n,\), found \(5, 30\)"),
        ({"values": np.ones(0)}, "found 0"),
        ({"valid": np.ones(149, bool)}, r"expected valid as bool or uint8 of shape \(150,\), found bool of shape \(149,\)"),
        ({"valid": np.ones(150)}, "found float64"),
        ({"valid": np.zeros(150, bool)}, "expected values with a mean"),
        ({"valid": np.arange(150) % 2 == 0}, "expected at least 8 observations with enough known periods for 4 parameters, found 0"),
    ],
)
def test_vol_models_har_says_what_it_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        har.fit(**({"values": series(150)} | changes))


def test_vol_models_har_is_stored_and_read_back() -> None:
    values = series(200)
    for variant in ("plain", "log", "harq", "harj"):
        one = har.fit(values, (1, 5), variant, horizon=2, step=2, **extras(variant, values))
        raw = msgspec.msgpack.encode(one)
        again = msgspec.msgpack.decode(raw, type=Har)
        assert again == one
        assert (again.params, again.stderr(), again.forecast()) == (one.params, one.stderr(), one.forecast())
    fields = msgspec.to_builtins(har.fit(values, (1, 5)))
    for changes in (
        {"coefficients": (1.0, 2.0)},
        {"coefficients": (1.0, 2.0, math.nan)},
        {"errors": (1.0, 2.0, math.inf)},
        {"latest": (1.0,)},
        {"low": 0.0},
        {"low": 1e9},
        {"smearing": 0.0},
        {"variant": "weekly"},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(fields | changes), type=Har)


def test_vol_models_har_can_be_fitted_without_errors() -> None:
    values = series(200)
    one, other = har.fit(values, (1, 5)), har.fit(values, (1, 5), errors=False)
    assert msgspec.structs.replace(one, errors=()) == other
    with pytest.raises(ValueError, match="expected a fit with standard errors, found one that was made without"):
        other.stderr()


@pytest.mark.parametrize(("n", "horizon", "lag"), [(4_074, 1, 9), (43_200, 1, 15), (43_200, 60, 59), (100, 1, 4), (3, 60, 2)])
def test_vol_models_har_lag_covers_the_overlap(n: int, horizon: int, lag: int) -> None:
    assert har.newey_west_lag(n, horizon) == lag


def test_vol_models_har_kernels_can_be_made_ready() -> None:
    har.warm()
    assert all(getattr(kernel, "signatures", True) for kernel in (kernels.gather, kernels.errors)), "each is compiled"
