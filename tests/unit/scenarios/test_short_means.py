"""The TWAP over reference.short_window: a further price of minimums and costs, which only makes them stricter (threat T29)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import V4Pool
from agent.chain.lens import CallItem, uint_word
from agent.chain.pools.reading import PoolRef, V2Reader, V3Reader
from agent.chain.watch import SnapshotScope, snapshot_questions
from agent.model import CodeHash, LpTarget, LpV3Position, PriceSource, Provide, StepInput, TickMean, Withdraw
from agent.planning.problem import build_problem
from agent.reference import disagreement_loss, price_ranges, reference_prices
from agent.units import BPS, Token
from agent.venues.composer import leg_floors
from agent.venues.kinds.slipstream import SlipstreamReader
from agent.venues.kinds.uniswap_v4 import V4Reader
from tests.support.builders import address, raw, step_input, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.decisions.exit_plans import with_exit
from tests.support.lp_worlds import lp_target, planned, ranged, world
from tests.support.plans import Swap, plan_of, sell_weth, verdict
from tests.support.tokens import USDC, WBTC, WETH

PRICE = 2_000
WINDOW_S = 300
BOTH = (PriceSource.FEED, PriceSource.TWAP)
LIMIT_BPS = 150


def with_short_mean(pool: V3Pool, off_bps: Fraction | int, window_s: int = WINDOW_S, base: Token = WETH) -> V3Pool:
    """Return the pool with a short mean that has `base` this far above its long one, to half a tick."""
    assert pool.twap_tick is not None
    ticks = round(math.log(1 + off_bps / BPS) / math.log(1.0001))
    tick = pool.twap_tick + (ticks if pool.token0 == base.address else -ticks)
    return replace(pool, short_mean=TickMean(window_s, tick, pool.liquidity))


def priced_step(*pools: V3Pool, kinds: Sequence[PriceSource] = BOTH, window_s: int = WINDOW_S, cautious: bool = True) -> StepInput:
    """A step whose feed and long means say 2,000."""
    step = step_input(values={"WETH": 60_000, "USDC": 40_000}, pools=pools, kinds=kinds)
    reference = replace(step.reference, uses_worse_source=cautious, short_window_s=window_s)
    return with_limits(replace(step, reference=reference), oracle_deviation_bps=LIMIT_BPS)


def short_off(off_bps: int, **changes: object) -> StepInput:
    return priced_step(with_short_mean(v3_pool(WETH, USDC, PRICE), off_bps), **changes)  # type: ignore[arg-type]  # keywords of priced_step


def off_bps(step: StepInput) -> tuple[float, float]:
    """Return how far the lowest and the highest price of WETH are above its reference price, in bps."""
    reference = reference_prices(step).price_by_token[WETH.address]
    low, high = price_ranges(step)[WETH.address]
    return float((low / reference - 1) * BPS), float((high / reference - 1) * BPS)


@pytest.mark.parametrize(
    ("short_bps", "expected"),
    [(100, (0, 100)), (-100, (-100, 0)), (149, (0, 149)), (-149, (-149, 0)), (3, (0, 3))],
)
def test_short_mean__joins_the_range_from_both_sides(short_bps: int, expected: tuple[int, int]) -> None:
    assert off_bps(short_off(short_bps)) == pytest.approx(expected, abs=1.1)


@pytest.mark.parametrize(
    "step",
    [
        short_off(152),
        short_off(-152),
        short_off(100, window_s=0),
        short_off(100, cautious=False),
        with_limits(short_off(100), oracle_deviation_bps=None),
        priced_step(v3_pool(WETH, USDC, PRICE)),
        priced_step(with_short_mean(v3_pool(WETH, USDC, PRICE), 100, window_s=WINDOW_S - 1)),
    ],
    ids=["above the limit", "below the limit", "no window", "recorded before", "limit off", "not answered", "another window"],
)
def test_short_mean__otherwise_leaves_the_range_as_it_was(step: StepInput) -> None:
    assert off_bps(step) == pytest.approx((0, 0), abs=1.1)


def test_short_mean__of_a_pool_that_is_not_pinned_does_not_count() -> None:
    stranger = with_short_mean(v3_pool(WETH, USDC, PRICE, depth=900_000_000, name="of a stranger"), 140)
    own = with_short_mean(v3_pool(WETH, USDC, PRICE), 20)
    step = priced_step(own, stranger)
    pin = next(code for code in step.snapshot.code_hashes if code.address == own.address)
    pinned = replace(step, reference=replace(step.reference, twap_pools=(CodeHash(pin.address, pin.hash),)))
    assert off_bps(step)[1] == pytest.approx(140, abs=2)
    assert off_bps(pinned)[1] == pytest.approx(20, abs=1.1)


def test_short_mean__of_a_thin_pool_hardly_counts_by_a_deep_one() -> None:
    deep = v3_pool(WETH, USDC, PRICE, depth=20_000_000)
    thin = v3_pool(WETH, USDC, PRICE, depth=20_000, name="thin")
    assert off_bps(priced_step(with_short_mean(deep, 0), with_short_mean(thin, 2_000)))[1] < 4


def test_short_mean__counts_by_the_liquidity_of_its_own_window() -> None:
    """Liquidity that left ten minutes ago is still in the long mean."""
    pools = [v3_pool(WETH, USDC, PRICE, depth=20_000_000, name=name) for name in ("stays", "left")]
    stays = with_short_mean(pools[0], 0)
    pools_left = with_short_mean(pools[1], 140)
    assert pools_left.short_mean is not None
    thin = replace(pools_left, short_mean=replace(pools_left.short_mean, liquidity=pools_left.liquidity // 1_000))
    assert off_bps(priced_step(stays, pools_left))[1] > 60
    assert off_bps(priced_step(stays, thin))[1] < 4


@given(
    feed_bps=st.integers(-140, 140),
    mean_bps=st.integers(-140, 140),
    short_bps=st.integers(-300, 300),
    selling=st.booleans(),
)
def test_short_mean__never_lowers_a_minimum(feed_bps: int, mean_bps: int, short_bps: int, selling: bool) -> None:
    pool = with_short_mean(v3_pool(WETH, USDC, PRICE, twap_price=PRICE * (1 + Fraction(mean_bps, BPS))), short_bps - mean_bps)
    step = priced_step(pool)
    answer = 2_000 * 10**8 * (BPS + feed_bps) // BPS
    feeds = tuple(replace(feed, answer=answer) if feed.answer > 10**9 else feed for feed in step.snapshot.feeds)
    step = replace(step, snapshot=replace(step.snapshot, feeds=feeds))
    without = replace(step, reference=replace(step.reference, short_window_s=0))
    sold = (WETH.address, raw(1, WETH)) if selling else (USDC.address, raw(2_000, USDC))
    rebalance = plan_of(step, [Swap(pool, *sold)])
    assert leg_floors(step, rebalance) >= leg_floors(without, rebalance)
    assert leg_floors(step, with_exit(rebalance)) == leg_floors(without, with_exit(rebalance)), "an exit's are those of its reference price"
    deltas = {WETH.address: -raw(1, WETH), USDC.address: raw(2_000, USDC)}
    assert disagreement_loss(step, deltas) >= disagreement_loss(without, deltas)
    low, high = off_bps(step)
    assert max(-low, high) <= LIMIT_BPS


def test_short_mean__planner_guard_and_signer_require_it_alike() -> None:
    step = short_off(100)
    sold = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, raw(1, WETH))])
    high = price_ranges(step)[WETH.address][1]
    assert build_problem(step, reference_prices(step)).floor_prices(WETH.address, USDC.address) == (high, 1)
    (floor,) = leg_floors(step, sold)
    floors, missed = (replace(sold, legs=(replace(sold.legs[0], min_out_raw=least),)) for least in (floor, floor - 1))
    assert verdict("fair_floor", step, floors).passed
    assert not verdict("fair_floor", step, missed).passed


def test_short_mean__cost_at_it_is_judged() -> None:
    """The pool is pushed to feed and long mean, which have not followed the market."""
    step = with_limits(short_off(100), plan_cost_bps=50, slippage_bps=30)
    sold = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, raw(1, WETH))])
    judged = verdict("plan_cost", step, sold)
    assert (judged.passed, "at the worse of feed and TWAP" in judged.measured_text) == (False, True)
    assert verdict("plan_cost", step, with_exit(sold)).passed, "an exit is not held to it"
    blind = replace(step, reference=replace(step.reference, short_window_s=0))
    assert verdict("plan_cost", blind, sold).passed


@pytest.mark.parametrize(("short_bps", "passes"), [(149, True), (-149, True), (152, False), (-152, False), (290, False)])
def test_short_mean__beyond_the_limit_refuses_what_is_no_exit(short_bps: int, passes: bool) -> None:
    step = short_off(short_bps)
    judged = verdict("oracle_deviation", step, sell_weth(step))
    assert judged.passed is passes
    assert passes or "short TWAP of WETH against its reference price" in judged.measured_text
    assert verdict("oracle_deviation", step, with_exit(sell_weth(step))).passed, "an exit acts"


def test_short_mean__of_a_token_not_traded_refuses_nothing() -> None:
    """Who pushes the only pool of another asset for minutes holds back that asset alone."""
    other = v3_pool(WBTC, USDC, 60_000)
    pools = [v2_pool(WETH, USDC, PRICE), with_short_mean(other, 400, base=WBTC)]
    step = step_input({"WETH": 4_000, "WBTC": 2_000, "USDC": 4_000}, pools=pools, prices={"WETH": PRICE, "WBTC": 60_000, "USDC": 1})
    step = with_limits(replace(step, reference=replace(step.reference, short_window_s=WINDOW_S)), oracle_deviation_bps=LIMIT_BPS)
    sells_wbtc = plan_of(step, [Swap(other, WBTC.address, raw(Fraction(1, 100), WBTC))])
    assert verdict("oracle_deviation", step, sell_weth(step)).passed
    assert not verdict("oracle_deviation", step, sells_wbtc).passed


def test_short_mean__survives_swap_and_codec_unlike_old_steps() -> None:
    pool = with_short_mean(v3_pool(WETH, USDC, PRICE), 100)
    assert pool.swap(WETH.address, 10**18).pool_after.short_mean == pool.short_mean
    step = priced_step(pool)
    assert codec.loads(StepInput, codec.dumps(step)) == step
    recorded = json.loads(codec.dumps(priced_step(replace(pool, short_mean=None), window_s=0)))
    del recorded["snapshot"]["pools"][0]["short_mean"]
    del recorded["reference"]["short_window_s"]
    assert codec.from_jsonable(StepInput, recorded) == priced_step(replace(pool, short_mean=None), window_s=0)


@pytest.mark.parametrize(
    ("reader", "pool_state"),
    [(V3Reader(), 1), (SlipstreamReader(factory=address("factory")), 1), (V4Reader(V4Pool, address("manager")), 0), (V2Reader(), 0)],
    ids=["v3", "slipstream", "v4", "v2"],
)
def test_short_mean__is_asked_of_pools_that_keep_observations(reader: V3Reader | V2Reader, pool_state: int) -> None:
    pool_id = "0x" + "11" * 32
    token0, token1 = sorted((WETH.address, USDC.address))
    state = pool_id if isinstance(reader, V4Reader) else address("pool")
    ref = PoolRef(state, "venue", reader, token0, token1, 500, 10)
    scope = SnapshotScope(address("wallet"), (), (), (ref,), (), (), 1_800, 100)
    before = snapshot_questions(scope)
    after = snapshot_questions(replace(scope, short_window_s=WINDOW_S))
    added = [question.item for question in after if question not in before]
    calldata = bytes.fromhex("883bdbfd") + b"".join(uint_word(word) for word in (32, 2, WINDOW_S, 0))
    assert [(item.target, item.calldata) for item in added if isinstance(item, CallItem)] == [(state, calldata)] * pool_state


def with_liquidity(short_bps: int, places: Sequence[LpV3Position], targets: Sequence[LpTarget]) -> StepInput:
    """A step over positions, whose V3 pools have a short mean that is this far off."""
    step = world(places, targets)
    pools = tuple(with_short_mean(pool, short_bps) if isinstance(pool, V3Pool) else pool for pool in step.snapshot.pools)
    reference = replace(step.reference, uses_worse_source=True, short_window_s=WINDOW_S)
    return with_snapshot(replace(step, reference=reference), pools=pools)


@pytest.mark.parametrize(("short_bps", "passes"), [(149, True), (155, False), (-155, False)])
def test_short_mean__beyond_the_limit_refuses_what_is_provided(short_bps: int, passes: bool) -> None:
    step = with_liquidity(short_bps, (), [lp_target(2_500)])
    provision = planned(step)
    assert [type(action) for action in provision.layer_actions] == [Provide]
    assert verdict("oracle_deviation", step, provision).passed is passes


def test_short_mean__lets_liquidity_be_taken_out() -> None:
    step = with_liquidity(290, [ranged(4_000, 1_800, 2_200)], [lp_target(0)])
    withdrawal = planned(step)
    assert Withdraw in {type(action) for action in withdrawal.layer_actions}
    assert verdict("oracle_deviation", step, withdrawal).passed
