"""What a choice costs, P9, and what choosing loses, Q2: regret on the router's yardstick, as it stands and as its rewards change.

The yardstick beside the recordings has six policies, twelve features and 20,000 rounds a run; seeds 0 to 9 are its exam, and ours meets
them with the settings it comes with. Peers see the same rounds, slow ones fewer seeds. Where the yardstick is not there, Q2 says so.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from peers import Peer, one_core, times
from report import DATA, Row, median, quantile

from alphapack.kernels import thompson
from alphapack.models import bandit
from alphapack.models.bandit import Bandit, BanditSettings, Bank

YARDSTICK = DATA.parent / "yardsticks"
POLICIES, FEATURES, ROUNDS = 6, 12, 20_000
SEEDS = range(10)
TIMED, FIRST = 2_000, 500
GOALS = {"st": 7_000.0, "ns": 15_500.0}
VARIANTS = {"st": "stationary", "ns": "changing"}
SINGLE_US, BANK_US, EXACT_US = 4.0, 20.0, 50.0
RUN_UP = "choose and update, six policies, twelve features"
ns = time.perf_counter_ns

Floats = np.ndarray[Any, np.dtype[np.float64]]
Make = Callable[[int, str], tuple[Floats, Floats, Floats]]


class Side(Protocol):
    """Somebody who chooses a policy for a context and is told its reward."""

    def choose(self, x: Floats) -> int: ...

    def learn(self, x: Floats, policy: int, reward: float) -> None: ...


class Ours:
    def __init__(self, seed: int) -> None:
        self.bandit = Bandit(POLICIES, FEATURES, seed)

    def choose(self, x: Floats) -> int:
        return self.bandit.choose(x)[0]

    def learn(self, x: Floats, policy: int, reward: float) -> None:
        self.bandit.update(policy, x, reward)


class Drawn:
    """A bank and a draw for each policy, without propensities: what its peers do."""

    def __init__(self, settings: BanditSettings) -> None:
        self.bank = Bank(POLICIES, FEATURES, settings)
        self.enabled, self.scores = np.ones(POLICIES, np.bool_), np.zeros(POLICIES)
        self.uniforms = itertools.cycle(np.random.default_rng(1).random((997, 2 * POLICIES)))

    def choose(self, x: Floats) -> int:
        return thompson.draw(self.bank.predict_each(x), self.enabled, next(self.uniforms), False, self.scores)

    def learn(self, x: Floats, policy: int, reward: float) -> None:
        self.bank.learn(policy, x, reward)


class MABWiser:
    def __init__(self, seed: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self.mab = MAB(list(range(POLICIES)), LearningPolicy.LinTS(alpha=1.0), seed=seed)
        self.mab.fit(list(range(POLICIES)), [0.0] * POLICIES, np.zeros((POLICIES, FEATURES)))

    def choose(self, x: Floats) -> int:
        return int(self.mab.predict(x.reshape(1, -1)))

    def learn(self, x: Floats, policy: int, reward: float) -> None:
        self.mab.partial_fit([policy], [reward], x.reshape(1, -1))


class River:
    def __init__(self, seed: int) -> None:
        from river import bandit as river

        self.policy, self.arms = river.LinUCBDisjoint(alpha=1.0, seed=seed), list(range(POLICIES))

    def choose(self, x: Floats) -> int:
        return int(self.policy.pull(self.arms, context=dict(enumerate(x.tolist()))))

    def learn(self, x: Floats, policy: int, reward: float) -> None:
        self.policy.update(policy, dict(enumerate(x.tolist())), reward)


class VowpalWabbit:
    """Squarecb as it comes; a policy's features are the context's, crossed with its name."""

    def __init__(self, seed: int) -> None:
        from vowpalwabbit import Workspace

        self.workspace = Workspace(f"--cb_explore_adf --squarecb -q CP --quiet --random_seed {seed + 1}")
        self.chance, self.probability, self.text = np.random.default_rng(seed), 1.0, ""

    def choose(self, x: Floats) -> int:
        self.text = "shared |C " + " ".join(f"f{i}:{value:.6g}" for i, value in enumerate(x.tolist()))
        examples = self.workspace.parse("\n".join([self.text, *(f"|P a{arm}" for arm in range(POLICIES))]))
        shares = self.workspace.predict(examples)
        self.workspace.finish_example(examples)
        policy = min(int(np.searchsorted(np.cumsum(shares), self.chance.random())), POLICIES - 1)
        self.probability = shares[policy]
        return policy

    def learn(self, x: Floats, policy: int, reward: float) -> None:
        labels = [f"0:{-reward:.6g}:{self.probability:.6g} " if arm == policy else "" for arm in range(POLICIES)]
        examples = self.workspace.parse("\n".join([self.text, *(f"{label}|P a{arm}" for arm, label in enumerate(labels))]))
        self.workspace.learn(examples)
        self.workspace.finish_example(examples)


class Gittins:
    def __init__(self, seed: int) -> None:
        import gittins

        self.gittins, self.state = gittins, gittins.create(bits=12, horizon=1e9)
        self.seed, self.now, self.record = seed, 0.0, None
        self.candidates = [(f"a{arm}", {}) for arm in range(POLICIES)]

    def choose(self, x: Floats) -> int:
        self.now += 1.0
        context = {f"f{i}": value for i, value in enumerate(x.tolist())}
        self.record = self.gittins.decide(self.state, context, self.candidates, self.now, f"{self.seed}-{self.now}")
        return int(self.record.chosen)

    def learn(self, x: Floats, policy: int, reward: float) -> None:
        self.gittins.learn(self.state, self.record.decision_id, reward, self.now)


class Rival(NamedTuple):
    """A peer, how it is made, and on how many seeds it is run."""

    peer: Peer
    make: Callable[[int], Side]
    seeds: int


RIVALS = (
    Rival(Peer("LinTS", ("mabwiser",), None), MABWiser, 2),  # type: ignore[arg-type]  # Here a side is made for each run.
    Rival(Peer("LinUCB", ("river",), None), River, 3),  # type: ignore[arg-type]
    Rival(Peer("squarecb", ("vowpalwabbit",), None), VowpalWabbit, 3),  # type: ignore[arg-type]
    Rival(Peer("", ("gittins",), None), Gittins, 10),  # type: ignore[arg-type]
)


def yardstick() -> Make | None:
    """Return the yardstick's maker of context, mean and realised rewards."""
    if not (YARDSTICK / "router_problem.py").is_file():
        return None
    sys.path.insert(0, str(YARDSTICK))
    from router_problem import make

    made: Make = make
    return made


