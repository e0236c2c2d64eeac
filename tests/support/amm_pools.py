"""Random V2 and V3 pool states for property tests of the pool mathematics."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from agent.amm.swap_errors import ContractRevert
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import MAX_TICK, MIN_TICK, Q96, get_sqrt_ratio_at_tick
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.model import Pool, SwapResult

POOL = "0x00000000000000000000000000000000000000aa"
TOKEN0 = "0x0000000000000000000000000000000000000001"
TOKEN1 = "0x0000000000000000000000000000000000000002"
TIERS = {100: 1, 500: 10, 3000: 60, 10000: 200, 50: 16_383}
"""Fee to tick spacing; the last is the widest spacing that the factory's owner can enable."""

tokens = st.sampled_from((TOKEN0, TOKEN1))
amounts = st.one_of(st.integers(1, 10**6), st.integers(0, 100).flatmap(lambda bits: st.integers(1, 2 << bits)))


def v3_pool(positions, sqrt_price_x96: int, tick: int, fee_pips: int = 3000, spacing: int = 60, window=(MIN_TICK, MAX_TICK)) -> V3Pool:
    """The pool that holds positions (lower tick, upper tick, liquidity); ticks outside the window are left out."""
    nets: dict[int, int] = {}
    for lower, upper, liquidity in positions:
        nets[lower] = nets.get(lower, 0) + liquidity
        nets[upper] = nets.get(upper, 0) - liquidity
    known = tuple(TickLiquidity(index, nets[index]) for index in sorted(nets) if window[0] <= index <= window[1])
    in_range = sum(liquidity for lower, upper, liquidity in positions if lower <= tick < upper)
    return V3Pool(POOL, "uniswap_v3", TOKEN0, TOKEN1, fee_pips, spacing, sqrt_price_x96, tick, in_range, known, *window)


@st.composite
def v3_pools(draw, windowed: bool = False, moderate: bool = False) -> V3Pool:
    """Overlapping, touching and separate positions of any size around any price.

    `windowed` hides the far ticks; `moderate` keeps to prices and sizes at which one base unit is a small amount.
    """
    fee_pips = draw(st.sampled_from(tuple(TIERS)))
    spacing = TIERS[fee_pips]
    anywhere = st.integers(-20_000, 20_000) if moderate else st.integers(MIN_TICK + 1, MAX_TICK - 2)
    tick = draw(st.one_of(st.integers(-2000, 2000), anywhere))
    low = get_sqrt_ratio_at_tick(tick)
    high = get_sqrt_ratio_at_tick(tick + 1)
    price = draw(st.one_of(st.just(low), st.integers(low, high - 1)))
    usable = MAX_TICK // spacing
    middle = tick // spacing
    near = st.integers(max(-usable, middle - 600), min(usable, middle + 600))
    edges = st.one_of(near, near, st.integers(max(-usable, middle - 4), min(usable, middle + 4)), st.sampled_from((-usable, usable)))
    size = st.integers(*((30, 80) if moderate else (0, 110))).flatmap(lambda bits: st.integers(1, 2 << bits))
    positions = []
    for a, b, liquidity in draw(st.lists(st.tuples(edges, edges, size), max_size=12)):
        if a != b:
            positions.append((min(a, b) * spacing, max(a, b) * spacing, liquidity))
    window = (MIN_TICK, MAX_TICK)
    if windowed:
        reach = st.integers(0, 700 * spacing)
        window = (max(MIN_TICK, tick - draw(reach)), min(MAX_TICK, tick + draw(reach)))
    return v3_pool(positions, price, tick, fee_pips, spacing, window)


@st.composite
def v2_pools(draw) -> V2Pool:
    """Reserves of any size that a pair can hold."""
    reserve = st.integers(0, 111).flatmap(lambda bits: st.integers(1, (2 << bits) - 1))
    return V2Pool(POOL, "uniswap_v2", TOKEN0, TOKEN1, draw(reserve), draw(reserve), draw(st.sampled_from((3000, 2500, 30000, 100))))


pools = st.one_of(v2_pools(), v3_pools())


def swap_result(state: Pool, token_in: str, amount: int) -> SwapResult | None:
    """The swap, or None where the contract reverts."""
    try:
        return state.swap(token_in, amount)
    except ContractRevert:
        return None


def with_known_ticks(whole: V3Pool, below: int, above: int) -> V3Pool:
    """Return the pool as far as it is known from so many ticks below its tick to so many above."""
    low = max(MIN_TICK, whole.tick - below)
    high = min(MAX_TICK, whole.tick + above)
    ticks = tuple(tick for tick in whole.ticks if low <= tick.index <= high)
    return replace(whole, ticks=ticks, known_from_tick=low, known_to_tick=high)


def flat(liquidity: int = 10**18, **changes: object) -> V3Pool:
    """One position over ±6,000 ticks at price 1."""
    return replace(v3_pool([(-6000, 6000, liquidity)], Q96, 0), **changes)
