"""Ranges that the price left, liquidity above its share, fees put back, and what strangers sent: what targets make of them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.amm.lp import minting, positions
from agent.model import AdjustLiquidity, Collect, Halt, LpTarget, Provide, Withdraw
from agent.policy.decide import decide
from tests.support.builders import with_limits, with_snapshot
from tests.support.decisions.liquidity_ranges import earning_step
from tests.support.lp_worlds import (
    RATIO,
    SPACING,
    USD,
    assert_hold,
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
from tests.support.text import mentions

POOL = v3_at().address
PAIR = v2_at().address


# ranges that the price left
def test_range_left_by_the_reference__is_taken_out_and_minted_anew() -> None:
    own = ranged(1_600, 2_200, 2_600)
    step = world([own], [wanted(1_700)], trigger=quiet())
    out, new = planned(step).layer_actions
    assert isinstance(out, Withdraw)
    assert isinstance(new, Provide)
    assert (out.liquidity, min(out.amounts_raw)) == (own.liquidity, 0)
    assert new.ticks == minting.range_around(RATIO, 2_000, SPACING)
    assert mentions(out.reason, "left the", "uniswap_v3 #42")
    assert passes(step)


def test_only_what_is_sure_to_come_of_a_withdrawal_is_counted_on() -> None:
    own = ranged(1_600, 1_800, 2_200)
    step = world(
        [own, paired(0)], [wanted(0), wanted(9_000, v2_at())], {"WETH": 50, "USDC": 50}, roomy(lp_max_weight_bps=10_000), trigger=quiet()
    )
    out, new = planned(step).layer_actions
    assert isinstance(out, Withdraw)
    assert isinstance(new, Provide)
    spare = {holding.token: holding.raw for holding in step.snapshot.holdings}
    sure = [spare[token] + least for token, least in zip((new.token0, new.token1), out.min_raw, strict=True)]
    assert all(raw <= most for raw, most in zip(new.desired_raw, sure, strict=True))
    assert any(raw > most - 1_000_000 - most // 1_000 for raw, most in zip(new.desired_raw, sure, strict=True)), "and no less"
    assert passes(step)


def test_range_left_and_not_wanted__is_only_taken_out() -> None:
    assert kinds(world([ranged(1_600, 2_200, 2_600)], [wanted(0)], trigger=quiet())) == [Withdraw]


def test_range_left__stays_where_it_is_not_worth_its_gas() -> None:
    step = world([ranged(30, 2_200, 2_600)], [wanted(30)])
    assert_hold(step, "uniswap_v3 #42 stays out of range", "limits.plan_cost")


def test_range_left_without_a_target__is_the_owner_s() -> None:
    assert_hold(world([ranged(1_600, 2_200, 2_600)], [wanted(0, v2_at())], trigger=quiet()))
    assert_hold(world([ranged(1_600, 2_200, 2_600)], trigger=quiet()))


# less of it
def test_what_is_above_its_share_is_taken_out_down_to_it() -> None:
    step = world([ranged(2_000, 1_800, 2_200)], [wanted(1_000)])
    [action] = planned(step).layer_actions
    assert isinstance(action, Withdraw)
    assert worth(step, action) == pytest.approx(1_000, rel=1e-4)
    assert passes(step)


def test_a_share_of_nothing_takes_everything_out() -> None:
    step = world([ranged(500, 1_800, 2_200, 1), ranged(300, 1_000, 3_000, 2)], [wanted(0)])
    actions = planned(step).layer_actions
    assert all(isinstance(action, Withdraw) and action.liquidity == action.position_liquidity for action in actions)
    assert len(actions) == 2
    assert passes(step)
    assert_hold(world([ranged(5, 1_800, 2_200)], [wanted(0)]), "5 USDC to move, limits.min_trade is 10")


def test_fees_above_their_threshold_are_collected_and_put_back() -> None:
    step = earning_step(1_770)
    collect, back = planned(step).layer_actions
    assert isinstance(collect, Collect)
    assert isinstance(back, Provide)
    assert collect.fees_raw == (60 * USD, 3 * 10**16)
    assert back.token_id == 42
    assert worth(step, back) == pytest.approx(120, rel=0.01), "the position is at its share: all of it goes back"
    assert mentions(collect.reason, "120 USDC", "compound_above", "50 USDC")
    assert passes(step)


def test_fees_go_back_as_far_as_the_share_lacks_them() -> None:
    assert kinds(earning_step(1_630)) == [Collect]
    assert worth(earning_step(1_700), planned(earning_step(1_700)).layer_actions[1]) == pytest.approx(0.17 * 9_720 - 1_600, rel=0.02)  # type: ignore[arg-type]  # a Provide


def test_fees__stay_below_their_threshold_or_when_gas_is_dear() -> None:
    assert_hold(earning_step(1_770, above=120))
    assert_hold(earning_step(1_770, above=None))
    dear = earning_step(1_770)
    assert_hold(with_limits(dear, plan_cost_bps=50), "fees of uniswap_v3 #42 are not collected: gas of")


# strangers
def test_stranger_s_liquidity__counts_to_no_share() -> None:
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
    assert [action.pool for action in plan.layer_actions] == [POOL, PAIR]
    for token, raw in plan.holdings_after:
        assert raw >= 0, token
    assert passes(step)
    tight = with_limits(step, lp_max_weight_bps=2_500)
    total = sum(worth(tight, action) for action in planned(tight).layer_actions if isinstance(action, Provide))
    assert total == pytest.approx(8_000 * 0.25 * 0.95, rel=1e-3)


def test_range_share_in_the_pool__counts_uncollected_fees() -> None:
    fees = (800 * USD, 0)
    own = ranged(1_000, 1_800, 2_200, owed=fees, core_owed=fees)
    assert positions.uncollected_fees(own) == fees
    assert_hold(world([own], [wanted(1_800)]))


def test_the_decision_tells_every_move() -> None:
    decision = decide(world([paired(0)], [wanted(2_000), wanted(1_000, v2_at())])).decision
    assert isinstance(decision, AdjustLiquidity)
    assert decision.reason.count("provided") == 2
