"""The page of a backtest, read as a browser reads it: well formed, harmless, finite, adding up, and small."""

import re
from fractions import Fraction
from html.parser import HTMLParser
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.backtest import (
    AlphaPnl,
    Backtest,
    Bin,
    Bound,
    Calibration,
    Costs,
    Decisions,
    Equity,
    Fill,
    Mids,
    PolicyPnl,
    Risk,
    Trade,
)
from alphapack.domain.money import UNITS
from alphapack.models import risk
from alphapack.shell import backtest_report, charts
from alphapack.shell.charts import Curve, Mark

VOID = {"meta", "br"}
BARE = {"path", "line", "rect", "circle"}
START_MS = 1_794_960_000_000
NASTY = """<script>alert('x')</script>"><img src=x onerror="y">&amp;\x00\ud800"""
SEEN = """<script>alert('x')</script>"><img src=x onerror="y">&amp;\ufffd\ufffd"""
"""The same as a reader sees it: what no page can show is replaced."""


class Node:
    """An element and what is in it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.content: list[Node | str] = []

    @property
    def children(self) -> "list[Node]":
        return [one for one in self.content if isinstance(one, Node)]

    def all(self, tag: str = "", look: str = "") -> list["Node"]:
        """Return the elements of a tag and a class in it, in order."""
        here = [self] if tag in ("", self.tag) and (not look or look in self.attributes.get("class", "").split()) else []
        return here + [found for child in self.children for found in child.all(tag, look)]

    @property
    def text(self) -> str:
        return "".join(one if isinstance(one, str) else one.text for one in self.content)


class Reader(HTMLParser):
    """Builds the tree, and fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute of {tag} is there twice"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].content.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in BARE | {"use"}, f"{tag} is closed at once outside of a picture"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


def read(page: str) -> Node:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.open) == 1, f"{reader.open[-1].tag} is never closed"
    return reader.root


def money(amount: float) -> int:
    return round(amount * UNITS)


