"""The file of users beside a store in a file, whose name ends in `.users`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, PassingFault
from agent.store.database.errors import may_pass
from agent.store.files.locks import require_trusted_writers
from agent.store.users import UserStore, UserTables

SUFFIX = ".users"
"""Suffix of the file's name, after the name of the store."""
BUSY_TIMEOUT_S = 10.0
"""How long a transaction waits for one of another process."""


def users_path(store_file: Path) -> Path:
    """Return the file of a store's users."""
    return store_file.with_name(store_file.name + SUFFIX)


def open_user_file(path: Path) -> UserStore:
    """Return the users of a file. A missing one has no users; the first write creates it, with mode
    0600.
    """
    return UserStore(UserFile(path))


class UserFile:
    """Transactions on a file of users."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def read(self, action: str) -> Iterator[Connection]:
        """Yield a connection in a transaction that only reads, on a database in memory if there is no
        file or it is empty. Raises as `transaction` does.
        """
        with _file_errors(action):
            has_users = self._path.exists() and self._path.stat().st_size > 0
            if has_users:
                self._require_private()
        if has_users:
            with _file_errors(action), _new_engine(self._path, "BEGIN").begin() as db:
                yield db
            return
        with create_engine("sqlite://").connect() as db:
            UserTables.metadata.create_all(db)
            yield db

    @contextmanager
    def transaction(self, action: str) -> Iterator[Connection]:
        """Yield a connection in a transaction that excludes others. Raises ConfigError if other
        users of the machine can read the file, PassingFault if it cannot be used now,
        OperatorNeeded if it is damaged.
        """
        with _file_errors(action):
            if not self._path.exists():
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))
            self._require_private()
        with _file_errors(action), _new_engine(self._path, "BEGIN IMMEDIATE").begin() as db:
            UserTables.metadata.create_all(db)
            yield db

    def _require_private(self) -> None:
        require_trusted_writers(self._path, "the users")
        if self._path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{self._path}: other users of this machine can read it",
                f"chmod 600 {self._path}",
                code=ErrorCode.ACCESS,
            )


def _new_engine(path: Path, begin_statement: str) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        connect_args={"timeout": BUSY_TIMEOUT_S},
    )
    event.listen(engine, "connect", _leave_transactions_to_us)

    def begin(connection: PoolProxiedConnection) -> None:
        driver_connection: Any = connection.dbapi_connection
        driver_connection.execute(begin_statement)

    engine.dialect.do_begin = begin  # type: ignore[assignment, method-assign]  # hook of the dialect
    return engine


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None


@contextmanager
def _file_errors(action: str) -> Iterator[None]:
    """Turn database and file errors inside into PassingFault, or OperatorNeeded if the file is
    damaged.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        # SQLAlchemy's message repeats the statement with all parameters
        driver_error = error.orig if isinstance(error, DBAPIError) else error
        message = f"users: cannot {action}: {driver_error}"
        if may_pass(driver_error):
            raise PassingFault(
                message,
                "close another program that locks the file, make it writable for this user, or free"
                " space on its disk; then try again",
                code=ErrorCode.STORE,
            ) from error
        raise _damaged_file_error(message) from error


def _damaged_file_error(message: str) -> OperatorNeeded:
    return OperatorNeeded(message, "remove the file and add the users again", code=ErrorCode.STORE)
