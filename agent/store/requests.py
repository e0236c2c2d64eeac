"""The owner's requests (withdrawals, stop) with their payments, and confirmed payout addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    or_,
    select,
    update,
)

from agent import codec
from agent.errors import ConfigError, ErrorCode, Refused
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
    Verdict,
    WithdrawalProgress,
)
from agent.ports import Grant
from agent.store.database.connection import Database
from agent.store.database.facts import facts_with_prefix, write_facts
from agent.store.database.rows import decode_json, decompress_text, intent_from_row
from agent.store.database.statements import (
    all_rows,
    column_values,
    first_row,
    insert_returning_id,
    upsert_rows,
)
from agent.store.tables import IntentRow, PayoutAddressRow, RequestRow
from agent.store.transitions import NONCE_USED_STATES, OPEN_STATES
from agent.units import NATIVE

ADOPTION_RELEASE_PREFIX = "adoption-release:"
"""Begin of the key of a fact: when the withdrawal of the number that follows was released."""


@dataclass(frozen=True, slots=True)
class RequestStore:
    """Requests and payout addresses; each method is a transaction of its own, but
    `end_paid_withdrawals` reads first, and again in its write.
    """

    db: Database

    def record(
        self,
        kind: RequestKind,
        payments: Sequence[Payment],
        payout_address: str | None,
        sells_to_stable: bool,
        asked_s: int,
        control_id: str = "",
        pro_rata_raw: int = 0,
    ) -> OwnerRequest:
        """Record a request, OPEN. Raises ConfigError for a second stop while one is open."""
        request = OwnerRequest(
            0,
            kind,
            tuple(payments),
            payout_address,
            sells_to_stable,
            RequestState.OPEN,
            asked_s,
            control_id=control_id,
            pro_rata_raw=pro_rata_raw,
        )
        with self.db.write("write a request") as db:
            open_stop = active_stop(db) if kind is RequestKind.STOP else None
            if open_stop is not None and open_stop.state is RequestState.OPEN:
                raise ConfigError(
                    "a shutdown is already in progress",
                    "trimtab stop --send continues it, trimtab resume cancels it",
                )
            request_json = codec.dumps(request)
            request_number = insert_returning_id(
                db,
                RequestRow,
                kind=kind.value,
                state=request.state.value,
                request_json=request_json,
                asked_s=asked_s,
            )
            return replace(request, id=request_number)

    def newest(self, limit: int | None = 100, open_only: bool = False) -> tuple[OwnerRequest, ...]:
        """Return the newest requests (limit None: all), oldest first."""
        with self.db.read("read the requests") as db:
            query = _select_newest_requests(open_only).limit(limit)
            request_rows = all_rows(db, query, RequestRow)
            return tuple(_request_from_row(row) for row in reversed(request_rows))

    def is_withdrawal(self, request_number: int) -> bool:
        """Return whether a request is a withdrawal; False if it does not exist."""
        with self.db.read("read the requests") as db:
            kind = db.scalar(select(RequestRow.kind).where(RequestRow.seq == request_number))
            return bool(kind == RequestKind.WITHDRAW.value)

    def is_released(self, request_number: int) -> bool:
        """Return whether a request was released; False if it does not exist."""
        with self.db.read("read the requests") as db:
            state = db.scalar(select(RequestRow.state).where(RequestRow.seq == request_number))
            return bool(state == RequestState.RELEASED.value)

    def released_by_adoption(self) -> frozenset[int]:
        """Return the numbers of the withdrawals that were released when a nonce was adopted: a
        transaction that the store does not know may have paid them.
        """
        with self.db.read("read the requests") as db:
            return frozenset(
                int(key.removeprefix(ADOPTION_RELEASE_PREFIX))
                for key, _ in facts_with_prefix(db, ADOPTION_RELEASE_PREFIX)
            )

    def redirect(self, request_number: int, payout_address: str | None) -> None:
        """Set or clear the payout address of a request, unless it has ended in the meantime.
        Raises ConfigError if it does not exist.
        """
        self._change_terms("write where a request pays", request_number, to=payout_address)

    def record_progress(self, request_number: int, progress: WithdrawalProgress | None) -> None:
        """Record the progress of a withdrawal in parts, unless it has ended in the meantime. Raises
        ConfigError if it does not exist.
        """
        self._change_terms("write a part of a withdrawal", request_number, progress=progress)

    def _change_terms(self, what: str, request_number: int, **terms: Any) -> None:
        with self.db.write(what) as db:
            request = _request_from_row(_request_row(db, request_number))
            takes_terms = request.kind is RequestKind.WITHDRAW or "progress" not in terms
            if takes_terms and request.state is RequestState.OPEN:
                _write_terms(db, replace(request, **terms))

    def end(self, request_number: int, state: RequestState, now_s: int) -> bool:
        """End an open request: DONE, or RELEASED; a stop that is done may still be released. Return
        False, and change nothing, if it ended before. Raises ConfigError if it does not exist.
        """
        with self.db.write("write the end of a request") as db:
            request = _request_from_row(_request_row(db, request_number))
            is_resumed_stop = (
                request.kind is RequestKind.STOP
                and request.state is RequestState.DONE
                and state is RequestState.RELEASED
            )
            may_end = request.state is RequestState.OPEN or is_resumed_stop
            if may_end:
                _end_request(db, request_number, state, now_s)
            return may_end

    def end_paid_withdrawals(self, now_s: int) -> None:
        """End the open withdrawals whose payments are all final, in one transaction."""
        with self.db.read("read the requests") as db:
            if not _paid_withdrawals(db):
                return
        with self.db.write("write the end of a request") as db:
            for request in _paid_withdrawals(db):
                _end_request(db, request.id, RequestState.DONE, now_s)

    def active_stop(self) -> OwnerRequest | None:
        """Return the active stop: open, or done and not resumed."""
        with self.db.read("read the requests") as db:
            return active_stop(db)

    def require_not_stopped(self) -> None:
        """Raise Refused while the bot is stopped or stopping."""
        if (request := self.active_stop()) is not None:
            verdict = Verdict(
                "stopped", f"by its owner, at {request.asked_s} of chain time", "running", False
            )
            raise Refused(
                "the bot was stopped by its owner", (verdict,), "trimtab resume restarts it"
            )

    def payouts(self, request_number: int | None = None) -> tuple[tuple[Intent, Payout], ...]:
        """Return every payout recorded for a request, or for all, oldest first, failed ones included."""
        with self.db.read("read the payouts") as db:
            return tuple(
                (intent, payout)
                for intent, payout in _payouts(db)
                if request_number in (None, payout.request_id)
            )

    def unsent_payments(self, request_number: int) -> tuple[Payment, ...]:
        """Return the payments of an open withdrawal that no transaction has made or may make; of
        any other request none. Raises ConfigError if it does not exist.
        """
        with self.db.read("read the payouts") as db:
            row = _request_row(db, request_number)
            if row.state != RequestState.OPEN.value:
                return ()
            return tuple(
                pending_payment.payment
                for pending_payment in unpaid_payments(db, [row])
                if pending_payment.open_nonce is None
            )

    def confirm_payout_address(self, address: str, now_s: int) -> None:
        """Record the owner's confirmation of a payout address; the config has to name it too."""
        with self.db.write("write a payout address") as db:
            upsert_rows(db, PayoutAddressRow, [{"address": address, "confirmed_s": now_s}])

    def payout_addresses(self) -> tuple[str, ...]:
        """Return the addresses that the owner has confirmed."""
        with self.db.read("read the payout addresses") as db:
            query = select(PayoutAddressRow.address).order_by(PayoutAddressRow.address)
            return tuple(column_values(db, query))


