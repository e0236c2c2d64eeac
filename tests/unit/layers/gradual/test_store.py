"""Tests of agent/layers/gradual/store.py: executions written once and read back, with draws, and progress by receipts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import text

from agent.errors import OperatorNeeded, Refused
from agent.layers.gradual.policy import TARGETS_CHANGED_REASON, slice_wait_s
from agent.layers.gradual.state import BudgetCarryover, ExecutionProgress, GradualState, SliceDraw
from agent.layers.gradual.store import GradualExecutionStore
from agent.model import ExecutionState, IntentState, LimitOrder
from agent.store import Store, open_store
from tests.support.builders import OWNER
from tests.support.gradual_execution import STORED_EXECUTION, part_of_step
from tests.support.records.swaps import PRICE, USDC, WETH, swap
from tests.support.stores import store_fixture
from tests.support.text import raises_code

GAS_VALUE = Fraction(100_000 * 10**9) * PRICE
"""Value of the gas of a swap."""
DRAW = SliceDraw(1_000, 2_000)

store = store_fixture(wallet=OWNER, wrapped_native=WETH)


def executions(store: Store) -> GradualExecutionStore:
    return store.layer_repository(GradualExecutionStore)


def state_of(store: Store, chain_now_s: int = 2_000) -> GradualState:
    return store.budgets.history(chain_now_s).layer(GradualState)


def progress_of(store: Store) -> ExecutionProgress:
    progress = state_of(store).progress
    assert progress is not None
    return progress


def begin(store: Store, draw: SliceDraw = DRAW, at_s: int = 1_100) -> str:
    """Begin an execution and its first slice in step `s1`; return its id."""
    execution_id = executions(store).begin(STORED_EXECUTION)
    executions(store).begin_slice(execution_id, 1, "s1", at_s, draw)
    return execution_id


# --- executions


def test_execution_is_read_back_as_it_was_written(store: Store) -> None:
    assert state_of(store) == GradualState()

    execution_id = executions(store).begin(STORED_EXECUTION)

    assert progress_of(store) == ExecutionProgress(execution_id, STORED_EXECUTION, 0, Fraction(0), Fraction(0), 1_000, SliceDraw(1, 2))


def test_execution_is_the_only_open_one(store: Store) -> None:
    execution_id = executions(store).begin(STORED_EXECUTION)

    with raises_code(OperatorNeeded, "execution_open"):
        executions(store).begin(STORED_EXECUTION)

    assert store.executions.end(execution_id, ExecutionState.ENDED, "done", 3_000)
    assert executions(store).begin(STORED_EXECUTION) != execution_id


def test_execution_ends_once_with_its_reason(store: Store) -> None:
    execution_id = executions(store).begin(STORED_EXECUTION)

    assert store.executions.end(execution_id, ExecutionState.ENDED, "done in 0 rounds", 3_000)
    assert not store.executions.end(execution_id, ExecutionState.ENDED, "again", 3_001)

    (stored,) = executions(store).newest_executions()
    assert (stored.state, stored.why) == (ExecutionState.ENDED, "done in 0 rounds")
    assert (state_of(store).progress, state_of(store).ended_s) == (None, 3_000)


def test_last_end_is_that_of_the_newest_execution(store: Store) -> None:
    for ended_s in (3_000, 4_000):
        store.executions.end(executions(store).begin(STORED_EXECUTION), ExecutionState.ENDED, "done", ended_s)
    store.executions.add_limit_order(LimitOrder("", WETH, USDC, 10**18, Fraction(1, 3), 9_000, 1_000, note="sell 1 WETH"))

    assert (state_of(store).progress, state_of(store).ended_s) == (None, 4_000)


@pytest.mark.parametrize("store_kind", ["file"])
def test_execution_survives_a_restart(store: Store, tmp_path: Path) -> None:
    begin(store)
    swap(store, "s1", 0, 10**17, 200 * 10**6)
    progress = progress_of(store)
    store.close()

    reopened = open_store(f"sqlite:///{tmp_path / 'trimtab.db'}", 31337, OWNER, WETH)

    assert progress_of(reopened) == progress
    reopened.close()


# --- draws


def test_first_draw_is_kept_until_an_execution_begins(store: Store) -> None:
    executions(store).store_next_draw(SliceDraw(11, 22))
    executions(store).store_next_draw(SliceDraw(33, 44))
    assert state_of(store).draw == SliceDraw(11, 22)

    executions(store).begin(STORED_EXECUTION)

    assert state_of(store).draw is None


def test_damaged_draw_needs_the_operator(store: Store) -> None:
    executions(store).store_next_draw(SliceDraw(1, 2))
    with store.db.write("damage") as connection:
        connection.execute(text("UPDATE meta SET value = 'x' WHERE key = 'draw'"))

    with raises_code(OperatorNeeded, "damaged", "a draw"):
        state_of(store)


# --- progress


def test_slice_counts_once_mined_with_its_loss_at_the_start(store: Store) -> None:
    begin(store)
    assert progress_of(store).parts_done == 0

    swap(store, "s1", 0, 5 * 10**17, 996 * 10**6)

    progress = progress_of(store)
    assert (progress.parts_done, progress.draw) == (1, DRAW)
    assert progress.lost_value == 4 * 10**6 + GAS_VALUE
    assert progress.moved_value == Fraction(1_000 + 996, 2) * 10**6
    assert progress.next_s == 1_100 + slice_wait_s(STORED_EXECUTION, DRAW)


def test_reverted_slice_costs_gas_and_keeps_the_draw_of_the_next_try(store: Store) -> None:
    execution_id = begin(store)
    swap(store, "s1", 0, 0, 0, status=0)
    assert (progress_of(store).parts_done, progress_of(store).draw, progress_of(store).lost_value) == (0, SliceDraw(1, 2), GAS_VALUE)

    executions(store).begin_slice(execution_id, 1, "s2", 1_200, SliceDraw(9_000, 9_000))
    swap(store, "s2", 1, 10**17, 200 * 10**6)

    assert (progress_of(store).parts_done, progress_of(store).draw) == (1, DRAW)
    assert part_of_step(store, "s2") == (execution_id, 1)


def test_reorganisation_takes_the_slice_back(store: Store) -> None:
    begin(store)
    intent_id = swap(store, "s1", 0, 10**17, 200 * 10**6)
    assert progress_of(store).parts_done == 1

    store.journal.advance(intent_id, IntentState.BROADCAST, 1_010)

    progress = progress_of(store)
    assert (progress.parts_done, progress.lost_value, progress.next_s) == (0, 0, 1_000)


# --- shared budgets


@pytest.mark.parametrize(
    ("chain_now_s", "is_carried"),
    [
        pytest.param(STORED_EXECUTION.expires_s - 1, True, id="a second before its expiry"),
        pytest.param(STORED_EXECUTION.expires_s, False, id="at its expiry"),
    ],
)
def test_carryover_ends_with_the_time_of_its_execution(store: Store, chain_now_s: int, is_carried: bool) -> None:
    execution_id = executions(store).begin(STORED_EXECUTION)
    store.executions.end(execution_id, ExecutionState.ENDED, TARGETS_CHANGED_REASON, 3_000)

    assert (state_of(store, chain_now_s).carryover is not None) is is_carried


@pytest.mark.parametrize(
    ("stored_why", "prices"),
    [("the portfolio's targets changed", STORED_EXECUTION.arrival_prices), ("policy.only was changed", ())],
    ids=["targets", "side"],
)
def test_carryover__of_an_earlier_run__has_its_prices_if_targets_changed(
    store: Store, stored_why: str, prices: tuple[tuple[str, Fraction], ...]
) -> None:
    """The words in stores of earlier runs."""
    store.executions.end(executions(store).begin(STORED_EXECUTION), ExecutionState.ENDED, stored_why, 3_000)
    carryover = state_of(store, 3_000).carryover
    assert carryover is not None
    assert carryover.arrival_prices == prices


def test_carryover_is_the_loss_of_ended_executions_together(store: Store) -> None:
    """A restart between two corrections gives out no second budget, and a second correction none of its own time."""
    first_id = begin(store)
    swap(store, "s1", 0, 10**18, 1_990 * 10**6)
    lost_value = progress_of(store).lost_value
    assert lost_value > 10 * 10**6
    assert state_of(store).carryover is None, "while it is open it counts itself"

    store.executions.end(first_id, ExecutionState.ENDED, TARGETS_CHANGED_REASON, 3_000)
    carryover = BudgetCarryover(5_600, STORED_EXECUTION.value_to_move, lost_value, STORED_EXECUTION.arrival_prices)
    assert state_of(store, 3_000).carryover == carryover

    larger = replace(
        STORED_EXECUTION, began_s=3_100, expires_s=9_000, value_to_move=2 * STORED_EXECUTION.value_to_move, carryover=carryover
    )
    second_id = executions(store).begin(larger)
    store.executions.end(second_id, ExecutionState.CANCELLED, "by its owner", 3_200)
    assert state_of(store, 3_300).carryover == BudgetCarryover(5_600, larger.value_to_move, lost_value, ()), "without its prices"
    assert state_of(store, 5_600).carryover is None


# --- limit orders beside executions


def test_limit_order_is_open_until_it_is_filled_or_cancelled(store: Store) -> None:
    first = store.executions.add_limit_order(LimitOrder("", WETH, USDC, 10**18, Fraction(1, 3), 9_000, 1_000, note="sell 1 WETH"))
    second = store.executions.add_limit_order(LimitOrder("", WETH, USDC, 10**18, Fraction(1, 2), 9_000, 1_001, note="sell 1 more"))
    assert [order.id for order in store.executions.limit_orders()] == [first.id, second.id]
    assert first.price == store.executions.limit_orders()[0].price == Fraction(1, 3)

    store.executions.begin_attempt(first.id, 1, "s1", 1_100)
    swap(store, "s1", 0, 10**18, 2_000 * 10**6)
    assert [order.state for order in store.executions.limit_orders()] == ["filled", "open"]

    assert store.executions.end(second.id, ExecutionState.CANCELLED, "by its owner", 1_200)
    assert [order.state for order in store.executions.limit_orders()] == ["filled", "cancelled"]
    with raises_code(Refused, "execution_ended"):
        store.executions.begin_attempt(second.id, 1, "s2", 1_300)
