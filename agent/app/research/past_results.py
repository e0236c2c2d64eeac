"""Past result of a basket: its config backtested on the packaged prices of 2021, on a table of
another year, or on each year of a file, for templates, profiles and the dialogue of `trimtab init`.
"""

from __future__ import annotations

import itertools
import math
from calendar import isleap
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.app.documents.owner import PastResultDocument, WorstMonthDocument
from agent.app.documents.status import ORDINARY_DAY_INDEX
from agent.app.research.backtests import USUAL_MARKET, sample_files, spec_from_config
from agent.app.start.past_results import PAST_BASIS, SMALL_MONEY_USD, past_basis
from agent.backtest.data import PriceTable, read_table, require_known_unit
from agent.backtest.report.series import backtest_document, growth_series
from agent.backtest.result import SimulationResult
from agent.backtest.settings import SimulationSettings
from agent.backtest.simulate import simulate
from agent.config.load import load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.networks import ETHEREUM, typical_fees
from agent.config.networks.presets import Preset, TemplateAsset
from agent.config.writing import portfolio_templates
from agent.config.writing.portfolio_templates import PortfolioTemplate
from agent.config.writing.template import render_config
from agent.errors import ConfigError, Refused
from agent.model import AllocationMethod
from agent.units import format_time, value_text

COIN_BY_TOKEN = {"WETH": "ETH", "WBTC": "BTC", "BTCB": "BTC", "cbBTC": "BTC"}
"""Coins of the sample by the token that stands for each; a depeg of a token is not in its
prices.
"""
ETHER_SYMBOLS = ("WETH", "ETH")
ASSUMED_MARKET = replace(USUAL_MARKET, fee_pips=3_000, gas_price_wei=10**9)
UNTESTABLE_METHODS = (AllocationMethod.MARKET_CAP, AllocationMethod.SIGNAL)
"""Allocators that need data which the sample lacks; their starting weights are tested."""


def packaged_closes(loaded_config: LoadedConfig) -> PriceTable:
    """Return the packaged prices, by the symbols of the config's tokens."""
    return with_token_prices(loaded_config, read_table(sample_files()[0]))


def with_token_prices(loaded_config: LoadedConfig, price_table: PriceTable) -> PriceTable:
    """Return prices of coins with those of the config's tokens that stand for one beside them; a
    token with prices of its own keeps them.
    """
    closes_by_symbol = {
        token.symbol: price_table.closes[:, price_table.symbols.index(COIN_BY_TOKEN[token.symbol])]
        for token in loaded_config.config.portfolio.listed_tokens
        if token.symbol not in price_table.symbols
        and COIN_BY_TOKEN.get(token.symbol) in price_table.symbols
    }
    return _with_prices(price_table, closes_by_symbol)


def _with_prices(
    price_table: PriceTable, closes_by_symbol: Mapping[str, NDArray[np.float64]]
) -> PriceTable:
    """Return the table with further columns."""
    return replace(
        price_table,
        symbols=(*price_table.symbols, *closes_by_symbol),
        closes=np.column_stack([price_table.closes, *closes_by_symbol.values()]),
    )


def network_market(chain_id: int, start_value: Fraction) -> SimulationSettings:
    """Return the assumed market with the gas price and data fee of an ordinary day on a chain, both
    in wei of ether at the preset's dollars per coin, rounded up.
    """
    fees = typical_fees(chain_id)
    ether_per_coin = fees.native_usd / ETHEREUM.fees.native_usd
    gas_wei, data_fee_wei = (
        math.ceil(fee_wei * ether_per_coin)
        for fee_wei in (fees.gas_prices_wei[ORDINARY_DAY_INDEX], fees.data_fee_wei)
    )
    return replace(
        ASSUMED_MARKET, start_value=start_value, gas_price_wei=gas_wei, data_fee_wei=data_fee_wei
    )


