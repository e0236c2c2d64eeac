"""Venues of futures from the config of another portfolio: what it lacks is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.writing.futures_template import read_venue
from agent.errors import ConfigError


@pytest.mark.parametrize(
    ("markets", "text"),
    [
        ('[{ leverage = "2x" }]', "{'leverage': '2x'} has no symbol"),
        ('[{ symbol = "" }]', "{'symbol': ''} has no symbol"),
        ('["ETH"]', "ETH has no symbol"),
        ("5", "5 has no symbol"),
        ('{ symbol = 5, asset = "" }', "{'symbol': 5, 'asset': ''} has no symbol"),
    ],
)
def test_market_without_a_symbol_is_named(markets: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(f'[chain]\n[futures]\nvenue = "hyperliquid"\nmarkets = {markets}\n')
    with pytest.raises(ConfigError) as error:
        read_venue(path)
    assert str(error.value) == f'--futures-venue {path}: futures.markets: {text} (write for example symbol = "ETH")'


@pytest.mark.parametrize("market", ['{ asset = "WETH", symbol = "ETH" }', '{ symbol = "ETH" }', '{ asset = "ETH" }'])
def test_market_is_read_by_its_asset_or_its_symbol(market: str, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    text = f'[chain]\n[futures]\nvenue = "hyperliquid"\nurl = "http://127.0.0.1:1"\nnetwork = "testnet"\nmarkets = [{market}]\n'
    path.write_text(text)
    assert list(read_venue(path).markets.items()) == [("WETH" if "WETH" in market else "ETH", "ETH")]
