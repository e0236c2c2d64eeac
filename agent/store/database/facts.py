"""Facts: single values of the store by their key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    bindparam,
    delete,
    func,
    select,
    true,
)

from agent.errors import OperatorNeeded
from agent.store.database.statements import upsert_rows
from agent.store.tables import FactRow

ADOPTION_SEQ_KEY = "adopted_after"
"""Key of the number of the newest intent when the operator last adopted a nonce."""


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
