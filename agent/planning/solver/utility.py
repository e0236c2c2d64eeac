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
from typing import NamedTuple

import numpy as np

from agent.errors import ErrorCode, Refused
from agent.floats import FloatArray, IndexArray, dot, fsum_array, inverse, matvec
from agent.model import Goal, GoalWeight, StepInput, TrackingRisk, Verdict
from agent.planning.pool_curves import CurveStack
from agent.planning.problem import Problem, TokenNode
from agent.planning.solver.box import box_minimum
from agent.planning.solver.dual import (
    DualProgram,
    DualSolution,
    evaluate_dual,
    slopes_along,
    solve_dual,
)
from agent.policy.risk import aversion, correlations_bps
from agent.units import BPS, Value, format_percent, format_time

MAX_PENALTY = 0.9
"""Maximum P, and P if the plan cost limit is off. At 1, losing everything that must be sold would
count as free.
"""
UNMOVED_FRACTION = 1e-7
"""Change per unit of scale below which a token counts as unmoved."""
HARD_BOUND_PRICE = 0.6
"""Price, beyond P, of a unit past a bound that must hold at any market price."""
OVERSOLD_FRACTION = 1e-6
"""Fraction of P above which the price of a bound counts."""
MAX_DIRECTION_GUESSES = 12
"""Maximum number of new guesses of the tokens' directions under a turnover limit."""


@dataclass(frozen=True, slots=True)
class DeviationRisk:
    """Risk of the deviation d = y − w·Y over a horizon: ½·a·dᵀΣd with Σ = D·R·D, volatilities D
    (hubs 0) and correlations R.

    Deviations sum to zero, so marginal risks Σd matter only up to a common shift: a move saves
    their difference. The dual variable is r, D·r being marginal risks with any convenient shift.
    They are within ±P/2: further out the deviation counts by its distance, as elsewhere, so that no
    move costs more than P at the margin. `quadratic` is the conjugate's matrix (R⁻¹ − R⁻¹u·uᵀR⁻¹ /
    uᵀR⁻¹u) / a with u = D⁻¹1, the least of r·R⁻¹·r / a over all shifts.
    """

    volatility: FloatArray
    quadratic: FloatArray

    @property
    def tokens(self) -> IndexArray:
        """Return tokens whose deviation counts: all except hubs, including unmoved tokens."""
        return np.flatnonzero(self.volatility)

    def multiplier_caps(self, max_marginal_risk: float) -> FloatArray:
        """Return the largest |r| of each token, for marginal risks of at most
        `max_marginal_risk`.
        """
        return np.asarray(max_marginal_risk / self.volatility[self.tokens])

    def cost(self, deviation: FloatArray, max_marginal_risk: float) -> float:
        """Return the cost of a deviation: the largest (D·r)·d − ½ r·quadratic·r within the cap."""
        weighted_deviation = (self.volatility * deviation)[self.tokens]
        cap = self.multiplier_caps(max_marginal_risk)
        best_multipliers, _ = box_minimum(self.quadratic, -weighted_deviation, -cap, cap)
        return dot(weighted_deviation, best_multipliers) - 0.5 * dot(
            matvec(self.quadratic, best_multipliers), best_multipliers
        )


def build_deviation_risk(
    volatility: FloatArray, correlation: FloatArray, risk_factor: float
) -> DeviationRisk:
    """Return the risk with factor a = `risk_factor`. `correlation` are the correlations R of the
    tokens that have a volatility, positive definite.
    """
    inverse_volatility = 1 / volatility[volatility > 0]
    inverse_correlation = inverse(correlation)
    inverse_product = matvec(inverse_correlation, inverse_volatility)
    return DeviationRisk(
        volatility,
        (
            inverse_correlation
            - np.outer(inverse_product, inverse_product) / dot(inverse_volatility, inverse_product)
        )
        / risk_factor,
    )


