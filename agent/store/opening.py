"""Opening and migration of a store: file mode, durability, and the check of wallet and chain."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    PoolProxiedConnection,
    create_engine,
    event,
    inspect,
    make_url,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, PassingFault
from agent.store.database.connection import (
    LIVE,
    WRITE_FLAG,
    Database,
    MemoryDatabase,
    write_transaction,
)
from agent.store.database.errors import database_errors
from agent.store.files import backup
from agent.store.files.locks import make_private, require_trusted_writers
from agent.store.migrations.schema import (
    OLDEST_READER,
    REVISIONS,
    create_tables,
    creating_statements,
)
from agent.store.store import Store
from agent.store.users import UserStore

MIGRATIONS_FOLDER = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_MS = 5_000
_CACHE_KIB = 512
"""Pages that a connection keeps. SQLite's own limit is four times that, which a run fills in weeks,
for each connection of each wallet.
"""
_MAX_CHECKED_BYTES = 64 * 1024 * 1024
"""Largest file that is checked completely at opening, which takes a second. SQLite checks the pages
of larger files as it reads them.
"""


def open_store(
    url: str,
    chain_id: int,
    wallet: str,
    wrapped_native: str = "",
    store_kind: str = LIVE,
    *,
    checks_and_migrates: bool = True,
    secret_place: Path | None = None,
) -> Store:
    """Open the store at `url` (SQLAlchemy form), migrated to the current version; create it if it
    does not exist.

    `secret_place` is the path beside which the secret of a store on PostgreSQL is; that of a file
    is beside the file. `wrapped_native` is the address of the chain's wrapped native coin, `store_kind` the kind of
    data: "live" or "paper". Without `checks_and_migrates` the pages of the file are checked only as
    they are read, and an older store is refused, since a program of its version may be running.
    Raises ConfigError for an invalid address, OperatorNeeded if the store belongs to another wallet
    or chain, holds the other kind of data, was written by a newer trimtab, is corrupt, or cannot be
    written.
    """
    database_url = _parse_url(url)
    path = sqlite_path(url)
    with _disk_room_named(path), database_errors("open the store"):
        if path is None:
            from agent.store.postgresql import session  # loaded only for PostgreSQL

            engine = open_server(database_url, migrates=checks_and_migrates)
            if secret_place is None:
                raise ValueError("a store on PostgreSQL needs a place for its secret")
            key = session.store_key(chain_id, wallet, store_kind)
            database = session.ServerDatabase(
                engine, wallet, wrapped_native, store_kind, secret_place, key
            )
            store = _bound_store(database, chain_id)
            session.require_same_secret(database)
            return store
        _create_private_file(path)
        engine = _make_engine(database_url)
        try:
            _prepare_tables(
                engine, path if checks_and_migrates else None, migrates=checks_and_migrates
            )
            return _bound_store(
                Database(engine, wallet, wrapped_native, store_kind, path), chain_id
            )
        except BaseException:
            engine.dispose()
            raise


def open_server_users(url: str, key: str) -> UserStore:
    """Open the users of the store `key` in the database of PostgreSQL at `url`; its tables are
    created if they do not exist.
    """
    from agent.store.postgresql.users import ServerUsers  # loaded only for PostgreSQL

    with database_errors("open the users"):
        return UserStore(ServerUsers(open_server(_parse_url(url), migrates=False), key))


def open_server(database_url: URL, *, migrates: bool) -> Engine:
    """Return the engine of a database of PostgreSQL that is fit for stores and has their tables."""
    from agent.store.postgresql import session  # loaded only for PostgreSQL

    engine = session.server_engine(database_url)
    session.require_fit_server(engine)
    _prepare_tables(engine, None, migrates=migrates)
    return engine


def _prepare_tables(engine: Engine, checked_path: Path | None, *, migrates: bool) -> None:
    """Create the tables of a new store, or migrate those of an older one if it may."""
    version = _checked_version(engine, checked_path)
    if version is not None and version != REVISIONS[-1] and not migrates:
        raise OperatorNeeded(
            f"store: version {version} is older than that of this program, {REVISIONS[-1]}",
            "start trimtab run of this version, or trimtab paper if the store is that of paper"
            " trading: it migrates the store",
            code=ErrorCode.STORE_VERSION,
        )
    if version != REVISIONS[-1]:
        _migrate(engine)


def _bound_store(store_database: Database, chain_id: int) -> Store:
    store = Store(store_database)
    store.bind_owner(chain_id)
    return store


def open_memory_store(chain_id: int, wallet: str, wrapped_native: str = "") -> Store:
    """Open a new store in memory, for one user; closing it deletes it."""
    engine = _make_engine(
        make_url("sqlite://"), poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    with closing(engine.raw_connection()) as connection:
        connection.driver_connection.deserialize(_empty_image())  # type: ignore[union-attr]  # sqlite3's connection
    return _bound_store(MemoryDatabase(engine, wallet, wrapped_native), chain_id)


@cache
def _empty_image() -> bytes:
    """Return the image of an empty store; cached, because a search opens thousands."""
    engine = _make_engine(make_url("sqlite://"), poolclass=StaticPool)
    with engine.begin() as db:
        create_tables(db, REVISIONS[-1], creating_statements())
    with closing(engine.raw_connection()) as connection:
        image: bytes = connection.driver_connection.serialize()  # type: ignore[union-attr]  # sqlite3's connection
    engine.dispose()
    return image


def sqlite_path(url: str) -> Path | None:
    """Return the path of an SQLite store; None for a database server."""
    database_url = _parse_url(url)
    if database_url.get_backend_name() != "sqlite":
        return None
    database_name = database_url.database
    if not database_name or database_name == ":memory:" or database_name.startswith("file:"):
        raise ConfigError(
            f"store.url: {url!r} is not a file, but the journal must survive the process; write"
            " sqlite:///trimtab.db"
        )
    return Path(database_name)


def _parse_url(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # the text may contain a password and is not repeated
        raise ConfigError(
            "store.url is not a database address; write sqlite:///trimtab.db"
        ) from None


MIN_FREE_BYTES = 2**20
"""Free bytes of a disk below which a failure of a store counts as that of a full disk; a new store
takes about half of them.
"""


@contextmanager
def _disk_room_named(path: Path | None) -> Iterator[None]:
    """Name the room on the disk in a PassingFault, if that is its cause: SQLite reports a full disk
    as an I/O error if it cannot write its shared memory.
    """
    try:
        yield
    except PassingFault as error:
        if path is None or (free_bytes := free_disk_bytes(path.parent)) >= MIN_FREE_BYTES:
            raise
        raise PassingFault(
            f"store: the disk of {path.parent} has {free_bytes:,} bytes free: {error.message}",
            "free space there, then run the command again; what was written before is safe",
            code=ErrorCode.STORE,
        ) from error


def free_disk_bytes(folder: Path) -> int:
    """Return the bytes that this user can still write on the disk of a folder; a large number if
    that cannot be told.
    """
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 2**62


def _create_private_file(path: Path) -> None:
    """Create an owner-only file (T18) before SQLite opens it; the write-ahead log inherits its
    mode. Refuse a file that others may write, and make one private that they may read.
    """
    if not path.parent.is_dir():
        raise ConfigError(
            f"store.url: folder {str(path.parent)!r} does not exist; create it or name another"
        )
    require_trusted_writers(path, "store", checks_companions=True)
    backup.require_no_orphaned_log(path)
    # An existing file is never opened here: closing the descriptor would drop the locks of a store
    # that this process has open, and another process could then remove the write-ahead log under it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    # In a folder like /tmp another user may have created the file meanwhile.
    make_private(path, "store", checks_companions=True)


def _make_engine(database_url: URL, **options: Any) -> Engine:
    try:
        engine = create_engine(database_url, **options)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"store.url: no driver for {database_url.drivername!r}: {error}; write sqlite:///trimtab.db"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_connection)
        # Set on the dialect, because an event listener would take a third of every statement's
        # time.
        engine.dialect.do_begin = _begin_transaction  # type: ignore[assignment, method-assign]  # hook of the dialect
    return engine


def _configure_connection(connection: Any, _record: object) -> None:
    """Configure a new connection: commits are durable when they return, and transactions start in
    `_begin_transaction`, not in the driver.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    for setting in (
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"cache_size = -{_CACHE_KIB}",
    ):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin_transaction(connection: PoolProxiedConnection) -> None:
    """Begin a transaction. A writer takes the write lock at once, because taking it later can fail
    after statements have run.
    """
    driver_connection: Any = connection.dbapi_connection
    driver_connection.execute("BEGIN IMMEDIATE" if WRITE_FLAG in connection.info else "BEGIN")


