"""Nonces that may be signed: from the journal, never from the transaction."""

from __future__ import annotations

from agent.model import Intent, IntentState
from agent.store.journal.intents import IntentStore


def open_transactions(journal: IntentStore) -> list[Intent]:
    """Return the open on-chain intents, oldest first."""
    return [intent for intent in journal.open_intents() if not intent.tx.is_venue_order]


_SIGNED_STATES = (IntentState.SIGNED, IntentState.BROADCAST)


def max_tip_by_nonce(journal: IntentStore) -> dict[int, int | None]:
    """Return the next nonce and those of signed, unmined transactions, each with the highest tip
    signed at it. Planned intents do not count, because their nonces are unverified. Empty while the
    journal has no nonce.
    """
    next_nonce = journal.expected_nonce()
    tip_by_nonce: dict[int, int | None] = {} if next_nonce is None else {next_nonce: None}
    for intent in open_transactions(journal):
        if intent.state in _SIGNED_STATES:
            nonce = intent.tx.nonce
            tip_by_nonce[nonce] = max(
                tip_by_nonce.get(nonce) or 0, intent.tx.max_priority_fee_wei or 0
            )
    return tip_by_nonce
