"""kill -9 at random moments: nothing that was acknowledged is lost, and the restart is quick.

    python bench/kill.py --kills 200
    python bench/kill.py --kills 50 --capture FILE --speed 10

Each round starts ``alphapack serve``, asks ``/api/health`` without pause and kills the process at a seeded moment, now and
then before it is ready. What was acknowledged must then be in the ledger (by a copy: rows equal, chain whole) and in the
journal or a checkpoint.

With a recording the last start plays to the end. Without one the simulator is traded, much faster than a user would, and a
client reads, follows the stream of events and reports fills of its own: an answer, a header or an event acknowledges what it
tells. The last start is stopped in order. Either way the digest in the end must be that of ``alphapack replay``, which never
stops; of the simulator each start's first digest and every row of the ledger must be the replay's too.
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
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

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
READ_S = 0.02
"""Between two questions of one of the threads that trade."""
RESTART_GOAL_S = 2.0
PAST_S = 600.0
"""Longest wait for the simulator's first start, which makes an hour of trading."""
TRADING = {"ALPHAPACK__ROUTER__INTERVAL_S": "2", "ALPHAPACK__ROUTER__HORIZON_S": "4"}
"""So that much is decided, ordered, filled and closed between two kills."""
TRADED = "decision,sizing,plan,order,fill,cross,trade,outside_fill"
READS = ("/api/exec/orders?limit=50", "/api/exec/fills?limit=50", "/api/trades?limit=50", "/api/portfolio")
LOOP = 10_000_000


class Served:
    """An ``alphapack serve`` in a process of its own; leaving the block ends it, however it went."""

    def __init__(
        self, captures: Sequence[Path], data: Path, speed: str, *, named: bool = True, wrapper: Sequence[str] = (), **environ: str
    ) -> None:
        """Start it, on the simulator where there are no captures; ``named`` false: the folder is not told, the log goes beside it."""
        source = str(Path(alphapack.__file__).parents[1])
        self.log = data.parent / f"{data.name}.log"
        self.started_s = time.perf_counter()
        command = [*wrapper, sys.executable, "-m", "alphapack", "serve", *(["--data-dir", str(data)] if named else [])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", "0", *(["--speed", speed, "--capture", *map(str, captures)] if captures else [])],
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

    def connected(self) -> http.client.HTTPConnection | None:
        """Return a connection that is yet to be made; None before it is known where to."""
        if not self._port:
            urls = [line["url"] for line in self.lines if isinstance(line, dict) and line.get("event") == "serving"]
            if not urls:
                return None
            self._port = int(urls[0].rpartition(":")[2])
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)

    def get(self, path: str = "/api/health", post: Mapping[str, Any] | None = None) -> tuple[int, dict[str, str], Any] | None:
        """Return status, headers and document of one answer; None while nobody answers. With ``post`` that is posted."""
        connection = self.connected()
        if connection is None:
            return None
        try:
            if post is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(post), {"Content-Type": "application/json"})
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
    digests: dict[int, str] = field(default_factory=dict)
    """After the inputs that were asked for."""

    @classmethod
    def of(cls, captures: Sequence[Path], at: Collection[int] = ()) -> "Truth":
        """Step recordings, or a journal, from the first input to the last."""
        rows: list[LedgerRow] = []
        digests: dict[int, str] = {}
        engine = app.build()
        for entry, records in app.steps(engine, app.record_of(list(captures), Settings(), None, lambda text: None)):
            rows += ledger_rows(entry, records)
            if entry.seq in at:
                digests[entry.seq] = engine.hexdigest()
        return cls(engine.hexdigest(), rows, engine.seq, digests)


