"""Looks by hand, when they are taken, what they teach a horizon later, and what is kept of it all."""

import heapq
import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from alphapack.domain.events import AlphaDisabled, Record, WeightsLearnt
from alphapack.domain.inputs import CoreSettings, Disable
from alphapack.domain.trading import RouterSettings
from alphapack.models.alpha import Alpha, AlphaContext
from alphapack.models.features import BY_NAME, NAMES
from alphapack.models.policy import Policy
from alphapack.models.prediction import rank_ic
from alphapack.models.registry import Registry
from alphapack.models.standardise import Standardiser
from alphapack.models.weights import HALF_LIFE, KAPPA
from alphapack.services import alphas as service
from alphapack.services.alphas import GRID_S, TIMER, WEIGH, YEAR_S, Alphas, Look

S, MS = 1_000_000_000, 1_000_000
START_NS = 1_700_000_000 * S
A, B, C = "x:A", "x:B", "x:C"
SIGMA = 2e-3
KEPT = 0.5 ** (1.0 / HALF_LIFE)


def of(name: str, feature: str = "obi", weight: float = 0.1, group: str = "own", said: Callable[[float], object] = float) -> Alpha:
    """Return an alpha that says what ``said`` makes of one feature."""

    def transform(ctx: AlphaContext) -> float | None:
        return said(ctx[feature])  # type: ignore[return-value]  # Some say what they should not.

    return Alpha(name, "for a test", (feature,), weight, transform, group)


def raising(value: float) -> float:
    raise ZeroDivisionError("no luck " + 400 * "x")


POLICY = Policy("any", "for a test", "own", lambda ctx, blend: None)  # type: ignore[arg-type, return-value]  # Nobody asks it.


def path(second: float) -> float:
    """A mid that goes up and down, and drifts."""
    return 100.0 * math.exp(1e-3 * math.sin(second / 37.0) + 2e-6 * second)


class Desk:
    """Alphas of symbols whose context the test says, alone in the world; times are seconds from the start."""

    def __init__(self, *alphas: Alpha, symbols: tuple[str, ...] = (A,), horizon_s: int = 300) -> None:
        self.now_ns, self.seq = START_NS, 1
        self.settings = CoreSettings(router=RouterSettings(interval_s=min(60, horizon_s), horizon_s=horizon_s))
        self.records: list[tuple[float, Record]] = []
        self.timers: list[tuple[int, int, str, str]] = []
        self.set = 0
        self.symbols = list(symbols)
        self.asked: list[tuple[int, str]] = []
        """Every look, by nanoseconds from the start."""
        self.more: dict[str, float] = {"obi": 0.5}
        self.mid: Callable[[float], float | None] = path
        self.sigma: float | None = SIGMA
        self.registry = Registry(alphas or (of("one"),), (POLICY,))
        self.restart()

    def restart(self, state: list[memoryview] | None = None) -> None:
        self.alphas = Alphas(self, self.registry, lambda: self.symbols, self.context, lambda symbol, context: self.sigma)
        if state is None:
            self.alphas.start()
        else:
            self.alphas.load(state)

    # The context

    def emit(self, record: Record) -> None:
        self.records.append(((self.now_ns - START_NS) / S, record))

    def observe(self, values: bytes) -> None:
        raise AssertionError("nothing is observed")

    def request(self, work: str, body: bytes) -> int:
        raise AssertionError("no work is asked for")

    def after(self, delay_ns: int, timer: str, argument: str = "") -> None:
        assert delay_ns > 0 and timer == TIMER
        self.set += 1
        heapq.heappush(self.timers, (self.now_ns + delay_ns, self.set, timer, argument))

    def draws(self, stream: str, symbol: str = "") -> Iterator[float]:
        raise AssertionError("nothing is left to chance")

    # The world

    def context(self, symbol: str) -> dict[str, float]:
        second = (self.now_ns - START_NS) / S
        self.asked.append((self.now_ns - START_NS, symbol))
        mid = self.mid(second)
        return {**self.more, **({} if mid is None else {"mid": mid})}

    def until(self, second: float) -> None:
        """Fire every timer up to a time."""
        end_ns = START_NS + round(second * S)
        while self.timers and self.timers[0][0] <= end_ns:
            self.now_ns, _, _, argument = heapq.heappop(self.timers)
            self.alphas.on_timer(argument)
        self.now_ns = end_ns

    def look(self, second: float, **overrides: float) -> Look:
        """Look just before the timers of a time fire."""
        self.until(second - 1e-6)
        self.now_ns = START_NS + round(second * S)
        return self.alphas.look(A, overrides)

    def said(self, kind: type[Record]) -> list[Record]:
        return [one for _, one in self.records if type(one) is kind]