def unpaid_payments(
    db: Connection, request_rows: Iterable[RequestRow]
) -> tuple[PendingPayment, ...]:
    """Return the payments of open withdrawals in `request_rows` that are in no block."""
    requested_payments = [
        (request, payment)
        for request in map(_request_from_row, request_rows)
        if request.kind is RequestKind.WITHDRAW
        for payment in request.payments
    ]
    if not requested_payments:
        return ()
    successful_payouts = set()
    nonce_by_payout = {}
    for intent, payout in _payouts(db):
        terms = (payout.request_id, payout.token, payout.raw)
        if intent.succeeded:
            successful_payouts.add(terms)
        elif intent.state in OPEN_STATES - NONCE_USED_STATES:
            nonce_by_payout[terms] = intent.tx.nonce
    pending_payments = []
    for request, payment in requested_payments:
        terms = (request.id, *_token_and_amount(payment))
        if terms not in successful_payouts:
            open_nonce = nonce_by_payout.get(terms)
            pending_payments.append(
                PendingPayment(request.id, payment, request.progress, open_nonce)
            )
    return tuple(pending_payments)


def release_withdrawals(db: Connection, now_s: int) -> None:
    """Release open withdrawals, because an unknown transaction of the wallet may have paid them."""
    for row in all_rows(db, _select_open_withdrawals(), RequestRow):
        _end_request(db, row.seq, RequestState.RELEASED, now_s)
        write_facts(db, {f"{ADOPTION_RELEASE_PREFIX}{row.seq}": now_s})


