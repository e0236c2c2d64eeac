"""Minimum capital of portfolio templates, by network, from each network's typical fees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

from agent.app.documents.status import ORDINARY_DAY_INDEX, minimum_totals_of_config
from agent.app.start.amounts import NUMERAIRE, with_amounts
from agent.config.load import UNSAVED_REMEDY, parse_config
from agent.config.networks import NETWORKS
from agent.config.networks.presets import ETHEREUM_PRESET, PRESETS, Preset, TemplateAsset
from agent.config.writing.portfolio_templates import (
    PORTFOLIO_TEMPLATES,
    PortfolioTemplate,
    apply_template,
    template_targets,
)
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from agent.reference.checks import is_dollar
from agent.units import parse_bps, value_text

if TYPE_CHECKING:
    from agent.config.schema import Config

PLACEHOLDER_WALLET = "0x" + "0" * 39 + "1"


def minimum_capital(template: PortfolioTemplate, preset: Preset) -> str:
    """Return the minimum total on an ordinary day, in whole coins of the numeraire, rounded up;
    empty if no total works. Raises ConfigError if the network lacks tokens of the template.
    """
    return minimum_capital_of(template_config(template, preset))


def template_config(template: PortfolioTemplate, preset: Preset) -> Config:
    """Return a config of the template, for estimates on that network: its targets, limits and
    policy; all its assets have the address of the first. Raises ConfigError if the network lacks tokens of the template.
    """
    config = _config_on_ethereum(template.name)
    (first_asset, *_) = config.portfolio.assets
    assets = [
        first_asset.model_copy(update={"symbol": symbol, "target": parse_bps(share_text, symbol)})
        for symbol, share_text in template_targets(template, preset)
    ]
    changed_tables = {
        "chain": config.chain.model_copy(update={"chain_id": preset.chain_id}),
        "portfolio": config.portfolio.model_copy(update={"assets": assets}),
    }
    return config.model_copy(update=changed_tables)


def minimum_capital_of(config: Config) -> str:
    """Return the minimum total of a config, as above; empty too if its numeraire is no dollar."""
    numeraire = config.portfolio.numeraire
    if not is_dollar(numeraire):
        return ""
    minimum_totals = minimum_totals_of_config(config, Fraction(1))
    total_text = minimum_totals[ORDINARY_DAY_INDEX]["total"] if minimum_totals else None
    return f"{Decimal(total_text).to_integral_value(ROUND_CEILING):,}" if total_text else ""


def minimum_capitals(template: PortfolioTemplate) -> dict[str, str]:
    """Return the minimum capital of a template by network."""
    return {
        network_name: minimum_capital(template, preset) for network_name, preset in PRESETS.items()
    }


def ordinary_gas_gwei() -> dict[str, str]:
    """Return the gas price of an ordinary day by network."""
    return {
        network.name: value_text(Fraction(network.fees.gas_prices_wei[ORDINARY_DAY_INDEX]), 9, 4)
        for network in NETWORKS
    }


@cache
def _config_on_ethereum(template_name: str) -> Config:
    template = PORTFOLIO_TEMPLATES[template_name]
    return draft_config(template, ETHEREUM_PRESET, template_targets(template, ETHEREUM_PRESET))


def draft_config(
    template: PortfolioTemplate | None,
    preset: Preset,
    targets: Sequence[tuple[str, str]],
    use_cash: str = "",
    max_live_value: str = "",
) -> Config:
    """Return a config with these targets and amounts, without the owner's wallet and endpoints."""
    preset_tokens: Mapping[str, tuple[str, str | None]] = {
        token.symbol: (token.address, token.feed) for token in preset.tokens
    }
    if unknown_symbols := [symbol for symbol, _ in targets if symbol not in preset_tokens]:
        raise ConfigError(
            f"basket: {unknown_symbols[0]} is not a token of this network",
            f"choose from {', '.join(preset_tokens)}",
        )
    assets = [
        TemplateAsset(symbol, preset_tokens[symbol][0], share_text, None)
        for symbol, share_text in targets
    ]
    config_text = render_config(
        preset, PLACEHOLDER_WALLET, assets, (), NUMERAIRE, (("RPC", "any"),)
    )
    if template is not None:
        config_text = apply_template(config_text, template)
    return parse_config(
        with_amounts(config_text, use_cash or None, max_live_value or None),
        "the new config",
        UNSAVED_REMEDY,
    )
