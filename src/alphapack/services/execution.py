"""From an intended exposure to a position and back: sizes, plans, orders for the net of all sleeves, and what each trade came to.

Every second each symbol with open sleeves is looked at. What their plans have due is held against what they hold and have out;
opposite wants cross inside at the mid; the rest is ordered, at once where a plan says so or is late, else resting at the best price.
A sleeve is to hold its size until its horizon and nothing from then on. One that quotes shows both sides until then by orders of its own.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol

import msgspec

from alphapack.domain.context import Context
from alphapack.domain.events import Crossed, FundingPaid, FundingRate, HouseTook, Planned, Sized, TradeClosed
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, BookState
from alphapack.domain.money import MONEY_MAX, UNITS, split, worth_at_half_ticks
from alphapack.domain.trading import Decision, Fill, Order, OrderKind, Quote, Terms, side_of
from alphapack.models import funding, netting, outcomes, planner, sizing
from alphapack.models.book import FeatureBook
from alphapack.models.deals import CostModel, Deal, Leg, flow_of
from alphapack.models.impact import Impact
from alphapack.models.planner import Plan
from alphapack.models.portfolio import ACCOUNTS_MAX, Account, Cap, Limits, Portfolio
from alphapack.models.schedules import LOTS_MAX
from alphapack.models.sizing import Sizing
from alphapack.models.sleeves import HOUSE, ORDERS_MAX, SLEEVES_MAX, Sleeve
from alphapack.models.tca import HORIZONS_S, LegFill, Markouts

TIMER = "execution"
STEP_NS, PHASES = 100 * NANOS_PER_MS, 10
"""A tenth of the symbols is looked at every 100 ms, so that each is once a second and the market is not held up."""
ENTRY_SHARE = 0.2
"""Part of its time in which a sleeve is to come to its size: what comes in late would only be bought to be sold."""
EXIT_S, EXIT_URGENCY = 30.0, 0.9
TRADES_KEPT = 300
MARKOUT, HORIZON = "markout", "horizon"
MARKED_KEPT = 2_000
YEAR_S = 31_536_000
QUOTE = "QUOTE"
"""How a decision that quotes is traded, where plans say their style."""


class Orders(Protocol):
    """Where orders go."""

    def submit(self, client_id: str, symbol: str, side: int, lots: int, ticks: int, kind: OrderKind, shares: dict[int, int]) -> Order:
        """Send an order for the decisions of ``shares``, signed lots. Raises ``ValueError`` where it cannot be sent."""
        ...

    def cancel(self, order: int) -> bool:
        """Ask for an order's end."""
        ...

    def replace(self, order: int, ticks: int) -> bool:
        """Ask for another limit of an order."""
        ...

    def open_orders(self, symbol: str) -> list[Order]:
        """Return the open orders of a symbol, oldest first."""
        ...


class Forecast(msgspec.Struct, frozen=True):
    """Volatility to the horizon: standard deviations, and the weight of the first in a blend."""

    har: float
    garch: float
    har_weight: float


class Known(Protocol):
    """What execution asks about a symbol."""

    def market(self, symbol: str) -> tuple[FeatureBook, BookState] | None:
        """Return its book and what is proven of it."""
        ...

    def terms(self, symbol: str) -> Terms | None:
        """Return the terms of its orders."""
        ...

    def long_only(self, symbol: str) -> bool:
        """Tell whether it is owned rather than held long or short."""
        ...

    def taking_orders(self) -> list[str]:
        """Return the symbols that take orders while their books are LIVE, whether these are now or not."""
        ...

    def features(self, symbol: str) -> dict[str, float]:
        """Return its features, as far as they are known."""
        ...

    def forecast(self, symbol: str, minutes: int) -> Forecast | None:
        """Return its volatility over the next minutes; None: not known."""
        ...

    def impact(self, symbol: str) -> Impact | None:
        """Return what orders cost by their size; None: not known."""
        ...

    def adv(self, symbol: str) -> float | None:
        """Return the base volume of a day; None: not known."""
        ...

    def volumes(self, symbol: str, minutes: int) -> list[float] | None:
        """Return the base volume to be expected in each of the next minutes; None: not known."""
        ...


