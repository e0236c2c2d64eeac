"""What moves with liquidity count for gas: that of their own calls, and no more."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm.lp import action_gas
from agent.model import AdjustLiquidity, LpPosition, LpTarget
from agent.planning.approval_gas import worst_gas_wei
from agent.policy.decide import decide
from agent.policy.minimum import APPROVAL_GAS
from agent.policy.native_coin import worst_gas_price_wei
from tests.support.builders import with_snapshot
from tests.support.lp_worlds import PRICES, USD, WETH, lp_target, only_provide, paired, planned, quiet, ranged, v2_at, world


@pytest.mark.parametrize(
    ("places", "target", "units"),
    [
        pytest.param([], lp_target(2_000), action_gas.V3_MINT_UNITS, id="mint"),
        pytest.param([ranged(500, 1_800, 2_200)], lp_target(2_000), action_gas.V3_INCREASE_UNITS, id="increase"),
        pytest.param([paired(500)], lp_target(2_000, v2_at()), action_gas.V2_ADD_UNITS, id="pair"),
    ],
)
def test_what_is_provided_counts_the_gas_of_its_own_call(places: list[LpPosition], target: LpTarget, units: int) -> None:
    assert only_provide(world(places, [target])).gas_units == units


def test_leaving_a_range_for_good_pays_no_gas_of_a_mint() -> None:
    """At a gas price at which a withdrawal is worth it, and a new position with it is not."""
    place = ranged(500, 2_500, 3_000)
    most_wei = 500 * USD * Fraction(50, 10_000) / (PRICES[WETH.address] * action_gas.V3_WITHDRAW_UNITS)
    for share, taken in ((0, True), (500, False)):
        step = world([place], [lp_target(share)], trigger=quiet())
        step = with_snapshot(step, priority_fee_wei=0, head=replace(step.snapshot.head, base_fee_wei=int(most_wei * Fraction(9, 10))))
        assert isinstance(decide(step).decision, AdjustLiquidity) is taken, decide(step).decision.reason


def test_worst_case_gas__takes_back_what_the_pool_leaves() -> None:
    step = world(targets=[lp_target(2_000)])
    plan = planned(step)
    action = only_provide(step)
    one_sided = replace(plan, layer_actions=(replace(action, desired_raw=(0, action.desired_raw[1])),))
    at_worst = worst_gas_price_wei(step.snapshot, step.limits) * Fraction(5, 4)
    assert min(action.desired_raw) > 0
    assert worst_gas_wei(step, plan) == at_worst * (plan.gas_units + 3 * APPROVAL_GAS)
    assert worst_gas_wei(step, one_sided) == at_worst * (plan.gas_units + APPROVAL_GAS)
