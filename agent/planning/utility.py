"""Utility of a plan: a concave function of the final token values, and its dual as a program over
prices.

Tokens end at y, in all Y = Σ y. Off a goal of shares [low, high] a plan is worth

    Y − P · (θ · Σ (yᵢ − highᵢ·Y)⁺ + (1 − θ) · Σ (lowᵢ·Y − yᵢ)⁺)

P is the largest marginal cost of moving a unit: a unit that moves from a token above its goal to
one below saves P. θ is ½ for point goals, so that this is Y − P/2 · Σ |yᵢ − wᵢ·Y|; if only one side
of the goal remains, that side has all of P. In a zone the deviation is priced by its risk (see
DeviationRisk). The utility scales with y, so that costs need no guess of the final total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.floats import FloatArray, dot, fsum_array, inverse, matvec
from agent.planning.dual import Program, Solution, box_minimum, evaluate_dual, solve_dual
from agent.planning.pool_curves import CurveStack

IndexArray = NDArray[np.intp]
WIDE = 0.9
"""Maximum P, and P if the plan cost limit is off. At 1, losing everything that must be sold would
cost nothing.
"""
UNMOVED = 1e-7
"""Change per unit of scale below which a token counts as where it was."""
SURE = 0.6
"""Price, beyond P, of a unit past a bound that must hold at any market price."""
PRESSED = 1e-6
"""Part of P from which on a bound's price counts."""
TURNS = 12
"""Most times that tokens' directions are guessed anew under a limit of turnover."""


@dataclass(frozen=True, slots=True)
class DeviationRisk:
    """Risk of the deviation d = y − w·Y over a horizon: ½·a·dᵀΣd with Σ = D·R·D, volatilities D
    (hubs 0) and correlations R.

    Deviations sum to zero, so that marginal risks Σd matter up to a common shift: a move saves
    their difference. The dual variable is r, D·r being marginal risks with any convenient shift.
    They are within ±P/2: further out the deviation counts by its distance, as elsewhere, so that no
    move costs more than P at the margin. `bend` is the conjugate's matrix (R⁻¹ − R⁻¹u·uᵀR⁻¹ /
    uᵀR⁻¹u) / a with u = D⁻¹1, the least of r·R⁻¹·r / a over all shifts.
    """

    volatility: FloatArray
    bend: FloatArray

    @property
    def tokens(self) -> IndexArray:
        """Return tokens whose deviation counts: all but hubs, including unmoved tokens."""
        return np.flatnonzero(self.volatility)

    def cap(self, most: float) -> FloatArray:
        """Largest |r| of each of its tokens."""
        return np.asarray(most / self.volatility[self.tokens])

    def cost(self, off: FloatArray, most: float) -> float:
        """Return the cost of a deviation: the largest (D·r)·d − ½ r·bend·r within the cap."""
        weight, cap = (self.volatility * off)[self.tokens], self.cap(most)
        best, _ = box_minimum(self.bend, -weight, -cap, cap)
        return dot(weight, best) - 0.5 * dot(matvec(self.bend, best), best)


