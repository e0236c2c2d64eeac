"""Tests of agent/guards/max_weight.py: no purchase ends above an asset's limit, and nothing that sells is held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.guards.case import build_guard_case
from agent.model import Plan, Rebalance, StepInput
from agent.units import BPS
from tests.support.builders import raw, step_input
from tests.support.decisions.max_weights import step_with_max_weights
from tests.support.decisions.plan_costs import exit_plan
from tests.support.lp_worlds import lp_target, ranged, world
from tests.support.plans import Swap, assert_refused, evidence, plan_of, sell_weth, verdict
from tests.support.tokens import USDC, WETH

HALVES = {"WETH": 5_000, "USDC": 5_000}
OVERWEIGHT = {"WETH": 8_000, "USDC": 2_000}


def buy_weth(step: StepInput, usdc: int) -> Plan:
    return plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, raw(usdc, USDC))])


def by_hand(plan: Plan) -> Plan:
    assert isinstance(plan.decision, Rebalance)
    return replace(plan, decision=replace(plan.decision, by_hand=True))


def weight_after_bps(step: StepInput, plan: Plan) -> Fraction:
    """Return the weight of WETH after the plan."""
    case = build_guard_case(step, plan, evidence(step, plan))
    weth_value = (case.balance_raw(WETH.address) + case.replay.delta_raw(WETH.address)) * case.price(WETH.address)
    return weth_value * BPS / (weth_value + case.balance_raw(USDC.address) + case.replay.delta_raw(USDC.address))


def test_max_weight_refuses_a_purchase_one_basis_point_beyond() -> None:
    plan = buy_weth(step_input(values=HALVES), 400)
    whole_bps = int(weight_after_bps(step_with_max_weights({}), plan))

    judged = verdict("max_weight", step_with_max_weights({"WETH": whole_bps - 1}), plan)

    assert verdict("max_weight", step_with_max_weights({"WETH": whole_bps}), plan).passed, "rounded down to whole basis points"
    assert_refused(judged, "WETH at ")
    assert judged.limit == f"WETH {whole_bps - 1} bps"


@pytest.mark.parametrize(
    ("max_bps_by_symbol", "reason"),
    [
        pytest.param({"WETH": 4_000, "WBTC": 1_000}, "WBTC at", id="WBTC further above"),
        pytest.param({"WETH": 3_000, "WBTC": 2_900}, "WETH at", id="WETH further above"),
    ],
)
def test_max_weight_names_the_asset_furthest_above(max_bps_by_symbol: Mapping[str, int], reason: str) -> None:
    step = step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000})
    assets = tuple(replace(asset, max_bps=max_bps_by_symbol.get(asset.token.symbol)) for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    plan = plan_of(step, [Swap(pool, USDC.address, raw(100, USDC)) for pool in step.snapshot.pools])

    assert_refused(verdict("max_weight", step, plan), reason)


def test_max_weight_lets_an_overweight_asset_be_sold_alone() -> None:
    step = step_with_max_weights({"WETH": 6_000}, OVERWEIGHT)

    assert verdict("max_weight", step, sell_weth(step)).passed
    assert_refused(verdict("max_weight", step, buy_weth(step, 20)), "WETH at")


def test_max_weight_is_off_without_a_limit() -> None:
    assert verdict("max_weight", step_with_max_weights({}, OVERWEIGHT), buy_weth(step_input(values=OVERWEIGHT), 20)).limit == "off"


def test_max_weight_of_the_numeraire_holds_no_exit_back() -> None:
    step = step_with_max_weights({"USDC": 5_500})
    plan = sell_weth(step, 1)

    assert_refused(verdict("max_weight", step, plan), "USDC at")
    assert verdict("max_weight", step, exit_plan(plan)).measured_text == "an exit"
    assert verdict("max_weight", step, by_hand(plan)).passed


def test_max_weight_refuses_a_purchase_by_hand() -> None:
    step = step_with_max_weights({"WETH": 5_100})

    assert_refused(verdict("max_weight", step, by_hand(buy_weth(step, 400))), "WETH at")


@pytest.mark.parametrize(("reserve_usdc", "passed"), [(0, True), (9_000, False)], ids=["no reserve", "a reserve of 9,000 USDC"])
def test_max_weight_is_a_share_of_what_is_above_reserves(reserve_usdc: int, passed: bool) -> None:
    step = step_with_max_weights({"WETH": 5_000}, {"WETH": 4_000, "USDC": 16_000})
    weth_asset, usdc_asset = step.portfolio.assets
    usdc_asset = replace(usdc_asset, reserve_raw=reserve_usdc * 10**6 + 4_000 * 10**6)
    step = replace(step, portfolio=replace(step.portfolio, assets=(weth_asset, usdc_asset)))

    assert verdict("max_weight", step, buy_weth(step, 500)).passed is passed


@pytest.mark.parametrize(("position_usd", "passed"), [(0, True), (2_000, False)], ids=["no position", "2,000 USDC of WETH in a pool"])
def test_max_weight_counts_what_is_in_liquidity(position_usd: int, passed: bool) -> None:
    positions = [ranged(position_usd, 2_500, 4_000)] if position_usd else []
    step = world(positions, [lp_target(0)] if positions else [])
    assets = tuple(replace(asset, max_bps=5_050 if asset.token == WETH else None) for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    weth_pool = next(pool for pool in step.snapshot.pools if {pool.token0, pool.token1} == {WETH.address, USDC.address})
    plan = plan_of(step, [Swap(weth_pool, USDC.address, raw(10, USDC))])

    assert verdict("max_weight", step, plan).passed is passed
