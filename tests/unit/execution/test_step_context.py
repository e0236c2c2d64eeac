"""Records that later steps need, made from the step that saw their cause."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from agent.execution.step_context import record_anomalies
from agent.store import open_memory_store
from tests.support.ledgers import LEDGER_WETH, at, remembered
from tests.support.records.transfers import NOW_S, record_transfers, transfer
from tests.support.transactions import CHAIN_ID, WALLET


def test_record_anomalies__deposit_after_the_look__is_not_excluded() -> None:
    with closing(open_memory_store(CHAIN_ID, WALLET)) as store:
        record_transfers(store, transfer(5), transfer(7))
        step = remembered(store, at(1_001))
        step = replace(step, exclusions=replace(step.exclusions, reason="12 WETH excluded"))
        record_transfers(store, transfer(100))
        record_anomalies(store.budgets, store.balances, step)
        assert store.budgets.history(NOW_S).cash_flows.excluded_increases_raw == ((LEDGER_WETH.address, 12),)
