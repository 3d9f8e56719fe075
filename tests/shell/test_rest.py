"""Requests within a budget: whose turn it is, how long to wait, and what is tried again."""

import asyncio
import gzip
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.feeds import FeedSettings, Limits, Request
from alphapack.shell import rest
from alphapack.shell.rest import BAN_S_MAX, BULK_SHARE, REFUSED, Rest, RestError, Window, backoff_s, retry_after_s, until
from rig import PATIENCE_S
from rig import until as happens

LIMITS = Limits(weight_per_minute=100, weight_header="X-MBX-USED-WEIGHT-1M", messages_per_s=5.0)
BOOK = b'{"lastUpdateId":1,"bids":[],"asks":[]}'


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "TICK_S", 0.002)


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


def reply(body: bytes = BOOK, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    return answer


class Venue:
    """Answers with what is next in its script, then with a book."""

    def __init__(self) -> None:
        self.script: deque[Reply] = deque()
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None
        self.base_url = ""
        self.clock = Clock()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        answer = self.script.popleft() if self.script else reply()
        if self.gate is not None:
            await self.gate.wait()
        return await answer(request)

    def client(self) -> Rest:
        return Rest(self.base_url, LIMITS, settings=FeedSettings(), clock=self.clock, chance=lambda: 1.0)


@asynccontextmanager
async def venue() -> AsyncIterator[Venue]:
    here = Venue()
    application = web.Application()
    application.router.add_get("/{any:.*}", here.answer)
    runner = web.AppRunner(application, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield here
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(client: Rest) -> AsyncIterator[None]:
    task = asyncio.create_task(client.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ask(path: str = "/depth", weight: int = 1, *, bulk: bool = False) -> Request:
    return Request(path, (("symbol", "BTCUSDT"),), weight, b"[" if bulk else b'"lastUpdateId"', bulk)


def play(test: Callable[[Venue], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(PATIENCE_S):
            async with venue() as here:
                await test(here)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(within())


# Arithmetic


@given(st.integers(-3, 5_000), st.floats(0, 1, exclude_max=True), st.floats(0.001, 10), st.floats(0.001, 1e4))
def test_a_backoff_is_under_a_bound_that_doubles(failures: int, chance: float, base_s: float, max_s: float) -> None:
    bound_s = min(max_s, base_s * 2.0 ** min(max(failures - 1, 0), 60))
    assert 0.0 <= backoff_s(failures, lambda: chance, base_s, max_s) <= bound_s <= max_s
    assert backoff_s(failures, lambda: 1.0, base_s, max_s) <= backoff_s(failures + 1, lambda: 1.0, base_s, max_s)


def test_backoffs_of_the_defaults_reach_half_a_minute() -> None:
    settings = FeedSettings()
    waits = [backoff_s(failures, lambda: 1.0, settings.backoff_s, settings.backoff_max_s) for failures in range(1, 10)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(st.sampled_from(sorted(REFUSED)), st.text(max_size=20) | st.floats().map(str) | st.integers().map(str) | st.none())
def test_a_refusal_lasts_a_second_to_three_days_whatever_the_header(status: int, header: str | None) -> None:
    assert 1.0 <= retry_after_s(status, header) <= BAN_S_MAX


@pytest.mark.parametrize(
    ("status", "header", "wanted"),
    [
        (429, "7", 7.0),
        (418, "120", 120.0),
        (418, "259200", 259_200.0),
        (429, "0", 1.0),
        (429, None, 60.0),
        (418, None, 300.0),
        (429, "-1", 60.0),
        (429, "999999999", 60.0),
        (418, "inf", 300.0),
        (429, "nan", 60.0),
        (429, "Sun, 22 Nov 2026 23:36:33 GMT", 60.0),
    ],
)
def test_retry_after_is_believed_where_it_makes_sense(status: int, header: str | None, wanted: float) -> None:
    assert retry_after_s(status, header) == wanted


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 120), st.integers(0, 200)), max_size=60), st.sampled_from([1.0, BULK_SHARE]))
def test_no_minute_sees_more_than_the_limit_and_nobody_waits_longer_than_needed(steps: list[tuple[int, int, int]], share: float) -> None:
    window, now_s, sent = Window(100, 60.0), 0.0, []
    for weight, quarters, learned in steps:
        now_s += quarters / 4  # Exact, so that rounding is not what is tested.
        wait_s = window.wait_s(now_s, weight, share)
        assert 0.0 <= wait_s <= 60.0
        if wait_s > 0.0:
            assert window.wait_s(now_s + wait_s - 0.25, weight, share) == 0.25
        now_s += wait_s
        assert window.wait_s(now_s, weight, share) == 0.0
        window.charge(now_s, weight)
        sent.append((now_s, weight))
        assert sum(w for at_s, w in sent if at_s > now_s - 60.0) <= max(100 * share, weight)
        window.learn(now_s, learned)
        assert window.used(now_s) >= min(learned, 100)
    assert Window(100, 60.0).wait_s(0.0, 1_000) == 0.0, "what never fits goes alone"


def test_what_others_used_is_learned_and_forgotten() -> None:
    window = Window(100, 60.0)
    window.charge(0.0, 10)
    window.learn(1.0, 70)
    assert window.used(1.0) == 70 and window.wait_s(1.0, 40) == 59.0
    window.learn(2.0, 5)  # The venue's minute began anew, ours did not.
    assert window.used(2.0) == 70
    window.learn(2.0, 10**12)
    assert window.used(2.0) == 100
    assert window.used(60.5) == 90 and window.used(62.0) == 0


def test_waiting_follows_the_clock_that_it_is_given() -> None:
    async def wait() -> None:
        clock = Clock()
        task = asyncio.create_task(until(clock, clock.now_s + 3_600.0))
        await asyncio.sleep(0.02)
        assert not task.done()
        clock.now_s -= 10.0
        await asyncio.sleep(0.02)
        assert not task.done()
        clock.now_s += 3_700.0
        async with asyncio.timeout(PATIENCE_S):
            await task

    asyncio.run(wait())


# Over a socket


def test_a_request_goes_out_as_it_is_and_its_body_comes_back() -> None:
    async def test(here: Venue) -> None:
        client = here.client()
        here.script.append(reply(gzip.compress(BOOK), headers={"Content-Encoding": "gzip", "X-MBX-USED-WEIGHT-1M": "33"}))
        async with running(client):
            sent: list[int] = []
            assert await client.get(ask("/api/v3/depth"), lambda: sent.append(1)) == BOOK
        assert here.asked == ["/api/v3/depth?symbol=BTCUSDT"] and sent == [1]
        assert client.weight_used == 33 and client.retry_after_s == 0.0 and client.reason == ""

    play(test)


async def _broken_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"lastUpdateId"')
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reply(b"", 500), "HTTP 500"),
        (reply(b"<html>", 503), "HTTP 503"),
        (reply(b'{"code":-1003,"msg":"no"}'), "expected JSON with"),
        (reply(b'{"lastUpdateId":1,"bids":[["1","1"]'), "expected JSON with"),
        (reply(b'"lastUpdateId"' + b"[" * 100_000), "expected JSON with"),
        (reply(b"\xff\xfe"), "expected JSON with"),
        (_broken_off, "Error"),
    ],
)
def test_what_may_pass_is_tried_again_after_a_backoff(bad: Reply, reason: str) -> None:
    async def test(here: Venue) -> None:
        here.script.extend([bad, bad])
        client = here.client()
        async with running(client):
            answer = asyncio.create_task(client.get(ask()))
            await happens(lambda: reason in client.reason)
            assert len(here.asked) == 1
            here.clock.now_s += 0.49
            await asyncio.sleep(0.03)
            assert len(here.asked) == 1, "the first backoff is half a second"
            here.clock.now_s += 0.02
            await happens(lambda: len(here.asked) == 2)
            while not answer.done():
                here.clock.now_s += 1.0
                await asyncio.sleep(0.01)
            assert await answer == BOOK
        assert len(here.asked) == 3

    play(test)


