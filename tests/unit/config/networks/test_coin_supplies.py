"""Supplies in the package: of the coin, not of what is wrapped; dated, with a source, and valid for a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.config.networks import NETWORKS
from agent.config.networks.coin_supplies import COIN_SUPPLIES, package_supplies
from agent.errors import ConfigError
from agent.model import AllocationMethod, StepInput
from agent.units import Token, pluralize
from tests.support.builders import NOW_S, token
from tests.support.constants import DAY_S
from tests.support.decisions.chosen_weights import SUPPLIES, chosen_of, hold_reason
from tests.support.planning_worlds import allocator, moves, recorded, weighed
from tests.support.text import mentions

NETWORK_BY_NAME = {network.name: network for network in NETWORKS}
MOST_YEARLY_ISSUANCE = {"BTC": 0.009, "ETH": 0.011, "POL": 0.021, "AAVE": 0.015}
"""Largest growth of a supply in a year, as a share, by the rules of the coin."""


def tokens_of(network: str, *symbols: str) -> list[Token]:
    return [Token(listed.address, listed.symbol, listed.decimals) for listed in NETWORK_BY_NAME[network].tokens if listed.symbol in symbols]


def supplies_of(network: str, *symbols: str) -> dict[str, int]:
    """Return the listed supplies in whole coins, by symbol."""
    tokens = tokens_of(network, *symbols)
    token_by_address = {listed.address: listed for listed in tokens}
    supplies = package_supplies(tokens, NETWORK_BY_NAME[network].wrapped_native, NETWORK_BY_NAME[network].chain_id)
    return {token_by_address[supply.token].symbol: supply.raw // 10 ** token_by_address[supply.token].decimals for supply in supplies}


@pytest.mark.parametrize(
    ("network", "symbols", "coins"),
    [
        pytest.param("ethereum", ("WETH", "WBTC", "LINK"), {"WETH": 120_700_000, "WBTC": 19_950_000}, id="Ethereum"),
        pytest.param("base", ("WETH", "cbBTC", "AERO"), {"WETH": 120_700_000, "cbBTC": 19_950_000}, id="Base"),
        pytest.param("bnb", ("ETH", "BTCB", "AAVE"), {"ETH": 120_700_000, "BTCB": 19_950_000, "AAVE": 15_330_000}, id="BNB chain"),
        pytest.param("polygon", ("WPOL", "WETH"), {"WPOL": 10_534_582_487, "WETH": 120_700_000}, id="Polygon"),
    ],
)
def test_a_token_has_the_supply_of_its_coin(network: str, symbols: tuple[str, ...], coins: dict[str, int]) -> None:
    assert supplies_of(network, *symbols) == coins


def test_a_token_of_the_same_address_on_another_chain_is_unknown() -> None:
    (weth,) = tokens_of("base", "WETH")
    assert package_supplies([weth], "0x", NETWORK_BY_NAME["polygon"].chain_id) == []
    assert package_supplies([weth], "0x", NETWORK_BY_NAME["optimism"].chain_id) != [], "the same contract by design"


@pytest.mark.parametrize("network", ["ethereum", "base", "arbitrum"])
def test_two_tokens_of_one_coin_are_refused(network: str) -> None:
    with pytest.raises(ConfigError, match="are both BTC"):
        supplies_of(network, "WBTC", "cbBTC")


def test_a_wrapped_native_coin_that_is_not_listed_is_refused() -> None:
    with pytest.raises(ConfigError, match="no supply of WBNB"):
        supplies_of("bnb", "WBNB", "ETH")


@pytest.mark.parametrize("coin", COIN_SUPPLIES)
def test_figure__is_valid_while_off_by_a_twentieth_at_most(coin: str) -> None:
    supply = COIN_SUPPLIES[coin]
    assert (1 + MOST_YEARLY_ISSUANCE[coin]) ** supply.valid_years <= 1.05


def step_with_supply_of(age_s: int) -> StepInput:
    """Return a step whose supply of WBTC, from the package, is so old."""
    (listed,) = tokens_of("ethereum", "WBTC")
    (supply,) = package_supplies([listed], "0x", 1)
    assert datetime.fromtimestamp(supply.as_of_s, UTC).date() == COIN_SUPPLIES["BTC"].as_of
    as_of_s = NOW_S - age_s
    moved = replace(supply, token=token("WBTC").address, as_of_s=as_of_s, valid_until_s=as_of_s + supply.valid_until_s - supply.as_of_s)
    return weighed(allocator(AllocationMethod.MARKET_CAP, supplies=(moved,)), recorded(moves()), supplies=SUPPLIES)


@pytest.mark.parametrize("years", [0, 2.9])
def test_weights__say_source_and_age_of_a_supply(years: float) -> None:
    age_s = int(years * 365 * DAY_S)
    sample_text = chosen_of(step_with_supply_of(age_s)).sample_text
    assert mentions(sample_text, "WBTC by mexc.us of 2025-11-21", f", {pluralize(age_s // DAY_S, 'day')} old")


def test_weights__hold_after_the_time_of_a_supply() -> None:
    assert mentions(hold_reason(step_with_supply_of(int(3.1 * 365 * DAY_S))), "WBTC", "days old")
