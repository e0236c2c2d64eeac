"""Price paths and settings of simulated futures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.backtest.funding import FundingRateSeries
from agent.backtest.futures.book import FuturesPath, PerpVenueSettings, futures_path
from agent.backtest.futures.simulate import FuturesSettings
from agent.model.futures import FuturesLimits, FuturesPolicy, FuturesTarget
from tests.support.backtests import HOUR_S, START_S, hourly, random_table
from tests.support.perpetuals.accounts import ONE_TIER

E18 = 10**18
LOTS = (("BTC", 10**15), ("ETH", 10**15))
LIMITS = FuturesLimits(40_000, 8_000, 10_000, 0, 1_000, 500, 500, 500, 1_000, 500, 3 * HOUR_S)
VENUE = PerpVenueSettings(ONE_TIER, fee_ppm=1_000, slippage_bps=10, penalty_ppm=25_000, lots=LOTS)
FREE = replace(VENUE, fee_ppm=0, slippage_bps=0)
SETTINGS = FuturesSettings(
    FuturesPolicy((FuturesTarget("BTC", 5_000), FuturesTarget("ETH", -5_000)), 20_000, 500, LIMITS),
    VENUE,
    collateral_raw=10_000 * E18,
    reserve_raw=0,
    latency_bars=0,
    seed=0,
)


def rates(*values: float, symbol: str = "BTC", first: int = 0) -> FundingRateSeries:
    """One rate an hour."""
    times = START_S + HOUR_S * np.arange(first, first + len(values), dtype=np.int64)
    return FundingRateSeries(symbol, times, np.array(values))


def long_btc(leverage_bps: int = 20_000) -> FuturesSettings:
    """A long of BTC alone without fees, in whole coins of 100."""
    policy = replace(SETTINGS.policy, targets=(FuturesTarget("BTC", 10_000),), leverage_bps=leverage_bps)
    return replace(SETTINGS, policy=policy, venue=FREE)


def moves(*prices: float) -> FuturesPath:
    return futures_path(hourly(BTC=prices))


def random_path(seed: int, bars: int = 60, volatility: float = 0.03) -> FuturesPath:
    chance = np.random.default_rng(seed)
    funding = [rates(*chance.normal(0, 0.001, bars).tolist(), symbol=symbol) for symbol in ("BTC", "ETH")]
    return futures_path(random_table(seed, bars, volatility=volatility), funding)
