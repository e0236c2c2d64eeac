"""Cells of a price file: its encoding, line ends and separator, the lines before its header, and
rows of JSON.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.foreign_text import MAX_NESTING, read_json
from agent.price_files.frames import FORMAT_HINT, load_polars, unreadable_reason
from agent.price_files.numbers import cell_text, is_number
from agent.price_files.times import is_clock, is_time

Row = Sequence[object]
SEPARATORS = (",", ";", "\t", "|")
BLANK_CHARACTERS = ',;|" \t'
MAX_BANNER_LINES = 10
_HEAD_LENGTH = 2**16
"""Characters in which the header is looked for."""
TEXT_SUFFIXES = (".csv",)
FRAME_SUFFIXES = (".parquet", ".pq", ".feather")
_OTHER_SUFFIXES = {
    ".zip": "unpack it, and name the .csv file inside",
    ".gz": "unpack it, and name the .csv file inside",
    ".xlsx": "save its sheet as CSV UTF-8",
    ".xls": "save its sheet as CSV UTF-8",
    ".txt": "if it is a table of prices, rename it to .csv",
    ".tsv": "rename it to .csv",
}
_ENCODING_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_UTF8_MARK = b"\xef\xbb\xbf"
_LIST_KEYS = ("data", "Data", "result", "results", "list", "prices", "candles")
"""Keys at which services put their candles, in this order."""


@dataclass(frozen=True, slots=True)
class CellTable:
    """Cells of a file. `header` are the names of the columns, None if the first line has data.

    `rows` can be read once; `skipped_lines` precede the header. `separator` is that of the cells.
    `labels` are texts beside the rows, which may name a pair or a currency.
    """

    header: tuple[str, ...] | None
    rows: Iterator[Row]
    skipped_lines: tuple[str, ...] = ()
    separator: str = ","
    labels: tuple[str, ...] = ()

    def split_rows(self, count: int) -> tuple[list[Row], Iterator[Row]]:
        """Return the first `count` rows, and an iterator over all rows."""
        first_rows = list(islice(self.rows, count))
        return first_rows, chain(first_rows, self.rows)


def open_table(path: Path, option: str) -> CellTable:
    """Open a file of prices. `option` is named if there is no such file. Raises ConfigError for
    another kind of file, another encoding than UTF-8, and an empty file.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ConfigError(
            f"{option}: {path}: no such file", "name a file of prices: .csv, .parquet or .json"
        )
    if suffix in FRAME_SUFFIXES:
        return table_of_frame(read_typed_frame(path, option), f"{option}: {path.name}")
    if suffix not in (*TEXT_SUFFIXES, ".json"):
        raise ConfigError(
            f"{option}: {path.name} is neither .csv nor .parquet nor .json",
            _OTHER_SUFFIXES.get(suffix, "convert it to CSV or Parquet"),
        )
    text = _decoded_text(path, option)
    if suffix == ".json":
        return _open_json(text, path, option)
    return _open_csv(text, path, option)


def has_data(row: Row) -> bool:
    """Return True if a row is one of times and numbers, not of names."""
    cells = [cell for cell in row if cell_text(cell)]
    return bool(cells) and all(is_number(cell) or is_time(cell) or is_clock(cell) for cell in cells)


def _decoded_text(path: Path, option: str) -> str:
    try:
        file_bytes = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{option}: {path.name} cannot be opened: {error.strerror}", "make it readable"
        ) from None
    encoding = _ENCODING_MARKS.get(file_bytes[:2], "")
    if not encoding and b"\0" in file_bytes[:64]:
        encoding = "UTF-16 or binary"
    if encoding:
        raise ConfigError(f"{option}: {path.name} is {encoding}", "save it as CSV UTF-8")
    if not file_bytes.removeprefix(_UTF8_MARK).strip():
        raise ConfigError(f"{option}: {path.name} is empty", FORMAT_HINT)
    try:
        return file_bytes.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{option}: {path.name} is not UTF-8 text: byte {error.start} is"
            f" 0x{file_bytes[error.start]:02x}",
            "save it as CSV UTF-8",
        ) from None


