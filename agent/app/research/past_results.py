"""Past result of a basket: its config backtested on the packaged prices of 2021, for templates,
profiles and the dialogue of `trimtab init`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent.app.documents.owner import PastResultDocument
from agent.app.documents.status import ORDINARY_DAY
from agent.app.research.backtests import (
    MarketOptions,
    rename_symbols,
    sample_files,
    spec_from_config,
)
from agent.app.start.past_results import PAST_BASIS, SMALL_MONEY_BASIS, SMALL_MONEY_USD
from agent.backtest.data import read_table
from agent.backtest.report.series import backtest_document
from agent.backtest.simulate import simulate
from agent.config.load import load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.networks import Network
from agent.config.networks.presets import ETHEREUM, PRESETS, Preset, TemplateAsset
from agent.config.writing import portfolio_templates
from agent.config.writing.portfolio_templates import PortfolioTemplate
from agent.config.writing.template import render
from agent.errors import ConfigError, Refused
from agent.model import AllocationMethod
from agent.units import format_time

WRAPPED_SYMBOLS = {"ETH": "WETH", "BTC": "WBTC"}
"""Wrapped coins by the sample's symbols; a depeg of a wrapped coin is not in its prices."""
ASSUMED_MARKET = MarketOptions(pool_fee="30bps", value="10000", gas="1 gwei")
UNTESTABLE_METHODS = (AllocationMethod.MARKET_CAP, AllocationMethod.SIGNAL)
"""Allocators that need data which the sample lacks; their starting weights are tested."""


def computed_small_result(network: Network) -> PastResultDocument:
    """Return the result of SMALL_MONEY_USD in the template for small money at a network's typical
    fees. Raises ConfigError.
    """
    fees = network.fees
    market = replace(
        ASSUMED_MARKET,
        value=str(SMALL_MONEY_USD),
        gas=f"{fees.gas_prices_wei[ORDINARY_DAY]} wei",
        data_fee=f"{fees.data_fee_wei} wei",
    )
    template = portfolio_templates.find_template(portfolio_templates.SMALL_MONEY)
    return computed_template_result(template, PRESETS[network.name], market)


def computed_template_result(
    template: PortfolioTemplate, preset: Preset = ETHEREUM, market: MarketOptions = ASSUMED_MARKET
) -> PastResultDocument:
    """Return the result of a template as `trimtab init` writes it. Raises ConfigError."""
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
    return past_result(loaded, market)


def past_result(loaded: LoadedConfig, market: MarketOptions = ASSUMED_MARKET) -> PastResultDocument:
    """Return the past result of a config. Raises ConfigError if the sample lacks an asset."""
    symbols = [asset.symbol for asset in loaded.config.portfolio.assets]
    listed_symbols = {token.symbol for token in loaded.config.portfolio.listed}
    wrapped_symbols = {
        coin: wrapped for coin, wrapped in WRAPPED_SYMBOLS.items() if wrapped in listed_symbols
    }
    table = rename_symbols(read_table(sample_files()[0]), wrapped_symbols)
    if missing_symbols := [symbol for symbol in symbols if symbol not in table.symbols]:
        raise ConfigError(
            f"no past result: the packaged prices lack {', '.join(missing_symbols)}",
            "backtest it with your own prices: trimtab backtest --config --prices",
        )
    spec = spec_from_config(loaded)
    weights = spec.portfolio.weights
    if weights is not None and weights.method in UNTESTABLE_METHODS:
        spec = replace(spec, portfolio=replace(spec.portfolio, weights=None))
    spec = replace(spec, limits=replace(spec.limits, max_live_value=None))
    settings = market.settings_for_table(market.settings(), spec, table)
    document = backtest_document(simulate(spec, table, settings))
    rebalanced, buy_and_hold = document["figures"]["rebalanced"], document["figures"]["held"]
    return {
        "from": format_time(document["from"])[:10],
        "until": format_time(document["until"])[:10],
        "return": document["twr"][:-2],
        "return_of_holding": document["hold_twr"][:-2],
        "max_drawdown": rebalanced["max_drawdown"][:-2],
        "max_drawdown_of_holding": buy_and_hold["max_drawdown"][:-2],
        "rebalances": document["rebalances"],
        "costs": f"{float(document['costs']['total']):.2f}",
        "basis": PAST_BASIS if market is ASSUMED_MARKET else SMALL_MONEY_BASIS,
    }


def past_result_or_reason(loaded: LoadedConfig) -> tuple[PastResultDocument | None, str]:
    """Return the past result, or why there is none."""
    try:
        return past_result(loaded), ""
    except (ConfigError, Refused) as error:
        return None, error.message
