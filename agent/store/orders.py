"""Stored conditional orders, with the NAV per share. An order is stored before the agent acts on
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

from sqlalchemy import Connection, delete, select

from agent import codec
from agent.layers import stores
from agent.model import (
    ConditionalOrder,
    NavPerShare,
)
from agent.store.database.connection import Database
from agent.store.database.facts import fact_number, find_fact, write_facts
from agent.store.database.rows import decode_json, decode_optional, parse_fraction
from agent.store.database.statements import all_rows, column_values, upsert_rows
from agent.store.tables import (
    BudgetUseRow,
    OrderRow,
)

ORDERS_VERSION_KEY = "orders_turn"
"""Key of the number of writes, which prevents a process that read an older version from overwriting
orders.
"""
NAV_PER_SHARE_KEY = "unit_value"
"""Key of the NavPerShare as JSON."""


@dataclass(frozen=True, slots=True)
class OrderStore:
    """Conditional orders by token and kind; each method is a transaction of its own."""

    db: Database

    def orders_and_version(self) -> tuple[tuple[ConditionalOrder, ...], int]:
        """Return all orders, and their version, which `replace_orders` expects."""
        with self.db.read("read the orders") as db:
            return read_orders(db), orders_version(db)

    def replace_orders(
        self, orders: Sequence[ConditionalOrder], nav: NavPerShare | None, expected_version: int
    ) -> bool:
        """Replace the stored orders, and the NAV per share if given.

        Returns False, with nothing written, if another process wrote orders since
        `expected_version`.
        """
        with self.db.read("read the orders") as db:
            if _is_unchanged(db, orders, nav):
                return True
        with self.db.write("write the orders") as db:
            if orders_version(db) != expected_version:
                return False
            current_keys = {(order.token, order.kind.value) for order in orders}
            for row in all_rows(db, _select_orders(), OrderRow):
                if (row.token, row.kind) not in current_keys:
                    db.execute(
                        delete(OrderRow).where(
                            OrderRow.token == row.token, OrderRow.kind == row.kind
                        )
                    )
            order_rows = [
                {"token": order.token, "kind": order.kind.value, "order_json": codec.dumps(order)}
                for order in orders
            ]
            upsert_rows(db, OrderRow, order_rows)
            facts: dict[str, object] = {ORDERS_VERSION_KEY: expected_version + 1}
            if nav is not None:
                facts[NAV_PER_SHARE_KEY] = codec.dumps(replace(nav, later_loss=Fraction(0)))
            write_facts(db, facts)
            return True


def read_orders(db: Connection) -> tuple[ConditionalOrder, ...]:
    """Return all orders, by token and kind."""
    return tuple(
        decode_json(ConditionalOrder, row.order_json)
        for row in all_rows(db, _select_orders(), OrderRow)
    )


def nav_per_share(db: Connection, facts: Mapping[str, str]) -> NavPerShare | None:
    """Return the stored NAV per share with the loss of the agent's transactions since; None without
    one. Losses in an account outside the wallet do not count, since they are part of its result.
    """
    if NAV_PER_SHARE_KEY not in facts:
        return None
    stored_nav = decode_json(NavPerShare, facts[NAV_PER_SHARE_KEY])
    loss_texts = column_values(
        db,
        select(BudgetUseRow.loss).where(
            BudgetUseRow.chain_s > stored_nav.at_s,
            BudgetUseRow.kind.not_in(stores.ACCOUNT_BUDGET_KINDS),
        ),
    )
    return replace(stored_nav, later_loss=sum(map(parse_fraction, loss_texts), Fraction(0)))


def orders_version(db: Connection) -> int:
    """Return the number of writes of orders."""
    return fact_number(db, ORDERS_VERSION_KEY)


def _is_unchanged(
    db: Connection, orders: Sequence[ConditionalOrder], nav: NavPerShare | None
) -> bool:
    nav_json = find_fact(db, NAV_PER_SHARE_KEY)
    stored_nav = decode_optional(NavPerShare, nav_json)
    updated_nav = stored_nav if nav is None else replace(nav, later_loss=Fraction(0))
    return stored_nav == updated_nav and sorted(map(codec.dumps, orders)) == sorted(
        map(codec.dumps, read_orders(db))
    )


_select_orders = cache(lambda: select(OrderRow).order_by(OrderRow.token, OrderRow.kind))
"""Selects all orders, by token and kind."""
