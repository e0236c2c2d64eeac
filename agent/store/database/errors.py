"""Errors of the database as errors of the agent: which may pass by themselves, and their remedies."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from agent.errors import ErrorCode, OperatorNeeded, PassingFault
from agent.store.migrations.schema import APPEND_ONLY_TABLES

_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("disk is full", "no space left"),
        (
            "free space on the disk of the store, then run the command again; earlier writes are"
            " safe"
        ),
    ),
    (
        ("is locked", "busy", "lock timeout"),
        "another program has locked the store; close it and run the command again",
    ),
    (
        ("disk i/o error", "input/output error"),
        "check the disk and its mount, then run the command again",
    ),
    (
        ("malformed", "not a database", "corrupt"),
        "keep the file, restore a backup, compare it with the chain",
    ),
    (
        ("too many clients", "too many connections", "connection slots"),
        (
            "end programs that are not needed, or raise max_connections of PostgreSQL: each process"
            " takes up to 20"
        ),
    ),
    (
        ("starting up", "shutting down"),
        "wait until PostgreSQL takes connections again",
    ),
    (
        ("does not support ssl", "no encryption", "certificate"),
        "correct sslmode and the certificates in store.url, or switch TLS on at the server",
    ),
    (
        ("must be owner of",),
        "name the role that created the tables in store.url",
    ),
    (
        ("in a read-only transaction",),
        "store.url names a standby of PostgreSQL; name its primary",
    ),
    (
        ("unsupported startup parameter",),
        "store.url names PgBouncer or another pooler, which cannot keep sessions; name PostgreSQL itself",
    ),
    (
        ("password authentication", "pg_hba.conf", 'role "', 'database "'),
        "correct user, password and database in store.url",
    ),
    (
        ("connection to server", "failed to resolve host"),
        "start PostgreSQL, or correct host and port in store.url",
    ),
    (
        ('relation "',),
        (
            "restore the database from a backup, or name one with all tables of trimtab that the"
            " role may see"
        ),
    ),
    (
        ("readonly", "read-only", "permission denied", "unable to open"),
        "make the store's file and its folder writable for this user",
    ),
)
_GENERAL_REMEDY = (
    "nothing is sent while the store cannot be written; repair it and run the command again"
)


def remedy(error_text: str) -> str:
    """Return the remedy for a database's error message."""
    lower_text = error_text.lower()
    return next(
        (
            remedy_text
            for phrases, remedy_text in _REMEDIES
            if any(phrase in lower_text for phrase in phrases)
        ),
        _GENERAL_REMEDY,
    )


_PASSING_SQLITE_ERRORS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""Errors of the disk, the memory, the file's permissions and other programs. The others tell of a
damaged or foreign database.
"""


@contextmanager
def database_errors(action: str) -> Iterator[None]:
    """Turn database and file errors inside into PassingFault, or OperatorNeeded if the database is
    damaged, with a remedy; `action` is named in the message.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        # SQLAlchemy's message repeats the statement with all parameters
        driver_error = error.orig if isinstance(error, DBAPIError) else error
        error_text = " ".join(str(driver_error).split())
        if any(name in error_text for name in _TAKEN_PLACES):
            raise OperatorNeeded(
                f"store: cannot {action}: another process serves this wallet ({error_text})",
                "let only one of them run; trimtab status names what is open",
                code=ErrorCode.LOCK,
            ) from error
        if right := _missing_right(driver_error, error_text):
            role, rights_and_object = right
            raise OperatorNeeded(
                f"store: cannot {action}: the role {role} lacks rights: {error_text}",
                f"let its owner do: GRANT {rights_and_object} TO {role}",
                code=ErrorCode.STORE,
            ) from error
        error_type = PassingFault if may_pass(driver_error) else OperatorNeeded
        raise error_type(
            f"store: cannot {action}: {error_text}", remedy(error_text), code=ErrorCode.STORE
        ) from error


_RIGHTS = {
    "table": "SELECT, INSERT, UPDATE, DELETE",
    "sequence": "USAGE",
    "schema": "USAGE, CREATE",
    "database": "CREATE",
    "function": "EXECUTE",
}
"""What trimtab needs of each kind of object of PostgreSQL."""
_DENIED = re.compile(rf"permission denied for ({'|'.join(_RIGHTS)}) (\w+)")


def _missing_right(error: BaseException | None, error_text: str) -> tuple[str, str] | None:
    """Return the role that lacks a right on PostgreSQL (SQLSTATE 42501), and the right with its
    object as GRANT takes them; None for another error. A log only grows.
    """
    role = getattr(error, ROLE_ATTRIBUTE, None)
    if "no schema has been selected" in error_text:  # what a role may not use is not there for it
        error_text = "permission denied for schema public"
    denied = _DENIED.match(error_text)
    if role is None or denied is None:
        return None
    kind, name = denied.groups()
    rights = "SELECT, INSERT" if name in APPEND_ONLY_TABLES else _RIGHTS[kind]
    return f'"{role}"', f"{rights} ON {kind.upper()} {name}"


ROLE_ATTRIBUTE = "trimtab_role"
"""Attribute of an error of PostgreSQL with the role that met it."""
_TAKEN_PLACES = (
    *("one_open_cycle", "one_open_intent_per_nonce", "one_open_cancel_per_intent"),
    *("UNIQUE constraint failed: cycles.state", "UNIQUE constraint failed: intents.nonce"),
    "UNIQUE constraint failed: intents.replaces",
)
"""What the databases say of the indexes that let one process at a time act for a wallet."""


def may_pass(error: BaseException | None) -> bool:
    """Return whether an error of a database or file may pass by itself."""
    if isinstance(error, sqlite3.Error):
        # the low byte of an extended code is its kind (sqlite.org/rescode.html)
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in (
            _PASSING_SQLITE_ERRORS
        )
    if error is not None and hasattr(error, "sqlstate"):
        return may_server_fault_pass(error.sqlstate, str(error))
    return isinstance(error, (OSError, PoolTimeout))


_PASSING_CLASSES = ("08", "53", "57", "58")
"""Classes of SQLSTATE (PostgreSQL documentation, appendix A) of a lost connection, too little disk,
memory or connections, the end by an operator or a time-out, and a fault of the server's system.
"""
_PASSING_STATES = frozenset({"25006", "25P03", "25P04", "40001", "40P01", "55P03"})
"""A standby that is not the primary yet, a transaction that stood still or took too long, a conflict
of two transactions, a deadlock, a lock that came too late.
"""
_DATABASE_DROPPED = "57P04"
_REFUSED_CONNECTIONS = (
    *("password authentication", "no password supplied", "pg_hba.conf", "does not exist"),
    *("unsupported startup parameter", "not permitted to log in", "certificate", "is not known"),
    "does not support SSL",
)
"""What a server says of a connection that it will refuse again; such errors have no SQLSTATE."""


def may_server_fault_pass(sqlstate: str | None, error_text: str) -> bool:
    """Return whether an error of PostgreSQL passes by itself. One without a SQLSTATE is of the
    connection: it passes unless the server refused it.
    """
    if sqlstate is None:
        return not any(phrase in error_text for phrase in _REFUSED_CONNECTIONS)
    if sqlstate == _DATABASE_DROPPED:
        return False
    return sqlstate in _PASSING_STATES or sqlstate.startswith(_PASSING_CLASSES)


def damaged_row_error(reason: str, place: str = "a row") -> OperatorNeeded:
    """Return the error of a row that this program has not written."""
    return OperatorNeeded(
        f"store: {place} is damaged: {reason}",
        "keep the file, restore a backup, compare it with the chain",
        code=ErrorCode.DAMAGED,
    )
