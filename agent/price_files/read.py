"""Read a price file: the closes of each symbol, oldest first, exactly, and what was left out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError
from agent.price_files.frames import load_polars
from agent.price_files.layout import (
    CANDLE_LAYOUTS,
    CURRENCY_BY_NAME,
    DOLLAR_NAMES,
    SAMPLE_ROWS,
    BarColumns,
    LayoutForm,
    PriceLayout,
    file_symbol,
    read_layout,
)
from agent.price_files.numbers import (
    PLAIN_NUMBER,
    cell_text,
    is_empty,
    parse_prices,
    require_clear_points,
)
from agent.price_files.table import (
    FRAME_SUFFIXES,
    TEXT_SUFFIXES,
    CellTable,
    Row,
    open_table,
    table_of_frame,
)
from agent.price_files.times import join_clocks, parse_times, typed_times_s, typed_zone_remarks
from agent.units import format_time, pluralize, safe_label
from agent.weights.asset_classes import FIAT_SYMBOLS, is_cash

MAX_SYMBOL_LENGTH = 16
MIN_BASE_LENGTH = 3
"""Letters of the asset in a pair without a sign; crvUSD and agEUR are coins."""
READABLE_SUFFIXES = (*TEXT_SUFFIXES, *FRAME_SUFFIXES, ".json")
_QUOTES = "|".join(CURRENCY_BY_NAME)
_JOINED_QUOTES = "|".join(
    (*DOLLAR_NAMES, "EUR", "GBP", "JPY", "AUD", "BRL", "CAD", "CHF", "KRW", "TRY")
)
_SIGNED_PAIR = re.compile(rf"(?P<base>[A-Za-z0-9.]{{2,}}?)[-_](?P<quote>{_QUOTES})", re.IGNORECASE)
_JOINED_PAIR = re.compile(rf"(?P<base>[A-Z0-9.]{{{MIN_BASE_LENGTH},}}?)(?P<quote>{_JOINED_QUOTES})")
_CHANNEL = re.compile(r"market\.(?P<pair>[a-z0-9]+)\.")
"""Channel of candles (Huobi), the only label with a pair in small letters."""
_OTHER_NAMES = {"XBT": "BTC", "XXBT": "BTC", "XETH": "ETH"}
_BAR_TOLERANCE = 1e-6
"""Relative distance by which a close may lie outside its bar: sites round."""
_MAX_BROKEN_SHARE = 0.5
LEAST_PRICE = 1e-30
"""Prices from it to its inverse are read as floats."""


@dataclass(frozen=True, slots=True)
class SymbolCloses:
    """Closes of one symbol: `closes[i]` at `times_s[i]` (Unix seconds, ascending), from row
    `row_numbers[i]` below the header. `currency` is USD for the dollar and its stablecoins, empty
    if the file names none.
    """

    symbol: str
    times_s: tuple[int, ...]
    closes: tuple[Decimal, ...]
    row_numbers: tuple[int, ...]
    currency: str = ""

    @property
    def interval_s(self) -> int:
        """Return the median of the times between two closes; 0 for a single one."""
        intervals_s = sorted(later_s - earlier_s for earlier_s, later_s in pairwise(self.times_s))
        return intervals_s[len(intervals_s) // 2] if intervals_s else 0


@dataclass(frozen=True, slots=True)
class FileRemark:
    """What was left out of a file or how it was read: how many, and why."""

    count: int
    text: str


@dataclass(frozen=True, slots=True)
class ClosingPrices:
    """All closes of a file. `has_bar_starts` is True if its times are the starts of bars."""

    file_name: str
    layout: str
    series: tuple[SymbolCloses, ...]
    has_bar_starts: bool
    remarks: tuple[FileRemark, ...]


@dataclass(frozen=True, slots=True)
class TypedCloses:
    """Closes of one symbol as SymbolCloses, but as floats in arrays."""

    symbol: str
    times_s: NDArray[np.int64]
    closes: NDArray[np.float64]
    currency: str


@dataclass(frozen=True, slots=True)
class TypedPrices:
    """All closes of a frame as arrays."""

    series: tuple[TypedCloses, ...]
    remarks: tuple[FileRemark, ...]


AnyPrices = TypeVar("AnyPrices", ClosingPrices, TypedPrices)


@dataclass(slots=True)
class _Cells:
    """Cells of one symbol, in the order of the file."""

    closes: list[object] = field(default_factory=list)
    row_numbers: list[int] = field(default_factory=list)


def read_closes(path: Path, option: str = "--prices") -> ClosingPrices:
    """Read a price file of trimtab, of an exchange or of a data site, or a folder of such files, one
    or several for each symbol; times without a zone are UTC.

    Raises ConfigError for layouts that are not known or have two readings, with the change to make;
    for times that are repeated or unordered, for closes that are not positive numbers, for closes
    in several currencies, and for a folder that mixes bars with moments.
    """
    if path.is_dir():
        prices = _read_folder(path, option)
    else:
        prices = _read_table(open_table(path, option), path)
    return _in_one_currency(prices, path.name)


def _in_one_currency(prices: AnyPrices, name: str) -> AnyPrices:
    currencies = {series.currency: series.symbol for series in prices.series if series.currency}
    if len(currencies) > 1:
        pairs_text = ", ".join(
            f"{symbol} in {currency}" for currency, symbol in sorted(currencies.items())
        )
        raise ConfigError(
            f"{name}: has closes in several currencies: {pairs_text}",
            "use pairs with one currency",
        )
    return prices


def closes_of_frame(frame: Any, name: str) -> ClosingPrices:
    """Read a frame of polars as a price file with its columns, as read_closes; `name` is what
    messages call it. Raises ConfigError.
    """
    return _in_one_currency(_read_table(table_of_frame(frame, name), Path(name)), name)


def typed_prices(frame: Any, name: str) -> TypedPrices | None:
    """Return the closes of a frame of polars that has columns of times and numbers, oldest first, as
    closes_of_frame would, without an object for each cell; None for any other frame, which is to be
    read cell by cell, perhaps to name what is wrong in it. Raises ConfigError.
    """
    if not frame.height:
        return None
    layout, _ = read_layout(table_of_frame(frame.head(SAMPLE_ROWS), name), name)
    time_column = frame.get_columns()[layout.time_column]
    times_s = typed_times_s(time_column)
    is_of_closes = layout.bars is None and layout.volume_column is None
    if times_s is None or not is_of_closes or layout.clock_column is not None:
        return None
    all_series = []
    for symbol, column, is_row in _typed_columns(frame, layout, name):
        is_number = column.dtype.is_float() or column.dtype.is_integer()
        is_incomplete = layout.form is LayoutForm.SINGLE and column.null_count() > 0
        if not is_number or is_incomplete or not symbol or safe_label(symbol, "") != symbol:
            return None
        is_priced = np.asarray(column.is_not_null()) & is_row
        series = TypedCloses(
            symbol,
            times_s[is_priced],
            np.asarray(column, dtype=np.float64)[is_priced],
            _one_currency((layout.currency, currency_of_pair(symbol)), f"{name}: {symbol}"),
        )
        is_price = (series.closes > LEAST_PRICE) & (series.closes < 1 / LEAST_PRICE)
        if not is_price.all() or (np.diff(series.times_s) <= 0).any():
            return None
        all_series.append(series)
    if len({series.symbol for series in all_series}) < len(all_series):
        return None
    zone_remarks = [FileRemark(1, text) for text in typed_zone_remarks(time_column, times_s)]
    prices = TypedPrices(tuple(all_series), (*_unused_remarks(layout), *zone_remarks))
    return _in_one_currency(prices, name)


def _typed_columns(
    frame: Any, layout: PriceLayout, name: str
) -> Iterator[tuple[str, Any, NDArray[np.bool_] | bool]]:
    """Yield each symbol with the column of its closes and which rows are its own."""
    columns = frame.get_columns()
    for symbol, column in layout.close_columns:
        if layout.symbol_column is None:
            is_single = layout.form is LayoutForm.SINGLE
            yield _symbol_of_file(Path(name)) if is_single else symbol, columns[column], True
            continue
        row_names = columns[layout.symbol_column].cast(load_polars().String)
        for row_name in row_names.unique(maintain_order=True):
            is_row = row_names.eq_missing(row_name)
            yield row_name or "", columns[column], np.asarray(is_row)


def _unused_remarks(layout: PriceLayout) -> list[FileRemark]:
    if not layout.unused_names:
        return []
    shown_names = ", ".join(name[:24] for name in layout.unused_names[:8])
    return [FileRemark(len(layout.unused_names), f"columns not used: {shown_names}")]


def _read_folder(folder: Path, option: str) -> ClosingPrices:
    """Return the closes of all price files of a folder. Times of a symbol in several files must
    differ.
    """
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in READABLE_SUFFIXES and path.is_file()
    )
    if not paths:
        raise ConfigError(
            f"{option}: {folder}: no such file, but a folder without price files",
            "name a file of prices or a folder with some: .csv, .parquet or .json",
        )
    files = [_read_table(open_table(path, option), path) for path in paths]
    if len({prices.has_bar_starts for prices in files}) > 1:
        bar_name, moment_name = (
            next(prices.file_name for prices in files if prices.has_bar_starts is has_bar_starts)
            for has_bar_starts in (True, False)
        )
        raise ConfigError(
            f"{option}: {folder.name} mixes bars ({bar_name}) and prices of moments ({moment_name})",
            "use files of one kind",
        )
    closes_by_symbol: dict[str, list[tuple[int, Decimal, int, str]]] = {}
    currencies_by_symbol: dict[str, set[str]] = {}
    remarks = []
    for prices in files:
        remarks += [
            FileRemark(remark.count, f"{prices.file_name}: {remark.text}")
            for remark in prices.remarks
        ]
        for series in prices.series:
            currencies_by_symbol.setdefault(series.symbol, set()).add(series.currency)
            closes = closes_by_symbol.setdefault(series.symbol, [])
            file_names = [prices.file_name] * len(series.times_s)
            closes += zip(
                series.times_s, series.closes, series.row_numbers, file_names, strict=True
            )
    all_series = []
    for symbol, closes in closes_by_symbol.items():
        closes.sort()
        for (time_s, close, _, name), (later_s, later_close, _, later_name) in pairwise(closes):
            if later_s == time_s:
                raise ConfigError(
                    f"{option}: {folder.name} has two closes of {symbol} at {format_time(time_s)}:"
                    f" {close} in {name}, {later_close} in {later_name}",
                    "keep one of the files with this time",
                )
        all_series.append(
            SymbolCloses(
                symbol,
                tuple(time_s for time_s, _, _, _ in closes),
                tuple(close for _, close, _, _ in closes),
                tuple(row_number for _, _, row_number, _ in closes),
                _one_currency(currencies_by_symbol[symbol], f"{folder.name}: {symbol}"),
            )
        )
    return ClosingPrices(
        folder.name,
        f"{len(files)} files",
        tuple(all_series),
        files[0].has_bar_starts,
        tuple(remarks),
    )


def _read_table(file_cells: CellTable, path: Path) -> ClosingPrices:
    layout, table = read_layout(file_cells, path.name)
    remarks = [
        FileRemark(1, f"line {number} above the header is not data: {line[:40]!r}")
        for number, line in enumerate(table.skipped_lines, 1)
    ]
    rows = list(table.rows)
    if table.header is None and layout.bars is not None:
        layout, order_text = _proven_candles(rows, path.name)
        remarks.append(FileRemark(1, f"no header: read as {order_text}, as the prices show"))
    elif layout.bars is not None:
        remarks += _broken_bar_remarks(rows, layout.bars, path.name)
    remarks += _unused_remarks(layout)
    rows_and_numbers = list(enumerate(rows, 1))
    if layout.bars is not None:
        bar_columns = (layout.bars.open, layout.bars.high, layout.bars.low, layout.bars.close)
        full_rows = [
            (number, row)
            for number, row in rows_and_numbers
            if not all(is_empty(row[column]) for column in bar_columns)
        ]
        if empty_count := len(rows_and_numbers) - len(full_rows):
            remarks.append(
                FileRemark(empty_count, f"{pluralize(empty_count, 'bar')} without prices left out")
            )
        rows_and_numbers = full_rows
    _require_volumes(rows_and_numbers, layout, path.name)
    cells_by_symbol = _cells_by_symbol(rows_and_numbers, layout, path)
    time_by_row, time_remarks = _row_times(rows_and_numbers, layout, path.name)
    remarks += [FileRemark(1, text) for text in time_remarks]
    series = []
    for symbol, cells in cells_by_symbol.items():
        if table.separator == ";":
            require_clear_points(cells.closes, cells.row_numbers, path.name)
        currency = _one_currency(
            {layout.currency, currency_of_pair(symbol), *map(_currency_of_label, table.labels)},
            f"{path.name}: {symbol}",
        )
        symbol_series, is_reversed = _series(symbol, cells, time_by_row, path.name, currency)
        series.append(symbol_series)
        if is_reversed:
            remarks.append(FileRemark(len(cells.closes), f"{symbol} was newest first: reversed"))
    return ClosingPrices(
        path.name,
        layout.form.value,
        tuple(series),
        layout.bars is not None and not layout.has_end_times,
        tuple(remarks),
    )


def _currency_of_label(label: str) -> str:
    """Return the currency that a text beside the rows names, alone or in a pair; empty without, as
    for words such as Industry.
    """
    channel = _CHANNEL.match(label)
    words = re.split(r"[\s:.,;()]+", label) if channel is None else [channel["pair"].upper()]
    for word in words:
        if currency := CURRENCY_BY_NAME.get(word) or currency_of_pair(file_symbol(word)):
            return currency
        if currency := currency_of_pair(file_symbol(word.removeprefix("t"))):
            return currency
    return ""


def _one_currency(currencies: Iterable[str], place: str) -> str:
    """Return the only currency that is not empty, if any. Raises ConfigError for several."""
    known = sorted({*currencies} - {""})
    if len(known) > 1:
        raise ConfigError(
            f"{place} has closes in several currencies: {', '.join(known)}",
            "keep the closes of one, and remove the name of the other",
        )
    return "".join(known)


def asset_of_pair(symbol: str) -> str:
    """Return the asset that a pair such as BTC-USDT or XBTUSD prices, in capitals; of a symbol that
    is no pair, such as crvUSD, the symbol.
    """
    match = _pair(symbol)
    asset = (match["base"] if match is not None else symbol).upper()
    return _OTHER_NAMES.get(asset, asset)


def currency_of_pair(symbol: str) -> str:
    """Return the currency of a pair such as BTC-EUR or BTCUSDT: USD for the dollar and its stable
    coins; empty for a symbol that is no pair.
    """
    match = _pair(symbol)
    return "" if match is None else CURRENCY_BY_NAME[match["quote"].upper()]


def _pair(symbol: str) -> re.Match[str] | None:
    """Return the parts of a pair: one with a sign, or with a long base and all letters of one case,
    but no word such as industry.
    """
    joined = symbol.upper() if symbol.islower() and not symbol.endswith("try") else symbol
    return _SIGNED_PAIR.fullmatch(symbol) or _JOINED_PAIR.fullmatch(joined)


def is_unit_of(symbol: str, currency: str) -> bool:
    """Return whether a coin of this name is worth one of the currency: USDC of USD, EURC of EUR, but
    not sDAI, which is worth more each day. An empty currency is unknown, and any coin may be its
    unit.
    """
    name = symbol.upper()
    named_currencies = [fiat for fiat in FIAT_SYMBOLS if fiat in name] or ["USD"]
    return not currency or (is_cash(name) and currency in named_currencies)


def symbol_pairs(file_symbols: Sequence[str], symbols: Sequence[str]) -> dict[str, str]:
    """Return which of `symbols` each of `file_symbols` prices, as far as their names say: BTC or
    BTCUSDT prices BTC, and WBTC, and LINK prices Chainlink, but ETH not rETH, whose rate grows. An
    equal name goes first, in any case of its letters.
    """

    def fits(asset: str, symbol: str) -> bool:
        is_name = symbol.istitle() and symbol.upper().endswith(asset)
        return is_name or asset == symbol.upper() or f"W{asset}" == symbol

    name_by_capitals = {name.upper(): name for name in file_symbols}
    pairs = {
        symbol if symbol in file_symbols else name_by_capitals[symbol.upper()]: symbol
        for symbol in symbols
        if symbol.upper() in name_by_capitals
    }
    for symbol in symbols:
        fitting = [
            name
            for name in file_symbols
            if name not in pairs and symbol not in pairs and fits(asset_of_pair(name), symbol)
        ]
        if fitting:
            pairs[max(fitting, key=lambda name: len(asset_of_pair(name)))] = symbol
    return pairs


def _symbol_of_file(path: Path) -> str:
    """Return the symbol of a file of one symbol from the start of its name: BTCUSDT for
    BTCUSDT-1d-2024-01.csv, btc-usd for btc-usd-max.csv.
    """
    parts = [part for part in re.split(r"[^A-Za-z0-9.]+", path.stem) if part]
    symbol = parts[0] if parts else "PRICE"
    if len(parts) > 1 and re.fullmatch(_QUOTES, parts[1], re.IGNORECASE):
        symbol = f"{symbol}-{parts[1]}"
    symbol = symbol[:MAX_SYMBOL_LENGTH]
    return symbol if safe_label(symbol, "") == symbol else "PRICE"


def _order_text(bars: BarColumns) -> str:
    names = {bars.open: "open", bars.high: "high", bars.low: "low", bars.close: "close"}
    return f"time, {', '.join(names[column] for column in sorted(names))}"


def _proven_candles(rows: Sequence[Row], file_name: str) -> tuple[PriceLayout, str]:
    """Return the layout, and the order of its columns as text, of the only candles in which each low
    is the least and each high the greatest price of its bar, and bars open where the last closed.
    Raises ConfigError if no order fits, or several with other closes.
    """
    times_s = parse_times([row[0] for row in rows], range(1, len(rows) + 1), file_name).times_s
    oldest_first = rows[::-1] if times_s[-1] < times_s[0] else rows
    fitting = [
        (layout, _order_text(layout.bars))
        for layout in CANDLE_LAYOUTS
        if layout.bars is not None
        and len(rows[0]) > max(layout.bars.open, layout.bars.high, layout.bars.low)
        and _broken_bar_count(rows, layout.bars) == 0
        and _opens_at_last_closes(oldest_first, layout.bars)
    ]
    close_columns = {layout.close_columns[0][1] for layout, _ in fitting}
    if len(close_columns) == 1:
        return fitting[0]
    problem = (
        "more than one order of its columns is possible"
        if fitting
        else "no known order of columns has the low and high of each row at its ends, and its open"
        " near the close before"
    )
    raise ConfigError(
        f"{file_name}: has no header, and {problem}; row 1 is:"
        f" {', '.join(cell_text(cell) for cell in rows[0])[:120]}",
        "write a first line that names the columns in the file's order, such as"
        " time,open,high,low,close,volume",
    )


def _broken_bar_count(rows: Sequence[Row], bars: BarColumns) -> int:
    """Return how many rows have a price below their low or above their high, or lack some of their
    prices.
    """
    open_prices, high, low, closes = (
        _floats([row[column] for row in rows])
        for column in (bars.open, bars.high, bars.low, bars.close)
    )
    is_missing = np.isnan([open_prices, high, low, closes])
    is_inside = (low * (1 - _BAR_TOLERANCE) <= np.minimum(open_prices, closes)) & (
        np.maximum(open_prices, closes) <= high * (1 + _BAR_TOLERANCE)
    )
    return int((~is_inside & ~is_missing.all(axis=0)).sum())


def _opens_at_last_closes(rows: Sequence[Row], bars: BarColumns) -> bool:
    """Return False if opens and closes are interchanged: then each close is nearer to the open
    before it than each open to the close before.
    """
    opens = _floats([row[bars.open] for row in rows])
    closes = _floats([row[bars.close] for row in rows])
    gaps = np.nansum(np.abs(opens[1:] - closes[:-1]))
    return bool(gaps <= np.nansum(np.abs(closes[1:] - opens[:-1])))


def _floats(cells: Sequence[object]) -> NDArray[np.float64]:
    """Return cells as floats, NaN for those that are no numbers."""
    try:
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = [_float(cell) for cell in cells]
        return np.array([math.nan if number is None else number for number in numbers])


def _broken_bar_remarks(rows: Sequence[Row], bars: BarColumns, file_name: str) -> list[FileRemark]:
    broken_count = _broken_bar_count(rows, bars)
    if not broken_count:
        return []
    if broken_count > _MAX_BROKEN_SHARE * len(rows):
        raise ConfigError(
            f"{file_name}: {broken_count} of {len(rows)} rows have an open or close outside low to"
            " high",
            "correct the names of the columns open, high, low and close",
        )
    return [
        FileRemark(
            broken_count,
            f"{pluralize(broken_count, 'bar')} with an open or close outside low to high",
        )
    ]


def _float(cell: object) -> float | None:
    text = cell_text(cell).replace(",", "")
    return float(text) if PLAIN_NUMBER.fullmatch(text) else None


def _require_volumes(rows: Sequence[tuple[int, Row]], layout: PriceLayout, file_name: str) -> None:
    if layout.volume_column is None:
        return
    for row_number, row in rows:
        volume = _float(row[layout.volume_column])
        if volume is not None and volume < 0:
            raise ConfigError(
                f"{file_name}, row {row_number}: a negative volume",
                "check the file: its rows may be damaged",
            )


def _cells_by_symbol(
    rows: Sequence[tuple[int, Row]], layout: PriceLayout, path: Path
) -> dict[str, _Cells]:
    cells_by_symbol = {symbol: _Cells() for symbol, _ in layout.close_columns if symbol}
    single_symbol = _symbol_of_file(path) if layout.form is LayoutForm.SINGLE else ""
    for row_number, row in rows:
        for column_symbol, column in layout.close_columns:
            close = row[column]
            symbol = column_symbol or single_symbol or _row_symbol(row, row_number, layout, path)
            cells = cells_by_symbol.setdefault(symbol, _Cells())
            if (
                layout.form is not LayoutForm.SINGLE
                and layout.bars is None
                and not cell_text(close)
            ):
                continue
            cells.closes.append(close)
            cells.row_numbers.append(row_number)
    return cells_by_symbol


def _row_symbol(row: Row, row_number: int, layout: PriceLayout, path: Path) -> str:
    symbol = file_symbol(cell_text(row[layout.symbol_column or 0]))
    if not symbol:
        raise ConfigError(
            f"{path.name}, row {row_number}: no symbol", "remove rows without a symbol"
        )
    if safe_label(symbol, "") != symbol:
        raise ConfigError(
            f"{path.name}, row {row_number}: a symbol is not a plain name",
            "use at most 16 letters, digits and ._- characters",
        )
    return symbol


def _row_times(
    rows: Sequence[tuple[int, Row]], layout: PriceLayout, file_name: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the Unix seconds of each row by its number, and how times were read."""
    cells: list[object] = [row[layout.time_column] for _, row in rows]
    missing_rows = [
        number for (number, _), cell in zip(rows, cells, strict=True) if _text_or_time(cell) == ""
    ]
    if missing_rows:
        fault = f"row {missing_rows[0]} has no time"
        if len(missing_rows) > 1:
            fault = f"{len(missing_rows):,} rows have no time, the first is row {missing_rows[0]}"
        raise ConfigError(f"{file_name}: {fault}", "remove rows without a time")
    if layout.clock_column is not None:
        clocks = [row[layout.clock_column] for _, row in rows]
        cells = list(join_clocks(cells, clocks))
    numbers = [number for number, _ in rows]
    column_times = parse_times(cells, numbers, file_name)
    return dict(zip(numbers, column_times.times_s, strict=True)), column_times.remarks


