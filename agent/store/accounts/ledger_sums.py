"""Ledger books: openings, valuations, and running sums, which are written in the same transaction
as the rows they sum.

The sums are the balances of a book, the total loss and the last settled intent. They keep a cycle
as fast in an old book as in a new one. `trimtab books check` compares them with the summed rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from agent import codec
from agent.accounting.entries import QUANTA_PER_UNIT, WALLET
from agent.model import (
    Entry,
    Valuation,
    ValuedHolding,
)
from agent.store.database.connection import Database
from agent.store.database.facts import (
    fact_number,
    fact_number_expression,
    parse_fact_number,
    write_facts,
)
from agent.store.database.rows import (
    compress_text,
    decode_json,
    decompress_text,
    parse_fraction,
    parse_whole,
)
from agent.store.database.statements import (
    all_rows,
    column_values,
    insert_returning_id,
    insert_rows,
    is_one_of,
    max_value,
    upsert_rows,
)
from agent.store.tables import (
    BookOpeningRow,
    BookRow,
    BudgetUseRow,
    EntryRow,
    ExternalTransferRow,
    IntentRow,
    RunningBalanceRow,
    ValuationRow,
)
from agent.store.transitions import (
    ENDED_IN_BLOCK_STATE_NAMES,
    NONCE_USED_STATE_NAMES,
    OPEN_STATE_NAMES,
)
from agent.units import HOUR_S, ceil_int


@dataclass(frozen=True, slots=True)
class LedgerBook:
    """One ledger book; `kind` is live or paper. `opened_after_seq` is the number of the newest
    intent in its first opening; None before an opening.
    """

    number: int
    kind: str
    opened_s: int
    note: str
    opened_after_seq: int | None = None


def current_book(db: Connection, book_kind: str) -> LedgerBook | None:
    """Return the newest book if it has that kind, else None."""
    row = db.execute(_select_newest_book()).first()
    return None if row is None or row.kind != book_kind else LedgerBook(*row)


def open_book(db: Connection, book_kind: str, now_s: int, note: str) -> LedgerBook:
    """Open a new book."""
    return LedgerBook(
        insert_returning_id(db, BookRow, kind=book_kind, opened_s=now_s, note=note),
        book_kind,
        now_s,
        note,
    )


def openings(db: Connection, book: LedgerBook) -> Sequence[BookOpeningRow]:
    """Return the openings of the book, oldest first."""
    return all_rows(db, _select_openings(), BookOpeningRow, book_number=book.number)


LAST_SETTLED_INTENT = "settled_to"
"""Key of the last settled intent's number: that intent and all earlier ones have ended, count in
the daily limits, and are in the ledger or predate its book.
"""
LOSS_TOTAL = "loss_total"
"""Key of the total loss of booked intents, in quanta of accounting/entries.py; gains do not offset
it."""
ENTRIES_VERSION = "entries_turn"
"""Key of the number of writes of entries and transfers."""


def is_current_book() -> ColumnElement[bool]:
    """Return the condition that a book is the newest one and of the bound `book_kind`."""
    newest_seq = select(func.max(BookRow.seq)).scalar_subquery()
    return and_(BookRow.seq == newest_seq, BookRow.kind == bindparam("book_kind"))


def running_balances(db: Connection, book_number: int) -> dict[str, int]:
    """Return the running balances of the wallet, base units by token."""
    return {
        token: parse_whole(raw, "a balance of the ledger")
        for token, raw in db.execute(_select_running_balances(), {"book_number": book_number})
    }


def write_running_balances(
    db: Connection, book_number: int, balance_raw_by_token: Mapping[str, int]
) -> None:
    """Write the running balances of these tokens in the wallet, in base units."""
    upsert_rows(
        db,
        RunningBalanceRow,
        [
            {"book_number": book_number, "token": token, "raw": str(balance_raw)}
            for token, balance_raw in balance_raw_by_token.items()
        ],
    )


def add_moves(
    db: Connection, book_number: int, moved_raw_by_token: Mapping[str, int], sign: int = 1
) -> None:
    """Add an entry's wallet moves to the running balances; sign -1 removes an entry."""
    write_facts(db, {ENTRIES_VERSION: entries_version(db) + 1})
    stored_raw_by_token = running_balances(db, book_number)
    changed_rows = [
        {
            "bound_book": book_number,
            "bound_token": token,
            "raw": str(stored_raw_by_token[token] + sign * moved_raw),
        }
        for token, moved_raw in moved_raw_by_token.items()
        if token in stored_raw_by_token
    ]
    if changed_rows:
        db.execute(_update_balance(), changed_rows)


