"""The fit off the loop: sources in their order, those that say too little left out, and answers that are none refused."""

import msgspec
import numpy as np
import pytest

from alphapack.models import impact, impact_work
from alphapack.models.impact import BARS_MIN, Impact

SIGMA_1D = 0.03
K, A = 180.0, 0.6
SHARES = 10.0 ** np.arange(-6.0, -1.75, 0.5)
NONE = np.empty(0)
NO_BARS, NO_FILLS = (NONE, NONE), (NONE, NONE, NONE, NONE)


def sweeps() -> tuple[np.ndarray, np.ndarray]:
    return SHARES, K * SHARES**A


def bars(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(3)
    shares = chance.choice([-1.0, 1.0], n) * 10.0 ** chance.uniform(-5.0, -2.0, n)
    return shares, np.sign(shares) * K * np.abs(shares) ** A + 0.5 * chance.standard_normal(n)


def fills(n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    shares = 10.0 ** np.random.default_rng(4).uniform(-4.0, -2.0, n)
    return shares, K * shares**A, np.full(n, 5.0), np.full(n, 0.3)


def learnt(
    seen: tuple[np.ndarray, np.ndarray] = (NONE, NONE),
    tape: tuple[np.ndarray, np.ndarray] = NO_BARS,
    own: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] = NO_FILLS,
) -> Impact:
    body = impact_work.request("sim:BTCUSDT", SIGMA_1D, seen, tape, own)
    assert body is not None
    return impact_work.answer(impact_work.work(body))


def test_execution_planner_impact_learns_from_each_source_in_its_order() -> None:
    first = impact.from_sweeps(*sweeps(), impact.prior(SIGMA_1D))
    second = impact.from_bars(*bars(), first)
    third = impact.from_fills(*fills(), second)
    assert learnt(sweeps()) == first
    assert learnt(sweeps(), bars()) == second
    assert learnt(sweeps(), bars(), fills()) == third
    assert third.source == "fills" and third.n == 40
    assert learnt(own=fills()) == impact.from_fills(*fills(), impact.prior(SIGMA_1D)), "sources that say nothing are left out"


@pytest.mark.parametrize(
    ("seen", "tape"),
    [
        ((SHARES[:2], np.ones(2)), NO_BARS),
        ((SHARES, np.zeros(len(SHARES))), NO_BARS),
        (NO_BARS, (np.abs(bars()[0]), bars()[1])),
        (NO_BARS, (-np.abs(bars()[0]), bars()[1])),
        (NO_BARS, (bars()[0][: BARS_MIN - 1], bars()[1][: BARS_MIN - 1])),
        (NO_BARS, (np.zeros(100), np.ones(100))),
        (NO_BARS, (np.full(100, np.nan), np.ones(100))),
        (NO_BARS, (np.resize([1e4, -1e4], 100), np.ones(100))),
        (NO_BARS, (bars()[0][:100], np.full(100, 2e5))),
        (NO_BARS, (bars()[0][:100], np.full(100, np.nan))),
    ],
)
def test_execution_planner_impact_is_not_asked_for_where_too_little_was_said(
    seen: tuple[np.ndarray, np.ndarray], tape: tuple[np.ndarray, np.ndarray]
) -> None:
    assert impact_work.request("sim:BTCUSDT", SIGMA_1D, seen, tape, NO_FILLS) is None
    assert learnt(seen, tape, fills()) == learnt(own=fills())


def test_execution_planner_impact_leaves_single_bars_out_that_say_nothing() -> None:
    shares, moves = bars()
    odd = np.array([0.0, np.nan, 1e6, 1e-3, 1e-3]), np.array([1.0, 1.0, 1.0, np.inf, -1e9])
    both = np.concatenate((odd[0], shares)), np.concatenate((odd[1], moves))
    assert learnt(tape=both) == learnt(tape=(shares, moves))


def test_execution_planner_impact_work_answers_the_same_bytes_again() -> None:
    body = impact_work.request("sim:BTCUSDT", SIGMA_1D, sweeps(), bars(), fills())
    assert body is not None and impact_work.work(body) == impact_work.work(body)


@pytest.mark.parametrize("wrong", [{"k": -1.0}, {"a": 3.0}, {"k": float("nan")}, {"k_stderr": 0.0}, {"n": -1}, {"source": "guess"}])
def test_execution_planner_impact_refuses_an_answer_that_is_no_impact(wrong: dict[str, object]) -> None:
    good = msgspec.to_builtins(learnt(sweeps()))
    assert impact_work.answer(msgspec.msgpack.encode(good)) == learnt(sweeps())
    with pytest.raises(ValueError, match="expected a fitted impact, found"):
        impact_work.answer(msgspec.msgpack.encode(good | wrong))
    with pytest.raises(ValueError, match="expected a fitted impact, found"):
        impact_work.answer(b"\xc1")


def test_execution_planner_impact_is_made_ready() -> None:
    impact_work.warm()