def computed_template_result(
    template: PortfolioTemplate,
    preset: Preset,
    coin_prices: PriceTable | None = None,
    basis: str = PAST_BASIS,
) -> PastResultDocument:
    """Return the result of a template as `trimtab init` writes it: of SMALL_MONEY_USD in that for
    small money, of 10,000 in others; on the packaged prices, or on those of `coin_prices` by coin,
    of which `basis` says what they are. Raises ConfigError if these lack an asset.
    """
    token_by_symbol = {token.symbol: token for token in preset.tokens}
    assets = [
        TemplateAsset(
            symbol, token_by_symbol[symbol].address, share_text, token_by_symbol[symbol].feed
        )
        for symbol, share_text in portfolio_templates.template_targets(template, preset)
    ]
    config_text = render_config(
        preset, "0x" + "0" * 39 + "1", assets, (), "USDC", (("RPC", "any"),)
    )
    weights_kind = template.allocator_values.get("kind")
    is_untestable = weights_kind in [method.value for method in UNTESTABLE_METHODS]
    tested_template = replace(template, allocator_values={}) if is_untestable else template
    loaded_config = load_config_text(
        portfolio_templates.apply_template(config_text, tested_template),
        Path("trimtab.toml"),
        "template",
    )
    is_small_money = template.name == portfolio_templates.SMALL_TEMPLATE
    start_value = Fraction(SMALL_MONEY_USD) if is_small_money else ASSUMED_MARKET.start_value
    table = (
        packaged_closes(loaded_config)
        if coin_prices is None
        else with_token_prices(loaded_config, coin_prices)
    )
    return past_result(loaded_config, table, start_value, basis)


def past_result(
    loaded_config: LoadedConfig,
    table: PriceTable,
    start_value: Fraction = ASSUMED_MARKET.start_value,
    basis: str = PAST_BASIS,
) -> PastResultDocument:
    """Return the past result of a config on prices by its symbols with `start_value` coins of the
    numeraire, at the ordinary fees of its chain. Raises ConfigError if the prices lack an asset, or
    the config ether, which pays for gas.
    """
    symbols = [asset.symbol for asset in loaded_config.config.portfolio.assets]
    if missing_symbols := [symbol for symbol in symbols if symbol not in table.symbols]:
        raise ConfigError(
            f"no past result: the prices lack {', '.join(missing_symbols)}",
            "backtest it with your own prices: trimtab backtest --config --prices",
        )
    spec = spec_from_config(loaded_config)
    allocator = spec.portfolio.allocator
    if allocator is not None and allocator.method in UNTESTABLE_METHODS:
        spec = replace(spec, portfolio=replace(spec.portfolio, allocator=None))
    ether_addresses = [token.address for token in spec.tokens if token.symbol in ETHER_SYMBOLS]
    if not ether_addresses:
        raise ConfigError(
            "no past result: the config has no ether, in which gas is counted",
            "backtest it with your own prices: trimtab backtest --config --prices",
        )
    spec = replace(
        spec,
        portfolio=replace(spec.portfolio, wrapped_native=ether_addresses[0]),
        limits=replace(spec.limits, max_live_value=None),
    )
    market = network_market(loaded_config.config.chain.chain_id, start_value)
    simulation = simulate(spec, table, market)
    simulation_document = backtest_document(simulation)
    rebalanced_figures = simulation_document["figures"]["rebalanced"]
    hold_figures = simulation_document["figures"]["held"]
    return {
        "from": format_time(simulation_document["from"])[:10],
        "until": format_time(simulation_document["until"])[:10],
        "value": value_text(start_value, 0, 2),
        "return": simulation_document["twr"][:-2],
        "return_of_holding": simulation_document["hold_twr"][:-2],
        "max_drawdown": rebalanced_figures["max_drawdown"][:-2],
        "max_drawdown_of_holding": hold_figures["max_drawdown"][:-2],
        **_worst_month(simulation),
        "rebalances": simulation_document["rebalances"],
        "costs": f"{float(simulation_document['costs']['total']):.2f}",
        "basis": basis,
    }


