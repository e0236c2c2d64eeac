"""What a running step has done with liquidity, and what it leaves out after a refusal: a pool whose
withdrawal was refused or failed, while other pools are still withdrawn from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.errors import Refused
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_run import LayerRun, StepRun
from agent.layers.liquidity.state import LiquidityProgress, LiquidityState
from agent.model import History, Plan, StepInput
from agent.policy import failures

MAX_ACTIONS = 8
"""Maximum liquidity actions of a step, each with its own plan; the next step does the rest."""


@dataclass(slots=True)
class LiquidityRun(LayerRun):
    """What a running step has done with liquidity, and has found impossible there."""

    actions: int = 0
    """Actions sent."""
    history_before: History | None = None
    """History before the first action; the actions of this step start no cooldown."""
    left_pools: tuple[str, ...] = ()
    """Pools whose withdrawal was refused or failed."""
    unwithdrawn: list[StepOutcome] = field(default_factory=list)
    """Outcomes of these."""

    def with_progress(self, step: StepInput) -> StepInput:
        """Return the step with the left pools, and without a cooldown after its own actions."""
        before = self.history_before
        step = step.with_progress(LiquidityProgress(before is not None, self.left_pools))
        if before is None:
            return step
        last_s = before.reviews.last_rebalance_s
        reviews = replace(step.history.reviews, last_rebalance_s=last_s)
        step = replace(step, history=replace(step.history, reviews=reviews))
        earlier = before.layer(LiquidityState)
        return step.with_layer(
            replace(step.layer(LiquidityState), last_action_s=earlier.last_action_s)
        )

    def notes(self) -> list[str]:
        """Return a note on the actions done."""
        if not self.actions:
            return []
        return [
            "1 liquidity action done"
            if self.actions == 1
            else f"{self.actions} liquidity actions done"
        ]

    @property
    def failed_exits(self) -> list[StepOutcome]:
        """Outcomes of refused and failed withdrawals."""
        return self.unwithdrawn

    @property
    def follows_swaps(self) -> bool:
        """True if more actions may follow those of this step."""
        return 0 < self.actions < MAX_ACTIONS


def pool_to_leave(run: StepRun, plan: Plan | None) -> str:
    """Return the pool of a plan that only withdraws liquidity; empty for other plans and after a
    swap.
    """
    if plan is None or not plan.actions or run.swapped is not None:
        return ""
    pool = failures.exit_name(plan)
    return "" if pool in run.layer(LiquidityRun).left_pools else pool


def leave_pool(run: StepRun, pool: str, outcome: StepOutcome) -> None:
    """Begin the next plan after a failed withdrawal. The rest of the step skips the pool."""
    own = run.layer(LiquidityRun)
    own.left_pools += (pool,)
    own.unwithdrawn.append(outcome)
    run.leave_exit()


def skip_refused_withdrawal(run: StepRun, outcome: StepOutcome, refusal: Refused) -> bool:
    """For the rest of the step, skip a pool whose withdrawal was refused by simulation or signer,
    or for its gas. Return False for any other refusal.
    """
    own = evaluation.concerns_trade(refusal) or evaluation.gas_refusal(refusal)
    if not own or not (pool := pool_to_leave(run, outcome.plan)):
        return False
    refused = replace(
        outcome,
        kind=OutcomeKind.REFUSED,
        reason=str(refusal),
        transactions=tuple(run.sent),
        verdicts=refusal.verdicts,
    )
    leave_pool(run, pool, run.close(refused))
    return True
