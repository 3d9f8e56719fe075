"""Does the router turn when an alpha does, and does it learn a policy that follows a signal both ways?

One simulated symbol, one alpha that reads the planted flow, and two policies: ``follow`` goes with the alpha and ``fade`` against it, both
with all that they may hold, however little it says. After some hours the alpha turns its sign, as one that broke would, and the market
goes on as it was. The planted
edge is several times that of the simulator's default and taking is made cheap, so that hours show what at market's terms would take weeks.
Equal arguments give equal numbers.
"""

import argparse
import asyncio
import itertools
import logging
import statistics
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import structlog

from alphapack import app
from alphapack.domain.events import DecisionMade, Record, RewardLearnt
from alphapack.domain.inputs import AnyInput, Choose, CoreSettings, InstrumentSettings
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

EXAMPLE = "example: python bench/flip.py --seeds 21 22 23 --before 4 --after 2"
NAME, TOLD, FOLLOW, FADE = "BTCUSDT", "told", "follow", "fade"
SYMBOL = symbol_id(SIMULATOR, NAME)
END_NS = 1_795_003_200 * NANOS_PER_S
WEIGHT = 0.1
"""What is believed of the alpha at first: the good half bears it out, the bad half is too short to unlearn it."""
BINS = (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0)
"""Edges of what is called the same signal."""
GAIN = 0.7
"""From what takers did and what the book shows to the signal."""
SIGNALS = (-1.0, -0.75, -0.5, -0.25, -0.05, 0.05, 0.25, 0.5, 0.75, 1.0)
"""About which advice is asked for."""
WINDOW = 15
"""Decisions over which a preference is judged."""
PART_S = 1_800


class Terms(NamedTuple):
    """What is played: seconds before the turn and after it, what is planted, how the router is set, and the fee of taking."""

    before_s: int = 14_400
    after_s: int = 7_200
    edge: float = 8.0
    horizon_s: int = 120
    interval_s: int = 20
    taker_bps: float = 0.8
    prior_effect: float = RouterSettings().prior_effect


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


class Advised(NamedTuple):
    """How probable each option is where the alpha says ``signal`` and all else is as it was."""

    signal: float
    follow: float
    fade: float
    flat: float


class Played(NamedTuple):
    """All that was decided and learnt on one seed, in order, and the advice at the turn and at the end."""

    decided: list[Decided]
    learnt: list[Learnt]
    before: list[Advised]
    after: list[Advised]


def registry(turn_ns: int) -> Registry:
    """Return the alpha, whose sign turns at ``turn_ns``, and the two policies."""

    def told(ctx: AlphaContext) -> float:
        said = clip(GAIN * (ctx["ti_30s"] + ctx["obi"]))
        return said if ctx.ts_ns < turn_ns else -said

    def follow(ctx: AlphaContext, blend: float) -> Target:
        return Target((blend > 0.0) - (blend < 0.0), urgency=1.0)

    def fade(ctx: AlphaContext, blend: float) -> Target:
        return Target((blend < 0.0) - (blend > 0.0), urgency=1.0)

    return Registry(
        (Alpha(TOLD, "what takers did and the book shows, until it turns", ("ti_30s", "obi"), WEIGHT, told, TOLD),),
        (Policy(FOLLOW, "goes with it", TOLD, follow), Policy(FADE, "goes against it", TOLD, fade)),
    )


def play(seed: int, terms: Terms) -> Played:
    """Make the market of ``seed``, trade it, and return what was decided and learnt."""
    return asyncio.run(_play(seed, terms))


async def _play(seed: int, terms: Terms) -> Played:
    turn_ns, played = END_NS - terms.after_s * NANOS_PER_S, Played([], [], [], [])
    traded = registry(turn_ns)
    cheap = InstrumentSettings(SYMBOL, maker_fee_bps=0.0, taker_fee_bps=terms.taker_bps)
    core = CoreSettings(
        router=RouterSettings(interval_s=terms.interval_s, horizon_s=terms.horizon_s, prior_effect=terms.prior_effect), instruments=(cheap,)
    )
    runner = Runner(Engine(app.binance.codecs(), traded), source="flip", config=dict)
    step = runner.engine.step

    def witnessed(entry: AnyInput) -> list[Record]:
        after_s = (entry.ts_ns - turn_ns) / NANOS_PER_S
        if after_s >= 0.0 and not played.before:
            played.before.extend(advised(runner.engine.save(), traded))
        caused = step(entry)
        for one in caused:
            if isinstance(one, DecisionMade):
                played.decided.append(Decided(after_s, one.signals[TOLD] or 0.0, one.weights[TOLD], *options(one)))
            elif isinstance(one, RewardLearnt):
                played.learnt.append(Learnt(after_s, one.policy, one.target))
        return caused

    runner.engine.step = witnessed  # type: ignore[method-assign]
    market = SimulatedMarket(
        SimulatorSettings(seed=seed, symbols=(NAME,), edge=terms.edge),
        core,
        SetClock(END_NS),
        app.WORKS,
        app.WORK_DELAY_NS,
        past_ns=(terms.before_s + terms.after_s) * NANOS_PER_S,
        history_minutes=MINUTES_MIN + 60,
    )
    await market.make(runner)
    played.after.extend(advised(runner.engine.save(), traded))
    return played


