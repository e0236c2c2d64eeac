"""The tracking rule: where long-run trading costs and tracking error together are least.

A token's deviation x from its target diffuses with an annual variance η². Holding it costs ½·λ·s·x²
a year, with s the annual variance of the token against the numeraire; trading costs c a unit and F
a trade, shares of the portfolio. Between trades the relative value obeys ½·η²·V″ + ½·λ·s·x² = ρ, so
that V′ = (k/3)·((a² + ab + b²)·x − x³) with k = λ·s/η². It is optimal to go from ±b back to ±a with
V′(a) = V′(b) = c and V(b) − V(a) = c·(b − a) + F. With m = (a + b)/2 and h = (b − a)/2 these are

    m·(m² − h²) = 3c/2k,   m·h³ = 3F/4k,   loss ρ = λ·s·(a² + ab + b²)/6.

F = 0 gives a = b = ∛(3c/2k) (Martin, Optimal trading under proportional transaction costs, 2012),
c = 0 gives a = 0 and b⁴ = 12·F/k. Derived here; scripts/bench/bench_tracking.py compares it with the
numerical optimum.

The planner weighs risk against cost over a horizon. With H = c/(λ·s·a) years the last unit that pays
is the one at ±a, so each token gets that horizon: Qᵢⱼ = λ·Σᵢⱼ·min(Hᵢ, Hⱼ), positive semidefinite by
Schur's product theorem. In between tokens, the rule of one dimension hedges too much; correlations
count for three quarters.

The last unit of an exchange pays where its risk in Q is c/a. Two tokens with a pool that is much
cheaper than two swaps through the numeraire are exchanged for each other by a rule of their own,
with cᵢⱼ, aᵢⱼ and bᵢⱼ as if one were the numeraire. Q leads to aᵢⱼ if their correlation there is
(cᵢ/aᵢ + cⱼ/aⱼ − cᵢⱼ/aᵢⱼ) / 2·√(cᵢ·cⱼ/aᵢ·aⱼ). Where the pool is not much cheaper, one horizon a token
serves both.

A tax t on a unit sold, and none on one bought, leaves both edges alike: with different costs on the
two sides V′ gains a constant, and only their mean counts, V′(a) − V′(−a) = 2c + t. So the range is
that of the cost c + t/2. The planner counts c only; the horizon stays c/(λ·s·a), so that the last
unit that pays is again the one at ±a.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import mul

from agent import floats
from agent.policy.risk import MAX_CORRELATION_BPS
from agent.units import BPS

MIN_COST = 1e-4
"""Least cost of an exchange, share of its value."""
MIN_TARGET = 0.01
"""Least target from which the spread of a deviation is reckoned."""
CORRELATION_SHARE = 0.75
MAX_NEWTON_STEPS = 100
DEAREST_PAIR = 0.45
"""Cost of a pool of two tokens, share of that of two swaps through the numeraire, below which they
have a rule of their own. Pools of equal fees are beyond it.
"""


@dataclass(frozen=True, slots=True)
class TradingCost:
    """Cost of trading a token against the numeraire: `unit_cost` per unit of value, and `leg_cost`
    of a swap whatever its size, share of the portfolio. `min_trade` is the smallest swap, share of
    the portfolio. `sale_tax` is the tax on a unit sold, share of its value; a purchase owes none.
    """

    unit_cost: float
    leg_cost: float
    min_trade: float
    sale_tax: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenRule:
    """Deviations from the target, in shares of the portfolio: from beyond `trigger` a token is
    brought back to `edge`. `horizon_years` is the horizon at which the last unit pays there; None
    for a token without a target, of which no unit stays.
    """

    edge: float
    trigger: float
    horizon_years: float | None


def edge_and_trigger(cost_term: float, gas_term: float) -> tuple[float, float]:
    """Return m − h and m + h with m·(m² − h²) = `cost_term` and m·h³ = `gas_term`, not both zero.

    With t = h/m the two give t² + κ·t^(9/4) = 1, κ = cost / gas^(3/4). The left side is convex, so
    that Newton's steps from 1 approach t from above and end where rounding stops them. Products and
    square roots are the same on every machine.
    """
    if gas_term <= 0:
        distance = floats.power(cost_term, 1 / 3)
        return distance, distance
    gas_root = math.sqrt(gas_term)
    weight = cost_term / (gas_root * math.sqrt(gas_root))
    ratio = 1.0
    for _ in range(MAX_NEWTON_STEPS):
        weighted = weight * ratio * math.sqrt(math.sqrt(ratio))
        excess = ratio * (ratio + weighted) - 1
        next_ratio = ratio - excess / (2 * ratio + 2.25 * weighted)
        if next_ratio >= ratio:
            break
        ratio = next_ratio
    middle = math.sqrt(math.sqrt(gas_term / (ratio * ratio * ratio)))
    return middle * (1 - ratio), middle * (1 + ratio)


def token_rules(
    targets: Sequence[float],
    covariance: Sequence[Sequence[float]],
    numeraire: int,
    costs: Mapping[int, TradingCost],
    risk_aversion: float,
) -> dict[int, TokenRule]:
    """Return the rule of each token in `costs`, by index. `covariance` is annual, in units of the
    numeraire, which has the index `numeraire`. A token that does not move against the numeraire at
    all has none.
    """
    shares = [max(target, MIN_TARGET) for target in targets]
    share_sum = math.fsum(shares)
    shares = [share / share_sum for share in shares]
    rules = {}
    for index, cost in costs.items():
        slope = [row[index] - row[numeraire] for row in covariance]
        variance = slope[index] - slope[numeraire]
        spread = _spread_variance(shares, covariance, slope)
        if variance <= 0 or spread <= 0:
            continue
        tension = risk_aversion * variance * (variance * variance / spread)
        unit_cost = max(cost.unit_cost, MIN_COST)
        mean_cost = unit_cost + cost.sale_tax / 2
        edge, trigger = edge_and_trigger(1.5 * mean_cost / tension, 0.75 * cost.leg_cost / tension)
        edge, trigger = _within_target(edge, trigger, targets[index])
        if cost.sale_tax:
            trigger = max(trigger, edge + _paying_distance(edge, cost.leg_cost, unit_cost))
        trigger = max(trigger, edge + cost.min_trade)
        rules[index] = TokenRule(
            edge,
            trigger,
            unit_cost / (risk_aversion * variance * edge) if edge else None,
        )
    return rules


@dataclass(frozen=True, slots=True)
class PairRule:
    """The rule of the exchange of two tokens: deviations as in TokenRule, and the `correlation` in Q
    that leads to its edge.
    """

    edge: float
    trigger: float
    correlation: float


def pair_rules(
    targets: Sequence[float],
    covariance: Sequence[Sequence[float]],
    rules: Mapping[int, TokenRule],
    costs: Mapping[int, TradingCost],
    pair_costs: Mapping[tuple[int, int], float],
    risk_aversion: float,
) -> dict[tuple[int, int], PairRule]:
    """Return the rules of pairs whose own exchange is much cheaper than two swaps through the
    numeraire, by indices; `rules` are those of the tokens, other arguments as for `token_rules`.
    `pair_costs` are per unit of value. An exchange of two tokens sells one of them either way, so
    that it owes the taxes of both by half.
    """
    pairs = {}
    for pair, pair_cost in pair_costs.items():
        unit_cost = max(pair_cost, MIN_COST)
        through_numeraire = math.fsum(max(costs[token].unit_cost, MIN_COST) for token in pair)
        if unit_cost >= DEAREST_PAIR * through_numeraire:
            continue
        smaller, larger = sorted(pair, key=targets.__getitem__)
        sale_tax = costs[smaller].sale_tax + costs[larger].sale_tax
        cost = replace(costs[smaller], unit_cost=unit_cost, sale_tax=sale_tax)
        rule = token_rules(targets, covariance, larger, {smaller: cost}, risk_aversion).get(smaller)
        smaller_risk = _edge_risk(costs[smaller], rules.get(smaller))
        larger_risk = _edge_risk(costs[larger], rules.get(larger))
        pair_risk = _edge_risk(cost, rule)
        if rule and pair_risk and smaller_risk and larger_risk:
            joint_risk = (smaller_risk + larger_risk - pair_risk) / 2
            correlation = joint_risk / math.sqrt(smaller_risk * larger_risk)
            pairs[pair] = PairRule(rule.edge, rule.trigger, correlation)
    return pairs


def raised_correlation_bps(rule: PairRule, bps: float) -> float:
    """Return the correlation in Q of two tokens with this rule; `bps` is that without it."""
    return min(max(rule.correlation * BPS, bps), MAX_CORRELATION_BPS)


def _edge_risk(cost: TradingCost, rule: TokenRule | None) -> float:
    """Return c/a, the risk in Q of an exchange whose last unit pays at its edge; zero without one."""
    return max(cost.unit_cost, MIN_COST) / rule.edge if rule and rule.edge else 0.0


@dataclass(frozen=True, slots=True)
class TrackingLoss:
    """Loss against a perfect tracker without costs, shares of the portfolio a year:
    trading costs, and what the tracking error is worth.
    """

    costs: float
    drift: float

    @property
    def total(self) -> float:
        """Costs and drift together."""
        return self.costs + self.drift


def _paying_distance(edge: float, leg_cost: float, unit_cost: float) -> float:
    """Return the distance beyond the edge from which a trade back saves its gas over the horizon,
    c·x²/2a ≥ F. Without tax the trigger is always beyond it.
    """
    return math.sqrt(2 * edge * leg_cost / unit_cost)


def _within_target(edge: float, trigger: float, target: float) -> tuple[float, float]:
    """Return edge and trigger, both reduced so that the trigger is at most half the target."""
    factor = min(target / 2 / trigger, 1.0)
    return edge * factor, trigger * factor


def _spread_variance(
    shares: Sequence[float], covariance: Sequence[Sequence[float]], slope: Sequence[float]
) -> float:
    """Return yᵀMΣMᵀy with y = `slope` and M = diag(w) − wwᵀ: how fast the weights spread in the
    direction whose risk is y.
    """
    mean_slope = math.fsum(map(mul, shares, slope))
    moves = [share * (entry - mean_slope) for share, entry in zip(shares, slope, strict=True)]
    return math.fsum(
        move * math.fsum(map(mul, row, moves)) for move, row in zip(moves, covariance, strict=True)
    )
