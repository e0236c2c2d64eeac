"""Stored gradual executions: their start, the random draw of size and wait of each slice, progress,
and shared budgets. A slice is an attempt of agent/store/executions.py, stored with the draw for the
next slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, or_, select

from agent import codec
from agent.errors import ErrorCode, OperatorNeeded
from agent.layers.gradual.policy import carried_budget, slice_wait_s
from agent.layers.gradual.state import (
    BudgetCarryover,
    ExecutionProgress,
    GradualExecution,
    GradualState,
    SliceDraw,
)
from agent.model import ExecutionState
from agent.store.database.connection import Database
from agent.store.database.facts import delete_facts, find_fact, select_with_facts, write_facts
from agent.store.database.statements import first_row
from agent.store.executions import (
    PURCHASE,
    StoredExecution,
    add_attempt,
    add_execution,
    load_terms,
    newest_executions,
    open_executions,
    read_attempts,
)
from agent.store.tables import ExecutionAttemptRow, ExecutionRow

SLICE_DRAW = "draw"
"""Key of the draw for the first slice of the next execution."""
GRADUAL = "gradual"
"""Kind of the layer's executions."""


@dataclass(frozen=True, slots=True)
class GradualExecutionStore:
    """Gradual executions; each method is a transaction of its own."""

    db: Database

    def store_next_draw(self, draw: SliceDraw) -> None:
        """Store the draw for the first slice of the next execution, unless one is stored."""
        with self.db.write("record a draw") as db:
            if find_fact(db, SLICE_DRAW) is None:
                write_facts(db, {SLICE_DRAW: f"{draw.size_ppm} {draw.wait_ppm}"})

    def begin(self, execution: GradualExecution) -> str:
        """Record an execution, delete the stored draw, and return the id. Raises OperatorNeeded if
        another execution or a purchase is open.
        """
        with self.db.write("record a gradual execution") as db:
            if open_executions(db, GRADUAL) or open_executions(db, PURCHASE):
                raise OperatorNeeded(
                    "another gradual execution or purchase is open already",
                    "wait until it ends, or end it: trimtab limit --cancel ID",
                    code=ErrorCode.EXECUTION_OPEN,
                )
            delete_facts(db, SLICE_DRAW)
            return add_execution(db, GRADUAL, execution.began_s, codec.dumps(execution))

    def begin_slice(
        self, execution_id: str, slice_number: int, step_id: str, at_s: int, next_draw: SliceDraw
    ) -> None:
        """Record an attempt at a slice before it is sent, with the draw for the next slice; if the
        slice is attempted again, the draw of its first attempt is kept.

        `at_s` is the chain time of the plan. Raises Refused if the execution has ended.
        """
        with self.db.write("record a slice") as db:
            first_attempt = first_row(
                db,
                _select_first_attempt(),
                ExecutionAttemptRow,
                execution_id=execution_id,
                number=slice_number,
            )
            stored_draw = (
                next_draw
                if first_attempt is None
                else SliceDraw(first_attempt.size_ppm, first_attempt.wait_ppm)
            )
            draw_columns = {"size_ppm": stored_draw.size_ppm, "wait_ppm": stored_draw.wait_ppm}
            add_attempt(db, execution_id, slice_number, step_id, at_s, **draw_columns)

    def newest_executions(self, limit: int = 20) -> tuple[StoredExecution[ExecutionProgress], ...]:
        """Return the newest executions, newest first."""
        wallet = self.db.wallet
        wrapped_native = self.db.wrapped_native
        with self.db.read("read the executions") as db:
            return tuple(
                StoredExecution(
                    row.seq,
                    _progress(db, row, wallet, wrapped_native),
                    ExecutionState(row.state),
                    row.why,
                )
                for row in newest_executions(db, GRADUAL, limit)
            )


