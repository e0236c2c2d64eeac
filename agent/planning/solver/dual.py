"""The continuous core: find the prices at which every token reaches its goal, and each pool's trade
at them. Minimises, over prices ν, the dual of maximising a concave utility of y = h + Σ pool flows
(Angeris, Evans, Chitra, Boyd, "Optimal Routing for Constant Function Market Makers", 2022;
Diamandis et al., 2023). Pools respond to prices independently, so one solve, with about as many
unknowns as tokens, determines all exchanges, splits and hubs at once. Amounts are values in units
of `scale`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.floats import FloatArray, IndexArray, dot, fsum_array, matvec
from agent.planning.pool_curves import CurveStack, SolutionCache
from agent.planning.solver.box import box_minimum

MAX_STEPS = 60
"""Maximum number of Newton steps; seven are usual."""
MAX_STEP_LENGTHS = 40
"""Maximum number of lengths tried for one step."""
MAX_SLOPE_LEFT = 0.3
"""Fraction of the slope along a step that may remain at its end."""
STRAIGHT_FRACTION = 0.9
"""If more than this fraction of the slope is left at the end of a step, the step met no curvature
and is doubled.
"""
NOISE = 1e-15
"""Relative error of the dual's value; smaller expected changes are judged by the slope alone."""
LEAST_PRICE = 1e-3
"""Lower limit on the price of a pool's output token. Raising a price to it only loosens the
bound.
"""
LEAST_RATE = 1e-12
"""Least rate: any lower rate sells everything."""
SNAP_DISTANCE = 1e-15
"""Distance from an end of its range at which a multiplier counts as there."""
BALANCED_TOLERANCE = 1e-9
"""Imbalance per unit of scale at which the solve ends."""
UNBALANCED = 1e-6
"""Imbalance per unit of scale above which a solve has failed, and is repeated from zero. Where pools
pay far above the reference it may end beside a corner of the dual; one that starts there ends there.
"""
POLISH_TOLERANCE = 1e-14
MAX_POLISH_STEPS = 3
"""Target imbalance of the steps after the solve, and their maximum number. They make a repeated
plan end at the same amounts.
"""


def slopes_along(
    common_rise: FloatArray,
    token_rise: FloatArray,
    token: IndexArray,
    last_rises: FloatArray | None,
    token_changes: FloatArray,
) -> FloatArray:
    """Return the slope of a dual along each multiplier with these rises, for changes of tokens."""
    slopes = common_rise * fsum_array(token_changes) + token_rise * token_changes[token]
    if last_rises is not None:
        slopes[-1] = dot(last_rises, token_changes)
    return np.asarray(slopes)


@dataclass(frozen=True, slots=True)
class DualProgram:
    """minimise  base + cost·z + ½ z·quadratic·z + Σ pools(ν)  over low ≤ z ≤ high.

    Per unit, a multiplier z raises all prices by its `common_rise`, and the price of its `token` by
    `token_rise` more. The last multiplier raises each token by `last_rises` instead, if that is not
    None. `quadratic` is None if it is zero. The slopes at the minimum are the imbalances.
    """

    base: float
    common_rise: FloatArray
    token_rise: FloatArray
    token: IndexArray
    last_rises: FloatArray | None
    cost: FloatArray
    quadratic: FloatArray | None
    low: FloatArray
    high: FloatArray
    token_count: int

    def price_offsets(self, z: FloatArray) -> FloatArray:
        """Return each price less one, at these multipliers."""
        rises = np.asarray(
            np.bincount(self.token, self.token_rise * z, self.token_count)
            + dot(self.common_rise, z)
        )
        return rises if self.last_rises is None else rises + self.last_rises * z[-1]

    def slopes_of(self, token_changes: FloatArray) -> FloatArray:
        """Return the slope of the dual along each multiplier, for these changes of tokens by
        flows.
        """
        return slopes_along(
            self.common_rise, self.token_rise, self.token, self.last_rises, token_changes
        )

    def gram(
        self, stack: CurveStack, target_weight: FloatArray, steepness: FloatArray
    ) -> FloatArray:
        """Return the sum of steepness · r·rᵀ over the rows of a stack, where r is the change of a
        pool's price, source less `target_weight` times target, by each multiplier. Summed by token
        first, because there are more pools than tokens, and most multipliers concern one token.
        """
        token_count = self.token_count
        source = stack.source
        target = stack.target
        weighted_steepness = steepness * target_weight
        cell_indices = np.concatenate((source * (token_count + 1), target * (token_count + 1)))
        cell_indices = np.concatenate(
            (cell_indices, source * token_count + target, target * token_count + source)
        )
        cell_entries = np.concatenate(
            (
                steepness,
                weighted_steepness * target_weight,
                -weighted_steepness,
                -weighted_steepness,
            )
        )
        token_matrix = np.bincount(cell_indices, cell_entries, token_count * token_count).reshape(
            token_count, token_count
        )
        common_price_change = (
            1 - target_weight
        )  # change of a pool's price per unit if all prices rise together
        common_terms = np.bincount(
            source, steepness * common_price_change, token_count
        ) - np.bincount(target, weighted_steepness * common_price_change, token_count)
        cross_terms = self.common_rise[:, None] * (self.token_rise * common_terms[self.token])
        matrix = (
            self.common_rise[:, None]
            * (self.common_rise * fsum_array(steepness * common_price_change * common_price_change))
            + cross_terms
            + cross_terms.T
            + self.token_rise[:, None]
            * self.token_rise
            * token_matrix[self.token[:, None], self.token]
        )
        if self.last_rises is not None:
            last_rise = self.last_rises[source] - target_weight * self.last_rises[target]
            last_rise_terms = np.bincount(source, steepness * last_rise, token_count) - np.bincount(
                target, weighted_steepness * last_rise, token_count
            )
            last_row = (
                self.common_rise * fsum_array(steepness * last_rise * common_price_change)
                + self.token_rise * last_rise_terms[self.token]
            )
            last_row[-1] = fsum_array(steepness * last_rise * last_rise)
            matrix[-1] = last_row
            matrix[:, -1] = last_row
        return np.asarray(matrix)


