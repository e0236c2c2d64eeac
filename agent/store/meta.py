"""Facts of the store by their key: read several at a time, written in one statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from sqlalchemy import Connection, Select, bindparam, delete, select

from agent.errors import OperatorNeeded
from agent.store.statements import put
from agent.store.tables import Meta


def read(db: Connection, *keys: str) -> dict[str, str]:
    """Those of the keys that are there, with their values."""
    return dict(db.execute(_several(len(keys)), {f"key{place}": key for place, key in enumerate(keys)}).all())


def beginning(db: Connection, prefix: str) -> Iterable[tuple[str, str]]:
    """Keys that begin so, with their values."""
    return db.execute(select(Meta.key, Meta.value).where(Meta.key.startswith(prefix)))


def text(db: Connection, key: str) -> str:
    """The value of a key; "" where it is not there."""
    return known(db, key) or ""


def known(db: Connection, key: str) -> str | None:
    """The value of a key; None where it is not there."""
    found: str | None = db.scalar(_one(), {"key": key})
    return found


def number(db: Connection, key: str) -> int:
    """The whole number of a key; 0 where it is not there. Raises OperatorNeeded where it is none."""
    return whole(key, known(db, key))


def whole(key: str, value: str | None) -> int:
    """The same of a value that was read."""
    try:
        return 0 if value is None else int(value)
    except ValueError:
        raise OperatorNeeded(f"store: {key} is damaged", "restore a backup, compare it with the chain") from None


def write(db: Connection, facts: Mapping[str, object]) -> None:
    """Writes values in the place of those that were there."""
    put(db, Meta, [{"key": key, "value": str(value)} for key, value in facts.items()])


def drop(db: Connection, *keys: str) -> None:
    """Removes keys that are there."""
    db.execute(_drop(), [{"gone": key} for key in keys])


_one = cache(lambda: select(Meta.value).where(Meta.key == bindparam("key")))
_drop = cache(lambda: delete(Meta).where(Meta.key == bindparam("gone")))


@cache
def _several(count: int) -> Select[str, str]:
    return select(Meta.key, Meta.value).where(Meta.key.in_([bindparam(f"key{place}") for place in range(count)]))
