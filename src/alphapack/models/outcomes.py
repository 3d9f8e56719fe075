"""What a decision came to: its reward at the horizon, and what of its profit the model had said.

**Reward**, fixed once at the horizon: all that was traded held against the mid then, less the modelled way out of what is still open.
What was traded with other sleeves is charged the modelled cost as well, so that a reward does not depend on who else wanted what.

**Lines** of a closed trade: ``pnl = model + execution + fees``. Each is measured by itself, and they sum exactly. With ``m0`` and ``mH``
the mids of decision and horizon, ``S`` the size, ``C`` the modelled spread and impact of S both ways, and ``Q`` what was traded until the
horizon,

    model     = S (mH - m0) - C
    execution = sum (cash_i + q_i m_i) + (Q - S) (mH - m0) + C + charges + funding

where ``q_i`` was bought, or sold below zero, for ``-cash_i``, and ``m_i`` is m0 until the horizon and mH from then on. As all that is
bought is sold, ``sum cash_i = sum (cash_i + q_i m_i) + Q (mH - m0)``, which is why nothing is left over.
"""

from fractions import Fraction
from typing import NamedTuple

import msgspec

from alphapack.domain.market import Step
from alphapack.domain.money import UNITS, half_even
from alphapack.domain.trading import Proposal
from alphapack.models.deals import CostModel, Deal
from alphapack.models.sleeves import Sleeve

BPS = 10_000


class Matured(msgspec.Struct, frozen=True):
    """What a decision that was given a size came to at its horizon."""

    decision: int
    symbol: str
    policy: str
    ts_ns: int
    mid_half_ticks: int
    """The mid then, or the last one by which its account was valued."""
    reward_bps: float
    """``net`` of ``allocated``, in bps, as it is."""
    allocated: int
    """Value of its size as it was decided, of a quote of the larger side, in money above 0."""
    filled: bool
    """Whether anything was traded for it; ``net`` is 0 where nothing was."""
    net: int
    """In money, below zero where it lost."""


class Lines(NamedTuple):
    """A closed trade in money: ``pnl = model + execution + fees``, each measured by itself."""

    pnl: int
    """What its sleeve has."""
    model: int
    execution: int
    fees: int


def reward(deal: Deal, sleeve: Sleeve, mid_half_ticks: int, ts_ns: int) -> Matured:
    """Return what a decision has come to at a mid in half ticks, what it still holds valued less the modelled way out of it."""
    held = _value(mid_half_ticks, sleeve.lots, deal.tick, deal.lot)
    charged = abs(held) * _taking(deal.cost, sleeve.lots) + sleeve.crossed * _taking(deal.cost, sleeve.crossed_lots)
    exact = sleeve.cash + held - charged
    net = half_even(exact.numerator, exact.denominator)
    decision = deal.decision
    return Matured(
        decision=decision.id,
        symbol=decision.symbol,
        policy=decision.policy,
        ts_ns=ts_ns,
        mid_half_ticks=mid_half_ticks,
        reward_bps=BPS * net / deal.allocated,
        allocated=deal.allocated,
        filled=sleeve.is_trade,
        net=net,
    )


def model_value(lots: int, mid0_half_ticks: int, mid_h_half_ticks: int, tick: Step, lot: Step, cost: CostModel) -> Fraction:
    """Return what the model says of signed lots held from one mid to another, in money: their gain less spread and impact both ways."""
    return Fraction(*_model(lots, mid0_half_ticks, mid_h_half_ticks, tick, lot, cost))


def model_at(deal: Deal, proposal: Proposal) -> int:
    """Return what the model says of another proposal for a trade whose horizon has come, in money, halves up."""
    assert deal.horizon_mid is not None, "its horizon has come"
    return _half_up(*_model(deal.lots_of(proposal), deal.decision_mid, deal.horizon_mid, deal.tick, deal.lot, deal.cost))


def execution_line(deal: Deal) -> Fraction:
    """Return what the fills of a closed trade made of what the model had said, in money. Raises ``ValueError`` where it is not closed."""
    sleeve, start, end = _closed(deal)
    size, tick, lot = deal.model_lots, deal.tick, deal.lot
    entered = deal.entered.cash + _value(start, deal.entered.lots, tick, lot)
    left = deal.left.cash + _value(end, deal.left.lots, tick, lot)
    beyond = _value(end - start, deal.entered.lots - size, tick, lot)
    return entered + left + beyond + _modelled(size, start, end, tick, lot, deal.cost) + sleeve.impact + sleeve.funding


def lines(deal: Deal) -> Lines:
    """Return what a closed trade made, and of what. Raises ``ValueError`` where it is not closed."""
    sleeve, _, _ = _closed(deal)
    exact = execution_line(deal)
    # One is rounded halves up, the other halves down: what sums to a whole number still does.
    return Lines(sleeve.cash, model_at(deal, deal.proposal), -_half_up(-exact.numerator, exact.denominator), sleeve.fees)


def _closed(deal: Deal) -> tuple[Sleeve, int, int]:
    if deal.sleeve is None or deal.horizon_mid is None:
        raise ValueError(f"expected a trade that is closed, found decision {deal.decision.id} open")
    return deal.sleeve, deal.decision_mid, deal.horizon_mid


def _model(lots: int, start: int, end: int, tick: Step, lot: Step, cost: CostModel) -> tuple[int, int]:
    """Return ``model_value`` as a ratio: attribution asks thousands of them of one trade."""
    bps, of = cost.one_way_bps(lots).as_integer_ratio()
    numerator = (BPS * of * lots * (end - start) - bps * abs(lots) * (start + end)) * tick.units * lot.units * UNITS
    return numerator, 2 * BPS * of * 10 ** (tick.decimals + lot.decimals)


def _value(half_ticks: int, lots: int, tick: Step, lot: Step) -> Fraction:
    """Return the exact money of lots at a price of half ticks."""
    return Fraction(half_ticks * lots * tick.units * lot.units * UNITS, 2 * 10 ** (tick.decimals + lot.decimals))


def _modelled(lots: int, start: int, end: int, tick: Step, lot: Step, cost: CostModel) -> Fraction:
    """Return the modelled spread and impact of lots, in at one mid and out at another, in money of 0 or more."""
    return _value(start + end, abs(lots), tick, lot) * Fraction(cost.one_way_bps(lots)) / BPS


def _taking(cost: CostModel, lots: int) -> Fraction:
    """Return the modelled cost of taking lots, as a part of their value."""
    return (Fraction(cost.one_way_bps(lots)) + Fraction(cost.taker_fee_bps)) / BPS


def _half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
