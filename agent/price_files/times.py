"""Times of price files: Unix times of any unit, ISO times, and the dates that data sites write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError
from agent.price_files.frames import load_polars
from agent.price_files.numbers import PLAIN_NUMBER, cell_text
from agent.units import DAY_S, HOUR_S, format_duration, minute_text

EARLIEST_S = 1_230_768_000
"""2009-01-01, before the first coin price. Earlier numbers are no Unix seconds."""
LATEST_S = 4_102_444_800
"""2100-01-01."""
YEARS = range(1970, 2100)
"""Years of written dates; a date of another year is a slip of the pen or of a program."""
MAX_OFFSET_S = 14 * HOUR_S
"""The largest offset of a time zone from UTC, that of Kiritimati."""
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FORM_BY_LENGTH = {
    10: "%Y-%m-%d",
    16: "%Y-%m-%d %H:%M",
    19: "%Y-%m-%d %H:%M:%S",
    20: "%Y-%m-%dT%H:%M:%SZ",
}
"""ISO texts of UTC that are read as a column."""
TIME_REMEDY = "write times such as 2021-04-04T21:00:00Z"
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_CLOCK = (
    r"(?:(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.\d+)?)?(?: ?(?P<half>[AaPp][Mm]))?"
    r"|(?P<bare_hour>\d\d)-(?P<bare_half>[AaPp][Mm]))"
)
_ZONE = r"(?P<zone> ?(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))"
_REST = rf"(?:(?:[ TD]|, ){_CLOCK}{_ZONE}?|{_ZONE.replace('zone', 'date_zone')})?"
_YEAR_FIRST = re.compile(
    rf"(?P<year>\d{{4}})(?P<mark>[-/.])(?P<first>\d{{1,2}})(?P=mark)(?P<last>\d{{1,2}}){_REST}",
    re.ASCII,
)
_YEAR_LAST = re.compile(
    rf"(?P<first>\d{{1,2}})(?P<mark>[-/.])(?P<last>\d{{1,2}})(?P=mark)(?P<year>\d{{4}}){_REST}",
    re.ASCII,
)
_MONTH_FIRST = re.compile(
    rf"(?P<month>[A-Za-z]{{3,9}})[ -](?P<day>\d{{1,2}})(?:, |[ -])(?P<year>\d{{4}}){_REST}",
    re.ASCII,
)
_DAY_FIRST = re.compile(
    rf"(?P<day>\d{{1,2}})[ -](?P<month>[A-Za-z]{{3,9}})[ -](?P<year>\d{{4}}){_REST}", re.ASCII
)
_NAMED_ZONE = re.compile(
    r"\d:\d\d(?::\d\d)?(?:\.\d+)? ?(?P<zone>(?:GMT|UTC)[+-]\d+|[A-Za-z]{2,5}|[A-Za-z]+/[A-Za-z_]+)$"
)
_SHORT_YEAR = re.compile(r"(?:\d{1,2}[-/.]\d{1,2}|\d{1,2}[ -][A-Za-z]{3})[-/. ]\d\d\b(?!\d)")
_CLOCK_ALONE = re.compile(_CLOCK, re.ASCII)
_SPREADSHEET_DAYS = (32_874, 73_050)
"""1990-01-01 to 2099-12-31 as days of a spreadsheet."""


@dataclass(frozen=True, slots=True)
class _LocalTime:
    """A time as written. `is_day_open` is True if the order of its first two numbers, `first` and
    `last`, is not known: then `local` is the clock alone, on the first of January.
    """

    local: datetime
    zone: str = ""
    is_day_open: bool = False
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class ColumnTimes:
    """Unix seconds of a column, rounded down, and remarks on how they were read."""

    times_s: list[int]
    remarks: tuple[str, ...] = ()


def is_clock(cell: object) -> bool:
    """Return True for a time of a day without a date, such as 21:00."""
    return bool(_CLOCK_ALONE.fullmatch(cell_text(cell)))


def is_time(cell: object) -> bool:
    """Return True if a cell may be a time."""
    if isinstance(cell, date):
        return True
    text = cell_text(cell)
    return _unix_time(text) is not None or _local_time(text) is not None


def parse_times(cells: Sequence[object], row_numbers: Sequence[int], file_name: str) -> ColumnTimes:
    """Return the Unix seconds of a column; times without a zone are UTC. Raises ConfigError for
    cells that are no time, several zones, and dates whose order of day and month is not certain.
    """
    times_s: list[int] = []
    units: dict[str, None] = {}
    open_dates: list[tuple[int, _LocalTime]] = []
    row_by_zone: dict[str, int] = {}
    for row_number, cell in zip(row_numbers, cells, strict=True):
        if isinstance(cell, date):
            if cell.year not in YEARS:
                raise _time_error(cell_text(cell), row_number, file_name)
            times_s.append(_typed_time_s(cell))
            continue
        text = cell_text(cell)
        if (unix_time := _unix_time(text)) is not None:
            times_s.append(unix_time[0])
            units[unix_time[1]] = None
            continue
        local_time = _local_time(text)
        if local_time is None:
            raise _time_error(text, row_number, file_name)
        row_by_zone.setdefault(local_time.zone, row_number)
        if local_time.is_day_open:
            open_dates.append((len(times_s), local_time))
        times_s.append(_epoch_s(local_time.local) - _zone_offset_s(local_time.zone))
    if len(row_by_zone) > 1:
        zones = sorted(row_by_zone.items(), key=lambda zone_and_row: zone_and_row[0] or "none")
        zones_text = ", ".join(zone or "none" for zone, _ in zones)
        rows_text = ", ".join(str(row_number) for _, row_number in zones)
        raise ConfigError(
            f"{file_name}: times in several time zones: {zones_text} (first in rows {rows_text})",
            "write all of them in UTC",
        )
    remarks = []
    if times_s:
        zone, offset_s = _zone_and_offset_s(cells[0])
        instants_s = np.asarray(times_s, dtype=np.int64)
        remarks += _zone_remarks(zone, instants_s, instants_s + offset_s)
    if open_dates:
        first_row = row_numbers[open_dates[0][0]]
        remarks.append(_settle_day_order(open_dates, times_s, f"{file_name}, row {first_row}"))
    if len(units) > 1:
        remarks.append(f"Unix times in several units: {', '.join(units)}")
    return ColumnTimes(times_s, tuple(remarks))


def typed_times_s(column: Any) -> NDArray[np.int64] | None:
    """Return the Unix seconds of a column of polars with times, Unix times of one unit or ISO texts of
    one form, as parse_times does; None for any other, or with cells that are no time.
    """
    polars = load_polars()
    if column.null_count():
        return None
    if column.dtype.is_integer():
        for units_per_s in _UNITS.values():
            if column.is_between(EARLIEST_S * units_per_s, LATEST_S * units_per_s, "left").all():
                return np.asarray(column, dtype=np.int64) // units_per_s
        return None
    if column.dtype == polars.String and (form := _FORM_BY_LENGTH.get(len(column[0]))):
        moments = column.str.to_datetime(form, strict=False)
        if moments.null_count() or (moments.dt.strftime(form) != column).any():
            return None
        column = moments
    if column.dtype not in (polars.Date, polars.Datetime) or not (
        column.dt.year().is_between(YEARS.start, YEARS.stop, "left").all()
    ):
        return None
    return np.asarray(column.dt.epoch("s"), dtype=np.int64)


def typed_zone_remarks(column: Any, times_s: NDArray[np.int64]) -> list[str]:
    """Return how daily times of a column of polars were read that are in another zone than UTC."""
    zone = getattr(column.dtype, "time_zone", None)
    if zone is None:
        return []
    clocks_s = np.asarray(column.dt.replace_time_zone(None).dt.epoch("s"), dtype=np.int64)
    return _zone_remarks(zone, times_s, clocks_s)


def _zone_and_offset_s(cell: object) -> tuple[str, int]:
    """Return the zone of a cell with a time and its offset from UTC in seconds."""
    if isinstance(cell, datetime):
        return str(cell.tzinfo), int((cell.utcoffset() or timedelta(0)).total_seconds())
    local_time = _local_time(cell_text(cell))
    zone = "" if local_time is None else local_time.zone
    return zone, _zone_offset_s(zone)


def _zone_remarks(zone: str, times_s: NDArray[np.int64], clocks_s: NDArray[np.int64]) -> list[str]:
    """Return how times were read whose clocks show one time of day, another one than UTC: the day may
    be another, too.
    """
    rows = np.nonzero(clocks_s - times_s)[0]
    if not len(rows) or len(np.unique(clocks_s % DAY_S)) > 1:
        return []
    clock_text, utc_text = (minute_text(int(series[rows[0]])) for series in (clocks_s, times_s))
    return [f"times of {zone} are read as UTC: the first, {clock_text}, is {utc_text} UTC"]


def gaps_text(gaps: Sequence[tuple[int, int]]) -> str:
    """Describe gaps between times, oldest first, each by its start and its seconds: the length of the
    only one or of the longest, and where the first and the last begin.
    """
    longest_text = format_duration(max(gap_s for _, gap_s in gaps))
    first_text, last_text = (minute_text(start_s) for start_s, _ in (gaps[0], gaps[-1]))
    if len(gaps) == 1:
        return f"{longest_text} from {first_text} UTC"
    return f"at most {longest_text}, the first from {first_text}, the last from {last_text} UTC"


def join_clocks(dates: Sequence[object], clocks: Sequence[object]) -> list[str]:
    """Return the texts of a column of dates and one of clocks as one column of times."""
    return [
        f"{cell_text(day)} {cell_text(clock)}" for day, clock in zip(dates, clocks, strict=True)
    ]


def _unix_time(text: str) -> tuple[int, str] | None:
    """Return (seconds, unit) of a Unix time of any unit, or of a date such as 20210404; None if it
    is neither.
    """
    if not text or not PLAIN_NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    for unit, units_per_s in _UNITS.items():
        if EARLIEST_S * units_per_s <= number < LATEST_S * units_per_s:
            return int(number) // units_per_s, unit
    if len(text) == len("20210404") and text.isdigit():
        with suppress(ValueError):
            day = datetime.strptime(text, "%Y%m%d")
            if day.year in YEARS:
                return _epoch_s(day), "days"  # a day is one of UTC
    return None


def _local_time(text: str) -> _LocalTime | None:
    for pattern in (_YEAR_FIRST, _YEAR_LAST, _MONTH_FIRST, _DAY_FIRST):
        if (match := pattern.fullmatch(text)) is not None:
            parts = match.groupdict()
            try:
                return _from_parts(parts, pattern is _YEAR_LAST)
            except ValueError:
                return None
    return None


def _from_parts(parts: dict[str, str | None], is_year_last: bool) -> _LocalTime:
    """Return the time of a match. Raises ValueError if there is no such day, clock or zone."""
    hour = int(parts["hour"] or parts["bare_hour"] or 0)
    half = (parts["half"] or parts["bare_half"] or "").lower()
    if half:
        if not 1 <= hour <= 12:  # a clock of twelve hours
            raise ValueError("no such hour")
        hour = hour % 12 + (12 if half == "pm" else 0)
    zone = (parts["zone"] or parts["date_zone"] or "").strip()
    clock = (hour, int(parts["minute"] or 0), int(parts["second"] or 0))
    year = int(parts["year"] or 0)
    if year not in YEARS:
        raise ValueError("no such year")
    _zone_offset_s(zone)
    if is_year_last:
        first = int(parts["first"] or 0)
        last = int(parts["last"] or 0)
        return _LocalTime(datetime(year, 1, 1, *clock), zone, True, first, last)
    if parts.get("month"):
        month = _month_number(parts["month"] or "")
        return _LocalTime(datetime(year, month, int(parts["day"] or 0), *clock), zone)
    return _LocalTime(
        datetime(year, int(parts["first"] or 0), int(parts["last"] or 0), *clock), zone
    )


def _month_number(name: str) -> int:
    """Return the number of an English month or its first letters. Raises ValueError."""
    months = [number for number, month in enumerate(_MONTHS, 1) if month.startswith(name.lower())]
    if len(months) != 1:
        raise ValueError("no such month")
    return months[0]


def _settle_day_order(
    open_dates: Sequence[tuple[int, _LocalTime]], times_s: list[int], place: str
) -> str:
    """Add the day to each time of `times_s` whose order of day and month was open, and return how
    dates are read. Raises ConfigError if both orders fit all dates, or none does.
    """
    fits_month_first = all(_is_day(year_time, True) for _, year_time in open_dates)
    fits_day_first = all(_is_day(year_time, False) for _, year_time in open_dates)
    are_equal = all(year_time.first == year_time.last for _, year_time in open_dates)
    example = open_dates[0][1]
    example_text = f"{example.first:02d}/{example.last:02d}/{example.local.year}"
    if not (fits_month_first or fits_day_first):
        raise ConfigError(
            f"{place}: dates such as {example_text} fit neither month/day nor day/month in all"
            " rows",
            "write dates as 2021-04-04",
        )
    if fits_month_first and fits_day_first and not are_equal:
        raise ConfigError(
            f"{place}: {example_text} may be"
            f" {_day(example, True):%Y-%m-%d} or {_day(example, False):%Y-%m-%d}, and no row of the"
            " file decides it",
            f"write dates as {_day(example, True):%Y-%m-%d}, or add rows with a day after the 12th",
        )
    for position, year_time in open_dates:
        day_s = _epoch_s(_day(year_time, fits_month_first)) - _epoch_s(
            datetime(year_time.local.year, 1, 1)
        )
        times_s[position] += day_s
    return f"dates are read as {'month/day' if fits_month_first else 'day/month'}/year"


def _day(year_time: _LocalTime, is_month_first: bool) -> datetime:
    month, day = (
        (year_time.first, year_time.last) if is_month_first else (year_time.last, year_time.first)
    )
    return datetime(year_time.local.year, month, day)


def _is_day(year_time: _LocalTime, is_month_first: bool) -> bool:
    try:
        _day(year_time, is_month_first)
    except ValueError:
        return False
    return True


def _typed_time_s(cell: date) -> int:
    """Return the Unix seconds of a time of a Parquet file."""
    if not isinstance(cell, datetime):
        return _epoch_s(datetime(cell.year, cell.month, cell.day))
    return _epoch_s(cell) if cell.tzinfo is None else int(cell.timestamp() // 1)


def _epoch_s(local: datetime) -> int:
    return int(local.replace(tzinfo=UTC).timestamp() // 1)


def _zone_offset_s(zone: str) -> int:
    """Return the offset from UTC in seconds of a zone such as "Z", "UTC" or "+02:00". Raises
    ValueError if no zone has it.
    """
    if zone[:1] not in ("+", "-"):
        return 0
    digits = zone[1:].replace(":", "")
    minutes = int(digits[2:] or 0)
    offset_s = int(digits[:2]) * HOUR_S + minutes * 60
    if minutes > 59 or offset_s > MAX_OFFSET_S:
        raise ValueError("no such zone")
    return -offset_s if zone[0] == "-" else offset_s


def _time_error(text: str, row_number: int, file_name: str) -> ConfigError:
    message = f"{file_name}, row {row_number}: {text[:40]!r} is not a time"
    if (named_zone := _NAMED_ZONE.search(text)) is not None:
        return ConfigError(
            f"{message}: the offset of zone {named_zone['zone']} is not known",
            "write times in UTC, or with an offset such as -05:00",
        )
    if _SHORT_YEAR.match(text):
        return ConfigError(message, "write the year with four digits: 2021-04-04")
    if not PLAIN_NUMBER.fullmatch(text):
        return ConfigError(message, TIME_REMEDY)
    if _SPREADSHEET_DAYS[0] <= Decimal(text) <= _SPREADSHEET_DAYS[1]:
        return ConfigError(
            f"{message}: it may be a spreadsheet's count of days",
            "format the column as a date, 2021-04-04, before it is saved as CSV",
        )
    return ConfigError(f"{message}: neither Unix s, ms, us nor ns of 2009 to 2100", TIME_REMEDY)
