"""What was acknowledged is on the disk: seen by killing the process, and by the order of its system calls."""

import re
import shutil
import struct
import subprocess
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alphapack.shell.ledger import SqliteLedger
from rig import MS, market_lines, script, spoil, write_capture

kill = script("kill")

NAMES = ("BTCUSDT", "ETHUSDT")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Twenty seconds with much for the ledger."""
    return write_capture(tmp_path, spoil(market_lines(1_000, names=NAMES, step_ns=20 * MS), every=30))


def test_kill_9_loses_nothing_that_was_acknowledged(capture: Path, tmp_path: Path) -> None:
    data = tmp_path / "state"
    data.mkdir()
    outcome = kill.run([capture], data, 4, speed="8", seed=3, play_s=0.6, ALPHAPACK__STORAGE__CHECKPOINT_INPUTS="150")
    assert outcome.ok, f"{outcome}\n{outcome.notes}"
    assert outcome.notes == []
    assert outcome.kills == 4 and 0 < outcome.acknowledged_seq <= outcome.ended_seq
    assert outcome.rows_compared > 30


def test_a_loss_is_seen(capture: Path, tmp_path: Path) -> None:
    """The examination itself is worth something: rows or inputs taken from the disk are missed."""
    data = tmp_path / "state"
    data.mkdir()
    outcome = kill.run([capture], data, 0, speed="max")
    assert outcome.ok and outcome.rows_compared > 30
    truth = kill.Truth.of([capture])
    folder = next(folder for folder in data.iterdir() if folder.is_dir())

    def examined(damage: str) -> object:
        copy = tmp_path / damage
        shutil.copytree(folder, copy / folder.name)
        state = copy / folder.name
        if damage == "rows":
            state.joinpath("ledger.sqlite").unlink()
            ledger = SqliteLedger(state / "ledger.sqlite", engine=folder.name)
            ledger.append(truth.rows[:-1])
            ledger.close()
        elif damage == "inputs":
            shutil.rmtree(state / "checkpoints")
            segment = sorted((state / "journal").glob("*.seg"))[-1]
            segment.write_bytes(segment.read_bytes()[:-9])
        elif damage == "chain":
            content = bytearray((state / "ledger.sqlite").read_bytes())
            at = content.rfind(b"frame_rejected")
            content[at] ^= 1
            (state / "ledger.sqlite").write_bytes(content)
        else:
            shutil.rmtree(state)
        found = kill.Outcome(digest="x", expected_digest="x")
        kill.examine(copy, truth, truth.inputs, len(truth.rows), found)
        assert not found.ok, damage
        return found.lost_rows > 0, found.lost_inputs > 0, found.broken_chains > 0

    assert {damage: examined(damage) for damage in ("rows", "inputs", "chain", "everything")} == {
        "rows": (True, False, False),
        "inputs": (False, True, False),
        "chain": (True, False, True),
        "everything": (True, True, False),
    }


def test_execution_planner_a_loss_beside_trading_is_seen(capture: Path, tmp_path: Path) -> None:
    """What a desk was told and the ledger does not hold is missed, whichever way it was told."""
    data = tmp_path / "state"
    data.mkdir()
    outcome = kill.run([capture], data, 0, speed="max")
    folder = next(folder for folder in data.iterdir() if folder.is_dir())
    rows = kill.Truth.of([capture]).rows
    told = {
        (row.seq, row.ordinal): (row.kind, b'{"seq":%d,"ts_ms":%d,%b' % (row.seq, row.ts_ns // MS, row.body[1:]))
        for row in rows
        if row.kind != "book_state"  # Their states are told by name.
    }
    key, (kind, body) = next(iter(told.items()))

    def examined(**acknowledged: object) -> tuple[int, int, int]:
        desk, found = kill.Desk(), kill.Outcome(acknowledged_seq=outcome.ended_seq, acknowledged_rows=len(rows))
        desk.events = dict(told)
        desk.events |= acknowledged.get("events", {})
        desk.reports |= acknowledged.get("reports", {})
        found.acknowledged_rows += acknowledged.get("rows", 0)
        found.acknowledged_seq += acknowledged.get("inputs", 0)
        assert kill.examine_trading(folder, desk, acknowledged.get("before", []), found) == rows
        return found.lost_rows, found.lost_inputs, found.events

    assert examined() == (0, 0, len(told)) and examined(before=rows[:3])[1:] == (0, len(told))
    assert examined(events={(key[0], key[1] + 50): (kind, body)})[0] == 1
    assert examined(events={key: ("fill", body)})[0] == 1
    assert examined(events={key: (kind, body.replace(b":", b": ", 3))})[0] == 1
    assert examined(reports={"fill-1": {"seq": key[0]}})[0] == 1
    assert examined(rows=2)[0] == 2
    assert examined(inputs=7)[1] == 7
    assert examined(before=[*rows[:4], rows[5]])[0] >= 1


# The order of system calls

CALL = re.compile(r"^(?P<thread>\d+)\s+(?P<name>\w+)\((?P<rest>.*)$")
RESUMED = re.compile(r"^(?P<thread>\d+)\s+<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
FILE = re.compile(r"^\d+<(?P<file>(?:\\x[0-9a-f]{2})*)>")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
BLOCK = struct.Struct("<IQQ16s")
"""A journal block's header: length, first seq, last seq, check."""
HEADER = b"alphapack-journal "


