"""How orders stand, and what a unit of the portfolio was worth: written before anything is done about it, found again by a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache

from sqlalchemy import Connection, String, Text, bindparam, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from agent import codec
from agent.model import Order, UnitValue
from agent.store import database as meta
from agent.store.database import Database, every, put, values
from agent.store.records import loaded
from agent.store.tables import Base, BudgetRow

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
        with self._read("read the orders") as db:
            return found(db), turn(db)

    def move_orders(self, orders: Sequence[Order], unit_value: UnitValue | None, at_turn: int) -> bool:
        """Writes how orders stand now, and forgets those that are not among them; the same a second time writes nothing.

        False, and nothing written, when they were written by somebody else since `at_turn`.
        """
        with self._read("read the orders") as db:
            if _same(db, orders, unit_value):
                return True
        with self._write("write the orders") as db:
            if turn(db) != at_turn:
                return False
            kept = {(order.token, order.kind.value) for order in orders}
            for row in every(db, _orders(), OrderRow):
                if (row.token, row.kind) not in kept:
                    db.execute(delete(OrderRow).where(OrderRow.token == row.token, OrderRow.kind == row.kind))
            rows = [{"token": order.token, "kind": order.kind.value, "order_json": codec.dumps(order)} for order in orders]
            put(db, OrderRow, rows)
            value = {} if unit_value is None else {UNIT: codec.dumps(replace(unit_value, lost=Fraction(0)))}
            meta.write(db, {**value, TURN: at_turn + 1})
            return True


def found(db: Connection) -> tuple[Order, ...]:
    """All orders, by token and kind."""
    return tuple(loaded(Order, row.order_json) for row in every(db, _orders(), OrderRow))


def unit_value(db: Connection, facts: Mapping[str, str]) -> UnitValue | None:
    """What a unit was worth by the fact UNIT, with what the agent's transactions have lost since; None before it was written."""
    if UNIT not in facts:
        return None
    kept = loaded(UnitValue, facts[UNIT])
    return replace(kept, lost=sum(map(Fraction, values(db, _losses(), since=kept.at_s)), Fraction(0)))


def turn(db: Connection) -> int:
    """How often orders were written."""
    return meta.number(db, TURN)


def _same(db: Connection, orders: Sequence[Order], value: UnitValue | None) -> bool:
    kept = meta.known(db, UNIT)
    now = None if kept is None else loaded(UnitValue, kept)
    told = now if value is None else replace(value, lost=Fraction(0))
    return now == told and sorted(map(codec.dumps, orders)) == sorted(map(codec.dumps, found(db)))


_orders = cache(lambda: select(OrderRow).order_by(OrderRow.token, OrderRow.kind))
_losses = cache(lambda: select(BudgetRow.loss).where(BudgetRow.chain_s > bindparam("since")))