@dataclass(frozen=True, slots=True)
class PlanUtility:
    """Goal shares by index, the price P of a unit that has to move, θ as `above_weight`, and the
    risk that replaces the distance in a zone.

    `end_value_by_token` are tokens that must end at a given value, such as empty hubs, in units of
    the scale.
    """

    low_shares: FloatArray
    high_shares: FloatArray
    penalty: float
    above_weight: float
    end_value_by_token: Mapping[int, float]
    risk: DeviationRisk | None = None

    @property
    def goal_tokens(self) -> IndexArray:
        """Tokens that have a goal."""
        return np.array(
            [
                index
                for index in range(len(self.low_shares))
                if index not in self.end_value_by_token
            ],
            dtype=np.intp,
        )

    def utility_of(self, final_values: FloatArray) -> float:
        """Return the utility of the final token values, in units of the scale."""
        total = fsum_array(final_values)
        goal_tokens = self.goal_tokens
        if self.risk is not None:
            return total - self.risk.cost(final_values - self.low_shares * total, self.penalty / 2)
        total_above = fsum_array(
            np.maximum(final_values - self.high_shares * total, 0.0)[goal_tokens]
        )
        total_below = fsum_array(
            np.maximum(self.low_shares * total - final_values, 0.0)[goal_tokens]
        )
        return total - self.penalty * (
            self.above_weight * total_above + (1 - self.above_weight) * total_below
        )

    def exact_utility_of(self, final_values: Sequence[Fraction]) -> Fraction:
        """Return the utility in exact numbers; where risk counts, which is known only in floats, at
        most a float's error of the total above it (the gap adds plan_builder.FLOAT_ERROR).
        """
        total = sum(final_values, Fraction(0))
        goal_tokens = self.goal_tokens
        if self.risk is not None:
            risk_cost = float(total) - self.utility_of(
                np.array([float(final_value) for final_value in final_values])
            )
            return total - Fraction(max(risk_cost, 0.0) * (1 + 1e-9))
        total_above = sum(
            (
                max(Fraction(0), final_values[i] - Fraction(float(self.high_shares[i])) * total)
                for i in goal_tokens
            ),
            Fraction(0),
        )
        total_below = sum(
            (
                max(Fraction(0), Fraction(float(self.low_shares[i])) * total - final_values[i])
                for i in goal_tokens
            ),
            Fraction(0),
        )
        above_weight = Fraction(self.above_weight)
        return total - Fraction(self.penalty) * (
            above_weight * total_above + (1 - above_weight) * total_below
        )


