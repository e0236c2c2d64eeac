"""Four swaps in Uniswap V4 by Rebalancer cost at most 0.60 of four transactions through the router of V4's own tests, PoolSwapTest,
which pays and checks even less than a router for users does; and at most 0.65 of four of its own calls.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi.abi import encode

from agent.artifacts import npm_artifact
from agent.chain.tokens import encode_approve
from agent.signing.calldata import selector
from tests.support.programs import Flow, ProgramLeg
from tests.support.rebalancer import RebalancerAttack
from tests.support.venues import HIGHEST, KEY, LOWEST, PARAMS, Venue, VenuePool, Venues

HERE = Flow.HERE
POOL_SWAP_TEST = "@uniswap/v4-core/out/PoolSwapTest.sol/PoolSwapTest.json"
SINCE_S = 12
SWAPS = {
    "four pools": [("WETH", "USDC"), ("LINK", "WETH"), ("USDC", "WBTC"), ("WBTC", "WETH")],
    "one token sold": [("WETH", "USDC"), ("WETH", "LINK"), ("WETH", "WBTC"), ("WETH", "USDT")],
    "a hub": [("WETH", "USDC"), ("WETH", "LINK"), ("WBTC", "USDC"), ("USDC", "LINK")],
}
"""Token sold and token bought of each swap. In a hub the last swap sells what the third bought."""


def gas(stall: RebalancerAttack, to: str, data: str) -> int:
    """Send a transaction of the wallet; return its gas."""
    eth = stall.chain.w3.eth
    sent = eth.send_transaction({"from": stall.victim, "to": to, "data": data, "gas": 3_000_000})
    receipt = eth.wait_for_transaction_receipt(sent, poll_latency=0.01)
    assert receipt["status"] == 1
    return int(receipt["gasUsed"])


def swap_alone(pool: VenuePool, leg: ProgramLeg) -> str:
    """Calldata of PoolSwapTest for a leg."""
    zero_for_one = leg.token_in == pool.token0
    params = (zero_for_one, -leg.amount_raw, LOWEST if zero_for_one else HIGHEST)
    words = encode([KEY, PARAMS, "(bool,bool)", "bytes"], [pool.key, params, (False, False), b""])
    return "0x" + (selector(f"swap({KEY},{PARAMS},(bool,bool),bytes)") + words).hex()


@pytest.mark.parametrize("name", SWAPS)
def test_four_swaps_in_one_unlocking_cost_less_than_one_by_one(venues: Venues, name: str) -> None:
    """Pools have traded before; allowances are exact and used up in each way."""
    stall = RebalancerAttack(venues)
    chain = venues.chain
    if "USDT" in str(SWAPS[name]):  # PoolSwapTest pays only with tokens that answer
        chain.add_token("DAI", 18, 1)
        venues.fund(["DAI"])
    swaps = [tuple("DAI" if symbol == "USDT" else symbol for symbol in pair) for pair in SWAPS[name]]
    pools = [stall.pool(Venue.V4, *pair) for pair in swaps]
    for pool in pools:
        for token in (pool.token0, pool.token1):
            venues.swap(pool, token, stall.raw(token, 10))
    for token in chain.tokens.values():
        chain.set_balance(token.symbol, stall.raw(token.address, 10_000))
        if token.symbol not in ("USDT", "DAI"):
            chain.send(chain.token_contract(token.symbol).functions.approve(stall.rebalancer, 0), stall.victim, gas=200_000)
    chain.node.mine_at(chain.now_s() + SINCE_S)
    singles = [stall.leg(pool, stall.at(sold)) for pool, (sold, _) in zip(pools, swaps, strict=True)]
    together = list(singles)
    if name == "a hub":
        together[2] = replace(singles[2], sink=HERE)
        singles[3] = stall.leg(pools[3], singles[3].token_in, singles[2].min_out_raw)
        together[3] = replace(singles[3], source=HERE, amount_raw=0)
    router = chain.contract(chain.deploy(npm_artifact(POOL_SWAP_TEST), venues.manager.address), npm_artifact(POOL_SWAP_TEST))
    ways = {
        "together": (stall.rebalancer, together, [stall.program(*together).calldata]),
        "own calls": (stall.rebalancer, singles, [stall.program(leg).calldata for leg in singles]),
        "PoolSwapTest": (router.address, singles, [swap_alone(pool, leg) for pool, leg in zip(pools, singles, strict=True)]),
    }
    used = {}
    balances = []
    for way, (spender, legs, calls) in ways.items():
        mark = chain.snapshot()
        for token in {leg.token_in for leg in legs}:
            raw = sum(leg.amount_raw for leg in legs if leg.token_in == token)
            if raw:
                gas(stall, token, encode_approve(spender, raw))
        used[way] = sum(gas(stall, spender, data) for data in calls)
        balances.append(chain.balances())
        assert all(chain.token_contract(stall.symbol(leg.token_in)).functions.allowance(stall.victim, spender).call() == 0 for leg in legs)
        chain.revert(mark)
    assert balances[0] == balances[1] == balances[2]
    print(name, used)
    assert used["together"] <= 0.60 * used["PoolSwapTest"]
    assert used["together"] <= 0.65 * used["own calls"]
