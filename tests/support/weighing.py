"""Allocators and recorded prices for tests: coins whose prices walk at random, always the same way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from agent.model import AllocationMethod, AllocatorConfig, InitialWeights, PricePoint, StepInput, TokenSupply, WeightLimit
from agent.weights.returns import Floats
from tests.support.builders import NOW_S, history, price_of, step_input, token, unit_price

DAY_S = 86_400
REAL_PRICES = Path(os.environ.get("TRIMTAB_DATA", Path(__file__).parents[3] / "shared" / "data")) / "prices"
"""Real bars, kept beside the project and not in it; tests that want them say where they are not."""
USDC = token("USDC")
COINS = ("WETH", "WBTC", "LINK", "UNI")
PLAIN = {"WETH": 2_500, "WBTC": 2_500, "LINK": 1_500, "UNI": 1_500, "USDC": 2_000}
"""Targets of a portfolio of four coins and a reserve of 20 %."""


def allocator(method: AllocationMethod, fixed: Sequence[str] = ("USDC",), **changes: object) -> AllocatorConfig:
    """Ninety days of daily returns, chosen anew each week; 20 % of USDC stay."""
    plain = AllocatorConfig(
        method=method,
        every_s=7 * DAY_S,
        window_s=90 * DAY_S,
        step_s=DAY_S,
        min_returns=30,
        max_age_s=2 * DAY_S,
        keep_s=14 * DAY_S,
        churn_bps=0,
        until_chosen=InitialWeights.WAIT,
        fixed=tuple(token(symbol).address for symbol in fixed),
        limits=(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def limit(symbol: str, low_bps: int, high_bps: int) -> WeightLimit:
    return WeightLimit(token(symbol).address, low_bps, high_bps)


def covariance_of(width: int, seed: int = 7) -> Floats:
    """A covariance of coins that mostly move together: one common factor, and noise of their own."""
    draw = np.random.default_rng(seed)
    loads, noise = draw.uniform(0.3, 1.2, width), draw.uniform(0.2, 0.9, width)
    found: Floats = (np.outer(loads, loads) + np.diag(noise**2)) * 0.03**2
    return found


def moves(symbols: Sequence[str] = COINS, days: int = 90, seed: int = 7) -> Floats:
    """Daily returns, a column for each coin."""
    draw = np.random.default_rng(seed)
    found: Floats = draw.multivariate_normal(np.zeros(len(symbols)), covariance_of(len(symbols), seed), days)
    return found


def recorded(returns: Floats, symbols: Sequence[str] = COINS, until_s: int = NOW_S - 3_600) -> tuple[PricePoint, ...]:
    """Daily prices that move by these returns and end at the usual price, oldest first."""
    found = []
    days = len(returns)
    for symbol, column in zip(symbols, returns.T, strict=True):
        at, last = token(symbol), unit_price(token(symbol), price_of(symbol), USDC)
        path = np.cumprod(np.concatenate(([1.0], 1 + column)))
        for day, level in enumerate(path):
            price = last * Fraction(float(level / path[-1])).limit_denominator(10**15)
            found.append(PricePoint(at.address, until_s - (days - day) * DAY_S, price))
    return tuple(sorted(found, key=lambda point: (point.at_s, point.token)))


def weighed(
    weights: AllocatorConfig,
    prices: Sequence[PricePoint] = (),
    targets: Mapping[str, int] | None = None,
    supplies: Sequence[tuple[str, int]] = (),
    **past: object,
) -> StepInput:
    """A step of a portfolio with this allocator; `supplies` are (symbol, whole coins) by the chain."""
    step = step_input(targets_bps=targets or PLAIN, past=history(prices=tuple(prices), **past))
    told = tuple(TokenSupply(token(symbol).address, coins * 10 ** token(symbol).decimals) for symbol, coins in supplies)
    snapshot = replace(step.snapshot, supplies=told)
    return replace(step, snapshot=snapshot, portfolio=replace(step.portfolio, weights=weights))


def bps_of(step: StepInput) -> dict[str, int]:
    """Targets by symbol."""
    return {asset.token.symbol: asset.target_bps for asset in step.portfolio.assets}
