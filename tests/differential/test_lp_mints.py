"""Mints, increases, withdrawals and collects of any size and range, foretold and done, to the wei."""

from __future__ import annotations

from random import Random

import pytest

from agent.amm.lp import minting as mint
from agent.amm.lp import position_changes, positions
from agent.localchain import LocalChain
from agent.model import Collect, LpV2Position, LpV3Position, Provide, Withdraw
from tests.support import lp_on_chain
from tests.support.lp_worlds import NO_FEES
from tests.support.on_chain.lp_actions import trade_both_ways

V2 = "v2 WETH/USDC"
V3 = "v3 WETH/USDC 3000"
FINE = "v3 WBTC/WETH 3000"


def fund(chain: LocalChain, pool: str) -> None:
    """The wallet has plenty of both tokens."""
    info = chain.deployed_world.pool_by_name[pool]
    for token in (info.token0, info.token1):
        raw = int(3_000_000 / chain.deployed_world.prices_usd[token.symbol] * 10**token.decimals)
        chain.send(chain.token_contract(token.symbol).functions.transfer(chain.wallet.address, raw))


def ranged(chain: LocalChain, pool: str, token_id: int) -> LpV3Position:
    lp_position = lp_on_chain.read(
        chain, lp_on_chain.confirmed_position(chain.deployed_world.pool_by_name[pool], chain.addresses.position_manager, token_id, (1, 1))
    )
    assert isinstance(lp_position, LpV3Position)
    return lp_position


def put(chain: LocalChain, pool: str, ticks: tuple[int, int], desired: tuple[int, int], token_id: int | None) -> Provide:
    """What providing this would do, by our arithmetic; floors at what it says, so that a wei less would revert."""
    from tests.support.worlds import pool_contract

    info = chain.deployed_world.pool_by_name[pool]
    sqrt_price_x96 = int(pool_contract(chain, info).functions.slot0().call()[0])
    liquidity, amounts = mint.provided_liquidity(None, sqrt_price_x96, mint.sqrt_price_range(ticks), desired)
    at = chain.addresses.position_manager
    tokens = info.token0.address, info.token1.address
    return Provide("uniswap_v3", at, token_id, info.address, *tokens, info.fee_pips, ticks, liquidity, desired, amounts, amounts, 0, "")


@pytest.mark.parametrize(
    ("pool", "seed"), [(V3, 1), (FINE, 2), pytest.param(V3, 2, marks=pytest.mark.slow), pytest.param(FINE, 1, marks=pytest.mark.slow)]
)
def test_any_range_and_amount_is_foretold_to_the_wei(chain: LocalChain, pool: str, seed: int) -> None:
    random = Random(seed)
    fund(chain, pool)
    info = chain.deployed_world.pool_by_name[pool]
    near = lp_on_chain.tick(chain, pool) // 60
    most = [int(400_000 / chain.deployed_world.prices_usd[token.symbol] * 10**token.decimals) for token in (info.token0, info.token1)]
    for _ in range(5):
        lower = near + random.choice((-1, 0, 1, -random.randrange(1, 400), random.randrange(1, 50)))
        ticks = (lower * 60, (lower + random.choice((1, 2, random.randrange(1, 800)))) * 60)
        first = tuple(random.randrange(1, raw) // random.choice((1, 1_000, 10**5)) + 1 for raw in most)
        minting = put(chain, pool, ticks, (first[0], first[1]), None)
        if minting.liquidity == 0:
            continue
        done = lp_on_chain.act(chain, minting)
        assert (done.moved, done.liquidity) == (lp_on_chain.expected_receipt(minting), minting.liquidity)
        assert done.token_id is not None
        trade_both_ways(chain, pool, seed, 500_000)
        before = ranged(chain, pool, done.token_id)
        more = put(chain, pool, ticks, (random.randrange(1, most[0]), random.randrange(1, most[1])), done.token_id)
        assert lp_on_chain.act(chain, more).liquidity == more.liquidity
        grown = ranged(chain, pool, done.token_id)
        assert positions.uncollected_fees(grown) == positions.uncollected_fees(
            position_changes.after_provision(before, more.liquidity, more.amounts_raw)
        )
        part = random.randrange(1, grown.liquidity + 1)
        out = taking(grown, part)
        assert lp_on_chain.act(chain, out).moved == lp_on_chain.expected_receipt(out)
        position_left = ranged(chain, pool, done.token_id)
        assert position_left.liquidity == grown.liquidity - part
        assert positions.uncollected_fees(position_left) == (0, 0)
        trade_both_ways(chain, pool, seed + 1, 500_000)
        rest = ranged(chain, pool, done.token_id)
        if max(positions.uncollected_fees(rest)) > 0:
            fees = Collect(
                "uniswap_v3", rest.manager, rest.token_id, rest.pool, rest.token0, rest.token1, positions.uncollected_fees(rest), 0, ""
            )
            assert lp_on_chain.act(chain, fees).moved == positions.uncollected_fees(rest)


def taking(position: LpV3Position | LpV2Position, liquidity: int) -> Withdraw:
    """The withdrawal of this much, with floors at what it says."""
    pair = isinstance(position, LpV2Position)
    contract, pool = (position.pair, position.pair) if isinstance(position, LpV2Position) else (position.manager, position.pool)
    paid = positions.principal(position, liquidity)
    token_id = None if isinstance(position, LpV2Position) else position.token_id
    fees = NO_FEES if pair else positions.uncollected_fees(position)
    tokens = position.token0, position.token1
    return Withdraw(position.venue, contract, token_id, pool, *tokens, liquidity, paid, paid, fees, 0, "", position.liquidity)


@pytest.mark.parametrize("fee", [False, True])
def test_any_amount_of_a_pair_is_foretold_to_the_wei(chain: LocalChain, fee: bool) -> None:
    random = Random(7)
    fund(chain, V2)
    if fee:
        lp_on_chain.set_fee_to(chain, chain.accounts[5].address)
    own = lp_on_chain.provide_v2(chain, V2, 50)
    for seed in range(6):
        trade_both_ways(chain, V2, seed, 60_000)
        pair = lp_on_chain.read(chain, own)
        assert isinstance(pair, LpV2Position)
        desired = (random.randrange(10**4, pair.reserves[0] // 50), random.randrange(10**4, pair.reserves[1] // 50))
        liquidity, amounts = mint.provided_liquidity(pair, 0, None, desired)
        tokens = pair.token0, pair.token1
        more = Provide("uniswap_v2", pair.pair, None, pair.pair, *tokens, 3_000, None, liquidity, desired, amounts, amounts, 0, "")
        done = lp_on_chain.act(chain, more)
        assert (done.moved, done.liquidity) == (lp_on_chain.expected_receipt(more), liquidity)
        grown = lp_on_chain.read(chain, own)
        assert grown == position_changes.after_provision(pair, liquidity, amounts)
        assert isinstance(grown, LpV2Position)
        trade_both_ways(chain, V2, seed + 9, 60_000)
        now = lp_on_chain.read(chain, own)
        assert isinstance(now, LpV2Position)
        out = taking(now, random.randrange(10**9, now.liquidity))
        assert lp_on_chain.act(chain, out).moved == lp_on_chain.expected_receipt(out)
        assert lp_on_chain.read(chain, own) == position_changes.after_withdrawal(now, out.liquidity)
