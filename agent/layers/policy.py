"""The policy in one place: who decides, in order, core and layers together, and what changes every
decision afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from agent.layers.futures.guard_case import build_futures_case
from agent.layers.futures.policy import deciders as futures
from agent.layers.futures.policy import needs as futures_needs
from agent.layers.futures.policy.reviews import complete_review
from agent.layers.gradual import policy as gradual
from agent.layers.holding import policy as holding
from agent.layers.liquidity.guard_case import build_liquidity_case
from agent.layers.liquidity.policy import deciders as liquidity
from agent.layers.strategies.policy import decide as strategies
from agent.model import Hold, LayerDecision, LayerGuardAnswers, Plan, StepInput
from agent.policy.deciders import exits, faults, money_flows, notes, trigger
from agent.policy.decision import Decider, DecisionResult
from agent.units import Price

NO_SWAP_DECIDERS: tuple[
    Callable[[StepInput, Mapping[str, Price], Hold], LayerDecision | Hold], ...
] = (liquidity.liquidity_or_hold,)
"""Decisions while no swap is due or worth its cost; else the hold, with what the layer leaves."""


def decide_without_swaps(
    step: StepInput, prices: Mapping[str, Price], hold: Hold
) -> LayerDecision | Hold:
    """Return a layer's decision in place of the hold of the spot portfolio, or the hold."""
    decision: LayerDecision | Hold = hold
    for decide in NO_SWAP_DECIDERS:
        if isinstance(decision, Hold):
            decision = decide(step, prices, decision)
    return decision


EXIT_DECIDERS: tuple[Decider, ...] = (exits.sell_triggered_exits, liquidity.withdraw_for_exits)
"""Sales of triggered exits; what the wallet has none of is freed first."""
DECIDERS: tuple[Decider, ...] = (
    partial(
        faults.halt_on_faults,
        spared_deciders=(futures.escape_liquidation, *EXIT_DECIDERS),
        deciders_without_prices=(futures.reduce_without_prices,),
    ),
    futures.escape_liquidation,
    partial(faults.sell_only_exits, spared_deciders=(*EXIT_DECIDERS, futures.reduce_positions)),
    *EXIT_DECIDERS,
    futures.reduce_positions,
    futures.close_hedges,
    faults.halt_when_stopped,
    faults.stop_below_minimum,
    liquidity.withdraw_over_limit,
    money_flows.wait_for_money_flows,
    partial(money_flows.continue_purchase, layer_part=strategies.netting_for_purchase),
    gradual.continue_execution,
    strategies.rebalance_strategies,
    partial(
        trigger.rebalance_on_trigger,
        decide_before_swaps=liquidity.withdrawals_first,
        decide_without_swaps=decide_without_swaps,
    ),
)
"""The first result is the decision; the last decider always has one. Only stops block an escape
from liquidation; only stops and faults block an exit, a reduction and the end of a hedge.
"""
RESULT_AMENDERS: tuple[Callable[[StepInput, DecisionResult], DecisionResult], ...] = (
    exits.hold_beside_exit,
    futures.open_positions,
    gradual.end_if_invalid,
    holding.explain_held_assets,
    complete_review,
    notes.add_notes,
    futures_needs.add_notes,
)
"""Changes of every decision, in order: another in place of a rebalance or a hold, what is done or
over, and notes at the end of its reason. An amender that holds a rebalance back stands after
`exits.hold_beside_exit` and before `complete_review`, and says by `is_exit`, `by_hand` and `by_trigger` which
it leaves alone.
"""
GUARD_ANSWER_BUILDERS: tuple[Callable[[StepInput, Plan], LayerGuardAnswers | None], ...] = (
    build_futures_case,
    build_liquidity_case,
)
"""What the guards ask a layer about a plan; None if the plan does not act in the layer."""


def build_guard_answers(step: StepInput, plan: Plan) -> LayerGuardAnswers:
    """Return the answers of the layer in which the plan acts."""
    cases = (case for build in GUARD_ANSWER_BUILDERS if (case := build(step, plan)) is not None)
    return next(cases, LayerGuardAnswers())
