"""Rows of the double-entry ledger as what they mean: openings, entries, flows and valuations of one book, in the chain's order."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, exists, func, select

from agent import codec
from agent.books import entries as rules
from agent.errors import OperatorNeeded
from agent.model import BookOpening, Entry, Stand, Valuation
from agent.store import balances, records, running, stored
from agent.store.ledger_tables import BookOpeningRow, BookRow, EntryRow, ValuationRow
from agent.store.statements import add, added, every, first, values
from agent.store.tables import EarlierRow, IntentRow
from agent.store.transitions import CONSUMED
from agent.units import NATIVE

_CONSUMED = tuple(state.value for state in CONSUMED)


@dataclass(frozen=True, slots=True)
class Book:
    """One set of books."""

    number: int
    kind: str
    opened_s: int
    note: str


def book_now(db: Connection, kind: str) -> Book | None:
    """The newest book, where it is of that kind."""
    row = first(db, _newest_book(), BookRow)
    return None if row is None or row.kind != kind else Book(row.seq, row.kind, row.opened_s, row.note)


def open_book(db: Connection, kind: str, now_s: int, note: str) -> Book:
    """A book that begins now."""
    return Book(added(db, BookRow, kind=kind, opened_s=now_s, note=note), kind, now_s, note)


def openings(db: Connection, book: Book) -> Sequence[BookOpeningRow]:
    """What the book opened with, oldest first."""
    return every(db, _openings(), BookOpeningRow, of=book.number)


def after(db: Connection, book: Book) -> int | None:
    """Number of the newest intent that is part of the first opening; None while nothing is open."""
    found: int | None = db.scalar(_after(), {"of": book.number})
    return found


def stands(db: Connection, book: Book, wallet: str, coin: str, head_block: int) -> tuple[Stand, ...]:
    """See Bookkeeping.stands."""
    opened = {row.token: row for row in openings(db, book) if row.place == ""}
    found = running.balances(db, book.number)

    def add(token: str, raw: int) -> None:
        if token in found:
            found[token] += raw

    for text in values(db, _ahead(), of=book.number, head=head_block):
        for token, raw in moved(text).items():
            add(token, -raw)
    begun = max(running.settled_to(db), min((row.after_intent for row in opened.values()), default=0))
    for row in every(db, _unentered(), IntentRow, begun=begun):
        intent = records.intent(row)
        if intent.receipt is not None and intent.receipt.block_number <= head_block:
            for token, raw in intent.changes(wallet, coin).items():
                if token in opened and row.seq > opened[token].after_intent:
                    add(token, raw)
    for earlier in every(db, _outside_by(), EarlierRow, head=head_block):
        for token, raw in json.loads(earlier.changes_json).items():
            if token in opened and earlier.block_number > opened[token].block_number:
                add(token, int(raw))
    return tuple(Stand(token, raw) for token, raw in sorted(found.items()))


def ledger(db: Connection, book: Book) -> tuple[Entry, ...]:
    """See Bookkeeping.ledger."""
    rows = openings(db, book)
    opened = {row.token: row for row in rows if row.place == ""}
    found: list[tuple[tuple[int, int, int], Entry]] = []
    for number, row in enumerate(rows):
        value = None if row.value is None else Fraction(row.value)
        opening = BookOpening(row.place, row.token, int(row.raw), value, row.block_number, row.chain_s)
        found.append(((row.block_number, 0, number), rules.opened(opening)))
    for flow in balances.flows(db, balances.MOST):
        if flow.token in opened and flow.id > opened[flow.token].after_flow:
            found.append(((flow.block, 1, flow.id), rules.flowed(flow)))
    found += [((entry.block, 2, seq), entry) for seq, entry in entries(db, book)]
    found += _outside(db, book, opened)
    return tuple(entry for _, entry in sorted(found, key=lambda pair: pair[0]))


def entries(db: Connection, book: Book) -> list[tuple[int, Entry]]:
    """Entries of final intents with the intents' numbers, in the order of the chain."""
    rows = db.execute(_entries(), {"of": book.number})
    with stored.undisturbed():
        return [(seq, stored.entry(text)) for seq, text in rows]


