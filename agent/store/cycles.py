"""Cycles that have acted or left something out: one row each, of which at most one is open."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sqlalchemy import bindparam, select, update

from agent import codec
from agent.errors import ConfigError, OperatorNeeded
from agent.foreign_text import read_json
from agent.model import Cycle, PlanRequest
from agent.store.database.connection import Database
from agent.store.database.statements import first_row, insert_rows
from agent.store.tables import CycleRow

OPEN = "open"
CLOSED = "closed"
UNREPORTED = "unreported"
"""State of a cycle that gave way to another request while its own transaction was sent."""
REPORTED_FIELDS = ("id", "request", "began_s", "restarts", "sending_step_id", "sent_kinds")
"""Fields of a cycle from which its transaction is reported, whatever its row has besides."""


@dataclass(frozen=True, slots=True)
class CycleStore:
    """The cycles of a wallet; each method is one transaction."""

    db: Database

    def find_open_cycle(self) -> Cycle | None:
        """Return the open cycle; None without one. If no other process runs, the one that began it
        has ended. Of a row that this version cannot read, only REPORTED_FIELDS are, if its
        transaction may be under way; any other is closed. Raises OperatorNeeded if these cannot be
        read either.
        """
        with self.db.read("read the open cycle") as db:
            row = first_row(db, _select_open(), CycleRow)
        return None if row is None else self._parse_or_close(row.id, row.cycle_json)

    def write(self, cycle: Cycle) -> None:
        """Record the open cycle; replace its row if it has one."""
        with self.db.write("write the cycle", keeps_cache=True) as db:
            row = {"id": cycle.id, "cycle_json": codec.dumps(cycle)}
            bind_values = {"cycle_id": cycle.id, "cycle_json": row["cycle_json"]}
            if not db.execute(_update_cycle(), bind_values).rowcount:
                insert_rows(db, CycleRow, [row | {"state": OPEN}])

    def close(self, reason: str) -> None:
        """Close the open cycle, if there is one, and record why."""
        self._end(CLOSED, reason)

    def give_way(self, reason: str) -> None:
        """End the open cycle, if there is one, before its command has reported it: as UNREPORTED, so
        that `reopen` opens it again for the same request, if it may have traded an amount, or is
        unreadable.
        """
        with self.db.read("read the open cycle") as db:
            row = first_row(db, _select_open(), CycleRow)
        if row is None:
            return
        try:
            is_unreported = codec.loads(Cycle, row.cycle_json).may_have_traded
        except ConfigError:
            is_unreported = True
        self._end(UNREPORTED if is_unreported else CLOSED, reason)

    def reopen(self, request: PlanRequest) -> Cycle | None:
        """Open the oldest unreported cycle of this request again; None without one. No cycle may be
        open. Unreadable rows are treated as by `find_open_cycle`.
        """
        with self.db.read("read the unreported cycles") as db:
            cycle_rows = db.execute(_select_unreported()).all()
        for row in cycle_rows:
            if (
                cycle := self._parse_or_close(row.id, row.cycle_json)
            ) is not None and cycle.request == request:
                self._set_state(cycle.id, OPEN, None)
                return cycle
        return None

    def _parse_or_close(self, cycle_id: str, cycle_json: str) -> Cycle | None:
        try:
            return codec.loads(Cycle, cycle_json)
        except ConfigError as error:
            reason = f"unreadable: {error.message}"
        step_id = ""
        try:
            cycle_values = read_json(cycle_json)
            step_id = codec.json_field(cycle_values, "sending_step_id")
            if step_id:
                reported_values = {
                    field_name: cycle_values[field_name]
                    for field_name in REPORTED_FIELDS
                    if field_name in cycle_values
                }
                return codec.from_jsonable(Cycle, reported_values)
        except (ConfigError, ValueError):
            self._set_state(cycle_id, CLOSED, reason)
            raise OperatorNeeded(
                f"cycle {cycle_id} of another version of trimtab may have sent a transaction"
                f" (step {step_id or 'unknown'}), and is {reason}",
                "see trimtab history; the same command repeated trades its amount again",
            ) from None
        self._set_state(cycle_id, CLOSED, reason)
        return None

    def _set_state(self, cycle_id: str, state: str, reason: str | None) -> None:
        with self.db.write("set the state of a cycle", keeps_cache=True) as db:
            db.execute(_update_cycle(), {"cycle_id": cycle_id, "state": state, "reason": reason})

    def _end(self, state: str, reason: str) -> None:
        with self.db.write("end the cycle", keeps_cache=True) as db:
            db.execute(_update_open(), {"state": state, "reason": reason})


_select_open = cache(lambda: select(CycleRow).where(CycleRow.state == OPEN))
_update_cycle = cache(lambda: update(CycleRow).where(CycleRow.id == bindparam("cycle_id")))
_select_unreported = cache(
    lambda: select(CycleRow).where(CycleRow.state == UNREPORTED).order_by(CycleRow.seq)
)
_update_open = cache(lambda: update(CycleRow).where(CycleRow.state == OPEN))
