"""Tests of agent/store/orders.py: orders are on disk at once, written only if they changed, and never over a newer write."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Never

import pytest

from agent.errors import Retryable
from agent.execution.step_context import StepReaders, add_past_prices, record_order_stages
from agent.model import ConditionalOrder, IntentKind, NavPerShare, OrderKind, OrdersConfig, OrderStage, OrderTerms
from agent.policy.orders.conditional import trigger_price
from agent.policy.orders.exits import apply_orders
from agent.store.opening import open_store
from agent.store.store import Store
from tests.support.builders import OWNER, history
from tests.support.records.intents import ended_intent
from tests.support.standing_orders import price_of, terms, two
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID

STOP = ConditionalOrder(
    "0xtoken", OrderKind.STOP_LOSS, OrderStage.ARMED, terms("WETH", OrderKind.STOP_LOSS, 1_500), 7, price_of("WETH", 2_000)
)
FIRED_STOP = replace(STOP, stage=OrderStage.FIRED, event_price=price_of("WETH", 1_400))
OFF_STOP = replace(STOP, stage=OrderStage.OFF)
TRAIL = replace(STOP, kind=OrderKind.TRAILING_STOP, highest_price=Fraction(2**200 + 1, 3**100))
OTHER_TRAIL = replace(TRAIL, token="0xother")
NAV = NavPerShare(Fraction(9, 10), 1_000, (("0xtoken", 10**30),), (("0xtoken", Fraction(1, 3)),))


store = store_fixture("file", wallet=OWNER)


def nav_of(store: Store) -> NavPerShare | None:
    return store.budgets.history(0).orders.nav_per_share


# --- Writes


def test_new_store_has_no_orders_and_no_nav(store: Store) -> None:
    assert store.orders.orders_and_version() == ((), 0)
    assert store.budgets.history(0).orders.states == ()
    assert nav_of(store) is None


def test_restart_finds_every_order_and_the_nav(store: Store, tmp_path: Path) -> None:
    assert store.orders.replace_orders((TRAIL, STOP), NAV, 0)

    with closing(open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, OWNER)) as reopened:
        orders = reopened.budgets.history(0).orders

    assert orders.states == (STOP, TRAIL), "in the order of token and kind"
    assert orders.version == 1
    assert orders.nav_per_share == NAV


@pytest.mark.parametrize(
    ("orders", "nav", "stored"),
    [
        pytest.param((FIRED_STOP, TRAIL, OTHER_TRAIL), None, (OTHER_TRAIL, FIRED_STOP, TRAIL), id="a changed order"),
        pytest.param((TRAIL, OTHER_TRAIL), None, (OTHER_TRAIL, TRAIL), id="an order left out"),
        pytest.param((STOP, TRAIL), None, (STOP, TRAIL), id="another token left out"),
        pytest.param((STOP, TRAIL, OTHER_TRAIL), replace(NAV, nav=Fraction(8, 10)), (OTHER_TRAIL, STOP, TRAIL), id="the nav alone"),
        pytest.param((), None, (), id="none"),
    ],
)
def test_replace_orders_stores_what_changed(
    store: Store, orders: tuple[ConditionalOrder, ...], nav: NavPerShare | None, stored: tuple[ConditionalOrder, ...]
) -> None:
    assert store.orders.replace_orders((STOP, TRAIL, OTHER_TRAIL), NAV, 0)

    assert store.orders.replace_orders(orders, nav, 1)

    assert store.orders.orders_and_version() == (stored, 2)
    assert nav_of(store) == (NAV if nav is None else nav)


@pytest.mark.parametrize(
    ("orders", "nav"),
    [
        pytest.param((STOP, TRAIL), NAV, id="the same"),
        pytest.param((TRAIL, STOP), NAV, id="in another order"),
        pytest.param((STOP, TRAIL), None, id="without the nav"),
        pytest.param((STOP, TRAIL), replace(NAV, later_loss=Fraction(9)), id="with a later loss"),
    ],
)
def test_replace_orders_writes_no_repeat(store: Store, orders: tuple[ConditionalOrder, ...], nav: NavPerShare | None) -> None:
    assert store.orders.replace_orders((STOP, TRAIL), NAV, 0)

    assert store.orders.replace_orders(orders, nav, 0)

    assert store.orders.orders_and_version() == ((STOP, TRAIL), 1)


@pytest.mark.parametrize("read_version", [0, 2], ids=["older", "newer"])
def test_replace_orders_refuses_another_reading(store: Store, read_version: int) -> None:
    assert store.orders.replace_orders((STOP,), NAV, 0)

    assert not store.orders.replace_orders((OFF_STOP,), None, read_version)

    assert store.orders.orders_and_version() == ((STOP,), 1)


def test_later_loss_is_never_written_with_the_nav(store: Store) -> None:
    assert store.orders.replace_orders((), replace(NAV, later_loss=Fraction(5)), 0)

    assert store.orders.replace_orders((), replace(NAV, later_loss=Fraction(9)), 1), "is done, as the same NAV is there"

    assert nav_of(store) == NAV
    assert store.orders.orders_and_version() == ((), 1)


@pytest.mark.parametrize(
    ("kind", "booked_at_s", "later_loss"),
    [
        pytest.param(IntentKind.SWAP, NAV.at_s, 0, id="swap of that second"),
        pytest.param(IntentKind.SWAP, NAV.at_s + 1, 7, id="swap a second later"),
        pytest.param(IntentKind.APPROVE, NAV.at_s + 1, 7, id="approval"),
        pytest.param(IntentKind.FUTURES, NAV.at_s + 1, 0, id="futures, whose account has its own result"),
    ],
)
def test_later_loss_is_that_of_transactions_after_the_nav(store: Store, kind: IntentKind, booked_at_s: int, later_loss: int) -> None:
    store.steps.begin("s", 1, "{}")
    assert store.orders.replace_orders((), NAV, 0)

    store.budgets.book_intent(ended_intent(store, 0, kind=kind), Fraction(0), Fraction(7), 0, booked_at_s)

    assert nav_of(store) == replace(NAV, later_loss=Fraction(later_loss))


# --- Looks


def readers_of(store: Store) -> StepReaders:
    """Return readers that need not read anything: one block is enough for this policy."""

    def fail(*_: object) -> Never:
        raise AssertionError("nothing has to be read")

    unused: Any = None
    return StepReaders(unused, fail, store.budgets.history, unused, unused, fail)


def test_look_that_read_before_the_owner_s_write__is_refused_as_retryable(store: Store) -> None:
    step = apply_orders(two(terms("WETH", OrderKind.STOP_LOSS, 1_500)).seen({"WETH": 2_000}))
    record_order_stages(store.orders, add_past_prices(readers_of(store), step).history)
    (armed,), version = store.orders.orders_and_version()
    assert (armed.stage, version) == (OrderStage.ARMED, 1)

    assert store.orders.replace_orders((replace(armed, stage=OrderStage.OFF),), None, version)

    before_write = replace(step.history, orders=replace(step.history.orders, version=version))
    with raises_code(Retryable, "orders_changed"):
        record_order_stages(store.orders, history(before_write, states=(replace(armed, stage=OrderStage.FIRED),)))
    assert [order.stage for order in store.orders.orders_and_version()[0]] == [OrderStage.OFF]


@pytest.mark.parametrize(
    ("order", "trigger_usdc"),
    [
        pytest.param(terms("WETH", OrderKind.TRAILING_STOP, None, 1_000), 1_800, id="trailing stop"),
        pytest.param(terms("WETH", OrderKind.ALERT_ABOVE, 3_000), 3_000, id="price alert"),
    ],
)
def test_order_removed_and_set_again_starts_anew(store: Store, order: OrderTerms, trigger_usdc: int) -> None:
    """With its old mark a trailing stop would sell at once, and a price alert that was sent would never be sent again."""
    bot = two(order)

    def look(price_usdc: int) -> None:
        bot.memory = store.budgets.history(0)
        bot.look({"WETH": price_usdc})
        record_order_stages(store.orders, bot.memory)

    look(2_000)
    look(4_000)
    bot.book = OrdersConfig()
    look(4_000)
    assert store.orders.orders_and_version()[0] == ()

    look(2_000)
    bot.book = OrdersConfig((order,))
    look(2_000)

    [stored_order] = store.orders.orders_and_version()[0]
    assert stored_order.stage is OrderStage.ARMED
    assert trigger_price(stored_order) == price_of("WETH", trigger_usdc)