def test_a_body_beyond_the_bound_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", 1_000)

    async def test(here: Venue) -> None:
        bomb = gzip.compress(b'{"lastUpdateId":1,"x":"' + b"0" * 100_000 + b'"}')
        here.script.append(reply(bomb, headers={"Content-Encoding": "gzip"}))
        client = here.client()
        async with running(client):
            answer = asyncio.create_task(client.get(ask()))
            await happens(lambda: client.reason != "")
            assert "expected a body of at most 1000 bytes" in client.reason
            here.clock.now_s += 1.0
            assert await answer == BOOK

    play(test)


def test_a_venue_that_is_not_there_is_tried_until_it_is() -> None:
    async def test(here: Venue) -> None:
        there, here.base_url = here.base_url, "http://127.0.0.1:1"
        client = here.client()
        async with running(client):
            answer = asyncio.create_task(client.get(ask()))
            await happens(lambda: "ClientConnectorError" in client.reason)
            client._base_url = there
            here.clock.now_s += 1.0
            assert await answer == BOOK

    play(test)


@pytest.mark.parametrize("status", [400, 404, 451])
def test_a_request_that_the_venue_will_not_answer_is_an_error(status: int) -> None:
    async def test(here: Venue) -> None:
        here.script.append(reply(b'{"code":-1121,"msg":"Invalid symbol."}', status))
        client = here.client()
        async with running(client):
            with pytest.raises(RestError, match=rf"expected an answer of /depth, found HTTP {status}: .*Invalid symbol"):
                await client.get(ask())
            assert await client.get(ask()) == BOOK
        assert f"HTTP {status}" in client.reason

    play(test)


