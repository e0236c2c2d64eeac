"""Tests of agent/layers/liquidity/policy/limit_withdrawals.py: what goes first above a limit, how much, and what cannot go."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.errors import Refused
from agent.layers.liquidity.planning.actions import plan_liquidity
from agent.layers.liquidity.policy.adjustments import limit_adjustment
from agent.layers.liquidity.policy.book import liquidity_limits
from agent.layers.liquidity.policy.moves import NO_ADJUSTMENT
from agent.layers.liquidity.policy.provisions import LIMIT_GOAL_SHARE
from agent.layers.liquidity.state import LiquidityProgress
from agent.model import AdjustLiquidity, Collect, Hold, LayerAction, StepInput, Withdraw
from agent.policy.decide import decide
from agent.units import floor_int
from tests.support import lp_worlds
from tests.support.builders import with_limits, with_snapshot
from tests.support.decisions.liquidity_plans import step_after_plan
from tests.support.lp_worlds import PRICES, USD, book, paired, planned, ranged, roomy, v2_at, v3_at, world
from tests.support.plans import evidence, verdict
from tests.support.text import mentions, raises_code


def withdrawn_parts(step: StepInput) -> dict[str, Fraction]:
    """Return the part withdrawn from each position, by name in order."""
    actions = [action for action in planned(step).layer_actions if isinstance(action, Withdraw)]
    assert len(actions) == len(planned(step).layer_actions)
    return {action.name: Fraction(action.liquidity, action.position_liquidity) for action in actions}


def assert_at_goal(step: StepInput) -> None:
    """Assert that the exposure after the plan is within the goal of the limits."""
    exposure = book(step_after_plan(step)).exposure()
    assert exposure.is_within(liquidity_limits(step.limits).scaled(LIMIT_GOAL_SHARE)), exposure


def assert_no_withdrawal(step: StepInput, *reasons: object) -> None:
    """Assert that the step is above a limit, and that its plan is refused for these reasons."""
    decision = decide(step).decision
    assert isinstance(decision, AdjustLiquidity)
    assert decision.reason.endswith(": no withdrawal is possible now")
    with raises_code(Refused, "impermanent_loss", *reasons):
        plan_liquidity(step, decision)


# --- when


@pytest.mark.parametrize("limits", [{}, {"lp_max_weight_bps": 2_001}], ids=["far below", "just below"])
def test_withdrawal_is_none_within_both_limits(limits: dict[str, int]) -> None:
    step = with_limits(world([paired(2_000)]), **limits)

    assert isinstance(decide(step).decision, Hold)
    assert limit_adjustment(step, PRICES) == NO_ADJUSTMENT


def test_withdrawal_counts_only_confirmed_positions() -> None:
    """T11: a stranger's liquidity is never withdrawn or counted, whatever it is worth."""
    position = paired(1_000)
    gift = ranged(900_000, 1_900, 2_100, 77)
    step = world([position, gift], bounds=roomy(lp_max_weight_bps=1_500), confirmed=[lp_worlds.confirmed_position(position)])

    assert isinstance(decide(step).decision, Hold)
    assert list(withdrawn_parts(with_limits(step, lp_max_weight_bps=500))) == [position.name]


# --- how much


def test_withdrawal_ends_at_the_goal_of_the_weight() -> None:
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500))
    decision = decide(step).decision
    exposure = book(step_after_plan(step)).exposure()

    assert mentions(decision.reason, "20 %", "limits.lp_max_weight", "15 %")
    assert withdrawn_parts(step) == {paired(1).name: pytest.approx(1 - 0.95 * 0.15 / 0.2, abs=2e-3)}
    assert exposure.value / exposure.portfolio_value == pytest.approx(0.15 * 0.95, abs=5e-4)
    assert_at_goal(step)
    assert isinstance(decide(step_after_plan(step)).decision, Hold)


