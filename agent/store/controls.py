"""Stored controls: the queue, the audit log that only grows, plans as they were shown, and the
state of the Telegram bot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, select, text, update

from agent import codec
from agent.errors import Refused
from agent.model import (
    Control,
    ControlArguments,
    ControlCode,
    ControlEvent,
    ControlKind,
    ControlOrigin,
    ControlRecord,
    ControlState,
    ShownPlan,
    Verdict,
)
from agent.store import seals
from agent.store.database.connection import Database
from agent.store.database.facts import fact_number, fact_text, write_facts
from agent.store.database.rows import decode_json
from agent.store.database.statements import (
    all_rows,
    first_row,
    insert_returning_id,
    max_value,
    upsert_rows,
)
from agent.store.tables import IS_UNFINISHED, ControlLogRow, ControlRow, ShownPlanRow
from agent.units import DAY_S

MAX_ROWS = 2**31 - 1
"""A limit that both databases take for none."""
MAX_QUEUED = 100
"""Largest number of queued controls."""
MAX_SHOWN_PLANS = 200
"""Shown plans kept, besides the one that waits; the oldest beyond it are dropped."""


@dataclass(frozen=True, slots=True)
class NumberedControl:
    """A queued row by its number. `control` is None if the row is damaged."""

    number: int
    control: Control | None


@dataclass(frozen=True, slots=True)
class ControlStateChange:
    """The end of a control, by its row's number."""

    number: int
    state: ControlState
    code: str = ""
    reason: str = ""
    result: ControlArguments = ()


