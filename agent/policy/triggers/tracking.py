"""The tracking rule of a step: the widths of its tokens, and the risk that leads the planner there."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import (
    AssetDrift,
    PairWidth,
    TokenWidth,
    TrackingRisk,
)
from agent.policy import minimum
from agent.policy.risk import (
    COVARIANCE_UNIT,
    MIN_VOLATILITY_BPS,
    aversion,
    correlations_bps,
    covariance,
    first_contradicting_row,
)
from agent.policy.triggers.exchange_costs import ExchangeCosts, PricedMarket
from agent.policy.triggers.tracking_rule import (
    CORRELATION_SHARE,
    PairRule,
    TokenRule,
    TradingCost,
    pair_rules,
    raised_correlation_bps,
    token_rules,
)
from agent.units import BPS, PIPS, YEAR_S

LEAVING_HORIZON_YEARS = 1.0
"""Horizon of a token without a target, which is sold as a whole."""
NO_TAXES: Mapping[str, Fraction] = {}
NO_PAIRS: Mapping[tuple[int, int], float] = {}


def with_widths(
    market: PricedMarket,
    risk: TrackingRisk,
    drifts: Sequence[AssetDrift],
    costs: ExchangeCosts,
    sale_taxes: Mapping[str, Fraction],
    *,
    counts_pairs: bool,
) -> TrackingRisk:
    """Return the risk with the widths of the tokens that have a route, and with `counts_pairs` of
    cheap pairs. `costs` are those of any route, by the indices of the drifts; `sale_taxes` are the
    taxes that the widths count, on the next unit sold, per unit of value.
    """
    tokens = [drift.token for drift in drifts]
    token_costs = trading_costs(market, drifts, costs, sale_taxes)
    return risk_at_costs(
        risk,
        tokens,
        [drift.target_bps / BPS for drift in drifts],
        tokens.index(market.portfolio.numeraire.address),
        token_costs,
        _pair_costs(costs, token_costs) if counts_pairs else NO_PAIRS,
    )


def risk_at_costs(
    risk: TrackingRisk,
    tokens: Sequence[str],
    target_shares: Sequence[float],
    numeraire_index: int,
    costs: Mapping[int, TradingCost],
    pair_costs: Mapping[tuple[int, int], float] = NO_PAIRS,
) -> TrackingRisk:
    """Return the risk with the widths of the tokens in `costs`, by index, and with each volatility
    scaled to its token's horizon, over a year. `pair_costs` are those of exchanging two of these
    tokens, per unit of value.

    Qᵢⱼ = λ·Σᵢⱼ·min(Hᵢ, Hⱼ) is a volatility σᵢ·√Hᵢ and a correlation ρᵢⱼ·√(min/max). The numeraire
    and tokens without a route have the least horizon, so that Q is positive semidefinite (Schur).
    So have those of `risk` that are not among `tokens`, which a step leaves out. Rules of pairs raise
    correlations; they count if all of them together leave no mix of tokens without risk.
    """
    reduced = replace(
        risk,
        correlations_bps=tuple(
            (first_token, second_token, int(bps * CORRELATION_SHARE))
            for first_token, second_token, bps in risk.correlations_bps
        ),
    )
    sigma = [[entry / COVARIANCE_UNIT for entry in row] for row in covariance(reduced, tokens)]
    risk_aversion = float(aversion(risk))
    rules = token_rules(target_shares, sigma, numeraire_index, costs, risk_aversion)
    horizon_by_token = {
        tokens[index]: rule.horizon_years or LEAVING_HORIZON_YEARS for index, rule in rules.items()
    }
    least_horizon = min(horizon_by_token.values(), default=LEAVING_HORIZON_YEARS)
    horizon_by_token = defaultdict(lambda: least_horizon, horizon_by_token)
    over_horizons = replace(
        reduced,
        horizon_s=YEAR_S,
        volatilities_bps=tuple(
            (token, _scaled_volatility(bps, horizon_by_token[token]))
            for token, bps in risk.volatilities_bps
        ),
        correlations_bps=tuple(
            (
                first_token,
                second_token,
                int(bps * _common_share(first_token, second_token, horizon_by_token)),
            )
            for first_token, second_token, bps in reduced.correlations_bps
        ),
        widths=tuple(_token_width(tokens[index], rule) for index, rule in rules.items()),
    )
    pairs = pair_rules(target_shares, sigma, rules, costs, pair_costs, risk_aversion)
    return _with_pairs(over_horizons, tokens, pairs) if pairs else over_horizons


def _with_pairs(
    risk: TrackingRisk, tokens: Sequence[str], rules: Mapping[tuple[int, int], PairRule]
) -> TrackingRisk:
    """Return the risk with the correlations and widths of pairs, by indices; as it is if they would
    contradict one another.
    """
    rule_by_pair = {frozenset((tokens[i], tokens[j])): rule for (i, j), rule in rules.items()}
    correlations = []
    for first_token, second_token, bps in risk.correlations_bps:
        rule = rule_by_pair.get(frozenset((first_token, second_token)))
        pair_bps = int(raised_correlation_bps(rule, bps)) if rule else bps
        correlations.append((first_token, second_token, pair_bps))
    risk_of_pairs = replace(
        risk,
        correlations_bps=tuple(correlations),
        pair_widths=tuple(
            PairWidth(tokens[i], tokens[j], round(rule.edge * PIPS), round(rule.trigger * PIPS))
            for (i, j), rule in rules.items()
        ),
    )
    if first_contradicting_row(correlations_bps(risk_of_pairs, tokens)) is not None:
        return risk
    return risk_of_pairs


def edge_drifts(
    risk: TrackingRisk, drifts: Sequence[AssetDrift], numeraire: str, *, fired_only: bool
) -> tuple[AssetDrift, ...]:
    """Return the drifts with bands that end at the edges of the rule, for goals that no risk
    weighs. The numeraire takes what the others leave; a token without a route stays, with
    `fired_only` also one within its trigger.
    """
    edge_by_token = {width.token: Fraction(width.edge_ppm * BPS, PIPS) for width in risk.widths}
    drifts_with_edges = []
    for drift in drifts:
        low_bps = Fraction(0)
        high_bps = Fraction(BPS)
        if drift.token != numeraire and drift.token in edge_by_token:
            low_bps = drift.target_bps - edge_by_token[drift.token]
            high_bps = drift.target_bps + edge_by_token[drift.token]
            if fired_only and not drift.is_outside_band:
                low_bps = min(low_bps, drift.share * BPS)
                high_bps = max(high_bps, drift.share * BPS)
        drifts_with_edges.append(replace(drift, band_low_bps=low_bps, band_high_bps=high_bps))
    return tuple(drifts_with_edges)


def trading_costs(
    market: PricedMarket,
    drifts: Sequence[AssetDrift],
    costs: ExchangeCosts,
    sale_taxes: Mapping[str, Fraction] = NO_TAXES,
) -> dict[int, TradingCost]:
    """Return the cost of trading each token that has a route against the numeraire: the mean of
    both directions, or of the one that there is, and the tax on the next unit sold.
    """
    tokens = [drift.token for drift in drifts]
    numeraire_index = tokens.index(market.portfolio.numeraire.address)
    total_value = sum((drift.value for drift in drifts), Fraction(0))
    if not total_value:
        return {}
    leg_share = minimum.leg_gas_value(market.snapshot, market.native_price) / total_value
    min_share = (market.limits.min_trade or 0) / total_value
    leaving_share = float(max(min_share, leg_share * minimum.GAS_MULTIPLE))
    leg_cost = float(leg_share)
    min_trade = float(min_share)
    cost_by_index = {}
    for index in range(len(tokens)):
        pair_costs = [
            costs[pair]
            for pair in ((index, numeraire_index), (numeraire_index, index))
            if pair in costs
        ]
        if index == numeraire_index or not pair_costs:
            continue
        cost_by_index[index] = TradingCost(
            float(sum(pair_costs, Fraction(0)) / len(pair_costs)),
            leg_cost,
            min_trade if drifts[index].target_bps else leaving_share,
            float(sale_taxes.get(tokens[index], 0)),
        )
    return cost_by_index


def _pair_costs(
    costs: ExchangeCosts, token_costs: Mapping[int, TradingCost]
) -> dict[tuple[int, int], float]:
    """Return the cost per unit of value of exchanging two tokens, the mean of both directions, by
    indices, the smaller first.
    """
    return {
        (first, second): (float(cost) + float(costs[second, first])) / 2
        for (first, second), cost in costs.items()
        if first < second and {first, second} <= token_costs.keys() and (second, first) in costs
    }


def _scaled_volatility(volatility_bps: int, horizon_years: float) -> int:
    return max(round(volatility_bps * math.sqrt(horizon_years)), MIN_VOLATILITY_BPS)


def _common_share(
    first_token: str, second_token: str, horizon_by_token: Mapping[str, float]
) -> float:
    """Return the factor by which two tokens' joint risk counts over the shorter horizon only."""
    first_horizon = horizon_by_token[first_token]
    second_horizon = horizon_by_token[second_token]
    return math.sqrt(min(first_horizon, second_horizon) / max(first_horizon, second_horizon))


def _token_width(token: str, rule: TokenRule) -> TokenWidth:
    return TokenWidth(token, round(rule.edge * PIPS), round(rule.trigger * PIPS))
