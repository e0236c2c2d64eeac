"""Tests of agent/guards/replay.py: which legs the pools of a snapshot can run, and what the wallet gives and receives."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.guards.replay import Replay, replay_legs
from agent.model import NATIVE_VENUE, LegPlace, Plan, StepInput
from agent.units import NATIVE
from tests.support.builders import ETHER, address, raw, step_input, token, v2_pool, v3_pool, with_snapshot
from tests.support.plans import Swap, plan_of, with_leg
from tests.support.tokens import USDC, WBTC, WETH

DAI = token("DAI")
V2 = 0
V3 = 1


def two_pools() -> StepInput:
    """Return a step with a V2 pool and a V3 pool, all of whose ticks were read, of WETH and USDC at 2,000."""
    all_ticks = replace(v3_pool(WETH, USDC, 2_000, fee_pips=3_000), known_from_tick=-887_272, known_to_tick=887_272)
    return step_input(pools=[v2_pool(WETH, USDC, 2_000), all_ticks])


def weth_sales(step: StepInput, *pool_indices: int) -> Plan:
    """Return the plan that sells one WETH in each of these pools, in order."""
    return plan_of(step, [Swap(step.snapshot.pools[pool_index], WETH.address, ETHER) for pool_index in pool_indices])


def two_hop_sale() -> tuple[StepInput, Plan]:
    """Return a step and its plan that sells WBTC for WETH, which stays in the router, and that for USDC."""
    step = step_input({"WBTC": 5_000, "USDC": 5_000}, hubs=["WETH"], pools=[v2_pool(WBTC, WETH, 30), v2_pool(WETH, USDC, 2_000)])
    wbtc_pool, weth_pool = step.snapshot.pools
    sale = Swap(wbtc_pool, WBTC.address, raw(Fraction(1, 100), WBTC), sink=LegPlace.ROUTER)
    return step, plan_of(step, [sale, Swap(weth_pool, WETH.address, source=LegPlace.ROUTER)])


def replay_of(step: StepInput, plan: Plan) -> Replay:
    return replay_legs(step.snapshot, plan, step.portfolio.wrapped_native)


@pytest.mark.parametrize(
    ("pool_index", "leg_fields", "reason"),
    [
        pytest.param(V2, {"pool": address("nowhere")}, "is not in the snapshot", id="unknown pool"),
        pytest.param(V2, {"token_out": DAI.address}, "does not trade these tokens", id="foreign token bought"),
        pytest.param(V2, {"token_in": DAI.address}, "does not trade these tokens", id="foreign token sold"),
        pytest.param(V2, {"amount_in_raw": 0}, "no balance to spend", id="nothing to spend"),
        pytest.param(V2, {"amount_in_raw": -1}, "no balance to spend", id="negative amount"),
        pytest.param(V3, {"amount_in_raw": 1}, "pays nothing for 1", id="dust"),
        pytest.param(V3, {"amount_in_raw": 10**40}, "accepts only", id="more than the pool takes"),
        pytest.param(V2, {"source": LegPlace.ROUTER}, "no balance to spend", id="nothing in the router"),
    ],
)
def test_replay_ends_at_a_leg_that_its_pool_cannot_run(pool_index: int, leg_fields: dict[str, object], reason: str) -> None:
    step = two_pools()

    replay = replay_of(step, with_leg(weth_sales(step, V2, pool_index), 1, **leg_fields))

    assert replay.fault.startswith("leg 2: ")
    assert reason in replay.fault
    assert [swap.number for swap in replay.swaps] == [1]


@pytest.mark.parametrize(
    ("pool_index", "pool_fields", "reason"),
    [
        pytest.param(V3, {"known_from_tick": -1, "known_to_tick": 1, "ticks": ()}, "leg 2: pool", id="ticks not read"),
        pytest.param(V2, {"reserve0": 0, "reserve1": 0}, "leg 1: UniswapV2Library.getAmountOut reverts", id="empty pool"),
    ],
)
def test_replay_names_the_pool_that_was_not_read_whole(pool_index: int, pool_fields: dict[str, object], reason: str) -> None:
    step = two_pools()
    plan = weth_sales(step, V2, V3)
    pools = list(step.snapshot.pools)
    pools[pool_index] = replace(pools[pool_index], **pool_fields)  # type: ignore[arg-type]  # fields of the pool of the row

    fault = replay_of(with_snapshot(step, pools=tuple(pools)), plan).fault

    assert fault.startswith(reason)


def test_replay_runs_each_leg_in_the_pool_that_earlier_legs_left() -> None:
    step = two_pools()
    plan = weth_sales(step, V2, V2)

    replay = replay_of(step, plan)

    first_swap, second_swap = replay.swaps
    assert second_swap.pool_before == first_swap.pool_after
    assert second_swap.snapshot_pool == first_swap.snapshot_pool == step.snapshot.pools[V2]
    assert second_swap.amount_out_raw < first_swap.amount_out_raw
    assert replay.delta_raw(WETH.address) == -2 * ETHER
    assert replay.delta_raw(USDC.address) == first_swap.amount_out_raw + second_swap.amount_out_raw


def test_replay_of_a_router_leg_spends_what_the_router_has() -> None:
    step, plan = two_hop_sale()

    replay = replay_of(step, with_leg(plan, 1, amount_in_raw=plan.legs[1].amount_in_raw + 1))

    assert replay.swaps[1].amount_in_raw == plan.legs[0].amount_out_raw
    assert replay.stranded_raw_by_token == {}
    assert replay.tokens == (WBTC.address, USDC.address)


def test_replay_of_a_router_leg_spends_the_router_balance_once() -> None:
    step, plan = two_hop_sale()

    fault = replay_of(step, replace(plan, legs=(*plan.legs, plan.legs[1]))).fault

    assert fault == "leg 3: no balance to spend"


def test_replay_counts_what_stays_in_the_router() -> None:
    step, plan = two_hop_sale()

    replay = replay_of(step, replace(plan, legs=plan.legs[:1]))

    assert replay.stranded_raw_by_token == {WETH.address: plan.legs[0].amount_out_raw}
    assert replay.delta_raw(WETH.address) == 0


def with_conversion(plan: Plan, **leg_fields: object) -> Plan:
    """Return the plan with one leg that unwraps a WETH in the wallet, and these fields of it."""
    unwrap = {"pool": WETH.address, "venue": NATIVE_VENUE, "token_in": WETH.address, "token_out": NATIVE, "amount_in_raw": ETHER}
    return with_leg(plan, 0, **unwrap | leg_fields)


@pytest.mark.parametrize(
    "leg_fields",
    [
        pytest.param({"pool": USDC.address}, id="another contract"),
        pytest.param({"token_in": USDC.address}, id="another token"),
        pytest.param({"amount_in_raw": 0}, id="nothing"),
    ],
)
def test_replay_converts_only_native_and_wrapped_coin(leg_fields: dict[str, object]) -> None:
    step = two_pools()

    fault = replay_of(step, with_conversion(weth_sales(step, V2), **leg_fields)).fault

    assert fault is not None
    assert "does not convert" in fault


def test_replay_of_a_conversion_sells_nothing() -> None:
    step = two_pools()

    replay = replay_of(step, with_conversion(weth_sales(step, V2)))

    assert replay.fault is None
    assert replay.balance_changes_raw == {WETH.address: -ETHER, NATIVE: ETHER}
    assert replay.tokens == ()
