"""Sums kept beside the rows that they sum, in the same transaction: balances by book, all losses, and how far everything is settled.

So a look reads as much of old books as of new ones. `trimtab books check` proves the balances from the entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.orm import Session

from agent.books.entries import WALLET
from agent.books.grain import GRAIN
from agent.errors import OperatorNeeded
from agent.model import Entry
from agent.store import stored
from agent.store.ledger_tables import BookOpeningRow, BookRow, EntryRow, RunningRow
from agent.store.tables import BudgetRow, FlowRow, IntentRow, Meta
from agent.store.transitions import CONSUMED, ENDED_IN_BLOCK, OPEN
from agent.units import ceil_int

SETTLED_TO = "settled_to"
"""Key of the newest intent up to which every one has ended, is booked, and is entered in the ledger or older than its book."""
LOSS_TOTAL = "loss_total"
"""Key of what all booked intents lost, in the grain of books/grain.py; what gained makes no room."""
ENTRIES_TURN = "entries_turn"
"""Key of how often entries or flows were written."""
_OPEN, _CONSUMED, _ENDED = (tuple(state.value for state in states) for states in (OPEN, CONSUMED, ENDED_IN_BLOCK))


def balances(session: Session, book: int) -> dict[str, int]:
    """Base units by token: what the wallet opened with, all flows since and all entries of the book."""
    rows = session.execute(select(RunningRow.token, RunningRow.raw).where(RunningRow.book == book))
    return {token: int(raw) for token, raw in rows}


def begin(session: Session, book: int, token: str, raw: int) -> None:
    """A token came into the book with so many base units in the wallet."""
    session.merge(RunningRow(book=book, token=token, raw=str(raw)))


def add(session: Session, book: int, moved: Mapping[str, int], sign: int = 1) -> None:
    """What an entry moved in the wallet; with sign -1 an entry that goes."""
    _set(session, ENTRIES_TURN, turn(session) + 1)
    for token, raw in moved.items():
        row = session.get(RunningRow, (book, token))
        if row is not None:
            row.raw = str(int(row.raw) + sign * raw)


def flowed(session: Session, token: str, raw: int) -> None:
    """A flow was written down: it belongs to the book that is kept."""
    book = session.scalar(select(func.max(BookRow.seq)))
    if book is not None:
        add(session, book, {token: raw})


def proven(session: Session, book: int) -> tuple[str, ...]:
    """Where what is kept of the book is not what its openings, flows and entries come to: in words, nothing in sound books."""
    kept, summed = balances(session, book), summed_up(session, book)
    wrong = [
        f"balance of {token}: {kept.get(token)} is kept, its entries come to {summed.get(token)}"
        for token in sorted({*kept, *summed})
        if kept.get(token) != summed.get(token)
    ]
    if (grains := _losses(session)) != _number(session, LOSS_TOTAL):
        wrong.append(f"losses: {_number(session, LOSS_TOTAL)} grains are kept, budgets come to {grains}")
    if settled_to(session) > _settled(session, 0, book):
        wrong.append(f"settled: up to transaction {settled_to(session)} is kept, one before it waits")
    return tuple(wrong)


def recount(session: Session, book: int) -> None:
    """Puts all of it in order by what it sums."""
    session.execute(delete(RunningRow).where(RunningRow.book == book))
    session.flush()
    for token, raw in summed_up(session, book).items():
        begin(session, book, token, raw)
    _set(session, ENTRIES_TURN, turn(session) + 1)
    _set(session, LOSS_TOTAL, _losses(session))
    _set(session, SETTLED_TO, 0)
    settle(session)


def summed_up(session: Session, book: int) -> dict[str, int]:
    """What the wallet opened with, all flows since, and what the postings of all entries moved in it, base units by token."""
    opened = select(BookOpeningRow.token, BookOpeningRow.raw, BookOpeningRow.after_flow)
    rows = session.execute(opened.where(BookOpeningRow.book == book, BookOpeningRow.place == "")).all()
    found, after = {token: int(raw) for token, raw, _ in rows}, {token: flow for token, _, flow in rows}
    for seq, token, delta in session.execute(select(FlowRow.seq, FlowRow.token, FlowRow.delta_raw)):
        if token in found and seq > after[token]:
            found[token] += int(delta)
    for text in session.scalars(select(EntryRow.entry_json).where(EntryRow.book == book)):
        for token, raw in wallet_moves(stored.entry(text)).items():
            if token in found:
                found[token] += raw
    return found


def wallet_moves(entry: Entry) -> dict[str, int]:
    """What an entry moved in the wallet, base units by token."""
    return {one.token: one.raw for one in entry.postings if one.account == WALLET}


def turn(session: Session) -> int:
    """A number that changes whenever an entry comes, goes or is written anew."""
    return _number(session, ENTRIES_TURN)


def loss_total(session: Session) -> Fraction:
    """What all booked intents lost, numeraire base units."""
    return Fraction(_number(session, LOSS_TOTAL), GRAIN)


def lost(session: Session, loss: Fraction, sign: int = 1) -> None:
    """The loss of one intent, rounded up; with sign -1 that of one whose receipt a reorganisation took."""
    if (grains := grains_up(loss)) > 0:
        _set(session, LOSS_TOTAL, _number(session, LOSS_TOTAL) + sign * grains)


def grains_up(loss: Fraction) -> int:
    """A loss in the grain of the books, rounded up; nothing for a gain."""
    return max(0, ceil_int(loss * GRAIN))


def settled_to(session: Session) -> int:
    """Number of the newest intent up to which nothing waits to be booked or entered."""
    return _number(session, SETTLED_TO)


def settle(session: Session) -> None:
    """Moves that number on as far as it goes."""
    session.flush()
    book = session.scalar(select(func.max(BookRow.seq)))
    if book is not None and (now := _settled(session, known := settled_to(session), book)) != known:
        _set(session, SETTLED_TO, now)


def _settled(session: Session, known: int, book: int) -> int:
    """How far all is settled, as far as `known` it is. What came before the book's first opening never enters it."""
    newest: int = session.scalar(select(func.max(IntentRow.seq))) or 0
    if newest == known:  # all of them are
        return known
    first = session.scalar(select(func.min(BookOpeningRow.after_intent)).where(BookOpeningRow.book == book))
    unbooked = IntentRow.state.in_(_CONSUMED) & ~exists().where(BudgetRow.intent_id == IntentRow.id)
    unentered = (
        IntentRow.state.in_(_ENDED)
        & IntentRow.receipt_json.is_not(None)
        & (IntentRow.seq > (newest if first is None else first))
        & ~exists().where(EntryRow.intent_id == IntentRow.id)
    )
    waits = or_(IntentRow.state.in_(_OPEN), unbooked, unentered)
    next_one = session.scalar(select(IntentRow.seq).where(IntentRow.seq > known, waits).order_by(IntentRow.seq).limit(1))
    return int(newest if next_one is None else next_one - 1)


def unsettle(session: Session, seq: int) -> None:
    """The intent of that number moved: whatever it is now has to be looked at again."""
    if seq <= settled_to(session):
        _set(session, SETTLED_TO, seq - 1)


def _losses(session: Session) -> int:
    return sum(grains_up(Fraction(loss)) for loss in session.scalars(select(BudgetRow.loss)) if loss != "0")


def _number(session: Session, key: str) -> int:
    row = session.get(Meta, key)
    try:
        return 0 if row is None else int(row.value)
    except ValueError:
        raise OperatorNeeded(f"store: {key} is damaged", "restore a backup, compare it with the chain") from None


def _set(session: Session, key: str, number: int) -> None:
    session.merge(Meta(key=key, value=str(number)))
