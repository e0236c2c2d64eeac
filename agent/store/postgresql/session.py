"""Transactions of one wallet's store in a database of PostgreSQL.

Each names the key of its store, by which row security shows it the rows of that store alone. Writes of
one store exclude one another by an advisory lock, as those of a file of SQLite do; reads see one state.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock, RLock
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    ExceptionContext,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, PassingFault, TrimtabError
from agent.store.database.connection import LIVE, Database, LaterWrite
from agent.store.database.errors import ROLE_ATTRIBUTE, database_errors
from agent.store.database.facts import (
    delete_facts,
    facts_with_prefix,
    find_fact,
    read_facts,
    write_facts,
)
from agent.store.files.locks import LockHeld
from agent.store.files.secret import ensure_secret, find_secret, secret_path
from agent.store.postgresql.fencing import held_lock, lock_session, new_process_name
from agent.store.postgresql.schema import WALLET_SETTING
from agent.store.tables import FactRow
from agent.units import DAY_S

DRIVER = "postgresql+psycopg"
LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 60_000
IDLE_TIMEOUT_MS = 10_000
"""Time after which the server ends the session of a process that stands still in a transaction, whose
locks others wait for.
"""
CONNECT_TIMEOUT_S = 10
POOL_SIZE = 4
MAX_CONNECTIONS = 20
SETTLING_S = 10.0
"""How long the outcome of a commit is asked for whose answer was lost."""
SETTLING_PAUSE_S = 0.2
MIGRATION_LOCK = zlib.crc32(b"trimtab migration")
"""Advisory lock of the process that creates or migrates the tables."""
SECRET_CHECK_KEY = "secret"  # noqa: S105
"""Key of the check by which a machine knows whether it has the store's secret."""
SERVING_KEY = "server"
"""Key of the mark of the session that serves the wallet, or served it last."""
PAUSE_PATIENCE_S = 20.0
"""How long a pause is repeated that the database does not take: longer than a transaction may stand
still.
"""
EPOCH_KEY = "epoch"
"""Key of the mark of the session that acts for the wallet, or acted last."""
WRITER_KEY_PREFIX = "writer:"
"""Prefix of the key of the mark that the last write of an open store left: random digits, and the
Unix seconds of that write after an @.
"""
MARK_LIFE_S = 7 * DAY_S
"""Age from which the mark of a write is that of a killed process: one that lives asks for the outcome
of a write as long as it does not know it.
"""
_SESSION_SETTING = "trimtab.session"
_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        f"{_SESSION_SETTING}=1",
        f"lock_timeout={LOCK_TIMEOUT_MS}",
        f"statement_timeout={STATEMENT_TIMEOUT_MS}",
        f"idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS}",
        "synchronous_commit=on",
    )
)
CONNECT_ARGUMENTS = {
    "options": _OPTIONS,
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_RIGHTS_STATES = ("42501", "3F000")
"""SQLSTATE of a right that a role lacks, and of a schema that is hidden without one."""
LONGEST_REST_S = 1.0
"""Time after which a session that nobody has used is asked whether it still lives."""
_USED_S = "trimtab_used_s"
"""Key of the time of a session's last use, by the monotonic clock."""
_engines: dict[str, Engine] = {}
_engines_lock = Lock()


def server_engine(database_url: URL) -> Engine:
    """Return the engine of a database, one for all portfolios of the process. Raises ConfigError for
    another driver than psycopg, or without it.
    """
    if database_url.drivername not in (DRIVER, "postgresql"):
        raise ConfigError(
            f"store.url: the driver {database_url.drivername!r} is not supported",
            f"write {DRIVER}://USER@HOST/DATABASE",
        )
    database_url = database_url.set(drivername=DRIVER)
    address = database_url.render_as_string(hide_password=False)
    with _engines_lock:
        if address not in _engines:
            _engines[address] = _new_engine(database_url)
        return _engines[address]


def _name_role(context: ExceptionContext) -> None:
    """Leave the role with the error of a right that it lacks, for the remedy."""
    sqlstate = getattr(context.original_exception, "sqlstate", None)
    if context.connection is not None and sqlstate in _RIGHTS_STATES:
        driver_connection: Any = context.connection.connection.dbapi_connection
        setattr(context.original_exception, ROLE_ATTRIBUTE, driver_connection.info.user)


def _note_use(driver_connection: Any, pool_entry: ConnectionPoolEntry) -> None:
    pool_entry.info[_USED_S] = time.monotonic()
    if driver_connection is not None and not driver_connection.closed:
        driver_connection.autocommit = False


def _require_alive(
    dialect: Dialect, driver_connection: DBAPIConnection, pool_entry: ConnectionPoolEntry, _: object
) -> None:
    """Let the pool open new sessions if one that has rested has ended. One that was used just now is
    not asked, which would cost each transaction a round trip.
    """
    now_s = time.monotonic()
    if now_s - pool_entry.info.get(_USED_S, now_s) < LONGEST_REST_S:
        return
    try:
        dialect.do_ping(driver_connection)
    except dialect.loaded_dbapi.Error:
        raise InvalidatePoolError from None


def _new_engine(database_url: URL) -> Engine:
    try:
        engine = create_engine(
            database_url,
            connect_args={**CONNECT_ARGUMENTS, "application_name": new_process_name()},
            pool_size=POOL_SIZE,
            max_overflow=MAX_CONNECTIONS - POOL_SIZE,
        )
        event.listen(engine, "handle_error", _name_role)
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", partial(_require_alive, engine.dialect))
        return engine
    except ModuleNotFoundError:
        raise ConfigError(
            "store.url: the driver of PostgreSQL is not installed",
            "install trimtab with the extra fleet: pip install 'trimtab[fleet]'",
        ) from None


def require_fit_server(engine: Engine) -> None:
    """Raise OperatorNeeded if rows of other wallets could be seen, or the session's settings are
    lost: a superuser is exempt from row security, and a pooler gives each transaction another session.
    A session of the pool that has ended just now is replaced.
    """
    for may_repeat in (True, False):
        try:
            with engine.connect() as db:
                row = db.execute(_SELECT_SESSION, {"setting": _SESSION_SETTING}).one()
            break
        except DBAPIError as error:
            if not (may_repeat and error.connection_invalidated):
                raise
    if row.session != "1":
        raise OperatorNeeded(
            "store.url: a pooler such as PgBouncer in transaction mode is between this process and"
            " PostgreSQL, and does not keep the session",
            "name PostgreSQL itself",
            code=ErrorCode.STORE,
        )
    if row.is_exempt:
        raise OperatorNeeded(
            f"store.url: the role {row.rolname} is a superuser or bypasses row security, so it would"
            " see the rows of every wallet",
            "create a role for trimtab: CREATE ROLE trimtab LOGIN; GRANT CREATE ON SCHEMA public TO"
            " trimtab",
            code=ErrorCode.STORE,
        )


def lock_tables(db: Connection) -> None:
    """Exclude other processes that create or migrate the tables, until the end of the transaction."""
    db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})


