"""Does the router turn when an alpha does, and does it learn a policy that follows a signal both ways?

One simulated symbol, one alpha that reads the planted flow, and two policies: ``follow`` goes with the alpha and ``fade`` against it, both
with all that they may hold. Half way the alpha turns its sign, as one that broke would, and the market goes on as it was. The planted
edge is several times that of the simulator's default and taking is made cheap, so that hours show what at market's terms would take weeks.
Equal arguments give equal numbers.
"""

import argparse
import asyncio
import logging
import statistics
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import structlog

from alphapack import app
from alphapack.domain.events import DecisionMade, Record, RewardLearnt
from alphapack.domain.inputs import AnyInput, CoreSettings, InstrumentSettings
from alphapack.domain.market import NANOS_PER_S, SIMULATOR, symbol_id
from alphapack.domain.simulation import SimulatorSettings
from alphapack.domain.trading import RouterSettings, Target
from alphapack.engine.engine import Engine
from alphapack.models.alpha import Alpha, AlphaContext, clip
from alphapack.models.policy import FLAT, Policy
from alphapack.models.registry import Registry
from alphapack.models.volatility import MINUTES_MIN
from alphapack.shell.clock import SetClock
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import SimulatedMarket

EXAMPLE = "example: python bench/flip.py --seeds 5 6 7 --hours 2 --edge 4"
NAME, TOLD, FOLLOW, FADE = "BTCUSDT", "told", "follow", "fade"
END_NS = 1_795_003_200 * NANOS_PER_S
WEIGHT = 0.1
"""What is believed of the alpha at first: the good half bears it out, the bad half is too short to unlearn it."""
STRONG, WEAK = 0.5, 0.1
"""Least size of a signal that says much, and greatest of one that says next to nothing."""
WINDOW = 15
"""Decisions over which a preference is judged."""
PARTS = 12


class Terms(NamedTuple):
    """What is played. Times are in seconds; ``taker_bps`` is the fee of taking, ``half_s`` lies before the turn and as much after it."""

    half_s: int = 7_200
    edge: float = 4.0
    horizon_s: int = 60
    interval_s: int = 20
    depth_ms: int = 100
    taker_bps: float = 0.3


class Decided(NamedTuple):
    """A decision: seconds after the turn, the alpha's signal and weight, and how probable each option was."""

    after_s: float
    signal: float
    weight: float
    follow: float
    fade: float
    flat: float


class Learnt(NamedTuple):
    """A reward in volatilities to the horizon, as its policy's posterior learnt it."""

    after_s: float
    policy: str
    reward: float


class Played(NamedTuple):
    """All that was decided and learnt on one seed, in order."""

    decided: list[Decided]
    learnt: list[Learnt]


def registry(turn_ns: int) -> Registry:
    """Return the alpha, whose sign turns at ``turn_ns``, and the two policies."""

    def told(ctx: AlphaContext) -> float:
        said = clip(0.7 * (ctx["ti_30s"] + ctx["obi"]))
        return said if ctx.ts_ns < turn_ns else -said

    def follow(ctx: AlphaContext, blend: float) -> Target:
        return Target((blend > 0.0) - (blend < 0.0), urgency=1.0)

    def fade(ctx: AlphaContext, blend: float) -> Target:
        return Target((blend < 0.0) - (blend > 0.0), urgency=1.0)

    return Registry(
        (Alpha(TOLD, "what takers did and the book shows, until it turns", ("ti_30s", "obi"), WEIGHT, told, TOLD),),
        (Policy(FOLLOW, "goes with it", TOLD, follow), Policy(FADE, "goes against it", TOLD, fade)),
    )


def play(seed: int, terms: Terms = Terms()) -> Played:
    """Make the market of ``seed``, trade it, and return what was decided and learnt."""
    return asyncio.run(_play(seed, terms))


