"""Liquidity as a target: provided, reduced, re-centred, compounded; within budget, reserves and gas sense, and never by spot."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.lp import exact, mint
from agent.model import (
    AdjustLiquidity,
    Collect,
    Decision,
    Destination,
    Halt,
    Hold,
    LpTarget,
    Provide,
    Rebalance,
    StepInput,
    Threshold,
    Withdraw,
    Zone,
)
from agent.planning.strategies import rebalance
from agent.policy.decide import decide
from agent.policy.lp_book import bounds
from agent.policy.lp_exits import AIM
from tests import lp_positions as lp
from tests.builders import NOW_S, history, threshold, with_limits, with_snapshot
from tests.lp_worlds import RATIO, SPACING, USD, USDC, WETH, book, paired, planned, ranged, roomy, v2_at, v3_at, wanted, world
from tests.plans import evidence
from tests.unit.test_lp_exits import after
from tests.zones import tracking

POOL, PAIR = v3_at().address, v2_at().address


def _quiet() -> Threshold:
    return threshold(absolute_bps=9_000)


def kinds(step: StepInput) -> list[type]:
    return [type(action) for action in planned(step).actions]


def passes(step: StepInput) -> bool:
    """Whether every guard lets the plan pass."""
    plan = planned(step)
    refused = [v for v in guards.judge(step, plan, evidence(step, plan)) if not v.passed]
    assert not refused, refused
    return True


def held(step: StepInput, *said: str) -> Decision:
    """A hold that says why."""
    decision = decide(step).decision
    assert isinstance(decision, Hold), decision
    assert all(part in decision.reason for part in said), decision.reason
    return decision


def only_provide(step: StepInput) -> Provide:
    [action] = planned(step).actions
    assert isinstance(action, Provide)
    return action


def worth(step: StepInput, action: Provide | Withdraw) -> float:
    of = step.portfolio.lp_targets[0]
    return float(book(step).value(of, action.amounts_raw)) / USD


# providing
def test_a_pool_below_its_share_gets_what_it_lacks_in_a_range_around_the_reference() -> None:
    step = world(targets=[wanted(2_000)])
    action = only_provide(step)
    assert (action.token_id, action.pool, action.contract) == (None, POOL, lp.MANAGER)
    assert action.ticks == mint.range_around(RATIO, 2_000, SPACING)
    assert worth(step, action) == pytest.approx(1_600, rel=1e-5)
    assert "has 0 % of the portfolio against a share of 20 %" in action.reason
    assert passes(step)


def test_weights_and_total_stay_what_they_are_and_the_wallet_pays() -> None:
    step = world(targets=[wanted(2_000)])
    plan, action = planned(step), only_provide(step)
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


def test_the_position_around_the_price_grows_and_no_second_one_opens() -> None:
    small, large = ranged(100, 1_800, 2_200, 1), ranged(500, 1_500, 2_600, 2)
    step = world([small, large], [wanted(2_000)])
    action = only_provide(step)
    assert (action.token_id, action.ticks) == (2 if large.liquidity > small.liquidity else 1, (large.tick_lower, large.tick_upper))
    assert passes(step)


def test_a_difference_within_the_band_around_a_share_is_left() -> None:
    assert isinstance(held(world([ranged(1_500, 1_800, 2_200)], [wanted(1_500)])), Hold)
    assert isinstance(held(world([ranged(1_500, 1_800, 2_200)], [wanted(1_700)])), Hold)
    assert kinds(world([ranged(1_500, 1_800, 2_200)], [wanted(1_800)])) == [Provide]


def test_what_a_step_has_begun_it_ends_within_the_band_too() -> None:
    step = world([ranged(1_500, 1_800, 2_200)], [wanted(1_700)], bounds=roomy(plan_cost_bps=100))
    held(step)
    assert kinds(replace(step, acted=True)) == [Provide]


def test_reserves_stay_in_the_wallet() -> None:
    step = world(targets=[wanted(4_000)], reserves={"WETH": 1}, values={"WETH": 1_000, "USDC": 7_000}, trigger=_quiet())
    action, plan = only_provide(step), planned(step)
    assert dict(plan.holdings_after)[WETH.address] >= 10**18
    assert dict(zip((action.token0, action.token1), action.amounts_raw, strict=True))[WETH.address] == pytest.approx(5 * 10**17, rel=1e-6)
    assert any("the wallet has no more WETH to spend" in item.why for item in plan.skipped)
    assert passes(step)


def test_no_more_is_provided_than_the_step_has_approved() -> None:
    step = replace(world(targets=[wanted(2_000)]), spend_caps=((WETH.address, 10**17),))
    action = only_provide(step)
    assert dict(zip((action.token0, action.token1), action.desired_raw, strict=True))[WETH.address] <= 10**17


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"lp_max_weight_bps": 1_500}, "limits.lp_max_weight leaves no room"),
        ({"impermanent_loss_bps": 30}, "limits.impermanent_loss leaves"),
    ],
)
def test_nothing_is_added_beyond_the_aim_of_budget_and_weight(limit: dict[str, object], said: str) -> None:
    step = world(targets=[wanted(2_000)], bounds=roomy(**limit))
    plan = planned(step)
    assert any(said in item.why for item in plan.skipped)
    load = book(after(step)).load()
    assert load.within(bounds(step.limits).scaled(AIM))
    assert passes(step)
    assert isinstance(decide(after(step)).decision, Hold), "neither the exit nor the target asks again"


def test_without_any_room_nothing_is_added() -> None:
    held(world(targets=[wanted(2_000)], bounds=roomy(impermanent_loss_bps=0)), "limits.impermanent_loss leaves no room")


def test_what_is_too_small_or_too_dear_in_gas_is_left() -> None:
    held(world(targets=[wanted(10)]), "limits.min_trade is 10")
    dear = world(targets=[wanted(100)])
    dear = with_snapshot(dear, head=replace(dear.snapshot.head, base_fee_wei=3 * 10**9))
    held(dear, "gas of", "is above limits.plan_cost of 50 bps")
    assert kinds(with_limits(dear, plan_cost_bps=None)) == [Provide]


def test_a_shallow_pool_gets_nothing() -> None:
    step = world(targets=[wanted(2_000)])
    shallow = replace(v3_at(depth=50_000), address=POOL)
    held(with_snapshot(step, pools=(*step.snapshot.pools[:-1], shallow)), "holds less than limits.pool_min_value")


def test_while_something_is_unknown_nothing_moves() -> None:
    step = world(targets=[wanted(2_000)])
    held(with_snapshot(step, pools=step.snapshot.pools[:-1]), "the pool was not read: trimtab trust pins it")
    unpriced = replace(step, portfolio=replace(step.portfolio, wrapped_native=lp.MANAGER))
    held(unpriced, "gas cannot be valued")


# triggers and cooldown
def test_a_fired_trigger_comes_before_the_targets() -> None:
    step = world(targets=[wanted(2_000)], values={"WETH": 5_000, "USDC": 3_000})
    assert isinstance(decide(step).decision, Rebalance)


def test_targets_rest_for_the_cooldown_of_rebalances() -> None:
    step = world(targets=[wanted(2_000)], past=history(last_rebalance_s=NOW_S - 60))
    held(step, "1600 USDC provided", "cooldown lasts until")
    assert kinds(replace(step, acted=True)) == [Provide], "what the same step began is not held back"
    assert kinds(world(targets=[wanted(2_000)], past=history(last_rebalance_s=NOW_S - 3_600))) == [Provide]


def test_targets_come_where_a_zone_finds_no_swap_worth_its_gas() -> None:
    zone = Zone(tracking("WETH", "USDC", cost_bps=2))
    step = world(targets=[wanted(2_000)], values={"WETH": 4_150, "USDC": 3_850}, trigger=zone, destination=Destination.ZONE)
    assert isinstance(decide(step).decision, Rebalance)
    proposal = rebalance(step)
    assert isinstance(proposal.decided.decision, AdjustLiquidity)
    assert proposal.plan is not None
    assert [type(action) for action in proposal.plan.actions] == [Provide]


# spot
@pytest.mark.parametrize("pushed", [Fraction(8, 10), Fraction(102, 100), Fraction(12, 10)])
@pytest.mark.parametrize("place", [v3_at, v2_at])
def test_nothing_is_provided_or_taken_while_the_pool_is_off_the_reference(place: object, pushed: Fraction) -> None:
    """T3 and T11: at a pushed price liquidity is bought too dear and sold in the wrong mix."""
    at = place(pushed)  # type: ignore[operator]  # parametrize erases the type
    for share_bps in (2_000, 0):
        own = [paired(900, at)] if place is v2_at else [ranged(900, 1_800, 2_200, 1, at)]
        held(world(own, [wanted(share_bps, at)], pushed=pushed), "bps off the reference, limits.oracle_deviation is 150 bps")


def test_a_push_that_makes_spot_leave_a_range_recentres_nothing() -> None:
    """The pool is pushed by 1.4 %, out of the range; the reference is still in it."""
    at = v3_at(Fraction(1_014, 1_000))
    own = ranged(1_600, 1_985, 2_015, 1, at)
    assert not own.tick_lower <= own.tick < own.tick_upper
    held(world([own], [wanted(1_700, at)], pushed=Fraction(1_014, 1_000)))


def test_a_band_that_the_slippage_limit_makes_too_narrow_holds_providing_back() -> None:
    at = v3_at(Fraction(1_014, 1_000))
    step = world(targets=[wanted(2_000, at, width_bps=300)], pushed=Fraction(1_014, 1_000), bounds=roomy(slippage_bps=5))
    held(step, "within which limits.slippage bounds what liquidity costs")


# ranges that the price left
def test_a_range_that_the_reference_left_is_taken_out_and_a_new_one_minted_around_it() -> None:
    own = ranged(1_600, 2_200, 2_600)
    step = world([own], [wanted(1_700)], trigger=_quiet())
    out, new = planned(step).actions
    assert isinstance(out, Withdraw)
    assert isinstance(new, Provide)
    assert (out.liquidity, min(out.amounts_raw)) == (own.liquidity, 0)
    assert new.ticks == mint.range_around(RATIO, 2_000, SPACING)
    assert "the reference price has left the range of uniswap_v3 #42" in out.reason
    assert passes(step)


def test_only_what_is_sure_to_come_of_a_withdrawal_is_counted_on() -> None:
    own = ranged(1_600, 1_800, 2_200)
    step = world(
        [own, paired(0)], [wanted(0), wanted(9_000, v2_at())], {"WETH": 50, "USDC": 50}, roomy(lp_max_weight_bps=10_000), trigger=_quiet()
    )
    out, new = planned(step).actions
    assert isinstance(out, Withdraw)
    assert isinstance(new, Provide)
    spare = {holding.token: holding.raw for holding in step.snapshot.holdings}
    sure = [spare[token] + least for token, least in zip((new.token0, new.token1), out.min_raw, strict=True)]
    assert all(raw <= most for raw, most in zip(new.desired_raw, sure, strict=True))
    assert any(raw > most - 1_000_000 - most // 1_000 for raw, most in zip(new.desired_raw, sure, strict=True)), "and no less"
    assert passes(step)


def test_a_range_that_is_left_and_not_wanted_any_more_is_only_taken_out() -> None:
    assert kinds(world([ranged(1_600, 2_200, 2_600)], [wanted(0)], trigger=_quiet())) == [Withdraw]


def test_a_range_that_was_left_stays_where_it_is_not_worth_its_gas() -> None:
    step = world([ranged(30, 2_200, 2_600)], [wanted(30)])
    held(step, "uniswap_v3 #42 stays beside the price", "limits.plan_cost")


def test_without_a_target_in_its_pool_a_range_that_was_left_is_the_owners_business() -> None:
    held(world([ranged(1_600, 2_200, 2_600)], [wanted(0, v2_at())], trigger=_quiet()))
    held(world([ranged(1_600, 2_200, 2_600)], trigger=_quiet()))


# less of it
def test_what_is_above_its_share_is_taken_out_down_to_it() -> None:
    step = world([ranged(2_000, 1_800, 2_200)], [wanted(1_000)])
    [action] = planned(step).actions
    assert isinstance(action, Withdraw)
    assert worth(step, action) == pytest.approx(1_000, rel=1e-4)
    assert passes(step)


def test_a_share_of_nothing_takes_everything_out() -> None:
    step = world([ranged(500, 1_800, 2_200, 1), ranged(300, 1_000, 3_000, 2)], [wanted(0)])
    actions = planned(step).actions
    assert all(isinstance(action, Withdraw) and action.liquidity == action.held for action in actions)
    assert len(actions) == 2
    assert passes(step)
    held(world([ranged(5, 1_800, 2_200)], [wanted(0)]), "5 USDC to move, limits.min_trade is 10")


# fees
def earning(share_bps: int, above: int | None = 50, usd: int = 1_600, **changes: object) -> StepInput:
    """Fees of 60 dollars and 0.03 WETH: 120 in all."""
    fees = (60 * USD, 3 * 10**16)
    own = ranged(usd, 1_800, 2_200, owed=fees, core_owed=fees)
    target = wanted(share_bps, compound_above=None if above is None else Fraction(above * USD))
    return world([own], [target], bounds=roomy(plan_cost_bps=200), **changes)  # type: ignore[arg-type]  # keywords of world


def test_fees_above_their_threshold_are_collected_and_put_back() -> None:
    step = earning(1_770)
    collect, back = planned(step).actions
    assert isinstance(collect, Collect)
    assert isinstance(back, Provide)
    assert collect.fees_raw == (60 * USD, 3 * 10**16)
    assert back.token_id == 42
    assert worth(step, back) == pytest.approx(120, rel=0.01), "the position is at its share: all of it goes back"
    assert "has earned 120 USDC, above compound_above 50 USDC" in collect.reason
    assert passes(step)


def test_fees_go_back_as_far_as_the_share_lacks_them() -> None:
    assert kinds(earning(1_630)) == [Collect]
    assert worth(earning(1_700), planned(earning(1_700)).actions[1]) == pytest.approx(0.17 * 9_720 - 1_600, rel=0.02)  # type: ignore[arg-type]  # a Provide


def test_fees_stay_below_their_threshold_or_where_that_is_off_or_gas_is_dear() -> None:
    held(earning(1_770, above=120))
    held(earning(1_770, above=None))
    dear = earning(1_770)
    held(with_limits(dear, plan_cost_bps=50), "fees of uniswap_v3 #42 stay: gas of")


# strangers
def test_what_strangers_sent_counts_to_no_share_and_is_never_touched() -> None:
    """T11: a position in our own pool that the owner did not confirm, out of range and with fees to collect."""
    gift = ranged(5_000, 2_200, 2_600, 99, owed=(10**12, 10**20), core_owed=(10**12, 10**20))
    step = world([gift], [wanted(2_000, compound_above=Fraction(1))], confirmed=[])
    assert only_provide(step).token_id is None
    assert worth(step, only_provide(step)) == pytest.approx(1_600, rel=1e-5)


def test_a_position_of_another_owner_halts_by_name() -> None:
    own = ranged(500, 1_800, 2_200)
    step = with_snapshot(world([own], [wanted(2_000)]), positions=())
    decision = decide(step).decision
    assert isinstance(decision, Halt)
    assert "uniswap_v3 #42" in decision.reason


def test_several_targets_share_the_wallet_and_the_limits() -> None:
    targets: list[LpTarget] = [wanted(2_000), wanted(2_000, v2_at())]
    step = world([paired(0)], targets)
    plan = planned(step)
    assert [action.pool for action in plan.actions] == [POOL, PAIR]
    for token, raw in plan.holdings_after:
        assert raw >= 0, token
    assert passes(step)
    tight = with_limits(step, lp_max_weight_bps=2_500)
    total = sum(worth(tight, action) for action in planned(tight).actions if isinstance(action, Provide))
    assert total == pytest.approx(8_000 * 0.25 * 0.95, rel=1e-3)


def test_the_share_of_a_range_that_is_in_the_pool_counts_uncollected_fees() -> None:
    fees = (800 * USD, 0)
    own = ranged(1_000, 1_800, 2_200, owed=fees, core_owed=fees)
    assert exact.uncollected(own) == fees
    held(world([own], [wanted(1_800)]))


def test_the_decision_tells_every_move() -> None:
    decision = decide(world([paired(0)], [wanted(2_000), wanted(1_000, v2_at())])).decision
    assert isinstance(decision, AdjustLiquidity)
    assert decision.reason.count("provided") == 2
