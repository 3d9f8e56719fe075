"""The portfolio by hand, and against a slow twin in decimal numbers through a hundred thousand random events."""

import random
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.market import NANOS_PER_S, Step
from alphapack.domain.money import UNITS, fee, worth
from alphapack.models.portfolio import Account, Cap, Limits, Portfolio
from alphapack.models.sleeves import HOUSE, Share, Sleeves

LIMITS = Limits(gross_max=2.0, symbol_max=1.0, vol_budget=0.3, brake_drawdown=0.1, brake_release=0.05, brake_factor=0.25)
BTC, ETH = "sim:BTCUSDT", "sim:ETHUSDT"
TICK, LOT = Step(1, 1), Step(1, 3)
DAY_S = 86_400


def portfolio(capital: int = 1_000, **long_only: bool) -> Portfolio:
    made = Portfolio("USDT", capital * UNITS, LIMITS)
    made.add(BTC, TICK, LOT, **long_only)
    return made


def trade(made: Portfolio, symbol: str, decision: int, lots: int, price: int) -> None:
    """Fill so many lots of a sleeve at a price of the whole currency, free of fees."""
    account = made.accounts[symbol]
    if decision not in account.sleeves.by_decision:
        account.sleeves.open(decision, 0, lots)
    if account.mid_half_ticks is None:
        made.mark(symbol, 20 * price)
    account.sleeves.submit(1, {decision: lots})
    value = worth(10 * price, abs(lots), account.sleeves.tick, account.sleeves.lot)
    made.fill(symbol, 1, abs(lots), value, 0, 0)


def money(account: Account) -> list[float]:
    return [one / UNITS for one in (account.cash, account.basis, account.realised, account.unrealised)]


def test_execution_planner_a_position_has_an_average_cost() -> None:
    made = portfolio()
    account = made.accounts[BTC]
    trade(made, BTC, 1, 2_000, 100)
    trade(made, BTC, 1, 1_000, 130)
    assert money(account) == [-330, 330, 0, -30], "at a mid of 100"
    trade(made, BTC, 1, -1_000, 120)
    assert money(account) == [-210, 220, 10, -20]
    made.mark(BTC, 2_001)
    assert money(account)[3] == -19.9, "a half tick more"
    trade(made, BTC, 1, -3_000, 90)  # Two close, one opens.
    assert account.position_lots == -1_000
    assert money(account) == [60, -90, -30, pytest.approx(-10.05)]
    trade(made, BTC, 1, 1_000, 80)
    assert money(account) == [-20, 0, -20, 0]
    assert made.equity == 980 * UNITS
    assert account.turnover == (200 + 130 + 120 + 270 + 80) * UNITS
    made.check()


@given(st.lists(st.tuples(st.integers(-9, 9).filter(bool), st.integers(0, 10**6)), min_size=1, max_size=30))
def test_execution_planner_realised_and_unrealised_are_all_of_the_profit(trades: list[tuple[int, int]]) -> None:
    account = Account("x", Sleeves(Step(1, 8), Step(1, 0)), mid_half_ticks=34_567)
    for lots, value in trades:
        before, held = account.basis, account.position_lots
        account.take(lots, value)
        account.cash -= value if lots > 0 else -value
        assert account.realised + account.unrealised == account.cash + account.exposure
        if account.position_lots == 0:
            assert account.basis == 0
        elif held * lots < 0 and abs(lots) < abs(held):
            assert abs(account.basis - Fraction(before * account.position_lots, held)) <= Fraction(1, 2)
        elif held * lots < 0:
            assert abs(account.basis - Fraction(value * account.position_lots, abs(lots))) <= Fraction(1, 2)
        else:
            assert abs(account.basis) == abs(before) + value


def test_execution_planner_fees_charges_and_funding_are_parts_of_cash() -> None:
    made = portfolio()
    made.mark(BTC, 2_000)
    sleeves = made.accounts[BTC].sleeves
    sleeves.open(1, 0, 3)
    sleeves.open(2, 0, 1)
    sleeves.submit(5, {1: 3, 2: 1})
    shares = made.fill(BTC, 5, 4, 40_000_001, -7, -2)
    assert shares == [Share(1, 3, -30_000_001, -5, -2), Share(2, 1, -10_000_000, -2, 0)]
    assert made.fund(BTC, Fraction("0.0001"), Fraction("100.05")) == -4_002
    assert made.fund(BTC, Fraction("-0.0001"), Fraction("100")) == 4_000
    account = made.accounts[BTC]
    assert (account.fees, account.impact, account.funding, account.cash) == (-7, -2, -2, -40_000_012)
    # Half units are paid as -3,002 and -1,000, and received as 3,000 and 1,000.
    assert [sleeves.by_decision[d].funding for d in (HOUSE, 1, 2)] == [0, -2, 0]
    assert made.equity == 1_000 * UNITS - 12
    made.check()