@dataclass(frozen=True, slots=True)
class ControlStore:
    """Controls of this wallet; each method is one transaction. Times are Unix seconds of this
    machine.
    """

    db: Database

    def queue(self, control: Control) -> int:
        """Store a control as QUEUED and return its number. Raises Refused if the queue is full, or
        if another control has confirmed its plan since that was shown.
        """
        with self.db.write("queue a control") as db:
            # an offer ends with its first confirmation
            confirms_offer = control.kind is ControlKind.CONFIRM
            if not confirms_offer and _is_confirmed_since_shown(db, control.plan_hash):
                raise Refused(
                    "the shown plan was confirmed before",
                    remedy="show it again, if it should be carried out twice",
                    code=ControlCode.PLAN_USED,
                )
            queued_count = db.scalar(_select_queued_count())
            if queued_count >= MAX_QUEUED:
                verdict = Verdict("control_queue", str(queued_count), str(MAX_QUEUED), False)
                raise Refused(
                    f"the queue is full: {queued_count} controls wait",
                    (verdict,),
                    "start trimtab run --send, which takes them, or wait until they expire",
                    code=ControlCode.QUEUE_FULL,
                )
            return self._insert_and_log(db, control, ControlState.QUEUED)

    def record_done(self, control: Control) -> int:
        """Store a control that was carried out at its submission, and return its number."""
        with self.db.write("record a control") as db:
            return self._insert_and_log(db, control, ControlState.DONE)

    def newest_number(self) -> int:
        """Return the number of the newest control; 0 without one."""
        with self.db.read("read the controls") as db:
            return max_value(db, ControlRow.seq)

    def pause_requested_after(self, control_number: int) -> bool:
        """Return whether a pause was requested after the control of this number."""
        with self.db.read("read the controls") as db:
            return (
                db.scalar(
                    select(ControlRow.seq)
                    .where(
                        ControlRow.seq > control_number, ControlRow.kind == ControlKind.PAUSE.value
                    )
                    .limit(1)
                )
                is not None
            )

    def has_queued(self) -> bool:
        """Return whether a control is queued."""
        with self.db.read("read the controls") as db:
            return db.scalar(_select_first_queued()) is not None

    def queued_controls(self) -> tuple[NumberedControl, ...]:
        """Return the oldest queued controls, oldest first."""
        with self.db.read("read the controls") as db:
            control_rows = all_rows(
                db,
                _select_in_state(),
                ControlRow,
                state=ControlState.QUEUED.value,
                limit=MAX_QUEUED,
            )
            return tuple(NumberedControl(row.seq, _control_from_row(row)) for row in control_rows)

    def taken_controls(self) -> tuple[NumberedControl, ...]:
        """Return the controls that were taken and not finished, oldest first."""
        with self.db.read("read the controls") as db:
            control_rows = all_rows(
                db, _select_in_state(), ControlRow, state=ControlState.TAKEN.value, limit=MAX_ROWS
            )
            return tuple(NumberedControl(row.seq, _control_from_row(row)) for row in control_rows)

    def take(self, control_number: int, now_s: int) -> bool:
        """Move a control from QUEUED to TAKEN. Return False, and write nothing, if it is not queued
        or its id was taken before.
        """
        with self.db.write("take a control") as db:
            row = first_row(db, _select_control(), ControlRow, row_seq=control_number)
            if row is None or row.state != ControlState.QUEUED.value:
                return False
            if any(self._sealed_lines(db, _select_log_of_taken(), control_id=row.id)):
                return False
            self._write_and_log_states(
                db, [(row, ControlStateChange(control_number, ControlState.TAKEN))], now_s
            )
            return True

    def finish(self, ends: Sequence[ControlStateChange], now_s: int) -> None:
        """Store the final states of queued or taken controls. A finished one keeps its state."""
        if not ends:
            return
        end_by_number = {end.number: end for end in ends}
        with self.db.write("finish a control") as db:
            control_rows = all_rows(
                db, _select_unfinished(), ControlRow, row_seqs=list(end_by_number)
            )
            self._write_and_log_states(
                db, [(row, end_by_number[row.seq]) for row in control_rows], now_s
            )

    def newest(self, limit: int = 100) -> tuple[ControlRecord, ...]:
        """Return the newest controls, newest first. Damaged rows are omitted."""
        with self.db.read("read the controls") as db:
            records = (
                _record_from_row(row)
                for row in all_rows(db, _select_newest(), ControlRow, limit=limit)
            )
            return tuple(record for record in records if record is not None)

    def find(self, control_id: str) -> ControlRecord | None:
        """Return a control by its id; None if it is unknown or damaged."""
        with self.db.read("read the controls") as db:
            row = first_row(db, select(ControlRow).where(ControlRow.id == control_id), ControlRow)
            return None if row is None else _record_from_row(row)

    def events(self, after: int = 0, limit: int = 1_000) -> tuple[ControlEvent, ...]:
        """Return lines of the audit log with a number above `after`, oldest first. Lines without a
        valid seal are omitted.
        """
        with self.db.read("read the log of controls") as db:
            log_rows = islice(self._sealed_lines(db, _select_log_after(), after_seq=after), limit)
            return tuple(
                ControlEvent(
                    row.seq,
                    row.control_id,
                    row.kind,
                    row.origin,
                    row.asked_by,
                    row.state,
                    row.code,
                    row.reason,
                    row.at_s,
                )
                for row in log_rows
            )

    def log_number_and_time(self) -> tuple[int, int]:
        """Return number and latest time of the audit log; zeros while it is empty. Lines without a
        valid seal do not count.
        """
        with self.db.read("read the log of controls") as db:
            last_line = next(self._sealed_lines(db, _select_log_by_number()), None)
            latest_dated_line = next(self._sealed_lines(db, _select_log_by_time()), None)
            return (last_line.seq if last_line else 0), (
                latest_dated_line.at_s if latest_dated_line else 0
            )

    def record_shown(self, plan: ShownPlan) -> None:
        """Store a plan as it is shown, for a control to confirm by its hash."""
        with self.db.write("store a shown plan") as db:
            stored_row = first_row(db, _select_plan(), ShownPlanRow, plan_hash=plan.hash)
            is_offered = stored_row is not None and stored_row.is_offered
            _insert_plan(db, plan, is_offered=is_offered)
            dropped_hashes = db.scalars(
                select(ShownPlanRow.hash)
                .where(~ShownPlanRow.is_offered)
                .order_by(ShownPlanRow.shown_s.desc())
                .offset(MAX_SHOWN_PLANS)
            ).all()
            db.execute(delete(ShownPlanRow).where(ShownPlanRow.hash.in_(dropped_hashes)))

    def shown_plan(self, plan_hash: str) -> ShownPlan | None:
        """Return a shown plan by its hash; None if it is unknown, or was altered since."""
        with self.db.read("read a shown plan") as db:
            row = first_row(db, _select_plan(), ShownPlanRow, plan_hash=plan_hash)
            return None if row is None else _plan_from_row(row)

    def store_offer(self, plan: ShownPlan) -> None:
        """Store the plan that waits for a confirmation, in place of an earlier one."""
        with self.db.write("offer a plan") as db:
            db.execute(delete(ShownPlanRow).where(ShownPlanRow.is_offered))
            _insert_plan(db, plan, is_offered=True)

    def offered_plan(self) -> ShownPlan | None:
        """Return the plan that waits for a confirmation; None without one."""
        with self.db.read("read the waiting plan") as db:
            row = first_row(
                db, select(ShownPlanRow).where(ShownPlanRow.is_offered).limit(1), ShownPlanRow
            )
            return None if row is None else _plan_from_row(row)

    def end_offer(self) -> None:
        """Remove the waiting plan."""
        with self.db.write("withdraw the waiting plan") as db:
            db.execute(delete(ShownPlanRow).where(ShownPlanRow.is_offered))

    def _sealed_lines(
        self, db: Connection, query: Select[Any], **binds: object
    ) -> Iterator[ControlLogRow]:
        return seals.sealed_rows(self.db, db, query, ControlLogRow, **binds)

    def _insert_and_log(self, db: Connection, control: Control, state: ControlState) -> int:
        control_number = insert_returning_id(
            db,
            ControlRow,
            id=control.id,
            kind=control.kind.value,
            arguments_json=json.dumps(control.arguments),
            plan_hash=control.plan_hash,
            asked_by=control.asked_by,
            origin=control.origin.value,
            asked_s=control.asked_at_s,
            expires_s=control.expires_at_s,
            seal=control.seal,
            state=state.value,
            code="",
            reason="",
            result_json="[]",
            changed_s=control.asked_at_s,
        )
        log_line = {
            "control_id": control.id,
            "kind": control.kind.value,
            "origin": control.origin.value,
            "asked_by": control.asked_by,
            "state": state.value,
            "code": "",
            "reason": "",
            "at_s": control.asked_at_s,
        }
        seals.append_rows(self.db, db, ControlLogRow, [log_line])
        return control_number

    def _write_and_log_states(
        self,
        db: Connection,
        rows_and_changes: Sequence[tuple[ControlRow, ControlStateChange]],
        now_s: int,
    ) -> None:
        """Write new states of rows, with a line of the log for each."""
        if not rows_and_changes:
            return
        db.execute(
            _update_control(),
            [
                {
                    "row_seq": row.seq,
                    "new_state": change.state.value,
                    "new_code": change.code,
                    "new_reason": change.reason,
                    "new_result": json.dumps(change.result),
                    "now_s": now_s,
                }
                for row, change in rows_and_changes
            ],
        )
        log_lines = [
            {
                "control_id": row.id,
                "kind": row.kind,
                "origin": row.origin,
                "asked_by": row.asked_by,
                "state": change.state.value,
                "code": change.code,
                "reason": change.reason,
                "at_s": now_s,
            }
            for row, change in rows_and_changes
        ]
        seals.append_rows(self.db, db, ControlLogRow, log_lines)


