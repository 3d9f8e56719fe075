"""The documents say what the code does: their snippet runs, their examples are its answers, their names exist."""

import json
import re
import tomllib
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import alphapack as ap
from alphapack import app, cli, config
from alphapack.api.routes import ROUTES
from alphapack.domain.market import BookState
from alphapack.engine.engine import Engine
from alphapack.models.book import FEATURES
from alphapack.services.microstructure import HISTORY

PROJECT = Path(__file__).parent.parent
README = PROJECT / "README.md"
DOCUMENTS = sorted([README, PROJECT / "CHANGELOG.md", *(PROJECT / "docs").glob("*.md")])
NAME = "binance-spot:BTCUSDT"
SETTINGS = config.masked(config.Settings())


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.S)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session that the documents work out by hand."""
    found = re.search(r"cat > (\S+) <<'END'\n(.*?)^END$", (PROJECT / "docs" / "MICROSTRUCTURE.md").read_text(), re.S | re.M)
    assert found is not None
    path = tmp_path_factory.mktemp("readme") / found[1]
    path.write_text(found[2])
    return path


@pytest.fixture(scope="module")
def engine(capture: Path) -> Engine:
    """An engine that has seen all of it."""
    complaints: list[str] = []
    engine, recording = app.build(), app.record_of([capture], config.Settings(), None, complaints.append)
    for _ in app.steps(engine, recording):
        pass
    assert complaints == []
    return engine


def alike(found: Any, stated: Any) -> bool:
    """Tell whether two documents are equal but for the last bits of their floats."""
    if isinstance(found, dict) and isinstance(stated, dict):
        return list(found) == list(stated) and all(alike(found[key], stated[key]) for key in found)
    if isinstance(found, list) and isinstance(stated, list):
        return len(found) == len(stated) and all(map(alike, found, stated))
    if isinstance(found, float) and isinstance(stated, float):
        return found == pytest.approx(stated, rel=1e-12)
    return bool(found == stated)


def test_the_session_to_paste_goes_live(capture: Path) -> None:
    replay = ap.replay(capture)
    rows = replay.to_numpy()
    assert BookState.LIVE in rows["state"]
    assert rows["state"][-1] == BookState.LIVE
    assert (rows["cancel_rate"][-1], rows["cancel_n"][-1], rows["ti"][-1], rows["queue_rate"][-1]) == (0.75, 2, -1.0, 0.6)
    assert (replay.gaps, replay.crossed, replay.complaints) == (0, 0, [])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README records of the simulator."""
    folder = tmp_path_factory.mktemp("simulated")
    (command,) = re.findall(r"^\.venv/bin/alphapack (record .*)$", README.read_text(), re.M)
    *arguments, output = command.split()
    assert cli.main([*arguments, str(folder / output)]) == 0
    return folder / output


