"""Arming and disarming of conditional orders beside a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent.app.agent import Agent
from agent.app.positions.orders import arm_orders, disarm_orders
from agent.errors import Retryable
from agent.model import ConditionalOrder, OrderKind, OrderStage, StepInput
from agent.policy.orders.exits import apply_orders
from agent.store import Store
from tests.support.builders import history
from tests.support.standing_orders import price_of, terms, two
from tests.support.stores import store_fixture

STOP_TERMS = terms("WETH", OrderKind.STOP_LOSS, 1_500)
STOP = ConditionalOrder(STOP_TERMS.token, OrderKind.STOP_LOSS, OrderStage.ARMED, STOP_TERMS, 7, price_of("WETH", 2_000))

store = store_fixture("memory")


def agent_of(store: Store, then: Callable[[], object]) -> Any:
    """`then` happens once the agent has read its step."""

    def step_input() -> StepInput:
        orders, version = store.orders.orders_and_version()
        bot = two(STOP_TERMS)
        bot.memory = history(bot.memory, states=orders, version=version)
        step = apply_orders(bot.seen({"WETH": 2_000}))
        then()
        return step

    return SimpleNamespace(step_input=step_input, context=SimpleNamespace(store=store))


@pytest.mark.parametrize(
    ("change", "stage"),
    [pytest.param(arm_orders, OrderStage.WAITING, id="arm"), pytest.param(disarm_orders, OrderStage.OFF, id="disarm")],
)
def test_changed_order__is_the_one_that_was_read(store: Store, change: Callable[[Agent, str], object], stage: OrderStage) -> None:
    fired = replace(STOP, stage=OrderStage.FIRED, event_price=price_of("WETH", 1_400))
    assert store.orders.replace_orders((STOP,), None, 0)

    with pytest.raises(Retryable, match="a cycle changed the orders"):
        change(agent_of(store, lambda: store.orders.replace_orders((fired,), None, 1)), "WETH")
    assert store.orders.orders_and_version() == ((fired,), 2)

    change(agent_of(store, lambda: None), "WETH")
    assert [order.stage for order in store.orders.orders_and_version()[0]] == [stage]
