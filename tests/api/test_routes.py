import asyncio
import json
import logging
import math
from pathlib import Path

import msgspec
import pytest
from fake_host import BTC, ETH, FakeHost, app_with_orders, ask, features, get

from alphapack.api.routes import HISTORY_ROWS_MAX, LEVELS_MAX, ROUTES, openapi_document
from alphapack.api.server import ApiSettings, create_app

COMMITTED = Path(__file__).parents[2] / "openapi.json"
REGENERATE = "python -c \"from alphapack.api.routes import openapi_document as d; open('openapi.json', 'wb').write(d())\""


@pytest.fixture
def host():
    return FakeHost()


@pytest.fixture
def app(host):
    return create_app(host, ApiSettings())


@pytest.mark.parametrize(("status", "code"), [("starting", 503), ("ready", 200), ("degraded", 200), ("ended", 200)])
def test_health_is_503_only_while_starting(app, host, status, code):
    host.status = status
    answer = get(app, "/api/health")
    assert (answer.status, answer.json["status"], answer.json["ledger"]["ok"]) == (code, status, True)
    assert answer.json["symbols"][BTC]["state"] == "LIVE"


def test_liveness_does_not_depend_on_the_engine(app, host):
    host.status = "starting"
    answer = get(app, "/api/health/live")
    assert (answer.status, answer.json) == (200, {"status": "live"})


def test_symbols_are_listed(app):
    assert [(row["symbol"], row["state"], row["tick"]) for row in get(app, "/api/symbols").json] == [
        ("BTCUSDT", "LIVE", 0.1),
        ("ETHUSDT", "SYNCING", 0.1),
    ]


@pytest.mark.parametrize(
    "name", ["BTCUSDT", "btcusdt", "binance-usdm:BTCUSDT", "BINANCE-USDM:btcusdt", "binance-usdm%3ABTCUSDT".replace("%3A", ":")]
)
def test_a_symbol_is_found_by_any_of_its_names(app, name):
    assert get(app, f"/api/microstructure/{name}").json == msgspec.to_builtins(features())


def test_a_book_has_as_many_levels_as_asked(app, host):
    for query, depth in [("", 20), ("depth=1", 1), (f"depth={LEVELS_MAX}", LEVELS_MAX)]:
        answer = get(app, "/api/book/btcusdt", query)
        assert (answer.status, len(answer.json["bids"]), answer.json["asks"][0]) == (200, depth, [100.5, 2.0])
        assert host.asked.pop() == ("book", BTC, depth)


def test_history_is_asked_as_stated(app, host):
    assert get(app, "/api/history/microstructure/BTCUSDT").status == 200
    assert host.asked.pop() == ("history", "microstructure", BTC, 0, 600)
    assert get(app, "/api/history/microstructure/BTCUSDT", f"from_ms=1700000000000&limit={HISTORY_ROWS_MAX}").status == 200
    assert host.asked.pop() == ("history", "microstructure", BTC, 1_700_000_000_000, HISTORY_ROWS_MAX)
    unknown = get(app, "/api/history/tea/BTCUSDT")
    assert (unknown.status, unknown.json["detail"]) == (
        404,
        "expected the history kind microstructure, candles, vol, smile or equity, found 'tea'",
    )


def test_vol_models_are_asked_for_the_horizon_and_the_variant_as_stated(app, host):
    for query, horizon, variant in [
        ("", 60, "log"),
        ("h=1", 1, "log"),
        ("h=10080&variant=plain", 10_080, "plain"),
        ("variant=log", 60, "log"),
    ]:
        answer = get(app, "/api/vol/forecast/btcusdt", query)
        assert (answer.status, answer.json["h"], answer.json["models"]["har"]["variant"]) == (200, horizon, variant)
        assert host.asked.pop() == ("vol_forecast", BTC, horizon, variant)
    assert {"symbol", "sigmaHAR", "sigmaGARCH", "sigma", "rule", "blend", "annualized", "asof_ms", "n_obs", "extrapolated"} <= set(
        answer.json
    )
    assert set(answer.json["annualized"]) == {"sigmaHAR", "sigmaGARCH", "sigma"}
    assert set(answer.json["models"]) == {"har", "harPlain", "garch"}
    assert answer.json["models"]["harPlain"]["stderr"] == {"const": None}, "no NaN leaves"


