"""Random markets for planner tests: tokens, V2 pairs and V3 pools of many ranges around reference prices, by seed."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from agent.amm import pools as amm
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.errors import Refused
from agent.model import (
    AllocationMethod,
    AllocatorConfig,
    Goal,
    GoalWeight,
    InitialWeights,
    LegPlace,
    Plan,
    Pool,
    PricePoint,
    Rebalance,
    StepInput,
    TokenSupply,
    WeightLimit,
)
from agent.planning import planner
from agent.planning.problem import Problem, build_problem
from agent.reference import reference_prices
from agent.reference.floors import fair_floor
from agent.units import BPS
from agent.weights.returns import Floats
from tests.support.builders import (
    NOW_S,
    Number,
    history,
    price_of,
    step_input,
    token,
    unit_price,
    v2_pool,
    v3_pool,
    with_limits,
    with_snapshot,
)
from tests.support.constants import DAY_S
from tests.support.text import raises_code

SYMBOLS = ("USDC", "WETH", "WBTC", "DAI", "LINK", "UNI", "AAVE", "MKR", "CRV", "SNX", "LDO", "GRT")
PRICES: Mapping[str, Number] = {
    "LINK": 15,
    "UNI": 8,
    "AAVE": 120,
    "MKR": 1_500,
    "CRV": Fraction(1, 2),
    "SNX": 3,
    "LDO": 2,
    "GRT": Fraction(1, 5),
}


def rebalance_to_targets(step: StepInput, weights: Mapping[str, tuple[Number, Number]] | None = None) -> Rebalance:
    """Return a rebalance to the assets' targets, or to the intervals given by symbol."""
    weights_by_symbol = (
        {a.token.symbol: (Fraction(a.target_bps, 10_000),) * 2 for a in step.effective_assets} if weights is None else weights
    )
    points = tuple(GoalWeight(a.token.address, *map(Fraction, weights_by_symbol[a.token.symbol])) for a in step.portfolio.assets)
    return Rebalance("test", Goal(points))


def ranged(pool: V3Pool, dice: random.Random, ranges: int = 12) -> V3Pool:
    """Return the pool with liquidity that changes at each of `ranges` ticks on both sides, and no known ticks beyond."""
    base = pool.tick // pool.tick_spacing * pool.tick_spacing
    step = pool.tick_spacing
    liquid = {base: pool.liquidity}
    for k in range(1, ranges + 1):
        liquid[base - k * step] = int(liquid[base - (k - 1) * step] * math.exp(dice.gauss(-0.02, 0.3)))
        liquid[base + k * step] = int(liquid[base + (k - 1) * step] * math.exp(dice.gauss(-0.02, 0.3)))
    ticks = []
    before = 0
    for index in sorted(liquid):
        ticks.append(TickLiquidity(index, liquid[index] - before))
        before = liquid[index]
    end = max(liquid) + step
    ticks.append(TickLiquidity(end, -before))
    return V3Pool(
        pool.address, pool.venue, pool.token0, pool.token1, pool.fee_pips, step, pool.sqrt_price_x96, pool.tick, pool.liquidity,
        tuple(ticks), min(liquid), end, pool.twap_tick, pool.twap_liquidity, pool.twap_window_s,
    )  # fmt: skip


