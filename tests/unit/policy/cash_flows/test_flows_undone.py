"""Money that was gone and is back to the base unit: nothing is missing, so nothing halts and nothing was lost."""

from __future__ import annotations

from agent.accounting import export
from agent.accounting.performance import BuyAndHoldTokens, performance
from agent.accounting.tax_lots import run_tax_lots
from agent.execution.bookkeeping import update_ledger
from agent.model import EntryKind, ExternalTransferKind, Halt, LotMethod
from agent.policy.decide import decide
from agent.store import Store
from tests.support.ledgers import COIN, GAS_WEI, LEDGER_USDC, LEDGER_WETH, PRICE, at, looked, moved, remembered
from tests.support.stores import store_fixture
from tests.support.transactions import CHAIN_ID, WALLET

store = store_fixture("file", wallet=WALLET, chain_id=CHAIN_ID)


def kinds(store: Store) -> list[ExternalTransferKind | None]:
    return [flow.kind for flow in store.balances.transfers()]


def test_decrease_that_is_restored_was_no_loss(store: Store) -> None:
    looked(store, at())
    gone = looked(store, at(1_001, "0"))
    assert isinstance(decide(gone).decision, Halt)
    dry = remembered(store, at(1_002))
    back = looked(store, at(1_002))
    for step in (dry, back):
        assert (step.history.cash_flows.unexplained_transfers, step.history.budgets.loss_24h, step.history.budgets.loss_total) == ((), 0, 0)
        assert not isinstance(decide(step).decision, Halt)
    assert kinds(store) == [ExternalTransferKind.UNDONE, ExternalTransferKind.UNDONE]


def test_restored_balance_keeps_its_tax_lots(store: Store) -> None:
    for step in (at(), at(1_001, "0"), at(1_002)):
        looked(store, step)
        update_ledger(store, step, is_forced=True)
    entries = store.ledger.entries()
    values = store.valuations.between()
    assert [entry.kind for entry in entries][3:] == [EntryKind.UNDONE] * 2
    result = performance(entries, values, 0, 2 * 10**9, LEDGER_USDC.address, BuyAndHoldTokens(LEDGER_USDC.address, LEDGER_WETH.address))
    assert (result.profit, result.deposits, result.withdrawals) == (0, 0, 0)
    for method in LotMethod:
        taxed = run_tax_lots(entries, method, LEDGER_USDC.address, LEDGER_WETH.address)
        assert taxed.disposals == []
        assert taxed.untaxed_quanta == 0
        assert sum(lot.raw for lot in taxed.open_lots() if lot.token == LEDGER_WETH.address) == 11 * COIN
        assert {lot.acquired_s for lot in taxed.open_lots()} == {at().snapshot.head.timestamp_s}
    assets = export.RotkiAssets(1, "ETH", lambda _: 18)
    assert len(list(export.rotki_events(entries, assets))) == 3, "openings alone"


def test_flow_is_valued_at_its_own_block_only(store: Store) -> None:
    for step in (at(), at(1_001, usdc=30_000), at(1_002, usdc=30_000)):
        after = looked(store, step)
        books = store.balances.expected()
        update_ledger(store, after, {flow.block for flow in books.transfers})
    assert [valuation.block for valuation in store.valuations.between()] == [1_000, 1_001]


def test_restored_native_coin_is_no_gas_money(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, native=0))
    back = looked(store, at(1_002))
    assert (back.history.cash_flows.unexplained_transfers, back.history.budgets.loss_24h) == ((), 0)
    assert kinds(store) == [ExternalTransferKind.UNDONE, ExternalTransferKind.UNDONE]


def test_gas_paid_while_native_coin_was_gone_counts(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, native=0))
    moved(store, 0, 1_002)
    looked(store, at(1_003, native=0))
    back = looked(store, at(1_004, native=COIN - GAS_WEI))
    assert back.history.cash_flows.unexplained_transfers == ()
    assert kinds(store) == [ExternalTransferKind.UNDONE, ExternalTransferKind.GAS_MONEY, ExternalTransferKind.UNDONE]


def test_gas_money_before_a_decrease_restores_none_of_it(store: Store) -> None:
    for step in (at(native=COIN), at(1_001, native=11 * COIN // 10), at(1_002, native=85 * COIN // 100)):
        looked(store, step)
    back = looked(store, at(1_003, native=COIN))
    assert [flow.delta_raw for flow in back.history.cash_flows.unexplained_transfers] == [-COIN // 4]
    assert back.history.budgets.loss_24h > 0
    assert kinds(store) == [ExternalTransferKind.GAS_MONEY, None, ExternalTransferKind.GAS_MONEY]


def test_gas_money_after_a_decrease_is_a_part_that_came_back(store: Store) -> None:
    for step in (at(), at(1_001, native=COIN // 2), at(1_002, native=COIN * 6 // 10), at(1_003, native=COIN // 2)):
        looked(store, step)
    assert looked(store, at(1_004)).history.budgets.loss_24h == 0
    assert kinds(store) == [
        ExternalTransferKind.UNDONE,
        ExternalTransferKind.GAS_MONEY,
        ExternalTransferKind.UNDONE,
        ExternalTransferKind.UNDONE,
    ]


def test_decreases_restored_together_end_together(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "9.9"))
    looked(store, at(1_002, "9.7"))
    assert looked(store, at(1_003)).history.budgets.loss_24h == 0
    assert kinds(store) == [ExternalTransferKind.UNDONE] * 3


def test_restoration_short_of_a_base_unit_is_none(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "9"))
    step = looked(store, at(1_002, "9.999999999999999999"))
    assert step.history.budgets.loss_24h == PRICE
    assert kinds(store)[0] is None


def test_increase_that_went_again_halts(store: Store) -> None:
    """He may have sent it, and a thief taken it."""
    looked(store, at())
    looked(store, at(1_001, "11"))
    step = looked(store, at(1_002, "10"))
    assert isinstance(decide(step).decision, Halt)
    assert step.history.budgets.loss_24h == PRICE
    assert kinds(store) == [None, None]


def test_classified_decrease_stays_what_it_is(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "9.9"))
    store.balances.classify(1, ExternalTransferKind.LOSS, 5)
    step = looked(store, at(1_002))
    assert step.history.budgets.loss_24h == PRICE // 10
    assert kinds(store) == [ExternalTransferKind.LOSS, None]
