"""Past result of a basket: its config backtested on the packaged prices of 2021, on a table of
another year, or on each year of a file, for templates, profiles and the dialogue of `trimtab init`.
"""

from __future__ import annotations

import itertools
import math
from calendar import isleap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.app.documents.owner import PastResultDocument, WorstMonthDocument
from agent.app.documents.status import ORDINARY_DAY
from agent.app.research.backtests import (
    MarketOptions,
    sample_files,
    spec_from_config,
)
from agent.app.start.past_results import PAST_BASIS, SMALL_MONEY_USD
from agent.backtest.data import PriceTable, read_table
from agent.backtest.report.series import backtest_document, growth_series
from agent.backtest.result import SimulationResult
from agent.backtest.simulate import simulate
from agent.config.load import load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.networks import ETHEREUM, typical_fees
from agent.config.networks.presets import Preset, TemplateAsset
from agent.config.writing import portfolio_templates
from agent.config.writing.portfolio_templates import PortfolioTemplate
from agent.config.writing.template import render
from agent.errors import ConfigError, Refused
from agent.model import AllocationMethod
from agent.units import format_time

COINS = {"WETH": "ETH", "WBTC": "BTC", "BTCB": "BTC", "cbBTC": "BTC"}
"""Coins of the sample by the token that stands for each; a depeg of a token is not in its prices."""
ETHER_SYMBOLS = ("WETH", "ETH")
ASSUMED_MARKET = MarketOptions(pool_fee="30bps", value="10000", gas="1 gwei")
UNTESTABLE_METHODS = (AllocationMethod.MARKET_CAP, AllocationMethod.SIGNAL)
"""Allocators that need data which the sample lacks; their starting weights are tested."""


def packaged_closes(loaded: LoadedConfig) -> PriceTable:
    """Return the packaged prices, by the symbols of the config's tokens."""
    return closes_by_token(loaded, read_table(sample_files()[0]))


def closes_by_token(loaded: LoadedConfig, closes: PriceTable) -> PriceTable:
    """Return prices of coins with those of the config's tokens that stand for one beside them; a
    token with prices of its own keeps them.
    """
    prices = {
        token.symbol: closes.closes[:, closes.symbols.index(COINS[token.symbol])]
        for token in loaded.config.portfolio.listed
        if token.symbol not in closes.symbols and COINS.get(token.symbol) in closes.symbols
    }
    return _with_prices(closes, prices)


def _with_prices(closes: PriceTable, prices: Mapping[str, NDArray[np.float64]]) -> PriceTable:
    """Return the table with further columns."""
    return replace(
        closes,
        symbols=(*closes.symbols, *prices),
        closes=np.column_stack([closes.closes, *prices.values()]),
    )


def network_market(chain_id: int, value: str) -> MarketOptions:
    """Return the assumed market with the gas price and data fee of an ordinary day on a chain, both
    in wei of ether at the preset's dollars per coin, rounded up.
    """
    fees = typical_fees(chain_id)
    ethers = fees.native_usd / ETHEREUM.fees.native_usd
    gas_wei, data_fee_wei = (
        math.ceil(wei * ethers) for wei in (fees.gas_prices_wei[ORDINARY_DAY], fees.data_fee_wei)
    )
    return replace(
        ASSUMED_MARKET, value=value, gas=f"{gas_wei} wei", data_fee=f"{data_fee_wei} wei"
    )


def computed_template_result(
    template: PortfolioTemplate,
    preset: Preset,
    closes: PriceTable | None = None,
    basis: str = PAST_BASIS,
) -> PastResultDocument:
    """Return the result of a template as `trimtab init` writes it: of SMALL_MONEY_USD in that for
    small money, of 10,000 in others; on the packaged prices, or on `closes` by coin, of which `basis`
    says what they are. Raises ConfigError if these lack an asset.
    """
    tokens = {token.symbol: token for token in preset.tokens}
    assets = [
        TemplateAsset(symbol, tokens[symbol].address, share, tokens[symbol].feed)
        for symbol, share in portfolio_templates.template_targets(template, preset)
    ]
    config_text = render(preset, "0x" + "0" * 39 + "1", assets, (), "USDC", (("RPC", "any"),))
    kind = template.weights.get("kind")
    is_untestable = kind in [method.value for method in UNTESTABLE_METHODS]
    tested_template = replace(template, weights={}) if is_untestable else template
    loaded = load_config_text(
        portfolio_templates.apply_template(config_text, tested_template),
        Path("trimtab.toml"),
        "template",
    )
    is_small = template.name == portfolio_templates.SMALL_MONEY
    value = str(SMALL_MONEY_USD) if is_small else ASSUMED_MARKET.value
    table = packaged_closes(loaded) if closes is None else closes_by_token(loaded, closes)
    return past_result(loaded, table, value, basis)


