"""Our V3 swaps against the deployed contracts: QuoterV2's answers and real swaps, to the wei, with the state they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest

from agent.amm import pools
from agent.amm.swap_errors import ContractRevert
from agent.amm.v3 import pool_swap
from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
    price_limit,
)
from agent.amm.v3.pool import V3Pool
from agent.chain.rpc import RpcFault
from agent.localchain import LocalChain
from agent.model import SwapResult
from tests.differential import pools_on_chain
from tests.support import worlds

QUOTE = "(address,address,uint256,uint24,uint160)"
QUOTE_IN = f"quoteExactInputSingle({QUOTE})"
SWAP = "(address,address,uint24,address,uint256,uint256,uint160)"
TIERS = ((100, 1), (500, 10), (3000, 60), (10000, 200))
UNUSUAL_TIERS = ((50, 16_383), (400_000, 5))
Regime = tuple[str, tuple[int, int], int]
"""Where the price lies, bits of liquidity per position, number of positions."""
REGIMES: tuple[Regime, ...] = (
    ("middle", (40, 90), 12),
    ("on a tick", (60, 70), 30),
    ("anywhere", (0, 100), 10),
    ("low end", (10, 60), 8),
    ("high end", (10, 60), 8),
    ("middle", (0, 20), 6),
    ("middle", (118, 127), 60),
)
MOST_STEPS = 300
"""Longer swaps cost more gas than a local block has."""


@dataclass(frozen=True)
class Case:
    """One swap to try, and what our mathematics say of it."""

    pool: V3Pool
    token_in: str
    amount: int
    limit: int | None
    ours: SwapResult | None
    reason: str = ""

    @property
    def limit_or_end(self) -> int:
        return price_limit(self.token_in == self.pool.token0) if self.limit is None else self.limit


def random_case(random: Random, pool: V3Pool) -> Case:
    """A swap of any size: dust, anything, a share of what leads to some tick, or exactly what leads onto it, and one beside."""
    token_in = random.choice((pool.token0, pool.token1))
    down = token_in == pool.token0
    limit = None
    if random.random() < 0.35:
        limit = random_goal(random, pool, down)
        if not (MIN_SQRT_RATIO < limit < pool.sqrt_price_x96 if down else pool.sqrt_price_x96 < limit < MAX_SQRT_RATIO):
            limit = None
    kind = random.random()
    if kind < 0.15:
        amount = random.randint(1, 1000)
    elif kind < 0.4:
        amount = random.randint(1, 2 << random.randint(0, 120))
    else:
        most = pool_swap.largest_in(pool, down, random_goal(random, pool, down))
        amount = most + random.choice((-1, 0, 1)) if kind < 0.7 else int(most * random.random())
        amount = max(1, min(amount, 2**200))
    try:
        return Case(pool, token_in, amount, limit, pool.swap(token_in, amount, limit))
    except ContractRevert as refusal:
        return Case(pool, token_in, amount, limit, None, refusal.reason)


def random_goal(random: Random, pool: V3Pool, down: bool) -> int:
    """A sqrt price to swap to: an initialised tick, a border of a bitmap word, anything near, each perhaps missed by one."""
    sign = -1 if down else 1
    kind = random.random()
    if kind < 0.4 and pool.ticks:
        tick = random.choice(pool.ticks).index
    elif kind < 0.7:
        tick = (pool.tick // pool.tick_spacing // 256 + sign * random.randint(0, 3)) * 256 * pool.tick_spacing
    else:
        tick = pool.tick + sign * random.randint(0, 20 * pool.tick_spacing)
    goal = get_sqrt_ratio_at_tick(max(MIN_TICK, min(MAX_TICK, tick))) + random.choice((-1, 0, 0, 1))
    return max(MIN_SQRT_RATIO + 1, min(MAX_SQRT_RATIO - 1, goal))


def random_pools(
    chain: LocalChain, random: Random, regimes: Sequence[Regime] = REGIMES, tiers: Sequence[tuple[int, int]] = (*TIERS, *UNUSUAL_TIERS)
) -> list[V3Pool]:
    """A pool of every fee tier in every regime of price and liquidity."""
    for fee_pips, spacing in UNUSUAL_TIERS:
        if (fee_pips, spacing) in tiers:
            pools_on_chain.enable_fee(chain, fee_pips, spacing)
    random_pools = []
    for number, (where, bits, count) in enumerate(regimes):
        pair = pools_on_chain.new_pair(chain, f"R{number}")
        for fee_pips, spacing in tiers:
            price = pools_on_chain.random_price(random, where)
            positions = pools_on_chain.random_positions(random, spacing, get_tick_at_sqrt_ratio(price), bits, count)
            random_pools.append(pools_on_chain.make_v3(chain, pair, fee_pips, spacing, price, positions))
    return random_pools


def cases_of(random: Random, states: list[V3Pool], number: int, most_steps: int = MOST_STEPS) -> list[Case]:
    """Swaps that a block has room for."""
    cases: list[Case] = []
    while len(cases) < number:
        case = random_case(random, random.choice(states))
        if case.ours is None or case.ours.stop_count <= most_steps:
            cases.append(case)
    return cases


def check_quotes(chain: LocalChain, cases: list[Case]) -> int:
    """QuoterV2 says the same of every case; returns how many of them it could quote."""
    calls = []
    for case in cases:
        limit = 0 if case.limit is None else case.limit
        arguments = (case.token_in, pools.token_out(case.pool, case.token_in), case.amount, case.pool.fee_pips, limit)
        calls.append((chain.addresses.quoter_v2, pools_on_chain.calldata(QUOTE_IN, arguments)))
    quoted = 0
    for case, answer in zip(cases, pools_on_chain.ask(chain, calls, ["uint256", "uint160"]), strict=True):
        # The quoter itself refuses a swap that takes nothing.
        if case.ours is None or case.ours.amount_in_raw == 0:
            assert isinstance(answer, RpcFault), f"{case} should revert, the quoter says {answer}"
            continue
        assert not isinstance(answer, RpcFault), f"{case} reverts: {answer}"
        assert answer == (case.ours.amount_out_raw, case.ours.pool_after.sqrt_price_x96), case
        quoted += 1
    return quoted


def check_swaps(chain: LocalChain, random: Random, states: list[V3Pool], number: int) -> list[SwapResult]:
    """Real swaps one after the other: each one's event and the state at the end are ours, step by step."""
    current = list(states)
    cases: list[Case] = []
    calls = []
    while len(cases) < number:
        i = random.randrange(len(current))
        case = random_case(random, current[i])
        if case.ours is None or case.ours.stop_count > MOST_STEPS // 3 or case.ours.amount_in_raw == 0:
            continue
        pool = case.pool
        other = pools.token_out(case.pool, case.token_in)
        arguments = (case.token_in, other, pool.fee_pips, chain.whale.address, case.amount, 0, case.limit_or_end)
        calls.append((chain.addresses.swap_router_02, pools_on_chain.calldata(f"exactInputSingle({SWAP})", arguments)))
        cases.append(case)
        current[i] = case.ours.pool_after
    for case, receipt in zip(cases, pools_on_chain.transact(chain, calls), strict=True):
        amount0, amount1, price, liquidity, tick = pools_on_chain.log_data(receipt, case.pool.address, pools_on_chain.SWAP_EVENT_TYPES)
        paid, moved = (amount0, -amount1) if case.token_in == case.pool.token0 else (amount1, -amount0)
        ours = case.ours
        after = case.ours.pool_after
        assert (paid, moved) == (ours.amount_in_raw, ours.amount_out_raw), case
        assert (price, tick, liquidity) == (after.sqrt_price_x96, after.tick, after.liquidity), case
    assert pools_on_chain.v3_on_chain(chain, current) == [(pool.sqrt_price_x96, pool.tick, pool.liquidity) for pool in current]
    return [case.ours for case in cases]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("hundreds", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_random_swaps_on_anvil_equal_the_contracts(anvil_chain, hundreds):
    random = Random(20_24)
    states = random_pools(anvil_chain, random)
    assert max(state.liquidity for state in states) > 2**123
    quotes = hundreds * 500 // 3
    swaps = hundreds * 100
    assert check_quotes(anvil_chain, cases_of(random, states, quotes)) > quotes * 13 // 20
    done = check_swaps(anvil_chain, random, states, swaps)
    assert sum(swap.ticks_crossed > 0 for swap in done) > swaps // 12
    assert sum(swap.stop_count > 1 + swap.ticks_crossed for swap in done) > swaps // 24, "word borders without a tick must be among them"
    assert any(swap.pool_after.liquidity == 0 for swap in done)


@pytest.mark.slow
@pytest.mark.parametrize(("quotes", "swaps"), [(30, 10)])
def test_some_random_swaps_on_eth_tester_equal_the_contracts(tester_chain, quotes, swaps):
    random = Random(7)
    states = random_pools(tester_chain, random, [("middle", (40, 90), 8)], TIERS)
    assert check_quotes(tester_chain, cases_of(random, states, quotes, most_steps=60)) > quotes // 2
    check_swaps(tester_chain, random, states, swaps)


def check_quoter(chain: LocalChain, state: V3Pool, number: int) -> int:
    """V3Pool.quoter says what QuoterV2 says, up to prices ten-thousandfold away; how often it would not without word borders."""
    without_borders = replace(state, tick_spacing=10**6)  # one word holds every tick
    calls = []
    ours = []
    simpler = []
    for token_in in (state.token0, state.token1):
        quote = state.quoter(token_in)
        simple = without_borders.quoter(token_in)
        most = state.max_in(token_in, 9_999)
        for part in range(1, number + 1):
            amount = most * part // (number + 1) - part
            arguments = (token_in, pools.token_out(state, token_in), amount, state.fee_pips, 0)
            calls.append((chain.addresses.quoter_v2, pools_on_chain.calldata(QUOTE_IN, arguments)))
            ours.append(quote(amount))
            simpler.append(simple(amount))
    answers = [answer[0] for answer in pools_on_chain.ask(chain, calls, ["uint256"])]
    assert answers == ours
    return sum(theirs != answer for theirs, answer in zip(simpler, answers, strict=True))


def test_recorded_mainnet_pool__quotes_and_swaps_as_ours(anvil_chain):
    info = worlds.mint_mainnet_pool(anvil_chain)
    state = worlds.read_v3(anvil_chain, info)
    recorded = worlds.recorded_pool()
    random = Random(24407242)
    assert len(state.ticks) > 400
    assert state.liquidity == recorded.liquidity
    for symbol in (info.token0.symbol, info.token1.symbol):
        anvil_chain.set_balance(symbol, pools_on_chain.RICH, owner=anvil_chain.whale.address)
    assert check_quoter(anvil_chain, state, 99) > 100, "more than half of 198 are wrong without the borders"
    assert check_quotes(anvil_chain, cases_of(random, [state], 150)) > 100
    check_swaps(anvil_chain, random, [state], 60)


@pytest.mark.parametrize(
    ("amount", "limit_from_price", "reason"),
    [
        pytest.param(0, None, "AS", id="nothing"),
        pytest.param(1, 0, "SPL", id="price at the limit"),
        pytest.param(1, 1, "SPL", id="limit on the wrong side"),
        pytest.param(2**255, None, "", id="half of the numbers"),
    ],
)
def test_what_we_refuse_the_pool_refuses_with_the_same_words(anvil_chain, amount, limit_from_price, reason):
    pair = pools_on_chain.new_pair(anvil_chain, "W")
    pool = pools_on_chain.make_v3(anvil_chain, pair, 3000, 60, 2**96, [(-600, 600, 10**18)])
    limit = None if limit_from_price is None else pool.sqrt_price_x96 + limit_from_price
    with pytest.raises(ContractRevert) as refusal:
        pool.swap(pool.token0, amount, limit)
    assert refusal.value.reason == reason
    arguments = (pool.token0, pool.token1, amount, pool.fee_pips, limit or 0)
    [answer] = pools_on_chain.ask(
        anvil_chain, [(anvil_chain.addresses.quoter_v2, pools_on_chain.calldata(QUOTE_IN, arguments))], ["uint256"]
    )
    assert isinstance(answer, RpcFault)
    assert reason in answer.message + pools_on_chain.reason_text(answer)
