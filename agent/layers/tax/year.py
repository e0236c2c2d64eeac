"""The gain of a plan against what is left of the year's limit."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.accounting.tax_lots import PlannedGain
from agent.model import Plan, Portfolio
from agent.units import Value


def total_gain(plan_gains: Sequence[PlannedGain]) -> Value:
    """Return the sum of gains, net of losses."""
    return sum((planned_gain.gain for planned_gain in plan_gains), Fraction(0))


def is_within_year(
    portfolio: Portfolio, plan: Plan, plan_gains: Sequence[PlannedGain], unused_gain: Value
) -> bool:
    """Return whether a plan gains at most what is left of the year, or its sales gain nothing: the
    gain of gas alone holds back no purchase.
    """
    changes_raw = portfolio.asset_changes(plan.wallet_changes())
    sale_gains = [
        planned_gain for planned_gain in plan_gains if changes_raw.get(planned_gain.token, 0) < 0
    ]
    return total_gain(plan_gains) <= max(unused_gain, Fraction(0)) or total_gain(sale_gains) <= 0