def active_stop(db: Connection) -> OwnerRequest | None:
    """Return the active stop; None without one."""
    row = first_row(db, _select_newest_stop(), RequestRow)
    return (
        None if row is None or row.state == RequestState.RELEASED.value else _request_from_row(row)
    )


def withdrawals_and_stop(db: Connection) -> Sequence[RequestRow]:
    """Return the open withdrawals and the newest stop, oldest first."""
    return all_rows(db, _select_pending_requests(), RequestRow)


def stop_reason(request_rows: Iterable[RequestRow]) -> str:
    """Return the reason why trading is stopped; empty if the newest stop in `request_rows` is
    released, or without one.
    """
    stop_states = [row.state for row in request_rows if row.kind == RequestKind.STOP.value]
    if not stop_states or stop_states[-1] == RequestState.RELEASED.value:
        return ""
    if stop_states[-1] == RequestState.DONE.value:
        return "the bot was stopped by its owner (trimtab resume restarts it)"
    return (
        "the bot is being stopped by its owner: trimtab stop --send continues, trimtab resume"
        " restarts trading"
    )


def _paid_withdrawals(db: Connection) -> list[OwnerRequest]:
    """Return the open withdrawals whose payments are all final."""
    withdrawal_rows = all_rows(db, _select_open_withdrawals(), RequestRow)
    if not withdrawal_rows:
        return []
    final_payouts = {
        (payout.request_id, payout.token, payout.raw)
        for intent, payout in _payouts(db)
        if intent.succeeded and intent.state is IntentState.FINAL
    }
    return [
        request
        for request in map(_request_from_row, withdrawal_rows)
        if all(
            (request.id, *_token_and_amount(payment)) in final_payouts
            for payment in request.payments
        )
    ]


def _token_and_amount(payment: Payment) -> tuple[str, int]:
    return (NATIVE if payment.native else payment.token), payment.raw


def _payouts(db: Connection) -> list[tuple[Intent, Payout]]:
    payouts = []
    for row in all_rows(
        db,
        select(IntentRow).where(IntentRow.kind == IntentKind.PAYOUT.value).order_by(IntentRow.seq),
        IntentRow,
    ):
        payout = decode_json(Grant, decompress_text(row.grant_z)).payout
        if payout is not None:
            payouts.append((intent_from_row(row), payout))
    return payouts


def _request_from_row(row: RequestRow) -> OwnerRequest:
    request = decode_json(OwnerRequest, row.request_json)
    return replace(
        request,
        id=row.seq,
        kind=RequestKind(row.kind),
        state=RequestState(row.state),
        ended_s=row.ended_s,
    )


def _request_row(db: Connection, request_number: int) -> RequestRow:
    row = first_row(db, select(RequestRow).where(RequestRow.seq == request_number), RequestRow)
    if row is None:
        raise ConfigError(
            f"request {request_number} is not in the store",
            "see trimtab withdraw",
            code=ErrorCode.UNKNOWN,
        )
    return row


def _write_terms(db: Connection, request: OwnerRequest) -> None:
    db.execute(_update_request(), {"row_seq": request.id, "request_json": codec.dumps(request)})


def _end_request(db: Connection, request_number: int, state: RequestState, now_s: int) -> None:
    db.execute(
        _update_request(), {"row_seq": request_number, "state": state.value, "ended_s": now_s}
    )


@cache
def _update_request() -> Update:
    return update(RequestRow).where(RequestRow.seq == bindparam("row_seq"))


@cache
def _select_newest_stop() -> Select[Any]:
    query = select(RequestRow).where(RequestRow.kind == RequestKind.STOP.value)
    return query.order_by(RequestRow.seq.desc()).limit(1)


@cache
def _select_newest_requests(open_only: bool) -> Select[Any]:
    query = select(RequestRow).order_by(RequestRow.seq.desc())
    return query.where(RequestRow.state == RequestState.OPEN.value) if open_only else query


def _is_open_withdrawal() -> ColumnElement[bool]:
    return and_(
        RequestRow.kind == RequestKind.WITHDRAW.value, RequestRow.state == RequestState.OPEN.value
    )


@cache
def _select_open_withdrawals() -> Select[Any]:
    return select(RequestRow).where(_is_open_withdrawal()).order_by(RequestRow.seq)


@cache
def _select_pending_requests() -> Select[Any]:
    """Select open withdrawals and the newest stop, oldest first."""
    newest_stop = _select_newest_stop().with_only_columns(RequestRow.seq).scalar_subquery()
    condition = or_(_is_open_withdrawal(), RequestRow.seq == newest_stop)
    return select(RequestRow).where(condition).order_by(RequestRow.seq)
