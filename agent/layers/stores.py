"""States of the layers, read from the store, and records that go with a removed transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from agent.layers.futures import store as futures
from agent.layers.gradual import store as gradual
from agent.layers.liquidity import store as liquidity
from agent.layers.strategies import store as strategies
from agent.model import IntentKind, LayerState, Receipt, with_part
from agent.ports import Grant
from agent.store.tables import BudgetUseRow, IntentRow


@dataclass(frozen=True, slots=True)
class LayerStore:
    """What the store reads and removes for a layer, and how it counts the layer's intents."""

    read_state: Callable[[Connection, str, str, int], LayerState] | None = None
    """Reader of the layer's state from tables of its own, for wallet, wrapped native coin and chain
    time.
    """
    read_budgets: (
        Callable[[Connection, Sequence[BudgetUseRow], Mapping[str, int | None]], LayerState] | None
    ) = None
    """Reader of the layer's state from the budget rows of the last 24 h, and from the chain time of
    the newest success of each budget kind.
    """
    intent_kind: IntentKind | None = None
    """Kind of the intents that `budget_kind` and `exit_name` are asked about; None: no kind."""
    budget_kind: Callable[[Grant], str] = lambda grant: ""
    """Budget kind of an intent."""
    exit_name: Callable[[Grant], str] = lambda grant: ""
    """Name that failures of an intent are counted under; empty: that of its plan."""
    budget_kinds: tuple[str, ...] = ()
    """Budget kinds that `budget_kind` returns."""
    has_account: bool = False
    """True if losses of these kinds are part of the result of an account outside the wallet."""
    uncounted_turnover_kinds: tuple[str, ...] = ()
    """Budget kinds whose turnover the limits of the portfolio ignore."""
    is_resting: Callable[[IntentRow], bool] = lambda row: False
    """True for an intent that waits at a venue, which is neither a trade nor a failure."""
    record_receipt: Callable[[Connection, IntentRow, str, Receipt | None], None] = (
        lambda db, row, wallet, receipt: None
    )
    """Record what the receipt of an intent says of the layer, with each transition of the intent;
    None: not in a block, or no more.
    """
    unbook: Callable[[Connection, str], None] = lambda db, intent_id: None
    """Removal of what the layer recorded of an intent, whose block a reorg removed."""


LAYERS: tuple[LayerStore, ...] = (
    LayerStore(read_state=gradual.read_state),
    LayerStore(unbook=strategies.unbook_intent),
    LayerStore(read_budgets=liquidity.read_state, record_receipt=liquidity.record_receipt),
    LayerStore(
        read_budgets=futures.read_state,
        intent_kind=IntentKind.FUTURES,
        budget_kind=futures.budget_kind,
        exit_name=futures.reduced_market,
        budget_kinds=futures.FUTURES_BUDGET_KINDS,
        has_account=True,
        uncounted_turnover_kinds=(futures.FUTURES_REDUCTION, futures.FUTURES_DEPOSIT),
        is_resting=futures.is_resting_row,
    ),
)
"""Each layer of which the store knows."""
BUDGET_KINDS = tuple(kind for layer in LAYERS for kind in layer.budget_kinds)
"""Budget kinds of the layers' intents."""
ACCOUNT_BUDGET_KINDS = tuple(
    kind for layer in LAYERS if layer.has_account for kind in layer.budget_kinds
)
"""Those of them whose losses count in the result of an account."""
UNCOUNTED_TURNOVER_KINDS = tuple(
    kind for layer in LAYERS for kind in layer.uncounted_turnover_kinds
)
"""Those of them whose turnover the limits of the portfolio ignore."""


def layer_of_kind(kind: IntentKind) -> LayerStore | None:
    """Return the layer that is asked about intents of this kind; None if none is."""
    return next((layer for layer in LAYERS if layer.intent_kind is kind), None)


def read_own_states(
    db: Connection, wallet: str, wrapped_native: str, chain_now_s: int
) -> tuple[LayerState, ...]:
    """Return the states that the layers read from tables of their own."""
    states: tuple[LayerState, ...] = ()
    for layer in LAYERS:
        if layer.read_state is not None:
            states = with_part(states, layer.read_state(db, wallet, wrapped_native, chain_now_s))
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
    for layer in LAYERS:
        if layer.read_budgets is not None:
            states = with_part(states, layer.read_budgets(db, budget_rows, last_success_s_by_kind))
    return states
