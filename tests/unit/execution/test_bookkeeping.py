"""Entries that are derived from journal and receipts: pool fees rounded up, native coin, gas, and trades by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.accounting.entries import FEES
from agent.accounting.entries import WALLET as WALLET_ACCOUNT
from agent.execution.bookkeeping import derive_entry, pending_entries
from agent.model import Entry, EntryKind, Goal, Intent, IntentKind, IntentState, Leg, Plan, Rebalance, Transfer
from agent.store import Store, open_store
from agent.units import NATIVE
from tests.support.builders import OWNER, step_input, token
from tests.support.signing import leg, plan_of
from tests.support.transactions import CHAIN_ID, OTHER, grant, receipt, tx

WETH, USDC = token("WETH").address, token("USDC").address
COUNTED = frozenset({WETH, USDC, NATIVE})
STEP = step_input()
GAS_WEI = receipt("0xaa", 7, "0x07").gas_cost_wei


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, OWNER, WETH)
    opened.steps.begin("s", 1, codec.dumps(STEP))
    opened.balances.record(STEP.snapshot, dict.fromkeys(COUNTED, 10**18), (), 0)
    opened.ledger.open_places(STEP.snapshot, {("", counted): (10**18, Fraction(1)) for counted in COUNTED})
    yield opened
    opened.close()


def entry(
    store: Store,
    plan: Plan | None = None,
    *transfers: Transfer,
    kind: IntentKind = IntentKind.SWAP,
    status: int = 1,
    value_wei: int = 0,
    ledger_tokens: frozenset[str] = COUNTED,
) -> Entry:
    """Return the entry of a transaction with these events."""
    unsigned = replace(tx(0), value_wei=value_wei, to=OTHER)
    intent = store.journal.add_intent("s", kind, unsigned, replace(grant(kind), plan=plan), "swap", 1, None)
    store.journal.advance(intent.id, IntentState.SIGNED, 1, tx_hash="0xaa")
    store.journal.advance(intent.id, IntentState.BROADCAST, 1)
    block = replace(receipt("0xaa", 7, "0x07", status), transfers=transfers)
    mined = store.journal.advance(intent.id, IntentState.MINED, 1, receipt=block)
    return derive_entry(store, mined, STEP, ledger_tokens, store.ledger.principal)


def amounts(derived: Entry, account: str) -> dict[str, int]:
    return {posting.token: posting.raw for posting in derived.postings if posting.account == account and posting.raw}


def paid(swap: Leg, raw: int) -> tuple[Transfer, Transfer]:
    """The events of a leg into which this much went."""
    return Transfer(swap.token_in, OWNER, swap.pool, raw), Transfer(swap.token_out, swap.pool, OWNER, swap.amount_out_raw)


@pytest.mark.parametrize(("amount", "fee"), [(1_000_000, 3_000), (1_000_001, 3_001), (333, 1), (334, 2), (1, 1)])
def test_fee__part_of_a_base_unit_is_rounded_up(store: Store, amount: int, fee: int) -> None:
    swap = leg(WETH, USDC, amount, 100)

    assert amounts(entry(store, plan_of(swap), *paid(swap, amount)), FEES) == {WETH: fee}


def test_fee__is_that_of_the_amount_in_the_receipt(store: Store) -> None:
    swap = leg(WETH, USDC, 1_000_000, 100)

    assert amounts(entry(store, plan_of(swap), *paid(swap, 2_000_000)), FEES) == {WETH: 6_000}


def test_fee__without_the_pool_s_events_is_that_of_the_plan(store: Store) -> None:
    assert amounts(entry(store, plan_of(leg(WETH, USDC, 1_000_000, 100))), FEES) == {WETH: 3_000}


def test_fee_of_legs_of_one_token_is_rounded_leg_by_leg(store: Store) -> None:
    legs = [leg(WETH, USDC, 333, 100, pool=pool) for pool in ("0xone", "0xtwo")]

    assert amounts(entry(store, plan_of(*legs)), FEES) == {WETH: 2}


def test_fee__each_token_has_its_own(store: Store) -> None:
    legs = (leg(WETH, USDC, 1_000_000, 100), leg(USDC, WETH, 1_000_000, 100, fee_pips=500))

    assert amounts(entry(store, plan_of(*legs)), FEES) == {WETH: 3_000, USDC: 500}


@pytest.mark.parametrize("changes", [{"status": 0}, {"ledger_tokens": frozenset()}], ids=["reverted", "before the ledger"])
def test_fee__there_is_none(store: Store, changes: dict[str, object]) -> None:
    derived = entry(store, plan_of(leg(WETH, USDC, 1_000_000, 100)), **changes)  # type: ignore[arg-type]  # keywords of entry

    assert amounts(derived, FEES) == {}


def test_fee__transaction_without_a_plan_has_none(store: Store) -> None:
    assert amounts(entry(store), FEES) == {}


def test_wallet__swap_changes_both_tokens_and_pays_its_gas(store: Store) -> None:
    swap = leg(WETH, USDC, 1_000_000, 100)

    derived = entry(store, plan_of(swap), *paid(swap, 1_000_000))

    assert amounts(derived, WALLET_ACCOUNT) == {WETH: -1_000_000, USDC: 100, NATIVE: -GAS_WEI}


@pytest.mark.parametrize(("status", "sent_wei"), [(1, 5), (0, 0)])
def test_wallet_loses_the_coin_it_sent_unless_reverted(store: Store, status: int, sent_wei: int) -> None:
    derived = entry(store, value_wei=5, status=status)

    assert amounts(derived, WALLET_ACCOUNT) == {NATIVE: -GAS_WEI - sent_wei}


def test_wallet__events_of_a_reverted_transaction_do_not_count(store: Store) -> None:
    derived = entry(store, None, Transfer(USDC, OTHER, OWNER, 5), status=0)

    assert (derived.kind, amounts(derived, WALLET_ACCOUNT)) == (EntryKind.GAS, {NATIVE: -GAS_WEI})


def test_entry__has_block_hash_and_time_of_its_transaction(store: Store) -> None:
    derived = entry(store)

    assert (derived.block, derived.tx_hash, derived.chain_s) == (7, "0xaa", STEP.snapshot.head.timestamp_s)


@pytest.mark.parametrize("by_hand", [True, False])
def test_entry__trade_by_hand_is_marked(store: Store, by_hand: bool) -> None:
    plan = replace(plan_of(leg(WETH, USDC, 1_000, 100)), decision=Rebalance("swap", Goal(()), by_hand=by_hand))

    assert entry(store, plan).by_hand is by_hand


@pytest.mark.parametrize(("kind", "entry_kind"), [(IntentKind.UNWRAP, EntryKind.WRAP), (IntentKind.SWAP, EntryKind.TRADE)])
def test_entry__unwrapping_is_no_trade(store: Store, kind: IntentKind, entry_kind: EntryKind) -> None:
    assert entry(store, None, Transfer(WETH, OWNER, OTHER, 5), kind=kind).kind is entry_kind


def test_entry__payout_is_a_withdrawal(store: Store) -> None:
    assert entry(store, None, Transfer(USDC, OWNER, OTHER, 5), kind=IntentKind.PAYOUT).kind is EntryKind.PAYOUT


# Entries of transactions that are not final

PLAN = plan_of(leg(WETH, USDC, 1_000_000, 100))


def sent(store: Store, nonce: int = 0, replaces: Intent | None = None, plan: Plan | None = PLAN) -> Intent:
    granted = replace(grant(), plan=plan)
    intent = store.journal.add_intent("s", IntentKind.SWAP, tx(nonce), granted, "swap", 1, None, None if replaces is None else replaces.id)
    store.journal.advance(intent.id, IntentState.SIGNED, 1, tx_hash=f"0x{len(store.journal.intents()):02x}")
    return store.journal.advance(intent.id, IntentState.BROADCAST, 1)


def mined(store: Store, intent: Intent, status: int = 1) -> Intent:
    assert intent.tx_hash is not None
    block = receipt(intent.tx_hash, 7, "0x07", status)
    return store.journal.advance(intent.id, IntentState.MINED, 1, receipt=block)


def pending_ids(store: Store) -> list[str]:
    return [pending.id for pending in pending_entries(store, STEP)]


def test_pending_planned_swap_follows_its_plan_without_gas(store: Store) -> None:
    sent(store)

    (pending,) = pending_entries(store, STEP)

    assert amounts(pending, WALLET_ACCOUNT) == {WETH: -1_000_000, USDC: 100}


def test_pending__planned_transaction_without_a_plan_has_none(store: Store) -> None:
    sent(store, plan=None)

    assert pending_entries(store, STEP) == ()


def test_pending__mined_swap_has_the_entry_of_its_receipt(store: Store) -> None:
    mined(store, sent(store))

    (pending,) = pending_entries(store, STEP)

    assert amounts(pending, WALLET_ACCOUNT) == {NATIVE: -GAS_WEI}


def test_pending_first_of_two_counts_while_neither_is_mined(store: Store) -> None:
    first = sent(store)

    sent(store, replaces=first)

    assert pending_ids(store) == [first.id]


@pytest.mark.parametrize("mined_index", [0, 1])
def test_pending__mined_one_of_two_at_a_nonce_counts(store: Store, mined_index: int) -> None:
    first = sent(store)
    both = (first, sent(store, replaces=first))

    mined(store, both[mined_index])

    assert pending_ids(store) == [both[mined_index].id]


def test_pending__each_nonce_has_its_own(store: Store) -> None:
    first = mined(store, sent(store))

    second = sent(store, 1)

    assert sorted(pending_ids(store)) == sorted([first.id, second.id])
