"""Liquidity positions that the store did not see begin, or whose end it did not see, and what their owner said of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from agent import codec
from agent.model import LpMove
from agent.store import meta, records
from agent.store.statements import add, every, highest, put, values
from agent.store.tables import FoundRow, IntentRow, LiquidityRow

UNDECIDED, TAKEN, FORGOTTEN = "undecided", "taken", "forgotten"
LOOKED = "positions_looked"
"""Key that says that the wallet was looked through since the store was new, or adopted."""


def moves(db: Connection) -> tuple[LpMove, ...]:
    """What is known of the agent's positions, oldest first: those that were taken over, then what mined intents did, without what
    was forgotten since.
    """
    found = {row.name: row for row in every(db, _found(), FoundRow)}
    taken = [records.loaded(LpMove, row.move_json) for row in found.values() if row.verdict == TAKEN and row.move_json is not None]
    own = []
    for text, seq in db.execute(_own()):
        move = records.loaded(LpMove, text)
        verdict = found.get(move.name)
        if verdict is None or verdict.verdict != FORGOTTEN or seq > verdict.after_seq:
            own.append(move)
    return (*taken, *own)


def moved_since(db: Connection, after: int | None) -> set[str]:
    """Names of positions that the agent itself moved by intents beyond that number; none without one."""
    return set() if after is None else {records.loaded(LpMove, text).name for text in values(db, _own_beyond(), of=after)}


def undecided(db: Connection) -> tuple[str, ...]:
    """Names of positions that the owner has to decide on."""
    return tuple(values(db, _undecided()))


def looked(db: Connection) -> bool:
    """Whether the wallet was looked through."""
    return meta.known(db, LOOKED) is not None


def note(db: Connection, names: Iterable[str], now_s: int) -> None:
    """Remembers positions to be decided on; those that were decided on stay so."""
    known = {row.name for row in every(db, _found(), FoundRow)}
    fresh = [name for name in dict.fromkeys(names) if name not in known]
    add(db, FoundRow, [{"name": name, "verdict": UNDECIDED, "move_json": None, "after_seq": 0, "at_s": now_s} for name in fresh])
    meta.write(db, {LOOKED: 1})


def look_again(db: Connection) -> None:
    """Something else used the wallet: it has to be looked through anew."""
    meta.drop(db, LOOKED)


def decide(db: Connection, name: str, move: LpMove | None, now_s: int) -> None:
    """The owner's word: `move` stands for the mint of a position that counts from here on, None for one that is forgotten."""
    verdict, text = (FORGOTTEN, None) if move is None else (TAKEN, codec.dumps(move))
    row = {"name": name, "verdict": verdict, "move_json": text, "after_seq": highest(db, IntentRow.seq), "at_s": now_s}
    put(db, FoundRow, [row])


_found = cache(lambda: select(FoundRow))


@cache
def _undecided() -> Select[Any]:
    return select(FoundRow.name).where(FoundRow.verdict == UNDECIDED).order_by(FoundRow.name)


@cache
def _own() -> Select[str, int]:
    """What mined intents did, with their numbers, oldest first."""
    query = select(LiquidityRow.move_json, IntentRow.seq).join(IntentRow, IntentRow.id == LiquidityRow.intent_id)
    return query.order_by(IntentRow.seq)


@cache
def _own_beyond() -> Select[Any]:
    """What intents beyond a number did."""
    return _own().with_only_columns(LiquidityRow.move_json).where(IntentRow.seq > bindparam("of"))
