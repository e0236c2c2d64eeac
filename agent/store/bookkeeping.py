"""The double-entry ledger in the store: what books opened with, one entry per final intent, and what all was worth over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from agent import codec
from agent.books import entries as rules
from agent.model import BookTokens, Entry, Intent, LpMove, Plan, Rebalance, Snapshot, Stand, Valuation
from agent.store import ledger_rows as rows
from agent.store import records, running, stored
from agent.store.database import Database
from agent.store.ledger_rows import Book
from agent.store.ledger_tables import BookOpeningRow, BookRow, EntryRow, ValuationRow
from agent.store.tables import EarlierRow, FlowRow, IntentRow, LiquidityRow, Meta, OpeningRow, Step
from agent.store.transitions import ENDED_IN_BLOCK, OPEN
from agent.units import Token

LIVE = "live"
NAMES = "book_tokens"
HOUR_S = 3_600
_OPEN, _ENDED = (tuple(state.value for state in states) for states in (OPEN, ENDED_IN_BLOCK))
_UNSETTLED = (*_OPEN, *_ENDED)
Place = tuple[str, str]
"""(place, token): "" is the wallet, else the name of a liquidity position."""


class Bookkeeping(Database):
    """Implements ports.Ledger; each method is a transaction of its own."""

    book_kind = LIVE
    """Whose books these are; a store whose newest book is of another kind opens a new one at the chain's balances."""

    def book_now(self) -> Book | None:
        """The book that is kept; None while none is open."""
        with self._read("read the ledger") as session:
            return rows.book_now(session, self.book_kind)

    def open_book(self, now_s: int, note: str) -> Book:
        """Ends the book that is kept, and begins one that opens at the balances of the next look. Nothing of the old one is lost."""
        with self._write("open a book") as session:
            return rows.open_book(session, self.book_kind, now_s, note)

    def unentered(self) -> tuple[Intent, ...]:
        """Final and reverted intents that the book lacks, oldest first."""
        with self._read("read the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            query = None if book is None else rows.enterable(session, book)
            if query is None:
                return ()
            lacking = ~exists().where(EntryRow.intent_id == IntentRow.id)
            missing = query.where(IntentRow.seq > running.settled_to(session), lacking).order_by(IntentRow.seq)
            return tuple(records.intent(row) for row in session.scalars(missing))

    def unsettled(self) -> tuple[Intent, ...]:
        """Intents since the first opening that have not ended, or ended in a block and are not in the book yet, oldest first."""
        with self._read("read the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            first = None if book is None else rows.after(session, book)
            if first is None:
                return ()
            lacking = ~exists().where(EntryRow.intent_id == IntentRow.id)
            query = select(IntentRow).where(
                IntentRow.seq > max(first, running.settled_to(session)), IntentRow.state.in_(_UNSETTLED), lacking
            )
            return tuple(records.intent(row) for row in session.scalars(query.order_by(IntentRow.seq)))

    def enterable(self) -> tuple[Intent, ...]:
        """All final and reverted intents since the book opened, in the order of the chain."""
        with self._read("read the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            query = None if book is None else rows.enterable(session, book)
            found = () if query is None else [records.intent(row) for row in session.scalars(query.order_by(IntentRow.seq))]
            return tuple(sorted(found, key=lambda one: 0 if one.receipt is None else one.receipt.block_number))

    def counted(self, intent_id: str) -> frozenset[str]:
        """Tokens whose movements by that intent belong into the book: they were in it when the intent was written down."""
        with self._read("read the ledger") as session:
            book, seq = rows.book_now(session, self.book_kind), session.scalar(select(IntentRow.seq).where(IntentRow.id == intent_id))
            if book is None or seq is None:
                return frozenset()
            query = select(BookOpeningRow.token).where(
                BookOpeningRow.book == book.number, BookOpeningRow.place == "", BookOpeningRow.after_intent < seq
            )
            return frozenset(session.scalars(query))

    def by_hand(self, intent_id: str) -> bool:
        """Whether the plan of that intent's step was asked for by hand; false where the step wrote no plan down."""
        with self._read("read the step") as session:
            query = select(Step.plan_z).join(IntentRow, IntentRow.step_id == Step.id).where(IntentRow.id == intent_id)
            found = session.scalar(query)
            plan = None if found is None else records.loaded(Plan, records.unpacked(found))
            return plan is not None and isinstance(plan.decision, Rebalance) and plan.decision.by_hand

    def principal(self, position: str) -> dict[str, int]:
        """What the ledger says that was put into a liquidity position and not taken out, base units by token."""
        account = f"{rules.LP}:{position}"
        return {token: raw for (name, token), raw in rules.balances(self.ledger()).items() if name == account}

    def enter(self, intent: Intent, entry: Entry) -> bool:
        """Writes the entry of a final intent; False, and nothing written, where it has one or its receipt is another by now."""
        with self._write("write an entry") as session:
            book = rows.book_now(session, self.book_kind)
            row = session.scalar(select(IntentRow).where(IntentRow.id == intent.id))
            if book is None or row is None or row.state not in _ENDED or session.get(EntryRow, intent.id) is not None:
                return False
            if records.intent(row).receipt != intent.receipt:
                return False
            rows.add_entry(session, book, row.seq, entry)
            running.settle(session)
            return True

    def open_places(self, snapshot: Snapshot, found: Mapping[Place, tuple[int, Fraction | None]]) -> tuple[Place, ...]:
        """Takes places into the book that are not in it: what they hold (base units, value) now. Nothing while any transaction of ours
        is on its way, nor on a snapshot that balances were not compared on. Positions of our own making are entered by their receipts.
        """
        with self._write("open the ledger") as session:
            book = rows.book_now(session, self.book_kind) or rows.open_book(session, self.book_kind, snapshot.head.timestamp_s, "")
            known = {(row.place, row.token) for row in rows.openings(session, book)}
            own = _own_positions(session, rows.after(session, book))
            fresh = [place for place in found if place not in known and place[0] not in own]
            if not fresh or session.scalar(select(IntentRow.id).where(IntentRow.state.in_(_OPEN)).limit(1)) is not None:
                return ()
            compared = {row.token for row in session.scalars(select(OpeningRow)) if row.block_number == snapshot.head.number}
            taken = tuple(place for place in fresh if place[0] or place[1] in compared)
            after_intent = session.scalar(select(func.max(IntentRow.seq))) or 0
            after_flow = session.scalar(select(func.max(FlowRow.seq))) or 0
            head = snapshot.head
            for name, token in taken:
                raw, value = found[name, token]
                text = None if value is None else str(value)
                session.add(
                    BookOpeningRow(
                        book=book.number,
                        place=name,
                        token=token,
                        raw=str(raw),
                        value=text,
                        block_number=head.number,
                        chain_s=head.timestamp_s,
                        after_intent=after_intent,
                        after_flow=after_flow,
                    )
                )
                if not name:
                    running.begin(session, book.number, token, raw)
            return taken

    def has_places(self, places: Iterable[Place]) -> bool:
        """Whether all of these are in the book, or are positions of the agent's own making."""
        with self._read("read the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            if book is None:
                return False
            known = {(row.place, row.token) for row in rows.openings(session, book)}
            own = _own_positions(session, rows.after(session, book))
            return all(place in known or place[0] in own for place in places)

    def stands(self, head_block: int) -> tuple[Stand, ...]:
        """What the wallet should hold by the ledger at that block, what is mined and not final included."""
        with self._read("read the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            return () if book is None else rows.stands(session, book, self.wallet, self.coin, head_block)

    def misstated(self) -> tuple[str, ...]:
        """Where what looks go by (see store/running.py) is not what the entries come to, in words; nothing in sound books."""
        with self._read("prove the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            return () if book is None else running.proven(session, book.number)

    def recount(self) -> None:
        """Sums up anew what looks go by."""
        with self._write("sum the ledger up anew") as session:
            if (book := rows.book_now(session, self.book_kind)) is not None:
                running.recount(session, book.number)

    def ledger(self) -> tuple[Entry, ...]:
        """Every entry of the book, in the order of the chain: openings, flows, what was sent without the store, final intents."""
        with self._read("read the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            return () if book is None else rows.ledger(session, book)

    def ledger_mark(self) -> tuple[int, ...]:
        """Figures that change whenever the ledger does."""
        counts = (
            select(func.max(BookRow.seq)),
            select(func.count(), func.max(BookOpeningRow.block_number)).select_from(BookOpeningRow),
            select(func.max(FlowRow.seq)),
            select(func.count()).select_from(FlowRow).where(FlowRow.kind.is_(None)),
            select(func.count(), func.max(EarlierRow.block_number)).select_from(EarlierRow),
        )
        with self._read("read the ledger") as session:
            found = [int(number or 0) for query in counts for number in session.execute(query).one()]
            return (running.turn(session), *found)

    def entered(self) -> tuple[Entry, ...]:
        """Entries of intents alone, as they were written."""
        with self._read("read the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            return () if book is None else tuple(entry for _, entry in rows.entries(session, book))

    def entries_of(self, intent_ids: Iterable[str]) -> tuple[Entry, ...]:
        """Entries of these intents, as far as they are in the book."""
        with self._read("read the ledger") as session:
            book = rows.book_now(session, self.book_kind)
            if book is None:
                return ()
            query = select(EntryRow.entry_json).where(EntryRow.intent_id.in_(list(intent_ids)), EntryRow.book == book.number)
            return tuple(stored.entry(text) for text in session.scalars(query.order_by(EntryRow.block_number, EntryRow.intent_seq)))

    def rewrite(self, entries: Sequence[tuple[Intent, Entry]]) -> None:
        """Puts other entries in the place of those that were written; all of them or none."""
        with self._write("write the ledger anew") as session:
            for intent, entry in entries:
                row = session.get(EntryRow, intent.id)
                if row is not None:
                    running.add(session, row.book, rows.moved(row.wallet_json), -1)
                    row.wallet_json, row.entry_json = rows.wallet_json(entry), codec.dumps(entry)
                    running.add(session, row.book, running.wallet_moves(entry))

    def name_tokens(self, tokens: Sequence[Token], numeraire: Token, coin: str) -> None:
        """Remembers what tokens are called, also once they have left the portfolio; writes only what is new."""
        with self._read("read the ledger") as session:
            row = session.get(Meta, NAMES)
            before = row.value if row is not None else ""
        known = BookTokens((), numeraire, coin) if not before else records.loaded(BookTokens, before)
        merged = {token.address: token for token in (*known.tokens, *tokens)}
        after = codec.dumps(BookTokens(tuple(merged[address] for address in sorted(merged)), numeraire, coin))
        if after != before:
            with self._write("write names of tokens") as session:
                session.merge(Meta(key=NAMES, value=after))

    def named_tokens(self) -> BookTokens | None:
        """Every token that was ever in the portfolio, the numeraire and the wrapped native coin; None before the first look."""
        with self._read("read the ledger") as session:
            row = session.get(Meta, NAMES)
            return None if row is None else records.loaded(BookTokens, row.value)

    # values over time
    def value(self, found: Valuation, forced: bool) -> bool:
        """Writes down what all is worth; at most once an hour unless `forced`. False where nothing was written."""
        with self._read("read what all was worth") as session:
            if not _due(session, rows.book_now(session, self.book_kind), found, forced):
                return False
        with self._write("write what all is worth") as session:
            book = rows.book_now(session, self.book_kind)
            if book is None or not _due(session, book, found, forced):
                return False
            held_z = records.packed(codec.dumps(list(found.held)))
            row = ValuationRow(book=book.number, block_number=found.block, chain_s=found.chain_s, value=str(found.value), held_z=held_z)
            session.add(row)
            return True

    def valuations(self, from_s: int = 0, until_s: int | None = None) -> tuple[Valuation, ...]:
        """Of the book, with from_s <= chain time <= until_s, oldest first."""
        with self._read("read what all was worth") as session:
            book = rows.book_now(session, self.book_kind)
            return () if book is None else rows.valuations(session, book, from_s, until_s)

    def newest_valuations(self, limit: int) -> tuple[Valuation, ...]:
        """The newest of the book, newest first."""
        with self._read("read what all was worth") as session:
            book = rows.book_now(session, self.book_kind)
            return () if book is None else tuple(reversed(rows.valuations(session, book, 0, None, limit)))

    def valued_block(self) -> int:
        """Block of the newest valuation of the book; -1 where there is none."""
        with self._read("read what all was worth") as session:
            book = rows.book_now(session, self.book_kind)
            newest = select(func.max(ValuationRow.block_number)).where(ValuationRow.book == (-1 if book is None else book.number))
            found = session.scalar(newest)
            return -1 if found is None else found


def _own_positions(session: Session, after: int | None) -> set[str]:
    """Names of positions that the agent itself moved since the book opened."""
    if after is None:
        return set()
    query = select(LiquidityRow.move_json).join(IntentRow, IntentRow.id == LiquidityRow.intent_id).where(IntentRow.seq > after)
    return {records.loaded(LpMove, text).name for text in session.scalars(query)}


def _due(session: Session, book: Book | None, found: Valuation, forced: bool) -> bool:
    """Whether a valuation is to be written: of a later block than the last, and of another hour unless it is forced."""
    if book is None:
        return False
    last = session.scalar(select(ValuationRow).where(ValuationRow.book == book.number).order_by(ValuationRow.seq.desc()).limit(1))
    return last is None or (last.block_number < found.block and (forced or found.chain_s // HOUR_S != last.chain_s // HOUR_S))
