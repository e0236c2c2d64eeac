"""Streaks of failed transactions, which stop rebalances until the owner acts; the owner's requests
(withdrawals, stop) with their payments; and confirmed payout addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    or_,
    select,
    update,
)

from agent import codec
from agent.errors import ConfigError, ErrorCode
from agent.layers import stores
from agent.model import (
    ExitFailures,
    Intent,
    IntentKind,
    IntentState,
    OwnerRequest,
    Payment,
    Payout,
    PendingPayment,
    Plan,
    Receipt,
    RequestKind,
    RequestState,
    UnsignedTx,
    WithdrawalProgress,
)
from agent.policy import failures
from agent.ports import Grant
from agent.store import database
from agent.store.database import (
    UNTRIGGERED_SWAP,
    Database,
    all_rows,
    column_values,
    decode_json,
    decompress_text,
    first_row,
    insert_returning_id,
    upsert_rows,
)
from agent.store.tables import BudgetUseRow, IntentRow, PayoutAddressRow, RequestRow, StepRow
from agent.store.transitions import NONCE_USED_STATE_NAMES
from agent.units import NATIVE

FETCH_SIZE = 20
"""Number of transactions read at once, newest first."""
RESUMED_SEQ_KEY = "resumed_after"
"""Key of the newest intent's number when the owner last resumed; failures up to it do not count."""
FAILURE_STOP_KEY = "failures_stop"
"""Key that is set while consecutive failures stop rebalances."""
_TRADE_KINDS = (IntentKind.SWAP.value, IntentKind.LIQUIDITY.value, IntentKind.FUTURES.value)
"""Kinds of intents that trade."""
_EXIT_KINDS = (
    UNTRIGGERED_SWAP,
    IntentKind.LIQUIDITY.value,
    IntentKind.UNWRAP.value,
    *stores.BUDGET_KINDS,
)
"""Budget kinds that exits may have."""


@dataclass(frozen=True, slots=True)
class FailureStreak:
    """Reverts of the wallet, and cycles that approved or revoked, since the last success;
    `is_stopped` is True if the limit was reached since the owner resumed.
    """

    reverts: int
    approving_cycle_count: int
    is_stopped: bool


def failure_streak(
    db: Connection, facts: Mapping[str, str], refusal_seq_by_token: Mapping[str, int]
) -> FailureStreak:
    """Count the wallet's consecutive failures, with the facts of FAILURE_STOP_KEY and RESUMED_SEQ_KEY.
    `refusal_seq_by_token` has an intent's number by token; approvals of the token up to it do not
    count.
    """
    intent_rows = _rows_since_success(db, facts, refusal_seq_by_token)
    return FailureStreak(*_count_failures(db, intent_rows), bool(facts.get(FAILURE_STOP_KEY)))


