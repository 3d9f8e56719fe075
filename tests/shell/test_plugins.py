"""Plugins from files and from installed packages: all that is right with them is taken, all that is wrong is said."""

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from alphapack.alphas import ALPHAS
from alphapack.models.alpha import AlphaContext, evaluate
from alphapack.models.policy import exposure_of, propose_safely
from alphapack.policies import POLICIES
from alphapack.shell import plugins
from alphapack.shell.plugins import PluginError, Plugins, load, new_alpha

ALPHA = """
from alphapack.plugin import alpha

@alpha(id="{0}", desc="d", inputs=("obi",), weight_init=0.1{1})
def signal(ctx):
    return ctx["obi"]
"""
POLICY = """
from alphapack.plugin import Target, policy

@policy(name="{0}", desc="d", listens="{1}")
def go(ctx, blend):
    return Target(blend)
"""


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Forget what a test has loaded."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_router_alpha_aware_without_plugins_there_is_what_is_built_in() -> None:
    assert load(packages=False) == Plugins() == Plugins(ALPHAS, POLICIES, ())


def test_router_alpha_aware_a_file_adds_its_alphas_and_policies_behind_the_builtin_ones(tmp_path: Path) -> None:
    text = ALPHA.format("mine", ', group="own"') + POLICY.format("own_way", "own")
    file, other = written(tmp_path, "my-alpha.py", text), written(tmp_path, "other.py", ALPHA.format("other", ""))
    found = load([file, other], packages=False)
    assert (found.alphas[: len(ALPHAS)], found.policies[: len(POLICIES)]) == (ALPHAS, POLICIES)
    assert [one.id for one in found.alphas[len(ALPHAS) :]] == ["mine", "other"]
    (own,) = found.policies[len(POLICIES) :]
    assert exposure_of(propose_safely(own, AlphaContext("s", 0, {}, {}, None), 0.25)) == 0.25
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (file, other)]
    assert found.fingerprint == (f"my-alpha.py {digests[0]}", f"other.py {digests[1]}")


