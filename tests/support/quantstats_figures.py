"""Figures of daily returns by quantstats, which only `make slow` installs (locks/requirements-figures.lock)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

DAYS_A_YEAR = 365


@dataclass(frozen=True, slots=True)
class QuantstatsFigures:
    """Whole return, and annual growth, volatility, Sharpe ratio and maximum drawdown."""

    whole_return: float
    cagr: float
    volatility: float
    sharpe: float
    max_drawdown: float


def quantstats_figures(returns: Sequence[float]) -> QuantstatsFigures:
    """Return the figures of one return a day; skip where quantstats is not installed."""
    stats = pytest.importorskip("quantstats.stats", reason="quantstats is installed by make slow")
    import pandas

    series = pandas.Series(returns, index=pandas.date_range("2024-01-01", periods=len(returns)))
    return QuantstatsFigures(
        whole_return=stats.comp(series),
        cagr=stats.cagr(series, periods=DAYS_A_YEAR),
        volatility=stats.volatility(series, periods=DAYS_A_YEAR),
        sharpe=stats.sharpe(series, periods=DAYS_A_YEAR),
        max_drawdown=stats.max_drawdown(series),
    )
