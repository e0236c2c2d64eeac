"""Ledger books: openings, valuations, and running sums, which are written in the same transaction as
the rows they sum.

The sums are the balances of a book, the total loss and the last settled intent. With them a cycle
reads no more rows in an old book than in a new one. `trimtab books check` proves the balances from
the entries.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, or_, select, update

from agent import codec
from agent.accounting.entries import QUANTA_PER_UNIT, WALLET
from agent.model import Entry, EntryKind, Posting, Valuation, ValuedHolding
from agent.store import database, records
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    first_row,
    insert_returning_id,
    insert_rows,
    max_value,
    upsert_rows,
)
from agent.store.tables import (
    BookOpeningRow,
    BookRow,
    BudgetRow,
    EntryRow,
    ExternalTransferRow,
    IntentRow,
    RunningBalanceRow,
    ValuationRow,
)
from agent.store.transitions import CONSUMED, ENDED_IN_BLOCK, OPEN
from agent.units import ceil_int

# --- Fast parsing of stored entries and valuations: equal to codec.loads, without its general
# rules.


_KINDS = {kind.value: kind for kind in EntryKind}
_ENTRY = {"id", "kind", "block", "chain_s", "tx_hash", "note", "postings", "by_hand"}
_POSTING = {"account", "token", "raw", "value"}
_HELD = {"token", "wallet_raw", "lp_raw", "price", "target_bps"}
_RESERVED = _HELD | {"reserved_raw"}
"""Older valuations have no `reserved_raw`: their whole balance counts as managed."""


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector, which would repeatedly scan thousands of new long-lived
    objects.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _UnexpectedFormat(Exception):
    """JSON that codec.dumps did not write."""


def parse_entry(text: str) -> Entry:
    """Parse one entry. Raises OperatorNeeded if the row is damaged."""
    try:
        return _entry(json.loads(text))
    except (_UnexpectedFormat, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        return records.decode_json(Entry, text)


def parse_held(text: str) -> tuple[ValuedHolding, ...]:
    """Parse the holdings of a valuation. Raises OperatorNeeded if the row is damaged."""
    try:
        return tuple(map(_held, json.loads(text)))
    except (_UnexpectedFormat, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        return records.decode_json(tuple[ValuedHolding, ...], text)


def _entry(data: dict[str, Any]) -> Entry:
    if (
        data.keys() != _ENTRY
        or type(data["by_hand"]) is not bool
        or type(data["postings"]) is not list
    ):
        raise _UnexpectedFormat
    return Entry(
        _text(data["id"]),
        _KINDS[data["kind"]],
        _integer(data["block"]),
        _integer(data["chain_s"]),
        _text(data["tx_hash"]),
        _text(data["note"]),
        tuple(map(_posting, data["postings"])),
        data["by_hand"],
    )


def _posting(data: dict[str, Any]) -> Posting:
    if data.keys() != _POSTING:
        raise _UnexpectedFormat
    value = data["value"]
    return Posting(
        _text(data["account"]),
        _text(data["token"]),
        _integer(data["raw"]),
        None if value is None else _fraction(value),
    )


def _held(data: dict[str, Any]) -> ValuedHolding:
    if data.keys() not in (_RESERVED, _HELD):
        raise _UnexpectedFormat
    return ValuedHolding(
        _text(data["token"]),
        _integer(data["wallet_raw"]),
        _integer(data["lp_raw"]),
        _fraction(data["price"]),
        _integer(data["target_bps"]),
        _integer(data.get("reserved_raw", 0)),
    )


def _text(value: object) -> str:
    if type(value) is not str:
        raise _UnexpectedFormat
    return value


def _integer(value: object) -> int:
    """Parse a JSON integer; from 2^53 on it is stored as text."""
    if type(value) is int:
        return value
    if type(value) is str and value.isascii() and value.removeprefix("-").isdecimal():
        return int(value)
    raise _UnexpectedFormat


def _fraction(value: str) -> Fraction:
    above, _, below = value.partition("/")
    if not below.isdecimal():
        raise _UnexpectedFormat
    return Fraction(_integer(above), _integer(below))


# --- Ledger books and their openings.


@dataclass(frozen=True, slots=True)
class LedgerBook:
    """One ledger book."""

    number: int
    kind: str
    opened_s: int
    note: str


def current_book(db: Connection, kind: str) -> LedgerBook | None:
    """Return the newest book if it is of that kind, else None."""
    row = first_row(db, _newest_book(), BookRow)
    if row is None or row.kind != kind:
        return None
    return LedgerBook(row.seq, row.kind, row.opened_s, row.note)


def open_book(db: Connection, kind: str, now_s: int, note: str) -> LedgerBook:
    """Open a book that begins now."""
    return LedgerBook(
        insert_returning_id(db, BookRow, kind=kind, opened_s=now_s, note=note), kind, now_s, note
    )


def openings(db: Connection, book: LedgerBook) -> Sequence[BookOpeningRow]:
    """Openings of the book, oldest first."""
    return all_rows(db, _openings(), BookOpeningRow, of=book.number)


def opened_after_intent(db: Connection, book: LedgerBook) -> int | None:
    """Number of the newest intent contained in the first opening; None before the first opening."""
    found: int | None = db.scalar(_opened_after(), {"of": book.number})
    return found


# --- Running sums of one book.


HOUR_S = 3_600
SETTLED_TO = "settled_to"
"""Key of the newest intent up to which every one has ended, is booked, and is entered in the ledger
or older than its book."""
LOSS_TOTAL = "loss_total"
"""Key of the total loss of booked intents, on the grid of accounting/entries.py; gains do not
offset it.
"""
ENTRIES_VERSION = "entries_turn"
"""Key of the number of writes of entries and transfers."""
_OPEN, _CONSUMED, _ENDED = (
    tuple(state.value for state in states) for states in (OPEN, CONSUMED, ENDED_IN_BLOCK)
)


def running_balances(db: Connection, book: int) -> dict[str, int]:
    """Base units by token: the wallet's opening plus all later transfers and entries of the
    book.
    """
    return {token: int(raw) for token, raw in db.execute(_balances(), {"of": book})}


def open_balances(db: Connection, book: int, found: Mapping[str, int]) -> None:
    """Open tokens in the book with these base units in the wallet."""
    upsert_rows(
        db,
        RunningBalanceRow,
        [{"book": book, "token": token, "raw": str(raw)} for token, raw in found.items()],
    )


def add_moves(db: Connection, book: int, moved: Mapping[str, int], sign: int = 1) -> None:
    """Add an entry's wallet moves to the running balances; sign -1 removes an entry."""
    database.write_facts(db, {ENTRIES_VERSION: entries_version(db) + 1})
    kept = running_balances(db, book)
    changed = [
        {"of": book, "token_of": token, "raw": str(kept[token] + sign * raw)}
        for token, raw in moved.items()
        if token in kept
    ]
    if changed:
        db.execute(_changed(), changed)


