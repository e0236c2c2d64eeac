"""Statements on a connection. Building one costs five times what SQLite needs to answer it: each is built once, by a cached function.

Selects of a model give rows with its attributes, to be read only; what is written is on the connection at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection, Insert, Select, func, insert, inspect, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import InstrumentedAttribute

from agent.store.tables import Base

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

T = TypeVar("T")


def every(db: Connection, query: Select[Any], kind: type[T], /, **given: object) -> Sequence[T]:
    """All rows of a select of the model `kind`."""
    return cast("Sequence[T]", db.execute(query, given).all())


def first(db: Connection, query: Select[Any], kind: type[T], /, **given: object) -> T | None:
    """The first row of a select of the model `kind`; None where there is none."""
    return cast("T | None", db.execute(query, given).first())


def values(db: Connection, query: Select[Any], /, **given: object) -> Sequence[Any]:
    """The first column of every row."""
    return db.scalars(query, given).all()


def highest(db: Connection, column: InstrumentedAttribute[int]) -> int:
    """The largest number in a column; 0 where there is no row."""
    found: int | None = db.scalar(_highest(column))
    return found or 0


def add(db: Connection, kind: type[Base], rows: Sequence[Mapping[str, object]]) -> None:
    """Inserts rows, each with the same columns."""
    if rows:
        db.execute(_insert(kind), list(rows))


def added(db: Connection, kind: type[Base], /, **row: object) -> int:
    """Inserts a row and returns its number."""
    (number,) = cast("tuple[int]", db.execute(_insert(kind), row).inserted_primary_key)
    return number


def put(db: Connection, kind: type[Base], rows: Sequence[Mapping[str, object]]) -> None:
    """Inserts rows, or writes their columns where there is one of that primary key; each with the same columns."""
    if rows:
        db.execute(upsert(kind, frozenset(rows[0]), db.dialect.name), list(rows))


def add_new(db: Connection, kind: type[Base], rows: Iterable[Mapping[str, object]]) -> int:
    """Inserts rows, but for those whose key is there already; returns how many were new."""
    statement = insert_new(kind, db.dialect.name)
    return sum(db.execute(statement, row).rowcount for row in rows)


@cache
def _highest(column: InstrumentedAttribute[int]) -> Select[Any]:
    return select(func.max(column))


@cache
def _insert(kind: type[Base]) -> Insert:
    return insert(kind)


@cache
def upsert(kind: type[Base], names: frozenset[str], dialect: str) -> Insert:
    """Writes the columns `names`, also of a row that is there."""
    keys = [column.name for column in inspect(kind).primary_key]
    made = _inserting(kind, dialect)
    return made.on_conflict_do_update(index_elements=keys, set_={name: made.excluded[name] for name in sorted(names - {*keys})})


@cache
def insert_new(kind: type[Base], dialect: str) -> Insert:
    """Leaves a row that is there as it is; tells how many were written, which PostgreSQL's drivers else do not."""
    return _inserting(kind, dialect).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def _inserting(kind: type[Base], dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Each of the two knows its own words for rows that are there already."""
    if dialect == "sqlite":
        return sqlite.insert(kind)
    from sqlalchemy.dialects import postgresql  # no store of SQLite loads it

    return postgresql.insert(kind)
