"""Volatility through the engine's one door: candles in, fits as results, forecasts and scores out, the same after a restart."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from alphapack import app
from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.domain.events import Record, WorkFailed, WorkRequested
from alphapack.domain.inputs import HISTORY_ROWS_MAX, Configure, CoreSettings, Frame, Heartbeat, History, Result
from alphapack.engine.engine import Engine
from alphapack.models import volatility
from alphapack.models.accuracy import MATURED_MIN
from alphapack.models.cascade import NotEnough
from alphapack.models.minutes import MINUTE_MS
from alphapack.models.volatility import MINUTES_MIN, WORK
from alphapack.services.volatility import REFIT_MINUTES, SCORED, STALE_MINUTES

T0 = 1_723_161_600_000
"""A minute of 2024-08-09, a Friday."""
SYMBOL = "binance-usdm:BTCUSDT"
MS = 1_000_000
N = MINUTES_MIN + volatility.SCORED_MINUTES + 200


def walk(n: int = N, seed: int = 0) -> Float64Array1D:
    """Closes whose volatility wanders and has a cycle of a day."""
    rng = np.random.default_rng(seed)
    level, x = np.empty(n), 0.0
    for i, shock in enumerate(rng.normal(0, 0.05, n)):
        x = 0.995 * x + shock
        level[i] = x + 0.3 * math.sin(2 * math.pi * i / 1_440)
    closes: Float64Array1D = 60_000 * np.exp(np.cumsum(rng.standard_normal(n) * 5e-4 * np.exp(level)))
    return np.round(closes, 2)


def candles(closes: Float64Array1D, first_ms: int) -> Float64Array2D:
    rows = np.empty((len(closes), 6))
    rows[:, 0] = first_ms + MINUTE_MS * np.arange(len(closes))
    rows[:, 1:5] = closes[:, None]
    rows[:, 5] = 1.5
    return rows


class Fed:
    """An engine that is given candles, and whose fits are made when asked for."""

    def __init__(self, engine: Engine | None = None, **core: Any) -> None:
        self.engine = engine or app.build()
        if engine is None:
            self.engine.step(Configure(1, T0 * MS, CoreSettings(**core)))

    def step(self, make: Any, *arguments: Any, ts_ms: int | None = None) -> list[Record]:
        ts_ns = self.engine.now_ns if ts_ms is None else ts_ms * MS
        return self.engine.step(make(self.engine.seq + 1, ts_ns, *arguments))

    def history(self, rows: Float64Array2D) -> None:
        for start in range(0, len(rows), HISTORY_ROWS_MAX):
            self.step(History, SYMBOL, 0, rows[start : start + HISTORY_ROWS_MAX].tobytes())

    def settle(self) -> list[WorkRequested]:
        """Let two seconds pass; return what is asked for."""
        records = self.step(Heartbeat, ts_ms=self.engine.now_ns // MS + 2_000)
        return [one for one in records if isinstance(one, WorkRequested) and one.work == WORK]

    def answer(self, request: WorkRequested) -> list[Record]:
        return self.step(Result, request.request_id, WORK, True, volatility.work(request.body))

    def minute(self, open_ms: int, close: float) -> list[Record]:
        price = f"{close:.2f}"
        times = {"t": open_ms, "T": open_ms + MINUTE_MS - 1, "s": "BTCUSDT", "i": "1m", "x": True}
        k = {**times, "o": price, "c": price, "h": price, "l": price, "v": "2"}
        body = json.dumps({"e": "kline", "E": open_ms + MINUTE_MS, "s": "BTCUSDT", "k": k}, separators=(",", ":")).encode()
        return self.step(Frame, "binance-usdm", "", body, ts_ms=max(open_ms + MINUTE_MS + 5, self.engine.now_ns // MS))

    def forecast(self, horizon: int = 60, variant: str = "log") -> Any:
        said = self.engine.volatility.forecast(SYMBOL, horizon, variant, {}, None)
        return msgspec.json.decode(msgspec.json.encode(said))


CLOSES = walk(N + 400)
PAST = candles(CLOSES[:N], T0 - N * MINUTE_MS)


@pytest.fixture(scope="module")
def saved() -> bytes:
    """The state of an engine with a fit."""
    fed = Fed()
    fed.history(PAST)
    (request,) = fed.settle()
    fed.answer(request)
    return fed.engine.save()


@pytest.fixture
def fitted(saved: bytes) -> Fed:
    engine = app.build()
    engine.load(saved)
    return Fed(engine)


def test_vol_models_are_fitted_once_the_past_has_settled() -> None:
    fed = Fed()
    fed.history(PAST[:9_000])
    assert fed.settle() == [], "a week and thirty minutes are needed"
    with pytest.raises(NotEnough, match=r"expected at least 10,110 one-minute candles .*, found 9,000: 1,110 more are missing"):
        fed.forecast()
    fed.history(PAST[9_000:])
    with pytest.raises(NotEnough, match="none yet: it is being made"):
        fed.forecast()
    (request,) = fed.settle()
    assert fed.settle() == [], "asked once"
    assert not any(isinstance(one, WorkFailed) for one in fed.answer(request))
    assert fed.forecast()["n_obs"] == N - 1


def test_vol_models_are_served_with_what_they_were_made_of(fitted: Fed) -> None:
    said = fitted.forecast(60)
    assert (said["symbol"], said["h"], said["rule"], said["extrapolated"]) == ("BTCUSDT", 60, "max", False)
    assert said["asof_ms"] == T0 == said["fitted_ms"]
    assert said["sigma"] == max(said["sigmaHAR"], said["sigmaGARCH"])
    for name in ("sigmaHAR", "sigmaGARCH", "sigma"):
        assert said["annualized"][name] == pytest.approx(said[name] * math.sqrt(525_600 / 60), rel=1e-12)
        assert 0.1 < said["annualized"][name] < 5
    assert said["models"]["har"]["lags"] == [15, 60, 240, 1_440, 10_080]
    assert set(said["models"]["har"]["params"]) >= {"const", "rv_15", "rv_10080", "bv_240"}
    plain = said["models"]["harPlain"]
    assert (plain["lags"], set(plain["params"])) == ([60, 300, 1_320], {"const", "rv_60", "rv_300", "rv_1320"})
    garch = said["models"]["garch"]
    assert garch["converged"] is True
    assert garch["persistence"] == pytest.approx(garch["alpha"] + garch["beta"])
    assert said["sigmaHAR"] != said["sigmaGARCH"]


def test_vol_models_serve_the_plain_regression_when_asked(fitted: Fed) -> None:
    log, plain = fitted.forecast(60), fitted.forecast(60, "plain")
    assert plain["sigmaHAR"] == plain["models"]["harPlain"]["sigma"] == log["models"]["harPlain"]["sigma"] != log["sigmaHAR"]
    assert plain["models"]["har"]["variant"] == "plain"
    assert plain["models"]["har"]["params"] == log["models"]["harPlain"]["params"]
    assert plain["sigmaGARCH"] == log["sigmaGARCH"]


@pytest.mark.parametrize("horizon", [1, 5, 7, 60, 61, 240, 1_440, 10_080])
def test_vol_models_answer_for_any_horizon_from_a_minute_to_a_week(fitted: Fed, horizon: int) -> None:
    said = fitted.forecast(horizon)
    direct = (N - 10_080) // 30
    assert said["extrapolated"] == (horizon > direct)
    assert said["models"]["har"]["horizon"] == min(horizon, direct)
    assert said["models"]["har"]["lags"][-1] == 10_080
    assert 1e-5 < said["sigmaGARCH"] / math.sqrt(horizon) < 1e-2
    assert 1e-5 < said["sigmaHAR"] / math.sqrt(horizon) < 1e-2


@pytest.mark.parametrize("horizon", [0, -1, 10_081, True, 2.5, math.inf])
def test_vol_models_refuse_any_other_horizon(fitted: Fed, horizon: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a horizon of 1 to 10,080 whole minutes, found"):
        fitted.engine.volatility.forecast_vol(SYMBOL, horizon)


def test_vol_models_agree_with_what_a_notebook_is_told(fitted: Fed) -> None:
    from alphapack import forecast_vol

    said = fitted.forecast(60)
    assert forecast_vol(PAST, 60) == (said["sigmaHAR"], said["sigmaGARCH"])


def test_vol_models_follow_each_closed_minute(fitted: Fed) -> None:
    calm = fitted.forecast(5)
    fitted.minute(T0, CLOSES[N - 1] * 1.02)
    wild = fitted.forecast(5)
    assert wild["asof_ms"] == calm["asof_ms"] + MINUTE_MS
    assert wild["sigmaHAR"] > 1.3 * calm["sigmaHAR"]
    assert wild["sigmaGARCH"] > 1.3 * calm["sigmaGARCH"]
    assert wild["fitted_ms"] == calm["fitted_ms"]
    assert wild["models"]["garch"]["alpha"] == calm["models"]["garch"]["alpha"]


def test_vol_models_put_their_minutes_into_the_digest(saved: bytes) -> None:
    digests = []
    for price in (CLOSES[N], CLOSES[N] * 1.01):
        engine = app.build()
        engine.load(saved)
        fed = Fed(engine)
        observed: list[bytes] = []
        engine.observe = observed.append  # type: ignore[method-assign]
        fed.minute(T0, price)
        digests.append(observed)
    assert len(digests[0]) == len(digests[1]) == 1
    assert digests[0] != digests[1]


def test_vol_models_are_the_same_after_a_restart_as_without_one(fitted: Fed) -> None:
    """The horizons that a fit brings and others, minutes later, scored along the way: to the bit."""
    for i in range(130):
        fitted.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
        if i == 70:
            kept = fitted.engine.save()
    again = Fed(app.build())
    again.engine.load(kept)
    for i in range(71, 130):
        again.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
    for horizon in (1, 5, 37, 60, 1_440, 9_999):
        assert again.forecast(horizon) == fitted.forecast(horizon)
    assert again.engine.hexdigest() == fitted.engine.hexdigest()
    assert again.engine.volatility.accuracy(SYMBOL) == fitted.engine.volatility.accuracy(SYMBOL)
    assert again.engine.volatility.past(SYMBOL, 0, 999) == fitted.engine.volatility.past(SYMBOL, 0, 999)
    assert again.engine.save() == fitted.engine.save()


def test_vol_models_are_the_same_whoever_looks(saved: bytes) -> None:
    """A question changes no later bit."""
    digests = []
    for curious in (False, True):
        engine = app.build()
        engine.load(saved)
        fed = Fed(engine)
        for i in range(40):
            fed.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
            if curious:
                fed.forecast(17 + i)
                fed.engine.volatility.accuracy(SYMBOL)
        digests.append((fed.engine.hexdigest(), fed.engine.save()))
    assert digests[0] == digests[1]


def test_vol_models_are_fitted_anew_every_hour_from_where_they_were(fitted: Fed) -> None:
    requests = []
    for i in range(REFIT_MINUTES + 1):
        requests += [one for one in fitted.minute(T0 + i * MINUTE_MS, CLOSES[N + i]) if isinstance(one, WorkRequested) and one.work == WORK]
    requests += fitted.settle()
    (request,) = requests
    asked = msgspec.msgpack.decode(request.body, type=volatility.Request)
    assert asked.start is not None
    assert asked.scored == (), "only the first fit looks back"
    fitted.answer(request)
    assert all(one.seeded < one.n for one in fitted.engine.volatility.accuracy(SYMBOL).horizons[:1])
    said = fitted.forecast()
    assert said["fitted_ms"] == T0 + REFIT_MINUTES * MINUTE_MS
    assert said["models"]["garch"]["converged"] is True


def test_vol_models_are_fitted_at_once_when_much_more_of_the_past_is_known(fitted: Fed) -> None:
    fitted.history(candles(walk(3_000, seed=5), T0 - (N + 3_000) * MINUTE_MS))
    (request,) = fitted.settle()
    assert len(msgspec.msgpack.decode(request.body, type=volatility.Request).returns) == 8 * (N + 3_000)


def test_vol_models_are_scored_on_days_that_a_fit_before_them_had_not_seen(fitted: Fed) -> None:
    said = fitted.engine.volatility.accuracy(SYMBOL)
    assert [one.h for one in said.horizons] == list(SCORED)
    assert [one.n for one in said.horizons] == [one.seeded for one in said.horizons]
    minutes, every = volatility.SCORED_MINUTES, volatility.cadence
    for one in said.horizons:
        assert abs(one.n - (minutes - one.h) / every(one.h)) <= 1
        assert all(score.qlike is not None and score.qlike > 0 for score in one.models.values())
        assert 0 < one.blend.har < 1
        assert (one.blend.har != 0.5) == (one.n >= MATURED_MIN)


def test_vol_models_are_scored_when_their_forecasts_come_due(fitted: Fed) -> None:
    before = {log.horizon: log.matured for log in fitted.engine.volatility._symbols[SYMBOL].logs}
    for i in range(90):
        fitted.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
    said = {one.h: one for one in fitted.engine.volatility.accuracy(SYMBOL).horizons}
    # One every five minutes, due five minutes later; of those made before the fit a few were still open.
    assert 17 <= said[5].n - before[5] <= 18
    assert set(said[5].models) == {"har", "plain", "garch", "blend", "rolling"}
    har = said[5].models["har"]
    assert har.qlike is not None and har.qlike > 0
    assert said[5].blend.har + said[5].blend.garch == 1.0


def test_vol_models_note_an_hour_ahead_once_a_minute(fitted: Fed) -> None:
    for i in range(70):
        fitted.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
    past = fitted.engine.volatility.past(SYMBOL, 0, 1_000)
    assert past["ts_ms"] == [T0 + (i + 1) * MINUTE_MS for i in range(70)]
    said = fitted.forecast(60)
    assert past["sigmaHAR"][-1] == said["sigmaHAR"]
    assert past["sigma"][-1] == said["sigma"]
    hour = np.diff(np.log(np.round(CLOSES[N + 9 : N + 70], 2)))
    assert past["realized"][-1] == pytest.approx(math.sqrt(float(np.sum(hour**2))), rel=1e-9)
    assert fitted.engine.volatility.past("sim:NONE", 0, 9)["ts_ms"] == []


def test_vol_models_offer_both_sigmas_to_decisions(fitted: Fed) -> None:
    said = fitted.forecast(5)
    assert fitted.engine.volatility.context(SYMBOL) == {"sigmaHAR": said["sigmaHAR"], "sigmaGARCH": said["sigmaGARCH"]}
    assert fitted.engine.volatility.context("sim:NONE") == {}


@pytest.mark.parametrize("rule", ["min", "blend"])
def test_vol_models_follow_the_rule_of_the_settings(fitted: Fed, rule: str) -> None:
    engine = fitted.engine
    engine.step(Configure(engine.seq + 1, engine.now_ns, CoreSettings(volatility_rule=rule)))  # type: ignore[arg-type]
    said = fitted.forecast(60)
    har, garch, weight = said["sigmaHAR"], said["sigmaGARCH"], said["blend"]["har"]
    expected = min(har, garch) if rule == "min" else math.sqrt(weight * har**2 + (1 - weight) * garch**2)
    assert said["sigma"] == pytest.approx(expected, rel=1e-12)


def test_vol_models_say_nothing_of_a_market_whose_candles_ended(fitted: Fed) -> None:
    fitted.step(Heartbeat, ts_ms=T0 + (STALE_MINUTES + 1) * MINUTE_MS)
    with pytest.raises(NotEnough, match=rf"the newest ended {STALE_MINUTES + 1} minutes ago"):
        fitted.forecast()
    assert fitted.engine.volatility.context(SYMBOL) == {}


def test_vol_models_refuse_prices_that_do_not_move() -> None:
    fed = Fed()
    fed.history(candles(np.full(N, 100.0), T0 - N * MINUTE_MS))
    (request,) = fed.settle()
    with pytest.raises(ValueError, match="expected prices that move") as refused:
        volatility.work(request.body)
    records = fed.step(Result, request.request_id, WORK, False, str(refused.value).encode())
    assert [one.reason for one in records if isinstance(one, WorkFailed)] == [str(refused.value)]
    with pytest.raises(NotEnough, match="expected prices that move"):
        fed.forecast()


@pytest.mark.parametrize("body", [b"", b"\xc0", b"garbage", msgspec.msgpack.encode([1, 2])])
def test_vol_models_take_no_answer_that_is_none(body: bytes) -> None:
    fed = Fed()
    fed.history(PAST)
    (request,) = fed.settle()
    records = fed.step(Result, request.request_id, WORK, True, body)
    assert [one.work for one in records if isinstance(one, WorkFailed)] == [WORK]
    with pytest.raises(NotEnough, match="expected a fit of volatility models"):
        fed.forecast()
    assert fed.step(Result, 999, WORK, True, body) == [], "nobody asked for it"


def test_vol_models_take_no_number_that_is_none() -> None:
    fed = Fed()
    fed.history(PAST)
    (request,) = fed.settle()
    found = volatility.answer(volatility.work(request.body))
    broken = msgspec.structs.replace(found.fit, garch=msgspec.structs.replace(found.fit.garch, omega=math.nan))
    with pytest.raises(ValueError, match="in finite numbers"):
        volatility.answer(msgspec.msgpack.encode(volatility.Answer(broken, {})))


def test_vol_models_outlive_one_absurd_candle(fitted: Fed) -> None:
    before = fitted.forecast(60)
    fitted.minute(T0, CLOSES[N - 1] * 1_000)
    fitted.minute(T0 + MINUTE_MS, CLOSES[N])
    fitted.minute(T0 + 2 * MINUTE_MS, CLOSES[N + 1])
    after = fitted.forecast(60)
    assert 0.7 < after["sigmaHAR"] / before["sigmaHAR"] < 1.4
    assert 0.7 < after["sigmaGARCH"] / before["sigmaGARCH"] < 1.4


def test_vol_models_know_a_gap_for_what_it_is(fitted: Fed) -> None:
    """Thirty minutes without candles: nothing is made up, and the horizon whose windows lie within waits."""
    for i in range(30, 42):
        fitted.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
    with pytest.raises(NotEnough, match="expected candles of at least half of the last 60 minutes, found 29"):
        fitted.forecast(60)
    assert fitted.forecast(5)["sigmaHAR"] > 0


def test_vol_models_are_fitted_though_outages_leave_no_long_span_whole() -> None:
    """Two outages of more than a day: the long horizons are brought on from shorter ones, and none is lost."""
    rows = candles(walk(30 * 1_440, seed=3), T0 - 30 * 1_440 * MINUTE_MS)
    kept = np.ones(len(rows), bool)
    for start in (15 * 1_440, 22 * 1_440):
        kept[start : start + 1_900] = False
    fed = Fed()
    fed.history(rows[kept])
    (request,) = fed.settle()
    fed.answer(request)
    for horizon in (1, 60, 1_440, 10_080):
        said = fed.forecast(horizon)
        assert said["sigmaHAR"] > 0
        assert said["models"]["harPlain"]["sigma"] > 0
    assert said["extrapolated"] is True


def test_vol_models_serve_what_they_can_after_an_outage(fitted: Fed) -> None:
    """The plain regression looks back 22 periods; that it cannot say anything silences no other."""
    for i in range(120, 127):
        fitted.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
    said = fitted.forecast(1)
    assert said["models"]["harPlain"]["sigma"] is None
    assert said["sigmaHAR"] > 0
    with pytest.raises(NotEnough, match="half of the last 22 minutes"):
        fitted.forecast(1, "plain")


def test_vol_models_are_seeded_though_minutes_closed_before_the_past_was_whole() -> None:
    fed = Fed()
    fed.history(PAST[-MINUTES_MIN - 100 :])
    (request,) = fed.settle()
    fed.answer(request)
    for i in range(7):
        fed.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
    fed.history(PAST[: -MINUTES_MIN - 100])
    (request,) = fed.settle()
    fed.minute(T0 + 7 * MINUTE_MS, CLOSES[N + 7])
    fed.answer(request)
    for i in range(8, 30):
        fed.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
    said = {one.h: one for one in fed.engine.volatility.accuracy(SYMBOL).horizons}
    assert said[5].seeded > 500
    assert said[5].n - said[5].seeded in (5, 6)
    assert said[60].seeded > 500
    assert said[60].blend.har != 0.5


def test_vol_models_do_not_believe_in_a_market_that_halts(fitted: Fed) -> None:
    """A day of minutes without a move: no sigma sinks to nothing, and no weight is settled for long."""
    before = fitted.forecast(60)
    for i in range(300):
        fitted.minute(T0 + i * MINUTE_MS, CLOSES[N - 1])
    during = fitted.forecast(60)
    for name in ("sigmaHAR", "sigmaGARCH"):
        assert during[name] > 0.02 * before[name]
    assert 0.001 < during["blend"]["har"] < 0.999


def test_vol_models_take_what_a_venue_amends(fitted: Fed) -> None:
    for i in range(5):
        fitted.minute(T0 + i * MINUTE_MS, CLOSES[N + i])
    said = fitted.forecast(5)
    fitted.minute(T0 + 3 * MINUTE_MS, CLOSES[N + 3] * 1.01)
    amended = fitted.forecast(5)
    assert amended["asof_ms"] == said["asof_ms"]
    assert amended["sigmaHAR"] > said["sigmaHAR"]
    assert amended["sigmaGARCH"] > said["sigmaGARCH"]
