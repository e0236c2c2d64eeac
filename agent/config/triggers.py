"""policy.trigger: when to act."""

from __future__ import annotations

from typing import Literal

from agent.config.fields import Duration, Share
from agent.config.table import Table


class ThresholdTable(Table):
    """Act beyond a band."""

    kind: Literal["threshold"]
    absolute: Share | None = None
    relative: Share | None = None


class TimeTable(Table):
    """Act on a schedule."""

    kind: Literal["time"]
    every: Duration | None = None
    cron: str | None = None
    timezone: str | None = None


class HybridTable(Table):
    """Look on a schedule, act beyond a band."""

    kind: Literal["hybrid"]
    absolute: Share | None = None
    relative: Share | None = None
    every: Duration | None = None
    cron: str | None = None
    timezone: str | None = None
