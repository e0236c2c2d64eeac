"""Database access: transactions, cached statements, remedies for database errors; and the types
that the store returns (steps, transitions), with decoding of stored values.

Building a statement takes five times as long as running it in SQLite, so each is built once, by a
cached function. Selects of a model return read-only rows with the model's attributes; writes reach
the connection at once.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Insert,
    ScalarSelect,
    Select,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    select,
    true,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import InstrumentedAttribute

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, PassingFault
from agent.model import Intent, IntentKind, IntentState, Receipt, UnsignedTx
from agent.store.migrations.schema import APPEND_ONLY_TABLES
from agent.store.tables import Base, FactRow, IntentRow, StepRow

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


T = TypeVar("T")
Args = TypeVarTuple("Args")


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


ADOPTION_SEQ_KEY = "adopted_after"
"""Key of the number of the newest intent when the operator last adopted a nonce."""


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

    def __init__(
        self, engine: Engine, wallet: str, wrapped_native: str = "", store_kind: str = LIVE
    ) -> None:
        super().__init__(engine, wallet, wrapped_native, store_kind)
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


def all_rows(db: Connection, query: Select[Any], model: type[T], /, **binds: object) -> Sequence[T]:
    """Return all rows of a select of `model`."""
    return cast("Sequence[T]", db.execute(query, binds).all())


def first_row(db: Connection, query: Select[Any], model: type[T], /, **binds: object) -> T | None:
    """Return the first row of a select of `model`; None without rows."""
    return cast("T | None", db.execute(query, binds).first())


def column_values(db: Connection, query: Select[Any], /, **binds: object) -> Sequence[Any]:
    """Return the first column of every row."""
    return db.scalars(query, binds).all()


def max_value(db: Connection, column: InstrumentedAttribute[int]) -> int:
    """Return the largest number in a column; 0 without rows."""
    largest_number: int | None = db.scalar(_select_max(column))
    return largest_number or 0


def insert_rows(db: Connection, model: type[Base], rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, each with the same columns."""
    if rows:
        db.execute(_insert(model), list(rows))


def insert_returning_id(db: Connection, model: type[Base], /, **row: object) -> int:
    """Insert a row and return its number."""
    (row_id,) = cast("tuple[int]", db.execute(_insert(model), row).inserted_primary_key)
    return row_id


def upsert_rows(
    db: Connection, model: type[Base], rows: Sequence[Mapping[str, object]], key_column: str = ""
) -> None:
    """Insert rows, or update them by primary key or by the unique column `key_column`; each with
    the same columns.
    """
    if rows:
        db.execute(
            upsert_statement(model, frozenset(rows[0]), db.dialect.name, key_column), list(rows)
        )


def insert_new_rows(db: Connection, model: type[Base], rows: Iterable[Mapping[str, object]]) -> int:
    """Insert rows whose key is new; return their number."""
    statement = insert_new_statement(model, db.dialect.name)
    return sum(db.execute(statement, row).rowcount for row in rows)


@cache
def _select_max(column: InstrumentedAttribute[int]) -> Select[Any]:
    return select(func.max(column))


@cache
def _insert(model: type[Base]) -> Insert:
    return insert(model)


@cache
def upsert_statement(
    model: type[Base], columns: frozenset[str], dialect: str, key_column: str = ""
) -> Insert:
    """Build an insert that updates the columns `columns` of an existing row."""
    key_columns = (
        [key_column] if key_column else [column.name for column in inspect(model).primary_key]
    )
    statement = _dialect_insert(model, dialect)
    return statement.on_conflict_do_update(
        # on PostgreSQL each key begins with the wallet (store/postgresql/schema.py)
        index_elements=key_columns if dialect == "sqlite" else ["wallet", *key_columns],
        set_={name: statement.excluded[name] for name in sorted(columns - {*key_columns})},
    )


