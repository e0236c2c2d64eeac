"""Limit orders on a local chain."""

from __future__ import annotations

from collections.abc import Callable

from agent.app.agent import Agent
from agent.app.positions.orders import LimitOrderRequest, swap_at_limit
from agent.execution.step_context import StepOutcome
from agent.model import LimitOrder
from tests.support.agents import yes


def place(
    agent: Agent,
    price: str,
    until: str = "4h",
    wait: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    send: bool = True,
    again: bool = False,
) -> tuple[LimitOrder, StepOutcome]:
    request = LimitOrderRequest("WETH", "USDC", "0.05", price, until, wait, again)
    return swap_at_limit(agent, request, send=send, confirm=yes, progress=progress)
