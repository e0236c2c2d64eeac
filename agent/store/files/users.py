"""Users of the dashboard, failed logins and the audit log, in a file of its own beside the store.

The file is separate from the store, so that an attacker who guesses passwords cannot delay the
agent's writes, and so that a restored backup restores neither removed users nor used codes.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.store.files.locks import require_trusted_writers

SUFFIX = ".users"
"""Suffix of the file's name, after the name of the store."""
BUSY_TIMEOUT_S = 10.0
"""How long a transaction waits for one of another process."""
FAILURES_BEFORE_LOCK = {"name": 5, "address": 20}
"""Number of failed logins that causes a lock-out: more for an address, which users may share."""
FIRST_LOCK_S = 60
LONGEST_LOCK_S = 900
"""Length of a first lock-out, which doubles with each further failure, up to the longest."""
FAILURE_MEMORY_S = 3_600
"""Seconds without a failure after which earlier ones no longer count."""
MAX_EVENTS = 50_000
"""Number of events kept of each kind."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS user (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, password_hash TEXT NOT NULL,
  totp_secret TEXT NOT NULL, read_only INTEGER NOT NULL, last_counter INTEGER NOT NULL DEFAULT 0,
  created_s INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS failure (
  kind TEXT NOT NULL, subject TEXT NOT NULL, failures INTEGER NOT NULL, newest_s INTEGER NOT NULL,
  locked_until_s INTEGER NOT NULL, PRIMARY KEY (kind, subject));
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at_s INTEGER NOT NULL, kind TEXT NOT NULL,
  user TEXT NOT NULL, address TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_kind ON event (kind, seq);
"""


class UserEventKind(StrEnum):
    """Kinds of events in the audit log."""

    ADDED = "user_added"
    REMOVED = "user_removed"
    LOGIN = "login"
    FAILED = "login_failed"
    LOCKED = "locked"
    LOGOUT = "logout"
    CONTROL = "control"
    REFUSED = "control_refused"
    TOKEN_ADDED = "token_added"  # noqa: S105
    TOKEN_REVOKED = "token_revoked"  # noqa: S105


@dataclass(frozen=True, slots=True)
class DashboardUser:
    """A user. `id` is never reused, not even for a later user of the same name."""

    id: int
    name: str
    password_hash: str
    totp_secret: str
    read_only: bool
    created_s: int


@dataclass(frozen=True, slots=True)
class UserEvent:
    """An entry of the audit log. `address` is empty for commands on this machine."""

    at_s: int
    kind: UserEventKind
    user: str
    address: str
    detail: str


def users_path(store_file: Path) -> Path:
    """Return the file of a store's users."""
    return store_file.with_name(store_file.name + SUFFIX)


