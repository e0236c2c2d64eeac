"""[portfolio.weights]: allocator, interval, sampling of prices, and bounds of weights. [signals.NAME]:
user-defined signals, by the name of their entry point. [data.NAME]: published prices and supplies.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from agent.config.fields import ConfigTable, Duration, Share
from agent.config.futures import FuturesTable, HyperliquidTable, futures_markets
from agent.errors import ConfigError
from agent.hosts import LOOPBACK
from agent.model import (
    AllocationMethod,
    AllocationNeeds,
    AllocatorConfig,
    FuturesRisk,
    FuturesSide,
    InitialWeights,
    Portfolio,
    SignalMarket,
    SignalSettings,
    TokenSupply,
    WeightLimit,
)
from agent.units import BPS, floor_int, format_duration, safe_label

if TYPE_CHECKING:
    from agent.config.schema import Config, PortfolioTable


HOUR_S, DAY_S = 3_600, 86_400
MOST_INTERVALS = 1_000
"""Maximum number of prices per asset in a window, since they are part of the stored input of a step
that chooses weights.
"""
LONGEST_WINDOW_S = 730 * DAY_S
MOST_OPTIONS = 50
_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ALWAYS = ("every", "keep", "churn", "until_chosen")
_OF_RETURNS = ("window", "step", "min_history", "max_age")
_OF_SPOT = ("fixed", "cap", "limits")
_OF_DATA = {
    AllocationNeeds.NOTHING: (),
    AllocationNeeds.SUPPLIES: ("max_age", "supplies"),
    AllocationNeeds.VOLATILITIES: _OF_RETURNS,
    AllocationNeeds.CORRELATIONS: _OF_RETURNS,
    AllocationNeeds.PRICES: (*_OF_RETURNS, "signal"),
    AllocationNeeds.MARKETS: (*_OF_RETURNS, "stress_loss"),
}
if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(method.value for method in AllocationMethod)]


class WeightLimitTable(ConfigTable):
    """Bounds of one asset's weight."""

    min: Share = 0
    max: Share = BPS


class WeightsTable(ConfigTable):
    """An allocator. docs/weights.md lists the keys of each kind; they have no defaults."""

    kind: MethodName
    every: Duration | None = None
    window: Duration | None = None
    step: Duration | None = None
    min_history: Duration | None = None
    max_age: Duration | None = None
    keep: Duration | None = None
    churn: Share | None = None
    until_chosen: Literal["targets", "wait"] | None = None
    fixed: list[str] = Field(default_factory=list)
    cap: Share | None = None
    limits: dict[str, WeightLimitTable] = Field(default_factory=dict)
    supplies: str | None = None
    signal: str | None = None
    stress_loss: Share | None = None

    @property
    def method(self) -> AllocationMethod:
        """The kind as an AllocationMethod."""
        return AllocationMethod(self.kind)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> WeightsTable:
        method = self.method
        keys = {*_OF_DATA[method.needs]}
        if method is not AllocationMethod.FIXED:
            keys |= {*_ALWAYS, *(() if method.needs is AllocationNeeds.MARKETS else _OF_SPOT)}
        unknown = sorted((self.model_fields_set - {"kind"}) - keys)
        if unknown:
            raise ValueError(f"{unknown[0]}: not a key of kind {self.kind}; remove it")
        missing = [
            key
            for key in (*_ALWAYS, *_OF_RETURNS, "signal", "stress_loss")
            if key in keys and getattr(self, key) is None
        ]
        if missing:
            raise ValueError(
                f"{missing[0]}: missing; kind = {self.kind!r} needs it, see docs/weights.md"
            )
        require_sampling(self.every, self.step, self.window, self.min_history, self.max_age)
        return self


def require_sampling(
    every: int | None, step: int | None, window: int | None, least: int | None, age: int | None
) -> None:
    """Raise ValueError if recorded prices, one per hour, cannot be sampled like this. All arguments
    are in seconds.
    """
    if every is not None and every < HOUR_S:
        raise ValueError(
            f"every: {every} s is shorter than an hour, but prices are recorded once an hour;"
            " write for example 7d"
        )
    if step is None or window is None or least is None or age is None:
        return
    if step < HOUR_S:
        raise ValueError(
            f"step: {step} s is shorter than an hour, but prices are recorded once an hour; write"
            " for example 1d"
        )
    if window > LONGEST_WINDOW_S or window > MOST_INTERVALS * step:
        raise ValueError(
            f"window: more than 730 days or {MOST_INTERVALS} steps; use a longer step or a"
            " shorter window"
        )
    if not 2 * step <= least <= window:
        raise ValueError(
            "min_history: not between two steps and the window; write for example 30d with step ="
            " '1d', window = '90d'"
        )
    if age < step:
        raise ValueError(
            "max_age: shorter than a step, which makes every price too old; write for"
            " example 2d with step = '1d'"
        )


