"""Alphas: what they are, how a function becomes one, and how one is asked.

An alpha is a pure function of the features of one instant. Its signal is in [-1, 1]; signals times weights add up to a blend, which
means the expected return of the mid over the router's horizon in standard deviations. ``weight_init`` is what is believed of that
coefficient before anything is learned: a tenth is much.

Whoever writes an alpha may err. Of what it does wrong while it is asked, ``AlphaFailed`` tells, and nothing else goes on from it.
"""

import inspect
import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TypeVar

from alphapack.models.features import BY_NAME, Family, nearest

ALPHAS_MAX = 62
"""A set of alphas is a set of bits in a whole number."""
GROUP_MAX = 16
"""Alphas of one group: credit among so many is exact."""
INPUTS_MAX = 16
TEXT_MAX = 400
"""Characters of a description or a source."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""What ids of alphas, names of policies and groups look like."""
TOLERANCE = 1e-9
"""A number so little outside of its range is rounding, and is taken for the bound."""
REASON_MAX = 300

_OWN = "__alphapack_alphas__"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


class AlphaFailed(Exception):
    """An alpha that gave no signal that can be used; the text says why."""


class AlphaContext:
    """What an alpha or a policy sees of one instant: of an alpha the inputs that it declared, of a policy every feature there is."""

    __slots__ = ("_inputs", "_raw", "_standard", "symbol", "ts_ns")

    def __init__(
        self, symbol: str, ts_ns: int, raw: Mapping[str, float], standard: Mapping[str, float], inputs: tuple[str, ...] | None
    ) -> None:
        """``raw`` and ``standard`` hold what is known, by name. ``inputs`` None: every feature may be read."""
        self.symbol = symbol
        """Full name, such as ``binance-usdm:BTCUSDT``."""
        self.ts_ns = ts_ns
        """Engine time, nanoseconds since 1970."""
        self._raw, self._standard, self._inputs = raw, standard, inputs

    def __getitem__(self, name: str) -> float:
        """Return a feature in its own unit; raises KeyError where it may not be read or is not known."""
        found = self.get(name)
        if found is None:
            raise KeyError(f"expected {name} to be known, found it is not: ask with ctx.get({name!r}), which is None then")
        return found

    def get(self, name: str) -> float | None:
        """Return a feature in its own unit, None where it is not known, which the inputs of an alpha always are.

        Raises KeyError for a name that may not be read.
        """
        return self._raw.get(self._readable(name))

    def z(self, name: str) -> float:
        """Return a feature in standard deviations, in [-5, 5], 0 where it is not known; a signed one keeps its sign. Raises as ``get``."""
        return self._standard.get(self._readable(name), 0.0)

    def _readable(self, name: str) -> str:
        if self._inputs is not None and name not in self._inputs:
            raise KeyError(f"expected one of the declared inputs {', '.join(self._inputs)}, found {name!r}: add it to inputs=")
        if name not in BY_NAME:
            near = nearest(name)
            raise KeyError(f"expected a feature, found {name!r}" + (f"; the nearest is {near!r}" if near else ""))
        return name


Transform = Callable[[AlphaContext], float | None]
_Transform = TypeVar("_Transform", bound=Transform)


@dataclass(frozen=True, slots=True)
class Alpha:
    """A signal with what is said about it; made by ``alpha``, or by hand, and checked either way (ValueError)."""

    id: str
    desc: str
    inputs: tuple[str, ...]
    """Names of ``models.features``: it is asked only where all of them are known, and sees no other."""
    weight_init: float
    """Believed weight, in [-1, 1]."""
    transform: Transform
    group: str = "continuation"
    """Policies listen to groups."""
    source: str = ""
    """Where it was published."""
    reason: str = ""
    """Why it should work."""

    def __post_init__(self) -> None:
        for what, name in (("id", self.id), ("group", self.group)):
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise ValueError(f"expected the {what} of an alpha to match {NAME.pattern}, found {shown(name)}")
        for what, text in (("desc", self.desc), ("source", self.source)):
            if not (isinstance(text, str) and len(text) <= TEXT_MAX and (text or what == "source")):
                raise ValueError(f"{self.id}: expected {what} to be a text of at most {TEXT_MAX} characters, found {shown(text)}")
        if not (isinstance(self.inputs, tuple) and 1 <= len(self.inputs) <= INPUTS_MAX and len(set(self.inputs)) == len(self.inputs)):
            raise ValueError(f"{self.id}: expected inputs to be 1 to {INPUTS_MAX} different names, found {shown(self.inputs)}")
        for name in self.inputs:
            if name not in BY_NAME:
                near = nearest(str(name))
                raise ValueError(f"{self.id}: expected a feature, found {shown(name)}" + (f"; the nearest is {near!r}" if near else ""))
        weight = number(self.weight_init)
        if weight is None or not -1.0 <= weight <= 1.0:
            raise ValueError(f"{self.id}: expected weight_init from -1 to 1, found {shown(self.weight_init)}")
        object.__setattr__(self, "weight_init", weight)

    @property
    def family(self) -> Family:
        """Whence it takes what it adds: the family of its last input that is not microstructure, else microstructure."""
        found: Family = "microstructure"
        for name in self.inputs:
            if (family := BY_NAME[name].family) != "microstructure":
                found = family
        return found


