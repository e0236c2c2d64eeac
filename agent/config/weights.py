"""[portfolio.weights]: allocator, interval, sampling of prices, and bounds of weights.
[signals.NAME]: user-defined signals, by the name of their entry point. [data.NAME]: published
prices and supplies.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

from agent.config.build import build_portfolio
from agent.config.futures import futures_markets
from agent.config.loaded import LoadedConfig
from agent.config.networks.coin_supplies import PACKAGE, package_supplies
from agent.config.schema import Config
from agent.config.tables.futures import HyperliquidTable, PerpetualProtocolTable
from agent.config.tables.portfolio import PortfolioTable
from agent.config.tables.weights import AllocatorTable, weight_bounds
from agent.errors import ConfigError
from agent.foreign_text import failure_text
from agent.model import (
    AllocationMethod,
    AllocationNeeds,
    AllocatorConfig,
    FuturesRisk,
    FuturesSide,
    InitialWeights,
    LayerConfig,
    Portfolio,
    SignalMarket,
    SignalSettings,
    TokenSupply,
    WeightLimit,
)
from agent.units import BPS, HOUR_S, Token, floor_int, format_bps, format_duration, safe_label

_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def build_allocator(
    allocator_table: AllocatorTable | None,
    portfolio: Portfolio,
    folder: Path,
    signals: Mapping[str, SignalSettings] = MappingProxyType({}),
    futures: PerpetualProtocolTable | HyperliquidTable | None = None,
    *,
    chain_id: int,
) -> AllocatorConfig | None:
    """Build the allocator by token address; `signals`, `futures` and `chain_id` are those of the
    config. The path of a supplies file is relative to `folder`. Raises ConfigError.
    """
    if allocator_table is None:
        return None
    address_by_symbol = {asset.token.symbol: asset.token.address for asset in portfolio.assets}
    unfixed_symbols = [
        symbol for symbol in address_by_symbol if symbol not in allocator_table.fixed
    ]
    step_s = allocator_table.step or HOUR_S
    supplies: list[TokenSupply] = []
    if allocator_table.supplies == PACKAGE:
        supplies = package_supplies(
            (
                asset.token
                for asset in portfolio.assets
                if asset.token.symbol not in allocator_table.fixed
            ),
            portfolio.wrapped_native,
            chain_id,
        )
    elif allocator_table.supplies is not None:
        supplies = read_supplies(
            folder / allocator_table.supplies, portfolio, allocator_table.supplies_max_age or 0
        )
    return AllocatorConfig(
        method=allocator_table.method,
        every_s=allocator_table.every or 0,
        window_s=allocator_table.window or 0,
        step_s=step_s,
        min_returns=-(-(allocator_table.min_history or 0) // step_s),
        max_age_s=allocator_table.max_age or 0,
        max_overdue_s=allocator_table.keep or 0,
        churn_bps=allocator_table.churn or 0,
        initial_weights=InitialWeights(allocator_table.until_chosen or "wait"),
        fixed_tokens=tuple(address_by_symbol[symbol] for symbol in allocator_table.fixed),
        limits=tuple(
            WeightLimit(address_by_symbol[symbol], *weight_bounds(allocator_table, symbol))
            for symbol in unfixed_symbols
        ),
        supplies=tuple(supplies),
        signal=None if allocator_table.signal is None else signals[allocator_table.signal],
        futures=_futures_risk(allocator_table, futures, address_by_symbol),
        max_change_bps=allocator_table.max_change_bps,
    )


def offline_portfolio(loaded_config: LoadedConfig) -> Portfolio:
    """Return the portfolio of a config with its allocator, without a chain: a token without
    decimals in the config has 18. Raises ConfigError.
    """
    config = loaded_config.config
    token_by_address = {
        listed_token.address: Token(
            listed_token.address,
            listed_token.symbol,
            18 if listed_token.decimals is None else listed_token.decimals,
        )
        for listed_token in config.portfolio.listed_tokens
    }
    return portfolio_with_allocator(loaded_config, token_by_address)


def portfolio_with_allocator(
    loaded_config: LoadedConfig, token_by_address: Mapping[str, Token]
) -> Portfolio:
    """Return the portfolio of a config, of these tokens, with its allocator. Raises ConfigError."""
    config = loaded_config.config
    portfolio = build_portfolio(config, token_by_address)
    allocator = build_allocator(
        config.portfolio.weights,
        portfolio,
        loaded_config.path.parent,
        build_signals(config),
        config.futures,
        chain_id=config.chain.chain_id,
    )
    return replace(portfolio, allocator=allocator)


def without_max_change(config: Config) -> Config:
    """Return the config with `max_change = "off"`, for a simulation, which has no owner to ask."""

    def unlimited(table: AllocatorTable) -> AllocatorTable:
        return table.model_copy(update={"max_change": None})

    portfolio = config.portfolio
    if portfolio.weights is not None:
        portfolio = portfolio.model_copy(update={"weights": unlimited(portfolio.weights)})
    strategies = [
        strategy.model_copy(update={"allocator": unlimited(strategy.allocator)})
        if isinstance(strategy.allocator, AllocatorTable)
        else strategy
        for strategy in config.strategies
    ]
    return config.model_copy(update={"portfolio": portfolio, "strategies": strategies})


def _futures_risk(
    allocator_table: AllocatorTable,
    futures: PerpetualProtocolTable | HyperliquidTable | None,
    address_by_symbol: Mapping[str, str],
) -> FuturesRisk | None:
    """Return the bounds of futures weights; None for an allocator of spot weights."""
    if futures is None or allocator_table.method.needs is not AllocationNeeds.MARKETS:
        return None
    futures_sides = tuple(
        FuturesSide(market.venue_key, address_by_symbol[market.asset], market.weight > 0)
        for market in futures.markets
        if market.weight and market.asset is not None
    )
    return FuturesRisk(
        futures_sides,
        futures.leverage,
        futures.limits.stress_move or 0,
        allocator_table.stress_loss or 0,
        futures.limits.max_position,
    )


def require_futures_allocators(config: Config) -> None:
    """Raise ValueError naming the field if an allocator of futures weights lacks futures, an asset
    of a market, a stress move, or a band of the leverage.
    """
    for field, table in _allocators_by_field(config):
        if table.method.needs is AllocationNeeds.MARKETS:
            _require_futures_allocator(field, table, config)


def _allocators_by_field(config: Config) -> Iterator[tuple[str, AllocatorTable]]:
    """Yield (field, table) of each allocator, that of the portfolio first."""
    if config.portfolio.weights is not None:
        yield "portfolio.weights", config.portfolio.weights
    for strategy in config.strategies:
        if isinstance(strategy.allocator, AllocatorTable):
            yield f"strategies.{strategy.name}.allocator", strategy.allocator


def _require_futures_allocator(field: str, table: AllocatorTable, config: Config) -> None:
    futures = config.futures
    if futures is None or not futures.leverage:
        raise ValueError(f"{field}: kind {table.kind} needs [futures] with a leverage above 0x")
    weighted_markets = [market for market in futures.markets if market.weight]
    if symbols_without_asset := [
        market.symbol for market in weighted_markets if market.asset is None
    ]:
        raise ValueError(
            f"futures.markets.{symbols_without_asset[0]}.asset: missing; kind {table.kind} uses the prices of the"
            " asset"
        )
    asset_symbols = [market.asset for market in weighted_markets]
    if repeated_symbols := [symbol for symbol in asset_symbols if asset_symbols.count(symbol) > 1]:
        raise ValueError(
            f"futures.markets: two markets have the asset {repeated_symbols[0]!r}; kind {table.kind} needs one"
        )
    if not futures.limits.stress_move or not 0 < (table.stress_loss or 0) <= BPS:
        raise ValueError(
            f"{field}.stress_loss: needs futures.limits.stress_move, and a share above 0 % and at"
            " most 100 %"
        )
    if "leverage_band" not in futures.model_fields_set:
        raise ValueError(
            "futures.leverage_band: missing; an allocator changes the total notional: write for"
            ' example "20%", or "off"'
        )


def supply_tokens(portfolio: Portfolio) -> tuple[str, ...]:
    """Return the tokens whose total supply must be read from the chain."""
    allocator = portfolio.allocator
    if allocator is None or allocator.method.needs is not AllocationNeeds.SUPPLIES:
        return ()
    excluded_tokens = {*allocator.fixed_tokens, *(supply.token for supply in allocator.supplies)}
    return tuple(
        asset.token.address
        for asset in portfolio.assets
        if asset.token.address not in excluded_tokens
    )


def allocator_supply_tokens(portfolio: Portfolio, layers: Iterable[LayerConfig]) -> tuple[str, ...]:
    """Return tokens whose total supply is read from the chain, for the portfolio's allocator or a
    layer's.
    """
    allocators = [
        portfolio.allocator,
        *(
            layer_allocator.allocator
            for layer_config in layers
            for layer_allocator in layer_config.allocators
        ),
    ]
    return tuple(
        dict.fromkeys(
            token
            for allocator in allocators
            for token in supply_tokens(replace(portfolio, allocator=allocator))
        )
    )


def allocator_sentences(table: PortfolioTable) -> str:
    """Return the allocator as text, for the owner to confirm."""
    allocator_table = table.weights
    if allocator_table is None or allocator_table.method is AllocationMethod.FIXED:
        return "fixed targets"
    unfixed_symbols = [
        asset.symbol for asset in table.assets if asset.symbol not in allocator_table.fixed
    ]
    allocator_name = (
        allocator_table.kind
        if allocator_table.signal is None
        else f"{allocator_table.kind} {allocator_table.signal}"
    )
    choice_text = f"{allocator_name}, chosen every {format_duration(allocator_table.every or 0)}"
    if allocator_table.step and allocator_table.window:
        series_name = "returns" if allocator_table.signal is None else "prices"
        choice_text += f" from {series_name} of {format_duration(allocator_table.step)}"
        choice_text += f" over {format_duration(allocator_table.window)}"
    sentences = [choice_text, *_supplies_texts(allocator_table)]
    if allocator_table.min_history:
        sentences.append(f"at least {format_duration(allocator_table.min_history)}")
    if allocator_table.max_age:
        sentences.append(f"no price older than {format_duration(allocator_table.max_age)}")
    if allocator_table.fixed:
        sentences.append(f"{', '.join(allocator_table.fixed)} fixed")
    if allocator_table.stress_loss is not None:
        sentences.append(
            f"futures weights, stress loss of a market {format_bps(allocator_table.stress_loss)}"
        )
        unfixed_symbols = []
    for symbol in unfixed_symbols:
        low_bps, high_bps = weight_bounds(allocator_table, symbol)
        sentences.append(f"{symbol} {format_bps(low_bps)} to {format_bps(high_bps)}")
    sentences += [
        f"changes of up to {format_bps(allocator_table.churn or 0)} not applied",
        *_max_change_texts(allocator_table),
        f"kept for {format_duration(allocator_table.keep or 0)} if none can be chosen",
        f"until the first choice: {allocator_table.until_chosen}",
    ]
    return "; ".join(sentences)


def _supplies_texts(allocator_table: AllocatorTable) -> list[str]:
    if allocator_table.method.needs is not AllocationNeeds.SUPPLIES:
        return []
    if allocator_table.supplies is None:
        return ["supplies of the contracts"]
    source_text = "that trimtab lists"
    if allocator_table.supplies != PACKAGE:
        source_text = f"of {allocator_table.supplies}"
    age_text = ""
    if allocator_table.supplies_max_age:
        age_text = f", at most {format_duration(allocator_table.supplies_max_age)} old"
    return [f"supplies {source_text}{age_text}"]


def _max_change_texts(allocator_table: AllocatorTable) -> list[str]:
    if allocator_table.max_change_bps is None:
        return []
    return [f"changes above {format_bps(allocator_table.max_change_bps)} wait for the owner"]


def read_supplies(path: Path, portfolio: Portfolio, max_age_s: int = 0) -> list[TokenSupply]:
    """Read the supplies of tokens from a CSV with the columns symbol, supply (or market_cap and
    price) and optionally as_of, from which a line is valid for `max_age_s` (zero: without end).
    Raises ConfigError naming the line.
    """
    token_by_symbol = {asset.token.symbol: asset.token for asset in portfolio.assets}
    file_label = f"portfolio.weights.supplies: {path.name}"
    supply_by_symbol: dict[str, TokenSupply] = {}
    for line_number, row in _supply_rows(path, file_label):
        symbol = (row.get("symbol") or "").strip()
        supply_text = _supply_text(row)
        if symbol not in token_by_symbol:
            raise ConfigError(
                f"{file_label}, line {line_number}: {symbol!r} is not an asset",
                "remove the line, or correct the symbol",
            )
        if symbol in supply_by_symbol:
            raise ConfigError(
                f"{file_label}, line {line_number}: {symbol} is given twice", "keep one line"
            )
        if not _NUMBER.fullmatch(supply_text):
            raise ConfigError(
                f"{file_label}, line {line_number}: {supply_text!r} is not a number of coins",
                "write a plain decimal such as 19850000.5",
            )
        as_of = (row.get("as_of") or "").strip()
        source_label = safe_label(path.name, "a file")
        as_of_s = 0
        if as_of:
            source_label += f" of {as_of}"
            as_of_s = _day_start_s(as_of, f"{file_label}, line {line_number}")
        token = token_by_symbol[symbol]
        supply_by_symbol[symbol] = TokenSupply(
            token.address,
            floor_int(Fraction(supply_text) * 10**token.decimals),
            source_label,
            as_of_s,
            as_of_s + max_age_s if as_of_s and max_age_s else 0,
        )
    if not supply_by_symbol:
        raise ConfigError(
            f"{file_label}: no supplies", "write a CSV with the columns symbol,supply,as_of"
        )
    return list(supply_by_symbol.values())


def _supply_rows(path: Path, file_label: str) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield the number of each line of a CSV, and its cells by column. Raises ConfigError for a file
    that cannot be read, for two columns of one name, and for a line with more cells than the
    header, as of a number with commas.
    """
    remedy = "write a CSV with the columns symbol,supply,as_of"
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:  # ValueError: not text, or not a path
        raise ConfigError(f"{file_label}: cannot be read: {failure_text(error)}", remedy) from None
    columns = [column for column in reader.fieldnames or () if column.strip()]
    if repeated_columns := [column for column in columns if columns.count(column) > 1]:
        raise ConfigError(
            f"{file_label}: has two columns {repeated_columns[0]!r}", "remove or rename one"
        )
    for line_number, row in rows:
        if any(row.pop(None, ())):
            raise ConfigError(
                f"{file_label}, line {line_number}: has more cells than the header",
                "write numbers without commas, such as 19850000.5",
            )
        yield line_number, row


