"""Stored accounts of strategies: bookings, states, NAV per share, and the strategy that receives
deposits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, or_, select, update

from agent import codec
from agent.errors import OperatorNeeded
from agent.layers.strategies.state import (
    NavPoint,
    StrategyBooking,
    StrategyBookingKind,
    StrategyLedger,
    StrategyState,
)
from agent.model import ExternalTransfer, Intent
from agent.store.accounts import balances
from agent.store.database.connection import Database
from agent.store.database.facts import fact_number, parse_fact_number, read_facts, write_facts
from agent.store.database.rows import decode_json, intent_from_row
from agent.store.database.statements import (
    all_rows,
    column_values,
    insert_new_rows,
    insert_rows,
    max_value,
    upsert_rows,
)
from agent.store.tables import (
    EXTERNAL_ORDER,
    ExternalTransactionRow,
    ExternalTransferRow,
    IntentRow,
    NavPointRow,
    StrategyBookingRow,
    StrategyRow,
)
from agent.store.transitions import NONCE_USED_STATE_NAMES, OPEN_STATE_NAMES
from agent.units import HOUR_S

STRATEGIES_VERSION = "strategies_version"
"""Key of the version of the accounts, which bookings and the receiver of deposits raise."""
BOOKED_TO_INTENT = "strategies_booked_to_intent"
"""Key of the newest transaction that was settled when the accounts were opened: the opening
balances include it and all earlier ones.
"""
BOOKED_TO_TRANSFER = "strategies_booked_to_transfer"
"""Key of the newest transfer that the opening balances or merged bookings include."""
TRANSFERS_STRATEGY = "transfers_strategy"
"""Key of the strategy that gets deposits and withdrawals."""
FOLD_THRESHOLD = 500
"""Number of transfer bookings above which they are merged into one."""
_DELETED_ROWS = 500
"""Rows that one statement deletes: databases limit its parameters."""
_FOLDED_SOURCE = "folded flows"
_FOLDABLE_PREFIXES = ("flow ", "aside ", _FOLDED_SOURCE)


@dataclass(frozen=True, slots=True)
class StrategyStore:
    """Accounts of strategies; each method is one transaction. If a reorg removes a block, the
    bookings of its transactions are removed.
    """

    db: Database

    def ledger(self) -> StrategyLedger:
        """Return the accounts of strategies, and the wallet's unbooked changes."""
        with self.db.read("read the books of strategies") as db:
            facts = read_facts(
                db, TRANSFERS_STRATEGY, STRATEGIES_VERSION, BOOKED_TO_INTENT, BOOKED_TO_TRANSFER
            )
            bookings = tuple(map(_parse_booking, column_values(db, _select_bookings())))
            states = tuple(
                decode_json(StrategyState, state_json)
                for state_json in column_values(db, _select_states())
            )
            return StrategyLedger(
                bookings=bookings,
                states=states,
                unbooked_intents=_unbooked_intents(
                    db, bookings, parse_fact_number(BOOKED_TO_INTENT, facts.get(BOOKED_TO_INTENT))
                ),
                transfers=_unbooked_transfers(
                    db,
                    bookings,
                    parse_fact_number(BOOKED_TO_TRANSFER, facts.get(BOOKED_TO_TRANSFER)),
                ),
                external_transactions=_unbooked_external_transactions(db, bookings),
                transfer_strategy=facts.get(TRANSFERS_STRATEGY) or None,
                record_version=parse_fact_number(STRATEGIES_VERSION, facts.get(STRATEGIES_VERSION)),
            )

    def record_bookings(
        self,
        bookings: Sequence[StrategyBooking],
        at_version: int,
        closed_names: Sequence[str] = (),
    ) -> bool:
        """Record bookings, and delete states and NAV of closed strategies, because a name may be
        reused; return False, with nothing written, if another process wrote since `at_version`.
        """
        with self.db.write("write the books of strategies") as db:
            if fact_number(db, STRATEGIES_VERSION) != at_version:
                return False
            for booking in bookings:
                if booking.kind is StrategyBookingKind.OPEN:
                    _record_opening(db)
            insert_rows(
                db,
                StrategyBookingRow,
                [
                    {"source": booking.source, "booking_json": codec.dumps(booking)}
                    for booking in bookings
                ],
            )
            write_facts(db, {STRATEGIES_VERSION: at_version + 1})
            _fold_transfers(db)
            for row_class in (StrategyRow, NavPointRow) if closed_names else ():
                db.execute(delete(row_class).where(row_class.name.in_(closed_names)))
            return True

    def record_states(
        self,
        states: Sequence[StrategyState],
        point_by_name: Mapping[str, NavPoint],
        at_version: int,
    ) -> None:
        """Record states of strategies, and the first NAV per share of each hour; nothing if the
        accounts were written since `at_version`, because a strategy may be closed.
        """
        with self.db.write("write the unit values of strategies") as db:
            if fact_number(db, STRATEGIES_VERSION) != at_version:
                return
            upsert_rows(
                db,
                StrategyRow,
                [{"name": state.name, "state_json": codec.dumps(state)} for state in states],
            )
            nav_point_rows = [
                {
                    "name": name,
                    "hour": point.at_s // HOUR_S,
                    "at_s": point.at_s,
                    "unit_nav": str(point.unit_nav),
                    "health_index": str(point.index),
                }
                for name, point in point_by_name.items()
            ]
            insert_new_rows(db, NavPointRow, nav_point_rows)

    def nav_points(self, name: str, since_s: int) -> tuple[NavPoint, ...]:
        """Return the NAV per share of a strategy since that time, oldest first."""
        with self.db.read("read the unit values of strategies") as db:
            nav_point_rows = all_rows(
                db, _select_nav_points(), NavPointRow, name=name, hour=since_s // HOUR_S
            )
            return tuple(
                NavPoint(row.at_s, _parse_nav(row.unit_nav), _parse_nav(row.health_index))
                for row in nav_point_rows
                if row.at_s >= since_s
            )

    def set_transfer_strategy(self, name: str | None) -> None:
        """Set the strategy that receives later deposits and withdrawals; None splits them by
        capital.
        """
        with self.db.write("save which strategy receives deposits") as db:
            version = fact_number(db, STRATEGIES_VERSION)
            write_facts(db, {TRANSFERS_STRATEGY: name or "", STRATEGIES_VERSION: version + 1})


