"""Tests of agent/execution/confirmation.py: the plans that a confirmation covers, in its own process and after a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.execution.confirmation import confirmation_of, covering_confirmation, plan_hash
from agent.execution.resumption import new_cycle
from agent.model import AgentCycle, Plan
from tests.support.builders import NOW_S
from tests.support.decisions.exits import MARKET, SOUND, outcome_of, step_with_stops

CONFIRMED = outcome_of(step_with_stops("LINK", pools=(*MARKET, SOUND)))
assert CONFIRMED.plan is not None
PLAN = CONFIRMED.plan
LATER_PLAN = replace(PLAN, block=PLAN.block + 9, expires_block=PLAN.expires_block + 9, verdicts=(), gap=None)
LARGER_PLAN = replace(PLAN, legs=(replace(PLAN.legs[0], amount_in_raw=PLAN.legs[0].amount_in_raw + 1), *PLAN.legs[1:]))


def test_plan_hash_ignores_block_verdicts_and_gap() -> None:
    assert PLAN.verdicts
    assert PLAN.gap

    assert plan_hash(LATER_PLAN) == plan_hash(PLAN)
    assert plan_hash(LARGER_PLAN) != plan_hash(PLAN)


@pytest.mark.parametrize(
    ("changes", "plan", "is_covered"),
    [
        pytest.param({}, PLAN, True, id="living, the same plan"),
        pytest.param({}, LATER_PLAN, True, id="living, a later block"),
        pytest.param({}, LARGER_PLAN, True, id="living, one unit more"),
        pytest.param({"is_of_ended_process": True}, PLAN, True, id="resumed, the same plan"),
        pytest.param({"is_of_ended_process": True}, LATER_PLAN, True, id="resumed, a later block"),
        pytest.param({"is_of_ended_process": True}, LARGER_PLAN, False, id="resumed, one unit more"),
        pytest.param({"acts_in_layer": True}, PLAN, False, id="of a layer's action"),
    ],
)
def test_confirmation_covers_the_same_plan_after_a_restart(changes: dict[str, bool], plan: Plan, is_covered: bool) -> None:
    confirmation = replace(confirmation_of(CONFIRMED, PLAN), **changes)  # type: ignore[arg-type]  # field names
    cycle = replace(new_cycle(AgentCycle(), NOW_S), confirmation=confirmation)

    assert (covering_confirmation(cycle, plan) is not None) is is_covered
