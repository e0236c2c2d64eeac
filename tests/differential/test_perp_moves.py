"""Virtual pools that the local chain moves: as far as asked, within the venue's limit of ticks."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.localchain.perpetuals import LocalPerps
from agent.margin.account import wad_of_sqrt_x96
from tests.support.perps import WAD


@pytest.mark.parametrize(("weth", "wbtc"), [("0.8", "1.3"), ("1.3", "0.7"), ("1", "1.01")])
def test_pools_move_as_far_as_asked(perps_chain: LocalPerps, weth: str, wbtc: str) -> None:
    perps = perps_chain
    usd = perps.chain.deployed_world.prices_usd
    usd_by_symbol = {"WETH": usd["WETH"] * Fraction(weth), "WBTC": usd["WBTC"] * Fraction(wbtc)}
    for symbol, price in usd_by_symbol.items():
        perps.set_index(symbol, price)
    perps.move_pools(usd_by_symbol, perps.chain.clock.sleep)
    for symbol, price in usd_by_symbol.items():
        assert market_price(perps, symbol) == pytest.approx(float(price), rel=1e-9)


def market_price(perps: LocalPerps, symbol: str) -> float:
    """Price of a virtual pool at this moment."""
    return wad_of_sqrt_x96(perps.exchange.functions.getSqrtMarketTwapX96(perps.markets[symbol].base_token, 0).call()) / WAD
