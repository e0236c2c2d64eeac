"""Research from Python: prices in, a result with frames and charts out.

    from agent import research

    result = research.backtest(prices, {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}, research.band(0.1))
    print(result)
    result.plot()

`prices` is a frame of polars or pandas, or a file. docs/python.md has recipes.
"""

from __future__ import annotations

from agent.backtest.stress.paths import SpotScenario as Scenario
from agent.backtest.tune.statistics import Objective
from agent.model import AllocationMethod, Destination
from agent.research.allocators import allocator
from agent.research.backtests import backtest, compare
from agent.research.costs import Costs
from agent.research.frames import to_pandas
from agent.research.results import Backtest, BacktestSummary, Comparison
from agent.research.signals import closes, signal
from agent.research.stress import StressTest, stress
from agent.research.triggers import band, cron, every, tracking, trigger
from agent.research.tuning import Tuning, tune

__all__ = [
    "AllocationMethod",
    "Backtest",
    "BacktestSummary",
    "Comparison",
    "Costs",
    "Destination",
    "Objective",
    "Scenario",
    "StressTest",
    "Tuning",
    "allocator",
    "backtest",
    "band",
    "closes",
    "compare",
    "cron",
    "every",
    "signal",
    "stress",
    "to_pandas",
    "tracking",
    "trigger",
    "tune",
]


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return __all__