def add_transfer(db: Connection, token: str, raw: int) -> None:
    """Add a recorded transfer to the running balances of the current book."""
    if book := max_value(db, BookRow.seq):
        add_moves(db, book, {token: raw})


def find_misstatements(db: Connection, book: int) -> tuple[str, ...]:
    """Differences between the stored sums and the book's openings, transfers and entries, as
    messages; empty if sound.
    """
    kept, summed = running_balances(db, book), recomputed_balances(db, book)
    wrong = [
        f"balance of {token}: {kept.get(token)} is kept, its entries come to {summed.get(token)}"
        for token in sorted({*kept, *summed})
        if kept.get(token) != summed.get(token)
    ]
    if (grains := _losses(db)) != database.fact_number(db, LOSS_TOTAL):
        wrong.append(
            f"losses: {database.fact_number(db, LOSS_TOTAL)} grains are kept, budgets come to"
            f" {grains}"
        )
    if settled_to(db) > _settled(db, 0, book):
        wrong.append(f"settled: up to transaction {settled_to(db)} is kept, an earlier one is open")
    return tuple(wrong)


def rebuild_sums(db: Connection, book: int) -> None:
    """Rebuild all sums from the rows they sum."""
    db.execute(delete(RunningBalanceRow).where(RunningBalanceRow.book == book))
    open_balances(db, book, recomputed_balances(db, book))
    database.write_facts(
        db, {ENTRIES_VERSION: entries_version(db) + 1, LOSS_TOTAL: _losses(db), SETTLED_TO: 0}
    )
    advance_settled(db)