def random_pools(
    dice: random.Random, symbols: Sequence[str], count: int, depth: float, skew: float = 0.001, prices: Mapping[str, Number] = PRICES
) -> list[Pool]:
    """Return pools: one of every token with the first, the rest of random pairs. `depth` is value in coins; `skew` the deviation from the
    reference.
    """
    pairs = [(symbols[0], other) for other in symbols[1:]]
    while len(pairs) < count:
        pairs.append(tuple(dice.sample(list(symbols), 2)))  # type: ignore[arg-type]  # two symbols
    pools: list[Pool] = []
    twos: set[frozenset[str]] = set()
    for number, (pair, other) in enumerate(pairs):
        a = token(pair)
        b = token(other)
        price = price_of(pair, prices) / price_of(other, prices) * Fraction(math.exp(dice.gauss(0, skew))).limit_denominator(10**9)
        deep = Fraction(depth * math.exp(dice.gauss(0, 1))).limit_denominator(1000) / price_of(other, prices)
        if dice.random() < 0.4 and frozenset((pair, other)) not in twos:
            twos.add(frozenset((pair, other)))
            pools.append(v2_pool(a, b, price, deep))
        else:
            fee_pips = dice.choice([500, 500, 3000, 10_000])
            concentration = {500: 16, 3000: 8, 10_000: 4}[fee_pips]
            wide = v3_pool(a, b, price, deep * concentration, fee_pips, name=str(number))
            pools.append(ranged(wide, dice, {500: 40, 3000: 10, 10_000: 4}[fee_pips]))
    return pools


def random_step(
    seed: int, tokens: int = 8, pools: int = 20, depth: float = 1_000_000, worth: int = 100_000, skew: float = 0.001
) -> StepInput:
    """Return a portfolio with equal targets and random holdings over random pools."""
    dice = random.Random(seed)
    symbols = SYMBOLS[:tokens]
    values = _spread_values(dice, symbols, worth)
    return step_input(_even_targets(symbols), values, PRICES, pools=random_pools(dice, symbols, pools, depth, skew))


def _spread_values(dice: random.Random, symbols: Sequence[str], worth: int) -> dict[str, Fraction]:
    """Return holdings in value, none of them zero."""
    shares = [dice.gammavariate(2, 1) for _ in symbols]
    return {s: Fraction(worth * share / sum(shares)).limit_denominator(100) for s, share in zip(symbols, shares, strict=True)}


def _even_targets(symbols: Sequence[str]) -> dict[str, int]:
    even = 10_000 // len(symbols)
    return dict.fromkeys(symbols, even) | {symbols[0]: 10_000 - even * (len(symbols) - 1)}


def large_step(seed: int, tokens: int, pools: int) -> StepInput:
    """Return a portfolio of a million dollars with equal targets, and gas, over many pools."""
    dice = random.Random(f"large {seed} {tokens} {pools}")
    symbols = ("USDC", "WETH", *(f"T{k}" for k in range(tokens - 2)))
    prices = {**PRICES, **{symbol: Fraction(10 ** dice.uniform(-1, 3)).limit_denominator(100) for symbol in symbols[2:]}}
    values = _spread_values(dice, symbols, 1_000_000)
    markets = random_pools(dice, symbols, pools, 10 ** dice.uniform(5.5, 7), dice.choice([0.0, 0.001, 0.001, 0.003]), prices)
    step = step_input(_even_targets(symbols), values, prices, pools=markets)
    return with_limits(step, pool_min_value=None, min_trade=None, daily_turnover_bps=None, turnover_bps=None)


def without_gas(step: StepInput) -> StepInput:
    """Return the step at a gas price of zero."""
    return with_snapshot(step, priority_fee_wei=0, gas_price_wei=0, head=replace(step.snapshot.head, base_fee_wei=0))


def any_problem(seed: int, most_tokens: int = 12, most_pools: int = 50) -> StepInput:
    """Return the problem of that number: 2 to 12 tokens, 3 to 50 pools, random depths, bounds and limits, no gas.

    The pools of a third of the markets deviate from the reference by 0.3 % (standard deviation of each pool), of half by 0.1 %, of the
    rest not at all.
    """
    dice = random.Random(f"problem {seed}")
    tokens = dice.randint(2, most_tokens)
    pools = dice.randint(3, most_pools)
    skew = dice.choice([0.0, 0.001, 0.001, 0.001, 0.003, 0.003])
    step = random_step(seed, tokens, pools, 10 ** dice.uniform(5, 8), 100_000, skew)
    return without_gas(
        with_limits(
            step,
            pool_min_value=None,
            min_trade=None,
            daily_turnover_bps=None,
            turnover_bps=dice.choice([None, None, None, 500, 2_000]),
            plan_cost_bps=dice.choice([20, 50, 50, 200, None]),
            price_impact_bps=dice.choice([20, 100, 100, 300]),
        )
    )


