"""Sleeves of one symbol: to each decision its own part of the position and of the money.

The law: the sleeves' lots sum to the position, and their cash, with that of the sleeves that are closed, to the cash. Whatever is shared is
shared in whole units by largest remainder, ties by decision id.
"""

from fractions import Fraction
from typing import NamedTuple

import msgspec

from alphapack.domain.market import Step
from alphapack.domain.money import split, worth_at_half_ticks, worths_at_half_ticks
from alphapack.models.steps import DECIMALS_MAX

HOUSE = 0
"""The sleeve of what no decision ordered: what the brake or dust left, and the rest of a funding payment. Its target is always 0."""
SLEEVES_MAX = 1_024
ORDERS_MAX = 256


class Sleeve(msgspec.Struct):
    """One decision's part: lots are signed where it says so, money is in units of 1e-8 and below zero where it is paid."""

    decision: int
    opened_ns: int
    size_lots: int = 0
    """What it may come to hold, signed; of a quote the larger side; 0 from the horizon on."""
    target_lots: int = 0
    """What it is to hold now, signed: its size, or as much of the way there, and back, as its plan has due."""
    lots: int = 0
    """Held, signed."""
    working_lots: int = 0
    """What its orders still have out, signed."""
    filled_lots: int = 0
    """Traded by orders, bought and sold together."""
    crossed_lots: int = 0
    """Traded with other sleeves, bought and sold together."""
    cash: int = 0
    """Of all that is below and of what was bought and sold."""
    fees: int = 0
    impact: int = 0
    funding: int = 0
    turnover: int = 0
    """Value of what was traded by orders, never below zero."""
    crossed: int = 0
    """Value of what was traded with other sleeves, never below zero."""
    bid_lots: int = 0
    """What it may come to hold long while it quotes, 0 or more."""
    ask_lots: int = 0
    """What it may come to hold short while it quotes, 0 or more."""
    closed_ns: int | None = None

    @property
    def quoting(self) -> bool:
        """Whether it shows quotes, and wants no more than what they bring."""
        return self.bid_lots > 0 or self.ask_lots > 0

    @property
    def residual_lots(self) -> int:
        """What is neither held nor worked on, signed; nothing while it quotes."""
        return 0 if self.quoting else self.target_lots - self.lots - self.working_lots

    def may_hold(self, side: int) -> int:
        """Return the most lots that it may come to hold on a side, below zero where they are on the other one."""
        if self.quoting:
            return max(self.bid_lots if side > 0 else self.ask_lots, side * self.lots)
        return side * self.committed_lots

    @property
    def committed_lots(self) -> int:
        """Its size or its target, whichever is more, signed."""
        return max(self.size_lots, self.target_lots, key=abs)

    @property
    def is_trade(self) -> bool:
        """Whether anything was ever traded for it."""
        return self.filled_lots + self.crossed_lots > 0


class Share(NamedTuple):
    """What one sleeve has of a fill or a cross; lots are signed, ``cash`` is the price paid or received alone."""

    decision: int
    lots: int
    cash: int
    fee: int
    impact: int


class Cross(NamedTuple):
    """What sleeves traded with each other; the lots of the shares sum to 0, and so does their cash."""

    mid_half_ticks: int
    lots: int
    value: int
    shares: list[Share]


