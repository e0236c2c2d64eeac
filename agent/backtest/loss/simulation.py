"""About what a policy loses a year against a portfolio that is always on target at no cost:
trading costs and ½·λ·TE², on simulated prices. It is shown, and nothing is decided by it.

Prices are geometric Brownian motions without drift, in the numeraire. A policy exchanges each token
with the numeraire, and two tokens with each other where that is cheaper, for a cost per unit, gas
per swap and an impact that grows with the square of the amount. Each policy has bars of its own
length, a twentieth of the time in which its weights leave their bands, so that narrow and wide
bands take the same work. A bar that is longer than the interval of checks oversteps a band by more;
the band is narrowed by the difference, 0.5826·η·√time with the annual standard deviation η of the
weight (Broadie, Glasserman and Kou, A continuity correction for discrete barrier options, 1997).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agent.floats import FloatArray
from agent.policy.triggers.tracking_rule import TrackingLoss

Indices = NDArray[np.intp]
FloatMatrix = tuple[tuple[float, ...], ...]
CHECKS_PER_YEAR = 8_760
"""Checks of a running agent: one an hour."""
PATHS = 96
BARS = 340
SETTLING_BARS = 100
"""First bars, in which portfolios that start on target spread over their bands."""
BARS_PER_EXIT = 20
BARS_PER_INTERVAL = 8
MAX_YEARS = 8.0
"""Longest time simulated: what never trades moves away without end."""
SWEEPS = 5
"""Rounds in which the amounts of the exchanges are adapted to one another."""
SEED = 1
OVERSTEP = 0.5826
"""−ζ(½)/√(2π)."""


@dataclass(frozen=True, slots=True)
class LossMarket:
    """The tokens beside the numeraire: targets and annual covariance of their prices in the
    numeraire. An exchange is that of a token with the numeraire, in their order, and then those of
    the `pairs` of tokens: each has a cost of a unit traded and of a unit squared (`impacts`).
    `leg_cost` is the gas of a swap, `min_trade` the smallest swap, both shares of the portfolio;
    `max_plan_cost` is the largest cost of a plan by bands, share of its turnover.
    """

    targets: tuple[float, ...]
    covariance: FloatMatrix
    unit_costs: tuple[float, ...]
    impacts: tuple[float, ...]
    leg_cost: float
    min_trade: float
    max_plan_cost: float
    risk_aversion: float
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LossPolicy:
    """When and how far a policy trades. Beyond `triggers`, distances from the target of each exchange
    and last of the numeraire, it trades the share `traded_share` of what exceeds `edges`, those of
    each exchange, or, with `risk`, as long as the next unit saves more of it than it costs.
    `interval_years` is the least time between two trades; with `has_schedule` that between two
    reviews, at which alone it acts.
    """

    triggers: tuple[float, ...]
    edges: tuple[float, ...]
    traded_share: float = 1.0
    interval_years: float = 0.0
    has_schedule: bool = False
    risk: FloatMatrix | None = None


@dataclass(frozen=True, slots=True)
class SimulatedLoss(TrackingLoss):
    """Loss of a year by simulation, its number of rebalances, the tax on its gains, and that on the
    gains left at the end by years, shares of the portfolio too (zero where none is simulated).
    """

    trades: float
    tax: float = 0.0
    tax_left: float = 0.0

    @property
    def total(self) -> float:
        """Costs, drift and tax together."""
        return self.costs + self.drift + self.tax

    @property
    def total_if_sold(self) -> float:
        """The same if all gains are sold at the end."""
        return self.total + self.tax_left


MAX_KEPT_RESULTS = 64
"""Number of results that are kept: set-up asks again for the same market with each answer."""


@lru_cache(maxsize=MAX_KEPT_RESULTS)
def simulate_losses(
    market: LossMarket, policies: tuple[LossPolicy, ...]
) -> tuple[SimulatedLoss, ...]:
    """Return the loss of each policy, on the same random numbers."""
    book = PolicyBook(market, policies)
    token_count = len(market.targets)
    generator = np.random.default_rng(SEED)
    variances, directions = np.linalg.eigh(book.covariance)
    covariance_root = np.sqrt(np.maximum(variances, 0))[:, None] * directions.T
    bar_years = book.bar_years[:, None]
    move_scale = np.sqrt(bar_years)[:, :, None]
    variance_loss = np.diag(book.covariance) / 2 * bar_years[:, :, None]
    shares = np.tile(book.targets, (len(policies), PATHS, 1))
    numeraire_share = 1 - shares.sum(axis=2, keepdims=True)
    waited_years = np.zeros((len(policies), PATHS))
    drift_after = np.zeros_like(shares)
    tracking_variance = np.zeros(len(policies))
    costs = np.zeros(len(policies))
    trades = np.zeros(len(policies))
    for bar in range(BARS):
        moves = generator.standard_normal((PATHS, token_count)) @ covariance_root
        shares *= np.exp(moves * move_scale - variance_loss)
        total = shares.sum(axis=2, keepdims=True) + numeraire_share
        shares /= total
        drift_before = drift_after
        drift_after = shares - book.targets
        waited_years += bar_years
        is_due = waited_years >= book.intervals - bar_years / 2
        is_beyond = np.abs(drift_after @ book.signals) > book.triggers[:, None]
        fires = is_due & is_beyond.any(axis=2)
        waited_years[np.where(book.has_schedule, is_due, fires)] = 0
        if bar >= SETTLING_BARS:
            tracking_variance += _variance(drift_before, covariance_root)
            tracking_variance += _variance(drift_after, covariance_root)
        rows, paths = np.nonzero(fires)
        if len(rows):
            amounts, plan_costs = book.plans(drift_after[rows, paths], rows)
            is_traded = amounts.any(axis=1)
            drift_after[rows, paths] -= amounts
            is_looked_at_again = ~is_traded & ~book.has_schedule[rows, 0]
            waited_years[rows[is_looked_at_again], paths[is_looked_at_again]] = MAX_YEARS
            if bar >= SETTLING_BARS:
                costs += np.bincount(rows, plan_costs, len(policies))
                trades += np.bincount(rows, is_traded, len(policies))
        shares = drift_after + book.targets
        numeraire_share = 1 - shares.sum(axis=2, keepdims=True)
    counted_bars = (BARS - SETTLING_BARS) * PATHS
    years = counted_bars * book.bar_years
    drifts = market.risk_aversion / 2 * tracking_variance / 2 / counted_bars
    return tuple(
        SimulatedLoss(float(yearly_costs), float(drift), float(yearly_trades))
        for yearly_costs, drift, yearly_trades in zip(
            costs / years, drifts, trades / years, strict=True
        )
    )


def _variance(drifts: FloatArray, covariance_root: FloatArray) -> FloatArray:
    """Return the annual variance of the tracking error, summed over the paths of each policy."""
    moves = drifts @ covariance_root.T
    variances: FloatArray = np.einsum("pni,pni->p", moves, moves)
    return variances


class PolicyBook:
    """The policies as arrays, the first axis of which is the policy, with bands narrowed for the
    length of the bars.
    """

    def __init__(
        self, market: LossMarket, policies: Sequence[LossPolicy], bar_years: float | None = None
    ) -> None:
        """`bar_years` is the length of all bars; None: each policy has its own."""
        self.market = market
        self.targets = np.array(market.targets)
        self.covariance = np.array(market.covariance)
        self.unit_costs = np.array(market.unit_costs)
        token_count = len(market.targets)
        tokens = np.eye(token_count)
        pairs = [tokens[first] - tokens[second] for first, second in market.pairs]
        self.exchanges = np.array([*tokens, *pairs])
        self.has_schedule = np.array([[policy.has_schedule] for policy in policies])
        self.intervals = np.array([[policy.interval_years] for policy in policies])
        self.traded_shares = np.array([policy.traded_share for policy in policies])
        self.has_risk = np.array([policy.risk is not None for policy in policies])
        shape = (len(policies), token_count, len(self.exchanges))
        self.risks = np.empty(shape[:2] + shape[1:2])
        self.exchange_risks = np.empty(shape[:1] + shape[2:] * 2)
        self.curvatures = np.empty(shape[:1] + shape[2:])
        numeraire_column = np.where(self.has_risk, 0.0, -1.0)[:, None, None]
        self.signals = np.concatenate(
            [np.empty(shape), np.broadcast_to(numeraire_column, (*shape[:2], 1))], axis=2
        )
        risks = [tokens if policy.risk is None else policy.risk for policy in policies]
        self.set_risks(np.arange(len(policies)), np.array(risks))
        weight_moves = np.diag(self.targets) - np.outer(self.targets, self.targets)
        spread = weight_moves @ self.covariance @ weight_moves
        deviations = np.sqrt(np.einsum("pji,jk,pki->pi", self.signals, spread, self.signals))
        self.bar_years = np.array(
            [
                bar_years or _bar_years(policy, own)
                for policy, own in zip(policies, deviations, strict=True)
            ]
        )
        triggers = np.array([policy.triggers for policy in policies])
        edges = np.array([policy.edges for policy in policies])
        swap_shares = self._swap_shares(triggers, edges, deviations)
        self.impacts = np.array(market.impacts) * swap_shares
        self.leg_costs = market.leg_cost / swap_shares
        overstep_times = OVERSTEP * (np.sqrt(self.bar_years) - CHECKS_PER_YEAR**-0.5)
        self.oversteps = overstep_times[:, None] * deviations
        narrowed = np.maximum(triggers - self.oversteps, triggers / 4)
        self.triggers = np.where(self.has_schedule, triggers, narrowed)
        self.edges = np.minimum(edges, self.triggers[:, :-1])

    def set_risks(self, rows: Indices, risks: FloatArray) -> None:
        """Set the risk of the policies `rows`, and what it is in the direction of each exchange."""
        slopes = risks @ self.exchanges.T
        exchange_risks = self.exchanges @ slopes
        curvatures = np.diagonal(exchange_risks, axis1=1, axis2=2)
        self.risks[rows] = risks
        self.exchange_risks[rows] = exchange_risks
        self.curvatures[rows] = curvatures
        self.signals[rows, :, :-1] = slopes / curvatures[:, None, :]

    def _swap_shares(
        self, triggers: FloatArray, edges: FloatArray, deviations: FloatArray
    ) -> FloatArray:
        """Return how large a swap is beside that of a bar, which trades at once what several checks
        would: the width from trigger to edge, or what a weight oversteps it by.
        """
        check_years = np.maximum(self.intervals, 1 / CHECKS_PER_YEAR)
        moves = deviations[:, :-1]
        widths = np.minimum(triggers[:, :-1] - edges, 1.0)
        check_moves = np.maximum(moves * np.sqrt(check_years), self.market.min_trade)
        bar_moves = moves * np.sqrt(self.bar_years)[:, None]
        per_bar = np.maximum(np.maximum(widths, bar_moves), 1e-9)
        swap_shares: FloatArray = np.minimum((widths + check_moves) / per_bar, 1.0)
        return swap_shares

    def plans(self, drifts: FloatArray, rows: Indices) -> tuple[FloatArray, FloatArray]:
        """Return the amounts of each token sold, and the cost of each plan, from these drifts of the
        policies `rows`.
        """
        market = self.market
        amounts = np.zeros((len(rows), len(self.exchanges)))
        weighs_risk = self.has_risk[rows]
        if weighs_risk.any():
            amounts[weighs_risk] = self._risk_amounts(drifts[weighs_risk], rows[weighs_risk])
        if not weighs_risk.all():
            amounts[~weighs_risk] = self._band_amounts(drifts[~weighs_risk], rows[~weighs_risk])
        amounts[np.abs(amounts) < max(market.min_trade, 1e-9)] = 0
        sizes = np.abs(amounts)
        costs = (sizes * (self.unit_costs + self.impacts[rows] * sizes)).sum(axis=1)
        costs += (self.leg_costs[rows] * (sizes > 0)).sum(axis=1)
        is_dear = ~weighs_risk & (costs > market.max_plan_cost * sizes.sum(axis=1))
        amounts[is_dear] = 0
        costs[is_dear] = 0
        return amounts @ self.exchanges, costs

    def _band_amounts(self, drifts: FloatArray, rows: Indices) -> FloatArray:
        """Return the amounts of each exchange that bring the tokens back: one of a pair is exchanged
        for the other as far as one is sold and the other bought.
        """
        token_count = len(self.targets)
        edges = self.edges[rows, :token_count]
        amounts = np.zeros((len(rows), len(self.exchanges)))
        amounts[:, :token_count] = drifts - np.minimum(np.maximum(drifts, -edges), edges)
        amounts *= self.traded_shares[rows][:, None]
        for exchange, (first, second) in enumerate(self.market.pairs, token_count):
            sold = np.minimum(amounts[:, first], -amounts[:, second])
            bought = np.minimum(-amounts[:, first], amounts[:, second])
            exchanged = np.maximum(sold, 0) - np.maximum(bought, 0)
            amounts[:, exchange] = exchanged
            amounts[:, first] -= exchanged
            amounts[:, second] += exchanged
        return amounts

    def _risk_amounts(self, drifts: FloatArray, rows: Indices) -> FloatArray:
        """Return the amounts after which no unit saves more risk than it costs, of the exchanges
        whose swap saves more than its gas.
        """
        curvatures = self.curvatures[rows]
        slopes = np.einsum("ri,rij->rj", drifts, self.signals[rows, :, :-1]) * curvatures
        excess = np.maximum(np.abs(slopes) - self.edges[rows] * curvatures, 0)
        divisors = curvatures + 2 * self.impacts[rows]
        is_traded = excess * excess > 2 * self.market.leg_cost * divisors
        amounts = self._solution(slopes, rows, is_traded)
        pays = is_traded & (divisors * amounts * amounts > 2 * self.market.leg_cost)
        if (pays != is_traded).any():
            amounts = self._solution(slopes, rows, pays)
        return amounts

    def _solution(
        self, slopes: FloatArray, rows: Indices, is_traded: NDArray[np.bool_]
    ) -> FloatArray:
        """Minimise ½·yᵀQy + Σ c|x| + Σ κx² over the amounts x of the traded exchanges, with y the
        drifts after them, by coordinate descent from x = 0, where Qy has these `slopes` in their
        directions.
        """
        columns = np.ascontiguousarray(np.moveaxis(self.exchange_risks[rows], 0, 2))
        curvatures = self.curvatures[rows].T
        margins = self.edges[rows].T * curvatures
        divisors = np.where(is_traded.T, curvatures + 2 * self.impacts[rows].T, np.inf)
        pulls = np.ascontiguousarray(slopes.T)
        amounts = np.zeros_like(pulls)
        for _ in range(SWEEPS):
            for exchange, column in enumerate(columns):
                pull = pulls[exchange] + curvatures[exchange] * amounts[exchange]
                margin = margins[exchange]
                excess = pull - np.minimum(np.maximum(pull, -margin), margin)
                amount = excess / divisors[exchange]
                pulls -= column * (amount - amounts[exchange])
                amounts[exchange] = amount
        return amounts.T


def _bar_years(policy: LossPolicy, deviations: FloatArray) -> float:
    """Return the length of a policy's bars. `deviations` are the annual ones of what its triggers
    limit.
    """
    if policy.has_schedule:
        return policy.interval_years / BARS_PER_INTERVAL
    exit_years = [
        (trigger / deviation) ** 2
        for trigger, deviation in zip(policy.triggers, deviations.tolist(), strict=True)
        if deviation > 0
    ]
    bar_years = min(exit_years, default=math.inf) / BARS_PER_EXIT
    return min(max(bar_years, 1 / CHECKS_PER_YEAR), MAX_YEARS / BARS)
