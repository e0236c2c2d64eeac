"""Settings of liquidity positions, from [lp], as text for the owner."""

from __future__ import annotations

from collections.abc import Mapping

from agent.config.schema import Config
from agent.model import Portfolio
from agent.units import format_duration


def parameters(config: Config, portfolio: Portfolio) -> Mapping[str, str]:
    """Return the settings of valued positions; none without positions."""
    if config.lp is None or not portfolio.has_pool_positions:
        return {}
    return {
        "lp": (
            f"volatility {config.lp.volatility / 100:g}% a year,"
            f" horizon {format_duration(config.lp.horizon)}"
        )
    }
