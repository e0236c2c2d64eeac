"""Database of one wallet: transactions, and a queue of writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Connection, Engine

from agent.errors import PassingFault
from agent.store.database.errors import database_errors

T = TypeVar("T")
Args = TypeVarTuple("Args")


WRITE_FLAG = "trimtab_write"
"""Key in `Connection.info` while a transaction that writes is open."""


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that holds SQLite's write lock from the start."""
    with engine.connect() as db:
        connection_info = db.info
        connection_info[WRITE_FLAG] = True
        try:
            with db.begin():
                yield db
        finally:
            del connection_info[WRITE_FLAG]


LIVE = "live"
PAPER = "paper"
"""Kinds of data of a store."""
LaterWrite = Callable[[Connection], object]
"""A write of `Database.write_later`: it runs in a transaction that it does not open."""


class Database:
    """Transactions on the database of one wallet, one per read and write.

    While `queueing`, what `write_later` gets is queued: the next write flushes the queue, in one
    transaction before its own. So a look that sends nothing costs one commit, and nothing leaves
    before what led to it is on disk. Reads do not see the queue, unless they `flush` it first.

    `secret_place` is the path beside which the secret of the seals is; None without seals.
    `wrapped_native` is the address of the wrapped native coin; only its Withdrawal events count as
    unwrapping. `store_kind` is the kind of the ledger, live or paper; a store whose newest book has
    the other kind opens a new book at the chain's balances.
    """

    def __init__(
        self,
        engine: Engine,
        wallet: str,
        wrapped_native: str = "",
        store_kind: str = LIVE,
        secret_place: Path | None = None,
    ) -> None:
        self.engine = engine
        self.wallet = wallet
        self.wrapped_native = wrapped_native
        self.store_kind = store_kind
        self.secret_place = secret_place
        self._is_queueing = False
        self._queue: list[LaterWrite] = []
        self._queue_lock = threading.Lock()

    def close(self) -> None:
        """Flush the queue and close the database."""
        try:
            self.flush()
        finally:
            self.engine.dispose()

    @property
    def write_patience_s(self) -> float:
        """How long a write that must not fail is repeated; 0 for a file, which other machines do not
        share.
        """
        return 0.0

    def serving(self) -> AbstractContextManager[object]:
        """Return a context in which no other machine serves the wallet: a file is on one machine."""
        return nullcontext()

    def acting(self) -> AbstractContextManager[object]:
        """Return a context in which no other machine acts for the wallet, as `serving`."""
        return nullcontext()

    def is_served(self) -> bool | None:
        """Return whether a run serves the wallet, on any machine; None where files of this machine
        say so.
        """
        return None

    def require_held(self) -> None:
        """Raise LockHeld if another machine has taken over the wallet since `acting` began."""

    def give_up(self) -> None:
        """Leave the wallet to another machine though a look hangs, if several may share the store."""

    @contextmanager
    def read(self, action: str) -> Iterator[Connection]:
        """Yield a connection in a read transaction; error messages contain `action`."""
        with database_errors(action), self.read_transaction() as db:
            yield db

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that sees one state of the store."""
        with self.engine.connect() as db, db.begin():
            yield db

    def write_transaction(self) -> AbstractContextManager[Connection]:
        """Return a connection in a transaction that excludes other writers of the store."""
        return write_transaction(self.engine)

    @contextmanager
    def write(
        self, action: str, keeps_cache: bool = False, *, joins_queue: bool = False
    ) -> Iterator[Connection]:
        """Yield a connection in a write transaction, durable at its end. The queue is flushed
        before it, or with `joins_queue` in it. `keeps_cache` keeps the cached answers of a
        MemoryDatabase.
        """
        if not joins_queue:
            self.flush()
        with (
            self._taken_queue(joins_queue) as queued_writes,
            database_errors(action),
            self.write_transaction() as db,
        ):
            for queued_write in queued_writes:
                queued_write(db)
            yield db

    def write_later(self, action: str, write: LaterWrite, keeps_cache: bool = False) -> None:
        """Queue a write while `queueing`, else run it in a transaction of its own."""
        if self._is_queueing:
            with self._queue_lock:
                self._queue.append(write)
            return
        with self.write(action, keeps_cache) as db:
            write(db)

    @contextmanager
    def queueing(self) -> Iterator[None]:
        """Queue what `write_later` gets inside. The queue outlives the context, for the next write
        to take along; a caller without one calls `flush`.
        """
        self._is_queueing = True
        try:
            yield
        finally:
            self._is_queueing = False

    def flush(self) -> None:
        """Write the queue in one transaction. If it fails, nothing of it is written. After a
        PassingFault or an interrupt the queue stays for the next write, after other errors it is
        empty.
        """
        if not self._queue:
            return
        try:
            with self.write("write what a look left", joins_queue=True):
                pass
        except PassingFault:
            raise
        except Exception:
            with self._queue_lock:
                self._queue = []
            raise

    @contextmanager
    def _taken_queue(self, is_taken: bool) -> Iterator[Sequence[LaterWrite]]:
        """Yield the queued writes, which are queued again if the context fails."""
        queued_writes: list[LaterWrite] = []
        if is_taken:
            with self._queue_lock:
                queued_writes = self._queue
                self._queue = []
        try:
            yield queued_writes
        except BaseException:
            with self._queue_lock:
                self._queue = [*queued_writes, *self._queue]
            raise

    def query(self, action: str, run_query: Callable[[Connection, *Args], T], *args: *Args) -> T:
        """Return `run_query(connection, *args)`; a MemoryDatabase caches it until a write."""
        with self.read(action) as db:
            return run_query(db, *args)

    def query_until(
        self,
        action: str,
        run_query: Callable[[Connection, int, *Args], tuple[T, float]],
        time_or_block: int,
        *args: *Args,
    ) -> T:
        """Return the answer of `run_query` at a time or block; a MemoryDatabase caches it until a
        write, or the expiry that `run_query` returns.
        """
        with self.read(action) as db:
            return run_query(db, time_or_block, *args)[0]


class MemoryDatabase(Database):
    """An in-memory database for one user, with one connection; answers are cached until a write."""

    def __init__(self, engine: Engine, wallet: str, wrapped_native: str) -> None:
        super().__init__(engine, wallet, wrapped_native)
        self.cached_answers: dict[Hashable, Any] = {}
        self._db = engine.connect()

    def close(self) -> None:
        """Close the connection and drop the cache."""
        self._db.close()
        super().close()

    @contextmanager
    def read(self, action: str) -> Iterator[Connection]:
        """Yield the connection in a transaction."""
        with database_errors(action), self._db.begin():
            yield self._db

    @contextmanager
    def write(
        self, action: str, keeps_cache: bool = False, *, joins_queue: bool = False
    ) -> Iterator[Connection]:
        """Yield the connection in a transaction; its end clears the cache."""
        with self.read(action) as db:
            yield db
        if not keeps_cache:
            self.cached_answers.clear()

    @contextmanager
    def queueing(self) -> Iterator[None]:
        """Queue nothing: a commit in memory costs nothing."""
        yield

    def query(self, action: str, run_query: Callable[[Connection, *Args], T], *args: *Args) -> T:
        """Return `run_query(connection, *args)`, cached."""
        if (run_query, args) not in self.cached_answers:
            with self.read(action) as db:
                self.cached_answers[run_query, args] = run_query(db, *args)
        answer: T = self.cached_answers[run_query, args]
        return answer

    def query_until(
        self,
        action: str,
        run_query: Callable[[Connection, int, *Args], tuple[T, float]],
        time_or_block: int,
        *args: *Args,
    ) -> T:
        """Return the answer of `run_query` at a time or block, cached while valid."""
        cached_answer: tuple[int, T, float] | None = self.cached_answers.get((run_query, args))
        if cached_answer is None or not cached_answer[0] <= time_or_block < cached_answer[2]:
            with self.read(action) as db:
                cached_answer = self.cached_answers[run_query, args] = (
                    time_or_block,
                    *run_query(db, time_or_block, *args),
                )
        return cached_answer[1]
