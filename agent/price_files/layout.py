"""Which columns of a price file are times, symbols and closes, from its header or from its bars.

Names count without case, spaces and signs: "Open Time" is `opentime`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum

from agent.errors import ConfigError
from agent.price_files.numbers import EMPTY_WORDS, cell_text, is_number
from agent.price_files.table import CellTable, Row
from agent.price_files.times import is_clock, is_time, parse_times
from agent.units import DAY_S, safe_label
from agent.weights.asset_classes import FIAT_SYMBOLS

TIME_NAMES = (
    "unix", "unixtimestamp", "opentime", "timeopen", "starttime", "startat", "timestamp", "time", "dt",
    "datetime", "date", "snappedat", "timestamputc", "timeutc", "datetimeutc", "dateutc",
    "observationdate", "gmttime", "ts", "mts", "start", "ticks", "closetime", "timeclose", "endtime",
)  # fmt: skip
"""Names of times, the first in a file counts; the last three are ends of bars."""
END_NAMES = ("closetime", "timeclose", "endtime")
SYMBOL_NAMES = (
    "symbol", "ticker", "pair", "asset", "coin", "currency", "instrument", "instid", "market",
)  # fmt: skip
CLOSE_NAMES = (
    "close", "closeprice", "closingprice", "closelast", "price", "last", "lastprice", "latest",
)  # fmt: skip
BAR_NAMES = ("open", "high", "low")
INDEX_NAMES = ("unnamed0", "index", "id")
"""Names of a column that counts rows, as pandas writes it, or has times (Huobi)."""
_NAME_BY_LETTER = {
    "t": "opentime", "T": "closetime", "s": "symbol", "o": "open", "h": "high", "l": "low",
    "c": "close", "v": "volume",
}  # fmt: skip
"""Names of candles with letters as keys (Hyperliquid, Polygon)."""
DOLLAR_NAMES = ("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USD", "DAI")
"""The dollar, and stablecoins in which exchanges quote."""
CURRENCY_BY_NAME = dict.fromkeys(DOLLAR_NAMES, "USD") | {name: name for name in FIAT_SYMBOLS}
_CURRENCY_SIGNS = str.maketrans({"$": "usd", "€": "eur", "£": "gbp", "¥": "jpy"})
_ADJUSTED = "adjclose"
FIELD_NAMES = frozenset(
    {*BAR_NAMES, *CLOSE_NAMES, _ADJUSTED, "volume", "vol", "dividends", "stocksplits", "bid", "ask"}
)
"""Names that are no symbols."""
TRADE_NAMES = frozenset({"side", "takerside", "isbuyermaker", "tickdirection"})
_READ_NAMES = frozenset({*TIME_NAMES, *SYMBOL_NAMES, *FIELD_NAMES, *TRADE_NAMES})
LONGEST_BAR_S = 32 * DAY_S
"""Longest time between the start and the end of a bar: a month."""
SAMPLE_ROWS = 8
"""Rows by which a layout is recognised."""
_LONG_FORM = "time,symbol,close"
_FORMS = f"{_LONG_FORM}, or time and one for each symbol"
_PAIR_SIGNS = re.compile(r"[/:]")


class LayoutForm(Enum):
    """Where the symbol of a close stands."""

    LONG = "a row for each time and symbol"
    WIDE = "a column for each symbol"
    SINGLE = "one symbol"


@dataclass(frozen=True, slots=True)
class BarColumns:
    """Columns of a bar's prices."""

    open: int
    high: int
    low: int
    close: int


@dataclass(frozen=True, slots=True)
class PriceLayout:
    """Columns of a file. `close_columns` are the columns of closes by symbol; with a symbol column,
    or one symbol, the symbol is "".

    `currency` is that of the closes, if their column's name has it. `clock_column` is the time of
    day beside a date. `bars` are the columns of each bar's prices, None without. `has_end_times` is
    True if times are the ends of bars. `unused_names` are the columns that are not read.
    """

    form: LayoutForm
    time_column: int
    close_columns: tuple[tuple[str, int], ...]
    currency: str = ""
    symbol_column: int | None = None
    clock_column: int | None = None
    volume_column: int | None = None
    bars: BarColumns | None = None
    has_end_times: bool = False
    unused_names: tuple[str, ...] = ()


