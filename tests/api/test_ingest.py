"""Raw frames by POST: who may, what is taken, and what is answered."""

import asyncio
import json
import random
from typing import Any

import pytest
from fake_host import Answer, FakeHost, ask, serve

from alphapack.api.guards import BAD_TOKENS_MAX
from alphapack.api.routes import LINES_MAX
from alphapack.api.server import ApiSettings, create_app
from alphapack.engine.ports import REJECTED_LINES_MAX, IngestRefused, NotAccepting, NotDurable, NotReady

TOKEN = "correct-horse-battery-staple-0123456789"
NDJSON = "application/x-ndjson"
TRADE = b'{"e":"trade","E":1,"T":1,"s":"BTCUSDT","t":1,"p":"100.0","q":"1","m":true}'
SNAPSHOT = b'{"lastUpdateId":5,"bids":[["100.0","1"]],"asks":[["100.5","1"]]}'


def post(fake: FakeHost, body: bytes = TRADE, *, path: str = "binance-usdm", settings: ApiSettings | None = None, **options: Any) -> Answer:
    headers = {"content-type": NDJSON, **options.pop("headers", {})}
    app = options.pop("app", None) or create_app(fake, settings or ApiSettings())
    return asyncio.run(ask(app, "POST", f"/api/ingest/{path}", headers=headers, chunks=(body,), **options))


def problem(answer: Answer) -> int:
    assert answer.headers["content-type"] == "application/problem+json" and answer.json["status"] == answer.status
    return answer.status


def test_each_line_is_a_frame_of_the_venue() -> None:
    host = FakeHost()
    answer = post(host, TRADE + b"\n\n\r\n" + SNAPSHOT + b"\r\n{}\n" + TRADE, query=b"symbol=ETHUSDT")
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    assert [(venue, symbol) for venue, symbol, _ in host.frames] == [("binance-usdm", "ETHUSDT")] * 4
    assert [line for _, _, line in host.frames] == [TRADE, SNAPSHOT, b"{}", TRADE]
    assert answer.json == {
        "venue": "binance-usdm",
        "frames": 4,
        "accepted": 3,
        "rejected": [{"line": 5, "reason": "expected a binance-usdm market message, found b'{}'"}],
        "rejected_count": 1,
        "seq": 46,
        "durable_seq": 46,
    }
    assert answer.headers["x-alphapack-durable-seq"] == "46"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_last_line_may_lack_its_end(end: bytes) -> None:
    host = FakeHost()
    assert post(host, TRADE + end).json["frames"] == 1 and host.frames[0][2] == TRADE


def test_rejections_are_listed_up_to_a_number_and_counted_beyond() -> None:
    answer = post(FakeHost(), b"x\n" * 250).json
    assert len(answer["rejected"]) == REJECTED_LINES_MAX and answer["rejected"][-1]["line"] == REJECTED_LINES_MAX
    assert (answer["frames"], answer["accepted"], answer["rejected_count"]) == (250, 0, 250)


@pytest.mark.parametrize("media", [NDJSON, "application/jsonl", "text/plain", "text/plain; charset=utf-8", "Application/X-NDJSON"])
def test_the_body_may_be_declared_as_lines(media: str) -> None:
    assert post(FakeHost(), headers={"content-type": media}).status == 200


@pytest.mark.parametrize("media", ["", "application/json", "application/octet-stream", "multipart/form-data; boundary=x", "text/csv"])
def test_a_body_declared_as_something_else_is_415(media: str) -> None:
    host = FakeHost()
    answer = post(host, headers={"content-type": media})
    assert problem(answer) == 415 and host.frames == []
    assert answer.json["detail"].startswith("expected Content-Type application/x-ndjson or application/jsonl or text/plain, found ")


@pytest.mark.parametrize("venue", ["kraken", "binance", "binance-usdm\x00", "%F0", "💥", "a" * 900])
def test_an_unknown_venue_is_404_and_the_known_ones_are_named(venue: str) -> None:
    answer = post(FakeHost(), path=venue)
    assert problem(answer) == 404 and "binance-spot, binance-usdm" in answer.json["detail"]


def test_a_venue_is_known_in_any_case() -> None:
    assert post(FakeHost(), path="Binance-USDM").json["venue"] == "binance-usdm"


@pytest.mark.parametrize(
    "symbol",
    ["", "BTC:USDT", "binance-usdm:BTCUSDT", "BTC%20USDT", "BTC/USDT", "a" * 41, "%00", "BTC%0AUSDT", "%E2%80%AEx", "BTC%3FUSDT"],
)
def test_a_bad_symbol_is_422(symbol: str) -> None:
    host = FakeHost()
    assert problem(post(host, query=b"symbol=" + symbol.encode())) == 422 and host.frames == []


@pytest.mark.parametrize("query", [b"symbols=BTCUSDT", b"symbol=A&symbol=B", b"symbol", b"&"])
def test_query_parameters_are_known_and_single(query: bytes) -> None:
    assert problem(post(FakeHost(), query=query)) == 422


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n\r\n", b"\n" * 100_000])
def test_a_body_without_a_line_is_422(body: bytes) -> None:
    assert problem(post(FakeHost(), body)) == 422


