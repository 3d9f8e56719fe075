"""The routes of decisions: what the host is asked, what is answered, and every way in which a request is refused."""

import asyncio
import json
import math
from typing import Any

import msgspec
import pytest
from fake_host import (
    ALPHA_READINGS,
    ATTRIBUTION,
    BTC,
    DECISION_ORIGINS,
    ETH,
    Answer,
    FakeHost,
    ask,
    decision_of,
    decision_row_of,
    get,
    snapshot_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar

from alphapack.api.answers import ID_LENGTH_MAX, ROWS_MAX
from alphapack.api.routing_routes import REWARD_BPS_MAX
from alphapack.api.server import ApiSettings, create_app
from alphapack.engine.ports import (
    AlreadyReported,
    Busy,
    IngestRefused,
    NotAccepting,
    NotDurable,
    NotReady,
    ReportRefused,
    UnknownDecision,
)
from alphapack.models.features import FEATURES, Feature

CHOOSE, REWARD = "/api/router/choose", "/api/router/reward"
SNAPSHOT, DECISIONS = "/api/router/snapshot", "/api/router/decisions"
REGISTRY, ATTRIBUTED = "/api/alpha/registry", "/api/alpha/attribution"
CONTEXT = {"context": {"symbol": "btcusdt"}}
EARNED = {"decisionId": "5", "reward_bps": -1.25}
READS = [SNAPSHOT, DECISIONS, f"{DECISIONS}/5", REGISTRY, ATTRIBUTED]
TOKEN = "correct-horse-battery-staple-0123456789"
BOUNDED = [feature for feature in FEATURES if math.isfinite(feature.high)]
REFUSALS = [(NotAccepting("a recording"), 409), (NotReady("starting"), 503), (Busy("one is waiting"), 503), (NotDurable("disk full"), 507)]


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture(scope="module")
def unguarded() -> Litestar:
    """An application; made once, as that takes longer than a request."""
    return create_app(FakeHost(), ApiSettings())


@pytest.fixture
def app(unguarded: Litestar, host: FakeHost) -> Litestar:
    unguarded.state.host = host
    return unguarded


def post(app: Litestar, path: str, body: bytes | dict[str, Any], **options: Any) -> Answer:
    headers = {"content-type": "application/json", **options.pop("headers", {})}
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asyncio.run(ask(app, "POST", path, headers=headers, chunks=(sent,), **options))


def chosen(app: Litestar, **features: Any) -> Answer:
    """Ask for advice about BTC, some features overridden."""
    return post(app, CHOOSE, {"context": {"symbol": "btcusdt", **features}})


def stated(key: str, value: str) -> bytes:
    """Return a context with the text ``value`` as it stands under ``key``."""
    return f'{{"context": {{"symbol": "btcusdt", "{key}": {value}}}}}'.encode()


def earned(key: str, value: str) -> bytes:
    """Return a reward with the text ``value`` as it stands under ``key``."""
    rest = {name: found for name, found in EARNED.items() if name != key}
    return json.dumps(rest).encode()[:-1] + f', "{key}": {value}}}'.encode()


def refused(answer: Answer, status: int) -> str:
    """Return the detail of a problem document."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.body
    assert answer.json["status"] == status
    detail: str = answer.json["detail"]
    return detail


def keys(answer: Answer) -> list[str]:
    """Return which fields a problem document finds fault with."""
    return [item["key"] for item in answer.json["errors"]]


# Advice


def test_router_alpha_aware_choose_asks_with_what_is_overridden_alone(app: Litestar, host: FakeHost) -> None:
    answer = chosen(app, obi=0.5, sigmaHAR=0, rr25=-0.03)
    assert answer.status == 200 and host.asked == [("choose", BTC, {"obi": 0.5, "sigmaHAR": 0.0, "rr25": -0.03})]
    assert answer.json == {
        "decisionId": "6",
        "ts_ms": 1_700_000_000_006,
        "symbol": "BTCUSDT",
        "policy": "momentum",
        "exposure": -0.5,
        "scores": {"momentum": 0.31, "flat": 0.0},
        "propensities": {"momentum": 0.625, "flat": 0.375},
        "features": {"ti": None, "obi": 0.5, "spread_bps": 0.5, "sigmaHAR": 0.0, "rr25": -0.03},
        "sources": {"obi": "request", "spread_bps": "live", "ti": "missing", "sigmaHAR": "request", "rr25": "request"},
        "signals": {"obi_pressure": -0.7, "skew_turn": None},
        "proposals": {"momentum": -0.5},
        "winProb": 0.53,
        "seq": 43,
        "durable_seq": 43,
    }


@pytest.mark.parametrize("symbol", ["BTCUSDT", "btcusdt", BTC, BTC.upper()])
def test_router_alpha_aware_choose_takes_a_symbol_by_any_of_its_names(app: Litestar, host: FakeHost, symbol: str) -> None:
    assert post(app, CHOOSE, {"context": {"symbol": symbol}}).status == 200 and host.asked == [("choose", BTC, {})]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda one: one.name)
def test_router_alpha_aware_choose_takes_every_feature_in_its_range(app: Litestar, host: FakeHost, feature: Feature) -> None:
    good = [feature.centre, *(bound for bound in (feature.low, feature.high) if math.isfinite(bound))]
    for value in good:
        assert chosen(app, **{feature.name: value}).status == 200
    assert host.asked == [("choose", BTC, {feature.name: value}) for value in good]


@pytest.mark.parametrize("feature", BOUNDED, ids=lambda one: one.name)
def test_router_alpha_aware_choose_refuses_a_feature_out_of_its_range(app: Litestar, host: FakeHost, feature: Feature) -> None:
    for value in (math.nextafter(feature.low, -math.inf), math.nextafter(feature.high, math.inf), 2 * feature.high):
        answer = chosen(app, **{feature.name: value})
        assert f"'context.{feature.name}': expected {feature.low:g} to {feature.high:g}, found" in refused(answer, 422)
        assert keys(answer) == [f"context.{feature.name}"]
    assert host.asked == []


def test_router_alpha_aware_choose_takes_what_a_book_shows_too(app: Litestar, host: FakeHost) -> None:
    assert chosen(app, mid=60_000.5, depth_bid=3).status == 200
    assert host.asked == [("choose", BTC, {"mid": 60_000.5, "depth_bid": 3.0})]


@pytest.mark.parametrize(
    ("name", "near"),
    [("spread", "spread_bps"), ("sigmaHar", "sigmaHAR"), ("rr_25", "rr25"), ("iv_slope", "iv_term_slope"), ("weather", "")],
)
def test_router_alpha_aware_choose_names_the_feature_that_is_nearest(app: Litestar, host: FakeHost, name: str, near: str) -> None:
    answer = chosen(app, **{name: 0.5})
    hint = f"; the nearest is {near!r}" if near else ""
    assert refused(answer, 422) == f"'context.{name}': expected a feature, found {name!r}{hint}"
    assert keys(answer) == [f"context.{name}"] and host.asked == []


@pytest.mark.parametrize("value", ['"0.5"', '"NaN"', '""', "true", "false", "null", "[]", "{}", "9" * 400, "1e400", "-1e309"])
@pytest.mark.parametrize("key", ["obi", "ofi", "mid"])
def test_router_alpha_aware_choose_takes_numbers_alone(app: Litestar, host: FakeHost, key: str, value: str) -> None:
    answer = post(app, CHOOSE, stated(key, value))
    assert "xpected" in refused(answer, 422) or "out of range" in answer.json["detail"]
    assert keys(answer)[0].startswith("context") and host.asked == []


def test_router_alpha_aware_choose_says_what_came_for_a_number(app: Litestar) -> None:
    assert refused(chosen(app, obi="0.5"), 422) == "'context.obi': expected a finite number, found '0.5'"


def test_router_alpha_aware_choose_finds_every_fault_at_once(app: Litestar, host: FakeHost) -> None:
    answer = post(app, CHOOSE, {"context": {"obi": 2, "vpin": "x", "ti": 0.5, "weather": 1}})
    refused(answer, 422)
    assert keys(answer) == ["context.symbol", "context.obi", "context.vpin", "context.weather"] and host.asked == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"context": {}}, 422, "'context.symbol': expected the name of a symbol, found none"),
        ({"context": {"obi": 0.1}}, 422, "'context.symbol': expected the name of a symbol, found none"),
        ({"context": {"symbol": 7}}, 422, "'context.symbol': expected the name of a symbol, found a number"),
        ({"context": {"symbol": None}}, 422, "null"),
        ({"context": {"symbol": "BTCUSDT"}, "explore": False}, 422, "`explore`"),
        ({"symbol": "BTCUSDT"}, 422, "`symbol`"),
        ({"context": [{"symbol": "BTCUSDT"}]}, 422, "array"),
        ({"context": None}, 422, "null"),
        ({}, 422, "`context`"),
        (b"[]", 422, "array"),
        (b"null", 422, "null"),
        (b"", 422, "data"),
        (stated("obi", "NaN"), 400, "expected a JSON body"),
        (stated("obi", "-Infinity"), 400, "expected a JSON body"),
        (stated("obi", "01"), 400, "expected a JSON body"),
        (b'{"context": {"symbol": "BTCUSDT"}', 400, "expected a JSON body"),
        (b'{"context": {"symbol": "\\ud800"}}', 400, "expected a JSON body"),
        (b'{"context": {"symbol": "\xff"}}', 400, "expected a JSON body"),
        (b'{"context":' * 20_000, 400, "expected a JSON body"),
        ({"context": {"symbol": ""}}, 404, "unknown symbol ''"),
        ({"context": {"symbol": "DOGE", "obi": 0.1}}, 404, "unknown symbol 'DOGE'"),
        ({"context": {"symbol": "\x00" * 5_000}}, 404, "unknown symbol"),
    ],
)
def test_router_alpha_aware_choose_refuses_hostile_bodies(
    app: Litestar, host: FakeHost, body: bytes | dict[str, Any], status: int, said: str
) -> None:
    assert said in refused(post(app, CHOOSE, body), status) and host.asked == []


@pytest.mark.parametrize("features", [{f"obi{number}": 1.0 for number in range(2_000)}, {"obi" * 100_000: 1.0}, {"\x00\u202e": 1.0}])
def test_router_alpha_aware_choose_refuses_any_names_in_few_words(app: Litestar, host: FakeHost, features: dict[str, float]) -> None:
    answer = chosen(app, **features)
    refused(answer, 422)
    assert len(answer.body) < 50_000 and host.asked == []


def test_router_alpha_aware_choose_without_data_is_503_and_says_when_to_come_back(app: Litestar) -> None:
    answer = post(app, CHOOSE, {"context": {"symbol": "ETHUSDT"}})
    assert refused(answer, 503) == f"{ETH}: expected a LIVE book, found it SYNCING" and answer.headers["retry-after"] == "60"


@pytest.mark.parametrize(("refusal", "status"), REFUSALS)
def test_router_alpha_aware_choose_refusals_are_problem_documents(
    app: Litestar, host: FakeHost, refusal: IngestRefused, status: int
) -> None:
    host.refusal = refusal
    answer = chosen(app)
    assert refused(answer, status) == str(refusal) and answer.headers.get("retry-after") == ("1" if status == 503 else None)


NAMES = st.sampled_from(["symbol", "obi", "sigmaHAR", "mid", "weather"]) | st.text(max_size=8)
VALUES = st.sampled_from(["btcusdt", "ETHUSDT", "DOGE"]) | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
SHARED = create_app(FakeHost(), ApiSettings())


@settings(max_examples=80)
@given(context=st.dictionaries(NAMES, VALUES, max_size=5), key=st.sampled_from(["context"] * 9 + ["contexts"]))
def test_router_alpha_aware_choose_is_never_a_server_error(context: dict[str, object], key: str) -> None:
    answer = post(SHARED, CHOOSE, {key: context})
    if answer.status != 200:
        assert answer.status in (400, 404, 422) or (answer.status == 503 and context["symbol"] == "ETHUSDT"), answer.body
        refused(answer, answer.status)


# What advice came to


def test_router_alpha_aware_reward_is_taken_once(app: Litestar, host: FakeHost) -> None:
    answer = post(app, REWARD, EARNED)
    assert (answer.status, answer.json) == (
        200,
        {"decisionId": "5", "policy": "momentum", "reward_bps": -1.25, "n": 13, "seq": 43, "durable_seq": 43},
    )
    assert refused(post(app, REWARD, {**EARNED, "reward_bps": 2}), 409) == "the reward of '5' was reported before"
    assert "found '6'" in refused(post(app, REWARD, {**EARNED, "decisionId": "6"}), 404)
    assert host.rewards == {"5": -1.25}


@pytest.mark.parametrize("bps", [0, -0.0, 5e-324, 7, REWARD_BPS_MAX, -REWARD_BPS_MAX])
def test_router_alpha_aware_reward_takes_the_whole_range(app: Litestar, host: FakeHost, bps: float) -> None:
    assert post(app, REWARD, {**EARNED, "reward_bps": bps}).status == 200 and host.rewards == {"5": bps}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("decisionId", value) for value in ('""', f'"{"x" * (ID_LENGTH_MAX + 1)}"', '"a\\u0000"', '"5\\n"', "5", "null", "true")),
        *(("reward_bps", value) for value in ('"1"', "true", "null", "[]", "{}", "1000000.1", "-1000001", "1e400", "9" * 400)),
    ],
)
def test_router_alpha_aware_reward_refuses_what_is_out_of_range(app: Litestar, host: FakeHost, key: str, value: str) -> None:
    answer = post(app, REWARD, earned(key, value))
    assert "xpected" in refused(answer, 422) or "out of range" in answer.json["detail"]
    assert keys(answer) == [key] and host.rewards == {}


def test_router_alpha_aware_reward_finds_every_fault_at_once(app: Litestar) -> None:
    answer = post(app, REWARD, {"decisionId": "", "reward_bps": 1e7})
    assert refused(answer, 422) == (
        "'decisionId': expected 1 to 64 printable characters, found ''; 'reward_bps': expected bps within 1e+06, found '10000000.0'"
    )


@pytest.mark.parametrize(
    "body", [earned("reward_bps", value) for value in ("NaN", "Infinity", "-Infinity", "1,", "0x1")] + [b'{"a"', b"\xff"]
)
def test_router_alpha_aware_reward_of_no_json_is_400(app: Litestar, host: FakeHost, body: bytes) -> None:
    assert refused(post(app, REWARD, body), 400).startswith("expected a JSON body") and host.rewards == {}


@pytest.mark.parametrize("key", EARNED)
def test_router_alpha_aware_reward_is_whole_and_nothing_more(app: Litestar, host: FakeHost, key: str) -> None:
    assert f"`{key}`" in refused(post(app, REWARD, {name: value for name, value in EARNED.items() if name != key}), 422)
    assert "`note`" in refused(post(app, REWARD, {**EARNED, "note": key}), 422) and host.rewards == {}


@pytest.mark.parametrize(
    ("refusal", "status"),
    [(UnknownDecision("expected a decision that is known"), 404), (AlreadyReported("it was reported before"), 409), *REFUSALS],
)
def test_router_alpha_aware_reward_refusals_are_problem_documents(
    app: Litestar, host: FakeHost, refusal: IngestRefused | ReportRefused, status: int
) -> None:
    host.refusal = refusal
    answer = post(app, REWARD, EARNED)
    assert refused(answer, status) == str(refusal) and answer.headers.get("retry-after") == ("1" if status == 503 else None)


# Who may ask, and how


@pytest.mark.parametrize("path", [CHOOSE, REWARD])
@pytest.mark.parametrize("media", ["", "text/plain", "application/x-ndjson", "application/x-www-form-urlencoded"])
def test_router_alpha_aware_posts_declared_as_something_else_are_415(app: Litestar, path: str, media: str) -> None:
    refused(post(app, path, CONTEXT, headers={"content-type": media}), 415)


@pytest.mark.parametrize(("path", "body"), [(CHOOSE, CONTEXT), (REWARD, EARNED)])
def test_router_alpha_aware_posts_need_the_token_the_own_origin_and_a_small_body(app: Litestar, path: str, body: dict[str, Any]) -> None:
    refused(post(app, path, body, headers={"origin": "https://elsewhere.example"}), 403)
    assert post(app, path, body, headers={"origin": "http://127.0.0.1:5000"}).status == 200
    strict_host = FakeHost()
    strict = create_app(strict_host, ApiSettings(token=TOKEN, body_max_bytes=1_000))
    refused(post(strict, path, body), 401)
    refused(post(strict, path, body, headers={"authorization": f"Bearer {TOKEN}x"}), 401)
    own = {"authorization": f"Bearer {TOKEN}"}
    refused(post(strict, path, json.dumps(body).encode() + b" " * 1_000, headers=own), 413)
    assert (strict_host.asked, strict_host.rewards) == ([], {})
    assert post(strict, path, body, headers=own).status == 200


@pytest.mark.parametrize("path", [CHOOSE, REWARD])
def test_router_alpha_aware_posts_take_no_query_and_no_other_method(app: Litestar, path: str) -> None:
    assert refused(post(app, path, CONTEXT, query=b"dry=1"), 422).startswith("'dry'")
    answer = get(app, path)
    assert refused(answer, 405) == "expected OPTIONS, POST, found GET" and answer.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize("path", READS)
def test_router_alpha_aware_reads_need_no_token(path: str) -> None:
    answer = get(create_app(FakeHost(), ApiSettings(token=TOKEN)), path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.headers["x-alphapack-seq"], answer.headers["cache-control"]) == ("42", "no-store")


@pytest.mark.parametrize("path", READS)
def test_router_alpha_aware_reads_refuse_unknown_parameters_and_writes(app: Litestar, host: FakeHost, path: str) -> None:
    assert refused(get(app, path, "policy=momentum"), 422).startswith("'policy'")
    assert refused(post(app, path, CONTEXT), 405) == "expected GET, HEAD, OPTIONS, found POST" and host.asked == []
    assert asyncio.run(ask(app, "HEAD", path)).status == 200


# Beliefs and records


@pytest.mark.parametrize(
    ("query", "asked", "number"),
    [
        ("", (None, None), 5),
        ("symbol=ethusdt", (ETH, None), 4),
        ("origin=engine", (None, "engine"), 4),
        ("symbol=BTCUSDT&origin=engine", (BTC, "engine"), 3),
        ("origin=api&symbol=ETHUSDT", (ETH, "api"), 2),
    ],
)
def test_router_alpha_aware_snapshot_is_the_newest_of_what_is_asked(
    app: Litestar, host: FakeHost, query: str, asked: tuple[object, ...], number: int
) -> None:
    answer = get(app, SNAPSHOT, query)
    assert answer.status == 200 and host.asked == [("snapshot", *asked)]
    assert answer.json == msgspec.json.decode(msgspec.json.encode(snapshot_of(number)))
    assert answer.json["posterior"] == {
        "momentum": {"n": 12, "mean": 0.1, "sd": None}, "breakout": {"n": 0, "mean": None, "sd": None}
    }  # fmt: skip
    wanted = {"decisionId", "ts_ms", "symbol", "policy", "scores", "propensities", "features", "signals", "posterior"}
    assert wanted <= set(answer.json)


def test_router_alpha_aware_snapshot_of_no_decision_is_503(app: Litestar, host: FakeHost) -> None:
    host.unready = True
    for query, begin in (("", "expected a decision"), ("symbol=ETHUSDT", f"{ETH}: expected a decision")):
        answer = get(app, SNAPSHOT, query)
        assert refused(answer, 503).startswith(begin) and answer.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    ("query", "asked", "ids"),
    [
        ("", (None, None, None, 100), ["5", "4", "3", "2", "1"]),
        ("symbol=btcusdt", (BTC, None, None, 100), ["5", "3", "1"]),
        ("origin=api&limit=1", (None, "api", None, 1), ["5"]),
        (f"origin=engine&limit={ROWS_MAX}", (None, "engine", None, ROWS_MAX), ["4", "3", "1"]),
        ("cursor=3", (None, None, 3, 100), ["2", "1"]),
        ("cursor=0", (None, None, 0, 100), []),
        ("symbol=ETHUSDT&origin=api&cursor=9007199254740991", (ETH, "api", 9_007_199_254_740_991, 100), ["2"]),
    ],
)
def test_router_alpha_aware_decisions_are_asked_as_stated(
    app: Litestar, host: FakeHost, query: str, asked: tuple[object, ...], ids: list[str]
) -> None:
    answer = get(app, DECISIONS, query)
    assert answer.status == 200 and host.asked == [("decisions", *asked)]
    assert answer.json["decisions"] == [msgspec.to_builtins(decision_row_of(int(one))) for one in ids]


def test_router_alpha_aware_decisions_say_what_was_explored_and_for_whom(app: Litestar) -> None:
    rows = get(app, DECISIONS).json["decisions"]
    assert {row["decisionId"]: row["origin"] for row in rows} == {str(number): origin for number, origin in DECISION_ORIGINS.items()}
    assert [row["decisionId"] for row in rows if row["explored"]] == ["4"]
    assert {(row["policy"], row["propensity"], row["winProb"]) for row in rows} == {("momentum", 0.625, 0.53)}


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_router_alpha_aware_pages_of_decisions_are_the_list(app: Litestar, limit: int) -> None:
    seen, cursor, pages = [], "", 0
    while cursor is not None and pages < 10:
        page = get(app, DECISIONS, f"limit={limit}" + (f"&cursor={cursor}" if cursor else "")).json
        assert list(page) == ["next", "decisions"] and len(page["decisions"]) <= limit
        seen += [row["decisionId"] for row in page["decisions"]]
        cursor, pages = page["next"], pages + 1
    assert seen == ["5", "4", "3", "2", "1"] and pages == -(-5 // limit)


@pytest.mark.parametrize("cursor", ["", "-1", "01", "1.0", "1e3", "abc", "1%200", "%D9%A1", "9" * 17, "%00", "null", "5%0A"])
def test_router_alpha_aware_cursors_that_no_page_gave_are_422(app: Litestar, host: FakeHost, cursor: str) -> None:
    assert "'cursor': expected the next of another page, found" in refused(get(app, DECISIONS, f"cursor={cursor}"), 422)
    assert host.asked == []


@pytest.mark.parametrize("query", ["limit=0", f"limit={ROWS_MAX + 1}", "limit=-1", "limit=1.5", "limit=", "cursor=1&cursor=2"])
def test_router_alpha_aware_decisions_are_bounded(app: Litestar, host: FakeHost, query: str) -> None:
    refused(get(app, DECISIONS, query), 422)
    assert host.asked == []


@pytest.mark.parametrize("path", [SNAPSHOT, DECISIONS])
def test_router_alpha_aware_reads_take_symbols_and_origins_that_there_are(app: Litestar, host: FakeHost, path: str) -> None:
    for symbol in ("DOGE", "", "all", "%00"):
        assert refused(get(app, path, f"symbol={symbol}"), 404).startswith("unknown symbol")
    for origin in ("", "Engine", "paper", "engine,api"):
        assert refused(get(app, path, f"origin={origin}"), 422) == f"'origin': expected one of engine, api, found {origin!r}"
    assert host.asked == []


def test_router_alpha_aware_decision_is_answered_as_it_is_on_record(app: Litestar, host: FakeHost) -> None:
    answer = get(app, f"{DECISIONS}/5")
    assert host.asked == [("decision", "5")] and set(answer.json) == {"decisionId", "ts_ms", "record", "recomputed"}
    assert (answer.json["decisionId"], answer.json["ts_ms"], answer.json["recomputed"]) == ("5", 1_700_000_000_005, True)
    assert answer.json["record"] == msgspec.to_builtins(decision_of(5))
    assert {"features", "scores", "propensities", "mixtures", "uniforms", "posterior", "floor"} <= set(answer.json["record"])


@pytest.mark.parametrize("decision", ["6", "latest", "-1", "x" * ID_LENGTH_MAX])
def test_router_alpha_aware_unknown_decisions_are_404(app: Litestar, host: FakeHost, decision: str) -> None:
    assert refused(get(app, f"{DECISIONS}/{decision}"), 404).startswith(f"unknown decision '{decision}'; GET /api/router/decisions")
    assert host.asked == [("decision", decision)]


@pytest.mark.parametrize("decision", ["x" * (ID_LENGTH_MAX + 1), "\x00", "a\u2028b"])
def test_router_alpha_aware_decisions_of_what_is_no_id_are_404_unasked(app: Litestar, host: FakeHost, decision: str) -> None:
    assert refused(get(app, f"{DECISIONS}/{decision}"), 404).startswith("unknown decision ") and host.asked == []


# Alphas, and who is to be thanked


def test_router_alpha_aware_registry_lists_every_alpha_with_nulls_for_what_is_not_known(app: Litestar) -> None:
    answer = get(app, REGISTRY)
    assert answer.json == msgspec.json.decode(msgspec.json.encode(ALPHA_READINGS))
    good, failed = answer.json
    wanted = {"id", "desc", "inputs", "weight_init", "weight", "enabled", "status", "ic", "ic_t", "half_life_s", "turnover"}
    assert wanted <= set(good) and good["half_life_s"] is None
    assert (failed["enabled"], failed["status"], failed["ic"], failed["n"]) == (False, "division by zero", None, 0)


@pytest.mark.parametrize(("query", "asked"), [("", "latest"), ("tradeId=latest", "latest"), ("tradeId=3", "3")])
def test_alpha_attribution_is_of_one_trade_and_sums_to_the_unit(app: Litestar, host: FakeHost, query: str, asked: str) -> None:
    answer = get(app, ATTRIBUTED, query)
    assert host.asked == [("attribution", asked)] and answer.json == msgspec.to_builtins(ATTRIBUTION)
    found = answer.json
    assert set(found) >= {"tradeId", "decisionId", "symbol", "policy", "pnl", "base", "fees", "execution", "contributions"}
    assert set(found["contributions"][0]) == {"id", "signal", "weight", "shapley", "leaveOneOut"}
    money = [found["base"], found["fees"], found["execution"], *(one["shapley"] for one in found["contributions"])]
    assert {type(part) for part in money} == {int} and sum(money) == found["pnl"] == -123_456_789
    assert b'"leaveOneOut":-1152921504606846976}' in answer.body, "money keeps its last unit"


@pytest.mark.parametrize("trade", ["nosuch", "4", "Latest", "-3", "x" * ID_LENGTH_MAX])
def test_alpha_attribution_of_an_unknown_trade_is_404(app: Litestar, host: FakeHost, trade: str) -> None:
    assert refused(get(app, ATTRIBUTED, f"tradeId={trade}"), 404).startswith(f"unknown trade '{trade}'; GET /api/trades?state=closed")
    assert host.asked == [("attribution", trade)]


@pytest.mark.parametrize("trade", ["", "x" * (ID_LENGTH_MAX + 1), "%00", "3%0A", "%E2%80%A8"])
def test_alpha_attribution_of_what_is_no_id_is_404_unasked(app: Litestar, host: FakeHost, trade: str) -> None:
    assert refused(get(app, ATTRIBUTED, f"tradeId={trade}"), 404).startswith("unknown trade ") and host.asked == []


def test_alpha_attribution_of_the_latest_of_none_is_503(app: Litestar, host: FakeHost) -> None:
    host.unready = True
    answer = get(app, ATTRIBUTED)
    assert refused(answer, 503) == "expected a trade that has closed, found none yet" and answer.headers["retry-after"] == "60"


def test_alpha_attribution_is_of_one_trade_at_a_time(app: Litestar, host: FakeHost) -> None:
    refused(get(app, ATTRIBUTED, "tradeId=3&tradeId=4"), 422)
    assert host.asked == []
