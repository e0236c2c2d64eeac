"""Liquidity as a target: provided, reduced, re-centred, compounded; within budget, reserves and gas sense, and never by spot."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.amm.lp import minting
from agent.guards.case import build_guard_case
from agent.layers.liquidity.policy.book import liquidity_limits
from agent.layers.liquidity.policy.provisions import LIMIT_GOAL_SHARE
from agent.layers.liquidity.state import LiquidityCycle, LiquidityProgress
from agent.model import AdjustLiquidity, Decision, Destination, Hold, NoTradeZone, Plan, Provide, Rebalance, StepInput, UnreadableItem
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support import lp_worlds
from tests.support.builders import NOW_S, history, tracking, with_limits, with_snapshot
from tests.support.decisions.liquidity_exits import step_after_plan
from tests.support.lp_worlds import (
    RATIO,
    SPACING,
    USD,
    USDC,
    WETH,
    assert_hold,
    book,
    kinds,
    only_provide,
    paired,
    passes,
    planned,
    quiet,
    ranged,
    roomy,
    v2_at,
    v3_at,
    wanted,
    world,
    worth,
)
from tests.support.plans import evidence
from tests.support.text import mentions

POOL = v3_at().address
PAIR = v2_at().address


# providing
def test_pool_below_its_share__gets_the_rest_around_the_reference() -> None:
    step = world(targets=[wanted(2_000)])
    action = only_provide(step)
    assert (action.token_id, action.pool, action.contract) == (None, POOL, lp_worlds.MANAGER)
    assert action.ticks == minting.range_around(RATIO, 2_000, SPACING)
    assert worth(step, action) == pytest.approx(1_600, rel=1e-5)
    assert mentions(action.reason, "0 %", "20 %")
    assert passes(step)


def test_weights_and_total__stay_and_the_wallet_pays() -> None:
    step = world(targets=[wanted(2_000)])
    plan = planned(step)
    action = only_provide(step)
    assert dict(plan.weights_after_bps) == {WETH.address: 5_000, USDC.address: 5_000}
    before = {holding.token: holding.raw for holding in step.snapshot.holdings}
    paid = dict(zip((action.token0, action.token1), action.amounts_raw, strict=True))
    assert dict(plan.holdings_after) == {token: raw - paid[token] for token, raw in before.items()}
    assert (plan.turnover, plan.gross_volume, plan.cost.fees, plan.legs) == (0, 0, 0, ())
    assert plan.cost.gas > 0


def test_a_pair_gets_what_it_lacks_on_top_of_what_is_there() -> None:
    step = world([paired(700)], [wanted(2_000, v2_at())])
    action = only_provide(step)
    assert (action.token_id, action.ticks, action.contract) == (None, None, PAIR)
    assert worth(step, action) == pytest.approx(8_700 * 0.2 - 700, rel=1e-4)
    assert passes(step)


def test_position_around_the_price__grows_and_no_second_opens() -> None:
    small = ranged(100, 1_800, 2_200, 1)
    large = ranged(500, 1_500, 2_600, 2)
    step = world([small, large], [wanted(2_000)])
    action = only_provide(step)
    assert (action.token_id, action.ticks) == (2 if large.liquidity > small.liquidity else 1, (large.tick_lower, large.tick_upper))
    assert passes(step)


def test_a_difference_within_the_band_around_a_share_is_left() -> None:
    assert isinstance(assert_hold(world([ranged(1_500, 1_800, 2_200)], [wanted(1_500)])), Hold)
    assert isinstance(assert_hold(world([ranged(1_500, 1_800, 2_200)], [wanted(1_700)])), Hold)
    assert kinds(world([ranged(1_500, 1_800, 2_200)], [wanted(1_800)])) == [Provide]


def test_what_a_step_has_begun_it_ends_within_the_band_too() -> None:
    step = world([ranged(1_500, 1_800, 2_200)], [wanted(1_700)], bounds=roomy(plan_cost_bps=100))
    assert_hold(step)
    assert kinds(step.with_progress(LiquidityProgress(has_moved=True))) == [Provide]


@pytest.mark.parametrize(("action_count", "goes_on"), [(0, False), (1, True)])
def test_reverted_withdrawal__begins_nothing_within_the_band(action_count: int, goes_on: bool) -> None:
    step = world([ranged(1_500, 1_800, 2_200)], [wanted(1_700)], bounds=roomy(plan_cost_bps=100))
    cycle = LiquidityCycle(action_count, has_sent_action=True, failed_withdrawal_pools=(PAIR,))
    assert isinstance(decide(cycle.with_progress(step)).decision, AdjustLiquidity if goes_on else Hold)


@pytest.mark.parametrize(("has", "more"), [(1_590, True), (1_599, False)])
def test_rounding_left_of_a_share__is_not_provided(has: int, more: bool) -> None:
    own = ranged(has, 1_900, 2_100)
    rest = Fraction(8_000 - has, 2)
    off = roomy(min_trade=None, plan_cost_bps=None)
    step = world([own], [wanted(2_000)], values={"WETH": rest, "USDC": rest}, bounds=off)
    assert isinstance(decide(step.with_progress(LiquidityProgress(has_moved=True))).decision, AdjustLiquidity if more else Hold)


def test_reserves_stay_in_the_wallet() -> None:
    step = world(targets=[wanted(4_000)], reserves={"WETH": 1}, values={"WETH": 1_000, "USDC": 7_000}, trigger=quiet())
    action = only_provide(step)
    plan = planned(step)
    assert dict(plan.holdings_after)[WETH.address] >= 10**18
    assert dict(zip((action.token0, action.token1), action.amounts_raw, strict=True))[WETH.address] == pytest.approx(5 * 10**17, rel=1e-6)
    assert any(mentions(item.why, "no spendable", "WETH") for item in plan.skipped)
    assert passes(step)


def test_no_more_is_provided_than_the_step_has_approved() -> None:
    step = replace(
        world(targets=[wanted(2_000)]), progress=replace(world(targets=[wanted(2_000)]).progress, spend_caps=((WETH.address, 10**17),))
    )
    action = only_provide(step)
    assert dict(zip((action.token0, action.token1), action.desired_raw, strict=True))[WETH.address] <= 10**17


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"lp_max_weight_bps": 1_500}, "limits.lp_max_weight allows no more"),
        ({"impermanent_loss_bps": 30}, "limits.impermanent_loss allows"),
    ],
)
def test_nothing_is_added_beyond_the_aim_of_budget_and_weight(limit: dict[str, object], reason: str) -> None:
    step = world(targets=[wanted(2_000)], bounds=roomy(**limit))
    plan = planned(step)
    assert any(reason in item.why for item in plan.skipped)
    load = book(step_after_plan(step)).exposure()
    assert load.is_within(liquidity_limits(step.limits).scaled(LIMIT_GOAL_SHARE))
    assert passes(step)
    assert isinstance(decide(step_after_plan(step)).decision, Hold), "neither the exit nor the target asks again"


def test_without_any_room_nothing_is_added() -> None:
    assert_hold(world(targets=[wanted(2_000)], bounds=roomy(impermanent_loss_bps=0)), "limits.impermanent_loss allows no more")


def test_what_is_too_small_or_too_dear_in_gas_is_left() -> None:
    assert_hold(world(targets=[wanted(10)]), "limits.min_trade is 10")
    dear = world(targets=[wanted(100)])
    dear = with_snapshot(dear, head=replace(dear.snapshot.head, base_fee_wei=3 * 10**9))
    assert_hold(dear, "gas of", "is above limits.plan_cost of 50 bps")
    assert kinds(with_limits(dear, plan_cost_bps=None)) == [Provide]


def test_what_comes_to_no_liquidity_is_left() -> None:
    step = world(
        targets=[wanted(2_000)], values={"WETH": 8_000, "USDC": 0}, bounds=roomy(min_trade=None, plan_cost_bps=None), trigger=quiet()
    )
    assert_hold(step, "the wallet has no spendable USDC left", "give no liquidity")


def test_a_shallow_pool_gets_nothing() -> None:
    step = world(targets=[wanted(2_000)])
    shallow = replace(v3_at(depth=50_000), address=POOL)
    assert_hold(with_snapshot(step, pools=(*step.snapshot.pools[:-1], shallow)), "holds less than limits.pool_min_value")


def test_while_something_is_unknown_nothing_moves() -> None:
    step = world(targets=[wanted(2_000)])
    assert_hold(with_snapshot(step, pools=step.snapshot.pools[:-1]), "the pool was not read: trimtab trust pins it")
    failed_item = UnreadableItem("pool", step.snapshot.pools[-1].address, "USDC: the pool cannot send it")
    assert_hold(with_snapshot(step, unreadable_items=(failed_item,)), "the pool is in quarantine: USDC: the pool cannot send it")
    unread = with_snapshot(step, pools=step.snapshot.pools[:-1], unreadable_items=(replace(failed_item, why="no code"),))
    assert_hold(unread, "the pool was not read: no code")
    unpriced = replace(step, portfolio=replace(step.portfolio, wrapped_native=lp_worlds.MANAGER))
    assert_hold(unpriced, "gas cannot be valued")


# triggers and cooldown
def test_a_fired_trigger_comes_before_the_targets() -> None:
    step = world(targets=[wanted(2_000)], values={"WETH": 5_000, "USDC": 3_000})
    assert isinstance(decide(step).decision, Rebalance)


@pytest.mark.parametrize(
    ("last", "reason"), [("last_rebalance_s", "the last rebalance was"), ("last_liquidity_s", "the last liquidity action")]
)
def test_targets__rest_for_the_cooldown_after_swaps_and_actions(last: str, reason: str) -> None:
    step = world(targets=[wanted(2_000)], past=history(**{last: NOW_S - 60}))
    assert_hold(step, "1600 USDC provided", reason, "; no rebalance follows before ", "(cooldown 1 h)")
    assert kinds(world(targets=[wanted(2_000)], past=history(**{last: NOW_S - 3_600}))) == [Provide]


def test_rebalance__does_not_rest_for_liquidity_actions() -> None:
    step = world(values={"WETH": 5_000, "USDC": 3_000}, past=history(last_liquidity_s=NOW_S - 60))
    assert isinstance(decide(step).decision, Rebalance)


def test_range_left__precedes_swaps_and_rests_like_other_actions() -> None:
    """Prices that go to and fro over the ends of narrow ranges move liquidity once per cooldown, whatever triggers fire."""
    values_left = ranged(1_600, 2_100, 2_400, 1)
    uneven = {"WETH": 5_000, "USDC": 3_000}
    for past_s, kind in ((60, Rebalance), (3_600, AdjustLiquidity)):
        step = world([values_left], [wanted(2_000)], values=uneven, past=history(last_liquidity_s=NOW_S - past_s))
        assert isinstance(decide(step).decision, kind)
    too_much = with_limits(
        world([values_left], [wanted(2_000)], values=uneven, past=history(last_liquidity_s=NOW_S - 60)), lp_max_weight_bps=1_000
    )
    assert isinstance(decide(too_much).decision, AdjustLiquidity), "limits wait for no cooldown"


def test_targets_come_where_a_zone_finds_no_swap_worth_its_gas() -> None:
    zone = NoTradeZone(tracking("WETH", "USDC", cost_bps=2))
    step = world(targets=[wanted(2_000)], values={"WETH": 4_150, "USDC": 3_850}, trigger=zone, destination=Destination.ZONE)
    assert isinstance(decide(step).decision, Rebalance)
    proposal = propose_rebalance(step)
    assert isinstance(proposal.decision_result.decision, AdjustLiquidity)
    assert proposal.plan is not None
    assert [type(action) for action in proposal.plan.layer_actions] == [Provide]


@pytest.mark.parametrize(
    ("values", "decision_type"),
    [
        pytest.param({"WETH": 4_150, "USDC": 3_850}, AdjustLiquidity, id="within the trigger"),
        pytest.param({"WETH": 5_000, "USDC": 3_000}, Rebalance, id="beyond the trigger"),
    ],
)
def test_liquidity_target__under_tracking__follows_due_swaps(values: dict[str, int], decision_type: type[Decision]) -> None:
    step = world(targets=[wanted(2_000)], values=values, trigger=build_tracking("normal"), destination=Destination.ZONE)

    assert isinstance(propose_rebalance(complete_risk(step)).decision_result.decision, decision_type)


# spot
@pytest.mark.parametrize("pushed", [Fraction(8, 10), Fraction(102, 100), Fraction(12, 10)])
@pytest.mark.parametrize("place", [v3_at, v2_at])
def test_pool_off_the_reference__provides_and_takes_nothing(place: object, pushed: Fraction) -> None:
    """T3 and T11: at a pushed price liquidity is bought too dear and sold in the wrong mix."""
    at = place(pushed)  # type: ignore[operator]  # parametrize erases the type
    for share_bps in (2_000, 0):
        own = [paired(900, at)] if place is v2_at else [ranged(900, 1_800, 2_200, 1, at)]
        assert_hold(world(own, [wanted(share_bps, at)], pushed=pushed), "bps off the reference, limits.oracle_deviation is 150 bps")


def test_a_push_that_makes_spot_leave_a_range_recentres_nothing() -> None:
    """The pool is pushed by 1.4 %, out of the range; the reference is still in it."""
    at = v3_at(Fraction(1_014, 1_000))
    own = ranged(1_600, 1_985, 2_015, 1, at)
    assert not own.tick_lower <= own.tick < own.tick_upper
    assert_hold(world([own], [wanted(1_700, at)], pushed=Fraction(1_014, 1_000)))


def test_band_too_narrow_by_slippage__holds_providing_back() -> None:
    at = v3_at(Fraction(1_014, 1_000))
    step = world(targets=[wanted(2_000, at, width_bps=300)], pushed=Fraction(1_014, 1_000), bounds=roomy(slippage_bps=5))
    assert_hold(step, "where limits.slippage no longer bounds the cost of liquidity")


PUSHED = Fraction(1_010, 1_000)


@pytest.mark.parametrize(
    ("place", "own", "target", "per_million"),
    [
        pytest.param(v2_at, [paired(100, v2_at(PUSHED))], wanted(4_000, v2_at()), 12.4, id="pair"),
        pytest.param(v3_at, [], wanted(4_000, v3_at(), width_bps=300), 755.7, id="range"),
    ],
)
def test_what_a_pushed_pool_makes_liquidity_cost_is_skew(place: object, own: list[object], target: object, per_million: float) -> None:
    """T1: pushed before the snapshot and set back afterwards, liquidity is bought too dear by d²/8 in a pair, by more in a range."""
    step = world(own, [target], pushed=PUSHED)  # type: ignore[arg-type,list-item]  # parametrize erases the types
    plan = planned(step)
    assert float(plan.cost.skew) / worth(step, only_provide(step)) == pytest.approx(per_million, rel=1e-2)
    assert passes(step)
    level = planned(world([], [wanted(4_000, width_bps=300)]))
    assert level.cost.skew < 10, "at the reference nothing but rounding"


def refused(step: StepInput, plan: Plan, **limits: int) -> list[str]:
    """Guards that refuse the plan under these limits."""
    tight = with_limits(step, **limits)
    return [verdict.guard for verdict in guards.judge(tight, plan, evidence(tight, plan)) if not verdict.passed]


def test_overpaid_liquidity__counts_in_the_cost_limit() -> None:
    step = world(targets=[wanted(4_000, width_bps=300)], pushed=PUSHED)
    plan = planned(step)
    of = worth(step, only_provide(step))
    paid = plan.cost.gas + plan.cost.approval_gas
    gas_bps, cost_bps = (float(value) / USD / of * 10_000 for value in (paid, paid + plan.cost.skew))
    assert int(cost_bps) > gas_bps, "a limit between the two"
    assert refused(step, plan, plan_cost_bps=int(cost_bps)) == ["plan_cost"]
    assert refused(step, plan, plan_cost_bps=int(cost_bps) + 1) == []


def test_most_that_minimums_cost__counts_in_the_day_s_loss() -> None:
    step = world(targets=[wanted(4_000, width_bps=300)], pushed=PUSHED)
    plan = planned(step)
    case = build_guard_case(step, plan, evidence(step, plan))
    worst = case.worst_cost()
    total = case.portfolio_value()
    assert worst > case.cost() > plan.cost.gas
    worst_bps = int(worst * 10_000 / total)
    assert refused(step, plan, daily_loss_bps=worst_bps) == ["daily_loss"]
    assert refused(step, plan, daily_loss_bps=worst_bps + 1) == []


def test_pushed_pool_dearer_than_plan_cost__gets_nothing() -> None:
    text = "a cost of 3.72 USDC, 2.42 USDC of it because the pool is off the reference, for 3200 USDC is above limits.plan_cost of 10 bps"
    assert_hold(world(targets=[wanted(4_000, width_bps=300)], pushed=PUSHED, bounds=roomy(plan_cost_bps=10)), text)