def made(trades: int = 40, /, **more: Any) -> Backtest:
    """Return a result of so many trades, in which everything adds up."""
    rng = np.random.default_rng(trades)
    step_ms = 60_000
    bars = max(30, trades)
    kept = []
    for i in range(trades):
        base, alphas, execution, fees = (money(one) for one in rng.normal((0.2, 1.5, -0.8, -3.0), (2.0, 8.0, 1.5, 0.1)))
        closed_ns = (START_MS + (i + 1) * step_ms) * 1_000_000
        kept.append(
            Trade(
                decision=i + 1,
                symbol=("sim:BTCUSDT", "sim:ETHUSDT")[i % 2],
                policy=("momentum", "breakout", "spread_capture")[i % 3],
                probe=i % 5 == 0,
                opened_ns=closed_ns - 30_000_000_000,
                closed_ns=closed_ns,
                side=("buy", "sell", "quote")[i % 3],
                size=0.1 * (i % 3 - 1),
                notional=money(6_400),
                pnl=base + alphas + execution + fees,
                base=base,
                alphas=alphas,
                execution=execution,
                fees=fees,
                funding=0,
                win_probability=0.5,
                reward_bps=None if i % 7 == 0 else -1.25,
            )
        )
    parts = {name: sum(getattr(one, name) for one in kept) for name in ("pnl", "base", "alphas", "execution", "fees")}
    first = parts["alphas"] * 2 + 7
    ids = (("obi_follow", first), ("skew_revert", parts["alphas"] - first))
    values = [money(100_000) + money(one) for one in np.cumsum(rng.normal(0.0, 5.0, bars))]
    peaks = np.maximum.accumulate(np.array(values, float))
    ts_ms = [START_MS + i * step_ms for i in range(bars)]
    equity = Equity(ts_ms, values, ((peaks - values) / peaks).tolist())
    fills = [
        Fill(
            one.opened_ns + k * 1_000_000_000,
            one.symbol,
            ("buy", "sell")[k % 2],
            100.0 + (one.decision % 9),
            0.05,
            k % 2 == 0,
            "printed",
            -1,
        )
        for one in kept
        for k in range(3)
    ]
    opened, house = money(3.21), money(-0.05)
    change = parts["pnl"] + opened + house
    known: dict[str, Any] = {
        "title": "Backtest of two symbols",
        "paths": ["captures/one.raw.gz", "captures/two.raw.gz"],
        "symbols": ["sim:BTCUSDT", "sim:ETHUSDT"],
        "from_ms": START_MS,
        "to_ms": ts_ms[-1],
        "inputs": 123_456,
        "seconds": 2.0,
        "digest": "9f2c4d1be07a55c3d0e4428bb1f6a90e",
        "settings": {"router.horizon_s": "300", "execution.queue": "risk_averse"},
        "capital": money(100_000),
        "currency": "USDT",
        "trades": kept,
        "equity": equity,
        "alpha_pnl": [AlphaPnl(name, pnl, trades, 0.5) for name, pnl in ids],
        "base": parts["base"],
        "fees": parts["fees"],
        "execution": parts["execution"],
        "house": house,
        "open_pnl_change": opened,
        "total": parts["pnl"],
        "policies": [
            PolicyPnl(name, sum(one.policy == name for one in kept), sum(one.pnl for one in kept if one.policy == name), trades)
            for name in ("momentum", "breakout", "spread_capture")
        ],
        "risk": risk.measure(np.array(values, float), 60, 1e9),
        "costs": Costs(0.31, 0.62, -0.18, 0.4, 1.15, parts["fees"], money(-2.2), money(-0.7)),
        "calibration": Calibration(trades, 0.2413, 0.031, 0.026, [Bin(p, p - 0.01, 30) for p in (0.4, 0.45, 0.5, 0.55)]),
        "decisions": Decisions(5 * trades, {"flat": 2 * trades, "momentum": trades, "breakout": trades, "spread_capture": trades}),
        "fills": fills,
        "mids": [Mids(name, ts_ms, [100.0 + i % 9 for i in range(bars)]) for name in ("sim:BTCUSDT", "sim:ETHUSDT")],
        "bounds": [
            Bound("risk_averse", change, trades, 3 * trades, equity),
            Bound("optimistic", change + money(160), trades + 2, 4 * trades, equity),
        ],
        "notes": ["The feed is conflated."],
    }
    return Backtest(**(known | more))


def nothing(**more: Any) -> Backtest:
    """Return a result of which nothing came."""
    none = Risk(0, 60, None, None, None, None, None, None, None, None)
    known: dict[str, Any] = {
        "trades": [], "equity": Equity(), "alpha_pnl": [], "base": 0, "fees": 0, "execution": 0, "house": 0, "open_pnl_change": 0,
        "total": 0, "policies": [], "risk": none, "costs": Costs(None, None, None, None, None, 0, 0, 0), "calibration": Calibration(),
        "decisions": Decisions(), "fills": [], "mids": [], "bounds": [], "notes": [], "paths": [], "symbols": [],
    }  # fmt: skip
    return msgspec.structs.replace(made(3), **(known | more))


PAGES = {
    "full": made(),
    "empty": nothing(),
    "one bar": nothing(equity=Equity([START_MS], [money(100_000)], [0.0])),
    "still": made(equity=Equity([START_MS, START_MS + 60_000], [money(100_000)] * 2, [0.0, 0.0]), bounds=[]),
    "no alphas": made(alpha_pnl=[], base=made().base + sum(one.pnl for one in made().alpha_pnl)),
    "large": made(capital=10**8 * UNITS, bounds=[], equity=Equity([START_MS, START_MS + 60_000], [10**16, 10**16 + 10**9], [0.0, 0.0])),
}


def number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def tiles(page: Node) -> dict[str, str]:
    (listed,) = page.all("dl", "tiles")
    return {one.all("dt")[0].text: one.all("dd")[0].text for one in listed.children}


def figure(page: Node, title: str) -> Node:
    (found,) = [one for one in page.all("figure") if str(one.all("figcaption")[0].content[0]).strip() == title]
    return found


