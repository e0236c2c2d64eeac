"""Stored accounts of strategies: bookings, states, NAV per share, and the strategy that receives
deposits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
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
from agent.store import database
from agent.store.accounts import balances
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    decode_json,
    insert_new_rows,
    insert_rows,
    max_value,
    upsert_rows,
)
from agent.store.tables import (
    ExternalTransactionRow,
    ExternalTransferRow,
    IntentRow,
    NavPointRow,
    StrategyBookingRow,
    StrategyRow,
)
from agent.store.transitions import CONSUMED, OPEN

STRATEGIES_VERSION = "strategies_version"
BOOKED_TO_INTENT = "strategies_booked_to_intent"
"""Key of the newest transaction that was settled when the accounts were opened: the opening
balances include it and all earlier ones.
"""
BOOKED_TO_TRANSFER = "strategies_booked_to_transfer"
TRANSFERS_STRATEGY = "transfers_strategy"
HOUR_S = 3_600
FOLD_AT = 500
"""Number of transfer bookings above which they are merged into one."""
_NAMED = "folded flows"
_FOLDING = ("flow ", "aside ", _NAMED)
_CONSUMED = tuple(state.value for state in CONSUMED)
_OPEN = tuple(state.value for state in OPEN)


@dataclass(frozen=True, slots=True)
class StrategyStore:
    """Accounts of strategies; each method is one transaction. If a reorg removes a block, the
    bookings of its transactions are removed.
    """

    db: Database

    def ledger(self) -> StrategyLedger:
        """Return the accounts of strategies, and the wallet's unbooked changes."""
        with self.db.read("read the books of strategies") as db:
            facts = database.read_facts(
                db, TRANSFERS_STRATEGY, STRATEGIES_VERSION, BOOKED_TO_INTENT, BOOKED_TO_TRANSFER
            )
            bookings = tuple(map(_booking, column_values(db, _bookings())))
            states = tuple(
                decode_json(StrategyState, text) for text in column_values(db, _states())
            )
            return StrategyLedger(
                bookings=bookings,
                states=states,
                intents=_intents(db, bookings, int(facts.get(BOOKED_TO_INTENT) or 0)),
                flows=_unbooked_transfers(db, bookings, int(facts.get(BOOKED_TO_TRANSFER) or 0)),
                earlier=_unbooked_external(db, bookings),
                flows_to=facts.get(TRANSFERS_STRATEGY) or None,
                turn=int(facts.get(STRATEGIES_VERSION) or 0),
            )

    def record_bookings(self, bookings: Sequence[StrategyBooking], at_version: int) -> bool:
        """Record bookings; return False, with nothing written, if another process wrote since
        `at_version`.
        """
        with self.db.write("write the books of strategies") as db:
            if database.fact_number(db, STRATEGIES_VERSION) != at_version:
                return False
            for booking in bookings:
                if booking.kind is StrategyBookingKind.OPEN:
                    _mark_opening(db)
            insert_rows(
                db,
                StrategyBookingRow,
                [
                    {"source": booking.source, "booking_json": codec.dumps(booking)}
                    for booking in bookings
                ],
            )
            database.write_facts(db, {STRATEGIES_VERSION: at_version + 1})
            _fold(db)
            return True

    def record_states(
        self, states: Sequence[StrategyState], points: Mapping[str, NavPoint]
    ) -> None:
        """Record states of strategies, and the first NAV per share of each hour."""
        with self.db.write("write the unit values of strategies") as db:
            upsert_rows(
                db,
                StrategyRow,
                [{"name": state.name, "state_json": codec.dumps(state)} for state in states],
            )
            rows = [
                {
                    "name": name,
                    "hour": point.at_s // HOUR_S,
                    "at_s": point.at_s,
                    "unit": str(point.unit),
                    "health_index": str(point.index),
                }
                for name, point in points.items()
            ]
            insert_new_rows(db, NavPointRow, rows)

    def nav_points(self, name: str, since_s: int) -> tuple[NavPoint, ...]:
        """Return the NAV per share of a strategy since that time, oldest first."""
        with self.db.read("read the unit values of strategies") as db:
            rows = all_rows(db, _points(), NavPointRow, name=name, hour=since_s // HOUR_S)
            return tuple(
                NavPoint(row.at_s, _whole(row.unit), _whole(row.health_index))
                for row in rows
                if row.at_s >= since_s
            )

    def forget(self, names: Sequence[str]) -> None:
        """Delete states and NAV of closed strategies, because a name may be reused."""
        with self.db.write("forget strategies that were closed") as db:
            for row in (StrategyRow, NavPointRow):
                db.execute(delete(row).where(row.name.in_(names)))

    def route_transfers(self, name: str | None) -> None:
        """Set the strategy that receives later deposits and withdrawals; None splits them by
        capital.
        """
        with self.db.write("save which strategy receives deposits") as db:
            database.write_facts(db, {TRANSFERS_STRATEGY: name or ""})


def unbook_intent(db: Connection, intent_id: str) -> None:
    """Remove the booking of an intent after a reorg removed its block."""
    db.execute(delete(StrategyBookingRow).where(StrategyBookingRow.source == intent_id))


@lru_cache(maxsize=16_384)
def _booking(text: str) -> StrategyBooking:
    """Parse a booking from its JSON; cached, because every cycle reads all bookings."""
    return decode_json(StrategyBooking, text)


def _mark_opening(db: Connection) -> None:
    """Record that the opening balances contain all earlier transactions."""
    first_open = db.scalar(select(func.min(IntentRow.seq)).where(IntentRow.state.in_(_OPEN)))
    after = max_value(db, IntentRow.seq) if first_open is None else first_open - 1
    database.write_facts(
        db, {BOOKED_TO_INTENT: after, BOOKED_TO_TRANSFER: max_value(db, ExternalTransferRow.seq)}
    )


def _fold(db: Connection) -> None:
    """Merge bookings of old transfers into one, because anyone can send any number of transfers."""
    if (db.scalar(_foldable_count()) or 0) < FOLD_AT:
        return
    rows = all_rows(db, _foldable().order_by(StrategyBookingRow.seq), StrategyBookingRow)
    loose = [(row, _booking(row.booking_json)) for row in rows]
    newest = max((booking.block for _, booking in loose), default=0)
    old = [
        (row, booking)
        for row, booking in loose
        if booking.block <= newest - balances.FOLD_DEPTH_BLOCKS
    ]
    if len(old) < FOLD_AT:
        return
    total: dict[tuple[str, str], int] = {}
    for _, booking in old:
        for name, token, raw in booking.changes:
            total[name, token] = total.get((name, token), 0) + raw
    flows = [_transfer_id(booking.source) for _, booking in old]
    database.write_facts(
        db, {BOOKED_TO_TRANSFER: max([database.fact_number(db, BOOKED_TO_TRANSFER), *flows])}
    )
    changes = tuple((name, token, raw) for (name, token), raw in sorted(total.items()) if raw)
    last = old[-1][1]
    folded = codec.dumps(
        StrategyBooking(_NAMED, StrategyBookingKind.FLOW, last.block, last.at_s, changes)
    )
    numbers = [row.seq for row, _ in old]
    for start in range(1, len(numbers), FOLD_AT):
        db.execute(
            delete(StrategyBookingRow).where(
                StrategyBookingRow.seq.in_(numbers[start : start + FOLD_AT])
            )
        )
    db.execute(
        update(StrategyBookingRow)
        .where(StrategyBookingRow.seq == numbers[0])
        .values(source=_NAMED, booking_json=folded)
    )


def _transfer_id(source: str) -> int:
    return int(source.removeprefix("flow ")) if source.startswith("flow ") else 0


def _intents(db: Connection, bookings: Sequence[StrategyBooking], after: int) -> tuple[Intent, ...]:
    """Return mined transactions that are not booked yet, oldest first."""
    if not bookings:
        return ()
    known, opened = {booking.source for booking in bookings}, bookings[0].block
    rows = [row for row in all_rows(db, _mined(), IntentRow, after=after) if row.id not in known]
    intents = [database.intent_from_row(row) for row in rows]
    return tuple(
        intent
        for intent in intents
        if intent.receipt is not None and intent.receipt.block_number > opened
    )


def _unbooked_transfers(
    db: Connection, bookings: Sequence[StrategyBooking], after: int
) -> tuple[ExternalTransfer, ...]:
    if not bookings:
        return ()
    booked = [_transfer_id(booking.source) for booking in bookings]
    return balances.transfers_after(db, max([after, *booked]))


def _unbooked_external(
    db: Connection, bookings: Sequence[StrategyBooking]
) -> tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...]:
    """Return unbooked transactions that the wallet sent without this store since the accounts were
    opened.
    """
    if not bookings:
        return ()
    known = {booking.source for booking in bookings}
    rows = all_rows(db, _outside(), ExternalTransactionRow, block=bookings[0].block)
    return tuple(
        (row.tx_hash, row.block_number, balances.parse_changes(row))
        for row in rows
        if row.tx_hash not in known
    )


