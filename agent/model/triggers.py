"""When to act: bands, schedules, events of the market, and several of them at once."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.risk import Zone


@dataclass(frozen=True, slots=True)
class Threshold:
    """Acts when a weight is strictly further from target than the band.

    `absolute_bps` in percentage points of the portfolio, `relative_bps` in bps of the target; with both the narrower
    band counts.
    """

    absolute_bps: int | None
    relative_bps: int | None


@dataclass(frozen=True, slots=True)
class Every:
    """Acts when `every_s` seconds have passed since the last rebalance or review (1,800 to 2,419,200)."""

    every_s: int


@dataclass(frozen=True, slots=True)
class Cron:
    """Acts when a five-field cron time in `timezone` has passed since the last review."""

    expression: str
    timezone: str


Schedule = Every | Cron


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Reviews on `schedule`, acts only if `threshold` is exceeded then."""

    threshold: Threshold
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Staged:
    """Reviews on `review` and says what it would do; acts on `execution` alone, with a `threshold` only beyond its band."""

    review: Schedule
    execution: Schedule
    threshold: Threshold | None = None


@dataclass(frozen=True, slots=True)
class Drawdown:
    """Acts when the price of a token is strictly more than `fall_bps` below its highest of the last `within_s` seconds.

    `tokens` are the addresses that count; none named: every asset but the numeraire.
    """

    fall_bps: int
    within_s: int
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VolatilityJump:
    """Acts when the volatility of the last `short_s` seconds is strictly more than `factor_bps` of that of the `long_s` before them.

    `tokens` as in Drawdown.
    """

    short_s: int
    long_s: int
    factor_bps: int
    tokens: tuple[str, ...] = ()


Event = Drawdown | VolatilityJump
Single = Threshold | Every | Cron | Hybrid | Staged | Drawdown | VolatilityJump


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Acts when any of several triggers does, each by its own band and its own schedule."""

    triggers: tuple[Single, ...]


Trigger = Threshold | Every | Cron | Hybrid | Staged | Drawdown | VolatilityJump | AnyOf | Zone
