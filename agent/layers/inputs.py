"""Input of a step from snapshot, config and the store's memory, core and layers together, built
identically live, on paper and in a backtest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from agent.layers.futures.policy.chosen_weights import apply_futures_targets, with_market_weights
from agent.layers.futures.policy.hedges import apply_hedges
from agent.layers.futures.policy.needs import hold_blocked_futures
from agent.layers.futures.policy.reviews import mark_due_review
from agent.layers.strategies.policy import inputs as strategies
from agent.layers.strategies.policy import netting
from agent.layers.strategies.policy.futures import target_market_shares
from agent.layers.strategies.policy.rule import complete_strategy_risks
from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.model import Goal, StepInput, StepMemory
from agent.policy import quarantine
from agent.policy.cash_flows import balance_changes, cash_limit, transfers
from agent.policy.orders.exits import apply_orders
from agent.policy.risk_estimates import complete_risk
from agent.policy.step_input import add_memory, apply_min_tip, reconcile_ledger
from agent.policy.target_changes import apply_allocation
from agent.units import Price

InputTransform = Callable[[StepInput], StepInput]
GOAL_BUILDERS: tuple[Callable[[StepInput, Mapping[str, Price]], Goal | None], ...] = (
    netting.combined_goal,
)
"""Goals of layers that divide the wallet; None while a layer does not."""
TARGET_ADJUSTMENTS: tuple[InputTransform, ...] = (
    apply_allocation,
    strategies.combine_targets,
    lambda step: with_market_weights(
        step,
        target_market_shares(step.config(CapitalSplit), step.layer(StrategiesState)),
        "the strategies",
    ),
    apply_futures_targets,
    apply_orders,
    complete_risk,
    complete_strategy_risks,
)
"""Target adjustments in order: allocator, layers, orders, and the risk of zones. Each reads
`step.history` and returns the step with its targets and the reason in `targets.reasons`.
"""


def apply_effective_targets(step: StepInput) -> StepInput:
    """Return the step with its effective targets. Applied before quarantine, so that quarantined
    tokens never get a target.
    """
    for adjust_targets in TARGET_ADJUSTMENTS:
        step = adjust_targets(step)
    return step


def input_transforms(memory: StepMemory) -> tuple[InputTransform, ...]:
    """Return the steps from a snapshot with its config and budgets to the complete input, in
    order.
    """
    return (
        apply_min_tip,
        hold_blocked_futures,
        partial(add_memory, memory=memory),
        partial(
            reconcile_ledger,
            expected_balances=memory.balances,
            ledger_balances=memory.ledger_balances,
        ),
        partial(balance_changes.apply_balance_changes, expected_balances=memory.balances),
        balance_changes.bound_limits,
        partial(
            cash_limit.reserve_unused_cash,
            cash_memory=memory.cash,
            expected_balances=memory.balances,
        ),
        transfers.reserve_withdrawals,
        # before the strategies, none of which owns an unexplained increase
        cash_limit.exclude_unexplained_increases,
        partial(strategies.add_books, memory),
        apply_effective_targets,
        # after targets, so that a quarantined token gets no weight
        quarantine.quarantine_unreadable_assets,
        partial(quarantine.quarantine_tokens, screened_tokens=memory.untradable_tokens),
        # after the quarantine, because a hedged value is a share of the assets that are not in quarantine
        apply_hedges,
        mark_due_review,
    )


def assemble_input(initial_step: StepInput, memory: StepMemory) -> StepInput:
    """Return the complete input of a step: `initial_step`, which has snapshot, config and budgets,
    after each of `input_transforms`.
    """
    step = initial_step
    for transform in input_transforms(memory):
        step = transform(step)
    return step


def divided_goal(step: StepInput, prices: Mapping[str, Price]) -> Goal | None:
    """Return the goal of the wallet's parts together; None if nothing divides the wallet. Raises
    Refused for unknown balances.
    """
    goals = (goal_of(step, prices) for goal_of in GOAL_BUILDERS)
    return next((goal for goal in goals if goal is not None), None)
