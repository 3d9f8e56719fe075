"""The routes of trading: what the host is asked, what is answered, and every way in which a request is refused."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from fake_host import BTC, ETH, ORDER_STATES, PORTFOLIO, SIZING, Answer, FakeHost, ask, get, plan_of
from litestar import Litestar

from alphapack.api.answers import ID_LENGTH_MAX, ROWS_MAX
from alphapack.api.server import ApiSettings, create_app
from alphapack.api.trading_routes import HORIZON_S_MAX
from alphapack.domain.trading_readings import FillReport, SimulateRequest
from alphapack.engine.ports import (
    AlreadyReported,
    IngestRefused,
    Invalid,
    NotAccepting,
    NotDurable,
    NotReady,
    ReportRefused,
    UnknownDecision,
)

SIMULATE, FILLS = "/api/exec/simulate", "/api/exec/fills"
ORDER = {"symbol": "btcusdt", "size": 0.02}
FILL = {"decisionId": "5", "clientFillId": "a-1", "price": 60_000.5, "size": -0.02, "fee": -0.6, "ts_ms": 1_700_000_000_000}
NOT_NUMBERS = ['"0.02"', "true", "null", "[]", "{}"]
TOKEN = "correct-horse-battery-staple-0123456789"
READS = ["/api/exec/sizing/last", "/api/exec/orders", FILLS, "/api/exec/plans/5", "/api/portfolio", "/api/trades"]
LISTS = {"/api/exec/orders": "orders", FILLS: "fills", "/api/trades": "trades"}


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


def with_value(base: dict[str, Any], key: str, value: str) -> bytes:
    """Return ``base`` as JSON with the text ``value`` as it stands under ``key``."""
    rest = {name: found for name, found in base.items() if name != key}
    return json.dumps(rest).encode()[:-1] + f', "{key}": {value}}}'.encode()


def refused(answer: Answer, status: int) -> str:
    """Return the detail of a problem document."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.body
    assert answer.json["status"] == status
    detail: str = answer.json["detail"]
    return detail


def test_execution_planner_simulate_asks_with_the_defaults_and_answers_the_plan(app: Litestar, host: FakeHost) -> None:
    answer = post(app, SIMULATE, ORDER)
    asked = SimulateRequest("btcusdt", 0.02, "buy", 0.5, 300.0)
    assert answer.status == 200 and host.asked == [("simulate", BTC, asked)]
    assert answer.json == msgspec.to_builtins(plan_of(BTC, asked))
    assert {"bps", "quote", "half_spread_bps", "impact_bps", "fees_bps", "timing_risk_bps"} == set(answer.json["cost"])
    assert {"spread_bps", "depth", "micro_vol", "sigma", "adv"} <= set(answer.json["inputs"])
    assert answer.json["slices"][0] == {"t_s": 0.0, "size": 0.01}


@pytest.mark.parametrize(("urgency", "horizon_s"), [(0, 1.0), (1, HORIZON_S_MAX), (0.25, 60)])
def test_execution_planner_simulate_takes_the_whole_range(app: Litestar, host: FakeHost, urgency: float, horizon_s: float) -> None:
    answer = post(app, SIMULATE, {**ORDER, "size": 3, "side": "sell", "urgency": urgency, "horizon_s": horizon_s})
    assert answer.status == 200
    assert host.asked == [("simulate", BTC, SimulateRequest("btcusdt", 3.0, "sell", float(urgency), float(horizon_s)))]


