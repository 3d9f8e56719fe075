"""Posted option chains: taken by the one door, read on a thread, acknowledged when what was made of them is on disk."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from alphapack import app
from alphapack.domain.inputs import Chain, CoreSettings, Heartbeat, Result
from alphapack.engine.ports import Busy, Invalid, Malformed, NoData, NotAccepting, NotDurable, NotReady
from alphapack.models import book, chain
from alphapack.shell import runner as runner_module
from alphapack.shell.journal import read_journal
from alphapack.shell.offloop import Work, Worker
from rig import BTC, PATIENCE_S, START_NS, FakeClock, Live, market_lines, recorded, stepped, until, write_capture

ORDER = [{"k": 0.9, "tenor": "7d", "type": "call", "iv": 0.6}, {"k": 1.1, "tenor": "7d", "type": "put", "iv": 0.7}]


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    """Compile what a chain needs before anything is waited for."""
    book.warm()
    chain.warm()


def body(rows: list[dict[str, Any]] = ORDER, **more: Any) -> bytes:
    return json.dumps({"chain": rows, **more}).encode()


class Serving:
    """A runner that is ready, knows BTC, and has a thread for work."""

    def __init__(self, folder: Path, works: Mapping[str, Work]) -> None:
        self.clock = FakeClock()
        self.host = Live(folder, clock=self.clock)
        self.runner = self.host.runner
        self.worker = Worker(works, self.runner.answered)
        self.runner.executor = self.worker
        self.runner.begin(CoreSettings(), "test", START_NS)
        for ts_ns, payload in market_lines(5):
            self.clock.at_ns = ts_ns
            self.runner.receive("binance-usdm", "", payload)
        self.runner.ready()

    def close(self) -> None:
        self.worker.close()
        self.host.close()


def serving(folder: Path, test: Callable[[Serving], Awaitable[None]], works: Mapping[str, Work] = app.WORKS) -> None:
    async def main() -> None:
        one = Serving(folder, works)
        try:
            await until(lambda: one.runner.resolve("BTCUSDT") is not None)
            await asyncio.wait_for(test(one), PATIENCE_S)
        finally:
            one.close()

    asyncio.run(main())


def test_options_smile_of_a_posted_chain_is_answered_when_it_is_durable(tmp_path: Path) -> None:
    async def test(one: Serving) -> None:
        taken = await one.runner.chain(BTC, body())
        assert (taken.symbol, taken.base, taken.accepted, taken.rejected, taken.iv_unit) == ("BTCUSDT", "BTC", 2, [], "fraction")
        assert taken.ts_ms == one.clock.at_ns // 1_000_000
        assert taken.durable_seq >= taken.seq == one.host.engine.seq
        said = one.runner.smile(BTC)
        assert said.rr25 == pytest.approx(0.0608897, abs=1e-6) and said.tenors == taken.tenors
        assert one.runner.symbols()[0].has_options
        assert (one.runner.underlying("btc"), one.runner.underlying("BTCUSDT"), one.runner.underlying("ETH")) == ("BTC", BTC, None)
        history = one.runner.history("smile", BTC, 0, 9)
        assert history is not None and history["rr25"] == [said.rr25]
        assert one.runner.counters()["smiles"] == 1.0

    serving(tmp_path, test)
    entries = list(read_journal(tmp_path / "journal"))
    (asked,), (answer,) = ([one for one in entries if isinstance(one, kind)] for kind in (Chain, Result))
    assert (asked.base, asked.source, asked.body) == ("BTC", "posted", body()), "journaled as it came"
    engine, _ = stepped(entries)
    assert engine.options.smile("BTCUSDT", "BTC").rr25 == pytest.approx(0.0608897, abs=1e-6), "a replay reads no chain"
    assert answer.ok


@pytest.mark.parametrize(
    ("posted", "error", "reason"),
    [
        (b"", Malformed, "expected a JSON body: Input data was truncated"),
        (b'{"chain": [NaN]}', Malformed, "expected a JSON body"),
        (b'{"chain": [}', Malformed, "expected a JSON body"),
        (b'{"chain": 7}', Invalid, "Expected `array`, got `int`"),
        (b"[]", Invalid, "Expected `object`"),
        (b"{}", Invalid, "missing required field `chain`"),
        (b'{"chain": [], "chains": 1}', Invalid, "unknown field `chains`"),
        (b'{"chain": [], "spot": "1"}', Invalid, "Expected `float | null`, got `str`"),
        (b'{"chain": [], "spot": -1.0}', Invalid, "expected spot as a finite number above zero, found -1.0"),
        (b'{"chain": [], "k_unit": "delta"}', Invalid, "Invalid enum value"),
        (b'{"chain": [], "ts_ms": 5}', Invalid, "expected ts_ms in milliseconds"),
        (b'{"chain": [], "ts_ms": 4102444700000}', Invalid, "found 4102444700000: in the future"),
        (b'{"chain": [%b0]}' % (b"0," * 100_000), Invalid, "expected rows of named fields"),
        (b'{"chain": [%b{}]}' % (b"{}," * 200_000), Invalid, "expected at most 200,000 rows"),
    ],
)
def test_options_smile_chain_that_is_none_is_refused_and_not_taken(
    tmp_path: Path, posted: bytes, error: type[Exception], reason: str
) -> None:
    async def test(one: Serving) -> None:
        before = one.host.engine.seq
        with pytest.raises(error) as found:
            await one.runner.chain(BTC, posted)
        assert reason in str(found.value)
        assert one.host.engine.seq == before

    serving(tmp_path, test)


def test_options_smile_chain_of_bad_rows_is_answered_with_their_reasons(tmp_path: Path) -> None:
    async def test(one: Serving) -> None:
        rows = [*ORDER, {"k": 1.0, "tenor": "7d", "type": "call", "iv": 700.0}, {"k": 1.0, "tenor": "soon", "type": "put", "iv": 0.5}, 7]
        taken = await one.runner.chain(BTC, body(rows))
        assert (taken.accepted, taken.rejected_count, [row.index for row in taken.rejected]) == (2, 3, [2, 3, 4])
        await one.runner.chain(BTC, body([{"k": 1.0, "tenor": "7d", "type": "call", "iv": -0.5}]))
        assert one.runner.smile(BTC).tenors[0].points == 2, "nothing replaced the chain that says something"

    serving(tmp_path, test)


async def read(one: Serving) -> Any:
    """Post a chain as often as it takes until there is place for it."""
    while True:
        try:
            return await one.runner.chain(BTC, body())
        except Busy:
            await asyncio.sleep(0.001)


def held(release: threading.Event) -> Mapping[str, Work]:
    def work(request: bytes) -> bytes:
        assert release.wait(PATIENCE_S)
        return chain.work(request)

    return {chain.WORK: work}


def test_options_smile_chains_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "CHAINS_MAX", 2)
    release = threading.Event()

    async def test(one: Serving) -> None:
        waiting = [asyncio.create_task(one.runner.chain(BTC, body())) for _ in range(2)]
        await until(lambda: len(one.host.engine.outstanding) == 2)
        with pytest.raises(Busy, match="expected at most 2 option chains at once"):
            await one.runner.chain(BTC, body())
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        with pytest.raises(Busy):  # A chain keeps its place until it was read, whoever has left.
            await one.runner.chain(BTC, body())
        waiting[0] = asyncio.create_task(read(one))
        release.set()
        assert [taken.accepted for taken in await asyncio.gather(*waiting)] == [2, 2]
        assert (await one.runner.chain(BTC, body())).accepted == 2

    serving(tmp_path, test, held(release))


def test_options_smile_chain_that_is_not_read_in_time_is_safe_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "CHAIN_TIMEOUT_S", 0.01)
    release = threading.Event()

    async def test(one: Serving) -> None:
        with pytest.raises(Busy, match="taken and is safe"):
            await one.runner.chain(BTC, body())
        release.set()
        await until(lambda: not one.host.engine.outstanding)
        assert one.runner.smile(BTC).source == "posted"

    serving(tmp_path, test, held(release))


def test_options_smile_chain_that_waits_when_the_engine_stops_is_told_so(tmp_path: Path) -> None:
    release = threading.Event()

    async def test(one: Serving) -> None:
        waiting = asyncio.create_task(one.runner.chain(BTC, body()))
        await until(lambda: bool(one.host.engine.outstanding))
        assert await one.runner.end() is None
        with pytest.raises(NotReady, match="will be read when it starts again"):
            await waiting
        release.set()

    serving(tmp_path, test, held(release))


def test_options_smile_chain_is_refused_where_nothing_is_taken(tmp_path: Path) -> None:
    async def recording() -> None:
        entries = recorded(write_capture(tmp_path, market_lines(20)))
        async with Live(tmp_path / "recording", accepts=False) as host:
            with pytest.raises(NotReady):
                await host.runner.chain(BTC, body())
            await host.play(entries)
            with pytest.raises(NotAccepting, match="takes option chains from outside, found a recording"):
                await host.runner.chain(BTC, body())
            with pytest.raises(NoData, match="expected an option chain of BTC"):
                host.runner.smile(BTC)

    asyncio.run(recording())

    async def full(one: Serving) -> None:
        committer = one.runner.committer
        assert committer is not None

        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        one.host.journal.append = refuse  # type: ignore[method-assign, assignment]
        one.runner.submit(Heartbeat)
        await until(lambda: committer.state != "ok")
        with pytest.raises(NotDurable):
            await one.runner.chain(BTC, body())

    serving(tmp_path / "full", full)


def test_options_smile_of_a_base_asset_whose_name_looks_like_a_pair(tmp_path: Path) -> None:
    async def test(one: Serving) -> None:
        one.runner.step(Chain(one.host.engine.seq + 1, one.host.engine.now_ns, "WBTC", "recorded", body()))
        one.runner.hand_over()
        await until(lambda: one.runner.underlying("wbtc") is not None)
        said = one.runner.smile("WBTC")
        assert (said.base, said.symbol) == ("WBTC", "WBTC")
        history = one.runner.history("smile", "WBTC", 0, 5)
        assert history is not None and len(history["ts_ms"]) == 1
        assert (await one.runner.chain("WBTC", body())).base == "WBTC"

    serving(tmp_path, test)


def test_options_smile_chain_just_before_the_end_of_a_recording_is_read(tmp_path: Path) -> None:
    lines = market_lines(50)
    last_ms = lines[-1][0] // 1_000_000
    frames, chains = write_capture(tmp_path, lines), tmp_path / "BTCUSDT_chain.csv"
    chains.write_text(f"ts_ms,k,tenor,type,iv\n{last_ms - 10},0.9,7d,call,0.6\n{last_ms - 10},1.1,7d,put,0.7\n")
    summary = app.replay(app.Settings(), [frames, chains], complain=pytest.fail)
    assert summary.chains["BTC"].chains == 1, "of the base asset of the pair in its name"


def test_options_smile_chains_before_a_capture_do_not_move_its_history(tmp_path: Path) -> None:
    frames, chains = write_capture(tmp_path, market_lines(50)), tmp_path / "BTC_chain.csv"
    chains.write_text(f"ts_ms,k,tenor,type,iv\n{START_NS // 1_000_000 - 86_400_000},0.9,7d,call,0.6\n")
    recording = app.record_of([chains, frames], app.Settings(), None, pytest.fail)
    assert recording.capture is not None and recording.capture.start_ns() == START_NS
    alone = app.record_of([chains], app.Settings(), None, pytest.fail)
    assert alone.capture is not None and alone.capture.start_ns() == START_NS - 86_400 * 1_000_000_000


def test_options_smile_file_without_quotes_is_complained_of(tmp_path: Path) -> None:
    chains = tmp_path / "BTC_chain.csv"
    chains.write_text("ts_ms,k,tenor,type,iv\n")
    complaints: list[str] = []
    app.replay(app.Settings(), [chains], complain=complaints.append)
    assert len(complaints) == 1 and "expected option quotes, found a file without any" in complaints[0]


def test_options_smile_chains_of_a_recording_play_with_its_frames(tmp_path: Path) -> None:
    frames = write_capture(tmp_path, market_lines(200))
    chains = tmp_path / "BTC_chain.csv"
    lines = [
        f"{START_NS // 1_000_000 + 1_000 * i},{k},{tenor},call,{iv}"
        for i in range(3)
        for k, tenor, iv in ((0.9, "7d", 0.6), (1.1, "7d", 0.7))
    ]
    chains.write_text("\n".join(("ts_ms,k,tenor,type,iv", *lines)) + "\n")
    summaries = [app.replay(app.Settings(), paths, complain=pytest.fail) for paths in ([frames, chains], [chains, frames], [chains])]
    assert summaries[0].digest == summaries[1].digest != summaries[2].digest
    for summary in summaries:
        (one,) = summary.chains.values()
        assert (one.chains, one.accepted, one.rejected, one.failed) == (3, 6, 0, 0) and one.last is not None
        assert one.last.rr25 == pytest.approx(0.0608897, abs=1e-6)
    assert (summaries[0].frames, summaries[2].frames) == (200, 0)

    async def served() -> None:
        source = app.recorded(app.Settings(), [frames, chains], float("inf"))
        async with Live(tmp_path / "served", accepts=False) as host:
            await asyncio.wait_for(source.follow(host.runner), PATIENCE_S)
            assert host.engine.hexdigest() == summaries[0].digest
            assert [host.engine.options.bases(), host.engine.now_ns] == [list(summaries[0].chains), START_NS + 3_980_000_000]

    asyncio.run(served())
