"""A Slipstream pool with the dynamic fee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agent.amm.v3.slipstream import SlipstreamPool
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.model import Pool
from agent.venues.discovery import discover_pools
from agent.venues.kinds.slipstream import INCLUSION_DELAY_S
from tests.support.endpoints import tokens
from tests.support.markets.venue_kinds import add_pool, deployment
from tests.support.slipstream import slipstream_artifacts
from tests.support.venues import Venue, Venues

BASE_PIPS = 500
CAP_PIPS = 20_000
SCALING = 10 * 10**6
"""Ten pips for each tick, as of Aerodrome's pools of volatile tokens."""
WINDOW_S = 600


class DynamicFeeMarket:
    """A pool of WETH and a dollar with the dynamic fee, which has traded for longer than the window."""

    def __init__(self, venues: Venues, dollar: str = "USDC") -> None:
        self.venues, self.chain = venues, venues.chain
        self.pool = add_pool(venues, Venue.SLIPSTREAM, ("WETH", dollar), 1_000_000)
        self.kind = deployment(venues, Venue.SLIPSTREAM)
        self.factory = venues.contract(self.kind.factory, Venue.SLIPSTREAM, factory=True).functions
        self.core = venues.contract(self.pool.address, Venue.SLIPSTREAM).functions
        settings = (self.kind.factory, SCALING, CAP_PIPS, [self.pool.address], [BASE_PIPS])
        artifact = slipstream_artifacts()["DynamicSwapFeeModule"]
        self.module = self.chain.contract(self.chain.deploy(artifact, *settings), artifact).functions
        self.manage(self.factory.setSwapFeeModule(self.module.address))
        self.chain.send(self.core.increaseObservationCardinalityNext(400), gas=20_000_000)
        for _ in range(4):
            self.jump(50)
            self.wait(WINDOW_S // 3)

    def manage(self, call: Any) -> None:
        """Send a call of who sets the fees."""
        self.chain.send(call, self.factory.swapFeeManager().call())

    def jump(self, usd: int, token: str = "WETH") -> None:
        """Sell that much of a token, in thousands of USD."""
        address = self.chain.tokens[token].address
        unit = 10 ** self.chain.tokens[token].decimals / self.chain.deployed_world.prices_usd[token]
        self.venues.swap(self.pool, address, int(usd * 1000 * unit))

    def wait(self, seconds: int) -> None:
        self.chain.node.mine_at(self.chain.node.now_s() + seconds)

    def fee_at(self, later_s: int) -> int:
        """Return fee() of the pool's contract so long after the newest block."""
        call = {"to": self.pool.address, "data": "0xddca3f43"}
        time = {"time": hex(self.chain.node.now_s() + later_s)}
        answer: Any = self.chain.w3.provider.make_request("eth_call", [call, "latest", {}, time])  # type: ignore[arg-type]
        return int(answer["result"], 16)

    def read(self, delays_s: Sequence[int] = (INCLUSION_DELAY_S,), caller: str = "") -> list[SlipstreamPool]:
        """Return the pool as a snapshot reads it for swaps so long after its block."""
        (ref,) = discover_pools(self.chain.transport, [self.kind], (), tokens(self.chain))
        reader: Any = ref.reader
        scope = SnapshotScope(
            owner=self.chain.wallet.address,
            tokens=(),
            spenders=(),
            pools=tuple(replace(ref, reader=replace(reader, inclusion_delay_s=delay_s)) for delay_s in delays_s),
            feeds=(),
            code_addresses=(),
            twap_window_s=0,
            impact_bps=5_000,
            caller=caller,
        )
        snapshot = ChainReader([self.chain.transport], self.chain.chain_id, scope, self.chain.clock, 1).snapshot()
        assert not snapshot.unreadable_items
        return [self.slipstream(pool) for pool in snapshot.pools]

    def slipstream(self, pool: Pool) -> SlipstreamPool:
        assert isinstance(pool, SlipstreamPool)
        return pool


def replace_module(market: DynamicFeeMarket, fee_pips: int) -> None:
    """Give the factory a module of another kind, with that fee for the pool."""
    artifact = slipstream_artifacts()["CustomSwapFeeModule"]
    module = market.chain.contract(market.chain.deploy(artifact, market.kind.factory), artifact).functions
    market.manage(module.setCustomFee(market.pool.address, fee_pips))
    market.manage(market.factory.setSwapFeeModule(module.address))
