"""Streaks of failed transactions, and the stop that lasts until the owner resumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

from sqlalchemy import Connection, Select, bindparam, select

from agent.model import (
    ExitFailures,
    IntentKind,
    IntentState,
    Plan,
    Receipt,
    UnsignedTx,
)
from agent.policy import failures
from agent.ports import Grant
from agent.store import database
from agent.store.database import (
    all_rows,
)
from agent.store.records import (
    FUTURES_KINDS,
    UNTRIGGERED_SWAP,
    decode_json,
    decompress_text,
)
from agent.store.tables import (
    BudgetRow,
    IntentRow,
    StepRow,
)
from agent.store.transitions import CONSUMED

FETCH_SIZE = 20
"""Number of transactions read at once, newest first."""
RESUMED_AFTER = "resumed_after"
"""Key of the newest intent's number when the owner last resumed; failures up to it do not count."""
STOP = "failures_stop"
"""Key that is set while consecutive failures stop rebalances."""
_CONSUMED = tuple(state.value for state in CONSUMED)
_TRADES = (IntentKind.SWAP.value, IntentKind.LIQUIDITY.value, IntentKind.FUTURES.value)
"""Kinds of intents that trade."""
_EXIT_KINDS = (
    UNTRIGGERED_SWAP,
    IntentKind.LIQUIDITY.value,
    IntentKind.UNWRAP.value,
    *FUTURES_KINDS,
)
"""Budget kinds that exits may have."""


@dataclass(frozen=True, slots=True)
class FailureStreak:
    """Reverts of the wallet, and steps that approved or revoked, since the last success; `stops` is
    True if the limit was reached since the owner resumed.
    """

    reverts: int
    approvals: int
    stops: bool


def failure_streak(
    db: Connection, facts: Mapping[str, str], refusals: Mapping[str, int]
) -> FailureStreak:
    """Count the wallet's consecutive failures, with the facts STOP and RESUMED_AFTER. `refusals`
    has an intent's number by token; approvals of the token up to it do not count.
    """
    return FailureStreak(*_count(_since_success(db, facts, refusals)), bool(facts.get(STOP)))


def exit_failures(
    db: Connection,
    facts: Mapping[str, str],
    refusals: Mapping[str, int],
    recent: Sequence[BudgetRow],
    chain_now_s: int,
) -> tuple[ExitFailures, ...]:
    """Return the failures of each exit in the last 24 h of chain time, since it last succeeded or
    the owner resumed, newest first.

    `recent` are the budgets of that time. A revert without a budget counts as if it happened now.
    An intent's plan determines its exit (policy/failures.py); the success of another exit does not
    end a streak.
    """
    resumed = int(facts.get(RESUMED_AFTER) or 0)
    failed = _newest_reverts(db, resumed, recent, chain_now_s)
    approvals = [budget.intent_id for budget in recent if budget.kind == IntentKind.APPROVE.value]
    if not failed and len(approvals) < failures.MAX_APPROVALS_IN_ROW:
        return ()
    done = [row.intent_id for row in recent if row.succeeded and row.kind in _EXIT_KINDS]
    at_s = {budget.intent_id: budget.chain_s for budget in recent} | failed
    streaks: dict[str, _ExitStreak] = {}
    for row in _intents(db, {*failed, *approvals, *done}, resumed):
        plan = plan_of_intent(db, row.id)
        if plan is None or not (name := failures.exit_name(plan)):
            continue
        streak = streaks.setdefault(name, _ExitStreak())
        if row.kind == IntentKind.APPROVE.value:
            token = decode_json(UnsignedTx, row.tx_json).to
            if token in name.split() and row.seq > refusals.get(token, 0):
                streak.add(row, at_s[row.id])
        elif _reverted(row):
            streak.add(row, at_s[row.id])
        else:
            streak.ended = True
    return tuple(
        ExitFailures(name, streak.reverts, len(streak.approving), streak.newest_s)
        for name, streak in streaks.items()
        if streak.newest_s
    )


@dataclass(slots=True)
class _ExitStreak:
    """Failures of one exit, counted from the newest intent back to its last success."""

    reverts: int = 0
    approving: set[str] = field(default_factory=set)
    newest_s: int = 0
    ended: bool = False

    def add(self, row: IntentRow, at_s: int) -> None:
        """Count an intent that is older than those counted before."""
        if self.ended:
            return
        self.reverts += _reverted(row)
        if row.kind == IntentKind.APPROVE.value:
            self.approving.add(row.step_id)
        self.newest_s = self.newest_s or at_s


