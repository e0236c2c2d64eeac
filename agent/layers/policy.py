"""Parts of the layers in a decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agent.layers.futures.guard_case import build_futures_case
from agent.layers.futures.policy import deciders as futures
from agent.layers.futures.policy.needs import futures_note, needs_prompt_look
from agent.layers.futures.policy.reviews import complete_review
from agent.layers.gradual import policy as gradual
from agent.layers.holding import policy as holding
from agent.layers.liquidity.guard_case import build_liquidity_case
from agent.layers.liquidity.policy import deciders as liquidity
from agent.layers.strategies.policy import decide as strategies
from agent.model import (
    AssetDrift,
    Halt,
    Hold,
    LayerDecision,
    LayerGuardAnswers,
    LayerResult,
    Plan,
    StepInput,
)
from agent.policy.decision import Decider, DecisionContext, DecisionResult
from agent.units import Price

ESCAPE_DECIDERS: tuple[Decider, ...] = (futures.escape_liquidation,)
"""Deciders before exits, also while prices or orders of some assets are at fault; only stops block
them.
"""
DECIDERS_WITHOUT_PRICES: tuple[Callable[[DecisionContext, Halt], DecisionResult | None], ...] = (
    futures.reduce_without_prices,
)
"""Deciders that need no prices of the spot portfolio, during the faults of this halt."""
REDUCTION_DECIDERS: tuple[Decider, ...] = (futures.reduce_positions,)
"""Deciders after exits, also while an asset without a price is excluded; only stops and faults
block them.
"""
CLOSING_DECIDERS: tuple[Decider, ...] = (futures.close_hedges,)
"""Deciders after the reductions; only stops and faults block them."""
FREEING_DECIDERS: tuple[Decider, ...] = (liquidity.withdraw_for_exits,)
"""Deciders that free what triggered exits sell, once the wallet has none of it."""
LIMIT_DECIDERS: tuple[Decider, ...] = (liquidity.withdraw_over_limit,)
"""Deciders of a layer above its limits, before money flows and also while an open withdrawal blocks
rebalances.
"""
DECIDERS_BEFORE_TRIGGERS: tuple[Decider, ...] = (
    gradual.continue_execution,
    strategies.rebalance_strategies,
)
"""Deciders after faults, exits and money flows, and before the triggers."""
PRE_SWAP_DECIDERS: tuple[
    Callable[[StepInput, Mapping[str, Price]], LayerDecision | Hold | None], ...
] = (liquidity.withdrawals_first,)
"""Decisions that precede the rebalance of a fired trigger, because its swaps spend what they free;
None if a layer frees nothing.
"""
NO_SWAP_DECIDERS: tuple[
    Callable[[StepInput, Mapping[str, Price], Hold], LayerDecision | Hold], ...
] = (liquidity.liquidity_or_hold,)
"""Decisions while no swap is due or worth its cost; else the hold, with what the layer leaves."""
HOLD_REPLACERS: tuple[Callable[[DecisionContext, DecisionResult], DecisionResult], ...] = (
    futures.open_positions,
)
"""Results in place of that of the spot portfolio, which replace only a hold."""
ACTS_BESIDE_SPOT: tuple[Callable[[StepInput], bool], ...] = (futures.acts_beside_spot,)
"""Layers that may act although the spot portfolio holds or its plan is refused."""
PROMPT_LOOK_CHECKS: tuple[Callable[[StepInput], bool], ...] = (needs_prompt_look,)
"""True if a run looks again in seconds: what a layer's limit requires is not done, or not known."""
REASON_NOTES: tuple[Callable[[StepInput, Sequence[AssetDrift]], str], ...] = (futures_note,)
"""Notes at the end of a decision's reason, from the step and its drifts; empty if there are none."""
RESULT_AMENDERS: tuple[Callable[[StepInput, DecisionResult], DecisionResult], ...] = (
    gradual.end_if_invalid,
    holding.explain_held_assets,
    complete_review,
)
"""Last words of the layers on every decision: a hold in its place (`without_trades`), or why an asset
is held, or which review is done.
"""
PURCHASE_PART_BUILDERS: tuple[Callable[[DecisionContext], LayerResult], ...] = (
    strategies.netting_for_purchase,
)
"""Parts of the layers in the decision on a purchase in parts."""
GUARD_ANSWER_BUILDERS: tuple[Callable[[StepInput, Plan], LayerGuardAnswers | None], ...] = (
    build_futures_case,
    build_liquidity_case,
)
"""What the guards ask a layer about a plan; None if the plan does not act in the layer."""


def decide_before_swaps(
    step: StepInput, prices: Mapping[str, Price]
) -> LayerDecision | Hold | None:
    """Return the decision that precedes the rebalance of a fired trigger; None if none does."""
    decisions = (decide(step, prices) for decide in PRE_SWAP_DECIDERS)
    return next((decision for decision in decisions if decision is not None), None)


def decide_without_swaps(
    step: StepInput, prices: Mapping[str, Price], hold: Hold
) -> LayerDecision | Hold:
    """Return a layer's decision in place of the hold of the spot portfolio, or the hold."""
    decision: LayerDecision | Hold = hold
    for decide in NO_SWAP_DECIDERS:
        if isinstance(decision, Hold):
            decision = decide(step, prices, decision)
    return decision


def build_guard_answers(step: StepInput, plan: Plan) -> LayerGuardAnswers:
    """Return the answers of the layer in which the plan acts."""
    cases = (case for build in GUARD_ANSWER_BUILDERS if (case := build(step, plan)) is not None)
    return next(cases, LayerGuardAnswers())


def acts_beside_spot(step: StepInput) -> bool:
    """True if a layer may act although the spot portfolio holds or its plan is refused."""
    return any(layer_acts(step) for layer_acts in ACTS_BESIDE_SPOT)