def any_problem_with_gas(seed: int, most_tokens: int = 12, most_pools: int = 50) -> StepInput:
    """Return the problem of that number with a base fee between 0.1 and 50 gwei."""
    step = any_problem(seed, most_tokens, most_pools)
    dice = random.Random(f"gas {seed}")
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=int(10 ** dice.uniform(8, 10.7))))


def weights_bps(step: StepInput, plan: Plan) -> dict[str, int]:
    """Return the weights after a plan by symbol."""
    return {step.portfolio.token(token_).symbol: bps for token_, bps in plan.weights_after_bps}


def flow_value(step: StepInput, plan: Plan) -> Fraction:
    """Return the change in value of all balances by the plan, at the prices of the step's feeds."""
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    total = Fraction(0)
    for at, raw_after in plan.holdings_after:
        of = step.portfolio.token(at)
        total += (
            (raw_after - raw_by_token[at]) * price_of(of.symbol, PRICES) * Fraction(10) ** (step.portfolio.numeraire.decimals - of.decimals)
        )
    return total


def values_of(step: StepInput, plan: Plan) -> list[tuple[Fraction, Fraction, int]]:
    """Return (value before, value after, target in bps) of every asset at reference prices."""
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    after = dict(plan.holdings_after)
    values = []
    for asset in step.effective_assets:
        at = asset.token.address
        price = price_of(asset.token.symbol, PRICES) * Fraction(10) ** (step.portfolio.numeraire.decimals - asset.token.decimals)
        values.append((raw_by_token[at] * price, after[at] * price, asset.target_bps))
    return values


WETH, USDC, WBTC, DAI, LINK = (token(symbol) for symbol in ("WETH", "USDC", "WBTC", "DAI", "LINK"))
DEEP = 50_000_000
FIVE = {"WETH": 3_000, "USDC": 2_000, "WBTC": 2_000, "DAI": 1_000, "LINK": 2_000}


def wide(step: StepInput, **limits: object) -> StepInput:
    """Return the step without turnover limit and with a plan cost of two percent: bounds that allow a large correction."""
    return with_limits(step, **{"turnover_bps": None, "daily_turnover_bps": None, "plan_cost_bps": 200, **limits})


def two(weth: int, usdc: int, pools: list[Pool] | None = None, **limits: object) -> StepInput:
    """Return a step of WETH and USDC, half each, by default over one deep V2 pair."""
    return with_limits(step_input(None, {"WETH": weth, "USDC": usdc}, pools=pools, depth=DEEP), **limits)


def five_pools() -> list[Pool]:
    """Return pools of five tokens: three for WETH and USDC, LINK only with WETH."""
    return [
        v2_pool(WETH, USDC, 2_000, 2_000_000),
        v3_pool(WETH, USDC, 2_001, DEEP),
        v3_pool(WETH, USDC, 1_999, DEEP, 3_000),
        v3_pool(WBTC, WETH, 30, 20_000),
        v3_pool(WBTC, USDC, 60_000, DEEP, 3_000),
        v3_pool(DAI, USDC, 1, DEEP, 100),
        v2_pool(LINK, WETH, Fraction(15, 2_000), 1_000),
    ]


