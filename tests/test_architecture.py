"""Each rule of the architecture is seen to break: a rule that no planted violation breaks guards nothing."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
SCRIPTS = Path(sys.executable).parent
CONTRACTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

PURE = ("domain", "kernels", "models", "alphas", "policies", "services", "engine", "venues")

# Contract, what is planted in the package (a line at the end of a file), and whom the report must name.
VIOLATIONS = {
    "stray": ("layers", {"utils.py": ""}, ["alphapack.utils"]),
    "sideways": ("layers", {"shell/planted.py": "import alphapack.api"}, ["alphapack.shell.planted -> alphapack.api"]),
    "alpha": (
        "layers",
        {
            "alphas/planted.py": "import alphapack.services.planted\nimport alphapack.policies.planted",
            "policies/planted.py": "import alphapack.engine.digest",
            "services/planted.py": "",
        },
        [
            "alphapack.alphas.planted -> alphapack.services.planted",
            "alphapack.alphas.planted -> alphapack.policies.planted",
            "alphapack.policies.planted -> alphapack.engine.digest",
        ],
    ),
    "cycle": (
        "acyclic",
        {"shell/planted.py": "import alphapack.shell.plotted", "shell/plotted.py": "import alphapack.shell.planted"},
        ["No cycles are allowed in alphapack.shell"],
    ),
    "clock": (
        "pure",
        {**{f"{layer}/planted.py": "import time" for layer in PURE}, "plugin.py": "import time"},
        [*(f"alphapack.{layer}.planted -> time" for layer in PURE), "alphapack.plugin -> time"],
    ),
    "service": (
        "services",
        {"services/planted.py": "import alphapack.services.plotted", "services/plotted.py": ""},
        ["alphapack.services.planted -> alphapack.services.plotted"],
    ),
    "venue": (
        "venues",
        {"venues/planted.py": "import alphapack.venues.plotted", "venues/plotted.py": ""},
        ["alphapack.venues.planted -> alphapack.venues.plotted"],
    ),
    "kernel": (
        "kernels",
        {
            "kernels/planted.py": "",
            "api/planted.py": "import alphapack.kernels.wire",
            "venues/planted.py": "import alphapack.kernels.planted",
            "alphas/planted.py": "import alphapack.kernels.planted",
        },
        [
            "alphapack.api.planted -> alphapack.kernels.wire",
            "alphapack.venues.planted -> alphapack.kernels.planted",
            "alphapack.alphas.planted -> alphapack.kernels.planted",
        ],
    ),
    "compiler": ("numba", {"kernels/planted.py": "from numba import njit"}, ["alphapack.kernels.planted -> numba"]),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources and the rules, to plant violations in."""
    shutil.copytree(PROJECT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(tree: Path, files: dict[str, str]) -> None:
    for name, line in files.items():
        with (tree / "src" / "alphapack" / name).open("a") as file:
            file.write(f"{line}\n")


def run(tree: Path, script: str, *arguments: str) -> tuple[int, str]:
    """Run a linter in the copy, which its import path puts before the installed package."""
    environ = os.environ | {"PYTHONPATH": str(tree / "src"), "COLUMNS": "400", "NO_COLOR": "1"}
    ran = subprocess.run([SCRIPTS / script, *arguments], cwd=tree, env=environ, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def broken(report: str) -> set[str]:
    return {contract["id"] for contract in CONTRACTS if f"{contract['name']} BROKEN" in report}


def test_the_sources_keep_every_contract(tree: Path) -> None:
    code, report = run(tree, "lint-imports", "--no-cache")
    assert code == 0, report
    assert f"{len(CONTRACTS)} kept, 0 broken" in report


def test_every_contract_has_a_violation_to_break_it() -> None:
    assert {contract for contract, _, _ in VIOLATIONS.values()} == {contract["id"] for contract in CONTRACTS}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_planted_violation_breaks_its_contract_and_no_other(tree: Path, violation: str) -> None:
    contract, files, named = VIOLATIONS[violation]
    plant(tree, files)
    code, report = run(tree, "lint-imports", "--no-cache")
    assert code == 1, report
    assert broken(report) == {contract}, report
    assert [name for name in named if name not in report] == [], report


@pytest.mark.parametrize(
    "line",
    [
        "import time\n\nNOW = time.time_ns()",
        "from datetime import datetime\n\nNOW = datetime.now()",
        "import random",
        "import numpy as np\n\nCHANCE = np.random.default_rng()",
        "from uuid import uuid4\n\nNAME = uuid4()",
    ],
)
def test_calls_that_no_replay_could_repeat_are_banned_outside_the_shell(tree: Path, line: str) -> None:
    plant(tree, {"engine/planted.py": line, "shell/planted.py": line})
    code, report = run(tree, "ruff", "check", "--no-cache", "--select", "TID251", "--output-format", "concise", "src")
    assert code == 1, report
    assert "src/alphapack/engine/planted.py" in report
    assert "TID251" in report
    assert "src/alphapack/shell/planted.py" not in report


@pytest.mark.parametrize("package", ["alphas", "policies"])
def test_router_alpha_aware_what_is_built_in_imports_what_a_third_party_may(package: str) -> None:
    for path in (PROJECT / "src" / "alphapack" / package).glob("*.py"):
        named = re.findall(r"^(?:from|import) (alphapack[\w.]*)", path.read_text(), re.M)
        assert named and set(named) <= {"alphapack.plugin", f"alphapack.{package}"}, path.name


def test_importing_the_package_loads_no_numerics() -> None:
    script = """
import sys
import alphapack
assert "replay" in dir(alphapack) and alphapack.__version__
print(sorted({name.partition(".")[0] for name in sys.modules} & {"numpy", "numba", "llvmlite", "msgspec", "litestar"}))
print(alphapack.replay.__module__)
try:
    alphapack.repaly
except AttributeError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "[]",
        "alphapack.facade",
        "module 'alphapack' has no attribute 'repaly'; public names: "
        "Bandit, __version__, almgren_chriss, backtest, chain, expected_shortfall, forecast_vol, garch, har, impact_cost, implied_vol, "
        "max_drawdown, off_policy, replay, shapley, smile",
    ]