def recomputed_balances(db: Connection, book: int) -> dict[str, int]:
    """Base units by token: the wallet's opening plus all later transfers and the wallet postings of
    all entries.
    """
    opened = select(BookOpeningRow.token, BookOpeningRow.raw, BookOpeningRow.after_flow)
    rows = db.execute(opened.where(BookOpeningRow.book == book, BookOpeningRow.place == "")).all()
    found, after = (
        {token: int(raw) for token, raw, _ in rows},
        {token: flow for token, _, flow in rows},
    )
    for seq, token, delta in db.execute(
        select(ExternalTransferRow.seq, ExternalTransferRow.token, ExternalTransferRow.delta_raw)
    ):
        if token in found and seq > after[token]:
            found[token] += int(delta)
    for text in column_values(db, select(EntryRow.entry_json).where(EntryRow.book == book)):
        for token, raw in wallet_moves(parse_entry(text)).items():
            if token in found:
                found[token] += raw
    return found


def wallet_moves(entry: Entry) -> dict[str, int]:
    """Base units by token that an entry moved in the wallet."""
    return {one.token: one.raw for one in entry.postings if one.account == WALLET}


def entries_version(db: Connection) -> int:
    """Counter that changes whenever an entry is added, removed or rewritten."""
    return database.fact_number(db, ENTRIES_VERSION)


def loss_total(facts: Mapping[str, str]) -> Fraction:
    """Loss of all booked intents by the fact LOSS_TOTAL, numeraire base units."""
    return Fraction(database.parse_fact_number(LOSS_TOTAL, facts.get(LOSS_TOTAL)), QUANTA_PER_UNIT)


def add_loss(db: Connection, loss: Fraction, sign: int = 1) -> None:
    """Add the loss of one intent, rounded up; sign -1 removes that of an intent whose receipt a
    reorg took.
    """
    if (grains := round_loss_up(loss)) > 0:
        database.write_facts(db, {LOSS_TOTAL: database.fact_number(db, LOSS_TOTAL) + sign * grains})


def round_loss_up(loss: Fraction) -> int:
    """Loss in quanta, rounded up; zero for a gain."""
    return max(0, ceil_int(loss * QUANTA_PER_UNIT))


def settled_to(db: Connection) -> int:
    """Number of the newest intent up to which all intents are booked and entered."""
    return database.fact_number(db, SETTLED_TO)


def advance_settled(db: Connection) -> None:
    """Advance that number as far as possible."""
    book = max_value(db, BookRow.seq)
    if book and (now := _settled(db, known := settled_to(db), book)) != known:
        database.write_facts(db, {SETTLED_TO: now})


def _settled(db: Connection, known: int, book: int) -> int:
    """Number of the last settled intent, starting at `known`. Intents before the book's first
    opening need no entry.
    """
    newest = max_value(db, IntentRow.seq)
    if newest == known:  # all intents are settled
        return known
    first = db.scalar(_opened_after(), {"of": book})
    next_one = db.scalar(_next_one(), {"known": known, "first": newest if first is None else first})
    return int(newest if next_one is None else next_one - 1)


def reopen_settled(db: Connection, seq: int) -> None:
    """Move the number back before the intent that changed, so that it is checked again."""
    if seq <= settled_to(db):
        database.write_facts(db, {SETTLED_TO: seq - 1})


def _losses(db: Connection) -> int:
    return sum(
        round_loss_up(Fraction(loss))
        for loss in column_values(db, select(BudgetRow.loss))
        if loss != "0"
    )


_newest_book = cache(lambda: select(BookRow).order_by(BookRow.seq.desc()).limit(1))
_opened_after = cache(
    lambda: select(func.min(BookOpeningRow.after_intent)).where(
        BookOpeningRow.book == bindparam("of")
    )
)
_balances = cache(
    lambda: select(RunningBalanceRow.token, RunningBalanceRow.raw).where(
        RunningBalanceRow.book == bindparam("of")
    )
)
_changed = cache(
    lambda: update(RunningBalanceRow).where(
        RunningBalanceRow.book == bindparam("of"), RunningBalanceRow.token == bindparam("token_of")
    )
)


@cache
def _openings() -> Select[Any]:
    of_book = select(BookOpeningRow).where(BookOpeningRow.book == bindparam("of"))
    return of_book.order_by(BookOpeningRow.block_number, BookOpeningRow.place, BookOpeningRow.token)


