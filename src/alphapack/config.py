"""Settings: read once, then frozen.

Precedence: command line, then ``ALPHAPACK__SECTION__KEY`` in the environment, then ``alphapack.toml``, then defaults.
Every value is checked where it stands, so that an error can say where that is. ``ALPHAPACK_DATA`` and
``ALPHAPACK_GUARD_*`` are for tests and no settings.
"""

import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from alphapack.domain.feeds import FeedSettings
from alphapack.domain.inputs import CoreSettings
from alphapack.domain.simulation import SimulatorSettings
from alphapack.domain.trading import ExecutionSettings, RouterSettings

FILE_NAME = "alphapack.toml"
ENVIRONMENT_PREFIX = "ALPHAPACK__"

_SECRET = re.compile(r"token|secret|password|api_key")
_SHOWN_CHARS = 60
_Text = Annotated[str, Meta(min_length=1)]
_Origin = Annotated[str, Meta(pattern=r"^https?://[^/\s]+$")]


class SettingsError(ValueError):
    """A setting that is unknown or has a value it cannot have."""


class ApiSection(msgspec.Struct, frozen=True):
    """The HTTP server."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on; a public one needs a token")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 5000
    token: Annotated[str | None, Meta(description="bearer token that writes need; keep the file readable by you alone")] = None
    cors_origins: Annotated[tuple[_Origin, ...], Meta(description="origins whose pages may use the API")] = ()
    allowed_hosts: Annotated[tuple[str, ...], Meta(description="further Host names to answer to, against DNS rebinding")] = ()
    body_max_bytes: Annotated[int, Meta(ge=1, description="largest request body")] = 1_000_000
    connections_max: Annotated[int, Meta(ge=1, description="connections served at once")] = 256
    header_timeout_s: Annotated[float, Meta(gt=0, description="time a client has to send a request's head")] = 5.0
    idle_timeout_s: Annotated[float, Meta(gt=0, description="time a kept connection may be idle")] = 30.0


class StorageSection(msgspec.Struct, frozen=True):
    """Journal, checkpoints and ledger on disk."""

    data_dir: Annotated[_Text | None, Meta(description="folder of all state; unset: the user's data folder")] = None
    segment_mb: Annotated[int, Meta(ge=1, le=4096, description="size at which the journal begins a new segment")] = 256
    checkpoint_inputs: Annotated[int, Meta(ge=1, description="a checkpoint at least every so many inputs")] = 100_000
    checkpoint_s: Annotated[float, Meta(gt=0, description="and at least every so many seconds")] = 60.0
    retain_gb: Annotated[float, Meta(gt=0, description="journal kept; only what a verified checkpoint covers is deleted")] = 20.0


class LogSection(msgspec.Struct, frozen=True):
    """What is written to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="debug, info, warning or error")] = "info"
    json: Annotated[bool, Meta(description="one JSON document a line in place of text")] = False


class CaptureSection(msgspec.Struct, frozen=True):
    """Recordings as a source."""

    speed: Annotated[Annotated[float, Meta(gt=0)] | Literal["max"], Meta(description='times real time, or "max"')] = 1.0
    venue: Annotated[_Text | None, Meta(description="venue of the files; unset: what their names begin with")] = None

    @property
    def pace(self) -> float:
        """The speed as a number, infinite for ``max``."""
        return math.inf if self.speed == "max" else float(self.speed)


class PluginSection(msgspec.Struct, frozen=True):
    """Alphas and policies that are not built in."""

    files: Annotated[tuple[_Text, ...], Meta(description="Python files of alphas and policies; they are executed")] = ()
    packages: Annotated[bool, Meta(description="also use those of installed packages, by their entry points")] = True


class LiveSection(msgspec.Struct, frozen=True):
    """Venues as a source."""

    ws_url: Annotated[_Text | None, Meta(description="base address of WebSockets, such as a mock exchange's; unset: the venue's")] = None
    rest_url: Annotated[_Text | None, Meta(description="base address of REST; unset: the venue's")] = None
    history_days: Annotated[float, Meta(ge=0, le=45, description="1-minute candles fetched at the start")] = 30.0
    silence_s: Annotated[float, Meta(gt=0, description="silence of a depth stream before it is subscribed anew")] = 5.0
    dead_s: Annotated[float, Meta(gt=0, description="silence of a whole connection before it is given up")] = 10.0

    @property
    def feed(self) -> FeedSettings:
        """What a feed is told."""
        return FeedSettings(ws_url=self.ws_url, rest_url=self.rest_url, silence_s=self.silence_s, dead_s=self.dead_s)


