"""Campaigns and orders in the store: written once, read back the same, draws kept, how far they are by receipts alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import text

from agent.errors import OperatorNeeded, Refused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.gradual.policy import TARGETS_CHANGED_REASON, slice_wait_s
from agent.layers.gradual.records import record_executions
from agent.layers.gradual.state import BudgetCarryover, ExecutionProgress, GradualExecution, GradualResult, GradualState, SliceDraw
from agent.layers.gradual.store import GradualExecutionStore
from agent.model import Destination, ExecutionState, Goal, GoalWeight, IntentState, LimitOrder
from agent.policy.decide import decide
from agent.store import Store, open_store
from tests.support.builders import OWNER, step_input
from tests.support.gradual_execution import PACE, part_of_step
from tests.support.records.swaps import PRICE, USDC, WETH, swap
from tests.support.stores import store_fixture
from tests.support.text import raises_code

CAMPAIGN = GradualExecution(
    pace=PACE,
    targets_bps=((WETH, 5_000), (USDC, 5_000)),
    destination=Destination.TARGET,
    goal=Goal((GoalWeight(WETH, Fraction(1, 2), Fraction(1, 2)), GoalWeight(USDC, Fraction(1, 2), Fraction(1, 2)))),
    arrival_prices=((USDC, Fraction(1)), (WETH, PRICE)),
    side_by_token=((WETH, -1), (USDC, 1)),
    value_to_move=Fraction(3_000 * 10**6),
    rounds=3,
    max_loss=Fraction(30 * 10**6),
    began_s=1_000,
    ends_s=5_000,
    expires_s=5_600,
    first_draw=SliceDraw(1, 2),
)


store = store_fixture(wallet=OWNER, wrapped_native=WETH)


def under(store: Store) -> ExecutionProgress:
    progress = store.budgets.history(2_000).layer(GradualState).progress
    assert progress is not None
    return progress


def test_campaign__is_read_back_as_written_and_is_one_at_a_time(store: Store) -> None:
    assert store.budgets.history(2_000).layer(GradualState).progress is None
    execution = store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    assert under(store) == ExecutionProgress(execution, CAMPAIGN, 0, Fraction(0), Fraction(0), 1_000, SliceDraw(1, 2))
    with raises_code(OperatorNeeded, "execution_open"):
        store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    assert store.executions.end(execution, ExecutionState.ENDED, "done in 0 rounds", 3_000)
    assert not store.executions.end(execution, ExecutionState.ENDED, "again", 3_001)
    assert (store.budgets.history(2_000).layer(GradualState).progress, store.budgets.history(2_000).layer(GradualState).ended_s) == (
        None,
        3_000,
    )
    (past,) = store.layer_repository(GradualExecutionStore).newest_executions()
    assert past.state == "ended"
    assert "done in 0" in past.why


def test_first_draw__is_kept_until_used_and_never_drawn_twice(store: Store) -> None:
    store.layer_repository(GradualExecutionStore).store_next_draw(SliceDraw(11, 22))
    store.layer_repository(GradualExecutionStore).store_next_draw(SliceDraw(33, 44))
    assert store.budgets.history(2_000).layer(GradualState).draw == SliceDraw(11, 22)
    store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    assert store.budgets.history(2_000).layer(GradualState).draw is None


def test_round__counts_once_in_a_block_with_its_loss_at_the_start(store: Store) -> None:
    execution = store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    store.layer_repository(GradualExecutionStore).begin_slice(execution, 1, "s1", 1_100, SliceDraw(500_000, 250_000))
    assert under(store).parts_done == 0
    swap(store, "s1", 0, 5 * 10**17, 996 * 10**6)
    now = under(store)
    gas = Fraction(100_000 * 10**9) * PRICE
    assert (now.parts_done, now.draw) == (1, SliceDraw(500_000, 250_000))
    assert now.lost_value == 4 * 10**6 + gas
    assert now.moved_value == Fraction(1_000 + 996, 2) * 10**6
    assert now.next_s == 1_100 + slice_wait_s(CAMPAIGN, now.draw)


def test_reverted_try__is_no_round_but_its_gas_counts(store: Store) -> None:
    execution = store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    store.layer_repository(GradualExecutionStore).begin_slice(execution, 1, "s1", 1_100, SliceDraw(1_000, 2_000))
    swap(store, "s1", 0, 0, 0, status=0)
    assert (under(store).parts_done, under(store).draw) == (0, SliceDraw(1, 2))
    assert under(store).lost_value == Fraction(100_000 * 10**9) * PRICE
    store.layer_repository(GradualExecutionStore).begin_slice(execution, 1, "s2", 1_200, SliceDraw(9_000, 9_000))
    swap(store, "s2", 1, 10**17, 200 * 10**6)
    assert (under(store).parts_done, under(store).draw) == (1, SliceDraw(1_000, 2_000))
    assert part_of_step(store, "s2") == (execution, 1)


def test_a_reorganisation_takes_the_round_back(store: Store) -> None:
    execution = store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    store.layer_repository(GradualExecutionStore).begin_slice(execution, 1, "s1", 1_100, SliceDraw(1_000, 2_000))
    intent = swap(store, "s1", 0, 10**17, 200 * 10**6)
    assert under(store).parts_done == 1
    store.journal.advance(intent, IntentState.BROADCAST, 1_010)
    assert (under(store).parts_done, under(store).lost_value, under(store).next_s) == (0, 0, 1_000)


@pytest.mark.parametrize("store_kind", ["file"])
def test_a_store_that_is_opened_again_knows_all_of_it(store: Store, tmp_path: Path) -> None:
    execution = store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    store.layer_repository(GradualExecutionStore).begin_slice(execution, 1, "s1", 1_100, SliceDraw(1_000, 2_000))
    swap(store, "s1", 0, 10**17, 200 * 10**6)
    before = under(store)
    store.close()
    again = open_store(f"sqlite:///{tmp_path / 'trimtab.db'}", 31337, OWNER, WETH)
    assert under(again) == before


def test_order__is_open_until_its_swap_is_in_a_block_or_ended(store: Store) -> None:
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


def test_a_damaged_draw_needs_the_operator(store: Store) -> None:
    store.layer_repository(GradualExecutionStore).store_next_draw(SliceDraw(1, 2))
    with store.db.write("damage") as connection:
        connection.execute(text("UPDATE meta SET value = 'x' WHERE key = 'draw'"))
    with raises_code(OperatorNeeded, "damaged", "a draw"):
        store.budgets.history(2_000)


def test_last_execution_s_loss__is_passed_on_while_its_time_lasts(store: Store) -> None:
    """A restart between two corrections gives out no second budget."""
    execution = store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    store.layer_repository(GradualExecutionStore).begin_slice(execution, 1, "s1", 1_000, SliceDraw(3, 4))
    swap(store, "s1", 0, 10**18, 1_990 * 10**6)
    lost = under(store).lost_value
    assert lost > 10 * 10**6
    assert store.budgets.history(2_000).layer(GradualState).carryover is None, "while it is under way it counts itself"
    store.executions.end(execution, ExecutionState.ENDED, TARGETS_CHANGED_REASON, 3_000)
    assert store.budgets.history(3_000).layer(GradualState).carryover == BudgetCarryover(
        5_600, CAMPAIGN.value_to_move, lost, CAMPAIGN.arrival_prices
    )
    assert store.budgets.history(5_600).layer(GradualState).carryover is None
    second = replace(
        CAMPAIGN,
        began_s=3_100,
        expires_s=9_000,
        value_to_move=CAMPAIGN.value_to_move * 2,
        carryover=store.budgets.history(3_000).layer(GradualState).carryover,
    )
    other = store.layer_repository(GradualExecutionStore).begin(second)
    store.executions.end(other, ExecutionState.CANCELLED, "by its owner", 3_200)
    assert store.budgets.history(3_300).layer(GradualState).carryover == BudgetCarryover(5_600, CAMPAIGN.value_to_move * 2, lost, ()), (
        "the sum goes on, the prices do not"
    )
    assert store.budgets.history(5_600).layer(GradualState).carryover is None


@pytest.mark.parametrize(("kind", "is_open"), [(OutcomeKind.HOLD, True), (OutcomeKind.PLANNED, False)])
def test_records__execution_waiting_for_its_price_begins_decided(store: Store, kind: OutcomeKind, is_open: bool) -> None:
    """One whose first slice is planned begins as that is sent."""
    step = step_input()
    decided = decide(step).with_layer(GradualResult(new_execution=CAMPAIGN))
    record_executions(store, StepOutcome("step", kind, "", step, decided, None))
    assert (store.budgets.history(2_000).layer(GradualState).progress is not None) is is_open


def test_records__execution_that_ended_is_closed_with_its_reason(store: Store) -> None:
    execution_id = store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    step = step_input().with_layer(GradualState(progress=replace(under(store), id=execution_id)))
    decided = decide(step_input()).with_layer(GradualResult(end_reason="prices reversed"))
    record_executions(store, StepOutcome("step", OutcomeKind.HOLD, "", step, decided, None))
    [past] = store.layer_repository(GradualExecutionStore).newest_executions()
    assert (past.state, past.why) == ("ended", "prices reversed")


@pytest.mark.parametrize(("chain_now_s", "is_carried"), [(CAMPAIGN.expires_s - 1, True), (CAMPAIGN.expires_s, False)])
def test_carried_budget__ends_with_its_first_execution_s_time(store: Store, chain_now_s: int, is_carried: bool) -> None:
    execution_id = store.layer_repository(GradualExecutionStore).begin(CAMPAIGN)
    store.executions.end(execution_id, ExecutionState.ENDED, TARGETS_CHANGED_REASON, 3_000)
    assert (store.budgets.history(chain_now_s).layer(GradualState).carryover is not None) is is_carried
