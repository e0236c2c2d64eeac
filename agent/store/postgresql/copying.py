"""Copying a store into another database, from SQLite to PostgreSQL or back, compared row by row."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, Table, delete, func, insert, select, text

from agent.errors import ErrorCode, OperatorNeeded, Refused
from agent.store.database import Database
from agent.store.tables import Base, FactRow

ROWS_AT_ONCE = 1_000


def copy_rows(source: Database, target: Database) -> dict[str, int]:
    """Copy every row of a store into a new one of the same wallet, in one transaction; return the
    number of rows by table.

    The caller excludes everyone who writes to the source. Raises Refused if the target has rows
    other than its owner, OperatorNeeded if a row reads otherwise after it was written; nothing is
    then copied.
    """
    counts: dict[str, int] = {}
    with source.read("copy the store") as source_db, target.write("copy the store") as target_db:
        for table in Base.metadata.sorted_tables:
            _empty(target_db, table)
            counts[table.name] = _copy_table(source_db, target_db, table)
            _require_same_rows(source_db, target_db, table)
            _advance_row_numbers(target_db, table)
    return counts


def _empty(target_db: Connection, table: Table) -> None:
    """Remove the facts of a new store's owner, which the copy brings; refuse any other row."""
    if table.name == FactRow.__tablename__:
        target_db.execute(delete(table))
    elif target_db.execute(select(func.count()).select_from(table)).scalar():
        raise Refused(
            f"the target has a store of this wallet already, with rows in {table.name}",
            remedy="copy into a database where this wallet has no store",
        )


def _copy_table(source_db: Connection, target_db: Connection, table: Table) -> int:
    row_count = 0
    rows = source_db.execute(select(table).order_by(*table.primary_key.columns))
    for part in rows.mappings().partitions(ROWS_AT_ONCE):
        target_db.execute(insert(table), [dict(row) for row in part])
        row_count += len(part)
    return row_count


def _require_same_rows(source_db: Connection, target_db: Connection, table: Table) -> None:
    query = select(table).order_by(*table.primary_key.columns)
    source_rows = source_db.execute(query).mappings()
    target_rows = target_db.execute(query).mappings()
    while True:
        source_part = [_comparable(row) for row in source_rows.fetchmany(ROWS_AT_ONCE)]
        target_part = [_comparable(row) for row in target_rows.fetchmany(ROWS_AT_ONCE)]
        # databases order texts differently
        if sorted(source_part, key=repr) != sorted(target_part, key=repr):
            raise OperatorNeeded(
                f"store: a row of {table.name} reads otherwise than it was written",
                "keep the source; report this with the versions of both databases",
                code=ErrorCode.DAMAGED,
            )
        if not source_part:
            return


def _comparable(row: RowMapping) -> tuple[object, ...]:
    return tuple(bytes(cell) if isinstance(cell, memoryview) else cell for cell in row.values())


def _advance_row_numbers(target_db: Connection, table: Table) -> None:
    """Let PostgreSQL number new rows after those that were copied with their numbers."""
    column = table.autoincrement_column
    if column is None or target_db.dialect.name == "sqlite":
        return
    newest = target_db.execute(select(func.max(column))).scalar() or 0
    sequence = target_db.execute(
        text("SELECT pg_get_serial_sequence(:table, :column)"),
        {"table": table.name, "column": column.name},
    ).scalar()
    target_db.execute(
        text(
            "SELECT setval(CAST(:sequence AS regclass), GREATEST(:newest,"
            " nextval(CAST(:sequence AS regclass))))"
        ),
        {"sequence": sequence, "newest": newest},
    )
