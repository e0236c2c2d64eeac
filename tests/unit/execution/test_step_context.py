"""Records that later steps need, made from the step that saw their cause."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import Retryable
from agent.execution.step_context import CATCH_UP_ATTEMPTS, CaughtUpReader, record_anomalies
from agent.ports import Reader
from agent.store import open_memory_store
from tests.support.builders import step_input
from tests.support.fakes.clock import FakeClock
from tests.support.ledgers import LEDGER_WETH, at, remembered
from tests.support.records.transfers import NOW_S, record_transfers, transfer
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, WALLET


def test_record_anomalies__deposit_after_the_look__is_not_excluded() -> None:
    with closing(open_memory_store(CHAIN_ID, WALLET)) as store:
        record_transfers(store, transfer(5), transfer(7))
        step = remembered(store, at(1_001))
        step = replace(step, exclusions=replace(step.exclusions, reason="12 WETH excluded"))
        record_transfers(store, transfer(100))
        record_anomalies(store.budgets, store.balances, step)
        assert store.budgets.history(NOW_S).cash_flows.excluded_increases_raw == ((LEDGER_WETH.address, 12),)


@dataclass
class FakeLaggingReader:
    """A reader whose snapshots have our transaction at nonce 7 only after so many reads."""

    stale_reads: int
    read_count: int = 0

    def snapshot(self) -> Any:
        self.read_count += 1
        return replace(step_input().snapshot, nonce_latest=8 if self.read_count > self.stale_reads else 7)


def caught_up(reader: FakeLaggingReader) -> CaughtUpReader:
    journal: Any = SimpleNamespace(expected_nonce=lambda: 8)
    return CaughtUpReader(cast("Reader", reader), journal, FakeClock())


@pytest.mark.parametrize("stale_reads", [0, 1, CATCH_UP_ATTEMPTS])
def test_caught_up_reader__returns_the_first_snapshot_in_time(stale_reads: int) -> None:
    reader = FakeLaggingReader(stale_reads)
    assert caught_up(reader).snapshot().nonce_latest == 8
    assert reader.read_count == stale_reads + 1


def test_caught_up_reader__gives_up_on_a_quorum_that_stays_behind() -> None:
    reader = FakeLaggingReader(CATCH_UP_ATTEMPTS + 1)
    with raises_code(Retryable, "lag", "behind our transaction at nonce 7"):
        caught_up(reader).snapshot()
    assert reader.read_count == CATCH_UP_ATTEMPTS + 1
