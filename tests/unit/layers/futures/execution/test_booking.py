"""Tests of agent/layers/futures/execution/booking.py: cost and turnover of fills, moves of margin, and what has no fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from agent.layers.futures.execution.booking import book_futures_action, margin_reading_by_collateral, order_fill
from agent.layers.futures.state import with_policy
from agent.model import IntentKind, PerpFill, Receipt, StepInput, Transfer
from agent.model.futures import FuturesAction, FuturesGrant, MarginDeposit, MarginWithdrawal, PerpOrder, PerpOrderKind
from tests.support.builders import OWNER, step_input
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY
from tests.support.perpetuals.values import OURS, USDC, step_with_margin
from tests.support.transactions import OTHER

UNIT = 10**6
SIZE = 4 * E18
ORDER = PerpOrder("ETH", SIZE, PerpOrderKind.MARKET, 8_160 * E18, False)
"""Four at 2,000, bound 2 % above."""
LIMIT = replace(ORDER, kind=PerpOrderKind.LIMIT)
SALE = replace(ORDER, size_raw=-SIZE, bound_raw=7_840 * E18, is_reduce_only=True)
REDUCTION = replace(ORDER, is_reduce_only=True)
WHOLE = PerpFill("0xhouse", "0xme", "ETH", SIZE, -8_040 * E18, 8 * E18)
"""Bought 40 above the index, for a fee of 8."""
HALF = PerpFill("0xhouse", "0xme", "ETH", SIZE // 2, -4_020 * E18, 4 * E18)
QUARTER = replace(HALF, size_raw=SIZE // 4, quote_raw=-2_010 * E18, fee_raw=2 * E18, fill_id="2")
ELSEWHERE = replace(WHOLE, market="BTC")
AGAINST = replace(HALF, size_raw=-SIZE // 2)
AT_BOUND = 160 + Fraction(816, 100)
"""Distance of the bound from the index, and a fee of 1 ‰ of the bound."""


def receipt(*fills: PerpFill, **changes: Any) -> Receipt:
    return replace(Receipt("0x1", 1, 1, "0x2", 0, 0, (), fills=fills), **changes)


def sold_for(quote: int) -> PerpFill:
    return replace(WHOLE, size_raw=-SIZE, quote_raw=quote * E18)


class RecordingStore:
    """A store that grants an action and keeps what is booked of it."""

    def __init__(self, grant: FuturesGrant | None) -> None:
        self.rows: list[tuple[Fraction, Fraction, int]] = []
        self.journal = SimpleNamespace(grant=lambda _intent: SimpleNamespace(layer_grant=grant))
        self.budgets = self

    def book_intent(self, _intent: object, turnover: Fraction, loss: Fraction, gas_wei: int, _chain_s: int) -> None:
        self.rows.append((turnover / UNIT, loss / UNIT, gas_wei))


def booked(
    grant: FuturesGrant | None,
    mined: Receipt,
    *,
    is_venue_order: bool = False,
    native_price: Fraction = Fraction(0),
    step: StepInput | None = None,
) -> tuple[Fraction, Fraction]:
    """Return turnover and loss that are booked of a receipt, in USDC."""
    store: Any = RecordingStore(grant)
    intent: Any = SimpleNamespace(id="a", kind=IntentKind.FUTURES, receipt=mined, tx=SimpleNamespace(is_venue_order=is_venue_order))

    loss = book_futures_action(store, intent, step or step_input(), native_price, 1)

    [(turnover, booked_loss, gas_wei)] = store.rows
    assert loss == booked_loss * UNIT
    assert gas_wei == mined.gas_cost_wei
    return turnover, booked_loss


def granted(action: FuturesAction, **changes: Any) -> FuturesGrant:
    return FuturesGrant(action, EMPTY, **changes)


# --- Fills


@pytest.mark.parametrize(
    ("order", "fills", "may_be_partial", "fill"),
    [
        pytest.param(ORDER, [WHOLE], False, WHOLE, id="whole"),
        pytest.param(ORDER, [], False, None, id="none"),
        pytest.param(ORDER, [HALF], False, None, id="part on the chain"),
        pytest.param(ORDER, [HALF], True, HALF, id="part at a venue"),
        pytest.param(ORDER, [AGAINST], True, None, id="part on the other side"),
        pytest.param(ORDER, [ELSEWHERE], True, None, id="another market"),
        pytest.param(ORDER, [WHOLE, WHOLE], False, None, id="twice"),
        pytest.param(ORDER, [HALF, HALF], False, None, id="two halves"),
        pytest.param(
            LIMIT, [replace(HALF, fill_id="1"), QUARTER], True,
            replace(HALF, size_raw=SIZE * 3 // 4, quote_raw=-6_030 * E18, fee_raw=6 * E18), id="fills of a limit order",
        ),
    ],
)  # fmt: skip
def test_order_fill_is_one_event_of_its_market_and_size(
    order: PerpOrder, fills: Sequence[PerpFill], may_be_partial: bool, fill: PerpFill | None
) -> None:
    assert order_fill(order, receipt(*fills), may_be_partial=may_be_partial) == fill


@pytest.mark.parametrize(
    ("action", "mined", "loss"),
    [
        pytest.param(ORDER, receipt(WHOLE), 48, id="whole"),
        pytest.param(ORDER, receipt(), AT_BOUND, id="no event"),
        pytest.param(ORDER, receipt(HALF), AT_BOUND, id="part"),
        pytest.param(ORDER, receipt(ELSEWHERE), AT_BOUND, id="another market"),
        pytest.param(ORDER, receipt(WHOLE, WHOLE), AT_BOUND, id="twice"),
        pytest.param(replace(ORDER, bound_raw=8_160 * E18 + 1), receipt(), AT_BOUND + Fraction(2, E18), id="fee rounded up"),
        pytest.param(SALE, receipt(sold_for(7_960)), 48, id="sale below the index"),
        pytest.param(SALE, receipt(sold_for(8_000)), 8, id="sale at the index"),
        pytest.param(SALE, receipt(sold_for(8_040)), 8, id="sale above the index"),
        pytest.param(replace(SALE, kind=PerpOrderKind.LIMIT), receipt(), 0, id="limit order without a fill"),
    ],
)
def test_booking_loses_fee_and_distance_or_those_at_the_bound(action: PerpOrder, mined: Receipt, loss: Fraction) -> None:
    """An endpoint that hides an event, or shows a part, hides no loss."""
    assert booked(granted(action), mined)[1] == loss


@pytest.mark.parametrize(
    ("order", "fills", "loss"),
    [
        pytest.param(LIMIT, [], 0, id="none"),
        pytest.param(LIMIT, [HALF], 24, id="half"),
        pytest.param(LIMIT, [HALF, QUARTER], 36, id="three quarters"),
        pytest.param(ORDER, [HALF], 24, id="half of a market order"),
    ],
)
def test_booking_of_a_venue_s_order_loses_by_its_fills(order: PerpOrder, fills: Sequence[PerpFill], loss: int) -> None:
    assert booked(granted(order), receipt(*fills), is_venue_order=True)[1] == loss


@pytest.mark.parametrize(
    ("grant", "mined", "turnover"),
    [
        pytest.param(granted(REDUCTION), receipt(WHOLE), 8_000, id="reduction"),
        pytest.param(granted(REDUCTION, is_emergency=True), receipt(WHOLE), 0, id="emergency"),
        pytest.param(granted(REDUCTION, is_budgeted=False), receipt(WHOLE), 0, id="owner's"),
        pytest.param(granted(ORDER), receipt(WHOLE), 0, id="opening"),
        pytest.param(granted(REDUCTION), receipt(), 8_000, id="reduction without its fill"),
    ],
)
def test_booking_counts_the_agent_s_reductions_in_their_budget(grant: FuturesGrant, mined: Receipt, turnover: int) -> None:
    assert booked(grant, mined)[0] == turnover


def test_booking_counts_a_part_of_a_reduction_by_its_size() -> None:
    assert booked(granted(REDUCTION), receipt(HALF), is_venue_order=True) == (4_000, 24)


# --- Gas, and moves of margin


@pytest.mark.parametrize(
    ("grant", "status", "loss"),
    [
        pytest.param(granted(ORDER), 1, 58, id="order and gas"),
        pytest.param(granted(SALE), 0, 10, id="reverted"),
        pytest.param(None, 1, 10, id="no grant of futures"),
    ],
)
def test_booking_adds_gas_to_the_cost(grant: FuturesGrant | None, status: int, loss: int) -> None:
    mined = receipt(WHOLE, status=status, gas_used=100, effective_gas_price_wei=UNIT)

    assert booked(grant, mined, native_price=Fraction(1, 10)) == (0, loss)


def test_booking_needs_a_receipt() -> None:
    intent: Any = SimpleNamespace(id="a", receipt=None)
    store: Any = RecordingStore(granted(ORDER))

    with pytest.raises(ValueError, match="no receipt"):
        book_futures_action(store, intent, step_input(), Fraction(0), 1)


DEPOSIT = MarginDeposit(500 * UNIT)
WITHDRAWAL = MarginWithdrawal(500 * UNIT)


@pytest.mark.parametrize(
    ("action", "received", "turnover", "loss"),
    [
        pytest.param(DEPOSIT, -500, 500, 0, id="deposit, exact"),
        pytest.param(DEPOSIT, -503, 500, 3, id="deposit that lost"),
        pytest.param(DEPOSIT, -497, 500, 0, id="deposit that gained"),
        pytest.param(WITHDRAWAL, 500, 0, 0, id="withdrawal, exact"),
        pytest.param(WITHDRAWAL, 496, 0, 4, id="withdrawal that lost"),
        pytest.param(WITHDRAWAL, 504, 0, 0, id="withdrawal that gained"),
    ],
)
def test_booking_loses_collateral_missing_after_a_move(
    action: MarginDeposit | MarginWithdrawal, received: int, turnover: int, loss: int
) -> None:
    ends = (OWNER, "0xvault") if received < 0 else ("0xvault", OWNER)
    mined = receipt(transfers=(Transfer(USDC, *ends, abs(received) * UNIT),))
    step = with_policy(step_input(), replace(FUTURES_POLICY, collateral=USDC))
    grant = FuturesGrant(action, replace(EMPTY, collateral_unit_raw=10**12))

    assert booked(grant, mined, step=step) == (turnover, loss)


@pytest.mark.parametrize(
    ("step", "tokens"),
    [
        pytest.param(step_with_margin(EMPTY), [USDC], id="own account"),
        pytest.param(with_policy(step_with_margin(EMPTY), replace(OURS, trader=OTHER)), [], id="delegate"),
        pytest.param(step_with_margin(None), [], id="unknown account"),
    ],
)
def test_margin_reading_is_of_an_account_that_counts(step: StepInput, tokens: list[str]) -> None:
    assert list(margin_reading_by_collateral(step)) == tokens