def add_transfer(db: Connection, token: str, raw: int) -> None:
    """Add a recorded transfer to the running balances of the current book."""
    if book_number := max_value(db, BookRow.seq):
        add_moves(db, book_number, {token: raw})


def find_misstatements(db: Connection, book_number: int) -> tuple[str, ...]:
    """Return messages about stored sums that differ from openings, transfers and entries; empty if
    there are none.
    """
    stored_raw_by_token = running_balances(db, book_number)
    recomputed_raw_by_token = recomputed_balances(db, book_number)
    messages = [
        f"balance of {token}: stored {stored_raw_by_token.get(token)}, the entries sum to {recomputed_raw_by_token.get(token)}"
        for token in sorted({*stored_raw_by_token, *recomputed_raw_by_token})
        if stored_raw_by_token.get(token) != recomputed_raw_by_token.get(token)
    ]
    stored_loss = fact_number(db, LOSS_TOTAL)
    summed_loss = _sum_losses(db)
    if stored_loss != summed_loss:
        messages.append(f"losses: stored {stored_loss}, the budgets sum to {summed_loss}")
    if settled_up_to_seq(db) > _last_settled_seq(db, 0):
        messages.append(
            f"settled: stored up to transaction {settled_up_to_seq(db)}, an earlier one is open"
        )
    return tuple(messages)


def rebuild_sums(db: Connection, book_number: int) -> None:
    """Rebuild all sums from their rows."""
    db.execute(delete(RunningBalanceRow).where(RunningBalanceRow.book_number == book_number))
    write_running_balances(db, book_number, recomputed_balances(db, book_number))
    write_facts(
        db,
        {
            ENTRIES_VERSION: entries_version(db) + 1,
            LOSS_TOTAL: _sum_losses(db),
            LAST_SETTLED_INTENT: 0,
        },
    )
    advance_settled_seq(db)


def recomputed_balances(db: Connection, book_number: int) -> dict[str, int]:
    """Sum openings, later transfers and entries of the wallet, base units by token."""
    book_openings = select(
        BookOpeningRow.token, BookOpeningRow.raw, BookOpeningRow.after_transfer_id
    )
    opening_rows = db.execute(
        book_openings.where(BookOpeningRow.book_number == book_number, BookOpeningRow.place == "")
    ).all()
    balance_raw_by_token = {token: parse_whole(raw, "an opening") for token, raw, _ in opening_rows}
    last_included_by_token = {
        token: last_included_seq for token, _, last_included_seq in opening_rows
    }
    for seq, token, delta_text in db.execute(
        select(ExternalTransferRow.seq, ExternalTransferRow.token, ExternalTransferRow.delta_raw)
    ):
        if token in balance_raw_by_token and seq > last_included_by_token[token]:
            balance_raw_by_token[token] += parse_whole(delta_text, "a flow")
    for entry_json in column_values(
        db, select(EntryRow.entry_json).where(EntryRow.book_number == book_number)
    ):
        for token, raw in wallet_moves(decode_json(Entry, entry_json)).items():
            if token in balance_raw_by_token:
                balance_raw_by_token[token] += raw
    return balance_raw_by_token


def wallet_moves(entry: Entry) -> dict[str, int]:
    """Return the wallet's balance changes by an entry, base units by token."""
    return {posting.token: posting.raw for posting in entry.postings if posting.account == WALLET}


def entries_version(db: Connection) -> int:
    """Return a counter that grows with every change of entries or transfers."""
    return fact_number(db, ENTRIES_VERSION)


def loss_total(facts: Mapping[str, str]) -> Fraction:
    """Return the loss of all booked intents in numeraire base units (fact LOSS_TOTAL)."""
    return Fraction(parse_fact_number(LOSS_TOTAL, facts.get(LOSS_TOTAL)), QUANTA_PER_UNIT)


def add_loss(db: Connection, loss: Fraction, sign: int = 1) -> None:
    """Add the loss of an intent, rounded up; sign -1 removes it after a reorg."""
    if (loss_quanta := round_loss_up(loss)) > 0:
        write_facts(db, {LOSS_TOTAL: fact_number(db, LOSS_TOTAL) + sign * loss_quanta})


def round_loss_up(loss: Fraction) -> int:
    """Convert a loss to quanta, rounded up; zero for a gain."""
    return max(0, ceil_int(loss * QUANTA_PER_UNIT))