def require_weights(table: PortfolioTable) -> None:
    """Raise ValueError if the allocator does not fit the assets: unknown names, infeasible bounds,
    or a numeraire without returns.
    """
    weights = table.weights
    if weights is None or weights.method.needs is AllocationNeeds.MARKETS:
        return
    if weights.method is AllocationMethod.FIXED:
        return
    targets = {asset.symbol: asset.target for asset in table.assets}
    for field, names in (("fixed", weights.fixed), ("limits", list(weights.limits))):
        unknown = [name for name in names if name not in targets]
        if unknown:
            raise ValueError(
                f"weights.{field}: {unknown[0]!r} is not an asset; remove it or correct its"
                " spelling"
            )
    both = [name for name in weights.limits if name in weights.fixed]
    if both:
        raise ValueError(
            f"weights.limits: {both[0]} is fixed at its target; remove it from fixed or from limits"
        )
    free = [symbol for symbol in targets if symbol not in weights.fixed]
    if len(free) < 2:
        raise ValueError(
            f"weights.fixed: leaves {len(free)} assets to choose weights for; leave at least two,"
            " or use kind = 'fixed'"
        )
    if weights.method.needs_returns and table.numeraire in free:
        raise ValueError(
            f"weights.fixed: {table.numeraire} is the numeraire, whose price is always 1;"
            f" keep it at its target: fixed = ['{table.numeraire}']"
        )
    correlated = weights.method.needs is AllocationNeeds.CORRELATIONS
    if (
        correlated
        and weights.step
        and weights.min_history
        and weights.min_history < (len(free) + 1) * weights.step
    ):
        raise ValueError(
            f"weights.min_history: {len(free)} assets need at least {len(free) + 1} steps for a"
            " non-singular covariance; write a longer one"
        )
    rest = BPS - sum(targets[symbol] for symbol in weights.fixed)
    low, high = zip(*(weight_bounds(weights, symbol) for symbol in free), strict=True)
    if not sum(low) <= rest <= sum(high):
        raise ValueError(
            f"weights.limits: they allow {sum(low) / 100:g}% to {sum(high) / 100:g}% in total, but"
            f" {rest / 100:g}% must be allocated; widen them, or raise cap"
        )


