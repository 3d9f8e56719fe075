"""Known games: who is thanked for a trade, by hand, and sums that are exact whatever the policy does."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.events import Attributed, Record
from alphapack.domain.inputs import CoreSettings
from alphapack.domain.trading import Decision, Proposal, Quote, Target
from alphapack.models.alpha import Alpha, AlphaContext
from alphapack.models.policy import Policy, exposure_of
from alphapack.models.registry import Registry
from alphapack.services.attribution import EXACT_MAX, KEPT, PERMUTATIONS, Attribution, Outcome
from alphapack.services.router import Frozen

SYMBOL, TS_NS = "x:A", 1_700_000_000_000_000_000
Propose = Callable[[AlphaContext, float], Proposal]


class FakeContext:
    """Keeps what is said, and has the chance that a test gives it."""

    def __init__(self, uniforms: Callable[[], Iterator[float]] | None = None) -> None:
        self.now_ns, self.seq, self.settings = TS_NS, 1, CoreSettings()
        self.records: list[Record] = []
        self.asked: list[tuple[str, str]] = []
        self.uniforms = uniforms

    def emit(self, record: Record) -> None:
        self.records.append(record)

    def observe(self, values: bytes) -> None:
        raise AssertionError("nothing is observed")

    def request(self, work: str, body: bytes) -> int:
        raise AssertionError("no work is asked for")

    def after(self, delay_ns: int, timer: str, argument: str = "") -> None:
        raise AssertionError("no timer is set")

    def draws(self, stream: str, symbol: str = "") -> Iterator[float]:
        assert self.uniforms is not None, "what is exact needs no chance"
        self.asked.append((stream, symbol))
        return self.uniforms()


def golden() -> Iterator[float]:
    """Uniforms that are the same each time, and never two alike."""
    place = 0.0
    while True:
        place = (place + 0.6180339887498949) % 1.0
        yield place


def follows(ctx: AlphaContext, blend: float) -> Proposal:
    return Target(max(-1.0, min(1.0, blend)))


def alpha(name: str, group: str = "own") -> Alpha:
    return Alpha(name, "for a test", ("obi",), 0.1, lambda ctx: None, group)


class Game:
    """A policy that hears some alphas, and what the model says of each exposure."""

    def __init__(
        self,
        weights: Sequence[float],
        *,
        signals: Sequence[float | None] | None = None,
        propose: Propose = follows,
        value: Callable[[float], int] = lambda exposure: round(1e6 * exposure),
        uniforms: Callable[[], Iterator[float]] | None = None,
        groups: Sequence[str] = (),
    ) -> None:
        self.ctx = FakeContext(uniforms)
        self.weights = list(weights)
        self.signals: list[float | None] = [1.0] * len(weights) if signals is None else list(signals)
        names = groups or ["own"] * len(weights)
        self.registry = Registry(
            tuple(alpha(f"a{place}", group) for place, group in enumerate(names)),
            (Policy("other", "d", "none", lambda ctx, blend: Target(1.0)), Policy("mine", "d", "own", propose)),
        )
        self.value = value
        self.attribution = Attribution(self.ctx, self.registry)
        self.heard = [place for place, group in enumerate(names) if group == "own"]

    @property
    def whole(self) -> float:
        """The blend that the policy was given."""
        return sum((self.signals[place] or 0.0) * self.weights[place] for place in self.heard)

    def close(self, *, decision: int = 1, model: int | None = None, execution: int = -7, fees: int = -11) -> Attributed:
        """Close a trade, and return what was said of it."""
        said = self.value(max(-1.0, min(1.0, self.whole))) if model is None else model
        frozen = Frozen("mine", SYMBOL, TS_NS, {"obi": 0.3, "mid": 100.0}, {"obi": 0.75}, self.signals, self.weights)
        outcome = Outcome(decision, said + execution + fees, said, execution, fees, lambda proposal: self.value(exposure_of(proposal)))
        told = Decision(decision, frozen.ts_ns, frozen.symbol, frozen.policy, 0.0, 0.5, 300, 0.5, {})
        self.attribution.on_closed(told, frozen, outcome)
        made = self.ctx.records[-1]
        assert isinstance(made, Attributed)
        check(made)
        return made


def check(made: Attributed) -> None:
    assert made.pnl == made.base + sum(part.shapley for part in made.contributions) + made.execution + made.fees
    assert all(type(part.shapley) is int and type(part.leave_one_out) is int for part in made.contributions)


def shares(made: Attributed) -> list[int]:
    return [part.shapley for part in made.contributions]


def alone(made: Attributed) -> list[int]:
    return [part.leave_one_out for part in made.contributions]


def by_orders(value: Callable[[frozenset[int]], float], n: int) -> list[float]:
    """Shapley's values as they are defined: the mean of what each adds, over all orders of arrival."""
    added = [0.0] * n
    for order in permutations(range(n)):
        for place, player in enumerate(order):
            added[player] += value(frozenset(order[: place + 1])) - value(frozenset(order[:place]))
    return [one / math.factorial(n) for one in added]