@dataclass
class Outcome:
    """What the kills did."""

    kills: int = 0
    kills_before_ready: int = 0
    lost_rows: int = 0
    lost_inputs: int = 0
    broken_chains: int = 0
    rows_compared: int = 0
    events: int = 0
    """Rows that the stream told, and that were looked for in the ledger."""
    reports: int = 0
    """Fills of an outside executor that were taken, and looked for."""
    digests_compared: int = 0
    wrong_digests: int = 0
    """Starts whose state was not that of the replay."""
    restarts_s: list[float] = field(default_factory=list)
    """From the start of the process to the first answer of a ready engine."""
    recoveries_s: list[float] = field(default_factory=list)
    """The part of it from when the port is open: without Python's own start and imports."""
    acknowledged_seq: int = 0
    acknowledged_rows: int = 0
    ended_seq: int = 0
    digest: str = ""
    expected_digest: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        lost = self.lost_rows or self.lost_inputs or self.broken_chains or self.wrong_digests
        return self.digest == self.expected_digest and not lost

    def note(self, health: Mapping[str, Any]) -> None:
        """Keep what a health answer acknowledges."""
        self.acknowledged_seq = max(self.acknowledged_seq, health["ledger"]["durable_seq"])
        self.acknowledged_rows = max(self.acknowledged_rows, health["ledger"]["rows"])

    def __str__(self) -> str:
        times, inner = sorted(self.restarts_s) or [0.0], sorted(self.recoveries_s) or [0.0]
        return (
            f"{'ok' if self.ok else 'FAILED'}: {self.kills} kills ({self.kills_before_ready} before ready), lost rows {self.lost_rows}, "
            f"lost inputs {self.lost_inputs}, broken chains {self.broken_chains}, rows compared {self.rows_compared}, "
            f"events {self.events}, reported fills {self.reports}, wrong digests {self.wrong_digests} of {self.digests_compared}; "
            f"restart to serving median {times[len(times) // 2]:.2f} s, worst {times[-1]:.2f} s (goal {RESTART_GOAL_S} s), "
            f"of it from the open port on median {inner[len(inner) // 2]:.2f} s, worst {inner[-1]:.2f} s; "
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


def killed(served: Served, outcome: Outcome, chance: random.Random, play_s: float, startup_s: float) -> dict[str, Any]:
    """Ask a server for its health until it is killed at a moment that chance chooses; returns the first answer of a ready one."""
    before_ready = chance.random() < STARTUP_SHARE
    left_s = chance.uniform(0.0, startup_s if before_ready else play_s)
    kill_at_s = served.started_s + left_s if before_ready else None
    first: dict[str, Any] = {}
    for health in served.answers(START_S):
        now_s = time.perf_counter()
        if health:
            is_back = health["status"] in ("ready", "ended") and health["ledger"]["seq"] >= outcome.acknowledged_seq
            if is_back and not first:
                first = health
                outcome.restarts_s.append(now_s - served.started_s)
                kill_at_s = kill_at_s or now_s + left_s
            outcome.note(health)
        if kill_at_s is not None and now_s >= kill_at_s:
            break
    else:
        raise TimeoutError(f"not ready within {START_S} s (exit code {served.process.poll()}):\n{served.log.read_text()[-2_000:]}")
    served.process.kill()
    served.process.wait(STOP_S)
    outcome.recoveries_s += [line["after_s"] for line in served.lines if line.get("event") == "ready"]
    outcome.kills += 1
    outcome.kills_before_ready += not first
    return first


def run(
    captures: Sequence[Path],
    data: Path,
    kills: int,
    *,
    speed: str = "10",
    seed: int = 7,
    play_s: float = PLAY_S,
    startup_s: float = STARTUP_S,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    **environ: str,
) -> Outcome:
    """Kill ``kills`` times, then play to the end."""
    chance = random.Random(seed)
    truth = Truth.of(captures)
    outcome = Outcome(expected_digest=truth.digest)
    for _ in range(kills):
        with Served(captures, data, speed, **environ) as served:
            killed(served, outcome, chance, play_s, startup_s)
        examine(data, truth, outcome.acknowledged_seq, outcome.acknowledged_rows, outcome)
        tell(outcome)
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


# Trading


class Desk:
    """Trades beside a server as an outside executor does, and keeps what it was told is safe, from one server to the next."""

    def __init__(self) -> None:
        self.seq = 0
        """Safe by the header of an answer."""
        self.events: dict[tuple[int, int], tuple[str, bytes]] = {}
        """Kind and body by key of each row that was told."""
        self.reports: dict[str, dict[str, Any]] = {}
        """Fills that were taken, by their id; each with the ``seq`` that it was given."""
        self.wrong: list[str] = []
        """Answers that contradict an earlier one."""
        self._decision = 0
        self._sent = 0

    @contextlib.contextmanager
    def trading(self, served: Served) -> Iterator[None]:
        """Read, follow and report until the server is gone."""
        threads = [threading.Thread(target=self._while_alive, args=(served, work)) for work in (self._read, self._follow, self._report)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join(START_S)

    def _while_alive(self, served: Served, work: Callable[[Served], None]) -> None:
        while served.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                work(served)
            time.sleep(READ_S)

    def _read(self, served: Served) -> None:
        for path in READS:
            answer = served.get(path)
            if answer is not None and "x-alphapack-durable-seq" in answer[1]:
                self.seq = max(self.seq, int(answer[1]["x-alphapack-durable-seq"]))

    def _follow(self, served: Served) -> None:
        connection = served.connected()
        if connection is None:
            return
        with contextlib.closing(connection):
            connection.request("GET", f"/api/stream?kinds={TRADED}")
            answer = connection.getresponse()
            key, kind = (0, 0), ""
            while answer.status == 200 and (line := answer.readline()).endswith(b"\n"):  # A line that was cut off tells nothing.
                name, _, value = line.rstrip(b"\n").partition(b": ")
                if name == b"id":
                    seq, _, ordinal = value.partition(b".")
                    key = int(seq), int(ordinal)
                elif name == b"event":
                    kind = value.decode()
                elif name == b"data" and kind != "missed":
                    self.events[key] = kind, value
                    if kind == "decision":
                        self._decision = json.loads(value)["decision"]

    def _report(self, served: Served) -> None:
        """Report one more fill, and now and then one that was taken, which must be refused."""
        if not self._decision:
            return
        self._sent += 1
        known = next(reversed(self.reports), "") if self._sent % 20 == 1 else ""
        fill = {"clientFillId": known or f"fill-{self._sent}", "price": 100.0 + self._sent, "size": 0.5, "fee": -0.01, "ts_ms": self._sent}
        fill["decisionId"] = self.reports[known]["decisionId"] if known else str(self._decision)
        answer = served.get("/api/exec/fills", fill)
        if answer is None:
            return
        status, _, document = answer
        if known and status in (200, 201, 404):
            self.wrong.append(f"the fill {known} was taken before, and answered {status}: {document}")
        elif status in (200, 201):
            self.reports[fill["clientFillId"]] = fill | {"seq": document["seq"]}


def examine_trading(folder: Path, desk: Desk, before: list[LedgerRow], outcome: Outcome) -> list[LedgerRow]:
    """Hold the files that a kill left against what was acknowledged and what they held ``before``; returns the ledger's rows."""
    with tempfile.TemporaryDirectory(prefix="alphapack-kill-") as name:
        for path in folder.glob("ledger.sqlite*"):
            shutil.copy(path, name)
        try:
            with contextlib.closing(SqliteLedger(Path(name) / "ledger.sqlite", engine=folder.name)) as ledger:
                rows = list(ledger.rows())  # Each is verified on the way.
        except LedgerError as error:
            outcome.broken_chains += 1
            outcome.notes.append(str(error))
            return before
    lost = sum(found != row for found, row in zip(rows, before, strict=False)) + max(0, len(before) - len(rows))
    lost = max(lost, outcome.acknowledged_rows - len(rows))
    kept = {(row.seq, row.ordinal): row for row in rows[len(before) :]}
    for key, (kind, told) in desk.events.items():
        row = kept.get(key)
        lost += row is None or row.kind != kind or not told.endswith(row.body[1:])
    reported = {(row.seq, json.loads(row.body)["client_fill_id"]) for row in kept.values() if row.kind == "outside_fill"}
    taken = {(fill["seq"], one) for one, fill in desk.reports.items()}
    newest_seq = before[-1].seq if before else 0
    lost += len({one for one in taken if one[0] > newest_seq} - reported)
    outcome.lost_rows += lost
    outcome.rows_compared += len(rows)
    outcome.events += len(desk.events)
    desk.events.clear()  # From now on they are among the rows from before.
    outcome.reports = len(taken)
    last = max(
        (entry.seq for entry in read_journal(folder / "journal", after_seq=newest_seq, report=lambda text: None)), default=newest_seq
    )
    outcome.lost_inputs += max(0, outcome.acknowledged_seq - last)
    return rows


def trade(
    data: Path,
    kills: int,
    *,
    seed: int = 7,
    play_s: float = PLAY_S,
    startup_s: float = STARTUP_S,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    **environ: str,
) -> Outcome:
    """Trade the simulator, kill ``kills`` times, stop in order, and hold everything against the replay of the journal."""
    chance, desk, outcome = random.Random(seed), Desk(), Outcome()
    environ = TRADING | environ
    with Served([], data, "1", **environ) as served, desk.trading(served):
        served.wait(lambda health: health["status"] == "ready", PAST_S)
        outcome.note(served.wait(lambda health: health["ledger"]["durable_seq"] > 0))
        served.process.kill()
    folder = next(folder for folder in data.iterdir() if folder.is_dir())
    rows = examine_trading(folder, desk, [], outcome)
    digests: dict[int, str] = {}
    for _ in range(kills):
        with Served([], data, "1", **environ) as served, desk.trading(served):
            first = killed(served, outcome, chance, play_s, startup_s)
        outcome.acknowledged_seq = max(outcome.acknowledged_seq, desk.seq)
        rows = examine_trading(folder, desk, rows, outcome)
        if first and first["ledger"]["seq"] <= outcome.acknowledged_seq:  # Else the kill took back what was stepped and not safe.
            digests[first["ledger"]["seq"]] = first["digest"]
        tell(outcome)
    with Served([], data, "1", **environ) as served, desk.trading(served):
        served.wait(lambda health: health["status"] == "ready" and health["ledger"]["durable_seq"] > outcome.acknowledged_seq)
        outcome.restarts_s.append(time.perf_counter() - served.started_s)
        if code := served.stop():
            outcome.notes.append(f"the last stop had exit code {code}")
        stopped = next(line for line in served.lines if line.get("event") == "stopped")
    outcome.digest, outcome.ended_seq = stopped["digest"], stopped["seq"]
    outcome.acknowledged_seq = stopped["durable_seq"]
    rows = examine_trading(folder, desk, rows, outcome)
    truth = Truth.of([folder / "journal"], at=set(digests))
    outcome.expected_digest = truth.digest
    outcome.digests_compared = len(digests)
    outcome.wrong_digests = sum(truth.digests.get(seq) != digest for seq, digest in digests.items())
    if rows != truth.rows:
        outcome.lost_rows += 1
        outcome.notes.append(f"the ledger's {len(rows)} rows are not the {len(truth.rows)} of the replay")
    outcome.lost_rows += len(desk.wrong)
    outcome.notes += desk.wrong
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


def loop_ms() -> float:
    """How long this machine takes for ten million turns of an empty loop now."""
    began_s = time.perf_counter()
    for _ in range(LOOP):
        pass
    return 1_000 * (time.perf_counter() - began_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--capture", type=Path, nargs="+", default=[], help="recordings to play; left out: the simulator is traded")
    parser.add_argument("--speed", default="10", help="times real time of a recording; the last start plays as fast as it goes")
    parser.add_argument("--seed", type=int, default=7, help="of the moments")
    parser.add_argument("--data-dir", type=Path, help="kept afterwards; a temporary one where left out")
    arguments = parser.parse_args()
    captures = [path.absolute() for path in arguments.capture]
    loops_ms = [loop_ms()]
    with tempfile.TemporaryDirectory(prefix="alphapack-kill-") as name, Progress(console=Console(stderr=True)) as progress:
        data = arguments.data_dir.absolute() if arguments.data_dir else Path(name) / "state"
        data.mkdir(parents=True, exist_ok=True)
        bar = progress.add_task("making the past" if not captures else "kills", total=arguments.kills)

        def tell(outcome: Outcome) -> None:
            lost = outcome.lost_rows + outcome.lost_inputs + outcome.broken_chains
            progress.update(bar, description=f"kills, lost {lost}, at seq {outcome.acknowledged_seq}", advance=1)
            loops_ms.append(loop_ms())

        if captures:
            outcome = run(captures, data, arguments.kills, speed=arguments.speed, seed=arguments.seed, tell=tell)
            outcome.expected_digest = replayed(captures)
        else:
            outcome = trade(data, arguments.kills, seed=arguments.seed, tell=tell)
            outcome.expected_digest = replayed([next(path for path in data.glob("sim-*/journal"))])
    print(outcome)
    fastest_ms, middle_ms, slowest_ms = min(loops_ms), sorted(loops_ms)[len(loops_ms) // 2], max(loops_ms)
    print(f"an empty loop of {LOOP:,} turns took {fastest_ms:.0f} to {slowest_ms:.0f} ms, median {middle_ms:.0f}")
    print(json.dumps({"ok": outcome.ok, **asdict(outcome)}))
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
