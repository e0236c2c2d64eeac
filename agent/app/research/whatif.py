"""Drift, trades and alert prices of targets and values on the command line (what-if)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.app.documents.status import minimum_totals_of_values
from agent.app.research.shocks import OPTION as SHOCK_OPTION
from agent.app.research.shocks import parse_shocks, price_factor
from agent.config.networks import ETHEREUM, NETWORKS
from agent.config.networks.network import TypicalFees
from agent.config.tables.fields import parse_choice, parse_pairs
from agent.config.tables.triggers import parse_band
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
from agent.units import BPS, Price, Token, Value, decimal_text, parse_bps, parse_raw

if TYPE_CHECKING:
    from agent.app.documents.status import MinimumTotalDocument


VALUE_PLACES = 18
"""Decimal places of values: amounts are integers of 10^-18."""
MIN_ASSETS = 2
DESTINATION_BY_NAME = {
    destination.value: destination for destination in (Destination.TARGET, Destination.HALFWAY)
}
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
    """Options of a what-if, as entered.

    `target`, `value` and `price` are comma-separated SYMBOL=NUMBER; a bare number in `target` is
    percent. `band` is "10%rel" or "5%abs" for all assets, SYMBOL=… for one asset. `only` needs a
    `numeraire`. `native` is the price of the native coin, for gas at the usual fees of `network`,
    by default Ethereum. `futures` has the markets that `price` may name too. Each `shock`, such as
    "ALT=-50%", moves a price first; it may also name a market in `futures`.
    """

    target: str
    value: str
    band: str = ""
    price: str = ""
    destination: str = "target"
    only: str = ""
    numeraire: str = ""
    native: str = ""
    network: str = ""
    shock: Sequence[str] = ()
    futures: str = ""


def what_if(options: WhatIfOptions) -> WhatIf:
    """Compute drift, trades and alert prices by the functions of a live step. Raises ConfigError
    naming the option.
    """
    target_bps_by_symbol = parse_targets(options.target)
    values_raw = {
        symbol: parse_raw(amount_text, VALUE_PLACES, f"--value {symbol}")
        for symbol, amount_text in parse_pairs(options.value, "--value").items()
    }
    _require_same_symbols(target_bps_by_symbol, values_raw)
    if sum(values_raw.values()) == 0:
        raise ConfigError("--value sums to 0", "give current values, such as BTC=5800,USD=1500")
    shock_bps_by_symbol = _parse_whatif_shocks(options, target_bps_by_symbol)
    total_before = Fraction(sum(values_raw.values()), 10**VALUE_PLACES)
    values_raw = {
        symbol: int(raw * price_factor(shock_bps_by_symbol, symbol))
        for symbol, raw in values_raw.items()
    }
    common_band, asset_bands = parse_bands(options.band, target_bps_by_symbol)
    numeraire = options.numeraire
    if numeraire and numeraire not in target_bps_by_symbol:
        raise ConfigError(
            f"--numeraire: {numeraire!r} is not an asset",
            f"choose from {', '.join(target_bps_by_symbol)}",
        )
    assets = [
        Asset(_symbol_token(symbol), target_bps, 0, band=asset_bands.get(symbol))
        for symbol, target_bps in target_bps_by_symbol.items()
    ]
    unit_prices = dict.fromkeys(target_bps_by_symbol, Fraction(1))
    has_band = common_band is not None
    trigger = common_band or NO_BAND_SCHEDULE
    drifts = drifts_from_balances(assets, values_raw, unit_prices, trigger)
    evaluation = evaluate_trigger(trigger, drifts, 0, NEW_STORE_HISTORY, numeraire=numeraire)
    side = _parse_side(options.only, numeraire, has_band)
    destination = parse_choice(options.destination, "--destination", DESTINATION_BY_NAME)
    goal = restrict_to_side(drifts, rebalance_goal(drifts, destination), side, numeraire)
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
            drifts,
            {
                symbol: given_price * price_factor(shock_bps_by_symbol, symbol)
                for symbol, given_price in _parse_prices(
                    options.price, _priced_symbols(target_bps_by_symbol, options.futures)
                ).items()
            },
            has_band,
            numeraire,
        ),
        has_band=has_band,
        minimum_totals=_minimum_totals(
            drifts, common_band, numeraire, options.native, _network_fees(options.network)
        ),
        shock_bps_by_symbol=shock_bps_by_symbol,
        total_before=total_before,
    )


def _symbol_token(symbol: str) -> Token:
    """Return the token of a symbol. Its address is the symbol too, so that amounts by token are
    amounts by symbol.
    """
    return Token(symbol, symbol, VALUE_PLACES)


def _parse_whatif_shocks(
    options: WhatIfOptions, target_bps_by_symbol: Mapping[str, int]
) -> dict[str, int]:
    if not options.shock:
        return {}
    market_symbols = parse_pairs(options.futures, "--futures") if options.futures else {}
    shock_bps_by_symbol = parse_shocks(
        parse_pairs(",".join(options.shock), SHOCK_OPTION),
        dict.fromkeys([*target_bps_by_symbol, *market_symbols]),
    )
    if options.numeraire in shock_bps_by_symbol:
        raise ConfigError(
            f"{SHOCK_OPTION}: {options.numeraire!r} is the unit of all values",
            "shock the other assets",
        )
    return shock_bps_by_symbol


def _minimum_totals(
    drifts: tuple[AssetDrift, ...],
    band: Threshold | None,
    numeraire: str,
    native: str,
    network_fees: TypicalFees,
) -> tuple[MinimumTotalDocument, ...]:
    """Return the minimum totals under the limits of a new config."""
    limits = starting_limits(Token("", numeraire or "USDC", 0))
    target_drifts = [
        (
            drift.symbol,
            drift.target_bps,
            correction_drift(band, drift.target_bps, (drift.band_low_bps, drift.band_high_bps)),
        )
        for drift in drifts
    ]
    native_price = network_fees.native_usd
    if native:
        native_price = Fraction(parse_raw(native, VALUE_PLACES, "--native"), 10**VALUE_PLACES)
    return tuple(
        minimum_totals_of_values(
            target_drifts,
            numeraire,
            limits,
            native_price,
            network_fees,
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


def parse_targets(targets_text: str) -> dict[str, int]:
    """Parse --target into basis points by symbol; a bare number is percent. Raises ConfigError."""
    target_bps_by_symbol = {}
    for symbol, share_text in parse_pairs(targets_text, "--target").items():
        is_bare_number = share_text.replace(".", "", 1).isdigit()
        target_bps_by_symbol[symbol] = parse_bps(
            f"{share_text}%" if is_bare_number else share_text, f"--target {symbol}"
        )
    return target_bps_by_symbol


def _require_same_symbols(
    target_bps_by_symbol: Mapping[str, int], values_raw: Mapping[str, int]
) -> None:
    for option, given_by_symbol, required_symbols in (
        ("--value", values_raw, target_bps_by_symbol),
        ("--target", target_bps_by_symbol, values_raw),
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


def parse_bands(
    bands_text: str, target_bps_by_symbol: Mapping[str, int]
) -> tuple[Threshold | None, dict[str, Threshold]]:
    """Return the common band (relative, absolute or both; None without bands), and the bands of
    single assets by symbol. Raises ConfigError.
    """
    common_band: Threshold | None = None
    asset_bands: dict[str, Threshold] = {}
    for band_text in filter(None, (piece.strip() for piece in bands_text.split(","))):
        symbol, equals, width_text = (piece.strip() for piece in band_text.partition("="))
        band = parse_band(width_text if equals else band_text, "--band")
        validate_band(band, "--band")
        if equals and symbol not in target_bps_by_symbol:
            raise ConfigError(
                f"--band: {symbol!r} is not an asset",
                f"choose from {', '.join(target_bps_by_symbol)}",
            )
        if equals:
            asset_bands[symbol] = _combined_band(asset_bands.get(symbol), band)
        else:
            common_band = _combined_band(common_band, band)
    if asset_bands and common_band is None:
        raise ConfigError(
            "--band: only single assets have a band",
            "give the common band first, such as 10%rel,BTC=5%abs",
        )
    return common_band, asset_bands


def _combined_band(band: Threshold | None, other_band: Threshold) -> Threshold:
    """Combine a relative and an absolute width."""
    if band is None:
        return other_band
    if (band.absolute_bps is None) == (other_band.absolute_bps is None):
        raise ConfigError(
            "--band: the same kind twice",
            "give one of each, such as 10%rel,5%abs; the narrower applies",
        )
    return replace(
        band,
        absolute_bps=band.absolute_bps or other_band.absolute_bps,
        relative_bps=band.relative_bps or other_band.relative_bps,
    )


def _network_fees(network: str) -> TypicalFees:
    """Return the usual fees of a network by its name, by default those of Ethereum. Raises
    ConfigError.
    """
    fees_by_name = {known_network.name: known_network.fees for known_network in NETWORKS}
    return parse_choice(network or ETHEREUM.name, "--network", fees_by_name)


def _priced_symbols(target_bps_by_symbol: Mapping[str, int], futures_text: str) -> tuple[str, ...]:
    """Return the symbols that may have a price: the assets, then other markets of futures."""
    market_symbols = parse_pairs(futures_text, "--futures") if futures_text else {}
    return tuple(dict.fromkeys((*target_bps_by_symbol, *market_symbols)))


def _parse_prices(prices_text: str, symbols: Collection[str]) -> dict[str, Fraction]:
    price_by_symbol: dict[str, Fraction] = {}
    if not prices_text:
        return price_by_symbol
    for symbol, price_text in parse_pairs(prices_text, "--price").items():
        if symbol not in symbols:
            raise ConfigError(
                f"--price: {symbol!r} is not an asset, nor in --futures",
                f"choose from {', '.join(symbols)}",
            )
        price_by_symbol[symbol] = Fraction(
            parse_raw(price_text, VALUE_PLACES, f"--price {symbol}"), 10**VALUE_PLACES
        )
        if price_by_symbol[symbol] == 0:
            raise ConfigError(f"--price {symbol}: must be above 0", "give its current price")
    return price_by_symbol


def _parse_side(side_name: str, numeraire: str, has_band: bool) -> TradeSide | None:
    if not side_name:
        return None
    side = parse_choice(side_name, "--only", {side.value: side for side in TradeSide})
    if side in (TradeSide.SELL, TradeSide.BUY) and not numeraire:
        raise ConfigError(
            f"--only {side_name}: needs --numeraire for the proceeds", "for example --numeraire USD"
        )
    if side in (TradeSide.WINNERS, TradeSide.LOSERS) and not has_band:
        raise ConfigError(f"--only {side_name}: needs --band", "for example --band 10%rel")
    return side
