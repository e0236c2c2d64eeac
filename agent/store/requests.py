"""Stored requests of the owner (withdrawals, stop) with their payments, and confirmed payout
addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select, update

from agent import codec
from agent.errors import ConfigError, ErrorCode
from agent.model import (
    Intent,
    IntentKind,
    OwnerRequest,
    Payment,
    Payout,
    PendingPayment,
    RequestKind,
    RequestState,
    WithdrawalProgress,
)
from agent.ports import Grant
from agent.store import records
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    first_row,
    insert_returning_id,
    upsert_rows,
)
from agent.store.tables import IntentRow, PayoutAddressRow, RequestRow
from agent.units import NATIVE


@dataclass(frozen=True, slots=True)
class RequestStore:
    """Requests and payout addresses; each method is a transaction of its own."""

    db: Database

    def ask(
        self,
        kind: RequestKind,
        payments: Sequence[Payment],
        to: str | None,
        to_stable: bool,
        asked_s: int,
    ) -> OwnerRequest:
        """Record a request, OPEN. Raises ConfigError for a second stop while one is open."""
        request = OwnerRequest(0, kind, tuple(payments), to, to_stable, RequestState.OPEN, asked_s)
        with self.db.write("write a request") as db:
            before = active_stop(db) if kind is RequestKind.STOP else None
            if before is not None and before.state is RequestState.OPEN:
                raise ConfigError(
                    "a shutdown is already in progress",
                    "trimtab stop continues it, trimtab resume cancels it",
                )
            text = codec.dumps(request)
            number = insert_returning_id(
                db,
                RequestRow,
                kind=kind.value,
                state=request.state.value,
                request_json=text,
                asked_s=asked_s,
            )
            return replace(request, id=number)

    def newest(self, limit: int = 100, open_only: bool = False) -> tuple[OwnerRequest, ...]:
        """Return the newest requests, oldest first."""
        with self.db.read("read the requests") as db:
            rows = all_rows(db, _newest(open_only), RequestRow, limit=limit)
            return tuple(_request(row) for row in reversed(rows))

    def redirect(self, number: int, to: str | None) -> None:
        """Set or clear the payout address of a withdrawal. Raises ConfigError if it does
        not exist.
        """
        with self.db.write("write where a withdrawal goes") as db:
            request = replace(_request(_row(db, number)), to=to)
            db.execute(_change(), {"of": number, "request_json": codec.dumps(request)})

    def record_parts(self, number: int, parts: WithdrawalProgress | None) -> None:
        """Record the progress of a withdrawal in parts. Raises ConfigError if it does not exist."""
        with self.db.write("write a part of a withdrawal") as db:
            request = replace(_request(_row(db, number)), parts=parts)
            db.execute(_change(), {"of": number, "request_json": codec.dumps(request)})

    def end(self, number: int, state: RequestState, now_s: int) -> None:
        """End a request: DONE, or RELEASED. Raises ConfigError if it does not exist."""
        with self.db.write("write the end of a request") as db:
            _row(db, number)
            db.execute(_change(), {"of": number, "state": state.value, "ended_s": now_s})

    def stopping(self) -> OwnerRequest | None:
        """Return the active stop: open, or done and not resumed."""
        with self.db.read("read the requests") as db:
            return active_stop(db)

    def paid(self, number: int) -> tuple[tuple[Intent, Payout], ...]:
        """Return every payout recorded for a request, oldest first, failed ones included."""
        with self.db.read("read the payouts") as db:
            return tuple(
                (intent, payout) for intent, payout in _payouts(db) if payout.request == number
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


def open_claims(db: Connection) -> tuple[PendingPayment, ...]:
    """Return the payments of open withdrawals that are in no block, oldest first."""
    rows = all_rows(db, _withdrawals(), RequestRow)
    claims = [
        PendingPayment(request.id, payment, request.parts)
        for request in map(_request, rows)
        for payment in request.payments
    ]
    if not claims:
        return ()
    paid = {
        (payout.request, payout.token, payout.raw)
        for intent, payout in _payouts(db)
        if intent.succeeded
    }
    return tuple(claim for claim in claims if (claim.request, *_amount(claim.payment)) not in paid)


def release_withdrawals(db: Connection, now_s: int) -> None:
    """Release open withdrawals, because an unknown transaction of the wallet may have paid them."""
    released = {"state": RequestState.RELEASED.value, "ended_s": now_s}
    for row in all_rows(db, _withdrawals(), RequestRow):
        db.execute(_change(), {"of": row.seq, **released})


def active_stop(db: Connection) -> OwnerRequest | None:
    """Return the active stop; None without one."""
    row = first_row(db, _stops(), RequestRow)
    return None if row is None or row.state == RequestState.RELEASED.value else _request(row)


def stop_reason(db: Connection) -> str:
    """Return the reason why trading is stopped; empty if it is not."""
    stop = active_stop(db)
    if stop is None:
        return ""
    if stop.state is RequestState.DONE:
        return "the bot was stopped by its owner (trimtab resume restarts it)"
    return (
        "the bot is being stopped by its owner: trimtab stop continues, trimtab resume restarts"
        " trading"
    )


def _amount(payment: Payment) -> tuple[str, int]:
    return (NATIVE if payment.native else payment.token), payment.raw


def _payouts(db: Connection) -> list[tuple[Intent, Payout]]:
    payouts = []
    for row in all_rows(db, _sent(), IntentRow):
        payout = records.decode_json(Grant, records.decompress_text(row.grant_z)).payout
        if payout is not None:
            payouts.append((records.intent_from_row(row), payout))
    return payouts


def _request(row: RequestRow) -> OwnerRequest:
    request = records.decode_json(OwnerRequest, row.request_json)
    return replace(request, id=row.seq, kind=RequestKind(row.kind), state=RequestState(row.state))


def _row(db: Connection, number: int) -> RequestRow:
    row = first_row(db, _by_number(), RequestRow, of=number)
    if row is None:
        raise ConfigError(
            f"request {number} is not in the store", "see trimtab withdraw", code=ErrorCode.UNKNOWN
        )
    return row


_by_number = cache(lambda: select(RequestRow).where(RequestRow.seq == bindparam("of")))
_change = cache(lambda: update(RequestRow).where(RequestRow.seq == bindparam("of")))
_stops = cache(
    lambda: (
        select(RequestRow)
        .where(RequestRow.kind == RequestKind.STOP.value)
        .order_by(RequestRow.seq.desc())
        .limit(1)
    )
)
_sent = cache(
    lambda: (
        select(IntentRow).where(IntentRow.kind == IntentKind.PAYOUT.value).order_by(IntentRow.seq)
    )
)


@cache
def _newest(open_only: bool) -> Select[Any]:
    query = select(RequestRow).order_by(RequestRow.seq.desc()).limit(bindparam("limit"))
    return query.where(RequestRow.state == RequestState.OPEN.value) if open_only else query


@cache
def _withdrawals() -> Select[Any]:
    """Select open withdrawals, oldest first."""
    opened = (
        RequestRow.kind == RequestKind.WITHDRAW.value,
        RequestRow.state == RequestState.OPEN.value,
    )
    return select(RequestRow).where(*opened).order_by(RequestRow.seq)
