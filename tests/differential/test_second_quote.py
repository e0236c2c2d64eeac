"""Second quotes of the real routers and quoters, by eth_call and by uniswap-python, equal our exact quotes on both chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm import pools
from agent.chain.second_quote import (
    CONTRACT_QUOTER_NAME,
    ContractQuoter,
    Quoter,
    UnanimousQuoter,
    UniswapPythonQuoter,
    build_quoter,
    second_quotes,
)
from agent.localchain import LocalChain
from agent.model import Goal, Leg, LegPlace, Plan, PlanCost, Pool, Rebalance
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from tests.support.text import mentions
from tests.support.worlds import read_pool

SIZES = (Fraction(1, 10**6), Fraction(1, 1_000), Fraction(1, 50))
"""Inputs as parts of what the pool pays out of within two percent."""


def venues(chain: LocalChain) -> tuple[UniswapV2, UniswapV3]:
    at = chain.addresses
    v3 = UniswapV3("uniswap_v3", at.v3_factory, quoter=at.quoter_v2, quoter_v1=at.quoter_v1)
    return UniswapV2("uniswap_v2", at.v2_factory, at.v2_router), v3


def both(chain: LocalChain) -> UnanimousQuoter:
    unanimous_quoter = build_quoter(chain.transport, venues(chain))
    assert [name for name, _ in unanimous_quoter.quoters] == [CONTRACT_QUOTER_NAME, "uniswap-python"]
    return unanimous_quoter


Ask = Callable[[LocalChain], Quoter]
QUOTERS: list[Ask] = [
    lambda chain: ContractQuoter(chain.transport, venues(chain)),
    lambda chain: UniswapPythonQuoter(chain.transport, venues(chain)),
]
"""Each alone: for what they say when they refuse."""


def leg(before: Pool, token_in: str, amount_in_raw: int) -> tuple[Leg, Pool]:
    done = before.swap(token_in, amount_in_raw)
    out = pools.token_out(before, token_in)
    leg = Leg(
        before.address,
        before.venue,
        token_in,
        out,
        before.fee_pips,
        amount_in_raw,
        done.amount_out_raw,
        done.amount_out_raw,
        done.fee_raw,
        0,
        LegPlace.WALLET,
        LegPlace.WALLET,
    )
    return leg, done.pool_after


def plan(*legs: Leg) -> Plan:
    zero = Fraction(0)
    return Plan(0, Rebalance("test", Goal(())), legs, (), (), PlanCost(zero, zero, zero, zero), zero, zero, 0, None, (), (), 0)


def amount(state: Pool, token_in: str, part: Fraction) -> int:
    return max(10**4, int(state.depth(token_in) * part))


def head_hash(chain: LocalChain) -> str:
    return "0x" + bytes(chain.w3.eth.get_block("latest")["hash"]).hex()


def test_contracts_and_library__agree_to_the_wei(anvil_chain: LocalChain) -> None:
    states = [read_pool(anvil_chain, name) for name in anvil_chain.address_by_pool]
    assert {type(state).__name__ for state in states} == {"V2Pool", "V3Pool"}
    ask = both(anvil_chain)
    block = head_hash(anvil_chain)
    compared = 0
    for state in states:
        for token_in in (state.token0, state.token1):
            for part in SIZES:
                ours, _ = leg(state, token_in, amount(state, token_in, part))
                assert second_quotes(plan(ours), block, ask)[0].amount_out_raw == ours.amount_out_raw
                compared += 1
    assert compared == 2 * len(SIZES) * len(states)


@pytest.mark.parametrize(("name", "fee_kept"), [("v3 WETH/USDC 500", Fraction(0)), ("v2 WETH/USDC", Fraction(3, 1_000))])
def test_a_second_leg_in_a_pool_is_quoted_on_top_of_the_first(tester_chain: LocalChain, name: str, fee_kept: Fraction) -> None:
    state = read_pool(tester_chain, name)
    first, after = leg(state, state.token0, amount(state, state.token0, Fraction(1, 50)))
    second, _ = leg(after, state.token0, amount(state, state.token0, Fraction(1, 100)))
    quotes = second_quotes(plan(first, second), head_hash(tester_chain), both(tester_chain))
    assert quotes[0].amount_out_raw == first.amount_out_raw
    assert quotes[1].amount_out_raw is not None
    # V2 keeps the first leg's fee among its reserves: fee times the part of the reserve that came in before.
    # Splitting rounds the input and its fee once more: some base units of either token.
    rounding = 3 + 3 * pools.marginal_price(state, state.token0)
    assert abs(quotes[1].amount_out_raw - second.amount_out_raw) <= second.amount_out_raw * fee_kept / 50 + rounding


def test_quote__is_of_the_snapshot_s_block_after_a_move(local_chain: LocalChain) -> None:
    state = read_pool(local_chain, "v3 WETH/USDC 3000")
    token_in = local_chain.tokens["USDC"].address
    ours, _ = leg(state, token_in, 10**9)
    block = head_hash(local_chain)
    local_chain.swap("v3 WETH/USDC 3000", "USDC", 10**11)
    ask = both(local_chain)
    assert second_quotes(plan(ours), block, ask)[0].amount_out_raw == ours.amount_out_raw
    now = second_quotes(plan(ours), head_hash(local_chain), ask)[0].amount_out_raw
    assert now is not None
    assert now < ours.amount_out_raw


@pytest.mark.parametrize("quoter", QUOTERS)
def test_pool_the_factory_does_not_name__has_no_second_quote(tester_chain: LocalChain, quoter: Ask) -> None:
    v3, v2 = (read_pool(tester_chain, name) for name in ("v3 WETH/USDC 500", "v2 WETH/USDC"))
    for state in (v3, v2):
        ours, _ = leg(state, state.token0, 10**9)
        bait = replace(ours, pool=tester_chain.addresses.weth)
        second_quote = second_quotes(plan(bait), head_hash(tester_chain), quoter(tester_chain))[0]
        assert second_quote.amount_out_raw is None
        assert "factory" in second_quote.error


@pytest.mark.parametrize("quoter", QUOTERS)
def test_refused_amount_or_unknown_block__is_a_named_error(tester_chain: LocalChain, quoter: Ask) -> None:
    state = read_pool(tester_chain, "v2 WETH/USDC")
    ours, _ = leg(state, state.token0, 10**9)
    ask = quoter(tester_chain)
    huge = second_quotes(plan(replace(ours, amount_in_raw=2**255)), head_hash(tester_chain), ask)[0]
    assert huge.amount_out_raw is None
    assert mentions(huge.error, "quoter refused")
    gone = second_quotes(plan(ours), "0x" + "12" * 32, ask)[0]
    assert gone.amount_out_raw is None
    assert mentions(gone.error, "quoter refused")
