"""An exit that passed every guard and is refused when it is about to be sent: whose refusal that is, and what is left alone for it.

A token can pass its screen and refuse the router, answer approvals with lies, or burn the gas of a simulation. It must hold back
its own sale and no other's; nothing that was refused is sent, and whatever is no fault of its legs refuses the step as ever.
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

# --- What becomes of an exit whose plan the guards refuse for its market: the others go on without it, and it is said.


REFUSED_TOGETHER = "it was refused together with another exit, which goes first"
ONE_EXIT_PER_STEP = "too many transactions failed in a row, so exits go one by one and another goes first"


def without_refused_exits(outcome: StepOutcome, judge: Callable[[StepInput], StepOutcome]) -> StepOutcome:
    """The outcome; where it is a refused exit that of the step without what of it is refused by itself.

    Each asset that it sells is judged alone, so that one bad pool holds back its own asset and no other. After too many reverts in
    a row one of them goes alone, another after the next revert: who pushes a single pool must not hold back the others.
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
    )  # what is left alone already and refused all the same stays refused


def _one_exit_alone(outcome: StepOutcome, judge: Callable[[StepInput], StepOutcome]) -> StepOutcome | None:
    """The outcome of the first exit in turn that can go alone; None where they go together, or none of them can."""
    step, leaves = outcome.step_input, outcome.decided.leaves
    reverts = step.history.reverts_in_row
    if outcome.kind is not OutcomeKind.PLANNED or len(leaves) < 2 or reverts < failures.MAX_REVERTS_IN_ROW:
        return None
    first = (reverts - failures.MAX_REVERTS_IN_ROW) % len(leaves)
    for goes in (*leaves[first:], *leaves[:first]):
        waits = [BlockedExit(one, ONE_EXIT_PER_STEP, "nothing has to be done") for one in leaves if one != goes]
        alone = judge(exits.exclude_blocked_exits(step, waits))
        if alone.kind is OutcomeKind.PLANNED and alone.decided.leaves == (goes,):
            return alone
    return None


def _market_refused_exits(outcome: StepOutcome) -> tuple[str, ...]:
    """What the exit of an order would have sold that guards of its market alone refuse; empty for everything else."""
    plan, failing = outcome.plan, _failing(outcome)
    if outcome.kind is not OutcomeKind.REFUSED or plan is None or not plan.exits or not outcome.decided.leaves:
        return ()
    if not exits.is_sold_by_orders(outcome.step_input, outcome.decided.leaves):
        return ()
    return outcome.decided.leaves if failing and {one.guard for one in failing} <= MARKET_GUARDS else ()


def _refusal_and_remedy(outcome: StepOutcome) -> tuple[str, str]:
    """(why, remedy) of an exit that was judged alone."""
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
    """What an exit needs was refused, and it is about these tokens alone."""

    def __init__(self, tokens: Sequence[str], message: str, verdicts: Sequence[Verdict] = (), remedy: str = "") -> None:
        super().__init__(message, verdicts, remedy)
        self.tokens = tuple(tokens)


def missing_approvals(
    composer: Composer, outcome: StepOutcome, plan: Plan, sent: Sequence[Intent], last: bool = False
) -> Sequence[Approval]:
    """The approvals that the plan lacks. Raises OfTokens for an exit whose token does not tell its allowance, or keeps none.

    `last`: no plan follows that could use them, so what lacks now is not sold in this step.
    """
    step, leaves = outcome.step_input, outcome.decided.leaves
    try:
        found = composer.approvals(step, plan)
    except Refused as why:
        told = {one.token for one in step.snapshot.allowances if one.spender == step.execution.router}
        if silent := [token for token in leaves if token not in told]:
            raise TokenRefused(silent, why.message, why.verdicts, why.remedy) from None
        raise
    done = [intent.tx.to for intent in sent if intent.succeeded and intent.kind.value == "approve"]
    if vain := [one for one in found if one.token in leaves and (last or done.count(one.token) > MAX_INEFFECTIVE_APPROVALS)]:
        raise TokenRefused([one.token for one in vain], f"{vain[0].label} was approved and may not be taken all the same")
    return found


