"""Where compiled kernels are kept, and that nothing stale or foreign is ever loaded from there."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from alphapack import jit

CALLEE = "from alphapack.jit import njit\n\n\n@njit\ndef weight(x: float) -> float:\n    return {factor} * x\n"
CALLER = """from alphapack.jit import njit
from alphapack.kernels.callee import weight


@njit
def twice(x: float) -> float:
    return 2.0 * weight(x)
"""
CALL = """from alphapack.kernels.caller import twice
print(twice(1.5), sum(twice.stats.cache_hits.values()) if hasattr(twice, "stats") else "interpreted")
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, made anew."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to change its kernels."""
    return Path(shutil.copytree(jit.PACKAGE, tmp_path / "alphapack", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose user has a home and no wishes."""
    folder = tmp_path / "home"
    folder.mkdir()
    return {"HOME": str(folder)}


def test_the_users_own_folder_is_left_as_it_is(tmp_path: Path) -> None:
    assert jit.cache_folder(jit.PACKAGE, {"NUMBA_CACHE_DIR": str(tmp_path / "mine")}) == tmp_path / "mine"
    assert list(tmp_path.iterdir()) == []


def test_kernels_are_kept_in_the_users_cache(environ: dict[str, str], temporary: Path) -> None:
    folder = jit.cache_folder(jit.PACKAGE, environ)
    assert folder is not None
    assert folder.is_relative_to(environ["HOME"])
    assert folder.name == jit.fingerprint(jit.PACKAGE, environ)
    assert folder.parts[-3:-1] == ("alphapack", "numba")
    assert list(temporary.iterdir()) == []


def test_the_cache_home_of_the_desktop_standard_wins(environ: dict[str, str], tmp_path: Path) -> None:
    folder = jit.cache_folder(jit.PACKAGE, environ | {"XDG_CACHE_HOME": str(tmp_path / "xdg")})
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "xdg")
    relative = jit.cache_folder(jit.PACKAGE, environ | {"XDG_CACHE_HOME": "xdg"})
    assert relative is not None
    assert relative.is_relative_to(environ["HOME"])


@pytest.mark.parametrize("home", ["missing", "file/below"])
def test_without_a_home_that_can_be_written_the_temporary_folder_serves(tmp_path: Path, temporary: Path, home: str) -> None:
    (tmp_path / "file").touch()
    folder = jit.cache_folder(jit.PACKAGE, {"HOME": str(tmp_path / home)})
    assert folder is not None
    assert folder.parent.parent == temporary
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("spoil", ["writable by others", "a link", "owned by another"])
def test_a_folder_that_another_could_fill_is_not_trusted(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    environ = {"HOME": str(tmp_path / "missing")}
    trusted = jit.cache_folder(jit.PACKAGE, environ)
    assert trusted is not None
    root = trusted.parent
    if spoil == "writable by others":
        root.chmod(0o777)
    elif spoil == "a link":
        root.rename(temporary / "elsewhere")
        root.symlink_to(temporary / "elsewhere")
    else:
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
        root.rename(temporary / f"alphapack-numba-{other}")
    assert jit.cache_folder(jit.PACKAGE, environ) is None


def test_a_changed_kernel_gets_a_new_folder(package: Path, environ: dict[str, str]) -> None:
    before = jit.fingerprint(package, environ)
    assert before == jit.fingerprint(jit.PACKAGE, environ)
    with (package / "kernels" / "wire.py").open("a") as file:
        file.write("# One more line.\n")
    changed = jit.fingerprint(package, environ)
    (package / "kernels" / "planted.py").touch()
    assert len({before, changed, jit.fingerprint(package, environ), jit.fingerprint(package, environ | {"NUMBA_OPT": "0"})}) == 4


def test_a_change_elsewhere_keeps_the_compiled_kernels(package: Path, environ: dict[str, str]) -> None:
    before = jit.fingerprint(package, environ)
    with (package / "domain" / "market.py").open("a") as file:
        file.write("# One more line.\n")
    assert jit.fingerprint(package, environ) == before


def test_a_few_folders_unused_for_a_month_are_removed(environ: dict[str, str]) -> None:
    current = jit.cache_folder(jit.PACKAGE, environ)
    assert current is not None
    month_ago_s = current.stat().st_mtime - jit.UNUSED_S_MAX - 60
    old = [current.parent / f"{number:032x}" for number in range(jit.PRUNED_MAX + 1)]
    kept = [current.parent / ("f" * 32), current.parent / "notes"]
    for folder in [*old, *kept]:
        folder.mkdir(parents=True)
    for folder in [*old, current.parent / "notes", current]:
        os.utime(folder, (month_ago_s, month_ago_s))
    assert jit.cache_folder(jit.PACKAGE, environ) == current
    assert [folder.exists() for folder in old] == [False] * jit.PRUNED_MAX + [True]
    assert all(folder.exists() for folder in [*kept, current])


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert jit.cache_folder(jit.PACKAGE, {"HOME": str(tmp_path / "missing")}) is None


def call(package: Path, environ: dict[str, str]) -> str:
    """Call the planted kernel in a new interpreter."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    environ = inherited | environ | {"PYTHONPATH": str(package.parent)}
    return subprocess.run([sys.executable, "-c", CALL], env=environ, capture_output=True, text=True, check=True).stdout.strip()


def test_compiled_kernels_are_loaded_again_until_one_that_they_call_changes(package: Path, environ: dict[str, str]) -> None:
    (package / "kernels" / "caller.py").write_text(CALLER)
    (package / "kernels" / "callee.py").write_text(CALLEE.format(factor=3.0))
    assert call(package, environ) == "9.0 0"
    assert call(package, environ) == "9.0 1"
    (package / "kernels" / "callee.py").write_text(CALLEE.format(factor=5.0))
    assert call(package, environ) == "15.0 0"
    assert call(package, environ | {"NUMBA_DISABLE_JIT": "1"}) == "15.0 interpreted"