def read_typed_frame(path: Path, option: str) -> Any:
    """Return the frame of polars in a Parquet or Feather file. Raises ConfigError for a broken one."""
    polars = load_polars()
    try:
        if path.suffix.lower() == ".feather":
            return polars.read_ipc(path.read_bytes())
        return polars.read_parquet(path, glob=False)
    # a broken file may raise any error of the library
    except (Exception, polars.exceptions.PanicException):
        raise ConfigError(
            f"{option}: {path.name} {unreadable_reason(path)}", "write CSV or Parquet"
        ) from None


def plain_frame(path: Path, option: str) -> Any:
    """Return the frame of polars in a Parquet or Feather file, or in a CSV file of commas whose first
    line has the names of all cells of each row; None for any other. Raises ConfigError for a broken
    one.
    """
    if not path.is_file():
        return None
    if path.suffix.lower() in FRAME_SUFFIXES:
        return read_typed_frame(path, option)
    if path.suffix.lower() not in TEXT_SUFFIXES:
        return None
    text = io.StringIO(_decoded_text(path, option), newline=None).read()
    names = [cell_text(name) for name in text.partition("\n")[0].split(",")]
    polars = load_polars()
    try:
        frame = polars.read_csv(text.encode(), infer_schema_length=None)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException):
        return None
    is_even = text.count(",") == (len(names) - 1) * (frame.height + 1)
    is_header = frame.columns == names and not (has_data(names) or text.startswith("#"))
    return frame if is_header and is_even and len(names) > 1 else None


def table_of_frame(frame: Any, name: str) -> CellTable:
    """Return the cells of a frame of polars. Raises ConfigError for an empty one."""
    if frame.height == 0:
        raise ConfigError(f"{name} is empty", FORMAT_HINT)
    return CellTable(tuple(frame.columns), frame.iter_rows())


def _open_json(text: str, path: Path, option: str) -> CellTable:
    """Open candles as the services of exchanges give them: lists of numbers, or of objects, or a
    list for each column.
    """
    try:
        document = read_json(text, number_type=str)
    except JSONDecodeError:
        raise ConfigError(f"{option}: {path.name} is not JSON", "write CSV or Parquet") from None
    except ValueError as error:
        raise ConfigError(
            f"{option}: {path.name} is JSON with {str(error)[:200]}",
            f"keep one value for each key, at most {MAX_NESTING} levels deep",
        ) from None
    candles = _candles_of(document)
    if isinstance(candles, list) and candles:
        labels = tuple(_labels(document, candles))
        if all(isinstance(entry, list) for entry in candles):
            return CellTable(None, _even_rows(candles, path, option), labels=labels)
        first = candles[0] if isinstance(candles[0], dict) else {}
        names = tuple(first)
        if (
            names
            and not any(isinstance(cell, dict | list) for cell in first.values())
            and all(isinstance(entry, dict) and tuple(entry) == names for entry in candles)
        ):
            return CellTable(names, (list(entry.values()) for entry in candles), labels=labels)
    columns = list(_columns_of(document))
    if len(columns) > 1 and len({len(cells) for _, cells in columns}) == 1:
        rows = zip(*(cells for _, cells in columns), strict=True)
        labels = tuple(_labels(document, None))
        return CellTable(tuple(name for name, _ in columns), rows, labels=labels)
    raise ConfigError(
        f"{option}: {path.name} is JSON, but not a list of candles of one symbol",
        "write [[time, open, high, low, close, volume], …], or CSV",
    )


def _candles_of(document: Any) -> Any:
    """Return what is at a known key of an answer, or is its only list, or its only object."""
    while isinstance(document, dict):
        nested = [entry for entry in document.values() if isinstance(entry, dict | list)]
        candidates = (
            [document[key] for key in _LIST_KEYS if isinstance(document.get(key), dict | list)][:1]
            or [entry for entry in nested if isinstance(entry, list)]
            or nested
        )
        document = candidates[0] if len(candidates) == 1 else None
    return document


