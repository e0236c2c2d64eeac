"""Futures of a local chain whose prices move apart from their pools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.execution.step_context import StepOutcome
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model import IntentKind
from tests.support import agents
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perps import WAD, read_now

LONG = {"WETH": "100%"}
BOTH = {"WETH": "60%", "WBTC": "-40%"}
MARGIN_USD = 10_000
MOST = 3
"""Leverage limit of the config."""


@pytest.fixture
def perps(perps_chain: LocalPerps) -> Iterator[LocalPerps]:
    """A wallet on its spot targets with margin, and a whale that moves pools."""
    chain = perps_chain.chain
    books = perps_chain.chain.deployed_world
    agents.fund(chain, {"WETH": 50_000, "USDC": 50_000})
    perps_chain.deposit(chain.wallet.address, MARGIN_USD * 10**6)
    perps_chain.deposit(chain.whale.address, 20_000_000 * 10**6)
    yield perps_chain
    chain.deployed_world = books


def open_position(perps: LocalPerps, symbol: str, multiple: Fraction | int) -> None:
    """The wallet takes a position of so much leverage; the whale puts the pool back."""
    size = int(Fraction(multiple) * MARGIN_USD / perps.chain.deployed_world.prices_usd[symbol] * WAD)
    perps.trade(perps.chain.wallet.address, symbol, size)
    perps.trade(perps.chain.whale.address, symbol, -size)


def move_price(perps: LocalPerps, symbol: str, share: Fraction) -> None:
    """Index and pool go to another price, and stay there for half an hour."""
    chain = perps.chain
    books = perps.chain.deployed_world
    price = books.prices_usd[symbol] * (1 + share)
    chain.deployed_world = replace(books, prices_usd={**books.prices_usd, symbol: price})
    chain.node.mine_at(chain.now_s() + 15)
    perps.set_index(symbol, price)
    perps.move_pools({symbol: price}, lambda seconds: chain.node.mine_at(chain.now_s() + int(seconds)))
    chain.node.mine_at(chain.now_s() + 2_000)
    perps.set_index(symbol, price)


def step(perps: LocalPerps, folder: Path, weights: dict[str, str], send: bool = True, **limits: str) -> StepOutcome:
    with agents.agent_on(perps.chain, folder, futures_config_changes(perps, weights, **limits), EVEN) as agent:
        return agent.rebalance(send=send, confirm=agents.yes)


def orders(outcome: StepOutcome) -> list[IntentKind]:
    return [intent.kind for intent in outcome.transactions if intent.kind is IntentKind.FUTURES]


def leverage(perps: LocalPerps) -> Fraction:
    ratio = margin.leverage(read_now(perps, perps.chain.wallet.address))
    assert ratio is not None
    return ratio


def size(perps: LocalPerps, symbol: str) -> int:
    return read_now(perps, perps.chain.wallet.address).size_raw(perps.markets[symbol].base_token)


def push_pool(perps: LocalPerps, symbol: str, share: Fraction) -> None:
    """The pool goes away from its index, which stands still and is fresh."""
    chain = perps.chain
    price = chain.deployed_world.prices_usd[symbol] * (1 + share)
    perps.move_pools({symbol: price}, lambda seconds: chain.node.mine_at(chain.now_s() + int(seconds)))


def value_at_index(perps: LocalPerps) -> Fraction:
    """The account's value in dollars at index prices, which no trade moves."""
    account = read_now(perps, perps.chain.wallet.address)
    return Fraction(margin.account_value_raw(margin.with_index_marks(account)), 10**18)


def leverage_at_index(perps: LocalPerps) -> Fraction:
    ratio = margin.leverage(margin.with_index_marks(read_now(perps, perps.chain.wallet.address)))
    assert ratio is not None
    return ratio
