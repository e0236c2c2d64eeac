"""The stored double-entry ledger: openings, transfers, and entries of final intents, external
transactions and funding payments.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, exists, func, select, update

from agent import codec
from agent.accounting import entries as entry_rules
from agent.errors import OperatorNeeded
from agent.model import (
    Entry,
    Intent,
    LedgerBalance,
    LedgerOpening,
    LedgerTokens,
    Snapshot,
    Valuation,
)
from agent.store.accounts import balances, ledger_sums, positions
from agent.store.accounts.intent_plans import find_intent_row
from agent.store.accounts.ledger_sums import (
    LedgerBook,
    current_book,
    openings,
    valuations,
)
from agent.store.database.connection import Database
from agent.store.database.facts import find_fact, write_facts
from agent.store.database.rows import (
    decode_json,
    decode_optional,
    intent_from_row,
    parse_fraction,
    parse_whole,
)
from agent.store.database.statements import (
    all_rows,
    column_values,
    first_row,
    insert_new_rows,
    insert_rows,
    is_one_of,
    max_value,
)
from agent.store.tables import (
    EXTERNAL_ORDER,
    BookOpeningRow,
    BookRow,
    EntryRow,
    ExternalTransactionRow,
    ExternalTransferRow,
    FundingRow,
    IntentRow,
    OpeningBalanceRow,
    RunningBalanceRow,
)
from agent.store.transitions import (
    ENDED_IN_BLOCK_STATE_NAMES,
    NONCE_USED_STATE_NAMES,
    OPEN_STATE_NAMES,
)
from agent.units import NATIVE, Token


def ledger_balances(
    db: Connection, head_block: int, book_kind: str, wallet: str, wrapped_native: str
) -> tuple[tuple[LedgerBalance, ...], float]:
    """Return the wallet's ledger balances at that block, and the next higher block from which they
    differ even if nothing is written (inf: none).
    """
    balance_raw_by_token = {
        token: parse_whole(raw, "a balance of the ledger")
        for token, raw in db.execute(_select_running_balances(), {"book_kind": book_kind})
    }
    if not balance_raw_by_token:
        return (), math.inf
    later_blocks = [math.inf]
    for block, moves_json in db.execute(
        _select_moves_above(), {"book_kind": book_kind, "head": head_block}
    ):
        later_blocks.append(block)
        _add_moves(balance_raw_by_token, parse_wallet_moves(moves_json), -1)
    for block, moved_raw in _unentered_moves(db, book_kind, wallet, wrapped_native):
        if block > head_block:
            later_blocks.append(block)
        else:
            _add_moves(balance_raw_by_token, moved_raw, 1)
    return tuple(
        LedgerBalance(token, raw) for token, raw in sorted(balance_raw_by_token.items())
    ), min(later_blocks)


def _add_moves(
    balance_raw_by_token: dict[str, int], moved_raw_by_token: Mapping[str, int], sign: int
) -> None:
    for token in balance_raw_by_token.keys() & moved_raw_by_token.keys():
        balance_raw_by_token[token] += sign * moved_raw_by_token[token]


def _unentered_moves(
    db: Connection, book_kind: str, wallet: str, wrapped_native: str
) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield block and wallet moves of each mined transaction without an entry: the agent's, and
    external ones.
    """
    intent_rows = all_rows(db, _select_unentered_intents(), IntentRow)
    external_rows = all_rows(db, _select_external_transactions(), ExternalTransactionRow)
    if not intent_rows and not external_rows:
        return
    opening_rows = all_rows(db, _select_openings(), BookOpeningRow, book_kind=book_kind)
    opening_by_token = {row.token: row for row in opening_rows if row.place == ""}
    for row in intent_rows:
        intent = intent_from_row(row)
        if intent.receipt is not None:
            intent_moves = intent.balance_changes(wallet, wrapped_native).items()
            moved_raw_by_token = {
                token: raw
                for token, raw in intent_moves
                if token in opening_by_token and row.seq > opening_by_token[token].after_intent_seq
            }
            yield intent.receipt.block_number, moved_raw_by_token
    for external_row in external_rows:
        block = external_row.block_number
        moved_raw_by_token = {
            token: raw
            for token, raw in balances.parse_changes(external_row.changes_json)
            if token in opening_by_token and block > opening_by_token[token].block_number
        }
        yield block, moved_raw_by_token


