"""What a failing database means for the operator: disk full, locked, corrupt, not writable."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from agent.errors import OperatorNeeded

_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("disk is full", "no space left"), "free space on the disk of the store; what was written before is safe, run the command again"),
    (("locked", "busy"), "another program holds the store; close it and run the command again"),
    (("malformed", "not a database", "corrupt", "disk i/o error"), "keep the file, restore a backup, compare it with the chain"),
    (("readonly", "read-only", "permission denied", "unable to open"), "make the store's file and its folder writable for this user"),
)
_GENERAL_REMEDY = "nothing is sent while the store cannot be written; repair it and run the command again"


def remedy(text: str) -> str:
    """What to do about a database's message."""
    lowered = text.lower()
    return next((advice for marks, advice in _REMEDIES if any(mark in lowered for mark in marks)), _GENERAL_REMEDY)


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Turns every database and file error inside into OperatorNeeded with a remedy; `what` says what was being done."""
    try:
        yield
    except DBAPIError as error:  # its own text would repeat the statement with all parameters
        raise OperatorNeeded(f"store: cannot {what}: {error.orig}", remedy(str(error.orig))) from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise OperatorNeeded(f"store: cannot {what}: {error}", remedy(str(error))) from error