def unbook_intent(db: Connection, intent_id: str) -> None:
    """Remove the booking of an intent after a reorg removed its block."""
    db.execute(delete(StrategyBookingRow).where(StrategyBookingRow.source == intent_id))


@lru_cache(maxsize=16_384)
def _parse_booking(booking_json: str) -> StrategyBooking:
    """Parse a booking from its JSON; cached, because every cycle reads all bookings."""
    return decode_json(StrategyBooking, booking_json)


def _record_opening(db: Connection) -> None:
    """Record that the opening balances contain all earlier transactions."""
    first_open_seq = db.scalar(
        select(func.min(IntentRow.seq)).where(IntentRow.state.in_(OPEN_STATE_NAMES))
    )
    newest_settled_seq = (
        max_value(db, IntentRow.seq) if first_open_seq is None else first_open_seq - 1
    )
    write_facts(
        db,
        {
            BOOKED_TO_INTENT: newest_settled_seq,
            BOOKED_TO_TRANSFER: max_value(db, ExternalTransferRow.seq),
        },
    )


def _fold_transfers(db: Connection) -> None:
    """Merge bookings of old transfers into one, because anyone can send any number of transfers."""
    if (db.scalar(_select_foldable_count()) or 0) < FOLD_THRESHOLD:
        return
    booking_rows = all_rows(
        db, _select_foldable_bookings().order_by(StrategyBookingRow.seq), StrategyBookingRow
    )
    foldable_bookings = [(row, _parse_booking(row.booking_json)) for row in booking_rows]
    newest_block = max((booking.block for _, booking in foldable_bookings), default=0)
    old_bookings = [
        (row, booking)
        for row, booking in foldable_bookings
        if booking.block <= newest_block - balances.FOLD_DEPTH_BLOCKS
    ]
    if len(old_bookings) < FOLD_THRESHOLD:
        return
    change_raw_by_key: dict[tuple[str, str], int] = {}
    for _, booking in old_bookings:
        for strategy_name, token, change_raw in booking.changes:
            change_raw_by_key[strategy_name, token] = (
                change_raw_by_key.get((strategy_name, token), 0) + change_raw
            )
    transfer_ids = [booking.transfer_id for _, booking in old_bookings]
    write_facts(db, {BOOKED_TO_TRANSFER: max([fact_number(db, BOOKED_TO_TRANSFER), *transfer_ids])})
    changes = tuple(
        (strategy_name, token, change_raw)
        for (strategy_name, token), change_raw in sorted(change_raw_by_key.items())
        if change_raw
    )
    last_booking = old_bookings[-1][1]
    folded_json = codec.dumps(
        StrategyBooking(
            _FOLDED_SOURCE, StrategyBookingKind.FLOW, last_booking.block, last_booking.at_s, changes
        )
    )
    row_seqs = [row.seq for row, _ in old_bookings]
    for start in range(1, len(row_seqs), _DELETED_ROWS):
        db.execute(
            delete(StrategyBookingRow).where(
                StrategyBookingRow.seq.in_(row_seqs[start : start + _DELETED_ROWS])
            )
        )
    db.execute(
        update(StrategyBookingRow)
        .where(StrategyBookingRow.seq == row_seqs[0])
        .values(source=_FOLDED_SOURCE, booking_json=folded_json)
    )


