"""Draw what choosing loses over time on the router's yardstick as one SVG.

Usage: ``python docs/regret_picture.py [OUT]``. It needs the yardstick beside the recordings (``ALPHAPACK_DATA``), and gives the same
bytes each time.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pictures
from pictures import BOTTOM, GAP, INK, LEFT, RIGHT, SOFT, WIDTH, Values

from alphapack.models.bandit import Bandit, BanditSettings

OUT = Path(__file__).parent / "pictures" / "regret.svg"
SEEDS = range(10)
ROUNDS, EVERY = 20_000, 100
TOP, HEIGHT = 96, 190
CHANGES = (5_000, 10_000, 15_000)
SIDES = (
    ("never forgets", BanditSettings(discounts=(1.0,)), "#b3541e"),
    ("forgets 3 % at each reward", BanditSettings(discounts=(0.97,)), "#7a3fb5"),
    ("three memories, as it comes", BanditSettings(), "#0b63ce"),
)
PANELS = (("st", "the same policy stays right in the same context"), ("ns", "what is right turns at each dashed line"))
Make = Callable[[int, str], tuple[Values, Values, Values]]


def yardstick() -> Make:
    """Return the yardstick's maker of context, mean and realised rewards."""
    folder = Path(os.environ.get("ALPHAPACK_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data").parent / "yardsticks"
    if not (folder / "router_problem.py").is_file():
        raise SystemExit("expected the router's yardstick beside the recorded data, found none: set ALPHAPACK_DATA")
    sys.path.insert(0, str(folder))
    from router_problem import make

    made: Make = make
    return made


def lost(make: Make, variant: str, settings: BanditSettings) -> Values:
    """Return the regret up to every so many rounds, in thousands of bps, the mean of all seeds."""
    total = np.zeros(ROUNDS)
    for seed in SEEDS:
        context, mean, reward = make(seed, variant)
        bandit = Bandit(mean.shape[1], context.shape[1], seed, settings)
        for t, x in enumerate(context):
            policy, _, _ = bandit.choose(x)
            bandit.update(policy, x, float(reward[t, policy]))
            total[t] += 10.0 * (float(mean[t].max()) - float(mean[t, policy]))
    return np.cumsum(total / len(SEEDS))[EVERY - 1 :: EVERY] / 1e3


def panel(top: float, found: list[Values], variant: str, title: str) -> list[str]:
    """Return one panel: a line for each side, and what each lost in the end."""
    most = 1.08 * max(float(values[-1]) for values in found)

    def y_of(value: Any) -> Any:
        return top + HEIGHT * (1.0 - value / most)

    width = WIDTH - LEFT - RIGHT
    parts = [*pictures.levels(pictures.ticks(0.0, most), y_of), pictures.text(LEFT, top - 8, title, colour=INK, weight="bold")]
    for at in CHANGES if variant == "ns" else ():
        x = LEFT + width * at / ROUNDS
        parts.append(f'<path d="M{x:.1f} {top:.0f}V{top + HEIGHT:.1f}" stroke="{SOFT}" stroke-dasharray="4 4"/>')
    x_of = LEFT + width * np.arange(EVERY, ROUNDS + 1, EVERY) / ROUNDS
    for (_, _, colour), values in zip(SIDES, found, strict=True):
        outline = pictures.joined(x_of, y_of(values))
        parts.append(f'<path d="M{outline}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    for place, ((name, _, colour), values) in enumerate(zip(SIDES, found, strict=True)):
        parts.append(pictures.text(LEFT + 10, top + 18 + 16 * place, f"{name}: {values[-1]:.1f}", colour=colour))
    for at in range(0, ROUNDS + 1, 5_000):
        parts.append(pictures.text(LEFT + width * at / ROUNDS, top + HEIGHT + 16, f"{at:,}", size=11, anchor="middle"))
    return parts


def picture(make: Make) -> str:
    """Return the SVG."""
    title = "What choosing between six policies loses"
    parts = [
        pictures.text(LEFT, 26, title, size=16, colour=INK, weight="bold"),
        pictures.text(
            LEFT, 46, f"Regret in thousands of bps against the best policy of each round; mean of seeds {SEEDS[0]} to {SEEDS[-1]}."
        ),
        pictures.text(LEFT, 64, "Rounds from left to right. Less is better."),
    ]
    top = float(TOP)
    for variant, words in PANELS:
        parts += panel(top, [lost(make, variant, settings) for _, settings, _ in SIDES], variant, words)
        top += HEIGHT + GAP + 24
    return pictures.document(title, top - GAP + BOTTOM - 24, parts)


def main(arguments: list[str]) -> None:
    """Draw it into the file that is named, or the usual one."""
    out = Path(arguments[0]) if arguments else OUT
    out.write_text(picture(yardstick()), encoding="utf-8")
    print(f"{out.name}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
