"""Copying a store into another database, from SQLite to PostgreSQL or back, compared row by row."""

from __future__ import annotations

import zlib
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    Table,
    delete,
    func,
    insert,
    select,
    text,
)

from agent.errors import ErrorCode, OperatorNeeded, Refused, TrimtabError
from agent.store.database.connection import Database
from agent.store.database.facts import delete_facts, find_fact, write_facts
from agent.store.files.backup import COPY_KEY, STORE_KIND_KEY
from agent.store.migrations.schema import APPEND_ONLY_TABLES
from agent.store.postgresql.session import (
    EPOCH_KEY,
    SECRET_CHECK_KEY,
    SERVING_KEY,
    WRITER_KEY_PREFIX,
)
from agent.store.tables import Base, FactRow
from agent.store.users import UserStore, UserTables
from agent.units import utc_text

ROWS_AT_ONCE = 1_000
COPY_LOCK = zlib.crc32(b"trimtab copy")
"""Advisory lock of the process that copies a store into the database."""
OWN_FACTS = (COPY_KEY, SECRET_CHECK_KEY, EPOCH_KEY, SERVING_KEY)
"""Facts about one database, which are not copied."""
OWNER_FACTS = ("chain_id", "wallet", STORE_KIND_KEY)
"""Facts of a new store."""


def require_original(source: Database) -> None:
    """Raise Refused if a store is an unadopted copy itself."""
    with source.read("look at the store") as db:
        if find_fact(db, COPY_KEY) is not None:
            raise Refused("the store is a copy itself", remedy="trimtab adopt, then copy it")


def require_new(target: Database) -> None:
    """Raise Refused if a store has rows other than its owner."""
    with target.read("look at the target") as db:
        _require_no_rows(db)


def copy_rows(source: Database, target: Database, now_s: int) -> dict[str, int]:
    """Copy every row of a store into a new one of the same wallet, in one transaction; return the
    number of rows by table. The source is marked as a copy before, so that it sends nothing.

    The caller excludes everyone who writes to the source. Raises Refused like `require_new`;
    OperatorNeeded if a row reads otherwise after it was written. Nothing is then copied, and the
    source is as it was. Raises OperatorNeeded too if the target may have the copy after an error:
    the source then stays marked.
    """
    with source.write("mark the store as moved") as db:
        write_facts(db, {COPY_KEY: f"moved to another database at {utc_text(now_s)}"})
    try:
        return _copy_all(source, target)
    except BaseException as error:
        if not isinstance(error, Refused):
            _require_not_copied(target, error)
        with source.write("take the mark back") as db:
            delete_facts(db, COPY_KEY)
        raise


def _copy_all(source: Database, target: Database) -> dict[str, int]:
    counts: dict[str, int] = {}
    with source.read("copy the store") as source_db, target.write("copy the store") as target_db:
        _lock_new(target_db)
        target_db.execute(delete(FactRow).where(FactRow.key.in_(OWNER_FACTS)))
        for table in Base.metadata.sorted_tables:
            counts[table.name] = _copy_table(source_db, target_db, table)
            _require_same_rows(source_db, target_db, table)
            _advance_row_numbers(target_db, table)
    return counts


def _require_not_copied(target: Database, error: BaseException) -> None:
    """Raise OperatorNeeded unless the target shows that it got no rows before `error`, which may have
    come after the commit. The lock waits for a session that is still at it.
    """
    try:
        with target.write("look at the target") as target_db:
            _lock_new(target_db)
    except TrimtabError:
        raise OperatorNeeded(
            "the target may have the whole copy, so this store sends nothing any more",
            "see by trimtab status with the target in store.url: use the target if it has the copy,"
            " else empty it and run trimtab adopt with this store",
            code=ErrorCode.STORE,
        ) from error


def _lock_new(target_db: Connection) -> None:
    """Exclude other copies into the database, and raise Refused like `require_new`."""
    if target_db.dialect.name != "sqlite":
        target_db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": COPY_LOCK})
    _require_no_rows(target_db)


