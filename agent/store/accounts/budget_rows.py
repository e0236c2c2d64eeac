"""Rows of the budgets: sums, the newest success of a kind, and the loss of an intent."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from agent.store.database.rows import parse_fraction
from agent.store.tables import BudgetUseRow, ExternalTransactionRow

UNTRIGGERED_SWAP = "swap_besides"
"""Budget kind of a swap without a trigger: an exit, a withdrawal, an investment, a manual swap."""


def turnover_sum(budget_rows: Sequence[BudgetUseRow | ExternalTransactionRow]) -> Fraction:
    """Return the turnover of these rows, numeraire base units."""
    return sum((parse_fraction(row.turnover) for row in budget_rows), Fraction(0))


def newest_successes(db: Connection, kinds: tuple[str, ...]) -> dict[str, int | None]:
    """Return the chain time of the newest success of each of these budget kinds; None without one."""
    return dict(zip(kinds, db.execute(_select_newest_successes(kinds)).one(), strict=True))


@cache
def _select_newest_successes(kinds: tuple[str, ...]) -> Select[Any]:
    """Select the chain time of the newest success of each kind, each found by the index."""
    select_succeeded = select(BudgetUseRow.chain_s).where(BudgetUseRow.succeeded.is_(True))
    select_newest = select_succeeded.order_by(BudgetUseRow.chain_s.desc()).limit(1)
    return select(
        *(select_newest.where(BudgetUseRow.kind == kind).scalar_subquery() for kind in kinds)
    )


select_booked_loss = cache(
    lambda: select(BudgetUseRow.loss).where(BudgetUseRow.intent_id == bindparam("intent_id"))
)
