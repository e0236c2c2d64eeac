"""Daily prices, and a signal of momentum."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from agent import research
from agent.signals import SignalView

DAYS = 16
TIMES = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(DAYS)]
BTC = [100.0 + 3 * day * (-1) ** day for day in range(DAYS)]
ETH = [50.0 + day for day in range(DAYS)]
PRICES = pl.DataFrame({"time": TIMES, "BTC": BTC, "ETH": ETH})
TARGETS = {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}
BAND = research.band(0.05)


def momentum(view: SignalView) -> dict[str, float]:
    return {"BTC": 0.6, "ETH": 0.1} if view.prices["BTC"][-1].close > 100 else {"BTC": 0.1, "ETH": 0.2}


def day_of(moment_s: int) -> int:
    return (datetime.fromtimestamp(moment_s, UTC) - TIMES[0]).days