def check_legs(step: StepInput, plan: Plan) -> None:
    """Assert the invariants of every plan."""
    states = {pool.address: pool for pool in step.snapshot.pools}
    spent: dict[str, int] = {}
    bought: set[str] = set()
    router: dict[str, int] = {}
    for leg in plan.legs:
        swapped = states[leg.pool].swap(leg.token_in, leg.amount_in_raw)
        assert (swapped.amount_in_raw, swapped.amount_out_raw) == (leg.amount_in_raw, leg.amount_out_raw)
        assert amm.price_move_bps(states[leg.pool], swapped.pool_after, leg.token_in) == leg.impact_bps
        assert 0 < leg.min_out_raw <= leg.amount_out_raw
        states[leg.pool] = swapped.pool_after
        if leg.source is LegPlace.WALLET:
            assert leg.token_in not in router, "what the wallet pays does not mix with what waits in the router"
            spent[leg.token_in] = spent.get(leg.token_in, 0) + leg.amount_in_raw
        else:
            assert router.pop(leg.token_in) == leg.amount_in_raw
        if leg.sink is LegPlace.ROUTER:
            router[leg.token_out] = router.get(leg.token_out, 0) + leg.amount_out_raw
        else:
            assert not router, "the leg that pays the wallet is the last of its group and leaves the router empty"
            bought.add(leg.token_out)
    assert not router
    assert not bought & set(spent), "what is sold is not bought: no cycle through the wallet"
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    reserves = {asset.token.address: asset.reserve_raw for asset in step.portfolio.assets}
    assert all(raw <= raw_by_token[at] - reserves[at] for at, raw in spent.items())
    bound = step.limits.price_impact_bps
    for pool in step.snapshot.pools:
        moved = amm.price_move_bps(pool, states[pool.address], pool.token0), amm.price_move_bps(pool, states[pool.address], pool.token1)
        assert bound is None or min(moved) <= bound
    pairs = {(leg.token_in, leg.token_out) for leg in plan.legs}
    into: dict[str, set[str]] = {}
    for token_in, token_out in pairs:
        into.setdefault(token_out, set()).add(token_in)
    TopologicalSorter(into).prepare()  # raises CycleError if tokens return to their start


def assert_within_limits(step: StepInput, plan: Plan, slippage_bps: int = 30) -> None:
    """Require fair floors, value that is conserved but for the plan's costs, and costs and turnover within limits."""
    cost = plan.cost
    values = values_of(step, plan)
    before, after = (sum((value[moment] for value in values), Fraction(0)) for moment in (0, 1))
    assert flow_value(step, plan) == after - before == -(cost.fees + cost.impact + cost.skew)
    if step.limits.plan_cost_bps is not None:
        assert cost.total * BPS <= plan.turnover * step.limits.plan_cost_bps
    if step.limits.turnover_bps is not None:
        assert plan.turnover * BPS <= before * step.limits.turnover_bps
    for leg in plan.legs:
        tokens = [step.portfolio.token(at) for at in (leg.token_in, leg.token_out)]
        prices = [price_of(of.symbol, PRICES) * Fraction(10) ** (6 - of.decimals) for of in tokens]
        assert leg.min_out_raw >= fair_floor(leg.amount_in_raw, *prices, leg.fee_pips, step.limits.price_impact_bps or 0, slippage_bps)


def checked_plan(step: StepInput, weights: Mapping[str, tuple[Number, Number]] | None = None) -> Plan:
    """Return the plan of a step to its targets, or to the intervals given by symbol, once its legs are checked."""
    plan = planner.plan(step, rebalance_to_targets(step, weights))
    check_legs(step, plan)
    return plan


def assert_plan_refused(step: StepInput, code: str, *words: str) -> None:
    """Require that a plan to the targets is refused with this code, and mentions the words."""
    with raises_code(Refused, code, *words):
        planner.plan(step, rebalance_to_targets(step))


def plan_refusal(step: StepInput) -> planner.NothingPlanned:
    """Return the refusal of a plan to the targets, because nothing can be traded."""
    with pytest.raises(planner.NothingPlanned) as raised:
        planner.plan(step, rebalance_to_targets(step))
    return raised.value


def reason_by_subject(plan: Plan) -> dict[str, str]:
    """Return why the plan skips each asset or pool."""
    return {item.subject: item.why for item in plan.skipped}


