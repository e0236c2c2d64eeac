"""Programs of two versions on one database: a version that only adds to the tables is used beside the
one before it, and one that takes something away waits until no process of an older version is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from agent.errors import ErrorCode, PassingFault


def oldest_reader(db: Connection) -> str:
    """Return the oldest version whose programs may use the tables as they are."""
    return str(db.execute(_SELECT_OLDEST).scalar_one())


def mark_process(connection: Connection, version: str) -> None:
    """Let the session of a process say, until it ends, that a program of this version runs."""
    connection.execute(_MARK, {"name": _lock_name(version)})


def raise_oldest_reader(db: Connection, oldest: str, revisions: Sequence[str]) -> None:
    """Exclude programs older than `oldest` from the tables from this transaction on. Raises
    PassingFault while one of them runs.
    """
    for version in revisions:
        if version < oldest and not db.execute(_EXCLUDE, {"name": _lock_name(version)}).scalar():
            raise PassingFault(
                f"store: programs of version {version} still run, which this version excludes",
                "end them; then this one goes on by itself",
                code=ErrorCode.STORE_VERSION,
            )
    db.execute(_UPDATE_OLDEST, {"oldest": oldest})


def _lock_name(version: str) -> str:
    return f"program of version {version}"


_SELECT_OLDEST = text("SELECT oldest FROM readers")
_UPDATE_OLDEST = text("UPDATE readers SET oldest = :oldest")
_MARK = text("SELECT pg_advisory_lock_shared(hashtextextended(:name, 3))")
_EXCLUDE = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 3))")