def regret(side: Side, problem: tuple[Floats, Floats, Floats]) -> float:
    """Return what a side earns less than the best policy of each round would, in bps."""
    context, mean, reward = problem
    lost = 0.0
    for x, means, rewards in zip(context, mean, reward, strict=True):
        policy = side.choose(x)
        side.learn(x, policy, float(rewards[policy]))
        lost += 10.0 * (float(means.max()) - float(means[policy]))
    return lost


def spread(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):,.0f} +- {error:,.0f}"


def of_regret() -> Iterator[Row]:
    make = yardstick()
    if make is None:
        yield Row("Q2", "regret", "the yardstick is not here", "-", None)
        return
    for variant, word in VARIANTS.items():
        problems = [make(seed, variant) for seed in SEEDS]
        found = [regret(Ours(seed), problem) for seed, problem in zip(SEEDS, problems, strict=True)]
        ours, goal = statistics.mean(found), GOALS[variant]
        what = f"regret, bps, {ROUNDS:,} rounds, {word}, {len(found)} seeds"
        yield Row("Q2", what, spread(found), f"<= {goal:,.0f}", ours <= goal)
        for rival in RIVALS:
            if missing := rival.peer.missing():
                yield Row("Q2", f"  beside {missing[0]}", "", "-", None, "not installed")
                continue
            theirs = [regret(rival.make(seed), problems[seed]) for seed in SEEDS[: rival.seeds]]
            peer = f"{spread(theirs)} ({rival.peer.label()}, {rival.seeds} seeds)"
            yield Row("Q2", "  beside", "", "-", None, peer, times(statistics.mean(theirs) / ours))


def timed(side: Side, rounds: int = TIMED) -> tuple[list[int], list[int]]:
    """Return the ns of each choice and of each update, after a run-up."""
    chance = np.random.default_rng(3)
    chosen, learned = [], []
    for i in range(FIRST + rounds):
        x = chance.normal(size=FEATURES)
        start = ns()
        policy = side.choose(x)
        middle = ns()
        side.learn(x, policy, 0.5)
        end = ns()
        if i >= FIRST:
            chosen.append(middle - start)
            learned.append(end - middle)
    return chosen, learned


def us(taken: Sequence[int]) -> str:
    return f"{median(taken) / 1e3:.1f} us (p99 {quantile(taken, 0.99) / 1e3:.1f})"


def of_cost() -> Iterator[Row]:
    with one_core():
        single = [sum(both) for both in zip(*timed(Drawn(BanditSettings(discounts=(1.0,)))), strict=True)]
        bank = [sum(both) for both in zip(*timed(Drawn(BanditSettings())), strict=True)]
        exact, _ = timed(Ours(0))
        yield Row("P9", f"{RUN_UP}: one posterior", us(single), f"<= {SINGLE_US:g} us", median(single) <= 1e3 * SINGLE_US)
        yield Row("P9", "  three memories, averaged", us(bank), f"<= {BANK_US:g} us", median(bank) <= 1e3 * BANK_US)
        met = quantile(exact, 0.99) <= 1e3 * EXACT_US
        yield Row("P9", "  choose with exact propensities, chance and record", us(exact), f"p99 <= {EXACT_US:g} us", met)
        for rival in RIVALS:
            if missing := rival.peer.missing():
                yield Row("P9", f"  beside {missing[0]}", "", "-", None, "not installed")
                continue
            theirs = [sum(both) for both in zip(*timed(rival.make(0), TIMED // 4), strict=True)]
            yield Row(
                "P9", "  beside", us(single), "-", None, f"{us(theirs)} ({rival.peer.label()})", times(median(theirs) / median(single))
            )


def run() -> list[Row]:
    bandit.warm()
    return [*of_cost(), *of_regret()]
