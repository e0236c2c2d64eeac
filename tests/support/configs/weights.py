"""The template's config with weights that are worked out."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.build import build_portfolio
from agent.config.load import parse_config
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.schema import Config
from agent.config.weights import build_allocator
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from agent.model import AllocatorConfig, Portfolio
from agent.units import Token
from tests.support.configs.samples import USDC_PRESET, WALLET, WETH_PRESET

WBTC = next(token for token in ETHEREUM_PRESET.tokens if token.symbol == "WBTC")
RETURNS = """kind = "hrp"
every = "7d"
window = "90d"
step = "1d"
min_history = "30d"
max_age = "2d"
keep = "14d"
churn = "1%"
until_chosen = "targets"
fixed = ["USDC"]
cap = "45%"
limits = { WETH = { min = "10%", max = "60%" } }
"""
CAPS = """kind = "market_cap"
every = "30d"
max_age = "2d"
keep = "30d"
churn = "0%"
until_chosen = "wait"
fixed = ["USDC"]
supplies = "supplies.csv"
"""


def config_text(weights: str) -> str:
    shares = (("WETH", WETH_PRESET, "40%"), ("WBTC", WBTC, "40%"), ("USDC", USDC_PRESET, "20%"))
    assets = [TemplateAsset(symbol, token.address, share, token.feed) for symbol, token, share in shares]
    config = render_config(ETHEREUM_PRESET, WALLET, assets, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")])
    return config.replace("\n[reference]", f"\n[portfolio.weights]\n{weights}\n[reference]", 1)


def portfolio_of(config: Config) -> Portfolio:
    tokens = (Token(WETH_PRESET.address, "weth", 18), Token(WBTC.address, "wbtc", 8), Token(USDC_PRESET.address, "usdc", 6))
    return build_portfolio(config, {token.address: token for token in tokens})


def allocator_config(weights: str, folder: Path = Path()) -> AllocatorConfig:
    config = parse_config(config_text(weights))
    allocator = build_allocator(config.portfolio.weights, portfolio_of(config), folder, chain_id=config.chain.chain_id)
    assert allocator is not None
    return allocator


def changed(weights: str, *changes: tuple[str, str | None]) -> str:
    """Return the table with other values; None removes a key."""
    lines = weights.splitlines()
    for key, value in changes:
        lines = [line for line in lines if not line.startswith(f"{key} =")]
        lines += [] if value is None else [f"{key} = {value}"]
    return "\n".join(lines)


def mistake(weights: str, *changes: tuple[str, str | None]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text(changed(weights, *changes)))
    return str(caught.value)
