"""What recorded signatures of proposals still allow while the agent is paused, or make of a cancel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.chain.safe import SafeContract
from agent.chain.sender import QuorumSender
from agent.errors import TrimtabError
from agent.execution.submission.proposal_words import (
    NOT_TAKEN_BACK,
    chain_deadline_s,
    execution_period,
    is_dropped,
    rejected_advice,
)
from agent.model import Intent, IntentKind, IntentState
from agent.wiring.context import SystemClock, open_endpoint_pool

if TYPE_CHECKING:
    from agent.config.loaded import LoadedConfig
    from agent.config.schema import Config
    from agent.store.store import Store


@dataclass(frozen=True, slots=True)
class CancelEffect:
    """What `trimtab cancel --send` does with a proposal, as a clause without its subject, and whether it
    may be to propose a rejection, also of a dropped one with too few recorded signatures.
    """

    text: str
    may_reject: bool = False
    has_too_few: bool = False


def cancel_effects(
    loaded_config: LoadedConfig, store: Store, intents: Sequence[Intent]
) -> list[CancelEffect]:
    """Return what a cancel does with each of these that is a proposal. Reads the Safe for what an owner
    has signed.
    """
    proposed_ids = store.proposals.proposal_blocks()
    return [
        _cancel_effect(loaded_config.config, store, intent)
        for intent in intents
        if intent.id in proposed_ids
    ]


def _cancel_effect(config: Config, store: Store, intent: Intent) -> CancelEffect:
    from agent.chain.providers.quorum import QuorumProvider  # web3 is loaded to connect only

    signers = store.proposals.signatures(intent.id)
    withdrawal_text = f"withdraws the proposal {intent.id}"
    if not signers or intent.kind is IntentKind.CANCEL:
        return CancelEffect(withdrawal_text)
    try:
        endpoints = open_endpoint_pool(config, None, SystemClock())
        now_s = QuorumSender(endpoints, config.chain.chain_id).head().timestamp_s
        safe = SafeContract(QuorumProvider(endpoints), config.wallet.address)
        is_used = safe.nonce() > intent.tx.nonce
        count_text, is_enough = safe.count_text(signers)
    except TrimtabError as error:
        return CancelEffect(
            f"{withdrawal_text}, or proposes its rejection if enough owners of the Safe have signed,"
            f" which the chain does not say now: {error.message}",
            may_reject=True,
        )
    if is_used:
        return CancelEffect(f"settles the proposal {intent.id}, since its nonce is used")
    deadline_s = chain_deadline_s(intent, store.journal.grant(intent.id))
    if deadline_s is not None and now_s >= deadline_s:
        return CancelEffect(f"{withdrawal_text}, which has expired")
    if not is_enough and is_dropped(intent):
        return CancelEffect(
            f"proposes the rejection of the proposal {intent.id}, for the owners to sign, since with"
            f" {count_text} here others given elsewhere could let anyone execute the proposal",
            may_reject=True,
            has_too_few=True,
        )
    if not is_enough:
        return CancelEffect(f"{withdrawal_text} ({count_text})")
    peers = store.journal.open_intents()
    waits = any(
        peer.kind is IntentKind.CANCEL and peer.tx.nonce == intent.tx.nonce for peer in peers
    )
    act_text = "keeps" if waits else "proposes"
    return CancelEffect(
        f"{act_text} the rejection of the proposal {intent.id}, for the owners to sign, since"
        f" {count_text} let anyone execute the proposal",
        may_reject=True,
    )


def unstopped_texts(store: Store, chain_nonce: int = 0) -> tuple[str, ...]:
    """Return what a pause does not stop; nothing if the store cannot be read."""
    with suppress(TrimtabError):
        return signed_proposal_texts(store, chain_nonce)
    return ()


def signed_proposal_texts(store: Store, chain_nonce: int = 0) -> tuple[str, ...]:
    """Return what the recorded signatures of proposals allow, whatever the kill switch says: of those
    that wait, and of dropped ones that the chain still accepts. `chain_nonce` is the wallet's next
    nonce on the chain, as far as it was read: earlier ones are used.
    """
    intents = [
        intent for intent in store.journal.open_intents() if intent.state is IntentState.PLANNED
    ]
    intents += _dropped_intents(store)
    rejected_nonces = {intent.tx.nonce for intent in intents if intent.kind is IntentKind.CANCEL}
    count_by_id = {
        intent.id: len(store.proposals.signatures(intent.id))
        for intent in intents
        if intent.kind is not IntentKind.CANCEL and intent.tx.nonce >= chain_nonce
    }
    intent_by_call: dict[tuple[object, ...], Intent] = {}
    for intent in intents:  # signatures are of a call, not of the proposals that make it
        tx = intent.tx
        intent_by_call.setdefault((tx.nonce, tx.to, tx.value_wei, tx.data), intent)
    return tuple(
        f"signatures of the proposal {intent.id}: {count_by_id[intent.id]}; whoever has enough of them"
        f" can execute it {execution_period(intent, store.journal.grant(intent.id))}, paused or not;"
        f" {_voiding_text(intent, is_rejected=intent.tx.nonce in rejected_nonces)}"
        for intent in intent_by_call.values()
        if count_by_id.get(intent.id)
    )


def _dropped_intents(store: Store) -> list[Intent]:
    """Return the proposals at the next nonce that were given up here and that the chain still accepts,
    newest first.
    """
    next_nonce = store.journal.expected_nonce()
    now_s = int(time.time())
    intents = []
    for intent in () if next_nonce is None else reversed(store.journal.intents_at(next_nonce)):
        deadline_s = chain_deadline_s(intent, store.journal.grant(intent.id))
        if is_dropped(intent) and (deadline_s is None or now_s < deadline_s):
            intents.append(intent)
    return intents


def executable_dropped(
    loaded_config: LoadedConfig, store: Store
) -> tuple[Intent, CancelEffect] | None:
    """Return the newest proposal that was given up here although owners have signed it, of those that
    enough have signed if there is one, and what a cancel does with it; None without one, and while a
    proposal waits in its place. Reads the Safe if one is signed.
    """
    proposed_ids = store.proposals.proposal_blocks()
    if any(intent.id in proposed_ids for intent in store.journal.open_intents()):
        return None
    rejectable = [
        (intent, effect)
        for intent in _dropped_intents(store)
        for effect in cancel_effects(loaded_config, store, [intent])
        if effect.may_reject
    ]
    return min(rejectable, key=lambda dropped: dropped[1].has_too_few, default=None)


def rejected_proposal_texts(store: Store) -> list[str]:
    """Return a sentence about each proposal that waits for its rejection."""
    intents = [
        intent for intent in store.journal.open_intents() if intent.state is IntentState.PLANNED
    ]
    rejection_by_nonce = {
        intent.tx.nonce: intent for intent in intents if intent.kind is IntentKind.CANCEL
    }
    return [
        f"the proposal {intent.id} waits for its rejection: {rejected_advice(rejection)}"
        for intent in intents
        if intent.kind is not IntentKind.CANCEL
        and (rejection := rejection_by_nonce.get(intent.tx.nonce)) is not None
    ]


def _voiding_text(intent: Intent, *, is_rejected: bool) -> str:
    if is_rejected:
        return "it is void once its rejection is executed: trimtab proposal list"
    if is_dropped(intent):
        return (
            f"it is proposed no more, and another transaction at nonce {intent.tx.nonce} makes it void,"
            " such as its rejection: trimtab pause --hard --send proposes that if enough have signed,"
            " trimtab cancel --send after it in any case"
        )
    return (
        "trimtab pause --hard --send withdraws it, or, once enough have signed, proposes the rejection"
        f" that makes it void; {NOT_TAKEN_BACK}"
    )
