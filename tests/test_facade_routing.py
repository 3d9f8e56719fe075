"""``ap.Bandit``, ``ap.shapley``, ``ap.off_policy``, ``ap.backtest`` and the risk numbers as a notebook calls them."""

import math
from pathlib import Path

import numpy as np
import pytest

import alphapack as ap
from alphapack.config import SettingsError
from alphapack.domain.backtest import Backtest
from alphapack.domain.inputs import Frame
from alphapack.models.bandit import BanditSettings
from alphapack.shell.candle_files import CandleFileError
from alphapack.shell.captures import CaptureError
from alphapack.shell.journal import FileJournal
from alphapack.shell.plugins import PluginError
from test_backtest_cli import PLUGIN, SETTINGS, Market, market


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return market(tmp_path_factory)


def test_router_alpha_aware_public_names_are_there() -> None:
    assert {"Bandit", "backtest", "expected_shortfall", "max_drawdown", "off_policy", "shapley"} <= set(ap.__all__)
    assert [name for name in ap.__all__ if name != "Bandit" and not getattr(ap, name).__doc__] == []


# The bandit


def test_router_alpha_aware_a_bandit_learns_which_policy_pays_where() -> None:
    bandit = ap.Bandit(2, 2, seed=3)
    chance = np.random.default_rng(5)
    best = 0
    for turn in range(600):
        side = 1.0 if chance.random() < 0.5 else -1.0
        x = np.array([1.0, side])
        chosen, scores, propensities = bandit.choose(x)
        assert scores.shape == propensities.shape == (2,) and abs(propensities.sum() - 1.0) < 1e-9 and propensities.min() > 0.0
        bandit.update(chosen, x, (side if chosen == 0 else -side) + 0.3 * float(chance.standard_normal()))
        best += turn >= 300 and (chosen == 0) is (side > 0.0)
    assert best > 285, "each side has its own policy"


def test_router_alpha_aware_a_bandit_depends_on_its_seed_and_goes_on_from_what_was_saved() -> None:
    def course(bandit: ap.Bandit, turns: range) -> list[tuple[int, list[float], list[float]]]:
        found = []
        for turn in turns:
            x = np.array([1.0, math.sin(turn)])
            chosen, scores, propensities = bandit.choose(x)
            bandit.update(chosen, x, math.cos(3.0 * turn) - chosen)
            found.append((chosen, scores.tolist(), propensities.tolist()))
        return found

    first, again, other = ap.Bandit(3, 2, seed=1), ap.Bandit(3, 2, seed=1), ap.Bandit(3, 2, seed=2)
    head = course(first, range(40))
    assert head == course(again, range(40)) != course(other, range(40))
    restarted = ap.Bandit.load(first.save())
    assert course(restarted, range(40, 80)) == course(first, range(40, 80)) and restarted.save() == first.save()


def test_router_alpha_aware_a_bandit_refuses_what_cannot_be() -> None:
    bandit = ap.Bandit(2, 3)
    with pytest.raises(ValueError, match=r"expected features of float64\[3\], found float64\[2\]"):
        bandit.choose(np.zeros(2))
    with pytest.raises(ValueError, match="expected features from"):
        bandit.choose(np.array([1.0, np.nan, 0.0]))
    with pytest.raises(ValueError, match="expected policy from 0 to 1, found 2"):
        bandit.update(2, np.zeros(3), 1.0)
    with pytest.raises(ValueError, match="expected reward from"):
        bandit.update(0, np.zeros(3), math.inf)
    with pytest.raises(ValueError, match="expected a floor of at most 1/2"):
        ap.Bandit(2, 3, settings=BanditSettings(floor=0.6))
    with pytest.raises(ValueError):
        ap.Bandit.load(bandit.save()[:-1])


# Shapley values and what another policy would have earned


def test_alpha_attribution_shapley_of_the_glove_game() -> None:
    """A pair of gloves is worth 1; player 0 has a left one, players 1 and 2 a right one each: 2/3, 1/6, 1/6."""
    worth = [float(bool(s & 1) and bool(s & 6)) for s in range(8)]
    assert ap.shapley(worth, 3) == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=1e-15)
    assert ap.shapley([5, 7], 1).tolist() == [2.0], "what nobody is worth is nobody's"


def test_alpha_attribution_shapley_refuses_what_is_no_game() -> None:
    with pytest.raises(ValueError, match="expected 8 numbers, one a coalition of 3 players"):
        ap.shapley([0.0] * 7, 3)
    with pytest.raises(ValueError, match="expected from 1 to 20 players, found 21"):
        ap.shapley([0.0], 21)
    with pytest.raises(ValueError, match="found nan of coalition 1"):
        ap.shapley([0.0, math.nan], 1)


