"""Evaluation of a step: decide, plan and judge. Nothing is written or sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent import guards
from agent.errors import Refused
from agent.execution import exits
from agent.execution.step_context import (
    OutcomeKind,
    StepOutcome,
    StepReaders,
    TickExtender,
    confirm_prices,
    propose_screened,
)
from agent.model import AdjustFutures, Halt, Plan, Rebalance, StepInput
from agent.planning.hedge import HEDGE, HEDGE_MARGIN
from agent.planning.proposals import Proposer
from agent.policy import failures
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.orders.blocked_exits import exclude_blocked_exits, may_go_directly
from agent.ports import EvidenceSource


def evaluate(readers: StepReaders, propose: Proposer) -> StepOutcome:
    """Evaluate a new snapshot. A refusal is returned as an outcome with verdicts, not raised."""
    step_input = confirm_prices(readers, readers.step_input_at(readers.reader.snapshot()))
    return evaluate_input(
        step_input, propose, readers.evidence, further=TickExtender(readers.reader)
    )


def evaluate_input(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """Evaluate a step input. Verdicts are empty without an evidence source. `further` reads more
    ticks.

    If guards of its market refuse an exit, the next exit or the remaining trades are planned and
    judged. If a limit of the whole wallet refuses it, only a plan that reduces risk may follow. If
    guards refuse a futures reduction, a hedge, or the spot part of a step with futures, the other
    part is planned.
    """
    outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
    over_budget: StepOutcome | None = None
    while (blocked := exits.own_refusal(outcome)) is not None:
        if may_go_directly(outcome.step_input, outcome.plan, blocked.token):
            direct = (*outcome.step_input.direct, blocked.token)
            step_input = replace(outcome.step_input, direct=direct)
            outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
            continue
        if over_budget is None and exits.concerns_budget(outcome.verdicts):
            over_budget = outcome
        step_input = exclude_blocked_exits(outcome.step_input, [blocked])
        outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
    if over_budget is not None and not reduces_risk(outcome):
        return over_budget
    if (held := _without_refused_part(outcome)) is None:
        return outcome
    other = evaluate_input_once(held, propose, evidence, step_id, further)
    return other if other.kind is OutcomeKind.PLANNED else outcome


def _without_refused_part(refused: StepOutcome) -> StepInput | None:
    """Return the step without its refused part, futures or spot; None if nothing is refused or the
    other part has nothing to do.

    The guards judge the other part separately, so a limit of the whole wallet refuses that too. The
    owner's requests have one part only, and futures are opened after the spot portfolio in any
    case.
    """
    step, decision = refused.step_input, refused.decision
    if refused.kind is not OutcomeKind.REFUSED or step.futures is None:
        return None
    match decision:
        case AdjustFutures(by_owner=False) if not step.futures_held and (
            decision.is_reducing or decision.closes or _opens_hedge(refused.plan)
        ):
            return replace(step, futures_held=f"futures: {refused.reason}")
        case Rebalance() if decision.by_trigger and not step.spot_held:
            return replace(step, spot_held=f"spot: {refused.reason}")
        case _:
            return None


def _opens_hedge(plan: Plan | None) -> bool:
    """True if a plan opens a hedge or deposits margin for one; without the hedge the asset
    is sold.
    """
    triggers = (HEDGE, HEDGE_MARGIN)
    return plan is not None and plan.futures is not None and plan.futures.trigger in triggers


def reduces_risk(outcome: StepOutcome) -> bool:
    """True if the outcome is a plan for an exit, a withdrawal of liquidity, or gas money."""
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    return plan is not None and failures.exit_name(plan) != ""


def evaluate_input_once(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """Evaluate a step input once, without skipping refused exits."""
    step_input, proposal, gathered = propose_screened(step_input, propose, evidence, further)
    if isinstance(proposal, Refused):
        return _refused(step_id, step_input, decide(step_input), None, proposal)
    if (plan := proposal.plan) is None:
        kind = OutcomeKind.HALT if isinstance(proposal.decided.decision, Halt) else OutcomeKind.HOLD
        return StepOutcome(
            step_id, kind, proposal.decided.decision.reason, step_input, proposal.decided, None
        )
    if gathered is not None:
        plan = replace(plan, verdicts=guards.judge(step_input, plan, gathered))
        try:
            guards.require(plan, plan.verdicts)
        except Refused as refusal:
            return _refused(step_id, step_input, proposal.decided, plan, refusal)
    return StepOutcome(
        step_id, OutcomeKind.PLANNED, plan.decision.reason, step_input, proposal.decided, plan
    )


def _refused(
    step_id: str,
    step_input: StepInput,
    decided: DecisionResult,
    plan: Plan | None,
    refusal: Refused,
) -> StepOutcome:
    return StepOutcome(
        step_id,
        OutcomeKind.REFUSED,
        str(refusal),
        step_input,
        decided,
        plan,
        verdicts=refusal.verdicts,
    )