@cache
def _next_one() -> Select[Any]:
    """Select the first unsettled intent beyond a number; those before the book's first opening need
    no entry.
    """
    unbooked = IntentRow.state.in_(_CONSUMED) & ~exists().where(BudgetRow.intent_id == IntentRow.id)
    unentered = (
        IntentRow.state.in_(_ENDED)
        & IntentRow.receipt_json.is_not(None)
        & (IntentRow.seq > bindparam("first"))
        & ~exists().where(EntryRow.intent_id == IntentRow.id)
    )
    waits = or_(IntentRow.state.in_(_OPEN), unbooked, unentered)
    return (
        select(IntentRow.seq)
        .where(IntentRow.seq > bindparam("known"), waits)
        .order_by(IntentRow.seq)
        .limit(1)
    )


# --- Valuations of the ledger's current book, at most one an hour.


@dataclass(frozen=True, slots=True)
class ValuationStore:
    """Valuations of the current book; each method is a transaction of its own."""

    db: Database

    def record(self, found: Valuation, forced: bool) -> bool:
        """Record a valuation; at most once an hour unless `forced`. False if nothing was
        written.
        """
        with self.db.read("read the valuations") as db:
            if not _due(db, current_book(db, self.db.book_kind), found, forced):
                return False
        with self.db.write("write the valuation") as db:
            book = current_book(db, self.db.book_kind)
            if book is None or not _due(db, book, found, forced):
                return False
            held_z = records.compress_text(codec.dumps(list(found.held)))
            row = {
                "book": book.number,
                "block_number": found.block,
                "chain_s": found.chain_s,
                "value": str(found.value),
                "held_z": held_z,
            }
            insert_rows(db, ValuationRow, [row])
            return True

    def between(self, from_s: int = 0, until_s: int | None = None) -> tuple[Valuation, ...]:
        """Valuations of the book with from_s <= chain time <= until_s, oldest first."""
        with self.db.read("read the valuations") as db:
            book = current_book(db, self.db.book_kind)
            return () if book is None else valuations(db, book, from_s, until_s)

    def newest(self, limit: int) -> tuple[Valuation, ...]:
        """The newest valuations of the book, newest first."""
        with self.db.read("read the valuations") as db:
            book = current_book(db, self.db.book_kind)
            return () if book is None else tuple(reversed(valuations(db, book, 0, None, limit)))

    def last_block(self) -> int:
        """Block of the newest valuation of the book; -1 without one."""
        with self.db.read("read the valuations") as db:
            book = current_book(db, self.db.book_kind)
            block: int | None = (
                None if book is None else db.scalar(_newest_block(), {"of": book.number})
            )
            return -1 if block is None else block


def valuations(
    db: Connection,
    book: LedgerBook,
    from_s: int,
    until_s: int | None,
    newest: int | None = None,
) -> tuple[Valuation, ...]:
    """See ValuationStore.between; only the `newest` if given."""
    query = select(ValuationRow).where(
        ValuationRow.book == book.number, ValuationRow.chain_s >= from_s
    )
    if until_s is not None:
        query = query.where(ValuationRow.chain_s <= until_s)
    rows = all_rows(
        db,
        query.order_by(ValuationRow.block_number.desc(), ValuationRow.seq.desc()).limit(newest),
        ValuationRow,
    )
    return tuple(
        Valuation(
            row.block_number,
            row.chain_s,
            Fraction(row.value),
            parse_held(records.decompress_text(row.held_z)),
        )
        for row in reversed(rows)
    )


def _due(db: Connection, book: LedgerBook | None, found: Valuation, forced: bool) -> bool:
    """True if a valuation is due: in a later block than the last, and in another hour unless it is
    forced.
    """
    if book is None:
        return False
    last = db.execute(_last_valuation(), {"of": book.number}).first()
    return last is None or (
        last.block_number < found.block
        and (forced or found.chain_s // HOUR_S != last.chain_s // HOUR_S)
    )


_newest_block = cache(
    lambda: select(func.max(ValuationRow.block_number)).where(ValuationRow.book == bindparam("of"))
)


@cache
def _last_valuation() -> Select[int, int]:
    newest_first = select(ValuationRow.block_number, ValuationRow.chain_s).where(
        ValuationRow.book == bindparam("of")
    )
    return newest_first.order_by(ValuationRow.seq.desc()).limit(1)
