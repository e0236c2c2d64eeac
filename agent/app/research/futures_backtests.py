"""Backtests and margin-call stress of a futures book, over the prices of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from agent.app.documents import fill
from agent.app.documents.research import (
    FuturesBacktestDocument,
    FuturesBookDocument,
    FuturesFiguresDocument,
    FuturesStressCaseDocument,
    FuturesStressDocument,
    SimulatedHedgeDocument,
)
from agent.app.research.backtests import (
    USUAL_MARKET,
    MarketOptions,
    PortfolioOptions,
    refuse_options,
    require_priced_gas,
)
from agent.backtest.data import PriceTable
from agent.backtest.funding import FundingRateSeries, funding_notes, require_prices
from agent.backtest.futures.book import PerpVenueSettings, futures_path
from agent.backtest.futures.simulate import (
    DECIMALS,
    QUOTE,
    BookResult,
    FuturesResult,
    FuturesSettings,
)
from agent.backtest.futures.venue import FuturesSetup, simulated_policy, with_simulated_markets
from agent.backtest.futures_alone import setup_of_settings, simulate_book
from agent.backtest.jumps import with_suspect_note
from agent.backtest.report.series import PerformanceMetrics, growth_series_of_units, performance
from agent.backtest.report.series import backtest_document as portfolio_document
from agent.backtest.result import SimulationResult
from agent.backtest.settings import MAX_AGE_BARS, BacktestSpec, SimulationSettings
from agent.backtest.simulate import Progress, library_versions, simulate
from agent.backtest.stress.futures import (
    FuturesSeverity,
    FuturesStressSpec,
    run_futures_stress,
)
from agent.backtest.stress.futures import Progress as StressProgress
from agent.config.futures import build_futures, futures_markets
from agent.config.load import load_config
from agent.config.schema import Config
from agent.config.tables.futures import EMERGENCY_COOLDOWN_S
from agent.errors import ConfigError
from agent.margin.account import PERPETUAL_PROTOCOL_TIERS
from agent.model import FuturesLimits, FuturesPolicy, FuturesTarget
from agent.units import BPS, Token, decimal_text

PPM_PER_BPS = 100
CONFIG_FUTURES_OPTIONS = {
    "leverage_bps": "--futures leverage",
    "band_bps": "--futures band",
    "max_leverage_bps": "--futures max-leverage",
    "max_utilisation_bps": "--futures max-utilisation",
    "spot_multiple_bps": "--futures spot-multiple",
    "stress_move_bps": "--futures stress",
}
"""Options of a book that [futures] of a config sets, by their fields."""
OPTION_BY_SETTING = {
    "fee_pips": "--market fee",
    "depth": "--market depth",
    "pool_kind": "--market pool",
    "gas_price_wei": "--market gas",
    "flows": "--flow",
    "transfer_mode": "--flows-in",
    "stale_asset_mode": "--market gone",
    "data_fee_wei": "--market data-fee",
}
OPTION_BY_MARKET_FILE = {
    "gas_prices_path": "--market gas-prices",
    "pool_files": "--market pool-state",
}
"""Options of a market that a futures book without a portfolio does not have, by their fields."""
HYSTERESIS_BPS = 500
"""Distance below a limit at which a reduction ends."""
EMERGENCY_DISTANCE_BPS = 500
"""Distance to liquidation below which positions are closed."""
DEFAULT_BOUND_BPS = 500
DEFAULT_LOT_RAW = 10 ** (DECIMALS - 3)
MAX_BASIS_BPS = 500
"""Distance between mark and index above which no position is opened."""


@dataclass(frozen=True, slots=True)
class FuturesBookOptions:
    """The simulated futures book: signed weights by symbol, whose absolute values sum to one, or those
    of the [futures] of a `config`, which gives leverage, bands and limits too.

    `written_fields` are those that were written, at whatever value.

    Amounts are in units of 10^-18. `fee_bps`, `slippage_bps`, `penalty_bps` and `bound_bps`, an order's
    distance from the index, are those of the venue. Without `margin_raw` the margin is the initial
    value of the market.
    """

    weight_bps_by_symbol: Mapping[str, int] = field(default_factory=dict)
    config: Path | None = None
    leverage_bps: int = 2 * BPS
    band_bps: int = 500
    margin_raw: int | None = None
    reserve_raw: int = 0
    max_leverage_bps: int = 4 * BPS
    max_utilisation_bps: int = 8_000
    spot_multiple_bps: int = 0
    stress_move_bps: int = 1_000
    lot_raw_by_symbol: Mapping[str, int] = field(default_factory=dict)
    fee_bps: int = 10
    slippage_bps: int = 10
    penalty_bps: int = 250
    bound_bps: int | None = None
    written_fields: Set[str] = frozenset()

    def weights(self) -> Mapping[str, int]:
        """Return signed weights in basis points by symbol. Raises ConfigError."""
        if self.config is None:
            return self.weight_bps_by_symbol
        policy = _config_policy(load_config(self.config).config)
        return {target.market: target.weight_bps for target in policy.targets}

    def settings(self, interval_s: int, market: SimulationSettings) -> FuturesSettings:
        """Return the settings of the book. `market` has its value, latency and seed. Raises
        ConfigError naming the option.
        """
        symbols = list(self.weights())
        if unknown_symbols := [
            symbol for symbol in self.lot_raw_by_symbol if symbol not in symbols
        ]:
            raise ConfigError(
                f"--futures lot: {unknown_symbols[0]!r} has no target",
                f"choose from {', '.join(symbols)}",
            )
        return FuturesSettings(
            self._policy((MAX_AGE_BARS + 1) * interval_s - 1),
            PerpVenueSettings(
                PERPETUAL_PROTOCOL_TIERS,
                self.fee_bps * PPM_PER_BPS,
                self.slippage_bps,
                self.penalty_bps * PPM_PER_BPS,
                tuple(
                    (symbol, self.lot_raw_by_symbol.get(symbol, DEFAULT_LOT_RAW))
                    for symbol in symbols
                ),
            ),
            int(market.start_value * 10**DECIMALS) if self.margin_raw is None else self.margin_raw,
            self.reserve_raw,
            market.latency_bars,
            market.seed,
        )

    def _policy(self, index_age_s: int) -> FuturesPolicy:
        """Return targets and limits by symbol; an index is valid for `index_age_s`. Orders of a
        config are bounded by `bound_bps` too, since a bar is longer than a block.
        """
        bound_bps = DEFAULT_BOUND_BPS if self.bound_bps is None else self.bound_bps
        if self.config is not None:
            refuse_options(
                self,
                FuturesBookOptions(),
                CONFIG_FUTURES_OPTIONS,
                "the config sets it",
                "omit it",
                self.written_fields,
            )
            policy = _config_policy(load_config(self.config).config)
            limits = replace(
                policy.limits,
                slippage_bps=bound_bps,
                emergency_slippage_bps=2 * bound_bps,
                index_age_s=index_age_s,
            )
            return replace(policy, limits=limits)
        limits = FuturesLimits(
            max_leverage_bps=self.max_leverage_bps,
            max_utilisation_bps=self.max_utilisation_bps,
            max_position_bps=BPS,
            spot_multiple_bps=self.spot_multiple_bps,
            stress_move_bps=self.stress_move_bps,
            slippage_bps=bound_bps,
            hysteresis_bps=HYSTERESIS_BPS,
            emergency_distance_bps=EMERGENCY_DISTANCE_BPS,
            emergency_slippage_bps=2 * bound_bps,
            max_basis_bps=MAX_BASIS_BPS,
            index_age_s=index_age_s,
            emergency_cooldown_s=EMERGENCY_COOLDOWN_S,
        )
        return FuturesPolicy(
            tuple(starmap(FuturesTarget, self.weight_bps_by_symbol.items())),
            self.leverage_bps,
            self.band_bps,
            limits,
            margin_in_weights=False,
        )


def has_futures(config_path: Path | None) -> bool:
    """Return whether the config has [futures]."""
    return config_path is not None and load_config(config_path).config.futures is not None


def _asset_by_market(config: Config) -> dict[str, str]:
    """Return the asset of each futures market of a config. Raises ConfigError for a market without
    an asset.
    """
    asset_by_market = {}
    for market in futures_markets(config):
        if market.asset is None:
            raise ConfigError(
                f"futures.markets.{market.symbol}: no asset is linked, so prices are unknown",
                "link an asset, or backtest a copy of the config without this market",
            )
        asset_by_market[market.venue_key] = market.asset
    return asset_by_market


def _config_policy(config: Config) -> FuturesPolicy:
    """Return the policy of a config's [futures], with markets named by their assets. All triggers
    act, including those that require a confirmation. Raises ConfigError.
    """
    asset_by_market = _asset_by_market(config)
    token_by_symbol = {
        asset.symbol: Token(asset.address, asset.symbol, DECIMALS)
        for asset in config.portfolio.assets
    }
    policy = build_futures(config, token_by_symbol)
    if policy is None:
        raise ConfigError("futures: missing", "add [futures], or use --futures")
    targets = tuple(
        replace(target, market=asset_by_market[target.market]) for target in policy.targets
    )
    return replace(policy, targets=targets, manual_triggers=())


def backtest_futures(
    prices_path: Path,
    book_options: FuturesBookOptions,
    market_options: MarketOptions,
    portfolio_options: PortfolioOptions,
    *,
    funding: Path | None = None,
    progress: Progress | None = None,
) -> SimulationResult | FuturesResult:
    """Simulate futures and spot by the same steps, with every guard: the futures of a config, or
    those of the options, with `portfolio_options` or alone. Raises ConfigError naming the option.
    """
    table, all_rate_series = portfolio_options.load_prices_and_funding(prices_path, funding)
    futures_prices, rate_series = futures_market(book_options, table, all_rate_series)
    notes = _data_notes(futures_prices, rate_series)
    if (
        book_options.config is None
        and portfolio_options.config is None
        and not portfolio_options.target_bps_by_symbol
    ):
        refuse_spot_options(market_options, portfolio_options)
        book_settings = _settings_without_spot(
            book_options,
            futures_prices.interval_s,
            market_options.settings,
            "add --target, or omit --futures spot-multiple",
        )
        market_path = futures_path(futures_prices, rate_series)
        return replace(simulate_book(market_path, book_settings, progress), notes=notes)
    if book_options.reserve_raw:
        raise ConfigError(
            "--futures reserve: margin is deposited from the portfolio itself", "omit it"
        )
    portfolio_options = _with_futures_assets(book_options, portfolio_options)
    spec = portfolio_options.spec(table, market_options.pool_pairs)
    settings = market_options.settings_for_table(spec, table)
    require_priced_gas(settings, spec, table)
    if (numeraire_symbol := spec.portfolio.numeraire.symbol) in futures_prices.symbols:
        option = "--futures target" if book_options.config is None else "futures.markets"
        raise ConfigError(
            f"{option}: {numeraire_symbol} is the numeraire of the portfolio",
            "use a numeraire without prices in the file",
        )
    futures_setup, spec = _futures_setup(book_options, settings, spec, table.interval_s)
    futures_setup = replace(futures_setup, rate_series=rate_series, notes=notes)
    table = with_suspect_note(table, spec)
    return simulate(spec, table, settings, progress, all_rate_series, futures_setup)


def _settings_without_spot(
    book_options: FuturesBookOptions,
    interval_s: int,
    market: SimulationSettings,
    remedy: str = "omit --futures spot-multiple",
) -> FuturesSettings:
    """Return the settings of a book alone. Raises ConfigError for a multiple of its spot, which
    would keep it closed.
    """
    settings = book_options.settings(interval_s, market)
    if settings.policy.limits.spot_multiple_bps:
        raise ConfigError("--futures spot-multiple: no spot portfolio given", remedy)
    return settings


def refuse_spot_options(market_options: MarketOptions, portfolio_options: PortfolioOptions) -> None:
    """Raise ConfigError for an option that a futures book without a portfolio does not have."""
    for options, usual, option_by_field in (
        (portfolio_options, PortfolioOptions(), portfolio_options.option_by_field),
        (portfolio_options, PortfolioOptions(), {"native": "--native", "numeraire": "--numeraire"}),
        (market_options.settings, USUAL_MARKET, OPTION_BY_SETTING),
        (market_options, MarketOptions(), OPTION_BY_MARKET_FILE),
    ):
        refuse_options(
            options,
            usual,
            option_by_field,
            "a futures book alone does not have it",
            "omit it, or add --target",
            market_options.written_fields,
        )


def _data_notes(table: PriceTable, rate_series: Sequence[FundingRateSeries]) -> tuple[str, ...]:
    """Return the notes on prices and funding rates of a book."""
    notes = [
        *table.notes,
        *(note for series in rate_series for note in funding_notes(series, table.times_s)),
    ]
    if symbols_without_rates := [
        symbol
        for symbol in table.symbols
        if symbol not in {series.symbol for series in rate_series}
    ]:
        notes.append(
            f"funding: no rates for {', '.join(symbols_without_rates)}, so their funding counts as zero"
        )
    return tuple(notes)


def _with_futures_assets(
    book_options: FuturesBookOptions, portfolio_options: PortfolioOptions
) -> PortfolioOptions:
    """Return the portfolio with the markets of `--futures target` as assets, at 0 % if they have no
    target. Raises ConfigError for a config that has [futures] itself.
    """
    if book_options.config is not None:
        return portfolio_options
    if has_futures(portfolio_options.config):
        raise ConfigError(
            "--futures target: the config has [futures]", "omit it, or use a config without"
        )
    if portfolio_options.config is not None:
        return portfolio_options
    target_bps_by_symbol = portfolio_options.target_bps_by_symbol
    added_bps_by_symbol = {
        symbol: 0 for symbol in book_options.weights() if symbol not in target_bps_by_symbol
    }
    return replace(
        portfolio_options, target_bps_by_symbol={**target_bps_by_symbol, **added_bps_by_symbol}
    )


def _futures_setup(
    book_options: FuturesBookOptions,
    market: SimulationSettings,
    spec: BacktestSpec,
    interval_s: int,
) -> tuple[FuturesSetup, BacktestSpec]:
    """Return the simulated futures, and the spec whose strategies and signals name their markets.
    With a delay, orders of a config are bounded by `bound_bps`, as the index moves meanwhile.
    """
    settings = book_options.settings(interval_s, market)
    if book_options.config is None:
        symbols = list(book_options.weights())
        spec_symbols = {token.symbol for token in spec.tokens}
        if missing_symbols := [symbol for symbol in symbols if symbol not in spec_symbols]:
            raise ConfigError(
                f"--futures target: {missing_symbols[0]} is not an asset of the config",
                "add it with a target of 0%",
            )
        return setup_of_settings(settings, spec, symbols), spec
    config = load_config(book_options.config).config
    policy = settings.policy
    if not market.latency_bars and book_options.bound_bps is None:
        policy = replace(policy, limits=_config_policy(config).limits)
    if (
        config.tax is None and policy.hedge_policy is not None
    ):  # gains are unknown, as in live steps
        policy = replace(policy, hedge_policy=replace(policy.hedge_policy, tax_rate_bps=0))
    asset_by_market = _asset_by_market(config)
    futures_setup = setup_of_settings(settings, spec, list(asset_by_market.values()))
    return (
        replace(futures_setup, policy=simulated_policy(policy)),
        with_simulated_markets(spec, asset_by_market),
    )


def futures_market(
    book_options: FuturesBookOptions,
    table: PriceTable,
    rate_series: tuple[FundingRateSeries, ...] = (),
) -> tuple[PriceTable, tuple[FundingRateSeries, ...]]:
    """Return prices and funding rates of the targets' symbols. Raises ConfigError."""
    table = with_suspect_note(table.select(list(book_options.weights())))
    rate_series = tuple(series for series in rate_series if series.symbol in table.symbols)
    require_prices(rate_series, table.symbols, table.times_s)
    return table, rate_series