@dataclass(frozen=True, slots=True)
class FlowOptimizer:
    """Search for the flows of highest utility from the holdings `start_values` (pool gains
    included), under a limit of turnover.

    `held_values` is the base of turnover, `max_turnover` its bound (None: unbounded). Tokens end
    between `min_values` and `max_values`. `directions`, if known, is −1 for tokens that shrink or
    stay, +1 for those that grow or stay; the bounds must agree with it. With `has_hard_goals`
    tokens never pass point goals, even if that would pay.
    """

    utility: PlanUtility
    held_values: FloatArray
    start_values: FloatArray
    min_values: FloatArray
    max_values: FloatArray
    max_turnover: float | None
    directions: FloatArray | None = None
    has_hard_goals: bool = False

    def solve(
        self,
        stack: CurveStack,
        earlier_solution: DualSolution | None = None,
        required_bound: float = -np.inf,
    ) -> DualSolution:
        """Return the dual's minimum over `stack`. Under a turnover limit, tokens with a wrongly
        guessed direction are reversed.

        If the directions are known, it ends early once the utility is certain to stay below
        `required_bound`.
        """
        if self.directions is not None:
            return solve_dual(
                self._program(-self.directions[self.utility.goal_tokens]),
                stack,
                earlier_solution,
                required_bound,
            )
        solution = solve_dual(self._program(None), stack, earlier_solution)
        if self.max_turnover is None or self.turnover(stack, solution) <= self.max_turnover:
            return solution
        goal_tokens = self.utility.goal_tokens
        value_moves = (self.final_values(stack, solution) - self.held_values)[goal_tokens]
        is_undecided = np.abs(value_moves) <= UNMOVED_FRACTION
        shrink_signs = np.where(
            np.where(is_undecided, self.side(goal_tokens), value_moves) > 0, -1.0, 1.0
        )
        for _ in range(MAX_DIRECTION_GUESSES):
            program = self._program(shrink_signs)
            solution = solve_dual(program, stack, solution)
            stay_multipliers = solution.multipliers[-len(goal_tokens) - 1 : -1]
            turnover_multiplier = solution.multipliers[-1]
            has_wrong_direction = stay_multipliers > turnover_multiplier * (1 + 1e-9) + 1e-15
            if not has_wrong_direction.any():
                return solution
            shrink_signs = np.where(has_wrong_direction, -shrink_signs, shrink_signs)
        # Beyond μ a token's multiplier would reward not moving, and the dual would not be a bound.
        return evaluate_dual(
            program,
            stack,
            np.concatenate(
                (
                    solution.multipliers[: -len(goal_tokens) - 1],
                    np.minimum(stay_multipliers, turnover_multiplier),
                    [turnover_multiplier],
                )
            ),
        )

    def final_values(self, stack: CurveStack, solution: DualSolution) -> FloatArray:
        """Return the final value of each token."""
        return self.start_values + solution.token_changes(stack)

    def turnover(self, stack: CurveStack, solution: DualSolution) -> float:
        """Return half the sum of absolute changes."""
        return fsum_array(np.abs(self.final_values(stack, solution) - self.held_values)) / 2

    @property
    def _tokens_bounded_below(self) -> list[int]:
        """Return the tokens that need a lower bound. In a zone no token may go below zero, as a
        nearly riskless one otherwise would. The same holds for a token that only grows: pools that
        pay more than the reference would otherwise buy tokens that the wallet does not have.
        """
        in_zone = self.utility.risk is not None
        directions = self.directions
        return [
            int(i)
            for i in self.utility.goal_tokens
            if self.min_values[i] > 0
            or (
                self.min_values[i] == 0
                and (in_zone or (directions is not None and directions[i] > 0))
            )
        ]

    @property
    def _tokens_bounded_above(self) -> list[int]:
        return [int(i) for i in self.utility.goal_tokens if np.isfinite(self.max_values[i])]

    def oversold_tokens(self, solution: DualSolution) -> list[int]:
        """Return tokens that would be sold in excess of the allowed amount."""
        utility = self.utility
        if utility.risk is None:
            first_bound_index = sum(
                1 if utility.low_shares[i] == utility.high_shares[i] else 2
                for i in utility.goal_tokens
            )
        else:
            first_bound_index = len(utility.risk.tokens)
        return [
            i
            for bound_index, i in enumerate(self._tokens_bounded_below)
            if solution.multipliers[first_bound_index + bound_index]
            > OVERSOLD_FRACTION * utility.penalty
        ]

    def side(self, goal_tokens: IndexArray) -> FloatArray:
        """Return a positive number for tokens below their goal, and for those inside it while more
        value lies above goals than below.
        """
        utility = self.utility
        total = fsum_array(self.start_values)
        start_values = self.start_values[goal_tokens]
        low_values = utility.low_shares[goal_tokens] * total
        high_values = utility.high_shares[goal_tokens] * total
        return np.where(
            start_values > high_values,
            -1.0,
            np.where(start_values < low_values, 1.0, utility.above_weight - 0.5),
        )

    def _program(self, shrink_signs: FloatArray | None) -> DualProgram:
        """Return the dual as a program over prices. `shrink_signs` is +1 for each goal token that
        may only shrink, −1 for those that may only grow; None without a turnover limit.

        The limit adds μ·(max_turnover − turnover). A separate multiplier lets a token that does not
        move pay less than its half of μ, unless its bounds have one.
        """
        utility = self.utility
        goal_tokens = self.utility.goal_tokens
        penalty = self.utility.penalty
        bound_price = penalty + HARD_BOUND_PRICE
        multiplier_rows: list[MultiplierRow] = []
        if utility.risk is not None:
            caps = utility.risk.multiplier_caps(penalty / 2).tolist()
            for i, cap in zip(utility.risk.tokens.tolist(), caps, strict=True):
                volatility = utility.risk.volatility[i]
                multiplier_rows.append(
                    MultiplierRow(
                        i,
                        low=-cap,
                        high=cap,
                        common_rise=utility.low_shares[i] * volatility,
                        token_rise=-volatility,
                    )
                )
        for i in goal_tokens.tolist() if utility.risk is None else ():
            low_share = utility.low_shares[i]
            high_share = utility.high_shares[i]
            if low_share == high_share:
                low_price = -penalty * (1 - utility.above_weight)
                high_price = penalty * utility.above_weight
                if self.has_hard_goals and self.directions is not None:
                    direction = self.directions[i]
                else:
                    direction = 0
                floor_is_hard = (
                    direction < 0 or low_share == 0
                )  # no market absorbs more of a token than exists
                multiplier_rows.append(
                    MultiplierRow(
                        i,
                        low=-bound_price if floor_is_hard else low_price,
                        high=bound_price if direction > 0 else high_price,
                        common_rise=low_share,
                        token_rise=-1.0,
                    )
                )
            else:
                multiplier_rows += [
                    MultiplierRow(
                        i,
                        high=penalty * utility.above_weight,
                        common_rise=high_share,
                        token_rise=-1.0,
                    ),
                    MultiplierRow(
                        i,
                        high=penalty * (1 - utility.above_weight),
                        common_rise=-low_share,
                        token_rise=1.0,
                    ),
                ]
        multiplier_rows += [
            MultiplierRow(i, high=bound_price, token_rise=1.0, extra_cost=-self.min_values[i])
            for i in self._tokens_bounded_below
        ]
        multiplier_rows += [
            MultiplierRow(i, high=bound_price, token_rise=-1.0, extra_cost=self.max_values[i])
            for i in self._tokens_bounded_above
        ]
        multiplier_rows += [
            _end_row(i, end_value, bound_price)
            for i, end_value in utility.end_value_by_token.items()
        ]
        last_rises = None
        if shrink_signs is not None and self.max_turnover is not None:
            if self.directions is None:
                multiplier_rows += [
                    MultiplierRow(
                        i,
                        high=2 * penalty,
                        token_rise=-sign,
                        extra_cost=sign * self.held_values[i],
                    )
                    for i, sign in zip(goal_tokens.tolist(), shrink_signs.tolist(), strict=True)
                ]
            last_rises = np.zeros(len(self.held_values))
            last_rises[goal_tokens] = shrink_signs / 2
            multiplier_rows.append(
                MultiplierRow(
                    0,
                    high=bound_price,
                    extra_cost=self.max_turnover - dot(last_rises, self.held_values),
                )
            )
        quadratic = None
        if utility.risk is not None:
            quadratic = np.zeros((len(multiplier_rows), len(multiplier_rows)))
            quadratic[: len(utility.risk.quadratic), : len(utility.risk.quadratic)] = (
                utility.risk.quadratic
            )
        return _build_program(self.start_values, multiplier_rows, last_rises, quadratic)


