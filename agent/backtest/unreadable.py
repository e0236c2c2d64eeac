"""Why a price file is no table, in our words: libraries speak of their own parts."""

from __future__ import annotations

import csv
from pathlib import Path

PARQUET = b"PAR1"


def why_unreadable(path: Path) -> str:
    """What is wrong with a file that no table could be made of: its text, the first row that does not fit, its marks."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if not data.strip():
        return "is empty"
    if path.suffix.lower() in (".parquet", ".pq"):
        return "is damaged" if data.startswith(PARQUET) and data.endswith(PARQUET) else "is no Parquet file"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is no UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
    try:
        rows = csv.reader(text.splitlines())
        header = next(rows, [])
        for number, row in enumerate(rows, 1):
            if len(row) > len(header):
                return f"has {len(row)} cells in row {number} and {len(header)} columns"
    except csv.Error:
        return "is no table of values between commas"
    return "has rows that do not fit its header"