def _checked_version(engine: Engine, path: Path | None) -> str | None:
    """Check the file at `path`, if given, and return the store's version; None without tables."""
    with engine.connect() as connection, connection.begin():
        if path is not None:
            _require_intact(connection, path)
        return _read_version(connection)


def _require_intact(connection: Connection, path: Path) -> None:
    if path.stat().st_size > _MAX_CHECKED_BYTES:
        return
    check_result = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if check_result != "ok":
        raise OperatorNeeded(
            f"store {path}: the file is corrupt: {check_result}",
            "keep the file, restore a backup, compare it with the chain",
        )


def _read_version(connection: Connection) -> str | None:
    """Return the version of the store; None without tables."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        if not inspect(connection).get_table_names():
            return None
        raise OperatorNeeded(
            "store: this database is not a trimtab store",
            "use a separate file or database in store.url",
            code=ErrorCode.NOT_A_STORE,
        )
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if version not in REVISIONS and _may_use_newer(connection, str(version)):
        return REVISIONS[-1]
    if version not in REVISIONS:
        raise OperatorNeeded(
            f"store: has version {version}, which this trimtab does not know; its own version is"
            f" {REVISIONS[-1]}",
            "install the trimtab that wrote the store, or restore a backup of this version",
            code=ErrorCode.STORE_VERSION,
        )
    return str(version)


def _may_use_newer(connection: Connection, version: str) -> bool:
    """Return whether a newer version of the store has only added to what this one knows."""
    if connection.dialect.name == "sqlite" or version < REVISIONS[-1]:
        return False
    from agent.store.postgresql import versions  # loaded only for PostgreSQL

    return REVISIONS[-1] >= versions.oldest_reader(connection)


def _migrate(engine: Engine) -> None:
    """Create the tables of a new store, or back up an older one and migrate it, in one
    transaction.
    """
    with engine.connect() as connection, connection.begin():
        old_version = _read_version(connection)
    statements = creating_statements()
    with write_transaction(engine) as connection:
        if engine.dialect.name != "sqlite":
            from agent.store.postgresql import (  # loaded only for PostgreSQL
                schema,
                session,
                versions,
            )

            session.lock_tables(connection)
            statements = schema.creating_statements()
            if old_version is not None:
                versions.raise_oldest_reader(connection, OLDEST_READER, REVISIONS)
        if _read_version(connection) != old_version:  # another process has migrated it
            return
        if engine.dialect.name == "sqlite" and old_version is not None:
            path = Path(str(engine.url.database))
            backup_path = path.with_name(f"{path.name}.before-{REVISIONS[-1]}")
            backup.backup(path, backup_path, force=True)
        if old_version is None:
            create_tables(connection, REVISIONS[-1], statements)
        else:
            _run_migrations(connection)


def _run_migrations(connection: Connection) -> None:
    """Migrate the tables to the current version by the scripts, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
