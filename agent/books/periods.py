"""Days, weeks, months and years of UTC that a stretch of time touches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.errors import ConfigError

KINDS = ("day", "week", "month", "year", "all")


def periods(kind: str, from_s: int, until_s: int) -> tuple[tuple[int, int], ...]:
    """(first second, first second after) of each period from `from_s` to `until_s`; weeks begin on Monday. Raises ConfigError."""
    if kind not in KINDS:
        raise ConfigError(f"--period: {kind!r} is unknown", f"choose from {', '.join(KINDS)}")
    if kind == "all":
        return ((from_s, until_s + 1),)
    found = []
    at = _floor(kind, datetime.fromtimestamp(from_s, UTC))
    while at.timestamp() <= until_s:
        after = _next(kind, at)
        found.append((int(at.timestamp()), int(after.timestamp())))
        at = after
    return tuple(found)


def year_start_s(at_s: int) -> int:
    """The first second of the year."""
    return int(_floor("year", datetime.fromtimestamp(at_s, UTC)).timestamp())


def _floor(kind: str, at: datetime) -> datetime:
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    match kind:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)
        case _:
            return day


def _next(kind: str, at: datetime) -> datetime:
    match kind:
        case "day":
            return at + timedelta(days=1)
        case "week":
            return at + timedelta(days=7)
        case "month":
            return at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)
        case _:
            return at.replace(year=at.year + 1)