def copy_users(source: UserStore, target: UserStore) -> None:
    """Copy users, failed logins and audit log into a target that has none of them; leave one that
    has as it is.
    """
    if _is_without_users(source) or not _is_without_users(target):
        return
    with (
        source.database.read("copy the users") as source_db,
        target.database.transaction("copy the users") as target_db,
    ):
        for table in UserTables.metadata.sorted_tables:
            _copy_table(source_db, target_db, table)
            _require_same_rows(source_db, target_db, table)
            _advance_row_numbers(target_db, table)


def _is_without_users(users: UserStore) -> bool:
    return not users.users() and not users.events(1)


def _rows_to_copy(table: Table) -> Select[Any]:
    """Return the select of what is copied: all rows but facts about one database."""
    query = select(table).order_by(*table.primary_key.columns)
    if table.name != FactRow.__tablename__:
        return query
    is_of_writer = FactRow.key.startswith(WRITER_KEY_PREFIX)
    return query.where(FactRow.key.not_in(OWN_FACTS), ~is_of_writer)


def _require_no_rows(target_db: Connection) -> None:
    """Refuse any row but the facts of a new store's owner, which the copy brings."""
    for table in Base.metadata.sorted_tables:
        query = _rows_to_copy(table)
        if table.name == FactRow.__tablename__:
            query = query.where(FactRow.key.not_in(OWNER_FACTS))
        if target_db.execute(query.limit(1)).first() is not None:
            raise Refused(
                f"the target has a store of this wallet already, with rows in {table.name}",
                remedy="copy into a database where this wallet has no store",
            )


def _copy_table(source_db: Connection, target_db: Connection, table: Table) -> int:
    row_count = 0
    rows = source_db.execute(_rows_to_copy(table))
    for part in rows.mappings().partitions(ROWS_AT_ONCE):
        target_db.execute(insert(table), [dict(row) for row in part])
        row_count += len(part)
    return row_count


def _require_same_rows(source_db: Connection, target_db: Connection, table: Table) -> None:
    source_rows = source_db.execute(_rows_to_copy(table)).mappings()
    target_rows = target_db.execute(_rows_to_copy(table)).mappings()
    # databases order texts differently
    source_part = sorted(map(_comparable, source_rows), key=repr)
    target_part = sorted(map(_comparable, target_rows), key=repr)
    if source_part != target_part:
        raise OperatorNeeded(
            f"store: a row of {table.name} reads otherwise than it was written",
            "keep the source; report this with the versions of both databases",
            code=ErrorCode.DAMAGED,
        )


def _comparable(row: RowMapping) -> tuple[object, ...]:
    return tuple(bytes(cell) if isinstance(cell, memoryview) else cell for cell in row.values())


def _advance_row_numbers(target_db: Connection, table: Table) -> None:
    """Let PostgreSQL number new rows after those that were copied with their numbers. Tables that
    only grow are numbered by their seals.
    """
    column = table.autoincrement_column
    is_numbered = column is not None and table.name not in APPEND_ONLY_TABLES
    if column is None or not is_numbered or target_db.dialect.name == "sqlite":
        return
    newest = target_db.execute(select(func.max(column))).scalar() or 0
    names = {"table": table.name, "column": column.name}
    sequence = target_db.execute(_SEQUENCE, names).scalar()
    # no other wallet takes a number meanwhile
    target_db.exec_driver_sql(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE")
    target_db.execute(_ADVANCE, {"sequence": sequence, "newest": newest})


_SEQUENCE = text("SELECT pg_get_serial_sequence(:table, :column)")
_ADVANCE = text(
    "SELECT setval(CAST(:sequence AS regclass), :newest)"
    " WHERE :newest > coalesce(pg_sequence_last_value(CAST(:sequence AS regclass)), 0)"
)
