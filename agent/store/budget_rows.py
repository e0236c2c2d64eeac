"""Rows of the budgets: sums, and the newest success of a kind."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from agent.errors import ErrorCode, OperatorNeeded
from agent.store.tables import BudgetRow, ExternalTransactionRow


def turnover_sum(rows: Sequence[BudgetRow | ExternalTransactionRow]) -> Fraction:
    """Return the turnover of these rows, numeraire base units."""
    return sum((parse_fraction(row.turnover) for row in rows), Fraction(0))


def newest_success_s(db: Connection, kind: str) -> int | None:
    """Return the chain time of the newest success of a budget kind; None without one."""
    chain_s: int | None = db.scalar(_done(), {"kind": kind})
    return chain_s


def parse_fraction(text: str) -> Fraction:
    """Return a stored fraction. Raises OperatorNeeded if it is damaged."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(
            f"store: a budget entry is damaged: {error}",
            "restore a backup, compare it with the chain",
            code=ErrorCode.DAMAGED,
        ) from None


@cache
def _done() -> Select[Any]:
    """Select the chain times of successes of a kind, newest first."""
    done = select(BudgetRow.chain_s).where(
        BudgetRow.kind == bindparam("kind"), BudgetRow.succeeded.is_(True)
    )
    return done.order_by(BudgetRow.chain_s.desc()).limit(1)