def settled_up_to_seq(db: Connection) -> int:
    """Return the number of the intent up to which all are settled."""
    return fact_number(db, LAST_SETTLED_INTENT)


def settled_seq_expression() -> ColumnElement[int]:
    """Return the number of `settled_up_to_seq` as an expression for a statement."""
    return fact_number_expression(LAST_SETTLED_INTENT)


def advance_settled_seq(db: Connection) -> None:
    """Advance the number of the last settled intent as far as possible."""
    previous_seq = settled_up_to_seq(db)
    if (settled_seq := _last_settled_seq(db, previous_seq)) != previous_seq:
        write_facts(db, {LAST_SETTLED_INTENT: settled_seq})


def _last_settled_seq(db: Connection, settled_seq: int) -> int:
    """Return the number of the last settled intent, searching from `settled_seq`. Intents before
    the book's first opening need no entry.
    """
    row = db.execute(_select_unsettled(), {"settled_seq": settled_seq}).one()
    if row.book_number is None:
        return settled_seq
    return (row.newest_seq or 0) if row.unsettled_seq is None else row.unsettled_seq - 1


def reopen_settled_intents(db: Connection, facts: Mapping[str, str], seq: int) -> None:
    """Move the number of the last settled intent (fact LAST_SETTLED_INTENT) back before an intent
    that changed.
    """
    if seq <= parse_fact_number(LAST_SETTLED_INTENT, facts.get(LAST_SETTLED_INTENT)):
        write_facts(db, {LAST_SETTLED_INTENT: seq - 1})


def _sum_losses(db: Connection) -> int:
    return sum(
        round_loss_up(parse_fraction(loss))
        for loss in column_values(db, select(BudgetUseRow.loss))
        if loss != "0"
    )


_select_running_balances = cache(
    lambda: select(RunningBalanceRow.token, RunningBalanceRow.raw).where(
        RunningBalanceRow.book_number == bindparam("book_number")
    )
)
_update_balance = cache(
    lambda: update(RunningBalanceRow).where(
        RunningBalanceRow.book_number == bindparam("bound_book"),
        RunningBalanceRow.token == bindparam("bound_token"),
    )
)


@cache
def _select_openings() -> Select[Any]:
    openings_of_book = select(BookOpeningRow).where(
        BookOpeningRow.book_number == bindparam("book_number")
    )
    return openings_of_book.order_by(
        BookOpeningRow.block_number, BookOpeningRow.place, BookOpeningRow.token
    )


@cache
def _select_newest_book() -> Select[Any]:
    """Select the fields of LedgerBook of the newest book."""
    opened_after_seq = (
        select(func.min(BookOpeningRow.after_intent_seq))
        .where(BookOpeningRow.book_number == BookRow.seq)
        .scalar_subquery()
    )
    select_book = select(
        BookRow.seq, BookRow.kind, BookRow.opened_s, BookRow.note, opened_after_seq
    )
    return select_book.order_by(BookRow.seq.desc()).limit(1)


@cache
def _select_unsettled() -> Select[Any]:
    """Select the newest book, the newest intent, and the first unsettled intent above the bound
    `settled_seq`. An intent from before the book's first opening needs no entry.
    """
    book_number = select(func.max(BookRow.seq)).scalar_subquery()
    newest_seq = select(func.max(IntentRow.seq)).scalar_subquery()
    opened_after_seq = (
        select(func.min(BookOpeningRow.after_intent_seq))
        .where(BookOpeningRow.book_number == book_number)
        .scalar_subquery()
    )
    is_unbooked = is_one_of(IntentRow.state, NONCE_USED_STATE_NAMES) & ~exists().where(
        BudgetUseRow.intent_id == IntentRow.id
    )
    is_unentered = (
        is_one_of(IntentRow.state, ENDED_IN_BLOCK_STATE_NAMES)
        & IntentRow.receipt_json.is_not(None)
        & (IntentRow.seq > opened_after_seq)
        & ~exists().where(EntryRow.intent_id == IntentRow.id)
    )
    is_unsettled = or_(is_one_of(IntentRow.state, OPEN_STATE_NAMES), is_unbooked, is_unentered)
    first_unsettled_seq = (
        select(IntentRow.seq)
        .where(IntentRow.seq > bindparam("settled_seq"), is_unsettled)
        .order_by(IntentRow.seq)
        .limit(1)
        .scalar_subquery()
    )
    return select(
        book_number.label("book_number"),
        newest_seq.label("newest_seq"),
        first_unsettled_seq.label("unsettled_seq"),
    )


