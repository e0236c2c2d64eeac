"""The known changes of a wallet's balances, as a store has them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from agent.store import Store
from agent.store.database.statements import all_rows
from agent.store.tables import MovementRow


@dataclass(frozen=True, slots=True)
class Movement:
    """A change of one balance, in signed base units; native coin is units.NATIVE."""

    token: str
    delta_raw: int
    kind: str
    block_number: int
    chain_s: int
    tx_hash: str


def movements(store: Store) -> tuple[Movement, ...]:
    """Return every known change, newest first."""
    with store.budgets.db.read("read movements") as db:
        rows = all_rows(db, select(MovementRow).order_by(MovementRow.seq.desc()), MovementRow)
    return tuple(Movement(row.token, int(row.delta_raw), row.kind, row.block_number, row.chain_s, row.tx_hash) for row in rows)
