"""Alphas and policies of third parties: files that are named at the start, and packages that are installed.

A package is found by its entry points, groups ``alphapack.alphas`` and ``alphapack.policies``; each names a module. Loading executes
what stands in a file or module, with all rights of the process: nothing of it is confined.

What was loaded is part of what an engine computes. ``Plugins.fingerprint`` names it by content, so that a replay can tell.
"""

import hashlib
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from alphapack.alphas import ALPHAS
from alphapack.models.alpha import NAME, Alpha, alphas_of, check_alphas, reason_of
from alphapack.models.features import FEATURES
from alphapack.models.policy import FLAT, Policy, check_policies, policies_of
from alphapack.policies import POLICIES

GROUPS = ("alphapack.alphas", "alphapack.policies")
PLUGINS_MAX = 64
BYTES_MAX = 1_000_000
"""Of one file or module."""


class PluginError(Exception):
    """A plugin that cannot be used; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Plugins:
    """Every alpha and policy there is: built-in ones first, then those of packages, then those of files."""

    alphas: tuple[Alpha, ...] = ALPHAS
    policies: tuple[Policy, ...] = POLICIES
    fingerprint: tuple[str, ...] = ()
    """Of each plugin its name and the first 16 hex digits of the SHA-256 of its text; empty where all is built in."""


def load(paths: Sequence[Path] = (), *, packages: bool = True) -> Plugins:
    """Return the built-in alphas and policies with those of installed packages, in order of name, and of files, in the order given.

    Raises
    ------
    PluginError
        For a file that is missing, too long or no Python, an exception while it is executed, a plugin without an alpha or a policy,
        an id or name that is there already, and a group to which no policy listens.
    """
    alphas, policies, prints = list(ALPHAS), list(POLICIES), list[str]()
    owners = {**dict.fromkeys((one.id for one in ALPHAS), "alphapack"), **dict.fromkeys((one.name for one in POLICIES), "alphapack")}
    sources = [_of_package(value, name) for value, name in _installed().items()] if packages else []
    if len(sources) + len(paths) > PLUGINS_MAX:
        raise PluginError(f"expected at most {PLUGINS_MAX} plugins, found {len(sources) + len(paths)}")
    for name, module, digest in sources + [_of_file(path) for path in paths]:
        more_alphas, more_policies = alphas_of(module), policies_of(module)
        if not more_alphas and not more_policies:
            raise PluginError(f"plugin {name}: expected an alpha or a policy in it, found neither: put @alpha(...) over a function")
        for what, one in [("an alpha", one.id) for one in more_alphas] + [("a policy", one.name) for one in more_policies]:
            if one in owners:
                raise PluginError(f"plugin {name}: expected {what} of a new name, found {one!r}, which is in {owners[one]} already")
            owners[one] = name
        alphas += more_alphas
        policies += more_policies
        prints.append(f"{name} {digest}")
    try:
        check_alphas(alphas)
        check_policies(policies, alphas)
    except ValueError as error:
        raise PluginError(f"plugins: {error}") from None
    return Plugins(tuple(alphas), tuple(policies), tuple(prints))


def _installed() -> Mapping[str, str]:
    """Return the modules that entry points name, each once, with the entry's name."""
    found: dict[str, str] = {}
    for entry in sorted((entry for group in GROUPS for entry in _entries(group)), key=lambda entry: (entry.name, entry.value)):
        found.setdefault(entry.value, entry.name)
    return found


def _entries(group: str) -> Iterable[EntryPoint]:
    return entry_points(group=group)


def _of_package(value: str, name: str) -> tuple[str, ModuleType, str]:
    try:
        module = import_module(value)
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin {name}: expected to import {value}: {_told(error, None)}") from error
    text = Path(module.__file__).read_bytes() if module.__file__ else value.encode()
    return name, module, _digest(text)


def _of_file(path: Path) -> tuple[str, ModuleType, str]:
    text = _read(path)
    module = ModuleType(f"alphapack_plugin_{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}_{_digest(text)}")
    module.__file__ = str(path)
    try:
        code = compile(text, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise PluginError(f"plugin {path}{line}: expected Python, found a fault: {reason}") from None
    sys.modules[module.__name__] = module  # Dataclasses and the like look their module up by its name.
    try:
        exec(code, vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise PluginError(f"plugin {path}: expected to be executed without an error: {_told(error, path)}") from error
    return path.name, module, _digest(text)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise PluginError(f"plugin {path}: expected a Python file, found a folder")
    try:
        with path.open("rb") as file:
            text = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise PluginError(f"plugin {path}: expected a Python file, found none to read ({error.strerror})") from None
    if len(text) > BYTES_MAX:
        raise PluginError(f"plugin {path}: expected at most {BYTES_MAX:,} bytes, found more")
    return text


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def _told(error: BaseException, path: Path | None) -> str:
    """Return what went wrong, and the last line of the plugin's own that led there."""
    lines = [step.lineno for step in extract_tb(error.__traceback__) if path is not None and step.filename == str(path)]
    return (f"line {lines[-1]}: " if lines else "") + reason_of(error)


_TEMPLATE = '''\
"""An alpha of your own. Use it with: alphapack serve --plugin {name}.py

This file is executed as it is, with all rights of the process.
"""

from alphapack.plugin import AlphaContext, alpha, clip


@alpha(
    # Its name in answers, reports and the ledger: small letters, digits and _.
    id="{name}",
    # What it looks at, in a line.
    desc="takers of 30 s and the book's best level lean the same way",
    # What it may read. It is asked only where all of these are known. There are:
{features}
    inputs=("ti_30s", "obi_1"),
    # The return of the mid over the next 300 s, in standard deviations, that you expect at signal 1. Be modest:
    # 0.05 to 0.3. It is learned from there, and held near it as long as little is known.
    weight_init=0.05,
    # Who listens: continuation (momentum), reversal (mean_reversion), making (spread_capture), breakout, smile (smile_tilt).
    group="continuation",
    # Where it was published, if it was.
    source="",
)
def transform(ctx: AlphaContext) -> float | None:
    """Say here why it should work; this is shown as its reason."""
    # ctx["ti_30s"] is the value in its own unit, ctx.z("ti_30s") in standard deviations, within -5 and 5.
    taken, shown = clip(ctx.z("ti_30s") / 2.0), clip(ctx.z("obi_1") / 2.0)
    # None: nothing to say. Else a number from -1 (the price falls) to 1 (it rises). Use nothing but ctx: no clock, no
    # chance, no files, no memory of earlier calls, or a replay will not give the same again.
    if taken * shown <= 0.0:
        return None
    return 0.5 * (taken + shown)
'''


def new_alpha(name: str) -> str:
    """Return the text of a plugin file with one working alpha of this name; raises PluginError for a name that it cannot have."""
    if not NAME.fullmatch(name):
        raise PluginError(f"expected a name of small letters, digits and _ that begins with a letter, found {name[:80]!r}")
    if name in (FLAT, *(one.id for one in ALPHAS), *(one.name for one in POLICIES)):
        raise PluginError(f"expected a new name, found {name!r}, which is built in")
    return _TEMPLATE.format(name=name, features="\n".join(_comment(", ".join(one.name for one in FEATURES))))


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 120, initial_indent="    #   ", subsequent_indent="    #   ")
