"""A venue's REST interface behind one budget: requests wait for their turn, and for the venue where it refuses.

Weights are counted over the last minute of the monotonic clock, not by the venue's minutes: what any of those can have
seen is never more. A header that states more than was counted is believed (others may share the address). 429 stops all
requests until ``Retry-After``, 418 and 403 new connections too.
"""

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable

import aiohttp
import msgspec
import structlog

from alphapack.domain.feeds import FeedSettings, Limits, Request

BODY_BYTES_MAX = 32 << 20
IN_FLIGHT_MAX = 4
BUDGET_SHARE = 0.8
"""Of the venue's limit that is used at most: others may share the address."""
BULK_SHARE = 0.5
"""Of that, what bulk may use, so that a snapshot need not wait a minute for history."""
BAN_S_MAX = 3 * 86_400.0
"""Longest ban by the venue's documentation; a header beyond it says nothing."""
REFUSED = {429: 60.0, 418: 300.0, 403: 300.0}
"""Statuses that mean to wait, and how long where no sensible header says; 403 is the venue's firewall."""
TICK_S = 0.1
"""How often a wait looks at the clock, which need not be the event loop's."""

_log = structlog.get_logger("alphapack.rest")


class RestError(Exception):
    """A request that the venue will not answer, however often it is asked."""


class Window:
    """What was used over the last ``span_s`` seconds against ``limit``."""

    def __init__(self, limit: int, span_s: float) -> None:
        self.limit, self.span_s = limit, span_s
        self._charges: deque[tuple[float, int]] = deque()
        self._used = 0

    def used(self, now_s: float) -> int:
        """Return the sum of charges not older than the span."""
        while self._charges and self._charges[0][0] <= now_s - self.span_s:
            self._used -= self._charges.popleft()[1]
        return self._used

    def charge(self, now_s: float, weight: int) -> None:
        """Count ``weight`` as used now."""
        self._charges.append((now_s, weight))
        self._used += weight

    def learn(self, now_s: float, used: int) -> None:
        """Believe that at least ``used`` was used, up to the limit."""
        missing = min(used, self.limit) - self.used(now_s)
        if missing > 0:
            self.charge(now_s, missing)

    def wait_s(self, now_s: float, weight: int, share: float = 1.0) -> float:
        """Return how long to wait until ``weight`` more fits into ``share`` of the limit; alone, any weight does."""
        excess = self.used(now_s) + weight - max(self.limit * share, weight)
        for at_s, charged in self._charges:
            if excess <= 0:
                break
            excess -= charged
            if excess <= 0:
                return max(0.0, at_s + self.span_s - now_s)
        return 0.0


def backoff_s(failures: int, chance: Callable[[], float], base_s: float, max_s: float) -> float:
    """Return a wait after so many failures in a row: full jitter under a bound that doubles from ``base_s`` to ``max_s``."""
    return chance() * min(max_s, base_s * 2.0 ** min(max(failures - 1, 0), 60))


def retry_after_s(status: int, header: str | None) -> float:
    """Return how long a refusal lasts: the header's seconds where they make sense, at least 1; else the status's own."""
    try:
        stated = float(header or "")
    except ValueError:
        stated = math.nan
    return max(1.0, stated) if 0.0 <= stated <= BAN_S_MAX else REFUSED[status]


async def until(clock: Callable[[], float], due_s: float) -> None:
    """Return when ``clock`` has reached ``due_s``."""
    while (left_s := due_s - clock()) > 0.0:
        await asyncio.sleep(min(left_s, TICK_S))


