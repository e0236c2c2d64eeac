"""Exits that are refused: by the guards for their market, or just before sending. Attribute each refusal to tokens and skip those.

A token can pass its screen and still refuse the router, misreport its allowance, or burn the gas of a simulation. It must block only its
own sale. Nothing refused is sent, and a refusal that is not due to an exit's legs refuses the whole step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agent.errors import Refused, UnsendableTransaction
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.guards.table import MARKET_GUARDS, REMEDIES
from agent.model import BlockedExit, Intent, Plan, StepInput, Verdict
from agent.policy import failures, native_coin, quarantine
from agent.policy.orders import exits
from agent.ports import Approval, Composer, Journal

# --- Exits refused by the guards for their market: the others continue without them, and the outcome reports it.


REFUSED_TOGETHER = "it was refused together with another exit, which goes first"
ONE_EXIT_PER_STEP = "too many transactions failed in a row, so exits go one by one and another goes first"


def without_refused_exits(outcome: StepOutcome, judge: Callable[[StepInput], StepOutcome]) -> StepOutcome:
    """Return the outcome; if it is a refused exit, the outcome of the step without the exits that are refused on their own.

    Each asset sold is judged alone, so that one bad pool blocks only its own asset. After too many reverts in a row one exit goes alone and
    another after the next revert: an attacker who moves a single pool must not block the others.
    """
    if (first := _one_exit_alone(outcome, judge)) is not None:
        return first
    tokens = _market_refused_exits(outcome)
    if not tokens:
        return outcome
    step = outcome.step_input
    if len(tokens) == 1:
        refused: Mapping[str, StepOutcome] = {tokens[0]: outcome}
    else:
        alone = {
            one: judge(exits.exclude_blocked_exits(step, [BlockedExit(other, REFUSED_TOGETHER, "") for other in tokens if other != one]))
            for one in tokens
        }
        refused = {one: found for one, found in alone.items() if found.plan is None or found.kind is not OutcomeKind.PLANNED}
    found = [BlockedExit(one, *_refusal_and_remedy(why)) for one, why in refused.items()]
    found = found or [BlockedExit(one, REFUSED_TOGETHER, "nothing has to be done") for one in tokens[1:]]
    left = exits.exclude_blocked_exits(step, found)
    return (
        outcome if left is step else without_refused_exits(judge(left), judge)
    )  # an exit that was skipped and is refused all the same stays refused


def _one_exit_alone(outcome: StepOutcome, judge: Callable[[StepInput], StepOutcome]) -> StepOutcome | None:
    """Outcome of the first exit in turn that can go alone; None if they go together or none can go."""
    step, leaves = outcome.step_input, outcome.decided.leaves
    reverts = step.history.reverts_in_row
    if outcome.kind is not OutcomeKind.PLANNED or len(leaves) < 2 or reverts < failures.MAX_REVERTS_IN_ROW:
        return None
    first = (reverts - failures.MAX_REVERTS_IN_ROW) % len(leaves)
    for exit_token in (*leaves[first:], *leaves[:first]):
        waits = [BlockedExit(one, ONE_EXIT_PER_STEP, "nothing has to be done") for one in leaves if one != exit_token]
        alone = judge(exits.exclude_blocked_exits(step, waits))
        if alone.kind is OutcomeKind.PLANNED and alone.decided.leaves == (exit_token,):
            return alone
    return None


def _market_refused_exits(outcome: StepOutcome) -> tuple[str, ...]:
    """Tokens of orders' exits whose plan only market guards refuse; empty in every other case."""
    plan, failing = outcome.plan, _failing(outcome)
    if outcome.kind is not OutcomeKind.REFUSED or plan is None or not plan.exits or not outcome.decided.leaves:
        return ()
    if not exits.is_sold_by_orders(outcome.step_input, outcome.decided.leaves):
        return ()
    return outcome.decided.leaves if failing and {one.guard for one in failing} <= MARKET_GUARDS else ()


def _refusal_and_remedy(outcome: StepOutcome) -> tuple[str, str]:
    """Reason and remedy of an exit that was judged alone."""
    failing = _failing(outcome)
    why = "; ".join(f"{one.guard} measured {one.measured}, limit {one.limit}" for one in failing)
    remedies = dict.fromkeys(REMEDIES.get(one.guard, "plan anew") for one in failing)
    return (f"refused by {why}", "; ".join(remedies)) if failing else (outcome.reason, exits.REMEDY)