def test_the_python_of_the_readme_runs(simulated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(simulated.parent)
    features, forecasts, smiles, orders, choices = blocks(README, "python")
    exec(features, {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith(f"{int(BookState.LIVE)} ") and printed[2].startswith("['sim:BTCUSDT'] 0 0 ")
    exec(forecasts, {})
    sigmas, fit, _ = capsys.readouterr().out.splitlines()
    assert all(abs(sigma / 0.0039 - 1) < 0.1 for sigma in literal_eval(sigmas))
    assert " True " in fit
    exec(smiles, {})
    smile, implied, chain = capsys.readouterr().out.splitlines()
    assert smile.startswith("full ") and smile.endswith(" True") and "nan" in implied and " percent [] [('27MAR26', " in chain
    exec(orders, {})
    schedule, cost = capsys.readouterr().out.splitlines()
    assert "541955.6" in schedule and "911227.0 603430.7" in schedule and cost == "20.5"
    exec(choices, {})
    chosen, judged, shared = capsys.readouterr().out.splitlines()
    assert chosen[0] in "012" and judged.startswith("OffPolicy(n=500, ") and shared == "[0.16666667 0.16666667 0.66666667]"


def test_the_answers_in_the_documents_are_the_answers(engine: Engine) -> None:
    market = engine.microstructure
    features = json.loads(msgspec.json.encode(market.microstructure(NAME)))
    answers = {
        "GET /api/symbols": json.loads(msgspec.json.encode([market.info(NAME)])),
        "GET /api/book/BTCUSDT?depth=2": json.loads(msgspec.json.encode(market.book(NAME, 2))),
        "GET /api/microstructure/BTCUSDT": features,
        "GET /api/history/microstructure/BTCUSDT?limit=3": market.history(NAME, 0, 3),
    }
    examples = re.findall(r"^`(GET \S+)`\n\n```json\n(.*?)```", (PROJECT / "docs" / "HTTP.md").read_text(), re.S | re.M)
    assert {request for request, _ in examples} == set(answers)
    for request, example in examples:
        assert alike(answers[request], json.loads(example)), request
    (example,) = blocks(README, "json")
    assert list(json.loads(example)) == list(features), "the market moves, its features have names"


def tree(text: str) -> Iterator[str]:
    """Yield the paths of an indented tree."""
    parents: list[str] = []
    for line in text.splitlines():
        name = line.split()[0]
        level = (len(line) - len(line.lstrip())) // 2
        parents[level:] = [name]
        yield "".join(parents)


def test_the_tree_of_the_architecture_is_the_tree() -> None:
    named = list(tree(blocks(PROJECT / "docs" / "ARCHITECTURE.md", "text")[0]))
    assert [path for path in named if not (PROJECT / path).exists()] == []
    package = PROJECT / "src" / "alphapack"
    modules = {path for path in package.rglob("*.py") if path.name != "__init__.py" or path.parent == package}
    assert {path.relative_to(PROJECT).as_posix() for path in modules} <= set(named)


def test_the_layers_and_contracts_of_the_architecture_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    text = (PROJECT / "docs" / "ARCHITECTURE.md").read_text()
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert "\n".join(layers) + "\n" in blocks(PROJECT / "docs" / "ARCHITECTURE.md", "text")
    table = text.partition("## Contracts")[2].partition("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == [contract["id"] for contract in contracts]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (document.parent / link).exists(), f"{document.name} links to {link}"
    for path in re.findall(r"`((?:tests|shell|engine|venues|services|models|kernels|domain|api)/[\w./]*)`", text):
        assert any((root / path).exists() for root in (PROJECT, PROJECT / "src" / "alphapack")), f"{document.name} names {path}"
    sections = "|".join(SETTINGS)
    for section, key in re.findall(rf"`({sections})\.(\w+)`", text):
        is_module = (PROJECT / "src" / "alphapack" / section / f"{key}.py").exists() or key == "py"
        assert key in SETTINGS[section] or is_module, f"{document.name} names the setting {section}.{key}"
    code = "\n".join(re.findall(r"```(?:sh|text)\n.*?```|`[^`\n]+`", text, re.S))
    for command in re.findall(r"\balphapack ([a-z]+)\b", code):
        assert command in list(cli.app), f"{document.name} names the command {command}"


def test_every_option_in_the_documents_exists(capsys: pytest.CaptureFixture[str]) -> None:
    helps = {}
    for command in cli.app:
        if not command.startswith("-"):
            cli.main([command, "--help"])
            helps[command] = capsys.readouterr().out
    every = " ".join(helps.values())
    named = re.findall(r"^.*?alphapack ([a-z]+)\b(.*)$", "\n".join(path.read_text() for path in DOCUMENTS), re.M)
    used = [(command, option) for command, rest in named if command in helps for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)]
    assert len(used) >= 4
    assert [(command, option) for command, option in used if option not in helps[command]] == []
    for option in re.findall(r"`(--[a-z][a-z-]*)", README.read_text()):
        assert option in every or option == "--help", option


def test_the_readme_lists_every_setting_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(\w+\.\w+)` \| (.+?) \|", README.read_text(), re.M))
    expected = {
        f"{section}.{key}": "not set" if value is None else f"`{json.dumps(value)}`"
        for section, values in SETTINGS.items()
        for key, value in values.items()
    }
    assert table == expected


def test_the_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| `alphapack (\w+)", README.read_text(), re.M)
    assert listed == [command for command in cli.app if not command.startswith("-")]


def test_every_feature_and_every_route_is_documented() -> None:
    features = (PROJECT / "docs" / "MICROSTRUCTURE.md").read_text()
    assert [name for name in (*FEATURES, *HISTORY) if name not in features and not name.startswith("depth_")] == []
    assert all(f"{side}_quote" in features for side in ("bid", "ask"))
    http = (PROJECT / "docs" / "HTTP.md").read_text().partition("## Routes")[2].partition("## ")[0]
    stated = {re.sub(r"\?.*", "", path) for path in re.findall(r"`(?:GET|POST) (\S+?)`", http)}
    served = {re.sub(r":\w+\}", "}", path).replace("{kind}", "microstructure") for route in ROUTES for path in route.paths}
    assert stated == served


def shown_replay(name: str) -> list[str]:
    """The lines that the README shows of a replay, but those that tell how long it took."""
    (shown,) = [block for block in blocks(README, "text") if f"alphapack replay {name}" in block]
    return [" ".join(line.split()) for line in shown.splitlines()[1:] if not line.startswith("span ")]


def printed_replay(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert cli.main(["replay", str(path)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if not line.startswith("span ")]


def test_the_replay_of_a_recording_in_the_readme_is_what_a_replay_prints(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "binance-usdm_BTCUSDT_20240808T2354.raw.gz"
    assert printed_replay(data / "captures" / name, capsys) == shown_replay(name)


def test_the_replay_of_the_simulator_in_the_readme_is_what_a_replay_prints(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed_replay(simulated, capsys) == shown_replay(simulated.name)