def _newest_reverts(
    db: Connection, resumed: int, recent: Sequence[BudgetRow], chain_now_s: int
) -> dict[str, int]:
    """Return the chain time by intent of each revert that is in the budgets `recent`, or in
    none.
    """
    booked_s = {budget.intent_id: budget.chain_s for budget in recent}
    reverts: dict[str, int] = {}
    newest_first = db.execute(_maybe_reverted(), {"resumed": resumed}).yield_per(FETCH_SIZE)
    for row in cast("Iterable[IntentRow]", newest_first):
        if row.id not in booked_s and db.scalar(booked_loss(), {"of": row.id}) is not None:
            break  # its budget is too old
        if _reverted(row):
            reverts[row.id] = booked_s.get(row.id, chain_now_s)
    newest_first.close()
    return reverts


def _intents(db: Connection, ids: set[str], resumed: int) -> list[IntentRow]:
    """Return these intents since the owner resumed, newest first."""
    rows = all_rows(db, select(IntentRow).where(IntentRow.id.in_(ids)), IntentRow)
    return sorted((row for row in rows if row.seq > resumed), key=lambda row: -row.seq)


def record_failure_stop(db: Connection, refusals: Mapping[str, int]) -> None:
    """Record the stop of rebalances if the failure limit was reached. Exits continue, and their
    success does not lift the stop.
    """
    streak = _since_success(db, database.read_facts(db, RESUMED_AFTER), refusals)
    if failures.too_many(*_count(streak)):
        database.write_facts(db, {STOP: 1})


def _count(rows: list[IntentRow]) -> tuple[int, int]:
    """Return the number of reverts, and of steps that approved or revoked."""
    approving = {row.step_id for row in rows if row.kind == IntentKind.APPROVE.value}
    return sum(map(_reverted, rows)), len(approving)


def _since_success(
    db: Connection, facts: Mapping[str, str], refusals: Mapping[str, int]
) -> list[IntentRow]:
    """Return the intents mined since the last successful swap or liquidity action and since the owner
    resumed, newest first.

    Only such a success ends a streak. Cancels do not count. Successful approvals count, since each
    new attempt may need one, but not those for exits refused before sending: agent/policy/orders/blocked_exits.py
    bounds their attempts, and an exit that never succeeds must not stop the others.
    """
    streak: list[IntentRow] = []
    # Streaks are short and the table is long, so rows are fetched in small batches.
    newest_first = db.execute(
        _newest_first(), {"resumed": int(facts.get(RESUMED_AFTER) or 0)}
    ).yield_per(FETCH_SIZE)
    for row in cast("Iterable[IntentRow]", newest_first):
        if row.state not in _CONSUMED or row.kind == IntentKind.CANCEL.value:
            continue
        if row.kind in _TRADES and not _reverted(row):
            break
        if (
            not refusals
            or row.kind != IntentKind.APPROVE.value
            or row.seq > refusals.get(decode_json(UnsignedTx, row.tx_json).to, 0)
        ):
            streak.append(row)
    newest_first.close()
    return streak


def _reverted(row: IntentRow) -> bool:
    return row.receipt_json is not None and decode_json(Receipt, row.receipt_json).status != 1


_maybe_reverted = cache(
    lambda: (
        select(IntentRow)
        .where(IntentRow.state.in_((IntentState.REVERTED.value, IntentState.MINED.value)))
        .where(IntentRow.seq > bindparam("resumed"))
        .order_by(IntentRow.seq.desc())
    )
)
_newest_first = cache(
    lambda: (
        select(IntentRow).where(IntentRow.seq > bindparam("resumed")).order_by(IntentRow.seq.desc())
    )
)


def grant_of_intent(db: Connection, intent_id: str) -> Grant:
    """Return the grant of an intent."""
    row = db.execute(_plans(), {"of": intent_id}).one()
    return decode_json(Grant, decompress_text(row.grant_z))


def plan_of_intent(db: Connection, intent_id: str) -> Plan | None:
    """Return the plan of an intent's grant, else of its step; None without either."""
    row = db.execute(_plans(), {"of": intent_id}).one_or_none()
    if row is None:
        return None
    plan = decode_json(Grant, decompress_text(row.grant_z)).plan
    if plan is None and row.plan_z is not None:
        plan = decode_json(Plan, decompress_text(row.plan_z))
    return plan


booked_loss = cache(lambda: select(BudgetRow.loss).where(BudgetRow.intent_id == bindparam("of")))


@cache
def _plans() -> Select[bytes, bytes | None]:
    """Select the grant of an intent, and the plan of its step."""
    return (
        select(IntentRow.grant_z, StepRow.plan_z)
        .join(StepRow, IntentRow.step_id == StepRow.id)
        .where(IntentRow.id == bindparam("of"))
    )
