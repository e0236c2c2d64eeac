"""Plans of liquidity whose guards all pass, what the layer answers about them, and the steps after them."""

from __future__ import annotations

from dataclasses import replace

from agent import guards
from agent.guards.case import build_guard_case
from agent.layers.liquidity.guard_case import LiquidityCase
from agent.model import Plan, StepInput
from tests.support.builders import with_snapshot
from tests.support.decisions.liquidity_ranges import earning_step
from tests.support.lp_worlds import lp_target, planned, ranged, world
from tests.support.plans import evidence

PROVIDE = "provide"
WITHDRAW = "withdraw"
COLLECT = "collect"


def passing_plan_starting_with(kind: str) -> tuple[StepInput, Plan]:
    """Return a step and its plan whose first action is of this kind and whose guards all pass."""
    if kind == PROVIDE:
        step = world([ranged(500, 1_800, 2_200)], [lp_target(2_000)])
    elif kind == WITHDRAW:
        step = world([ranged(2_000, 1_800, 2_200, owed=(10**7, 10**15), core_owed=(10**7, 10**15))], [lp_target(1_000)])
    else:
        step = earning_step(1_770)
    plan = planned(step)
    assert all(judged.passed for judged in guards.judge(step, plan, evidence(step, plan)))
    return step, plan


def liquidity_answers(step: StepInput, plan: Plan) -> LiquidityCase:
    """Return what the layer answers about a plan of liquidity actions."""
    answers = build_guard_case(step, plan, evidence(step, plan)).layer_answers
    assert isinstance(answers, LiquidityCase)
    return answers


def step_after_plan(step: StepInput) -> StepInput:
    """Return the step that a new snapshot gives after the plan: positions and balances as predicted."""
    book_after = liquidity_answers(step, planned(step)).replay.book_after
    holdings = tuple(replace(holding, raw=book_after.wallet_raw_by_token[holding.token]) for holding in step.snapshot.holdings)
    step_after = with_snapshot(step, holdings=holdings, positions=tuple(position for _, position in book_after.position_states))
    return replace(step_after, portfolio=replace(step.portfolio, positions=tuple(confirmed for confirmed, _ in book_after.position_states)))