class MultiplierRow(NamedTuple):
    """A multiplier of a DualProgram: its token, range and rises, and its cost beyond that of the
    start.
    """

    token: int
    low: float = 0.0
    high: float = 0.0
    common_rise: float = 0.0
    token_rise: float = 0.0
    extra_cost: float = 0.0


def _end_row(token: int, end_value: float, max_price: float) -> MultiplierRow:
    """Return the multiplier of a token that must end at a value."""
    return MultiplierRow(
        token, low=-max_price, high=max_price, token_rise=-1.0, extra_cost=end_value
    )


def _build_program(
    start_values: FloatArray,
    multiplier_rows: Sequence[MultiplierRow],
    last_rises: FloatArray | None,
    quadratic: FloatArray | None,
) -> DualProgram:
    columns = np.array(multiplier_rows, dtype=np.float64).reshape(-1, 6).T
    _, low, high, common_rise, token_rise, extra_cost = columns
    token = np.array([row.token for row in multiplier_rows], dtype=np.intp)
    start_slopes = slopes_along(common_rise, token_rise, token, last_rises, start_values)
    return DualProgram(
        base=fsum_array(start_values),
        common_rise=common_rise,
        token_rise=token_rise,
        token=token,
        last_rises=last_rises,
        cost=start_slopes + extra_cost,
        quadratic=quadratic,
        low=low,
        high=high,
        token_count=len(start_values),
    )


def sell_program(
    start_values: FloatArray, pinned_values: Mapping[int, float], price_range: float
) -> DualProgram:
    """Return the program of a sale into one token, whose price is 1. Every other token must end
    where it is pinned.
    """
    multiplier_rows = [
        _end_row(i, end_value, price_range) for i, end_value in pinned_values.items()
    ]
    return _build_program(start_values, multiplier_rows, None, None)


