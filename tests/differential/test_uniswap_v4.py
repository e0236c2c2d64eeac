"""Uniswap V4 on its own PoolManager: found by PoolId, quoted to the base unit by direction, traded as planned; hooks and dynamic fees are
refused.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from eth_abi.abi import encode

from agent.app.positions.holdings import read_liquidity_report
from agent.artifacts import npm_artifact
from agent.chain.lens import query_lens
from agent.chain.pools.reading import deep_pool_item, with_deeper_ticks
from agent.chain.second_quote import ContractQuoter, NoSecondQuote
from agent.chain.tokens import IMPLEMENTATION_SLOTS
from agent.execution.step_context import OutcomeKind
from agent.model import Leg, LegPlace
from agent.venues.discovery import discover_pools
from tests.support import agents
from tests.support.agents import ROOMY, agent_on, fund, require_exact_rebalance, require_rebalance, swap_of
from tests.support.attacks import attack
from tests.support.endpoints import tokens
from tests.support.markets.venue_kinds import NO_QUOTER, add_pool, deployment, price, read_pools
from tests.support.rebalancer import RebalancerAttack
from tests.support.text import raises_field
from tests.support.venues import KEY, Venue, Venues

TIERS = ((100, 1), (500, 10), (3_000, 60), (12_345, 200), (0, 60))
PROTOCOL_FEES = (0, 1_000 << 12 | 500, 700 << 12, 250, 1_000 << 12 | 1_000)
"""Of each tier: for selling token1, times 2^12, and token0; millionths."""

NEUTRAL_HOOK = "0x0000000000000000000000000000000000a000C0"
"""Its last bits: called before and after each swap, without a part in the amounts."""


def swaps_equal(venues: Venues, seed: int, count: int) -> None:
    """Compare random quotes with V4Quoter's, and states after swaps with the PoolManager's, in pools with ranges and protocol fees."""
    random = Random(seed)
    chain = venues.chain
    pools = [add_pool(venues, Venue.V4, ("WETH", "USDC"), 1_000_000, tier) for tier in TIERS]
    chain.send(venues.manager.functions.setProtocolFeeController(chain.whale.address))
    for pool, protocol_fee in zip(pools, PROTOCOL_FEES, strict=True):
        chain.send(venues.manager.functions.setProtocolFee(pool.key, protocol_fee))
        middle = venues.state_view.functions.getSlot0(pool.pool_id).call()[1] // pool.spacing
        for _ in range(6):
            width = random.randrange(1, 40)
            lower = (middle + random.randrange(-40, 40) - width) * pool.spacing
            venues.provide(pool, random.randrange(10**12, 10**15), ticks=(lower, lower + 2 * width * pool.spacing))
    kind = deployment(venues, Venue.V4, tiers=TIERS)
    for number in range(count):
        if number % 10 == 0:
            states = {state.address: state for state in read_pools(venues, kind)}
            assert set(states) == {"0x" + pool.pool_id.hex() for pool in pools}
        pool = random.choice(pools)
        state = states["0x" + pool.pool_id.hex()]
        token_in = random.choice((pool.token0, pool.token1))
        amount = max(1, int(10 ** random.uniform(-2, 5) / price(chain, token_in)))
        out = venues.quote(pool, token_in, amount)
        assert state.quote(token_in, amount) == state.quoter(token_in)(amount) == out, (pool, token_in, amount)
        if number % 10 == 9:
            after: Any = state.swap(token_in, amount).pool_after
            venues.swap(pool, token_in, amount)
            (now,) = [pool for pool in read_pools(venues, kind) if pool.address == state.address]
            assert (now.sqrt_price_x96, now.tick, now.liquidity) == (after.sqrt_price_x96, after.tick, after.liquidity)  # type: ignore[attr-defined]


def test_quotes_equal_those_of_v4s_quoter(venues: Venues) -> None:
    swaps_equal(venues, 1, 60)


@pytest.mark.slow
def test_two_thousand_quotes_equal_those_of_v4s_quoter(venues: Venues) -> None:
    swaps_equal(venues, 2, 2_000)


def test_the_second_quote_is_v4s_own_and_of_the_same_manager(venues: Venues) -> None:
    pool = add_pool(venues, Venue.V4, ("WETH", "USDC"), 1_000_000)
    (state,) = read_pools(venues, deployment(venues, Venue.V4, tiers=TIERS))
    amount = 10**18
    sold = venues.chain.tokens["WETH"].address
    out = state.quote(sold, amount)
    leg = Leg(state.address, Venue.V4, sold, pool.other(sold), 3_000, amount, out, out, 0, 0, *[LegPlace.WALLET] * 2)
    head: Any = venues.chain.w3.eth.get_block("latest")
    quoter = ContractQuoter(venues.chain.transport, [deployment(venues, Venue.V4, tiers=TIERS)], {state.address: state.tier})
    assert quoter.quote(leg, amount, head["hash"].to_0x_hex()) == out
    with pytest.raises(NoSecondQuote):
        other = deployment(venues, Venue.V4, factory=NO_QUOTER)
        ContractQuoter(venues.chain.transport, [other], {state.address: state.tier}).quote(leg, amount, head["hash"].to_0x_hex())


def test_more_ticks_of_a_pool_are_read_at_its_block(venues: Venues) -> None:
    pool = add_pool(venues, Venue.V4, ("WETH", "USDC"), 1_000_000, TIERS[1])
    venues.provide(pool, 10**14, ticks=(-400_000, 400_000))
    kind = deployment(venues, Venue.V4, tiers=TIERS)
    (state,) = read_pools(venues, kind)
    (ref,) = discover_pools(venues.chain.transport, [kind], (), tokens(venues.chain))
    (answer,) = query_lens(venues.chain.transport, [deep_pool_item(ref)])
    deeper: Any = with_deeper_ticks(state, answer)
    assert [tick.index for tick in deeper.ticks] == [-887_270, -400_000, 400_000, 887_270]
    assert deeper.manager == venues.manager.address


def hook_at(stall: RebalancerAttack, address: str) -> str:
    """Put a hook that lets the accomplice in at an address, whose last bits say which calls it gets; return it checksummed."""
    code = stall.chain.w3.eth.get_code(stall.deploy("MeddlingHook").address).to_0x_hex()
    stall.chain.node.rpc("anvil_setCode", address, code)
    hook = stall.chain.contract(address, attack("MeddlingHook"))
    stall.chain.send(hook.functions.meddle(stall.accomplice.address, 0))
    return str(hook.address)


def test_hooks__are_allowed_by_address_while_their_code_is_pinned(venues: Venues, tmp_path: Path) -> None:
    """A pool with hooks is no pool of the entry without, whose key differs in nothing else; its own entry trades it while its code is
    that which was pinned. Every swap has V4Quoter's quote.
    """
    stall = RebalancerAttack(venues)
    chain = venues.chain
    hook = hook_at(stall, NEUTRAL_HOOK)
    plain = add_pool(venues, Venue.V4, ("LINK", "WETH"), 5_000_000, TIERS[1])
    hooked = stall.pool(Venue.V4, "WETH", "USDC", 5_000_000, TIERS[1], hooks=hook)
    pool_refs = discover_pools(chain.transport, [deployment(venues, Venue.V4, tiers=TIERS)], (), tokens(chain))
    assert [pool.address for pool in pool_refs] == ["0x" + plain.pool_id.hex()]
    table = {"kind": "uniswap_v4", "factory": venues.manager.address, "quoter": venues.quoter.address, "tiers": [list(TIERS[1])]}
    changes = ROOMY | {
        "execution.router": "rebalancer",
        "limits.pool_min_value": "off",
        "venues.uniswap_v3.fee_tiers": [10_000],
        "venues.+": [table, table | {"label": "hooked", "hooks": hook}],
    }
    fund(chain, {"WETH": 30_000, "WBTC": 0, "USDC": 0, "USDT": 0, "LINK": 50_000})
    with agent_on(chain, tmp_path, changes, {"WETH": "40%", "USDC": "30%", "LINK": "30%"}) as agent:
        hook_code = chain.w3.eth.get_code(hook).to_0x_hex()
        chain.node.rpc("anvil_setCode", hook, hook_code + "00")
        assert f"code at {hook} changed" in agent.plan().reason
        chain.node.rpc("anvil_setCode", hook, hook_code)
        chain.node.rpc("anvil_setStorageAt", hook, IMPLEMENTATION_SLOTS[0], "0x" + plain.pool_id.hex())
        with raises_field("", hook, "is a proxy"), agents.reopened_agent(chain, agent.context.loaded_config):
            pass
        chain.node.rpc("anvil_setStorageAt", hook, IMPLEMENTATION_SLOTS[0], "0x" + 64 * "0")
        plan, _, _ = swap_of(require_exact_rebalance(chain, agent))
        assert {leg.pool for leg in plan.legs} >= {"0x" + plain.pool_id.hex(), "0x" + hooked.pool_id.hex()}


def test_native_coin_pools__trade_its_wrapped_form_as_planned(venues: Venues, tmp_path: Path) -> None:
    """WETH is sold and bought, both as V4Quoter says; the wallet's native coin changes by gas alone."""
    stall = RebalancerAttack(venues)
    chain = venues.chain
    usdc, link = (stall.pool(Venue.V4, "ETH", symbol, 30_000_000, TIERS[1]) for symbol in ("USDC", "LINK"))
    table = {"kind": "uniswap_v4_native", "factory": venues.manager.address, "quoter": venues.quoter.address, "tiers": [list(TIERS[1])]}
    changes = ROOMY | {
        "execution.router": "rebalancer",
        "limits.pool_min_value": "off",
        "venues.uniswap_v3.fee_tiers": [10_000],
        "venues.+": [table],
    }
    fund(chain, {"WETH": 9_000, "WBTC": 0, "USDC": 0, "USDT": 0, "LINK": 15_000})
    with agent_on(chain, tmp_path, changes, {"WETH": "40%", "USDC": "30%", "LINK": "30%"}) as agent:
        plan, _, receipt = swap_of(require_exact_rebalance(chain, agent))
        assert {leg.pool for leg in plan.legs} >= {"0x" + pool.pool_id.hex() for pool in (usdc, link)}
        assert receipt.gas_used <= plan.gas_units <= receipt.gas_used * 1.1
        native_plan = agent.plan()
        assert native_plan.kind is OutcomeKind.HOLD, native_plan.reason
        assert "unexplained" not in native_plan.reason


