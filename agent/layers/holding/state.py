"""Settings and state of the layer in a step's input: how long assets are held, and when they were
bought.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import LayerConfig, LayerState


@dataclass(frozen=True, slots=True)
class HoldingConfig(LayerConfig):
    """A rebalance sells none of `tokens` before `min_hold_s` seconds after the agent bought it."""

    tokens: tuple[str, ...] = ()
    min_hold_s: int = 0


@dataclass(frozen=True, slots=True)
class HoldingState(LayerState):
    """Chain time of the last purchase of each token of the settings that is held, by address."""

    bought_s_by_token: tuple[tuple[str, int], ...] = ()
