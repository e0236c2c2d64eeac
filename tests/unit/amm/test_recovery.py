"""Tests of agent/amm/pools.py: pools that recover from a swap, as slices of a rebalance assume."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from agent.amm import pools
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.units import Token
from tests.support.builders import v2_pool, v3_pool
from tests.support.planning_worlds import ranged
from tests.support.tokens import USDC, WETH

RECOVERING_V2 = v2_pool(WETH, USDC, 2_000, 10_000_000)
RECOVERING_V3 = v3_pool(WETH, USDC, 2_000, 10_000_000)


@pytest.mark.parametrize("pool", [RECOVERING_V2, RECOVERING_V3], ids=["V2", "V3"])
@pytest.mark.parametrize(("token", "amount_raw"), [(WETH, 200 * 10**18), (USDC, 400_000 * 10**6)], ids=["down", "up"])
@pytest.mark.parametrize(
    ("share_left", "most_bps_off"),
    [
        pytest.param(Fraction(1), 15, id="nothing recovered"),
        pytest.param(Fraction(1, 2), 15, id="half"),
        pytest.param(Fraction(1, 10), 15, id="nine tenths"),
        pytest.param(Fraction(1, 10**12), 1, id="all but a trillionth"),
    ],
)
def test_pool_recovers_to_the_share_left_and_no_further(
    pool: V2Pool | V3Pool, token: Token, amount_raw: int, share_left: Fraction, most_bps_off: int
) -> None:
    moved_pool = pool.swap(token.address, amount_raw).pool_after
    move_bps = Fraction(pools.price_move_bps(pool, moved_pool, token.address))

    recovered_pool = moved_pool.partly_recovered(pool, share_left)

    assert move_bps > 300
    assert pools.price_move_bps(pool, recovered_pool, token.address) == pytest.approx(float(move_bps * share_left), abs=most_bps_off)
    assert pools.marginal_price(recovered_pool, token.address) <= pools.marginal_price(pool, token.address)
    assert pool.partly_recovered(pool, share_left) == pool


def test_pool_recovers_over_the_ranges_that_it_crossed() -> None:
    pool = ranged(RECOVERING_V3, random.Random(5), 60)
    moved_pool = pool.swap(WETH.address, 30 * 10**18).pool_after

    recovered_pool = moved_pool.partly_recovered(pool, Fraction(1, 10**12))

    assert isinstance(moved_pool, V3Pool)
    assert isinstance(recovered_pool, V3Pool)
    assert moved_pool.liquidity != pool.liquidity == recovered_pool.liquidity
    assert abs(recovered_pool.quote(WETH.address, 10**18) - pool.quote(WETH.address, 10**18)) <= 10