# Known games


def test_alpha_attribution_where_parts_add_up_each_has_its_own() -> None:
    made = Game([0.1, -0.2, 0.3], signals=[1.0, 0.5, -0.5]).close()
    assert (made.base, made.error, made.decision, made.symbol, made.policy) == (0, 0.0, 1, SYMBOL, "mine")
    assert shares(made) == alone(made) == [100_000, -100_000, -150_000]
    told = [(part.id, part.signal, part.weight) for part in made.contributions]
    assert told == [("a0", 1.0, 0.1), ("a1", 0.5, -0.2), ("a2", -0.5, 0.3)]


def test_alpha_attribution_two_who_are_needed_together_share_and_each_alone_was_all() -> None:
    made = Game([0.2, 0.2, 0.2], propose=lambda ctx, blend: Target(1.0 if blend > 0.5 else 0.0)).close(model=1_000_000)
    assert shares(made) == [333_334, 333_333, 333_333], "a unit that cannot be shared goes to the first of equals"
    assert alone(made) == [1_000_000] * 3 and made.base == 0


def test_alpha_attribution_one_of_two_would_have_done() -> None:
    made = Game([0.4, 0.4], propose=lambda ctx, blend: Target(1.0 if blend > 0.3 else 0.0)).close(model=1_000_000)
    assert shares(made) == [500_000, 500_000] and alone(made) == [0, 0], "these do not sum to anything"


def test_alpha_attribution_base_is_what_a_policy_does_that_hears_nobody() -> None:
    made = Game([0.1, 0.1], propose=lambda ctx, blend: Target(0.5 + blend)).close(model=700_000)
    assert made.base == 500_000 and shares(made) == [100_000, 100_000] and made.pnl == 700_000 - 18


def test_alpha_attribution_a_policy_that_needs_nobody_owes_nobody() -> None:
    made = Game([0.3, 0.2], propose=lambda ctx, blend: Target(-0.5), value=lambda exposure: round(-4e6 * exposure)).close(model=2_000_000)
    assert made.base == 2_000_000 and shares(made) == alone(made) == [0, 0]


def test_alpha_attribution_a_quote_is_worth_what_its_exposure_is() -> None:
    made = Game([0.2, 0.1], propose=lambda ctx, blend: Quote(0.5 + blend, 0.5)).close(model=300_000)
    assert made.base == 0 and shares(made) == [200_000, 100_000]


def test_alpha_attribution_who_was_not_heard_or_said_nothing_has_no_part() -> None:
    seen: list[float] = []

    def watched(ctx: AlphaContext, blend: float) -> Proposal:
        seen.append(blend)
        return follows(ctx, blend)

    game = Game(
        [0.1, 0.2, 0.3, 0.0, 0.5], signals=[1.0, None, 0.0, 1.0, 1.0], propose=watched, groups=["own", "own", "own", "own", "apart"]
    )
    made = game.close()
    assert [part.id for part in made.contributions] == ["a0", "a1", "a2", "a3"], "those that the policy listens to"
    assert shares(made) == alone(made) == [100_000, 0, 0, 0]
    assert set(seen) == {0.0}, "of the whole the model has spoken, and one alone is the whole"


def test_alpha_attribution_without_alphas_all_is_base_execution_and_fees() -> None:
    silent = Game([0.1, 0.2], signals=[None, None]).close(execution=5, fees=-9)
    assert (silent.base, shares(silent), alone(silent), silent.pnl) == (0, [0, 0], [0, 0], -4)
    none = Game([], propose=lambda ctx, blend: Target(1.0)).close(model=1_000_000)
    assert (none.base, none.contributions) == (1_000_000, [])


def test_alpha_attribution_the_policy_sees_the_context_of_its_decision() -> None:
    def looks(ctx: AlphaContext, blend: float) -> Proposal:
        assert (ctx.symbol, ctx.ts_ns, ctx["obi"], ctx.z("obi"), ctx.get("ti")) == (SYMBOL, TS_NS, 0.3, 0.75, None)
        return follows(ctx, blend)

    assert shares(Game([0.1, 0.2], propose=looks).close()) == [100_000, 200_000]


@pytest.mark.parametrize("wrong", [lambda ctx, blend: 1 / 0, lambda ctx, blend: None, lambda ctx, blend: Target(math.nan)])
def test_alpha_attribution_a_policy_that_fails_without_some_would_have_done_nothing_then(wrong: Propose) -> None:
    def unsure(ctx: AlphaContext, blend: float) -> Proposal:
        return Target(1.0) if blend > 0.25 else wrong(ctx, blend)

    made = Game([0.2, 0.1], propose=unsure).close(model=1_000_000)
    assert made.base == 0 and shares(made) == [500_000, 500_000] and alone(made) == [1_000_000, 1_000_000]


