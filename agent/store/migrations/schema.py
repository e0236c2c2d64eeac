"""Creation of the models' tables in an empty database, and what only one kind of database has:
SQLite's triggers on tables that only grow, and PostgreSQL's form of partial indexes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    DDL,
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    create_mock_engine,
    event,
    insert,
)
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex

from agent.store.tables import Base, ControlLogRow, TransitionRow

VERSION_TABLE = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""The table in which Alembic records the version of a store."""


def create_tables(db: Connection, version: str) -> None:
    """Create all tables in an empty database, which then has that version."""
    for statement in creating_statements(db.dialect.name):
        db.exec_driver_sql(statement)
    db.execute(insert(VERSION_TABLE), {"version_num": version})


@cache
def creating_statements(dialect: str) -> tuple[str, ...]:
    """Return the statements that create all tables with their indexes and triggers; cached, because
    compiling them takes longer than creating a store.
    """
    statements: list[str] = []
    engine: MockConnection = create_mock_engine(
        f"{dialect}://",
        lambda ddl, *_, **__: statements.append(str(ddl.compile(dialect=engine.dialect))),
    )
    for metadata in (VERSION_TABLE.metadata, Base.metadata):
        metadata.create_all(engine, checkfirst=False)
    return tuple(statements)


def _forbid_changes(row_class: type[Base], message: str) -> None:
    """Let SQLite refuse to change, delete or replace a row of `row_class`. REPLACE deletes the old
    row without firing the trigger against deletions, so it needs its own.
    """
    table = row_class.__tablename__
    select_same_row = f"SELECT 1 FROM {table} WHERE seq = NEW.seq"  # noqa: S608  a name of our own
    for change, event_clause in (
        ("update", f"UPDATE ON {table}"),
        ("delete", f"DELETE ON {table}"),
        ("replace", f"INSERT ON {table} WHEN EXISTS ({select_same_row})"),
    ):
        trigger = DDL(  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
            f"CREATE TRIGGER {table}_no_{change} BEFORE {event_clause}"
            f" BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )
        event.listen(row_class.__table__, "after_create", trigger.execute_if(dialect="sqlite"))


_forbid_changes(TransitionRow, "transitions are only ever added")
_forbid_changes(ControlLogRow, "the audit log only grows")


@compiles(CreateIndex, "postgresql")
def _compile_partial_index(create_index: CreateIndex, compiler: Any, **kwargs: Any) -> str:
    """Compile partial indexes on PostgreSQL with the condition for SQLite.

    The models define only the latter, so that PostgreSQL's dialect is loaded on demand.
    """
    options_by_dialect = create_index.element.dialect_options
    if options_by_dialect["postgresql"]["where"] is None:
        options_by_dialect["postgresql"]["where"] = options_by_dialect["sqlite"]["where"]
    return str(compiler.visit_create_index(create_index, **kwargs))
