import asyncio
import json

import pytest
from fake_host import FakeHost, app_with_orders, ask, get, write
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.api.guards import BAD_TOKENS_MAX, BAD_TOKENS_WINDOW_S, CLIENTS_REMEMBERED_MAX, BadTokens
from alphapack.api.server import ApiSettings, create_app

TOKEN = "correct-horse-battery-staple-0123456789"


def problem(answer):
    """Return the status of an answer that must be a problem document."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json) >= {"type", "title", "status", "detail"} and answer.json["status"] == answer.status
    return answer.status


LOCAL = ["localhost", "LocalHost:5000", "127.0.0.1", "127.0.0.1:1", "127.8.9.1:5000", "[::1]", "[::1]:5000"]
FOREIGN = [
    "evil.example",
    "evil.example:5000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example#127.0.0.1",
    "user@localhost",
    "localhost:x",
    "localhost:5000:5000",
    "localhost:999999",
    "[::1",
    "::1",
    "0x7f000001",
    "2130706433",
    "127.1",
    "localhost/",
    "localhost,evil.example",
    " localhost",
    "",
    "[fe80::1%eth0]",
    "l\u00f6calhost",
    "10.0.0.7",
]


@pytest.mark.parametrize("name", LOCAL)
def test_hosts_of_this_machine_are_served(name):
    assert get(create_app(FakeHost(), ApiSettings()), "/api/health", host=name).status == 200


@pytest.mark.parametrize("name", FOREIGN)
def test_other_hosts_are_misdirected_whatever_the_route(name):
    app = create_app(FakeHost(), ApiSettings())
    for path in ("/api/health", "/", "/metrics", "/nothing"):
        assert problem(get(app, path, host=name)) == 421


def test_a_missing_host_is_misdirected():
    assert problem(get(create_app(FakeHost(), ApiSettings()), "/", host=None)) == 421


def test_configured_names_and_the_bound_one_are_served():
    app = create_app(FakeHost(), ApiSettings(host="10.0.0.7", token=TOKEN, allowed_hosts=("Desk.Example",)))
    assert [get(app, "/", host=name).status for name in ("desk.example:80", "10.0.0.7:5000", "127.0.0.1", "10.0.0.8", "other.example")] == [
        200,
        200,
        200,
        421,
        421,
    ]


def test_a_listener_on_all_addresses_is_served_by_any_address_but_no_foreign_name():
    app = create_app(FakeHost(), ApiSettings(host="0.0.0.0", token=TOKEN))
    assert [get(app, "/", host=name).status for name in ("10.0.0.8:5000", "[2001:db8::1]:5000", "evil.example")] == [200, 200, 421]


METHODS = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
ORIGINS = [
    "http://evil.example",
    "null",
    "http://127.0.0.1:8000",
    "http://127.0.0.1:5000.evil.example",
    "http://localhost:5000",
    "",
    "https://",
]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("method", METHODS)
def test_no_other_page_may_write_whatever_the_route_and_method(method, origin):
    app = app_with_orders()  # Its write route was added last and knows of no guard.
    for path in ("/api/orders", "/api/health", "/", "/nothing"):
        assert problem(asyncio.run(ask(app, method, path, headers={"origin": origin}))) == 403


def test_a_page_of_ours_may_write_and_so_may_a_program():
    app = app_with_orders()
    for headers in ({}, {"origin": "http://127.0.0.1:5000"}, {"origin": "https://127.0.0.1:5000"}):
        answer = write(app, headers=headers)
        assert (answer.status, answer.json) == (200, {"size": 1.5, "note": ""})


def test_reading_from_another_page_is_answered_without_a_permission_to_use_it():
    answer = get(create_app(FakeHost(), ApiSettings()), "/api/health", headers={"origin": "http://evil.example"})
    assert answer.status == 200
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_cross_origin_headers_go_to_configured_origins_only():
    app = app_with_orders(ApiSettings(cors_origins=("https://desk.example",)))
    friend, other = {"origin": "https://desk.example"}, {"origin": "https://other.example"}
    allowed = get(app, "/api/health", headers=friend).headers
    assert (allowed["access-control-allow-origin"], allowed["vary"]) == ("https://desk.example", "Origin")
    refused = get(app, "/api/health", headers=other).headers
    assert "access-control-allow-origin" not in refused and refused["vary"] == "Origin"
    assert write(app, headers=friend).status == 200
    assert problem(write(app, headers=other)) == 403
    preflight = {"access-control-request-method": "POST"}
    answer = asyncio.run(ask(app, "OPTIONS", "/api/orders", headers=friend | preflight))
    assert (answer.status, answer.headers["access-control-allow-methods"]) == (204, "GET, HEAD, POST")
    assert problem(asyncio.run(ask(app, "OPTIONS", "/api/orders", headers=other | preflight))) == 403


def test_an_origin_that_is_none_is_refused_at_once():
    for wrong in ("*", "desk.example", "https://desk.example/", ""):
        with pytest.raises(ValueError, match="cors_origins"):
            ApiSettings(cors_origins=(wrong,))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_with_a_token_set_every_write_needs_it_whatever_the_route(method):
    app = app_with_orders(ApiSettings(token=TOKEN))
    for path in ("/api/orders", "/api/health", "/", "/nothing"):
        answer = asyncio.run(ask(app, method, path))
        assert (problem(answer), answer.headers["www-authenticate"]) == (401, "Bearer")


def test_the_token_opens_writes_and_reads_need_none():
    app = app_with_orders(ApiSettings(token=TOKEN))
    for scheme in ("Bearer", "bearer"):
        assert write(app, headers={"authorization": f"{scheme} {TOKEN}"}).status == 200
    assert get(app, "/api/health").status == 200
    wrongs = ["", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}", "Bearer \xff"]
    for wrong in wrongs:
        assert problem(write(app, headers={"authorization": wrong})) == 401
        assert TOKEN not in write(app, headers={"authorization": wrong}).body.decode()


def test_an_empty_token_is_no_token():
    app = app_with_orders(ApiSettings(token=""))
    assert write(app, headers={"authorization": "Bearer "}).status == 200


def test_guessing_is_stopped_for_a_minute_for_the_guesser_alone():
    now_s = [100.0]
    app = app_with_orders(ApiSettings(token=TOKEN), clock=lambda: now_s[0])
    wrong, right = {"authorization": "Bearer nope"}, {"authorization": f"Bearer {TOKEN}"}
    for _ in range(BAD_TOKENS_MAX):
        assert write(app, headers=wrong).status == 401
        now_s[0] += 1.0
    stopped = write(app, headers=wrong)
    assert (problem(stopped), stopped.headers["retry-after"]) == (429, "50")
    assert write(app, headers=right).status == 429, "else a guess that is right would be told from one that is not"
    assert write(app, headers=right, client="10.0.0.9").status == 200
    now_s[0] = 100.0 + BAD_TOKENS_WINDOW_S
    assert write(app, headers=right).status == 200
    assert write(app, headers=wrong).status == 401
    assert write(app, headers=wrong).status == 429, "nine wrong ones of the last minute still count"


def test_right_tokens_and_missing_ones_are_not_guesses():
    app = app_with_orders(ApiSettings(token=TOKEN), clock=lambda: 0.0)
    for _ in range(BAD_TOKENS_MAX * 3):
        assert write(app).status == 401
        assert write(app, headers={"authorization": f"Bearer {TOKEN}"}).status == 200


def test_the_memory_of_guessers_is_bounded():
    bad = BadTokens(lambda: 0.0)
    for client in range(CLIENTS_REMEMBERED_MAX * 2):
        bad.add(str(client))
    assert len(bad._times_s) == CLIENTS_REMEMBERED_MAX


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"size": 1}', 200),
        (b'{"size": 1.5, "note": "x"}', 200),
        (b'{"size": "1"}', 422),
        (b'{"size": true}', 422),
        (b'{"size": null}', 422),
        (b'{"size": 1, "note": 3}', 422),
        (b'{"size": 1, "nose": ""}', 422),
        (b'{"size": 1, "note": null}', 422),
        (b"{}", 422),
        (b"[]", 422),
        (b"1", 422),
        (b"null", 422),
        (b"", 422),
        (b'{"size": NaN}', 400),
        (b'{"size": Infinity}', 400),
        (b'{"size": 1', 400),
        (b'{"size": 1}x', 400),
        (b"\xff\xfe", 400),
        (b'{"size": 1, "note": "\xff"}', 400),
        (b'{"size": 1, "note": "\\ud800"}', 400),
        (b"{'size': 1}", 400),
        (b"[" * 200_000, 400),
        (b'{"a":' * 20_000, 400),
        (b'{"size": 1, "deep": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400),
    ],
)
def test_bodies_are_json_of_the_type_that_is_asked(body, status):
    answer = write(app_with_orders(), body)
    assert answer.status == status, answer.body
    if status != 200:
        problem(answer)


@pytest.mark.parametrize("number", [b"1e309", b"-1e309", b"9" * 400, b"1e99999999999"])
def test_numbers_that_no_double_holds_are_refused(number):
    assert problem(write(app_with_orders(), b'{"size": ' + number + b"}")) in (400, 422)


def test_an_error_in_a_body_names_its_field():
    answer = write(app_with_orders(), b'{"size": "1"}')
    assert answer.json["errors"] == [{"key": "size", "message": "Expected `float`, got `str`"}]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", "json"]
)
def test_a_body_is_declared_as_json(content_type):
    assert problem(write(app_with_orders(), headers={"content-type": content_type})) == 415


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_declared_in_any_of_its_forms(content_type):
    assert write(app_with_orders(), headers={"content-type": content_type}).status == 200


def test_a_body_over_the_limit_is_refused_before_it_is_read():
    app = app_with_orders(ApiSettings(body_max_bytes=1_000))
    headers = {"content-type": "application/json", "content-length": "100000"}
    announced = asyncio.run(ask(app, "POST", "/api/orders", headers=headers, chunks=(b" " * 500,) * 200))
    assert (problem(announced), announced.headers["x-test-chunks-unread"]) == (413, "200")
    streamed = asyncio.run(ask(app, "POST", "/api/orders", headers={"content-type": "application/json"}, chunks=(b" " * 500,) * 200))
    assert (problem(streamed), streamed.headers["x-test-chunks-unread"]) == (413, "197")
    assert write(app, b'{"size": 1}' + b" " * 900).status == 200


def test_a_content_length_that_is_no_number_is_a_bad_request():
    assert problem(write(app_with_orders(), headers={"content-length": "many"})) == 400


def test_every_answer_forbids_sniffing():
    app = app_with_orders()
    for answer in (get(app, "/"), get(app, "/api/health"), get(app, "/nothing"), get(app, "/", host="evil.example"), write(app)):
        assert answer.headers["x-content-type-options"] == "nosniff"


SHARED = app_with_orders()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "note", "x"]) | st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_is_answered_with_a_server_error(body):
    answer = write(SHARED, body)
    assert answer.status in (200, 400, 422), answer.body
    if answer.status != 200:
        problem(answer)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(path=st.text(max_size=60), query=st.binary(max_size=60))
def test_no_path_or_query_is_answered_with_a_server_error(path, query):
    for prefix in ("/", "/api/book/", "/api/history/microstructure/"):
        answer = asyncio.run(ask(SHARED, "GET", prefix + path, query=query))
        assert answer.status < 500
        if answer.status >= 400:
            problem(answer)
