"""Hold what every built-in alpha says against what the mid did next, and write the table of docs/ALPHAS.md.

The simulated market is run through the engine with and without its planted edge, the recordings of Binance below ALPHAPACK_DATA as they
are. Each 20 s every symbol's look is taken: features, standardised by what was seen before, and the signals made of them. The text
of the page stays as it is, and the same recordings, seed and hours give the same bytes.
"""

import argparse
import asyncio
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import structlog
from report import DATA, FOUR, PROJECT
from research import number, page, point, table
from stylised import ic_text, pooled

from alphapack import app
from alphapack.alphas import ALPHAS
from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.config import Settings
from alphapack.domain.events import Record
from alphapack.domain.inputs import AnyInput, CoreSettings
from alphapack.domain.market import NANOS_PER_S
from alphapack.domain.simulation import SimulatorSettings
from alphapack.engine.engine import Engine
from alphapack.models import prediction
from alphapack.models.prediction import Fit
from alphapack.shell.clock import SetClock
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import SimulatedMarket

EXAMPLE = "example: python bench/alphas.py --hours 6 --out page"
PAGE = PROJECT / "docs" / "ALPHAS.md"
RECORDINGS = [*FOUR, DATA / "captures" / "binance-spot_ETHBTC_20201101T09.raw.gz"]
GRID_NS = 20 * NANOS_PER_S
AHEAD = 15
"""Steps of the grid in the 300 s ahead."""
TARGET_MAX = 6.0
EDGES = (1.0, 0.0)
END_NS = 1_755_475_200 * NANOS_PER_S
"""18 August 2025, 00:00 UTC: where the simulated flow ends."""
WARM_S = 3_600
"""Flow before the first look that counts: forecasts, buckets of VPIN and scales are known then."""


@dataclass
class Looks:
    """Looks at an engine's symbols on the grid."""

    engine: Engine
    due_ns: int = 0
    places: dict[int, int] = field(default_factory=dict)
    """Of the instants, in units of the grid."""
    found: dict[str, dict[int, tuple[float, float, list[float | None]]]] = field(default_factory=dict)
    """Mid, sigma and signals of every symbol by instant."""

    def see(self) -> None:
        """Take the looks that are due; sixty messages a second fall between two of them."""
        now_ns = self.engine.now_ns
        if now_ns < self.due_ns or not self.engine.configured:
            return
        instant = now_ns // GRID_NS
        self.due_ns = (instant + 1) * GRID_NS
        for symbol in self.engine.microstructure.symbols():
            look = self.engine.alphas.look(symbol)
            sigma = math.nan if look.sigma is None else look.sigma
            self.found.setdefault(symbol, {})[instant] = (look.raw.get("mid", math.nan), sigma, look.signals)

    def pairs(self, warm: int) -> dict[str, tuple[Float64Array2D, Float64Array1D]]:
        """Return of each symbol the signals, float64[n, alphas], and the move of the next 300 s, float64[n], at all instants alike.

        The move is in forecast volatilities, or a log return where none was ever known. The first ``warm`` instants are left out.
        """
        first, last = (of(instant for one in self.found.values() for instant in one) for of in (min, max))
        n = last - first + 1
        made = {}
        for symbol, looks in sorted(self.found.items()):
            mids, sigmas, signals = np.full(n, np.nan), np.full(n, np.nan), np.full((n, len(ALPHAS)), np.nan)
            for instant, (mid, sigma, said) in looks.items():
                mids[instant - first], sigmas[instant - first] = mid, sigma
                signals[instant - first] = [math.nan if signal is None else signal for signal in said]
            if np.isnan(sigmas).all():
                sigmas[:] = 1.0
            moves = np.full(n, np.nan)
            moves[:-AHEAD] = np.clip(np.log(mids[AHEAD:] / mids[:-AHEAD]) / sigmas[:-AHEAD], -TARGET_MAX, TARGET_MAX)
            made[symbol] = signals[warm:], moves[warm:]
        return made


class Watched(Runner):
    """A runner whose engine is looked at after every input."""

    looks: Looks

    def step(self, entry: AnyInput) -> list[Record]:
        records = super().step(entry)
        self.looks.see()
        return records


async def simulated(settings: SimulatorSettings, hours: float) -> Looks:
    """Return the looks at so many hours of the simulated market, thirty days of candles behind them."""
    untraded = Settings()
    core = msgspec.structs.replace(untraded.core, execution=msgspec.structs.replace(untraded.execution, trade=False))
    runner = Watched(app.build(), source="research", config=dict)
    runner.looks = Looks(runner.engine)
    past_ns = round(hours * 3_600) * NANOS_PER_S + WARM_S * NANOS_PER_S
    market = SimulatedMarket(settings, core, SetClock(END_NS), app.WORKS, app.WORK_DELAY_NS, past_ns=past_ns)
    await market.make(runner)
    return runner.looks


def recorded(path: Path) -> Looks:
    """Return the looks at a recording."""
    engine = app.build()
    looks = Looks(engine)
    core = msgspec.structs.replace(CoreSettings(), execution=msgspec.structs.replace(Settings().execution, trade=False))
    for _ in app.steps(engine, app.record_of([path], msgspec.structs.replace(Settings(), core=core), None, lambda _: None)):
        looks.see()
    return looks


# Measuring


@dataclass(frozen=True)
class Market:
    """What the alphas are worth in one market, by id."""

    name: str
    instants: int
    fits: Mapping[str, Fit | None]
    """Rank IC over all symbols together; None where too little is known."""
    coefficients: Mapping[str, float]
    """Move for one unit of signal, each alpha alone, without a constant."""