# Features that follow from others


def test_router_alpha_aware_moves_range_and_volatility_of_the_last_looks_by_hand() -> None:
    desk = Desk()
    raw = desk.look(320).raw
    mids = [path(20 * step) for step in range(1, 17)]
    moves = [math.log(after / before) for before, after in pairwise(mids)]
    assert raw["ret_20s_bps"] == pytest.approx(1e4 * moves[-1])
    assert raw["ret_60s_bps"] == pytest.approx(1e4 * sum(moves[-3:]))
    assert raw["ret_300s_bps"] == pytest.approx(1e4 * sum(moves))
    assert raw["range_place"] == pytest.approx(2 * (mids[-1] - min(mids)) / (max(mids) - min(mids)) - 1) and abs(raw["range_place"]) < 1
    assert raw["vol_ratio"] == pytest.approx(math.sqrt(sum(move * move for move in moves)) / SIGMA)


def test_router_alpha_aware_gaps_of_prices_and_volatilities_by_hand() -> None:
    desk = Desk()
    desk.mid = lambda second: 100.0
    desk.more = {"microprice": 100.01, "microprice_stoikov": 99.98, "sigmaHAR": 3e-3, "sigmaGARCH": 2e-3, "atm_iv": 0.6}
    raw = desk.look(10).raw
    assert raw["micro_gap_bps"] == pytest.approx(1.0) and raw["stoikov_gap_bps"] == pytest.approx(-2.0)
    assert raw["sigma_gap"] == pytest.approx(math.log(1.5))
    assert raw["iv_gap"] == pytest.approx(0.6 - SIGMA * math.sqrt(YEAR_S / 300))
    desk.sigma = None
    assert "iv_gap" not in desk.alphas.look(A).raw and "sigma_gap" in desk.alphas.look(A).raw


@pytest.mark.parametrize(
    ("second", "known"),
    [(10, set()), (40, {"ret_20s_bps"}), (80, {"ret_20s_bps", "ret_60s_bps"}), (280, {"ret_20s_bps", "ret_60s_bps"})],
)
def test_router_alpha_aware_what_needs_a_past_is_missing_until_there_is_one(second: int, known: set[str]) -> None:
    looked = Desk().look(second)
    late = {"ret_20s_bps", "ret_60s_bps", "ret_300s_bps", "range_place", "vol_ratio"}
    assert late & set(looked.raw) == known and {name for name in late if looked.sources[name] == "live"} == known


def test_router_alpha_aware_a_market_that_stood_still_is_in_the_middle_of_its_range() -> None:
    desk = Desk()
    desk.mid = lambda second: 100.0
    raw = desk.look(320).raw
    assert (raw["range_place"], raw["vol_ratio"], raw["ret_300s_bps"]) == (0.0, 0.0, 0.0)


def test_router_alpha_aware_without_a_mid_nothing_follows_and_nothing_is_noted() -> None:
    desk = Desk()
    desk.mid = lambda second: None
    looked = desk.look(400)
    assert set(looked.raw) == {"obi"} and looked.standardiser == 0 and desk.alphas.observations == 0
    desk.mid = lambda second: 0.0
    assert set(desk.look(420).raw) == {"obi", "mid"} and desk.look(440).standardiser == 0


def test_router_alpha_aware_a_pause_longer_than_the_past_leaves_no_move() -> None:
    desk = Desk()
    desk.mid = lambda second: path(second) if second <= 300 or second > 700 else None
    raw = desk.look(720).raw
    assert {"ret_60s_bps", "ret_300s_bps", "range_place", "vol_ratio"}.isdisjoint(raw)


# When looks are taken


def test_router_alpha_aware_symbols_are_looked_at_on_the_grid_one_shortly_after_the_other() -> None:
    desk = Desk(symbols=(A, B, C))
    desk.until(65)
    grid = [20 * S * step for step in (1, 2, 3)]
    assert desk.asked == [(at + place * 2 * MS, name) for at in grid for place, name in enumerate((A, B, C))]
    desk.symbols = []
    desk.until(100)
    assert desk.asked[9:] == [], "nothing may be traded"
    desk.symbols = [B]
    desk.until(121)
    assert desk.asked[9:] == [(120 * S, B)]


def test_router_alpha_aware_a_start_off_the_grid_comes_to_it() -> None:
    desk = Desk()
    desk.timers.clear()
    desk.now_ns = START_NS + 7 * S + 3
    desk.restart()
    assert sorted((due - START_NS, argument) for due, _, _, argument in desk.timers) == [(20 * S, ""), (40 * S, WEIGH)]