def exit_failures(
    db: Connection,
    facts: Mapping[str, str],
    refusal_seq_by_token: Mapping[str, int],
    recent_budget_uses: Sequence[BudgetUseRow],
    chain_now_s: int,
) -> tuple[ExitFailures, ...]:
    """Return the failures of each exit in the last 24 h of chain time, since it last succeeded or
    the owner resumed, newest first.

    `recent_budget_uses` are the rows of the table of budgets (what each intent used of the limits)
    of that time. A revert without such a row counts as if it happened now. An intent's plan
    determines its exit (policy/failures.py); the success of another exit does not end a streak.
    """
    resumed_after_seq = int(facts.get(RESUMED_SEQ_KEY) or 0)
    revert_s_by_intent = _recent_revert_times(
        db, resumed_after_seq, recent_budget_uses, chain_now_s
    )
    approval_ids = [
        budget_use.intent_id
        for budget_use in recent_budget_uses
        if budget_use.kind == IntentKind.APPROVE.value
    ]
    if not revert_s_by_intent and len(approval_ids) < failures.MAX_APPROVALS_IN_ROW:
        return ()
    successful_ids = [
        exit_budget_use.intent_id
        for exit_budget_use in recent_budget_uses
        if exit_budget_use.succeeded and exit_budget_use.kind in _EXIT_KINDS
    ]
    chain_s_by_intent = {
        budget_use.intent_id: budget_use.chain_s for budget_use in recent_budget_uses
    } | revert_s_by_intent
    streak_by_exit: dict[str, _ExitStreak] = {}
    conditions = (
        IntentRow.id.in_({*revert_s_by_intent, *approval_ids, *successful_ids}),
        IntentRow.seq > resumed_after_seq,
    )
    intents_query = select(IntentRow).where(*conditions).order_by(IntentRow.seq.desc())
    intent_rows = all_rows(db, intents_query, IntentRow)
    cycle_by_step = _cycles_of_approvals(db, intent_rows)
    for row in intent_rows:
        plan = plan_of_intent(db, row.id)
        if plan is None or not (exit_name := failures.exit_name(plan)):
            continue
        if (layer := stores.layer_of_kind(IntentKind(row.kind))) is not None:
            # several orders of a plan may be sent together, each an exit of its own
            exit_name = layer.exit_name(grant_of_intent(db, row.id)) or exit_name
        streak = streak_by_exit.setdefault(exit_name, _ExitStreak())
        if row.kind == IntentKind.APPROVE.value:
            token = decode_json(UnsignedTx, row.tx_json).to
            if token in exit_name.split() and row.seq > refusal_seq_by_token.get(token, 0):
                streak.add(row, chain_s_by_intent[row.id], cycle_by_step[row.step_id])
        elif _is_reverted(row):
            streak.add(row, chain_s_by_intent[row.id])
        else:
            streak.is_ended = True
    return tuple(
        ExitFailures(
            exit_name,
            streak.reverts,
            len(streak.approving_cycles),
            streak.newest_s,
            streak.free_reverts,
        )
        for exit_name, streak in streak_by_exit.items()
        if streak.newest_s
    )


@dataclass(slots=True)
class _ExitStreak:
    """Failures of one exit, counted from the newest intent back to its last success."""

    reverts: int = 0
    free_reverts: int = 0
    """Those of them that cost no gas."""
    approving_cycles: set[str] = field(default_factory=set)
    newest_s: int = 0
    is_ended: bool = False

    def add(self, row: IntentRow, at_s: int, approving_cycle: str = "") -> None:
        """Count an intent that is older than those counted before; `approving_cycle` is the cycle
        of an approval.
        """
        if self.is_ended:
            return
        self.reverts += _is_reverted(row)
        self.free_reverts += _is_reverted(row) and _is_free(row)
        if approving_cycle:
            self.approving_cycles.add(approving_cycle)
        self.newest_s = self.newest_s or at_s


def _recent_revert_times(
    db: Connection,
    resumed_after_seq: int,
    recent_budget_uses: Sequence[BudgetUseRow],
    chain_now_s: int,
) -> dict[str, int]:
    """Return the chain time by intent of each revert that is in `recent_budget_uses`, or in
    none.
    """
    booked_s_by_intent = {
        budget_use.intent_id: budget_use.chain_s for budget_use in recent_budget_uses
    }
    revert_s_by_intent: dict[str, int] = {}
    newest_intents = db.execute(_select_maybe_reverted(), {"resumed": resumed_after_seq}).yield_per(
        FETCH_SIZE
    )
    for row in cast("Iterable[IntentRow]", newest_intents):
        if (
            row.id not in booked_s_by_intent
            and db.scalar(select_booked_loss(), {"intent_id": row.id}) is not None
        ):
            break  # its budget is too old
        if _is_reverted(row):
            revert_s_by_intent[row.id] = booked_s_by_intent.get(row.id, chain_now_s)
    newest_intents.close()
    return revert_s_by_intent


