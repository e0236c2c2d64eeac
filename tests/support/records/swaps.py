"""Mined swaps of an execution in parts, in the store."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import IntentKind, IntentState, Receipt, Transfer, UnsignedTx
from agent.ports import Grant
from agent.store import Store
from agent.units import NATIVE
from tests.support.builders import OWNER, address, token

WETH = token("WETH").address
USDC = token("USDC").address
PRICE = Fraction(2_000 * 10**6, 10**18)
POOL = address("pool")
TX = UnsignedTx(31337, 0, address("router"), 0, "0x", 100_000, 10**9, 10**9, None)
GRANT = Grant(IntentKind.SWAP, 1_000, 2_000, 10**16)


def swap(
    store: Store, step_id: str, nonce: int, weth_raw: int, usdc_raw: int, gas_used: int = 100_000, status: int = 1, native_wei: int = 0
) -> str:
    """A mined swap of that step, of which native coin pays a part: all of it in the router, or what the wallet wraps first. Returns the
    id of its intent.
    """
    store.steps.begin(step_id, 1_000, "{}")
    intent = store.journal.add_intent(step_id, replace(TX, nonce=nonce, value_wei=native_wei), GRANT, "swap", 1_000, 2_000)
    tx_hash = f"0x{nonce:064x}"
    store.journal.advance(intent.id, IntentState.SIGNED, 1_001, tx_hash)
    store.journal.advance(intent.id, IntentState.BROADCAST, 1_002)
    payer = TX.to if native_wei == weth_raw else OWNER
    moved = (Transfer(WETH, payer, POOL, weth_raw), Transfer(USDC, POOL, OWNER, usdc_raw)) if status else ()
    wraps = (Transfer(WETH, NATIVE, payer, native_wei),) if native_wei else ()
    receipt = Receipt(tx_hash, status, 7, "0x" + "b" * 64, gas_used, 10**9, moved, wrap_transfers=wraps)
    store.journal.advance(intent.id, IntentState.MINED, 1_003, receipt=receipt)
    return intent.id