def normalized_name(name: str) -> str:
    """Return a column's name in small letters, without spaces and signs but those of currencies."""
    return re.sub(r"[^a-z0-9]", "", name.lower().translate(_CURRENCY_SIGNS))


def file_symbol(name: str) -> str:
    """Return a symbol without the signs of a pair: BTC-USDT for BTC/USDT."""
    return _PAIR_SIGNS.sub("-", name.strip())


def read_layout(table: CellTable, file_name: str) -> tuple[PriceLayout, CellTable]:
    """Return the layout of a table, and the table from its first row of data. Raises ConfigError
    that shows the header and the change to make.
    """
    first_rows, rows = table.split_rows(SAMPLE_ROWS)
    table = replace(table, rows=rows)
    _require_rows(first_rows, file_name)
    if table.header is None:
        return _headerless_layout(len(first_rows[0]), file_name), table
    names = table.header
    field_columns: frozenset[int] = frozenset()
    if (two_line_header := _two_line_header(names, first_rows)) is not None:
        names, field_columns = two_line_header
        header_lines = 2 if _is_index_line(first_rows[1]) else 1
        first_rows = first_rows[header_lines:]
        _require_rows(first_rows, file_name)
        for _ in range(header_lines):
            next(rows)
    return _Header(names, first_rows, file_name, field_columns).layout(), table


def _require_rows(first_rows: Sequence[Row], file_name: str) -> None:
    """Raise ConfigError without a row below the header."""
    if not first_rows:
        raise ConfigError(f"{file_name}: is empty: it has a header, but no rows", "add prices")


def _two_line_header(
    names: Sequence[str], first_rows: Sequence[Row]
) -> tuple[tuple[str, ...], frozenset[int]] | None:
    """Return one name for each column of a header in two lines, fields and tickers in either order
    (yfinance), and the columns of fields other than closes; None if it is none. A close has its
    ticker as a name, other fields both.
    """
    if len(first_rows) < 2:  # the second line, and data
        return None
    second = [cell_text(cell) for cell in first_rows[0]]
    lines = (list(names), second)
    are_fields = [all(normalized_name(cell) in FIELD_NAMES for cell in line[1:]) for line in lines]
    if len(names) < 2 or are_fields[0] == are_fields[1] or not all(second[1:]):
        return None
    if any(is_number(cell) for cell in second[1:]):
        return None
    fields, tickers = lines if are_fields[0] else lines[::-1]
    column_names = ["time"]
    field_columns = set()
    for column, (field, ticker) in enumerate(zip(fields[1:], tickers[1:], strict=True), start=1):
        if normalized_name(field) == "close":
            column_names.append(ticker)
        else:
            column_names.append(f"{field} of {ticker}")
            field_columns.add(column)
    return tuple(column_names), frozenset(field_columns)


def _is_index_line(row: Row) -> bool:
    """Return True for a line that only names the index, as pandas writes it."""
    return bool(cell_text(row[0])) and not any(cell_text(cell) for cell in row[1:])


def _headerless_layout(column_count: int, file_name: str) -> PriceLayout:
    """Return the layout of rows without a header: (time, close), or candles, whose order
    their prices tell (read.py).
    """
    if column_count == 2:  # time and price
        return PriceLayout(LayoutForm.SINGLE, 0, (("", 1),))
    if column_count < 5:  # a time and the four prices of a bar
        raise ConfigError(
            f"{file_name}: has no header, and {column_count} columns are neither closes nor bars",
            f"write a first line such as {_LONG_FORM}",
        )
    return CANDLE_LAYOUTS[0]


CANDLE_LAYOUTS = (
    PriceLayout(LayoutForm.SINGLE, 0, (("", 4),), bars=BarColumns(1, 2, 3, 4)),
    PriceLayout(LayoutForm.SINGLE, 0, (("", 4),), bars=BarColumns(3, 2, 1, 4)),
    PriceLayout(LayoutForm.SINGLE, 0, (("", 2),), bars=BarColumns(1, 3, 4, 2)),
    PriceLayout(LayoutForm.SINGLE, 0, (("", 2),), bars=BarColumns(5, 3, 4, 2)),
)
"""Orders of candles without a header: open, high, low, close (Binance, Kraken, OKX, Bybit); low,
high, open, close (Coinbase); open, close, high, low (Bitfinex, KuCoin); volume, close, high, low,
open (Gate).
"""


