"""Tables, wishes and markets of simulations, so that tests say only what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from agent.backtest.data import PriceTable, make_price_table
from agent.backtest.settings import BacktestSpec, SimulationSettings, make_spec
from agent.backtest.simulate import SimulationResult, simulate
from agent.model import Threshold, Trigger

START_S = 1_700_000_000 - 1_700_000_000 % 3_600
HOUR_S = 3_600
COIN = 10**18
BAND = Threshold(500, None)
HALVES = {"BTC": 5_000, "USD": 5_000}
DEEP = SimulationSettings(depth=Fraction(10**9), fee_pips=1_000, start_value=Fraction(10_000))
"""Fees of 10 bps and next to no impact."""


def hourly(**closes: Sequence[float]) -> PriceTable:
    """One bar an hour."""
    bars = len(next(iter(closes.values())))
    return make_price_table([START_S + HOUR_S * bar for bar in range(bars)], closes)


def random_table(seed: int, bars: int, symbols: Sequence[str] = ("BTC", "ETH"), volatility: float = 0.03) -> PriceTable:
    """Geometric random walks from 100, in prices of six digits."""
    steps = np.random.default_rng(seed).normal(0, volatility, (bars, len(symbols)))
    paths = np.round(100 * np.exp(np.cumsum(steps, axis=0)), 4)
    return hourly(**{symbol: paths[:, column].tolist() for column, symbol in enumerate(symbols)})


def halves(trigger: Trigger = BAND) -> BacktestSpec:
    """Half of it in BTC, half in USD, which the tables lack."""
    return make_spec(HALVES, trigger, "USD")


def simulated(table: PriceTable, wanted: BacktestSpec | None = None, **changes: object) -> SimulationResult:
    """A simulation in a deep market, apart from `changes` of its settings."""
    return simulate(wanted or halves(), table, replace(DEEP, **changes))  # type: ignore[arg-type]  # field names, checked by replace
