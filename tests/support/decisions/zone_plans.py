"""Zone steps of one deep pair."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from agent.model import StepInput
from tests.support.builders import price_of, with_limits
from tests.support.decisions.zones import zone_step
from tests.support.planning_worlds import PRICES

COIN = 10**6


def deep_step(share: Fraction | str, **changes: Any) -> StepInput:
    """One pair so deep that nothing moves it, and no limit in the way."""
    step = zone_step(share, **{"depth": 10**12, **changes})
    return with_limits(step, turnover_bps=None, daily_turnover_bps=None, min_trade=None)


def unit_value(step: StepInput, at: str) -> Fraction:
    of = step.portfolio.token(at)
    return price_of(of.symbol, PRICES) * Fraction(10) ** (6 - of.decimals)
