"""How a function becomes an alpha, what it may see, and that nothing it does wrong goes further."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models.alpha import (
    ALPHAS_MAX,
    GROUP_MAX,
    REASON_MAX,
    Alpha,
    AlphaContext,
    AlphaFailed,
    alpha,
    alphas_of,
    check_alphas,
    clip,
    evaluate,
)
from alphapack.models.features import FEATURES

RAW = {"obi": 0.4, "vpin": 0.35, "mid": 60_000.0}
STANDARD = {"obi": 1.25, "vpin": -0.5}


def quiet(ctx: AlphaContext) -> float | None:
    return 0.0


GOOD: dict[str, Any] = {"id": "one", "desc": "what it is", "inputs": ("obi",), "weight_init": 0.1}


def seen(inputs: tuple[str, ...] | None = ("obi",), raw: Mapping[str, float] = RAW) -> AlphaContext:
    return AlphaContext("sim:BTCUSDT", 17, raw, STANDARD, inputs)


def saying(transform: Callable[[AlphaContext], Any]) -> Alpha:
    return Alpha("one", "what it is", ("obi",), 0.1, transform)


def module(text: str) -> ModuleType:
    made = ModuleType("made")
    exec("from alphapack.plugin import alpha, AlphaContext\n" + text, vars(made))
    return made


# Becoming one


def test_router_alpha_aware_a_function_stays_itself_and_is_an_alpha_of_its_module() -> None:
    made = module(
        """
@alpha(id="lean", desc="d", inputs=["obi", "vpin"], weight_init=-0.25, group="making", source="nobody 2020")
def lean(ctx):
    '''Because.

    And so on.
    '''
    return ctx.z("obi") / 5
