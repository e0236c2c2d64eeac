"""A reduction that is due beside what stops other trades: whole steps on the deployed contracts, from guards to the filled order."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.positions.orders import LimitOrderRequest, swap_at_limit
from agent.execution.step_context import StepOutcome
from agent.layers.futures.state import FuturesState
from agent.localchain.perpetuals import LocalPerps
from agent.model import ExecutionState, IntentKind
from agent.ports.perpetuals import futures_grant
from tests.support import agents
from tests.support.futures import futures_config_changes
from tests.support.perpetuals.chain_faults import (
    LONG,
    MOST,
    leverage,
    leverage_at_index,
    move_price,
    open_position,
    orders,
    perps,
    push_pool,
    size,
    value_at_index,
)
from tests.support.perps import WAD, advance_time
from tests.support.samples import slow

__all__ = ["perps"]
THREE = {"WETH": "40%", "USDC": "40%", "WBTC": "20%"}


def fallen(perps: LocalPerps, share: Fraction, spot_follows: bool = True) -> int:
    """A WETH book that a fall brings above its leverage limit; its size. Without `spot_follows` the pools of spot stay where they were."""
    open_position(perps, "WETH", Fraction(26, 10))
    move_price(perps, "WETH", share)
    if spot_follows:
        perps.chain.move_market({"WETH": perps.chain.deployed_world.prices_usd["WETH"]})
        advance_time(perps, 60)
    perps.chain.refresh_feeds()
    assert leverage(perps) > MOST
    return size(perps, "WETH")


def is_emergency(agent: Agent, outcome: StepOutcome) -> bool:
    """Whether the first order of the step was granted as an emergency."""
    first, *_ = [intent for intent in outcome.transactions if intent.kind is IntentKind.FUTURES]
    grant = futures_grant(agent.context.store.journal.grant(first.id))
    assert grant is not None
    return grant.is_emergency


# --- Faults of the spot side.


def nothing(perps: LocalPerps, agent: Agent) -> None:
    """The fall itself is the fault: the mean of the pools is behind its feed."""


def depegged(perps: LocalPerps, agent: Agent) -> None:
    perps.chain.send(perps.chain.feed_contract("USDC").functions.push(90 * 10**6))


def code_changed(perps: LocalPerps, agent: Agent) -> None:
    """The token works as before; its code is not the pinned one."""
    node = perps.chain.node
    address = perps.chain.tokens["WBTC"].address
    node.rpc("anvil_setCode", address, node.rpc("eth_getCode", address, "latest") + "00")  # type: ignore[attr-defined]  # always anvil here


def mute_feed(perps: LocalPerps, agent: Agent) -> None:
    perps.chain.node.rpc("anvil_setCode", perps.chain.feed_addresses["WBTC"], "0xfe")  # type: ignore[attr-defined]  # the same


def order_waits(perps: LocalPerps, agent: Agent) -> None:
    """An open limit order whose price is far away."""
    swap_at_limit(agent, LimitOrderRequest("WETH", "USDC", "0.05", "9000", "4h", False), send=True, confirm=agents.yes, progress=str)
    assert [order.state for order in agent.context.store.executions.limit_orders()] == [ExecutionState.OPEN]


Fault = Callable[[LocalPerps, Agent], None]
FAULTS: dict[str, tuple[Fault, str]] = {
    "mean behind its feed": (nothing, "off its feed"),
    "depeg": (depegged, "peg"),
    "quarantine": (code_changed, "quarantine"),
    "mute feed": (mute_feed, "feed of WBTC was not read"),
    "limit order": (order_waits, ""),
}
"""What happens to the spot side, and words by which the step tells of it."""
EMERGENCY = Fraction(-30, 100)
LIMIT = Fraction(-20, 100)


@pytest.mark.parametrize(
    ("fall", "name"),
    [
        *(pytest.param(EMERGENCY, name, id=f"emergency-{name}") for name in FAULTS),
        *(pytest.param(LIMIT, name, id=f"limit-{name}", marks=pytest.mark.slow) for name in FAULTS),
    ],
)
def test_reduction__beside_a_fault_of_spot__is_sent(perps: LocalPerps, tmp_path: Path, fall: Fraction, name: str) -> None:
    fault, words = FAULTS[name]
    chain = perps.chain
    agents.fund(chain, {"WETH": 40_000, "USDC": 40_000, "WBTC": 20_000})
    before = fallen(perps, fall, spot_follows=fault is not nothing)
    changes = futures_config_changes(perps, LONG, emergency_distance="8%", spot_multiple="10x")
    with agents.agent_on(chain, tmp_path, changes, THREE) as agent:
        fault(perps, agent)
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert orders(outcome), outcome.reason
        assert is_emergency(agent, outcome) is (fall == EMERGENCY)
    assert words in outcome.reason
    assert 0 < size(perps, "WETH") < before
    assert leverage(perps) <= MOST, outcome.reason


# --- Limits of the futures layer itself.


def test_emergency__above_the_day_s_budget__closes_more_than_it(perps: LocalPerps, tmp_path: Path) -> None:
    """The mark alone is near liquidation, 8 % below an index at which no limit is broken."""
    open_position(perps, "WETH", Fraction(29, 10))
    before = size(perps, "WETH")
    push_pool(perps, "WETH", Fraction(-8, 100))
    advance_time(perps, 1_900)
    perps.chain.refresh_feeds()
    assert leverage_at_index(perps) <= MOST
    worth = value_at_index(perps)
    changes = futures_config_changes(perps, LONG, emergency_distance="26%", emergency_slippage="10%", max_reduction_per_day="1%")
    with agents.agent_on(perps.chain, tmp_path, changes, THREE) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert orders(outcome), outcome.reason
        assert is_emergency(agent, outcome)
    closed = Fraction(before - size(perps, "WETH"), WAD) * perps.chain.deployed_world.prices_usd["WETH"]
    assert closed > worth / 100, outcome.reason


@pytest.mark.parametrize("fall", [Fraction(-28, 100), *slow([Fraction(-20, 100)])])
def test_reduction__within_the_cooldown_of_an_emergency__is_sent(perps: LocalPerps, tmp_path: Path, fall: Fraction) -> None:
    fallen(perps, EMERGENCY)
    changes = futures_config_changes(perps, LONG, emergency_distance="8%", emergency_cooldown="1d")
    with agents.agent_on(perps.chain, tmp_path, changes, THREE) as agent:
        first = agent.rebalance(send=True, confirm=agents.yes)
        assert is_emergency(agent, first), first.reason
        before = size(perps, "WETH")
        move_price(perps, "WETH", fall)
        perps.chain.refresh_feeds()
        last_s = agent.context.store.budgets.history(perps.chain.now_s()).layer(FuturesState).last_emergency_s
        assert last_s is not None
        assert perps.chain.now_s() - last_s < 86_400
        assert leverage(perps) > MOST
        second = agent.rebalance(send=True, confirm=agents.yes)
        assert orders(second), second.reason
        assert is_emergency(agent, second) is (fall == Fraction(-28, 100))
    assert 0 < size(perps, "WETH") < before
    assert leverage(perps) <= MOST, second.reason