@cache
def insert_new_statement(model: type[Base], dialect: str) -> Insert:
    """Build an insert that keeps existing rows and reports the number written, which PostgreSQL's
    drivers omit by default.
    """
    return (
        _dialect_insert(model, dialect)
        .on_conflict_do_nothing()
        .execution_options(preserve_rowcount=True)
    )


def _dialect_insert(model: type[Base], dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Return the dialect's insert, because the syntax for conflicts differs."""
    if dialect == "sqlite":
        return sqlite.insert(model)
    from sqlalchemy.dialects import postgresql  # loaded only for PostgreSQL

    return postgresql.insert(model)


def read_facts(db: Connection, *keys: str) -> dict[str, str]:
    """Return the values of existing keys."""
    return dict(
        db.execute(
            _select_facts(len(keys)), {f"key{index}": key for index, key in enumerate(keys)}
        ).all()
    )


def facts_with_prefix(db: Connection, prefix: str) -> Iterable[tuple[str, str]]:
    """Return keys with that prefix, with their values."""
    return db.execute(select(FactRow.key, FactRow.value).where(FactRow.key.startswith(prefix)))


def fact_text(db: Connection, key: str) -> str:
    """Return the value of a key; "" if missing."""
    return find_fact(db, key) or ""


def find_fact(db: Connection, key: str) -> str | None:
    """Return the value of a key; None if missing."""
    fact_value: str | None = db.scalar(_select_fact(), {"key": key})
    return fact_value


def fact_number(db: Connection, key: str) -> int:
    """Return the whole number of a key; 0 if missing. Raises OperatorNeeded if it is not a
    number.
    """
    return parse_fact_number(key, find_fact(db, key))


def fact_expression(key: str) -> ScalarSelect[str]:
    """Return the value of a key as an expression for a statement; NULL if missing."""
    return select(FactRow.value).where(FactRow.key == key).scalar_subquery()


def fact_number_expression(key: str) -> ColumnElement[int]:
    """Return the whole number of a key as an expression for a statement; 0 if missing."""
    return func.coalesce(fact_expression(key).cast(BigInteger), 0)


def select_with_facts(query: Select[Any], **key_by_column: str) -> Select[Any]:
    """Select rows with the values of keys as further columns, named as the arguments; without rows,
    one row whose other columns are NULL.
    """
    facts_subquery = select(
        *(fact_expression(key).label(column_name) for column_name, key in key_by_column.items())
    ).subquery()
    rows_subquery = query.subquery()
    return select(facts_subquery, rows_subquery).select_from(
        facts_subquery.outerjoin(rows_subquery, true())
    )


def parse_fact_number(key: str, number_text: str | None) -> int:
    """Parse the whole number of a key; 0 for None. Raises OperatorNeeded if it is not a number."""
    try:
        return 0 if number_text is None else int(number_text)
    except ValueError:
        raise OperatorNeeded(
            f"store: {key} is damaged", "restore a backup, compare it with the chain"
        ) from None


def parse_whole(number_text: str, place: str) -> int:
    """Return a stored whole number. Raises OperatorNeeded, naming its place, if it is damaged."""
    try:
        return int(number_text)
    except (ValueError, TypeError) as error:
        raise damaged_row_error(str(error), place) from None


def parse_fraction(fraction_text: str, place: str = "a budget entry") -> Fraction:
    """Return a stored fraction. Raises OperatorNeeded, naming its place, if it is damaged."""
    try:
        return Fraction(fraction_text)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise damaged_row_error(str(error), place) from None


def write_facts(db: Connection, facts: Mapping[str, object]) -> None:
    """Write values, replacing existing ones."""
    upsert_rows(
        db, FactRow, [{"key": key, "value": str(fact_value)} for key, fact_value in facts.items()]
    )


def delete_facts(db: Connection, *keys: str) -> None:
    """Delete these keys."""
    db.execute(_delete_fact(), [{"deleted_key": key} for key in keys])


_select_fact = cache(lambda: select(FactRow.value).where(FactRow.key == bindparam("key")))
_delete_fact = cache(lambda: delete(FactRow).where(FactRow.key == bindparam("deleted_key")))


@cache
def _select_facts(key_count: int) -> Select[str, str]:
    return select(FactRow.key, FactRow.value).where(
        FactRow.key.in_([bindparam(f"key{index}") for index in range(key_count)])
    )


UNTRIGGERED_SWAP = "swap_besides"
"""Budget kind of a swap without a trigger: an exit, a withdrawal, an investment, a manual swap."""


@dataclass(frozen=True, slots=True)
class StepSummary:
    """Summary of a past step; `decision` and `outcome` are None if it was interrupted."""

    id: str
    now_s: int
    decision: str | None
    reason: str | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A past step with StepInput, Plan and StepRequest as JSON.

    `request_json`, the request, is None if it was not recorded.
    """

    summary: StepSummary
    input_json: str
    plan_json: str | None
    request_json: str | None = None


@dataclass(frozen=True, slots=True)
class IntentTransition:
    """One recorded transition of an intent."""

    intent_id: str
    old_state: IntentState | None
    new_state: IntentState
    at_s: int
    tx_hash: str | None
    note: str


def compress_text(text: str) -> bytes:
    """Compress text by zlib."""
    return zlib.compress(text.encode())


def decompress_text(compressed_text: bytes) -> str:
    """Decompress stored text. Raises OperatorNeeded if the bytes are damaged."""
    try:
        return zlib.decompress(compressed_text).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise damaged_row_error(str(error)) from None


def decode_json(cls: type[T], text: str) -> T:
    """Decode a model value from stored JSON. Raises OperatorNeeded if the row is damaged."""
    try:
        decode = _decode_short if len(text) <= MAX_SHORT_CHARS else _decode_long
        return cast(T, decode(cast(Hashable, cls), text))
    except ConfigError as error:
        raise damaged_row_error(error.message) from None


def decode_optional(cls: type[T], text: str | None) -> T | None:
    """Decode as `decode_json`; None stays None."""
    return None if text is None else decode_json(cls, text)


MAX_SHORT_CHARS = 4_096
"""Longest text of which many decoded values are kept. Plans and their grants are longer: hundreds of
them would be tens of megabytes.
"""


@lru_cache(maxsize=256)
def _decode_short(cls: Hashable, text: str) -> object:
    """Decode with a cache, because a step reads the same row many times and results are
    immutable.
    """
    return codec.loads(cls, text)


@lru_cache(maxsize=16)
def _decode_long(cls: Hashable, text: str) -> object:
    """Decode as `_decode_short`, keeping few values: those of the transactions that are open."""
    return codec.loads(cls, text)


def damaged_row_error(reason: str, place: str = "a row") -> OperatorNeeded:
    """Return the error of a row that this program has not written."""
    return OperatorNeeded(
        f"store: {place} is damaged: {reason}",
        "keep the file, restore a backup, compare it with the chain",
        code=ErrorCode.DAMAGED,
    )


def step_summary(row: StepRow | Any) -> StepSummary:
    """Build the summary of a step's row."""
    return StepSummary(row.id, row.now_s, row.decision, row.reason, row.outcome)


def step_record(row: StepRow) -> StepRecord:
    """Build the record of a step's row."""
    return StepRecord(
        step_summary(row),
        decompress_text(row.input_z),
        None if row.plan_z is None else decompress_text(row.plan_z),
        row.request_json,
    )


def intent_from_row(row: IntentRow) -> Intent:
    """Build the model's intent from a row."""
    try:
        kind = IntentKind(row.kind)
        state = IntentState(row.state)
    except ValueError as error:
        raise damaged_row_error(str(error)) from None
    return Intent(
        id=row.id,
        step_id=row.step_id,
        kind=kind,
        state=state,
        tx=decode_json(UnsignedTx, row.tx_json),
        note=row.note,
        created_s=row.created_s,
        deadline_s=row.deadline_s,
        tx_hash=row.tx_hash,
        receipt=decode_optional(Receipt, row.receipt_json),
        replaced_intent_id=row.replaces,
    )
