"""Plans over awkward markets: baits, skewed, shallow, sick, one-sided and missing pools, tokens without price or route."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.model import Goal, LegPlace, Plan, Pool, PriceSource, Rebalance, StepInput, UnreadableItem
from agent.planning import planner
from agent.reference.floors import fair_floor
from tests.support.builders import step_input, v2_pool, v3_pool, with_limits, with_snapshot, without_feed
from tests.support.planning_worlds import (
    DAI,
    DEEP,
    FIVE,
    LINK,
    PRICES,
    USDC,
    WETH,
    assert_plan_refused,
    checked_plan,
    five_pools,
    pools_used,
    reason_by_subject,
    rebalance_to_targets,
    two,
    weights_bps,
    wide,
)
from tests.support.text import mentions, raises_code

BAIT = v3_pool(WETH, USDC, 2_028, 100_000_000, name="bait")
SKEWED = v3_pool(WETH, USDC, Fraction(2_000 * 9_960, 10_000), DEEP, 500)
OVERWEIGHT = {"WETH": 5_800, "USDC": 4_200}


# --- Pools off the reference


def test_pool_above_the_reference_carries_only_the_drift() -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, DEEP), BAIT]
    plan = checked_plan(two(5_600, 4_400, pools))
    assert pools_used(plan) == {BAIT.address}
    assert plan.turnover <= Fraction(600 * 10**6) * Fraction(105, 100)
    assert plan.cost.skew < 0 < plan.cost.fees
    assert BAIT.address not in pools_used(checked_plan(two(4_400, 5_600, pools))), "buying there would cost 1.4 %"


def test_skewed_pool_is_a_cost_and_never_lowers_a_floor() -> None:
    step = two(5_800, 4_200, [SKEWED], plan_cost_bps=60)
    plan = checked_plan(step)
    leg = plan.legs[0]
    assert plan.cost.skew / plan.turnover == pytest.approx(0.004, rel=0.02)
    assert leg.min_out_raw >= fair_floor(leg.amount_in_raw, Fraction(2_000 * 10**6, 10**18), Fraction(1), leg.fee_pips, 100, 30)
    assert_plan_refused(with_limits(step, plan_cost_bps=20), "plan_cost")


def test_pool_below_its_fair_floor_is_barred_without_plan_cost() -> None:
    skewed = v3_pool(WETH, USDC, Fraction(2_000 * 9_800, 10_000), DEEP, 500, name="skewed")
    fair = v3_pool(WETH, USDC, 2_000, DEEP, 10_000)
    assert_plan_refused(wide(two(5_800, 4_200, [skewed]), plan_cost_bps=None), "", "floor set by the reference price")
    both = wide(two(5_800, 4_200, [skewed, fair]), plan_cost_bps=None)
    assert pools_used(planner.plan(both, rebalance_to_targets(both))) == {fair.address}


def test_limits_that_are_off_keep_only_a_minimum_output() -> None:
    step = two(
        9_000, 1_000, [v2_pool(WETH, USDC, 2_000, 10_000)],
        price_impact_bps=None, slippage_bps=None, plan_cost_bps=None, turnover_bps=None, daily_turnover_bps=None, min_trade=None,
        pool_min_value=None,
    )  # fmt: skip
    plan = checked_plan(step)
    assert plan.legs[0].impact_bps > 2_000
    assert plan.legs[0].min_out_raw >= 1
    assert weights_bps(step, plan)["WETH"] == pytest.approx(5_000, abs=2)


# --- Routes and hubs


def test_token_without_a_pool_stays_with_a_reason() -> None:
    step = step_input({"WETH": 4_000, "USDC": 4_000, "LINK": 2_000}, {"WETH": 5_000, "USDC": 3_500, "LINK": 1_500}, PRICES,
                      pools=[v3_pool(WETH, USDC, 2_000, DEEP)])  # fmt: skip
    assert mentions(reason_by_subject(checked_plan(step))["LINK"], "usable pool")


def hub_step(window_s: int | None = 1_800) -> StepInput:
    """Return a step whose pools lead through DAI, a hub without a mean price if `window_s` is None."""
    pools = [v3_pool(WETH, DAI, 2_000, DEEP, window_s=window_s), v3_pool(DAI, USDC, 1, DEEP, 100, window_s=window_s)]
    return step_input(None, OVERWEIGHT, hubs=("DAI",), pools=pools)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        pytest.param(step_input(None, OVERWEIGHT, pools=[v3_pool(LINK, DAI, 15, DEEP)]), ("usable pool",), id="no pool of theirs"),
        pytest.param(
            step_input(
                {"WETH": 4_000, "USDC": 4_000, "LINK": 1_000, "DAI": 1_000}, {"WETH": 5_000, "USDC": 3_000, "LINK": 1_000, "DAI": 1_000},
                PRICES, pools=[v3_pool(WETH, LINK, Fraction(2_000, 15), DEEP), v3_pool(DAI, USDC, 1, DEEP)],
            ),
            ("no route",),
            id="no route",
        ),
        pytest.param(hub_step(window_s=None), ("reference price",), id="hub without a price"),
        pytest.param(
            with_snapshot(hub_step(), unreadable_items=(UnreadableItem("token", DAI.address, "returned a megabyte"),)),
            ("returned a megabyte",),
            id="hub in quarantine",
        ),
    ],
)  # fmt: skip
def test_plan_refuses_tokens_that_no_route_joins(step: StepInput, words: tuple[str, ...]) -> None:
    assert_plan_refused(step, "plan_cost", *words)


def test_hub_is_passed_through_and_ends_empty() -> None:
    step = hub_step()
    plan = checked_plan(step)
    assert [(leg.token_out, leg.sink) for leg in plan.legs] == [(DAI.address, LegPlace.ROUTER), (USDC.address, LegPlace.WALLET)]
    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    assert {at for at, _ in plan.holdings_after} == {WETH.address, USDC.address}


def test_numeraire_without_a_target_may_be_passed_through() -> None:
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input({"WETH": 5_000, "DAI": 5_000}, {"WETH": 5_800, "DAI": 4_200}, hubs=("USDC",), pools=pools, kinds=(PriceSource.SPOT,))
    plan = checked_plan(step)
    assert [leg.token_out for leg in plan.legs] == [USDC.address, DAI.address]
    assert weights_bps(step, plan) == {"WETH": 5_000, "DAI": 5_000}


# --- Pools that are no use, and what is not known


def test_pool_unreadable_shallow_or_empty_is_skipped_by_name() -> None:
    sound = v3_pool(WETH, USDC, 2_000, DEEP, 3_000)
    unreadable = v3_pool(WETH, USDC, 2_000, DEEP, 500)
    shallow = v2_pool(WETH, USDC, 2_000, 1_000)
    dry = replace(v3_pool(WETH, USDC, 2_000, DEEP, 100), liquidity=0, ticks=())
    step = two(5_800, 4_200, [sound, unreadable, shallow, dry])
    step = with_snapshot(step, unreadable_items=(UnreadableItem("pool", unreadable.address, "burnt its gas"),))
    plan = planner.plan(step, rebalance_to_targets(step))
    reasons = reason_by_subject(plan)
    assert pools_used(plan) == {sound.address}
    assert "its gas" in reasons[f"pool {unreadable.address}"]
    assert "pool_min_value" in reasons[f"pool {shallow.address}"]
    assert reasons[f"pool {dry.address}"] == "no liquidity"


def test_one_sided_liquidity_serves_its_direction() -> None:
    pool = v3_pool(WETH, USDC, 2_000, 5_000_000, 100)
    low, high = pool.ticks
    is_sold_down = WETH.address == pool.token0
    ticks = (low, replace(high, index=pool.tick + 3)) if is_sold_down else (replace(low, index=pool.tick - 2), high)
    one_sided = replace(pool, ticks=ticks)
    sells = two(5_800, 4_200, [one_sided], pool_min_value=None)
    assert weights_bps(sells, planner.plan(sells, rebalance_to_targets(sells)))["WETH"] == 5_000
    plan = checked_plan(two(4_200, 5_800, [one_sided], pool_min_value=None, min_trade=None))
    assert plan.turnover < Fraction(700 * 10**6), "of 800 wanted: three ticks are all there is"
    assert any(one_sided.address in item.why for item in plan.skipped)


UNREAD = {"holdings": two(5_800, 4_200).snapshot.holdings[:1], "unreadable_items": (UnreadableItem("token", USDC.address, "mute"),)}
WITHOUT_GAS_PRICE = step_input({"DAI": 5_000, "USDC": 5_000}, {"DAI": 5_800, "USDC": 4_200}, pools=[v3_pool(DAI, USDC, 1, DEEP, 100)])


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        pytest.param(without_feed(two(5_800, 4_200), "WETH"), "reference", ("WETH",), id="token without a price"),
        pytest.param(with_snapshot(two(5_800, 4_200), **UNREAD), "balance", ("mute",), id="balance not read"),
        pytest.param(WITHOUT_GAS_PRICE, "plan_cost", ("be valued",), id="gas without a price"),
        pytest.param(two(0, 0), "empty", (), id="empty wallet"),
    ],
)
def test_plan_refuses_what_it_cannot_value(step: StepInput, code: str, words: tuple[str, ...]) -> None:
    assert_plan_refused(step, code, *words)


def test_plan_refuses_a_foreign_goal() -> None:
    with raises_code(Refused, "goal"):
        planner.plan(two(5_800, 4_200), Rebalance("test", Goal(())))


def test_gas_without_a_price_is_skipped_without_plan_cost() -> None:
    step = with_limits(WITHOUT_GAS_PRICE, plan_cost_bps=None)
    plan = planner.plan(step, rebalance_to_targets(step))
    assert plan.cost.gas == 0
    assert "gas" in reason_by_subject(plan)


def test_plan_after_other_plans_in_the_process_is_the_same() -> None:
    """Processes whose sets have another order are compared by tests/unit/scenarios/test_machines.py."""

    def new_plan(weth: int) -> Plan:
        values = {"WETH": weth, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
        step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
        return planner.plan(step, rebalance_to_targets(step))

    first_plan = new_plan(42_000)
    assert new_plan(30_000) != first_plan
    assert new_plan(42_000) == first_plan