def store_key(chain_id: int, wallet: str, store_kind: str) -> str:
    """Return the key of a wallet's store: chain and address, after the kind of data unless live."""
    key = f"{chain_id}:{wallet.lower()}"
    return key if store_kind == LIVE else f"{store_kind}:{key}"


def is_known_wallet(url: str, key: str) -> bool:
    """Return whether the wallet of a key has a store in a database."""
    with (
        database_errors("look for the store"),
        server_engine(make_url(url)).connect() as db,
        db.begin(),
    ):
        if not db.dialect.has_table(db, FactRow.__tablename__):
            return False
        db.execute(_ENTER, {"key": key})
        return find_fact(db, "wallet") is not None


def require_same_secret(database: Database) -> None:
    """Raise OperatorNeeded if this machine does not have the secret that seals rows of the store,
    because every machine would take the rows of the others for those of an intruder. The first one
    creates it.
    """
    place = database.secret_place
    if place is None:
        return
    with database.read("check the secret") as db:
        known_check = find_fact(db, SECRET_CHECK_KEY)
    if known_check is None:
        own_check = _secret_check(ensure_secret(place))
        with database.write("write the check of the secret") as db:
            known_check = find_fact(db, SECRET_CHECK_KEY)  # another machine may have been first
            if known_check is None:
                write_facts(db, {SECRET_CHECK_KEY: own_check})
                return
    secret = find_secret(place)
    if secret is None or known_check != _secret_check(secret):
        state = "missing" if secret is None else "of another store"
        raise OperatorNeeded(
            f"store: the secret {secret_path(place)} is {state}",
            "copy it from a machine that uses this store",
            code=ErrorCode.FILE,
        )


def _secret_check(secret: bytes) -> str:
    return hmac.new(secret, b"trimtab store", hashlib.sha256).hexdigest()


def serving_lock_name(key: str) -> str:
    """Return the name of the lock of the run that serves a wallet's store."""
    return f"serve {key}"


