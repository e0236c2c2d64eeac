"""Steps whose wallet holds native coin."""

from __future__ import annotations

from dataclasses import replace

from agent.model import Plan, Rebalance, StepInput
from agent.planning import planner
from agent.policy.decide import decide
from tests.support.builders import ETHER, step_input, with_limits, with_snapshot

FLOOR = ETHER // 20
ROOMY = {"turnover_bps": None, "daily_turnover_bps": None, "native_top_up_wei": ETHER // 10}


def native_step(native_wei: int, weth: int, usdc: int, *, counts: bool = True, reserve_raw: int = 0, **limits: object) -> StepInput:
    """Half ETH at 2,000, half USDC, in whole dollars of wrapped coin and of USDC, with so much native coin."""
    step = with_limits(step_input(None, {"WETH": weth, "USDC": usdc}, depth=50_000_000), **ROOMY | limits)
    first, second = step.portfolio.assets
    assets = (replace(first, includes_native=counts, reserve_raw=reserve_raw), second)
    return with_snapshot(replace(step, portfolio=replace(step.portfolio, assets=assets)), native_wei=native_wei)


def plan_of(step: StepInput) -> Plan:
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance), decided.decision.reason
    return planner.plan(step, decided.decision)
