"""Purchases in parts and limit orders in the store: progress by receipts at arrival prices, what goes first, what has ended."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from agent.errors import Refused
from agent.model import ExecutionState, IntentState, LimitOrder, Purchase, PurchaseKind, PurchaseProgress
from agent.store import Store
from tests.support.builders import OWNER
from tests.support.records.swaps import PRICE, USDC, WETH, swap
from tests.support.text import raises_code
from tests.support.transactions import new_store

TERMS = Purchase(PurchaseKind.FIRST, Fraction(6_000 * 10**6), 3, 600, ((USDC, Fraction(1)), (WETH, PRICE)), 1_000, 9_000)
COIN, DOLLAR = 10**18, 10**6
GAS_WEI = 100_000 * 10**9
"""Gas of a swap, 0.2 USDC at the arrival price."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = new_store("memory", tmp_path, OWNER, WETH)
    yield store
    store.close()


def progress(store: Store) -> PurchaseProgress:
    purchase = store.budgets.history(2_000).cash_flows.purchase
    assert purchase is not None
    return purchase


def limit_order(number: int = 1) -> LimitOrder:
    return LimitOrder("", WETH, USDC, number, Fraction(1), 9_000, 1_000)


def test_a_purchase_without_a_part_is_due_when_it_began(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)

    assert progress(store) == PurchaseProgress(execution_id, TERMS, 0, Fraction(0), Fraction(0), 1_000)


def test_part_counts_what_it_moved_and_lost_with_its_gas(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)
    store.executions.begin_attempt(execution_id, 1, "s1", 1_100)
    swap(store, "s1", 0, COIN, 1_990 * DOLLAR)

    first = progress(store)

    assert (first.parts_done, first.next_s) == (1, 1_700)
    assert first.moved_value == 1_995 * DOLLAR
    assert first.lost_value == 10 * DOLLAR + DOLLAR // 5
    assert first.sold_raw_by_token == ((WETH, COIN + GAS_WEI),)


def test_a_reverted_attempt_costs_its_gas_and_is_no_part(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)
    store.executions.begin_attempt(execution_id, 1, "s1", 1_100)
    swap(store, "s1", 0, COIN, 1_990 * DOLLAR, status=0)

    failed = progress(store)

    assert (failed.parts_done, failed.next_s, failed.moved_value, failed.sold_raw_by_token) == (0, 1_000, 0, ())
    assert failed.lost_value == DOLLAR // 5


def test_the_next_part_waits_since_the_last_that_traded(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)
    for number, (step_id, at_s, status) in enumerate((("s1", 1_100, 1), ("s2", 1_800, 1), ("s3", 2_500, 0))):
        store.executions.begin_attempt(execution_id, number + 1, step_id, at_s)
        swap(store, step_id, number, COIN, 2_000 * DOLLAR, status=status)

    assert (progress(store).parts_done, progress(store).next_s) == (2, 2_400)
    assert progress(store).moved_value == 4_000 * DOLLAR
    assert progress(store).sold_raw_by_token == ((WETH, 2 * COIN + 2 * GAS_WEI),)


def test_a_reorganisation_takes_a_part_back(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)
    store.executions.begin_attempt(execution_id, 1, "s1", 1_100)
    intent_id = swap(store, "s1", 0, COIN, 1_990 * DOLLAR)

    store.journal.advance(intent_id, IntentState.BROADCAST, 1_004)

    assert progress(store) == PurchaseProgress(execution_id, TERMS, 0, Fraction(0), Fraction(0), 1_000)


def test_a_swap_of_another_step_is_no_part(store: Store) -> None:
    store.executions.begin_purchase(TERMS)

    swap(store, "s1", 0, COIN, 1_990 * DOLLAR)

    assert (progress(store).parts_done, progress(store).lost_value) == (0, 0)


def test_a_purchase_ends_the_one_before_it_and_no_limit_order(store: Store) -> None:
    first = store.executions.begin_purchase(TERMS)
    order = store.executions.add_limit_order(limit_order())

    second = store.executions.begin_purchase(TERMS)

    assert store.executions.open_execution_ids() == (order.id, second)
    newest, ended = store.executions.purchases()
    assert (newest.progress.id, newest.state) == (second, "open")
    assert (ended.progress.id, ended.state) == (first, "ended")
    with raises_code(Refused, "execution_ended"):
        store.executions.begin_attempt(first, 1, "s1", 1_100)
    assert store.executions.purchases(limit=1) == (newest,)


def test_execution_ends_once_and_alone(store: Store) -> None:
    first, second = (store.executions.add_limit_order(limit_order(number)) for number in (1, 2))

    assert not store.executions.end("nothing", ExecutionState.CANCELLED, "by its owner", 1_200)
    assert store.executions.end(first.id, ExecutionState.CANCELLED, "by its owner", 1_200)
    assert not store.executions.end(first.id, ExecutionState.ENDED, "again", 1_201)
    assert [(order.state, order.why) for order in store.executions.limit_orders()] == [("cancelled", "by its owner"), ("open", "")]
    assert store.executions.limit_orders(limit=1) == (second,)
    assert store.budgets.history(2_000).cash_flows.purchase is None