@dataclass(frozen=True, slots=True)
class DualSolution:
    """Multipliers, their prices, and the dual there: a bound on the utility of any pool flows.

    By row of the stack: `amount_in`, `amount_out`, and `surplus`, the least that the utility
    loses without this pool. `imbalance` is the largest imbalance left, per unit of scale.
    """

    multipliers: FloatArray
    prices: FloatArray
    bound: float
    imbalance: float
    amount_in: FloatArray
    amount_out: FloatArray
    surplus: FloatArray

    def token_changes(self, stack: CurveStack) -> FloatArray:
        """Return the change of each token by all flows."""
        token_count = len(self.prices)
        inflows = np.bincount(stack.target, self.amount_out, token_count)
        outflows = np.bincount(stack.source, self.amount_in, token_count)
        return np.asarray(inflows - outflows)


def solve_dual(
    program: DualProgram,
    stack: CurveStack,
    earlier_solution: DualSolution | None = None,
    required_bound: float = -np.inf,
) -> DualSolution:
    """Return the minimum of the dual. It starts from the best known multipliers of this program, else
    from an earlier solution or the last one of the same curves that fits, else from zero; from zero
    again if that fails.

    Takes Newton steps, each to the minimum of the local quadratic within the box, shortened if
    pools begin to respond on the way. Ends early once the bound is below the required value
    `required_bound`.
    """
    rises = (program.common_rise, program.token_rise, program.token, program.last_rises)
    program_arrays = (
        *rises,
        program.cost,
        program.quadratic,
        program.low,
        program.high,
        stack.row_offsets,
    )
    program_key = (
        program.base,
        *(None if array is None else array.tobytes() for array in program_arrays),
    )
    solution_key = (
        program_key,
        required_bound,
        None if earlier_solution is None else earlier_solution.multipliers.tobytes(),
    )
    solutions: SolutionCache[DualSolution] = stack.solutions
    solution = solutions.exact.get(solution_key)
    if solution is None:
        # any dual value bounds all flows: one below the required value need not be improved
        tightest_solution = solutions.tightest.get(program_key)
        if tightest_solution is not None and tightest_solution.bound < required_bound:
            return tightest_solution
        unknown_count = len(program.low)
        start_solution = tightest_solution or earlier_solution
        if start_solution is None or len(start_solution.multipliers) != unknown_count:
            start_solution = solutions.last_by_size.get(unknown_count)
        solution = _newton_solution(program, stack, start_solution, required_bound)
        has_failed = solution.imbalance > UNBALANCED and solution.bound >= required_bound
        if has_failed and start_solution is not None:
            solution_from_zero = _newton_solution(program, stack, None, required_bound)
            solution = min(solution, solution_from_zero, key=lambda candidate: candidate.bound)
        solutions.exact[solution_key] = solution
        solutions.last_by_size[unknown_count] = solution
        if tightest_solution is None or solution.bound < tightest_solution.bound:
            solutions.tightest[program_key] = solution
    return solution