async def _play(seed: int, terms: Terms) -> Played:
    turn_ns, played = END_NS - terms.half_s * NANOS_PER_S, Played([], [])
    cheap = InstrumentSettings(symbol_id(SIMULATOR, NAME), maker_fee_bps=0.0, taker_fee_bps=terms.taker_bps)
    core = CoreSettings(router=RouterSettings(interval_s=terms.interval_s, horizon_s=terms.horizon_s), instruments=(cheap,))
    runner = Runner(Engine(app.binance.codecs(), registry(turn_ns)), source="flip", config=dict)
    step = runner.engine.step

    def witnessed(entry: AnyInput) -> list[Record]:
        caused, after_s = step(entry), (entry.ts_ns - turn_ns) / NANOS_PER_S
        for one in caused:
            if isinstance(one, DecisionMade):
                options = (one.propensities[name] for name in (FOLLOW, FADE, FLAT))
                played.decided.append(Decided(after_s, one.signals[TOLD] or 0.0, one.weights[TOLD], *options))
            elif isinstance(one, RewardLearnt):
                played.learnt.append(Learnt(after_s, one.policy, one.target))
        return caused

    runner.engine.step = witnessed  # type: ignore[method-assign]
    market = SimulatedMarket(
        SimulatorSettings(seed=seed, symbols=(NAME,), edge=terms.edge, depth_ms=terms.depth_ms),
        core,
        SetClock(END_NS),
        app.WORKS,
        app.WORK_DELAY_NS,
        past_ns=2 * terms.half_s * NANOS_PER_S,
        history_minutes=MINUTES_MIN + 60,
    )
    await market.make(runner)
    return played


def shift(played: Played) -> tuple[float, int] | None:
    """Return seconds and rewards from the turn until ``WINDOW`` decisions in a row prefer ``fade`` on average; None: they never do."""
    newest: deque[float] = deque(maxlen=WINDOW)
    for one in played.decided:
        if one.after_s >= 0.0:
            newest.append(one.fade - one.follow)
            if len(newest) == WINDOW and sum(newest) > 0.0:
                return one.after_s, sum(0.0 <= reward.after_s <= one.after_s for reward in played.learnt)
    return None


def mean(decided: Sequence[Decided], name: str) -> float:
    """Return the mean propensity of an option; NaN of no decisions."""
    return statistics.fmean(getattr(one, name) for one in decided) if decided else float("nan")


def by_signal(decided: Sequence[Decided], name: str) -> tuple[float, float, float]:
    """Return the mean propensity of an option where the signal was strong below 0, weak, and strong above 0."""
    low = [one for one in decided if one.signal <= -STRONG]
    near = [one for one in decided if abs(one.signal) <= WEAK]
    high = [one for one in decided if one.signal >= STRONG]
    return mean(low, name), mean(near, name), mean(high, name)


def lines(seed: int, played: Played, terms: Terms) -> Iterator[str]:
    """Yield what one seed came to."""
    part_s = 2 * terms.half_s / PARTS
    for k in range(PARTS):
        first = k * part_s - terms.half_s
        part = [one for one in played.decided if first <= one.after_s < first + part_s]
        options = "  ".join(f"{name} {mean(part, name):.2f}" for name in (FOLLOW, FADE, FLAT))
        rewards = "  ".join(
            f"{name} {statistics.fmean(found):+.2f} of {len(found)}"
            for name in (FOLLOW, FADE)
            if (found := [one.reward for one in played.learnt if one.policy == name and first <= one.after_s < first + part_s])
        )
        weight = f"  weight {part[-1].weight:.3f}" if part else ""
        yield f"  {first / 60:+5.0f} min  {len(part):3} decisions  {options}{weight}  rewards: {rewards}"
    halves = {FOLLOW: [one for one in played.decided if -terms.half_s / 2 <= one.after_s < 0.0]}
    halves[FADE] = [one for one in played.decided if one.after_s >= terms.half_s / 2]
    for name, decided in halves.items():
        told = ", ".join(f"{p:.2f}" for p in by_signal(decided, name))
        yield f"  {name} where the signal is <= {-STRONG:g}, within {WEAK:g}, >= {STRONG:g}: {told}"
    found = shift(played)
    yield f"seed {seed}: " + ("never prefers fade" if found is None else f"prefers fade after {found[0] / 60:.0f} min, {found[1]} rewards")


def main() -> int:
    default = Terms()
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7])
    parser.add_argument("--hours", type=float, default=default.half_s / 3_600, help="before the turn, and again after it")
    parser.add_argument("--edge", type=float, default=default.edge)
    parser.add_argument("--horizon", type=int, default=default.horizon_s, help="seconds that a decision holds")
    parser.add_argument("--interval", type=int, default=default.interval_s, help="seconds between decisions")
    parser.add_argument("--depth-ms", type=int, default=default.depth_ms)
    parser.add_argument("--taker-bps", type=float, default=default.taker_bps)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    terms = Terms(
        *(round(3_600 * arguments.hours), arguments.edge, arguments.horizon, arguments.interval, arguments.depth_ms, arguments.taker_bps)
    )
    print(terms)
    for seed in arguments.seeds:
        for line in lines(seed, play(seed, terms), terms):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
