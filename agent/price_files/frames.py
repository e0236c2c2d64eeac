"""Open CSV and Parquet files as frames of polars, and say in plain words why one cannot be read."""

from __future__ import annotations

import csv
from importlib import import_module
from pathlib import Path
from typing import Any

from agent.errors import ConfigError

PARQUET_MAGIC = b"PAR1"
FORMAT_HINT = "give a header with the names of the columns, and a row for each time"


def load_polars() -> Any:
    """Import polars. Raises ConfigError if it is not installed."""
    try:
        return import_module("polars")
    except ImportError:
        raise ConfigError(
            "price files need the package polars", "pip install 'trimtab[analysis]'"
        ) from None


def read_frame(polars: Any, path: Path, option: str = "--prices") -> Any:
    """Read a CSV or Parquet file as a frame with at least one row. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(
            f"{option}: {str(path)!r} is not a file", "name an existing .csv or .parquet file"
        )
    reader = {".csv": polars.read_csv, ".parquet": polars.read_parquet}.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{option}: {path.name} is neither .csv nor .parquet",
            "convert it to CSV or Parquet",
        )
    try:
        if reader is polars.read_csv:
            # infer types from all rows: the first hundred may be whole numbers by chance
            frame = polars.read_csv(path, infer_schema_length=None, glob=False)
        else:
            frame = reader(path, glob=False)
    # a broken file may raise any error of the library
    except (Exception, polars.exceptions.PanicException):
        raise ConfigError(f"{option}: {path.name} {unreadable_reason(path)}", FORMAT_HINT) from None
    for column in frame.columns if reader is polars.read_csv else ():
        name, renaming, _ = column.rpartition("_duplicated_")
        if renaming and name in frame.columns:  # by polars, which would read the first alone
            raise ConfigError(
                f"{option}: {path.name} has two columns named {name!r}", "remove or rename one"
            )
    if frame.height == 0:
        raise ConfigError(f"{option}: {path.name} is empty", FORMAT_HINT)
    return frame


def unreadable_reason(path: Path) -> str:
    """Return the reason why a file cannot be read as a table: encoding, quotes, or the first row
    with too many cells.
    """
    try:
        file_bytes = path.read_bytes()
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if not file_bytes.strip():
        return "is empty"
    if path.suffix.lower() == ".feather":
        return "is damaged"
    if path.suffix.lower() in (".parquet", ".pq"):
        if file_bytes.startswith(PARQUET_MAGIC) and file_bytes.endswith(PARQUET_MAGIC):
            return "is damaged"
        return "is not a Parquet file"
    try:
        csv_text = file_bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text: byte {error.start} is 0x{file_bytes[error.start]:02x}"
    try:
        csv_rows = csv.reader(csv_text.splitlines())
        header = next(csv_rows, [])
        for row_number, row in enumerate(csv_rows, 1):
            if len(row) > len(header):
                return f"has {len(row)} cells in row {row_number}, but {len(header)} columns"
    except csv.Error:
        return "is not comma-separated"
    return "has rows that do not match its header"
