"""What proposals wait for, and what to do with them, in words."""

from __future__ import annotations

from collections.abc import Sequence

from agent.execution.submission.checks import only_undoes
from agent.guards import ProposalFault
from agent.model import Collect, Intent, IntentKind, IntentState, UnsignedTx
from agent.ports import Grant, NextAct, Simulation
from agent.signing.batches import is_batch
from agent.store.journal.intents import IntentStore
from agent.store.journal.proposals import ProposalStore
from agent.units import format_time

NOT_TAKEN_BACK = (
    "a rejection is not taken back, not even when the pause ends: what it rejects is neither signed nor"
    " executed here any more"
)
"""What a proposed rejection means for the proposal."""
WITHDRAWAL_ADVICE = (
    "trimtab cancel --send withdraws it, or proposes its rejection if enough owners of a Safe have"
    " signed (while paused: trimtab pause --hard --send)"
)
"""How a proposal that nobody should execute is withdrawn."""
DO_NOT_SIGN = "do not sign it, nor execute it"
"""Advice about a proposal that would fail, or whose minimums are too low."""
UNCHECKED_ADVICE = f"{DO_NOT_SIGN} before it can be checked"
"""Advice about a proposal that no endpoint can simulate, or whose Safe cannot be read."""
HARD_PAUSE_ADVICE = "pause hard, which allows it: trimtab pause --hard --send; then "
"""What comes before the advice to sign or execute a rejection or a revocation while a pause forbids it:
the pause stays.
"""
UNWANTED_ADVICE = (
    "if it is not wanted either: trimtab pause --hard --send withdraws it, and nothing is proposed"
    " until trimtab resume; before that, trimtab edit changes the targets or the trigger"
)
"""What to do with a proposal of a trade that the owners have rejected before."""


def chain_deadline_s(intent: Intent, grant: Grant) -> int | None:
    """Return the Unix seconds until which the chain accepts a proposed call; None for a call without
    a deadline there, which is any but a trade, and the collection of a position's fees.
    """
    has_deadline = intent.kind in (IntentKind.SWAP, IntentKind.LIQUIDITY)
    is_collection = isinstance(grant.layer_action, Collect)
    return intent.deadline_s if has_deadline and not is_collection else None


def is_dropped(intent: Intent) -> bool:
    """True if a proposed call was given up here: nobody is known to have sent it."""
    return intent.state is IntentState.CANCELLED and intent.tx_hash is None


def execution_period(intent: Intent, grant: Grant) -> str:
    """Return until when the chain accepts a proposed call, in words."""
    deadline_s = chain_deadline_s(intent, grant)
    return "at any time" if deadline_s is None else f"until {format_time(deadline_s)}"


def unsimulated_reason(tx: UnsignedTx, simulation: Simulation) -> str:
    """Return why the simulation of a proposal says nothing about it; "" if it does, or if a plain call
    failed without a revert, for example for its fee, which the signer may change.
    """
    if simulation.height_disagreement or simulation.reverted or not is_batch(tx.to, tx.data):
        return simulation.height_disagreement
    return simulation.reason


def stays_executable_text(intent: Intent) -> str:
    """Return what the chain accepts of a call without a deadline there, once it has expired here."""
    return f"signed by enough, it stays executable until another call uses nonce {intent.tx.nonce}"


def waiting_act(
    intent: Intent, grant: Grant, next_act: NextAct, pause_reason: str | None = None
) -> NextAct:
    """Return what a proposal awaits with until when, here and on the chain, and what to do with what
    allows it first while paused. `pause_reason` is None unless a pause forbids to sign it.
    """
    until_text = ""
    if intent.deadline_s is not None:
        until_text = f" until {format_time(intent.deadline_s)}"
        if chain_deadline_s(intent, grant) is None:
            until_text += f" here; {stays_executable_text(intent)}"
    pause_text = ""
    if pause_reason is not None:
        reason_text = f" ({pause_reason})" if pause_reason else ""
        pause_text = f"end the pause{reason_text} with trimtab resume, then "
        if only_undoes(grant):
            pause_text = HARD_PAUSE_ADVICE
    return NextAct(f"{next_act.awaited}{until_text}", f"{pause_text}{next_act.instruction}")


def withdrawn_proposal_texts(
    journal: IntentStore, proposals: ProposalStore, intents: Sequence[Intent], now_s: int
) -> list[str]:
    """Return a sentence about each of these intents that was withdrawn here as a proposal, and that the
    chain still accepts from whoever has its signatures. `now_s` is the chain's time.
    """
    proposed_ids = proposals.proposal_blocks()
    texts = []
    for intent in intents:
        grant = journal.grant(intent.id)
        deadline_s = chain_deadline_s(intent, grant)
        has_expired = deadline_s is not None and now_s >= deadline_s
        is_used = (journal.expected_nonce() or 0) > intent.tx.nonce
        if intent.id in proposed_ids and is_dropped(intent) and not (has_expired or is_used):
            rejection_text = ""
            if proposals.signatures(intent.id):
                rejection_text = ": the next trimtab cancel --send proposes its rejection"
            texts.append(
                f'"{intent.note}" is withdrawn, but signatures given elsewhere still count: if enough'
                f" exist, it can be executed {execution_period(intent, grant)}; only another transaction at nonce"
                f" {intent.tx.nonce} makes it void{rejection_text}"
            )
    return texts


def rejection_title(intent: Intent, why: str) -> str:
    """Return the title of the rejection of a proposal: what it rejects, and why."""
    return f"reject: {intent.note}; {why}"


def rejected_advice(rejection: Intent) -> str:
    """Return what remains to do with a proposal whose rejection waits."""
    return (
        f"have the rejection signed with trimtab proposal sign {rejection.id} and executed with trimtab"
        f" proposal execute {rejection.id} --send; once it is executed or has expired, the same can be"
        f" proposed anew; {NOT_TAKEN_BACK}"
    )


def fault_advice(fault: ProposalFault) -> str:
    """Return what to do with a proposal that has this fault."""
    advice = WITHDRAWAL_ADVICE if fault.is_stale else "trimtab status says when they are checked"
    return f"{DO_NOT_SIGN}: {advice}"