def options(made: DecisionMade) -> tuple[float, float, float]:
    """Return how probable it was to follow, to fade, and to hold nothing."""
    return made.propensities[FOLLOW], made.propensities[FADE], made.propensities[FLAT]


def advised(state: bytes, traded: Registry) -> Iterator[Advised]:
    """Ask an engine of a saved state for advice on every signal of ``SIGNALS``; what was traded knows nothing of it."""
    engine = Engine(app.binance.codecs(), traded)
    engine.load(state)
    for signal in SIGNALS:
        flow = signal / (2.0 * GAIN)
        stated = {"ti_30s": flow, "ti": flow, "obi": flow} | dict.fromkeys(("ofi", "micro_gap_bps", "kyle_lambda", "rr25", "skew_z"), 0.0)
        (made,) = engine.step(Choose(engine.seq + 1, engine.now_ns, SYMBOL, stated))
        assert isinstance(made, DecisionMade), "nothing else is caused where no time passes"
        yield Advised(signal, *options(made))


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


def by_signal(decided: Sequence[Decided], name: str) -> list[float]:
    """Return the mean propensity of an option in each of ``BINS``."""
    return [
        mean([one for one in decided if low <= one.signal < high or one.signal == high == BINS[-1]], name)
        for low, high in itertools.pairwise(BINS)
    ]


def settled(played: Played, terms: Terms) -> dict[str, list[Decided]]:
    """Return the later half of the decisions before the turn under ``follow``, and of those after it under ``fade``."""
    return {
        FOLLOW: [one for one in played.decided if -terms.before_s / 2 <= one.after_s < 0.0],
        FADE: [one for one in played.decided if one.after_s >= terms.after_s / 2],
    }


def lines(seed: int, played: Played, terms: Terms) -> Iterator[str]:
    """Yield what one seed came to."""
    for first in range(-terms.before_s, terms.after_s, PART_S):
        part = [one for one in played.decided if first <= one.after_s < first + PART_S]
        options = "  ".join(f"{name} {mean(part, name):.2f}" for name in (FOLLOW, FADE, FLAT))
        rewards = "  ".join(
            f"{name} {statistics.fmean(found):+.2f} of {len(found)}"
            for name in (FOLLOW, FADE)
            if (found := [one.reward for one in played.learnt if one.policy == name and first <= one.after_s < first + PART_S])
        )
        weight = f"  weight {part[-1].weight:.3f}" if part else ""
        yield f"  {first / 60:+5.0f} min  {len(part):3} decisions  {options}{weight}  rewards: {rewards}"
    for name, decided in settled(played, terms).items():
        yield f"  {name} by signal, edges {BINS}: {', '.join(f'{p:.2f}' for p in by_signal(decided, name))}"
    for when, asked in (("at the turn", played.before), ("at the end", played.after)):
        told = "  ".join(f"{one.signal:+g}: {one.follow:.2f} {one.fade:.2f}" for one in asked)
        yield f"  advice {when}, follow and fade: {told}"
    found = shift(played)
    yield f"seed {seed}: " + ("never prefers fade" if found is None else f"prefers fade after {found[0] / 60:.0f} min, {found[1]} rewards")


def main() -> int:
    default = Terms()
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    parser.add_argument("--before", type=float, default=default.before_s / 3_600, help="hours before the turn")
    parser.add_argument("--after", type=float, default=default.after_s / 3_600, help="hours after it")
    parser.add_argument("--edge", type=float, default=default.edge)
    parser.add_argument("--horizon", type=int, default=default.horizon_s, help="seconds that a decision holds")
    parser.add_argument("--interval", type=int, default=default.interval_s, help="seconds between decisions")
    parser.add_argument("--taker-bps", type=float, default=default.taker_bps)
    parser.add_argument("--prior-effect", type=float, default=default.prior_effect, help="the router's setting of that name")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    spans_s = (round(3_600 * hours) for hours in (arguments.before, arguments.after))
    terms = Terms(*spans_s, arguments.edge, arguments.horizon, arguments.interval, arguments.taker_bps, arguments.prior_effect)
    print(terms)
    for seed in arguments.seeds:
        for line in lines(seed, play(seed, terms), terms):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
