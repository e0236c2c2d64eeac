"""The fee of Slipstream's pools as their module's own contract takes it: after jumps, for the wallet, of each swap of a transaction, and
when it changes between the snapshot and the block.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from agent.amm.v3.slipstream import SlipstreamPool
from agent.chain.receipts import CUSTOM_ERRORS
from agent.codec import dumps, loads
from agent.signing.calldata import selector
from agent.venues.kinds.slipstream import INCLUSION_DELAY_S
from tests.support.markets.slipstream_fees import BASE_PIPS, WINDOW_S, DynamicFeeMarket, replace_module
from tests.support.rebalancer import RebalancerAttack
from tests.support.venues import Venues

ANSWERS_ITSELF_TWICE = "0x" + "30600052" + "30602052" + "60406000f3"
"""Code of a voter that is also the registry of factories, and the factory of gauges that the registry names."""


def fees_equal(venues: Venues, seed: int, jumps: int, delays: int, dollar: str = "USDC") -> SlipstreamPool:
    """Compare the fee as read with that of the contract up to 300 seconds later, after random jumps; return the last pool read."""
    market = DynamicFeeMarket(venues, dollar)
    random = Random(seed)
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


def two_legs(stall: RebalancerAttack, market: DynamicFeeMarket, pool: SlipstreamPool) -> tuple[Any, int]:
    """Return a program of two sales of WETH in the pool, with what they pay as their least, and the sum of that."""
    sold = stall.at("WETH")
    first = 8 * 10**18
    swapped = pool.swap(sold, first)
    second = swapped.pool_after.swap(sold, first)
    legs = [market.pool.leg(sold, first, result.amount_out_raw) for result in (swapped, second)]
    return stall.program(*legs), swapped.amount_out_raw + second.amount_out_raw


def test_each_swap_of_a_transaction_pays_the_fee_of_its_own_tick(venues: Venues) -> None:
    market = DynamicFeeMarket(venues)
    stall = RebalancerAttack(venues)
    stall.chain.set_balance("WETH", 100 * 10**18)
    market.jump(40)
    (pool,) = market.read(caller=stall.victim)
    assert pool.fee_pips < pool.swap(stall.at("WETH"), 8 * 10**18).pool_after.fee_pips
    assert loads(SlipstreamPool, dumps(pool)) == pool
    program, paid = two_legs(stall, market, pool)
    stall.chain.node.rpc("evm_setNextBlockTimestamp", stall.chain.node.now_s() + INCLUSION_DELAY_S)
    assert stall.send(program) == {"WETH": -16 * 10**18, "USDC": paid}


def test_a_discount_is_that_of_the_wallet_alone(venues: Venues) -> None:
    market = DynamicFeeMarket(venues)
    stall = RebalancerAttack(venues)
    stall.chain.set_balance("WETH", 100 * 10**18)
    market.manage(market.module.registerDiscounted(stall.victim, 300_000))
    (own,) = market.read(caller=stall.victim)
    (others,) = market.read((0,))
    assert own.fee_pips == others.fee_pips - -(-others.fee_pips * 3 // 10)
    sold = stall.at("WETH")
    leg = market.pool.leg(sold, 10**15, own.quote(sold, 10**15))
    assert stall.would(stall.program(leg), sender=stall.victim) == ""


CHANGES = {
    "base fee": lambda market: market.manage(market.module.setCustomFee(market.pool.address, 20_000)),
    "module": lambda market: replace_module(market, 30_000),
    "cap": lambda market: (market.manage(market.module.setDefaultScalingFactor(10**18)), market.jump(1, "USDC")),
}
"""What raises the fee by far more than the slippage, while the price stays about as it was."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_fee_that_rises_beyond_the_minimum_reverts_by_name(venues: Venues, change: str) -> None:
    market = DynamicFeeMarket(venues)
    stall = RebalancerAttack(venues)
    market.wait(2 * WINDOW_S)
    (pool,) = market.read(caller=stall.victim)
    sold = stall.at("WETH")
    amount = 10**18
    least = pool.quote(sold, amount) * 995 // 1000
    program = stall.program(market.pool.leg(sold, amount, least))
    assert stall.would(program) == ""
    CHANGES[change](market)
    assert market.fee_at(1) >= 20_000
    assert stall.would(program) == "TooLittleOut(1)"
    assert "its fee rose" in CUSTOM_ERRORS[selector("TooLittleOut(uint256)")][1]


def test_another_module_or_gauge_within_the_minimum_pays_it(venues: Venues) -> None:
    market = DynamicFeeMarket(venues)
    stall = RebalancerAttack(venues)
    stall.chain.set_balance("WETH", 100 * 10**18)
    (pool,) = market.read(caller=stall.victim)
    sold = stall.at("WETH")
    amount = 10**18
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