def test_withdrawal_ends_at_the_goal_of_the_expected_loss() -> None:
    """A range of 10 % each way loses several times what a pair does."""
    step = world([ranged(2_000, 1_800, 2_200)], bounds=roomy(impermanent_loss_bps=30))
    exposure = book(step_after_plan(step)).exposure()

    assert "above limits.impermanent_loss 0.3 %" in decide(step).decision.reason
    assert float(exposure.loss / exposure.portfolio_value) == pytest.approx(0.003 * 0.95, rel=5e-3)
    assert_at_goal(step)


def test_withdrawal_to_a_limit_of_zero_takes_everything() -> None:
    step = world([ranged(800, 1_800, 2_200, 1), paired(500)], bounds=roomy(lp_max_weight_bps=0))

    assert list(withdrawn_parts(step).values()) == [1, 1]
    assert book(step_after_plan(step)).exposure().value == 0


@pytest.mark.parametrize(
    ("limit_bps", "min_trade_usd", "part", "most_off"),
    [
        pytest.param(1_999, 500, 0.25, 1e-6, id="at least min_trade"),
        pytest.param(10, 10, 1, 0, id="all where the rest is below it"),
        pytest.param(15, 10, 1 - 0.95 * 0.0015 / 0.2, 1e-3, id="a part where the rest is above it"),
    ],
)
def test_withdrawal_and_its_rest_are_worth_min_trade(limit_bps: int, min_trade_usd: int, part: float, most_off: float) -> None:
    """A position of 2,000 in 10,000; 0.1 % of it less the goal share would be 9.50."""
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=limit_bps, min_trade=Fraction(min_trade_usd * USD)))

    assert [float(share) for share in withdrawn_parts(step).values()] == [pytest.approx(part, abs=most_off)]


@pytest.mark.parametrize("pushed", [Fraction(101, 100), Fraction(99, 100)])
def test_withdrawal_hardly_depends_on_the_pool_s_price(pushed: Fraction) -> None:
    """T3: budget and weight go by the reference; the pool decides the mix that is paid."""
    level_step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500))
    pushed_step = world([paired(2_000, v2_at(pushed))], bounds=roomy(lp_max_weight_bps=1_500), pushed=pushed)

    [level_part] = withdrawn_parts(level_step).values()
    [pushed_part] = withdrawn_parts(pushed_step).values()

    assert float(level_part) == pytest.approx(float(pushed_part), rel=1e-3)


# --- what goes first


def test_withdrawals_take_the_most_loss_per_cost_first() -> None:
    """The narrow range loses more for its value than the wide one; one out of range earns nothing and can only lose."""
    narrow = ranged(800, 1_900, 2_100, 1)
    wide = ranged(800, 1_000, 4_000, 2)
    beside = ranged(800, 2_050, 2_150, 3)
    step = world([wide, narrow, beside], bounds=roomy(impermanent_loss_bps=15))

    parts = withdrawn_parts(step)

    assert list(parts) == ["uniswap_v3 #3", "uniswap_v3 #1"], "what loses least stays"
    assert parts["uniswap_v3 #3"] == 1
    assert 0 < parts["uniswap_v3 #1"] < 1
    assert_at_goal(step)


def test_withdrawal_from_a_range_that_earns_nothing_comes_first() -> None:
    """The wider range out of range loses less for its value than the narrow one in it, but forgoes no earnings."""
    narrow = ranged(800, 1_900, 2_100, 1)
    beside = ranged(800, 2_050, 3_500, 2)

    first_name, _ = withdrawn_parts(world([narrow, beside], bounds=roomy(lp_max_weight_bps=500)))

    assert first_name == "uniswap_v3 #2"


# --- fees


def test_withdrawal_brings_the_fees_of_its_position() -> None:
    fees = (30 * USD, 10**16)
    step = world([ranged(2_000, 1_800, 2_200, owed=fees, core_owed=fees)], bounds=roomy(lp_max_weight_bps=1_500))
    plan = planned(step)
    [action] = plan.layer_actions
    assert isinstance(action, Withdraw)
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}

    assert action.fees_raw == fees
    assert dict(plan.holdings_after) == {
        token: raw_by_token[token] + amount_raw + fee_raw
        for token, amount_raw, fee_raw in zip((action.token0, action.token1), action.amounts_raw, fees, strict=True)
    }


