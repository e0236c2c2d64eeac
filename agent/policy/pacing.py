"""The arithmetic of rounds: how large the next one is, when it is due, and what chance has to say about both."""

from __future__ import annotations

from fractions import Fraction

from agent.model import Campaign, Draw, Pace, Style
from agent.units import BPS, Value, ceil_int

MILLION = 1_000_000
LATE = 2
"""Rounds that are cheaper than impact may take so many times their mean time in all."""


def spread(ppm: int, jitter_bps: int) -> Fraction:
    """Chance in millionths as a factor around one: from 1 - jitter to 1 + jitter, evenly."""
    jitter = Fraction(jitter_bps, BPS)
    return 1 - jitter + 2 * jitter * Fraction(ppm, MILLION - 1)


def fair_share(campaign: Campaign) -> Value:
    """What a round moves on average, numeraire base units."""
    return campaign.wish / campaign.rounds


def size(campaign: Campaign, draw: Draw) -> Value:
    """What the next round moves, unless less is left: each is drawn by itself, so that no round tells of another (T15)."""
    return fair_share(campaign) * spread(draw.size_ppm, campaign.pace.size_jitter_bps)


def part(campaign: Campaign, draw: Draw, left: Value) -> Fraction:
    """The same as a part of what is `left` to move; the round that finds no more than its size takes all of it."""
    wanted = size(campaign, draw)
    return Fraction(1) if left <= wanted else wanted / left


def interval_s(pace: Pace, rounds: int) -> int:
    """Mean time between two rounds, seconds."""
    return max(1, pace.over_s // rounds if pace.style is Style.TWAP else pace.interval_s)


def wait_s(campaign: Campaign, draw: Draw) -> int:
    """Seconds from one round to the next."""
    return ceil_int(interval_s(campaign.pace, campaign.rounds) * spread(draw.wait_ppm, campaign.pace.time_jitter_bps))


def times(pace: Pace, rounds: int, began_s: int) -> tuple[int, int]:
    """Until when a round may begin, and when a campaign is over, chain seconds: a mean wait later, since it may have been paused."""
    if pace.style is Style.LIMIT:
        return began_s + pace.patience_s, began_s + pace.patience_s
    mean_s = interval_s(pace, rounds)
    length_s = pace.over_s if pace.style is Style.TWAP else LATE * rounds * mean_s
    return began_s + length_s, began_s + length_s + mean_s