@pytest.mark.parametrize(
    "query", ["h=0", "h=10081", "h=-5", "h=inf", "h=1.5", "h=nan", "h=", "variant=", "variant=garch", "variant=Log", "horizon=5"]
)
def test_vol_models_of_any_other_horizon_or_variant_are_422(app, host, query):
    answer = get(app, "/api/vol/forecast/BTCUSDT", query)
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    assert host.asked == []


def test_vol_models_without_enough_candles_are_503_and_say_what_is_missing(app):
    for route, missing in (("forecast", "10,110 one-minute candles, found 7"), ("accuracy", "forecasts that came due, found none yet")):
        answer = get(app, f"/api/vol/{route}/ETHUSDT")
        assert (answer.status, answer.headers["retry-after"]) == (503, "60")
        assert answer.json["detail"].startswith(ETH) and missing in answer.json["detail"]
        assert get(app, f"/api/vol/{route}/DOGE").status == 404


def test_vol_models_show_their_scores(app):
    answer = get(app, "/api/vol/accuracy/BTCUSDT").json
    assert answer["horizons"][0]["models"]["har"] == {
        "qlike": 0.2, "intercept": 0.0, "intercept_stderr": None, "slope": 1.0, "slope_stderr": 0.1, "r2": 0.5, "dm_t": None,
    }  # fmt: skip


def test_no_nan_or_infinity_leaves(app, host):
    host.reading = features(obi=float("nan"))
    answer = get(app, "/api/microstructure/BTCUSDT")
    assert answer.json["obi"] is None and b"NaN" not in answer.body
    host.reading = features(obi=math.inf)
    assert get(app, "/api/microstructure/BTCUSDT").json["obi"] is None
    assert get(app, "/api/history/microstructure/BTCUSDT").json["obi"] == [0.5, None]


def test_config_is_what_the_host_masked(app):
    assert get(app, "/api/config").json == {"api": {"token": "***", "port": 5000}}


def test_an_unknown_symbol_is_404_and_one_without_data_503(app, host):
    for route in ("microstructure", "book"):
        unknown = get(app, f"/api/{route}/DOGE")
        assert (unknown.status, unknown.json["title"]) == (404, "Not Found")
        assert unknown.json["detail"] == "unknown symbol 'DOGE'; GET /api/symbols lists the known ones"
        missing = get(app, f"/api/{route}/ETHUSDT")
        assert (missing.status, missing.headers["retry-after"]) == (503, "1")
        assert missing.json["detail"].startswith(f"{ETH} is SYNCING: no verified book yet")
    assert get(app, "/api/history/microstructure/DOGE").status == 404


@pytest.mark.parametrize(
    "route", ["/api/book/BTCUSDT?depth=", "/api/history/microstructure/BTCUSDT?limit=", "/api/history/microstructure/BTCUSDT?from_ms="]
)
@pytest.mark.parametrize(
    "value",
    ["", "abc", "-1", "+1", "1.0", "1e3", "inf", "nan", "0x10", "1_0", " 1", "1 ", "%31%00", "01", "\u0661", "9" * 17, "true", "[1]"],
)
def test_only_digits_are_numbers(app, host, route, value):
    path, _, query = route.partition("?")
    answer = asyncio.run(ask(app, "GET", path, query=(query + value).encode("utf-8")))
    assert answer.status == 422, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert host.asked == []


@pytest.mark.parametrize(
    "query", ["depth=0", f"depth={LEVELS_MAX + 1}", "deep=3", "depth=1&depth=2", "depth", "=1", "depth=1&", "&".join(["x=1"] * 50), "a;b=1"]
)
def test_query_parameters_are_known_single_and_in_range(app, host, query):
    answer = get(app, "/api/book/BTCUSDT", query)
    assert (answer.status, host.asked) == (422, [])
    assert "expected" in answer.json["detail"].lower()


def test_a_range_error_says_what_came(app):
    answer = get(app, "/api/history/microstructure/BTCUSDT", "limit=3601")
    assert answer.json["errors"] == [{"key": "limit", "message": "Expected `int` <= 3600, found '3601'"}]


def test_routes_without_parameters_refuse_any(app):
    for path in ("/", "/docs", "/metrics", "/openapi.json", "/api/health", "/api/symbols", "/api/config", "/api/microstructure/BTCUSDT"):
        assert get(app, path, "x=1").status == 422


