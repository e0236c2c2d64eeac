"""How far plans are from the best ones: the certificate over random problems, against peers, and where something was left out."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, pairwise, permutations
from typing import Any

import numpy as np
import pytest

from agent import codec
from agent.model import OptimalityGap, Plan, Pool, StepInput
from agent.planning import planner, rounding
from agent.planning.plan_builder import MAX_BRANCHES, gap_bps, rounded_gap
from agent.planning.planner import NothingPlanned, plan_swap
from agent.planning.problem import PoolGraph, build_pool_graph
from agent.planning.rounding import PlanDraft
from agent.planning.solver.charges import bound_with_charges
from agent.planning.solver.drop_reasons import DropCause
from agent.planning.solver.dual import DualSolution
from agent.planning.solver.fixed_point import FixedPoint, find_fixed_point
from agent.planning.solver.search import PoolSelector
from agent.planning.solver.token_order import order_tokens
from agent.planning.solver.utility import FlowOptimizer, PlanObjective, objective_for_goal, turnover_left
from agent.units import BPS
from tests.support.builders import step_input, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.planning_peers import grid, objective, sequential
from tests.support.planning_worlds import (
    DEEP,
    FIVE,
    KINDS,
    PRICES,
    USDC,
    WETH,
    any_problem,
    any_problem_with_gas,
    checked_plan,
    five_pools,
    gap_of,
    pools_used,
    problem_of,
    random_pools,
    random_step,
    rebalance_to_targets,
    two,
    wide,
    without_gas,
)
from tests.support.samples import slow


def raw_changes(step: StepInput, plan: Plan) -> dict[str, int]:
    """Return what a plan adds to each balance, in base units."""
    raw_before = {holding.token: holding.raw for holding in step.snapshot.holdings}
    return {at: raw - raw_before[at] for at, raw in plan.holdings_after}


PROBLEMS = 40
SMALL = Fraction(1, 10)
"""Of a basis point: the gap that 999 of 1,000 problems stay below."""
NOISE = Fraction(1, 1_000)
"""Of a basis point: what base units and floating point may be worth."""


@dataclass(frozen=True)
class SolvedProblem:
    """A plan's parts before they are put together."""

    market: PoolGraph
    objective: PlanObjective
    budget: Fraction | None
    fixed_point: FixedPoint

    def gap_bps(self, fixed_point: FixedPoint | None = None, market: PoolGraph | None = None) -> Fraction:
        return gap_bps(market or self.market, self.objective, fixed_point or self.fixed_point, self.budget)

    def optimizer(self) -> FlowOptimizer:
        budget = None if self.budget is None else float(self.budget)
        return self.objective.optimizer(self.market.scale, np.zeros(len(self.market.problem.nodes)), {}, budget)

    def with_changes(self, raw_by_token: dict[str, int]) -> FixedPoint:
        """Return the fixed point with these changes of balances in its draft."""
        return replace(self.fixed_point, draft=replace(self.fixed_point.draft, delta_raw=raw_by_token))


