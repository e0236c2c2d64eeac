"""What was told to whom: the state of each alert, letters that are on their way, and how each target did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from agent.errors import OperatorNeeded
from agent.model import AlertKind, AlertState, Delivery, Letter, TargetState
from agent.store.alert_tables import AlertRow, AlertTargetRow, LetterRow
from agent.store.database import Database

MOST_LETTERS = 100
"""Letters to one target that may wait; beyond it the oldest are given up, and counted."""
FORGOTTEN_S = 90 * 86_400
"""What neither lasts nor waits and was told so long ago is forgotten."""


class Alerts(Database):
    """Alerts of this wallet; each method is a transaction of its own. Times are Unix seconds of this machine."""

    def alert_states(self) -> tuple[AlertState, ...]:
        """Every alert that is remembered, oldest first."""
        with self._read("read the alerts") as session:
            return tuple(_state(row) for row in session.scalars(select(AlertRow).order_by(AlertRow.raised_s, AlertRow.key)))

    def note_alerts(self, states: Iterable[AlertState], letters: Sequence[tuple[str, AlertState]], now_s: int) -> tuple[Letter, ...]:
        """Writes states down and makes a letter of each (target, state); returns the letters, in order."""
        with self._write("write the alerts") as session:
            for state in states:
                session.merge(
                    AlertRow(
                        key=state.key,
                        kind=state.kind.value,
                        text=state.text,
                        raised_s=state.raised_s,
                        since_s=state.since_s,
                        untold=state.untold,
                        told_s=state.told_s,
                    )
                )
            rows = [LetterRow(target=target, kind=state.kind.value, text=state.text, made_s=now_s) for target, state in letters]
            session.add_all(rows)
            session.flush()
            for target in {target for target, _ in letters}:
                _trim(session, target)
            old = (AlertRow.since_s.is_(None), AlertRow.untold == 0, AlertRow.told_s < now_s - FORGOTTEN_S)
            session.execute(delete(AlertRow).where(*old))
            return tuple(_letter(row) for row in rows)

    def letters(self) -> tuple[Letter, ...]:
        """Letters that did not arrive yet and were not given up, oldest first."""
        with self._read("read what waits to be told") as session:
            return tuple(_letter(row) for row in session.scalars(select(LetterRow).order_by(LetterRow.seq)))

    def settle_letters(self, found: Iterable[Delivery]) -> None:
        """Writes down what became of letters; none of them waits any longer."""
        with self._write("write what was told") as session:
            for one in found:
                session.execute(delete(LetterRow).where(LetterRow.seq == one.letter.id))
                row = _target(session, one.letter.target)
                if one.why:
                    row.failed_s, row.failures, row.why = one.at_s, row.failures + 1, one.why
                else:
                    row.delivered_s, row.failures, row.why = one.at_s, 0, ""

    def drop_letters(self, targets: Iterable[str]) -> None:
        """Gives up what waits for targets that are no more."""
        with self._write("write what was told") as session:
            session.execute(delete(LetterRow).where(LetterRow.target.in_(list(targets))))

    def alert_targets(self) -> dict[str, TargetState]:
        """How each target did so far, by its name."""
        with self._read("read what was told") as session:
            waiting = dict(session.execute(select(LetterRow.target, func.count()).group_by(LetterRow.target)).tuples().all())
            rows = {row.name: row for row in session.scalars(select(AlertTargetRow))}
            return {name: _told(name, rows.get(name), waiting.get(name, 0)) for name in sorted({*rows, *waiting})}


def _trim(session: Session, target: str) -> None:
    over = select(LetterRow.seq).where(LetterRow.target == target).order_by(LetterRow.seq.desc()).offset(MOST_LETTERS)
    gone = list(session.scalars(over))
    if gone:
        session.execute(delete(LetterRow).where(LetterRow.seq.in_(gone)))
        _target(session, target).lost += len(gone)


def _target(session: Session, name: str) -> AlertTargetRow:
    row = session.get(AlertTargetRow, name)
    if row is None:
        row = AlertTargetRow(name=name, failures=0, why="", lost=0)
        session.add(row)
    return row


def _kind(value: str) -> AlertKind:
    try:
        return AlertKind(value)
    except ValueError as error:
        raise OperatorNeeded(f"store: a row is damaged: {error}", "keep the file, restore a backup, compare it with the chain") from None


def _state(row: AlertRow) -> AlertState:
    return AlertState(row.key, _kind(row.kind), row.text, row.raised_s, row.since_s, row.untold, row.told_s)


def _letter(row: LetterRow) -> Letter:
    return Letter(row.seq, row.target, _kind(row.kind), row.text, row.made_s)


def _told(name: str, row: AlertTargetRow | None, waiting: int) -> TargetState:
    if row is None:
        return TargetState(name, waiting=waiting)
    return TargetState(name, row.delivered_s, row.failed_s, row.failures, row.why, row.lost, waiting)