@dataclass(frozen=True)
class Call:
    name: str
    file: str
    content: bytes
    began: int
    ended: int
    """Places in the trace."""


def calls(trace: Path) -> Iterator[Call]:
    """Read a trace of several threads; a call that others interrupted in it ends where it is resumed."""
    open_calls: dict[str, tuple[int, str, str]] = {}
    for place, line in enumerate(trace.read_text(errors="replace").splitlines()):
        resumed, call = RESUMED.match(line), CALL.match(line)
        if resumed is not None:
            began, name, rest = open_calls.pop(resumed["thread"])
            rest += resumed["rest"]
        elif call is not None:
            began, name, rest = place, call["name"], call["rest"]
            if rest.endswith("<unfinished ...>"):
                open_calls[call["thread"]] = began, name, rest
                continue
        else:
            continue
        file = FILE.match(rest)
        content = b"".join(map(unescaped, TEXT.findall(rest)))
        yield Call(name, unescaped(file["file"]).decode() if file else "", content, began, place)


def unescaped(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def last_seq(content: bytes) -> int:
    """The last seq of the block whose beginning was written, after the header line where it begins a segment."""
    if content.startswith(HEADER):
        content = content.partition(b"\n")[2]
    seq: int = BLOCK.unpack_from(content)[2]
    return seq


@pytest.mark.skipif(shutil.which("strace") is None, reason="expected strace on the path, found none")
def test_no_answer_claims_what_was_not_synced(capture: Path, tmp_path: Path) -> None:
    """Each ``X-Alphapack-Durable-Seq`` leaves after the journal's sync that covers it, and after the ledger's behind that."""
    trace, data = tmp_path / "trace", tmp_path / "state"
    data.mkdir()
    strace = ["strace", "-f", "-y", "-xx", "-s", "512", "-o", str(trace), "--seccomp-bpf"]
    strace += ["-e", "trace=fdatasync,fsync,write,pwrite64,sendto,sendmsg,writev"]
    if subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("expected to be allowed to trace processes, found that strace cannot")
    with kill.Served([capture], data, "8", wrapper=strace) as served:
        served.wait(lambda health: health["status"] == "ended" and health["ledger"]["durable_seq"] == health["ledger"]["seq"])
        child = int(subprocess.run(["pgrep", "-P", str(served.process.pid)], capture_output=True, text=True, check=True).stdout.split()[0])
        subprocess.run(["kill", "-TERM", str(child)], check=True)
        assert served.process.wait(30) == 0

    journal_syncs: list[tuple[int, int]] = []
    """(place at which it was over, last seq that it covers), rising in both."""
    ledger_syncs: list[int] = []
    answers: list[tuple[int, int]] = []
    """(place at which it began, seq it claims)."""
    written = 0
    for call in sorted(calls(trace), key=lambda one: one.began):
        if call.file.endswith(".seg"):
            if call.name == "write":
                written = last_seq(call.content)
            elif call.name in ("fdatasync", "fsync"):
                journal_syncs.append((call.ended, written))
        elif call.file.endswith(".sqlite-wal") and call.name in ("fdatasync", "fsync"):
            ledger_syncs.append(call.ended)
        claim = re.search(rb"x-alphapack-durable-seq: (\d+)", call.content, re.IGNORECASE)
        if claim is not None and call.content.startswith(b"HTTP/1.1"):
            answers.append((call.began, int(claim[1])))
    assert len({seq for _, seq in answers}) > 10, "it was asked while it played"
    assert journal_syncs == sorted(journal_syncs) and len(journal_syncs) > 10

    covered = [seq for _, seq in journal_syncs]

    def durable_at(seq: int) -> int:
        """Where in the trace the journal's sync of this seq was over."""
        return journal_syncs[bisect_left(covered, seq)][0]

    for place, seq in answers:
        if seq:
            assert durable_at(seq) < place, f"seq {seq} was claimed before the journal was synced"

    folder = next(folder for folder in data.iterdir() if folder.is_dir())
    ledger = SqliteLedger(folder / "ledger.sqlite", engine=folder.name)
    rows = sorted({row.seq for row in ledger.rows()})
    ledger.close()
    proven = 0
    for seq in rows:
        first = next((place for place, claim in answers if claim >= seq), None)
        if first is not None:
            after = durable_at(seq)
            assert any(after < place < first for place in ledger_syncs), f"the rows of seq {seq} were claimed before the ledger was synced"
            proven += 1
    assert proven > 10
