"""Statements on a connection, which run at once. Building a statement takes five times as long as
running it in SQLite, so each is built once, by a cached function. Selects of a model return read-only
rows with the model's attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Select,
    SQLColumnExpression,
    func,
    insert,
    inspect,
    literal,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import InstrumentedAttribute

from agent.store.tables import Base

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


T = TypeVar("T")


def all_rows(db: Connection, query: Select[Any], model: type[T], /, **binds: object) -> Sequence[T]:
    """Return all rows of a select of `model`."""
    return cast("Sequence[T]", db.execute(query, binds).all())


def first_row(db: Connection, query: Select[Any], model: type[T], /, **binds: object) -> T | None:
    """Return the first row of a select of `model`; None without rows."""
    return cast("T | None", db.execute(query, binds).first())


def column_values(db: Connection, query: Select[Any], /, **binds: object) -> Sequence[Any]:
    """Return the first column of every row."""
    return db.scalars(query, binds).all()


def is_one_of(column: SQLColumnExpression[str], values: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that a column has one of these values, each a parameter: SQLAlchemy
    would expand a plain list at each execution.
    """
    return column.in_([literal(value) for value in values])


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
