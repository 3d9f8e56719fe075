"""What all tests share: seeded properties, the recorded market data, a home of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

# Compiling a kernel inside the first example would break any deadline, and an unseeded failure cannot be repeated.
settings.register_profile("alphapack", deadline=None, derandomize=True)
settings.load_profile("alphapack")

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the recorded market data: ``ALPHAPACK_DATA``, by default ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("ALPHAPACK_DATA") or PROJECT.parent / "shared" / "data")
    if not folder.is_dir():
        reason = f"expected the recorded market data in {folder}, found no such folder; set ALPHAPACK_DATA to where it is"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return folder


@pytest.fixture(autouse=True)
def _log_as_at_first() -> Iterator[None]:
    """Undo what a command set up: its stream is the test's own and is closed with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home with no settings in the environment; compiled kernels are still shared."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("ALPHAPACK__") or name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    for name in ("HOME",):
        monkeypatch.setenv(name, str(folder))
    return folder
