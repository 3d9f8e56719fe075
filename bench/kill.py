"""kill -9 at random moments: nothing that was acknowledged is lost, and the restart is quick.

    python bench/kill.py --kills 50 --capture FILE --speed 10

Each round starts ``alphapack serve``, asks ``/api/health`` without pause and kills the process at a seeded moment, now and
then before it is ready. What the last answer acknowledged must then be in the ledger (by a copy: rows equal, chain whole)
and in the journal or a checkpoint. The last start plays to the end, and its digest must be that of ``alphapack replay``.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import alphapack
from alphapack import app
from alphapack.config import Settings
from alphapack.engine.ports import LedgerRow
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.journal import read_journal
from alphapack.shell.ledger import LedgerError, SqliteLedger
from alphapack.shell.recovery import ledger_rows

START_S = 60.0
"""Longest wait for a first answer: kernels may have to be compiled."""
STOP_S = 10.0
STARTUP_SHARE = 0.25
"""Share of the kills that come while the process starts."""
STARTUP_S, PLAY_S = 1.2, 1.5
"""Longest time to a kill, from the start and from readiness."""
POLL_S = 0.003
RESTART_GOAL_S = 2.0


class Served:
    """An ``alphapack serve`` in a process of its own; leaving the block ends it, however it went."""

    def __init__(
        self, captures: Sequence[Path], data: Path, speed: str, *, named: bool = True, wrapper: Sequence[str] = (), **environ: str
    ) -> None:
        """Start it; with ``named`` false the folder is not told, and only the log goes beside it."""
        source = str(Path(alphapack.__file__).parents[1])
        self.log = data.parent / f"{data.name}.log"
        self.started_s = time.perf_counter()
        command = [*wrapper, sys.executable, "-m", "alphapack", "serve", *(["--data-dir", str(data)] if named else [])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--speed", speed, "--port", "0", "--capture", *map(str, captures)],
                env={**os.environ, "PYTHONPATH": source, "ALPHAPACK__LOG__JSON": "true", **environ},
                cwd=data.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._port = 0

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        found = []
        for line in self.log.read_bytes().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def get(self, path: str = "/api/health") -> tuple[int, dict[str, str], Any] | None:
        """Return status, headers and document of one answer; None while nobody answers."""
        if not self._port:
            urls = [line["url"] for line in self.lines if isinstance(line, dict) and line.get("event") == "serving"]
            if not urls:
                return None
            self._port = int(urls[0].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(answer.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return None
        finally:
            connection.close()

    def answers(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Yield one health answer after the other; empty ones while nobody answers."""
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s and self.process.poll() is None:
            answer = self.get()
            yield answer[2] if answer is not None else {}
            time.sleep(POLL_S)

    def wait(self, what: Callable[[dict[str, Any]], bool], seconds: float = START_S) -> dict[str, Any]:
        """Return the first health answer of which ``what`` holds."""
        for health in self.answers(seconds):
            if health and what(health):
                return health
        raise TimeoutError(f"no such answer within {seconds} s (exit code {self.process.poll()}):\n{self.log.read_text()[-2_000:]}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = STOP_S) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_S)


@dataclass
class Truth:
    """What an engine that is never stopped makes of the recording."""

    digest: str
    rows: list[LedgerRow]
    inputs: int

    @classmethod
    def of(cls, captures: Sequence[Path]) -> "Truth":
        rows: list[LedgerRow] = []
        engine = app.build()
        for entry, records in app.steps(engine, app.record_of(list(captures), Settings(), None, lambda text: None)):
            rows += ledger_rows(entry, records)
        return cls(engine.hexdigest(), rows, engine.seq)


@dataclass
class Outcome:
    """What the kills did."""

    kills: int = 0
    kills_before_ready: int = 0
    lost_rows: int = 0
    lost_inputs: int = 0
    broken_chains: int = 0
    rows_compared: int = 0
    restarts_s: list[float] = field(default_factory=list)
    acknowledged_seq: int = 0
    ended_seq: int = 0
    digest: str = ""
    expected_digest: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.digest == self.expected_digest and not (self.lost_rows or self.lost_inputs or self.broken_chains)

    def __str__(self) -> str:
        times = sorted(self.restarts_s) or [0.0]
        return (
            f"{'ok' if self.ok else 'FAILED'}: {self.kills} kills ({self.kills_before_ready} before ready), lost rows {self.lost_rows}, "
            f"lost inputs {self.lost_inputs}, broken chains {self.broken_chains}, rows compared {self.rows_compared}; "
            f"restart to serving median {times[len(times) // 2]:.2f} s, worst {times[-1]:.2f} s (goal {RESTART_GOAL_S} s); "
            f"ended at seq {self.ended_seq}, digest {'equal' if self.digest == self.expected_digest else 'DIFFERENT'}"
        )


def examine(data: Path, truth: Truth, acknowledged_seq: int, acknowledged_rows: int, outcome: Outcome) -> None:
    """Hold what is on disk after a kill against what was acknowledged before it; the files themselves are not touched."""
    folders = [folder for folder in data.iterdir() if folder.is_dir()] if data.is_dir() else []
    if not folders:
        outcome.lost_rows += acknowledged_rows
        outcome.lost_inputs += acknowledged_seq
        return
    with tempfile.TemporaryDirectory(prefix="alphapack-kill-") as name:
        copy = Path(shutil.copytree(folders[0], Path(name) / folders[0].name))
        rows: list[LedgerRow] = []
        if (copy / "ledger.sqlite").is_file():
            try:
                ledger = SqliteLedger(copy / "ledger.sqlite", engine=copy.name)
                try:
                    ledger.verify()
                    rows = list(ledger.rows())
                finally:
                    ledger.close()
            except LedgerError as error:
                outcome.broken_chains += 1
                outcome.notes.append(str(error))
        expected = [row for row in truth.rows if row.seq <= acknowledged_seq]
        lost = sum(found != row for found, row in zip(rows, expected, strict=False)) + max(0, len(expected) - len(rows))
        lost = max(lost, acknowledged_rows - len(rows))
        if rows != truth.rows[: len(rows)]:
            outcome.notes.append(f"after kill {outcome.kills} the ledger's {len(rows)} rows are not the first ones of the replay")
            lost = max(lost, 1)
        outcome.lost_rows += lost
        outcome.rows_compared += len(rows)
        last = 0
        if any((copy / "journal").glob("*.seg")):
            for entry in read_journal(copy / "journal", report=lambda text: None):
                last = entry.seq
        newest = FileCheckpoints(copy / "checkpoints", report=lambda text: None).newest()
        outcome.lost_inputs += max(0, acknowledged_seq - max(last, newest[0] if newest is not None else 0))


def run(
    captures: Sequence[Path],
    data: Path,
    kills: int,
    *,
    speed: str = "10",
    seed: int = 7,
    play_s: float = PLAY_S,
    startup_s: float = STARTUP_S,
    tell: Callable[[str], None] = lambda text: None,
    **environ: str,
) -> Outcome:
    """Kill ``kills`` times, then play to the end."""
    chance = random.Random(seed)
    truth = Truth.of(captures)
    outcome = Outcome(expected_digest=truth.digest)
    acknowledged_rows = 0
    for _ in range(kills):
        before_ready = chance.random() < STARTUP_SHARE
        left_s = chance.uniform(0.0, startup_s if before_ready else play_s)
        with Served(captures, data, speed, **environ) as served:
            kill_at_s = served.started_s + left_s if before_ready else None
            ready = False
            for health in served.answers(START_S):
                now_s = time.perf_counter()
                if health:
                    is_back = health["status"] in ("ready", "ended") and health["ledger"]["seq"] >= outcome.acknowledged_seq
                    if is_back and not ready:
                        ready = True
                        outcome.restarts_s.append(now_s - served.started_s)
                        kill_at_s = kill_at_s or now_s + left_s
                    outcome.acknowledged_seq = max(outcome.acknowledged_seq, health["ledger"]["durable_seq"])
                    acknowledged_rows = max(acknowledged_rows, health["ledger"]["rows"])
                if kill_at_s is not None and now_s >= kill_at_s:
                    break
            else:
                raise TimeoutError(f"not ready within {START_S} s (exit code {served.process.poll()}):\n{served.log.read_text()[-2_000:]}")
            served.process.kill()
            served.process.wait(STOP_S)
        outcome.kills += 1
        outcome.kills_before_ready += not ready
        examine(data, truth, outcome.acknowledged_seq, acknowledged_rows, outcome)
        tell(f"kill {outcome.kills}: acknowledged seq {outcome.acknowledged_seq} of {truth.inputs}, rows {acknowledged_rows}")
    with Served(captures, data, "max", **environ) as served:
        first = served.wait(lambda health: health["status"] in ("ready", "ended"))
        outcome.restarts_s.append(time.perf_counter() - served.started_s)
        if first["ledger"]["seq"] < outcome.acknowledged_seq:
            outcome.notes.append(f"the last start began at seq {first['ledger']['seq']}")
        ended = served.wait(lambda health: health["status"] == "ended" and health["ledger"]["durable_seq"] == health["ledger"]["seq"])
        outcome.digest, outcome.ended_seq = ended["digest"], ended["ledger"]["seq"]
        code = served.stop()
        if code:
            outcome.notes.append(f"the last stop had exit code {code}")
    examine(data, truth, outcome.ended_seq, len(truth.rows), outcome)
    return outcome


def replayed(captures: Sequence[Path]) -> str:
    """Return the digest that ``alphapack replay`` prints."""
    source = str(Path(alphapack.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-m", "alphapack", "replay", *map(str, captures), "--json"],
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    digest: str = json.loads(ran.stdout)["digest"]
    return digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--capture", type=Path, nargs="+", required=True)
    parser.add_argument("--speed", default="10", help="times real time until the last start, which plays as fast as it goes")
    parser.add_argument("--seed", type=int, default=7, help="of the moments")
    parser.add_argument("--data-dir", type=Path, help="kept afterwards; a temporary one where left out")
    arguments = parser.parse_args()
    captures = [path.absolute() for path in arguments.capture]
    with tempfile.TemporaryDirectory(prefix="alphapack-kill-") as name:
        data = arguments.data_dir.absolute() if arguments.data_dir else Path(name) / "state"
        data.mkdir(parents=True, exist_ok=True)
        outcome = run(
            captures, data, arguments.kills, speed=arguments.speed, seed=arguments.seed, tell=lambda text: print(text, file=sys.stderr)
        )
    outcome.expected_digest = replayed(captures)
    print(outcome)
    print(json.dumps({"ok": outcome.ok, **asdict(outcome)}))
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
