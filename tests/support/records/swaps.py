"""Mined swaps of an execution in parts, in the store."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import IntentKind, IntentState, Receipt, Transfer, UnsignedTx
from agent.ports import Grant
from agent.store import Store
from tests.support.builders import OWNER, address, token

WETH = token("WETH").address
USDC = token("USDC").address
PRICE = Fraction(2_000 * 10**6, 10**18)
POOL = address("pool")
TX = UnsignedTx(31337, 0, address("router"), 0, "0x", 100_000, 10**9, 10**9, None)
GRANT = Grant(IntentKind.SWAP, 1_000, 2_000, 10**16)


def swap(store: Store, step_id: str, nonce: int, weth_raw: int, usdc_raw: int, gas_used: int = 100_000, status: int = 1) -> str:
    """A mined swap of that step; returns the id of its intent."""
    store.steps.begin(step_id, 1_000, "{}")
    intent = store.journal.add_intent(step_id, IntentKind.SWAP, replace(TX, nonce=nonce), GRANT, "swap", 1_000, 2_000)
    tx_hash = f"0x{nonce:064x}"
    store.journal.advance(intent.id, IntentState.SIGNED, 1_001, tx_hash)
    store.journal.advance(intent.id, IntentState.BROADCAST, 1_002)
    moved = (Transfer(WETH, OWNER, POOL, weth_raw), Transfer(USDC, POOL, OWNER, usdc_raw)) if status else ()
    receipt = Receipt(tx_hash, status, 7, "0x" + "b" * 64, gas_used, 10**9, moved)
    store.journal.advance(intent.id, IntentState.MINED, 1_003, receipt=receipt)
    return intent.id