def record_failure_stop(db: Connection, refusal_seq_by_token: Mapping[str, int]) -> None:
    """Record the stop of rebalances if the failure limit was reached. Exits continue, and their
    success does not lift the stop.
    """
    intent_rows = _rows_since_success(
        db, database.read_facts(db, RESUMED_SEQ_KEY), refusal_seq_by_token
    )
    if failures.too_many_failures(*_count_failures(db, intent_rows)):
        database.write_facts(db, {FAILURE_STOP_KEY: 1})


def _count_failures(db: Connection, intent_rows: list[IntentRow]) -> tuple[int, int]:
    """Return the number of reverts, and of cycles that approved or revoked."""
    return sum(map(_is_reverted, intent_rows)), len(
        {*_cycles_of_approvals(db, intent_rows).values()}
    )


def _cycles_of_approvals(db: Connection, intent_rows: Iterable[IntentRow]) -> dict[str, str]:
    """Return the cycle of each step that approved or revoked; a step without a cycle stands for
    itself.
    """
    step_ids = {row.step_id for row in intent_rows if row.kind == IntentKind.APPROVE.value}
    if not step_ids:
        return {}
    step_rows = db.execute(select(StepRow.id, StepRow.cycle_id).where(StepRow.id.in_(step_ids)))
    return {row.id: row.cycle_id or row.id for row in step_rows}


def _rows_since_success(
    db: Connection, facts: Mapping[str, str], refusal_seq_by_token: Mapping[str, int]
) -> list[IntentRow]:
    """Return the intents mined since the last successful swap, liquidity action or futures action
    and since the owner resumed, newest first.

    Only such a success ends a streak. Cancels do not count, nor do changes of resting stops, which
    trade nothing and cost no gas. Successful approvals count, since each
    new attempt may need one, but not those for exits refused before sending: their attempts are
    bounded in agent/policy/orders/blocked_exits.py, and an exit that never succeeds must not stop
    the others.
    """
    intent_rows: list[IntentRow] = []
    # Streaks are short and the table is long, so rows are fetched in small batches.
    newest_intents = db.execute(
        _select_since_resumed(), {"resumed": int(facts.get(RESUMED_SEQ_KEY) or 0)}
    ).yield_per(FETCH_SIZE)
    for row in cast("Iterable[IntentRow]", newest_intents):
        if (
            row.state not in NONCE_USED_STATE_NAMES
            or row.kind == IntentKind.CANCEL.value
            or any(layer.is_resting(row) for layer in stores.LAYERS)
        ):
            continue
        if row.kind in _TRADE_KINDS and not _is_reverted(row):
            break
        if (
            not refusal_seq_by_token
            or row.kind != IntentKind.APPROVE.value
            or row.seq > refusal_seq_by_token.get(decode_json(UnsignedTx, row.tx_json).to, 0)
        ):
            intent_rows.append(row)
    newest_intents.close()
    return intent_rows


def _is_reverted(row: IntentRow) -> bool:
    return row.receipt_json is not None and decode_json(Receipt, row.receipt_json).status != 1


def _is_free(row: IntentRow) -> bool:
    """True for an intent whose receipt names no cost of gas, such as an order at a venue."""
    return row.receipt_json is not None and not decode_json(Receipt, row.receipt_json).gas_cost_wei


_select_maybe_reverted = cache(
    lambda: (
        select(IntentRow)
        .where(IntentRow.state.in_((IntentState.REVERTED.value, IntentState.MINED.value)))
        .where(IntentRow.seq > bindparam("resumed"))
        .order_by(IntentRow.seq.desc())
    )
)
_select_since_resumed = cache(
    lambda: (
        select(IntentRow).where(IntentRow.seq > bindparam("resumed")).order_by(IntentRow.seq.desc())
    )
)


def grant_of_intent(db: Connection, intent_id: str) -> Grant:
    """Return the grant of an intent."""
    row = db.execute(_select_grant_and_plan(), {"intent_id": intent_id}).one()
    return decode_json(Grant, decompress_text(row.grant_z))


