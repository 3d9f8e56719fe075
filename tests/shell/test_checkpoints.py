from pathlib import Path

import pytest

from alphapack.shell import checkpoints as checkpoints_module
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.journal import write_all


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, reports: list[str]) -> FileCheckpoints:
    return FileCheckpoints(tmp_path / "checkpoints", report=reports.append)


def file_of(store: FileCheckpoints, seq: int) -> Path:
    return store.folder / f"{seq:020d}.ckpt"


def test_the_newest_three_are_kept_and_the_newest_is_returned(store: FileCheckpoints) -> None:
    assert store.newest() is None and store.oldest_kept == 0
    for seq in (10, 20, 30, 40):
        store.write(seq, b"state of %d" % seq * 100)
    assert store.seqs() == [20, 30, 40] and store.oldest_kept == 20
    assert store.newest() == (40, b"state of 40" * 100)
    assert store.newest(before_seq=40) == (30, b"state of 30" * 100)
    assert store.newest(before_seq=20) is None
    assert FileCheckpoints(store.folder).newest() == store.newest()


def test_an_empty_state_and_a_state_written_twice_come_back(store: FileCheckpoints) -> None:
    store.write(5, b"")
    assert store.newest() == (5, b"")
    store.write(5, b"again")
    assert store.newest() == (5, b"again") and store.seqs() == [5]


def test_any_damage_is_reported_and_the_one_before_is_returned(store: FileCheckpoints, reports: list[str]) -> None:
    store.write(10, b"older")
    store.write(20, bytes(range(100)))
    path = file_of(store, 20)
    good = path.read_bytes()
    damages = [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(len(good))]
    damages += [good[:at] for at in range(len(good))] + [good + b"\0"]
    for content in damages:
        path.write_bytes(content)
        reports.clear()
        assert store.newest() == (10, b"older")
        assert len(reports) == 1 and str(path) in reports[0]
    file_of(store, 10).write_bytes(b"")
    assert store.newest() is None


def test_a_checkpoint_under_another_name_is_not_taken_for_it(store: FileCheckpoints, reports: list[str]) -> None:
    store.write(10, b"older")
    file_of(store, 10).rename(file_of(store, 11))
    assert store.newest() is None and "seq 11" in reports[0] and "seq 10" in reports[0]


def test_states_later_than_the_one_written_belong_to_a_course_given_up(store: FileCheckpoints) -> None:
    for seq in (10, 20, 30):
        store.write(seq, b"first course")
    file_of(store, 30).write_bytes(b"damaged")
    store.write(25, b"second course")
    assert store.seqs() == [10, 20, 25] and store.newest() == (25, b"second course")


def test_a_disk_that_refuses_leaves_the_older_ones_and_no_trace(store: FileCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    for seq in (10, 20, 30):
        store.write(seq, b"good")
    monkeypatch.setattr(checkpoints_module, "sync_file", refuse)
    with pytest.raises(OSError, match="No space"):
        store.write(40, b"lost")
    assert sorted(path.name for path in store.folder.iterdir()) == [file_of(store, seq).name for seq in (10, 20, 30)]


def test_a_disk_that_returns_something_else_is_noticed_before_older_ones_go(
    store: FileCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(fd: int, content: bytes) -> None:
        write_all(fd, content[:-1] + bytes([content[-1] ^ 1]))

    for seq in (10, 20, 30):
        store.write(seq, b"good")
    monkeypatch.setattr(checkpoints_module, "write_all", corrupt)
    with pytest.raises(OSError, match="did not read back"):
        store.write(40, b"bad")
    assert store.seqs() == [10, 20, 30] and store.newest() == (30, b"good")


def test_what_a_crash_left_half_written_is_removed_at_start(store: FileCheckpoints) -> None:
    store.write(10, b"good")
    part = store.folder / f"{20:020d}.ckpt.part"
    part.write_bytes(b"half")
    again = FileCheckpoints(store.folder)
    assert not part.exists() and again.seqs() == [10]
