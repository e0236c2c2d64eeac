"""Liquidity positions that the store did not see begin, or whose end it did not see, and what their owner said of them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from agent import codec
from agent.model import LpMove
from agent.store import records
from agent.store.tables import FoundRow, IntentRow, LiquidityRow, Meta

UNDECIDED, TAKEN, FORGOTTEN = "undecided", "taken", "forgotten"
LOOKED = "positions_looked"
"""Key that says that the wallet was looked through since the store was new, or adopted."""


def moves(session: Session) -> tuple[LpMove, ...]:
    """What is known of the agent's positions, oldest first: those that were taken over, then what mined intents did, without what
    was forgotten since.
    """
    found = {row.name: row for row in session.scalars(select(FoundRow))}
    taken = [records.loaded(LpMove, row.move_json) for row in found.values() if row.verdict == TAKEN and row.move_json is not None]
    query = select(LiquidityRow.move_json, IntentRow.seq).join(IntentRow, IntentRow.id == LiquidityRow.intent_id).order_by(IntentRow.seq)
    own = []
    for text, seq in session.execute(query):
        move = records.loaded(LpMove, text)
        verdict = found.get(move.name)
        if verdict is None or verdict.verdict != FORGOTTEN or seq > verdict.after_seq:
            own.append(move)
    return (*taken, *own)


def undecided(session: Session) -> tuple[str, ...]:
    """Names of positions that the owner has to decide on."""
    return tuple(session.scalars(select(FoundRow.name).where(FoundRow.verdict == UNDECIDED).order_by(FoundRow.name)))


def looked(session: Session) -> bool:
    """Whether the wallet was looked through."""
    return session.get(Meta, LOOKED) is not None


def note(session: Session, names: Iterable[str], now_s: int) -> None:
    """Remembers positions to be decided on; those that were decided on stay so."""
    for name in names:
        if session.get(FoundRow, name) is None:
            session.add(FoundRow(name=name, verdict=UNDECIDED, move_json=None, after_seq=0, at_s=now_s))
    session.merge(Meta(key=LOOKED, value="1"))


def look_again(session: Session) -> None:
    """Something else used the wallet: it has to be looked through anew."""
    if (row := session.get(Meta, LOOKED)) is not None:
        session.delete(row)


def decide(session: Session, name: str, move: LpMove | None, now_s: int) -> None:
    """The owner's word: `move` stands for the mint of a position that counts from here on, None for one that is forgotten."""
    newest = session.scalar(select(func.max(IntentRow.seq))) or 0
    text = None if move is None else codec.dumps(move)
    session.merge(FoundRow(name=name, verdict=FORGOTTEN if move is None else TAKEN, move_json=text, after_seq=newest, at_s=now_s))
