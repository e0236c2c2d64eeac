"""Pools of every kind of venue, at the prices of a local chain."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.localchain import LocalChain
from agent.model import Pool
from agent.venues.discovery import discover_pools
from agent.venues.kinds.pancake_v3 import PancakeV3
from agent.venues.kinds.slipstream import Slipstream
from agent.venues.kinds.uniswap_v4 import UniswapV4
from agent.venues.kinds.venue import AmmVenue
from tests.support.endpoints import tokens
from tests.support.slipstream import slipstream_artifacts
from tests.support.venues import Venue, VenuePool, Venues, liquidity_for, sqrt_x96

KINDS = [Venue.PANCAKE, Venue.SLIPSTREAM]
TIERS = {
    Venue.PANCAKE: [(100, 1), (500, 10), (2_500, 50)],
    Venue.SLIPSTREAM: [(1, 1), (50, 50), (200, 200)],
    Venue.V4: [(100, 1), (500, 10), (3_000, 60)],
}
NO_QUOTER = "0x00000000000000000000000000000000000000aa"
"""PancakeSwap's QuoterV2 is in no package with bytecode."""


def price(chain: LocalChain, token: str) -> Fraction:
    """Return dollars per base unit of a token, at the chain's prices."""
    symbol = next(symbol for symbol, listed in chain.tokens.items() if listed.address == token)
    return chain.deployed_world.prices_usd[symbol] / 10 ** chain.tokens[symbol].decimals


def add_pool(venues: Venues, venue: Venue, symbols: tuple[str, str], usd: int, tier: tuple[int, int] | None = None) -> VenuePool:
    """Create a pool at the chain's prices, with `usd` of token0 over the whole range."""
    chain = venues.chain
    token0, token1 = sorted((chain.tokens[symbol].address for symbol in symbols), key=lambda token: int(token, 16))
    sqrt_price = sqrt_x96(price(chain, token0) / price(chain, token1))
    pool = venues.create(venue, token0, token1, sqrt_price, *(tier or ()))
    venues.provide(pool, liquidity_for(int(usd / price(chain, token0)), sqrt_price), sqrt_price)
    return pool


def deployment(venues: Venues, venue: Venue, **changes: Any) -> AmmVenue:
    """Return the deployment of a kind, with its usual tiers."""
    if venue is Venue.PANCAKE:
        row = venues.rows[venue]
        keys = {"deployer": row.maker, "quoter": NO_QUOTER, "fee_tiers": tuple(tier for tier, _ in TIERS[venue])}
        return PancakeV3(name=venue, factory=venues.factories[venue], **keys | changes)
    if venue is Venue.V4:
        keys = {"factory": venues.manager.address, "quoter": venues.quoter.address, "tiers": tuple(TIERS[venue])}
        return UniswapV4(name=venue, **keys | changes)
    chain = venues.chain
    factory = venues.factories[venue]
    implementation = venues.contract(factory, venue, factory=True).functions.poolImplementation().call()
    quoter = chain.deploy(slipstream_artifacts()["QuoterV2"], factory, chain.addresses.weth)
    keys = {"pool_implementation": implementation, "quoter": quoter, "tick_spacings": tuple(tier for tier, _ in TIERS[venue])}
    return Slipstream(name=venue, factory=factory, **keys | changes)


def read_pools(venues: Venues, venue: AmmVenue) -> list[Pool]:
    """Discover the pools of a deployment, and read them by a snapshot."""
    chain = venues.chain
    pools = discover_pools(chain.transport, [venue], (), tokens(chain))
    scope = SnapshotScope(
        owner=chain.wallet.address,
        tokens=tokens(chain),
        spenders=(),
        pools=pools,
        feeds=(),
        code_addresses=(),
        twap_window_s=0,
        impact_bps=5_000,
    )
    snapshot = ChainReader([chain.transport], chain.chain_id, scope, chain.clock, 1).snapshot()
    assert not snapshot.unreadable_items
    return list(snapshot.pools)