def _newton_solution(
    program: DualProgram,
    stack: CurveStack,
    start_solution: DualSolution | None,
    required_bound: float,
) -> DualSolution:
    start_multipliers = (
        np.zeros(len(program.low)) if start_solution is None else start_solution.multipliers
    )
    point = _Point(program, stack, np.clip(start_multipliers, program.low, program.high))
    observed_steepness = np.zeros(len(stack))
    active_sides = list[int]()
    for _ in range(MAX_STEPS):
        if (
            point.imbalance(program) <= BALANCED_TOLERANCE
            or program.base + point.value < required_bound
        ):
            break
        curvature = point.curvature(program, stack, observed_steepness)
        newton_step, active_sides = box_minimum(
            curvature, point.slope, program.low - point.z, program.high - point.z, active_sides
        )
        next_point = _line_search(program, stack, point, newton_step, required_bound)
        if next_point is None:
            break
        observed_steepness = np.maximum(observed_steepness / 4, point.steepness_to(next_point))
        point = next_point
    return _polished_point(program, stack, point, active_sides).solution(program)


def _polished_point(
    program: DualProgram, stack: CurveStack, point: _Point, active_sides: list[int]
) -> _Point:
    """Return the point after a few more full Newton steps, each kept if it halves the imbalance."""
    for _ in range(MAX_POLISH_STEPS):
        imbalance = point.imbalance(program)
        if not POLISH_TOLERANCE < imbalance <= BALANCED_TOLERANCE:
            break
        curvature = point.curvature(program, stack, np.zeros(len(stack)))
        newton_step, active_sides = box_minimum(
            curvature, point.slope, program.low - point.z, program.high - point.z, active_sides
        )
        next_point = _Point(program, stack, _clip(program, point.z + newton_step))
        if next_point.imbalance(program) > imbalance / 2:
            break
        point = next_point
    return point


def evaluate_dual(program: DualProgram, stack: CurveStack, multipliers: FloatArray) -> DualSolution:
    """Return the dual at these multipliers. Like its minimum it bounds the utility of flows, only
    less tightly.
    """
    return _Point(program, stack, multipliers).solution(program)


class PoolResponses:
    """Responses of every row of a stack to prices. Prices are given less one, so that prices near
    one keep their digits. `is_above_least_price` is true where the price of the output token is at
    least LEAST_PRICE.
    """

    __slots__ = (
        "amount_in",
        "amount_out",
        "asked_rate_offset",
        "depth",
        "is_above_least_price",
        "rate_root",
        "surplus",
        "target_price",
    )

    def __init__(self, stack: CurveStack, price_offsets: FloatArray) -> None:
        target_offset = price_offsets.take(stack.target)
        bounded_offset = np.maximum(target_offset, LEAST_PRICE - 1)
        self.is_above_least_price = bounded_offset <= target_offset
        self.target_price = target_price = 1 + bounded_offset
        self.asked_rate_offset = asked_rate = (
            price_offsets.take(stack.source) - bounded_offset
        ) / target_price
        ranges_passed = np.count_nonzero(stack.rates > asked_rate[:, None], axis=1)
        rate, range_root, depth, input_to_root, output_to_root, surplus_to_root = (
            stack.flat_cells.take(stack.row_offsets + ranges_passed, axis=1)
        )
        self.rate_root = root = np.sqrt(np.maximum(1 + asked_rate, LEAST_RATE) / stack.fee_factor)
        self.depth = depth
        root_sum = range_root + root
        root_gap = (rate - asked_rate) / (stack.fee_factor * root_sum)
        out_in_range = depth * root_gap
        self.amount_in = (input_to_root + out_in_range / (root * range_root)) / stack.fee_factor
        self.amount_out = output_to_root + out_in_range
        self.surplus = (
            surplus_to_root + root_gap * (root_sum * input_to_root + out_in_range / range_root)
        ) * target_price


