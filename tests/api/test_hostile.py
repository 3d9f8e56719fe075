"""A corpus of hostile requests: whatever comes, no answer is a server error and every refusal is a problem document."""

import asyncio
import contextlib

import msgspec
import pytest
from fake_host import app_with_orders, ask, serve

from alphapack.api.server import ApiSettings

SYMBOLS = [
    "%00", "\x00", "BTC\x00USDT", "..%2f..%2fetc%2fpasswd", "../../etc/passwd", "..", ".", "..\\..\\x", "%2e%2e", "%252e", "%", "%zz",
    "%u0041", "💥", "👨‍👩‍👧", "\u202eTDSUCTB", "\u200bBTCUSDT", "BTCUSDT\u200d", "\uff22\uff34\uff23\uff35\uff33\uff24\uff34",
    "btcusdt\u0301", "\u017f", "İ", "ß", "\ufeffBTCUSDT", "\ud800", "\udfff\ud800", "\uffff", "\U0010ffff", "A" * 500, "A" * 10_240,
    "💥" * 300, ":", "::", ":BTCUSDT", "binance-usdm:", "a:b:c", "BTCUSDT;DROP TABLE x", "' OR 1=1 --", '"', "<script>alert(1)</script>",
    "{{7*7}}", "${jndi:ldap://x}", "$(id)", "`id`", "|id", "&", "?", "#", "BTCUSDT\r\nX-Evil: 1", "BTC\nUSDT", "\t", " ", "BTCUSDT ",
    " BTCUSDT", "~", "*", "[", "]", "(", "\\", "^", "null", "None", "undefined", "NaN", "-1", "0", "1e309", "true", "__proto__",
    "constructor", "__class__", "{symbol}", "{symbol:str}", "symbol:str",
]  # fmt: skip
QUERIES = [
    b"depth=NaN", b"depth=Infinity", b"depth=-Infinity", b"depth=1e309", b"depth=1e1", b"depth=0x1", b"depth=0b1", b"depth=1_000",
    b"depth=1,000", b"depth=" + b"9" * 400, b"depth=-0", b"depth=00", b"depth=%00", b"depth=1%00", b"depth=%ff", b"depth=\xff",
    b"depth=%E2%82", b"depth=\xe2\x82", b"depth=%F0%9F%92%A5", b"depth[]=1", b"depth[0]=1", b"depth.x=1", b"depth=[1]", b"depth={}",
    b"depth=null", b"depth=None", b"depth=true", b"depth=1&depth=1", b"depth=1;depth=2", b"depth=1&&", b"&", b"&&&&", b"=", b"==", b"=1",
    b"depth", b"depth==1", b"depth=1=1", b"%", b"%zz=1", b"depth=%", b"depth=%u0031", b"DEPTH=1", b"depth =1", b"+depth=1", b"depth=+1",
    b"depth=1+", b"depth=\xd9\xa1", b"x" * 5_000, b"a=1&" * 2_000, b"__proto__=1", b"request=1", b"symbol=ETHUSDT", b"scope=x", b"state=x",
    b"data=1", b"host=x", b"depth=1#", b"?depth=1", b"depth=1?", b"from_ms=1", b"limit=1", b"depth=\x00", b"\x00=\x00",
    b"depth=1\r\nX-Evil: 1", b"depth=../../etc/passwd", b"depth=<script>", b"depth=${7*7}",
]  # fmt: skip
PATHS = [
    "", "/", "//", "///", "/..", "/../", "/./", "/%", "/api", "/api/", "/api//", "//api//health", "/api/health/", "/API/HEALTH",
    "/api/health/live/x", "/api/book", "/api/book/", "/api/book/BTCUSDT/x", "/api/history", "/api/history/microstructure",
    "/api/history//BTCUSDT", "/api/../metrics", "/api/history/\x00/BTCUSDT", "/api/history/💥/BTCUSDT", "/docs/", "/docs/x", "/docs/../..",
    "/openapi.yaml", "/schema", "/schema/openapi.json", "/metrics/", "/favicon.ico", "/robots.txt", "/.env", "/.git/config",
    "/wp-login.php", "/" + "a/" * 400, "/" + "a" * 10_240, "/" + "../" * 300, "/api/microstructure/BTCUSDT/../../config", "/\x00", "/\r\n",
    "/\u202e", "*", "api/health", "http://evil.example/api/health", "/{path}", "/{path:str}", "/\ud800", "/api/orders", "/api/orders/1",
    "/\\..\\",
]  # fmt: skip
BODIES = [
    b"", b"{", b"}", b"[", b"[" * 200_000, b'{"a":' * 100_000, b"[[]" * 50_000, b"{}" * 10, b"NaN", b"Infinity", b'{"size": NaN}',
    b'{"size": -Infinity}', b'{"size": 1e309}', b'{"size": ' + b"9" * 5_000 + b"}", b'{"size": 0x1}', b'{"size": 01}', b'{"size": .5}',
    b'{"size": 1, "size": "2"}', b'{"size": "1"}', b'{"size": 1, "note": "\\ud800"}', b'{"size": 1, "note": "\xff"}',
    b'{"size": 1, "note": "\\u0000"}', b'{"size": 1, "note": "' + b"x" * 900_000 + b'"}', b'{"size": 1,}', b"{'size': 1}",
    b"\xef\xbb\xbf{}", b"\x00", b"\x00" * 1_000, b"\xff\xfe{\x00}\x00", b"size=1", b"<xml/>", b"null", b"true", b'"x"',
    b'{"__proto__": {}}', b'{"size": {}}', b'{"size": []}', b'{"size": [' + b"[" * 10_000 + b"]" * 10_000 + b"]}", b"x" * 1_000_001,
    b"/**/{}", b'{"size":1}//',
]  # fmt: skip
HEADERS = [
    {"origin": "\x00"}, {"origin": "null"}, {"origin": "http://" + "a" * 8_000}, {"authorization": "Bearer " + "x" * 8_000},
    {"authorization": "\xff"}, {"content-length": "-1"}, {"content-length": "1e3"}, {"content-length": "9" * 400},
    {"content-length": "0x10"}, {"content-length": ""}, {"content-type": "application/json; charset=utf-7"},
    {"content-type": "application/json; charset="}, {"content-type": ";"}, {"content-type": "\xff"},
    {"content-type": "application/json" + ";a=b" * 2_000}, {"content-type": 'application/json; x="'}, {"accept": "\xff"},
    {"accept": ";q=x,;;"}, {"cookie": "a=" + "b" * 8_000}, {"cookie": "=;=;\xff"}, {"x-forwarded-for": "evil"},
    {"x-forwarded-host": "evil.example"}, {"x-http-method-override": "DELETE"}, {"transfer-encoding": "chunked"},
    {"upgrade": "websocket", "connection": "upgrade"}, {"range": "bytes=0-"}, {"if-modified-since": "never"}, {"host": "evil.example"},
]  # fmt: skip
METHODS = ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "", "G" * 300]