def build_weights(
    table: PortfolioTable,
    portfolio: Portfolio,
    folder: Path,
    signals: Mapping[str, SignalSettings] = MappingProxyType({}),
    futures: FuturesTable | HyperliquidTable | None = None,
) -> AllocatorConfig | None:
    """Build the allocator by token address; `signals` and `futures` are those of the config. The
    path of a supplies file is relative to `folder`. Raises ConfigError.
    """
    weights = table.weights
    if weights is None:
        return None
    tokens = {asset.token.symbol: asset.token.address for asset in portfolio.assets}
    free = [symbol for symbol in tokens if symbol not in weights.fixed]
    step_s = weights.step or HOUR_S
    supplies: list[TokenSupply] = []
    if weights.supplies is not None:
        supplies = read_supplies(folder / weights.supplies, portfolio)
    return AllocatorConfig(
        method=weights.method,
        every_s=weights.every or 0,
        window_s=weights.window or 0,
        step_s=step_s,
        min_returns=-(-(weights.min_history or 0) // step_s),
        max_age_s=weights.max_age or 0,
        keep_s=weights.keep or 0,
        churn_bps=weights.churn or 0,
        until_chosen=InitialWeights(weights.until_chosen or "wait"),
        fixed=tuple(tokens[symbol] for symbol in weights.fixed),
        limits=tuple(
            WeightLimit(tokens[symbol], *weight_bounds(weights, symbol)) for symbol in free
        ),
        supplies=tuple(supplies),
        signal=None if weights.signal is None else signals[weights.signal],
        futures=_futures_risk(weights, futures, tokens),
    )


def _futures_risk(
    weights: WeightsTable,
    futures: FuturesTable | HyperliquidTable | None,
    tokens: Mapping[str, str],
) -> FuturesRisk | None:
    """Return the bounds of futures weights; None for an allocator of spot weights."""
    if futures is None or weights.method.needs is not AllocationNeeds.MARKETS:
        return None
    sides = tuple(
        FuturesSide(market.name, tokens[market.asset], market.weight > 0)
        for market in futures.markets
        if market.weight and market.asset is not None
    )
    return FuturesRisk(
        sides,
        futures.leverage,
        futures.limits.stress_move or 0,
        weights.stress_loss or 0,
        futures.limits.max_position,
    )


def require_futures_allocators(config: Config) -> None:
    """Raise ValueError naming the field if an allocator of futures weights lacks futures, an asset
    of a market, a stress move, or a band of the leverage.
    """
    tables = {"portfolio.weights": config.portfolio.weights}
    for strategy in config.strategies:
        if isinstance(strategy.allocator, WeightsTable):
            tables[f"strategies.{strategy.name}.allocator"] = strategy.allocator
    for field, table in tables.items():
        if table is not None and table.method.needs is AllocationNeeds.MARKETS:
            _require_futures_allocator(field, table, config)


def _require_futures_allocator(field: str, table: WeightsTable, config: Config) -> None:
    futures = config.futures
    if futures is None or not futures.leverage:
        raise ValueError(f"{field}: kind {table.kind} needs [futures] with a leverage above 0x")
    tables = [market for market in futures.markets if market.weight]
    if without := [market.symbol for market in tables if market.asset is None]:
        raise ValueError(
            f"futures.markets.{without[0]}.asset: missing; kind {table.kind} uses the prices of the"
            " asset"
        )
    assets = [market.asset for market in tables]
    if twice := [asset for asset in assets if assets.count(asset) > 1]:
        raise ValueError(
            f"futures.markets: two markets have the asset {twice[0]!r}; kind {table.kind} needs one"
        )
    if not futures.limits.stress_move or not 0 < (table.stress_loss or 0) <= BPS:
        raise ValueError(
            f"{field}.stress_loss: needs futures.limits.stress_move, and a share above 0% and at"
            " most 100%"
        )
    if "leverage_band" not in futures.model_fields_set:
        raise ValueError(
            "futures.leverage_band: missing; an allocator changes the total notional: write for"
            ' example "20%", or "off"'
        )


def supply_tokens(portfolio: Portfolio) -> tuple[str, ...]:
    """Return the tokens whose total supply must be read from the chain."""
    weights = portfolio.weights
    if weights is None or weights.method.needs is not AllocationNeeds.SUPPLIES:
        return ()
    tokens = {*weights.fixed, *(supply.token for supply in weights.supplies)}
    return tuple(
        asset.token.address for asset in portfolio.assets if asset.token.address not in tokens
    )


def weights_text(table: PortfolioTable) -> str:
    """Return the allocator as text, for the owner to confirm."""
    weights = table.weights
    if weights is None or weights.method is AllocationMethod.FIXED:
        return "fixed targets"
    free = [asset.symbol for asset in table.assets if asset.symbol not in weights.fixed]
    name = weights.kind if weights.signal is None else f"{weights.kind} {weights.signal}"
    choice = f"{name}, chosen every {format_duration(weights.every or 0)}"
    if weights.step and weights.window:
        what = "returns" if weights.signal is None else "prices"
        choice += f" from {what} of {format_duration(weights.step)}"
        choice += f" over {format_duration(weights.window)}"
    parts = [choice]
    if weights.min_history:
        history, age = format_duration(weights.min_history), format_duration(weights.max_age or 0)
        parts.append(f"at least {history}, none older than {age}")
    if weights.fixed:
        parts.append(f"{', '.join(weights.fixed)} fixed")
    if weights.stress_loss is not None:
        parts.append(f"futures weights, stress loss of a market {weights.stress_loss / 100:g}%")
        free = []
    for symbol in free:
        low, high = weight_bounds(weights, symbol)
        parts.append(f"{symbol} {low / 100:g}% to {high / 100:g}%")
    parts += [
        f"changes of up to {(weights.churn or 0) / 100:g}% not applied",
        f"kept for {format_duration(weights.keep or 0)} if none can be chosen",
        f"until the first choice: {weights.until_chosen}",
    ]
    return "; ".join(parts)


def weight_bounds(weights: WeightsTable, symbol: str) -> tuple[int, int]:
    """Return the smallest and largest weight that the allocator may choose for an asset, in bps."""
    limit = weights.limits.get(symbol)
    cap = BPS if weights.cap is None else weights.cap
    if limit is None:
        return 0, cap
    return limit.min, limit.max if "max" in limit.model_fields_set else cap


def read_supplies(path: Path, portfolio: Portfolio) -> list[TokenSupply]:
    """Read the supplies of tokens from a CSV with the columns symbol, supply (or market_cap and
    price) and optionally as_of. Raises ConfigError naming the line.
    """
    tokens = {asset.token.symbol: asset.token for asset in portfolio.assets}
    field = f"portfolio.weights.supplies: {path.name}"
    try:
        lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, csv.Error) as error:  # ValueError: not text, or not a path
        raise ConfigError(
            f"{field}: cannot be read: {error}", "write a CSV with the columns symbol,supply,as_of"
        ) from None
    found: dict[str, TokenSupply] = {}
    for number, line in enumerate(lines, 2):
        symbol, text = (line.get("symbol") or "").strip(), _supply_text(line)
        if symbol not in tokens:
            raise ConfigError(
                f"{field}, line {number}: {symbol!r} is not an asset",
                "remove the line, or correct the symbol",
            )
        if symbol in found:
            raise ConfigError(f"{field}, line {number}: {symbol} is given twice", "keep one line")
        if not _NUMBER.fullmatch(text):
            raise ConfigError(
                f"{field}, line {number}: {text!r} is not a number of coins",
                "write a plain decimal such as 19850000.5",
            )
        as_of = (line.get("as_of") or "").strip()
        origin = safe_label(path.name, "a file")
        if _DATE.fullmatch(as_of):
            origin += f" of {as_of}"
        token = tokens[symbol]
        found[symbol] = TokenSupply(
            token.address, floor_int(Fraction(text) * 10**token.decimals), origin
        )
    if not found:
        raise ConfigError(
            f"{field}: no supplies", "write a CSV with the columns symbol,supply,as_of"
        )
    return list(found.values())


