"""Planner problems beside the usual ones, by number: coarse tokens, hubs and targets of nothing, a plan cost that is off or wide."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import PoolState, StepInput
from tests.support.builders import Number, price_of, step_input, token, v3_pool, with_limits, with_snapshot
from tests.support.planning_worlds import PRICES, random_pools, without_gas

COARSE: Mapping[str, Number] = {"GUSD": 1, "EURS": Fraction(27, 25), "TENTH": 5, "WHOLE": 20, "CENTS": Fraction(1, 50)}
"""Tokens of 0 to 2 decimals (tests/support/builders.py) with their prices."""
FINE = ("WETH", "WBTC", "LINK", "UNI", "MKR", "CRV")
HUBS = ("DAI", "USDT", "FRAX")


def hubs_and_zeros(seed: int) -> StepInput:
    """2 to 7 assets, 1 to 3 hubs, some targets of nothing, shallow pools with tight bounds; a plan cost of every size but off."""
    dice = random.Random(f"hubs {seed}")
    return _problem(dice, ("USDC", *FINE[: dice.randint(1, 6)]), HUBS[: dice.randint(1, 3)], dice.choice([20, 50, 50, 200, 1_000]))


def uncapped(seed: int) -> StepInput:
    """The same with a plan cost that is off, or above half of what is moved."""
    dice = random.Random(f"uncapped {seed}")
    symbols = ("USDC", *FINE[: dice.randint(1, 6)])
    return _problem(dice, symbols, HUBS[: dice.randint(0, 3)], dice.choice([None, None, None, 5_100, 7_000, 10_000]))


def coarse(seed: int) -> StepInput:
    """1 to 4 tokens of 0 to 2 decimals among up to 3 others; a coarse hub at times."""
    dice = random.Random(f"coarse {seed}")
    rough = dice.sample(sorted(COARSE), dice.randint(1, 4))
    hub = [rough.pop()] if len(rough) > 1 and dice.random() < 0.3 else []
    symbols = ("USDC", *FINE[: dice.randint(1, 3)], *rough)
    return _problem(dice, symbols, (*hub, *HUBS[: dice.randint(0, 1)]), dice.choice([20, 50, 50, 200, 1_000, None]))


KINDS: Mapping[str, Callable[[int], StepInput]] = {"hubs": hubs_and_zeros, "uncapped": uncapped, "coarse": coarse}


def _problem(dice: random.Random, symbols: Sequence[str], hubs: Sequence[str], plan_cost_bps: int | None) -> StepInput:
    prices = {**PRICES, **COARSE}
    worth, depth = int(10 ** dice.uniform(3, 6)), 10 ** dice.uniform(4, 7.5)
    tokens, skew = (*symbols, *hubs), dice.choice([0.0, 0.0, 0.001, 0.003])
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


def observed(hub: str, prices: Mapping[str, Number] = PRICES) -> PoolState:
    """A pool that says what a hub is worth, by its mean price, and has nothing to trade with now."""
    pool = v3_pool(token(hub), token("USDC"), price_of(hub, prices), 10_000_000, 10_000, name="observed")
    return replace(pool, liquidity=0, ticks=())


def _targets(dice: random.Random, symbols: Sequence[str]) -> dict[str, int]:
    """Shares that sum to one; a third of them nothing, at least one not."""
    parts = [0 if dice.random() < 0.35 else dice.randint(1, 10) for _ in symbols]
    parts[dice.randrange(len(parts))] += 1
    shares = [10_000 * part // sum(parts) for part in parts]
    shares[max(range(len(shares)), key=shares.__getitem__)] += 10_000 - sum(shares)
    return dict(zip(symbols, shares, strict=True))


def _values(dice: random.Random, symbols: Sequence[str], worth: int) -> dict[str, Fraction]:
    """What is held: nothing at all of a third."""
    parts = [0.0 if dice.random() < 0.35 else dice.gammavariate(1, 1) for _ in symbols]
    parts[dice.randrange(len(parts))] += 0.5
    return {s: Fraction(worth * part / sum(parts)).limit_denominator(100) for s, part in zip(symbols, parts, strict=True)}
