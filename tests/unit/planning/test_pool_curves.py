"""Response curves: what they answer is what the exact pools answer; as they count, none pays more than the reference."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm import pools
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.model import Pool
from agent.planning.pool_curves import (
    BAND_WIDTH,
    MAX_INPUT,
    PoolCurve,
    TradeCurves,
    _build_curve,
    _kept_ranges,
    build_trade_curves,
    curve_after_charge,
    stack_curves,
    whole_unit_curves,
)
from agent.planning.solver.dual import PoolResponses
from tests.support.builders import price_of, token, unit_price, v2_pool, v3_pool
from tests.support.planning_worlds import ranged
from tests.support.tokens import USDC, WETH

PRICES = {WETH.address: Fraction(2_000 * 10**6, 10**18), USDC.address: Fraction(1)}
SCALE = 10**9
"""1,000 USDC."""
MARKETS = {"seed": st.integers(0, 10**6), "sell_weth": st.booleans(), "is_v2": st.booleans(), "skew": st.sampled_from([0.0, 0.01])}


def trade_curves(pool: Pool, token_in: str, bound_bps: int = 100, least: Fraction = Fraction(0)) -> TradeCurves:
    curves = build_trade_curves(pool, token_in, PRICES[token_in], PRICES[pools.token_out(pool, token_in)], SCALE, bound_bps, least)
    assert curves is not None
    return curves


def response_at(curve: PoolCurve, rate: float) -> tuple[float, float, float]:
    """(taken, paid, surplus) when the last unit has to pay `rate`."""
    responses = PoolResponses(stack_curves([(0, 1, curve)]), np.array([rate - 1, 0.0]))
    return float(responses.amount_in[0]), float(responses.amount_out[0]), float(responses.surplus[0])


def random_pool(seed: int, is_v2: bool, skew: float) -> Pool:
    dice = random.Random(seed)
    price = Fraction(2_000) * Fraction(1 + dice.uniform(-1, 1) * skew).limit_denominator(10**6)
    if is_v2:
        return v2_pool(WETH, USDC, price, 100_000)
    return ranged(v3_pool(WETH, USDC, price, 300_000, dice.choice([500, 3_000])), dice, 8)


@given(share=st.floats(0.0, 1.0), **MARKETS)
def test_curve_answers_like_the_exact_pool(seed: int, sell_weth: bool, is_v2: bool, skew: float, share: float) -> None:
    pool = random_pool(seed, is_v2, skew)
    token_in = (WETH if sell_weth else USDC).address
    token_out = pools.token_out(pool, token_in)
    curve = trade_curves(pool, token_in).real_curve
    rate = curve.best_rate * (1 - 0.01 * share) * 0.999999
    taken, paid, _ = response_at(curve, rate)
    exact_in = pool.best_amount_in(token_in, Fraction(rate) * PRICES[token_in] / PRICES[token_out], 100)
    taken_raw = Fraction(taken) * SCALE / PRICES[token_in]
    room = pool.max_in(token_in, 100)
    assert abs(taken_raw - exact_in) <= Fraction(room, 100_000) + 2
    amount = min(int(taken_raw), room)
    if amount > 10**4:
        paid_value = float(pool.swap(token_in, amount).amount_out_raw * PRICES[token_out] / SCALE)
        assert paid_value == pytest.approx(curve.output_for(float(amount * PRICES[token_in] / SCALE)), rel=1e-8, abs=3e-8)
        assert paid_value == pytest.approx(paid, rel=1e-5, abs=3e-9)


@given(parts=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4), **MARKETS)
def test_curve_bounds_every_sequence_of_swaps(seed: int, sell_weth: bool, is_v2: bool, skew: float, parts: list[float]) -> None:
    """The bound of the certificate rests on this: whatever is swapped within the bounds lies under the curve."""
    pool = random_pool(seed, is_v2, skew)
    token_in = (WETH if sell_weth else USDC).address
    token_out = pools.token_out(pool, token_in)
    curve = trade_curves(pool, token_in).real_curve
    state = pool
    spent_raw = 0
    paid_raw = 0
    for part in parts:
        amount = int(Fraction(part) / len(parts) * pool.max_in(token_in, 100))
        if amount * PRICES[token_in] < 1_000:
            continue  # buys less than one base unit
        swapped = state.swap(token_in, amount)
        state = swapped.pool_after
        spent_raw += swapped.amount_in_raw
        paid_raw += swapped.amount_out_raw
    value_in = float(spent_raw * PRICES[token_in] / SCALE)
    value_out = float(paid_raw * PRICES[token_out] / SCALE)
    rounded_up = 2 * len(curve.roots) * len(parts)  # each range asks for its input and its fee rounded up, and pays nothing for that
    assert value_in <= curve.capacity * (1 + 1e-12) + float(rounded_up * PRICES[token_in] / SCALE)
    assert value_out <= curve.output_for(value_in) * (1 + 1e-12)


@given(
    buys=st.sampled_from(["USDC", "WETH", "GUSD"]),
    coins=st.integers(10_000, 10_000_000),
    fee_pips=st.sampled_from([500, 3_000, 10_000]),
    is_v2=st.booleans(),
)
def test_whole_unit_curve_bounds_every_whole_amount(buys: str, coins: int, fee_pips: int, is_v2: bool) -> None:
    """The curve joined some of its corners by chords, which lay below what the units between them paid."""
    sold = token("WHOLE")
    bought = token(buys)
    coin = price_of(buys)
    prices = (unit_price(sold, 20, USDC), unit_price(bought, coin, USDC))
    depth = coins / coin
    pool = v2_pool(sold, bought, 20 / coin, depth) if is_v2 else v3_pool(sold, bought, 20 / coin, depth, fee_pips)
    curves = build_trade_curves(pool, sold.address, *prices, SCALE, 300)
    unit_in, unit_out = (float(price) / SCALE for price in prices)
    quote = pool.quoter(sold.address)
    whole = whole_unit_curves(curves, quote, Fraction(2_000), unit_in, unit_out)
    assert whole is not None
    for amount_raw in range(1, min(2_000, int(curves.real_curve.capacity / unit_in)) + 1):
        assert quote(amount_raw) * unit_out + whole.rounding_loss <= whole.real_curve.output_for(amount_raw * unit_in) * (1 + 1e-9)


@given(share=st.floats(0.0, 1.0), **MARKETS)
def test_input_for_is_the_inverse_of_output_for(seed: int, sell_weth: bool, is_v2: bool, skew: float, share: float) -> None:
    for curve in (
        (curves := trade_curves(random_pool(seed, is_v2, skew), (WETH if sell_weth else USDC).address)).real_curve,
        curves.counted_curve,
    ):
        paid = share * float(curve.outputs[-1])
        assert curve.output_for(curve.input_for(paid)) == pytest.approx(paid, rel=1e-9, abs=1e-12)


@given(share=st.floats(0.001, 0.999), **MARKETS)
def test_surplus_is_the_payment_above_the_required_rate(seed: int, sell_weth: bool, is_v2: bool, skew: float, share: float) -> None:
    curve = trade_curves(random_pool(seed, is_v2, skew), (WETH if sell_weth else USDC).address).real_curve
    rate = curve.best_rate * (1 - 0.01 * share)
    taken, paid, surplus = response_at(curve, rate)
    assert surplus == pytest.approx(paid - rate * taken, rel=1e-7, abs=1e-9)


def test_curve_takes_its_capacity_at_a_low_rate_and_then_nothing() -> None:
    curve = trade_curves(v2_pool(WETH, USDC, 2_000, 100_000), WETH.address).real_curve
    assert [response_at(curve, rate)[0] for rate in (curve.best_rate, 1.5)] == [0, 0]
    assert response_at(curve, 0.5)[:2] == pytest.approx((curve.capacity, curve.outputs[-1]))


def test_curve_ends_at_the_least_rate() -> None:
    pool = v2_pool(WETH, USDC, 2_000, 100_000)
    curve = trade_curves(pool, WETH.address, 100, Fraction(994, 1_000)).real_curve
    assert curve.rates[-1] == pytest.approx(-0.006)
    exact = pool.best_amount_in(WETH.address, Fraction(994, 1_000) * PRICES[WETH.address], 100)
    assert curve.capacity * SCALE == pytest.approx(float(exact * PRICES[WETH.address]), rel=1e-6)
    assert build_trade_curves(pool, WETH.address, *PRICES.values(), SCALE, 100, Fraction(998, 1_000)) is None


def test_counted_curve_of_a_skewed_pool_is_never_a_gain() -> None:
    curves = trade_curves(v3_pool(WETH, USDC, 2_028, 100_000), WETH.address)
    assert curves.real_curve.best_rate > 1.01
    assert 1 - BAND_WIDTH < curves.counted_curve.best_rate < 1
    assert curves.counted_curve.capacity == pytest.approx(curves.real_curve.capacity)
    part = curves.real_curve.capacity / 3
    assert 1 - BAND_WIDTH < curves.counted_curve.output_for(part) / part < 1 < curves.real_curve.output_for(part) / part
    cheap = response_at(curves.real_curve, 0.9995), response_at(curves.counted_curve, 0.9995)
    assert cheap[0][0] == pytest.approx(cheap[1][0]), "beyond the reference nothing changes"


def test_counted_curve_at_the_reference_is_the_real_one() -> None:
    curves = trade_curves(v3_pool(WETH, USDC, 2_000, 100_000), WETH.address)
    assert curves.counted_curve is curves.real_curve


def test_better_of_two_skewed_pools_is_filled_first() -> None:
    good, better = (trade_curves(v3_pool(WETH, USDC, price, 100_000), WETH.address).counted_curve for price in (2_010, 2_028))
    responses = PoolResponses(stack_curves([(0, 1, good), (0, 1, better)]), np.array([-BAND_WIDTH * 0.8, 0.0]))
    assert responses.amount_in[0] == 0 < responses.amount_in[1]


def test_curve_of_a_deep_pool_ends_at_max_input() -> None:
    curve = trade_curves(v3_pool(WETH, USDC, 2_000, 10**12), WETH.address).real_curve
    assert curve.net_inputs[-1] == pytest.approx(MAX_INPUT)
    assert curve.output_for(1.0) == pytest.approx(1 - 0.0005, abs=1e-8)


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(replace(v3_pool(WETH, USDC, 2_000, 100_000), liquidity=0, ticks=()), id="no liquidity"),
        pytest.param(replace(v2_pool(WETH, USDC, 2_000), reserve0=0), id="an empty reserve"),
        pytest.param(replace(v3_pool(WETH, USDC, 2_000, 100_000), sqrt_price_x96=0), id="no price"),
    ],
)
def test_curve_is_none_without_liquidity(pool: Pool) -> None:
    assert build_trade_curves(pool, WETH.address, *PRICES.values(), SCALE, 100) is None


def test_curve_jumps_over_a_gap_in_the_liquidity() -> None:
    """Between two ticks nothing is offered: the curve jumps there as the pool does."""
    pool = v3_pool(WETH, USDC, 2_000, 100_000)
    far = pool.liquidity // 2
    lower, upper = pool.ticks
    gap = (TickLiquidity(pool.tick - 40, -far), TickLiquidity(pool.tick - 20, pool.liquidity))
    gapped = replace(pool, ticks=(TickLiquidity(lower.index, far), *gap, upper))
    curve = trade_curves(gapped, pool.token0).real_curve
    assert (curve.liquidities == 0).sum() == 2, "the gap, and the end"
    share = curve.capacity * 0.9
    raw = int(share * SCALE / float(PRICES[pool.token0]))
    paid_value = gapped.swap(pool.token0, raw).amount_out_raw * PRICES[pool.token1] / SCALE
    assert float(paid_value) == pytest.approx(curve.output_for(share), rel=1e-6)
    assert curve.range_ends_crossed(share) == 2


@given(
    st.floats(-0.02, 0.2), st.lists(st.tuples(st.floats(-8, -1), st.floats(-3, 9)), min_size=1, max_size=4), st.floats(-16, 0),
    st.sampled_from([1.0, 0.997]),
)  # fmt: skip
def test_curve_after_charge_pays_less_by_the_charge_at_most(
    first: float, ranges: list[tuple[float, float]], charge_power: float, keep: float
) -> None:
    """Small charges too, of one base unit in a flat pool: they neither end the plan with an error nor drop the pool."""
    rates = first - np.cumsum([0.0] + [10**width for width, _ in ranges])
    curve = _build_curve(keep, rates, np.array([10**depth for _, depth in ranges]))
    charge = 10**charge_power
    less = curve_after_charge(curve, charge)
    assert (less is None) <= (curve.outputs[-1] <= charge * (1 + BAND_WIDTH)), (charge, float(curve.surplus[-1]))
    for share in (1e-9, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1.0) if less is not None else ():
        taken = float(curve.net_inputs[-1]) / keep * share
        pays = curve.output_for(taken)
        charged_paid = less.output_for(taken) if less is not None else 0.0
        assert pays - charge * (1 + BAND_WIDTH) <= charged_paid + BAND_WIDTH * pays
        assert charged_paid <= pays * (1 + BAND_WIDTH)


@pytest.mark.parametrize("charge", [1e-18, 1e-15, 3.3333333333333335e-12, 1e-9])
def test_curve_after_charge_keeps_a_flat_pool(charge: float) -> None:
    curve = _build_curve(1.0, np.array([-0.0029995, -0.0030005]), np.array([5_325_329.98624266]))
    assert curve_after_charge(curve, charge).output_for(1.0) == pytest.approx(curve.output_for(1.0), abs=1e-6)


def test_ranges_of_a_pool__are_kept_by_its_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ranged(v3_pool(WETH, USDC, Fraction(2_000), 300_000, 500), random.Random(7), 8)
    walked: list[V3Pool] = []
    walk = V3Pool.curve
    _kept_ranges.cache_clear()
    monkeypatch.setattr(V3Pool, "curve", lambda pool, *direction: walked.append(pool) or walk(pool, *direction))

    first_curves = trade_curves(pool, WETH.address)
    assert trade_curves(replace(pool), WETH.address).real_curve.outputs.tolist() == first_curves.real_curve.outputs.tolist()
    assert len(walked) == 1

    near_tick = min(pool.ticks, key=lambda tick: abs(tick.index - pool.tick))
    for changed_pool in (
        replace(pool, liquidity=pool.liquidity + 1),
        replace(pool, sqrt_price_x96=pool.sqrt_price_x96 + 1),
        replace(
            pool, ticks=tuple(replace(tick, liquidity_net=tick.liquidity_net + 1) if tick is near_tick else tick for tick in pool.ticks)
        ),
    ):
        trade_curves(changed_pool, WETH.address)
        assert walked[-1] is changed_pool
    trade_curves(pool, WETH.address, bound_bps=101)
    assert walked[-1] is pool
