"""Outcome of a cycle in which something follows a swap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.execution.cycle_outcome import outcome_of_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import AgentCycle, Cycle, CycleEnd, IntentKind
from agent.planning.proposals import propose_rebalance
from tests.support.builders import step_input

SWAP_ID = "aaaaaaaaaaaa"
STEP = step_input({"WETH": 6_000, "USDC": 4_000}, {"WETH": 9_000, "USDC": 1_000})
PROPOSAL = propose_rebalance(STEP)
SWAPPED = StepOutcome(SWAP_ID, OutcomeKind.DONE, "swapped", STEP, PROPOSAL.decision_result, PROPOSAL.plan)


def outcome_after_swap(end: CycleEnd, kind: OutcomeKind) -> StepOutcome:
    cycle = replace(Cycle("c", AgentCycle(), 0), end_state=end, sent_kinds=(IntentKind.SWAP,), swap_step_id=SWAP_ID)
    last_outcome = replace(SWAPPED, step_id="bbbbbbbbbbbb", kind=kind, reason="of the provision", plan=None)
    return outcome_of_cycle(cycle, last_outcome, {SWAP_ID: SWAPPED}.__getitem__)


@pytest.mark.parametrize(
    ("end", "kind", "expected_kind", "reason"),
    [
        pytest.param(CycleEnd.NOTHING_DUE, OutcomeKind.HOLD, OutcomeKind.DONE, "swapped", id="nothing more due"),
        pytest.param(CycleEnd.NOTHING_DUE, OutcomeKind.REFUSED, OutcomeKind.DONE, "swapped; then: of the provision", id="guard refuses"),
        pytest.param(CycleEnd.REFUSED, OutcomeKind.REFUSED, OutcomeKind.DONE, "swapped; then: of the provision", id="simulation refuses"),
        pytest.param(CycleEnd.DECLINED, OutcomeKind.DECLINED, OutcomeKind.DONE, "swapped; then: of the provision", id="declined"),
        pytest.param(CycleEnd.FAILED, OutcomeKind.FAILED, OutcomeKind.FAILED, "swapped; then: of the provision", id="reverted"),
    ],
)
def test_swap__is_told_whatever_ends_the_cycle_after_it(end: CycleEnd, kind: OutcomeKind, expected_kind: OutcomeKind, reason: str) -> None:
    outcome = outcome_after_swap(end, kind)
    assert (outcome.kind, outcome.reason) == (expected_kind, reason)
