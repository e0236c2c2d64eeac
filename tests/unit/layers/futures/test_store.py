"""What the history says of futures: hedges and goals of the newest order that traded, and a day's reductions and deposits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.state import FuturesState
from agent.layers.futures.store import reduced_market
from agent.model import Intent, IntentKind, IntentState
from agent.model.futures import (
    UNREAD_ACCOUNT,
    FuturesAction,
    FuturesGrant,
    Hedge,
    MarginDeposit,
    OrderCancel,
    PerpOrder,
    PerpOrderKind,
    StopOrder,
)
from agent.store import Store
from tests.support.stores import store_fixture
from tests.support.transactions import START_S, grant, receipt, tx

HEDGE = Hedge("ETH", "0x" + "Aa" * 20, -5, START_S, Fraction(1))
OPENING = PerpOrder("ETH", 5, PerpOrderKind.MARKET, 1, is_reduce_only=False)
SHORT = replace(OPENING, size_raw=-5)
REDUCTION = PerpOrder("ETH", -1, PerpOrderKind.MARKET, 1, is_reduce_only=True)
RESTING = PerpOrder("BTC", 5, PerpOrderKind.LIMIT, 1, is_reduce_only=False)
STOP = StopOrder("BTC", -5, 1, 1)
CANCEL = OrderCancel("BTC", "0x01")
DEPOSIT = MarginDeposit(1)
FILLED = 1
FAILED = 0
"""Statuses of a receipt."""


store = store_fixture(begins_step=True)


def grant_of(action: FuturesAction, **terms: object) -> FuturesGrant:
    return FuturesGrant(action, UNREAD_ACCOUNT, **terms)


def end_order(store: Store, nonce: int, layer_grant: FuturesGrant, status: int = FILLED, turnover: int = 0) -> None:
    """Send an order that ends, and book it at its nonce in seconds after the start."""
    book(store, ended_order(store, nonce, layer_grant, status), START_S + nonce, turnover)


def book(store: Store, intent: Intent, at_s: int, turnover: int = 0) -> None:
    store.budgets.book_intent(intent, Fraction(turnover), Fraction(0), 0, at_s)


def ended_order(store: Store, nonce: int, layer_grant: FuturesGrant, status: int = FILLED) -> Intent:
    tx_hash = f"0x{nonce:064x}"
    whole_grant = replace(grant(IntentKind.FUTURES), layer_grant=layer_grant)
    intent = store.journal.add_intent("s", tx(nonce), whole_grant, "order", START_S, None)
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=tx_hash)
    store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
    store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=receipt(tx_hash, nonce, f"0x{nonce:02x}", status))
    return store.journal.advance(intent.id, IntentState.FINAL if status else IntentState.REVERTED, START_S)


def state(store: Store) -> FuturesState:
    return store.budgets.history(START_S + 9).layer(FuturesState)


@pytest.mark.parametrize(
    ("action", "market"),
    [
        pytest.param(REDUCTION, "ETH", id="reduction"),
        pytest.param(OPENING, "", id="opening"),
        pytest.param(DEPOSIT, "", id="deposit"),
    ],
)
def test_reduced_market_is_that_of_a_reduction(action: FuturesAction, market: str) -> None:
    assert reduced_market(replace(grant(IntentKind.FUTURES), layer_grant=grant_of(action))) == market


@pytest.mark.parametrize(
    ("is_emergency", "at_s"),
    [pytest.param(True, START_S + 1, id="emergency"), pytest.param(False, None, id="other reduction")],
)
def test_last_emergency_is_no_other_reduction(store: Store, is_emergency: bool, at_s: int | None) -> None:
    end_order(store, 1, grant_of(REDUCTION, is_emergency=is_emergency))

    assert state(store).last_emergency_s == at_s


def test_day_counts_reductions_and_deposits_apart(store: Store) -> None:
    end_order(store, 1, grant_of(REDUCTION), turnover=5)
    end_order(store, 2, grant_of(DEPOSIT), turnover=7)
    end_order(store, 3, grant_of(REDUCTION, is_emergency=True), turnover=11)

    assert (state(store).reduced_notional_24h, state(store).top_up_value_24h) == (5, 7)


@pytest.mark.parametrize(
    ("action", "status", "hedges"),
    [
        pytest.param(SHORT, FILLED, (), id="order without a hedge"),
        pytest.param(SHORT, FAILED, (HEDGE,), id="failed order"),
        pytest.param(RESTING, FAILED, (HEDGE,), id="order that rests"),
        pytest.param(STOP, FILLED, (HEDGE,), id="stop"),
        pytest.param(CANCEL, FILLED, (HEDGE,), id="cancel"),
    ],
)
def test_hedges_are_those_of_the_newest_order_that_trades(
    store: Store, action: FuturesAction, status: int, hedges: tuple[Hedge, ...]
) -> None:
    end_order(store, 1, grant_of(SHORT, hedges=(HEDGE,)))

    end_order(store, 2, grant_of(action), status)

    assert state(store).hedges == hedges


def test_newest_of_two_orders_in_a_second__is_the_later_intent(store: Store) -> None:
    orders = [ended_order(store, nonce, grant_of(SHORT, hedges=hedges)) for nonce, hedges in enumerate([(HEDGE,), ()])]
    for order in reversed(orders):
        book(store, order, START_S)

    assert state(store).hedges == ()


@pytest.mark.parametrize(
    ("action", "status", "goals"),
    [
        pytest.param(REDUCTION, FILLED, (("BTC", 2),), id="reduction"),
        pytest.param(RESTING, FILLED, (("BTC", 2),), id="order that rests"),
        pytest.param(RESTING, FAILED, (("ETH", 1),), id="order that rests and failed"),
        pytest.param(OPENING, FAILED, (("ETH", 1),), id="opening that failed"),
        pytest.param(STOP, FILLED, (("ETH", 1),), id="stop"),
        pytest.param(CANCEL, FILLED, (("ETH", 1),), id="cancel"),
        pytest.param(DEPOSIT, FILLED, (("ETH", 1),), id="deposit"),
    ],
)
def test_goals_are_those_of_the_newest_order_that_trades(
    store: Store, action: FuturesAction, status: int, goals: tuple[tuple[str, int], ...]
) -> None:
    end_order(store, 1, grant_of(OPENING, set_goals=(("ETH", 1),)))

    end_order(store, 2, grant_of(action, set_goals=(("BTC", 2),)), status)

    assert state(store).set_goals == goals


def test_goals_of_an_older_order_that_rests_are_replaced(store: Store) -> None:
    end_order(store, 1, grant_of(RESTING, set_goals=(("BTC", 1),)))

    end_order(store, 2, grant_of(OPENING, set_goals=(("ETH", 2),)))

    assert state(store).set_goals == (("ETH", 2),)


def test_order_that_rests_is_no_failure(store: Store) -> None:
    end_order(store, 1, grant_of(RESTING), FAILED)

    assert store.budgets.history(START_S + 9).failures.reverts_in_row == 0