class ServerDatabase(Database):
    """Transactions on the store of one wallet, `key`, in a database of many."""

    def __init__(
        self,
        engine: Engine,
        wallet: str,
        wrapped_native: str,
        store_kind: str,
        secret_place: Path,
        key: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(engine, wallet, wrapped_native, store_kind, secret_place)
        self.key = key
        self._begin_reading, self._begin_writing = _begin_statements(key)
        self._sleep = sleep
        self._writing = RLock()
        self._write_count = 0
        self._unsettled: tuple[str, int] | None = None
        self._writer_key = WRITER_KEY_PREFIX + secrets.token_hex(8)
        self._has_written = False
        self._epoch_mark: str | None = None
        self._serving_mark: str | None = None
        self._is_given_up = False

    @property
    def write_patience_s(self) -> float:
        """How long a write that must not fail is repeated."""
        return PAUSE_PATIENCE_S

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Hold the lock of the run that serves the wallet. Raises LockHeld if another process has
        it.
        """
        session = lock_session(self.engine)
        lock_name = serving_lock_name(self.key)
        mark = session.take(lock_name)
        try:
            with self.write("begin to serve") as db:
                write_facts(db, {SERVING_KEY: mark})
            self._serving_mark = mark
            yield
        finally:
            session.release(lock_name, self._serving_mark or mark)
            self._serving_mark = None

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Hold the lock of the process that acts for the wallet, and begin an epoch: writes of an
        earlier one are refused. Raises LockHeld if another process has it.
        """
        with held_lock(lock_session(self.engine), self._acting_lock_name) as mark:
            self._begin_epoch(mark)
            try:
                yield
            finally:
                self._epoch_mark = None

    @property
    def _acting_lock_name(self) -> str:
        return f"act {self.key}"

    def give_up(self) -> None:
        """Release the wallet's locks though what holds them hangs. It writes nothing from now on, so
        that it sends nothing either.
        """
        self._is_given_up = True
        session = lock_session(self.engine)
        for lock_name, mark in (
            (self._acting_lock_name, self._epoch_mark),
            (serving_lock_name(self.key), self._serving_mark),
        ):
            if mark is not None:
                session.release(lock_name, mark)

    def _begin_epoch(self, mark: str) -> None:
        """Write the mark of the session that acts, unless it was the last one to act."""
        with self.read("read the epoch") as db:
            epoch_mark = find_fact(db, EPOCH_KEY)
        if epoch_mark != mark:
            with self.write("begin an epoch") as db:
                write_facts(db, {EPOCH_KEY: mark})
                if old_keys := _old_writer_keys(db, int(time.time())):
                    delete_facts(db, *old_keys)
        self._epoch_mark = mark

    def is_served(self) -> bool:
        """Return whether a run or a worker serves the wallet, on any machine. Raises PassingFault."""
        is_ours = self._serving_mark is not None
        session = lock_session(self.engine)
        return is_ours or session.is_held_elsewhere(serving_lock_name(self.key))

    def require_held(self) -> None:
        """Raise LockHeld if the lock of `acting` was lost, or that of `serving` and another process
        has taken it, or both were given up.
        """
        session = lock_session(self.engine)
        if self._is_given_up:
            raise _taken_over_error()
        if self._epoch_mark is not None and not session.holds(self._epoch_mark):
            raise _taken_over_error()
        if self._serving_mark is not None and not session.holds(self._serving_mark):
            lock_name = serving_lock_name(self.key)
            new_mark = session.take(lock_name)
            try:
                self._write_serving_mark(new_mark)
            except BaseException:
                session.release(lock_name, new_mark)
                raise
            self._serving_mark = new_mark

    def _write_serving_mark(self, new_mark: str) -> None:
        """Write the mark of the session that goes on serving, unless a commit whose answer was lost has
        written it. Raises LockHeld if another process has served meanwhile.
        """
        with self.read("read who serves") as db:
            if find_fact(db, SERVING_KEY) == new_mark:
                return
        with self.write("go on serving") as db:
            write_facts(db, {SERVING_KEY: new_mark})

    def close(self) -> None:
        """Flush the queue; the engine serves other portfolios too."""
        self.flush()
        if self._has_written:
            with suppress(TrimtabError), self.write("remove the mark of its writes") as db:
                delete_facts(db, self._writer_key)

    def flush(self) -> None:
        """Write the queue as `Database.flush`, without what a commit of unknown outcome has written."""
        if self._unsettled is not None:
            with self._writing:
                self._settle()
        super().flush()

    def _settle(self) -> None:
        """Take from the queue what a commit of unknown outcome has written, if it was made."""
        if self._unsettled is None:  # another thread was first
            return
        mark, write_count = self._unsettled
        was_committed = self._was_committed(mark)
        if was_committed is None:
            raise _unsettled_error()
        self._unsettled = None
        if was_committed:
            with self._queue_lock:
                self._queue = self._queue[write_count:]

    @contextmanager
    def _taken_queue(self, is_taken: bool) -> Iterator[Sequence[LaterWrite]]:
        """Yield the queued writes as `Database._taken_queue`. No other thread writes meanwhile, so
        that what is in doubt is in the queue again before a thread asks for its outcome.
        """
        with self._writing, super()._taken_queue(is_taken) as queued_writes:
            self._write_count = len(queued_writes)
            yield queued_writes

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that sees one state of the store, and cannot write."""
        with self._begun(self._begin_reading) as db:
            yield db
            db.commit()

    @contextmanager
    def _begun(self, begin: str) -> Iterator[Connection]:
        """Yield a connection in the transaction that a statement begins, on a new session if that
        of the pool has ended; it is rolled back unless it is committed.
        """
        with ExitStack() as sessions:
            for may_repeat in (True, False):
                db = sessions.enter_context(self.engine.connect())
                driver_connection: Any = db.connection.dbapi_connection
                driver_connection.autocommit = True  # the driver sends no BEGIN of its own
                try:
                    db.exec_driver_sql(begin)
                    break
                except DBAPIError as error:
                    if not (may_repeat and error.connection_invalidated):
                        raise
            yield db

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that excludes other writers of the store. It leaves a
        mark of its own, so that if the answer to its commit is lost, the store says whether it was
        made.
        """
        mark = f"{secrets.token_hex(8)}@{int(time.time())}"
        with self._writing, self._begun(self._begin_writing) as db:  # one mark at a time
            if self._unsettled is not None:
                raise _unsettled_error()
            self._require_own_marks(db)
            write_facts(db, {self._writer_key: mark})
            yield db
            try:
                db.commit()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                was_committed = self._was_committed(mark)
                if was_committed is None:
                    self._unsettled = (mark, self._write_count)
                if not was_committed:
                    raise
        self._has_written = True

    def _require_own_marks(self, db: Connection) -> None:
        """Raise LockHeld if another process has begun to act for the wallet, or to serve it, or may
        since the locks were given up.
        """
        if self._is_given_up:
            raise _taken_over_error()
        marks = {EPOCH_KEY: self._epoch_mark, SERVING_KEY: self._serving_mark}
        own_marks = {key: mark for key, mark in marks.items() if mark is not None}
        if own_marks and read_facts(db, *own_marks) != own_marks:
            raise _taken_over_error()

    def _was_committed(self, mark: str) -> bool | None:
        """Return whether the transaction that left a mark was committed; None if the server does not
        tell in SETTLING_S. The lock waits for a session that is still at it.
        """
        end_s = time.monotonic() + SETTLING_S
        while True:
            try:
                with self._begun(self._begin_writing) as db:
                    return find_fact(db, self._writer_key) == mark
            except DBAPIError:
                if time.monotonic() >= end_s:
                    return None
            self._sleep(SETTLING_PAUSE_S)


def _old_writer_keys(db: Connection, now_s: int) -> list[str]:
    """Return the keys of the marks of writes that are older than MARK_LIFE_S."""
    old_keys = []
    for key, mark in facts_with_prefix(db, WRITER_KEY_PREFIX):
        _, _, time_text = mark.partition("@")
        if time_text.isdecimal() and int(time_text) < now_s - MARK_LIFE_S:
            old_keys.append(key)
    return old_keys


def _unsettled_error() -> PassingFault:
    return PassingFault(
        "store: the outcome of an earlier write is unknown: the database does not answer",
        "nothing is sent until it answers",
        code=ErrorCode.STORE,
    )


def _taken_over_error() -> LockHeld:
    return LockHeld(
        "another process has taken over this wallet: this one was cut off from the database, or stood"
        " still",
        "nothing is sent; the next look starts from what the store says",
        code=ErrorCode.LOCK,
    )


_SELECT_SESSION = text(
    "SELECT current_setting(:setting, true) AS session, rolname,"
    " rolsuper OR rolbypassrls AS is_exempt FROM pg_roles WHERE rolname = current_user"
)
_ENTER = text(f"SELECT set_config('{WALLET_SETTING}', :key, true)")


def _begin_statements(key: str) -> tuple[str, str]:
    """Return what begins a transaction on the store of a key, to read or to write: several statements
    in one round trip.
    """
    literal = "'" + key.replace("'", "''") + "'"
    enter = f"SET LOCAL {WALLET_SETTING} = {literal}"
    return (
        f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {enter}",
        f"BEGIN; {enter}; SELECT pg_advisory_xact_lock(hashtextextended({literal}, 0))",
    )
