"""What readers are answered about decisions, alphas and attribution, put together from the services that know."""

import numpy as np

from alphapack.domain import routing_readings as readings
from alphapack.domain.events import DecisionMade
from alphapack.domain.market import NANOS_PER_MS, BookState, name_of
from alphapack.engine.engine import Engine
from alphapack.models.bandit import choose
from alphapack.models.features import NAMES
from alphapack.models.policy import FLAT
from alphapack.services.router import Kept, moments


def missing(engine: Engine, symbol: str) -> str | None:
    """Return what is missing for a decision about a symbol; None where nothing is."""
    found = engine.known.market(symbol)
    if found is None or found[1] is not BookState.LIVE:
        return f"expected a LIVE book, found it {found[1].name if found is not None else 'not there'}"
    if engine.known.sigma(symbol) is None:
        return "expected a forecast of volatility, found none yet: it follows from the candles of a week"
    if "spread_bps" not in engine.known.features(symbol):
        return "expected a book of two sides, found no spread yet"
    return None


def choice(kept: Kept, seq: int, durable_seq: int) -> readings.Choice:
    """Return a piece of advice."""
    made = kept.made
    return readings.Choice(
        decision_id=str(made.decision),
        ts_ms=kept.ts_ns // NANOS_PER_MS,
        symbol=name_of(made.symbol),
        policy=made.policy,
        exposure=made.exposure,
        scores=made.scores,
        propensities=made.propensities,
        features=_features(made),
        sources=made.sources,
        signals=made.signals,
        proposals=made.proposals,
        win_probability=made.win_probability,
        seq=seq,
        durable_seq=durable_seq,
    )


def snapshot(kept: Kept, disabled: dict[str, str]) -> readings.Snapshot:
    """Return a decision with the beliefs that it was made by."""
    made = kept.made
    posterior = {}
    for policy, mixture in made.mixtures.items():
        mean, sd = moments(mixture) if made.enabled[policy] else (None, None)
        posterior[policy] = readings.Posterior(made.learnt[policy], mean, sd)
    return readings.Snapshot(
        decision_id=str(made.decision),
        ts_ms=kept.ts_ns // NANOS_PER_MS,
        symbol=name_of(made.symbol),
        origin=made.origin,
        policy=made.policy,
        exposure=made.exposure,
        scores=made.scores,
        propensities=made.propensities,
        features=_features(made),
        sources=made.sources,
        signals=made.signals,
        weights=made.weights,
        blends=made.blends,
        proposals=made.proposals,
        win_probability=made.win_probability,
        posterior=posterior,
        disabled=disabled,
    )


def decisions(engine: Engine, symbol: str | None, origin: str | None, before: int | None, limit: int) -> readings.Decisions:
    """Return a page of decisions, newest first."""
    rows: list[readings.DecisionRow] = []
    for kept in engine.router.kept(symbol, origin):
        made = kept.made
        if before is not None and made.decision >= before:
            continue
        if len(rows) == limit:
            return readings.Decisions(next=rows[-1].decision_id, decisions=rows)
        rows.append(
            readings.DecisionRow(
                decision_id=str(made.decision),
                ts_ms=kept.ts_ns // NANOS_PER_MS,
                symbol=name_of(made.symbol),
                origin=made.origin,
                policy=made.policy,
                exposure=made.exposure,
                propensity=made.propensities[made.policy],
                win_probability=made.win_probability,
                explored=made.explored,
            )
        )
    return readings.Decisions(next=None, decisions=rows)


def audit(kept: Kept) -> readings.DecisionAudit:
    """Return a decision's record, made again to see whether it says all."""
    return readings.DecisionAudit(
        decision_id=str(kept.made.decision), ts_ms=kept.ts_ns // NANOS_PER_MS, record=kept.made, recomputed=recomputes(kept.made)
    )


def recomputes(made: DecisionMade) -> bool:
    """Tell whether policy, scores and propensities of a decision follow from its record, to the bit."""
    names = list(made.mixtures)
    again = choose(
        np.array([made.mixtures[name] for name in names]),
        np.array([made.enabled[name] for name in names], dtype=np.bool_),
        np.array(made.uniforms),
        made.floor,
        flat=True,
    )
    options = [*names, FLAT]
    scores = {name: score if score == score else None for name, score in zip(names, again.scores.tolist(), strict=True)} | {FLAT: 0.0}
    return (
        options[again.arm] == made.policy
        and scores == made.scores
        and dict(zip(options, again.propensities.tolist(), strict=True)) == made.propensities
    )


def alphas(engine: Engine) -> list[readings.AlphaReading]:
    """Return every alpha with its weight, its state and how it has done."""
    service = engine.alphas
    registry = service.registry
    return [
        readings.AlphaReading(
            id=alpha.id,
            desc=alpha.desc,
            family=alpha.family,
            group=alpha.group,
            policies=[policy.name for policy in registry.policies if policy.listens == alpha.group],
            inputs=list(alpha.inputs),
            weight_init=alpha.weight_init,
            weight=weight,
            enabled=alpha.id not in service.disabled,
            status=service.disabled.get(alpha.id, "ok"),
            source=alpha.source,
            ic=judged.ic,
            ic_t=judged.ic_t,
            half_life_s=judged.half_life_s,
            turnover=judged.turnover,
            n=judged.n,
        )
        for alpha, weight, judged in zip(registry.alphas, service.in_force, service.judged(), strict=True)
    ]


def attribution(engine: Engine, decision: int | None) -> readings.Attribution | None:
    """Return who is to be thanked for a trade, or for the newest; None where nothing is kept of it."""
    made = engine.attribution.of(decision)
    if made is None:
        return None
    return readings.Attribution(
        trade_id=str(made.decision),
        decision_id=str(made.decision),
        symbol=name_of(made.symbol),
        policy=made.policy,
        pnl=made.pnl,
        base=made.base,
        fees=made.fees,
        execution=made.execution,
        contributions=made.contributions,
        error=made.error,
    )


def _features(made: DecisionMade) -> dict[str, float | None]:
    return {name: made.features.get(name) for name in dict.fromkeys((*NAMES, *made.features))}