def _outside(db: Connection, book: Book, opened: Mapping[str, BookOpeningRow]) -> list[tuple[tuple[int, int, int], Entry]]:
    """Transactions that other stores sent, at the prices of the valuation before them, or of the first one."""
    found: list[tuple[tuple[int, int, int], Entry]] = []
    valued: tuple[Valuation, ...] | None = None
    for number, row in enumerate(every(db, select(EarlierRow).order_by(EarlierRow.block_number), EarlierRow)):
        moved = {token: int(raw) for token, raw in json.loads(row.changes_json).items()}
        counted = {token for token in moved if token in opened and row.block_number > opened[token].block_number}
        if not counted:
            continue
        valued = valuations(db, book, 0, None) if valued is None else valued
        at = bisect_right([one.block for one in valued], row.block_number)
        near = valued[max(0, at - 1)].held if valued else ()
        prices = rules.Prices({one.token: one.price for one in near}, NATIVE)
        entry = rules.outside(row.tx_hash, row.block_number, row.chain_s, moved, prices, counted)
        found.append(((row.block_number, 3, number), entry))
    return found


def valuations(db: Connection, book: Book, from_s: int, until_s: int | None, newest: int | None = None) -> tuple[Valuation, ...]:
    """See Bookkeeping.valuations; only the `newest` where that is given."""
    query = select(ValuationRow).where(ValuationRow.book == book.number, ValuationRow.chain_s >= from_s)
    if until_s is not None:
        query = query.where(ValuationRow.chain_s <= until_s)
    rows = every(db, query.order_by(ValuationRow.block_number.desc(), ValuationRow.seq.desc()).limit(newest), ValuationRow)
    return tuple(
        Valuation(row.block_number, row.chain_s, Fraction(row.value), stored.held(records.unpacked(row.held_z))) for row in reversed(rows)
    )


def add_entry(db: Connection, book: Book, seq: int, entry: Entry) -> None:
    """Writes a final intent's entry, and what it adds to the running balances."""
    row = {
        "intent_id": entry.id,
        "book": book.number,
        "block_number": entry.block,
        "intent_seq": seq,
        "wallet_json": wallet_json(entry),
        "entry_json": codec.dumps(entry),
    }
    add(db, EntryRow, [row])
    running.add(db, book.number, running.wallet_moves(entry))


def moved(text: str) -> dict[str, int]:
    """What an entry moved in the wallet, base units by token, as `wallet_json` wrote it."""
    try:
        return {token: int(raw) for token, raw in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise OperatorNeeded(f"store: an entry is damaged: {error}", "restore a backup, compare it with the chain") from None


def wallet_json(entry: Entry) -> str:
    """What an entry moved in the wallet, as JSON of base units by token."""
    return json.dumps({token: str(raw) for token, raw in running.wallet_moves(entry).items()})


_newest_book = cache(lambda: select(BookRow).order_by(BookRow.seq.desc()).limit(1))
_after = cache(lambda: select(func.min(BookOpeningRow.after_intent)).where(BookOpeningRow.book == bindparam("of")))
_outside_by = cache(lambda: select(EarlierRow).where(EarlierRow.block_number <= bindparam("head")))
entry_of = cache(lambda: select(EntryRow).where(EntryRow.intent_id == bindparam("of")))


@cache
def _openings() -> Select[Any]:
    of_book = select(BookOpeningRow).where(BookOpeningRow.book == bindparam("of"))
    return of_book.order_by(BookOpeningRow.block_number, BookOpeningRow.place, BookOpeningRow.token)


@cache
def _ahead() -> Select[Any]:
    """What entries of blocks above a head moved in the wallet."""
    return select(EntryRow.wallet_json).where(EntryRow.book == bindparam("of"), EntryRow.block_number > bindparam("head"))


@cache
def _unentered() -> Select[Any]:
    """Intents that a block has and the ledger lacks, beyond a number."""
    lacking = ~exists().where(EntryRow.intent_id == IntentRow.id)
    return select(IntentRow).where(IntentRow.seq > bindparam("begun"), IntentRow.state.in_(_CONSUMED), lacking)


@cache
def _entries() -> Select[int, str]:
    of_book = select(EntryRow.intent_seq, EntryRow.entry_json).where(EntryRow.book == bindparam("of"))
    return of_book.order_by(EntryRow.block_number, EntryRow.intent_seq)
