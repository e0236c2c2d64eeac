"""The users of a wallet's store in a database of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from agent.store.database.errors import database_errors
from agent.store.postgresql.schema import WALLET_SETTING


class ServerUsers:
    """Transactions on the users of the store with this key. They wait for one another, not for the
    writes of the store.
    """

    def __init__(self, engine: Engine, key: str) -> None:
        self._engine = engine
        self._key = key

    @contextmanager
    def transaction(self, action: str) -> Iterator[Connection]:
        """Yield a connection in a transaction that excludes others on these users."""
        with database_errors(action), self._engine.begin() as db:
            db.execute(_ENTER_TO_WRITE, {"key": self._key})
            yield db

    @contextmanager
    def read(self, action: str) -> Iterator[Connection]:
        """Yield a connection in a transaction that only reads."""
        with database_errors(action), self._engine.begin() as db:
            db.exec_driver_sql("SET TRANSACTION READ ONLY")
            db.execute(_ENTER, {"key": self._key})
            yield db


_ENTER = text(f"SELECT set_config('{WALLET_SETTING}', :key, true)")
_ENTER_TO_WRITE = text(
    f"SELECT set_config('{WALLET_SETTING}', :key, true),"
    " pg_advisory_xact_lock(hashtextextended(:key, 2))"
)
