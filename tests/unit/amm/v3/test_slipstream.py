"""A pool whose fee follows its price: what it is, and what the planner says of waiting."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction

import pytest

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.slipstream import DynamicFee, SlipstreamPool
from agent.planning.planner import plan
from agent.units import PIPS, Token
from tests.support.builders import raw, step_input, v3_pool, with_limits
from tests.support.planning_worlds import USDC, WETH, rebalance_to_targets

BASE_PIPS = 500
CAP_PIPS = 20_000


def dynamic(ticks_away: int) -> SlipstreamPool:
    """Return a pool of WETH and USDC whose tick is so far from its mean, at ten pips a tick."""
    pool = v3_pool(WETH, USDC, 2_000, 10_000_000)
    fee = DynamicFee(BASE_PIPS, CAP_PIPS, 10**7, pool.tick - ticks_away)
    state = {field.name: getattr(pool, field.name) for field in fields(V3Pool)} | {"venue": "slipstream", "fee_pips": fee.pips(pool.tick)}
    return SlipstreamPool(**state | {"observation_counts": (400, 400)}, dynamic_fee=fee)


def test_a_fee_is_base_and_distance_up_to_the_cap() -> None:
    assert [dynamic(ticks).fee_pips for ticks in (0, 100, -100, 10_000)] == [BASE_PIPS, 1_500, 1_500, CAP_PIPS]
    assert DynamicFee(BASE_PIPS, CAP_PIPS, 10**7, None).pips(12_345) == BASE_PIPS


@pytest.mark.parametrize("token_in", [WETH, USDC], ids=["weth", "usdc"])
def test_initial_fee__ends_with_a_swap_that_moves_the_tick(token_in: Token) -> None:
    pool = dynamic(100)
    assert pool.dynamic_fee is not None
    later_fee = pool.dynamic_fee
    initial_fee = replace(later_fee, initial_pips=3_000)
    pool = replace(pool, fee_pips=3_000, dynamic_fee=initial_fee)
    assert pool.idle_fee is None, "waiting changes nothing"
    same_tick, moved = (pool.swap(token_in.address, amount_raw).pool_after for amount_raw in (1, raw(100_000, token_in)))
    assert (same_tick.tick, same_tick.fee_pips, same_tick.dynamic_fee) == (pool.tick, 3_000, initial_fee)
    assert (moved.fee_pips, moved.dynamic_fee) == (later_fee.pips(moved.tick), later_fee)
    assert moved.fee_pips not in (3_000, BASE_PIPS)


def test_a_plan_says_what_waiting_for_the_fee_would_save() -> None:
    def waits(pool: SlipstreamPool) -> tuple[list[str], Fraction]:
        step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 10_000, "USDC": 0}, pools=[pool])
        step = replace(with_limits(step, plan_cost_bps=300, turnover_bps=None), execution=replace(step.execution, router_kind="rebalancer"))
        swap_plan = plan(step, rebalance_to_targets(step))
        return [item.why for item in swap_plan.skipped if item.subject == f"waiting for pool {pool.address}"], swap_plan.gross_volume

    (why,), sold = waits(dynamic(100))
    saved = sold * 1_000 / PIPS / 10**6
    assert why.startswith("its fee is 0.15 %, 0.1 % above its base after a move of its price; 600 s without trades")
    assert abs(Fraction(why.removesuffix(" USDC").rpartition(" ")[2]) - saved) < Fraction(1, 10)
    assert waits(dynamic(0))[0] == []