class Settings(msgspec.Struct, frozen=True):
    """All settings, by section."""

    core: CoreSettings = msgspec.field(default_factory=CoreSettings)
    """With ``router`` and ``execution`` in it: all that the core is told is one input."""
    router: RouterSettings = msgspec.field(default_factory=RouterSettings)
    execution: ExecutionSettings = msgspec.field(default_factory=ExecutionSettings)
    api: ApiSection = msgspec.field(default_factory=ApiSection)
    storage: StorageSection = msgspec.field(default_factory=StorageSection)
    log: LogSection = msgspec.field(default_factory=LogSection)
    capture: CaptureSection = msgspec.field(default_factory=CaptureSection)
    simulator: SimulatorSettings = msgspec.field(default_factory=SimulatorSettings)
    live: LiveSection = msgspec.field(default_factory=LiveSection)
    plugins: PluginSection = msgspec.field(default_factory=PluginSection)


class Effective(msgspec.Struct, frozen=True):
    """Settings and where each value came from, by ``section.key``; what is not in ``sources`` is a default."""

    settings: Settings
    sources: dict[str, str]
    warnings: tuple[str, ...]


# These types say nothing of bounds themselves: the core also reads old journals, the simulator has bounds of several fields.
_NOTES = {
    "core": {
        "seed": Meta(ge=0, le=(1 << 63) - 1, description="seed of every random draw"),
        "stale_after_ms": Meta(ge=1, description="silence of a symbol's depth stream after which its book is STALE"),
        "history_rows": Meta(ge=1, le=1_000_000, description="feature rows kept in memory a symbol, one a second"),
        "sync_buffer_frames": Meta(ge=1, le=1_000_000, description="depth differences held while a snapshot is awaited"),
        "symbols": Meta(description='full names to follow, such as "binance-usdm:BTCUSDT"; empty: all the source names'),
        "symbols_max": Meta(ge=1, le=100_000, description="symbols followed at most"),
        "volatility_rule": Meta(description="sigma of two forecasts: max, min or blend (of variances, by how good they were)"),
        "delta_convention": Meta(description="delta of 25-delta options: forward or premium_adjusted (premium paid in the coin)"),
        "instruments": Meta(description='what you know better than the wire: { symbol = "...", tick = "0.1", lot = "0.001" }'),
    },
    "router": {
        "interval_s": Meta(ge=1, le=86_400, description="a decision for each symbol every so many seconds"),
        "horizon_s": Meta(ge=1, le=86_400, description="time for which a decision holds; at least the interval"),
        "floor": Meta(ge=0, le=0.05, description="least probability of each policy that can be chosen, so that it goes on being measured"),
        "scale": Meta(ge=1e-3, le=1, description="width of what scores are drawn from, as a part of the posterior's; less explores less"),
        "prior_edge": Meta(ge=1e-3, le=10, description="believed size of a policy's edge beyond costs, in volatilities to the horizon"),
        "prior_effect": Meta(ge=1e-3, le=10, description="believed size of what one deviation of a feature adds to it"),
        "without": Meta(description="alphas and policies that are not asked, by name"),
    },
    "execution": {
        "trade": Meta(description="trade on paper; false: signals alone"),
        "settlement": Meta(description="currency of all money; symbols that settle in another one are not traded"),
        "capital": Meta(ge=1, le=1e10, description="money at the start"),
        "target_vol": Meta(ge=1e-4, le=10, description="volatility a year that one full exposure is sized to"),
        "kelly_fraction": Meta(ge=1e-4, le=1, description="part of the Kelly leverage that is taken"),
        "kelly_cap": Meta(ge=1e-3, le=100, description="greatest leverage that Kelly may ask for"),
        "probe": Meta(description="trade the least size where a chosen size is below it, so that it goes on being measured"),
        "gross_max": Meta(ge=1e-3, le=100, description="greatest sum of all positions, as a multiple of equity"),
        "symbol_max": Meta(ge=1e-3, le=100, description="greatest position in one symbol, as a multiple of equity"),
        "vol_budget": Meta(ge=1e-4, le=10, description="greatest volatility a year of the whole, all symbols moving as one"),
        "brake_drawdown": Meta(ge=1e-4, le=1, description="drawdown from the peak of equity at which new sizes shrink"),
        "brake_release": Meta(ge=0, le=1, description="drawdown at which they no longer do"),
        "brake_factor": Meta(ge=0, le=1, description="what they shrink to meanwhile, as a part"),
        "feed_latency_ms": Meta(ge=0, le=60_000, description="age of what is seen of a market"),
        "order_latency_ms": Meta(ge=0, le=60_000, description="time of an order to the exchange"),
        "ack_latency_ms": Meta(ge=0, le=60_000, description="time of its answer back"),
        "queue": Meta(description="cancels at a resting order's price are behind it: risk_averse; before it: optimistic; or power, log"),
        "min_notional": Meta(ge=0, le=1e6, description="least value of an order where the venue tells none"),
        "maker_fee_bps": Meta(ge=-1_000, le=1_000, description="fee of fills that rested where the venue tells none; below 0: a rebate"),
        "taker_fee_bps": Meta(ge=-1_000, le=1_000, description="fee of fills that took where the venue tells none"),
        "self_impact": Meta(description="charge later fills for what own fills did to the price"),
    },
    "simulator": {
        "seed": Meta(ge=0, le=(1 << 63) - 1, description="names the market: equal seeds make equal markets"),
        "symbols": Meta(description="perpetuals that are traded"),
        "edge": Meta(ge=0, le=10, description="strength of what order flow says about the next five minutes; 0: nothing"),
        "activity": Meta(ge=0.05, le=20, description="scales the rates of orders"),
        "depth_ms": Meta(ge=50, le=1_000, description="interval of depth updates, a multiple of 50"),
    },
}


