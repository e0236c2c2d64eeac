"""Tests of agent/layers/liquidity/execution/cycle.py: which refused withdrawals a cycle skips."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import Refused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.liquidity.execution.cycle import pool_to_skip, skip_pool, skip_refused_withdrawal
from agent.layers.liquidity.state import LiquidityCycle
from agent.model import AgentCycle, Cycle, Plan, StepEnd, Verdict
from agent.policy.decide import decide
from tests.support.decisions.liquidity_plans import COLLECT, PROVIDE, WITHDRAW, passing_plan_starting_with
from tests.support.plans import sell_weth

CYCLE = Cycle("c", AgentCycle(), 0)


def plan_of_kind(kind: str) -> Plan:
    step, plan = passing_plan_starting_with(WITHDRAW if kind == "swap" else kind)
    return sell_weth(step) if kind == "swap" else replace(plan, layer_actions=plan.layer_actions[:1])


POOL = plan_of_kind(WITHDRAW).layer_actions[0].pool


@pytest.mark.parametrize(
    ("kind", "cycle", "pool"),
    [
        pytest.param(WITHDRAW, CYCLE, POOL, id="a withdrawal"),
        pytest.param(COLLECT, CYCLE, POOL, id="a collection"),
        pytest.param(PROVIDE, CYCLE, "", id="a provision"),
        pytest.param("swap", CYCLE, "", id="a swap"),
        pytest.param(WITHDRAW, replace(CYCLE, swap_step_id="s"), "", id="after a swap"),
        pytest.param(WITHDRAW, CYCLE.with_layer(LiquidityCycle(failed_withdrawal_pools=(POOL,))), "", id="skipped before"),
        pytest.param(WITHDRAW, CYCLE.with_layer(LiquidityCycle(failed_withdrawal_pools=("other",))), POOL, id="another one skipped"),
    ],
)
def test_pool_to_skip_is_that_of_a_withdrawal_once(kind: str, cycle: Cycle, pool: str) -> None:
    assert pool_to_skip(cycle, plan_of_kind(kind)) == pool


def test_pool_to_skip_is_none_without_a_plan() -> None:
    assert pool_to_skip(CYCLE, None) == ""


def test_skip_pool_adds_to_the_pools_skipped_before() -> None:
    notes = (StepEnd("s1", "reverted"), StepEnd("s2", "refused"))

    cycle = skip_pool(skip_pool(replace(CYCLE, spend_caps=(("T", 1),)), "first", notes[0]), "second", notes[1])

    assert cycle.layer(LiquidityCycle) == LiquidityCycle(failed_withdrawal_pools=("first", "second"), failed_withdrawals=notes)
    assert cycle.spend_caps == ()


@pytest.mark.parametrize(
    ("kind", "guard", "skips"),
    [
        pytest.param(WITHDRAW, "gas_per_day", True, id="gas of a withdrawal"),
        pytest.param(PROVIDE, "gas_per_day", False, id="gas of a provision"),
        pytest.param(WITHDRAW, "kill_switch", False, id="a pause"),
    ],
)
def test_refused_withdrawal_is_skipped_for_its_gas(kind: str, guard: str, skips: bool) -> None:
    step, _ = passing_plan_starting_with(WITHDRAW)
    outcome = StepOutcome("s", OutcomeKind.PLANNED, "", step, decide(step), plan_of_kind(kind))
    refusal = Refused("too dear", (Verdict(guard, "", "", False),))

    result = skip_refused_withdrawal(CYCLE, outcome, refusal)

    assert (result is not None) is skips
    if result is not None:
        assert result.cycle.layer(LiquidityCycle).failed_withdrawal_pools == (POOL,)
        assert result.outcome.kind is OutcomeKind.REFUSED
