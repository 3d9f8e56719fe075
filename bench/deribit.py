"""Two months of Deribit's option chains, through the engine: deltas and marks against the exchange's own, and what the smiles said.

``python bench/deribit.py`` prints the tables of docs/OPTIONS.md and draws its picture; it takes about a minute. As a group of
``bench/run.py`` it states what was recomputed and how many liquid tenors have a smile.
"""

import csv
import io
import lzma
import math
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from report import DATA, PROJECT, Row, median, quantile

from alphapack import app
from alphapack.config import Settings
from alphapack.domain.events import SmileChanged, WorkFailed
from alphapack.domain.inputs import Result
from alphapack.models import black, chain, smile
from alphapack.models.chain import Surface, Tenor
from alphapack.models.instruments import YEAR_MS, instrument

CHAINS = DATA / "options" / "deribit_chains_20260115-20260315.csv.xz"
PICTURE = PROJECT / "docs" / "pictures" / "options.svg"
NEAR_SD = 3.0
LIQUID = 5
"""A tenor is liquid where so many strikes have both a bid and an ask."""
DELTA_MEDIAN, DELTA_P99, MARK_MEDIAN = 1e-4, 0.017, 1.6e-5
"""How near Deribit's own numbers the recording's README says that Black-76 comes; marks in coin."""
WIDTH, LEFT, RIGHT, TOP, PANEL, GAP, BOTTOM = 900, 60, 16, 70, 132, 26, 34
INK, SOFT, GRID = "#1f2430", "#5b6472", "#e3e6eb"
LINES = {"BTC": "#d9822b", "ETH": "#0b63ce"}
PANELS = (("price, relative to its first", "price"), ("rr25, volatility points", "rr25"), ("skew z-score", "skew_z"))


@dataclass
class Seen:
    """What the engine made of every chain, by base asset."""

    changes: dict[str, list[SmileChanged]] = field(default_factory=dict)
    surfaces: list[tuple[str, Surface]] = field(default_factory=list)
    failures: list[WorkFailed] = field(default_factory=list)
    digest: str = ""


def replayed(path: Path = CHAINS) -> Seen:
    """Step the recording through an engine."""
    engine, seen = app.build(), Seen()
    for entry, records in app.steps(engine, app.record_of([path], Settings(), None, lambda text: print(text, file=sys.stderr))):
        for record in records:
            if isinstance(record, SmileChanged):
                assert isinstance(entry, Result), "a smile is made off the loop"
                seen.surfaces.append((record.symbol, chain.answer(entry.body)))
                seen.changes.setdefault(record.symbol, []).append(record)
            elif isinstance(record, WorkFailed):
                seen.failures.append(record)
    seen.digest = engine.hexdigest()
    return seen


def rows() -> list[dict[str, str]]:
    """Return the rows of the recording."""
    with lzma.open(CHAINS, "rt") as stream:
        return list(csv.DictReader(io.StringIO(stream.read())))


