"""Stored state of liquidity positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from agent.layers.liquidity.state import LiquidityState
from agent.model import IntentKind, Receipt
from agent.store.accounts import positions
from agent.store.tables import BudgetUseRow, IntentRow


def read_state(
    db: Connection,
    budget_rows: Sequence[BudgetUseRow],
    last_success_s_by_kind: Mapping[str, int | None],
) -> LiquidityState:
    """Return the time of the newest action, and the positions that await the owner's decision;
    `last_success_s_by_kind` are the chain times of the newest success of each budget kind.
    """
    del budget_rows
    return LiquidityState(
        last_success_s_by_kind[IntentKind.LIQUIDITY.value], positions.undecided_position_names(db)
    )


def record_receipt(db: Connection, row: IntentRow, wallet: str, receipt: Receipt | None) -> None:
    """Record the position change of a liquidity action from its receipt; delete it if there is no
    receipt. Does nothing for any other intent.
    """
    if row.kind == IntentKind.LIQUIDITY.value:
        positions.update_position_change(db, row, wallet, receipt)
