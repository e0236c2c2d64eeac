"""Steps after a plan of liquidity."""

from __future__ import annotations

from dataclasses import replace

from agent.guards.case import build_guard_case
from agent.layers.liquidity.guard_case import LiquidityCase
from agent.model import StepInput
from tests.support.builders import with_snapshot
from tests.support.lp_worlds import planned
from tests.support.plans import evidence


def step_after_plan(step: StepInput) -> StepInput:
    """The step that a new snapshot would give once the plan is done: positions and balances as predicted."""
    plan = planned(step)
    layer = build_guard_case(step, plan, evidence(step, plan)).layer_answers
    assert isinstance(layer, LiquidityCase)
    done = layer.replay
    holdings = tuple(replace(holding, raw=done.book_after.wallet_raw_by_token[holding.token]) for holding in step.snapshot.holdings)
    later = with_snapshot(step, holdings=holdings, positions=tuple(position for _, position in done.book_after.position_states))
    return replace(later, portfolio=replace(step.portfolio, positions=tuple(state for state, _ in done.book_after.position_states)))