@pytest.mark.parametrize("key", ["size", "urgency", "horizon_s"])
@pytest.mark.parametrize("value", [*NOT_NUMBERS, "-0.1", "-1", "9" * 400, "-1e308"])
def test_execution_planner_simulate_takes_numbers_in_range_alone(app: Litestar, host: FakeHost, key: str, value: str) -> None:
    answer = post(app, SIMULATE, with_value(ORDER, key, value))
    assert "xpected" in refused(answer, 422) or "out of range" in answer.json["detail"]
    assert answer.json["errors"][0]["key"] == key and host.asked == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("size", "0", "'size': expected base units above 0, found '0.0'"),
        ("size", "-0", "'size': expected base units above 0, found '0.0'"),
        ("size", "-0.0", "'size': expected base units above 0, found '-0.0'"),
        ("urgency", "1.0001", "'urgency': expected 0 to 1, found '1.0001'"),
        ("horizon_s", "0", "'horizon_s': expected seconds from 1 to 86400, found '0.0'"),
        ("horizon_s", "86400.1", "'horizon_s': expected seconds from 1 to 86400, found '86400.1'"),
    ],
)
def test_execution_planner_simulate_says_what_was_expected_and_what_came(app: Litestar, key: str, value: str, expected: str) -> None:
    assert refused(post(app, SIMULATE, with_value(ORDER, key, value)), 422) == expected


def test_execution_planner_simulate_names_every_field_at_fault(app: Litestar) -> None:
    answer = post(app, SIMULATE, {**ORDER, "size": -1, "urgency": 2, "horizon_s": 1e9})
    refused(answer, 422)
    assert [item["key"] for item in answer.json["errors"]] == ["size", "urgency", "horizon_s"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({**ORDER, "price": 1}, 422, "`price`"),
        ({"size": 1}, 422, "`symbol`"),
        ({"symbol": "BTCUSDT"}, 422, "`size`"),
        ({**ORDER, "symbol": 7}, 422, "str"),
        ({**ORDER, "side": "Buy"}, 422, "Buy"),
        ({**ORDER, "side": None}, 422, "side"),
        (b"[]", 422, "array"),
        (b"null", 422, "null"),
        (b"", 422, "data"),
        (b'{"symbol": "BTCUSDT", "size": NaN}', 400, "expected a JSON body"),
        (b'{"symbol": "BTCUSDT", "size": Infinity}', 400, "expected a JSON body"),
        (b'{"symbol": "BTCUSDT", "size": 1', 400, "expected a JSON body"),
        (b'{"symbol": "\\ud800", "size": 1}', 400, "expected a JSON body"),
        (b'{"symbol": "\xff", "size": 1}', 400, "expected a JSON body"),
        (b"[" * 20_000, 400, "expected a JSON body"),
        ({**ORDER, "symbol": ""}, 404, "unknown symbol ''"),
        ({**ORDER, "symbol": "DOGE"}, 404, "unknown symbol 'DOGE'"),
        ({**ORDER, "symbol": "\x00" * 5_000}, 404, "unknown symbol"),
    ],
)
def test_execution_planner_simulate_refuses_hostile_bodies(
    app: Litestar, host: FakeHost, body: bytes | dict[str, Any], status: int, said: str
) -> None:
    assert said in refused(post(app, SIMULATE, body), status) and host.asked == []


def test_execution_planner_simulate_without_data_is_503_and_says_when_to_come_back(app: Litestar) -> None:
    answer = post(app, SIMULATE, {**ORDER, "symbol": "ETHUSDT"})
    assert refused(answer, 503) == f"{ETH}: expected a LIVE book, found it SYNCING" and answer.headers["retry-after"] == "60"


def test_execution_planner_simulate_of_more_than_can_be_planned_is_422() -> None:
    host = FakeHost(refusal=Invalid("expected at most 4503599627370496 lots, found 1e+300"))
    assert "lots" in refused(post(create_app(host, ApiSettings()), SIMULATE, {**ORDER, "size": 1e300}), 422)


@pytest.mark.parametrize("path", [SIMULATE, FILLS])
@pytest.mark.parametrize("media", ["", "text/plain", "application/x-ndjson", "application/x-www-form-urlencoded"])
def test_execution_planner_posts_declared_as_something_else_are_415(app: Litestar, path: str, media: str) -> None:
    refused(post(app, path, ORDER, headers={"content-type": media}), 415)


