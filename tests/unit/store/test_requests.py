"""Requests of the owner in the store: what is open, what a payout has paid, what stops trading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from agent.errors import ConfigError
from agent.model import Intent, IntentKind, IntentState, Payment, Payout, PendingPayment, RequestKind, RequestState, WithdrawalProgress
from agent.store import Store
from agent.store.database import Database
from agent.units import NATIVE
from tests.support.text import raises_code
from tests.support.transactions import OTHER, START_S, WALLET, grant, new_store, receipt, tx

USDC, WETH = "0x" + "Aa" * 20, "0x" + "Bb" * 20
PAYMENTS = (Payment(USDC, 500), Payment(WETH, 7, native=True))


@pytest.fixture
def store(store_kind: str, tmp_path: Path) -> Iterator[Store]:
    store = new_store(store_kind, tmp_path)
    store.steps.begin("s", START_S, "{}")
    yield store
    store.close()


def withdrawal(store: Store, payments: tuple[Payment, ...] = PAYMENTS) -> int:
    return store.requests.record(RequestKind.WITHDRAW, payments, OTHER, False, START_S).id


def send(store: Store, nonce: int, payout: Payout | None, kind: IntentKind = IntentKind.PAYOUT) -> Intent:
    intent = store.journal.add_intent("s", kind, tx(nonce), replace(grant(kind), payout=payout), "payout", START_S, None)
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=f"0x{nonce:064x}")
    return store.journal.advance(intent.id, IntentState.BROADCAST, START_S)


def mine(store: Store, intent: Intent, status: int = 1) -> Intent:
    block = receipt(f"0x{intent.tx.nonce:064x}", intent.tx.nonce + 1, f"0x{intent.tx.nonce:02x}", status)
    return store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=block)


def claims(store: Store) -> list[PendingPayment]:
    return list(store.budgets.history(START_S).cash_flows.pending_payments)


def test_a_request_is_kept_as_it_was_made_and_numbered_in_order(store: Store) -> None:
    first = store.requests.record(RequestKind.WITHDRAW, PAYMENTS, None, False, START_S)
    second = store.requests.record(RequestKind.STOP, (), OTHER, True, START_S + 1)

    third = store.requests.record(RequestKind.WITHDRAW, PAYMENTS[:1], OTHER, True, START_S + 2)

    assert store.requests.newest() == (first, second, third)
    assert first.id < second.id < third.id
    assert [request.state for request in (first, second, third)] == [RequestState.OPEN] * 3
    assert (first.payments, first.to, first.sells_everything, first.asked_s) == (PAYMENTS, None, False, START_S)
    assert store.requests.newest(2) == (second, third)
    assert store.requests.newest(None) == (first, second, third)
    store.requests.end(second.id, RequestState.DONE, START_S + 3)
    assert store.requests.newest(2, open_only=True) == (first, third)
    assert [store.requests.is_open(number) for number in (first.id, second.id, third.id + 1)] == [True, False, False]
    assert store.requests.newest()[1] == replace(second, state=RequestState.DONE, ended_s=START_S + 3)


def test_redirect_and_progress_change_one_withdrawal_alone(store: Store) -> None:
    number, other = withdrawal(store), withdrawal(store)
    parts = WithdrawalProgress(3, 1, START_S + 60, START_S + 600, 5)
    store.requests.redirect(number, WALLET)
    store.requests.record_progress(number, parts)

    first, second = store.requests.newest()

    assert (first.id, first.to, first.progress, first.payments) == (number, WALLET, parts, PAYMENTS)
    assert (second.id, second.to, second.progress) == (other, OTHER, None)
    store.requests.redirect(number, None)
    store.requests.record_progress(number, None)
    assert (store.requests.newest()[0].to, store.requests.newest()[0].progress) == (None, None)
    for change in (
        lambda: store.requests.redirect(99, None),
        lambda: store.requests.record_progress(99, None),
        lambda: store.requests.end(99, RequestState.DONE, START_S),
    ):
        with raises_code(ConfigError, "unknown", "request 99"):
            change()


def test_only_an_open_withdrawal_changes_its_terms(store: Store) -> None:
    stop = store.requests.record(RequestKind.STOP, (), OTHER, True, START_S).id
    done_id = withdrawal(store)
    released_id = withdrawal(store)
    store.requests.end(done_id, RequestState.DONE, START_S)
    store.requests.end(released_id, RequestState.RELEASED, START_S)
    before = store.requests.newest()
    for number in (stop, done_id, released_id):
        store.requests.redirect(number, WALLET)
        store.requests.record_progress(number, WithdrawalProgress(2, 0, 1, 2))

    assert store.requests.newest() == before


@pytest.mark.parametrize(
    ("kind", "first", "second", "changes"),
    [
        pytest.param(RequestKind.STOP, RequestState.DONE, RequestState.RELEASED, True, id="a resumed stop"),
        pytest.param(RequestKind.STOP, RequestState.RELEASED, RequestState.DONE, False, id="a stop, resumed while it ended"),
        pytest.param(RequestKind.WITHDRAW, RequestState.DONE, RequestState.RELEASED, False, id="a paid withdrawal"),
        pytest.param(RequestKind.WITHDRAW, RequestState.RELEASED, RequestState.DONE, False, id="a released withdrawal"),
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


def test_payments_are_pending_until_their_payout_is_mined(store: Store) -> None:
    number, other = withdrawal(store), withdrawal(store, PAYMENTS[:1])
    store.requests.record(RequestKind.STOP, (), OTHER, True, START_S)
    usdc, coin = (PendingPayment(number, payment) for payment in PAYMENTS)

    second = PendingPayment(other, PAYMENTS[0])

    assert claims(store) == [usdc, coin, second]
    paying = send(store, 0, Payout(USDC, OTHER, 500, 10**9, number))
    assert claims(store) == [usdc, coin, second]
    mine(store, paying)
    assert claims(store) == [coin, second]
    mine(store, send(store, 1, Payout(NATIVE, OTHER, 7, 10**9, number)), status=0)
    assert claims(store) == [coin, second], "a payment that reverted paid nothing"
    mine(store, send(store, 2, Payout(NATIVE, OTHER, 6, 10**9, number)))
    mine(store, send(store, 3, Payout(WETH, OTHER, 7, 10**9, number)))
    assert claims(store) == [coin, second], "another amount or token is another payment"
    store.requests.record_progress(other, WithdrawalProgress(2, 0, 1, 2))
    assert claims(store) == [coin, replace(second, progress=WithdrawalProgress(2, 0, 1, 2))]
    store.requests.end(other, RequestState.RELEASED, START_S)
    assert claims(store) == [coin]


def test_a_withdrawal_ends_once_all_its_payments_are_final(store: Store) -> None:
    number, other = withdrawal(store), withdrawal(store)
    paying = [send(store, 0, Payout(USDC, OTHER, 500, 10**9, number)), send(store, 1, Payout(NATIVE, OTHER, 7, 10**9, number))]
    for intent in paying:
        mine(store, intent)

    store.requests.end_paid_withdrawals(START_S)

    assert [request.state for request in store.requests.newest()] == [RequestState.OPEN] * 2, "in a block is not final"
    store.journal.advance(paying[0].id, IntentState.FINAL, START_S)
    store.requests.end_paid_withdrawals(START_S)
    assert [request.state for request in store.requests.newest()] == [RequestState.OPEN] * 2, "one of two payments"
    store.journal.advance(paying[1].id, IntentState.FINAL, START_S)
    store.requests.end_paid_withdrawals(START_S)
    assert [(request.id, request.state) for request in store.requests.newest()] == [(number, RequestState.DONE), (other, RequestState.OPEN)]


def test_withdrawals_paid_at_once_end_in_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for nonce in range(2):
        paying = send(store, nonce, Payout(USDC, OTHER, 500, 10**9, withdrawal(store, PAYMENTS[:1])))
        mine(store, paying)
        store.journal.advance(paying.id, IntentState.FINAL, START_S)
    actions: list[str] = []
    write = type(store.db).write

    def listed_write(db: Database, action: str, keeps_cache: bool = False) -> AbstractContextManager[Connection]:
        actions.append(action)
        return write(db, action, keeps_cache)

    monkeypatch.setattr(type(store.db), "write", listed_write)

    store.requests.end_paid_withdrawals(START_S)

    assert [request.state for request in store.requests.newest()] == [RequestState.DONE] * 2
    assert actions == ["write the end of a request"]


def test_payouts_are_those_of_the_request_with_failed_ones(store: Store) -> None:
    number, other = withdrawal(store), withdrawal(store)
    payout = Payout(USDC, OTHER, 500, 10**9, number)
    store.journal.advance(mine(store, send(store, 0, payout), status=0).id, IntentState.REVERTED, START_S)
    mine(store, send(store, 1, None, IntentKind.SWAP))
    mine(store, send(store, 2, replace(payout, request_id=other)))
    mine(store, send(store, 3, payout))

    payouts = store.requests.payouts(number)

    assert [(intent.tx.nonce, intent.succeeded, listed_payout) for intent, listed_payout in payouts] == [
        (0, False, payout),
        (3, True, payout),
    ]


def test_one_stop_at_a_time_stops_trading_until_it_is_released(store: Store) -> None:
    def reason() -> str:
        return store.budgets.history(START_S).stop_reason

    assert store.requests.active_stop() is None
    assert reason() == ""
    withdrawal(store)
    assert store.requests.active_stop() is None
    assert reason() == ""
    stop = store.requests.record(RequestKind.STOP, (), OTHER, True, START_S)
    assert store.requests.active_stop() == stop
    assert "is being stopped" in reason()
    with pytest.raises(ConfigError, match="already in progress"):
        store.requests.record(RequestKind.STOP, (), None, False, START_S)
    withdrawal(store)
    store.requests.end(stop.id, RequestState.DONE, START_S)
    assert store.requests.active_stop() == replace(stop, state=RequestState.DONE, ended_s=START_S)
    assert "was stopped" in reason()
    again = store.requests.record(RequestKind.STOP, (), None, False, START_S)
    assert store.requests.active_stop() == again
    store.requests.end(again.id, RequestState.RELEASED, START_S)
    assert store.requests.active_stop() is None
    assert reason() == ""


def test_confirmed_addresses_are_kept_in_order_and_once(store: Store) -> None:
    assert store.requests.payout_addresses() == ()
    for address in (OTHER, WALLET, OTHER):
        store.requests.confirm_payout_address(address, START_S)
    assert store.requests.payout_addresses() == tuple(sorted((OTHER, WALLET)))


def test_adoption_releases_open_withdrawals_and_no_stop(store: Store) -> None:
    """An unknown transaction of the wallet may have paid them."""
    store.journal.adopt_nonce(3, START_S)
    done_id, number = withdrawal(store), withdrawal(store)
    store.requests.end(done_id, RequestState.DONE, START_S)

    stop = store.requests.record(RequestKind.STOP, (), OTHER, True, START_S)

    assert len(claims(store)) == 2
    store.journal.adopt_nonce(5, START_S)
    states = {request.id: request.state for request in store.requests.newest()}
    assert states == {done_id: RequestState.DONE, number: RequestState.RELEASED, stop.id: RequestState.OPEN}


def test_the_first_nonce_of_a_new_store_releases_nothing(store: Store) -> None:
    number = withdrawal(store)

    store.journal.adopt_nonce(3, START_S)

    assert [(request.id, request.state) for request in store.requests.newest()] == [(number, RequestState.OPEN)]
