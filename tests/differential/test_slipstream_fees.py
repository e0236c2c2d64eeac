"""The fee of Slipstream's pools as their module's own contract takes it: after jumps, for the wallet, of each swap of a transaction, and
when it changes between the snapshot and the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from agent.amm.v3.slipstream import SlipstreamPool
from agent.chain.receipts import CUSTOM_ERRORS
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.codec import dumps, loads
from agent.model import Pool
from agent.signing.calldata import selector
from agent.venues.discovery import discover_pools
from agent.venues.kinds.slipstream import INCLUSION_DELAY_S
from tests.differential.test_venue_kinds import add_pool, deployment
from tests.support.endpoints import tokens
from tests.support.rebalancer import Stall
from tests.support.slipstream import slipstream_artifacts
from tests.support.venues import Venue, Venues

BASE_PIPS, CAP_PIPS = 500, 20_000
SCALING = 10 * 10**6
"""Ten pips for each tick, as of Aerodrome's pools of volatile tokens."""
WINDOW_S = 600
ANSWERS_ITSELF_TWICE = "0x" + "30600052" + "30602052" + "60406000f3"
"""Code of a voter that is also the registry of factories, and the factory of gauges that the registry names."""


class Market:
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


def fees_equal(venues: Venues, seed: int, jumps: int, delays: int, dollar: str = "USDC") -> SlipstreamPool:
    """Compare the fee as read with that of the contract up to 300 seconds later, after random jumps; return the last pool read."""
    market, random = Market(venues, dollar), Random(seed)
    fees = set()
    for _ in range(jumps):
        market.jump(random.randrange(1, 80), random.choice(("WETH", dollar)))
        market.wait(random.choice((1, 2, 30, random.randrange(1, 700))))
        delays_s = sorted(random.sample(range(301), delays))
        for delay_s, pool in zip(delays_s, market.read(delays_s), strict=True):
            assert pool.fee_pips == market.fee_at(delay_s), (seed, delay_s, pool.dynamic_fee)
            assert pool.dynamic_fee is not None
            fees.add(pool.fee_pips)
    assert len(fees) > jumps
    assert max(fees) > 2 * BASE_PIPS
    return pool


def test_the_fee_after_jumps_is_the_contracts(venues: Venues) -> None:
    fees_equal(venues, 1, 6, 10)


def test_mean_tick_below_zero_is_rounded_towards_zero(venues: Venues) -> None:
    """A tick is ten pips of the fee; DynamicSwapFeeModule divides an int56, which Solidity rounds towards zero."""
    assert fees_equal(venues, 3, 4, 6, dollar="USDT").tick < 0


@pytest.mark.slow
def test_two_thousand_fees_after_jumps_are_the_contracts(venues: Venues) -> None:
    fees_equal(venues, 2, 80, 25)


def two_legs(stall: Stall, market: Market, pool: SlipstreamPool) -> tuple[Any, int]:
    """Return a program of two sales of WETH in the pool, with what they pay as their least, and the sum of that."""
    sold, first = stall.at("WETH"), 8 * 10**18
    swapped = pool.swap(sold, first)
    second = swapped.pool_after.swap(sold, first)
    legs = [market.pool.leg(sold, first, result.amount_out_raw) for result in (swapped, second)]
    return stall.program(*legs), swapped.amount_out_raw + second.amount_out_raw


def test_each_swap_of_a_transaction_pays_the_fee_of_its_own_tick(venues: Venues) -> None:
    market, stall = Market(venues), Stall(venues)
    stall.chain.set_balance("WETH", 100 * 10**18)
    market.jump(40)
    (pool,) = market.read(caller=stall.victim)
    assert pool.fee_pips < pool.swap(stall.at("WETH"), 8 * 10**18).pool_after.fee_pips
    assert loads(SlipstreamPool, dumps(pool)) == pool
    program, paid = two_legs(stall, market, pool)
    stall.chain.node.rpc("evm_setNextBlockTimestamp", stall.chain.node.now_s() + INCLUSION_DELAY_S)
    assert stall.send(program) == {"WETH": -16 * 10**18, "USDC": paid}


def test_a_discount_is_that_of_the_wallet_alone(venues: Venues) -> None:
    market, stall = Market(venues), Stall(venues)
    stall.chain.set_balance("WETH", 100 * 10**18)
    market.manage(market.module.registerDiscounted(stall.victim, 300_000))
    (own,), (others,) = market.read(caller=stall.victim), market.read((0,))
    assert own.fee_pips == others.fee_pips - -(-others.fee_pips * 3 // 10)
    sold = stall.at("WETH")
    leg = market.pool.leg(sold, 10**15, own.quote(sold, 10**15))
    assert stall.would(stall.program(leg), sender=stall.victim) == ""


def replace_module(market: Market, fee_pips: int) -> None:
    """Give the factory a module of another kind, with that fee for the pool."""
    artifact = slipstream_artifacts()["CustomSwapFeeModule"]
    module = market.chain.contract(market.chain.deploy(artifact, market.kind.factory), artifact).functions
    market.manage(module.setCustomFee(market.pool.address, fee_pips))
    market.manage(market.factory.setSwapFeeModule(module.address))


CHANGES = {
    "base fee": lambda market: market.manage(market.module.setCustomFee(market.pool.address, 20_000)),
    "module": lambda market: replace_module(market, 30_000),
    "cap": lambda market: (market.manage(market.module.setDefaultScalingFactor(10**18)), market.jump(1, "USDC")),
}
"""What raises the fee by far more than the slippage, while the price stays about as it was."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_fee_that_rises_beyond_the_minimum_reverts_by_name(venues: Venues, change: str) -> None:
    market, stall = Market(venues), Stall(venues)
    market.wait(2 * WINDOW_S)
    (pool,) = market.read(caller=stall.victim)
    sold, amount = stall.at("WETH"), 10**18
    least = pool.quote(sold, amount) * 995 // 1000
    program = stall.program(market.pool.leg(sold, amount, least))
    assert stall.would(program) == ""
    CHANGES[change](market)
    assert market.fee_at(1) >= 20_000
    assert stall.would(program) == "TooLittleOut(1)"
    assert "its fee rose" in CUSTOM_ERRORS[selector("TooLittleOut(uint256)")][1]


def test_another_module_or_gauge_within_the_minimum_pays_it(venues: Venues) -> None:
    market, stall = Market(venues), Stall(venues)
    stall.chain.set_balance("WETH", 100 * 10**18)
    (pool,) = market.read(caller=stall.victim)
    sold, amount = stall.at("WETH"), 10**18
    least = pool.quote(sold, amount) * 995 // 1000
    replace_module(market, pool.fee_pips + 2_000)
    voter = market.factory.voter().call()
    stall.chain.node.rpc("anvil_setCode", voter, ANSWERS_ITSELF_TWICE)
    stall.chain.node.rpc("anvil_impersonateAccount", voter)
    stall.chain.set_native(10**20, voter)
    stall.chain.send(market.core.setGaugeAndPositionManager(voter, voter), voter)
    (changed,) = market.read()
    assert changed.dynamic_fee is None
    assert changed.fee_pips == pool.fee_pips + 2_000
    received = stall.send(stall.program(market.pool.leg(sold, amount, least)))["USDC"]
    assert received == changed.quote(sold, amount) >= least