def _whole(text: str) -> int:
    try:
        return int(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(
            f"store: a NAV per share is damaged: {error}", "restore a backup"
        ) from None


_bookings = cache(lambda: select(StrategyBookingRow.booking_json).order_by(StrategyBookingRow.seq))
_states = cache(lambda: select(StrategyRow.state_json).order_by(StrategyRow.name))
_foldable = cache(
    lambda: select(StrategyBookingRow).where(
        or_(*(StrategyBookingRow.source.startswith(name) for name in _FOLDING))
    )
)
_foldable_count = cache(lambda: _foldable().with_only_columns(func.count()))


@cache
def _points() -> Select[Any]:
    since = NavPointRow.name == bindparam("name"), NavPointRow.hour >= bindparam("hour")
    return select(NavPointRow).where(*since).order_by(NavPointRow.hour)


@cache
def _mined() -> Select[Any]:
    """Select mined intents with a sequence number above `after`."""
    mined = (
        IntentRow.seq > bindparam("after"),
        IntentRow.state.in_(_CONSUMED),
        IntentRow.receipt_json.is_not(None),
    )
    return select(IntentRow).where(*mined).order_by(IntentRow.seq)


@cache
def _outside() -> Select[Any]:
    """Select external transactions of the wallet mined after `block`."""
    return (
        select(ExternalTransactionRow)
        .where(ExternalTransactionRow.block_number > bindparam("block"))
        .order_by(ExternalTransactionRow.block_number)
    )
