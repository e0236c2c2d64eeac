"""One database of one wallet: reads and writes as transactions of their own, every failure said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from agent.store.failures import reported

WRITE = "trimtab_write"
"""Execution option of connections that will write."""


class Database:
    """Transactions on the store. `coin` is the wrapped native coin: native coin comes from no other token's Withdrawal."""

    def __init__(self, engine: Engine, wallet: str, coin: str = "") -> None:
        self.engine = engine
        self.wallet = wallet
        self.coin = coin
        self._writing = engine.execution_options(**{WRITE: True})

    def close(self) -> None:
        """Lets go of the database."""
        self.engine.dispose()

    @contextmanager
    def _read(self, what: str) -> Iterator[Connection]:
        with reported(what), self.engine.connect() as db, db.begin():
            yield db

    @contextmanager
    def _write(self, what: str) -> Iterator[Connection]:
        with reported(what), self._writing.connect() as db, db.begin():
            yield db