def _control_from_row(row: ControlRow) -> Control | None:
    """Return the control of a row; None if the row is damaged."""
    try:
        arguments = tuple(
            (str(argument_name), str(argument_text))
            for argument_name, argument_text in json.loads(row.arguments_json)
        )
        kind = ControlKind(row.kind)
        origin = ControlOrigin(row.origin)
        asked_s = int(row.asked_s)
        expires_s = int(row.expires_s)
    except (ValueError, TypeError):
        return None
    text_columns = (row.id, row.plan_hash, row.asked_by, row.seal)
    if not all(isinstance(column, str) for column in text_columns):
        return None
    return Control(
        row.id, kind, arguments, row.plan_hash, row.asked_by, origin, asked_s, expires_s, row.seal
    )


def _record_from_row(row: ControlRow) -> ControlRecord | None:
    control = _control_from_row(row)
    try:
        state = ControlState(row.state)
        result_arguments = tuple(
            (str(result_name), str(result_text))
            for result_name, result_text in json.loads(row.result_json)
        )
    except (ValueError, TypeError):
        return None
    if control is None:
        return None
    return ControlRecord(
        row.seq, control, state, row.code, row.reason, result_arguments, row.changed_s
    )


def _is_confirmed_since_shown(db: Connection, plan_hash: str) -> bool:
    """Return whether a control has confirmed the plan since it was shown, by their numbers: clocks of
    two machines differ.
    """
    row = first_row(db, _select_plan(), ShownPlanRow, plan_hash=plan_hash)
    plan = None if row is None else _plan_from_row(row)
    if plan is None:
        return False
    binds = {"plan_hash": plan_hash, "after_seq": plan.after_control}
    return db.scalar(_select_confirming(), binds) is not None