def require_approval_succeeded(intent: Intent, goes: Sequence[str]) -> None:
    """Raises OfTokens for an approval of what an exit sells that the chain reverted."""
    if intent.receipt is not None and not intent.succeeded and intent.tx.to in goes:
        raise TokenRefused((intent.tx.to,), f"«{intent.note}» reverted")


def require_no_new_exclusions(said: StepOutcome, now: StepOutcome, remedy: str) -> None:
    """Raises OfTokens for what is in quarantine, or an exit that cannot be done, and was not when the plan was confirmed: approving may
    have changed it.
    """
    step, unknown = now.step_input, "which the plan that was confirmed did not know"
    if shut := {one.token for one in step.quarantine} - {one.token for one in said.step_input.quarantine}:
        raise TokenRefused(sorted(shut), f"{quarantine.format_quarantine(step, shut)}, {unknown}", remedy=remedy)
    if stays := {one.token for one in step.stuck} - {one.token for one in said.decided.stuck}:
        told = "; ".join(
            f"{step.portfolio.token(one.token).label} cannot be sold now: {one.why}" for one in step.stuck if one.token in stays
        )
        raise TokenRefused(sorted(stays), f"{told}, {unknown}", remedy=remedy)


def require_still_held(said: StepOutcome, now: StepOutcome, remedy: str) -> None:
    """Raises OfTokens for what was confirmed to be sold and cannot be any more, also where nothing is left to do: its token may hide it,
    or spoil its market, once it may be taken.
    """
    had, step = native_coin.held_balances(said.step_input), now.step_input
    has, left = native_coin.held_balances(step), {*now.decided.leaves} | exits.excluded_tokens(step)
    if {*said.decided.leaves} & exits.excluded_tokens(step):
        require_no_new_exclusions(said, now, remedy)
    if gone := [token for token in said.decided.leaves if token not in left and has.get(token, 0) < had.get(token, 0)]:
        told = ", ".join(step.portfolio.token(token).label for token in gone)
        raise TokenRefused(gone, f"{told} was to be sold and is not there any more", remedy=remedy)


def exits_to_skip(
    refusal: Refused, outcome: StepOutcome, goes: Sequence[str], composer: Composer, judge: EvaluateInput
) -> tuple[BlockedExit, ...]:
    """What to leave alone, for this step, so that all else may go on; empty where the refusal is of the whole step.

    `goes` is what the exit that was confirmed sells. An exit of several assets is tried by each alone: what is refused alone is
    left, and where none is, they go one after the other. Where no other exit goes through to show that it is not the router,
    the endpoint or the wallet that refuses, what there is besides must not be refused either, as far as that can be tried now; where
    exits wait for this one, they show it, and it goes last next time.
    """
    if isinstance(refusal, TokenRefused):
        ours = {*refusal.tokens} <= {*goes}
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
    """Writes down what was refused by itself; what only waits for another is tried at the next look."""
    if by_itself := [one for one in left if one.why != REFUSED_TOGETHER_AT_SUBMISSION]:
        journal.mark_submission_refusals(exits.update_submission_refusals(step, by_itself))


def clear_submission_refusals(journal: Journal, outcome: StepOutcome) -> None:
    """Forgets what was sold, and what is no exit any more: a swap that succeeded ends every row of failures."""
    late = outcome.step_input.history.late
    if late and (kept := exits.open_submission_refusals(outcome.step_input, outcome.decided.leaves)) != late:
        journal.mark_submission_refusals(kept)


def _least_refused_first(step: StepInput, leaves: Sequence[str]) -> list[str]:
    """What was refused least goes first, so that none goes before the others again and again."""
    times = {one.token: one.times for one in step.history.late}
    return sorted(leaves, key=lambda token: times.get(token, 0))


def _dry_run(outcome: StepOutcome, composer: Composer) -> Refused | bool:
    """Why what is planned would be refused now; True where its simulation succeeds, False where that cannot be tried yet."""
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