def test_router_alpha_aware_symbols_beyond_the_bound_are_not_kept_and_still_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SYMBOLS_MAX", 2)
    desk = Desk(symbols=(A, B, C))
    desk.until(401)
    assert desk.alphas.observations == 2 * 5, "two symbols, from 320 s to 400 s"
    kept, beyond = desk.alphas.look(A), desk.alphas.look(C)
    assert kept.standardiser == 20 and beyond.standardiser == 0
    assert beyond.signals == [0.5] and "ret_60s_bps" in kept.raw and "ret_60s_bps" not in beyond.raw


# Signals


def test_router_alpha_aware_a_look_has_sources_standardised_features_and_weights() -> None:
    desk = Desk(of("one", weight=0.1), of("two", weight=-0.2))
    desk.until(5)
    looked = desk.alphas.look(A)
    assert (looked.symbol, looked.ts_ns, looked.sigma, looked.weights) == (A, desk.now_ns, SIGMA, [0.1, -0.2])
    assert set(looked.sources) == set(NAMES) and looked.sources["obi"] == "live" and looked.sources["ti"] == "missing"
    assert looked.standardised == {"obi": pytest.approx(0.5 / BY_NAME["obi"].scale)}
    assert "mid" in looked.raw and "mid" not in looked.sources, "what is no feature of the table has no source"


def test_router_alpha_aware_features_are_standardised_by_what_was_seen_before() -> None:
    desk, twin = Desk(), Standardiser()
    desk.until(0)
    for step in range(1, 30):
        desk.more = {"obi": math.sin(step), "spread_bps": 0.3 + 0.1 * math.cos(step)}
        looked = desk.look(20 * step)
        values = np.array([looked.raw.get(name, math.nan) for name in NAMES])
        expected = dict(zip(NAMES, twin.z(values).tolist(), strict=True))
        assert looked.standardised == {name: one for name, one in expected.items() if one == one} and looked.standardiser == step - 1
        desk.until(20 * step)
        twin.learn(values, desk.now_ns)


def test_router_alpha_aware_overrides_stand_for_what_is_known_and_change_nothing_that_is_kept() -> None:
    desk = Desk(of("one"), of("two", "ret_20s_bps", said=lambda move: move / 100.0), of("three", "skew_z", said=lambda z: z / 10.0))
    desk.until(400)
    before = [bytes(piece) for piece in desk.alphas.save()]
    plain, asked = desk.alphas.look(A), desk.alphas.look(A, {"obi": -0.25, "ret_20s_bps": 50.0, "skew_z": 2.0})
    assert plain.signals[0] == 0.5 and plain.signals[2] is None and asked.signals == [-0.25, 0.5, 0.2]
    changed = {name: source for name, source in asked.sources.items() if source != plain.sources[name]}
    assert changed == {"obi": "request", "ret_20s_bps": "request", "skew_z": "request"}
    moved = desk.alphas.look(A, {"mid": 200.0})
    assert moved.raw["mid"] == 200.0 and moved.raw["ret_60s_bps"] == plain.raw["ret_60s_bps"], "what follows of it is not made anew"
    assert moved.sources["ret_60s_bps"] == "live"
    assert [bytes(piece) for piece in desk.alphas.save()] == before and desk.alphas.look(A) == plain


def test_router_alpha_aware_an_alpha_is_asked_where_all_of_its_inputs_are_known_alone() -> None:
    calls: list[float] = []

    def both(ctx: AlphaContext) -> float:
        calls.append(ctx["skew_z"])
        return 0.25

    desk = Desk(Alpha("needs_both", "d", ("obi", "skew_z"), 0.1, both, "own"))
    assert desk.alphas.look(A).signals == [None] and calls == []
    assert desk.alphas.look(A, {"skew_z": 1.5}).signals == [0.25] and calls == [1.5]


def test_router_alpha_aware_what_an_alpha_does_is_watched_from_outside() -> None:
    desk = Desk(of("one"), of("two"))
    seen: list[tuple[str, str]] = []

    def watch(name: str, what: str, ask: Callable[[], float | None]) -> float | None:
        seen.append((name, what))
        return ask()

    desk.alphas.watch = watch
    desk.alphas.look(A)
    assert seen == [("one", "alpha"), ("two", "alpha")]


# What looks teach


