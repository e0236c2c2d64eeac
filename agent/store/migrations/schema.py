"""Creation of the models' tables in an empty database, on SQLite with its triggers on tables that
only grow; on PostgreSQL as store/postgresql/schema.py says.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    create_mock_engine,
    insert,
)
from sqlalchemy.engine.mock import MockConnection

from agent.store.tables import Base, ControlLogRow, TransitionRow

REVISIONS = ("0001",)
"""Store versions that can be read or migrated, oldest first; migrations/versions has a script for
each.
"""
OLDEST_READER = "0001"
"""The oldest version whose programs may go on with a store of this version in a database of many
machines. A version that only adds tables and columns leaves it; one that takes something away, which
a version before it no longer needs, raises it.
"""
VERSION_TABLE = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""The table in which Alembic records the version of a store."""


def create_tables(db: Connection, version: str, statements: Iterable[str]) -> None:
    """Create all tables in an empty database by these statements; it then has that version."""
    for statement in statements:
        db.exec_driver_sql(statement)
    db.execute(insert(VERSION_TABLE), {"version_num": version})


APPEND_ONLY_TABLES = {
    TransitionRow.__tablename__: "transitions are only ever added",
    ControlLogRow.__tablename__: "the audit log only grows",
}
"""Tables whose rows are never changed, with what is said to a program that tries."""


@cache
def creating_statements() -> tuple[str, ...]:
    """Return the statements that create all tables on SQLite, with their indexes and triggers;
    cached, because compiling them takes longer than creating a store.
    """
    statements: list[str] = []
    engine: MockConnection = create_mock_engine(
        "sqlite://",
        lambda ddl, *_, **__: statements.append(str(ddl.compile(dialect=engine.dialect))),
    )
    for metadata in (VERSION_TABLE.metadata, Base.metadata):
        metadata.create_all(engine, checkfirst=False)
    for table_name, message in APPEND_ONLY_TABLES.items():
        statements += _append_only(table_name, message)
    return tuple(statements)


def _append_only(table_name: str, message: str) -> list[str]:
    """Return triggers that refuse to change, delete or replace a row. REPLACE deletes the old row
    without firing the trigger against deletions, so it needs its own.
    """
    select_same_row = f"SELECT 1 FROM {table_name} WHERE seq = NEW.seq"  # noqa: S608  a name of our own
    event_by_change = {
        "update": f"UPDATE ON {table_name}",
        "delete": f"DELETE ON {table_name}",
        "replace": f"INSERT ON {table_name} WHEN EXISTS ({select_same_row})",
    }
    return [
        f"CREATE TRIGGER {table_name}_no_{change} BEFORE {event_clause}"
        f" BEGIN SELECT RAISE(ABORT, '{message}'); END"
        for change, event_clause in event_by_change.items()
    ]
