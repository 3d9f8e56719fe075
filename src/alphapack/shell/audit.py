"""The router's audit log, as the ledger keeps it: what another router would have made of it."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from alphapack.domain.events import DecisionMade, RewardLearnt
from alphapack.engine.ports import LedgerRow
from alphapack.models import arms
from alphapack.models.evaluation import Logged
from alphapack.models.policy import FLAT
from alphapack.shell.ledger import SqliteLedger

LEDGER_NAME = "ledger.sqlite"
KINDS = ("decision", "reward")


class AuditError(ValueError):
    """A ledger that says nothing of a router; the text says what was expected."""


class Audit(NamedTuple):
    """The decisions of one ledger."""

    decisions: list[Logged]
    alphas: int
    """How many there were: a context is as long as they have it."""
    left_out: int
    """Decisions from before the posteriors last began anew, as with other alphas, policies or beliefs."""


class _Known(NamedTuple):
    ts_ns: int
    made: DecisionMade


def read(path: Path) -> Audit:
    """Return the decisions that a ledger holds, with what came of them. Raises ``AuditError`` and ``LedgerError``."""
    files = sorted(path.rglob(LEDGER_NAME)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise AuditError(f"expected a ledger, or the folder of an engine, found none at {path}")
    if len(files) > 1:
        raise AuditError(f"expected one ledger, found several: name one of {', '.join(str(file) for file in files[:20])}")
    every: dict[int, _Known] = {}
    rewards: dict[int, tuple[int, float]] = {}
    last_ns, left_out = 0, 0
    for row in SqliteLedger.reader(files[0]).rows():
        if row.kind in KINDS:
            last_ns = max(row.ts_ns, last_ns + 1)  # Rows of one input have one time: what was known first comes first.
            left_out += _take(row, last_ns, every, rewards)
    if not every:
        raise AuditError(f"{files[0]}: expected decisions of the router, found none")
    decisions = [_logged(at, known, rewards.get(at)) for at, known in every.items()]
    return Audit(decisions, len(next(iter(every.values())).made.signals), left_out)


def _take(row: LedgerRow, ts_ns: int, every: dict[int, _Known], rewards: dict[int, tuple[int, float]]) -> int:
    """Take a row; where the posteriors began anew with it, forget what was before and return how many decisions that were."""
    forgotten = 0
    try:
        if row.kind == "decision":
            made = msgspec.json.decode(row.body, type=DecisionMade)
            before = next(reversed(every.values())).made if every else made
            if _names(made) != _names(before) or any(made.learnt[name] < n for name, n in before.learnt.items()):
                forgotten = len(every)
                every.clear()
            every[made.decision] = _Known(ts_ns, made)
        elif row.kind == "reward":
            learnt = msgspec.json.decode(row.body, type=RewardLearnt)
            rewards[learnt.decision] = ts_ns, learnt.target
    except msgspec.ValidationError as error:
        raise AuditError(f"expected records of this version of alphapack, found those of another (seq {row.seq}: {error})") from None
    return forgotten


def _names(made: DecisionMade) -> tuple[list[str], list[str]]:
    return list(made.mixtures), list(made.signals)


def _logged(decision: int, known: _Known, reward: tuple[int, float] | None) -> Logged:
    made, policies = known.made, list(known.made.mixtures)
    signals = list(made.signals.values())
    return Logged(
        ts_ns=known.ts_ns,
        symbol=made.symbol,
        arms=tuple(policies),
        enabled=tuple(made.enabled[name] for name in policies),
        x=tuple(tuple(arms.vector(made.standardised, signals, made.blends[name], made.sides[name]).tolist()) for name in policies),
        offsets=tuple(made.offsets[name] for name in policies),
        chosen=[*policies, FLAT].index(made.policy),
        propensities=tuple(made.propensities[name] for name in (*policies, FLAT)),
        reward=None if reward is None else reward[1],
        reward_ns=None if reward is None else reward[0],
        advice=made.origin != "engine",
    )
