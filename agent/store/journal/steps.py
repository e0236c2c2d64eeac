"""Steps with their input and result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, select, update

from agent import codec
from agent.model import Plan, Rebalance, StepInput
from agent.store.accounts import day_counts
from agent.store.accounts.day_counts import CountedEvent
from agent.store.database.connection import Database
from agent.store.database.rows import (
    StepRecord,
    StepSummary,
    compress_text,
    decode_json,
    decompress_text,
    step_record,
    step_summary,
)
from agent.store.database.statements import first_row, upsert_rows
from agent.store.tables import IntentRow, StepRow

MAX_PRUNED = 500
"""Maximum number of steps that one call deletes, so that a large store does not delay a cycle."""
REFUSED_OUTCOME = "refused"
"""Outcome of a step whose plan was refused."""
MAX_SEQ = 2**63 - 1
"""The largest SQLite integer; no row has it as number."""


@dataclass(slots=True)
class StepStore:
    """Steps with their input and result; each method is a transaction of its own, but in a look
    that sends nothing all share one (Database.queueing).

    `on_step_recorded` is called with each finished step; its errors propagate.
    """

    db: Database
    on_step_recorded: Callable[[StepRecord], None] | None = None

    def begin(
        self,
        step_id: str,
        now_s: int,
        input_json: str,
        request_json: str | None = None,
        cycle_id: str | None = None,
    ) -> None:
        """Record the input of a step with its request and cycle; replace the input if the step has
        one.
        """
        row = {"id": step_id, "now_s": now_s, "input_z": compress_text(input_json)}
        if request_json is not None:
            row |= {"request_json": request_json, "cycle_id": cycle_id}
        self.db.write_later(
            "write the step",
            lambda db: upsert_rows(db, StepRow, [row], key_column="id"),
            keeps_cache=True,
        )

    def end(
        self, step_id: str, decision: str, reason: str, plan: Plan | None, outcome: str
    ) -> None:
        """Record the decision and result of a step. Raises KeyError for a step that was not
        begun; in a look that sends nothing its next flush does, and drops all that it queued.
        """
        outcome_values = {
            "row_id": step_id,
            "decision": decision,
            "reason": reason,
            "outcome": outcome,
            "plan_z": None if plan is None else compress_text(codec.dumps(plan)),
        }

        def write_end(db: Connection) -> None:
            if outcome == REFUSED_OUTCOME:
                _count_refusal(db, step_id)
            if db.execute(_update_step(), outcome_values).rowcount == 0:
                raise KeyError(step_id)

        self.db.write_later("write the outcome of the step", write_end, keeps_cache=True)
        if self.on_step_recorded is not None and (record := self.get(step_id)) is not None:
            self.on_step_recorded(record)

    def newest(self, limit: int, before_step_id: str | None = None) -> tuple[StepSummary, ...]:
        """Return the newest steps, or the newest before the step `before_step_id`, newest first."""
        self.db.flush()
        with self.db.read("read the steps") as db:
            bind_values = {"limit": limit, "before": before_step_id}
            return tuple(step_summary(row) for row in db.execute(_select_summaries(), bind_values))

    def get(self, step_id: str) -> StepRecord | None:
        """Return a step with its input and plan; None if the id is unknown."""
        self.db.flush()
        with self.db.read("read the step") as db:
            row = first_row(db, _select_step(), StepRow, step_id=step_id)
            return None if row is None else step_record(row)

    def cycle_id(self, step_id: str) -> str | None:
        """Return the id of a step's cycle; None if it has none, or the step is unknown."""
        self.db.flush()
        with self.db.read("read the cycle of a step") as db:
            return db.scalar(select(StepRow.cycle_id).where(StepRow.id == step_id))

    def newest_input(self) -> StepInput | None:
        """Return the input of the newest step; None without steps."""
        for summary in self.newest(1):
            record = self.get(summary.id)
            return None if record is None else decode_json(StepInput, record.input_json)
        return None

    def input_json(self, step_id: str) -> str | None:
        """Return the input of a step as JSON; None if the id is unknown."""
        record = self.get(step_id)
        return None if record is None else record.input_json

    def is_by_hand(self, intent_id: str) -> bool:
        """True if the plan of the intent's step was a manual request; False without a plan."""
        with self.db.read("read the step") as db:
            plan_z = db.scalar(_select_plan_of_intent(), {"intent_id": intent_id})
        if plan_z is None:
            return False
        decision = decode_json(Plan, decompress_text(plan_z)).decision
        return isinstance(decision, Rebalance) and decision.by_hand

    def prune_later(self, kept_count: int) -> None:
        """Delete old steps as `delete_old_steps` does, with the next write."""
        self.db.write_later("remove old steps", partial(delete_old_steps, kept_count=kept_count))


def _count_refusal(db: Connection, step_id: str) -> None:
    """Count a step as refused, unless it was before."""
    step = db.execute(select(StepRow.now_s, StepRow.outcome).where(StepRow.id == step_id)).first()
    if step is not None and step.outcome != REFUSED_OUTCOME:
        day_counts.add_events(db, CountedEvent.REFUSAL, step.now_s)


def delete_old_steps(db: Connection, kept_count: int) -> int:
    """Delete steps without a transaction that are not among the newest `kept_count` steps, up to
    MAX_PRUNED; return their number. The first step stays, because schedules count from it.
    """
    # counts rows: on PostgreSQL the steps of all wallets share one sequence
    newest_first = select(StepRow.seq).order_by(StepRow.seq.desc())
    newest_old_seq = db.scalar(newest_first.offset(kept_count).limit(1))
    if newest_old_seq is None:
        return 0
    first_seq = db.scalar(select(func.min(StepRow.seq)))
    has_no_intent = ~exists().where(IntentRow.step_id == StepRow.id)
    select_old_seqs = (
        select(StepRow.seq)
        .where(StepRow.seq > first_seq, StepRow.seq <= newest_old_seq, has_no_intent)
        .order_by(StepRow.seq)
        .limit(MAX_PRUNED)
    )
    old_seqs = db.scalars(select_old_seqs).all()
    if old_seqs:
        db.execute(delete(StepRow).where(StepRow.seq.in_(old_seqs)))
    return len(old_seqs)


_select_step = cache(lambda: select(StepRow).where(StepRow.id == bindparam("step_id")))
_select_plan_of_intent = cache(
    lambda: (
        select(StepRow.plan_z)
        .join(IntentRow, IntentRow.step_id == StepRow.id)
        .where(IntentRow.id == bindparam("intent_id"))
    )
)
_update_step = cache(lambda: update(StepRow).where(StepRow.id == bindparam("row_id")))


@cache
def _select_summaries() -> Select[str, int, str | None, str | None, str | None]:
    select_steps = select(
        StepRow.id, StepRow.now_s, StepRow.decision, StepRow.reason, StepRow.outcome
    )
    before_seq = select(StepRow.seq).where(StepRow.id == bindparam("before")).scalar_subquery()
    older_steps = select_steps.where(StepRow.seq < func.coalesce(before_seq, MAX_SEQ))
    return older_steps.order_by(StepRow.seq.desc()).limit(bindparam("limit"))
