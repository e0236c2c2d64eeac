"""Funding of hypothetical shorts as large as each holding: rates from a file, and their payments.

Pure arithmetic on rates; no position is simulated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.data import TIME_COLUMNS, unix_seconds
from agent.errors import ConfigError
from agent.price_files.frames import load_polars, read_frame
from agent.price_files.times import gaps_text
from agent.units import (
    YEAR_S,
    Value,
    floor_int,
    format_duration,
    minute_text,
    pluralize,
    safe_label,
)

HIGH_YEARLY_RATE = 1.0
"""Yearly funding rates above the whole notional are probably in percent."""


MAX_INTERVAL_FACTOR = 1.5
"""Factor by which an interval may differ from the usual one; the times of venues deviate slightly.
"""


Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FundingRateSeries:
    """Funding rates: `rates[i]` is what longs paid shorts at `times_s[i]` (Unix seconds,
    ascending), as a share of notional for the preceding interval.
    """

    symbol: str
    times_s: Times
    rates: NDArray[np.float64]

    @property
    def usual_interval_s(self) -> int:
        """Median interval between times, seconds; 0 for a single time."""
        return int(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else 0


@dataclass(frozen=True, slots=True)
class FundingCarry:
    """Funding that a short of the holding's size received (negative: paid) at each of `times_s`.

    `payments` are numeraire base units, each rounded down, against the holder; `notionals` are the
    holdings, rounded down too. `durations_s` is the duration of each rate.
    """

    symbol: str
    times_s: Times
    payments: tuple[int, ...]
    notionals: tuple[int, ...]
    durations_s: tuple[int, ...]

    @property
    def total(self) -> Value:
        """All payments, numeraire base units."""
        return Fraction(sum(self.payments))

    @property
    def mean_notional(self) -> Value:
        """Mean of the holdings at these times, numeraire base units."""
        return Fraction(sum(self.notionals), len(self.notionals))

    @property
    def notional_seconds(self) -> int:
        """Sum of holding times duration, in base units times seconds."""
        return sum(
            notional * duration_s
            for notional, duration_s in zip(self.notionals, self.durations_s, strict=True)
        )

    @property
    def yearly_rate(self) -> float | None:
        """Carry per year of 365 days, as a share of the holding; None without a holding or known
        duration.
        """
        return _yearly_carry([self])


@dataclass(frozen=True, slots=True)
class FundingSummary:
    """Carry of each symbol with rates; `digest` is the SHA-256 of those rates."""

    carries: tuple[FundingCarry, ...]
    digest: str

    @property
    def total(self) -> Value:
        """Total over all symbols, numeraire base units."""
        return sum((carry.total for carry in self.carries), Fraction(0))

    @property
    def yearly_rate(self) -> float | None:
        """Carry per year of all symbols together; see FundingCarry."""
        return _yearly_carry(self.carries)


def _yearly_carry(carries: Sequence[FundingCarry]) -> float | None:
    notional_seconds = sum(carry.notional_seconds for carry in carries)
    if not notional_seconds:
        return None
    return float(Fraction(sum(sum(carry.payments) for carry in carries) * YEAR_S, notional_seconds))


def rename_funding_symbols(
    series: Sequence[FundingRateSeries], symbol_by_file_symbol: Mapping[str, str]
) -> tuple[FundingRateSeries, ...]:
    """Rename the series to the config's symbols, by `symbol_by_file_symbol`. Raises ConfigError if two get
    one name.
    """
    renamed_series = tuple(
        replace(
            rate_series,
            symbol=symbol_by_file_symbol.get(rate_series.symbol, rate_series.symbol),
        )
        for rate_series in series
    )
    if len({rates_of_symbol.symbol for rates_of_symbol in renamed_series}) < len(renamed_series):
        raise ConfigError(
            "--as: two symbols of the funding file get the same name",
            "give each symbol a different name",
        )
    return renamed_series


def require_prices(
    series: Sequence[FundingRateSeries], symbols: Sequence[str], bar_times_s: Times
) -> None:
    """Raise ConfigError for rates of symbols without prices (`symbols`), and for rates that are all
    outside the simulated bars.
    """
    for rate_series in series:
        if rate_series.symbol not in symbols:
            raise ConfigError(
                f"--funding: {rate_series.symbol} has rates but no prices",
                "add its prices, remove its rows, or map it with --as to a symbol with prices:"
                f" {', '.join(symbols)}",
            )
        if not within_bars_mask(rate_series, bar_times_s).any():
            rates_range, bars_range = (
                f"from {minute_text(int(times[0]))} to {minute_text(int(times[-1]))}"
                for times in (rate_series.times_s, bar_times_s)
            )
            raise ConfigError(
                f"--funding: the rates of {rate_series.symbol}, {rates_range}, are outside the simulation,"
                f" {bars_range}",
                "use prices and rates of the same period, or remove its rows",
            )


def funding_carry(
    series: FundingRateSeries, bar_times_s: Times, holding_value_at: Callable[[int], Value]
) -> FundingCarry:
    """Return the payments at the times of the series within the bars.

    `holding_value_at` returns the holding after a bar, at its price, numeraire base units. Each time uses
    the newest bar until then, so no later price or trade changes a payment.
    """
    is_within = within_bars_mask(series, bar_times_s)
    usual_interval_s = series.usual_interval_s
    times_s = series.times_s[is_within]
    bar_indices = np.searchsorted(bar_times_s, times_s, side="right") - 1
    holding_values = [holding_value_at(bar) for bar in bar_indices.tolist()]
    durations_s = np.minimum(
        np.diff(series.times_s, prepend=series.times_s[0] - usual_interval_s), usual_interval_s
    )[is_within]
    rates = [Fraction(str(rate)) for rate in series.rates[is_within].tolist()]
    payments = tuple(
        floor_int(holding_value * rate)
        for holding_value, rate in zip(holding_values, rates, strict=True)
    )
    return FundingCarry(
        series.symbol,
        times_s,
        payments,
        tuple(floor_int(holding_value) for holding_value in holding_values),
        tuple(durations_s.tolist()),
    )


def funding_notes(series: FundingRateSeries, bar_times_s: Times) -> list[str]:
    """Return notes on rates that start late, end early, are outside the bars, have irregular
    intervals, or look like percent.
    """
    times_s = series.times_s
    usual_interval_s = series.usual_interval_s
    notes = []
    note_prefix = f"funding: {series.symbol}"
    is_within = within_bars_mask(series, bar_times_s)
    if times_s[0] - bar_times_s[0] > usual_interval_s:
        notes.append(
            f"{note_prefix} starts at {minute_text(int(times_s[0]))}, after the simulation starts"
        )
    if bar_times_s[-1] - times_s[-1] > usual_interval_s:
        notes.append(
            f"{note_prefix} ends at {minute_text(int(times_s[-1]))}, before the simulation ends"
        )
    if outside_count := int((~is_within).sum()):
        notes.append(
            f"{note_prefix} has {pluralize(outside_count, 'rate')} outside the simulation, ignored"
        )
    intervals_s = np.diff(times_s)
    gaps = [
        (int(times_s[row]), int(intervals_s[row]))
        for row in np.nonzero(intervals_s > MAX_INTERVAL_FACTOR * usual_interval_s)[0]
    ]
    if gaps:
        notes.append(
            f"{note_prefix} has {pluralize(len(gaps), 'interval')} longer than usual,"
            f" {gaps_text(gaps)}; missing rates are left out, of the yearly carry too"
        )
    if short_interval_count := int((intervals_s * MAX_INTERVAL_FACTOR < usual_interval_s).sum()):
        notes.append(
            f"{note_prefix} has {pluralize(short_interval_count, 'interval')} shorter than usual,"
            f" at least {format_duration(int(intervals_s.min()))}"
        )
    yearly_rate = (
        float(np.median(np.abs(series.rates))) * YEAR_S / usual_interval_s
        if usual_interval_s
        else 0.0
    )
    if yearly_rate > HIGH_YEARLY_RATE:
        notes.append(
            f"{note_prefix} has rates of {100 * yearly_rate:,.0f} % a year: they may be percent instead of shares"
        )
    return notes


def funding_digest(series: Sequence[FundingRateSeries]) -> str:
    """Return the SHA-256 of symbols, times and rates."""
    hasher = hashlib.sha256("\n".join(named_series.symbol for named_series in series).encode())
    for rate_series in series:
        hasher.update(np.ascontiguousarray(rate_series.times_s, dtype="<i8").tobytes())
        hasher.update(np.ascontiguousarray(rate_series.rates, dtype="<f8").tobytes())
    return hasher.hexdigest()


def within_bars_mask(series: FundingRateSeries, bar_times_s: Times) -> NDArray[np.bool_]:
    """Return a mask of the times of the series from the first bar to the last."""
    is_within: NDArray[np.bool_] = (series.times_s >= bar_times_s[0]) & (
        series.times_s <= bar_times_s[-1]
    )
    return is_within


def read_funding(path: Path) -> tuple[FundingRateSeries, ...]:
    """Read funding rates by symbol in file order, from the columns time, symbol and rate. A rate is
    a share of notional per interval, positive if longs pay shorts.

    Raises ConfigError as read_frame does, and for rates that are not a number or beyond the whole
    notional.
    """
    polars = load_polars()
    option = "--funding"
    frame = read_frame(polars, path, option)
    time_column = next((column for column in TIME_COLUMNS if column in frame.columns), None)
    if time_column is None or not {"symbol", "rate"} <= set(frame.columns):
        raise ConfigError(
            f"{option}: {path.name} needs columns time, symbol and rate; it has"
            f" {', '.join(frame.columns)[:200]}",
            "rate is the share of notional that longs pay shorts in an interval, such as 0.0001",
        )
    frame = frame.select(
        polars.Series(time_column, unix_seconds(frame[time_column], path)),
        polars.col("symbol").cast(polars.String),
        "rate",
    )
    for column in ("symbol", "rate"):
        if frame[column].null_count():
            row = int(frame[column].is_null().arg_true()[0])
            raise ConfigError(
                f"{option}: {path.name}, row {row + 1}: no {column}",
                f"remove rows without a {column}",
            )
    if not frame["rate"].dtype.is_numeric():
        raise ConfigError(
            f"{option}: {path.name}: column 'rate' holds no numbers",
            "write plain decimals such as 0.0001",
        )
    frame = frame.with_columns(polars.col("rate").cast(polars.Float64)).with_row_index("row")
    _require_valid_rates(polars, frame, f"{option}: {path.name}")
    unordered_rows = frame.with_columns(
        polars.col(time_column).diff().over("symbol").alias("step")
    ).filter(polars.col("step") <= 0)
    if unordered_rows.height:
        order_problem = "a repeated" if unordered_rows["step"][0] == 0 else "an unordered"
        raise ConfigError(
            f"{option}: {path.name}, row {unordered_rows['row'][0] + 1}: {unordered_rows['symbol'][0]!r} has"
            f" {order_problem} time",
            "sort the rows by time, without duplicates",
        )
    symbols = frame["symbol"].unique(maintain_order=True).to_list()
    symbol_frames = [frame.filter(polars.col("symbol") == symbol) for symbol in symbols]
    return tuple(
        FundingRateSeries(
            str(rated_symbol), symbol_frame[time_column].to_numpy(), symbol_frame["rate"].to_numpy()
        )
        for rated_symbol, symbol_frame in zip(symbols, symbol_frames, strict=True)
    )


def _require_valid_rates(polars: Any, frame: Any, message_prefix: str) -> None:
    if any(safe_label(symbol, "") != symbol for symbol in frame["symbol"].unique().to_list()):
        raise ConfigError(
            f"{message_prefix}: a symbol is not a plain name",
            "use at most 16 letters, digits and ._- characters",
        )
    invalid_rows = frame.filter(~(polars.col("rate").abs() <= 1))  # also NaN
    if invalid_rows.height:
        rate = invalid_rows["rate"][0]
        message = f"{message_prefix}, row {invalid_rows['row'][0] + 1}: {invalid_rows['symbol'][0]!r} has a rate of {rate}"
        if np.isfinite(rate):
            raise ConfigError(
                f"{message}, more than the whole notional: it looks like percent",
                "write a share: 0.0001 for 0.01%",
            )
        raise ConfigError(message, "write a share of notional such as 0.0001, or remove the row")
