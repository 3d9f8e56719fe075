import math
import os
import re
from pathlib import Path

import msgspec
import pytest

from alphapack import config
from alphapack.api.server import ApiSettings
from alphapack.config import PluginSection, Settings, SettingsError, example_toml, load, masked, read, stated
from alphapack.domain.inputs import CoreSettings, InstrumentSettings
from alphapack.domain.trading import RouterSettings


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str, mode: int = 0o600) -> Path:
    path = Path("settings.toml")
    path.write_text(text)
    path.chmod(mode)
    return path


def test_nothing_stated_is_the_defaults() -> None:
    effective = read(None, {}, {})
    assert effective == config.Effective(Settings(), {}, ())
    assert effective.settings.core == CoreSettings()


def test_command_line_goes_before_environment_before_file_before_default() -> None:
    Path("alphapack.toml").write_text('[api]\nport = 1\nhost = "file"\nbody_max_bytes = 9\n')
    environ = {"ALPHAPACK__API__PORT": "2", "ALPHAPACK__API__HOST": "environment"}
    found = read(None, environ, {"api.port": 3, "api.host": None})
    api = found.settings.api
    assert (api.port, api.host, api.body_max_bytes, api.idle_timeout_s) == (3, "environment", 9, 30.0)
    assert found.sources == {
        "api.port": "command line",
        "api.host": "environment ALPHAPACK__API__HOST",
        "api.body_max_bytes": "alphapack.toml",
    }


def test_a_named_file_is_read_in_place_of_the_one_here() -> None:
    Path("alphapack.toml").write_text("[api]\nport = 1\n")
    assert load(written("[core]\nseed = 5\n"), {}, {}) == Settings(core=CoreSettings(seed=5))
    with pytest.raises(SettingsError, match=r"none to read at nowhere\.toml.*alphapack init"):
        load(Path("nowhere.toml"), {}, {})


@pytest.mark.parametrize(
    ("name", "text", "section", "key", "expected"),
    [
        ("ALPHAPACK__LOG__JSON", "true", "log", "json", True),
        ("ALPHAPACK__CORE__SYMBOLS", '["sim:A", "sim:B"]', "core", "symbols", ("sim:A", "sim:B")),
        ("ALPHAPACK__API__TOKEN", "123456", "api", "token", "123456"),
        ("ALPHAPACK__API__TOKEN", "true", "api", "token", "true"),
        ("ALPHAPACK__API__TOKEN", '"quoted"', "api", "token", "quoted"),
        ("ALPHAPACK__API__TOKEN", "a\nb = 1", "api", "token", "a\nb = 1"),
        ("ALPHAPACK__API__HOST", "::1", "api", "host", "::1"),
        ("ALPHAPACK__CAPTURE__SPEED", "max", "capture", "speed", "max"),
        ("ALPHAPACK__CAPTURE__SPEED", "10", "capture", "speed", 10.0),
        ("ALPHAPACK__STORAGE__DATA_DIR", "/x/y", "storage", "data_dir", "/x/y"),
        ("ALPHAPACK__ROUTER__SCALE", "1", "router", "scale", 1.0),
        ("ALPHAPACK__ROUTER__WITHOUT", '["momentum", "rr25_tilt"]', "router", "without", ("momentum", "rr25_tilt")),
        ("ALPHAPACK__PLUGINS__FILES", '["mine.py"]', "plugins", "files", ("mine.py",)),
        ("ALPHAPACK__PLUGINS__PACKAGES", "false", "plugins", "packages", False),
        (
            "ALPHAPACK__CORE__INSTRUMENTS",
            '[{ symbol = "sim:A", tick = "0.1" }]',
            "core",
            "instruments",
            (InstrumentSettings("sim:A", tick="0.1"),),
        ),
    ],
)
def test_a_variable_is_a_toml_value_or_text(name: str, text: str, section: str, key: str, expected: object) -> None:
    assert getattr(getattr(load(None, {name: text}, {}), section), key) == expected


def test_other_variables_are_no_settings() -> None:
    assert load(None, {"ALPHAPACK_DATA": "x", "ALPHAPACK_GUARD_ECE_MAX": "0", "HOME": "y"}, {}) == Settings()


