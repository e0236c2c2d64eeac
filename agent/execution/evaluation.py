"""Evaluation of a step: decide, plan and judge; nothing is sent, and only
`clear_submission_refusals` writes. Exits that the guards refuse because of the state of their
market, or that are refused just before sending, block only themselves: each exit is a separate
transaction. A token can pass screening and still refuse the actual sale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from agent import guards
from agent.errors import READ_FAILURES, ErrorCode, Refused, UnsendableTransaction
from agent.execution.step_context import (
    OutcomeKind,
    StepOutcome,
    StepReaders,
    TickExtender,
    add_past_prices,
    propose_screened,
)
from agent.guards.table import MARKET_GUARDS, REMEDIES, WALLET_GUARDS, remedy_of
from agent.layers.planning import PLANNERS
from agent.model import (
    BlockedExit,
    Halt,
    Plan,
    Rebalance,
    StepInput,
    TokenFinding,
    TokenRefusal,
    Verdict,
)
from agent.planning.proposals import Proposer
from agent.policy import failures, quarantine
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.orders import blocked_exits
from agent.policy.orders.blocked_exits import exclude_blocked_exits, may_take_direct_route
from agent.ports import Approval, Composer, EvidenceSource
from agent.store.accounts.budgets import BudgetStore

MAX_INEFFECTIVE_APPROVALS = 2
"""Mined approvals without effect after which a token counts as refusing them."""
TRADE_SIGNER_RULES = frozenset(
    f"signer.{rule}"
    for rule in (
        "tokens",
        "venue",
        "pool_fee",
        "amount_in",
        "floor",
        "min_out",
        "price",
        "bounds",
        "approval_amount",
        "contract",
    )
)
"""Signer rules that judge the traded assets, as opposed to nonce, fees, chain, time, kind,
recipient or spender.
"""
WALLET_LIMIT_GUARDS = WALLET_GUARDS | {"signer.gas_cost"}
"""Guards, and a signer rule, that may refuse one exit and pass another."""
NO_ACTION_REMEDY = "no action needed"
SOLD_IN_PART_REASON = "it was sold as far as the limits allow; the next cycle sells the rest"
REVERTED_REASON = "its transaction failed; the next cycle tries again"
DECLINED_REASON = "it was not confirmed"
REPLAN_REMEDY = "run it again and confirm the new plan"


class ExitRefused(Refused):
    """A refusal just before sending that only the exit's token caused."""


class ApprovalIgnored(Refused):
    """`token`, which a plan that is no exit spends, ignored its approvals: those sent for this plan
    if `is_new`, else earlier ones, and it is not tried again yet.
    """

    def __init__(self, token: str, message: str, *, is_new: bool) -> None:
        super().__init__(
            message, remedy=TokenFinding.APPROVAL_IGNORED.remedy, code=ErrorCode.ALLOWANCE
        )
        self.token = token
        self.is_new = is_new


def refused_exit(outcome: StepOutcome) -> BlockedExit | None:
    """Return the exit whose plan is refused only by guards of its market and by limits that another
    exit may meet; None in every other case. An exit that was already skipped is not returned.
    """
    exit_token = outcome.decision_result.exit_token
    if outcome.kind is not OutcomeKind.REFUSED or outcome.plan is None or not exit_token:
        return None
    if exit_token in blocked_exits.excluded_tokens(
        outcome.step_input.targets, outcome.step_input.blocked_exits
    ):
        return None
    failed_verdicts = [verdict for verdict in outcome.refusal_verdicts if not verdict.passed]
    failed_guards = {verdict.guard for verdict in failed_verdicts}
    if not failed_guards or not failed_guards <= MARKET_GUARDS | WALLET_LIMIT_GUARDS:
        return None
    verdicts_text = "; ".join(
        f"{verdict.guard} measured {verdict.measured_text}, limit {verdict.limit}"
        for verdict in failed_verdicts
    )
    remedies = dict.fromkeys(remedy_of(verdict, REMEDIES) for verdict in failed_verdicts)
    return BlockedExit(exit_token, f"refused: {verdicts_text}", "; ".join(remedies))


def refused_by_wallet_limit(verdicts: Sequence[Verdict]) -> bool:
    """True if a limit of the whole wallet refuses: until it allows the exit, only plans that reduce
    risk are sent.
    """
    return any(verdict.guard in WALLET_LIMIT_GUARDS for verdict in verdicts if not verdict.passed)


