"""Positions that the agent opened itself: known with the receipt in one write, gone with a reorganisation, kept over restarts."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from agent.amm.lp import own_changes
from agent.errors import PassingFault
from agent.layers.liquidity.state import LiquidityState
from agent.model import ConfirmedPosition, IntentKind, IntentState, LiquidityAdded, LpAction, LpPositionChange, LpTarget, Receipt, Transfer
from agent.store import Store, open_store
from tests.support.constants import MONTH_S
from tests.support.ledgers import at
from tests.support.signing import ADD, COLLECT, INCREASE, MANAGER, MINT, PAIR, POOL, TOKENS, WITHDRAW_V2, WITHDRAW_V3, grant_of
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, OTHER, START_S, WALLET, receipt, tx

MINTED = LiquidityAdded(MANAGER, 42, 10**20, MINT.amounts_raw, WALLET)
GROWN = replace(MINTED, minted_to=None, liquidity=10**19, amounts_raw=(10, 20))


def opened(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder}/trimtab.db", CHAIN_ID, WALLET)


store = store_fixture(begins_step=True)


def receipt_with(*added: LiquidityAdded, block: int = 16, status: int = 1, transfers: tuple[Transfer, ...] = ()) -> Receipt:
    return replace(receipt("0x01", block, "0xb", status), liquidity_added=added, transfers=transfers)


def sent_action(store: Store, action: LpAction, nonce: int = 0) -> str:
    intent = store.journal.add_intent("s", IntentKind.LIQUIDITY, tx(nonce), grant_of(action), "liquidity", START_S, START_S + 90)
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=f"0x0{nonce + 1}")
    store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
    return intent.id


def mined_action(store: Store, action: LpAction, receipt: Receipt, nonce: int = 0) -> str:
    intent_id = sent_action(store, action, nonce)
    store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=replace(receipt, tx_hash=f"0x0{nonce + 1}"))
    return intent_id


def test_minted_position__is_known_exactly_once_by_its_receipt(store: Store) -> None:
    intent_id = mined_action(store, MINT, receipt_with(MINTED))
    expected = LpPositionChange("uniswap_v3", MANAGER, 42, POOL, *TOKENS, 3_000, (-6_000, 6_000), 10**20, 0, MINT.amounts_raw, 16)
    assert store.positions.changes() == (expected,)
    store.journal.advance(intent_id, IntentState.FINAL, START_S)
    assert store.positions.changes() == (expected,)


def test_forgotten_and_adopted_position__counts_once(store: Store) -> None:
    mined_action(store, MINT, receipt_with(MINTED))
    (own,) = store.positions.changes()
    store.positions.record_scan([own.name, "another"], START_S)
    assert store.positions.changes() == (own,), "it is not decided yet"
    store.positions.record_decision("another", None, START_S)
    assert store.positions.changes() == (own,)
    store.positions.record_decision(own.name, None, START_S)
    assert store.positions.changes() == ()
    adopted = replace(own, liquidity_delta=own.liquidity_delta // 2)
    store.positions.record_decision(own.name, adopted, START_S)
    assert store.positions.changes() == (adopted,), "as it is now, not beside what the agent did before"
    mined_action(store, replace(MINT, token_id=42), receipt_with(MINTED), nonce=1)
    first, later = store.positions.changes()
    assert (first, later.name, later.liquidity_delta) == (adopted, own.name, own.liquidity_delta), "what it does from now on counts too"


@pytest.mark.parametrize("store_kind", ["file"])
def test_it_is_kept_over_a_restart_and_in_a_copy_of_the_file(store: Store, tmp_path: Path) -> None:
    mined_action(store, MINT, receipt_with(MINTED))
    before = store.positions.changes()
    with sqlite3.connect(tmp_path / "copy" if (tmp_path / "copy").mkdir() else tmp_path / "copy" / "trimtab.db") as copy:
        sqlite3.connect(tmp_path / "trimtab.db").backup(copy)
    store.close()
    for folder in (tmp_path, tmp_path / "copy"):
        again = opened(folder)
        assert again.positions.changes() == before
        again.close()


def test_reorganisation__takes_it_back_and_renumbers_it(store: Store) -> None:
    intent_id = mined_action(store, MINT, receipt_with(MINTED))
    store.journal.advance(intent_id, IntentState.BROADCAST, START_S)
    assert store.positions.changes() == ()
    store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=receipt_with(replace(MINTED, token_id=43), block=17))
    store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=receipt_with(replace(MINTED, token_id=44), block=18))
    assert [(move.token_id, move.block_number) for move in store.positions.changes()] == [(44, 18)]


def test_what_reverted_or_was_only_collected_changes_no_position(store: Store) -> None:
    reverted = mined_action(store, MINT, receipt_with(status=0))
    store.journal.advance(reverted, IntentState.REVERTED, START_S)
    mined_action(store, COLLECT, receipt_with(), nonce=1)
    assert store.positions.changes() == ()


@pytest.mark.parametrize(
    "added",
    [(), (replace(MINTED, manager=OTHER),), (replace(MINTED, minted_to=OTHER),), (GROWN,)],
)
def test_a_receipt_that_hides_the_mint_is_not_written_down(store: Store, added: tuple[LiquidityAdded, ...]) -> None:
    """A position that nobody knows of would be missing from every total (T2)."""
    intent_id = sent_action(store, MINT)
    with raises_code(PassingFault, "receipt", "the liquidity"):
        store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=receipt_with(*added))
    assert [intent.state for intent in store.journal.open_intents()] == [IntentState.BROADCAST]
    store.journal.advance(intent_id, IntentState.MINED, START_S, receipt=receipt_with(MINTED))
    assert len(store.positions.changes()) == 1


def test_of_several_mints_in_one_transaction_the_last_is_ours(store: Store) -> None:
    """A token that mints inside its own transfer is told of before the call that it interrupts."""
    mined_action(store, MINT, receipt_with(replace(MINTED, token_id=41), MINTED))
    assert [move.token_id for move in store.positions.changes()] == [42]


def test_lp_tokens_that_came_and_what_went_for_them_are_known(store: Store) -> None:
    came = Transfer(PAIR, OTHER, WALLET, 777)
    went = (Transfer(TOKENS[0], WALLET, PAIR, 10**18), Transfer(TOKENS[1], WALLET, PAIR, 5))
    mined_action(store, ADD, receipt_with(transfers=(*went, came)))
    (move,) = store.positions.changes()
    assert (move.name, move.liquidity_delta, move.amounts_raw, move.ticks) == (f"uniswap_v2 {PAIR}", 777, (10**18, 5), None)


def test_successful_action__ends_rows_of_approvals_and_reverts(store: Store) -> None:
    for nonce, kind in enumerate((IntentKind.APPROVE, IntentKind.SWAP)):
        intent = store.journal.add_intent("s", kind, tx(nonce), grant_of(MINT), "", START_S, None)
        store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=f"0x1{nonce}")
        store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
        store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=replace(receipt_with(status=1 - nonce), tx_hash=f"0x1{nonce}"))
    before = store.budgets.history(START_S)
    assert (before.failures.approval_cycles_in_row, before.failures.reverts_in_row) == (1, 1)
    mined_action(store, MINT, receipt_with(MINTED), nonce=2)
    after = store.budgets.history(START_S)
    assert (after.failures.approval_cycles_in_row, after.failures.reverts_in_row) == (0, 0)


def moves(*pairs: tuple[LpAction, Receipt]) -> tuple[LpPositionChange, ...]:
    return tuple(done for action, pair in pairs if (done := own_changes.position_change(action, pair, WALLET)) is not None)


CONFIRMED = ConfirmedPosition("uniswap_v3", MANAGER, 42, *TOKENS, (1_000, 2_000), None, 5_000, MONTH_S)
WITHDRAWN = replace(WITHDRAW_V3, liquidity=10**19, position_liquidity=4 * 10**19)


def known(
    confirmed: tuple[ConfirmedPosition, ...], done: tuple[LpPositionChange, ...], *targets: LpTarget
) -> tuple[ConfirmedPosition, ...]:
    return own_changes.tracked_positions(confirmed, targets, done, 6_000, MONTH_S)


def test_what_the_agent_opened_counts_with_what_it_put_in() -> None:
    (position,) = known((), moves((MINT, receipt_with(MINTED)), (INCREASE, receipt_with(GROWN, block=20))))
    entry = (MINT.amounts_raw[0] + 10, MINT.amounts_raw[1] + 20)
    assert position == ConfirmedPosition("uniswap_v3", MANAGER, 42, *TOKENS, entry, 16, 6_000, MONTH_S)


def test_what_was_taken_out_leaves_its_part_of_the_entry() -> None:
    (position,) = known((CONFIRMED,), moves((WITHDRAWN, receipt_with()), (INCREASE, receipt_with(GROWN))))
    assert position == replace(CONFIRMED, entry_raw=(750 + 10, 1_500 + 20))


@pytest.mark.parametrize(
    ("entry_block", "entry_raw"),
    [
        (None, (1_010 + MINT.amounts_raw[0], 2_020 + MINT.amounts_raw[1])),
        (15, (1_010 + MINT.amounts_raw[0], 2_020 + MINT.amounts_raw[1])),
        (16, (1_010, 2_020)),
        (19, (1_010, 2_020)),
        (20, (1_000, 2_000)),
    ],
    ids=["not given", "before the mint", "that of the mint", "before the addition", "that of the addition"],
)
def test_entry_of_the_config__contains_changes_up_to_its_block(entry_block: int | None, entry_raw: tuple[int, int]) -> None:
    done = moves((MINT, receipt_with(MINTED)), (INCREASE, receipt_with(GROWN, block=20)))
    (position,) = known((replace(CONFIRMED, entry_block=entry_block),), done)
    assert position.entry_raw == entry_raw


def test_position_wholly_taken_out__counts_no_more() -> None:
    closed = replace(WITHDRAW_V3, liquidity=10**20, position_liquidity=10**20)
    assert known((), moves((MINT, receipt_with(MINTED)), (closed, receipt_with()))) == ()
    bought = Transfer(PAIR, OTHER, WALLET, 10**20)
    sold = replace(WITHDRAW_V2, position_liquidity=10**20)
    assert len(known((), moves((ADD, receipt_with(transfers=(bought,)))))) == 1
    assert known((), moves((ADD, receipt_with(transfers=(bought,))), (sold, receipt_with()))) == ()


def test_stranger_s_addition__counts_until_all_is_taken_out() -> None:
    """Anybody may add to a position of the manager, and send LP tokens: then less is put in than is taken out, and some stays."""
    grown = 3 * 10**20
    for opening, part in (
        ((MINT, receipt_with(MINTED)), replace(WITHDRAW_V3, liquidity=2 * 10**20, position_liquidity=grown)),
        (
            (ADD, receipt_with(transfers=(Transfer(PAIR, OTHER, WALLET, 10**20),))),
            replace(WITHDRAW_V2, liquidity=2 * 10**20, position_liquidity=grown),
        ),
    ):
        rest = replace(part, liquidity=10**20, position_liquidity=10**20)
        assert len(known((), moves(opening, (part, receipt_with())))) == 1
        assert known((), moves(opening, (part, receipt_with()), (rest, receipt_with()))) == ()


def test_wanted_pair__counts_from_the_start_unlike_a_v3_pool() -> None:
    pair = LpTarget("uniswap_v2", PAIR, PAIR, *TOKENS, 3_000, None, 1_000, None, None, 4_000, 86_400)
    pool = LpTarget("uniswap_v3", MANAGER, POOL, *TOKENS, 3_000, 60, 1_000, 2_000, None, 4_000, 86_400)
    (position,) = known((), (), pair, pool)
    assert position == ConfirmedPosition("uniswap_v2", PAIR, None, *TOKENS, (0, 0), None, 4_000, 86_400)
    config = replace(position, entry_raw=(5, 6), volatility_bps=1)
    assert known((config,), (), pair) == (config,)


def test_scanned_positions__wait_for_the_owner(store: Store) -> None:
    store.positions.record_scan(["position 7", "position 8", "position 7"], 1)
    store.positions.record_scan(["position 8"], 2)
    assert store.budgets.history(1).layer(LiquidityState).undecided_positions == ("position 7", "position 8")
    store.positions.record_decision("position 7", None, 3)
    assert store.budgets.history(1).layer(LiquidityState).undecided_positions == ("position 8",)


def test_wallet__counts_as_scanned_once_recorded_even_if_empty(store: Store) -> None:
    assert not store.positions.is_scanned()
    store.positions.record_scan([], START_S)
    assert store.positions.is_scanned()


def test_minted_position__is_booked_though_others_opened_after_it(store: Store) -> None:
    token = TOKENS[0]
    head = at(10)
    assert store.ledger.open_places(head.snapshot, {("adopted", token): (5, None)}) == (("adopted", token),)
    store.journal.advance(mined_action(store, MINT, receipt_with(MINTED)), IntentState.FINAL, START_S)
    [own] = store.positions.changes()
    assert store.ledger.open_places(at(20).snapshot, {("adopted later", token): (5, None)}) == (("adopted later", token),)
    places = [("adopted", token), ("adopted later", token), (own.name, token)]
    assert store.ledger.has_places(places)
    assert not store.ledger.has_places([*places, ("never opened", token)])
