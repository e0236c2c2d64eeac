"""Files of an export, of tables that are already made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.accounting.export import ExportTable
from agent.app.records import exports
from agent.errors import ConfigError

TABLE = ExportTable("entries", ("time", "amount"), (("2026-01-02", "5"),))


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_tables", lambda *_: (TABLE,))


def test_export__parquet_without_polars__leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ConfigError, match="needs polars"):
        exports.export("any.toml", "parquet", tmp_path / "books")
    assert not (tmp_path / "books").exists()


def test_export__file_exists__is_overwritten_with_force_alone(tmp_path: Path) -> None:
    assert exports.export("any.toml", "csv", tmp_path)["files"] == [{"name": "entries.csv", "rows": 1}]
    (tmp_path / "entries.csv").write_text("kept")
    with pytest.raises(ConfigError, match=r"entries\.csv would be overwritten"):
        exports.export("any.toml", "csv", tmp_path)
    assert (tmp_path / "entries.csv").read_text() == "kept"
    exports.export("any.toml", "csv", tmp_path, force=True)
    assert (tmp_path / "entries.csv").read_text() == "time,amount\n2026-01-02,5\n"
