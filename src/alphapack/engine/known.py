"""What trading asks about a symbol, answered from the services that know."""

from collections.abc import Callable, Mapping

from alphapack.domain.context import Context
from alphapack.domain.market import BookState, quote_of, venue_of
from alphapack.domain.money import MONEY_MAX, UNITS
from alphapack.domain.trading import Terms
from alphapack.models import volumes
from alphapack.models.book import FeatureBook
from alphapack.models.cascade import NotEnough
from alphapack.models.impact import Impact
from alphapack.models.sizing import SIGMA_MAX, SIGMA_MIN, sigma_used
from alphapack.services.candles import CandleStore
from alphapack.services.execution import Forecast
from alphapack.services.impact import Impacts
from alphapack.services.microstructure import Microstructure
from alphapack.services.volatility import Volatility


class Known:
    """One reader of them all; holds no state of its own."""

    def __init__(
        self,
        ctx: Context,
        microstructure: Microstructure,
        candles: CandleStore,
        volatility: Volatility,
        impacts: Impacts,
        spot_venues: frozenset[str],
        currency: Callable[[], str],
        has_room: Callable[[str, int], bool],
    ) -> None:
        """``currency`` returns that of the portfolio, ``has_room`` whether its limits leave room on a side of a symbol."""
        self._ctx = ctx
        self._microstructure, self._candles, self._volatility, self._impacts = microstructure, candles, volatility, impacts
        self._spot_venues, self._currency, self._has_room = spot_venues, currency, has_room

    def market(self, symbol: str) -> tuple[FeatureBook, BookState] | None:
        """Return a symbol's book and what is proven of it; None where there is none."""
        return self._microstructure.market(symbol)

    def terms(self, symbol: str) -> Terms | None:
        """Return the terms of a symbol's orders, as its venue or the user states them; None before its steps are known."""
        found = self._microstructure.market(symbol)
        if found is None or found[0].tick is None or found[0].lot is None:
            return None
        settings, stated, quote = self._ctx.settings.execution, self._microstructure.instrument(symbol), quote_of(symbol)
        refusal, least = "", settings.min_notional if stated.min_notional is None else stated.min_notional
        if found[0].contract is not None:
            refusal = "an inverse contract, whose profit is in the coin, is not traded"
        elif quote != self._currency():
            refusal = f"it settles in {quote or 'what is not known'}, the portfolio in {self._currency()}"
        elif not 0.0 <= least * UNITS <= MONEY_MAX:
            refusal = f"its least order, {least}, is no sum of money"
        return Terms(
            found[0].tick,
            found[0].lot,
            settings.maker_fee_bps if stated.maker_fee_bps is None else stated.maker_fee_bps,
            settings.taker_fee_bps if stated.taker_fee_bps is None else stated.taker_fee_bps,
            0 if refusal else round(least * UNITS),
            refusal,
        )

    def long_only(self, symbol: str) -> bool:
        """Tell whether a symbol is of a spot market."""
        return venue_of(symbol) in self._spot_venues

    def tradable(self) -> list[str]:
        """Return the symbols with a LIVE book that takes orders, in order of name."""
        return [symbol for symbol, _ in self._microstructure.live() if (terms := self.terms(symbol)) is not None and not terms.refusal]

    def taking_orders(self) -> list[str]:
        """Return the symbols that take orders while their books are LIVE, whether these are now or not, in order of name."""
        every = self._microstructure.symbols()
        return [symbol for symbol in every if (terms := self.terms(symbol)) is not None and not terms.refusal]

    def features(self, symbol: str) -> dict[str, float]:
        """Return the features of a symbol now, as far as they are known."""
        return self._microstructure.context(symbol)

    def forecast(self, symbol: str, minutes: int) -> Forecast | None:
        """Return the volatility of the next minutes; None where too little is known, and where it is none that can be sized by."""
        try:
            made = self._volatility.forecast_vol(symbol, minutes)
        except NotEnough:
            return None
        har, garch = made.har**0.5, made.garch**0.5
        if not (min(har, garch) >= SIGMA_MIN and max(har, garch) <= SIGMA_MAX):
            return None
        return Forecast(har, garch, self._volatility.har_weight(symbol, minutes))

    def sigma_1d(self, symbol: str) -> float | None:
        """Return the volatility of a symbol's next day, by the rule; None where too little is known."""
        return self._volatility.sigma(symbol, volumes.DAY_MINUTES)

    def sigma(self, symbol: str) -> float | None:
        """Return the volatility to the horizon of decisions, by the rule; None where too little is known."""
        found = self._volatility.sigma(symbol, self._minutes)
        return found if found is not None and SIGMA_MIN <= found <= SIGMA_MAX else None

    def sigma_of(self, symbol: str, context: Mapping[str, float]) -> float | None:
        """Return the same of a context's own ``sigmaHAR`` and ``sigmaGARCH``."""
        har, garch = context.get("sigmaHAR"), context.get("sigmaGARCH")
        if har is None or garch is None or not (min(har, garch) >= SIGMA_MIN and max(har, garch) <= SIGMA_MAX):
            return None
        rule, weight = self._ctx.settings.volatility_rule, self._volatility.har_weight(symbol, self._minutes)
        return sigma_used(rule, har, garch, weight)

    @property
    def _minutes(self) -> int:
        return -(-self._ctx.settings.router.horizon_s // 60)

    def has_room(self, symbol: str, side: int) -> bool:
        """Tell whether the limits of the portfolio leave room for a least order, +1 to buy and -1 to sell."""
        return self._has_room(symbol, side)

    def costs(self, symbol: str, mid: float | None) -> dict[str, float]:
        """Return what trading a symbol costs and in which steps, as features: tick_bps, maker_fee_bps, taker_fee_bps."""
        terms = self.terms(symbol)
        if terms is None or mid is None or not mid > 0.0:
            return {}
        return {
            "tick_bps": 1e4 * float(terms.tick.size) / mid,
            "maker_fee_bps": terms.maker_fee_bps,
            "taker_fee_bps": terms.taker_fee_bps,
        }

    def impact(self, symbol: str) -> Impact | None:
        """Return what a symbol's orders cost by their size; None where nothing is known."""
        return self._impacts.impact(symbol)

    def impact_of_lots(self, symbol: str) -> tuple[Impact, float] | None:
        """Return the same with the lots of a day's volume; None where either is not known."""
        impact, day, found = self.impact(symbol), self.adv(symbol), self._microstructure.market(symbol)
        if impact is None or day is None or found is None or found[0].lot is None:
            return None
        return impact, day / float(found[0].lot.size)

    def adv(self, symbol: str) -> float | None:
        """Return the base volume of a day, by the newest candles; None where too few are known."""
        return volumes.adv(self._candles.rows(symbol))

    def volumes(self, symbol: str, minutes: int) -> list[float] | None:
        """Return the base volume to be expected in each of the next minutes; None where too little is known."""
        found = volumes.profile(self._candles.rows(symbol), self._ctx.now_ns // 1_000_000, min(minutes, volumes.DAY_MINUTES))
        return None if found is None else found.tolist()