@pytest.mark.parametrize(("path", "body"), [(SIMULATE, ORDER), (FILLS, FILL)])
def test_execution_planner_posts_need_the_token_the_own_origin_and_a_small_body(path: str, body: dict[str, Any]) -> None:
    guarded = create_app(FakeHost(), ApiSettings(token=TOKEN))
    refused(post(guarded, path, body), 401)
    assert post(guarded, path, body, headers={"authorization": f"Bearer {TOKEN}"}).status == 200
    refused(post(create_app(FakeHost(), ApiSettings()), path, body, headers={"origin": "https://elsewhere.example"}), 403)
    refused(post(create_app(FakeHost(), ApiSettings(body_max_bytes=1_000)), path, json.dumps(body).encode() + b" " * 1_000), 413)


@pytest.mark.parametrize("path", [SIMULATE, FILLS])
def test_execution_planner_posts_take_no_query(app: Litestar, path: str) -> None:
    assert refused(post(app, path, ORDER, query=b"dry=1"), 422).startswith("'dry'")


@pytest.mark.parametrize("path", READS)
def test_execution_planner_reads_need_no_token(path: str) -> None:
    answer = get(create_app(FakeHost(), ApiSettings(token=TOKEN)), path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.headers["x-alphapack-seq"], answer.headers["cache-control"]) == ("42", "no-store")


@pytest.mark.parametrize("path", READS)
def test_execution_planner_reads_refuse_unknown_parameters(app: Litestar, path: str) -> None:
    assert refused(get(app, path, "decisionId=5"), 422).startswith("'decisionId'")


def test_execution_planner_sizing_is_the_last_of_a_symbol_or_of_any(app: Litestar, host: FakeHost) -> None:
    answer = get(app, "/api/exec/sizing/last")
    assert answer.json == msgspec.to_builtins(SIZING) and host.asked.pop() == ("sizing", None)
    assert {"ts_ms", "symbol", "decisionId", "h", "sigmaHAR", "sigmaGARCH", "sigmaUsed", "rule", "targetVol", "kelly", "winProb", "rawSize",
            "caps", "probe", "size"} <= set(answer.json)  # fmt: skip
    assert {"z", "edge", "variance", "fraction", "cap"} <= set(answer.json["kelly"]) and isinstance(answer.json["equity"], int)
    assert get(app, "/api/exec/sizing/last", "symbol=btcusdt").status == 200 and host.asked.pop() == ("sizing", BTC)


def test_execution_planner_sizing_that_is_not_there_is_503(app: Litestar, host: FakeHost) -> None:
    assert refused(get(app, "/api/exec/sizing/last", "symbol=ETHUSDT"), 503).startswith(f"{ETH}: expected a decision")
    host.unready = True
    answer = get(app, "/api/exec/sizing/last")
    assert refused(answer, 503).startswith("expected a decision") and answer.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    ("query", "asked", "ids"),
    [
        ("", (None, None, None, 100), ["5", "4", "3", "2", "1"]),
        ("symbol=btcusdt", (BTC, None, None, 100), ["5", "3", "1"]),
        ("state=open&limit=1", (None, "open", None, 1), ["5"]),
        (f"state=filled&limit={ROWS_MAX}", (None, "filled", None, ROWS_MAX), ["3"]),
        ("cursor=3", (None, None, 3, 100), ["2", "1"]),
        ("cursor=0", (None, None, 0, 100), []),
        ("symbol=ETHUSDT&state=cancelled&cursor=9007199254740991", (ETH, "cancelled", 9_007_199_254_740_991, 100), ["2"]),
    ],
)
def test_execution_planner_orders_are_asked_as_stated(
    app: Litestar, host: FakeHost, query: str, asked: tuple[object, ...], ids: list[str]
) -> None:
    answer = get(app, "/api/exec/orders", query)
    assert answer.status == 200 and host.asked == [("orders", *asked)]
    assert [row["id"] for row in answer.json["orders"]] == ids


