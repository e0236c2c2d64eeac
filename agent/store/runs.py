"""The newest report of a run: one row, replaced after each cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, select

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.model import RunReport
from agent.store.database.connection import Database
from agent.store.database.statements import upsert_rows
from agent.store.tables import RunReportRow

ONLY_ROW_ID = 1
"""Key of the only row."""


@dataclass(frozen=True, slots=True)
class RunReportStore:
    """The report of the run that serves the store; each method is one transaction, and `write`
    commits the queued writes in the same one (Database.queueing).
    """

    db: Database

    def newest(self) -> RunReport | None:
        """Return the report; None if no run has written one. Raises OperatorNeeded if it is
        damaged.
        """
        with self.db.read("read the report of the run") as db:
            return _read_report(db)

    def write(self, report: RunReport, may_replace: Callable[[RunReport], bool]) -> RunReport:
        """Replace the report, unless it is that of another run and `may_replace` refuses; return
        the one that the store has then. A damaged report is replaced.
        """
        with self.db.write("write the report of the run", joins_queue=True) as db:
            try:
                stored_report = _read_report(db)
            except OperatorNeeded:
                stored_report = None
            if (
                stored_report is not None
                and stored_report.run_id != report.run_id
                and not may_replace(stored_report)
            ):
                return stored_report
            row = {"id": ONLY_ROW_ID, "report_json": codec.dumps(report)}
            upsert_rows(db, RunReportRow, [row])
            return report


def _read_report(db: Connection) -> RunReport | None:
    report_json: str | None = db.scalar(
        select(RunReportRow.report_json).where(RunReportRow.id == ONLY_ROW_ID)
    )
    try:
        return codec.loads_optional(RunReport, report_json)
    except ConfigError:
        raise OperatorNeeded(
            "store: the report of the run is damaged",
            "the next cycle of trimtab run replaces it",
            code=ErrorCode.DAMAGED,
        ) from None
