"""Tests of agent/planning/approval_gas.py: approvals that a plan still needs, their gas, and the worst gas of its transactions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.guards.case import build_guard_case
from agent.guards.sandwich import max_extractable_profit
from agent.model import Allowance, DataFeeQuote, Goal, GoalWeight, Leg, LegPlace, Plan, Provide, Rebalance, StepInput, TopUp
from agent.model.rollups import MAX_FEE_RISE, OPERATOR_SAMPLE_GAS
from agent.planning import planner
from agent.planning.approval_gas import (
    approval_count,
    approval_gas_units,
    calldata_sizes,
    legs_bytes,
    revocation_gas_units,
    swap_spend,
    with_data_fee,
    worst_gas_wei,
)
from agent.policy import native_coin
from agent.policy.minimum import ACTION_BYTES, APPROVAL_BYTES, APPROVAL_GAS, LEG_BYTES
from agent.units import NATIVE, ceil_int
from tests.support import signing
from tests.support.builders import ETHER, GWEI, ROUTER, step_input, with_limits, with_snapshot
from tests.support.plans import evidence, sell_weth, verdict
from tests.support.signing import MANAGER, MINT
from tests.support.tokens import USDC, WETH

HALF = Rebalance("test", Goal(tuple(GoalWeight(asset.address, Fraction(1, 2), Fraction(1, 2)) for asset in (WETH, USDC))))
GAS_UNIT_VALUE = 2 * GWEI * 2_000 * Fraction(10**6, 10**18)
"""Worth of a unit of gas at 2 gwei, in base units of USDC."""
AMPLE_RAW = 10**20
SOLD_RAW = ETHER // 2
"""WETH that `sell_weth` takes."""


def step_with_allowance(allowed_raw: int, base_fee_wei: int = 2 * GWEI, spender: str = ROUTER) -> StepInput:
    """Return 6,000 USDC of WETH and 4,000 USDC, with this allowance of WETH for the spender."""
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    allowances = (Allowance(WETH.address, spender, allowed_raw), Allowance(USDC.address, ROUTER, 0))
    head = replace(step.snapshot.head, base_fee_wei=base_fee_wei)
    return with_limits(with_snapshot(step, allowances=allowances, head=head, priority_fee_wei=0), gas_price_wei=None)


def half_plan(step: StepInput) -> Plan:
    return planner.plan(step, HALF)


def leg(token_in: str, amount_in_raw: int, source: LegPlace = LegPlace.WALLET) -> Leg:
    return signing.leg(token_in, USDC.address, amount_in_raw, 1, source=source, pool="pool")


# --- Approvals


@pytest.mark.parametrize(
    ("legs", "spent_raw"),
    [
        pytest.param([], {}, id="no legs"),
        pytest.param([leg("A", 5), leg("B", 7)], {"A": 5, "B": 7}, id="two tokens"),
        pytest.param([leg("A", 5), leg("A", 7)], {"A": 12}, id="two legs of a token"),
        pytest.param([leg("A", 5), leg("B", 7, LegPlace.ROUTER)], {"A": 5}, id="leg from the router"),
        pytest.param([leg(NATIVE, 5)], {}, id="native coin"),
    ],
)
def test_swap_spend_adds_up_what_legs_take_from_the_wallet(legs: list[Leg], spent_raw: dict[str, int]) -> None:
    assert swap_spend(legs) == spent_raw


@pytest.mark.parametrize(
    ("allowances_raw", "count"),
    [
        pytest.param({}, 1, id="no allowance"),
        pytest.param({"A": 0}, 1, id="allowance of zero"),
        pytest.param({"A": 1}, 2, id="one base unit is reset first"),
        pytest.param({"A": 99}, 2, id="one base unit too small"),
        pytest.param({"A": 100}, 0, id="exactly enough"),
        pytest.param({"A": 101}, 0, id="one base unit more"),
        pytest.param({"B": 100}, 1, id="allowance of another token"),
    ],
)
def test_approval_count_resets_an_allowance_that_is_too_small(allowances_raw: dict[str, int], count: int) -> None:
    assert approval_count({"A": 100}, allowances_raw) == count
    assert approval_count({"A": 100, "C": 1}, allowances_raw) == count + 1


@pytest.mark.parametrize(
    ("allowed_raw", "spender", "fields", "approvals"),
    [
        pytest.param(0, ROUTER, {}, 1, id="no allowance"),
        pytest.param(SOLD_RAW - 1, ROUTER, {}, 2, id="one base unit too small"),
        pytest.param(SOLD_RAW, ROUTER, {}, 0, id="exactly enough"),
        pytest.param(SOLD_RAW, MANAGER, {}, 1, id="allowance of another spender"),
        pytest.param(0, ROUTER, {"decision": TopUp("test", 1)}, 0, id="top-up"),
    ],
)
def test_approval_gas_is_that_of_missing_approvals(allowed_raw: int, spender: str, fields: dict[str, Any], approvals: int) -> None:
    step = step_with_allowance(allowed_raw, spender=spender)

    assert approval_gas_units(step, replace(sell_weth(step), **fields)) == approvals * APPROVAL_GAS


@pytest.mark.parametrize(
    ("spender", "approvals"), [pytest.param(MANAGER, 0, id="position contract"), pytest.param(ROUTER, 2, id="only the router")]
)
def test_approval_gas_of_a_provision_goes_by_the_position_contract(spender: str, approvals: int) -> None:
    step = step_with_allowance(0)
    step = replace(step, execution=replace(step.execution, contract_by_venue=(("uniswap_v3", MANAGER),)))
    allowances = tuple(Allowance(at, spender, raw) for at, raw in MINT.spends_raw.items())
    plan = replace(sell_weth(step), legs=(), layer_actions=(MINT,))

    assert approval_gas_units(with_snapshot(step, allowances=allowances), plan) == approvals * APPROVAL_GAS


@pytest.mark.parametrize(
    ("actions", "revocations"),
    [
        pytest.param((), 0, id="no action"),
        pytest.param((MINT,), 1, id="both tokens"),
        pytest.param((MINT, MINT), 2, id="two provisions"),
        pytest.param((replace(MINT, desired_raw=(0, 5)),), 0, id="one token"),
        pytest.param((signing.COLLECT,), 0, id="collection of fees"),
    ],
)
def test_revocation_gas_is_one_approval_a_two_sided_provision(actions: tuple[Provide, ...], revocations: int) -> None:
    plan = replace(sell_weth(step_with_allowance(0)), layer_actions=actions)

    assert revocation_gas_units(plan) == revocations * APPROVAL_GAS


# --- Cost and worst case of a plan


@pytest.mark.parametrize(
    ("allowed_raw", "approvals"),
    [
        pytest.param(0, 1, id="no allowance"),
        pytest.param(1, 2, id="too small an allowance is reset first"),
        pytest.param(AMPLE_RAW, 0, id="ample allowance"),
    ],
)
def test_plan_and_guards_count_the_same_approval_gas(allowed_raw: int, approvals: int) -> None:
    step = step_with_allowance(allowed_raw)
    planned_cost = half_plan(step).cost
    plan = sell_weth(step)
    case = build_guard_case(step, plan, evidence(step, plan))
    gas_units = plan.gas_units + approvals * APPROVAL_GAS

    assert planned_cost.approval_gas == approvals * APPROVAL_GAS * GAS_UNIT_VALUE
    assert planned_cost.total == planned_cost.fees + planned_cost.impact + planned_cost.skew + planned_cost.gas + planned_cost.approval_gas
    assert case.cost() - case.trading_cost() == gas_units * GAS_UNIT_VALUE
    assert case.worst_gas_wei() == gas_units * 5 // 4 * 4 * GWEI


def test_swaps_do_not_depend_on_mined_approvals() -> None:
    assert half_plan(step_with_allowance(0)).legs == half_plan(step_with_allowance(AMPLE_RAW)).legs


@pytest.mark.parametrize(
    ("allowed_raw", "beyond_bps", "passed"),
    [
        pytest.param(0, 0, False, id="to be approved, limit below its cost"),
        pytest.param(0, 1, True, id="to be approved, limit one bp higher"),
        pytest.param(AMPLE_RAW, 0, True, id="approved before"),
    ],
)
def test_plan_cost_guard_counts_approval_gas(allowed_raw: int, beyond_bps: int, passed: bool) -> None:
    plan = sell_weth(step_with_allowance(AMPLE_RAW))
    unapproved_case = build_guard_case(step_with_allowance(0), plan, evidence(step_with_allowance(0), plan))
    limit_bps = int(unapproved_case.cost() * 10_000 / unapproved_case.turnover())  # rounded down: the cost with approvals is beyond it
    step = with_limits(step_with_allowance(allowed_raw), plan_cost_bps=limit_bps + beyond_bps)
    assert verdict("plan_cost", step, plan).passed is passed


def test_planner_keeps_to_plan_cost_with_approval_gas() -> None:
    plan_count = 0
    for plan_cost_bps in range(40, 300, 20):
        step = with_limits(step_with_allowance(0, base_fee_wei=10 * GWEI), plan_cost_bps=plan_cost_bps, min_trade=None)
        try:
            plan = half_plan(step)
        except planner.NothingPlanned:
            continue
        plan_count += 1
        assert verdict("plan_cost", step, plan).passed

    assert 0 < plan_count < 13, "both sides of the limit are seen"


def test_searcher_earns_no_approval_gas() -> None:
    step = step_with_allowance(0)
    unapproved, approved = (max_extractable_profit(step, half_plan(step_with_allowance(raw)), Fraction(0)) for raw in (0, AMPLE_RAW))

    assert unapproved == approved


@pytest.mark.parametrize(
    ("leg_count", "action_count", "approvals", "sizes"),
    [
        pytest.param(1, 0, 0, (2 * LEG_BYTES,), id="swap"),
        pytest.param(2, 0, 0, (3 * LEG_BYTES,), id="swap of two legs"),
        pytest.param(1, 0, 2, (2 * LEG_BYTES, APPROVAL_BYTES, APPROVAL_BYTES), id="swap and approvals"),
        pytest.param(0, 1, 2, (ACTION_BYTES, APPROVAL_BYTES, APPROVAL_BYTES), id="provision and approvals"),
    ],
)
def test_calldata_sizes_name_every_transaction(leg_count: int, action_count: int, approvals: int, sizes: tuple[int, ...]) -> None:
    step = step_with_allowance(AMPLE_RAW if approvals == 0 else 1)
    plan = sell_weth(step)
    plan = replace(plan, legs=plan.legs * leg_count, layer_actions=(MINT,) * action_count)

    assert calldata_sizes(step, plan) == sizes


def test_legs_bytes_count_a_frame_and_each_leg() -> None:
    assert legs_bytes(()) == LEG_BYTES
    assert legs_bytes((leg("A", 1),) * 3) == 4 * LEG_BYTES


QUOTE = DataFeeQuote(10**12, 10**15, 7, 7 + OPERATOR_SAMPLE_GAS // 10)
"""Its last two parts grow with the gas."""


@pytest.mark.parametrize(
    ("quote", "actions", "approvals", "revocations"),
    [
        pytest.param(None, (), 1, 0, id="no data fee"),
        pytest.param(QUOTE, (), 1, 0, id="data fee"),
        pytest.param(QUOTE, (MINT,), 3, 1, id="data fee of a provision and its revocation"),
    ],
)
def test_worst_gas_has_margin_fee_cap_and_the_risen_data_fee(
    quote: DataFeeQuote | None, actions: tuple[Provide, ...], approvals: int, revocations: int
) -> None:
    step = with_limits(with_snapshot(step_with_allowance(0), data_fee=quote), gas_price_wei=3 * GWEI)
    plan = replace(sell_weth(step), layer_actions=actions)
    gas_units = ceil_int((plan.gas_units + (approvals + revocations) * APPROVAL_GAS) * native_coin.GAS_MARGIN)
    sizes = (*calldata_sizes(step, plan), *[APPROVAL_BYTES] * revocations)

    assert worst_gas_wei(step, plan) == gas_units * 3 * GWEI + MAX_FEE_RISE * step.snapshot.max_fee_beyond_gas_wei(gas_units, *sizes)
    assert (step.snapshot.max_fee_beyond_gas_wei(gas_units, *sizes) > 0) is (quote is not None)


def test_worst_gas_of_a_plan_that_sends_nothing_is_zero() -> None:
    step = with_snapshot(step_with_allowance(AMPLE_RAW), data_fee=QUOTE)

    assert worst_gas_wei(step, replace(sell_weth(step), gas_units=0)) == 0


def test_data_fee_is_a_part_of_gas_and_counts_missing_approvals() -> None:
    step = with_snapshot(step_with_allowance(0), data_fee=QUOTE)
    plan = sell_weth(step)
    native_price = Fraction(2_000 * 10**6, 10**18)
    fee_wei = step.snapshot.expected_fee_beyond_gas_wei(plan.gas_units + APPROVAL_GAS, 2 * LEG_BYTES, APPROVAL_BYTES)

    cost = with_data_fee(step, plan, native_price).cost

    assert cost.data_fee == fee_wei * native_price > 0
    assert cost.gas == plan.cost.gas + cost.data_fee
    assert with_data_fee(step_with_allowance(0), plan, native_price) == plan
    assert with_data_fee(step, replace(plan, gas_units=0), native_price).cost == plan.cost
