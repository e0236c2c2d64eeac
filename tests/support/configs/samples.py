"""The template's config, and pieces of it replaced."""

from __future__ import annotations

import pytest

from agent.config.load import parse_config
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from agent.units import Token
from tests.support.bands import with_bands
from tests.support.constants import WALLET

WETH_PRESET = ETHEREUM_PRESET.tokens[0]
USDC_PRESET = ETHEREUM_PRESET.tokens[2]


def config_text(*changes: tuple[str, str]) -> str:
    """The template's config with pieces replaced."""
    assets = [
        TemplateAsset("WETH", WETH_PRESET.address, "50%", WETH_PRESET.feed),
        TemplateAsset("USDC", USDC_PRESET.address, "50%", USDC_PRESET.feed),
    ]
    config = with_bands(render_config(ETHEREUM_PRESET, WALLET, assets, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")]))
    for old, new in changes:
        assert old in config, old
        config = config.replace(old, new, 1)
    return config


def without_v3(config: str) -> str:
    """The config without its Uniswap V3 deployment."""
    start = config.index('[[venues]]\nkind = "uniswap_v3"')
    return config[:start] + config[config.index("\n[policy]", start) :]


def config_error(*changes: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text(*changes))
    return str(caught.value)


def tokens() -> dict[str, Token]:
    return {WETH_PRESET.address: Token(WETH_PRESET.address, "weth", 18), USDC_PRESET.address: Token(USDC_PRESET.address, "usdc", 6)}
