"""PancakeSwap V3 and Slipstream on their own contracts: found by their factories, quoted to the base unit; and both with Uniswap V2, V3
and V4 in one transaction as planned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent.chain.second_quote import ContractQuoter
from agent.config.tables.venues import VenueTable
from agent.errors import ConfigError
from agent.execution.step_context import OutcomeKind
from agent.model import Leg, LegPlace
from agent.venues.discovery import discover_pools
from agent.venues.kinds import VENUE_KINDS
from agent.venues.kinds.venue import AmmVenue
from tests.support.agents import (
    FIVE,
    ROOMY,
    agent_on,
    fund,
    off_target,
    purse,
    require_exact,
    require_exact_rebalance,
    require_rebalance,
    skipped_text,
    swap_of,
    yes,
)
from tests.support.endpoints import tokens
from tests.support.markets.venue_kinds import KINDS, NO_QUOTER, TIERS, add_pool, deployment, price, read_pools
from tests.support.rebalancer import RebalancerAttack
from tests.support.slipstream import slipstream_artifacts
from tests.support.text import raises_field
from tests.support.venues import CONCENTRATED, Venue, Venues


def swaps_equal(venues: Venues, venue: Venue, seed: int, count: int) -> None:
    """Compare random quotes with what the pool's own swap gives, in pools of three tiers with ranges, while the price moves."""
    random = Random(seed)
    pools = [add_pool(venues, venue, ("WETH", "USDC"), 1_000_000, tier) for tier in TIERS[venue]]
    for pool in pools:
        middle = venues.contract(pool.address, venue).functions.slot0().call()[1] // pool.spacing
        for _ in range(6):
            width = random.randrange(1, 40)
            lower = (middle + random.randrange(-40, 40) - width) * pool.spacing
            venues.provide(pool, random.randrange(10**12, 10**15), ticks=(lower, lower + 2 * width * pool.spacing))
    kind = deployment(venues, venue)
    for number in range(count):
        if number % 10 == 0:
            states = {state.address: state for state in read_pools(venues, kind)}
            assert set(states) == {pool.address for pool in pools}
        pool = random.choice(pools)
        token_in = random.choice((pool.token0, pool.token1))
        amount = max(1, int(10 ** random.uniform(-2, 5) / price(venues.chain, token_in)))
        assert states[pool.address].quote(token_in, amount) == venues.quote(pool, token_in, amount), (pool, token_in, amount)
        if number % 10 == 9:
            venues.swap(pool, token_in, amount)


@pytest.mark.parametrize("venue", KINDS)
def test_quotes_equal_what_the_pools_own_swap_gives(venues: Venues, venue: Venue) -> None:
    swaps_equal(venues, venue, 1, 60)


@pytest.mark.slow
@pytest.mark.parametrize("venue", KINDS)
def test_two_thousand_quotes_equal_what_the_pools_own_swap_gives(venues: Venues, venue: Venue) -> None:
    swaps_equal(venues, venue, 2, 2_000)


def test_slipstream_quoter__agrees_and_its_fee_is_read_along(venues: Venues) -> None:
    pool = add_pool(venues, Venue.SLIPSTREAM, ("WETH", "USDC"), 1_000_000)
    kind = deployment(venues, Venue.SLIPSTREAM)
    (state,) = read_pools(venues, kind)
    amount = 10**18
    sold = venues.chain.tokens["WETH"].address
    out = state.quote(sold, amount)
    leg = Leg(pool.address, Venue.SLIPSTREAM, sold, pool.other(sold), state.fee_pips, amount, out, out, 0, 0, *[LegPlace.WALLET] * 2)
    quoter = ContractQuoter(venues.chain.transport, [kind], {pool.address: state.tier})
    assert state.tier == pool.spacing
    head: Any = venues.chain.w3.eth.get_block("latest")
    assert quoter.quote(leg, amount, head["hash"].to_0x_hex()) == out
    factory = venues.contract(venues.factories[Venue.SLIPSTREAM], Venue.SLIPSTREAM, factory=True).functions
    module = venues.chain.deploy(
        slipstream_artifacts()["DynamicSwapFeeModule"], factory.address, 50_000_000, 10_000, [pool.address], [4_000]
    )
    venues.chain.send(factory.setSwapFeeModule(module), factory.swapFeeManager().call())
    (changed,) = read_pools(venues, kind)
    fee: Any = venues.contract(pool.address, Venue.SLIPSTREAM).functions.fee().call()
    assert changed.fee_pips == fee
    assert changed.quote(sold, amount) == venues.quote(pool, sold, amount)