def _failing(outcome: StepOutcome) -> list[Verdict]:
    return [verdict for verdict in outcome.verdicts if not verdict.passed]


MAX_REPLANS = 8
"""Plans that one step makes in the place of refused ones."""
REFUSED_TOGETHER_AT_SUBMISSION = "it was refused together with another exit when about to be sent, which goes first"
MAX_INEFFECTIVE_APPROVALS = 2
"""Approvals that were mined and changed nothing, after which a token counts as one that refuses them."""
TRADE_SIGNER_RULES = frozenset(
    f"signer.{rule}"
    for rule in ("tokens", "venue", "pool_fee", "amount_in", "floor", "min_out", "price", "bounds", "approval_amount", "contract")
)
"""Rules of the signer about what is traded; not those about nonce, fees, chain, time, kind, recipient or spender."""
EvaluateInput = Callable[[StepInput], StepOutcome]


class TokenRefused(Refused):
    """A refusal just before sending that concerns these exit tokens alone."""

    def __init__(self, tokens: Sequence[str], message: str, verdicts: Sequence[Verdict] = (), remedy: str = "") -> None:
        super().__init__(message, verdicts, remedy)
        self.tokens = tuple(tokens)


def missing_approvals(
    composer: Composer, outcome: StepOutcome, plan: Plan, sent: Sequence[Intent], last: bool = False
) -> Sequence[Approval]:
    """Approvals that the plan lacks. Raises TokenRefused for an exit whose token does not report or keep its allowance.

    With `last` no later plan could use an approval, so tokens that still lack one are not sold in this step.
    """
    step, leaves = outcome.step_input, outcome.decided.leaves
    try:
        found = composer.approvals(step, plan)
    except Refused as why:
        approved = {one.token for one in step.snapshot.allowances if one.spender == step.execution.router}
        if silent := [token for token in leaves if token not in approved]:
            raise TokenRefused(silent, why.message, why.verdicts, why.remedy) from None
        raise
    done = [intent.tx.to for intent in sent if intent.succeeded and intent.kind.value == "approve"]
    if vain := [one for one in found if one.token in leaves and (last or done.count(one.token) > MAX_INEFFECTIVE_APPROVALS)]:
        raise TokenRefused([one.token for one in vain], f"{vain[0].label} was approved and may not be taken all the same")
    return found


def require_approval_succeeded(intent: Intent, exit_tokens: Sequence[str]) -> None:
    """Raise TokenRefused if the approval of a token that an exit sells reverted."""
    if intent.receipt is not None and not intent.succeeded and intent.tx.to in exit_tokens:
        raise TokenRefused((intent.tx.to,), f"«{intent.note}» reverted")


def require_no_new_exclusions(confirmed: StepOutcome, now: StepOutcome, remedy: str) -> None:
    """Raise TokenRefused for tokens quarantined or blocked since the plan was confirmed: approving may have changed them."""
    step, unknown = now.step_input, "which the plan that was confirmed did not know"
    if shut := {one.token for one in step.quarantine} - {one.token for one in confirmed.step_input.quarantine}:
        raise TokenRefused(sorted(shut), f"{quarantine.format_quarantine(step, shut)}, {unknown}", remedy=remedy)
    if stays := {one.token for one in step.stuck} - {one.token for one in confirmed.decided.stuck}:
        message = "; ".join(
            f"{step.portfolio.token(one.token).label} cannot be sold now: {one.why}" for one in step.stuck if one.token in stays
        )
        raise TokenRefused(sorted(stays), f"{message}, {unknown}", remedy=remedy)


def require_still_held(confirmed: StepOutcome, now: StepOutcome, remedy: str) -> None:
    """Raise TokenRefused for tokens that were confirmed to be sold and cannot be any more, also if nothing is left to do.

    A token may hide its balance or spoil its market once it is approved.
    """
    had, step = native_coin.held_balances(confirmed.step_input), now.step_input
    has, left = native_coin.held_balances(step), {*now.decided.leaves} | exits.excluded_tokens(step)
    if {*confirmed.decided.leaves} & exits.excluded_tokens(step):
        require_no_new_exclusions(confirmed, now, remedy)
    if gone := [token for token in confirmed.decided.leaves if token not in left and has.get(token, 0) < had.get(token, 0)]:
        message = ", ".join(step.portfolio.token(token).label for token in gone)
        raise TokenRefused(gone, f"{message} was to be sold and is not there any more", remedy=remedy)


