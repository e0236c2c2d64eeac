"""The ledger in the store, without a chain: when it opens, what it counts, what it calls a disagreement, whose books it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.execution import settlement
from agent.execution.bookkeeping import audit_entries, update_ledger
from agent.model import EntryKind, IntentState, StepInput, Transfer
from agent.policy.step_input import reconcile_ledger
from agent.store import Store
from agent.units import NATIVE
from tests.support.ledgers import COIN, DOLLAR, GAS_WEI, at, moved
from tests.support.ledgers import LEDGER_USDC as USDC
from tests.support.ledgers import LEDGER_WETH as WETH
from tests.support.text import mentions
from tests.support.transactions import OTHER, WALLET, new_store


@pytest.fixture
def store(store_kind: str, tmp_path: Path) -> Iterator[Store]:
    made = new_store(store_kind, tmp_path)
    yield made
    made.close()


def looked(store: Store, step: StepInput) -> str:
    """One look; what ledger and chain disagree in."""
    told = reconcile_ledger(step, store.balances.expected(), store.ledger.balances(step.snapshot.head.number)).history.books
    update_ledger(store, step, settlement.settle_mined(store, step.snapshot, lambda: step))
    return told


def sums(store: Store, block: int) -> dict[str, int]:
    return {one.token: one.raw for one in store.ledger.balances(block)}


def final(store: Store) -> None:
    """What was mined is final."""
    for intent in store.journal.open_intents():
        store.journal.advance(intent.id, IntentState.FINAL, 1)


def sold(block: int, nonce: int = 0, store: Store | None = None) -> StepInput:
    """One WETH went for 2,000 USDC at that block."""
    if store is not None:
        moved(store, nonce, block, Transfer(WETH.address, WALLET, OTHER, COIN), Transfer(USDC.address, OTHER, WALLET, 2_000 * DOLLAR))
    return at(block, weth="9", usdc=22_000, native=COIN - GAS_WEI)


def test_a_book_opens_at_the_first_look_and_agrees_from_there_on(store: Store) -> None:
    assert looked(store, at()) == ""
    assert sums(store, 1_000) == {WETH.address: 10 * COIN, USDC.address: 20_000 * DOLLAR, NATIVE: COIN}
    assert [one.kind for one in store.ledger.entries()] == [EntryKind.OPENING] * 3
    assert len(store.valuations.between()) == 1


def test_a_book_does_not_open_while_a_transaction_of_ours_is_on_its_way(store: Store) -> None:
    step = sold(1_001, store=store)
    looked(store, step)
    assert store.ledger.entries() == ()
    assert store.valuations.between() == ()
    final(store)
    looked(store, replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=1_002))))
    assert sums(store, 1_002)[WETH.address] == 9 * COIN
    assert len(store.ledger.entries()) == 3


def test_what_is_mined_counts_before_it_is_final_and_enters_only_then(store: Store) -> None:
    looked(store, at())
    step = sold(1_001, store=store)
    assert looked(store, step) == ""
    assert sums(store, 1_001)[WETH.address] == 9 * COIN
    assert sums(store, 1_000)[WETH.address] == 10 * COIN
    assert len(store.ledger.entries()) == 3
    final(store)
    assert looked(store, replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=1_002)))) == ""
    (entry,) = store.ledger.entered()
    assert entry.kind is EntryKind.TRADE
    assert entry.block == 1_001
    assert [pair.differs for pair in audit_entries(store, step)] == [False]


def test_a_change_that_nobody_made_is_a_flow_and_no_disagreement(store: Store) -> None:
    looked(store, at())
    assert looked(store, at(1_001, usdc=20_005)) == ""
    assert looked(store, at(1_002, usdc=20_005)) == ""
    assert [one.kind for one in store.ledger.entries()][3:] == [EntryKind.UNEXPLAINED]


def test_a_ledger_that_says_something_else_is_named_with_both_figures(store: Store) -> None:
    looked(store, at())
    with store.db.write("falsify") as db:
        db.exec_driver_sql("UPDATE running SET raw = '19999000000' WHERE token = ?", (USDC.address,))
    told = looked(store, at(1_001))
    assert mentions(told, "USDC: 19999", "20000")
    assert "trimtab books check" in told
    assert "WETH" not in told


def test_a_value_is_written_once_an_hour_and_after_each_change_that_was_not_the_markets(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, later_s=60))
    assert len(store.valuations.between()) == 1
    looked(store, at(1_002, later_s=3_700))
    assert len(store.valuations.between()) == 2
    looked(store, at(1_003, usdc=21_000, later_s=3_760))
    assert [one.block for one in store.valuations.between()] == [1_000, 1_002, 1_003]
    assert [one.block for one in store.valuations.newest(2)] == [1_003, 1_002]


def test_paper_keeps_books_of_its_own_and_going_live_opens_new_ones_at_the_balances(store: Store) -> None:
    store.db.book_kind = "paper"
    looked(store, at())
    looked(store, at(1_001, usdc=25_000))
    assert len(store.ledger.entries()) == 4
    store.db.book_kind = "live"
    assert store.ledger.entries() == ()
    assert store.ledger.current_book() is None
    assert looked(store, at(1_002, usdc=25_000)) == ""
    book = store.ledger.current_book()
    assert book is not None
    assert (book.number, book.kind) == (2, "live")
    assert sums(store, 1_002)[USDC.address] == 25_000 * DOLLAR
    assert len(store.ledger.entries()) == 3


def test_tokens_keep_their_names_when_they_leave_the_portfolio(store: Store) -> None:
    looked(store, at())
    step = at(1_001)
    fewer = replace(step, portfolio=replace(step.portfolio, assets=tuple(a for a in step.portfolio.assets if a.token.symbol == "USDC")))
    looked(store, fewer)
    known = store.ledger.token_names()
    assert known is not None
    assert {token.symbol for token in known.tokens} >= {"WETH", "USDC"}
