"""Requests and time of one snapshot on a local anvil, compared with the same reads by plain web3,
one call at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from web3 import HTTPProvider, Web3

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.artifacts import npm_artifact, own_artifact
from agent.chain.pools.reading import PoolRef
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.snapshot import ChainReader
from agent.chain.tokens import read_tokens
from agent.chain.watch import MIN_WINDOW_BPS, SnapshotScope, window_ticks
from agent.localchain import LocalChain, open_anvil
from agent.model import Snapshot, SwapStyle
from agent.venues.discovery import discover_pools
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3

V3_POOL = npm_artifact(
    "@uniswap/v3-core/artifacts/contracts/UniswapV3Pool.sol/UniswapV3Pool.json"
).abi
V2_PAIR = npm_artifact("@uniswap/v2-core/build/UniswapV2Pair.json").abi


class CountingProvider(HTTPProvider):
    """web3's own provider, which counts HTTP requests."""

    requests = 0

    def make_request(self, method: Any, params: Any) -> Any:
        """Count and send one HTTP request."""
        self.requests += 1
        return super().make_request(method, params)


def full_scope(chain: LocalChain, endpoint: EndpointProvider) -> SnapshotScope:
    addresses = chain.addresses
    tokens = read_tokens(endpoint, [token.address for token in chain.tokens.values()])
    venues = (
        UniswapV2(V2Pool.kind, addresses.v2_factory),
        UniswapV3(V3Pool.kind, addresses.v3_factory, fee_tiers=(100, 500, 3000, 10_000)),
    )
    pools = discover_pools(endpoint, venues, tokens, ())
    return SnapshotScope(
        chain.wallet.address,
        tokens,
        (addresses.swap_router_02,),
        pools,
        tuple(chain.feed_addresses.values()),
        (addresses.swap_router_02,),
        1_800,
        100,
    )


def read_one_by_one(w3: Web3, scope: SnapshotScope) -> dict[str, Any]:
    """Read the content of a snapshot as most scripts do, one call at a time."""
    eth = w3.eth
    token_abi = own_artifact("TestToken").abi
    readings: dict[str, Any] = {"head": eth.get_block("latest")["number"], "chain_id": eth.chain_id}
    readings["nonces"] = [
        eth.get_transaction_count(scope.owner, block) for block in ("latest", "pending")
    ]
    readings["fees"] = [eth.max_priority_fee, eth.gas_price]
    readings["native"] = eth.get_balance(scope.owner)
    for token in scope.tokens:
        erc20 = eth.contract(address=token.address, abi=token_abi).functions
        readings[token.address] = erc20.balanceOf(scope.owner).call()
        erc20.decimals().call()
        for spender in scope.spenders:
            erc20.allowance(scope.owner, spender).call()
    for pool in scope.pools:
        readings[pool.address] = read_pool_one_by_one(w3, scope, pool)
    for feed in scope.feeds:
        feed_functions = eth.contract(address=feed, abi=own_artifact("PriceFeed").abi).functions
        feed_functions.latestRoundData().call()
        feed_functions.decimals().call()
    for address in scope.code_addresses:
        eth.get_code(address)
    return readings


def read_pool_one_by_one(w3: Web3, scope: SnapshotScope, pool: PoolRef) -> Any:
    if pool.style is SwapStyle.V2:
        return w3.eth.contract(address=pool.address, abi=V2_PAIR).functions.getReserves().call()[:2]
    functions = w3.eth.contract(address=pool.address, abi=V3_POOL).functions
    tick = functions.slot0().call()[1]
    functions.liquidity().call()
    functions.observe([scope.twap_window_s, 0]).call()
    window = window_ticks(max(scope.impact_bps, MIN_WINDOW_BPS))
    ticks = []
    for word in range(
        (tick - window) // pool.tick_spacing >> 8, ((tick + window) // pool.tick_spacing >> 8) + 1
    ):
        bitmap = functions.tickBitmap(word).call()
        indexes = [
            ((word << 8) + bit) * pool.tick_spacing for bit in range(256) if bitmap >> bit & 1
        ]
        ticks += [
            [index, functions.ticks(index).call()[1]]
            for index in indexes
            if tick - window <= index <= tick + window
        ]
    return ticks


def require_equal_readings(snapshot: Snapshot, peer_readings: dict[str, Any]) -> None:
    """Raise unless both ways have read the same data."""
    pools = {
        pool.address: (
            [[tick.index, tick.liquidity_net] for tick in pool.ticks]
            if isinstance(pool, V3Pool)
            else [pool.reserve0, pool.reserve1]
        )
        for pool in snapshot.pools
    }
    our_readings = {
        "native": snapshot.native_wei,
        **{holding.token: holding.raw for holding in snapshot.holdings},
        **pools,
    }
    different_names = [
        name for name, our_value in our_readings.items() if peer_readings[name] != our_value
    ]
    if different_names:
        raise RuntimeError(f"the two ways read different things: {different_names}")


def median_ms(action: Callable[[], object], rounds: int) -> float:
    times_ms = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        action()
        times_ms.append(1_000 * (time.perf_counter() - began_s))
    return round(statistics.median(times_ms), 3)


def measure(rounds: int) -> dict[str, Any]:
    with open_anvil() as chain:
        endpoint = EndpointProvider(chain.url or "", "local")
        scope = full_scope(chain, endpoint)
        reader = ChainReader([endpoint], chain.chain_id, scope, chain.clock, 1)
        snapshot = reader.snapshot()
        provider = CountingProvider(chain.url)
        w3 = Web3(provider)
        require_equal_readings(snapshot, read_one_by_one(w3, scope))
        peer_requests = provider.requests
        our_figures = {
            "requests": snapshot.http_request_count,
            "median_ms": median_ms(reader.snapshot, rounds),
        }
        peer_figures = {
            "requests": peer_requests,
            "median_ms": median_ms(lambda: read_one_by_one(w3, scope), max(1, rounds // 10)),
        }
        scope_counts = {
            "tokens": len(scope.tokens),
            "pools": len(scope.pools),
            "feeds": len(scope.feeds),
        }
    return {
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "rounds": rounds,
        },
        "ours": {"snapshot": {**our_figures, **scope_counts}},
        "peers": {"web3, one call at a time": peer_figures},
        "ratios": {
            "requests": round(peer_figures["requests"] / our_figures["requests"], 1),
            "time": round(peer_figures["median_ms"] / our_figures["median_ms"], 1),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="accepted as by other benchmarks; web3 is always installed and always measured",
    )
    parser.add_argument(
        "--rounds", type=int, default=30, help="number of snapshots, of which the median counts"
    )
    options = parser.parse_args()
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
        return 0
    our_figures = figures["ours"]["snapshot"]
    peer_figures = figures["peers"]["web3, one call at a time"]
    print(
        f"one snapshot of {our_figures['tokens']} tokens, {our_figures['pools']} pools and {our_figures['feeds']} feeds"
        f" (median of {options.rounds})"
    )
    print(
        f"  trimtab                  {our_figures['requests']:5d} requests {our_figures['median_ms']:9.1f} ms"
    )
    print(
        f"  web3, one call at a time {peer_figures['requests']:5d} requests {peer_figures['median_ms']:9.1f} ms"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
