"""Users of the dashboard, failed logins and the audit log, apart from the rows of the store: in a
file of their own beside a file of SQLite, in tables and under a lock of their own on PostgreSQL.

So an attacker who guesses passwords cannot delay the agent's writes, and a restored backup restores
neither removed users nor used codes.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Index,
    String,
    Text,
    and_,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from agent.errors import ConfigError, ErrorCode
from agent.store.tables import ROW_NUMBER_TYPE

FAILURES_BEFORE_LOCK = {"name": 5, "address": 20}
"""Number of failed logins that causes a lock-out: more for an address, which users may share."""
FIRST_LOCK_S = 60
LONGEST_LOCK_S = 900
"""Length of a first lock-out, which doubles with each further failure, up to the longest."""
FAILURE_MEMORY_S = 3_600
"""Seconds without a failure after which earlier ones no longer count."""
MAX_EVENTS = 50_000
"""Number of events kept of each kind."""


class UserTables(DeclarativeBase):
    """Base class of the tables of users."""


class UserRow(UserTables):
    """A user. The number of a removed user is not given again."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(32), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    totp_secret: Mapped[str] = mapped_column(Text)
    read_only: Mapped[bool] = mapped_column(Boolean)
    last_counter: Mapped[int] = mapped_column(BigInteger)
    created_s: Mapped[int] = mapped_column(BigInteger)
    __table_args__ = ({"sqlite_autoincrement": True},)


class LoginFailureRow(UserTables):
    """Failed logins in a row of a name, which is hashed, or of an address."""

    __tablename__ = "login_failures"
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(BigInteger)
    newest_s: Mapped[int] = mapped_column(BigInteger)
    locked_until_s: Mapped[int] = mapped_column(BigInteger)


class UserEventRow(UserTables):
    """An entry of the audit log."""

    __tablename__ = "user_events"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    at_s: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(24))
    user_name: Mapped[str] = mapped_column(Text)
    address: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    __table_args__ = (
        Index("user_events_of_kind", "kind", "seq"),
        {"sqlite_autoincrement": True},
    )


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


class UserDatabase(Protocol):
    """Transactions on the users of one store; those of one store exclude one another. Errors name
    the action.
    """

    def transaction(self, action: str) -> AbstractContextManager[Connection]:
        """Return a connection in a transaction."""

    def read(self, action: str) -> AbstractContextManager[Connection]:
        """Return a connection in a transaction that creates nothing, and without users finds none."""


