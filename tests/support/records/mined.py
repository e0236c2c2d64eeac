"""Mined intents in the store."""

from __future__ import annotations

from agent.model import IntentKind
from agent.store import Store
from tests.support.transactions import START_S, grant, receipt, record_sent, tx


def add_mined_intent(store: Store, nonce: int, kind: IntentKind = IntentKind.SWAP, status: int = 1) -> None:
    store.steps.begin(f"s{nonce}", START_S, "{}")
    intent = store.journal.add_intent(f"s{nonce}", tx(nonce), grant(kind), "", START_S, None)
    record_sent(store.journal, intent, f"0x{nonce}", receipt=receipt(f"0x{nonce}", nonce, "0x01", status))