def _columns_of(document: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield each list of numbers or times in objects, with its key (Yahoo, Deribit)."""
    for key, entry in document.items() if isinstance(document, dict) else ():
        if isinstance(entry, dict):
            yield from _columns_of(entry)
        elif isinstance(entry, list) and entry:
            if len(entry) == 1 and isinstance(entry[0], dict):
                yield from _columns_of(entry[0])
            elif not isinstance(entry[0], dict | list) and has_data(entry):
                yield key, entry


def _labels(document: Any, candles: list[Any] | None) -> Iterator[str]:
    """Yield the keys and texts of an answer outside its candles."""
    if document is candles:
        return
    if isinstance(document, list) and document:
        document = {"": document[0]}
    for key, entry in document.items() if isinstance(document, dict) else ():
        yield key
        if isinstance(entry, str):
            yield entry
        yield from _labels(entry, candles)


def _open_csv(text: str, path: Path, option: str) -> CellTable:
    head = io.StringIO(text, newline=None).read(_HEAD_LENGTH)
    lines = [line for line in head.split("\n") if line.strip(BLANK_CHARACTERS)]
    separator, skipped_count = _find_separator(lines) if lines else (",", 0)
    if skipped_count == len(lines):
        raise ConfigError(f"{option}: {path.name} is empty", FORMAT_HINT)
    csv_rows = _csv_rows(text, separator, path, option)
    banner_rows = []
    first_row = next(csv_rows)
    line_count = _line_count(first_row)
    while line_count <= skipped_count:
        banner_rows.append(first_row)
        first_row = next(csv_rows)
        line_count += _line_count(first_row)
    skipped_lines = tuple(cell_text(row[0])[:60] for row in banner_rows)
    if has_data(first_row):
        rows = _even_rows(chain([first_row], csv_rows), path, option)
        return CellTable(None, rows, skipped_lines, separator, skipped_lines)
    rows = _even_rows(csv_rows, path, option, len(first_row))
    names = tuple(cell_text(name) for name in first_row)
    return CellTable(names, rows, skipped_lines, separator, skipped_lines)


def _line_count(row: Sequence[str]) -> int:
    """Return how many lines of text a row has that are not blank: its cells may have line ends."""
    return sum(bool(line.strip(BLANK_CHARACTERS)) for line in " ".join(row).split("\n"))


def _find_separator(lines: Sequence[str]) -> tuple[str, int]:
    """Return the separator, and how many lines precede the header: lines of one cell, the first,
    such as the address of a site, before lines of several.
    """
    if lines[0].lower().startswith("sep=") and len(lines[0].strip()) == len("sep=;"):
        return lines[0].strip()[-1], 1
    for skipped_count, line in enumerate(lines[: MAX_BANNER_LINES + 1]):
        filled_counts = {
            separator: sum(bool(cell.strip()) for cell in line.split(separator))
            for separator in SEPARATORS
        }
        separator = max(SEPARATORS, key=lambda mark: filled_counts[mark])
        is_alone = filled_counts[separator] == 1 and bool(line.split(separator)[0].strip())
        is_banner = line.startswith("#") or is_alone
        if not is_banner:
            return separator, skipped_count
    return ",", 0


def _csv_rows(text: str, separator: str, path: Path, option: str) -> Iterator[list[str]]:
    """Yield the rows that are not blank."""
    csv_rows = csv.reader(
        io.StringIO(text, newline=None), delimiter=separator, strict=True, skipinitialspace=True
    )
    try:
        for row in csv_rows:
            if "".join(row).strip(BLANK_CHARACTERS):
                yield row
    except csv.Error:
        raise ConfigError(
            f"{option}: {path.name} has a wrong quote near line {csv_rows.line_num}",
            "close the quotes of each cell, or remove them",
        ) from None


def _even_rows(
    rows: Iterable[Row], path: Path, option: str, column_count: int | None = None
) -> Iterator[Row]:
    """Yield the rows. Raises ConfigError for one with more or fewer cells than the header."""
    for row_number, row in enumerate(rows, 1):
        column_count = len(row) if column_count is None else column_count
        if len(row) != column_count:
            raise ConfigError(
                f"{option}: {path.name} has {len(row)} cells in row {row_number}, but"
                f" {column_count} columns",
                "give each row one cell for each column; remove notes below the prices",
            )
        yield row
