"""Withdrawals in parts."""

from __future__ import annotations

from agent.app.agent import Agent
from agent.execution.step_context import StepOutcome
from agent.localchain import LocalChain
from tests.support.agents import yes
from tests.support.on_chain.withdrawing import OPEN

LARGE = {"WETH": 2_500_000, "WBTC": 1_000_000, "USDC": 1_500_000}
PARTS = {
    **OPEN,
    "limits.first_purchase": "10m",
    "limits.price_impact": "10bps",
    "limits.payout_per_day": "off",
    "portfolio.max_live_value": "20000000",
}
TEN_MINUTES = 600


def look(agent: Agent) -> StepOutcome:
    """One look of a run."""
    outcome = next(iter(agent.run(send=True, confirm=yes, once=True)))
    assert isinstance(outcome, StepOutcome), outcome
    return outcome


def restore_pools(chain: LocalChain, seconds: int) -> None:
    """Others bring the pools back to their prices, and time goes by."""
    chain.move_market(dict(chain.deployed_world.prices_usd))
    chain.warp(seconds)
