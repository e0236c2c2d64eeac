"""Stored conditional orders and NAV per share: written before anything is done about them, read
again after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

from sqlalchemy import Connection, String, Text, bindparam, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from agent import codec
from agent.model import ConditionalOrder, NavPerShare
from agent.store import database
from agent.store.database import Database, all_rows, column_values, upsert_rows
from agent.store.records import decode_json
from agent.store.tables import Base, BudgetRow

ORDERS_VERSION = "orders_turn"
"""Key of how often orders were written: two processes do not write over each other."""
NAV_PER_SHARE = "unit_value"


class OrderRow(Base):
    """State of one order, as JSON."""

    __tablename__ = "orders"
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    order_json: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True, slots=True)
class OrderStore:
    """Orders by token and kind; each method is a transaction of its own."""

    db: Database

    def standing(self) -> tuple[tuple[ConditionalOrder, ...], int]:
        """All orders, and their version, to be passed back when they are written."""
        with self.db.read("read the orders") as db:
            return read_orders(db), orders_version(db)

    def update(
        self, orders: Sequence[ConditionalOrder], unit_value: NavPerShare | None, at_version: int
    ) -> bool:
        """Write the states of orders, and delete those not among them; writing the same twice
        changes nothing.

        False, and nothing written, if another process wrote them since `at_version`.
        """
        with self.db.read("read the orders") as db:
            if _same(db, orders, unit_value):
                return True
        with self.db.write("write the orders") as db:
            if orders_version(db) != at_version:
                return False
            kept = {(order.token, order.kind.value) for order in orders}
            for row in all_rows(db, _orders(), OrderRow):
                if (row.token, row.kind) not in kept:
                    db.execute(
                        delete(OrderRow).where(
                            OrderRow.token == row.token, OrderRow.kind == row.kind
                        )
                    )
            rows = [
                {"token": order.token, "kind": order.kind.value, "order_json": codec.dumps(order)}
                for order in orders
            ]
            upsert_rows(db, OrderRow, rows)
            value = (
                {}
                if unit_value is None
                else {NAV_PER_SHARE: codec.dumps(replace(unit_value, lost=Fraction(0)))}
            )
            database.write_facts(db, {**value, ORDERS_VERSION: at_version + 1})
            return True


def read_orders(db: Connection) -> tuple[ConditionalOrder, ...]:
    """All orders, by token and kind."""
    return tuple(
        decode_json(ConditionalOrder, row.order_json) for row in all_rows(db, _orders(), OrderRow)
    )


def nav_per_share(db: Connection, facts: Mapping[str, str]) -> NavPerShare | None:
    """NAV per share by the fact NAV_PER_SHARE, with the loss of the agent's transactions since;
    None before it was written.
    """
    if NAV_PER_SHARE not in facts:
        return None
    kept = decode_json(NavPerShare, facts[NAV_PER_SHARE])
    return replace(
        kept, lost=sum(map(Fraction, column_values(db, _losses(), since=kept.at_s)), Fraction(0))
    )


def orders_version(db: Connection) -> int:
    """Number of times the orders were written."""
    return database.fact_number(db, ORDERS_VERSION)


def _same(db: Connection, orders: Sequence[ConditionalOrder], value: NavPerShare | None) -> bool:
    kept = database.find_fact(db, NAV_PER_SHARE)
    now = None if kept is None else decode_json(NavPerShare, kept)
    updated = now if value is None else replace(value, lost=Fraction(0))
    return now == updated and sorted(map(codec.dumps, orders)) == sorted(
        map(codec.dumps, read_orders(db))
    )


_orders = cache(lambda: select(OrderRow).order_by(OrderRow.token, OrderRow.kind))
_losses = cache(lambda: select(BudgetRow.loss).where(BudgetRow.chain_s > bindparam("since")))
