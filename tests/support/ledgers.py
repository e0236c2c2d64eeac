"""Looks of an agent at its balances over a real store, without a chain: what the wallet holds at which block, and what was found."""

from __future__ import annotations

from dataclasses import replace

from agent import codec
from agent.execution import settlement
from agent.model import Holding, IntentKind, IntentState, StepInput, Transfer
from agent.policy.cash_flows import balance_changes
from agent.store import Store
from tests.support import builders
from tests.support.scripted import GWEI, OTHER, WALLET, grant, receipt, tx

WETH, USDC = builders.token("WETH"), builders.token("USDC")
COIN, DOLLAR, DAY_S = 10**18, 10**6, 86_400
PRICE = 2_000 * DOLLAR


def at(block: int = 1_000, weth: str = "10", usdc: int = 20_000, native: int = COIN, later_s: int = 0, **changes: object) -> StepInput:
    """A portfolio of 40,000 at a block."""
    made = builders.step_input()
    held = {WETH.address: builders.raw(weth, WETH), USDC.address: usdc * DOLLAR}
    holdings = tuple(Holding(holding.token, held[holding.token]) for holding in made.snapshot.holdings)
    feeds = tuple(replace(f, started_at_s=f.started_at_s + later_s, updated_at_s=f.updated_at_s + later_s) for f in made.snapshot.feeds)
    old = made.snapshot.head
    head = replace(old, number=block, timestamp_s=old.timestamp_s + later_s)
    read = replace(made.snapshot, owner=WALLET, holdings=holdings, native_wei=native, head=head, feeds=feeds, now_s=head.timestamp_s)
    return replace(made, snapshot=replace(read, **changes))  # type: ignore[arg-type]  # keywords are field names, checked by replace


def looked(store: Store, step: StepInput) -> StepInput:
    """One look of the agent: books, then the step as it decides from it."""
    settlement.record_balance_changes(store, step.snapshot, lambda: step)
    return remembered(store, step)


def remembered(store: Store, step: StepInput) -> StepInput:
    """The step with what the store knows, and with what it does not know yet."""
    return balance_changes.apply_balance_changes(replace(step, history=store.history(step.snapshot.head.timestamp_s)), store.books())


def opened(store: Store, step: StepInput) -> list[tuple[str, int, bool]]:
    return [(flow.token, flow.delta_raw, flow.halts) for flow in looked(store, step).history.flows]


def moved(store: Store, nonce: int, block: int, *transfers: Transfer, value_wei: int = 0, to: str = OTHER, **more: object) -> None:
    """One of our own transactions, mined."""
    if store.step("s") is None:
        store.begin_step("s", 1, codec.dumps(at()))
    made = store.intend("s", IntentKind.SWAP, replace(tx(nonce), value_wei=value_wei, to=to), grant(), "swap", 1, None)
    tx_hash = f"0x{nonce:064x}"
    store.advance(made.id, IntentState.SIGNED, 1, tx_hash=tx_hash)
    store.advance(made.id, IntentState.BROADCAST, 1)
    found = replace(receipt(tx_hash, block, f"0x{block:064x}"), transfers=transfers, **more)  # type: ignore[arg-type]  # field names
    store.advance(made.id, IntentState.MINED, 1, receipt=found)


GAS_WEI = 50_000 * 2 * GWEI
