"""States of the layers, read from the store, and records that go with a removed transaction."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from agent.layers.gradual import store as gradual
from agent.layers.strategies import store as strategies
from agent.model import LayerState, with_part

READERS: tuple[Callable[[Connection, str, str, int], LayerState], ...] = (gradual.read_state,)
"""Readers of a layer's state from wallet, wrapped native coin and chain time."""
UNBOOKINGS: tuple[Callable[[Connection, str], None], ...] = (strategies.unbook_intent,)
"""Removals of what a layer recorded of an intent, whose block a reorg removed."""


def read_states(db: Connection, wallet: str, coin: str, chain_now_s: int) -> tuple[LayerState, ...]:
    """Return the states of all layers that are on."""
    states: tuple[LayerState, ...] = ()
    for read in READERS:
        states = with_part(states, read(db, wallet, coin, chain_now_s))
    return states
