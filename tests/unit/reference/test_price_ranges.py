"""Feed and TWAP that agree: minimums, cost and worst case go by the worse of both for the wallet (threat T29)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.guards.case import build_guard_case
from agent.guards.sandwich import plan_sandwich_loss, plan_worst_case
from agent.model import Plan, PriceSource, StepInput
from agent.planning.approval_gas import approval_gas_units
from agent.planning.partial_plans import worst_case_gas, worst_case_loss
from agent.planning.problem import build_problem
from agent.reference import deviation_loss, disagreement_loss, price_ranges, reference_prices
from agent.reference.floors import fair_floor
from agent.units import BPS, NATIVE
from agent.venues.composer import leg_floors
from tests.support.builders import raw, step_input, v3_pool, with_limits, with_snapshot
from tests.support.decisions.plan_costs import exit_plan
from tests.support.plans import Swap, evidence, plan_of, verdict
from tests.support.tokens import USDC, WETH

FEED = 2_000
MEAN = 2_020
BOTH = (PriceSource.FEED, PriceSource.TWAP)


def priced_step(mean: int = MEAN, spot: int = FEED, kinds: tuple[PriceSource, ...] = BOTH, cautious: bool = True) -> StepInput:
    """A feed at 2,000, and a pool with this mean and this price now."""
    step = step_input(values={"WETH": 60_000, "USDC": 40_000}, pools=[v3_pool(WETH, USDC, spot, twap_price=mean)], kinds=kinds)
    return replace(step, reference=replace(step.reference, uses_worse_source=cautious))


def dollars(price: Fraction) -> float:
    return float(price * 10**18 / 10**6)


def limited_floor(step: StepInput, plan: Plan, price_in: Fraction, price_out: Fraction) -> int:
    """Return the minimum of the plan's one leg at these prices and the step's limits."""
    limits = step.limits
    assert limits.price_impact_bps is not None
    assert limits.slippage_bps is not None
    (leg,) = plan.legs
    return fair_floor(leg.amount_in_raw, price_in, price_out, leg.fee_pips, limits.price_impact_bps, limits.slippage_bps)


def test_price_range__is_of_the_sources_that_agree() -> None:
    low, high = map(dollars, price_ranges(priced_step())[WETH.address])
    assert (low, high) == (FEED, pytest.approx(MEAN, rel=1e-4))
    low, high = map(dollars, price_ranges(priced_step(mean=1_980))[WETH.address])
    assert (low, high) == (pytest.approx(1_980, rel=1e-4), FEED)
    assert price_ranges(priced_step())[USDC.address] == (1, 1)


def test_price_range__includes_another_reference_price() -> None:
    low, high = map(dollars, price_ranges(priced_step(kinds=(PriceSource.SPOT, PriceSource.TWAP)))[WETH.address])
    assert (low, high) == (pytest.approx(FEED, rel=1e-4), pytest.approx(MEAN, rel=1e-4))


def test_a_source_at_the_limit_agrees() -> None:
    step = priced_step()
    price = reference_prices(step).price_by_token[WETH.address]
    high = price_ranges(step)[WETH.address][1]
    for less, expected in ((0, high), (Fraction(1, 10**9), price)):
        limited = with_limits(step, oracle_deviation_bps=(high / price - 1) * BPS - less)
        assert price_ranges(limited)[WETH.address][1] == expected


def test_native_coin_and_its_wrapped_token_lose_together() -> None:
    bought = {USDC.address: 2_000 * 10**6}
    together = disagreement_loss(priced_step(), {NATIVE: -(10**18), WETH.address: -(10**18), **bought})
    assert together == disagreement_loss(priced_step(), {WETH.address: -2 * 10**18, **bought})


@pytest.mark.parametrize(
    "step",
    [
        priced_step(mean=2_040),
        priced_step(kinds=(PriceSource.FEED,)),
        priced_step(cautious=False),
        with_limits(priced_step(), oracle_deviation_bps=None),
    ],
    ids=["beyond the limit", "one source", "recorded before", "limit off"],
)
def test_otherwise_the_reference_price_alone_counts(step: StepInput) -> None:
    reference = reference_prices(step).price_by_token
    assert price_ranges(step) == {address: (price, price) for address, price in reference.items()}
    assert disagreement_loss(step, {WETH.address: -(10**18), USDC.address: 2_000 * 10**6}) == 0


def test_sold_counts_at_the_higher_and_bought_at_the_lower_price() -> None:
    sells = {WETH.address: -(10**18), USDC.address: 2_000 * 10**6}
    buys = {WETH.address: 10**18, USDC.address: -2_000 * 10**6}
    assert float(disagreement_loss(priced_step(), sells)) == pytest.approx(20 * 10**6, rel=1e-2)
    assert disagreement_loss(priced_step(), buys) == 0
    assert float(disagreement_loss(priced_step(mean=1_980), buys)) == pytest.approx(20 * 10**6, rel=1e-2)
    assert disagreement_loss(priced_step(mean=1_980), sells) == 0


def test_planner_guard_and_composer__require_the_better_price() -> None:
    step = priced_step(spot=MEAN)
    sold = raw(1, WETH)
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, sold)])
    high = price_ranges(step)[WETH.address][1]
    floor = limited_floor(step, plan, high, Fraction(1))
    assert leg_floors(step, plan) == (floor,)
    assert build_problem(step, reference_prices(step)).floor_prices(WETH.address, USDC.address) == (high, 1)
    floors, missed = (replace(plan, legs=(replace(plan.legs[0], min_out_raw=least),)) for least in (floor, floor - 1))
    assert verdict("fair_floor", step, floors).passed
    assert not verdict("fair_floor", step, missed).passed


@pytest.mark.parametrize(
    ("dollars_then", "price_range"),
    [
        pytest.param(1_600, (1_600, 1_600), id="far below"),
        pytest.param(1_981, (1_981, 2_000), id="agrees with the feed"),
        pytest.param(2_010, (2_000, 2_020), id="between"),
        pytest.param(2_040, (2_020, 2_040), id="agrees with the mean"),
        pytest.param(2_400, (2_400, 2_400), id="far above"),
    ],
)
def test_problem_with_other_references__has_their_price_ranges(dollars_then: int, price_range: tuple[int, int]) -> None:
    """The prices of a simulated step are those at its start; sources that agree with them widen the range. Gas is free."""
    references = reference_prices(step_input(values={"WETH": 60_000, "USDC": 40_000}, prices={"WETH": dollars_then}))
    price_then = references.price_by_token[WETH.address]
    step = priced_step()
    step = with_snapshot(step, priority_fee_wei=0, head=replace(step.snapshot.head, base_fee_wei=0))
    problem = build_problem(step, references)
    assert tuple(map(dollars, problem.price_ranges[WETH.address])) == pytest.approx(price_range, rel=1e-4)
    assert problem.price_ranges == price_ranges(step, references)
    assert problem.wei_value == price_then


def test_a_purchase_requires_what_the_lower_price_gives() -> None:
    step = priced_step(mean=1_980, spot=1_980)
    spent = raw(2_000, USDC)
    plan = plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, spent)])
    low = price_ranges(step)[WETH.address][0]
    floor = limited_floor(step, plan, Fraction(1), low)
    enough, less = (replace(plan, legs=(replace(plan.legs[0], min_out_raw=least),)) for least in (floor, floor - 1))
    assert verdict("fair_floor", step, enough).passed
    assert not verdict("fair_floor", step, less).passed


@pytest.mark.parametrize(("spot", "passes"), [(MEAN, True), (FEED, False)])
def test_pool_at_a_lagging_feed_s_price__is_too_dear_at_the_mean(spot: int, passes: bool) -> None:
    """The feed is 1 % behind: by it alone the pool at 2,000 costs only its fee."""
    step = with_limits(priced_step(spot=spot), plan_cost_bps=50, slippage_bps=30)
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, raw(1, WETH))])
    assert verdict("plan_cost", step, plan).passed is passes
    alone = with_limits(priced_step(spot=spot, kinds=(PriceSource.FEED,)), plan_cost_bps=50, slippage_bps=30)
    assert verdict("plan_cost", alone, plan).passed


def test_an_exit_is_not_held_to_its_cost_at_the_mean() -> None:
    """In a crash the mean is above the feed, and a due stop must not wait for it."""
    step = with_limits(priced_step(), plan_cost_bps=50, slippage_bps=30)
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, raw(1, WETH))])
    assert not verdict("plan_cost", step, plan).passed
    assert verdict("plan_cost", step, exit_plan(plan)).passed


def test_worst_case__includes_the_deviation() -> None:
    step = with_limits(priced_step(), oracle_deviation_bps=150)
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, raw(1, WETH))])
    deltas = {WETH.address: -raw(1, WETH), USDC.address: plan.legs[0].amount_out_raw}
    assert deviation_loss(step, deltas) == 2_000 * 10**6 * Fraction(150, 10_000)
    short = plan_sandwich_loss(step, plan)
    worst = plan_worst_case(step, plan)
    assert short is not None
    assert worst == plan.cost.total + short + deviation_loss(step, deltas) + worst_case_gas(step, plan)
    before = replace(step, reference=replace(step.reference, uses_worse_source=False))
    more = disagreement_loss(step, deltas)
    assert more > 0
    assert worst_case_loss(step, plan) - worst_case_loss(before, plan) == more
    cases = [build_guard_case(step, plan, evidence(step, plan)) for step in (step, before)]
    assert cases[0].worst_cost() - cases[1].worst_cost() == more


def test_the_worst_case_counts_the_gas_of_approvals_once() -> None:
    """It is part of the gas that burns at the highest price."""
    step = priced_step()
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, raw(1, WETH))])
    with_approvals = replace(plan, cost=replace(plan.cost, approval_gas=Fraction(7 * 10**6)))
    assert with_approvals.cost.total == plan.cost.total + 7 * 10**6
    assert plan_worst_case(step, with_approvals) == plan_worst_case(step, plan)


def test_worst_case__burns_all_gas_at_the_highest_price() -> None:
    """The cost counts the price of the newest block; within limits.gas_price the step may pay twice its base fee."""
    step = priced_step()
    head = replace(step.snapshot.head, base_fee_wei=30 * 10**9)
    step = replace(step, snapshot=replace(step.snapshot, head=head, priority_fee_wei=10**9))
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, raw(1, WETH))])
    gas = Fraction(plan.gas_units * 31 * 10**9 * 2_000 * 10**6, 10**18)
    plan = replace(plan, cost=replace(plan.cost, gas=gas))
    units = (plan.gas_units + approval_gas_units(step, plan)) * Fraction(5, 4)
    free, worst, capped = (plan_worst_case(with_limits(step, gas_price_wei=at * 10**9), plan) for at in (0, 100, 40))
    assert free is not None
    assert worst is not None
    assert capped is not None
    assert worst - free == units * 61 * Fraction(2_000 * 10**6, 10**9)
    assert capped - free == units * 40 * Fraction(2_000 * 10**6, 10**9)
