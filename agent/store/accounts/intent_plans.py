"""The row of a stored intent, its grant and its plan."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Connection, Select, bindparam, select

from agent.model import Plan
from agent.ports import Grant
from agent.store.database.rows import decode_json, decompress_text
from agent.store.database.statements import first_row
from agent.store.tables import IntentRow, StepRow


def find_intent_row(db: Connection, intent_id: str) -> IntentRow | None:
    """Return the row of an intent; None if the id is unknown."""
    return first_row(db, _select_intent(), IntentRow, intent_id=intent_id)


def intent_row(db: Connection, intent_id: str) -> IntentRow:
    """Return the row of an intent. Raises KeyError if the id is unknown."""
    if (row := find_intent_row(db, intent_id)) is None:
        raise KeyError(intent_id)
    return row


def grant_of_intent(db: Connection, intent_id: str) -> Grant:
    """Return the grant of an intent. Raises KeyError if the id is unknown."""
    return decode_json(Grant, decompress_text(intent_row(db, intent_id).grant_z))


def plan_of_intent(db: Connection, intent_id: str) -> Plan | None:
    """Return the plan of an intent's grant, else of its step; None without either."""
    row = db.execute(_select_grant_and_plan(), {"intent_id": intent_id}).one_or_none()
    if row is None:
        return None
    plan = decode_json(Grant, decompress_text(row.grant_z)).plan
    if plan is None and row.plan_z is not None:
        plan = decode_json(Plan, decompress_text(row.plan_z))
    return plan


_select_intent = cache(lambda: select(IntentRow).where(IntentRow.id == bindparam("intent_id")))


@cache
def _select_grant_and_plan() -> Select[bytes, bytes | None]:
    """Select the grant of an intent, and the plan of its step."""
    return (
        select(IntentRow.grant_z, StepRow.plan_z)
        .join(StepRow, IntentRow.step_id == StepRow.id)
        .where(IntentRow.id == bindparam("intent_id"))
    )