class _Header:
    """A header with its first rows. `field_columns` are those of a header in two lines that hold
    other fields than closes.
    """

    def __init__(
        self,
        names: Sequence[str],
        first_rows: Sequence[Row],
        file_name: str,
        field_columns: frozenset[int],
    ) -> None:
        self._names = names
        name_by_letter = _NAME_BY_LETTER if {*"tohlc"} <= {*names} else {}
        self._keys = [name_by_letter.get(name, normalized_name(name)) for name in names]
        self._rows = first_rows
        self._file_name = file_name
        self._field_columns = field_columns

    def layout(self) -> PriceLayout:
        """Return the layout. Raises ConfigError."""
        self._require_different_names()
        time_column = self._time_column()
        clock_column = self._clock_column(time_column)
        symbol_column = self._symbol_column()
        close_column, currency = self._close_column()
        if trade_names := [
            self._names[i] for i, key in enumerate(self._keys) if key in TRADE_NAMES
        ]:
            raise self._error(
                f"has a column {trade_names[0]!r}: these are trades, not closes",
                "download candles (klines, OHLC) instead, or make one row for each hour or day",
            )
        if symbol_column is None and close_column is None:
            return self._wide_layout(time_column, clock_column)
        if close_column is None:
            raise self._error(
                "has a column of symbols but no column close",
                "rename the column of closing prices to close",
            )
        volume_column = self._column("volume")
        bars = self._bar_columns(close_column)
        read_columns = {time_column, clock_column, symbol_column, close_column, volume_column}
        if bars is not None:
            read_columns |= {bars.open, bars.high, bars.low}
        return PriceLayout(
            LayoutForm.SINGLE if symbol_column is None else LayoutForm.LONG,
            time_column,
            (("", close_column),),
            currency,
            symbol_column,
            clock_column,
            volume_column,
            bars,
            self._keys[time_column] in END_NAMES,
            self._unused_names(read_columns),
        )

    def _bar_columns(self, close_column: int) -> BarColumns | None:
        candidates = [
            self._currency_by_column(name) | self._currency_by_column(f"{name}price")
            for name in BAR_NAMES
        ]
        if not all(candidates):
            return None
        open_column, high_column, low_column = map(min, candidates)
        return BarColumns(open_column, high_column, low_column, close_column)

    def _wide_layout(self, time_column: int, clock_column: int | None) -> PriceLayout:
        columns = [
            column
            for column, name in enumerate(self._names)
            if column not in (time_column, clock_column) and not self._is_counter(column, name)
        ]
        field_columns = [
            column
            for column in columns
            if self._keys[column] in FIELD_NAMES or self._keys[column] in TIME_NAMES
        ]
        field_names = [self._names[column] for column in field_columns]
        if field_names and not any(self._keys[column] in TIME_NAMES for column in field_columns):
            raise self._error(
                f"has a column {field_names[0]!r} but neither close nor symbol",
                f"remove {', '.join(map(repr, field_names))}, if the other columns are prices"
                if len(field_columns) < len(columns)
                else f"name the columns {_LONG_FORM}; without symbol the file's name counts",
            )
        symbol_columns = [
            column
            for column in columns
            if column not in field_columns and column not in self._field_columns
        ]
        symbols = [file_symbol(self._names[column]) for column in symbol_columns]
        for symbol in symbols:
            if safe_label(symbol, "") != symbol:
                raise self._error(
                    "a symbol is not a plain name",
                    "use at most 16 letters, digits and ._- characters, or name the columns"
                    f" {_FORMS}",
                )
        if not symbols:
            raise self._error("has no prices", f"name the columns {_FORMS}")
        return PriceLayout(
            LayoutForm.WIDE,
            time_column,
            tuple(zip(symbols, symbol_columns, strict=True)),
            clock_column=clock_column,
            unused_names=self._unused_names({time_column, clock_column, *symbol_columns}),
        )

    def _time_column(self) -> int:
        candidates = [
            column
            for name in TIME_NAMES
            for column, key in enumerate(self._keys)
            if key == name and self._is_time_column(column)
        ]
        if candidates:
            self._require_one_time(candidates)
            return candidates[0]
        is_index = self._keys[0] in ("", *INDEX_NAMES)
        if is_index and self._is_time_column(0):
            return 0
        named = [column for column, key in enumerate(self._keys) if key in TIME_NAMES]
        if named:
            return named[0]
        raise self._error("no column time", f"name the columns {_FORMS}")

    def _require_one_time(self, columns: Sequence[int]) -> None:
        """Raise an error if columns of times are further apart than a bar can last."""
        times_by_column: dict[int, int] = {}
        for column in columns:
            with suppress(ConfigError):  # a date with two readings decides nothing here
                cells = [self._rows[0][column]]
                times_by_column[column] = parse_times(cells, [1], self._file_name).times_s[0]
        for column, time_s in times_by_column.items():
            if abs(time_s - times_by_column.get(columns[0], time_s)) > LONGEST_BAR_S:
                raise self._error(
                    f"columns {self._names[columns[0]]!r} and {self._names[column]!r} have other"
                    " times in row 1",
                    "remove the wrong one",
                )

    def _is_time_column(self, column: int) -> bool:
        return all(is_time(row[column]) for row in self._rows)

    def _clock_column(self, time_column: int) -> int | None:
        """Return the column of times of day beside one of dates; None without."""
        for column, key in enumerate(self._keys):
            if (
                column != time_column
                and key in ("time", "hour")
                and is_clock(self._rows[0][column])
            ):
                return column
        return None

    def _symbol_column(self) -> int | None:
        for name in SYMBOL_NAMES:
            column = self._column(name)
            if column is not None and not all(
                is_number(row[column]) or cell_text(row[column]).lower() in EMPTY_WORDS
                for row in self._rows
            ):
                return column
        return None

    def _close_column(self) -> tuple[int | None, str]:
        """Return the column of closes and the currency in its name."""
        for name in CLOSE_NAMES:
            currency_by_column = self._currency_by_column(name)
            if len(currency_by_column) > 1:
                shown_names = " and ".join(self._names[column] for column in currency_by_column)
                raise self._error(f"has the closes {shown_names}", "remove all but one")
            for column, currency in currency_by_column.items():
                return column, currency
        return None, ""

    def _currency_by_column(self, name: str) -> dict[int, str]:
        """Return the columns with this name, alone or with a currency, which is "" without."""
        return {
            column: CURRENCY_BY_NAME.get(unit, "")
            for column, key in enumerate(self._keys)
            if key.startswith(name)
            and (not (unit := key.removeprefix(name).upper()) or unit in CURRENCY_BY_NAME)
        }

    def _column(self, name: str) -> int | None:
        return self._keys.index(name) if name in self._keys else None

    def _is_counter(self, column: int, name: str) -> bool:
        """Return True for a column without a name that counts rows, as pandas writes it."""
        is_nameless = not name or normalized_name(name) in INDEX_NAMES
        if not is_nameless or not all(isinstance(row[column], int | str) for row in self._rows):
            return False
        texts = [cell_text(row[column]) for row in self._rows]
        first = int(texts[0]) if texts[0].isascii() and texts[0].isdecimal() else 0
        return texts == [str(first + index) for index in range(len(texts))]

    def _require_different_names(self) -> None:
        """Raise an error for two names alike; signs count in those that are not read (Barchart)."""
        keys = [
            key if key in _READ_NAMES else name.lower()
            for key, name in zip(self._keys, self._names, strict=True)
        ]
        repeated = [key for key, count in Counter(keys).items() if count > 1]
        if repeated:
            names = [self._names[i] for i, key in enumerate(keys) if key == repeated[0]]
            raise self._error(
                f"has {len(names)} columns named {names[0]!r}"
                if len(set(names)) == 1
                else f"has columns {' and '.join(map(repr, names))}, which are one name",
                "remove or rename all but one",
            )

    def _unused_names(self, read_columns: set[int | None]) -> tuple[str, ...]:
        return tuple(
            name or "(without a name)"
            for column, name in enumerate(self._names)
            if column not in read_columns
        )

    def _error(self, problem: str, remedy: str) -> ConfigError:
        shown_header = ", ".join(name or "(none)" for name in self._names)[:200]
        return ConfigError(f"{self._file_name}: {problem}; its header is: {shown_header}", remedy)
