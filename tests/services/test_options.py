"""Option chains through the engine's one door: bodies in, surfaces as results, smiles and skew out, the same after a restart."""

import json
from typing import Any

import pytest

from alphapack import app
from alphapack.domain.events import Record, SmileChanged, WorkFailed, WorkRequested
from alphapack.domain.inputs import POSTED, Chain, Configure, CoreSettings, Heartbeat, Result
from alphapack.domain.market import base_of
from alphapack.engine.engine import Engine
from alphapack.models import chain
from alphapack.models.chain import WORK
from alphapack.models.skew import HOUR_MS, OBSERVATIONS_MIN
from alphapack.services import options as service
from alphapack.services.options import CONTEXT_MS, POSTED_HOLDS_NS, NoSmile

T0 = 1_770_000_000_000
MS = 1_000_000
SYMBOL = "sim:BTCUSDT"
ORDER = [{"k": 0.9, "tenor": "7d", "type": "call", "iv": 0.6}, {"k": 1.1, "tenor": "7d", "type": "put", "iv": 0.7}]
"""The chain of two quotes whose smile is known by hand."""


def rows(level: float = 0.5, skew: float = -0.1, tenors: tuple[str, ...] = ("7d", "30d", "60d")) -> list[dict[str, Any]]:
    """Quotes at seven strikes a tenor."""
    strikes = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    return [
        {"k": k, "tenor": tenor, "type": "call" if k >= 1 else "put", "iv": level + skew * (k - 1.0) + 0.4 * (k - 1.0) ** 2}
        for tenor in tenors
        for k in strikes
    ]


class Fed:
    """An engine that is given chains, and whose work is done when asked for."""

    def __init__(self, engine: Engine | None = None, **core: Any) -> None:
        self.engine = engine or app.build()
        if engine is None:
            self.engine.step(Configure(1, T0 * MS, CoreSettings(**core)))

    def step(self, make: Any, *arguments: Any, ts_ms: int | None = None) -> list[Record]:
        ts_ns = self.engine.now_ns if ts_ms is None else ts_ms * MS
        return self.engine.step(make(self.engine.seq + 1, ts_ns, *arguments))

    def ask(
        self, quotes: list[dict[str, Any]] | bytes, source: str = "recorded", base: str = "BTC", ts_ms: int | None = None
    ) -> WorkRequested:
        body = quotes if isinstance(quotes, bytes) else json.dumps({"chain": quotes}).encode()
        records = self.step(Chain, base, source, body, ts_ms=ts_ms)
        (request,) = [one for one in records if isinstance(one, WorkRequested) and one.work == WORK]
        return request

    def answer(self, request: WorkRequested) -> list[Record]:
        try:
            ok, body = True, chain.work(request.body)
        except Exception as error:
            ok, body = False, f"{type(error).__name__}: {error}".encode()
        return self.step(Result, request.request_id, WORK, ok, body)

    def take(
        self, quotes: list[dict[str, Any]] | bytes, source: str = "recorded", base: str = "BTC", ts_ms: int | None = None
    ) -> list[Record]:
        return self.answer(self.ask(quotes, source, base, ts_ms))

    def smile(self, symbol: str = SYMBOL) -> Any:
        return self.engine.options.smile(symbol.partition(":")[2], base_of(symbol))

    def context(self, symbol: str = SYMBOL) -> dict[str, float]:
        return self.engine.decision_context(symbol)


def test_options_smile_of_the_orders_chain_reaches_the_decision_context() -> None:
    fed = Fed()
    (changed,) = fed.take(ORDER, POSTED)
    assert isinstance(changed, SmileChanged) and changed.accepted == 2
    said = fed.smile()
    (tenor,) = said.tenors
    assert (tenor.k25c, tenor.k25p, tenor.atm_iv) == pytest.approx((1.0711797, 0.9466999, 0.6564544), abs=1e-6)
    assert (said.rr25, said.fly25) == pytest.approx((0.0608897, 0.0007056), abs=1e-6)
    assert (said.iv_term_slope, said.skew_z, tenor.quality, tenor.points) == (None, None, "sparse", 2)
    assert (said.source, said.ts_ms, said.age_ms, said.delta_convention) == ("posted", T0, 0, "forward")
    context = fed.context()
    assert (context["rr25"], context["fly25"], context["atm_iv"]) == (said.rr25, said.fly25, said.atm_iv)
    assert not {"skew_z", "iv_term_slope"} & context.keys(), "what is not known is left out"
    assert fed.context("binance-coinm:BTCUSD_PERP") == context, "options are kept by base asset"
    assert fed.context("sim:ETHUSDT") == {}


