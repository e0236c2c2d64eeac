"""Exact checks of a draft of the search: what it moves past a goal, to the wrong side or above a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from agent.model import Goal, Leg
from agent.planning.problem import Problem
from agent.planning.rounding import PlanDraft
from agent.planning.solver.utility import PlanObjective
from agent.units import BPS, Value

GOAL_TOLERANCE = Fraction(1, 100_000)
"""Tolerance for the float error of a goal, as a fraction of the portfolio (a tenth of a basis
point).
"""
TURNOVER_PER_DRIFT = Fraction(105, 100)
"""Turnover allowed per unit of corrected drift and of gain."""


def overshoot_reason(problem: Problem, objective: PlanObjective, draft: PlanDraft) -> str:
    """Return how a draft goes beyond correcting the drift, in exact numbers; empty if it does not.

    A draft goes beyond if it sells a token below its goal's low share of the final total, or buys
    one above its high share (a token that was beyond its goal may stay there), or if it gains and
    turns over more than drift plus gain. Always empty in a zone, because correlated tokens may
    cross their targets and offset each other.
    """
    if objective.risk is not None:
        return ""
    values_before = [node.value for node in problem.nodes]
    values_after = [
        node.value + draft.delta_raw.get(node.address, 0) * node.price for node in problem.nodes
    ]
    total = sum(values_after, Fraction(0))
    tolerance = total * GOAL_TOLERANCE + sum(
        (problem.price(leg.token_in) + problem.price(leg.token_out) for leg in draft.legs),
        Fraction(0),
    )
    low_shares = [Fraction(share) for share in objective.low_shares.tolist()]
    high_shares = [Fraction(share) for share in objective.high_shares.tolist()]
    labels_past_goal = [
        node.label
        for node, value_before, value_after, low_share, high_share in zip(
            problem.nodes, values_before, values_after, low_shares, high_shares, strict=True
        )
        if node.is_asset
        and not min(value_before, low_share * total) - tolerance
        <= value_after
        <= max(value_before, high_share * total) + tolerance
    ]
    if labels_past_goal:
        return f"move {' and '.join(labels_past_goal)} past its goal"
    gain = total - sum(values_before, Fraction(0))
    corrected_drift = _value_to_move(values_before, low_shares, high_shares) - _value_to_move(
        values_after, low_shares, high_shares
    )
    if (
        gain > 0
        and draft.turnover(problem) > TURNOVER_PER_DRIFT * (corrected_drift + gain) + tolerance
    ):
        return "turn over more than the drift"
    return ""


def _value_to_move(
    token_values: Sequence[Value], low_shares: Sequence[Fraction], high_shares: Sequence[Fraction]
) -> Value:
    """Return the value to move: what lies above the goals, or below them if that is more."""
    total = sum(token_values, Fraction(0))
    total_above = sum(
        (
            max(Fraction(0), token_value - high_share * total)
            for token_value, high_share in zip(token_values, high_shares, strict=True)
        ),
        Fraction(0),
    )
    total_below = sum(
        (
            max(Fraction(0), low_share * total - token_value)
            for token_value, low_share in zip(token_values, low_shares, strict=True)
        ),
        Fraction(0),
    )
    return max(total_above, total_below)


def best_paying_pool(problem: Problem, draft: PlanDraft, overshoot: str) -> tuple[str, str]:
    """Return the pool of the leg that pays most at reference prices, and the reason to exclude it.
    `overshoot` is what the plan would do with that pool, such as "move WETH past its goal".
    """

    def value_rate(leg: Leg) -> Fraction:
        return (
            leg.amount_out_raw
            * problem.price(leg.token_out)
            / (leg.amount_in_raw * problem.price(leg.token_in))
        )

    best_leg = max(draft.legs, key=value_rate)
    if value_rate(best_leg) > 1:
        cause = "pays above the reference price"
    else:
        cause = "exchanges too few base units to hit a goal"
    return best_leg.pool, f"{cause}: with it the plan would {overshoot}"


NOT_TRADABLE_REASON = "policy.only leaves it as it is"


def untradable_tokens(problem: Problem, goal: Goal) -> dict[int, str]:
    """Return tokens that are neither sold nor bought, by index, with the reason."""
    untraded_addresses = set(goal.never_sold) & set(goal.never_bought)
    return {
        index: NOT_TRADABLE_REASON
        for index, node in enumerate(problem.nodes)
        if node.address in untraded_addresses
    }


def wrong_side_tokens(problem: Problem, goal: Goal, draft: PlanDraft) -> dict[int, str]:
    """Return the tokens, by index, that a draft trades against the goal's `never_sold` or
    `never_bought`; they must not move.

    The search may violate these bounds slightly, through float error or pool gains that it did
    not count; this check is exact.
    """
    wrong_side_addresses = {token for token in goal.never_sold if draft.delta_raw.get(token, 0) < 0}
    wrong_side_addresses |= {
        token for token in goal.never_bought if draft.delta_raw.get(token, 0) > 0
    }
    return {
        index: NOT_TRADABLE_REASON
        for index, node in enumerate(problem.nodes)
        if node.address in wrong_side_addresses
    }


MAX_WEIGHT_REASON = "limits.max_weight allows no more of it"


def excess_purchases(
    problem: Problem, objective: PlanObjective, draft: PlanDraft
) -> dict[int, Value]:
    """Return the value above limits.max_weight of each token that a draft buys beyond it, by index;
    only of tokens whose purchases `objective` bounds.

    The guard rounds down to whole basis points, but any share above the limit would be sold next.
    """
    value_by_index = {
        index: node.value + draft.delta_raw.get(node.address, 0) * node.price
        for index, node in enumerate(problem.nodes)
        if node.is_asset
    }
    total = sum(value_by_index.values(), Fraction(0))
    return {
        index: excess
        for index, value in value_by_index.items()
        if (max_bps := problem.nodes[index].max_bps) is not None
        and objective.max_values[index] < math.inf
        and value > problem.nodes[index].value
        and (excess := value - total * Fraction(max_bps, BPS)) > 0
    }