class UserStore:
    """The file of users; each method is a transaction of its own. A missing file has no users; the
    first write creates it, with mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def users(self) -> tuple[DashboardUser, ...]:
        """Return the users by name."""
        with self._read() as db:
            user_rows = db.execute(
                "SELECT id, name, password_hash, totp_secret, read_only, created_s FROM user"
                " ORDER BY name"
            )
            return tuple(
                DashboardUser(
                    user_row[0],
                    user_row[1],
                    user_row[2],
                    user_row[3],
                    bool(user_row[4]),
                    user_row[5],
                )
                for user_row in user_rows
            )

    def add(
        self, name: str, password_hash: str, totp_secret: str, read_only: bool, now_s: int
    ) -> None:
        """Add a user. Raises ConfigError if the name is taken."""
        self._ensure_file()
        with self._transaction("add a user") as db:
            if db.execute("SELECT 1 FROM user WHERE name = ?", (name,)).fetchone():
                raise ConfigError(
                    f"{name}: there is already a user of this name",
                    "choose another, or remove it first: trimtab user remove",
                    code=ErrorCode.EXISTS,
                )
            db.execute(
                "INSERT INTO user (name, password_hash, totp_secret, read_only, created_s)"
                " VALUES (?, ?, ?, ?, ?)",
                (name, password_hash, totp_secret, read_only, now_s),
            )
            # a new user is never locked out for guesses at the name of an earlier one
            db.execute(
                "DELETE FROM failure WHERE kind = 'name' AND subject = ?", (_name_hash(name),)
            )
            role = "read-only" if read_only else "full"
            _append_event(db, UserEvent(now_s, UserEventKind.ADDED, name, "", role))

    def remove(self, name: str, now_s: int) -> bool:
        """Remove a user; return False if there is none of this name."""
        if not self._path.exists():
            return False
        with self._transaction("remove a user") as db:
            if not db.execute("DELETE FROM user WHERE name = ?", (name,)).rowcount:
                return False
            _append_event(db, UserEvent(now_s, UserEventKind.REMOVED, name, "", ""))
            return True

    def count_attempt(self, name: str, address: str, now_s: int) -> int:
        """Count a login as failed before it is checked, and return 0; or, during a lock-out, count
        nothing and return its remaining seconds.

        Each attempt is counted before its check, so that simultaneous attempts cannot evade the
        limit; `record_login` takes the count back.
        """
        with self._transaction("count a login") as db:
            db.execute(
                "DELETE FROM failure WHERE newest_s < ? AND locked_until_s < ?",
                (now_s - FAILURE_MEMORY_S, now_s),
            )
            subjects = (("name", _name_hash(name)), ("address", address))
            failures_and_lock_by_kind = {
                kind: db.execute(
                    "SELECT failures, locked_until_s FROM failure WHERE kind = ? AND subject = ?",
                    (kind, subject),
                ).fetchone()
                or (0, 0)
                for kind, subject in subjects
            }
            remaining_lock_s = (
                max(locked_until_s for _, locked_until_s in failures_and_lock_by_kind.values())
                - now_s
            )
            if remaining_lock_s > 0:
                return remaining_lock_s
            for kind, subject in subjects:
                failure_count = failures_and_lock_by_kind[kind][0] + 1
                lock_s = _lock_out_s(kind, failure_count)
                db.execute(
                    "INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?)",
                    (kind, subject, failure_count, now_s, now_s + lock_s if lock_s else 0),
                )
            return 0

    def log_failed_login(self, name: str, address: str, reason: str, now_s: int) -> int:
        """Log a failed login; return the seconds of the lock-out that it causes, else 0.

        The name is logged only if a user has it: it may be a password typed into the wrong field.
        """
        with self._transaction("write a failed login") as db:
            user_row = db.execute("SELECT 1 FROM user WHERE name = ?", (name,)).fetchone()
            logged_name = name if user_row else ""
            _append_event(db, UserEvent(now_s, UserEventKind.FAILED, logged_name, address, reason))
            longest_lock_s = 0
            for kind, subject in (("name", _name_hash(name)), ("address", address)):
                (locked_until_s,) = db.execute(
                    "SELECT locked_until_s FROM failure WHERE kind = ? AND subject = ?",
                    (kind, subject),
                ).fetchone() or (0,)
                if (lock_s := locked_until_s - now_s) > 0:
                    lock_text = f"{kind} for {lock_s} s"
                    _append_event(
                        db, UserEvent(now_s, UserEventKind.LOCKED, logged_name, address, lock_text)
                    )
                    longest_lock_s = max(longest_lock_s, lock_s)
            return longest_lock_s

    def record_login(
        self, user: DashboardUser, code_counter: int, address: str, now_s: int
    ) -> bool:
        """Use up a one-time code and log the login; return False if the code, or a later one, was
        used before, or if the user is gone.
        """
        with self._transaction("write a login") as db:
            updated_count = db.execute(
                "UPDATE user SET last_counter = ? WHERE id = ? AND last_counter < ?",
                (code_counter, user.id, code_counter),
            ).rowcount
            if not updated_count:
                return False
            db.execute(
                "DELETE FROM failure WHERE kind = 'name' AND subject = ?", (_name_hash(user.name),)
            )
            db.execute(
                "UPDATE failure SET failures = failures - 1, locked_until_s = 0"
                " WHERE kind = 'address' AND subject = ?",
                (address,),
            )
            _append_event(db, UserEvent(now_s, UserEventKind.LOGIN, user.name, address, ""))
            return True

    def record(self, event: UserEvent) -> None:
        """Append an event to the audit log."""
        self._ensure_file()
        with self._transaction("write the audit log") as db:
            _append_event(db, event)

    def events(self, limit: int) -> tuple[UserEvent, ...]:
        """Return the newest events, newest first."""
        with self._read() as db:
            event_rows = db.execute(
                "SELECT at_s, kind, user, address, detail FROM event ORDER BY seq DESC LIMIT ?",
                (limit,),
            )
            return tuple(
                UserEvent(event_row[0], UserEventKind(event_row[1]), *event_row[2:])
                for event_row in event_rows
            )

    def remaining_lock_s(self, name: str, now_s: int) -> int:
        """Return the remaining seconds of a user's lock-out; 0 without one."""
        with self._read() as db:
            row = db.execute(
                "SELECT locked_until_s FROM failure WHERE kind = 'name' AND subject = ?",
                (_name_hash(name),),
            ).fetchone()
            return max(0, row[0] - now_s) if row else 0

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        if not self._path.exists():
            with closing(sqlite3.connect(":memory:")) as db:
                db.executescript(_SCHEMA)
                yield db
            return
        with self._transaction("read the users") as db:
            yield db

    def _ensure_file(self) -> None:
        if not self._path.exists():
            with _file_errors("create the users"):
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))

    @contextmanager
    def _transaction(self, action: str) -> Iterator[sqlite3.Connection]:
        require_trusted_writers(self._path, "the users")
        if self._path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{self._path}: other users of this machine can read it",
                f"chmod 600 {self._path}",
                code=ErrorCode.ACCESS,
            )
        with (
            _file_errors(action),
            closing(sqlite3.connect(self._path, BUSY_TIMEOUT_S, isolation_level=None)) as db,
        ):
            db.executescript(_SCHEMA)
            db.execute("BEGIN IMMEDIATE")
            with db:
                yield db


def _lock_out_s(kind: str, failure_count: int) -> int:
    """Return the length of the lock-out after this number of failures in a row; 0 for none."""
    excess_failures = failure_count - FAILURES_BEFORE_LOCK[kind]
    return (
        0 if excess_failures < 0 else min(LONGEST_LOCK_S, FIRST_LOCK_S << min(excess_failures, 10))
    )


def _append_event(db: sqlite3.Connection, event: UserEvent) -> None:
    row = (event.at_s, event.kind.value, event.user, event.address, event.detail)
    db.execute("INSERT INTO event (at_s, kind, user, address, detail) VALUES (?, ?, ?, ?, ?)", row)
    db.execute(
        "DELETE FROM event WHERE kind = ? AND seq <= (SELECT seq FROM event WHERE kind = ?"
        " ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (event.kind.value, event.kind.value, MAX_EVENTS),
    )


def _name_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@contextmanager
def _file_errors(action: str) -> Iterator[None]:
    """Turn database and file errors inside into OperatorNeeded."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise OperatorNeeded(
            f"users: cannot {action}: {error}",
            "make the file writable for this user, or free space on its disk; if it is damaged,"
            " remove it and add the users again",
            code=ErrorCode.STORE,
        ) from error
