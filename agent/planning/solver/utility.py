"""Utility of a plan: a concave function of the final token values, its dual as a program over
prices, and the objective of a goal.

Tokens end at y, in all Y = Σ y. Off a goal of shares [low, high] a plan is worth

    Y − P · (θ · Σ (yᵢ − highᵢ·Y)⁺ + (1 − θ) · Σ (lowᵢ·Y − yᵢ)⁺)

P is the largest accepted marginal cost of moving a unit: a unit moved from a token above its goal
to one below saves P. θ is ½ for point goals, which gives Y − P/2 · Σ |yᵢ − wᵢ·Y|; if only one side
of the goal remains, that side has all of P. In a zone the deviation is priced by its risk (see
DeviationRisk). The utility is homogeneous in y, so costs need no estimate of the final total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.errors import ErrorCode, Refused
from agent.floats import FloatArray, dot, fsum_array, inverse, matvec
from agent.model import Goal, StepInput, TrackingRisk, Verdict
from agent.planning.pool_curves import CurveStack
from agent.planning.problem import Problem, TokenNode
from agent.planning.solver.box import box_minimum
from agent.planning.solver.dual import Program, Solution, evaluate_dual, solve_dual
from agent.policy.risk import aversion, correlations, volatilities
from agent.units import BPS, Value

IndexArray = NDArray[np.intp]
WIDE = 0.9
"""Maximum P, and P if the plan cost limit is off. At 1, losing everything that must be sold would
count as free.
"""
UNMOVED = 1e-7
"""Change per unit of scale below which a token counts as unmoved."""
SURE = 0.6
"""Price, beyond P, of a unit past a bound that must hold at any market price."""
PRESSED = 1e-6
"""Fraction of P above which the price of a bound counts."""
TURNS = 12
"""Maximum number of new guesses of the tokens' directions under a turnover limit."""


@dataclass(frozen=True, slots=True)
class DeviationRisk:
    """Risk of the deviation d = y − w·Y over a horizon: ½·a·dᵀΣd with Σ = D·R·D, volatilities D
    (hubs 0) and correlations R.

    Deviations sum to zero, so marginal risks Σd matter only up to a common shift: a move saves
    their difference. The dual variable is r, D·r being marginal risks with any convenient shift.
    They are within ±P/2: further out the deviation counts by its distance, as elsewhere, so that no
    move costs more than P at the margin. `bend` is the conjugate's matrix (R⁻¹ − R⁻¹u·uᵀR⁻¹ /
    uᵀR⁻¹u) / a with u = D⁻¹1, the least of r·R⁻¹·r / a over all shifts.
    """

    volatility: FloatArray
    bend: FloatArray

    @property
    def tokens(self) -> IndexArray:
        """Return tokens whose deviation counts: all except hubs, including unmoved tokens."""
        return np.flatnonzero(self.volatility)

    def cap(self, most: float) -> FloatArray:
        """Return the largest |r| of each token, for marginal risks of at most `most`."""
        return np.asarray(most / self.volatility[self.tokens])

    def cost(self, off: FloatArray, most: float) -> float:
        """Return the cost of a deviation: the largest (D·r)·d − ½ r·bend·r within the cap."""
        weight, cap = (self.volatility * off)[self.tokens], self.cap(most)
        best, _ = box_minimum(self.bend, -weight, -cap, cap)
        return dot(weight, best) - 0.5 * dot(matvec(self.bend, best), best)


def build_deviation_risk(
    volatility: FloatArray, related: FloatArray, aversion: float
) -> DeviationRisk:
    """Return the risk with factor a = `aversion`. `related` are the correlations R of the tokens
    that have a volatility, positive definite.
    """
    calm = 1 / volatility[volatility > 0]
    turned = inverse(related)
    pulled = matvec(turned, calm)
    return DeviationRisk(
        volatility, (turned - np.outer(pulled, pulled) / dot(calm, pulled)) / aversion
    )