"""
    )
    (one,) = alphas_of(made)
    assert one == Alpha("lean", "d", ("obi", "vpin"), -0.25, made.lean, "making", "nobody 2020", "Because.\n\nAnd so on.")
    assert made.lean(seen()) == 0.25
    assert alphas_of(ModuleType("empty")) == []


def test_router_alpha_aware_alphas_are_found_in_order_even_where_one_name_hides_another() -> None:
    head = '@alpha(id="{0}", desc="d", inputs=("obi",), weight_init=0)\ndef signal(ctx):\n    return {1}\n'
    made = module(head.format("b", 0.5) + head.format("a", -0.5))
    assert [(one.id, evaluate(one, seen()), one.group, one.reason) for one in alphas_of(made)] == [
        ("b", 0.5, "continuation", ""),
        ("a", -0.5, "continuation", ""),
    ]


def test_router_alpha_aware_an_alpha_is_its_own_modules_and_no_importers() -> None:
    made = module('@alpha(id="a", desc="d", inputs=("obi",), weight_init=0)\ndef signal(ctx):\n    return 0\n')
    other = ModuleType("other")
    vars(other)["signal"] = made.signal
    assert alphas_of(other) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": "Bad"}, "id of an alpha"),
        ({"id": ""}, "id of an alpha"),
        ({"id": "a" * 41}, "id of an alpha"),
        ({"id": "a\n"}, "id of an alpha"),
        ({"group": "no good"}, "group of an alpha"),
        ({"desc": ""}, "one: expected desc"),
        ({"desc": "x" * 401}, "one: expected desc"),
        ({"source": 7}, "one: expected source"),
        ({"inputs": ()}, "1 to 16 different names"),
        ({"inputs": ("obi", "obi")}, "1 to 16 different names"),
        ({"inputs": tuple(one.name for one in FEATURES)[:17]}, "1 to 16 different names"),
        ({"inputs": ("obi", "obi5")}, "found 'obi5'; the nearest is 'obi'"),
        ({"inputs": ("sigmaHar",)}, "found 'sigmaHar'; the nearest is 'sigmaHAR'"),
        ({"inputs": ("zzzzzz",)}, "found 'zzzzzz'$"),
        ({"inputs": "obi"}, r"write \('obi',\)"),
        ({"weight_init": math.nan}, "one: expected weight_init from -1 to 1, found nan"),
        ({"weight_init": 1.001}, "weight_init from -1 to 1"),
        ({"weight_init": True}, "weight_init from -1 to 1, found True"),
        ({"weight_init": "0.1"}, "weight_init from -1 to 1"),
    ],
)
def test_router_alpha_aware_what_an_alpha_may_not_be_is_said(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        alpha(**(GOOD | change))(quiet)
    alpha(**GOOD)(quiet)


def test_router_alpha_aware_only_plain_functions_of_one_argument_are_alphas() -> None:
    async def later(ctx: AlphaContext) -> float | None:
        return 0.0

    def several(ctx: AlphaContext) -> Any:
        yield 0.0

    for wrong, expected in (
        (later, "plain function"),
        (several, "plain function"),
        (AlphaContext, "plain function"),
        (lambda: 0.0, "1 argument"),
        (lambda one, two: 0.0, "1 argument"),
    ):
        with pytest.raises(TypeError, match=f"one: expected a.*{expected}"):
            alpha(**GOOD)(wrong)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("inputs", "family"),
    [
        (("obi", "ti"), "microstructure"),
        (("obi", "sigmaHAR"), "volatility"),
        (("sigmaHAR", "obi"), "volatility"),
        (("sigmaHAR", "rr25", "obi"), "smile"),
        (("rr25", "vol_ratio"), "volatility"),
    ],
)
def test_router_alpha_aware_a_family_is_that_of_the_last_input_that_is_no_microstructure(inputs: tuple[str, ...], family: str) -> None:
    assert replace(saying(quiet), inputs=inputs).family == family


def test_router_alpha_aware_alphas_fit_together_or_it_is_said_why_not() -> None:
    one = saying(quiet)
    many = [replace(one, id=f"a{i}", group=f"g{i // GROUP_MAX}") for i in range(ALPHAS_MAX)]
    check_alphas(many)
    with pytest.raises(ValueError, match="at most 62 alphas, found 63"):
        check_alphas([*many, replace(one, group="g9")])
    with pytest.raises(ValueError, match="at most 16 alphas in a group, found 17 in 'g0'"):
        check_alphas([*many[:GROUP_MAX], replace(one, group="g0")])
    with pytest.raises(ValueError, match="found 'a3' more than once"):
        check_alphas([*many, replace(many[3], group="g9")])


# What it sees


def test_router_alpha_aware_an_alpha_sees_what_it_declared_and_nothing_else() -> None:
    ctx = seen()
    assert (ctx["obi"], ctx.get("obi"), ctx.z("obi"), ctx.symbol, ctx.ts_ns) == (0.4, 0.4, 1.25, "sim:BTCUSDT", 17)
    for name in ("vpin", "mid", "nonsense"):
        for read in (ctx.__getitem__, ctx.get, ctx.z):
            with pytest.raises(KeyError, match=f"declared inputs obi, found '{name}': add it to inputs="):
                read(name)
    with pytest.raises(AttributeError):
        ctx.more = 1  # type: ignore[attr-defined]


def test_router_alpha_aware_a_policy_sees_every_feature_as_far_as_it_is_known() -> None:
    ctx = seen(None)
    assert (ctx["vpin"], ctx.z("vpin"), ctx.get("rr25"), ctx.z("rr25")) == (0.35, -0.5, None, 0.0)
    with pytest.raises(KeyError, match="expected rr25 to be known"):
        ctx["rr25"]
    for name, near in (("vpinn", "; the nearest is 'vpin'"), ("mid", "")):
        with pytest.raises(KeyError, match=f"expected a feature, found '{name}'{near}"):
            ctx.z(name)


# Asking it


@pytest.mark.parametrize("signal", [None, 0.0, 1, -1, 0.25, np.float64(0.5), np.float32(0.5), np.int64(1), Fraction(1, 3)])
def test_router_alpha_aware_a_signal_is_none_or_a_plain_float(signal: Any) -> None:
    found = evaluate(saying(lambda ctx: signal), seen())
    assert found == (None if signal is None else float(signal))
    assert found is None or type(found) is float


def test_router_alpha_aware_a_signal_beyond_its_range_by_rounding_is_the_bound() -> None:
    assert evaluate(saying(lambda ctx: 1.0 + 5e-10), seen()) == 1.0
    assert evaluate(saying(lambda ctx: -1.0 - 5e-10), seen()) == -1.0
    assert math.copysign(1.0, evaluate(saying(lambda ctx: -0.0), seen()) or 0.0) == 1.0


class Hostile(float):
    def __float__(self) -> float:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "signal",
    [
        *(math.nan, math.inf, -math.inf, 1.1, -2, True, False, "0.5", 1j, [], np.bool_(True), np.array([0.5]), 10**400),
        pytest.param(Hostile(0.5), id="hostile"),
    ],
)
def test_router_alpha_aware_what_is_no_signal_is_refused(signal: Any) -> None:
    with pytest.raises(AlphaFailed, match="expected a signal from -1 to 1 or None, found "):
        evaluate(saying(lambda ctx: signal), seen())


@given(st.one_of(st.floats(), st.integers(), st.text(), st.none(), st.binary()))
def test_router_alpha_aware_whatever_comes_back_is_a_signal_or_a_failure(value: Any) -> None:
    try:
        signal = evaluate(saying(lambda ctx: value), seen())
    except AlphaFailed as failed:
        assert len(str(failed)) <= REASON_MAX + 60 and "\n" not in str(failed)
    else:
        assert signal is None or (type(signal) is float and -1.0 <= signal <= 1.0)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("two\nlines"), "ValueError: two lines"),
        (AssertionError(), "AssertionError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (Mute(), "Mute"),
        (TypeError("of <object at 0x7fd45d22d120>"), "TypeError: of <object at 0x..>"),
        (ValueError("x" * 1_000), "ValueError: " + "x" * (REASON_MAX - 12)),
    ],
)
def test_router_alpha_aware_what_an_alpha_raises_is_a_reason_that_every_run_gives(error: Exception, reason: str) -> None:
    def transform(ctx: AlphaContext) -> float | None:
        raise error

    with pytest.raises(AlphaFailed) as failed:
        evaluate(saying(transform), seen())
    assert str(failed.value) == reason
    assert failed.value.__cause__ is error


def test_router_alpha_aware_reading_what_was_not_declared_is_a_failure_that_says_so() -> None:
    with pytest.raises(AlphaFailed, match=r"KeyError.*found 'vpin': add it to inputs="):
        evaluate(saying(lambda ctx: ctx["vpin"]), seen())


def test_router_alpha_aware_an_interrupt_is_nobodys_failure() -> None:
    def transform(ctx: AlphaContext) -> float | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(saying(transform), seen())


def test_router_alpha_aware_clip_keeps_what_is_within() -> None:
    assert [clip(value) for value in (-3.0, -1.0, 0.25, 1.0, 7.0)] == [-1.0, -1.0, 0.25, 1.0, 1.0]
    assert (clip(-0.5, 0.0), clip(3.0, 0.0, 2.0)) == (0.0, 2.0)
