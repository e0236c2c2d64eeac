"""Tests of agent/layers/futures/policy/limit_orders.py: why a limit order that rests at an off-chain venue ends."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.layers.futures.policy.limit_orders import end_reason, order_end_reasons
from agent.layers.futures.state import futures_policy, futures_state
from agent.margin.contract_sizes import index_bound_raw
from agent.model import FuturesReading, StaleRead, StaleReadKind, StepInput
from agent.model.futures import FuturesPolicy, MarginAccount, PerpMarket, PerpOrderKind, Position, RestingOrder
from tests.support.builders import NOW_S, with_snapshot
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.plans import POLICY
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, step_of
from tests.support.perpetuals.stops import BTC, ETH, book

ORDER_S = 1_790_000_000
RESTING = replace(POLICY, order_kind=PerpOrderKind.LIMIT, order_time_s=3_600, leverage_band_bps=1_000)
SLIPPAGE_BPS = RESTING.limits.slippage_bps
MAX_BASIS = Fraction(RESTING.limits.max_basis_bps, 10_000)
ENDS_BY_PRICE = "its price is now beyond the bound of an order"
ENDS_BY_TARGET = "the plan no longer wants it"
ENDS_BY_BASIS = "the mark of ETH is off its index by more than max_basis"


def order_of(size: int = 30_000, price: Fraction = ETH.index, age_s: int = 0, market: str = "ETH") -> RestingOrder:
    """Return an order in ten-thousandths of a coin; 33,333 at 3,000 are the target of 1x of 10,000 in each of two markets."""
    return RestingOrder(market, size, size, price, ORDER_S - age_s, "0x01")


def account_with(order: RestingOrder, eth: int = 0, markets: tuple[PerpMarket, ...] = (ETH, BTC)) -> MarginAccount:
    return replace(book(eth=eth), resting_orders=(order,), markets=tuple(replace(market, index_s=ORDER_S) for market in markets))


def price_off_bound(size: int, away: Fraction | int) -> Fraction:
    """Return the price at which an order of this size has its bound and this many quote base units more."""
    return Fraction(index_bound_raw(ETH, size, SLIPPAGE_BPS) + away) / abs(size)


def at_basis(share: Fraction) -> tuple[PerpMarket, ...]:
    return (replace(ETH, mark=ETH.index * (1 + share)), BTC)


BEYOND = Fraction(1, 10**9)


@pytest.mark.parametrize(
    ("order", "account_fields", "policy", "reason"),
    [
        pytest.param(order_of(), {}, RESTING, "", id="leads to the target"),
        pytest.param(order_of(), {"eth": 2_000}, RESTING, "", id="rest of the target"),
        pytest.param(order_of(), {}, POLICY, "futures.order_type is ioc", id="no order rests"),
        pytest.param(order_of(age_s=3_599), {}, RESTING, "", id="a second before its time"),
        pytest.param(order_of(age_s=3_600), {}, RESTING, "its time passed at 2026-09-21 14:13:20 UTC", id="at its time"),
        pytest.param(order_of(), {"markets": (replace(ETH, is_paused=True), BTC)}, RESTING, "ETH is paused", id="paused market"),
        pytest.param(order_of(), {"markets": at_basis(MAX_BASIS)}, RESTING, "", id="mark at max_basis above"),
        pytest.param(order_of(), {"markets": at_basis(MAX_BASIS + BEYOND)}, RESTING, ENDS_BY_BASIS, id="mark beyond max_basis"),
        pytest.param(order_of(), {"markets": at_basis(-MAX_BASIS)}, RESTING, "", id="mark at max_basis below"),
        pytest.param(order_of(), {"markets": at_basis(-MAX_BASIS - BEYOND)}, RESTING, ENDS_BY_BASIS, id="mark beyond it below"),
        pytest.param(order_of(price=price_off_bound(30_000, 1)), {}, RESTING, "", id="purchase a unit above its bound"),
        pytest.param(order_of(price=price_off_bound(30_000, Fraction(3, 2))), {}, RESTING, ENDS_BY_PRICE, id="purchase beyond rounding"),
        pytest.param(order_of(-30_000, price_off_bound(-30_000, -1)), {"eth": 63_000}, RESTING, "", id="sale a unit below its bound"),
        pytest.param(
            order_of(-30_000, price_off_bound(-30_000, Fraction(-3, 2))), {"eth": 63_000}, RESTING, ENDS_BY_PRICE, id="sale beyond rounding"
        ),
        pytest.param(order_of(), {"eth": 6_319}, RESTING, "", id="a tenth beyond the target"),
        pytest.param(order_of(), {"eth": 6_320}, RESTING, ENDS_BY_TARGET, id="a lot more"),
        pytest.param(order_of(), {"eth": 20_000}, RESTING, ENDS_BY_TARGET, id="target reached"),
        pytest.param(order_of(-30_000), {}, RESTING, ENDS_BY_TARGET, id="other side"),
        pytest.param(order_of(60_000), {}, RESTING, ENDS_BY_TARGET, id="too large"),
        pytest.param(order_of(1), {"eth": 33_333}, RESTING, "", id="a lot beyond the target"),
        pytest.param(order_of(1), {"eth": 33_334}, RESTING, ENDS_BY_TARGET, id="two lots beyond it"),
        pytest.param(
            order_of(market="DOGE"), {"markets": (ETH, replace(ETH, market="DOGE", symbol="DOGE", is_configured=False))}, RESTING,
            ENDS_BY_TARGET, id="unnamed market",
        ),
    ],
)  # fmt: skip
def test_end_reason_is_empty_while_an_order_leads_to_the_target(
    order: RestingOrder, account_fields: dict[str, Any], policy: FuturesPolicy, reason: str
) -> None:
    """The fee of an order of 30,000 leaves 9,995.95 of 10,000, a target of 33,319."""
    assert end_reason(account_with(order, **account_fields), policy, order, ORDER_S) == reason


# --- In a step: ETH at 2,000, 2x of 10,000 wanted, at most 3x allowed.


CLOID = "0x" + b"rest".hex() + "33" * 12
ORDER = RestingOrder("ETH", 10 * E18, 10 * E18, Fraction(2_000), NOW_S - 60, CLOID)
ORDERED = replace(EMPTY, resting_orders=(ORDER,))
OPENING = replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT, order_time_s=3_600)
TIGHT = replace(OPENING, limits=replace(OPENING.limits, max_leverage_bps=15_000))
NERVOUS = replace(OPENING, limits=replace(OPENING.limits, emergency_distance_bps=6_000))
COOLING = replace(OPENING, limits=replace(OPENING.limits, emergency_cooldown_s=86_400))
DOGE = replace(EMPTY.markets[0], market="DOGE", symbol="DOGE", is_configured=False)
STOLEN = replace(ORDERED, markets=(*ORDERED.markets, DOGE), positions=(Position("DOGE", E18 // 100, -20 * E18),))


def read_without_orders(step: StepInput) -> StepInput:
    reading = replace(step.snapshot.layer(FuturesReading), stale_reads=(StaleRead(StaleReadKind.ORDERS, "no answer"),))
    return replace(step, snapshot=step.snapshot.with_layer(reading))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        pytest.param(step_of(ORDERED, OPENING), "", id="rests on"),
        pytest.param(step_of(ORDERED, replace(OPENING, order_time_s=60)), "its time passed", id="time passed"),
        pytest.param(
            with_snapshot(step_of(None, OPENING), futures_unknown="the venue is silent"), "the venue is silent", id="venue silent"
        ),
        pytest.param(step_of(None, OPENING), "the margin account is unknown", id="unknown account"),
        pytest.param(step_of(ORDERED, None), "the margin account is unknown", id="no futures"),
        pytest.param(step_of(ORDERED, COOLING, last_emergency_s=NOW_S - 10), "after an emergency", id="cooldown"),
        pytest.param(step_of(STOLEN, OPENING), "DOGE, which the config does not name", id="unnamed market"),
        pytest.param(step_of(ORDERED, TIGHT), "max_leverage would be 2.0", id="fill that would breach a limit"),
        pytest.param(step_of(ORDERED, NERVOUS), "liquidation would be near", id="fill that would be an emergency"),
        pytest.param(read_without_orders(step_of(ORDERED, OPENING)), "no answer", id="old list of orders"),
        pytest.param(read_without_orders(step_of(EMPTY, OPENING)), "no answer", id="orders never read"),
    ],
)
def test_order_end_reasons_are_those_of_the_account_first(step: StepInput, reason: str) -> None:
    reasons = order_end_reasons(step.snapshot, futures_policy(step), futures_state(step), [CLOID])

    assert list(reasons) == ([CLOID] if reason else [])
    assert reason in reasons.get(CLOID, "")


def test_order_end_reasons_name_no_other_order() -> None:
    step = step_of(ORDERED, POLICY)

    assert order_end_reasons(step.snapshot, futures_policy(step), futures_state(step), ["0x00"]) == {}
