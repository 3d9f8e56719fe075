"""The router's audit log on disk: every decision is read back, gives its propensities again to the bit, and can be judged."""

import asyncio
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from alphapack import app, cli
from alphapack.domain.events import DecisionMade, Record, RewardLearnt
from alphapack.domain.inputs import AnyInput, Choose, CoreSettings, InstrumentSettings, Reward
from alphapack.domain.simulation import SimulatorSettings
from alphapack.domain.trading import RouterSettings
from alphapack.engine.engine import Engine
from alphapack.engine.ports import LedgerRow
from alphapack.models import arms, evaluation
from alphapack.models.policy import FLAT
from alphapack.models.volatility import MINUTES_MIN
from alphapack.shell import audit
from alphapack.shell.audit import Audit, AuditError
from alphapack.shell.clock import SetClock
from alphapack.shell.ledger import LedgerError, SqliteLedger
from alphapack.shell.recovery import ledger_rows
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import SimulatedMarket

S = 1_000_000_000
END_NS = 1_795_000_000 * S
SECONDS, ADVICE = 300, 30
NAMES = ("BTCUSDT", "ETHUSDT")
ROUTER = RouterSettings(interval_s=3, horizon_s=3, floor=0.05, scale=0.5, prior_edge=0.3, prior_effect=0.05)
CHEAP = tuple(InstrumentSettings(f"sim:{name}", maker_fee_bps=0.0, taker_fee_bps=0.2) for name in NAMES)
CHANGED = ("interval_s", "horizon_s", "floor", "scale", "prior_edge", "prior_effect")
FILE = "[router]\n" + "".join(f"{name} = {getattr(ROUTER, name)}\n" for name in CHANGED)


class Kept(NamedTuple):
    """An engine's folder, and what its ledger was written from."""

    folder: Path
    said: list[Record]
    rows: list[LedgerRow]


async def lived(engine: Engine) -> tuple[list[Record], list[LedgerRow]]:
    """Trade a simulated market of two symbols, then ask for advice and reward some of it."""
    runner = Runner(engine, source="test", config=dict)
    said: list[Record] = []
    rows: list[LedgerRow] = []
    step = engine.step

    def witnessed(entry: AnyInput) -> list[Record]:
        caused = step(entry)
        said.extend(caused)
        rows.extend(ledger_rows(entry, caused))
        return caused

    engine.step = witnessed  # type: ignore[method-assign]
    market = SimulatedMarket(
        SimulatorSettings(seed=5, symbols=NAMES),
        CoreSettings(router=ROUTER, instruments=CHEAP),
        SetClock(END_NS),
        app.WORKS,
        app.WORK_DELAY_NS,
        past_ns=SECONDS * S,
        history_minutes=MINUTES_MIN + 60,
    )
    await market.make(runner)
    for turn in range(ADVICE):
        symbol = f"sim:{NAMES[turn % 2]}"
        (made,) = engine.step(Choose(engine.seq + 1, engine.now_ns, symbol, {"obi": (turn % 7 - 3) / 3.0}))
        assert isinstance(made, DecisionMade)
        if made.policy != FLAT and turn % 3:
            engine.step(Reward(engine.seq + 1, engine.now_ns, made.decision, float(turn % 11 - 5)))
    return said, rows


def written(folder: Path, rows: Sequence[LedgerRow]) -> Path:
    """Return the folder of an engine whose ledger has these rows."""
    folder.mkdir(parents=True)
    ledger = SqliteLedger(folder / audit.LEDGER_NAME, engine=folder.name)
    ledger.append(rows)
    ledger.close()
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    said, rows = asyncio.run(lived(app.build()))
    return Kept(written(tmp_path_factory.mktemp("state") / "sim-test", rows), said, rows)


@pytest.fixture(scope="module")
def log(kept: Kept) -> Audit:
    return audit.read(kept.folder)


@pytest.fixture(autouse=True)
def settings_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "alphapack.toml").write_text(FILE)


