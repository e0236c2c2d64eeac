"""One database of one wallet: reads and writes as transactions of their own, every failure said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from agent.store.failures import reported

WRITE = "trimtab_write"
"""Key in `Connection.info` while a transaction that writes is open."""


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that has SQLite's write lock from its first moment."""
    with engine.connect() as db:
        marks = db.info
        marks[WRITE] = True
        try:
            with db.begin():
                yield db
        finally:
            del marks[WRITE]


class Database:
    """Transactions on the store. `coin` is the wrapped native coin: native coin comes from no other token's Withdrawal."""

    def __init__(self, engine: Engine, wallet: str, coin: str = "") -> None:
        self.engine = engine
        self.wallet = wallet
        self.coin = coin

    def close(self) -> None:
        """Lets go of the database."""
        self.engine.dispose()

    @contextmanager
    def _read(self, what: str) -> Iterator[Connection]:
        with reported(what), self.engine.connect() as db, db.begin():
            yield db

    @contextmanager
    def _write(self, what: str) -> Iterator[Connection]:
        with reported(what), writing(self.engine) as db:
            yield db
