"""Composers of the transactions of the layers."""

from __future__ import annotations

from agent.layers.futures.composer import FuturesComposer
from agent.layers.liquidity.composer import LiquidityComposer
from agent.ports.perpetuals import PerpVenue
from agent.venues.drafts import LayerComposer


def layer_composers(perps: PerpVenue | None, wallet: str) -> tuple[LayerComposer, ...]:
    """Return the composers of all layers; `perps` is the futures venue."""
    return (FuturesComposer(perps), LiquidityComposer(wallet))