@pytest.mark.parametrize("venue", KINDS)
def test_named_pools_are_checked_as_searched_ones(venues: Venues, venue: Venue) -> None:
    pool = add_pool(venues, venue, ("WETH", "USDC"), 1_000_000)
    other = add_pool(venues, Venue.V3, ("WETH", "USDC"), 1_000, (100, 1))
    (pools_read,) = read_pools(venues, deployment(venues, venue, pools=[pool.address]))
    assert pools_read.address == pool.address
    with raises_field(f"venues.{venue}.pools"):
        read_pools(venues, deployment(venues, venue, pools=[other.address]))


@pytest.mark.parametrize("venue", KINDS)
def test_a_wrong_maker_is_named(venues: Venues, venue: Venue) -> None:
    add_pool(venues, venue, ("WETH", "USDC"), 1_000_000)
    right = deployment(venues, venue)
    pools = discover_pools(venues.chain.transport, [right], (), tokens(venues.chain))
    for pool in pools:
        right.require_derived(pool)
    wrong = deployment(venues, venue, **{"deployer" if venue is Venue.PANCAKE else "pool_implementation": NO_QUOTER})
    for pool in pools:
        with pytest.raises(ConfigError, match=f"venues.{venue}.init_code_hash"):
            wrong.require_derived(pool)


def table_of(kind: AmmVenue) -> Mapping[str, Any]:
    """Return the config's table of a deployment."""
    keys = VENUE_KINDS[kind.name].pool_class.venue_keys
    values = {key: getattr(kind, key) for key in keys.required}
    return {"kind": str(kind.name), "factory": kind.factory} | {
        key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
    }


def test_rebalance_over_five_kinds__is_one_transaction(venues: Venues, tmp_path: Path) -> None:
    chain = venues.chain
    kinds = [*KINDS, Venue.V4]
    for venue in kinds:
        for symbols in (("WETH", "USDC"), ("WBTC", "USDC"), ("LINK", "WETH")):
            add_pool(venues, venue, symbols, 1_500_000, TIERS[venue][1])
    only = {Venue.PANCAKE: {"fee_tiers": (500,)}, Venue.SLIPSTREAM: {"tick_spacings": (50,)}, Venue.V4: {"tiers": ((500, 10),)}}
    tables = [table_of(deployment(venues, venue, **only[venue])) for venue in kinds]
    for table in tables:
        VenueTable.model_validate(table)
    fund(chain, {"WETH": 51_234, "WBTC": 333, "USDC": 0, "USDT": 21_000, "LINK": 17_433})
    changes = ROOMY | {
        "execution.router": "rebalancer",
        "limits.second_quote_deviation": "off",
        "limits.pool_min_value": "off",
        "venues.uniswap_v3.fee_tiers": [100, 500, 10_000],
        "venues.+": tables,
    }
    with agent_on(chain, tmp_path, changes) as agent:
        plan, swap, _ = swap_of(require_exact_rebalance(chain, agent))
        assert {leg.venue for leg in plan.legs} == {venue.value for venue in Venue}, skipped_text(plan.skipped)
        assert max(off_target(chain, FIVE).values()) < 60
        assert swap.tx.to == chain.addresses.rebalancer


