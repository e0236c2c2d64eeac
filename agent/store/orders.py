"""How orders stand, and what a unit of the portfolio was worth: written before anything is done about it, found again by a restart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from sqlalchemy import String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from agent import codec
from agent.model import Order, UnitValue
from agent.store.database import Database
from agent.store.records import loaded
from agent.store.tables import Base, BudgetRow, Meta

TURN = "orders_turn"
"""Key of how often orders were written: two processes do not write over each other."""
UNIT = "unit_value"


class OrderRow(Base):
    """How one order stands, as JSON."""

    __tablename__ = "orders"
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    order_json: Mapped[str] = mapped_column(Text)


class StandingOrders(Database):
    """Orders by token and kind; each method is a transaction of its own."""

    def standing_orders(self) -> tuple[tuple[Order, ...], int]:
        """All orders, and the turn of what was read: to be handed back with what is written."""
        with self._read("read the orders") as session:
            return found(session), turn(session)

    def move_orders(self, orders: Sequence[Order], unit_value: UnitValue | None, at_turn: int) -> bool:
        """Writes how orders stand now, and forgets those that are not among them; the same a second time writes nothing.

        False, and nothing written, when they were written by somebody else since `at_turn`.
        """
        with self._read("read the orders") as session:
            if _same(session, orders, unit_value):
                return True
        with self._write("write the orders") as session:
            if turn(session) != at_turn:
                return False
            wanted = {(order.token, order.kind.value): codec.dumps(order) for order in orders}
            for row in session.scalars(select(OrderRow)).all():
                if (row.token, row.kind) not in wanted:
                    session.delete(row)
            for (token, kind), text in wanted.items():
                session.merge(OrderRow(token=token, kind=kind, order_json=text))
            if unit_value is not None:
                session.merge(Meta(key=UNIT, value=codec.dumps(replace(unit_value, lost=Fraction(0)))))
            session.merge(Meta(key=TURN, value=str(at_turn + 1)))
            return True


def found(session: Session) -> tuple[Order, ...]:
    """All orders, by token and kind."""
    rows: Iterable[OrderRow] = session.scalars(select(OrderRow).order_by(OrderRow.token, OrderRow.kind))
    return tuple(loaded(Order, row.order_json) for row in rows)


def unit_value(session: Session) -> UnitValue | None:
    """What a unit was worth, with what the agent's transactions have lost since; None before it was written."""
    row = session.get(Meta, UNIT)
    if row is None:
        return None
    kept = loaded(UnitValue, row.value)
    since = session.scalars(select(BudgetRow.loss).where(BudgetRow.chain_s > kept.at_s))
    return replace(kept, lost=sum(map(Fraction, since), Fraction(0)))


def turn(session: Session) -> int:
    """How often orders were written."""
    row = session.get(Meta, TURN)
    return 0 if row is None else int(row.value)


def _same(session: Session, orders: Sequence[Order], value: UnitValue | None) -> bool:
    kept = session.get(Meta, UNIT)
    now = None if kept is None else loaded(UnitValue, kept.value)
    told = now if value is None else replace(value, lost=Fraction(0))
    return now == told and sorted(map(codec.dumps, orders)) == sorted(map(codec.dumps, found(session)))