def _text_or_time(cell: object) -> object:
    """Return a typed time as it is, other cells as text."""
    return cell if hasattr(cell, "year") else cell_text(cell)


def _series(
    symbol: str, cells: _Cells, time_by_row: dict[int, int], file_name: str, currency: str
) -> tuple[SymbolCloses, bool]:
    """Return the closes of a symbol, oldest first, and True if the file has them newest first."""

    def row_text(row_number: int) -> str:
        return f"{file_name}, row {row_number}, {format_time(time_by_row[row_number])}"

    times_s = [time_by_row[row_number] for row_number in cells.row_numbers]
    closes = parse_prices(cells.closes, cells.row_numbers, row_text, symbol)
    row_numbers = list(cells.row_numbers)
    is_reversed = len(times_s) > 1 and times_s[-1] < times_s[0]
    if is_reversed:
        times_s.reverse()
        closes.reverse()
        row_numbers.reverse()
    for index in range(1, len(times_s)):
        if times_s[index] <= times_s[index - 1]:
            time_text = format_time(times_s[index])
            problem = f"a repeated time, {time_text}: {closes[index - 1]} and {closes[index]}"
            if times_s[index] != times_s[index - 1]:
                problem = f"an unordered time, {time_text} after {format_time(times_s[index - 1])}"
            raise ConfigError(
                f"{file_name}, row {row_numbers[index]}: {symbol} has {problem}",
                "sort the rows by time, without duplicates",
            )
    series = SymbolCloses(symbol, tuple(times_s), tuple(closes), tuple(row_numbers), currency)
    return series, is_reversed
