"""What the proposals that wait for an external signer wait for, for the status of a portfolio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from agent.chain.safe import SafeContract
from agent.errors import Retryable
from agent.execution.evaluation import low_minimums_at
from agent.model import Intent, IntentState, StepInput
from agent.units import format_time
from agent.wiring.context import AgentContext


def waiting_proposals(context: AgentContext, step: StepInput) -> Iterator[str]:
    """Yield a sentence about each open proposal: its signatures, its end, and what to do, or that it is
    stale. Reads the
    owners of the Safe while one waits.
    """
    proposed_ids = context.store.proposals.proposal_blocks()
    if not proposed_ids:
        return
    for intent in context.store.journal.open_intents():
        if intent.state is IntentState.PLANNED and intent.id in proposed_ids:
            yield f'The proposal {intent.id} ("{intent.note}") {_waits_for(context, step, intent)}'


def _waits_for(context: AgentContext, step: StepInput, intent: Intent) -> str:
    snapshot = step.snapshot
    settled_text = "trimtab rebalance --send settles it and goes on."
    if snapshot.nonce_latest > intent.tx.nonce:
        return f"waits no longer, since its nonce is used: {settled_text}"
    if intent.deadline_s is not None and snapshot.head.timestamp_s >= intent.deadline_s:
        return f"has expired: {settled_text}"
    if reason := low_minimums_at(step, context.store.journal.grant(intent.id).plan):
        return f"is stale, {reason}: do not sign it; trimtab cancel withdraws it."
    until_text = "" if intent.deadline_s is None else f" until {format_time(intent.deadline_s)}"
    if context.config.wallet.safe:
        with suppress(Retryable):
            safe = SafeContract(context.transport, context.config.wallet.address)
            next_act = safe.next_act(context.store.proposals.signatures(intent.id))
            return f"awaits {next_act.awaited}{until_text}: {next_act.instruction}."
    return f"awaits its external signer{until_text}."