def test_a_rebalance_goes_beside_failing_pools_of_five_kinds(venues: Venues, tmp_path: Path) -> None:
    """One pool of each kind has no numeraire left; that of V4 lies in the PoolManager, for all its pools."""
    chain = venues.chain
    kinds = [*KINDS, Venue.V4]
    drained = {chain.address_by_pool[name] for name in ("v2 WETH/USDC", "v3 WETH/USDC 500")}
    for own_pool in drained:
        chain.set_balance("USDC", 1, own_pool)
    for venue in kinds:
        pool = add_pool(venues, venue, ("WETH", "USDC"), 50_000_000, TIERS[venue][1])
        drained.add(pool.address)
        chain.set_balance("USDC", 1, venues.manager.address if venue is Venue.V4 else pool.address)
    only = {Venue.PANCAKE: {"fee_tiers": (500,)}, Venue.SLIPSTREAM: {"tick_spacings": (50,)}, Venue.V4: {"tiers": ((500, 10),)}}
    changes = ROOMY | {
        "execution.router": "rebalancer",
        "limits.second_quote_deviation": "off",
        "venues.+": [table_of(deployment(venues, venue, **only[venue])) for venue in kinds],
    }
    fund(chain, {"WETH": 60_000, "WBTC": 10_000, "USDC": 1_000, "USDT": 10_000, "LINK": 9_000})
    with agent_on(chain, tmp_path, changes) as agent:
        outcome = require_rebalance(agent)
        assert outcome.step_input.targets.quarantined_tokens == ()
        left_out = {item.address for item in outcome.step_input.snapshot.unreadable_items}
        assert len(drained & left_out) >= 3, left_out
        assert outcome.plan is not None
        assert not {leg.pool for leg in outcome.plan.legs} & drained
        assert max(off_target(chain, FIVE).values()) < 60


@pytest.mark.slow
def test_random_rebalances_of_all_kinds__are_exact_or_refused(venues: Venues, tmp_path: Path) -> None:
    """With pools of V4's native coin too, each of a random depth; what is sent does what its plan says, to the wei."""
    random = Random(3)
    chain = venues.chain
    used = Counter[str]()
    stall = RebalancerAttack(venues)
    pairs = (("WETH", "USDC"), ("WBTC", "USDC"), ("LINK", "WETH"), ("LINK", "USDC"), ("WETH", "USDT"))
    kinds = [*KINDS, Venue.V4]
    only = {Venue.PANCAKE: {"fee_tiers": (500,)}, Venue.SLIPSTREAM: {"tick_spacings": (50,)}, Venue.V4: {"tiers": ((500, 10),)}}
    tables = [table_of(deployment(venues, venue, **only[venue])) for venue in kinds]
    tables.append({**tables[-1], "kind": "uniswap_v4_native"})
    changes = ROOMY | {
        "execution.router": "rebalancer",
        "limits.second_quote_deviation": "off",
        "limits.pool_min_value": "off",
        "portfolio.max_live_value": 1_000_000,
        "venues.+": tables,
    }
    for number in range(40):
        mark = chain.snapshot()
        for venue in kinds:
            for symbols in pairs:
                if random.random() < 0.5:
                    add_pool(venues, venue, symbols, random.randrange(500_000, 20_000_000), TIERS[venue][1])
        for symbol in ("USDC", "LINK", "WBTC"):
            if random.random() < 0.7:
                stall.pool(Venue.V4, "ETH", symbol, random.randrange(500_000, 20_000_000), TIERS[Venue.V4][1])
        fund(chain, {symbol: random.choice((0, random.randrange(1_000, 100_000))) for symbol in FIVE})
        with agent_on(chain, tmp_path / str(number), changes) as agent:
            before = purse(chain)
            outcome = agent.rebalance(send=True, confirm=yes)
            if outcome.kind is OutcomeKind.DONE:
                require_exact(chain, outcome, before)
                used.update({leg.venue for leg in swap_of(outcome)[0].legs})
            else:
                used[outcome.reason[:90]] += 1
                assert "simulation" not in outcome.reason
        chain.revert(mark)
    print(used)
    assert min(used[kind] for kind in (*CONCENTRATED, "uniswap_v4_native")) >= 5, used
