"""Statements on a connection. Building one costs five times what SQLite needs to answer it: each is built once, by a cached function.

Selects of a model give rows with its attributes, to be read only; what is written is on the connection at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Insert, Select, func, insert, inspect, select
from sqlalchemy.dialects.sqlite import insert as upserting
from sqlalchemy.orm import InstrumentedAttribute

from agent.store.tables import Base

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
        db.execute(_upsert(kind, frozenset(rows[0])), list(rows))


def add_new(db: Connection, kind: type[Base], rows: Iterable[Mapping[str, object]]) -> int:
    """Inserts rows, but for those whose key is there already; returns how many were new."""
    statement = _insert_new(kind)
    return sum(db.execute(statement, row).rowcount for row in rows)


@cache
def _highest(column: InstrumentedAttribute[int]) -> Select[Any]:
    return select(func.max(column))


@cache
def _insert(kind: type[Base]) -> Insert:
    return insert(kind)


@cache
def _upsert(kind: type[Base], names: frozenset[str]) -> Insert:
    """SQLite's and PostgreSQL's have the same words; the other dialect would be loaded at every start."""
    keys = [column.name for column in inspect(kind).primary_key]
    made = upserting(kind)
    return made.on_conflict_do_update(index_elements=keys, set_={name: made.excluded[name] for name in sorted(names - {*keys})})


@cache
def _insert_new(kind: type[Base]) -> Insert:
    return upserting(kind).on_conflict_do_nothing()
