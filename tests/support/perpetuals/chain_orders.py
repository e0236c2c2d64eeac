"""Futures of a local chain whose orders fill at once."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.execution.step_context import StepOutcome
from agent.localchain.perpetuals import LocalPerps
from agent.margin.account import wad_of_sqrt_x96
from agent.model import IntentKind
from tests.support import agents
from tests.support.perps import WAD

TWO = {"WETH": "60%", "WBTC": "-40%"}


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    """A wallet on its spot targets, with 10,000 of margin."""
    agents.fund(perps_chain.chain, {"WETH": 50_000, "USDC": 50_000})
    perps_chain.deposit(perps_chain.chain.wallet.address, 10_000 * 10**6)
    return perps_chain


def kinds(outcome: StepOutcome) -> list[IntentKind]:
    return [intent.kind for intent in outcome.transactions]


def orders_of(outcome: StepOutcome) -> list[IntentKind]:
    return [kind for kind in kinds(outcome) if kind is IntentKind.FUTURES]


def open_by_hand(perps: LocalPerps, sizes: dict[str, int]) -> None:
    """The wallet trades by hand."""
    for symbol, size in sizes.items():
        perps.trade(perps.chain.wallet.address, symbol, size)


def pool_price(perps: LocalPerps, symbol: str) -> Fraction:
    """Price of the market's pool now."""
    base = perps.markets[symbol].base_token
    return Fraction(wad_of_sqrt_x96(perps.exchange.functions.getSqrtMarketTwapX96(base, 0).call()), WAD)


def crash(perps: LocalPerps, symbol: str, share: Fraction) -> None:
    """The index falls, the whale sells until the pool follows, and half an hour passes."""
    chain = perps.chain
    whale = perps.chain.whale.address
    price = chain.deployed_world.prices_usd[symbol] * (1 - share)
    perps.deposit(whale, 5_000_000 * 10**6)
    chain.node.mine_at(chain.now_s() + 30)
    perps.set_index(symbol, price)
    for _ in range(60):
        if pool_price(perps, symbol) <= price * Fraction(1_005, 1_000):
            break
        chain.node.mine_at(chain.now_s() + 30)
        perps.trade(whale, symbol, -10 * WAD)
    chain.node.mine_at(chain.now_s() + 2_000)
    perps.set_index(symbol, price)
