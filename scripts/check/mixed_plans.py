"""Random plans over pools of every kind, carried out by the Rebalancer on a local anvil with the real
contracts, 0 to 300 seconds after their snapshot.

Meanwhile nobody trades, or others trade in some of the pools, or fees of Slipstream change. Each plan
must pay each token's minimum, or revert for a reason that trimtab names; if nobody trades, it must
change balances as predicted, to the wei, in every pool whose fee does not follow the time. Exit code 1
if one does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.chain.receipts import revert_reason
from agent.chain.rpc import RpcFault
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.errors import Refused
from agent.localchain import LocalChain, open_anvil
from agent.model import Plan, StepInput
from agent.planning.planner import plan
from agent.venues.calldata import encode_rebalance, min_balance_changes
from agent.venues.discovery import discover_pools
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from agent.venues.kinds.venue import AmmVenue
from tests.differential.test_venue_kinds import add_pool, deployment
from tests.support.plans import any_step
from tests.support.slipstream import slipstream_artifacts
from tests.support.venues import Venue, VenuePool, Venues, deploy_venues
from tests.support.wallets import AtomicDesk

PAIRS = (("WETH", "USDC"), ("WBTC", "USDC"), ("WBTC", "WETH"), ("LINK", "WETH"), ("USDT", "USDC"))
TIERS = {
    Venue.PANCAKE: ((500, 10), (2_500, 50)),
    Venue.SLIPSTREAM: ((50, 50), (200, 200)),
    Venue.V4: ((500, 10), (3_000, 60)),
}
POOL_USD = (200_000, 1_000_000, 3_000_000)
"""Values of token0 in an added pool, over the whole range."""
RANGES = 4
"""Further positions around the price."""
SCALING = 10 * 10**6
CAP_PIPS = 20_000
WINDOW_S = 600
"""Slipstream's fee: ten pips a tick, at most 2 %, by the mean of ten minutes."""
LATEST_S = 300
DEADLINE_S = 400
NAMED = "deadline", "minimum", "short of liquidity", "floor", "change by less"
"""Words of the reasons for which a plan may revert."""
SWAP_GAS = 8_000_000


