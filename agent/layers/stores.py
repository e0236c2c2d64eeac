"""States of the layers, read from the store, and records that go with a removed transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection

from agent.layers.futures import store as futures
from agent.layers.gradual import store as gradual
from agent.layers.liquidity import store as liquidity
from agent.layers.strategies import store as strategies
from agent.model import IntentKind, LayerState, with_part
from agent.ports import Grant
from agent.store.database import FUTURES_BUDGET_KINDS, FUTURES_DEPOSIT, FUTURES_REDUCTION
from agent.store.tables import BudgetUseRow, IntentRow

STATE_READERS: tuple[Callable[[Connection, str, str, int], LayerState], ...] = (gradual.read_state,)
"""Readers of a layer's state from wallet, wrapped native coin and chain time."""
BUDGET_READERS: tuple[
    Callable[[Connection, Sequence[BudgetUseRow], Mapping[str, int | None]], LayerState], ...
] = (liquidity.read_state, futures.read_state)
"""Readers of a layer's state from the budget rows of the last 24 h, and from the chain time of the
newest success of each budget kind.
"""
INTENT_BUDGET_KINDS: Mapping[IntentKind, Callable[[Grant], str]] = {
    IntentKind.FUTURES: futures.budget_kind
}
"""Budget kind of a layer's intent, by its kind."""
GRANTED_EXITS: Mapping[IntentKind, Callable[[Grant], str]] = {
    IntentKind.FUTURES: futures.reduced_market
}
"""Name that failures of a layer's intent are counted under; empty: that of its plan."""
LAYER_BUDGET_KINDS: tuple[str, ...] = FUTURES_BUDGET_KINDS[1:]
"""Budget kinds of the layers that are no kinds of intents."""
UNCOUNTED_TURNOVER_KINDS: tuple[str, ...] = (FUTURES_REDUCTION, FUTURES_DEPOSIT)
"""Budget kinds whose turnover the limits of the portfolio ignore."""
RESTING_CHECKS: tuple[Callable[[IntentRow], bool], ...] = (futures.is_resting_row,)
"""True for an intent that waits at a venue, which is neither a trade nor a failure."""
UNBOOKINGS: tuple[Callable[[Connection, str], None], ...] = (strategies.unbook_intent,)
"""Removals of what a layer recorded of an intent, whose block a reorg removed."""


def read_own_states(
    db: Connection, wallet: str, wrapped_native: str, chain_now_s: int
) -> tuple[LayerState, ...]:
    """Return the states that the layers read from tables of their own."""
    states: tuple[LayerState, ...] = ()
    for read_state in STATE_READERS:
        states = with_part(states, read_state(db, wallet, wrapped_native, chain_now_s))
    return states


def read_states(
    db: Connection,
    wallet: str,
    wrapped_native: str,
    chain_now_s: int,
    budget_rows: Sequence[BudgetUseRow],
    last_success_s_by_kind: Mapping[str, int | None],
) -> tuple[LayerState, ...]:
    """Return the states of all layers that are on; `budget_rows` are the budget rows of the last 24
    h, `last_success_s_by_kind` the chain times of the newest success of each budget kind.
    """
    states = read_own_states(db, wallet, wrapped_native, chain_now_s)
    for read_state in BUDGET_READERS:
        states = with_part(states, read_state(db, budget_rows, last_success_s_by_kind))
    return states