def plan_of_intent(db: Connection, intent_id: str) -> Plan | None:
    """Return the plan of an intent's grant, else of its step; None without either."""
    row = db.execute(_select_grant_and_plan(), {"intent_id": intent_id}).one_or_none()
    if row is None:
        return None
    plan = decode_json(Grant, decompress_text(row.grant_z)).plan
    if plan is None and row.plan_z is not None:
        plan = decode_json(Plan, decompress_text(row.plan_z))
    return plan


select_booked_loss = cache(
    lambda: select(BudgetUseRow.loss).where(BudgetUseRow.intent_id == bindparam("intent_id"))
)


@cache
def _select_grant_and_plan() -> Select[bytes, bytes | None]:
    """Select the grant of an intent, and the plan of its step."""
    return (
        select(IntentRow.grant_z, StepRow.plan_z)
        .join(StepRow, IntentRow.step_id == StepRow.id)
        .where(IntentRow.id == bindparam("intent_id"))
    )


@dataclass(frozen=True, slots=True)
class RequestStore:
    """Requests and payout addresses; each method is a transaction of its own."""

    db: Database

    def record(
        self,
        kind: RequestKind,
        payments: Sequence[Payment],
        payout_address: str | None,
        sells_to_stable: bool,
        asked_s: int,
        control_id: str = "",
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
        )
        with self.db.write("write a request") as db:
            open_stop = active_stop(db) if kind is RequestKind.STOP else None
            if open_stop is not None and open_stop.state is RequestState.OPEN:
                raise ConfigError(
                    "a shutdown is already in progress",
                    "trimtab stop continues it, trimtab resume cancels it",
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

    def newest(self, limit: int = 100, open_only: bool = False) -> tuple[OwnerRequest, ...]:
        """Return the newest requests, oldest first."""
        with self.db.read("read the requests") as db:
            request_rows = all_rows(db, _select_newest_requests(open_only), RequestRow, limit=limit)
            return tuple(_request_from_row(row) for row in reversed(request_rows))

    def is_open(self, request_number: int) -> bool:
        """Return whether a request has not ended; False if it does not exist."""
        with self.db.read("read the requests") as db:
            state = db.scalar(select(RequestRow.state).where(RequestRow.seq == request_number))
            return bool(state == RequestState.OPEN.value)

    def redirect(self, request_number: int, payout_address: str | None) -> None:
        """Set or clear the payout address of a withdrawal. Raises ConfigError if it does
        not exist.
        """
        with self.db.write("write where a withdrawal goes") as db:
            request = replace(
                _request_from_row(_request_row(db, request_number)), to=payout_address
            )
            db.execute(
                _update_request(), {"row_seq": request_number, "request_json": codec.dumps(request)}
            )

    def record_progress(self, request_number: int, progress: WithdrawalProgress | None) -> None:
        """Record the progress of a withdrawal in parts. Raises ConfigError if it does not exist."""
        with self.db.write("write a part of a withdrawal") as db:
            request = replace(
                _request_from_row(_request_row(db, request_number)), progress=progress
            )
            db.execute(
                _update_request(), {"row_seq": request_number, "request_json": codec.dumps(request)}
            )

    def end(self, request_number: int, state: RequestState, now_s: int) -> None:
        """End a request: DONE, or RELEASED. Raises ConfigError if it does not exist."""
        with self.db.write("write the end of a request") as db:
            _request_row(db, request_number)
            db.execute(
                _update_request(),
                {"row_seq": request_number, "state": state.value, "ended_s": now_s},
            )

    def end_paid_withdrawals(self, now_s: int) -> None:
        """End the open withdrawals whose payments are all final."""
        with self.db.read("read the requests") as db:
            withdrawal_rows = all_rows(db, _select_open_withdrawals(), RequestRow)
            final_payouts = {
                (payout.request_id, payout.token, payout.raw)
                for intent, payout in (_payouts(db) if withdrawal_rows else ())
                if intent.succeeded and intent.state is IntentState.FINAL
            }
        for request in map(_request_from_row, withdrawal_rows):
            if all(
                (request.id, *_token_and_amount(payment)) in final_payouts
                for payment in request.payments
            ):
                self.end(request.id, RequestState.DONE, now_s)

    def active_stop(self) -> OwnerRequest | None:
        """Return the active stop: open, or done and not resumed."""
        with self.db.read("read the requests") as db:
            return active_stop(db)

    def payouts(self, request_number: int) -> tuple[tuple[Intent, Payout], ...]:
        """Return every payout recorded for a request, oldest first, failed ones included."""
        with self.db.read("read the payouts") as db:
            return tuple(
                (intent, payout)
                for intent, payout in _payouts(db)
                if payout.request_id == request_number
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
    pending_payments = [
        PendingPayment(request.id, payment, request.progress)
        for request in map(_request_from_row, request_rows)
        if request.kind is RequestKind.WITHDRAW
        for payment in request.payments
    ]
    if not pending_payments:
        return ()
    successful_payouts = {
        (payout.request_id, payout.token, payout.raw)
        for intent, payout in _payouts(db)
        if intent.succeeded
    }
    return tuple(
        pending_payment
        for pending_payment in pending_payments
        if (pending_payment.request_id, *_token_and_amount(pending_payment.payment))
        not in successful_payouts
    )


def release_withdrawals(db: Connection, now_s: int) -> None:
    """Release open withdrawals, because an unknown transaction of the wallet may have paid them."""
    release_bind_values = {"state": RequestState.RELEASED.value, "ended_s": now_s}
    for row in all_rows(db, _select_open_withdrawals(), RequestRow):
        db.execute(_update_request(), {"row_seq": row.seq, **release_bind_values})


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
        "the bot is being stopped by its owner: trimtab stop continues, trimtab resume restarts"
        " trading"
    )


def _token_and_amount(payment: Payment) -> tuple[str, int]:
    return (NATIVE if payment.native else payment.token), payment.raw


def _payouts(db: Connection) -> list[tuple[Intent, Payout]]:
    payouts = []
    for row in all_rows(
        db,
        select(IntentRow).where(IntentRow.kind == IntentKind.PAYOUT.value).order_by(IntentRow.seq),
        IntentRow,
    ):
        payout = database.decode_json(Grant, database.decompress_text(row.grant_z)).payout
        if payout is not None:
            payouts.append((database.intent_from_row(row), payout))
    return payouts


def _request_from_row(row: RequestRow) -> OwnerRequest:
    request = database.decode_json(OwnerRequest, row.request_json)
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


_update_request = cache(lambda: update(RequestRow).where(RequestRow.seq == bindparam("row_seq")))
_select_newest_stop = cache(
    lambda: (
        select(RequestRow)
        .where(RequestRow.kind == RequestKind.STOP.value)
        .order_by(RequestRow.seq.desc())
        .limit(1)
    )
)


@cache
def _select_newest_requests(open_only: bool) -> Select[Any]:
    query = select(RequestRow).order_by(RequestRow.seq.desc()).limit(bindparam("limit"))
    return query.where(RequestRow.state == RequestState.OPEN.value) if open_only else query


def _is_open_withdrawal() -> ColumnElement[bool]:
    return and_(
        RequestRow.kind == RequestKind.WITHDRAW.value, RequestRow.state == RequestState.OPEN.value
    )


_select_open_withdrawals = cache(
    lambda: select(RequestRow).where(_is_open_withdrawal()).order_by(RequestRow.seq)
)


@cache
def _select_pending_requests() -> Select[Any]:
    """Select open withdrawals and the newest stop, oldest first."""
    newest_stop = _select_newest_stop().with_only_columns(RequestRow.seq).scalar_subquery()
    condition = or_(_is_open_withdrawal(), RequestRow.seq == newest_stop)
    return select(RequestRow).where(condition).order_by(RequestRow.seq)