# What any page is


@pytest.mark.parametrize("result", PAGES.values(), ids=PAGES)
def test_report_rollups_page_is_well_formed_and_loads_nothing(result: Backtest) -> None:
    text = backtest_report.html(result)
    assert text.startswith("<!DOCTYPE html>\n")
    page = read(text)
    (root,) = page.children
    assert (root.tag, root.attributes["lang"]) == ("html", "en")
    assert {one.tag for one in page.all()} & {"script", "img", "iframe", "link", "object", "embed", "form", "base", "image"} == set()
    assert not re.search(r"https?:|//|url\(|@import|javascript:", text)
    policies = [one.attributes["content"] for one in page.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'")
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(set(ids)) == len(ids)
    assert {one.attributes["href"] for one in page.all("use")} <= {f"#{one}" for one in ids}
    assert not [name for one in page.all() for name in one.attributes if name.startswith("on")]
    for table in page.all("table"):
        width = len(table.all("thead")[0].all("th"))
        assert {len(row.children) for row in table.all("tr")} == {width}


@pytest.mark.parametrize("result", PAGES.values(), ids=PAGES)
def test_report_rollups_pictures_are_finite_named_and_have_axes(result: Backtest) -> None:
    page = read(backtest_report.html(result))
    for picture in page.all("svg", "plot"):
        name = picture.attributes["aria-label"]
        assert picture.attributes["role"] == "img" and picture.children[0].tag == "title" and picture.children[0].text == name
        assert len({one.text for one in picture.all("text")}) >= 3, name
        for node in picture.all():
            for key, value in node.attributes.items():
                if key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
                    place = re.fullmatch(r"(-?\d+(?:\.\d+)?)%?", value)
                    assert place is not None, f"{key}={value} of {node.tag} in {name}"
                    assert not value.endswith("%") or -0.01 <= float(place[1]) <= 100.5, f"{key}={value} of {node.tag} in {name}"
                if key == "d":
                    assert re.fullmatch(r"M\d+ \d+(L\d+ \d+)*Z?", value), f"{value[:80]} in {name}"
                    points = [tuple(map(int, one)) for one in re.findall(r"(\d+) (\d+)", value)]
                    assert all(x <= charts.WIDE and y <= charts.HIGH for x, y in points), name


def test_report_rollups_page_is_the_same_each_time() -> None:
    assert backtest_report.html(made()) == backtest_report.html(made())


def test_report_rollups_page_escapes_all_that_comes_from_outside() -> None:
    plain = made()
    nasty = msgspec.structs.replace(
        plain,
        title=NASTY,
        paths=[NASTY],
        symbols=[NASTY],
        digest=NASTY,
        settings={NASTY: NASTY},
        currency=NASTY,
        notes=[NASTY],
        trades=[msgspec.structs.replace(one, symbol=NASTY, policy=NASTY, side=NASTY) for one in plain.trades],
        alpha_pnl=[msgspec.structs.replace(one, id=NASTY) for one in plain.alpha_pnl],
        policies=[PolicyPnl(NASTY, 1, 5, 2)],
        decisions=Decisions(9, {NASTY: 9}),
        fills=[msgspec.structs.replace(one, symbol=NASTY, cause=NASTY) for one in plain.fills],
        mids=[msgspec.structs.replace(plain.mids[0], symbol=NASTY)],
        bounds=[msgspec.structs.replace(one, queue=NASTY) for one in plain.bounds],
    )
    text = backtest_report.html(nasty)
    text.encode("utf-8")
    page = read(text)
    assert {one.tag for one in page.all()} == {one.tag for one in read(backtest_report.html(plain)).all()}
    assert {name for one in page.all() for name in one.attributes} == {
        name for one in read(backtest_report.html(plain)).all() for name in one.attributes
    }
    assert "<script" not in text and "<img" not in text
    for place in ("title", "h1", "td", "li", "p", "code"):
        assert any(SEEN in one.text for one in page.all(place)), place
    assert any(SEEN in one.attributes.get("title", "") for one in page.all("span"))
    assert any(SEEN in one.attributes["aria-label"] for one in page.all("svg", "plot"))


@given(text=st.text(max_size=40))
def test_report_rollups_page_shows_any_name_as_it_is(text: str) -> None:
    page = read(backtest_report.html(nothing(title=text, settings={text: text})))
    shown = "".join(one if one.isprintable() else "\ufffd" for one in text)
    assert page.all("h1")[0].text == shown
    assert [one.text for one in page.all("td")][-2:] == [shown, shown]


# What it says


@pytest.mark.parametrize(
    ("units", "shown", "exact"),
    [
        (123_456_789_012, "+1,234.57", "1,234.56789012"),
        (-123_456_789_012, "-1,234.57", "-1,234.56789012"),
        (500_000, "0.00", "0.00500000"),
        (1_500_000, "+0.02", "0.01500000"),
        (-1, "0.00", "-0.00000001"),
        (0, "0.00", "0.00000000"),
        (10**17 + 1, "+1,000,000,000.00", "1,000,000,000.00000001"),
    ],
)
def test_report_rollups_page_shows_money_to_the_cent_and_keeps_the_rest(units: int, shown: str, exact: str) -> None:
    page = read(backtest_report.html(nothing(open_pnl_change=units)))
    (tile,) = [one for one in page.all("dl", "tiles")[0].children if one.all("dt")[0].text == "Change of equity"]
    (amount,) = tile.all("dd")[0].all("span")[:1]
    assert (amount.text, amount.attributes["title"]) == (shown, f"{exact} USDT")
    assert amount.attributes["class"] == {"+": "up", "-": "down"}.get(shown[0], "still")


def test_report_rollups_page_sums_up() -> None:
    result = made()
    page = read(backtest_report.html(result))
    shown = tiles(page)
    change = f"{abs(result.change) / UNITS:,.2f}"
    assert shown["Change of equity"].startswith(("+" if result.change > 0 else "-") + change)
    assert shown["PnL, queue risk averse"].endswith("USDT; 40 trades, 120 fills")
    assert shown["Between the bounds"].startswith("160.00")
    assert shown["Trades closed"] == "40200 decisions; 8 least orders to probe"
    assert result.risk.sharpe is not None and result.risk.sharpe_ci is not None and result.risk.max_drawdown is not None
    low, high = result.risk.sharpe_ci
    assert shown["Sharpe ratio, annualised"] == f"{result.risk.sharpe:,.2f}95% interval {low:,.1f} to {high:,.1f}"
    assert shown["Maximum drawdown"].startswith(f"{100 * result.risk.max_drawdown:.3f}%")
    assert shown["CVaR 99%, a bar"].startswith("\u2013")
    assert shown["Brier score"] == "0.241340 outcomes; 0.25 is a coin"
    assert result.digest in page.all("footer")[0].text
    assert "captures/two.raw.gz" in page.text and "61,728 a second" in page.text and "The feed is conflated." in page.text


def test_alpha_attribution_parts_of_the_page_add_up_to_its_total() -> None:
    result = made()
    bars = figure(read(backtest_report.html(result)), "Parts of the change of equity").all("rect")
    rows = [re.fullmatch(r"(.*): (-?[\d,.]+) USDT", one.text) for one in bars]
    named = [(row[1], number(row[2])) for row in rows if row is not None]
    names = [name for name, _ in named]
    assert names[0] == "base" and set(names[1:3]) == {"obi_follow", "skew_revert"}
    assert names[3:] == ["execution", "fees", "closed trades", "not closed yet", "house", "change of equity"]
    amounts = [amount for _, amount in named]
    assert sum(amounts[:5]) == amounts[5] == Fraction(result.total, UNITS)
    assert sum(amounts[5:8]) == amounts[8] == Fraction(result.change, UNITS)
    # Each part begins where the one above ended, and the totals at zero.
    low, high = min(spans := spanned(bars))[0], max(end for _, end in spans)
    at, ends = Fraction(0), []
    for name, amount in named:
        start = Fraction(0) if name in ("closed trades", "change of equity") else at
        at = start + amount
        ends.append((float(min(start, at)), float(max(start, at))))
    least, most = min(end for end, _ in ends), max(end for _, end in ends)
    for (x1, x2), (start, end) in zip(spans, ends, strict=True):
        assert x1 == pytest.approx(low + (high - low) * (start - least) / (most - least), abs=0.5)
        assert x2 == pytest.approx(low + (high - low) * (end - least) / (most - least), abs=0.5)


def spanned(bars: list[Node]) -> list[tuple[float, float]]:
    """Return where bars begin and end, in percent of their plot."""
    places = [(float(one.attributes["x"][:-1]), float(one.attributes["width"][:-1])) for one in bars]
    return [(x, x + width) for x, width in places]


def test_alpha_attribution_of_the_page_says_where_it_fails() -> None:
    sound, broken = (read(backtest_report.html(made(base=made().base + off))) for off in (0, 1_000_000))
    assert "Do not trust the parts" not in sound.text
    assert "Parts and total of the profit differ by -0.01 USDT. Do not trust the parts." in broken.text
    assert any(one.text.startswith("unexplained: -0.01000000") for one in broken.all("rect"))


def test_report_rollups_page_names_what_is_missing() -> None:
    page = read(backtest_report.html(nothing()))
    assert page.all("svg", "plot") == []
    reasons = [one.text for one in page.all("div", "empty")]
    assert len(reasons) == 7 and all(one.startswith("Not enough data: ") for one in reasons)
    assert "Not enough data: a curve needs two bars, found 0." in reasons
    assert tiles(page)["Sharpe ratio, annualised"].startswith("\u2013")
    one_bar = read(backtest_report.html(PAGES["one bar"]))
    assert "a curve needs two bars, found 1." in one_bar.text
    assert "nan" not in page.text.lower() and "None" not in page.text


def test_report_rollups_page_draws_both_queue_bounds() -> None:
    both = figure(read(backtest_report.html(made())), "Equity")
    assert [one.text for one in both.all("ul", "legend")[0].children] == ["risk averse", "optimistic"]
    assert len(both.all("path")) == 2
    alone = figure(read(backtest_report.html(made(bounds=[]))), "Equity")
    assert alone.all("ul", "legend") == [] and len(alone.all("path")) == 1


def test_report_rollups_page_draws_fills_by_side_and_kind() -> None:
    page = read(backtest_report.html(made()))
    marks = figure(page, "sim:BTCUSDT").all("use")[4:]
    assert {(one.attributes["href"], "full" in one.attributes["class"].split()) for one in marks} == {
        ("#mark-buy", False),
        ("#mark-sell", True),
    }
    assert all(re.match(r"2026-11-\d\d \d\d:\d\d:\d\d (buy|sell) 0\.05 at 10\d, (maker|taker), printed$", one.text) for one in marks)
    with pytest.raises(ValueError, match=r"expected a mark of \['buy', 'sell'\], found '\"'"):
        backtest_report.html(made(fills=[msgspec.structs.replace(made().fills[0], side='"')]))


def test_report_rollups_page_of_many_trades_is_small_and_says_what_it_leaves_out() -> None:
    result = made(5_000)
    text = backtest_report.html(result)
    assert len(text.encode()) < 600_000
    page = read(text)
    assert "Trades: 200 of 5,000, newest first; money in USDT" in [one.text for one in page.all("h3")]
    (table,) = [one for one in page.all("table", "texts-4")]
    decisions = [int(one.attributes["title"].split()[1]) for one in table.all("span") if one.attributes["title"].startswith("decision")]
    assert decisions == list(range(5_000, 4_800, -1))
    for picture in page.all("svg", "plot"):
        assert len(picture.all("use")) <= charts.MARKS_MAX


def test_report_rollups_page_of_endless_names_is_bounded() -> None:
    many = [AlphaPnl(f"alpha_{i}", i, 1, 0.0) for i in range(3_000)]
    result = made(
        300,
        alpha_pnl=many,
        paths=["x" * 10_000] * 5_000,
        notes=["y" * 10_000] * 5_000,
        settings={f"{i}{'z' * 10_000}": "'" * 10_000 for i in range(500)},
        symbols=[f"sim:{i}" for i in range(5_000)],
        decisions=Decisions(10**6, {f"policy_{i}": 1 for i in range(3_000)}),
    )
    text = backtest_report.html(result)
    assert len(text.encode()) < 1_000_000
    for said in ("2980 more alphas", "Alphas: 200 of 3,000", "and 4,940 more", "4,940 more notes", "440 more settings", "and 4,980 more"):
        assert said in text, said


@pytest.mark.parametrize(
    "result",
    [
        made(mids=[Mids("sim:BTCUSDT", [START_MS, START_MS + 1], [1.0, float("nan")])]),
        made(seconds=float("inf")),
        made(trades=[msgspec.structs.replace(made().trades[0], win_probability=float("nan"))]),
        made(trades=[msgspec.structs.replace(made().trades[0], size=float("inf"))]),
        made(bounds=[], equity=Equity([START_MS, START_MS + 1], [1, 2], [0.0, float("nan")])),
        made(costs=Costs(float("nan"), 0.0, 0.0, 0.0, 0.0, 0, 0, 0)),
        made(calibration=Calibration(9, float("nan"), 0.0, 0.0, [])),
        made(calibration=Calibration(9, 0.2, 0.0, 0.0, [Bin(float("nan"), 0.5, 9)])),
    ],
    ids=["mid", "seconds", "probability", "size", "drawdown", "cost", "brier", "bin"],
)
def test_report_rollups_page_refuses_what_is_not_a_number(result: Backtest) -> None:
    with pytest.raises(ValueError, match=r"expected .*finite .*found"):
        backtest_report.html(result)


def test_report_rollups_page_refuses_columns_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="shorter than"):
        backtest_report.html(made(bounds=[], equity=Equity([START_MS, START_MS + 1], [1], [0.0, 0.0])))