# Exactness


@given(
    weights=st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=5),
    bend=st.floats(0.05, 2.0),
    scale=st.integers(1, 10**12),
    execution=st.integers(-(10**12), 10**12),
)
def test_alpha_attribution_shares_are_shapleys_values_and_sum_to_the_unit(
    weights: list[float], bend: float, scale: int, execution: int
) -> None:
    def bent(ctx: AlphaContext, blend: float) -> Proposal:
        return Target(math.tanh(blend / bend))

    def value(exposure: float) -> int:
        return round(scale * exposure) - round(0.1 * scale * abs(exposure))

    game = Game(weights, propose=bent, value=value)
    active = [weight for weight in weights if weight != 0.0]
    model = value(math.tanh(sum(active) / bend))
    made = game.close(model=model, execution=execution)
    expected = by_orders(lambda heard: value(math.tanh(sum(active[i] for i in sorted(heard)) / bend)), len(active))
    found = [part.shapley for part in made.contributions if part.weight != 0.0]
    assert all(abs(one - other) <= 1.0 + 1e-9 * scale for one, other in zip(found, expected, strict=True))
    assert sum(shares(made)) == model - made.base and made.base == value(math.tanh(0.0))


def test_alpha_attribution_up_to_sixteen_are_exact_and_need_no_chance() -> None:
    game = Game([0.01 * (place + 1) for place in range(EXACT_MAX)], propose=lambda ctx, blend: Target(math.tanh(blend)))
    made = game.close(model=round(1e6 * math.tanh(1.36)))
    assert EXACT_MAX == 16 and made.error == 0.0 and game.ctx.asked == []
    assert shares(made) == sorted(shares(made)) and min(shares(made)) > 0


def test_alpha_attribution_more_than_sixteen_are_sampled_and_still_sum_to_the_unit() -> None:
    asked: list[float] = []

    def bent(ctx: AlphaContext, blend: float) -> Proposal:
        asked.append(blend)
        return Target(math.tanh(blend))

    weights = [0.05] * 18
    game = Game(weights, propose=bent, uniforms=golden)
    made = game.close(model=round(1e6 * math.tanh(0.9)))
    assert game.ctx.asked == [("attribution", SYMBOL)] and 0.0 < made.error < 5_000.0
    assert sum(shares(made)) == made.pnl - made.base - made.execution - made.fees == round(1e6 * math.tanh(0.9))
    fair = sum(shares(made)) / 18
    assert all(abs(one - fair) < 5.0 * made.error for one in shares(made)), "all are alike, but for the error that is told"
    one_less = round(1e6 * math.tanh(0.9)) - round(1e6 * math.tanh(0.85))
    assert alone(made) == [one_less] * 18
    assert len(asked) <= PERMUTATIONS * len(weights) + 2 * len(weights) + 4
    again = Game(weights, propose=lambda ctx, blend: Target(math.tanh(blend)), uniforms=golden).close(model=round(1e6 * math.tanh(0.9)))
    assert again == made, "the same chance, the same shares"


# What is kept


def test_alpha_attribution_the_newest_are_kept_within_bounds() -> None:
    game = Game([0.1])
    assert game.attribution.of(None) is None
    made = [game.close(decision=decision) for decision in range(KEPT + 5)]
    assert game.attribution.of(None) == made[-1] and game.attribution.of(7) == made[7]
    assert game.attribution.of(4) is None and game.attribution.of(KEPT + 5) is None
    other = Attribution(game.ctx, game.registry)
    other.load([memoryview(bytes(piece)) for piece in game.attribution.save()])
    assert [other.of(decision) for decision in range(KEPT + 5)] == [game.attribution.of(decision) for decision in range(KEPT + 5)]
    assert [bytes(piece) for piece in other.save()] == [bytes(piece) for piece in game.attribution.save()]
    assert msgspec.json.decode(msgspec.json.encode(made[0]), type=Attributed) == made[0]


def test_alpha_attribution_a_policy_is_always_given_a_float() -> None:
    seen: list[type] = []

    def watched(ctx: object, blend: float) -> Target:
        seen.append(type(blend))
        return Target(0.0)

    Game([0.1, 0.2], propose=watched).close(model=0)
    assert set(seen) == {float}


def test_alpha_attribution_a_trade_of_the_greatest_capital_is_shared_out() -> None:
    game = Game([0.3, 0.3, 0.1], value=lambda exposure: round(2 * 10**16 * exposure))
    game.close()
