"""Rows of the double-entry ledger as what they mean: openings, entries, flows and valuations of one book, in the chain's order."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from agent import codec
from agent.books import entries as rules
from agent.errors import OperatorNeeded
from agent.model import BookOpening, Entry, Stand, Valuation
from agent.store import balances, records, running, stored
from agent.store.ledger_tables import BookOpeningRow, BookRow, EntryRow, ValuationRow
from agent.store.tables import EarlierRow, IntentRow
from agent.store.transitions import CONSUMED, ENDED_IN_BLOCK
from agent.units import NATIVE

_CONSUMED, _ENDED = (tuple(state.value for state in states) for states in (CONSUMED, ENDED_IN_BLOCK))


@dataclass(frozen=True, slots=True)
class Book:
    """One set of books."""

    number: int
    kind: str
    opened_s: int
    note: str


def book_now(session: Session, kind: str) -> Book | None:
    """The newest book, where it is of that kind."""
    row = session.scalar(select(BookRow).order_by(BookRow.seq.desc()).limit(1))
    return None if row is None or row.kind != kind else Book(row.seq, row.kind, row.opened_s, row.note)


def open_book(session: Session, kind: str, now_s: int, note: str) -> Book:
    """A book that begins now."""
    row = BookRow(kind=kind, opened_s=now_s, note=note)
    session.add(row)
    session.flush()
    return Book(row.seq, kind, now_s, note)


def openings(session: Session, book: Book) -> list[BookOpeningRow]:
    """What the book opened with, oldest first."""
    query = select(BookOpeningRow).where(BookOpeningRow.book == book.number)
    return list(session.scalars(query.order_by(BookOpeningRow.block_number, BookOpeningRow.place, BookOpeningRow.token)))


def after(session: Session, book: Book) -> int | None:
    """Number of the newest intent that is part of the first opening; None while nothing is open."""
    return session.scalar(select(func.min(BookOpeningRow.after_intent)).where(BookOpeningRow.book == book.number))


def enterable(session: Session, book: Book) -> Select[IntentRow] | None:
    """Final and reverted intents since the first opening; None while nothing is open."""
    first = after(session, book)
    if first is None:
        return None
    return select(IntentRow).where(IntentRow.state.in_(_ENDED), IntentRow.seq > first, IntentRow.receipt_json.is_not(None))


def stands(session: Session, book: Book, wallet: str, coin: str, head_block: int) -> tuple[Stand, ...]:
    """See Bookkeeping.stands."""
    opened = {row.token: row for row in openings(session, book) if row.place == ""}
    found = running.balances(session, book.number)

    def add(token: str, raw: int) -> None:
        if token in found:
            found[token] += raw

    ahead = select(EntryRow.wallet_json).where(EntryRow.book == book.number, EntryRow.block_number > head_block)
    for text in session.scalars(ahead):
        for token, raw in moved(text).items():
            add(token, -raw)
    first = max(running.settled_to(session), min((row.after_intent for row in opened.values()), default=0))
    lacking = ~exists().where(EntryRow.intent_id == IntentRow.id)
    for row in session.scalars(select(IntentRow).where(IntentRow.seq > first, IntentRow.state.in_(_CONSUMED), lacking)):
        intent = records.intent(row)
        if intent.receipt is not None and intent.receipt.block_number <= head_block:
            for token, raw in intent.changes(wallet, coin).items():
                if token in opened and row.seq > opened[token].after_intent:
                    add(token, raw)
    for earlier in session.scalars(select(EarlierRow).where(EarlierRow.block_number <= head_block)):
        for token, raw in json.loads(earlier.changes_json).items():
            if token in opened and earlier.block_number > opened[token].block_number:
                add(token, int(raw))
    return tuple(Stand(token, raw) for token, raw in sorted(found.items()))


def ledger(session: Session, book: Book) -> tuple[Entry, ...]:
    """See Bookkeeping.ledger."""
    rows = openings(session, book)
    opened = {row.token: row for row in rows if row.place == ""}
    found: list[tuple[tuple[int, int, int], Entry]] = []
    for number, row in enumerate(rows):
        value = None if row.value is None else Fraction(row.value)
        opening = BookOpening(row.place, row.token, int(row.raw), value, row.block_number, row.chain_s)
        found.append(((row.block_number, 0, number), rules.opened(opening)))
    for flow in balances.flows(session, balances.MOST):
        if flow.token in opened and flow.id > opened[flow.token].after_flow:
            found.append(((flow.block, 1, flow.id), rules.flowed(flow)))
    found += [((entry.block, 2, seq), entry) for seq, entry in entries(session, book)]
    found += _outside(session, book, opened)
    return tuple(entry for _, entry in sorted(found, key=lambda pair: pair[0]))


def entries(session: Session, book: Book) -> list[tuple[int, Entry]]:
    """Entries of final intents with the intents' numbers, in the order of the chain."""
    query = select(EntryRow.intent_seq, EntryRow.entry_json).where(EntryRow.book == book.number)
    rows = session.execute(query.order_by(EntryRow.block_number, EntryRow.intent_seq))
    with stored.undisturbed():
        return [(seq, stored.entry(text)) for seq, text in rows]