def test_execution_planner_orders_take_every_state(app: Litestar) -> None:
    for state in set(ORDER_STATES.values()):
        assert [row["state"] for row in get(app, "/api/exec/orders", f"state={state}").json["orders"]] == [state]


def test_execution_planner_orders_have_nulls_for_what_is_not_known(app: Litestar) -> None:
    row = get(app, "/api/exec/orders", "limit=1").json["orders"][0]
    assert (row["queue_ahead"], row["average_price"], row["ended_ms"]) == (None, None, None)
    assert row["decisions"] == {"5": -0.03, "4": 0.01} and isinstance(row["fees"], int)


@pytest.mark.parametrize(("path", "name"), LISTS.items())
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_execution_planner_pages_are_the_list(app: Litestar, path: str, name: str, limit: int) -> None:
    seen, cursor, pages = [], "", 0
    while cursor is not None and pages < 10:
        page = get(app, path, f"limit={limit}" + (f"&cursor={cursor}" if cursor else "")).json
        assert list(page) == ["next", name] and len(page[name]) <= limit
        seen += [row.get("id", row.get("tradeId")) for row in page[name]]
        cursor, pages = page["next"], pages + 1
    assert seen == ["5", "4", "3", "2", "1"] and pages == -(-5 // limit)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", ["", "-1", "01", "1.0", "1e3", "abc", "1%200", "%D9%A1", "9" * 17, "%00", "null", "5%0A"])
def test_execution_planner_cursors_that_no_page_gave_are_422(app: Litestar, host: FakeHost, path: str, cursor: str) -> None:
    assert "'cursor': expected the next of another page, found" in refused(get(app, path, f"cursor={cursor}"), 422) and host.asked == []


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("query", ["limit=0", f"limit={ROWS_MAX + 1}", "limit=-1", "limit=1.5", "limit=", "cursor=1&cursor=2"])
def test_execution_planner_lists_are_bounded(app: Litestar, host: FakeHost, path: str, query: str) -> None:
    refused(get(app, path, query), 422)
    assert host.asked == []


@pytest.mark.parametrize("path", [*LISTS, "/api/exec/sizing/last"])
@pytest.mark.parametrize("symbol", ["DOGE", "", "all", "%00"])
def test_execution_planner_lists_of_unknown_symbols_are_404(app: Litestar, host: FakeHost, path: str, symbol: str) -> None:
    assert refused(get(app, path, f"symbol={symbol}"), 404).startswith("unknown symbol") and host.asked == []


@pytest.mark.parametrize(
    ("path", "state", "known"),
    [
        *(("/api/exec/orders", state, "open, sent, working, filled, cancelled, rejected") for state in ("", "Open", "closed", "done")),
        *(("/api/trades", state, "open, closed") for state in ("", "OPEN", "filled", "open,closed")),
    ],
)
def test_execution_planner_states_are_those_that_there_are(app: Litestar, host: FakeHost, path: str, state: str, known: str) -> None:
    assert refused(get(app, path, f"state={state}"), 422) == f"'state': expected one of {known}, found {state!r}" and host.asked == []


def test_execution_planner_fills_show_money_as_integers(app: Litestar, host: FakeHost) -> None:
    answer = get(app, FILLS, "symbol=BTCUSDT&cursor=5&limit=1")
    assert host.asked == [("fills", BTC, 5, 1)] and answer.json["next"] == "3"
    (row,) = answer.json["fills"]
    assert (row["value"], row["fee"], row["impact"]) == (60_000_000_000, -12_000_001, 0)
    assert b'"fee":-12000001,' in answer.body and row["markouts_bps"] == {"1": 0.5, "5": None, "60": None}


def test_execution_planner_trades_are_open_and_closed(app: Litestar, host: FakeHost) -> None:
    assert [row["tradeId"] for row in get(app, "/api/trades", "state=open").json["trades"]] == ["5", "4"]
    answer = get(app, "/api/trades", "symbol=BTCUSDT&state=closed&limit=1&cursor=4")
    assert host.asked[-1] == ("trades", BTC, "closed", 4, 1) and answer.json["next"] == "3"
    (row,) = answer.json["trades"]
    assert (row["tradeId"], row["decisionId"], row["pnl"], row["state"]) == ("3", "3", -123_456_789, "closed")
    assert b'"turnover":1152921504606846976,' in answer.body, "money keeps its last unit"


def test_execution_planner_plans_are_of_one_decision(app: Litestar, host: FakeHost) -> None:
    answer = get(app, "/api/exec/plans/5").json
    assert host.asked == [("plans", "5")] and (answer["decisionId"], answer["policy"], answer["state"]) == ("5", "momentum", "open")
    entry, leave = answer["plans"]
    assert (entry["leg"], entry["plan"]["side"], entry["costs"]["slippage"]) == ("entry", "sell", 80_000_000)
    assert (leave["leg"], leave["plan"], leave["costs"]["opportunity"]) == ("exit", None, None)


@pytest.mark.parametrize("decision", ["6", "latest", "-1", "x" * ID_LENGTH_MAX])
def test_execution_planner_plans_of_an_unknown_decision_are_404(app: Litestar, host: FakeHost, decision: str) -> None:
    assert refused(get(app, f"/api/exec/plans/{decision}"), 404).startswith(f"unknown decision '{decision}'")
    assert host.asked == [("plans", decision)]


@pytest.mark.parametrize("decision", ["x" * (ID_LENGTH_MAX + 1), "\x00", "a\u2028b"])
def test_execution_planner_plans_of_what_is_no_id_are_404_unasked(app: Litestar, host: FakeHost, decision: str) -> None:
    refused(get(app, f"/api/exec/plans/{decision}"), 404)
    assert host.asked == []


def test_execution_planner_portfolio_is_answered_whole(app: Litestar, host: FakeHost) -> None:
    answer = get(app, "/api/portfolio")
    assert msgspec.json.decode(answer.body) == msgspec.json.decode(msgspec.json.encode(PORTFOLIO))
    money = ("capital", "cash", "equity", "realised", "unrealised", "fees", "impact", "funding", "turnover", "gross", "net", "peak_equity")
    assert all(type(answer.json[key]) is int for key in money)
    assert answer.json["markouts"][0]["bps"] is None and answer.json["positions"][0]["unrealised"] is None
    host.unready = True
    missing = get(app, "/api/portfolio")
    assert refused(missing, 503) == "expected the settings of a session, found none yet" and missing.headers["retry-after"] == "60"


@pytest.mark.parametrize("symbol", ["all", "ALL", "btcusdt", BTC])
def test_execution_planner_equity_is_the_portfolios_whatever_the_symbol(app: Litestar, host: FakeHost, symbol: str) -> None:
    answer = get(app, f"/api/history/equity/{symbol}", "from_ms=7&limit=2")
    assert answer.json["equity"] == [10_000_000_000_000, 2**60] and host.asked == [("history", "equity", "all", 7, 2)]


def test_execution_planner_equity_of_no_symbol_is_404_and_so_is_all_of_another_kind(app: Litestar) -> None:
    for path in ("/api/history/equity/DOGE", "/api/history/microstructure/all", "/api/history/smile/all"):
        assert refused(get(app, path), 404).startswith("unknown symbol")


def test_execution_planner_fill_report_is_taken_once(app: Litestar, host: FakeHost) -> None:
    answer = post(app, FILLS, FILL)
    assert host.reports == [FillReport("5", "a-1", 60_000.5, -0.02, -0.6, 1_700_000_000_000)]
    assert (answer.status, answer.json) == (
        200,
        {"decisionId": "5", "clientFillId": "a-1", "position": -0.02, "fills": 1, "seq": 43, "durable_seq": 43},
    )
    assert refused(post(app, FILLS, FILL), 409) == "fill 'a-1' was reported before"
    assert "found '6'" in refused(post(app, FILLS, {**FILL, "decisionId": "6"}), 404) and len(host.reports) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"decisionId": "5", "clientFillId": "\N{GREEK SMALL LETTER ALPHA}" * ID_LENGTH_MAX},
        {"price": 1, "size": 1, "fee": 0},
        {"price": 5e-324, "size": 1e-300, "fee": 1e9},
        {"ts_ms": 0},
        {"ts_ms": 2**53 - 1},
    ],
)
def test_execution_planner_fill_report_takes_the_whole_range(app: Litestar, host: FakeHost, change: dict[str, Any]) -> None:
    assert post(app, FILLS, {**FILL, **change}).status == 200 and len(host.reports) == 1


