"""Orders and liquidity: the wallet's part is sold at once, liquidity with a target is taken out after it, all other stays and counts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.layers.liquidity.planning.actions import plan_liquidity
from agent.layers.liquidity.policy.adjustments import target_adjustment
from agent.layers.liquidity.policy.moves import WithdrawMove
from agent.model import AdjustLiquidity, ConditionalOrder, OrderKind, OrdersConfig, OrderStage, Provide, Rebalance, StepInput, Withdraw
from agent.planning import planner
from agent.policy.decide import decide
from agent.policy.orders.exits import apply_orders
from agent.reference import reference_prices
from agent.units import Price
from tests.support import lp_worlds
from tests.support.builders import history, token, v2_pool, with_limits, with_snapshot
from tests.support.lp_worlds import USDC, WETH, planned, quiet, ranged, v3_at, wanted, world
from tests.support.standing_orders import price_of, terms

STOP = terms("WETH", OrderKind.STOP_LOSS, 2_100)
FIRED = ConditionalOrder(
    WETH.address, OrderKind.STOP_LOSS, OrderStage.FIRED, STOP, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000)
)
JUST_MOVED = history(last_rebalance_s=1_799_999_990, last_liquidity_s=1_799_999_990)


def step_after_stop(step: StepInput) -> StepInput:
    """The step after a stop of WETH has fired, within the cooldown of everything."""
    portfolio = replace(step.portfolio, orders=OrdersConfig((STOP,)))
    return apply_orders(replace(step, portfolio=portfolio, history=history(JUST_MOVED, states=(FIRED,))))


def prices(step: StepInput) -> dict[str, Price]:
    return reference_prices(step).price_by_token


def test_exit_sells_the_wallet_part_first() -> None:
    step = step_after_stop(world([ranged(2_000, 1_600, 2_500)], [wanted(2_000)], trigger=quiet()))
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    assert decision.is_exit
    plan = planner.plan(step, decision)
    assert dict(plan.holdings_after)[WETH.address] == 0
    assert step.portfolio.lp_targets[0].share_bps == 0


def test_exit_withdraws_liquidity_despite_the_cooldown() -> None:
    step = step_after_stop(world([ranged(2_000, 1_600, 2_500)], [wanted(2_000)], {"WETH": 0, "USDC": 8_000}, trigger=quiet()))
    assert isinstance(decide(step).decision, AdjustLiquidity)
    assert [type(action) for action in planned(step).layer_actions] == [Withdraw]
    assert step.history.orders.states[0].stage is OrderStage.FIRED


def test_exit_leaves_liquidity_while_its_pool_is_pushed() -> None:
    off = world([ranged(2_000, 1_600, 2_500)], [wanted(2_000)], {"WETH": 0, "USDC": 8_000}, pushed=Fraction(11, 10), trigger=quiet())
    step = step_after_stop(off)
    assert not isinstance(decide(step).decision, AdjustLiquidity)
    assert step.history.orders.states[0].stage is OrderStage.FIRED


def test_exit_leaves_a_position_without_a_target() -> None:
    step = step_after_stop(world([ranged(2_000, 1_600, 2_500)], [], {"WETH": 0, "USDC": 8_000}, trigger=quiet()))
    assert not isinstance(decide(step).decision, AdjustLiquidity)
    assert step.history.orders.states[0].stage is OrderStage.DONE


def test_sold_token_is_not_provided() -> None:
    done = replace(FIRED, stage=OrderStage.DONE)
    step = world([], [wanted(2_000)], {"WETH": 5, "USDC": 8_000}, trigger=quiet())
    portfolio = replace(step.portfolio, orders=OrdersConfig((STOP,)))
    step = apply_orders(replace(step, portfolio=portfolio, history=history(states=(done,))))
    decision = decide(step).decision
    assert not isinstance(decision, AdjustLiquidity) or not any(isinstance(action, Provide) for action in planned(step).layer_actions)
    assert step.portfolio.lp_targets[0].share_bps == 0


def test_exit_withdraws_only_its_own_liquidity() -> None:
    """What is left of WETH is not worth its gas; that other liquidity is above its share is no reason to move it at every look."""
    wbtc = token("WBTC")
    pair = v2_pool(wbtc, USDC, 60_000, 1_000_000, "other")
    position = lp_worlds.v2(
        2 * 10**16, 10**18, (pair.reserve0, pair.reserve1), pair=pair.address, token0=pair.token0, token1=pair.token1, k_last=0
    )
    other = wanted(500, pair)
    targets = {"WETH": 2_000, "WBTC": 4_000, "USDC": 4_000}
    for worth, own in ((2_000, True), (15, False)):
        step_before = world(
            [ranged(worth, 1_600, 2_500), position],
            [wanted(2_000), other],
            {"WETH": 0, "WBTC": 4_000, "USDC": 40_000},
            trigger=quiet(),
            targets_bps=targets,
        )
        step_before = with_snapshot(step_before, pools=(*step_before.snapshot.pools, pair))
        step = step_after_stop(with_limits(step_before, lp_max_weight_bps=9_000, impermanent_loss_bps=9_000))
        assert any(isinstance(move, WithdrawMove) for move in target_adjustment(step, prices(step)).moves), (
            "the other pool is above its share"
        )
        decision = decide(step).decision
        if own:
            assert isinstance(decision, AdjustLiquidity)
            assert decision.only_pools == (v3_at().address,)
            assert [action.pool for action in plan_liquidity(step, decision).layer_actions] == [v3_at().address]
        else:
            assert not isinstance(decision, AdjustLiquidity), "within the cooldown of liquidity"


def test_liquidity_below_a_trade_counts_as_sold() -> None:
    few = step_after_stop(world([ranged(15, 1_600, 2_500)], [wanted(2_000)], {"WETH": 0, "USDC": 8_000}, trigger=quiet()))
    assert few.history.orders.states[0].stage is OrderStage.DONE
    more = step_after_stop(world([ranged(50, 1_600, 2_500)], [wanted(2_000)], {"WETH": 0, "USDC": 8_000}, trigger=quiet()))
    assert more.history.orders.states[0].stage is OrderStage.FIRED
