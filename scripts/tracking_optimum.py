"""Numerical optimum of trading two tokens and cash: least long-run costs and ½·λ·TE², by policy
iteration on a Markov chain. Prints it for the cases of bench_tracking.py, as JSON.

The deviations of both tokens lie on a grid, and diffuse as the weights do (Kushner and Dupuis,
Numerical Methods for Stochastic Control Problems in Continuous Time, 2001, 5.3). At each point the
portfolio waits, or trades: one leg or two, each for its gas and a cost a unit. A policy's average
cost and relative values solve a sparse linear system; a policy that trades where that is cheaper
follows, until none is. Then the policy trades on the same simulated prices as the rules.

    .venv/bin/python scripts/tracking_optimum.py --case 3

Without --case all are solved, some fifteen minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numba import njit
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.policy.triggers.tracking_rule import TradingCost, token_rules
from scripts.tracking_market import BPS, Floats, Legs, Market, gaussian_market

YEARS = 60
SEED = 3
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

    def market(self) -> Market:
        """Return the prices on which all rules of the case are compared."""
        correlation = np.array([[1.0, self.correlation], [self.correlation, 1.0]])
        return gaussian_market(list(self.volatilities), correlation, YEARS, SEED)

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
    PairCase((0.005, 0.6), 0.0, (0.3, 0.4), (1, 5)),
    PairCase((0.6, 0.7), 0.8, (0.5, 0.4), (5, 30), reach=6),
    PairCase((0.6, 0.6), 0.0, (0.25, 0.25), (5, 5), 0.1),
    PairCase((0.6, 0.6), 0.5, (0.25, 0.25), (5, 5), 1.0),
    PairCase((0.5, 0.9), 0.5, (0.3, 0.2), (30, 30), 0.6),
    PairCase((0.5, 0.9), 0.5, (0.3, 0.2), (5, 5), 6.0),
    PairCase((0.5, 0.6), 0.7, (0.4, 0.3), (1, 1), 3.0),
    PairCase((0.5, 0.9), 0.6, (0.3, 0.2), (5, 30), 1.0),
)
"""Sixteen cases without gas, then six with it."""


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
    """Return the least value plus cost that a trade reaches from each point, and the point."""
    size = len(values)
    start = np.arange(size * size).reshape(size, size)
    first_cost = unit_costs[0] * step1
    second_cost = unit_costs[1] * step2
    if gas <= 0:
        reached = values.copy()
        origin = start.copy()
        for _ in range(2):
            spread_along(reached, origin, 1, 0, first_cost)
            spread_along(reached, origin, 0, 1, second_cost)
            if len(unit_costs) > 2:
                spread_along(reached, origin, 1, -1, unit_costs[2] * step1)
        return reached, origin
    reached = values.copy()
    origin = start.copy()
    spread_along(reached, origin, 1, 0, first_cost)
    both = reached.copy()
    both_origin = origin.copy()
    spread_along(both, both_origin, 0, 1, second_cost)
    second = values.copy()
    second_origin = start.copy()
    spread_along(second, second_origin, 0, 1, second_cost)
    for i in range(size):
        for j in range(size):
            reached[i, j] += gas
            if second[i, j] + gas < reached[i, j]:
                reached[i, j] = second[i, j] + gas
                origin[i, j] = second_origin[i, j]
            if both[i, j] + 2 * gas < reached[i, j]:
                reached[i, j] = both[i, j] + 2 * gas
                origin[i, j] = both_origin[i, j]
    return reached, origin


@dataclass(frozen=True)
class Optimum:
    """The best policy: the point to which each point trades (WAIT: none), and its average loss."""

    grid: Grid
    destinations: Floats
    loss: float


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


def solve(
    case: PairCase,
    triggers: list[float],
    half: int,
    *,
    is_uniform: bool,
    risk_aversion: float = 1.0,
) -> Optimum:
    """Return the optimum on a grid that reaches `case.reach` times the triggers of the rule. With
    `is_uniform` the weights diffuse everywhere as at their targets: elsewhere the moves of the grid
    cannot express a correlation near 1.
    """
    covariance = case.market().covariance[:2, :2]
    weights = case.weights
    size = 2 * half + 1
    shape = np.diag(weights[:2]) - np.outer(weights[:2], weights[:2])
    spread = np.sqrt(np.diag(shape @ covariance @ shape.T))
    if len(case.costs_bps) > 2:  # the direct pool moves along the diagonal
        spread = np.full(2, spread.max())
    unit = max(
        case.reach * trigger / deviation
        for trigger, deviation in zip(triggers, spread, strict=True)
    )
    grid = Grid(half, (unit * spread[0] / half, unit * spread[1] / half))
    if is_uniform:
        target_rates, target_signs = diffusion_rates(weights, covariance, 0, *grid.steps)
        rates = np.tile(target_rates, (size, size, 1))
        signs = np.tile(target_signs, (size, size))
    else:
        rates, signs = diffusion_rates(weights, covariance, half, *grid.steps)
    positions = [(np.arange(size) - half) * step for step in grid.steps]
    first, second = np.meshgrid(*positions, indexing="ij")
    penalty = (
        risk_aversion
        / 2
        * (
            covariance[0, 0] * first**2
            + 2 * covariance[0, 1] * first * second
            + covariance[1, 1] * second**2
        )
    )
    legs = case.legs()
    gas = float(legs.gas[0])
    box = [
        int(np.clip(trigger / step, 2, half - 1))
        for trigger, step in zip(triggers, grid.steps, strict=True)
    ]
    index = np.arange(size * size).reshape(size, size)
    to_i = np.clip(np.arange(size), half - box[0], half + box[0])
    to_j = np.clip(np.arange(size), half - box[1], half + box[1])
    destinations = index[to_i[:, None], to_j[None, :]]
    moved = [
        abs(np.arange(size) - to) * step for to, step in zip((to_i, to_j), grid.steps, strict=True)
    ]
    trade_costs = (
        legs.unit_cost[0] * moved[0][:, None]
        + legs.unit_cost[1] * moved[1][None, :]
        + gas * ((moved[0] > 0)[:, None].astype(float) + (moved[1] > 0)[None, :])
    )
    destinations = np.where(destinations == index, WAIT, destinations)
    loss = np.inf
    for _ in range(MAX_ROUNDS):
        values, loss, total = policy_values(rates, signs, penalty, destinations, trade_costs)
        ends = np.where(destinations == WAIT, values, np.inf)  # no trade ends where one begins
        reached, origin = best_trades(ends, legs.unit_cost, gas, *grid.steps)
        waiting = wait_values(values, rates, signs, penalty, total, loss)
        trades = (origin != index) & (reached < waiting - 1e-13)
        improved = np.where(trades, origin, WAIT)
        improved_costs = np.where(trades, reached - values.ravel()[origin], 0.0)
        if np.array_equal(improved, destinations):
            break
        destinations = improved
        trade_costs = improved_costs
    return Optimum(grid, destinations, float(loss))


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
            direct = 0.0
            if len(unit_costs) > 2 and first * second < 0:
                together = min(abs(first), abs(second))
                if unit_costs[2] < unit_costs[0] + unit_costs[1]:
                    direct = together
            cost += unit_costs[0] * (abs(first) - direct) + unit_costs[1] * (abs(second) - direct)
            if len(unit_costs) > 2:
                cost += unit_costs[2] * direct
            cost += gas * ((first != 0.0) + (second != 0.0))
            held[0] += first
            held[1] += second
            held[2] -= first + second
        x = held[0] - weights[0]
        y = held[1] - weights[1]
        variance += (
            covariance[0, 0] * x * x + 2 * covariance[0, 1] * x * y + covariance[1, 1] * y * y
        ) * market.bar_years
    return cost, variance


def optimum_loss_bps(
    case: PairCase, triggers: list[float], half: int, *, is_uniform: bool
) -> dict[str, float]:
    """Return the optimum's loss, bps a year: on the chain, and on the simulated prices."""
    optimum = solve(case, triggers, half, is_uniform=is_uniform)
    market = case.market()
    grid = optimum.grid
    cost, variance = simulate_policy(
        market, case.weights, case.legs(), optimum.destinations, grid.half, grid.steps
    )
    return {
        "chain": optimum.loss * BPS,
        "simulated": (cost + variance / 2) / market.years * BPS,
    }


def triggers_of(case: PairCase) -> list[float]:
    """Return the triggers of the rule, which set how far the grid reaches."""
    covariance = case.market().covariance
    costs = {
        token: TradingCost(case.costs_bps[token] / BPS, case.gas_bps / BPS, 0.0) for token in (0, 1)
    }
    rules = token_rules(case.weights.tolist(), covariance.tolist(), 2, costs, 1.0)
    return [rules[token].trigger for token in (0, 1)]


def main() -> None:
    """Print the optimum of the chosen cases, the best of two reaches of the grid and two
    diffusions.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=int, choices=range(len(CASES)))
    parser.add_argument("--half", type=int, default=130, help="points on each side of zero")
    options = parser.parse_args()
    numbers = range(len(CASES)) if options.case is None else (options.case,)
    for number in numbers:
        case = CASES[number]
        triggers = triggers_of(case)
        losses = [
            optimum_loss_bps(
                replace(case, reach=reach), triggers, options.half, is_uniform=is_uniform
            )
            for reach in dict.fromkeys((case.reach, 5.0))
            for is_uniform in (False, True)
        ]
        best = min(losses, key=lambda loss: loss["simulated"])
        print(json.dumps({"case": number, **best}), flush=True)


if __name__ == "__main__":
    main()
