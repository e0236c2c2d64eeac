"""Stored state of liquidity positions."""

from __future__ import annotations

from sqlalchemy import Connection

from agent.layers.liquidity.state import LiquidityState
from agent.model import IntentKind
from agent.store.accounts import positions
from agent.store.budget_rows import newest_success_s


def read_state(db: Connection, wallet: str, coin: str, chain_now_s: int) -> LiquidityState:
    """Return the time of the newest action, and the positions that await the owner's decision."""
    del wallet, coin, chain_now_s
    return LiquidityState(
        newest_success_s(db, IntentKind.LIQUIDITY.value), positions.undecided_positions(db)
    )
