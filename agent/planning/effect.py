"""What a plan does for the drift that fired: a trade that leaves most of it is not made, or a drift
that no route corrects would fire, and cost, again and again.

The excess is the distance of weights beyond their bands, for a schedule from their targets, as far
as the goal would remove it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from agent.model import AssetDrift, Goal, Plan, Rebalance, StepInput
from agent.planning.cost_reasons import cheapest_route, format_route
from agent.planning.problem import build_problem
from agent.policy.triggers import bands
from agent.policy.triggers.exchange_costs import PricedMarket, exchange_costs, within_plan_cost
from agent.reference import ReferencePrices
from agent.units import BPS, format_percent, format_points

EFFECT_RULE = "effect"
"""Name of the rule in a hold."""
MAX_SHARE_LEFT = Fraction(1, 2)
NEAR_TARGET = Fraction(1, 1_000)
"""Deviation that counts as none, a tenth of a point: what the cost of the plan itself leaves."""


def little_effect_reason(
    step: StepInput,
    references: ReferencePrices,
    drifts: Sequence[AssetDrift],
    decision: Rebalance,
    plan: Plan,
) -> str:
    """Return why a triggered plan is not worth making: more than half of the excess that fired has
    no route whose fees limits.plan_cost allows. Empty for all other plans: exits, purchases,
    reductions of a weight above its limit, parts of a divided wallet, and plans that a limit of the
    owner or the depth of pools cuts, because the next ones go on.
    """
    if (
        not decision.by_trigger
        or decision.exempt_turnover
        or step.divides_wallet
        or bands.must_reduce_weight(step.policy, drifts)
    ):
        return ""
    share_after_by_token = {
        token: Fraction(weight_bps, BPS) for token, weight_bps in plan.weights_after_bps
    }
    excess = _excess_by_token(drifts, {drift.token: drift.share for drift in drifts})
    final_excess = _excess_by_token(drifts, _goal_shares(drifts, decision.goal))
    excess_after = _excess_by_token(drifts, share_after_by_token)
    costly_symbols = {item.subject for item in plan.skipped if item.is_too_costly}
    unroutable_tokens = _unroutable_tokens(step, references, drifts, share_after_by_token)
    left_by_drift = [
        (excess_after[drift.token] - final_excess[drift.token], drift)
        for drift in drifts
        if drift.symbol in costly_symbols and drift.token in unroutable_tokens
    ]
    removable = sum(excess.values(), Fraction(0)) - sum(final_excess.values(), Fraction(0))
    left = sum((max(rest, Fraction(0)) for rest, _ in left_by_drift), Fraction(0))
    if removable <= 0 or left <= removable * MAX_SHARE_LEFT:
        return ""
    _, worst_drift = max(left_by_drift, key=lambda rest_and_drift: rest_and_drift[0])
    removed = max(removable - left, Fraction(0)) / removable
    numeraire = step.portfolio.numeraire
    turnover_text = numeraire.money_text(plan.turnover)
    return (
        f"{worst_drift.symbol} would stay {format_points(excess_after[worst_drift.token])} beyond"
        f" {bands.format_band(worst_drift)}:"
        f" {_route_reason(step, references, worst_drift, share_after_by_token)}; the possible trade of"
        f" {turnover_text} removes {format_percent(removed)} of the drift: held. Wider bands or"
        " tracking as trigger cost less; limits.plan_cost decides which routes count"
    )


def _unroutable_tokens(
    step: StepInput,
    references: ReferencePrices,
    drifts: Sequence[AssetDrift],
    share_after_by_token: Mapping[str, Fraction],
) -> set[str]:
    """Return the tokens whose exchange with any token off target on the other side costs more than
    limits.plan_cost in fees alone.
    """
    tokens = [drift.token for drift in drifts]
    costs = within_plan_cost(
        exchange_costs(
            PricedMarket.of_step(step, references.price_by_token), tokens, fees_only=True
        ),
        step.limits,
    )
    deviations = [
        share_after_by_token[drift.token] - Fraction(drift.target_bps, BPS) for drift in drifts
    ]
    overweight = [index for index, deviation in enumerate(deviations) if deviation > NEAR_TARGET]
    underweight = [index for index, deviation in enumerate(deviations) if deviation < -NEAR_TARGET]
    routable_tokens = {
        tokens[index]
        for pair in costs
        if pair[0] in overweight and pair[1] in underweight
        for index in pair
    }
    return {*tokens} - routable_tokens


def _excess_by_token(
    drifts: Sequence[AssetDrift], share_by_token: Mapping[str, Fraction]
) -> dict[str, Fraction]:
    """Return the distance of each share from its band; zero for an asset that is inside now."""
    return {
        drift.token: max(
            drift.band_low_bps / BPS - share_by_token[drift.token],
            share_by_token[drift.token] - drift.band_high_bps / BPS,
            Fraction(0),
        )
        if drift.is_outside_band
        else Fraction(0)
        for drift in drifts
    }


def _goal_shares(drifts: Sequence[AssetDrift], goal: Goal) -> dict[str, Fraction]:
    return {
        drift.token: min(max(drift.share, weight.low), weight.high)
        for drift, weight in zip(drifts, goal.weights, strict=True)
    }


def _route_reason(
    step: StepInput,
    references: ReferencePrices,
    drift: AssetDrift,
    share_after_by_token: Mapping[str, Fraction],
) -> str:
    """Return the cheapest route of what stays, with its cost and the limit."""
    problem = build_problem(step, references)
    deviation_by_token = {
        asset.token.address: share_after_by_token[asset.token.address]
        - Fraction(asset.target_bps, BPS)
        for asset in step.effective_assets
    }
    deviation = deviation_by_token[drift.token]
    counterparts = [
        token
        for token, other_deviation in deviation_by_token.items()
        if other_deviation * deviation < 0 and abs(other_deviation) > NEAR_TARGET
    ]
    route = cheapest_route(
        problem, drift.token, abs(deviation) * problem.total, deviation > 0, counterparts
    )
    if route is None:
        return "no route corrects it"
    return f"no route within limits.plan_cost corrects it ({format_route(problem, route)})"