def test_router_alpha_aware_weights_are_a_ridge_regression_on_what_followed() -> None:
    desk = Desk(of("one", weight=0.1), of("apart", weight=0.2, group="other"))
    for step in range(1, 31):
        desk.more = {"obi": math.sin(step)}
        desk.until(20 * step)
    desk.alphas.on_timer(WEIGH)
    told = [(math.sin(step), math.log(path(20 * (step + 15)) / path(20 * step)) / SIGMA) for step in range(1, 16)]
    faded = [KEPT ** (len(told) - place) for place in range(1, len(told) + 1)]
    products = sum(kept * signal * signal for kept, (signal, _) in zip(faded, told, strict=True))
    responses = sum(kept * signal * target for kept, (signal, target) in zip(faded, told, strict=True))
    expected = [(responses + KAPPA * init) / (products + KAPPA) for init in (0.1, 0.2)]
    assert desk.alphas.in_force == [pytest.approx(one, rel=1e-12) for one in expected]
    assert desk.alphas.look(A).weights == desk.alphas.in_force
    learnt = desk.said(WeightsLearnt)[-1]
    assert learnt == WeightsLearnt(dict(zip(("one", "apart"), desk.alphas.in_force, strict=True)), 15)


def test_router_alpha_aware_a_move_beyond_belief_teaches_as_much_as_the_greatest_that_counts() -> None:
    desk = Desk()
    desk.mid = lambda second: 100.0 if second < 300 else 150.0
    desk.until(320)
    desk.alphas.on_timer(WEIGH)
    assert desk.alphas.in_force == [pytest.approx((0.5 * 6.0 + KAPPA * 0.1) / (0.25 + KAPPA), rel=1e-12)]


def test_router_alpha_aware_weights_come_in_force_once_a_minute_and_where_something_was_learnt() -> None:
    desk = Desk()
    desk.until(700)
    times = [at for at, one in desk.records if isinstance(one, WeightsLearnt)]
    assert times == [340.0, 400.0, 460.0, 520.0, 580.0, 640.0, 700.0]
    desk.symbols = []
    desk.until(1_000)
    counts = [one.observations for one in desk.said(WeightsLearnt) if isinstance(one, WeightsLearnt)]
    assert counts == [1, 4, 7, 10, 13, 16, 19, 20], "a look of that very time comes after it; nothing was learnt since 700 s"


def test_router_alpha_aware_a_look_after_its_horizon_teaches_nothing() -> None:
    desk = Desk()
    desk.mid = lambda second: None if 100 < second < 500 else path(second)
    desk.until(500)
    assert desk.alphas.observations == 0, "the horizons of the first five looks came and went"
    desk.until(780)
    assert desk.alphas.observations == 0
    desk.until(800)
    assert desk.alphas.observations == 1, "that of 500 s, and none of those that came too late"


def test_router_alpha_aware_a_look_without_volatility_teaches_nothing() -> None:
    desk = Desk()
    desk.sigma = None
    desk.until(100)
    desk.sigma = SIGMA
    desk.until(420)
    assert desk.alphas.observations == 1, "that of 120 s"


def test_router_alpha_aware_what_an_alpha_did_not_say_counts_as_nothing_said() -> None:
    desk = Desk(of("one"), of("silent", said=lambda value: None), of("unknown", "skew_z"))
    assert desk.alphas.look(A).signals == [0.5, None, None]
    desk.until(400)
    desk.alphas.on_timer(WEIGH)
    assert desk.alphas.in_force[0] != 0.1 and desk.alphas.in_force[1:] == [0.1, 0.1] and desk.alphas.observations == 5


# Alphas that fail


@pytest.mark.parametrize(
    ("said", "reason"), [(raising, "ZeroDivisionError: no luck"), (lambda value: 3.0, "3.0"), (lambda value: True, "True")]
)
def test_router_alpha_aware_an_alpha_that_fails_is_told_once_and_has_no_weight(said: Callable[[float], object], reason: str) -> None:
    desk = Desk(of("bad", said=said), of("good", weight=0.2))
    desk.until(100)
    (disabled,) = desk.said(AlphaDisabled)
    assert isinstance(disabled, AlphaDisabled) and (disabled.name, disabled.what) == ("bad", "alpha")
    assert reason in disabled.reason and len(disabled.reason) <= 300 and desk.alphas.disabled == {"bad": disabled.reason}
    assert desk.alphas.in_force == [0.0, 0.2] and desk.alphas.look(A).signals == [None, 0.5]


def test_router_alpha_aware_an_input_disables_an_alpha_and_the_others_learn_as_if_it_were_not_there() -> None:
    desk, alone = Desk(of("slow", weight=0.3), of("good", weight=0.2)), Desk(of("good", weight=0.2))
    desk.alphas.on_disable(Disable(0, 0, "nobody", "alpha", "slow"))
    assert desk.records == []
    desk.until(200)
    for _ in range(2):
        desk.alphas.on_disable(Disable(0, 0, "slow", "alpha", "too slow"))
    desk.until(700)
    alone.until(700)
    assert desk.said(AlphaDisabled) == [AlphaDisabled("slow", "alpha", "too slow")]
    assert desk.alphas.in_force[0] == 0.0 and desk.alphas.in_force[1] == alone.alphas.in_force[0] != 0.2