def _unbooked_intents(
    db: Connection, bookings: Sequence[StrategyBooking], after_seq: int
) -> tuple[Intent, ...]:
    """Return mined transactions that are not booked yet, oldest first."""
    if not bookings:
        return ()
    booked_sources = {booking.source for booking in bookings}
    opening_block = bookings[0].block
    intent_rows = [
        row
        for row in all_rows(db, _select_mined_intents(), IntentRow, after=after_seq)
        if row.id not in booked_sources
    ]
    intents = [intent_from_row(row) for row in intent_rows]
    return tuple(
        intent
        for intent in intents
        if intent.receipt is not None and intent.receipt.block_number > opening_block
    )


def _unbooked_transfers(
    db: Connection, bookings: Sequence[StrategyBooking], after_seq: int
) -> tuple[ExternalTransfer, ...]:
    if not bookings:
        return ()
    booked_ids = [booking.transfer_id for booking in bookings]
    return balances.transfers_after(db, max([after_seq, *booked_ids]))


def _unbooked_external_transactions(
    db: Connection, bookings: Sequence[StrategyBooking]
) -> tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...]:
    """Return unbooked transactions that the wallet sent without this store since the accounts were
    opened.
    """
    if not bookings:
        return ()
    booked_sources = {booking.source for booking in bookings}
    transaction_rows = all_rows(
        db, _select_external_transactions(), ExternalTransactionRow, block=bookings[0].block
    )
    return tuple(
        (row.tx_hash, row.block_number, balances.parse_changes(row.changes_json))
        for row in transaction_rows
        if row.tx_hash not in booked_sources
    )


def _parse_nav(nav_text: str) -> int:
    try:
        return int(nav_text)
    except ValueError as error:
        raise OperatorNeeded(
            f"store: a NAV per share is damaged: {error}", "restore a backup"
        ) from None


_select_bookings = cache(
    lambda: select(StrategyBookingRow.booking_json).order_by(StrategyBookingRow.seq)
)
_select_states = cache(lambda: select(StrategyRow.state_json).order_by(StrategyRow.name))
_select_foldable_bookings = cache(
    lambda: select(StrategyBookingRow).where(
        or_(*(StrategyBookingRow.source.startswith(prefix) for prefix in _FOLDABLE_PREFIXES))
    )
)
_select_foldable_count = cache(lambda: _select_foldable_bookings().with_only_columns(func.count()))


@cache
def _select_nav_points() -> Select[Any]:
    conditions = NavPointRow.name == bindparam("name"), NavPointRow.hour >= bindparam("hour")
    return select(NavPointRow).where(*conditions).order_by(NavPointRow.hour)


@cache
def _select_mined_intents() -> Select[Any]:
    """Select mined intents with a sequence number above `after`."""
    conditions = (
        IntentRow.seq > bindparam("after"),
        IntentRow.state.in_(NONCE_USED_STATE_NAMES),
        IntentRow.receipt_json.is_not(None),
    )
    return select(IntentRow).where(*conditions).order_by(IntentRow.seq)


@cache
def _select_external_transactions() -> Select[Any]:
    """Select external transactions of the wallet mined after `block`."""
    return (
        select(ExternalTransactionRow)
        .where(ExternalTransactionRow.block_number > bindparam("block"))
        .order_by(*EXTERNAL_ORDER)
    )