def test_router_alpha_aware_a_fingerprint_goes_by_content_and_not_by_place(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    one, same = (written(folder, "one.py", ALPHA.format("mine", "")) for folder in (tmp_path, tmp_path / "elsewhere"))
    first = load([one], packages=False).fingerprint
    assert load([same], packages=False).fingerprint == first
    one.write_text(ALPHA.format("mine", "") + "# more\n")
    assert load([one], packages=False).fingerprint != first


def test_router_alpha_aware_a_plugin_is_executed_as_a_module_of_its_own(tmp_path: Path) -> None:
    text = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class State:
    half: float = 0.5

HALF = State()
"""
    text += ALPHA.format("mine", "").replace('ctx["obi"]', "HALF.half * ctx.z('obi')")
    one = load([written(tmp_path, "mine.py", text)], packages=False).alphas[-1]
    assert evaluate(one, AlphaContext("s", 0, {"obi": 0.1}, {"obi": 1.0}, one.inputs)) == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def broken(:\n    pass\n", r"plugin .*wrong\.py, line 1: expected Python, found a fault: invalid syntax"),
        ("a = 1\n\x00", r"expected Python, found a fault: source code string cannot contain null bytes"),
        ("def go():\n    return 1 / 0\n\ngo()\n", r"executed without an error: line 2: ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
        ("x = 1\n", "expected an alpha or a policy in it, found neither"),
        (ALPHA.format("Mine", ""), "line 4: ValueError: expected the id of an alpha to match"),
        (ALPHA.format("mine", "").replace('"obi"', '"obj"', 1), "found 'obj'; the nearest is 'obi'"),
        (ALPHA.format("smirk", ""), "expected an alpha of a new name, found 'smirk', which is in alphapack already"),
        (POLICY.format("momentum", "smile"), "expected a policy of a new name, found 'momentum', which is in alphapack already"),
        (ALPHA.format("mine", "") + ALPHA.format("mine", ""), r"found 'mine', which is in wrong\.py already"),
        (ALPHA.format("mine", ', group="breakuot"'), "alpha mine: expected a group to which a policy listens .* the nearest is 'breakout'"),
        ("\n".join(ALPHA.format(f"a{i}", ', group="smile"') for i in range(13)), "at most 16 alphas in a group, found 17 in 'smile'"),
        ("#" * 1_000_001, "expected at most 1,000,000 bytes"),
    ],
)
def test_router_alpha_aware_a_plugin_that_cannot_be_used_is_refused_and_leaves_nothing(tmp_path: Path, text: str, expected: str) -> None:
    before = set(sys.modules)
    with pytest.raises(PluginError, match=expected):
        load([written(tmp_path, "wrong.py", text)], packages=False)
    assert not [name for name in set(sys.modules) - before if "executed" in expected and name.startswith("alphapack_plugin_")]


def test_router_alpha_aware_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"absent\.py: expected a Python file, found none to read \(No such file or directory\)"):
        load([tmp_path / "absent.py"], packages=False)
    with pytest.raises(PluginError, match="expected a Python file, found a folder"):
        load([tmp_path], packages=False)
    with pytest.raises(PluginError, match="at most 64 plugins, found 65"):
        load([tmp_path / "absent.py"] * 65, packages=False)


def test_router_alpha_aware_an_id_may_stand_in_one_plugin_alone(tmp_path: Path) -> None:
    files = [written(tmp_path, name, ALPHA.format("mine", "")) for name in ("one.py", "two.py")]
    with pytest.raises(PluginError, match=r"plugin two\.py: expected an alpha of a new name, found 'mine', which is in one\.py already"):
        load(files, packages=False)


# Packages


def installed(site: Path, entries: str) -> None:
    folder = site / "third_party-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(entries)


def test_router_alpha_aware_installed_packages_are_found_by_their_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = ALPHA.format("from_package", ', group="own"') + POLICY.format("own_way", "own")
    module = written(tmp_path, "third_party_of_a_test.py", text)
    entry = "third = third_party_of_a_test\n"
    installed(tmp_path, f"[alphapack.alphas]\n{entry}[alphapack.policies]\n{entry}")
    file = written(tmp_path, "file.py", ALPHA.format("from_file", ""))
    found = load([file])
    assert [one.id for one in found.alphas[len(ALPHAS) :]] == ["from_package", "from_file"]
    assert [one.name for one in found.policies[len(POLICIES) :]] == ["own_way"]
    assert found.fingerprint[0] == f"third {hashlib.sha256(module.read_bytes()).hexdigest()[:16]}"
    assert load([file], packages=False).alphas[len(ALPHAS) :][0].id == "from_file"


def test_router_alpha_aware_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    installed(tmp_path, "[alphapack.alphas]\nthird = not_there_in_a_test\n")
    with pytest.raises(PluginError, match="plugin third: expected to import not_there_in_a_test: ModuleNotFoundError"):
        load()


# The text of a new alpha


def test_router_alpha_aware_the_text_of_a_new_alpha_is_a_plugin_that_works(tmp_path: Path) -> None:
    file = written(tmp_path, "my_first.py", new_alpha("my_first"))
    one = load([file], packages=False).alphas[-1]
    assert (one.id, one.group, one.weight_init, one.inputs) == ("my_first", "continuation", 0.05, ("ti_30s", "obi_1"))
    both = AlphaContext("s", 0, {"ti_30s": 0.4, "obi_1": 0.5}, {"ti_30s": 1.0, "obi_1": 2.0}, one.inputs)
    apart = AlphaContext("s", 0, {"ti_30s": 0.4, "obi_1": -0.5}, {"ti_30s": 1.0, "obi_1": -2.0}, one.inputs)
    assert (evaluate(one, both), evaluate(one, apart)) == (0.75, None)
    assert max(map(len, file.read_text().splitlines())) <= 140
    for other in ALPHAS:
        assert other.group in file.read_text()


@pytest.mark.parametrize("name", ["clip", "alpha", "class", "ctx", "taken", "a"])
def test_router_alpha_aware_a_new_alpha_works_whatever_its_name(tmp_path: Path, name: str) -> None:
    one = load([written(tmp_path, f"{name}.py", new_alpha(name))], packages=False).alphas[-1]
    ctx = AlphaContext("s", 0, {"ti_30s": 0.4, "obi_1": 0.5}, {"ti_30s": 1.0, "obi_1": 2.0}, one.inputs)
    assert (one.id, evaluate(one, ctx)) == (name, 0.75)


@pytest.mark.parametrize(
    ("name", "expected"), [("smirk", "which is built in"), ("My", "small letters"), ("", "small letters"), ("a.b", "small")]
)
def test_router_alpha_aware_a_name_that_no_alpha_can_have_is_refused(name: str, expected: str) -> None:
    with pytest.raises(PluginError, match=expected):
        new_alpha(name)


def test_router_alpha_aware_plugins_are_equal_by_what_they_hold() -> None:
    assert Plugins() != replace(Plugins(), fingerprint=("a.py 0",))
    assert plugins.GROUPS == ("alphapack.alphas", "alphapack.policies")


# What the documents say of it

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["ALPHAS.md", "POLICIES.md"])
def test_router_alpha_aware_the_plugins_in_the_documents_work(tmp_path: Path, page: str) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    found = load([written(tmp_path, "shown.py", text)], packages=False)
    raw, standard = {"ti_30s": 0.4, "vpin": 0.4, "micro_vol": 1e-4}, {"ti_30s": 1.0, "vpin": 1.0, "micro_vol": 0.0}
    if page == "ALPHAS.md":
        one = found.alphas[-1]
        assert evaluate(one, AlphaContext("s", 0, raw, standard, one.inputs)) == 0.5
    else:
        assert exposure_of(propose_safely(found.policies[-1], AlphaContext("s", 0, raw, standard, None), 0.125)) == 0.5


def test_router_alpha_aware_the_documents_list_every_builtin_alpha_and_policy() -> None:
    text = (DOCS / "ALPHAS.md").read_text(encoding="utf-8").partition("## The built-in ones")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| .* \| (.+?) \|$", text, re.M)
    assert sorted(id for id, _ in listed) == sorted(one.id for one in ALPHAS)
    years = {one.id: re.findall(r"\d{4}", one.source)[0] for one in ALPHAS}
    assert {id: source[-4:] for id, source in listed} == years
    text = (DOCS / "POLICIES.md").read_text(encoding="utf-8").partition("\n- ")[0]
    assert re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.M) == [(one.name, one.listens) for one in POLICIES]
