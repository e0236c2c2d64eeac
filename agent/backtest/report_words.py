"""Numbers and times as a report writes them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction

from agent.units import floor_int

NONE = "—"
MINUS = "−"
LONGEST_NAME = 24


def named(symbol: str) -> str:
    """A symbol as charts and headings show it; tables have all of it."""
    return symbol if len(symbol) <= LONGEST_NAME else f"{symbol[: LONGEST_NAME - 1]}…"


def money(value: Fraction, decimals: int) -> str:
    """Exact base units as whole coins with thousands set apart: two places from 1 on, else four digits of what there is, cut."""
    coins = abs(value) / Fraction(10) ** decimals
    places = 2
    if 0 < coins < 1:
        places = min(18, 4 - math.ceil(math.log10(coins)))
    units = floor_int(coins * 10**places)
    text = f"{units // 10**places:,}.{units % 10**places:0{places}d}"
    return f"{MINUS}{text}" if value < 0 and units else text


def percent(share: float, places: int = 1, signed: bool = False) -> str:
    """0.1234 as 12.3%; a dash for what is no number."""
    if not math.isfinite(share):
        return NONE
    text = f"{abs(share) * 100:,.{places}f}"
    if not any(digit not in "0.," for digit in text):
        return f"{text}%"
    return f"{MINUS if share < 0 else '+' if signed else ''}{text}%"


def ratio(value: float, places: int = 2) -> str:
    """A plain number; a dash for what is none."""
    if not math.isfinite(value):
        return NONE
    text = f"{abs(value):,.{places}f}"
    return f"{MINUS if value < 0 and float(text.replace(',', '')) else ''}{text}"


def day(time_s: int) -> str:
    """4 Apr 2021, UTC."""
    at = datetime.fromtimestamp(time_s, UTC)
    return f"{at.day} {at:%b %Y}"


def days(first_s: int, last_s: int) -> str:
    """4 Apr 2021 to 31 Dec 2022, or one day."""
    first, last = day(first_s), day(last_s)
    return first if first == last else f"{first} to {last}"


def minute(time_s: int) -> str:
    """2021-04-04 13:00, UTC."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M}"


def length(seconds: float) -> str:
    """Days, hours of what is shorter than two days, minutes of what is shorter than an hour."""
    days = seconds / 86_400
    if seconds < 3_600:
        return counted(round(seconds / 60), "minute")
    return counted(round(days), "day") if days >= 2 else counted(round(seconds / 3_600), "hour")


def counted(number: int, thing: str) -> str:
    """1 rebalance, 23 rebalances."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