def against_deribit(quotes: list[dict[str, str]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return absolute differences of our delta from Deribit's, and of our price from its mark in coin, of every row that has both."""
    kept = [one for one in quotes if one["delta"] and one["mark_iv"] and float(one["mark_iv"]) > 0]
    names = [instrument(one["instrument_name"]) for one in kept]
    strike = np.array([one.strike for one in names])
    t = np.array([(one.expiry_ms - int(row["snapshot_ms"])) / YEAR_MS for one, row in zip(names, kept, strict=True)])
    call = np.array([one.call for one in names])
    forward, vol, delta, mark = (
        np.array([float(one[name] or "nan") for one in kept]) for name in ("underlying_price", "mark_iv", "delta", "mark_price")
    )
    lives = t > 0
    strike, t, forward, vol, call = (one[lives] for one in (strike, t, forward, vol, call))
    deltas = smile.delta(strike / forward, vol * np.sqrt(t), 1.0, 1.0, call)
    marks = np.abs(black.price(forward, strike, vol, t, call) / forward - mark[lives])
    return np.abs(deltas - delta[lives]), marks[np.isfinite(marks)]


def liquid_tenors(quotes: list[dict[str, str]]) -> set[tuple[int, str, str]]:
    """Return (snapshot, base, date) of the tenors that are liquid."""
    two_sided: dict[tuple[int, str, str], set[str]] = {}
    for one in quotes:
        if one["bid_price"] and one["ask_price"] and float(one["bid_price"]) > 0:
            base, date, strike, _ = one["instrument_name"].split("-")
            two_sided.setdefault((int(one["snapshot_ms"]), base, date), set()).add(strike)
    return {key for key, strikes in two_sided.items() if len(strikes) >= LIQUID}


def tables(seen: Seen, quotes: list[dict[str, str]]) -> list[str]:
    """Return what was found, as lines of Markdown."""
    liquid = liquid_tenors(quotes)
    made = {(surface.ts_ms, base, one.tenor): one for base, surface in seen.surfaces for one in surface.tenors}
    lost = [key for key in liquid if key not in made]
    silent = [one for one in made.values() if one.rr25 is None and one.reason is None]
    lines = [
        f"{len({surface.ts_ms for _, surface in seen.surfaces})} snapshots, {len(seen.surfaces)} chains, {len(quotes):,} rows, "
        f"{sum(surface.rejected_count for _, surface in seen.surfaces):,} rejected, {len(seen.failures)} chains failed",
        f"digest {seen.digest}",
        f"{len(liquid):,} liquid tenors ({LIQUID} strikes with both sides): {len(lost)} without a tenor, "
        f"{sum(made[key].rr25 is not None for key in liquid if key in made):,} with rr25; "
        f"of all {len(made):,} tenors {len(silent)} have neither rr25 nor a reason",
        "",
        "| quality | liquid tenors | others |",
        "|---|---|---|",
    ]
    for quality in ("full", "extrapolated", "unfit", "sparse", "atm", "none"):
        counts = [sum(one.quality == quality and (key in liquid) is wanted for key, one in made.items()) for wanted in (True, False)]
        lines.append(f"| {quality} | {counts[0]:,} | {counts[1]:,} |")
    slices = [one for one in made.values() if one.svi is not None]
    inside = sum(any(a < outer[1] and b > outer[0] for a, b in one.svi.arbitrage()) for one in slices if one.svi for outer in [_outer(one)])
    near = sum(any(a < reach and b > -reach for a, b in one.svi.arbitrage()) for one in slices if one.svi for reach in [_reach(one)])
    lines += [
        "",
        f"{len(slices):,} SVI slices; of {sum(one.butterfly_free is False for one in slices):,} a butterfly somewhere is an arbitrage, "
        f"of {inside:,} between the outer quotes, of {near:,} within {NEAR_SD:g} standard deviations; "
        f"a calendar of {sum(one.calendar_free is False for one in made.values()):,} of {len(made):,} tenors",
        "",
        "why rows were rejected:",
    ]
    reasons = Counter(
        "".join("#" if letter.isdigit() else letter for letter in row.reason.split(", found")[0]).strip()
        for _, surface in seen.surfaces
        for row in surface.rejected
    )
    return lines + [f"- {count:,}: {reason}" for reason, count in reasons.most_common(8)]


def _reach(one: Tenor) -> float:
    """Return how far ``NEAR_SD`` standard deviations are, in log-moneyness."""
    assert one.atm is not None, "a slice has a level"
    return NEAR_SD * one.atm * math.sqrt(one.t)


def _outer(one: Tenor) -> tuple[float, float]:
    """Return the log-moneyness of the outer quotes."""
    assert one.forward is not None, "a smile has a forward"
    return math.log(one.strikes[0] / one.forward), math.log(one.strikes[-1] / one.forward)


def draw(seen: Seen, quotes: list[dict[str, str]]) -> str:
    """Return prices, risk reversals and skew z-scores over the two months as SVG."""
    spot: dict[str, dict[int, float]] = {base: {} for base in LINES}
    for one in quotes:
        spot[one["instrument_name"].split("-")[0]][int(one["snapshot_ms"])] = float(one["index_price"])
    every = [change.venue_ms for changes in seen.changes.values() for change in changes]
    first, last = min(every), max(every)
    height = TOP + len(PANELS) * PANEL + (len(PANELS) - 1) * GAP + BOTTOM

    def across(ts_ms: float) -> float:
        return LEFT + (ts_ms - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def text(x: float, y: float, said: str, colour: str = SOFT, anchor: str = "start", more: str = "") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" text-anchor="{anchor}"{more}>{said}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        text(LEFT, 22, "Deribit options of 30 days through the crash of 5 and 6 February 2026", INK, more=' font-size="15"'),
    ]
    for i, (base, colour) in enumerate(LINES.items()):
        parts += [f'<rect x="{LEFT + 70 * i}" y="34" width="14" height="4" fill="{colour}"/>', text(LEFT + 70 * i + 19, 40, base)]
    day = 86_400_000
    for row, (title, what) in enumerate(PANELS):
        top = TOP + row * (PANEL + GAP)
        lines = {base: _series(changes, spot[base], what) for base, changes in seen.changes.items()}
        levels = _levels([value for series in lines.values() for _, value in series])
        low, high = levels[0], levels[-1]
        for level in levels:
            y = top + PANEL * (high - level) / (high - low)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
            parts.append(text(LEFT - 6, y + 4, f"{level:g}", anchor="end"))
        crash = [across(datetime(2026, 2, at, tzinfo=UTC).timestamp() * 1_000) for at in (5, 7)]
        shade = f'<rect x="{crash[0]:.1f}" y="{top}" width="{crash[1] - crash[0]:.1f}" height="{PANEL}" fill="#c0392b" opacity=".09"/>'
        parts += [shade, text(LEFT, top - 6, title, INK)]
        for base, series in lines.items():
            points = "L".join(f"{across(ts_ms):.1f} {top + PANEL * (high - value) / (high - low):.1f}" for ts_ms, value in series)
            parts.append(f'<path d="M{points}" fill="none" stroke="{LINES[base]}" stroke-width="1.4"/>')
    for at in range(-(-first // day) * day, last, 7 * day):
        parts.append(text(across(at), height - 12, datetime.fromtimestamp(at / 1_000, UTC).strftime("%-d %b"), anchor="middle"))
    return "\n".join([*parts, "</svg>", ""])


def _series(changes: list[SmileChanged], spot: dict[int, float], what: str) -> list[tuple[int, float]]:
    if what == "price":
        prices = sorted(spot.items())
        return [(ts_ms, price / prices[0][1]) for ts_ms, price in prices]
    scale = 100.0 if what == "rr25" else 1.0
    values = [(change.venue_ms, getattr(change, what)) for change in changes]
    return [(ts_ms, scale * value) for ts_ms, value in values if value is not None]


def _levels(values: list[float]) -> list[float]:
    """Return three to seven round levels around all values."""
    span = max(values) - min(values)
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(power * one for one in (1, 2, 5, 10) if span / (power * one) <= 5)
    return [step * at for at in range(math.floor(min(values) / step), math.ceil(max(values) / step) + 1)]


def extremes(seen: Seen) -> list[str]:
    """Return where each base's risk reversal and z-score were least, as lines of Markdown."""
    lines = ["| | chains | rr25 median | least rr25 | at | least skew z | at |", "|---|---|---|---|---|---|---|"]
    for base, changes in seen.changes.items():
        rrs = [one for one in changes if one.rr25 is not None]
        zs = [one for one in changes if one.skew_z is not None]
        low, lowest = min(rrs, key=lambda one: one.rr25 or 0.0), min(zs, key=lambda one: one.skew_z or 0.0)
        cells = [base, str(len(changes)), f"{100 * median([one.rr25 or 0.0 for one in rrs]):.1f}"]
        cells += [f"{100 * (low.rr25 or 0.0):.1f}", _when(low.venue_ms), f"{lowest.skew_z:.1f}", _when(lowest.venue_ms)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _when(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1_000, UTC).strftime("%-d %b %H:%M")


def run() -> list[Row]:
    """Return deltas and marks against Deribit's, and how many liquid tenors have a smile."""
    quotes = rows()
    deltas, marks = against_deribit(quotes)
    seen, liquid = replayed(), liquid_tenors(quotes)
    made = {(surface.ts_ms, base, one.tenor): one for base, surface in seen.surfaces for one in surface.tenors}
    told = [key for key in liquid if key in made and (made[key].rr25 is not None or made[key].reason)]
    with_rr = sum(made[key].rr25 is not None for key in told)
    p50, p99 = median(deltas.tolist()), quantile(deltas.tolist(), 0.99)
    return [
        Row("-", f"{len(deltas):,} deltas of Deribit, median", f"{p50:.1e}", f"<= {DELTA_MEDIAN:.0e}", round(p50, 5) <= DELTA_MEDIAN),
        Row("-", "the same, p99", f"{p99:.4f}", f"<= {DELTA_P99}", p99 <= DELTA_P99),
        Row("-", f"{len(marks):,} marks of Deribit, in coin, median", f"{median(marks.tolist()):.1e}", f"<= {MARK_MEDIAN}", None),
        Row(
            "-",
            "liquid tenors with a smile, or why there is none",
            f"{len(told):,}, {with_rr:,} with rr25",
            f"{len(liquid):,}",
            len(told) == len(liquid),
        ),
    ]


def main() -> int:
    quotes = rows()
    deltas, marks = against_deribit(quotes)
    print(f"deltas: {len(deltas):,} rows, median {median(deltas.tolist()):.1e}, p99 {quantile(deltas.tolist(), 0.99):.4f}")
    print(f"marks: {len(marks):,} rows, median {median(marks.tolist()):.1e}, p99 {quantile(marks.tolist(), 0.99):.1e} coin")
    seen = replayed()
    print("\n".join([*tables(seen, quotes), "", *extremes(seen)]))
    PICTURE.write_text(draw(seen, quotes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