def build_deviation_risk(
    volatility: FloatArray, related: FloatArray, aversion: float
) -> DeviationRisk:
    """The risk with factor a = `aversion`. `related` are the correlations R of the tokens that have
    a volatility, positive definite.
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

    `pinned` are tokens that must end at a value of their own, such as empty hubs, in units of the
    scale.
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
    stay; the bounds must agree with it. With `has_hard_goals` tokens never pass point goals,
    whatever that would bring.
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

        If the directions are known it ends early once flows are sure to have a utility below
        `below`.
        """
        if self.ways is not None:
            return solve_dual(self._program(-self.ways[self.worth.goals]), stack, near, below)
        found = solve_dual(self._program(None), stack, near)
        if self.budget is None or self.turnover(stack, found) <= self.budget:
            return found
        goals = self.worth.goals
        moves = (self.ends(stack, found) - self.held)[goals]
        unsure = np.abs(moves) <= UNMOVED
        away = np.where(np.where(unsure, self.side(goals), moves) > 0, -1.0, 1.0)
        for _ in range(TURNS):
            program = self._program(away)
            found = solve_dual(program, stack, found)
            stays, most = found.multipliers[-len(goals) - 1 : -1], found.multipliers[-1]
            wrong = stays > most * (1 + 1e-9) + 1e-15
            if not wrong.any():
                return found
            away = np.where(wrong, -away, away)
        # Beyond μ a token's multiplier would pay it for not moving, and the dual would bound
        # nothing.
        return evaluate_dual(
            program,
            stack,
            np.concatenate((found.multipliers[: -len(goals) - 1], np.minimum(stays, most), [most])),
        )

    def ends(self, stack: CurveStack, found: Solution) -> FloatArray:
        """Return the final value of each token."""
        return self.start + found.moved(stack)

    def turnover(self, stack: CurveStack, found: Solution) -> float:
        """Half the sum of absolute changes."""
        return fsum_array(np.abs(self.ends(stack, found) - self.held)) / 2

    @property
    def _bottoms(self) -> list[int]:
        """Tokens with a lower bound.

        In a zone none may go below zero, as a nearly riskless one otherwise would. Nor may a token
        that only grows because pools pay more than the reference, which would otherwise be sold
        without being held.
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
        """Return tokens of which more would be sold than allowed."""
        worth = self.worth
        first = (
            sum(1 if worth.low[i] == worth.high[i] else 2 for i in worth.goals)
            if worth.risk is None
            else len(worth.risk.tokens)
        )
        return [
            i
            for number, i in enumerate(self._bottoms)
            if found.multipliers[first + number] > PRESSED * worth.price
        ]

    def side(self, goals: IndexArray) -> FloatArray:
        """Return a positive number for tokens below their goal, or inside it while others are above
        theirs.
        """
        worth, whole = self.worth, fsum_array(self.start)
        ends, low, high = self.start[goals], worth.low[goals] * whole, worth.high[goals] * whole
        return np.where(ends > high, -1.0, np.where(ends < low, 1.0, worth.tie_break - 0.5))

    def _program(self, away: FloatArray | None) -> Program:
        """`away` is +1 for each goal token that may only shrink, −1 for those that may only grow;
        None without a limit.

        The limit adds μ·(budget − turnover); a token that stays where it is pays less than its half
        of μ, by a multiplier of its own unless the bounds have it.
        """
        worth, size, goals = self.worth, len(self.held), self.worth.goals
        unit, price, sure = np.eye(size), worth.price, worth.price + SURE
        rows: list[tuple[FloatArray, float, float, float]] = []
        if worth.risk is not None:
            for i, cap in zip(worth.risk.tokens, worth.risk.cap(price / 2).tolist(), strict=True):
                rows.append(((worth.low[i] - unit[i]) * worth.risk.volatility[i], 0.0, -cap, cap))
        for i in goals if worth.risk is None else ():
            if worth.low[i] == worth.high[i]:
                least, most = -price * (1 - worth.tie_break), price * worth.tie_break
                way = self.ways[i] if self.has_hard_goals and self.ways is not None else 0
                ends = way < 0 or worth.low[i] == 0  # no market takes more of a token than exists
                rows.append(
                    (
                        worth.low[i] - unit[i],
                        0.0,
                        -sure if ends else least,
                        sure if way > 0 else most,
                    )
                )
            else:
                rows.append((worth.high[i] - unit[i], 0.0, 0.0, price * worth.tie_break))
                rows.append((unit[i] - worth.low[i], 0.0, 0.0, price * (1 - worth.tie_break)))
        rows += [(unit[i], -self.least[i], 0.0, sure) for i in self._bottoms]
        rows += [(-unit[i], self.most[i], 0.0, sure) for i in self._tops]
        rows += [(-unit[i], end, -sure, sure) for i, end in worth.pinned.items()]
        if away is not None and self.budget is not None:
            if self.ways is None:
                rows += [
                    (-side * unit[i], side * self.held[i], 0.0, 2 * price)
                    for i, side in zip(goals, away, strict=True)
                ]
            half = np.zeros(size)
            half[goals] = away / 2
            rows.append((half, self.budget - dot(half, self.held), 0.0, sure))
        columns, extra, low, high = zip(*rows, strict=True)
        rise = np.array(columns).T
        bend = None
        if worth.risk is not None:
            bend = np.zeros((len(rows), len(rows)))
            bend[: len(worth.risk.bend), : len(worth.risk.bend)] = worth.risk.bend
        cost = matvec(rise.T, self.start) + np.array(extra)
        return Program(fsum_array(self.start), rise, cost, bend, np.array(low), np.array(high))


def sell_program(start: FloatArray, pinned: Mapping[int, float], reach: float) -> Program:
    """Return the program of a manual swap: every token but the one bought, whose price is 1, must
    end where it is pinned.
    """
    unit = np.eye(len(start))
    rise = np.array([-unit[i] for i in pinned]).T
    cost = np.array([end - start[i] for i, end in pinned.items()])
    edge = np.full(len(cost), reach)
    return Program(fsum_array(start), rise, cost, None, -edge, edge)