class Refused(ValueError):
    """A question that cannot be answered now; the text says what is missing."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    orders_n: int
    deals: dict[int, Deal]
    done: list[Deal]
    sized: dict[str, Sizing]
    newest: str
    sigmas: dict[str, float]
    funding: dict[str, FundingRate]
    markouts: Markouts
    marked: dict[int, dict[int, float | None]]


class Execution:
    """Owns the portfolio and what is planned for it."""

    def __init__(self, ctx: Context, orders: Orders, known: Known) -> None:
        self._ctx, self._orders, self._known = ctx, orders, known
        self.matured: Callable[[outcomes.Matured], None] = lambda matured: None
        """Told once of each decision that was given a size, at its horizon."""
        self.closed: Callable[[Deal], None] = lambda deal: None
        """Told of each trade that is closed, after its record."""
        self.unsized: Callable[[int], None] = lambda decision: None
        """Told of each decision that was given no size."""
        self.portfolio: Portfolio | None = None
        """None before the settings are known."""
        self.halted = False
        """Nothing is sent or crossed meanwhile; what is out may still be filled."""
        self._orders_n = 0
        self.sigmas: dict[str, float] = {}
        """Volatility of a year of each symbol that was ever given a size, as its newest decision saw it."""
        self._deals: dict[int, Deal] = {}
        self._done: deque[Deal] = deque(maxlen=TRADES_KEPT)
        self._sized: dict[str, Sizing] = {}
        self._newest = ""
        self._funding: dict[str, FundingRate] = {}
        self._markouts = Markouts()
        self._marked: dict[int, dict[int, float | None]] = {}
        """Markouts of the newest fills in bps, by fill and by horizon."""

    def on_configure(self) -> None:
        """Take the settings: the capital of the first time stays, limits may change."""
        settings = self._ctx.settings.execution
        if self.portfolio is None:
            self.portfolio = Portfolio(settings.settlement, round(settings.capital * UNITS), self._limits())
            self._wait()
        self.portfolio.limits = self._limits()

    def _limits(self) -> Limits:
        settings = self._ctx.settings.execution
        return Limits(
            settings.gross_max,
            settings.symbol_max,
            settings.vol_budget,
            settings.brake_drawdown,
            settings.brake_release,
            settings.brake_factor,
        )

    # Decisions

    def on_decision(self, decision: Decision) -> None:
        """Size a decision, plan it or have it quoted, and open its sleeve."""
        if not self._take_up(decision):
            self.unsized(decision.id)

    def _take_up(self, decision: Decision) -> bool:
        """Tell whether a decision was given a size."""
        symbol = decision.symbol
        portfolio, found, forecast = self.portfolio, self._live(symbol), self._known.forecast(symbol, -(-decision.horizon_s // 60))
        if portfolio is None or found is None or forecast is None:
            return False
        if symbol not in portfolio.accounts and len(portfolio.accounts) >= ACCOUNTS_MAX:
            return False
        book, terms, mid = found
        self._account(symbol, terms).mid_half_ticks = mid
        account = portfolio.accounts[symbol]
        sized = self._size(decision, terms, mid, forecast)
        if sized is None:
            return False
        if sized.lots and len(account.sleeves.by_decision) > self._sleeves_max():
            sized = _refused(sized, "sleeves before it are late to close: as many are open as may be")
        elif sized.lots and not _is_countable(account, terms, mid, 2 * sized.lots):
            sized = _refused(sized, "what it would come to is beyond what can be counted")
        self._sized[symbol], self._newest = sized, symbol
        self._ctx.emit(Sized(decision.id, symbol, msgspec.to_builtins(sized)))
        if not sized.lots:
            return False
        horizon_ns = decision.horizon_s * NANOS_PER_S
        deal = self._deals[decision.id] = Deal(
            decision=msgspec.structs.replace(decision, features={}),  # The ledger has them.
            sizing=sized,
            until_ns=self._ctx.now_ns + horizon_ns,
            tick=terms.tick,
            lot=terms.lot,
            decision_mid=mid,
            allocated=worth_at_half_ticks(mid, abs(sized.lots), terms.tick, terms.lot),
            cost=self._cost(symbol, book, terms),
            long_only=account.sleeves.long_only,
        )
        self._ctx.after(horizon_ns, TIMER, f"{HORIZON} {decision.id}")
        if decision.quote is not None:
            self._begin_quote(deal, decision.quote, account)
        else:
            account.sleeves.open(decision.id, self._ctx.now_ns, sized.lots)
            plan_s = max(1.0, ENTRY_SHARE * (decision.plan_s or decision.horizon_s))
            deal.legs.append(self._leg(decision.id, symbol, "entry", sized.lots, decision.urgency, plan_s, book, mid))
        self._step(symbol, account, book, mid)
        return True

    def _begin_quote(self, deal: Deal, quote: Quote, account: Account) -> None:
        """Open the sleeve of a quote: what is owned is offered only as far as it is held."""
        decision, sized = deal.decision, deal.sizing
        bid_lots, ask_lots = deal.sides(quote)
        account.sleeves.open_quote(decision.id, self._ctx.now_ns, bid_lots, ask_lots)
        side, lots = side_of(sized.lots), abs(sized.lots)
        reason = f"bids for up to {bid_lots} lots and offers up to {ask_lots}, {quote.offset_ticks} ticks behind the best prices"
        self._ctx.emit(Planned(decision.id, decision.symbol, "entry", side, lots, QUOTE, "", reason, 0.0, 0))

    def _cost(self, symbol: str, book: FeatureBook, terms: Terms) -> CostModel:
        """Return what trading a symbol is modelled to cost now; without impact where none is known."""
        bid, ask = book.best()
        assert bid is not None and ask is not None, "there is a mid"
        impact, adv = self._known.impact(symbol), self._known.adv(symbol)
        half_spread_bps = 1e4 * (ask - bid) / (ask + bid)
        if impact is None or adv is None or not adv > 0.0:
            return CostModel(half_spread_bps, 0.0, 1.0, 1.0, terms.taker_fee_bps)
        return CostModel(half_spread_bps, impact.k, impact.a, adv / float(terms.lot.size), terms.taker_fee_bps)

    def _live(self, symbol: str) -> tuple[FeatureBook, Terms, int] | None:
        """Return a LIVE book with two sides that takes orders, its terms, and a mid at which all that is held can be counted."""
        found, terms, account = self._known.market(symbol), self._terms(symbol), self.account(symbol)
        mid = _mid(found[0]) if found is not None and found[1] is BookState.LIVE else None
        if found is None or mid is None or terms is None or not _is_countable(account, terms, mid):
            return None
        return found[0], terms, mid

    def _size(self, decision: Decision, terms: Terms, mid: int, forecast: Forecast) -> Sizing | None:
        """Size a decision; None where a lot is worth so little, or the least order so much, that there is nothing to count by."""
        portfolio, settings = self.portfolio, self._ctx.settings.execution
        assert portfolio is not None
        symbol, exposure = decision.symbol, decision.exposure
        sides: tuple[int, ...] = (1 if exposure > 0.0 else -1,)
        if decision.quote is not None:
            exposure, sides = _larger_side(decision.quote, self._known.long_only(symbol))
        rule, yearly = self._ctx.settings.volatility_rule, (YEAR_S / decision.horizon_s) ** 0.5
        self.sigmas[symbol] = sizing.sigma_used(rule, forecast.har, forecast.garch, forecast.har_weight) * yearly
        lot_value = worth_at_half_ticks(mid, 1, terms.tick, terms.lot)
        least_lots = _least_lots(terms, lot_value)
        if settings.kelly_cap * max(0, portfolio.equity) >= LOTS_MAX * lot_value or least_lots > LOTS_MAX:
            return None
        return sizing.size(
            decision=decision.id,
            ts_ns=self._ctx.now_ns,
            symbol=symbol,
            exposure=exposure,
            win_probability=decision.win_probability,
            horizon_s=decision.horizon_s,
            sigma_har=forecast.har,
            sigma_garch=forecast.garch,
            har_weight=forecast.har_weight,
            rule=self._ctx.settings.volatility_rule,
            equity=portfolio.equity,
            lot_value=lot_value,
            lot=terms.lot,
            sleeves_max=min(sizing.SLEEVES_MAX, self._sleeves_max() * max(1, len(self._known.taking_orders()))),
            target_vol=settings.target_vol,
            kelly_fraction=settings.kelly_fraction,
            kelly_cap=settings.kelly_cap,
            room=_common([portfolio.room(symbol, side, self.sigmas) for side in sides]),
            size_factor=portfolio.size_factor,
            least_lots=least_lots,
            probe=settings.probe,
        )

    def _sleeves_max(self) -> int:
        """Most sleeves of one symbol that are open at once: until their horizon, and while they close."""
        router = self._ctx.settings.router
        return min(SLEEVES_MAX - 1, math.ceil((router.horizon_s + EXIT_S) / router.interval_s))

    def _account(self, symbol: str, terms: Terms) -> Account:
        assert self.portfolio is not None
        account = self.portfolio.accounts.get(symbol)
        return account or self.portfolio.add(symbol, terms.tick, terms.lot, self._known.long_only(symbol))

    # Plans

    def simulate(self, symbol: str, side: int, size: float, urgency: float, horizon_s: float) -> Plan:
        """Return how an order of ``size`` base units would be traded now. Raises ``Refused`` where too little is known, ``ValueError``."""
        found, terms = self._known.market(symbol), self._known.terms(symbol)
        if found is None or terms is None or found[1] is not BookState.LIVE:
            raise Refused(f"expected a LIVE book, found it {found[1].name if found is not None else 'not there'}")
        mid = _mid(found[0])
        if terms.refusal or mid is None:
            raise Refused(terms.refusal or "expected a book with two sides, found one of them empty")
        exact = size / float(terms.lot.size)
        if not 0.5 <= exact <= LOTS_MAX:
            raise ValueError(f"expected a size from one lot, {terms.lot}, to 2**52 of them, found {size}")
        lots = max(1, round(exact))
        return self._plan(symbol, side, lots, urgency, horizon_s, found[0], terms, mid)

    def _plan(self, symbol: str, side: int, lots: int, urgency: float, horizon_s: float, book: FeatureBook, terms: Terms, mid: int) -> Plan:
        features, impact = self._known.features(symbol), self._known.impact(symbol)
        adv, forecast = self._known.adv(symbol), self._known.forecast(symbol, max(1, -(-round(horizon_s) // 60)))
        for what, value in (("the volume of a day", adv), ("a forecast of volatility", forecast), ("an estimate of impact", impact)):
            if value is None:
                raise Refused(f"expected {what}, found none yet: it follows from the candles of the last hours")
        assert impact is not None and adv is not None and forecast is not None
        for name in ("spread_bps", "micro_vol", "depth_bid", "depth_ask"):
            if name not in features:
                raise Refused(f"expected a book of two sides for some seconds, found no {name} yet")
        rule = self._ctx.settings.volatility_rule
        minutes = max(1, -(-round(horizon_s) // 60))
        volumes = self._known.volumes(symbol, minutes)
        return planner.plan(
            side=side,
            lots=lots,
            urgency=urgency,
            horizon_s=horizon_s,
            market=planner.Market(
                mid=mid * float(terms.tick.size) / 2,
                spread_bps=features["spread_bps"],
                tick=float(terms.tick.size),
                lot=float(terms.lot.size),
                depth=features["depth_ask" if side > 0 else "depth_bid"],
                micro_vol=features["micro_vol"],
                sigma=sizing.sigma_used(rule, forecast.har, forecast.garch, forecast.har_weight) * (horizon_s / (60 * minutes)) ** 0.5,
                adv=adv,
                volume_profile=None if volumes is None else tuple(volumes),
                least_lots=_least_lots(terms, worth_at_half_ticks(mid, 1, terms.tick, terms.lot)),
                taker_fee_bps=terms.taker_fee_bps,
            ),
            impact=impact,
        )

    def _leg(self, decision: int, symbol: str, kind: str, lots: int, urgency: float, horizon_s: float, book: FeatureBook, mid: int) -> Leg:
        """Plan the way of a sleeve by ``lots``, signed; where that cannot be planned it is taken at once."""
        terms = self._known.terms(symbol)
        assert terms is not None and self.portfolio is not None
        side = 1 if lots > 0 else -1
        try:
            plan: Plan | None = self._plan(symbol, side, abs(lots), urgency, horizon_s, book, terms, mid)
        except ValueError:
            plan = None
        bought, sold, value = book.flow
        held = self.portfolio.accounts[symbol].sleeves.by_decision[decision].lots
        leg = Leg(kind, side, abs(lots), held, self._ctx.now_ns, horizon_s, mid, plan, (bought + sold, value))
        if plan is not None:
            self._ctx.emit(
                Planned(
                    decision,
                    symbol,
                    kind,
                    side_of(side),
                    abs(lots),
                    plan.style,
                    plan.schedule,
                    plan.reason,
                    plan.cost.bps,
                    len(plan.slices),
                )
            )
        return leg

    @property
    def currency(self) -> str:
        """The currency of all money: that of the first start, for what is held must be paid back in it."""
        return self.portfolio.currency if self.portfolio is not None else self._ctx.settings.execution.settlement

    def account(self, symbol: str) -> Account | None:
        """Return a symbol's account; None where nothing was ever decided about it."""
        return self.portfolio.accounts.get(symbol) if self.portfolio is not None else None

    def _terms(self, symbol: str) -> Terms | None:
        """Return the terms of a symbol that takes orders now, in the steps in which its account is kept."""
        terms, account = self._known.terms(symbol), self.account(symbol)
        if terms is None or terms.refusal:
            return None
        same = account is None or (terms.tick, terms.lot) == (account.sleeves.tick, account.sleeves.lot)
        return terms if same else None

    # Every second

    def _wait(self) -> None:
        self._ctx.after(STEP_NS - self._ctx.now_ns % STEP_NS, TIMER)

    def on_timer(self, argument: str) -> None:
        """Look at every symbol with open sleeves, and at the equity; or take the markouts, or the reward, that are due."""
        portfolio = self.portfolio
        assert portfolio is not None, "the timer is set with it"
        what, _, number = argument.partition(" ")
        if what == MARKOUT:
            self._take_markouts()
            return
        if what == HORIZON:
            self._mature(int(number))
            return
        self._wait()
        phase = self._ctx.now_ns // STEP_NS % PHASES
        for place, (symbol, account) in enumerate(portfolio.accounts.items()):
            if place % PHASES != phase:
                continue
            found = self._live(symbol)
            if found is None:  # Nobody knows what its orders rest in.
                self._call_back(symbol)
                continue
            book, _, mid = found
            portfolio.mark(symbol, mid)
            if not self.halted and (len(account.sleeves.by_decision) > 1 or account.position_lots or account.sleeves.orders):
                self._step(symbol, account, book, mid)
        if phase == 0:
            portfolio.note(self._ctx.now_ns)

    def _step(self, symbol: str, account: Account, book: FeatureBook, mid: int) -> None:
        """Bring a symbol nearer to what its sleeves are to hold."""
        terms = self._terms(symbol)
        if terms is None:
            return
        sleeves = account.sleeves
        late: set[int] = {HOUSE}
        for decision in sorted(set(sleeves.by_decision) - {HOUSE}):
            self._pace(self._deals[decision], sleeves.by_decision[decision], symbol, book, mid, late)
        cross = sleeves.cross(mid)
        if cross is not None:
            self._ctx.emit(Crossed(symbol, mid, {share.decision: share.lots for share in cross.shares}))
            for share in cross.shares:
                deal = self._deals.get(share.decision)
                if deal is not None:
                    deal.note(share.lots, share.cash)
                    deal.legs[-1].fills.append(LegFill.crossed(share, mid))
        self._order(symbol, account, terms, book, mid, late)
        for sleeve in sleeves.closed(self._ctx.now_ns):
            self._close(symbol, sleeve, book, mid)

    def _mature(self, decision: int) -> None:
        """Fix what a decision has come to at its horizon, once; quotes end there."""
        deal = self._deals.get(decision)
        if deal is None or deal.horizon_mid is not None:
            return
        symbol = deal.decision.symbol
        account, found = self.account(symbol), self._live(symbol)
        assert account is not None and account.mid_half_ticks is not None, "it was opened at one"
        deal.horizon_mid = found[2] if found is not None else account.mid_half_ticks
        sleeve = account.sleeves.by_decision[decision]
        if sleeve.quoting:
            self._call_back(symbol, decision)
        self.matured(outcomes.reward(deal, sleeve, deal.horizon_mid, self._ctx.now_ns))

    def _pace(self, deal: Deal, sleeve: Sleeve, symbol: str, book: FeatureBook, mid: int, late: set[int]) -> None:
        """Set what a sleeve is to hold now by its plan, and say whether it is late."""
        now = self._ctx.now_ns
        account = self.account(symbol)
        assert account is not None
        if now >= deal.until_ns and deal.way_out is None:
            self._turn(deal, sleeve, account, book, mid)
            if deal.way_out is None:
                return
        if not deal.legs:
            return
        leg = deal.legs[-1]
        elapsed_ns = now - leg.start_ns
        due = self._due(leg, elapsed_ns)
        account.sleeves.set_target(sleeve.decision, leg.from_lots + leg.side * due)
        done = abs(sleeve.lots - leg.from_lots)
        if done == leg.lots and leg.end_flow is None:
            leg.end_flow = flow_of(book)
        if leg.plan is None or leg.plan.aggressive or self._due(leg, elapsed_ns - netting.REST_NS) > done:
            late.add(sleeve.decision)

    def _turn(self, deal: Deal, sleeve: Sleeve, account: Account, book: FeatureBook, mid: int) -> None:
        """Begin a sleeve's way out once nothing is out for it any more."""
        symbol, sleeves = account.symbol, account.sleeves
        self._mature(sleeve.decision)
        if sleeve.size_lots:
            sleeves.expire(sleeve.decision)
            for entry in deal.legs:
                entry.horizon_mid, entry.end_flow = mid, entry.end_flow or flow_of(book)
        if sleeves.has_orders(sleeve.decision):  # What is on its way comes home first.
            sleeve.target_lots = sleeve.lots + sleeve.working_lots
            self._call_back(symbol, sleeve.decision)
            return
        sleeve.target_lots = 0
        if sleeve.lots:
            deal.legs.append(self._leg(sleeve.decision, symbol, "exit", -sleeve.lots, EXIT_URGENCY, EXIT_S, book, mid))

    def _due(self, leg: Leg, elapsed_ns: int) -> int:
        """Return the lots that a leg should have ordered by then."""
        if elapsed_ns < 0:
            return 0
        return leg.lots if leg.plan is None else planner.due(leg.plan, elapsed_ns / NANOS_PER_S)

    def _call_back(self, symbol: str, decision: int | None = None) -> None:
        """Have the orders of a symbol cancelled: those that work for a decision, or all."""
        for order in self._orders.open_orders(symbol):
            if decision is None or decision in order.shares:
                self._orders.cancel(order.id)

    def call_back_all(self) -> None:
        """Have every open order cancelled."""
        for symbol in self.portfolio.accounts if self.portfolio is not None else ():
            self._call_back(symbol)

    def _order(self, symbol: str, account: Account, terms: Terms, book: FeatureBook, mid: int, late: set[int]) -> None:
        """Order what the sleeves lack, and keep the orders that rest where they should be."""
        bid, ask = book.best()
        assert bid is not None and ask is not None, "there is a mid"
        quoting = [one.decision for one in account.sleeves.by_decision.values() if one.quoting]
        quotes = {decision: self._deals[decision].decision.quote for decision in quoting}
        offsets = {decision: quote.offset_ticks for decision, quote in quotes.items() if quote is not None}
        orders = self._orders.open_orders(symbol)
        moves = netting.follow(account.sleeves, offsets, orders, late, bid, ask, terms, self._ctx.now_ns)
        for order in moves.cancel:
            self._orders.cancel(order)
        for order, ticks in moves.replace:
            self._orders.replace(order, ticks)
        if moves.is_dust:
            self._sweep(account, mid)
        for side, ticks, kind, shares in moves.send:
            self._send(symbol, account, side, ticks, kind, shares)

    def _send(self, symbol: str, account: Account, side: int, ticks: int, kind: OrderKind, shares: dict[int, int]) -> None:
        if len(account.sleeves.orders) >= ORDERS_MAX:
            return
        wanted = abs(sum(shares.values()))
        if wanted > LOTS_MAX:  # The rest follows the next second.
            parts = split(side * LOTS_MAX, [abs(lots) for lots in shares.values()])
            shares = {decision: lots for decision, lots in zip(shares, parts, strict=True) if lots}
        self._orders_n += 1
        try:
            order = self._orders.submit(f"e{self._orders_n}", symbol, side, abs(sum(shares.values())), ticks, kind, shares)
        except ValueError:  # As many are open as may be, or the price has moved: the next second tries again.
            return
        account.sleeves.submit(order.id, shares)

    def _sweep(self, account: Account, mid: int) -> None:
        """What is too little to be ordered, of sleeves that are to end, falls to the house."""
        for decision in account.sleeves.net():
            sleeve = account.sleeves.by_decision[decision]
            deal = self._deals.get(decision)
            leg = deal.way_out if deal is not None else None
            if deal is None or leg is None or sleeve.working_lots:
                continue
            if self._due(leg, self._ctx.now_ns - leg.start_ns) == leg.lots:
                value, lots = account.value(sleeve.lots), account.sleeves.move_to_house(decision, mid)
                deal.note(-lots, value)
                self._ctx.emit(HouseTook(decision, deal.decision.symbol, lots, mid, value))

    # What comes of it

    def on_fill(self, order: Order, fill: Fill) -> None:
        """Share a fill among the sleeves that its order was for."""
        assert self.portfolio is not None
        shares = self.portfolio.fill(order.symbol, order.id, fill.lots, fill.value, fill.fee, fill.impact)
        for share in shares:
            deal = self._deals.get(share.decision)
            if deal is not None:
                deal.note(share.lots, share.cash)
                if deal.legs:
                    deal.legs[-1].fills.append(LegFill.of(fill, share))
        if self._markouts.note(fill):
            self._marked[fill.id] = {}
            for horizon_s in HORIZONS_S:
                self._ctx.after(max(0, fill.exchange_ns + horizon_s * NANOS_PER_S - self._ctx.now_ns), TIMER, MARKOUT)
            if len(self._marked) > MARKED_KEPT:
                del self._marked[next(iter(self._marked))]

    def _take_markouts(self) -> None:
        """Hold fills against the mids of now; of one that was learnt of too late, or whose book is not LIVE, it is not known."""
        for due in self._markouts.due(self._ctx.now_ns):
            found = self._known.market(due.symbol)
            live = found is not None and found[1] is BookState.LIVE and due.due_ns == self._ctx.now_ns
            bps = self._markouts.take(due.fill, due.horizon_s, _mid(found[0]) if found is not None and live else None)
            if due.fill in self._marked:
                self._marked[due.fill][due.horizon_s] = bps

    def on_ended(self, order: Order) -> None:
        """Nothing more will come of an order."""
        assert self.portfolio is not None
        self.portfolio.accounts[order.symbol].sleeves.end(order.id)

    def on_steps(self, symbol: str, by_price: int, by_lot: int) -> None:
        """Tick or lot of a symbol became finer: count everything in the new steps."""
        if self.portfolio is None or symbol not in self.portfolio.accounts:
            return
        self.portfolio.refine(symbol, by_price, by_lot)
        self._markouts.refine(symbol, by_price)
        for deal in self._deals.values():
            if deal.decision.symbol == symbol:
                deal.refine(by_price, by_lot)
        for deal in self._done:
            if deal.decision.symbol == symbol:
                deal.refine(by_price, by_lot)

    def on_funding(self, event: FundingRate) -> None:
        """Take a funding rate: when a later funding time is told than before, the one before has passed and is paid by what is held.

        The rate and mark of a payment are the last that were told before it. Raises ``FrameError`` for what is no such rate.
        """
        account = self.account(event.symbol)
        known_mid = account.mid_half_ticks if account is not None else None
        funding.check(event, known_mid * account.sleeves.tick.size / 2 if account is not None and known_mid is not None else None)
        due, is_newest = funding.note(self._funding, event)
        held = account is not None and any(sleeve.lots for sleeve in account.sleeves.by_decision.values())
        if due is not None and account is not None and held and self.portfolio is not None:
            paid = self.portfolio.fund(event.symbol, Fraction(due.rate), Fraction(due.mark))
            self._ctx.emit(FundingPaid(event.symbol, account.position_lots, due.mark, due.rate, due.next_ms, paid))
        if is_newest and (event.symbol in self._funding or len(self._funding) < ACCOUNTS_MAX):
            self._funding[event.symbol] = event

    def _close(self, symbol: str, sleeve: Sleeve, book: FeatureBook, mid: int) -> None:
        deal = self._deals.pop(sleeve.decision)
        deal.sleeve = sleeve
        for leg in deal.legs:
            leg.end_flow = leg.end_flow or flow_of(book)
            leg.horizon_mid = leg.horizon_mid or mid
        if not sleeve.is_trade:
            self.unsized(sleeve.decision)
            return
        self._done.append(deal)
        self._ctx.emit(
            TradeClosed(
                sleeve.decision,
                symbol,
                deal.decision.policy,
                sleeve.cash,
                sleeve.fees,
                sleeve.impact,
                sleeve.funding,
                sleeve.turnover,
                sleeve.opened_ns,
                deal.probe,
            )
        )
        self.closed(deal)

    # Answers

    def has_room(self, symbol: str, side: int) -> bool:
        """Tell whether the limits leave room for a least order, +1 to buy and -1 to sell."""
        portfolio, found = self.portfolio, self._live(symbol)
        if portfolio is None or found is None:
            return False
        _, terms, mid = found
        account = portfolio.accounts.get(symbol)
        lot_value = worth_at_half_ticks(mid, 1, terms.tick, terms.lot)
        least = _least_lots(terms, lot_value) * lot_value
        if portfolio.equity <= 0 or portfolio.size_factor == 0.0:
            return False
        if account is None or symbol not in self.sigmas or account.mid_half_ticks is None:  # Nothing was ever decided about it.
            most = min(portfolio.limits.gross_max, portfolio.limits.symbol_max) * portfolio.equity
            return least <= most and (account is not None or len(portfolio.accounts) < ACCOUNTS_MAX)
        return all(room >= least for _, room in portfolio.room(symbol, side, self.sigmas))

    def sizing(self, symbol: str | None) -> Sizing | None:
        """Return the newest sizing of a symbol, or of any."""
        return self._sized.get(symbol or self._newest)

    def deal(self, decision: int) -> Deal | None:
        """Return what became of a decision; None where it was given no size, or is no longer kept."""
        return self._deals.get(decision) or next((deal for deal in self._done if deal.decision.id == decision), None)

    def deals(self) -> list[tuple[Deal, Sleeve]]:
        """Return the decisions that were given a size, newest first, with their sleeves."""
        found = [(deal, deal.sleeve) for deal in self._done if deal.sleeve is not None]
        for deal in self._deals.values():
            account = self.account(deal.decision.symbol)
            assert account is not None, "a deal has one"
            found.append((deal, account.sleeves.by_decision[deal.decision.id]))
        return sorted(found, key=lambda one: -one[0].decision.id)

    def markouts(self) -> Markouts:
        """Return the mean markouts of all fills."""
        return self._markouts

    def markouts_of(self, fill: int) -> dict[int, float | None]:
        """Return the markouts of a fill that came due, in bps, by horizon."""
        return self._marked.get(fill, {})

    def past(self, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return equity, in money, and drawdown by column, oldest first: the first ``limit`` bars at or after ``from_ms``."""
        if self.portfolio is None:
            return {"ts_ms": []}
        return self.portfolio.bars.columns(from_ms, limit)

    # State

    def save(self) -> list[memoryview]:
        """Return what is planned and what came of it, then the portfolio."""
        saved = _Saved(
            2,
            self._orders_n,
            self._deals,
            list(self._done),
            self._sized,
            self._newest,
            self.sigmas,
            self._funding,
            self._markouts,
            self._marked,
        )
        # JSON, for money may outgrow 64 bits.
        return [memoryview(msgspec.json.encode(saved)), *(self.portfolio.save() if self.portfolio is not None else ())]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned; the settings must have been given before."""
        saved = msgspec.json.decode(pieces[0], type=_Saved)
        self._orders_n, self._deals, self._sized, self._newest = saved.orders_n, saved.deals, saved.sized, saved.newest
        self._done, self.sigmas = deque(saved.done, TRADES_KEPT), saved.sigmas
        self._funding = saved.funding
        self._markouts, self._marked = saved.markouts, saved.marked
        self.portfolio = None
        if len(pieces) > 1:
            settings = self._ctx.settings.execution
            self.portfolio = Portfolio(settings.settlement, 1, self._limits())
            self.portfolio.load(pieces[1:])


def _refused(sized: Sizing, reason: str) -> Sizing:
    """Return a sizing that comes to nothing."""
    return msgspec.structs.replace(sized, lots=0, size=0.0, probe=False, reason=reason)


def _larger_side(quote: Quote, long_only: bool) -> tuple[float, tuple[int, ...]]:
    """Return the share of a quote's larger side, signed, and the sides on which it may come to hold something."""
    bid, ask = quote.bid_share, 0.0 if long_only else quote.ask_share
    return (bid if bid >= ask else -ask), tuple(side for side, share in ((1, bid), (-1, ask)) if share) or (1,)


def _common(rooms: Sequence[Sequence[Cap]]) -> list[Cap]:
    """Return the room that limits leave on every side."""
    return [min(caps, key=lambda cap: cap.money) for caps in zip(*rooms, strict=True)]


def _mid(book: FeatureBook) -> int | None:
    bid, ask = book.best()
    return bid + ask if bid is not None and ask is not None else None


def _is_countable(account: Account | None, terms: Terms, mid: int, more_lots: int = 0) -> bool:
    """Tell whether money can count all that sleeves hold, want and have out at a price, and more: no price beyond that is believed."""
    sleeves = account.sleeves.by_decision.values() if account is not None else ()
    lots = sum(abs(one.committed_lots) + abs(one.lots) + abs(one.working_lots) + one.bid_lots + one.ask_lots for one in sleeves)
    lots += abs(more_lots) + 1
    # The best price of a side is at most twice the mid, and an order that takes goes a little beyond.
    return 3 * Fraction(mid, 2) * terms.tick.size * terms.lot.size * lots * UNITS <= MONEY_MAX


def _least_lots(terms: Terms, lot_value: int) -> int:
    """Return the least order in lots, with a hundredth to spare for a price that moves meanwhile."""
    return max(1, -(-terms.min_notional * 101 // (100 * max(1, lot_value))))
