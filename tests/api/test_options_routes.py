"""Option chains by POST and smiles by GET: who may, what is taken, and what is answered."""

import asyncio
import json
from typing import Any

import pytest
from fake_host import Answer, FakeHost, ask, get

from alphapack.api.routes import CHAIN_BYTES_MAX
from alphapack.api.server import ApiSettings, create_app
from alphapack.engine.ports import Busy, IngestRefused, Invalid, Malformed, NotAccepting, NotDurable, NotReady

BODY = json.dumps({"chain": [{"k": 1.0, "tenor": "7d", "type": "call", "iv": 0.5}]}).encode()


def post(fake: FakeHost, body: bytes = BODY, *, symbol: str = "BTCUSDT", settings: ApiSettings | None = None, **options: Any) -> Answer:
    headers = {"content-type": "application/json", **options.pop("headers", {})}
    app = create_app(fake, settings or ApiSettings())
    return asyncio.run(ask(app, "POST", f"/api/options/chain/{symbol}", headers=headers, chunks=(body,), **options))


def test_options_smile_chain_is_handed_to_the_host_as_it_came() -> None:
    host = FakeHost()
    answer = post(host)
    assert answer.status == 200 and host.chains == [("binance-usdm:BTCUSDT", BODY)]
    assert (answer.json["accepted"], answer.json["rejected"]) == (1, [{"index": 1, "reason": "expected an iv above zero, found -1.0"}])
    assert answer.json["tenors"][0]["quality"] == "sparse" and answer.json["tenors"][0]["svi"] is None


def test_options_smile_chain_goes_to_a_base_asset_with_a_smile() -> None:
    host = FakeHost()
    assert post(host, symbol="btc").status == 200 and host.chains[0][0] == "BTC"
    assert post(host, symbol="DOGE").status == 404


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Malformed("expected a JSON body: bad"), 400),
        (Invalid("expected an array"), 422),
        (NotAccepting("a recording"), 409),
        (NotReady("starting"), 503),
        (Busy("eight are read"), 503),
        (NotDurable("disk full"), 507),
    ],
)
def test_options_smile_chain_refusals_are_problem_documents(refusal: IngestRefused, status: int) -> None:
    answer = post(FakeHost(refusal=refusal))
    assert (answer.status, answer.json["status"], answer.json["detail"]) == (status, status, str(refusal))
    assert ("retry-after" in answer.headers) == (status == 503)


def test_options_smile_chain_may_be_larger_than_other_bodies_but_not_without_end() -> None:
    host = FakeHost()
    assert post(host, BODY + b" " * 2_000_000).status == 200
    answer = post(host, BODY + b" " * CHAIN_BYTES_MAX)
    assert answer.status == 413 and len(host.chains) == 1


@pytest.mark.parametrize("media", ["", "text/plain", "application/x-ndjson", "application/xml"])
def test_options_smile_chain_declared_as_something_else_is_415(media: str) -> None:
    assert post(FakeHost(), headers={"content-type": media}).status == 415


def test_options_smile_chain_needs_the_token_and_the_own_origin() -> None:
    token = "correct-horse-battery-staple-0123456789"
    assert post(FakeHost(), settings=ApiSettings(token=token)).status == 401
    assert post(FakeHost(), settings=ApiSettings(token=token), headers={"authorization": f"Bearer {token}"}).status == 200
    assert post(FakeHost(), headers={"origin": "https://elsewhere.example"}).status == 403


def test_options_smile_is_answered_with_nulls_where_nothing_is_known() -> None:
    answer = get(create_app(FakeHost(), ApiSettings()), "/api/options/smile/btcusdt")
    assert answer.status == 200
    assert (answer.json["rr25"], answer.json["skew_z"], answer.json["ref_tenor_days"]) == (0.06, None, 7.0)
    assert answer.json["tenors"][0]["svi"] is None and answer.json["tenors"][0]["strikes"] == [0.9, 1.1]


def test_options_smile_without_a_chain_is_503_and_says_what_to_do() -> None:
    answer = get(create_app(FakeHost(), ApiSettings()), "/api/options/smile/ETHUSDT")
    assert answer.status == 503 and "POST /api/options/chain/ETHUSDT" in answer.json["detail"]


def test_options_smile_of_an_unknown_symbol_is_404() -> None:
    assert get(create_app(FakeHost(), ApiSettings()), "/api/options/smile/NOSUCH").status == 404
    assert get(create_app(FakeHost(), ApiSettings()), "/api/history/smile/NOSUCH").status == 404


def test_options_smile_history_is_of_symbols_and_base_assets() -> None:
    host = FakeHost()
    app = create_app(host, ApiSettings())
    for name in ("BTCUSDT", "BTC"):
        get(app, f"/api/history/smile/{name}", "limit=3")
    assert [one[2] for one in host.asked] == ["binance-usdm:BTCUSDT", "BTC"]
