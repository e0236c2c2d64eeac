"""Strategies over one wallet: bookings, states, unit values, and which transactions and flows their books lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, or_, select, update

from agent import codec
from agent.errors import OperatorNeeded
from agent.model import Flow, Intent
from agent.model.strategies import Booking, BookingKind, SleeveLedger, SleeveState, UnitPoint
from agent.store import database as meta
from agent.store import records
from agent.store.accounts import balances
from agent.store.accounts import balances as earlier
from agent.store.database import Database, add, add_new, every, highest, put, values
from agent.store.records import loaded
from agent.store.tables import EarlierRow, FlowRow, IntentRow, SleeveBookingRow, SleeveRow, UnitValueRow
from agent.store.transitions import CONSUMED, OPEN

TURN = "sleeves_turn"
AFTER = "sleeves_after"
"""Key of the newest transaction that can have no part in the books any more: it and all before it had ended when they were opened."""
FLOW_AFTER = "sleeves_flow_after"
FLOWS_TO = "sleeves_flows_to"
HOUR_S = 3_600
FOLD_AT = 500
"""So many bookings of flows, deep in the chain, become one."""
_NAMED = "folded flows"
_FOLDING = ("flow ", "aside ", _NAMED)
_CONSUMED = tuple(state.value for state in CONSUMED)
_OPEN = tuple(state.value for state in OPEN)


class Sleeves(Database):
    """Implements ports.SleeveJournal; each method is a transaction of its own."""

    def sleeve_ledger(self) -> SleeveLedger:
        """The books of strategies, and what happened to the wallet that is not booked yet."""
        with self._read("read the books of strategies") as db:
            facts = meta.read(db, FLOWS_TO, TURN, AFTER, FLOW_AFTER)
            bookings = tuple(map(_booking, values(db, _bookings())))
            states = tuple(loaded(SleeveState, text) for text in values(db, _states()))
            return SleeveLedger(
                bookings=bookings,
                states=states,
                intents=_intents(db, bookings, int(facts.get(AFTER) or 0)),
                flows=_flows(db, bookings, int(facts.get(FLOW_AFTER) or 0)),
                earlier=_earlier(db, bookings),
                flows_to=facts.get(FLOWS_TO) or None,
                turn=int(facts.get(TURN) or 0),
            )

    def note_sleeves(self, bookings: Sequence[Booking], at_turn: int) -> bool:
        """Writes bookings down; False, and nothing written, when the books of `at_turn` have been turned since."""
        with self._write("write the books of strategies") as db:
            if meta.number(db, TURN) != at_turn:
                return False
            for booking in bookings:
                if booking.kind is BookingKind.OPEN:
                    _opened(db)
            add(db, SleeveBookingRow, [{"source": booking.source, "booking_json": codec.dumps(booking)} for booking in bookings])
            meta.write(db, {TURN: at_turn + 1})
            _fold(db)
            return True

    def note_units(self, states: Sequence[SleeveState], points: Mapping[str, UnitPoint]) -> None:
        """Writes down how strategies stand and what their units are worth, the first of each hour for good."""
        with self._write("write the unit values of strategies") as db:
            put(db, SleeveRow, [{"name": state.name, "state_json": codec.dumps(state)} for state in states])
            rows = [
                {"name": name, "hour": point.at_s // HOUR_S, "at_s": point.at_s, "unit": str(point.unit), "health_index": str(point.index)}
                for name, point in points.items()
            ]
            add_new(db, UnitValueRow, rows)

    def unit_points(self, name: str, since_s: int) -> tuple[UnitPoint, ...]:
        """Unit values of one strategy since then, oldest first."""
        with self._read("read the unit values of strategies") as db:
            rows = every(db, _points(), UnitValueRow, name=name, hour=since_s // HOUR_S)
            return tuple(UnitPoint(row.at_s, _whole(row.unit), _whole(row.health_index)) for row in rows if row.at_s >= since_s)

    def forget_strategies(self, names: Sequence[str]) -> None:
        """Forgets states and unit values of strategies that were closed: one of the same name is another one."""
        with self._write("forget strategies that were closed") as db:
            for row in (SleeveRow, UnitValueRow):
                db.execute(delete(row).where(row.name.in_(names)))

    def route_flows(self, name: str | None) -> None:
        """Whose deposits and withdrawals are from now on; None shares them by capital."""
        with self._write("write whose deposits are") as db:
            meta.write(db, {FLOWS_TO: name or ""})


@lru_cache(maxsize=16_384)
def _booking(text: str) -> Booking:
    """A booking from its JSON: every look reads them all, and they do not change."""
    return loaded(Booking, text)


def _opened(db: Connection) -> None:
    """Everything that ended before is in the balances that the books open with."""
    first_open = db.scalar(select(func.min(IntentRow.seq)).where(IntentRow.state.in_(_OPEN)))
    after = highest(db, IntentRow.seq) if first_open is None else first_open - 1
    meta.write(db, {AFTER: after, FLOW_AFTER: highest(db, FlowRow.seq)})


def _fold(db: Connection) -> None:
    """Makes one booking of many flows that are deep in the chain: anybody may send dust as often as he likes."""
    if (db.scalar(_foldable_count()) or 0) < FOLD_AT:
        return
    rows = every(db, _foldable().order_by(SleeveBookingRow.seq), SleeveBookingRow)
    loose = [(row, _booking(row.booking_json)) for row in rows]
    newest = max((booking.block for _, booking in loose), default=0)
    old = [(row, booking) for row, booking in loose if booking.block <= newest - balances.DEEP]
    if len(old) < FOLD_AT:
        return
    total: dict[tuple[str, str], int] = {}
    for _, booking in old:
        for name, token, raw in booking.changes:
            total[name, token] = total.get((name, token), 0) + raw
    flows = [_flow_id(booking.source) for _, booking in old]
    meta.write(db, {FLOW_AFTER: max([meta.number(db, FLOW_AFTER), *flows])})
    changes = tuple((name, token, raw) for (name, token), raw in sorted(total.items()) if raw)
    last = old[-1][1]
    folded = codec.dumps(Booking(_NAMED, BookingKind.FLOW, last.block, last.at_s, changes))
    numbers = [row.seq for row, _ in old]
    for start in range(1, len(numbers), FOLD_AT):
        db.execute(delete(SleeveBookingRow).where(SleeveBookingRow.seq.in_(numbers[start : start + FOLD_AT])))
    db.execute(update(SleeveBookingRow).where(SleeveBookingRow.seq == numbers[0]).values(source=_NAMED, booking_json=folded))


def _flow_id(source: str) -> int:
    return int(source.removeprefix("flow ")) if source.startswith("flow ") else 0


def _intents(db: Connection, bookings: Sequence[Booking], after: int) -> tuple[Intent, ...]:
    """Transactions that a block has and the books have not, oldest first."""
    if not bookings:
        return ()
    known, opened = {booking.source for booking in bookings}, bookings[0].block
    rows = [row for row in every(db, _mined(), IntentRow, after=after) if row.id not in known]
    intents = [records.intent(row) for row in rows]
    return tuple(one for one in intents if one.receipt is not None and one.receipt.block_number > opened)


def _flows(db: Connection, bookings: Sequence[Booking], after: int) -> tuple[Flow, ...]:
    if not bookings:
        return ()
    booked = [_flow_id(booking.source) for booking in bookings]
    return balances.flows_after(db, max([after, *booked]))


def _earlier(db: Connection, bookings: Sequence[Booking]) -> tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...]:
    """What the wallet sent without this store since the books were opened."""
    if not bookings:
        return ()
    known = {booking.source for booking in bookings}
    rows = every(db, _outside(), EarlierRow, block=bookings[0].block)
    return tuple((row.tx_hash, row.block_number, earlier.moved(row)) for row in rows if row.tx_hash not in known)


def _whole(text: str) -> int:
    try:
        return int(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(f"store: a unit value is damaged: {error}", "restore a backup") from None


_bookings = cache(lambda: select(SleeveBookingRow.booking_json).order_by(SleeveBookingRow.seq))
_states = cache(lambda: select(SleeveRow.state_json).order_by(SleeveRow.name))
_foldable = cache(lambda: select(SleeveBookingRow).where(or_(*(SleeveBookingRow.source.startswith(name) for name in _FOLDING))))
_foldable_count = cache(lambda: _foldable().with_only_columns(func.count()))


@cache
def _points() -> Select[Any]:
    since = UnitValueRow.name == bindparam("name"), UnitValueRow.hour >= bindparam("hour")
    return select(UnitValueRow).where(*since).order_by(UnitValueRow.hour)


@cache
def _mined() -> Select[Any]:
    """What a block has, beyond a number."""
    mined = IntentRow.seq > bindparam("after"), IntentRow.state.in_(_CONSUMED), IntentRow.receipt_json.is_not(None)
    return select(IntentRow).where(*mined).order_by(IntentRow.seq)


@cache
def _outside() -> Select[Any]:
    """What the wallet sent without this store beyond a block."""
    return select(EarlierRow).where(EarlierRow.block_number > bindparam("block")).order_by(EarlierRow.block_number)
