"""Send the approvals of a step one by one, revoke leftover allowances, and make single payments."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from agent import codec
from agent.errors import Refused, Retryable, TrimtabError, UnsendableTransaction
from agent.execution.exits import TokenRefused
from agent.execution.settlement import after_gas, settle_mined
from agent.execution.step_context import CaughtUpReader, OutcomeKind, StepActors, StepOutcome, StepReaders
from agent.execution.submitter import format_open_allowances
from agent.guards import portfolio
from agent.model import Intent, IntentKind, ManualAction, Payout, StepInput
from agent.policy.cash_flows import balance_changes
from agent.ports import Approval, Journal, PreparedTransaction

MAX_RESETS, RESET_LOOKBACK_NONCES = 3, 12
"""Consecutive revocations of an allowance that the token still reports before it is left, and the number of newest nonces searched."""


def approve(actors: StepActors, outcome: StepOutcome, needed: Sequence[Approval], sent: list[Intent]) -> None:
    """Send approvals until one fails; the gas money of each counts for the next. The plan has to be made anew afterwards.

    Raises TokenRefused if the token itself refuses the approval.
    """
    step_input = outcome.step_input
    for approval in needed:
        try:
            intent = execute_prepared(actors, outcome.step_id, actors.composer.approve(step_input, approval))
        except UnsendableTransaction as why:
            raise TokenRefused((approval.token,), why.message, why.verdicts, why.remedy) from None
        sent.append(intent)
        if not intent.succeeded:
            return
        step_input = after_gas(step_input, intent)


def execute_prepared(actors: StepActors, step_id: str, prepared: PreparedTransaction) -> Intent:
    """Carry one prepared transaction through to its end."""
    return actors.executor.run(step_id, prepared.grant.kind, prepared.tx, prepared.grant, prepared.note)


def revoke_leftovers(readers: StepReaders, actors: StepActors, journal: Journal, outcome: StepOutcome) -> StepOutcome:
    """Set open allowances to zero, each by its own transaction, however the step ended. The limits of gas apply.

    Sends nothing while paused, with a transaction unfinished, or if nothing was confirmed. An allowance that cannot be revoked is reported
    and tried again after the next step, unless it was set to zero many times and the token still reports it.
    """
    if (outcome.kind is OutcomeKind.DECLINED and not outcome.transactions) or not actors.executor.ready():
        return outcome
    sent = list(outcome.transactions)
    try:
        found = outcome.after or (readers.step_input_at(readers.reader.snapshot()) if sent else outcome.step_input)
        open_still = actors.composer.open_approvals(found)
        vain = [approval for approval in open_still if _reset_in_vain(journal, approval)]
        open_still = [approval for approval in open_still if approval not in vain]
        if vain:
            message = (
                f"{format_open_allowances(vain)}, though it was set to zero {MAX_RESETS} times; find out what its token "
                "does, or trimtab revoke"
            )
            outcome = replace(outcome, reason=f"{outcome.reason}; {message}")
        if not open_still:
            return outcome
        message = format_open_allowances(open_still)
        if not sent and not actors.confirm(replace(outcome, reason=f"{outcome.reason}; {message}: set to zero")):
            return outcome
        troubles = set_to_zero(actors, outcome.step_id, found, open_still, sent)
        snapshot = readers.reader.snapshot()
        settle_mined(journal, snapshot, lambda: readers.step_input_at(snapshot))
        if not troubles:
            after = None if outcome.after is None else readers.step_input_at(snapshot)
            return replace(outcome, transactions=tuple(sent), after=after)
        message = f"left-over allowances stay: {'; '.join(troubles)}"
    except TrimtabError as error:
        message = f"left-over allowances stay: {error.message}"
    return replace(outcome, transactions=tuple(sent), reason=f"{outcome.reason}; {message}")


def set_to_zero(actors: StepActors, step_id: str, step_input: StepInput, allowed: Sequence[Approval], sent: list[Intent]) -> list[str]:
    """Revoke each of these approvals and report the reason for every failure; one token's refusal does not stop the others."""
    troubles: list[str] = []
    for approval in allowed:
        try:
            intent = execute_prepared(actors, step_id, actors.composer.approve(step_input, approval))
        except Refused as refusal:
            troubles.append(f"{approval.label}: {refusal.message}")
            continue
        except Retryable as error:
            troubles.append(error.message)
            break
        sent.append(intent)
        if not intent.succeeded:
            troubles.append(f"{approval.label}: «{intent.note}» did not succeed")
        step_input = after_gas(step_input, intent)
    return troubles


def _reset_in_vain(journal: Journal, approval: Approval) -> bool:
    """True if its newest MAX_RESETS mined approvals all set it to zero: the token misreports its allowance."""
    zeroed, end = 0, journal.expected_nonce() or 0
    for nonce in range(end - 1, max(-1, end - 1 - RESET_LOOKBACK_NONCES), -1):
        for intent in journal.intents_at(nonce):
            granted = journal.grant(intent.id).approve if intent.kind is IntentKind.APPROVE and intent.succeeded else None
            if granted is None or granted[:2] != (approval.token, approval.spender):
                continue
            zeroed += 1
            if granted[2] > 0 or zeroed == MAX_RESETS:
                return granted[2] == 0
    return False


# --- One payment out of the wallet: judged on a fresh snapshot, recorded, sent, followed and booked like every transaction.


def pay(readers: StepReaders, journal: Journal, actors: StepActors, payout: Payout, confirmed: tuple[str, ...]) -> Intent:
    """Make one payment, judged on the newest snapshot, and return its intent as it ended. The kill switch is read when it is sent.

    Raises Refused with every verdict before anything is sent, and Retryable and OperatorNeeded like a step.
    """
    step = balance_changes.restore_excluded(current_step_input(readers, journal))
    step_id = uuid.uuid4().hex[:12]
    journal.begin_step(step_id, readers.clock.now_s(), codec.dumps(step), codec.dumps(ManualAction("payout")))
    try:
        portfolio.require_payout_allowed(portfolio.judge_payout(step, payout, confirmed))
        prepared = actors.composer.payout(step, payout)
        intent = actors.executor.run(step_id, prepared.grant.kind, prepared.tx, prepared.grant, prepared.note)
    except TrimtabError as error:
        journal.end_step(step_id, "payout", str(error), None, "refused" if isinstance(error, Refused) else "error")
        raise
    current_step_input(readers, journal)
    journal.end_step(step_id, "payout", prepared.note, None, "done" if intent.succeeded else "failed")
    return intent


def current_step_input(readers: StepReaders, journal: Journal) -> StepInput:
    """Return the newest step input, at or after our own last transaction, with everything mined booked."""
    snapshot = CaughtUpReader(readers.reader, journal, readers.clock).snapshot()
    assembled = partial(readers.step_input_at, snapshot)
    settle_mined(journal, snapshot, assembled)
    return assembled()