@dataclass(frozen=True, slots=True)
class PlanUtility:
    """Goal shares by position, the price P of a unit that has to move, θ as `tie_break`, and the
    risk that replaces the distance in a zone.

    `pinned` are tokens that must end at a given value, such as empty hubs, in units of the scale.
    """

    low: FloatArray
    high: FloatArray
    price: float
    tie_break: float
    pinned: Mapping[int, float]
    risk: DeviationRisk | None = None

    @property
    def goals(self) -> IndexArray:
        """Tokens that have a goal."""
        return np.array(
            [number for number in range(len(self.low)) if number not in self.pinned], dtype=np.intp
        )

    def of(self, ends: FloatArray) -> float:
        """Return the utility of the final token values, in units of the scale."""
        whole, goals = fsum_array(ends), self.goals
        if self.risk is not None:
            return whole - self.risk.cost(ends - self.low * whole, self.price / 2)
        above = fsum_array(np.maximum(ends - self.high * whole, 0.0)[goals])
        below = fsum_array(np.maximum(self.low * whole - ends, 0.0)[goals])
        return whole - self.price * (self.tie_break * above + (1 - self.tie_break) * below)

    def exactly(self, ends: Sequence[Fraction]) -> Fraction:
        """Return the utility in exact numbers; a lower bound where risk is known only in floats."""
        whole, goals = sum(ends, Fraction(0)), self.goals
        if self.risk is not None:
            loss = float(whole) - self.of(np.array([float(end) for end in ends]))
            return whole - Fraction(max(loss, 0.0) * (1 + 1e-9))
        above = sum(
            (max(Fraction(0), ends[i] - Fraction(float(self.high[i])) * whole) for i in goals),
            Fraction(0),
        )
        below = sum(
            (max(Fraction(0), Fraction(float(self.low[i])) * whole - ends[i]) for i in goals),
            Fraction(0),
        )
        tie_break = Fraction(self.tie_break)
        return whole - Fraction(self.price) * (tie_break * above + (1 - tie_break) * below)


