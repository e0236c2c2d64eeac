"""Intents that have ended, in the store."""

from __future__ import annotations

from dataclasses import replace

from agent.model import Intent, IntentKind, IntentState, Plan
from agent.store import Store
from tests.support.transactions import OTHER, START_S, grant, receipt, record_sent, tx


def ended_intent(
    store: Store,
    nonce: int,
    *,
    kind: IntentKind = IntentKind.SWAP,
    status: int = 1,
    transfers: tuple = (),
    plan: Plan | None = None,
    step_id: str = "s",
    to: str = OTHER,
    gas_used: int = 50_000,
    is_final: bool = True,
) -> Intent:
    """An intent whose transaction is in a block, and final if not said otherwise."""
    tx_hash = f"0x{nonce:064x}"
    unsigned = replace(tx(nonce), to=to)
    granted = replace(grant(kind), plan=plan)
    intent = store.journal.add_intent(step_id, unsigned, granted, "swap", START_S, None)
    mined_receipt = replace(receipt(tx_hash, nonce, f"0x{nonce:02x}", status), transfers=transfers, gas_used=gas_used)
    mined_intent = record_sent(store.journal, intent, tx_hash, receipt=mined_receipt)
    if not is_final:
        return mined_intent
    return store.journal.advance(intent.id, IntentState.FINAL if status else IntentState.REVERTED, START_S)