_OWN_SECTIONS = ("router", "execution")
"""Parts of the core's settings that stand in sections of their own."""
_NOT_SET = ("plugins",)
"""And what follows from others: the digests of the plugins."""


class _Field(msgspec.Struct, frozen=True):
    type: Any
    default: object
    description: str


def _fields_of(section: str) -> dict[str, _Field]:
    struct = get_type_hints(Settings)[section]
    types = get_type_hints(struct, include_extras=True)
    defaults, fields = struct(), {}
    for name in struct.__struct_fields__:
        if section == "core" and name in (*_OWN_SECTIONS, *_NOT_SET):
            continue
        kind = Annotated[types[name], _NOTES[section][name]] if name in _NOTES.get(section, {}) else types[name]
        notes = [note.description for note in getattr(kind, "__metadata__", ()) if isinstance(note, Meta)]
        fields[name] = _Field(kind, getattr(defaults, name), next((note for note in notes if note), ""))
    return fields


_FIELDS = {section: _fields_of(section) for section in Settings.__struct_fields__}


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Settings:
    """Return the effective settings; see ``read``."""
    return read(path, environ, overrides).settings


def read(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object], *, files: bool = True) -> Effective:
    """Return the settings with their sources.

    ``path`` None means ``alphapack.toml`` in the current folder where it exists, unless ``files`` is false. ``overrides`` go by
    ``section.key``; a None among them was not given.
    """
    warnings: list[str] = []
    values: dict[str, dict[str, object]] = {section: {} for section in _FIELDS}
    sources: dict[str, str] = {}
    for source, section, key, candidates in _stated(path, environ, overrides, warnings, files):
        values[section][key] = _checked(section, key, candidates, source)
        sources[f"{section}.{key}"] = source
    sections = {}
    for name, found in values.items():
        try:
            sections[name] = type(getattr(Settings(), name))(**found)
        except ValueError as error:  # Values that are good one by one and not together.
            raise SettingsError(f"[{name}]: {error}") from None
    sections["core"] = msgspec.structs.replace(sections["core"], **{name: sections[name] for name in _OWN_SECTIONS})
    return Effective(Settings(**sections), sources, tuple(warnings))


def stated(values: Mapping[str, Mapping[str, object]]) -> Settings:
    """Return the defaults with these values, by section and key, and nothing from any file or variable. Raises ``SettingsError``."""
    overrides = {f"{section}.{key}": value for section, table in values.items() for key, value in table.items()}
    return read(None, {}, overrides, files=False).settings


def masked(settings: Settings) -> dict[str, dict[str, object]]:
    """Return the settings as plain values, every secret that is set replaced by ``***``."""
    plain = msgspec.json.decode(msgspec.json.encode(settings), type=dict[str, dict[str, object]])
    for name in (*_OWN_SECTIONS, *_NOT_SET):
        del plain["core"][name]
    return {
        section: {key: "***" if value is not None and _SECRET.search(key) else value for key, value in values.items()}
        for section, values in plain.items()
    }