def measured(name: str, looks: Looks, warm: int) -> Market:
    """Return what the looks say of every alpha."""
    every = list(looks.pairs(warm).values())
    fits, coefficients = dict[str, Fit | None](), dict[str, float]()
    for place, one in enumerate(ALPHAS):
        pairs = [(signals[:, place], moves) for signals, moves in every]
        told = [pair for pair in pairs if _tells(*pair)]
        fits[one.id] = None if not told else prediction.rank_ic(*told[0], AHEAD) if len(told) == 1 else pooled(told, AHEAD)
        xx = sum(float(np.sum(x * x, where=np.isfinite(x * y))) for x, y in told)
        xy = sum(float(np.nansum(x * y)) for x, y in told)
        coefficients[one.id] = xy / xx if xx > 0.0 else math.nan
    return Market(name, len(every[0][1]), fits, coefficients)


def _tells(signals: Float64Array1D, moves: Float64Array1D) -> bool:
    known = np.isfinite(signals) & np.isfinite(moves)
    return int(known.sum()) >= prediction.PAIRS_MIN and float(np.ptp(signals[known])) > 0.0 and float(np.ptp(moves[known])) > 0.0


# The page


@dataclass(frozen=True)
class Facts:
    """All that is on the page."""

    hours: float
    seed: int
    symbols: int
    edge: Market
    null: Market
    recordings: Sequence[Market]


def _ic(market: Market, id: str) -> str:
    fit = market.fits[id]
    return "-" if fit is None or not math.isfinite(fit.slope) else ic_text(fit)


def measured_section(facts: Facts) -> list[str]:
    """Return the table of the alphas."""
    hour = facts.recordings[-1]
    head = ("alpha", "group", "weight", "coefficient", "edge 1: IC (t)", "edge 0: IC (t)", f"{hour.name}: IC (t)")
    rows = [
        (
            f"`{one.id}`",
            one.group,
            f"{one.weight_init:g}",
            number(facts.edge.coefficients[one.id], 2, plus=True),
            *(_ic(market, one.id) for market in (facts.edge, facts.null, hour)),
        )
        for one in ALPHAS
    ]
    said = f"Simulated: {facts.hours:g} h of {facts.symbols} symbols, seed {facts.seed}, a look each 20 s."
    return [said, "", *table(head, rows, words=2)]


def findings_section(facts: Facts) -> list[str]:
    """Return what stands out, counted."""
    lines = []
    for name, market in (("With the planted edge", facts.edge), ("Without it", facts.null)):
        right, wrong = (
            [one.id for one in ALPHAS if (fit := market.fits[one.id]) is not None and fit.is_significant and (fit.slope > 0.0) == way]
            for way in (True, False)
        )
        known = sum(fit is not None for fit in market.fits.values())
        lines.append(point(f"{name}: {len(right)} of {known} significant with the sign of their weight{_named(right)},"))
        lines[-1] += f" {len(wrong)} against it{_named(wrong)}. By chance it would be one in twenty."
    for market in facts.recordings:
        fits = [fit for fit in market.fits.values() if fit is not None and math.isfinite(fit.t)]
        significant = [id for id, fit in market.fits.items() if fit is not None and fit.is_significant]
        side_by_side = max(0, market.instants // AHEAD - 1)
        lines.append(point(f"{market.name}: {market.instants} looks, {side_by_side} whole moves of 300 s side by side;"))
        lines[-1] += f" {len(fits)} of {len(ALPHAS)} alphas could be measured, significant: {len(significant)}{_named(significant)}."
    return lines


def _named(ids: Sequence[str]) -> str:
    return f" ({', '.join(f'`{id}`' for id in ids)})" if ids else ""


SECTIONS = {"findings": findings_section, "measured": measured_section}


def _names() -> Iterator[str]:
    for path in RECORDINGS:
        venue, _, rest = path.name.partition("_")
        yield f"{venue}:{rest.split('_2')[0]}"


def gathered(seed: int, hours: float) -> Facts:
    """Measure everything."""
    settings = SimulatorSettings(seed=seed)
    warm = WARM_S * NANOS_PER_S // GRID_NS
    edges = []
    for strength in EDGES:
        print(f"simulating {hours:g} h with edge {strength:g}", file=sys.stderr, flush=True)
        edges.append(measured(f"edge {strength:g}", asyncio.run(simulated(msgspec.structs.replace(settings, edge=strength), hours)), warm))
    recordings = []
    for name, path in zip(_names(), RECORDINGS, strict=True):
        print(f"measuring {path.name}", file=sys.stderr, flush=True)
        recordings.append(measured(name, recorded(path), 0))
    return Facts(hours, seed, len(settings.symbols), *edges, recordings)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=12.0, help="hours of simulated flow at each edge; 12")
    parser.add_argument("--seed", type=int, default=7, help="seed of the simulated market; 7")
    parser.add_argument("--out", type=Path, default=PAGE.parent, metavar="FOLDER", help="where to write; by default docs")
    options = parser.parse_args(arguments)
    if missing := [path for path in RECORDINGS if not path.is_file()]:
        print(f"error: expected a recording, found none at {missing[0]}; set ALPHAPACK_DATA", file=sys.stderr)
        return 2
    if not 0.5 <= options.hours <= 240.0:
        print(f"error: expected 0.5 to 240 hours, found {options.hours:g}", file=sys.stderr)
        return 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    facts = gathered(options.seed, options.hours)
    options.out.mkdir(parents=True, exist_ok=True)
    own = options.out / PAGE.name
    own.write_text(page((own if own.is_file() else PAGE).read_text(encoding="utf-8"), facts, SECTIONS), encoding="utf-8")
    print("\n".join((*measured_section(facts), *findings_section(facts))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
