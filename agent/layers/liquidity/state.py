"""State of liquidity positions in a step's input."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.model import LayerCycle, LayerProgress, LayerState, StepEnd, StepInput

MAX_ACTIONS = 8
"""Maximum liquidity actions of a cycle, each with its own plan; the next cycle does the rest."""


@dataclass(frozen=True, slots=True)
class LiquidityState(LayerState):
    """The store's part of liquidity positions."""

    last_action_s: int | None = None
    """Chain time of the newest liquidity action."""
    undecided_positions: tuple[str, ...] = ()
    """Positions of the wallet that the owner has to adopt or forget."""


@dataclass(frozen=True, slots=True)
class LiquidityProgress(LayerProgress):
    """What this cycle has done with liquidity before this step, and what it found impossible."""

    has_moved: bool = False
    """True once this cycle has moved liquidity; share bands then no longer block the remaining
    actions.
    """
    failed_withdrawal_pools: tuple[str, ...] = ()
    """Pools whose withdrawal was refused or reverted in this cycle; their liquidity stays."""


@dataclass(frozen=True, slots=True)
class LiquidityCycle(LayerCycle):
    """What a cycle has done with liquidity, and has found impossible there."""

    action_count: int = 0
    """Actions sent."""
    has_sent_action: bool = False
    """True once an action was sent, successful or not."""
    previous_rebalance_s: int | None = None
    previous_action_s: int | None = None
    """Times of the last rebalance and action before this cycle. Cooldowns count from these, so that
    the cycle's own actions start none.
    """
    failed_withdrawal_pools: tuple[str, ...] = ()
    """Pools whose withdrawal was refused or failed."""
    failed_withdrawals: tuple[StepEnd, ...] = ()
    """Notes on the steps whose withdrawals were refused or failed."""

    def with_progress(self, step: StepInput) -> StepInput:
        """Return the step with the left pools, and without a cooldown after its own actions."""
        step = step.with_progress(
            LiquidityProgress(self.action_count > 0, self.failed_withdrawal_pools)
        )
        if not self.has_sent_action:
            return step
        reviews = replace(step.history.reviews, last_rebalance_s=self.previous_rebalance_s)
        step = replace(step, history=replace(step.history, reviews=reviews))
        return step.with_layer(
            replace(step.layer(LiquidityState), last_action_s=self.previous_action_s)
        )

    def notes(self) -> list[str]:
        """Return a note on the actions done."""
        if not self.action_count:
            return []
        return [
            "1 liquidity action done"
            if self.action_count == 1
            else f"{self.action_count} liquidity actions done"
        ]

    @property
    def failed_exits(self) -> tuple[StepEnd, ...]:
        """Refused and failed withdrawals."""
        return self.failed_withdrawals

    @property
    def may_act_again(self) -> bool:
        """True if more actions may follow those of this cycle."""
        return 0 < self.action_count < MAX_ACTIONS


def liquidity_progress(step: StepInput) -> LiquidityProgress:
    """Return what this cycle has done with liquidity before this step."""
    return step.progress.layer(LiquidityProgress)
