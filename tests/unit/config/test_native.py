"""The native coin in the config: one asset with its wrapped token, and what refills it for gas."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from agent.config.build import build_limits, build_portfolio
from agent.config.load import load_config_text, parse_config
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.schema import Config
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from agent.units import Token
from tests.support.constants import WALLET
from tests.support.text import raises_field

WETH = ETHEREUM_PRESET.tokens[0]
USDC = ETHEREUM_PRESET.tokens[2]
COIN = TemplateAsset("ETH", "native", "60%", WETH.feed, 18)
DOLLAR = TemplateAsset("USDC", USDC.address, "40%", USDC.feed, 6)


def text(*assets: TemplateAsset, hubs: tuple[TemplateAsset, ...] = (), **limits: str) -> str:
    document = tomlkit.parse(render_config(ETHEREUM_PRESET, WALLET, assets, hubs, "USDC", [("A", "one"), ("B", "two")]))
    for name, value in limits.items():
        document["limits"][name] = value  # type: ignore[index]  # tomlkit's tables are typed as items
    return tomlkit.dumps(document)


def config(*assets: TemplateAsset, **limits: str) -> Config:
    return parse_config(text(*assets, **limits))


def test_the_native_coin_is_the_asset_of_its_wrapped_token() -> None:
    loaded = config(COIN, DOLLAR)
    tokens = {WETH.address: Token(WETH.address, "WETH", 18), USDC.address: Token(USDC.address, "USDC", 6)}
    portfolio = build_portfolio(loaded, tokens)
    (coin, dollar) = portfolio.assets
    assert (coin.token, coin.includes_native) == (Token(WETH.address, "ETH", 18), True)
    assert not dollar.includes_native
    assert portfolio.wrapped_native == coin.token.address
    assert build_limits(loaded, portfolio.numeraire).native_top_up_wei == 10**17


@pytest.mark.parametrize("twin", [WETH.address, WETH.address.lower(), "native"])
def test_both_forms_at_once_are_refused_since_they_are_one_asset(twin: str) -> None:
    with raises_field("config", "ETH", "native coin", "WETH"):
        config(COIN, DOLLAR, TemplateAsset("WETH", twin, "0%", WETH.feed, 18))


@pytest.mark.parametrize("twin", [WETH.address, WETH.address.lower()])
def test_wrapped_coin_is_no_hub_beside_the_native_one(twin: str) -> None:
    with raises_field("config", "one asset"):
        parse_config(text(COIN, DOLLAR, hubs=(TemplateAsset("WETH", twin, "0%", WETH.feed, 18),)))


def test_native_coin__is_an_asset_and_its_mark_not_written_by_hand() -> None:
    with raises_field("portfolio.hubs.ETH.address", "native coin"):
        parse_config(
            text(TemplateAsset("WETH", WETH.address, "60%", WETH.feed, 18), DOLLAR, hubs=(TemplateAsset("ETH", "native", "", None),))
        )
    marked: dict[str, Any] = tomllib.loads(text(COIN, DOLLAR))
    marked["portfolio"]["assets"][1]["native"] = True
    with raises_field("portfolio.assets.native", "unknown key", "native"):
        parse_config(tomlkit.dumps(marked))


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"native_top_up": "0.05"}, "not above limits.native_floor"),
        ({"native_top_up": "0.01"}, "not above limits.native_floor"),
        ({"native_floor": "off"}, "not above limits.native_floor"),
    ],
)
def test_gas_money_is_refilled_to_more_than_the_floor(limits: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        config(COIN, DOLLAR, **limits)
    assert config(COIN, DOLLAR, **limits | {"native_top_up": "off"}).limits.native_top_up is None


def test_only_what_is_held_can_be_unwrapped() -> None:
    other = TemplateAsset("WBTC", ETHEREUM_PRESET.tokens[1].address, "60%", None, 8)
    assert config(other, DOLLAR).limits.native_top_up is None, "the template writes off"
    with pytest.raises(ConfigError, match="wrapped native coin is not an asset"):
        config(other, DOLLAR, native_top_up="0.1")


def test_what_is_kept_of_a_config_says_what_its_file_says(tmp_path: Path) -> None:
    written = text(COIN, DOLLAR)
    loaded_config = load_config_text(written, tmp_path / "trimtab.toml", "config")
    assert tomllib.loads(loaded_config.redacted_text)["portfolio"] == tomllib.loads(written)["portfolio"]
