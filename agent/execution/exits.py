"""Exits that are refused: by the guards for their market, or just before sending. Each goes by its own transaction and blocks itself alone.

A token can pass its screen and still refuse the router, misreport its allowance, or burn the gas of a simulation. Nothing refused is
sent, and a refusal that is not due to the exit's own trade refuses the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.errors import Refused, UnsendableTransaction
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.guards.table import MARKET_GUARDS, REMEDIES
from agent.model import BlockedExit, Intent, IntentKind, Plan, SubmissionRefusal
from agent.policy import native_coin, quarantine
from agent.policy.orders import exits
from agent.ports import Approval, BudgetJournal, Composer

MAX_INEFFECTIVE_APPROVALS = 2
"""Approvals that were mined and changed nothing, after which a token counts as one that refuses them."""
TRADE_SIGNER_RULES = frozenset(
    f"signer.{rule}"
    for rule in ("tokens", "venue", "pool_fee", "amount_in", "floor", "min_out", "price", "bounds", "approval_amount", "contract")
)
"""Rules of the signer about what is traded; not those about nonce, fees, chain, time, kind, recipient or spender."""
NOTHING_TO_DO = "nothing has to be done"
SOLD_IN_PART = "it was sold as far as the limits allow, and the rest is sold in the next cycle"
REVERTED = "its transaction did not succeed, and it is tried again in the next cycle"


class ExitRefused(Refused):
    """A refusal just before sending for which the token of the exit alone is at fault."""


def market_refusal(outcome: StepOutcome) -> BlockedExit | None:
    """Return the exit whose plan only guards of its market refuse, with reason and remedy; None in every other case."""
    failing, leaves = [verdict for verdict in outcome.verdicts if not verdict.passed], outcome.decided.leaves
    if outcome.kind is not OutcomeKind.REFUSED or outcome.plan is None or not leaves:
        return None
    if leaves[0] in exits.excluded_tokens(outcome.step_input):  # skipped already, and refused all the same
        return None
    if not failing or not {one.guard for one in failing} <= MARKET_GUARDS:
        return None
    why = "; ".join(f"{one.guard} measured {one.measured}, limit {one.limit}" for one in failing)
    remedies = dict.fromkeys(REMEDIES.get(one.guard, "plan anew") for one in failing)
    return BlockedExit(leaves[0], f"refused by {why}", "; ".join(remedies))


def missing_approvals(
    composer: Composer, outcome: StepOutcome, plan: Plan, sent: Sequence[Intent], last: bool = False
) -> Sequence[Approval]:
    """Approvals that the plan lacks. Raises ExitRefused for an exit whose token does not report or keep its allowance.

    With `last` no later plan could use an approval, so an exit that still lacks one is not sold in this step.
    """
    step, leaves = outcome.step_input, outcome.decided.leaves
    try:
        found = composer.approvals(step, plan)
    except Refused as why:
        if {*leaves} - {one.token for one in step.snapshot.allowances if one.spender == step.execution.router}:
            raise ExitRefused(why.message, why.verdicts, why.remedy) from None
        raise
    done = [intent.tx.to for intent in sent if intent.succeeded and intent.kind is IntentKind.APPROVE]
    for approval in found:
        if approval.token in leaves and (last or done.count(approval.token) > MAX_INEFFECTIVE_APPROVALS):
            raise ExitRefused(f"{approval.label} was approved and may not be taken all the same")
    return found


def require_exit_possible(confirmed: StepOutcome, now: StepOutcome, remedy: str) -> None:
    """Raise ExitRefused if the exit that was confirmed cannot be done any more, also if nothing is left to do.

    Its token may hide its balance, spoil its market or fail its screen once it is approved.
    """
    step, unknown = now.step_input, "which the plan that was confirmed did not know"
    for token in {*confirmed.decided.leaves} - {*now.decided.leaves}:
        label = step.portfolio.token(token).label
        reasons = [f"{quarantine.format_quarantine(step, {token})}, {unknown}" for one in step.quarantine if one.token == token]
        reasons += [f"{label} cannot be sold now: {one.why}, {unknown}" for one in step.stuck if one.token == token]
        had, has = (native_coin.held_balances(one.step_input).get(token, 0) for one in (confirmed, now))
        if not reasons and has < had:
            reasons = [f"{label} was to be sold and is not there any more"]
        if reasons:
            raise ExitRefused("; ".join(reasons), remedy=remedy)


def require_no_new_exclusions(confirmed: StepOutcome, now: StepOutcome, remedy: str) -> None:
    """Raise Refused for tokens quarantined or blocked since the plan was confirmed; no exit waits for another token."""
    step, unknown = now.step_input, "which the plan that was confirmed did not know"
    if now.decided.leaves:
        return
    if shut := {one.token for one in step.quarantine} - {one.token for one in confirmed.step_input.quarantine}:
        raise Refused(f"{quarantine.format_quarantine(step, shut)}, {unknown}", remedy=remedy)
    if stays := {one.token for one in step.stuck} - {one.token for one in confirmed.decided.stuck}:
        raise Refused(f"{exits.format_blocked_exits(step, stays)}, {unknown}", remedy=remedy)


def refused_exit(refusal: Refused, leaves: Sequence[str]) -> BlockedExit | None:
    """Return the exit, none or one of `leaves`, that this refusal blocks; None if the refusal concerns the whole step."""
    if not leaves or not concerns_trade(refusal):
        return None
    return BlockedExit(leaves[0], f"refused when it was about to be sent: {refusal.message}", exits.RETRY_REMEDY)


def concerns_trade(why: Refused) -> bool:
    """True if what is traded was refused, by the simulation, a signer rule or the token; not the wallet, the fees or the time."""
    guards = {verdict.guard for verdict in why.verdicts if not verdict.passed}
    return isinstance(why, UnsendableTransaction | ExitRefused) or (bool(guards) and guards <= TRADE_SIGNER_RULES)


def without_doubtful(known: Sequence[SubmissionRefusal], doubtful: Mapping[str, SubmissionRefusal | None]) -> tuple[SubmissionRefusal, ...]:
    """Return the refusals with these tokens' entries as they were before: the router or an endpoint may be at fault, not the exit."""
    before = (one for one in doubtful.values() if one is not None)
    return (*(one for one in known if one.token not in doubtful), *before)


def clear_submission_refusals(budgets: BudgetJournal, outcome: StepOutcome) -> None:
    """Clear the refusals of tokens that were sold or are exits no longer; a swap that succeeds ends every row of failures."""
    refusals = outcome.step_input.history.late
    if refusals and (kept := exits.open_submission_refusals(outcome.step_input, outcome.decided.leaves)) != refusals:
        budgets.mark_submission_refusals(kept)
