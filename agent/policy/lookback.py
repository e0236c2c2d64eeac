"""How far back in recorded prices a policy looks, so that a step carries no more of the past than it decides from."""

from __future__ import annotations

from collections.abc import Callable

from agent.model import Policy, Portfolio
from agent.policy import events

Need = Callable[[Portfolio, Policy], int]
NEEDS: tuple[Need, ...] = (events.lookback,)
"""Each says how many seconds of hourly prices one part of the policy wants; 0 where it wants none."""


def needed_s(portfolio: Portfolio, policy: Policy) -> int:
    """Seconds of recorded hourly prices that a step of this config carries in `History.prices`."""
    return max((need(portfolio, policy) for need in NEEDS), default=0)