# --- Objective of a goal: target shares of the final total, the price of a unit off target, and the
# remaining turnover.


MAX_ROUNDING_RAW = 16
"""Base units by which rounded paths may fall short of an approved amount."""
FLOAT_TOLERANCE = Fraction(1, 10**12)
"""Float tolerance of a goal."""
ZONE_PENALTY = 0.3
"""Penalty P in a zone, high enough never to block an exchange: the quadratic risk decides, and
plan_cost bounds pools.
"""
MAX_ZONE_SAVING = 0.25
"""Largest saving per unit of exchange in a zone.

Higher savings are scaled down; they still outweigh any cost.
"""
EDGE_MARGIN = 5e-5
"""Half a basis point: margin inside a band's edge, so that rounding cannot leave a move outside."""


@dataclass(frozen=True, slots=True)
class PlanObjective:
    """Goal shares of the final total by node (hubs zero), current values, the price of a unit to
    move, and θ as `above_weight`. `min_values` is the value that cannot be sold: in positions, not
    approved, or protected. No token is bought beyond `max_values`. `value_off_goal` is the value to
    move; in a zone `risk` prices the remainder.
    """

    held_values: FloatArray
    locked_values: FloatArray
    min_values: FloatArray
    max_values: FloatArray
    low_shares: FloatArray
    high_shares: FloatArray
    hubs: tuple[int, ...]
    penalty: float
    above_weight: float
    value_off_goal: float
    risk: DeviationRisk | None = None

    def with_less_bought(self, token: int, excess_value: float) -> PlanObjective:
        """Return the objective that buys less of a token by this value and a margin for rounding."""
        max_values = self.max_values.copy()
        max_values[token] -= excess_value + EDGE_MARGIN * fsum_array(self.held_values)
        return replace(self, max_values=np.maximum(max_values, self.held_values))

    def with_risk_factor(self, factor: Fraction) -> PlanObjective:
        """Return the objective with the price of risk multiplied by `factor`; itself without risk."""
        if self.risk is None:
            return self
        quadratic = self.risk.quadratic / float(factor)
        return replace(self, risk=replace(self.risk, quadratic=quadratic))

    def utility(self, scale: float, unmoved_values: Mapping[int, float]) -> PlanUtility:
        """Return the utility in units of `scale`; tokens in `unmoved_values` end at the given
        value.
        """
        pinned_values = dict.fromkeys(self.hubs, 0.0) | {
            token: unmoved_value / scale for token, unmoved_value in unmoved_values.items()
        }
        if self.risk is None:
            risk = None
        else:
            risk = DeviationRisk(self.risk.volatility, self.risk.quadratic / scale)
        return PlanUtility(
            self.low_shares,
            self.high_shares,
            self.penalty if risk is None else ZONE_PENALTY,
            self.above_weight,
            pinned_values,
            risk,
        )

    def optimizer(
        self,
        scale: float,
        extra_output: FloatArray,
        unmoved_values: Mapping[int, float],
        max_turnover: float | None,
    ) -> FlowOptimizer:
        """Return the optimizer for pools that add `extra_output` (in units of `scale`);
        `max_turnover` bounds turnover.
        """
        held_values = self.held_values / scale
        value_bounds = self.min_values / scale, self.max_values / scale
        return FlowOptimizer(
            self.utility(scale, unmoved_values),
            held_values,
            held_values + extra_output,
            *value_bounds,
            None if max_turnover is None else max_turnover / scale,
        )