def pools_used(plan: Plan) -> set[str]:
    """Return the addresses of the pools that a plan trades in."""
    return {leg.pool for leg in plan.legs}


def problem_of(step: StepInput) -> Problem:
    return build_problem(step, reference_prices(step))


def gap_of(plan: Plan) -> Fraction:
    """Return the optimality gap of a plan that has one, in bps of its turnover."""
    assert plan.gap_bps is not None
    return plan.gap_bps


# --- Special planner problems by number: coarse tokens, hubs, zero targets, a plan cost that is off or large.


COARSE: Mapping[str, Number] = {"GUSD": 1, "EURS": Fraction(27, 25), "TENTH": 5, "WHOLE": 20, "CENTS": Fraction(1, 50)}
"""Tokens of 0 to 2 decimals (tests/support/builders.py) with their prices."""
FINE = ("WETH", "WBTC", "LINK", "UNI", "MKR", "CRV")
HUBS = ("DAI", "USDT", "FRAX")


def hubs_and_zeros(seed: int) -> StepInput:
    """Return a problem with 2 to 7 assets, 1 to 3 hubs, some zero targets, shallow pools with tight bounds, and a plan cost."""
    dice = random.Random(f"hubs {seed}")
    return _problem(dice, ("USDC", *FINE[: dice.randint(1, 6)]), HUBS[: dice.randint(1, 3)], dice.choice([20, 50, 50, 200, 1_000]))


def uncapped_problem(seed: int) -> StepInput:
    """Return a problem with 0 to 3 hubs and a plan cost that is off, or above half of the value moved."""
    dice = random.Random(f"uncapped {seed}")
    symbols = ("USDC", *FINE[: dice.randint(1, 6)])
    return _problem(dice, symbols, HUBS[: dice.randint(0, 3)], dice.choice([None, None, None, 5_100, 7_000, 10_000]))


def coarse(seed: int) -> StepInput:
    """Return a problem with 1 to 4 tokens of 0 to 2 decimals among up to 3 others; sometimes with a coarse hub."""
    dice = random.Random(f"coarse {seed}")
    rough = dice.sample(sorted(COARSE), dice.randint(1, 4))
    hub = [rough.pop()] if len(rough) > 1 and dice.random() < 0.3 else []
    symbols = ("USDC", *FINE[: dice.randint(1, 3)], *rough)
    return _problem(dice, symbols, (*hub, *HUBS[: dice.randint(0, 1)]), dice.choice([20, 50, 50, 200, 1_000, None]))


def coarse_units(seed: int) -> StepInput:
    """Return a problem without gas in which a base unit of one or two tokens of 0 to 2 decimals is worth 0.01 to 20 bps of the portfolio.

    These tokens trade in V2 pairs and in V3 pools of one range: each tick that a swap crosses costs up to two base units, in any plan.
    """
    dice = random.Random(f"units {seed}")
    rough = dice.sample(sorted(COARSE), dice.choice([1, 1, 2]))
    fine = ("USDC", *FINE[: dice.randint(1, 6)])
    worth = 100_000
    units = {symbol: Fraction(worth * 10 ** dice.uniform(-6, -2.7)).limit_denominator(100) for symbol in rough}
    prices = {**PRICES, **{symbol: unit * 10 ** token(symbol).decimals for symbol, unit in units.items()}}
    depth = 10 ** dice.uniform(5, 8)
    skew = dice.choice([0.0, 0.001, 0.001, 0.003])
    pools = random_pools(dice, fine, dice.randint(len(fine) - 1, 4 * len(fine)), depth, skew, prices)
    for symbol in rough:
        for other in dice.sample(fine, dice.randint(1, len(fine))):
            price = price_of(symbol, prices) / price_of(other, prices) * Fraction(math.exp(dice.gauss(0, skew))).limit_denominator(10**9)
            deep = Fraction(depth * math.exp(dice.gauss(0, 1))).limit_denominator(1000) / price_of(other, prices)
            ends = token(symbol), token(other)
            if dice.random() < 0.5:
                pools.append(v2_pool(*ends, price, deep))
            else:
                fee_pips = dice.choice([500, 3000, 10_000])
                pools.append(v3_pool(*ends, price, deep * {500: 16, 3000: 8, 10_000: 4}[fee_pips], fee_pips))
    symbols = (*fine, *rough)
    step = step_input(_targets(dice, symbols), _values(dice, symbols, worth), prices, pools=pools)
    bounds = {
        "pool_min_value": None,
        "min_trade": None,
        "daily_turnover_bps": None,
        "turnover_bps": dice.choice([None, None, None, 3_000]),
        "plan_cost_bps": dice.choice([20, 50, 50, 200]),
        "price_impact_bps": dice.choice([20, 100, 100, 300]),
    }
    return without_gas(with_limits(step, **bounds))


