"""Mined intents in the store."""

from __future__ import annotations

from agent.model import IntentKind, IntentState
from agent.store import Store
from tests.support.transactions import START_S, grant, receipt, tx


def add_mined_intent(store: Store, nonce: int, kind: IntentKind = IntentKind.SWAP, status: int = 1) -> None:
    store.steps.begin(f"s{nonce}", START_S, "{}")
    intent = store.journal.add_intent(f"s{nonce}", kind, tx(nonce), grant(kind), "", START_S, None)
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=f"0x{nonce}")
    store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
    store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=receipt(f"0x{nonce}", nonce, "0x01", status))
