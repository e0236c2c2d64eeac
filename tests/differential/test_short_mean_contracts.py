"""Means over reference.short_window as OracleLibrary.consult has them, of every kind of pool that keeps observations."""

from __future__ import annotations

from typing import Any

import pytest

from agent.amm.v3.pool import V3Pool
from agent.artifacts import npm_artifact
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.localchain import LocalChain
from agent.localchain.chain import V3_POOL_ARTIFACT
from agent.model import Pool, TickMean
from agent.venues.discovery import discover_pools
from tests.support.endpoints import reader, tokens
from tests.support.markets.venue_kinds import KINDS, add_pool, deployment
from tests.support.venues import Venue, Venues

WINDOW_S = 300


def consulted(core: Any, block: int) -> TickMean:
    """Return the mean by OracleLibrary.consult's own steps, from the contract's observe."""
    ticks, seconds_x128 = core.observe([WINDOW_S, 0]).call(block_identifier=block)
    change = ticks[1] - ticks[0]
    towards_zero = abs(change) // WINDOW_S * (1 if change >= 0 else -1)
    tick = towards_zero - (change < 0 and change % WINDOW_S != 0)
    liquidity = WINDOW_S * (2**160 - 1) // ((seconds_x128[1] - seconds_x128[0]) % 2**160 << 32)
    return TickMean(WINDOW_S, tick, liquidity)


def test_short_mean__of_v3_pools_is_consults(chain: LocalChain) -> None:
    chain.swap("v3 WETH/USDC 500", "WETH", 40 * 10**18)
    chain.swap("v3 WETH/USDC 3000", "USDC", 90_000 * 10**6)
    chain.warp(123, refresh_feeds=False)
    snapshot = reader(chain, short_window_s=WINDOW_S).snapshot()
    moved_pools = 0
    for pool in snapshot.pools:
        if not isinstance(pool, V3Pool):
            assert pool.over_short_window() == pool, "a pair has none"
            continue
        core = chain.contract(pool.address, npm_artifact(V3_POOL_ARTIFACT)).functions
        assert pool.short_mean == consulted(core, snapshot.head.number)
        moved_pools += pool.short_mean is not None and pool.short_mean.tick != pool.tick
    assert moved_pools == 2
    assert snapshot.unreadable_items == ()


def read_pool(venues: Venues, venue: Venue) -> tuple[Pool, int]:
    """Return the venue's only pool as a snapshot reads it, and the block."""
    chain = venues.chain
    refs = discover_pools(chain.transport, [deployment(venues, venue)], (), tokens(chain))
    scope = SnapshotScope(chain.wallet.address, (), (), refs, (), (), 1_800, 100, short_window_s=WINDOW_S)
    snapshot = ChainReader([chain.transport], chain.chain_id, scope, chain.clock, 1).snapshot()
    assert snapshot.unreadable_items == ()
    (pool,) = snapshot.pools
    return pool, snapshot.head.number


@pytest.mark.parametrize("symbols", [("WETH", "USDC"), ("WETH", "USDT")], ids=["tick above 0", "tick below 0"])
@pytest.mark.parametrize("venue", KINDS)
def test_short_mean__of_other_kinds_is_consults(venues: Venues, venue: Venue, symbols: tuple[str, str]) -> None:
    chain = venues.chain
    pool = add_pool(venues, venue, symbols, 1_000_000)
    core = venues.contract(pool.address, venue).functions
    chain.send(core.increaseObservationCardinalityNext(20), gas=5_000_000)
    chain.warp(WINDOW_S, refresh_feeds=False)
    venues.swap(pool, chain.tokens["WETH"].address, 10 * 10**18)
    chain.warp(77, refresh_feeds=False)
    state, block = read_pool(venues, venue)
    assert isinstance(state, V3Pool)
    assert state.short_mean == consulted(core, block)
    assert state.short_mean is not None
    assert abs(state.short_mean.tick - state.tick) > 100
    assert state.twap_tick is None, "the long window is not covered"


@pytest.mark.parametrize("venue", [*KINDS, Venue.V4])
def test_short_mean__of_a_pool_younger_than_the_window_is_none(venues: Venues, venue: Venue) -> None:
    add_pool(venues, venue, ("WETH", "USDC"), 1_000_000)
    state, _ = read_pool(venues, venue)
    assert isinstance(state, V3Pool)
    assert state.short_mean is None
    assert state.liquidity > 0


def test_short_mean__is_not_read_of_preceding_blocks(anvil_chain: LocalChain) -> None:
    """They confirm by feeds and long means; a step of 32 blocks need not ask each pool 32 times more."""
    chain_reader = reader(anvil_chain, short_window_s=WINDOW_S)
    past_blocks = chain_reader.past_prices(chain_reader.snapshot().head, 2)
    assert len(past_blocks) == 2
    assert all(pool.short_mean is None for block in past_blocks for pool in block.pools if isinstance(pool, V3Pool))
