"""Orders and liquidity: the wallet's part is sold at once, liquidity with a target is taken out after it, all other stays and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.layers.liquidity.planning.actions import plan_liquidity
from agent.layers.liquidity.policy.adjustments import target_adjustment
from agent.layers.liquidity.policy.moves import WithdrawMove
from agent.model import (
    AdjustLiquidity,
    ConditionalOrder,
    History,
    LpTarget,
    OrderKind,
    OrdersConfig,
    OrderStage,
    Provide,
    StepInput,
    Withdraw,
)
from agent.planning import planner
from agent.policy.decide import decide
from agent.policy.orders.exits import apply_orders
from agent.reference import reference_prices
from tests.support import lp_worlds
from tests.support.builders import Number, history, token, v2_pool, with_limits, with_snapshot
from tests.support.lp_worlds import USDC, WETH, lp_target, planned, quiet, ranged, v3_at, world
from tests.support.standing_orders import price_of, terms

STOP = terms("WETH", OrderKind.STOP_LOSS, 2_100)
FIRED = ConditionalOrder(
    WETH.address, OrderKind.STOP_LOSS, OrderStage.FIRED, STOP, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000)
)
JUST_MOVED = history(last_rebalance_s=1_799_999_990, last_liquidity_s=1_799_999_990)
USDC_ALONE = {"WETH": 0, "USDC": 8_000}


def step_after_stop(step: StepInput, order: ConditionalOrder = FIRED, past: History = JUST_MOVED) -> StepInput:
    """Return the step after a stop of WETH has fired, by default within the cooldown of everything."""
    portfolio = replace(step.portfolio, orders=OrdersConfig((STOP,)))
    return apply_orders(replace(step, portfolio=portfolio, history=history(past, states=(order,))))


def stopped_with(worth: int, targets: Sequence[LpTarget], values: Mapping[str, Number] | None = USDC_ALONE, **fields: Any) -> StepInput:
    """Return the step after a stop of WETH, of which a position is worth this much."""
    return step_after_stop(world([ranged(worth, 1_600, 2_500)], targets, values, trigger=quiet(), **fields))


def test_exit_sells_the_wallet_part_first() -> None:
    step = stopped_with(2_000, [lp_target(2_000)], None)
    decision = decide(step).decision
    assert decision.is_exit
    assert dict(planner.plan(step, decision).holdings_after)[WETH.address] == 0
    assert step.portfolio.lp_targets[0].share_bps == 0


def test_exit_withdraws_liquidity_despite_the_cooldown() -> None:
    step = stopped_with(2_000, [lp_target(2_000)])
    assert isinstance(decide(step).decision, AdjustLiquidity)
    assert [type(action) for action in planned(step).layer_actions] == [Withdraw]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(stopped_with(2_000, [lp_target(2_000)], pushed=Fraction(11, 10)), id="pool is pushed"),
        pytest.param(stopped_with(2_000, []), id="position without a target"),
    ],
)
def test_exit_leaves_liquidity_without_a_target_or_sound_pool(step: StepInput) -> None:
    assert not isinstance(decide(step).decision, AdjustLiquidity)


@pytest.mark.parametrize(
    ("step", "stage"),
    [
        pytest.param(stopped_with(2_000, [lp_target(2_000)]), OrderStage.FIRED, id="to be withdrawn"),
        pytest.param(stopped_with(2_000, [lp_target(2_000)], pushed=Fraction(11, 10)), OrderStage.FIRED, id="in a pushed pool"),
        pytest.param(stopped_with(50, [lp_target(2_000)]), OrderStage.FIRED, id="worth a trade"),
        pytest.param(stopped_with(15, [lp_target(2_000)]), OrderStage.DONE, id="below a trade"),
        pytest.param(stopped_with(2_000, []), OrderStage.DONE, id="without a target"),
    ],
)
def test_exit_is_done_once_its_liquidity_is(step: StepInput, stage: OrderStage) -> None:
    assert step.history.orders.states[0].stage is stage
    assert step.history.orders.states[0].since_s == FIRED.since_s


def test_sold_token_is_not_provided() -> None:
    step = world([], [lp_target(2_000)], {"WETH": 5, "USDC": 8_000}, trigger=quiet())
    step = step_after_stop(step, replace(FIRED, stage=OrderStage.DONE), history())
    decision = decide(step).decision
    assert not isinstance(decision, AdjustLiquidity) or not any(isinstance(action, Provide) for action in planned(step).layer_actions)
    assert step.portfolio.lp_targets[0].share_bps == 0


def step_beside_other_liquidity(worth: int) -> StepInput:
    """Return the step after a stop of WETH, of which a position is worth this much; a pool of WBTC is above its share."""
    pair = v2_pool(token("WBTC"), USDC, 60_000, 1_000_000, "other")
    position = lp_worlds.v2(
        2 * 10**16, 10**18, (pair.reserve0, pair.reserve1), pair=pair.address, token0=pair.token0, token1=pair.token1, k_last=0
    )
    step = world(
        [ranged(worth, 1_600, 2_500), position],
        [lp_target(2_000), lp_target(500, pair)],
        {"WETH": 0, "WBTC": 4_000, "USDC": 40_000},
        trigger=quiet(),
        targets_bps={"WETH": 2_000, "WBTC": 4_000, "USDC": 4_000},
    )
    step = with_limits(with_snapshot(step, pools=(*step.snapshot.pools, pair)), lp_max_weight_bps=9_000, impermanent_loss_bps=9_000)
    step = step_after_stop(step)
    moves = target_adjustment(step, reference_prices(step).price_by_token).moves
    assert any(isinstance(move, WithdrawMove) for move in moves), "the other pool is above its share"
    return step


def test_exit_withdraws_only_its_own_liquidity() -> None:
    step = step_beside_other_liquidity(2_000)
    decision = decide(step).decision
    assert isinstance(decision, AdjustLiquidity)
    assert decision.only_pools == (v3_at().address,)
    assert [action.pool for action in plan_liquidity(step, decision).layer_actions] == [v3_at().address]


def test_exit_below_its_gas_moves_no_other_liquidity() -> None:
    """That other liquidity is above its share is no reason to move it at every look, within the cooldown of liquidity."""
    assert not isinstance(decide(step_beside_other_liquidity(15)).decision, AdjustLiquidity)
