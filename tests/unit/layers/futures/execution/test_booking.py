"""Fills of futures orders that are not the order: a part, another market, none, and a quote of less than was asked."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from agent.chain.lens import abi_encode
from agent.errors import Refused
from agent.layers.futures.execution.booking import book_futures_action, order_fill
from agent.layers.futures.state import with_policy
from agent.model import IntentKind, PerpFill, Receipt, StepInput, Transfer
from agent.model.futures import FuturesGrant, MarginDeposit, MarginWithdrawal, PerpOrder, PerpOrderKind
from agent.units import Price
from agent.venues.perpetual_protocol import PerpetualProtocolAddresses, quote_order
from tests.support.builders import OWNER, step_input, token
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY

SIZE = 4 * E18
ORDER = PerpOrder("ETH", SIZE, PerpOrderKind.MARKET, 8_160 * E18, False)
"""Four at 2,000, bound 2 % above."""
WHOLE = PerpFill("0xhouse", "0xme", "ETH", SIZE, -8_040 * E18, 8 * E18)
HALF = PerpFill("0xhouse", "0xme", "ETH", SIZE // 2, -4_020 * E18, 4 * E18)
ELSEWHERE = PerpFill("0xhouse", "0xme", "BTC", SIZE, -8_040 * E18, 8 * E18)


def receipt(*fills: PerpFill) -> Receipt:
    return Receipt("0x1", 1, 1, "0x2", 0, 0, (), fills=fills)


def lost(*fills: PerpFill) -> Fraction:
    """What is booked as lost of such a receipt, in USDC."""
    grant = SimpleNamespace(layer_grant=FuturesGrant(ORDER, EMPTY))
    store: Any = SimpleNamespace(
        journal=SimpleNamespace(grant=lambda _intent: grant), budgets=SimpleNamespace(book_intent=lambda *_values: None)
    )
    intent: Any = SimpleNamespace(id="a", kind=IntentKind.FUTURES, receipt=receipt(*fills), tx=SimpleNamespace(is_venue_order=False))
    return Fraction(book_futures_action(store, intent, step_input(), Price(0), 1), 10**6)


def test_a_whole_fill_costs_fee_and_distance_from_the_index() -> None:
    assert order_fill(ORDER, receipt(WHOLE), may_be_partial=False) == WHOLE
    assert lost(WHOLE) == 40 + 8


@pytest.mark.parametrize("fills", [(), (HALF,), (ELSEWHERE,), (WHOLE, WHOLE)], ids=["none", "a part", "another market", "twice"])
def test_a_partial_or_missing_fill_counts_as_filled_at_its_bound(fills: tuple[PerpFill, ...]) -> None:
    """An endpoint that hides an event, or shows a part, hides no loss."""
    assert order_fill(ORDER, receipt(*fills), may_be_partial=False) is None
    assert lost(*fills) == 160 + Fraction(816, 100)


def test_fill__counts_only_the_part_in_the_order_s_direction() -> None:
    against = replace(HALF, size_raw=-SIZE // 2)
    assert [order_fill(ORDER, receipt(fill), may_be_partial=True) for fill in (HALF, against)] == [HALF, None]
    assert order_fill(ORDER, receipt(HALF, HALF), may_be_partial=False) is None


def test_limit_order__costs_the_sum_of_its_fills() -> None:
    limit = replace(ORDER, kind=PerpOrderKind.LIMIT)
    quarter = replace(HALF, size_raw=SIZE // 4, quote_raw=-2_010 * E18, fee_raw=2 * E18, fill_id="2")
    summed = order_fill(limit, receipt(replace(HALF, fill_id="1"), quarter), may_be_partial=True)
    assert summed == replace(HALF, size_raw=SIZE * 3 // 4, quote_raw=-6_030 * E18, fee_raw=6 * E18)

    def booked(*fills: PerpFill) -> Fraction:
        grant = SimpleNamespace(layer_grant=FuturesGrant(limit, EMPTY))
        store: Any = SimpleNamespace(
            journal=SimpleNamespace(grant=lambda _intent: grant), budgets=SimpleNamespace(book_intent=lambda *_values: None)
        )
        intent: Any = SimpleNamespace(id="a", kind=IntentKind.FUTURES, receipt=receipt(*fills), tx=SimpleNamespace(is_venue_order=True))
        return Fraction(book_futures_action(store, intent, step_input(), Price(0), 1), 10**6)

    assert (booked(), booked(HALF), booked(HALF, quarter)) == (0, 24, 36)


@pytest.mark.parametrize(
    ("is_emergency", "is_budgeted", "counted"),
    [
        pytest.param(False, True, 8_000, id="ordinary"),
        pytest.param(True, True, 0, id="emergency"),
        pytest.param(False, False, 0, id="owner's"),
    ],
)
def test_reduction__uses_the_day_s_budget_unless_emergency_or_owner(is_emergency: bool, is_budgeted: bool, counted: int) -> None:
    reduction = replace(ORDER, is_reduce_only=True)
    grant = SimpleNamespace(layer_grant=FuturesGrant(reduction, EMPTY, is_emergency, is_budgeted=is_budgeted))
    booked: list[Fraction] = []
    budgets = SimpleNamespace(book_intent=lambda _intent, turnover, *_values: booked.append(turnover))
    store: Any = SimpleNamespace(journal=SimpleNamespace(grant=lambda _intent: grant), budgets=budgets)
    intent: Any = SimpleNamespace(id="a", kind=IntentKind.FUTURES, receipt=receipt(WHOLE), tx=SimpleNamespace(is_venue_order=False))
    assert book_futures_action(store, intent, step_input(), Price(0), 1) == 48 * 10**6
    assert booked == [counted * 10**6]


def test_partial_fill_market__is_refused_before_the_order_is_sent() -> None:
    answer = "0x" + abi_encode(["uint256", "uint256"], [SIZE // 2, 4_020 * E18]).hex()
    transport: Any = SimpleNamespace(call=lambda *_question: answer)
    order = PerpOrder("0x" + "1" * 40, SIZE, PerpOrderKind.MARKET, 8_160 * E18, False)
    contracts = PerpetualProtocolAddresses("0x" + "2" * 40, "", "", "0x" + "3" * 40)
    with pytest.raises(Refused, match=f"fills {SIZE // 2} of {SIZE}"):
        quote_order(transport, order, contracts, contracts.trader, 1)


def booked(
    grant: FuturesGrant, mined: Receipt, native_price: Fraction = Fraction(0), step: StepInput | None = None
) -> tuple[Fraction, Fraction]:
    """Turnover and loss that are booked of a receipt, in USDC."""
    rows: list[tuple[Fraction, Fraction]] = []
    budgets = SimpleNamespace(book_intent=lambda _intent, turnover, loss, *_rest: rows.append((turnover / 10**6, loss / 10**6)))
    store: Any = SimpleNamespace(journal=SimpleNamespace(grant=lambda _intent: SimpleNamespace(layer_grant=grant)), budgets=budgets)
    intent: Any = SimpleNamespace(id="a", kind=IntentKind.FUTURES, receipt=mined, tx=SimpleNamespace(is_venue_order=False))
    book_futures_action(store, intent, step or step_input(), native_price, 1)
    [row] = rows
    return row


SALE = replace(ORDER, size_raw=-SIZE, bound_raw=7_840 * E18, is_reduce_only=True)


@pytest.mark.parametrize(("paid", "loss"), [(7_960, 48), (8_000, 8), (8_040, 8)])
def test_booking__sale_loses_its_distance_below_the_index_or_its_fee(paid: int, loss: int) -> None:
    fill = replace(WHOLE, size_raw=-SIZE, quote_raw=paid * E18)
    assert booked(FuturesGrant(SALE, EMPTY), receipt(fill))[1] == loss


def test_booking__transaction_that_reverted_costs_its_gas_alone() -> None:
    mined = replace(receipt(WHOLE), status=0, gas_used=100, effective_gas_price_wei=10**6)
    assert booked(FuturesGrant(SALE, EMPTY), mined, Fraction(1, 10)) == (0, 10)


def test_booking__gas_adds_to_the_cost_of_the_order() -> None:
    mined = replace(receipt(WHOLE), gas_used=100, effective_gas_price_wei=10**6)
    assert booked(FuturesGrant(ORDER, EMPTY), mined, Fraction(1, 10)) == (0, 58)


@pytest.mark.parametrize(
    ("action", "received", "row"),
    [
        pytest.param(MarginDeposit(500 * 10**6), -500, (500, 0), id="deposit, exact"),
        pytest.param(MarginDeposit(500 * 10**6), -503, (500, 3), id="deposit that lost"),
        pytest.param(MarginDeposit(500 * 10**6), -497, (500, 0), id="deposit that gained"),
        pytest.param(MarginWithdrawal(500 * 10**6), 500, (0, 0), id="withdrawal, exact"),
        pytest.param(MarginWithdrawal(500 * 10**6), 496, (0, 4), id="withdrawal that lost"),
    ],
)
def test_booking__collateral_missing_after_a_move_is_lost(
    action: MarginDeposit | MarginWithdrawal, received: int, row: tuple[int, int]
) -> None:
    usdc = token("USDC").address
    ends = (OWNER, "0xvault") if received < 0 else ("0xvault", OWNER)
    mined = replace(receipt(), transfers=(Transfer(usdc, *ends, abs(received) * 10**6),))
    step = with_policy(step_input(), replace(FUTURES_POLICY, collateral=usdc))
    grant = FuturesGrant(action, replace(EMPTY, collateral_unit_raw=10**12))
    assert booked(grant, mined, step=step) == row


def test_booking__limit_order_without_a_fill_costs_nothing() -> None:
    resting = replace(SALE, kind=PerpOrderKind.LIMIT)
    assert booked(FuturesGrant(resting, EMPTY), receipt()) == (0, 0)


def test_booking__fee_of_an_order_without_its_fill_is_rounded_up() -> None:
    """In quote base units, of which 10^18 are a dollar; the fee of a bound of 8,160 and one base unit."""
    order = replace(ORDER, bound_raw=8_160 * E18 + 1)
    distance = 160 * E18 + 1
    fee = 816 * E18 // 100 + 1
    assert booked(FuturesGrant(order, EMPTY), receipt())[1] * E18 == distance + fee
