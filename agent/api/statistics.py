"""Volatility, Sharpe ratio and drawdown of daily returns, by empyrical-reloaded where the extra `analysis` is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agent.books.returns import Span

DAY_S = 86_400
DAYS_A_YEAR = 365
FEWEST_DAYS = 5
MISSING = "needs the extra analysis: pip install 'trimtab[analysis]'"


def daily(parts: Sequence[Span]) -> list[float]:
    """Return of each UTC day, what came and went left out; days without a look count as nothing happening."""
    days: dict[int, float] = {}
    for part in parts:
        if part.factor is not None:
            day = part.end.chain_s // DAY_S
            days[day] = days.get(day, 1.0) * float(part.factor)
    return [days.get(day, 1.0) - 1 for day in range(min(days), max(days) + 1)] if days else []


def statistics(parts: Sequence[Span]) -> dict[str, Any] | None:
    """Per year of 365 days, risk-free rate zero; None for fewer than five days, `missing` where the library is not installed."""
    returns = daily(parts)
    if len(returns) < FEWEST_DAYS:
        return None
    try:
        import empyrical
        import numpy as np
    except ImportError:
        return {"days": len(returns), "volatility": None, "sharpe": None, "max_drawdown": None, "missing": MISSING}
    series = np.array(returns)
    return {
        "days": len(returns),
        "volatility": _known(empyrical.annual_volatility(series, annualization=DAYS_A_YEAR)),
        "sharpe": _known(empyrical.sharpe_ratio(series, annualization=DAYS_A_YEAR)),
        "max_drawdown": _known(empyrical.max_drawdown(series)),
    }


def _known(value: Any) -> float | None:
    found = float(value)
    return round(found, 6) if math.isfinite(found) else None