# What is kept


def test_router_alpha_aware_what_is_saved_goes_on_as_if_it_had_never_stopped() -> None:
    def lived(*cuts: int) -> Desk:
        desk = Desk(of("one"), of("bad", said=raising), of("slow", "ret_60s_bps", 0.05, "other", lambda m: max(-1.0, min(1.0, m / 10))))
        desk.symbols = [A, B]
        for step in range(1, 60):
            desk.more = {"obi": math.sin(step), "spread_bps": 0.3 + 0.1 * math.cos(step)}
            desk.until(20 * step + 5)
            if step in cuts:
                desk.restart([memoryview(bytes(piece)) for piece in desk.alphas.save()])
        return desk

    whole, cut = lived(), lived(1, 7, 20, 45)
    assert whole.records == cut.records and whole.alphas.look(B) == cut.alphas.look(B) and whole.alphas.judged() == cut.alphas.judged()
    assert [bytes(one) for one in whole.alphas.save()] == [bytes(one) for one in cut.alphas.save()]
    assert whole.alphas.observations == 2 * (59 - 15) and whole.alphas.disabled.keys() == {"bad"}


def test_router_alpha_aware_of_other_alphas_nothing_is_taken_over() -> None:
    desk, other = Desk(of("one")), Desk(of("two"))
    desk.until(700)
    other.until(700)
    other.alphas.load(desk.alphas.save())
    assert other.alphas.in_force == [0.1] and other.alphas.observations == 0 and other.alphas.look(A).standardiser == 0
    desk.alphas.take(Registry((of("one"), of("two", weight=0.3)), (POLICY,)))
    assert desk.alphas.in_force == [0.1, 0.3] and desk.alphas.look(A).signals == [0.5, 0.5] and desk.alphas.disabled == {}


def test_router_alpha_aware_looks_and_mids_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ROWS", 20)
    desk = Desk()
    desk.until(2_000)
    size = sum(len(piece) for piece in desk.alphas.save())
    desk.until(4_000)
    assert abs(sum(len(piece) for piece in desk.alphas.save()) - size) < 64 and desk.alphas.judged()[0].n == 20


def test_router_alpha_aware_alphas_are_judged_by_what_followed() -> None:
    def foresees(value: float) -> float:
        return max(-1.0, min(1.0, value))

    desk = Desk(of("seer", said=foresees), of("constant", said=lambda value: 0.5), of("silent", said=lambda value: None))
    assert [one.n for one in desk.alphas.judged()] == [0, 0, 0] and desk.alphas.judged()[0].ic is None
    signals = []
    for step in range(1, 400):
        signals.append(math.log(path(20 * step + 300) / path(20 * step)) / SIGMA)
        desk.more = {"obi": foresees(signals[-1])}
        desk.until(20 * step)
    seer, constant, silent = desk.alphas.judged()
    told = [foresees(one) for one in signals[:-15]]
    assert seer.n == len(told) == 384 and seer.ic is not None and seer.ic > 0.99 and seer.ic_t is not None and seer.ic_t > 5.0
    assert seer.turnover == pytest.approx(np.mean(np.abs(np.diff(told)))) and (constant.ic, constant.turnover, constant.n) == (
        None,
        0.0,
        384,
    )
    assert (silent.ic, silent.turnover, silent.half_life_s, silent.n) == (None, None, None, 0)
    expected = rank_ic(np.array(told), np.array(signals[:-15]), 300 // GRID_S)
    assert expected is not None and seer.ic == pytest.approx(expected.slope)


def test_router_alpha_aware_the_half_life_of_a_signal_is_that_of_its_autoregression() -> None:
    desk = Desk()
    chance, value = np.random.default_rng(3), 0.0
    for step in range(1, 1_200):
        value = 0.9 * value + 0.05 * chance.standard_normal()
        desk.more = {"obi": max(-1.0, min(1.0, value))}
        desk.until(20 * step)
    half_life_s = desk.alphas.judged()[0].half_life_s
    assert half_life_s is not None and 0.6 < half_life_s / (20 * math.log(0.5) / math.log(0.9)) < 1.5


def test_router_alpha_aware_a_horizon_shorter_than_half_the_grid_teaches_too() -> None:
    desk = Desk(horizon_s=5)
    desk.until(1_000)
    assert desk.alphas.observations > 0