def test_options_smile_has_a_term_slope_of_two_tenors() -> None:
    fed = Fed()
    fed.take(rows())
    said = fed.smile()
    assert said.ref_tenor_days == 30.0 and said.rr25 < 0.0 and [one.tenor for one in said.tenors] == ["7d", "30d", "60d"]
    atm = {one.tenor: one.atm_iv for one in said.tenors}
    assert said.iv_term_slope == pytest.approx((atm["30d"] - atm["7d"]) / ((30 / 365) ** 0.5 - (7 / 365) ** 0.5), rel=1e-9)


def fed_hours(n: int, engine: Fed | None = None) -> Fed:
    """An engine that took a chain an hour, whose skew moves."""
    fed = engine or Fed()
    for i in range(n):
        fed.take(rows(skew=-0.1 + 0.01 * (i % 4)), ts_ms=fed.engine.now_ns // MS + HOUR_MS)
    return fed


def test_options_smile_skew_is_measured_against_its_own_past() -> None:
    fed = fed_hours(OBSERVATIONS_MIN)
    assert fed.smile().skew_z is None and fed.smile().skew_n == OBSERVATIONS_MIN - 1
    fed.take(rows(skew=-0.3), ts_ms=fed.engine.now_ns // MS + HOUR_MS)
    z = fed.smile().skew_z
    assert z is not None and z < -5.0
    assert fed.context()["skew_z"] == z
    past = fed.engine.options.past("BTC", 0, 100)
    assert past["skew_z"][-1] == z and past["skew_z"][0] is None and len(past["ts_ms"]) == OBSERVATIONS_MIN + 1


def test_options_smile_posted_chains_never_enter_the_skews_past() -> None:
    fed = fed_hours(OBSERVATIONS_MIN + 1)
    before = fed.engine.options._bases["BTC"].skew.observations.copy()
    fed.take(rows(skew=-0.5), POSTED, ts_ms=fed.engine.now_ns // MS + HOUR_MS)
    assert fed.engine.options._bases["BTC"].skew.observations == before
    assert fed.smile().source == "posted" and fed.smile().skew_z < -5.0


def test_options_smile_of_a_posted_chain_holds_for_a_quarter_of_an_hour() -> None:
    fed = Fed()
    fed.take(ORDER, POSTED)
    hold_ms = POSTED_HOLDS_NS // MS
    fed.take(rows(), ts_ms=T0 + hold_ms - 1)
    assert fed.smile().source == "posted"
    assert len(fed.engine.options._bases["BTC"].skew.observations) == 1, "a feed's chain is observed all the same"
    fed.take(rows(), ts_ms=T0 + hold_ms)
    assert fed.smile().source == "recorded"
    fed.take(ORDER, POSTED)
    assert fed.smile().source == "posted"


def test_options_smile_older_chains_of_a_feed_replace_no_newer_one() -> None:
    fed = Fed()
    fed.take(rows(), ts_ms=T0 + HOUR_MS)
    old = json.dumps({"chain": rows(level=0.9), "ts_ms": T0 - HOUR_MS}).encode()
    fed.take(old)
    assert fed.smile().ts_ms == T0 + HOUR_MS


def test_options_smile_leaves_the_context_after_twelve_hours() -> None:
    fed = Fed()
    fed.take(rows())
    fed.step(Heartbeat, ts_ms=T0 + CONTEXT_MS)
    assert "rr25" in fed.context()
    fed.step(Heartbeat, ts_ms=T0 + CONTEXT_MS + 1)
    assert fed.context() == {} and fed.smile().age_ms == CONTEXT_MS + 1, "it is still served, with its age"


def test_options_smile_of_another_time_leaves_the_context_all_the_same() -> None:
    fed = Fed()
    fed.take(json.dumps({"chain": ORDER, "ts_ms": T0 + 1_000 * CONTEXT_MS}).encode(), POSTED)
    assert "rr25" in fed.context()
    fed.step(Heartbeat, ts_ms=T0 + CONTEXT_MS + 1)
    assert fed.context() == {}
    fed.take(json.dumps({"chain": ORDER, "ts_ms": T0}).encode(), POSTED)
    assert fed.context() == {}, "twelve hours old when it came"


def test_options_smile_past_goes_forward_and_tells_what_was_posted() -> None:
    fed = Fed()
    for minutes, source in ((0, "recorded"), (20, POSTED), (-60, POSTED), (60, "recorded")):
        body = json.dumps({"chain": rows(), "ts_ms": T0 + 60_000 * minutes}).encode()
        fed.take(body, source, ts_ms=max(fed.engine.now_ns // MS, T0 + 60_000 * minutes))
    past = fed.engine.options.past("BTC", 0, 10)
    assert past["ts_ms"] == [T0, T0 + 1_200_000, T0 + 3_600_000] and past["posted"] == [0.0, 1.0, 0.0]


def test_options_smile_of_a_chain_without_a_good_row_replaces_nothing() -> None:
    fed = Fed()
    fed.take(rows())
    before = fed.smile()
    assert fed.take([{"k": 1.0, "tenor": "7d", "type": "call", "iv": -1.0}]) == []
    assert fed.smile() == before


def test_options_smile_of_a_body_that_is_none_is_a_failure_that_is_told() -> None:
    fed = Fed()
    (failed,) = fed.take(b'{"chain": 7}')
    assert isinstance(failed, WorkFailed) and failed.symbol == "BTC" and "Expected `array`" in failed.reason
    with pytest.raises(NoSmile, match="expected an option chain of BTC, found none yet: POST /api/options/chain/BTCUSDT"):
        fed.smile()


def test_options_smile_keeps_a_bounded_number_of_base_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BASES_MAX", 1)
    fed = Fed()
    fed.take(rows())
    (failed,) = fed.take(rows(), base="ETH")
    assert isinstance(failed, WorkFailed) and "at most 1 base assets" in failed.reason
    fed.take(rows())
    assert fed.engine.options.bases() == ["BTC"]


def test_options_smile_answers_that_nobody_awaits_change_nothing() -> None:
    fed = Fed()
    request = fed.ask(rows())
    fed.answer(request)
    before = list(map(bytes, fed.engine.options.save()))
    assert fed.answer(request) == []
    assert list(map(bytes, fed.engine.options.save())) == before


def test_options_smile_follows_the_delta_convention_of_the_settings() -> None:
    plain, adjusted = Fed(), Fed(delta_convention="premium_adjusted")
    for fed in (plain, adjusted):
        fed.take(rows())
    assert adjusted.smile().delta_convention == "premium_adjusted"
    assert adjusted.smile().rr25 != plain.smile().rr25 and adjusted.smile().tenors[0].k_atm < 1.0 < plain.smile().tenors[0].k_atm


def test_options_smile_state_is_whole() -> None:
    fed = fed_hours(OBSERVATIONS_MIN + 2)
    fed.take(ORDER, POSTED)
    waiting = fed.ask(rows(level=0.8), ts_ms=fed.engine.now_ns // MS + HOUR_MS)
    engine = app.build()
    engine.load(fed.engine.save())
    again = Fed(engine)
    assert again.smile() == fed.smile() and again.context() == fed.context()
    assert engine.outstanding.keys() == {waiting.request_id}, "a restart asks again"
    for one in (fed, again):
        one.answer(waiting)
        fed_hours(3, one)
    assert again.smile() == fed.smile() and again.smile().skew_z is not None
    assert again.engine.options.past("BTC", 0, 100) == fed.engine.options.past("BTC", 0, 100)
    assert engine.hexdigest() == fed.engine.hexdigest()


@pytest.mark.parametrize(
    ("symbol", "base"),
    [
        ("binance-usdm:BTCUSDT", "BTC"),
        ("binance-coinm:ETHUSD_PERP", "ETH"),
        ("binance-spot:ETHBTC", "ETH"),
        ("binance-coinm:BNBUSD_PERP", "BNB"),
        ("coinbase:SOL-USD", "SOL"),
        ("BTC", "BTC"),
        ("deribit:BTC", "BTC"),
        ("sim:USDTUSD", "USDT"),
        ("sim:1000PEPEUSDT", "1000PEPE"),
    ],
)
def test_options_smile_base_asset_of_a_symbol(symbol: str, base: str) -> None:
    assert base_of(symbol) == base