class UserStore:
    """The users of a store; each method is a transaction of its own."""

    def __init__(self, database: UserDatabase) -> None:
        self.database = database

    def users(self) -> tuple[DashboardUser, ...]:
        """Return the users by name."""
        with self.database.read("read the users") as db:
            user_rows = db.execute(
                select(
                    UserRow.id,
                    UserRow.name,
                    UserRow.password_hash,
                    UserRow.totp_secret,
                    UserRow.read_only,
                    UserRow.created_s,
                )
            )
            users = (DashboardUser(*user_row) for user_row in user_rows)
            # databases order texts differently
            return tuple(sorted(users, key=lambda user: user.name))

    def add(
        self, name: str, password_hash: str, totp_secret: str, read_only: bool, now_s: int
    ) -> None:
        """Add a user. Raises ConfigError if the name is taken."""
        with self.database.transaction("add a user") as db:
            if _has_user(db, name):
                raise ConfigError(
                    f"{name}: there is already a user of this name",
                    "choose another, or remove it first: trimtab user remove",
                    code=ErrorCode.EXISTS,
                )
            new_row = {
                "name": name,
                "password_hash": password_hash,
                "totp_secret": totp_secret,
                "read_only": read_only,
                "last_counter": 0,
                "created_s": now_s,
            }
            db.execute(insert(UserRow), [new_row])
            # a new user is never locked out for guesses at the name of an earlier one
            db.execute(delete(LoginFailureRow).where(_is_of_name(name)))
            role = "read-only" if read_only else "full"
            _append_event(db, UserEvent(now_s, UserEventKind.ADDED, name, "", role))

    def remove(self, name: str, now_s: int) -> bool:
        """Remove a user; return False if there is none of this name."""
        with self.database.read("look for a user") as db:
            if not _has_user(db, name):
                return False
        with self.database.transaction("remove a user") as db:
            if not db.execute(delete(UserRow).where(UserRow.name == name)).rowcount:
                return False
            _append_event(db, UserEvent(now_s, UserEventKind.REMOVED, name, "", ""))
            return True

    def count_attempt(self, name: str, address: str, now_s: int) -> int:
        """Count a login as failed before it is checked, and return 0; or, during a lock-out, count
        nothing and return its remaining seconds.

        Each attempt is counted before its check, so that simultaneous attempts cannot evade the
        limit; `record_login` takes the count back.
        """
        with self.database.transaction("count a login") as db:
            db.execute(
                delete(LoginFailureRow).where(
                    LoginFailureRow.newest_s < now_s - FAILURE_MEMORY_S,
                    LoginFailureRow.locked_until_s < now_s,
                )
            )
            subjects = {"name": _name_hash(name), "address": address}
            row_by_kind = {
                row.kind: row
                for row in db.execute(
                    select(LoginFailureRow.__table__).where(
                        or_(*(_is_of_subject(kind, subject) for kind, subject in subjects.items()))
                    )
                )
            }
            locked_until_s = max((row.locked_until_s for row in row_by_kind.values()), default=0)
            if locked_until_s > now_s:
                return int(locked_until_s - now_s)
            for kind, subject in subjects.items():
                failure_count = 1
                if kind in row_by_kind:
                    failure_count += row_by_kind[kind].failures
                lock_s = _lock_out_s(kind, failure_count)
                new_row = {
                    "kind": kind,
                    "subject": subject,
                    "failures": failure_count,
                    "newest_s": now_s,
                    "locked_until_s": now_s + lock_s if lock_s else 0,
                }
                db.execute(delete(LoginFailureRow).where(_is_of_subject(kind, subject)))
                db.execute(insert(LoginFailureRow), [new_row])
            return 0

    def log_failed_login(self, name: str, address: str, reason: str, now_s: int) -> int:
        """Log a failed login; return the seconds of the lock-out that it causes, else 0.

        The name is logged only if a user has it: it may be a password typed into the wrong field.
        """
        with self.database.transaction("write a failed login") as db:
            logged_name = name if _has_user(db, name) else ""
            _append_event(db, UserEvent(now_s, UserEventKind.FAILED, logged_name, address, reason))
            longest_lock_s = 0
            for kind, subject in (("name", _name_hash(name)), ("address", address)):
                lock_s = _locked_until_s(db, kind, subject) - now_s
                if lock_s > 0:
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
        with self.database.transaction("write a login") as db:
            updated_count = db.execute(
                update(UserRow)
                .where(UserRow.id == user.id, UserRow.last_counter < code_counter)
                .values(last_counter=code_counter)
            ).rowcount
            if not updated_count:
                return False
            db.execute(delete(LoginFailureRow).where(_is_of_name(user.name)))
            db.execute(
                update(LoginFailureRow)
                .where(_is_of_subject("address", address))
                .values(failures=LoginFailureRow.failures - 1, locked_until_s=0)
            )
            _append_event(db, UserEvent(now_s, UserEventKind.LOGIN, user.name, address, ""))
            return True

    def record(self, event: UserEvent) -> None:
        """Append an event to the audit log."""
        with self.database.transaction("write the audit log") as db:
            _append_event(db, event)

    def events(self, limit: int) -> tuple[UserEvent, ...]:
        """Return the newest events, newest first."""
        with self.database.read("read the audit log") as db:
            event_rows = db.execute(
                select(UserEventRow.__table__).order_by(UserEventRow.seq.desc()).limit(limit)
            )
            return tuple(
                UserEvent(row.at_s, UserEventKind(row.kind), row.user_name, row.address, row.detail)
                for row in event_rows
            )

    def remaining_lock_s(self, name: str, now_s: int) -> int:
        """Return the remaining seconds of a user's lock-out; 0 without one."""
        with self.database.read("read the lock-outs") as db:
            return max(0, _locked_until_s(db, "name", _name_hash(name)) - now_s)


def _has_user(db: Connection, name: str) -> bool:
    return db.scalar(select(UserRow.id).where(UserRow.name == name)) is not None


def _locked_until_s(db: Connection, kind: str, subject: str) -> int:
    """Return when the lock-out of a name or an address ends; 0 without one."""
    query = select(LoginFailureRow.locked_until_s).where(_is_of_subject(kind, subject))
    return db.scalar(query) or 0


def _is_of_subject(kind: str, subject: str) -> ColumnElement[bool]:
    return and_(LoginFailureRow.kind == kind, LoginFailureRow.subject == subject)


def _is_of_name(name: str) -> ColumnElement[bool]:
    return _is_of_subject("name", _name_hash(name))


def _lock_out_s(kind: str, failure_count: int) -> int:
    """Return the length of the lock-out after this number of failures in a row; 0 for none."""
    excess_failures = failure_count - FAILURES_BEFORE_LOCK[kind]
    return (
        0 if excess_failures < 0 else min(LONGEST_LOCK_S, FIRST_LOCK_S << min(excess_failures, 10))
    )


def _append_event(db: Connection, event: UserEvent) -> None:
    new_row = {
        "at_s": event.at_s,
        "kind": event.kind.value,
        "user_name": event.user,
        "address": event.address,
        "detail": event.detail,
    }
    db.execute(insert(UserEventRow), [new_row])
    newest_dropped = (
        select(UserEventRow.seq)
        .where(UserEventRow.kind == event.kind.value)
        .order_by(UserEventRow.seq.desc())
        .limit(1)
        .offset(MAX_EVENTS)
        .scalar_subquery()
    )
    db.execute(
        delete(UserEventRow).where(
            UserEventRow.kind == event.kind.value, UserEventRow.seq <= newest_dropped
        )
    )


def _name_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
