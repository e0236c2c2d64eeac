"""Weights that an allocator chose: every choice stays on record, the newest one counts."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, select

from agent import codec
from agent.errors import ConfigError, OperatorNeeded
from agent.model import Allocation
from agent.store.database import Database
from agent.store.statements import add, every, first
from agent.store.tables import AllocationRow


class Allocations(Database):
    """Chosen weights by whom they belong to: "" is the portfolio itself, others are strategies of it."""

    def note_allocation(self, chosen: Allocation, owner: str = "") -> None:
        """Writes a choice down; the same one a second time changes nothing."""
        with self._write("write chosen weights down") as db:
            newest, text = first(db, _newest(), AllocationRow, owner=owner, limit=1), codec.dumps(chosen)
            if newest is None or newest.chosen_json != text:
                add(db, AllocationRow, [{"owner": owner, "at_s": chosen.at_s, "chosen_json": text}])

    def allocation(self, owner: str = "") -> Allocation | None:
        """The newest choice; None before the first."""
        with self._read("read chosen weights") as db:
            row = first(db, _newest(), AllocationRow, owner=owner, limit=1)
            return None if row is None else _read(row)

    def allocations(self, owner: str = "", limit: int = 100) -> tuple[Allocation, ...]:
        """The newest choices, newest first."""
        with self._read("read chosen weights") as db:
            return tuple(_read(row) for row in every(db, _newest(), AllocationRow, owner=owner, limit=limit))


@cache
def _newest() -> Select[Any]:
    newest_first = select(AllocationRow).where(AllocationRow.owner == bindparam("owner")).order_by(AllocationRow.seq.desc())
    return newest_first.limit(bindparam("limit"))


def _read(row: AllocationRow) -> Allocation:
    try:
        return codec.loads(Allocation, row.chosen_json)
    except ConfigError as error:
        raise OperatorNeeded(f"store: chosen weights are damaged: {error.message}", "restore a backup") from None