def exits_to_skip(
    refusal: Refused, outcome: StepOutcome, exit_tokens: Sequence[str], composer: Composer, judge: EvaluateInput
) -> tuple[BlockedExit, ...]:
    """Return the exits to skip in this step so that the rest can continue; empty if the refusal concerns the whole step.

    `goes` are the tokens that the confirmed exit sells. Several assets are tried one at a time: those refused alone are skipped, and if
    none is, they go one after the other. A passing exit shows that the router, the endpoint and the wallet work. Without one, the rest of
    the plan must pass a trial too, as far as it can be tried now. If other exits wait for this one they serve as the trial, and it goes
    last next time.
    """
    if isinstance(refusal, TokenRefused):
        ours = {*refusal.tokens} <= {*exit_tokens}
        return tuple(_blocked_exit(token, refusal) for token in refusal.tokens) if ours else ()
    step, plan, leaves = outcome.step_input, outcome.plan, outcome.decided.leaves
    if not _concerns_trade(refusal) or plan is None or not plan.exits or not leaves:
        return ()
    refused: dict[str, Refused] = {leaves[0]: refusal}
    passes = False
    if len(leaves) > 1:
        refused = {}
        for one in leaves:
            alone = judge(
                exits.exclude_blocked_exits(
                    step, [BlockedExit(other, REFUSED_TOGETHER_AT_SUBMISSION, "") for other in leaves if other != one]
                )
            )
            why = alone.decided.leaves == (one,) and _dry_run(alone, composer)
            if isinstance(why, Refused) and not _concerns_trade(why):
                return ()
            passes = passes or why is True
            if isinstance(why, Refused):
                refused[one] = why
        if not refused:
            return tuple(
                BlockedExit(one, REFUSED_TOGETHER_AT_SUBMISSION, "nothing has to be done") for one in _least_refused_first(step, leaves)[1:]
            )
    left = tuple(_blocked_exit(token, why) for token, why in refused.items())
    passes = passes or any(one.why == REFUSED_TOGETHER_AT_SUBMISSION for one in step.stuck)
    if not passes and isinstance(_dry_run(judge(exits.exclude_blocked_exits(step, left)), composer), Refused):
        return ()
    return left


def record_submission_refusals(journal: Journal, step: StepInput, left: Sequence[BlockedExit]) -> None:
    """Record the exits that were refused on their own; those that only wait for another are tried in the next cycle."""
    if by_itself := [one for one in left if one.why != REFUSED_TOGETHER_AT_SUBMISSION]:
        journal.mark_submission_refusals(exits.update_submission_refusals(step, by_itself))


def clear_submission_refusals(journal: Journal, outcome: StepOutcome) -> None:
    """Clear the refusals of tokens that were sold or are exits no longer; a swap that succeeds ends every row of failures."""
    refusals = outcome.step_input.history.late
    if refusals and (kept := exits.open_submission_refusals(outcome.step_input, outcome.decided.leaves)) != refusals:
        journal.mark_submission_refusals(kept)


def _least_refused_first(step: StepInput, leaves: Sequence[str]) -> list[str]:
    """Sort exits by the number of refusals, fewest first, so that none is always tried first."""
    times = {one.token: one.times for one in step.history.late}
    return sorted(leaves, key=lambda token: times.get(token, 0))


def _dry_run(outcome: StepOutcome, composer: Composer) -> Refused | bool:
    """Return the refusal that the plan would meet now; True if its simulation succeeds, False if it cannot be tried yet."""
    plan = outcome.plan
    if outcome.kind is not OutcomeKind.PLANNED or plan is None or plan.actions:
        return False
    try:
        if composer.approvals(outcome.step_input, plan):
            return False
        composer.swap(outcome.step_input, plan)
    except Refused as why:
        return why
    return True


def _concerns_trade(why: Refused) -> bool:
    guards = {verdict.guard for verdict in why.verdicts if not verdict.passed}
    return isinstance(why, UnsendableTransaction | TokenRefused) or (bool(guards) and guards <= TRADE_SIGNER_RULES)


def _blocked_exit(token: str, why: Refused) -> BlockedExit:
    return BlockedExit(token, f"refused when it was about to be sent: {why.message}", exits.RETRY_REMEDY)