def _insert_plan(db: Connection, plan: ShownPlan, *, is_offered: bool) -> None:
    row = {
        "hash": plan.hash,
        "plan_json": codec.dumps(plan),
        "shown_s": plan.shown_at_s,
        "is_offered": is_offered,
    }
    upsert_rows(db, ShownPlanRow, [row])


def _plan_from_row(row: ShownPlanRow) -> ShownPlan | None:
    plan = decode_json(ShownPlan, row.plan_json)
    return plan if plan.hash == row.hash else None


_update_control = cache(
    lambda: (
        update(ControlRow)
        .where(ControlRow.seq == bindparam("row_seq"))
        .values(
            state=bindparam("new_state"),
            code=bindparam("new_code"),
            reason=bindparam("new_reason"),
            result_json=bindparam("new_result"),
            changed_s=bindparam("now_s"),
        )
    )
)
_select_unfinished = cache(
    lambda: (
        select(ControlRow)
        .where(text(IS_UNFINISHED), ControlRow.seq.in_(bindparam("row_seqs", expanding=True)))
        .order_by(ControlRow.seq)
    )
)
_select_control = cache(lambda: select(ControlRow).where(ControlRow.seq == bindparam("row_seq")))
_select_newest = cache(
    lambda: select(ControlRow).order_by(ControlRow.seq.desc()).limit(bindparam("limit"))
)
_select_confirming = cache(
    lambda: (
        select(ControlRow.seq)
        .where(
            ControlRow.plan_hash == bindparam("plan_hash"),
            ControlRow.seq > bindparam("after_seq"),
            ControlRow.state.not_in([ControlState.REFUSED.value, ControlState.EXPIRED.value]),
        )
        .limit(1)
    )
)
_select_log_of_taken = cache(
    lambda: select(ControlLogRow).where(
        ControlLogRow.control_id == bindparam("control_id"),
        ControlLogRow.state == ControlState.TAKEN.value,
    )
)
_select_log_after = cache(
    lambda: (
        select(ControlLogRow)
        .where(ControlLogRow.seq > bindparam("after_seq"))
        .order_by(ControlLogRow.seq)
    )
)
_select_log_by_number = cache(lambda: select(ControlLogRow).order_by(ControlLogRow.seq.desc()))
_select_log_by_time = cache(lambda: select(ControlLogRow).order_by(ControlLogRow.at_s.desc()))
_select_plan = cache(
    lambda: select(ShownPlanRow).where(ShownPlanRow.hash == bindparam("plan_hash"))
)


@cache
def _select_queued_count() -> Select[Any]:
    is_queued = ControlRow.state == ControlState.QUEUED.value
    return select(func.count()).select_from(ControlRow).where(text(IS_UNFINISHED), is_queued)


@cache
def _select_first_queued() -> Select[Any]:
    is_queued = ControlRow.state == ControlState.QUEUED.value
    return select(ControlRow.seq).where(text(IS_UNFINISHED), is_queued).limit(1)


@cache
def _select_in_state() -> Select[Any]:
    return (
        select(ControlRow)
        .where(text(IS_UNFINISHED), ControlRow.state == bindparam("state"))
        .order_by(ControlRow.seq)
        .limit(bindparam("limit"))
    )


NEWEST_UPDATE_KEY = "phone_update"
UPDATE_TIME_KEY = "phone_update_s"
"""Keys of number and time of the newest handled update."""
OPEN_CODES_KEY = "phone_codes"
REPORTED_OFFER_KEY = "phone_offered"
REPORTED_LINE_KEY = "phone_log"
"""Keys of the open codes as JSON, of the hash of the newest reported offer, and of the number of
the newest reported line of the log of controls.
"""
MAX_UPDATE_GAP_S = 6 * DAY_S
"""Seconds after the newest update during which update numbers still rise; after a week without
updates Telegram chooses the next number at random.
"""
MAX_CODES = 60
"""Largest number of open codes; the oldest beyond it are dropped."""
MAX_TRIES = 5
"""Wrong answers of a chat after which its open code no longer works."""


