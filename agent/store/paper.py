"""Stored state of paper trading: the paper wallet, and trusted contracts and prices copied from the
live store.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete

from agent import codec
from agent.errors import ConfigError, OperatorNeeded
from agent.model import PaperWallet
from agent.store import database
from agent.store.database import Database, database_errors, insert_new_rows, insert_rows
from agent.store.files.backup import open_read_only
from agent.store.records import decode_json
from agent.store.tables import Base, ImplementationRow, PinRow, PriceRow

STATE = "paper"


@dataclass(frozen=True, slots=True)
class PaperStore:
    """The paper wallet; each method is a transaction of its own."""

    db: Database

    def wallet(self) -> PaperWallet | None:
        """The paper wallet; None before it was created."""
        with self.db.read("read the paper wallet") as db:
            kept = database.find_fact(db, STATE)
            return None if kept is None else decode_json(PaperWallet, kept)

    def begin(self, begun: PaperWallet) -> None:
        """Record the initial paper wallet. Raises ConfigError if there is one already."""
        with self.db.write("begin the paper wallet") as db:
            if database.find_fact(db, STATE) is not None:
                raise ConfigError(
                    "paper trading has already started",
                    "omit --value and --start; to start over, remove the paper store",
                )
            database.write_facts(db, {STATE: codec.dumps(begun)})

    def save(self, state: PaperWallet) -> None:
        """Save the paper wallet as a whole. Raises OperatorNeeded if there is none."""
        with self.db.write("write the paper wallet") as db:
            if database.find_fact(db, STATE) is None:
                raise OperatorNeeded("the paper wallet has not started", "trimtab paper begins one")
            database.write_facts(db, {STATE: codec.dumps(state)})

    def copy_pins(self, live: Path) -> None:
        """Replace the pins by those of the live store at `live`; without a live store nothing is
        pinned.
        """
        rows = [(kind, _rows_of_store(live, kind)) for kind in (PinRow, ImplementationRow)]
        with self.db.write("take over what is trusted") as db:
            for kind, found in rows:
                db.execute(delete(kind))
                insert_rows(db, kind, found)

    def copy_prices(self, live: Path) -> None:
        """Copy the live store's recorded prices, for weights and triggers that need history."""
        found = _rows_of_store(live, PriceRow)
        with self.db.write("take over prices") as db:
            insert_new_rows(db, PriceRow, found)


def _rows_of_store(live: Path, kind: type[Base]) -> list[dict[str, object]]:
    """Rows of a table of another store, read only; empty if the store or the table does not
    exist.
    """
    if not live.is_file():
        return []
    table, names = kind.__tablename__, [column.name for column in kind.__table__.columns]
    with database_errors(f"read {live}"), closing(open_read_only(live)) as store:
        if (
            store.execute(
                "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
            ).fetchone()
            is None
        ):
            return []
        found = store.execute(f"SELECT {', '.join(names)} FROM {table}")  # noqa: S608  names of our own models
        return [dict(zip(names, row, strict=True)) for row in found]
