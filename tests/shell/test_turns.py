from types import SimpleNamespace

import pytest

from alphapack.shell import turns
from alphapack.shell.turns import SLICE_MAX_S, SLICE_S, Turns


@pytest.mark.parametrize(
    ("others_s", "wanted_s"), [(0.0, SLICE_S), (0.5 * SLICE_S, SLICE_S), (3 * SLICE_S, 3 * SLICE_S), (10 * SLICE_MAX_S, SLICE_MAX_S)]
)
def test_a_turn_lasts_as_long_as_the_others_took(others_s: float, wanted_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimpleNamespace(now_s=5.0)
    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: world.now_s))
    mine = Turns()
    assert mine.slice_s() == SLICE_S, "nobody has waited yet"
    mine.leave()
    world.now_s += others_s
    assert mine.slice_s() == pytest.approx(wanted_s)
    mine.rest()
    world.now_s += 100.0
    assert mine.slice_s() == SLICE_S, "what begins afresh has not waited for others"