def _day_start_s(as_of: str, place: str) -> int:
    try:
        if not _DATE.fullmatch(as_of):
            raise ValueError(as_of)
        day_start_s = int(datetime.fromisoformat(as_of).replace(tzinfo=UTC).timestamp())
        if day_start_s <= 0:
            raise ValueError(as_of)
        return day_start_s
    except ValueError:
        raise ConfigError(
            f"{place}: as_of {as_of!r} is not a date after 1970-01-01",
            "write a day such as 2026-11-01",
        ) from None


def _supply_text(row: Mapping[str, str | None]) -> str:
    """Return the supply of a line, or market_cap over price, rounded down to a millionth of a
    coin; no number if one of them is none.
    """
    supply, market_cap, price = (
        (row.get(column) or "").strip() for column in ("supply", "market_cap", "price")
    )
    if supply or not (market_cap or price):
        return supply
    are_numbers = bool(_NUMBER.fullmatch(market_cap) and _NUMBER.fullmatch(price))
    if not are_numbers or not Fraction(price):
        return f"{market_cap} / {price}"
    return f"{Decimal(floor_int(Fraction(market_cap) / Fraction(price) * 10**6)) / 10**6:f}"


def require_signals(config: Config) -> None:
    """Raise ValueError naming the field if a signal is missing or unused, or if its futures weights
    would have no band.
    """
    signal_by_field = dict(_signals_by_field(config))
    for field, signal_name in signal_by_field.items():
        if signal_name not in config.signals:
            raise ValueError(
                f"{field}: no [signals.{signal_name}]; add it with a timeout, or correct the name"
            )
    for signal_name in config.signals:
        if signal_name not in signal_by_field.values():
            raise ValueError(
                f"signals.{signal_name}: unused; name it in an allocator of kind 'signal' or a trigger"
                " of kind 'function', or remove it"
            )
    is_trigger = signal_by_field.pop("policy.trigger.signal", None) is not None
    if config.strategies and (
        is_trigger or any(_trigger_signals(strategy.trigger) for strategy in config.strategies)
    ):
        raise ValueError(
            "policy.trigger: a function is no trigger of strategies; choose another kind"
        )
    futures = config.futures
    if signal_by_field and futures is not None and "leverage_band" not in futures.model_fields_set:
        raise ValueError(
            "futures.leverage_band: missing; a signal changes the total notional: write for example"
            ' "20%", or "off"'
        )


def _signals_by_field(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (field, name) of each signal that an allocator or the trigger names."""
    for trigger_signal in _trigger_signals(config.policy.trigger):
        yield "policy.trigger.signal", trigger_signal
    for field, table in _allocators_by_field(config):
        if table.signal is not None:
            yield f"{field}.signal", table.signal


def _trigger_signals(table: object) -> list[str]:
    """Return the names of the functions in a trigger's table, or in a list of them."""
    members = table if isinstance(table, list) else [table]
    return [member.signal for member in members if hasattr(member, "signal")]


def build_signals(config: Config) -> Mapping[str, SignalSettings]:
    """Build the settings of each signal by name."""
    markets = tuple(
        SignalMarket(market.symbol, market.venue_key, market.asset or "")
        for market in futures_markets(config)
    )
    return {name: table.settings(name, markets) for name, table in config.signals.items()}
