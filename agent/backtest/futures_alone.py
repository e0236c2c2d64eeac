"""A futures book without a spot portfolio, traded by whole live steps: decision, plan, guards,
journal, signer rules and bookkeeping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from agent.backtest.data import PriceTable
from agent.backtest.futures.book import FuturesPath
from agent.backtest.futures.simulate import QUOTE, FuturesResult, FuturesSettings
from agent.backtest.futures.venue import FuturesSetup, simulated_policy
from agent.backtest.settings import BacktestSpec, SimulationSettings, make_spec
from agent.backtest.simulate import Progress, simulate
from agent.model import Every
from agent.units import BPS, DAY_S

WALLET_NUMERAIRE = "USD"
"""Numeraire of a book alone."""
REVIEW_S = 28 * DAY_S
"""Interval of the spot portfolio's reviews; it holds nothing to trade."""
DUST_WALLET_COINS = Fraction(1, 10**6)
"""Wallet of a book without reserve, in whole coins."""
POOL_DEPTH_COINS = Fraction(10**9)
"""Each side of a pool through which nothing is traded, in whole coins."""


def simulate_book(
    path: FuturesPath,
    settings: FuturesSettings,
    progress: Progress | None = None,
) -> FuturesResult:
    """Simulate a book with and without the agent. The wallet holds the reserve."""
    numeraire_symbol = (
        WALLET_NUMERAIRE if WALLET_NUMERAIRE not in path.symbols else WALLET_NUMERAIRE + "_"
    )
    targets = dict.fromkeys(path.symbols, 0) | {numeraire_symbol: BPS}
    interval_s = int(np.median(np.diff(path.times_s))) if path.bar_count > 1 else 1
    spec = make_spec(targets, Every(REVIEW_S), numeraire_symbol, interval_s=interval_s)
    reserve_coins = Fraction(settings.reserve_raw, QUOTE.unit)
    market_settings = SimulationSettings(
        depth=POOL_DEPTH_COINS,
        fee_pips=0,
        start_value=reserve_coins or DUST_WALLET_COINS,
        latency_bars=settings.latency_bars,
        seed=settings.seed,
    )
    setup = replace(setup_of_settings(settings, spec, path.symbols), recorded_path=path)
    futures_result = simulate(
        spec, _price_table(path), market_settings, progress, (), setup
    ).futures
    if futures_result is None:
        raise ValueError("a simulation with futures has a book")
    return futures_result


def setup_of_settings(
    settings: FuturesSettings, spec: BacktestSpec, symbols: Sequence[str]
) -> FuturesSetup:
    """Return the futures of `settings` for a portfolio that has their symbols as assets."""
    address_by_symbol = {token.symbol: token.address for token in spec.tokens}
    collateral = spec.portfolio.numeraire
    limits = replace(settings.policy.limits, top_up_per_day_bps=None if settings.reserve_raw else 0)
    policy = replace(settings.policy, collateral=collateral.address, limits=limits)
    return FuturesSetup(
        settings,
        simulated_policy(policy),
        collateral,
        tuple((symbol, address_by_symbol[symbol]) for symbol in symbols),
    )


def _price_table(path: FuturesPath) -> PriceTable:
    """Return the indices of a path as closes; NaN where there was no new price."""
    closes = np.array(
        [
            [
                float(price) if index_s == time_s else np.nan
                for price, index_s in zip(index_prices, index_times_s, strict=True)
            ]
            for index_prices, index_times_s, time_s in zip(
                path.index_prices, path.index_times_s, path.times_s, strict=True
            )
        ]
    )
    return PriceTable(path.symbols, np.array(path.times_s, dtype=np.int64), closes)