def past_result(
    loaded: LoadedConfig,
    table: PriceTable,
    value: str = ASSUMED_MARKET.value,
    basis: str = PAST_BASIS,
) -> PastResultDocument:
    """Return the past result of a config on prices by its symbols with `value` coins of the
    numeraire, at the ordinary fees of its chain. Raises ConfigError if the prices lack an asset, or
    the config ether, which pays for gas.
    """
    symbols = [asset.symbol for asset in loaded.config.portfolio.assets]
    if missing_symbols := [symbol for symbol in symbols if symbol not in table.symbols]:
        raise ConfigError(
            f"no past result: the prices lack {', '.join(missing_symbols)}",
            "backtest it with your own prices: trimtab backtest --config --prices",
        )
    spec = spec_from_config(loaded)
    weights = spec.portfolio.weights
    if weights is not None and weights.method in UNTESTABLE_METHODS:
        spec = replace(spec, portfolio=replace(spec.portfolio, weights=None))
    ethers = [token.address for token in spec.tokens if token.symbol in ETHER_SYMBOLS]
    if not ethers:
        raise ConfigError(
            "no past result: the config has no ether, in which gas is counted",
            "backtest it with your own prices: trimtab backtest --config --prices",
        )
    spec = replace(
        spec,
        portfolio=replace(spec.portfolio, wrapped_native=ethers[0]),
        limits=replace(spec.limits, max_live_value=None),
    )
    market = network_market(loaded.config.chain.chain_id, value)
    result = simulate(spec, table, market.settings_for_table(market.settings(), spec, table))
    document = backtest_document(result)
    rebalanced, buy_and_hold = document["figures"]["rebalanced"], document["figures"]["held"]
    return {
        "from": format_time(document["from"])[:10],
        "until": format_time(document["until"])[:10],
        "value": value,
        "return": document["twr"][:-2],
        "return_of_holding": document["hold_twr"][:-2],
        "max_drawdown": rebalanced["max_drawdown"][:-2],
        "max_drawdown_of_holding": buy_and_hold["max_drawdown"][:-2],
        **_worst_month(result),
        "rebalances": document["rebalances"],
        "costs": f"{float(document['costs']['total']):.2f}",
        "basis": basis,
    }


def _worst_month(result: SimulationResult) -> WorstMonthDocument:
    """Return the calendar month with the lowest return, and what holding returned in it."""
    growth = growth_series(result)
    months = [format_time(int(time_s))[:7] for time_s in result.times_s]
    ends = [bar for bar, month in enumerate(months) if months[bar + 1 : bar + 2] != [month]]
    worst, start, end = min(
        (growth.index[end] / growth.index[start] - 1, start, end)
        for start, end in itertools.pairwise([0, *ends])
    )
    return {
        "worst_month": months[end],
        "worst_month_return": f"{worst:.4f}",
        "worst_month_return_of_holding": f"{growth.hold_index[end] / growth.hold_index[start] - 1:.4f}",
    }


def past_result_or_reason(loaded: LoadedConfig) -> tuple[PastResultDocument | None, str]:
    """Return the past result, or why there is none."""
    try:
        return past_result(loaded, packaged_closes(loaded)), ""
    except (ConfigError, Refused) as error:
        return None, error.message


def year_results(loaded: LoadedConfig, file: Path) -> tuple[list[PastResultDocument], list[str]]:
    """Return the past results of the years (UTC) of a file of prices, oldest first, and why others
    have none. A coin's first price of each day counts. All are in one unit, which the numeraire is
    if the file lacks it. Raises ConfigError as read_table does.
    """
    closes = closes_by_token(loaded, read_table(file))
    if (numeraire := loaded.config.portfolio.numeraire) not in closes.symbols:
        closes = _with_prices(closes, {numeraire: np.ones(closes.bar_count)})
    daily = _daily(closes)
    years = daily.times_s.astype("datetime64[s]").astype("datetime64[Y]")
    basis = PAST_BASIS.replace("of 2021", f"of {file.name}")
    results, reasons = [], []
    for year in np.unique(years):
        bars = years == year
        year_table = replace(daily, times_s=daily.times_s[bars], closes=daily.closes[bars])
        try:
            _require_each_day(loaded, year_table, 365 + isleap(int(str(year))))
            results.append(past_result(loaded, year_table, basis=basis))
        except (ConfigError, Refused) as error:
            reason = error.message.removeprefix("no past result: ")
            reasons.append(f"{year}: no past result: {reason}")
    return results, reasons


def _daily(table: PriceTable) -> PriceTable:
    """Return the first price of each symbol on each day (UTC), at the day's first bar."""
    days = table.times_s.astype("datetime64[s]").astype("datetime64[D]")
    all_days, first_bars = np.unique(days, return_index=True)
    closes = np.full((len(all_days), len(table.symbols)), np.nan)
    for column in range(len(table.symbols)):
        priced_bars = np.flatnonzero(~np.isnan(table.closes[:, column]))
        priced_days, indices = np.unique(days[priced_bars], return_index=True)
        rows = np.searchsorted(all_days, priced_days)
        closes[rows, column] = table.closes[priced_bars[indices], column]
    return replace(table, times_s=table.times_s[first_bars], closes=closes)


def _require_each_day(loaded: LoadedConfig, table: PriceTable, day_count: int) -> None:
    """Raise ConfigError unless each token of the config of which there are prices, hubs too, has one
    on each day of a year.
    """
    priced_counts = np.count_nonzero(~np.isnan(table.closes), axis=0).tolist()
    count_by_symbol = dict(zip(table.symbols, priced_counts, strict=True))
    for symbol in (token.symbol for token in loaded.config.portfolio.listed):
        priced_count = count_by_symbol.get(symbol, day_count)
        if priced_count < day_count:
            raise ConfigError(
                f"no past result: {symbol} has prices on {priced_count} of {day_count} days (UTC)",
                "give a price of each day",
            )
