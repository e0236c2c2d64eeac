"""A crash of 40 % and a rally of 60 % in hourly ticks, through whole steps of the agent with every guard and the signer.

The same book without the agent is liquidated (tests/differential/test_perp_orders.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from tests.support import agents
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perps import advance_time, read_now

MARGIN_USD = 10_000
MOST = 4
LIMITS = {
    "max_leverage": f"{MOST}x", "slippage": "1.5%", "emergency_distance": "5%", "emergency_slippage": "5%", "max_basis": "4%",
    "index_age": "2h",
}  # fmt: skip


@pytest.fixture
def perps(perps_chain: LocalPerps) -> Iterator[LocalPerps]:
    chain = perps_chain.chain
    books = perps_chain.chain.deployed_world
    agents.fund(chain, {"WETH": 50_000, "USDC": 50_000 - MARGIN_USD})
    perps_chain.deposit(chain.wallet.address, MARGIN_USD * 10**6)
    perps_chain.deposit(chain.whale.address, 50_000_000 * 10**6)
    yield perps_chain
    chain.deployed_world = books


def path(seed: int) -> Iterator[Fraction]:
    """Hourly prices: a fall of 40 % in 14 hours and a rise of 60 % in 14, with noise."""
    chance = random.Random(seed)
    price = Fraction(3_000)
    for factor in (0.6, 1.6):
        for _ in range(14):
            price *= Fraction(round(factor ** (1 / 14) * (1 + chance.gauss(0, 0.008)) * 10**6), 10**6)
            yield price


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 51))
def test_whole_steps_keep_the_book_through_a_crash_and_a_rally(perps: LocalPerps, tmp_path: Path, seed: int) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    changes = futures_config_changes(perps, {"WETH": "100%"}, "3x", **LIMITS)
    over = 0
    reasons = []
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert read_now(perps, wallet).positions, outcome.reason
        for price in path(seed):
            chain.move_market({"WETH": price}, twap_follows=False)
            chain.node.mine_at(chain.now_s() + 15)
            perps.set_index("WETH", price)
            perps.move_pools({"WETH": price}, lambda seconds: chain.node.mine_at(chain.now_s() + int(seconds)))
            advance_time(perps, 3_600)
            chain.refresh_feeds()
            assert not margin.is_liquidatable(read_now(perps, wallet)), reasons
            outcome = agent.rebalance(send=True, confirm=agents.yes)
            leverage = margin.leverage(read_now(perps, wallet))
            reasons.append(f"{float(price):.0f} {leverage and float(leverage):.2f}x {outcome.kind.value} {outcome.reason}")
            over = over + 1 if leverage is None or leverage > MOST else 0
            assert over <= 1, reasons
