"""Portfolios and triggers as the simulation of losses takes them, and the triggers that are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from agent.backtest.loss.simulation import FloatMatrix, LossMarket, LossPolicy
from agent.backtest.loss.taxes import GAIN_STEPS, LossTax, TaxedPolicy
from agent.floats import FloatArray
from agent.model import (
    STRICTNESS_COST_BPS,
    Destination,
    Every,
    HybridTrigger,
    NoTradeZone,
    StagedTrigger,
    Threshold,
    TrackingRisk,
    Trigger,
)
from agent.policy.drift import band
from agent.policy.risk import aversion
from agent.policy.triggers.no_trade_zone import DEFAULT_STRICTNESS, build_tracking
from agent.policy.triggers.tracking_rule import (
    CORRELATION_SHARE,
    PairRule,
    TradingCost,
    pair_rules,
    raised_correlation_bps,
    token_rules,
)
from agent.units import BPS, DAY_S, YEAR_S, format_bps, format_duration
from agent.weights.asset_classes import class_correlation_bps, class_volatility_bps

UNLIMITED_COST = 1e9
"""Limit on the cost of a plan, share of its turnover, if there is none."""


@dataclass(frozen=True, slots=True)
class ComparedPolicy:
    """A trigger, where it trades to, and the least time between two trades."""

    trigger: Trigger
    destination: Destination
    cooldown_s: int = 3_600

    @property
    def name(self) -> str:
        """The trigger and destination in words."""
        match self.trigger:
            case NoTradeZone(risk) if risk.horizon_s is None:
                return "tracking after tax" if risk.after_tax else "tracking"
            case NoTradeZone(TrackingRisk(_, int(horizon_s))):
                return f"zone {format_duration(horizon_s)}"
            case Every(every_s):
                return f"every {format_duration(every_s)}"
            case HybridTrigger(threshold, Every(every_s)):
                return f"{self._band_name(threshold)} every {format_duration(every_s)}"
            case Threshold() as threshold:
                return self._band_name(threshold)
            case _:
                return "this trigger"

    def _band_name(self, threshold: Threshold) -> str:
        widths = [
            f"{kind} {format_bps(width_bps)}"
            for kind, width_bps in (
                ("absolute", threshold.absolute_bps),
                ("relative", threshold.relative_bps),
            )
            if width_bps is not None
        ]
        destinations = {Destination.HALFWAY: " to halfway", Destination.BAND: " to the band"}
        return " and ".join(widths) + destinations.get(self.destination, "")


CHOICES = (
    ComparedPolicy(build_tracking(DEFAULT_STRICTNESS), Destination.ZONE),
    ComparedPolicy(Threshold(None, 1_000), Destination.TARGET),
    ComparedPolicy(Threshold(None, 2_000), Destination.HALFWAY),
    ComparedPolicy(Threshold(500, None), Destination.TARGET),
    ComparedPolicy(Every(28 * DAY_S), Destination.TARGET),
)
"""Triggers that are compared."""
RULE = CHOICES[0]
RULE_AFTER_TAX = ComparedPolicy(
    build_tracking(DEFAULT_STRICTNESS, after_tax=True), Destination.ZONE
)
COMPARED_CHOICE = CHOICES[1]
"""What is compared with the rule."""
COMPARED_CHOICES = CHOICES[:2]


@dataclass(frozen=True, slots=True)
class LossAsset:
    """An asset: symbol, token address, target, own band, cost of a unit traded against the
    numeraire, and depth of its pools: a swap of x coins costs x² over it in impact.
    """

    symbol: str
    token: str
    target_bps: int
    own_band: Threshold | None
    unit_cost: float
    depth: Fraction


@dataclass(frozen=True, slots=True)
class LossPair:
    """Two assets, by their indices, with a pool of their own: cost of a unit exchanged and depth, as
    those of an asset.
    """

    first: int
    second: int
    unit_cost: float
    depth: Fraction


@dataclass(frozen=True, slots=True)
class LossPortfolio:
    """Assets beside the numeraire, and amounts in coins of it: value, gas of a swap and smallest
    swap. `pairs` are those whose pool is cheaper than two swaps through the numeraire.
    """

    assets: tuple[LossAsset, ...]
    numeraire: LossAsset
    value: Fraction
    leg_gas: Fraction
    min_trade: Fraction
    plan_cost_bps: int | None
    pairs: tuple[LossPair, ...] = ()

    @property
    def leg_share(self) -> float:
        """Gas of a swap, share of the portfolio."""
        return float(self.leg_gas / self.value)


def loss_market(portfolio: LossPortfolio, trigger: Trigger) -> LossMarket:
    """Return the market of a portfolio. Volatilities and correlations are those configured or
    measured, else those of the tokens' classes; tracking error is worth what the trigger says, else
    what normal strictness does.
    """
    cost_bps = STRICTNESS_COST_BPS[DEFAULT_STRICTNESS]
    configured_volatilities: Mapping[str, int] = {}
    configured_correlations: Mapping[frozenset[str], int] = {}
    if isinstance(trigger, NoTradeZone):
        cost_bps = trigger.risk.cost_bps
        configured_volatilities = dict(trigger.risk.volatilities_bps)
        configured_correlations = {
            frozenset(pair): bps for *pair, bps in trigger.risk.correlations_bps
        }
    assets = portfolio.assets
    unit = portfolio.numeraire.symbol
    volatilities = [
        configured_volatilities.get(asset.token, class_volatility_bps(asset.symbol, unit)) / BPS
        for asset in assets
    ]

    def correlation(first: LossAsset, second: LossAsset) -> float:
        if first is second:
            return 1.0
        class_bps = class_correlation_bps(first.symbol, second.symbol, unit)
        return configured_correlations.get(frozenset((first.token, second.token)), class_bps) / BPS

    exchanges: tuple[LossAsset | LossPair, ...] = (*assets, *portfolio.pairs)
    return LossMarket(
        targets=tuple(asset.target_bps / BPS for asset in assets),
        covariance=tuple(
            tuple(
                volatilities[i] * volatilities[j] * correlation(first, second)
                for j, second in enumerate(assets)
            )
            for i, first in enumerate(assets)
        ),
        unit_costs=tuple(exchange.unit_cost for exchange in exchanges),
        leg_cost=portfolio.leg_share,
        impacts=tuple(float(portfolio.value / exchange.depth) for exchange in exchanges),
        min_trade=float(portfolio.min_trade / portfolio.value),
        max_plan_cost=UNLIMITED_COST
        if portfolio.plan_cost_bps is None
        else portfolio.plan_cost_bps / BPS,
        risk_aversion=float(2 * cost_bps),
        pairs=tuple((pair.first, pair.second) for pair in portfolio.pairs),
    )


def loss_policy(
    portfolio: LossPortfolio, market: LossMarket, choice: ComparedPolicy
) -> LossPolicy | None:
    """Return a trigger with its destination as the simulation takes it; None if it is not known."""
    cooldown_years = choice.cooldown_s / YEAR_S
    match choice.trigger:
        case NoTradeZone(risk) if risk.horizon_s is None:
            return _tracking_policy(market, cooldown_years)
        case NoTradeZone(risk):
            return _zone_policy(market, float(aversion(risk)), cooldown_years)
        case Threshold():
            return _band_policy(portfolio, choice, cooldown_years, has_schedule=False)
        case Every(every_s) | HybridTrigger(_, Every(every_s)) | StagedTrigger(_, Every(every_s)):
            return _band_policy(portfolio, choice, every_s / YEAR_S, has_schedule=True)
        case _:
            return None


def taxed_policy(
    portfolio: LossPortfolio, market: LossMarket, choice: ComparedPolicy, tax: LossTax
) -> TaxedPolicy | None:
    """Return a trigger as the simulation of taxes takes it; None if it is not known. Plans of a zone
    or of the rule weigh their whole tax, but those of the rule after tax, whose ranges count it.
    """
    policy = loss_policy(portfolio, market, choice)
    if policy is None:
        return None
    match choice.trigger:
        case NoTradeZone(risk) if risk.after_tax:
            steps = tuple(
                _tracking_policy(market, policy.interval_years, tax.rate * gain_step / GAIN_STEPS)
                for gain_step in range(GAIN_STEPS + 1)
            )
            return TaxedPolicy(policy, steps)
        case NoTradeZone():
            return TaxedPolicy(policy, weighs_tax=True)
        case _:
            return TaxedPolicy(policy)


def _tracking_policy(
    market: LossMarket, cooldown_years: float, sale_tax: float = 0.0
) -> LossPolicy:
    """Return the tracking rule: Qᵢⱼ = λ·Σᵢⱼ·min(Hᵢ, Hⱼ) with its reduced correlations, and those
    that the rules of pairs raise. `sale_tax` is the tax on a unit sold, share of its value, of a rule
    after tax.
    """
    count = len(market.targets)
    targets = [*market.targets, 1 - math.fsum(market.targets)]
    reduced = _reduced(market.covariance)
    covariance = [[*row, 0.0] for row in reduced] + [[0.0] * (count + 1)]
    costs = {
        index: TradingCost(unit_cost, market.leg_cost, market.min_trade, sale_tax)
        for index, unit_cost in enumerate(market.unit_costs[:count])
    }
    pair_costs = dict(zip(market.pairs, market.unit_costs[count:], strict=True))
    rules = token_rules(targets, covariance, count, costs, market.risk_aversion)
    pairs = pair_rules(targets, covariance, rules, costs, pair_costs, market.risk_aversion)
    horizons = np.array([rules[index].horizon_years or 1.0 for index in range(count)])
    risk = market.risk_aversion * np.array(reduced) * np.minimum.outer(horizons, horizons)
    risk_of_pairs = with_pairs(risk, pairs)
    if np.linalg.eigvalsh(risk_of_pairs)[0] > 0:
        risk = risk_of_pairs
    else:
        pairs = {}  # they contradict one another
    policy = _priced_policy(market, risk, cooldown_years)
    triggers = [rules[index].trigger for index in range(count)]
    triggers += [pairs[pair].trigger if pair in pairs else math.inf for pair in market.pairs]
    edges = (*(rules[index].edge for index in range(count)), *policy.edges[count:])
    return replace(policy, triggers=(*triggers, math.inf), edges=edges)


def with_pairs(risk: FloatArray, pairs: Mapping[tuple[int, int], PairRule]) -> FloatArray:
    """Return the risk in Q, a matrix of the tokens, with the correlations of pairs, by indices."""
    risk_of_pairs = risk.copy()
    for (i, j), rule in pairs.items():
        scale = math.sqrt(risk[i, i] * risk[j, j])
        correlation = raised_correlation_bps(rule, risk[i, j] / scale * BPS) / BPS
        risk_of_pairs[[i, j], [j, i]] = correlation * scale
    return risk_of_pairs


def _reduced(covariance: FloatMatrix) -> FloatMatrix:
    """Return a covariance with the correlations of the tracking rule."""
    return tuple(
        tuple(entry if i == j else entry * CORRELATION_SHARE for j, entry in enumerate(row))
        for i, row in enumerate(covariance)
    )


def _zone_policy(market: LossMarket, aversion_years: float, cooldown_years: float) -> LossPolicy:
    """Return a zone: the edge is where a unit saves its cost over the horizon, the trigger where a
    swap saves its gas too. `aversion_years` is λ times the horizon.
    """
    return _priced_policy(market, aversion_years * np.array(market.covariance), cooldown_years)


def _priced_policy(market: LossMarket, risk: FloatArray, cooldown_years: float) -> LossPolicy:
    """Return the policy whose edge is where a unit saves its cost in this risk, and whose trigger is
    where a swap saves its gas too.
    """
    curvatures = [
        *np.diagonal(risk).tolist(),
        *(float(risk[i, i] + risk[j, j] - 2 * risk[i, j]) for i, j in market.pairs),
    ]
    edges = [
        cost / curvature for cost, curvature in zip(market.unit_costs, curvatures, strict=True)
    ]
    gas_widths = [math.sqrt(2 * market.leg_cost / curvature) for curvature in curvatures]
    triggers = [edge + width for edge, width in zip(edges, gas_widths, strict=True)]
    return LossPolicy(
        (*triggers, math.inf),
        tuple(edges),
        interval_years=cooldown_years,
        risk=tuple(tuple(row) for row in risk.tolist()),
    )


def _band_policy(
    portfolio: LossPortfolio, choice: ComparedPolicy, interval_years: float, *, has_schedule: bool
) -> LossPolicy:
    """Return bands, or reviews after an interval at which they count."""
    widths = []
    for asset in (*portfolio.assets, portfolio.numeraire):
        low_bps, high_bps = band(choice.trigger, asset.target_bps, asset.own_band)
        widths.append(float(max(asset.target_bps - low_bps, high_bps - asset.target_bps)) / BPS)
    *widths, numeraire_width = widths
    if not portfolio.numeraire.target_bps:
        numeraire_width = math.inf  # what the swaps of the tokens leave of it is no drift
    keeps_band = choice.destination is Destination.BAND
    no_widths = (math.inf,) * len(portfolio.pairs)
    return LossPolicy(
        (*widths, *no_widths, numeraire_width),
        (*widths, *no_widths) if keeps_band else (0.0,) * (len(widths) + len(no_widths)),
        traded_share=0.5 if choice.destination is Destination.HALFWAY else 1.0,
        interval_years=interval_years,
        has_schedule=has_schedule,
    )
