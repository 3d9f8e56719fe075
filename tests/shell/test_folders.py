import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from alphapack.shell.folders import AlreadyRunning, EngineFolder, FolderError, Lock, data_dir, engines, reset, user_data_dir

HOLDER = """
import sys
from pathlib import Path
from alphapack.shell.folders import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"HOME": "/h"}, "/h/.local/share/alphapack"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "/d"}, "/d/alphapack"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "relative"}, "/h/.local/share/alphapack"),
        ("darwin", {"HOME": "/h", "XDG_DATA_HOME": "/d"}, "/h/Library/Application Support/alphapack"),
    ],
)
def test_each_system_has_its_own_place(platform: str, environ: dict[str, str], expected: str) -> None:
    assert user_data_dir(environ, platform) == Path(expected)


def test_the_configured_folder_is_made_and_a_hopeless_one_refused(tmp_path: Path) -> None:
    assert data_dir(str(tmp_path / "a" / "b"), {}, pytest.fail) == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="--data-dir"):
        data_dir(str(tmp_path / "file" / "below"), {}, pytest.fail)


def test_without_a_writable_home_state_goes_to_a_private_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "home").write_text("no folder")
    warnings: list[str] = []
    found = data_dir(None, {"HOME": str(tmp_path / "home")}, warnings.append)
    assert found.parent == tmp_path / "tmp"
    assert found.stat().st_mode & 0o777 == 0o700
    assert str(found) in warnings[0]
    assert "--data-dir" in warnings[0]
    assert data_dir(None, {"HOME": str(tmp_path / "home")}, warnings.append) == found, "the same at every start"
    found.chmod(0o777)
    other = data_dir(None, {"HOME": str(tmp_path / "home")}, warnings.append)
    assert other != found, "a folder that others can write is not trusted"
    assert other.stat().st_mode & 0o777 == 0o700


def test_an_engine_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = EngineFolder.of(tmp_path, "main")
    folder.create()
    assert folder.journal.is_dir()
    assert folder.checkpoints.is_dir()
    assert (folder.ledger, folder.lock) == (tmp_path / "main" / "ledger.sqlite", tmp_path / "main" / "lock")
    (tmp_path / "something else").mkdir()
    assert list(engines(tmp_path)) == [folder]
    assert list(engines(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", ".hidden", "x" * 65])
def test_an_engine_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(FolderError, match="engine name"):
        EngineFolder.of(tmp_path, name)


def test_a_second_owner_in_this_process_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock"):
        with pytest.raises(AlreadyRunning) as caught, Lock(tmp_path / "lock"):
            pytest.fail("two owners")
        assert (caught.value.pid, caught.value.folder) == (os.getpid(), tmp_path)
        assert str(os.getpid()) in str(caught.value)
        assert str(tmp_path) in str(caught.value)
    with Lock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    folder = EngineFolder.of(tmp_path, "main")
    folder.create()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(AlreadyRunning) as caught, Lock(folder.lock):
                pytest.fail("two owners")
            assert caught.value.pid == holder.pid
            with pytest.raises(AlreadyRunning):
                reset(folder)
            assert folder.journal.is_dir(), "a refused reset erases nothing"
        finally:
            holder.kill()
    with Lock(folder.lock):
        pass


def test_reset_erases_the_state_and_nothing_else(tmp_path: Path) -> None:
    folder = EngineFolder.of(tmp_path, "main")
    folder.create()
    (folder.journal / "00000000000000000001.seg").write_bytes(b"x")
    (folder.checkpoints / "7").write_bytes(b"x")
    folder.ledger.write_bytes(b"x")
    folder.ledger.with_name("ledger.sqlite-wal").write_bytes(b"x")
    kept = folder.root / "notes.txt"
    kept.write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    gone = reset(folder)
    assert sorted(path.name for path in gone) == ["checkpoints", "journal", "ledger.sqlite", "ledger.sqlite-wal"]
    assert sorted(path.name for path in folder.root.iterdir()) == ["lock", "notes.txt"]
    folder.journal.symlink_to(outside)
    (outside / "precious").write_text("x")
    assert reset(folder) == [folder.journal]
    assert (outside / "precious").exists(), "a link is removed, what it points to is not"
