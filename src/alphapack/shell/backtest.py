"""A recording traded on paper from its beginning to its end, and what came of it.

The loop is the engine's own: this only counts what it says. What is filled depends on what is believed of the queue ahead of a resting
order, so that a whole second run under the other belief gives the other bound.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D
from alphapack.domain import backtest as results
from alphapack.domain.events import Attributed, DecisionMade, Filled, Record, RewardLearnt, TradeClosed
from alphapack.domain.inputs import AnyInput, CoreSettings
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.domain.money import UNITS
from alphapack.engine.engine import Engine
from alphapack.models import risk, tca, uniforms
from alphapack.models.deals import Deal
from alphapack.models.sleeves import HOUSE
from alphapack.models.uniforms import PER_BLOCK

MIDS_MAX = 4_000
"""Mids of a symbol that are kept to draw: one a second, then every second one of them, and so on."""
BINS = 15
REDRAWN = 200
"""Times that outcomes are redrawn from what was said of them."""
BAR_MS = 10_000

Steps = Iterator[tuple[AnyInput, list[Record]]]


class Tally:
    """What one run says, counted while it goes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.from_ns = self.to_ns = 0
        self.decided: Counter[str] = Counter()
        self.informed = 0
        """Decisions for which a forecast of volatility was known."""
        self.trades: list[results.Trade] = []
        self.fills: list[results.Fill] = []
        self.outcomes: list[tuple[float, bool]] = []
        """Win probabilities and what became of them."""
        self.alphas: dict[str, tuple[int, int]] = {}
        """Money and trades by alpha."""
        self.lines = Counter[str]()
        self.costs: list[tca.Costs] = []
        self._probability: dict[int, float] = {}
        self._rewards: dict[int, float] = {}
        self._closed: dict[int, TradeClosed] = {}
        self._mids: dict[str, tuple[list[int], list[float]]] = {}
        self._every_s, self._next_ns = 1, 0

    def take(self, entry: AnyInput, records: Iterable[Record]) -> None:
        """Count what an input has caused."""
        if not self.from_ns:
            self.from_ns = entry.ts_ns
        self.to_ns = max(self.to_ns, entry.ts_ns)
        for record in records:
            if type(record) is DecisionMade:
                self._on_decision(record)
            elif type(record) is Filled:
                self._on_fill(record)
            elif type(record) is RewardLearnt:
                self._on_reward(record)
            elif type(record) is TradeClosed:
                self._closed[record.decision] = record
            elif type(record) is Attributed:
                self._on_attributed(record)
        if entry.ts_ns >= self._next_ns:
            self._note(entry.ts_ns)

    def _on_decision(self, made: DecisionMade) -> None:
        self.decided[made.policy] += 1
        self.informed += made.sigma > 0.0
        if made.exposure or made.quote is not None:
            self._probability[made.decision] = made.win_probability

    def _on_reward(self, learnt: RewardLearnt) -> None:
        self._rewards[learnt.decision] = learnt.reward_bps
        if learnt.won is not None and learnt.decision in self._probability:
            self.outcomes.append((self._probability[learnt.decision], learnt.won))

    def _on_fill(self, fill: Filled) -> None:
        account = self.engine.execution.account(fill.symbol)
        assert account is not None, "what was filled has one"
        tick, lot = account.sleeves.tick, account.sleeves.lot
        self.fills.append(
            results.Fill(
                fill.exchange_ns, fill.symbol, fill.side, tick.number(fill.ticks), lot.number(fill.lots), fill.maker, fill.cause, fill.fee
            )
        )

    def _on_attributed(self, made: Attributed) -> None:
        closed, deal = self._closed.pop(made.decision), self.engine.execution.deal(made.decision)
        assert deal is not None and deal.sleeve is not None, "it has just closed"
        for one in made.contributions:
            money, trades = self.alphas.get(one.id, (0, 0))
            self.alphas[one.id] = money + one.shapley, trades + (one.shapley != 0)
        self.lines.update({"base": made.base, "execution": made.execution, "fees": made.fees, "total": made.pnl})
        self.costs += _costs(deal)
        quoted = deal.decision.quote is not None
        self.trades.append(
            results.Trade(
                decision=made.decision,
                symbol=made.symbol,
                policy=made.policy,
                probe=deal.probe,
                opened_ns=closed.opened_ns,
                closed_ns=deal.sleeve.closed_ns or self.engine.now_ns,
                side="quote" if quoted else "buy" if deal.size_lots > 0 else "sell",
                size=deal.lot.number(deal.size_lots),
                notional=deal.allocated,
                pnl=made.pnl,
                base=made.base,
                alphas=sum(one.shapley for one in made.contributions),
                execution=made.execution,
                fees=made.fees,
                funding=closed.funding,
                win_probability=self._probability.pop(made.decision, deal.decision.win_probability),
                reward_bps=self._rewards.pop(made.decision, None),
            )
        )

    def _note(self, ts_ns: int) -> None:
        """Keep the mids of what is traded; where they become too many, every second one goes."""
        self._next_ns = ts_ns - ts_ns % NANOS_PER_S + self._every_s * NANOS_PER_S
        held = self.engine.execution.portfolio
        for symbol in held.accounts if held is not None else ():
            found = self.engine.known.market(symbol)
            bid, ask = found[0].best() if found is not None else (None, None)
            if found is None or bid is None or ask is None or found[0].tick is None:
                continue
            times, mids = self._mids.setdefault(symbol, ([], []))
            times.append(ts_ns // NANOS_PER_MS)
            mids.append(found[0].tick.number(bid + ask) / 2.0)
        if any(len(times) > MIDS_MAX for times, _ in self._mids.values()):
            self._every_s *= 2
            for times, mids in self._mids.values():
                del times[1::2], mids[1::2]

    def mids(self) -> list[results.Mids]:
        """Return the mids of what was traded."""
        return [results.Mids(symbol, times, mids) for symbol, (times, mids) in self._mids.items()]

    def equity(self) -> results.Equity:
        """Return the equity by bar, the last one as it is at the end."""
        held = self.engine.execution.portfolio
        if held is None:
            return results.Equity()
        past = held.bars.past()
        times, equity, drawdown = past[:, 0].astype(int).tolist(), past[:, 1].astype(int).tolist(), past[:, 2].tolist()
        if self.to_ns // NANOS_PER_MS > (times[-1] if times else 0):
            times.append(self.to_ns // NANOS_PER_MS)
            equity.append(held.equity)
            drawdown.append(held.drawdown)
        return results.Equity(times, equity, drawdown)

    def change(self) -> int:
        """Return the change of equity, in money."""
        held = self.engine.execution.portfolio
        return held.equity - held.capital if held is not None else 0

    def house(self) -> tuple[int, int]:
        """Return what the house has, and what has not closed, in money."""
        held, house, rest = self.engine.execution.portfolio, 0, 0
        for account in held.accounts.values() if held is not None else ():
            if account.mid_half_ticks is None:
                continue
            for decision, pnl in account.sleeves.pnl(account.mid_half_ticks).items():
                house, rest = (house + pnl, rest) if decision == HOUSE else (house, rest + pnl)
        return house, rest


def run(engine: Engine, steps: Steps, progress: Callable[[], None]) -> Tally:
    """Step a recording to its end and return what was counted."""
    tally = Tally(engine)
    for entry, records in steps:
        tally.take(entry, records)
        progress()
    return tally


def result(
    tally: Tally, bounds: list[results.Bound], core: CoreSettings, paths: list[str], seconds: float, notes: list[str]
) -> results.Backtest:
    """Return what a run found, with the bounds of all runs beside it."""
    engine, equity = tally.engine, tally.equity()
    held = engine.execution.portfolio
    house, rest = tally.house()
    whole = sum(abs(money) for money, _ in tally.alphas.values())
    policies = dict.fromkeys([*(one.name for one in engine.router.registry.policies), *tally.decided])
    traded = sum(account.turnover for account in held.accounts.values()) if held is not None else 0
    combined = tca.combine(tally.costs).bps() if tally.costs else {}
    accounts = list(held.accounts.values()) if held is not None else []
    return results.Backtest(
        title=f"Backtest of {', '.join(engine.microstructure.symbols()) or 'nothing'}",
        paths=paths,
        symbols=list(engine.microstructure.symbols()),
        from_ms=tally.from_ns // NANOS_PER_MS,
        to_ms=tally.to_ns // NANOS_PER_MS,
        inputs=engine.seq,
        seconds=seconds,
        digest=engine.hexdigest(),
        settings=_settings(core),
        capital=held.capital if held is not None else round(core.execution.capital * UNITS),
        currency=engine.execution.currency,
        trades=tally.trades,
        equity=equity,
        alpha_pnl=[
            results.AlphaPnl(alpha.id, money, trades, money / whole if whole else None)
            for alpha in engine.alphas.registry.alphas
            for money, trades in (tally.alphas.get(alpha.id, (0, 0)),)
        ],
        base=tally.lines["base"],
        fees=tally.lines["fees"],
        execution=tally.lines["execution"],
        house=house,
        open_pnl_change=rest,
        total=tally.lines["total"],
        policies=[
            results.PolicyPnl(
                name,
                sum(one.policy == name for one in tally.trades),
                sum(one.pnl for one in tally.trades if one.policy == name),
                tally.decided[name],
            )
            for name in policies
        ],
        risk=risk.measure(np.array(equity.equity, dtype=np.float64), held.bar_s if held is not None else BAR_MS // 1_000, float(traded)),
        costs=results.Costs(
            delay_bps=_sum(combined.get("delay"), combined.get("timing")),
            spread_bps=combined.get("spread"),
            impact_bps=combined.get("impact"),
            opportunity_bps=combined.get("opportunity"),
            mean_bps=_sum(combined.get("slippage"), combined.get("opportunity")),
            fees=sum(account.fees for account in accounts),
            self_impact=sum(account.impact for account in accounts),
            funding=sum(account.funding for account in accounts),
        ),
        calibration=_calibration(tally.outcomes),
        decisions=results.Decisions(sum(tally.decided.values()), dict(tally.decided)),
        fills=tally.fills,
        mids=tally.mids(),
        bounds=bounds,
        notes=notes,
    )


def bound(tally: Tally, queue: str) -> results.Bound:
    """Return what a run came to, as a bound."""
    return results.Bound(queue, tally.change(), len(tally.trades), len(tally.fills), tally.equity())


def _costs(deal: Deal) -> list[tca.Costs]:
    return [
        tca.analyse(
            side=leg.side,
            lots=leg.lots,
            decision_mid=leg.decision_mid,
            fills=leg.fills,
            tick=deal.tick,
            lot=deal.lot,
            horizon_mid=leg.horizon_mid,
        ).costs
        for leg in deal.legs
    ]


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _calibration(outcomes: list[tuple[float, bool]]) -> results.Calibration:
    """Return how true the probabilities were, in bins of equal count."""
    if not outcomes:
        return results.Calibration()
    said, won = np.array(sorted(outcomes)).T
    n = len(said)
    edges = [round(i * n / min(BINS, n)) for i in range(min(BINS, n) + 1)]
    bins = [results.Bin(float(np.mean(said[a:b])), float(np.mean(won[a:b])), b - a) for a, b in pairwise(edges) if b > a]
    blocks = -(-n // PER_BLOCK)
    redrawn = [_ece(said, uniforms.blocks(0, "redrawn", i * blocks, blocks)[:n] < said, edges) for i in range(REDRAWN)]
    return results.Calibration(n, float(np.mean((said - won) ** 2)), _ece(said, won, edges), sum(redrawn) / REDRAWN, bins)


def _ece(said: Float64Array1D, won: npt.NDArray[Any], edges: list[int]) -> float:
    """Return the mean distance of what was said from what came true, over bins."""
    return float(sum(abs(np.sum(said[a:b] - won[a:b])) for a, b in pairwise(edges))) / len(said)


def _settings(core: CoreSettings) -> dict[str, str]:
    """Return what was chosen, as texts."""
    chosen = {
        **{f"router.{name}": value for name, value in msgspec.structs.asdict(core.router).items()},
        **{f"execution.{name}": value for name, value in msgspec.structs.asdict(core.execution).items()},
        "core.seed": core.seed,
        "core.volatility_rule": core.volatility_rule,
        "plugins": ", ".join(core.plugins) or "none",
    }
    return {name: str(value) for name, value in chosen.items()}
