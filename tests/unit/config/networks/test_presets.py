"""Tests of agent/config/networks/presets.py: the limit on deviations of a new config."""

from __future__ import annotations

import pytest

from agent.config.networks.presets import ETHEREUM_PRESET, FEED_THRESHOLDS_BPS, starting_deviation_bps

FEEDS = {known.symbol: known.feed for known in ETHEREUM_PRESET.tokens}


def test_feeds_of_the_preset__have_a_threshold() -> None:
    assert set(FEEDS.values()) - {FEEDS["cbBTC"]} == set(FEED_THRESHOLDS_BPS)


@pytest.mark.parametrize(
    ("feeds", "numeraire_feed", "deviation_bps"),
    [
        pytest.param([FEEDS["WETH"], FEEDS["WBTC"]], FEEDS["USDC"], 100, id="ether and bitcoin"),
        pytest.param([FEEDS["WETH"], FEEDS["LINK"]], FEEDS["USDC"], 100, id="ether and LINK"),
        pytest.param([FEEDS["WETH"], FEEDS["AAVE"]], FEEDS["USDC"], 150, id="ether and AAVE"),
        pytest.param([FEEDS["DAI"]], FEEDS["USDC"], 75, id="dollar"),
        pytest.param([FEEDS["USDC"]], FEEDS["WETH"], 100, id="dollar in ether"),
        pytest.param([FEEDS["WETH"], "0x" + "12" * 20], FEEDS["USDC"], None, id="unknown feed"),
        pytest.param([FEEDS["WETH"]], None, None, id="numeraire without a feed"),
    ],
)
def test_new_config_s_limit__follows_its_feeds_thresholds(feeds: list[str], numeraire_feed: str | None, deviation_bps: int | None) -> None:
    assert starting_deviation_bps(feeds, numeraire_feed) == deviation_bps
