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
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, bindparam, select

from agent.errors import TrimtabError
from agent.model.controls import canonical_json
from agent.store.database import Database, all_rows, column_values, insert_rows
from agent.store.files.secret import find_secret, installation_secret
from agent.store.tables import ControlLogRow, TransitionRow

SealedRow = ControlLogRow | TransitionRow
Row = TypeVar("Row", ControlLogRow, TransitionRow)

SEALED_TABLES: tuple[type[SealedRow], ...] = (ControlLogRow, TransitionRow)

_OWN_KEY = secrets.token_bytes(32)
"""Key of this process without a readable secret: its rows are written, and no other process accepts
them.
"""


@dataclass(frozen=True, slots=True)
class SealReport:
    """Rows of a sealed table; those without a valid seal, and the places between sealed rows where
    rows are missing.
    """

    table: str
    rows: int
    unsealed: int
    missing: int


def append_rows(
    database: Database, db: Connection, kind: type[SealedRow], rows: Sequence[Mapping[str, object]]
) -> None:
    """Insert rows at the end of a sealed table, in a write transaction."""
    if (key := _seal_key(database, creates=True)) is None:
        insert_rows(db, kind, rows)
        return
    last: Any = next(_genuine(db, _backwards(kind), kind, key), None)
    previous, number = ("", 0) if last is None else (last.seal, last.seq)
    # rows that another program inserted keep their numbers
    used = set(column_values(db, _numbers_after(kind), of=number))
    for row in rows:
        number += 1
        while number in used:
            number += 1
        new = {**row, "seq": number, "previous": previous}
        previous = _seal(key, kind, new)
        insert_rows(db, kind, [{**new, "seal": previous}])


def sealed_rows(
    database: Database, db: Connection, query: Select[Any], kind: type[Row], **binds: object
) -> Iterator[Row]:
    """Yield the rows of a select of the model `kind` whose seal is valid; in memory, all rows."""
    if (key := _seal_key(database)) is None:
        yield from all_rows(db, query, kind, **binds)
    else:
        yield from _genuine(db, query, kind, key, **binds)


def seal_report(database: Database, db: Connection, kind: type[SealedRow]) -> SealReport:
    """Check every row of a sealed table."""
    key, rows, unsealed, missing, previous = _seal_key(database), 0, 0, 0, ""
    for row in db.execute(_forwards(kind)):
        rows += 1
        if key is None:
            continue
        if not _is_genuine(key, kind, row):
            unsealed += 1
            continue
        missing += row.previous != previous
        previous = row.seal
    return SealReport(kind.__tablename__, rows, unsealed, missing)


def _seal_key(database: Database, *, creates: bool = False) -> bytes | None:
    """Return the secret beside the file, which `creates` makes if it is missing; None for a
    database in memory, which no other process writes.
    """
    if not (file := database.engine.url.database):
        return None
    try:
        secret = installation_secret(Path(file)) if creates else find_secret(Path(file))
    except TrimtabError:
        secret = None
    return secret or _OWN_KEY


def _genuine(
    db: Connection, query: Select[Any], kind: type[SealedRow], key: bytes, **binds: object
) -> Iterator[Any]:
    with db.execute(query, binds) as rows:
        for row in rows:
            if _is_genuine(key, kind, row):
                yield row


def _is_genuine(key: bytes, kind: type[SealedRow], row: Any) -> bool:
    seal = row.seal if isinstance(row.seal, str) else ""
    try:
        expected = _seal(key, kind, row._mapping)
    except TypeError:  # another program may write any type into any column
        return False
    return hmac.compare_digest(seal.encode(), expected.encode())


def _seal(key: bytes, kind: type[SealedRow], row: Mapping[str, object]) -> str:
    values = [row.get(name) for name in _columns(kind)]
    fields = ["trimtab row 1", kind.__tablename__, values]
    return hmac.new(key, canonical_json(fields), hashlib.sha256).hexdigest()


@cache
def _columns(kind: type[SealedRow]) -> tuple[str, ...]:
    """Return the columns that a seal covers: all but itself."""
    return tuple(column.name for column in kind.__table__.columns if column.name != "seal")


_forwards = cache(lambda kind: select(kind).order_by(kind.seq))
_backwards = cache(lambda kind: select(kind).order_by(kind.seq.desc()))
_numbers_after = cache(
    lambda kind: select(kind.seq).where(kind.seq > bindparam("of")).order_by(kind.seq)
)
