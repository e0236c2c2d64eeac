"""Stored liquidity positions: changes by mined intents, and discovered positions with the owner's
decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, select

from agent import codec
from agent.amm.lp.positions import position_change
from agent.model import LpPositionChange, Receipt
from agent.ports import Grant
from agent.store import database, records
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    insert_rows,
    max_value,
    upsert_rows,
)
from agent.store.tables import FoundPositionRow, IntentRow, LiquidityRow

UNDECIDED, TAKEN, FORGOTTEN = "undecided", "taken", "forgotten"
POSITIONS_SCANNED = "positions_looked"
"""Key that is set once the wallet was scanned, after the store was created or adopted."""


def positions_moved_since(db: Connection, after: int | None) -> set[str]:
    """Return the names of positions that intents after that number changed; empty without a
    number.
    """
    if after is None:
        return set()
    changes = column_values(db, _own_beyond(), of=after)
    return {records.decode_json(LpPositionChange, text).name for text in changes}


def undecided_positions(db: Connection) -> tuple[str, ...]:
    """Return the names of positions that await the owner's decision."""
    return tuple(column_values(db, _undecided()))


def require_position_scan(db: Connection) -> None:
    """Require a new scan for positions, after foreign use of the wallet."""
    database.delete_facts(db, POSITIONS_SCANNED)


def record_change(db: Connection, row: IntentRow, wallet: str, receipt: Receipt | None) -> None:
    """Record the position change of a liquidity action from its receipt; delete it if there is no
    receipt.
    """
    action = records.decode_json(Grant, records.decompress_text(row.grant_z)).action
    change = None
    if receipt is not None and action is not None:
        change = position_change(action, receipt, wallet)
    if change is None:
        db.execute(_without_position(), {"of": row.id})
    else:
        upsert_rows(db, LiquidityRow, [{"intent_id": row.id, "move_json": codec.dumps(change)}])


@dataclass(frozen=True, slots=True)
class PositionStore:
    """Liquidity positions; each method is a transaction of its own."""

    db: Database

    def changes(self) -> tuple[LpPositionChange, ...]:
        """Return the changes of the agent's positions, oldest first: adopted positions, then the
        changes by mined intents, without forgotten positions.
        """
        with self.db.read("read liquidity positions") as db:
            found = {row.name: row for row in all_rows(db, _positions_found(), FoundPositionRow)}
            taken = [
                records.decode_json(LpPositionChange, row.move_json)
                for row in found.values()
                if row.verdict == TAKEN and row.move_json is not None
            ]
            own = []
            for text, seq in db.execute(_positions_own()):
                move = records.decode_json(LpPositionChange, text)
                verdict = found.get(move.name)
                if verdict is None or verdict.verdict != FORGOTTEN or seq > verdict.after_seq:
                    own.append(move)
            return (*taken, *own)

    def scanned(self) -> bool:
        """True if the wallet was scanned since the store was created or adopted."""
        with self.db.read("read liquidity positions") as db:
            return database.find_fact(db, POSITIONS_SCANNED) is not None

    def record(self, names: Iterable[str], now_s: int) -> None:
        """Record positions that await the owner's decision."""
        with self.db.write("write liquidity positions") as db:
            known = {row.name for row in all_rows(db, _positions_found(), FoundPositionRow)}
            fresh = [name for name in dict.fromkeys(names) if name not in known]
            insert_rows(
                db,
                FoundPositionRow,
                [
                    {
                        "name": name,
                        "verdict": UNDECIDED,
                        "move_json": None,
                        "after_seq": 0,
                        "at_s": now_s,
                    }
                    for name in fresh
                ],
            )
            database.write_facts(db, {POSITIONS_SCANNED: 1})

    def decide(self, name: str, move: LpPositionChange | None, now_s: int) -> None:
        """Record the owner's decision on a position: with its mint `move` it counts from now on;
        None ignores it.
        """
        with self.db.write("write a liquidity position") as db:
            verdict, text = (FORGOTTEN, None) if move is None else (TAKEN, codec.dumps(move))
            row = {
                "name": name,
                "verdict": verdict,
                "move_json": text,
                "after_seq": max_value(db, IntentRow.seq),
                "at_s": now_s,
            }
            upsert_rows(db, FoundPositionRow, [row])


_without_position = cache(
    lambda: delete(LiquidityRow).where(LiquidityRow.intent_id == bindparam("of"))
)
_positions_found = cache(lambda: select(FoundPositionRow))


@cache
def _undecided() -> Select[Any]:
    return (
        select(FoundPositionRow.name)
        .where(FoundPositionRow.verdict == UNDECIDED)
        .order_by(FoundPositionRow.name)
    )


@cache
def _positions_own() -> Select[str, int]:
    """Select position changes of mined intents with the intents' numbers, oldest first."""
    query = select(LiquidityRow.move_json, IntentRow.seq).join(
        IntentRow, IntentRow.id == LiquidityRow.intent_id
    )
    return query.order_by(IntentRow.seq)


@cache
def _own_beyond() -> Select[Any]:
    """Select position changes of intents with a sequence number above `of`."""
    return (
        _positions_own()
        .with_only_columns(LiquidityRow.move_json)
        .where(IntentRow.seq > bindparam("of"))
    )