def test_every_answer_of_the_api_says_how_far_it_saw(app, host):
    host.seq, host.durable_seq = 1_234, 1_230
    for path in ("/api/health", "/api/symbols", "/api/book/BTCUSDT", "/api/microstructure/ETHUSDT", "/api/nothing", "/api/history/x/y"):
        headers = get(app, path).headers
        assert (headers["x-alphapack-seq"], headers["x-alphapack-durable-seq"], headers["cache-control"]) == ("1234", "1230", "no-store")
    assert "x-alphapack-seq" not in get(app, "/docs").headers


def test_a_failure_inside_says_nothing_outside_and_is_logged(app, host, caplog):
    host.failure = RuntimeError("the-secret-of-the-engine")
    with caplog.at_level(logging.ERROR, logger="alphapack.api"):
        answer = get(app, "/api/microstructure/BTCUSDT")
    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert b"secret" not in answer.body and b"Traceback" not in answer.body and b"RuntimeError" not in answer.body
    assert "the-secret-of-the-engine" in caplog.text


def test_metrics_are_prometheus_text(app):
    answer = get(app, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    assert "alphapack_inputs_total 42.0" in lines and "# TYPE alphapack_inputs_total counter" in lines
    assert "alphapack_loop_lag_ms 0.25" in lines and "# TYPE alphapack_loop_lag_ms gauge" in lines
    assert any(line.startswith("python_gc_collections_total{") for line in lines)


def test_head_is_get_without_a_body_to_read(app):
    assert asyncio.run(ask(app, "HEAD", "/api/health")).status == 200
    assert asyncio.run(ask(app, "HEAD", "/api/microstructure/DOGE")).status == 404


def test_a_wrong_method_names_the_right_ones(app):
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
        answer = asyncio.run(ask(app, method, "/api/health"))
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert answer.json["detail"] == f"expected GET, HEAD, OPTIONS, found {method}"


def test_the_committed_schema_is_the_one_served(app):
    assert COMMITTED.read_bytes() == openapi_document(), f"openapi.json has drifted from the routes; if that is meant, run: {REGENERATE}"
    assert get(app, "/openapi.json").body == openapi_document()


def test_operations_are_named_and_the_schema_tells_the_errors():
    document = json.loads(openapi_document())
    operations = {f"{method.upper()} {path}": operation for path, item in document["paths"].items() for method, operation in item.items()}
    assert {operation["operationId"] for operation in operations.values()} == {
        "getHealth",
        "getLiveness",
        "listSymbols",
        "getBook",
        "getVolForecast",
        "getVolAccuracy",
        "getMicrostructure",
        "getHistory",
        "postOptionChain",
        "getSmile",
        "simulateOrder",
        "getSizing",
        "listOrders",
        "listFills",
        "reportFill",
        "getPlans",
        "getPortfolio",
        "listTrades",
        "choose",
        "reward",
        "getRouterSnapshot",
        "listDecisions",
        "getDecision",
        "listAlphas",
        "getAttribution",
        "ingestFrames",
        "streamEvents",
        "getConfig",
        "getMetrics",
    }
    assert set(operations["GET /api/book/{symbol}"]["responses"]) == {"200", "404", "422", "503"}
    schema = operations["GET /api/microstructure/{symbol}"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Microstructure"}
    assert "400" in operations["POST /api/exec/simulate"]["responses"], "a body can be malformed"
    assert {"400", "404", "409", "422", "503"} <= set(operations["POST /api/router/reward"]["responses"])
    assert not any("400" in operation["responses"] for name, operation in operations.items() if name.startswith("GET "))


def test_every_route_that_is_documented_is_served_and_the_other_way_round():
    paths = {path for route in ROUTES for path in route.paths}
    documented = {path.replace("}", ":str}") for path in json.loads(openapi_document())["paths"]}
    assert paths - documented == {"/", "/docs", "/openapi.json"} and documented <= paths


def test_a_failing_route_does_not_take_others_along(host):
    app = app_with_orders(host=host)
    host.failure = RuntimeError("once")
    assert get(app, "/api/microstructure/BTCUSDT").status == 500
    host.failure = None
    assert get(app, "/api/microstructure/BTCUSDT").status == 200
