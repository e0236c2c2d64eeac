"""Export of the ledger: rotki's generic CSV, plain CSV, Parquet, as files or as one archive."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.accounting.export import (
    ETHER_CHAINS,
    EVENT_COLUMNS,
    TRADE_COLUMNS,
    ExportTable,
    RotkiAssets,
    escape_formula,
    export_tables,
    rotki_events,
    rotki_trades,
)
from agent.accounting.futures_export import futures_table
from agent.app.records.ledger import LedgerData, open_ledger_data
from agent.config.loaded import ConfigSource
from agent.errors import ConfigError
from agent.files import replace_file

if TYPE_CHECKING:
    from agent.app.documents.records import ExportDocument

FORMATS = ("rotki", "csv", "parquet")


def export(
    config: ConfigSource,
    format_name: str,
    folder: Path | str,
    force: bool = False,
    native_name: str | None = None,
) -> ExportDocument:
    """Write the whole ledger into `folder`, which is created if missing. Files are owner-only, and
    overwritten only with `force`.

    `native_name` is rotki's name of the native coin, needed on chains without ether. Raises
    ConfigError.
    """
    if not str(folder).strip():
        raise ConfigError(
            "--out: it is empty", "name the folder to write to, for example books-2026"
        )
    folder = Path(folder)
    if format_name not in FORMATS:
        raise ConfigError(
            f"--format: {format_name!r} is unknown", f"choose from {', '.join(FORMATS)}"
        )
    if native_name is not None and not native_name.strip():
        raise ConfigError(
            "--native-asset: it is empty",
            "write for example ETH",
        )
    tables = _tables(config, format_name, native_name)
    extension, encode_table = (
        ("parquet", _encode_parquet) if format_name == "parquet" else ("csv", _encode_csv)
    )
    bytes_by_file_name = {f"{table.name}.{extension}": encode_table(table) for table in tables}
    existing_file_names = [
        file_name for file_name in bytes_by_file_name if (folder / file_name).exists()
    ]
    if existing_file_names and not force:
        raise ConfigError(
            f"--out {folder}: {', '.join(existing_file_names)} would be overwritten",
            "name another folder, or add --force",
        )
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out {folder}: {error.strerror}", "name a folder that can be written"
        ) from None
    for file_name, file_bytes in bytes_by_file_name.items():
        _write_file(folder / file_name, file_bytes)
    return {
        "format": format_name,
        "folder": str(folder),
        "files": [
            {"name": file_name, "rows": len(table.rows)}
            for file_name, table in zip(bytes_by_file_name, tables, strict=True)
        ],
    }


ARCHIVE_FORMATS = ("csv", "rotki")


def export_archive(config: ConfigSource, format_name: str) -> bytes:
    """Return a ZIP archive with the files that `export` writes, made in memory. Equal ledgers give
    equal archives. Raises ConfigError.
    """
    if format_name not in ARCHIVE_FORMATS:
        raise ConfigError(
            f"{format_name!r} is not an archive format", f"choose from {', '.join(ARCHIVE_FORMATS)}"
        )
    tables = _tables(config, format_name, None)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for table in tables:
            zip_info = zipfile.ZipInfo(f"{table.name}.csv")  # dated 1980, so archives are equal
            zip_info.external_attr = 0o600 << 16
            archive.writestr(zip_info, _encode_csv(table), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return CSV quoted as in RFC 4180, but with Unix line ends, and without cells that a spreadsheet
    reads as formulas (T17).
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([escape_formula(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _tables(
    config: ConfigSource, format_name: str, native_name: str | None
) -> tuple[ExportTable, ...]:
    with open_ledger_data(config) as ledger:
        return (
            _rotki_tables(ledger, native_name) if format_name == "rotki" else _plain_tables(ledger)
        )


def _plain_tables(ledger: LedgerData) -> tuple[ExportTable, ...]:
    tax_settings = ledger.loaded_config.config.tax
    currency = (
        ledger.numeraire.label
        if tax_settings is None or tax_settings.currency is None
        else tax_settings.currency
    )
    token_names = ledger.token_names
    futures_sheet = futures_table(ledger.entries, ledger.token_names)
    tables = export_tables(
        ledger.entries, ledger.lot_run(), ledger.valuations, token_names, currency
    )
    return (*tables, futures_sheet) if futures_sheet.rows else tables


def _rotki_tables(ledger: LedgerData, native_name: str | None) -> tuple[ExportTable, ...]:
    chain = ledger.loaded_config.config.chain
    if native_name is None and not chain.is_local and chain.chain_id not in ETHER_CHAINS:
        raise ConfigError(
            f"rotki's name of the native coin of chain {chain.chain_id} is unknown",
            "trimtab export --format rotki --native-asset XDAI, for example, gives it",
        )
    rotki_assets = RotkiAssets(chain.chain_id, native_name or "ETH", ledger.token_names.decimals)
    return (
        ExportTable(
            "rotki_generic_trades",
            TRADE_COLUMNS,
            tuple(rotki_trades(ledger.entries, rotki_assets)),
        ),
        ExportTable(
            "rotki_generic_events",
            EVENT_COLUMNS,
            tuple(rotki_events(ledger.entries, rotki_assets)),
        ),
    )


def _encode_csv(table: ExportTable) -> bytes:
    return csv_text(table.columns, table.rows).encode()


def _encode_parquet(table: ExportTable) -> bytes:
    """Return Parquet with text columns, because base units exceed Parquet's integers."""
    try:
        import polars
    except ImportError:
        raise ConfigError(
            "--format parquet needs polars", "pip install 'trimtab[analysis]', or choose csv"
        ) from None
    columns = {
        column_name: [row[column_index] for row in table.rows]
        for column_index, column_name in enumerate(table.columns)
    }
    buffer = io.BytesIO()
    polars.DataFrame(columns, schema=dict.fromkeys(table.columns, polars.String)).write_parquet(
        buffer
    )
    return buffer.getvalue()


def _write_file(path: Path, table_bytes: bytes) -> None:
    try:
        replace_file(path, table_bytes)
    except OSError as error:
        raise ConfigError(
            f"--out {path}: {error.strerror}", "free some space, or name another folder"
        ) from None
