"""A gradual execution: each round decided anew, sizes and sum, the budget, and every way it ends by name."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import codec
from agent.layers.gradual.planning import _step_after_plan, _unmoved_unit_cost
from agent.layers.gradual.planning import schedule_plan as in_time
from agent.layers.gradual.policy import (
    MILLION,
    _remaining_value,
    jitter_factor,
    mean_interval_s,
    mean_slice_value,
    slice_value,
    slice_wait_s,
)
from agent.layers.gradual.state import ExecutionProgress, GradualExecution, GradualResult, GradualState, SliceDraw
from agent.model import Allowance, Destination, ExecutionStyle, Goal, GoalWeight, Hold, PastPrices, Rebalance, StepInput, TradeSide
from agent.planning import planner, proposals
from agent.planning.partial_plans import worst_case_loss
from agent.policy.decide import current_drifts, decide
from agent.policy.drift import corrections
from agent.policy.one_sided import partial_goal
from agent.units import Token
from tests.support.builders import OWNER, feed_address, feed_round, step_input, with_history, with_snapshot
from tests.support.constants import USD
from tests.support.gradual_execution import PACE, Run, later, market, paced, roomy, run
from tests.support.text import mentions
from tests.support.tokens import USDC, WBTC, WETH

TWAP = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=8, twap_duration_s=14_400)


def drifted(**pace: object) -> StepInput:
    """200,000 of 1,000,000 have to move through a pair of 20 million on each side."""
    step = roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000), max_live_value=None)
    return paced(step, recovery_s=1, **pace)


def begun(step: StepInput) -> StepInput:
    """The same once the campaign is written down, before its first round."""
    proposal = proposals.propose_rebalance(step)
    assert proposal.decision_result.layer(GradualResult).new_execution is not None, proposal.decision_result.decision.reason
    return under(
        step,
        ExecutionProgress(
            "c1",
            proposal.decision_result.layer(GradualResult).new_execution,
            0,
            Fraction(0),
            Fraction(0),
            proposal.decision_result.layer(GradualResult).new_execution.began_s,
            SliceDraw(500_000, 0),
        ),
    )


def under(step: StepInput, campaign: ExecutionProgress) -> StepInput:
    return with_history(step, last_rebalance_s=step.snapshot.head.timestamp_s - 10).with_layer(
        replace(step.layer(GradualState), progress=campaign)
    )


def with_progress(step: StepInput, **changes: object) -> StepInput:
    assert step.layer(GradualState).progress is not None
    return under(step, replace(step.layer(GradualState).progress, **changes))  # type: ignore[arg-type]  # fields by name


def moved_to(step: StepInput, price: int) -> StepInput:
    """The same with another price of WETH in the feed; pools stay, since nothing here trades in them."""
    now_s = step.snapshot.head.timestamp_s
    feeds = tuple(
        feed_round("WETH", Fraction(price), now_s - 60) if feed.feed == feed_address("WETH") else feed for feed in step.snapshot.feeds
    )
    return with_snapshot(step, feeds=feeds)


def ended(step: StepInput) -> str:
    decision_result = decide(step)
    assert decision_result.layer(GradualResult).due_slice is None
    return decision_result.layer(GradualResult).end_reason


# rounds
def test_first_round__is_shown_as_it_will_be_decided() -> None:
    step = drifted()
    step = step.with_layer(replace(step.layer(GradualState), draw=SliceDraw(123_456, 654_321)))
    proposal = proposals.propose_rebalance(step)
    assert proposal.decision_result.layer(GradualResult).new_execution is not None
    assert proposal.decision_result.layer(GradualResult).new_execution.first_draw == SliceDraw(123_456, 654_321)
    written = ExecutionProgress(
        "c1",
        proposal.decision_result.layer(GradualResult).new_execution,
        0,
        Fraction(0),
        Fraction(0),
        proposal.decision_result.layer(GradualResult).new_execution.began_s,
        proposal.decision_result.layer(GradualResult).new_execution.first_draw,
    )
    again = proposals.propose_rebalance(under(step, written))
    assert again.plan is not None
    assert proposal.plan is not None
    assert again.plan.legs == proposal.plan.legs
    assert again.decision_result.layer(GradualResult).due_slice == proposal.decision_result.layer(GradualResult).due_slice


def test_campaign__is_due_from_its_time_despite_cooldown_and_band() -> None:
    step = with_progress(begun(drifted()), parts_done=1, next_s=drifted().snapshot.head.timestamp_s + 300)
    waits = decide(step)
    assert isinstance(waits.decision, Hold)
    assert waits.decision.next_evaluation_s == step.snapshot.head.timestamp_s + 300
    assert "2 of about" in waits.decision.reason
    due = decide(later(step, 300))
    assert isinstance(due.decision, Rebalance)
    assert due.layer(GradualResult).due_slice is not None
    assert due.layer(GradualResult).due_slice.number == 2


def test_stored_step_with_a_campaign__decides_the_same() -> None:
    step = later(with_progress(begun(drifted()), parts_done=2), 1_000)
    back = codec.loads(StepInput, codec.dumps(step))
    assert back == step
    assert proposals.propose_rebalance(back).plan == proposals.propose_rebalance(step).plan


def test_a_step_stored_before_there_were_campaigns_still_loads() -> None:
    text = json.loads(codec.dumps(step_input()))
    del text["execution"]["pace"]
    assert codec.from_jsonable(StepInput, text) == step_input()


def test_part_of_a_goal__moves_every_edge_by_that_part() -> None:
    step = roomy(step_input({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, {"WETH": 700, "WBTC": 290, "USDC": 10}))
    for destination in (Destination.TARGET, Destination.BAND):
        changed_step = replace(step, policy=replace(step.policy, destination=destination))
        decision_result = decide(replace(changed_step, limits=replace(changed_step.limits, min_trade=None)))
        assert isinstance(decision_result.decision, Rebalance)
        third = partial_goal(decision_result.drifts, decision_result.decision.goal, Fraction(1, 3))
        whole = corrections(decision_result.drifts, decision_result.decision.goal)
        part = corrections(decision_result.drifts, third)
        assert {token: lack / 3 for token, lack in whole.items()} == part
        assert partial_goal(decision_result.drifts, decision_result.decision.goal, Fraction(1)) == decision_result.decision.goal


# ways to end
def test_owner_s_change__ends_it_and_the_same_look_decides_anew() -> None:
    step = later(begun(drifted()), 1_000)
    other = [replace(asset, target_bps=bps) for asset, bps in zip(step.portfolio.assets, (6_000, 4_000), strict=True)]
    changed = replace(step, portfolio=replace(step.portfolio, assets=tuple(other)))
    assert mentions(decide(changed).layer(GradualResult).end_reason, "changed")
    near = [replace(asset, target_bps=bps) for asset, bps in zip(step.portfolio.assets, (5_025, 4_975), strict=True)]
    assert decide(replace(step, portfolio=replace(step.portfolio, assets=tuple(near)))).layer(GradualResult).end_reason == "", (
        "as much as targets of data move"
    )
    assert mentions(
        decide(replace(step, policy=replace(step.policy, destination=Destination.HALFWAY))).layer(GradualResult).end_reason,
        "policy.destination",
    )
    assert mentions(
        decide(replace(step, policy=replace(step.policy, trade_side=TradeSide.SELL))).layer(GradualResult).end_reason, "policy.only"
    )
    faster = paced(step, max_rounds=3)
    assert mentions(decide(faster).layer(GradualResult).end_reason, "[execution]")
    rested = with_history(faster, last_rebalance_s=None)
    assert proposals.propose_rebalance(rested).decision_result.layer(GradualResult).new_execution is not None


def test_other_order_of_assets__ends_it() -> None:
    step = later(begun(drifted()), 1_000)
    turned = replace(step, portfolio=replace(step.portfolio, assets=step.portfolio.assets[::-1]))
    assert mentions(decide(turned).layer(GradualResult).end_reason, "changed")


def test_prices_of_one_block_fire_no_round() -> None:
    """T3: each round waits until the blocks before ask for it, too."""
    step = begun(drifted())
    step = replace(step, policy=replace(step.policy, confirm_blocks=2))
    head = step.snapshot.head
    unknown = decide(step)
    assert mentions(unknown.decision.reason, "2 preceding", "missing")
    same = tuple(PastPrices(replace(head, number=head.number - back), step.snapshot.feeds, step.snapshot.pools) for back in (1, 2))
    assert decide(with_snapshot(step, past_prices=same)).layer(GradualResult).due_slice is not None
    turned = replace(same[1], feeds=moved_to(step, 600).snapshot.feeds)
    pushed = decide(with_snapshot(step, past_prices=(same[0], turned)))
    assert pushed.layer(GradualResult).due_slice is None
    assert pushed.decision.limiting_rule == "policy.confirm_blocks"


def test_a_drift_that_is_gone_ends_it() -> None:
    assert mentions(ended(moved_to(begun(drifted()), 857)), "drift is")
    assert mentions(ended(moved_to(with_progress(begun(drifted()), parts_done=2), 857)), "done in 2")


def test_prices_that_turned_end_it() -> None:
    assert mentions(ended(moved_to(begun(drifted()), 600)), "reversed", "WETH")


def test_its_time_ends_it_however_long_it_was_paused() -> None:
    step = begun(drifted())
    assert step.layer(GradualState).progress is not None
    campaign = step.layer(GradualState).progress.execution
    assert decide(later(step, campaign.expires_s - campaign.began_s - 1)).layer(GradualResult).end_reason == ""
    why = ended(later(step, campaign.expires_s - campaign.began_s))
    assert "time ended" in why
    assert "200000 USDC" in why


def test_spent_budget__ends_it_as_does_a_round_that_may_exceed_it() -> None:
    step = begun(drifted(max_loss_bps=50))
    assert step.layer(GradualState).progress is not None
    budget = step.layer(GradualState).progress.execution.max_loss
    assert budget == 1_000 * USD
    assert "its budget" in ended(with_progress(step, parts_done=1, lost_value=budget))
    proposal = proposals.propose_rebalance(step)
    assert proposal.plan is not None
    worst = worst_case_loss(step, proposal.plan, dict(step.layer(GradualState).progress.execution.arrival_prices))
    just = proposals.propose_rebalance(with_progress(step, lost_value=budget - worst))
    assert just.plan is not None
    over = proposals.propose_rebalance(with_progress(step, lost_value=budget - worst + 1))
    assert over.plan is None
    assert isinstance(over.decision_result.decision, Hold)
    assert "may cost" in over.decision_result.layer(GradualResult).end_reason
    off = begun(drifted(max_loss_bps=None))
    assert proposals.propose_rebalance(with_progress(off, lost_value=Fraction(10**15))).plan is not None


def test_a_first_round_that_no_budget_allows_begins_no_campaign() -> None:
    proposal = proposals.propose_rebalance(drifted(max_loss_bps=1))
    assert (proposal.plan, proposal.decision_result.layer(GradualResult).new_execution) == (None, None)
    assert "its budget" in proposal.decision_result.decision.reason


def test_after_its_end_the_cooldown_counts_from_there() -> None:
    step = drifted()
    step = step.with_layer(replace(step.layer(GradualState), ended_s=step.snapshot.head.timestamp_s - 100))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Hold)
    assert "gradual execution" in decision_result.decision.reason


# whole campaigns
def check(done: Run, least: Fraction, loose: bool = False) -> None:
    """Sizes within their bounds but for the last, and all together the wish."""
    campaign = done.execution
    jitter = Fraction(campaign.pace.size_jitter_bps, 10_000)
    fair = mean_slice_value(campaign)
    for size in done.sizes[:-1]:
        assert fair * (1 - jitter) * Fraction(98, 100) <= size <= fair * (1 + jitter) * Fraction(102, 100)
    assert done.sizes[-1] <= fair * (1 + jitter) * Fraction(103, 100) or loose
    cost = sum((plan.cost.total for plan in done.plans), Fraction(0))
    assert campaign.value_to_move - least - 1 <= sum(done.sizes) <= campaign.value_to_move + cost + least
    assert mentions(done.ended, f"done in {len(done.sizes)}") if len(done.sizes) != 1 else mentions(done.ended, "done in 1")


@given(seed=st.integers(0, 10**6), jitter=st.integers(0, 5_000), over=st.booleans())
@settings(max_examples=8)
def test_rounds_are_of_random_size_and_together_the_wish(seed: int, jitter: int, over: bool) -> None:
    step = drifted(size_jitter_bps=jitter, max_rounds=5)
    step = paced(step, replace(TWAP, size_jitter_bps=jitter)) if over else step
    done = run(step, random.Random(seed))
    check(done, step.limits.min_trade or Fraction(0), loose=over)
    assert done.execution.rounds > 1
    mean_s = mean_interval_s(done.execution.pace, done.execution.rounds)
    waits = [after - before for before, after in zip(done.times_s, done.times_s[1:], strict=False)]
    assert all(mean_s // 2 <= wait <= mean_s * 3 // 2 + 2 for wait in waits)
    assert not over or done.times_s[-1] <= done.execution.expires_s


@given(seed=st.integers(0, 10**6), budget=st.integers(20, 120), drop=st.integers(-60, 60))
@settings(max_examples=8)
def test_loss_against_the_start__is_never_above_the_budget(seed: int, budget: int, drop: int) -> None:
    """The market moves after each round, pools and feeds alike: what is sold brings less, and at some point no more is sold."""

    def moves(step: StepInput, number: int) -> StepInput:
        return market(step, Fraction(2_000) * (1 + Fraction(drop * number, 10_000)))

    step = paced(drifted(), replace(TWAP, max_loss_bps=budget, max_rounds=6))
    if proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution is None:
        return
    done = run(step, random.Random(seed), moves)
    assert done.execution.max_loss is not None
    assert done.spent <= done.execution.max_loss
    assert done.ended


def test_a_falling_price_ends_it_by_its_budget_before_it_is_done() -> None:
    done = run(drifted(max_loss_bps=60), random.Random(1), lambda step, number: market(step, Fraction(2_000) * (1 - Fraction(number, 400))))
    assert "budget" in done.ended
    assert 0 < sum(done.sizes) < done.execution.value_to_move
    assert done.execution.max_loss is not None
    assert done.spent <= done.execution.max_loss


def test_a_correction_over_a_stated_time_ends_within_it() -> None:
    for seed in range(3):
        done = run(paced(drifted(), TWAP), random.Random(seed))
        assert done.execution.rounds == 8
        assert done.execution.ends_s == done.execution.began_s + 14_400
        assert done.times_s[-1] <= done.execution.expires_s
        assert len(done.sizes) >= 4


def test_what_was_approved_in_this_step_is_traded_at_once() -> None:
    for step in (drifted(max_loss_bps=None), drifted(max_loss_bps=None, style=ExecutionStyle.TWAP, max_rounds=8, twap_duration_s=14_400)):
        assert proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution is not None
        approved = replace(step, progress=replace(step.progress, spend_caps=((WETH.address, 10**24), (USDC.address, 10**18))))
        proposal = proposals.propose_rebalance(approved)
        assert proposal.decision_result.layer(GradualResult).new_execution is None
        assert proposal.plan is not None
        [sale] = proposal.plan.legs
        assert sale.amount_in_raw > 95 * 10**18, "all of the 200,000"


@pytest.mark.parametrize(
    ("weth", "wbtc", "sides"),
    [(3_000, 2_000, {WETH: -1, WBTC: 1, USDC: -1}), (5_000, 1_000, {WETH: -1, WBTC: 1, USDC: 1})],
    ids=["a sale turned into a purchase", "a purchase turned into a sale"],
)
def test_remainder__counts_the_larger_side_in_the_first_direction(weth: int, wbtc: int, sides: dict[Token, int]) -> None:
    """4,000, 3,000 and 3,000 are wanted: 2,000 are left in both, though 1,000 turned."""
    target_by_token = {WETH: 4_000, WBTC: 3_000, USDC: 3_000}
    step = step_input(
        {target.symbol: bps for target, bps in target_by_token.items()}, {"WETH": weth, "WBTC": wbtc, "USDC": 10_000 - weth - wbtc}
    )
    drifts = current_drifts(step)
    share = {target.address: Fraction(bps, 10_000) for target, bps in target_by_token.items()}
    goal = Goal(tuple(GoalWeight(drift.token, share[drift.token], share[drift.token]) for drift in drifts))
    signs = tuple((side.address, sign) for side, sign in sides.items())
    begun = GradualExecution(PACE, (), Destination.TARGET, goal, (), signs, Fraction(1), 4, None, 0, 1, 2, SliceDraw(0, 0))
    assert round(_remaining_value(drifts, begun) / USD) == 2_000


def test_a_slice_that_is_tried_out_uses_up_balance_and_allowance() -> None:
    step = drifted()
    [owned] = [holding.raw for holding in step.snapshot.holdings if holding.token == WETH.address]
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    [leg] = plan.legs
    router = step.execution.router
    allowed = leg.amount_in_raw + 7
    rows = ((WETH.address, router, allowed), (USDC.address, router, 9), (WETH.address, OWNER, allowed))
    allowances = tuple(Allowance(*row) for row in rows)
    after = _step_after_plan(with_snapshot(step, allowances=allowances), plan).snapshot
    assert [allowance.raw for allowance in after.allowances] == [7, 9, allowed]
    assert [holding.raw for holding in after.holdings if holding.token == WETH.address] == [owned - leg.amount_in_raw]


def test_uncounted_part__costs_the_dearest_without_a_cost_limit() -> None:
    step = drifted()
    capped = replace(step, limits=replace(step.limits, plan_cost_bps=None))
    plan = proposals.propose_rebalance(capped).plan
    assert plan is not None
    assert plan.slicing_comparison is not None
    dearest = max(
        (option.fees + option.impact + option.skew + option.gas + option.delay_cost) / option.turnover
        for option in plan.slicing_comparison.options
    )
    assert _unmoved_unit_cost(capped.limits, list(plan.slicing_comparison.options)) == dearest > 0
    assert _unmoved_unit_cost(step.limits, list(plan.slicing_comparison.options)) == Fraction(step.limits.plan_cost_bps or 0, 10_000)


def test_an_exit_is_never_spread() -> None:
    step = drifted()
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance)
    exit_ = replace(decision_result.decision, is_exit=True)
    decided, plan = in_time(step, decision_result, exit_, planner.plan(step, exit_))
    assert decided.layer(GradualResult).new_execution is None
    assert plan is not None
    assert plan.turnover > 195_000 * USD


@pytest.mark.parametrize(("ppm", "share"), [(0, Fraction(-1)), (MILLION - 1, Fraction(1))])
def test_slice_and_wait__vary_by_their_own_jitter_both_ways(ppm: int, share: Fraction) -> None:
    pace = replace(PACE, size_jitter_bps=2_000, time_jitter_bps=5_000)
    campaign = begun(drifted()).layer(GradualState).progress
    assert campaign is not None
    execution = replace(campaign.execution, pace=pace)
    assert jitter_factor(ppm, 2_000) == 1 + share / 5
    even = SliceDraw((MILLION - 1) // 2, (MILLION - 1) // 2)
    sized = replace(even, size_ppm=ppm)
    waited = replace(even, wait_ppm=ppm)
    mean = mean_slice_value(execution)
    wait_s = mean_interval_s(pace, execution.rounds)
    assert slice_value(execution, sized) == mean * (1 + share / 5)
    assert slice_wait_s(execution, waited) == wait_s * (2 + share) / 2
    assert abs(slice_value(execution, waited) / mean - 1) < Fraction(1, 10**6)
    assert abs(slice_wait_s(execution, sized) - wait_s) <= 1
