"""The hard kill switch: cancels what waits, sets to zero what may still be taken, and trades nothing (T14)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent import codec
from agent.execution.approving import take_back
from agent.execution.booking import settle
from agent.execution.fresh import CaughtUp, Eyes
from agent.execution.outcome import Hands, Outcome, OutcomeKind
from agent.execution.sent import may_take
from agent.model import ByHand, Halt, Intent, IntentKind, IntentState, StepInput
from agent.policy.decide import decide
from agent.ports import Approval, Journal
from agent.store.journal import family
from agent.venues import spending

TAKEN_BACK = "retreat"
"""The decision of such a look in the store: no trigger's, so that nobody decides it again."""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What a hard pause is about: transactions that are in no block, and allowances above zero."""

    step_input: StepInput
    waiting: tuple[Intent, ...]
    allowed: tuple[Approval, ...]


def standing(eyes: Eyes, store: Journal) -> TakenBack:
    """What waits and what may still be taken now; writes and sends nothing."""
    step_input = _assembled(eyes)
    return TakenBack(step_input, waiting(store), tuple(spending.left_over(step_input)))


def waiting(store: Journal) -> tuple[Intent, ...]:
    """Open transactions whose nonce no block has yet, each with what it was sent again as."""
    found = store.open_intents()
    mined = {intent.tx.nonce for intent in found if intent.state is IntentState.MINED}
    return tuple(intent for intent in found if intent.tx.nonce not in mined)


def retreat(eyes: Eyes, store: Journal, hands: Hands, why: str) -> Outcome:
    """Cancels, then revokes, each through journal and signer. What one token refuses stops no other.

    HALT where nothing was left to do, DONE where all of it is done, FAILED where something stays, with what and why. Raises
    Refused unless the switch stands at hard or is off, Retryable and OperatorNeeded like a step.
    """
    before = waiting(store)
    hands.executor.abandon(why)
    eyes = replace(eyes, reader=CaughtUp(eyes.reader, store, eyes.clock))
    snapshot = eyes.reader.snapshot()
    settle(store, snapshot, lambda: eyes.assemble(snapshot, eyes.history(snapshot.head.timestamp_s)))
    step_input = eyes.assemble(snapshot, eyes.history(snapshot.head.timestamp_s))
    step_id = uuid.uuid4().hex[:12]
    store.begin_step(step_id, eyes.clock.now_s(), codec.dumps(step_input), codec.dumps(ByHand("pause --hard")))
    allowed = spending.left_over(step_input)
    sent, troubles = revoke(hands, step_id, step_input, allowed)
    after = _assembled(eyes) if sent else step_input
    if left := spending.left_over(after):
        troubles.append(may_take(left))
    troubles += [f"«{note}» still waits" for note in dict.fromkeys(intent.note for intent in waiting(store))]
    cancels = _cancels(store, before)
    reason = _told(why, before, cancels, sent, troubles)
    kind = OutcomeKind.FAILED if troubles else OutcomeKind.DONE if before or sent else OutcomeKind.HALT
    store.end_step(step_id, TAKEN_BACK, reason, None, kind.value)
    decided = replace(decide(step_input), decision=Halt(reason))
    return Outcome(step_id, kind, reason, step_input, decided, None, transactions=(*cancels, *sent), after=after)


def revoke(hands: Hands, step_id: str, step_input: StepInput, allowed: Sequence[Approval]) -> tuple[list[Intent], list[str]]:
    """Sends each of these approvals to zero; what was sent, and what stood against the others."""
    sent: list[Intent] = []
    if not hands.executor.ready(taking_back=True):
        return sent, ["allowances wait for what waits"] if allowed else []
    troubles = take_back(hands, step_id, step_input, allowed, sent)
    return sent, troubles


def _cancels(store: Journal, before: Sequence[Intent]) -> list[Intent]:
    """What became of the transactions that waited, and of what was sent to cancel them."""
    newest = {intent.tx.nonce: intent.id for intent in before}
    return [intent for nonce, known in newest.items() for intent in family(store.intents_at(nonce), known)]


def _told(why: str, before: Sequence[Intent], cancels: Sequence[Intent], sent: Sequence[Intent], troubles: Sequence[str]) -> str:
    if not before and not sent and not troubles:
        return f"hard pause ({why}): nothing waits, and nothing may be taken"
    won = [intent for intent in cancels if intent.succeeded and intent.kind is not IntentKind.CANCEL]
    nonces = len({intent.tx.nonce for intent in before})
    parts = [f"{nonces - len(won)} of {nonces} waiting transactions taken back"] if before else []
    parts += [f"«{intent.note}» was mined all the same" for intent in won]
    parts += [f"{sum(intent.succeeded for intent in sent)} of {len(sent)} allowances set to zero"] if sent else []
    return f"hard pause ({why}): {'; '.join([*parts, *troubles])}"


def _assembled(eyes: Eyes) -> StepInput:
    snapshot = eyes.reader.snapshot()
    return eyes.assemble(snapshot, eyes.history(snapshot.head.timestamp_s))