def _outside(session: Session, book: Book, opened: Mapping[str, BookOpeningRow]) -> list[tuple[tuple[int, int, int], Entry]]:
    """Transactions that other stores sent, at the prices of the valuation before them, or of the first one."""
    found: list[tuple[tuple[int, int, int], Entry]] = []
    valued: tuple[Valuation, ...] | None = None
    for number, row in enumerate(session.scalars(select(EarlierRow).order_by(EarlierRow.block_number))):
        moved = {token: int(raw) for token, raw in json.loads(row.changes_json).items()}
        counted = {token for token in moved if token in opened and row.block_number > opened[token].block_number}
        if not counted:
            continue
        valued = valuations(session, book, 0, None) if valued is None else valued
        at = bisect_right([one.block for one in valued], row.block_number)
        near = valued[max(0, at - 1)].held if valued else ()
        prices = rules.Prices({one.token: one.price for one in near}, NATIVE)
        entry = rules.outside(row.tx_hash, row.block_number, row.chain_s, moved, prices, counted)
        found.append(((row.block_number, 3, number), entry))
    return found


def valuations(session: Session, book: Book, from_s: int, until_s: int | None, newest: int | None = None) -> tuple[Valuation, ...]:
    """See Bookkeeping.valuations; only the `newest` where that is given."""
    query = select(ValuationRow).where(ValuationRow.book == book.number, ValuationRow.chain_s >= from_s)
    if until_s is not None:
        query = query.where(ValuationRow.chain_s <= until_s)
    rows = session.scalars(query.order_by(ValuationRow.block_number.desc(), ValuationRow.seq.desc()).limit(newest))
    return tuple(
        Valuation(row.block_number, row.chain_s, Fraction(row.value), stored.held(records.unpacked(row.held_z)))
        for row in reversed(rows.all())
    )


def add_entry(session: Session, book: Book, seq: int, entry: Entry) -> None:
    """Writes a final intent's entry, and what it adds to the running balances."""
    session.add(
        EntryRow(
            intent_id=entry.id, book=book.number, block_number=entry.block, intent_seq=seq,
            wallet_json=wallet_json(entry), entry_json=codec.dumps(entry),
        )
    )  # fmt: skip
    running.add(session, book.number, running.wallet_moves(entry))


def moved(text: str) -> dict[str, int]:
    """What an entry moved in the wallet, base units by token, as `wallet_json` wrote it."""
    try:
        return {token: int(raw) for token, raw in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise OperatorNeeded(f"store: an entry is damaged: {error}", "restore a backup, compare it with the chain") from None


def wallet_json(entry: Entry) -> str:
    """What an entry moved in the wallet, as JSON of base units by token."""
    return json.dumps({token: str(raw) for token, raw in running.wallet_moves(entry).items()})