@pytest.fixture
def shortfalls_bps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Gaps before they are cut off at zero, in the order of their computation."""
    shortfalls: list[float] = []

    def recorded_gap(shortfall: Fraction, basis: Fraction) -> Fraction:
        shortfalls.append(float(shortfall / basis * BPS))
        return rounded_gap(shortfall, basis)

    monkeypatch.setattr("agent.planning.plan_builder.rounded_gap", recorded_gap)
    return shortfalls


def solved(step: StepInput) -> SolvedProblem:
    problem = problem_of(step)
    objective = objective_for_goal(problem, rebalance_to_targets(step).goal)
    budget, _ = turnover_left(step, problem.total)
    market = build_pool_graph(problem, max(objective.value_off_goal, float(problem.total) / BPS))
    return SolvedProblem(market, objective, budget, find_fixed_point(market, objective, budget, step.limits.min_trade, {}))


def gap_changes_turnover(step: StepInput) -> tuple[Fraction, dict[str, int], Fraction]:
    """Return gap, changes of holdings and turnover of the plan; nothing where nothing is worth a trade."""
    try:
        plan = checked_plan(step)
    except NothingPlanned:
        problem = solved(step)
        return problem.gap_bps(), {}, problem.market.problem.total / BPS
    assert plan.gap_bps is not None
    return gap_of(plan), raw_changes(step, plan), plan.turnover


@pytest.mark.parametrize("first", [0, *slow(range(10, PROBLEMS, 10))])
def test_gap_is_below_a_tenth_of_a_bp_and_no_peer_is_better(first: int, shortfalls_bps: list[float]) -> None:
    for seed in range(first, first + 10):
        step = any_problem(seed)
        gap, delta, turnover = gap_changes_turnover(step)
        assert 0 <= shortfalls_bps[-1] <= gap <= SMALL, seed
        plan_value = objective(step, rebalance_to_targets(step), delta)
        for peer in (sequential, grid):
            peer_value = objective(step, rebalance_to_targets(step), peer(step, rebalance_to_targets(step)).delta_raw)
            assert plan_value >= peer_value - NOISE * turnover / BPS, (seed, peer.__name__)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(256, id="at a ridge: no plan cost, near the limit of turnover, where flat directions take hundreds of steps"),
        pytest.param(752, id="45 legs"),
    ],
)
def test_gap_of_a_hard_problem_is_below_a_tenth_of_a_bp(seed: int) -> None:
    assert gap_changes_turnover(any_problem(seed))[0] <= SMALL


@pytest.mark.parametrize("seed", [236, 695])
def test_routes_stay_apart_where_gathering_ends_lower(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = checked_plan(any_problem(seed))
    with monkeypatch.context() as patch:
        patch.setattr(rounding, "UNSOLD_FRACTION", 1)
        gathered_plan = checked_plan(any_problem(seed))
    monkeypatch.setattr(rounding, "merge_routes", list)

    assert plan.legs == checked_plan(any_problem(seed)).legs
    assert len(gathered_plan.legs) < len(plan.legs)
    assert gap_of(plan) < gap_of(gathered_plan) * Fraction(1, 2)
    assert gap_of(plan) <= SMALL


@pytest.mark.parametrize("seed", [*range(2), 166, 564, 707, *slow((*range(2, 12), 706, 806, 977))])
def test_plan_with_gas_is_as_good_as_its_peers(seed: int) -> None:
    """Some with routes that share a hub's pool, and some with pools of which each is worth its gas only without the other."""
    step = any_problem_with_gas(seed)
    decision = rebalance_to_targets(step)
    problem = problem_of(step)
    try:
        plan = checked_plan(step)
    except NothingPlanned:
        plan_value = objective(step, decision, {})
        turnover = problem.total / BPS
    else:
        plan_value = objective(step, decision, raw_changes(step, plan)) - plan.cost.gas
        turnover = plan.turnover
    for peer in (sequential, grid):
        draft = peer(step, decision)
        peer_value = objective(step, decision, draft.delta_raw) - draft.cost(problem).gas
        assert plan_value >= peer_value - NOISE * turnover / BPS, peer.__name__


@pytest.mark.parametrize("seeds", [4, *slow([12])])
def test_bound_holds_for_the_plans_of_peers(seeds: int) -> None:
    """Where no pool pays more than the reference, the bound is one on everything that can be done."""
    for seed in range(seeds):
        step = without_gas(with_limits(random_step(seed, 5, 15, skew=0.0), pool_min_value=None, min_trade=None))
        decision = rebalance_to_targets(step)
        problem = solved(step)
        bound_value = problem.optimizer().solve(problem.market.counted_curves).bound * problem.market.scale
        for draft in (sequential(step, decision), grid(step, decision), problem.fixed_point.draft, PlanDraft()):
            assert objective(step, decision, draft.delta_raw) <= Fraction(bound_value) * (1 + Fraction(1, 10**12))