def all_entries(db: Connection, book: LedgerBook) -> tuple[Entry, ...]:
    """Return every entry of the book, see LedgerStore.entries."""
    opening_rows = openings(db, book)
    opening_by_token = {row.token: row for row in opening_rows if row.place == ""}
    positioned_entries: list[tuple[tuple[int, int, int], Entry]] = []
    for index, row in enumerate(opening_rows):
        opening_value = None if row.value is None else parse_fraction(row.value, "an opening")
        opening = LedgerOpening(
            row.place,
            row.token,
            parse_whole(row.raw, "an opening"),
            opening_value,
            row.block_number,
            row.chain_s,
        )
        positioned_entries.append(
            ((row.block_number, 0, index), entry_rules.opening_entry(opening))
        )
    for transfer in balances.newest_transfers(db, balances.MAX_ID):
        if (
            transfer.token in opening_by_token
            and transfer.id > opening_by_token[transfer.token].after_transfer_id
        ):
            positioned_entries.append(
                ((transfer.block, 1, transfer.id), entry_rules.transfer_entry(transfer))
            )
    positioned_entries += [
        ((entry.block, 2, seq), entry) for seq, entry in intent_entries(db, book)
    ]
    positioned_entries += _external_entries(db, book, opening_by_token)
    positioned_entries += [
        ((row.block_number, 4, index), decode_json(Entry, row.entry_json))
        for index, row in enumerate(
            all_rows(db, _select_funding(), FundingRow, book_number=book.number)
        )
    ]
    return tuple(
        entry
        for _, entry in sorted(
            positioned_entries, key=lambda position_and_entry: position_and_entry[0]
        )
    )


def intent_entries(db: Connection, book: LedgerBook) -> list[tuple[int, Entry]]:
    """Return entries of final intents with the intents' numbers, in chain order."""
    entry_rows = db.execute(_select_entries(), {"book_number": book.number})
    return [(seq, decode_json(Entry, entry_json)) for seq, entry_json in entry_rows]


def _external_entries(
    db: Connection, book: LedgerBook, opening_by_token: Mapping[str, BookOpeningRow]
) -> list[tuple[tuple[int, int, int], Entry]]:
    """Return entries of external transactions, with their positions in chain order. Prices are
    those of the valuation before the transaction, else of the first valuation.
    """
    positioned_entries: list[tuple[tuple[int, int, int], Entry]] = []
    valuations_of_book: tuple[Valuation, ...] | None = None
    for external_index, row in enumerate(
        all_rows(db, _select_external_transactions(), ExternalTransactionRow)
    ):
        moved_raw_by_token = dict(balances.parse_changes(row.changes_json))
        ledger_tokens = {
            token
            for token in moved_raw_by_token
            if token in opening_by_token and row.block_number > opening_by_token[token].block_number
        }
        if not ledger_tokens:
            continue
        valuations_of_book = (
            valuations(db, book, 0, None) if valuations_of_book is None else valuations_of_book
        )
        later_index = bisect_right(
            [valuation.block for valuation in valuations_of_book], row.block_number
        )
        holdings = (
            valuations_of_book[max(0, later_index - 1)].holdings if valuations_of_book else ()
        )
        prices = entry_rules.EntryPrices(
            {holding.token: holding.price for holding in holdings}, NATIVE
        )
        entry = entry_rules.external_entry(
            row.tx_hash,
            row.block_number,
            row.chain_s,
            moved_raw_by_token,
            parse_whole(row.gas_wei, "an external transaction"),
            prices,
            ledger_tokens,
        )
        positioned_entries.append(((row.block_number, 3, external_index), entry))
    return positioned_entries