def objective_for_goal(problem: Problem, goal: Goal) -> PlanObjective:
    """Return the objective of a goal, with slightly narrower intervals; P is plan_cost."""
    weight_by_token = {weight.token: weight for weight in goal.weights}
    if set(weight_by_token) != {node.address for node in problem.assets}:
        raise Refused(
            "the goal's tokens differ from the portfolio's assets",
            remedy="decide and plan from the same input",
            code=ErrorCode.GOAL,
        )
    goal_weights = [weight_by_token.get(node.address) for node in problem.nodes]
    held_values = np.array([float(node.value) for node in problem.nodes])
    low_shares = np.array([float(weight.low) if weight else 0.0 for weight in goal_weights])
    high_shares = np.array([float(weight.high) if weight else 0.0 for weight in goal_weights])
    edge_margins = np.minimum(EDGE_MARGIN, (high_shares - low_shares) / 4)
    low_shares += edge_margins
    high_shares -= edge_margins
    total = fsum_array(held_values)
    total_above = fsum_array(np.maximum(held_values - high_shares * total, 0.0))
    total_below = fsum_array(np.maximum(low_shares * total - held_values, 0.0))
    all_are_points = bool((low_shares == high_shares).all())
    above_weight = (
        0.5
        if all_are_points or total_above + total_below <= 0
        else total_above / (total_above + total_below)
    )
    if problem.plan_cost_bps is None:
        penalty = MAX_PENALTY
    else:
        penalty = min(problem.plan_cost_bps / BPS, MAX_PENALTY)
    locked_values = np.array([float(node.locked_value) for node in problem.nodes])
    min_values = np.array([float(_lowest_value(node, goal)) for node in problem.nodes])
    problem_total = problem.total
    max_values = np.array(
        [
            _highest_value(node, weight, problem_total, goal)
            for node, weight in zip(problem.nodes, goal_weights, strict=True)
        ]
    )
    hubs = tuple(index for index, node in enumerate(problem.nodes) if not node.is_asset)
    risk = (
        None
        if goal.risk is None
        else _deviation_risk(problem, goal.risk, held_values - low_shares * total)
    )
    return PlanObjective(
        held_values,
        locked_values,
        min_values,
        max_values,
        low_shares,
        high_shares,
        hubs,
        penalty,
        above_weight,
        max(total_above, total_below),
        risk,
    )


def leaving_tokens(problem: Problem, goal: Goal) -> frozenset[str]:
    """Return the tokens that the goal sells to the last unit."""
    high_share_by_token = {weight.token: weight.high for weight in goal.weights}
    return frozenset(
        node.address
        for node in problem.assets
        if high_share_by_token[node.address] * problem.total
        <= node.locked_value * (1 + FLOAT_TOLERANCE)
    )


def bought_by_exit(problem: Problem, goal: Goal, numeraire_index: int) -> int:
    """Return the index of the token that an exit buys: the numeraire if it is below its goal, else
    the token furthest below, which the exit raises for a withdrawal.
    """
    total = problem.total
    low_share_by_token = {weight.token: weight.low for weight in goal.weights}
    shortfall_by_index = {
        index: low_share_by_token[node.address] * total - node.value
        for index, node in enumerate(problem.nodes)
        if node.is_asset
    }
    furthest_index = max(shortfall_by_index, key=lambda index: shortfall_by_index[index])
    if shortfall_by_index[numeraire_index] > 0 or shortfall_by_index[furthest_index] <= 0:
        return numeraire_index
    return furthest_index


def without_max_weights(objective: PlanObjective) -> PlanObjective:
    """Return the objective without limits on purchases: limits.max_weight binds no exit."""
    return replace(objective, max_values=np.full(len(objective.max_values), np.inf))


def objective_for_exit(objective: PlanObjective, bought_token: int) -> PlanObjective:
    """Return the objective of an exit into an underweight token, which may end above its goal.

    Each unit sold saves the full price; otherwise the last part of the exit would stay unsold once
    the bought token has its share and pools pay more for further tokens.
    """
    if objective.high_shares[bought_token] >= 1:
        return objective
    high_shares = objective.high_shares.copy()
    high_shares[bought_token] = 1.0
    return replace(objective, high_shares=high_shares, above_weight=1.0)


def _deviation_risk(problem: Problem, risk: TrackingRisk, deviation: FloatArray) -> DeviationRisk:
    """Return the zone's risk in value: its factor is λ·H / V. `deviation` is the current
    deviation.
    """
    tokens = [node.address for node in problem.assets]
    volatility_bps_by_token = dict(risk.volatilities_bps)
    volatility = np.array(
        [
            volatility_bps_by_token[node.address] / BPS if node.is_asset else 0.0
            for node in problem.nodes
        ]
    )
    correlation = np.array(correlations_bps(risk, tokens)) / BPS
    risk_factor = float(aversion(risk) / problem.total)
    marginal_risks = (
        risk_factor
        * volatility[: len(tokens)]
        * matvec(correlation, (volatility * deviation)[: len(tokens)])
    )
    return build_deviation_risk(
        volatility,
        correlation,
        risk_factor
        * min(1.0, MAX_ZONE_SAVING / max(float(np.ptp(marginal_risks)), MAX_ZONE_SAVING)),
    )


