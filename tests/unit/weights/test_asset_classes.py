"""Usual volatilities and correlations of tokens by class, worked out by hand."""

from __future__ import annotations

import pytest

from agent.model import NoTradeZone
from agent.weights.asset_classes import class_correlation_bps, class_volatility_bps
from tests.support.builders import token
from tests.support.decisions.tracking import tracking_step


@pytest.mark.parametrize(
    ("first", "second", "bps"),
    [
        pytest.param("WETH", "WBTC", 6_700, id="ether and bitcoin"),
        pytest.param("WETH", "LINK", 6_700, id="ether and another"),
        pytest.param("LINK", "AAVE", 6_700, id="two others"),
        pytest.param("WETH", "wstETH", 9_500, id="ether and its staked form"),
        pytest.param("WBTC", "cbBTC", 9_500, id="two bitcoins"),
        pytest.param("WETH", "DAI", 0, id="ether and a dollar"),
        pytest.param("USDT", "DAI", 0, id="two dollars"),
    ],
)
def test_correlation__in_a_stable_numeraire(first: str, second: str, bps: int) -> None:
    """67 % between coins, 95 % between tokens of one coin, none with a stable one."""
    assert class_correlation_bps(first, second, "USDC") == class_correlation_bps(second, first, "USDC") == bps


@pytest.mark.parametrize(
    ("first", "second", "bps"),
    [
        pytest.param("WBTC", "USDC", 6_467, id="bitcoin and dollar"),
        pytest.param("WBTC", "LINK", 3_506, id="bitcoin and another"),
        pytest.param("wstETH", "USDC", 1_580, id="staked ether and dollar"),
        pytest.param("wstETH", "WBTC", 2_111, id="staked ether and bitcoin"),
    ],
)
def test_correlation__in_a_coin_is_of_moves_against_it(first: str, second: str, bps: int) -> None:
    """Σᵢⱼ − Σᵢₙ − Σⱼₙ + Σₙₙ with 65 % for ether, 50 % for bitcoin, 90 % for LINK: (0 − 0.217750 − 0 + 0.4225) / (0.4868·0.6503)."""
    assert class_correlation_bps(first, second, "WETH") == class_correlation_bps(second, first, "WETH") == bps


@pytest.mark.parametrize(
    ("symbol", "numeraire", "bps"),
    [
        pytest.param("USDT", "USDC", 200, id="dollar in dollars"),
        pytest.param("WBTC", "USDC", 5_000, id="bitcoin in dollars"),
        pytest.param("WETH", "USDC", 6_500, id="ether in dollars"),
        pytest.param("wstETH", "USDC", 6_500, id="staked ether in dollars"),
        pytest.param("LINK", "USDC", 9_000, id="another in dollars"),
        pytest.param("USDC", "WETH", 6_503, id="dollar in ether"),
        pytest.param("WBTC", "WETH", 4_868, id="bitcoin in ether"),
        pytest.param("wstETH", "WETH", 2_055, id="staked ether in ether"),
        pytest.param("LINK", "WETH", 6_697, id="another in ether"),
    ],
)
def test_volatility__is_that_of_the_price_in_the_numeraire(symbol: str, numeraire: str, bps: int) -> None:
    assert class_volatility_bps(symbol, numeraire) == bps


def test_unconfigured_risk__takes_classes_but_for_the_numeraire() -> None:
    trigger = tracking_step().policy.trigger
    assert isinstance(trigger, NoTradeZone)
    bps_by_pair = {frozenset(pair): bps for *pair, bps in trigger.risk.correlations_bps}
    expected = {("WETH", "WBTC"): 6_700, ("WETH", "LINK"): 6_700, ("WETH", "USDC"): 0, ("LINK", "USDC"): 0}
    assert {pair: bps_by_pair[frozenset(token(symbol).address for symbol in pair)] for pair in expected} == expected
    volatilities = dict(trigger.risk.volatilities_bps)
    assert [volatilities[token(symbol).address] for symbol in ("WETH", "WBTC", "LINK", "USDC")] == [6_500, 5_000, 9_000, 10]
