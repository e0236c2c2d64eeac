"""Approvals of a step: sent one by one, and taken back where what they were for did not come about."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from agent import codec
from agent.errors import Refused, Retryable, TrimtabError, Unfit
from agent.execution.carrier import may_take
from agent.execution.exits import OfTokens
from agent.execution.settlement import poorer, settle
from agent.execution.step_context import CaughtUp, Eyes, Hands, Outcome, OutcomeKind
from agent.guards import portfolio as guards
from agent.model import ByHand, Intent, IntentKind, Payout, StepInput
from agent.policy.cash_flows import balance_changes as aside
from agent.ports import Approval, Journal, Prepared

VAIN, LOOKED_BACK = 3, 12
"""Times in a row that an allowance is set to zero and told all the same, among so many of our newest transactions, until it is left."""


def approve(hands: Hands, outcome: Outcome, needed: Sequence[Approval], sent: list[Intent]) -> None:
    """Sends approvals until one fails; the gas money of each counts for the next. Afterwards the plan has to be made anew.

    Raises OfTokens where the token itself refuses to be approved.
    """
    step_input = outcome.step_input
    for approval in needed:
        try:
            intent = carry(hands, outcome.step_id, hands.composer.approve(step_input, approval))
        except Unfit as why:
            raise OfTokens((approval.token,), why.message, why.verdicts, why.remedy) from None
        sent.append(intent)
        if not intent.succeeded:
            return
        step_input = poorer(step_input, intent)


def carry(hands: Hands, step_id: str, prepared: Prepared) -> Intent:
    """One prepared transaction, through to its end."""
    return hands.executor.run(step_id, prepared.grant.kind, prepared.tx, prepared.grant, prepared.note)


def tidy(eyes: Eyes, hands: Hands, journal: Journal, outcome: Outcome) -> Outcome:
    """Sets what may still be taken to zero, each allowance by a transaction of its own, after whatever end.

    Not while paused, with anything unfinished, or with nothing confirmed; under the same limits of gas. What cannot be taken back now
    is told, and tried again after the next step; not what a token tells though it was set to zero again and again, for gas each time.
    """
    if (outcome.kind is OutcomeKind.DECLINED and not outcome.transactions) or not hands.executor.ready():
        return outcome
    sent = list(outcome.transactions)
    try:
        found = outcome.after or (eyes.assembled(eyes.reader.snapshot()) if sent else outcome.step_input)
        open_still = hands.composer.left_over(found)
        vain = [approval for approval in open_still if _vain(journal, approval)]
        open_still = [approval for approval in open_still if approval not in vain]
        if vain:
            told = f"{may_take(vain)}, though it was set to zero {VAIN} times; find out what its token does, or trimtab revoke"
            outcome = replace(outcome, reason=f"{outcome.reason}; {told}")
        if not open_still:
            return outcome
        told = may_take(open_still)
        if not sent and not hands.confirm(replace(outcome, reason=f"{outcome.reason}; {told}: set to zero")):
            return outcome
        troubles = take_back(hands, outcome.step_id, found, open_still, sent)
        snapshot = eyes.reader.snapshot()
        settle(journal, snapshot, lambda: eyes.assembled(snapshot))
        if not troubles:
            after = None if outcome.after is None else eyes.assembled(snapshot)
            return replace(outcome, transactions=tuple(sent), after=after)
        told = f"left-over allowances stay: {'; '.join(troubles)}"
    except TrimtabError as error:
        told = f"left-over allowances stay: {error.message}"
    return replace(outcome, transactions=tuple(sent), reason=f"{outcome.reason}; {told}")


def take_back(hands: Hands, step_id: str, step_input: StepInput, allowed: Sequence[Approval], sent: list[Intent]) -> list[str]:
    """Sends each of these approvals to zero, and says what stands against which; what one token refuses stops no other."""
    troubles: list[str] = []
    for approval in allowed:
        try:
            intent = carry(hands, step_id, hands.composer.approve(step_input, approval))
        except Refused as refusal:
            troubles.append(f"{approval.label}: {refusal.message}")
            continue
        except Retryable as error:
            troubles.append(error.message)
            break
        sent.append(intent)
        if not intent.succeeded:
            troubles.append(f"{approval.label}: «{intent.note}» did not succeed")
        step_input = poorer(step_input, intent)
    return troubles


def _vain(journal: Journal, approval: Approval) -> bool:
    """Whether what was mined last for it set it to zero, so often that its token does not tell the truth."""
    zeroed, end = 0, journal.expected_nonce() or 0
    for nonce in range(end - 1, max(-1, end - 1 - LOOKED_BACK), -1):
        for intent in journal.intents_at(nonce):
            granted = journal.grant(intent.id).approve if intent.kind is IntentKind.APPROVE and intent.succeeded else None
            if granted is None or granted[:2] != (approval.token, approval.spender):
                continue
            zeroed += 1
            if granted[2] > 0 or zeroed == VAIN:
                return granted[2] == 0
    return False


# --- One payment out of the wallet: judged on a fresh snapshot, written down, sent, followed, booked; like every other transaction.


def pay(eyes: Eyes, journal: Journal, hands: Hands, payout: Payout, confirmed: tuple[str, ...]) -> Intent:
    """Makes one payment, judged on the newest snapshot; the intent as it ended. The kill switch is read where it is sent.

    Raises Refused, with every verdict, before anything is sent; Retryable and OperatorNeeded like a step.
    """
    step = aside.given_back(present(eyes, journal))
    step_id = uuid.uuid4().hex[:12]
    journal.begin_step(step_id, eyes.clock.now_s(), codec.dumps(step), codec.dumps(ByHand("payout")))
    try:
        guards.require(guards.judge(step, payout, confirmed))
        prepared = hands.composer.payout(step, payout)
        intent = hands.executor.run(step_id, prepared.grant.kind, prepared.tx, prepared.grant, prepared.note)
    except TrimtabError as error:
        journal.end_step(step_id, "payout", str(error), None, "refused" if isinstance(error, Refused) else "error")
        raise
    present(eyes, journal)
    journal.end_step(step_id, "payout", prepared.note, None, "done" if intent.succeeded else "failed")
    return intent


def present(eyes: Eyes, journal: Journal) -> StepInput:
    """The newest step input, at or after our own last transaction, with everything mined booked."""
    snapshot = CaughtUp(eyes.reader, journal, eyes.clock).snapshot()

    def assembled() -> StepInput:
        return eyes.assemble(snapshot, eyes.history(snapshot.head.timestamp_s))

    settle(journal, snapshot, assembled)
    return assembled()
