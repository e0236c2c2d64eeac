"""What would be done with values that are only written down: no chain, no config, the same mathematics as every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from agent.api import least
from agent.config.build import starting_limits
from agent.config.triggers import parse_band
from agent.errors import ConfigError
from agent.model import Asset, AssetDrift, Destination, Every, History, Only, Threshold
from agent.policy import minimum
from agent.policy.drift import alert_prices, corrections, ideal_trades, total, unreachable, weigh
from agent.policy.goal import goal
from agent.policy.least_total import drift_of
from agent.policy.only import narrowed
from agent.policy.trigger_rules import SHORTEST_S, validate_band
from agent.policy.triggers import fired
from agent.units import BPS, Price, Token, Value, decimal_text, parse_bps, parse_raw, safe_label

PLACES = 18
"""Decimal places that a value may have: amounts are integers of 10^-18."""
FEWEST = 2
DESTINATIONS = (Destination.TARGET, Destination.HALFWAY)
NO_BAND = Every(SHORTEST_S)
"""Without a band a schedule is meant: whatever is off its target is corrected when it is due."""
_NEW = History(None, None, Fraction(0), Fraction(0), 0, 0, None)


@dataclass(frozen=True, slots=True)
class Alert:
    """Prices at which an asset that moves alone leaves its band; None with the reason why no price does that.

    Prices are multiples of the price now, unless one was given.
    """

    low: Price | None
    high: Price | None
    price: Price
    why_low: str
    why_high: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The answer. `trades` are what would be done, by symbol, in the unit of the values: nothing while it holds; `to_target` is
    what it would take in any case. `drifts` are in units of 10^-18. `least` is the least total at which they work, at three gas prices.
    """

    drifts: tuple[AssetDrift, ...]
    acts: bool
    reason: str
    trades: Mapping[str, Value]
    to_target: Mapping[str, Value]
    alerts: Mapping[str, Alert]
    banded: bool
    least: tuple[dict[str, Any], ...] = ()

    @property
    def total(self) -> Value:
        """Sum of all values."""
        return total(self.drifts) / Fraction(10**PLACES)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What whoever chooses so many assets should know."""
        return tuple(minimum.many(len(self.drifts)))

    @property
    def triggered(self) -> tuple[str, ...]:
        """Symbols of what is outside its band."""
        return tuple(drift.symbol for drift in self.drifts if self.banded and drift.outside)


def what_if(
    target: str,
    value: str,
    band: str = "",
    *,
    price: str = "",
    destination: str = "target",
    only: str = "",
    numeraire: str = "",
    native: str = "3000",
) -> WhatIf:
    """Drift, trades and alert prices, by the functions that every step decides with. Raises ConfigError naming the option.

    `target`, `value` and `price` are SYMBOL=NUMBER with commas between; a bare number in `target` is percent. `band` is "10%rel" or
    "5%abs" for all, and SYMBOL=… for one. `numeraire` is the symbol that values are counted in, which `only` needs;
    `native` is the price of the native coin, for gas.
    """
    targets = {symbol: target_bps(symbol, text) for symbol, text in pairs(target, "--target").items()}
    values = {symbol: parse_raw(text, PLACES, f"--value {symbol}") for symbol, text in pairs(value, "--value").items()}
    _require_same(targets, values)
    if sum(values.values()) == 0:
        raise ConfigError("--value sums to 0", "give current values, such as BTC=5800,USD=1500")
    whole, own = bands(band, targets)
    if numeraire and numeraire not in targets:
        raise ConfigError(f"--numeraire: {numeraire!r} is not an asset", f"choose from {', '.join(targets)}")
    assets = [Asset(Token(symbol, symbol, PLACES), bps, 0, band=own.get(symbol)) for symbol, bps in targets.items()]
    ones = dict.fromkeys(targets, Fraction(1))
    trigger = whole or NO_BAND
    drifts = weigh(assets, values, ones, trigger)
    answer = fired(trigger, drifts, 0, _NEW)
    side = _side(only, numeraire, whole is not None)
    aim = narrowed(drifts, goal(drifts, _destination(destination)), side, numeraire)
    trades = corrections(drifts, aim)
    reason = answer.reason if whole is not None else "no band was given: this is what a schedule does when it is due"
    return WhatIf(
        drifts=drifts,
        acts=answer.fired and any(trades.values()),
        reason=reason if any(trades.values()) or not answer.fired else f"{reason}; nothing to do",
        trades={symbol: amount / 10**PLACES if answer.fired else Fraction(0) for symbol, amount in trades.items()},
        to_target={symbol: amount / 10**PLACES for symbol, amount in ideal_trades(drifts).items()},
        alerts=_alerts(drifts, _prices(price, targets), whole is not None, numeraire),
        banded=whole is not None,
        least=_least(drifts, whole, numeraire, native),
    )


def _least(drifts: tuple[AssetDrift, ...], whole: Threshold | None, numeraire: str, native: str) -> tuple[dict[str, Any], ...]:
    """By the limits of a new config."""
    limits = starting_limits(Token("", numeraire or "USDC", 0))
    rows = [(one.symbol, one.target_bps, drift_of(whole, one.target_bps, (one.band_low_bps, one.band_high_bps))) for one in drifts]
    coin = Fraction(parse_raw(native, PLACES, "--native"), 10**PLACES)
    least_trade = limits.min_trade or Fraction(0)
    return tuple(least.of_values(rows, numeraire, limits.plan_cost_bps or 0, least_trade, coin, total(drifts) / 10**PLACES))


def _alerts(drifts: tuple[AssetDrift, ...], prices: Mapping[str, Fraction], banded: bool, numeraire: str) -> dict[str, Alert]:
    found = {}
    for one in drifts:
        now = prices.get(one.symbol, Fraction(1))
        low, high = alert_prices(drifts)[one.token]
        why = unreachable(one, drifts)
        if not banded or one.symbol == numeraire:
            low = high = None
            why = ("no band was given" if not banded else "values are counted in it, so that it has no price of its own",) * 2
        found[one.symbol] = Alert(None if low is None else low * now, None if high is None else high * now, now, *why)
    return found


def pairs(text: str, option: str) -> dict[str, str]:
    """SYMBOL=TEXT with commas between, by symbol. Raises ConfigError naming the option."""
    found: dict[str, str] = {}
    for part in text.split(","):
        symbol, equals, rest = (piece.strip() for piece in part.partition("="))
        if not equals or not rest or safe_label(symbol, "") != symbol or not symbol:
            raise ConfigError(f"{option}: {part.strip()!r} is not SYMBOL=NUMBER", "for example BTC=50,ETH=30,USD=20")
        if symbol in found:
            raise ConfigError(f"{option}: {symbol} is given twice", "give each asset once")
        found[symbol] = rest
    return found


def target_bps(symbol: str, text: str) -> int:
    """Basis points of a target; a bare number is percent."""
    bare = text.replace(".", "", 1).isdigit()
    return parse_bps(f"{text}%" if bare else text, f"--target {symbol}")


def _require_same(targets: Mapping[str, int], values: Mapping[str, int]) -> None:
    for option, has, other in (("--value", values, targets), ("--target", targets, values)):
        missing = [symbol for symbol in other if symbol not in has]
        if missing:
            raise ConfigError(f"{option}: {missing[0]} is missing", f"add it; {missing[0]}=0 if none is held")
    if len(targets) < FEWEST:
        raise ConfigError("--target needs at least two assets", "for example BTC=50,USD=50")
    whole = sum(targets.values())
    if whole != BPS:
        raise ConfigError(
            f"--target: sums to {decimal_text(whole, 2)}%, not 100%", "a bare number is percent here: write BTC=50 or BTC=50%"
        )


def bands(text: str, targets: Mapping[str, int]) -> tuple[Threshold | None, dict[str, Threshold]]:
    """The band of all, both widths together where two are given, and those of single assets."""
    whole: Threshold | None = None
    own: dict[str, Threshold] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        symbol, equals, rest = (piece.strip() for piece in part.partition("="))
        found = parse_band(rest if equals else part, "--band")
        validate_band(found, "--band")
        if equals and symbol not in targets:
            raise ConfigError(f"--band: {symbol!r} is not an asset", f"choose from {', '.join(targets)}")
        if equals:
            own[symbol] = _both(own.get(symbol), found)
        else:
            whole = _both(whole, found)
    if own and whole is None:
        raise ConfigError("--band: only single assets have a band", "give the common band first, such as 10%rel,BTC=5%abs")
    return whole, own


def _both(before: Threshold | None, found: Threshold) -> Threshold:
    if before is None:
        return found
    if (before.absolute_bps is None) == (found.absolute_bps is None):
        raise ConfigError("--band: the same kind twice", "give one of each, such as 10%rel,5%abs; the narrower counts")
    return replace(before, absolute_bps=before.absolute_bps or found.absolute_bps, relative_bps=before.relative_bps or found.relative_bps)


def _prices(text: str, targets: Mapping[str, int]) -> dict[str, Fraction]:
    found = {}
    for symbol, written in pairs(text, "--price").items() if text else ():
        if symbol not in targets:
            raise ConfigError(f"--price: {symbol!r} is not an asset", f"choose from {', '.join(targets)}")
        found[symbol] = Fraction(parse_raw(written, PLACES, f"--price {symbol}"), 10**PLACES)
        if found[symbol] == 0:
            raise ConfigError(f"--price {symbol}: must be above 0", "give its current price")
    return found


def _destination(text: str) -> Destination:
    if text not in [one.value for one in DESTINATIONS]:
        raise ConfigError(f"--destination: {text!r}", f"choose from {', '.join(one.value for one in DESTINATIONS)}")
    return Destination(text)


def _side(text: str, numeraire: str, banded: bool) -> Only | None:
    if not text:
        return None
    if text not in [one.value for one in Only]:
        raise ConfigError(f"--only: {text!r}", f"choose from {', '.join(one.value for one in Only)}")
    side = Only(text)
    if side in (Only.SELL, Only.BUY) and not numeraire:
        raise ConfigError(f"--only {text}: needs --numeraire for the proceeds", "for example --numeraire USD")
    if side in (Only.WINNERS, Only.LOSERS) and not banded:
        raise ConfigError(f"--only {text}: needs --band", "for example --band 10%rel")
    return side