def _lowest_value(node: TokenNode, goal: Goal) -> Value:
    """Return the lowest value that the goal permits for a token."""
    if node.address in goal.never_sold:
        return node.value
    max_sold_raw = dict(goal.max_sold_raw_by_token)
    if node.address not in max_sold_raw:
        return _unspendable_value(node)
    return max(_unspendable_value(node), node.value - max_sold_raw[node.address] * node.price)


def _highest_value(node: TokenNode, weight: GoalWeight | None, total: Value, goal: Goal) -> float:
    """Return the value beyond which a token is not bought: what it has, or slightly less than its
    largest weight of the current total unless its goal ends there or below; infinite otherwise.
    """
    if node.address in goal.never_bought:
        return float(node.value)
    if weight is None or node.max_bps is None:
        return np.inf
    if goal.risk is None and weight.high * BPS <= node.max_bps:
        return np.inf
    return max(float(node.value), (node.max_bps / BPS - EDGE_MARGIN) * float(total))


def _unspendable_value(node: TokenNode) -> Value:
    """Return the value in positions, or held beyond the step's approval.

    The bound is slightly beyond the approval, at which legs stop exactly, so that no dust remains.
    """
    if node.cap_raw is None:
        return node.locked_value
    spendable_value = (node.cap_raw + MAX_ROUNDING_RAW) * node.price * (1 + FLOAT_TOLERANCE)
    return max(node.locked_value, node.value - spendable_value)


DAILY_TURNOVER_LIMIT = "limits.daily_turnover"


def until_freed(step: StepInput, limit_name: str) -> str:
    """Return until when trades of the last 24 h use up this limit, such as " until 2026-11-30 22:00:00
    UTC"; empty for another limit, or if it is unknown.
    """
    frees_s = step.history.budgets.turnover_frees_s
    if limit_name != DAILY_TURNOVER_LIMIT or frees_s is None:
        return ""
    return f" until {format_time(frees_s)}"


def turnover_left(
    step: StepInput, total: Value, exempt_value: Value = Fraction(0)
) -> tuple[Value | None, str]:
    """Return the turnover left for this plan, and its limit's name; `exempt_value` does not count.
    Raises Refused if the day's turnover leaves less than a trade, unless `exempt_value` is above
    zero.
    """
    limits = step.limits
    left_values_and_names = []
    if limits.turnover_bps is not None:
        left_values_and_names.append(
            (total * Fraction(limits.turnover_bps, BPS), "limits.turnover")
        )
    if limits.daily_turnover_bps is not None:
        daily_limit_value = total * Fraction(limits.daily_turnover_bps, BPS)
        daily_left_value = daily_limit_value - step.history.budgets.turnover_24h
        if daily_left_value <= (limits.min_trade or 0) and not exempt_value:
            until = until_freed(step, DAILY_TURNOVER_LIMIT)
            why = f"the turnover of the last 24 hours has used up {DAILY_TURNOVER_LIMIT}{until}"
            if daily_left_value >= 1:
                left_text = step.portfolio.numeraire.money_text(daily_left_value)
                why = f"{DAILY_TURNOVER_LIMIT} leaves {left_text}{until}, too little for limits.min_trade"
            remedy = "wait until the last day's trades are 24 h old"
            if daily_limit_value <= (limits.min_trade or 0):
                remedy = f"raise {DAILY_TURNOVER_LIMIT}, or lower limits.min_trade"
            raise Refused(
                why,
                (
                    Verdict(
                        "daily_turnover",
                        format_percent(step.history.budgets.turnover_24h / total),
                        format_percent(daily_limit_value / total),
                        False,
                    ),
                ),
                remedy,
            )
        left_values_and_names.append((max(Fraction(0), daily_left_value), DAILY_TURNOVER_LIMIT))
    smallest_left_value, limit_name = min(
        left_values_and_names, default=(None, ""), key=lambda left_and_name: left_and_name[0]
    )
    return (None if smallest_left_value is None else smallest_left_value + exempt_value), limit_name
