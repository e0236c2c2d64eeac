"""Orders and liquidity: the wallet's part is sold at once, liquidity with a target is taken out after it, all other stays and counts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import AdjustLiquidity, Order, OrderKind, Orders, OrderStage, Provide, Rebalance, StepInput, Withdraw
from agent.planning.planner import plan
from agent.policy.decide import decide
from agent.policy.order_targets import ordered
from tests.builders import history
from tests.lp_worlds import WETH, planned, quiet, ranged, wanted, world
from tests.standing import price_of, terms

STOP = terms("WETH", OrderKind.STOP_LOSS, 2_100)
FIRED = Order(WETH.address, OrderKind.STOP_LOSS, OrderStage.FIRED, STOP, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000))
JUST_MOVED = history(last_rebalance_s=1_799_999_990, last_liquidity_s=1_799_999_990)


def stopped(step: StepInput) -> StepInput:
    """The step after a stop of WETH has fired, within the cooldown of everything."""
    portfolio = replace(step.portfolio, orders=Orders((STOP,)))
    return ordered(replace(step, portfolio=portfolio, history=replace(JUST_MOVED, orders=(FIRED,))))


def test_the_wallet_s_part_goes_first_and_what_lies_in_liquidity_is_locked() -> None:
    step = stopped(world([ranged(2_000, 1_600, 2_500)], [wanted(2_000)], trigger=quiet()))
    decision = decide(step).decision
    assert isinstance(decision, Rebalance) and decision.exit
    found = plan(step, decision)
    assert dict(found.holdings_after)[WETH.address] == 0
    assert step.portfolio.lp_targets[0].share_bps == 0


def test_then_liquidity_that_has_a_target_is_taken_out_whatever_the_cooldown_says() -> None:
    step = stopped(world([ranged(2_000, 1_600, 2_500)], [wanted(2_000)], {"WETH": 0, "USDC": 8_000}, trigger=quiet()))
    assert isinstance(decide(step).decision, AdjustLiquidity)
    assert [type(action) for action in planned(step).actions] == [Withdraw]
    assert step.history.orders[0].stage is OrderStage.FIRED


def test_while_its_pool_is_off_the_reference_nothing_is_taken_out_and_the_order_waits() -> None:
    off = world([ranged(2_000, 1_600, 2_500)], [wanted(2_000)], {"WETH": 0, "USDC": 8_000}, pushed=Fraction(11, 10), trigger=quiet())
    step = stopped(off)
    assert not isinstance(decide(step).decision, AdjustLiquidity)
    assert step.history.orders[0].stage is OrderStage.FIRED


def test_a_position_without_a_target_is_left_to_its_owner() -> None:
    step = stopped(world([ranged(2_000, 1_600, 2_500)], [], {"WETH": 0, "USDC": 8_000}, trigger=quiet()))
    assert not isinstance(decide(step).decision, AdjustLiquidity)
    assert step.history.orders[0].stage is OrderStage.DONE


def test_nothing_is_provided_with_what_is_out() -> None:
    done = replace(FIRED, stage=OrderStage.DONE)
    step = world([], [wanted(2_000)], {"WETH": 5, "USDC": 8_000}, trigger=quiet())
    portfolio = replace(step.portfolio, orders=Orders((STOP,)))
    step = ordered(replace(step, portfolio=portfolio, history=replace(history(), orders=(done,))))
    decision = decide(step).decision
    assert not isinstance(decision, AdjustLiquidity) or not any(isinstance(one, Provide) for one in planned(step).actions)
    assert step.portfolio.lp_targets[0].share_bps == 0
