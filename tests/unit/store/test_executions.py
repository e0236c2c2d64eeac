"""Purchases in parts and limit orders in the store: progress by receipts at arrival prices, what goes first, what has ended."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.model import ExecutionState, IntentKind, IntentState, LimitOrder, Purchase, PurchaseKind, PurchaseProgress
from agent.store import Store
from tests.support.builders import OWNER
from tests.support.records.intents import ended_intent
from tests.support.records.swaps import PRICE, USDC, WETH, swap
from tests.support.stores import store_fixture
from tests.support.text import raises_code

TERMS = Purchase(PurchaseKind.FIRST, Fraction(6_000 * 10**6), 3, 600, ((USDC, Fraction(1)), (WETH, PRICE)), 1_000, 9_000)
COIN = 10**18
DOLLAR = 10**6
LOSS = 10 * DOLLAR
"""What a part loses that sells one WETH for 1,990 USDC."""
GAS_WEI = 100_000 * 10**9
GAS_VALUE = DOLLAR // 5
"""Gas of a swap, and its value at the arrival price."""
TRADED = 1
REVERTED = 0
"""Statuses of a receipt."""


store = store_fixture("memory", wallet=OWNER, wrapped_native=WETH)


def progress(store: Store) -> PurchaseProgress:
    purchase = store.budgets.history(2_000).cash_flows.purchase
    assert purchase is not None
    return purchase


def try_part(store: Store, execution_id: str, part_number: int, at_s: int, status: int = TRADED, usdc_raw: int = 1_990 * DOLLAR) -> str:
    """Attempt a part that sells one WETH; return the id of its swap."""
    step_id = f"step at {at_s}"
    store.executions.begin_attempt(execution_id, part_number, step_id, at_s)
    return swap(store, step_id, at_s, COIN, usdc_raw, status=status)


def limit_order(number: int = 1) -> LimitOrder:
    return LimitOrder("", WETH, USDC, number, Fraction(1), 9_000, 1_000)


# --- What a purchase has done.


@pytest.mark.parametrize(
    ("statuses", "parts_done", "next_s", "moved_value", "lost_value", "sold_raw_by_token"),
    [
        pytest.param((), 0, 1_000, 0, 0, (), id="not tried"),
        pytest.param((TRADED,), 1, 1_700, 1_995 * DOLLAR, LOSS + GAS_VALUE, ((WETH, COIN + GAS_WEI),), id="traded"),
        pytest.param((REVERTED,), 0, 1_000, 0, GAS_VALUE, (), id="reverted"),
        pytest.param(
            (TRADED, TRADED), 2, 2_400, 3_990 * DOLLAR, 2 * LOSS + 2 * GAS_VALUE, ((WETH, 2 * (COIN + GAS_WEI)),), id="traded twice"
        ),
        pytest.param((TRADED, REVERTED), 1, 1_700, 1_995 * DOLLAR, LOSS + 2 * GAS_VALUE, ((WETH, COIN + GAS_WEI),), id="second reverted"),
        pytest.param((REVERTED, TRADED), 1, 2_400, 1_995 * DOLLAR, LOSS + 2 * GAS_VALUE, ((WETH, COIN + GAS_WEI),), id="first reverted"),
    ],
)
def test_progress_is_of_the_parts_that_traded(
    store: Store,
    statuses: tuple[int, ...],
    parts_done: int,
    next_s: int,
    moved_value: int,
    lost_value: int,
    sold_raw_by_token: tuple[tuple[str, int], ...],
) -> None:
    """Gas of an attempt that reverted is lost too, and counts neither as moved nor as sold."""
    execution_id = store.executions.begin_purchase(TERMS)

    for number, status in enumerate(statuses):
        try_part(store, execution_id, number + 1, 1_100 + 700 * number, status)

    expected = PurchaseProgress(execution_id, TERMS, parts_done, Fraction(moved_value), Fraction(lost_value), next_s, sold_raw_by_token)
    assert progress(store) == expected


@pytest.mark.parametrize("native_share", [0, Fraction(1, 2), 1], ids=["wrapped", "half wrapped first", "native"])
def test_sale_counts_whole_whichever_coin_pays(store: Store, native_share: Fraction) -> None:
    """Native coin wrapped within the swap is sold, not moved twice."""
    execution_id = store.executions.begin_purchase(TERMS)
    store.executions.begin_attempt(execution_id, 1, "s1", 1_100)

    swap(store, "s1", 0, COIN, 1_990 * DOLLAR, native_wei=int(COIN * native_share))

    assert progress(store).moved_value == 1_995 * DOLLAR


def test_part_that_is_tried_again_counts_once(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)

    try_part(store, execution_id, 1, 1_100, REVERTED)
    try_part(store, execution_id, 1, 1_200)

    assert (progress(store).parts_done, progress(store).next_s) == (1, 1_800)


def test_part_that_bought_sold_the_other_token(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)
    store.executions.begin_attempt(execution_id, 1, "s1", 1_100)

    swap(store, "s1", 0, -COIN, -2_000 * DOLLAR)

    assert progress(store).sold_raw_by_token == ((USDC, 2_000 * DOLLAR),)


def test_approval_alone_is_no_part(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)
    store.executions.begin_attempt(execution_id, 1, "s1", 1_100)
    store.steps.begin("s1", 1_000, "{}")

    approval = ended_intent(store, 0, kind=IntentKind.APPROVE, step_id="s1")

    assert progress(store).parts_done == 0
    assert progress(store).lost_value == approval.receipt.gas_cost_wei * PRICE


def test_reorganisation_takes_a_part_back(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)
    intent_id = try_part(store, execution_id, 1, 1_100)

    store.journal.advance(intent_id, IntentState.BROADCAST, 1_200)

    assert progress(store) == PurchaseProgress(execution_id, TERMS, 0, Fraction(0), Fraction(0), 1_000)


def test_swap_of_another_step_is_no_part(store: Store) -> None:
    store.executions.begin_purchase(TERMS)

    swap(store, "s1", 0, COIN, 1_990 * DOLLAR)

    assert (progress(store).parts_done, progress(store).lost_value) == (0, 0)


def test_parts_of_an_earlier_purchase_are_no_parts_of_the_next(store: Store) -> None:
    try_part(store, store.executions.begin_purchase(TERMS), 1, 1_100)

    store.executions.begin_purchase(TERMS)

    newest, earlier = store.executions.purchases()
    assert (newest.progress.parts_done, earlier.progress.parts_done) == (0, 1)


# --- What has ended.


def test_purchase_ends_the_one_before_it_and_no_limit_order(store: Store) -> None:
    first_id = store.executions.begin_purchase(TERMS)
    order = store.executions.add_limit_order(limit_order())

    second_id = store.executions.begin_purchase(TERMS)

    assert store.executions.open_execution_ids() == (order.id, second_id)
    newest, earlier = store.executions.purchases()
    assert (newest.progress.id, newest.state, newest.why) == (second_id, ExecutionState.OPEN, "")
    assert (earlier.progress.id, earlier.state, earlier.why) == (first_id, ExecutionState.ENDED, "a first purchase goes first")
    assert store.executions.purchases(limit=1) == (newest,)


@pytest.mark.parametrize("execution_id", ["ended", "nothing"])
def test_attempt_is_of_an_open_execution(store: Store, execution_id: str) -> None:
    ended = store.executions.add_limit_order(limit_order())
    store.executions.add_limit_order(limit_order())
    store.executions.end(ended.id, ExecutionState.CANCELLED, "by its owner", 1_200)

    with raises_code(Refused, "execution_ended"):
        store.executions.begin_attempt(ended.id if execution_id == "ended" else execution_id, 1, "s1", 1_300)


def test_execution_ends_once_and_alone(store: Store) -> None:
    first, second = (store.executions.add_limit_order(limit_order(number)) for number in (1, 2))

    ends = [
        store.executions.end("nothing", ExecutionState.CANCELLED, "by its owner", 1_200),
        store.executions.end(first.id, ExecutionState.CANCELLED, "by its owner", 1_200),
        store.executions.end(first.id, ExecutionState.ENDED, "again", 1_201),
    ]

    assert ends == [False, True, False]
    assert store.executions.limit_orders() == (replace(first, state=ExecutionState.CANCELLED, why="by its owner"), second)


def test_ended_purchase_is_no_longer_the_active_one(store: Store) -> None:
    execution_id = store.executions.begin_purchase(TERMS)

    store.executions.end(execution_id, ExecutionState.ENDED, "all parts are done", 1_200)

    assert store.budgets.history(2_000).cash_flows.purchase is None


# --- Limit orders.


def test_limit_orders_are_the_newest_and_oldest_first(store: Store) -> None:
    _, second, third = (store.executions.add_limit_order(limit_order(number)) for number in (1, 2, 3))

    orders = store.executions.limit_orders(limit=2)

    assert orders == (second, third)
    assert orders[0] == replace(limit_order(2), id=second.id)
    assert store.budgets.history(2_000).cash_flows.purchase is None


@pytest.mark.parametrize(
    ("statuses", "filled_at_s"),
    [
        pytest.param((), None, id="not tried"),
        pytest.param((REVERTED,), None, id="reverted"),
        pytest.param((TRADED,), 1_100, id="traded"),
        pytest.param((REVERTED, TRADED), 1_101, id="traded at the second try"),
        pytest.param((TRADED, TRADED), 1_101, id="traded twice"),
    ],
)
def test_limit_order_is_filled_by_its_newest_swap(store: Store, statuses: tuple[int, ...], filled_at_s: int | None) -> None:
    order = store.executions.add_limit_order(limit_order())
    store.executions.add_limit_order(limit_order(2))

    for number in range(len(statuses)):
        store.executions.begin_attempt(order.id, 1, f"step at {1_100 + number}", 1_100 + number)
    for number, status in enumerate(statuses):
        swap(store, f"step at {1_100 + number}", 1_100 + number, COIN, 1_990 * DOLLAR, status=status)

    filled = replace(order, state=ExecutionState.FILLED, why=f"by 0x{filled_at_s or 0:064x}")
    assert store.executions.limit_orders()[0] == (order if filled_at_s is None else filled)
    assert store.executions.limit_orders()[1].state is ExecutionState.OPEN


def test_limit_order__is_tried_again_after_a_revert_only(store: Store) -> None:
    """Its row stays open until the run ends it."""
    order = store.executions.add_limit_order(limit_order())

    try_part(store, order.id, 1, 1_100, REVERTED)
    try_part(store, order.id, 1, 1_101, TRADED)

    with raises_code(Refused, "execution_ended"):
        store.executions.begin_attempt(order.id, 1, "step at 1102", 1_102)


EQUAL = limit_order()
UNEQUAL = {
    "amount": replace(EQUAL, amount_in_raw=2),
    "price": replace(EQUAL, price=Fraction(2)),
    "token sold": replace(EQUAL, token_in=USDC),
    "token bought": replace(EQUAL, token_out=WETH),
    "expired": replace(EQUAL, begun_s=EQUAL.until_s),
}


@pytest.mark.parametrize("order", UNEQUAL.values(), ids=UNEQUAL)
def test_equal_order__has_the_same_terms_and_time_left(store: Store, order: LimitOrder) -> None:
    placed = store.executions.add_limit_order(EQUAL)

    assert store.executions.find_equal_order(replace(EQUAL, until_s=9_999, note="other"), 0) == placed
    assert store.executions.find_equal_order(replace(order, until_s=99_999), 0) is None


@pytest.mark.parametrize(
    ("state", "ended_s", "is_equal"),
    [
        pytest.param(ExecutionState.FILLED, 2_000, True, id="filled just in time"),
        pytest.param(ExecutionState.FILLED, 1_999, False, id="filled too early"),
        pytest.param(ExecutionState.CANCELLED, 2_000, False, id="cancelled"),
        pytest.param(ExecutionState.EXPIRED, 2_000, False, id="expired"),
    ],
)
def test_equal_order__was_filled_lately(store: Store, state: ExecutionState, ended_s: int, is_equal: bool) -> None:
    placed = store.executions.add_limit_order(EQUAL)
    store.executions.end(placed.id, state, "", ended_s)

    assert (store.executions.find_equal_order(EQUAL, 2_000) is not None) == is_equal
