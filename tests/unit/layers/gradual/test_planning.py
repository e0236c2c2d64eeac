"""One round against several: the optimum is that of a closed form, every figure is of exact plans, and each price moves it as it must."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import sqrt

import pytest

from agent.amm import pools
from agent.amm.v2_pool import V2Pool
from agent.layers.gradual.planning import remaining_impact
from agent.layers.gradual.state import GradualResult
from agent.model import PriceSource, SlicingComparison, StepInput
from agent.planning import proposals
from tests.support.builders import ROUTER, Allowance, step_input, v2_pool, v3_pool, with_snapshot
from tests.support.constants import GWEI, USD
from tests.support.gradual_execution import PACE, paced, roomy
from tests.support.planning_worlds import random_step, ranged
from tests.support.samples import slow
from tests.support.tokens import USDC, WETH


def large(depth: int = 20_000_000, base_fee_gwei: int = 30, **pace: object) -> StepInput:
    """300,000 of 1,000,000 have to move through one pair of this depth; the router may take everything."""
    step = roomy(step_input(None, {"WETH": 800_000, "USDC": 200_000}, depth=depth), max_live_value=None)
    head = replace(step.snapshot.head, base_fee_wei=base_fee_gwei * GWEI)
    allowed = tuple(Allowance(token.address, ROUTER, 2**255) for token in (WETH, USDC))
    step = with_snapshot(step, head=head, allowances=allowed, priority_fee_wei=0)
    return paced(step, **pace)


def pacing(step: StepInput) -> SlicingComparison:
    proposal = proposals.propose_rebalance(step)
    assert proposal.plan is not None, proposal.decision_result.decision.reason
    assert proposal.plan.slicing_comparison is not None
    return proposal.plan.slicing_comparison


@pytest.mark.parametrize(
    ("depth", "gwei", "waiting"),
    [
        pytest.param(20_000_000, 30, 0, id="usual gas"),
        pytest.param(20_000_000, 1_000, 0, id="dear gas"),
        pytest.param(60_000_000, 30, 20, id="with waiting"),
        pytest.param(15_000_000, 400, 7, id="shallow pools"),
    ],
)
def test_the_number_of_rounds_is_that_of_a_closed_form(depth: int, gwei: int, waiting: int) -> None:
    """A pair of reserves R on each side, wholly back between rounds, takes x - R·x/(R + x) in value of a round of x, fee aside.

    Half of what a sale costs has to be sold besides, for both halves to be alike after it.
    """
    step = large(depth, gwei, max_rounds=9, recovery_s=1, waiting_bps_hour=Fraction(waiting))
    slicing_comparison = pacing(step)
    gas = float(slicing_comparison.options[0].gas) / USD
    hours = PACE.interval_s / 3_600

    def cost(rounds: int) -> float:
        sold = 300_000.0
        for _ in range(20):
            x = sold / rounds * 0.997
            impact = rounds * (x - depth * x / (depth + x))
            sold = 300_000 + (impact + 0.003 * sold) / 2
        waits = sum(300_000 * (1 - done / rounds) * waiting / 10_000 * hours for done in range(1, rounds))
        return impact + gas * rounds + waits

    costs = {rounds: cost(rounds) for rounds in range(1, 10)}
    best = min(costs, key=lambda rounds: costs[rounds])
    assert slicing_comparison.chosen_count == best
    for option in slicing_comparison.options:
        own = float(option.impact + option.skew + option.gas + option.delay_cost) / USD
        assert own == pytest.approx(costs[option.slice_count], rel=5e-3), option.slice_count


def test_slices_without_waiting__are_the_root_of_impact_over_gas() -> None:
    """n* = sqrt(W² / (R · gas)), by cost(n) = W²/(n·R) + n·gas."""
    slicing_comparison = pacing(large(20_000_000, 2_400, max_rounds=12, recovery_s=1, waiting_bps_hour=Fraction(0)))
    gas = float(slicing_comparison.options[0].gas) / USD
    assert abs(slicing_comparison.chosen_count - sqrt(300_000**2 / (20_000_000 * gas))) < 1


def test_a_pool_that_does_not_come_back_is_done_in_one_round() -> None:
    """The way there is the same in pieces, and each piece costs gas of its own."""
    slicing_comparison = pacing(large(recovery_s=28 * 86_400, waiting_bps_hour=Fraction(0)))
    option = slicing_comparison.options[0]
    six = slicing_comparison.options[-1]
    assert slicing_comparison.chosen_count == 1
    assert abs((six.impact + six.skew) - (option.impact + option.skew)) < option.impact / 50
    assert six.gas > 5 * option.gas


@cache
def chosen(**change: object) -> int:
    """How many rounds of up to eight cost least, at these prices and the usual ones."""
    settings: dict[str, object] = {"max_rounds": 8, "base_fee_gwei": 900, "waiting_bps_hour": Fraction(1)}
    return pacing(large(**settings | change)).chosen_count  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("change", "more"),
    [
        *slow([({"recovery_s": 6_000}, False), ({"waiting_bps_hour": Fraction(20)}, False), ({"base_fee_gwei": 5_000}, False)]),
        ({"depth": 200_000_000}, False),
        ({"base_fee_gwei": 50}, True),
    ],
)
def test_each_price_moves_the_number_of_rounds_its_own_way(change: dict[str, object], more: bool) -> None:
    usual = chosen()
    other = chosen(**change)
    assert 1 < usual < 8
    assert other > usual if more else other < usual


def test_rounds_smaller_than_the_smallest_trade_are_none() -> None:
    step = large(max_rounds=12, recovery_s=1)
    assert len(pacing(roomy(step, min_trade=Fraction(60_000 * USD), max_live_value=None)).options) == 3
    small = pacing(roomy(step, min_trade=Fraction(250_000 * USD), max_live_value=None))
    assert (len(small.options), small.chosen_count) == (1, 1)
    assert "too small" in small.why


@pytest.mark.parametrize("plan_cost_bps", [500, None])
def test_what_no_round_moves_costs_its_share_and_waits_for_none(plan_cost_bps: int | None) -> None:
    """A pool that takes less than is wanted: what stays costs plan_cost, or as much as the dearest unit that moves."""
    step = large(max_rounds=3, waiting_bps_hour=Fraction(100))
    slicing_comparison = pacing(roomy(step, price_impact_bps=50, max_live_value=None, plan_cost_bps=plan_cost_bps))
    option, *more = slicing_comparison.options
    assert option.unmoved_cost > 0
    assert option.delay_cost == 0
    assert more
    assert all(option.delay_cost > 0 for option in more)
    paid = [(option.total - option.unmoved_cost) / option.turnover for option in slicing_comparison.options]
    share = max(paid) if plan_cost_bps is None else Fraction(plan_cost_bps, 10_000)
    unmoved = option.unmoved_cost / share
    assert abs(unmoved + option.turnover - 300_000 * USD) < 1_000 * USD


def test_one_round__is_the_plan_itself_and_the_chosen_costs_least() -> None:
    for seed in range(2):
        step = roomy(random_step(seed, tokens=4, pools=8, depth=400_000, worth=60_000), max_live_value=None)
        proposal = proposals.propose_rebalance(paced(step, max_rounds=4))
        if proposal.plan is None or proposal.plan.slicing_comparison is None:
            continue
        whole = proposals.propose_rebalance(step)
        assert whole.plan is not None
        option = proposal.plan.slicing_comparison.options[0]
        parts = (option.fees, option.impact, option.skew)
        assert parts == (whole.plan.cost.fees, whole.plan.cost.impact, whole.plan.cost.skew)
        assert option.gas == whole.plan.cost.gas + whole.plan.cost.approval_gas
        chosen = next(
            option
            for option in proposal.plan.slicing_comparison.options
            if option.slice_count == proposal.plan.slicing_comparison.chosen_count
        )
        assert chosen.total == min(option.total for option in proposal.plan.slicing_comparison.options)


def test_the_market_style_plans_as_before() -> None:
    step = large()
    market = replace(step, execution=replace(step.execution, pace=type(PACE)()))
    proposal = proposals.propose_rebalance(market)
    assert proposal.plan is not None
    assert proposal.plan.slicing_comparison is None
    assert proposal.decision_result.layer(GradualResult).new_execution is None
    whole = proposals.propose_rebalance(step)
    assert proposal.plan.turnover > 5 * (whole.plan.turnover if whole.plan else 0)


def test_what_was_approved_for_one_round_is_not_spread_any_more() -> None:
    step = replace(large(), progress=replace(large().progress, spend_caps=((WETH.address, 10**30),)))
    proposal = proposals.propose_rebalance(step)
    assert proposal.decision_result.layer(GradualResult).new_execution is None
    assert proposal.plan is not None
    assert proposal.plan.turnover > 290_000 * USD


# pools that come back
V2 = v2_pool(WETH, USDC, 2_000, 10_000_000)
V3 = v3_pool(WETH, USDC, 2_000, 10_000_000)


def test_half_of_the_way_is_left_after_one_half_life() -> None:
    assert remaining_impact(600, 600) == Fraction(1, 2) + Fraction(1, 10**12)
    assert remaining_impact(1_200, 600) - Fraction(1, 4) <= Fraction(1, 10**12)
    assert 0 < remaining_impact(28 * 86_400, 1) <= Fraction(1, 10**12)


@pytest.mark.parametrize("pool", [V2, V3], ids=["V2", "V3"])
@pytest.mark.parametrize("sell", [WETH, USDC], ids=["down", "up"])
def test_a_pool_comes_back_as_far_as_assumed_and_never_further(pool: V2Pool, sell: object) -> None:
    token_in = sell.address  # type: ignore[attr-defined]  # a token
    amount = 200 * 10**18 if sell is WETH else 400_000 * USD
    moved = pool.swap(token_in, amount).pool_after
    full = Fraction(pools.price_move_bps(pool, moved, token_in))
    assert full > 300
    for share_left in (Fraction(1), Fraction(1, 2), Fraction(1, 10)):
        back = moved.partly_recovered(pool, share_left)
        now = pools.price_move_bps(pool, back, token_in)
        assert full * share_left - 15 <= now <= full * share_left + 15
        assert (pools.marginal_price(back, token_in) <= pools.marginal_price(pool, token_in)) is True
    assert pools.price_move_bps(pool, moved.partly_recovered(pool, Fraction(1, 10**12)), token_in) <= 1
    assert pool.partly_recovered(pool, Fraction(1, 2)) == pool


def test_ranges_that_were_crossed_are_crossed_back() -> None:
    pool = ranged(V3, random.Random(5), 60)
    moved = pool.swap(WETH.address, 30 * 10**18).pool_after
    assert moved.liquidity != pool.liquidity  # type: ignore[union-attr]  # a V3 pool
    back = moved.partly_recovered(pool, Fraction(1, 10**12))
    assert back.liquidity == pool.liquidity  # type: ignore[union-attr]  # a V3 pool
    assert abs(back.quote(WETH.address, 10**18) - pool.quote(WETH.address, 10**18)) <= 10


def test_comparison__is_made_at_present_prices() -> None:
    """With spot prices alone the reference would move with pools that are only imagined."""
    step = large(recovery_s=1)
    spot = replace(step, reference=replace(step.reference, sources=(PriceSource.SPOT,)))
    assert [option.impact for option in pacing(spot).options] == pytest.approx([option.impact for option in pacing(step).options], rel=1e-6)