@dataclass(frozen=True, slots=True)
class FlowOptimizer:
    """Search for the flows of highest utility from `start` holdings (pool gains included), under a
    limit of turnover.

    `held` is the base of turnover, `budget` its bound (None: unbounded). Tokens end between `least`
    and `most`. `ways`, if known, is −1 for tokens that shrink or stay, +1 for those that grow or
    stay; the bounds must agree with it. With `has_hard_goals` tokens never pass point goals, even
    if that would pay.
    """

    worth: PlanUtility
    held: FloatArray
    start: FloatArray
    least: FloatArray
    most: FloatArray
    budget: float | None
    ways: FloatArray | None = None
    has_hard_goals: bool = False

    def solve(
        self, stack: CurveStack, near: Solution | None = None, below: float = -np.inf
    ) -> Solution:
        """Return the dual's minimum over `stack`. Under a turnover limit, tokens with a wrongly
        guessed direction are reversed.

        If the directions are known, it ends early once the utility is certain to stay below
        `below`.
        """
        if self.ways is not None:
            return solve_dual(self._program(-self.ways[self.worth.goals]), stack, near, below)
        solution = solve_dual(self._program(None), stack, near)
        if self.budget is None or self.turnover(stack, solution) <= self.budget:
            return solution
        goals = self.worth.goals
        moves = (self.ends(stack, solution) - self.held)[goals]
        unsure = np.abs(moves) <= UNMOVED
        away = np.where(np.where(unsure, self.side(goals), moves) > 0, -1.0, 1.0)
        for _ in range(TURNS):
            program = self._program(away)
            solution = solve_dual(program, stack, solution)
            stays, most = solution.multipliers[-len(goals) - 1 : -1], solution.multipliers[-1]
            wrong = stays > most * (1 + 1e-9) + 1e-15
            if not wrong.any():
                return solution
            away = np.where(wrong, -away, away)
        # Beyond μ a token's multiplier would reward not moving, and the dual would not be a bound.
        return evaluate_dual(
            program,
            stack,
            np.concatenate(
                (solution.multipliers[: -len(goals) - 1], np.minimum(stays, most), [most])
            ),
        )

    def ends(self, stack: CurveStack, found: Solution) -> FloatArray:
        """Return the final value of each token."""
        return self.start + found.moved(stack)

    def turnover(self, stack: CurveStack, found: Solution) -> float:
        """Return half the sum of absolute changes."""
        return fsum_array(np.abs(self.ends(stack, found) - self.held)) / 2

    @property
    def _bottoms(self) -> list[int]:
        """Return the tokens that need a lower bound. In a zone no token may go below zero, as a
        nearly riskless one otherwise would. The same holds for a token that only grows: pools that
        pay more than the reference would otherwise buy tokens that the wallet does not have.
        """
        zone, ways = self.worth.risk is not None, self.ways
        return [
            int(i)
            for i in self.worth.goals
            if self.least[i] > 0
            or (self.least[i] == 0 and (zone or (ways is not None and ways[i] > 0)))
        ]

    @property
    def _tops(self) -> list[int]:
        return [int(i) for i in self.worth.goals if np.isfinite(self.most[i])]

    def pressed(self, found: Solution) -> list[int]:
        """Return tokens that would be sold in excess of the allowed amount."""
        worth = self.worth
        if worth.risk is None:
            first = sum(1 if worth.low[i] == worth.high[i] else 2 for i in worth.goals)
        else:
            first = len(worth.risk.tokens)
        return [
            i
            for number, i in enumerate(self._bottoms)
            if found.multipliers[first + number] > PRESSED * worth.price
        ]

    def side(self, goals: IndexArray) -> FloatArray:
        """Return a positive number for tokens below their goal, and for those inside it while more
        value lies above goals than below.
        """
        worth, whole = self.worth, fsum_array(self.start)
        ends, low, high = self.start[goals], worth.low[goals] * whole, worth.high[goals] * whole
        return np.where(ends > high, -1.0, np.where(ends < low, 1.0, worth.tie_break - 0.5))

    def _program(self, away: FloatArray | None) -> Program:
        """Return the dual as a program over prices. `away` is +1 for each goal token that may only
        shrink, −1 for those that may only grow; None without a turnover limit.

        The limit adds μ·(budget − turnover). A separate multiplier lets a token that does not move
        pay less than its half of μ, unless its bounds have one.
        """
        worth, goals, price = self.worth, self.worth.goals, self.worth.price
        sure = price + SURE
        rows: list[MultiplierRow] = []
        if worth.risk is not None:
            caps = worth.risk.cap(price / 2).tolist()
            for i, cap in zip(worth.risk.tokens.tolist(), caps, strict=True):
                volatility = worth.risk.volatility[i]
                rows.append((i, worth.low[i] * volatility, -volatility, 0.0, -cap, cap))
        for i in goals.tolist() if worth.risk is None else ():
            low, high = worth.low[i], worth.high[i]
            if low == high:
                least, most = -price * (1 - worth.tie_break), price * worth.tie_break
                if self.has_hard_goals and self.ways is not None:
                    way = self.ways[i]
                else:
                    way = 0
                ends = way < 0 or low == 0  # no market absorbs more of a token than exists
                rows.append(
                    (i, low, -1.0, 0.0, -sure if ends else least, sure if way > 0 else most)
                )
            else:
                rows.append((i, high, -1.0, 0.0, 0.0, price * worth.tie_break))
                rows.append((i, -low, 1.0, 0.0, 0.0, price * (1 - worth.tie_break)))
        rows += [(i, 0.0, 1.0, -self.least[i], 0.0, sure) for i in self._bottoms]
        rows += [(i, 0.0, -1.0, self.most[i], 0.0, sure) for i in self._tops]
        rows += [(i, 0.0, -1.0, end, -sure, sure) for i, end in worth.pinned.items()]
        spread = None
        if away is not None and self.budget is not None:
            if self.ways is None:
                rows += [
                    (i, 0.0, -side, side * self.held[i], 0.0, 2 * price)
                    for i, side in zip(goals.tolist(), away.tolist(), strict=True)
                ]
            spread = np.zeros(len(self.held))
            spread[goals] = away / 2
            rows.append((0, 0.0, 0.0, self.budget - dot(spread, self.held), 0.0, sure))
        bend = None
        if worth.risk is not None:
            bend = np.zeros((len(rows), len(rows)))
            bend[: len(worth.risk.bend), : len(worth.risk.bend)] = worth.risk.bend
        return _program(self.start, rows, spread, bend)


MultiplierRow = tuple[int, float, float, float, float, float]
"""Token, shift, own, cost beyond that of the start, low and high of a multiplier (see Program)."""