def backtest_document(result: SimulationResult | FuturesResult) -> dict[str, Any]:
    """Return the document of a backtest: that of its portfolio, with that of its futures."""
    if isinstance(result, FuturesResult):
        return {"futures": _futures_document(result)}
    document = portfolio_document(result)
    if result.futures is not None:
        document["futures"] = _futures_document(result.futures)
    return document


def _futures_document(futures_result: FuturesResult) -> FuturesBacktestDocument:
    return {
        "from": futures_result.path.times_s[0],
        "until": futures_result.path.times_s[-1],
        "bars": futures_result.path.bar_count,
        "start_value": _coin_text(futures_result.settings.start_value_raw),
        "max_leverage": _multiple_text(
            futures_result.settings.policy.limits.max_leverage_bps / BPS
        ),
        "agent": _book_document(futures_result, futures_result.agent_book),
        "held": _book_document(futures_result, futures_result.held_book),
        "hedges": [fill(SimulatedHedgeDocument, hedge, QUOTE) for hedge in futures_result.hedges],
        "notes": list(futures_result.notes),
        "config_hash": futures_result.config_hash,
        "data_hash": futures_result.path.digest,
        "seed": futures_result.settings.seed,
        "versions": dict(library_versions()),
    }


def _book_document(futures_result: FuturesResult, book: BookResult) -> FuturesBookDocument:
    return fill(
        FuturesBookDocument,
        book,
        QUOTE,
        figures=fill(FuturesFiguresDocument, _book_performance(futures_result.path.times_s, book)),
        sizes={symbol: _coin_text(size_raw) for symbol, size_raw in book.sizes},
    )


