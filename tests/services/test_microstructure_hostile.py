"""Mutated recordings: whatever bytes come, the engine goes on, serves only credible numbers, and can be saved."""

import gzip
import math
import random
import re
from itertools import islice
from pathlib import Path

import pytest

from alphapack import app
from alphapack.domain.inputs import Configure, CoreSettings, Frame, SessionStart
from alphapack.engine.engine import Engine

CAPTURES = {
    "binance-usdm": ("binance-usdm_BTCUSDT_20240808T2354", "BTCUSDT"),
    "binance-spot": ("binance-spot_NKNUSDT_20211012", "NKNUSDT"),
    "binance-coinm": ("binance-coinm_ETHUSD_PERP_20240808T2354", "ETHUSD_PERP"),
}
FRAMES = 3_000
TOKENS = (b"-1", b"null", b'""', b"[]", b'"NaN"', b'"0"', b"1e308", b"[[" * 50, b"\xff", b"-9223372036854775809", b"18446744073709551616")
NUMBERS = (b"0", b"9" * 25, b"0.00000001", b"1e5", b"7.5", b"4503599627370497", b"99999999999999")


def mutated(payload: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        at, kind = chance.randrange(len(payload) or 1), chance.random()
        numbers = list(re.finditer(rb"\d[\d.]*", payload))
        if kind < 0.25:
            payload = payload[:at] + bytes([chance.randrange(256)]) + payload[at + 1 :]
        elif kind < 0.4:
            payload = payload[:at] + payload[at + chance.randint(1, 30) :]
        elif kind < 0.6:
            payload = payload[:at] + chance.choice(TOKENS) + payload[at:]
        elif kind < 0.9 and numbers:
            found = chance.choice(numbers)
            payload = payload[: found.start()] + chance.choice(NUMBERS) + payload[found.end() :]
        else:
            payload = payload[:at]
    return payload


def assert_credible(engine: Engine) -> None:
    for name in engine.microstructure.symbols():
        found = engine.microstructure.microstructure(name)
        if found is not None:
            assert all(value is None or -1 <= value <= 1 for value in (found.obi, found.ti, found.cancel_rate)), found
            assert all(value is None or math.isfinite(value) for value in (found.mid, found.microprice, found.spread_bps, found.micro_vol))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("venue", CAPTURES)
def test_microstructure_features_stay_credible_on_mutated_frames(data: Path, venue: str, share: float) -> None:
    name, symbol = CAPTURES[venue]
    chance = random.Random(f"{venue} {share}")
    with gzip.open(data / "captures" / f"{name}.raw.gz") as lines:
        recorded = [line.rstrip(b"\n").split(b" ", 1) for line in islice(lines, FRAMES)]
    (snapshot,) = (payload for _, payload in recorded if b"lastUpdateId" in payload)
    engine, ts_ns = app.build(), int(recorded[0][0])
    engine.step(Configure(1, ts_ns, CoreSettings()))
    engine.step(SessionStart(2, ts_ns, "hostile"))
    for i, (stamp, recorded_payload) in enumerate(recorded):
        ts_ns = int(stamp)
        payload = snapshot if chance.random() < 0.005 else recorded_payload
        engine.step(Frame(engine.seq + 1, ts_ns, venue, symbol, mutated(payload, chance) if chance.random() < share else payload))
        if i % 29 == 0:
            assert_credible(engine)
        if i % 331 == 0:
            again = app.build()
            again.load(engine.save())
            assert (again.save(), again.hexdigest()) == (engine.save(), engine.hexdigest())


@pytest.mark.parametrize("time", [99_999_999_999_999, 9_300_000_000_000, 4 * 10**15, -1])
def test_a_time_that_fits_no_clock_is_refused(time: int) -> None:
    engine = app.build()
    engine.step(Configure(1, 0, CoreSettings()))
    engine.step(Frame(2, 0, "binance-spot", "", b'{"e":"depthUpdate","E":%d,"s":"X","U":1,"u":2,"b":[],"a":[]}' % time))
    assert engine.rejection is not None and "time" in engine.rejection