def _worst_month(simulation: SimulationResult) -> WorstMonthDocument:
    """Return the calendar month with the lowest return, and what holding returned in it."""
    growth = growth_series(simulation)
    bar_months = [format_time(int(time_s))[:7] for time_s in simulation.times_s]
    month_end_bars = [
        bar_index
        for bar_index, month in enumerate(bar_months)
        if bar_months[bar_index + 1 : bar_index + 2] != [month]
    ]
    worst_return, start_bar, end_bar = min(
        (growth.unit_growth[end_bar] / growth.unit_growth[start_bar] - 1, start_bar, end_bar)
        for start_bar, end_bar in itertools.pairwise([0, *month_end_bars])
    )
    return {
        "worst_month": bar_months[end_bar],
        "worst_month_return": f"{worst_return:.4f}",
        "worst_month_return_of_holding": f"{growth.hold_unit_growth[end_bar] / growth.hold_unit_growth[start_bar] - 1:.4f}",
    }


def past_result_or_reason(loaded_config: LoadedConfig) -> tuple[PastResultDocument | None, str]:
    """Return the past result, or why there is none."""
    try:
        return past_result(loaded_config, packaged_closes(loaded_config)), ""
    except (ConfigError, Refused) as error:
        return None, error.message


def year_results(
    loaded_config: LoadedConfig, prices_path: Path
) -> tuple[list[PastResultDocument], list[str]]:
    """Return the past results of the years (UTC) of a file of prices, oldest first, and why others
    have none. A coin's first price of each day counts. All are in one unit, which the numeraire is
    if the file lacks it. Raises ConfigError as read_table does, and if the numeraire is not that
    unit.
    """
    price_table = with_token_prices(loaded_config, read_table(prices_path))
    numeraire = loaded_config.config.portfolio.numeraire
    require_known_unit(price_table, numeraire, f"use a file with prices of {numeraire} too")
    if numeraire not in price_table.symbols:
        price_table = _with_prices(price_table, {numeraire: np.ones(price_table.bar_count)})
    daily_table = _daily_table(price_table)
    bar_years = daily_table.times_s.astype("datetime64[s]").astype("datetime64[Y]")
    basis = past_basis(f"of {prices_path.name}")
    past_results = []
    reasons = []
    for year in np.unique(bar_years):
        year_mask = bar_years == year
        year_table = replace(
            daily_table,
            times_s=daily_table.times_s[year_mask],
            closes=daily_table.closes[year_mask],
        )
        try:
            _require_daily_prices(loaded_config, year_table, 365 + isleap(int(str(year))))
            past_results.append(past_result(loaded_config, year_table, basis=basis))
        except (ConfigError, Refused) as error:
            reason = error.message.removeprefix("no past result: ")
            reasons.append(f"{year}: no past result: {reason}")
    return past_results, reasons


def _daily_table(price_table: PriceTable) -> PriceTable:
    """Return the first price of each symbol on each day (UTC), at the day's first bar."""
    bar_days = price_table.times_s.astype("datetime64[s]").astype("datetime64[D]")
    all_days, first_bars = np.unique(bar_days, return_index=True)
    daily_closes = np.full((len(all_days), len(price_table.symbols)), np.nan)
    for column_index in range(len(price_table.symbols)):
        priced_bars = np.flatnonzero(~np.isnan(price_table.closes[:, column_index]))
        priced_days, first_indices = np.unique(bar_days[priced_bars], return_index=True)
        day_rows = np.searchsorted(all_days, priced_days)
        daily_closes[day_rows, column_index] = price_table.closes[
            priced_bars[first_indices], column_index
        ]
    return replace(price_table, times_s=price_table.times_s[first_bars], closes=daily_closes)


def _require_daily_prices(loaded_config: LoadedConfig, table: PriceTable, day_count: int) -> None:
    """Raise ConfigError unless each token of the config of which there are prices, hubs too, has
    one on each day of a year.
    """
    priced_counts = np.count_nonzero(~np.isnan(table.closes), axis=0).tolist()
    count_by_symbol = dict(zip(table.symbols, priced_counts, strict=True))
    for symbol in (token.symbol for token in loaded_config.config.portfolio.listed_tokens):
        priced_count = count_by_symbol.get(symbol, day_count)
        if priced_count < day_count:
            raise ConfigError(
                f"no past result: {symbol} has prices on {priced_count} of {day_count} days (UTC)",
                "give a price of each day",
            )