KINDS: Mapping[str, Callable[[int], StepInput]] = {
    "hubs": hubs_and_zeros,
    "uncapped": uncapped_problem,
    "coarse": coarse,
    "units": coarse_units,
}


def _problem(dice: random.Random, symbols: Sequence[str], hubs: Sequence[str], plan_cost_bps: int | None) -> StepInput:
    prices = {**PRICES, **COARSE}
    worth = int(10 ** dice.uniform(3, 6))
    depth = 10 ** dice.uniform(4, 7.5)
    tokens = (*symbols, *hubs)
    skew = dice.choice([0.0, 0.0, 0.001, 0.003])
    pools = random_pools(dice, tokens, dice.randint(len(tokens), 4 * len(tokens)), depth, skew, prices)
    pools += [observed(hub, prices) for hub in hubs]
    step = step_input(_targets(dice, symbols), _values(dice, symbols, worth), prices, hubs=hubs, pools=pools)
    step = with_limits(
        without_gas(step),
        pool_min_value=None,
        min_trade=dice.choice([None, None, Fraction(10 * 10**6)]),
        daily_turnover_bps=None,
        turnover_bps=dice.choice([None, None, None, 500, 3_000]),
        plan_cost_bps=plan_cost_bps,
        price_impact_bps=dice.choice([5, 20, 50, 100, 300]),
        slippage_bps=dice.choice([30, 30, 100, None]),
    )
    if dice.random() < 0.3:
        step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=int(10 ** dice.uniform(8, 10.5))))
    return step


def observed(hub: str, prices: Mapping[str, Number] = PRICES) -> Pool:
    """Return a pool whose mean price gives the value of a hub, without liquidity now."""
    pool = v3_pool(token(hub), token("USDC"), price_of(hub, prices), 10_000_000, 10_000, name="observed")
    return replace(pool, liquidity=0, ticks=())