def test_wrapped_coin__is_sold_for_native_where_no_pool_has_money(venues: Venues, tmp_path: Path) -> None:
    """The only pool that lends WETH to its test is left out, because it cannot pay USDC."""
    stall = RebalancerAttack(venues)
    chain = venues.chain
    native = stall.pool(Venue.V4, "ETH", "USDC", 30_000_000, TIERS[1])
    table = {"kind": "uniswap_v4_native", "factory": venues.manager.address, "quoter": venues.quoter.address, "tiers": [list(TIERS[1])]}
    changes = ROOMY | {
        "execution.router": "rebalancer",
        "limits.pool_min_value": "off",
        "venues.uniswap_v2.pools": [],
        "venues.uniswap_v3.fee_tiers": [500],
        "venues.+": [table],
    }
    fund(chain, {"WETH": 20_000, "WBTC": 0, "USDC": 5_000, "USDT": 0, "LINK": 0})
    with agent_on(chain, tmp_path, changes, {"WETH": "50%", "USDC": "50%"}) as agent:
        (drained,) = (pool.address for pool in agent.step_input().snapshot.pools if not pool.trades_native)
        chain.set_balance("USDC", 1, drained)
        outcome = require_rebalance(agent)
        plan, _, _ = swap_of(outcome)
        assert {leg.pool for leg in plan.legs} == {"0x" + native.pool_id.hex()}
        assert [item.address for item in outcome.step_input.snapshot.unreadable_items] == [drained]


