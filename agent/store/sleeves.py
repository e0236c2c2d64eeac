"""Strategies over one wallet: bookings, states, unit values, and which transactions and flows their books lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from agent import codec
from agent.errors import OperatorNeeded
from agent.model import Flow, Intent
from agent.model.strategies import Booking, BookingKind, SleeveLedger, SleeveState, UnitPoint
from agent.store import balances, earlier, records
from agent.store.database import Database
from agent.store.records import loaded
from agent.store.sleeve_rows import SleeveBookingRow, SleeveRow, UnitValueRow
from agent.store.tables import EarlierRow, FlowRow, IntentRow, Meta
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
        with self._read("read the books of strategies") as session:
            texts = session.scalars(select(SleeveBookingRow.booking_json).order_by(SleeveBookingRow.seq))
            bookings = tuple(map(_booking, texts))
            states = tuple(loaded(SleeveState, row.state_json) for row in session.scalars(select(SleeveRow).order_by(SleeveRow.name)))
            return SleeveLedger(
                bookings=bookings,
                states=states,
                intents=_intents(session, bookings),
                flows=_flows(session, bookings),
                earlier=_earlier(session, bookings),
                flows_to=_meta(session, FLOWS_TO) or None,
                turn=int(_meta(session, TURN) or 0),
            )

    def note_sleeves(self, bookings: Sequence[Booking], at_turn: int) -> bool:
        """Writes bookings down; False, and nothing written, when the books of `at_turn` have been turned since."""
        with self._write("write the books of strategies") as session:
            if int(_meta(session, TURN) or 0) != at_turn:
                return False
            for booking in bookings:
                if booking.kind is BookingKind.OPEN:
                    _opened(session)
                session.add(SleeveBookingRow(source=booking.source, booking_json=codec.dumps(booking)))
            session.merge(Meta(key=TURN, value=str(at_turn + 1)))
            session.flush()
            _fold(session)
            return True

    def note_units(self, states: Sequence[SleeveState], points: Mapping[str, UnitPoint]) -> None:
        """Writes down how strategies stand and what their units are worth, the first of each hour for good."""
        with self._write("write the unit values of strategies") as session:
            for state in states:
                session.merge(SleeveRow(name=state.name, state_json=codec.dumps(state)))
            for name, point in points.items():
                row = {"name": name, "hour": point.at_s // HOUR_S, "at_s": point.at_s, "unit": str(point.unit)}
                session.execute(insert(UnitValueRow).values(**row, health_index=str(point.index)).on_conflict_do_nothing())

    def unit_points(self, name: str, since_s: int) -> tuple[UnitPoint, ...]:
        """Unit values of one strategy since then, oldest first."""
        query = select(UnitValueRow).where(UnitValueRow.name == name, UnitValueRow.hour >= since_s // HOUR_S)
        with self._read("read the unit values of strategies") as session:
            rows = session.scalars(query.order_by(UnitValueRow.hour))
            return tuple(UnitPoint(row.at_s, _whole(row.unit), _whole(row.health_index)) for row in rows if row.at_s >= since_s)

    def forget_strategies(self, names: Sequence[str]) -> None:
        """Forgets states and unit values of strategies that were closed: one of the same name is another one."""
        with self._write("forget strategies that were closed") as session:
            for row in (SleeveRow, UnitValueRow):
                session.execute(delete(row).where(row.name.in_(names)))

    def route_flows(self, name: str | None) -> None:
        """Whose deposits and withdrawals are from now on; None shares them by capital."""
        with self._write("write whose deposits are") as session:
            session.merge(Meta(key=FLOWS_TO, value=name or ""))


@lru_cache(maxsize=16_384)
def _booking(text: str) -> Booking:
    """A booking from its JSON: every look reads them all, and they do not change."""
    return loaded(Booking, text)


def _opened(session: Session) -> None:
    """Everything that ended before is in the balances that the books open with."""
    first_open = session.scalar(select(func.min(IntentRow.seq)).where(IntentRow.state.in_(_OPEN)))
    newest = session.scalar(select(func.max(IntentRow.seq))) or 0
    session.merge(Meta(key=AFTER, value=str(newest if first_open is None else first_open - 1)))
    session.merge(Meta(key=FLOW_AFTER, value=str(session.scalar(select(func.max(FlowRow.seq))) or 0)))


def _fold(session: Session) -> None:
    """Makes one booking of many flows that are deep in the chain: anybody may send dust as often as he likes."""
    ours = or_(*(SleeveBookingRow.source.startswith(name) for name in _FOLDING))
    if (session.scalar(select(func.count()).select_from(SleeveBookingRow).where(ours)) or 0) < FOLD_AT:
        return
    rows = session.scalars(select(SleeveBookingRow).where(ours).order_by(SleeveBookingRow.seq))
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
    session.merge(Meta(key=FLOW_AFTER, value=str(max([int(_meta(session, FLOW_AFTER) or 0), *flows]))))
    changes = tuple((name, token, raw) for (name, token), raw in sorted(total.items()) if raw)
    last = old[-1][1]
    first = old[0][0]
    first.source, first.booking_json = _NAMED, codec.dumps(Booking(_NAMED, BookingKind.FLOW, last.block, last.at_s, changes))
    for row, _ in old[1:]:
        session.delete(row)


def _flow_id(source: str) -> int:
    return int(source.removeprefix("flow ")) if source.startswith("flow ") else 0


def _intents(session: Session, bookings: Sequence[Booking]) -> tuple[Intent, ...]:
    """Transactions that a block has and the books have not, oldest first."""
    if not bookings:
        return ()
    known, opened = {booking.source for booking in bookings}, bookings[0].block
    query = select(IntentRow).where(
        IntentRow.seq > int(_meta(session, AFTER) or 0), IntentRow.state.in_(_CONSUMED), IntentRow.receipt_json.is_not(None)
    )
    rows = [row for row in session.scalars(query.order_by(IntentRow.seq)) if row.id not in known]
    intents = [records.intent(row) for row in rows]
    return tuple(one for one in intents if one.receipt is not None and one.receipt.block_number > opened)


def _flows(session: Session, bookings: Sequence[Booking]) -> tuple[Flow, ...]:
    if not bookings:
        return ()
    booked = [_flow_id(booking.source) for booking in bookings]
    return balances.flows_after(session, max([int(_meta(session, FLOW_AFTER) or 0), *booked]))


def _earlier(session: Session, bookings: Sequence[Booking]) -> tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...]:
    """What the wallet sent without this store since the books were opened."""
    if not bookings:
        return ()
    known = {booking.source for booking in bookings}
    rows = session.scalars(select(EarlierRow).where(EarlierRow.block_number > bookings[0].block).order_by(EarlierRow.block_number))
    return tuple((row.tx_hash, row.block_number, earlier.moved(row)) for row in rows if row.tx_hash not in known)


def _meta(session: Session, key: str) -> str:
    row = session.get(Meta, key)
    return "" if row is None else row.value


def _whole(text: str) -> int:
    try:
        return int(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(f"store: a unit value is damaged: {error}", "restore a backup") from None
