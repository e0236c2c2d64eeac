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


def in_native_coin(step: StepInput) -> StepInput:
    """Return the step with all of its wrapped native coin as native coin, which counts."""
    wrapped_native = step.portfolio.wrapped_native
    assets = tuple(replace(asset, includes_native=asset.token.address == wrapped_native) for asset in step.portfolio.assets)
    wrapped_raw = sum(holding.raw for holding in step.snapshot.holdings if holding.token == wrapped_native)
    holdings = tuple(replace(holding, raw=0) if holding.token == wrapped_native else holding for holding in step.snapshot.holdings)
    step = with_limits(step, native_floor_wei=0)
    return with_snapshot(replace(step, portfolio=replace(step.portfolio, assets=assets)), holdings=holdings, native_wei=wrapped_raw)


def plan_of(step: StepInput) -> Plan:
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance), decided.decision.reason
    return planner.plan(step, decided.decision)
