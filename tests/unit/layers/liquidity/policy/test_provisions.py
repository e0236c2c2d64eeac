"""Tests of agent/layers/liquidity/policy/provisions.py: what is provided within share, limits, balances and gas."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent import guards
from agent.amm.lp import action_gas, minting
from agent.errors import Refused
from agent.guards.case import build_guard_case
from agent.layers.liquidity.policy.adjustments import gas_unit_value
from agent.layers.liquidity.policy.book import liquidity_limits
from agent.layers.liquidity.policy.provisions import LIMIT_GOAL_SHARE, AdjustmentBuilder
from agent.model import AdjustLiquidity, DataFeeQuote, Hold, LpTarget, LpV3Position, Plan, Provide, Rebalance, StepInput
from agent.policy.decide import decide
from tests.support import lp_worlds
from tests.support.builders import ETHER, GWEI, with_limits, with_snapshot
from tests.support.decisions.liquidity_plans import step_after_plan
from tests.support.lp_worlds import (
    PRICES,
    RATIO,
    SPACING,
    USD,
    USDC,
    WETH,
    assert_hold,
    book,
    kinds,
    lp_target,
    only_provide,
    paired,
    passes,
    planned,
    quiet,
    ranged,
    roomy,
    v2_at,
    v3_at,
    world,
    worth,
)
from tests.support.plans import evidence
from tests.support.text import mentions

POOL = v3_at().address


# --- cost of a move


@pytest.mark.parametrize(
    ("base_fee_wei", "gas_price_wei"),
    [
        pytest.param(7 * GWEI, 7 * GWEI + GWEI // 10, id="base and priority fee"),
        pytest.param(None, GWEI + GWEI // 10, id="the node's price"),
    ],
)
def test_gas_unit_is_valued_at_the_price_of_its_block(base_fee_wei: int | None, gas_price_wei: int) -> None:
    step = world()
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei))

    value = gas_unit_value(step.snapshot, step.portfolio, step.limits, PRICES, is_needed=True)

    assert value == gas_price_wei * Fraction(2_000 * USD, ETHER)


def test_gas_unit_without_a_coin_price_is_zero_if_not_needed() -> None:
    step = world()

    assert gas_unit_value(step.snapshot, step.portfolio, step.limits, {}, is_needed=False) == 0
    with pytest.raises(Refused, match="gas cannot be valued"):
        gas_unit_value(step.snapshot, step.portfolio, step.limits, {}, is_needed=True)


@pytest.mark.parametrize(
    ("value_raw", "costs", "is_worth_it"),
    [
        pytest.param(10 * USD, {}, True, id="exactly min_trade"),
        pytest.param(10 * USD - 1, {}, False, id="a unit below min_trade"),
        pytest.param(20 * USD, {"gas_units": (1_000,)}, True, id="gas of exactly plan_cost"),
        pytest.param(20 * USD - 1, {"gas_units": (1_000,)}, False, id="gas a unit above plan_cost"),
        pytest.param(60 * USD, {"gas_units": (1_000,), "skew": Fraction(200_000)}, True, id="gas and skew of exactly plan_cost"),
        pytest.param(60 * USD - 1, {"gas_units": (1_000,), "skew": Fraction(200_000)}, False, id="gas and skew above plan_cost"),
        pytest.param(1_840 * USD, {"approval_count": 2}, True, id="two approvals of exactly plan_cost"),
        pytest.param(1_840 * USD - 1, {"approval_count": 2}, False, id="two approvals above plan_cost"),
    ],
)
def test_move_is_worth_it_from_min_trade_up_to_plan_cost(value_raw: int, costs: dict[str, Any], is_worth_it: bool) -> None:
    """A unit of gas costs 100, an approval 46,000 units; plan_cost is 50 bps and min_trade 10 USDC."""
    builder = AdjustmentBuilder(book(world()), Fraction(100))

    assert (builder.not_worth_reason(Fraction(value_raw), **{"gas_units": ()} | costs) == "") is is_worth_it


def test_move_costs_no_approvals_that_this_step_has_paid() -> None:
    step = world()
    step = replace(step, progress=replace(step.progress, spend_caps=((USDC.address, 1),)))

    assert AdjustmentBuilder(book(step), Fraction(100)).not_worth_reason(Fraction(10 * USD), (), 2) == ""


@pytest.mark.parametrize(
    ("costs", "fee_count"),
    [
        pytest.param({"gas_units": (0,)}, 1, id="an action"),
        pytest.param({"gas_units": (0, 0)}, 2, id="two actions"),
        pytest.param({"gas_units": (0,), "approval_count": 2}, 3, id="an action and two approvals"),
    ],
)
def test_move_costs_the_data_fee_of_each_transaction(costs: dict[str, Any], fee_count: int) -> None:
    """Of 0.0002 coins, 0.40 dollars, each; plan_cost is 50 bps."""
    step = with_snapshot(world(), data_fee=DataFeeQuote(2 * 10**14, 2 * 10**14))
    builder = AdjustmentBuilder(book(step), Fraction(0))
    least_value = Fraction(fee_count * 80 * USD)

    assert builder.not_worth_reason(least_value, **costs) == ""
    assert "above limits.plan_cost" in builder.not_worth_reason(least_value - 1, **costs)


@pytest.mark.parametrize(
    ("positions", "targets", "values"),
    [
        pytest.param([ranged(60, 2_100, 2_400, 1)], [lp_target(0)], {"WETH": 6_200, "USDC": 3_800}, id="withdrawal before a swap"),
        pytest.param([ranged(60, 2_100, 2_400, 1)], [lp_target(0)], None, id="withdrawal"),
        pytest.param([], [lp_target(200)], None, id="provision"),
        pytest.param([paired(260)], [lp_target(150, v2_at())], None, id="withdrawal from a pair"),
    ],
)
def test_dear_data_fee_holds_back_what_the_guard_refuses(
    positions: list[lp_worlds.Place], targets: list[LpTarget], values: dict[str, int] | None
) -> None:
    """Gas is cheap, and each transaction costs 0.40 dollars besides; nothing refused keeps a swap back."""
    cheap_gas = {"base_fee_wei": 10**6}
    step = world(positions, targets, values, roomy(min_trade=Fraction(10 * USD)))
    step = with_snapshot(step, head=replace(step.snapshot.head, **cheap_gas), priority_fee_wei=0)
    dear_step = with_snapshot(step, data_fee=DataFeeQuote(2 * 10**14, 2 * 10**14))

    assert isinstance(decide(step).decision, AdjustLiquidity)
    assert isinstance(decide(dear_step).decision, Hold if values is None else Rebalance)


# --- what is provided: a new range, the rest of a share, the largest position


def test_provision_is_a_new_range_around_the_reference() -> None:
    step = world(targets=[lp_target(2_000)])
    action = only_provide(step)

    assert (action.token_id, action.pool, action.contract) == (None, POOL, lp_worlds.MANAGER)
    assert action.ticks == minting.range_around(RATIO, 2_000, SPACING)
    assert action.gas_units == action_gas.V3_MINT_UNITS
    assert worth(step, action) == pytest.approx(1_600, rel=1e-5)
    assert mentions(action.reason, "0 %", "20 %")
    assert passes(step)


def test_provision_to_a_pair_adds_the_rest_of_its_share() -> None:
    step = world([paired(700)], [lp_target(2_000, v2_at())])
    action = only_provide(step)

    assert (action.token_id, action.ticks, action.contract) == (None, None, v2_at().address)
    assert action.gas_units == action_gas.V2_ADD_UNITS
    assert worth(step, action) == pytest.approx(8_700 * 0.2 - 700, rel=1e-4)
    assert passes(step)


@pytest.mark.parametrize("is_reversed", [False, True], ids=["the last", "the first"])
def test_provision_grows_the_position_with_most_liquidity(is_reversed: bool) -> None:
    small = ranged(100, 1_800, 2_200, 1)
    large = ranged(500, 1_500, 2_600, 2)
    assert large.liquidity > small.liquidity
    step = world([large, small] if is_reversed else [small, large], [lp_target(2_000)])

    action = only_provide(step)

    assert (action.token_id, action.ticks) == (2, (large.tick_lower, large.tick_upper))
    assert action.gas_units == action_gas.V3_INCREASE_UNITS
    assert passes(step)


def test_plan_of_a_provision_moves_the_wallet_and_no_weight() -> None:
    step = world(targets=[lp_target(2_000)])
    plan = planned(step)
    action = only_provide(step)
    paid_raw_by_token = dict(zip((action.token0, action.token1), action.amounts_raw, strict=True))

    assert dict(plan.weights_after_bps) == {WETH.address: 5_000, USDC.address: 5_000}
    assert dict(plan.holdings_after) == {
        holding.token: holding.raw - paid_raw_by_token[holding.token] for holding in step.snapshot.holdings
    }
    assert (plan.turnover, plan.gross_volume, plan.cost.fees, plan.legs) == (0, 0, 0, ())
    assert plan.cost.gas > 0


# --- bounds: balances, approvals, limits


def desired_raw(step: StepInput, token: str) -> int:
    """Return the base units of a token that the only provision of the plan may take."""
    action = only_provide(step)
    return dict(zip((action.token0, action.token1), action.desired_raw, strict=True))[token]


def test_provision_leaves_the_reserve_in_the_wallet() -> None:
    step = world(targets=[lp_target(4_000)], reserves={"WETH": 1}, values={"WETH": 1_000, "USDC": 7_000}, trigger=quiet())
    plan = planned(step)

    assert dict(plan.holdings_after)[WETH.address] >= ETHER
    assert desired_raw(step, WETH.address) == pytest.approx(5 * 10**17, rel=1e-6)
    assert any(mentions(item.why, "no spendable", "WETH") for item in plan.skipped)
    assert passes(step)


def with_spend_cap(step: StepInput, token: str, raw: int) -> StepInput:
    """Return the step that has approved so much of a token."""
    return replace(step, progress=replace(step.progress, spend_caps=((token, raw),)))


@pytest.mark.parametrize(
    "cap_raw",
    [
        pytest.param(10**17, id="a part"),
        pytest.param(4 * 10**17, id="all of it"),
        pytest.param(4 * 10**17 - 10, id="a little less"),
    ],
)
def test_provision_takes_at_most_what_the_step_has_approved(cap_raw: int) -> None:
    """20 % of 8,000 dollars need 0.4 WETH."""
    assert 0 < desired_raw(with_spend_cap(world(targets=[lp_target(2_000)]), WETH.address, cap_raw), WETH.address) <= cap_raw


@pytest.mark.parametrize(
    ("excess", "takes_all"),
    [
        pytest.param(Fraction(9, 10**7), True, id="less than a millionth"),
        pytest.param(Fraction(11, 10**7), False, id="more than a millionth"),
    ],
)
def test_provision_takes_all_of_approvals_that_it_nearly_spends(excess: Fraction, takes_all: bool) -> None:
    """No allowance remains to be revoked."""
    step = world(targets=[lp_target(2_000)])
    action = only_provide(step)
    caps = {token: int(raw * (1 + excess)) for token, raw in zip((action.token0, action.token1), action.desired_raw, strict=True)}

    approved_action = only_provide(replace(step, progress=replace(step.progress, spend_caps=tuple(caps.items()))))

    spent = sum(approved_action.desired_raw[index] * Fraction(1, cap_raw) for index, cap_raw in enumerate(caps.values())) / 2
    assert (spent > 1 - excess / 2) is takes_all


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        pytest.param({"lp_max_weight_bps": 1_500}, "limits.lp_max_weight allows no more", id="weight"),
        pytest.param({"impermanent_loss_bps": 30}, "limits.impermanent_loss allows no more", id="loss"),
    ],
)
def test_provision_ends_below_the_goal_of_a_limit(limit: dict[str, object], reason: str) -> None:
    step = world(targets=[lp_target(2_000)], bounds=roomy(**limit))
    exposure = book(step_after_plan(step)).exposure()
    goal_limits = liquidity_limits(step.limits).scaled(LIMIT_GOAL_SHARE)

    assert any(reason in item.why for item in planned(step).skipped)
    assert exposure.is_within(goal_limits)
    assert not exposure.is_within(goal_limits.scaled(Fraction(999, 1_000)))
    assert passes(step)
    assert isinstance(decide(step_after_plan(step)).decision, Hold), "neither the exit nor the target acts again"


def test_provision_is_none_without_room_below_a_limit() -> None:
    assert_hold(world(targets=[lp_target(2_000)], bounds=roomy(impermanent_loss_bps=0)), "limits.impermanent_loss allows no more")


def test_provision_is_none_below_min_trade_or_above_plan_cost() -> None:
    dear_step = world(targets=[lp_target(100)])
    dear_step = with_snapshot(dear_step, head=replace(dear_step.snapshot.head, base_fee_wei=3 * GWEI))

    assert_hold(world(targets=[lp_target(10)]), "limits.min_trade is 10")
    assert_hold(dear_step, "gas of", "is above limits.plan_cost of 50 bps")
    assert kinds(with_limits(dear_step, plan_cost_bps=None)) == [Provide]


def test_provision_is_none_without_one_of_its_tokens() -> None:
    bounds = roomy(min_trade=None, plan_cost_bps=None)

    assert_hold(
        world(targets=[lp_target(2_000)], values={"WETH": 8_000, "USDC": 0}, bounds=bounds, trigger=quiet()),
        "the wallet has no spendable USDC left",
        "give no liquidity",
    )


def test_provision_is_none_while_gas_cannot_be_valued() -> None:
    step = world(targets=[lp_target(2_000)])

    assert_hold(replace(step, portfolio=replace(step.portfolio, wrapped_native=lp_worlds.MANAGER)), "gas cannot be valued")


def test_provision_is_none_to_a_shallow_pool() -> None:
    step = world(targets=[lp_target(2_000)])
    shallow_pool = replace(v3_at(depth=50_000), address=POOL)

    assert_hold(with_snapshot(step, pools=(*step.snapshot.pools[:-1], shallow_pool)), "holds less than limits.pool_min_value")


def test_targets_share_the_wallet_and_the_limits() -> None:
    step = world([paired(0)], [lp_target(2_000), lp_target(2_000, v2_at())])
    tight_step = with_limits(step, lp_max_weight_bps=2_500)
    plan = planned(step)

    assert [action.pool for action in plan.layer_actions] == [POOL, v2_at().address]
    assert all(raw >= 0 for _, raw in plan.holdings_after)
    assert passes(step)
    provided = sum(worth(tight_step, action) for action in planned(tight_step).layer_actions if isinstance(action, Provide))
    assert provided == pytest.approx(8_000 * 0.25 * 0.95, rel=1e-3)


# --- a pool off the reference (T1)


PUSHED = Fraction(1_010, 1_000)


def pushed_step() -> StepInput:
    return world(targets=[lp_target(4_000, width_bps=300)], pushed=PUSHED)


@pytest.mark.parametrize(
    ("step", "per_million"),
    [
        pytest.param(world([paired(100, v2_at(PUSHED))], [lp_target(4_000, v2_at())], pushed=PUSHED), 12.4, id="pair"),
        pytest.param(pushed_step(), 755.7, id="range"),
        pytest.param(world([], [lp_target(4_000, width_bps=300)]), 0, id="at the reference"),
    ],
)
def test_skew_is_what_a_pushed_pool_makes_liquidity_cost(step: StepInput, per_million: float) -> None:
    """Set back after the snapshot, liquidity was bought too dear by d²/8 in a pair, and by more in a range."""
    plan = planned(step)

    assert float(plan.cost.skew) / worth(step, only_provide(step)) == pytest.approx(per_million, rel=1e-2, abs=0.01)
    assert passes(step)


def refusing_guards(step: StepInput, plan: Plan, **limits: int) -> list[str]:
    """Return the guards that refuse the plan under these limits."""
    limited_step = with_limits(step, **limits)
    return [judged.guard for judged in guards.judge(limited_step, plan, evidence(limited_step, plan)) if not judged.passed]


def test_skew_counts_in_the_cost_limit() -> None:
    step = pushed_step()
    plan = planned(step)
    provided_value = worth(step, only_provide(step)) * USD
    gas_value = plan.cost.gas + plan.cost.approval_gas
    gas_bps = float(gas_value) / provided_value * 10_000
    cost_bps = float(gas_value + plan.cost.skew) / provided_value * 10_000

    assert int(cost_bps) > gas_bps, "a limit between the two"
    assert refusing_guards(step, plan, plan_cost_bps=int(cost_bps)) == ["plan_cost"]
    assert refusing_guards(step, plan, plan_cost_bps=int(cost_bps) + 1) == []


def test_worst_cost_of_minimums_counts_in_the_day_s_loss() -> None:
    step = pushed_step()
    plan = planned(step)
    case = build_guard_case(step, plan, evidence(step, plan))
    worst_bps = int(case.worst_cost() * 10_000 / case.portfolio_value())

    assert case.worst_cost() > case.cost() > plan.cost.gas
    assert refusing_guards(step, plan, daily_loss_bps=worst_bps) == ["daily_loss"]
    assert refusing_guards(step, plan, daily_loss_bps=worst_bps + 1) == []


def test_provision_is_none_where_skew_is_above_plan_cost() -> None:
    step = world(targets=[lp_target(4_000, width_bps=300)], pushed=PUSHED, bounds=roomy(plan_cost_bps=10))

    assert_hold(
        step,
        "a cost of 3.72 USDC, 2.42 USDC of it because the pool is off the reference, for 3200 USDC is above limits.plan_cost of 10 bps",
    )


def test_provision_is_none_beyond_a_band_that_slippage_narrows() -> None:
    """Beyond 1.4 % in a narrow range, 5 bps of slippage no longer bound the cost."""
    pushed = Fraction(1_014, 1_000)
    step = world(targets=[lp_target(2_000, v3_at(pushed), width_bps=300)], pushed=pushed, bounds=roomy(slippage_bps=5))

    assert_hold(step, "where limits.slippage no longer bounds the cost of liquidity")


def test_provision_is_none_to_a_range_that_the_pool_has_left() -> None:
    """The reference is still in the range; the pool, 1.4 % off, is not."""
    pool = v3_at(Fraction(1_014, 1_000))
    position: LpV3Position = ranged(100, 1_985, 2_015, 1, pool)
    assert not position.tick_lower <= position.tick < position.tick_upper

    assert_hold(
        world([position], [lp_target(2_000, pool)], pushed=Fraction(1_014, 1_000), bounds=roomy(slippage_bps=None)),
        "the pool's price is outside the range",
    )
