"""Evaluation of a step: decide, plan and judge; nothing is sent, and only
`clear_submission_refusals` writes. Exits that the guards
refuse because of the state of their market, or that are refused just before sending, block only
themselves: each exit is a separate transaction. A token can pass screening and still refuse the
actual sale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agent import guards
from agent.errors import ErrorCode, Refused, UnsendableTransaction
from agent.execution.step_context import (
    OutcomeKind,
    StepOutcome,
    StepReaders,
    TickExtender,
    confirm_prices,
    propose_screened,
)
from agent.guards.table import MARKET_GUARDS, REMEDIES
from agent.layers.planning import REFUSED_PARTS
from agent.layers.policy import acts_beside_spot
from agent.model import (
    BlockedExit,
    Halt,
    Plan,
    Rebalance,
    StepInput,
    SubmissionRefusal,
    Verdict,
)
from agent.planning.proposals import Proposer
from agent.policy import failures
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.orders import blocked_exits
from agent.policy.orders.blocked_exits import exclude_blocked_exits, may_go_directly
from agent.ports import Approval, Composer, EvidenceSource
from agent.store.budgets import BudgetStore

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
BUDGET_GUARDS = frozenset(
    (
        "daily_loss",
        "total_loss",
        "gas_per_day",
        "native_floor",
        "reverts_in_row",
        "feed_health",
        "depeg",
        "signer.gas_cost",
    )
)
"""Guards that may refuse one exit and pass another, because of its cost, gas, prices or failures.
"""
NOTHING_TO_DO = "no action needed"
SOLD_IN_PART = "it was sold as far as the limits allow; the next cycle sells the rest"
REVERTED = "its transaction failed; the next cycle tries again"
DECLINED = "it was not confirmed"
REPLAN_REMEDY = "run it again and confirm the new plan"


class ExitRefused(Refused):
    """A refusal just before sending that only the exit's token caused."""


def own_refusal(outcome: StepOutcome) -> BlockedExit | None:
    """Return the exit whose plan is refused only by guards of its market and by limits that another
    exit may meet; None in every other case. An exit that was already skipped is not returned.
    """
    token, failing = (
        outcome.decided.exit_token,
        [verdict for verdict in outcome.verdicts if not verdict.passed],
    )
    if outcome.kind is not OutcomeKind.REFUSED or outcome.plan is None or not token:
        return None
    if token in blocked_exits.excluded_tokens(
        outcome.step_input.targets, outcome.step_input.blocked_exits
    ):
        return None
    if not failing or not {verdict.guard for verdict in failing} <= MARKET_GUARDS | BUDGET_GUARDS:
        return None
    why = "; ".join(
        f"{verdict.guard} measured {verdict.measured}, limit {verdict.limit}" for verdict in failing
    )
    remedies = dict.fromkeys(REMEDIES.get(verdict.guard, "plan again") for verdict in failing)
    return BlockedExit(token, f"refused: {why}", "; ".join(remedies))


def concerns_budget(verdicts: Sequence[Verdict]) -> bool:
    """True if a limit of the whole wallet refuses: until it allows the exit, only plans that reduce
    risk are sent.
    """
    return any(verdict.guard in BUDGET_GUARDS for verdict in verdicts if not verdict.passed)


def missing_approvals(
    composer: Composer, outcome: StepOutcome, plan: Plan, approved: int, last: bool = False
) -> Sequence[Approval]:
    """Return approvals that the plan lacks. Raises ExitRefused if an exit's token hides or drops
    its allowance. `approved` is the number of its successful approvals in the cycle; `last` means
    that no later plan can use an approval, so an exit that still lacks one is not sold in this
    cycle.
    """
    token = outcome.decided.exit_token
    try:
        approvals = composer.approvals(outcome.step_input, plan)
    except Refused as why:
        if token:
            raise ExitRefused(why.message, why.verdicts, why.remedy) from None
        raise
    for approval in approvals:
        if approval.token == token and (last or approved > MAX_INEFFECTIVE_APPROVALS):
            raise ExitRefused(
                f"{approval.label} was approved, but its allowance is still too small",
                code=ErrorCode.ALLOWANCE,
            )
    return approvals


def gas_refusal(why: Refused) -> bool:
    """True if guards failed and each of them is one of BUDGET_GUARDS, so another action may pass."""
    guards = {verdict.guard for verdict in why.verdicts if not verdict.passed}
    return bool(guards) and guards <= BUDGET_GUARDS


def concerns_trade(why: Refused) -> bool:
    """True if the simulation, the token or a signer rule refused the trade itself; not fees, time
    or wallet.
    """
    guards = {verdict.guard for verdict in why.verdicts if not verdict.passed}
    return isinstance(why, UnsendableTransaction | ExitRefused) or (
        bool(guards) and guards <= TRADE_SIGNER_RULES
    )


def without_doubtful(
    known: Sequence[SubmissionRefusal],
    doubtful: Mapping[str, SubmissionRefusal | None],
) -> tuple[SubmissionRefusal, ...]:
    """Return the refusals; for tokens whose refusal may have had another cause, the earlier stored
    one, if any.
    """
    before = (refusal for refusal in doubtful.values() if refusal is not None)
    return (
        *(
            submission_refusal
            for submission_refusal in known
            if submission_refusal.token not in doubtful
        ),
        *before,
    )


def clear_submission_refusals(budgets: BudgetStore, outcome: StepOutcome) -> None:
    """Clear the refusals of a sold token and of tokens that are no longer exits. A successful swap
    ends every series of failures.
    """
    refusals = outcome.step_input.history.failures.submission_refusals
    kept = blocked_exits.open_submission_refusals(
        outcome.step_input.history, outcome.decided.exit_token
    )
    if kept != refusals:
        budgets.mark_submission_refusals(kept)


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
    guards refuse what a layer does beside the spot portfolio, or the spot portfolio beside a layer,
    the other part is planned.
    """
    outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
    over_budget: StepOutcome | None = None
    while (blocked := own_refusal(outcome)) is not None:
        if may_go_directly(
            outcome.step_input.portfolio,
            outcome.step_input.progress.direct,
            outcome.plan,
            blocked.token,
        ):
            direct = (*outcome.step_input.progress.direct, blocked.token)
            step_input = replace(
                outcome.step_input, progress=replace(outcome.step_input.progress, direct=direct)
            )
            outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
            continue
        if over_budget is None and concerns_budget(outcome.verdicts):
            over_budget = outcome
        step_input = exclude_blocked_exits(outcome.step_input, [blocked])
        outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
    if over_budget is not None and not reduces_risk(outcome):
        return over_budget
    if (step := _without_refused_part(outcome)) is None:
        return outcome
    other = evaluate_input_once(step, propose, evidence, step_id, further)
    return other if other.kind is OutcomeKind.PLANNED else outcome


def _without_refused_part(refused: StepOutcome) -> StepInput | None:
    """Return the step without its refused part, a layer or spot; None if nothing is refused or the
    other part has nothing to do.

    The guards judge the other part separately, so a limit of the whole wallet refuses that too. The
    owner's requests have one part only, and layers open positions after the spot portfolio in any
    case.
    """
    step, decision = refused.step_input, refused.decision
    if refused.kind is not OutcomeKind.REFUSED or not acts_beside_spot(step):
        return None
    if not isinstance(decision, Rebalance):
        parts = (without(step, decision, refused.plan, refused.reason) for without in REFUSED_PARTS)
        return next((part for part in parts if part is not None), None)
    if not decision.by_trigger or step.progress.spot_held:
        return None
    return replace(step, progress=replace(step.progress, spot_held=f"spot: {refused.reason}"))


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