def _program(
    start: FloatArray,
    rows: Sequence[MultiplierRow],
    spread: FloatArray | None,
    bend: FloatArray | None,
) -> Program:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
    _, shift, own, extra, low, high = columns
    token = np.array([row[0] for row in rows], dtype=np.intp)
    worth = fsum_array(start)
    program = Program(worth, shift, own, token, spread, extra, bend, low, high, len(start))
    return replace(program, cost=program.along(start) + extra)


def sell_program(start: FloatArray, pinned: Mapping[int, float], reach: float) -> Program:
    """Return the program of a sale into one token, whose price is 1. Every other token must end
    where it is pinned.
    """
    rows = [(i, 0.0, -1.0, end, -reach, reach) for i, end in pinned.items()]
    return _program(start, rows, None, None)


# --- Objective of a goal: target shares of the final total, the price of a unit off target, and the
# remaining turnover.


ROUNDED_RAW = 16
"""Base units by which rounded paths may fall short of an approved amount."""
FUZZ = Fraction(1, 10**12)
"""Float tolerance of a goal."""
REACH = 0.3
"""Penalty P in a zone, high enough never to block an exchange: the quadratic risk decides, and
plan_cost bounds pools.
"""
MOST_SAVED = 0.25
"""Largest saving per unit of exchange in a zone.

Higher savings are scaled down; they still outweigh any cost.
"""
HAIR = 5e-5
"""Half a basis point: margin inside a band's edge, so that rounding cannot leave a move outside."""


@dataclass(frozen=True, slots=True)
class PlanObjective:
    """Goal shares of the final total by node (hubs zero), current values, the price of a unit to
    move, and θ as `tie_break`. `least` is the value that cannot be sold: in positions, not
    approved, or protected. No token is bought beyond `most`. `off` is the value to move; in a zone
    `risk` prices the remainder.
    """

    held: FloatArray
    locked: FloatArray
    least: FloatArray
    most: FloatArray
    low: FloatArray
    high: FloatArray
    hubs: tuple[int, ...]
    price: float
    tie_break: float
    off: float
    risk: DeviationRisk | None = None

    def worth(self, scale: float, unmoved: Mapping[int, float]) -> PlanUtility:
        """Return the utility in units of `scale`; tokens in `unmoved` end at the given value."""
        pinned = dict.fromkeys(self.hubs, 0.0) | {
            token: value / scale for token, value in unmoved.items()
        }
        if self.risk is None:
            risk = None
        else:
            risk = DeviationRisk(self.risk.volatility, self.risk.bend / scale)
        return PlanUtility(
            self.low, self.high, self.price if risk is None else REACH, self.tie_break, pinned, risk
        )

    def search(
        self, scale: float, extra: FloatArray, unmoved: Mapping[int, float], budget: float | None
    ) -> FlowOptimizer:
        """Return the optimizer for pools that add `extra` (in units of `scale`); `budget` bounds
        turnover.
        """
        held = self.held / scale
        bounds = self.least / scale, self.most / scale
        return FlowOptimizer(
            self.worth(scale, unmoved),
            held,
            held + extra,
            *bounds,
            None if budget is None else budget / scale,
        )


def objective_for_goal(problem: Problem, goal: Goal) -> PlanObjective:
    """Return the objective of a goal, with slightly narrower intervals; P is plan_cost."""
    by_token = {weight.token: weight for weight in goal.weights}
    if set(by_token) != {node.address for node in problem.assets}:
        raise Refused(
            "the goal's tokens differ from the portfolio's assets",
            remedy="decide and plan from the same input",
            code=ErrorCode.GOAL,
        )
    wanted = [by_token.get(node.address) for node in problem.nodes]
    held = np.array([float(node.value) for node in problem.nodes])
    low = np.array([float(weight.low) if weight else 0.0 for weight in wanted])
    high = np.array([float(weight.high) if weight else 0.0 for weight in wanted])
    hair = np.minimum(HAIR, (high - low) / 4)
    low, high = low + hair, high - hair
    whole = fsum_array(held)
    above = fsum_array(np.maximum(held - high * whole, 0.0))
    below = fsum_array(np.maximum(low * whole - held, 0.0))
    points = bool((low == high).all())
    tie_break = 0.5 if points or above + below <= 0 else above / (above + below)
    if problem.plan_cost_bps is None:
        price = WIDE
    else:
        price = min(problem.plan_cost_bps / BPS, WIDE)
    locked = np.array([float(node.locked) for node in problem.nodes])
    least = np.array([float(_kept(node, goal)) for node in problem.nodes])
    most = np.array(
        [float(node.value) if node.address in goal.unbought else np.inf for node in problem.nodes]
    )
    hubs = tuple(number for number, node in enumerate(problem.nodes) if not node.is_asset)
    risk = None if goal.risk is None else _risk(problem, goal.risk, held - low * whole)
    return PlanObjective(
        held, locked, least, most, low, high, hubs, price, tie_break, max(above, below), risk
    )


