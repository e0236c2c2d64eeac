"""The tracking rule of one strategy, which weighs its own part of the wallet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.strategies.state import CapitalSplit, Strategy
from agent.model import AssetDrift, Destination, NoTradeZone, StepInput, TradeSide
from agent.policy.drift import rebalance_goal
from agent.policy.one_sided import restrict_to_side
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.no_trade_zone import ZoneView
from agent.policy.triggers.tracking import edge_drifts


def complete_strategy_risks(step: StepInput) -> StepInput:
    """Return the step in which each strategy's rule has all volatilities and correlations."""
    split = step.config(CapitalSplit)
    if not any(isinstance(strategy.trigger, NoTradeZone) for strategy in split.strategies):
        return step
    strategies = tuple(_with_complete_risk(step, strategy) for strategy in split.strategies)
    return step.with_config(replace(split, strategies=strategies))


def _with_complete_risk(step: StepInput, strategy: Strategy) -> Strategy:
    policy = replace(step.policy, trigger=strategy.trigger)
    return replace(strategy, trigger=complete_risk(replace(step, policy=policy)).policy.trigger)


def shares_at_edges(
    zone: ZoneView, drifts: Sequence[AssetDrift], trade_side: TradeSide | None
) -> list[Fraction]:
    """Return the shares after each asset beyond its trigger is brought back to its edge, with
    `trade_side` each beyond its edge on that side. The numeraire pays and takes the rest; if it has
    too little, all purchases get the same part of what they need.
    """
    drifts_with_edges = edge_drifts(
        zone.risk, drifts, zone.numeraire, fired_only=trade_side is None
    )
    goal = restrict_to_side(
        drifts_with_edges,
        rebalance_goal(drifts_with_edges, Destination.BAND),
        trade_side,
        zone.numeraire,
    )
    changes = [
        Fraction(0)
        if drift.token == zone.numeraire
        else min(max(drift.share, weight.low), weight.high) - drift.share
        for drift, weight in zip(drifts, goal.weights, strict=True)
    ]
    purchases = sum((change for change in changes if change > 0), Fraction(0))
    sales = -sum((change for change in changes if change < 0), Fraction(0))
    numeraire_share = next(drift.share for drift in drifts if drift.token == zone.numeraire)
    if purchases > numeraire_share + sales:
        paid_part = (numeraire_share + sales) / purchases
        changes = [change * paid_part if change > 0 else change for change in changes]
    return [
        drift.share + (change if drift.token != zone.numeraire else -sum(changes, Fraction(0)))
        for drift, change in zip(drifts, changes, strict=True)
    ]