def missing_approvals(
    composer: Composer,
    outcome: StepOutcome,
    plan: Plan,
    attempts_of: Callable[[Approval], int],
    *,
    is_by_owner: bool,
) -> Sequence[Approval]:
    """Return approvals that the plan lacks; `attempts_of` counts those already sent for it. Raises
    ExitRefused if an exit's token hides or drops its allowance, ApprovalIgnored if another token
    does, or did before and is not tried again yet; the owner's commands try it at once.
    """
    exit_token = outcome.decision_result.exit_token
    try:
        approvals = composer.missing_approvals(outcome.step_input, plan)
    except Refused as refusal:
        if exit_token:
            raise ExitRefused(refusal.message, refusal.verdicts, refusal.remedy) from None
        raise
    for approval in approvals:
        token = approval.token
        why = f"{approval.token_label} was approved, but its allowance is still too small"
        if attempts_of(approval) >= MAX_INEFFECTIVE_APPROVALS:
            if token == exit_token:
                raise ExitRefused(why, code=ErrorCode.ALLOWANCE)
            raise ApprovalIgnored(token, why, is_new=True)
        if (
            token != exit_token
            and not is_by_owner
            and (ignored := quarantine.ignored_approval(outcome.step_input, token)) is not None
        ):
            raise ApprovalIgnored(token, f"{approval.token_label}: {ignored.why}", is_new=False)
    return approvals


def is_wallet_limit_refusal(refusal: Refused) -> bool:
    """True if guards failed and each of them is one of WALLET_LIMIT_GUARDS, so another action may
    pass.
    """
    return bool(refusal.guards) and {*refusal.guards} <= WALLET_LIMIT_GUARDS


def concerns_trade(refusal: Refused) -> bool:
    """True if the simulation, the token or a signer rule refused the trade itself; not fees, time
    or wallet.
    """
    return isinstance(refusal, UnsendableTransaction | ExitRefused) or (
        bool(refusal.guards) and {*refusal.guards} <= TRADE_SIGNER_RULES
    )


def without_doubtful_refusals(
    refusals: Sequence[TokenRefusal],
    earlier_refusal_by_token: Mapping[str, TokenRefusal | None],
) -> tuple[TokenRefusal, ...]:
    """Return the refusals; for tokens whose refusal may have had another cause, the earlier stored
    one, if any.
    """
    earlier_refusals = (
        refusal for refusal in earlier_refusal_by_token.values() if refusal is not None
    )
    return (
        *(refusal for refusal in refusals if refusal.token not in earlier_refusal_by_token),
        *earlier_refusals,
    )


def clear_submission_refusals(budgets: BudgetStore, outcome: StepOutcome) -> None:
    """Clear the refusals of a sold token and of tokens that are no longer exits. A successful swap
    ends every series of failures.
    """
    refusals = outcome.step_input.history.failures.submission_refusals
    open_refusals = blocked_exits.open_submission_refusals(
        outcome.step_input.history, outcome.decision_result.exit_token
    )
    if open_refusals != refusals:
        budgets.mark_submission_refusals(open_refusals)


def evaluate(readers: StepReaders, propose: Proposer) -> StepOutcome:
    """Evaluate a new snapshot. A refusal is returned as an outcome with verdicts, not raised."""
    step_input = add_past_prices(readers, readers.step_input_at(readers.reader.snapshot()))
    return evaluate_input(
        step_input, propose, readers.evidence_source, extend_ticks=TickExtender(readers.reader)
    )