def leaving_tokens(problem: Problem, goal: Goal) -> frozenset[str]:
    """Return the tokens that the goal sells to the last unit."""
    high = {weight.token: weight.high for weight in goal.weights}
    return frozenset(
        node.address
        for node in problem.assets
        if high[node.address] * problem.total <= node.locked * (1 + FUZZ)
    )


def objective_for_exit(objective: PlanObjective, into: int) -> PlanObjective:
    """Return the objective of an exit into an underweight token, which may end above its goal.

    Each unit sold saves the full price; otherwise the last part of the exit would stay unsold once
    the bought token has its share and pools pay more for further tokens.
    """
    if (
        objective.held[into] >= objective.low[into] * fsum_array(objective.held)
        or objective.high[into] >= 1
    ):
        return objective
    high = objective.high.copy()
    high[into] = 1.0
    return replace(objective, high=high, tie_break=1.0)


def _risk(problem: Problem, risk: TrackingRisk, off: FloatArray) -> DeviationRisk:
    """Return the zone's risk in value: its factor is λ·H / V. `off` is the current deviation."""
    tokens = [node.address for node in problem.assets]
    known = dict(zip(tokens, volatilities(risk, tokens), strict=True))
    spread = np.array([float(known.get(node.address, 0)) for node in problem.nodes])
    related = np.array([[float(entry) for entry in row] for row in correlations(risk, tokens)])
    factor = float(aversion(risk) / problem.total)
    slopes = factor * spread[: len(tokens)] * matvec(related, (spread * off)[: len(tokens)])
    return build_deviation_risk(
        spread, related, factor * min(1.0, MOST_SAVED / max(float(np.ptp(slopes)), MOST_SAVED))
    )


def _kept(node: TokenNode, goal: Goal) -> Value:
    """Return the lowest value that the goal permits for a token."""
    if node.address in goal.unsold:
        return node.value
    caps = dict(goal.sell_at_most)
    if node.address not in caps:
        return _least(node)
    return max(_least(node), node.value - caps[node.address] * node.price)


def _least(node: TokenNode) -> Value:
    """Return the value in positions, or held beyond the step's approval.

    The bound is slightly beyond the approval, at which legs stop exactly, so that no dust remains.
    """
    if node.cap_raw is None:
        return node.locked
    spendable = (node.cap_raw + ROUNDED_RAW) * node.price * (1 + FUZZ)
    return max(node.locked, node.value - spendable)


def turnover_left(
    step: StepInput, total: Value, apart: Value = Fraction(0)
) -> tuple[Value | None, str]:
    """Return the turnover left for this plan, and its limit's name; `apart` does not count. Raises
    Refused if the day's turnover leaves less than a trade, unless `apart` is above zero.
    """
    limits, found = step.limits, []
    if limits.turnover_bps is not None:
        found.append((total * Fraction(limits.turnover_bps, BPS), "limits.turnover"))
    if limits.daily_turnover_bps is not None:
        day = total * Fraction(limits.daily_turnover_bps, BPS)
        left = day - step.history.budgets.turnover_24h
        if left <= (limits.min_trade or 0) and not apart:
            raise Refused(
                "the turnover of the last 24 hours has used up limits.daily_turnover",
                (
                    Verdict(
                        "daily_turnover",
                        f"{float(step.history.budgets.turnover_24h / total):.2%}",
                        f"{float(day / total):.2%}",
                        False,
                    ),
                ),
                "wait until the last day's trades are 24 h old",
            )
        found.append((max(Fraction(0), left), "limits.daily_turnover"))
    least, name = min(found, default=(None, ""), key=lambda item: item[0])
    return (None if least is None else least + apart), name
