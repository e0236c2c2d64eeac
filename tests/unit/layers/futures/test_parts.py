"""Spot and futures parts of a step: a plan that guards refuse holds back its own part; a limit of the whole wallet holds back both."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.execution.evaluation import evaluate_input
from agent.execution.step_context import OutcomeKind
from agent.layers.futures.state import with_policy
from agent.model import AdjustFutures, Rebalance, StepInput
from agent.model.futures import MarginAccount
from agent.planning.proposals import Proposal, propose_rebalance
from tests.support.builders import with_history
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.parts import outcome_of, step_of
from tests.support.perpetuals.steps import EMPTY, EVEN, FUTURES_POLICY, OVER, book

SKEWED = {"WETH": 8_000, "USDC": 2_000}
SPENT = {"reduced_notional_24h": Fraction(20_000 * 10**6)}
"""The day's budget of reductions is used."""
PUSHED = book(10_000, 20 * E18, index=Fraction(2_300))
"""4x at the mark and below 3x at the index, so that the budget counts."""


NEAR = book(1_300, 10 * E18)
"""Near its liquidation."""
NO_GAS = replace(FUTURES_POLICY, limits=replace(FUTURES_POLICY.limits, emergency_gas_per_day_wei=1))
"""Every emergency order is refused for its gas."""


def test_a_refused_reduction_holds_back_no_rebalance() -> None:
    outcome = outcome_of(with_policy(step_of(NEAR, SKEWED), NO_GAS))
    assert outcome.kind is OutcomeKind.PLANNED
    assert isinstance(outcome.decision, Rebalance)
    assert "futures: refused: gas_per_day" in outcome.reason
    assert codec.loads(StepInput, codec.dumps(outcome.step_input)) == outcome.step_input


def test_a_used_budget_of_reductions_holds_back_no_rebalance() -> None:
    outcome = outcome_of(step_of(PUSHED, SKEWED, **SPENT))
    assert outcome.kind is OutcomeKind.PLANNED
    assert isinstance(outcome.decision, Rebalance)
    assert "futures.limits.max_reduction_per_day is used" in outcome.reason
    rebalance_outcome = outcome_of(step_of(PUSHED, EVEN, **SPENT))
    assert rebalance_outcome.kind is OutcomeKind.HOLD
    assert "max_reduction_per_day is used" in rebalance_outcome.reason


def test_a_refused_reduction_is_the_outcome_where_spot_holds() -> None:
    outcome = outcome_of(with_policy(step_of(NEAR, EVEN), NO_GAS))
    assert (outcome.kind, isinstance(outcome.decision, AdjustFutures)) == (OutcomeKind.REFUSED, True)
    assert "gas_per_day" in outcome.reason


def narrow(step: StepInput) -> StepInput:
    """Its rebalance exceeds limits.turnover."""
    return replace(step, limits=replace(step.limits, turnover_bps=10))


def test_a_refused_rebalance_holds_back_no_futures() -> None:
    wide = step_of(EMPTY, SKEWED)
    assert isinstance(outcome_of(wide).decision, Rebalance), "nothing is refused, and spot comes first"
    step = narrow(wide)
    assert outcome_of(with_policy(step, None)).kind is OutcomeKind.REFUSED
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED
    assert isinstance(outcome.decision, AdjustFutures)
    assert "spot: nothing to trade" in outcome.reason


@pytest.mark.parametrize("values", [EVEN, SKEWED])
@pytest.mark.parametrize("margin_account", [OVER, EMPTY])
def test_a_limit_of_the_whole_wallet_holds_back_both(margin_account: MarginAccount, values: dict[str, int]) -> None:
    step = step_of(margin_account, values)
    assert outcome_of(step).kind is OutcomeKind.PLANNED
    assert outcome_of(step, paused=True).kind is OutcomeKind.REFUSED
    poor = with_history(step, gas_24h_wei=10**24)
    assert outcome_of(poor).kind is OutcomeKind.REFUSED


def test_without_futures_a_refusal_is_evaluated_once() -> None:
    step = narrow(with_policy(step_of(EMPTY, SKEWED), None))
    evaluated = list[StepInput]()

    def propose(step: StepInput) -> Proposal:
        evaluated.append(step)
        return propose_rebalance(step)

    outcome = evaluate_input(step, propose, FakeEvidenceSource())
    assert outcome.kind is OutcomeKind.REFUSED
    assert outcome.step_input.progress.spot_hold_reason == ""
    assert evaluated == [step]
