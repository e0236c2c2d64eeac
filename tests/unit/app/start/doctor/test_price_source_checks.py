"""Whose feed a feed is, by its description and the token's symbol."""

from __future__ import annotations

import pytest

from agent.app.start.doctor.price_source_checks import is_base_of


@pytest.mark.parametrize(
    ("base", "label"),
    [
        ("ETH", "WETH"),
        ("eth", "weth"),
        ("BTC", "cbBTC"),
        ("BTC", "WBTC.e"),
        ("USDC", "USDC.e"),
        ("USDT", "USDT0"),
        ("LINK", "LINK"),
        ("wstETH", "wstETH"),
    ],
    ids=["wrapped", "small letters", "custodian", "bridged and wrapped", "bridged", "omnichain", "itself", "staked itself"],
)
def test_feed_of_the_coin_itself__fits(base: str, label: str) -> None:
    assert is_base_of(base, label)


@pytest.mark.parametrize(
    ("base", "label"),
    [("ETH", "wstETH"), ("ETH", "rETH"), ("ETH", "cbETH"), ("stETH", "wstETH"), ("BTC", "LBTC"), ("SDC", "USDC"), ("?", "?")],
    ids=["staked", "staked, of another pool", "staked at an exchange", "wrapped share", "staked bitcoin", "end of its name", "no symbol"],
)
def test_feed_of_another_coin__does_not_fit(base: str, label: str) -> None:
    assert not is_base_of(base, label)
