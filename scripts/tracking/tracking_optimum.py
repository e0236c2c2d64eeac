"""The tracking rule against the numerical optimum of trading two tokens and cash: least long-run
costs and ½·λ·TE², by policy iteration on a Markov chain, as JSON.

The deviations of both tokens lie on a grid, and diffuse as the weights do (Kushner and Dupuis,
Numerical Methods for Stochastic Control Problems in Continuous Time, 2001, 5.3). At each point the
portfolio waits, or trades: one leg or two, each for its gas and a cost a unit. A policy's average
cost and relative values solve a sparse linear system; a policy that trades where that is cheaper
follows, until none is. The rule is one of these policies, to the next point of the grid, so its
ratio to the optimum is exact and at least 1. Then both trade on the same simulated hours, where the
ratio has noise.

    .venv/bin/python scripts/tracking/tracking_optimum.py --case 3

Without --case all are solved, some ten minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.bench_tracking import rule_of, run_rule
from scripts.tracking.tracking_market import (
    BPS,
    Floats,
    Legs,
    Market,
    gaussian_market,
    is_beyond,
    is_pair_beyond,
    plan_legs,
)

YEARS = 60
SEEDS = range(3, 11)
WAIT = -1
MAX_ROUNDS = 200


@dataclass(frozen=True)
class PairCase:
    """Two tokens and cash: annual volatilities, their correlation, targets, costs of the legs in
    bps (each token against the cash, then if it is there the direct pool), gas of a leg in bps of
    the portfolio, and half the width of the grid as a multiple of the widest trigger.
    """

    volatilities: tuple[float, float]
    correlation: float
    targets: tuple[float, float]
    costs_bps: tuple[float, ...]
    gas_bps: float = 0.0
    reach: float = 3.0

    @property
    def weights(self) -> Floats:
        """Targets with that of the cash."""
        return np.array([*self.targets, 1 - sum(self.targets)])

    @property
    def correlations(self) -> Floats:
        """Correlations of the two tokens."""
        return np.array([[1.0, self.correlation], [self.correlation, 1.0]])

    @property
    def covariance(self) -> Floats:
        """Covariance of the two tokens and the cash."""
        full = np.zeros((3, 3))
        full[:2, :2] = np.outer(self.volatilities, self.volatilities) * self.correlations
        return full

    def market(self, seed: int) -> Market:
        """Return simulated prices of YEARS of hours."""
        return gaussian_market(list(self.volatilities), self.correlations, YEARS, seed)

    def legs(self) -> Legs:
        """Return the pools."""
        count = len(self.costs_bps)
        return Legs(
            np.array([0, 1, 0][:count]),
            np.array([2, 2, 1][:count]),
            np.array(self.costs_bps) / BPS,
            np.full(count, self.gas_bps / BPS),
            np.zeros(count),
        )


CASES = (
    PairCase((0.6, 0.6), 0.0, (0.25, 0.25), (5, 5)),
    PairCase((0.6, 0.6), 0.5, (0.25, 0.25), (5, 5)),
    PairCase((0.6, 0.6), 0.8, (0.25, 0.25), (30, 30)),
    PairCase((0.6, 0.6), 0.9, (0.4, 0.4), (5, 5), reach=6),
    PairCase((0.5, 0.9), 0.7, (0.5, 0.3), (5, 30), reach=5),
    PairCase((0.5, 0.9), 0.7, (0.5, 0.3), (30, 5)),
    PairCase((0.5, 0.9), 0.7, (0.15, 0.05), (30, 30)),
    PairCase((0.6, 0.6), -0.4, (0.3, 0.3), (5, 5)),
    PairCase((0.5, 0.6), 0.8, (0.5, 0.3), (5, 5), reach=4),
    PairCase((0.5, 0.6), 0.8, (0.5, 0.3), (30, 30), reach=4),
    PairCase((0.5, 0.6), 0.8, (0.5, 0.3), (5, 5, 5), reach=4),
    PairCase((0.5, 0.6), 0.8, (0.5, 0.3), (30, 30, 5), reach=4),
    PairCase((0.2, 1.2), 0.3, (0.4, 0.3), (5, 30)),
    PairCase((0.6, 0.6), 0.99, (0.3, 0.3), (5, 5), reach=6),
    PairCase((0.005, 0.6), 0.0, (0.3, 0.4), (1, 5), reach=5),
    PairCase((0.6, 0.7), 0.8, (0.5, 0.4), (5, 30), reach=6),
    PairCase((0.6, 0.6), 0.0, (0.25, 0.25), (5, 5), 0.1),
    PairCase((0.6, 0.6), 0.5, (0.25, 0.25), (5, 5), 1.0),
    PairCase((0.5, 0.9), 0.5, (0.3, 0.2), (30, 30), 0.6),
    PairCase((0.5, 0.9), 0.5, (0.3, 0.2), (5, 5), 6.0),
    PairCase((0.5, 0.6), 0.7, (0.4, 0.3), (1, 1), 3.0),
    PairCase((0.5, 0.9), 0.6, (0.3, 0.2), (5, 30), 1.0),
    PairCase((0.6, 0.6), 0.0, (0.3, 0.3), (30, 30, 5), reach=4),
    PairCase((0.5, 0.6), 0.3, (0.3, 0.3), (30, 30, 5), reach=4),
    PairCase((0.5, 0.6), 0.3, (0.3, 0.3), (5, 10, 5), reach=4),
    PairCase((0.5, 0.6), 0.3, (0.3, 0.3), (30, 30, 20), reach=4),
    PairCase((0.5, 0.6), 0.3, (0.3, 0.3), (30, 30, 30), reach=4),
    PairCase((0.5, 0.6), 0.3, (0.3, 0.3), (30, 30, 5), 1.0, reach=4),
    PairCase((0.5, 0.6), 0.7, (0.3, 0.3), (30, 30, 5), 6.0, reach=4),
)
"""Sixteen cases without gas, six with it, then seven whose tokens have a pool of their own."""


@dataclass(frozen=True)
class Grid:
    """Points of both deviations: `half` on each side of zero, `steps` apart."""

    half: int
    steps: tuple[float, float]

    @property
    def size(self) -> int:
        """Points on one axis."""
        return 2 * self.half + 1


@njit(cache=True)
def diffusion_rates(weights, covariance, half, step1, step2):  # type: ignore[no-untyped-def]
    """Return the rates of a move along each axis and along the diagonal, and the sign of the
    diagonal, at each point: the covariance MΣMᵀ of the weights, with M = diag(w) − wwᵀ.
    """
    size = 2 * half + 1
    rates = np.zeros((size, size, 3))
    signs = np.ones((size, size))
    for i in range(size):
        for j in range(size):
            first = min(max(weights[0] + (i - half) * step1, 1e-3), 0.999)
            second = min(max(weights[1] + (j - half) * step2, 1e-3), 0.999)
            m11 = first * (1 - first)
            m12 = -first * second
            m22 = second * (1 - second)
            a11 = (
                m11 * m11 * covariance[0, 0]
                + 2 * m11 * m12 * covariance[0, 1]
                + m12 * m12 * covariance[1, 1]
            )
            a22 = (
                m12 * m12 * covariance[0, 0]
                + 2 * m12 * m22 * covariance[0, 1]
                + m22 * m22 * covariance[1, 1]
            )
            a12 = (
                m11 * m12 * covariance[0, 0]
                + (m11 * m22 + m12 * m12) * covariance[0, 1]
                + m12 * m22 * covariance[1, 1]
            )
            cross = min(abs(a12), a11 * step2 / step1, a22 * step1 / step2) / (2 * step1 * step2)
            rates[i, j, 0] = a11 / (2 * step1 * step1) - cross
            rates[i, j, 1] = a22 / (2 * step2 * step2) - cross
            rates[i, j, 2] = cross
            signs[i, j] = 1.0 if a12 > 0 else -1.0
    return rates, signs


@njit(cache=True)
def spread_along(values, origin, di, dj, cost):  # type: ignore[no-untyped-def]
    """Lower each value to the least of the values on its line in the direction (di, dj) and back,
    plus `cost` a step, with the point that it is from.
    """
    size = len(values)
    for direction in (1, -1):
        for first in range(size):
            for second in range(size):
                i = first if direction * di >= 0 else size - 1 - first
                j = second if direction * dj >= 0 else size - 1 - second
                before_i = i - direction * di
                before_j = j - direction * dj
                if not (0 <= before_i < size and 0 <= before_j < size):
                    continue
                through = values[before_i, before_j] + cost
                if through < values[i, j] - 1e-15:
                    values[i, j] = through
                    origin[i, j] = origin[before_i, before_j]


@njit(cache=True)
def best_trades(values, unit_costs, gas, step1, step2):  # type: ignore[no-untyped-def]
    """Return the least value plus cost that a trade reaches from each point, and the point: over
    each choice of the pools, one after the other, and with gas for each of them.
    """
    size = len(values)
    start = np.arange(size * size).reshape(size, size)
    reached = np.full((size, size), np.inf)
    origin = start.copy()
    count = len(unit_costs)
    for choice in range(1, 2**count):
        if gas <= 0 and choice != 2**count - 1:
            continue
        values_of_choice = values.copy()
        origin_of_choice = start.copy()
        trade_gas = 0.0
        for _ in range(2):
            trade_gas = 0.0
            for leg in range(count):
                if choice >> leg & 1 == 0:
                    continue
                trade_gas += gas
                di = 0 if leg == 1 else 1
                dj = (0, 1, -1)[leg]
                step = step2 if leg == 1 else step1
                cost = unit_costs[leg] * step
                spread_along(values_of_choice, origin_of_choice, di, dj, cost)
        for i in range(size):
            for j in range(size):
                if values_of_choice[i, j] + trade_gas < reached[i, j]:
                    reached[i, j] = values_of_choice[i, j] + trade_gas
                    origin[i, j] = origin_of_choice[i, j]
    return reached, origin


@dataclass(frozen=True)
class Chain:
    """The Markov chain of a case: rates of its moves and the penalty of each point, and the rule's
    risk and triggers.
    """

    case: PairCase
    grid: Grid
    rates: Floats
    signs: Floats
    penalty: Floats
    risk: Floats
    triggers: Floats
    pair_triggers: Floats


@dataclass(frozen=True)
class Policy:
    """The point to which each point trades (WAIT: none), and what that costs."""

    destinations: Floats
    costs: Floats


def build_chain(case: PairCase, half: int, *, is_uniform: bool) -> Chain:
    """Return the chain on a grid that reaches `case.reach` times the triggers of the rule. With
    `is_uniform` the weights diffuse everywhere as at their targets: elsewhere the moves of the grid
    cannot express a correlation near 1.
    """
    covariance = case.covariance[:2, :2]
    weights = case.weights
    risk, triggers, pair_triggers = rule_of(case.covariance, weights, case.legs(), 1.0)
    shape = np.diag(weights[:2]) - np.outer(weights[:2], weights[:2])
    spread = np.sqrt(np.diag(shape @ covariance @ shape.T))
    if len(case.costs_bps) > 2:  # the direct pool moves along the diagonal
        spread = np.full(2, spread.max())
    unit = case.reach * float(np.max(triggers[:2] / spread))
    grid = Grid(half, (unit * spread[0] / half, unit * spread[1] / half))
    rates, signs = diffusion_rates(weights, covariance, 0 if is_uniform else half, *grid.steps)
    if is_uniform:
        rates = np.tile(rates, (grid.size, grid.size, 1))
        signs = np.tile(signs, (grid.size, grid.size))
    positions = [(np.arange(grid.size) - half) * step for step in grid.steps]
    first, second = np.meshgrid(*positions, indexing="ij")
    penalty = (
        covariance[0, 0] * first**2
        + 2 * covariance[0, 1] * first * second
        + covariance[1, 1] * second**2
    ) / 2
    return Chain(case, grid, rates, signs, penalty, risk, triggers, pair_triggers)


@njit(cache=True)
def trade_cost(first, second, unit_costs, gas):  # type: ignore[no-untyped-def]
    """Return the least cost of moving both deviations by these amounts, with the direct pool, where
    there is one, or without it, and gas for each pool.
    """
    cost = unit_costs[0] * abs(first) + unit_costs[1] * abs(second)
    cost += gas * ((first != 0.0) + (second != 0.0))
    if len(unit_costs) < 3 or first * second >= 0:
        return cost
    direct = min(abs(first), abs(second))
    first_rest = abs(first) - direct
    second_rest = abs(second) - direct
    direct_cost = unit_costs[2] * direct + unit_costs[0] * first_rest + unit_costs[1] * second_rest
    direct_cost += gas * (1 + (first_rest > 1e-12) + (second_rest > 1e-12))
    return min(cost, direct_cost)


@njit(cache=True)
def rule_destinations(legs, risk, triggers, pair_triggers, half, steps):  # type: ignore[no-untyped-def]
    """Return the rule's policy: from each point beyond a trigger to the point of the grid next to
    where its plan ends, and its cost.
    """
    size = 2 * half + 1
    destinations = np.full((size, size), WAIT)
    costs = np.zeros((size, size))
    amounts = np.zeros(legs.source.size)
    deviation = np.zeros(3)
    for i in range(size):
        for j in range(size):
            deviation[0] = (i - half) * steps[0]
            deviation[1] = (j - half) * steps[1]
            deviation[2] = -deviation[0] - deviation[1]
            is_traded = is_beyond(deviation, risk, triggers) or is_pair_beyond(
                deviation, risk, pair_triggers
            )
            if not (is_traded and plan_legs(deviation, risk, legs, amounts)):
                continue
            after = deviation.copy()
            for leg in range(legs.source.size):
                after[legs.source[leg]] -= amounts[leg]
                after[legs.target[leg]] += amounts[leg]
            to_i = min(max(int(np.floor(after[0] / steps[0] + 0.5)) + half, 0), size - 1)
            to_j = min(max(int(np.floor(after[1] / steps[1] + 0.5)) + half, 0), size - 1)
            if to_i == i and to_j == j:
                continue
            destinations[i, j] = to_i * size + to_j
            first = (to_i - i) * steps[0]
            second = (to_j - j) * steps[1]
            costs[i, j] = trade_cost(first, second, legs.unit_cost, legs.gas[0])
    return destinations, costs


def policy_values(rates, signs, penalty, destinations, trade_costs):  # type: ignore[no-untyped-def]
    """Return relative values and average loss of a policy, by one sparse system."""
    size = len(penalty)
    points = size * size
    index = np.arange(points).reshape(size, size)
    waits = destinations.ravel() == WAIT
    rows = []
    columns = []
    entries = []

    def add(at, to, entry):  # type: ignore[no-untyped-def]
        rows.append(at)
        columns.append(to)
        entries.append(entry)

    flat_waits = np.flatnonzero(waits)
    total = np.zeros(points)
    for axis, (di, dj) in enumerate(((1, 0), (0, 1), (1, 1))):
        for sign in (1, -1):
            step_j = np.where(signs > 0, dj, -dj) if axis == 2 else np.full((size, size), dj)
            to_i = np.clip(np.arange(size)[:, None] + sign * di, 0, size - 1)
            to_j = np.clip(np.arange(size)[None, :] + sign * step_j, 0, size - 1)
            to = index[np.broadcast_to(to_i, (size, size)), to_j].ravel()
            rate = rates[:, :, axis].ravel()
            add(flat_waits, to[flat_waits], rate[flat_waits])
            total += rate
    add(flat_waits, flat_waits, -total[flat_waits])
    add(flat_waits, np.full(len(flat_waits), points), np.full(len(flat_waits), -1.0))
    flat_trades = np.flatnonzero(~waits)
    add(flat_trades, flat_trades, np.full(len(flat_trades), -1.0))
    add(flat_trades, destinations.ravel()[flat_trades], np.ones(len(flat_trades)))
    add(np.array([points]), np.array([points // 2]), np.array([1.0]))
    right = np.zeros(points + 1)
    right[flat_waits] = -penalty.ravel()[flat_waits]
    right[flat_trades] = -trade_costs.ravel()[flat_trades]
    matrix = csr_matrix(
        (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))),
        shape=(points + 1, points + 1),
    )
    solution = spsolve(matrix, right)
    return solution[:points].reshape(size, size), solution[points], total.reshape(size, size)


def policy_loss(chain: Chain, policy: Policy) -> float:
    """Return the long-run loss of a policy, as a share of the portfolio a year."""
    _, loss, _ = policy_values(
        chain.rates, chain.signs, chain.penalty, policy.destinations, policy.costs
    )
    return float(loss)


def rule_policy(chain: Chain) -> Policy:
    """Return the tracking rule as a policy of the chain."""
    legs = chain.case.legs()
    return Policy(
        *rule_destinations(
            legs,
            chain.risk,
            chain.triggers,
            chain.pair_triggers,
            chain.grid.half,
            chain.grid.steps,
        )
    )


def best_policy(chain: Chain) -> Policy:
    """Return the policy of the least loss, by policy iteration from the rule."""
    legs = chain.case.legs()
    gas = float(legs.gas[0])
    size = chain.grid.size
    index = np.arange(size * size).reshape(size, size)
    policy = rule_policy(chain)
    for _ in range(MAX_ROUNDS):
        values, loss, total = policy_values(
            chain.rates, chain.signs, chain.penalty, policy.destinations, policy.costs
        )
        # no trade ends where one begins
        ends = np.where(policy.destinations == WAIT, values, np.inf)
        reached, origin = best_trades(ends, legs.unit_cost, gas, *chain.grid.steps)
        waiting = wait_values(values, chain.rates, chain.signs, chain.penalty, total, loss)
        trades = (origin != index) & (reached < waiting - 1e-13)
        destinations = np.where(trades, origin, WAIT)
        if np.array_equal(destinations, policy.destinations):
            break
        policy = Policy(destinations, np.where(trades, reached - values.ravel()[origin], 0.0))
    return policy


def wait_values(values, rates, signs, penalty, total, loss):  # type: ignore[no-untyped-def]
    """Return the value of waiting for the next move at each point."""
    size = len(values)
    around = np.zeros((size, size))
    rows = np.arange(size)
    for axis, (di, dj) in enumerate(((1, 0), (0, 1), (1, 1))):
        for sign in (1, -1):
            step_j = np.where(signs > 0, dj, -dj) if axis == 2 else np.full((size, size), dj)
            to_i = np.broadcast_to(np.clip(rows[:, None] + sign * di, 0, size - 1), (size, size))
            to_j = np.clip(rows[None, :] + sign * step_j, 0, size - 1)
            around += rates[:, :, axis] * values[to_i, to_j]
    return (penalty - loss + around) / total


@njit(cache=True)
def simulate_policy(market, weights, legs, destinations, half, steps):  # type: ignore[no-untyped-def]
    """Return costs and model variance of the policy on simulated prices, with the gas of the first
    leg for each.
    """
    returns = market.returns
    covariance = market.covariance
    unit_costs = legs.unit_cost
    gas = legs.gas[0]
    step1, step2 = steps
    held = weights.copy()
    size = 2 * half + 1
    cost = 0.0
    variance = 0.0
    for bar in range(len(returns)):
        own_return = 0.0
        for k in range(3):
            own_return += held[k] * returns[bar, k]
        for k in range(3):
            held[k] *= (1 + returns[bar, k]) / (1 + own_return)
        i = min(max(int(np.floor((held[0] - weights[0]) / step1 + 0.5)) + half, 0), size - 1)
        j = min(max(int(np.floor((held[1] - weights[1]) / step2 + 0.5)) + half, 0), size - 1)
        to = destinations[i, j]
        if to >= 0:
            first = (to // size - i) * step1
            second = (to % size - j) * step2
            cost += trade_cost(first, second, unit_costs, gas)
            held[0] += first
            held[1] += second
            held[2] -= first + second
        x = held[0] - weights[0]
        y = held[1] - weights[1]
        variance += (
            covariance[0, 0] * x * x + 2 * covariance[0, 1] * x * y + covariance[1, 1] * y * y
        ) * market.bar_years
    return cost, variance


def compared(case: PairCase, half: int, *, is_uniform: bool) -> dict[str, object]:
    """Return the losses of rule and optimum, bps a year: on the chain, and on simulated prices."""
    chain = build_chain(case, half, is_uniform=is_uniform)
    best = best_policy(chain)
    optimum = policy_loss(chain, best) * BPS
    rule = policy_loss(chain, rule_policy(chain)) * BPS
    markets = [case.market(seed) for seed in SEEDS]
    on_prices = []
    for market in markets:
        cost, variance = simulate_policy(
            market, case.weights, case.legs(), best.destinations, half, chain.grid.steps
        )
        on_prices.append((cost + variance / 2) / market.years * BPS)
    rule_on_prices = [
        run_rule(market, case.weights, case.legs(), 1.0).loss_bps(1.0) for market in markets
    ]
    return {
        "diffusion": "at the targets" if is_uniform else "at each point",
        "optimum": round(optimum, 3),
        "rule": round(rule, 3),
        "ratio": round(rule / optimum, 4),
        "ratio_on_prices": round(sum(rule_on_prices) / sum(on_prices), 4),
    }


def main() -> None:
    """Print rule and optimum of the chosen cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=int, choices=range(len(CASES)))
    parser.add_argument("--half", type=int, default=130, help="points on each side of zero")
    options = parser.parse_args()
    numbers = range(len(CASES)) if options.case is None else (options.case,)
    for number in numbers:
        for is_uniform in (True, False):
            comparison = compared(CASES[number], options.half, is_uniform=is_uniform)
            print(json.dumps({"case": number, **comparison}), flush=True)


if __name__ == "__main__":
    main()