CORPUS = [
    *[
        ("GET", f"/api/{route}/{symbol}", b"", {}, b"")
        for symbol in SYMBOLS
        for route in ("book", "microstructure", "history/microstructure")
    ],
    *[("GET", "/api/book/BTCUSDT", query, {}, b"") for query in QUERIES],
    *[("GET", path, b"", {}, b"") for path in PATHS],
    *[("POST", "/api/orders", b"", {"content-type": "application/json"}, body) for body in BODIES],
    *[
        (method, "/api/orders", b"", {"content-type": "application/json", **extra}, b'{"size": 1}')
        for extra in HEADERS
        for method in ("GET", "POST")
    ],
    *[(method, path, b"", {}, b"x") for method in METHODS for path in ("/api/book/BTCUSDT", "/", "/nothing", "/api/orders")],
]


def test_the_corpus_is_large():
    assert len(CORPUS) >= 300


@pytest.mark.parametrize("token", [None, "t" * 32])
def test_no_hostile_request_is_a_server_error(token):
    app = app_with_orders(ApiSettings(token=token))

    async def main():
        for item in CORPUS:
            method, path, query, headers, body = item
            answer = await ask(app, method, path, query=query, headers=headers, chunks=(body,))
            assert answer.status < 500, (str(item)[:300], answer)
            if answer.status >= 400:
                assert answer.headers["content-type"] == "application/problem+json", (str(item)[:300], answer)
                assert answer.json["status"] == answer.status and answer.json["detail"], (str(item)[:300], answer)
                assert len(answer.body) < 4_000 and b"Traceback" not in answer.body and b'File \\"' not in answer.body

    asyncio.run(main())


HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
WIRE = [
    b"\r\n\r\n", b"\x00" * 100, b"\xff" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTX/1.1\r\n\r\n",
    b"GET  /  HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\n" + HOST + b"\r\n", b"GET /\r\n\r\n", b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"CONNECT x:1 HTTP/1.1\r\n" + HOST + b"\r\n", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /%ff%00%zz HTTP/1.1\r\n" + HOST + b"\r\n", b"GET /" + b"a" * 10_240 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /?" + b"a" * 10_240 + b" HTTP/1.1\r\n" + HOST + b"\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 400_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 60_000 + b"\r\n", b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b" folded: 1\r\n\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"\x00: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: -1\r\n\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 1e9\r\n\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 99999999999999999999999\r\n\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab\r\n0\r\n\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 41000000\r\n\r\n" + b" " * 300_000,
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Expect: 100-continue\r\nContent-Length: 41000000\r\n\r\n",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Expect: 200-nothing\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /api/orders HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + (b"FFFF\r\n" + b" " * 65_535 + b"\r\n") * 20
    + b"0\r\n\r\n",
    b"GET /api/health HTTP/1.1\r\n" + HOST + b"\r\n" + b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n" + b"\x00garbage\r\n\r\n",
    b"GET /api/health HTTP/1.1\r\n" + HOST + b"\r\n" * 500,
]  # fmt: skip


def documents(raw: bytes):
    """Yield the status and body of each answer in a stream of them."""
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
        status = int(lines[0].split()[1])
        length = int(fields.get(b"content-length", b"0"))
        if status != 100:
            yield status, fields, raw[:length]
        raw = raw[length:]


def test_no_hostile_bytes_are_a_server_error_or_a_hang():
    settings = ApiSettings(port=0, header_timeout_s=0.2, idle_timeout_s=0.2)

    async def one(port, sent):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        received = b""
        with contextlib.suppress(ConnectionError):
            writer.write(sent)
            await writer.drain()
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65_536):
                received += part
        writer.close()
        for status, fields, body in documents(received):
            assert status < 500, (sent[:200], status, body)
            if status >= 400:
                assert fields[b"content-type"] == b"application/problem+json", (sent[:200], status, fields)
                assert msgspec.json.decode(body)["status"] == status

    async def talk(port):
        for start in range(0, len(WIRE), 10):
            await asyncio.gather(*[one(port, sent) for sent in WIRE[start : start + 10]])

    serve(settings, talk)