def test_a_body_over_the_limit_is_413() -> None:
    host = FakeHost()
    assert problem(post(host, TRADE * 20, settings=ApiSettings(body_max_bytes=1_000))) == 413 and host.frames == []
    assert post(host, TRADE * 10, settings=ApiSettings(body_max_bytes=1_000)).status == 200


def test_more_lines_than_one_body_may_have_are_413() -> None:
    host = FakeHost()
    answer = post(host, b"\n" * LINES_MAX + b"\nx")
    assert problem(answer) == 413 and answer.json["detail"] == f"expected at most {LINES_MAX} lines, found {LINES_MAX + 1}"
    assert post(host, b"\n" * LINES_MAX + b"x").json["rejected"][0]["line"] == LINES_MAX + 1


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (NotAccepting("a recording is served: its inputs are the recording's alone"), 409),
        (NotReady("the engine is starting: recovering the state on disk"), 503),
        (NotDurable("inputs are not journaled: no space left"), 507),
    ],
)
def test_what_the_host_does_not_take_is_said(refusal: IngestRefused, status: int) -> None:
    answer = post(FakeHost(refusal=refusal))
    assert problem(answer) == status and answer.json["detail"] == str(refusal)
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


def test_every_refusal_of_the_host_has_its_status() -> None:
    for kind in IngestRefused.__subclasses__():
        assert post(FakeHost(refusal=kind("why"))).status in (400, 409, 422, 503, 507)


def test_get_is_not_a_way_to_write() -> None:
    answer = asyncio.run(ask(create_app(FakeHost(), ApiSettings()), "GET", "/api/ingest/binance-usdm"))
    assert problem(answer) == 405 and answer.headers["allow"] == "OPTIONS, POST"


def test_pages_of_others_may_not_write() -> None:
    host = FakeHost()
    for origin in ("http://evil.example", "null", "http://127.0.0.1:8000", ""):
        assert problem(post(host, headers={"origin": origin})) == 403
    assert host.frames == []
    for headers in ({}, {"origin": "http://127.0.0.1:5000"}):
        assert post(host, headers=headers).status == 200
    assert problem(post(host, host="evil.example")) == 421


def test_with_a_token_set_it_is_needed_and_guessing_is_stopped() -> None:
    host, now_s = FakeHost(), [0.0]
    app = create_app(host, ApiSettings(token=TOKEN), lambda: now_s[0])
    right, wrong = {"authorization": f"Bearer {TOKEN}"}, {"authorization": "Bearer nope"}
    assert problem(post(host, app=app)) == 401
    assert problem(post(host, app=app, headers={**right, "origin": "http://evil.example"})) == 403
    assert post(host, app=app, headers=right).status == 200
    for _ in range(BAD_TOKENS_MAX):
        assert problem(post(host, app=app, headers=wrong)) == 401
    assert problem(post(host, app=app, headers=right)) == 429
    now_s[0] = 61.0
    assert post(host, app=app, headers=right).status == 200
    assert len(host.frames) == 2


def hostile() -> list[bytes]:
    """Fifty bodies that no venue sends."""
    chance = random.Random(7)
    bodies = [
        b"\x00" * 1_000,
        b"[" * 200_000,
        b'{"a":' * 100_000,
        (b"[" * 20_000 + b"\n") * 4,
        b"\n\r" * 300_000,
        b"\n" * 40_000 + b"x",
        b"\r" * 500_000 + b"x",
        b"\xff\xfe{\x00}\x00",
        b'{"e":"depthUpdate","s":"' + b"A" * 900_000 + b'"}',
        b'{"e":"trade","E":1e400,"s":"BTCUSDT"}',
        b'{"stream":"x","data":' * 1_000 + b"{}" + b"}" * 1_000,
        b'{"lastUpdateId":99999999999999999999999,"bids":[],"asks":[]}',
        b'{"e":"\\ud800"}',
        b'null\ntrue\n1\n"x"\n[]\n[[[]]]',
    ]
    pieces = [TRADE, SNAPSHOT, b"\x00", b"\n", b"\r\n", b'"', b"{", b"}", b"[", b"\xff", b"\\", b'"e":', b"9" * 400, b"\xe2\x80\xae", b" "]
    while len(bodies) < 50:
        if chance.random() < 0.5:
            bodies.append(chance.randbytes(chance.randrange(1, 50_000)))
        else:
            bodies.append(b"".join(chance.choice(pieces) for _ in range(chance.randrange(1, 500))))
    return bodies


def test_no_hostile_body_is_a_server_error() -> None:
    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in hostile():
            head = "POST /api/ingest/binance-usdm HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer.split()[1])
            fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:-2])
            said = json.loads(await reader.readexactly(int(fields[b"content-length"])))
            assert status in (200, 413, 422), (body[:80], said)
            if status == 200:
                assert said["frames"] == said["accepted"] + said["rejected_count"] > 0
                assert all(len(one["reason"]) < 1_000 for one in said["rejected"])
        writer.close()

    settings = ApiSettings(port=0)
    serve(settings, talk, create_app(FakeHost(), settings))
