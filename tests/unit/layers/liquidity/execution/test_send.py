"""Tests of agent/layers/liquidity/execution/send.py: the cycle after an action, and confirmations without actions."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from agent.errors import Refused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.liquidity.execution.send import LIQUIDITY_SENDER, require_as_confirmed
from agent.layers.liquidity.state import MAX_ACTIONS, LiquidityCycle
from agent.model import AgentCycle, Confirmation, Cycle, CycleEnd, Intent
from agent.policy.decide import decide
from tests.support.builders import with_history
from tests.support.decisions.liquidity_plans import PROVIDE, WITHDRAW, passing_plan_starting_with
from tests.support.plans import sell_weth

CYCLE = Cycle("c", AgentCycle(), 0)


def cycle_after(kind: str, outcome_kind: OutcomeKind = OutcomeKind.DONE, cycle: Cycle = CYCLE, **history: object) -> Cycle:
    """Return the cycle after an action of this kind, sent at this history."""
    step, plan = passing_plan_starting_with(kind)
    outcome = StepOutcome("s", outcome_kind, "reason", with_history(step, **history), decide(step), plan)
    return LIQUIDITY_SENDER.after_sent(cycle, outcome, plan, cast(Intent, None))


def test_cycle_counts_its_actions_and_plans_the_next() -> None:
    cycle = cycle_after(PROVIDE, cycle=replace(CYCLE, spend_caps=(("T", 1),)))

    assert (cycle.layer(LiquidityCycle).action_count, cycle.end_state, cycle.spend_caps) == (1, CycleEnd.OPEN, ())
    assert cycle_after(PROVIDE, cycle=cycle).layer(LiquidityCycle).action_count == 2


@pytest.mark.parametrize(
    ("count_before", "end_state"),
    [
        pytest.param(MAX_ACTIONS - 2, CycleEnd.OPEN, id="one less than the most"),
        pytest.param(MAX_ACTIONS - 1, CycleEnd.STEP_LIMIT, id="the most"),
    ],
)
def test_cycle_ends_with_its_eighth_action(count_before: int, end_state: CycleEnd) -> None:
    cycle = CYCLE.with_layer(LiquidityCycle(count_before, has_sent_action=True))

    assert MAX_ACTIONS == 8
    assert cycle_after(WITHDRAW, cycle=cycle).end_state is end_state


def test_cycle_keeps_the_times_before_its_first_action() -> None:
    first = cycle_after(WITHDRAW, last_rebalance_s=5, last_liquidity_s=6)
    second = cycle_after(WITHDRAW, cycle=first, last_rebalance_s=50, last_liquidity_s=60)

    for cycle in (first, second):
        layer_cycle = cycle.layer(LiquidityCycle)
        assert (layer_cycle.previous_rebalance_s, layer_cycle.previous_action_s) == (5, 6)


def test_cycle_skips_the_pool_of_a_failed_withdrawal() -> None:
    _, plan = passing_plan_starting_with(WITHDRAW)

    cycle = cycle_after(WITHDRAW, OutcomeKind.FAILED, last_liquidity_s=6)
    layer_cycle = cycle.layer(LiquidityCycle)

    assert (layer_cycle.failed_withdrawal_pools, layer_cycle.action_count) == ((plan.layer_actions[0].pool,), 0)
    assert (layer_cycle.previous_action_s, cycle.end_state) == (6, CycleEnd.OPEN)
    assert [(note.step_id, note.failed) for note in layer_cycle.failed_withdrawals] == [("s", True)]


def test_cycle_ends_with_a_failed_provision() -> None:
    assert cycle_after(PROVIDE, OutcomeKind.FAILED).end_state is CycleEnd.FAILED


def test_confirmation_of_swaps_allows_no_actions() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)

    require_as_confirmed(Confirmation("h", has_actions=True), plan)
    require_as_confirmed(Confirmation("h"), sell_weth(step))
    with pytest.raises(Refused, match="liquidity must be moved before"):
        require_as_confirmed(Confirmation("h"), plan)