def test_execution_planner_no_fill_and_no_value_before_a_mid() -> None:
    made = portfolio()
    sleeves = made.accounts[BTC].sleeves
    sleeves.open(1, 0, 1)
    sleeves.submit(1, {1: 1})
    with pytest.raises(ValueError, match="before its first fill"):
        made.fill(BTC, 1, 1, 1, 0, 0)
    with pytest.raises(ValueError, match="before it has a value"):
        made.room(BTC, 1, {BTC: 0.5})
    assert (made.equity, made.gross, made.drawdown) == (1_000 * UNITS, 0, 0.0)
    with pytest.raises(ValueError, match="without an account"):
        made.add(BTC, TICK, LOT)
    with pytest.raises(ValueError, match="a capital above 0"):
        Portfolio("USDT", 0, LIMITS)


def room(made: Portfolio, symbol: str, side: int, **sigmas: float) -> dict[str, float]:
    caps = made.room(symbol, side, {f"sim:{name}USDT": sigma for name, sigma in sigmas.items()})
    assert all(isinstance(cap, Cap) and cap.money >= 0 for cap in caps)
    return {cap.name: cap.money / UNITS for cap in caps}


def test_execution_planner_limits_leave_room_for_what_is_not_committed() -> None:
    made = portfolio()
    made.add(ETH, TICK, LOT)
    trade(made, BTC, 1, 4_000, 100)
    assert room(made, BTC, 1, BTC=0.5) == {"gross": 1_600, "symbol": 600, "volatility": 200}
    assert room(made, BTC, -1, BTC=0.5) == {"gross": 2_400, "symbol": 1_400, "volatility": 1_000}, "what is closed makes room"
    made.mark(ETH, 2_000)
    assert room(made, ETH, 1, BTC=0.5, ETH=0.25) == {"gross": 1_600, "symbol": 1_000, "volatility": 400}
    assert room(made, ETH, -1, BTC=0.5, ETH=0.25) == room(made, ETH, 1, BTC=0.5, ETH=0.25), "no hedge is believed"
    assert room(made, ETH, 1, ETH=0.25)["volatility"] == 0 == room(made, ETH, 1, BTC=0.5)["volatility"]
    made.accounts[ETH].sleeves.open(2, 0, -3_000)
    assert room(made, ETH, -1, BTC=0.5, ETH=0.25) == {"gross": 1_300, "symbol": 700, "volatility": 100}, "so do sizes"
    assert room(made, ETH, 1, BTC=0.5, ETH=0.25) == {"gross": 1_600, "symbol": 1_000, "volatility": 400}, (
        "but make no room before they are held"
    )
    made.accounts[ETH].sleeves.set_target(2, -1_000)
    assert room(made, ETH, -1, BTC=0.5, ETH=0.25)["gross"] == 1_300, "a size counts before it is due"
    made.accounts[BTC].sleeves.expire(1)
    assert room(made, BTC, 1, BTC=0.5, ETH=0.5) == {"gross": 1_300, "symbol": 600, "volatility": 0}, "so does what is still held"
    assert room(made, BTC, -1, BTC=0.5, ETH=0.5)["symbol"] == 1_000
    assert made.gross == 400 * UNITS and made.risk({BTC: 0.5}) == 200 * UNITS
    with pytest.raises(ValueError, match="above zero"):
        made.room(BTC, 1, {BTC: 0.0})


def test_execution_planner_nothing_is_sold_short_where_it_is_owned() -> None:
    made = portfolio(long_only=True)
    trade(made, BTC, 1, 4_000, 100)
    assert room(made, BTC, -1, BTC=0.5)["long only"] == 0
    assert "long only" not in room(made, BTC, 1, BTC=0.5)


def test_execution_planner_lost_equity_leaves_no_room() -> None:
    made = portfolio()
    trade(made, BTC, 1, 10_000, 100)
    made.mark(BTC, 2)
    assert made.equity == UNITS and made.drawdown == 0.999
    trade(made, BTC, 2, 1_000_000, 1)
    assert set(room(made, BTC, 1, BTC=0.5).values()) == {0.0}
    made.mark(BTC, 1)
    assert made.equity < 0
    assert room(made, BTC, -1, BTC=0.5) == {"gross": 50.5, "symbol": 50.5, "volatility": 50.5}, "but what is held may be sold"


