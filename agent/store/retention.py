"""How long looks are kept: what led to a transaction for ever, of all others the newest."""

from __future__ import annotations

from sqlalchemy import Connection, delete, exists, func, select

from agent.store.tables import IntentRow, Step

MOST_AT_ONCE = 500
"""Rows that one call removes at most, so that no look waits long for an old store."""


def prune(db: Connection, keep: int) -> int:
    """Removes looks without a transaction beyond the newest `keep` of all; returns how many.

    The very first one stays: schedules count from it.
    """
    newest, first = db.execute(select(func.max(Step.seq), func.min(Step.seq))).one()
    if newest is None or newest - keep <= first:
        return 0
    idle = ~exists().where(IntentRow.step_id == Step.id)
    old = select(Step.seq).where(Step.seq > first, Step.seq <= newest - keep, idle).order_by(Step.seq).limit(MOST_AT_ONCE)
    found = db.scalars(old).all()
    if found:
        db.execute(delete(Step).where(Step.seq.in_(found)))
    return len(found)
