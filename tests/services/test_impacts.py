"""Impact through the service: planted markets found again from books, tape and fills, and the same after a restart."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from alphapack.domain.events import Record, WorkFailed
from alphapack.domain.inputs import CoreSettings, Result
from alphapack.domain.market import Step
from alphapack.models import impact, impact_work
from alphapack.models.book import FeatureBook
from alphapack.models.impact_work import WORK
from alphapack.services.impact import BAR_NS, BARS, FILLS, LOOK_NS, REASON_LENGTH_MAX, REFIT_NS, TIMER, Impacts

S = 1_000_000_000
T0 = 1_770_000_000 * S
SYMBOL = "sim:BTCUSDT"
SIGMA_1D, ADV = 0.03, 1e6
K, A = 180.0, 0.6
TICK, LOT = Step(1, 4), Step(1, 6)


class FakeContext:
    """Collects what a service says, and fires its timers."""

    def __init__(self, now_ns: int = T0 + S // 3) -> None:
        self.now_ns = now_ns
        self.seq = 0
        self.settings = CoreSettings()
        self.records: list[Record] = []
        self.requests: list[tuple[int, str, bytes]] = []
        self.due: list[tuple[int, str, str]] = []

    def emit(self, record: Record) -> None:
        self.records.append(record)

    def observe(self, values: bytes) -> None:
        raise AssertionError("nothing is computed here that no result has said")

    def request(self, work: str, body: bytes) -> int:
        self.requests.append((len(self.requests) + 1, work, body))
        return len(self.requests)

    def after(self, delay_ns: int, timer: str, argument: str = "") -> None:
        assert delay_ns > 0
        self.due.append((self.now_ns + delay_ns, timer, argument))

    def draws(self, stream: str, symbol: str = "") -> Iterator[float]:
        raise AssertionError("chance has no part in this")


class Rig:
    """A service with books of its own, and means to do its work."""

    def __init__(self, **books: FeatureBook) -> None:
        self.ctx = FakeContext()
        self.books = {f"sim:{name}": book for name, book in books.items()}
        self.sigma: float | None = SIGMA_1D
        self.adv: float | None = ADV
        self.impacts = Impacts(self.ctx, lambda: self.books.items(), lambda _: self.sigma, lambda _: self.adv)
        self.answered = 0

    def run(self, seconds: int, each: Callable[[], None] = lambda: None) -> None:
        """Fire so many timers, and do all work on the spot; ``each`` is called before every timer."""
        for _ in range(seconds):
            ((self.ctx.now_ns, timer, argument),) = self.ctx.due
            self.ctx.due.clear()
            assert timer == TIMER
            each()
            self.impacts.on_timer(argument)
            self.answer()

    def answer(self) -> None:
        for request, work, body in self.ctx.requests[self.answered :]:
            assert work == WORK
            self.impacts.on_result(Result(1, self.ctx.now_ns, request, WORK, True, impact_work.work(body)))
        self.answered = len(self.ctx.requests)

    def said(self, symbol: str = SYMBOL) -> impact.Impact:
        found = self.impacts.impact(symbol)
        assert found is not None
        return found


def started(**books: FeatureBook) -> Rig:
    rig = Rig(**books)
    rig.impacts.start()
    return rig


def quotes(mid: float, levels: list[tuple[float, float]]) -> tuple[bytes, bytes]:
    """Levels on both sides, each so many ticks beyond the best, a spread of two ticks."""
    sides = ([f'["{mid + sign * (1 + away) * 1e-4:.4f}","{size:.6f}"]' for away, size in levels] for sign in (-1, 1))
    bids, asks = (f"[{','.join(side)}]".encode() for side in sides)
    return bids, asks


def planted() -> list[tuple[float, float]]:
    """Levels that cost ``K x^A`` bps beyond the best: the last unit of a size costs (1 + A) times the mean."""
    away = np.unique(np.round(np.geomspace(1.0, 4_000.0, 420)))
    filled = ADV * (0.01 * away / ((1.0 + A) * K)) ** (1.0 / A)  # A tick is .01 bps.
    sizes = np.diff(filled, prepend=0.0)
    return [(float(one), float(size)) for one, size in zip(away, sizes, strict=True) if size >= 1e-6]


def opened(levels: list[tuple[float, float]] | None = None) -> FeatureBook:
    """A LIVE book about 100, by default with one level a side, so that its sweeps cost nothing."""
    book = FeatureBook(TICK, LOT, None)
    book.snapshot(*quotes(100.0, levels or [(0.0, 1e6)]))
    book.start(T0)
    return book


class Tape:
    """Each minute trades a net volume through a book, and moves its mid by ``K x^A`` and noise."""

    def __init__(self, rig: Rig, noise_bps: float = 0.2) -> None:
        self.rig, self.noise_bps = rig, noise_bps
        self.chance = np.random.default_rng(11)
        self.log_mid = math.log(100.0)

    def __call__(self) -> None:
        ctx, book = self.rig.ctx, self.rig.books[SYMBOL]
        if (ctx.now_ns - T0) % BAR_NS != 30 * S:
            return
        share = float(10.0 ** self.chance.uniform(-5.0, -3.0))
        buys = bool(self.chance.random() < 0.5)
        move = (1.0 if buys else -1.0) * K * share**A + self.noise_bps * float(self.chance.standard_normal())
        self.log_mid += move / 1e4
        # A part goes the other way: net volume is what counts.
        for net, side in ((share + 1e-4, buys), (1e-4, not buys)):
            book.trade(ctx.now_ns, b'"100"', f'"{net * ADV:.6f}"'.encode(), buyer_is_taker=side)
        book.snapshot(*quotes(math.exp(self.log_mid), [(0.0, 1e6)]))


# What is learnt


def test_execution_planner_impacts_begin_with_what_volatility_says() -> None:
    rig = started(BTCUSDT=opened())
    assert rig.said() == impact.prior(SIGMA_1D)
    assert rig.said("sim:NEVERSEEN") == impact.prior(SIGMA_1D)
    for unknown in (None, 0.0, math.nan, -1.0, 1e3):
        rig.sigma = unknown
        assert rig.impacts.impact(SYMBOL) is None


def test_execution_planner_impacts_find_a_planted_curve_in_the_displayed_book() -> None:
    rig = started(BTCUSDT=opened(planted()))
    rig.run(59)
    assert rig.said().source == "prior"
    rig.run(2)
    found = rig.said()
    assert found.source == "sweeps" and found.n == 9
    assert found.a == pytest.approx(A, abs=0.02)
    for share in (1e-5, 1e-4, 1e-3):
        assert found.k * share**found.a == pytest.approx(K * share**A, rel=0.05)


def test_execution_planner_impacts_find_a_planted_curve_in_the_tape() -> None:
    rig = started(BTCUSDT=opened())
    rig.run(620 * 60, Tape(rig))
    found = rig.said()
    assert found.source == "bars" and 600 <= found.n <= 620
    assert found.a == pytest.approx(A, abs=0.02)
    for share in (3e-5, 1e-4, 1e-3):
        assert found.k * share**found.a == pytest.approx(K * share**A, rel=0.05)


def test_execution_planner_impacts_find_a_planted_level_in_own_fills() -> None:
    rig = started(BTCUSDT=opened())
    chance = np.random.default_rng(5)
    for share in (10.0 ** chance.uniform(-5.0, -2.0, 400)).tolist():
        noise = 1e4 * SIGMA_1D / math.sqrt(86_400.0) * math.sqrt(10.0) * float(chance.standard_normal())
        assert rig.impacts.on_fill(SYMBOL, share, K * share**A + noise, 10.0)
    rig.run(62)
    found = rig.said()
    assert (found.source, found.n) == ("fills", 400)
    for share in (1e-3, 1e-2):
        assert found.k * share**found.a == pytest.approx(K * share**A, rel=0.15)


# When


def test_execution_planner_impacts_are_fitted_again_every_ten_minutes() -> None:
    rig = started(BTCUSDT=opened(planted()))
    asked: list[int] = []

    def watch() -> None:
        if len(rig.ctx.requests) > len(asked):
            asked.append(rig.ctx.now_ns - S)

    rig.run(1_300, watch)
    assert np.diff(asked).tolist() == [REFIT_NS] * (len(asked) - 1) and len(asked) == 3
    assert asked[0] - T0 <= LOOK_NS + 2 * S


def test_execution_planner_impacts_of_many_symbols_are_never_asked_for_at_once() -> None:
    rig = started(**{name: opened(planted()) for name in "ABC"})
    counts: list[int] = []
    rig.run(70, lambda: counts.append(len(rig.ctx.requests)))
    assert max(np.diff(counts)) == 1 and counts[-1] == 3
    assert {rig.said(f"sim:{name}").source for name in "ABC"} == {"sweeps"}


def test_execution_planner_impacts_wait_for_a_result_before_they_ask_again() -> None:
    rig = started(BTCUSDT=opened(planted()))
    rig.answer = lambda: None  # type: ignore[method-assign]
    rig.run(1_400)
    assert len(rig.ctx.requests) == 1


def test_execution_planner_impacts_tell_of_a_fit_that_failed_and_keep_the_one_before() -> None:
    rig = started(BTCUSDT=opened(planted()))
    rig.run(61)
    before = rig.said()
    rig.answer = lambda: None  # type: ignore[method-assign]
    for ok, body in ((False, b"ValueError: expected a mode, found none" + b"!" * 999), (True, b"\x00")):
        rig.run(601)
        request = len(rig.ctx.requests)
        rig.impacts.on_result(Result(1, rig.ctx.now_ns, request, WORK, ok, body))
        failed = rig.ctx.records[-1]
        assert isinstance(failed, WorkFailed) and (failed.request_id, failed.work, failed.symbol) == (request, WORK, SYMBOL)
        assert failed.reason.startswith("expected a ") and len(failed.reason) <= REASON_LENGTH_MAX
        assert rig.said() == before
    rig.impacts.on_result(Result(1, rig.ctx.now_ns, 10**6, WORK, True, b""))
    assert len(rig.ctx.records) == 2, "nobody waits for that one"


# Bars


def bars_of(rig: Rig) -> np.ndarray:
    return rig.impacts._symbols[SYMBOL].bars.past()


def test_execution_planner_impacts_bar_is_net_volume_and_move_of_a_minute() -> None:
    rig = started(BTCUSDT=opened())
    book = rig.books[SYMBOL]
    rig.run(61)
    book.trade(rig.ctx.now_ns, b'"100"', b'"3.5"', buyer_is_taker=True)
    book.trade(rig.ctx.now_ns, b'"100"', b'"1.25"', buyer_is_taker=False)
    book.refine_for([b'"100.000001"'], [b'"0.00000001"'])  # What was counted before is counted finer now.
    book.snapshot(*quotes(100.1, [(0.0, 1.0)]))
    rig.run(60)
    rows = bars_of(rig)
    at = (T0 // BAR_NS + 2) * BAR_NS // 1_000_000
    assert rows[:, 0].tolist() == [at - 60_000, at][-len(rows) :]
    np.testing.assert_allclose(rows[-1, 1:], [2.25, 1e4 * math.log(100.1 / 100.0)], rtol=1e-9)


@pytest.mark.parametrize(("what", "dropped"), [("paused", 2), ("broken", 1), ("one_sided", 2)])
def test_execution_planner_impacts_drop_a_bar_that_the_book_was_not_live_throughout(what: str, dropped: int) -> None:
    rig = started(BTCUSDT=opened())
    book = rig.books[SYMBOL]
    rig.run(200)
    kept = len(bars_of(rig))
    if what == "paused":  # Not LIVE over the end of a minute.
        rig.books.clear()
        rig.run(60)
        rig.books[SYMBOL] = book
    elif what == "broken":  # LIVE again before anyone looked.
        book.start(rig.ctx.now_ns + 1)
        rig.run(60)
    else:
        book.snapshot(b'[["99","1"]]', b"[]")
        rig.run(60)
        book.snapshot(*quotes(100.0, [(0.0, 1.0)]))
    assert len(bars_of(rig)) == kept
    rig.run(120)
    assert len(bars_of(rig)) == kept + 3 - dropped
    assert np.isfinite(bars_of(rig)).all()


def test_execution_planner_impacts_late_timer_closes_no_bar() -> None:
    """After a pause the timer fires at whatever time a session begins."""
    rig = started(BTCUSDT=opened())
    rig.run(61)
    kept = len(bars_of(rig))
    ((due, timer, argument),) = rig.ctx.due
    rig.ctx.due[:] = [(due + 3_600 * S + 123, timer, argument)]
    rig.run(1)
    assert len(bars_of(rig)) == kept
    ((due, _, _),) = rig.ctx.due
    assert due % S == 0 and 0 < due - rig.ctx.now_ns <= S, "and is back on whole seconds"


# Bounds and hostile numbers


def test_execution_planner_impacts_keep_a_bounded_past() -> None:
    rig = started(BTCUSDT=opened())
    for i in range(FILLS + 50):
        rig.impacts.on_fill(SYMBOL, 1e-4, float(i), 1.0)
    one = rig.impacts._symbols[SYMBOL]
    assert one.fills.past()[:, 2].tolist() == [float(i) for i in range(50, FILLS + 50)]
    for i in range(BARS + 7):
        one.bars.note(i, [1.0, 1.0])
    assert len(bars_of(rig)) == BARS


@pytest.mark.parametrize("adv", [None, 0.0, -1.0, math.nan, math.inf])
def test_execution_planner_impacts_learn_nothing_while_a_days_volume_is_not_known(adv: float | None) -> None:
    rig = started(BTCUSDT=opened(planted()))
    rig.adv = adv
    rig.run(200)
    assert rig.ctx.requests == [] and rig.said() == impact.prior(SIGMA_1D)
    rig.adv = ADV
    rig.run(180)
    assert rig.said().source == "sweeps"


def test_execution_planner_impacts_learn_nothing_while_volatility_is_not_known() -> None:
    rig = started(BTCUSDT=opened(planted()))
    rig.sigma = None
    rig.run(200)
    assert rig.ctx.requests == [] and rig.impacts.impact(SYMBOL) is None
    rig.sigma = SIGMA_1D
    rig.run(61)
    assert rig.said().source == "sweeps"


def test_execution_planner_impacts_take_books_without_a_side_or_of_absurd_levels() -> None:
    hollow, absurd = opened(), opened()
    hollow.snapshot(b"[]", b"[]")
    absurd.snapshot(b'[["0.0001","900000000"]]', b'[["90000000000","900000000"]]')
    rig = started(BTCUSDT=opened(planted()), HOLLOW=hollow, ABSURD=absurd, UNKNOWN=FeatureBook(None, None, None))
    rig.run(70)
    assert rig.said().source == "sweeps"
    assert {rig.said(f"sim:{name}").source for name in ("HOLLOW", "ABSURD", "UNKNOWN")} == {"prior"}
    assert not any(isinstance(one, WorkFailed) for one in rig.ctx.records)


@pytest.mark.parametrize(
    "wrong",
    [
        *((share, 1.0, 1.0) for share in (0.0, -1e-3, math.nan, 1e4)),
        *((1e-3, cost_bps, 1.0) for cost_bps in (math.nan, math.inf, -1e6)),
        *((1e-3, 1.0, duration_s) for duration_s in (-1.0, 1e6, math.nan)),
    ],
)
def test_execution_planner_impacts_say_of_a_fill_that_it_teaches_nothing(wrong: tuple[float, float, float]) -> None:
    rig = started(BTCUSDT=opened())
    assert not rig.impacts.on_fill(SYMBOL, *wrong)
    rig.run(70)
    assert rig.said().source == "prior"
    rig.sigma = None
    assert not rig.impacts.on_fill(SYMBOL, 1e-3, 1.0, 1.0)


# State


def test_execution_planner_impacts_go_on_after_they_were_saved() -> None:
    def run(cut: int | None) -> tuple[list[tuple[int, str, bytes]], list[bytes]]:
        rig = started(BTCUSDT=opened(), ETHUSDT=opened(planted()))
        tape = Tape(rig)
        rig.impacts.on_fill(SYMBOL, 1e-3, 3.0, 1.0)
        for part in (cut, 3_000 - cut) if cut else (3_000,):
            rig.run(part, tape)
            if cut:
                pieces = [memoryview(bytes(piece)) for piece in rig.impacts.save()]
                rig.impacts = Impacts(rig.ctx, lambda: rig.books.items(), lambda _: rig.sigma, lambda _: rig.adv)
                rig.impacts.load(pieces)
        return rig.ctx.requests, [bytes(piece) for piece in rig.impacts.save()]

    whole = run(None)
    assert run(1_471) == whole, "with a bar open"
    assert len(whole[0]) >= 8


def test_execution_planner_impacts_take_a_result_that_was_asked_for_before_a_restart() -> None:
    rig = started(BTCUSDT=opened(planted()))
    rig.answer = lambda: None  # type: ignore[method-assign]
    rig.run(70)
    ((request, _, body),) = rig.ctx.requests
    other = Rig()
    other.impacts.load([memoryview(bytes(piece)) for piece in rig.impacts.save()])
    assert other.said().source == "prior"
    other.impacts.on_result(Result(1, other.ctx.now_ns, request, WORK, True, impact_work.work(body)))
    assert other.said().source == "sweeps"