@pytest.mark.parametrize(("status", "banned"), [(429, False), (418, True), (403, True)])
def test_a_refusal_stops_all_requests_for_as_long_as_it_says(status: int, banned: bool) -> None:
    async def test(here: Venue) -> None:
        here.script.append(reply(b"{}", status, {"Retry-After": "9"}))
        client = here.client()
        async with running(client):
            first = asyncio.create_task(client.get(ask()))
            await happens(lambda: client.retry_after_s > 0.0)
            assert client.retry_after_s == 9.0
            assert (client.banned_until_s == here.clock.now_s + 9.0) is banned
            second = asyncio.create_task(client.get(ask()))
            here.clock.now_s += 8.9
            await asyncio.sleep(0.05)
            assert len(here.asked) == 1
            here.clock.now_s += 0.2
            assert await first == BOOK and await second == BOOK
        assert client.retry_after_s == 0.0 and len(here.asked) == 3

    play(test)


def test_the_budget_is_kept_and_snapshots_go_before_history() -> None:
    async def test(here: Venue) -> None:
        client = here.client()
        pages = [asyncio.create_task(client.get(ask("/klines", 15, bulk=True))) for _ in range(5)]
        here.script.extend([reply(b"[]")] * 2)
        async with running(client):
            await happens(lambda: len(here.asked) == 2)  # A third would be beyond half of the budget of 80.
            books = [asyncio.create_task(client.get(ask("/depth", 25))) for _ in range(3)]
            await happens(lambda: len(here.asked) == 4)
            await asyncio.sleep(0.05)
            assert [path.partition("?")[0] for path in here.asked] == ["/klines"] * 2 + ["/depth"] * 2
            assert client.weight_used == 80
            here.script.extend([reply()] + [reply(b"[]")] * 3)
            here.clock.now_s += 60.0
            await asyncio.gather(*books)
            for _ in range(2):
                await asyncio.sleep(0.05)
                here.clock.now_s += 60.0
            assert await asyncio.gather(*pages) == [b"[]"] * 5
        assert [path.partition("?")[0] for path in here.asked[4:]] == ["/depth"] + ["/klines"] * 3

    play(test)


def test_few_requests_are_on_their_way_at_once() -> None:
    async def test(here: Venue) -> None:
        here.gate = asyncio.Event()
        client = here.client()
        async with running(client):
            answers = [asyncio.create_task(client.get(ask())) for _ in range(10)]
            await happens(lambda: len(here.asked) == rest.IN_FLIGHT_MAX)
            await asyncio.sleep(0.05)
            assert len(here.asked) == rest.IN_FLIGHT_MAX
            here.gate.set()
            assert await asyncio.gather(*answers) == [BOOK] * 10

    play(test)


def test_who_no_longer_waits_is_not_served() -> None:
    async def test(here: Venue) -> None:
        client = here.client()
        gone, stays = (asyncio.create_task(client.get(ask(path))) for path in ("/gone", "/stays"))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        async with running(client):
            assert await stays == BOOK
        assert here.asked == ["/stays?symbol=BTCUSDT"]

    play(test)


def test_the_end_is_the_end_for_all_who_wait() -> None:
    async def test(here: Venue) -> None:
        here.gate = asyncio.Event()
        here.script.append(reply(b"", 500))
        client = here.client()
        waiting: list[asyncio.Task[Any]] = []
        async with running(client):
            waiting = [asyncio.create_task(client.get(ask(weight=9))) for _ in range(12)]
            await happens(lambda: len(here.asked) == rest.IN_FLIGHT_MAX)
        assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*waiting, return_exceptions=True))
        with pytest.raises(RestError, match="found one that has ended"):
            await client.get(ask())
        here.gate.set()

    play(test)