def test_withdrawal_from_an_empty_position_collects_its_fees() -> None:
    owed = (2_000 * USD, 10**18)
    step = world([ranged(1, 1_800, 2_200, liquidity=0, owed=owed, core_owed=owed)], bounds=roomy(lp_max_weight_bps=1_500))
    plan = planned(step)
    [action] = plan.layer_actions

    assert isinstance(action, Collect)
    assert action.fees_raw == owed
    assert all(judged.passed for judged in guards.judge(step, plan, evidence(step, plan)))
    assert book(step_after_plan(step)).exposure().value == 0


def test_collection_that_suffices__spares_the_withdrawals() -> None:
    owed = (2_000 * USD, 10**18)
    empty = ranged(1, 1_800, 2_200, liquidity=0, owed=owed, core_owed=owed)
    plan = planned(world([paired(1_000), empty], bounds=roomy(lp_max_weight_bps=2_000)))
    assert [(type(action), action.name) for action in plan.layer_actions] == [(Collect, empty.name)]
    assert f"collect {empty.name}" in plan.decision.reason


def only_action(liquidity: int) -> LayerAction:
    """Return the withdrawal from a position with fees and this liquidity."""
    owed = (2_000 * USD, 10**18)
    position = ranged(1, 1_500, 1_900, liquidity=liquidity, owed=owed, core_owed=owed)
    (action,) = planned(world([position], bounds=roomy(lp_max_weight_bps=1_500, min_trade=None))).layer_actions
    return action


def test_withdrawal_from_a_unit_of_liquidity_collects_its_fees() -> None:
    """Anybody may add a unit to an empty position; no action has two minimums of zero."""
    assert isinstance(only_action(liquidity=1), Collect)


def test_withdrawal_from_little_liquidity_has_a_minimum() -> None:
    action = only_action(liquidity=10**9)
    assert isinstance(action, Withdraw)
    assert max(action.min_raw) > 0


@pytest.mark.parametrize(
    ("owed_usd", "names"),
    [
        pytest.param(0, ["uniswap_v3 #42"], id="dust"),
        pytest.param(20, ["uniswap_v3 #7", "uniswap_v3 #42"], id="more than its gas"),
    ],
)
def test_fees_of_an_empty_position_must_be_worth_their_gas(owed_usd: int, names: list[str]) -> None:
    owed = (owed_usd * USD + 1, 1)
    empty = ranged(1, 1_800, 2_200, 7, liquidity=0, owed=owed, core_owed=owed)
    step = world([empty, ranged(2_000, 1_800, 2_200, 42)], bounds=roomy(lp_max_weight_bps=0))

    assert sorted(action.name for action in planned(step).layer_actions) == sorted(names)


def test_dust_of_an_empty_position_is_not_collected_alone() -> None:
    """What is above the limit lies in a pool that is off; nothing goes, rather than dust at the price of gas."""
    pushed = Fraction(102, 100)
    dust = ranged(1, 1_800, 2_200, 7, v3_at(pushed), liquidity=0, owed=(1, 1), core_owed=(1, 1))
    step = world([ranged(2_000, 1_800, 2_200, 42, v3_at(pushed)), dust], bounds=roomy(lp_max_weight_bps=1_500), pushed=pushed)

    assert_no_withdrawal(step, "not withdrawn")


# --- what cannot go


@pytest.mark.parametrize("pushed", [Fraction(9, 10), Fraction(11, 10), Fraction(102, 100)])
def test_withdrawal_waits_while_its_pool_is_off_the_reference(pushed: Fraction) -> None:
    """T11: beyond limits.oracle_deviation the plan is refused with the deviation."""
    step = world([paired(2_000, v2_at(pushed))], bounds=roomy(lp_max_weight_bps=1_500), pushed=pushed)

    assert_no_withdrawal(step, "not withdrawn", "limits.oracle_deviation", "150 bps")


