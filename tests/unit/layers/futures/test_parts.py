"""Spot and futures parts of a step: a plan that guards refuse holds back its own part; a limit of the whole wallet holds back both."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.execution.evaluation import evaluate_input
from agent.execution.step_context import OutcomeKind
from agent.layers.futures.state import with_policy
from agent.model import AdjustFutures, Hold, Rebalance, StepInput
from agent.model.futures import MarginAccount
from agent.planning.proposals import Proposal, propose_rebalance
from tests.support.builders import with_history, with_limits
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
NARROW = with_limits(step_of(EMPTY, SKEWED), turnover_bps=10)
"""Its rebalance exceeds limits.turnover."""


@pytest.mark.parametrize(
    ("step", "kind", "decision_type", "reason"),
    [
        pytest.param(
            with_policy(step_of(NEAR, SKEWED), NO_GAS),
            OutcomeKind.PLANNED,
            Rebalance,
            "futures: refused: gas_per_day",
            id="refused reduction beside a rebalance",
        ),
        pytest.param(
            with_policy(step_of(NEAR, EVEN), NO_GAS), OutcomeKind.REFUSED, AdjustFutures, "gas_per_day", id="refused reduction alone"
        ),
        pytest.param(
            step_of(PUSHED, SKEWED, **SPENT),
            OutcomeKind.PLANNED,
            Rebalance,
            "futures.limits.max_reduction_per_day is used",
            id="used budget beside a rebalance",
        ),
        pytest.param(step_of(PUSHED, EVEN, **SPENT), OutcomeKind.HOLD, Hold, "max_reduction_per_day is used", id="used budget alone"),
        pytest.param(NARROW, OutcomeKind.PLANNED, AdjustFutures, "spot: nothing to trade", id="refused rebalance beside an opening"),
        pytest.param(with_policy(NARROW, None), OutcomeKind.REFUSED, Rebalance, "turnover", id="refused rebalance alone"),
    ],
)
def test_refused_part__holds_back_no_other(step: StepInput, kind: OutcomeKind, decision_type: type, reason: str) -> None:
    outcome = outcome_of(step)
    assert (outcome.kind, type(outcome.decision)) == (kind, decision_type)
    assert reason in outcome.reason
    assert codec.loads(StepInput, codec.dumps(outcome.step_input)) == outcome.step_input


def test_part_that_nothing_refuses__is_not_named() -> None:
    outcome = outcome_of(step_of(EMPTY, SKEWED))

    assert outcome.kind is OutcomeKind.PLANNED
    assert isinstance(outcome.decision, Rebalance), "spot comes first"
    assert outcome.reason == "WETH at 80 % is 25 points above its band 45-55 %; USDC at 20 % is 25 points below its band 45-55 %"


@pytest.mark.parametrize("values", [EVEN, SKEWED])
@pytest.mark.parametrize("margin_account", [OVER, EMPTY])
def test_limit_of_the_whole_wallet__holds_back_both(margin_account: MarginAccount, values: dict[str, int]) -> None:
    step = step_of(margin_account, values)
    assert outcome_of(step).kind is OutcomeKind.PLANNED
    assert outcome_of(step, paused=True).kind is OutcomeKind.REFUSED
    assert outcome_of(with_history(step, gas_24h_wei=10**24)).kind is OutcomeKind.REFUSED


def test_refusal_without_futures__is_evaluated_once() -> None:
    step = with_policy(NARROW, None)
    evaluated: list[StepInput] = []

    def propose(step: StepInput) -> Proposal:
        evaluated.append(step)
        return propose_rebalance(step)

    outcome = evaluate_input(step, propose, FakeEvidenceSource())
    assert (outcome.kind, outcome.step_input.progress.spot_hold_reason) == (OutcomeKind.REFUSED, "")
    assert evaluated == [step]