def add_entry(db: Connection, book: LedgerBook, seq: int, entry: Entry) -> None:
    """Write the entry of a final intent, and add it to the running balances."""
    row = {
        "intent_id": entry.id,
        "book_number": book.number,
        "block_number": entry.block,
        "intent_seq": seq,
        "wallet_moves_json": wallet_moves_json(entry),
        "entry_json": codec.dumps(entry),
    }
    insert_rows(db, EntryRow, [row])
    ledger_sums.add_moves(db, book.number, ledger_sums.wallet_moves(entry))


def parse_wallet_moves(moves_json: str) -> dict[str, int]:
    """Parse `wallet_moves_json`: the wallet's balance changes by an entry, base units by token."""
    try:
        return {token: int(raw) for token, raw in json.loads(moves_json).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise OperatorNeeded(
            f"store: an entry is damaged: {error}", "restore a backup, compare it with the chain"
        ) from None


def wallet_moves_json(entry: Entry) -> str:
    """Return the wallet's balance changes by an entry as JSON."""
    return json.dumps({token: str(raw) for token, raw in ledger_sums.wallet_moves(entry).items()})


_select_external_transactions = cache(
    lambda: select(ExternalTransactionRow).order_by(*EXTERNAL_ORDER)
)
select_entry = cache(lambda: select(EntryRow).where(EntryRow.intent_id == bindparam("intent_id")))


@cache
def _select_moves_above() -> Select[int, str]:
    """Select blocks and wallet moves of the current book's entries above a block."""
    entries_of_book = select(EntryRow.block_number, EntryRow.wallet_moves_json).join(
        BookRow, BookRow.seq == EntryRow.book_number
    )
    return entries_of_book.where(
        ledger_sums.is_current_book(), EntryRow.block_number > bindparam("head")
    )


@cache
def _select_running_balances() -> Select[str, str]:
    """Select the running balances of the current book."""
    return (
        select(RunningBalanceRow.token, RunningBalanceRow.raw)
        .join(BookRow, BookRow.seq == RunningBalanceRow.book_number)
        .where(ledger_sums.is_current_book())
    )


@cache
def _select_openings() -> Select[Any]:
    """Select the openings of the current book."""
    openings_of_book = select(BookOpeningRow).join(
        BookRow, BookRow.seq == BookOpeningRow.book_number
    )
    return openings_of_book.where(ledger_sums.is_current_book())


@cache
def _select_counted_tokens() -> Select[Any]:
    """Select the wallet's tokens that the current book had before the bound `intent_id`."""
    intent_seq = select(IntentRow.seq).where(IntentRow.id == bindparam("intent_id"))
    earlier_openings = _select_openings().where(
        BookOpeningRow.place == "", BookOpeningRow.after_intent_seq < intent_seq.scalar_subquery()
    )
    return earlier_openings.with_only_columns(BookOpeningRow.token)


@cache
def _select_unentered_intents() -> Select[Any]:
    """Select intents after the last settled one that are in a block and have no entry."""
    has_no_entry = ~exists().where(EntryRow.intent_id == IntentRow.id)
    return select(IntentRow).where(
        IntentRow.seq > ledger_sums.settled_seq_expression(),
        is_one_of(IntentRow.state, NONCE_USED_STATE_NAMES),
        has_no_entry,
    )


@cache
def _select_entries() -> Select[int, str]:
    entries_of_book = select(EntryRow.intent_seq, EntryRow.entry_json).where(
        EntryRow.book_number == bindparam("book_number")
    )
    return entries_of_book.order_by(EntryRow.block_number, EntryRow.intent_seq)


@cache
def _select_funding() -> Select[Any]:
    payments = select(FundingRow).where(FundingRow.book_number == bindparam("book_number"))
    return payments.order_by(FundingRow.block_number, FundingRow.at_s, FundingRow.market)


FUNDING_OVERLAP_S = 7_200
"""Seconds before the newest funding payment from which payments are read again, because a venue may
list one late.
"""
LEDGER_TOKENS = "book_tokens"
"""Key of the LedgerTokens as JSON."""
_UNSETTLED_STATE_NAMES = (*OPEN_STATE_NAMES, *ENDED_IN_BLOCK_STATE_NAMES)
PlacedToken = tuple[str, str]
"""(place, token): place "" is the wallet, any other the name of a liquidity position."""


@dataclass(frozen=True, slots=True)
class LedgerStore:
    """The double-entry ledger; each method is a transaction of its own. A reorg removes receipt and
    entry in one transaction.
    """

    db: Database

    def current_book(self) -> LedgerBook | None:
        """Return the current book; None before the first."""
        with self.db.read("read the ledger") as db:
            return current_book(db, self.db.store_kind)

    def open_book(self, now_s: int, note: str) -> LedgerBook:
        """Open a new book at the balances of the next cycle; the old one stays in the store."""
        with self.db.write("open a book") as db:
            return ledger_sums.open_book(db, self.db.store_kind, now_s, note)

    def intents_without_entry(self) -> tuple[Intent, ...]:
        """Return final and reverted intents without an entry, oldest first."""
        return self.db.query("read the ledger", _intents_without_entry, self.db.store_kind)

    def unsettled_intents(self) -> tuple[Intent, ...]:
        """Return intents since the first opening that are open, or ended on chain without an entry,
        oldest first.
        """
        with self.db.read("read the ledger") as db:
            if (opened_after_seq := _opening_intent_seq(db, self.db.store_kind)) is None:
                return ()
            intent_rows = all_rows(
                db,
                _select_without_entry(_UNSETTLED_STATE_NAMES),
                IntentRow,
                after_seq=opened_after_seq,
            )
            return tuple(map(intent_from_row, intent_rows))

    def enterable_intents(self) -> tuple[Intent, ...]:
        """Return all final and reverted intents since the book opened, in chain order."""
        with self.db.read("read the ledger") as db:
            if (opened_after_seq := _opening_intent_seq(db, self.db.store_kind)) is None:
                return ()
            intent_rows = all_rows(
                db,
                _select_intents_since(ENDED_IN_BLOCK_STATE_NAMES),
                IntentRow,
                after_seq=opened_after_seq,
            )
            intents = [intent_from_row(row) for row in intent_rows if row.receipt_json is not None]
        return tuple(sorted(intents, key=balances.block_number))

    def counted_tokens(self, intent_id: str) -> frozenset[str]:
        """Return the tokens whose changes by that intent count, because they were in the book when
        it was recorded.
        """
        with self.db.read("read the ledger") as db:
            bind_values = {"book_kind": self.db.store_kind, "intent_id": intent_id}
            return frozenset(column_values(db, _select_counted_tokens(), **bind_values))

    def principal(self, position: str) -> dict[str, int]:
        """Return the net amount provided to a liquidity position, base units by token."""
        lp_account = f"{entry_rules.LP}:{position}"
        return {
            token: principal_raw
            for (account, token), principal_raw in entry_rules.account_balances(
                self.entries()
            ).items()
            if account == lp_account
        }

    def record_entry(self, intent: Intent, entry: Entry) -> bool:
        """Write the entry of a final intent; return False, with nothing written, if it has one, its
        receipt has changed, or a book was opened since whose opening contains it.
        """
        with self.db.write("write an entry") as db:
            book = current_book(db, self.db.store_kind)
            row = find_intent_row(db, intent.id)
            if (
                book is None
                or book.opened_after_seq is None
                or row is None
                or row.seq <= book.opened_after_seq
                or row.state not in ENDED_IN_BLOCK_STATE_NAMES
                or intent_from_row(row).receipt != intent.receipt
                or first_row(db, select_entry(), EntryRow, intent_id=intent.id) is not None
            ):
                return False
            add_entry(db, book, row.seq, entry)
            ledger_sums.advance_settled_seq(db)
            return True

    def funding_since_s(self) -> int | None:
        """Return the chain time after which funding payments of an off-chain venue may lack an
        entry; None without a ledger.
        """
        with self.db.read("read the ledger") as db:
            if (book := current_book(db, self.db.store_kind)) is None:
                return None
            newest_payment_s = db.scalar(
                select(func.max(FundingRow.at_s)).where(FundingRow.book_number == book.number)
            )
        return max(book.opened_s, (newest_payment_s or 0) - FUNDING_OVERLAP_S)

    def record_offchain_entries(self, entries: Iterable[Entry]) -> None:
        """Store entries of payments that a venue made by itself; those with an entry are
        unchanged, and those from before the book was opened are left out.
        """
        payment_rows: list[dict[str, Any]] = [
            {
                "market": payment.market,
                "at_s": entry.chain_s,
                "block_number": entry.block,
                "entry_json": codec.dumps(entry),
            }
            for entry in entries
            if entry.futures is not None
            for payment in entry.futures.funding
        ]
        if not payment_rows:
            return
        with self.db.write("write funding payments") as db:
            if (book := current_book(db, self.db.store_kind)) is not None:
                book_rows = [
                    {"book_number": book.number, **row}
                    for row in payment_rows
                    if row["at_s"] >= book.opened_s
                ]
                insert_new_rows(db, FundingRow, book_rows)

    def open_places(
        self, snapshot: Snapshot, holdings: Mapping[PlacedToken, tuple[int, Fraction | None]]
    ) -> tuple[PlacedToken, ...]:
        """Open new places in the book with their current holdings (base units, value), and return
        them.

        Opens no place while a transaction is open, and no token whose balance was not compared at
        this snapshot. Positions minted by the agent are entered by their receipts instead.
        """
        with self.db.write("open the ledger") as db:
            book = current_book(db, self.db.store_kind) or ledger_sums.open_book(
                db, self.db.store_kind, snapshot.head.timestamp_s, ""
            )
            known_places = {(row.place, row.token) for row in openings(db, book)}
            own_position_names = positions.moved_position_names(db, book.opened_after_seq)
            new_places = [
                placed_token
                for placed_token in holdings
                if placed_token not in known_places and placed_token[0] not in own_position_names
            ]
            if (
                not new_places
                or db.scalar(
                    select(IntentRow.id)
                    .where(is_one_of(IntentRow.state, OPEN_STATE_NAMES))
                    .limit(1)
                )
                is not None
            ):
                return ()
            compared_tokens = {
                row.token
                for row in all_rows(db, select(OpeningBalanceRow), OpeningBalanceRow)
                if row.block_number == snapshot.head.number
            }
            opened_places = tuple(
                placed_token
                for placed_token in new_places
                if placed_token[0] or placed_token[1] in compared_tokens
            )
            head = snapshot.head
            common_columns = {
                "book_number": book.number,
                "block_number": head.number,
                "chain_s": head.timestamp_s,
            }
            common_columns |= {
                "after_intent_seq": max_value(db, IntentRow.seq),
                "after_transfer_id": max_value(db, ExternalTransferRow.seq),
            }
            opening_rows = []
            for place_name, token in opened_places:
                holding_raw, holding_value = holdings[place_name, token]
                value_text = None if holding_value is None else str(holding_value)
                opening_rows.append(
                    {
                        "place": place_name,
                        "token": token,
                        "raw": str(holding_raw),
                        "value": value_text,
                        **common_columns,
                    }
                )
            insert_rows(db, BookOpeningRow, opening_rows)
            wallet_raw_by_token = {
                token: holdings[place_name, token][0]
                for place_name, token in opened_places
                if not place_name
            }
            ledger_sums.write_running_balances(db, book.number, wallet_raw_by_token)
            return opened_places

    def has_places(self, places: Iterable[PlacedToken]) -> bool:
        """True if all places are in the book or are positions minted by the agent."""
        return self.db.query("read the ledger", _has_places, self.db.store_kind, frozenset(places))

    def balances(self, head_block: int) -> tuple[LedgerBalance, ...]:
        """Return the wallet's ledger balances at that block, including mined transactions that are
        not final.
        """
        book_owner = self.db.store_kind, self.db.wallet, self.db.wrapped_native
        return self.db.query_until("read the ledger", ledger_balances, head_block, *book_owner)

    def find_misstatements(self) -> tuple[str, ...]:
        """Return messages about stored sums that differ from the entries; empty if there
        are none.
        """
        with self.db.read("check the ledger") as db:
            book = current_book(db, self.db.store_kind)
            return () if book is None else ledger_sums.find_misstatements(db, book.number)

    def rebuild_sums(self) -> None:
        """Rebuild the stored sums from the entries."""
        with self.db.write("recompute the ledger's sums") as db:
            if (book := current_book(db, self.db.store_kind)) is not None:
                ledger_sums.rebuild_sums(db, book.number)

    def entries(self) -> tuple[Entry, ...]:
        """Return every entry of the book in chain order; within a block openings, transfers, final
        intents, external transactions, funding payments.
        """
        with self.db.read("read the ledger") as db:
            book = current_book(db, self.db.store_kind)
            return () if book is None else all_entries(db, book)

    def version(self) -> tuple[int, ...]:
        """Return numbers that change whenever the ledger changes."""
        queries = (
            select(func.max(BookRow.seq)),
            select(func.count(), func.max(BookOpeningRow.block_number)).select_from(BookOpeningRow),
            select(func.count()).select_from(FundingRow),
            select(func.max(ExternalTransferRow.seq)),
            select(func.count())
            .select_from(ExternalTransferRow)
            .where(ExternalTransferRow.kind.is_(None)),
            select(func.count(), func.max(ExternalTransactionRow.block_number)).select_from(
                ExternalTransactionRow
            ),
        )
        with self.db.read("read the ledger") as db:
            counters = [
                int(counter or 0) for query in queries for counter in db.execute(query).one()
            ]
            return (ledger_sums.entries_version(db), *counters)

    def intent_entries(self) -> tuple[Entry, ...]:
        """Return the entries of intents only."""
        with self.db.read("read the ledger") as db:
            book = current_book(db, self.db.store_kind)
            return () if book is None else tuple(entry for _, entry in intent_entries(db, book))

    def entries_of(self, intent_ids: Iterable[str]) -> tuple[Entry, ...]:
        """Return the entries of these intents in the book."""
        with self.db.read("read the ledger") as db:
            book = current_book(db, self.db.store_kind)
            if book is None:
                return ()
            select_entries = select(EntryRow.entry_json).where(
                EntryRow.intent_id.in_(list(intent_ids)), EntryRow.book_number == book.number
            )
            return tuple(
                decode_json(Entry, entry_json)
                for entry_json in column_values(
                    db, select_entries.order_by(EntryRow.block_number, EntryRow.intent_seq)
                )
            )

    def replace_entries(self, new_entries: Sequence[tuple[Intent, Entry]]) -> None:
        """Replace the entries of these intents in one transaction; an intent without an entry gets
        none.
        """
        with self.db.write("rewrite the ledger") as db:
            for intent, entry in new_entries:
                row = first_row(db, select_entry(), EntryRow, intent_id=intent.id)
                if row is not None:
                    ledger_sums.add_moves(
                        db, row.book_number, parse_wallet_moves(row.wallet_moves_json), -1
                    )
                    json_columns = {
                        "wallet_moves_json": wallet_moves_json(entry),
                        "entry_json": codec.dumps(entry),
                    }
                    db.execute(
                        update(EntryRow)
                        .where(EntryRow.intent_id == intent.id)
                        .values(**json_columns)
                    )
                    ledger_sums.add_moves(db, row.book_number, ledger_sums.wallet_moves(entry))

    def record_ledger_tokens(
        self, tokens: Sequence[Token], numeraire: Token, wrapped_native: str
    ) -> None:
        """Record token names, which are needed after a token has left the portfolio. Writes only if
        there are new ones.
        """
        new_tokens = LedgerTokens(tuple(tokens), numeraire, wrapped_native)
        stored_tokens = self.ledger_tokens()
        if stored_tokens == _with_new_tokens(stored_tokens, new_tokens):
            return
        with self.db.write("write token names") as db:  # another may have written since
            updated_tokens = _with_new_tokens(_ledger_tokens(db), new_tokens)
            write_facts(db, {LEDGER_TOKENS: codec.dumps(updated_tokens)})

    def ledger_tokens(self) -> LedgerTokens | None:
        """Return every token that was ever in the portfolio, the numeraire, and the wrapped native
        coin; None before the first cycle.
        """
        return self.db.query("read the ledger", _ledger_tokens)


def _opening_intent_seq(db: Connection, book_kind: str) -> int | None:
    """Return the number of the newest intent in the first opening of the current book; None before
    an opening.
    """
    book = current_book(db, book_kind)
    return None if book is None else book.opened_after_seq


def _intents_without_entry(db: Connection, book_kind: str) -> tuple[Intent, ...]:
    intent_rows = all_rows(
        db, _select_without_entry(ENDED_IN_BLOCK_STATE_NAMES), IntentRow, after_seq=0
    )
    mined_rows = [row for row in intent_rows if row.receipt_json is not None]
    if not mined_rows or (opened_after_seq := _opening_intent_seq(db, book_kind)) is None:
        return ()
    return tuple(intent_from_row(row) for row in mined_rows if row.seq > opened_after_seq)


def _ledger_tokens(db: Connection) -> LedgerTokens | None:
    tokens_json = find_fact(db, LEDGER_TOKENS)
    return decode_optional(LedgerTokens, tokens_json)


def _has_places(db: Connection, book_kind: str, places: frozenset[PlacedToken]) -> bool:
    if not (opening_rows := all_rows(db, _select_openings(), BookOpeningRow, book_kind=book_kind)):
        return False
    missing_places = places - {(row.place, row.token) for row in opening_rows}
    if not missing_places:
        return True
    own_position_names = positions.moved_position_names(
        db, min(row.after_intent_seq for row in opening_rows)
    )
    return all(place_name in own_position_names for place_name, _ in missing_places)


@cache
def _select_intents_since(state_names: tuple[str, ...]) -> Select[Any]:
    """Select intents in these states with a number above `after_seq`, oldest first."""
    return (
        select(IntentRow)
        .where(IntentRow.seq > bindparam("after_seq"), is_one_of(IntentRow.state, state_names))
        .order_by(IntentRow.seq)
    )


@cache
def _select_without_entry(state_names: tuple[str, ...]) -> Select[Any]:
    """Select intents in these states after a number and after the last settled one that have no
    entry, oldest first.
    """
    later_intents = _select_intents_since(state_names).where(
        IntentRow.seq > ledger_sums.settled_seq_expression()
    )
    return later_intents.where(~exists().where(EntryRow.intent_id == IntentRow.id))


def _with_new_tokens(stored_tokens: LedgerTokens | None, new_tokens: LedgerTokens) -> LedgerTokens:
    """Return the new tokens together with those stored before, sorted by address."""
    earlier_tokens = () if stored_tokens is None else stored_tokens.tokens
    token_by_address = {token.address: token for token in (*earlier_tokens, *new_tokens.tokens)}
    return replace(
        new_tokens, tokens=tuple(token_by_address[address] for address in sorted(token_by_address))
    )