def _targets(dice: random.Random, symbols: Sequence[str]) -> dict[str, int]:
    """Return shares that sum to one; about a third of them are zero, at least one is not."""
    parts = [0 if dice.random() < 0.35 else dice.randint(1, 10) for _ in symbols]
    parts[dice.randrange(len(parts))] += 1
    shares = [10_000 * part // sum(parts) for part in parts]
    shares[max(range(len(shares)), key=shares.__getitem__)] += 10_000 - sum(shares)
    return dict(zip(symbols, shares, strict=True))


def _values(dice: random.Random, symbols: Sequence[str], worth: int) -> dict[str, Fraction]:
    """Return holdings in value; about a third of them are zero."""
    parts = [0.0 if dice.random() < 0.35 else dice.gammavariate(1, 1) for _ in symbols]
    parts[dice.randrange(len(parts))] += 0.5
    return {s: Fraction(worth * part / sum(parts)).limit_denominator(100) for s, part in zip(symbols, parts, strict=True)}


# --- Allocators and recorded prices for tests: coins with random walks from fixed seeds.


REAL_PRICES = Path(os.environ.get("TRIMTAB_DATA", Path(__file__).parents[3] / "shared" / "data")) / "prices"
"""Recorded real prices beside the repository, not part of it; tests that need them report if they are missing."""
PRICED_USDC = token("USDC")
COINS = ("WETH", "WBTC", "LINK", "UNI")
PLAIN = {"WETH": 2_500, "WBTC": 2_500, "LINK": 1_500, "UNI": 1_500, "USDC": 2_000}
"""Targets of a portfolio of four coins and a reserve of 20 %."""


def allocator(method: AllocationMethod, fixed: Sequence[str] = ("USDC",), **changes: object) -> AllocatorConfig:
    """Return an allocator on ninety days of daily returns, with a new choice each week; USDC keeps its 20 %."""
    plain = AllocatorConfig(
        method=method,
        every_s=7 * DAY_S,
        window_s=90 * DAY_S,
        step_s=DAY_S,
        min_returns=30,
        max_age_s=2 * DAY_S,
        max_overdue_s=14 * DAY_S,
        churn_bps=0,
        initial_weights=InitialWeights.WAIT,
        fixed_tokens=tuple(token(symbol).address for symbol in fixed),
        limits=(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def limit(symbol: str, low_bps: int, high_bps: int) -> WeightLimit:
    return WeightLimit(token(symbol).address, low_bps, high_bps)


def covariance_of(width: int, seed: int = 7) -> Floats:
    """Return a covariance of coins that mostly move together: one common factor, and noise of each."""
    draw = np.random.default_rng(seed)
    loads = draw.uniform(0.3, 1.2, width)
    noise = draw.uniform(0.2, 0.9, width)
    covariance: Floats = (np.outer(loads, loads) + np.diag(noise**2)) * 0.03**2
    return covariance


def moves(symbols: Sequence[str] = COINS, days: int = 90, seed: int = 7) -> Floats:
    """Return daily returns, a column for each coin."""
    draw = np.random.default_rng(seed)
    returns: Floats = draw.multivariate_normal(np.zeros(len(symbols)), covariance_of(len(symbols), seed), days)
    return returns


def recorded(returns: Floats, symbols: Sequence[str] = COINS, until_s: int = NOW_S - 3_600) -> tuple[PricePoint, ...]:
    """Return daily prices that move by these returns and end at the usual price, oldest first."""
    price_points = []
    days = len(returns)
    for symbol, column in zip(symbols, returns.T, strict=True):
        at = token(symbol)
        last = unit_price(token(symbol), price_of(symbol), PRICED_USDC)
        path = np.cumprod(np.concatenate(([1.0], 1 + column)))
        for day, level in enumerate(path):
            price = last * Fraction(float(level / path[-1])).limit_denominator(10**15)
            price_points.append(PricePoint(at.address, until_s - (days - day) * DAY_S, price))
    return tuple(sorted(price_points, key=lambda point: (point.at_s, point.token)))


def weighed(
    weights: AllocatorConfig,
    prices: Sequence[PricePoint] = (),
    targets: Mapping[str, int] | None = None,
    supplies: Sequence[tuple[str, int]] = (),
    **past: object,
) -> StepInput:
    """Return a step of a portfolio with this allocator; `supplies` are (symbol, whole coins) read from the chain."""
    step = step_input(targets_bps=targets or PLAIN, past=history(prices=tuple(prices), **past))
    supplies_read = tuple(TokenSupply(token(symbol).address, coins * 10 ** token(symbol).decimals) for symbol, coins in supplies)
    snapshot = replace(step.snapshot, supplies=supplies_read)
    return replace(step, snapshot=snapshot, portfolio=replace(step.portfolio, allocator=weights))


def bps_of(step: StepInput) -> dict[str, int]:
    """Return the targets by symbol, in bps."""
    return {asset.token.symbol: asset.target_bps for asset in step.effective_assets}
