"""Draw what the router prefers before and after an alpha turns its sign as one SVG.

Usage: ``python docs/flip_picture.py [OUT]``. It plays ``bench/flip.py``, needs no network and no recording, takes minutes, and gives the
same bytes each time.
"""

import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pictures
import structlog
from pictures import BOTTOM, GAP, INK, LEFT, RIGHT, SOFT, WIDTH, Values

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
import flip

OUT = Path(__file__).parent / "pictures" / "flip.svg"
SEEDS = (21, 22, 23)
TERMS = flip.Terms()
STEP_S = 600
TOP, HEIGHT = 118, 190
COLOURS = {flip.FOLLOW: "#0b63ce", flip.FADE: "#b3541e", flip.FLAT: "#7d8590"}
PLOT = WIDTH - LEFT - RIGHT


def level(top: float, value: float) -> float:
    """Return the height of a probability in the panel at ``top``."""
    return top + HEIGHT * (1.0 - value)


def frame(top: float, title: str) -> list[str]:
    """Return the lines of a panel's probabilities and its title."""
    lines = pictures.levels((0.0, 0.25, 0.5, 0.75, 1.0), lambda value: level(top, value))
    return [*lines, pictures.text(LEFT, top - 8, title, colour=INK, weight="bold")]


def outline(x: Values, top: float, values: Values, colour: str, width: float) -> str:
    """Return a line through the values."""
    return f'<path d="M{pictures.joined(x, top + HEIGHT * (1.0 - values))}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'


def through_time(top: float, played: Sequence[flip.Played]) -> list[str]:
    """Return the mean propensities of every ten minutes: of all seeds together, and faintly of each policy on each."""
    span_s = TERMS.before_s + TERMS.after_s
    starts = np.arange(-TERMS.before_s, TERMS.after_s, STEP_S)
    x = LEFT + PLOT * (starts + STEP_S / 2 + TERMS.before_s) / span_s
    parts = frame(top, f"through time, means of {STEP_S // 60} minutes; the alpha turns at the dashed line")
    turn = LEFT + PLOT * TERMS.before_s / span_s
    parts.append(f'<path d="M{turn:.1f} {top:.0f}V{top + HEIGHT:.1f}" stroke="{SOFT}" stroke-dasharray="4 4"/>')
    for name, colour in COLOURS.items():
        of_each = np.array(
            [
                [flip.mean([one for one in run.decided if start <= one.after_s < start + STEP_S], name) for start in starts.tolist()]
                for run in played
            ]
        )
        parts += [outline(x, top, values, colour, 0.5) for values in of_each]
        parts.append(outline(x, top, of_each.mean(axis=0), colour, 2.0))
    for hour in range(-TERMS.before_s // 3_600, TERMS.after_s // 3_600 + 1):
        at = LEFT + PLOT * (3_600 * hour + TERMS.before_s) / span_s
        parts.append(pictures.text(at, top + HEIGHT + 16, f"{hour:+d} h" if hour else "turn", size=11, anchor="middle"))
    return parts


def by_signal(top: float, played: Sequence[flip.Played]) -> list[str]:
    """Return the mean propensities by the alpha's signal, of the later half before the turn on the left, after it on the right."""
    parts = frame(top, "by the alpha's signal: the later half before the turn, and after it")
    middles = np.array([(low + high) / 2.0 for low, high in itertools.pairwise(flip.BINS)])
    settled = [flip.settled(run, TERMS) for run in played]
    for place, half in enumerate((flip.FOLLOW, flip.FADE)):
        decided = [one for run in settled for one in run[half]]
        centre = LEFT + PLOT * (0.25 + 0.5 * place)
        x = centre + 0.21 * PLOT * middles
        for name, colour in COLOURS.items():
            values = np.array(flip.by_signal(decided, name))
            parts.append(outline(x, top, values, colour, 2.0))
            parts += [f'<circle cx="{a:.1f}" cy="{level(top, b):.1f}" r="3" fill="{colour}"/>' for a, b in zip(x, values, strict=True)]
        for a, middle in zip(x, middles, strict=True):
            parts.append(
                pictures.text(float(a), top + HEIGHT + 16, f"{middle:+.1f}" if abs(middle) > 1e-9 else "0", size=11, anchor="middle")
            )
    return parts


def picture() -> str:
    """Return the SVG."""
    played = [flip.play(seed, TERMS) for seed in SEEDS]
    title = "What the router prefers when an alpha turns"
    told = (
        f"Simulated market, seeds {', '.join(map(str, SEEDS))}, planted edge {TERMS.edge:g} times the usual one, fee of taking "
        f"{TERMS.taker_bps:g} bps."
    )
    more = f"A decision every {TERMS.interval_s} s for {TERMS.horizon_s} s. Propensity of each option; thick: mean of all seeds."
    parts = [
        pictures.text(LEFT, 26, title, size=16, colour=INK, weight="bold"),
        pictures.text(LEFT, 46, told),
        pictures.text(LEFT, 64, more),
    ]
    for place, (name, colour) in enumerate(COLOURS.items()):
        parts.append(pictures.text(LEFT + 80 * place, 84, name, colour=colour, weight="bold"))
    parts += through_time(TOP, played)
    second = TOP + HEIGHT + GAP + 30.0
    parts += by_signal(second, played)
    return pictures.document(title, second + HEIGHT + BOTTOM, parts)


def main(arguments: list[str]) -> None:
    """Draw it into the file that is named, or the usual one."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    out = Path(arguments[0]) if arguments else OUT
    out.write_text(picture(), encoding="utf-8")
    print(f"{out.name}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
