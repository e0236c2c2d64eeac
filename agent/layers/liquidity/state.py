"""State of liquidity positions in a step's input."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import LayerProgress, LayerState, StepInput


@dataclass(frozen=True, slots=True)
class LiquidityState(LayerState):
    """The store's part of liquidity positions."""

    last_action_s: int | None = None
    """Chain time of the newest liquidity action."""
    undecided: tuple[str, ...] = ()
    """Positions of the wallet that the owner has to adopt or forget."""


@dataclass(frozen=True, slots=True)
class LiquidityProgress(LayerProgress):
    """What this step has done with liquidity, and has found impossible, so far."""

    acted: bool = False
    """True once this step has moved liquidity; share bands then no longer block the remaining
    actions.
    """
    left_pools: tuple[str, ...] = ()
    """Pools whose withdrawal was refused or reverted in this step; their liquidity stays."""


def liquidity_progress(step: StepInput) -> LiquidityProgress:
    """Return what this step has done with liquidity."""
    return step.progress.layer(LiquidityProgress)