def evaluate_input(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    extend_ticks: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """Evaluate a step input. Verdicts are empty without an evidence source. `extend_ticks` reads
    more ticks.

    If guards of its market refuse an exit, the next exit or the remaining trades are planned and
    judged. If a limit of the whole wallet refuses it, only a plan that reduces risk may follow. If
    guards refuse what a layer does beside the spot portfolio, or the spot portfolio beside a layer,
    the other part is planned.
    """
    evaluate_once = partial(
        evaluate_input_once,
        propose=propose,
        evidence=evidence,
        step_id=step_id,
        extend_ticks=extend_ticks,
    )
    outcome = evaluate_once(step_input)
    wallet_limit_outcome: StepOutcome | None = None
    while (blocked_exit := refused_exit(outcome)) is not None:
        if may_take_direct_route(
            outcome.step_input.portfolio,
            outcome.step_input.progress.direct_route_tokens,
            outcome.plan,
            blocked_exit.token,
        ):
            direct_tokens = (*outcome.step_input.progress.direct_route_tokens, blocked_exit.token)
            step_input = replace(
                outcome.step_input,
                progress=replace(outcome.step_input.progress, direct_route_tokens=direct_tokens),
            )
            outcome = evaluate_once(step_input)
            continue
        if wallet_limit_outcome is None and refused_by_wallet_limit(outcome.refusal_verdicts):
            wallet_limit_outcome = outcome
        step_input = exclude_blocked_exits(outcome.step_input, [blocked_exit])
        outcome = evaluate_once(step_input)
    if wallet_limit_outcome is not None and not reduces_risk(outcome):
        return wallet_limit_outcome
    if (reduced_step := _without_refused_part(outcome)) is None:
        return outcome
    other_part_outcome = evaluate_once(reduced_step)
    return other_part_outcome if other_part_outcome.kind is OutcomeKind.PLANNED else outcome


def _without_refused_part(refused_outcome: StepOutcome) -> StepInput | None:
    """Return the step without its refused part, a layer or spot; None if nothing is refused or the
    other part has nothing to do.

    The guards judge the other part separately, so a limit of the whole wallet refuses that too. The
    owner's requests have one part only, and layers open positions after the spot portfolio in any
    case.
    """
    step = refused_outcome.step_input
    decision = refused_outcome.decision
    if refused_outcome.kind is not OutcomeKind.REFUSED or not step.acts_beside_spot:
        return None
    if not isinstance(decision, Rebalance):
        layer_planner = PLANNERS.get(type(decision))
        if layer_planner is None:
            return None
        return layer_planner.without_refused_plan(
            step, decision, refused_outcome.plan, refused_outcome.reason
        )
    if not decision.by_trigger or step.progress.spot_hold_reason:
        return None
    return replace(
        step, progress=replace(step.progress, spot_hold_reason=f"spot: {refused_outcome.reason}")
    )


def reduces_risk(outcome: StepOutcome) -> bool:
    """True if the outcome is a plan for an exit, a withdrawal of liquidity, or gas money."""
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    return plan is not None and failures.exit_name(plan) != ""


def evaluate_input_once(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    extend_ticks: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """Evaluate a step input once, without skipping refused exits."""
    step_input, proposal, gathered_evidence = propose_screened(
        step_input, propose, evidence, extend_ticks
    )
    if isinstance(proposal, Refused):
        return _refused_outcome(step_id, step_input, decide(step_input), None, proposal)
    if (plan := proposal.plan) is None:
        kind = (
            OutcomeKind.HALT
            if isinstance(proposal.decision_result.decision, Halt)
            else OutcomeKind.HOLD
        )
        return StepOutcome(
            step_id,
            kind,
            proposal.decision_result.decision.reason,
            step_input,
            proposal.decision_result,
            None,
        )
    if gathered_evidence is not None:
        plan = replace(plan, verdicts=guards.judge(step_input, plan, gathered_evidence))
        try:
            guards.require_all_passed(plan, plan.verdicts)
        except Refused as refusal:
            return _refused_outcome(step_id, step_input, proposal.decision_result, plan, refusal)
    return StepOutcome(
        step_id,
        OutcomeKind.PLANNED,
        plan.decision.reason,
        step_input,
        proposal.decision_result,
        plan,
    )


def _refused_outcome(
    step_id: str,
    step_input: StepInput,
    decision_result: DecisionResult,
    plan: Plan | None,
    refusal: Refused,
) -> StepOutcome:
    return StepOutcome(
        step_id,
        OutcomeKind.REFUSED,
        str(refusal),
        step_input,
        decision_result,
        plan,
        refusal_verdicts=refusal.verdicts,
    )


def minimums_fault(readers: StepReaders, plan: Plan | None) -> guards.ProposalFault | None:
    """Return the fault of an earlier plan's minimums at the prices now; None without a plan. Reads
    the chain.
    """
    if plan is None:
        return None
    try:
        step = readers.step_input_at(readers.reader.snapshot())
    except READ_FAILURES as error:
        reason = f"the prices now cannot be read: {error.message}"
        return guards.ProposalFault(guards.FaultKind.UNCHECKED_MINIMUMS, reason)
    return guards.judge_minimums(step, plan)