class Sleeves(msgspec.Struct):
    """All sleeves of a symbol that are not closed, and which of them its open orders are for."""

    tick: Step
    lot: Step
    long_only: bool = False
    """Whether nothing may be held short, as where what is traded is owned."""
    by_decision: dict[int, Sleeve] = msgspec.field(default_factory=lambda: {HOUSE: Sleeve(HOUSE, 0)})
    orders: dict[int, dict[int, int]] = msgspec.field(default_factory=dict)
    """Lots that are not filled of each open order, signed, by decision, ascending."""
    settled: int = 0
    """Cash of the sleeves that were closed."""

    # Targets

    def open(self, decision: int, ts_ns: int, size_lots: int = 0) -> Sleeve:
        """Begin the sleeve of a decision, with its size as its target; ids are above 0.

        Raises ``ValueError`` where the decision has one, ``SLEEVES_MAX`` are open, or the size is short where nothing may be held short.
        """
        if decision <= HOUSE or decision in self.by_decision:
            raise ValueError(f"expected the id of a decision above {HOUSE} that has no sleeve, found {decision}")
        if len(self.by_decision) >= SLEEVES_MAX:
            raise ValueError(f"expected at most {SLEEVES_MAX:,} open sleeves, found one more")
        self._check_long(size_lots)
        sleeve = self.by_decision[decision] = Sleeve(decision, ts_ns, size_lots, size_lots)
        return sleeve

    def open_quote(self, decision: int, ts_ns: int, bid_lots: int, ask_lots: int) -> Sleeve:
        """Begin the sleeve of a decision that quotes: what it may buy and sell in all, in lots of 0 or more.

        Where nothing may be held short ``ask_lots`` must be 0: it then offers what it holds. Raises ``ValueError`` as ``open``, and where
        lots are below 0, or both are 0.
        """
        if min(bid_lots, ask_lots) < 0 or not (bid_lots or ask_lots):
            raise ValueError(f"expected lots of 0 or more on both sides, and more on one, found {bid_lots} and {ask_lots}")
        self._check_long(-ask_lots)
        sleeve = self.open(decision, ts_ns, bid_lots if bid_lots >= ask_lots else -ask_lots)
        sleeve.target_lots, sleeve.bid_lots, sleeve.ask_lots = 0, bid_lots, ask_lots
        return sleeve

    def set_target(self, decision: int, lots: int) -> None:
        """Say what a sleeve is to hold now, signed.

        Raises ``ValueError`` where that is short and nothing may be held short, ``KeyError`` where the decision has no open sleeve.
        """
        self._check_long(lots)
        self._decided(decision).target_lots = lots

    def expire(self, decision: int) -> None:
        """Set size and target of a sleeve to 0, for its horizon has come; quotes end. A plan may then set targets on the way there."""
        sleeve = self._decided(decision)
        sleeve.size_lots = sleeve.target_lots = sleeve.bid_lots = sleeve.ask_lots = 0

    def residuals(self) -> dict[int, int]:
        """Return what each sleeve lacks, signed, by decision, ascending; those that lack nothing are left out."""
        return {decision: lots for decision in sorted(self.by_decision) if (lots := self.by_decision[decision].residual_lots)}

    def net(self) -> dict[int, int]:
        """Return what is left to order: ``residuals`` after a cross, which are of one sign. Raises ``ValueError`` where they oppose."""
        left = self.residuals()
        if left and min(left.values()) < 0 < max(left.values()):
            raise ValueError(f"expected residuals of one sign, as they are after a cross, found {left}")
        return left

    # Trading

    def cross(self, mid_half_ticks: int) -> Cross | None:
        """Let sleeves that lack opposite things trade with each other at the mid, without a fee; None where none oppose.

        The side that lacks less gets all of it; the other shares it pro rata to what each lacks.
        """
        residuals = self.residuals()
        wants = [[(decision, side * lots) for decision, lots in residuals.items() if side * lots > 0] for side in (1, -1)]
        lots = min(sum(each for _, each in wanted) for wanted in wants)
        if lots == 0:
            return None
        value = worth_at_half_ticks(mid_half_ticks, lots, self.tick, self.lot)
        shares = []
        for side, wanted in zip((1, -1), wants, strict=True):
            got = split(lots, [each for _, each in wanted])
            for (decision, _), each, paid in zip(wanted, got, split(value, got), strict=True):
                if each:
                    self._trade(self.by_decision[decision], share := Share(decision, side * each, -side * paid, 0, 0))
                    self.by_decision[decision].crossed_lots += each
                    self.by_decision[decision].crossed += paid
                    shares.append(share)
        return Cross(mid_half_ticks, lots, value, shares)

    def submit(self, order: int, shares: dict[int, int]) -> None:
        """Note an order and for whom it works: signed lots of one sign, by decision.

        Raises
        ------
        ValueError
            The order is known, the lots are of both signs or zero, ``ORDERS_MAX`` orders are open, or the order might sell more than is
            held where nothing may be held short.
        KeyError
            A decision has no open sleeve.
        """
        if order in self.orders or len(self.orders) >= ORDERS_MAX:
            raise ValueError(f"expected an order that is new, one of at most {ORDERS_MAX}, found {order} with {len(self.orders)} open")
        if not shares or not (min(shares.values()) > 0 or max(shares.values()) < 0):
            raise ValueError(f"expected lots of one sign for one decision at least, found {shares}")
        sold = -sum(lots for known in (*self.orders.values(), shares) for lots in known.values() if lots < 0)
        held = sum(sleeve.lots for sleeve in self.by_decision.values())
        if self.long_only and shares[min(shares)] < 0 and sold > held:
            raise ValueError(f"expected orders to sell at most the {held} lots held, found {sold}")
        sleeves = [self._sleeve(decision) for decision in shares]
        for sleeve in sleeves:
            sleeve.working_lots += shares[sleeve.decision]
        self.orders[order] = dict(sorted(shares.items()))

    def fill(self, order: int, lots: int, value: int, fee: int, impact: int) -> list[Share]:
        """Share a fill, pro rata to what is not filled, among the sleeves that its order works for; money follows the lots.

        An order that is filled whole leaves by itself.

        Parameters
        ----------
        lots
            Filled now, from 1 to what the order has left.
        value
            Price times quantity, zero or more.
        fee, impact
            Fee, and charge for what own fills before had done to the price: below zero where they are paid.

        Raises
        ------
        ValueError
            Lots or value are out of their range; nothing is changed then.
        KeyError
            The order is not open.
        """
        if order not in self.orders:
            raise KeyError(f"expected an open order, found {order}")
        unfilled = self.orders[order]
        left = [abs(each) for each in unfilled.values()]
        if not 0 < lots <= sum(left) or value < 0:
            raise ValueError(f"expected 1 to {sum(left)} lots and a value of zero or more, found {lots} and {value}")
        side = 1 if next(iter(unfilled.values())) > 0 else -1
        got = split(lots, left)
        money = zip(split(value, got), split(fee, got), split(impact, got), strict=True)
        shares = []
        for decision, each, (paid, fees, charge) in zip(list(unfilled), got, money, strict=True):
            if not each:
                continue
            sleeve = self.by_decision[decision]
            self._trade(sleeve, share := Share(decision, side * each, -side * paid, fees, charge))
            sleeve.working_lots -= share.lots
            sleeve.filled_lots += each
            sleeve.turnover += paid
            shares.append(share)
            unfilled[decision] -= share.lots
            if not unfilled[decision]:
                del unfilled[decision]
        if not unfilled:
            del self.orders[order]
        return shares

    def has_orders(self, decision: int) -> bool:
        """Tell whether an open order works for a sleeve; what it has out on two sides may come to 0 ``working_lots``."""
        return any(decision in shares for shares in self.orders.values())

    def end(self, order: int) -> int:
        """Note that nothing more will come of an order; return its lots that were not filled, signed: 0 where it has left already."""
        unfilled = self.orders.pop(order, {})
        for decision, lots in unfilled.items():
            self.by_decision[decision].working_lots -= lots
        return sum(unfilled.values())

    def move_to_house(self, decision: int, mid_half_ticks: int) -> int:
        """Let the sleeve of a decision expire and the house take what it holds, for its value at the mid; return those lots, signed."""
        sleeve, house = self._decided(decision), self.by_decision[HOUSE]
        lots, value = sleeve.lots, worth_at_half_ticks(mid_half_ticks, sleeve.lots, self.tick, self.lot)
        self.expire(decision)
        house.lots, sleeve.lots = house.lots + lots, 0
        house.cash, sleeve.cash = house.cash - value, sleeve.cash + value
        return lots

    def fund(self, per_lot: Fraction) -> int:
        """Pay or receive so many units of money for each lot held; return the sum. What rounding leaves falls to the house."""
        total = left = round(sum(sleeve.lots for sleeve in self.by_decision.values()) * per_lot)
        for sleeve in self.by_decision.values():
            if sleeve.decision != HOUSE:
                part = round(sleeve.lots * per_lot)
                sleeve.cash, sleeve.funding, left = sleeve.cash + part, sleeve.funding + part, left - part
        house = self.by_decision[HOUSE]
        house.cash, house.funding = house.cash + left, house.funding + left
        return total

    # What came of it

    def closed(self, ts_ns: int) -> list[Sleeve]:
        """Hand out, once, the sleeves that are done: size and target 0, nothing held, no order of theirs open.

        Those of which ``is_trade`` is true are trades, and their cash is their profit; of the others nothing came.
        """
        working = {decision for shares in self.orders.values() for decision in shares} | {HOUSE}
        done = [one for one in self.by_decision.values() if not (one.committed_lots or one.lots or one.decision in working)]
        for sleeve in done:
            del self.by_decision[sleeve.decision]
            sleeve.closed_ns = ts_ns
            self.settled += sleeve.cash
        return done

    def pnl(self, mid_half_ticks: int) -> dict[int, int]:
        """Return cash and the value at the mid of each open sleeve; with ``settled`` they sum to the profit of the symbol."""
        every = [self.by_decision[decision] for decision in sorted(self.by_decision)]
        values = worths_at_half_ticks(mid_half_ticks, [sleeve.lots for sleeve in every], self.tick, self.lot)
        return {sleeve.decision: sleeve.cash + value for sleeve, value in zip(every, values, strict=True)}

    def check(self, position_lots: int, cash: int) -> None:
        """Raise ``AssertionError`` where the sleeves do not sum to the position, the cash and the open orders."""
        every = self.by_decision.values()
        held, owned = sum(sleeve.lots for sleeve in every), sum(sleeve.cash for sleeve in every) + self.settled
        if held != position_lots:
            raise AssertionError(f"expected sleeves of {position_lots} lots in all, found {held}: {held - position_lots:+d}")
        if owned != cash:
            raise AssertionError(f"expected sleeves with cash of {cash} in all, found {owned}: {owned - cash:+d}")
        working = dict.fromkeys(self.by_decision, 0)
        for shares in self.orders.values():
            for decision, lots in shares.items():
                working[decision] += lots
        found = {sleeve.decision: sleeve.working_lots for sleeve in every}
        if found != working:
            raise AssertionError(f"expected sleeves to work for what their orders have out, {working}, found {found}")

    def refine(self, by_price: int, by_lot: int) -> None:
        """Count in ticks and lots that are so many times finer."""
        self.tick, self.lot = finer(self.tick, by_price), finer(self.lot, by_lot)
        for sleeve in self.by_decision.values():
            sleeve.size_lots *= by_lot
            sleeve.target_lots *= by_lot
            sleeve.lots *= by_lot
            sleeve.working_lots *= by_lot
            sleeve.filled_lots *= by_lot
            sleeve.crossed_lots *= by_lot
            sleeve.bid_lots *= by_lot
            sleeve.ask_lots *= by_lot
        self.orders = {order: {each: lots * by_lot for each, lots in shares.items()} for order, shares in self.orders.items()}

    def _trade(self, sleeve: Sleeve, share: Share) -> None:
        sleeve.lots += share.lots
        sleeve.cash += share.cash + share.fee + share.impact
        sleeve.fees += share.fee
        sleeve.impact += share.impact

    def _check_long(self, lots: int) -> None:
        if self.long_only and lots < 0:
            raise ValueError(f"expected zero or more lots where nothing is held short, found {lots}")

    def _sleeve(self, decision: int) -> Sleeve:
        if decision not in self.by_decision:
            raise KeyError(f"expected a decision with an open sleeve, found {decision}")
        return self.by_decision[decision]

    def _decided(self, decision: int) -> Sleeve:
        if decision == HOUSE:
            raise ValueError("expected the sleeve of a decision, found the house")
        return self._sleeve(decision)


def finer(step: Step, by: int) -> Step:
    """Return the step of which ``by`` make up this one. Raises ``ValueError`` where no decimal number names it."""
    units, decimals = step.units, step.decimals
    while by < 1 or units % by:
        if by < 1 or decimals == DECIMALS_MAX:
            raise ValueError(f"expected a step that a decimal number can name, found {step} in {by} parts")
        units, decimals = units * 10, decimals + 1
    return Step(units // by, decimals)
