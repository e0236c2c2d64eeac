"""Sums that looks go by: always what the entries come to, whatever happens to blocks, proved and mended by `books check`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent.accounting import entries
from agent.execution import settlement
from agent.execution.bookkeeping import update_ledger
from agent.model import Intent, IntentState, StepInput, Transfer
from agent.store import Store, open_store
from agent.units import NATIVE
from tests.support.ledgers import COIN, DOLLAR, GAS_WEI, LEDGER_USDC, LEDGER_WETH, at, moved
from tests.support.stores import store_fixture
from tests.support.transactions import CHAIN_ID, OTHER, WALLET, receipt

LATER = 100


store = store_fixture("file")


def store_at(path: Path) -> Store:
    return open_store(f"sqlite:///{path}", CHAIN_ID, WALLET)


class Life:
    """A wallet that sells one WETH for 2,000 USDC now and then, gets and loses coins, and whose blocks may be taken."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.block = 1_000
        self.nonce = 0
        self.weth, self.usdc, self.native = 50 * COIN, 0, 10 * COIN
        self.look()

    def step(self) -> StepInput:
        step = at(self.block, later_s=self.block - 1_000)
        raws = {LEDGER_WETH.address: self.weth, LEDGER_USDC.address: self.usdc}
        holdings = tuple(replace(holding, raw=raws[holding.token]) for holding in step.snapshot.holdings)
        return replace(step, snapshot=replace(step.snapshot, holdings=holdings, native_wei=self.native))

    def look(self) -> None:
        """A block later: mined is booked, final is entered."""
        self.block += 1
        step = self.step()
        for intent in self.store.journal.unbooked_intents():
            self.store.budgets.book_intent(
                intent, Fraction(DOLLAR), Fraction(self.nonce * DOLLAR, 7), GAS_WEI, step.snapshot.head.timestamp_s
            )
        settlement.record_balance_changes(self.store.balances, step.snapshot, lambda: step)
        update_ledger(self.store, step)

    def sell(self) -> None:
        self.finalise()  # the next nonce waits for the one before it
        self.block += 1
        sold = (Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN), Transfer(LEDGER_USDC.address, OTHER, WALLET, 2_000 * DOLLAR))
        moved(self.store, self.nonce, self.block, *sold)
        self.nonce += 1
        self._changed(1)

    def finalise(self) -> None:
        for intent in self.store.journal.open_intents():
            self.store.journal.advance(intent.id, IntentState.FINAL, 1)

    def reorganise(self) -> None:
        """The newest sale loses its block, final or not, and is mined again in a later one."""
        sale = self._newest()
        if sale is None:
            return
        self.store.journal.advance(sale.id, IntentState.BROADCAST, 1)
        self._changed(-1)
        self.look()
        self.block += 1
        again = replace(receipt(str(sale.tx_hash), self.block, f"0x{self.block:064x}"), transfers=sale.receipt.transfers)
        self.store.journal.advance(sale.id, IntentState.MINED, 1, receipt=again)
        self._changed(1)

    def comes(self) -> None:
        self.usdc += 5 * DOLLAR

    def goes(self) -> None:
        self.weth -= COIN // 100

    def new_book(self) -> None:
        self.store.ledger.open_book(1, "anew")

    def _newest(self) -> Intent | None:
        return next((intent for intent in self.store.journal.intents() if intent.state in (IntentState.MINED, IntentState.FINAL)), None)

    def _changed(self, sign: int) -> None:
        self.weth -= sign * COIN
        self.usdc += sign * 2_000 * DOLLAR
        self.native -= sign * GAS_WEI


ACTS: tuple[Callable[[Life], None], ...] = (
    Life.sell, Life.sell, Life.look, Life.look, Life.finalise, Life.reorganise, Life.comes, Life.goes, Life.new_book,
)  # fmt: skip


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(ACTS), min_size=4, max_size=14))
def test_whatever_happens_the_sums_are_what_the_entries_come_to(
    tmp_path_factory: pytest.TempPathFactory, acts: list[Callable[[Life], None]]
) -> None:
    store = store_at(tmp_path_factory.mktemp("life") / "trimtab.db")
    try:
        life = Life(store)
        for act in acts:
            act(life)
            assert store.ledger.find_misstatements() == ()
        life.finalise()
        life.look()
        life.look()
        assert store.ledger.find_misstatements() == ()
        assert store.ledger.intents_without_entry() == ()
        assert store.journal.unbooked_intents() == ()
        stands = {balance.token: balance.raw for balance in store.ledger.balances(life.block)}
        assert stands == {LEDGER_WETH.address: life.weth, LEDGER_USDC.address: life.usdc, NATIVE: life.native}
        sums = entries.account_balances(store.ledger.entries())
        assert {token: sums[entries.WALLET, token] for token in stands} == stands
    finally:
        store.close()


def test_a_look_reads_nothing_of_entries_that_are_long_final(store: Store) -> None:
    life = Life(store)
    life.sell()
    life.finalise()
    life.look()
    before = store.ledger.balances(life.block)
    with store.db.write("wear out") as db:
        db.exec_driver_sql("UPDATE entries SET wallet_moves_json = 'worn out', entry_json = 'worn out'")

    assert store.ledger.balances(life.block) == before


def test_entry_counts_from_its_block_on(store: Store) -> None:
    life = Life(store)
    life.sell()
    life.finalise()
    life.look()

    at_block = {
        block: {balance.token: balance.raw for balance in store.ledger.balances(block)}[LEDGER_WETH.address]
        for block in (life.block - 2, life.block)
    }

    assert at_block == {life.block - 2: 50 * COIN, life.block: 49 * COIN}


def test_sums_that_were_tampered_with_are_named_and_put_in_order(store: Store) -> None:
    life = Life(store)
    life.sell()
    life.finalise()
    life.look()
    whole = store.ledger.balances(life.block), store.budgets.history(2 * 10**9).budgets.loss_total
    with store.db.write("tamper") as db:
        db.execute(text("UPDATE running SET raw = '1' WHERE token = :token"), {"token": LEDGER_WETH.address})
        db.exec_driver_sql("UPDATE meta SET value = '7' WHERE key = 'loss_total'")
        db.exec_driver_sql("UPDATE meta SET value = '900' WHERE key = 'settled_to'")

    misstatements = "; ".join(store.ledger.find_misstatements())

    assert f"balance of {LEDGER_WETH.address}: stored 1," in misstatements
    assert "losses: stored 7," in misstatements
    assert "settled: stored up to transaction 900" in misstatements
    store.ledger.rebuild_sums()
    assert store.ledger.find_misstatements() == ()
    assert (store.ledger.balances(life.block), store.budgets.history(2 * 10**9).budgets.loss_total) == whole
