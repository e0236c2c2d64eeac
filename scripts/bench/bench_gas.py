"""Gas of one rebalance of four swaps: by trimtab's Rebalancer, by one SwapRouter02 multicall, and by
one transaction per swap. Also gas of three exits in one transaction, against one transaction each as
the agent sends them (docs/decisions/0011-one-transaction-per-exit.md).

Approvals are not counted, since all three ways need the same ones. The pools have traded before, like
any pool in use: the first swap in a new pair pays for storage that later swaps reuse. The chain counts
gas exactly, so one run is enough.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eth_abi.abi import encode as abi_encode

from agent.amm.v3.pool import V3Pool
from agent.artifacts import npm_artifact
from agent.chain.tokens import encode_approve
from agent.config.load import parse_config
from agent.localchain import LocalChain, open_anvil
from agent.model import Goal, Leg, LegPlace, Plan, PlanCost, Rebalance
from agent.signing.calldata import EXACT_INPUT_SINGLE, SWAP_EXACT_TOKENS
from agent.venues import calldata
from agent.wiring.context import pool_makers

W = LegPlace.WALLET
R = LegPlace.ROUTER
QUOTER = "@uniswap/v3-periphery/artifacts/contracts/lens/QuoterV2.sol/QuoterV2.json"
ROUTER = "@uniswap/v2-periphery/build/UniswapV2Router02.json"
SWAPS: dict[str, list[tuple[str, str, Fraction, LegPlace, LegPlace]]] = {
    "four V3 pools": [
        ("v3 WETH/USDC 500", "WETH", Fraction(1, 10), W, W),
        ("v3 WETH/USDT 500", "WETH", Fraction(1, 10), W, W),
        ("v3 WBTC/USDC 3000", "USDC", Fraction(100), W, W),
        ("v3 LINK/WETH 3000", "LINK", Fraction(1), W, W),
    ],
    "four V2 pairs": [
        ("v2 WETH/USDC", "WETH", Fraction(1, 10), W, W),
        ("v2 WBTC/WETH", "WBTC", Fraction(1, 100), W, W),
        ("v2 WETH/USDT", "USDT", Fraction(100), W, W),
        ("v2 LINK/WETH", "LINK", Fraction(1), W, W),
    ],
    "two of each": [
        ("v3 WETH/USDC 500", "WETH", Fraction(1, 10), W, W),
        ("v2 WETH/USDC", "WETH", Fraction(1, 10), W, W),
        ("v3 LINK/WETH 3000", "LINK", Fraction(1), W, W),
        ("v2 WETH/USDT", "USDT", Fraction(100), W, W),
    ],
    "one token sold": [
        ("v3 WETH/USDC 500", "WETH", Fraction(1, 10), W, W),
        ("v3 WETH/USDC 3000", "WETH", Fraction(1, 10), W, W),
        ("v3 WBTC/WETH 3000", "WETH", Fraction(1, 10), W, W),
        ("v2 LINK/WETH", "WETH", Fraction(1, 10), W, W),
    ],
    "a hub of two V3 pools": [
        ("v3 WETH/USDC 500", "WETH", Fraction(1, 10), W, W),
        ("v2 WETH/USDC", "WETH", Fraction(1, 10), W, W),
        ("v3 USDC/USDT 100", "USDT", Fraction(400), W, R),
        ("v3 LINK/USDC 10000", "USDC", Fraction(0), R, W),
    ],
    "a hub of two V2 pairs": [
        ("v3 WETH/USDC 500", "WETH", Fraction(1, 10), W, W),
        ("v2 WETH/USDC", "WETH", Fraction(1, 10), W, W),
        ("v2 WETH/USDT", "USDT", Fraction(400), W, R),
        ("v2 LINK/WETH", "WETH", Fraction(0), R, W),
    ],
}
"""Pool, token sold, whole coins (0: the output of the previous swap), source and sink."""
EXITS = [
    ("v3 WETH/USDC 500", "WETH", Fraction(1), W, W),
    ("v3 WBTC/USDC 3000", "WBTC", Fraction(1, 25), W, W),
    ("v3 LINK/USDC 10000", "LINK", Fraction(60), W, W),
]
"""Three tokens sold for the numeraire."""
IDLE_S = 12
"""Seconds since the last trade in each pool. A V2 pair updates two price sums at the first trade of
each second, which costs 10,416 gas more than the next trade."""


def quoted_output(chain: LocalChain, pool: str, token_in: str, amount_in_raw: int) -> int:
    """Return the output that the deployed contracts quote, in base units."""
    pool_info = chain.deployed_world.pool_by_name[pool]
    address_in = chain.tokens[token_in].address
    address_out = (
        pool_info.token1.address
        if pool_info.token0.address == address_in
        else pool_info.token0.address
    )
    if pool_info.version == 2:
        return int(
            chain.contract(chain.addresses.v2_router, npm_artifact(ROUTER))
            .functions.getAmountsOut(amount_in_raw, [address_in, address_out])
            .call()[-1]
        )
    quoter = chain.contract(chain.addresses.quoter_v2, npm_artifact(QUOTER))
    return int(
        quoter.functions.quoteExactInputSingle(
            (address_in, address_out, amount_in_raw, pool_info.fee_pips, 0)
        ).call()[0]
    )


def make_legs(
    chain: LocalChain, swaps: list[tuple[str, str, Fraction, LegPlace, LegPlace]]
) -> Iterator[Leg]:
    """Yield the legs of one rebalance. No two use the same pool, so that each quote holds."""
    output_raw = 0
    for pool, token_in, coins, source, sink in swaps:
        pool_info = chain.deployed_world.pool_by_name[pool]
        token = chain.tokens[token_in]
        amount_in_raw = int(coins * 10**token.decimals) if coins else output_raw
        output_raw = quoted_output(chain, pool, token_in, amount_in_raw)
        address_out = (
            pool_info.token1.address
            if pool_info.token0.address == token.address
            else pool_info.token0.address
        )
        yield Leg(
            pool_info.address,
            f"uniswap_v{pool_info.version}",
            token.address,
            address_out,
            pool_info.fee_pips,
            amount_in_raw,
            output_raw,
            output_raw * 99 // 100,
            0,
            0,
            source,
            sink,
        )


def make_plan(legs: tuple[Leg, ...]) -> Plan:
    """Return a plan with these legs; its other figures do not affect gas."""
    zero = Fraction(0)
    goal = Rebalance("benchmark", Goal(()))
    return Plan(
        0, goal, legs, (), (), PlanCost(zero, zero, zero, zero), zero, zero, 0, None, (), (), 0
    )


def encode_single_swap(leg: Leg, wallet: str) -> str:
    """Return the calldata of one swap in its own transaction to SwapRouter02."""
    if leg.venue == V3Pool.kind:
        swap_parameters = (
            leg.token_in,
            leg.token_out,
            leg.fee_pips,
            wallet,
            leg.amount_in_raw,
            leg.min_out_raw,
            0,
        )
        return (
            "0x"
            + (
                EXACT_INPUT_SINGLE
                + abi_encode(
                    ["(address,address,uint24,address,uint256,uint256,uint160)"], [swap_parameters]
                )
            ).hex()
        )
    swap_arguments = [leg.amount_in_raw, leg.min_out_raw, [leg.token_in, leg.token_out], wallet]
    return (
        "0x"
        + (
            SWAP_EXACT_TOKENS
            + abi_encode(["uint256", "uint256", "address[]", "address"], swap_arguments)
        ).hex()
    )


def send(chain: LocalChain, to: str, data: str) -> int:
    """Send a transaction of the wallet, and return the gas used."""
    fee_fields = {"gas": 3_000_000, "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9}
    tx_hash = chain.w3.eth.send_transaction(
        {"from": chain.wallet.address, "to": to, "data": data, **fee_fields}
    )
    receipt = chain.w3.eth.wait_for_transaction_receipt(tx_hash, poll_latency=0.005)
    if receipt["status"] != 1:
        raise RuntimeError(f"a transaction to {to} reverted")
    return int(receipt["gasUsed"])


def measure_rebalance(chain: LocalChain, name: str) -> dict[str, int]:
    """Return the gas of the three ways, each from the same state."""
    legs = tuple(make_legs(chain, SWAPS[name]))
    wallet = chain.wallet.address
    addresses = chain.addresses
    deadline_s = chain.now_s() + 3_600
    prices_usd = chain.deployed_world.prices_usd
    feed_prices = {
        token.address: prices_usd[symbol] * 10**6 / 10**token.decimals
        for symbol, token in chain.tokens.items()
    }
    plan = make_plan(legs)
    makers = pool_makers(parse_config(chain.config_text()))
    calls_by_way = {
        "rebalancer": (
            addresses.rebalancer,
            [
                calldata.encode_rebalance(
                    plan, deadline_s, calldata.RebalancerTerms(feed_prices, -(10**9)), makers, {}
                )
            ],
        ),
        "multicall": (
            addresses.swap_router_02,
            [calldata.encode_multicall(plan, wallet, deadline_s)],
        ),
        "transactions": (
            addresses.swap_router_02,
            [encode_single_swap(replace(leg, source=W, sink=W), wallet) for leg in legs],
        ),
    }
    gas: dict[str, int] = {}
    final_balances = set()
    for way, (spender, calls) in calls_by_way.items():
        snapshot = chain.snapshot()
        spent_raw: dict[str, int] = {}
        for leg in legs:
            if leg.source is W or way == "transactions":
                spent_raw[leg.token_in] = spent_raw.get(leg.token_in, 0) + leg.amount_in_raw
        for token, raw in spent_raw.items():
            send(chain, token, encode_approve(spender, raw))
        gas[way] = sum(send(chain, spender, data) for data in calls)
        final_balances.add(tuple(chain.balance(symbol) for symbol in chain.tokens))
        chain.revert(snapshot)
    if len(final_balances) != 1:
        raise RuntimeError(f"{name}: the ways lead to different balances")
    return gas


def measure_exits(chain: LocalChain) -> dict[str, dict[str, int]]:
    """Return the gas of EXITS in one transaction and in one each, by either router, from the same
    state. Approvals are the same.
    """
    legs = tuple(make_legs(chain, EXITS))
    deadline_s = chain.now_s() + 3_600
    gas = {}
    makers = pool_makers(parse_config(chain.config_text()))
    prices_usd = chain.deployed_world.prices_usd
    feed_prices = {
        token.address: prices_usd[symbol] * 10**6 / 10**token.decimals
        for symbol, token in chain.tokens.items()
    }
    for router, spender in (
        ("rebalancer", chain.addresses.rebalancer),
        ("multicall", chain.addresses.swap_router_02),
    ):
        for way, legs_by_plan in (("together", [legs]), ("one each", [(leg,) for leg in legs])):
            snapshot = chain.snapshot()
            for leg in legs:
                send(chain, leg.token_in, encode_approve(spender, leg.amount_in_raw))
            calls = [
                (
                    calldata.encode_rebalance(
                        make_plan(plan_legs),
                        deadline_s,
                        calldata.RebalancerTerms(feed_prices, -(10**9)),
                        makers,
                        {},
                    )
                    if router == "rebalancer"
                    else calldata.encode_multicall(
                        make_plan(plan_legs), chain.wallet.address, deadline_s
                    )
                )
                for plan_legs in legs_by_plan
            ]
            gas.setdefault(router, {})[way] = sum(send(chain, spender, data) for data in calls)
            chain.revert(snapshot)
    return gas


def measure() -> dict[str, Any]:
    """Measure all rebalances of SWAPS on a local chain whose pools have traded in both directions."""
    with open_anvil() as chain:
        for pool in chain.deployed_world.pool_by_name.values():
            for token in (pool.token0, pool.token1):
                chain.swap(pool.name, token.symbol, 10**token.decimals // 100)
        chain.node.mine_at(chain.now_s() + IDLE_S)
        gas_by_name = {name: measure_rebalance(chain, name) for name in SWAPS}
        exits = measure_exits(chain)
    return {
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
        },
        "exits": exits,
        "ours": {name: gas["rebalancer"] for name, gas in gas_by_name.items()},
        "peers": {
            "SwapRouter02 multicall": {name: gas["multicall"] for name, gas in gas_by_name.items()},
            "one transaction per swap": {
                name: gas["transactions"] for name, gas in gas_by_name.items()
            },
        },
        "ratios": {
            "to multicall": {
                name: round(gas["rebalancer"] / gas["multicall"], 3)
                for name, gas in gas_by_name.items()
            },
            "to one transaction per swap": {
                name: round(gas["rebalancer"] / gas["transactions"], 3)
                for name, gas in gas_by_name.items()
            },
            "multicall to one transaction per swap": {
                name: round(gas["multicall"] / gas["transactions"], 3)
                for name, gas in gas_by_name.items()
            },
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="accepted as by other benchmarks; the peers are contracts and always measured",
    )
    options = parser.parse_args()
    figures = measure()
    if options.json:
        print(json.dumps(figures))
        return 0
    print(
        f"{'gas of four swaps':24} {'rebalancer':>10} {'multicall':>10} {'one by one':>10}  to"
        " multicall  to one by one"
    )
    multicall, single_swaps = figures["peers"].values()
    for name, gas in figures["ours"].items():
        print(
            f"{name:24} {gas:10} {multicall[name]:10} {single_swaps[name]:10}"
            f" {gas / multicall[name]:13.3f} {gas / single_swaps[name]:14.3f}"
        )
    for router, gas in figures["exits"].items():
        print(
            f"three exits by {router}: {gas['together']} together, {gas['one each']} one each"
            f" ({gas['one each'] / gas['together']:.3f})"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