def _supply_text(line: Mapping[str, str | None]) -> str:
    """Return the supply of a line, or market_cap over price, rounded down to a millionth of a coin."""
    supply, worth, price = (
        (line.get(name) or "").strip() for name in ("supply", "market_cap", "price")
    )
    if supply or not (_NUMBER.fullmatch(worth) and _NUMBER.fullmatch(price)):
        return supply or worth
    if not Fraction(price):
        return f"{worth} / {price}"
    return f"{Decimal(floor_int(Fraction(worth) / Fraction(price) * 10**6)) / 10**6:f}"


class DataTable(ConfigTable):
    """Published data: a file or an https address, downloaded once and kept in the folder data beside
    the config. `sha256` pins its content. `symbols` maps the file's symbols to assets, `bar` is the
    time from a row's timestamp to its close.
    """

    source: str = Field(min_length=1)
    kind: Literal["prices", "supplies"] = "prices"
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    symbols: dict[str, str] = Field(default_factory=dict, max_length=MOST_OPTIONS)
    bar: str = "0s"

    @field_validator("source")
    @classmethod
    def _reachable(cls, source: str) -> str:
        parts = urlsplit(source)
        local = parts.scheme == "http" and parts.hostname in LOOPBACK
        if "://" in source and not (parts.scheme == "https" or local):
            raise ValueError(f"{source!r} is not an https address; write one, or a file")
        if parts.username or parts.password:
            raise ValueError("an address with a password; publish it without one, or use a file")
        return source


LONGEST_TIMEOUT_S = 60


class SignalTable(ConfigTable):
    """One signal: the time limit of an answer, and options that are passed as text."""

    timeout: Duration
    options: dict[str, str] = Field(default_factory=dict, max_length=MOST_OPTIONS)

    @field_validator("timeout")
    @classmethod
    def _sane(cls, timeout: int) -> int:
        if not 0 < timeout <= LONGEST_TIMEOUT_S:
            raise ValueError(f"{timeout}s; write above 0s and at most {LONGEST_TIMEOUT_S}s")
        return timeout

    @field_validator("options", mode="before")
    @classmethod
    def _texts(cls, options: object) -> object:
        if not isinstance(options, dict):
            return options
        return {
            key: str(value) if isinstance(value, int | float) else value
            for key, value in options.items()
        }


def require_signals(config: Config) -> None:
    """Raise ValueError naming the field if a signal is missing or unused, or if its futures weights
    would have no band.
    """
    used = dict(_used(config))
    for field, name in used.items():
        if name not in config.signals:
            raise ValueError(
                f"{field}: no [signals.{name}]; add it with a timeout, or correct the name"
            )
    for name in config.signals:
        if name not in used.values():
            raise ValueError(
                f"signals.{name}: unused; name it in an allocator of kind 'signal', or remove it"
            )
    futures = config.futures
    if used and futures is not None and "leverage_band" not in futures.model_fields_set:
        raise ValueError(
            "futures.leverage_band: missing; a signal changes the total notional: write for example"
            ' "20%", or "off"'
        )


def _used(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (field, name) of each signal that an allocator names."""
    tables = {"portfolio.weights.signal": config.portfolio.weights}
    for strategy in config.strategies:
        if isinstance(strategy.allocator, WeightsTable):
            tables[f"strategies.{strategy.name}.allocator.signal"] = strategy.allocator
    for field, table in tables.items():
        if table is not None and table.signal is not None:
            yield field, table.signal


def build_signals(config: Config) -> Mapping[str, SignalSettings]:
    """Build the settings of each signal by name."""
    markets = tuple(
        SignalMarket(market.symbol, market.name, market.asset or "")
        for market in futures_markets(config)
    )
    return {
        name: SignalSettings(name, table.timeout, tuple(sorted(table.options.items())), markets)
        for name, table in config.signals.items()
    }
