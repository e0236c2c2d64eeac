"""Money that was gone and is back to the base unit: nothing is missing, so nothing halts and nothing was lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.accounting import export
from agent.accounting.performance import BuyAndHoldTokens, performance
from agent.accounting.tax_lots import run_tax_lots
from agent.execution.bookkeeping import update_ledger
from agent.model import EntryKind, ExternalTransferKind, Halt, LotMethod
from agent.policy.decide import decide
from agent.store import Store, open_store
from tests.support.ledgers import COIN, GAS_WEI, PRICE, at, looked, moved, remembered
from tests.support.ledgers import LEDGER_USDC as USDC
from tests.support.ledgers import LEDGER_WETH as WETH
from tests.support.transactions import CHAIN_ID, WALLET


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    yield made
    made.close()


def kinds(store: Store) -> list[ExternalTransferKind | None]:
    return [flow.kind for flow in store.balances.transfers()]


def test_a_fall_that_comes_back_ends_both_flows_and_was_no_loss(store: Store) -> None:
    looked(store, at())
    gone = looked(store, at(1_001, "0"))
    assert isinstance(decide(gone).decision, Halt)
    dry = remembered(store, at(1_002))
    back = looked(store, at(1_002))
    for step in (dry, back):
        assert (step.history.cash_flows.unexplained_transfers, step.history.budgets.loss_24h, step.history.budgets.loss_total) == ((), 0, 0)
        assert not isinstance(decide(step).decision, Halt)
    assert kinds(store) == [ExternalTransferKind.UNDONE, ExternalTransferKind.UNDONE]


def test_what_was_gone_for_a_while_is_neither_a_loss_nor_a_deposit_and_keeps_its_lots(store: Store) -> None:
    for step in (at(), at(1_001, "0"), at(1_002)):
        looked(store, step)
        update_ledger(store, step, is_forced=True)
    entries, values = store.ledger.entries(), store.valuations.between()
    assert [one.kind for one in entries][3:] == [EntryKind.UNDONE] * 2
    found = performance(entries, values, 0, 2 * 10**9, USDC.address, BuyAndHoldTokens(USDC.address, WETH.address))
    assert found is not None
    assert (found.profit, found.deposits, found.withdrawals) == (0, 0, 0)
    for method in LotMethod:
        taxed = run_tax_lots(entries, method, USDC.address, WETH.address)
        assert taxed.disposals == []
        assert taxed.untaxed_quanta == 0
        assert sum(lot.raw for lot in taxed.open_lots() if lot.token == WETH.address) == 11 * COIN
        assert {lot.acquired_s for lot in taxed.open_lots()} == {at().snapshot.head.timestamp_s}
    assets = export.RotkiAssets(1, "ETH", lambda _: 18)
    assert len(list(export.rotki_events(entries, assets))) == 3, "openings alone"


def test_a_flow_is_valued_at_its_own_block_and_not_again_at_the_next(store: Store) -> None:
    for step in (at(), at(1_001, usdc=30_000), at(1_002, usdc=30_000)):
        after = looked(store, step)
        books = store.balances.expected()
        update_ledger(store, after, {flow.block for flow in books.transfers})
    assert [one.block for one in store.valuations.between()] == [1_000, 1_001]


def test_native_coin_that_was_gone_and_is_back_is_not_taken_for_gas_money(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, native=0))
    back = looked(store, at(1_002))
    assert (back.history.cash_flows.unexplained_transfers, back.history.budgets.loss_24h) == ((), 0)
    assert kinds(store) == [ExternalTransferKind.UNDONE, ExternalTransferKind.UNDONE]


def test_gas_that_was_paid_while_native_coin_seemed_gone_is_counted_too(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, native=0))
    moved(store, 0, 1_002)
    looked(store, at(1_003, native=0))
    back = looked(store, at(1_004, native=COIN - GAS_WEI))
    assert back.history.cash_flows.unexplained_transfers == ()
    assert kinds(store) == [ExternalTransferKind.UNDONE, ExternalTransferKind.GAS_MONEY, ExternalTransferKind.UNDONE]


def test_falls_that_come_back_together_end_together(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "9.9"))
    looked(store, at(1_002, "9.7"))
    assert looked(store, at(1_003)).history.budgets.loss_24h == 0
    assert kinds(store) == [ExternalTransferKind.UNDONE] * 3


def test_one_base_unit_less_brings_nothing_back(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "9"))
    step = looked(store, at(1_002, "9.999999999999999999"))
    assert step.history.budgets.loss_24h == PRICE
    assert kinds(store)[0] is None


def test_what_came_and_went_again_waits_for_its_owner(store: Store) -> None:
    """He may have sent it, and a thief taken it."""
    looked(store, at())
    looked(store, at(1_001, "11"))
    step = looked(store, at(1_002, "10"))
    assert isinstance(decide(step).decision, Halt)
    assert step.history.budgets.loss_24h == PRICE
    assert kinds(store) == [None, None]


def test_a_fall_that_was_told_already_stays_what_it_was_called(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "9.9"))
    store.balances.classify(1, ExternalTransferKind.LOSS, 5)
    step = looked(store, at(1_002))
    assert step.history.budgets.loss_24h == PRICE // 10
    assert kinds(store) == [ExternalTransferKind.LOSS, None]