def test_gap_of_half_a_plan_is_what_it_leaves() -> None:
    """What was left undone is worth the plan_cost of 50 bps less its cost of 30, per unit moved."""
    problem = solved(two(5_800, 4_200))
    half = problem.with_changes({at: raw // 2 for at, raw in problem.fixed_point.draft.delta_raw.items()})
    assert float(problem.gap_bps(half)) == pytest.approx(50 - 30, abs=1)
    assert problem.gap_bps() < Fraction(1, 1_000)


@pytest.mark.parametrize("seed", [1, 12, 27, 256, *slow([20, 42, 734])])
def test_gap_grows_the_less_of_a_plan_is_done(seed: int, shortfalls_bps: list[float]) -> None:
    """Markets on and off the reference, with and without a limit of turnover."""
    problem = solved(any_problem(seed))
    for tenths in range(10, -1, -1):
        delta_raw = {at: raw * tenths // 10 for at, raw in problem.fixed_point.draft.delta_raw.items()}
        problem.gap_bps(replace(problem.fixed_point, draft=PlanDraft(delta_raw=delta_raw)))
    per_unit = [gap * max(part, 0.01) for gap, part in zip(shortfalls_bps, np.linspace(1, 0, 11), strict=True)]
    assert shortfalls_bps[0] >= -1e-7
    assert all(later > sooner for sooner, later in pairwise(shortfalls_bps)), shortfalls_bps
    assert per_unit[0] < per_unit[5] < per_unit[-1], "also in value, not only because less is moved"


def test_bound_of_an_unfinished_search_is_never_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the search for directions under a limit of turnover is broken off, the bound is less tight, never too low."""
    looser = 0
    for seed in range(12):
        step = without_gas(with_limits(random_step(seed, 6, 15, skew=0.0), turnover_bps=800, daily_turnover_bps=None, pool_min_value=None))
        problem = solved(step)
        search = problem.optimizer()
        exact = search.solve(problem.market.real_curves).bound
        with monkeypatch.context() as broken_off:
            broken_off.setattr("agent.planning.solver.utility.MAX_DIRECTION_GUESSES", 1)
            broken_off.setattr("agent.planning.solver.utility.UNMOVED_FRACTION", 10.0)
            broken_off.setattr("agent.planning.solver.utility.FlowOptimizer.side", lambda self, goals: self.held_values[goals] - 0.2)
            early = search.solve(problem.market.real_curves).bound
        assert early >= exact - 1e-12
        looser += early > exact + 1e-9
    assert looser > 0


def test_rounded_gap_is_rounded_up_and_never_below_zero() -> None:
    assert rounded_gap(Fraction(1, 10**12), Fraction(1)) == Fraction(1, 10**6)
    assert rounded_gap(Fraction(-1, 10**9), Fraction(1)) == 0


def test_gap_of_an_imprecise_solve_is_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    problem = solved(without_gas(wide(step_input(FIVE, values, PRICES, pools=five_pools()))))
    exact = problem.gap_bps()
    monkeypatch.setattr("agent.planning.solver.dual.MAX_STEPS", 2)
    assert problem.gap_bps(market=build_pool_graph(problem.market.problem, problem.market.scale)) > exact


def test_gap_counts_a_pool_dropped_wrongly_but_not_for_gas() -> None:
    """Gas counts in the bound as in the plan: free of it, the twin would pay a tenth of a basis point more."""
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, name="twin")]
    step = two(11_600, 8_400, pools)
    for priced_step, leg_count, most_gap_bps in ((step, 1, Fraction(1, 100)), (without_gas(step), 2, Fraction(1, 1_000))):
        plan = planner.plan(priced_step, rebalance_to_targets(priced_step))
        assert len(plan.legs) == leg_count
        assert gap_of(plan) < most_gap_bps
    problem = solved(without_gas(step))
    worse = find_fixed_point(problem.market, problem.objective, problem.budget, None, {pools[1].address: "left out"})
    assert problem.gap_bps(worse) > Fraction(1, 10) > problem.gap_bps()


@pytest.mark.parametrize("seed", [15, *range(3), *slow(range(3, 15))])
def test_bound_covers_the_pools_of_the_plan(seed: int) -> None:
    """Gas is paid in value: taken from what a pool pays, at the price of its token, it was charged with up to plan_cost more."""
    problem = solved(any_problem_with_gas(seed))
    market = problem.market
    search = problem.optimizer()
    used = {(leg.pool, leg.token_in) for leg in problem.fixed_point.draft.legs}
    tokens = [node.address for node in market.problem.nodes]
    chosen = np.array(
        [row for row, edge in enumerate(market.pool_edges) if (edge.pool_address, tokens[edge.token_in_index]) in used], dtype=np.intp
    )
    curves = market.counted_after_charges
    worth = search.solve(curves.curve_stack.rows(chosen)).bound - float(curves.charges[chosen].sum())
    assert bound_with_charges(curves, market.rows(), search.solve, 0, -np.inf) >= worth - 1e-12


@pytest.mark.parametrize("seed", [7, 13, 33, 68, 175, 392])
def test_bound_is_that_of_the_best_choice_of_pools(seed: int) -> None:
    """In markets of six directions. The best choice is found with the first pool branched on in 7, 13 and 33, without it in the others."""
    problem = solved(any_problem_with_gas(seed, 3, 3))
    curves = problem.market.counted_after_charges
    rows = problem.market.rows()
    solve = problem.optimizer().solve
    choices = [np.array(choice, dtype=np.intp) for size in range(len(rows) + 1) for choice in combinations(rows.tolist(), size)]
    best_worth = max(solve(curves.curve_stack.rows(choice)).bound - float(curves.charges[choice].sum()) for choice in choices)

    bounds = [bound_with_charges(curves, rows, solve, branches, -np.inf) for branches in (0, 1, 2, MAX_BRANCHES)]

    assert len(choices) == 2**6
    assert min(bounds) >= best_worth - 1e-12
    assert bounds[0] > best_worth + 1e-7, "without branches each pool pays a part of its gas"
    assert bounds[-1] == pytest.approx(best_worth, abs=1e-10)


@pytest.mark.parametrize(
    ("seed", "step_count"),
    [pytest.param(7, 2, id="two steps"), pytest.param(32, 2, id="two steps, another market"), pytest.param(7, 3, id="three steps")],
)
def test_bound_of_more_branches_is_no_larger(monkeypatch: pytest.MonkeyPatch, seed: int, step_count: int) -> None:
    """An imprecise solve bounds a part less tightly than the whole, whose bound still holds for it."""
    problem = solved(any_problem_with_gas(seed, 3, 3))
    monkeypatch.setattr("agent.planning.solver.dual.MAX_STEPS", step_count)
    curves = problem.market.counted_after_charges
    solve = problem.optimizer().solve

    bounds = [bound_with_charges(curves, problem.market.rows(), solve, branches, -np.inf) for branches in range(12)]

    assert bounds == sorted(bounds, reverse=True)


@pytest.mark.parametrize("first", [0, *slow(range(10, PROBLEMS, 10))])
def test_gap_with_gas_is_mostly_within_three_fifths_of_a_bp(first: int, shortfalls_bps: list[float]) -> None:
    """The least gas of the pools in use is on both sides; it was on none, and the 90th percentile of the gap 1.9 bps."""
    gaps = sorted(gap_changes_turnover(any_problem_with_gas(seed))[0] for seed in range(first, first + 10))
    assert len(shortfalls_bps) == len(gaps)
    assert min(shortfalls_bps) >= 0, shortfalls_bps
    assert gaps[8] <= Fraction(3, 5), gaps


def test_gap_counts_the_turnover_limit() -> None:
    step = two(9_600, 400)
    plan = planner.plan(step, rebalance_to_targets(step))
    assert plan.turnover == pytest.approx(3_000 * 10**6, rel=1e-5)
    assert gap_of(plan) < Fraction(1, 1_000)


def test_gap_of_a_plan_to_the_edge_of_a_band_is_small() -> None:
    targets = {"WETH": 3_000, "USDC": 3_000, "WBTC": 2_000, "DAI": 2_000}
    values = {"WETH": 36_000, "USDC": 30_000, "WBTC": 19_000, "DAI": 15_000}
    bands = {"WETH": ("0.27", "0.33"), "USDC": ("0.27", "0.33"), "WBTC": ("0.18", "0.22"), "DAI": ("0.18", "0.22")}
    pools = [pool for pool in five_pools() if "LINK" not in (pool.token0, pool.token1)]
    assert gap_of(checked_plan(without_gas(step_input(targets, values, PRICES, pools=pools)), bands)) < SMALL


def test_gap_is_small_for_the_better_of_two_skewed_pools() -> None:
    """Both pools pay more than the reference: the better one is used although both count as free, and no more is moved."""
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_008, DEEP, name="good"), v3_pool(WETH, USDC, 2_016, DEEP, name="better")]
    plan = checked_plan(without_gas(two(5_800, 4_200, pools)))
    assert pools_used(plan) == {pools[1].address}
    assert gap_of(plan) < Fraction(1, 100)
    assert dict(plan.weights_after_bps)[WETH.address] == 5_000


def test_circle_of_skewed_pools_is_not_used_and_no_gap() -> None:
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_010, DEEP, name="high"), v3_pool(WETH, USDC, 1_990, DEEP, name="low")]
    plan = checked_plan(without_gas(two(5_800, 4_200, pools)))
    assert [leg.pool for leg in plan.legs] == [pools[0].address]
    assert gap_of(plan) < Fraction(1, 100)
    assert plan.turnover < 810 * 10**6


def test_plan_swap_has_its_gap() -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 4_000_000), v3_pool(WETH, USDC, 2_000, DEEP, 3_000)]
    step = without_gas(step_input(None, {"WETH": 200_000, "USDC": 200_000}, PRICES, pools=pools))
    assert gap_of(plan_swap(step, WETH.address, USDC.address, 50 * 10**18)) < Fraction(1, 1_000)
    costly_plan = plan_swap(with_snapshot(step, priority_fee_wei=3_000 * 10**9), WETH.address, USDC.address, 50 * 10**18)
    assert len(costly_plan.legs) == 1
    assert gap_of(costly_plan) > Fraction(1, 2)


def whole_sale_step(seed: int) -> StepInput:
    """WETH, and sometimes WBTC, leave into USDC without gas; pools deviate from the reference by 0.3 to 2 % (standard deviation)."""
    dice = random.Random(f"e {seed}")
    symbols = ("USDC", "WETH", "WBTC")[: dice.choice([2, 2, 3])]
    values = {"USDC": dice.choice([0, 1_000, 50_000]), "WETH": dice.randint(500, 60_000)}
    if "WBTC" in symbols:
        values["WBTC"] = dice.randint(0, 30_000)
    pools = random_pools(dice, symbols, dice.randint(len(symbols), 6), 10 ** dice.uniform(4, 6), dice.choice([0.003, 0.01, 0.02]))
    step = step_input(dict.fromkeys(symbols[1:], 0) | {"USDC": 10_000}, values, PRICES, pools=pools)
    off = dict.fromkeys(("turnover_bps", "daily_turnover_bps", "min_trade", "pool_min_value"))
    limits = {"plan_cost_bps": dice.choice([20, 50, 100, 200]), "price_impact_bps": dice.choice([100, 300, 1_000])}
    return without_gas(with_limits(step, **off, **limits))


def gap_over_every_order(step: StepInput, plan: Plan) -> Fraction:
    """Bps of turnover to the best of the bounds in every order of the tokens, at the pools' real rates."""
    problem = problem_of(step)
    aim = objective_for_goal(problem, rebalance_to_targets(step).goal)
    market = build_pool_graph(replace(problem, price_ranges={}), max(aim.value_off_goal, float(problem.total) / BPS))
    optimizer = aim.optimizer(market.scale, np.zeros(len(problem.nodes)), {}, None)
    rows = market.rows()
    first_order = order_tokens(market, rows, optimizer)
    orders = [replace(first_order, rank=np.array(rank)) for rank in permutations(range(len(problem.nodes)))]
    stacks = [(order.restrict(optimizer), market.real_curves.rows(order.rows(market.real_curves, rows))) for order in orders]
    changes = raw_changes(step, plan)
    ends = [(node.value + changes.get(node.address, 0) * node.price) / Fraction(market.scale) for node in problem.nodes]
    best = max(restricted.solve(stack).bound for restricted, stack in stacks)
    return (Fraction(best) - optimizer.utility.exact_utility_of(ends)) * Fraction(market.scale) / plan.turnover * BPS


TOO_COSTLY_SALES = (4, 7)


@pytest.mark.parametrize("seed", [47, 91, 203, 278, 407, *slow(seed for seed in range(40) if seed not in TOO_COSTLY_SALES)])
def test_gap_of_a_whole_sale_covers_pools_above_the_reference(seed: int) -> None:
    """Their gain is no reason to trade, but a sale that is due anyhow would have got it."""
    step = whole_sale_step(seed)
    plan = planner.plan(step, replace(rebalance_to_targets(step), is_exit=True))
    assert gap_of(plan) >= gap_over_every_order(step, plan) - NOISE


@pytest.mark.parametrize("seed", TOO_COSTLY_SALES)
def test_whole_sale_above_plan_cost_is_not_planned(seed: int) -> None:
    step = whole_sale_step(seed)
    with pytest.raises(NothingPlanned, match="plan_cost allows"):
        planner.plan(step, replace(rebalance_to_targets(step), is_exit=True))


def selector_of(market: PoolGraph) -> PoolSelector:
    return PoolSelector(market, lambda _stack, _earlier: DualSolution, 0.0, lambda _selection: {})


@pytest.mark.parametrize("base_fee_wei", [0, 10**9])
def test_drop_reason_names_gas_only_where_it_is_paid(base_fee_wei: int) -> None:
    for seed in range(12):
        step = any_problem(seed, 4, 8)
        step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei))
        market = solved(step).market
        selector = selector_of(market)
        for edge in market.pool_edges:
            cause = selector._drop_reason(edge.pool_address, DropCause.GAS).cause
            assert (cause is DropCause.GAS) == (base_fee_wei > 0 and cause is not DropCause.COARSE_UNIT)


def test_drop_reason_without_gas_is_a_coarse_unit_or_no_saving() -> None:
    causes: set[DropCause] = set()
    for seed in range(6):
        market = solved(without_gas(KINDS["units"](seed))).market
        selector = selector_of(market)
        for pool in {edge.pool_address for edge in market.pool_edges}:
            is_coarse = any(edge.curves.rounding_loss for edge in market.pool_edges if edge.pool_address == pool)
            reason = selector._drop_reason(pool, DropCause.GAS)
            assert reason.cause is (DropCause.COARSE_UNIT if is_coarse else DropCause.SAVES_NOTHING)
            assert reason.text.startswith(reason.cause.value)
            causes.add(reason.cause)
    assert causes == {DropCause.COARSE_UNIT, DropCause.SAVES_NOTHING}


def test_gap_is_computed_once_and_only_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    computed_gaps: list[Fraction] = []

    def computed_gap(*arguments: Any) -> Fraction:
        computed_gaps.append(gap_bps(*arguments))
        return computed_gaps[-1]

    monkeypatch.setattr(planner, "gap_bps", computed_gap)
    plan = planner.plan(any_problem(3), rebalance_to_targets(any_problem(3)))
    assert not computed_gaps
    assert plan.gap_bps == plan.gap_bps == computed_gaps[0]
    assert len(computed_gaps) == 1


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(lambda plan: codec.loads(Plan, codec.dumps(plan)), id="record"),
        pytest.param(lambda plan: pickle.loads(pickle.dumps(plan)), id="pickle"),
        pytest.param(lambda plan: replace(plan, verdicts=()), id="replace"),
    ],
)
def test_gap_of_a_copied_plan_is_that_of_the_plan(copied: Callable[[Plan], Plan]) -> None:
    plan = planner.plan(any_problem(3), rebalance_to_targets(any_problem(3)))
    assert copied(plan) == plan
    assert copied(plan).gap_bps == plan.gap_bps
    assert replace(plan, gap=OptimalityGap.of_bps((plan.gap_bps or 0) + Fraction(1))) != plan


def test_gap_is_recorded_as_a_number_of_basis_points() -> None:
    plan = planner.plan(any_problem(3), rebalance_to_targets(any_problem(3)))
    recorded_plan = codec.to_jsonable(plan)
    assert recorded_plan["gap_bps"] == "/".join(map(str, plan.gap_bps.as_integer_ratio()))
    assert "gap" not in recorded_plan