def test_execution_planner_the_brake_holds_until_the_drawdown_is_small_again() -> None:
    made = portfolio()
    trade(made, BTC, 1, 1_000, 1_000)
    seen = []
    for price in (1_000, 1_200, 1_081, 1_080, 1_139, 1_140, 1_081, 1_300, 1_170):
        made.mark(BTC, 20 * price)
        made.note(0)
        seen.append((round(made.drawdown, 4), made.size_factor))
    # The peak is 1,200, then 1,300; the brake is on from a tenth below it to a twentieth.
    assert [factor for _, factor in seen] == [1.0, 1.0, 1.0, 0.25, 0.25, 1.0, 1.0, 1.0, 0.25]
    assert [drawdown for drawdown, _ in seen] == [0, 0, 0.0992, 0.1, 0.0508, 0.05, 0.0992, 0, 0.1]


@pytest.mark.parametrize("wrong", [{"gross_max": 0.0}, {"vol_budget": float("nan")}, {"brake_release": 0.2}, {"brake_factor": 1.1}])
def test_execution_planner_limits_have_ranges(wrong: dict[str, float]) -> None:
    values = {name: getattr(LIMITS, name) for name in LIMITS.__struct_fields__}
    with pytest.raises(ValueError, match="expected"):
        Limits(**(values | wrong))


def test_execution_planner_equity_bars_are_finer_on_the_first_day() -> None:
    made = portfolio()
    trade(made, BTC, 1, 1_000, 1_000)
    start = 1_000_003
    for second in range(start, start + 35):
        made.mark(BTC, 20 * (1_000 + second - start))
        made.note(second * NANOS_PER_S)
    rows = made.bars.columns(0, 10)
    # A bar ends at its time: the first that is seen at or after it writes it.
    assert rows["ts_ms"] == [1_000_000_000, 1_000_010_000, 1_000_020_000, 1_000_030_000]
    assert rows["equity"] == [(1_000 + second) * UNITS for second in (0, 7, 17, 27)]
    assert made.bar_s == 10
    for second in range(start + 40, start + DAY_S, 10):
        made.note(second * NANOS_PER_S)
    assert made.bar_s == 10
    assert made.bars.written == DAY_S // 10
    made.note((start + DAY_S) * NANOS_PER_S)
    assert made.bar_s == 60
    times = made.bars.past()[:, 0]
    assert len(times) == 1_440 and set(times % 60_000) == {0} and set(times[1:] - times[:-1]) == {60_000}
    before = made.bars.written
    for second in range(start + DAY_S, start + DAY_S + 180):
        made.note(second * NANOS_PER_S)
    assert made.bars.written - before == 3


def test_execution_planner_a_new_portfolio_can_be_saved() -> None:
    made, again = Portfolio("USDT", 5, LIMITS), portfolio()
    again.load(made.save())
    assert again.save() == made.save() and again.accounts == {} and again.capital == 5


def test_execution_planner_peak_and_brake_are_read_back() -> None:
    made, again = portfolio(), portfolio()
    trade(made, BTC, 1, 1_000, 1_000)
    for price in (1_100, 900, 1_020):
        made.mark(BTC, 20 * price)
        made.note(0)
    again.load(made.save())
    assert (again.size_factor, again.drawdown, again.equity) == (0.25, made.drawdown, made.equity)


def test_execution_planner_finer_steps_leave_every_value() -> None:
    made = portfolio()
    trade(made, BTC, 1, 2_000, 100)
    made.mark(BTC, 2_101)
    before = (made.equity, made.gross, room(made, BTC, 1, BTC=0.5))
    made.refine(BTC, 10, 2)
    assert (made.equity, made.gross, room(made, BTC, 1, BTC=0.5)) == before
    assert made.accounts[BTC].position_lots == 4_000
    made.check()


class Twin:
    """The same accounting in decimal numbers that are never rounded: one dictionary a quantity, money in units of 1e-8.

    ``events`` counts what was rounded for each sleeve; each rounding of value, fee and charge is off by less than two units.
    """

    def __init__(self) -> None:
        self.lots, self.cash, self.events = {HOUSE: 0}, {HOUSE: Decimal(0)}, {HOUSE: 0}
        self.gone, self.gone_events = Decimal(0), 0

    def open(self, decision: int) -> None:
        self.lots[decision], self.cash[decision], self.events[decision] = 0, Decimal(0), 0

    def take(self, decision: int, lots: int, money: Decimal) -> None:
        self.lots[decision] += lots
        self.cash[decision] += money
        self.events[decision] += 1

    def close(self, decision: int) -> None:
        assert self.lots.pop(decision) == 0
        self.gone += self.cash.pop(decision)
        self.gone_events += self.events.pop(decision)