@pytest.mark.parametrize(
    ("environ", "overrides", "words"),
    [
        ({"ALPHAPACK__API__PROT": "1"}, {}, ("environment ALPHAPACK__API__PROT", "'prot'", "nearest is 'port'")),
        ({"ALPHAPACK__APY__PORT": "1"}, {}, ("environment ALPHAPACK__APY__PORT", "section", "nearest is 'api'")),
        ({"ALPHAPACK__PORT": "1"}, {}, ("environment ALPHAPACK__PORT", "nearest is 'api.port'")),
        ({"ALPHAPACK__API": "1"}, {}, ("environment ALPHAPACK__API", "no key")),
        ({"ALPHAPACK__API__PORT": "many"}, {}, ("ALPHAPACK__API__PORT", "api.port", "expected int", "found str 'many'")),
        ({"ALPHAPACK__API__PORT": "70000"}, {}, ("expected int <= 65535", "found int 70000")),
        ({"ALPHAPACK__API__PORT": "80.5"}, {}, ("expected int", "found float 80.5")),
        ({"ALPHAPACK__API__CORS_ORIGINS": '["desk.example"]'}, {}, ("cors_origins", "https?", "desk.example")),
        ({"ALPHAPACK__LOG__LEVEL": "loud"}, {}, ("expected debug, info, warning or error", "'loud'")),
        ({"ALPHAPACK__STORAGE__RETAIN_GB": "inf"}, {}, ("expected a finite number", "inf")),
        ({"ALPHAPACK__STORAGE__RETAIN_GB": "nan"}, {}, ("expected", "nan")),
        ({"ALPHAPACK__CORE__SEED": "-1"}, {}, ("expected int >= 0", "-1")),
        ({"ALPHAPACK__CORE__INSTRUMENTS": '[{ symbl = "sim:A" }]'}, {}, ("core.instruments", "nearest is 'symbol'")),
        ({"ALPHAPACK__CORE__INSTRUMENTS": '[{ symbol = "sim:A", tick = 1 }]'}, {}, ("expected str", "$[0].tick")),
        ({}, {"capture.speed": -1.0}, ("command line", "capture.speed", "> 0", "-1.0")),
        ({}, {"capture.speed": "fast"}, ("command line", "capture.speed", "max", "'fast'")),
        ({}, {"api.prot": 1}, ("command line", "nearest is 'port'")),
        ({"ALPHAPACK__ROUTER__FLOOR": "0.2"}, {}, ("router.floor", "expected float <= 0.05", "found float 0.2")),
        ({"ALPHAPACK__ROUTER__PRIOR_EFFECT": "nan"}, {}, ("router.prior_effect", "expected", "nan")),
        ({"ALPHAPACK__ROUTER__WITHOUT": "momentum"}, {}, ("router.without", "expected array", "'momentum'")),
        ({}, {"router.interval_s": 600}, ("[router]", "interval_s <= horizon_s", "600 and 300")),
        ({"ALPHAPACK__PLUGINS__FILES": "mine.py"}, {}, ("plugins.files", "expected array", "'mine.py'")),
        ({"ALPHAPACK__PLUGINS__PACKAGES": "1"}, {}, ("plugins.packages", "expected bool", "int 1")),
        ({"ALPHAPACK__CORE__PLUGINS": '["mine.py 00"]'}, {}, ("ALPHAPACK__CORE__PLUGINS", "unknown key in [core]")),
    ],
)
def test_an_error_says_where_it_stood_what_was_expected_and_what_came(
    environ: dict[str, str], overrides: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, environ, overrides)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert "`" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[api]\nprot = 1\n", ("settings.toml", "'prot'", "'port'")),
        ("[apy]\nport = 1\n", ("settings.toml", "'apy'", "'api'")),
        ("port = 1\n", ("settings.toml", "'port'", "'api.port'")),
        ("api = 1\n", ("settings.toml", "[api]", "int 1")),
        ('[api]\nport = "1"\n', ("settings.toml", "api.port", "expected int", "str '1'")),
        ("[api]\nport = \n", ("settings.toml", "expected TOML", "line 2")),
        ("\udcff", ("settings.toml", "expected TOML")),
    ],
)
def test_an_error_in_the_file_names_it(text: str, words: tuple[str, ...]) -> None:
    path = Path("settings.toml")
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError) as caught:
        load(path, {}, {})
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_router_alpha_aware_settings_are_a_part_of_what_the_core_is_told() -> None:
    settings = load(written('[router]\nfloor = 0.05\nwithout = ["breakout"]\n[plugins]\nfiles = ["a.py", "b.py"]\n'), {}, {})
    assert settings.router == settings.core.router == RouterSettings(floor=0.05, without=("breakout",))
    assert settings.plugins == PluginSection(("a.py", "b.py"), True)
    assert settings.core.plugins == (), "what files hold is told where they are executed"
    plain = masked(settings)
    assert not {"router", "execution", "plugins"} & set(plain["core"]) and plain["router"]["without"] == ["breakout"]