def example_toml() -> str:
    """Return a settings file in which every setting stands commented at its default; ``#key`` is a setting, ``# text`` a note."""
    lines = [
        "# Settings of alphapack. Remove the # before a key to change it.",
        f"# The environment ({ENVIRONMENT_PREFIX}SECTION__KEY) goes before this file, the command line before both.",
    ]
    for section, fields in _FIELDS.items():
        lines += ["", f"[{section}]"]
        for name, field in fields.items():
            lines.append(f"# {field.description}")
            lines.append(f"# {name} is not set" if field.default is None else f"#{name} = {_toml(field.default)}")
    return "\n".join(lines) + "\n"


def _stated(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object], warnings: list[str], files: bool
) -> Iterator[tuple[str, str, str, tuple[object, ...]]]:
    """Yield (source, section, key, candidate values) of what was set, the weaker source first."""
    file = path if path is not None else Path(FILE_NAME)
    if path is not None or (files and file.is_file()):
        document = _parsed(file)
        for section, table in document.items():
            _known(section, _FIELDS, "section", str(file))
            if not isinstance(table, dict):
                raise SettingsError(f"{file}: expected [{section}] to be a table, found {_shown(section, table)}")
            for key, value in table.items():
                yield str(file), section, key, (value,)
        if document.get("api", {}).get("token") is not None and os.name == "posix" and (mode := file.stat().st_mode & 0o777) & 0o077:
            warnings.append(f"{file} holds a token and others may read it (mode {mode:04o}): chmod 600 {file}")
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            section, separator, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
            _known(section, _FIELDS, "section", f"environment {name}")
            if not separator:
                raise SettingsError(f"environment {name}: expected {ENVIRONMENT_PREFIX}SECTION__KEY, found no key")
            yield f"environment {name}", section, key, _environment_values(environ[name])
    for name, value in overrides.items():
        if value is not None:
            section, _, key = name.partition(".")
            _known(section, _FIELDS, "section", "command line")
            yield "command line", section, key, (value,)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"expected a settings file, found none to read at {file} ({error.strerror}): alphapack init makes one"
        ) from error
    except ValueError as error:  # TOML and UTF-8 alike.
        raise SettingsError(f"{file}: expected TOML, found a fault: {error}") from error


def _environment_values(text: str) -> tuple[object, ...]:
    """Return what a variable may mean: a TOML value where it is one, else, or where that does not fit, its text."""
    try:
        document = tomllib.loads(f"value = {text}")
    except ValueError:
        return (text,)
    return (document["value"], text) if len(document) == 1 else (text,)


def _checked(section: str, key: str, candidates: tuple[object, ...], source: str) -> object:
    """Return the first candidate that the setting can have."""
    _known(key, _FIELDS[section], f"key in [{section}]", source)
    field = _FIELDS[section][key]
    reason = ""
    for value in candidates:
        _check_nested(value, field.type, f"{section}.{key}", source)
        try:
            checked: object = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            reason = reason or str(error).replace("Invalid enum value", f"Expected {field.description}, got")
            continue
        if isinstance(checked, float) and not math.isfinite(checked):
            reason = "Expected a finite number"
            continue
        return checked
    expected = re.sub(r", got .*?(?= - at|$)", "", reason).replace("`", "")
    raise SettingsError(f"{source}: {section}.{key}: {expected[:1].lower()}{expected[1:]}, found {_shown(key, candidates[0])}")


def _check_nested(value: object, kind: Any, name: str, source: str) -> None:
    """Refuse unknown keys in a list of tables by name, which the converter would not."""
    info = msgspec.inspect.type_info(kind)
    if isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    if not isinstance(info, msgspec.inspect.VarTupleType) or not isinstance(info.item_type, msgspec.inspect.StructType):
        return
    known = info.item_type.cls.__struct_fields__
    for table in value if isinstance(value, list | tuple) else ():
        for key in table if isinstance(table, dict) else ():
            _known(key, known, f"key in {name}", source)


def _known(name: str, known: Mapping[str, object] | tuple[str, ...], what: str, source: str) -> None:
    if name not in known:
        homes = [f"{section}.{name}" for section, fields in _FIELDS.items() if name in fields]
        near = homes[0] if homes else difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
        raise SettingsError(f"{source}: unknown {what}: {name!r}; the nearest is {near!r}")


def _shown(key: str, value: object) -> str:
    """Return a value for an error message, never a secret one."""
    if _SECRET.search(key):
        return f"a {type(value).__name__}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + '...'}"


def _toml(value: object) -> str:
    """Return a default as TOML; JSON writes text, numbers, booleans and lists of them the same way."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