def test_router_alpha_aware_off_policy_by_hand() -> None:
    rewards, logged = [1.0, 0.0, 2.0, -1.0] * 30, [0.5, 0.5, 0.25, 0.5] * 30
    target = [0.5, 0.25, 0.25, 0.25] * 30
    found = ap.off_policy(rewards, logged, target)
    weights = [1.0, 0.5, 1.0, 0.5]
    assert found.n == 120 and found.ips == pytest.approx((1.0 + 2.0 - 0.5) / 4)
    assert found.snips == pytest.approx(2.5 / 3.0) and found.ess == pytest.approx(30 * sum(weights) ** 2 / sum(w * w for w in weights))
    assert found.ips_low < found.ips < found.ips_high and found.snips_low < found.snips < found.snips_high
    paired = ap.off_policy(rewards, logged, target, blocks=np.arange(120) // 4)
    assert paired.ips == found.ips and paired.ips_high - paired.ips_low < 1e-9, "blocks of four are all alike"


def test_router_alpha_aware_off_policy_refuses_too_little_unless_told_not_to() -> None:
    with pytest.raises(ValueError, match="expected at least 50 effective rows, found 3"):
        ap.off_policy([1.0, 0.0, 1.0], [0.5] * 3, [0.5] * 3)
    assert ap.off_policy([1.0, 0.0, 1.0], [0.5] * 3, [0.5] * 3, refuse=False).ips == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"found 0\.0 in row 1"):
        ap.off_policy([1.0, 0.0], [0.5, 0.0], [0.5, 0.5], refuse=False)


# Risk


def test_alpha_attribution_expected_shortfall_and_drawdown_by_hand() -> None:
    returns = [0.01 * i for i in range(-10, 10)]
    assert ap.expected_shortfall(returns, 0.9) == pytest.approx((0.10 + 0.09) / 2)
    assert ap.expected_shortfall(returns) == pytest.approx(0.10) and ap.expected_shortfall([3, 4]) == -3.0
    assert ap.max_drawdown([100, 120, 90, 130, 117]) == pytest.approx(0.25) and ap.max_drawdown([1.0, 2.0]) == 0.0


def test_alpha_attribution_risk_refuses_what_cannot_be() -> None:
    for wrong in ([], [math.nan], [[1.0]], ["1"]):
        with pytest.raises(ValueError, match="expected"):
            ap.expected_shortfall(wrong)
        with pytest.raises(ValueError, match="expected"):
            ap.max_drawdown(wrong)
    with pytest.raises(ValueError, match="expected"):
        ap.expected_shortfall([0.1], 1.0)
    with pytest.raises(ValueError, match=r"expected a first equity above 0, found 0\.0"):
        ap.max_drawdown([0.0, 1.0])


# The backtest


def test_alpha_attribution_a_backtest_takes_one_path_or_several_as_texts_or_paths(simulated: Market, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    one = ap.backtest(str(simulated.capture), SETTINGS, history=str(simulated.candles), report=str(page))
    several = ap.backtest([simulated.capture], SETTINGS, history=[simulated.candles], venue="sim")
    assert isinstance(one, Backtest) and one.digest == several.digest and one.trades == several.trades != []
    assert page.read_text().startswith("<!DOCTYPE html>") and one.digest in page.read_text()
    assert ap.max_drawdown(one.equity.equity) == pytest.approx(one.risk.max_drawdown or 0.0, abs=1e-12)


def test_alpha_attribution_complaints_of_a_recording_are_among_the_notes(simulated: Market, tmp_path: Path) -> None:
    spoilt = tmp_path / "sim_X_20260101.raw"
    spoilt.write_bytes(b"1767225600000000000 {}\nno line\n")
    found = ap.backtest([simulated.capture, spoilt], SETTINGS)
    assert [note for note in found.notes if "sim_X_20260101.raw:2:" in note] != []


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"router": {"intervall_s": 10}}, "the nearest is 'interval_s'"),
        ({"ruoter": {"interval_s": 10}}, "ruoter"),
        ({"router": {"interval_s": "often"}}, "interval_s"),
        ({"router": {"interval_s": 60, "horizon_s": 30}}, "expected 1 <= interval_s <= horizon_s"),
        ({"router": {"without": ["nobody"]}}, "expected an alpha or a policy, found 'nobody'"),
        ({"execution": {"queue": "hopeful"}}, "queue"),
    ],
)
def test_alpha_attribution_a_backtest_refuses_settings_that_are_none(
    simulated: Market, settings: dict[str, dict[str, object]], word: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        ap.backtest(simulated.capture, settings)
    assert word in str(refused.value)


def test_alpha_attribution_a_backtest_refuses_files_that_are_none(simulated: Market, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="expected a capture file, found nothing at"):
        ap.backtest(tmp_path / "sim_BTCUSDT.raw")
    with pytest.raises(CandleFileError, match="expected a file of candles, found nothing at"):
        ap.backtest(simulated.capture, history=tmp_path / "nowhere.csv")
    with pytest.raises(PluginError, match="expected a Python file, found none to read"):
        ap.backtest(simulated.capture, {"plugins": {"files": [str(tmp_path / "nowhere.py")]}})
    journal = FileJournal(tmp_path / "journal")
    journal.append([Frame(1, 1, "sim", "BTCUSDT", b"{}")])
    journal.close()
    with pytest.raises(CaptureError, match="expected captures to trade on, found a journal"):
        ap.backtest(tmp_path / "journal")


def test_router_alpha_aware_a_plugin_that_was_edited_is_read_again(simulated: Market, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.format("mine"))
    settings = {**SETTINGS, "plugins": {"files": [str(plugin)]}}
    before = ap.backtest(simulated.capture, settings)
    plugin.write_text(PLUGIN.format("other"))
    after = ap.backtest(simulated.capture, settings)
    assert after.settings["plugins"] != before.settings["plugins"] and after.alpha_pnl[-1].id == "other"