def read_state(db: Connection, wallet: str, wrapped_native: str, chain_now_s: int) -> GradualState:
    """Return the open execution, the end and carryover of the last one, and the stored draw."""
    execution_rows: Sequence[Any] = db.execute(_select_state()).all()
    draw_text = execution_rows[0].draw
    open_row = next((row for row in execution_rows if row.state == ExecutionState.OPEN), None)
    ended_row = next(
        (row for row in execution_rows if row.state not in (ExecutionState.OPEN, None)), None
    )
    return GradualState(
        progress=None if open_row is None else _progress(db, open_row, wallet, wrapped_native),
        ended_s=None if ended_row is None else ended_row.ended_s,
        draw=None if draw_text is None else _parse_draw(draw_text),
        carryover=None
        if open_row or ended_row is None
        else _budget_carryover(db, ended_row, wallet, wrapped_native, chain_now_s),
    )


def _budget_carryover(
    db: Connection, row: ExecutionRow, wallet: str, wrapped_native: str, chain_now_s: int
) -> BudgetCarryover | None:
    """Return the budget that the newest ended execution used and shares with the next; None once it
    has expired.
    """
    execution = load_terms(GradualExecution, row)
    until_s = execution.expires_s if execution.carryover is None else execution.carryover.until_s
    if chain_now_s >= until_s:
        return None
    return carried_budget(_progress(db, row, wallet, wrapped_native), row.why)


def _progress(
    db: Connection, row: ExecutionRow, wallet: str, wrapped_native: str
) -> ExecutionProgress:
    """Return the progress of an execution: slices from the mined swaps, value and loss from the
    receipts of all its transactions.
    """
    execution = load_terms(GradualExecution, row)
    executed_slices = read_attempts(db, row)
    next_draw = execution.first_draw
    next_s = execution.began_s
    arrival_prices = dict(execution.arrival_prices)
    if (newest_attempt := executed_slices.newest_trading_attempt) is not None:
        next_draw = SliceDraw(newest_attempt.size_ppm, newest_attempt.wait_ppm)
        next_s = newest_attempt.at_s + slice_wait_s(execution, next_draw)
    return ExecutionProgress(
        id=row.id,
        execution=execution,
        parts_done=len(executed_slices.trading_attempt_by_part),
        moved_value=executed_slices.moved_value(wallet, wrapped_native, arrival_prices),
        lost_value=executed_slices.lost_value(wallet, wrapped_native, arrival_prices),
        next_s=next_s,
        draw=next_draw,
    )


def _parse_draw(draw_text: str) -> SliceDraw:
    try:
        size_text, _, wait_text = draw_text.partition(" ")
        return SliceDraw(int(size_text), int(wait_text))
    except ValueError as error:
        raise OperatorNeeded(
            f"store: a draw is damaged: {error}",
            "restore a backup, compare it with the chain",
            code=ErrorCode.DAMAGED,
        ) from None


@cache
def _select_first_attempt() -> Select[Any]:
    return (
        select(ExecutionAttemptRow)
        .where(
            ExecutionAttemptRow.execution_id == bindparam("execution_id"),
            ExecutionAttemptRow.part_number == bindparam("number"),
        )
        .order_by(ExecutionAttemptRow.seq)
        .limit(1)
    )


@cache
def _select_state() -> Select[Any]:
    """Select the stored draw beside the open executions, oldest first, and the newest that
    ended.
    """
    last_ended_seq = select(func.max(ExecutionRow.seq)).where(
        ExecutionRow.kind == GRADUAL, ExecutionRow.state != ExecutionState.OPEN.value
    )
    is_open_or_last = or_(
        ExecutionRow.state == ExecutionState.OPEN.value,
        ExecutionRow.seq == last_ended_seq.scalar_subquery(),
    )
    gradual_rows = select(ExecutionRow).where(ExecutionRow.kind == GRADUAL, is_open_or_last)
    return select_with_facts(gradual_rows, draw=SLICE_DRAW).order_by("seq")