def shared_out(total: int, wants: dict[int, int]) -> dict[int, int]:
    """Largest remainder, the slow way: one lot after the other to whom is furthest below the exact share."""
    whole = sum(wants.values())
    parts = {decision: Fraction(total * want, whole).__floor__() for decision, want in wants.items()}
    while sum(parts.values()) < total:
        neediest = max(sorted(wants), key=lambda d: Fraction(total * wants[d], whole) - parts[d])
        parts[neediest] += 1
    return {decision: lots for decision, lots in parts.items() if lots}


class Market:
    """A seeded trader who does everything that can be done to a portfolio, and tells its twin."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.made = Portfolio("USDT", 10**13, LIMITS)
        self.account = self.made.add(BTC, Step(1, 1), Step(1, 5))
        self.twin = Twin()
        self.decision = self.order = self.now_s = self.refined = 0
        self.bps = Decimal("4.5")
        self.seen = dict.fromkeys(("open", "target", "cross", "submit", "fill", "end", "house", "fund", "refine", "mark"), 0)
        self._doing = list(self.seen)
        self.mark()

    @property
    def unit(self) -> Decimal:
        """Money of one lot at half a tick."""
        sleeves = self.account.sleeves
        return Decimal(sleeves.tick.units * sleeves.lot.units).scaleb(8 - sleeves.tick.decimals - sleeves.lot.decimals) / 2

    def step(self) -> None:
        self.now_s += 1
        (what,) = self.chance.choices(self._doing, (4, 6, 4, 8, 20, 4, 1, 1, 0.002, 8))
        getattr(self, what)()
        for sleeve in self.account.sleeves.closed(self.now_s):
            mistake = abs(sleeve.cash - self.twin.cash[sleeve.decision])
            assert mistake <= 2 * self.twin.events[sleeve.decision]
            self.twin.close(sleeve.decision)

    def someone(self) -> int | None:
        open_now = [d for d in self.account.sleeves.by_decision if d != HOUSE]
        return self.chance.choice(open_now) if open_now else None

    def open(self) -> None:
        if len(self.account.sleeves.by_decision) < 8:
            self.decision += 1
            self.seen["open"] += 1
            self.account.sleeves.open(self.decision, self.now_s, self.chance.choice((-1, 1)) * self.chance.randint(1, 400))
            self.twin.open(self.decision)

    def target(self) -> None:
        if (decision := self.someone()) is not None:
            self.seen["target"] += 1
            if self.chance.random() < 0.6:
                self.account.sleeves.expire(decision)
            else:
                self.account.sleeves.set_target(decision, self.chance.randint(-400, 400))

    def cross(self) -> None:
        residuals, mid = self.account.sleeves.residuals(), self.mid
        cross = self.account.sleeves.cross(mid)
        assert (cross is not None) == bool(residuals and min(residuals.values()) < 0 < max(residuals.values()))
        if cross is None:
            return
        self.seen["cross"] += 1
        assert sum(share.lots for share in cross.shares) == sum(share.cash for share in cross.shares) == 0
        expected: dict[int, int] = {}
        for side in (1, -1):
            wants = {d: abs(lots) for d, lots in residuals.items() if side * lots > 0}
            expected |= {d: side * lots for d, lots in shared_out(cross.lots, wants).items()}
        assert {share.decision: share.lots for share in cross.shares} == expected
        for share in cross.shares:
            self.twin.take(share.decision, share.lots, -share.lots * mid * self.unit)
        self.account.sleeves.net()

    def submit(self) -> None:
        residuals = self.account.sleeves.residuals()
        side = self.chance.choice((1, -1))
        shares = {d: side * self.chance.randint(1, abs(lots)) for d, lots in residuals.items() if side * lots > 0}
        if shares and len(self.account.sleeves.orders) < 6:
            self.seen["submit"] += 1
            self.order += 1
            self.account.sleeves.submit(self.order, dict(reversed(shares.items())))

    def fill(self) -> None:
        if not (orders := self.account.sleeves.orders):
            return
        self.seen["fill"] += 1
        order = self.chance.choice(list(orders))
        wants = {d: abs(lots) for d, lots in orders[order].items()}
        side = 1 if min(orders[order].values()) > 0 else -1
        lots = self.chance.choice((sum(wants.values()), self.chance.randint(1, sum(wants.values()))))
        ticks = (self.mid + side) // 2
        value = worth(ticks, lots, self.account.sleeves.tick, self.account.sleeves.lot)
        charge = -self.chance.randint(0, 10**6)
        shares = self.made.fill(BTC, order, lots, value, fee(value, float(self.bps)), charge)
        expected = shared_out(lots, wants)
        assert {share.decision: side * share.lots for share in shares} == expected
        for decision, each in expected.items():
            price = 2 * ticks * each * self.unit
            self.twin.take(decision, side * each, -side * price - price * self.bps / 10_000 + Decimal(charge * each) / lots)

    def end(self) -> None:
        if orders := self.account.sleeves.orders:
            self.seen["end"] += 1
            order = self.chance.choice(list(orders))
            assert sum(orders[order].values()) == self.account.sleeves.end(order)

    def house(self) -> None:
        if (decision := self.someone()) is not None:
            self.seen["house"] += 1
            lots = self.account.sleeves.move_to_house(decision, self.mid)
            self.twin.take(decision, -lots, lots * self.mid * self.unit)
            self.twin.take(HOUSE, lots, -lots * self.mid * self.unit)

    def fund(self) -> None:
        self.seen["fund"] += 1
        rate, sleeves = Decimal(self.chance.randint(-300, 300)).scaleb(-6), self.account.sleeves
        self.made.fund(BTC, Fraction(rate), Fraction(self.mid, 2) * sleeves.tick.size)
        for decision, lots in self.twin.lots.items():
            self.twin.take(decision, 0, -lots * self.mid * self.unit * rate)
        self.twin.events[HOUSE] += len(self.twin.lots)

    def refine(self) -> None:
        if self.refined < 3:
            self.seen["refine"] += 1
            self.refined += 1
            by_price, by_lot = self.chance.choice(((10, 1), (1, 2), (5, 10)))
            self.made.refine(BTC, by_price, by_lot)
            self.twin.lots = {decision: lots * by_lot for decision, lots in self.twin.lots.items()}

    def mark(self) -> None:
        self.seen["mark"] += 1
        price = self.chance.randint(300_000, 700_000)
        self.made.mark(BTC, round(price / float(self.account.sleeves.tick.size) / 10) * 2 + self.chance.choice((0, 1)))

    @property
    def mid(self) -> int:
        assert self.account.mid_half_ticks is not None
        return self.account.mid_half_ticks

    def compare(self) -> None:
        """Hold every sleeve against the twin."""
        sleeves = self.account.sleeves
        profits = sleeves.pnl(self.mid)
        assert self.made.equity == self.made.capital + sleeves.settled + sum(profits.values())
        assert list(profits) == sorted(self.twin.lots)
        for decision, profit in profits.items():
            assert sleeves.by_decision[decision].lots == self.twin.lots[decision]
            exact = self.twin.cash[decision] + self.twin.lots[decision] * self.mid * self.unit
            assert abs(profit - exact) <= 1 + 2 * self.twin.events[decision]
        assert abs(sleeves.settled - self.twin.gone) <= 2 * self.twin.gone_events


def test_execution_planner_no_unit_is_lost_in_a_hundred_thousand_events() -> None:
    market = Market(7)
    for step in range(100_000):
        market.step()
        market.made.check()
        assert market.account.realised + market.account.unrealised == market.made.equity - market.made.capital
        if step % 10 == 0:
            market.compare()
    assert min(market.seen.values()) >= 3 and market.seen["fill"] > 10_000 and market.seen["cross"] > 1_000, market.seen
    assert market.account.turnover > 0 > market.account.fees


def test_execution_planner_a_portfolio_that_was_read_back_goes_on_as_if_nothing_was() -> None:
    one, other = Market(3), Market(3)
    for step in range(3_000):
        for market in (one, other):
            market.step()
            market.made.note(market.now_s * NANOS_PER_S)
        if step % 500 == 250:
            other.made.load([memoryview(bytes(piece)) for piece in other.made.save()])
            other.account = other.made.accounts[BTC]
    assert [bytes(piece) for piece in one.made.save()] == [bytes(piece) for piece in other.made.save()]
    assert one.made.bars.written == 301


def test_execution_planner_a_quote_takes_room_on_both_sides() -> None:
    made = portfolio()
    account = made.accounts[BTC]
    made.mark(BTC, 2_000)
    account.sleeves.open(1, 0, -1_000)
    account.sleeves.open_quote(2, 0, 3_000, 2_000)
    assert [account.committed(side) / UNITS for side in (1, -1)] == [200, 300], "it may come to be bought alone, or sold beside the other"
    assert [room(made, BTC, side, BTC=0.1)["symbol"] for side in (1, -1)] == [800, 700]