class _Point(PoolResponses):
    """The dual at one z: value, slope, and the pools' responses."""

    __slots__ = ("price_offsets", "slope", "value", "z")

    def __init__(self, program: DualProgram, stack: CurveStack, z: FloatArray) -> None:
        self.z = z
        quadratic_at_z = None if program.quadratic is None else matvec(program.quadratic, z)
        self.price_offsets = price_offsets = program.price_offsets(z)
        super().__init__(stack, price_offsets)
        amount_out = np.where(self.is_above_least_price, self.amount_out, 0.0)
        inflows = np.bincount(stack.target, amount_out, len(price_offsets))
        outflows = np.bincount(stack.source, self.amount_in, len(price_offsets))
        token_changes = np.asarray(inflows - outflows, dtype=np.float64)
        self.value = (
            dot(program.cost, z)
            + (0.0 if quadratic_at_z is None else 0.5 * dot(quadratic_at_z, z))
            + fsum_array(self.surplus)
        )
        self.slope = (
            program.cost if quadratic_at_z is None else program.cost + quadratic_at_z
        ) + program.slopes_of(token_changes)

    def solution(self, program: DualProgram) -> DualSolution:
        """Return the solution at this point."""
        return DualSolution(
            self.z,
            1 + self.price_offsets,
            program.base + self.value,
            self.imbalance(program),
            self.amount_in,
            self.amount_out,
            self.surplus,
        )

    def imbalance(self, program: DualProgram) -> float:
        """Return the largest slope along which a multiplier can still descend within its range."""
        can_descend = np.where(self.slope > 0, self.z > program.low, self.z < program.high)
        return float(np.abs(self.slope[can_descend]).max(initial=0.0))

    def curvature(
        self, program: DualProgram, stack: CurveStack, observed_steepness: FloatArray
    ) -> FloatArray:
        """Return the second derivatives of the dual in z. A pool bends it only along the change of
        its price by z. `observed_steepness` is the steepness of each pool along the last steps,
        which counts where it is larger than the one here.
        """
        root = self.rate_root
        steepness = (
            np.maximum(
                self.depth / (2 * stack.fee_factor * stack.fee_factor * root * root * root),
                observed_steepness,
            )
            / self.target_price
        )
        matrix = program.gram(
            stack, np.where(self.is_above_least_price, 1 + self.asked_rate_offset, 0.0), steepness
        )
        return matrix if program.quadratic is None else matrix + program.quadratic

    def steepness_to(self, next_point: _Point) -> FloatArray:
        """Return the decrease of each pool's input per unit of its asked rate, between this point
        and another.
        """
        rate_change = next_point.asked_rate_offset - self.asked_rate_offset
        with np.errstate(divide="ignore", invalid="ignore"):
            decrease = (self.amount_in - next_point.amount_in) / rate_change
        return np.asarray(np.where(np.abs(rate_change) > 1e-15, np.maximum(decrease, 0.0), 0.0))


def _clip(program: DualProgram, z: FloatArray) -> FloatArray:
    """Clip z to its ranges, and snap it to an end within rounding error."""
    z = np.where(z - program.low <= SNAP_DISTANCE, program.low, z)
    return np.asarray(np.where(program.high - z <= SNAP_DISTANCE, program.high, z))


def _line_search(
    program: DualProgram,
    stack: CurveStack,
    point: _Point,
    newton_step: FloatArray,
    required_bound: float,
) -> _Point | None:
    """Return the lowest point found along a step: its end, or near the turn of the slope if it
    overshoots; None if the step does not descend. The step is extended while there is no curvature.
    Between a point before and a point after the turn, the next try alternates between the
    intersection of their tangents, which finds corners, and the zero of the line through their
    slopes, which finds smooth valleys. The first point with a bound below `required_bound` ends the
    search.
    """
    start_slope = dot(point.slope, newton_step)
    value_noise = NOISE * (abs(point.value) + 1)
    if start_slope >= -value_noise:
        next_point = _Point(program, stack, _clip(program, point.z + newton_step))
        return next_point if next_point.imbalance(program) < point.imbalance(program) / 2 else None
    near_length = 0.0
    near_value = point.value
    near_slope = start_slope
    far_length = 0.0
    far_value = 0.0
    far_slope = 0.0
    length = 1.0
    best_point = None
    for try_number in range(MAX_STEP_LENGTHS):
        next_point = _Point(
            program,
            stack,
            _clip(
                program,
                np.minimum(np.maximum(point.z + length * newton_step, program.low), program.high),
            ),
        )
        if program.base + next_point.value < required_bound:
            return next_point
        slope = dot(next_point.slope, newton_step)
        if next_point.value <= point.value + value_noise and (
            best_point is None or next_point.value < best_point.value
        ):
            best_point = next_point
            if abs(slope) <= MAX_SLOPE_LEFT * -start_slope:
                break
        if (
            far_length <= 0
            and slope <= STRAIGHT_FRACTION * start_slope
            and best_point is next_point
        ):
            # no curvature met yet: only the ridge of the box problem ended the step
            near_length = length
            near_value = next_point.value
            near_slope = slope
            length = 2 * length
            continue
        if slope <= 0:
            if far_length <= 0:
                break
            near_length = length
            near_value = next_point.value
            near_slope = slope
        else:
            far_length = length
            far_value = next_point.value
            far_slope = slope
        width = far_length - near_length
        if try_number % 2:
            fraction = near_slope / (near_slope - far_slope)
        else:
            fraction = (
                (far_value - near_value - far_slope * width) / (near_slope - far_slope) / width
            )
        length = near_length + width * min(0.95, max(0.001, fraction))
    return best_point
