"""How far back in recorded prices a policy looks, so that a step carries no more of the past than it decides from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.model import Policy, Portfolio
from agent.model.strategies import Split
from agent.policy import events

Need = Callable[[Portfolio, Policy], int]
NEEDS: tuple[Need, ...] = (events.lookback,)
"""Each says how many seconds of hourly prices one part of the policy wants; 0 where it wants none."""


def needed_s(portfolio: Portfolio, policy: Policy, split: Split | None = None) -> int:
    """Seconds of recorded hourly prices that a step of this config carries in `History.prices`; strategies may look further back."""
    triggers = [policy.trigger, *(one.trigger for one in (split.strategies if split is not None else ()))]
    return max((need(portfolio, replace(policy, trigger=trigger)) for need in NEEDS for trigger in triggers), default=0)