@pytest.mark.parametrize("key", ["price", "size", "fee", "ts_ms"])
@pytest.mark.parametrize("value", [*NOT_NUMBERS, "9" * 400])
def test_execution_planner_fill_report_takes_numbers_alone(app: Litestar, host: FakeHost, key: str, value: str) -> None:
    answer = post(app, FILLS, with_value(FILL, key, value))
    refused(answer, 422)
    assert answer.json["errors"][0]["key"] == key and host.reports == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("decisionId", "clientFillId") for value in ('""', f'"{"x" * 65}"', '"a\\u0000"', '"a\\n"', "5", "null")),
        *(("price", value) for value in ("0", "-0", "-0.0", "-1")),
        *(("size", value) for value in ("0", "-0", "0.0", "1e-400")),
        *(("ts_ms", value) for value in ("-1", "1.0", "1.5", "1e3", str(2**53), "9" * 30)),
    ],
)
def test_execution_planner_fill_report_refuses_what_is_out_of_range(app: Litestar, host: FakeHost, key: str, value: str) -> None:
    answer = post(app, FILLS, with_value(FILL, key, value))
    assert "xpected" in refused(answer, 422) and answer.json["errors"][0]["key"] == key and host.reports == []


@pytest.mark.parametrize("path", [SIMULATE, FILLS])
@pytest.mark.parametrize("number", ["1e400", "-1e309", "9" * 5_000])
def test_execution_planner_numbers_beyond_all_measure_are_never_taken(app: Litestar, host: FakeHost, path: str, number: str) -> None:
    for key in ("size", "price", "ts_ms"):
        answer = post(app, path, with_value(FILL if path == FILLS else ORDER, key, number))
        refused(answer, 422)
        assert len(answer.body) < 1_000
    assert host.asked == [] and host.reports == []


