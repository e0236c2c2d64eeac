"""One payment out of the wallet: judged on a fresh snapshot, written down, sent, followed, booked; like every other transaction."""

from __future__ import annotations

import uuid

from agent import codec
from agent.errors import Refused, TrimtabError
from agent.execution.booking import settle
from agent.execution.fresh import CaughtUp, Eyes
from agent.execution.outcome import Hands
from agent.guards import payout as guards
from agent.model import ByHand, Intent, Payout, StepInput
from agent.policy import aside
from agent.ports import Journal


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