# Charts


@given(values=st.lists(st.floats(-1e12, 1e12), max_size=20))
def test_report_rollups_axis_holds_its_values_and_its_marks_are_told_apart(values: list[float]) -> None:
    axis = charts.axis_of(values)
    assert all(0.0 <= axis.at(one) <= 1.0 for one in values)
    assert 2 <= len(axis.marks) <= 8
    assert all(-1e-9 <= axis.at(one) <= 1.0 + 1e-9 for one in axis.marks)
    assert len({axis.text(one) for one in axis.marks}) == len(axis.marks)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), span=st.integers(1, 10**9))
def test_report_rollups_thinned_curve_keeps_its_ends_and_extremes(values: list[float], span: int) -> None:
    ts_ms = [i * span // len(values) for i in range(len(values))]
    points = charts.thinned(ts_ms, values, 0, span)
    assert points[0] == (ts_ms[0], values[0]) and points[-1] == (ts_ms[-1], values[-1])
    kept = [value for _, value in points]
    assert min(kept) == min(values) and max(kept) == max(values)
    assert [ts for ts, _ in points] == sorted(ts for ts, _ in points)


def test_report_rollups_thinned_curve_is_bounded() -> None:
    n = 200_000
    assert len(charts.thinned(range(n), np.sin(np.arange(n)).tolist(), 0, n)) <= 4 * (charts.COLUMNS + 1)


def test_report_rollups_time_axis_has_round_times_for_any_span() -> None:
    for span_s in (1, 7, 90, 3_600, 86_400, 7 * 86_400, 400 * 86_400, 20 * 365 * 86_400):
        drawn = charts.through_time("t", "u", [], (START_MS, START_MS + span_s * 1_000), marks=[Mark(START_MS, 1.0, "buy", True, "m")])
        times = [one.text for one in read(drawn).all("text", "middle")]
        assert 2 <= len(times) <= 8, span_s
    assert read(charts.through_time("t", "u", [Curve("c", [5], [1.0])], (5, 5))).all("path")