@dataclass(frozen=True, slots=True)
class ValuationStore:
    """Valuations of the current book; each method is a transaction of its own, but `record` reads
    first, and checks again in its write.
    """

    db: Database

    def record(
        self, valuation: Valuation, is_forced: bool, changed_blocks: Collection[int] = frozenset()
    ) -> bool:
        """Record a valuation at the end of the look, at most once an hour unless `is_forced` or unless
        one of `changed_blocks` is later than the last one; return False if none is due.
        """

        def book_if_due(db: Connection) -> LedgerBook | None:
            book = current_book(db, self.db.store_kind)
            is_due = _is_due(db, self.db.store_kind, valuation, is_forced, changed_blocks)
            return book if is_due else None

        def insert_if_due(db: Connection) -> None:
            if (book := book_if_due(db)) is None:
                return
            compressed_holdings = compress_text(codec.dumps(list(valuation.holdings)))
            row = {
                "book_number": book.number,
                "block_number": valuation.block,
                "chain_s": valuation.chain_s,
                "value": str(valuation.value),
                "holdings_z": compressed_holdings,
            }
            insert_rows(db, ValuationRow, [row])

        with self.db.read("read the valuations") as db:
            if book_if_due(db) is None:
                return False
        self.db.write_later("write the valuation", insert_if_due)
        return True

    def between(self, from_s: int = 0, until_s: int | None = None) -> tuple[Valuation, ...]:
        """Return valuations with from_s <= chain time <= until_s, oldest first."""
        with self.db.read("read the valuations") as db:
            book = current_book(db, self.db.store_kind)
            return () if book is None else valuations(db, book, from_s, until_s)

    def newest(self, limit: int) -> tuple[Valuation, ...]:
        """Return the newest valuations, newest first."""
        with self.db.read("read the valuations") as db:
            book = current_book(db, self.db.store_kind)
            return () if book is None else tuple(reversed(valuations(db, book, 0, None, limit)))


def valuations(
    db: Connection,
    book: LedgerBook,
    from_s: int,
    until_s: int | None,
    limit: int | None = None,
) -> tuple[Valuation, ...]:
    """Return valuations as ValuationStore.between does, of them the newest `limit` if given."""
    select_valuations = select(ValuationRow).where(
        ValuationRow.book_number == book.number, ValuationRow.chain_s >= from_s
    )
    if until_s is not None:
        select_valuations = select_valuations.where(ValuationRow.chain_s <= until_s)
    valuation_rows = all_rows(
        db,
        select_valuations.order_by(ValuationRow.block_number.desc(), ValuationRow.seq.desc()).limit(
            limit
        ),
        ValuationRow,
    )
    return tuple(
        Valuation(
            row.block_number,
            row.chain_s,
            parse_fraction(row.value, "a valuation"),
            decode_json(tuple[ValuedHolding, ...], decompress_text(row.holdings_z)),
        )
        for row in reversed(valuation_rows)
    )


def _is_due(
    db: Connection,
    book_kind: str,
    valuation: Valuation,
    is_forced: bool,
    changed_blocks: Collection[int],
) -> bool:
    """True if a valuation is due in the current book: at a later block than the last and, unless
    forced or the balances changed in between, in another hour.
    """
    last_valuation = db.execute(_select_last_valuation(), {"book_kind": book_kind}).first()
    if last_valuation is None:
        return False
    return last_valuation.block_number is None or (
        last_valuation.block_number < valuation.block
        and (
            is_forced
            or valuation.chain_s // HOUR_S != last_valuation.chain_s // HOUR_S
            or any(
                last_valuation.block_number < block <= valuation.block for block in changed_blocks
            )
        )
    )


@cache
def _select_last_valuation() -> Select[int | None, int | None]:
    """Select the last valuation of the current book of a kind (NULL before one). `+ 0`
    keeps SQLite from using the index on `book`, so that it walks the rows down to the first match
    instead of sorting all of the book.
    """
    select_valuations = select(ValuationRow.block_number, ValuationRow.chain_s).select_from(BookRow)
    valuations_of_book = select_valuations.outerjoin(
        ValuationRow, ValuationRow.book_number + 0 == BookRow.seq
    )
    return valuations_of_book.where(is_current_book()).order_by(ValuationRow.seq.desc()).limit(1)
