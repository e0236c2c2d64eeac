"""Tests of agent/chain/screening/moves.py: the transfers of a plan, or of each token without one, and the pools that lend for them."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction

import pytest

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import V4NativePool, V4Pool
from agent.chain.screening.moves import TokenMove, holding_pools, lending_pools, plan_token_moves, pool_moves, screening_moves
from agent.model import NATIVE_VENUE, FailedPool, Leg, LegPlace, Plan, Pool, ScreenedToken, ScreenSubject, StepInput, TokenFinding
from agent.policy.quarantine import quarantine_pools
from agent.units import NATIVE
from tests.support.builders import OWNER, ROUTER, address, raw, step_input, v2_pool, v3_pool, with_snapshot
from tests.support.lp_worlds import lp_target, planned, world
from tests.support.plans import R, Swap, W, plan_of
from tests.support.tokens import USDC, WBTC, WETH

MANAGER = address("manager")
V2 = v2_pool(WETH, USDC, 2_000, 50_000)
V3 = v3_pool(WETH, USDC, 2_000, 60_000)
SOLD_RAW = raw(1, WETH)


def kept_by_manager(pool: V3Pool, name: str, kind: type[V4Pool] = V4Pool) -> V4Pool:
    """Return the pool as one of V4 under this name."""
    state = {field.name: getattr(pool, field.name) for field in fields(V3Pool)}
    return kind(**state | {"address": address(name), "manager": MANAGER})


V4 = kept_by_manager(V3, "v4")


def step_with(*pools: Pool, sweeps_outputs: bool = False) -> StepInput:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, pools=pools)
    return replace(step, execution=replace(step.execution, sweeps_outputs=sweeps_outputs))


def in_quarantine(step: StepInput, pool: Pool, token: str) -> StepInput:
    """Return the step after the pool has failed for a token."""
    failed = ScreenedToken(token, TokenFinding.CLEAN, "", ScreenSubject.POOL, (FailedPool(pool.contract, "no money"),))
    return quarantine_pools(step, [failed])


# --- A plan


@pytest.mark.parametrize(
    ("pool", "token", "flags"),
    [
        (pool, token, style + (token == pool.token1))
        for pool, style in ((V2, 0), (V3, 2), (V4, 4))
        for token in (WETH.address, USDC.address)
    ],
)
def test_move_has_flags_of_its_pool_and_side(pool: Pool, token: str, flags: int) -> None:
    assert TokenMove(token, pool, 1).pool_flags == flags


@pytest.mark.parametrize(
    ("pool", "source", "sink", "sweeps_outputs", "spender", "payees"),
    [
        pytest.param(V2, W, W, False, ROUTER, [OWNER], id="v2"),
        pytest.param(V2, W, W, True, ROUTER, [OWNER], id="v2 with sweeps"),
        pytest.param(V3, W, W, False, ROUTER, [OWNER], id="v3"),
        pytest.param(V3, W, W, True, ROUTER, [OWNER, ROUTER], id="v3 with sweeps"),
        pytest.param(V3, W, R, True, ROUTER, [ROUTER], id="v3 into the router"),
        pytest.param(V2, W, R, False, ROUTER, [ROUTER], id="v2 into the router"),
        pytest.param(V2, R, W, False, None, [OWNER], id="from the router"),
    ],
)
def test_leg_is_sold_by_its_spender_and_paid_to_its_payees(
    pool: Pool, source: LegPlace, sink: LegPlace, sweeps_outputs: bool, spender: str | None, payees: list[str]
) -> None:
    step = step_with(pool, sweeps_outputs=sweeps_outputs)
    plan = plan_of(step, [Swap(pool, WETH.address, SOLD_RAW)])
    leg = replace(plan.legs[0], source=source, sink=sink)

    moves = plan_token_moves(step, replace(plan, legs=(leg,)))

    sale = TokenMove(WETH.address, pool, SOLD_RAW, spender=spender)
    assert moves == (sale, *(TokenMove(USDC.address, pool, leg.amount_out_raw, payee=payee) for payee in payees))


@pytest.mark.parametrize(
    ("raw", "payee", "lent_raw"),
    [
        pytest.param(10**30, None, V2.depth(WETH.address) // 2, id="more than the pool has"),
        pytest.param(7, None, 7, id="less than the pool has"),
        pytest.param(10**30, OWNER, 10**30, id="paid out"),
    ],
)
def test_pool_is_tried_with_what_it_has_where_it_only_receives(raw: int, payee: str | None, lent_raw: int) -> None:
    assert TokenMove(WETH.address, V2, raw, payee=payee).lent_raw == lent_raw


def test_pool_with_nothing_near_its_price__is_tried_with_one_base_unit() -> None:
    assert TokenMove(WETH.address, replace(V2, reserve0=0, reserve1=0), 7).lent_raw == 1


def moves_of(step: StepInput, **leg_fields: object) -> tuple[TokenMove, ...]:
    """Return the transfers of a sale of WETH in the pair, with these fields of its leg."""
    plan = plan_of(step, [Swap(V2, WETH.address, SOLD_RAW)])
    return plan_token_moves(step, replace(plan, legs=(replace(plan.legs[0], **leg_fields),)))  # type: ignore[arg-type]  # field names


@pytest.mark.parametrize(
    "leg_fields",
    [
        {"pool": address("another pool")},
        {"pool": V2.address, "venue": NATIVE_VENUE, "token_in": NATIVE},
        {"token_out": NATIVE},
        {"amount_in_raw": 0, "amount_out_raw": 0},
    ],
    ids=["unknown pool", "native coin sold", "native coin bought", "nothing"],
)
def test_leg_without_a_transfer_moves_no_token(leg_fields: dict[str, object]) -> None:
    assert moves_of(step_with(V2), **leg_fields) == ()


def test_provision_is_paid_by_the_spender_of_its_contract() -> None:
    step = world((), [lp_target(2_500)])
    plan = planned(step)
    (action,) = plan.layer_actions

    moves = [move for move in plan_token_moves(step, plan) if move.spender == action.contract]

    assert [(move.token, move.pool.address, move.payee) for move in moves] == [
        (action.token0, action.pool, None),
        (action.token1, action.pool, None),
    ]
    assert [move.raw for move in moves] == list(action.desired_raw)  # type: ignore[attr-defined]  # a Provide
    assert plan_token_moves(with_snapshot(step, pools=()), plan) == ()


# --- Native coin of V4


LENDER = v3_pool(WETH, WBTC, Fraction(1, 30), 100)
NATIVE_POOL = kept_by_manager(LENDER, "native", V4NativePool)
OTHER_LENDER = v3_pool(WETH, USDC, 2_000, 100_000, name="other")


def native_sale(*pools: Pool) -> tuple[StepInput, Plan]:
    """Return a step with these pools, and the sale of WETH as native coin."""
    step = step_input({"WETH": 4_000, "WBTC": 1_000, "USDC": 5_000}, pools=[NATIVE_POOL, *pools])
    return step, plan_of(step, [Swap(NATIVE_POOL, WETH.address, raw(Fraction(1, 10), WETH))])


def loan_of(step: StepInput, plan: Plan, **leg_fields: int) -> TokenMove:
    """Return the transfer of WETH in the plan."""
    leg: Leg = replace(plan.legs[0], **leg_fields)  # type: ignore[arg-type]  # field names
    (move,) = (move for move in plan_token_moves(step, replace(plan, legs=(leg,))) if move.token == WETH.address)
    return move


@pytest.mark.parametrize(
    ("pools", "failed_pools", "lender"),
    [
        pytest.param([LENDER], [], LENDER, id="the only one"),
        pytest.param([OTHER_LENDER, LENDER], [], LENDER, id="the deepest"),
        pytest.param([LENDER], [LENDER], LENDER, id="in quarantine for its other token"),
        pytest.param([LENDER, OTHER_LENDER], [LENDER], OTHER_LENDER, id="not in quarantine before deeper"),
    ],
)
def test_native_pool_borrows_wrapped_coin_of_another(pools: list[Pool], failed_pools: list[Pool], lender: Pool) -> None:
    """Without a lender of WETH its sale would be refused as not tested."""
    step, plan = native_sale(*pools)
    for pool in failed_pools:
        step = in_quarantine(step, pool, WBTC.address)

    move = loan_of(step, plan)

    assert (move.pool, move.raw, move.spender) == (lender, plan.legs[0].amount_in_raw, ROUTER)


@pytest.mark.parametrize("excess_raw", [0, 1], ids=["half of the lender", "one wei more"])
def test_native_pool_borrows_at_most_half_of_its_lender(excess_raw: int) -> None:
    step, plan = native_sale(LENDER)
    half_raw = LENDER.depth(WETH.address) // 2

    assert loan_of(step, plan, amount_in_raw=half_raw + excess_raw).raw == half_raw


def test_native_pool_without_a_lender_moves_no_wrapped_coin() -> None:
    step, plan = native_sale()

    assert [move.token for move in plan_token_moves(step, plan)] == [WBTC.address]


# --- Pools


EMPTY = replace(v2_pool(WETH, USDC, 2_000, name="empty"), reserve0=0, reserve1=0)
SMALL = v2_pool(WETH, USDC, 2_000, 4_000, name="small")
OTHER = v2_pool(WBTC, USDC, 60_000, 900_000)


def test_pools_that_hold_a_token_are_the_deepest_first() -> None:
    step = step_with(SMALL, EMPTY, V2, OTHER)

    assert holding_pools(step.snapshot, WETH.address) == [V2, SMALL]
    assert holding_pools(step.snapshot, USDC.address) == [OTHER, V2, SMALL]


def test_pools_that_lend_are_not_in_quarantine() -> None:
    step = in_quarantine(step_with(SMALL, V2), V2, USDC.address)

    assert lending_pools(step.snapshot, WETH.address) == [SMALL]
    assert holding_pools(step.snapshot, WETH.address) == [V2, SMALL]


def test_pool_moves_are_the_largest_of_each_contract() -> None:
    second_v4 = kept_by_manager(V3, "second v4")
    moves = (
        TokenMove(USDC.address, V2, 10),
        TokenMove(USDC.address, V3, 20),
        TokenMove(USDC.address, V2, 30),
        TokenMove(USDC.address, V4, 5),
        TokenMove(USDC.address, second_v4, 40),
        TokenMove(WETH.address, V2, 50),
    )

    assert pool_moves(moves, USDC.address) == [moves[4], moves[2], moves[1]]


# --- Without a plan


@pytest.mark.parametrize(
    ("balance_raw", "moved_raw"),
    [
        pytest.param(10**6, 10**6, id="the balance"),
        pytest.param(10**6 - 1, V2.depth(WETH.address) // 100, id="a hundredth beside dust"),
        pytest.param(0, V2.depth(WETH.address) // 100, id="a hundredth without a balance"),
        pytest.param(V2.depth(WETH.address), V2.depth(WETH.address) // 2, id="half of the pool at most"),
    ],
)
def test_screening_moves_the_balance_both_ways(balance_raw: int, moved_raw: int) -> None:
    step = step_with(V2)
    holdings = tuple(replace(holding, raw=balance_raw) if holding.token == WETH.address else holding for holding in step.snapshot.holdings)

    moves = screening_moves(with_snapshot(step, holdings=holdings))

    assert [move for move in moves if move.token == WETH.address] == [TokenMove(WETH.address, V2, moved_raw, OWNER, ROUTER)]


def test_screening_moves_each_asset_and_hub_through_each_pool() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, hubs=["WBTC"], pools=[V2, V3, OTHER])

    pools_by_token = {
        token.symbol: [move.pool for move in screening_moves(step) if move.token == token.address] for token in (WETH, USDC, WBTC)
    }

    assert pools_by_token == {"WETH": [V2, V3], "USDC": [OTHER, V2, V3], "WBTC": [OTHER]}


def test_screening_moves_nothing_through_a_pool_in_quarantine() -> None:
    step = in_quarantine(step_with(V2, V3, V4), V4, USDC.address)

    assert {move.pool.contract for move in screening_moves(step)} == {V2.contract, V3.contract}
