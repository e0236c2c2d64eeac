"""Seals of the tables that only grow: each row has an HMAC over its columns and the seal of the row
before, with the secret beside the store. A row that another program wrote does not count.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, bindparam, select

from agent.errors import TrimtabError
from agent.model.controls import canonical_json
from agent.store.database.connection import Database
from agent.store.database.statements import all_rows, column_values, insert_rows
from agent.store.files.secret import ensure_secret, find_secret
from agent.store.tables import ControlLogRow, TransitionRow

SealedRow = ControlLogRow | TransitionRow
Row = TypeVar("Row", ControlLogRow, TransitionRow)

SEALED_TABLES: tuple[type[SealedRow], ...] = (ControlLogRow, TransitionRow)

_PROCESS_KEY = secrets.token_bytes(32)
"""Key that this process uses if the secret cannot be read; no other process accepts the rows that
it seals.
"""


@dataclass(frozen=True, slots=True)
class SealReport:
    """Rows of a sealed table; those without a valid seal, and the places between sealed rows where
    rows are missing.
    """

    table: str
    row_count: int
    unsealed_count: int
    gap_count: int


def append_rows(
    database: Database,
    db: Connection,
    model: type[SealedRow],
    unsealed_rows: Sequence[Mapping[str, object]],
) -> None:
    """Insert rows at the end of a sealed table, in a write transaction."""
    if (seal_key := _seal_key(database, create=True)) is None:
        insert_rows(db, model, unsealed_rows)
        return
    last_row: Any = next(_genuine_rows(db, _select_newest_first(model), model, seal_key), None)
    previous_seal, seq = ("", 0) if last_row is None else (last_row.seal, last_row.seq)
    # rows that another program inserted keep their numbers
    used_seqs = set(column_values(db, _select_seqs_after(model), after_seq=seq))
    for unsealed_row in unsealed_rows:
        seq += 1
        while seq in used_seqs:
            seq += 1
        sealed_row = {**unsealed_row, "seq": seq, "previous_seal": previous_seal}
        previous_seal = _row_seal(seal_key, model, sealed_row)
        insert_rows(db, model, [{**sealed_row, "seal": previous_seal}])


def sealed_rows(
    database: Database, db: Connection, query: Select[Any], model: type[Row], **bind_values: object
) -> Iterator[Row]:
    """Yield the rows of a select of `model` whose seal is valid; in memory, all rows."""
    if (seal_key := _seal_key(database)) is None:
        yield from all_rows(db, query, model, **bind_values)
    else:
        yield from _genuine_rows(db, query, model, seal_key, **bind_values)


def seal_report(database: Database, db: Connection, model: type[SealedRow]) -> SealReport:
    """Check every row of a sealed table."""
    seal_key = _seal_key(database)
    row_count = 0
    unsealed_count = 0
    gap_count = 0
    previous_seal = ""
    for row in db.execute(_select_oldest_first(model)):
        row_count += 1
        if seal_key is None:
            continue
        if not _is_genuine(seal_key, model, row):
            unsealed_count += 1
            continue
        gap_count += row.previous_seal != previous_seal
        previous_seal = row.seal
    return SealReport(model.__tablename__, row_count, unsealed_count, gap_count)


def _seal_key(database: Database, *, create: bool = False) -> bytes | None:
    """Return the secret of the store, which `create` makes if it is missing; None for a database in
    memory, which no other process writes.
    """
    if (place := database.secret_place) is None:
        return None
    try:
        secret = ensure_secret(place) if create else find_secret(place)
    except TrimtabError:
        secret = None
    return secret or _PROCESS_KEY


def _genuine_rows(
    db: Connection,
    query: Select[Any],
    model: type[SealedRow],
    seal_key: bytes,
    **bind_values: object,
) -> Iterator[Any]:
    with db.execute(query, bind_values) as table_rows:
        for row in table_rows:
            if _is_genuine(seal_key, model, row):
                yield row


def _is_genuine(seal_key: bytes, model: type[SealedRow], row: Any) -> bool:
    seal = row.seal if isinstance(row.seal, str) else ""
    try:
        expected_seal = _row_seal(seal_key, model, row._mapping)
    except TypeError:  # another program may write any type into any column
        return False
    return hmac.compare_digest(seal.encode(), expected_seal.encode())


def _row_seal(seal_key: bytes, model: type[SealedRow], row: Mapping[str, object]) -> str:
    row_values = [row.get(column_name) for column_name in _sealed_columns(model)]
    sealed_fields = ["trimtab row 1", model.__tablename__, row_values]
    return hmac.new(seal_key, canonical_json(sealed_fields), hashlib.sha256).hexdigest()


@cache
def _sealed_columns(model: type[SealedRow]) -> tuple[str, ...]:
    """Return the columns that a seal covers: all but itself."""
    return tuple(column.name for column in model.__table__.columns if column.name != "seal")


_select_oldest_first = cache(lambda model: select(model).order_by(model.seq))
_select_newest_first = cache(lambda model: select(model).order_by(model.seq.desc()))
_select_seqs_after = cache(
    lambda model: select(model.seq).where(model.seq > bindparam("after_seq")).order_by(model.seq)
)
