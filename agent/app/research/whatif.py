"""Drift, trades and alert prices of given targets and values (what-if)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.app.documents.status import minimum_totals_of_values
from agent.config.networks import ETHEREUM
from agent.config.networks.network import TypicalFees
from agent.config.writing.template import starting_limits
from agent.errors import ConfigError
from agent.model import (
    NEW_STORE_HISTORY,
    Asset,
    AssetDrift,
    Destination,
    Every,
    Threshold,
    TradeSide,
    Trigger,
    thresholds_of,
)
from agent.policy import minimum
from agent.policy.drift import (
    band_edge_prices,
    corrections,
    drifts_from_balances,
    ideal_trades,
    investable_total,
    rebalance_goal,
    unreachable_reasons,
)
from agent.policy.minimum import correction_drift
from agent.policy.one_sided import restrict_to_side
from agent.policy.triggers.bands import validate_band
from agent.policy.triggers.rules import evaluate_trigger
from agent.policy.triggers.schedule_triggers import MIN_INTERVAL_S
from agent.units import BPS, Price, Token, Value, decimal_text

if TYPE_CHECKING:
    from agent.app.documents.status import MinimumTotalDocument


SHOCK_OPTION = "--shock"
VALUE_PLACES = 18
"""Decimal places of values: amounts are integers of 10^-18."""
MIN_ASSETS = 2
NO_BAND_SCHEDULE = Every(MIN_INTERVAL_S)
"""Schedule used when no band is given; it corrects any drift when due."""


@dataclass(frozen=True, slots=True)
class AlertPrices:
    """Prices at which an asset leaves its band if its price moves alone; None, with the reason, if
    there is no such price. Without a given price they are multiples of the current one.
    """

    low: Price | None
    high: Price | None
    price: Price
    low_missing_reason: str
    high_missing_reason: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Result of a what-if.

    `trades` are the trades of the band or schedule by symbol, in the unit of the values, zero for a
    hold; `trades_to_target` are the trades that restore the targets. `drifts` are in units of
    10^-18. `minimum_totals` are the minimum totals of these settings at three gas prices. All values
    are those after the shocks, in basis points by symbol; `total_before` is the sum before them.
    """

    drifts: tuple[AssetDrift, ...]
    acts: bool
    reason: str
    trades: Mapping[str, Value]
    trades_to_target: Mapping[str, Value]
    alert_prices_by_symbol: Mapping[str, AlertPrices]
    has_band: bool
    minimum_totals: tuple[MinimumTotalDocument, ...] = ()
    shock_bps_by_symbol: Mapping[str, int] = field(default_factory=dict)
    total_before: Value = Fraction(0)

    @property
    def total(self) -> Value:
        """Sum of all values."""
        return investable_total(self.drifts) / Fraction(10**VALUE_PLACES)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the number of assets."""
        return tuple(minimum.asset_count_warnings(len(self.drifts)))

    @property
    def value_by_symbol(self) -> dict[str, Value]:
        """Value of each asset by symbol."""
        return {drift.symbol: Fraction(drift.raw, 10**VALUE_PLACES) for drift in self.drifts}

    @property
    def symbols_outside(self) -> tuple[str, ...]:
        """Symbols outside their bands."""
        return tuple(
            drift.symbol for drift in self.drifts if self.has_band and drift.is_outside_band
        )


@dataclass(frozen=True, slots=True)
class WhatIfOptions:
    """Options of a what-if: targets in basis points, values, prices and bands of single assets by
    symbol, values and prices in one unit.

    A `side` of sales or purchases needs a `numeraire`. `native_price` is the price of the native coin,
    for gas at `network_fees`. Each shock, in basis points, moves a price first; prices and shocks may
    name `markets` of futures too.
    """

    target_bps_by_symbol: Mapping[str, int]
    value_by_symbol: Mapping[str, Value]
    band: Threshold | None = None
    band_by_symbol: Mapping[str, Threshold] = field(default_factory=dict)
    price_by_symbol: Mapping[str, Price] = field(default_factory=dict)
    destination: Destination = Destination.TARGET
    side: TradeSide | None = None
    numeraire: str = ""
    native_price: Price | None = None
    network_fees: TypicalFees = ETHEREUM.fees
    shock_bps_by_symbol: Mapping[str, int] = field(default_factory=dict)
    markets: Collection[str] = ()


def what_if(options: WhatIfOptions) -> WhatIf:
    """Compute drift, trades and alert prices by the functions of a live step. Raises ConfigError
    naming the option.
    """
    target_bps_by_symbol = options.target_bps_by_symbol
    _require_same_symbols(target_bps_by_symbol, options.value_by_symbol)
    total_before = sum(options.value_by_symbol.values(), Fraction(0))
    if total_before == 0:
        raise ConfigError("--value sums to 0", "give current values, such as BTC=5800,USD=1500")
    _require_fit_shocks(options)
    values_raw = {
        symbol: int(value * 10**VALUE_PLACES * price_factor(options.shock_bps_by_symbol, symbol))
        for symbol, value in options.value_by_symbol.items()
    }
    trigger = options.band or NO_BAND_SCHEDULE
    require_fit_bands(trigger, options.band_by_symbol, target_bps_by_symbol)
    numeraire = options.numeraire
    require_assets("--numeraire", filter(None, [numeraire]), target_bps_by_symbol)
    assets = [
        Asset(_symbol_token(symbol), target_bps, 0, band=options.band_by_symbol.get(symbol))
        for symbol, target_bps in target_bps_by_symbol.items()
    ]
    unit_prices = dict.fromkeys(target_bps_by_symbol, Fraction(1))
    has_band = options.band is not None
    drifts = drifts_from_balances(assets, values_raw, unit_prices, trigger)
    evaluation = evaluate_trigger(trigger, drifts, 0, NEW_STORE_HISTORY, numeraire=numeraire)
    _require_fit_side(options)
    goal = restrict_to_side(
        drifts, rebalance_goal(drifts, options.destination), options.side, numeraire
    )
    trades_raw = corrections(drifts, goal)
    reason = evaluation.reason
    if not has_band:
        reason = "no band was given: this is what a due schedule would do"
    has_trades = any(trades_raw.values())
    if evaluation.fired and not has_trades:
        reason += "; nothing to do"
    return WhatIf(
        drifts=drifts,
        acts=evaluation.fired and has_trades,
        reason=reason,
        trades={
            symbol: trade_raw / 10**VALUE_PLACES if evaluation.fired else Fraction(0)
            for symbol, trade_raw in trades_raw.items()
        },
        trades_to_target={
            symbol: trade_raw / 10**VALUE_PLACES
            for symbol, trade_raw in ideal_trades(drifts).items()
        },
        alert_prices_by_symbol=_alert_prices_by_symbol(
            drifts, _prices_after_shocks(options), has_band, numeraire
        ),
        has_band=has_band,
        minimum_totals=_minimum_totals(drifts, options),
        shock_bps_by_symbol=options.shock_bps_by_symbol,
        total_before=total_before,
    )


def _symbol_token(symbol: str) -> Token:
    """Return the token of a symbol. Its address is the symbol too, so that amounts by token are
    amounts by symbol.
    """
    return Token(symbol, symbol, VALUE_PLACES)


def price_factor(shock_bps_by_symbol: Mapping[str, int], symbol: str) -> Fraction:
    """Return the price of a symbol after the shocks over that before."""
    return 1 + Fraction(shock_bps_by_symbol.get(symbol, 0), BPS)


def _require_fit_shocks(options: WhatIfOptions) -> None:
    """Raise ConfigError for a shock of no asset or market, or of the unit of all values."""
    known_symbols = dict.fromkeys([*options.target_bps_by_symbol, *options.markets])
    require_assets(SHOCK_OPTION, options.shock_bps_by_symbol, known_symbols)
    if options.numeraire in options.shock_bps_by_symbol:
        raise ConfigError(
            f"{SHOCK_OPTION}: {options.numeraire!r} is the unit of all values",
            "shock the other assets",
        )


def _minimum_totals(
    drifts: tuple[AssetDrift, ...], options: WhatIfOptions
) -> tuple[MinimumTotalDocument, ...]:
    """Return the minimum totals under the limits of a new config."""
    band = options.band
    fees = options.network_fees
    limits = starting_limits(Token("", options.numeraire or "USDC", 0))
    target_drifts = [
        (
            drift.symbol,
            drift.target_bps,
            correction_drift(band, drift.target_bps, (drift.band_low_bps, drift.band_high_bps)),
        )
        for drift in drifts
    ]
    return tuple(
        minimum_totals_of_values(
            target_drifts,
            options.numeraire,
            limits,
            fees.native_usd if options.native_price is None else options.native_price,
            fees,
            investable_total(drifts) / 10**VALUE_PLACES,
            has_band=band is not None,
        )
    )


def _alert_prices_by_symbol(
    drifts: tuple[AssetDrift, ...],
    price_by_symbol: Mapping[str, Fraction],
    has_band: bool,
    numeraire: str,
) -> dict[str, AlertPrices]:
    edge_prices_by_token = band_edge_prices(drifts, numeraire)
    alert_prices_by_symbol = {}
    for drift in drifts:
        price = price_by_symbol.get(drift.symbol, Fraction(1))
        low_price, high_price = edge_prices_by_token[drift.token]
        low_missing_reason, high_missing_reason = unreachable_reasons(drift, drifts, numeraire)
        if not has_band:
            low_price = high_price = None
            low_missing_reason = high_missing_reason = "no band was given"
        alert_prices_by_symbol[drift.symbol] = AlertPrices(
            None if low_price is None else low_price * price,
            None if high_price is None else high_price * price,
            price,
            low_missing_reason,
            high_missing_reason,
        )
    return alert_prices_by_symbol


def require_assets(option: str, symbols: Iterable[str], known_symbols: Collection[str]) -> None:
    """Raise ConfigError naming the option for the first symbol that is not known."""
    for symbol in symbols:
        if symbol not in known_symbols:
            raise ConfigError(
                f"{option}: {symbol!r} is not an asset", f"choose from {', '.join(known_symbols)}"
            )


def require_fit_bands(
    trigger: Trigger, band_by_symbol: Mapping[str, Threshold], symbols: Collection[str]
) -> None:
    """Raise ConfigError for an invalid band of the trigger or of an asset, one of no asset, and bands
    of single assets if the trigger has none.
    """
    common_bands = thresholds_of(trigger)
    for band in (*common_bands, *band_by_symbol.values()):
        validate_band(band, "--band")
    require_assets("--band", band_by_symbol, symbols)
    if band_by_symbol and not common_bands:
        raise ConfigError(
            "--band: only single assets have a band",
            "give the common band first, such as 10%rel,BTC=5%abs",
        )


def _require_same_symbols(
    target_bps_by_symbol: Mapping[str, int], value_by_symbol: Mapping[str, Value]
) -> None:
    for option, given_by_symbol, required_symbols in (
        ("--value", value_by_symbol, target_bps_by_symbol),
        ("--target", target_bps_by_symbol, value_by_symbol),
    ):
        missing_symbols = [symbol for symbol in required_symbols if symbol not in given_by_symbol]
        if missing_symbols:
            raise ConfigError(
                f"{option}: {missing_symbols[0]} is missing",
                f"add it; {missing_symbols[0]}=0 if none is held",
            )
    if len(target_bps_by_symbol) < MIN_ASSETS:
        raise ConfigError("--target needs at least two assets", "for example BTC=50,USD=50")
    total_bps = sum(target_bps_by_symbol.values())
    if total_bps != BPS:
        raise ConfigError(
            f"--target: sums to {decimal_text(total_bps, 2)} %, not 100 %",
            "a bare number is percent here: write BTC=50 or BTC=50%",
        )


def _prices_after_shocks(options: WhatIfOptions) -> dict[str, Price]:
    """Return the given prices after the shocks. Raises ConfigError for one of no asset or market."""
    known_symbols = dict.fromkeys([*options.target_bps_by_symbol, *options.markets])
    for symbol in options.price_by_symbol:
        if symbol not in known_symbols:
            raise ConfigError(
                f"--price: {symbol!r} is not an asset, nor in --futures",
                f"choose from {', '.join(known_symbols)}",
            )
    return {
        symbol: price * price_factor(options.shock_bps_by_symbol, symbol)
        for symbol, price in options.price_by_symbol.items()
    }


def _require_fit_side(options: WhatIfOptions) -> None:
    """Raise ConfigError for a side that lacks what it needs."""
    side = options.side
    if side in (TradeSide.SELL, TradeSide.BUY) and not options.numeraire:
        raise ConfigError(
            f"--only {side.value}: needs --numeraire for the proceeds",
            "for example --numeraire USD",
        )
    if side in (TradeSide.WINNERS, TradeSide.LOSERS) and options.band is None:
        raise ConfigError(f"--only {side.value}: needs --band", "for example --band 10%rel")
