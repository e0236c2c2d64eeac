"""The kill switch: a file beside the store, and a switch inside it. A switch that cannot be read
counts as paused (T14).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, select

from agent.errors import ErrorCode, PassingFault, Refused, TrimtabError
from agent.files import PAUSE_ENDING
from agent.foreign_text import failure_text, failure_words
from agent.model import Verdict
from agent.store.accounts import budgets
from agent.store.database.connection import Database
from agent.store.database.facts import select_with_facts
from agent.store.database.statements import first_row, insert_rows
from agent.store.files.backup import COPY_KEY
from agent.store.tables import PauseRow
from agent.units import format_time

RETRY_PAUSE_S = 0.5
PAUSE_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK
"""How the pause file is created; a pipe that lies there does not block it."""


class SharedPauseFault(PassingFault):
    """A database that other machines share did not take a pause."""


@dataclass(frozen=True, slots=True)
class PauseSwitchState:
    """State of the pause switch, with time and reason; `at_s` is None if it was never used.

    A hard pause also cancels pending transactions and revokes allowances. `is_copy` is true where it
    is on because the store is a copy that nobody has adopted.
    """

    paused: bool
    reason: str
    at_s: int | None
    hard: bool = False
    is_copy: bool = False


PauseCheck = Callable[[PauseSwitchState], None]
"""Gets the switch as it is within the transaction that records a send, and raises to record none."""


@dataclass(frozen=True, slots=True)
class PauseSwitch:
    """The pause switch in the store; each method is a transaction of its own."""

    db: Database

    def pause(self, reason: str, now_s: int, hard: bool = False) -> None:
        """Turn the pause switch on; a hard pause stays hard until `resume`. On a database that other
        machines share it is repeated for a while. Raises SharedPauseFault if it is not taken there.
        """
        end_s = time.monotonic() + self.db.write_patience_s
        while True:
            try:
                self._set_switch(True, reason, now_s, hard)
                return
            except TrimtabError as error:
                if not self.db.write_patience_s:
                    raise
                if not isinstance(error, PassingFault) or time.monotonic() >= end_s:
                    raise SharedPauseFault(error.message, error.remedy, code=error.code) from error
            time.sleep(RETRY_PAUSE_S)

    def resume(self, reason: str, now_s: int) -> None:
        """Turn the pause switch off; consecutive reverts count from now on."""
        self._set_switch(False, reason, now_s, False)

    def _set_switch(self, paused: bool, reason: str, now_s: int, hard: bool) -> None:
        with self.db.write("set the pause switch") as db:
            previous_row = first_row(db, _select_newest(), PauseRow)
            if paused and previous_row is not None and previous_row.paused and previous_row.hard:
                hard = True
            row = {"paused": paused, "hard": hard, "reason": reason, "at_s": now_s}
            insert_rows(db, PauseRow, [row])
            if not paused:
                budgets.mark_resumed(db)

    def require_held(self) -> None:
        """Raise LockHeld if another machine has taken over the wallet."""
        self.db.require_held()

    def read(self) -> PauseSwitchState:
        """Return the state of the pause switch."""
        with self.db.read("read the pause switch") as db:
            return read_pause(db)


def read_pause(db: Connection) -> PauseSwitchState:
    """Return the state of the pause switch in a transaction. A copy is paused until it is adopted (T8)."""
    row = db.execute(_select_state()).one()
    if row.copy is not None:
        reason = f"this store is a copy ({row.copy}); only one may send: trimtab adopt"
        return PauseSwitchState(True, reason, None, is_copy=True)
    if row.paused is None:
        return PauseSwitchState(False, "", None)
    return PauseSwitchState(row.paused, row.reason, row.at_s, row.hard)


_select_newest = cache(lambda: select(PauseRow).order_by(PauseRow.seq.desc()).limit(1))
_select_state = cache(lambda: select_with_facts(_select_newest(), copy=COPY_KEY))


@dataclass(frozen=True, slots=True)
class KillSwitchState:
    """State of both switches; `paused` is None, which counts as True, if they cannot be read. If
    `hard`, pending transactions are cancelled and allowances revoked, and nothing else is sent.
    """

    paused: bool | None
    reason: str
    hard: bool = False
    at_s: int | None = None


def pause_file(store_file: Path) -> Path:
    """Return the path of the file whose presence pauses the agent, such as trimtab.db.paused;
    creating it requires neither trimtab nor disk space.
    """
    return store_file.with_name(store_file.name + PAUSE_ENDING)


def has_pause_file(store_file: Path) -> bool:
    """Return whether anything lies at the path of the pause file, such as a folder or a link to
    nothing: all of it pauses. Raises OSError.
    """
    return _exists(pause_file(store_file))


class KillSwitch:
    """Kill switch: paused if the file exists, if the store is paused, or if either cannot
    be read.
    """

    def __init__(self, file: Path, store: PauseSwitch) -> None:
        self.file = file
        self._store = store

    def read(self) -> KillSwitchState:
        """Read the current state of both switches."""
        try:
            file_exists = _exists(self.file)
            store_pause = self._store.read()
            self._store.require_held()
        except (OSError, TrimtabError) as error:
            return KillSwitchState(None, f"the kill switch cannot be read: {failure_text(error)}")
        if file_exists and not store_pause.paused:
            return KillSwitchState(True, f"{self.file} exists")
        is_paused = store_pause.paused
        is_hard = is_paused and store_pause.hard
        return KillSwitchState(is_paused, store_pause.reason, is_hard, store_pause.at_s)

    def reason_and_time(self) -> str:
        """Return why it is on, and since when as far as the store says it."""
        state = self.read()
        return state.reason if state.at_s is None else f"{state.reason}, {format_time(state.at_s)}"

    def is_paused(self) -> bool | None:
        """True if paused, None if unreadable; transactions are sent only if False."""
        return self.read().paused

    def require_off(self) -> None:
        """Raise Refused unless the switch was read and is off."""
        state = self.read()
        if state.paused is False:
            return
        reason = state.reason
        measured = "cannot be read"
        remedy = "trimtab doctor"
        if state.paused:
            reason = f"the kill switch is on ({reason})"
            measured = "paused"
            remedy = "trimtab resume, or omit --send"
        verdict = Verdict("kill_switch", measured, "off", False)
        raise Refused(f"{reason}; nothing is sent", (verdict,), remedy)

    def is_hard(self) -> bool:
        """True if paused hard. False for an unreadable switch, which blocks cancels too."""
        state = self.read()
        return state.paused is True and state.hard

    def paused_at_or_after(self, at_s: int) -> bool:
        """Return whether a switch was turned on in this second or later, or cannot be read."""
        try:
            if _exists(self.file) and int(self.file.lstat().st_mtime) >= at_s:
                return True
            store_pause = self._store.read()
        except (OSError, TrimtabError):
            return True
        return store_pause.paused and (store_pause.at_s or 0) >= at_s

    def pause(self, reason: str, now_s: int, hard: bool = False) -> None:
        """Turn both switches on; raise PassingFault if neither can be written, or if a database that
        other machines share does not take it, by which this machine alone is paused.

        A hard pause needs the store, which records cancels; if it cannot be written, PassingFault
        is raised and the agent is only paused softly.
        """
        failure_texts = []
        try:
            os.close(os.open(self.file, PAUSE_FILE_FLAGS, 0o600))
            with suppress(OSError):  # a file of another account pauses too
                os.utime(self.file, (now_s, now_s))
        except OSError as error:
            failure_texts.append(f"{self.file}: {failure_words(error)}")
        try:
            self._store.pause(reason, now_s, hard)
        except SharedPauseFault as error:
            if not failure_texts:
                raise paused_here_alone_error(self.file, error) from error
            failure_texts.append(error.message)
        except TrimtabError as error:
            failure_texts.append(error.message)
            if hard and len(failure_texts) == 1:
                raise PassingFault(
                    f"paused by {self.file}, but not hard: {error.message}",
                    "free the store's disk, then trimtab pause --hard again",
                    code=ErrorCode.HARD_PAUSE,
                ) from error
        if len(failure_texts) > 1:
            raise PassingFault(
                f"cannot pause: {'; '.join(failure_texts)}",
                "stop the process itself (SIGTERM)",
                code=ErrorCode.PAUSE,
            )

    def require_adopted(self) -> None:
        """Raise Refused if the store is a copy: it stays paused whoever resumes it."""
        store_pause = self._store.read()
        if store_pause.is_copy:
            raise Refused(f"not resumed: {store_pause.reason}", remedy="trimtab adopt")

    def resume(self, reason: str, now_s: int) -> None:
        """Turn both switches off, the store's first, so that after a failure the file still
        pauses.
        """
        self._store.resume(reason, now_s)
        try:
            self.file.unlink(missing_ok=True)
        except OSError as error:
            raise PassingFault(
                f"cannot remove {self.file}: {failure_words(error)}",
                "remove it; nothing is sent while it exists",
                code=ErrorCode.PAUSE,
            ) from error


def paused_here_alone_error(pause_file_path: Path, error: TrimtabError) -> PassingFault:
    """Return the error of a pause that the shared database did not take."""
    # one that was replaced is refused; the database takes the pause of any other process
    is_replaced = error.code == ErrorCode.LOCK
    means = "with trimtab pause" if is_replaced else "once the database answers"
    return PassingFault(
        f"paused on this machine alone, by {pause_file_path}: {error.message}",
        f"other machines go on: pause again {means}, or stop their workers",
        code=ErrorCode.PAUSE,
    )


def _exists(file: Path) -> bool:
    try:
        file.lstat()
    except FileNotFoundError:
        return False
    return True
