"""Confirmation of what limits and targets of liquidity ask for, and of what a zone would exchange: one block alone decides nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.amm.v3.pool import V3Pool
from agent.model import AdjustLiquidity, Hold, PastPrices, Pool, PriceSource, Rebalance, StepInput
from agent.policy.decide import decide
from tests.support.builders import NOW_S, feed_round, v3_pool, zoned
from tests.support.lp_worlds import lp_target, paired, quiet, ranged, roomy, world
from tests.support.tokens import USDC, WETH


def step_after_blocks(step: StepInput, *weth_usd: int, pools: tuple[Pool, ...] | None = None) -> StepInput:
    """The step with so many blocks before it to confirm, in which WETH cost so much; their pools as now by default."""
    past = []
    for back, usd in enumerate(weth_usd, 1):
        head = replace(step.snapshot.head, number=step.snapshot.head.number - back, timestamp_s=NOW_S - 12 * back)
        feeds = (feed_round("WETH", usd, NOW_S - 300), feed_round("USDC", 1, NOW_S - 300))
        past.append(PastPrices(head, feeds, step.snapshot.pools if pools is None else pools))
    policy = replace(step.policy, confirm_blocks=len(weth_usd))
    return replace(step, policy=policy, snapshot=replace(step.snapshot, past_prices=tuple(past)))


@pytest.mark.parametrize("before", [(32_000, 2_000), (2_000, 32_000)])
def test_liquidity_limit_exceeded_in_a_single_block_holds(before: tuple[int, int]) -> None:
    """Two WETH and 4,000 USDC beside a pair: at 2,000 a WETH it is a fifth of all, at 32,000 a tenth."""
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500))
    assert isinstance(decide(step_after_blocks(step, 2_000, 2_000)).decision, AdjustLiquidity)
    decision = decide(step_after_blocks(step, *before)).decision
    assert isinstance(decision, Hold)
    assert "above limits.lp_max_weight 15 %" in decision.reason
    assert "policy.confirm_blocks is 2" in decision.reason


def test_range_left_in_a_single_block_is_not_recentred() -> None:
    step = world([ranged(1_600, 2_200, 2_600)], [lp_target(1_700)], trigger=quiet())
    assert isinstance(decide(step_after_blocks(step, 2_000, 2_000)).decision, AdjustLiquidity)
    decision = decide(step_after_blocks(step, 2_000, 2_400)).decision
    assert isinstance(decision, Hold)
    assert "left the" in decision.reason
    assert "block 998" in decision.reason


def test_zone_needs_its_exchange_in_every_block() -> None:
    step = zoned({"WETH": 5_000, "USDC": 5_000}, {"WETH": 8_000, "USDC": 2_000}, depth=100_000_000)
    assert isinstance(decide(step_after_blocks(step, 2_000, 2_000)).decision, Rebalance)
    assert isinstance(decide(step_after_blocks(step, 2_000, 500)).decision, Hold)  # 4 WETH of 500 are half
    assert isinstance(decide(step_after_blocks(step, 2_000, 100)).decision, Hold)  # the other way round


@pytest.mark.parametrize("flash", [True, False])
def test_just_in_time_liquidity_opens_no_cheaper_route(flash: bool) -> None:
    """Nothing pays in the dear pool; a cheap one that is deep in this block alone fires no zone."""
    dear = v3_pool(WETH, USDC, 2_000, 100_000_000, 10_000)
    cheap = v3_pool(WETH, USDC, 2_000, 100_000_000, 100)
    step = zoned({"WETH": 5_000, "USDC": 5_000}, {"WETH": 5_060, "USDC": 4_940}, pools=[dear, cheap], kinds=[PriceSource.FEED])
    assert isinstance(decide(replace(step, snapshot=replace(step.snapshot, pools=(dear,)))).decision, Hold)
    assert isinstance(decide(step).decision, Rebalance)
    before = (dear, shallow(cheap)) if flash else (dear, cheap)
    assert isinstance(decide(step_after_blocks(step, 2_000, 2_000, pools=before)).decision, Hold if flash else Rebalance)


def shallow(pool: V3Pool) -> V3Pool:
    ticks = tuple(replace(tick, liquidity_net=tick.liquidity_net // 10**6) for tick in pool.ticks)
    return replace(pool, liquidity=pool.liquidity // 10**6, ticks=ticks)