@dataclass(frozen=True, slots=True)
class PhoneCode:
    """An open one-time code of a chat: `digest` is the keyed hash of its digits, `plan_hash` the
    plan that it confirms. Valid from `issued_s` until before `expires_s`, Unix seconds of this
    machine.
    """

    chat: int
    digest: str
    kind: str
    plan_hash: str
    expires_s: int
    tries: int = 0
    issued_s: int = 0


@dataclass(frozen=True, slots=True)
class TelegramBotStore:
    """State of the Telegram bot; each method is one transaction."""

    db: Database

    def last_update_number(self, now_s: int) -> int:
        """Return the number of the newest handled update; 0 without one, or if it is so old that
        Telegram may have begun a new sequence.
        """
        with self.db.read("read the phone's state") as db:
            return _last_update_number(db, now_s)

    def mark_update_handled(self, update_number: int, now_s: int) -> bool:
        """Record an update as handled before anything is done for it; return False if it or a later
        one already was.
        """
        with self.db.write("write the phone's state") as db:
            if _last_update_number(db, now_s) >= update_number:
                return False
            write_facts(db, {NEWEST_UPDATE_KEY: update_number, UPDATE_TIME_KEY: now_s})
            return True

    def last_reported_number(self) -> int:
        """Return the number of the newest reported line of the log of controls; 0 without one."""
        with self.db.read("read the phone's state") as db:
            return fact_number(db, REPORTED_LINE_KEY)

    def mark_line_reported(self, line_number: int) -> bool:
        """Record a line of the log of controls as reported; return False if it already was."""
        with self.db.write("write the phone's state") as db:
            if fact_number(db, REPORTED_LINE_KEY) >= line_number:
                return False
            write_facts(db, {REPORTED_LINE_KEY: line_number})
            return True

    def newest_reported_offer(self) -> str:
        """Return the hash of the newest reported offered plan; empty without one."""
        with self.db.read("read the phone's state") as db:
            return fact_text(db, REPORTED_OFFER_KEY) or ""

    def mark_offer_reported(self, plan_hash: str) -> bool:
        """Record an offered plan as reported; return False if it is the newest reported one."""
        with self.db.write("write the phone's state") as db:
            if fact_text(db, REPORTED_OFFER_KEY) == plan_hash:
                return False
            write_facts(db, {REPORTED_OFFER_KEY: plan_hash})
            return True

    def store_code(self, code: PhoneCode, now_s: int) -> None:
        """Store a code; it replaces the chat's earlier code of its kind."""
        with self.db.write("write the phone's state") as db:
            other_codes = [
                valid_code
                for valid_code in _valid_codes(db, now_s)
                if (valid_code.chat, valid_code.kind) != (code.chat, code.kind)
            ]
            _write_codes(db, [*other_codes[1 - MAX_CODES :], code])

    def use_code(self, chat: int, digest: str, now_s: int) -> PhoneCode | None:
        """Return the chat's open code with this digest, and close it; None for a wrong, used or
        expired one. Every attempt is recorded for all codes of the chat.
        """
        with self.db.write("write the phone's state") as db:
            valid_codes = _valid_codes(db, now_s)
            for valid_code in valid_codes:
                if (valid_code.chat, valid_code.digest) == (chat, digest):
                    _write_codes(db, [code for code in valid_codes if code != valid_code])
                    return valid_code
            tried_codes = [
                replace(code, tries=code.tries + (code.chat == chat)) for code in valid_codes
            ]
            if tried_codes != valid_codes:
                _write_codes(db, [code for code in tried_codes if code.tries < MAX_TRIES])
            return None


def _last_update_number(db: Connection, now_s: int) -> int:
    # a time in the future was recorded by a wrong clock
    if abs(now_s - fact_number(db, UPDATE_TIME_KEY)) > MAX_UPDATE_GAP_S:
        return 0
    return fact_number(db, NEWEST_UPDATE_KEY)


def _valid_codes(db: Connection, now_s: int) -> list[PhoneCode]:
    try:
        codes = [
            PhoneCode(**code_fields)
            for code_fields in json.loads(fact_text(db, OPEN_CODES_KEY) or "[]")
        ]
    except (TypeError, ValueError):  # damaged: no code works
        return []
    return [code for code in codes if now_s < code.expires_s]


def _write_codes(db: Connection, codes: list[PhoneCode]) -> None:
    write_facts(db, {OPEN_CODES_KEY: json.dumps([asdict(code) for code in codes])})
