"""Tests of agent/store/requests.py: which requests are open, which payments a payout has paid, what stops trading."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from agent.errors import ConfigError, Refused
from agent.model import (
    Intent,
    IntentKind,
    IntentState,
    OwnerRequest,
    Payment,
    Payout,
    PendingPayment,
    RequestKind,
    RequestState,
    WithdrawalProgress,
)
from agent.store import Store
from agent.store.database.connection import Database
from agent.store.requests import RequestStore
from agent.units import NATIVE
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import OTHER, START_S, WALLET, grant, receipt, record_sent, tx

USDC = "0x" + "Aa" * 20
WETH = "0x" + "Bb" * 20
IN_USDC = Payment(USDC, 500)
IN_COIN = Payment(WETH, 7, native=True)
PAYMENTS = (IN_USDC, IN_COIN)
PARTS = WithdrawalProgress(3, 1, START_S + 60, START_S + 600, 5)
OPEN, DONE, RELEASED = RequestState


store = store_fixture(begins_step=True)


def withdrawal(store: Store, payments: tuple[Payment, ...] = PAYMENTS) -> int:
    return store.requests.record(RequestKind.WITHDRAW, payments, OTHER, False, START_S).id


def send(store: Store, nonce: int, payout: Payout | None, kind: IntentKind = IntentKind.PAYOUT) -> Intent:
    intent = store.journal.add_intent("s", tx(nonce), replace(grant(kind), payout=payout), "payout", START_S, None)
    return record_sent(store.journal, intent, f"0x{nonce:064x}")


def mine(store: Store, intent: Intent, status: int = 1) -> Intent:
    block = receipt(f"0x{intent.tx.nonce:064x}", intent.tx.nonce + 1, f"0x{intent.tx.nonce:02x}", status)
    return store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=block)


def pay(store: Store, nonce: int, payout: Payout) -> Intent:
    """Send a payout and make it final."""
    intent = mine(store, send(store, nonce, payout))
    return store.journal.advance(intent.id, IntentState.FINAL, START_S)


def pending(store: Store) -> list[PendingPayment]:
    return list(store.budgets.history(START_S).cash_flows.pending_payments)


def states(store: Store) -> list[RequestState]:
    return [request.state for request in store.requests.newest()]


# --- Requests


def test_request_is_read_as_it_was_recorded(store: Store) -> None:
    request = store.requests.record(RequestKind.WITHDRAW, PAYMENTS, None, False, START_S)

    assert store.requests.newest() == (request,)
    assert (request.kind, request.state, request.payments) == (RequestKind.WITHDRAW, OPEN, PAYMENTS)
    assert (request.to, request.sells_everything, request.asked_s) == (None, False, START_S)


def test_newest_requests_are_listed_oldest_first(store: Store) -> None:
    first = store.requests.record(RequestKind.WITHDRAW, PAYMENTS, None, False, START_S)
    second = store.requests.record(RequestKind.STOP, (), OTHER, True, START_S + 1)
    third = store.requests.record(RequestKind.WITHDRAW, PAYMENTS[:1], OTHER, True, START_S + 2)
    store.requests.end(second.id, DONE, START_S + 3)
    ended = replace(second, state=DONE, ended_s=START_S + 3)

    assert first.id < second.id < third.id
    assert store.requests.newest() == store.requests.newest(None) == (first, ended, third)
    assert store.requests.newest(2) == (ended, third)
    assert store.requests.newest(2, open_only=True) == (first, third)
    store.requests.end(third.id, RELEASED, START_S + 4)
    assert [store.requests.is_released(number) for number in (first.id, second.id, third.id, third.id + 1)] == [False, False, True, False]


def test_redirect_and_progress_change_one_withdrawal_alone(store: Store) -> None:
    number = withdrawal(store)
    other = withdrawal(store)

    store.requests.redirect(number, WALLET)
    store.requests.record_progress(number, PARTS)

    first, second = store.requests.newest()
    assert (first.id, first.to, first.progress, first.payments) == (number, WALLET, PARTS, PAYMENTS)
    assert (second.id, second.to, second.progress) == (other, OTHER, None)


def test_redirect_and_progress_are_cleared_by_none(store: Store) -> None:
    number = withdrawal(store)
    store.requests.record_progress(number, PARTS)

    store.requests.redirect(number, None)
    store.requests.record_progress(number, None)

    (request,) = store.requests.newest()
    assert (request.to, request.progress) == (None, None)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda requests: requests.redirect(99, None), id="redirect"),
        pytest.param(lambda requests: requests.record_progress(99, None), id="progress"),
        pytest.param(lambda requests: requests.end(99, DONE, START_S), id="end"),
    ],
)
def test_unknown_request_is_refused(store: Store, change: Callable[[RequestStore], object]) -> None:
    with raises_code(ConfigError, "unknown", "request 99"):
        change(store.requests)


@pytest.mark.parametrize(
    ("kind", "end_state"),
    [
        pytest.param(RequestKind.STOP, DONE, id="stop that is done"),
        pytest.param(RequestKind.STOP, RELEASED, id="resumed stop"),
        pytest.param(RequestKind.WITHDRAW, DONE, id="paid withdrawal"),
        pytest.param(RequestKind.WITHDRAW, RELEASED, id="released withdrawal"),
    ],
)
def test_ended_request__does_not_change_its_terms(store: Store, kind: RequestKind, end_state: RequestState) -> None:
    number = store.requests.record(kind, (), OTHER, True, START_S).id
    store.requests.end(number, end_state, START_S)
    before = store.requests.newest()

    store.requests.redirect(number, WALLET)
    store.requests.record_progress(number, PARTS)

    assert store.requests.newest() == before


def test_open_stop__changes_its_address_alone(store: Store) -> None:
    open_stop = store.requests.record(RequestKind.STOP, (), OTHER, True, START_S)

    store.requests.redirect(open_stop.id, WALLET)
    store.requests.record_progress(open_stop.id, PARTS)

    assert store.requests.newest() == (replace(open_stop, to=WALLET),)


@pytest.mark.parametrize(
    ("kind", "first", "second", "changes"),
    [
        pytest.param(RequestKind.STOP, DONE, RELEASED, True, id="a resumed stop"),
        pytest.param(RequestKind.STOP, DONE, DONE, False, id="a stop, done twice"),
        pytest.param(RequestKind.STOP, RELEASED, DONE, False, id="a stop, resumed while it ended"),
        pytest.param(RequestKind.WITHDRAW, DONE, RELEASED, False, id="a paid withdrawal"),
        pytest.param(RequestKind.WITHDRAW, RELEASED, DONE, False, id="a released withdrawal"),
    ],
)
def test_a_request_ends_once_but_for_a_resumed_stop(
    store: Store, kind: RequestKind, first: RequestState, second: RequestState, changes: bool
) -> None:
    number = store.requests.record(kind, (), OTHER, True, START_S).id

    assert store.requests.end(number, first, START_S)
    assert store.requests.end(number, second, START_S + 1) is changes
    (request,) = store.requests.newest()
    assert (request.state, request.ended_s) == ((second, START_S + 1) if changes else (first, START_S))


# --- Payments


@pytest.mark.parametrize(
    ("payout", "status", "is_paid"),
    [
        pytest.param(Payout(NATIVE, OTHER, 7, 10**9, 1), 1, True, id="the payment"),
        pytest.param(Payout(NATIVE, OTHER, 7, 10**9, 1), 0, False, id="a revert"),
        pytest.param(Payout(NATIVE, OTHER, 6, 10**9, 1), 1, False, id="one base unit less"),
        pytest.param(Payout(WETH, OTHER, 7, 10**9, 1), 1, False, id="another token"),
        pytest.param(Payout(NATIVE, OTHER, 7, 10**9, 2), 1, False, id="of another request"),
    ],
)
def test_payment_is_pending_until_its_payout_succeeds(store: Store, payout: Payout, status: int, is_paid: bool) -> None:
    number = withdrawal(store)
    withdrawal(store, PAYMENTS[:1])
    own_payout = replace(payout, request_id=number + payout.request_id - 1)

    mine(store, send(store, 0, own_payout), status)

    unpaid = [PendingPayment(number, IN_USDC)] + ([] if is_paid else [PendingPayment(number, IN_COIN)])
    assert pending(store) == [*unpaid, PendingPayment(number + 1, IN_USDC)]


def test_payment_that_was_only_sent_is_pending(store: Store) -> None:
    number = withdrawal(store)
    store.requests.record(RequestKind.STOP, (), OTHER, True, START_S)

    send(store, 0, Payout(USDC, OTHER, 500, 10**9, number))

    assert pending(store) == [PendingPayment(number, IN_USDC, open_nonce=0), PendingPayment(number, IN_COIN)]


def test_pending_payment_has_the_progress_of_its_request(store: Store) -> None:
    number = withdrawal(store, PAYMENTS[:1])
    store.requests.record_progress(number, PARTS)

    assert pending(store) == [PendingPayment(number, IN_USDC, PARTS)]


@pytest.mark.parametrize("end_state", [DONE, RELEASED])
def test_ended_withdrawal_has_no_pending_payment(store: Store, end_state: RequestState) -> None:
    store.requests.end(withdrawal(store), end_state, START_S)

    assert pending(store) == []


def test_withdrawal_ends_once_all_its_payments_are_final(store: Store) -> None:
    number = withdrawal(store)
    withdrawal(store)
    first = mine(store, send(store, 0, Payout(USDC, OTHER, 500, 10**9, number)))
    second = mine(store, send(store, 1, Payout(NATIVE, OTHER, 7, 10**9, number)))
    store.requests.end_paid_withdrawals(START_S)
    assert states(store) == [OPEN, OPEN], "in a block is not final"

    store.journal.advance(first.id, IntentState.FINAL, START_S)
    store.requests.end_paid_withdrawals(START_S)
    assert states(store) == [OPEN, OPEN], "one of two payments"

    store.journal.advance(second.id, IntentState.FINAL, START_S)
    store.requests.end_paid_withdrawals(START_S)
    assert states(store) == [DONE, OPEN]


def test_withdrawals_paid_at_once_end_in_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for nonce in range(2):
        pay(store, nonce, Payout(USDC, OTHER, 500, 10**9, withdrawal(store, PAYMENTS[:1])))
    actions: list[str] = []
    write = type(store.db).write

    def recorded_write(db: Database, action: str, keeps_cache: bool = False) -> AbstractContextManager[Connection]:
        actions.append(action)
        return write(db, action, keeps_cache)

    monkeypatch.setattr(type(store.db), "write", recorded_write)
    store.requests.end_paid_withdrawals(START_S)

    assert states(store) == [DONE, DONE]
    assert actions == ["write the end of a request"]


def test_payouts_are_those_of_the_request_with_failed_ones(store: Store) -> None:
    number = withdrawal(store)
    payout = Payout(USDC, OTHER, 500, 10**9, number)
    failed = mine(store, send(store, 0, payout), status=0)
    mine(store, send(store, 1, None, IntentKind.SWAP))
    mine(store, send(store, 2, replace(payout, request_id=withdrawal(store))))
    paid = mine(store, send(store, 3, payout))

    assert [(intent.id, intent.succeeded) for intent, _ in store.requests.payouts(number)] == [(failed.id, False), (paid.id, True)]
    assert [listed_payout for _, listed_payout in store.requests.payouts(number)] == [payout, payout]


# --- Stops


def stop(store: Store) -> OwnerRequest:
    return store.requests.record(RequestKind.STOP, (), OTHER, True, START_S)


@pytest.mark.parametrize(
    ("end_state", "reason"),
    [
        pytest.param(None, "is being stopped", id="open"),
        pytest.param(DONE, "was stopped", id="done"),
    ],
)
def test_stop_stops_trading_until_it_is_released(store: Store, end_state: RequestState | None, reason: str) -> None:
    request = stop(store)
    if end_state is not None:
        store.requests.end(request.id, end_state, START_S)
    withdrawal(store)

    active = store.requests.active_stop()

    assert active.id == request.id
    assert reason in store.budgets.history(START_S).stop_reason
    with pytest.raises(Refused, match="stopped by its owner"):
        store.requests.require_not_stopped()


@pytest.mark.parametrize(
    ("kind", "end_state"),
    [
        pytest.param(RequestKind.WITHDRAW, None, id="a withdrawal"),
        pytest.param(RequestKind.STOP, RELEASED, id="a released stop"),
    ],
)
def test_trading_goes_on_without_an_active_stop(store: Store, kind: RequestKind, end_state: RequestState | None) -> None:
    number = store.requests.record(kind, (), OTHER, True, START_S).id
    if end_state is not None:
        store.requests.end(number, end_state, START_S)

    assert store.requests.active_stop() is None
    assert store.budgets.history(START_S).stop_reason == ""
    store.requests.require_not_stopped()


def test_second_stop_is_refused_while_one_is_open(store: Store) -> None:
    stop(store)

    with pytest.raises(ConfigError, match="already in progress"):
        stop(store)


@pytest.mark.parametrize("end_state", [DONE, RELEASED])
def test_newest_stop_counts_after_one_that_ended(store: Store, end_state: RequestState) -> None:
    store.requests.end(stop(store).id, end_state, START_S)

    second = stop(store)

    assert store.requests.active_stop() == second
    assert "is being stopped" in store.budgets.history(START_S).stop_reason


def test_released_stop_ends_that_of_an_earlier_one(store: Store) -> None:
    store.requests.end(stop(store).id, DONE, START_S)
    store.requests.end(stop(store).id, RELEASED, START_S)

    assert store.requests.active_stop() is None
    assert store.budgets.history(START_S).stop_reason == ""


# --- Addresses and adopted nonces


def test_confirmed_addresses_are_kept_in_order_and_once(store: Store) -> None:
    assert store.requests.payout_addresses() == ()
    for address in (OTHER, WALLET, OTHER):
        store.requests.confirm_payout_address(address, START_S)
    assert store.requests.payout_addresses() == tuple(sorted((OTHER, WALLET)))


@pytest.mark.parametrize(
    ("adoptions", "state"), [(0, OPEN), (1, OPEN), (2, RELEASED)], ids=["no adoption", "first use of the wallet", "second adoption"]
)
def test_second_adoption_releases_open_withdrawals_alone(store: Store, adoptions: int, state: RequestState) -> None:
    """An unknown transaction of the wallet may have paid them."""
    store.requests.end(withdrawal(store), DONE, START_S)
    withdrawal(store)
    stop(store)

    for number in range(adoptions):
        store.journal.adopt_nonce(3 + number, START_S)

    assert states(store) == [DONE, state, OPEN]
    released_ids = {request.id for request in store.requests.newest() if request.state is RELEASED}
    assert store.requests.released_by_adoption() == released_ids


def test_released_by_adoption__is_no_release_by_the_owner(store: Store) -> None:
    store.requests.end(withdrawal(store), RELEASED, START_S)
    number = withdrawal(store)
    for nonce in (3, 4, 5):
        store.journal.adopt_nonce(nonce, START_S)
    assert store.requests.released_by_adoption() == {number}