def decisions(kept: Kept) -> list[DecisionMade]:
    return [one for one in kept.said if isinstance(one, DecisionMade)]


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must end as bad usage, and return its one line."""
    assert cli.main([str(one) for one in arguments]) == cli.USAGE
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


# What is read


def test_router_alpha_aware_every_decision_and_reward_of_a_ledger_is_read_back(kept: Kept, log: Audit) -> None:
    made = decisions(kept)
    rewards = {one.decision: one for one in kept.said if isinstance(one, RewardLearnt)}
    assert len(made) > 100 and len(rewards) > 50 and {one.origin for one in rewards.values()} == {"engine", "api"}
    assert len(log.decisions) == len(made) and log.left_out == 0 and log.alphas == len(app.BUILT_IN.alphas)
    for one, said in zip(log.decisions, made, strict=True):
        assert one.arms == tuple(policy.name for policy in app.BUILT_IN.policies) and one.symbol == said.symbol
        assert [*one.arms, FLAT][one.chosen] == said.policy
        assert dict(zip([*one.arms, FLAT], one.propensities, strict=True)) == said.propensities
        assert dict(zip(one.arms, one.offsets, strict=True)) == said.offsets
        assert dict(zip(one.arms, one.enabled, strict=True)) == said.enabled
        assert one.reward == (rewards[said.decision].target if said.decision in rewards else None)
    assert [one.ts_ns for one in log.decisions] == sorted({one.ts_ns for one in log.decisions}), "each has a time of its own"
    learnt = [one for one in log.decisions if one.reward_ns is not None]
    assert all(one.reward_ns is not None and one.reward_ns > one.ts_ns for one in learnt)


def test_router_alpha_aware_the_logs_own_settings_give_its_propensities_again_to_the_bit(log: Audit) -> None:
    found = evaluation.propensities(log.decisions, arms.beliefs(ROUTER, log.alphas), pooled=True)
    logged = np.array([one.propensities for one in log.decisions])
    assert found.tobytes() == logged.tobytes()
    assert len({row.tobytes() for row in logged}) > 50, "they differ by context and by what was learnt"


def test_router_alpha_aware_other_settings_and_other_banks_give_other_propensities(log: Audit) -> None:
    logged = np.array([one.propensities for one in log.decisions])
    own = arms.beliefs(ROUTER, log.alphas)
    bold = arms.beliefs(msgspec.structs.replace(ROUTER, scale=1.0), log.alphas)
    assert evaluation.propensities(log.decisions, own, pooled=False).tobytes() != logged.tobytes(), "one bank serves all symbols"
    assert evaluation.propensities(log.decisions, bold, pooled=True).tobytes() != logged.tobytes()


def test_router_alpha_aware_decisions_with_other_alphas_or_policies_are_left_out(kept: Kept, tmp_path: Path) -> None:
    flat = [one for one in decisions(kept) if one.policy == FLAT][:2]
    more = msgspec.structs.replace(flat[0], signals={**flat[0].signals, "one_more": 0.5})
    fewer = msgspec.structs.replace(flat[1], mixtures={name: rows for name, rows in flat[1].mixtures.items() if name != "momentum"})
    changed = {one.decision: one for one in (more, fewer)}
    found = audit.read(written(tmp_path / "other", [with_decision(row, changed) for row in kept.rows]))
    assert (len(found.decisions), found.left_out) == (len(decisions(kept)) - 2, 2)


def with_decision(row: LedgerRow, changed: dict[int, DecisionMade]) -> LedgerRow:
    if row.kind != "decision":
        return row
    made = msgspec.json.decode(row.body, type=DecisionMade)
    return msgspec.structs.replace(row, body=msgspec.json.encode(changed.get(made.decision, made)))


def test_router_alpha_aware_a_ledger_is_found_by_its_file_its_folder_and_the_folder_above(kept: Kept, log: Audit) -> None:
    for path in (kept.folder / audit.LEDGER_NAME, kept.folder.parent):
        assert audit.read(path) == log


def test_router_alpha_aware_a_ledger_is_read_while_its_engine_writes(kept: Kept, tmp_path: Path) -> None:
    folder = written(tmp_path / "sim-test", kept.rows[:-50])
    before = audit.read(folder)
    ledger = SqliteLedger(folder / audit.LEDGER_NAME, engine=folder.name)
    try:
        ledger.append(kept.rows[-50:])
        assert len(before.decisions) < len(audit.read(folder).decisions) == len(decisions(kept))
    finally:
        ledger.close()


@pytest.mark.parametrize("kinds", [(), ("reward",), ("fill", "order")])
def test_router_alpha_aware_a_ledger_without_decisions_is_refused(kept: Kept, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    folder = written(tmp_path / "sim-test", [row for row in kept.rows if row.kind in kinds])
    with pytest.raises(AuditError, match="expected decisions of the router, found none"):
        audit.read(folder)


def test_router_alpha_aware_records_of_another_version_are_refused(kept: Kept, tmp_path: Path) -> None:
    at = next(i for i, row in enumerate(kept.rows) if row.kind == "reward")
    strange = msgspec.structs.replace(kept.rows[at], body=b'{"kind":"reward","decision":1}')
    folder = written(tmp_path / "sim-test", [*kept.rows[:at], strange])
    with pytest.raises(AuditError, match=rf"expected records of this version of alphapack.*seq {strange.seq}"):
        audit.read(folder)


def test_router_alpha_aware_no_ledger_is_refused_and_none_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    for path in (folder, folder / "nowhere", folder / "nowhere.sqlite"):
        with pytest.raises(AuditError, match="expected a ledger, or the folder of an engine, found none at"):
            audit.read(path)
    assert list(folder.iterdir()) == []


# What is printed


def test_router_alpha_aware_evaluate_compares_settings_by_a_ledger(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    bold = ("--candidate", "bold:scale=1,floor=0.02", "--candidate", "as it was:scale=0.5")
    assert cli.main(["evaluate", str(kept.folder), *bold]) == cli.DONE
    captured = capsys.readouterr()
    assert captured.err == "" and f"{len(decisions(kept))} decisions; rewards in volatilities" in captured.out
    assert "left out" not in captured.out
    assert cli.main(["evaluate", str(kept.folder / audit.LEDGER_NAME), "--json", *bold]) == cli.DONE
    said = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in said["rows"]}
    assert (said["decisions"], said["left_out"]) == (len(decisions(kept)), 0)
    names = ["as logged", "uniform", *(f"always {policy.name}" for policy in app.BUILT_IN.policies), "bold", "as it was"]
    assert list(rows) == names and [name for name in names if name not in captured.out] == []
    logged, again = rows["as logged"], rows["as it was"]
    assert logged["ess"] == logged["n"] > 50 and logged["reason"] == ""
    for estimate in ("ips", "snips"):
        assert math.isclose(logged["ips_snips"][estimate], logged["logged"], abs_tol=1e-12)
    assert {**again, "name": ""} == {**logged, "name": ""}, "the same settings choose the same"
    assert rows["bold"]["ess"] < logged["ess"]
    told = captured.out.replace(",", "")
    assert f"{logged['ips_snips']['ips']:+.4f} [{logged['ips_snips']['ips_low']:+.4f} {logged['ips_snips']['ips_high']:+.4f}]" in told


def test_router_alpha_aware_evaluate_without_candidates_takes_the_settings_as_they_are(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(kept.folder), "--json"]) == cli.DONE
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(rows)[-3:] == ["as set", "half the scale", "a quarter of it"]
    assert {**rows["as set"], "name": ""} == {**rows["as logged"], "name": ""}
    assert rows["a quarter of it"]["ess"] < rows["half the scale"]["ess"] < rows["as set"]["ess"]


def test_router_alpha_aware_evaluate_tells_what_was_left_out(kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = next(one for one in decisions(kept) if one.policy == FLAT)
    other = {flat.decision: msgspec.structs.replace(flat, signals={})}
    folder = written(tmp_path / "other", [with_decision(row, other) for row in kept.rows])
    assert cli.main(["evaluate", str(folder)]) == cli.DONE
    assert "left out: 1 decisions with other alphas or policies" in capsys.readouterr().out


def test_router_alpha_aware_evaluate_says_where_a_log_is_too_short(kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "short", kept.rows[: len(kept.rows) // 4])
    assert cli.main(["evaluate", str(folder)]) == cli.DONE
    assert "expected at least 20 blocks of time" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["bold", "bold:", ":scale=1", "bold:scale", "bold:scale=much", "bold:scale=1=2", "bold:=", ""])
def test_router_alpha_aware_a_candidate_that_says_nothing_is_refused(kept: Kept, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = failed(capsys, "evaluate", kept.folder, f"--candidate={text}")
    assert "expected NAME:KEY=VALUE,..." in error and repr(text) in error


@pytest.mark.parametrize(
    ("candidates", "word"),
    [
        (["a:scale=2"], "candidate a: expected scale from 0.001 to 1, found 2.0"),
        (["a:floor=nan"], "candidate a: expected floor from 0 to 0.05, found nan"),
        (["a:scael=0.5"], "keys of scale, floor, prior_edge, prior_effect"),
        (["a:scale=1", "a:scale=0.5"], "with a new name"),
        (["uniform:scale=1"], "expected settings with names of their own, found uniform"),
    ],
)
def test_router_alpha_aware_a_candidate_that_cannot_be_is_refused(
    kept: Kept, candidates: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert word in failed(capsys, "evaluate", kept.folder, *(f"--candidate={one}" for one in candidates))


def test_router_alpha_aware_evaluate_of_what_is_no_ledger_ends_with_a_line(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "found none at" in failed(capsys, "evaluate", tmp_path)
    assert "LEDGER" in failed(capsys, "evaluate")
    assert "expected decisions" in failed(capsys, "evaluate", written(tmp_path / "empty", []))
    damaged = tmp_path / "sim-test"
    shutil.copytree(kept.folder, damaged)
    with (damaged / audit.LEDGER_NAME).open("r+b") as file:
        file.write(b"no database at all")
    assert cli.main(["evaluate", str(damaged)]) == cli.FAILED
    assert capsys.readouterr().err.count("\n") == 1


def test_router_alpha_aware_of_several_ledgers_one_must_be_named(kept: Kept, tmp_path: Path) -> None:
    for name in ("one", "two"):
        written(tmp_path / "state" / name, kept.rows)
    with pytest.raises(audit.AuditError, match="one"):
        audit.read(tmp_path / "state")


def test_router_alpha_aware_a_copied_ledger_is_read(kept: Kept, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "ledger.sqlite"
    copy.parent.mkdir()
    copy.write_bytes((kept.folder / "ledger.sqlite").read_bytes())
    assert len(audit.read(copy).decisions) == len(decisions(kept))


def test_router_alpha_aware_reading_a_log_writes_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    with pytest.raises(LedgerError):
        audit.read(empty)
    assert empty.stat().st_size == 0


def test_router_alpha_aware_what_came_before_other_alphas_is_left_out_also_where_these_came_back(kept: Kept, tmp_path: Path) -> None:
    flat = [one for one in decisions(kept) if one.policy == FLAT]
    middle = flat[len(flat) // 2]
    other = {middle.decision: msgspec.structs.replace(middle, signals={})}
    found = audit.read(written(tmp_path / "back", [with_decision(row, other) for row in kept.rows]))
    assert found.left_out == middle.decision


@pytest.mark.parametrize("text", ["a:interval_s=60", "a:horizon_s=900", "a:without=1"])
def test_router_alpha_aware_a_candidate_of_settings_that_no_log_can_judge_is_refused(
    kept: Kept, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed(capsys, "evaluate", kept.folder, f"--candidate={text}")
