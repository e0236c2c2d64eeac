"""Orders in the store: on disk before the method returns, written only where something changed, never over somebody else's word."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Never

import pytest

from agent.errors import Retryable
from agent.execution.step_context import StepReaders, add_past_prices, record_order_stages
from agent.model import ConditionalOrder, NavPerShare, OrderKind, OrdersConfig, OrderStage, OrderTerms
from agent.policy.orders.conditional import format_order_price, trigger_price
from agent.policy.orders.exits import apply_orders
from agent.store.opening import open_store
from agent.store.store import Store
from tests.support.builders import OWNER, history, token
from tests.support.standing_orders import price_of, terms, two
from tests.support.text import raises_code

STOP = ConditionalOrder(
    "0xtoken", OrderKind.STOP_LOSS, OrderStage.ARMED, terms("WETH", OrderKind.STOP_LOSS, 1_500), 7, price_of("WETH", 2_000)
)
TRAIL = replace(STOP, kind=OrderKind.TRAILING_STOP, highest_price=Fraction(2**200 + 1, 3**100))
UNIT = NavPerShare(Fraction(9, 10), 1_000, (("0xtoken", 10**30),), (("0xtoken", Fraction(1, 3)),))


def store_in(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder / 'trimtab.db'}", 31_337, OWNER)


def test_a_price_is_in_whole_coins_and_its_absence_is_said() -> None:
    portfolio = two().seen({"WETH": 2_000}).portfolio
    for price, text in ((price_of("WETH", 1_500), "1500 USDC"), (None, "not fixed")):
        assert format_order_price(portfolio, token("WETH").address, price) == text


def test_a_restart_finds_every_order_as_it_stood(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert store.budgets.history(0).orders.states == ()
    assert store.budgets.history(0).orders.nav_per_share is None
    assert store.orders.replace_orders((STOP, TRAIL), UNIT, 0)
    store.close()
    again = store_in(tmp_path)
    history = again.budgets.history(0)
    assert (history.orders.states, history.orders.version, history.orders.nav_per_share) == ((STOP, TRAIL), 1, UNIT)
    fired = replace(STOP, stage=OrderStage.FIRED, event_price=price_of("WETH", 1_400))
    assert again.orders.replace_orders((fired,), UNIT, 1)
    assert again.budgets.history(0).orders.states == (fired,), "what is not handed in is forgotten"
    again.close()


def test_replace_orders_writes_no_repeat_and_no_older_reading(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert store.orders.replace_orders((STOP,), UNIT, 0)
    assert store.orders.replace_orders((STOP,), UNIT, 0)
    assert store.budgets.history(0).orders.version == 1
    off = replace(STOP, stage=OrderStage.OFF)
    assert store.orders.replace_orders((off,), None, 1), "its owner's word leaves the unit as it is"
    assert not store.orders.replace_orders((replace(STOP, highest_price=Fraction(5)),), UNIT, 1), "a look that had read before"
    assert store.orders.orders_and_version() == ((off,), 2)
    assert store.budgets.history(0).orders.nav_per_share == UNIT
    store.close()


def test_later_loss_is_never_written_with_the_nav(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert store.orders.replace_orders((), replace(UNIT, later_loss=Fraction(5)), 0)
    nav = store.budgets.history(0).orders.nav_per_share
    assert nav == UNIT
    assert store.orders.replace_orders((), replace(UNIT, later_loss=Fraction(9)), 1)
    assert store.budgets.history(0).orders.version == 1
    store.close()


def test_a_look_that_read_before_the_owner_s_word_is_done_again(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    bot = two(terms("WETH", OrderKind.STOP_LOSS, 1_500))
    step = apply_orders(bot.seen({"WETH": 2_000}))
    confirmed = add_past_prices(readers_of(store), step)
    record_order_stages(store.orders, confirmed.history)
    (armed,), turn = store.orders.orders_and_version()
    assert (armed.stage, turn) == (OrderStage.ARMED, 1)
    read = replace(step.history, orders=replace(step.history.orders, version=turn))
    assert store.orders.replace_orders((replace(armed, stage=OrderStage.OFF),), None, turn)
    with raises_code(Retryable, "orders_changed"):
        record_order_stages(store.orders, history(read, states=(replace(armed, stage=OrderStage.FIRED),)))
    assert store.orders.orders_and_version()[0][0].stage is OrderStage.OFF
    store.close()


@pytest.mark.parametrize(
    ("order", "level"),
    [(terms("WETH", OrderKind.TRAILING_STOP, None, 1_000), 1_800), (terms("WETH", OrderKind.ALERT_ABOVE, 3_000), 3_000)],
)
def test_order_removed_and_set_again_starts_anew(tmp_path: Path, order: OrderTerms, level: int) -> None:
    """With its old mark a trailing stop would sell at once, and a price alert that was sent would never be sent again."""
    store, bot = store_in(tmp_path), two(order)

    def look(price: int) -> None:
        bot.memory = store.budgets.history(0)
        bot.look({"WETH": price})
        record_order_stages(store.orders, bot.memory)

    for price in (2_000, 4_000):
        look(price)
    bot.book = OrdersConfig()
    look(4_000)
    assert store.orders.orders_and_version()[0] == ()
    look(2_000)
    bot.book = OrdersConfig((order,))
    look(2_000)
    [stored_order] = store.orders.orders_and_version()[0]
    assert (stored_order.stage, trigger_price(stored_order)) == (OrderStage.ARMED, price_of("WETH", level))
    store.close()


def readers_of(store: Store) -> StepReaders:
    """Eyes that need not look anywhere: one block is enough for this policy."""

    def never(*_: object) -> Never:
        raise AssertionError("nothing has to be read")

    unused: Any = None
    return StepReaders(unused, never, store.budgets.history, unused, unused, never)