class _Job:
    __slots__ = ("answer", "failures", "request", "sent")

    def __init__(self, request: Request, sent: Callable[[], None] | None) -> None:
        self.request, self.sent, self.failures = request, sent, 0
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class Rest:
    """Requests to one venue, by priority, within its budget; ``run`` does the work, ``get`` waits for it."""

    def __init__(
        self, base_url: str, limits: Limits, *, settings: FeedSettings, clock: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        """Ask ``base_url``; ``clock`` is monotonic seconds, ``chance`` uniform on [0, 1)."""
        self._base_url, self._header, self._settings = base_url.rstrip("/"), limits.weight_header, settings
        self._clock, self._chance = clock, chance
        self._window = Window(int(limits.weight_per_minute * BUDGET_SHARE), 60.0)
        self._jobs: list[tuple[bool, int, _Job]] = []
        self._order = itertools.count()
        self._asked = asyncio.Event()
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._open: set[_Job] = set()
        self._ended = False
        self._held_until_s = -math.inf
        self.banned_until_s = -math.inf
        """Before this no connection of any kind should be tried."""
        self.reason = ""
        """Why a request failed last."""

    @property
    def weight_used(self) -> int:
        """Weight of the last minute."""
        return self._window.used(self._clock())

    @property
    def retry_after_s(self) -> float:
        """How long the venue has told us to wait still."""
        return max(0.0, self._held_until_s - self._clock())

    def refuse(self, status: int, header: str | None) -> float:
        """Take note of a refusal, of a handshake too, and return how long it lasts in seconds."""
        wait_s = retry_after_s(status, header)
        until_s = self._clock() + wait_s
        self._held_until_s = max(self._held_until_s, until_s)
        if status != 429:
            self.banned_until_s = max(self.banned_until_s, until_s)
        return wait_s

    async def get(self, request: Request, sent: Callable[[], None] | None = None) -> bytes:
        """Return the body of the answer, however long that takes; ``sent`` is called each time the request goes out.

        Raises ``RestError`` where the venue refuses this request as such. Cancelled with ``run``.
        """
        if self._ended:
            raise RestError(f"expected a client that runs, found one that has ended: {request.path}")
        job = _Job(request, sent)
        self._open.add(job)
        self._queue(job)
        try:
            return await job.answer
        finally:
            self._open.discard(job)

    async def run(self) -> None:
        """Send what waits until cancelled; then cancel those who still wait."""
        timeout = aiohttp.ClientTimeout(total=self._settings.request_s, connect=self._settings.handshake_s)
        headers = {"User-Agent": "alphapack"}
        try:
            async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session, asyncio.TaskGroup() as group:
                while True:
                    await self._slots.acquire()
                    group.create_task(self._serve(session, await self._turn()))
        finally:
            self._ended = True
            for job in list(self._open):
                job.answer.cancel()

    def _queue(self, job: _Job) -> None:
        heapq.heappush(self._jobs, (job.request.bulk, next(self._order), job))
        self._asked.set()

    async def _turn(self) -> _Job:
        """Return the next job when it may be sent, its weight charged."""
        while True:
            self._asked.clear()
            while self._jobs and self._jobs[0][2].answer.done():
                heapq.heappop(self._jobs)  # Nobody waits for it any more.
            if not self._jobs:
                await self._asked.wait()
                continue
            now_s, (bulk, _, job) = self._clock(), self._jobs[0]
            wait_s = self._window.wait_s(now_s, job.request.weight, BULK_SHARE if bulk else 1.0)
            wait_s = max(wait_s, self._held_until_s - now_s)
            if wait_s <= 0.0:
                heapq.heappop(self._jobs)
                self._window.charge(now_s, job.request.weight)
                return job
            try:  # A job of higher priority may come while this one waits.
                async with asyncio.timeout(min(wait_s, TICK_S)):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def _serve(self, session: aiohttp.ClientSession, job: _Job) -> None:
        try:
            if job.sent is not None:
                job.sent()
            failure = await self._exchange(session, job)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            self._slots.release()
        if failure:
            job.failures += 1
            self.reason = f"{job.request.path}: {failure}"[:300]
            wait_s = backoff_s(job.failures, self._chance, self._settings.backoff_s, self._settings.backoff_max_s)
            _log.warning("a request failed and is tried again", path=job.request.path, reason=failure[:300], wait_s=round(wait_s, 1))
            await until(self._clock, self._clock() + wait_s)
            self._queue(job)

    async def _exchange(self, session: aiohttp.ClientSession, job: _Job) -> str:
        """Send once; returns why it is to be tried again, empty where the job is done."""
        request = job.request
        async with session.get(self._base_url + request.path, params=request.parameters, allow_redirects=False) as response:
            used = response.headers.get(self._header, "")
            if used.isascii() and used.isdigit() and len(used) < 10:
                self._window.learn(self._clock(), int(used))
            body = await _bounded(response)
        status = response.status
        if status in REFUSED:
            wait_s = self.refuse(status, response.headers.get("Retry-After"))
            return f"HTTP {status}, nothing is asked for {wait_s:.0f} s"
        if status >= 500 or status == 408:
            return f"HTTP {status}"
        if body is None:
            return f"expected a body of at most {BODY_BYTES_MAX} bytes, found more"
        shown = body[:200]
        if status == 200 and not (request.mark in body and _is_json(body)):
            return f"expected JSON with {request.mark!r}, found {shown!r}"
        if not job.answer.done():
            if status == 200:
                job.answer.set_result(body)
            else:
                self.reason = f"{request.path}: HTTP {status}: {shown!r}"
                job.answer.set_exception(RestError(f"expected an answer of {request.path}, found HTTP {status}: {shown!r}"))
        return ""


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, decompressed; None where it is larger than any that is expected."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _is_json(body: bytes) -> bool:
    """Tell whether all of the body is there, without making anything of it."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
