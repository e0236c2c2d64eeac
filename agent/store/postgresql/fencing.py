"""Which process acts for a wallet, on any machine: locks of the database, each held by one session of a
process that gives signs of life.

A lock falls when its session ends, so a killed process frees it at once. One that is stopped or cut off
keeps its sessions; once its last sign of life is LEASE_S old, another process ends them all and takes
the lock, or the process itself ends the session that was cut off. Left alone, one that was stopped
while an answer came would keep the locks of its transaction: no time-out of the server ends a session
whose answer is not taken. What the late one then writes is refused by the epoch, which each taking of a
wallet's lock raises, and it sends nothing, because each send is preceded by a look whether the lock is
still held.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from agent.errors import ErrorCode
from agent.store.database.errors import database_errors
from agent.store.files.locks import LockHeld
from agent.store.migrations.schema import REVISIONS
from agent.store.postgresql.versions import mark_process

BEAT_S = 3.0
LEASE_S = 15.0
"""Age of the last sign of life, by the database's clock, at which a process counts as gone."""
NAME_PREFIX = "trimtab process "


def new_process_name() -> str:
    """Return the name by which the server knows the sessions of one process to one database."""
    return f"{NAME_PREFIX}{os.getpid()} {secrets.token_hex(4)}"


class LockSession:
    """The session of this process that holds its locks, with a thread that gives signs of life."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mutex = Lock()
        self._connection: Connection | None = None
        self._backend = 0
        self._mark = ""
        self._group_name = ""
        self._held: set[str] = set()
        self._ending = threading.Event()

    def take(self, name: str) -> str:
        """Take a lock; return the mark of the session that holds it. Raises LockHeld if another process that
        lives has it, PassingFault if the database cannot be reached.
        """
        with self._mutex, database_errors(f"take the lock {name}"):
            connection = self._open()
            if name in self._held:  # PostgreSQL would give it to this session once more
                raise LockHeld(
                    f"another part of this process has the lock {name}",
                    "wait until it is done",
                    code=ErrorCode.LOCK,
                )
            if not connection.execute(_TAKE, {"name": name}).scalar():
                holder = connection.execute(_HOLDER, {"name": name, "lease": LEASE_S}).first()
                if holder is not None and holder.is_gone:
                    parameters = {"backend": holder.backend, "prefix": NAME_PREFIX}
                    connection.execute(_END_SESSIONS, parameters)
                if holder is None or not holder.is_gone or not self._retaken(connection, name):
                    holder_name = "unknown" if holder is None else holder.name
                    raise LockHeld(
                        f"another process ({holder_name}) has the lock {name}",
                        "wait until it is done, or end it; a process that is gone loses it within"
                        f" {LEASE_S:.0f} s",
                        code=ErrorCode.LOCK,
                    )
            self._held.add(name)
            return self._mark

    def _retaken(self, connection: Connection, name: str) -> bool:
        """Return whether a lock could be taken whose session was ended just now."""
        for _ in range(RETAKING_TRIES):
            if connection.execute(_TAKE, {"name": name}).scalar():
                return True
            self._ending.wait(RETAKING_PAUSE_S)
        return False

    def release(self, name: str, mark: str) -> None:
        """Release a lock of the session with that mark, if it still lives."""
        with self._mutex, suppress(SQLAlchemyError):
            if self._connection is not None and self._mark == mark:
                self._held.discard(name)
                self._connection.execute(_RELEASE, {"name": name})

    def holds(self, mark: str) -> bool:
        """Return whether the session with that mark lives, and so has its locks."""
        with self._mutex:
            if self._connection is None or self._mark != mark:
                return False
            try:
                return bool(self._connection.execute(_BACKEND).scalar() == self._backend)
            except SQLAlchemyError:
                self._drop()
                return False

    def is_held_elsewhere(self, name: str) -> bool:
        """Return whether another process that lives has a lock. Raises PassingFault."""
        with self._mutex, database_errors(f"look for the lock {name}"):
            holder = self._open().execute(_HOLDER, {"name": name, "lease": LEASE_S}).first()
            return holder is not None and holder.backend != self._backend and not holder.is_gone

    def free_of(self, names: Sequence[str]) -> set[str]:
        """Return those locks that nobody has. Raises PassingFault."""
        with self._mutex, database_errors("look for free locks"):
            rows = self._open().execute(_FREE, {"names": list(names)})
            return {row.name for row in rows}

    def join(self, group_name: str) -> None:
        """Make this process one of those that share the wallets of a group; with an empty name of
        none. Raises PassingFault.
        """
        with self._mutex, database_errors("join the workers"):
            self._group_name = group_name
            connection = self._open()
            connection.execute(_JOIN, {"backend": self._backend, "group_name": group_name})

    def group_size(self) -> int:
        """Return the number of processes of the group that live, this one included. Raises
        PassingFault.
        """
        with self._mutex, database_errors("count the workers"):
            values = {"group_name": self._group_name, "lease": LEASE_S}
            return max(1, int(self._open().execute(_COUNT_GROUP, values).scalar() or 0))

    def close(self) -> None:
        """End the session and with it all locks."""
        self._ending.set()
        with self._mutex:
            if self._connection is not None:
                with suppress(SQLAlchemyError):
                    self._connection.execute(_FORGET, {"backend": self._backend})
            self._drop()

    def _open(self) -> Connection:
        if self._connection is not None:
            try:
                self._connection.execute(_BACKEND)
                return self._connection
            except SQLAlchemyError:
                self._drop()
        connection = self._new_session()
        name = f"{socket.gethostname()} process {os.getpid()} {secrets.token_hex(2)}"
        connection.execute(_CLEAN)
        connection.execute(
            _BEGIN, {"backend": self._backend, "name": name, "group_name": self._group_name}
        )
        mark_process(connection, REVISIONS[-1])
        self._connection = connection
        self._mark = secrets.token_hex(8)
        threading.Thread(
            target=self._beat, args=(self._mark,), daemon=True, name="trimtab beat"
        ).start()
        return connection

    def _new_session(self) -> Connection:
        for may_repeat in (True, False):
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # the pool gives it to nobody else
            try:
                self._backend = int(connection.execute(_BACKEND).scalar() or 0)
                break
            except DBAPIError as error:  # the pool's session may have ended just now
                connection.close()
                if not (may_repeat and error.connection_invalidated):
                    raise
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._connection.close()
        self._connection = None
        self._held.clear()

    def _beat(self, mark: str) -> None:
        """Give signs of life until the session ends."""
        while not self._ending.wait(BEAT_S):
            with self._mutex:
                if self._connection is None or self._mark != mark:
                    return
                try:
                    self._connection.execute(_BEAT, {"backend": self._backend})
                except SQLAlchemyError:
                    self._drop()
                    return


RETAKING_TRIES = 20
RETAKING_PAUSE_S = 0.1
_sessions: dict[int, LockSession] = {}
_sessions_lock = Lock()


def lock_session(engine: Engine) -> LockSession:
    """Return the session of this process for a database."""
    with _sessions_lock:
        return _sessions.setdefault(id(engine), LockSession(engine))


@contextmanager
def held_lock(session: LockSession, name: str) -> Iterator[str]:
    """Hold a lock; yield the mark of the session that holds it."""
    mark = session.take(name)
    try:
        yield mark
    finally:
        session.release(name, mark)


_TAKE = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 1))")
_RELEASE = text("SELECT pg_advisory_unlock(hashtextextended(:name, 1))")
_BACKEND = text("SELECT pg_backend_pid()")
_CLEAN = text(
    "DELETE FROM processes WHERE backend NOT IN (SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL)"
)
_BEGIN = text(
    "INSERT INTO processes (backend, name, group_name, beat)"
    " VALUES (:backend, :name, :group_name, clock_timestamp())"
    " ON CONFLICT (backend) DO UPDATE"
    " SET name = excluded.name, group_name = excluded.group_name, beat = excluded.beat"
)
_COUNT_GROUP = text(
    "SELECT count(*) FROM processes JOIN pg_stat_activity ON pg_stat_activity.pid = backend"
    " WHERE group_name = :group_name AND clock_timestamp() - beat <= make_interval(secs => :lease)"
)
_JOIN = text("UPDATE processes SET group_name = :group_name WHERE backend = :backend")
_FREE = text(
    "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE NOT EXISTS (SELECT FROM pg_locks"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(name, 1))"
)
_BEAT = text("UPDATE processes SET beat = clock_timestamp() WHERE backend = :backend")
_FORGET = text("DELETE FROM processes WHERE backend = :backend")
_END_SESSIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = :backend OR starts_with(application_name, :prefix)"
    " AND application_name <> current_setting('application_name') AND application_name ="
    " (SELECT application_name FROM pg_stat_activity WHERE pid = :backend)"
)
"""The sessions of a process that is gone; of this process the one that was cut off alone."""
_HOLDER = text(
    "SELECT held.pid AS backend, coalesce(processes.name, 'unknown') AS name,"
    " coalesce(clock_timestamp() - processes.beat > make_interval(secs => :lease), true) AS is_gone"
    " FROM pg_locks held LEFT JOIN processes ON processes.backend = held.pid"
    " WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1"
    " AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND ((held.classid::bigint << 32) | held.objid::bigint) = hashtextextended(:name, 1)"
)
"""A lock's key is in two halves, classid and objid (PostgreSQL documentation, pg_locks)."""