def test_withdrawal_waits_with_both_price_limits_off() -> None:
    assert_no_withdrawal(
        world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500, oracle_deviation_bps=None, slippage_bps=None)), "unbounded"
    )


def test_withdrawal_takes_other_positions_while_one_pool_is_off() -> None:
    pool = v3_at(Fraction(11, 10))
    step = world([ranged(1_000, 1_800, 2_200, 1, pool), paired(1_000)], bounds=roomy(lp_max_weight_bps=1_500))
    plan = planned(with_snapshot(step, pools=(*step.snapshot.pools[:-1], pool)))

    assert [action.name for action in plan.layer_actions] == [paired(1).name]
    assert "uniswap_v3 #1" in {item.subject for item in plan.skipped}


@pytest.mark.parametrize(
    ("failed_pool", "names"),
    [
        pytest.param(v3_at().address, [paired(1).name], id="the range's"),
        pytest.param(v2_at().address, ["uniswap_v3 #1"], id="the pair's"),
    ],
)
def test_withdrawal_takes_other_positions_after_a_failed_one(failed_pool: str, names: list[str]) -> None:
    step = world([ranged(1_000, 1_800, 2_200, 1), paired(1_000)], bounds=roomy(lp_max_weight_bps=500))
    step = step.with_progress(LiquidityProgress(failed_withdrawal_pools=(failed_pool,)))

    assert list(withdrawn_parts(step)) == names


def with_lp_approval(step: StepInput, raw: int) -> StepInput:
    """Return the step that has approved so many LP tokens."""
    return replace(step, progress=replace(step.progress, spend_caps=((v2_at().address, raw),)))


def test_withdrawal_takes_at_most_the_approved_lp_tokens() -> None:
    position = paired(2_000)
    step = with_lp_approval(world([position], bounds=roomy(lp_max_weight_bps=1_000)), position.liquidity // 4)
    [action] = planned(step).layer_actions
    assert isinstance(action, Withdraw)

    assert action.liquidity == position.liquidity // 4
    assert verdict("lp_max_weight", step, planned(step)).passed, "a part of the way lowers the excess"


@pytest.mark.parametrize(
    ("approved_part", "is_whole"),
    [
        pytest.param(Fraction(1, 2), True, id="half of what is needed"),
        pytest.param(Fraction(101, 100), True, id="a rest worth less than a trade"),
        pytest.param(Fraction(3, 2), False, id="a rest worth a trade"),
    ],
)
def test_withdrawal__leaves_no_approval_worth_less_than_a_trade(approved_part: Fraction, is_whole: bool) -> None:
    """To take the approval back would be a transaction of its own."""
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500))
    [needed] = planned(step).layer_actions
    approved_raw = floor_int(needed.liquidity * approved_part)
    [action] = planned(with_lp_approval(step, approved_raw)).layer_actions

    assert (action.liquidity == approved_raw) is is_whole


def test_withdrawal_names_a_pair_without_approved_lp_tokens() -> None:
    assert_no_withdrawal(with_lp_approval(world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500)), 0), "approved")


@pytest.mark.parametrize(
    ("gas_price_wei", "refusals"),
    [pytest.param(60 * 10**9, set(), id="at limits.gas_price"), pytest.param(60 * 10**9 + 1, {"gas_price"}, id="a wei above it")],
)
def test_withdrawal_goes_up_to_the_limit_of_the_gas_price(gas_price_wei: int, refusals: set[str]) -> None:
    """What it costs and brings is no reason to wait: a limit is exceeded."""
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500))
    base_fee_wei = gas_price_wei - step.snapshot.priority_fee_wei
    dear_step = with_snapshot(step, gas_price_wei=gas_price_wei, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei))
    plan = planned(dear_step)

    assert {judged.guard for judged in guards.judge(dear_step, plan, evidence(dear_step, plan)) if not judged.passed} == refusals