@pytest.mark.parametrize("key", FILL)
def test_execution_planner_fill_report_is_whole_and_nothing_more(app: Litestar, host: FakeHost, key: str) -> None:
    assert f"`{key}`" in refused(post(app, FILLS, {name: value for name, value in FILL.items() if name != key}), 422)
    assert "`note`" in refused(post(app, FILLS, {**FILL, "note": key}), 422) and host.reports == []


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (UnknownDecision("expected a decision that is known"), 404),
        (AlreadyReported("it was reported before"), 409),
        (NotAccepting("a recording"), 409),
        (Invalid("expected a price and a size whose product is money"), 422),
        (NotReady("starting"), 503),
        (NotDurable("disk full"), 507),
    ],
)
def test_execution_planner_fill_report_refusals_are_problem_documents(refusal: IngestRefused | ReportRefused, status: int) -> None:
    answer = post(create_app(FakeHost(refusal=refusal), ApiSettings()), FILLS, FILL)
    assert refused(answer, status) == str(refusal) and ("retry-after" in answer.headers) == (status == 503)


def test_execution_planner_fills_are_read_and_reported_on_one_path(app: Litestar) -> None:
    answer = asyncio.run(ask(app, "DELETE", FILLS))
    refused(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert refused(get(app, SIMULATE), 405).startswith("expected ")
    assert asyncio.run(ask(app, "HEAD", FILLS)).status == 200
