"""Tests of agent/layers/liquidity/store.py: positions that the agent opened, known by the receipt in the same write."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import PassingFault
from agent.layers.liquidity.state import LiquidityState
from agent.model import IntentKind, IntentState, LiquidityAdded, LpAction, LpPositionChange, Receipt, Transfer
from agent.store import Store, open_store
from tests.support.ledgers import at
from tests.support.signing import ADD, COLLECT, MANAGER, MINT, PAIR, POOL, TOKENS, grant_of
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, OTHER, START_S, WALLET, liquidity_receipt, record_sent, tx

MINTED = LiquidityAdded(MANAGER, 42, 10**20, MINT.amounts_raw, WALLET)
store = store_fixture(begins_step=True)


def add_sent(store: Store, kind: IntentKind, action: LpAction, nonce: int = 0) -> str:
    """Add an intent that was sent and return its id."""
    intent = store.journal.add_intent("s", tx(nonce), grant_of(action, kind=kind), "liquidity", START_S, START_S + 90)
    record_sent(store.journal, intent, f"0x0{nonce + 1}")
    return intent.id


def add_mined(store: Store, action: LpAction, receipt: Receipt, nonce: int = 0, kind: IntentKind = IntentKind.LIQUIDITY) -> str:
    """Add an intent that was mined with this receipt and return its id."""
    intent_id = add_sent(store, kind, action, nonce)
    store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=replace(receipt, tx_hash=f"0x0{nonce + 1}"))
    return intent_id


# --- changes of positions


def test_minted_position_is_known_by_its_receipt_once(store: Store) -> None:
    change = LpPositionChange("uniswap_v3", MANAGER, 42, POOL, *TOKENS, 3_000, (-6_000, 6_000), 10**20, 0, MINT.amounts_raw, 16)

    intent_id = add_mined(store, MINT, liquidity_receipt(MINTED))

    assert store.positions.changes() == (change,)
    store.journal.advance(intent_id, IntentState.FINAL, START_S)
    assert store.positions.changes() == (change,)


def test_lp_tokens_received_are_known_with_what_was_paid(store: Store) -> None:
    payments = (Transfer(TOKENS[0], WALLET, PAIR, 10**18), Transfer(TOKENS[1], WALLET, PAIR, 5))

    add_mined(store, ADD, liquidity_receipt(transfers=(*payments, Transfer(PAIR, OTHER, WALLET, 777))))

    (change,) = store.positions.changes()
    assert (change.name, change.liquidity_delta, change.amounts_raw, change.ticks) == (f"uniswap_v2 {PAIR}", 777, (10**18, 5), None)


def test_last_of_several_mints_in_a_transaction_counts(store: Store) -> None:
    """A token that mints inside its own transfer emits before the call that it interrupts."""
    add_mined(store, MINT, liquidity_receipt(replace(MINTED, token_id=41), MINTED))

    assert [change.token_id for change in store.positions.changes()] == [42]


@pytest.mark.parametrize(
    ("kind", "action", "receipt"),
    [
        pytest.param(IntentKind.LIQUIDITY, MINT, liquidity_receipt(status=0), id="reverted"),
        pytest.param(IntentKind.LIQUIDITY, COLLECT, liquidity_receipt(), id="only collected"),
        pytest.param(IntentKind.SWAP, MINT, liquidity_receipt(MINTED), id="a swap"),
    ],
)
def test_position_changes_by_successful_liquidity_actions_alone(store: Store, kind: IntentKind, action: LpAction, receipt: Receipt) -> None:
    add_mined(store, action, receipt, kind=kind)

    assert store.positions.changes() == ()


@pytest.mark.parametrize(
    "added",
    [
        pytest.param((), id="no event"),
        pytest.param((replace(MINTED, manager=OTHER),), id="another manager"),
        pytest.param((replace(MINTED, minted_to=OTHER),), id="minted to another"),
        pytest.param((replace(MINTED, minted_to=None),), id="added to a position"),
    ],
)
def test_receipt_that_hides_the_mint_is_not_recorded(store: Store, added: tuple[LiquidityAdded, ...]) -> None:
    """A position that the store does not know would be missing from every total (T2)."""
    intent_id = add_sent(store, IntentKind.LIQUIDITY, MINT)

    with raises_code(PassingFault, "receipt", "the liquidity"):
        store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=liquidity_receipt(*added))

    assert [intent.state for intent in store.journal.open_intents()] == [IntentState.BROADCAST]
    store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=liquidity_receipt(MINTED))
    assert len(store.positions.changes()) == 1


def test_reorganisation_takes_the_mint_back_until_the_next_receipt(store: Store) -> None:
    intent_id = add_mined(store, MINT, liquidity_receipt(MINTED))

    store.journal.advance(intent_id, IntentState.BROADCAST, START_S)

    assert store.positions.changes() == ()
    for token_id, block in ((43, 17), (44, 18)):
        receipt = liquidity_receipt(replace(MINTED, token_id=token_id), block=block)
        store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=receipt)
        assert [(change.token_id, change.block_number) for change in store.positions.changes()] == [(token_id, block)]


@pytest.mark.parametrize("store_kind", ["file"])
def test_positions_survive_a_restart_and_a_backup(store: Store, tmp_path: Path) -> None:
    add_mined(store, MINT, liquidity_receipt(MINTED))
    changes = store.positions.changes()
    copy_folder = tmp_path / "copy"
    copy_folder.mkdir()
    with sqlite3.connect(copy_folder / "trimtab.db") as copy:
        sqlite3.connect(tmp_path / "trimtab.db").backup(copy)
    store.close()

    for folder in (tmp_path, copy_folder):
        reopened = open_store(f"sqlite:///{folder}/trimtab.db", CHAIN_ID, WALLET)
        assert reopened.positions.changes() == changes
        reopened.close()


def test_successful_action_ends_rows_of_approvals_and_reverts(store: Store) -> None:
    add_mined(store, MINT, liquidity_receipt(), kind=IntentKind.APPROVE)
    add_mined(store, MINT, liquidity_receipt(status=0), nonce=1, kind=IntentKind.SWAP)
    failures_before = store.budgets.history(START_S).failures

    add_mined(store, MINT, liquidity_receipt(MINTED), nonce=2)

    failures = store.budgets.history(START_S).failures
    assert (failures_before.approval_cycles_in_row, failures_before.reverts_in_row) == (1, 1)
    assert (failures.approval_cycles_in_row, failures.reverts_in_row) == (0, 0)


# --- positions that the owner decides about


def undecided_positions(store: Store) -> tuple[str, ...]:
    return store.budgets.history(1).layer(LiquidityState).undecided_positions


def test_scanned_positions_wait_for_the_owner(store: Store) -> None:
    store.positions.record_scan(["position 7", "position 8", "position 7"], 1)
    store.positions.record_scan(["position 8"], 2)
    assert undecided_positions(store) == ("position 7", "position 8")

    store.positions.record_decision("position 7", None, 3)

    assert undecided_positions(store) == ("position 8",)


def test_wallet_counts_as_scanned_though_nothing_was_in_it(store: Store) -> None:
    assert not store.positions.is_scanned()

    store.positions.record_scan([], START_S)

    assert store.positions.is_scanned()


def test_own_position_counts_until_it_is_forgotten(store: Store) -> None:
    add_mined(store, MINT, liquidity_receipt(MINTED))
    (change,) = store.positions.changes()

    store.positions.record_scan([change.name, "another"], START_S)
    assert store.positions.changes() == (change,), "undecided"
    store.positions.record_decision("another", None, START_S)
    assert store.positions.changes() == (change,)
    store.positions.record_decision(change.name, None, START_S)
    assert store.positions.changes() == ()


def test_adopted_position_counts_as_it_is_and_changes_from_then_on(store: Store) -> None:
    add_mined(store, MINT, liquidity_receipt(MINTED))
    (change,) = store.positions.changes()
    adopted = replace(change, liquidity_delta=change.liquidity_delta // 2)

    store.positions.record_decision(change.name, adopted, START_S)
    assert store.positions.changes() == (adopted,), "not beside what the agent did before"

    add_mined(store, replace(MINT, token_id=42), liquidity_receipt(MINTED), nonce=1)
    first, second = store.positions.changes()
    assert (first, second.name, second.liquidity_delta) == (adopted, change.name, change.liquidity_delta)


def test_minted_position_has_a_place_in_the_ledger_among_others(store: Store) -> None:
    token = TOKENS[0]
    assert store.ledger.open_places(at(10).snapshot, {("adopted", token): (5, None)}) == (("adopted", token),)
    store.journal.advance(add_mined(store, MINT, liquidity_receipt(MINTED)), IntentState.FINAL, START_S)
    [change] = store.positions.changes()

    assert store.ledger.open_places(at(20).snapshot, {("adopted later", token): (5, None)}) == (("adopted later", token),)

    places = [("adopted", token), ("adopted later", token), (change.name, token)]
    assert store.ledger.has_places(places)
    assert not store.ledger.has_places([*places, ("never opened", token)])