def _book_performance(times_s: Sequence[int], book: BookResult) -> PerformanceMetrics:
    """Return the metrics of a book; only the drawdown for a book that lost its whole value."""
    if book.equity.min() <= 0 or (growth := book.growth).min() <= 0:
        return PerformanceMetrics(math.nan, math.nan, math.nan, -1.0)
    metrics, _ = performance(growth_series_of_units(np.asarray(times_s), growth, growth))
    return metrics


DEFAULT_BARS = 240


def prepare_futures_stress(
    prices_path: Path,
    book_options: FuturesBookOptions,
    market: SimulationSettings,
    portfolio_options: PortfolioOptions,
    *,
    bar_count: int,
    path_count: int,
    seed_count: int,
) -> FuturesStressSpec:
    """Return the stress test of a book over `bar_count` (default: 240, or all of a shorter file).
    Raises ConfigError naming the option.
    """
    table, _ = futures_market(book_options, portfolio_options.load_prices(prices_path))
    settings = _settings_without_spot(book_options, table.interval_s, market)
    bar_count = bar_count or min(DEFAULT_BARS, table.bar_count)
    return FuturesStressSpec(table, settings, FuturesSeverity(), bar_count, path_count, seed_count)


def stress_futures(
    spec: FuturesStressSpec, progress: StressProgress | None = None
) -> FuturesStressDocument:
    """Run the stress test, and return its document. Raises ConfigError."""
    cases = run_futures_stress(spec, progress)
    settings = spec.settings
    hashed_settings = (
        settings.digest(),
        repr(spec.severity),
        spec.path_bars,
        spec.path_count,
        spec.seed_count,
    )
    return {
        "bars": spec.path_bars,
        "start_value": _coin_text(settings.start_value_raw),
        "max_leverage": _multiple_text(settings.policy.limits.max_leverage_bps / BPS),
        "cases": [fill(FuturesStressCaseDocument, case) for case in cases],
        "config_hash": sha256(repr(hashed_settings).encode()).hexdigest(),
        "data_hash": spec.table.digest,
        "seed": settings.seed,
        "versions": dict(library_versions()),
    }


def _coin_text(amount_raw: int) -> str:
    return decimal_text(amount_raw, QUOTE.decimals)


def _multiple_text(multiple: float) -> str:
    return f"{multiple:.6f}"