@dataclass(frozen=True)
class Market:
    """A chain with pools of every kind."""

    venues: Venues
    kinds: tuple[AmmVenue, ...]
    pools: tuple[VenuePool, ...]
    fee_module: Any

    @property
    def chain(self) -> LocalChain:
        """The chain."""
        return self.venues.chain

    @classmethod
    def open(cls, chain: LocalChain) -> Market:
        """Deploy what the chain lacks, and let a history of prices accrue in Slipstream's pools."""
        venues = deploy_venues(chain)
        random = Random(0)
        pools = tuple(
            add_pool(venues, venue, pair, random.choice(POOL_USD), random.choice(tiers))
            for venue, tiers in TIERS.items()
            for pair in PAIRS
        )
        for pool in pools:
            if pool.venue is Venue.V4:
                state = venues.state_view.functions
                pool_id = pool.pool_id
                tick = state.getSlot0(pool_id).call()[1]
                liquidity = state.getLiquidity(pool_id).call()
            else:
                core = venues.contract(pool.address, pool.venue).functions
                tick = core.slot0().call()[1]
                liquidity = core.liquidity().call()
            for _ in range(RANGES):
                middle = tick // pool.spacing + random.randrange(-20, 20)
                width = random.randrange(1, 20)
                ends = ((middle - width) * pool.spacing, (middle + width) * pool.spacing)
                venues.provide(pool, random.randrange(1, liquidity), ticks=ends)
        slipstream = deployment(venues, Venue.SLIPSTREAM)
        kinds = (
            UniswapV2("uniswap_v2", chain.addresses.v2_factory),
            UniswapV3(
                "uniswap_v3", chain.addresses.v3_factory, fee_tiers=(100, 500, 3_000, 10_000)
            ),
            deployment(venues, Venue.PANCAKE),
            deployment(venues, Venue.V4, tiers=TIERS[Venue.V4]),
            slipstream,
        )
        artifact = slipstream_artifacts()["DynamicSwapFeeModule"]
        module = chain.contract(
            chain.deploy(artifact, slipstream.factory, SCALING, CAP_PIPS, [], []), artifact
        )
        market = cls(venues, kinds, pools, module.functions)
        factory = venues.contract(slipstream.factory, Venue.SLIPSTREAM, factory=True).functions
        chain.send(factory.setSwapFeeModule(module.address), factory.swapFeeManager().call())
        dynamic_pools = [pool for pool in pools if pool.venue is Venue.SLIPSTREAM]
        for pool in dynamic_pools:
            core = venues.contract(pool.address, pool.venue).functions
            chain.send(core.increaseObservationCardinalityNext(400), gas=20_000_000)
        for _ in range(4):
            for pool in pools:
                market.trade(pool, random, 5_000)
            chain.node.mine_at(chain.now_s() + WINDOW_S // 3)
        return market

    def trade(self, pool: VenuePool, random: Random, most_usd: int) -> None:
        """Swap up to that many dollars in a pool as somebody else."""
        token = random.choice((pool.token0, pool.token1))
        symbol = next(s for s, listed in self.chain.tokens.items() if listed.address == token)
        unit = (
            10 ** self.chain.tokens[symbol].decimals / self.chain.deployed_world.prices_usd[symbol]
        )
        self.venues.swap(pool, token, int(random.uniform(0.01, 1) * most_usd * unit))

    def disturb(self, random: Random) -> str:
        """Let somebody trade, or change fees, or neither; return which."""
        kind = random.choice(("nobody trades", "nobody trades", "others trade", "fees change"))
        if kind == "others trade":
            for pool in random.sample(self.pools, random.randint(1, 4)):
                self.trade(pool, random, random.choice((1_000, 20_000, 100_000)))
        elif kind == "fees change":
            factory = self.venues.contract(
                self.venues.factories[Venue.SLIPSTREAM], Venue.SLIPSTREAM, factory=True
            ).functions
            dynamic_pools = [pool for pool in self.pools if pool.venue is Venue.SLIPSTREAM]
            for pool in random.sample(dynamic_pools, 3):
                fee_pips = random.choice((420, 100, 1_000, 5_000, 20_000, 30_000))
                change = self.fee_module.setCustomFee(pool.address, fee_pips)
                self.chain.send(change, factory.swapFeeManager().call())
        return kind

    def read(self, step: StepInput) -> StepInput:
        """Return the step with the pools as the agent reads them, to be traded by the Rebalancer."""
        tokens = tuple(asset.token for asset in step.portfolio.assets)
        scope = SnapshotScope(
            owner=self.chain.wallet.address,
            tokens=tokens,
            spenders=(),
            pools=discover_pools(self.chain.transport, self.kinds, tokens, step.portfolio.hubs),
            feeds=(),
            code_addresses=(),
            twap_window_s=0,
            impact_bps=1_000,
            caller=self.chain.wallet.address,
        )
        reader = ChainReader(
            [self.chain.transport], self.chain.chain_id, scope, self.chain.clock, 1
        )
        execution = replace(
            step.execution, router_kind="rebalancer", router=self.chain.addresses.rebalancer
        )
        pools = reader.snapshot().pools
        return replace(step, snapshot=replace(step.snapshot, pools=pools), execution=execution)


@dataclass(frozen=True)
class MixedOutcome:
    """Result of one plan. `revert` is the reason, empty if it was mined; `is_exact` compares the
    balances with the plan, `is_kept` each change with its minimum.
    """

    seed: int
    plan: Plan | None
    meanwhile: str = ""
    waited_s: int = 0
    revert: str = ""
    is_exact: bool = True
    is_kept: bool = True
    gas_used: int = 0

    @property
    def failure(self) -> str:
        """What must not be; empty if all is well."""
        if self.plan is None:
            return ""
        if self.revert:
            return "" if any(word in self.revert for word in NAMED) else "reverts without a name"
        if not self.is_kept:
            return "pays less than the minimum"
        follows_time = any(leg.venue == Venue.SLIPSTREAM for leg in self.plan.legs)
        if self.meanwhile == "nobody trades" and not (self.is_exact or follows_time):
            return "differs from the plan"
        is_as_read = self.meanwhile != "others trade"  # others may leave ticks to cross
        gas_units = self.plan.gas_units
        return "planned too little gas" if is_as_read and self.gas_used > gas_units else ""

    def __str__(self) -> str:
        if self.plan is None:
            return f"{self.seed:>4}  nothing to trade"
        by_venue = Counter(str(leg.venue) for leg in self.plan.legs)
        ended = self.revert or ("as planned" if self.is_exact else "above its minimums")
        gas = f"  gas {self.gas_used} of {self.plan.gas_units}" if self.gas_used else ""
        return (
            f"{self.seed:>4}  {dict(by_venue)}  {self.meanwhile}, {self.waited_s} s: {ended}{gas}"
            f"  {self.failure}"
        )


def carry_out(market: Market, seed: int) -> MixedOutcome:
    """Plan one random problem, and send it some time after its snapshot."""
    chain = market.chain
    random = Random(f"mixed plan {seed}")
    step, decision = any_step(chain, seed)
    for pool in random.sample(market.pools, 4):
        market.trade(pool, random, 10_000)
    chain.node.mine_at(chain.now_s() + random.choice((2, 30, 300)))
    try:
        step = market.read(step)
        found = plan(step, decision)
    except Refused:
        return MixedOutcome(seed, None)
    desk = AtomicDesk(chain)
    makers = {kind.name: kind.maker for kind in market.kinds}
    snapshot_s = chain.now_s()
    waited_s = random.randint(0, LATEST_S)
    meanwhile = market.disturb(random)
    least_changes = min_balance_changes(found.legs)
    for token, raw in least_changes.items():
        if raw < 0:
            symbol = step.portfolio.token(token).label
            approval = chain.token_contract(symbol).functions.approve(desk.router, -raw)
            chain.send(approval, desk.wallet, gas=200_000)
    tiers = {pool.address: pool.tier for pool in step.snapshot.pools}
    data = encode_rebalance(found, snapshot_s + DEADLINE_S, desk.terms(found.legs), makers, tiers)
    block_s = max(chain.now_s() + 1, snapshot_s + waited_s)
    before = {token: balance_of(chain, token) for token in least_changes}
    revert, gas_used = send(chain, {"from": desk.wallet, "to": desk.router, "data": data}, block_s)
    changes = {token: balance_of(chain, token) - raw for token, raw in before.items()}
    holdings_after = dict(found.holdings_after)
    return MixedOutcome(
        seed,
        found,
        meanwhile,
        block_s - snapshot_s,
        revert,
        all(holdings_after[token] == raw + changes[token] for token, raw in before.items()),
        all(change >= least_changes[token] for token, change in changes.items()),
        gas_used,
    )


def balance_of(chain: LocalChain, token: str) -> int:
    """Return the wallet's balance of a token, base units."""
    symbol = next(s for s, listed in chain.tokens.items() if listed.address == token)
    return chain.balance(symbol)


def send(chain: LocalChain, tx: dict[str, str], block_s: int) -> tuple[str, int]:
    """Send a transaction in a block of that time; return why it reverted (empty if it did not) and
    the gas that it used if it did not.
    """
    call: list[Any] = [{**tx, "gas": hex(SWAP_GAS)}, "latest", {}, {"time": hex(block_s)}]
    answer: Any = chain.w3.provider.make_request("eth_call", call)  # type: ignore[arg-type]
    chain.node.rpc("evm_setNextBlockTimestamp", block_s)
    receipt = chain.w3.eth.wait_for_transaction_receipt(
        chain.w3.eth.send_transaction({**tx, "gas": SWAP_GAS}),  # type: ignore[typeddict-item]
        poll_latency=0.01,
    )
    if receipt["status"] == 1:
        return "", int(receipt["gasUsed"])
    error = answer.get("error", {"message": "the simulation did not revert"})
    return revert_reason(RpcFault(3, error["message"], str(error.get("data") or ""))), 0


def run_plans(seeds: Sequence[int]) -> list[MixedOutcome]:
    """Return the outcomes of these problems, each from the same state; print each on stderr."""
    outcomes = []
    with open_anvil() as chain:
        market = Market.open(chain)
        for seed in seeds:
            snapshot = chain.snapshot()
            outcomes.append(carry_out(market, seed))
            chain.revert(snapshot)
            print(outcomes[-1], file=sys.stderr, flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=100, help="number of plans")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    outcomes = run_plans(range(options.first, options.first + options.problems))
    planned = [outcome for outcome in outcomes if outcome.plan is not None]
    mined = [outcome for outcome in planned if not outcome.revert]
    shares = [
        Fraction(outcome.gas_used, outcome.plan.gas_units)
        for outcome in mined
        if outcome.plan is not None
    ]
    legs = Counter(
        str(leg.venue)
        for outcome in planned
        if outcome.plan is not None
        for leg in outcome.plan.legs
    )
    document = {
        "problems": len(outcomes),
        "nothing to trade": len(outcomes) - len(planned),
        "mined": len(mined),
        "equal to the wei": sum(outcome.is_exact for outcome in mined),
        "reverted by name": dict(Counter(outcome.revert for outcome in planned if outcome.revert)),
        "failed": {outcome.seed: outcome.failure for outcome in planned if outcome.failure},
        "legs": dict(legs),
        "gas used of planned, least and most": [
            round(float(share), 3) for share in (min(shares), max(shares))
        ],
        "gas used of planned, median": round(float(sorted(shares)[len(shares) // 2]), 3),
    }
    print(
        json.dumps(document)
        if options.json
        else "\n".join(f"{name:<36}{value}" for name, value in document.items())
    )
    sys.exit(1 if document["failed"] else 0)


if __name__ == "__main__":
    main()