def test_positions_of_v4_are_named_and_left_alone(venues: Venues, tmp_path: Path) -> None:
    """The wallet mints one with native coin alone: its range lies above the price."""
    stall = RebalancerAttack(venues)
    chain = venues.chain
    pool = stall.pool(Venue.V4, "ETH", "USDC", 0, TIERS[1])
    artifact = npm_artifact("@uniswap/v4-periphery/foundry-out/PositionManager.sol/PositionManager.json")
    nobody = "0x" + "11" * 20
    manager = chain.deploy(artifact, venues.manager.address, nobody, 300_000, nobody, chain.addresses.weth)
    tick = venues.state_view.functions.getSlot0(pool.pool_id).call()[1] // 10 * 10
    mint = encode(
        [KEY, "int24", "int24", "uint256", "uint128", "uint128", "address", "bytes"],
        [pool.key, tick + 100, tick + 200, 10**9, 10**18, 0, stall.victim, b""],
    )
    settle = encode(["address", "uint256", "bool"], [pool.token0, 0, False])
    actions = encode(["bytes", "bytes[]"], [bytes([0x02, 0x0B]), [mint, settle]])
    call = chain.contract(manager, artifact).functions.modifyLiquidities(actions, chain.now_s() + 60)
    call.transact({"from": stall.victim, "value": 10**18, "gas": 1_000_000})
    table = {"factory": venues.manager.address, "quoter": venues.quoter.address, "tiers": [list(TIERS[1])], "position_manager": manager}
    changes = {"execution.router": "rebalancer", "venues.+": [{"kind": f"uniswap_v4{suffix}"} | table for suffix in ("", "_native")]}
    with agent_on(chain, tmp_path, changes) as agent:
        assert read_liquidity_report(agent).warnings == (f"1 position(s) of uniswap_v4 at {manager} do not count and are left alone",)
