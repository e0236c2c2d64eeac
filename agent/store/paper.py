"""What a store of paper books remembers beside them: the paper wallet, and what the live store trusts and has seen of prices."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sqlalchemy import delete

from agent import codec
from agent.errors import ConfigError, OperatorNeeded
from agent.model import Paper
from agent.store import database as meta
from agent.store.database import Database, add, add_new, reported
from agent.store.files.backup import reading
from agent.store.records import loaded
from agent.store.tables import Base, ImplementationRow, PinRow, PriceRow

STATE = "paper"


class PaperBook(Database):
    """The paper wallet; each method is a transaction of its own."""

    def paper(self) -> Paper | None:
        """The paper wallet; None before it began."""
        with self._read("read the paper wallet") as db:
            kept = meta.known(db, STATE)
            return None if kept is None else loaded(Paper, kept)

    def begin_paper(self, begun: Paper) -> None:
        """Writes the wallet that it all begins with. Raises ConfigError where there is one already."""
        with self._write("begin the paper wallet") as db:
            if meta.known(db, STATE) is not None:
                raise ConfigError("paper trading has begun already", "leave --value and --start away; to begin anew remove the paper store")
            meta.write(db, {STATE: codec.dumps(begun)})

    def keep_paper(self, state: Paper) -> None:
        """Writes how the wallet stands now, all of it at once. Raises OperatorNeeded where it never began."""
        with self._write("write the paper wallet") as db:
            if meta.known(db, STATE) is None:
                raise OperatorNeeded("the paper wallet never began", "trimtab paper begins one")
            meta.write(db, {STATE: codec.dumps(state)})

    def trust_as(self, live: Path) -> None:
        """Takes over what the live store at `live` pins now, and nothing else than that; without one nothing is pinned."""
        told = [(kind, _told(live, kind)) for kind in (PinRow, ImplementationRow)]
        with self._write("take over what is trusted") as db:
            for kind, found in told:
                db.execute(delete(kind))
                add(db, kind, found)

    def recall_prices(self, live: Path) -> None:
        """Takes over the prices that the live store has recorded, for weights and triggers that ask for their past."""
        found = _told(live, PriceRow)
        with self._write("take over prices") as db:
            add_new(db, PriceRow, found)


def _told(live: Path, kind: type[Base]) -> list[dict[str, object]]:
    """Rows of a table of another store, only read; none where there is none, or it is too old to have the table."""
    if not live.is_file():
        return []
    table, names = kind.__tablename__, [column.name for column in kind.__table__.columns]
    with reported(f"read {live}"), closing(reading(live)) as store:
        if store.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone() is None:
            return []
        found = store.execute(f"SELECT {', '.join(names)} FROM {table}")  # noqa: S608  names of our own models
        return [dict(zip(names, row, strict=True)) for row in found]
