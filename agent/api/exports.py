"""Writes the books to files: rotki's generic CSV, plain CSV, Parquet."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agent.api.ledgers import Ledgers, ledgers
from agent.books import rotki
from agent.books.sheets import Sheet, neutral, sheets
from agent.config.load import Where
from agent.errors import ConfigError

Document = dict[str, Any]
FORMATS = ("rotki", "csv", "parquet")


def export(config: Where, kind: str, folder: Path | str, force: bool = False, native: str | None = None) -> Document:
    """Writes all of the book into `folder`, which is made if it is not there; files are their owner's alone, none is overwritten
    unasked. `native` is what rotki calls the chain's native coin, known of itself where that is ether. Raises ConfigError.
    """
    if not str(folder).strip():
        raise ConfigError("--out: it is empty", "name the folder to write to, for example books-2026")
    folder = Path(folder)
    if kind not in FORMATS:
        raise ConfigError(f"--format: {kind!r} is unknown", f"choose from {', '.join(FORMATS)}")
    if native is not None and not native.strip():
        raise ConfigError("--native-asset: it is empty, and rotki would know no asset of that name", "write for example ETH")
    with ledgers(config) as found:
        tables = _rotki(found, native) if kind == "rotki" else _plain(found)
    encoded = [(f"{sheet.name}.{'parquet' if kind == 'parquet' else 'csv'}", sheet) for sheet in tables]
    _folder(folder)
    taken = [name for name, _ in encoded if (folder / name).exists()]
    if taken and not force:
        raise ConfigError(f"--out {folder}: {', '.join(taken)} would be overwritten", "name another folder, or add --force")
    for name, sheet in encoded:
        _write(folder / name, _parquet(sheet) if kind == "parquet" else csv_text(sheet.columns, sheet.rows).encode())
    return {"format": kind, "folder": str(folder), "files": [{"name": name, "rows": len(sheet.rows)} for name, sheet in encoded]}


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """RFC 4180 with Unix line ends; no cell that a spreadsheet would take for a formula (T17)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([neutral(cell) for cell in row] for row in rows)
    return out.getvalue()


def _plain(found: Ledgers) -> tuple[Sheet, ...]:
    tax = found.loaded.config.tax
    currency = found.numeraire.label if tax is None or tax.currency is None else tax.currency
    return sheets(found.entries, found.taxed(), found.valuations, found.names, currency)


def _rotki(found: Ledgers, native: str | None) -> tuple[Sheet, ...]:
    chain = found.loaded.config.chain
    if native is None and not chain.local and chain.chain_id not in rotki.ETHER_CHAINS:
        raise ConfigError(
            f"--native-asset: what rotki calls the native coin of chain {chain.chain_id} is not known here",
            "name it as rotki does, for example XDAI",
        )
    assets = rotki.Assets(chain.chain_id, native or "ETH", found.names.decimals)
    return (
        Sheet("rotki_generic_trades", rotki.TRADE_COLUMNS, tuple(rotki.trades(found.entries, assets))),
        Sheet("rotki_generic_events", rotki.EVENT_COLUMNS, tuple(rotki.events(found.entries, assets))),
    )


def _parquet(sheet: Sheet) -> bytes:
    """Columns of text: base units and values are exact, and no Parquet integer holds 256 bits."""
    try:
        import polars
    except ImportError:
        raise ConfigError("--format parquet needs polars", "pip install 'trimtab[analysis]', or choose csv") from None
    columns = {name: [row[number] for row in sheet.rows] for number, name in enumerate(sheet.columns)}
    out = io.BytesIO()
    polars.DataFrame(columns, schema=dict.fromkeys(sheet.columns, polars.String)).write_parquet(out)
    return out.getvalue()


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror}", "name a folder that can be written") from None


def _write(path: Path, data: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.strerror}", "make room there, or name another folder") from None