@pytest.mark.parametrize(
    ("name", "low", "high"), [("floor", 0.0, 0.05), ("scale", 1e-3, 1.0), ("prior_edge", 1e-3, 10.0), ("prior_effect", 1e-3, 10.0)]
)
def test_router_alpha_aware_settings_have_one_range_wherever_they_are_read(name: str, low: float, high: float) -> None:
    for value in (low, high):
        assert load(None, {}, {f"router.{name}": value}).router == msgspec.convert({name: value}, RouterSettings)
    for value in (math.nextafter(low, -math.inf), math.nextafter(high, math.inf), math.nan):
        with pytest.raises(SettingsError, match=f"router.{name}: expected"):
            load(None, {}, {f"router.{name}": value})
        with pytest.raises(msgspec.ValidationError, match=f"expected {name} from {low:g} to {high:g}"):
            msgspec.convert({name: value}, RouterSettings)


def test_router_alpha_aware_settings_that_are_stated_come_from_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("alphapack.toml").write_text("[router]\nfloor = 0.02\n")
    monkeypatch.setenv("ALPHAPACK__ROUTER__SCALE", "0.7")
    assert stated({}) == Settings() and read(None, {}, {}, files=False).sources == {}
    assert stated({"router": {"prior_edge": 0.5}, "core": {"seed": 3}}).core == CoreSettings(seed=3, router=RouterSettings(prior_edge=0.5))
    assert load(None, {}, {}).router.floor == 0.02, "else the file here is read"
    for wrong, words in (({"router": {"flor": 0.1}}, "nearest is 'floor'"), ({"ruter": {}, "router": {"floor": 1.0}}, "router.floor")):
        with pytest.raises(SettingsError, match=words):
            stated(wrong)


def test_a_secret_is_never_shown() -> None:
    secret = "correct-horse-battery-staple"
    settings = load(None, {"ALPHAPACK__API__TOKEN": secret}, {})
    assert settings.api.token == secret
    assert masked(settings)["api"]["token"] == "***"
    assert masked(Settings())["api"]["token"] is None
    assert secret[:4] not in repr(masked(settings))
    with pytest.raises(SettingsError) as caught:
        load(written(f'[api]\ntoken = ["{secret}"]\n'), {}, {})
    assert secret[:4] not in str(caught.value)


def test_masked_settings_are_plain_json() -> None:
    plain = masked(Settings())
    assert msgspec.json.decode(msgspec.json.encode(plain)) == plain
    assert list(plain) == ["core", "router", "execution", "api", "storage", "log", "capture", "simulator", "live", "plugins"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_token_that_others_can_read_is_warned_of() -> None:
    text = '[api]\ntoken = "sesame"\n'
    assert read(written(text, 0o600), {}, {}).warnings == ()
    (warning,) = read(written(text, 0o640), {}, {}).warnings
    assert "chmod 600 settings.toml" in warning
    assert "sesame" not in warning
    assert read(written("[api]\nport = 1\n", 0o644), {}, {}).warnings == ()


def test_the_example_uncommented_is_the_defaults_and_names_every_setting() -> None:
    example = example_toml()
    assert load(written(example), {}, {}) == Settings()
    uncommented = re.sub(r"^#(?! )", "", example, flags=re.MULTILINE)
    found = read(written(uncommented), {}, {})
    assert found.settings == Settings()
    unset = {f"{section}.{key}" for section, values in masked(Settings()).items() for key, value in values.items() if value is None}
    every = {f"{section}.{key}" for section, values in masked(Settings()).items() for key in values}
    assert set(found.sources) == every - unset
    assert all(f"# {name.partition('.')[2]} is not set" in example for name in unset)
    assert "# \n" not in example, "every setting is described"
    for name in unset:
        assert read(None, {}, {name: "text"}).sources == {name: "command line"}


def test_the_api_section_has_the_servers_fields_and_defaults() -> None:
    assert msgspec.to_builtins(Settings().api) == msgspec.to_builtins(ApiSettings())


def test_the_pace_of_max_is_infinite() -> None:
    assert load(None, {}, {"capture.speed": "max"}).capture.pace == float("inf")
    assert load(None, {}, {"capture.speed": 10.0}).capture.pace == 10.0