def alpha(
    *, id: str, desc: str, inputs: Iterable[str], weight_init: float, group: str = "continuation", source: str = ""
) -> Callable[[_Transform], _Transform]:
    """Make a function ``transform(ctx: AlphaContext) -> float | None`` an alpha of its module; its docstring is the reason.

    The function itself stays as it is. Arguments are those of ``Alpha``; raises ValueError for what they may not be, and TypeError
    for what is not a plain function of one argument.
    """
    if isinstance(inputs, str):
        raise ValueError(f"{id}: expected inputs to be names, found one text {inputs!r}: write ({inputs!r},)")

    def made(transform: _Transform) -> _Transform:
        function = plain(transform, 1, id)
        one = Alpha(id, desc, tuple(inputs), weight_init, transform, group, source, reason=inspect.getdoc(transform) or "")
        function.__globals__.setdefault(_OWN, []).append(one)
        return transform

    return made


def alphas_of(module: ModuleType) -> list[Alpha]:
    """Return the alphas that a module defines, in the order of their definition; those it imports are their own module's."""
    return list(vars(module).get(_OWN, ()))


def check_alphas(alphas: Iterable[Alpha]) -> None:
    """Raise ValueError where they cannot be used together: an id twice, or more than fit in all or in a group."""
    every = list(alphas)
    if twice := [name for name, count in Counter(one.id for one in every).items() if count > 1]:
        raise ValueError(f"expected every alpha to have an id of its own, found {twice[0]!r} more than once")
    if len(every) > ALPHAS_MAX:
        raise ValueError(f"expected at most {ALPHAS_MAX} alphas, found {len(every)}")
    for group, count in Counter(one.group for one in every).items():
        if count > GROUP_MAX:
            raise ValueError(f"expected at most {GROUP_MAX} alphas in a group, found {count} in {group!r}")


def evaluate(one: Alpha, ctx: AlphaContext) -> float | None:
    """Return the signal, in [-1, 1], or None where the alpha has none to give.

    Raises
    ------
    AlphaFailed
        For any exception in it, and for what is no finite number in [-1, 1]. True and False are no numbers.
    """
    try:
        signal = one.transform(ctx)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: no alpha ends the process.
        raise AlphaFailed(reason_of(error)) from error
    if signal is None:
        return None
    checked = within(signal, -1.0, 1.0)
    if checked is None:
        raise AlphaFailed(f"expected a signal from -1 to 1 or None, found {shown(signal)}")
    return checked


# What alphas and policies are checked with


def clip(value: float, low: float = -1.0, high: float = 1.0) -> float:
    """Return the value, or the bound that it is beyond."""
    return low if value < low else high if value > high else value


def number(value: object) -> float | None:
    """Return a finite real number as a float, without the sign of a zero; None for anything else, True and False among it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        found = float(value) + 0.0
    except Exception:  # A number of somebody's own making may do anything.
        return None
    return found if math.isfinite(found) else None


def within(value: object, low: float, high: float) -> float | None:
    """Return a number within bounds, one beyond them by rounding as the bound; None for anything else."""
    found = number(value)
    if found is None or not low - TOLERANCE <= found <= high + TOLERANCE:
        return None
    return clip(found, low, high)


def plain(function: object, arguments: int, name: str) -> FunctionType:
    """Return a plain function that can be called with so many arguments; raises TypeError for anything else."""
    if not isinstance(function, FunctionType) or inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{name}: expected a plain function, found {shown(function)}")
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError as error:
        raise TypeError(f"{name}: expected a function of {arguments} argument{'s' if arguments > 1 else ''}: {error}") from None
    return function


def reason_of(error: BaseException) -> str:
    """Return what went wrong in one line, the same in every run: without addresses of objects."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return _bounded(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def shown(value: object) -> str:
    """Return a value for an error message, in one bounded line that is the same in every run."""
    try:
        return _bounded(repr(value))
    except Exception:
        return f"a {type(value).__name__}"


def _bounded(text: str) -> str:
    return _ADDRESS.sub("0x..", " ".join(text.split()))[:REASON_MAX]
