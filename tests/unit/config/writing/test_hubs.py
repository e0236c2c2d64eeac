"""Hubs of a config whose assets change: gas keeps its price, and a token its keys."""

from __future__ import annotations

import tomllib

import pytest

from agent.config.load import parse_config
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.config.writing.edits import ConfigChanges, apply_changes
from tests.support.configs import weights

TOP_UP_OFF = (("limits.native_top_up", "off"), ("limits.native_floor", "off"))
WETH = ETHEREUM_PRESET.wrapped_native
TEXT = weights.config_text("").replace("[portfolio.weights]", "")
AGED = TEXT.replace('feed_max_age = "2h"', 'feed_max_age = "70m"', 1).replace("# decimals = 18", "decimals = 18", 1)
REMOVAL = ConfigChanges(removed_symbols=("WETH",), targets=(("WBTC", "80%"),), key_settings=TOP_UP_OFF[:1])


def hubs(text: str) -> list[dict[str, object]]:
    """Return the tables of the hubs."""
    return tomllib.loads(text)["portfolio"].get("hubs", [])


@pytest.mark.parametrize("address", [pytest.param(WETH, id="wrapped"), pytest.param("native", id="native")])
def test_removed_native_coin__becomes_the_hub_that_prices_gas(address: str) -> None:
    symbol = "ETH" if address == "native" else "WETH"
    text = AGED.replace(f'"{WETH}"', f'"{address}"').replace('symbol = "WETH"', f'symbol = "{symbol}"')
    text = text.replace('wrapped_native = "native"', f'wrapped_native = "{WETH}"')
    removal = ConfigChanges(removed_symbols=(symbol,), targets=REMOVAL.targets, key_settings=REMOVAL.key_settings)
    removed = apply_changes(text, removal)
    (hub,) = hubs(removed)
    assert (hub["symbol"], hub["address"], hub["feed_max_age"]) == ("WETH", WETH, "70m")
    assert [hub.symbol for hub in parse_config(removed).portfolio.hubs] == ["WETH"]


def test_removed_other_asset__is_no_hub() -> None:
    changes = ConfigChanges(removed_symbols=("WBTC",), targets=(("WETH", "80%"),))
    assert hubs(apply_changes(AGED, changes)) == []


def test_hub_that_is_added__is_an_asset_with_its_keys() -> None:
    added = apply_changes(apply_changes(AGED, REMOVAL), ConfigChanges(added_assets=(("WETH", WETH, "40%"),), targets=(("WBTC", "40%"),)))
    assert hubs(added) == []
    config = parse_config(added)
    assert {asset.symbol: asset.feed_max_age for asset in config.portfolio.assets}["WETH"] == 4_200


LINK = next(token for token in ETHEREUM_PRESET.tokens if token.symbol == "LINK")


@pytest.mark.parametrize(
    ("hub_lines", "feed", "max_age"),
    [
        pytest.param(f'feed = "0x{"1" * 40}"\n', "0x" + "1" * 40, None, id="own feed"),
        pytest.param(f'feed = "0x{"1" * 40}"\nfeed_max_age = "70m"\n', "0x" + "1" * 40, "70m", id="own feed and age"),
        pytest.param('feed_max_age = "70m"\n', LINK.feed, "70m", id="own age"),
        pytest.param("", LINK.feed, "2h", id="known feed"),
    ],
)
def test_known_hub_that_is_added__has_the_age_of_its_feed(hub_lines: str, feed: str, max_age: str | None) -> None:
    text = f'{TEXT}\n[[portfolio.hubs]]\nsymbol = "LINK"\naddress = "{LINK.address}"\n{hub_lines}'
    added = apply_changes(text, ConfigChanges(added_assets=(("LINK", LINK.address, "10%"),), targets=(("WBTC", "30%"),)))
    (asset,) = [asset for asset in tomllib.loads(added)["portfolio"]["assets"] if asset["symbol"] == "LINK"]
    assert (asset["feed"], asset.get("feed_max_age")) == (feed, max_age)


def test_native_coin_that_is_added__has_the_feed_of_its_wrapped_coin() -> None:
    text = apply_changes(AGED, REMOVAL)
    added = apply_changes(text, ConfigChanges(added_assets=(("ETH", "native", "40%"),), targets=(("WBTC", "40%"),)))
    feeds = {asset.symbol: asset.feed for asset in parse_config(added).portfolio.assets}
    assert feeds["ETH"] == next(token.feed for token in ETHEREUM_PRESET.tokens if token.address == WETH)
